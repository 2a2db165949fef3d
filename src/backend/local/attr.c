/* SPDX-License-Identifier: BSD-2-Clause */
/* attr.c - Tgetattr and Tsetattr on a pinned inode.
 *
 * Everything goes through the descriptor: unlinked files, files without permissions and symbolic links work alike.
 * fchmodat2(2) is new (Linux 6.6); before it, the magic link below /proc reaches the same inode.
 * Order of a Tsetattr with several bits: size, owner, mode, times. The first error ends it.
 */
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "backend/local/local.h"

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

static uint64_t encode_dev(uint32_t major, uint32_t minor)
{
	return (minor & 0xffu) | (uint64_t)major << 8 | (uint64_t)(minor & ~0xffu) << 12;
}

int local_getattr(struct p9_caller *c, struct p9_node *base, uint64_t mask, struct p9_rgetattr *out)
{
	static const struct {
		uint32_t stx;
		uint32_t p9;
	} bits[] = {
		{ STATX_MODE | STATX_TYPE, P9_GETATTR_MODE },
		{ STATX_NLINK, P9_GETATTR_NLINK },
		{ STATX_UID, P9_GETATTR_UID },
		{ STATX_GID, P9_GETATTR_GID },
		{ STATX_ATIME, P9_GETATTR_ATIME },
		{ STATX_MTIME, P9_GETATTR_MTIME },
		{ STATX_CTIME, P9_GETATTR_CTIME },
		{ STATX_INO, P9_GETATTR_INO },
		{ STATX_SIZE, P9_GETATTR_SIZE },
		{ STATX_BLOCKS, P9_GETATTR_BLOCKS },
		{ STATX_BTIME, P9_GETATTR_BTIME },
	};
	struct statx st;
	int rc = lident_enter(c);
	(void)mask; /* one statx brings all; a mask saves nothing on local file systems */
	if (rc < 0) {
		return rc;
	}
	LRETRY(c, rc, statx(LNODE(base)->self->fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &st));
	if (rc < 0) {
		return p9_err();
	}
	uint64_t valid = P9_GETATTR_RDEV;
	if ((st.stx_mask & (STATX_BASIC_STATS | STATX_BTIME)) == (STATX_BASIC_STATS | STATX_BTIME)) {
		valid = P9_GETATTR_BASIC | P9_GETATTR_BTIME;
	} else {
		for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
			valid |= (st.stx_mask & bits[i].stx) == bits[i].stx ? bits[i].p9 : 0;
		}
	}
	bool born = valid & P9_GETATTR_BTIME;
	*out = (struct p9_rgetattr){
		.valid = valid,
		.qid = lqid_of(&st),
		.mode = st.stx_mode,
		.uid = st.stx_uid,
		.gid = st.stx_gid,
		.nlink = st.stx_nlink,
		.rdev = encode_dev(st.stx_rdev_major, st.stx_rdev_minor),
		.size = st.stx_size,
		.blksize = st.stx_blksize,
		.blocks = st.stx_blocks,
		.atime_sec = (uint64_t)st.stx_atime.tv_sec,
		.atime_nsec = st.stx_atime.tv_nsec,
		.mtime_sec = (uint64_t)st.stx_mtime.tv_sec,
		.mtime_nsec = st.stx_mtime.tv_nsec,
		.ctime_sec = (uint64_t)st.stx_ctime.tv_sec,
		.ctime_nsec = st.stx_ctime.tv_nsec,
		.btime_sec = born ? (uint64_t)st.stx_btime.tv_sec : 0,
		.btime_nsec = born ? st.stx_btime.tv_nsec : 0,
	};
	return 0;
}

static int set_size(struct p9_caller *c, struct lnode *n, struct p9_file *f, uint64_t size)
{
	char proc[40];
	int rc;
	if (S_ISDIR(n->type)) {
		return -P9_EISDIR;
	}
	if (!S_ISREG(n->type)) {
		return -P9_EINVAL;
	}
	if (size > INT64_MAX) {
		return -P9_EINVAL;
	}
	if (f && (f->flags & P9_O_ACCMODE) != P9_O_RDONLY) {
		LRETRY(c, rc, ftruncate(LFILE(f)->io->fd, (off_t)size));
	} else {
		lproc_path(proc, n->self->fd);
		LRETRY(c, rc, truncate(proc, (off_t)size));
	}
	return rc < 0 ? p9_err() : 0;
}

static int set_owner(struct p9_caller *c, struct lnode *n, const struct p9_tsetattr *a)
{
	uid_t uid = a->valid & P9_SETATTR_UID ? a->uid : (uid_t)-1;
	gid_t gid = a->valid & P9_SETATTR_GID ? a->gid : (gid_t)-1;
	int rc;
	if (((a->valid & P9_SETATTR_UID) && a->uid == P9_NONUNAME) ||
	    ((a->valid & P9_SETATTR_GID) && a->gid == P9_NONUNAME)) {
		return -P9_EINVAL;
	}
	LRETRY(c, rc, fchownat(n->self->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW));
	return rc < 0 ? p9_err() : 0;
}

static int do_chmod(struct p9_caller *c, struct lnode *n, mode_t mode)
{
	static _Atomic bool no_fchmodat2;
	char proc[40];
	int rc = -1;
	if (!atomic_load_explicit(&no_fchmodat2, memory_order_relaxed)) {
		LRETRY(c, rc, (int)syscall(SYS_fchmodat2, n->self->fd, "", mode, AT_EMPTY_PATH));
		if (rc == 0 || errno != ENOSYS) {
			return rc < 0 ? p9_err() : 0;
		}
		atomic_store_explicit(&no_fchmodat2, true, memory_order_relaxed);
	}
	lproc_path(proc, n->self->fd);
	LRETRY(c, rc, chmod(proc, mode));
	return rc < 0 ? p9_err() : 0;
}

/* Without CAP_FSETID the kernel drops a set-group-id bit unless the caller is in the file's group. Where the caller may
 * set it all the same (root, or a peer whose kernel has checked), it acts in that group for this one call. */
static int set_mode(struct p9_caller *c, struct lnode *n, uint32_t mode)
{
	struct statx st;
	uint32_t gid = P9_NONUNAME;
	if (S_ISLNK(n->type)) {
		return -P9_EOPNOTSUPP;
	}
	if ((mode & S_ISGID) && (c->cred->uid == 0 || c->cred->checked) &&
	    statx(n->self->fd, "", AT_EMPTY_PATH, STATX_GID, &st) == 0) {
		gid = st.stx_gid;
	}
	int rc = lident_enter_gid(c, gid);
	if (rc == 0) {
		rc = do_chmod(c, n, mode & 07777);
		lident_leave_gid(c, gid);
	}
	return rc;
}

static struct timespec time_of(uint32_t valid, uint32_t bit, uint32_t set_bit, struct timespec t)
{
	if (!(valid & bit)) {
		t.tv_nsec = UTIME_OMIT;
	} else if (!(valid & set_bit)) {
		t.tv_nsec = UTIME_NOW;
	}
	return t;
}

static int set_times(struct p9_caller *c, struct lnode *n, const struct p9_tsetattr *a)
{
	struct timespec ts[2] = {
		time_of(a->valid, P9_SETATTR_ATIME, P9_SETATTR_ATIME_SET,
			(struct timespec){ (time_t)a->atime_sec, (long)a->atime_nsec }),
		time_of(a->valid, P9_SETATTR_MTIME, P9_SETATTR_MTIME_SET,
			(struct timespec){ (time_t)a->mtime_sec, (long)a->mtime_nsec }),
	};
	int rc;
	LRETRY(c, rc, utimensat(n->self->fd, "", ts, AT_EMPTY_PATH));
	return rc < 0 ? p9_err() : 0;
}

int local_setattr(struct p9_caller *c, struct p9_node *base, struct p9_file *f, const struct p9_tsetattr *a)
{
	struct lnode *n = LNODE(base);
	int rc = lident_enter(c);
	if (((a->valid & P9_SETATTR_ATIME_SET) && a->atime_nsec >= 1000000000) ||
	    ((a->valid & P9_SETATTR_MTIME_SET) && a->mtime_nsec >= 1000000000)) {
		return -P9_EINVAL;
	}
	if (rc == 0 && (a->valid & P9_SETATTR_SIZE)) {
		rc = set_size(c, n, f, a->size);
	}
	/* CTIME alone: a chown to nobody new, which is how the kernel lets one touch it */
	if (rc == 0 && ((a->valid & (P9_SETATTR_UID | P9_SETATTR_GID)) || a->valid == P9_SETATTR_CTIME)) {
		rc = set_owner(c, n, a);
	}
	if (rc == 0 && (a->valid & P9_SETATTR_MODE)) {
		rc = set_mode(c, n, a->mode);
	}
	if (rc == 0 && (a->valid & (P9_SETATTR_ATIME | P9_SETATTR_MTIME))) {
		rc = set_times(c, n, a);
	}
	return rc;
}
