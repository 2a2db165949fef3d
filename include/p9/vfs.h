/* SPDX-License-Identifier: BSD-2-Clause */
/* vfs.h - a mount table over sessions, and open files with small numbers: the file calls of a kernel that has no files.
 *
 * Freestanding, like p9/session.h: the memory is the caller's, nothing is allocated later. One thread at a time.
 *
 * Sessions are mounted at absolute paths. A path belongs to the mount with the longest prefix, counted in whole
 * elements; what is left of it is walked in that session. Paths are brought into order first, as text: "." and empty
 * elements go, ".." takes the element before it (the root's is the root), so that no path leaves its mount by "..". A
 * symbolic link is followed within the session that it is found in, "/" being that session's root.
 *
 * Mount points need no directory below them. They, and the directories on the way to them, are there in any case: stat
 * says directory, the listing of the parent has them, once, in place of an entry of the same name that the parent's
 * session may have. They cannot be removed, renamed or made (EBUSY, EEXIST), and nothing can be made in a directory that
 * no session has (EROFS).
 *
 * Errors are one space, P9_Exxx as Linux numbers them. A server's number that is no known error is EIO, and so is every
 * call on a session that was lost; p9_session_error() has the reason.
 */
#ifndef P9_VFS_H
#define P9_VFS_H
#include "p9/session.h"
P9_C_BEGIN

struct p9_vfs;

#define P9_VFS_PATH 4096      /* bytes of a path in order, its end included; else ENAMETOOLONG */
#define P9_VFS_MOUNT_PATH 256 /* the same of a mount point */
#define P9_VFS_MOUNTS_MAX 64

struct p9_vfs_conf {
	unsigned mounts; /* at most P9_VFS_MOUNTS_MAX; 0 for 8 */
	unsigned files;	 /* open at once; 0 for 64 */
};
/* Bytes of memory, aligned to 16. */
size_t p9_vfs_memory(const struct p9_vfs_conf *conf);
P9_MUST_USE int p9_vfs_init(struct p9_vfs **out, const struct p9_vfs_conf *conf, void *mem, size_t len);

/* ---- mounts ---- */
/* -P9_EBUSY when something is mounted there, -P9_ENOSPC when the table is full, -P9_EINVAL for a relative path. */
P9_MUST_USE int p9_vfs_mount(struct p9_vfs *v, const char *path, struct p9_session *s);
/* -P9_EBUSY while files are open or listings run there; -P9_EINVAL when nothing is mounted at just this path. The session
 * is the caller's again. Mounts below stay. */
P9_MUST_USE int p9_vfs_unmount(struct p9_vfs *v, const char *path);
/* The i-th mount: its path, and its session in *s when s is not NULL. NULL behind the last. */
const char *p9_vfs_mounted(const struct p9_vfs *v, unsigned i, struct p9_session **s);

/* ---- open files ---- */
/* The smallest number that is free, or -P9_EMFILE, or an error. flags and mode as p9_session_open(). */
P9_MUST_USE int p9_vfs_open(struct p9_vfs *v, const char *path, uint32_t flags, uint32_t mode);
int p9_vfs_close(struct p9_vfs *v, int fd);
/* From, and moving, the file's offset. A write to a file opened with P9_O_APPEND goes to its end. */
P9_MUST_USE int64_t p9_vfs_read(struct p9_vfs *v, int fd, void *buf, size_t n);
P9_MUST_USE int64_t p9_vfs_write(struct p9_vfs *v, int fd, const void *buf, size_t n);
struct p9_vfs_span {
	void *buf;
	size_t n;
	uint64_t offset;
};
/* At an offset; the file's own stays. */
P9_MUST_USE int64_t p9_vfs_pread(struct p9_vfs *v, int fd, const struct p9_vfs_span *at);
P9_MUST_USE int64_t p9_vfs_pwrite(struct p9_vfs *v, int fd, const struct p9_vfs_span *at);
enum p9_vfs_whence { P9_SEEK_SET, P9_SEEK_CUR, P9_SEEK_END };
P9_MUST_USE int64_t p9_vfs_seek(struct p9_vfs *v, int fd, int64_t offset, enum p9_vfs_whence whence);
P9_MUST_USE int p9_vfs_fstat(struct p9_vfs *v, int fd, struct p9_rgetattr *st);
P9_MUST_USE int p9_vfs_ftruncate(struct p9_vfs *v, int fd, uint64_t size);
P9_MUST_USE int p9_vfs_fsync(struct p9_vfs *v, int fd, bool datasync);

/* ---- by path: as the session's calls of the same name ---- */
P9_MUST_USE int64_t p9_vfs_read_file(struct p9_vfs *v, const char *path, void *buf, size_t cap);
P9_MUST_USE int p9_vfs_write_file(struct p9_vfs *v, const char *path, const void *buf, size_t n, uint32_t mode);
P9_MUST_USE int p9_vfs_append(struct p9_vfs *v, const char *path, const void *buf, size_t n, uint32_t mode);
/* Mount points come last. An entry that no session has is a directory with a qid of its own. */
P9_MUST_USE int p9_vfs_list(struct p9_vfs *v, const char *path, const struct p9_lister *l);
P9_MUST_USE int p9_vfs_mkdir(struct p9_vfs *v, const char *path, uint32_t mode);
P9_MUST_USE int p9_vfs_unlink(struct p9_vfs *v, const char *path);
P9_MUST_USE int p9_vfs_rmdir(struct p9_vfs *v, const char *path);
P9_MUST_USE int p9_vfs_remove(struct p9_vfs *v, const char *path);
/* -P9_EXDEV between mounts; -P9_EBUSY for a mount point, or a directory on the way to one. */
P9_MUST_USE int p9_vfs_rename(struct p9_vfs *v, const char *from, const char *to);
P9_MUST_USE int p9_vfs_symlink(struct p9_vfs *v, const char *target, const char *path);
P9_MUST_USE int p9_vfs_link(struct p9_vfs *v, const char *from, const char *path);
P9_MUST_USE int p9_vfs_readlink(struct p9_vfs *v, const char *path, char *buf, size_t cap);
P9_MUST_USE int p9_vfs_stat(struct p9_vfs *v, const char *path, struct p9_rgetattr *st);
P9_MUST_USE int p9_vfs_lstat(struct p9_vfs *v, const char *path, struct p9_rgetattr *st);
P9_MUST_USE int p9_vfs_setattr(struct p9_vfs *v, const char *path, struct p9_tsetattr *set);
P9_MUST_USE int p9_vfs_truncate(struct p9_vfs *v, const char *path, uint64_t size);
P9_MUST_USE int p9_vfs_chmod(struct p9_vfs *v, const char *path, uint32_t mode);
P9_MUST_USE int p9_vfs_chown(struct p9_vfs *v, const char *path, uint32_t uid, uint32_t gid);
P9_MUST_USE int p9_vfs_utimes(struct p9_vfs *v, const char *path, const struct p9_time t[2]);
P9_MUST_USE int p9_vfs_statfs(struct p9_vfs *v, const char *path, struct p9_rstatfs *st);
P9_MUST_USE int64_t p9_vfs_xattr_get(struct p9_vfs *v, const char *path, const char *name, void *buf, size_t cap);
P9_MUST_USE int64_t p9_vfs_xattr_list(struct p9_vfs *v, const char *path, char *buf, size_t cap);
P9_MUST_USE int p9_vfs_xattr_set(struct p9_vfs *v, const char *path, const struct p9_xattr *x);
P9_MUST_USE int p9_vfs_xattr_remove(struct p9_vfs *v, const char *path, const char *name);

P9_C_END
#endif
