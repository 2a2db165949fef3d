/* SPDX-License-Identifier: BSD-2-Clause */
/* server.h - a 9P2000.L server as a library: exports, limits, links. p9d is its first user.
 *
 * Thread rules: everything is called on one thread before p9_server_start and after p9_server_stop, except what says
 * otherwise.
 */
#ifndef P9_SERVER_H
#define P9_SERVER_H
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include "p9/backend.h"
#include "p9/error.h"
#include "p9/transport.h"

struct p9_server;
struct p9_export;
struct p9_pack;
struct p9_unpack;

enum p9_checks { P9_CHECKS_AUTO, P9_CHECKS_SERVER, P9_CHECKS_CLIENT };
enum p9_squash { P9_SQUASH_AUTO, P9_SQUASH_NONE, P9_SQUASH_ROOT, P9_SQUASH_ALL };

struct p9_server_config {
	uint32_t msize;	    /* largest msize granted */
	bool users;	    /* each request as the user who attached; needs root */
	unsigned loops;	    /* event loops; 0 for one per processor, at most 4 */
	unsigned workers;   /* threads for calls that block */
	unsigned conns;	    /* connections at most */
	unsigned lock_wait; /* seconds a blocking lock waits before it is answered BLOCKED */
	bool trace;	    /* print every message */
	unsigned look_us;   /* how long a loop looks at sockets before it sleeps, at most; 0: not at all */
};

struct p9_export_config {
	const char *name; /* what an aname picks */
	const struct p9_backend *backend;
	void *root;    /* for backend->attach */
	bool ro;       /* read-only */
	bool ro_below; /* and the backend itself answers EROFS; otherwise the server does */
	enum p9_checks checks;
	enum p9_squash squash;
};

/* Where a connection comes from. */
struct p9_peer {
	enum { P9_PEER_UNIX, P9_PEER_TCP, P9_PEER_FD, P9_PEER_GUEST } kind;
	bool known; /* uid, gid, pid are the kernel's word (SO_PEERCRED) */
	uint32_t uid, gid, pid;
	char text[96];	    /* for log lines */
	bool remote;	    /* comes over a network, from: */
	uint8_t source[16]; /* an IPv6 /64, or a mapped IPv4 address */
	const char *only; /* name of the one export that it may attach to, valid as long as the server; NULL for any */
	void *make_arg;	  /* for the p9_link_make */
};

/* Makes the link that was packed for such a peer. */
typedef struct p9_link *p9_peer_link(struct p9_loop *loop, const struct p9_peer *peer, struct p9_unpack *u);

P9_MUST_USE int p9_server_new(const struct p9_server_config *conf, struct p9_server **out);
/* Adds an export. The strings must stay valid. */
P9_MUST_USE int p9_server_export(struct p9_server *srv, const struct p9_export_config *conf);
struct p9_loop *p9_server_loop(struct p9_server *srv, unsigned i);
/* Makes the list of exports and starts the threads. */
P9_MUST_USE int p9_server_start(struct p9_server *srv);
/* Takes a connected pair of descriptors over (the same number twice for a socket). On loop 0 or before start. When
 * there are too many connections they are closed at once and -P9_EMFILE returned; when only this source has too many,
 * -P9_EBUSY, or -P9_EAGAIN when that was said less than a minute ago. */
P9_MUST_USE int p9_server_accept(struct p9_server *srv, p9_link_make *make, int in, int out,
				 const struct p9_peer *peer);
/* Number of connections now. Any thread. */
unsigned p9_server_conns(const struct p9_server *srv);
/* Number of fids of all connections; it may lag behind by what is being done. Any thread. */
unsigned p9_server_fids(const struct p9_server *srv);
/* Prints counters and the latency histogram of every operation. Any thread. */
void p9_server_stats(struct p9_server *srv, FILE *f);
/* ---- handing over to another process (base/pack.h) ---- */
struct p9_patience {
	unsigned ms;
	bool (*over)(void *arg); /* true: wait no longer. May be NULL */
	void *arg;
};
/* Stands the server still: no messages are taken, what runs is waited for; what runs for long, while the others are
 * served. Returns 0, and nothing of it moves until p9_server_thaw(); or -P9_ETIMEDOUT: all goes on as before, and `why`
 * names what did not come to an end. After start, from the one thread that also calls the others of this section. */
P9_MUST_USE int p9_server_freeze(struct p9_server *srv, const struct p9_patience *patience, char *why, size_t cap);
void p9_server_thaw(struct p9_server *srv);
/* Whether a fid is in this export. Frozen. */
bool p9_server_uses(const struct p9_server *srv, const char *name);
/* Writes all connections. Nothing changes by it. Frozen. */
void p9_server_pack(struct p9_server *srv, struct p9_pack *p);
/* Makes connections of that, whose links `link_of` makes; they move from the thaw on. -P9_EINVAL: u says what is wrong, and
 * some may have been made: p9_server_forget(). Frozen, and without connections. */
P9_MUST_USE int p9_server_unpack(struct p9_server *srv, struct p9_unpack *u, p9_peer_link *link_of);
/* Lets go of all connections without a word to their peers, who have another server. Frozen, or never started. */
void p9_server_forget(struct p9_server *srv);

/* Ends all connections and threads; waits `ms` at most for calls that hang. Returns false when some still do. */
bool p9_server_stop(struct p9_server *srv, unsigned ms);
/* After a stop that returned true. */
void p9_server_free(struct p9_server *srv);

#endif
