/* SPDX-License-Identifier: BSD-2-Clause */
/* stream_pack.c - a stream as it goes from one p9d to the next: its descriptors, what has come and was not worked on, and
 * what is to be sent. Called by the server while nothing else is at work (server/handover.c).
 *
 * Requests that were taken and not done stand before what has come after them, as if they had never been taken. File
 * payload that waits to be sent becomes bytes. Nothing of the stream changes, so it can go on should nobody take it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/pack.h"
#include "p9/backend.h"
#include "p9/codec.h"
#include "transport/stream.h"

#define STREAM(l) ((struct p9_stream *)(l))
#define PIECE_MAX (256u * 1024 * 1024) /* of bytes that wait: more than any session may have */

bool p9_stream_quiet(const struct p9_link *l, unsigned undone)
{
	(void)undone;
	return !l->busy;
}

static void pack_input(struct p9_stream *s, struct p9_pack *p, const struct p9_undone *undone, unsigned n)
{
	uint32_t left = s->rx ? s->rx_end - s->rx_pos : 0;
	p9_pack_number(p, n);
	for (unsigned i = 0; i < n; i++) {
		p9_pack_bytes(p, undone[i].msg, undone[i].len);
	}
	p9_pack_bytes(p, left ? s->rx->data + s->rx_pos : NULL, left);
}

/* As send_from_file() would have sent it: what is not there any more is zeros. */
static void pack_file_range(const struct p9_seg *g, struct p9_pack *p)
{
	uint8_t *data = calloc(1, g->len);
	size_t have = 0;
	ssize_t n = data ? 1 : 0;
	while (have < g->len && n > 0) {
		n = pread(g->file->fd, data + have, g->len - have, (off_t)(g->off + have));
		have += n > 0 ? (size_t)n : 0;
	}
	if (!data) {
		p9_pack_fail(p, "out of memory");
	} else {
		p9_pack_bytes(p, data, g->len);
	}
	free(data);
}

static void pack_output(const struct p9_stream *s, struct p9_pack *p)
{
	for (const struct p9_seg *g = s->head; g; g = g->next) {
		p9_pack_number(p, 1);
		if (g->buf) {
			p9_pack_bytes(p, g->buf->data + g->off, g->len);
		} else if (g->file) {
			pack_file_range(g, p);
		} else { /* of a file that was shorter than promised */
			uint8_t *zeros = calloc(1, g->len);
			p9_pack_bytes(p, zeros, zeros ? g->len : 0);
			free(zeros);
		}
	}
	p9_pack_number(p, 0);
}

void p9_stream_pack(struct p9_link *l, struct p9_pack *p, const struct p9_undone *undone, unsigned n)
{
	struct p9_stream *s = STREAM(l);
	if (s->io != &p9_stream_fd && s->io != &p9_stream_unix) {
		p9_pack_fail(p, "a link that is not of descriptors");
		return;
	}
	p9_pack_number(p, s->io == &p9_stream_unix);
	p9_pack_fd(p, s->in.fd);
	p9_pack_fd(p, s->out.fd == s->in.fd ? -1 : s->out.fd);
	p9_pack_number(p, s->hup);
	pack_input(s, p, undone, n);
	pack_output(s, p);
}

/* All that has come, in one buffer. */
static void unpack_input(struct p9_stream *s, struct p9_unpack *u)
{
	unsigned n = (unsigned)p9_unpack_number(u, P9_INFLIGHT_MAX);
	struct p9_unpack look = *u; /* how much it is: read ahead */
	size_t total = 0, k;
	for (unsigned i = 0; i <= n && !p9_unpack_bad(&look); i++) {
		p9_unpack_bytes(&look, PIECE_MAX, &k);
		total += k;
	}
	if (p9_unpack_bad(&look)) {
		p9_unpack_fail(u, "%s", look.why);
		return;
	}
	s->rx = total ? p9_buf_get(&s->loop->pool, total) : NULL;
	if (total && !s->rx) {
		p9_unpack_fail(u, "out of memory");
		return;
	}
	for (unsigned i = 0; i <= n; i++) {
		const uint8_t *b = p9_unpack_bytes(u, PIECE_MAX, &k);
		if (k && s->rx) {
			memcpy(s->rx->data + s->rx_end, b, k);
			s->rx_end += (uint32_t)k;
		}
	}
}

static void unpack_output(struct p9_stream *s, struct p9_unpack *u)
{
	while (p9_unpack_flag(u)) {
		size_t n;
		const uint8_t *b = p9_unpack_bytes(u, PIECE_MAX, &n);
		struct p9_room room;
		if (p9_unpack_bad(u) || n == 0) {
			continue;
		}
		if (p9_stream_reserve(&s->link, NULL, n, 0, true, &room) < 0) {
			p9_unpack_fail(u, "out of memory");
			return;
		}
		memcpy(room.head, b, n);
		p9_stream_commit(&s->link, &room, n);
	}
}

struct p9_link *p9_stream_unpack(struct p9_loop *loop, struct p9_unpack *u)
{
	bool is_unix = p9_unpack_flag(u);
	int in = p9_unpack_fd(u), out = p9_unpack_fd(u);
	struct p9_link *l =
		in < 0 ? NULL : p9_stream_make(loop, in, out < 0 ? in : out, is_unix ? &p9_stream_unix : &p9_stream_fd);
	if (!l) {
		p9_unpack_fail(u, "a connection without a descriptor, or without memory");
		if (in >= 0) {
			close(in);
		}
		if (out >= 0) {
			close(out);
		}
		return NULL;
	}
	STREAM(l)->hup = p9_unpack_flag(u);
	STREAM(l)->more = true; /* there may be something to read for which no event comes */
	unpack_input(STREAM(l), u);
	unpack_output(STREAM(l), u);
	if (p9_unpack_bad(u)) {
		l->ops->free(l);
		return NULL;
	}
	return l;
}
