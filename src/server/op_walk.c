/* SPDX-License-Identifier: BSD-2-Clause */
/* op_walk.c - Twalk: reach a file by names from another.
 *
 * Owns the all-or-nothing rule: newfid exists only if every name was walked; a partial walk answers the qids that were
 * reached and leaves everything as it was. The backend walks all names at once. Where the tree of exports ends and an
 * export begins (a portal), the walk goes on in the export's own backend, as the user that the export's rules give.
 */
#include <string.h>
#include "server/internal.h"

static int walk_start(struct p9_req *r)
{
	const struct p9_twalk *m = &r->t.twalk;
	if (m->newfid == m->fid) {
		return r->fid->file ? -P9_EBUSY : 0;
	}
	if (m->newfid == P9_NOFID) {
		return -P9_EBADF;
	}
	if (p9_fid_find(&r->conn->fids, m->newfid)) {
		return -P9_EEXIST;
	}
	r->want_new = true;
	r->new_id = m->newfid;
	return 0;
}

/* Enters the export that *n stands for. */
static int enter(struct p9_req *r, struct p9_caller *c, struct p9_node **n, struct p9_qid *qid)
{
	struct p9_export *ex = (*n)->tree;
	const struct p9_attach *from = r->fid->at;
	struct p9_tattach m = { .n_uname = from->n_uname, .uname = { from->uname, from->uname_len } };
	struct p9_attach *at;
	struct p9_node *root;
	struct p9_rgetattr a;
	int rc = p9_attach_new(r->conn, ex, &m, &at);
	if (rc < 0) {
		return rc;
	}
	p9_attach_put(r->at);
	r->at = at;
	rc = p9_attach_root(c, at, &root);
	if (rc < 0) {
		return rc;
	}
	rc = root->be->getattr(c, root, P9_GETATTR_BASIC, &a);
	if (rc < 0) {
		p9_node_put(root);
		return rc;
	}
	*qid = a.qid;
	p9_node_put(*n);
	*n = root;
	return 0;
}

/* A walk that begins in the tree of exports, piece by piece. */
static int walk_pieces(struct p9_req *r, struct p9_caller *c)
{
	struct p9_strs rest = r->t.twalk.wname;
	struct p9_qids *all = &r->r.rwalk.wqid, q;
	struct p9_node *n = p9_node_get(r->fid->node);
	int rc = 0;
	all->n = 0;
	for (;;) {
		struct p9_node *next = NULL;
		rc = n->be->walk(c, n, &rest, &q, &next);
		for (unsigned i = 0; rc == 0 && i < q.n; i++) {
			all->v[all->n++] = q.v[i];
		}
		if (rc < 0 || !next) {
			break;
		}
		p9_node_put(n);
		n = next;
		rest.n = (uint16_t)(rest.n - q.n);
		memmove(rest.v, rest.v + q.n, rest.n * sizeof(rest.v[0]));
		if (n->portal) {
			rc = enter(r, c, &n, &all->v[all->n - 1]);
		}
		if (rc < 0 || rest.n == 0) {
			break;
		}
	}
	if (rc == 0 && rest.n == 0) {
		r->node = n;
		return 0;
	}
	p9_node_put(n);
	return all->n > 0 ? 0 : rc;
}

static int walk_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_node *n = r->fid->node;
	if (r->fid->at->ex == &r->conn->srv->list && r->t.twalk.wname.n > 0) {
		return walk_pieces(r, c);
	}
	return n->be->walk(c, n, &r->t.twalk.wname, &r->r.rwalk.wqid, &r->node);
}

static int walk_done(struct p9_req *r)
{
	struct p9_fid *f = r->fid;
	if (!r->node) {
		return 0; /* partial: the qids say how far */
	}
	struct p9_attach *at = r->at ? r->at : f->at;
	if (r->want_new) {
		int rc = p9_fid_place(r, &f);
		if (rc < 0) {
			return rc;
		}
		atomic_fetch_add_explicit(&at->refs, 1, memory_order_relaxed);
		f->at = at;
	} else {
		p9_node_put(f->node);
		if (r->at) {
			p9_attach_put(f->at);
			f->at = r->at;
			r->at = NULL;
		}
	}
	f->node = r->node;
	r->node = NULL;
	return 0;
}
const struct p9_op p9_op_walk = { walk_start, walk_run, walk_done, NULL, false };
