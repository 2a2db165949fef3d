/* SPDX-License-Identifier: BSD-2-Clause */
/* crew.h - a crew of threads that take turns at loops and at jobs.
 *
 * Work runs in place, on the thread that holds the loop, because a thread hop costs more than a cached file operation.
 * What keeps one slow call from stopping everybody is the watch: a call that lasts longer than P9_WATCH_MS..2*P9_WATCH_MS
 * loses the loop, if its thread sleeps: one that merely waits for a processor keeps it. The stuck thread goes on with
 * its one call as an ordinary worker; another thread of the crew takes the loop over where it was left. So nothing of a
 * loop may live on a thread's stack across p9_loop_enter/leave.
 *
 * Jobs that are known to block are submitted to a lane (one per export), which bounds how many threads they occupy.
 */
#ifndef P9_BASE_CREW_H
#define P9_BASE_CREW_H
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include "p9/error.h"

#define P9_WATCH_MS 5	     /* each wake-up costs a lone request two tenths of a microsecond at 1 ms */
#define P9_WATCH_PATIENCE 20 /* ticks after which a call loses the loop even though its thread is running */
#define P9_WATCH_QUIET 64    /* ticks without work after which the watch sleeps until a loop wakes it */

struct p9_crew;
struct p9_loop;

struct p9_thread {
	struct p9_thread *next;
	struct p9_crew *crew;
	struct p9_loop *take; /* loop to run next; under the crew's lock */
	const void *ident;    /* whose identity the kernel knows this thread by; owned by the backend edge */
	pthread_t pt;
	int tid; /* the kernel's number for it; 0 until it runs */
	pthread_cond_t wake;
};

struct p9_lane;
struct p9_job {
	struct p9_job *next;
	struct p9_lane *lane;
	void (*run)(struct p9_job *job, struct p9_thread *self);
	bool queued; /* under the crew's lock */
};

struct p9_queue {
	struct p9_job *head, *tail;
};
/* Zeroed but for max. All under the crew's lock. */
struct p9_lane {
	unsigned max, running;
	struct p9_queue waiting;
};

struct p9_crew {
	pthread_mutex_t lock;
	struct p9_queue ready;
	void (*retire)(struct p9_thread *t); /* may be NULL: called by each thread when it ends */
	struct p9_thread *idle;
	_Atomic unsigned nthreads; /* changed under the lock; a statistic for those without */
	unsigned nidle, max, nloops;
	bool stopping;
	struct p9_loop **loops;
	pthread_t watch;
	bool watch_runs;
	_Atomic unsigned watch_asleep; /* futex word */
};

/* Makes a crew of at most `max` threads (they are started when needed). Returns 0 or -P9_Exxx. */
P9_MUST_USE int p9_crew_init(struct p9_crew *crew, unsigned max);
/* Gives each loop a thread and starts the watch. `loops` must stay valid. */
P9_MUST_USE int p9_crew_start(struct p9_crew *crew, struct p9_loop **loops, unsigned nloops);
/* Waits until all threads have come home. Jobs that hang are waited for at most `ms`; returns false if some remain. */
bool p9_crew_stop(struct p9_crew *crew, unsigned ms);
/* Runs job on some thread as soon as its lane lets it. Any thread. */
void p9_crew_submit(struct p9_crew *crew, struct p9_lane *lane, struct p9_job *job);
/* Takes a job back that has not begun. Returns false when it runs or has run. Any thread. */
bool p9_crew_cancel(struct p9_crew *crew, struct p9_job *job);
/* Interrupts the system call a thread is in, if it is one that can be (EINTR). Any thread. */
void p9_thread_kick(struct p9_thread *t);
/* For the loop: wakes the watch when it sleeps. */
void p9_crew_watch_wake(struct p9_crew *crew);

#endif
