/* SPDX-License-Identifier: BSD-2-Clause */
/* progress.c - how far a copy has come: files, bytes, rate, and the time left when the total is known.
 *
 * Written to stderr. On a terminal it is one line that is overwritten five times a second, and copies that take less
 * than that show nothing. Elsewhere it is a plain line every ten seconds; with --progress one each second, and one at
 * the end. Names are escaped: the server chose them. The rate is that of the last seconds, not of the whole copy, so
 * that the time left follows a link that has become slower.
 */
#include <string.h>
#include <unistd.h>
#include "p9/p9.h"

static double since(const struct timespec *t, const struct timespec *now)
{
	return (double)(now->tv_sec - t->tv_sec) + (double)(now->tv_nsec - t->tv_nsec) / 1e9;
}

/* Bytes per second, older times counting less and less. */
static double rate(struct p9_progress *p, const struct timespec *now)
{
	double t = since(&p->shown, now);
	if (t > 0.05) {
		double current = (double)(p->done - p->before) / t, weight = t < 2 ? t / 2 : 1;
		p->rate = p->rate > 0 ? p->rate + weight * (current - p->rate) : current;
	}
	return p->rate;
}

static void print_left(const struct p9_progress *p, double per_sec)
{
	uint64_t left = per_sec > 0 ? (uint64_t)((double)(p->total - p->done) / per_sec) : 0;
	fprintf(stderr, "  %u%%", (unsigned)(100 * (double)p->done / (double)p->total));
	if (per_sec > 0 && left >= 3600) {
		fprintf(stderr, "  %llu:%02u:%02u left", (unsigned long long)left / 3600, (unsigned)(left / 60 % 60),
			(unsigned)(left % 60));
	} else if (per_sec > 0) {
		fprintf(stderr, "  %u:%02u left", (unsigned)left / 60, (unsigned)left % 60);
	}
}

static void show(struct p9_progress *p, const struct timespec *now, bool end)
{
	char done[16], speed[16];
	double all = since(&p->begin, now);
	double per_sec = end ? (all > 0 ? (double)p->done / all : 0) : rate(p, now);
	p9_show_size(done, p->done);
	p9_show_size(speed, (uint64_t)per_sec);
	fputs(p->tty ? "\r" : "p9: ", stderr);
	p9_show_name(stderr, p->name, p->tty);
	fprintf(stderr, "  %s  %s/s", done, speed);
	if (p->files > 1) {
		fprintf(stderr, "  %llu files", (unsigned long long)p->files);
	}
	if (end) {
		fprintf(stderr, "  in %.1f s", all);
	} else if (p->total >= p->done && p->total > 0) {
		print_left(p, per_sec);
	}
	fputs(p->tty && !end ? "\033[K" : p->tty ? "\033[K\n" : "\n", stderr);
	fflush(stderr);
	p->shown = *now;
	p->before = p->done;
	p->any = true;
}

void p9_progress_begin(struct p9_progress *p, const char *name, uint64_t total, bool asked)
{
	*p = (struct p9_progress){ .tty = isatty(STDERR_FILENO), .asked = asked, .name = name, .total = total };
	p->every = p->tty ? 0.2 : asked ? 1 : 10;
	clock_gettime(CLOCK_MONOTONIC, &p->begin);
	p->shown = p->begin;
}

void p9_progress_add(struct p9_progress *p, uint64_t bytes)
{
	struct timespec now;
	p->done += bytes;
	if (!p->name) {
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (since(&p->shown, &now) >= p->every) {
		show(p, &now, false);
	}
}

void p9_progress_end(struct p9_progress *p)
{
	struct timespec now;
	if (p->name && (p->any || p->asked)) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		show(p, &now, true);
	}
	p->name = NULL;
}
