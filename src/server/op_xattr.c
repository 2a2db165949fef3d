/* SPDX-License-Identifier: BSD-2-Clause */
/* op_xattr.c - Txattrwalk and Txattrcreate: an extended attribute as a small file in memory.
 *
 * Walk reads the value (or the list of names) at once, so that size and bytes belong together; create collects what is
 * written and Tclunk sets it (op_session.c). A connection may hold P9_XATTR_FIDS_MAX of them, of P9_XATTR_MAX bytes.
 */
#include <stdlib.h>
#include <string.h>
#include "server/internal.h"

static int xattr_new(struct p9_req *r, uint32_t size, struct p9_str name)
{
	struct p9_xattr *x;
	if (atomic_fetch_add(&r->conn->nxattr, 1) >= P9_XATTR_FIDS_MAX) {
		atomic_fetch_sub(&r->conn->nxattr, 1);
		return -P9_EMFILE;
	}
	x = calloc(1, sizeof(*x));
	if (x && size) {
		x->value = calloc(1, size);
	}
	if (!x || (size && !x->value)) {
		atomic_fetch_sub(&r->conn->nxattr, 1);
		free(x);
		return -P9_ENOMEM;
	}
	x->size = size;
	x->name_len = name.len;
	if (name.len) {
		memcpy(x->name, name.s, name.len);
	}
	r->xattr = x;
	return 0;
}

static int xattrwalk_start(struct p9_req *r)
{
	if (r->fid->xattr) {
		return -P9_EINVAL;
	}
	return r->fid->node->be->getxattr ? 0 : -P9_EOPNOTSUPP;
}

static int xattrwalk_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_node *n = r->fid->node;
	struct p9_str name = r->t.txattrwalk.name;
	int rc = r->xattr ? 0 : xattr_new(r, P9_XATTR_MAX, name);
	if (rc < 0) {
		return rc;
	}
	rc = n->be->getxattr(c, n, name, r->xattr->value, P9_XATTR_MAX);
	if (rc < 0) {
		return rc == -P9_ERANGE ? -P9_E2BIG : rc;
	}
	r->xattr->size = (uint32_t)rc;
	uint8_t *less = rc ? realloc(r->xattr->value, (size_t)rc) : NULL;
	if (less) {
		r->xattr->value = less;
	}
	r->r.rxattrwalk.size = (uint64_t)rc;
	return 0;
}

static int xattrwalk_done(struct p9_req *r)
{
	struct p9_fid *f;
	int rc = p9_fid_place(r, &f);
	if (rc < 0) {
		return rc;
	}
	f->node = p9_node_get(r->fid->node);
	f->at = r->fid->at;
	atomic_fetch_add_explicit(&f->at->refs, 1, memory_order_relaxed);
	f->xattr = r->xattr;
	r->xattr = NULL;
	return 0;
}
const struct p9_op p9_op_xattrwalk = { xattrwalk_start, xattrwalk_run, xattrwalk_done, NULL, false };

static int xattrcreate_start(struct p9_req *r)
{
	const struct p9_txattrcreate *m = &r->t.txattrcreate;
	if (!r->fid->node->be->setxattr) {
		return -P9_EOPNOTSUPP;
	}
	if (r->fid->at->ex->conf.ro) {
		return -P9_EROFS; /* said now, not at the clunk that would set it */
	}
	if (m->attr_size > P9_XATTR_MAX) {
		return -P9_E2BIG;
	}
	int rc = xattr_new(r, (uint32_t)m->attr_size, m->name);
	if (rc < 0) {
		return rc;
	}
	r->xattr->writing = true;
	r->xattr->flags = m->flags;
	r->fid->xattr = r->xattr;
	r->xattr = NULL;
	return P9_NOW;
}
const struct p9_op p9_op_xattrcreate = { xattrcreate_start, NULL, NULL, NULL, false };
