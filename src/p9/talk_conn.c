/* SPDX-License-Identifier: BSD-2-Clause */
/* talk_conn.c - the connections of a .9t script: bytes out, frames in.
 *
 * Sending and receiving share one poll, so that a script which pipelines ten thousand requests does not block a server
 * that wants to answer; only `flood` sends deaf, on purpose. Every frame that leaves marks its tag as in flight, and a
 * reply for a tag that is not breaks the connection: no test needs to look for that by itself. The peer may be hostile:
 * frames are held to the negotiated msize, memory is taken as bytes arrive, and what waits unread has a bound.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "p9/p9.h"
#include "p9/talk.h"

#define QUEUED_MAX ((size_t)256 << 20)
#define OUT_MAX ((size_t)256 << 20)
#define CHILD_END_MS 5000
#define READ_CHUNK ((size_t)64 << 10)

int64_t p9_talk_now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void nonblocking(int fd)
{
	int fl = fcntl(fd, F_GETFL);
	if (fl >= 0) {
		fcntl(fd, F_SETFL, fl | O_NONBLOCK);
	}
	fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static void close_both(int in, int out)
{
	close(in);
	if (out != in) {
		close(out);
	}
}

struct talk_conn *p9_talk_conn_new(struct talk_text name, int in, int out)
{
	struct talk_conn *c = calloc(1, sizeof(*c) + name.len + 1);
	if (c) {
		c->inflight = calloc(UINT16_MAX + 1, sizeof(*c->inflight));
	}
	if (!c || !c->inflight) {
		free(c);
		close_both(in, out);
		return NULL;
	}
	memcpy(c + 1, name.s, name.len);
	c->name = (struct talk_text){ (const char *)(c + 1), name.len };
	c->in = in;
	c->out = out;
	c->last = &c->first;
	nonblocking(in);
	nonblocking(out);
	return c;
}

int p9_talk_conn_free(struct talk_conn *c)
{
	if (!c) {
		return 0;
	}
	p9_talk_front_close(c);
	close_both(c->in, c->out);
	int status = c->child > 0 ? p9_talk_wait(c->child, CHILD_END_MS) : 0;
	while (c->first) {
		struct talk_frame *f = c->first;
		c->first = f->next;
		free(f);
	}
	free(c->inflight);
	free(c->ibuf);
	free(c->obuf);
	free(c);
	return status;
}

bool p9_talk_tag_busy(const struct talk_conn *c, uint16_t tag)
{
	return c->inflight[tag] > 0;
}

/* ---- sending ---- */

/* Follows the frames in what is sent, for their tags. */
static void note_sent(struct talk_conn *c, const uint8_t *p, size_t n)
{
	while (n > 0 && !c->lost) {
		size_t take = c->pos < P9_HDRSZ ? P9_HDRSZ - c->pos : c->size - c->pos;
		take = take < n ? take : n;
		if (c->pos < P9_HDRSZ) {
			memcpy(c->head + c->pos, p, take);
		}
		c->pos += take;
		p += take;
		n -= take;
		if (c->pos == P9_HDRSZ) {
			c->size = p9_get32(c->head);
			c->last_tag = p9_get16(c->head + 5);
			c->inflight[c->last_tag]++;
			c->lost = c->size < P9_HDRSZ;
		}
		if (c->pos >= P9_HDRSZ && c->pos == c->size) {
			c->pos = 0;
		}
	}
}

static bool grow(uint8_t **buf, size_t *cap, size_t need)
{
	if (need <= *cap) {
		return true;
	}
	size_t n = need > 2 * *cap ? need : 2 * *cap;
	uint8_t *p = realloc(*buf, n);
	if (p) {
		*buf = p;
		*cap = n;
	}
	return p != NULL;
}

int p9_talk_put(struct talk_conn *c, const void *p, size_t n)
{
	if (n > OUT_MAX || c->olen + n > OUT_MAX || !grow(&c->obuf, &c->ocap, c->olen + n)) {
		return -1;
	}
	if (n > 0) {
		memcpy(c->obuf + c->olen, p, n);
	}
	c->olen += n;
	if (!c->serving) {
		note_sent(c, p, n);
	}
	return 0;
}

static void send_some(struct talk_conn *c)
{
	ssize_t n = write(c->out, c->obuf, c->olen);
	if (n > 0) {
		memmove(c->obuf, c->obuf + n, c->olen - (size_t)n);
		c->olen -= (size_t)n;
	} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
		c->deaf_peer = true;
		c->olen = 0;
	}
}

/* ---- receiving ---- */

static void broken(struct talk_conn *c, const char *what, uint64_t number)
{
	if (!c->broken[0]) {
		snprintf(c->broken, sizeof(c->broken), "%s %llu", what, (unsigned long long)number);
	}
}

/* A frame has arrived as a whole: the reply must belong to something. */
static void arrived(struct talk_conn *c, struct talk_frame *f)
{
	if (c->serving) {
		c->last_tag = f->msg.tag;
	} else if (c->inflight[f->msg.tag] == 0) {
		char text[160];
		p9_wire_print(text, sizeof(text), &f->msg);
		snprintf(c->broken, sizeof(c->broken), "a reply for a tag that is not in flight: %.160s", text);
	} else {
		c->inflight[f->msg.tag]--;
	}
	if (f->rc == 0 && f->msg.type == P9_Rversion) {
		c->msize = f->msg.rversion.msize;
	}
	*c->last = f;
	c->last = &f->next;
	c->queued += f->len;
	if (c->queued > QUEUED_MAX) {
		broken(c, "bytes waiting unread above", QUEUED_MAX);
	}
}

static size_t take_frame(struct talk_conn *c, const uint8_t *p, size_t n)
{
	uint32_t limit = c->msize ? c->msize : P9_MSIZE_MAX;
	uint32_t size = n >= 4 ? p9_get32(p) : 0;
	if (n >= 4 && (size < P9_HDRSZ || size > limit)) {
		char text[64];
		snprintf(text, sizeof(text), "a frame of %u bytes with msize", size);
		broken(c, text, limit);
	}
	if (n < 4 || c->broken[0] || n < size) {
		return 0;
	}
	struct talk_frame *f = malloc(sizeof(*f) + size);
	if (!f) {
		broken(c, "no memory for a frame of bytes:", size);
		return 0;
	}
	memset(f, 0, sizeof(*f));
	f->len = size;
	memcpy(f->b, p, size);
	f->rc = p9_wire_decode(f->b, size, 0, &f->msg);
	arrived(c, f);
	return size;
}

static void take_frames(struct talk_conn *c)
{
	size_t used = 0;
	for (size_t took = 1; took > 0; used += took) {
		took = take_frame(c, c->ibuf + used, c->ilen - used);
	}
	if (used) {
		memmove(c->ibuf, c->ibuf + used, c->ilen - used);
		c->ilen -= used;
	}
}

static void receive_some(struct talk_conn *c)
{
	if (!grow(&c->ibuf, &c->icap, c->ilen + READ_CHUNK)) {
		broken(c, "no memory for bytes received:", c->ilen);
		return;
	}
	ssize_t n = read(c->in, c->ibuf + c->ilen, c->icap - c->ilen);
	if (n <= 0) {
		c->eof |= n == 0 || (errno != EAGAIN && errno != EINTR);
		return;
	}
	c->ilen += (size_t)n;
	take_frames(c);
}

/* Waits at most ms for either direction and moves what can move. False when nothing did. */
static bool pump(struct talk_conn *c, int ms, bool deaf)
{
	if (c->front) {
		bool moved = p9_talk_front_pump(c, ms, deaf || c->broken[0]);
		take_frames(c);
		return moved;
	}
	struct pollfd fds[2] = { { c->in, POLLIN, 0 }, { c->out, POLLOUT, 0 } };
	fds[0].fd = deaf || c->eof || c->broken[0] ? -1 : c->in;
	fds[1].fd = c->olen > 0 ? c->out : -1;
	if (poll(fds, 2, ms) <= 0) {
		return false;
	}
	if (fds[0].revents) {
		receive_some(c);
	}
	if (fds[1].revents) {
		send_some(c);
	}
	return true;
}

static bool waits(const struct talk_conn *c)
{
	return c->front ? p9_talk_front_waits(c) : c->olen > 0;
}

bool p9_talk_flush(struct talk_conn *c, int ms, bool deaf)
{
	while (waits(c) && pump(c, ms, deaf)) {
	}
	return !waits(c);
}

static struct talk_frame *take(struct talk_conn *c, int tag)
{
	for (struct talk_frame **pp = &c->first; *pp; pp = &(*pp)->next) {
		struct talk_frame *f = *pp;
		if (tag < 0 || f->msg.tag == tag) {
			*pp = f->next;
			if (c->last == &f->next) {
				c->last = pp;
			}
			c->queued -= f->len;
			return f;
		}
	}
	return NULL;
}

void p9_talk_unrecv(struct talk_conn *c, struct talk_frame *f)
{
	if (!c->first) {
		c->last = &f->next;
	}
	f->next = c->first;
	c->first = f;
	c->queued += f->len;
}

enum talk_got p9_talk_recv(struct talk_conn *c, int tag, int ms, struct talk_frame **out)
{
	int64_t until = p9_talk_now() + ms;
	bool more = true;
	for (;;) {
		*out = take(c, tag);
		if (*out) {
			return GOT_FRAME;
		}
		if (c->broken[0]) {
			return GOT_BROKEN;
		}
		if (c->eof) {
			return GOT_CLOSED;
		}
		if (!more) {
			return GOT_NOTHING;
		}
		int64_t left = until - p9_talk_now();
		more = left > 0 && !p9_interrupted;
		pump(c, more ? (int)left : 0, false);
	}
}
