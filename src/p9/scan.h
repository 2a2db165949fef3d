/* SPDX-License-Identifier: BSD-2-Clause */
/* scan.h - looking at every file of a tree of the server, many at once: find and du. */
#ifndef P9_SCAN_H
#define P9_SCAN_H
#include "p9/tree.h"

struct p9_found {			/* a file, as it is handed over */
	struct p9_dir *up;		/* the directory it is in; NULL for the path that was given */
	struct p9_dir *self;		/* itself, when it is a directory whose attributes were asked for */
	const char *name;		/* in up, or the path as given */
	unsigned depth;			/* 0 for the path that was given */
	uint32_t type;			/* S_IF..., 0 when the server did not say */
	const struct p9_rgetattr *attr; /* NULL unless p9_scan.attrs */
};

struct p9_scan { /* zero it, and fill the first part */
	const struct p9_cli *cli;
	struct p9_client *client;
	bool attrs; /* of every file */
	/* Takes a file, a directory before what is in it. Returns whether to go into a directory. */
	bool (*found)(struct p9_scan *s, const struct p9_found *f);
	/* A directory and all in it has been seen; may be NULL. */
	void (*left)(struct p9_scan *s, struct p9_dir *d);
	struct p9_tree tree;
};
/* Scans a path, links not followed. Returns 0 or -P9_Exxx for the path itself or the link; what went wrong below it was
 * said, and s->tree.failed is set. */
P9_MUST_USE int p9_scan_run(struct p9_scan *s, const char *path);

#endif
