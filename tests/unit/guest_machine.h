/* SPDX-License-Identifier: BSD-2-Clause */
/* guest_machine.h - a machine made up for the guest driver: PCI functions, registers of the four kinds of virtio-9p
 * device, a small server behind the ring (the device's end of src/virtio), and ways for all of them to misbehave.
 *
 * It gives the six functions of guest/platform.h. Time is what passes when the driver asks or waits. Every access must lie
 * within a BAR, or the machine's one mmio slot: an access elsewhere fails the test.
 */
#ifndef P9_GUEST_MACHINE_H
#define P9_GUEST_MACHINE_H
#include <stdio.h>
#include "lib/p9t.h"
#include "engine/engine.h"
#include "guest/virtio_9p.h"
#include "virtio/device.h"

enum kind { PCI_MODERN, PCI_TRANSITIONAL, PCI_LEGACY, MMIO_MODERN, MMIO_LEGACY, KINDS };
enum quirk {
	FINE,
	NO_TAG, /* feature bit 0 is hidden */
	NO_INTERRUPTS,
	NO_RESET,
	REFUSES,
	NO_VERSION_1,
	NO_QUEUE,
	QUEUE_3,
	QUEUE_HUGE,
	TAG_LONG,
	TAG_MOVES,
	SILENT,
	NEEDS_RESET,
	GONE,
	RESET_BEHIND,
	USED_ID,
	USED_LEN,
	USED_JUMP,
	SHORT,
	SIZE_LIES,
	TWICE,
	QUIRKS
};

enum {
	MMIO = 0xfeb00e00u,
	MMIO_SIZE = 0x200,
	BUS_BASE = 0x100000,
	MEMORY = 8 << 20,
	FUNCTIONS = 4,
	REG_COMMON = 0,
	REG_ISR = 0x1000,
	REG_CONFIG = 0x2000,
	REG_NOTIFY = 0x3000,
	NOTIFY_OFF = 3,
	MULTIPLIER = 4,
};

struct function {
	uint32_t at; /* bus << 8 | device << 3 | function */
	uint8_t config[256];
	uint64_t size[6]; /* of BARs; 0: not there */
};

static struct machine {
	enum kind kind;
	enum quirk quirk;
	struct function function[FUNCTIONS];
	unsigned functions;
	bool random; /* registers hold anything */
	struct p9t_rng rng;
	/* registers */
	uint8_t status, isr;
	uint32_t sel, driver_sel, generation;
	uint64_t accepted;
	uint32_t num, num_set;
	uint64_t desc, avail, used;
	bool enabled, kicked;
	const char *tag;
	struct p9_vdev dev;
	struct p9_vspace space;
	/* platform */
	uint64_t now;
	uint8_t *memory;
	size_t taken, most; /* most: bytes to give out */
	uint64_t bus_base;
	struct p9_guest_dev *interrupted;
	bool slow; /* answers when the driver sleeps, or after 2000 looks */
	unsigned notified, waits, sleeps, allocs, answered;
	char said[2048];
} ma;

/* ---- the server ---- */

static void *at(const struct p9_vspace *m, uint64_t addr, uint64_t *len)
{
	(void)m;
	if (addr < ma.bus_base || addr - ma.bus_base >= MEMORY) {
		return NULL;
	}
	uint64_t left = MEMORY - (addr - ma.bus_base);
	*len = *len < left ? *len : left;
	return ma.memory + (addr - ma.bus_base);
}

static uint32_t answer(const uint8_t *request, uint32_t len, uint8_t *reply, uint32_t cap)
{
	static struct p9_msg t;
	struct p9_msg r = { .type = P9_Rlerror, .rlerror = { P9_EOPNOTSUPP } };
	assert_int_equal(p9_wire_decode(request, len, 0, &t), 0);
	switch (t.type) {
	case P9_Tversion:
		r = (struct p9_msg){ .type = P9_Rversion, .rversion = { t.tversion.msize, P9T_STR("9P2000.L") } };
		break;
	case P9_Tattach:
		r = (struct p9_msg){ .type = P9_Rattach, .rattach = { { P9_QTDIR, 0, 1 } } };
		break;
	case P9_Tgetattr:
		r = (struct p9_msg){ .type = P9_Rgetattr, .rgetattr = { .valid = P9_GETATTR_BASIC, .mode = 0040755 } };
		r.rgetattr.qid = (struct p9_qid){ P9_QTDIR, 0, 1 };
		break;
	default:
		break;
	}
	r.tag = t.tag;
	int n = p9_wire_encode(reply, cap, &r);
	assert_true(n > 0);
	return (uint32_t)n;
}

/* Puts an answer into the used ring, past the device's end, which would not do what quirks ask for. */
static void lie(struct p9_vused *used, uint32_t id, uint32_t len, unsigned steps)
{
	uint16_t idx = used->idx;
	used->ring[idx % ma.num_set] = (struct p9_vused_elem){ id, len };
	__atomic_store_n(&used->idx, (uint16_t)(idx + steps), __ATOMIC_SEQ_CST);
}

static bool misbehave(struct p9_vchain *c, uint32_t n)
{
	struct p9_vused *used = ma.dev.conf.ring.used;
	switch (ma.quirk) {
	case USED_ID:
		lie(used, 77777, n, 1);
		return true;
	case USED_LEN:
		lie(used, c->head, c->writable + 1, 1);
		return true;
	case USED_JUMP:
		lie(used, c->head, n, 1000);
		return true;
	case SHORT:
		lie(used, c->head, 3, 1);
		return true;
	case TWICE:
		lie(used, c->head, n, 1);
		lie(used, c->head, n, 1);
		return true;
	default:
		return false;
	}
}

static void serve(void)
{
	static uint8_t request[1 << 16], reply[1 << 16];
	struct p9_vpiece v[64];
	struct p9_vchain c = { .v = v, .cap = 64 };
	if (!ma.enabled || !ma.kicked || ma.random) {
		return;
	}
	ma.kicked = false;
	if (ma.quirk == NEEDS_RESET || ma.quirk == RESET_BEHIND) {
		ma.status = ma.quirk == NEEDS_RESET ? ma.status | 64 : 0;
		return;
	}
	while (ma.quirk != SILENT && ma.quirk != GONE && p9_vdev_pop(&ma.dev, &c) == 1) {
		struct p9_vpiece *p = c.v;
		unsigned n = c.nread;
		uint32_t len = (uint32_t)p9_vpiece_get(&p, &n, request, sizeof(request));
		uint32_t size = answer(request, len, reply, sizeof(reply));
		reply[0] = (uint8_t)(reply[0] + (ma.quirk == SIZE_LIES));
		p = c.v + c.nread;
		n = c.nwrite;
		assert_int_equal(p9_vpiece_put(&p, &n, reply, size), size);
		ma.answered++;
		if (misbehave(&c, size)) {
			return;
		}
		p9_vdev_push(&ma.dev, c.head, size);
	}
	if (p9_vdev_publish(&ma.dev) && ma.quirk != NO_INTERRUPTS && ma.interrupted) {
		ma.isr = 1;
		assert_true(p9_guest_interrupt(ma.interrupted));
		assert_int_equal(ma.isr, 0);
	}
	ma.kicked = p9_vdev_wait(&ma.dev);
}

/* ---- registers, by what they mean ---- */

static uint64_t offered(void)
{
	bool legacy = ma.kind == PCI_LEGACY || ma.kind == MMIO_LEGACY;
	uint64_t f =
		(ma.quirk == NO_TAG ? 0 : 1) | P9_VIRTIO_F_INDIRECT_DESC | P9_VIRTIO_F_EVENT_IDX | UINT64_C(1) << 24;
	return legacy || ma.quirk == NO_VERSION_1 ? f : f | P9_VIRTIO_F_VERSION_1 | UINT64_C(1) << 40;
}

static uint32_t queue_size(void)
{
	return ma.quirk == NO_QUEUE ? 0 : ma.quirk == QUEUE_3 ? 3 : ma.quirk == QUEUE_HUGE ? 65535 : ma.num;
}

static void set_status(uint32_t v)
{
	if (v == 0 && ma.quirk != NO_RESET) {
		ma.enabled = ma.kicked = false;
		ma.accepted = 0;
		ma.isr = 0;
	}
	v = v == 0 && ma.quirk == NO_RESET ? 1 : v;
	ma.status = (uint8_t)(ma.quirk == REFUSES ? v & ~8u : v);
}

static void enable(void)
{
	uint64_t n[3] = { 1, 1, 1 };
	struct p9_vdev_conf conf = { .ring = { ma.num_set, at(NULL, ma.desc, &n[0]), at(NULL, ma.avail, &n[1]),
					       at(NULL, ma.used, &n[2]) },
				     .mem = &ma.space,
				     .features = ma.accepted,
				     .most = 1 << 20 };
	ma.space.at = at;
	assert_int_equal(p9_vdev_init(&ma.dev, &conf), 0);
	assert_int_equal(ma.accepted & ~offered(), 0);
	ma.enabled = true;
}

static void enable_legacy(uint32_t pfn, uint32_t num)
{
	struct p9_vring_layout l = p9_vring_layout(num, P9_VRING_LEGACY_ALIGN);
	ma.num_set = num;
	ma.desc = (uint64_t)pfn << 12;
	ma.avail = ma.desc + l.avail;
	ma.used = ma.desc + l.used;
	enable();
}

static uint32_t tag_bytes(uint32_t offset, unsigned size)
{
	uint32_t v = 0;
	uint16_t len = ma.quirk == TAG_LONG ? 0xffff : (uint16_t)strlen(ma.tag);
	ma.generation += ma.quirk == TAG_MOVES;
	for (unsigned i = 0; i < size; i++) {
		uint32_t k = offset + i;
		uint8_t byte = k == 0	? (uint8_t)len
			       : k == 1 ? (uint8_t)(len >> 8)
					: (uint8_t)(k - 2 < strlen(ma.tag) ? ma.tag[k - 2] : 0);
		v |= (uint32_t)byte << (8 * i);
	}
	return v;
}

static uint32_t take_isr(void)
{
	uint32_t v = ma.isr;
	ma.isr = 0;
	return v;
}

static void notify(void)
{
	ma.notified++;
	ma.kicked = true;
}

static void half(uint64_t *field, bool high, uint32_t v)
{
	*field = high ? (*field & UINT32_MAX) | (uint64_t)v << 32 : (*field & ~UINT64_C(0xffffffff)) | v;
}

/* ---- registers, by where they are ---- */

static uint32_t modern_read(uint32_t reg, unsigned size)
{
	if (reg >= REG_NOTIFY) {
		fail_msg("the doorbell is read");
	}
	if (reg >= REG_CONFIG) {
		return tag_bytes(reg - REG_CONFIG, size);
	}
	if (reg >= REG_ISR) {
		return take_isr();
	}
	switch (reg) {
	case 0x04:
		return (uint32_t)(offered() >> (ma.sel == 1 ? 32 : 0));
	case 0x14:
		return ma.status;
	case 0x15:
		return ma.generation & 0xff;
	case 0x18:
		return queue_size();
	case 0x1e:
		return NOTIFY_OFF;
	default:
		return 0;
	}
}

static void modern_write(uint32_t reg, uint32_t v)
{
	if (reg >= REG_NOTIFY) {
		assert_int_equal(reg, REG_NOTIFY + NOTIFY_OFF * MULTIPLIER);
		notify();
		return;
	}
	switch (reg) {
	case 0x00:
		ma.sel = v;
		break;
	case 0x08:
		ma.driver_sel = v;
		break;
	case 0x0c:
		half(&ma.accepted, ma.driver_sel == 1, v);
		break;
	case 0x14:
		set_status(v);
		break;
	case 0x18:
		ma.num_set = v;
		break;
	case 0x1c:
		enable();
		break;
	case 0x20:
	case 0x24:
		half(&ma.desc, reg & 4, v);
		break;
	case 0x28:
	case 0x2c:
		half(&ma.avail, reg & 4, v);
		break;
	case 0x30:
	case 0x34:
		half(&ma.used, reg & 4, v);
		break;
	default:
		break;
	}
}

static uint32_t legacy_read(uint32_t reg, unsigned size)
{
	switch (reg) {
	case 0:
		return (uint32_t)offered();
	case 12:
		return queue_size();
	case 18:
		return ma.status;
	case 19:
		return take_isr();
	default:
		return reg >= 20 ? tag_bytes(reg - 20, size) : 0;
	}
}

static void legacy_write(uint32_t reg, uint32_t v)
{
	switch (reg) {
	case 4:
		ma.accepted = v;
		break;
	case 8:
		enable_legacy(v, ma.num);
		break;
	case 16:
		notify();
		break;
	case 18:
		set_status(v);
		break;
	default:
		break;
	}
}

static uint32_t mmio_read(uint32_t reg, unsigned size)
{
	if (reg >= 0x100) {
		return tag_bytes(reg - 0x100, size);
	}
	switch (reg) {
	case 0x00:
		return 0x74726976;
	case 0x04:
		return ma.kind == MMIO_MODERN ? 2 : 1;
	case 0x08:
		return 9;
	case 0x10:
		return (uint32_t)(offered() >> (ma.sel == 1 ? 32 : 0));
	case 0x34:
		return queue_size();
	case 0x60:
		return ma.isr;
	case 0x70:
		return ma.status;
	case 0xfc:
		return ma.generation;
	default:
		return 0;
	}
}

static void mmio_write(uint32_t reg, uint32_t v)
{
	switch (reg) {
	case 0x14:
		ma.sel = v;
		break;
	case 0x20:
		half(&ma.accepted, ma.driver_sel == 1, v);
		break;
	case 0x24:
		ma.driver_sel = v;
		break;
	case 0x38:
		ma.num_set = v;
		break;
	case 0x40:
		enable_legacy(v, ma.num_set);
		break;
	case 0x44:
		enable();
		break;
	case 0x50:
		notify();
		break;
	case 0x64:
		ma.isr &= (uint8_t)~v;
		break;
	case 0x70:
		set_status(v);
		break;
	case 0x80:
	case 0x84:
		half(&ma.desc, reg & 4, v);
		break;
	case 0x90:
	case 0x94:
		half(&ma.avail, reg & 4, v);
		break;
	case 0xa0:
	case 0xa4:
		half(&ma.used, reg & 4, v);
		break;
	default:
		break;
	}
}

/* ---- configuration space ---- */

static struct function *function_at(uint64_t addr)
{
	for (unsigned i = 0; i < ma.functions; i++) {
		if (ma.function[i].at == addr >> 12) {
			return &ma.function[i];
		}
	}
	return NULL;
}

static uint32_t get_bytes(const uint8_t *p, unsigned size)
{
	uint32_t v = 0;
	memcpy(&v, p, size);
	return v;
}

/* A BAR keeps its lowest bits, and as many address bits as its size leaves. */
static void set_bar(struct function *f, unsigned reg, uint32_t v)
{
	unsigned i = (reg - 0x10) / 4;
	uint32_t low = get_bytes(&f->config[0x10 + 4 * i], 4),
		 before = i > 0 ? get_bytes(&f->config[0x0c + 4 * i], 4) : 0;
	bool upper = i > 0 && f->size[i] == 0 && f->size[i - 1] && (before & 7) == 4;
	uint64_t size = upper ? f->size[i - 1] : f->size[i];
	uint32_t keep = upper ? (uint32_t)(~(size - 1) >> 32) : size ? (uint32_t) ~(size - 1) : 0;
	uint32_t fixed = upper || !size ? 0 : low & (low & 1 ? 3u : 15u);
	v = (v & keep) | fixed;
	memcpy(&f->config[0x10 + 4 * i], &v, 4);
}

/* Whether an access lies in a BAR of some function, whose decoding is on; *offset is then where in it. */
static bool in_bar(enum p9_space space, uint64_t addr, unsigned size, uint32_t *offset)
{
	for (unsigned k = 0; k < ma.functions; k++) {
		const struct function *f = &ma.function[k];
		for (unsigned i = 0; i < 6; i++) {
			uint32_t low = get_bytes(&f->config[0x10 + 4 * i], 4);
			uint64_t base = low & (low & 1 ? ~3u : ~15u);
			if ((low & 7) == 4 && i < 5) {
				base |= (uint64_t)get_bytes(&f->config[0x14 + 4 * i], 4) << 32;
			}
			bool on = f->config[4] & (low & 1 ? 1 : 2);
			if (f->size[i] && on && (space == P9_SPACE_PORT) == (low & 1) && addr >= base &&
			    addr - base < f->size[i] && f->size[i] - (addr - base) >= size) {
				*offset = (uint32_t)(addr - base);
				return true;
			}
		}
	}
	return false;
}

/* ---- the six functions ---- */

uint32_t p9_platform_read(enum p9_space space, uint64_t addr, unsigned size)
{
	uint32_t offset = 0, ones = UINT32_MAX >> (32 - 8 * size);
	ma.now += 1000;
	if (space == P9_SPACE_CONFIG) {
		struct function *f = function_at(addr);
		assert_true((addr & 0xfff) + size <= 256);
		return f ? get_bytes(&f->config[addr & 0xff], size) : ones;
	}
	bool mmio = space == P9_SPACE_MEMORY && addr >= MMIO && addr - MMIO + size <= MMIO_SIZE;
	assert_true(mmio || in_bar(space, addr, size, &offset));
	if (ma.random && size == 1 && p9t_rand_below(&ma.rng, 8)) {
		return ma.status; /* mostly, so that a start comes further */
	}
	if (ma.random) {
		return (uint32_t)(p9t_rand(&ma.rng) & (p9t_rand_below(&ma.rng, 3) ? 0x1ff : UINT32_MAX)) & ones;
	}
	if (ma.quirk == GONE && ma.notified > 0) {
		return ones;
	}
	return (mmio			 ? mmio_read((uint32_t)(addr - MMIO), size)
		: space == P9_SPACE_PORT ? legacy_read(offset, size)
					 : modern_read(offset, size)) &
	       ones;
}

void p9_platform_write(enum p9_space space, uint64_t addr, unsigned size, uint32_t value)
{
	uint32_t offset = 0;
	if (space == P9_SPACE_CONFIG) {
		struct function *f = function_at(addr);
		unsigned reg = addr & 0xff;
		assert_non_null(f);
		if (reg >= 0x10 && reg < 0x28) {
			set_bar(f, reg, value);
		} else {
			memcpy(&f->config[reg], &value, size);
		}
		return;
	}
	bool mmio = space == P9_SPACE_MEMORY && addr >= MMIO && addr - MMIO + size <= MMIO_SIZE;
	assert_true(mmio || in_bar(space, addr, size, &offset));
	if (ma.random) {
		ma.status = size == 1 ? (uint8_t)value : ma.status;
		return;
	}
	if (mmio) {
		mmio_write((uint32_t)(addr - MMIO), value);
	} else if (space == P9_SPACE_PORT) {
		legacy_write(offset, value);
	} else {
		modern_write(offset, value);
	}
}

void *p9_platform_alloc(size_t size, uint64_t *bus)
{
	size_t n = (size + 4095) & ~(size_t)4095;
	ma.allocs++;
	if (n > ma.most - ma.taken) {
		return NULL;
	}
	void *p = ma.memory + ma.taken;
	*bus = ma.bus_base + ma.taken;
	ma.taken += n;
	memset(p, 0, n);
	return p;
}

uint64_t p9_platform_clock(void)
{
	return ma.now += 1000;
}

void p9_platform_wait(bool sleep)
{
	ma.waits++;
	ma.sleeps += sleep;
	ma.now += sleep ? 10000000 : 1000000;
	if (!ma.slow || sleep || ma.waits % 2000 == 0) {
		serve();
	}
}

void p9_platform_say(const char *text)
{
	assert_true(strlen(text) < 120);
	snprintf(ma.said, sizeof(ma.said), "%s", text);
}

/* ---- building it ---- */

static void put(struct function *f, unsigned reg, unsigned size, uint32_t v)
{
	memcpy(&f->config[reg], &v, size);
}

/* A virtio capability. */
static void put_cap(struct function *f, unsigned reg, unsigned next, uint32_t type, uint32_t offset)
{
	put(f, reg, 1, 9);
	put(f, reg + 1, 1, next);
	put(f, reg + 2, 1, type == 2 ? 20 : 16);
	put(f, reg + 3, 1, type);
	put(f, reg + 4, 1, 4);
	put(f, reg + 8, 4, offset);
	put(f, reg + 12, 4, 0x1000);
	if (type == 2) {
		put(f, reg + 16, 4, MULTIPLIER);
	}
}

/* As QEMU makes them: I/O ports in BAR 0, registers in BAR 4, MSI-X and four capabilities. */
static struct function *add_function(uint32_t where)
{
	struct function *f = &ma.function[ma.functions++];
	*f = (struct function){ .at = where };
	put(f, 0, 2, 0x1af4);
	put(f, 2, 2, ma.kind == PCI_MODERN ? 0x1049 : 0x1009);
	put(f, 0x3c, 1, 10);
	put(f, 0x3d, 1, 1);
	if (ma.kind != PCI_MODERN) {
		put(f, 0x10, 4, 0xc001);
		f->size[0] = 64;
	}
	if (ma.kind != PCI_LEGACY) {
		put(f, 6, 2, 0x10);
		put(f, 0x34, 1, 0x98);
		put(f, 0x98, 1, 0x11);
		put(f, 0x99, 1, 0x84);
		put(f, 0x9a, 2, 0x8001);
		put_cap(f, 0x84, 0x70, 5, 0);
		put_cap(f, 0x70, 0x60, 2, REG_NOTIFY);
		put_cap(f, 0x60, 0x50, 4, REG_CONFIG);
		put_cap(f, 0x50, 0x40, 3, REG_ISR);
		put_cap(f, 0x40, 0, 1, REG_COMMON);
		put(f, 0x20, 4, 0xfe00000c);
		put(f, 0x24, 4, 0x8);
		f->size[4] = 0x4000;
	}
	return f;
}

static void machine_init(enum kind kind, enum quirk quirk)
{
	uint8_t *memory = ma.memory ? ma.memory : aligned_alloc(4096, MEMORY);
	ma = (struct machine){ .kind = kind,
			       .quirk = quirk,
			       .num = 64,
			       .tag = "share0",
			       .memory = memory,
			       .most = MEMORY,
			       .bus_base = BUS_BASE,
			       .now = 1 };
	memset(memory, 0x5a, MEMORY);
	if (kind <= PCI_LEGACY) {
		add_function(3 << 3);
	}
}

#endif
