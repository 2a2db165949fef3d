/* SPDX-License-Identifier: BSD-2-Clause */
/* window.c - finds the number of requests in flight at which a link is full: its bandwidth-delay product.
 *
 * Time goes in rounds. A round lets twice as many answers come as there are requests in flight: the first half still
 * shows the number before, the second is measured. While a round is faster than the best by an eighth or more, the
 * number doubles. When it is not, the number goes back to a quarter above where the best was reached, and stays. Every
 * 16 rounds one with the double number asks whether the link has got longer or faster; in between the best follows
 * what is measured, so that a link that got slower does not hold the number to a rate it has no more.
 * Called by xfer.c. Must stay true: 1 <= now <= max; nothing is read from a clock here.
 */
#include "client/window.h"

#define BEGIN 4u
#define CALM_ROUNDS 16u

static void begin_round(struct p9_window *w)
{
	w->skip = w->left = w->now;
	w->bytes = 0;
}

static unsigned within(const struct p9_window *w, unsigned n)
{
	return n < 1 ? 1 : n > w->max ? w->max : n;
}

void p9_window_begin(struct p9_window *w, unsigned max, uint64_t now_us)
{
	*w = (struct p9_window){ .max = max < 1 ? 1 : max, .growing = true, .since_us = now_us };
	w->now = w->best_at = within(w, BEGIN);
	begin_round(w);
}

/* A round took so long and brought w->bytes: what next? */
static void judge(struct p9_window *w, uint64_t us)
{
	uint64_t rate = w->bytes * 1000 / (us ? us : 1); /* bytes in a millisecond */
	if (rate > w->best + w->best / 8 || w->best == 0) {
		w->best = rate;
		w->best_at = w->now;
		w->growing = w->now < w->max;
		w->now = within(w, w->now * 2);
		w->calm = 0;
		w->settled = false;
	} else if (w->growing) {
		w->growing = false;
		w->now = w->settled ? w->best_at : within(w, w->best_at + (w->best_at + 3) / 4);
		w->best_at = w->now;
		w->settled = true; /* so that one who only asks comes back to the same number */
		w->calm = 0;
	} else if (++w->calm >= CALM_ROUNDS && w->now < w->max) {
		w->growing = true;
		w->now = within(w, w->now * 2);
	} else {
		w->best = (7 * w->best + rate) / 8;
	}
}

void p9_window_took(struct p9_window *w, uint32_t bytes, uint64_t now_us)
{
	if (w->skip > 0) {
		w->skip--;
		w->since_us = now_us;
		return;
	}
	w->bytes += bytes;
	if (w->left > 1) {
		w->left--;
		return;
	}
	judge(w, now_us - w->since_us);
	w->since_us = now_us;
	begin_round(w);
}
