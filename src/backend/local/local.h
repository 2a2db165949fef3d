/* SPDX-License-Identifier: BSD-2-Clause */
/* local.h - what the files of the local backend share. A host directory, served by pinned descriptors.
 *
 * Rules that hold in every file here: no path of the host is used after the root was opened; one element at a time with
 * O_NOFOLLOW; a descriptor that is pinned with O_PATH is the file, whatever becomes of its names; only regular files
 * and directories are ever opened, after their type was read from the pinned descriptor.
 */
#ifndef P9_LOCAL_H
#define P9_LOCAL_H
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include "base/fdcount.h"
#include "base/hosterr.h"
#include "base/sys.h"
#include "p9/local.h"

struct lfd {
	_Atomic unsigned refs;
	int fd;
	enum {
		LFD_ALONE,
		LFD_ROOM,
		LFD_NODE
	} home; /* a piece of memory of its own; or of a node's, not yet or ever used */
};
struct lroot {
	struct p9_local_config conf;
	struct lfd *self;
	uint32_t major, minor;
	uint64_t ino;
	bool cloned;   /* a mount of our own: the kernel keeps ".." inside, and refuses devices and writes */
	bool sendable; /* pages may be handed to a socket by the kernel */
	void *tree;
	struct llocks *locks;
};
struct lnode {
	struct p9_node base;
	struct lroot *root;
	struct lfd *self;
	struct lfd *parent; /* where it was found, and under which name; for Tremove and Trename. NULL for a root */
	char *name;	    /* in `inline_name` or on the heap; under lnames_lock */
	uint32_t major, minor;
	uint64_t ino;
	mode_t type;	/* S_IFMT bits */
	bool shared_fd; /* self is an open file, not O_PATH: a clone must get a descriptor of its own */
	bool block;	/* the memory is a p9_block */
	struct lfd own; /* where self points when a walk made both: then this memory lives as long as that descriptor */
	char inline_name[];
};
struct lfile {
	struct p9_file base;
	struct lfd *io;		/* the open descriptor */
	uint64_t dir_next;	/* a directory: the cookie its kernel position is at */
	_Atomic bool no_nowait; /* the file system knows no RWF_NOWAIT; found out by any of those who read at once */
	bool dir_known;		/* dir_next is right */
};

#define LNODE(n) ((struct lnode *)(n))
#define LFILE(f) ((struct lfile *)(f))
#define LROOT(n) (LNODE(n)->root)

/* root.c */
extern int lprocfd; /* the directory of this process's descriptors */
int lprocfd_open(char *err, size_t cap);
/* A root of a descriptor, which it takes over when it succeeds. Returns 0 or -P9_Exxx. */
int lroot_new(const struct p9_local_config *conf, struct lfd *self, const struct statx *st, struct lroot **out);
struct lfd *lfd_new(int fd);
struct lfd *lfd_get(struct lfd *l);
int lfd_put(struct lfd *l);
void lproc_name(char buf[16], int fd);
void lproc_path(char buf[40], int fd);
/* procfs or sysfs: never served, wherever it is mounted, for its files lead out of any directory. */
bool lmagic_fs(int fd);
/* qid.c */
uint64_t lqid_path(uint32_t major, uint32_t minor, uint64_t ino);
struct p9_qid lqid_of(const struct statx *st);
uint8_t lqid_type(mode_t mode);
uint8_t lqid_volume(const struct lroot *r, const struct statx *st);
/* ident.c */
int lident_enter(struct p9_caller *c);
/* Like enter, but new files get group `gid` where that is allowed; leave undoes it. */
int lident_enter_gid(struct p9_caller *c, uint32_t gid);
void lident_leave_gid(struct p9_caller *c, uint32_t gid);
/* After a creation by an ordinary user who serves as himself: the group, where the kernel permits. */
void lident_give_gid(struct p9_caller *c, int dirfd, const char *name, uint32_t gid);
bool lident_may_gid(const struct p9_cred *cred, uint32_t gid);
/* lock.c */
struct llocks *llocks_new(void);
void llocks_free(struct llocks *l);
void llocks_pack(void *root, struct p9_pack *p);
void llocks_unpack(void *root, struct p9_unpack *u);
/* io.c: takes the reference to `io` over when it succeeds. */
int lfile_new(struct lnode *n, struct lfd *io, uint32_t flags, struct p9_file **out);
/* handover.c */
void local_pack_node(struct p9_node *n, struct p9_pack *p);
struct p9_node *local_unpack_node(void *root, struct p9_unpack *u);
void local_pack_file(struct p9_file *f, struct p9_pack *p);
struct p9_file *local_unpack_file(void *root, struct p9_unpack *u);
/* node.c */
extern pthread_mutex_t lnames_lock;
/* Takes the reference to `self` over when it succeeds. `from` is the directory it was found in. */
int lnode_new(struct lnode *from, struct lfd *self, const struct statx *st, struct p9_str name, struct lnode **out);
static inline bool lother_fs(const struct statx *st, uint32_t major, uint32_t minor)
{
	return st->stx_dev_minor != minor || st->stx_dev_major != major;
}
/* The node in whose memory a descriptor is that is not alone. */
static inline struct lnode *lnode_around(struct lfd *l)
{
	return (struct lnode *)((char *)l - offsetof(struct lnode, own));
}
void lnode_memory_put(struct lnode *n);
int lstat_fd(int fd, struct statx *st);
int lstat_name(int dirfd, const char *name, struct statx *st);
void lname_copy(char buf[P9_NAMEMAX + 1], struct p9_str s);

/* True when an interrupted call should be tried again: nobody wants it cancelled. */
static inline bool lretry(struct p9_caller *c, long rc)
{
	return rc < 0 && errno == EINTR && !atomic_load_explicit(c->cancel, memory_order_relaxed);
}
#define LRETRY(c, rc, expr) \
	do { \
		(rc) = (expr); \
	} while (lretry((c), (long)(rc)))

/* operations, one file per family */
int local_attach(struct p9_caller *c, void *arg, struct p9_node **out);
int local_walk(struct p9_caller *c, struct p9_node *n, const struct p9_strs *names, struct p9_qids *qids,
	       struct p9_node **out);
void local_free_node(struct p9_node *n);
int local_getattr(struct p9_caller *c, struct p9_node *n, uint64_t mask, struct p9_rgetattr *out);
int local_setattr(struct p9_caller *c, struct p9_node *n, struct p9_file *f, const struct p9_tsetattr *a);
int local_statfs(struct p9_caller *c, struct p9_node *n, struct p9_rstatfs *out);
int local_open(struct p9_caller *c, struct p9_node *n, uint32_t flags, struct p9_file **out);
int local_create(struct p9_caller *c, struct p9_node *dir, const struct p9_tlcreate *m, struct p9_file **out,
		 struct p9_qid *qid);
int local_symlink(struct p9_caller *c, struct p9_node *dir, const struct p9_tsymlink *m, struct p9_qid *out);
int local_mknod(struct p9_caller *c, struct p9_node *dir, const struct p9_tmknod *m, struct p9_qid *out);
int local_mkdir(struct p9_caller *c, struct p9_node *dir, const struct p9_tmkdir *m, struct p9_qid *out);
int local_link(struct p9_caller *c, struct p9_node *dir, struct p9_node *n, struct p9_str name);
int local_rename(struct p9_caller *c, struct p9_node *n, struct p9_node *dir, struct p9_str name);
int local_renameat(struct p9_caller *c, struct p9_node *from, struct p9_node *to, const struct p9_trenameat *m);
int local_unlinkat(struct p9_caller *c, struct p9_node *dir, struct p9_str name, uint32_t flags);
int local_remove(struct p9_caller *c, struct p9_node *n);
int local_readlink(struct p9_caller *c, struct p9_node *n, char *buf, size_t cap);
int local_getxattr(struct p9_caller *c, struct p9_node *n, struct p9_str name, void *buf, size_t cap);
int local_setxattr(struct p9_caller *c, struct p9_node *n, struct p9_str name, const void *value, size_t size,
		   uint32_t flags);
int local_readdir(struct p9_caller *c, struct p9_file *f, uint64_t offset, uint8_t *buf, uint32_t cap);
int64_t local_read(struct p9_caller *c, struct p9_file *f, uint64_t offset, const struct iovec *iov, int niov,
		   bool nowait);
int64_t local_write(struct p9_caller *c, struct p9_file *f, uint64_t offset, const struct iovec *iov, int niov);
int64_t local_ready(struct p9_caller *c, struct p9_file *f, uint64_t offset, uint32_t count);
int local_fsync(struct p9_caller *c, struct p9_file *f, bool datasync);
int local_lock(struct p9_caller *c, struct p9_file *f, const struct p9_lockreq *l);
int local_getlock(struct p9_caller *c, struct p9_file *f, const struct p9_lockreq *l, struct p9_rgetlock *out,
		  char *client_id, size_t cap);
int local_unlock_fid(struct p9_file *f, const void *session, const void *fid);
int local_close(struct p9_caller *c, struct p9_file *f);

#endif
