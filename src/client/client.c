/* SPDX-License-Identifier: BSD-2-Clause */
/* client.c - the handle: connecting, the session's beginning and end, and the texts of errors.
 *
 * requests.c has what happens in between, link.c moves the bytes, src/engine/ judges them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/addr.h"
#include "client/recover.h"

#define DEPTH_DEFAULT 64
#define HANDSHAKE_MS 10000

struct p9_client *p9_client_new(void)
{
	struct p9_client *c = calloc(1, sizeof(*c));
	if (c) {
		c->in = c->out = c->out_flags = c->bell = -1;
	}
	return c;
}

void p9_client_free(struct p9_client *c)
{
	if (!c) {
		return;
	}
	p9_client_thread_end(c);
	p9_recover_free(c->recover);
	if (c->carrier) {
		c->carrier->end(c);
	}
	free(c->mem);
	free(c);
}

char *p9_client_text(const struct p9_client *c)
{
	static _Thread_local char mine[P9_CLIENT_TEXT];
	return c->threaded ? mine : (char *)(uintptr_t)c->error;
}

int p9_client_set_error(struct p9_client *c, int ecode)
{
	uint32_t e = (uint32_t)(ecode < 0 ? -ecode : ecode);
	snprintf(p9_client_text(c), P9_CLIENT_TEXT, "%s (%s)", p9_error_text(e), p9_error_name(e));
	return -(int)e;
}

int p9_client_link_error(struct p9_client *c)
{
	int rc = c->engine.error;
	snprintf(p9_client_text(c), P9_CLIENT_TEXT, "%s: %s (%s)", c->peer, p9_engine_error(&c->engine),
		 p9_error_name((uint32_t)-rc));
	return rc;
}

const char *p9_client_error(const struct p9_client *c)
{
	return p9_client_text(c);
}
bool p9_client_dead(const struct p9_client *c)
{
	struct p9_client *lock = (struct p9_client *)(uintptr_t)c;
	p9_client_enter(lock);
	bool dead = !c->mem || (c->engine.error != 0 && !p9_recover_hope(c));
	p9_client_leave(lock);
	return dead;
}
struct p9_qid p9_client_root_qid(const struct p9_client *c)
{
	return c->root_qid;
}
uint32_t p9_client_root(const struct p9_client *c)
{
	return c->root;
}
uint32_t p9_client_msize(const struct p9_client *c)
{
	return c->msize;
}

uint32_t p9_client_iosize(const struct p9_client *c, uint32_t iounit)
{
	uint32_t most = c->msize - P9_IOHDRSZ;
	return iounit >= P9_MSIZE_MIN && iounit < most ? iounit : most; /* an iounit that makes no sense is no hint */
}

static int attach(struct p9_client *c, const struct p9_client_opts *o, uint32_t *fid, struct p9_qid *qid)
{
	struct p9_msg r;
	int rc = p9_client_fid(c, fid);
	if (rc < 0) {
		return rc;
	}
	struct p9_msg t = { .type = P9_Tattach, .tattach = { .fid = *fid, .afid = P9_NOFID, .n_uname = o->uid } };
	t.tattach.uname = p9_client_str(o->uname ? o->uname : "");
	t.tattach.aname = p9_client_str(o->aname ? o->aname : "");
	rc = p9_client_call(c, &t, NULL, &r);
	if (rc >= 0) {
		*qid = r.rattach.qid;
	}
	return rc;
}

int p9_client_attach(struct p9_client *c, const struct p9_client_opts *o, uint32_t *fid)
{
	struct p9_qid qid;
	return attach(c, o, fid, &qid);
}

static bool is_socket(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

static int make_engine(struct p9_client *c, const struct p9_client_opts *o)
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
	return 0;
}

/* Descriptors that never block a write. */
static void use_descriptors(struct p9_client *c, int in, int out, bool own)
{
	c->in = in;
	c->out = out;
	c->own = own;
	c->carrier = &p9_client_descriptors;
	c->in_socket = is_socket(c->in);
	c->out_socket = is_socket(c->out);
	if (!c->out_socket) {
		c->out_flags = fcntl(c->out, F_GETFL);
		fcntl(c->out, F_SETFL, c->out_flags | O_NONBLOCK);
	}
}

/* The session, over a carrier that is there. */
static int begin(struct p9_client *c, const struct p9_client_opts *o)
{
	int rc = make_engine(c, o);
	if (rc < 0) {
		return rc;
	}
	p9_client_look_for(c, o->look_us);
	c->timeout_ms = o->timeout_ms && o->timeout_ms < HANDSHAKE_MS ? o->timeout_ms : HANDSHAKE_MS;
	struct p9_msg t = { .type = P9_Tversion,
			    .tversion = { .msize = c->engine.msize, .version = p9_client_str("9P2000.L") } };
	rc = p9_client_call(c, &t, NULL, NULL);
	c->msize = c->engine.msize;
	if (rc >= 0 && o->reconnect_ms && c->dialled) {
		c->recover = p9_recover_new(c, c->dialled, o);
		rc = c->recover ? 0 : p9_client_set_error(c, P9_ENOMEM);
	}
	rc = rc < 0 ? rc : attach(c, o, &c->root, &c->root_qid);
	if (rc >= 0 && c->recover) {
		c->recover->armed = true;
	}
	c->timeout_ms = o->timeout_ms;
	return rc < 0 ? rc : 0;
}

int p9_client_start(struct p9_client *c, int in, int out, bool own, const struct p9_client_opts *o)
{
	use_descriptors(c, in, out, own);
	if (!c->peer[0]) {
		snprintf(c->peer, sizeof(c->peer), "fd:%d,%d", in, out);
	}
	return begin(c, o);
}

/* The device behind a socket that is connected already. */
static int start_device(struct p9_client *c, const struct p9_addr *a, int fd, const struct p9_client_opts *o)
{
	struct p9_client_front_conf conf = { .addr = a,
					     .depth = o->depth ? o->depth : DEPTH_DEFAULT,
					     .msize = o->msize ? o->msize : P9_MSIZE_DEFAULT,
					     .timeout_ms = HANDSHAKE_MS };
	char why[P9_CLIENT_TEXT];
	int rc = p9_client_front_open(c, fd, &conf, why);
	if (rc < 0) {
		snprintf(p9_client_text(c), P9_CLIENT_TEXT, "%.128s: %.360s", c->peer, why);
		return rc;
	}
	return begin(c, o);
}

int p9_client_dial(struct p9_client *c, const char *addr, const struct p9_client_opts *o)
{
	struct p9_addr a;
	int in = -1, out = -1;
	int rc = p9_addr_parse(&a, addr, p9_client_text(c), P9_CLIENT_TEXT);
	rc = rc < 0 ? rc : p9_addr_connect(&a, &in, &out, p9_client_text(c), P9_CLIENT_TEXT);
	if (rc < 0) {
		return rc;
	}
	snprintf(c->peer, sizeof(c->peer), "%s", addr);
	bool vhost = a.kind == P9_ADDR_VHOST, ours = vhost || a.kind == P9_ADDR_UNIX || a.kind == P9_ADDR_TCP;
	c->dialled = ours ? addr : NULL;
	rc = vhost ? start_device(c, &a, in, o) : p9_client_start(c, in, out, ours, o);
	c->dialled = NULL;
	return rc;
}
