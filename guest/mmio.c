/* SPDX-License-Identifier: BSD-2-Clause */
/* mmio.c - virtio-mmio devices, version 2 and legacy version 1 (sections 4.2.2 and 4.2.4 of the specification).
 *
 * Nothing lists them: machines tell addresses on the kernel's command line, in a device tree or by ACPI, or one looks
 * (p9_guest_find_mmio() reads 12 bytes and then believes them).
 */
#include "guest/bus.h"

enum {
	MAGIC = 0x00,
	VERSION = 0x04,
	DEVICE_ID = 0x08,
	FEATURES = 0x10,
	FEATURES_SELECT = 0x14,
	ACCEPT = 0x20,
	ACCEPT_SELECT = 0x24,
	PAGE_SIZE = 0x28, /* version 1 */
	QUEUE_SELECT = 0x30,
	QUEUE_MAX = 0x34,
	QUEUE_NUM = 0x38,
	QUEUE_ALIGN = 0x3c, /* version 1 */
	QUEUE_PFN = 0x40,   /* version 1 */
	QUEUE_READY = 0x44,
	NOTIFY = 0x50,
	INTERRUPT = 0x60,
	INTERRUPT_ACK = 0x64,
	STATUS = 0x70,
	QUEUE_DESC = 0x80,
	QUEUE_AVAIL = 0x90,
	QUEUE_USED = 0xa0,
	GENERATION = 0xfc,
	CONFIG = 0x100,
	LENGTH = 0x200,
	DEVICE_9P = 9,
	MAGIC_VALUE = 0x74726976, /* "virt" */
};

static uint32_t get(struct p9_guest_dev *d, uint32_t offset)
{
	return p9_guest_reg_read(&d->common, offset, 4);
}

static void put(struct p9_guest_dev *d, uint32_t offset, uint32_t value)
{
	p9_guest_reg_write(&d->common, offset, 4, value);
}

static void put64(struct p9_guest_dev *d, uint32_t offset, uint64_t value)
{
	put(d, offset, (uint32_t)value);
	put(d, offset + 4, (uint32_t)(value >> 32));
}

static uint64_t features(struct p9_guest_dev *d)
{
	put(d, FEATURES_SELECT, 1);
	uint64_t high = d->bus->modern ? get(d, FEATURES) : 0;
	put(d, FEATURES_SELECT, 0);
	return high << 32 | get(d, FEATURES);
}

static void accept(struct p9_guest_dev *d, uint64_t bits)
{
	if (d->bus->modern) {
		put(d, ACCEPT_SELECT, 1);
		put(d, ACCEPT, (uint32_t)(bits >> 32));
	}
	put(d, ACCEPT_SELECT, 0);
	put(d, ACCEPT, (uint32_t)bits);
}

static uint8_t status(struct p9_guest_dev *d)
{
	return (uint8_t)get(d, STATUS);
}

static void set_status(struct p9_guest_dev *d, uint8_t bits)
{
	put(d, STATUS, bits);
}

static uint32_t config(struct p9_guest_dev *d, uint32_t offset, unsigned size)
{
	if (d->bus->modern) {
		return p9_guest_reg_read(&d->common, CONFIG + offset, size);
	}
	uint32_t value = 0;
	for (unsigned i = 0; i < size; i++) {
		value |= (p9_guest_reg_read(&d->common, CONFIG + offset + i, 1) & 0xff) << (8 * i);
	}
	return value;
}

static uint32_t generation(struct p9_guest_dev *d)
{
	return d->bus->modern ? get(d, GENERATION) : 0;
}

static uint32_t queue_max(struct p9_guest_dev *d)
{
	put(d, QUEUE_SELECT, 0);
	return get(d, QUEUE_MAX);
}

static void queue_start(struct p9_guest_dev *d, const struct p9_guest_ring *r)
{
	put(d, QUEUE_SELECT, 0);
	put(d, QUEUE_NUM, r->num);
	put64(d, QUEUE_DESC, r->desc);
	put64(d, QUEUE_AVAIL, r->avail);
	put64(d, QUEUE_USED, r->used);
	put(d, QUEUE_READY, 1);
}

static void queue_start_legacy(struct p9_guest_dev *d, const struct p9_guest_ring *r)
{
	put(d, PAGE_SIZE, 4096);
	put(d, QUEUE_SELECT, 0);
	put(d, QUEUE_NUM, r->num);
	put(d, QUEUE_ALIGN, 4096);
	put(d, QUEUE_PFN, (uint32_t)(r->desc >> 12));
}

static void notify(struct p9_guest_dev *d)
{
	put(d, NOTIFY, 0);
}

static uint32_t interrupt(struct p9_guest_dev *d)
{
	uint32_t why = get(d, INTERRUPT);
	put(d, INTERRUPT_ACK, why);
	return why;
}

static const struct p9_guest_bus modern = { true,   false,	features,  accept,	status, set_status,
					    config, generation, queue_max, queue_start, notify, interrupt };
static const struct p9_guest_bus legacy = { false,	false,	  features,   accept,	 status,
					    set_status, config,	  generation, queue_max, queue_start_legacy,
					    notify,	interrupt };

int p9_guest_find_mmio(struct p9_guest_dev *d, uint64_t addr, uint8_t irq)
{
	*d = (struct p9_guest_dev){ .irq = irq, .where = addr, .common = { P9_SPACE_MEMORY, addr, LENGTH } };
	p9_guest_text(d->name, sizeof(d->name), "mmio 0x");
	p9_guest_hex(d->name, sizeof(d->name), addr, 1);
	if (get(d, MAGIC) != MAGIC_VALUE || get(d, DEVICE_ID) != DEVICE_9P) {
		return 0;
	}
	uint32_t version = get(d, VERSION);
	if (version != 1 && version != 2) {
		p9_guest_fail(d, -P9_ENXIO, "neither version 1 nor 2 of virtio-mmio");
		return 0;
	}
	d->bus = version == 2 ? &modern : &legacy;
	return 1;
}
