/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of base/pack.c: what is written is read again, and whatever else is read is refused in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/pack.h"

static const uint64_t numbers[] = { 0, 1, 127, 128, 16383, 16384, UINT32_MAX, (uint64_t)INT64_MAX, UINT64_MAX };
#define NUMBERS (sizeof(numbers) / sizeof(numbers[0]))

static void test_numbers_and_bytes(void **state)
{
	struct p9_pack p = { 0 };
	struct p9_unpack u;
	char text[20];
	size_t n;
	(void)state;
	for (size_t i = 0; i < NUMBERS; i++) {
		p9_pack_number(&p, numbers[i]);
	}
	p9_pack_text(&p, "some text");
	p9_pack_bytes(&p, NULL, 0);
	assert_string_equal(p.why, "");
	p9_unpack_init(&u, p.bytes, p.len, NULL, 0);
	for (size_t i = 0; i < NUMBERS; i++) {
		assert_true(p9_unpack_number(&u, numbers[i]) == numbers[i]);
	}
	p9_unpack_text(&u, text, sizeof(text));
	assert_string_equal(text, "some text");
	assert_non_null(p9_unpack_bytes(&u, 0, &n));
	assert_int_equal(n, 0);
	p9_unpack_end(&u);
	assert_false(p9_unpack_bad(&u));
	/* one byte less is an error, wherever it is missing */
	for (size_t cut = 0; cut < p.len; cut++) {
		p9_unpack_init(&u, p.bytes, cut, NULL, 0);
		for (size_t i = 0; i < NUMBERS; i++) {
			p9_unpack_number(&u, UINT64_MAX);
		}
		p9_unpack_text(&u, text, sizeof(text));
		p9_unpack_bytes(&u, 0, &n);
		p9_unpack_end(&u);
		assert_true(p9_unpack_bad(&u));
	}
	p9_pack_fini(&p);
}

static void test_what_is_too_large(void **state)
{
	static const uint8_t overlong[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02 };
	static const uint8_t endless[] = { 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00 };
	static const uint8_t zero[] = { 3, 'a', 0, 'b' };
	struct p9_unpack u;
	char text[4];
	size_t n;
	(void)state;
	p9_unpack_init(&u, "\x05", 1, NULL, 0);
	assert_int_equal(p9_unpack_number(&u, 4), 0);
	assert_true(p9_unpack_bad(&u));
	assert_int_equal(p9_unpack_number(&u, 100), 0); /* and so is everything behind it */
	p9_unpack_init(&u, overlong, sizeof(overlong), NULL, 0);
	assert_int_equal(p9_unpack_number(&u, UINT64_MAX), 0);
	assert_true(p9_unpack_bad(&u));
	p9_unpack_init(&u, endless, sizeof(endless), NULL, 0);
	p9_unpack_number(&u, UINT64_MAX);
	assert_true(p9_unpack_bad(&u));
	p9_unpack_init(&u, "\x05xxxxx", 6, NULL, 0);
	assert_null(p9_unpack_bytes(&u, 4, &n));
	assert_int_equal(n, 0);
	p9_unpack_init(&u, zero, sizeof(zero), NULL, 0);
	p9_unpack_text(&u, text, sizeof(text));
	assert_true(p9_unpack_bad(&u));
	assert_string_equal(text, "");
	p9_unpack_init(&u, "\x02", 1, NULL, 0);
	assert_false(p9_unpack_flag(&u));
	assert_true(p9_unpack_bad(&u));
}

static void test_descriptors_have_one_owner(void **state)
{
	struct p9_pack p = { 0 };
	struct p9_unpack u;
	int fds[2] = { dup(0), dup(0) }, other = fds[1];
	(void)state;
	p9_pack_fd(&p, fds[0]);
	p9_pack_fd(&p, -1);
	p9_pack_number(&p, 1); /* the same again */
	p9_pack_number(&p, 3); /* one that is not there */
	assert_int_equal(p.nfds, 1);
	p9_unpack_init(&u, p.bytes, p.len, fds, 2);
	int fd = p9_unpack_fd(&u);
	assert_true(fd >= 0);
	assert_int_equal(p9_unpack_fd(&u), -1);
	assert_false(p9_unpack_bad(&u));
	assert_int_equal(p9_unpack_fd(&u), -1);
	assert_true(p9_unpack_bad(&u));
	p9_unpack_fini(&u);
	assert_int_equal(dup2(fd, fd), fd); /* ours */
	assert_int_equal(close(other), -1); /* nobody wanted it, so it was closed */
	close(fd);
	p9_pack_fini(&p);
}

static void test_things_are_shared(void **state)
{
	enum { THINGS = 1000 };
	static int things[THINGS];
	struct p9_pack p = { 0 };
	struct p9_unpack u;
	void *got;
	(void)state;
	for (int turn = 0; turn < 2; turn++) {
		for (int i = 0; i < THINGS; i++) {
			assert_int_equal(p9_pack_knows(&p, &things[i]), turn);
			assert_int_equal(p9_pack_thing(&p, &things[i]), !turn);
		}
	}
	assert_false(p9_pack_thing(&p, NULL));
	p9_unpack_init(&u, p.bytes, p.len, NULL, 0);
	for (int i = 0; i < THINGS; i++) {
		uint32_t number = p9_unpack_thing(&u, P9_THING_NODE, &got);
		assert_true(number > 0);
		p9_unpack_made(&u, number, &things[i]);
	}
	for (int i = 0; i < THINGS; i++) {
		assert_int_equal(p9_unpack_thing(&u, P9_THING_NODE, &got), 0);
		assert_ptr_equal(got, &things[i]);
	}
	assert_int_equal(p9_unpack_thing(&u, P9_THING_NODE, &got), 0);
	assert_null(got);
	p9_unpack_end(&u);
	assert_false(p9_unpack_bad(&u));
	p9_unpack_fini(&u);
	/* another kind, a number out of turn, one that was never made */
	p9_unpack_init(&u, "\x01\x01", 2, NULL, 0);
	p9_unpack_made(&u, p9_unpack_thing(&u, P9_THING_NODE, &got), things);
	assert_int_equal(p9_unpack_thing(&u, P9_THING_FID, &got), 0);
	assert_true(p9_unpack_bad(&u) && !got);
	p9_unpack_fini(&u);
	p9_unpack_init(&u, "\x02", 1, NULL, 0);
	assert_int_equal(p9_unpack_thing(&u, P9_THING_NODE, &got), 0);
	assert_true(p9_unpack_bad(&u));
	p9_unpack_fini(&u);
	p9_unpack_init(&u, "\x01\x01", 2, NULL, 0);
	assert_int_equal(p9_unpack_thing(&u, P9_THING_NODE, &got), 1);
	assert_int_equal(p9_unpack_thing(&u, P9_THING_NODE, &got), 0);
	assert_true(p9_unpack_bad(&u) && !got);
	p9_unpack_fini(&u);
	p9_pack_fini(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers_and_bytes),
		cmocka_unit_test(test_what_is_too_large),
		cmocka_unit_test(test_descriptors_have_one_owner),
		cmocka_unit_test(test_things_are_shared),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
