/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio_ring_test.c - both ends of a virtqueue against each other in memory, then each against a hostile peer. */
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "lib/p9t.h"
#include "virtio/device.h"
#include "virtio/driver.h"

enum {
	A = 0x10000,
	A_SIZE = 0x60000,
	B = A + A_SIZE,
	B_SIZE = 0x3000,
	C = 0x40000000,
	C_SIZE = 0x10000,
	MOST = 0x20000
};

/* Guest memory: A and B follow each other for the guest, and lie apart for us; C is elsewhere. */
struct guest {
	uint8_t *host[3];
	struct p9_vrange regions[3];
	struct p9_vtable table;
	struct p9_vring ring;
	struct p9_vdev dev;
	struct p9_vdrv drv;
	void *mem;
	struct p9_vpiece v[P9_VCHAIN_MAX + 8];
	struct p9_vchain c;
};

static void *of(const struct guest *g, uint64_t addr)
{
	uint64_t n = 1;
	return g->table.mem.at(&g->table.mem, addr, &n);
}

struct kind {
	uint32_t num;
	uint64_t features;
	uint16_t base;
	unsigned tables; /* entries of a driver's indirect table; 0: none */
};

static void guest_init(struct guest *g, const struct kind *k)
{
	static const uint64_t addr[3] = { A, B, C }, size[3] = { A_SIZE, B_SIZE, C_SIZE };
	*g = (struct guest){ .table = { { p9_vtable_at }, g->regions, 3 } };
	for (int i = 0; i < 3; i++) {
		g->host[i] = aligned_alloc(4096, size[i]);
		memset(g->host[i], 0x5a, size[i]);
		g->regions[i] = (struct p9_vrange){ addr[i], size[i], g->host[i] };
	}
	g->ring = p9_vring_at(of(g, A), k->num, P9_VRING_LEGACY_ALIGN);
	g->c = (struct p9_vchain){ .v = g->v, .cap = P9T_COUNT(g->v) };
	g->mem = malloc(p9_vdrv_memory(k->num));
	uint64_t tables = A + 0x20000;
	struct p9_vdrv_conf drv = {
		g->ring, k->features, k->base, k->tables ? of(g, tables) : NULL, tables, k->tables
	};
	assert_true((uint64_t)k->num * k->tables * 16 <= 0x20000);
	assert_int_equal(p9_vdrv_init(&g->drv, &drv, g->mem), 0);
	struct p9_vdev_conf dev = { g->ring, &g->table.mem, k->features, k->base, k->base, MOST };
	assert_int_equal(p9_vdev_init(&g->dev, &dev), 0);
}

static void guest_fini(struct guest *g)
{
	for (int i = 0; i < 3; i++) {
		free(g->host[i]);
	}
	free(g->mem);
}

static void layout(void **state)
{
	struct p9_vring_layout l = p9_vring_layout(128, P9_VRING_LEGACY_ALIGN);
	(void)state;
	assert_int_equal(l.avail, 2048);
	assert_int_equal(l.used, 4096);
	assert_int_equal(l.size, 4096 + 6 + 1024);
	l = p9_vring_layout(2, 4);
	assert_int_equal(l.avail, 32);
	assert_int_equal(l.used, 44);
	assert_int_equal(l.size, 44 + 6 + 16);
	static _Alignas(4096) uint8_t mem[8192];
	struct p9_vring r = p9_vring_at(mem, 16, 4);
	assert_true(p9_vring_ok(&r));
	r.num = 15;
	assert_false(p9_vring_ok(&r));
	r.num = 65536;
	assert_false(p9_vring_ok(&r));
	r.num = 0;
	assert_false(p9_vring_ok(&r));
	r = p9_vring_at(mem + 8, 16, 4);
	assert_false(p9_vring_ok(&r));
	assert_true(p9_vring_crossed(5, 6, 5));
	assert_false(p9_vring_crossed(5, 5, 5));
	assert_true(p9_vring_crossed(65535, 1, 65530));
	assert_false(p9_vring_crossed(1, 1, 65530));
	assert_false(p9_vring_crossed(65529, 1, 65530));
}

/* ---- both ends ---- */
struct request {
	uint8_t out[300], in[300];
	unsigned nout, nin;
	uint64_t where;
	bool busy;
};
enum { REQUESTS = 64, SLOT = 700 };

/* Parts of random lengths, each in one region or in two. */
static void add_request(struct guest *g, struct p9t_rng *rng, struct request *r, unsigned i, int *rc)
{
	struct p9_vbuf v[12];
	unsigned n = 0, nread, nwrite;
	bool across = i == 1, in_b = i % 2 && i > 1; /* from A over into B; in B; in C */
	uint64_t at = across ? B - 100 : in_b ? B + 600 + (uint64_t)i * 150 : C + (uint64_t)i * SLOT;
	*r = (struct request){ .where = at };
	nread = 1 + (unsigned)p9t_rand_below(rng, 5);
	nwrite = 1 + (unsigned)p9t_rand_below(rng, 5);
	for (; n < nread + nwrite; n++) {
		uint32_t len = 1 + (uint32_t)p9t_rand_below(rng, in_b ? 10 : 50);
		v[n] = (struct p9_vbuf){ at, len };
		for (uint32_t k = 0; k < len && n < nread; k++) {
			r->out[r->nout++] = *(uint8_t *)of(g, at + k) = (uint8_t)p9t_rand(rng);
		}
		r->nin += n < nread ? 0 : len;
		at += len;
	}
	*rc = p9_vdrv_add(&g->drv, v, nread, nwrite, r);
	r->busy = *rc == 0;
}

/* The device turns every byte and writes as many as it may. */
static void answer(struct p9_vdev *d, struct p9_vchain *c)
{
	uint8_t buf[300];
	struct p9_vpiece *v = c->v;
	unsigned nread = c->nread, nwrite = c->nwrite;
	size_t n = p9_vpiece_get(&v, &nread, buf, sizeof(buf));
	assert_int_equal(n, c->readable);
	for (size_t i = 0; i < n; i++) {
		buf[i] ^= 0xff;
	}
	v = c->v + c->nread;
	n = n < c->writable ? n : c->writable;
	assert_int_equal(p9_vpiece_put(&v, &nwrite, buf, n), n);
	p9_vdev_push(d, c->head, (uint32_t)n);
}

static unsigned take_answers(struct guest *g)
{
	struct p9_vanswer a;
	unsigned n = 0;
	int rc;
	while ((rc = p9_vdrv_get(&g->drv, &a)) > 0) {
		struct request *r = a.user;
		assert_true(r->busy);
		r->busy = false;
		assert_int_equal(a.len, r->nout < r->nin ? r->nout : r->nin);
		for (unsigned i = 0; i < a.len; i++) {
			assert_int_equal(*(uint8_t *)of(g, r->where + r->nout + i), r->out[i] ^ 0xff);
		}
		n++;
	}
	assert_int_equal(rc, 0);
	return n;
}

static void one_kind(const struct kind *k, unsigned turns)
{
	static struct request requests[REQUESTS];
	struct p9t_rng rng = p9t_rng();
	struct guest *g = malloc(sizeof(*g));
	unsigned done = 0, full = 0;
	guest_init(g, k);
	memset(requests, 0, sizeof(requests));
	while (done < turns) {
		for (unsigned i = 0; i < REQUESTS && p9t_rand_below(&rng, 8); i++) {
			int rc = 0;
			if (!requests[i].busy) {
				add_request(g, &rng, &requests[i], i, &rc);
			}
			assert_true(rc == 0 || rc == -P9_EAGAIN || (rc == -P9_EMSGSIZE && k->num < 10));
			full += rc == -P9_EAGAIN;
		}
		(void)!p9_vdrv_kick(&g->drv);
		while (p9_vdev_pop(&g->dev, &g->c) > 0) {
			answer(&g->dev, &g->c);
		}
		assert_null(g->dev.why);
		(void)!p9_vdev_publish(&g->dev);
		done += take_answers(g);
		assert_int_equal(g->drv.inflight, 0);
		assert_int_equal(g->drv.nfree, k->num);
	}
	assert_true(full > 0 || k->num > 64 || k->tables);
	guest_fini(g);
	free(g);
}

static void together(void **state)
{
	static const uint64_t both = P9_VIRTIO_F_INDIRECT_DESC | P9_VIRTIO_F_EVENT_IDX;
	static const struct kind kinds[] = {
		{ 16, 0, 65530, 0 },	 { 128, P9_VIRTIO_F_EVENT_IDX, 65530, 0 },
		{ 1, both, 65535, 16 },	 { 2, both, 65530, 16 },
		{ 16, both, 65530, 16 }, { 128, both, 32760, 8 }, /* some too long for their table */
		{ 1024, 0, 65000, 0 },	 { 4, 0, 65530, 0 },
	};
	(void)state;
	for (size_t i = 0; i < P9T_COUNT(kinds); i++) {
		one_kind(&kinds[i], 80000); /* every index goes round */
	}
}

/* Answers out of order; and the queue is handed to another device in the middle. */
static void out_of_order(void **state)
{
	struct guest g;
	struct kind k = { 8, 0, 65534, 0 };
	struct p9_vbuf v[2] = { { C, 4 }, { C + 8, 4 } };
	struct p9_vanswer a;
	uint16_t heads[4];
	(void)state;
	guest_init(&g, &k);
	for (uintptr_t i = 0; i < 4; i++) {
		assert_int_equal(p9_vdrv_add(&g.drv, v, 1, 1, (void *)i), 0);
	}
	assert_int_equal(p9_vdrv_add(&g.drv, v, 1, 1, NULL), -P9_EAGAIN);
	assert_int_equal(p9_vdrv_add(&g.drv, v, 0, 0, NULL), -P9_EINVAL);
	assert_int_equal(p9_vdrv_add(&g.drv, v, 9, 0, NULL), -P9_EMSGSIZE);
	assert_true(p9_vdrv_kick(&g.drv));
	assert_false(p9_vdrv_kick(&g.drv));
	for (int i = 0; i < 4; i++) {
		assert_int_equal(p9_vdev_pop(&g.dev, &g.c), 1);
		heads[i] = g.c.head;
	}
	assert_int_equal(p9_vdev_pop(&g.dev, &g.c), 0);
	assert_int_equal(g.dev.inflight, 4);
	p9_vdev_push(&g.dev, heads[2], 1);
	p9_vdev_push(&g.dev, heads[0], 2);
	assert_int_equal(p9_vdrv_get(&g.drv, &a), 0);
	assert_true(p9_vdev_publish(&g.dev));
	assert_false(p9_vdev_publish(&g.dev));
	assert_int_equal(p9_vdrv_get(&g.drv, &a), 1);
	assert_ptr_equal(a.user, (void *)2);
	assert_int_equal(p9_vdrv_get(&g.drv, &a), 1);
	assert_ptr_equal(a.user, (void *)0);
	assert_int_equal(p9_vdrv_get(&g.drv, &a), 0);
	struct p9_vdev_conf conf = g.dev.conf;
	p9_vdev_push(&g.dev, heads[3], 4);
	p9_vdev_push(&g.dev, heads[1], 4);
	assert_true(p9_vdev_publish(&g.dev));
	conf.base = conf.used = g.dev.last_avail;
	assert_int_equal(p9_vdev_init(&g.dev, &conf), 0);
	assert_int_equal(p9_vdrv_get(&g.drv, &a), 1);
	assert_int_equal(p9_vdrv_get(&g.drv, &a), 1);
	assert_ptr_equal(a.user, (void *)1);
	assert_int_equal(p9_vdrv_add(&g.drv, v, 1, 1, (void *)9), 0);
	assert_true(p9_vdrv_kick(&g.drv));
	assert_int_equal(p9_vdev_pop(&g.dev, &g.c), 1);
	p9_vdev_push(&g.dev, g.c.head, 4);
	assert_true(p9_vdev_publish(&g.dev));
	assert_int_equal(p9_vdrv_get(&g.drv, &a), 1);
	assert_ptr_equal(a.user, (void *)9);
	guest_fini(&g);
}

/* Who asks for no notification gets none; who asks gets one. */
static void notifications(void **state)
{
	(void)state;
	for (int event = 0; event < 2; event++) {
		struct guest g;
		struct kind k = { 8, event ? P9_VIRTIO_F_EVENT_IDX : 0, 65534, 0 };
		struct p9_vbuf v[2] = { { C, 4 }, { C + 8, 4 } };
		struct p9_vanswer a;
		guest_init(&g, &k);
		for (int i = 0; i < 20; i++) {
			assert_false(p9_vdev_wait(&g.dev));
			assert_false(p9_vdrv_wait(&g.drv));
			assert_int_equal(p9_vdrv_add(&g.drv, v, 1, 1, NULL), 0);
			assert_true(p9_vdrv_kick(&g.drv));
			p9_vdev_quiet(&g.dev);
			assert_int_equal(p9_vdrv_add(&g.drv, v, 1, 1, NULL), 0);
			assert_false(p9_vdrv_kick(&g.drv));
			assert_int_equal(p9_vdev_pop(&g.dev, &g.c), 1);
			assert_true(p9_vdev_wait(&g.dev));
			p9_vdev_push(&g.dev, g.c.head, 0);
			assert_true(p9_vdev_publish(&g.dev));
			p9_vdrv_quiet(&g.drv);
			assert_int_equal(p9_vdev_pop(&g.dev, &g.c), 1);
			p9_vdev_push(&g.dev, g.c.head, 0);
			assert_false(p9_vdev_publish(&g.dev));
			assert_int_equal(p9_vdrv_get(&g.drv, &a), 1);
			assert_true(p9_vdrv_wait(&g.drv));
			assert_int_equal(p9_vdrv_get(&g.drv, &a), 1);
		}
		guest_fini(&g);
	}
}

/* ---- a hostile driver ---- */
static void put(struct p9_vdesc *d, uint64_t addr, uint32_t len, unsigned flags, unsigned next)
{
	d->addr = P9_VLE64(addr);
	d->rest = P9_VLE64(len | (uint64_t)flags << 32 | (uint64_t)next << 48);
}

enum { N = P9_VDESC_NEXT, W = P9_VDESC_WRITE, I = P9_VDESC_INDIRECT, T = A + 0x50000 };
struct row {
	const char *why; /* NULL: it is fine */
	struct {
		uint64_t addr;
		uint32_t len, flags, next;
	} desc[4], table[4];
};
static const struct row rows[] = {
	{ NULL, { { C, 8, N, 1 }, { C + 8, 8, W } }, { { 0 } } },
	{ NULL, { { C, 8, 0 } }, { { 0 } } },
	{ NULL, { { C, 8, W } }, { { 0 } } },
	{ NULL, { { B - 8, 16, 0 } }, { { 0 } } }, /* in two regions */
	{ NULL, { { C + C_SIZE - 8, 8, 0 } }, { { 0 } } },
	{ NULL, { { T, 32, I } }, { { C, 8, N, 1 }, { C, 8, W } } },
	{ NULL, { { T, 32, I | W } }, { { C, 8, N, 1 }, { C, 8, W } } }, /* WRITE means nothing there */
	{ NULL, { { C, 8, N, 1 }, { T, 32, I } }, { { C, 8, N, 1 }, { C, 8, W } } },
	{ NULL, { { T, 64, I } }, { { C, 8, N, 3 }, { 0 }, { 0 }, { C, 8, W } } },
	{ "outside of memory", { { 0, 8, 0 } }, { { 0 } } },
	{ "outside of memory", { { C + C_SIZE - 8, 9, 0 } }, { { 0 } } },
	{ "outside of memory", { { A - 1, 2, 0 } }, { { 0 } } },
	{ "outside of memory", { { B + B_SIZE - 1, 2, W } }, { { 0 } } },
	{ "wraps", { { UINT64_MAX - 3, 8, 0 } }, { { 0 } } },
	{ "outside of memory", { { UINT64_MAX - 8, 8, 0 } }, { { 0 } } },
	{ "without length", { { C, 0, 0 } }, { { 0 } } },
	{ "without length", { { C, 8, N, 1 }, { C, 0, W } }, { { 0 } } },
	{ "longer than a message", { { A, MOST + 1, 0 } }, { { 0 } } },
	{ "longer than a message", { { A, UINT32_MAX, 0 } }, { { 0 } } },
	{ "longer than a message", { { A, MOST, N, 1 }, { C, 1, 0 } }, { { 0 } } },
	{ "longer than a message", { { C, 8, N, 1 }, { A, MOST + 1, W } }, { { 0 } } },
	{ "behind one to write", { { C, 8, W | N, 1 }, { C, 8, 0 } }, { { 0 } } },
	{ "outside of its table", { { C, 8, N, 8 } }, { { 0 } } },
	{ "outside of its table", { { C, 8, N, 65535 } }, { { 0 } } },
	{ "a loop", { { C, 8, N, 0 } }, { { 0 } } },
	{ "a loop", { { C, 8, N, 1 }, { C, 8, N, 0 } }, { { 0 } } },
	{ "a loop", { { T, 32, I } }, { { C, 8, N, 1 }, { C, 8, N, 1 } } },
	{ "in an indirect table", { { T, 32, I } }, { { T, 16, I } } },
	{ "in an indirect table", { { T, 32, I } }, { { C, 8, N, 1 }, { T, 16, I } } },
	{ "with a next one", { { T, 32, I | N, 1 }, { C, 8, W } }, { { C, 8 } } },
	{ "no multiple", { { T, 0, I } }, { { 0 } } },
	{ "no multiple", { { T, 17, I } }, { { C, 8 } } },
	{ "no multiple", { { T, UINT32_MAX, I } }, { { C, 8 } } },
	{ "table outside of memory", { { 0, 16, I } }, { { 0 } } },
	{ "table outside of memory", { { C + C_SIZE, 16, I } }, { { 0 } } },
	{ "table outside of memory", { { C + C_SIZE - 8, 16, I } }, { { 0 } } },
	{ "table that wraps", { { UINT64_MAX - 15, 32, I } }, { { 0 } } },
	{ "outside of its table", { { T, 32, I } }, { { C, 8, N, 2 } } },
	{ "outside of its table", { { T, 16, I } }, { { C, 8, N, 1 } } },
};

static void announce(struct guest *g, uint16_t head, uint16_t count)
{
	uint16_t idx = g->dev.last_avail;
	g->ring.avail->ring[idx % g->ring.num] = P9_VLE16(head);
	p9_vstore_index(&g->ring.avail->idx, (uint16_t)(idx + count));
}

static void expect_stop(struct guest *g, const char *why)
{
	assert_int_equal(p9_vdev_pop(&g->dev, &g->c), -P9_EPROTO);
	assert_non_null(g->dev.why);
	if (!strstr(g->dev.why, why)) {
		fail_msg("stopped for %s, not for %s", g->dev.why, why);
	}
	assert_int_equal(p9_vdev_pop(&g->dev, &g->c), -P9_EPROTO); /* and stays so */
	assert_false(p9_vdev_wait(&g->dev));
}

static void bad_chains(void **state)
{
	(void)state;
	for (size_t i = 0; i < P9T_COUNT(rows); i++) {
		struct guest g;
		struct kind k = { 8, P9_VIRTIO_F_INDIRECT_DESC, (uint16_t)(65530 + i), 0 };
		guest_init(&g, &k);
		for (unsigned n = 0; n < 4; n++) {
			put(&g.ring.desc[n], rows[i].desc[n].addr, rows[i].desc[n].len, rows[i].desc[n].flags,
			    rows[i].desc[n].next);
			put((struct p9_vdesc *)of(&g, T) + n, rows[i].table[n].addr, rows[i].table[n].len,
			    rows[i].table[n].flags, rows[i].table[n].next);
		}
		announce(&g, 0, 1);
		if (rows[i].why) {
			expect_stop(&g, rows[i].why);
		} else {
			assert_int_equal(p9_vdev_pop(&g.dev, &g.c), 1);
			size_t bytes = 0;
			for (unsigned n = 0; n < g.c.nread + g.c.nwrite; n++) {
				memset(g.c.v[n].p, 1, g.c.v[n].len); /* ASan looks */
				bytes += g.c.v[n].len;
			}
			assert_int_equal(bytes, g.c.readable + g.c.writable);
		}
		guest_fini(&g);
	}
}

static void bad_indices(void **state)
{
	struct guest g;
	struct kind k = { 8, 0, 65533, 0 };
	(void)state;
	guest_init(&g, &k);
	put(&g.ring.desc[0], C, 8, 0, 0);
	announce(&g, 8, 1);
	expect_stop(&g, "a head outside");
	guest_fini(&g);
	guest_init(&g, &k);
	announce(&g, 0, 9);
	expect_stop(&g, "jumps over the ring");
	guest_fini(&g);
	guest_init(&g, &k);
	announce(&g, 0, (uint16_t)-1); /* backwards */
	expect_stop(&g, "jumps over the ring");
	guest_fini(&g);
	guest_init(&g, &k);
	put(&g.ring.desc[0], C, 8, 0, 0);
	for (int i = 0; i < 8; i++) {
		announce(&g, 0, 1);
		assert_int_equal(p9_vdev_pop(&g.dev, &g.c), 1);
	}
	announce(&g, 0, 1);
	expect_stop(&g, "more requests in flight");
	guest_fini(&g);
	guest_init(&g, &k); /* not negotiated */
	put(&g.ring.desc[0], T, 16, I, 0);
	announce(&g, 0, 1);
	expect_stop(&g, "not negotiated");
	p9_vdev_stop(&g.dev, "another reason");
	assert_non_null(strstr(g.dev.why, "not negotiated"));
	guest_fini(&g);
}

/* 1024 descriptors through a ring of one; one more is too many; tables in two regions and at odd addresses work. */
static void long_chains(void **state)
{
	struct kind k = { 1, P9_VIRTIO_F_INDIRECT_DESC, 0, 0 };
	uint64_t tables[] = { T, B - 16 * 10, B - 16 * 10 - 8, B - 16 * 10 + 3, C + 1 };
	(void)state;
	for (size_t t = 0; t < P9T_COUNT(tables); t++) {
		for (unsigned n = 1022; n <= 1025; n++) {
			struct guest g;
			guest_init(&g, &k);
			/* the table is laid down byte by byte, for it may lie across two regions */
			for (unsigned i = 0; i < n * 16; i++) {
				uint64_t word[2] = { C + 0x8000 + i / 16, 1 | (i / 16 + 1 < n ? (uint64_t)N << 32 : 0) |
										  (uint64_t)(i / 16 + 1) << 48 };
				*(uint8_t *)of(&g, (tables[t] < C ? B - 16 * 1000 + tables[t] % 16 : tables[t]) + i) =
					((uint8_t *)word)[i % 16];
			}
			put(&g.ring.desc[0], tables[t] < C ? B - 16 * 1000 + tables[t] % 16 : tables[t], n * 16, I, 0);
			announce(&g, 0, 1);
			if (n <= P9_VCHAIN_MAX) {
				assert_int_equal(p9_vdev_pop(&g.dev, &g.c), 1);
				assert_int_equal(g.c.nread, n);
				for (unsigned i = 0; i < n; i++) {
					assert_ptr_equal(g.c.v[i].p, of(&g, C + 0x8000 + i));
				}
			} else {
				expect_stop(&g, "1024");
			}
			guest_fini(&g);
		}
	}
}

/* A chain in more pieces than the caller has room for. */
static void many_pieces(void **state)
{
	struct guest g;
	struct kind k = { 8, 0, 0, 0 };
	(void)state;
	guest_init(&g, &k);
	g.c.cap = 2;
	put(&g.ring.desc[0], B - 4, 8, N, 1);
	put(&g.ring.desc[1], C, 8, W, 0);
	announce(&g, 0, 1);
	expect_stop(&g, "too many pieces");
	guest_fini(&g);
}

/* ---- 9P messages in chains ---- */
static void messages(void **state)
{
	uint8_t frame[300], head[256], got[300];
	struct p9_vmessage m;
	struct kind k = { 8, 0, 0, 0 };
	(void)state;
	for (unsigned i = 0; i < sizeof(frame); i++) {
		frame[i] = (uint8_t)i;
	}
	memcpy(got, frame + 200, 100);
	memcpy(frame, (uint8_t[]){ 123, 0, 0, 0, P9_Twrite, 5, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0 },
	       23);
	memcpy(frame + 23, got, 100);
	for (unsigned split = 1; split < 123; split++) {
		struct guest g;
		guest_init(&g, &k);
		for (unsigned i = 0; i < 123; i++) {
			*(uint8_t *)of(&g, C + i + (i >= split ? 1000 : 0)) = frame[i];
		}
		put(&g.ring.desc[0], C, split, N, 1);
		put(&g.ring.desc[1], C + 1000 + split, 123 - split + 5, N, 2); /* bytes behind the message */
		put(&g.ring.desc[2], C + 5000, 11, W, 0);
		announce(&g, 0, 1);
		assert_int_equal(p9_vdev_pop(&g.dev, &g.c), 1);
		assert_int_equal(p9_vdev_message(&g.c, head, sizeof(head), &m), 0);
		assert_int_equal(m.len, 23);
		assert_memory_equal(head, frame, 23);
		assert_int_equal(m.elsewhere, 100);
		memset(of(&g, C), 0xff, 5); /* what comes later in the head does not count */
		assert_memory_equal(head, frame, 23);
		size_t n = 0;
		for (unsigned i = 0; i < m.npayload; i++) {
			memcpy(got + n, m.payload[i].p, m.payload[i].len);
			n += m.payload[i].len;
		}
		assert_int_equal(n, 100);
		if (split > 28) {
			assert_memory_equal(got, frame + 23, 100);
		}
		guest_fini(&g);
	}
}

static void bad_messages(void **state)
{
	/* size field, readable, writable, msize, answer */
	static const struct {
		uint32_t size, readable, writable, msize;
		int rc;
	} table[] = {
		{ 7, 7, 11, 4096, 0 },
		{ 7, 100, 11, 4096, 0 },
		{ 6, 100, 11, 4096, -P9_EPROTO },
		{ 0, 100, 11, 4096, -P9_EPROTO },
		{ 101, 100, 11, 4096, -P9_EMSGSIZE },
		{ 100, 100, 11, 99, -P9_EMSGSIZE },
		{ UINT32_MAX, 100, 11, 4096, -P9_EMSGSIZE },
		{ 7, 6, 11, 4096, -P9_EPROTO },
		{ 7, 7, 10, 4096, -P9_EMSGSIZE },
		{ 100, 100, 11, 100, 0 },
	};
	struct kind k = { 8, 0, 0, 0 };
	(void)state;
	for (size_t i = 0; i < P9T_COUNT(table); i++) {
		struct guest g;
		struct p9_vmessage m;
		guest_init(&g, &k);
		uint8_t *head = malloc(table[i].msize), *p = of(&g, C);
		memset(p, 0, 200);
		for (int b = 0; b < 4; b++) {
			p[b] = (uint8_t)(table[i].size >> (8 * b));
		}
		p[4] = P9_Tgetattr;
		put(&g.ring.desc[0], C, table[i].readable, N, 1);
		put(&g.ring.desc[1], C + 5000, table[i].writable, W, 0);
		announce(&g, 0, 1);
		assert_int_equal(p9_vdev_pop(&g.dev, &g.c), 1);
		assert_int_equal(p9_vdev_message(&g.c, head, table[i].msize, &m), table[i].rc);
		assert_true(table[i].rc < 0 || (m.len == table[i].size && m.elsewhere == 0));
		free(head);
		guest_fini(&g);
	}
}

/* ---- a hostile device ---- */
static void bad_answers(void **state)
{
	static const struct {
		uint32_t id, len;
		uint16_t step;
		const char *why;
	} table[] = {
		{ 0, 4, 1, NULL },
		{ 0, 5, 1, "longer than its room" },
		{ 0, UINT32_MAX, 1, "longer than its room" },
		{ 1, 4, 1, "no request" }, /* a part of the chain, not its head */
		{ 3, 4, 1, "no request" },
		{ 8, 4, 1, "no request" },
		{ UINT32_MAX, 4, 1, "no request" },
		{ 0, 4, 2, "more answers" },
		{ 0, 4, 65535, "more answers" },
	};
	(void)state;
	for (size_t i = 0; i < P9T_COUNT(table); i++) {
		struct guest g;
		struct kind k = { 8, 0, 65535, 0 };
		struct p9_vbuf v[2] = { { C, 4 }, { C + 8, 4 } };
		struct p9_vanswer a;
		void *user;
		guest_init(&g, &k);
		assert_int_equal(p9_vdrv_add(&g.drv, v, 1, 1, &g), 0);
		assert_true(p9_vdrv_kick(&g.drv));
		memset(g.ring.desc, 0xff, 8 * 16); /* the table is not read again */
		g.ring.used->ring[65535 % 8] = (struct p9_vused_elem){ P9_VLE32(table[i].id), P9_VLE32(table[i].len) };
		p9_vstore_index(&g.ring.used->idx, (uint16_t)(65535 + table[i].step));
		int rc = p9_vdrv_get(&g.drv, &a);
		assert_int_equal(rc, table[i].why ? -P9_EPROTO : 1);
		if (table[i].why) {
			assert_non_null(strstr(g.drv.why, table[i].why));
			assert_int_equal(p9_vdrv_add(&g.drv, v, 1, 1, &g), -P9_EPROTO);
			assert_true(p9_vdrv_drain(&g.drv, &user));
			assert_ptr_equal(user, &g);
		}
		assert_false(p9_vdrv_drain(&g.drv, &user));
		guest_fini(&g);
	}
}

/* ---- threads ---- */
struct side {
	struct guest *g;
	int kick, call; /* eventfds */
	unsigned turns;
};

static void signal_fd(int fd)
{
	assert_int_equal(write(fd, &(uint64_t){ 1 }, 8), 8);
}
static void sleep_fd(int fd)
{
	uint64_t n;
	struct pollfd p = { fd, POLLIN, 0 };
	if (poll(&p, 1, 60000) != 1) {
		fail_msg("a notification was lost");
	}
	assert_int_equal(read(fd, &n, 8), 8);
}

static void *device_thread(void *arg)
{
	struct side *s = arg;
	struct guest *g = s->g;
	for (unsigned done = 0; done < s->turns;) {
		int rc;
		p9_vdev_quiet(&g->dev);
		while ((rc = p9_vdev_pop(&g->dev, &g->c)) > 0) {
			answer(&g->dev, &g->c);
			done++;
			if (done % 3 == 0 && p9_vdev_publish(&g->dev)) {
				signal_fd(s->call);
			}
		}
		assert_int_equal(rc, 0);
		if (p9_vdev_publish(&g->dev)) {
			signal_fd(s->call);
		}
		if (done < s->turns && !p9_vdev_wait(&g->dev)) {
			sleep_fd(s->kick);
		}
	}
	return NULL;
}

static void threads_with(uint64_t features)
{
	static struct request requests[REQUESTS];
	struct kind k = { 16, features, 65000, features & P9_VIRTIO_F_INDIRECT_DESC ? 12 : 0 };
	struct guest *g = malloc(sizeof(*g));
	struct side s = { g, eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC), 30000 };
	struct p9t_rng rng = p9t_rng();
	pthread_t thread;
	unsigned added = 0, done = 0;
	guest_init(g, &k);
	memset(requests, 0, sizeof(requests));
	assert_int_equal(pthread_create(&thread, NULL, device_thread, &s), 0);
	while (done < s.turns) {
		for (unsigned i = 0; i < REQUESTS && added < s.turns; i++) {
			int rc = 0;
			if (!requests[i].busy) {
				add_request(g, &rng, &requests[i], i, &rc);
				added += rc == 0;
			}
		}
		if (p9_vdrv_kick(&g->drv)) {
			signal_fd(s.kick);
		}
		p9_vdrv_quiet(&g->drv);
		unsigned n = take_answers(g);
		done += n;
		if (n == 0 && !p9_vdrv_wait(&g->drv)) {
			sleep_fd(s.call);
		}
	}
	pthread_join(thread, NULL);
	close(s.kick);
	close(s.call);
	guest_fini(g);
	free(g);
}

static void threads(void **state)
{
	(void)state;
	threads_with(0);
	threads_with(P9_VIRTIO_F_EVENT_IDX);
	threads_with(P9_VIRTIO_F_EVENT_IDX | P9_VIRTIO_F_INDIRECT_DESC);
}

/* A driver that changes the rings and tables while the device reads them: the device stops, or takes chains whose every
 * byte lies in memory. */
struct mutator {
	struct guest *g;
	bool stop;
};

static void *mutate(void *arg)
{
	struct mutator *m = arg;
	struct p9t_rng rng = p9t_rng();
	uint8_t *ring = of(m->g, A), *table = of(m->g, T);
	size_t size = p9_vring_layout(8, P9_VRING_LEGACY_ALIGN).size;
	while (!__atomic_load_n(&m->stop, __ATOMIC_RELAXED)) {
		for (int i = 0; i < 100; i++) {
			uint8_t *p = p9t_rand_below(&rng, 2) ? ring + p9t_rand_below(&rng, size)
							     : table + p9t_rand_below(&rng, 128);
			__atomic_store_n(p, (uint8_t)(p9t_rand(&rng) & p9t_rand(&rng)), __ATOMIC_RELAXED);
		}
	}
	return NULL;
}

static void check_pieces(const struct guest *g)
{
	for (unsigned i = 0; i < g->c.nread + g->c.nwrite; i++) {
		const struct p9_vpiece *p = &g->c.v[i];
		bool inside = false;
		for (unsigned r = 0; r < 3; r++) {
			const uint8_t *begin = g->regions[r].host;
			inside |= (const uint8_t *)p->p >= begin &&
				  (const uint8_t *)p->p + p->len <= begin + g->regions[r].size;
		}
		assert_true(inside && p->len > 0);
	}
}

static void good_chain(struct guest *g)
{
	p9_vstore64(&g->ring.desc[1].addr, C);
	p9_vstore64(&g->ring.desc[1].rest, 8 | (uint64_t)N << 32 | (uint64_t)2 << 48);
	p9_vstore64(&g->ring.desc[2].addr, T);
	p9_vstore64(&g->ring.desc[2].rest, 64 | (uint64_t)I << 32);
	struct p9_vdesc *t = of(g, T);
	for (unsigned n = 0; n < 4; n++) {
		p9_vstore64(&t[n].addr, C + n * 16);
		p9_vstore64(&t[n].rest, 16 | (uint64_t)(n < 3 ? N | W : W) << 32 | (uint64_t)(n + 1) << 48);
	}
	for (unsigned n = 0; n < 8; n++) {
		p9_vstore16(&g->ring.avail->ring[n], 1);
	}
}

static void changing_driver(void **state)
{
	struct guest *g = malloc(sizeof(*g));
	struct kind k = { 8, P9_VIRTIO_F_INDIRECT_DESC | P9_VIRTIO_F_EVENT_IDX, 0, 0 };
	struct mutator m = { g, false };
	unsigned taken = 0, stopped = 0;
	pthread_t thread;
	(void)state;
	guest_init(g, &k);
	struct p9_vdev_conf conf = g->dev.conf;
	assert_int_equal(pthread_create(&thread, NULL, mutate, &m), 0);
	for (int i = 0; i < 100000; i++) {
		bool anew = i % 16 == 0; /* for a while it is left as the other thread made it */
		conf.base = (uint16_t)(p9_vload_index(&g->ring.avail->idx) - 4);
		assert_int_equal(p9_vdev_init(&g->dev, &conf), 0);
		if (anew) {
			good_chain(g);
		}
		while (p9_vdev_pop(&g->dev, &g->c) > 0) {
			check_pieces(g);
			p9_vdev_push(&g->dev, g->c.head, 1);
			taken++;
		}
		stopped += g->dev.why != NULL;
		(void)!p9_vdev_publish(&g->dev);
	}
	__atomic_store_n(&m.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	print_message("# %u chains taken, the queue was stopped %u times\n", taken, stopped);
	assert_true(taken > 0 && stopped > 0);
	guest_fini(g);
	free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layout),	   cmocka_unit_test(together),	  cmocka_unit_test(out_of_order),
		cmocka_unit_test(notifications),   cmocka_unit_test(bad_chains),  cmocka_unit_test(bad_indices),
		cmocka_unit_test(long_chains),	   cmocka_unit_test(many_pieces), cmocka_unit_test(messages),
		cmocka_unit_test(bad_messages),	   cmocka_unit_test(bad_answers), cmocka_unit_test(threads),
		cmocka_unit_test(changing_driver),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
