/* SPDX-License-Identifier: BSD-2-Clause */
/* ring.h - split virtqueues as they lie in memory, and the one way in which both ends touch that memory.
 *
 * Both ends run against a peer that may change anything at any time. So every field is read by one of the functions
 * below, once, into a variable of our own; nothing that was read is read again, and nothing that we wrote is read back.
 * Fields are little-endian (VIRTIO 1.x, and legacy devices of little-endian guests, which are the only ones we know).
 *
 * Order (memory model of C11; clauses are those of VIRTIO 1.x, chapter "Split Virtqueues"):
 *   - an index is stored with release after what it announces, and loaded with acquire before that is looked at
 *     ("Updating idx" for avail.idx, "The Virtqueue Used Ring" and "Receiving Used Buffers From The Device" for
 *     used.idx);
 *   - "do I have to notify" stores an index and then loads what the other end has asked for, while the other end stores
 *     what it asks for and then loads the index ("Notifying The Device", "Used Buffer Notification Suppression",
 *     "Available Buffer Notification Suppression"). Neither pair may be turned round, or both sleep: these four
 *     accesses are sequentially consistent. Between processes or with hardware that is the full barrier the
 *     specification asks for.
 * Atomics are the compiler's builtins, for freestanding code has no stdatomic.h everywhere.
 */
#ifndef P9_VIRTIO_RING_H
#define P9_VIRTIO_RING_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "p9/error.h"
#include "p9/messages.h"

#define P9_VRING_NUM_MAX 32768u
#define P9_VRING_LEGACY_ALIGN \
	4096u /* of the used ring, when the three parts are one piece ("Legacy Interfaces: A Note on Virtqueue Layout") */
#define P9_VCHAIN_MAX 1024u /* descriptors of one chain, those of an indirect table included */

enum p9_vdesc_flags { P9_VDESC_NEXT = 1, P9_VDESC_WRITE = 2, P9_VDESC_INDIRECT = 4 };
enum { P9_VAVAIL_NO_INTERRUPT = 1, P9_VUSED_NO_NOTIFY = 1 };
#define P9_VIRTIO_F_INDIRECT_DESC (UINT64_C(1) << 28)
#define P9_VIRTIO_F_EVENT_IDX (UINT64_C(1) << 29)
#define P9_VIRTIO_F_VERSION_1 (UINT64_C(1) << 32)
#define P9_VIRTIO_9P_MOUNT_TAG UINT64_C(1)

/* Two words, so that a descriptor is two loads. */
struct p9_vdesc {
	uint64_t addr;
	uint64_t rest; /* len[4] flags[2] next[2] */
};
struct p9_vavail {
	uint16_t flags, idx, ring[]; /* num entries, then used_event */
};
struct p9_vused_elem {
	uint32_t id, len;
};
struct p9_vused {
	uint16_t flags, idx;
	struct p9_vused_elem ring[]; /* num entries, then avail_event[2] */
};

/* Where the three parts are, in our address space. */
struct p9_vring {
	uint32_t num; /* a power of two */
	struct p9_vdesc *desc;
	struct p9_vavail *avail;
	struct p9_vused *used;
};

/* The parts as one piece of memory: offsets of avail and used, and the size of all. `align` is 4 for what only we lay out,
 * P9_VRING_LEGACY_ALIGN for legacy devices, whose queue address is one page number. */
struct p9_vring_layout {
	size_t avail, used, size;
};
static inline struct p9_vring_layout p9_vring_layout(uint32_t num, size_t align)
{
	struct p9_vring_layout l = { .avail = (size_t)num * sizeof(struct p9_vdesc) };
	l.used = (l.avail + sizeof(uint16_t) * (3 + (size_t)num) + align - 1) / align * align;
	l.size = l.used + sizeof(uint16_t) * 3 + (size_t)num * sizeof(struct p9_vused_elem);
	return l;
}
/* The ring in memory that begins at `mem`, aligned to 16, or to 4096 for legacy. */
static inline struct p9_vring p9_vring_at(void *mem, uint32_t num, size_t align)
{
	struct p9_vring_layout l = p9_vring_layout(num, align);
	uint8_t *p = mem;
	return (struct p9_vring){ num, mem, (struct p9_vavail *)(p + l.avail), (struct p9_vused *)(p + l.used) };
}
static inline bool p9_vring_ok(const struct p9_vring *r)
{
	bool aligned = ((uintptr_t)r->desc | ((uintptr_t)r->avail << 3) | ((uintptr_t)r->used << 2)) % 16 == 0;
	return r->num > 0 && r->num <= P9_VRING_NUM_MAX && (r->num & (r->num - 1)) == 0 && r->desc && r->avail &&
	       r->used && aligned;
}
/* The fields behind the rings: what the driver asks for (used_event), what the device asks for (avail_event). */
static inline uint16_t *p9_vring_used_event(const struct p9_vring *r)
{
	return &r->avail->ring[r->num];
}
static inline uint16_t *p9_vring_avail_event(const struct p9_vring *r)
{
	return (uint16_t *)&r->used->ring[r->num];
}
/* Whether index `want` lies in the step from old to new
 * ("Used Buffer Notification Suppression"). */
static inline bool p9_vring_crossed(uint16_t want, uint16_t new, uint16_t old)
{
	return (uint16_t)(new - want - 1) < (uint16_t)(new - old);
}

/* ---- every access to shared memory ---- */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define P9_VLE16(x) (x)
#define P9_VLE32(x) (x)
#define P9_VLE64(x) (x)
#else
#define P9_VLE16(x) __builtin_bswap16(x)
#define P9_VLE32(x) __builtin_bswap32(x)
#define P9_VLE64(x) __builtin_bswap64(x)
#endif

static inline uint16_t p9_vload16(const uint16_t *p)
{
	return P9_VLE16(__atomic_load_n(p, __ATOMIC_RELAXED));
}
static inline uint32_t p9_vload32(const uint32_t *p)
{
	return P9_VLE32(__atomic_load_n(p, __ATOMIC_RELAXED));
}
static inline uint64_t p9_vload64(const uint64_t *p)
{
	return P9_VLE64(__atomic_load_n(p, __ATOMIC_RELAXED));
}
static inline void p9_vstore16(uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, P9_VLE16(v), __ATOMIC_RELAXED);
}
static inline void p9_vstore32(uint32_t *p, uint32_t v)
{
	__atomic_store_n(p, P9_VLE32(v), __ATOMIC_RELAXED);
}
static inline void p9_vstore64(uint64_t *p, uint64_t v)
{
	__atomic_store_n(p, P9_VLE64(v), __ATOMIC_RELAXED);
}
/* An index of the other end's: what it announces is visible after this. Sequentially consistent, because it is also the
 * second access of "ask to be woken, then look again". */
static inline uint16_t p9_vload_index(const uint16_t *p)
{
	return P9_VLE16(__atomic_load_n(p, __ATOMIC_SEQ_CST));
}
/* An index of ours: what it announces is visible before this. The first access of "announce, then ask whether to wake". */
static inline void p9_vstore_index(uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, P9_VLE16(v), __ATOMIC_SEQ_CST);
}

#endif
