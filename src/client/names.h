/* SPDX-License-Identifier: BSD-2-Clause */
/* names.h - the tree of names by which files were reached, so that they can be reached again.
 *
 * A name is one element below another; at the top are roots. It lives as long as something counts it: a fid that was
 * walked there, or a name below it. A name that was removed stays, but leads nowhere. One thread at a time.
 */
#ifndef P9_CLIENT_NAMES_H
#define P9_CLIENT_NAMES_H
#include "p9/codec.h"

struct p9_name {
	struct p9_name *up;   /* NULL for a root */
	struct p9_name *next; /* in its place of the table */
	char *text;
	uint16_t len;
	bool there; /* in the table: not removed or replaced */
	unsigned refs;
};

struct p9_names {
	struct p9_name **table;
	unsigned cap, n;
};

void p9_names_fini(struct p9_names *t);
/* A root of its own. Counted; NULL without memory. */
struct p9_name *p9_names_root(void);
/* The name below another; made when it is not there. Counted; NULL without memory. */
struct p9_name *p9_names_below(struct p9_names *t, struct p9_name *up, struct p9_str name);
/* The same when it is there, not counted; or NULL. */
struct p9_name *p9_names_find(struct p9_names *t, const struct p9_name *up, struct p9_str name);
/* It has been given another name; what had that one is gone. Without memory it is gone itself. */
void p9_names_move(struct p9_names *t, struct p9_name *n, struct p9_name *up, struct p9_str name);
/* It has been removed. */
void p9_names_gone(struct p9_names *t, struct p9_name *n);
/* Both accept NULL. */
struct p9_name *p9_name_get(struct p9_name *n);
void p9_name_put(struct p9_names *t, struct p9_name *n);
/* Elements from the root, or -P9_ENOENT when one of them is gone. */
int p9_name_depth(const struct p9_name *n);
/* Elements from number `from` on into a Twalk, as many as fit there and in `room` bytes. Returns how many. */
unsigned p9_name_path(const struct p9_name *n, unsigned from, size_t room, struct p9_strs *out);

#endif
