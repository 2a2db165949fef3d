/* SPDX-License-Identifier: BSD-2-Clause */
/* stream_out.c - the sending half of a stream: replies wait in chunks, one behind the other, until one writev takes a whole
 * batch of them; file payload is sent by the kernel. See stream.c, which has the other half.
 * Must stay true: link.queued is the sum of all segments; a length that is out is followed by as many bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include "base/hosterr.h"
#include "p9/backend.h"
#include "transport/stream.h"

#define IOV_BATCH 64
#define ZEROS (64u * 1024)

static const uint8_t zeros[ZEROS];

#define STREAM(l) ((struct p9_stream *)(l))

static struct p9_seg *seg_new(struct p9_stream *s)
{
	struct p9_seg *g = s->spare;
	if (g) {
		s->spare = g->next;
	} else {
		g = malloc(sizeof(*g));
	}
	if (!g) {
		p9_stream_end(s, -P9_ENOMEM, "no memory for a reply");
		return NULL;
	}
	g->next = NULL;
	if (s->tail) {
		s->tail->next = g;
	} else {
		s->head = g;
	}
	s->tail = g;
	return g;
}

void p9_seg_drop(struct p9_stream *s)
{
	struct p9_seg *g = s->head;
	s->head = g->next;
	if (!s->head) {
		s->tail = NULL;
	}
	p9_buf_put(&s->loop->pool, g->buf);
	p9_file_put(NULL, g->file);
	g->next = s->spare;
	s->spare = g;
}

static void append(struct p9_stream *s, struct p9_buf *buf, uint32_t off, size_t n)
{
	struct p9_seg *t = s->tail;
	if (s->link.broken || n == 0) {
		return;
	}
	if (t && t->buf == buf && t->off + t->len == off) {
		t->len += (uint32_t)n;
	} else {
		t = seg_new(s);
		if (!t) {
			return;
		}
		t->buf = p9_buf_ref(buf);
		t->file = NULL;
		t->off = off;
		t->len = (uint32_t)n;
	}
	s->link.queued += n;
}

int p9_stream_reserve(struct p9_link *l, void *ticket, size_t headlen, size_t payload, bool flat, struct p9_room *room)
{
	struct p9_stream *s = STREAM(l);
	if (!s->chunk || s->chunk->cap - s->chunk_len < headlen + payload) {
		struct p9_buf *b = p9_buf_get(&s->loop->pool, headlen + payload);
		if (!b) {
			return -P9_ENOMEM;
		}
		p9_buf_put(&s->loop->pool, s->chunk);
		s->chunk = b;
		s->chunk_len = 0;
	}
	room->buf = s->chunk;
	room->off = s->chunk_len;
	room->head = s->chunk->data + s->chunk_len;
	room->headlen = (uint32_t)headlen;
	room->one = (struct iovec){ room->head + headlen, payload };
	room->iov = &room->one;
	room->niov = 1;
	return 0;
}

void p9_stream_commit(struct p9_link *l, const struct p9_room *room, size_t n)
{
	struct p9_stream *s = STREAM(l);
	append(s, room->buf, room->off, n);
	s->chunk_len = room->off + (uint32_t)n;
}

void p9_stream_keep(struct p9_link *l, struct p9_room *room)
{
	(void)room; /* the chunk's own reference goes with the room */
	STREAM(l)->chunk = NULL;
	STREAM(l)->chunk_len = 0;
}

void p9_stream_send_room(struct p9_link *l, struct p9_room *room, size_t n)
{
	append(STREAM(l), room->buf, room->off, n);
	p9_buf_put(&STREAM(l)->loop->pool, room->buf);
	room->buf = NULL;
}

int p9_stream_send_file(struct p9_link *l, struct p9_file *f, uint64_t off, uint32_t len)
{
	struct p9_stream *s = STREAM(l);
	struct p9_seg *g = l->broken ? NULL : seg_new(s);
	if (!g) {
		return -P9_ENOMEM;
	}
	*g = (struct p9_seg){ .file = p9_file_get(f), .off = off, .len = len };
	l->queued += len;
	return 0;
}

static ssize_t send_bufs(struct p9_stream *s)
{
	struct iovec iov[IOV_BATCH];
	int n = 0;
	for (struct p9_seg *g = s->head; g && n < IOV_BATCH && !g->file; g = g->next) {
		if (g->buf) {
			iov[n++] = (struct iovec){ g->buf->data + g->off, g->len };
		} else {
			iov[n++] = (struct iovec){ (void *)zeros, g->len < ZEROS ? g->len : ZEROS };
			break;
		}
	}
	return s->io->writev(s, iov, n);
}

static ssize_t send_from_file(struct p9_stream *s)
{
	struct p9_seg *g = s->head;
	off_t off = (off_t)g->off;
	ssize_t n = s->io->sendfile(s, g->file->fd, &off, g->len);
	if (n == 0) { /* shorter than promised: the length is out, so zeros fill it */
		p9_file_put(NULL, g->file);
		g->file = NULL;
		errno = EINTR;
		return -1;
	}
	return n;
}

static void sent(struct p9_stream *s, size_t n)
{
	s->link.queued -= n;
	s->progress_at = s->loop->now;
	while (n > 0) {
		struct p9_seg *g = s->head;
		uint32_t k = n < g->len ? (uint32_t)n : g->len;
		g->off += k;
		g->len -= k;
		n -= k;
		if (g->len == 0) {
			p9_seg_drop(s);
		}
	}
}

void p9_stream_flush(struct p9_link *l)
{
	struct p9_stream *s = STREAM(l);
	while (s->head && !l->broken) {
		ssize_t n = s->head->file ? send_from_file(s) : send_bufs(s);
		if (n > 0) {
			sent(s, (size_t)n);
		} else if (n < 0 && errno == EAGAIN) {
			if (!s->want_out) {
				s->want_out = true;
				s->progress_at = s->loop->now;
				p9_stream_arm(s, false);
				p9_stream_watch(s);
			}
			return;
		} else if (n < 0 && errno != EINTR) {
			p9_stream_end(s, p9_err(), "send failed");
			return;
		}
	}
	if (s->head) {
		return;
	}
	if (s->chunk && !s->link.busy) { /* an idle link holds no memory */
		p9_buf_put(&s->loop->pool, s->chunk);
		s->chunk = NULL;
	}
	if (s->want_out) {
		s->want_out = false;
		p9_stream_arm(s, false);
	}
}
