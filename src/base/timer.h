/* SPDX-License-Identifier: BSD-2-Clause */
/* timer.h - deadlines of one loop, a binary heap. Loop thread only; times are ms of the monotonic clock. */
#ifndef P9_BASE_TIMER_H
#define P9_BASE_TIMER_H
#include <stdbool.h>
#include <stdint.h>
#include "p9/error.h"
#include "p9/messages.h"

struct p9_timer {
	uint64_t at;
	unsigned slot; /* position in the heap + 1; 0 when not armed */
	void (*fire)(struct p9_timer *t);
};
struct p9_timers {
	struct p9_timer **heap;
	unsigned n, cap;
};

/* Arms or moves a timer. Returns 0 or -P9_ENOMEM (only when it was not armed). */
int p9_timer_set(struct p9_timers *ts, struct p9_timer *t, uint64_t at);
void p9_timer_cancel(struct p9_timers *ts, struct p9_timer *t);
/* Fires all that are due at `now`. */
void p9_timers_run(struct p9_timers *ts, uint64_t now);
/* ms until the next is due, or -1 for none. */
int p9_timers_left(const struct p9_timers *ts, uint64_t now);
void p9_timers_fini(struct p9_timers *ts);

#endif
