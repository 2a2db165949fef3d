/* SPDX-License-Identifier: BSD-2-Clause */
/* driver.h - the driver's end of a split virtqueue, against a device that is not trusted.
 *
 * The caller gives the ring (memory that the device can reach) and private memory; it adds requests, makes them visible
 * with p9_vdrv_kick(), which says whether the device has to be notified, and takes answers with p9_vdrv_get(), which
 * come in any order. What the device writes is believed only as far as it makes sense: an answer to a request that is
 * not in flight, or longer than its room, stops the queue. One thread at a time for a queue.
 *
 * Addresses in requests are the device's: physical ones for a guest, whatever the memory table says for vhost-user.
 */
#ifndef P9_VIRTIO_DRIVER_H
#define P9_VIRTIO_DRIVER_H
#include "virtio/ring.h"

/* A part of a request. */
struct p9_vbuf {
	uint64_t addr;
	uint32_t len; /* not 0 */
};
struct p9_vdrv_conf {
	struct p9_vring ring;
	uint64_t features; /* negotiated: INDIRECT_DESC and EVENT_IDX count here */
	uint16_t base;	   /* first index; 0 for a new queue */
	/* Tables for indirect descriptors: one of `table_size` entries for each place of the ring. NULL: none are used. */
	struct p9_vdesc *tables;
	uint64_t tables_addr; /* the same memory, as the device sees it */
	unsigned table_size;
};
/* A place of the ring; private. */
struct p9_vplace {
	void *user;
	uint32_t writable;
	uint16_t next;	/* free list, or the chain's next descriptor */
	uint16_t count; /* descriptors of the chain that begins here; 0: none does */
};
struct p9_vdrv {
	struct p9_vdrv_conf conf;
	struct p9_vplace *places;
	uint16_t free, avail_idx, kicked, last_used;
	uint32_t nfree, inflight;
	const char *why; /* the queue is stopped */
};
struct p9_vanswer {
	void *user;
	uint32_t len; /* bytes that the device says it wrote; at most what it could */
};

/* Private memory for a ring of this size, aligned to 8. */
size_t p9_vdrv_memory(uint32_t num);
/* Clears the ring. -P9_EINVAL for a ring that is none. Before the device is told about the queue. */
P9_MUST_USE int p9_vdrv_init(struct p9_vdrv *d, const struct p9_vdrv_conf *conf, void *mem);
/* Adds a request: nread parts that the device reads, then nwrite that it writes. Nothing is visible before the kick.
 * Returns 0; -P9_EAGAIN when the ring is full; -P9_EMSGSIZE when it will never fit; -P9_EINVAL. */
P9_MUST_USE int p9_vdrv_add(struct p9_vdrv *d, const struct p9_vbuf *v, unsigned nread, unsigned nwrite, void *user);
/* Shows the device what was added. Returns whether it wants to be notified. */
P9_MUST_USE bool p9_vdrv_kick(struct p9_vdrv *d);
/* The next answer. Returns 1; 0 when there is none; -P9_EPROTO: the queue is stopped, and `why` has the reason. */
P9_MUST_USE int p9_vdrv_get(struct p9_vdrv *d, struct p9_vanswer *out);
/* Whether answers have come; nothing is taken. For polling. */
static inline bool p9_vdrv_has(const struct p9_vdrv *d)
{
	return !d->why && p9_vload_index(&d->conf.ring.used->idx) != d->last_used;
}
/* Before sleeping: asks for notifications. Returns true when answers have come meanwhile. */
P9_MUST_USE bool p9_vdrv_wait(struct p9_vdrv *d);
/* While busy or polling: does without notifications. */
void p9_vdrv_quiet(struct p9_vdrv *d);
/* After the queue was stopped or the device reset: hands out the requests that are still in flight, one by one. */
P9_MUST_USE bool p9_vdrv_drain(struct p9_vdrv *d, void **user);

#endif
