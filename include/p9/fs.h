/* SPDX-License-Identifier: BSD-2-Clause */
/* fs.h - files of a 9P2000.L server by path: what open(2), stat(2), cp(1), rm(1) and find(1) do, over a client's handle.
 *
 * All functions block. They use the handle `c` of client.h, connected by p9_client_dial() or p9_client_start(), along
 * with whatever else is in flight on it: callbacks of the program's own requests may run meanwhile. One thread at a
 * time may call them; with p9_client_thread() any thread, several at once, but not a callback. An open file or
 * directory belongs to one thread at a time in either case.
 *
 * Paths are bytes, walked from the attached root, '/' first or not; symbolic links on the way are followed inside of
 * the tree. Where a function has `follow`, it is P9_WALK_FOLLOW or P9_WALK_NOFOLLOW and says whether a symbolic link at
 * the end of the path is followed; functions without it say what they do. Sizes and offsets are bytes. Modes, open flags
 * (P9_O_...) and errors are Linux's numbers on every host.
 *
 * They return >= 0, or -P9_Exxx, and p9_client_error() has the text. When the link has ended the error is the link's,
 * and a call that changes something may or may not have done so. A reply that is no sane answer (a file without a type,
 * a size above 2^63-1) is -P9_EPROTO and leaves the link as it is. What a function has opened on the server it gives
 * back, also when it fails.
 */
#ifndef P9_FS_H
#define P9_FS_H
#include "p9/client.h"
P9_C_BEGIN

/* ---- attributes ---- */
/* All attributes the server has; `valid` says which (P9_GETATTR_...). stat follows a link at the end, lstat does not. */
P9_MUST_USE int p9_stat(struct p9_client *c, const char *path, struct p9_rgetattr *st);
P9_MUST_USE int p9_lstat(struct p9_client *c, const char *path, struct p9_rgetattr *st);
/* Figures of the file system that the path is on. */
P9_MUST_USE int p9_statfs(struct p9_client *c, const char *path, struct p9_rstatfs *st);
/* Permission bits (07777). Follows a link. */
P9_MUST_USE int p9_chmod(struct p9_client *c, const char *path, uint32_t mode);
/* Owner and group by number; P9_NONUNAME leaves one as it is. */
P9_MUST_USE int p9_chown(struct p9_client *c, const char *path, int follow, uint32_t uid, uint32_t gid);
/* Sets times. nsec below 10^9, P9_TIME_NOW for the server's clock, or P9_TIME_OMIT to leave one as it is. */
P9_MUST_USE int p9_utimens(struct p9_client *c, const char *path, int follow, const struct p9_time *atime,
			   const struct p9_time *mtime);
/* Cuts or extends with zeros. Follows a link. */
P9_MUST_USE int p9_truncate(struct p9_client *c, const char *path, uint64_t size);

/* ---- names ---- */
P9_MUST_USE int p9_mkdir(struct p9_client *c, const char *path, uint32_t mode);
/* Makes what is missing of a path, like mkdir -p; directories that are there stay as they are. -P9_ENOTDIR when
 * something else is in the way. */
P9_MUST_USE int p9_mkdir_all(struct p9_client *c, const char *path, uint32_t mode);
/* A device node, FIFO or socket: mode has the type (S_IFIFO...) too. rdev as of makedev(3), 0 for others. */
P9_MUST_USE int p9_mknod(struct p9_client *c, const char *path, uint32_t mode, uint64_t rdev);
/* Makes `path` a symbolic link with this text. */
P9_MUST_USE int p9_symlink(struct p9_client *c, const char *target, const char *path);
/* Terminated text of a link into buf; returns its length. -P9_ENAMETOOLONG when cap bytes do not hold it. */
P9_MUST_USE int p9_readlink(struct p9_client *c, const char *path, char *buf, size_t cap);
/* Makes `path` another name of the file `old`, which is not followed. */
P9_MUST_USE int p9_link(struct p9_client *c, const char *old, const char *path);
/* Moves; replaces what may be replaced, as rename(2). */
P9_MUST_USE int p9_rename(struct p9_client *c, const char *old, const char *path);
/* Removes a name that is no directory. */
P9_MUST_USE int p9_unlink(struct p9_client *c, const char *path);
P9_MUST_USE int p9_rmdir(struct p9_client *c, const char *path);
/* Either of the two. */
P9_MUST_USE int p9_remove(struct p9_client *c, const char *path);

/* ---- extended attributes ---- */
/* The value into buf; returns its size. With cap 0 only the size. -P9_ERANGE when it does not fit; -P9_E2BIG when the
 * server says that it has more than P9_XATTR_MAX bytes. */
P9_MUST_USE ssize_t p9_getxattr(struct p9_client *c, const char *path, int follow, const char *name, void *buf,
				size_t cap);
/* The names, each with a NUL behind it; sizes as above. */
P9_MUST_USE ssize_t p9_listxattr(struct p9_client *c, const char *path, int follow, void *buf, size_t cap);
/* flags: P9_XATTR_CREATE, P9_XATTR_REPLACE or 0. */
P9_MUST_USE int p9_setxattr(struct p9_client *c, const char *path, int follow, const char *name,
			    const struct p9_data *value, uint32_t flags);
P9_MUST_USE int p9_removexattr(struct p9_client *c, const char *path, int follow, const char *name);

/* ---- open files ---- */
struct p9_fh;
/* Opens what is there. flags: P9_O_RDONLY, P9_O_WRONLY or P9_O_RDWR, with P9_O_TRUNC, P9_O_APPEND, P9_O_NOFOLLOW (a
 * link at the end is -P9_ELOOP), P9_O_DIRECTORY, P9_O_SYNC, P9_O_DSYNC. The caller closes *out; it is NULL on errors. */
P9_MUST_USE int p9_open(struct p9_client *c, const char *path, uint32_t flags, struct p9_fh **out);
/* The same, and makes a file with these permission bits when there is none; with P9_O_EXCL there must be none. A link
 * at the end that leads to nothing is -P9_EEXIST. */
P9_MUST_USE int p9_create(struct p9_client *c, const char *path, uint32_t flags, uint32_t mode, struct p9_fh **out);
/* Closes and frees, whatever it returns; an error may be that of a write before. Accepts NULL. */
int p9_close(struct p9_fh *f);
/* Reads up to n bytes at an offset, with several requests in flight when n is large. Fewer come only at the end. */
P9_MUST_USE ssize_t p9_pread(struct p9_fh *f, void *buf, size_t n, uint64_t offset);
/* Writes all n bytes; returns n. After an error it is not known how much was written. A file opened with P9_O_APPEND
 * is written at its end, one request at a time, whatever the offset says. */
P9_MUST_USE ssize_t p9_pwrite(struct p9_fh *f, const void *buf, size_t n, uint64_t offset);
/* The same from where the last one ended, at first 0. */
P9_MUST_USE ssize_t p9_read(struct p9_fh *f, void *buf, size_t n);
P9_MUST_USE ssize_t p9_write(struct p9_fh *f, const void *buf, size_t n);
/* Where p9_read() and p9_write() go on; p9_tell() says. Neither asks the server. */
void p9_seek(struct p9_fh *f, uint64_t offset);
uint64_t p9_tell(const struct p9_fh *f);
P9_MUST_USE int p9_fstat(struct p9_fh *f, struct p9_rgetattr *st);
P9_MUST_USE int p9_ftruncate(struct p9_fh *f, uint64_t size);
/* Returns when what was written is on stable storage; datasync: without times and such. */
P9_MUST_USE int p9_fsync(struct p9_fh *f, bool datasync);
/* Its fid, for the functions of client.h; it stays the handle's. */
uint32_t p9_fh_fid(const struct p9_fh *f);

/* ---- byte-range locks ---- */
/* type: P9_LOCK_TYPE_RDLCK or P9_LOCK_TYPE_WRLCK. length 0: to the end of the file, however long it gets. Locks belong
 * to the process (by its number and the host's name), as fcntl(2)'s do: closing a handle may free them all. */
struct p9_range {
	uint64_t start, length;
	uint8_t type;
};
/* Waits until it is free. The server waits; one that cannot is asked again, each 20 ms at first and 1 s at last. */
P9_MUST_USE int p9_range_lock(struct p9_fh *f, const struct p9_range *r);
/* -P9_EAGAIN when somebody else holds it. */
P9_MUST_USE int p9_range_trylock(struct p9_fh *f, const struct p9_range *r);
/* Frees it, or a part; `type` is of no interest. */
P9_MUST_USE int p9_range_unlock(struct p9_fh *f, const struct p9_range *r);
/* 1 when somebody else's lock is in the way, which *holder then says; 0 when it could be taken. */
P9_MUST_USE int p9_range_test(struct p9_fh *f, const struct p9_range *r, struct p9_range *holder);

/* ---- whole files ---- */
/* All of a file into new memory, with a NUL behind it; free(3) it. -P9_EFBIG when there are more than `max` bytes (of
 * which none are kept). Follows links. */
P9_MUST_USE int p9_read_file(struct p9_client *c, const char *path, size_t max, void **data, size_t *len);
enum {
	P9_WRITE_ATOMIC = 1, /* into a new file beside it, which then takes its name: others see all or nothing */
	P9_WRITE_EXCL = 2,   /* -P9_EEXIST when it is there */
	P9_WRITE_SYNC = 4,   /* on stable storage before it returns (and, ATOMIC, before it takes the name) */
	P9_WRITE_APPEND = 8, /* behind what is there; not with ATOMIC */
};
struct p9_bytes {
	const void *data;
	size_t len;
};
/* Makes or replaces the content of a file; mode is for one that is made. ATOMIC keeps the mode of a file that was there
 * (not its owner, ACL or other names); a link at the end is replaced then, and followed otherwise. */
P9_MUST_USE int p9_write_file(struct p9_client *c, const char *path, const struct p9_bytes *content, uint32_t mode,
			      unsigned flags);

/* ---- directories ---- */
/* What is in a directory, one by one in the server's order; "." and ".." are left out. */
struct p9_fs_dir;
struct p9_fs_entry {
	const char *name; /* until the next call */
	uint8_t type;	  /* as in <dirent.h>: 4 directory, 8 file, 10 link; 0 when not known */
	struct p9_qid qid;
	uint64_t cookie; /* for p9_dir_seek(): goes on behind it */
	int error;	 /* attributes were asked for and there are none: 0 or -P9_Exxx (-P9_ENOENT: it has gone) */
	struct p9_rgetattr st; /* with P9_DIR_ATTRS and without error; its type is the entry's then */
};
enum {
	P9_DIR_PLAIN = 0,
	P9_DIR_ATTRS = 1, /* sizes, types, times and all: asked for with as many requests in flight as there is room */
};
/* Opens; follows a link at the end. The caller closes *out; NULL on errors. It holds one block of entries (32 KiB, and
 * 0.5 MiB with attributes) however large the directory is. */
P9_MUST_USE int p9_dir_open(struct p9_client *c, const char *path, unsigned flags, struct p9_fs_dir **out);
/* 1 with the next entry, 0 at the end. -P9_EPROTO for a server that goes round in a circle, -P9_EOVERFLOW beyond the
 * bound: a listing ends. */
P9_MUST_USE int p9_dir_next(struct p9_fs_dir *d, struct p9_fs_entry *e);
/* Goes on behind an entry that had this cookie; 0 begins again. */
void p9_dir_seek(struct p9_fs_dir *d, uint64_t cookie);
/* Most entries of one listing; 2^32 unless told. */
void p9_dir_bound(struct p9_fs_dir *d, uint64_t entries);
/* Accepts NULL. */
void p9_dir_close(struct p9_fs_dir *d);
/* All entries to a function, until it returns not 0, which is then returned. */
typedef int p9_dir_fn(void *arg, const struct p9_fs_entry *e);
P9_MUST_USE int p9_list_dir(struct p9_client *c, const char *path, unsigned flags, p9_dir_fn *f, void *arg);

/* ---- trees ---- */
/* Depth is bounded by P9_TREE_DEPTH (-P9_ELOOP beyond); memory by the depth, not by the number of files. Links are
 * never followed, not even by somebody who puts one in the place of a directory meanwhile; the path given is followed. */
enum { P9_TREE_DEPTH = 4096 };
struct p9_visit {
	const char *path; /* the path given, and the names below it; until the function returns */
	const char *name; /* its last element */
	unsigned depth;	  /* 0 for the path given */
	bool leaving;	  /* a directory, for the second time: all in it has been seen */
	int error;	  /* a directory that cannot be listed, or a file without attributes; it is not entered */
	uint8_t type;	  /* as above */
	const struct p9_rgetattr *st; /* NULL without P9_WALK_TREE_ATTRS (and when leaving, or on error) */
};
enum {
	P9_WALK_TREE_ATTRS = 1,
	P9_WALK_TREE_POST = 2, /* directories are seen when left, too */
};
enum { P9_VISIT_SKIP = 1 }; /* returned for a directory: leave out what is in it */
/* Returns 0 to go on, P9_VISIT_SKIP, or -P9_Exxx to stop. */
typedef int p9_visit_fn(void *arg, const struct p9_visit *v);
/* A directory is seen before what is in it. Without an error of the function's the result is 0, or what could not be
 * listed first, when the function did not mind. */
P9_MUST_USE int p9_walk_tree(struct p9_client *c, const char *path, unsigned flags, p9_visit_fn *f, void *arg);
/* Removes a file, or a directory with all that is in it, as rm -r; a link at the end is removed, not followed. Goes on
 * after errors and returns the first. */
P9_MUST_USE int p9_remove_tree(struct p9_client *c, const char *path);

/* ---- copies ---- */
/* One end of a copy: a path of a server, or (client NULL) of this host. Of the host, what is below the path is reached
 * from it by names that are no links. */
struct p9_place {
	struct p9_client *client;
	const char *path;
};
enum {
	P9_COPY_TIMES = 1,   /* and modification and access times */
	P9_COPY_OWNER = 2,   /* and owner and group, by number */
	P9_COPY_SPARSE = 4,  /* leaves holes where all bytes of a request are zeros */
	P9_COPY_REPLACE = 8, /* files that are there are overwritten; without, -P9_EEXIST */
};
struct p9_copied { /* what has been done; fill the first two, zero the rest */
	/* Called for each entry when it is through; error is 0 or -P9_Exxx, text the p9_client_error() of the end that
	 * failed. Returns 0 to go on, or -P9_Exxx to stop. NULL: stop at the first error. */
	int (*each)(void *arg, const char *path, int error, const char *text);
	void *arg;
	uint64_t files, directories, links, others, bytes;
};
/* Copies a file, or a directory with all that is in it: within a server, between two, from or to this host. `to` names
 * the copy itself, never a directory to put it in; directories that are there are gone into. Permission bits are copied
 * without set-id bits unless P9_COPY_OWNER; links as links; devices, FIFOs and sockets as such, as far as one may.
 * Hard links become files of their own; extended attributes stay behind. Returns 0 or the first error. A file whose
 * copying fails is removed. stats may be NULL. */
P9_MUST_USE int p9_copy_tree(const struct p9_place *from, const struct p9_place *to, unsigned flags,
			     struct p9_copied *stats);

P9_C_END
#endif
