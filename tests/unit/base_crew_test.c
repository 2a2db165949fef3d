/* SPDX-License-Identifier: BSD-2-Clause */
/* base_crew_test.c - loops and threads: work gets done, and the end is never missed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/crew.h"
#include "base/loop.h"

#define STARTS 400
#define LOOPS 2

static _Atomic unsigned ran;

static void count(struct p9_job *job, struct p9_thread *self)
{
	(void)job;
	(void)self;
	atomic_fetch_add(&ran, 1);
}

static int nothing(struct p9_loop *loop)
{
	(void)loop;
	return 0;
}

static void start(struct p9_crew *crew, struct p9_loop *loops)
{
	struct p9_loop *list[LOOPS];
	assert_int_equal(p9_crew_init(crew, 4), 0);
	for (int i = 0; i < LOOPS; i++) {
		memset(&loops[i], 0, sizeof(loops[i]));
		assert_int_equal(p9_loop_init(&loops[i], crew, 50), 0);
		loops[i].on_stolen = nothing;
		list[i] = &loops[i];
	}
	static struct p9_loop *keep[LOOPS];
	memcpy(keep, list, sizeof(list));
	assert_int_equal(p9_crew_start(crew, keep, LOOPS), 0);
}

static void stop(struct p9_crew *crew, struct p9_loop *loops)
{
	assert_true(p9_crew_stop(crew, 20000));
	for (int i = 0; i < LOOPS; i++) {
		p9_loop_drain(&loops[i]);
		p9_loop_fini(&loops[i]);
	}
	pthread_mutex_destroy(&crew->lock);
}

/* A loop that was rung for a job must not take that for the ring of its end. */
static void stop_right_after_a_job(void **state)
{
	static struct p9_loop loops[LOOPS];
	static struct p9_crew crew;
	(void)state;
	atomic_store(&ran, 0);
	for (int i = 0; i < STARTS; i++) {
		struct p9_job job[LOOPS] = { { .run = count }, { .run = count } };
		start(&crew, loops);
		if (i % 2) {
			usleep(100 * (unsigned)(i % 7));
		}
		for (int k = 0; k < LOOPS; k++) {
			p9_loop_post(&loops[k], &job[k]);
		}
		if (i % 3 == 0) {
			usleep(10 * (unsigned)(i % 11));
		}
		stop(&crew, loops);
	}
	assert_int_equal(atomic_load(&ran), STARTS * LOOPS);
}

/* Jobs of a lane: all run, at most so many at once. */
static _Atomic unsigned now, most;
static void slow(struct p9_job *job, struct p9_thread *self)
{
	unsigned n = atomic_fetch_add(&now, 1) + 1, m = atomic_load(&most);
	while (n > m && !atomic_compare_exchange_weak(&most, &m, n)) {
	}
	usleep(200);
	atomic_fetch_sub(&now, 1);
	count(job, self);
}

static void lanes(void **state)
{
	static struct p9_loop loops[LOOPS];
	static struct p9_crew crew;
	static struct p9_job jobs[200];
	struct p9_lane lane = { .max = 3 };
	(void)state;
	atomic_store(&ran, 0);
	start(&crew, loops);
	unsigned cancelled = 0;
	for (unsigned i = 0; i < 200; i++) {
		jobs[i] = (struct p9_job){ .run = slow };
		p9_crew_submit(&crew, &lane, &jobs[i]);
		cancelled += i % 5 == 4 && p9_crew_cancel(&crew, &jobs[i]);
	}
	while (atomic_load(&ran) + cancelled < 200) {
		usleep(1000);
	}
	stop(&crew, loops);
	assert_in_range(atomic_load(&most), 2, 3);
	assert_int_equal(atomic_load(&ran) + cancelled, 200);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(stop_right_after_a_job), cmocka_unit_test(lanes) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
