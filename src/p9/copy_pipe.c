/* SPDX-License-Identifier: BSD-2-Clause */
/* copy_pipe.c - one file's bytes from one end to the other, many chunks at once.
 *
 * A chunk is read from the source and then written to the copy, or, to check, read from both and compared. On a server
 * each of the two is a request; here it is done at once. Chunks of a copy that is made here are written in the order of
 * the file, so that what has come of an interrupted copy has no gaps, and so that it can be a pipe or a terminal; on a
 * server each is written as soon as it was read. A reply shorter than asked is asked again for its rest, unless it ends
 * where the file is known to end; an empty one is the end of the file.
 * All files together have P9_COPY_BYTES of buffers, so that a copy takes some megabytes whatever it copies. One file
 * takes no more than keeps its link busy: twice what comes in the shortest time that a chunk took. While that is what
 * holds it up it doubles; over a fast link it stays so small that the bytes are still in a cache when they are written.
 * Must stay true: a buffer is used again only when its request was answered; a callback sends one request at most.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/copy.h"

#define WINDOW_MIN 3 /* chunks */
#define PAGE 4096u
#define HOLE_MIN 16384u /* a smaller one is not worth a request of its own */

enum stage { READING, READING_COPY, WRITING, READY };

struct p9_chunk {
	struct p9_call call;
	struct p9_pipe *pipe;
	struct p9_chunk *next;
	uint8_t *buf, *other; /* other: what the copy holds, to be compared */
	uint64_t offset;
	uint32_t len, cap;  /* bytes wanted; bytes of buf */
	uint32_t run;	    /* end of what is being written */
	uint32_t got, done; /* read from the source; written to the copy, or read from it */
	enum stage stage;
	uint64_t sent;
};

/* ---- buffers ---- */
/* Large ones are kept, the one used last first: it may still be in the processor's cache. */
static uint8_t *buffer_get(struct p9_copy *c, uint32_t cap)
{
	uint8_t *buf =
		cap == c->chunk && c->nbuffers > 0 ? c->buffers[--c->nbuffers] : p9_client_buffer(c->client, cap);
	c->bytes += buf ? cap : 0;
	return buf;
}

static void buffer_put(struct p9_copy *c, uint8_t *buf, uint32_t cap)
{
	c->bytes -= buf ? cap : 0;
	if (buf && cap == c->chunk && c->nbuffers < P9_COPY_BUFFERS) {
		c->buffers[c->nbuffers++] = buf;
	} else {
		p9_client_buffer_free(c->client, buf);
	}
}

static void chunk_free(struct p9_copy *c, struct p9_chunk *k)
{
	buffer_put(c, k->buf, k->cap);
	buffer_put(c, k->other, k->cap);
	free(k);
}

void p9_pipe_fini(struct p9_pipe *p)
{
	while (p->first) {
		struct p9_chunk *k = p->first;
		p->first = k->next;
		chunk_free(p->node->copy, k);
	}
	p->last = NULL;
	p->count = 0;
}

/* ---- bytes here ---- */
static bool all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static int write_whole(int fd, const uint8_t *p, size_t n, uint64_t offset)
{
	while (n > 0) {
		ssize_t k = pwrite(fd, p, n, (off_t)offset);
		if (k < 0 && errno == ESPIPE) {
			k = write(fd, p, n);
		}
		if (k < 0 && errno != EINTR) {
			return -p9_hosterr(errno);
		}
		k = k < 0 ? 0 : k;
		p += k;
		n -= (size_t)k;
		offset += (uint64_t)k;
	}
	return 0;
}

/* Leaves holes where there are zeros: runs of pages that are not zero are written. */
static int write_sparse(int fd, const uint8_t *p, size_t n, uint64_t offset)
{
	size_t begin = 0;
	for (size_t at = 0; at < n; at += PAGE) {
		size_t step = n - at < PAGE ? n - at : PAGE;
		if (all_zero(p + at, step)) {
			int rc = write_whole(fd, p + begin, at - begin, offset + begin);
			if (rc < 0) {
				return rc;
			}
			begin = at + step;
		}
	}
	return write_whole(fd, p + begin, n - begin, offset + begin);
}

static int read_whole(int fd, uint8_t *p, uint32_t n, uint64_t offset)
{
	uint32_t got = 0;
	while (got < n) {
		ssize_t k = pread(fd, p + got, n - got, (off_t)(offset + got));
		if (k < 0 && errno == ESPIPE) {
			k = read(fd, p + got, n - got);
		}
		if (k < 0 && errno != EINTR) {
			return -p9_hosterr(errno);
		}
		if (k == 0) {
			break;
		}
		got += k < 0 ? 0 : (uint32_t)k;
	}
	return (int)got;
}

/* ---- the window ---- */
static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* A chunk is through: what does it tell? */
static void find_window(struct p9_pipe *p, const struct p9_chunk *k)
{
	uint64_t t = now(), took = t - k->sent, least = (uint64_t)WINDOW_MIN * p->node->copy->chunk;
	p->rtt = took < p->rtt || !p->rtt ? took : p->rtt;
	p->through += k->got;
	double rate = (double)p->through / (double)(t > p->begun ? t - p->begun : 1);
	double bytes = 2 * rate * (double)p->rtt;
	p->window = bytes < (double)least ? least : bytes > P9_COPY_BYTES ? P9_COPY_BYTES : (uint64_t)bytes;
}

/* ---- the life of a chunk ---- */
static void stop(struct p9_pipe *p, int error, bool at_dst)
{
	if (!p->error) {
		p->error = error;
		p->at_dst = at_dst;
	}
}

static void on_read(struct p9_call *call, const struct p9_msg *r);
static void on_read_copy(struct p9_call *call, const struct p9_msg *r);
static void on_written(struct p9_call *call, const struct p9_msg *r);

static void send(struct p9_chunk *k, struct p9_msg *t, void *dst)
{
	int rc = p9_client_send(k->pipe->node->copy->client, t, dst, &k->call);
	if (rc < 0) {
		stop(k->pipe, rc, k->stage != READING);
		k->stage = READY;
	}
}

static void send_read(struct p9_chunk *k)
{
	struct p9_msg t = {
		.type = P9_Tread,
		.tread = { .fid = k->pipe->node->src.fid, .offset = k->offset + k->got, .count = k->len - k->got }
	};
	k->stage = READING;
	k->call = (struct p9_call){ .done = on_read };
	send(k, &t, k->buf + k->got);
}

static void send_read_copy(struct p9_chunk *k)
{
	struct p9_msg t = {
		.type = P9_Tread,
		.tread = { .fid = k->pipe->node->dst.fid, .offset = k->offset + k->done, .count = k->got - k->done }
	};
	k->stage = READING_COPY;
	k->call = (struct p9_call){ .done = on_read_copy };
	send(k, &t, k->other + k->done);
}

/* Zeros need not be written where there is nothing yet. */
static bool may_leave_holes(const struct p9_chunk *k)
{
	const struct p9_node *n = k->pipe->node;
	return n->sparse && k->offset >= n->dst_size;
}

/* Bytes from `at` on that are all zero, in whole pages. */
static uint32_t zeros_at(const struct p9_chunk *k, uint32_t at)
{
	uint32_t n = 0;
	while (at + n < k->got) {
		uint32_t left = k->got - at - n, step = left < PAGE ? left : PAGE;
		if (!all_zero(k->buf + at + n, step)) {
			break;
		}
		n += step;
	}
	return n;
}

/* Moves k->done over zeros. Returns the end of what is to be written next: up to the next hole worth a request. */
static uint32_t next_run(struct p9_chunk *k)
{
	if (!may_leave_holes(k)) {
		return k->got;
	}
	k->done += zeros_at(k, k->done);
	uint32_t end = k->done;
	while (end < k->got) {
		uint32_t zeros = zeros_at(k, end);
		if (zeros >= HOLE_MIN || end + zeros == k->got) {
			break;
		}
		uint32_t left = k->got - end - zeros;
		end += zeros + (left < PAGE ? left : PAGE);
	}
	return end;
}

/* Writes the rest of the run, or the next one; none is left when the chunk is ready. */
static void send_write(struct p9_chunk *k)
{
	if (k->done >= k->run) {
		k->run = next_run(k);
	}
	if (k->done >= k->got) {
		k->stage = READY;
		return;
	}
	struct p9_msg t = { .type = P9_Twrite,
			    .twrite = { .fid = k->pipe->node->dst.fid,
					.offset = k->offset + k->done,
					.data = { k->run - k->done, k->buf + k->done } } };
	k->stage = WRITING;
	k->call = (struct p9_call){ .done = on_written };
	send(k, &t, NULL);
}

static bool to_here(const struct p9_pipe *p)
{
	return p->node->copy->to_here;
}

/* All of it is read: what now? */
static void have_source(struct p9_chunk *k)
{
	struct p9_pipe *p = k->pipe;
	if (p->error || k->got == 0) {
		k->stage = READY;
	} else if (p->compare && to_here(p)) {
		int n = read_whole(p->node->dst.fd, k->other, k->got, k->offset);
		if (n < 0) {
			stop(p, n, true);
		}
		k->done = n < 0 ? 0 : (uint32_t)n;
		k->stage = READY;
	} else if (p->compare) {
		send_read_copy(k);
	} else if (to_here(p)) {
		k->done = k->got;
		k->stage = READY;
	} else {
		send_write(k);
	}
}

/* Writes what is at the front of the file, or compares it. */
static void deliver_one(struct p9_chunk *k)
{
	struct p9_pipe *p = k->pipe;
	struct p9_node *n = p->node;
	int rc = 0;
	if (p->error || k->got == 0) {
		return;
	}
	if (p->compare) {
		uint32_t same = 0;
		while (same < k->done && k->buf[same] == k->other[same]) {
			same++;
		}
		p->differs = same < k->got && p->differs == UINT64_MAX ? k->offset + same : p->differs;
	} else if (to_here(p)) {
		rc = (may_leave_holes(k) ? write_sparse : write_whole)(n->dst.fd, k->buf, k->got, k->offset);
	}
	if (rc < 0) {
		stop(p, rc, true);
	} else {
		p->moved = k->offset + k->got;
		p9_progress_add(&n->copy->progress, p->compare ? 0 : k->got);
	}
}

/* What comes next comes to where the last was, which is in the processor's cache, and not to where nothing was for long. */
static void use_again(struct p9_chunk *k)
{
	struct p9_chunk *f = k->next;
	struct p9_copy *c = k->pipe->node->copy;
	bool can = f && f->stage == READING && f->got == 0 && f->cap == k->cap && !c->from_here;
	if (can && p9_client_redirect(c->client, &f->call, k->buf) == 0) {
		uint8_t *buf = f->buf;
		f->buf = k->buf;
		k->buf = buf;
	}
}

/* Everything ready at the front of the file. */
static void deliver(struct p9_pipe *p)
{
	while (p->first && p->first->stage == READY) {
		struct p9_chunk *k = p->first;
		deliver_one(k);
		find_window(p, k);
		use_again(k);
		p->first = k->next;
		p->last = p->first ? p->last : NULL;
		p->count--;
		chunk_free(p->node->copy, k);
	}
}

static void end_if_done(struct p9_pipe *p)
{
	bool end = p->error || p->stopped || p->ended || p->differs != UINT64_MAX;
	if (p->count > 0 || !end || !p->active) {
		return;
	}
	struct p9_node *n = p->node;
	p->active = false;
	int rc = p->error ? p->error : p->stopped && !p->ended ? -P9_EINTR : P9_ON;
	if (rc < 0 && p->at_dst) {
		p9_node_fail(n, rc, 'd');
	}
	p9_node_go(n, rc < 0 ? rc : n->list[n->at](n, NULL));
}

static void settle(struct p9_pipe *p)
{
	deliver(p);
	end_if_done(p);
}

/* ---- replies ---- */
static void note_end(struct p9_pipe *p, uint64_t end)
{
	p->eof = end < p->eof ? end : p->eof;
	p->ended = true;
}

static void on_read(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_chunk *k = (struct p9_chunk *)call;
	struct p9_pipe *p = k->pipe;
	if (r->type == P9_Rlerror) {
		stop(p, p9_reply_rc(r), false);
		k->stage = READY;
		settle(p);
		return;
	}
	uint32_t n = r->rread.data.len;
	k->got += n;
	uint64_t end = k->offset + k->got;
	bool last = k->got < k->len && (n == 0 || end == p->node->st.size);
	if (last) {
		note_end(p, end);
	}
	if (last || k->got == k->len || p->error) {
		have_source(k);
	} else {
		send_read(k);
	}
	settle(p);
}

static void on_read_copy(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_chunk *k = (struct p9_chunk *)call;
	uint32_t n = r->type == P9_Rlerror ? 0 : r->rread.data.len;
	if (r->type == P9_Rlerror) {
		stop(k->pipe, p9_reply_rc(r), true);
	}
	k->done += n;
	if (n == 0 || k->done == k->got) {
		k->stage = READY;
	} else {
		send_read_copy(k);
	}
	settle(k->pipe);
}

static void on_written(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_chunk *k = (struct p9_chunk *)call;
	uint32_t n = r->type == P9_Rlerror ? 0 : r->rwrite.count;
	if (n == 0) {
		stop(k->pipe, r->type == P9_Rlerror ? p9_reply_rc(r) : -P9_EIO, true);
	}
	k->done += n;
	if (n == 0 || k->pipe->error) {
		k->stage = READY;
	} else {
		send_write(k);
	}
	settle(k->pipe);
}

/* ---- beginning chunks ---- */
/* Bytes of the next chunk, one more than the file is said to have so that its end shows; 0 for none now. */
static uint32_t next_length(const struct p9_pipe *p, uint32_t chunk)
{
	uint64_t size = p->node->st.size;
	uint64_t left = size > p->next ? size - p->next : 0;
	if (left == 0 && p->count > 0) {
		return 0; /* behind the expected end: one at a time */
	}
	left = left / PAGE * PAGE + PAGE;
	return left < chunk ? (uint32_t)left : chunk;
}

/* Moves p->next to the next data of a sparse file here. Returns how far the data goes; 0 at the end. */
static uint64_t next_data(struct p9_pipe *p, int fd)
{
	off_t data = lseek(fd, (off_t)p->next, SEEK_DATA);
	if (data < 0) {
		bool none = errno == ENXIO; /* else the file system cannot tell */
		p->next = none && p->node->st.size > p->next ? p->node->st.size : p->next;
		return none ? 0 : UINT64_MAX;
	}
	off_t hole = lseek(fd, data, SEEK_HOLE);
	p->next = (uint64_t)data;
	return hole <= data ? UINT64_MAX : (uint64_t)(hole - data);
}

static void read_here(struct p9_chunk *k)
{
	struct p9_pipe *p = k->pipe;
	int n = read_whole(p->node->src.fd, k->buf, k->len, k->offset);
	if (n < 0) {
		stop(p, n, false);
		k->stage = READY;
		return;
	}
	k->got = (uint32_t)n;
	p->next = k->offset + k->got;
	if (k->got < k->len) {
		note_end(p, k->offset + k->got);
	}
	have_source(k);
}

static struct p9_chunk *chunk_new(struct p9_pipe *p, uint32_t cap)
{
	struct p9_copy *c = p->node->copy;
	struct p9_chunk *k = calloc(1, sizeof(*k));
	if (!k) {
		return NULL;
	}
	k->pipe = p;
	k->cap = cap;
	k->buf = buffer_get(c, cap);
	k->other = k->buf && p->compare ? buffer_get(c, cap) : NULL;
	if (!k->buf || (p->compare && !k->other)) {
		chunk_free(c, k);
		return NULL;
	}
	*(p->last ? &p->last->next : &p->first) = k;
	p->last = k;
	p->count++;
	return k;
}

/* False when there is nothing to begin now. */
static bool begin_chunk(struct p9_pipe *p)
{
	struct p9_node *n = p->node;
	struct p9_copy *c = n->copy;
	bool holes = c->from_here && n->sparse && !p->compare && n->st.blocks < n->st.size / 512;
	uint64_t far = holes && n->dst_size <= p->next ? next_data(p, n->src.fd) : UINT64_MAX;
	uint32_t len = next_length(p, c->chunk);
	if (far == 0) {
		note_end(p, p->next);
	}
	len = far < len ? (uint32_t)far : len;
	if (len == 0) {
		return false;
	}
	struct p9_chunk *k = chunk_new(p, len);
	if (!k) {
		stop(p, -P9_ENOMEM, false);
		return false;
	}
	k->offset = p->next;
	k->len = len;
	k->sent = now();
	p->begun = p->begun ? p->begun : k->sent;
	p->next += len;
	if (c->from_here) {
		read_here(k);
	} else {
		send_read(k);
	}
	return true;
}

void p9_pipe_pump(struct p9_pipe *p)
{
	struct p9_copy *c = p->node->copy;
	p->window = p->window ? p->window : (uint64_t)WINDOW_MIN * c->chunk;
	while (!p->error && !p->stopped && !p->ended && p->differs == UINT64_MAX && p9_tree_room(&c->tree) &&
	       (p->count == 0 || (c->bytes < P9_COPY_BYTES && (uint64_t)p->count * c->chunk < p->window)) &&
	       begin_chunk(p)) {
	}
	settle(p);
}

/* ---- phases: called once to begin, once more at the end ---- */
int p9_pipe_move(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_pipe *p = &n->pipe;
	if (p->ended) {
		return P9_ON; /* it is through, or was there already */
	}
	p->differs = p->eof = UINT64_MAX;
	p->moved = p->next;
	p->active = true;
	p9_progress_add(&n->copy->progress, p->next);
	return P9_WAIT;
}

static p9_phase *const again_phases[] = {
	p9_pipe_move, p9_src_settle, p9_meta_seal, p9_dst_verify, p9_pipe_check, NULL
};

/* What was there before, for --continue, may be something else after all: then it is copied anew, once. */
static int compared(struct p9_node *n)
{
	struct p9_pipe *p = &n->pipe;
	uint64_t at = p->differs;
	bool old = n->dst_size > 0;
	if (at == UINT64_MAX) {
		return P9_ON;
	}
	if (!old) {
		p9_node_say(n, "the copy differs at byte %llu", (unsigned long long)at);
		n->error = -P9_EIO;
		return -P9_EIO;
	}
	n->dst_size = 0;
	n->sparse = false; /* there are bytes where holes would be */
	*p = (struct p9_pipe){ .node = n };
	return p9_node_jump(n, again_phases);
}

int p9_pipe_check(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_pipe *p = &n->pipe;
	if (!n->copy->opts.check || p->eof == 0) {
		return P9_ON;
	}
	if (p->compare) {
		return compared(n);
	}
	*p = (struct p9_pipe){ .node = n, .compare = true, .differs = UINT64_MAX, .eof = p->eof, .active = true };
	return P9_WAIT;
}
