/* SPDX-License-Identifier: BSD-2-Clause */
/* xattr.c - extended attributes.
 *
 * Reading: Txattrwalk makes a fid that is read like a file. Writing: Txattrcreate turns a fid into one that is written;
 * Tclunk sets it and says whether that worked. Removing is, as Linux does it, a replacement by nothing.
 * The kernel asks for security.capability at every write. Once the server has said that it has none of that kind, the
 * question stays here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "mount/internal.h"

/* ---- get and list: r->name is the attribute, or empty; r->size the kernel's room, 0 for "how much?" ---- */
static int walk_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	(void)i;
	(void)dst;
	int rc = p9_mreq_fid(r, 0);
	*t = (struct p9_msg){ .type = P9_Txattrwalk,
			      .txattrwalk = { .fid = r->ino->fid, .newfid = r->fid[0], .name = p9_mstr(r->name) } };
	return rc;
}

static int walk_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	(void)i;
	r->off = reply->rxattrwalk.size;
	return r->off <= P9_XATTR_MAX ? 0 : -P9_E2BIG;
}

static int value_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	uint32_t left = (uint32_t)(r->off - r->done), most = p9_client_iosize(r->m->client, 0);
	(void)i;
	*dst = r->buf + r->done;
	*t = (struct p9_msg){ .type = P9_Tread,
			      .tread = { .fid = r->fid[0], .offset = r->done, .count = left < most ? left : most } };
	return 0;
}

static int value_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	(void)i;
	r->done += reply->rread.data.len;
	return reply->rread.data.len ? 0 : -P9_EIO; /* less than it said */
}

static void value_finish(struct p9_mreq *r);
static const struct p9_mop value_op = {
	.name = "xattr", .steps = 1, .build = value_build, .took = value_took, .finish = value_finish
};

static void value_finish(struct p9_mreq *r)
{
	if (r->error) {
		p9_mreq_err(r, r->error);
	} else if (r->done < r->off) {
		p9_mreq_chain(r, &value_op);
	} else {
		p9_mreq_buf(r, r->buf, r->done);
	}
}

static bool security(const char *name)
{
	return strncmp(name, "security.", 9) == 0;
}

static void walk_finish(struct p9_mreq *r)
{
	if (r->error == -P9_EOPNOTSUPP && security(r->name)) {
		r->m->no_security = true;
	}
	if (!r->error && r->size == 0) {
		if (r->req) {
			fuse_reply_xattr(r->req, (size_t)r->off);
			r->req = NULL;
		}
		p9_mreq_err(r, 0);
		return;
	}
	if (!r->error && r->off > r->size) {
		r->error = -P9_ERANGE;
	}
	if (!r->error && !p9_mreq_buffer(r, r->off ? r->off : 1)) {
		r->error = -P9_ENOMEM;
	}
	value_finish(r);
}

static const struct p9_mop walk_op = {
	.name = "xattrwalk", .steps = 1, .build = walk_build, .took = walk_took, .finish = walk_finish
};

static void get(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct p9_mreq *r = p9_mreq_name(req, ino, name);
	if (r) {
		r->size = size;
		p9_mreq_begin(r, &walk_op);
	}
}

static void do_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct p9_mount *m = fuse_req_userdata(req);
	if (m->no_security && security(name)) {
		fuse_reply_err(req, EOPNOTSUPP);
	} else {
		get(req, ino, name, size);
	}
}

static void do_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	get(req, ino, "", size);
}

/* ---- set and remove: the value is r->data, r->size; r->u32[0] the flags ----
 * To servers a size of 0 means "remove", unless the flags say that there is nothing to be removed. So an empty value takes
 * two steps. */
enum { EMPTY_NOT, EMPTY_REPLACE, EMPTY_ANY };

static int create_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	int rc = 0;
	(void)dst;
	if (i == 0) {
		rc = p9_mreq_fid(r, 0);
		*t = (struct p9_msg){ .type = P9_Twalk, .twalk = { .fid = r->ino->fid, .newfid = r->fid[0] } };
	} else {
		*t = (struct p9_msg){ .type = P9_Txattrcreate,
				      .txattrcreate = { .fid = r->fid[0],
							.name = p9_mstr(r->name),
							.attr_size = r->size,
							.flags = r->u32[0] } };
	}
	return rc;
}

/* Some of the value, or the end of it. */
static int store_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	uint32_t left = (uint32_t)(r->size - r->done), most = p9_client_iosize(r->m->client, 0);
	(void)i;
	(void)dst;
	if (left == 0) {
		*t = (struct p9_msg){ .type = P9_Tclunk, .tclunk = { .fid = r->fid[0] } };
	} else {
		*t = (struct p9_msg){ .type = P9_Twrite,
				      .twrite = { .fid = r->fid[0],
						  .offset = r->done,
						  .data = { left < most ? left : most,
							    (const uint8_t *)r->text + r->done } } };
	}
	return 0;
}

static int store_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	(void)i;
	if (reply->type == P9_Rclunk) {
		r->u32[1] = true;
		return 0;
	}
	r->done += reply->rwrite.count;
	return reply->rwrite.count ? 0 : -P9_EIO;
}

static void store_finish(struct p9_mreq *r);
static const struct p9_mop store_op = {
	.name = "xattr", .steps = 1, .build = store_build, .took = store_took, .finish = store_finish
};

static const struct p9_mop create_op;

/* What was there is removed (u32[2]: EMPTY_...), and now an empty one is made. */
static bool then_empty(struct p9_mreq *r)
{
	bool gone = r->error ? r->error == -P9_ENODATA && r->u32[2] == EMPTY_ANY : r->u32[1];
	if (!r->u32[2] || !gone) {
		return false;
	}
	r->u32[0] = P9_XATTR_CREATE;
	r->u32[1] = r->u32[2] = 0;
	p9_mreq_chain(r, &create_op);
	return true;
}

static void store_finish(struct p9_mreq *r)
{
	if (then_empty(r)) {
		return;
	}
	if (r->error || r->u32[1]) {
		p9_mreq_err(r, r->error);
	} else {
		p9_mreq_chain(r, &store_op);
	}
}

static const struct p9_mop create_op = {
	.name = "xattrcreate", .steps = 2, .build = create_build, .finish = store_finish
};

static void set(fuse_req_t req, fuse_ino_t ino, const char *name, const struct p9_data *value, uint32_t flags,
		unsigned empty)
{
	struct p9_mreq *r = p9_mreq_name(req, ino, name);
	if (!r) {
		return;
	}
	r->size = value->len;
	r->u32[0] = flags;
	r->u32[2] = empty;
	r->text = malloc(r->size ? r->size : 1);
	if (!r->text) {
		p9_mreq_err(r, -P9_ENOMEM);
		return;
	}
	if (value->len) {
		memcpy(r->text, value->p, value->len);
	}
	p9_mreq_begin(r, &create_op);
}

static void do_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	struct p9_data d = { (uint32_t)size, (const uint8_t *)value };
	if (size > P9_XATTR_MAX) {
		fuse_reply_err(req, E2BIG);
	} else {
		uint32_t known = (uint32_t)flags & (P9_XATTR_CREATE | P9_XATTR_REPLACE);
		bool two = size == 0 && !(known & P9_XATTR_CREATE);
		set(req, ino, name, &d, two ? P9_XATTR_REPLACE : known,
		    !two    ? EMPTY_NOT
		    : known ? EMPTY_REPLACE
			    : EMPTY_ANY);
	}
}

static void do_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	static const struct p9_data nothing;
	set(req, ino, name, &nothing, P9_XATTR_REPLACE, EMPTY_NOT);
}

void p9_mop_xattr(struct fuse_lowlevel_ops *ops)
{
	ops->getxattr = do_getxattr;
	ops->listxattr = do_listxattr;
	ops->setxattr = do_setxattr;
	ops->removexattr = do_removexattr;
}
