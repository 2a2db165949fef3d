/* SPDX-License-Identifier: BSD-2-Clause */
/* late.c - requests that end otherwise than by their reply: deadlines, what comes after them, and the link's end.
 *
 * An overdue request is answered by the engine. Its slot and its tag stay in use until the server has answered it or its
 * Tflush, since a late reply must find something that it belongs to; what it brings is thrown away, and a fid that it
 * made is clunked.
 * Must stay true: memory of the caller's is not touched once its request was handed out, whichever way; so a Twrite
 * whose payload has not left us yet cannot be given up, except together with the link.
 */
#include "engine/engine.h"

void p9_engine_mute(struct p9_engine *e, struct p9_slot *s)
{
	e->nquiet += !s->quiet;
	s->quiet = true;
	s->user = NULL;
	s->dst = NULL;
}

/* The engine's own requests may find no tag. A flush is only a courtesy then; see p9_engine_release() for the other. */
static int submit_quiet(struct p9_engine *e, struct p9_msg *m)
{
	int tag = p9_engine_submit(e, m, NULL, NULL);
	if (tag >= 0) {
		p9_engine_mute(e, &e->slots[tag]);
	}
	return tag;
}

void p9_engine_release(struct p9_engine *e, struct p9_slot *s)
{
	if (s->flushes) {
		s->state = P9_SLOT_ANSWERED;
		p9_engine_mute(e, s);
		return;
	}
	struct p9_msg clunk = { .type = P9_Tclunk, .tclunk = { .fid = s->fid } };
	bool orphan = s->orphan;
	p9_engine_slot_put(e, s);
	if (orphan && submit_quiet(e, &clunk) < 0) { /* there is a tag: this one */
		p9_engine_fid_put(
			e, clunk.tclunk.fid); /* and no room for 11 bytes: the server drowns, or the link has ended */
	}
}

void p9_engine_settle_fid(struct p9_engine *e, struct p9_slot *s, uint8_t rtype)
{
	bool ender = s->type == P9_Tclunk || s->type == P9_Tremove;
	if (s->fid == P9_NOFID) {
		return;
	}
	if (ender ? e->cancelled == P9_NOTAG : rtype == P9_Rlerror) {
		p9_engine_fid_put(e, s->fid);
	} else if (s->state == P9_SLOT_ABANDONED) { /* a late fid, or a clunk that was cancelled after all */
		s->orphan = true;
	}
}

void p9_engine_deadline(struct p9_engine *e, uint16_t tag, uint64_t due)
{
	struct p9_slot *s = &e->slots[tag];
	if (tag < e->ntags && s->state == P9_SLOT_SENT) {
		s->due = due;
		e->next_due = due && due < e->next_due ? due : e->next_due;
	}
}

static void make_overdue(struct p9_engine *e, struct p9_slot *s)
{
	if (e->bulk == s) {
		e->skip = e->bulk_msg.rread.data.len - e->bulk_have;
		e->bulk = NULL;
		s->gone = true;
	}
	s->state = P9_SLOT_OVERDUE;
	e->noverdue++;
}

/* Looks at one slot. Returns when to look again. */
static uint64_t judge(struct p9_engine *e, struct p9_slot *s, uint64_t now, uint64_t grace)
{
	if (s->due == 0 || (s->state != P9_SLOT_SENT && s->state != P9_SLOT_ABANDONED)) {
		return UINT64_MAX;
	}
	uint64_t since = s->due > e->heard_at ? s->due : e->heard_at;
	uint64_t when = s->state == P9_SLOT_SENT ? s->due : since + grace;
	if (when > now) {
		return when;
	}
	if (s->state == P9_SLOT_ABANDONED) {
		p9_engine_fail(e, P9_ETIMEDOUT, "the server does not answer");
	} else if (s->type == P9_Twrite && s->out_end > e->sent) {
		p9_engine_fail(e, P9_ETIMEDOUT, "the server does not take in what it is sent");
	} else {
		make_overdue(e, s);
		return since + grace;
	}
	return UINT64_MAX;
}

uint64_t p9_engine_expire(struct p9_engine *e, uint64_t now, uint64_t grace)
{
	if (e->heard) {
		e->heard = false;
		e->heard_at = now;
	}
	if (now < e->next_due || e->error) {
		return e->error ? UINT64_MAX : e->next_due;
	}
	uint64_t next = UINT64_MAX;
	for (uint32_t i = 0; i < e->ntags && !e->error; i++) {
		uint64_t when = judge(e, &e->slots[i], now, grace);
		next = when < next ? when : next;
	}
	return e->next_due = next;
}

int p9_engine_next_overdue(struct p9_engine *e, struct p9_reply *out)
{
	struct p9_slot *s = e->slots;
	while (s->state != P9_SLOT_OVERDUE) {
		s++;
	}
	uint16_t tag = (uint16_t)(s - e->slots);
	out->user = s->user;
	out->msg = (struct p9_msg){ .type = P9_Rlerror, .tag = tag, .rlerror = { .ecode = P9_ETIMEDOUT } };
	e->noverdue--;
	if (s->gone) {
		p9_engine_release(e, s);
		return 1;
	}
	s->state = P9_SLOT_ABANDONED;
	p9_engine_mute(e, s);
	/* what ends a fid must be done, and a flush is not flushed */
	if (s->type != P9_Tclunk && s->type != P9_Tremove && s->type != P9_Tflush && s->flushes == 0) {
		struct p9_msg flush = { .type = P9_Tflush, .tflush = { .oldtag = tag } };
		s->flushes += submit_quiet(e, &flush) >= 0;
	}
	return 1;
}

int p9_engine_drain(struct p9_engine *e, struct p9_reply *out)
{
	if (e->cancelled != P9_NOTAG) {
		e->cancelled = P9_NOTAG;
		*out = e->flush;
		return 1;
	}
	for (uint32_t i = 0; i <= e->ntags; i++) {
		struct p9_slot *s = &e->slots[i];
		if (s->state == P9_SLOT_FREE) {
			continue;
		}
		bool quiet = s->quiet;
		out->user = s->user;
		out->msg = (struct p9_msg){ .type = P9_Rlerror,
					    .tag = (uint16_t)(i == e->ntags ? P9_NOTAG : i),
					    .rlerror = { .ecode = (uint32_t)-e->error } };
		if (s->state != P9_SLOT_ANSWERED) {
			p9_engine_settle_fid(e, s, P9_Rlerror);
		} else if (s->orphan) {
			p9_engine_fid_put(e, s->fid);
		}
		p9_engine_slot_put(e, s);
		if (!quiet) {
			return 1;
		}
	}
	return 0;
}

void p9_engine_restart(struct p9_engine *e, uint32_t msize)
{
	e->head_base = e->queued = e->sent = 0;
	e->out_pos = e->out_len = e->in_pos = e->in_len = e->pay_sent = e->skip = 0;
	e->pay_first = e->npays = e->noverdue = 0;
	e->bulk = NULL;
	e->bulk_have = 0;
	e->next_due = UINT64_MAX;
	e->heard_at = 0;
	e->heard = e->ready = false;
	e->msize = msize;
	e->error = 0;
	e->text[0] = 0;
}
