/* SPDX-License-Identifier: BSD-2-Clause */
/* engine.h - the client's brain: requests out, replies in, no I/O, no memory of its own.
 *
 * The caller moves bytes: it sends what p9_engine_out() shows, fills what p9_engine_in() offers, and acknowledges both.
 * In between it submits requests and takes replies. Payload is never copied on its way out (Twrite's bytes are sent
 * from where they lie) and at most the part of it that arrived together with other frames on its way in: the rest is
 * received straight into the memory that the request named.
 *
 * Every reply is compared with its request. A server that breaks the protocol ends the link: the engine's error is set
 * for good, p9_engine_error() says what came, and every later call returns the same -P9_Exxx.
 *
 * One thread at a time. Life-cycle: init once over memory of the caller's; there is nothing to free.
 */
#ifndef P9_ENGINE_H
#define P9_ENGINE_H
#include <stdbool.h>
#include "p9/codec.h"
P9_C_BEGIN

struct p9_engine_conf {
	uint32_t msize;	   /* offered in Tversion; at least P9_MSIZE_MIN */
	uint32_t out_size; /* bytes for heads that wait to be sent; 0 for a default that no mix of requests fills */
	uint32_t nfids;	   /* fids 0..nfids-1 */
	uint16_t ntags;	   /* requests in flight, Tversion and Tflush included */
};

enum p9_slot_state {
	P9_SLOT_FREE,
	P9_SLOT_SENT,
	P9_SLOT_ANSWERED, /* its tag waits for an Rflush */
	P9_SLOT_OVERDUE,  /* its deadline has passed, its owner is still to be told */
	P9_SLOT_ABANDONED /* nobody waits for the reply, but it may come */
};

/* A request in flight; its number is the tag. */
struct p9_slot {
	void *user;
	uint8_t *dst;	  /* where the payload of Rread and Rreaddir goes */
	uint64_t out_end; /* position in the stream of requests behind this one's last byte */
	uint64_t cookie;  /* offset of a Treaddir */
	uint64_t due;	  /* deadline; 0 for none */
	uint32_t asked;	  /* count of Tread, Treaddir, Twrite; nwname of Twalk; msize of Tversion */
	uint32_t fid;	  /* fid that a reply makes (Twalk, Tattach...) or ends (Tclunk, Tremove) */
	uint16_t next;	  /* free list */
	uint16_t oldtag;  /* Tflush: what it cancels */
	uint16_t flushes; /* Tflush requests in flight that name this tag */
	uint8_t type, state;
	bool quiet;  /* its reply is handed to nobody: the engine's own, abandoned, or answered */
	bool gone;   /* OVERDUE while its payload was arriving: nothing more will come */
	bool orphan; /* the fid that it made has no owner: clunk it when the tag is free again */
};

/* A payload of the caller's that goes out when the stream of heads has reached `at`. */
struct p9_pay {
	uint64_t at;
	const uint8_t *p;
	uint32_t len;
};

struct p9_engine_iov {
	uint8_t *p;
	size_t len;
};

/* A reply. `msg` and what it points to are valid until the next p9_engine_next() or p9_engine_in(). Some are Rlerrors
 * that no server sent: ECANCELED for a request that a flush cancelled, ETIMEDOUT past its deadline, and the link's error
 * from p9_engine_drain(). */
struct p9_reply {
	void *user;
	struct p9_msg msg;
};

#define P9_ENGINE_TEXT 320
#define P9_ENGINE_IN (192u * 1024) /* the input buffer: any reply but Rread and Rreaddir, twice over */

struct p9_engine {
	struct p9_slot *slots; /* ntags of them and one more, for Tversion */
	struct p9_pay *pays;   /* ring of ntags */
	uint64_t *fids;	       /* bitmap of those in use */
	uint8_t *out, *in;
	uint64_t head_base;    /* position, counted in head bytes alone, of out[0] */
	uint64_t queued, sent; /* bytes of the stream of requests, payload included */
	uint32_t msize, nfids, fid_next, nfids_used;
	uint32_t out_size, out_pos, out_len; /* out[out_pos..out_len) waits to be sent */
	uint32_t in_pos, in_len;	     /* in[in_pos..in_len) has come and was not yet looked at */
	uint32_t pay_sent;		     /* bytes of pays[pay_first] that were sent */
	uint16_t ntags, free_first, free_last, nfree;
	uint16_t pay_first, npays;
	/* An Rread or Rreaddir whose payload is on its way into its request's memory. */
	struct p9_slot *bulk;
	struct p9_msg bulk_msg;
	uint32_t bulk_have;
	uint32_t skip;	       /* bytes to come of a payload that nobody waits for */
	uint64_t next_due;     /* no deadline is earlier; UINT64_MAX for none at all */
	uint64_t heard_at;     /* when p9_engine_expire() last saw that bytes had come */
	bool heard;	       /* bytes have come since */
	uint16_t noverdue;     /* slots that are OVERDUE */
	uint16_t nquiet;       /* slots in use that are quiet */
	uint16_t cancelled;    /* slot whose Rflush came before any reply; P9_NOTAG for none */
	struct p9_reply flush; /* that Rflush, to be handed out next */
	bool ready;	       /* Rversion is through */
	int error;
	char text[P9_ENGINE_TEXT];
};

/* Bytes of memory, aligned to 16, that an engine with this configuration needs. */
size_t p9_engine_memory(const struct p9_engine_conf *conf);
/* Returns 0, -P9_EINVAL for a configuration that makes no sense, -P9_ENOMEM when `len` is too small. */
P9_MUST_USE int p9_engine_init(struct p9_engine *e, const struct p9_engine_conf *conf, void *mem, size_t len);

/* Requests that can be submitted now without -P9_EAGAIN. */
unsigned p9_engine_room(const struct p9_engine *e);
/* Requests submitted and not yet answered. */
unsigned p9_engine_pending(const struct p9_engine *e);
/* Queues a request. msg->tag is set by the engine. `dst` takes the payload of Tread and Treaddir: as many bytes as they
 * ask for, in place until the reply. Twrite's payload must stay in place as long.
 * A Tversion comes first; its reply sets the session's msize.
 * Returns the tag; -P9_EAGAIN when every tag is in use or heads fill the output buffer; -P9_EMSGSIZE for a message
 * above msize, or whose reply could be; -P9_EINVAL for what the engine does not send; or the link's error. */
P9_MUST_USE int p9_engine_submit(struct p9_engine *e, struct p9_msg *msg, void *dst, void *user);
/* Another place for the payload of a Tread or Treaddir in flight, as long as nothing of it has come: the memory that was used
 * last is the memory that is still in a cache. -P9_EBUSY when something has, -P9_EINVAL when the tag is no such request's. */
P9_MUST_USE int p9_engine_redirect(struct p9_engine *e, uint16_t tag, void *dst);
/* Cancels a request: Tflush. Its own reply carries `user`; with `user` NULL it is handed to nobody. Until then the tag
 * is not used again. Returns as p9_engine_submit(), or -P9_EINVAL when the tag is not in flight. */
P9_MUST_USE int p9_engine_flush(struct p9_engine *e, uint16_t tag, void *user);

/* Time is any clock that the caller likes, in one unit that it likes, never 0. */
/* Gives a request in flight a deadline; 0 takes it away. */
void p9_engine_deadline(struct p9_engine *e, uint16_t tag, uint64_t due);
/* Tells the time. A request whose deadline has passed is answered by ETIMEDOUT (p9_engine_next()), the server is sent a
 * Tflush, and what it answers late is thrown away; a fid that it makes late is clunked. When it says nothing at all for
 * `grace` after a deadline, or has not even taken a Twrite's payload in by then, the link has failed. Returns the time
 * of the next call that is needed, UINT64_MAX for none. */
uint64_t p9_engine_expire(struct p9_engine *e, uint64_t now, uint64_t grace);
/* After the link's end: hands out, once for each request in flight, an Rlerror with the link's error. Returns 1, or 0
 * when all have been told. */
P9_MUST_USE int p9_engine_drain(struct p9_engine *e, struct p9_reply *reply);
/* After the end and the draining: as after init, so that a new link can begin with a Tversion; fids stay in use.
 * `msize` is what to offer, at most what init was told. */
void p9_engine_restart(struct p9_engine *e, uint32_t msize);

/* What is to be sent next: up to `max` pieces. Returns how many; 0 when nothing waits. */
unsigned p9_engine_out(const struct p9_engine *e, struct p9_engine_iov *v, unsigned max);
void p9_engine_out_ack(struct p9_engine *e, size_t n);
/* Where received bytes go: one or two pieces, to be filled in order. Never 0 pieces once p9_engine_next() said 0. */
unsigned p9_engine_in(struct p9_engine *e, struct p9_engine_iov v[2]);
void p9_engine_in_ack(struct p9_engine *e, size_t n);
/* The next reply. Returns 1, 0 when more bytes are needed, or the link's error. */
P9_MUST_USE int p9_engine_next(struct p9_engine *e, struct p9_reply *reply);

/* A fid that is not in use. Returns 0, or -P9_EMFILE. Clunk and remove give fids back when they are answered, whatever
 * the answer; a fid whose making failed (Rlerror to Twalk, Tattach, Txattrwalk) comes back by itself, too. After a
 * walk that came only part of the way the fid is still the caller's: some servers make it, so clunk it. */
P9_MUST_USE int p9_engine_fid_get(struct p9_engine *e, uint32_t *fid);
/* Takes this fid, also when it is in use. */
void p9_engine_fid_hold(struct p9_engine *e, uint32_t fid);
/* Gives back a fid that no request named. */
void p9_engine_fid_put(struct p9_engine *e, uint32_t fid);

/* Ends the link for a reason of the caller's. The first reason stays. Returns -ecode, or what was set before. */
int p9_engine_fail(struct p9_engine *e, int ecode, const char *text);
/* Why the link ended; "" while it lives. Never NULL. */
const char *p9_engine_error(const struct p9_engine *e);

/* ---- between the engine's own files ---- */
/* Records a breach of the protocol: the reason, the request's type and what came. Returns -P9_EPROTO. */
int p9_engine_breach(struct p9_engine *e, const char *why, const struct p9_slot *s, const struct p9_msg *got);
/* Compares a reply with its request. For bulk replies before the payload is there. Returns NULL or what is wrong. */
const char *p9_engine_check(const struct p9_slot *s, const struct p9_msg *r);
/* Checks the entries of an Rreaddir whose payload is complete. */
const char *p9_engine_check_entries(const struct p9_slot *s, const struct p9_data *d);
struct p9_slot *p9_engine_slot_get(struct p9_engine *e, uint8_t type);
void p9_engine_slot_put(struct p9_engine *e, struct p9_slot *s);
/* Frees a slot whose reply has come, or lets it wait for the flushes that name it. */
void p9_engine_release(struct p9_engine *e, struct p9_slot *s);
/* Nobody waits for this request any more. */
void p9_engine_mute(struct p9_engine *e, struct p9_slot *s);
/* Fids come and go with replies; see p9_engine_fid_get(). */
void p9_engine_settle_fid(struct p9_engine *e, struct p9_slot *s, uint8_t rtype);
/* Hands out one overdue request. Returns 1 or 0. */
int p9_engine_next_overdue(struct p9_engine *e, struct p9_reply *out);

P9_C_END
#endif
