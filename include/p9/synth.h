/* SPDX-License-Identifier: BSD-2-Clause */
/* synth.h - a backend whose tree is made in memory. The server uses it for the directory of exports; tests and, later,
 * control files use it too. Build the tree first, then serve it: it must not change while it is served. */
#ifndef P9_SYNTH_H
#define P9_SYNTH_H
#include "p9/backend.h"

struct p9_synth;
extern const struct p9_backend p9_synth;

P9_MUST_USE int p9_synth_new(struct p9_synth **out);
void p9_synth_free(struct p9_synth *s);
/* Adds a portal at `path` ("a/b" makes directory a): a walk to it goes on in another export. `tree` becomes
 * p9_node.tree. -P9_EEXIST when something else is there. */
P9_MUST_USE int p9_synth_portal(struct p9_synth *s, const char *path, void *tree);
/* Adds a read-only file whose text fill() writes on each open; it returns the length, at most cap. */
P9_MUST_USE int p9_synth_file(struct p9_synth *s, const char *path, size_t (*fill)(void *arg, char *buf, size_t cap),
			      void *arg);

#endif
