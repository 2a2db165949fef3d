/* SPDX-License-Identifier: BSD-2-Clause */
/* tree.h - the small directory that fz_server exports, and that is made anew when an input may have changed it. */
#ifndef P9_FUZZ_TREE_H
#define P9_FUZZ_TREE_H

/* Makes a directory of this process's in memory (/dev/shm), and beside it a canary that nobody may reach; both are
 * removed at exit. Returns its path. Aborts when it cannot. */
const char *fz_tree_new(void);
/* Removes all that is in it and makes what belongs there. */
void fz_tree_reset(void);
/* Whether the canary is as it was. */
int fz_tree_canary(void);

#endif
