/* SPDX-License-Identifier: BSD-2-Clause */
/* inode.c - the files that the kernel knows.
 *
 * An inode stands for a qid (path and type) and lives while the kernel has looked it up more often than it has forgotten
 * it, or something refers to it. It holds a fid, so that it stays the same file whatever becomes of its names. Servers
 * have no more than 65536 fids for a connection and kernels keep millions of inodes, so beyond a limit the fids that were
 * used longest ago are given back; such a file is walked to again from where it was found (node.c), and must be the same
 * one. Must stay true: an inode with busy > 0 keeps its fid; `dir` links go up to the root and are counted.
 */
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include "mount/internal.h"

#define HASH_MIN 1024u
#define FIDS_LEAST 128u
#define TRIM_LEAST 4096u
#define FID_BATCH 64u /* given back at a time */

static size_t slot(const struct p9_mount *m, uint64_t path, uint8_t qtype)
{
	uint64_t h = (path ^ (uint64_t)qtype << 56) * UINT64_C(0x9e3779b97f4a7c15);
	return (size_t)(h >> 20) & (m->nhash - 1);
}

static size_t name_slot(const struct p9_mount *m, const struct p9_minode *dir, const char *name, size_t len)
{
	uint64_t h = (uint64_t)(uintptr_t)dir;
	for (size_t i = 0; i < len; i++) {
		h = (h ^ (uint8_t)name[i]) * UINT64_C(0x100000001b3);
	}
	h *= UINT64_C(0x9e3779b97f4a7c15);
	return (size_t)(h >> 20) & (m->nhash - 1);
}

int p9_minode_init(struct p9_mount *m, const struct p9_qid *root)
{
	m->hash = calloc(HASH_MIN, sizeof(struct p9_minode *));
	m->names = calloc(HASH_MIN, sizeof(struct p9_minode *));
	if (!m->hash || !m->names) {
		return -P9_ENOMEM;
	}
	m->nhash = HASH_MIN;
	m->root = (struct p9_minode){ .path = root->path,
				      .qtype = root->type,
				      .fid = p9_client_root(m->client),
				      .mode = S_IFDIR,
				      .refs = 1,
				      .busy = 1, /* its fid stays for good */
				      .nlookup = 1,
				      .hashed = true };
	m->hash[slot(m, root->path, root->type)] = &m->root;
	m->ninodes = m->nfids = 1;
	return 0;
}

static void unlist(struct p9_mount *m, struct p9_minode *i)
{
	if (!i->listed) {
		return;
	}
	*(i->newer ? &i->newer->older : &m->newest) = i->older;
	*(i->older ? &i->older->newer : &m->oldest) = i->newer;
	i->newer = i->older = NULL;
	i->listed = false;
}

static void list(struct p9_mount *m, struct p9_minode *i)
{
	i->older = m->newest;
	*(i->older ? &i->older->newer : &m->oldest) = i;
	m->newest = i;
	i->listed = true;
}

static void drop_fid(struct p9_mount *m, struct p9_minode *i)
{
	unlist(m, i);
	if (i->fid != P9_NOFID) {
		p9_mount_clunk(m, i->fid);
		i->fid = P9_NOFID;
		m->nfids--;
	}
}

void p9_minode_fini(struct p9_mount *m)
{
	for (size_t s = 0; s < m->nhash; s++) {
		while (m->hash[s]) {
			struct p9_minode *i = m->hash[s];
			m->hash[s] = i->next;
			while (i->owners) {
				p9_mowner_drop(i, i->owners);
			}
			while (i->handles) { /* the kernel did not live to close them */
				struct p9_mhandle *h = i->handles;
				i->handles = h->next;
				free(h->ents);
				free(h->head);
				free(h);
			}
			free(i->name);
			if (i != &m->root) {
				free(i);
			}
		}
	}
	free(m->hash);
	free(m->names);
	m->hash = m->names = NULL;
	m->nhash = 0;
}

/* Twice as many chains. Without memory they get longer instead. */
static void grow(struct p9_mount *m)
{
	struct p9_minode **old = m->hash;
	size_t n = m->nhash;
	struct p9_minode **more = calloc(n * 2, sizeof(struct p9_minode *));
	struct p9_minode **names = calloc(n * 2, sizeof(struct p9_minode *));
	if (!more || !names) {
		free(more);
		free(names);
		return;
	}
	free(m->names);
	m->hash = more;
	m->names = names;
	m->nhash = n * 2;
	for (size_t s = 0; s < n; s++) {
		while (old[s]) {
			struct p9_minode *i = old[s];
			old[s] = i->next;
			struct p9_minode **p = &more[slot(m, i->path, i->qtype)];
			i->next = *p;
			*p = i;
			i->next_named = NULL;
			if (i->name) {
				p = &names[name_slot(m, i->dir, i->name, strlen(i->name))];
				i->next_named = *p;
				*p = i;
			}
		}
	}
	free(old);
}

struct p9_minode *p9_minode_of(struct p9_mount *m, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? &m->root : (struct p9_minode *)(uintptr_t)ino;
}

fuse_ino_t p9_minode_id(const struct p9_mount *m, const struct p9_minode *i)
{
	return i == &m->root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)i;
}

struct p9_minode *p9_minode_find(struct p9_mount *m, const struct p9_qid *qid)
{
	struct p9_minode *i = m->hash[slot(m, qid->path, qid->type)];
	while (i && (i->path != qid->path || i->qtype != qid->type || !i->hashed)) {
		i = i->next;
	}
	return i;
}

static void unname(struct p9_mount *m, struct p9_minode *i)
{
	if (!i->name) {
		return;
	}
	struct p9_minode **p = &m->names[name_slot(m, i->dir, i->name, strlen(i->name))];
	while (*p && *p != i) {
		p = &(*p)->next_named;
	}
	if (*p) {
		*p = i->next_named;
	}
	free(i->name);
	i->name = NULL;
}

struct p9_minode *p9_minode_named(struct p9_mount *m, const struct p9_minode *dir, const char *name, size_t len)
{
	struct p9_minode *i = m->names[name_slot(m, dir, name, len)];
	while (i && (i->dir != dir || strncmp(i->name, name, len) != 0 || i->name[len] != 0)) {
		i = i->next_named;
	}
	return i;
}

/* Unlinks it from its chain, and nothing else. */
static void unchain(struct p9_mount *m, struct p9_minode *i)
{
	struct p9_minode **p = &m->hash[slot(m, i->path, i->qtype)];
	while (*p && *p != i) {
		p = &(*p)->next;
	}
	if (*p) {
		*p = i->next;
	}
}

/* Frees it when nobody knows it any more, and then perhaps the directory it was found in, and so on. */
static void reap(struct p9_mount *m, struct p9_minode *i)
{
	while (i && i->nlookup == 0 && i->refs == 0) {
		struct p9_minode *dir = i->dir;
		unchain(m, i);
		drop_fid(m, i);
		while (i->owners) {
			p9_mowner_drop(i, i->owners);
		}
		unname(m, i);
		free(i);
		m->ninodes--;
		if (dir) {
			dir->refs--;
		}
		i = dir;
	}
}

void p9_minode_hold(struct p9_mount *m, struct p9_minode *i)
{
	i->refs++;
	if (i->busy++ == 0) {
		unlist(m, i);
	}
}

void p9_minode_release(struct p9_mount *m, struct p9_minode *i)
{
	if (!i) {
		return;
	}
	if (--i->busy == 0 && i->fid != P9_NOFID) {
		list(m, i);
	}
	p9_minode_unref(m, i);
}

void p9_minode_ref(struct p9_minode *i)
{
	i->refs++;
}

void p9_minode_unref(struct p9_mount *m, struct p9_minode *i)
{
	i->refs--;
	reap(m, i);
}

void p9_minode_looked(struct p9_mount *m, struct p9_minode *i)
{
	i->nlookup++;
	p9_mahead_drop(m, i); /* what the kernel was told is newer, or the same */
}

void p9_minode_give_back(struct p9_mount *m)
{
	if (m->most_inodes > TRIM_LEAST && m->ninodes < m->most_inodes / 4) {
		m->most_inodes = m->ninodes;
#ifdef __GLIBC__
		malloc_trim(0);
#endif
	}
}

void p9_minode_forget(struct p9_mount *m, struct p9_minode *i, uint64_t n)
{
	if (i != &m->root) {
		i->nlookup -= n < i->nlookup ? n : i->nlookup;
		m->most_inodes = m->ninodes > m->most_inodes ? m->ninodes : m->most_inodes;
		reap(m, i);
	}
}

void p9_minode_fid(struct p9_mount *m, struct p9_minode *i, uint32_t fid)
{
	if (i->fid != P9_NOFID) {
		p9_mount_clunk(m, fid);
		return;
	}
	i->fid = fid;
	m->nfids++;
	if (i->busy == 0) {
		list(m, i);
	}
	if (m->nfids > m->o.max_fids) {
		p9_minode_trim(m);
	}
}

void p9_minode_trim(struct p9_mount *m)
{
	size_t keep = m->o.max_fids > FID_BATCH ? m->o.max_fids - FID_BATCH : 0;
	while (m->nfids > keep && m->oldest) {
		drop_fid(m, m->oldest);
	}
}

void p9_minode_lose(struct p9_mount *m)
{
	while (m->oldest) {
		drop_fid(m, m->oldest);
	}
}

bool p9_minode_shed(struct p9_mount *m)
{
	if (!m->oldest) {
		return false;
	}
	size_t keep = m->nfids - m->nfids / 4;
	m->o.max_fids = (unsigned)(keep > FIDS_LEAST ? keep < m->o.max_fids ? keep : m->o.max_fids : FIDS_LEAST);
	p9_minode_trim(m);
	return true;
}

/* The server has used the identity of a file that the kernel still knows for another: the old one is known no more. */
static void disown(struct p9_mount *m, struct p9_minode *i)
{
	i->hashed = false;
	drop_fid(m, i);
}

static struct p9_minode *make(struct p9_mount *m, const struct p9_rgetattr *a)
{
	struct p9_minode *i = calloc(1, sizeof(*i));
	if (!i) {
		return NULL;
	}
	if (m->ninodes > m->nhash) {
		grow(m);
	}
	i->path = a->qid.path;
	i->qtype = a->qid.type;
	i->fid = P9_NOFID;
	i->hashed = true;
	i->generation = ++m->generation;
	struct p9_minode **p = &m->hash[slot(m, i->path, i->qtype)];
	i->next = *p;
	*p = i;
	m->ninodes++;
	return i;
}

struct p9_minode *p9_minode_got(struct p9_mount *m, const struct p9_rgetattr *a, uint32_t fid)
{
	struct p9_minode *i = p9_minode_find(m, &a->qid);
	if (i && i != &m->root && ((i->mode ^ a->mode) & S_IFMT)) {
		disown(m, i);
		i = NULL;
	}
	if (!i) {
		i = make(m, a);
	}
	if (i) {
		i->mode = a->mode;
		i->gid = a->gid;
		if (fid != P9_NOFID) {
			p9_minode_fid(m, i, fid);
		}
	}
	return i;
}

/* Whether `i` is `dir` or above it, as far as we know. */
static bool above(const struct p9_minode *i, const struct p9_minode *dir)
{
	while (dir && dir != i) {
		dir = dir->dir;
	}
	return dir != NULL;
}

void p9_minode_place(struct p9_mount *m, struct p9_minode *i, struct p9_minode *dir, const char *name, size_t len)
{
	if (i->dir == dir && i->name && strncmp(i->name, name, len) == 0 && i->name[len] == 0) {
		return;
	}
	if (i == &m->root || above(i, dir)) {
		return; /* a server that says so lies, or moved it under our hands */
	}
	char *copy = malloc(len + 1); /* not strndup(3): a name that has just come has no NUL behind it */
	struct p9_minode *old = i->dir;
	if (!copy) {
		return;
	}
	memcpy(copy, name, len);
	copy[len] = 0;
	unname(m, i);
	i->name = copy;
	i->dir = dir;
	dir->refs++;
	struct p9_minode **p = &m->names[name_slot(m, dir, name, len)];
	i->next_named = *p;
	*p = i;
	if (old) {
		p9_minode_unref(m, old);
	}
}
