/* SPDX-License-Identifier: BSD-2-Clause */
/* bench_front.c - a connection of `p9 bench` to a vhost-user device: the same frames, as requests of a ring.
 *
 * What the sockets' connection has in its two buffers lies here in memory that the device reaches: a buffer for each
 * slot's Tread, one for the payload of all Twrites. Only listings are copied, for they are looked at.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/addr.h"
#include "front/front.h"
#include "p9/bench.h"

enum { SETUP_MS = 10000, ANSWER_MS = 30000 };

int bench_front_open(struct bench_conn *c, const struct p9_addr *a, int fd, uint32_t msize)
{
	char err[P9_FRONT_ERR];
	struct p9_front_conf conf = {
		.fd = fd, .tag = a->tag, .queues = a->queues, .depth = c->nslots, .msize = msize, .timeout_ms = SETUP_MS
	};
	int rc = p9_front_open(&c->front, &conf, err);
	if (rc < 0) {
		snprintf(c->err, sizeof(c->err), "vhost-user:%.60s: %.120s", a->path, err);
		return rc;
	}
	c->into = calloc(c->nslots, sizeof(*c->into));
	for (unsigned i = 0; c->into && i < c->nslots; i++) {
		c->into[i] = p9_front_buffer(c->front, msize);
	}
	c->payload = p9_front_buffer(c->front, msize);
	c->in = c->out = p9_front_fd(c->front);
	return c->into ? 0 : -P9_ENOMEM;
}

void bench_front_close(struct bench_conn *c)
{
	p9_front_close(c->front);
	free(c->into);
	c->front = NULL;
	c->in = c->out = -1;
}

static int lost(struct bench_conn *c, int rc)
{
	snprintf(c->err, sizeof(c->err), "%.190s", p9_front_error(c->front));
	return rc;
}

/* Drops n bytes of what waits to be sent. */
static void sent(struct bench_conn *c, size_t n)
{
	while (n > 0) {
		struct iovec *v = &c->iov[c->iov0];
		size_t part = n < v->iov_len ? n : v->iov_len;
		v->iov_base = (uint8_t *)v->iov_base + part;
		v->iov_len -= part;
		n -= part;
		c->iov0 += v->iov_len == 0;
	}
}

int bench_front_flush(struct bench_conn *c)
{
	while (c->iov0 < c->niov) {
		const struct iovec *v = &c->iov[c->iov0];
		const uint8_t *head = v->iov_base;
		uint32_t size = p9_get32(head);
		uint16_t tag = p9_get16(head + 5);
		struct p9_front_req r = { .head = head, .headlen = size, .queue = tag };
		if (head[4] == P9_Twrite && size > P9_TWRITEHDRSZ) {
			r.headlen = P9_TWRITEHDRSZ;
			r.data = v[1].iov_base; /* bench_queue() has put it behind its head */
			r.datalen = size - P9_TWRITEHDRSZ;
		}
		p9_front_expect(&r, c->msize);
		r.into = head[4] == P9_Tread && tag < c->nslots ? c->into[tag] : NULL;
		int rc = p9_front_send(c->front, &r);
		if (rc == -P9_EAGAIN) { /* goes out with the next round, which brings room */
			p9_front_kick(c->front);
			return 0;
		}
		if (rc < 0) {
			return lost(c, rc);
		}
		sent(c, size);
	}
	c->iov0 = c->niov = 0;
	c->outlen = 0;
	p9_front_kick(c->front);
	return 0;
}

bool bench_front_arm(struct bench_conn *c)
{
	return p9_front_arm(c->front);
}

void bench_front_wait(struct bench_conn *c, int ms)
{
	p9_front_wait(c->front, ms);
}

int bench_front_next(struct bench_conn *c,
		     bool (*drops)(const void *arg, const struct bench_conn *c, const uint8_t *frame), const void *arg)
{
	struct p9_front_reply r;
	int rc = p9_front_next(c->front, &r);
	if (rc <= 0) {
		return rc < 0 ? lost(c, rc) : 0;
	}
	uint32_t len = r.headlen + r.datalen;
	if (len > c->incap) {
		snprintf(c->err, sizeof(c->err), "the server sent a malformed message");
		return -P9_EPROTO;
	}
	memcpy(c->inbuf, r.head, r.headlen);
	if (r.datalen && (!drops || !drops(arg, c, c->inbuf))) {
		memcpy(c->inbuf + r.headlen, r.data, r.datalen);
	}
	return (int)len;
}

int bench_front_call(struct bench_conn *c)
{
	for (;;) {
		int len = bench_front_next(c, NULL, NULL);
		if (len != 0) {
			return len;
		}
		if (!p9_front_wait(c->front, ANSWER_MS)) {
			snprintf(c->err, sizeof(c->err), "the server does not answer");
			return -P9_ETIMEDOUT;
		}
	}
}

int bench_front_socket(const struct bench_conn *c)
{
	return p9_front_socket(c->front);
}
