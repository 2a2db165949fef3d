/* SPDX-License-Identifier: BSD-2-Clause */
/* buf.h - counted byte buffers, so that a request which outlives its batch can keep the bytes it works on.
 *
 * A buffer is filled by one thread at a time and may be let go by another: the count is atomic. Buffers come from a
 * pool (one per loop, loop thread only) that keeps a few of each size; a put from a foreign thread frees to the heap.
 */
#ifndef P9_BASE_BUF_H
#define P9_BASE_BUF_H
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include "p9/error.h"

struct p9_buf {
	_Atomic unsigned refs;
	uint32_t cap; /* bytes at data */
	struct p9_buf *next;
	uint8_t data[] __attribute__((aligned(16)));
};

#define P9_BUF_SMALL (64u * 1024)

struct p9_bufpool {
	struct p9_buf *small, *big;
	unsigned nsmall, nbig;
	uint32_t bigcap; /* buffers of exactly this size are kept too; set to msize by the owner */
};

/* A buffer of at least `cap` bytes with one reference, or NULL. Small ones have P9_BUF_SMALL bytes. Loop thread. */
struct p9_buf *p9_buf_get(struct p9_bufpool *pool, size_t cap);
static inline struct p9_buf *p9_buf_ref(struct p9_buf *b)
{
	atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
	return b;
}
/* Drops a reference; the last one gives it back to `pool`, or to the heap when pool is NULL. Accepts NULL. */
void p9_buf_put(struct p9_bufpool *pool, struct p9_buf *b);
void p9_bufpool_fini(struct p9_bufpool *pool);

#endif
