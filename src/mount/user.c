/* SPDX-License-Identifier: BSD-2-Clause */
/* user.c - who a new file belongs to, on a mount that several users may use (allow_other).
 *
 * The kernel has checked what a user may do, so that one attach serves everybody for all that exists already. What is made
 * belongs to whom the server takes the request for, though; so each user who makes something gets an attach of his own,
 * the first time, and a walk to the directory from there goes ahead of what makes the entry. A server that does not let
 * us attach as somebody else (we are not root, say) is not asked again, and serves as it does for us.
 * Must stay true: fids of such an attach are used to make entries and to read and write what was made, never kept as an
 * inode's.
 */
#include <stdlib.h>
#include "mount/internal.h"

#define WALK ((int)P9_MAXWELEM)
#define DEEPEST (4 * WALK)

/* Whoever it is for, or NULL. */
static struct p9_muser *find(const struct p9_mount *m, uint32_t uid)
{
	struct p9_muser *u = m->users;
	while (u && u->uid != uid) {
		u = u->next;
	}
	return u;
}

static void remember(struct p9_mount *m, uint32_t uid, uint32_t fid)
{
	struct p9_muser *u = calloc(1, sizeof(*u));
	if (u) {
		*u = (struct p9_muser){ m->users, uid, fid };
		m->users = u;
	} else if (fid != P9_NOFID) {
		p9_mount_clunk(m, fid);
	}
}

void p9_mount_users_fini(struct p9_mount *m)
{
	while (m->users) {
		struct p9_muser *u = m->users;
		m->users = u->next;
		free(u);
	}
}

/* Names from the root to a directory, at most DEEPEST. Returns how many, or -1. */
static int path_of(const struct p9_mount *m, const struct p9_minode *dir, const char *names[DEEPEST])
{
	int n = 0;
	for (const struct p9_minode *i = dir; i != &m->root; i = i->dir) {
		if (!i || !i->name || n == DEEPEST) {
			return -1;
		}
		names[n++] = i->name;
	}
	for (int a = 0, b = n - 1; a < b; a++, b--) {
		const char *t = names[a];
		names[a] = names[b];
		names[b] = t;
	}
	return n;
}

/* ---- the walk ---- */
static int walk_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	const char *names[DEEPEST];
	int n = path_of(r->m, r->ino, names), from = (int)i * WALK;
	(void)dst;
	if (n < 0) {
		return -P9_ESTALE;
	}
	if (i > 0 && from >= n) {
		return P9_MSKIP;
	}
	const struct p9_muser *u = find(r->m, r->maker);
	int rc = i == 0 ? p9_client_fid(r->m->client, &r->as) : 0;
	*t = (struct p9_msg){ .type = P9_Twalk, .twalk = { .fid = i == 0 ? u->fid : r->as, .newfid = r->as } };
	for (int k = from; k < n && k < from + WALK; k++) {
		t->twalk.wname.v[t->twalk.wname.n++] = p9_mstr(names[k]);
	}
	return rc;
}

static int walk_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	const char *names[DEEPEST];
	int n = path_of(r->m, r->ino, names), from = (int)i * WALK;
	const struct p9_qids *q = &reply->rwalk.wqid;
	p9_mreq_take(r, r->as); /* it goes with the request */
	int want = n - from < WALK ? n - from : WALK;
	bool last = from + want == n;
	if (n < 0 || q->n != want || (last && want && q->v[want - 1].path != r->ino->path)) {
		return -P9_ESTALE; /* somebody has moved it */
	}
	return 0;
}

static void walk_finish(struct p9_mreq *r)
{
	if (r->error && r->as != P9_NOFID) { /* then as everybody */
		p9_mount_clunk(r->m, r->as);
		r->as = P9_NOFID;
	}
	p9_mreq_chain(r, r->as != P9_NOFID ? r->then_as : r->then_us);
}

static const struct p9_mop walk_op = {
	.name = "walk as", .steps = DEEPEST / WALK, .build = walk_build, .took = walk_took, .finish = walk_finish
};

/* ---- the attach ---- */
static int attach_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	const char *aname = r->m->o.aname ? r->m->o.aname : "";
	(void)i;
	(void)dst;
	int rc = p9_client_fid(r->m->client, &r->as);
	*t = (struct p9_msg){ .type = P9_Tattach,
			      .tattach = {
				      .fid = r->as, .afid = P9_NOFID, .n_uname = r->maker, .aname = p9_mstr(aname) } };
	return rc;
}

static int attach_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	(void)i;
	return reply->rattach.qid.path == r->m->root.path ? 0 : -P9_ESTALE;
}

static void attach_finish(struct p9_mreq *r)
{
	bool known = find(r->m, r->maker) != NULL; /* by another request meanwhile */
	bool final = r->error && r->error != -P9_ETIMEDOUT && r->error != -P9_ECANCELED;
	if (!known && (!r->error || final)) {
		remember(r->m, r->maker, r->error ? P9_NOFID : r->as);
		p9_mreq_take(r, r->as);
	}
	r->as = P9_NOFID;
	const struct p9_muser *u = find(r->m, r->maker);
	p9_mreq_chain(r, u && u->fid != P9_NOFID ? &walk_op : r->then_us);
}

static const struct p9_mop attach_op = {
	.name = "attach as", .steps = 1, .build = attach_build, .took = attach_took, .finish = attach_finish
};

void p9_mreq_as_maker(struct p9_mreq *r, const struct p9_mop *as, const struct p9_mop *us)
{
	const struct p9_mount_opts *o = &r->m->o;
	r->maker = fuse_req_ctx(r->req)->uid;
	r->then_as = as;
	r->then_us = us;
	const struct p9_muser *u = r->maker == o->attached ? NULL : find(r->m, r->maker);
	bool plain = r->maker == o->attached || o->set_uid || (u && u->fid == P9_NOFID);
	p9_mreq_begin(r, plain ? us : u ? &walk_op : &attach_op);
}
