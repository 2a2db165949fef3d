/* SPDX-License-Identifier: BSD-2-Clause */
/* stream.c - messages out of a byte stream, replies into it.
 *
 * Receiving: one read brings many messages; they are handed up one by one, straight from the buffer. A message that is
 * larger than the buffer gets one of its own size, and the reads for it stop at its end, so that the next begins at the
 * start of a buffer and nothing large is ever moved.
 * Sending (stream_out.c): replies are written into a chunk one behind the other and leave with one writev for a whole batch. File
 * payload goes by sendfile where that pays (Unix sockets); when the file turns out shorter than was promised, zeros
 * take its place, because the length is out already.
 * Readiness is edge-triggered, which saves the kernel a look at every wait: a read that comes back short has emptied the
 * socket; otherwise `more` is set and p9_stream_arm() makes epoll report again.
 * Deadlines: handshake, rest of a begun message, a peer that does not read. One timer looks at all three.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "base/sys.h"
#include "p9/backend.h"
#include "p9/codec.h"
#include "transport/stream.h"

#define PEEK 4096u	       /* read size when a large message is expected */
#define FLUSH_AT (256u * 1024) /* send in the middle of a batch when this much waits */
#define LATE_EVERY 8	       /* messages, then it is looked */
#define LATE_NS 40000	       /* whether replies have waited that long: the peer may go on with them meanwhile */
#define READS_PER_TURN 8       /* then the other connections have theirs */

#define STREAM(l) ((struct p9_stream *)(l))

/* ---- descriptors ---- */
static ssize_t fd_read(struct p9_stream *s, void *buf, size_t n)
{
	return p9_sys_read(s->in.fd, buf, n);
}
static ssize_t fd_writev(struct p9_stream *s, const struct iovec *iov, int n)
{
	return n == 1 ? p9_sys_write(s->out.fd, iov->iov_base, iov->iov_len) : writev(s->out.fd, iov, n);
}
static ssize_t fd_sendfile(struct p9_stream *s, int fd, off_t *off, size_t n)
{
	return sendfile(s->out.fd, fd, off, n);
}
const struct p9_stream_io p9_stream_fd = { fd_read, fd_writev, NULL, NULL };
const struct p9_stream_io p9_stream_unix = { fd_read, fd_writev, fd_sendfile, NULL };

/* What to wait for. Only when all messages that were read have been worked on may a link that stood still (`reading` is
 * off) wait for more: messages of the batch may lie in rx, for which no event will come. */
void p9_stream_arm(struct p9_stream *s, bool worked)
{
	bool full = s->link.user->full(&s->link) || (!worked && !s->link.reading);
	uint32_t in = s->link.broken || full ? 0 : EPOLLIN | EPOLLRDHUP | EPOLLET;
	uint32_t out = s->want_out && !s->link.broken ? EPOLLOUT : 0;
	bool reading = in != 0;
	if (s->in.fd == s->out.fd) {
		p9_loop_mod(s->loop, &s->in, in | out);
	} else {
		p9_loop_mod(s->loop, &s->in, in);
		p9_loop_mod(s->loop, &s->out, out);
	}
	s->link.reading = reading;
}

void p9_stream_end(struct p9_stream *s, int why, const char *text)
{
	if (s->link.broken) {
		return;
	}
	s->link.broken = true;
	p9_timer_cancel(&s->loop->timers, &s->timer);
	s->link.user->closed(&s->link, why, text);
}

/* ---- deadlines ---- */
static uint64_t next_deadline(const struct p9_stream *s)
{
	uint64_t at = UINT64_MAX;
	if (s->link.handshake_by) {
		at = s->link.handshake_by;
	}
	if (s->partial_at && s->partial_at + P9_PARTIAL_MS < at) {
		at = s->partial_at + P9_PARTIAL_MS;
	}
	if (s->want_out && s->progress_at + P9_STALL_MS < at) {
		at = s->progress_at + P9_STALL_MS;
	}
	return at;
}

void p9_stream_watch(struct p9_stream *s)
{
	uint64_t at = next_deadline(s);
	bool sooner = at != UINT64_MAX && (!s->timer.slot || at < s->timer.at);
	if (sooner && p9_timer_set(&s->loop->timers, &s->timer, at) < 0) {
		p9_stream_end(s, -P9_ENOMEM, "no memory for a timer");
	}
}

static void on_timer(struct p9_timer *t)
{
	struct p9_stream *s = (struct p9_stream *)((char *)t - offsetof(struct p9_stream, timer));
	uint64_t now = s->loop->now;
	if (s->link.handshake_by && now >= s->link.handshake_by) {
		p9_stream_end(s, -P9_ETIMEDOUT, "no Tversion came in time");
	} else if (s->partial_at && now >= s->partial_at + P9_PARTIAL_MS) {
		p9_stream_end(s, -P9_ETIMEDOUT, "a message was begun and not finished in time");
	} else if (s->want_out && now >= s->progress_at + P9_STALL_MS) {
		p9_stream_end(s, -P9_ETIMEDOUT, "the peer does not read its replies");
	} else {
		p9_stream_watch(s);
	}
}

/* ---- receiving ---- */
static uint32_t frame_size(const struct p9_stream *s)
{
	return s->rx_end - s->rx_pos >= 4 ? p9_get32(s->rx->data + s->rx_pos) : 0;
}

/* Makes room for the rest of the message at rx_pos, or for a first read. */
static int make_room(struct p9_stream *s)
{
	uint32_t have = s->rx ? s->rx_end - s->rx_pos : 0;
	uint32_t need = s->rx ? frame_size(s) : 0;
	need = need < P9_HDRSZ ? P9_BUF_SMALL : need;
	if (s->rx && s->rx_pos + need <= s->rx->cap && s->rx_end < s->rx->cap) {
		return 0;
	}
	if (s->rx && need <= s->rx->cap && atomic_load_explicit(&s->rx->refs, memory_order_acquire) == 1) {
		memmove(s->rx->data, s->rx->data + s->rx_pos, have);
	} else {
		struct p9_buf *b = p9_buf_get(&s->loop->pool, need);
		if (!b) {
			return -P9_ENOMEM;
		}
		if (have) {
			memcpy(b->data, s->rx->data + s->rx_pos, have);
		}
		p9_buf_put(&s->loop->pool, s->rx);
		s->rx = b;
	}
	s->rx_pos = 0;
	s->rx_end = have;
	return 0;
}

static size_t how_much(const struct p9_stream *s)
{
	uint32_t size = frame_size(s);
	uint32_t have = s->rx_end - s->rx_pos;
	size_t room = s->rx->cap - s->rx_end;
	if (size > P9_BUF_SMALL) {
		return size - have; /* stop at its end */
	}
	return s->bulk && have == 0 && room > PEEK ? PEEK : room;
}

/* One read. Returns bytes, 0 when nothing is there, -1 when the link has ended. */
static ssize_t fill(struct p9_stream *s)
{
	int rc = make_room(s);
	if (rc < 0) {
		p9_stream_end(s, rc, "no memory for a message");
		return -1;
	}
	size_t want = how_much(s);
	ssize_t n = s->io->read(s, s->rx->data + s->rx_end, want);
	s->more = n == (ssize_t)want || (n > 0 && s->hup) || (n < 0 && errno == EINTR);
	if (n > 0) {
		s->rx_end += (uint32_t)n;
		return n;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		return 0;
	}
	p9_stream_end(s, n == 0 ? 0 : p9_err(),
		      n == 0 ? (s->rx_end > s->rx_pos ? "closed in the middle of a message" : "closed")
			     : "receive failed");
	return -1;
}

/* The next whole message, or false. A size that cannot be ends the link. */
static bool next_frame(struct p9_stream *s, struct p9_frame *f)
{
	uint32_t have = s->rx_end - s->rx_pos;
	if (have < 4) {
		return false;
	}
	uint32_t size = frame_size(s);
	if (size < P9_HDRSZ) {
		p9_stream_end(s, -P9_EPROTO, "a message says it is shorter than its head");
		return false;
	}
	if (size > s->link.frame_max) {
		p9_stream_end(s, -P9_EMSGSIZE, "a message is longer than was agreed");
		return false;
	}
	if (have < size) {
		return false;
	}
	*f = (struct p9_frame){ .head = s->rx->data + s->rx_pos, .len = size, .owner = s->rx };
	s->rx_pos += size;
	s->bulk = size > P9_BUF_SMALL / 2;
	return true;
}

static void rest(struct p9_stream *s)
{
	if (s->rx_pos < s->rx_end) {
		s->partial_at = s->partial_at ? s->partial_at : s->loop->now;
		return;
	}
	s->partial_at = 0;
	p9_buf_put(&s->loop->pool, s->rx);
	s->rx = NULL;
	s->rx_pos = s->rx_end = 0;
}

static bool late(const struct p9_stream *s, uint64_t *since)
{
	uint64_t now = p9_spin_clock();
	bool is = s->link.queued > 0 && now - *since > LATE_NS;
	*since = is ? now : *since;
	return is;
}

/* The messages that are there, until as many replies wait as may. Returns 0 or P9_LOST. */
static int take_frames(struct p9_link *l)
{
	struct p9_stream *s = STREAM(l);
	struct p9_frame f;
	uint64_t since = p9_spin_clock();
	unsigned taken = 0;
	s->link.busy = true;
	while (!l->broken && !l->user->full(l) && s->rx && next_frame(s, &f)) {
		s->partial_at = 0;
		int rc = l->user->frame(l, &f);
		if (rc == P9_LOST) {
			return rc;
		}
		if (rc < 0) {
			p9_stream_flush(l);
			p9_stream_end(s, rc, "protocol error");
		} else if (l->queued > FLUSH_AT || l->user->full(l) || (++taken % LATE_EVERY == 0 && late(s, &since))) {
			p9_stream_flush(
				l); /* what is full only until it is sent must not end the batch: nobody would go on */
		}
	}
	s->link.busy = false;
	return 0;
}

static int process_frames(struct p9_link *l)
{
	struct p9_stream *s = STREAM(l);
	for (bool worked = false; !worked && !l->broken;) {
		int rc = take_frames(l);
		if (rc == P9_LOST || l->broken) {
			return rc;
		}
		worked = !l->user->full(l);
		if (worked) {
			rest(s);
		}
		p9_stream_flush(l);
		if (l->user->full(l)) {
			break; /* else the peer has read meanwhile: go on, for no event will say so */
		}
	}
	if (s->link.reading == l->user->full(l)) {
		p9_stream_arm(s, true);
	}
	p9_stream_watch(s);
	return 0;
}

static int process(struct p9_link *l)
{
	struct p9_stream *s = STREAM(l);
	int rc = process_frames(l);
	if (rc == 0 && s->more && s->link.reading && !l->broken) {
		p9_stream_arm(s, true);
	}
	return rc;
}

/* A read for the loop that looks before it sleeps: an end is news as well. */
static bool in_look(struct p9_source *src)
{
	struct p9_stream *s = (struct p9_stream *)((char *)src - offsetof(struct p9_stream, in));
	if (s->link.broken || !s->link.reading) {
		return false;
	}
	s->looked = fill(s);
	if (s->looked == 0) {
		rest(s); /* a buffer that nothing came into */
	}
	return s->looked != 0;
}

/* Reads and works until the socket is empty, for a few rounds. */
static int read_on(struct p9_stream *s)
{
	for (int i = 0; i < READS_PER_TURN; i++) {
		ssize_t n = s->looked ? s->looked : fill(s);
		s->looked = 0;
		if (n < 0 || (n == 0 && !s->more)) {
			return 0;
		}
		int rc = process_frames(&s->link);
		if (rc == P9_LOST) {
			return rc; /* s is another thread's, or gone */
		}
		/* half a message: the read may have stopped short of what is there */
		bool half = !s->link.broken && s->rx;
		if (s->link.broken || !(s->more || half) || !s->link.reading) {
			return rc;
		}
	}
	p9_stream_arm(s, true);
	return 0;
}

static int in_ready(struct p9_source *src, uint32_t events)
{
	struct p9_stream *s = (struct p9_stream *)((char *)src - offsetof(struct p9_stream, in));
	if (s->link.broken) {
		return 0;
	}
	s->hup |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
	if (events & EPOLLOUT) {
		p9_stream_flush(&s->link);
		if (!s->link.broken && !s->link.reading && !s->link.user->full(&s->link)) {
			return process(&s->link);
		}
	}
	if (s->link.broken || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP))) {
		return 0;
	}
	if (!s->link.reading) {
		if (events & (EPOLLHUP | EPOLLERR)) {
			p9_stream_end(s, 0, "closed");
		}
		return 0;
	}
	return read_on(s);
}

static int out_ready(struct p9_source *src, uint32_t events)
{
	struct p9_stream *s = (struct p9_stream *)((char *)src - offsetof(struct p9_stream, out));
	if (s->link.broken) {
		return 0;
	}
	if (events & (EPOLLHUP | EPOLLERR)) {
		p9_stream_end(s, -P9_EPIPE, "closed");
		return 0;
	}
	p9_stream_flush(&s->link);
	if (!s->link.broken && !s->link.reading && !s->link.user->full(&s->link)) {
		return process(&s->link);
	}
	return 0;
}

/* ---- life ---- */
static int start(struct p9_link *l)
{
	struct p9_stream *s = STREAM(l);
	int rc = p9_loop_add(s->loop, &s->in, EPOLLIN | EPOLLRDHUP | EPOLLET);
	if (rc == 0 && s->out.fd != s->in.fd) {
		rc = p9_loop_add(s->loop, &s->out, 0);
	}
	l->reading = rc == 0;
	p9_stream_watch(s);
	return rc;
}

static void stop(struct p9_link *l)
{
	struct p9_stream *s = STREAM(l);
	l->broken = true;
	p9_timer_cancel(&s->loop->timers, &s->timer);
	shutdown(s->in.fd, SHUT_RDWR); /* the peer shall see it, also when a call that hangs keeps us from closing */
	p9_loop_del(s->loop, &s->in);  /* epoll would report a hang-up for ever */
	if (s->out.fd != s->in.fd) {
		p9_loop_del(s->loop, &s->out);
	}
}

static void free_stream(struct p9_link *l)
{
	struct p9_stream *s = STREAM(l);
	l->broken = true;
	p9_timer_cancel(&s->loop->timers, &s->timer);
	while (s->head) {
		p9_seg_drop(s);
	}
	while (s->spare) {
		struct p9_seg *g = s->spare;
		s->spare = g->next;
		free(g);
	}
	p9_buf_put(&s->loop->pool, s->chunk);
	p9_buf_put(&s->loop->pool, s->rx);
	if (s->out.fd != s->in.fd) {
		p9_loop_del(s->loop, &s->out);
		close(s->out.fd);
	}
	p9_loop_del(s->loop, &s->in);
	if (s->io->done) {
		s->io->done(s);
	}
	close(s->in.fd);
	free(s);
}

#define OPS(file) \
	{ \
		.reserve = p9_stream_reserve, .commit = p9_stream_commit, .keep = p9_stream_keep, \
		.send_room = p9_stream_send_room, .send_file = (file), .process = process, .flush = p9_stream_flush, \
		.start = start, .stop = stop, .free = free_stream, .quiet = p9_stream_quiet, .pack = p9_stream_pack \
	}
static const struct p9_link_ops ops_file = OPS(p9_stream_send_file), ops_copy = OPS(NULL);

struct p9_link *p9_stream_make(struct p9_loop *loop, int in, int out, const struct p9_stream_io *io)
{
	struct p9_stream *s = calloc(1, sizeof(*s));
	if (!s) {
		return NULL;
	}
	s->link.ops = io->sendfile ? &ops_file : &ops_copy;
	s->loop = loop;
	s->io = io;
	s->in = (struct p9_source){ in, in_ready, in_look };
	s->out = (struct p9_source){ out, out_ready };
	s->timer.fire = on_timer;
	return &s->link;
}

struct p9_link *p9_stream_fd_make(struct p9_loop *loop, int in, int out, void *arg)
{
	return p9_stream_make(loop, in, out, &p9_stream_fd);
}

struct p9_link *p9_stream_unix_make(struct p9_loop *loop, int in, int out, void *arg)
{
	return p9_stream_make(loop, in, out, &p9_stream_unix);
}
