/* SPDX-License-Identifier: BSD-2-Clause */
/* fs_stream.c - a transfer (xfer.c) that is run to its end by the thread that wants it.
 *
 * Requests go through a queue, so that all of the transfer's state, and the caller's `data`, stay on this thread whoever
 * moves the bytes. Without memory of the caller's, pieces take buffers of a pool that lives as long as the call.
 */
#include <stdlib.h>
#include "client/fs.h"
#include "client/queue.h"

#define BUFFERS 32u
#define BUFFERS_BYTES (16u * 1024 * 1024)

struct run {
	struct p9_xfer xfer;
	struct p9_queue queue;
	struct p9_stream *stream;
	struct p9_op ops[P9_XFER_WINDOW]; /* one for each of the transfer's pieces */
};

static void send(struct p9_piece *piece, struct p9_msg *t)
{
	struct run *run = (struct run *)piece->xfer;
	struct p9_op *op = &run->ops[piece - run->xfer.pieces];
	op->msg = *t;
	op->dst = piece->buf + piece->got;
	p9_queue_send(&run->queue, op);
}

static int data(struct p9_xfer *x, uint64_t offset, uint8_t *buf, uint32_t n)
{
	struct p9_stream *s = ((struct run *)x)->stream;
	return s->data(s->arg, offset, buf, n);
}

/* The loop sees `finished`. */
static void done(struct p9_xfer *x)
{
}

static int run_to_end(struct run *run)
{
	struct p9_xfer *x = &run->xfer;
	p9_xfer_begin(x);
	p9_xfer_more(x);
	while (!x->finished) {
		struct p9_op *op = p9_queue_next(&run->queue);
		if (!op) { /* it could not end: the buffers' memory */
			return p9_client_dead(x->client) ? p9_client_link_error(x->client) : -P9_ENOMEM;
		}
		p9_xfer_answer(&x->pieces[op - run->ops], &op->msg);
		p9_xfer_more(x);
	}
	return x->error;
}

static struct p9_pool *pool_for(const struct p9_stream *s)
{
	unsigned n = BUFFERS_BYTES / s->file->chunk;
	return p9_pool_new(s->file->chunk, n < 2 ? 2 : n > BUFFERS ? BUFFERS : n);
}

int p9_fs_stream(struct p9_stream *s)
{
	struct p9_client *c = s->file->client;
	struct p9_pool *pool = s->memory ? NULL : pool_for(s);
	struct run *run = calloc(1, sizeof(*run));
	int rc = -P9_ENOMEM;
	if (run && (pool || s->memory)) {
		run->xfer = (struct p9_xfer){ .client = c,
					      .pool = pool,
					      .memory = s->memory,
					      .fid = s->file->fid,
					      .chunk = s->file->chunk,
					      .offset = s->offset,
					      .size = s->size,
					      .limit = s->limit,
					      .writing = s->writing,
					      .data = s->memory ? NULL : data,
					      .done = done,
					      .send = send };
		run->stream = s;
		p9_queue_init(&run->queue, c);
		rc = run_to_end(run);
		p9_queue_fini(&run->queue);
		s->moved = run->xfer.moved;
		s->most = run->xfer.window.now;
	}
	free(run);
	p9_pool_free(pool);
	return rc < 0 && !p9_client_dead(c) ? p9_client_set_error(c, rc) : rc;
}
