/* SPDX-License-Identifier: BSD-2-Clause */
/* handover.c - roots, nodes and open files as they go from one p9d to the next.
 *
 * What makes a node is its pinned descriptor, and that goes as it is: nothing is looked up or opened again, so files
 * without a name, directories that were moved and positions in directories stay what they are. Nodes share descriptors,
 * as they did. Called by the server while nothing else is at work, or before anything is.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "backend/local/local.h"
#include "base/pack.h"

#define VOLUMES 8u

static void pack_pinned(struct lfd *l, struct p9_pack *p)
{
	if (p9_pack_thing(p, l)) {
		p9_pack_fd(p, l->fd);
	}
}

/* A new reference, or NULL: for none, or when u is bad. */
static struct lfd *unpack_pinned(struct p9_unpack *u)
{
	void *known;
	uint32_t number = p9_unpack_thing(u, P9_THING_PINNED, &known);
	if (!number) {
		return known ? lfd_get(known) : NULL;
	}
	int fd = p9_unpack_fd(u);
	struct lfd *l = fd < 0 ? NULL : lfd_new(fd);
	if (!l) {
		p9_unpack_fail(u, "a file without a descriptor, or without memory");
		if (fd >= 0) {
			close(fd);
		}
		return NULL;
	}
	p9_unpack_made(u, number, l);
	return l;
}

static void pack_identity(uint32_t major, uint32_t minor, uint64_t ino, struct p9_pack *p)
{
	p9_pack_number(p, major);
	p9_pack_number(p, minor);
	p9_pack_number(p, ino);
}

static void unpack_identity(struct statx *st, struct p9_unpack *u)
{
	st->stx_dev_major = (uint32_t)p9_unpack_number(u, UINT32_MAX);
	st->stx_dev_minor = (uint32_t)p9_unpack_number(u, UINT32_MAX);
	st->stx_ino = p9_unpack_number(u, UINT64_MAX);
}

/* ---- roots ---- */
void p9_local_pack(const struct lroot *root, struct p9_pack *p)
{
	pack_pinned(root->self, p);
	pack_identity(root->major, root->minor, root->ino, p);
	p9_pack_number(p, root->cloned);
}

struct lroot *p9_local_unpack(const struct p9_local_config *conf, struct p9_unpack *u)
{
	struct statx st = { 0 };
	struct lroot *root = NULL;
	char why[120] = "out of memory";
	struct lfd *self = unpack_pinned(u);
	unpack_identity(&st, u);
	bool cloned = p9_unpack_flag(u);
	if (p9_unpack_bad(u) || !self || lprocfd_open(why, sizeof(why)) < 0 || lroot_new(conf, self, &st, &root) < 0) {
		p9_unpack_fail(u, "the root of an export: %s", why);
		lfd_put(self);
		return NULL;
	}
	root->cloned = cloned;
	root->conf.path = NULL; /* it is not opened again */
	return root;
}

bool p9_local_same(const struct lroot *root, const char *path)
{
	struct statx st;
	return statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_INO, &st) == 0 && st.stx_ino == root->ino &&
	       st.stx_dev_minor == root->minor && st.stx_dev_major == root->major;
}

/* ---- nodes ---- */
void local_pack_node(struct p9_node *base, struct p9_pack *p)
{
	struct lnode *n = LNODE(base);
	if (!p9_pack_thing(p, n)) {
		return;
	}
	pthread_mutex_lock(&lnames_lock);
	pack_pinned(n->self, p);
	pack_pinned(n->parent, p);
	p9_pack_text(p, n->name);
	pthread_mutex_unlock(&lnames_lock);
	pack_identity(n->major, n->minor, n->ino, p);
	p9_pack_number(p, n->type);
	p9_pack_number(p, base->volume);
	p9_pack_number(p, n->shared_fd);
}

struct p9_node *local_unpack_node(void *root, struct p9_unpack *u)
{
	void *known;
	struct lnode from = { .root = root }, *n = NULL;
	struct statx st = { 0 };
	char name[P9_NAMEMAX + 1];
	uint32_t number = p9_unpack_thing(u, P9_THING_NODE, &known);
	if (!number) {
		if (!known || LNODE(known)->root != root) {
			p9_unpack_fail(u, "a fid without a file, or with another export's");
			return NULL;
		}
		return p9_node_get(known);
	}
	from.base.tree = ((struct lroot *)root)->tree;
	struct lfd *self = unpack_pinned(u), *parent = unpack_pinned(u);
	p9_unpack_text(u, name, sizeof(name));
	unpack_identity(&st, u);
	st.stx_mode = (uint16_t)(p9_unpack_number(u, S_IFMT) & S_IFMT);
	uint8_t volume = (uint8_t)p9_unpack_number(u, VOLUMES - 1);
	bool shared = p9_unpack_flag(u);
	if (p9_unpack_bad(u) || !self ||
	    lnode_new(&from, self, &st, (struct p9_str){ name, (uint16_t)strlen(name) }, &n) < 0) {
		p9_unpack_fail(u, "a file without a descriptor, or without memory");
		lfd_put(self);
		lfd_put(parent);
		return NULL;
	}
	n->base.volume = volume;
	n->parent = parent;
	n->shared_fd = shared;
	p9_unpack_made(u, number, n);
	return &n->base;
}

/* ---- open files ---- */
void local_pack_file(struct p9_file *base, struct p9_pack *p)
{
	struct lfile *f = LFILE(base);
	local_pack_node(base->node, p);
	pack_pinned(f->io, p);
	p9_pack_number(p, base->flags);
	p9_pack_number(p, f->dir_next);
	p9_pack_number(p, f->dir_known);
	p9_pack_number(p, atomic_load(&f->no_nowait));
}

struct p9_file *local_unpack_file(void *root, struct p9_unpack *u)
{
	struct p9_file *out = NULL;
	struct p9_node *n = local_unpack_node(root, u);
	struct lfd *io = unpack_pinned(u);
	uint32_t flags = (uint32_t)p9_unpack_number(u, UINT32_MAX);
	uint64_t dir_next = p9_unpack_number(u, UINT64_MAX);
	bool dir_known = p9_unpack_flag(u), no_nowait = p9_unpack_flag(u);
	if (p9_unpack_bad(u) || !n || !io || lfile_new(LNODE(n), io, flags, &out) < 0) {
		p9_unpack_fail(u, "an open file without a descriptor, or without memory");
		lfd_put(io);
		p9_node_put(n);
		return NULL;
	}
	p9_node_put(n); /* the file has a reference of its own */
	LFILE(out)->dir_next = dir_next;
	LFILE(out)->dir_known = dir_known;
	atomic_store(&LFILE(out)->no_nowait, no_nowait);
	return out;
}
