/* SPDX-License-Identifier: BSD-2-Clause */
/* buf.c - see buf.h. The pool keeps so little that an idle server holds no large memory. */
#include <stdlib.h>
#include "base/buf.h"
#include "base/fdcount.h"

_Atomic unsigned p9_fd_used;
_Atomic unsigned p9_fd_budget = 1u << 16;

#define KEEP_SMALL 32u
#define KEEP_BIG 9u

struct p9_buf *p9_buf_get(struct p9_bufpool *pool, size_t cap)
{
	struct p9_buf **list = NULL;
	unsigned *count = NULL;
	if (cap <= P9_BUF_SMALL) {
		cap = P9_BUF_SMALL;
		list = &pool->small;
		count = &pool->nsmall;
	} else if (cap <= pool->bigcap) {
		cap = pool->bigcap;
		list = &pool->big;
		count = &pool->nbig;
	}
	if (cap > UINT32_MAX) {
		return NULL;
	}
	struct p9_buf *b;
	if (list && *list) {
		b = *list;
		*list = b->next;
		(*count)--;
	} else {
		b = malloc(sizeof(*b) + cap);
		if (!b) {
			return NULL;
		}
		b->cap = (uint32_t)cap;
	}
	atomic_init(&b->refs, 1);
	b->next = NULL;
	return b;
}

void p9_buf_put(struct p9_bufpool *pool, struct p9_buf *b)
{
	if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1) {
		return;
	}
	if (pool && b->cap == P9_BUF_SMALL && pool->nsmall < KEEP_SMALL) {
		b->next = pool->small;
		pool->small = b;
		pool->nsmall++;
	} else if (pool && b->cap == pool->bigcap && pool->nbig < KEEP_BIG) {
		b->next = pool->big;
		pool->big = b;
		pool->nbig++;
	} else {
		free(b);
	}
}

static void free_list(struct p9_buf *b)
{
	while (b) {
		struct p9_buf *next = b->next;
		free(b);
		b = next;
	}
}

void p9_bufpool_fini(struct p9_bufpool *pool)
{
	free_list(pool->small);
	free_list(pool->big);
	pool->small = pool->big = NULL;
	pool->nsmall = pool->nbig = 0;
}
