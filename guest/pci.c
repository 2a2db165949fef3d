/* SPDX-License-Identifier: BSD-2-Clause */
/* pci.c - finds virtio-9p devices on PCI, and drives those of virtio 1 (section 4.1.4 of the specification).
 *
 * Every function of every bus is looked at, so that nothing needs to be known of bridges; firmware, or the monitor, has
 * given addresses to BARs. A transitional device (1009) is taken as a modern one when it has the capabilities.
 * Must stay true: a capability counts only when it lies within its BAR, which was measured, not believed.
 */
#include "guest/bus.h"

enum {
	VENDOR_VIRTIO = 0x1af4,
	DEVICE_9P = 0x1049,
	DEVICE_9P_TRANSITIONAL = 0x1009,
	/* configuration space */
	VENDOR = 0x00,
	COMMAND = 0x04,
	COMMAND_IO = 1,
	COMMAND_MEMORY = 2,
	COMMAND_MASTER = 4,
	COMMAND_NO_INTX = 0x400,
	PCI_STATUS = 0x06,
	STATUS_CAPS = 0x10,
	HEADER = 0x0e,
	BAR = 0x10,
	BARS = 6,
	CAPS = 0x34,
	IRQ_LINE = 0x3c,
	IRQ_PIN = 0x3d,
	/* capabilities */
	CAP_MSIX = 0x11,
	CAP_VENDOR = 0x09,
	CAPS_MOST = (256 - 64) / 4, /* a list without a circle is not longer */
	CFG_COMMON = 1,
	CFG_NOTIFY = 2,
	CFG_ISR = 3,
	CFG_DEVICE = 4,
	/* the common configuration */
	FEATURE_SELECT = 0x00,
	FEATURE = 0x04,
	ACCEPT_SELECT = 0x08,
	ACCEPT = 0x0c,
	MSIX_CONFIG = 0x10,
	STATUS = 0x14,
	GENERATION = 0x15,
	QUEUE_SELECT = 0x16,
	QUEUE_SIZE = 0x18,
	QUEUE_MSIX = 0x1a,
	QUEUE_ENABLE = 0x1c,
	QUEUE_NOTIFY_OFF = 0x1e,
	QUEUE_DESC = 0x20,
	QUEUE_AVAIL = 0x28,
	QUEUE_USED = 0x30,
	COMMON_LENGTH = 0x38,
	NO_VECTOR = 0xffff,
};

static uint32_t conf_read(const struct p9_guest_dev *d, unsigned reg, unsigned size)
{
	return p9_platform_read(P9_SPACE_CONFIG, d->where + reg, size);
}

static void conf_write(const struct p9_guest_dev *d, unsigned reg, unsigned size, uint32_t value)
{
	p9_platform_write(P9_SPACE_CONFIG, d->where + reg, size, value);
}

/* ---- a modern device ---- */

static uint32_t get(struct p9_guest_dev *d, uint32_t offset, unsigned size)
{
	return p9_guest_reg_read(&d->common, offset, size);
}

static void put(struct p9_guest_dev *d, uint32_t offset, unsigned size, uint32_t value)
{
	p9_guest_reg_write(&d->common, offset, size, value);
}

static void put64(struct p9_guest_dev *d, uint32_t offset, uint64_t value)
{
	put(d, offset, 4, (uint32_t)value);
	put(d, offset + 4, 4, (uint32_t)(value >> 32));
}

static uint64_t features(struct p9_guest_dev *d)
{
	put(d, FEATURE_SELECT, 4, 1);
	uint64_t high = get(d, FEATURE, 4);
	put(d, FEATURE_SELECT, 4, 0);
	return high << 32 | get(d, FEATURE, 4);
}

static void accept(struct p9_guest_dev *d, uint64_t bits)
{
	put(d, ACCEPT_SELECT, 4, 1);
	put(d, ACCEPT, 4, (uint32_t)(bits >> 32));
	put(d, ACCEPT_SELECT, 4, 0);
	put(d, ACCEPT, 4, (uint32_t)bits);
}

static uint8_t status(struct p9_guest_dev *d)
{
	return (uint8_t)get(d, STATUS, 1);
}

static void set_status(struct p9_guest_dev *d, uint8_t bits)
{
	put(d, STATUS, 1, bits);
}

static uint32_t config(struct p9_guest_dev *d, uint32_t offset, unsigned size)
{
	return p9_guest_reg_read(&d->config, offset, size);
}

static uint32_t generation(struct p9_guest_dev *d)
{
	return get(d, GENERATION, 1);
}

static uint32_t queue_max(struct p9_guest_dev *d)
{
	put(d, QUEUE_SELECT, 2, 0);
	return get(d, QUEUE_SIZE, 2);
}

static void queue_start(struct p9_guest_dev *d, const struct p9_guest_ring *r)
{
	put(d, MSIX_CONFIG, 2, NO_VECTOR);
	put(d, QUEUE_SELECT, 2, 0);
	put(d, QUEUE_SIZE, 2, r->num);
	put(d, QUEUE_MSIX, 2, NO_VECTOR);
	put64(d, QUEUE_DESC, r->desc);
	put64(d, QUEUE_AVAIL, r->avail);
	put64(d, QUEUE_USED, r->used);
	/* From here on the window is the queue's own doorbell. One that lies outside stays as it is: the window's end is
	 * checked with every write, and a device that cannot be notified does not answer. */
	uint64_t offset = (uint64_t)get(d, QUEUE_NOTIFY_OFF, 2) * d->notify_multiplier;
	uint32_t skip = offset <= d->notify.len ? (uint32_t)offset : d->notify.len;
	d->notify.addr += skip;
	d->notify.len -= skip;
	d->notify_multiplier = 0; /* at the next start it is there already */
	put(d, QUEUE_ENABLE, 2, 1);
}

static void notify(struct p9_guest_dev *d)
{
	p9_guest_reg_write(&d->notify, 0, 2, 0);
}

static uint32_t interrupt(struct p9_guest_dev *d)
{
	return p9_guest_reg_read(&d->isr, 0, 1);
}

static const struct p9_guest_bus modern = { true,   false,	features,  accept,	status, set_status,
					    config, generation, queue_max, queue_start, notify, interrupt };

/* ---- finding them ---- */

/* Measures a BAR. Decoding is off meanwhile. A BAR that is not there, or has no address, has length 0. */
static struct p9_guest_window measure(const struct p9_guest_dev *d, unsigned bar)
{
	struct p9_guest_window w = { P9_SPACE_MEMORY, 0, 0 };
	unsigned reg = BAR + 4 * bar;
	uint32_t low = conf_read(d, reg, 4);
	bool port = low & 1, wide = !port && (low & 6) == 4 && bar + 1 < BARS;
	uint32_t mask = port ? ~3u : ~15u;
	uint32_t high = wide ? conf_read(d, reg + 4, 4) : 0;
	conf_write(d, reg, 4, UINT32_MAX);
	uint64_t size = conf_read(d, reg, 4) & mask;
	conf_write(d, reg, 4, low);
	if (wide) {
		conf_write(d, reg + 4, 4, UINT32_MAX);
		size |= (uint64_t)conf_read(d, reg + 4, 4) << 32;
		conf_write(d, reg + 4, 4, high);
	} else if (size != 0) {
		size |= UINT64_C(0xffffffff) << 32;
		size |= port ? 0xffff0000u : 0; /* ports may have 16 bits only */
	}
	size = ~size + 1;
	uint64_t addr = (uint64_t)high << 32 | (low & mask);
	if (size == 0 || (size & (size - 1)) != 0 || addr == 0 || (addr & (size - 1)) != 0) {
		return w;
	}
	w.space = port ? P9_SPACE_PORT : P9_SPACE_MEMORY;
	w.addr = addr;
	w.len = size > UINT32_MAX ? UINT32_MAX : (uint32_t)size;
	return w;
}

/* The part of its BAR that a capability names. Length 0: it names none that is there. */
static struct p9_guest_window part(const struct p9_guest_dev *d, unsigned cap)
{
	unsigned bar = conf_read(d, cap + 4, 1);
	uint32_t offset = conf_read(d, cap + 8, 4), len = conf_read(d, cap + 12, 4);
	if (bar >= BARS) {
		return (struct p9_guest_window){ P9_SPACE_MEMORY, 0, 0 };
	}
	struct p9_guest_window w = measure(d, bar);
	if (offset > w.len || len > w.len - offset) {
		return (struct p9_guest_window){ P9_SPACE_MEMORY, 0, 0 };
	}
	w.addr += offset;
	w.len = len;
	return w;
}

static void take(struct p9_guest_dev *d, unsigned cap)
{
	struct p9_guest_window *const windows[] = { NULL, &d->common, &d->notify, &d->isr, &d->config };
	static const uint32_t least[] = { 0, COMMON_LENGTH, 2, 1, 0 };
	unsigned type = conf_read(d, cap + 3, 1);
	/* The first of a kind that we can use is the one that the device likes best. */
	if (type < CFG_COMMON || type > CFG_DEVICE || windows[type]->len > 0) {
		return;
	}
	struct p9_guest_window w = part(d, cap);
	if (w.len < least[type]) {
		return;
	}
	*windows[type] = w;
	if (type == CFG_NOTIFY) {
		d->notify_multiplier = conf_read(d, cap + 16, 4);
	}
}

/* Walks the list of capabilities, which may be a circle or lead anywhere in configuration space. */
static void walk(struct p9_guest_dev *d)
{
	if (!(conf_read(d, PCI_STATUS, 2) & STATUS_CAPS)) {
		return;
	}
	unsigned cap = conf_read(d, CAPS, 1) & ~3u;
	for (unsigned i = 0; i < CAPS_MOST && cap >= 0x40 && cap < 0x100; i++) {
		unsigned id = conf_read(d, cap, 1), len = conf_read(d, cap + 2, 1);
		if (id == CAP_MSIX) {
			conf_write(d, cap + 2, 2, conf_read(d, cap + 2, 2) & 0x7fff);
		}
		if (id == CAP_VENDOR && len >= 16 && cap + len <= 0x100 &&
		    (conf_read(d, cap + 3, 1) != CFG_NOTIFY || len >= 20)) {
			take(d, cap);
		}
		cap = conf_read(d, cap + 1, 1) & ~3u;
	}
}

static int probe(struct p9_guest_dev *d, unsigned id)
{
	uint32_t command = conf_read(d, COMMAND, 2);
	conf_write(d, COMMAND, 2, command & ~(uint32_t)(COMMAND_IO | COMMAND_MEMORY));
	walk(d);
	struct p9_guest_window bar0 = measure(d, 0);
	conf_write(d, COMMAND, 2,
		   (command | COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER) & ~(uint32_t)COMMAND_NO_INTX);
	d->irq = conf_read(d, IRQ_PIN, 1) == 0 ? 0xff : (uint8_t)conf_read(d, IRQ_LINE, 1);
	if (d->common.len > 0 && d->notify.len > 0 && d->isr.len > 0) {
		d->bus = &modern;
		return 0;
	}
	if (id != DEVICE_9P_TRANSITIONAL) {
		return p9_guest_fail(d, -P9_ENXIO, "its virtio capabilities are not all there");
	}
	return p9_guest_pci_legacy(d, &bar0);
}

static void set_name(struct p9_guest_dev *d)
{
	p9_guest_text(d->name, sizeof(d->name), "pci ");
	p9_guest_hex(d->name, sizeof(d->name), d->where >> 20, 2);
	p9_guest_text(d->name, sizeof(d->name), ":");
	p9_guest_hex(d->name, sizeof(d->name), d->where >> 15 & 31, 2);
	p9_guest_text(d->name, sizeof(d->name), ".");
	p9_guest_hex(d->name, sizeof(d->name), d->where >> 12 & 7, 1);
}

int p9_guest_find_pci(struct p9_guest_dev *devs, unsigned max)
{
	unsigned n = 0;
	for (uint32_t at = 0; at < 256u << 8; at++) { /* bus, device, function */
		uint64_t where = (uint64_t)at << 12;
		uint32_t id = p9_platform_read(P9_SPACE_CONFIG, where + VENDOR, 4);
		bool ours =
			(id & 0xffff) == VENDOR_VIRTIO && (id >> 16 == DEVICE_9P || id >> 16 == DEVICE_9P_TRANSITIONAL);
		if (ours && n == max) {
			p9_platform_say("virtio-9p: there are more devices than room for them");
			break;
		}
		if (ours) {
			devs[n] = (struct p9_guest_dev){ .where = where };
			set_name(&devs[n]);
			n += probe(&devs[n], id >> 16) == 0;
		}
		bool many = (id & 0xffff) != 0xffff && (p9_platform_read(P9_SPACE_CONFIG, where + HEADER, 1) & 0x80);
		if ((at & 7) == 0 && !many) {
			at += 7; /* the other functions are not there */
		}
	}
	return (int)n;
}
