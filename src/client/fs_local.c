/* SPDX-License-Identifier: BSD-2-Clause */
/* fs_local.c - this host's tree as one end of a copy (fs_end.h); directories are descriptors.
 *
 * Every step is an ...at() call with one name and without following links: a server that lists a link and then a
 * directory of the same name leads nobody out of the copy. Special files are never opened.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "client/fs_end.h"

static int host(int rc)
{
	return rc < 0 ? -p9_hosterr(errno) : rc;
}

static int local_root(struct p9_end *e, const char *path, uint32_t *dir, char *name)
{
	size_t end = strlen(path), begin;
	while (end > 1 && path[end - 1] == '/') {
		end--;
	}
	for (begin = end; begin > 0 && path[begin - 1] != '/'; begin--) {
	}
	size_t n = end - begin;
	bool here =
		n == 0 || (n == 1 && path[begin] == '.') || (n == 2 && path[begin] == '.' && path[begin + 1] == '.');
	if (n > P9_NAMEMAX) {
		return -P9_ENAMETOOLONG;
	}
	/* "/", "." and ".." are entered as they are: the name within is "." then */
	char *up = strndup(path, here ? end : begin);
	if (!up) {
		return -P9_ENOMEM;
	}
	int fd = host(open(up[0] ? up : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	free(up);
	*dir = (uint32_t)fd;
	memcpy(name, here ? "." : path + begin, here ? 1 : n);
	name[here ? 1 : n] = 0;
	return fd < 0 ? fd : 0;
}

static void take_stat(struct p9_rgetattr *to, const struct stat *st)
{
	*to = (struct p9_rgetattr){ .valid = P9_GETATTR_BASIC,
				    .qid = { .version = (uint32_t)st->st_dev, .path = st->st_ino },
				    .mode = st->st_mode,
				    .uid = st->st_uid,
				    .gid = st->st_gid,
				    .nlink = st->st_nlink,
				    .rdev = st->st_rdev,
				    .size = (uint64_t)st->st_size,
				    .atime_sec = (uint64_t)st->st_atim.tv_sec,
				    .atime_nsec = (uint64_t)st->st_atim.tv_nsec,
				    .mtime_sec = (uint64_t)st->st_mtim.tv_sec,
				    .mtime_nsec = (uint64_t)st->st_mtim.tv_nsec };
}

static int local_look(struct p9_end *e, uint32_t dir, const char *name, struct p9_rgetattr *to)
{
	struct stat st;
	int rc = host(fstatat((int)dir, name, &st, AT_SYMLINK_NOFOLLOW));
	if (rc >= 0) {
		take_stat(to, &st);
	}
	return rc;
}

static int local_enter(struct p9_end *e, uint32_t dir, const char *name, uint32_t *out)
{
	int fd = host(openat((int)dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
	*out = (uint32_t)fd;
	return fd < 0 ? fd : 0;
}

static void local_leave(struct p9_end *e, uint32_t dir)
{
	close((int)dir);
}

static int local_list(struct p9_end *e, uint32_t dir, void **listing)
{
	int fd = host(openat((int)dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	*listing = NULL;
	if (fd < 0) {
		return fd;
	}
	*listing = fdopendir(fd);
	if (!*listing) {
		close(fd);
		return -P9_ENOMEM;
	}
	return 0;
}

static int local_next(struct p9_end *e, void *listing, char *name)
{
	struct dirent *d;
	do {
		errno = 0;
		d = readdir(listing);
		if (!d) {
			return errno ? host(-1) : 0;
		}
	} while (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0);
	size_t n = strlen(d->d_name);
	if (n > P9_NAMEMAX) {
		return -P9_ENAMETOOLONG;
	}
	memcpy(name, d->d_name, n + 1);
	return 1;
}

static void local_unlist(struct p9_end *e, void *listing)
{
	if (listing) {
		closedir(listing);
	}
}

static int local_mkdir(struct p9_end *e, uint32_t dir, const char *name, uint32_t mode)
{
	return host(mkdirat((int)dir, name, mode));
}

static int local_symlink(struct p9_end *e, uint32_t dir, const char *name, const char *target)
{
	return host(symlinkat(target, (int)dir, name));
}

static int local_readlink(struct p9_end *e, uint32_t dir, const char *name, char *target)
{
	ssize_t n = readlinkat((int)dir, name, target, P9_TARGETMAX + 1);
	if (n < 0) {
		return host(-1);
	}
	if (n > (ssize_t)P9_TARGETMAX) {
		return -P9_ENAMETOOLONG;
	}
	target[n] = 0;
	return (int)n;
}

static int local_mknod(struct p9_end *e, uint32_t dir, const char *name, const struct p9_rgetattr *st)
{
	return host(mknodat((int)dir, name, (st->mode & S_IFMT) | 0600, st->rdev));
}

/* A file that is opened is a regular one: what it was when it was looked at does not count. */
static int open_regular(uint32_t dir, const char *name, int flags, struct p9_end_file *f)
{
	struct stat st;
	f->fd = host(openat((int)dir, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
	if (f->fd < 0) {
		return f->fd;
	}
	int rc = host(fstat(f->fd, &st));
	if (rc >= 0 && !S_ISREG(st.st_mode)) {
		rc = -P9_EEXIST;
	}
	if (rc < 0) {
		close(f->fd);
		f->fd = -1;
	}
	return rc;
}

static int local_open(struct p9_end *e, uint32_t dir, const char *name, struct p9_end_file *f)
{
	return open_regular(dir, name, O_RDONLY, f);
}

static int local_create(struct p9_end *e, uint32_t dir, const char *name, bool replace, struct p9_end_file *f)
{
	return open_regular(dir, name, O_WRONLY | O_CREAT | (replace ? O_TRUNC : O_EXCL), f);
}

static int local_close(struct p9_end *e, struct p9_end_file *f)
{
	int rc = host(close(f->fd));
	f->fd = -1;
	return rc;
}

static int local_unlink(struct p9_end *e, uint32_t dir, const char *name)
{
	return host(unlinkat((int)dir, name, 0));
}

static int local_set(struct p9_end *e, uint32_t dir, const char *name, const struct p9_tsetattr *set)
{
	int rc = 0;
	if (set->valid & P9_SETATTR_UID) {
		rc = host(fchownat((int)dir, name, set->uid, set->gid, AT_SYMLINK_NOFOLLOW));
	}
	if (rc >= 0 && (set->valid & P9_SETATTR_MODE)) {
		int fd = openat((int)dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		rc = host(fd < 0 ? fd : fchmod(fd, set->mode));
		if (fd >= 0) {
			close(fd);
		}
	}
	if (rc >= 0 && (set->valid & P9_SETATTR_MTIME_SET)) {
		struct timespec t[2] = { { (time_t)set->atime_sec, (long)set->atime_nsec },
					 { (time_t)set->mtime_sec, (long)set->mtime_nsec } };
		rc = host(utimensat((int)dir, name, t, AT_SYMLINK_NOFOLLOW));
	}
	return rc;
}

const struct p9_end_ops p9_end_local = {
	.root = local_root,
	.look = local_look,
	.enter = local_enter,
	.leave = local_leave,
	.list = local_list,
	.next = local_next,
	.unlist = local_unlist,
	.mkdir = local_mkdir,
	.symlink = local_symlink,
	.readlink = local_readlink,
	.mknod = local_mknod,
	.open = local_open,
	.create = local_create,
	.close = local_close,
	.unlink = local_unlink,
	.set = local_set,
};
