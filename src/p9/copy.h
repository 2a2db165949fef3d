/* SPDX-License-Identifier: BSD-2-Clause */
/* copy.h - the copy engine of get, put and cp: files and trees, from here or a server to here or a server.
 *
 * What is copied is a node: a job of its own for anything but a directory, and for a directory what belongs to its
 * struct p9_dir. A node goes through a list of phases. A phase is called without a reply to begin, and with the reply
 * to what it sent; what it does here is done at once. So each phase is one function for both kinds of ends.
 */
#ifndef P9_COPY_H
#define P9_COPY_H
#include "p9/tree.h"

enum {
	P9_COPY_CHUNK = 512 * 1024,	 /* bytes of one request */
	P9_COPY_BYTES = 8 * 1024 * 1024, /* of buffers, for all files together */
	P9_COPY_BUFFERS = 16		 /* buffers of P9_COPY_CHUNK that are kept */
};

struct p9_copy;
struct p9_node;

/* What a phase returns, besides -P9_Exxx: go on with the next one; a request was sent, or something else is waited for. */
enum { P9_ON = 0, P9_WAIT = 1 };
typedef int p9_phase(struct p9_node *n, const struct p9_msg *r);

struct p9_end {	      /* a file that is open, here or on the server */
	uint32_t fid; /* P9_NOFID without */
	int fd;	      /* -1 without */
};

struct p9_meta {
	uint32_t mode, uid, gid;
	uint64_t rdev, size, blocks, nlink;
	uint64_t dev, ino; /* what tells files apart: here st_dev and st_ino, on a server 0 and the qid's path */
	struct timespec atime, mtime;
};

/* ---- copy_pipe.c: bytes of one file on their way ---- */
struct p9_chunk;
struct p9_pipe {
	struct p9_node *node;
	bool active;  /* begun and not ended */
	bool compare; /* reads both ends and copies nothing */
	bool ended;   /* the source is known to have no more */
	bool stopped;
	uint64_t next, eof; /* where the next chunk begins; where the source ended */
	uint64_t moved;	    /* end of what has come without a gap (an end here), or bytes written (on the server) */
	uint64_t differs;   /* compare: the first byte, UINT64_MAX for none */
	struct p9_chunk *first, *last;
	unsigned count;
	uint64_t begun, rtt;	  /* ns: when the first chunk was sent; the shortest time of any */
	uint64_t through, window; /* bytes of whole chunks; bytes that may be under way */
	int error;
	bool at_dst; /* where the error was */
};

/* One extended attribute on its way (copy_xattr.c). */
struct p9_xattrs {
	char *list; /* names, one after the other, each terminated */
	size_t list_len, at;
	uint8_t *value;
	size_t len, done;
	uint32_t fid;
	unsigned state;
};

struct p9_linked; /* copy_link.c */

struct p9_node {
	struct p9_call call;
	struct p9_copy *copy;
	struct p9_dir *dir;  /* it is in; NULL at the top */
	struct p9_dir *self; /* a directory: itself */
	struct p9_node *next, *prev, *wait_next;
	char *name; /* in dir, or the path as given */
	char *to;   /* name of the copy in its directory; NULL: the copy is the target itself */
	p9_phase *const *list;
	int at;	      /* phase of the list */
	unsigned sub; /* where the phase is */
	bool closing;
	struct p9_end src, dst; /* a directory's src is in its struct p9_dir */
	struct p9_meta st;
	bool looked;  /* st is there */
	char *target; /* a link's text */
	bool existed; /* the copy was there before: it stays when copying fails */
	bool made;    /* the copy exists */
	bool sparse;  /* zeros need not be written */
	bool foreign; /* the owner could not be kept: no set-id bits */
	bool waiting; /* for the first link of a file */
	int error;
	uint64_t dst_size; /* of a copy that is continued */
	struct p9_linked *linked;
	struct p9_xattrs x;
	struct p9_pipe pipe;
};

struct p9_copy_opts {
	bool recursive, owner /* and times of access, set-id bits */, links, xattrs, sparse, special, nofollow;
	bool resume, check, progress;
};

struct p9_copy {
	struct p9_cli *cli;
	struct p9_client *client;
	struct p9_copy_opts opts;
	bool from_here, to_here; /* which ends are local */
	struct p9_tree tree;
	struct p9_node *nodes; /* jobs */
	struct p9_node *ready; /* waited, and can go on */
	struct p9_end into;    /* directory of the copies */
	char *target;	       /* its path, for messages */
	uint32_t chunk;	       /* bytes of one request */
	struct p9_progress progress;
	uint8_t *buffers[P9_COPY_BUFFERS]; /* not in use */
	unsigned nbuffers;
	size_t bytes;		   /* of buffers in use */
	struct p9_linked **linked; /* hash table; NULL until needed */
	size_t nlinked, linked_cap;
	uint64_t top_qid; /* cp: the directory that is being made, not to be copied into itself */
	bool has_top;
};

/* ---- copy.c ---- */
/* Begins to copy what `name` (taken over) in d is; type as DT_.... */
void p9_copy_entry(struct p9_dir *d, char *name, uint8_t type);
/* The same for an operand: `name` and `to` are taken over; fid is its file on the server, when it is there. */
void p9_copy_operand(struct p9_copy *c, char *name, char *to, uint32_t fid);
/* A directory as operand. */
int p9_copy_tree(struct p9_copy *c, char *name, char *to, uint32_t fid);
extern const struct p9_tree_ops p9_copy_ops;
/* Frees what the link's end left behind. */
void p9_copy_fini(struct p9_copy *c);
/* Goes on with a node: rc as a phase returns it. */
void p9_node_go(struct p9_node *n, int rc);
/* Sends for the phase. Returns P9_WAIT or -P9_Exxx. */
int p9_node_send(struct p9_node *n, struct p9_msg *t, void *dst);
/* 0 or the error of a reply. */
int p9_reply_rc(const struct p9_msg *r);
/* Goes on with another list; to be returned by a phase. */
int p9_node_jump(struct p9_node *n, p9_phase *const *list);
/* Says "PATH: TEXT" about a node, which makes the command fail. */
void p9_node_say(struct p9_node *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Says an error once; nothing after the link's end. `end`: 'd' when the copy is to blame. */
void p9_node_fail(struct p9_node *n, int rc, char end);
/* Path of the node, or of its copy; to be freed. */
char *p9_node_path(const struct p9_node *n);
char *p9_node_copy_path(const struct p9_node *n);
struct p9_str p9_node_str(const char *s);

/* ---- copy_src.c, copy_dst.c, copy_meta.c, copy_xattr.c, copy_link.c: phases ---- */
uint32_t *p9_src_fid(struct p9_node *n);
int p9_src_fd(const struct p9_node *n);
const struct p9_end *p9_dst_dir(const struct p9_node *n);
p9_phase p9_src_walk, p9_src_stat, p9_src_open, p9_src_settle, p9_src_readlink, p9_src_close;
p9_phase p9_dst_look, p9_dst_open, p9_dst_dir_open, p9_dst_symlink, p9_dst_mknod, p9_dst_reach, p9_dst_verify,
	p9_dst_discard, p9_dst_close;
p9_phase p9_meta_owner, p9_meta_seal, p9_meta_entry;
p9_phase p9_xattr_copy;
p9_phase p9_link_claim, p9_link_settle;
void p9_link_fini(struct p9_copy *c);
void p9_xattr_fini(struct p9_node *n);
/* Whether the copy is complete already, by size and time. */
bool p9_meta_same(const struct p9_meta *src, uint64_t size, const struct timespec *mtime);
void p9_meta_of(struct p9_meta *m, const struct p9_rgetattr *a);

/* ---- copy_pipe.c ---- */
/* Phases: moves the bytes; compares them. */
p9_phase p9_pipe_move, p9_pipe_check;
/* Begins as many requests as there is room for. */
void p9_pipe_pump(struct p9_pipe *p);
/* Frees chunks of a link that has ended. */
void p9_pipe_fini(struct p9_pipe *p);

#endif
