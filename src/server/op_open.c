/* SPDX-License-Identifier: BSD-2-Clause */
/* op_open.c - Tlopen and Tlcreate: a fid becomes an open file.
 *
 * iounit is always 0 ("as much as a message carries"): Linux is four times slower with any other answer.
 */
#include "server/internal.h"

static int lopen_start(struct p9_req *r)
{
	uint32_t flags = r->t.tlopen.flags;
	bool writes = (flags & P9_O_ACCMODE) != P9_O_RDONLY || (flags & P9_O_TRUNC);
	if (writes && r->fid->at->ex->conf.ro && !r->fid->at->ex->conf.ro_below) {
		return -P9_EROFS;
	}
	int rc = p9_fid_afford(r->conn);
	return rc < 0 ? rc : r->fid->node->be->open ? 0 : -P9_EOPNOTSUPP;
}

static int lopen_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_rgetattr a;
	struct p9_node *n = r->fid->node;
	int rc = n->be->open(c, n, r->t.tlopen.flags, &r->file);
	rc = rc < 0 ? rc : n->be->getattr(c, n, P9_GETATTR_BASIC, &a);
	r->r.rlopen.qid = a.qid;
	return rc;
}

static int lopen_done(struct p9_req *r)
{
	r->fid->file = r->file;
	r->file = NULL;
	r->r.rlopen.iounit = 0;
	return 0;
}
const struct p9_op p9_op_lopen = { lopen_start, lopen_run, lopen_done, NULL, false };

static int lcreate_start(struct p9_req *r)
{
	int rc = p9_fid_afford(r->conn);
	return rc < 0 ? rc : r->fid->node->be->create ? 0 : -P9_EOPNOTSUPP;
}

static int lcreate_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_node *n = r->fid->node;
	return n->be->create(c, n, &r->t.tlcreate, &r->file, &r->r.rlcreate.qid);
}

static int lcreate_done(struct p9_req *r)
{
	struct p9_fid *f = r->fid;
	p9_node_put(f->node);
	f->node = p9_node_get(r->file->node);
	f->file = r->file;
	r->file = NULL;
	r->r.rlcreate.iounit = 0;
	return 0;
}
const struct p9_op p9_op_lcreate = { lcreate_start, lcreate_run, lcreate_done, NULL, false };
