/* SPDX-License-Identifier: BSD-2-Clause */
/* fz_guest.c - fuzz target: the guest's driver, and the session above it, against a hostile device and hostile firmware.
 *
 * The device is registers that keep what is written, so that without help of the input it is one that works: reset, features,
 * tag and ring size are as they should be. An input says which of the four kinds it is, changes bytes of its configuration
 * space and registers, lies at the n-th reading, and then is a row of deeds, one for each time that the driver waits: an
 * honest reply, a reply with bytes changed, anything in the used ring or in memory that the device reaches, another status,
 * an interrupt. What must hold: no access outside the windows of the device's BARs, memory for a device is taken once, no
 * slot is lost, every call ends.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "engine/engine.h"
#include "gen.h"
#include "guest/virtio_9p.h"

enum kind { PCI_MODERN, PCI_TRANSITIONAL, PCI_LEGACY, MMIO_MODERN, MMIO_LEGACY, KINDS };
enum { REPLY, BENT, USED, POKE, STATUS, INTERRUPT, TURN, DEEDS };
enum { INTERRUPTS = 8 }; /* of the first byte, above the kind */
enum {
	PCI_AT = 3 << 15,
	MMIO_AT = 0xfeb00e00u,
	PORTS_AT = 0xc000,
	REGISTERS_AT = 0xfe000000u,
	REGISTERS = 0x4000,
	BLOCKS = 4,
	BUS = 0x1000000, /* between blocks of memory, for the device */
	RING = 8,
	LIES = 8,
};

static struct machine {
	const uint8_t *in, *end;
	uint8_t config[256], registers[REGISTERS];
	uint64_t size[6];
	enum kind kind;
	uint32_t reads, nlies;
	struct lie {
		uint16_t when;
		uint32_t what;
	} lies[LIES];
	uint64_t now;
	uint8_t *block[BLOCKS];
	size_t len[BLOCKS];
	unsigned blocks;
	struct p9_guest_dev dev;
	uint16_t seen; /* of the driver's requests */
} ma;

static uint8_t next(void)
{
	return ma.in < ma.end ? *ma.in++ : 0;
}
static uint32_t next16(void)
{
	uint32_t low = next();
	return low | (uint32_t)next() << 8;
}
static uint32_t next32(void)
{
	uint32_t low = next16();
	return low | next16() << 16;
}

static uint32_t get(const uint8_t *p, unsigned size)
{
	uint32_t v = 0;
	memcpy(&v, p, size);
	return v;
}
static void put(uint8_t *p, unsigned size, uint32_t v)
{
	memcpy(p, &v, size);
}

/* ---- the six functions ---- */
static uint64_t base_of(unsigned i)
{
	uint32_t low = get(&ma.config[0x10 + 4 * i], 4);
	uint64_t high = (low & 7) == 4 && i < 5 ? get(&ma.config[0x14 + 4 * i], 4) : 0;
	return high << 32 | (low & (low & 1 ? ~3u : ~15u));
}

/* Where an access lands. It must be in a window. */
static uint8_t *reach(enum p9_space space, uint64_t addr, unsigned size)
{
	if (ma.kind >= MMIO_MODERN && space == P9_SPACE_MEMORY && addr >= MMIO_AT && addr - MMIO_AT <= 0x200 - size) {
		return ma.registers + (addr - MMIO_AT);
	}
	for (unsigned i = 0; i < 6 && ma.kind < MMIO_MODERN; i++) {
		uint64_t base = base_of(i);
		bool port = ma.config[0x10 + 4 * i] & 1;
		if (ma.size[i] && port == (space == P9_SPACE_PORT) && addr >= base && addr - base < ma.size[i] &&
		    ma.size[i] - (addr - base) >= size) {
			return ma.registers + (addr - base) % (REGISTERS - 4);
		}
	}
	FZ_CHECK(false, "an access at %#llx of space %d", (unsigned long long)addr, space);
}

static bool is_config(enum p9_space space, uint64_t addr, unsigned size)
{
	FZ_CHECK(size == 1 || size == 2 || size == 4, "%u bytes", size);
	FZ_CHECK(space != P9_SPACE_CONFIG || (addr & 0xfff) + size <= 256, "configuration space at %#llx",
		 (unsigned long long)addr);
	return space == P9_SPACE_CONFIG;
}

uint32_t p9_platform_read(enum p9_space space, uint64_t addr, unsigned size)
{
	uint32_t ones = UINT32_MAX >> (32 - 8 * size), value = ones;
	ma.now += 1000;
	if (is_config(space, addr, size)) {
		if ((addr & ~UINT64_C(0xfff)) != PCI_AT) {
			return ones;
		}
		return get(&ma.config[addr & 0xff], size); /* where a BAR is must be believed */
	}
	value = get(reach(space, addr, size), size);
	ma.reads++;
	for (uint32_t i = 0; i < ma.nlies; i++) {
		value = ma.lies[i].when == ma.reads ? ma.lies[i].what : value;
	}
	return value & ones;
}

/* A BAR keeps its lowest bits, and as many of the address as its size leaves. */
static void write_bar(unsigned i, uint32_t v)
{
	bool upper = i > 0 && (get(&ma.config[0x0c + 4 * i], 4) & 7) == 4 && ma.size[i] == 0;
	uint64_t size = upper ? ma.size[i - 1] : ma.size[i];
	uint32_t low = get(&ma.config[0x10 + 4 * i], 4), fixed = upper || !size ? 0 : low & (low & 1 ? 3u : 15u);
	uint32_t keep = !size ? 0 : (uint32_t)(~(size - 1) >> (upper ? 32 : 0));
	put(&ma.config[0x10 + 4 * i], 4, (v & keep) | fixed);
}

void p9_platform_write(enum p9_space space, uint64_t addr, unsigned size, uint32_t value)
{
	if (!is_config(space, addr, size)) {
		put(reach(space, addr, size), size, value);
	} else if ((addr & 0xff) >= 0x10 && (addr & 0xff) < 0x28) {
		write_bar(((unsigned)addr & 0xff) / 4 - 4, value);
	} else {
		put(&ma.config[addr & 0xff], size, value);
	}
}

void *p9_platform_alloc(size_t size, uint64_t *bus)
{
	if (ma.blocks == BLOCKS || size > BUS) {
		return NULL;
	}
	uint8_t *p = aligned_alloc(4096, (size + 4095) / 4096 * 4096); /* each apart: ASan sees a byte too many */
	FZ_CHECK(p, "no memory");
	memset(p, 0, size);
	ma.block[ma.blocks] = p;
	ma.len[ma.blocks] = size;
	*bus = (uint64_t)BUS * ++ma.blocks;
	return p;
}

uint64_t p9_platform_clock(void)
{
	return ma.now += 100000;
}

void p9_platform_say(const char *text)
{
	FZ_CHECK(strlen(text) < 120, "a line that is too long");
}

/* ---- the device's deeds ---- */
static uint8_t *at(uint64_t bus, size_t n)
{
	uint64_t i = bus / BUS - 1, off = bus % BUS;
	bool there = i < ma.blocks && ma.block[i] == ma.dev.memory && off < ma.len[i] && ma.len[i] - off >= n;
	return there ? ma.block[i] + off : NULL;
}

/* An honest reply to any request. */
static void reply_to(const uint8_t *q, struct p9_msg *r)
{
	static uint8_t entry[64];
	struct p9_dirent e = { .qid = { P9_QTDIR, 0, 2 }, .offset = 1, .type = 4, .name = { "d", 1 } };
	*r = (struct p9_msg){ .type = q[4] + 1, .tag = p9_get16(q + 5) };
	switch (q[4]) {
	case P9_Tversion:
		r->rversion.msize = p9_get32(q + 7);
		r->rversion.version = (struct p9_str){ "9P2000.L", 8 };
		break;
	case P9_Twalk:
		r->rwalk.wqid.n = p9_get16(q + 15) > 16 ? 16 : p9_get16(q + 15);
		for (unsigned i = 0; i < r->rwalk.wqid.n; i++) {
			r->rwalk.wqid.v[i] = e.qid;
		}
		break;
	case P9_Tgetattr:
		r->rgetattr.valid = P9_GETATTR_BASIC;
		r->rgetattr.mode = next() % 2 ? 0100644 : 0040755;
		r->rgetattr.size = 3;
		break;
	case P9_Tread:
		r->rread.data = (struct p9_data){ p9_get32(q + 11) ? 0 : 3, (const uint8_t *)"abc" };
		break;
	case P9_Treaddir:
		r->rreaddir.data = (struct p9_data){ 0, entry };
		r->rreaddir.data.len = p9_get32(q + 11) ? 0 : (uint32_t)p9_wire_dirent_put(entry, sizeof(entry), &e);
		break;
	case P9_Twrite:
		r->rwrite.count = p9_get32(q + 19);
		break;
	case P9_Treadlink:
		r->rreadlink.target = (struct p9_str){ "d", 1 };
		break;
	default:
		break;
	}
}

/* Looks at the ring as a device does, and answers the next request; with `bent` otherwise than it should. */
static void reply(bool bent)
{
	const struct p9_vring *r = &ma.dev.ring.conf.ring;
	struct p9_vdesc d[2];
	struct p9_msg m;
	static uint8_t buf[16384];
	if (p9_vload_index(&r->avail->idx) == ma.seen) {
		return;
	}
	uint16_t head = r->avail->ring[ma.seen++ % r->num] % r->num;
	d[0] = r->desc[head];
	const uint8_t *table = at(d[0].addr, sizeof(d));
	if ((d[0].rest >> 32 & P9_VDESC_INDIRECT) && table) {
		memcpy(d, table, sizeof(d));
	} else {
		d[1] = r->desc[(d[0].rest >> 48) % r->num];
	}
	const uint8_t *q = at(d[0].addr, 7);
	uint8_t *to = at(d[1].addr, (uint32_t)d[1].rest);
	if (!q || !to || !at(d[0].addr, p9_get32(q))) { /* poked at */
		return;
	}
	reply_to(q, &m);
	int n = p9_wire_encode(buf, sizeof(buf), &m);
	uint32_t len = n > 0 ? (uint32_t)n : 7, id = head;
	for (unsigned i = bent ? next() % 4 : 0; i > 0; i--) {
		buf[next16() % len] = next();
	}
	id += bent && next() % 8 == 0 ? next() : 0;
	len += bent && next() % 8 == 0 ? next32() : 0;
	memcpy(to, buf, n > 0 && (uint32_t)n <= (uint32_t)d[1].rest ? (size_t)n : 0);
	uint16_t used = r->used->idx;
	r->used->ring[used % r->num] = (struct p9_vused_elem){ id, len };
	p9_vstore_index(&r->used->idx, (uint16_t)(used + 1));
}

static void set_status(uint8_t v)
{
	static const uint16_t where[KINDS] = { 0x14, 0x14, 18, 0x70, 0x70 };
	ma.registers[where[ma.kind]] = v;
}

void p9_platform_wait(bool sleep)
{
	const struct p9_vring *r = &ma.dev.ring.conf.ring;
	ma.now += sleep ? 5000000 : 100000;
	if (!ma.dev.running || ma.in >= ma.end) {
		return;
	}
	switch (next() % DEEDS) {
	case REPLY:
		reply(false);
		break;
	case BENT:
		reply(true);
		break;
	case USED:
		r->used->ring[next() % r->num] = (struct p9_vused_elem){ next(), next32() };
		p9_vstore_index(&r->used->idx, (uint16_t)(r->used->idx + (next() % 4 ? 1 : next16())));
		break;
	case POKE: {
		uint32_t off = next16();
		ma.dev.memory[off % ma.dev.memory_size] = next();
		break;
	}
	case STATUS:
		set_status(next());
		break;
	case INTERRUPT:
		(void)p9_guest_interrupt(&ma.dev);
		break;
	default: /* all that it owes */
		for (int i = 0; i < RING; i++) {
			reply(false);
		}
		break;
	}
}

/* ---- building it ---- */
static void put_cap(unsigned reg, unsigned follows, uint32_t type, uint32_t offset, uint32_t len)
{
	const uint8_t cap[20] = { 9, (uint8_t)follows, type == 2 ? 20 : 16, (uint8_t)type, 4 };
	memcpy(&ma.config[reg], cap, sizeof(cap));
	put(&ma.config[reg + 8], 4, offset);
	put(&ma.config[reg + 12], 4, len);
	put(&ma.config[reg + 16], 4, type == 2 ? 4 : 0);
}

static void make_pci(void)
{
	put(&ma.config[0], 4, ma.kind == PCI_MODERN ? 0x10491af4 : 0x10091af4);
	put(&ma.config[0x3c], 2, 0x010a);
	if (ma.kind != PCI_MODERN) {
		put(&ma.config[0x10], 4, PORTS_AT | 1);
		ma.size[0] = 64;
	}
	if (ma.kind == PCI_LEGACY) {
		return;
	}
	ma.config[6] = 0x10;
	ma.config[0x34] = 0x40;
	put_cap(0x40, 0x54, 1, 0, 0x38);
	put_cap(0x54, 0x68, 2, 0x3000, 0x1000);
	put_cap(0x68, 0x7c, 3, 0x1000, 4);
	put_cap(0x7c, 0x90, 4, 0x2000, 64);
	put(&ma.config[0x90], 4, 0x80010011);
	put(&ma.config[0x20], 4, REGISTERS_AT | 4);
	ma.size[4] = REGISTERS;
}

static void make_registers(void)
{
	static const uint8_t tag[] = { 5, 0, 's', 'h', 'a', 'r', 'e' };
	static const uint16_t features[KINDS] = { 4, 4, 0, 0x10, 0x10 }, sizes[KINDS] = { 0x18, 0x18, 12, 0x34, 0x34 },
			      tags[KINDS] = { 0x2000, 0x2000, 20, 0x100, 0x100 };
	put(&ma.registers[features[ma.kind]], 4, 0x30000001); /* both halves: bit 32 is VERSION_1 */
	put(&ma.registers[sizes[ma.kind]], 2, RING);
	memcpy(&ma.registers[tags[ma.kind]], tag, sizeof(tag));
	if (ma.kind >= MMIO_MODERN) {
		put(&ma.registers[0], 4, 0x74726976);
		put(&ma.registers[4], 4, ma.kind == MMIO_MODERN ? 2 : 1);
		put(&ma.registers[8], 4, 9);
	}
}

static void make_machine(uint8_t first)
{
	ma.kind = first % 8 % KINDS;
	if (ma.kind < MMIO_MODERN) {
		make_pci();
	}
	make_registers();
	for (unsigned n = next() % 8; n > 0; n--) {
		unsigned where = next16();
		uint8_t *p = where & 0x8000 ? &ma.registers[where % REGISTERS] : &ma.config[where % sizeof(ma.config)];
		*p = next();
	}
	for (unsigned n = next() % 4; n > 0; n--) { /* a BAR's size is a power of two, or its device's own affair */
		unsigned i = next() % 6, shift = next() % 40;
		ma.size[i] = shift < 2 ? 0 : UINT64_C(1) << shift;
	}
	ma.nlies = next() % (LIES + 1);
	for (uint32_t i = 0; i < ma.nlies; i++) {
		ma.lies[i] = (struct lie){ (uint16_t)(next16() % 2048), next32() };
	}
}

/* ---- the driver's user ---- */
static int each(void *arg, const struct p9_entry *e)
{
	(void)arg;
	FZ_CHECK(e->name.len > 0 && !memchr(e->name.s, '/', e->name.len), "a name that is none");
	return 0;
}

static void use(struct p9_session *s)
{
	static uint8_t data[40000];
	struct p9_rgetattr st;
	struct p9_lister l = { .each = each, .sizes = true };
	(void)!p9_session_stat(s, "/a/b", &st);
	(void)!p9_session_list(s, "/", &l);
	(void)!p9_session_read_file(s, "/f", data, sizeof(data));
	(void)!p9_session_write_file(s, "/g", data, 20000, 0644);
	(void)!p9_session_remove(s, "/g");
}

static void begin(const struct p9_guest_conf *conf)
{
	static uint8_t memory[1 << 18] __attribute__((aligned(16)));
	struct p9_guest_dev *d = &ma.dev;
	struct p9_session *s;
	ma.seen = 0;
	if (p9_guest_start(d, conf) < 0) {
		FZ_CHECK(d->why, "a failure without a reason");
		return;
	}
	struct p9_session_conf sc = { .port = &d->port.port, .msize = d->conf.msize, .nfids = 16 };
	if (p9_session_init(&s, &sc, memory, sizeof(memory)) == 0) {
		use(s);
	}
	FZ_CHECK(d->nfree + (d->held >= 0) + d->ring.inflight == d->conf.slots, "%u free, %d held, %u in flight",
		 d->nfree, d->held, d->ring.inflight);
	FZ_CHECK(strlen(d->tag) < sizeof(d->tag), "tag");
	p9_guest_stop(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct p9_guest_conf conf = { .msize = 8192, .slots = 3, .patience_ms = 20 };
	if (size < 4) {
		return 0;
	}
	ma = (struct machine){ .in = data + 1, .end = data + size };
	make_machine(data[0]);
	conf.interrupts = data[0] & INTERRUPTS;
	int found = ma.kind < MMIO_MODERN ? p9_guest_find_pci(&ma.dev, 1) : p9_guest_find_mmio(&ma.dev, MMIO_AT, 11);
	FZ_CHECK(found == 0 || found == 1, "%d devices", found);
	if (found == 1) {
		begin(&conf);
		begin(&conf);
		FZ_CHECK(ma.blocks <= 2 || ma.dev.why || ma.nlies, "memory was taken %u times", ma.blocks);
	}
	for (unsigned i = 0; i < ma.blocks; i++) {
		free(ma.block[i]);
	}
	return 0;
}
