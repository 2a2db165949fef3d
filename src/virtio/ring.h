/* SPDX-License-Identifier: BSD-2-Clause */
/* ring.h - the split virtqueue as it lies in memory, and how its fields are touched.
 *
 * Virtio 1.2, section 2.7 ("Split Virtqueues"). Little-endian; legacy devices use the guest's order, which is the same on
 * every machine that this runs on (a big-endian build refuses to compile). The same layout serves both ends: device.h
 * for who takes requests out, driver.h for who puts them in. The other end may be hostile and writes at any moment: every
 * field is read through p9_vload*, once, into a variable of our own.
 */
#ifndef P9_VIRTIO_RING_H
#define P9_VIRTIO_RING_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the rings are little-endian, and so must the machine be"
#endif

enum {
	P9_VDESC_NEXT = 1,     /* another descriptor follows */
	P9_VDESC_WRITE = 2,    /* the device writes it */
	P9_VDESC_INDIRECT = 4, /* it holds a table of descriptors */
	P9_VAVAIL_NO_INTERRUPT = 1,
	P9_VUSED_NO_NOTIFY = 1,
};

/* Feature bits that rings and this device know (section 6, and linux/virtio_9p.h for the first). */
#define P9_VIRTIO_F_MOUNT_TAG (UINT64_C(1) << 0)
#define P9_VIRTIO_F_INDIRECT_DESC (UINT64_C(1) << 28)
#define P9_VIRTIO_F_EVENT_IDX (UINT64_C(1) << 29)
#define P9_VIRTIO_F_VERSION_1 (UINT64_C(1) << 32)

#define P9_VQ_NUM_MAX 32768u  /* entries of a ring */
#define P9_VQ_CHAIN_MAX 1024u /* descriptors of one request, whatever the ring's size: Linux passes the ring's */
#define P9_VIRTIO_ID_9P 9u

struct p9_vdesc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
struct p9_vavail {
	uint16_t flags, idx;
	uint16_t ring[]; /* num of them; behind them: used_event */
};
struct p9_vused_elem {
	uint32_t id, len;
};
struct p9_vused {
	uint16_t flags, idx;
	struct p9_vused_elem ring[]; /* num of them; behind them: avail_event */
};

static inline size_t p9_vdesc_size(unsigned num)
{
	return sizeof(struct p9_vdesc) * num;
}
static inline size_t p9_vavail_size(unsigned num)
{
	return sizeof(struct p9_vavail) + sizeof(uint16_t) * num + sizeof(uint16_t);
}
static inline size_t p9_vused_size(unsigned num)
{
	return sizeof(struct p9_vused) + sizeof(struct p9_vused_elem) * num + sizeof(uint16_t);
}
static inline uint16_t *p9_vused_event(struct p9_vavail *a, unsigned num)
{
	return &a->ring[num];
}
static inline uint16_t *p9_vavail_event(struct p9_vused *u, unsigned num)
{
	return (uint16_t *)(void *)&u->ring[num];
}

/* Memory that the other end may change at the same time. Plain loads would let the compiler read twice. */
static inline uint16_t p9_vload16(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}
static inline uint16_t p9_vload16_acquire(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
static inline uint32_t p9_vload32(const uint32_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}
static inline uint64_t p9_vload64(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}
static inline void p9_vstore16(uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELAXED);
}
static inline void p9_vstore16_release(uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
}
static inline void p9_vstore32(uint32_t *p, uint32_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELAXED);
}
static inline void p9_vstore64(uint64_t *p, uint64_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELAXED);
}
/* Between a store of ours and a load of what the other end stores: 2.7.7.1 and 2.7.10.1 need this order. */
static inline void p9_vfence(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Whether moving an index from `old` to `now` passes `event` (2.7.7.2, vring_need_event). */
static inline bool p9_vneed_event(uint16_t event, uint16_t now, uint16_t old)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

#endif
