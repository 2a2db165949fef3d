/* SPDX-License-Identifier: BSD-2-Clause */
/* lock.h - a mutex for the few places outside base/ and backends where two threads meet. Never held across a call that
 * may block. */
#ifndef P9_BASE_LOCK_H
#define P9_BASE_LOCK_H
#include <pthread.h>

struct p9_lock {
	pthread_mutex_t mutex;
};
#define P9_LOCK_INIT { PTHREAD_MUTEX_INITIALIZER }

static inline void p9_lock_init(struct p9_lock *l)
{
	pthread_mutex_init(&l->mutex, NULL);
}
static inline void p9_lock_fini(struct p9_lock *l)
{
	pthread_mutex_destroy(&l->mutex);
}
static inline void p9_lock(struct p9_lock *l)
{
	pthread_mutex_lock(&l->mutex);
}
static inline void p9_unlock(struct p9_lock *l)
{
	pthread_mutex_unlock(&l->mutex);
}

#endif
