/* SPDX-License-Identifier: BSD-2-Clause */
/* session.c - the session: memory, Tversion and Tattach, waiting for replies, the link's end.
 *
 * Everything that a session does goes through p9_session_submit() and p9_session_step(); calls that wait are the same
 * with a callback of their own, on their stack. walk.c makes fids of paths, file.c, list.c, tree.c and attr.c do the
 * rest.
 * Must stay true: a p9_session_call in flight is answered exactly once, by a reply or, when the link is lost, by
 * tell_all(); so no call returns while something of its stack is in flight.
 */
#include "vfs/session.h"
#include "wire/cursor.h"

#define MSIZE_DEFAULT 65536
#define NFIDS_DEFAULT 256
#define NTAGS_DEFAULT 16
#define DIR_DEFAULT 8192
#define DIR_MIN 1024 /* an entry with the longest name, three times */

static size_t round_up(size_t n)
{
	return (n + 15) & ~(size_t)15;
}
static uint32_t dir_size(const struct p9_session_conf *c)
{
	return c->dir_size ? c->dir_size : DIR_DEFAULT;
}

static struct p9_engine_conf engine_conf(const struct p9_session_conf *c)
{
	return (struct p9_engine_conf){ .msize = c->msize ? c->msize : MSIZE_DEFAULT,
					.nfids = c->nfids ? c->nfids : NFIDS_DEFAULT,
					.ntags = c->ntags ? c->ntags : NTAGS_DEFAULT,
					.out_size = c->out_size };
}

size_t p9_session_memory(const struct p9_session_conf *c)
{
	struct p9_engine_conf e = engine_conf(c);
	return round_up(sizeof(struct p9_session)) + round_up(dir_size(c)) + p9_engine_memory(&e);
}

static void forget(struct p9_session_call *c, const struct p9_msg *reply)
{
	(void)c;
	(void)reply;
}

/* The link is lost: every request in flight gets an answer that no server sent. */
static int tell_all(struct p9_session *s)
{
	struct p9_reply r;
	while (p9_engine_drain(&s->engine, &r) > 0) {
		struct p9_session_call *c = r.user;
		c->done(c, &r.msg);
	}
	return s->engine.error;
}

int p9_session_submit(struct p9_session *s, struct p9_msg *msg, void *dst, struct p9_session_call *c)
{
	return p9_engine_submit(&s->engine, msg, dst, c);
}

int p9_session_step(struct p9_session *s, bool wait)
{
	struct p9_reply r;
	int ran = 0, rc;
	for (;;) {
		while ((rc = p9_engine_next(&s->engine, &r)) > 0) {
			struct p9_session_call *c = r.user;
			c->done(c, &r.msg);
			ran++;
		}
		if (rc < 0) {
			return tell_all(s);
		}
		if (ran || p9_engine_pending(&s->engine) == 0) {
			return ran;
		}
		rc = s->port->move(s->port, &s->engine, wait);
		if (rc < 0) {
			p9_engine_fail(&s->engine, -rc, "the port lost the link");
			return tell_all(s);
		}
		if (rc == 0 && !wait) {
			return 0;
		}
	}
}

struct waiting {
	struct p9_session_call call;
	struct p9_msg *reply;
	bool done;
};

static void arrived(struct p9_session_call *c, const struct p9_msg *reply)
{
	struct waiting *w = (struct waiting *)c;
	*w->reply = *reply;
	w->done = true;
}

/* Submits, and makes room first when there is none. */
static int submit_soon(struct p9_session *s, struct p9_msg *msg, void *dst, struct p9_session_call *c)
{
	int rc = p9_session_submit(s, msg, dst, c);
	while (rc == -P9_EAGAIN) {
		rc = p9_session_step(s, true);
		rc = rc < 0 ? rc : p9_session_submit(s, msg, dst, c);
	}
	return rc;
}

int p9_session_call(struct p9_session *s, struct p9_msg *msg, void *dst, struct p9_msg *reply)
{
	struct p9_msg mine;
	struct waiting w = { { arrived }, reply ? reply : &mine, false };
	int rc = submit_soon(s, msg, dst, &w.call);
	while (rc >= 0 && !w.done) {
		rc = p9_session_step(s, true);
	}
	if (rc < 0) {
		return rc;
	}
	return w.reply->type == P9_Rlerror ? -(int)w.reply->rlerror.ecode : 0;
}

void p9_session_let_go(struct p9_session *s, uint32_t fid)
{
	struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = fid } };
	if (fid != s->root && fid != P9_NOFID && submit_soon(s, &t, NULL, &s->forgotten) < 0) {
		p9_engine_fid_put(&s->engine, fid); /* the link is gone, and the fid with it */
	}
}

int p9_session_last(struct p9_session *s, uint32_t fid, int rc, struct p9_msg *msg)
{
	rc = rc < 0 ? rc : p9_session_call(s, msg, NULL, NULL);
	p9_session_let_go(s, fid);
	return rc;
}

int p9_session_drain(struct p9_session *s)
{
	int rc = 0;
	while (rc >= 0 && p9_engine_pending(&s->engine) > 0) {
		rc = p9_session_step(s, true);
	}
	return rc < 0 ? rc : s->engine.error;
}

static int attach(struct p9_session *s, const struct p9_session_conf *c)
{
	struct p9_msg t = { .type = P9_Tversion,
			    .tversion = { .msize = s->engine.msize, .version = p9_session_str("9P2000.L") } };
	int rc = p9_session_call(s, &t, NULL, NULL);
	rc = rc < 0 ? rc : p9_engine_fid_get(&s->engine, &s->root);
	if (rc < 0) {
		return rc;
	}
	t = (struct p9_msg){ .type = P9_Tattach, .tattach = { .fid = s->root, .afid = P9_NOFID, .n_uname = c->uid } };
	t.tattach.uname = p9_session_str(c->uname);
	t.tattach.aname = p9_session_str(c->aname);
	return p9_session_call(s, &t, NULL, NULL);
}

int p9_session_init(struct p9_session **out, const struct p9_session_conf *c, void *mem, size_t len)
{
	struct p9_engine_conf ec = engine_conf(c);
	*out = NULL;
	if (dir_size(c) < DIR_MIN || !c->port) {
		return -P9_EINVAL;
	}
	if (len < p9_session_memory(c)) {
		return -P9_ENOMEM;
	}
	struct p9_session *s = mem;
	memset(s, 0, sizeof(*s));
	uint8_t *rest = (uint8_t *)mem + round_up(sizeof(*s));
	s->dir = rest;
	s->dir_size = dir_size(c);
	rest += round_up(s->dir_size);
	int rc = p9_engine_init(&s->engine, &ec, rest, len - (size_t)(rest - (uint8_t *)mem));
	if (rc < 0) {
		return rc;
	}
	s->port = c->port;
	s->gid = c->gid;
	s->root = P9_NOFID;
	s->forgotten.done = forget;
	*out = s;
	rc = attach(s, c);
	if (rc < 0) {
		p9_engine_fail(&s->engine, -rc, "the server refuses the session");
	}
	return rc;
}

const char *p9_session_error(const struct p9_session *s)
{
	return p9_engine_error(&s->engine);
}
int p9_session_dead(const struct p9_session *s)
{
	return s->engine.error;
}
uint32_t p9_session_msize(const struct p9_session *s)
{
	return s->engine.msize;
}
uint32_t p9_session_root(const struct p9_session *s)
{
	return s->root;
}
struct p9_engine *p9_session_engine(struct p9_session *s)
{
	return &s->engine;
}
uint32_t p9_session_fids(const struct p9_session *s)
{
	return s->engine.nfids_used;
}
