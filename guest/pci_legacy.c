/* SPDX-License-Identifier: BSD-2-Clause */
/* pci_legacy.c - devices as they were before virtio 1.0: all registers in the I/O ports of BAR 0.
 *
 * Section 4.1.4.8 of the specification. The device decides the ring's size; its place is one number, the page of the
 * descriptors. The device's configuration begins at 20 as long as MSI-X is off, which pci.c has seen to.
 */
#include "guest/bus.h"

enum {
	FEATURES = 0,
	ACCEPT = 4,
	QUEUE_PFN = 8,
	QUEUE_NUM = 12,
	QUEUE_SELECT = 14,
	QUEUE_NOTIFY = 16,
	STATUS = 18,
	ISR = 19,
	CONFIG = 20,
	LEAST = CONFIG + 2 /* bytes that must be there */
};

static uint64_t features(struct p9_guest_dev *d)
{
	return p9_guest_reg_read(&d->common, FEATURES, 4);
}

static void accept(struct p9_guest_dev *d, uint64_t bits)
{
	p9_guest_reg_write(&d->common, ACCEPT, 4, (uint32_t)bits);
}

static uint8_t status(struct p9_guest_dev *d)
{
	return (uint8_t)p9_guest_reg_read(&d->common, STATUS, 1);
}

static void set_status(struct p9_guest_dev *d, uint8_t bits)
{
	p9_guest_reg_write(&d->common, STATUS, 1, bits);
}

/* A legacy device's fields may be read in bytes only by contract, and need no other order than memory's. */
static uint32_t config(struct p9_guest_dev *d, uint32_t offset, unsigned size)
{
	uint32_t value = 0;
	for (unsigned i = 0; i < size; i++) {
		value |= (p9_guest_reg_read(&d->common, CONFIG + offset + i, 1) & 0xff) << (8 * i);
	}
	return value;
}

static uint32_t generation(struct p9_guest_dev *d)
{
	(void)d;
	return 0;
}

static uint32_t queue_max(struct p9_guest_dev *d)
{
	p9_guest_reg_write(&d->common, QUEUE_SELECT, 2, 0);
	return p9_guest_reg_read(&d->common, QUEUE_NUM, 2);
}

static void queue_start(struct p9_guest_dev *d, const struct p9_guest_ring *r)
{
	p9_guest_reg_write(&d->common, QUEUE_SELECT, 2, 0);
	p9_guest_reg_write(&d->common, QUEUE_PFN, 4, (uint32_t)(r->desc >> 12));
}

static void notify(struct p9_guest_dev *d)
{
	p9_guest_reg_write(&d->common, QUEUE_NOTIFY, 2, 0);
}

static uint32_t interrupt(struct p9_guest_dev *d)
{
	return p9_guest_reg_read(&d->common, ISR, 1);
}

static const struct p9_guest_bus legacy = { false,  true,	features,  accept,	status, set_status,
					    config, generation, queue_max, queue_start, notify, interrupt };

int p9_guest_pci_legacy(struct p9_guest_dev *d, const struct p9_guest_window *bar)
{
	if (bar->space != P9_SPACE_PORT || bar->len < LEAST) {
		return p9_guest_fail(d, -P9_ENXIO, "neither virtio 1 capabilities nor a legacy I/O BAR");
	}
	d->common = *bar;
	d->bus = &legacy;
	return 0;
}
