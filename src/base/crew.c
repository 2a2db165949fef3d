/* SPDX-License-Identifier: BSD-2-Clause */
/* crew.c - the threads: who runs a loop, who runs a job, who waits; and the watch that hands loops on.
 *
 * One mutex guards it all; it is taken per job and per hand-over, never per request that runs in place. Threads are
 * made when needed and stay. Lanes bound how many threads one export's jobs may hold, so a hung disk leaves the rest of
 * the crew to others; the watch may go SPARE threads above the limit, for a loop must always find somebody.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "base/block.h"
#include "base/crew.h"
#include "base/hosterr.h"
#include "base/loop.h"

#define SPARE 64u
#define STACK (256u * 1024)
#define KICK_SIGNAL SIGURG

static void queue_push(struct p9_queue *q, struct p9_job *job)
{
	job->next = NULL;
	if (q->tail) {
		q->tail->next = job;
	} else {
		q->head = job;
	}
	q->tail = job;
}

static struct p9_job *queue_pop(struct p9_queue *q)
{
	struct p9_job *job = q->head;
	if (job) {
		q->head = job->next;
		if (!q->head) {
			q->tail = NULL;
		}
	}
	return job;
}

static bool queue_remove(struct p9_queue *q, struct p9_job *job)
{
	struct p9_job *prev = NULL;
	for (struct p9_job *j = q->head; j; prev = j, j = j->next) {
		if (j != job) {
			continue;
		}
		*(prev ? &prev->next : &q->head) = j->next;
		if (q->tail == j) {
			q->tail = prev;
		}
		return true;
	}
	return false;
}

static void on_kick(int sig)
{
	(void)sig;
}

int p9_crew_init(struct p9_crew *crew, unsigned max)
{
	struct sigaction sa = { .sa_handler = on_kick };
	memset(crew, 0, sizeof(*crew));
	crew->max = max;
	sigemptyset(&sa.sa_mask);
	if (sigaction(KICK_SIGNAL, &sa, NULL) < 0) {
		return p9_err();
	}
	return pthread_mutex_init(&crew->lock, NULL) ? -P9_ENOMEM : 0;
}

static void run_job(struct p9_crew *crew, struct p9_thread *self)
{
	struct p9_job *job = queue_pop(&crew->ready);
	struct p9_lane *lane = job->lane;
	job->queued = false;
	pthread_mutex_unlock(&crew->lock);
	job->run(job, self);
	pthread_mutex_lock(&crew->lock);
	lane->running--;
	struct p9_job *next = lane->running < lane->max ? queue_pop(&lane->waiting) : NULL;
	if (next) {
		lane->running++;
		queue_push(&crew->ready, next);
	}
}

static void *thread_main(void *arg)
{
	struct p9_thread *self = arg;
	struct p9_crew *crew = self->crew;
	self->tid = (int)syscall(SYS_gettid);
	pthread_mutex_lock(&crew->lock);
	while (!crew->stopping || self->take || crew->ready.head) {
		if (self->take) {
			struct p9_loop *loop = self->take;
			self->take = NULL;
			pthread_mutex_unlock(&crew->lock);
			p9_loop_run(loop, self);
			pthread_mutex_lock(&crew->lock);
		} else if (crew->ready.head) {
			run_job(crew, self);
		} else {
			self->next = crew->idle;
			crew->idle = self;
			crew->nidle++;
			pthread_cond_wait(&self->wake, &crew->lock);
			/* whoever woke us took us off the idle list, or we woke for nothing and are on it still */
			for (struct p9_thread **p = &crew->idle; *p; p = &(*p)->next) {
				if (*p == self) {
					*p = self->next;
					crew->nidle--;
					break;
				}
			}
		}
	}
	pthread_mutex_unlock(&crew->lock);
	if (crew->retire) {
		crew->retire(self);
	}
	p9_block_forget();
	pthread_cond_destroy(&self->wake);
	pthread_mutex_lock(&crew->lock);
	crew->nthreads--;
	pthread_mutex_unlock(&crew->lock);
	free(self);
	return NULL;
}

/* Starts a thread; it looks for `take` first. Under the lock. */
static bool spawn(struct p9_crew *crew, struct p9_loop *take, unsigned limit)
{
	if (crew->nthreads >= limit) {
		return false;
	}
	struct p9_thread *t = calloc(1, sizeof(*t));
	pthread_attr_t attr;
	if (!t || pthread_attr_init(&attr) != 0) {
		free(t);
		return false;
	}
	t->crew = crew;
	t->take = take;
	pthread_cond_init(&t->wake, NULL);
	pthread_attr_setstacksize(&attr, STACK);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	int rc = pthread_create(&t->pt, &attr, thread_main, t);
	pthread_attr_destroy(&attr);
	if (rc != 0) {
		pthread_cond_destroy(&t->wake);
		free(t);
		return false;
	}
	crew->nthreads++;
	return true;
}

static struct p9_thread *pop_idle(struct p9_crew *crew)
{
	struct p9_thread *t = crew->idle;
	if (t) {
		crew->idle = t->next;
		crew->nidle--;
	}
	return t;
}

void p9_crew_submit(struct p9_crew *crew, struct p9_lane *lane, struct p9_job *job)
{
	pthread_mutex_lock(&crew->lock);
	job->lane = lane;
	job->queued = true;
	if (lane->running >= lane->max) {
		queue_push(&lane->waiting, job);
	} else {
		lane->running++;
		queue_push(&crew->ready, job);
		struct p9_thread *t = pop_idle(crew);
		if (t) {
			pthread_cond_signal(&t->wake);
		} else {
			spawn(crew, NULL, crew->max + crew->nloops);
		}
	}
	pthread_mutex_unlock(&crew->lock);
}

bool p9_crew_cancel(struct p9_crew *crew, struct p9_job *job)
{
	pthread_mutex_lock(&crew->lock);
	bool was = job->queued;
	if (was && !queue_remove(&job->lane->waiting, job)) {
		queue_remove(&crew->ready, job);
		job->lane->running--;
		struct p9_job *next = queue_pop(&job->lane->waiting);
		if (next) {
			job->lane->running++;
			queue_push(&crew->ready, next);
		}
	}
	job->queued = false;
	pthread_mutex_unlock(&crew->lock);
	return was;
}

void p9_thread_kick(struct p9_thread *t)
{
	pthread_kill(t->pt, KICK_SIGNAL);
}

static void futex(_Atomic unsigned *word, int op, unsigned value, const struct timespec *timeout)
{
	syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

void p9_crew_watch_wake(struct p9_crew *crew)
{
	atomic_store(&crew->watch_asleep, 0);
	futex(&crew->watch_asleep, FUTEX_WAKE_PRIVATE, 1, NULL);
}

/* Whether a thread is asleep in the kernel, from its state in /proc: on a busy machine a call may last long only because
 * its thread does not get a processor, and then another thread would not either. Unknown counts as asleep. */
static bool asleep(int tid)
{
	char path[64], text[128];
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return true;
	}
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n < 0 ? 0 : n] = 0;
	const char *state = strrchr(text, ')');
	return !state || state[1] != ' ' || state[2] != 'R';
}

/* Takes the loop from the stuck call if somebody is there to run it. */
static void hand_over(struct p9_crew *crew, struct p9_loop *loop)
{
	pthread_mutex_lock(&crew->lock);
	if (!crew->idle && !crew->stopping && p9_loop_steal(loop)) {
		if (!spawn(crew, loop, crew->max + SPARE)) {
			/* nobody: wait until somebody comes home; `take` is looked at when a thread gets idle */
			while (!crew->idle && !crew->stopping) {
				pthread_mutex_unlock(&crew->lock);
				nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
				pthread_mutex_lock(&crew->lock);
			}
			struct p9_thread *t = pop_idle(crew);
			if (t) {
				t->take = loop;
				pthread_cond_signal(&t->wake);
			}
		}
	} else if (crew->idle && p9_loop_steal(loop)) {
		struct p9_thread *t = pop_idle(crew);
		t->take = loop;
		pthread_cond_signal(&t->wake);
	}
	pthread_mutex_unlock(&crew->lock);
}

static bool all_idle(struct p9_crew *crew)
{
	for (unsigned i = 0; i < crew->nloops; i++) {
		if ((atomic_load(&crew->loops[i]->turn) & P9_TURN_STATE) != P9_TURN_IDLE) {
			return false;
		}
	}
	return true;
}

static void *watch_main(void *arg)
{
	struct p9_crew *crew = arg;
	unsigned quiet = 0;
	const struct timespec tick = { .tv_nsec = P9_WATCH_MS * 1000000 };
	while (!__atomic_load_n(&crew->stopping, __ATOMIC_RELAXED)) {
		bool busy = false;
		for (unsigned i = 0; i < crew->nloops; i++) {
			bool idle;
			unsigned ticks = p9_loop_stuck(crew->loops[i], &idle);
			if (ticks > P9_WATCH_PATIENCE || (ticks > 0 && asleep(atomic_load(&crew->loops[i]->tid)))) {
				hand_over(crew, crew->loops[i]);
			}
			busy |= !idle;
		}
		quiet = busy ? 0 : quiet + 1;
		if (quiet > P9_WATCH_QUIET) {
			atomic_store(&crew->watch_asleep, 1);
			/* looked at after the word is set: p9_crew_stop sets its flag before it clears the word */
			if (all_idle(crew) && !__atomic_load_n(&crew->stopping, __ATOMIC_SEQ_CST)) {
				futex(&crew->watch_asleep, FUTEX_WAIT_PRIVATE, 1, NULL);
			}
			atomic_store(&crew->watch_asleep, 0);
			quiet = 0;
		} else {
			nanosleep(&tick, NULL);
		}
	}
	return NULL;
}

int p9_crew_start(struct p9_crew *crew, struct p9_loop **loops, unsigned nloops)
{
	bool fine = true;
	crew->loops = loops;
	crew->nloops = nloops;
	pthread_mutex_lock(&crew->lock);
	for (unsigned i = 0; i < nloops && fine; i++) {
		fine = spawn(crew, loops[i], crew->max + SPARE);
	}
	/* one that can always run jobs, should there be no memory for another later */
	fine = fine && spawn(crew, NULL, crew->max + SPARE);
	pthread_mutex_unlock(&crew->lock);
	if (!fine || pthread_create(&crew->watch, NULL, watch_main, crew) != 0) {
		return -P9_EAGAIN;
	}
	crew->watch_runs = true;
	return 0;
}

bool p9_crew_stop(struct p9_crew *crew, unsigned ms)
{
	for (unsigned i = 0; i < crew->nloops; i++) {
		p9_loop_stop(crew->loops[i]);
	}
	pthread_mutex_lock(&crew->lock);
	__atomic_store_n(&crew->stopping, true, __ATOMIC_SEQ_CST);
	for (uint64_t until = p9_spin_clock() + ms * 1000000ull;;) {
		for (struct p9_thread *t = crew->idle; t; t = t->next) {
			pthread_cond_signal(&t->wake);
		}
		if (crew->nthreads == 0 || p9_spin_clock() >= until) {
			break;
		}
		pthread_mutex_unlock(&crew->lock);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		pthread_mutex_lock(&crew->lock);
	}
	bool home = crew->nthreads == 0;
	pthread_mutex_unlock(&crew->lock);
	if (crew->watch_runs) {
		p9_crew_watch_wake(crew);
		pthread_join(crew->watch, NULL);
		crew->watch_runs = false;
	}
	return home;
}
