/* SPDX-License-Identifier: BSD-2-Clause */
/* device.c - the device's end: chains out of the ring, answers into it.
 *
 * Must stay true: each field of shared memory is read once (ring.h); a descriptor that was read is judged before anything
 * is done with it; the work for one chain is bounded by P9_VCHAIN_MAX descriptors, whatever they point to.
 */
#include <string.h>
#include "virtio/device.h"

#define DESC_SIZE 16u

int p9_vdev_init(struct p9_vdev *d, const struct p9_vdev_conf *conf)
{
	*d = (struct p9_vdev){ .conf = *conf };
	if (!p9_vring_ok(&conf->ring) || !conf->mem) {
		return -P9_EINVAL;
	}
	d->last_avail = conf->base;
	d->used_idx = d->published = d->told = conf->used;
	return 0;
}

void p9_vdev_stop(struct p9_vdev *d, const char *why)
{
	d->why = d->why ? d->why : why;
}

static int stop(struct p9_vdev *d, const char *why)
{
	p9_vdev_stop(d, why);
	return -P9_EPROTO;
}

/* ---- guest memory ---- */
void *p9_vtable_at(const struct p9_vspace *m, uint64_t addr, uint64_t *len)
{
	const struct p9_vtable *t = (const struct p9_vtable *)m;
	for (unsigned i = 0; i < t->n; i++) {
		const struct p9_vrange *r = &t->regions[i];
		if (addr >= r->addr && addr - r->addr < r->size) {
			uint64_t left = r->size - (addr - r->addr);
			*len = *len < left ? *len : left;
			return (uint8_t *)r->host + (addr - r->addr);
		}
	}
	return NULL;
}

/* A walk along a chain. */
struct walk {
	struct p9_vdev *d;
	struct p9_vchain *c;
	uint64_t table; /* guest address of the indirect table */
	uint32_t size;	/* entries of the table that we are in */
	uint32_t i;	/* the entry */
	unsigned count; /* descriptors so far */
	bool indirect;	/* we are in an indirect table */
};
struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

static struct desc unpack(uint64_t addr, uint64_t rest)
{
	return (struct desc){ addr, (uint32_t)rest, (uint16_t)(rest >> 32), (uint16_t)(rest >> 48) };
}

/* An entry of an indirect table may lie anywhere, across two regions even. */
static bool read_indirect(const struct walk *w, struct desc *out)
{
	const struct p9_vspace *m = w->d->conf.mem;
	uint64_t addr = w->table + (uint64_t)w->i * DESC_SIZE, word[2];
	uint64_t len = DESC_SIZE;
	void *p = m->at(m, addr, &len);
	if (p && len == DESC_SIZE && (uintptr_t)p % 8 == 0) {
		const struct p9_vdesc *desc = p;
		*out = unpack(p9_vload64(&desc->addr), p9_vload64(&desc->rest));
		return true;
	}
	for (unsigned i = 0; i < DESC_SIZE; i++) { /* slow, and nobody's habit */
		len = 1;
		p = m->at(m, addr + i, &len);
		if (!p || len == 0) {
			return false;
		}
		((uint8_t *)word)[i] = __atomic_load_n((const uint8_t *)p, __ATOMIC_RELAXED);
	}
	*out = unpack(P9_VLE64(word[0]), P9_VLE64(word[1]));
	return true;
}

static bool read_desc(const struct walk *w, struct desc *out)
{
	if (w->indirect) {
		return read_indirect(w, out);
	}
	const struct p9_vdesc *desc = &w->d->conf.ring.desc[w->i];
	*out = unpack(p9_vload64(&desc->addr), p9_vload64(&desc->rest));
	return true;
}

/* Goes into an indirect table ("Indirect Descriptors"): never from one into another, and as the last of its chain. WRITE means nothing
 * on it. Its length is bounded by what a chain may have, not by the ring's size, which Linux does not keep to. */
static int enter_table(struct walk *w, const struct desc *desc)
{
	struct p9_vdev *d = w->d;
	if (!(d->conf.features & P9_VIRTIO_F_INDIRECT_DESC)) {
		return stop(d, "an indirect descriptor that was not negotiated");
	}
	if (w->indirect) {
		return stop(d, "an indirect table in an indirect table");
	}
	if (desc->flags & P9_VDESC_NEXT) {
		return stop(d, "an indirect descriptor with a next one");
	}
	if (desc->len == 0 || desc->len % DESC_SIZE) {
		return stop(d, "an indirect table whose length is no multiple of 16");
	}
	if (desc->addr + desc->len < desc->addr) {
		return stop(d, "an indirect table that wraps");
	}
	w->indirect = true;
	w->table = desc->addr;
	w->size = desc->len / DESC_SIZE;
	w->i = 0;
	return 0;
}

/* Adds a descriptor's bytes to the chain, in as many pieces as memory is in. */
static int add_pieces(struct walk *w, const struct desc *desc)
{
	const struct p9_vspace *m = w->d->conf.mem;
	struct p9_vchain *c = w->c;
	uint64_t addr = desc->addr, left = desc->len;
	while (left > 0) {
		uint64_t len = left;
		void *p = m->at(m, addr, &len);
		if (!p || len == 0) {
			return stop(w->d, "an address outside of memory");
		}
		unsigned n = c->nread + c->nwrite;
		if (n == c->cap) {
			return stop(w->d, "a chain in too many pieces");
		}
		c->v[n] = (struct p9_vpiece){ p, (size_t)len };
		*(desc->flags & P9_VDESC_WRITE ? &c->nwrite : &c->nread) += 1;
		addr += len;
		left -= len;
	}
	return 0;
}

static int take_desc(struct walk *w, const struct desc *desc)
{
	struct p9_vdev *d = w->d;
	bool writes = desc->flags & P9_VDESC_WRITE;
	uint32_t *sum = writes ? &w->c->writable : &w->c->readable;
	if (desc->len == 0) {
		return stop(d, "a descriptor without length");
	}
	if (desc->addr + desc->len < desc->addr) {
		return stop(d, "a descriptor that wraps");
	}
	if (!writes && w->c->nwrite > 0) {
		return stop(d, "a part to read behind one to write"); /* "Message Framing" */
	}
	if (desc->len > d->conf.most - *sum) {
		return stop(d, "a chain longer than a message can be");
	}
	*sum += desc->len;
	return add_pieces(w, desc);
}

static int walk_chain(struct p9_vdev *d, struct p9_vchain *c)
{
	struct walk w = { .d = d, .c = c, .size = d->conf.ring.num, .i = c->head };
	for (;;) {
		struct desc desc;
		if (w.count++ == P9_VCHAIN_MAX) {
			return stop(d, "a chain that is a loop, or above 1024 descriptors");
		}
		if (!read_desc(&w, &desc)) {
			return stop(d, "an indirect table outside of memory");
		}
		bool table = desc.flags & P9_VDESC_INDIRECT;
		int rc = table ? enter_table(&w, &desc) : take_desc(&w, &desc);
		if (rc < 0) {
			return rc;
		}
		if (table) {
			w.count--; /* it carries no bytes, and comes once */
			continue;
		}
		if (!(desc.flags & P9_VDESC_NEXT)) {
			return 1;
		}
		if (desc.next >= w.size) {
			return stop(d, "a next descriptor outside of its table");
		}
		w.i = desc.next;
	}
}

int p9_vdev_pop(struct p9_vdev *d, struct p9_vchain *c)
{
	const struct p9_vring *r = &d->conf.ring;
	c->nread = c->nwrite = 0;
	c->readable = c->writable = 0;
	if (d->why) {
		return -P9_EPROTO;
	}
	/* "Updating idx": the driver's barrier stands before its store of idx, ours is this acquire: what lies below idx,
	 * entries and descriptors, is complete. */
	uint16_t waiting = (uint16_t)(p9_vload_index(&r->avail->idx) - d->last_avail);
	if (waiting == 0) {
		return 0;
	}
	if (waiting > r->num) {
		return stop(d, "an available index that jumps over the ring");
	}
	if (d->inflight == r->num) {
		return stop(d, "more requests in flight than the ring has places");
	}
	c->head = p9_vload16(&r->avail->ring[d->last_avail & (r->num - 1)]);
	if (c->head >= r->num) {
		return stop(d, "a head outside of the ring");
	}
	int rc = walk_chain(d, c);
	if (rc > 0) {
		d->last_avail++;
		d->inflight++;
	}
	return rc;
}

int p9_vdev_take(struct p9_vdev *d, uint16_t head, struct p9_vchain *c)
{
	c->nread = c->nwrite = 0;
	c->readable = c->writable = 0;
	c->head = head;
	if (d->why || head >= d->conf.ring.num) {
		return stop(d, "a head outside of the ring");
	}
	int rc = walk_chain(d, c);
	d->inflight += rc > 0;
	return rc;
}

/* ---- answers ---- */
void p9_vdev_push(struct p9_vdev *d, uint16_t head, uint32_t len)
{
	struct p9_vused_elem *e = &d->conf.ring.used->ring[d->used_idx & (d->conf.ring.num - 1)];
	p9_vstore32(&e->id, head);
	p9_vstore32(&e->len, len);
	d->used_idx++;
	d->inflight -= d->inflight > 0;
}

bool p9_vdev_publish(struct p9_vdev *d)
{
	const struct p9_vring *r = &d->conf.ring;
	if (d->published == d->used_idx) {
		return false;
	}
	/* "The Virtqueue Used Ring": entries, and what was written into the chain, before idx. */
	p9_vstore_index(&r->used->idx, d->used_idx);
	d->published = d->used_idx;
	if (!(d->conf.features & P9_VIRTIO_F_EVENT_IDX)) {
		/* "Used Buffer Notification Suppression": idx is stored, then the flag is looked at. */
		return !(p9_vload_index(&r->avail->flags) & P9_VAVAIL_NO_INTERRUPT);
	}
	uint16_t want = p9_vload_index(p9_vring_used_event(r));
	bool notify = !d->ever_told || p9_vring_crossed(want, d->used_idx, d->told);
	d->told = d->used_idx;
	d->ever_told = true;
	return notify;
}

bool p9_vdev_wait(struct p9_vdev *d)
{
	const struct p9_vring *r = &d->conf.ring;
	/* "Available Buffer Notification Suppression": say what we wait for, then look once more; the driver stores idx, then looks at what we said. */
	if (d->conf.features & P9_VIRTIO_F_EVENT_IDX) {
		p9_vstore_index(p9_vring_avail_event(r), d->last_avail);
	} else {
		p9_vstore_index(&r->used->flags, 0);
	}
	return !d->why && p9_vload_index(&r->avail->idx) != d->last_avail;
}

/* With event indices there is nothing to do: avail_event stays behind, and is not met. */
void p9_vdev_quiet(struct p9_vdev *d)
{
	if (!(d->conf.features & P9_VIRTIO_F_EVENT_IDX)) {
		p9_vstore16(&d->conf.ring.used->flags, P9_VUSED_NO_NOTIFY);
	}
}

/* ---- scattered bytes ---- */
static size_t step(struct p9_vpiece **v, unsigned *count, size_t n)
{
	size_t k = (*v)->len < n ? (*v)->len : n;
	(*v)->p = (uint8_t *)(*v)->p + k;
	(*v)->len -= k;
	if ((*v)->len == 0) {
		(*v)++;
		(*count)--;
	}
	return k;
}

size_t p9_vpiece_get(struct p9_vpiece **v, unsigned *count, void *buf, size_t n)
{
	size_t at = 0;
	while (at<n && * count> 0) {
		const void *p = (*v)->p;
		size_t k = step(v, count, n - at);
		memcpy((uint8_t *)buf + at, p, k);
		at += k;
	}
	return at;
}

size_t p9_vpiece_put(struct p9_vpiece **v, unsigned *count, const void *buf, size_t n)
{
	size_t at = 0;
	while (at<n && * count> 0) {
		void *p = (*v)->p;
		size_t k = step(v, count, n - at);
		memcpy(p, (const uint8_t *)buf + at, k);
		at += k;
	}
	return at;
}

unsigned p9_vpiece_cut(struct p9_vpiece *v, unsigned count, size_t n)
{
	unsigned i = 0;
	for (; i < count && n > 0; i++) {
		v[i].len = v[i].len < n ? v[i].len : n;
		n -= v[i].len;
	}
	return i;
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

int p9_vdev_message(struct p9_vchain *c, uint8_t *head, uint32_t msize, struct p9_vmessage *m)
{
	struct p9_vpiece *v = c->v;
	unsigned n = c->nread;
	*m = (struct p9_vmessage){ 0 };
	if (c->writable < P9_RLERRORSZ || msize < P9_TWRITEHDRSZ) {
		return -P9_EMSGSIZE;
	}
	if (p9_vpiece_get(&v, &n, head, P9_HDRSZ) < P9_HDRSZ) {
		return -P9_EPROTO;
	}
	uint32_t size = get32(head);
	if (size < P9_HDRSZ || size > c->readable || size > msize) {
		return size < P9_HDRSZ ? -P9_EPROTO : -P9_EMSGSIZE;
	}
	bool write = head[4] == P9_Twrite && size > P9_TWRITEHDRSZ;
	m->len = write ? P9_TWRITEHDRSZ : size;
	p9_vpiece_get(&v, &n, head + P9_HDRSZ, m->len - P9_HDRSZ);
	m->elsewhere = size - m->len;
	m->payload = v;
	m->npayload = p9_vpiece_cut(v, n, m->elsewhere);
	return 0;
}
