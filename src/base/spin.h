/* SPDX-License-Identifier: BSD-2-Clause */
/* spin.h - how long to look at shared memory, or at descriptors, before sleeping.
 *
 * News from another process that is at work takes a few microseconds; to sleep and be woken takes more, some 20 on a virtual
 * machine whose processors halt. So whoever waits looks for about as long as news usually takes, and no less than twice
 * that: with less, two ends that sleep would never find out that neither needs to. When it looked in vain (the other end is slow, or waits for the very
 * processor that we spin on), it sleeps at once the next time, then the next two, four ... 256 times. So polling in vain
 * costs next to nothing, and an idle end nothing.
 */
#ifndef P9_BASE_SPIN_H
#define P9_BASE_SPIN_H
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define P9_SPIN_LOOKS 64 /* between two looks at the clock */
enum { P9_SPIN_LEAST = 50000, P9_SPIN_MOST = 100000 /* ns */, P9_SPIN_PAUSE = 256 };
/* For those whose other end is a guest: it takes an interrupt and does its own work before it has news, and to be woken
 * costs its requests more than anything else does. */
enum { P9_SPIN_MOST_RINGS = 400000 };
/* For those whose other end is a device: it copies a mebibyte meanwhile. */
enum { P9_SPIN_MOST_DEVICE = 150000 };

struct p9_spin {
	uint32_t most;	/* ns; 0: P9_SPIN_MOST */
	uint32_t usual; /* ns that news takes when it comes soon */
	uint32_t pause, skip;
	uint64_t since; /* when waiting began; 0: it did not */
};

static inline uint64_t p9_spin_clock(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static inline void p9_spin_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Whether somebody else can be at work while this thread looks. */
static inline bool p9_spin_worth(void)
{
	cpu_set_t set;
	return sched_getaffinity(0, sizeof(set), &set) < 0 || CPU_COUNT(&set) > 1;
}

/* Between two looks that are system calls. Whoever is waited for may be on this very processor: kernels wake a process where
 * its waker runs. Without this, looking would keep it from answering; with it, that costs what going to sleep does, and
 * with two processors at work the kernel moves one of the two away. */
static inline void p9_spin_yield(void)
{
	sched_yield();
}

static inline uint32_t p9_spin_most(const struct p9_spin *s)
{
	return s->most ? s->most : P9_SPIN_MOST;
}

/* Waiting begins. Returns until when to look, 0: not at all. */
static inline uint64_t p9_spin_begin(struct p9_spin *s)
{
	s->since = p9_spin_clock();
	if (s->skip > 0) {
		s->skip--;
		return 0;
	}
	uint32_t ns = s->usual * 3 < P9_SPIN_LEAST ? P9_SPIN_LEAST : s->usual * 3;
	uint32_t most = p9_spin_most(s);
	return s->since + (ns < most ? ns : most);
}

/* It was in vain. */
static inline void p9_spin_missed(struct p9_spin *s)
{
	s->pause = s->pause == 0 ? 1 : s->pause < P9_SPIN_PAUSE ? s->pause * 2 : P9_SPIN_PAUSE;
	s->skip = s->pause;
}

/* News has come, `seen` while looking, or after sleep. */
static inline void p9_spin_end(struct p9_spin *s, bool seen)
{
	uint64_t took = p9_spin_clock() - s->since;
	if (took < p9_spin_most(s)) {
		s->usual = (uint32_t)((s->usual * 7 + took) / 8);
	}
	s->pause = seen ? 0 : s->pause;
	s->since = 0;
}

/* After sleep, when looking had not been enough. */
static inline void p9_spin_slept(struct p9_spin *s)
{
	if (s->since) {
		p9_spin_end(s, false);
	}
}

/* Looks until there() says yes, or for as long as looking pays, by system calls. Returns what it said last; after false: sleep,
 * then p9_spin_slept(). */
static inline bool p9_spin_look(struct p9_spin *s, bool (*there)(void *arg), void *arg)
{
	for (uint64_t until = p9_spin_begin(s); until;) {
		if (there(arg)) {
			p9_spin_end(s, true);
			return true;
		}
		if (p9_spin_clock() >= until) {
			p9_spin_missed(s);
			break;
		}
		p9_spin_yield();
	}
	return false;
}

#endif
