/* SPDX-License-Identifier: BSD-2-Clause */
/* xfer.c - one file's bytes with several requests in flight.
 *
 * A transfer is a ring of pieces, each one request. Reading, the pieces are handed over in the order of the file: a
 * piece that comes early waits in its buffer. A reply shorter than asked is asked again for its rest, unless it ends
 * where the file is known to end; an empty one is the end. Writing, a short count is sent again for its rest; a server
 * that writes nothing gets EIO. How many pieces there are at once is window.c's affair.
 * Called by commands for single files, by the copiers for many at once, which share one pool of buffers, and by
 * fs_stream.c, which sends through a queue of its own.
 * Must stay true: a buffer goes back to the pool only when its request was answered.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "client/internal.h"
#include "client/window.h"

struct p9_pool {
	size_t size;
	unsigned max, made, nfree;
	struct p9_client *client; /* whose memory it is: the first that asked */
	uint8_t **all;
	uint8_t *free[];
};

struct p9_pool *p9_pool_new(size_t size, unsigned max)
{
	struct p9_pool *p = calloc(1, sizeof(*p) + 2 * max * sizeof(p->free[0]));
	if (p) {
		p->size = size;
		p->max = max;
		p->all = p->free + max;
	}
	return p;
}

void p9_pool_free(struct p9_pool *p)
{
	for (unsigned i = 0; p && i < p->made; i++) {
		p9_client_buffer_free(p->client, p->all[i]); /* also those that a dead link will never give back */
	}
	free(p);
}

static uint8_t *pool_get(struct p9_pool *p, struct p9_client *c)
{
	p->client = p->client ? p->client : c;
	if (p->nfree > 0) {
		return p->free[--p->nfree];
	}
	uint8_t *buf = p->made < p->max ? p9_client_buffer(p->client, p->size) : NULL;
	if (buf) {
		p->all[p->made++] = buf;
	}
	return buf;
}

static void pool_put(struct p9_pool *p, uint8_t *buf)
{
	p->free[p->nfree++] = buf;
}

static struct p9_piece *piece(struct p9_xfer *x, unsigned i)
{
	return &x->pieces[(x->first + i) % P9_XFER_WINDOW];
}

static uint64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint8_t *get_buffer(struct p9_xfer *x)
{
	return x->pool ? pool_get(x->pool, x->client) : x->memory + (x->next - x->offset);
}

static void put_buffer(struct p9_xfer *x, uint8_t *buf)
{
	if (x->pool) {
		pool_put(x->pool, buf);
	}
}

/* What comes next comes to where the last was, which is in the processor's cache. */
static void use_again(struct p9_xfer *x)
{
	struct p9_piece *last = piece(x, 0), *next = piece(x, 1);
	bool can = x->pool && !x->writing && !x->send && x->count > 1 && !next->done && next->got == 0;
	if (can && p9_client_redirect(x->client, &next->call, last->buf) == 0) {
		uint8_t *buf = next->buf;
		next->buf = last->buf;
		last->buf = buf;
	}
}

static void drop_first(struct p9_xfer *x)
{
	use_again(x);
	put_buffer(x, piece(x, 0)->buf);
	x->first = (x->first + 1) % P9_XFER_WINDOW;
	x->count--;
}

void p9_xfer_stop(struct p9_xfer *x, int error)
{
	if (!x->error) {
		x->error = error;
	}
}

static void send_piece(struct p9_piece *q)
{
	struct p9_xfer *x = q->xfer;
	struct p9_msg t = { .type = x->writing ? P9_Twrite : P9_Tread };
	if (x->writing) {
		t.twrite = (struct p9_twrite){ x->fid, q->offset + q->got, { q->len - q->got, q->buf + q->got } };
	} else {
		t.tread = (struct p9_tread){ x->fid, q->offset + q->got, q->len - q->got };
	}
	if (x->send) {
		x->send(q, &t);
		return;
	}
	int rc = p9_client_send(x->client, &t, q->buf + q->got, &q->call);
	if (rc < 0) {
		p9_xfer_stop(x, rc);
		q->done = true;
	}
}

/* Hands over what is complete at the front of the ring. */
static void deliver(struct p9_xfer *x)
{
	while (x->count > 0 && piece(x, 0)->done) {
		struct p9_piece *q = piece(x, 0);
		if (!x->error && x->data && !x->writing && q->got && q->offset < x->eof) {
			int rc = x->data(x, q->offset, q->buf, q->got);
			if (rc < 0) {
				x->local = true;
				p9_xfer_stop(x, rc);
			}
		}
		x->moved += x->error || q->offset >= x->eof ? 0 : q->got;
		drop_first(x);
	}
}

static bool at_end(const struct p9_xfer *x)
{
	return x->error || x->eof != UINT64_MAX || x->source_end || (x->limit && x->next >= x->limit);
}

static void finish_if_done(struct p9_xfer *x)
{
	if (x->count == 0 && at_end(x) && !x->finished) {
		x->finished = true;
		x->done(x);
	}
}

/* Takes a reply in. True when the piece is complete. */
static bool take(struct p9_xfer *x, struct p9_piece *q, const struct p9_msg *r)
{
	if (r->type == P9_Rlerror) {
		p9_xfer_stop(x, -(int)r->rlerror.ecode);
		return true;
	}
	uint32_t n = x->writing ? r->rwrite.count : r->rread.data.len;
	q->got += n;
	p9_window_took(&x->window, n, now_us());
	if (x->writing && n == 0) {
		p9_xfer_stop(x, -P9_EIO);
	}
	uint64_t end = q->offset + q->got;
	if (!x->writing && q->got < q->len && (n == 0 || end == x->size)) {
		x->eof = end < x->eof ? end : x->eof;
		return true;
	}
	return q->got == q->len || x->error;
}

void p9_xfer_answer(struct p9_piece *q, const struct p9_msg *r)
{
	struct p9_xfer *x = q->xfer;
	q->done = take(x, q, r);
	if (!q->done) {
		send_piece(q);
	}
	deliver(x);
	finish_if_done(x);
}

static void piece_done(struct p9_call *call, const struct p9_msg *r)
{
	p9_xfer_answer((struct p9_piece *)call, r);
}

void p9_xfer_begin(struct p9_xfer *x)
{
	unsigned most = x->pool && x->pool->max < P9_XFER_WINDOW ? x->pool->max : P9_XFER_WINDOW;
	x->next = x->offset;
	x->eof = UINT64_MAX;
	p9_window_begin(&x->window, most, now_us());
}

/* How much the next piece asks for or brings; 0 for none now. */
static uint32_t next_length(struct p9_xfer *x, uint8_t *buf)
{
	uint64_t left = x->limit ? x->limit - x->next : UINT64_MAX;
	uint32_t most = left < x->chunk ? (uint32_t)left : x->chunk;
	if (!x->writing) {
		bool beyond = x->next >= x->size;
		return beyond && x->count > 0 ? 0 : most; /* behind the expected end: one at a time */
	}
	int n = x->data ? x->data(x, x->next, buf, most) : (int)most;
	if (n < 0) {
		x->local = true;
		p9_xfer_stop(x, n);
	}
	x->source_end = n <= 0;
	return n > 0 ? (uint32_t)n : 0;
}

void p9_xfer_more(struct p9_xfer *x)
{
	while (!at_end(x) && x->count < x->window.now && (x->send || p9_client_room(x->client) > 0)) {
		uint8_t *buf = get_buffer(x);
		uint32_t n = buf ? next_length(x, buf) : 0;
		if (n == 0) {
			if (buf) {
				put_buffer(x, buf);
			} else if (x->pool && x->pool->made == 0) {
				p9_xfer_stop(x, -P9_ENOMEM);
			}
			break;
		}
		struct p9_piece *q = piece(x, x->count++);
		*q = (struct p9_piece){ { piece_done }, x, buf, x->next, n, 0, false };
		x->next += n;
		send_piece(q);
	}
	deliver(x);
	finish_if_done(x);
}

int p9_xfer_run(struct p9_xfer *x)
{
	p9_xfer_begin(x);
	p9_xfer_more(x);
	while (!x->finished) {
		int rc = p9_client_step(x->client);
		if (rc < 0) {
			return rc;
		}
		p9_xfer_more(x);
	}
	return x->error;
}
