/* SPDX-License-Identifier: BSD-2-Clause */
/* op_attr.c - Tgetattr, Tsetattr, Tstatfs, Treadlink. */
#include <stdlib.h>
#include "server/internal.h"

static int getattr_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_node *n = r->fid->node;
	return n->be->getattr(c, n, r->t.tgetattr.request_mask, &r->r.rgetattr);
}
const struct p9_op p9_op_getattr = { NULL, getattr_run, NULL, NULL, false };

static int setattr_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_node *n = r->fid->node;
	return n->be->setattr ? n->be->setattr(c, n, r->fid->file, &r->t.tsetattr) : -P9_EOPNOTSUPP;
}
const struct p9_op p9_op_setattr = { NULL, setattr_run, NULL, NULL, false };

static int statfs_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_node *n = r->fid->node;
	return n->be->statfs ? n->be->statfs(c, n, &r->r.rstatfs) : -P9_EOPNOTSUPP;
}
const struct p9_op p9_op_statfs = { NULL, statfs_run, NULL, NULL, false };

static int readlink_start(struct p9_req *r)
{
	r->text = malloc(P9_TARGETMAX + 1);
	return r->text ? 0 : -P9_ENOMEM;
}

static int readlink_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_node *n = r->fid->node;
	int len = n->be->readlink ? n->be->readlink(c, n, r->text, P9_TARGETMAX) : -P9_EINVAL;
	r->r.rreadlink.target = (struct p9_str){ r->text, len < 0 ? 0 : (uint16_t)len };
	return len < 0 ? len : 0;
}
const struct p9_op p9_op_readlink = { readlink_start, readlink_run, NULL, NULL, false };
