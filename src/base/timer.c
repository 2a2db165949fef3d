/* SPDX-License-Identifier: BSD-2-Clause */
/* timer.c - see timer.h. */
#include <stdlib.h>
#include "base/timer.h"

static void place(struct p9_timers *ts, unsigned i, struct p9_timer *t)
{
	ts->heap[i] = t;
	t->slot = i + 1;
}

static void sift_up(struct p9_timers *ts, unsigned i, struct p9_timer *t)
{
	while (i > 0 && ts->heap[(i - 1) / 2]->at > t->at) {
		place(ts, i, ts->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	place(ts, i, t);
}

static void sift_down(struct p9_timers *ts, unsigned i, struct p9_timer *t)
{
	for (;;) {
		unsigned c = 2 * i + 1;
		if (c >= ts->n) {
			break;
		}
		if (c + 1 < ts->n && ts->heap[c + 1]->at < ts->heap[c]->at) {
			c++;
		}
		if (ts->heap[c]->at >= t->at) {
			break;
		}
		place(ts, i, ts->heap[c]);
		i = c;
	}
	place(ts, i, t);
}

int p9_timer_set(struct p9_timers *ts, struct p9_timer *t, uint64_t at)
{
	if (t->slot) {
		p9_timer_cancel(ts, t);
	} else if (ts->n == ts->cap) {
		unsigned cap = ts->cap ? 2 * ts->cap : 16;
		struct p9_timer **heap = realloc(ts->heap, cap * sizeof(struct p9_timer *));
		if (!heap) {
			return -P9_ENOMEM;
		}
		ts->heap = heap;
		ts->cap = cap;
	}
	t->at = at;
	sift_up(ts, ts->n++, t);
	return 0;
}

void p9_timer_cancel(struct p9_timers *ts, struct p9_timer *t)
{
	if (!t->slot) {
		return;
	}
	unsigned i = t->slot - 1;
	t->slot = 0;
	struct p9_timer *last = ts->heap[--ts->n];
	if (last == t) {
		return;
	}
	if (i > 0 && ts->heap[(i - 1) / 2]->at > last->at) {
		sift_up(ts, i, last);
	} else {
		sift_down(ts, i, last);
	}
}

void p9_timers_run(struct p9_timers *ts, uint64_t now)
{
	while (ts->n > 0 && ts->heap[0]->at <= now) {
		struct p9_timer *t = ts->heap[0];
		p9_timer_cancel(ts, t);
		t->fire(t);
	}
}

int p9_timers_left(const struct p9_timers *ts, uint64_t now)
{
	if (ts->n == 0) {
		return -1;
	}
	if (ts->heap[0]->at <= now) {
		return 0;
	}
	uint64_t wait = ts->heap[0]->at - now;
	return wait > 60000 ? 60000 : (int)wait;
}

void p9_timers_fini(struct p9_timers *ts)
{
	free(ts->heap);
	ts->heap = NULL;
	ts->n = ts->cap = 0;
}
