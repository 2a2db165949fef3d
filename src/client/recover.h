/* SPDX-License-Identifier: BSD-2-Clause */
/* recover.h - a link that is lost and found again: what requests.c calls, and what track.c and recover.c share.
 *
 * Everything here runs under the handle's lock. A handle without opts.reconnect_ms has no struct p9_recover.
 */
#ifndef P9_CLIENT_RECOVER_H
#define P9_CLIENT_RECOVER_H
#include "base/addr.h"
#include "client/internal.h"
#include "client/names.h"

/* ---- for requests.c and client.c ---- */
/* For the address that was dialled. NULL without memory, or when it cannot be dialled twice. */
struct p9_recover *p9_recover_new(struct p9_client *c, const char *addr, const struct p9_client_opts *o);
void p9_recover_free(struct p9_recover *r);
/* Instead of p9_engine_submit(). */
P9_MUST_USE int p9_recover_submit(struct p9_client *c, struct p9_msg *msg, void *dst, struct p9_call *call);
/* An answer that no server gave. Returns 1 or 0. */
P9_MUST_USE int p9_recover_answer(struct p9_client *c, struct p9_reply *out);
/* Looks at each reply first. True when it was to a request of our own. */
bool p9_recover_reply(struct p9_client *c, const struct p9_reply *reply);
/* The engine has an error. True when the link will be looked for again (the engine has been restarted then). */
bool p9_recover_lost(struct p9_client *c);
/* Whether the handle is done for, or the engine's error is one that p9_recover_lost() will take away. */
bool p9_recover_hope(const struct p9_client *c);
/* Whether the link is being looked for: nothing is sent, nothing ends. */
bool p9_recover_busy(const struct p9_client *c);
/* While there is no link at all: lets time pass. Returns milliseconds until the next call, 0 when there was progress.
 * -1 while there is a link. */
int p9_recover_tick(struct p9_client *c);
/* Forgets a request that the program gives up. True when it was one that waits for the link. */
bool p9_recover_cancel(struct p9_client *c, struct p9_call *call);
/* Requests whose answers are ours to give, or that wait to be repeated. */
unsigned p9_recover_pending(const struct p9_client *c);

/* ---- between track.c and recover.c ---- */
struct p9_held_lock {
	struct p9_held_lock *next;
	uint64_t start, length; /* length 0: to the end */
	uint32_t proc_id;
	uint8_t type;
	struct p9_str client_id; /* owned */
};

/* A fid in use, and how to get it again. */
struct p9_kept {
	struct p9_name *name; /* counted; NULL: nobody knows (no memory) */
	struct p9_root *root;
	struct p9_qid qid;
	uint32_t flags; /* of its Tlopen or Tlcreate */
	struct p9_held_lock *locks;
	bool live, open;
	bool stale;	    /* could not be got again */
	bool xattr, xwrite; /* an extended attribute, being read or written */
	bool dirty;	    /* written to since the last Tfsync */
	bool unsure;	    /* dirty when the link was lost: the next Tfsync says so */
	bool rewound;	    /* a directory that changed and was opened again: its old cookies mean nothing */
	bool moved;	    /* while it is got again: its version differs */
};

/* A tree that was attached. */
struct p9_root {
	struct p9_root *next;
	struct p9_name *name;
	uint8_t *frame; /* the Tattach */
	uint32_t size;
	uint32_t fid; /* while the link is got again */
	struct p9_qid qid;
};

enum p9_flight_kind { P9_FLIGHT_NONE, P9_FLIGHT_USER, P9_FLIGHT_OWN };
enum p9_verdict { P9_VERDICT_REPEAT, P9_VERDICT_UNSURE, P9_VERDICT_DONE, P9_VERDICT_ERROR };
enum p9_stage {
	P9_STAGE_VERSION,
	P9_STAGE_ATTACH,
	P9_STAGE_WALK,
	P9_STAGE_OPEN,
	P9_STAGE_LOCK,
	P9_STAGE_DROP,
	P9_STAGE_TIDY
};

/* A request in flight, by tag; or held until the link is back. */
struct p9_flight {
	struct p9_call *call;
	void *dst;
	uint8_t *frame;		/* the T-message without a Twrite's payload; owned */
	const uint8_t *payload; /* of a Twrite: the program's */
	uint32_t size, fid;	/* own: the fid it is about */
	uint64_t due, order;	/* order: where it ended in the stream that was lost */
	uint32_t ecode;		/* P9_VERDICT_ERROR */
	uint8_t kind, type, stage, verdict;
	unsigned from, at; /* own: elements of the name that this walk begins and ends with */
	struct p9_root *root;
	struct p9_held_lock *lock;
};

struct p9_answer {
	struct p9_answer *next;
	struct p9_call *call;
	struct p9_msg msg;
};

enum p9_recover_state { P9_RECOVER_OK, P9_RECOVER_WAIT, P9_RECOVER_CONNECT, P9_RECOVER_TALK, P9_RECOVER_OVER };

struct p9_recover {
	char *text; /* address as it was given */
	struct p9_addr addr;
	uint32_t total_ms, msize;
	bool armed; /* the first session is through its attach */
	enum p9_recover_state state;
	struct p9_names names;
	struct p9_root *roots;
	struct p9_kept *kept; /* by fid */
	uint32_t nkept;
	struct p9_flight *flights; /* by tag; ntags and one for Tversion */
	struct p9_flight *held;
	unsigned nheld, nflights;
	struct p9_answer *answers, *answers_last;
	unsigned nanswers;
	struct p9_call own; /* the user of our own requests */
	/* while it is looked for */
	uint64_t give_up, next, attempt_end; /* ms */
	unsigned attempts, own_flying;
	uint32_t cursor; /* fids below are done or under way */
	int fd;
	uint64_t random;
	int cause; /* first error, for the end */
	char why[P9_CLIENT_TEXT];
};

/* ---- recover.c ---- */
void p9_flight_free(struct p9_flight *f);
/* Sends a request and notes it; the flight's copy is then in the table. */
P9_MUST_USE int p9_flight_launch(struct p9_client *c, struct p9_flight *f, struct p9_msg *msg, void *user);
/* Queues an answer that no server gave. */
void p9_recover_give(struct p9_client *c, struct p9_call *call, const struct p9_msg *m);
void p9_recover_error(struct p9_client *c, struct p9_call *call, int ecode);
/* Whether a request is to be answered here: 1 for no, else the error, or 0 for success. */
P9_MUST_USE int p9_recover_refusal(struct p9_recover *r, const struct p9_msg *msg);
/* Answers it, as the server and the engine would have. */
void p9_recover_here(struct p9_client *c, const struct p9_msg *msg, struct p9_call *call, int rc);

/* ---- resume.c ---- */
/* r->fd is connected. */
void p9_resume_begin(struct p9_client *c);
/* A request of our own was answered. */
void p9_resume_reply(struct p9_client *c, const struct p9_flight *f, const struct p9_msg *m);

/* ---- track.c ---- */
/* A fid's entry when it is in use, or NULL. */
struct p9_kept *p9_track_kept(struct p9_recover *r, uint32_t fid);
/* Takes a copy of the request in. Returns false without memory. */
bool p9_track_request(struct p9_flight *f, const struct p9_msg *msg);
/* Decodes the copy; views into it. */
P9_MUST_USE int p9_track_message(const struct p9_flight *f, struct p9_msg *msg);
/* A request was answered: fids, names and locks follow. */
void p9_track_reply(struct p9_recover *r, const struct p9_flight *f, const struct p9_msg *reply);
/* The first fid that the request names and that has an entry with `stale`; NULL for none. */
struct p9_kept *p9_track_stale(struct p9_recover *r, const struct p9_msg *msg);
void p9_track_drop(struct p9_recover *r, uint32_t fid);
void p9_track_free(struct p9_recover *r);

#endif
