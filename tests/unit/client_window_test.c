/* SPDX-License-Identifier: BSD-2-Clause */
/* client_window_test.c - the window over links that are a few lines of arithmetic: how many requests it comes to, and how
 * much of the link it uses. */
#include "lib/p9t.h"
#include "client/window.h"

enum { CHUNK = 1 << 20 };

struct wire {
	uint64_t rtt_us, us_per_chunk; /* of a request: the way there and back; being carried */
	uint64_t now, free_at;
	uint64_t done[64]; /* when requests in flight will be answered, oldest first */
	unsigned n;
};

static void send(struct wire *l)
{
	uint64_t begin = l->now > l->free_at ? l->now : l->free_at;
	l->free_at = begin + l->us_per_chunk;
	l->done[l->n++] = l->free_at + l->rtt_us;
}

/* Moves `chunks` of them and returns the microseconds. */
static uint64_t transfer(struct wire *l, struct p9_window *w, unsigned chunks)
{
	uint64_t begin = l->now;
	unsigned sent = 0, got = 0;
	while (got < chunks) {
		while (sent < chunks && l->n < w->now) {
			send(l);
			sent++;
		}
		l->now = l->done[0];
		memmove(l->done, l->done + 1, --l->n * sizeof(l->done[0]));
		got++;
		p9_window_took(w, CHUNK, l->now);
		assert_in_range(w->now, 1, w->max);
	}
	return l->now - begin;
}

static void finds_the_product(void **state)
{
	static const struct {
		uint64_t rtt, per_chunk;
		unsigned product; /* requests that fill the link */
	} links[] = {
		{ 0, 500, 1 },	    { 100, 500, 2 },	 { 4500, 500, 10 },
		{ 10000, 500, 21 }, { 20000, 1000, 21 }, { 50000, 10000, 6 },
	};
	for (size_t i = 0; i < P9T_COUNT(links); i++) {
		struct wire l = { .rtt_us = links[i].rtt, .us_per_chunk = links[i].per_chunk };
		struct p9_window w;
		p9_window_begin(&w, 64, 0);
		transfer(&l, &w, 500); /* until it knows */
		uint64_t us = transfer(&l, &w, 2000), least = 2000 * links[i].per_chunk;
		if (us * 85 > least * 100) {
			fail_msg("link %zu: window %u, %llu us for %llu", i, w.now, (unsigned long long)us,
				 (unsigned long long)least);
		}
		/* not much more than needed, but for the rounds that ask */
		if (w.best_at > 4 * links[i].product + 4) {
			fail_msg("link %zu: %u is more than it takes", i, w.best_at);
		}
	}
}

static void stays_within(void **state)
{
	struct wire l = { .rtt_us = 1000000, .us_per_chunk = 10 };
	struct p9_window w;
	p9_window_begin(&w, 16, 0);
	transfer(&l, &w, 3000);
	assert_int_equal(w.now, 16);
	p9_window_begin(&w, 0, 0);
	assert_int_equal(w.now, 1);
	p9_window_took(&w, 0, 0); /* no bytes, no time: nothing is divided by them */
	p9_window_took(&w, 0, 0);
	assert_int_equal(w.now, 1);
}

static void follows_the_link(void **state)
{
	struct wire l = { .rtt_us = 100, .us_per_chunk = 500 };
	struct p9_window w;
	p9_window_begin(&w, 64, 0);
	transfer(&l, &w, 1000);
	assert_in_range(w.best_at, 1, 8);
	l.rtt_us = 15000; /* the way has become long: 31 are needed */
	transfer(&l, &w, 6000);
	uint64_t us = transfer(&l, &w, 2000);
	assert_true(us * 70 < UINT64_C(2000) * 500 * 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_the_product),
		cmocka_unit_test(stays_within),
		cmocka_unit_test(follows_the_link),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
