/* SPDX-License-Identifier: BSD-2-Clause */
/* addr.h - the addresses that p9d listens on and p9 connects to, as text and as socket addresses.
 *
 *   unix:PATH    tcp:HOST:PORT    tcp:[V6]:PORT    fd:N    fd:IN,OUT    stdio    vhost-user:PATH[,OPTION]...
 */
#ifndef P9_BASE_ADDR_H
#define P9_BASE_ADDR_H
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include "p9/error.h"

enum p9_addr_kind { P9_ADDR_UNIX, P9_ADDR_TCP, P9_ADDR_FD, P9_ADDR_STDIO, P9_ADDR_VHOST };

#define P9_ADDR_DEFAULT_PORT "564"

struct p9_addr {
	enum p9_addr_kind kind;
	char path[108]; /* unix, vhost-user */
	char host[256]; /* tcp, brackets removed */
	char port[32];	/* tcp, number or service name; "564" when none was given */
	int in, out;	/* fd and stdio; the same number for fd:N */
	/* vhost-user: */
	char tag[32];	  /* what a guest mounts; "" when it was not said */
	char export[256]; /* the one that is shared; "" for all */
	unsigned queues;  /* 0 when it was not said */
	bool connect;	  /* the monitor listens */
};

/* Parses `text`. Returns 0, or -P9_EINVAL and says why in err (always terminated). No look-ups, no descriptors. */
P9_MUST_USE int p9_addr_parse(struct p9_addr *a, const char *text, char *err, size_t cap);
/* Writes the address p9d and p9 use when none is given: unix:$XDG_RUNTIME_DIR/p9.sock, as root unix:/run/p9.sock,
 * and unix:/tmp/p9-UID.sock when XDG_RUNTIME_DIR is not set. */
void p9_addr_default(char *buf, size_t cap);
/* Connects (blocking); for vhost-user to the device's control socket. For fd and stdio nothing is opened: *in and *out are the numbers given. Otherwise *in == *out.
 * Returns 0 or -P9_Exxx with the cause in err ("tcp:host:564: Connection refused (ECONNREFUSED)"). TCP_NODELAY is set. */
P9_MUST_USE int p9_addr_connect(const struct p9_addr *a, int *in, int *out, char *err, size_t cap);

/* Begins to connect to a unix, vhost-user or tcp address without waiting; only the look-up of a host's name may take its time. Of
 * several addresses of a host, attempt number n takes the n-th, round and round. Returns 0 with a descriptor that is
 * connected, or has failed, once it can be written to; or -P9_Exxx with the cause. */
P9_MUST_USE int p9_addr_connect_begin(const struct p9_addr *a, unsigned attempt, int *fd, char *err, size_t cap);

#endif
