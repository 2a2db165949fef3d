/* SPDX-License-Identifier: BSD-2-Clause */
/* tree.h - going through trees with many files in flight: get, put, cp, rm, find and du.
 *
 * The tree keeps a stack of directories to come, a few that are being listed, and counts what is unfinished in each, so
 * that a directory is left after everything in it. Depth costs memory, never C stack; a directory's size costs none.
 */
#ifndef P9_TREE_H
#define P9_TREE_H
#include <dirent.h>
#include "p9/p9.h"

enum { P9_TREE_LISTERS = 8, P9_TREE_JOBS = 64 /* unless -q says something else */ };

struct p9_tree;
struct p9_dir {
	struct p9_call call;
	struct p9_tree *tree;
	struct p9_dir *parent, *next, *all_next, *all_prev;
	char *name;	  /* in its parent; the path as given at the top */
	unsigned pending; /* entries not finished, and one for the listing */
	unsigned depth;	  /* 0 at the top */
	bool listing, busy, failed;
	uint32_t fid;	  /* on the server, walked; P9_NOFID before */
	uint32_t openfid; /* the same, open for reading; P9_NOFID otherwise */
	uint8_t *buf;	  /* entries read and not yet begun */
	uint32_t len;
	size_t pos;
	uint64_t cookie;
	unsigned removed; /* rm: entries removed since the listing began */
	bool tremove;	  /* rm: it was asked away with Tremove, which ends the fid */
	uint32_t upfid;	  /* the directory it is in */
	int localfd;	  /* put: the directory here that is copied; -1 without */
	DIR *local;	  /* the same, being listed */
	uint64_t sum;	  /* du: blocks in it so far */
	void *data;	  /* the command's; freed with the directory, by ops->forget */
};

enum p9_next { P9_NEXT_END, P9_NEXT_BEGUN };

struct p9_tree_ops {
	/* Begins to open a directory: one request at most at once. Ends in p9_tree_opened(). */
	void (*open)(struct p9_dir *d);
	/* For p9_remote_open(): attributes of the directory are there, before it is listed; returns -P9_Exxx, having said
	 * why, to leave it out. May be NULL. */
	int (*entered)(struct p9_dir *d, const struct p9_rgetattr *st);
	/* Begins the next entry, or asks for more of them: one request at most. Not called while d->busy. */
	enum p9_next (*next)(struct p9_dir *d);
	/* Everything in it is finished. One request at most at once. Ends in p9_tree_left(), or p9_tree_again(). */
	void (*leave)(struct p9_dir *d);
	/* Frees d->data; may be NULL. Sends nothing. */
	void (*forget)(struct p9_dir *d);
	/* Lets transfers go on; may be NULL. */
	void (*pump)(struct p9_tree *t);
};

struct p9_tree { /* zero it, and fill the first four */
	const struct p9_cli *cli;
	struct p9_client *client;
	const struct p9_tree_ops *ops;
	void *arg;
	struct p9_dir *stack, *leaving, *all, *listers[P9_TREE_LISTERS];
	unsigned nlisters, njobs, ndirs, maxjobs;
	bool abort;  /* begin nothing new */
	bool failed; /* something was said */
};

/* A directory to come. Takes `name` (malloc'ed) over. Returns 0 or -P9_ENOMEM. `parent` is NULL at the top. */
P9_MUST_USE int p9_tree_push(struct p9_tree *t, struct p9_dir *parent, char *name, struct p9_dir **out);
void p9_tree_opened(struct p9_dir *d, int rc);
void p9_tree_left(struct p9_dir *d);
/* Instead of leaving: lists the directory once more, from its beginning. */
void p9_tree_again(struct p9_dir *d);
/* A job for an entry of d (NULL for one without a directory) begins, ends. */
void p9_tree_job_begin(struct p9_tree *t, struct p9_dir *d);
void p9_tree_job_end(struct p9_tree *t, struct p9_dir *d);
/* Whether one more request may be under way: there is room, and -q permits it. */
bool p9_tree_room(const struct p9_tree *t);
/* Lets what can go on, and waits for the server once. Returns 0 or the link's error. */
P9_MUST_USE int p9_tree_step(struct p9_tree *t);
/* Until all is done. Returns 0 or the link's error; then directories are freed by p9_tree_fini() alone: a callback that
 * finds the link dead frees what is its own and sends nothing. */
P9_MUST_USE int p9_tree_run(struct p9_tree *t);
void p9_tree_fini(struct p9_tree *t);
/* Says what went wrong with an entry; name "" for the directory itself. Nothing after the link's end. */
void p9_tree_say(const struct p9_dir *d, const char *name, int rc);
/* Path of an entry, for messages. malloc'ed; NULL without memory. */
char *p9_tree_path(const struct p9_dir *d, const char *name);
/* Sends for a directory; false when it could not be sent. */
bool p9_tree_send(struct p9_dir *d, struct p9_msg *t, void (*done)(struct p9_call *call, const struct p9_msg *r));

/* ---- remote.c: directories of the server as the thing that is gone through ---- */
/* The operation `open`, from walk to lopen; d->fid may be there already. */
void p9_remote_open(struct p9_dir *d);
/* From a walked d->fid on: opens it to be listed. */
void p9_remote_list(struct p9_dir *d);
/* The operation `next`: reads entries and passes each but . and .. to `entry`, which begins one job or pushes. */
enum p9_next p9_remote_next(struct p9_dir *d, void (*entry)(struct p9_dir *d, char *name, uint8_t type));
#endif
