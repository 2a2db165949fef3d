/* SPDX-License-Identifier: BSD-2-Clause */
/* attr.c - the server's attributes as the kernel wants them, and how long it may believe them. */
#include <string.h>
#include "mount/internal.h"

#define NSEC_MAX 999999999u
#define LOOSE_SECONDS 3600.0
#define ATTR_SECONDS 1.0
#define INO_ZERO UINT64_C(0xfffffffffffffffe) /* shown for qid path 0: programs take inode number 0 for "deleted" */

uint64_t p9_mattr_ino(uint64_t path)
{
	return path ? path : INO_ZERO;
}

/* Whether the type in the mode is one that the qid's type can have. */
static bool type_fits(uint32_t mode, uint8_t qtype)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return qtype & P9_QTDIR;
	case S_IFLNK:
		return !(qtype & P9_QTDIR);
	case S_IFREG:
	case S_IFIFO:
	case S_IFSOCK:
	case S_IFCHR:
	case S_IFBLK:
		return !(qtype & (P9_QTDIR | P9_QTSYMLINK));
	default:
		return false;
	}
}

int p9_mattr_check(const struct p9_rgetattr *a)
{
	bool fine = (a->valid & P9_GETATTR_MODE) && type_fits(a->mode, a->qid.type) && a->size <= INT64_MAX &&
		    a->atime_nsec <= NSEC_MAX && a->mtime_nsec <= NSEC_MAX && a->ctime_nsec <= NSEC_MAX;
	return fine ? 0 : -P9_EIO;
}

void p9_mattr_stat(const struct p9_mount *m, const struct p9_rgetattr *a, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = p9_mattr_ino(a->qid.path);
	st->st_mode = a->mode;
	st->st_nlink = a->nlink > UINT32_MAX ? UINT32_MAX : (nlink_t)a->nlink;
	st->st_uid = m->o.set_uid ? m->o.uid : a->uid;
	st->st_gid = m->o.set_gid ? m->o.gid : a->gid;
	st->st_rdev = (dev_t)a->rdev;
	st->st_size = (off_t)a->size;
	st->st_blksize = a->blksize && a->blksize <= (1u << 30) ? (blksize_t)a->blksize : 4096;
	st->st_blocks = a->blocks <= INT64_MAX ? (blkcnt_t)a->blocks : 0;
	st->st_atim = (struct timespec){ (time_t)a->atime_sec, (long)a->atime_nsec };
	st->st_mtim = (struct timespec){ (time_t)a->mtime_sec, (long)a->mtime_nsec };
	st->st_ctim = (struct timespec){ (time_t)a->ctime_sec, (long)a->ctime_nsec };
}

struct p9_mstamp p9_mattr_stamp(const struct p9_rgetattr *a)
{
	return (struct p9_mstamp){ .size = a->size,
				   .mtime = a->mtime_sec,
				   .mtime_nsec = a->mtime_nsec,
				   .ctime = a->ctime_sec,
				   .ctime_nsec = a->ctime_nsec,
				   .version = a->qid.version };
}

bool p9_mstamp_same(const struct p9_mstamp *a, const struct p9_mstamp *b)
{
	return a->size == b->size && a->mtime == b->mtime && a->mtime_nsec == b->mtime_nsec && a->ctime == b->ctime &&
	       a->ctime_nsec == b->ctime_nsec && a->version == b->version;
}

#define FRESH_SECONDS 60

static double timeout(const struct p9_mount *m, double given, double attr)
{
	static const double none = 0.0;
	if (given >= 0) {
		return given;
	}
	return m->o.cache == P9_CACHE_LOOSE ? LOOSE_SECONDS : m->o.cache == P9_CACHE_ATTR ? attr : none;
}

double p9_mount_attr_timeout(const struct p9_mount *m)
{
	return timeout(m, m->o.attr_timeout, ATTR_SECONDS);
}
double p9_mount_entry_timeout(const struct p9_mount *m)
{
	return timeout(m, m->o.entry_timeout, ATTR_SECONDS);
}
double p9_mount_negative_timeout(const struct p9_mount *m)
{
	return timeout(m, m->o.negative_timeout, 0);
}

void p9_mentry_fill(const struct p9_mount *m, struct p9_minode *i, const struct p9_rgetattr *a,
		    struct fuse_entry_param *e)
{
	*e = (struct fuse_entry_param){ .ino = p9_minode_id(m, i),
					.generation = i->generation,
					.attr_timeout = p9_mount_attr_timeout(m),
					.entry_timeout = p9_mount_entry_timeout(m) };
	p9_mattr_stat(m, a, &e->attr);
	i->told = p9_mattr_stamp(a);
	i->told_when = p9_mount_now();
	i->told_changes = m->changes;
	i->size = a->size;
}

bool p9_mentry_fresh(const struct p9_mount *m, const struct p9_minode *i)
{
	double a = p9_mount_attr_timeout(m), e = p9_mount_entry_timeout(m), s = a < e ? a : e;
	uint64_t half = s <= 0 ? 0 : s < FRESH_SECONDS ? (uint64_t)(s * 500) : FRESH_SECONDS * 500;
	return i->nlookup > 0 && i->told_changes == m->changes && p9_mount_now() - i->told_when < half;
}
