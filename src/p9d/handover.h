/* SPDX-License-Identifier: BSD-2-Clause */
/* handover.h - one p9d takes over from another: both ends. See packet.h for what they say. */
#ifndef P9_P9D_HANDOVER_H
#define P9_P9D_HANDOVER_H
#include "base/pack.h"
#include "p9d/p9d.h"

/* ---- state.c: what is handed over beside connections ---- */
struct p9d_old_export {
	char *name;
	struct lroot *root; /* NULL once it is an export of ours */
	struct p9_local_config local;
	char *path;
	enum p9_checks checks;
	enum p9_squash squash;
	bool used; /* fids are in it */
};
struct p9d_old_listener {
	char text[400];
	int fd; /* -1: it was a connection from the beginning, and is among those; or it is ours now */
	unsigned long dev, ino;
	bool unlink_path, passed, taken;
};
struct p9d_old {
	struct p9d_old_export exports[P9D_EXPORT_MAX];
	unsigned nexports;
	struct p9d_old_listener listeners[P9D_LISTEN_MAX];
	unsigned nlisteners;
};
/* All of a frozen server. */
void p9d_pack(struct p9d *d, struct p9_pack *p);
/* The part that comes before connections: numbers for qids, exports, listeners. u says what is wrong. */
void p9d_unpack(struct p9d_old *old, struct p9_unpack *u);
/* Gives the root of the old export to ours, when they are the same one. -1 and a line on stderr: clients are in it, and
 * it is not the same. */
P9_MUST_USE int p9d_old_root(struct p9d_old *old, struct p9d_export *e);
/* All exports that clients are in must be ours by now. */
P9_MUST_USE int p9d_old_check(const struct p9d_old *old);
struct p9d_old_listener *p9d_old_listener(struct p9d_old *old, const char *text);
/* Closes what nobody wanted; with `ours` takes socket files away, too, for they are ours now. */
void p9d_old_close(struct p9d_old *old, bool ours);

/* ---- control.c: the one that goes ---- */
/* Makes the private socket. That it cannot be made is said, and no error. */
void p9d_control_open(struct p9d *d);
void p9d_control_close(struct p9d *d);
/* Somebody has connected. Does not return when all is given away: the process ends. */
void p9d_control_ready(struct p9d *d);
/* The directory of private sockets; c->control itself when it is one. */
const char *p9d_control_dir(const struct p9d_config *c);

/* ---- takeover.c: the one that comes ---- */
struct p9d_takeover {
	int sock; /* -1: nothing is taken over */
	pid_t pid;
	uint8_t *bytes;
	size_t len;
	int *fds;
	struct p9_unpack u;
	struct p9d_old old;
};
/* Finds who is to be taken over, and gets its state. Returns 0 or an exit code, with the reason on stderr. */
P9_MUST_USE int p9d_takeover_begin(struct p9d *d);
/* The server is frozen and has exports and listeners: makes its connections, and has the old one end. Does not return
 * when that fails. */
void p9d_takeover_finish(struct p9d *d);
/* It was not to be, before the server was started; the reason is on stderr. */
void p9d_takeover_leave(struct p9d *d);
/* It was not to be: ends with a line on stderr; what was given is left as it is. */
__attribute__((noreturn)) void p9d_takeover_fail(struct p9d *d, const char *why);

#endif
