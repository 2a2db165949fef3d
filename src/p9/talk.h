/* SPDX-License-Identifier: BSD-2-Clause */
/* talk.h - running .9t scripts: connections, messages, commands, tests.
 *
 *   talk_conn.c  frames out and in         talk_front.c the same over vhost-user
 *   talk_msg.c   values <-> messages, by the descriptors
 *   talk_host.c  shell commands            talk_send.c, talk_exec.c  the statements
 *   talk_kit.c   statements of the conformance kit
 *   talk_run.c   tests and their results   cmd_talk.c   `p9 talk`
 */
#ifndef P9_TALK_H
#define P9_TALK_H
#include <sys/types.h>
#include "p9/talk_lang.h"

/* ---- connections: talk_conn.c ---- */
struct talk_frame {
	struct talk_frame *next;
	struct p9_msg msg;
	int rc; /* of decoding */
	uint32_t len;
	uint8_t b[];
};
struct talk_conn {
	struct talk_conn *next;
	struct talk_text name;
	int in, out;
	struct p9_front *front;	   /* instead of in and out: a vhost-user device */
	pid_t child;		   /* the other end, when it was started for this connection; or 0 */
	bool eof, serving, corked; /* serving: we are the server here */
	bool deaf_peer;		   /* it takes nothing any more (EPIPE) */
	uint32_t msize;		   /* largest frame the peer may send */
	uint8_t head[7];	   /* of the frame that is being sent: its tag counts as in flight */
	uint64_t pos, size;	   /* bytes of that frame sent, and in all */
	bool lost;		   /* what was sent are no frames any more */
	uint32_t *inflight;	   /* requests sent and not answered, by tag */
	uint16_t last_tag;	   /* of the last frame sent; serving: received */
	uint16_t auto_tag;	   /* where to look for a free one */
	uint8_t *ibuf, *obuf;
	size_t ilen, icap, olen, ocap;
	struct talk_frame *first, **last; /* received, not yet taken by an rx */
	size_t queued;
	char broken[256]; /* what the peer did that no peer may do */
};
enum talk_got { GOT_FRAME, GOT_CLOSED, GOT_NOTHING, GOT_BROKEN };
/* Takes over two descriptors (or one twice). NULL without memory (they are closed then). */
struct talk_conn *p9_talk_conn_new(struct talk_text name, int in, int out);
/* Closes; of a child that was started for it, waits for the end and returns its exit status (0 when there is none). */
int p9_talk_conn_free(struct talk_conn *c);
/* Appends bytes to what is to be sent; 0 or -1 without memory. */
int p9_talk_put(struct talk_conn *c, const void *p, size_t n);
/* Sends (and receives meanwhile, unless deaf) until all is out, the peer closed or nothing moved for ms.
 * Returns true when all is out. */
bool p9_talk_flush(struct talk_conn *c, int ms, bool deaf);
/* Next frame, or the next with this tag (tag < 0: any). *out is the caller's (free). */
enum talk_got p9_talk_recv(struct talk_conn *c, int tag, int ms, struct talk_frame **out);
void p9_talk_unrecv(struct talk_conn *c, struct talk_frame *f);
bool p9_talk_tag_busy(const struct talk_conn *c, uint16_t tag);
int64_t p9_talk_now(void);

/* ---- the same over vhost-user: talk_front.c ---- */
#define P9_TALK_FRONT_ERR 512
struct p9_addr;
/* fd is the device's control socket, and the front's from here on. Returns 0, or -P9_Exxx with the cause in why
 * (P9_TALK_FRONT_ERR bytes). */
int p9_talk_front_open(const struct p9_addr *a, int fd, struct p9_front **out, char *why);
void p9_talk_front_close(struct talk_conn *c);
/* Whether whole requests wait to be sent. */
bool p9_talk_front_waits(const struct talk_conn *c);
/* Waits at most ms and moves what can move; replies land in ibuf. False when nothing did. */
bool p9_talk_front_pump(struct talk_conn *c, int ms, bool deaf);

/* ---- messages: talk_msg.c ---- */
struct talk_ids {
	uint32_t uid, gid, msize;
	uint16_t tag;
	struct talk_text aname;
};
/* Makes the frame of a tx. `ids` fills what the script leaves out. */
int p9_talk_encode(struct talk_vars *vs, const struct talk_stmt *st, const struct talk_ids *ids, struct talk_text *out);
/* The frame of `raw frame size= type= tag= body=`. */
int p9_talk_frame(struct talk_vars *vs, const struct talk_stmt *st, const struct talk_ids *ids, struct talk_text *out);
/* Compares a message with the fields of an rx; says in why what differs (and returns 1). */
int p9_talk_match(struct talk_vars *vs, const struct talk_stmt *st, const struct p9_msg *m, char *why, size_t cap);

/* ---- commands: talk_host.c ---- */
struct talk_cmd {
	const char *dir;	      /* where to run, NULL: here */
	const char *line;	      /* for sh -c */
	const struct talk_vars *vars; /* into its environment; or NULL */
	int ms;
};
/* Runs a command; its output (at most cap - 1 bytes, stderr too, last newline cut) goes to buf. Returns the exit status,
 * or -1 when it could not be run or was killed, with the reason in buf. */
int p9_talk_host(const struct talk_cmd *cmd, char *buf, size_t cap);
/* Starts one on one end of a socket pair; *fd is the other end. A server has it as stdin and stdout; a client has it as
 * stdin, finds P9_SERVER=fd:0, and what it prints is lost. Returns the process or -1. */
pid_t p9_talk_spawn(const struct talk_cmd *cmd, bool client, int *fd);
/* Waits ms for a process, then kills it. Returns its exit status, 128 + signal, or -1 when it had to be killed. */
int p9_talk_wait(pid_t pid, int ms);

/* ---- running a script: talk_run.c, its statements: talk_exec.c and talk_send.c ---- */
struct talk_options {
	const char *addr, *aname, *host_dir, *setup, *spawn, *filter;
	uint32_t uid, gid, msize;
	int timeout_ms;
	int limit_ms;		/* longest time of a whole test; 0: no limit */
	const char *scratch[2]; /* the test's directory: names below the attached root; NULL: the root itself */
	bool verbose, list;
	const char *defines[33]; /* NAME=VALUE, NULL at the end */
};
struct talk_totals {
	unsigned number, passed, failed, skipped;
};
struct talk_loop {
	unsigned stmt;
	uint64_t i;
};
/* One test that runs. */
struct talk_run {
	const struct talk_script *script;
	const struct talk_options *opt;
	struct talk_err *err;
	struct talk_vars vars;
	struct talk_conn *conns, *conn; /* all, the current one (NULL before it is opened) */
	struct talk_text name;		/* of the current connection */
	bool noversion, corked;
	int timeout_ms;
	int64_t until; /* p9_talk_now() when it has taken too long */
	unsigned pc;
	struct talk_loop loops[8];
	unsigned nloops;
	/* What changes the next message: */
	bool cut, trim, split, flood;
	uint64_t cut_at, trim_at, split_at, flood_n;
	struct talk_text pad;
	const struct talk_stmt *optional; /* what the next rx may turn out not to be there */
	char skip[256];			  /* why the test does not run here; "" when it does */
};
/* How one test ended: rc 0 or -1 and why in err.text; skip is not "" when it does not run here. */
struct talk_result {
	int rc;
	unsigned pc; /* the statement at which it ended */
	char skip[256];
	struct talk_err err;
};
/* Runs one test: the statements [0, range[0]) of the script, then [range[1], range[2]). */
void p9_talk_test(const struct talk_script *s, const struct talk_options *opt, const unsigned range[3],
		  struct talk_result *res);
/* Runs all tests of a script and prints their results on stdout. */
void p9_talk_run(const struct talk_script *s, const struct talk_options *opt, struct talk_totals *totals);
/* Runs one statement. */
int p9_talk_exec(struct talk_run *r, const struct talk_stmt *st);
/* Statements of the conformance kit: talk_kit.c. */
int p9_talk_optional(struct talk_run *r, const struct talk_stmt *st);
int p9_talk_skip(struct talk_run *r, const struct talk_stmt *st);
int p9_talk_scratch(struct talk_run *r, const struct talk_stmt *st);
int p9_talk_file(struct talk_run *r, const struct talk_stmt *st);
/* Whether an answer other than the expected one only says that an optional feature is missing; r->skip says so then. */
bool p9_talk_missing(struct talk_run *r, const struct p9_msg *m);
/* 0 when a condition holds, 1 and why, -1. */
int p9_talk_condition(struct talk_run *r, const struct talk_field *f, char *why, size_t cap);
/* Statements that send (tx, version, raw, flood); the current connection is opened when it is not. */
int p9_talk_send(struct talk_run *r, const struct talk_stmt *st);
int p9_talk_version(struct talk_run *r, const struct talk_stmt *st);
int p9_talk_connect(struct talk_run *r, bool version);
/* Closes a connection and checks the exit status of what was started for it. */
int p9_talk_close(struct talk_run *r, struct talk_conn *c, struct talk_pos pos);
/* "FILE:LINE:COL: why", then what was expected (the statement) and what came (may be NULL). -1. */
int p9_talk_mismatch(struct talk_run *r, const struct talk_stmt *st, const char *why, const struct talk_frame *got);
void p9_talk_trace(const struct talk_run *r, char dir, const void *frame, size_t len);

#endif
