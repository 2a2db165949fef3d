/* SPDX-License-Identifier: BSD-2-Clause */
/* vfs.h - what the files of the mount table share: the tables, and from a path to its mount.
 *
 * Must stay true: a mount's `path` is in order, begins with '/' and, but for "/" itself, does not end with one; `len` is
 * its length, 0 for "/", so that path[len] of any path below it is a '/' or the end.
 */
#ifndef P9_VFS_VFS_H
#define P9_VFS_VFS_H
#include "p9/vfs.h"

struct p9_mount {
	struct p9_session *session; /* NULL: free */
	unsigned users;		    /* open files and listings that run */
	unsigned len;
	char path[P9_VFS_MOUNT_PATH];
};
struct p9_open_file {
	struct p9_mount *mount; /* NULL: free */
	struct p9_handle h;
	uint64_t offset;
};
struct p9_vfs {
	struct p9_mount *mounts;
	struct p9_open_file *files;
	unsigned nmounts, nfiles;	     /* places in the tables; a mount keeps its own */
	char a[P9_VFS_PATH], b[P9_VFS_PATH]; /* paths in order, of the call that runs */
};

/* Where a path leads. */
struct p9_spot {
	struct p9_mount *mount; /* NULL: no session has it */
	const char *rest;	/* in that session, from its root; a trailing slash is kept */
	unsigned len;		/* of the path in order, without a trailing slash; 0 for "/" */
	bool is_mount;		/* the path is the mount's own */
	bool on_the_way;	/* a mount lies below it */
};
/* Brings `path` into order in `text` (P9_VFS_PATH bytes). Returns 0, -P9_ENAMETOOLONG, or -P9_EINVAL (relative). */
P9_MUST_USE int p9_vfs_order(const char *path, char *text, unsigned *len);
/* The same, and finds the mount. */
P9_MUST_USE int p9_vfs_find(struct p9_vfs *v, const char *path, char *text, struct p9_spot *at);
/* Whether a mount lies below the first `len` bytes of a path in order. */
bool p9_vfs_below(const struct p9_mount *m, const char *text, unsigned len);
/* An error of a session in the one space of errors. */
int64_t p9_vfs_error(const struct p9_mount *m, int64_t rc);
/* Attributes of a directory that no session has. */
void p9_vfs_made_up(const char *text, unsigned len, struct p9_rgetattr *st);

#endif
