/* SPDX-License-Identifier: BSD-2-Clause */
/* bench.h - what the files of `p9 bench` share.
 *
 * A connection has `depth` slots, each of which runs one chain of requests after the other; the number of a slot is
 * its tag. A workload (struct bench_load) is the list of the chain's steps. Each slot holds one encoded frame per
 * step, made once; a step that changes from op to op patches its frame in place.
 */
#ifndef P9_BENCH_H
#define P9_BENCH_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "base/spin.h"
#include "p9/codec.h"
#include "p9/cli.h"

enum {
	BENCH_STEPS = 5,   /* requests of the longest chain */
	BENCH_FRAME = 320, /* bytes of the longest request, payload not counted */
	BENCH_IO = 4096,   /* bytes of a small read or write */
	BENCH_DEPTH_MAX = 4096,
	BENCH_CONNS_MAX = 1024,
	BENCH_FILES_MAX = 512 /* --file */
};

/* fids of a connection */
enum { BENCH_ROOT = 0, BENCH_SCRATCH = 1, BENCH_FILE = 2, BENCH_TEMP = 3, BENCH_DIRS = 16, BENCH_SLOTS = 1024 };

/* ---- bench_stat.c: what is counted ---- */
enum { BENCH_SUB = 32 };
/* Latencies in ns: 32 steps to each power of two, so a figure is at most 3 % too large. */
struct bench_hist {
	uint64_t n, max;
	uint64_t bucket[(64 - 4) * BENCH_SUB];
};
void bench_hist_add(struct bench_hist *h, uint64_t ns);
/* Upper bound of the value that the share q (0..1) of all values does not exceed; 0 when there are none. */
uint64_t bench_hist_at(const struct bench_hist *h, double q);
uint64_t bench_now(void); /* monotonic, ns */
/* CPU time that a process has taken, all threads, user and system, in ns; -1 when it cannot be known. pid 0: we. */
int64_t bench_cpu(pid_t pid);

/* ---- bench_conn.c: one connection ---- */
struct bench_file {
	uint32_t dir;	/* fid of the directory it is in */
	char name[256]; /* "" for the directory itself */
};
struct bench_slot {
	uint64_t start;	 /* when its chain began */
	uint64_t offset; /* readdir: where to go on */
	uint64_t item;	 /* number of the chain, from 0 */
	uint32_t fid;	 /* the fid its chain makes or uses */
	uint16_t tag;
	uint8_t step;
	bool failed, busy;
	const struct bench_file *file;
	uint16_t len[BENCH_STEPS];
	uint8_t frame[BENCH_STEPS][BENCH_FRAME];
};
/* How replies are waited for: looked for a while before sleeping, as libp9 does, looked for all the time, or slept for at
 * once, as the kernel's client does. */
enum bench_wait { BENCH_LOOK, BENCH_POLL, BENCH_SLEEP };
struct bench_conn {
	int in, out;
	uint32_t msize;
	struct bench_slot *slots;
	unsigned nslots, number; /* number of the connection */
	uint8_t *inbuf;
	size_t incap, inpos, inend;
	uint32_t skip;		     /* bytes of a reply's payload that are still to come and will be dropped */
	struct bench_slot *skip_for; /* the slot that waits for them */
	uint8_t *outbuf;
	size_t outlen;
	struct iovec *iov;
	unsigned iov0, niov;
	uint64_t next, size; /* place in the file of the sequential workloads; its size */
	uint64_t random;
	bool waiting;	     /* output is waiting for room in the socket */
	enum bench_wait how; /* it waits for replies when it is the only connection */
	struct p9_spin spin;
	/* bench_front.c */
	struct p9_front *front; /* NULL: descriptors */
	void **into;		/* where each slot's Tread goes */
	void *payload;		/* of Twrites; NULL: the constant block */
	char err[200];
};
/* Connects, agrees on the version and attaches BENCH_ROOT. Returns an exit code of cli.h, with the cause in c->err. */
P9_MUST_USE int bench_conn_init(struct bench_conn *c, const struct p9_cli *cli, unsigned number, unsigned depth);
void bench_conn_fini(struct bench_conn *c);
pid_t bench_conn_peer(const struct bench_conn *c); /* process at the other end, 0 when not known */
/* One request and its reply, nothing else in flight. Returns 0 or -P9_Exxx, and then says more in c->err. The views
 * in *r live until the next call. */
P9_MUST_USE int bench_call(struct bench_conn *c, struct p9_msg *t, struct p9_msg *r);
/* Walks "a/b/c" from fid to newfid, any length. Returns as bench_call. */
P9_MUST_USE int bench_walk(struct bench_conn *c, uint32_t fid, uint32_t newfid, const char *path, size_t len);
/* Queues the frame of the slot's step, with `payload` bytes behind it. */
void bench_queue(struct bench_conn *c, struct bench_slot *s, uint32_t payload);
/* Sends what is queued; c->waiting tells that some of it is left. Returns 0 or -P9_Exxx. */
P9_MUST_USE int bench_flush(struct bench_conn *c);
/* Takes in what has come. Returns 1, 0 when nothing has come (with BENCH_POLL: yet), -P9_Exxx when the link is gone. */
P9_MUST_USE int bench_fill(struct bench_conn *c);

/* ---- bench_front.c: the same over vhost-user ---- */
struct p9_addr;
/* fd is the connection's from here on. Returns 0, or -P9_Exxx with the cause in c->err. */
P9_MUST_USE int bench_front_open(struct bench_conn *c, const struct p9_addr *a, int fd, uint32_t msize);
void bench_front_close(struct bench_conn *c);
P9_MUST_USE int bench_front_flush(struct bench_conn *c);
void bench_front_wait(struct bench_conn *c, int ms);
/* Before waiting for c->in: whether something has come already. */
bool bench_front_arm(struct bench_conn *c);
/* The next reply, put at the beginning of inbuf; without its payload when drops() says so. Returns its length, 0 when there
 * is none, -P9_Exxx when the link is gone. */
P9_MUST_USE int bench_front_next(struct bench_conn *c,
				 bool (*drops)(const void *arg, const struct bench_conn *c, const uint8_t *frame),
				 const void *arg);
/* Waits for it. */
P9_MUST_USE int bench_front_call(struct bench_conn *c);
int bench_front_socket(const struct bench_conn *c);

/* ---- bench_run.c: the loop ---- */
struct bench_tally {
	uint64_t ops, bytes, entries;
	uint64_t errors;
	uint32_t ecode;	    /* of the first error */
	const char *failed; /* the request that it answered */
};
struct bench_load;
struct bench_run {
	struct bench_conn *conns;
	unsigned nconns, depth;
	enum bench_wait how;
	struct p9_spin spin; /* of all connections */
	const struct bench_load *load;
	uint64_t todo;	 /* chains that may still be started; 0 stops the run */
	uint64_t issued; /* chains started */
	unsigned active; /* slots whose chain runs */
	bool measuring;	 /* between begin and end; all the time when chains are counted */
	uint64_t now, begin, end;
	pid_t pid;		      /* the server, or 0 */
	bool by_remove;		      /* the server has no Tunlinkat (diod 1.0): Tremove instead, as Linux does then */
	int64_t server_ns, client_ns; /* CPU taken between begin and end; server_ns is -1 when not known */
	double secs;		      /* measured time */
	struct bench_tally tally;
	struct bench_hist hist;
	char err[200];
};
/* Runs `count` chains of a workload over the first `nconns` connections, or, when count is 0, as many as go into
 * `secs` seconds, of which the first part is not counted. Returns 0, or -P9_Exxx when a link is gone (r->err). */
P9_MUST_USE int bench_run(struct bench_run *r, const struct bench_load *load, uint64_t count, double secs);
extern volatile bool bench_stopped; /* ^C */

/* ---- bench_load.c: the workloads ---- */
enum bench_need { BENCH_NEEDS_FILES, BENCH_NEEDS_BIG, BENCH_NEEDS_OWN, BENCH_NEEDS_DIR, BENCH_NEEDS_NOTHING };
enum bench_hold { BENCH_HOLDS_NOTHING, BENCH_HOLDS_FID, BENCH_HOLDS_DIR, BENCH_HOLDS_READER, BENCH_HOLDS_WRITER };
struct bench_step {
	void (*make)(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m);
	/* Changes the frame for this op; NULL when it stays as it is. */
	void (*patch)(struct bench_run *r, struct bench_conn *c, struct bench_slot *s, uint8_t *frame);
	/* Looks at a reply of the right type, of which at least min(len, 11) bytes are there. Returns 0, 1 to send the
	 * step once more, -P9_Exxx. NULL: nothing to look at. */
	int (*done)(struct bench_run *r, struct bench_conn *c, struct bench_slot *s, const uint8_t *frame,
		    uint32_t len);
	uint8_t drops; /* the reply's payload is not looked at */
};
struct bench_load {
	const char *name;
	struct bench_step steps[BENCH_STEPS];
	uint8_t nsteps, undo;  /* the step that gives the fid back, 0 for none */
	uint8_t needs, holds;  /* enum bench_need, bench_hold */
	bool files_ok;	       /* --file can stand for the fixture */
	uint32_t payload_step; /* step that sends payload, + 1; 0 for none */
	uint32_t payload;      /* its bytes; 0 for all that msize permits */
	const char *by_remove; /* the workload to run instead where there is no Tunlinkat */
};
const struct bench_load *bench_load_find(const char *name); /* also the ones below */
extern const char bench_workloads[];			    /* names, for the usage */
/* Makes the frames of all slots of a connection. */
void bench_arm(struct bench_conn *c, const struct bench_load *load);
uint32_t bench_chunk(const struct bench_conn *c); /* bytes of a large read or write */

/* ---- bench_prep.c: the fixture ---- */
struct bench_fixture {
	char scratch[64]; /* directory made in the root, "" when there is none */
	struct bench_file *files;
	unsigned nfiles;
	uint64_t made;	  /* files made in it: f0000000, ... */
	uint64_t entries; /* of the directory that is listed */
};
struct bench_want {
	const char **paths; /* --file */
	unsigned npaths;
	unsigned count; /* files or directory entries to make */
	uint64_t size;	/* of a big file */
};
/* Makes what the workload needs and gives every slot its file and fid. Returns 0 or -P9_Exxx (r->err). What has been
 * made is in *f also then. */
P9_MUST_USE int bench_prep(struct bench_run *r, const struct bench_load *load, const struct bench_want *w,
			   struct bench_fixture *f);
/* Removes it. Returns 0 or -P9_Exxx (r->err). */
P9_MUST_USE int bench_unprep(struct bench_run *r, struct bench_fixture *f);

#endif
