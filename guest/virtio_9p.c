/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio_9p.c - from a device that was found to a port that a session can use: start, send, receive, stop.
 *
 * A request is copied into its slot and its answer read from there: memory that the device reaches is only ever the
 * driver's own. A slot is free, or in the ring, or held: the session is reading its reply.
 * Must stay true: a slot is given out again only when the ring gave it back, so that a device that was too slow never
 * writes into another request's reply.
 */
#include <string.h>
#include "engine/engine.h"
#include "guest/bus.h"

enum {
	MSIZE = 65536,
	SLOTS = 8,
	PATIENCE_MS = 30000,
	RESET_MS = 1000, /* patience with a reset */
	PAGE = 4096,
	PARTS = 2,		      /* descriptors of a request */
	SPIN = 200,		      /* looks before sleeping: short answers come sooner than a wake-up */
	LOOKS = 64,		      /* between two looks at the clock */
	HEALTH_NS = 20 * 1000 * 1000, /* between two looks at the device's status */
	DEAF = 3,		      /* answers without their interrupt until we do without */
	MOST_WHY = 120,
};
#define NS_PER_MS UINT64_C(1000000)
#define FEATURE_ACCESS_PLATFORM (UINT64_C(1) << 33)

/* ---- text ---- */

void p9_guest_text(char *buf, size_t cap, const char *text)
{
	size_t n = 0;
	while (n + 1 < cap && buf[n]) {
		n++;
	}
	while (n + 1 < cap && *text) {
		buf[n++] = *text++;
	}
	buf[n] = 0;
}

void p9_guest_hex(char *buf, size_t cap, uint64_t value, unsigned digits)
{
	char text[17];
	unsigned n = 16;
	text[n] = 0;
	while (n > 0 && (value || n > 16 - digits)) {
		text[--n] = "0123456789abcdef"[value & 15];
		value >>= 4;
	}
	p9_guest_text(buf, cap, text + n);
}

int p9_guest_fail(struct p9_guest_dev *d, int rc, const char *text)
{
	char line[MOST_WHY] = "virtio-9p ";
	p9_guest_text(line, sizeof(line), d->name);
	p9_guest_text(line, sizeof(line), ": ");
	p9_guest_text(line, sizeof(line), text);
	p9_platform_say(line);
	d->why = text;
	return rc;
}

/* ---- registers ---- */

uint32_t p9_guest_reg_read(const struct p9_guest_window *w, uint32_t offset, unsigned size)
{
	if (offset > w->len || size > w->len - offset) {
		return UINT32_MAX >> (32 - 8 * size);
	}
	return p9_platform_read(w->space, w->addr + offset, size);
}

void p9_guest_reg_write(const struct p9_guest_window *w, uint32_t offset, unsigned size, uint32_t value)
{
	if (offset <= w->len && size <= w->len - offset) {
		p9_platform_write(w->space, w->addr + offset, size, value);
	}
}

/* ---- the port ---- */

static int send(struct p9_msg_port *port, const struct p9_engine_iov *v, unsigned n, uint32_t size)
{
	struct p9_guest_dev *d = (struct p9_guest_dev *)port;
	if (!d->running || d->ring.why) {
		return -P9_EIO;
	}
	if (size > d->conf.msize) {
		return p9_guest_fail(d, -P9_EMSGSIZE, "a request is longer than its slot");
	}
	if (d->nfree == 0) {
		return 0;
	}
	uint16_t i = d->free[d->nfree - 1];
	struct p9_guest_slot *slot = &d->slots[i];
	uint32_t at = 0;
	for (unsigned k = 0; k < n; k++) {
		memcpy(slot->request + at, v[k].p, v[k].len);
		at += (uint32_t)v[k].len;
	}
	const struct p9_vbuf parts[PARTS] = { { slot->request_bus, size }, { slot->reply_bus, d->conf.msize } };
	int rc = p9_vdrv_add(&d->ring, parts, 1, 1, slot);
	if (rc == -P9_EAGAIN) {
		return 0;
	}
	d->nfree -= rc == 0;
	return rc == 0 ? 1 : rc;
}

static void give_back(struct p9_guest_dev *d)
{
	if (d->held >= 0) {
		d->free[d->nfree++] = (uint16_t)d->held;
		d->held = -1;
	}
}

/* Takes an answer from the ring. Returns its length, 0 or -P9_Exxx. */
static int take(struct p9_guest_dev *d, const uint8_t **reply)
{
	struct p9_vanswer a;
	int rc = p9_vdrv_get(&d->ring, &a);
	if (rc < 0) {
		return p9_guest_fail(d, -P9_EPROTO, d->ring.why);
	}
	if (rc == 0) {
		return 0;
	}
	struct p9_guest_slot *slot = a.user;
	d->held = (int)(slot - d->slots);
	if (a.len < P9_HDRSZ) {
		return p9_guest_fail(d, -P9_EPROTO, "an answer shorter than its head");
	}
	*reply = slot->reply;
	return (int)a.len;
}

static int health(struct p9_guest_dev *d)
{
	uint8_t status = d->bus->status(d);
	if (status == 0xff) {
		return p9_guest_fail(d, -P9_ENODEV, "it is gone");
	}
	if (status & P9_VSTATUS_NEEDS_RESET) {
		return p9_guest_fail(d, -P9_EIO, "it has failed, and says that it needs a reset");
	}
	if (!(status & P9_VSTATUS_DRIVER_OK)) {
		return p9_guest_fail(d, -P9_EIO, "it was reset behind our back");
	}
	return 0;
}

/* Sleeps until there may be an answer. An interrupt that never comes must not make every request take as long as the
 * platform sleeps: after some answers that were there without one we stop believing in it. */
static void doze(struct p9_guest_dev *d)
{
	uint32_t before = d->interrupts;
	if (p9_vdrv_wait(&d->ring)) {
		return;
	}
	p9_platform_wait(true);
	bool deaf = d->interrupts == before && p9_vdrv_wait(&d->ring);
	p9_vdrv_quiet(&d->ring);
	d->deaf = d->interrupts != before ? 0 : d->deaf + deaf;
	if (d->deaf == DEAF) {
		d->conf.interrupts = false;
		p9_platform_say("virtio-9p: answers come without interrupts; polling");
	}
}

static int wait(struct p9_guest_dev *d, const uint8_t **reply)
{
	uint64_t begin = p9_platform_clock(), looked = begin;
	for (uint32_t i = 1;; i++) {
		int rc = take(d, reply);
		if (rc != 0) {
			return rc;
		}
		bool sleep = d->conf.interrupts && i > SPIN;
		if (sleep) {
			doze(d);
		} else {
			p9_platform_wait(false);
		}
		if (!sleep && i % LOOKS != 0) {
			continue;
		}
		uint64_t now = p9_platform_clock();
		if (now - looked >= HEALTH_NS) {
			looked = now;
			rc = health(d);
		}
		if (rc == 0 && now - begin >= d->conf.patience_ms * NS_PER_MS) {
			rc = p9_guest_fail(d, -P9_ETIMEDOUT, "it does not answer");
		}
		if (rc < 0) {
			return rc;
		}
	}
}

static int recv(struct p9_msg_port *port, const uint8_t **reply, bool sleep)
{
	struct p9_guest_dev *d = (struct p9_guest_dev *)port;
	if (!d->running || d->ring.why) {
		return -P9_EIO;
	}
	give_back(d);
	/* All that was sent since the last look is shown at once: one notification. */
	if (p9_vdrv_kick(&d->ring)) {
		d->bus->notify(d);
	}
	return sleep ? wait(d, reply) : take(d, reply);
}

bool p9_guest_interrupt(struct p9_guest_dev *d)
{
	if (!d->bus || (d->bus->interrupt(d) & 3) == 0) {
		return false;
	}
	d->interrupts++;
	return true;
}

/* ---- starting ---- */

/* A device has read the reset only when its status reads 0. */
static int reset(struct p9_guest_dev *d)
{
	uint64_t begin = p9_platform_clock();
	d->bus->set_status(d, 0);
	while (d->bus->status(d) != 0) {
		if (p9_platform_clock() - begin >= RESET_MS * NS_PER_MS) {
			return p9_guest_fail(d, -P9_ETIMEDOUT, "it does not end its reset");
		}
		p9_platform_wait(false);
	}
	return 0;
}

static int negotiate(struct p9_guest_dev *d)
{
	uint64_t known = P9_VIRTIO_9P_MOUNT_TAG | P9_VIRTIO_F_INDIRECT_DESC | P9_VIRTIO_F_EVENT_IDX;
	uint64_t offered = d->bus->features(d);
	if (d->bus->modern) {
		known |= P9_VIRTIO_F_VERSION_1 | FEATURE_ACCESS_PLATFORM;
		if (!(offered & P9_VIRTIO_F_VERSION_1)) {
			return p9_guest_fail(d, -P9_EPROTO,
					     "its registers are those of virtio 1, its features are not");
		}
	}
	d->features = offered & known & ~(d->conf.without & ~P9_VIRTIO_F_VERSION_1);
	d->bus->accept(d, d->features);
	if (!d->bus->modern) {
		return 0;
	}
	d->bus->set_status(d, P9_VSTATUS_ACKNOWLEDGE | P9_VSTATUS_DRIVER | P9_VSTATUS_FEATURES_OK);
	if (!(d->bus->status(d) & P9_VSTATUS_FEATURES_OK)) {
		return p9_guest_fail(d, -P9_EPROTO, "it refuses the features that it offers");
	}
	return 0;
}

/* The tag, read until it did not change meanwhile. A device that has none (some monitors hide the feature bit) is
 * usable all the same. */
static int read_tag(struct p9_guest_dev *d)
{
	for (int tries = 0; tries < 8; tries++) {
		uint32_t generation = d->bus->generation(d);
		uint32_t len = d->features & P9_VIRTIO_9P_MOUNT_TAG ? d->bus->config(d, 0, 2) : 0;
		if (len >= P9_GUEST_TAG || (d->config.len > 0 && len + 2 > d->config.len)) {
			return p9_guest_fail(d, -P9_EPROTO, "its mount tag is longer than it can be");
		}
		for (uint32_t i = 0; i < len; i++) {
			d->tag[i] = (char)d->bus->config(d, 2 + i, 1);
		}
		d->tag[len] = 0;
		if (d->bus->generation(d) == generation) {
			return 0;
		}
	}
	return p9_guest_fail(d, -P9_EIO, "its configuration does not hold still");
}

/* Offsets within the device's memory: what legacy devices expect at fixed distances first, then what is ours. */
struct plan {
	uint32_t num;
	struct p9_vring_layout ring;
	size_t tables, buffers, size; /* what the device sees */
	size_t slots, private_size;   /* what it does not */
};

static size_t up(size_t n, size_t align)
{
	return (n + align - 1) / align * align;
}

static struct plan make_plan(const struct p9_guest_conf *c, uint32_t num)
{
	struct plan p = { .num = num };
	p.ring = p9_vring_layout(num, P9_VRING_LEGACY_ALIGN); /* good for modern ones, too */
	p.tables = up(p.ring.size, 16);
	p.buffers = up(p.tables + sizeof(struct p9_vdesc) * PARTS * num, PAGE);
	p.size = p.buffers + (size_t)2 * c->slots * up(c->msize, 64);
	p.slots = up(p9_vdrv_memory(num), 16);
	p.private_size = p.slots + c->slots * sizeof(struct p9_guest_slot);
	return p;
}

/* The ring's size: the device's, or a smaller power of two when it takes one. */
static int choose_ring(struct p9_guest_dev *d, uint32_t *num)
{
	uint32_t max = d->bus->queue_max(d), want = d->conf.ring;
	if (max == 0 || max > P9_VRING_NUM_MAX) {
		return p9_guest_fail(d, -P9_EPROTO, max ? "its ring is longer than can be" : "it has no queue");
	}
	*num = 1;
	while (*num * 2 <= max && (d->bus->fixed_ring || want == 0 || *num * 2 <= want)) {
		*num *= 2;
	}
	if (d->bus->fixed_ring && *num != max) {
		return p9_guest_fail(d, -P9_EPROTO, "its ring's size is no power of two");
	}
	/* One place is enough only for requests of one descriptor. */
	if (*num < PARTS && !(d->features & P9_VIRTIO_F_INDIRECT_DESC)) {
		return p9_guest_fail(d, -P9_EPROTO, "its ring is too short for a request");
	}
	return 0;
}

static int get_memory(struct p9_guest_dev *d, const struct plan *p)
{
	uint64_t bus;
	if (d->memory_size < p->size) {
		d->memory = p9_platform_alloc(p->size, &d->memory_bus);
		d->memory_size = d->memory ? p->size : 0;
	}
	if (d->private_size < p->private_size) {
		d->private_memory = p9_platform_alloc(p->private_size, &bus);
		d->private_size = d->private_memory ? p->private_size : 0;
	}
	if (!d->memory || !d->private_memory) {
		return p9_guest_fail(d, -P9_ENOMEM, "no memory for its ring and slots");
	}
	if (!d->bus->modern && (d->memory_bus + p->size) >> 44) {
		return p9_guest_fail(d, -P9_ENOMEM, "memory above what a legacy device can reach");
	}
	return 0;
}

static void make_slots(struct p9_guest_dev *d, const struct plan *p)
{
	size_t at = p->buffers, step = up(d->conf.msize, 64);
	d->slots = (struct p9_guest_slot *)(void *)(d->private_memory + p->slots);
	d->nfree = 0;
	d->held = -1;
	for (unsigned i = d->conf.slots; i-- > 0;) {
		d->slots[i] = (struct p9_guest_slot){ d->memory + at, d->memory + at + step, d->memory_bus + at,
						      d->memory_bus + at + step };
		d->free[d->nfree++] = (uint16_t)i;
		at += 2 * step;
	}
}

static int make_ring(struct p9_guest_dev *d)
{
	uint32_t num = 0;
	int rc = choose_ring(d, &num);
	if (rc < 0) {
		return rc;
	}
	struct plan p = make_plan(&d->conf, num);
	rc = get_memory(d, &p);
	if (rc < 0) {
		return rc;
	}
	make_slots(d, &p);
	struct p9_vdrv_conf conf = {
		.ring = p9_vring_at(d->memory, num, P9_VRING_LEGACY_ALIGN),
		.features = d->features,
		.tables = (void *)(d->memory + p.tables),
		.tables_addr = d->memory_bus + p.tables,
		.table_size = PARTS,
	};
	rc = p9_vdrv_init(&d->ring, &conf, d->private_memory);
	if (rc < 0) {
		return p9_guest_fail(d, rc, "its ring cannot be used");
	}
	p9_vdrv_quiet(&d->ring);
	d->ring_size = num;
	d->bus->queue_start(d, &(struct p9_guest_ring){ d->memory_bus, d->memory_bus + p.ring.avail,
							d->memory_bus + p.ring.used, num });
	return 0;
}

static void set_conf(struct p9_guest_dev *d, const struct p9_guest_conf *conf)
{
	d->conf = *conf;
	d->conf.msize = conf->msize ? conf->msize : MSIZE;
	d->conf.msize = d->conf.msize < P9_MSIZE_MIN ? P9_MSIZE_MIN : d->conf.msize;
	d->conf.slots = conf->slots ? conf->slots : SLOTS;
	d->conf.slots = d->conf.slots > P9_GUEST_SLOTS ? P9_GUEST_SLOTS : d->conf.slots;
	d->conf.patience_ms = conf->patience_ms ? conf->patience_ms : PATIENCE_MS;
}

int p9_guest_start(struct p9_guest_dev *d, const struct p9_guest_conf *conf)
{
	set_conf(d, conf);
	d->why = NULL;
	d->running = false;
	d->deaf = 0;
	int rc = reset(d);
	if (rc < 0) {
		return rc;
	}
	d->bus->set_status(d, P9_VSTATUS_ACKNOWLEDGE);
	d->bus->set_status(d, P9_VSTATUS_ACKNOWLEDGE | P9_VSTATUS_DRIVER);
	rc = negotiate(d);
	rc = rc < 0 ? rc : read_tag(d);
	rc = rc < 0 ? rc : make_ring(d);
	if (rc < 0) {
		d->bus->set_status(d, P9_VSTATUS_FAILED);
		return rc;
	}
	d->bus->set_status(d, P9_VSTATUS_ACKNOWLEDGE | P9_VSTATUS_DRIVER | P9_VSTATUS_DRIVER_OK |
				      (d->bus->modern ? P9_VSTATUS_FEATURES_OK : 0));
	p9_msg_port_init(&d->port);
	d->port.send = send;
	d->port.recv = recv;
	d->running = true;
	return health(d);
}

void p9_guest_stop(struct p9_guest_dev *d)
{
	d->running = false;
	if (d->bus && reset(d) < 0) {
		d->bus->set_status(d, P9_VSTATUS_FAILED);
	}
}
