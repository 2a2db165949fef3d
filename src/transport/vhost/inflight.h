/* SPDX-License-Identifier: BSD-2-Clause */
/* inflight.h - which chains have been taken and not given back, in memory that the monitor keeps for us, so that a p9d
 * that is started anew knows what was never answered. The layout is vhost-user's for split rings.
 */
#ifndef P9_VHOST_INFLIGHT_H
#define P9_VHOST_INFLIGHT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "p9/error.h"

struct p9_inflight_desc {
	uint8_t inflight, padding[5];
	uint16_t next;
	uint64_t counter;
};
struct p9_inflight {
	uint64_t features;
	uint16_t version, num, last_batch_head, used_idx;
	struct p9_inflight_desc desc[];
};
/* The mapping; map NULL: none. */
struct p9_inflight_area {
	uint8_t *map;
	size_t len;
	unsigned queues, num;
	int guard;
	int fd; /* kept, with its offset, for another process that goes on in our place */
	uint64_t offset;
};

/* Bytes of an area for so many queues of so many entries. */
size_t p9_inflight_size(unsigned queues, unsigned num);
/* Where the count of chains taken stands, and to where it is moved on at least. */
uint64_t p9_inflight_count(uint64_t at_least);
/* Maps `len` bytes of fd, which stays the caller's; the old mapping goes. */
P9_MUST_USE int p9_inflight_map(struct p9_inflight_area *a, int fd, uint64_t offset, size_t len, unsigned queues,
				unsigned num);
void p9_inflight_unmap(struct p9_inflight_area *a);
/* The i-th queue's part, made fit for a ring of num entries; NULL when there is none. */
struct p9_inflight *p9_inflight_of(const struct p9_inflight_area *a, unsigned i, uint32_t num);
/* A chain is taken. Accepts NULL, as do the next two. */
void p9_inflight_take(struct p9_inflight *f, uint16_t head);
/* It is going to be given back: before the used ring shows it ... */
void p9_inflight_give(struct p9_inflight *f, uint16_t head);
/* ... and after it does. */
void p9_inflight_given(struct p9_inflight *f, uint16_t head, uint16_t used_idx);
/* After a restart: the chains that were never answered, in the order in which they were taken; the list is the caller's to
 * free. `num` is the ring's size, `used_idx` the used ring's index. Returns how many. */
struct p9_orphan {
	uint64_t counter;
	uint16_t head;
};
unsigned p9_inflight_orphans(struct p9_inflight *f, uint32_t num, uint16_t used_idx, struct p9_orphan **list);

#endif
