/* SPDX-License-Identifier: BSD-2-Clause */
/* block.h - small memory of one size, kept by the thread that gave it back.
 *
 * For what is made and dropped with every other request: thirty-two at once are more than malloc(3) keeps at hand, and its long
 * way is 4 % of a walk. A block may be given back by another thread than took it. Under sanitizers each is a malloc of its
 * own, so that they see what is used after its end.
 */
#ifndef P9_BASE_BLOCK_H
#define P9_BASE_BLOCK_H

#define P9_BLOCK 192u /* bytes */

/* A block, not zeroed, or NULL. Any thread. */
void *p9_block_get(void);
/* Gives it back. Any thread. */
void p9_block_put(void *block);
/* Frees what this thread keeps: before it ends. */
void p9_block_forget(void);

#endif
