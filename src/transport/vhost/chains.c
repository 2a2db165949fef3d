/* SPDX-License-Identifier: BSD-2-Clause */
/* chains.c - messages out of a guest's rings, replies into its memory.
 *
 * A chain's descriptors are read once (virtio/device.c). Of what it brings, the head is copied once into memory of ours
 * and only the copy is looked at; the payload of a Twrite stays where it is and goes to the file from there, as a Tread's
 * goes from the file to where the guest wants it. All replies of a turn are shown to the driver with one notification.
 * A chain lives in a counted buffer of the loop's, together with its head: a request that leaves the loop holds that
 * buffer, the ring's books hold it until the chain is given back, and the memory it points to is held by the chain.
 * Must stay true: every chain that was taken is given back once, by a reply or by no_reply, before its ring is handed to
 * anybody else (control.c waits for that); a reply is never longer than its chain has room, and never comes in part.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "base/log.h"
#include "p9/codec.h"
#include "transport/vhost/device.h"

#define VHOST(l) ((struct p9_vhost *)(l))
#define HEAD_MAX (192u * 1024)	 /* of a message without payload: the longest there can be, with room to spare */
#define REPLY_HEAD 512u		 /* of replies without long strings */
#define PIECES_MAX P9_VCHAIN_MAX /* as many as the kernel takes in one call */
#define TURN 256		 /* messages of one queue before the others of the loop have theirs */

_Static_assert(sizeof(struct p9_vpiece) == sizeof(struct iovec) &&
		       offsetof(struct p9_vpiece, len) == offsetof(struct iovec, iov_len),
	       "pieces are handed to the kernel as they are");

struct p9_chain {
	struct p9_chain *next, **prev; /* in the device's list */
	struct p9_vqueue *q;
	struct p9_buf *buf, *flat; /* flat: payload that must be in one piece, or a long head */
	struct p9_vmem *mem;
	uint64_t writable;
	uint16_t head, nwrite;
	struct iovec *write; /* room for the reply */
	struct iovec *into;  /* the same without the reply's head; filled by reserve() */
	uint8_t reply[REPLY_HEAD];
};

void p9_vhost_end(struct p9_vhost *v, int why, const char *text)
{
	if (!v->link.broken) {
		v->link.broken = true;
		v->link.user->closed(&v->link, why, text);
	}
}

/* ---- chains ---- */
/* Copies into the chain's room, from byte `at` on. */
static void copy_out(struct p9_chain *c, size_t at, const uint8_t *from, size_t n)
{
	for (unsigned i = 0; i < c->nwrite && n > 0; i++) {
		size_t len = c->write[i].iov_len;
		if (at >= len) {
			at -= len;
			continue;
		}
		size_t k = n < len - at ? n : len - at;
		memcpy((uint8_t *)c->write[i].iov_base + at, from, k);
		from += k;
		n -= k;
		at = 0;
	}
}

static void give_back(struct p9_vhost *v, struct p9_chain *c, size_t len)
{
	struct p9_vqueue *q = c->q;
	*c->prev = c->next;
	if (c->next) {
		c->next->prev = c->prev;
	}
	if (!q->ring.why && q->mem) {
		p9_inflight_give(q->inflight, c->head);
		p9_vdev_push(&q->ring, c->head, (uint32_t)len);
		if (q->inflight || !q->running) {
			q->signal |= p9_vdev_publish(&q->ring);
			p9_inflight_given(q->inflight, c->head, q->ring.used_idx);
		}
		q->dirty = true;
	}
	q->nchains--;
	v->nchains--;
	if (!q->running && q->nchains == 0) {
		p9_vqueue_signal(q, false);
		p9_vmem_put(q->mem);
		q->mem = NULL;
	}
	p9_vmem_put(c->mem);
	p9_buf_put(&v->loop->pool, c->flat);
	p9_buf_put(&v->loop->pool, c->buf);
	if (v->draining || v->stopped) {
		p9_vhost_drained(v);
	}
}

static int reserve(struct p9_link *l, void *ticket, size_t headlen, size_t payload, bool flat, struct p9_room *room)
{
	struct p9_vhost *v = VHOST(l);
	struct p9_chain *c = ticket;
	size_t skip = headlen, left = payload;
	if (payload && headlen + payload > c->writable) {
		return -P9_EMSGSIZE; /* asked for more than it left room for */
	}
	p9_buf_put(&v->loop->pool, c->flat);
	c->flat = NULL;
	room->headlen = (uint32_t)headlen;
	room->ticket = c;
	room->buf = NULL;
	room->head = c->reply;
	room->iov = c->into;
	room->niov = 0;
	for (unsigned i = 0; i < c->nwrite && left > 0; i++) {
		size_t n = c->write[i].iov_len;
		size_t cut = skip < n ? skip : n;
		skip -= cut;
		n = n - cut < left ? n - cut : left;
		if (n > 0) {
			room->iov[room->niov++] = (struct iovec){ (uint8_t *)c->write[i].iov_base + cut, n };
			left -= n;
		}
	}
	/* what is made in memory, not by the kernel, is made in private: who makes it may look at it again */
	if (headlen > REPLY_HEAD || (flat && payload)) {
		c->flat = p9_buf_get(&v->loop->pool, headlen + payload);
		if (!c->flat) {
			return -P9_ENOMEM;
		}
		room->head = headlen > REPLY_HEAD ? c->flat->data : c->reply;
		room->one = (struct iovec){ c->flat->data + headlen, payload };
		room->iov = &room->one;
		room->niov = payload > 0;
	}
	return 0;
}

/* The reply is longer than the guest left room for: it gets an error that says so, which always fits. */
static size_t too_long(struct p9_chain *c, const uint8_t *head)
{
	struct p9_msg m = { .type = P9_Rlerror, .tag = p9_get16(head + 5), .rlerror = { .ecode = P9_EMSGSIZE } };
	uint8_t bytes[P9_RLERRORSZ];
	int n = p9_wire_encode_head(bytes, sizeof(bytes), &m);
	copy_out(c, 0, bytes, (size_t)n);
	return (size_t)n;
}

static void commit(struct p9_link *l, const struct p9_room *room, size_t n)
{
	struct p9_chain *c = room->ticket;
	size_t head = n < room->headlen ? n : room->headlen;
	if (n > c->writable) {
		n = too_long(c, room->head);
	} else {
		copy_out(c, 0, room->head, head);
		if (c->flat && n > head) {
			copy_out(c, head, c->flat->data + room->headlen, n - head);
		}
	}
	give_back(VHOST(l), c, n);
}

static void keep(struct p9_link *l, struct p9_room *room)
{
	(void)l; /* it is the chain's, and that is the request's */
	(void)room;
}

static void send_room(struct p9_link *l, struct p9_room *room, size_t n)
{
	if (n > 0) {
		commit(l, room, n);
	}
}

static void no_reply(struct p9_link *l, void *ticket)
{
	if (ticket) {
		give_back(VHOST(l), ticket, 0);
	}
}

/* ---- taking messages ---- */
static void copy_in(uint8_t *to, const struct p9_vpiece *from, size_t n)
{
	while (n > 0) {
		size_t k = n < from->len ? n : from->len;
		memcpy(to, from->p, k);
		to += k;
		n -= k;
		from++;
	}
}

/* What of a chain is copied: all of a message, or the head of one with payload. 0: it cannot be. */
static uint32_t head_length(const uint8_t *first, uint32_t size)
{
	if (first[4] == P9_Twrite) {
		return size < P9_TWRITEHDRSZ ? size : P9_TWRITEHDRSZ;
	}
	return size <= HEAD_MAX ? size : 0;
}

/* A chain and its message's head, in a buffer. NULL with *why for a guest that breaks rules, NULL alone without memory. */
static struct p9_chain *wrap(struct p9_vqueue *q, const struct p9_vchain *in, struct p9_frame *f, const char **why)
{
	struct p9_vhost *v = q->dev;
	uint8_t first[P9_HDRSZ];
	*why = in->readable < P9_HDRSZ	     ? "a request is shorter than a message's head"
	       : in->writable < P9_RLERRORSZ ? "a request leaves no room for a reply"
					     : NULL;
	if (*why) {
		return NULL;
	}
	copy_in(first, in->v, sizeof(first));
	uint32_t size = p9_get32(first), headlen = head_length(first, size);
	/* while there is no session (we began anew, the guest did not) all is refused by the server, however long */
	*why = size < P9_HDRSZ	     ? "a message says it is shorter than its head"
	       : size > in->readable ? "a message says it is longer than its request"
	       : (v->link.agreed && size > v->link.frame_max) || headlen == 0 ? "a message is longer than was agreed"
									      : NULL;
	if (*why) {
		return NULL;
	}
	size_t pieces = (size_t)in->nread + 2u * in->nwrite;
	struct p9_buf *b =
		p9_buf_get(&v->loop->pool, sizeof(struct p9_chain) + pieces * sizeof(struct iovec) + headlen);
	if (!b) {
		return NULL;
	}
	struct p9_chain *c = (struct p9_chain *)(void *)b->data;
	struct iovec *payload = (struct iovec *)(void *)(c + 1);
	memset(c, 0, offsetof(struct p9_chain, reply));
	c->q = q;
	c->buf = b;
	c->head = in->head;
	c->writable = in->writable;
	c->nwrite = in->nwrite;
	c->write = payload + in->nread;
	c->into = c->write + in->nwrite;
	memcpy(c->write, in->v + in->nread, in->nwrite * sizeof(struct iovec));
	uint8_t *head = (uint8_t *)(c->into + in->nwrite);
	copy_in(head, in->v, headlen);
	memcpy(head, first, sizeof(first)); /* these were looked at: the second reading may differ */
	*f = (struct p9_frame){ .head = head, .len = headlen, .owner = b, .ticket = c, .elsewhere = size - headlen };
	size_t skip = headlen, left = f->elsewhere;
	for (unsigned i = 0; i < in->nread && left > 0; i++) {
		size_t cut = skip < in->v[i].len ? skip : in->v[i].len;
		size_t n = in->v[i].len - cut < left ? in->v[i].len - cut : left;
		skip -= cut;
		left -= n;
		if (n > 0) {
			payload[f->npayload++] = (struct iovec){ (uint8_t *)in->v[i].p + cut, n };
		}
	}
	f->payload = f->npayload ? payload : NULL;
	return c;
}

/* The next message of a queue. Returns 1, 0 when there is none, or -1: the queue is broken. */
static int next_message(struct p9_vqueue *q, struct p9_frame *f)
{
	static _Thread_local struct p9_vpiece pieces[PIECES_MAX];
	struct p9_vchain in = { .v = pieces, .cap = PIECES_MAX };
	struct p9_vhost *v = q->dev;
	const char *why;
	int rc = q->orphan < q->norphans ? p9_vdev_take(&q->ring, q->orphans[q->orphan++].head, &in)
					 : p9_vdev_pop(&q->ring, &in);
	if (rc == 0) {
		return 0;
	}
	if (rc < 0) {
		p9_vqueue_break(q, q->ring.why);
		return -1;
	}
	struct p9_chain *c = wrap(q, &in, f, &why);
	if (!c) {
		p9_vqueue_break(q, why ? why : "no memory for its messages");
		return -1;
	}
	p9_inflight_take(q->inflight, in.head);
	c->mem = p9_vmem_get(q->mem);
	c->prev = &v->chains;
	c->next = v->chains;
	if (c->next) {
		c->next->prev = &c->next;
	}
	v->chains = c;
	q->nchains++;
	v->nchains++;
	return 1;
}

uint16_t p9_vchain_head(const void *ticket)
{
	return ((const struct p9_chain *)ticket)->head;
}

const struct p9_vqueue *p9_vchain_queue(const void *ticket)
{
	return ((const struct p9_chain *)ticket)->q;
}

/* ---- the link ---- */
static void flush(struct p9_link *l)
{
	struct p9_vhost *v = VHOST(l);
	for (unsigned i = 0; i < v->nqueues; i++) {
		if (v->queues[i].dirty || v->queues[i].signal) {
			p9_vqueue_signal(&v->queues[i], false);
		}
	}
}

/* The server would not have it: gives it back, unless it was answered. */
static void drop(struct p9_vhost *v, const struct p9_chain *c)
{
	for (struct p9_chain *i = v->chains; i; i = i->next) {
		if (i == c) {
			give_back(v, i, 0);
			return;
		}
	}
}

/* Messages of one queue. Returns 0, P9_LOST, or -P9_Exxx: the session is broken. */
static int drain_queue(struct p9_vhost *v, struct p9_vqueue *q)
{
	struct p9_link *l = &v->link;
	struct p9_frame f;
	if (q->running) {
		p9_vdev_quiet(&q->ring);
	}
	for (unsigned i = 0; q->running && !q->ring.why && !l->broken && !l->user->full(l); i++) {
		uint64_t one = 1;
		if (i ==
		    TURN) { /* go on after the others: kicked by ourselves; when that is full we are kicked anyway */
			return q->kick.fd >= 0 && write(q->kick.fd, &one, sizeof(one)) < 0 ? 0 : 0;
		}
		int rc = next_message(q, &f);
		if (rc == 0) { /* kicks are asked for when the loop is going to sleep */
			p9_loop_poll(v->loop, &v->poller);
			return 0;
		}
		l->more = p9_vdev_has(&q->ring);
		rc = rc > 0 ? l->user->frame(l, &f) : 0;
		if (rc == P9_LOST) {
			return rc;
		}
		if (rc < 0) {
			p9_vqueue_break(q, "its messages are none of 9P");
			drop(v, f.ticket);
		}
	}
	return 0;
}

int p9_vhost_process(struct p9_link *l)
{
	struct p9_vhost *v = VHOST(l);
	l->busy = true;
	for (unsigned i = 0; i < v->nqueues; i++) {
		v->next_queue = v->next_queue + 1 < v->nqueues ? v->next_queue + 1 : 0;
		if (drain_queue(v, &v->queues[v->next_queue]) == P9_LOST) {
			return P9_LOST;
		}
	}
	l->busy = false;
	if (l->broken) {
		return 0;
	}
	l->reading = !l->user->full(l);
	flush(l);
	if (p9_vmem_lost(v->mem)) {
		p9_vhost_end(v, -P9_EFAULT, "the guest's memory was taken away while it was in use");
	}
	return 0;
}

#define POLLER(p) ((struct p9_vhost *)((char *)(uintptr_t)(p)-offsetof(struct p9_vhost, poller)))

static bool rings_have(const struct p9_poller *p)
{
	const struct p9_vhost *v = POLLER(p);
	for (unsigned i = 0; i < v->nqueues; i++) {
		if (v->queues[i].running && p9_vdev_has(&v->queues[i].ring)) {
			return true;
		}
	}
	return false;
}

static bool rings_arm(struct p9_poller *p)
{
	struct p9_vhost *v = POLLER(p);
	bool some = false;
	for (unsigned i = 0; i < v->nqueues; i++) {
		if (v->queues[i].running && !v->queues[i].ring.why) {
			some |= p9_vdev_wait(&v->queues[i].ring);
		}
	}
	return some;
}

static int rings_ready(struct p9_poller *p)
{
	return p9_vhost_process(&POLLER(p)->link);
}

/* Watched for edges. What it counts does not matter, but a driver could not go on kicking when it is full. */
static int kicked(struct p9_source *s, uint32_t events)
{
	struct p9_vqueue *q = (struct p9_vqueue *)s;
	uint64_t count;
	struct iovec iov = { &count, sizeof(count) };
	(void)events;
	if (preadv2(s->fd, &iov, 1, -1, RWF_NOWAIT) < 0 && errno != EAGAIN) {
		p9_vqueue_drop_kick(q);
		return 0;
	}
	return q->running && !q->dev->link.broken ? p9_vhost_process(&q->dev->link) : 0;
}

/* Kicks are there already when another process has begun. */
static int start(struct p9_link *l)
{
	struct p9_vhost *v = VHOST(l);
	int rc = p9_loop_add(v->loop, &v->ctl, EPOLLIN | EPOLLRDHUP);
	for (unsigned i = 0; rc == 0 && i < v->nqueues; i++) {
		rc = v->queues[i].kick.fd < 0 ? 0 : p9_loop_add(v->loop, &v->queues[i].kick, EPOLLIN | EPOLLET);
	}
	l->reading = rc == 0;
	return rc;
}

static void stop(struct p9_link *l)
{
	struct p9_vhost *v = VHOST(l);
	l->broken = true;
	p9_loop_unpoll(v->loop, &v->poller);
	for (unsigned i = 0; i < v->nqueues; i++) {
		p9_vqueue_drop_kick(&v->queues[i]);
	}
	v->stopped = true;
	p9_vhost_drained(v);
	p9_loop_del(v->loop, &v->ctl);
}

static void free_vhost(struct p9_link *l)
{
	struct p9_vhost *v = VHOST(l);
	v->draining = false;
	while (v->chains) { /* of requests that will never be answered */
		p9_vdev_stop(&v->chains->q->ring, "the link has ended");
		give_back(v, v->chains, 0);
	}
	for (unsigned i = 0; i < v->nqueues; i++) {
		struct p9_vqueue *q = &v->queues[i];
		p9_vqueue_drop_kick(q);
		p9_vmem_put(q->mem);
		free(q->orphans);
		for (int *fd = &q->call; fd; fd = fd == &q->call ? &q->err : NULL) {
			if (*fd >= 0) {
				close(*fd);
			}
		}
	}
	p9_vhost_close_fds(v);
	if (v->backend_req >= 0) {
		close(v->backend_req);
	}
	p9_inflight_unmap(&v->area);
	p9_vmem_put(v->mem);
	p9_loop_unpoll(v->loop, &v->poller);
	p9_loop_del(v->loop, &v->ctl);
	close(v->ctl.fd);
	free(v->queues);
	free(v);
}

static const struct p9_link_ops ops = { .reserve = reserve,
					.commit = commit,
					.keep = keep,
					.send_room = send_room,
					.no_reply = no_reply,
					.process = p9_vhost_process,
					.flush = flush,
					.start = start,
					.stop = stop,
					.free = free_vhost,
					.quiet = p9_vhost_quiet,
					.pack = p9_vhost_pack };

struct p9_link *p9_vhost_make(struct p9_loop *loop, int in, int out, void *arg)
{
	const struct p9_vhost_conf *conf = arg;
	struct p9_vhost *v = calloc(1, sizeof(*v));
	struct p9_vqueue *queues = calloc(conf->queues, sizeof(*queues));
	struct p9_vmem *mem = p9_vmem_new();
	(void)out; /* the same socket */
	if (!v || !queues || !mem) {
		free(v);
		free(queues);
		p9_vmem_put(mem);
		return NULL;
	}
	v->link.ops = &ops;
	v->link.lasting = true;
	v->loop = loop;
	v->conf = *conf;
	snprintf(v->tag, sizeof(v->tag), "%s", conf->tag);
	v->conf.tag = v->tag;
	v->ctl = (struct p9_source){ in, p9_vhost_control_ready };
	v->poller = (struct p9_poller){ .has = rings_have, .arm = rings_arm, .ready = rings_ready };
	v->mem = mem;
	v->queues = queues;
	v->nqueues = conf->queues;
	v->backend_req = v->area.guard = v->area.fd = -1;
	for (unsigned i = 0; i < v->nqueues; i++) {
		queues[i].kick = (struct p9_source){ -1, kicked };
		queues[i].dev = v;
		queues[i].call = queues[i].err = -1;
	}
	return &v->link;
}
