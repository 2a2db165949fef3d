/* SPDX-License-Identifier: BSD-2-Clause */
/* gate.h - a mutex and a condition: one thread waits until another has put something there. */
#ifndef P9_BASE_GATE_H
#define P9_BASE_GATE_H
#include <pthread.h>
#include <time.h>

struct p9_gate {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
};

static inline void p9_gate_init(struct p9_gate *g)
{
	pthread_mutex_init(&g->mutex, NULL);
	pthread_cond_init(&g->cond, NULL);
}
static inline void p9_gate_fini(struct p9_gate *g)
{
	pthread_cond_destroy(&g->cond);
	pthread_mutex_destroy(&g->mutex);
}
static inline void p9_gate_enter(struct p9_gate *g)
{
	pthread_mutex_lock(&g->mutex);
}
static inline void p9_gate_leave(struct p9_gate *g)
{
	pthread_mutex_unlock(&g->mutex);
}
/* Inside: lets others in until one of them wakes. May return without that. */
static inline void p9_gate_wait(struct p9_gate *g)
{
	pthread_cond_wait(&g->cond, &g->mutex);
}
/* The same, for about so long at most: the clock may be set meanwhile. */
static inline void p9_gate_wait_ms(struct p9_gate *g, unsigned ms)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&g->cond, &g->mutex, &until);
}
/* Inside: all that wait. */
static inline void p9_gate_wake_all(struct p9_gate *g)
{
	pthread_cond_broadcast(&g->cond);
}
/* Inside. */
static inline void p9_gate_wake(struct p9_gate *g)
{
	pthread_cond_signal(&g->cond);
}

#endif
