/* SPDX-License-Identifier: BSD-2-Clause */
/* memory.h - a guest's memory as its monitor has shared it: regions of descriptors, mapped here.
 *
 * A table is counted and never changes; adding or removing a region makes a new one that shares the others. Whoever uses
 * addresses of a table holds a reference, so memory that the monitor takes away under a request stays mapped until the
 * request has ended. Loop thread, but for the bytes themselves.
 */
#ifndef P9_VHOST_MEMORY_H
#define P9_VHOST_MEMORY_H
#include <stdbool.h>
#include <stdint.h>
#include "p9/error.h"
#include "virtio/device.h"

struct p9_pack;

#define P9_VMEM_SLOTS 509 /* as many as vhost in the kernel has by default, roughly; told by GET_MAX_MEM_SLOTS */

/* As in the messages. */
struct p9_vregion_desc {
	uint64_t guest, size, user, offset;
};
struct p9_vregion;
struct p9_vmem {
	struct p9_vspace space; /* first: for the rings */
	struct {		/* where the last address was: most guests have one region that counts */
		uint64_t guest, size;
		uint8_t *base;
	} last;
	unsigned refs, n;
	struct p9_vregion *r[];
};

/* An empty table, or NULL without memory. */
struct p9_vmem *p9_vmem_new(void);
struct p9_vmem *p9_vmem_get(struct p9_vmem *m);
/* Accepts NULL. The last reference unmaps. */
void p9_vmem_put(struct p9_vmem *m);
/* A table like `m` with one region more; `fd` stays the caller's. *out is a new reference, m is not touched. */
P9_MUST_USE int p9_vmem_add(const struct p9_vmem *m, const struct p9_vregion_desc *d, int fd, struct p9_vmem **out);
/* A table like `m` without the region that has just these addresses; -P9_ENOENT when there is none. */
P9_MUST_USE int p9_vmem_remove(const struct p9_vmem *m, const struct p9_vregion_desc *d, struct p9_vmem **out);
/* Where the monitor's address is, if `len` bytes lie there in one piece; else NULL. */
void *p9_vmem_user(const struct p9_vmem *m, uint64_t user, uint64_t len);
/* The regions for another process: how many, then descriptor, guest, size, user and offset of each. */
void p9_vmem_pack(const struct p9_vmem *m, struct p9_pack *p);
/* Whether some of it has been taken away by shortening its file. */
bool p9_vmem_lost(const struct p9_vmem *m);

#endif
