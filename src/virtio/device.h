/* SPDX-License-Identifier: BSD-2-Clause */
/* device.h - the device's end of a split virtqueue, against a driver that is not trusted.
 *
 * The caller gives the ring, and a way from guest addresses to memory; it takes chains with p9_vdev_pop(), answers them in
 * any order with p9_vdev_push(), and makes the answers visible, all at once, with p9_vdev_publish(). Anything that a
 * driver must not do stops the queue: pop() says -P9_EPROTO for ever and `why` has the reason; chains that are in flight
 * can still be answered. No memory of its own, no locks: one thread at a time for a queue.
 *
 * A ring stop and start (vhost-user) is: answer what is in flight, keep `last_avail`, init again with it.
 */
#ifndef P9_VIRTIO_DEVICE_H
#define P9_VIRTIO_DEVICE_H
#include "virtio/ring.h"

/* A piece of a chain in our address space. As struct iovec, so that preadv and pwritev can go right there. */
struct p9_vpiece {
	void *p;
	size_t len;
};

/* From guest addresses to memory. at() returns where `addr` lies and sets *len to how many bytes, at most *len, follow
 * there in one piece; NULL when it lies nowhere. What it returned must stay mapped until the chain is answered. */
struct p9_vspace {
	void *(*at)(const struct p9_vspace *m, uint64_t addr, uint64_t *len);
};
/* The usual one: a table of regions, in any order. */
struct p9_vrange {
	uint64_t addr, size; /* guest addresses; addr + size does not wrap */
	void *host;
};
struct p9_vtable {
	struct p9_vspace mem; /* p9_vtable_at */
	const struct p9_vrange *regions;
	unsigned n;
};
void *p9_vtable_at(const struct p9_vspace *m, uint64_t addr, uint64_t *len);

struct p9_vdev_conf {
	struct p9_vring ring;
	const struct p9_vspace *mem;
	uint64_t features; /* negotiated: INDIRECT_DESC and EVENT_IDX count here */
	uint16_t base;	   /* index of avail where the queue goes on; 0 for a new one */
	uint16_t used;	   /* index of used: 0, or base when nothing was in flight, or what used.idx holds */
	uint32_t most;	   /* bytes, of those that are read and of those that are written, that a chain may have */
};
struct p9_vdev {
	struct p9_vdev_conf conf;
	uint16_t last_avail; /* the next entry of avail that we take */
	uint16_t used_idx;   /* behind the last entry of used that we wrote */
	uint16_t published;  /* used.idx as the driver sees it */
	uint16_t told;	     /* used.idx when we notified last, or could have */
	bool ever_told;
	uint32_t inflight; /* chains taken and not answered */
	const char *why;   /* the queue is stopped */
};
/* One request of the driver's. The caller gives `v` and `cap`. */
struct p9_vchain {
	struct p9_vpiece *v; /* pieces to read, then pieces to write */
	unsigned cap;	     /* more than P9_VCHAIN_MAX when memory is in small regions */
	unsigned nread, nwrite;
	uint32_t readable, writable; /* bytes */
	uint16_t head;
};

/* -P9_EINVAL for a ring that is none. */
P9_MUST_USE int p9_vdev_init(struct p9_vdev *d, const struct p9_vdev_conf *conf);
/* The next chain. Returns 1; 0 when there is none; -P9_EPROTO: the queue is stopped. */
P9_MUST_USE int p9_vdev_pop(struct p9_vdev *d, struct p9_vchain *c);
/* The chain that begins at `head`, whatever the ring says: one that a device before us took and never answered. Returns 1 or
 * -P9_EPROTO. */
P9_MUST_USE int p9_vdev_take(struct p9_vdev *d, uint16_t head, struct p9_vchain *c);
/* Answers a chain: `len` bytes were written to it. */
void p9_vdev_push(struct p9_vdev *d, uint16_t head, uint32_t len);
/* Shows the driver what was pushed. Returns whether it wants to be notified. */
P9_MUST_USE bool p9_vdev_publish(struct p9_vdev *d);
/* Whether chains have come; nothing is taken. For polling. */
static inline bool p9_vdev_has(const struct p9_vdev *d)
{
	return !d->why && p9_vload_index(&d->conf.ring.avail->idx) != d->last_avail;
}
/* Before sleeping: asks for notifications. Returns true when chains have come meanwhile: pop, do not sleep. */
P9_MUST_USE bool p9_vdev_wait(struct p9_vdev *d);
/* While busy: does without notifications. */
void p9_vdev_quiet(struct p9_vdev *d);
/* Stops the queue for a reason of the caller's (a message that has no answer). The first reason stays. */
void p9_vdev_stop(struct p9_vdev *d, const char *why);

/* ---- scattered bytes ---- */
/* Copies the next n bytes out of pieces, or into them, and moves *v and *count on; the piece where it stops is changed.
 * Returns the bytes copied, fewer than n at the end. */
size_t p9_vpiece_get(struct p9_vpiece **v, unsigned *count, void *buf, size_t n);
size_t p9_vpiece_put(struct p9_vpiece **v, unsigned *count, const void *buf, size_t n);
/* Cuts pieces to n bytes. Returns how many pieces are left. */
unsigned p9_vpiece_cut(struct p9_vpiece *v, unsigned count, size_t n);

/* The 9P message in a chain: its head is copied once into the caller's private memory and is to be used from there only.
 * The payload of a Twrite stays in the guest's; everything else is head. */
struct p9_vmessage {
	uint32_t len;		   /* bytes at head */
	struct p9_vpiece *payload; /* within the chain's pieces */
	unsigned npayload;
	uint32_t elsewhere; /* bytes at payload */
};
/* `head` has room for `msize` bytes. Bytes behind the message are ignored. Returns 0; -P9_EPROTO for a size field below
 * 7, -P9_EMSGSIZE for one above what is readable or msize, or when no Rlerror (11 bytes) would fit. The chain's pieces
 * to read are used up. */
P9_MUST_USE int p9_vdev_message(struct p9_vchain *c, uint8_t *head, uint32_t msize, struct p9_vmessage *m);

#endif
