/* SPDX-License-Identifier: BSD-2-Clause */
/* fs_end.h - one end of a copy: a server's tree or this host's, by directories and single names.
 *
 * A directory is a number: a fid, or a descriptor. All functions return >= 0 or -P9_Exxx. Nothing follows a link but
 * `root`. What is written here may come from a hostile server: a name is one path element, always.
 */
#ifndef P9_CLIENT_FS_END_H
#define P9_CLIENT_FS_END_H
#include "client/fs.h"

struct p9_end;
struct p9_end_file { /* opened by one of the ends */
	struct p9_fh *fh;
	int fd;
};

struct p9_end_ops {
	/* The directory that holds the path's last element, and that element (P9_NAMEMAX + 1 bytes). */
	int (*root)(struct p9_end *e, const char *path, uint32_t *dir, char *name);
	int (*look)(struct p9_end *e, uint32_t dir, const char *name, struct p9_rgetattr *st);
	/* Goes into a directory. */
	int (*enter)(struct p9_end *e, uint32_t dir, const char *name, uint32_t *out);
	void (*leave)(struct p9_end *e, uint32_t dir);
	/* Begins a listing, gives the next name (1, 0 at the end), and ends it. */
	int (*list)(struct p9_end *e, uint32_t dir, void **listing);
	int (*next)(struct p9_end *e, void *listing, char *name);
	void (*unlist)(struct p9_end *e, void *listing);
	int (*mkdir)(struct p9_end *e, uint32_t dir, const char *name, uint32_t mode);
	int (*symlink)(struct p9_end *e, uint32_t dir, const char *name, const char *target);
	int (*readlink)(struct p9_end *e, uint32_t dir, const char *name, char *target); /* P9_TARGETMAX + 1 bytes */
	int (*mknod)(struct p9_end *e, uint32_t dir, const char *name, const struct p9_rgetattr *st);
	int (*open)(struct p9_end *e, uint32_t dir, const char *name, struct p9_end_file *f);
	/* A new file, or with `replace` one that is there, emptied. */
	int (*create)(struct p9_end *e, uint32_t dir, const char *name, bool replace, struct p9_end_file *f);
	int (*close)(struct p9_end *e, struct p9_end_file *f);
	int (*unlink)(struct p9_end *e, uint32_t dir, const char *name);
	/* Mode, and what else `valid` says, of a file or directory that is there; not of links but owner and times. */
	int (*set)(struct p9_end *e, uint32_t dir, const char *name, const struct p9_tsetattr *set);
};

struct p9_end {
	const struct p9_end_ops *ops;
	struct p9_client *client; /* NULL: this host */
};

extern const struct p9_end_ops p9_end_remote, p9_end_local;

#endif
