/* SPDX-License-Identifier: BSD-2-Clause */
/* guest_virtio_9p_test.c - the guest's driver on a machine that is made up, and does not always mean well. */
#include <stdio.h>
#include "unit/guest_machine.h"

static uint8_t memory[1 << 20] __attribute__((aligned(16)));
static struct p9_session *session;

static int find(struct p9_guest_dev *d, unsigned max)
{
	return ma.kind <= PCI_LEGACY ? p9_guest_find_pci(d, max) : p9_guest_find_mmio(d, MMIO, 11);
}

static int begin(struct p9_guest_dev *d)
{
	struct p9_session_conf conf = { .port = &d->port.port, .msize = d->conf.msize, .nfids = 16 };
	return p9_session_init(&session, &conf, memory, sizeof(memory));
}

/* ---- devices that mean well ---- */

static void every_kind(void **state)
{
	static const char *const names[KINDS] = { "pci 00:03.0", "pci 00:03.0", "pci 00:03.0", "mmio 0xfeb00e00",
						  "mmio 0xfeb00e00" };
	struct p9_guest_dev d;
	struct p9_rgetattr st;
	(void)state;
	for (enum kind k = 0; k < KINDS; k++) {
		for (int interrupts = 0; interrupts < 2; interrupts++) {
			machine_init(k, FINE);
			assert_int_equal(find(&d, 1), 1);
			assert_string_equal(d.name, names[k]);
			assert_int_equal(d.irq, k <= PCI_LEGACY ? 10 : 11);
			assert_int_equal(
				p9_guest_start(&d, &(struct p9_guest_conf){ .msize = 8192, .interrupts = interrupts }),
				0);
			assert_string_equal(d.tag, "share0");
			assert_int_equal(d.ring_size, 64);
			assert_int_equal(!!(d.features & P9_VIRTIO_F_VERSION_1), k != PCI_LEGACY && k != MMIO_LEGACY);
			assert_int_equal(d.features, ma.accepted);
			ma.interrupted = interrupts ? &d : NULL;
			ma.slow = interrupts;
			assert_int_equal(begin(&d), 0);
			for (int i = 0; i < 1000; i++) {
				assert_int_equal(p9_session_stat(session, "/", &st), 0);
				assert_int_equal(st.mode, 0040755);
			}
			assert_int_equal(d.nfree + (d.held >= 0), d.conf.slots);
			assert_int_equal(d.ring.nfree, d.ring_size);
			assert_int_equal(ma.allocs, 2);
			assert_true(interrupts ? ma.sleeps > 800 && d.interrupts > 800 && d.conf.interrupts
					       : ma.sleeps == 0);
			assert_string_equal(ma.said, "");
			assert_null(d.why);
		}
	}
}

/* MSI-X, which a firmware may have left on, is off; bus mastering is on. */
static void pci_is_set_up(void **state)
{
	struct p9_guest_dev d;
	(void)state;
	machine_init(PCI_TRANSITIONAL, FINE);
	struct function *f = &ma.function[0];
	put(f, 4, 2, 0x400);
	assert_int_equal(find(&d, 1), 1);
	assert_int_equal(get_bytes(&f->config[4], 2), 7);
	assert_int_equal(get_bytes(&f->config[0x9a], 2), 1);
	assert_int_equal(get_bytes(&f->config[0x20], 4), 0xfe00000c);
	assert_int_equal(get_bytes(&f->config[0x24], 4), 8);
	assert_int_equal(get_bytes(&f->config[0x10], 4), 0xc001);
	put(f, 0x3d, 1, 0);
	assert_int_equal(find(&d, 1), 1);
	assert_int_equal(d.irq, 0xff);
}

static void many_functions(void **state)
{
	struct p9_guest_dev d[4];
	(void)state;
	machine_init(PCI_MODERN, FINE);
	ma.functions = 0;
	add_function(0);
	put(&ma.function[0], 0x0e, 1, 0x80); /* has others */
	add_function(5);
	add_function(31 << 3);
	add_function(255 << 8 | 31 << 3);
	assert_int_equal(find(d, 4), 4);
	assert_string_equal(d[1].name, "pci 00:00.5");
	assert_string_equal(d[3].name, "pci ff:1f.0");
	assert_int_equal(find(d, 3), 3);
	assert_non_null(strstr(ma.said, "more devices"));
	put(&ma.function[0], 0x0e, 1, 0);
	assert_int_equal(find(d, 4), 3); /* a function of a device that says it has none */
	put(&ma.function[2], 2, 2, 0x1041);
	assert_int_equal(find(d, 4), 2);
}

/* A device is started again in the memory that it had. */
static void again(void **state)
{
	struct p9_guest_dev d;
	struct p9_rgetattr st;
	(void)state;
	for (enum kind k = 0; k < KINDS; k++) {
		machine_init(k, FINE);
		assert_int_equal(find(&d, 1), 1);
		for (int i = 0; i < 50; i++) {
			assert_int_equal(p9_guest_start(&d, &(struct p9_guest_conf){ .msize = 4096 }), 0);
			assert_int_equal(begin(&d), 0);
			assert_int_equal(p9_session_stat(session, "", &st), 0);
			p9_guest_stop(&d);
			assert_int_equal(ma.status, 0);
			assert_int_equal(p9_session_stat(session, "", &st), -P9_EIO);
		}
		assert_int_equal(ma.allocs, 2);
	}
}

struct flight {
	struct p9_session_call call;
	unsigned answers;
};

static void count(struct p9_session_call *c, const struct p9_msg *reply)
{
	assert_int_equal(reply->type, P9_Rgetattr);
	((struct flight *)c)->answers++;
}

/* Several requests are shown to the device with one notification. */
static void in_flight(void **state)
{
	struct p9_guest_dev d;
	struct flight f[8];
	(void)state;
	machine_init(PCI_MODERN, FINE);
	assert_int_equal(find(&d, 1), 1);
	assert_int_equal(p9_guest_start(&d, &(struct p9_guest_conf){ .slots = 9, .ring = 16 }), 0);
	assert_int_equal(d.ring_size, 16);
	assert_int_equal(begin(&d), 0);
	unsigned before = ma.notified;
	for (unsigned i = 0; i < 8; i++) {
		struct p9_msg m = { .type = P9_Tgetattr, .tgetattr = { 0, P9_GETATTR_BASIC } };
		f[i] = (struct flight){ { count }, 0 };
		assert_true(p9_session_submit(session, &m, NULL, &f[i].call) >= 0);
	}
	assert_int_equal(p9_session_drain(session), 0);
	assert_int_equal(ma.notified, before + 1);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(f[i].answers, 1);
	}
}

/* ---- devices that do not ---- */

struct outcome {
	enum quirk quirk;
	int start, session;
	const char *said;
};
static const struct outcome outcomes[] = {
	{ FINE, 0, 0, "" },
	{ NO_TAG, 0, 0, "" },
	{ NO_INTERRUPTS, 0, 0, "without interrupts" },
	{ NO_RESET, -P9_ETIMEDOUT, 0, "reset" },
	{ REFUSES, -P9_EPROTO, 0, "refuses the features" },
	{ NO_VERSION_1, -P9_EPROTO, 0, "virtio 1" },
	{ NO_QUEUE, -P9_EPROTO, 0, "no queue" },
	{ QUEUE_HUGE, -P9_EPROTO, 0, "longer than can be" },
	{ TAG_LONG, -P9_EPROTO, 0, "mount tag" },
	{ TAG_MOVES, -P9_EIO, 0, "hold still" },
	{ SILENT, 0, -P9_ETIMEDOUT, "does not answer" },
	{ NEEDS_RESET, 0, -P9_EIO, "needs a reset" },
	{ GONE, 0, -P9_ENODEV, "gone" },
	{ RESET_BEHIND, 0, -P9_EIO, "behind our back" },
	{ USED_ID, 0, -P9_EPROTO, "an answer to no request" },
	{ USED_LEN, 0, -P9_EPROTO, "longer than its room" },
	{ USED_JUMP, 0, -P9_EPROTO, "more answers than requests" },
	{ SHORT, 0, -P9_EPROTO, "shorter than its head" },
	{ SIZE_LIES, 0, -P9_EPROTO, "" },
	{ TWICE, 0, -P9_EPROTO, "more answers than requests" },
};

/* What a legacy device has not, it cannot get wrong. */
static bool applies(enum kind k, enum quirk q)
{
	bool legacy = k == PCI_LEGACY || k == MMIO_LEGACY;
	return !legacy || (q != REFUSES && q != NO_VERSION_1 && q != TAG_MOVES);
}

static void quirks(void **state)
{
	struct p9_guest_dev d;
	struct p9_rgetattr st;
	(void)state;
	for (enum kind k = 0; k < KINDS; k++) {
		for (unsigned i = 0; i < P9T_COUNT(outcomes); i++) {
			const struct outcome *o = &outcomes[i];
			if (!applies(k, o->quirk)) {
				continue;
			}
			machine_init(k, o->quirk);
			ma.slow = o->quirk == NO_INTERRUPTS;
			assert_int_equal(find(&d, 1), 1);
			assert_int_equal(
				p9_guest_start(
					&d, &(struct p9_guest_conf){ .interrupts = i % 2 || o->quirk == NO_INTERRUPTS,
								     .patience_ms = 5000 }),
				o->start);
			if (o->start == 0) {
				ma.interrupted = &d;
				uint64_t from = ma.now;
				int rc = begin(&d);
				for (int n = 0; n < 10 && rc == 0; n++) {
					rc = p9_session_stat(session, "", &st);
				}
				/* the session's own words are kept: EPROTO for what it found itself */
				assert_int_equal(rc, o->session);
				assert_true(o->session == 0 || p9_session_stat(session, "", &st) < 0);
				/* nobody is patient for longer than he was told */
				assert_true(o->session == 0 || ma.now - from < UINT64_C(6000) * 1000000);
			}
			if (!strstr(ma.said, o->said)) {
				fail_msg("kind %u, quirk %u: said \"%s\", not \"%s\"", k, o->quirk, ma.said, o->said);
			}
			assert_true(o->start == 0 || d.why != NULL);
			p9_guest_stop(&d);
		}
	}
	machine_init(PCI_LEGACY, QUEUE_3);
	assert_int_equal(find(&d, 1), 1);
	assert_int_equal(p9_guest_start(&d, &(struct p9_guest_conf){ 0 }), -P9_EPROTO);
	assert_non_null(strstr(ma.said, "power of two"));
}

static void memory_that_is_not_there(void **state)
{
	struct p9_guest_dev d;
	(void)state;
	machine_init(PCI_LEGACY, FINE);
	ma.most = 4096 * 4;
	assert_int_equal(find(&d, 1), 1);
	assert_int_equal(p9_guest_start(&d, &(struct p9_guest_conf){ 0 }), -P9_ENOMEM);
	ma.most = MEMORY;
	ma.bus_base = UINT64_C(1) << 44;
	assert_int_equal(p9_guest_start(&d, &(struct p9_guest_conf){ 0 }), -P9_ENOMEM);
	assert_non_null(strstr(ma.said, "legacy device can reach"));
	machine_init(PCI_MODERN, FINE);
	ma.bus_base = UINT64_C(1) << 50;
	assert_int_equal(find(&d, 1), 1);
	assert_int_equal(p9_guest_start(&d, &(struct p9_guest_conf){ 0 }), 0);
	assert_int_equal(begin(&d), 0);
}

/* ---- configuration space ---- */

struct damage {
	const char *what;
	unsigned reg, size;
	uint32_t value;
	int found; /* as 1049; as 1009 the legacy ports remain */
};
static const struct damage damages[] = {
	{ "no list of capabilities", 6, 2, 0, 0 },
	{ "a list that begins in the header", 0x34, 1, 0x10, 0 },
	{ "a list that begins nowhere", 0x34, 1, 0, 0 },
	{ "a list that is a circle", 0x71, 1, 0x98, 0 },
	{ "a capability that is its own next", 0x85, 1, 0x84, 0 },
	{ "a list that ends too soon", 0x51, 1, 0, 0 },
	{ "a list that leads to the end", 0x51, 1, 0xfc, 0 },
	{ "a capability shorter than it must be", 0x42, 1, 15, 0 },
	{ "a notify capability without its multiplier", 0x72, 1, 16, 0 },
	{ "a capability longer than the space", 0x42, 1, 0xff, 0 },
	{ "BAR 6", 0x44, 1, 6, 0 },
	{ "BAR 255", 0x44, 1, 255, 0 },
	{ "a BAR that is not there", 0x44, 1, 2, 0 },
	{ "the upper half of a BAR", 0x44, 1, 5, 0 },
	{ "an offset at the BAR's end", 0x48, 4, 0x4000, 0 },
	{ "an offset far outside", 0x48, 4, 0xfffffff0, 0 },
	{ "an offset that wraps", 0x48, 4, 0xfffff000, 0 },
	{ "a length beyond the BAR", 0x4c, 4, 0x4001, 0 },
	{ "a length that wraps", 0x4c, 4, 0xffffffff, 0 },
	{ "no length", 0x4c, 4, 0, 0 },
	{ "a length one byte short", 0x4c, 4, 0x37, 0 },
	{ "no interrupt status", 0x53, 1, 77, 0 },
	{ "no doorbell", 0x73, 1, 5, 0 },
	{ "a doorbell of one byte", 0x7c, 4, 1, 0 },
	{ "no configuration", 0x63, 1, 5, 1 }, /* there may be no tag */
	{ "another's device", 2, 2, 0x1048, -1 },
	{ "another's vendor", 0, 2, 0x8086, -1 },
	{ "as it should be", 0x40, 1, 9, 1 },
};

static void capabilities(void **state)
{
	struct p9_guest_dev d;
	(void)state;
	for (enum kind k = PCI_MODERN; k <= PCI_TRANSITIONAL; k++) {
		for (unsigned i = 0; i < P9T_COUNT(damages); i++) {
			const struct damage *x = &damages[i];
			machine_init(k, FINE);
			put(&ma.function[0], x->reg, x->size, x->value);
			int want = x->found < 0 ? 0 : k == PCI_MODERN ? x->found : 1, got = find(&d, 1);
			if (got != want) {
				fail_msg("%s: found %d, want %d", x->what, got, want);
			}
			if (got == 0 && x->found == 0) {
				assert_non_null(strstr(ma.said, "capabilities are not all there"));
			}
			/* a transitional device goes on with its ports */
			ma.kind = got && x->found == 0 ? PCI_LEGACY : ma.kind;
			if (got) {
				int rc = p9_guest_start(&d, &(struct p9_guest_conf){ 0 });
				/* without configuration the tag's length reads as all ones */
				assert_int_equal(rc, x->reg == 0x63 ? -P9_EPROTO : 0);
				assert_true(rc < 0 || begin(&d) == 0);
			}
		}
	}
}

static void bars(void **state)
{
	struct p9_guest_dev d;
	(void)state;
	machine_init(PCI_MODERN, FINE);
	ma.function[0].size[4] = 0; /* its address sticks, its size is 0 */
	assert_int_equal(find(&d, 1), 0);
	machine_init(PCI_MODERN, FINE);
	put(&ma.function[0], 0x20, 4, 0xc); /* no address */
	put(&ma.function[0], 0x24, 4, 0);
	assert_int_equal(find(&d, 1), 0);
	machine_init(PCI_MODERN, FINE);
	put(&ma.function[0], 0x20, 4, 0xfe00010c); /* not aligned to its size */
	assert_int_equal(find(&d, 1), 0);
	machine_init(PCI_MODERN, FINE);
	ma.function[0].size[4] = 0x2000; /* smaller than its capabilities say */
	assert_int_equal(find(&d, 1), 0);
	machine_init(PCI_MODERN, FINE);
	ma.function[0].size[4] = UINT64_C(1) << 33; /* larger than we count */
	put(&ma.function[0], 0x20, 4, 0xc);
	assert_int_equal(find(&d, 1), 1);
	machine_init(PCI_LEGACY, FINE);
	ma.function[0].size[0] = 16; /* ports without room for the tag */
	assert_int_equal(find(&d, 1), 0);
	assert_non_null(strstr(ma.said, "neither"));
	machine_init(PCI_LEGACY, FINE);
	put(&ma.function[0], 0x10, 4, 0xfe000000); /* memory, not ports */
	assert_int_equal(find(&d, 1), 0);
}

/* A doorbell outside its window is never rung: the device does not answer, and nothing else is touched. */
static void doorbell(void **state)
{
	struct p9_guest_dev d;
	(void)state;
	machine_init(PCI_MODERN, FINE);
	put(&ma.function[0], 0x80, 4, 0x7fffffff);
	assert_int_equal(find(&d, 1), 1);
	assert_int_equal(p9_guest_start(&d, &(struct p9_guest_conf){ .patience_ms = 100 }), 0);
	assert_int_equal(begin(&d), -P9_ETIMEDOUT);
	assert_int_equal(ma.notified, 0);
}

/* Configuration spaces and registers of random content: everything ends, nothing outside a BAR is touched. */
static void at_random(void **state)
{
	static struct p9_guest_dev d[FUNCTIONS];
	unsigned found = 0, started = 0;
	(void)state;
	struct p9t_rng rng = p9t_rng();
	for (unsigned round = 0; round < 300; round++) {
		machine_init(round % 2 ? PCI_TRANSITIONAL : PCI_MODERN, FINE);
		ma.random = true;
		ma.rng = rng;
		ma.functions = 0;
		for (unsigned i = 0; i < FUNCTIONS; i++) {
			struct function *f = add_function((uint32_t)p9t_rand_below(&rng, 65536) & ~7u);
			unsigned changes = (unsigned)p9t_rand_below(&rng, 12);
			for (unsigned k = 0; k < changes; k++) {
				unsigned reg = 4 + (unsigned)p9t_rand_below(&rng, 252);
				f->config[reg] = (uint8_t)p9t_rand(&rng);
			}
			f->size[p9t_rand_below(&rng, 6)] = UINT64_C(1) << p9t_rand_below(&rng, 40);
		}
		int n = find(d, FUNCTIONS);
		for (int i = 0; i < n; i++) {
			found++;
			ma.taken = 0;
			if (ma.random &&
			    p9_guest_start(&d[i], &(struct p9_guest_conf){ .msize = 4096, .patience_ms = 50 }) == 0) {
				started++;
				assert_true(begin(&d[i]) < 0);
			}
			p9_guest_stop(&d[i]);
		}
		for (unsigned k = 0; k < 20; k++) {
			struct p9_guest_dev m;
			int rc = p9_guest_find_mmio(&m, MMIO, 1);
			assert_true(rc == 0 || rc == 1);
		}
		(void)p9t_rand(&rng);
	}
	assert_true(found > 100 && started > 10);
	print_message("# %u found, %u started\n", found, started);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind),
		cmocka_unit_test(pci_is_set_up),
		cmocka_unit_test(many_functions),
		cmocka_unit_test(again),
		cmocka_unit_test(in_flight),
		cmocka_unit_test(quirks),
		cmocka_unit_test(capabilities),
		cmocka_unit_test(bars),
		cmocka_unit_test(doorbell),
		cmocka_unit_test(at_random),
		cmocka_unit_test(memory_that_is_not_there),
	};
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	free(ma.memory);
	return rc;
}
