/* SPDX-License-Identifier: BSD-2-Clause */
/* bench_stat.c - counting for `p9 bench`: a histogram of latencies and the CPU clocks.
 *
 * The histogram has 32 buckets to each power of two (as HDR histograms do) in a fixed array, so that recording costs
 * a few instructions and never allocates. CPU time is read from the process's own clock (clock_getcpuclockid), which
 * counts user and system time of all its threads in ns and, unlike /proc/PID/stat, not in ticks of 10 ms; a thread
 * that runs on another CPU at that moment is exact to the last scheduler tick (1-4 ms).
 */
#include <time.h>
#include "p9/bench.h"

static unsigned bucket_of(uint64_t ns)
{
	if (ns < BENCH_SUB) {
		return (unsigned)ns;
	}
	unsigned shift = 58 - (unsigned)__builtin_clzll(ns); /* the five bits below the highest one tell the step */
	return (shift + 1) * BENCH_SUB + (unsigned)((ns >> shift) & (BENCH_SUB - 1));
}

static uint64_t bucket_top(unsigned i)
{
	if (i < BENCH_SUB) {
		return i;
	}
	unsigned shift = i / BENCH_SUB - 1;
	return (((uint64_t)(i % BENCH_SUB + BENCH_SUB) + 1) << shift) - 1;
}

void bench_hist_add(struct bench_hist *h, uint64_t ns)
{
	h->n++;
	h->bucket[bucket_of(ns)]++;
	if (ns > h->max) {
		h->max = ns;
	}
}

uint64_t bench_hist_at(const struct bench_hist *h, double q)
{
	uint64_t want = (uint64_t)(q * (double)h->n + 0.5);
	uint64_t seen = 0;
	for (unsigned i = 0; i < sizeof(h->bucket) / sizeof(h->bucket[0]); i++) {
		seen += h->bucket[i];
		if (seen > 0 && seen >= want) {
			uint64_t top = bucket_top(i);
			return top < h->max ? top : h->max;
		}
	}
	return h->max;
}

uint64_t bench_now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int64_t bench_cpu(pid_t pid)
{
	clockid_t clock = CLOCK_PROCESS_CPUTIME_ID;
	struct timespec ts;
	if ((pid != 0 && clock_getcpuclockid(pid, &clock) != 0) || clock_gettime(clock, &ts) < 0) {
		return -1;
	}
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
