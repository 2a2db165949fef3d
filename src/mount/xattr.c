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

/* ---- what files do not have ----
 * Programs such as ls(1) ask every file for the same few attributes, which hardly any file has. The last two names that
 * were asked for in vain are asked for with a readdirplus (dir.c), and such answers are believed like attributes. */
#define ASKED_MS 1000u

static uint64_t lifetime(const struct p9_mount *m)
{
	double s = p9_mount_attr_timeout(m);
	return s <= 0 ? 0 : s < 1.0 ? (uint64_t)(s * 1000) : 1000;
}

unsigned p9_mabsent_names(const struct p9_mount *m)
{
	uint64_t now = p9_mount_now();
	unsigned n = 0;
	while (lifetime(m) && n < P9_COUNT(m->xnames) && m->xnames[n].error && now - m->xnames[n].when < ASKED_MS) {
		n++;
	}
	return n;
}

void p9_mabsent_set(struct p9_mount *m, struct p9_minode *i, uint8_t mask, uint64_t changes)
{
	uint64_t now = p9_mount_now();
	bool old = i->absent_epoch != m->xepoch || i->absent_changes != changes || now - i->absent_when >= lifetime(m);
	if (mask) {
		i->absent = old ? mask : i->absent | mask;
		i->absent_when = old ? now : i->absent_when;
		i->absent_epoch = m->xepoch;
		i->absent_changes = changes;
	}
}

static int slot_of(const struct p9_mount *m, const char *name)
{
	for (unsigned k = 0; k < P9_COUNT(m->xnames); k++) {
		if (m->xnames[k].error && strcmp(m->xnames[k].name, name) == 0) {
			return (int)k;
		}
	}
	return -1;
}

/* A file did not have it. */
static void note_absent(struct p9_mreq *r)
{
	struct p9_mount *m = r->m;
	int k = slot_of(m, r->name);
	if (r->name[0] == 0 || strlen(r->name) >= sizeof(m->xnames[0].name) || !r->ino->hashed) {
		return;
	}
	if (k < 0 || m->xnames[k].error != r->error) {
		bool first = !m->xnames[0].error || (m->xnames[1].error && m->xnames[0].when <= m->xnames[1].when);
		k = k >= 0 ? k : first ? 0 : 1;
		strcpy(m->xnames[k].name, r->name);
		m->xnames[k].error = r->error;
		m->xnames[k].of[0] = m->xnames[k].of[1] = false;
		m->xepoch++;
	}
	m->xnames[k].of[S_ISDIR(r->ino->mode)] = true;
	m->xnames[k].when = p9_mount_now();
	if (r->changes == m->xchanges) {
		p9_mabsent_set(m, r->ino, (uint8_t)(1u << k), r->changes);
	}
}

/* The error for a question whose answer is known, or 0. */
static int known_absent(struct p9_mount *m, const struct p9_minode *i, const char *name)
{
	int k = slot_of(m, name);
	bool known = k >= 0 && (i->absent >> k & 1) && i->absent_epoch == m->xepoch &&
		     i->absent_changes == m->xchanges && p9_mount_now() - i->absent_when < lifetime(m);
	if (known) {
		m->xnames[k].when = p9_mount_now();
	}
	return known ? m->xnames[k].error : 0;
}

static void walk_finish(struct p9_mreq *r)
{
	if (r->error == -P9_ENODATA || r->error == -P9_EOPNOTSUPP) {
		note_absent(r);
	}
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
		r->changes = r->m->xchanges;
		p9_mreq_begin(r, &walk_op);
	}
}

static void do_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct p9_mount *m = fuse_req_userdata(req);
	int error = known_absent(m, p9_minode_of(m, ino), name);
	if (m->no_security && security(name)) {
		fuse_reply_err(req, EOPNOTSUPP);
	} else if (error) {
		fuse_reply_err(req, p9_mount_errno(m, error));
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
	.name = "xattr", .steps = 1, .changes = true, .build = store_build, .took = store_took, .finish = store_finish
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
	.name = "xattrcreate", .steps = 2, .changes = true, .build = create_build, .finish = store_finish
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
