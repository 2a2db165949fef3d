/* SPDX-License-Identifier: BSD-2-Clause */
/* lock.c - POSIX locks and flock, by Tlock.
 *
 * The server tells owners apart by a number. Each (inode, owner of the kernel's) gets one of its own while it may hold a
 * lock, so two programs on this mount conflict and two descriptors of one do not; each open file has one more for
 * flock(2), which takes the whole range. Closing a descriptor (flush) lets go of its owner's POSIX locks, the last close
 * (release) of the flock. A program that waits holds a request at the server, but only some may: the others, and those
 * that the server sends away, ask again every RETRY_MS.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include "mount/internal.h"

#define WAITS_MAX 16u /* of the tags */
#define RETRY_MS 50u

struct p9_mowner *p9_mowner_find(const struct p9_minode *i, uint64_t owner)
{
	struct p9_mowner *o = i->owners;
	while (o && o->owner != owner) {
		o = o->next;
	}
	return o;
}

void p9_mowner_drop(struct p9_minode *i, struct p9_mowner *o)
{
	struct p9_mowner **p = &i->owners;
	while (*p && *p != o) {
		p = &(*p)->next;
	}
	if (*p) {
		*p = o->next;
		free(o);
	}
}

static uint32_t new_id(struct p9_mount *m)
{
	m->lock_id += m->lock_id == UINT32_MAX ? 2 : 1; /* 0 is nobody */
	return m->lock_id;
}

static struct p9_mowner *owner_get(struct p9_mreq *r, uint64_t owner)
{
	struct p9_mowner *o = p9_mowner_find(r->ino, owner);
	if (!o) {
		o = calloc(1, sizeof(*o));
		if (!o) {
			return NULL;
		}
		o->owner = owner;
		o->id = new_id(r->m);
		o->next = r->ino->owners;
		r->ino->owners = o;
	}
	o->pid = fuse_req_ctx(r->req)->pid;
	return o;
}

/* ---- set ---- */
static int lock_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	(void)i;
	(void)dst;
	r->lock.flags = 0;
	if (r->u32[0] && r->m->lock_waits < WAITS_MAX) {
		r->lock.flags = P9_LOCK_FLAGS_BLOCK;
		r->m->lock_waits++;
		r->u32[1] = true;
	}
	*t = (struct p9_msg){ .type = P9_Tlock, .tlock = r->lock };
	return 0;
}

static int lock_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	(void)i;
	r->u32[2] = reply->rlock.status;
	return reply->rlock.status == P9_LOCK_ERROR ? -P9_ENOLCK : reply->rlock.status > P9_LOCK_GRACE ? -P9_EIO : 0;
}

static void lock_finish(struct p9_mreq *r)
{
	if (r->u32[1]) {
		r->m->lock_waits--;
		r->u32[1] = false;
	}
	bool grace = r->u32[2] == P9_LOCK_GRACE, blocked = r->u32[2] == P9_LOCK_BLOCKED;
	if (!r->error && r->req && (grace || (blocked && r->u32[0]))) {
		p9_mreq_later(r, RETRY_MS);
		return;
	}
	p9_mreq_err(r, r->error ? r->error : blocked || grace ? -P9_EAGAIN : 0);
}

static const struct p9_mop lock_op = {
	.name = "lock", .steps = 1, .writes = true, .build = lock_build, .took = lock_took, .finish = lock_finish
};
static const struct p9_mop wait_op = { .name = "lock",
				       .steps = 1,
				       .writes = true,
				       .patient = true,
				       .build = lock_build,
				       .took = lock_took,
				       .finish = lock_finish };

static uint8_t wire_type(int type)
{
	return type == F_RDLCK ? P9_LOCK_TYPE_RDLCK : type == F_WRLCK ? P9_LOCK_TYPE_WRLCK : P9_LOCK_TYPE_UNLCK;
}

/* 9P says "to the end" by length 0, as does struct flock; the kernel has made start absolute. */
static void set_range(struct p9_mreq *r, const struct flock *fl)
{
	r->lock = (struct p9_tlock){ .fid = r->h->fid,
				     .type = wire_type(fl->l_type),
				     .start = (uint64_t)fl->l_start,
				     .length = (uint64_t)fl->l_len,
				     .client_id = p9_mstr(r->m->client_id) };
}

static void do_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *fl, int sleep)
{
	struct p9_mreq *r = p9_mreq_open(req, ino, fi);
	if (!r) {
		return;
	}
	if (fl->l_type == F_UNLCK && !p9_mowner_find(r->ino, fi->lock_owner)) {
		p9_mreq_err(r, 0); /* it never had one */
		return;
	}
	struct p9_mowner *o = owner_get(r, fi->lock_owner);
	if (!o) {
		p9_mreq_err(r, -P9_ENOMEM);
		return;
	}
	set_range(r, fl);
	r->lock.proc_id = o->id;
	r->u32[0] = sleep && fl->l_type != F_UNLCK;
	p9_mreq_begin(r, r->u32[0] ? &wait_op : &lock_op);
}

static void do_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	struct p9_mreq *r = p9_mreq_open(req, ino, fi);
	struct flock fl = { .l_type = op & LOCK_UN ? F_UNLCK : op & LOCK_EX ? F_WRLCK : F_RDLCK };
	if (!r) {
		return;
	}
	if (fl.l_type == F_UNLCK && !r->h->flock_id) {
		p9_mreq_err(r, 0);
		return;
	}
	r->h->flock_id = r->h->flock_id ? r->h->flock_id : new_id(r->m);
	set_range(r, &fl);
	r->lock.proc_id = r->h->flock_id;
	r->u32[0] = !(op & (LOCK_NB | LOCK_UN));
	p9_mreq_begin(r, r->u32[0] ? &wait_op : &lock_op);
}

/* ---- get ---- */
static int getlk_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	(void)i;
	(void)dst;
	*t = (struct p9_msg){ .type = P9_Tgetlock,
			      .tgetlock = { .fid = r->h->fid,
					    .type = r->lock.type,
					    .start = r->lock.start,
					    .length = r->lock.length,
					    .proc_id = r->lock.proc_id,
					    .client_id = p9_mstr(r->m->client_id) } };
	return 0;
}

/* The process of this mount that holds a lock; 0 for others. */
static pid_t holder(const struct p9_mreq *r, const struct p9_rgetlock *g)
{
	const char *mine = r->m->client_id;
	struct p9_str s = p9_mstr(mine);
	if (g->client_id.len != s.len || __builtin_memcmp(g->client_id.s, mine, s.len) != 0) {
		return 0;
	}
	for (const struct p9_mowner *o = r->ino->owners; o; o = o->next) {
		if (o->id == g->proc_id) {
			return o->pid;
		}
	}
	return 0;
}

static int getlk_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	const struct p9_rgetlock *g = &reply->rgetlock;
	(void)i;
	if (g->type > P9_LOCK_TYPE_UNLCK || g->start > INT64_MAX || g->length > INT64_MAX ||
	    (g->length && g->start > (uint64_t)INT64_MAX - (g->length - 1))) {
		return -P9_EIO;
	}
	struct flock fl = { .l_type = g->type == P9_LOCK_TYPE_RDLCK   ? F_RDLCK
				      : g->type == P9_LOCK_TYPE_WRLCK ? F_WRLCK
								      : F_UNLCK,
			    .l_whence = SEEK_SET,
			    .l_start = (off_t)g->start,
			    .l_len = (off_t)g->length,
			    .l_pid = holder(r, g) };
	if (r->req) {
		fuse_reply_lock(r->req, &fl);
		r->req = NULL;
	}
	return 0;
}

static void plain_finish(struct p9_mreq *r)
{
	p9_mreq_err(r, r->error);
}

static const struct p9_mop getlk_op = {
	.name = "getlock", .steps = 1, .build = getlk_build, .took = getlk_took, .finish = plain_finish
};

static void do_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *fl)
{
	struct p9_mreq *r = p9_mreq_open(req, ino, fi);
	if (!r) {
		return;
	}
	struct p9_mowner *o = p9_mowner_find(r->ino, fi->lock_owner);
	set_range(r, fl);
	r->lock.proc_id = o ? o->id : new_id(r->m);
	p9_mreq_begin(r, &getlk_op);
}

/* ---- letting go ---- */
static int unlock_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	(void)i;
	(void)dst;
	r->lock.type = P9_LOCK_TYPE_UNLCK;
	*t = (struct p9_msg){ .type = P9_Tlock, .tlock = r->lock };
	return 0;
}

static const struct p9_mop unlock_op = {
	.name = "unlock", .steps = 1, .writes = true, .build = unlock_build, .finish = plain_finish
};

static void do_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct p9_mount *m = fuse_req_userdata(req);
	struct p9_minode *i = p9_minode_of(m, ino);
	struct p9_mowner *o = i->owners ? p9_mowner_find(i, fi->lock_owner) : NULL;
	if (!o) {
		fuse_reply_err(req, 0);
		return;
	}
	struct p9_mreq *r = p9_mreq_open(req, ino, fi);
	if (!r) {
		return;
	}
	struct flock all = { .l_type = F_UNLCK };
	set_range(r, &all);
	r->lock.proc_id = o->id;
	p9_mowner_drop(i, o);
	p9_mreq_begin(r, &unlock_op);
}

static void released(struct p9_mreq *r)
{
	p9_mreq_free(r); /* and with it the last of the handle */
}

static const struct p9_mop release_op = {
	.name = "unlock", .steps = 1, .writes = true, .build = unlock_build, .finish = released
};

void p9_mhandle_unlock(struct p9_mount *m, struct p9_mhandle *h)
{
	struct p9_mreq *r = p9_mreq_new(m, NULL);
	if (!r) {
		p9_mhandle_put(m, h);
		return;
	}
	struct flock all = { .l_type = F_UNLCK };
	r->ino = h->ino;
	p9_minode_hold(m, r->ino);
	r->h = h; /* its reference is the request's from here on */
	set_range(r, &all);
	r->lock.proc_id = h->flock_id;
	p9_mreq_chain(r, &release_op);
}

void p9_mop_lock(struct fuse_lowlevel_ops *ops)
{
	ops->getlk = do_getlk;
	ops->setlk = do_setlk;
	ops->flock = do_flock;
	ops->flush = do_flush;
}
