/* SPDX-License-Identifier: BSD-2-Clause */
/* tree.c - what changes directories: mkdir, mknod, symlink, link, unlink, rmdir, rename.
 *
 * What makes an entry then walks to it and looks at it, all in one go. rename() with flags is EINVAL: 9P can neither
 * exchange names nor refuse to replace one. (A link and an unlink would not replace, but the unlink goes by name, and
 * would remove whatever another client has put there in between.)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include "mount/internal.h"

enum { MAKE_DIR, MAKE_NODE, MAKE_LINK };

uint32_t p9_mreq_gid(const struct p9_mreq *r)
{
	if (r->m->o.set_gid || !r->req) {
		return P9_NONUNAME;
	}
	return r->ino->mode & S_ISGID ? r->ino->gid : fuse_req_ctx(r->req)->gid;
}

/* r->u32: what, mode, device; r->piece: the group. */
static void make_message(struct p9_mreq *r, struct p9_msg *t)
{
	uint32_t fid = r->as != P9_NOFID ? r->as : r->ino->fid, gid = r->piece;
	struct p9_str name = p9_mstr(r->name);
	if (r->u32[0] == MAKE_DIR) {
		*t = (struct p9_msg){ .type = P9_Tmkdir,
				      .tmkdir = { .dfid = fid, .name = name, .mode = r->u32[1], .gid = gid } };
	} else if (r->u32[0] == MAKE_LINK) {
		*t = (struct p9_msg){ .type = P9_Tsymlink,
				      .tsymlink = {
					      .fid = fid, .name = name, .symtgt = p9_mstr(r->text), .gid = gid } };
	} else {
		*t = (struct p9_msg){ .type = P9_Tmknod,
				      .tmknod = { .dfid = fid,
						  .name = name,
						  .mode = r->u32[1],
						  .major = major((dev_t)r->u32[2]),
						  .minor = minor((dev_t)r->u32[2]),
						  .gid = gid } };
	}
}

static int make_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	int rc = 0;
	(void)dst;
	if (i == 0) {
		make_message(r, t);
	} else if (i == 1) {
		rc = p9_mreq_fid(r, 0);
		*t = (struct p9_msg){
			.type = P9_Twalk,
			.twalk = { .fid = r->ino->fid, .newfid = r->fid[0], .wname = { 1, { p9_mstr(r->name) } } }
		};
	} else {
		*t = (struct p9_msg){ .type = P9_Tgetattr,
				      .tgetattr = { .fid = r->fid[0], .request_mask = P9_MOUNT_ATTRS } };
	}
	return rc;
}

static int make_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	if (i == 1) {
		r->qid = reply->rwalk.wqid.v[0];
	}
	if (i != 2) {
		return 0;
	}
	r->attr = reply->rgetattr;
	return p9_mattr_check(&r->attr);
}

static void make_finish(struct p9_mreq *r)
{
	if (r->error) {
		p9_mreq_err(r, r->error);
	} else {
		p9_mreq_found(r);
	}
}

static const struct p9_mop make_op = { .name = "make",
				       .steps = 3,
				       .changes = true,
				       .by_name = true,
				       .build = make_build,
				       .took = make_took,
				       .finish = make_finish };

static void make(struct p9_mreq *r, uint32_t what, uint32_t mode, uint32_t dev)
{
	r->u32[0] = what;
	r->u32[1] = mode;
	r->u32[2] = dev;
	r->piece = p9_mreq_gid(r);
	p9_mreq_as_maker(r, &make_op, &make_op);
}

static void do_mkdir(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode)
{
	struct p9_mreq *r = p9_mreq_name(req, dir, name);
	if (r) {
		make(r, MAKE_DIR, mode & 07777, 0);
	}
}

static void do_mknod(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, dev_t dev)
{
	struct p9_mreq *r = p9_mreq_name(req, dir, name);
	if (r) {
		make(r, MAKE_NODE, mode, (uint32_t)dev);
	}
}

static void do_symlink(fuse_req_t req, const char *target, fuse_ino_t dir, const char *name)
{
	struct p9_mreq *r = p9_mreq_name(req, dir, name);
	if (!r) {
		return;
	}
	r->text = strndup(target, P9_TARGETMAX + 1);
	if (!r->text) {
		p9_mreq_err(r, -P9_ENOMEM);
	} else {
		make(r, MAKE_LINK, 0, 0);
	}
}

/* ---- link: r->ino is the directory, r->dir the file ---- */
static int link_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	(void)dst;
	if (i == 0) {
		*t = (struct p9_msg){ .type = P9_Tlink,
				      .tlink = { .dfid = r->ino->fid, .fid = r->dir->fid, .name = p9_mstr(r->name) } };
	} else {
		*t = (struct p9_msg){ .type = P9_Tgetattr,
				      .tgetattr = { .fid = r->dir->fid, .request_mask = P9_MOUNT_ATTRS } };
	}
	return 0;
}

static int link_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	if (i == 0) {
		return 0;
	}
	r->attr = reply->rgetattr;
	int rc = p9_mattr_check(&r->attr);
	return rc < 0 ? rc : ((r->attr.mode ^ r->dir->mode) & S_IFMT) ? -P9_ESTALE : 0;
}

static void link_finish(struct p9_mreq *r)
{
	if (r->error) {
		p9_mreq_err(r, r->error);
	} else {
		p9_mreq_entry(r, r->dir);
	}
}

/* Two fids are named, and only one of them orders the steps. */
static const struct p9_mop link_op = { .name = "link",
				       .steps = 2,
				       .changes = true,
				       .serial = true,
				       .build = link_build,
				       .took = link_took,
				       .finish = link_finish };

static void second(struct p9_mreq *r, fuse_ino_t ino)
{
	r->dir = p9_minode_of(r->m, ino);
	p9_minode_hold(r->m, r->dir);
}

static void do_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t dir, const char *name)
{
	struct p9_mreq *r = p9_mreq_name(req, dir, name);
	if (r) {
		second(r, ino);
		p9_mreq_begin(r, &link_op);
	}
}

/* ---- unlink, rmdir ---- */
static int unlink_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	(void)i;
	(void)dst;
	*t = (struct p9_msg){ .type = P9_Tunlinkat,
			      .tunlinkat = { .dirfid = r->ino->fid, .name = p9_mstr(r->name), .flags = r->u32[0] } };
	return 0;
}

static void plain_finish(struct p9_mreq *r)
{
	p9_mreq_err(r, r->error);
}

/* For servers that know only the older messages: walk to the entry, then Tremove or Trename that fid. */
static int older_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	(void)dst;
	if (i == 0) {
		int rc = p9_mreq_fid(r, 0);
		*t = (struct p9_msg){
			.type = P9_Twalk,
			.twalk = { .fid = r->ino->fid, .newfid = r->fid[0], .wname = { 1, { p9_mstr(r->name) } } }
		};
		return rc;
	}
	if (r->dir) {
		*t = (struct p9_msg){ .type = P9_Trename,
				      .trename = { .fid = r->fid[0], .dfid = r->dir->fid, .name = p9_mstr(r->text) } };
	} else {
		*t = (struct p9_msg){ .type = P9_Tremove, .tremove = { .fid = r->fid[0] } };
	}
	return 0;
}

static const struct p9_mop remove_op = {
	.name = "unlink", .steps = 2, .changes = true, .serial = true, .build = older_build, .finish = plain_finish
};

static void unlink_finish(struct p9_mreq *r)
{
	if (r->error == -P9_EOPNOTSUPP && !p9_client_dead(r->m->client)) {
		r->m->older = true;
		p9_mreq_chain(r, &remove_op);
	} else {
		p9_mreq_err(r, r->error);
	}
}

static const struct p9_mop unlink_op = {
	.name = "unlink", .steps = 1, .changes = true, .build = unlink_build, .finish = unlink_finish
};

static void remove_entry(struct p9_mreq *r, uint32_t flags)
{
	r->u32[0] = flags;
	p9_mreq_begin(r, r->m->older ? &remove_op : &unlink_op);
}

static void do_unlink(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	struct p9_mreq *r = p9_mreq_name(req, dir, name);
	if (r) {
		remove_entry(r, 0);
	}
}

static void do_rmdir(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	struct p9_mreq *r = p9_mreq_name(req, dir, name);
	if (r) {
		remove_entry(r, P9_DOTL_AT_REMOVEDIR);
	}
}

/* ---- rename: r->ino and r->name to r->dir and r->text ---- */
static int rename_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	(void)i;
	(void)dst;
	*t = (struct p9_msg){ .type = P9_Trenameat,
			      .trenameat = { .olddirfid = r->ino->fid,
					     .oldname = p9_mstr(r->name),
					     .newdirfid = r->dir->fid,
					     .newname = p9_mstr(r->text) } };
	return 0;
}

static int rename_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	struct p9_minode *moved = p9_minode_named(r->m, r->ino, r->name, strlen(r->name));
	(void)i;
	(void)reply;
	if (moved) {
		p9_minode_place(r->m, moved, r->dir, r->text, strlen(r->text));
	}
	return 0;
}

/* Such a server knows fids by their paths, which are now others: all are walked to again. */
static void move_finish(struct p9_mreq *r)
{
	if (!r->error) {
		p9_minode_lose(r->m);
	}
	p9_mreq_err(r, r->error);
}

static int move_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	return i == 1 ? rename_took(r, i, reply) : 0;
}

static const struct p9_mop move_op = { .name = "rename",
				       .steps = 2,
				       .changes = true,
				       .serial = true,
				       .build = older_build,
				       .took = move_took,
				       .finish = move_finish };

static void rename_finish(struct p9_mreq *r)
{
	if (r->error == -P9_EOPNOTSUPP && !p9_client_dead(r->m->client)) {
		r->m->older = true;
		p9_mreq_chain(r, &move_op);
	} else {
		p9_mreq_err(r, r->error);
	}
}

static const struct p9_mop rename_op = { .name = "rename",
					 .steps = 1,
					 .changes = true,
					 .build = rename_build,
					 .took = rename_took,
					 .finish = rename_finish };

static void do_rename(fuse_req_t req, fuse_ino_t dir, const char *name, fuse_ino_t newdir, const char *newname,
		      unsigned flags)
{
	if (flags || strlen(newname) > P9_NAMEMAX) {
		fuse_reply_err(req, flags ? EINVAL : ENAMETOOLONG);
		return;
	}
	struct p9_mreq *r = p9_mreq_name(req, dir, name);
	if (!r) {
		return;
	}
	second(r, newdir);
	r->text = strdup(newname);
	if (!r->text) {
		p9_mreq_err(r, -P9_ENOMEM);
	} else {
		p9_mreq_begin(r, r->m->older ? &move_op : &rename_op);
	}
}

void p9_mop_tree(struct fuse_lowlevel_ops *ops)
{
	ops->mkdir = do_mkdir;
	ops->mknod = do_mknod;
	ops->symlink = do_symlink;
	ops->link = do_link;
	ops->unlink = do_unlink;
	ops->rmdir = do_rmdir;
	ops->rename = do_rename;
}
