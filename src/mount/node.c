/* SPDX-License-Identifier: BSD-2-Clause */
/* node.c - looking files up, forgetting them, their attributes, links' texts, file systems' figures.
 *
 * Also walks to files again whose fids were given back (inode.c). A file is walked to from the nearest directory above it
 * that has a fid, by the names under which it was found, and must be the same file; otherwise the answer is ESTALE,
 * after which the kernel looks the path up anew.
 */
#include <stdlib.h>
#include <string.h>
#include "mount/internal.h"

/* ---- lookup: walk and look, in one go ---- */
static int lookup_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	(void)dst;
	if (i == 1) {
		*t = (struct p9_msg){ .type = P9_Tgetattr,
				      .tgetattr = { .fid = r->fid[0], .request_mask = P9_MOUNT_ATTRS } };
		return 0;
	}
	int rc = p9_mreq_fid(r, 0);
	*t = (struct p9_msg){ .type = P9_Twalk,
			      .twalk = {
				      .fid = r->ino->fid, .newfid = r->fid[0], .wname = { 1, { p9_mstr(r->name) } } } };
	return rc;
}

static int lookup_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	if (i == 0) {
		r->qid = reply->rwalk.wqid.v[0];
		return 0;
	}
	r->attr = reply->rgetattr;
	return p9_mattr_check(&r->attr);
}

/* Answers with the file that was found as r->name in r->ino, whose fid is r->fid[0]. */
void p9_mreq_found(struct p9_mreq *r)
{
	struct p9_mount *m = r->m;
	bool lie = r->qid.path != r->attr.qid.path || r->qid.type != r->attr.qid.type;
	struct p9_minode *i = lie ? NULL : p9_minode_got(m, &r->attr, r->fid[0]);
	if (!i) {
		p9_mreq_err(r, lie ? -P9_EIO : -P9_ENOMEM);
		return;
	}
	p9_mreq_take(r, r->fid[0]);
	p9_minode_hold(m, i);
	p9_minode_place(m, i, r->ino, r->name, strlen(r->name));
	p9_mreq_entry(r, i);
	p9_minode_release(m, i);
}

static void lookup_finish(struct p9_mreq *r)
{
	double negative = p9_mount_negative_timeout(r->m);
	if (!r->error) {
		p9_mreq_found(r);
	} else if (r->error == -P9_ENOENT && negative > 0 && r->req) {
		struct fuse_entry_param e = { .entry_timeout = negative };
		fuse_reply_entry(r->req, &e);
		r->req = NULL;
		p9_mreq_free(r);
	} else {
		p9_mreq_err(r, r->error);
	}
}

static const struct p9_mop lookup_op = {
	.name = "lookup", .steps = 2, .build = lookup_build, .took = lookup_took, .finish = lookup_finish
};

static void do_lookup(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	struct p9_mount *m = fuse_req_userdata(req);
	struct p9_minode *i = p9_minode_of(m, dir);
	if (p9_mahead_lookup(req, i, name)) {
		return;
	}
	struct p9_mreq *r = p9_mreq_name(req, dir, name);
	if (r) {
		p9_mreq_begin(r, &lookup_op); /* which may be answered, and the inode forgotten: it is the kernel's */
		p9_mahead_missed(m, i);
	}
}

static void do_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	struct p9_mount *m = fuse_req_userdata(req);
	p9_minode_forget(m, p9_minode_of(m, ino), n);
	p9_minode_give_back(m);
	fuse_reply_none(req);
}

static void do_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *f)
{
	struct p9_mount *m = fuse_req_userdata(req);
	for (size_t i = 0; i < count; i++) {
		p9_minode_forget(m, p9_minode_of(m, f[i].ino), f[i].nlookup);
	}
	p9_minode_give_back(m);
	fuse_reply_none(req);
}

/* ---- getattr ---- */
/* The fid to ask about a file: an open one if there is one, for servers that know others by path only. */
static uint32_t any_fid(const struct p9_mreq *r)
{
	return r->h ? r->h->fid : r->ino->handles ? r->ino->handles->fid : r->ino->fid;
}

static int getattr_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	(void)i;
	(void)dst;
	*t = (struct p9_msg){ .type = P9_Tgetattr, .tgetattr = { .fid = any_fid(r), .request_mask = P9_MOUNT_ATTRS } };
	return 0;
}

/* Attributes of a file that the kernel knows: still the same one, and of the same type? */
static int same_took(struct p9_mreq *r, const struct p9_rgetattr *a)
{
	int rc = p9_mattr_check(a);
	r->attr = *a;
	if (rc < 0) {
		return rc;
	}
	if (r->ino == &r->m->root ? !S_ISDIR(a->mode) : ((a->mode ^ r->ino->mode) & S_IFMT)) {
		return -P9_ESTALE;
	}
	r->ino->mode = a->mode;
	r->ino->gid = a->gid;
	return 0;
}

static int getattr_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	(void)i;
	return same_took(r, &reply->rgetattr);
}

static void attr_finish(struct p9_mreq *r)
{
	if (r->error) {
		p9_mreq_err(r, r->error);
	} else {
		p9_mreq_attr(r);
	}
}

static const struct p9_mop getattr_op = {
	.name = "getattr", .steps = 1, .build = getattr_build, .took = getattr_took, .finish = attr_finish
};

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct p9_mreq *r = fi && fi->fh ? p9_mreq_open(req, ino, fi) : p9_mreq_ino(req, ino);
	if (r) {
		p9_mreq_begin(r, &getattr_op);
	}
}

/* ---- setattr ---- */
static int setattr_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	if (i == 1) {
		return getattr_build(r, i, t, dst);
	}
	r->set.fid = r->h ? r->h->fid : any_fid(r);
	*t = (struct p9_msg){ .type = P9_Tsetattr, .tsetattr = r->set };
	return 0;
}

static int setattr_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	return i == 1 ? same_took(r, &reply->rgetattr) : 0;
}

static const struct p9_mop setattr_op = { .name = "setattr",
					  .steps = 2,
					  .changes = true,
					  .build = setattr_build,
					  .took = setattr_took,
					  .finish = attr_finish };

static void set_times(struct p9_tsetattr *s, const struct stat *st, int to_set)
{
	if (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) {
		s->valid |= P9_SETATTR_ATIME;
	}
	if (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) {
		s->valid |= P9_SETATTR_MTIME;
	}
	if ((to_set & FUSE_SET_ATTR_ATIME) && !(to_set & FUSE_SET_ATTR_ATIME_NOW)) {
		s->valid |= P9_SETATTR_ATIME_SET;
		s->atime_sec = (uint64_t)st->st_atim.tv_sec;
		s->atime_nsec = (uint64_t)st->st_atim.tv_nsec;
	}
	if ((to_set & FUSE_SET_ATTR_MTIME) && !(to_set & FUSE_SET_ATTR_MTIME_NOW)) {
		s->valid |= P9_SETATTR_MTIME_SET;
		s->mtime_sec = (uint64_t)st->st_mtim.tv_sec;
		s->mtime_nsec = (uint64_t)st->st_mtim.tv_nsec;
	}
}

static void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	struct p9_mreq *r = fi && fi->fh ? p9_mreq_open(req, ino, fi) : p9_mreq_ino(req, ino);
	if (!r) {
		return;
	}
	struct p9_tsetattr *s = &r->set;
	s->valid = (to_set & FUSE_SET_ATTR_MODE ? P9_SETATTR_MODE : 0u) |
		   (to_set & FUSE_SET_ATTR_UID ? P9_SETATTR_UID : 0u) |
		   (to_set & FUSE_SET_ATTR_GID ? P9_SETATTR_GID : 0u) |
		   (to_set & FUSE_SET_ATTR_SIZE ? P9_SETATTR_SIZE : 0u);
	s->mode = st->st_mode & 07777;
	s->uid = st->st_uid;
	s->gid = st->st_gid;
	s->size = (uint64_t)st->st_size;
	set_times(s, st, to_set);
	p9_mreq_begin(r, s->valid ? &setattr_op : &getattr_op);
}

/* ---- readlink ---- */
static int readlink_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	(void)i;
	(void)dst;
	*t = (struct p9_msg){ .type = P9_Treadlink, .treadlink = { .fid = r->ino->fid } };
	return 0;
}

static int readlink_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	(void)i;
	const struct p9_str *s = &reply->rreadlink.target;
	if (s->len == 0 || s->len > P9_TARGETMAX) {
		return -P9_EIO;
	}
	r->text = strndup(s->s, s->len);
	return r->text ? 0 : -P9_ENOMEM;
}

static void readlink_finish(struct p9_mreq *r)
{
	if (!r->error && r->req) {
		fuse_reply_readlink(r->req, r->text);
		r->req = NULL;
	}
	p9_mreq_err(r, r->error);
}

static const struct p9_mop readlink_op = {
	.name = "readlink", .steps = 1, .build = readlink_build, .took = readlink_took, .finish = readlink_finish
};

static void do_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct p9_mreq *r = p9_mreq_ino(req, ino);
	if (r) {
		p9_mreq_begin(r, &readlink_op);
	}
}

/* ---- statfs ---- */
static int statfs_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	(void)i;
	(void)dst;
	*t = (struct p9_msg){ .type = P9_Tstatfs, .tstatfs = { .fid = r->ino->fid } };
	return 0;
}

static int statfs_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	(void)i;
	const struct p9_rstatfs *s = &reply->rstatfs;
	struct statvfs v = { .f_bsize = s->bsize ? s->bsize : 4096,
			     .f_frsize = s->bsize ? s->bsize : 4096,
			     .f_blocks = s->blocks,
			     .f_bfree = s->bfree,
			     .f_bavail = s->bavail,
			     .f_files = s->files,
			     .f_ffree = s->ffree,
			     .f_favail = s->ffree,
			     .f_namemax = s->namelen && s->namelen < P9_NAMEMAX ? s->namelen : P9_NAMEMAX };
	if (r->req) {
		fuse_reply_statfs(r->req, &v);
		r->req = NULL;
	}
	return 0;
}

static void plain_finish(struct p9_mreq *r)
{
	p9_mreq_err(r, r->error);
}

static const struct p9_mop statfs_op = {
	.name = "statfs", .steps = 1, .build = statfs_build, .took = statfs_took, .finish = plain_finish
};

static void do_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct p9_mreq *r = p9_mreq_ino(req, ino ? ino : FUSE_ROOT_ID);
	if (r) {
		p9_mreq_begin(r, &statfs_op);
	}
}

/* ---- walking again ---- */
/* Where to begin, and how many names from there to r->lost. */
static const struct p9_minode *anchor(const struct p9_mreq *r, unsigned *n)
{
	const struct p9_minode *i = r->lost;
	*n = 0;
	while (i && i->fid == P9_NOFID) {
		i = i->dir;
		++*n;
	}
	return i;
}

static int rewalk_build(struct p9_mreq *r, unsigned step, struct p9_msg *t, void **dst)
{
	unsigned n, k;
	const struct p9_minode *from = anchor(r, &n);
	(void)step;
	(void)dst;
	r->depth = n;
	if (n == 0) {
		return P9_MSKIP; /* somebody else was faster */
	}
	if (!from || n > P9_MAXWELEM) {
		return -P9_ESTALE;
	}
	*t = (struct p9_msg){ .type = P9_Twalk, .twalk = { .fid = from->fid, .wname = { .n = (uint16_t)n } } };
	k = n;
	for (const struct p9_minode *i = r->lost; i != from; i = i->dir) {
		t->twalk.wname.v[--k] = p9_mstr(i->name);
	}
	int rc = p9_mreq_fid(r, 0);
	t->twalk.newfid = r->fid[0];
	return rc;
}

static int rewalk_took(struct p9_mreq *r, unsigned step, const struct p9_msg *reply)
{
	const struct p9_qids *q = &reply->rwalk.wqid;
	(void)step;
	const struct p9_qid *last = q->n ? &q->v[q->n - 1] : NULL;
	bool same = last && q->n == r->depth && last->path == r->lost->path && last->type == r->lost->qtype;
	if (same) {
		p9_mreq_take(r, r->fid[0]);
		p9_minode_fid(r->m, r->lost, r->fid[0]);
	}
	return same ? 0 : -P9_ESTALE;
}

static void rewalk_finish(struct p9_mreq *r)
{
	int error = r->error == -P9_ENOENT || r->error == -P9_ENOTDIR ? -P9_ESTALE : r->error;
	p9_minode_release(r->m, r->lost);
	r->lost = NULL;
	if (error) {
		p9_mreq_err(r, error);
	} else {
		p9_mreq_rewalk(r);
	}
}

static const struct p9_mop rewalk_op = {
	.name = "rewalk", .steps = 1, .build = rewalk_build, .took = rewalk_took, .finish = rewalk_finish
};

void p9_mreq_rewalk(struct p9_mreq *r)
{
	struct p9_minode *i = r->ino->fid == P9_NOFID && !r->h ? r->ino : r->dir;
	if (!i || i->fid != P9_NOFID) {
		p9_mreq_chain(r, r->then);
		return;
	}
	/* From far below an anchor the way is taken in parts of 16 names. */
	unsigned n;
	r->lost = i;
	const struct p9_minode *from = anchor(r, &n);
	for (; from && n > P9_MAXWELEM; n--) {
		i = i->dir;
	}
	r->lost = i;
	p9_minode_hold(r->m, i);
	p9_mreq_chain(r, &rewalk_op);
}

void p9_mop_node(struct fuse_lowlevel_ops *ops)
{
	ops->lookup = do_lookup;
	ops->forget = do_forget;
	ops->forget_multi = do_forget_multi;
	ops->getattr = do_getattr;
	ops->setattr = do_setattr;
	ops->readlink = do_readlink;
	ops->statfs = do_statfs;
}
