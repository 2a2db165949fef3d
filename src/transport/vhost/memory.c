/* SPDX-License-Identifier: BSD-2-Clause */
/* memory.c - see memory.h. Sums of the peer's numbers are checked before they are made; the file must be as long as the
 * region says when it comes, and a guard (base/guard.h) stands by should it be shortened later.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/guard.h"
#include "base/hosterr.h"
#include "base/pack.h"
#include "p9/messages.h"
#include "transport/vhost/memory.h"

struct p9_vregion {
	unsigned refs;
	struct p9_vregion_desc d;
	uint8_t *base; /* of guest address d.guest */
	void *map;
	size_t maplen;
	int guard;
	int fd; /* kept for another process that goes on in our place */
};

static void region_put(struct p9_vregion *r)
{
	if (--r->refs > 0) {
		return;
	}
	p9_guard_remove(r->guard);
	munmap(r->map, r->maplen);
	close(r->fd);
	free(r);
}

/* Where a guest address lies; *len becomes how much follows there. */
static void *at(const struct p9_vspace *space, uint64_t guest, uint64_t *len)
{
	struct p9_vmem *m = (struct p9_vmem *)space; /* not const: ours, and its loop's */
	for (unsigned i = 0; guest - m->last.guest >= m->last.size && i < m->n; i++) {
		const struct p9_vregion_desc *d = &m->r[i]->d;
		if (guest - d->guest < d->size) {
			m->last.guest = d->guest;
			m->last.size = d->size;
			m->last.base = m->r[i]->base;
		}
	}
	uint64_t off = guest - m->last.guest;
	if (off >= m->last.size) {
		return NULL;
	}
	*len = *len < m->last.size - off ? *len : m->last.size - off;
	return m->last.base + off;
}

static struct p9_vmem *table(unsigned n)
{
	struct p9_vmem *m = calloc(1, sizeof(*m) + n * sizeof(m->r[0]));
	if (m) {
		m->space.at = at;
		m->refs = 1;
		m->n = n;
	}
	return m;
}

struct p9_vmem *p9_vmem_new(void)
{
	return table(0);
}

struct p9_vmem *p9_vmem_get(struct p9_vmem *m)
{
	m->refs++;
	return m;
}

void p9_vmem_put(struct p9_vmem *m)
{
	if (!m || --m->refs > 0) {
		return;
	}
	for (unsigned i = 0; i < m->n; i++) {
		region_put(m->r[i]);
	}
	free(m);
}

static bool overlap(uint64_t a, uint64_t b, uint64_t alen, uint64_t blen)
{
	return a < b + blen && b < a + alen;
}

static bool acceptable(const struct p9_vmem *m, const struct p9_vregion_desc *d)
{
	if (d->size == 0 || d->size > (uint64_t)INT64_MAX || d->offset > (uint64_t)INT64_MAX - d->size ||
	    d->guest > UINT64_MAX - d->size || d->user > UINT64_MAX - d->size || m->n >= P9_VMEM_SLOTS) {
		return false;
	}
	for (unsigned i = 0; i < m->n; i++) {
		const struct p9_vregion_desc *e = &m->r[i]->d;
		if (overlap(d->guest, e->guest, d->size, e->size) || overlap(d->user, e->user, d->size, e->size)) {
			return false;
		}
	}
	return true;
}

static int make_region(const struct p9_vregion_desc *d, int fd, struct p9_vregion **out)
{
	struct stat st;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) { /* memfd, hugetlbfs, tmpfs */
		return -P9_EBADF;
	}
	if ((uint64_t)st.st_size < d->offset + d->size) {
		return -P9_ENXIO;
	}
	uint64_t page = (uint64_t)(st.st_blksize > 4096 ? st.st_blksize : 4096); /* huge pages say so here */
	uint64_t from = d->offset - d->offset % page;
	struct p9_vregion *r = calloc(1, sizeof(*r));
	if (!r) {
		return -P9_ENOMEM;
	}
	r->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (r->fd < 0) {
		int rc = p9_err();
		free(r);
		return rc;
	}
	r->maplen = (size_t)(d->offset + d->size - from + page - 1);
	r->maplen -= r->maplen % page;
	r->map = mmap(NULL, r->maplen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)from);
	if (r->map == MAP_FAILED) {
		int rc = p9_err();
		close(r->fd);
		free(r);
		return rc;
	}
	madvise(r->map, r->maplen, MADV_DONTDUMP); /* a guest's memory is not for our core files */
	r->guard = p9_guard_add(r->map, r->maplen);
	r->refs = 1;
	r->d = *d;
	r->base = (uint8_t *)r->map + (d->offset - from);
	if (r->guard < 0) {
		region_put(r);
		return -P9_ENOSPC;
	}
	*out = r;
	return 0;
}

int p9_vmem_add(const struct p9_vmem *m, const struct p9_vregion_desc *d, int fd, struct p9_vmem **out)
{
	struct p9_vregion *r = NULL;
	if (!acceptable(m, d)) {
		return -P9_EINVAL;
	}
	struct p9_vmem *t = table(m->n + 1);
	int rc = t ? make_region(d, fd, &r) : -P9_ENOMEM;
	if (rc < 0) {
		free(t);
		return rc;
	}
	for (unsigned i = 0; i < m->n; i++) {
		t->r[i] = m->r[i];
		t->r[i]->refs++;
	}
	t->r[m->n] = r;
	*out = t;
	return 0;
}

int p9_vmem_remove(const struct p9_vmem *m, const struct p9_vregion_desc *d, struct p9_vmem **out)
{
	unsigned at = 0;
	while (at < m->n &&
	       (m->r[at]->d.guest != d->guest || m->r[at]->d.size != d->size || m->r[at]->d.user != d->user)) {
		at++;
	}
	if (at == m->n) {
		return -P9_ENOENT;
	}
	struct p9_vmem *t = table(m->n - 1);
	if (!t) {
		return -P9_ENOMEM;
	}
	for (unsigned i = 0, k = 0; i < m->n; i++) {
		if (i != at) {
			t->r[k++] = m->r[i];
			m->r[i]->refs++;
		}
	}
	*out = t;
	return 0;
}

void *p9_vmem_user(const struct p9_vmem *m, uint64_t user, uint64_t len)
{
	for (unsigned i = 0; i < m->n; i++) {
		const struct p9_vregion_desc *d = &m->r[i]->d;
		if (user >= d->user && user - d->user < d->size && len <= d->size - (user - d->user)) {
			return m->r[i]->base + (user - d->user);
		}
	}
	return NULL;
}

bool p9_vmem_lost(const struct p9_vmem *m)
{
	for (unsigned i = 0; p9_guard_any() && i < m->n; i++) {
		if (p9_guard_hit(m->r[i]->guard)) {
			return true;
		}
	}
	return false;
}

void p9_vmem_pack(const struct p9_vmem *m, struct p9_pack *p)
{
	p9_pack_number(p, m->n);
	for (unsigned i = 0; i < m->n; i++) {
		const struct p9_vregion_desc *d = &m->r[i]->d;
		p9_pack_fd(p, m->r[i]->fd);
		p9_pack_number(p, d->guest);
		p9_pack_number(p, d->size);
		p9_pack_number(p, d->user);
		p9_pack_number(p, d->offset);
	}
}
