/* SPDX-License-Identifier: BSD-2-Clause */
/* bench_conn.c - one connection of `p9 bench`: its buffers, the session's start, requests one at a time for preparing.
 *
 * Requests are copied into one buffer and leave in one writev; payload of a Twrite is not copied, all of it comes from
 * one constant block. Replies are taken in by one recv. With a single connection the descriptor blocks, so that a
 * round costs two system calls; with several it does not and bench_run.c waits in epoll. Either way it looks for replies for a
 * while before it sleeps, as libp9 does (base/spin.h), unless --poll or --sleep asks for something else.
 *
 * It never deadlocks although it does not read while it writes: of a workload either the requests or the replies are
 * small, and depth times the small ones fits the socket's buffer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/addr.h"
#include "base/hosterr.h"
#include "p9/bench.h"

enum { SOCKET_BUFFER = 4 << 20 };

static uint8_t payload_block[P9_MSIZE_MAX]; /* what Twrites carry; touched as far as it is used */

static int link_error(struct bench_conn *c, const char *what, int err)
{
	snprintf(c->err, sizeof(c->err), "%s: %s", what, strerror(err));
	return -p9_hosterr(err);
}

static int start_session(struct bench_conn *c, const struct p9_cli *cli)
{
	struct p9_msg t = { .type = P9_Tversion, .tag = P9_NOTAG };
	struct p9_msg r;
	t.tversion.msize = cli->msize;
	t.tversion.version = (struct p9_str){ "9P2000.L", 8 };
	int rc = bench_call(c, &t, &r);
	if (rc < 0) {
		return rc;
	}
	if (r.rversion.version.len != 8 || memcmp(r.rversion.version.s, "9P2000.L", 8) != 0 ||
	    r.rversion.msize > cli->msize || r.rversion.msize < P9_MSIZE_MIN) {
		snprintf(c->err, sizeof(c->err), "the server does not speak 9P2000.L with a message size we can use");
		return -P9_EPROTO;
	}
	c->msize = r.rversion.msize;
	t = (struct p9_msg){ .type = P9_Tattach };
	t.tattach.fid = BENCH_ROOT;
	t.tattach.afid = P9_NOFID;
	t.tattach.uname = (struct p9_str){ "", 0 };
	t.tattach.aname = (struct p9_str){ cli->aname, (uint16_t)strlen(cli->aname) };
	t.tattach.n_uname = cli->uid;
	return bench_call(c, &t, &r);
}

static bool allocate(struct bench_conn *c, unsigned depth)
{
	c->incap = (c->msize < 262144 ? 262144 : c->msize) + 4096;
	c->inbuf = malloc(c->incap);
	c->outbuf = malloc((size_t)depth * BENCH_FRAME + c->incap);
	c->iov = calloc((size_t)depth * 2 + 2, sizeof(*c->iov));
	c->slots = calloc(depth, sizeof(*c->slots));
	return c->inbuf != NULL && c->outbuf != NULL && c->iov != NULL && c->slots != NULL;
}

int bench_conn_init(struct bench_conn *c, const struct p9_cli *cli, unsigned number, unsigned depth)
{
	*c = (struct bench_conn){ .in = -1, .out = -1, .number = number, .nslots = depth };
	struct p9_addr addr;
	int rc = p9_addr_parse(&addr, cli->addr, c->err, sizeof(c->err));
	if (rc < 0) {
		return P9_EXIT_USAGE;
	}
	if (number > 0 && (addr.kind == P9_ADDR_FD || addr.kind == P9_ADDR_STDIO)) {
		snprintf(c->err, sizeof(c->err), "%s: only one connection can be had there", cli->addr);
		return P9_EXIT_USAGE;
	}
	rc = p9_addr_connect(&addr, &c->in, &c->out, c->err, sizeof(c->err));
	if (rc == 0 && addr.kind == P9_ADDR_VHOST) {
		rc = bench_front_open(c, &addr, c->in, cli->msize);
	}
	if (rc < 0) {
		return P9_EXIT_CONNECT;
	}
	int size = SOCKET_BUFFER;
	setsockopt(c->out, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* not a socket: no matter */
	c->msize = cli->msize;
	if (!allocate(c, depth)) {
		snprintf(c->err, sizeof(c->err), "out of memory");
		return P9_EXIT_FAILED;
	}
	c->random = 0x9e3779b97f4a7c15u * (number + 1);
	for (unsigned i = 0; i < depth; i++) {
		c->slots[i].tag = (uint16_t)i;
		c->slots[i].fid = BENCH_SLOTS + i;
	}
	return start_session(c, cli) < 0 ? P9_EXIT_FAILED : P9_EXIT_OK;
}

void bench_conn_fini(struct bench_conn *c)
{
	if (c->front != NULL) {
		bench_front_close(c);
	}
	if (c->in > 2) {
		close(c->in);
	}
	if (c->out > 2 && c->out != c->in) {
		close(c->out);
	}
	free(c->inbuf);
	free(c->outbuf);
	free(c->iov);
	free(c->slots);
	*c = (struct bench_conn){ .in = -1, .out = -1 };
}

pid_t bench_conn_peer(const struct bench_conn *c)
{
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);
	int fd = c->front != NULL ? bench_front_socket(c) : c->in;
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 ? cred.pid : 0;
}

/* Reads one whole frame to the beginning of inbuf; returns its length. */
static int read_frame(struct bench_conn *c)
{
	c->inpos = c->inend = 0;
	for (;;) {
		size_t len = c->inend >= 4 ? p9_get32(c->inbuf) : 0;
		if (c->inend >= 4 && (len < P9_HDRSZ || len > c->incap || c->inend > len)) {
			snprintf(c->err, sizeof(c->err), "the server sent a malformed message");
			return -P9_EPROTO;
		}
		if (len > 0 && c->inend == len) {
			c->inend = 0;
			return (int)len;
		}
		int rc = bench_fill(c);
		if (rc < 0) {
			return rc;
		}
	}
}

int bench_call(struct bench_conn *c, struct p9_msg *t, struct p9_msg *r)
{
	const char *name = p9_wire_desc(t->type)->name;
	int len = p9_wire_encode(c->outbuf, c->incap, t);
	if (len < 0) {
		return len;
	}
	c->iov[0] = (struct iovec){ c->outbuf, (size_t)len };
	c->iov0 = 0;
	c->niov = 1;
	int rc;
	do {
		rc = bench_flush(c);
	} while (rc == 0 && c->waiting);
	len = rc < 0 ? rc : c->front != NULL ? bench_front_call(c) : read_frame(c);
	if (len < 0) {
		return len;
	}
	rc = p9_wire_decode(c->inbuf, (size_t)len, 0, r);
	if (rc == 0 && r->tag == t->tag && r->type == P9_Rlerror) {
		rc = -(int)r->rlerror.ecode;
		snprintf(c->err, sizeof(c->err), "%s: %s (%s)", name, p9_error_text(r->rlerror.ecode),
			 p9_error_name(r->rlerror.ecode));
	} else if (rc < 0 || r->tag != t->tag || r->type != t->type + 1) {
		rc = -P9_EPROTO;
		snprintf(c->err, sizeof(c->err), "%s: the server sent a reply that does not belong to it", name);
	}
	return rc;
}

/* Splits up to 16 names off the path; returns what is left. */
static const char *take_names(struct p9_strs *names, const char *path, const char *end)
{
	while (path < end && names->n < P9_MAXWELEM) {
		const char *slash = memchr(path, '/', (size_t)(end - path));
		slash = slash == NULL ? end : slash;
		if (slash > path) {
			names->v[names->n++] = (struct p9_str){ path, (uint16_t)(slash - path) };
		}
		path = slash < end ? slash + 1 : end;
	}
	return path;
}

int bench_walk(struct bench_conn *c, uint32_t fid, uint32_t newfid, const char *path, size_t len)
{
	const char *end = path + len;
	do {
		struct p9_msg t = { .type = P9_Twalk };
		struct p9_msg r;
		t.twalk.fid = fid;
		t.twalk.newfid = newfid;
		path = take_names(&t.twalk.wname, path, end);
		int rc = bench_call(c, &t, &r);
		if (rc < 0) {
			return rc;
		}
		if (r.rwalk.wqid.n != t.twalk.wname.n) {
			snprintf(c->err, sizeof(c->err), "Twalk: %s (ENOENT)", p9_error_text(P9_ENOENT));
			return -P9_ENOENT;
		}
		fid = newfid;
	} while (path < end);
	return 0;
}

void bench_queue(struct bench_conn *c, struct bench_slot *s, uint32_t payload)
{
	uint16_t len = s->len[s->step];
	uint8_t *to = c->outbuf + c->outlen;
	memcpy(to, s->frame[s->step], len);
	c->outlen += len;
	struct iovec *last = &c->iov[c->niov == 0 ? 0 : c->niov - 1];
	if (c->niov > 0 && (uint8_t *)last->iov_base + last->iov_len == to) {
		last->iov_len += len; /* it follows the frame before it */
	} else {
		c->iov[c->niov++] = (struct iovec){ to, len };
	}
	if (payload > 0) {
		c->iov[c->niov++] = (struct iovec){ c->payload != NULL ? c->payload : payload_block, payload };
	}
}

int bench_flush(struct bench_conn *c)
{
	c->waiting = false;
	if (c->front != NULL) {
		return bench_front_flush(c);
	}
	while (c->iov0 < c->niov) {
		unsigned n = c->niov - c->iov0;
		ssize_t sent = writev(c->out, c->iov + c->iov0, n < 1024 ? (int)n : 1024);
		if (sent < 0 && errno == EAGAIN) {
			c->waiting = true;
			return 0;
		}
		if (sent < 0 && errno != EINTR) {
			return link_error(c, "sending", errno);
		}
		for (size_t left = sent < 0 ? 0 : (size_t)sent; left > 0;) {
			struct iovec *v = &c->iov[c->iov0];
			size_t part = left < v->iov_len ? left : v->iov_len;
			v->iov_base = (uint8_t *)v->iov_base + part;
			v->iov_len -= part;
			left -= part;
			c->iov0 += v->iov_len == 0;
		}
	}
	c->iov0 = c->niov = 0;
	c->outlen = 0;
	return 0;
}

struct received {
	struct bench_conn *conn;
	ssize_t n;
};

static bool received(void *arg)
{
	struct received *r = arg;
	struct bench_conn *c = r->conn;
	r->n = recv(c->in, c->inbuf + c->inend, c->incap - c->inend, MSG_DONTWAIT);
	return r->n >= 0 || errno != EAGAIN;
}

/* Receives once, waiting as it was asked to. */
static ssize_t receive(struct bench_conn *c)
{
	struct received r = { c, 0 };
	if (c->how == BENCH_POLL) {
		received(&r);
	} else if (c->how != BENCH_LOOK || !p9_spin_look(&c->spin, received, &r)) {
		r.n = read(c->in, c->inbuf + c->inend, c->incap - c->inend);
		p9_spin_slept(&c->spin);
	}
	return r.n;
}

int bench_fill(struct bench_conn *c)
{
	if (c->inpos == c->inend) {
		c->inpos = c->inend = 0;
	} else if (c->inpos > 0) {
		memmove(c->inbuf, c->inbuf + c->inpos, c->inend - c->inpos);
		c->inend -= c->inpos;
		c->inpos = 0;
	}
	ssize_t n = receive(c);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		return 0;
	}
	if (n <= 0) {
		return n < 0 ? link_error(c, "receiving", errno)
			     : (snprintf(c->err, sizeof(c->err), "the server closed the connection"), -P9_ECONNRESET);
	}
	c->inend += (size_t)n;
	return 1;
}
