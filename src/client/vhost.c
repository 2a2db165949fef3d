/* SPDX-License-Identifier: BSD-2-Clause */
/* vhost.c - the engine's bytes through the rings of a vhost-user device (src/front/).
 *
 * The engine speaks in streams, a ring in messages: each whole request of the engine's output becomes one chain, and each
 * reply is fed to its input. Payload of a reply is fed apart from the head, because the engine says only then where it
 * belongs; when the device has written it just there, nothing is copied.
 * Must stay true: a request with a deadline is carried in copies, for it may be given up with the device still at it.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/addr.h"
#include "client/internal.h"
#include "front/front.h"

#define NO_QUEUE 0u

struct p9_client_front {
	struct p9_front *front;
	struct p9_front_reply reply; /* is being fed, from byte `fed` on */
	uint32_t fed;
	bool feeding;
};

static int fail(struct p9_client *c)
{
	struct p9_front *f = c->front->front;
	struct p9_front_reply r;
	int rc = p9_front_next(f, &r);
	return p9_engine_fail(&c->engine, rc < 0 ? -rc : P9_EIO, p9_front_error(f));
}

/* What goes first of the engine's output, as one request. Returns its bytes, 0 when nothing waits. */
static uint32_t first_request(const struct p9_client *c, struct p9_front_req *r)
{
	const struct p9_engine *e = &c->engine;
	struct p9_engine_iov v[2];
	unsigned n = p9_engine_out(e, v, 2);
	if (n == 0) {
		return 0;
	}
	uint32_t size = p9_get32(v[0].p);
	uint16_t tag = p9_get16(v[0].p + 5);
	bool write = v[0].p[4] == P9_Twrite;
	*r = (struct p9_front_req){ .head = v[0].p, .headlen = write ? P9_TWRITEHDRSZ : size };
	if (size > r->headlen) {
		r->data = v[1].p;
		r->datalen = size - r->headlen;
	}
	p9_front_expect(r, e->msize);
	const struct p9_slot *s = &e->slots[tag < e->ntags ? tag : e->ntags];
	/* entries of directories are looked at more than once */
	r->into = s->type == P9_Tread ? s->dst : NULL;
	r->copy = s->due != 0;
	r->queue = tag == P9_NOTAG ? NO_QUEUE : s->type == P9_Tflush ? s->oldtag : tag;
	return size;
}

static int push(struct p9_client *c)
{
	struct p9_front *f = c->front->front;
	struct p9_front_req r;
	uint32_t size;
	int rc = P9_PUSH_ALL;
	while (rc == P9_PUSH_ALL && (size = first_request(c, &r)) > 0) {
		int k = p9_front_send(f, &r);
		if (k == 0) {
			p9_engine_out_ack(&c->engine, size);
		} else if (k == -P9_EAGAIN) {
			rc = P9_PUSH_PART;
		} else {
			rc = k == -P9_EMSGSIZE
				     ? p9_engine_fail(&c->engine, P9_EMSGSIZE, "a request that is too long for a chain")
				     : fail(c);
		}
	}
	p9_front_kick(f);
	return rc;
}

/* Feeds what the engine has room for. Returns whether it may go on without the engine looking at what it got. */
static bool feed(struct p9_client *c)
{
	struct p9_client_front *cf = c->front;
	const struct p9_front_reply *r = &cf->reply;
	struct p9_engine_iov v[2];
	bool head = cf->fed < r->headlen;
	const uint8_t *from = head ? r->head + cf->fed : r->data + (cf->fed - r->headlen);
	size_t left = head ? r->headlen - cf->fed : r->headlen + r->datalen - cf->fed;
	if (p9_engine_in(&c->engine, v) == 0) {
		return false;
	}
	size_t n = left < v[0].len ? left : v[0].len;
	if (v[0].p != from) {
		memcpy(v[0].p, from, n);
	}
	p9_engine_in_ack(&c->engine, n);
	cf->fed += (uint32_t)n;
	cf->feeding = cf->fed < r->headlen + r->datalen;
	return !cf->feeding;
}

/* The next reply, after a look at the device when there seems to be none. */
static int next(struct p9_client *c)
{
	struct p9_client_front *cf = c->front;
	int rc = p9_front_next(cf->front, &cf->reply);
	if (rc == 0 && p9_front_wait(cf->front, 0)) {
		rc = p9_front_next(cf->front, &cf->reply);
	}
	cf->fed = 0;
	cf->feeding = rc > 0;
	return rc;
}

static int pull(struct p9_client *c, bool wait)
{
	bool busy = p9_front_again_busy(c->front->front);
	int rc = c->front->feeding ? 1 : next(c);
	(void)wait; /* nobody asks for it: this is no socket */
	if (rc < 0) {
		return fail(c);
	}
	if (rc == 0 && busy && !p9_front_again_busy(c->front->front)) {
		rc = push(c); /* what could not go before the last device's requests were out of the rings */
		return rc < 0 ? rc : P9_PULL_NONE;
	}
	if (rc == 0) {
		errno = EAGAIN;
		return P9_PULL_NONE;
	}
	while (feed(c)) {
		rc = p9_front_next(c->front->front, &c->front->reply);
		c->front->fed = 0;
		c->front->feeding = rc > 0;
		if (rc <= 0) {
			break; /* an end is told with the next look: what came before it counts */
		}
	}
	return c->front->feeding ? P9_PULL_FULL : P9_PULL_SOME;
}

static unsigned watch(struct p9_client *c, struct pollfd v[2], bool out, bool *now)
{
	(void)out; /* room comes with replies */
	*now = c->front->feeding || p9_front_arm(c->front->front);
	v[0] = (struct pollfd){ .fd = p9_front_fd(c->front->front), .events = POLLIN };
	return 1;
}

static int wait_for(struct p9_client *c, int ms)
{
	if (c->front->feeding) {
		return 1;
	}
	errno = 0;
	return p9_front_wait(c->front->front, ms) || errno != EINTR;
}

static void hang_up(struct p9_client *c)
{
	p9_front_hang_up(c->front->front);
}

static bool closed(struct p9_client *c)
{
	return p9_front_wait(c->front->front, 0) && p9_front_ended(c->front->front);
}

static bool let_go(struct p9_client *c)
{
	return p9_front_let_go(c->front->front);
}

static int again(struct p9_client *c, int fd, char *err)
{
	c->front->feeding = false;
	return p9_front_again(c->front->front, fd, err);
}

static void end(struct p9_client *c)
{
	p9_front_close(c->front->front);
	free(c->front);
	c->front = NULL;
}

static void *buffer(struct p9_client *c, size_t n)
{
	return p9_front_buffer(c->front->front, n);
}

static bool put_buffer(struct p9_client *c, void *p)
{
	bool mine = p9_front_owns(c->front->front, p, 1);
	if (mine) {
		p9_front_buffer_put(c->front->front, p);
	}
	return mine;
}

static const struct p9_carrier carrier = { .push = push,
					   .pull = pull,
					   .watch = watch,
					   .wait = wait_for,
					   .hang_up = hang_up,
					   .closed = closed,
					   .let_go = let_go,
					   .again = again,
					   .end = end,
					   .buffer = buffer,
					   .put_buffer = put_buffer };

int p9_client_front_open(struct p9_client *c, int fd, const struct p9_client_front_conf *conf, char *err)
{
	struct p9_front_conf fc = { .fd = fd,
				    .tag = conf->addr->tag,
				    .queues = conf->addr->queues,
				    .depth = conf->depth + 1u,
				    .msize = conf->msize,
				    .timeout_ms = conf->timeout_ms };
	struct p9_client_front *cf = calloc(1, sizeof(*cf));
	if (!cf) {
		close(fd);
		snprintf(err, P9_FRONT_ERR, "%s (ENOMEM)", p9_error_text(P9_ENOMEM));
		return -P9_ENOMEM;
	}
	int rc = p9_front_open(&cf->front, &fc, err);
	if (rc < 0) {
		free(cf);
		return rc;
	}
	c->front = cf;
	c->carrier = &carrier;
	return 0;
}
