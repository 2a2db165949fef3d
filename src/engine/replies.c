/* SPDX-License-Identifier: BSD-2-Clause */
/* replies.c - bytes in, replies out.
 *
 * Owns the input side. Frames gather in `in`. An Rread or Rreaddir is taken apart as soon as its head is there and was
 * checked: what has come of its payload moves to the request's memory, and p9_engine_in() offers the rest of that
 * memory, then `in`, so that one readv() fills both. All other replies are small and are read where they lie.
 * Must stay true: nothing is written to a request's memory before its reply was compared with the request, and never
 * after its reply was handed out.
 */
#include "engine/engine.h"
#include "wire/cursor.h"

#define LARGE (64u * 1024)
#define PEEK 4096u
#define AGAIN 2 /* a frame was dealt with that nobody waits for */

int p9_engine_fail(struct p9_engine *e, int ecode, const char *text)
{
	if (!e->error) {
		size_t n = p9_cstr_len(text);
		n = n < sizeof(e->text) ? n : sizeof(e->text) - 1;
		memcpy(e->text, text, n);
		e->text[n] = 0;
		e->error = -ecode;
	}
	return e->error;
}

const char *p9_engine_error(const struct p9_engine *e)
{
	return e->text;
}

static size_t add(char *buf, size_t cap, size_t at, const char *s)
{
	size_t n = p9_cstr_len(s);
	n = n < cap - 1 - at ? n : cap - 1 - at;
	memcpy(buf + at, s, n);
	buf[at + n] = 0;
	return at + n;
}

int p9_engine_breach(struct p9_engine *e, const char *why, const struct p9_slot *s, const struct p9_msg *got)
{
	char text[P9_ENGINE_TEXT];
	const struct p9_desc *d = s ? p9_wire_desc(s->type) : NULL;
	size_t n = add(text, sizeof(text), 0, "the server breaks the protocol: ");
	n = add(text, sizeof(text), n, why);
	if (d) {
		n = add(text, sizeof(text), n, ", to ");
		n = add(text, sizeof(text), n, d->name);
	}
	if (got) {
		n = add(text, sizeof(text), n, " came ");
		p9_wire_print(text + n, sizeof(text) - n, got);
	}
	return p9_engine_fail(e, P9_EPROTO, text);
}

unsigned p9_engine_in(struct p9_engine *e, struct p9_engine_iov v[2])
{
	unsigned n = 0;
	if (e->error) {
		return 0;
	}
	if (e->bulk && e->bulk_have < e->bulk_msg.rread.data.len) {
		v[n++] = (struct p9_engine_iov){ e->bulk->dst + e->bulk_have,
						 e->bulk_msg.rread.data.len - e->bulk_have };
	}
	if (e->in_pos > 0) {
		memmove(e->in, e->in + e->in_pos, e->in_len - e->in_pos);
		e->in_len -= e->in_pos;
		e->in_pos = 0;
	}
	if (e->in_len < P9_ENGINE_IN) {
		size_t room = P9_ENGINE_IN - e->in_len;
		/* behind a large payload there is often another, which would be copied from here once more */
		bool little = n > 0 && v[0].len >= LARGE && room > PEEK;
		v[n++] = (struct p9_engine_iov){ e->in + e->in_len, little ? PEEK : room };
	}
	return n;
}

void p9_engine_in_ack(struct p9_engine *e, size_t n)
{
	if (e->bulk) {
		size_t rest = e->bulk_msg.rread.data.len - e->bulk_have;
		size_t step = n < rest ? n : rest;
		e->bulk_have += (uint32_t)step;
		n -= step;
	}
	e->in_len += (uint32_t)n;
	e->heard = true;
}

static struct p9_slot *slot_of(struct p9_engine *e, uint16_t tag)
{
	if (tag != P9_NOTAG && tag >= e->ntags) {
		return NULL;
	}
	struct p9_slot *s = &e->slots[tag == P9_NOTAG ? e->ntags : tag];
	bool open = s->state == P9_SLOT_SENT || s->state == P9_SLOT_ABANDONED;
	return open && s->out_end <= e->sent ? s : NULL;
}

static int take_version(struct p9_engine *e, const struct p9_slot *s, const struct p9_msg *r)
{
	if (r->type == P9_Rversion && !p9_cstr_is("9P2000.L", r->rversion.version.s, r->rversion.version.len)) {
		p9_engine_breach(e, "it does not speak 9P2000.L", s, r);
		e->error = -P9_EPROTONOSUPPORT;
		return e->error;
	}
	if (r->type == P9_Rversion) {
		e->msize = r->rversion.msize;
		e->ready = true;
	}
	return 0;
}

/* One Tflush less; the tag is free when it was the last and the request was answered. */
static void settle_flush(struct p9_engine *e, const struct p9_slot *flush, const struct p9_msg *r)
{
	struct p9_slot *old = &e->slots[flush->oldtag];
	old->flushes--;
	if (old->state == P9_SLOT_ANSWERED && old->flushes == 0) {
		p9_engine_release(e, old);
	} else if (old->state != P9_SLOT_ANSWERED && r->type == P9_Rflush) {
		e->cancelled = flush->oldtag;
	}
}

/* Hands a reply out and lets go of the slot. Returns 1, AGAIN when nobody wants it, or the link's error. */
static int finish(struct p9_engine *e, struct p9_slot *s, struct p9_reply *out)
{
	int rc = s->type == P9_Tversion ? take_version(e, s, &out->msg) : 0;
	bool quiet = s->quiet;
	if (rc < 0) {
		return rc;
	}
	out->user = s->user;
	p9_engine_settle_fid(e, s, out->msg.type);
	if (s->type == P9_Tflush) {
		settle_flush(e, s, &out->msg);
	}
	p9_engine_release(e, s);
	return quiet ? AGAIN : 1;
}

/* A request whose Rflush came first will never be answered: say so to its owner, before the flush's own reply. */
static int finish_flush(struct p9_engine *e, struct p9_slot *s, struct p9_reply *out)
{
	int rc = finish(e, s, out);
	if (rc < 0 || e->cancelled == P9_NOTAG) {
		return rc;
	}
	struct p9_reply flush = *out;
	bool tell_flush = rc == 1;
	out->msg = (struct p9_msg){ .type = P9_Rlerror, .tag = e->cancelled, .rlerror = { .ecode = P9_ECANCELED } };
	rc = finish(e, &e->slots[e->cancelled], out);
	if (tell_flush && rc == 1) {
		e->flush = flush;
		return 1;
	}
	e->cancelled = P9_NOTAG;
	if (tell_flush) {
		*out = flush;
		return 1;
	}
	return rc;
}

static int next_bulk(struct p9_engine *e, struct p9_reply *out)
{
	struct p9_slot *s = e->bulk;
	struct p9_data *d = &e->bulk_msg.rread.data;
	if (e->bulk_have < d->len) {
		return 0;
	}
	d->p = s->dst;
	e->bulk = NULL;
	const char *why = s->type == P9_Treaddir ? p9_engine_check_entries(s, d) : NULL;
	if (why) {
		return p9_engine_breach(e, why, s, &e->bulk_msg);
	}
	out->msg = e->bulk_msg;
	return finish(e, s, out);
}

static bool is_bulk(uint8_t type)
{
	return type == P9_Rread || type == P9_Rreaddir;
}

/* The head of a bulk reply is there: check it, move what came of the payload, and let the rest come. */
static int begin_bulk(struct p9_engine *e, struct p9_slot *s, uint32_t size, uint32_t have)
{
	const uint8_t *p = e->in + e->in_pos;
	struct p9_msg *m = &e->bulk_msg;
	int rc = size < P9_RREADHDRSZ ? -P9_EPROTO : p9_wire_decode(p, P9_RREADHDRSZ, size - P9_RREADHDRSZ, m);
	if (rc < 0) {
		return p9_engine_breach(e, "count and frame size differ", s, NULL);
	}
	const char *why = p9_engine_check(s, m);
	if (why) {
		return p9_engine_breach(e, why, s, m);
	}
	uint32_t n = m->rread.data.len;
	if (s->state == P9_SLOT_ABANDONED) {
		e->in_pos += P9_RREADHDRSZ;
		e->skip = n;
		return AGAIN;
	}
	e->bulk_have = have - P9_RREADHDRSZ < n ? have - P9_RREADHDRSZ : n;
	if (e->bulk_have) {
		memcpy(s->dst, p + P9_RREADHDRSZ, e->bulk_have);
	}
	e->in_pos += P9_RREADHDRSZ + e->bulk_have;
	e->bulk = s;
	return 1;
}

int p9_engine_redirect(struct p9_engine *e, uint16_t tag, void *dst)
{
	struct p9_slot *s = tag < e->ntags ? &e->slots[tag] : NULL;
	if (!s || !dst || s->state != P9_SLOT_SENT || s->quiet || !is_bulk((uint8_t)(s->type + 1))) {
		return -P9_EINVAL;
	}
	if (s == e->bulk) {
		return -P9_EBUSY;
	}
	s->dst = dst;
	return 0;
}

/* A whole frame of any other type. */
static int take_frame(struct p9_engine *e, struct p9_slot *s, uint32_t size, struct p9_reply *out)
{
	const uint8_t *p = e->in + e->in_pos;
	int rc = p9_wire_decode(p, size, 0, &out->msg);
	if (rc < 0) {
		return p9_engine_breach(e, rc == -P9_EOPNOTSUPP ? "unknown message" : "malformed message", s, NULL);
	}
	const char *why = p9_engine_check(s, &out->msg);
	if (why) {
		return p9_engine_breach(e, why, s, &out->msg);
	}
	e->in_pos += size;
	return s->type == P9_Tflush ? finish_flush(e, s, out) : finish(e, s, out);
}

/* The frame's size and tag are there. Returns as p9_engine_next(). */
static int next_frame(struct p9_engine *e, struct p9_reply *out)
{
	const uint8_t *p = e->in + e->in_pos;
	uint32_t have = e->in_len - e->in_pos;
	uint32_t size = p9_get32(p);
	if (size < P9_HDRSZ || size > e->msize) {
		return p9_engine_breach(e, size < P9_HDRSZ ? "frame size below 7" : "frame larger than msize", NULL,
					NULL);
	}
	struct p9_slot *s = slot_of(e, p9_get16(p + 5));
	if (!s) {
		struct p9_msg head = { .type = p[4], .tag = p9_get16(p + 5) };
		bool whole = size <= have && p9_wire_decode(p, size, 0, &head) == 0;
		return p9_engine_breach(e, "reply with a tag that is not in flight", NULL, whole ? &head : NULL);
	}
	if (is_bulk(p[4]) && p[4] == s->type + 1) {
		uint32_t least = size < P9_RREADHDRSZ ? size : P9_RREADHDRSZ;
		int rc = have < least ? 0 : begin_bulk(e, s, size, have);
		out->msg = e->bulk_msg;
		return rc == AGAIN ? finish(e, s, out) : rc > 0 ? next_bulk(e, out) : rc;
	}
	if (size > P9_ENGINE_IN) {
		return p9_engine_breach(e, "reply larger than its type can be", s, NULL);
	}
	return have < size ? 0 : take_frame(e, s, size, out);
}

/* Drops what has come of a payload that nobody waits for. Returns whether that was all of it. */
static bool skip_payload(struct p9_engine *e)
{
	uint32_t have = e->in_len - e->in_pos;
	uint32_t n = e->skip < have ? e->skip : have;
	e->in_pos += n;
	e->skip -= n;
	return e->skip == 0;
}

int p9_engine_next(struct p9_engine *e, struct p9_reply *out)
{
	int rc = AGAIN;
	if (e->error) {
		return e->error;
	}
	if (e->cancelled != P9_NOTAG) { /* the request's end was handed out last time, now the flush's */
		e->cancelled = P9_NOTAG;
		*out = e->flush;
		return 1;
	}
	if (e->noverdue) { /* first, so that no reply meets a request in that state */
		return p9_engine_next_overdue(e, out);
	}
	while (rc == AGAIN) {
		if (!skip_payload(e)) {
			return 0;
		}
		rc = e->bulk ? next_bulk(e, out) : e->in_len - e->in_pos < P9_HDRSZ ? 0 : next_frame(e, out);
	}
	return rc;
}
