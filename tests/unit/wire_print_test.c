/* SPDX-License-Identifier: BSD-2-Clause */
/* wire_print_test.c - the printer: bounds and escapes. What it prints for each message is in tests/wire/messages.hex. */
#include "lib/p9t.h"
#include <stdio.h>

static void assert_prints(const char *want, const struct p9_msg *m)
{
	char text[2048];
	size_t n = p9_wire_print(text, sizeof(text), m);
	assert_string_equal(text, want);
	assert_int_equal(n, strlen(want));
}

/* For every length of the buffer: the same text cut, a NUL at its end, nothing behind. */
static void never_overruns(void **state)
{
	struct p9t_rng r = p9t_rng();
	static struct p9t_store store;
	static char whole[64 * 1024], part[64 * 1024];
	for (unsigned type = 0; type < 256; type++) {
		struct p9_msg m;
		store.used = 0;
		if (p9_wire_desc(type)) {
			p9t_random_msg(&r, &store, (uint8_t)type, &m);
		} else {
			m.type = (uint8_t)type;
			m.tag = 1;
		}
		size_t len = p9_wire_print(whole, sizeof(whole), &m);
		assert_true(len > 0 && len < sizeof(whole) - 1);
		assert_int_equal(strlen(whole), len);
		size_t step = len > 2000 ? 37 : 1;
		for (size_t cap = 0; cap <= len + 2; cap += step) {
			memset(part, 0x5a, cap + 16);
			size_t n = p9_wire_print(part, cap, &m);
			assert_int_equal(n, cap == 0 ? 0 : cap - 1 < len ? cap - 1 : len);
			if (cap > 0) {
				assert_memory_equal(part, whole, n);
				assert_int_equal(part[n], 0);
			}
			for (size_t i = cap; i < cap + 16; i++) {
				assert_int_equal(part[i], 0x5a);
			}
		}
	}
}

/* Whatever the bytes are, the text is printable ASCII on one line. */
static void only_printable_ascii(void **state)
{
	struct p9t_rng r = p9t_rng();
	static struct p9t_store store;
	static char text[64 * 1024];
	for (unsigned type = 0; type < 256; type++) {
		for (unsigned i = 0; i < 100 && p9_wire_desc(type); i++) {
			struct p9_msg m;
			store.used = 0;
			p9t_random_msg(&r, &store, (uint8_t)type, &m);
			size_t n = p9_wire_print(text, sizeof(text), &m);
			for (size_t k = 0; k < n; k++) {
				assert_in_range(text[k], 0x20, 0x7e);
			}
		}
	}
}

static void escapes_every_byte(void **state)
{
	for (unsigned c = 0; c < 256; c++) {
		char byte = (char)c, want[128], quoted[8];
		if (c == '"' || c == '\\') {
			snprintf(quoted, sizeof(quoted), "\\%c", (int)c);
		} else if (c >= 0x20 && c < 0x7f) {
			snprintf(quoted, sizeof(quoted), "%c", (int)c);
		} else {
			snprintf(quoted, sizeof(quoted), "\\x%02x", c);
		}
		snprintf(want, sizeof(want), "Rreadlink tag=0 target=\"%s\"", quoted);
		assert_prints(want, &(struct p9_msg){ .type = P9_Rreadlink, .rreadlink = { { &byte, 1 } } });
	}
}

static void payload_is_cut(void **state)
{
	uint8_t bytes[100];
	memset(bytes, 'x', sizeof(bytes));
	struct p9_msg m = { .type = P9_Twrite, .tag = 1, .twrite = { 2, 3, { 64, bytes } } };
	char want[256];
	snprintf(want, sizeof(want), "Twrite tag=1 fid=2 offset=3 data=\"%.64s\"", (char *)bytes);
	assert_prints(want, &m);
	m.twrite.data.len = 65;
	snprintf(want, sizeof(want), "Twrite tag=1 fid=2 offset=3 data=\"%.64s\"...<65 bytes>", (char *)bytes);
	assert_prints(want, &m);
	m.twrite.data = (struct p9_data){ 4000000000u, NULL };
	assert_prints("Twrite tag=1 fid=2 offset=3 data=<4000000000 bytes>", &m);
}

static void flags_by_name(void **state)
{
	struct p9_msg m = { .type = P9_Tlopen };
	static const struct {
		uint32_t flags;
		const char *want;
	} cases[] = {
		{ 0, "O_RDONLY" },
		{ P9_O_WRONLY | P9_O_APPEND, "O_WRONLY|O_APPEND" },
		{ P9_O_SYNC | P9_O_RDWR, "O_RDWR|O_SYNC" },
		{ 0x80000000, "0x80000000" },
		{ 0x80000001, "O_WRONLY|0x80000000" },
	};
	for (unsigned i = 0; i < P9T_COUNT(cases); i++) {
		char want[128];
		m.tlopen.flags = cases[i].flags;
		snprintf(want, sizeof(want), "Tlopen tag=0 fid=0 flags=%s", cases[i].want);
		assert_prints(want, &m);
	}
	assert_prints("Tunlinkat tag=0 dirfid=0 name=\"\" flags=0x0",
		      &(struct p9_msg){ .type = P9_Tunlinkat, .tunlinkat = { .name = P9T_STR("") } });
	assert_prints("Rlerror tag=0 ecode=4242", &(struct p9_msg){ .type = P9_Rlerror, .rlerror = { 4242 } });
}

static void unknown_types_have_a_number(void **state)
{
	assert_prints("type=106 tag=notag", &(struct p9_msg){ .type = 106, .tag = P9_NOTAG });
}

/* A list that claims more than it holds, and directory entries that end in the middle. */
static void damaged_messages_print(void **state)
{
	struct p9_msg m = { .type = P9_Twalk };
	m.twalk.wname.n = 40000;
	for (unsigned i = 0; i < 16; i++) {
		m.twalk.wname.v[i] = P9T_STR("x");
	}
	assert_prints(
		"Twalk tag=0 fid=0 newfid=0 wname=[\"x\",\"x\",\"x\",\"x\",\"x\",\"x\",\"x\",\"x\",\"x\",\"x\",\"x\",\"x\","
		"\"x\",\"x\",\"x\",\"x\",...]",
		&m);
	uint8_t half[30] = { 0 };
	half[22] = 200;
	assert_prints("Rreaddir tag=0 data=[]<30 bytes>",
		      &(struct p9_msg){ .type = P9_Rreaddir, .rreaddir = { { sizeof(half), half } } });
	assert_prints("Rreaddir tag=0 data=[]<30 bytes>",
		      &(struct p9_msg){ .type = P9_Rreaddir, .rreaddir = { { 30, NULL } } });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(never_overruns),	  cmocka_unit_test(only_printable_ascii),
		cmocka_unit_test(escapes_every_byte),	  cmocka_unit_test(payload_is_cut),
		cmocka_unit_test(flags_by_name),	  cmocka_unit_test(unknown_types_have_a_number),
		cmocka_unit_test(damaged_messages_print),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
