/* SPDX-License-Identifier: BSD-2-Clause */
/* op_tree.c - operations that make, move and remove entries. Names were checked, both fids are live; what is left is
 * that two fids of one message must belong to one export (else EXDEV), and the call.
 */
#include "server/internal.h"

static int same_tree(const struct p9_req *r)
{
	return r->fid->at->ex == r->fid2->at->ex ? 0 : -P9_EXDEV;
}

#define HAS(op) (r->fid->node->be->op ? 0 : -P9_EOPNOTSUPP)

static int symlink_start(struct p9_req *r)
{
	return HAS(symlink);
}
static int symlink_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_node *n = r->fid->node;
	return n->be->symlink(c, n, &r->t.tsymlink, &r->r.rsymlink.qid);
}
const struct p9_op p9_op_symlink = { symlink_start, symlink_run, NULL, NULL, false };

static int mknod_start(struct p9_req *r)
{
	return HAS(mknod);
}
static int mknod_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_node *n = r->fid->node;
	return n->be->mknod(c, n, &r->t.tmknod, &r->r.rmknod.qid);
}
const struct p9_op p9_op_mknod = { mknod_start, mknod_run, NULL, NULL, false };

static int mkdir_start(struct p9_req *r)
{
	return HAS(mkdir);
}
static int mkdir_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_node *n = r->fid->node;
	return n->be->mkdir(c, n, &r->t.tmkdir, &r->r.rmkdir.qid);
}
const struct p9_op p9_op_mkdir = { mkdir_start, mkdir_run, NULL, NULL, false };

static int link_start(struct p9_req *r)
{
	int rc = same_tree(r);
	return rc < 0 ? rc : HAS(link);
}
static int link_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_node *dir = r->fid->node;
	return dir->be->link(c, dir, r->fid2->node, r->t.tlink.name);
}
const struct p9_op p9_op_link = { link_start, link_run, NULL, NULL, false };

static int rename_start(struct p9_req *r)
{
	int rc = same_tree(r);
	return rc < 0 ? rc : HAS(rename);
}
static int rename_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_node *n = r->fid->node;
	return n->be->rename(c, n, r->fid2->node, r->t.trename.name);
}
const struct p9_op p9_op_rename = { rename_start, rename_run, NULL, NULL, false };

static int renameat_start(struct p9_req *r)
{
	int rc = same_tree(r);
	return rc < 0 ? rc : HAS(renameat);
}
static int renameat_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_node *from = r->fid->node;
	return from->be->renameat(c, from, r->fid2->node, &r->t.trenameat);
}
const struct p9_op p9_op_renameat = { renameat_start, renameat_run, NULL, NULL, false };

static int unlinkat_start(struct p9_req *r)
{
	return HAS(unlinkat);
}
static int unlinkat_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_node *n = r->fid->node;
	return n->be->unlinkat(c, n, r->t.tunlinkat.name, r->t.tunlinkat.flags);
}
const struct p9_op p9_op_unlinkat = { unlinkat_start, unlinkat_run, NULL, NULL, false };
