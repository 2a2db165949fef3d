/* SPDX-License-Identifier: BSD-2-Clause */
/* inflight.c - see inflight.h; the algorithm is the one of vhost-user.rst, "Inflight I/O tracking", for split rings.
 *
 * The memory is shared with the monitor: what is read from it is an index to be checked, never a size.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/guard.h"
#include "base/hosterr.h"
#include "p9/messages.h"
#include "transport/vhost/inflight.h"

#define ALIGN 64u

static size_t queue_size(unsigned num)
{
	size_t n = sizeof(struct p9_inflight) + sizeof(struct p9_inflight_desc) * (size_t)num;
	return (n + ALIGN - 1) / ALIGN * ALIGN;
}

size_t p9_inflight_size(unsigned queues, unsigned num)
{
	return queue_size(num) * queues;
}

int p9_inflight_map(struct p9_inflight_area *a, int fd, uint64_t offset, size_t len, unsigned queues, unsigned num)
{
	struct stat st;
	if (queues == 0 || num == 0 || num > 32768 || len < p9_inflight_size(queues, num) || offset % 4096 ||
	    offset > INT64_MAX - len || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    (uint64_t)st.st_size < offset + len) {
		return -P9_EINVAL;
	}
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	if (p == MAP_FAILED) {
		return p9_err();
	}
	int guard = p9_guard_add(p, (len + 4095) / 4096 * 4096);
	if (guard < 0) {
		munmap(p, len);
		return -P9_ENOSPC;
	}
	int kept = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (kept < 0) {
		int rc = p9_err();
		p9_guard_remove(guard);
		munmap(p, len);
		return rc;
	}
	p9_inflight_unmap(a);
	*a = (struct p9_inflight_area){ p, len, queues, num, guard, kept, offset };
	return 0;
}

void p9_inflight_unmap(struct p9_inflight_area *a)
{
	if (a->map) {
		p9_guard_remove(a->guard);
		munmap(a->map, a->len);
		close(a->fd);
	}
	*a = (struct p9_inflight_area){ .guard = -1, .fd = -1 };
}

struct p9_inflight *p9_inflight_of(const struct p9_inflight_area *a, unsigned i, uint32_t num)
{
	if (!a->map || i >= a->queues || num > a->num) {
		return NULL;
	}
	struct p9_inflight *f = (struct p9_inflight *)(void *)(a->map + queue_size(a->num) * i);
	if (f->version != 1 || f->num != num) { /* new: nothing was taken from it */
		memset(f, 0, queue_size(num));
		f->version = 1;
		f->num = (uint16_t)num;
	}
	return f;
}

/* Of all devices: only the order within one counts. */
static uint64_t counter;

uint64_t p9_inflight_count(uint64_t at_least)
{
	uint64_t now = __atomic_load_n(&counter, __ATOMIC_RELAXED);
	while (now < at_least &&
	       !__atomic_compare_exchange_n(&counter, &now, at_least, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
	}
	return now;
}

void p9_inflight_take(struct p9_inflight *f, uint16_t head)
{
	if (f) {
		f->desc[head].counter = __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED);
		__atomic_store_n(&f->desc[head].inflight, 1, __ATOMIC_RELEASE);
	}
}

void p9_inflight_give(struct p9_inflight *f, uint16_t head)
{
	if (f) {
		f->desc[head].next = f->last_batch_head;
		__atomic_store_n(&f->last_batch_head, head, __ATOMIC_RELEASE);
	}
}

void p9_inflight_given(struct p9_inflight *f, uint16_t head, uint16_t used_idx)
{
	if (f) {
		__atomic_store_n(&f->desc[head].inflight, 0, __ATOMIC_RELEASE);
		__atomic_store_n(&f->used_idx, used_idx, __ATOMIC_RELEASE);
	}
}

static int by_counter(const void *a, const void *b)
{
	const struct p9_orphan *x = a, *y = b;
	return x->counter < y->counter ? -1 : x->counter > y->counter;
}

unsigned p9_inflight_orphans(struct p9_inflight *f, uint32_t num, uint16_t used_idx, struct p9_orphan **list)
{
	unsigned n = 0;
	*list = NULL;
	if (!f) {
		return 0;
	}
	uint16_t last = f->last_batch_head;
	if (f->used_idx != used_idx &&
	    last < num) { /* ended between giving back and noting so: the driver has seen it */
		f->desc[last].inflight = 0;
	}
	f->used_idx = used_idx;
	for (uint32_t i = 0; i < num; i++) {
		n += f->desc[i].inflight == 1;
	}
	*list = n ? calloc(n, sizeof(**list)) : NULL;
	unsigned k = 0;
	for (uint32_t i = 0; *list && i < num && k < n; i++) {
		if (f->desc[i].inflight == 1) {
			(*list)[k++] = (struct p9_orphan){ f->desc[i].counter, (uint16_t)i };
		}
	}
	for (unsigned i = 0; i < k; i++) { /* who comes after us sees ours behind these */
		p9_inflight_count((*list)[i].counter);
	}
	if (k > 1) {
		qsort(*list, k, sizeof(**list), by_counter);
	}
	return k;
}
