/* SPDX-License-Identifier: BSD-2-Clause */
/* What the parts of the differential test share. `differential` runs the same random operations on a local directory and
 * on a mount; ops.c makes one operation, tree.c compares whole trees, shared.c is the mode in which processes meet. */
#ifndef P9_TESTS_MOUNT_DIFF_H
#define P9_TESTS_MOUNT_DIFF_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

enum {
	SLOTS = 12,	       /* open files */
	MAPS = 3,	       /* mappings */
	BUFFER = 1 << 19,      /* the largest read or write */
	HISTORY = 8192,	       /* operations that are remembered */
	SHOWN = 20,	       /* of them, how many of one file are printed */
	BIG_ENTRIES = 700,     /* of the directory that needs several replies to list */
	EXPLICIT = 1000000000, /* times below this were set by utimensat, those above by the clock */
};

struct slot {
	int fd[2]; /* local, mount; -1: free */
	int flags;
	char path[512]; /* as it was when it was opened */
};

struct map {
	unsigned char *at[2]; /* NULL: free */
	int fd[2];	      /* dups, for times and sizes */
	size_t size;
	bool writable;
	char path[512];
};

struct outcome {
	long ret;
	int err;
	size_t len; /* of data */
	unsigned char *data;
};

struct memory { /* an operation as it is shown */
	uint64_t number;
	char key[2][512]; /* the paths that it is about */
	char text[400];
};

struct world {
	const char *dir[3]; /* local, mount, beneath the mount or NULL */
	char root[3][PATH_MAX];
	uint64_t seed, rng, number;
	unsigned process;
	bool is_root, flock, trace, no_mmap, own_times;
	const char *skip; /* names of operations, with commas */
	struct slot slots[SLOTS];
	struct map maps[MAPS];
	struct outcome out[2];
	struct memory *history; /* HISTORY of them, a ring */
	struct memory *now;
	unsigned char *buffer; /* what is written */
	char why[512];	       /* set when the outcomes may not be compared by value */
	uint64_t *done;	       /* per operation: how often, and how often with success */
	uint64_t *good;
};

/* ops.c */
void ops_begin(struct world *w);
bool ops_one(struct world *w); /* false: the two sides differ; w->why or the outcomes tell */
void ops_settle(struct world *w);
void ops_end(struct world *w);
void ops_list(FILE *to);
unsigned ops_count(void);
const char *ops_name(unsigned n);
void ops_explain(struct world *w, FILE *to);

/* tree.c. Each compares two trees and prints what differs. exact: the same inodes, so all times are the same. */
bool tree_equal(const char *one, const char *other, bool exact, FILE *to);
void tree_remove(const char *path);

/* shared.c: processes that work in one directory, over one mount or several; exact: times are those beneath. Returns the
 * number of broken invariants. */
int shared_run(const char *const *mounts, unsigned n_mounts, const char *beneath, unsigned processes, uint64_t rounds,
	       uint64_t seed, bool exact);

uint64_t random_next(uint64_t *state);
#endif
