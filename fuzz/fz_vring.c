/* SPDX-License-Identifier: BSD-2-Clause */
/* fz_vring.c - fuzz target: a hostile driver against our end of a virtqueue as a device, and the other way round.
 *
 * The first byte says who is tested, and what was negotiated. Device: eight changes of four bytes (when, where, what),
 * then an image of the guest's memory, the ring at its beginning. A change is made when the device translates its
 * when-th address, in the middle of a walk: that is the race of a second thread, and it can be repeated. Whatever the
 * image, a chain's bytes lie in guest memory, and its head is private. Driver: a row of operations, some the driver's
 * own, some the device's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "gen.h"
#include "virtio/device.h"
#include "virtio/driver.h"

enum { DRIVER = 1, INDIRECT = 2, EVENT = 4 }; /* bits of the first byte */
enum { NUM = 8, CHANGES = 8, HEAD = 1 + 4 * CHANGES, MSIZE = 4096, STEPS = 200 };
enum { R0 = 0x4000, R1 = 0x1000, R2 = 0x2000, R2_AT = 0x10000 }; /* the first two follow each other for the guest */

struct race {
	struct p9_vspace mem;
	struct p9_vtable table;
	struct p9_vrange regions[3];
	const uint8_t *changes;
	unsigned calls;
};

static void *translate(const struct p9_vspace *m, uint64_t addr, uint64_t *len)
{
	struct race *r = (struct race *)(uintptr_t)m;
	r->calls++;
	for (int i = 0; i < CHANGES; i++) {
		const uint8_t *c = r->changes + 4 * i;
		if (c[0] == r->calls) {
			((uint8_t *)r->regions[0].host)[(c[1] | c[2] << 8) % R0] = c[3];
		}
	}
	return p9_vtable_at(&r->table.mem, addr, len);
}

static void check_chain(const struct race *r, const struct p9_vchain *c)
{
	uint64_t sum[2] = { 0, 0 };
	FZ_CHECK(c->nread + c->nwrite <= c->cap && c->head < NUM, "%u + %u pieces", c->nread, c->nwrite);
	for (unsigned i = 0; i < c->nread + c->nwrite; i++) {
		const uint8_t *p = c->v[i].p;
		bool inside = false;
		for (int k = 0; k < 3; k++) {
			const uint8_t *begin = r->regions[k].host;
			inside |= p >= begin && p + c->v[i].len <= begin + r->regions[k].size;
		}
		FZ_CHECK(inside && c->v[i].len > 0, "piece %u", i);
		sum[i >= c->nread] += c->v[i].len;
	}
	FZ_CHECK(sum[0] == c->readable && sum[1] == c->writable, "sums");
}

static void take(struct p9_vdev *d, struct p9_vchain *c)
{
	struct p9_vmessage m;
	uint8_t *head = malloc(MSIZE);
	int rc = p9_vdev_message(c, head, MSIZE, &m);
	uint32_t wrote = 0;
	if (rc == 0) {
		size_t n = 0;
		FZ_CHECK(m.len >= P9_HDRSZ && m.len <= MSIZE && m.len + m.elsewhere <= c->readable, "head of %u",
			 m.len);
		for (unsigned i = 0; i < m.npayload; i++) {
			n += m.payload[i].len;
		}
		FZ_CHECK(n == m.elsewhere, "payload of %zu, not %u", n, m.elsewhere);
		struct p9_vpiece *v = c->v + c->nread;
		unsigned count = c->nwrite;
		wrote = (uint32_t)p9_vpiece_put(&v, &count, head, P9_RLERRORSZ);
		FZ_CHECK(wrote == P9_RLERRORSZ, "room for %u", wrote);
	}
	free(head);
	p9_vdev_push(d, c->head, wrote);
}

static void device(const uint8_t *data, size_t size)
{
	static struct p9_vpiece v[P9_VCHAIN_MAX + 8];
	struct race r = { { translate },
			  { { p9_vtable_at }, NULL, 3 },
			  { { 0, R0, NULL }, { R0, R1, NULL }, { R2_AT, R2, NULL } },
			  data + 1,
			  0 };
	struct p9_vchain c = { .v = v, .cap = P9_VCHAIN_MAX + 8 };
	struct p9_vdev d;
	r.table.regions = r.regions;
	for (int i = 0; i < 3; i++) {
		r.regions[i].host = aligned_alloc(16, r.regions[i].size); /* apart, so that ASan sees a byte too many */
		memset(r.regions[i].host, 0, r.regions[i].size);
	}
	size_t n = size - HEAD < R0 ? size - HEAD : R0;
	memcpy(r.regions[0].host, data + HEAD, n);
	struct p9_vring ring = p9_vring_at(r.regions[0].host, NUM, 4);
	struct p9_vdev_conf conf = { .ring = ring, .mem = &r.mem, .most = MSIZE + 4096 };
	conf.features =
		(data[0] & INDIRECT ? P9_VIRTIO_F_INDIRECT_DESC : 0) | (data[0] & EVENT ? P9_VIRTIO_F_EVENT_IDX : 0);
	conf.base = conf.used = (uint16_t)(p9_vload_index(&ring.avail->idx) - (data[0] >> 4));
	FZ_CHECK(p9_vdev_init(&d, &conf) == 0, "init");
	int rc = 1;
	for (unsigned i = 0; i < STEPS && rc > 0; i++) {
		rc = p9_vdev_pop(&d, &c);
		if (rc > 0) {
			check_chain(&r, &c);
			take(&d, &c);
		}
		(void)!p9_vdev_publish(&d);
		if (rc == 0 && p9_vdev_wait(&d)) {
			rc = 1;
		}
	}
	FZ_CHECK((rc < 0) == (d.why != NULL), "stopped without a reason");
	for (int i = 0; i < 3; i++) {
		free(r.regions[i].host);
	}
}

/* ---- a hostile device ---- */
struct request {
	uint32_t writable;
	bool open;
};

static void add(struct p9_vdrv *d, struct request *r, const uint8_t *arg)
{
	struct p9_vbuf v[16];
	unsigned nread = arg[0] % 8, nwrite = arg[0] / 8 % 8;
	r->writable = 0;
	for (unsigned i = 0; i < nread + nwrite; i++) {
		v[i] = (struct p9_vbuf){ arg[1] * 16u, arg[2] + 1u };
		r->writable += i >= nread ? v[i].len : 0;
	}
	r->open = p9_vdrv_add(d, v, nread, nwrite, r) == 0;
}

static void answers(struct p9_vdrv *d)
{
	struct p9_vanswer a;
	int rc;
	while ((rc = p9_vdrv_get(d, &a)) > 0) {
		struct request *r = a.user;
		FZ_CHECK(r->open, "answered twice");
		FZ_CHECK(a.len <= r->writable, "%u bytes in %u", a.len, r->writable);
		r->open = false;
	}
	FZ_CHECK((rc < 0) == (d->why != NULL), "stopped without a reason");
}

static void driver(const uint8_t *data, size_t size)
{
	enum { LEN = 512, TABLE = 6 };
	struct request requests[64] = { { 0, false } };
	struct p9_vdrv d;
	void *mem = malloc(p9_vdrv_memory(NUM)), *user;
	uint8_t *ring = aligned_alloc(16, LEN);
	struct p9_vdesc *tables = malloc(NUM * TABLE * sizeof(*tables));
	struct p9_vdrv_conf conf = { .ring = p9_vring_at(ring, NUM, 4), .tables = tables, .table_size = TABLE };
	conf.features =
		(data[0] & INDIRECT ? P9_VIRTIO_F_INDIRECT_DESC : 0) | (data[0] & EVENT ? P9_VIRTIO_F_EVENT_IDX : 0);
	conf.base = data[1];
	conf.base = (uint16_t)(conf.base - 128);
	FZ_CHECK(p9_vdrv_init(&d, &conf, mem) == 0, "init");
	size_t used = p9_vring_layout(NUM, 4).used;
	for (size_t at = 2, i = 0; at + 4 <= size && i < 1000; at += 4, i++) {
		const uint8_t *op = data + at;
		struct request *r = &requests[i % 64];
		switch (op[0] % 8) {
		case 0:
		case 1:
			if (!r->open) {
				add(&d, r, op + 1);
			}
			break;
		case 2:
			(void)!p9_vdrv_kick(&d);
			break;
		case 3: /* an answer as it should be, to any head */
			p9_vstore32(&conf.ring.used->ring[d.last_used % NUM].id, op[1] % 16);
			p9_vstore32(&conf.ring.used->ring[d.last_used % NUM].len, op[2]);
			p9_vstore_index(&conf.ring.used->idx, (uint16_t)(d.last_used + (op[3] < 250 ? 1 : op[3])));
			break;
		case 4: /* anything anywhere the device may write, or should not */
			ring[(op[1] | op[2] << 8) % LEN] = op[3];
			break;
		case 5:
			ring[used + op[1] % 70] = op[3];
			break;
		case 6:
			(void)!p9_vdrv_wait(&d);
			break;
		default:
			answers(&d);
			break;
		}
		FZ_CHECK(d.nfree <= NUM && d.inflight <= NUM, "%u free, %u in flight", d.nfree, d.inflight);
	}
	answers(&d);
	while (p9_vdrv_drain(&d, &user)) {
		FZ_CHECK(((struct request *)user)->open, "drained twice");
		((struct request *)user)->open = false;
	}
	for (int i = 0; i < 64; i++) {
		FZ_CHECK(!requests[i].open, "request %d was lost", i);
	}
	FZ_CHECK(d.nfree == NUM, "%u places are free", d.nfree);
	free(mem);
	free(ring);
	free(tables);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < HEAD) {
		return 0;
	}
	if (data[0] & DRIVER) {
		driver(data, size);
	} else {
		device(data, size);
	}
	return 0;
}

/* Descriptors that could be meant, for random bytes hardly ever are. */
static void put_desc(uint8_t *p, uint64_t *rng)
{
	static const uint32_t addrs[] = {
		0x200, 0x400, R0 - 8, R0 - 16, R0 + R1 - 8, R2_AT, R2_AT + R2 - 4, 0, 128, 256
	};
	static const uint32_t lens[] = { 7, 11, 16, 23, 32, 64, 8, 4096, 1, 160 };
	uint64_t n = fz_rand(rng);
	uint64_t addr = addrs[n % 10], len = lens[n / 16 % 10], flags = n / 256 % 8, next = n / 4096 % 10;
	flags &= flags & P9_VDESC_INDIRECT && n >> 20 & 3 ? ~(uint64_t)P9_VDESC_NEXT : ~UINT64_C(0);
	uint64_t rest = len | flags << 32 | next << 48;
	memcpy(p, &addr, 8);
	memcpy(p + 8, &rest, 8);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	uint64_t rng = seed | UINT64_C(0x100000000);
	if (seed % 3 == 0 || max < HEAD + 0x600 || (size > 0 && data[0] & DRIVER)) {
		return LLVMFuzzerMutate(data, size, max);
	}
	size_t want = HEAD + 0x400 + fz_rand(&rng) % 0x200;
	if (size < want) {
		memset(data + size, 0, want - size);
		size = want;
	}
	uint8_t *image = data + HEAD;
	for (unsigned i = 0; i <= seed % 5; i++) {
		size_t place = fz_rand(&rng) % 4 ? fz_rand(&rng) % NUM * 16 : 0x200 + fz_rand(&rng) % 24 * 16;
		put_desc(image + place, &rng);
	}
	image[130] = 3; /* avail.idx; with the first byte's upper half it says how many wait */
	image[131] = 0;
	image[132 + fz_rand(&rng) % 8 * 2] = (uint8_t)(fz_rand(&rng) % 9);
	data[0] = (uint8_t)((fz_rand(&rng) % 4) << 1 | (1 + fz_rand(&rng) % 4) << 4);
	if (fz_rand(&rng) % 2) { /* a message */
		static const uint8_t frame[] = { 25, 0, 0, 0, P9_Twrite, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2 };
		memcpy(image + 0x200, frame, sizeof(frame));
	}
	return size;
}
