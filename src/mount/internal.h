/* SPDX-License-Identifier: BSD-2-Clause */
/* internal.h - the mount's inodes, handles and requests, for the files of src/mount/ alone.
 *
 * One thread. A FUSE request (struct p9_mreq) runs an operation (struct p9_mop): steps, each of them one 9P request,
 * that are built when they can be sent, and a function that answers once all are through.
 */
#ifndef P9_MOUNT_INTERNAL_H
#define P9_MOUNT_INTERNAL_H
#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <sys/stat.h>
#include "base/spin.h"
#include "mount/mount.h"

#define P9_MHEAD_MS 1000u /* how long content that was read with an open may be handed out */
#define P9_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* What tells whether a file's content has changed since. */
struct p9_mstamp {
	uint64_t size, mtime, mtime_nsec, ctime, ctime_nsec;
	uint32_t version;
};

/* A file that the kernel knows. Its address is the kernel's nodeid. */
struct p9_minode {
	struct p9_minode *next;		 /* in the hash chain */
	struct p9_minode *next_named;	 /* in the chain of names */
	struct p9_minode *newer, *older; /* among those with a fid that no request needs now */
	uint64_t path;			 /* of the qid */
	uint8_t qtype;
	bool hashed, listed;
	uint32_t fid;  /* walked, never open; P9_NOFID while the server is not to keep it */
	uint32_t mode; /* as last seen; the type never changes */
	uint32_t gid;
	uint32_t refs; /* children that were found in it, handles, requests */
	uint32_t busy; /* requests: its fid stays */
	uint64_t nlookup, generation;
	uint64_t size;			  /* as far as known here */
	uint64_t told_when, told_changes; /* when its attributes were, with a name */
	struct p9_mstamp told;		  /* what the kernel was told last */
	struct p9_mstamp cached;	  /* what was true when the kernel began to cache the content */
	bool content;			  /* it has read since */
	struct p9_mhandle *handles;
	struct p9_mowner *owners; /* of POSIX locks */
	struct p9_minode *dir;	  /* where it was found last; counted in its refs */
	struct p9_mahead *ahead;  /* what ahead.c knows of it */
	/* Of directories, for ahead.c: lookups that went to the server, and what reading ahead was good for. */
	uint64_t looked, looked_changes, rests_until, ahead_cookie;
	uint32_t looks, fetched, used;
	bool fetching;
	/* Attributes that it has not (xattr.c), by bits. */
	uint8_t absent, absent_epoch;
	uint64_t absent_when, absent_changes;
	char *name;
};

/* Somebody else than us who made something. */
struct p9_muser {
	struct p9_muser *next;
	uint32_t uid;
	uint32_t fid; /* of the root, attached as that user; P9_NOFID: the server refused */
};

/* Who holds POSIX locks on an inode. */
struct p9_mowner {
	struct p9_mowner *next;
	uint64_t owner; /* the kernel's */
	uint32_t id;	/* the server's */
	pid_t pid;
};

/* An open file or directory. Its address is the kernel's fh. */
struct p9_mhandle {
	struct p9_mhandle *next; /* of the same inode */
	struct p9_minode *ino;
	uint32_t fid, refs, flags;
	uint32_t iosize;
	uint32_t flock_id; /* owner of its flock; 0 when it never had one */
	/* Directories: entries that were read and not yet given out. */
	uint8_t *ents;
	uint32_t ents_len, ents_pos;
	uint64_t cookie;	/* what the kernel will ask for next if it reads on */
	uint64_t mark;		/* a cookie seen before: a listing that comes back to it would never end */
	unsigned steps, stride; /* since the mark, and until the next */
	/* Files: the whole content of a small one, read with the open, for the first read. */
	uint8_t *head;
	uint32_t head_len;
	uint64_t head_changes, head_when;
};

enum { P9_MCALL_IDLE, P9_MCALL_QUEUED, P9_MCALL_SENT, P9_MCALL_DONE };
struct p9_mcall {
	struct p9_call call; /* first */
	struct p9_mcall *next;
	struct p9_mreq *req;
	uint64_t since; /* queued, ms */
	uint32_t makes; /* fid that this step is to make, and */
	uint32_t made;	/* the same once it was made, until somebody takes it; P9_NOFID for none */
	uint32_t ends;	/* fid that is gone when this is answered; P9_NOFID */
	uint32_t got;	/* bytes read or written */
	uint16_t index;
	uint8_t state;
	bool cancelled;
	int error; /* 0 or -P9_Exxx */
};

struct p9_mop {
	const char *name;
	uint8_t steps; /* of a chain: each needs those before it. 0: as many as p9_mreq_many() was told, independent */
	bool serial;   /* a chain that waits for each reply */
	bool by_name;  /* steps are on different fids: a server may run them in another order */
	bool patient;  /* may take any time */
	bool changes;  /* names or attributes at the server */
	bool writes;   /* changes content, or asks for locks: what was read before it may be old */
	/* Fills the request. Returns 0, P9_MSKIP when it is not needed, or -P9_Exxx. */
	int (*build)(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst);
	/* Takes what it wants from the reply, which is no error. May be NULL. Returns 0, or -P9_Exxx for a lie. */
	int (*took)(struct p9_mreq *r, unsigned i, const struct p9_msg *reply);
	/* All steps are through, r->error says how. Answers by one of p9_mreq_...(), or begins the next operation. */
	void (*finish)(struct p9_mreq *r);
};
enum { P9_MSKIP = 1 };

/* One entry of a readdirplus. */
struct p9_mentry {
	struct p9_qid qid;
	uint64_t offset;
	uint8_t type;
	uint16_t name_len;
	const uint8_t *name; /* in the handle's or the request's buffer */
	struct p9_minode *ino;
	struct p9_rgetattr attr;
	uint32_t fid;
	uint8_t absent;
	bool walked, got, counted, fresh;
};

struct p9_mreq {
	struct p9_mount *m;
	fuse_req_t req; /* NULL once it was answered */
	const struct p9_mop *op;
	struct p9_mreq *next, *prev; /* of all that live; next also of the free list */
	struct p9_mreq *late;	     /* list of those that a signal interrupted, or that are to be tried again */
	uint64_t when, changes;	     /* and what m->changes was when it began */
	struct p9_mcall *calls, few[4];
	uint16_t ncalls, open, sheds;
	bool sending, serial, resent, interrupted, waiting;
	bool cancelling;	     /* some of its calls, as soon as a tag is free */
	int error;		     /* of the first step that failed: -P9_Exxx */
	uint16_t failed;	     /* which */
	struct p9_minode *ino, *dir; /* counted; dir: parent, or a rename's second */
	struct p9_mhandle *h;	     /* counted */
	const struct p9_mop *then;   /* the operation, while a fid is walked again for it */
	struct p9_minode *lost;
	unsigned depth;				/* names on the way to it */
	const struct p9_mop *then_as, *then_us; /* what makes an entry, as its maker, and as ourselves */
	uint32_t maker, as;			/* his uid; the directory, walked to from his attach, or P9_NOFID */
	struct fuse_file_info fi;
	uint32_t fid[2];
	uint32_t held[2]; /* fids that an operation before this one made */
	struct p9_qid qid;
	struct p9_rgetattr attr;
	uint8_t *buf; /* a read's bytes, or the kernel's own request */
	enum { P9_BUF_NONE, P9_BUF_HEAP, P9_BUF_READ, P9_BUF_IN } buf_kind;
	size_t size, done;
	uint64_t off;
	const uint8_t *data; /* of a write or an xattr, in buf or text */
	uint32_t piece;
	uint32_t u32[3];
	struct p9_tsetattr set;
	struct p9_tlock lock;
	struct p9_mowner *owner;
	struct p9_mentry *entries;
	unsigned nentries;
	char *text; /* a second string; allocated */
	char name[256];
};

/* A Tclunk that nobody waits for. */
struct p9_mclunk {
	struct p9_call call; /* first */
	struct p9_mount *m;
	struct p9_mclunk *next;
};

struct p9_mount {
	struct p9_client *client;
	struct fuse_session *se;
	struct p9_mount_opts o;
	struct p9_minode root;
	struct p9_minode **hash, **names;
	size_t nhash, ninodes, most_inodes, nfids;
	struct p9_minode *newest, *oldest;
	uint64_t generation;
	struct p9_mcall *queue, **queue_end;
	struct p9_muser *users;
	struct p9_mreq *free_reqs, *live, *late;
	struct p9_mahead *ahead, *ahead_last;
	unsigned naheads, fetching; /* what is kept; directories that are being read ahead */
	uint64_t changes;  /* counts operations that change or write, when they begin and when they have ended */
	uint64_t xchanges; /* the same of those that change */
	/* Names of extended attributes that programs asked for last, and files did not have. */
	struct p9_mxname {
		char name[64];
		int error;
		bool of[2]; /* of files that are no directories, of directories */
		uint64_t when;
	} xnames[2];
	uint8_t xepoch;	  /* of these two */
	size_t heads;	  /* bytes in all p9_mhandle.head */
	uint32_t *clunks; /* fids to be given back when there is nothing better to do */
	size_t nclunks, clunks_cap;
	struct p9_mclunk clunking[32], *free_clunks;
	struct fuse_buf in; /* what the kernel's next request is read into */
	void *ins[16];	    /* others like it, allocated by libfuse */
	void *bufs[16];	    /* for reads, of P9_MOUNT_IO bytes */
	unsigned nins, nbufs;
	uint32_t lock_id;
	unsigned lock_waits;
	struct p9_spin spin;	  /* looking for replies before waiting for them */
	struct p9_spin spin_asks; /* the same for the kernel's requests */
	bool asked;		  /* it has asked since it was looked for */
	bool ordered;		  /* the server keeps the order of requests on a fid */
	bool older;		  /* it has no Tunlinkat and no Trenameat */
	bool mounted, inited, no_security;
	bool dead_said;
	char client_id[80];
};

/* ---- req.c ---- */
struct p9_mreq *p9_mreq_new(struct p9_mount *m, fuse_req_t req);
/* For operations on an inode, on a name in a directory, on an open file. NULL when it was answered already. */
struct p9_mreq *p9_mreq_ino(fuse_req_t req, fuse_ino_t ino);
struct p9_mreq *p9_mreq_name(fuse_req_t req, fuse_ino_t dir, const char *name);
struct p9_mreq *p9_mreq_open(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi);
/* Starts an operation: at once, or once lost fids were found again. */
void p9_mreq_begin(struct p9_mreq *r, const struct p9_mop *op);
/* Goes on with another operation. */
void p9_mreq_chain(struct p9_mreq *r, const struct p9_mop *op);
/* Makes room for n independent steps; before p9_mreq_begin(). False without memory, and then it was answered. */
#define P9_MOUNT_IO (1u << 20) /* most bytes of a read or write of the kernel's */
bool p9_mreq_many(struct p9_mreq *r, unsigned n);
/* Sends step i of independent ones, which p9_mreq_begin() left out because build() said P9_MSKIP. */
void p9_mreq_step(struct p9_mreq *r, unsigned i);
/* A fid for a step that makes one. Returns 0 or -P9_Exxx. */
P9_MUST_USE int p9_mreq_fid(struct p9_mreq *r, unsigned slot);
/* A fid that a step made is the caller's from here on. */
void p9_mreq_take(struct p9_mreq *r, uint32_t fid);
/* Answers; each ends the request. `error` is 0 or -P9_Exxx. */
void p9_mreq_err(struct p9_mreq *r, int error);
void p9_mreq_attr(struct p9_mreq *r);
void p9_mreq_entry(struct p9_mreq *r, struct p9_minode *ino);
void p9_mreq_buf(struct p9_mreq *r, const void *buf, size_t n);
void p9_mreq_free(struct p9_mreq *r);
/* steps.c: clunks what steps have made, and with `held` what those before them did. */
void p9_mreq_drop_made(struct p9_mreq *r, bool held);
/* Goes on from the step that failed. */
void p9_mreq_resume(struct p9_mreq *r);
/* Ends steps that have waited for a tag for too long. */
void p9_mount_expire(struct p9_mount *m, uint64_t now);
/* late.c: minds signals from here on. */
void p9_mreq_watch(struct p9_mreq *r);
void p9_mreq_unlate(struct p9_mreq *r);
/* Does it again in a while: `ms`. */
void p9_mreq_later(struct p9_mreq *r, unsigned ms);
/* The host's errno for an answer to the kernel. */
int p9_mount_errno(const struct p9_mount *m, int error);
/* Sends what waits, as far as there is room. */
void p9_mount_pump(struct p9_mount *m);
/* Ends what has waited too long. Returns milliseconds until the next such time, or -1. */
int p9_mount_timers(struct p9_mount *m);
/* Gives a fid back, some time soon. */
void p9_mount_clunk(struct p9_mount *m, uint32_t fid);
uint64_t p9_mount_now(void);
void p9_mount_reqs_init(struct p9_mount *m);
/* Answers all that is left, and frees; the client must have ended. */
void p9_mount_reqs_abort(struct p9_mount *m);
void p9_mount_reqs_fini(struct p9_mount *m);
/* A buffer for the bytes of a read; NULL without memory. It goes back with the request. */
void *p9_mreq_buffer(struct p9_mreq *r, size_t n);
/* Keeps the memory in which the kernel's request lies until this request ends. */
void p9_mreq_keep(struct p9_mreq *r);

/* ---- inode.c ---- */
P9_MUST_USE int p9_minode_init(struct p9_mount *m, const struct p9_qid *root);
void p9_minode_fini(struct p9_mount *m);
struct p9_minode *p9_minode_of(struct p9_mount *m, fuse_ino_t ino);
fuse_ino_t p9_minode_id(const struct p9_mount *m, const struct p9_minode *i);
/* The inode of a qid, or NULL. */
struct p9_minode *p9_minode_find(struct p9_mount *m, const struct p9_qid *qid);
/* The inode for a file that was just walked to `fid` and looked at; it takes the fid over, or gives it back when the file
 * is known. fid may be P9_NOFID for a file that is known. NULL without memory, and then the fid is the caller's. */
struct p9_minode *p9_minode_got(struct p9_mount *m, const struct p9_rgetattr *a, uint32_t fid);
/* Its fid is walked again. */
void p9_minode_fid(struct p9_mount *m, struct p9_minode *i, uint32_t fid);
/* Remembers where it was found. */
void p9_minode_place(struct p9_mount *m, struct p9_minode *i, struct p9_minode *dir, const char *name, size_t len);
/* The inode that was found last as this name, or NULL. */
struct p9_minode *p9_minode_named(struct p9_mount *m, const struct p9_minode *dir, const char *name, size_t len);
/* user.c: begins what makes an entry in r->ino: `as` uses r->as for the directory, `us` is without it. */
void p9_mreq_as_maker(struct p9_mreq *r, const struct p9_mop *as, const struct p9_mop *us);
void p9_mount_users_fini(struct p9_mount *m);
/* Group for a new file in r->ino. */
uint32_t p9_mreq_gid(const struct p9_mreq *r);
/* A request holds it, and its fid. NULL is accepted. */
void p9_minode_hold(struct p9_mount *m, struct p9_minode *i);
void p9_minode_release(struct p9_mount *m, struct p9_minode *i);
/* It stays, but its fid may go. */
void p9_minode_ref(struct p9_minode *i);
void p9_minode_unref(struct p9_mount *m, struct p9_minode *i);
void p9_minode_looked(struct p9_mount *m, struct p9_minode *i);
/* After forgetting: memory goes back to the system when most of what was known is not any more. */
void p9_minode_give_back(struct p9_mount *m);
void p9_minode_forget(struct p9_mount *m, struct p9_minode *i, uint64_t n);
/* Gives fids of inodes that nobody uses back, until there are no more than the limit. */
void p9_minode_trim(struct p9_mount *m);
/* Gives back all that nobody uses. */
void p9_minode_lose(struct p9_mount *m);
/* Lowers the limit, since the server cannot give as many. False when there is nothing to give back. */
bool p9_minode_shed(struct p9_mount *m);

/* ---- attr.c ---- */
#define P9_MOUNT_ATTRS P9_GETATTR_BASIC
/* 0, or -P9_EIO for attributes that no file has. */
P9_MUST_USE int p9_mattr_check(const struct p9_rgetattr *a);
void p9_mattr_stat(const struct p9_mount *m, const struct p9_rgetattr *a, struct stat *st);
uint64_t p9_mattr_ino(uint64_t path);
struct p9_mstamp p9_mattr_stamp(const struct p9_rgetattr *a);
bool p9_mstamp_same(const struct p9_mstamp *a, const struct p9_mstamp *b);
/* What the kernel is told about a file it looked up. */
void p9_mentry_fill(const struct p9_mount *m, struct p9_minode *i, const struct p9_rgetattr *a,
		    struct fuse_entry_param *e);
/* The kernel has been told so little ago that it need not be told again: it asks when its time is over. */
bool p9_mentry_fresh(const struct p9_mount *m, const struct p9_minode *i);
double p9_mount_attr_timeout(const struct p9_mount *m);
double p9_mount_entry_timeout(const struct p9_mount *m);
double p9_mount_negative_timeout(const struct p9_mount *m);

/* ---- ahead.c ---- */
/* Answers a lookup when it can. */
bool p9_mahead_lookup(fuse_req_t req, struct p9_minode *dir, const char *name);
/* A lookup in `dir` has gone to the server. */
void p9_mahead_missed(struct p9_mount *m, struct p9_minode *dir);
void p9_mahead_drop(struct p9_mount *m, struct p9_minode *i);
/* Drops what is too old. Returns milliseconds until the next is, or -1. */
int p9_mahead_expire(struct p9_mount *m, uint64_t now);
void p9_mahead_fini(struct p9_mount *m);

/* ---- xattr.c: what files do not have ---- */
/* How many of m->xnames are worth asking for now. */
unsigned p9_mabsent_names(const struct p9_mount *m);
/* An inode does not have those of a mask; asked for when m->xchanges was `changes`. */
void p9_mabsent_set(struct p9_mount *m, struct p9_minode *i, uint8_t mask, uint64_t changes);

/* ---- the operations ---- */
void p9_mop_node(struct fuse_lowlevel_ops *ops);
void p9_mop_tree(struct fuse_lowlevel_ops *ops);
void p9_mop_open(struct fuse_lowlevel_ops *ops);
void p9_mop_io(struct fuse_lowlevel_ops *ops);
void p9_mop_dir(struct fuse_lowlevel_ops *ops);
void p9_mop_xattr(struct fuse_lowlevel_ops *ops);
void p9_mop_lock(struct fuse_lowlevel_ops *ops);
/* Walks to files whose fids were given back; then goes on with r->then. */
void p9_mreq_rewalk(struct p9_mreq *r);
/* Answers with the file that was found as r->name in r->ino: r->fid[0], r->qid, r->attr. */
void p9_mreq_found(struct p9_mreq *r);
/* handles */
struct p9_mhandle *p9_mhandle_new(struct p9_minode *ino, uint32_t fid, uint32_t flags);
void p9_mhandle_put(struct p9_mount *m, struct p9_mhandle *h);
/* Counts what an operation changes; when it begins, and when it has ended. */
static inline void p9_mount_note(struct p9_mount *m, const struct p9_mop *op)
{
	m->changes += op->changes || op->writes;
	m->xchanges += op->changes;
}
/* Lets go of what was read with the open. */
void p9_mhandle_behead(struct p9_mount *m, struct p9_mhandle *h);
/* The same for one that has a flock, which goes first. */
void p9_mhandle_unlock(struct p9_mount *m, struct p9_mhandle *h);
/* Lets go of an owner's locks. True when it had some. */
struct p9_mowner *p9_mowner_find(const struct p9_minode *i, uint64_t owner);
void p9_mowner_drop(struct p9_minode *i, struct p9_mowner *o);

static inline struct p9_str p9_mstr(const char *s)
{
	return (struct p9_str){ s, (uint16_t)__builtin_strlen(s) };
}

#endif
