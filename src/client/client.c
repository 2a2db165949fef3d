/* SPDX-License-Identifier: BSD-2-Clause */
/* client.c - the handle: connecting, the session's beginning and end, requests and callbacks.
 *
 * Everything that a program does with a server goes through p9_client_send() and p9_client_step(); the functions that
 * block are the same with a callback of their own. link.c moves the bytes, src/engine/ judges them.
 * Must stay true: callbacks run only inside p9_client_step(), one after the other; after the link's end none runs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/addr.h"
#include "client/internal.h"

#define DEPTH_DEFAULT 64
#define HANDSHAKE_MS 10000

struct p9_client *p9_client_new(void)
{
	struct p9_client *c = calloc(1, sizeof(*c));
	if (c) {
		c->in = c->out = c->out_flags = -1;
	}
	return c;
}

void p9_client_free(struct p9_client *c)
{
	if (!c) {
		return;
	}
	if (c->out_flags >= 0) {
		fcntl(c->out, F_SETFL, c->out_flags);
	}
	if (c->own && c->in >= 0) {
		close(c->in);
	}
	if (c->own && c->out >= 0 && c->out != c->in) {
		close(c->out);
	}
	free(c->mem);
	free(c);
}

int p9_client_set_error(struct p9_client *c, int ecode)
{
	uint32_t e = (uint32_t)(ecode < 0 ? -ecode : ecode);
	snprintf(c->error, sizeof(c->error), "%s (%s)", p9_error_text(e), p9_error_name(e));
	return -(int)e;
}

int p9_client_link_error(struct p9_client *c)
{
	int rc = c->engine.error;
	snprintf(c->error, sizeof(c->error), "%s: %s (%s)", c->peer, p9_engine_error(&c->engine),
		 p9_error_name((uint32_t)-rc));
	return rc;
}

const char *p9_client_error(const struct p9_client *c)
{
	return c->error;
}
bool p9_client_dead(const struct p9_client *c)
{
	return !c->mem || c->engine.error != 0;
}
uint32_t p9_client_root(const struct p9_client *c)
{
	return c->root;
}
uint32_t p9_client_msize(const struct p9_client *c)
{
	return c->engine.msize;
}

uint32_t p9_client_iosize(const struct p9_client *c, uint32_t iounit)
{
	uint32_t most = c->engine.msize - P9_IOHDRSZ;
	return iounit >= P9_MSIZE_MIN && iounit < most ? iounit : most; /* an iounit that makes no sense is no hint */
}

unsigned p9_client_room(const struct p9_client *c)
{
	return p9_engine_room(&c->engine);
}
unsigned p9_client_pending(const struct p9_client *c)
{
	return p9_engine_pending(&c->engine);
}

int p9_client_send(struct p9_client *c, struct p9_msg *msg, void *dst, struct p9_call *call)
{
	int rc = c->mem ? p9_engine_submit(&c->engine, msg, dst, call) : -P9_ENOTCONN;
	if (rc < 0 && c->mem && c->engine.error) {
		return p9_client_link_error(c);
	}
	return rc < 0 ? p9_client_set_error(c, rc) : rc;
}

int p9_client_step(struct p9_client *c)
{
	struct p9_reply r;
	int ran = 0, rc;
	for (;;) {
		while ((rc = p9_engine_next(&c->engine, &r)) > 0) {
			struct p9_call *call = r.user;
			call->done(call, &r.msg);
			ran++;
		}
		if (rc < 0) {
			return p9_client_link_error(c);
		}
		if (ran || p9_engine_pending(&c->engine) == 0) {
			return ran;
		}
		rc = p9_client_move(c);
		if (rc <= 0) {
			return rc < 0 ? p9_client_link_error(c) : 0;
		}
	}
}

struct sync {
	struct p9_call call;
	struct p9_msg *reply;
	bool done;
};

static void sync_done(struct p9_call *call, const struct p9_msg *reply)
{
	struct sync *s = (struct sync *)call;
	*s->reply = *reply;
	s->done = true;
}

int p9_client_call(struct p9_client *c, struct p9_msg *msg, void *dst, struct p9_msg *reply)
{
	struct p9_msg mine;
	struct sync s = { { sync_done }, reply ? reply : &mine, false };
	int rc = p9_client_send(c, msg, dst, &s.call);
	while (rc == -P9_EAGAIN) {
		rc = p9_client_step(c);
		rc = rc < 0 ? rc : p9_client_send(c, msg, dst, &s.call);
	}
	while (rc >= 0 && !s.done) {
		rc = p9_client_step(c);
	}
	if (rc < 0) {
		return rc;
	}
	return s.reply->type == P9_Rlerror ? p9_client_set_error(c, (int)s.reply->rlerror.ecode) : 0;
}

static struct p9_str str(const char *s)
{
	return (struct p9_str){ s, (uint16_t)strnlen(s, UINT16_MAX) };
}

int p9_client_attach(struct p9_client *c, const struct p9_client_opts *o, uint32_t *fid)
{
	int rc = p9_client_fid(c, fid);
	if (rc < 0) {
		return rc;
	}
	struct p9_msg t = { .type = P9_Tattach, .tattach = { .fid = *fid, .afid = P9_NOFID, .n_uname = o->uid } };
	t.tattach.uname = str(o->uname ? o->uname : "");
	t.tattach.aname = str(o->aname ? o->aname : "");
	return p9_client_call(c, &t, NULL, NULL);
}

static bool is_socket(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* Memory for the engine, and descriptors that never block a write. */
static int prepare(struct p9_client *c, const struct p9_client_opts *o)
{
	struct p9_engine_conf conf = { .msize = o->msize ? o->msize : P9_MSIZE_DEFAULT,
				       .nfids = P9_FIDS_MAX,
				       .ntags = o->depth ? o->depth : DEPTH_DEFAULT };
	size_t n = p9_engine_memory(&conf);
	c->mem = aligned_alloc(16, (n + 15) & ~(size_t)15);
	int rc = c->mem ? p9_engine_init(&c->engine, &conf, c->mem, n) : -P9_ENOMEM;
	if (rc < 0) {
		free(c->mem);
		c->mem = NULL;
		return p9_client_set_error(c, rc);
	}
	c->in_socket = is_socket(c->in);
	c->out_socket = is_socket(c->out);
	if (!c->out_socket) {
		c->out_flags = fcntl(c->out, F_GETFL);
		fcntl(c->out, F_SETFL, c->out_flags | O_NONBLOCK);
	}
	return 0;
}

int p9_client_start(struct p9_client *c, int in, int out, bool own, const struct p9_client_opts *o)
{
	c->in = in;
	c->out = out;
	c->own = own;
	if (!c->peer[0]) {
		snprintf(c->peer, sizeof(c->peer), "fd:%d,%d", in, out);
	}
	int rc = prepare(c, o);
	if (rc < 0) {
		return rc;
	}
	c->timeout_ms = o->timeout_ms && o->timeout_ms < HANDSHAKE_MS ? o->timeout_ms : HANDSHAKE_MS;
	struct p9_msg t = { .type = P9_Tversion, .tversion = { .msize = c->engine.msize, .version = str("9P2000.L") } };
	rc = p9_client_call(c, &t, NULL, NULL);
	rc = rc < 0 ? rc : p9_client_attach(c, o, &c->root);
	c->timeout_ms = o->timeout_ms;
	return rc < 0 ? rc : 0;
}

int p9_client_dial(struct p9_client *c, const char *addr, const struct p9_client_opts *o)
{
	struct p9_addr a;
	int in = -1, out = -1;
	int rc = p9_addr_parse(&a, addr, c->error, sizeof(c->error));
	rc = rc < 0 ? rc : p9_addr_connect(&a, &in, &out, c->error, sizeof(c->error));
	if (rc < 0) {
		return rc;
	}
	snprintf(c->peer, sizeof(c->peer), "%s", addr);
	return p9_client_start(c, in, out, a.kind == P9_ADDR_UNIX || a.kind == P9_ADDR_TCP, o);
}
