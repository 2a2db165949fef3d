/* SPDX-License-Identifier: BSD-2-Clause */
/* fdcount.h - how many descriptors files of clients take, against what they may. One number for the whole process:
 * every backend that pins files counts here, and the server refuses before the host does. Any thread.
 */
#ifndef P9_BASE_FDCOUNT_H
#define P9_BASE_FDCOUNT_H
#include <stdatomic.h>
#include <stdbool.h>

extern _Atomic unsigned p9_fd_used;
extern _Atomic unsigned p9_fd_budget; /* set at start, from RLIMIT_NOFILE */

static inline void p9_fd_count(int by)
{
	atomic_fetch_add_explicit(&p9_fd_used, (unsigned)by, memory_order_relaxed);
}
static inline bool p9_fd_short(void)
{
	return atomic_load_explicit(&p9_fd_used, memory_order_relaxed) >=
	       atomic_load_explicit(&p9_fd_budget, memory_order_relaxed);
}

#endif
