/* SPDX-License-Identifier: BSD-2-Clause */
/* loop.c - the event loop: descriptors, posted jobs, timers, and the turn that the watch may take away.
 *
 * State lives in struct p9_loop, never on the stack of the thread that runs it: events not yet handled stay in
 * loop->ev, so that a thread which takes over goes on at that place.
 *
 * Pollers and descriptors are looked at before the loop sleeps (spin.h). So a busy ring costs no system call, a busy socket
 * no sleep, and an idle one no CPU.
 */
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "base/loop.h"
#include "base/sys.h"

#define EPOLL_EVERY 50000u /* ns that descriptors may wait while pollers are busy */
#define NEWS 2
#define FEW 4	 /* messages of a turn; of more, sleeping and being woken costs each next to nothing */
#define STREAK 8 /* turns that were all for one descriptor: it is asked itself, without epoll */
#define OTHERS 4 /* looks at it for each at the others */

static uint64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static int bell_ready(struct p9_source *s, uint32_t events)
{
	uint64_t n;
	(void)events;
	if (read(s->fd, &n, sizeof(n)) < 0) {
		return 0; /* rung and taken already */
	}
	return 0;
}

int p9_loop_init(struct p9_loop *loop, struct p9_crew *crew, unsigned look_us)
{
	loop->crew = crew;
	loop->now = now_ms();
	loop->looks = look_us > 0 && p9_spin_worth();
	loop->idle.most = look_us * 1000;
	loop->spin.most = P9_SPIN_MOST_RINGS;
	loop->ep = epoll_create1(EPOLL_CLOEXEC);
	loop->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->ep < 0 || loop->bell < 0) {
		return p9_err();
	}
	loop->bell_source.fd = loop->bell;
	loop->bell_source.ready = bell_ready;
	return p9_loop_add(loop, &loop->bell_source, EPOLLIN);
}

void p9_loop_fini(struct p9_loop *loop)
{
	p9_timers_fini(&loop->timers);
	p9_bufpool_fini(&loop->pool);
	if (loop->ep > 0) {
		close(loop->ep);
	}
	if (loop->bell > 0) {
		close(loop->bell);
	}
	loop->ep = loop->bell = -1;
}

int p9_loop_add(struct p9_loop *loop, struct p9_source *s, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = s };
	return epoll_ctl(loop->ep, EPOLL_CTL_ADD, s->fd, &ev) < 0 ? p9_err() : 0;
}

void p9_loop_mod(struct p9_loop *loop, struct p9_source *s, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = s };
	epoll_ctl(loop->ep, EPOLL_CTL_MOD, s->fd, &ev);
}

void p9_loop_del(struct p9_loop *loop, struct p9_source *s)
{
	epoll_ctl(loop->ep, EPOLL_CTL_DEL, s->fd, NULL);
	for (int i = loop->evi; i < loop->nev; i++) {
		if (loop->ev[i].data.ptr == s) {
			loop->ev[i].data.ptr = NULL;
		}
	}
	if (loop->last == s) {
		loop->last = NULL;
		loop->streak = 0;
	}
}

static void ring(struct p9_loop *loop)
{
	uint64_t one = 1;
	if (write(loop->bell, &one, sizeof(one)) < 0) {
		return; /* full: rung already */
	}
}

void p9_loop_stop(struct p9_loop *loop)
{
	atomic_store(&loop->stop, true);
	ring(loop);
}

void p9_loop_post(struct p9_loop *loop, struct p9_job *job)
{
	struct p9_job *head = atomic_load_explicit(&loop->posted, memory_order_relaxed);
	do {
		job->next = head;
	} while (!atomic_compare_exchange_weak_explicit(&loop->posted, &head, job, memory_order_acq_rel,
							memory_order_relaxed));
	if (!head) {
		ring(loop);
	}
}

/* Delivers posted jobs in the order they were posted. */
static void deliver(struct p9_loop *loop)
{
	struct p9_job *list = atomic_exchange_explicit(&loop->posted, NULL, memory_order_acquire);
	struct p9_job *fifo = NULL;
	while (list) {
		struct p9_job *next = list->next;
		list->next = fifo;
		fifo = list;
		list = next;
	}
	while (fifo) {
		struct p9_job *job = fifo;
		fifo = job->next;
		job->run(job, NULL);
	}
}

void p9_loop_drain(struct p9_loop *loop)
{
	deliver(loop);
}

static int wait(struct p9_loop *loop, int timeout)
{
	atomic_store_explicit(&loop->turn, ++loop->seq << 2 | P9_TURN_IDLE, memory_order_release);
	int n = p9_sys_epoll_wait(loop->ep, loop->ev, P9_LOOP_EVENTS, timeout);
	atomic_store_explicit(&loop->turn, ++loop->seq << 2 | P9_TURN_RUN, memory_order_seq_cst);
	if (atomic_load_explicit(&loop->crew->watch_asleep, memory_order_seq_cst)) {
		p9_crew_watch_wake(loop->crew);
	}
	return n < 0 ? 0 : n;
}

static int handle_events(struct p9_loop *loop)
{
	while (loop->evi < loop->nev) {
		struct epoll_event *e = &loop->ev[loop->evi++];
		struct p9_source *s = e->data.ptr;
		loop->streak = s && s == loop->last ? loop->streak + 1 : 0;
		loop->last = s;
		if (s && s->ready(s, e->events) == P9_LOST) {
			return P9_LOST;
		}
	}
	return 0;
}

/* ---- pollers ---- */
void p9_loop_poll(struct p9_loop *loop, struct p9_poller *p)
{
	if (!p->listed) {
		p->listed = true;
		p->next = loop->pollers;
		loop->pollers = p;
	}
}

void p9_loop_unpoll(struct p9_loop *loop, struct p9_poller *p)
{
	for (struct p9_poller **pp = &loop->pollers; p->listed && *pp; pp = &(*pp)->next) {
		if (*pp == p) {
			*pp = p->next;
			break;
		}
	}
	p->listed = false;
}

static struct p9_poller *with_news(const struct p9_loop *loop)
{
	struct p9_poller *p = loop->pollers;
	while (p && !p->has(p)) {
		p = p->next;
	}
	return p;
}

static bool descriptors_have(struct p9_loop *loop, uint64_t now)
{
	struct pollfd p = { .fd = loop->ep, .events = POLLIN };
	loop->looked = now;
	return poll(&p, 1, 0) > 0;
}

/* Looks until one has news, other work has come, or time is over, which was spent in vain then. */
static struct p9_poller *spin(struct p9_loop *loop, uint64_t until, bool *vain)
{
	uint64_t now;
	do {
		for (int i = 0; i < P9_SPIN_LOOKS; i++) {
			struct p9_poller *p = with_news(loop);
			if (p) {
				return p;
			}
			p9_spin_relax();
		}
		p9_spin_yield();
		now = p9_spin_clock();
		if (atomic_load_explicit(&loop->posted, memory_order_relaxed) ||
		    (now - loop->looked >= EPOLL_EVERY && descriptors_have(loop, now))) {
			return NULL;
		}
	} while (now < until);
	*vain = true;
	return NULL;
}

/* Returns NEWS when some was dealt with, 0 when all are armed, P9_LOST. */
static int look_at_pollers(struct p9_loop *loop)
{
	uint64_t until = p9_spin_begin(&loop->spin);
	bool vain = false;
	struct p9_poller *p = until ? spin(loop, until, &vain) : NULL;
	bool seen = p != NULL;
	if (vain) {
		p9_spin_missed(&loop->spin);
	}
	while (!p && loop->pollers) {
		struct p9_poller *first = loop->pollers;
		p9_loop_unpoll(loop, first);
		p = first->arm(first) ? first : NULL;
	}
	if (!p) {
		return 0; /* waiting ends in p9_loop_run() */
	}
	p9_spin_end(&loop->spin, seen);
	p9_loop_unpoll(loop, p);
	return p->ready(p) == P9_LOST ? P9_LOST : NEWS;
}

/* Whether the descriptors can wait a little longer, because there is news from pollers all the time. */
static bool descriptors_wait(struct p9_loop *loop)
{
	uint64_t now = p9_spin_clock();
	if (now - loop->looked < EPOLL_EVERY) {
		return true;
	}
	loop->looked = now;
	return false;
}

/* Whether to ask the descriptor itself that all news came from lately, rather than epoll about all of them. */
static bool asks_last(const struct p9_loop *loop, unsigned looks, uint64_t now)
{
	return loop->streak >= STREAK && loop->last->look && looks % OTHERS < OTHERS - 1 &&
	       now - loop->looked < EPOLL_EVERY;
}

/* Looks at the descriptors for a while before sleeping: a peer that waits for each answer has its next request ready sooner
 * than a processor wakes from its sleep. Returns NEWS when some was dealt with, 0 when events may be there, P9_LOST. */
static int look_at_descriptors(struct p9_loop *loop)
{
	uint64_t until = p9_spin_begin(&loop->idle), now = loop->idle.since;
	for (unsigned looks = 0; until; looks++) {
		struct p9_source *last = loop->last; /* its look may find that it has ended */
		if (!asks_last(loop, looks, now)) {
			int n = p9_sys_epoll_wait(loop->ep, loop->ev, P9_LOOP_EVENTS, 0);
			loop->looked = now;
			loop->nev = n > 0 ? n : 0;
		} else if (last->look(last)) {
			p9_spin_end(&loop->idle, true);
			loop->now = now_ms();
			return last->ready(last, EPOLLIN) == P9_LOST ? P9_LOST : NEWS;
		}
		if (loop->nev > 0) {
			p9_spin_end(&loop->idle, true);
			return 0;
		}
		if (now >= until || atomic_load_explicit(&loop->posted, memory_order_relaxed)) {
			p9_spin_missed(&loop->idle);
			return 0;
		}
		p9_spin_yield();
		now = p9_spin_clock();
	}
	return 0;
}

void p9_loop_run(struct p9_loop *loop, struct p9_thread *self)
{
	loop->thread = self;
	atomic_store_explicit(&loop->tid, self->tid, memory_order_relaxed);
	if (loop->stolen) {
		loop->stolen = false;
		if (loop->on_stolen(loop) == P9_LOST) {
			return;
		}
	}
	for (;;) {
		if (handle_events(loop) == P9_LOST) {
			return;
		}
		/* after the events: one of them may have been the bell that p9_loop_stop rang */
		if (atomic_load(&loop->stop)) {
			return;
		}
		if (atomic_load_explicit(&loop->posted, memory_order_relaxed)) {
			deliver(loop);
		}
		p9_timers_run(&loop->timers, loop->now);
		if (loop->after && loop->after(loop) == P9_LOST) {
			return;
		}
		loop->few = loop->batch > 0 ? loop->batch <= FEW : loop->few;
		loop->batch = 0;
		int timeout = p9_timers_left(&loop->timers, loop->now); /* what `after` did may have set some */
		int news = loop->pollers && timeout != 0 ? look_at_pollers(loop) : 0;
		if (news == P9_LOST) {
			return;
		}
		loop->nev = loop->evi = 0;
		if (news == NEWS && descriptors_wait(loop)) {
			continue;
		}
		bool alone = !loop->pollers && !loop->spin.since && news == 0 && timeout != 0;
		if (alone && loop->looks && loop->few) {
			int found = look_at_descriptors(loop);
			if (found == P9_LOST) {
				return;
			}
			if (found == NEWS) {
				continue;
			}
		}
		loop->nev = loop->nev ? loop->nev : wait(loop, news == NEWS ? 0 : timeout);
		loop->now = now_ms();
		p9_spin_slept(&loop->idle);
		p9_spin_slept(&loop->spin);
	}
}

unsigned p9_loop_stuck(struct p9_loop *loop, bool *idle)
{
	uint64_t t = atomic_load_explicit(&loop->turn, memory_order_acquire);
	bool same = t == loop->watch_seen && (t & P9_TURN_STATE) == P9_TURN_CALL;
	loop->watch_seen = t;
	loop->watch_ticks = same ? loop->watch_ticks + 1 : 0;
	*idle = (t & P9_TURN_STATE) == P9_TURN_IDLE;
	return loop->watch_ticks;
}

bool p9_loop_steal(struct p9_loop *loop)
{
	uint64_t seen = loop->watch_seen;
	uint64_t taken = (seen & ~(uint64_t)P9_TURN_STATE) | P9_TURN_RUN;
	if (!atomic_compare_exchange_strong_explicit(&loop->turn, &seen, taken, memory_order_acq_rel,
						     memory_order_relaxed)) {
		return false;
	}
	loop->stolen = true;
	return true;
}
