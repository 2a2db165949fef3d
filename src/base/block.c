/* SPDX-License-Identifier: BSD-2-Clause */
/* block.c - see block.h. A list per thread, with an end, so that a thread which only gives back does not hoard. */
#include <stdlib.h>
#include "base/block.h"
#include "base/sys.h"

#ifdef P9_SYS_BARE /* no sanitizer is there to be blinded */
#define KEEP 128u
#else
#define KEEP 0u
#endif

static _Thread_local struct kept {
	struct kept *next;
} * kept;
static _Thread_local unsigned nkept;

void *p9_block_get(void)
{
	struct kept *b = kept;
	if (!b) {
		return malloc(P9_BLOCK);
	}
	kept = b->next;
	nkept--;
	return b;
}

void p9_block_put(void *block)
{
	struct kept *b = block;
	if (nkept + 1 > KEEP) {
		free(b);
		return;
	}
	b->next = kept;
	kept = b;
	nkept++;
}

void p9_block_forget(void)
{
	while (kept) {
		free(p9_block_get());
	}
}
