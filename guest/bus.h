/* SPDX-License-Identifier: BSD-2-Clause */
/* bus.h - what a device's registers can do, whatever they look like: four kinds, in pci.c, pci_legacy.c and mmio.c.
 *
 * Must stay true: nothing is read or written outside a window (p9_guest_reg_read() and p9_guest_reg_write() see to it).
 */
#ifndef P9_GUEST_BUS_H
#define P9_GUEST_BUS_H
#include "guest/virtio_9p.h"

/* Section 2.1 of the specification. */
enum {
	P9_VSTATUS_ACKNOWLEDGE = 1,
	P9_VSTATUS_DRIVER = 2,
	P9_VSTATUS_DRIVER_OK = 4,
	P9_VSTATUS_FEATURES_OK = 8,
	P9_VSTATUS_NEEDS_RESET = 64,
	P9_VSTATUS_FAILED = 128,
};

/* Where the ring lies, for the device. In a legacy device's memory all of it follows from `desc`. */
struct p9_guest_ring {
	uint64_t desc, avail, used;
	uint32_t num;
};

struct p9_guest_bus {
	bool modern;
	bool fixed_ring; /* its size is the device's */
	uint64_t (*features)(struct p9_guest_dev *d);
	void (*accept)(struct p9_guest_dev *d, uint64_t features);
	uint8_t (*status)(struct p9_guest_dev *d);
	void (*set_status)(struct p9_guest_dev *d, uint8_t status);
	/* The device's own configuration, and a number that changes with it. */
	uint32_t (*config)(struct p9_guest_dev *d, uint32_t offset, unsigned size);
	uint32_t (*generation)(struct p9_guest_dev *d);
	/* Queue 0: its largest size, 0 when there is none; where it is. */
	uint32_t (*queue_max)(struct p9_guest_dev *d);
	void (*queue_start)(struct p9_guest_dev *d, const struct p9_guest_ring *r);
	void (*notify)(struct p9_guest_dev *d);
	/* Why it interrupts, which ends the interrupt: bit 0 the ring, bit 1 its configuration. */
	uint32_t (*interrupt)(struct p9_guest_dev *d);
};

uint32_t p9_guest_reg_read(const struct p9_guest_window *w, uint32_t offset, unsigned size);
void p9_guest_reg_write(const struct p9_guest_window *w, uint32_t offset, unsigned size, uint32_t value);

/* Says "virtio-9p NAME: text", keeps it in d->why and returns rc. `text` is a constant. */
int p9_guest_fail(struct p9_guest_dev *d, int rc, const char *text);
/* Appends to a text in a buffer of `cap` bytes; numbers in base 16 with at least `digits`. */
void p9_guest_text(char *buf, size_t cap, const char *text);
void p9_guest_hex(char *buf, size_t cap, uint64_t value, unsigned digits);

/* Makes an I/O BAR of a device at `where` the window of a legacy one. */
P9_MUST_USE int p9_guest_pci_legacy(struct p9_guest_dev *d, const struct p9_guest_window *bar);

#endif
