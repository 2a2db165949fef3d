/* SPDX-License-Identifier: BSD-2-Clause */
/* guard.h - mappings of a file that somebody else may shorten: touching what is gone must not kill the process.
 *
 * A SIGBUS inside a guarded range replaces the whole range by zeroed memory of our own and marks it; the owner looks at
 * the mark when it is convenient and gives the peer up. Any other SIGBUS does what it always did.
 */
#ifndef P9_BASE_GUARD_H
#define P9_BASE_GUARD_H
#include <stdbool.h>
#include <stddef.h>

#define P9_GUARDS_MAX 4096

/* Guards [p, p+n), whole pages. Returns a number for the next two, or -1 when all are taken. Any thread. */
int p9_guard_add(void *p, size_t n);
/* Call before the range is unmapped. Accepts -1. */
void p9_guard_remove(int guard);
/* Whether any range ever was replaced: cheap. */
bool p9_guard_any(void);
/* Whether this range has been replaced. */
bool p9_guard_hit(int guard);

#endif
