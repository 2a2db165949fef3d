/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio_9p.h - a driver for virtio-9p devices, for those who have no operating system, or are one.
 *
 * Freestanding, over the six functions of platform.h. It finds devices, modern and legacy, on PCI and as virtio-mmio, and
 * makes of each a port for a session (p9/session.h), which then has all the file calls:
 *
 *	struct p9_guest_dev dev[4];
 *	int n = p9_guest_find_pci(dev, 4);
 *	p9_guest_start(&dev[0], &(struct p9_guest_conf){ .msize = 65536 });
 *	struct p9_session_conf conf = { .port = &dev[0].port.port, .msize = dev[0].conf.msize };
 *	p9_session_init(&session, &conf, memory, sizeof(memory));
 *
 * Several requests are in flight, one in each slot (p9_session_submit(), and large files). The device is not trusted:
 * what it says about itself is checked before use, what it answers is checked by the ring and the engine, and when it
 * says nothing the wait ends. Memory that it may write to is never used for anything else.
 *
 * One thread at a time for a device, but for p9_guest_interrupt(). Calls return >= 0 or -P9_Exxx.
 */
#ifndef P9_GUEST_VIRTIO_9P_H
#define P9_GUEST_VIRTIO_9P_H
#include "guest/platform.h"
#include "p9/session.h"
#include "virtio/driver.h"

#define P9_GUEST_TAG 128   /* bytes of a mount tag, its end included */
#define P9_GUEST_SLOTS 128 /* most requests in flight */

struct p9_guest_dev;
struct p9_guest_bus;

struct p9_guest_conf {
	uint32_t msize;	      /* largest message; 0 for 64 KiB */
	uint16_t slots;	      /* requests in flight; 0 for 8. Each takes 2 * msize of memory */
	uint16_t ring;	      /* entries of the ring, where the device leaves that to us; 0 for what it proposes */
	uint32_t patience_ms; /* how long a device may be silent while it owes an answer; 0 for 30 s */
	bool interrupts;      /* sleep while waiting: p9_guest_interrupt() will be called */
	uint64_t without;     /* feature bits that are not to be used though the device has them */
};

/* A run of registers. */
struct p9_guest_window {
	enum p9_space space;
	uint64_t addr;
	uint32_t len;
};

/* Memory for one request in flight. */
struct p9_guest_slot {
	uint8_t *request, *reply;
	uint64_t request_bus, reply_bus;
};

struct p9_guest_dev {
	struct p9_msg_port port; /* the session's */
	const struct p9_guest_bus *bus;
	struct p9_guest_conf conf; /* as given, defaults filled in */
	char name[24];		   /* "pci 00:04.0", "mmio 0xfeb02e00" */
	char tag[P9_GUEST_TAG];	   /* from start on; "" when it has none */
	uint8_t irq;		   /* interrupt line as the firmware left it; 0xff: none known */
	uint64_t features;	   /* negotiated */
	uint32_t ring_size;
	const char *why; /* why it cannot be used, or was given up; NULL */

	/* Its own. */
	struct p9_guest_window common, notify, isr, config; /* virtio-mmio and legacy devices have all in `common` */
	uint32_t notify_multiplier;
	uint64_t where; /* configuration space, or registers */
	struct p9_vdrv ring;
	uint8_t *memory;	 /* the device's too: ring, tables, requests, replies */
	uint8_t *private_memory; /* ours alone: what is in flight */
	uint64_t memory_bus;
	size_t memory_size, private_size;
	struct p9_guest_slot *slots;
	uint16_t free[P9_GUEST_SLOTS], nfree;
	int held; /* slot with the reply that the session reads; -1 */
	bool running;
	unsigned deaf;		      /* answers that came without their interrupt */
	volatile uint32_t interrupts; /* that were the device's */
};

/* Looks at every function of every PCI bus; fills in at most `max`. Returns how many. Devices that are broken are said
 * and left out. */
P9_MUST_USE int p9_guest_find_pci(struct p9_guest_dev *devs, unsigned max);
/* Looks for a virtio-mmio device at `addr`; `irq` may be 0xff. Returns 1, or 0: there is none, or it is not 9P. */
P9_MUST_USE int p9_guest_find_mmio(struct p9_guest_dev *d, uint64_t addr, uint8_t irq);

/* Resets the device, agrees with it on features, reads its tag, gives it a ring. Also after p9_guest_stop(), for a new
 * beginning; with the same msize, slots and ring no memory is taken again. On failure d->why has the reason. */
P9_MUST_USE int p9_guest_start(struct p9_guest_dev *d, const struct p9_guest_conf *conf);
/* Resets the device: it forgets all, and touches no memory any more. */
void p9_guest_stop(struct p9_guest_dev *d);
/* For the kernel's interrupt handler. Returns whether the device had something to say, and takes its interrupt away. */
bool p9_guest_interrupt(struct p9_guest_dev *d);

#endif
