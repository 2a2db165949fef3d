/* SPDX-License-Identifier: BSD-2-Clause */
/* front.c - messages through the rings, and the waiting.
 *
 * A request takes a slot (private) with a page of shared memory for heads; what does not fit there, or lies where the
 * device cannot reach it, goes through a block. Both come back with the answer, and the memory of the answer that was
 * handed out last is kept until the next is asked for.
 *
 * Waiting begins with polling (base/spin.h).
 * Must stay true: the caller's memory is not touched after its reply was handed out, by us; by the device only what is
 * in p9_front_buffer() memory, when the link has ended.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "front/internal.h"
#include "p9/codec.h"

#define BLOCKS_SPARE 64u
#define BLOCKS_RESERVE 4u /* for requests, so that buffers alone cannot use all up */
#define SHARED_MAX (UINT64_C(1) << 30)
#define DATA_AT 64u /* of a block, where payload of a reply begins */
#define BULK_HEAD P9_RREADHDRSZ
#define REPLY_SHORT 512u /* any reply without a long string or payload */

int p9_front_fail(struct p9_front *f, int ecode, const char *text)
{
	if (!f->error) {
		f->error = -ecode;
		snprintf(f->text, sizeof(f->text), "%s", text);
		p9_front_hang_up(f);
	}
	return f->error;
}

const char *p9_front_error(const struct p9_front *f)
{
	return f->text;
}
bool p9_front_ended(const struct p9_front *f)
{
	return f->gone || f->error;
}
int p9_front_fd(const struct p9_front *f)
{
	return f->ep;
}
int p9_front_socket(const struct p9_front *f)
{
	return f->sock;
}
const char *p9_front_tag(const struct p9_front *f)
{
	return f->tag;
}
unsigned p9_front_queues(const struct p9_front *f)
{
	return f->nqueues;
}

/* ---- life ---- */
int p9_front_watch(const struct p9_front *f, int fd, uint32_t what, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.u32 = what };
	return epoll_ctl(f->ep, EPOLL_CTL_ADD, fd, &ev) < 0 ? p9_err() : 0;
}

/* Eventfds of a queue. CALL is watched for edges: it is never read. */
static int open_events(struct p9_front *f, struct p9_front_queue *q)
{
	q->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->err = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int rc = q->kick < 0 || q->call < 0 || q->err < 0 ? p9_err() : 0;
	rc = rc < 0 ? rc : p9_front_watch(f, q->call, P9_FRONT_EV_CALL, EPOLLIN | EPOLLET);
	return rc < 0 ? rc : p9_front_watch(f, q->err, P9_FRONT_EV_ERR, EPOLLIN);
}

static uint32_t ring_size(unsigned depth)
{
	uint32_t num = 16;
	while (num < depth + 1 && num < P9_VRING_NUM_MAX) {
		num *= 2;
	}
	return num;
}

/* Rings, tables and pages at the beginning of the shared memory. Returns their size, and places them when `map` says so. */
static size_t lay_out(struct p9_front *f, bool map)
{
	size_t ring = (p9_vring_layout(f->num, 4).size + 4095) / 4096 * 4096, at = 0;
	size_t tables = (size_t)f->num * P9_FRONT_TABLE * sizeof(struct p9_vdesc);
	for (unsigned i = 0; i < f->nqueues; i++, at += ring + tables) {
		struct p9_front_queue *q = &f->queues[i];
		uint8_t *base = map ? f->mem.map + at : NULL;
		if (map) {
			q->drv.conf = (struct p9_vdrv_conf){ .ring = p9_vring_at(base, f->num, 4),
							     .tables = (struct p9_vdesc *)(void *)(base + ring),
							     .tables_addr = (uint64_t)(uintptr_t)(base + ring),
							     .table_size = P9_FRONT_TABLE };
		}
	}
	for (unsigned i = 0; i < f->num * f->nqueues; i++, at += P9_FRONT_T + P9_FRONT_R) {
		if (map) {
			f->slots[i].page = f->mem.map + at;
			f->slots[i].next = f->free;
			f->free = &f->slots[i];
		}
	}
	return at;
}

static int make_memory(struct p9_front *f, const struct p9_front_conf *c)
{
	size_t block = ((size_t)c->msize + DATA_AT + 4095) / 4096 * 4096;
	uint64_t n = c->depth + BLOCKS_SPARE;
	n = n * block > SHARED_MAX ? SHARED_MAX / block : n;
	f->num = ring_size(c->depth);
	f->slots = calloc((size_t)f->num * f->nqueues, sizeof(*f->slots));
	f->places = calloc(f->nqueues, p9_vdrv_memory(f->num));
	f->head = malloc(P9_FRONT_HEAD);
	if (!f->slots || !f->places || !f->head) {
		return -P9_ENOMEM;
	}
	int rc = p9_region_make(&f->mem, lay_out(f, false), block, (unsigned)n);
	if (rc == 0) {
		lay_out(f, true);
	}
	return rc;
}

static int make(struct p9_front *f, const struct p9_front_conf *c)
{
	f->ep = epoll_create1(EPOLL_CLOEXEC);
	int rc = f->ep < 0 ? p9_err() : p9_front_watch(f, f->sock, P9_FRONT_EV_SOCKET, EPOLLIN | EPOLLRDHUP);
	rc = rc < 0 ? rc : make_memory(f, c);
	for (unsigned i = 0; i < f->nqueues && rc == 0; i++) {
		struct p9_vdrv_conf conf = f->queues[i].drv.conf;
		conf.features = f->features;
		rc = p9_vdrv_init(&f->queues[i].drv, &conf, (char *)f->places + i * p9_vdrv_memory(f->num));
		rc = rc < 0 ? rc : open_events(f, &f->queues[i]);
	}
	return rc;
}

int p9_front_open(struct p9_front **out, const struct p9_front_conf *c, char *err)
{
	struct p9_front *f = calloc(1, sizeof(*f));
	unsigned queues = c->queues ? c->queues : 1;
	*out = NULL;
	if (!f) {
		close(c->fd);
		snprintf(err, P9_FRONT_ERR, "%s (ENOMEM)", p9_error_text(P9_ENOMEM));
		return -P9_ENOMEM;
	}
	f->sock = c->fd;
	f->ep = f->inflight = f->mem.fd = -1;
	f->spin.most = P9_SPIN_MOST_DEVICE;
	f->patience_ms = c->timeout_ms;
	p9_front_allow(f, f->patience_ms);
	f->nqueues = queues < P9_FRONT_QUEUES_MAX ? queues : P9_FRONT_QUEUES_MAX;
	for (unsigned i = 0; i < f->nqueues; i++) {
		f->queues[i].kick = f->queues[i].call = f->queues[i].err = -1;
	}
	int rc = p9_front_talk(f, f->nqueues, c->tag, err);
	if (rc == 0) {
		rc = make(f, c);
		snprintf(err, rc < 0 ? P9_FRONT_ERR : 0, "%s (%s)", p9_error_text((uint32_t)-rc),
			 p9_error_name((uint32_t)-rc));
	}
	rc = rc < 0 ? rc : p9_front_start(f, err);
	if (rc < 0) {
		p9_front_hang_up(f);
		p9_front_close(f);
		return rc;
	}
	*out = f;
	return 0;
}

static void close_fd(int fd)
{
	if (fd >= 0) {
		close(fd);
	}
}

void p9_front_close(struct p9_front *f)
{
	if (!f) {
		return;
	}
	bool idle = true;
	for (unsigned i = 0; i < f->nqueues; i++) {
		idle = idle && f->queues[i].drv.inflight == 0;
	}
	if (f->ep >= 0 && idle && !f->error && !f->gone) {
		p9_front_stop(f);
	}
	for (unsigned i = 0; i < f->nqueues; i++) {
		close_fd(f->queues[i].kick);
		close_fd(f->queues[i].call);
		close_fd(f->queues[i].err);
	}
	close_fd(f->sock);
	close_fd(f->ep);
	close_fd(f->inflight);
	p9_region_free(&f->mem);
	free(f->slots);
	free(f->places);
	free(f->head);
	free(f);
}

/* Our half only: the device ends the other when it does nothing with our memory any more. */
void p9_front_hang_up(struct p9_front *f)
{
	shutdown(f->sock, SHUT_WR);
	f->gone = f->gone ? f->gone : "the connection was closed";
	f->gone_code = f->gone_code ? f->gone_code : P9_ECONNABORTED;
}

/* ---- buffers ---- */
void *p9_front_buffer(struct p9_front *f, size_t n)
{
	return n <= f->mem.block ? p9_region_get(&f->mem, BLOCKS_RESERVE) : NULL;
}

void p9_front_buffer_put(struct p9_front *f, void *p)
{
	p9_region_put(&f->mem, p);
}

bool p9_front_owns(const struct p9_front *f, const void *p, size_t n)
{
	uintptr_t at = (uintptr_t)p, from = (uintptr_t)f->mem.blocks, end = (uintptr_t)(f->mem.map + f->mem.len);
	return at >= from && at < end && n <= end - at;
}

/* ---- sending ---- */
void p9_front_expect(struct p9_front_req *r, uint32_t msize)
{
	uint8_t type = r->headlen > 4 ? r->head[4] : 0;
	bool bulk = (type == P9_Tread || type == P9_Treaddir) && r->headlen >= P9_TWRITEHDRSZ;
	bool text = type == P9_Treadlink || type == P9_Tgetlock;
	uint32_t most = msize > BULK_HEAD ? msize - BULK_HEAD : 0;
	r->bulk = bulk ? p9_get32(r->head + 19) : 0;
	r->bulk = r->bulk < most ? r->bulk : most;
	r->reply = text ? P9_FRONT_HEAD - 64 : REPLY_SHORT;
	r->reply = r->reply < msize ? r->reply : msize;
	r->reply = r->bulk ? BULK_HEAD : r->reply;
}

void p9_front_slot_put(struct p9_front *f, struct p9_front_slot *s)
{
	p9_region_put(&f->mem, s->out_block);
	p9_region_put(&f->mem, s->block);
	s->out_block = s->block = NULL;
	s->flying = s->stale = false;
	s->next = f->free;
	f->free = s;
}

static struct p9_vbuf piece(const void *p, size_t n)
{
	return (struct p9_vbuf){ (uint64_t)(uintptr_t)p, (uint32_t)n };
}

/* What the device reads. Returns how many pieces, or -P9_Exxx. */
static int put_request(struct p9_front *f, struct p9_front_slot *s, const struct p9_front_req *r, struct p9_vbuf *v)
{
	bool direct = r->datalen && !r->copy && p9_front_owns(f, r->data, r->datalen);
	size_t n = r->headlen + (direct ? 0 : (size_t)r->datalen);
	uint8_t *to = s->page;
	if (n > P9_FRONT_T) {
		to = s->out_block = p9_region_get(&f->mem, 0);
	}
	if (!to || n > f->mem.block) {
		return to ? -P9_EMSGSIZE : -P9_EAGAIN;
	}
	memcpy(to, r->head, r->headlen);
	if (r->datalen && !direct) {
		memcpy(to + r->headlen, r->data, r->datalen);
	}
	v[0] = piece(to, n);
	if (direct) {
		v[1] = piece(r->data, r->datalen);
	}
	return direct ? 2 : 1;
}

/* What it writes. */
static int put_room(struct p9_front *f, struct p9_front_slot *s, const struct p9_front_req *r, struct p9_vbuf *v)
{
	size_t n = r->reply + (size_t)r->bulk;
	s->reply = s->page + P9_FRONT_T;
	s->room = r->reply;
	s->bulk = r->bulk;
	if (r->bulk && !r->copy && r->into && p9_front_owns(f, r->into, r->bulk)) {
		s->data = r->into;
		v[0] = piece(s->reply, r->reply);
		v[1] = piece(s->data, r->bulk);
		return 2;
	}
	if (n > P9_FRONT_R) {
		s->block = p9_region_get(&f->mem, 0);
		s->reply = s->block ? s->block + (r->bulk ? DATA_AT - r->reply : 0) : NULL;
	}
	if (!s->reply || n > f->mem.block || (r->bulk && r->reply > DATA_AT)) {
		return s->reply ? -P9_EMSGSIZE : -P9_EAGAIN;
	}
	s->data = s->reply + r->reply;
	v[0] = piece(s->reply, n);
	return 1;
}

int p9_front_send(struct p9_front *f, const struct p9_front_req *r)
{
	struct p9_vbuf v[P9_FRONT_TABLE];
	struct p9_front_slot *s = f->free;
	if (f->error || !s || f->nstale) { /* what is old must be out of all rings before anything new is in one */
		return f->error ? f->error : -P9_EAGAIN;
	}
	if (r->headlen == 0 || r->reply < P9_RLERRORSZ || r->reply > P9_FRONT_HEAD) {
		return -P9_EINVAL;
	}
	f->free = s->next;
	int out = put_request(f, s, r, v);
	int in = out < 0 ? out : put_room(f, s, r, v + out);
	struct p9_vdrv *drv = &f->queues[r->queue % f->nqueues].drv;
	int rc = in < 0 ? in : p9_vdrv_add(drv, v, (unsigned)out, (unsigned)in, s);
	if (rc < 0) {
		p9_front_slot_put(f, s);
		return rc == -P9_EPROTO ? p9_front_fail(f, P9_EPROTO, drv->why) : rc;
	}
	s->flying = true;
	return 0;
}

void p9_front_kick(struct p9_front *f)
{
	uint64_t one = 1;
	for (unsigned i = 0; i < f->nqueues; i++) {
		bool wanted = p9_vdrv_kick(&f->queues[i].drv);
		if (wanted && write(f->queues[i].kick, &one, sizeof(one)) < 0) {
			continue; /* full: it has not even looked at the last ones */
		}
	}
}

/* ---- replies ---- */
static int bad(struct p9_front *f, const char *what)
{
	char text[P9_FRONT_ERR];
	snprintf(text, sizeof(text), "the device breaks the rules of its ring: %s", what);
	return p9_front_fail(f, P9_EPROTO, text);
}

/* An answer of len bytes. Its head is copied, once, and only the copy is looked at. */
static int take_answer(struct p9_front *f, struct p9_front_slot *s, uint32_t len, struct p9_front_reply *r)
{
	char text[80];
	uint32_t n = len < s->room ? len : s->room;
	if (len < P9_HDRSZ) {
		snprintf(text, sizeof(text), "an answer of %u bytes", len);
		return bad(f, text);
	}
	memcpy(f->head, s->reply, n);
	if (p9_get32(f->head) != len) {
		snprintf(text, sizeof(text), "an answer of %u bytes that says it has %u", len, p9_get32(f->head));
		return bad(f, text);
	}
	*r = (struct p9_front_reply){ f->head, n, s->data, len - n };
	return 1;
}

/* Returns 1, 0 when there is none, or the link's error. */
static int next_answer(struct p9_front *f, struct p9_vanswer *a)
{
	for (unsigned i = 0; i < f->nqueues; i++) {
		struct p9_vdrv *drv = &f->queues[f->turn].drv;
		int rc = p9_vdrv_get(drv, a);
		if (rc != 0) {
			return rc < 0 ? bad(f, drv->why) : 1;
		}
		f->turn = f->turn + 1 < f->nqueues ? f->turn + 1 : 0;
	}
	return 0;
}

int p9_front_next(struct p9_front *f, struct p9_front_reply *r)
{
	struct p9_vanswer a;
	int rc;
	if (f->held) {
		p9_front_slot_put(f, f->held);
		f->held = NULL;
	}
	if (f->error) {
		return f->error;
	}
	while ((rc = next_answer(f, &a)) > 0) {
		struct p9_front_slot *s = a.user;
		if (a.len > 0 && !s->stale) {
			s->flying = false;
			f->held = s;
			return take_answer(f, s, a.len, r);
		}
		f->nstale -= s->stale;
		p9_front_slot_put(f,
				  s); /* of a request that was flushed, and has no reply, or that the last device had */
	}
	return rc == 0 && f->gone ? p9_front_fail(f, f->gone_code, f->gone) : rc;
}

/* ---- waiting ---- */
static bool has(const struct p9_front *f)
{
	for (unsigned i = 0; i < f->nqueues; i++) {
		if (p9_vdrv_has(&f->queues[i].drv)) {
			return true;
		}
	}
	return f->gone || f->error;
}

bool p9_front_arm(struct p9_front *f)
{
	bool some = f->gone || f->error;
	for (unsigned i = 0; i < f->nqueues; i++) {
		some |= p9_vdrv_wait(&f->queues[i].drv);
	}
	return some;
}

static void gone(struct p9_front *f, int ecode, const char *text)
{
	f->gone_code = f->gone ? f->gone_code : ecode;
	f->gone = f->gone ? f->gone : text;
}

/* Takes events in. Returns how many, 0 when time is over or a signal came. */
static int events(struct p9_front *f, int ms)
{
	struct epoll_event ev[8];
	int n = epoll_wait(f->ep, ev, 8, ms);
	for (int i = 0; i < n; i++) {
		if (ev[i].data.u32 == P9_FRONT_EV_ERR) {
			f->faulty = true;
			gone(f, P9_EIO, "the device has stopped working on our requests: it found fault with one");
		} else if (ev[i].data.u32 == P9_FRONT_EV_SOCKET) {
			char byte;
			bool spoke = recv(f->sock, &byte, 1, MSG_DONTWAIT | MSG_PEEK) > 0;
			gone(f, spoke ? P9_EPROTO : P9_ECONNRESET,
			     spoke ? "the device speaks without being asked" : "the device closed the connection");
		}
	}
	return n > 0 ? n : 0;
}

static bool spin(const struct p9_front *f, uint64_t until)
{
	do {
		for (int i = 0; i < P9_SPIN_LOOKS; i++) {
			if (has(f)) {
				return true;
			}
			p9_spin_relax();
		}
		p9_spin_yield(); /* the device may want this very processor */
	} while (p9_spin_clock() < until);
	return false;
}

int p9_front_wait(struct p9_front *f, int ms)
{
	if (has(f)) {
		return 1;
	}
	if (ms == 0) {
		return events(f, 0) > 0;
	}
	uint64_t until = p9_spin_begin(&f->spin);
	bool seen = until && spin(f, until), there = seen;
	if (until && !seen) {
		p9_spin_missed(&f->spin);
	}
	there = there || p9_front_arm(f) || events(f, ms) > 0;
	p9_spin_end(&f->spin, seen);
	return there;
}
