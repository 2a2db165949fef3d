/* SPDX-License-Identifier: BSD-2-Clause */
/* io.c - open, create, read, write, fsync, close.
 *
 * A file is opened through the magic link of its pinned descriptor, after its type was read from that descriptor: what
 * is opened is the inode that was walked to, and never a FIFO, socket or device, for which no open(2) happens at all.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include "backend/local/local.h"

#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif
#define CREATE_TRIES 8 /* an entry that comes and goes between our two looks at it */

static int open_flags(uint32_t p9)
{
	static const struct {
		uint32_t p9;
		int host;
	} map[] = {
		{ P9_O_TRUNC, O_TRUNC },
		{ P9_O_APPEND, O_APPEND },
		{ P9_O_NOATIME, O_NOATIME },
	};
	int flags = O_CLOEXEC | O_NOCTTY;
	uint32_t acc = p9 & P9_O_ACCMODE;
	flags |= acc == P9_O_WRONLY ? O_WRONLY : acc == P9_O_RDWR ? O_RDWR : O_RDONLY;
	for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
		flags |= p9 & map[i].p9 ? map[i].host : 0;
	}
	if (p9 & P9_O_SYNC) {
		flags |= O_SYNC;
	} else if (p9 & P9_O_DSYNC) {
		flags |= O_DSYNC;
	}
	return flags;
}

int lfile_new(struct lnode *n, struct lfd *io, uint32_t flags, struct p9_file **out)
{
	struct lfile *f = calloc(1, sizeof(*f));
	if (!f) {
		return -P9_ENOMEM;
	}
	atomic_init(&f->base.refs, 1);
	f->base.be = &p9_local;
	f->base.node = p9_node_get(&n->base);
	f->base.flags = flags;
	bool readable = (flags & P9_O_ACCMODE) != P9_O_WRONLY;
	f->base.fd = S_ISREG(n->type) && readable && n->root->sendable && n->minor == n->root->minor &&
				     n->major == n->root->major
			     ? io->fd
			     : -1;
	f->io = io;
	*out = &f->base;
	return 0;
}

/* Opens the inode behind a pinned descriptor. Returns a descriptor or -P9_Exxx. */
static int reopen(struct p9_caller *c, int pinned, int flags)
{
	char proc[16];
	int fd;
	lproc_name(proc, pinned);
	LRETRY(c, fd, p9_sys_openat(lprocfd, proc, flags, 0));
	if (fd < 0 && errno == EPERM && (flags & O_NOATIME)) {
		LRETRY(c, fd, openat(lprocfd, proc, flags & ~O_NOATIME));
	}
	return fd < 0 ? p9_err() : fd;
}

static int openable(mode_t type, uint32_t flags)
{
	if (S_ISLNK(type)) {
		return -P9_ELOOP;
	}
	if (S_ISREG(type)) {
		return flags & P9_O_DIRECTORY ? -P9_ENOTDIR : 0;
	}
	return S_ISDIR(type) ? 0 : -P9_ENXIO;
}

int local_open(struct p9_caller *c, struct p9_node *base, uint32_t flags, struct p9_file **out)
{
	struct lnode *n = LNODE(base);
	int rc = openable(n->type, flags);
	rc = rc < 0 ? rc : lident_enter(c);
	int fd = rc < 0 ? rc : reopen(c, n->self->fd, open_flags(flags));
	if (fd < 0) {
		return fd;
	}
	struct lfd *io = lfd_new(fd);
	if (!io) {
		close(fd);
		return -P9_ENOMEM;
	}
	rc = lfile_new(n, io, flags, out);
	if (rc < 0) {
		lfd_put(io);
	}
	return rc;
}

/* What is there already, without following or opening anything that is not a file. */
static int open_existing(struct p9_caller *c, const struct lnode *dir, const char *name, uint32_t flags)
{
	struct statx st;
	int pinned;
	LRETRY(c, pinned, openat(dir->self->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
	if (pinned < 0) {
		return p9_err();
	}
	int fd = lstat_fd(pinned, &st);
	fd = fd == 0 && lother_fs(&st, dir->major, dir->minor) && lmagic_fs(pinned) ? -P9_EACCES : fd;
	fd = fd < 0 ? fd : openable(st.stx_mode & S_IFMT, flags);
	fd = fd < 0 ? fd : S_ISDIR(st.stx_mode) ? -P9_EISDIR : reopen(c, pinned, open_flags(flags));
	close(pinned);
	return fd;
}

static int create_fd(struct p9_caller *c, const struct lnode *dir, const char *name, const struct p9_tlcreate *m,
		     bool *born)
{
	int flags = open_flags(m->flags & ~(uint32_t)P9_O_TRUNC) | O_CREAT | O_EXCL | O_NOFOLLOW;
	for (int i = 0; i < CREATE_TRIES; i++) {
		int fd;
		LRETRY(c, fd, p9_sys_openat(dir->self->fd, name, flags, m->mode & 07777));
		*born = fd >= 0;
		if (fd >= 0) {
			return fd;
		}
		if (errno != EEXIST || (m->flags & P9_O_EXCL)) {
			return p9_err();
		}
		fd = open_existing(c, dir, name, m->flags);
		if (fd != -P9_ENOENT) {
			return fd;
		}
	}
	return -P9_EIO;
}

int local_create(struct p9_caller *c, struct p9_node *dir, const struct p9_tlcreate *m, struct p9_file **out,
		 struct p9_qid *qid)
{
	struct lnode *d = LNODE(dir), *n;
	char name[P9_NAMEMAX + 1];
	struct statx st;
	lname_copy(name, m->name);
	if (!S_ISDIR(d->type)) {
		return -P9_ENOTDIR;
	}
	int fd = lident_enter_gid(c, m->gid);
	if (fd == 0) {
		bool born;
		fd = create_fd(c, d, name, m, &born);
		lident_leave_gid(c, m->gid);
		if (fd >= 0 && born) {
			lident_give_gid(c, d->self->fd, name, m->gid);
		}
	}
	if (fd < 0) {
		return fd;
	}
	int rc = lstat_fd(fd, &st);
	struct lfd *io = rc < 0 ? NULL : lfd_new(fd);
	if (!io) {
		close(fd);
		return rc < 0 ? rc : -P9_ENOMEM;
	}
	rc = lnode_new(d, lfd_get(io), &st, m->name, &n);
	if (rc < 0) {
		lfd_put(io);
		lfd_put(io);
		return rc;
	}
	*qid = lqid_of(&st);
	n->parent = lfd_get(d->self);
	n->shared_fd = true;
	rc = lfile_new(n, io, m->flags, out);
	if (rc < 0) {
		lfd_put(io);
	}
	p9_node_put(&n->base);
	return rc;
}

int local_close(struct p9_caller *c, struct p9_file *base)
{
	struct lfile *f = LFILE(base);
	(void)c;
	p9_node_put(base->node);
	int rc = lfd_put(f->io) < 0 ? p9_err() : 0;
	free(f);
	return rc == -P9_EINTR ? 0 : rc;
}

int64_t local_read(struct p9_caller *c, struct p9_file *f, uint64_t offset, const struct iovec *iov, int niov,
		   bool nowait)
{
	ssize_t n;
	int rc = lident_enter(c);
	if (rc < 0) {
		return rc;
	}
	struct lfile *lf = LFILE(f);
	bool try = nowait && !atomic_load_explicit(&lf->no_nowait, memory_order_relaxed);
	LRETRY(c, n, p9_sys_preadv2(lf->io->fd, iov, niov, (off_t)offset, try ? RWF_NOWAIT : 0));
	if (n < 0 && nowait &&
	    errno == EOPNOTSUPP) { /* tmpfs, overlayfs, FUSE: read on; the watch sees to what blocks */
		atomic_store_explicit(&lf->no_nowait, true, memory_order_relaxed);
		LRETRY(c, n, p9_sys_preadv2(lf->io->fd, iov, niov, (off_t)offset, 0));
	}
	return n < 0 ? p9_err() : n;
}

int64_t local_write(struct p9_caller *c, struct p9_file *f, uint64_t offset, const struct iovec *iov, int niov)
{
	ssize_t n;
	int rc = lident_enter(c);
	if (rc < 0) {
		return rc;
	}
	if (niov == 1) {
		LRETRY(c, n, p9_sys_pwrite(LFILE(f)->io->fd, iov->iov_base, iov->iov_len, (off_t)offset));
	} else {
		LRETRY(c, n, pwritev(LFILE(f)->io->fd, iov, niov, (off_t)offset));
	}
	return n < 0 ? p9_err() : n;
}

/* Pages in memory from offset on, by cachestat(2) (Linux 6.5). All or nothing: one that is missing would make the
 * loop wait for the disk. */
int64_t local_ready(struct p9_caller *c, struct p9_file *f, uint64_t offset, uint32_t count)
{
	struct {
		uint64_t off, len;
	} range;
	struct {
		uint64_t cache, dirty, writeback, evicted, recently_evicted;
	} cs;
	struct stat st;
	int fd = LFILE(f)->io->fd;
	if (f->fd < 0 || lident_enter(c) < 0 || fstat(fd, &st) < 0) {
		return -P9_EAGAIN;
	}
	if (offset >= (uint64_t)st.st_size) {
		return 0;
	}
	if (count > (uint64_t)st.st_size - offset) {
		count = (uint32_t)((uint64_t)st.st_size - offset);
	}
	uint64_t page = 4096, first = offset / page, last = (offset + count - 1) / page;
	range.off = offset;
	range.len = count;
	if (syscall(SYS_cachestat, fd, &range, &cs, 0) < 0 || cs.cache != last - first + 1) {
		return -P9_EAGAIN;
	}
	return count;
}

int local_fsync(struct p9_caller *c, struct p9_file *f, bool datasync)
{
	int rc = lident_enter(c);
	if (rc == 0) {
		LRETRY(c, rc, datasync ? fdatasync(LFILE(f)->io->fd) : fsync(LFILE(f)->io->fd));
		rc = rc < 0 ? p9_err() : 0;
	}
	return rc;
}
