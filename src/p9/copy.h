/* SPDX-License-Identifier: BSD-2-Clause */
/* copy.h - what get and put share: one file on its way, and the state of a copy. */
#ifndef P9_COPY_H
#define P9_COPY_H
#include "p9/tree.h"

enum { P9_COPY_BUFFERS = 16, P9_COPY_CHUNK = 512 * 1024 };

struct p9_copy;
struct p9_job {
	struct p9_call call;
	struct p9_copy *copy;
	struct p9_dir *dir; /* it is in; NULL for the one file of a copy without -r */
	char *name;	    /* in dir, or the path of the copy as given */
	uint32_t fid;	    /* on the server; P9_NOFID before */
	int localfd;	    /* here; -1 before */
	bool moving;	    /* its transfer has begun and not ended */
	bool existed;	    /* the copy was there before: it stays when copying fails */
	bool made;	    /* the copy exists */
	bool sparse;
	int error;
	uint64_t size, mtime, mtime_nsec; /* of the original */
	uint32_t mode;
	struct p9_xfer xfer;
};

struct p9_copy {
	struct p9_cli *cli;
	struct p9_client *client;
	struct p9_pool *pool;
	struct p9_tree tree;
	struct p9_job *jobs[P9_TREE_JOBS];
	struct p9_progress progress;
	void (*abandon)(struct p9_job *j); /* the link has ended: what to do with a job's copy here; or NULL */
	const char *local;		   /* the path here, of the copy without -r */
	uint32_t upfid;			   /* put without -r: directory for the file */
	char *put_name;			   /* put without -r: its name there */
	char root_name[256];		   /* name of the tree's copy in the directory that holds it */
	int rootfd;			   /* get -r: directory that holds the copy */
};

/* Connects and makes pool and tree. Returns an exit code. */
int p9_copy_begin(struct p9_copy *copy, struct p9_cli *cli, const struct p9_tree_ops *ops);
/* Runs to the end and frees everything. Returns an exit code. */
int p9_copy_end(struct p9_copy *copy);
/* A job, counted in the tree; takes `name` over. NULL without memory, which it has said. */
struct p9_job *p9_job_new(struct p9_copy *copy, struct p9_dir *dir, char *name);
void p9_job_free(struct p9_job *j);
/* Says what went wrong, once for a job. `name` is what is complained about, NULL for the job's own. */
void p9_job_fail(struct p9_job *j, const char *name, int rc);
/* Sends for a job. False when it could not; the caller ends the job. */
bool p9_job_send(struct p9_job *j, struct p9_msg *t, void (*done)(struct p9_call *call, const struct p9_msg *r));
/* Operation `pump`: lets all transfers go on; stops them when nothing new may begin. */
void p9_copy_pump(struct p9_tree *t);

#endif
