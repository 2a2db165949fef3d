/* SPDX-License-Identifier: BSD-2-Clause */
/* device.c - see device.h. Section numbers are those of virtio 1.2.
 *
 * Must stay true: nothing that the driver can write is read twice; no index of the driver's is used without being brought
 * into range; a chain ends after at most P9_VQ_CHAIN_MAX descriptors, so a loop is a chain that is too long.
 */
#include <string.h>
#include "virtio/device.h"

bool p9_vdev_init(struct p9_vdev *q, const struct p9_vdev_conf *c)
{
	bool num = c->num > 0 && c->num <= P9_VQ_NUM_MAX && (c->num & (c->num - 1)) == 0;
	bool there = c->desc && c->avail && c->used && c->map;
	bool aligned =
		((uintptr_t)c->desc & 15) == 0 && ((uintptr_t)c->avail & 1) == 0 && ((uintptr_t)c->used & 3) == 0;
	memset(q, 0, sizeof(*q));
	q->c = *c;
	q->last_avail = c->base;
	q->used_idx = q->told_idx = c->used_idx;
	q->why = "";
	q->broken = !num || !there || !aligned;
	return !q->broken;
}

static int breaks(struct p9_vdev *q, const char *why)
{
	q->broken = true;
	q->why = why;
	return -1;
}

static struct p9_vdesc load(const struct p9_vdesc *d)
{
	return (struct p9_vdesc){ p9_vload64(&d->addr), p9_vload32(&d->len), p9_vload16(&d->flags),
				  p9_vload16(&d->next) };
}

static int add_piece(struct p9_vdev *q, struct p9_vchain *ch, const struct p9_vdesc *d)
{
	bool write = d->flags & P9_VDESC_WRITE;
	unsigned have = (unsigned)ch->nread + ch->nwrite;
	if (d->len == 0) {
		return 0; /* holds nothing, and is no rule broken: legacy drivers send such */
	}
	if (!write && ch->nwrite) {
		return breaks(q, "a readable descriptor follows a writable one"); /* 2.7.4.2 */
	}
	unsigned max = ch->max < P9_VQ_CHAIN_MAX ? ch->max : P9_VQ_CHAIN_MAX;
	int n = have < max ? q->c.map(q->c.map_arg, d->addr, d->len, ch->piece + have, max - have) : -1;
	if (n < 0) {
		return breaks(q, have < max ? "a descriptor names memory that is not there" : "too many pieces");
	}
	if (write) {
		ch->nwrite = (uint16_t)(ch->nwrite + n);
		ch->writable += d->len;
	} else {
		ch->nread = (uint16_t)(ch->nread + n);
		ch->readable += d->len;
	}
	return 0;
}

/* Walks a table to its end. `budget` is what may still come of the whole chain. An indirect descriptor is left in *tail
 * (only the ring's own table may have one). */
static int walk(struct p9_vdev *q, struct p9_vchain *ch, const struct p9_vdesc *table, uint32_t num, uint32_t i,
		struct p9_vdesc *tail)
{
	unsigned budget = P9_VQ_CHAIN_MAX;
	for (;;) {
		if (i >= num) {
			return breaks(q, "a descriptor's number lies outside of its table");
		}
		if (budget-- == 0) {
			return breaks(q, "a chain of descriptors is too long, or has no end");
		}
		struct p9_vdesc d = load(&table[i]);
		if (d.flags & P9_VDESC_INDIRECT) {
			if (!tail || !q->c.indirect) {
				return breaks(q, "an indirect descriptor where none may be"); /* 2.7.5.3.1 */
			}
			if (d.flags & P9_VDESC_NEXT) {
				return breaks(q, "an indirect descriptor has a next one");
			}
			*tail = d;
			return 0;
		}
		if (add_piece(q, ch, &d) < 0) {
			return -1;
		}
		if (!(d.flags & P9_VDESC_NEXT)) {
			return 0;
		}
		i = d.next;
	}
}

/* The table of an indirect descriptor. It may lie across a cut of memory, then it is walked in a copy. */
static int walk_indirect(struct p9_vdev *q, struct p9_vchain *ch, const struct p9_vdesc *ind)
{
	struct p9_vpiece at[2];
	uint32_t num = ind->len / (uint32_t)sizeof(struct p9_vdesc);
	if (ind->len == 0 || ind->len % sizeof(struct p9_vdesc) != 0 || num > P9_VQ_CHAIN_MAX) {
		return breaks(q, "an indirect table has no possible length");
	}
	int n = q->c.map(q->c.map_arg, ind->addr, ind->len, at, 2);
	if (n < 1) {
		return breaks(q, "an indirect table is not in memory");
	}
	if (n == 1 && ((uintptr_t)at[0].p & 7) == 0) {
		return walk(q, ch, at[0].p, num, 0, NULL);
	}
	struct p9_vdesc copy[P9_VQ_CHAIN_MAX];
	memcpy(copy, at[0].p, at[0].len);
	if (n == 2) {
		memcpy((uint8_t *)copy + at[0].len, at[1].p, at[1].len);
	}
	return walk(q, ch, copy, num, 0, NULL);
}

int p9_vdev_pop(struct p9_vdev *q, struct p9_vchain *ch)
{
	if (q->broken) {
		return -1;
	}
	uint16_t idx = p9_vload16_acquire(&q->c.avail->idx); /* before the ring's entry, and what it names (2.7.13) */
	uint16_t ready = (uint16_t)(idx - q->last_avail);
	if (ready == 0) {
		return 0;
	}
	if (ready > q->c.num) {
		return breaks(q, "the index of what is available jumps by more than the ring holds");
	}
	uint16_t head = p9_vload16(&q->c.avail->ring[q->last_avail & (q->c.num - 1)]);
	if (p9_vdev_take(q, head, ch) < 0) {
		return -1;
	}
	q->last_avail++;
	return 1;
}

int p9_vdev_take(struct p9_vdev *q, uint16_t head, struct p9_vchain *ch)
{
	if (q->broken || head >= q->c.num) {
		return breaks(q, "the number of a chain's head lies outside of the ring");
	}
	struct p9_vdesc tail = { .len = 0 };
	ch->head = head;
	ch->nread = ch->nwrite = 0;
	ch->readable = ch->writable = 0;
	if (walk(q, ch, q->c.desc, q->c.num, head, &tail) < 0 ||
	    ((tail.flags & P9_VDESC_INDIRECT) && walk_indirect(q, ch, &tail) < 0)) {
		return -1;
	}
	return 0;
}

void p9_vdev_push(struct p9_vdev *q, uint16_t head, uint32_t len)
{
	struct p9_vused_elem *e = &q->c.used->ring[q->used_idx & (q->c.num - 1)];
	p9_vstore32(&e->id, head);
	p9_vstore32(&e->len, len);
	q->used_idx++;
}

bool p9_vdev_publish(struct p9_vdev *q)
{
	uint16_t old = q->told_idx;
	if (old == q->used_idx) {
		return false;
	}
	p9_vstore16_release(&q->c.used->idx, q->used_idx); /* after the entries (2.7.14) */
	p9_vfence();					   /* before the driver's wish (2.7.7.1) */
	q->told_idx = q->used_idx;
	if (q->c.event_idx) {
		return p9_vneed_event(p9_vload16(p9_vused_event(q->c.avail, q->c.num)), q->used_idx, old);
	}
	return !(p9_vload16(&q->c.avail->flags) & P9_VAVAIL_NO_INTERRUPT);
}

bool p9_vdev_listen(struct p9_vdev *q)
{
	if (q->broken) {
		return false;
	}
	if (q->c.event_idx) {
		p9_vstore16(p9_vavail_event(q->c.used, q->c.num), q->last_avail);
	} else {
		p9_vstore16(&q->c.used->flags, 0);
	}
	p9_vfence(); /* the wish before the look (2.7.10.1) */
	return p9_vload16_acquire(&q->c.avail->idx) != q->last_avail;
}

void p9_vdev_quiet(struct p9_vdev *q)
{
	if (!q->broken && !q->c.event_idx) {
		p9_vstore16(&q->c.used->flags, P9_VUSED_NO_NOTIFY);
	}
}
