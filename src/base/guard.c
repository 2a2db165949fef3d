/* SPDX-License-Identifier: BSD-2-Clause */
/* guard.c - see guard.h. The table is read by a signal handler on any thread, so its fields are atomics and a range is
 * entered with its length last and removed with it first. mmap(2) is not on POSIX's list of what a handler may call, but
 * on Linux it is a system call and nothing else.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include "base/guard.h"
#include "base/lock.h"

static struct {
	_Atomic uintptr_t start;
	_Atomic size_t len;
	_Atomic bool hit;
	bool used; /* under the lock */
} guards[P9_GUARDS_MAX];
static _Atomic unsigned highest; /* places ever used */
static _Atomic bool any;
static struct p9_lock lock = P9_LOCK_INIT;
static struct sigaction before;
static bool installed;

static void on_bus(int sig, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr;
	(void)context;
	for (unsigned i = 0; i < atomic_load(&highest); i++) {
		size_t len = atomic_load(&guards[i].len);
		uintptr_t start = atomic_load(&guards[i].start);
		if (len == 0 || at < start || at - start >= len) {
			continue;
		}
		atomic_store(&guards[i].hit, true);
		atomic_store(&any, true);
		if (mmap((void *)start, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED) {
			return;
		}
	}
	sigaction(sig, &before, NULL); /* not ours: it happens again, as if we had not been here */
}

int p9_guard_add(void *p, size_t n)
{
	p9_lock(&lock);
	if (!installed) {
		struct sigaction sa = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_ONSTACK };
		sigemptyset(&sa.sa_mask);
		installed = sigaction(SIGBUS, &sa, &before) == 0;
	}
	int found = -1;
	for (int i = 0; i < P9_GUARDS_MAX && found < 0 && installed; i++) {
		found = guards[i].used ? -1 : i;
	}
	if (found >= 0) {
		guards[found].used = true;
		atomic_store(&guards[found].hit, false);
		atomic_store(&guards[found].start, (uintptr_t)p);
		atomic_store(&guards[found].len, n);
		if ((unsigned)found >= atomic_load(&highest)) {
			atomic_store(&highest, (unsigned)found + 1);
		}
	}
	p9_unlock(&lock);
	return found;
}

void p9_guard_remove(int guard)
{
	if (guard < 0) {
		return;
	}
	atomic_store(&guards[guard].len, 0);
	p9_lock(&lock);
	guards[guard].used = false;
	p9_unlock(&lock);
}

bool p9_guard_any(void)
{
	return atomic_load_explicit(&any, memory_order_relaxed);
}

bool p9_guard_hit(int guard)
{
	return guard >= 0 && atomic_load(&guards[guard].hit);
}
