/* SPDX-License-Identifier: BSD-2-Clause */
/* progress.c - how far a copy has come, on a terminal, a few times a second; nothing anywhere else.
 *
 * Written to stderr on one line that is overwritten. Copies that take less than a fifth of a second show nothing. Time
 * left is only said when the total is known, which it is for single files. Names are escaped: the server chose them.
 */
#include <string.h>
#include <unistd.h>
#include "p9/p9.h"

static double since(const struct timespec *t, const struct timespec *now)
{
	return (double)(now->tv_sec - t->tv_sec) + (double)(now->tv_nsec - t->tv_nsec) / 1e9;
}

static void show(struct p9_progress *p, const struct timespec *now)
{
	char done[16], rate[16];
	double t = since(&p->begin, now);
	double per_sec = t > 0.001 ? (double)p->done / t : 0;
	p9_show_size(done, p->done);
	p9_show_size(rate, (uint64_t)per_sec);
	fputc('\r', stderr);
	p9_show_name(stderr, p->name, true);
	fprintf(stderr, "  %s  %s/s", done, rate);
	if (p->files > 1) {
		fprintf(stderr, "  %llu files", (unsigned long long)p->files);
	}
	if (p->total >= p->done && p->total > 0) {
		unsigned left = per_sec > 0 ? (unsigned)((double)(p->total - p->done) / per_sec) : 0;
		fprintf(stderr, "  %u%%  %u:%02u left", (unsigned)(100 * (double)p->done / (double)p->total), left / 60,
			left % 60);
	}
	fputs("\033[K", stderr);
	fflush(stderr);
	p->shown = *now;
}

void p9_progress_begin(struct p9_progress *p, const char *name, uint64_t total)
{
	*p = (struct p9_progress){ .on = isatty(STDERR_FILENO), .name = name, .total = total };
	clock_gettime(CLOCK_MONOTONIC, &p->begin);
	p->shown = p->begin;
}

void p9_progress_add(struct p9_progress *p, uint64_t bytes)
{
	struct timespec now;
	p->done += bytes;
	if (!p->on) {
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (since(&p->shown, &now) >= 0.2) {
		show(p, &now);
	}
}

void p9_progress_end(struct p9_progress *p)
{
	struct timespec now;
	if (p->on && p->shown.tv_sec + p->shown.tv_nsec != p->begin.tv_sec + p->begin.tv_nsec) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		show(p, &now);
		fputc('\n', stderr);
	}
}
