/* SPDX-License-Identifier: BSD-2-Clause */
/* driver.c - the driver's end: requests into the ring, answers out of it.
 *
 * Which descriptors are free, and which belong to a chain, stands in private memory (`places`); the descriptor table is
 * written and never read, so a device that scribbles over it harms only itself.
 * Must stay true: nfree places are on the free list, the others belong to chains in flight.
 */
#include <string.h>
#include "virtio/driver.h"

size_t p9_vdrv_memory(uint32_t num)
{
	return num * sizeof(struct p9_vplace);
}

int p9_vdrv_init(struct p9_vdrv *d, const struct p9_vdrv_conf *conf, void *mem)
{
	const struct p9_vring *r = &conf->ring;
	*d = (struct p9_vdrv){ .conf = *conf, .places = mem };
	if (!p9_vring_ok(r) || (conf->tables && conf->table_size == 0)) {
		return -P9_EINVAL;
	}
	memset(r->desc, 0, r->num * sizeof(*r->desc));
	memset(r->avail, 0, (r->num + 3) * sizeof(uint16_t));
	memset(r->used, 0, 3 * sizeof(uint16_t) + r->num * sizeof(struct p9_vused_elem));
	memset(mem, 0, p9_vdrv_memory(r->num));
	for (uint32_t i = 0; i < r->num; i++) {
		d->places[i].next = (uint16_t)(i + 1);
	}
	d->nfree = r->num;
	d->avail_idx = d->kicked = d->last_used = conf->base;
	p9_vstore_index(&r->avail->idx, conf->base);
	p9_vstore_index(&r->used->idx, conf->base);
	p9_vstore_index(p9_vring_used_event(r), conf->base);
	p9_vstore_index(p9_vring_avail_event(r), conf->base);
	return 0;
}

static void put_desc(struct p9_vdesc *desc, const struct p9_vbuf *b, unsigned flags, unsigned next)
{
	p9_vstore64(&desc->addr, b->addr);
	p9_vstore64(&desc->rest, b->len | (uint64_t)flags << 32 | (uint64_t)next << 48);
}

static unsigned flags_of(unsigned i, unsigned nread, unsigned n)
{
	return (i >= nread ? P9_VDESC_WRITE : 0u) | (i + 1 < n ? P9_VDESC_NEXT : 0u);
}

static uint16_t take_place(struct p9_vdrv *d)
{
	uint16_t i = d->free;
	d->free = d->places[i].next;
	d->nfree--;
	return i;
}

/* One place, and the parts in its table. */
static uint16_t add_indirect(struct p9_vdrv *d, const struct p9_vbuf *v, unsigned nread, unsigned n)
{
	uint16_t head = take_place(d);
	size_t at = (size_t)head * d->conf.table_size;
	for (unsigned i = 0; i < n; i++) {
		put_desc(&d->conf.tables[at + i], &v[i], flags_of(i, nread, n), i + 1 < n ? i + 1 : 0);
	}
	struct p9_vbuf table = { d->conf.tables_addr + at * sizeof(struct p9_vdesc),
				 (uint32_t)(n * sizeof(struct p9_vdesc)) };
	put_desc(&d->conf.ring.desc[head], &table, P9_VDESC_INDIRECT, 0);
	d->places[head].count = 1;
	return head;
}

static uint16_t add_direct(struct p9_vdrv *d, const struct p9_vbuf *v, unsigned nread, unsigned n)
{
	uint16_t head = d->free;
	for (unsigned i = 0; i < n; i++) {
		uint16_t place = take_place(d);
		put_desc(&d->conf.ring.desc[place], &v[i], flags_of(i, nread, n), i + 1 < n ? d->free : 0);
	}
	d->places[head].count = (uint16_t)n;
	return head;
}

int p9_vdrv_add(struct p9_vdrv *d, const struct p9_vbuf *v, unsigned nread, unsigned nwrite, void *user)
{
	const struct p9_vring *r = &d->conf.ring;
	unsigned n = nread + nwrite;
	bool table =
		d->conf.tables && (d->conf.features & P9_VIRTIO_F_INDIRECT_DESC) && n > 1 && n <= d->conf.table_size;
	uint64_t writable = 0;
	if (d->why || n == 0) {
		return d->why ? -P9_EPROTO : -P9_EINVAL;
	}
	if (n > P9_VCHAIN_MAX || (!table && n > r->num)) {
		return -P9_EMSGSIZE;
	}
	if (d->nfree < (table ? 1 : n)) {
		return -P9_EAGAIN;
	}
	for (unsigned i = 0; i < n; i++) {
		writable += i >= nread ? v[i].len : 0;
		if (v[i].len == 0 || writable > UINT32_MAX) {
			return -P9_EINVAL;
		}
	}
	uint16_t head = table ? add_indirect(d, v, nread, n) : add_direct(d, v, nread, n);
	d->places[head].user = user;
	d->places[head].writable = (uint32_t)writable;
	p9_vstore16(&r->avail->ring[d->avail_idx & (r->num - 1)], head);
	d->avail_idx++;
	d->inflight++;
	return 0;
}

bool p9_vdrv_kick(struct p9_vdrv *d)
{
	const struct p9_vring *r = &d->conf.ring;
	uint16_t old = d->kicked;
	if (old == d->avail_idx) {
		return false;
	}
	/* "Updating idx": descriptors and entries before idx. */
	p9_vstore_index(&r->avail->idx, d->avail_idx);
	d->kicked = d->avail_idx;
	/* "Notifying The Device": idx is stored, then what the device has asked for is looked at. */
	if (d->conf.features & P9_VIRTIO_F_EVENT_IDX) {
		return p9_vring_crossed(p9_vload_index(p9_vring_avail_event(r)), d->avail_idx, old);
	}
	return !(p9_vload_index(&r->used->flags) & P9_VUSED_NO_NOTIFY);
}

static int stop(struct p9_vdrv *d, const char *why)
{
	d->why = d->why ? d->why : why;
	return -P9_EPROTO;
}

/* Gives a chain's places back. */
static void *release(struct p9_vdrv *d, uint16_t head)
{
	struct p9_vplace *first = &d->places[head];
	uint16_t last = head;
	for (unsigned i = 1; i < first->count; i++) {
		last = d->places[last].next;
	}
	d->places[last].next = d->free;
	d->free = head;
	d->nfree += first->count;
	d->inflight--;
	first->count = 0;
	return first->user;
}

int p9_vdrv_get(struct p9_vdrv *d, struct p9_vanswer *out)
{
	const struct p9_vring *r = &d->conf.ring;
	if (d->why) {
		return -P9_EPROTO;
	}
	/* "Receiving Used Buffers From The Device": the device's barrier stands before its store of idx, ours is this
	 * acquire: entries, and what was written into the chains, are complete. */
	uint16_t waiting = (uint16_t)(p9_vload_index(&r->used->idx) - d->last_used);
	if (waiting == 0) {
		return 0;
	}
	if (waiting > d->inflight) {
		return stop(d, "more answers than requests");
	}
	const struct p9_vused_elem *e = &r->used->ring[d->last_used & (r->num - 1)];
	uint32_t id = p9_vload32(&e->id), len = p9_vload32(&e->len);
	if (id >= r->num || d->places[id].count == 0) {
		return stop(d, "an answer to no request");
	}
	if (len > d->places[id].writable) {
		return stop(d, "an answer longer than its room");
	}
	d->last_used++;
	out->len = len;
	out->user = release(d, (uint16_t)id);
	return 1;
}

bool p9_vdrv_wait(struct p9_vdrv *d)
{
	const struct p9_vring *r = &d->conf.ring;
	/* "Used Buffer Notification Suppression": say what we wait for, then look once more. */
	if (d->conf.features & P9_VIRTIO_F_EVENT_IDX) {
		p9_vstore_index(p9_vring_used_event(r), d->last_used);
	} else {
		p9_vstore_index(&r->avail->flags, 0);
	}
	return !d->why && p9_vload_index(&r->used->idx) != d->last_used;
}

/* With event indices there is nothing to do: used_event stays behind, and is not met. */
void p9_vdrv_quiet(struct p9_vdrv *d)
{
	if (!(d->conf.features & P9_VIRTIO_F_EVENT_IDX)) {
		p9_vstore16(&d->conf.ring.avail->flags, P9_VAVAIL_NO_INTERRUPT);
	}
}

bool p9_vdrv_drain(struct p9_vdrv *d, void **user)
{
	stop(d, "the device was reset");
	for (uint32_t i = 0; i < d->conf.ring.num; i++) {
		if (d->places[i].count > 0) {
			*user = release(d, (uint16_t)i);
			return true;
		}
	}
	return false;
}
