/* SPDX-License-Identifier: BSD-2-Clause */
/* loop.h - an event loop that can change threads in the middle of a call. See crew.h for why. */
#ifndef P9_BASE_LOOP_H
#define P9_BASE_LOOP_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include "base/buf.h"
#include "base/crew.h"
#include "base/spin.h"
#include "base/timer.h"

#define P9_LOOP_EVENTS 64
/* Returned by everything that runs on a loop when another thread has taken the loop: return at once, touch nothing. */
#define P9_LOST 1

struct p9_source {
	int fd;
	/* Called with epoll bits. Returns 0 or P9_LOST. */
	int (*ready)(struct p9_source *s, uint32_t events);
	/* May be NULL. Takes in what has come, without waiting and without acting on it. Returns whether ready() has to be
	 * called for it. */
	bool (*look)(struct p9_source *s);
};

/* What can have news without a descriptor's saying so: a ring in shared memory. A system call to sleep and one to be woken
 * cost more than many a request, so the loop looks at pollers for a while before it sleeps. */
struct p9_poller {
	struct p9_poller *next;
	bool listed;
	bool (*has)(const struct p9_poller *p); /* whether there is news; called very often */
	bool (*arm)(struct p9_poller *p);	/* before sleeping: news will come by a descriptor. Returns has() */
	int (*ready)(struct p9_poller *p);	/* there is news. Returns 0 or P9_LOST */
};

/* Whose turn it is: a counter and one of these states in the low bits. */
enum { P9_TURN_IDLE = 0, P9_TURN_RUN = 1, P9_TURN_CALL = 2, P9_TURN_STATE = 3 };

struct p9_loop {
	int ep, bell;
	struct p9_crew *crew;
	struct p9_thread *thread; /* who holds the loop */
	_Atomic int tid;	  /* the kernel's number for it */
	_Atomic uint64_t turn;
	uint64_t seq;
	uint64_t watch_seen; /* the watch's own, as is the next */
	unsigned watch_ticks;
	bool stolen;
	_Atomic bool stop;
	_Atomic(struct p9_job *) posted;
	struct epoll_event ev[P9_LOOP_EVENTS];
	int nev, evi;
	uint64_t now; /* ms, monotonic, as of the last wait */
	struct p9_timers timers;
	struct p9_bufpool pool;
	struct p9_source bell_source;
	struct p9_poller *pollers;
	struct p9_spin spin;
	struct p9_spin idle;	/* the same for descriptors */
	bool looks;		/* at descriptors before it sleeps */
	bool few;		/* the last messages came by twos and threes */
	unsigned batch;		/* messages since the last wait; counted by who takes them in */
	struct p9_source *last; /* whose news the last `streak` turns were */
	unsigned streak;
	uint64_t looked; /* ns: the last epoll_wait(2) while they have news all the time */
	/* Set by the owner: goes on after the loop was taken over in the middle of a call. Returns 0 or P9_LOST. */
	int (*on_stolen)(struct p9_loop *loop);
	/* Set by the owner: work that posted jobs and timers have left to do. Returns 0 or P9_LOST. */
	int (*after)(struct p9_loop *loop);
	void *owner;
};

/* look_us: for how long it looks at descriptors at most before it sleeps; 0: not at all. */
P9_MUST_USE int p9_loop_init(struct p9_loop *loop, struct p9_crew *crew, unsigned look_us);
void p9_loop_fini(struct p9_loop *loop);
/* Runs until stop is set or the loop is lost. Called by crew.c only. */
void p9_loop_run(struct p9_loop *loop, struct p9_thread *self);
/* Makes the loop end after what it does now. Any thread. */
void p9_loop_stop(struct p9_loop *loop);
/* Runs job->run(job, NULL) on the loop, soon. Any thread. */
void p9_loop_post(struct p9_loop *loop, struct p9_job *job);
/* Runs what was posted and not delivered, after the threads have ended. */
void p9_loop_drain(struct p9_loop *loop);
/* Descriptors. Loop thread. */
P9_MUST_USE int p9_loop_add(struct p9_loop *loop, struct p9_source *s, uint32_t events);
void p9_loop_mod(struct p9_loop *loop, struct p9_source *s, uint32_t events);
void p9_loop_del(struct p9_loop *loop, struct p9_source *s);

/* Looks at p until it has news, once, or the loop sleeps; then it is armed. May be called again meanwhile. Loop thread. */
void p9_loop_poll(struct p9_loop *loop, struct p9_poller *p);
void p9_loop_unpoll(struct p9_loop *loop, struct p9_poller *p);

/* Brackets a call that might block. Between them only the call itself may run: nothing of the loop is touched. */
static inline uint64_t p9_loop_enter(struct p9_loop *loop)
{
	uint64_t mine = ++loop->seq << 2 | P9_TURN_CALL;
	atomic_store_explicit(&loop->turn, mine, memory_order_release);
	return mine;
}
/* Returns true when the loop is still ours. Otherwise another thread has it, or will have it any moment. */
static inline bool p9_loop_leave(struct p9_loop *loop, uint64_t mine)
{
	uint64_t run = (mine & ~(uint64_t)P9_TURN_STATE) | P9_TURN_RUN;
	return atomic_compare_exchange_strong_explicit(&loop->turn, &mine, run, memory_order_acq_rel,
						       memory_order_relaxed);
}
/* For the watch: takes the loop away from a call that is the same as at the last tick. */
bool p9_loop_steal(struct p9_loop *loop);
/* For how many ticks of the watch the loop has been in one call. */
unsigned p9_loop_stuck(struct p9_loop *loop, bool *idle);

#endif
