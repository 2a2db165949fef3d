/* SPDX-License-Identifier: BSD-2-Clause */
/* vfs_test.h - what a session can talk to in a test: a real server over a socket pair, or one whose every answer is the
 * test's. */
#ifndef P9_VFS_TEST_H
#define P9_VFS_TEST_H
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#include "lib/p9t.h"
#include "engine/engine.h"
#include "p9/session.h"

/* ---- a stream of bytes over a socket ---- */
struct wire {
	struct p9_port port;
	int fd;
	size_t piece; /* most bytes of one call; 0 for all */
};

static inline int wire_move(struct p9_port *port, struct p9_engine *e, bool wait)
{
	struct wire *w = (struct wire *)port;
	struct p9_engine_iov v[8];
	int moved = 0;
	unsigned n;
	while ((n = p9_engine_out(e, v, 8)) > 0) {
		struct iovec iov[8];
		for (unsigned i = 0; i < n; i++) {
			iov[i] = (struct iovec){ v[i].p, v[i].len };
		}
		if (w->piece && iov[0].iov_len > w->piece) {
			iov[0].iov_len = w->piece;
		}
		struct msghdr m = { .msg_iov = iov, .msg_iovlen = w->piece ? 1 : n };
		ssize_t k = sendmsg(w->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (k < 0 && errno == EAGAIN) {
			break;
		}
		if (k < 0) {
			return -P9_ECONNRESET;
		}
		p9_engine_out_ack(e, (size_t)k);
		moved = 1;
	}
	n = p9_engine_in(e, v);
	struct iovec iov[2] = { { v[0].p, v[0].len }, { v[1].p, v[1].len } };
	if (w->piece && iov[0].iov_len > w->piece) {
		iov[0].iov_len = w->piece;
		n = 1;
	}
	if (wait && p9_engine_out(e, v, 1) > 0) { /* the socket is full */
		struct pollfd p = { .fd = w->fd, .events = POLLIN | POLLOUT };
		assert_int_equal(poll(&p, 1, 30000), 1);
		wait = false;
		moved = 1;
	}
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t k = recvmsg(w->fd, &m, wait ? 0 : MSG_DONTWAIT);
	if (k <= 0) {
		return k == 0 ? -P9_ECONNRESET : !wait && errno == EAGAIN ? moved : -P9_ETIMEDOUT;
	}
	p9_engine_in_ack(e, (size_t)k);
	return 1;
}

/* Both ends of a connection. */
static inline void wire_open(struct wire *w, int *other)
{
	int fd[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	setsockopt(fd[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_sec = 30 }, sizeof(struct timeval));
	*w = (struct wire){ { wire_move }, fd[0], 0 };
	*other = fd[1];
}

/* ---- a server that is a function ---- */
struct odd {
	struct p9_msg_port port;
	/* Answers t: fills r, whose strings and data must last until the next call. Returns 0, -P9_Exxx (Rlerror), or 1:
	 * `raw`, `raw_len` bytes, is the answer as it is; or 2: no answer at all. */
	int (*answer)(struct odd *o, const struct p9_msg *t, struct p9_msg *r);
	void *arg;
	uint8_t raw[256];
	uint32_t raw_len;
	unsigned buffers; /* requests it takes before the first reply; replies come last in, first out */
	unsigned have;
	uint8_t *reply[8];
	uint32_t len[8];
	uint8_t *last;
	unsigned requests;
};

static inline int odd_send(struct p9_msg_port *p, const struct p9_engine_iov *v, unsigned n, uint32_t size)
{
	struct odd *o = (struct odd *)p;
	static uint8_t frame[1 << 20];
	struct p9_msg t, r = { 0 };
	size_t at = 0;
	if (o->have == o->buffers) {
		return 0;
	}
	for (unsigned i = 0; i < n; i++) {
		memcpy(frame + at, v[i].p, v[i].len);
		at += v[i].len;
	}
	assert_int_equal(at, size);
	assert_int_equal(p9_wire_decode(frame, size, 0, &t), 0);
	assert_true(t.type == P9_Tversion || p9_wire_check(&t) == 0);
	o->requests++;
	int rc = o->answer(o, &t, &r);
	if (rc == 2) {
		return 1;
	}
	static uint8_t whole[1 << 20];
	int len = (int)o->raw_len;
	if (rc != 1) {
		r.tag = t.tag;
		r.type = (uint8_t)(t.type + 1);
		if (rc < 0) {
			r = (struct p9_msg){ .type = P9_Rlerror, .tag = t.tag, .rlerror = { (uint32_t)-rc } };
		}
		len = p9_wire_encode(whole, sizeof(whole), &r);
		assert_true(len > 0);
	}
	uint8_t *out = malloc(len ? (size_t)len : 1); /* of its size, so that ASan sees a byte too many */
	memcpy(out, rc == 1 ? o->raw : whole, (size_t)len);
	o->reply[o->have] = out;
	o->len[o->have++] = (uint32_t)len;
	return 1;
}

static inline int odd_recv(struct p9_msg_port *p, const uint8_t **reply, bool wait)
{
	struct odd *o = (struct odd *)p;
	free(o->last);
	o->last = NULL;
	if (o->have == 0) {
		return wait ? -P9_ETIMEDOUT : 0;
	}
	o->have--;
	*reply = o->last = o->reply[o->have];
	return (int)o->len[o->have];
}

static inline void odd_init(struct odd *o, int (*answer)(struct odd *o, const struct p9_msg *t, struct p9_msg *r))
{
	*o = (struct odd){ .answer = answer, .buffers = 1 };
	p9_msg_port_init(&o->port);
	o->port.send = odd_send;
	o->port.recv = odd_recv;
}
static inline void odd_fini(struct odd *o)
{
	free(o->last);
	while (o->have > 0) {
		free(o->reply[--o->have]);
	}
}

/* Memory of exactly the size that was asked for, so that ASan sees a byte too many. */
static inline struct p9_session *session_over(struct p9_port *port, struct p9_session_conf conf, int *rc)
{
	struct p9_session *s;
	conf.port = port;
	size_t n = p9_session_memory(&conf);
	void *mem = aligned_alloc(16, (n + 15) & ~(size_t)15);
	memset(mem, 0xa5, n);
	*rc = p9_session_init(&s, &conf, mem, n);
	assert_ptr_equal(s, mem);
	return s;
}

#endif
