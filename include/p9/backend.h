/* SPDX-License-Identifier: BSD-2-Clause */
/* backend.h - the contract between the server and what stores the files.
 *
 * Operations are shaped like 9P messages: walk takes all the names, readdir an offset. They may run on any thread, and
 * on several at once for different nodes and for reads of one node; the server orders the rest per fid. An operation
 * may block: the server's loop is handed on when it does. All return >= 0 or -P9_Exxx. Names have been checked (one
 * path element, no '/', no NUL, 1..255 bytes) and point into the request.
 *
 * A node is a file as such: identity that stays valid whatever happens to its names. A file is a node that was opened.
 * Both are counted; the server takes and drops references with p9_node_get/put and p9_file_get/put, from any thread.
 */
#ifndef P9_BACKEND_H
#define P9_BACKEND_H
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/uio.h>
#include "p9/error.h"
#include "p9/messages.h"

/* Who a request acts as. Immutable while it has references. */
struct p9_cred {
	_Atomic unsigned refs;
	bool daemon;  /* act as the process is: no switching (--identity single) */
	bool checked; /* the peer's kernel has checked permissions: keep DAC_OVERRIDE, CHOWN, FOWNER (checks=client) */
	uint32_t uid, gid, ngroups;
	uint32_t groups[];
};

/* One call in progress. Lives on the stack of the thread that runs it. */
struct p9_caller {
	const struct p9_cred *cred;
	const void **ident;	    /* cell of this thread: the cred it has put on last; backends that switch keep it */
	const _Atomic bool *cancel; /* true once the client has flushed: a call that is interrupted may then give up */
};

struct p9_backend;
struct p9_pack;
struct p9_unpack;

struct p9_node {
	_Atomic unsigned refs;
	uint8_t qtype;	/* P9_QT*: never changes */
	uint8_t volume; /* which of the export's file systems it is on: they hang, and are slow, one by one */
	bool portal;	/* synth: stands for the root of an export */
	const struct p9_backend *be;
	void *tree; /* what attach was given: struct p9_export, for the server */
};

struct p9_file {
	_Atomic unsigned refs;
	const struct p9_backend *be;
	struct p9_node *node;
	uint32_t flags; /* P9_O_* it was opened with */
	int fd;		/* a regular file that may be read by the kernel itself (sendfile), else -1 */
};

/* A lock or a question about one. Owner is (session, proc_id, client_id). */
struct p9_lockreq {
	const void *session;
	const void *fid; /* through which fid: its clunk releases what was taken through it */
	uint8_t type;	 /* P9_LOCK_TYPE_* */
	uint32_t proc_id;
	struct p9_str client_id;
	uint64_t start, length;
	_Atomic unsigned *held; /* ranges this session holds; kept by the backend, at most P9_LOCKS_MAX */
};

struct p9_backend {
	const char *name;
	/* Root of the tree `arg` (what the export was configured with). */
	int (*attach)(struct p9_caller *c, void *arg, struct p9_node **out);
	/* Walks names (1..16). Returns 0 with qids->n names walked; *out is the node reached when that is all of them,
	 * else NULL. An error only when the first name fails. Symbolic links are reached, never followed. */
	int (*walk)(struct p9_caller *c, struct p9_node *n, const struct p9_strs *names, struct p9_qids *qids,
		    struct p9_node **out);
	/* Attributes of a node, open or not, linked or not. `valid` says which fields are true; mask may be ignored. */
	int (*getattr)(struct p9_caller *c, struct p9_node *n, uint64_t mask, struct p9_rgetattr *out);
	/* f is the open file of the fid, or NULL: a file that is open for writing can be truncated through it. */
	int (*setattr)(struct p9_caller *c, struct p9_node *n, struct p9_file *f, const struct p9_tsetattr *a);
	/* Figures of the file system that holds the node; bsize is never 0. */
	int (*statfs)(struct p9_caller *c, struct p9_node *n, struct p9_rstatfs *out);
	/* Opens a regular file or a directory; -P9_ELOOP for a link, -P9_ENXIO for anything else, at once. */
	int (*open)(struct p9_caller *c, struct p9_node *n, uint32_t flags, struct p9_file **out);
	/* Creates a regular file and opens it; when it exists and flags lack O_EXCL, opens it. */
	int (*create)(struct p9_caller *c, struct p9_node *dir, const struct p9_tlcreate *m, struct p9_file **out,
		      struct p9_qid *qid);
	/* The text of the link is stored as it came and never followed. */
	int (*symlink)(struct p9_caller *c, struct p9_node *dir, const struct p9_tsymlink *m, struct p9_qid *out);
	/* A node of the type in m->mode; devices only where the export allows them (-P9_EPERM). */
	int (*mknod)(struct p9_caller *c, struct p9_node *dir, const struct p9_tmknod *m, struct p9_qid *out);
	/* A directory; its group is m->gid where the kernel permits, as for all that is created. */
	int (*mkdir)(struct p9_caller *c, struct p9_node *dir, const struct p9_tmkdir *m, struct p9_qid *out);
	/* A further name for n, in dir. */
	int (*link)(struct p9_caller *c, struct p9_node *dir, struct p9_node *n, struct p9_str name);
	/* Moves the node by itself: -P9_ESTALE when it is no longer where it was found. */
	int (*rename)(struct p9_caller *c, struct p9_node *n, struct p9_node *dir, struct p9_str name);
	/* Moves an entry; from and to are of one export, else the server has said -P9_EXDEV. */
	int (*renameat)(struct p9_caller *c, struct p9_node *from, struct p9_node *to, const struct p9_trenameat *m);
	/* Removes an entry; flags has P9_DOTL_AT_REMOVEDIR for a directory. */
	int (*unlinkat)(struct p9_caller *c, struct p9_node *dir, struct p9_str name, uint32_t flags);
	/* Removes the node by itself, as rename does. -P9_EBUSY for the root. */
	int (*remove)(struct p9_caller *c, struct p9_node *n);
	/* Returns the length of the text, at most P9_TARGETMAX. */
	int (*readlink)(struct p9_caller *c, struct p9_node *n, char *buf, size_t cap);
	/* Value, or list of names when name.len is 0. cap 0 asks for the size. Returns bytes, -P9_ERANGE if cap is less. */
	int (*getxattr)(struct p9_caller *c, struct p9_node *n, struct p9_str name, void *buf, size_t cap);
	/* value NULL removes. */
	int (*setxattr)(struct p9_caller *c, struct p9_node *n, struct p9_str name, const void *value, size_t size,
			uint32_t flags);
	/* Whole Rreaddir entries from `offset` on; returns bytes, 0 at the end, -P9_EINVAL if not even one fits. */
	int (*readdir)(struct p9_caller *c, struct p9_file *f, uint64_t offset, uint8_t *buf, uint32_t cap);
	/* With nowait: -P9_EAGAIN instead of waiting for a disk, when that can be told. */
	int64_t (*read)(struct p9_caller *c, struct p9_file *f, uint64_t offset, const struct iovec *iov, int niov,
			bool nowait);
	int64_t (*write)(struct p9_caller *c, struct p9_file *f, uint64_t offset, const struct iovec *iov, int niov);
	/* How many bytes from offset on are there at once, up to count, so that the kernel may send them itself; or
	 * -P9_EAGAIN to go through read. */
	int64_t (*ready)(struct p9_caller *c, struct p9_file *f, uint64_t offset, uint32_t count);
	/* Reports write errors of the file since it was opened, as fsync(2). */
	int (*fsync)(struct p9_caller *c, struct p9_file *f, bool datasync);
	/* Never wait: -P9_EAGAIN when another owner is in the way. */
	int (*lock)(struct p9_caller *c, struct p9_file *f, const struct p9_lockreq *l);
	/* Who is in the way: out->type P9_LOCK_TYPE_UNLCK for nobody. out->client_id may point into client_id. */
	int (*getlock)(struct p9_caller *c, struct p9_file *f, const struct p9_lockreq *l, struct p9_rgetlock *out,
		       char *client_id, size_t cap);
	/* Releases what a session has taken through one fid. Returns how many ranges that were. */
	int (*unlock_fid)(struct p9_file *f, const void *session, const void *fid);
	/* Last reference gone. close may report a late write error; the file is freed all the same. */
	int (*close)(struct p9_caller *c, struct p9_file *f);
	void (*free_node)(struct p9_node *n);
	/* For another process that goes on in our place (base/pack.h); NULL: what this backend serves cannot be handed
	 * over. Called while nothing else is at work. Each unpack reads what its pack wrote and says what is wrong with
	 * it in u; `root` is the export's. A node and a file are returned with a reference for the caller. */
	void (*pack_node)(struct p9_node *n, struct p9_pack *p);
	struct p9_node *(*unpack_node)(void *root, struct p9_unpack *u);
	void (*pack_file)(struct p9_file *f, struct p9_pack *p);
	struct p9_file *(*unpack_file)(void *root, struct p9_unpack *u);
	/* Locks of sessions and fids that the pack knows, with those as things, and their `held` as one, too. */
	void (*pack_locks)(void *root, struct p9_pack *p);
	void (*unpack_locks)(void *root, struct p9_unpack *u);
};

static inline struct p9_node *p9_node_get(struct p9_node *n)
{
	atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
	return n;
}
static inline void p9_node_put(struct p9_node *n)
{
	if (n && atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) == 1) {
		n->be->free_node(n);
	}
}
static inline struct p9_file *p9_file_get(struct p9_file *f)
{
	atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
	return f;
}
/* Returns what close returned, or 0. c may be NULL where nobody can be told. */
static inline int p9_file_put(struct p9_caller *c, struct p9_file *f)
{
	if (!f || atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) != 1) {
		return 0;
	}
	return f->be->close(c, f);
}
static inline struct p9_cred *p9_cred_get(struct p9_cred *c)
{
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}
static inline void p9_cred_put(struct p9_cred *c)
{
	if (c && atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1) {
		__builtin_free(c);
	}
}

#endif
