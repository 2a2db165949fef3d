/* SPDX-License-Identifier: BSD-2-Clause */
/* open.c - handles: open, create, opendir, release.
 *
 * A handle is a second fid of the file, opened; the inode's own is never opened. Close-to-open: what the kernel has
 * cached of a file is kept at an open only when size, times and version are what they were when it began to cache, and
 * attributes that have changed are taken from it before the open is answered.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "mount/internal.h"

struct p9_mhandle *p9_mhandle_new(struct p9_minode *ino, uint32_t fid, uint32_t flags)
{
	struct p9_mhandle *h = calloc(1, sizeof(*h));
	if (h) {
		h->ino = ino;
		h->fid = fid;
		h->flags = flags;
		h->refs = 1;
		h->next = ino->handles;
		ino->handles = h;
		p9_minode_ref(ino);
	}
	return h;
}

void p9_mhandle_behead(struct p9_mount *m, struct p9_mhandle *h)
{
	if (h->head) {
		m->heads -= h->head_len;
		free(h->head);
		h->head = NULL;
	}
}

void p9_mhandle_put(struct p9_mount *m, struct p9_mhandle *h)
{
	if (--h->refs > 0) {
		return;
	}
	struct p9_mhandle **p = &h->ino->handles;
	while (*p != h) {
		p = &(*p)->next;
	}
	*p = h->next;
	p9_mount_clunk(m, h->fid);
	p9_mhandle_behead(m, h);
	p9_minode_unref(m, h->ino);
	free(h->ents);
	free(h);
}

/* The host's open flags as the wire has them. O_DIRECT is between the program and the kernel here. */
static uint32_t wire_flags(int flags)
{
	static const struct {
		int host;
		uint32_t wire;
	} map[] = { { O_EXCL, P9_O_EXCL },	   { O_TRUNC, P9_O_TRUNC },	{ O_APPEND, P9_O_APPEND },
		    { O_NONBLOCK, P9_O_NONBLOCK }, { O_NOATIME, P9_O_NOATIME }, { O_DIRECTORY, P9_O_DIRECTORY } };
	uint32_t w = (flags & O_ACCMODE) == O_RDWR     ? P9_O_RDWR
		     : (flags & O_ACCMODE) == O_WRONLY ? P9_O_WRONLY
						       : P9_O_RDONLY;
	for (size_t i = 0; i < P9_COUNT(map); i++) {
		w |= flags & map[i].host ? map[i].wire : 0;
	}
	w |= (flags & O_SYNC) == O_SYNC ? P9_O_SYNC : 0; /* O_SYNC contains O_DSYNC */
	return w | (flags & O_DSYNC ? P9_O_DSYNC : 0);
}

/* A kernel that gathers writes reads the pages around them, and knows better where the end is. */
static uint32_t writeback_flags(const struct p9_mount *m, uint32_t flags)
{
	if (!m->o.writeback) {
		return flags;
	}
	if ((flags & P9_O_ACCMODE) == P9_O_WRONLY) {
		flags = (flags & ~(uint32_t)P9_O_ACCMODE) | P9_O_RDWR;
	}
	return flags & ~(uint32_t)P9_O_APPEND;
}

/* ---- open: r->u32[0] are the flags ----
 * Who opens a small file to read it will read all of it: that goes with the open, unless the kernel has it. */
#define HEAD_MOST (32u * 1024)
#define HEAD_MORE 64u		    /* asked for beyond the end as it is known, so that a short answer is the end */
#define HEADS_MOST (4u << 20) /* bytes, of all files */

static bool wants_head(const struct p9_mreq *r)
{
	const struct p9_minode *i = r->ino;
	const struct p9_mount *m = r->m;
	bool kept = i->content && p9_mstamp_same(&i->cached, &i->told);
	return m->o.cache == P9_CACHE_ATTR && m->ordered && !r->serial && S_ISREG(i->mode) && !kept &&
	       (r->u32[0] & (P9_O_ACCMODE | P9_O_TRUNC | P9_O_APPEND)) == P9_O_RDONLY && !(r->fi.flags & O_DIRECT) &&
	       i->size > 0 && i->size <= HEAD_MOST && i->size + HEAD_MORE <= p9_client_iosize(m->client, 0) &&
	       m->heads < HEADS_MOST;
}

static int open_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	(void)dst;
	if (i == 0) {
		int rc = p9_mreq_fid(r, 0);
		*t = (struct p9_msg){ .type = P9_Twalk, .twalk = { .fid = r->ino->fid, .newfid = r->fid[0] } };
		return rc;
	}
	if (i == 1) {
		*t = (struct p9_msg){ .type = P9_Tlopen, .tlopen = { .fid = r->fid[0], .flags = r->u32[0] } };
		return 0;
	}
	if (i == 2) {
		*t = (struct p9_msg){ .type = P9_Tgetattr,
				      .tgetattr = { .fid = r->fid[0], .request_mask = P9_MOUNT_ATTRS } };
		return r->m->o.cache == P9_CACHE_ATTR ? 0 : P9_MSKIP;
	}
	r->buf = r->buf || !wants_head(r) ? r->buf : p9_mreq_buffer(r, r->ino->size + HEAD_MORE);
	*dst = r->buf;
	*t = (struct p9_msg){ .type = P9_Tread,
			      .tread = { .fid = r->fid[0], .offset = 0, .count = (uint32_t)r->ino->size + HEAD_MORE } };
	r->size = t->tread.count;
	return r->buf ? 0 : P9_MSKIP;
}

static int open_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	if (i == 1) {
		r->qid = reply->rlopen.qid;
		r->piece = p9_client_iosize(r->m->client, reply->rlopen.iounit);
		return r->qid.path == r->ino->path && r->qid.type == r->ino->qtype ? 0 : -P9_ESTALE;
	}
	if (i == 2) {
		r->attr = reply->rgetattr;
		return p9_mattr_check(&r->attr);
	}
	r->done = i == 3 ? reply->rread.data.len : 0;
	return 0;
}

/* What was read with the open stays with the handle if it is all of the file. */
static void keep_head(struct p9_mreq *r, struct p9_mhandle *h)
{
	if (r->buf && !r->calls[3].error && r->done < r->size && r->done >= r->attr.size &&
	    r->changes == r->m->changes) {
		h->head = r->buf;
		h->head_len = (uint32_t)r->done;
		h->head_changes = r->m->changes;
		h->head_when = p9_mount_now();
		r->m->heads += h->head_len;
		r->buf = NULL;
		r->buf_kind = P9_BUF_NONE;
	}
}

/* Where appended bytes land only the server knows. A kernel that gathers writes knows size and time better, and loses them
 * when it is bypassed; O_DIRECT it can do by itself. */
static bool past_cache(const struct p9_mreq *r)
{
	return !r->m->o.writeback && ((r->fi.flags & O_DIRECT) || (r->u32[0] & P9_O_APPEND));
}

/* What the kernel may keep of its caches. */
static void judge_caches(struct p9_mreq *r)
{
	struct p9_mount *m = r->m;
	struct p9_minode *i = r->ino;
	r->fi.direct_io = past_cache(r);
	r->fi.keep_cache = m->o.cache == P9_CACHE_LOOSE;
	if (m->o.cache != P9_CACHE_ATTR || S_ISDIR(i->mode)) {
		return;
	}
	struct p9_mstamp now = p9_mattr_stamp(&r->attr);
	r->fi.keep_cache = p9_mstamp_same(&now, &i->cached) && !(r->u32[0] & P9_O_TRUNC);
	i->cached = now;
	i->content = i->content && r->fi.keep_cache;
	i->size = now.size;
	if (!p9_mstamp_same(&now, &i->told)) {
		i->told = now;
		fuse_lowlevel_notify_inval_inode(m->se, p9_minode_id(m, i), -1, 0);
	}
}

/* The opened fid becomes a handle. NULL without memory. */
static struct p9_mhandle *handle(struct p9_mreq *r)
{
	struct p9_mhandle *h = p9_mhandle_new(r->ino, r->fid[0], r->u32[0]);
	if (h) {
		p9_mreq_take(r, r->fid[0]);
		h->iosize = r->piece;
		r->fi.fh = (uint64_t)(uintptr_t)h;
	}
	return h;
}

static void open_finish(struct p9_mreq *r)
{
	bool forced = r->u32[0] != r->u32[1];
	if (forced && r->error == -P9_EACCES) { /* it may be written and not read */
		r->u32[0] = r->u32[1];
		p9_mreq_chain(r, r->op);
		return;
	}
	if (r->error && r->failed == 3) { /* that can wait until somebody reads */
		r->error = 0;
	}
	struct p9_mhandle *h = r->error || !r->req ? NULL : handle(r);
	if (!h) {
		p9_mreq_err(r, r->error ? r->error : -P9_ENOMEM);
		return;
	}
	judge_caches(r);
	keep_head(r, h);
	if (fuse_reply_open(r->req, &r->fi) < 0) {
		p9_mhandle_put(r->m, h);
	}
	r->req = NULL;
	p9_mreq_free(r);
}

static const struct p9_mop open_op = {
	.name = "open", .steps = 4, .build = open_build, .took = open_took, .finish = open_finish
};
static const struct p9_mop cut_op = {
	.name = "open", .steps = 3, .changes = true, .build = open_build, .took = open_took, .finish = open_finish
};
static const struct p9_mop opendir_op = {
	.name = "opendir", .steps = 2, .build = open_build, .took = open_took, .finish = open_finish
};

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct p9_mreq *r = p9_mreq_ino(req, ino);
	if (r) {
		r->fi = *fi;
		r->u32[1] = wire_flags(fi->flags);
		r->u32[0] = writeback_flags(r->m, r->u32[1]);
		r->changes = r->m->changes;
		p9_mreq_begin(r, r->u32[0] & P9_O_TRUNC ? &cut_op : &open_op);
	}
}

static void do_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct p9_mreq *r = p9_mreq_ino(req, ino);
	if (r) {
		r->fi = *fi;
		r->fi.cache_readdir = r->m->o.cache == P9_CACHE_LOOSE;
		r->u32[0] = r->u32[1] = P9_O_RDONLY | P9_O_DIRECTORY;
		p9_mreq_begin(r, &opendir_op);
	}
}

/* ---- create: fid[0] becomes the open file, fid[1] its inode's ---- */
static int create_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	int rc = 0;
	(void)dst;
	switch (i) {
	case 0:
		rc = p9_mreq_fid(r, 0);
		*t = (struct p9_msg){ .type = P9_Twalk, .twalk = { .fid = r->ino->fid, .newfid = r->fid[0] } };
		return rc;
	case 1:
		*t = (struct p9_msg){ .type = P9_Tlcreate,
				      .tlcreate = { .fid = r->fid[0],
						    .name = p9_mstr(r->name),
						    .flags = r->u32[0],
						    .mode = r->u32[2],
						    .gid = (uint32_t)r->off } };
		return 0;
	case 2:
		rc = p9_mreq_fid(r, 1);
		*t = (struct p9_msg){ .type = P9_Twalk, .twalk = { .fid = r->fid[0], .newfid = r->fid[1] } };
		return rc;
	default:
		*t = (struct p9_msg){ .type = P9_Tgetattr,
				      .tgetattr = { .fid = r->fid[0], .request_mask = P9_MOUNT_ATTRS } };
		return 0;
	}
}

static int create_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	if (i == 1) {
		r->qid = reply->rlcreate.qid;
		r->piece = p9_client_iosize(r->m->client, reply->rlcreate.iounit);
	}
	if (i == 3) {
		r->attr = reply->rgetattr;
		return p9_mattr_check(&r->attr);
	}
	return 0;
}

static void create_finish(struct p9_mreq *r);
static const struct p9_mop create_op = { .name = "create",
					 .steps = 4,
					 .changes = true,
					 .build = create_build,
					 .took = create_took,
					 .finish = create_finish };

/* For servers that let nobody walk from an open fid: the new file's second fid by its name. */
static int named_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	if (i == 1) {
		return create_build(r, 3, t, dst);
	}
	int rc = p9_mreq_fid(r, 1);
	*t = (struct p9_msg){ .type = P9_Twalk,
			      .twalk = {
				      .fid = r->ino->fid, .newfid = r->fid[1], .wname = { 1, { p9_mstr(r->name) } } } };
	return rc;
}

static int named_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	if (i == 1) {
		return create_took(r, 3, reply);
	}
	return reply->rwalk.wqid.v[0].path == r->qid.path ? 0 : -P9_ESTALE;
}

/* As its maker: the inode's fid comes from our own attach, so by name. */
static int made_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	int rc = i == 2 ? named_build(r, 0, t, dst) : create_build(r, i, t, dst);
	if (i == 0) {
		t->twalk.fid = r->as;
	}
	return rc;
}

static int made_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	return i == 2 ? named_took(r, 0, reply) : create_took(r, i, reply);
}

static void created(struct p9_mreq *r);
static const struct p9_mop made_op = { .name = "create as",
				       .steps = 4,
				       .changes = true,
				       .by_name = true,
				       .build = made_build,
				       .took = made_took,
				       .finish = created };
static const struct p9_mop named_op = {
	.name = "create", .steps = 2, .changes = true, .build = named_build, .took = named_took, .finish = created
};

static void create_finish(struct p9_mreq *r)
{
	if (r->error && r->failed == 2 && !p9_client_dead(r->m->client)) {
		p9_mreq_chain(r, &named_op);
	} else {
		created(r);
	}
}

/* The reply counts the lookup and opens the handle, or neither when the program is gone. */
static void reply_create(struct p9_mreq *r, struct p9_mhandle *h)
{
	struct fuse_entry_param e;
	struct p9_minode *i = h->ino;
	p9_mentry_fill(r->m, i, &r->attr, &e);
	r->fi.direct_io = past_cache(r);
	i->cached = i->told;
	p9_minode_looked(r->m, i);
	if (fuse_reply_create(r->req, &e, &r->fi) < 0) {
		p9_minode_forget(r->m, i, 1);
		p9_mhandle_put(r->m, h);
	}
	r->req = NULL;
}

static void created(struct p9_mreq *r)
{
	struct p9_mount *m = r->m;
	bool lie = r->qid.path != r->attr.qid.path || r->qid.type != r->attr.qid.type || !S_ISREG(r->attr.mode);
	if (r->error || lie || !r->req) {
		p9_mreq_err(r, r->error ? r->error : -P9_EIO);
		return;
	}
	struct p9_minode *dir = r->ino, *i = p9_minode_got(m, &r->attr, r->fid[1]);
	if (!i) {
		p9_mreq_err(r, -P9_ENOMEM);
		return;
	}
	p9_mreq_take(r, r->fid[1]);
	p9_minode_hold(m, i);
	p9_minode_place(m, i, dir, r->name, strlen(r->name));
	r->ino = i;
	struct p9_mhandle *h = handle(r);
	p9_minode_release(m, dir);
	if (!h) {
		p9_mreq_err(r, -P9_ENOMEM);
		return;
	}
	reply_create(r, h);
	p9_mreq_free(r);
}

static void do_create(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct p9_mreq *r = p9_mreq_name(req, dir, name);
	if (r) {
		r->fi = *fi;
		r->u32[0] = writeback_flags(r->m, wire_flags(fi->flags));
		r->u32[2] = mode & 07777;
		r->off = p9_mreq_gid(r);
		p9_mreq_as_maker(r, &made_op, &create_op);
	}
}

static void do_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct p9_mount *m = fuse_req_userdata(req);
	struct p9_mhandle *h = (struct p9_mhandle *)(uintptr_t)fi->fh;
	(void)ino;
	fuse_reply_err(req, 0);
	if (h->flock_id) {
		p9_mhandle_unlock(m, h);
	} else {
		p9_mhandle_put(m, h);
	}
}

void p9_mop_open(struct fuse_lowlevel_ops *ops)
{
	ops->open = do_open;
	ops->create = do_create;
	ops->opendir = do_opendir;
	ops->release = do_release;
	ops->releasedir = do_release;
}
