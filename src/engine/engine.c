/* SPDX-License-Identifier: BSD-2-Clause */
/* engine.c - set-up, requests in, bytes out.
 *
 * Owns the output side: heads of requests lie one behind the other in `out`; the payload of a Twrite stays with the
 * caller and is noted in `pays`, at the position among the head bytes where it belongs. replies.c owns the input side,
 * tags.c the slots and fids, check.c the judgement of replies.
 * Must stay true: a slot is SENT from submit until its reply was handed out (or longer, while a flush of it is open);
 * a request is never queued in part; positions only grow.
 */
#include "engine/engine.h"
#include "wire/cursor.h"

#define HEAD_TYPICAL 4608u	   /* head of a Twalk with 16 names of 255 bytes, or a Tsymlink, with room to spare */
#define HEAD_LARGEST (136u * 1024) /* a Tattach with two strings of 65535 bytes */

static uint32_t out_size(const struct p9_engine_conf *c)
{
	return c->out_size ? c->out_size : c->ntags * HEAD_TYPICAL + HEAD_LARGEST;
}
static size_t round_up(size_t n)
{
	return (n + 15) & ~(size_t)15;
}
static size_t fid_words(const struct p9_engine_conf *c)
{
	return ((size_t)c->nfids + 63) / 64;
}

size_t p9_engine_memory(const struct p9_engine_conf *c)
{
	return round_up(((size_t)c->ntags + 1) * sizeof(struct p9_slot)) + round_up(c->ntags * sizeof(struct p9_pay)) +
	       round_up(fid_words(c) * sizeof(uint64_t)) + round_up(out_size(c)) + P9_ENGINE_IN;
}

static uint8_t *carve(uint8_t **p, size_t n)
{
	uint8_t *mine = *p;
	*p += round_up(n);
	return mine;
}

int p9_engine_init(struct p9_engine *e, const struct p9_engine_conf *c, void *mem, size_t len)
{
	if (c->msize < P9_MSIZE_MIN || c->ntags < 2 || c->ntags == P9_NOTAG || c->nfids == 0 || c->nfids == P9_NOFID) {
		return -P9_EINVAL;
	}
	if (len < p9_engine_memory(c)) {
		return -P9_ENOMEM;
	}
	uint8_t *p = mem;
	memset(e, 0, sizeof(*e));
	e->ntags = c->ntags;
	e->nfids = c->nfids;
	e->msize = c->msize;
	e->out_size = out_size(c);
	e->cancelled = P9_NOTAG;
	e->next_due = UINT64_MAX;
	e->slots = (struct p9_slot *)carve(&p, ((size_t)c->ntags + 1) * sizeof(struct p9_slot));
	e->pays = (struct p9_pay *)carve(&p, c->ntags * sizeof(struct p9_pay));
	e->fids = (uint64_t *)carve(&p, fid_words(c) * sizeof(uint64_t));
	e->out = carve(&p, e->out_size);
	e->in = p;
	memset(e->slots, 0, ((size_t)c->ntags + 1) * sizeof(struct p9_slot));
	memset(e->fids, 0, fid_words(c) * sizeof(uint64_t));
	if (c->nfids % 64) { /* what lies behind the last fid is in use for ever */
		e->fids[c->nfids / 64] = UINT64_MAX << (c->nfids % 64);
	}
	for (uint16_t i = 0; i < c->ntags; i++) {
		p9_engine_slot_put(e, &e->slots[i]);
	}
	return 0;
}

unsigned p9_engine_room(const struct p9_engine *e)
{
	return e->ready && !e->error ? e->nfree : 0;
}

unsigned p9_engine_pending(const struct p9_engine *e)
{
	return (unsigned)(e->ntags - e->nfree - e->nquiet) + (e->slots[e->ntags].state != P9_SLOT_FREE);
}

static struct p9_data *payload_of(struct p9_msg *msg)
{
	return msg->type == P9_Twrite ? &msg->twrite.data : NULL;
}

/* What the reply will be compared with. Returns the most bytes of payload that the reply can have. */
static uint32_t note_request(struct p9_slot *s, const struct p9_msg *m)
{
	switch (m->type) {
	case P9_Tversion:
		s->asked = m->tversion.msize;
		return 0;
	case P9_Tread:
		return s->asked = m->tread.count;
	case P9_Treaddir:
		s->cookie = m->treaddir.offset;
		return s->asked = m->treaddir.count;
	case P9_Twrite:
		s->asked = m->twrite.data.len;
		return 0;
	case P9_Twalk:
		s->asked = m->twalk.wname.n;
		s->fid = m->twalk.newfid == m->twalk.fid ? P9_NOFID : m->twalk.newfid;
		return 0;
	case P9_Tattach:
		s->fid = m->tattach.fid;
		return 0;
	case P9_Tauth:
		s->fid = m->tauth.afid;
		return 0;
	case P9_Txattrwalk:
		s->fid = m->txattrwalk.newfid;
		return 0;
	case P9_Tclunk:
		s->fid = m->tclunk.fid;
		return 0;
	case P9_Tremove:
		s->fid = m->tremove.fid;
		return 0;
	case P9_Tflush:
		s->oldtag = m->tflush.oldtag;
		return 0;
	default:
		return 0;
	}
}

/* Moves what waits to the beginning of the buffer. */
static void compact(struct p9_engine *e)
{
	if (e->out_pos == 0) {
		return;
	}
	memmove(e->out, e->out + e->out_pos, e->out_len - e->out_pos);
	e->head_base += e->out_pos;
	e->out_len -= e->out_pos;
	e->out_pos = 0;
}

/* Encodes behind what waits. Returns the head's length, or -P9_EAGAIN. */
static int encode(struct p9_engine *e, const struct p9_msg *msg, size_t head)
{
	if (head > e->out_size - e->out_len) {
		compact(e);
	}
	if (head > e->out_size - e->out_len) {
		return -P9_EAGAIN;
	}
	int n = p9_wire_encode_head(e->out + e->out_len, e->out_size - e->out_len, msg);
	e->out_len += n > 0 ? (uint32_t)n : 0;
	return n;
}

static void note_payload(struct p9_engine *e, const struct p9_data *d)
{
	struct p9_pay *p = &e->pays[(e->pay_first + e->npays) % e->ntags];
	*p = (struct p9_pay){ e->head_base + e->out_len, d->p, d->len };
	e->npays++;
}

/* Whether this request may go out in the session's state, and fits. */
static int admit(const struct p9_engine *e, const struct p9_msg *msg, size_t size)
{
	if (e->error) {
		return e->error;
	}
	const struct p9_desc *d = p9_wire_desc(msg->type);
	bool first = msg->type == P9_Tversion;
	if (!d || d->name[0] != 'T' || first == e->ready) {
		return -P9_EINVAL;
	}
	return size > e->msize ? -P9_EMSGSIZE : 0;
}

int p9_engine_submit(struct p9_engine *e, struct p9_msg *msg, void *dst, void *user)
{
	size_t size = p9_wire_size(msg);
	int rc = admit(e, msg, size);
	if (rc < 0) {
		return rc;
	}
	struct p9_slot *s = p9_engine_slot_get(e, msg->type);
	if (!s) {
		return -P9_EAGAIN;
	}
	const struct p9_data *pay = payload_of(msg);
	uint16_t tag = (uint16_t)(s - e->slots);
	msg->tag = msg->type == P9_Tversion ? P9_NOTAG : tag;
	s->user = user;
	s->dst = dst;
	uint32_t bulk = note_request(s, msg);
	if (bulk > e->msize - P9_RREADHDRSZ || (bulk && !dst)) {
		rc = bulk && !dst ? -P9_EINVAL : -P9_EMSGSIZE;
	} else {
		rc = encode(e, msg, size - (pay ? pay->len : 0));
	}
	if (rc < 0) {
		p9_engine_slot_put(e, s);
		return rc;
	}
	if (pay && pay->len) {
		note_payload(e, pay);
	}
	e->queued += size;
	s->out_end = e->queued;
	return tag;
}

int p9_engine_flush(struct p9_engine *e, uint16_t tag, void *user)
{
	struct p9_slot *old = &e->slots[tag];
	if (e->error || tag >= e->ntags || old->state == P9_SLOT_FREE) {
		return e->error ? e->error : -P9_EINVAL;
	}
	struct p9_msg msg = { .type = P9_Tflush, .tflush = { .oldtag = tag } };
	int rc = p9_engine_submit(e, &msg, NULL, user);
	if (rc >= 0) {
		old->flushes++;
		if (!user) {
			p9_engine_mute(e, &e->slots[rc]);
		}
	}
	return rc;
}

unsigned p9_engine_out(const struct p9_engine *e, struct p9_engine_iov *v, unsigned max)
{
	unsigned n = 0;
	uint32_t pos = e->out_pos, done = e->pay_sent;
	for (unsigned i = 0; i <= e->npays && n < max; i++) {
		const struct p9_pay *pay = i < e->npays ? &e->pays[(e->pay_first + i) % e->ntags] : NULL;
		uint32_t end = pay ? (uint32_t)(pay->at - e->head_base) : e->out_len;
		if (end > pos) {
			v[n++] = (struct p9_engine_iov){ e->out + pos, end - pos };
			pos = end;
		}
		if (pay && n < max) {
			v[n++] = (struct p9_engine_iov){ (uint8_t *)(uintptr_t)pay->p + done, pay->len - done };
		}
		done = 0;
	}
	return n;
}

void p9_engine_out_ack(struct p9_engine *e, size_t n)
{
	e->sent += n;
	while (n > 0) {
		struct p9_pay *pay = e->npays ? &e->pays[e->pay_first] : NULL;
		uint32_t end = pay ? (uint32_t)(pay->at - e->head_base) : e->out_len;
		size_t step = end - e->out_pos;
		if (step > 0 || !pay) {
			step = n < step ? n : step;
			e->out_pos += (uint32_t)step;
			n = step ? n - step : 0;
			continue;
		}
		step = n < pay->len - e->pay_sent ? n : pay->len - e->pay_sent;
		e->pay_sent += (uint32_t)step;
		n -= step;
		if (e->pay_sent == pay->len) {
			e->pay_first = (uint16_t)((e->pay_first + 1) % e->ntags);
			e->npays--;
			e->pay_sent = 0;
		}
	}
	if (e->out_pos == e->out_len && e->npays == 0) {
		compact(e);
	}
}
