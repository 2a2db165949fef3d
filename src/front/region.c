/* SPDX-License-Identifier: BSD-2-Clause */
/* region.c - the memory that front and device share: one memfd, sealed, so that neither can shorten it under the other.
 *
 * A fixed part (rings, tables, heads) and blocks of one size behind it. Untouched blocks cost no memory; the one that was
 * given back last is handed out first, because it is warm.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "front/internal.h"
#include "p9/messages.h"

#define PAGE ((size_t)4096)

int p9_region_make(struct p9_region *m, size_t fixed, size_t block, unsigned nblocks)
{
	fixed = (fixed + PAGE - 1) / PAGE * PAGE;
	*m = (struct p9_region){ .fd = -1, .block = block, .nblocks = nblocks, .nfree = nblocks };
	m->len = fixed + block * nblocks;
	m->free = calloc(nblocks, sizeof(*m->free));
	m->fd = memfd_create("p9-front", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (!m->free || m->fd < 0 || ftruncate(m->fd, (off_t)m->len) < 0 ||
	    fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		return m->free ? p9_err() : -P9_ENOMEM;
	}
	void *p = mmap(NULL, m->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd, 0);
	if (p == MAP_FAILED) {
		return p9_err();
	}
	m->map = p;
	m->blocks = m->map + fixed;
	for (unsigned i = 0; i < nblocks; i++) {
		m->free[i] = m->blocks + (nblocks - 1 - i) * block;
	}
	return 0;
}

void p9_region_free(struct p9_region *m)
{
	if (m->map) {
		munmap(m->map, m->len);
	}
	if (m->fd >= 0) {
		close(m->fd);
	}
	free(m->free);
	*m = (struct p9_region){ .fd = -1 };
}

uint8_t *p9_region_get(struct p9_region *m, unsigned reserve)
{
	return m->nfree > reserve ? m->free[--m->nfree] : NULL;
}

void p9_region_put(struct p9_region *m, uint8_t *block)
{
	if (block) {
		m->free[m->nfree++] = block;
	}
}
