/* SPDX-License-Identifier: BSD-2-Clause */
/* device.h - the device's end of a split virtqueue: takes chains out, gives them back used. Freestanding.
 *
 * The driver is not trusted. Each descriptor is copied once and only the copy is looked at; indices, flags, lengths and
 * addresses are checked before use; a chain that breaks a rule makes p9_vdev_pop() fail, and the caller stops the queue.
 * Addresses of the driver become pointers through the caller's `map`.
 * One thread at a time. Life-cycle: p9_vdev_init with pointers into the driver's memory that stay valid until the next.
 */
#ifndef P9_VIRTIO_DEVICE_H
#define P9_VIRTIO_DEVICE_H
#include "virtio/ring.h"

/* A piece of a request in our address space. Laid out as struct iovec is on Linux. */
struct p9_vpiece {
	void *p;
	size_t len;
};

/* Fills `out` with where `len` bytes at the driver's address `addr` are, at most `max` pieces (memory may be cut
 * anywhere). Returns how many, or -1 when not all of it is there, or it takes more pieces. */
typedef int p9_vmap(void *arg, uint64_t addr, uint64_t len, struct p9_vpiece *out, unsigned max);

struct p9_vdev_conf {
	struct p9_vdesc *desc;
	struct p9_vavail *avail;
	struct p9_vused *used;
	uint16_t num;	   /* a power of two, at most P9_VQ_NUM_MAX */
	uint16_t base;	   /* of avail: where to go on */
	uint16_t used_idx; /* of used: where to go on; equal to base when nothing is in flight */
	bool indirect, event_idx;
	p9_vmap *map;
	void *map_arg;
};

struct p9_vdev {
	struct p9_vdev_conf c;
	uint16_t last_avail, used_idx, told_idx; /* told_idx: used index at the last decision to notify */
	bool broken;
	const char *why; /* what broke it */
};

/* A request: what it brings, then what it leaves room for. */
struct p9_vchain {
	uint16_t head;		/* goes back with p9_vdev_push */
	uint16_t nread, nwrite; /* pieces that the device reads, that it writes: piece[0..nread), then nwrite more */
	uint64_t readable, writable; /* bytes of each */
	unsigned max;		     /* places at piece; at most P9_VQ_CHAIN_MAX is used */
	struct p9_vpiece *piece;
};

/* Returns false when num is no ring size, or a pointer is missing or not aligned (2.7.3). */
bool p9_vdev_init(struct p9_vdev *q, const struct p9_vdev_conf *conf);
/* Takes the next chain. Returns 1, 0 when there is none, or -1: the driver broke a rule, q->why says which, and the queue
 * is broken for good. ch->max and ch->piece are the caller's. */
int p9_vdev_pop(struct p9_vdev *q, struct p9_vchain *ch);
/* The chain that begins at `head`, whatever the ring says: one that a device before us had taken. Returns 0 or -1. */
int p9_vdev_take(struct p9_vdev *q, uint16_t head, struct p9_vchain *ch);
/* Gives a chain back, of which `len` bytes were written. Seen by the driver after the next p9_vdev_publish(). */
void p9_vdev_push(struct p9_vdev *q, uint16_t head, uint32_t len);
/* Lets the driver see what was given back. Returns whether it wants to be notified. */
bool p9_vdev_publish(struct p9_vdev *q);
/* Asks to be kicked when there is more. Returns true when there is already: then pop again. */
bool p9_vdev_listen(struct p9_vdev *q);
/* Asks not to be kicked for now; a hint. */
void p9_vdev_quiet(struct p9_vdev *q);

#endif
