/* SPDX-License-Identifier: BSD-2-Clause */
/* internal.h - what the files of the server share, in sections titled by file.
 *
 * A connection belongs to one loop, for life; so fid table, tags and requests need no lock. A request that leaves the
 * loop (because it blocked, or is known to) is `detached`: it then owns its bytes, pins its fids, and is in the table
 * of tags; one that runs in place does none of that.
 */
#ifndef P9_SERVER_INTERNAL_H
#define P9_SERVER_INTERNAL_H
#include <time.h>
#include "base/gate.h"
#include "base/log.h"
#include "base/lock.h"
#include "base/loop.h"
#include "p9/codec.h"
#include "p9/server.h"
#include "p9/transport.h"

#define TAG_BUCKETS 64
#define HIST_BUCKETS 24
#define P9_VOLUMES 8 /* of an export, told apart; a power of two */

/* ---- export.c ---- */
struct p9_export {
	struct p9_export_config conf;
	struct p9_server *srv;
	/* By p9_node.volume, for what is mounted below an export hangs by itself. */
	struct p9_volume {
		struct p9_lane lane;
		_Atomic unsigned slow; /* > 0: calls leave the loop; counts down with every quick one */
	} volume[P9_VOLUMES];
};

static inline struct p9_volume *p9_volume_of(struct p9_export *ex, const struct p9_node *n)
{
	return &ex->volume[n->volume & (P9_VOLUMES - 1)];
}

/* ---- users.c ---- */
#define P9_UNAME_MAX 256u /* no user's name is that long */
struct p9_conn;
struct p9_req;
/* Who the request's user is on this export. Looks users up: may block. */
int p9_users_cred(const struct p9_conn *conn, const struct p9_export *ex, const struct p9_tattach *m,
		  struct p9_cred **out);

/* ---- fid.c ---- */
struct p9_attach { /* one Tattach; shared by the fids that come from it */
	_Atomic unsigned refs;
	struct p9_cred *cred;
	struct p9_export *ex;
	uint32_t n_uname;
	uint16_t uname_len;
	char uname[];
};
struct p9_xattr {
	bool writing;
	uint32_t flags, size, done;
	uint8_t *value;
	uint16_t name_len;
	char name[P9_NAMEMAX];
};
struct p9_fid {
	uint32_t id;
	unsigned pins;		   /* detached requests that use it */
	unsigned readers, writers; /* detached requests at work on it, by order */
	bool unborn;		   /* the request that makes it is still at work */
	bool gone;		   /* clunked, or never came to be */
	struct p9_node *node;
	struct p9_file *file;
	struct p9_attach *at;
	struct p9_xattr *xattr;
	struct p9_req *wait_head, *wait_tail;
	struct p9_fid *next; /* list of the free, or of those to be released */
};
struct p9_fidtab {
	struct p9_fid **slot;
	uint32_t n, used, cap; /* used counts tombstones too */
};
/* Once, before there are any: makes it a secret which numbers share a place in the table. */
void p9_fid_init(void);
/* The i-th place of a table, NULL when there is no fid. */
struct p9_fid *p9_fid_slot(const struct p9_fidtab *t, uint32_t i);
struct p9_fid *p9_fid_find(const struct p9_fidtab *t, uint32_t id);
/* A new fid in the table. -P9_EMFILE, -P9_ENFILE at the caps, -P9_ENOMEM. */
int p9_fid_add(struct p9_conn *conn, uint32_t id, struct p9_fid **out);
/* Whether the connection may have one more fid or open file: 0, -P9_EMFILE or -P9_ENFILE. */
int p9_fid_afford(const struct p9_conn *conn);
/* Takes the fid out of the table; it lives on while pinned. */
void p9_fid_remove(struct p9_conn *conn, struct p9_fid *f);
/* Gives the struct back; what it referred to must have been released. */
void p9_fid_free(struct p9_conn *conn, struct p9_fid *f);
/* Lets go of all a fid refers to: locks, file, node. May block (close). Returns what close returned. */
int p9_fid_release(struct p9_conn *conn, struct p9_fid *f, struct p9_caller *c);
void p9_attach_put(struct p9_attach *at);
/* Who comes, to which export. Fails when the user cannot be looked up or may not. */
P9_MUST_USE int p9_attach_new(struct p9_conn *conn, struct p9_export *ex, const struct p9_tattach *who,
			      struct p9_attach **out);
/* Whether the export's name lies below the other's. */
bool p9_export_is_below(const struct p9_export *ex, const struct p9_export *other);
/* The export's root, as that user; c acts as the user from now on. */
P9_MUST_USE int p9_attach_root(struct p9_caller *c, struct p9_attach *at, struct p9_node **root);
/* The new fid of a request that has succeeded: the place held for it, or a fresh one. */
int p9_fid_place(struct p9_req *r, struct p9_fid **out);

/* ---- request.c ---- */
enum p9_req_state { REQ_INLINE, REQ_QUEUED, REQ_SUBMITTED, REQ_RUNNING, REQ_WAITING, REQ_FLUSHING };
struct p9_op;
struct p9_req {
	struct p9_job job;
	struct p9_conn *conn;
	const struct p9_op *op;
	struct p9_volume *vol;	   /* where its call goes; NULL for none */
	struct p9_export *ex;	   /* of fid; kept here because a Tclunk takes the fid apart while it runs */
	struct p9_req *next;	   /* in a bucket of tags, or the free list */
	struct p9_req *wait_next;  /* behind a fid */
	struct p9_req *flush_head; /* Tflush requests that wait for this one, in order */
	struct p9_req *flush_next;
	struct p9_fid *fid, *fid2; /* fid2: dfid, or the new fid once it has a place in the table */
	uint16_t tag;
	uint8_t type;
	uint8_t state;
	bool detached, holds, pure, want_new, dropped;
	bool blocking; /* run may wait for the disk */
	bool helped;   /* another thread takes half of it */
	bool apart;    /* on a worker because it is large: the time it takes says nothing */
	_Atomic bool cancel;
	_Atomic(struct p9_thread *) thread;
	uint32_t new_id;
	struct p9_buf *bytes;	     /* detached: the frame's */
	void *ticket;		     /* the link's: what the reply is sent with */
	const struct iovec *payload; /* Twrite: where its data is, when that is not behind the head */
	int npayload;
	bool has_room;
	int rc;
	uint64_t began; /* ticks */
	uint64_t wait_until;
	uint64_t patience; /* it has waited before, in another process: until when it does */
	/* what run hands to done */
	struct p9_node *node;
	struct p9_file *file;
	struct p9_attach *at;
	struct p9_xattr *xattr;
	char *text; /* long strings of replies: readlink, getlock */
	/* from here on not zeroed */
	struct p9_msg t, r;
	struct p9_room room; /* read, readdir: where payload goes; when has_room */
};
struct p9_op {
	int (*start)(struct p9_req *r);
	int (*run)(struct p9_req *r, struct p9_caller *c);
	int (*done)(struct p9_req *r);
	int (*again)(struct p9_req *r); /* run said EAGAIN: get ready for a run that may block. May be NULL */
	bool must_run;			/* a flush does not cancel it */
};
#define P9_WAITS 0x70000001 /* start: the request waits for something (a lock); done comes later */
#define P9_NOW 0x70000002   /* start: all is done, do not run */

struct p9_req *p9_req_new(struct p9_conn *conn);
void p9_req_free(struct p9_req *r);
/* Makes the request independent of the loop's buffers. */
void p9_req_detach(struct p9_req *r);
/* The same for one that is not to wait for a disk: it comes back with EAGAIN then, and is submitted again. */
void p9_req_submit_copy(struct p9_req *r);
/* Sends it to the export's lane. */
void p9_req_submit(struct p9_req *r);
/* Back on the loop: reply, flushes, whoever waited. */
void p9_req_finish(struct p9_req *r);
struct p9_req *p9_req_by_tag(const struct p9_conn *conn, uint16_t tag);
void p9_req_unlink(struct p9_req *r);
/* Tries to end a detached request early. */
void p9_req_cancel(struct p9_req *r);
/* run has said EAGAIN where it must not block: once more, on a worker. */
void p9_req_again(struct p9_req *r);
void p9_req_come_back(struct p9_req *r);
void p9_req_was_stuck(struct p9_req *r);
void p9_flush_timer_fired(struct p9_timer *t);

/* ---- dispatch.c ---- */
/* Starts a decoded request. Returns 0 or P9_LOST. */
int p9_dispatch(struct p9_req *r);
/* Starts, on a worker, requests that waited behind a fid. */
void p9_fid_next(struct p9_conn *conn, struct p9_fid *f);
extern const struct p9_op *const p9_op_table[128];
/* What proto/ says of a request type, packed for the hot path. */
struct p9_rule {
	uint8_t is_request, is_reply, state, order, changes;
};
extern const struct p9_rule p9_rules[256];
/* Its order on fid: as its rule says, but a walk in place changes the fid. */
static inline uint8_t p9_req_order(const struct p9_req *r)
{
	bool in_place = r->type == P9_Twalk && r->t.twalk.newfid == r->t.twalk.fid;
	return in_place ? (uint8_t)P9_ORDER_write : p9_rules[r->type].order;
}
/* Runs op->run on this thread. */
void p9_req_run(struct p9_req *r, const void **ident);

/* ---- reply.c ---- */
void p9_reply(struct p9_req *r);
void p9_reply_msg(struct p9_conn *conn, void *ticket, const struct p9_msg *m);
void p9_trace(const struct p9_conn *conn, char dir, const struct p9_msg *m);
void p9_req_log_error(const struct p9_req *r);

/* ---- conn.c ---- */
enum p9_conn_state { CONN_NEW, CONN_READY, CONN_RESET, CONN_CLOSED };
struct p9_conn {
	struct p9_link *link;
	struct p9_server *srv;
	struct p9_shard *shard;
	struct p9_conn *next, **prev;
	struct p9_peer peer;
	uint8_t state;
	bool attached, releasing, resuming;
	bool hurried;  /* the peer pauses: nothing may wait for others, until it goes on */
	bool stranger; /* has never attached: counts for its source */
	struct p9_conn *resume_next;
	uint32_t msize;
	unsigned bad, same_tags, inflight, nfids, lock_waits;
	_Atomic unsigned locks_held;
	_Atomic unsigned nxattr;
	struct p9_fidtab fids;
	struct p9_req *tags[TAG_BUCKETS];
	struct p9_req *version; /* Tversion that waits for the old session to end */
	struct p9_job job;
	struct p9_volume *release_for; /* whose fids the job is at */
	struct p9_fid *doomed;	       /* fids of an ended session, for the job that releases them */
	uint64_t requests;
	/* requests that waited when another process had this connection, and will come again: until when they wait */
	struct p9_again {
		uint64_t until;
		uint16_t tag;
	} * again;
	unsigned nagain;
};
/* How many of its requests wait for a lock. */
unsigned p9_conn_waiting(const struct p9_conn *c);
static inline struct p9_link *p9_link_of(struct p9_conn *c)
{
	return c->link;
}
/* Goes on reading when there is room again; ends what waits for the last request. */
void p9_conn_settle(struct p9_conn *conn);
/* Aborts the session: cancels, and once all is quiet, releases the fids. */
void p9_conn_reset(struct p9_conn *conn);
/* A connection ends for a reason of ours, or the peer's. */
void p9_conn_end(struct p9_conn *conn, int why, const char *text);

/* ---- server.c, stats.c ---- */
struct p9_opstat {
	_Atomic uint64_t count, errors, ticks;
	_Atomic uint64_t hist[HIST_BUCKETS]; /* bucket i: below 2^(i+8) ticks */
};
/* One loop's share of the server. */
struct p9_shard {
	struct p9_loop loop;
	struct p9_server *srv;
	struct p9_conn *conns;
	struct p9_req *free_reqs;
	struct p9_fid *free_fids;
	struct p9_req *calling; /* in a call, in place */
	struct p9_conn *resume; /* connections that can go on with messages that have come */
	struct p9_req *lock_waits;
	struct p9_timer lock_timer, flush_timer;
	struct p9_job lock_job, end_job, hold_job;
	_Atomic bool lock_posted;
	bool hold_posted, thaw; /* in the gate of server.hold: hold_job is on its way; it is to go on afterwards */
	uint64_t last_tick;	/* end of the last request: the beginning of the next in a batch */
	struct p9_opstat stat[128];
	uint64_t errors_logged, errors_window;
	_Atomic uint64_t accepted;
	_Atomic unsigned nfids; /* of its connections; its thread is the only writer */
};
/* ---- sources.c ---- */
struct p9_origin;
struct p9_sources {
	struct p9_lock lock;
	struct p9_origin *all;
	unsigned max;
};
P9_MUST_USE int p9_sources_init(struct p9_sources *t, unsigned max);
void p9_sources_fini(struct p9_sources *t);
/* One more connection from there. False when it has too many; *tell says whether to log that. */
P9_MUST_USE bool p9_sources_enter(struct p9_sources *t, const struct p9_peer *peer, uint64_t now, bool *tell);
/* One of them has attached, or ended before. */
void p9_sources_leave(struct p9_sources *t, const struct p9_peer *peer);

/* ---- pause.c ---- */
struct p9_hold {
	struct p9_gate gate;
	bool holding;
	unsigned held;	 /* loops that stand still */
	uint64_t paused; /* ms, how long they did */
};

struct p9_server {
	struct p9_server_config conf;
	struct p9_crew crew;
	struct p9_shard *shards;
	struct p9_loop **loops;
	unsigned nshards, next_shard;
	struct p9_export *exports;
	unsigned nexports;
	struct p9_export list; /* the read-only directory of exports, when there are several */
	struct p9_synth *list_tree;
	_Atomic unsigned nconns;
	struct p9_sources sources;
	struct p9_lane
		copies; /* large reads of what is cached; more at a time than there are processors would all end late */
	struct p9_lane admin; /* closing what ended sessions left */
	_Atomic unsigned lock_waiters;
	struct p9_log_rate comings, complaints; /* lines that peers cause by coming, going and asking wrongly */
	bool started;
	_Atomic bool stopping;
	_Atomic bool freezing; /* no message is taken, no lock tried again */
	struct p9_hold hold;
	uint64_t frozen_at;  /* ms */
	uint64_t tick0, ns0; /* both clocks at the start: the rate of one in the other */
};
/* A clock for latencies, in ticks of about a nanosecond or less: two of them per request must not be felt. */
static inline uint64_t p9_ticks(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
#endif
}
static inline uint64_t p9_now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}
/* Takes the link over. */
struct p9_conn *p9_conn_new(struct p9_shard *sh, struct p9_link *link, const struct p9_peer *peer);
void p9_conn_free(struct p9_conn *conn);
/* It has attached, or ends: it no longer counts for its source. */
void p9_conn_is_known(struct p9_conn *conn);
int p9_conn_on_stolen(struct p9_loop *loop);
void p9_stat_count(struct p9_req *r, int rc);

/* ---- op_lock.c ---- */
/* A lock may be free now: looks at all who wait, on all loops. Any thread. */
void p9_locks_changed(struct p9_server *srv);
void p9_lock_forget(struct p9_req *r);
void p9_lock_enqueue(struct p9_req *r);
/* Ends the waiting of all who wait through a fid that is being clunked. */
void p9_lock_drop_fid(struct p9_conn *conn, const struct p9_fid *f);
/* Ends the waiting of all of a connection, with status BLOCKED. */
void p9_lock_hurry(struct p9_conn *conn);
void p9_lock_shard_init(struct p9_shard *sh);
/* Looks after those that wait again, after a pause. */
void p9_lock_arm(struct p9_shard *sh);

/* ---- the operations ---- */
#define P9_OP_LIST(X) \
	X(version) \
	X(auth) \
	X(attach) \
	X(flush) \
	X(walk) X(read) X(write) X(clunk) X(remove) X(statfs) X(lopen) X(lcreate) X(symlink) X(mknod) X(rename) \
		X(readlink) X(getattr) X(setattr) X(xattrwalk) X(xattrcreate) X(readdir) X(fsync) X(lock) X(getlock) \
			X(link) X(mkdir) X(renameat) X(unlinkat)
#define P9_OP_DECLARE(lo) extern const struct p9_op p9_op_##lo;
P9_OP_LIST(P9_OP_DECLARE)

#endif
