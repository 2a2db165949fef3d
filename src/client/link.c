/* SPDX-License-Identifier: BSD-2-Clause */
/* link.c - the engine's bytes over two descriptors, or by another carrier (vhost.c); and how they are waited for.
 *
 * Called by requests.c, which also does the waiting. Never blocks in a write: a server that has filled our socket
 * with replies may itself be waiting for us to read. Payload goes from the caller's memory to the socket, and from the
 * socket into the caller's memory, by one sendmsg() or recvmsg() together with the heads around it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "client/recover.h"

#define PIECES 64

static int fail_errno(struct p9_client *c, int host_errno)
{
	int e = p9_hosterr(host_errno);
	return p9_engine_fail(&c->engine, e, p9_error_text((uint32_t)e));
}

static bool not_now(int e)
{
	return e == EAGAIN || e == EWOULDBLOCK || e == EINTR;
}

static int push(struct p9_client *c)
{
	for (;;) {
		struct p9_engine_iov v[PIECES];
		struct iovec iov[PIECES];
		unsigned n = p9_engine_out(&c->engine, v, PIECES);
		size_t want = 0;
		for (unsigned i = 0; i < n; i++) {
			iov[i] = (struct iovec){ v[i].p, v[i].len };
			want += v[i].len;
		}
		if (n == 0) {
			return P9_PUSH_ALL;
		}
		struct msghdr mh = { .msg_iov = iov, .msg_iovlen = n };
		ssize_t k =
			c->out_socket ? sendmsg(c->out, &mh, MSG_NOSIGNAL | MSG_DONTWAIT) : writev(c->out, iov, (int)n);
		if (k < 0 && not_now(errno)) {
			return P9_PUSH_PART;
		}
		if (k < 0 && (errno == EPIPE || errno == ECONNRESET)) {
			return P9_PUSH_CLOSED;
		}
		if (k < 0) {
			return fail_errno(c, errno);
		}
		p9_engine_out_ack(&c->engine, (size_t)k);
		if ((size_t)k < want) {
			return P9_PUSH_PART;
		}
	}
}

static int pull(struct p9_client *c, bool wait)
{
	struct p9_engine_iov v[2];
	struct iovec iov[2];
	unsigned n = p9_engine_in(&c->engine, v);
	size_t want = 0;
	for (unsigned i = 0; i < n; i++) {
		iov[i] = (struct iovec){ v[i].p, v[i].len };
		want += v[i].len;
	}
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t k = c->in_socket ? recvmsg(c->in, &mh, wait ? 0 : MSG_DONTWAIT) : readv(c->in, iov, (int)n);
	if (k < 0 && not_now(errno)) {
		return 0;
	}
	if (k < 0) {
		return fail_errno(c, errno);
	}
	if (k == 0) {
		return p9_engine_fail(&c->engine, P9_ECONNRESET, "the server closed the connection");
	}
	p9_engine_in_ack(&c->engine, (size_t)k);
	return (size_t)k == want ? P9_PULL_FULL : P9_PULL_SOME;
}

static unsigned watch(struct p9_client *c, struct pollfd v[2], bool out, bool *now)
{
	*now = false;
	v[0] = (struct pollfd){ .fd = c->in, .events = POLLIN };
	if (out && c->in == c->out) {
		v[0].events |= POLLOUT;
	} else if (out) {
		v[1] = (struct pollfd){ .fd = c->out, .events = POLLOUT };
	}
	return out && c->in != c->out ? 2 : 1;
}

static bool closed(struct p9_client *c)
{
	char byte;
	return c->in_socket && recv(c->in, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static int again(struct p9_client *c, int fd, char *err)
{
	err[0] = 0;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	c->in = c->out = fd;
	c->in_socket = c->out_socket = c->own = true;
	return 0;
}

static void end(struct p9_client *c)
{
	if (c->out_flags >= 0) {
		fcntl(c->out, F_SETFL, c->out_flags);
	}
	if (c->own && c->in >= 0) {
		close(c->in);
	}
	if (c->own && c->out >= 0 && c->out != c->in) {
		close(c->out);
	}
}

const struct p9_carrier p9_client_descriptors = {
	.push = push, .pull = pull, .watch = watch, .closed = closed, .again = again, .end = end
};

int p9_client_push(struct p9_client *c)
{
	return c->carrier->push(c);
}

int p9_client_pull(struct p9_client *c, bool wait)
{
	return c->carrier->pull(c, wait);
}

void *p9_client_buffer(struct p9_client *c, size_t n)
{
	p9_client_enter(c);
	void *p = c->carrier && c->carrier->buffer ? c->carrier->buffer(c, n) : NULL;
	p9_client_leave(c);
	return p ? p : malloc(n ? n : 1);
}

void p9_client_buffer_free(struct p9_client *c, void *p)
{
	p9_client_enter(c);
	bool theirs = p && c->carrier && c->carrier->put_buffer && c->carrier->put_buffer(c, p);
	p9_client_leave(c);
	if (!theirs) {
		free(p);
	}
}

int p9_client_redirect(struct p9_client *c, struct p9_call *call, void *dst)
{
	if (!c->carrier) {
		return -P9_EINVAL;
	}
	if (c->carrier != &p9_client_descriptors) {
		return -P9_EOPNOTSUPP;
	}
	p9_client_enter(c);
	bool mine = call->tag < c->engine.ntags && c->engine.slots[call->tag].user == call;
	int rc = mine ? p9_engine_redirect(&c->engine, call->tag, dst) : -P9_EINVAL;
	if (rc == 0 && c->recover) {
		c->recover->flights[call->tag].dst = dst;
	}
	p9_client_leave(c);
	return rc;
}

/* ---- looking before sleeping (base/spin.h) ---- */
void p9_client_look_for(struct p9_client *c, uint32_t us)
{
	c->looks = us != P9_CLIENT_SLEEP && p9_spin_worth();
	c->spin.most = us < UINT32_MAX / 1000 ? us * 1000 : UINT32_MAX;
}

struct pulled {
	struct p9_client *client;
	int got;
};

static bool pulled(void *arg)
{
	struct pulled *p = arg;
	p->got = p9_client_pull(p->client, false);
	return p->got != 0;
}

int p9_client_look(struct p9_client *c)
{
	struct pulled p = { c, 0 };
	return c->looks && p9_spin_look(&c->spin, pulled, &p) ? p.got : 0;
}

struct polled {
	struct pollfd *v;
	unsigned n;
};

static bool polled(void *arg)
{
	struct polled *p = arg;
	return poll(p->v, p->n, 0) > 0;
}

bool p9_client_look_at(struct p9_client *c, struct pollfd *v, unsigned n)
{
	return c->looks && p9_spin_look(&c->spin, polled, &(struct polled){ v, n });
}
