/* SPDX-License-Identifier: BSD-2-Clause */
/* mem.c - see mem.h. A stream (stream.c) whose bytes come from and go to memory; an eventfd tells its loop that the
 * other end has done something. The pair is found by the number of that eventfd, which is what a p9_link_make is given.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/lock.h"
#include "transport/mem.h"
#include "transport/stream.h"

struct queue {
	uint8_t *bytes;
	size_t cap, head, len;
};
struct p9_mem {
	struct p9_mem *next;
	struct p9_lock lock;
	struct queue to_server, to_peer;
	int bell;
	bool peer_gone, server_gone;
};

static struct p9_lock list_lock = P9_LOCK_INIT;
static struct p9_mem *list;

static size_t push(struct queue *q, const uint8_t *p, size_t n)
{
	n = n < q->cap - q->len ? n : q->cap - q->len;
	for (size_t i = 0; i < n; i++) {
		q->bytes[(q->head + q->len + i) % q->cap] = p[i];
	}
	q->len += n;
	return n;
}

static size_t pop(struct queue *q, uint8_t *p, size_t n)
{
	n = n < q->len ? n : q->len;
	for (size_t i = 0; i < n; i++) {
		p[i] = q->bytes[(q->head + i) % q->cap];
	}
	q->head = (q->head + n) % q->cap;
	q->len -= n;
	return n;
}

static void ring(const struct p9_mem *m)
{
	uint64_t one = 1;
	if (!m->server_gone && write(m->bell, &one, sizeof(one)) < 0) {
		return; /* rung often enough */
	}
}

struct p9_mem *p9_mem_new(size_t cap)
{
	struct p9_mem *m = calloc(1, sizeof(*m));
	if (!m) {
		return NULL;
	}
	m->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	m->to_server = (struct queue){ malloc(cap), cap, 0, 0 };
	m->to_peer = (struct queue){ malloc(cap), cap, 0, 0 };
	if (m->bell < 0 || !m->to_server.bytes || !m->to_peer.bytes) {
		free(m->to_server.bytes);
		free(m->to_peer.bytes);
		if (m->bell >= 0) {
			close(m->bell);
		}
		free(m);
		return NULL;
	}
	p9_lock_init(&m->lock);
	p9_lock(&list_lock);
	m->next = list;
	list = m;
	p9_unlock(&list_lock);
	return m;
}

int p9_mem_fd(const struct p9_mem *m)
{
	return m->bell;
}

static struct p9_mem *find(int bell)
{
	p9_lock(&list_lock);
	struct p9_mem *m = list;
	while (m && m->bell != bell) {
		m = m->next;
	}
	p9_unlock(&list_lock);
	return m;
}

/* Frees the pair when both ends are done with it. */
static void leave(struct p9_mem *m, bool *end)
{
	p9_lock(&m->lock);
	*end = true;
	bool last = m->peer_gone && m->server_gone;
	ring(m);
	p9_unlock(&m->lock);
	if (!last) {
		return;
	}
	p9_lock(&list_lock);
	struct p9_mem **p = &list;
	while (*p != m) {
		p = &(*p)->next;
	}
	*p = m->next;
	p9_unlock(&list_lock);
	p9_lock_fini(&m->lock);
	free(m->to_server.bytes);
	free(m->to_peer.bytes);
	free(m);
}

/* ---- the server's end ---- */
static ssize_t mem_read(struct p9_stream *s, void *buf, size_t n)
{
	struct p9_mem *m = s->io_arg;
	uint64_t rung;
	p9_lock(&m->lock);
	if (read(m->bell, &rung, sizeof(rung)) < 0) {
		rung = 0; /* asked again without a ring */
	}
	size_t got = pop(&m->to_server, buf, n);
	bool gone = m->peer_gone;
	p9_unlock(&m->lock);
	if (got == 0 && !gone) {
		errno = EAGAIN;
		return -1;
	}
	return (ssize_t)got;
}

static ssize_t mem_writev(struct p9_stream *s, const struct iovec *iov, int n)
{
	struct p9_mem *m = s->io_arg;
	size_t put = 0;
	p9_lock(&m->lock);
	for (int i = 0; i < n; i++) {
		put += push(&m->to_peer, iov[i].iov_base, iov[i].iov_len);
	}
	bool gone = m->peer_gone;
	p9_unlock(&m->lock);
	if (gone || put == 0) {
		errno = gone ? EPIPE : EAGAIN;
		return -1;
	}
	return (ssize_t)put;
}

static void mem_done(struct p9_stream *s)
{
	struct p9_mem *m = s->io_arg;
	leave(m, &m->server_gone);
}

static const struct p9_stream_io mem_io = { mem_read, mem_writev, NULL, mem_done };

struct p9_link *p9_mem_make(struct p9_loop *loop, int in, int out, void *arg)
{
	struct p9_mem *m = find(in);
	struct p9_link *l = m ? p9_stream_make(loop, in, out, &mem_io) : NULL;
	if (l) {
		((struct p9_stream *)l)->io_arg = m;
	}
	return l;
}

/* ---- the other end ---- */
size_t p9_mem_put(struct p9_mem *m, const void *bytes, size_t n)
{
	p9_lock(&m->lock);
	n = push(&m->to_server, bytes, n);
	ring(m);
	p9_unlock(&m->lock);
	return n;
}

ssize_t p9_mem_get(struct p9_mem *m, void *bytes, size_t n)
{
	p9_lock(&m->lock);
	size_t got = pop(&m->to_peer, bytes, n);
	bool gone = m->server_gone;
	p9_unlock(&m->lock);
	return got == 0 && gone ? -1 : (ssize_t)got;
}

void p9_mem_close(struct p9_mem *m)
{
	leave(m, &m->peer_gone);
}
