/* SPDX-License-Identifier: BSD-2-Clause */
/* internal.h - the client handle, for the files of src/client/ alone. */
#ifndef P9_CLIENT_INTERNAL_H
#define P9_CLIENT_INTERNAL_H
#include "engine/engine.h"
#include "p9/client.h"

struct p9_client {
	struct p9_engine engine;
	void *mem;
	int in, out;
	bool own, in_socket, out_socket;
	int out_flags; /* of a descriptor that is no socket, to be put back; -1 for none */
	int timeout_ms;
	uint32_t root;
	char peer[128]; /* for the texts of link errors */
	char error[512];
};

/* link.c */
/* Sends and receives once; waits when nothing is there. Returns 1, 0 after a signal, or the link's error. */
P9_MUST_USE int p9_client_move(struct p9_client *c);
/* client.c */
/* Sets the text for an error number and returns -ecode; ecode may have either sign. */
int p9_client_set_error(struct p9_client *c, int ecode);
/* Sets the text for the link's end and returns its code. */
int p9_client_link_error(struct p9_client *c);

#endif
