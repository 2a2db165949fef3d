/* SPDX-License-Identifier: BSD-2-Clause */
/* xfer.c - one file's bytes with several requests in flight.
 *
 * A transfer is a ring of pieces, each one request. Reading, the pieces are handed over in the order of the file: a
 * piece that comes early waits in its buffer. A reply shorter than asked is asked again for its rest, unless it ends
 * where the file is known to end; an empty one is the end. Writing, a short count is sent again for its rest; a server
 * that writes nothing gets EIO.
 * Called by commands for single files and by the copiers for many at once, which share one pool of buffers.
 * Must stay true: a buffer goes back to the pool only when its request was answered.
 */
#include <stdlib.h>
#include <string.h>
#include "client/internal.h"

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

static void drop_first(struct p9_xfer *x)
{
	pool_put(x->pool, piece(x, 0)->buf);
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
		if (!x->error && !x->writing && q->got && q->offset < x->eof) {
			int rc = x->data(x, q->offset, q->buf, q->got);
			if (rc < 0) {
				x->local = true;
				p9_xfer_stop(x, rc);
			}
		}
		x->moved += x->error ? 0 : q->got;
		drop_first(x);
	}
}

static bool at_end(const struct p9_xfer *x)
{
	return x->error || x->eof != UINT64_MAX || x->source_end;
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

static void piece_done(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_piece *q = (struct p9_piece *)call;
	struct p9_xfer *x = q->xfer;
	q->done = take(x, q, r);
	if (!q->done) {
		send_piece(q);
	}
	deliver(x);
	finish_if_done(x);
}

void p9_xfer_begin(struct p9_xfer *x)
{
	x->next = x->offset;
	x->eof = UINT64_MAX;
}

/* How much the next piece asks for or brings; 0 for none now. */
static uint32_t next_length(struct p9_xfer *x, uint8_t *buf)
{
	if (!x->writing) {
		bool beyond = x->next >= x->size;
		return beyond && x->count > 0 ? 0 : x->chunk; /* behind the expected end: one at a time */
	}
	int n = x->data(x, x->next, buf, x->chunk);
	if (n < 0) {
		x->local = true;
		p9_xfer_stop(x, n);
	}
	x->source_end = n <= 0;
	return n > 0 ? (uint32_t)n : 0;
}

void p9_xfer_more(struct p9_xfer *x)
{
	while (!at_end(x) && x->count < P9_XFER_WINDOW && p9_client_room(x->client) > 0) {
		uint8_t *buf = pool_get(x->pool, x->client);
		uint32_t n = buf ? next_length(x, buf) : 0;
		if (n == 0) {
			if (buf) {
				pool_put(x->pool, buf);
			} else if (x->pool->made == 0) {
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
