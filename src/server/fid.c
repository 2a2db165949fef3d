/* SPDX-License-Identifier: BSD-2-Clause */
/* fid.c - the fids of a connection: a hash table with open addressing, loop thread only.
 *
 * Every fid costs about one descriptor. One connection may have 65,536 fids, but beyond its own reserve it takes from a
 * budget that all connections share, so that a flood of fids runs into ENFILE and others keep working.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "base/fdcount.h"
#include "server/internal.h"

#define TOMB ((struct p9_fid *)1)
#define FIRST_CAP 16u

/* Multiply-shift hashing with an odd number that no client knows, or it could choose fids that all meet in one place. */
static uint64_t multiplier = 0x9e3779b97f4a7c15u;

void p9_fid_init(void)
{
	uint64_t secret;
	if (getrandom(&secret, sizeof(secret), GRND_NONBLOCK) == (ssize_t)sizeof(secret)) {
		multiplier = secret | 1;
	}
}

static uint32_t hash(uint32_t id, uint32_t cap)
{
	return (uint32_t)(id * multiplier >> 32) & (cap - 1);
}

struct p9_fid *p9_fid_slot(const struct p9_fidtab *t, uint32_t i)
{
	return t->slot[i] == TOMB ? NULL : t->slot[i];
}

struct p9_fid *p9_fid_find(const struct p9_fidtab *t, uint32_t id)
{
	if (t->cap == 0) {
		return NULL;
	}
	for (uint32_t h = hash(id, t->cap);; h = (h + 1) & (t->cap - 1)) {
		struct p9_fid *f = t->slot[h];
		if (!f) {
			return NULL;
		}
		if (f != TOMB && f->id == id) {
			return f;
		}
	}
}

static int rehash(struct p9_fidtab *t)
{
	uint32_t cap = FIRST_CAP;
	while (cap < t->n * 2 + 2) {
		cap *= 2;
	}
	struct p9_fid **slot = calloc(cap, sizeof(struct p9_fid *));
	if (!slot) {
		return -P9_ENOMEM;
	}
	for (uint32_t i = 0; i < t->cap; i++) {
		struct p9_fid *f = t->slot[i];
		if (f && f != TOMB) {
			uint32_t h = hash(f->id, cap);
			while (slot[h]) {
				h = (h + 1) & (cap - 1);
			}
			slot[h] = f;
		}
	}
	free(t->slot);
	t->slot = slot;
	t->cap = cap;
	t->used = t->n;
	return 0;
}

/* A fid costs up to three descriptors: the file, the directory it was found in, and what was opened. */
#define FDS_PER_FID 3u

int p9_fid_afford(const struct p9_conn *conn)
{
	if (conn->nfids >= P9_FIDS_MAX) {
		return -P9_EMFILE;
	}
	return conn->nfids >= P9_FD_RESERVE / FDS_PER_FID && p9_fd_short() ? -P9_ENFILE : 0;
}

/* One writer, the loop's thread: a plain add, which readers may see late. */
static void count(struct p9_shard *sh, int by)
{
	unsigned n = atomic_load_explicit(&sh->nfids, memory_order_relaxed);
	atomic_store_explicit(&sh->nfids, n + (unsigned)by, memory_order_relaxed);
}

int p9_fid_add(struct p9_conn *conn, uint32_t id, struct p9_fid **out)
{
	struct p9_fidtab *t = &conn->fids;
	struct p9_shard *sh = conn->shard;
	if (id == P9_NOFID) {
		return -P9_EBADF;
	}
	int rc = p9_fid_find(t, id) ? -P9_EEXIST : p9_fid_afford(conn);
	if (rc < 0) {
		return rc;
	}
	if ((t->used + 1) * 4 > t->cap * 3 && rehash(t) < 0) {
		return -P9_ENOMEM;
	}
	struct p9_fid *f = sh->free_fids;
	if (f) {
		sh->free_fids = f->next;
	} else if (!(f = malloc(sizeof(*f)))) {
		return -P9_ENOMEM;
	}
	conn->nfids++;
	count(sh, 1);
	memset(f, 0, sizeof(*f));
	f->id = id;
	uint32_t h = hash(id, t->cap);
	while (t->slot[h] && t->slot[h] != TOMB) {
		h = (h + 1) & (t->cap - 1);
	}
	t->used += t->slot[h] != TOMB;
	t->slot[h] = f;
	t->n++;
	*out = f;
	return 0;
}

int p9_fid_place(struct p9_req *r, struct p9_fid **out)
{
	if (r->fid2) {
		r->fid2->unborn = false;
		*out = r->fid2;
		return 0;
	}
	return p9_fid_add(r->conn, r->new_id, out);
}

void p9_fid_remove(struct p9_conn *conn, struct p9_fid *f)
{
	struct p9_fidtab *t = &conn->fids;
	uint32_t h = hash(f->id, t->cap);
	while (t->slot[h] && t->slot[h] != f) {
		h = (h + 1) & (t->cap - 1);
	}
	if (!t->slot[h]) {
		return;
	}
	/* no tomb is needed before a hole */
	bool hole = !t->slot[(h + 1) & (t->cap - 1)];
	t->slot[h] = hole ? NULL : TOMB;
	t->used -= hole;
	t->n--;
	f->gone = true;
}

void p9_fid_free(struct p9_conn *conn, struct p9_fid *f)
{
	struct p9_shard *sh = conn->shard;
	conn->nfids--;
	count(sh, -1);
	f->next = sh->free_fids;
	sh->free_fids = f;
}

int p9_fid_release(struct p9_conn *conn, struct p9_fid *f, struct p9_caller *c)
{
	int rc = 0;
	if (f->file) {
		if (f->file->be->unlock_fid && atomic_load_explicit(&conn->locks_held, memory_order_relaxed) &&
		    f->file->be->unlock_fid(f->file, conn, f) > 0) {
			p9_locks_changed(conn->srv);
		}
		rc = p9_file_put(c, f->file);
	}
	p9_node_put(f->node);
	p9_attach_put(f->at);
	if (f->xattr) {
		atomic_fetch_sub(&conn->nxattr, 1);
		free(f->xattr->value);
		free(f->xattr);
	}
	f->file = NULL;
	f->node = NULL;
	f->at = NULL;
	f->xattr = NULL;
	return rc;
}

void p9_attach_put(struct p9_attach *at)
{
	if (at && atomic_fetch_sub_explicit(&at->refs, 1, memory_order_acq_rel) == 1) {
		p9_cred_put(at->cred);
		free(at);
	}
}
