/* SPDX-License-Identifier: BSD-2-Clause */
/* state.c - exports and listeners of a p9d as they go to the next, and how that one finds its own among them.
 *
 * An export is the same when name, directory and options are: then its root is used on, so that old fids and new ones
 * are in one mount. One that differs, or is missing, is an error only while clients are in it. A listener is the same
 * when its address is written the same way. Sockets of a service manager have no address and always go on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "p9d/handover.h"

#define PATH_BYTES 4096

/* ---- packing ---- */
static void pack_export(const struct p9d *d, const struct p9d_export *e, struct p9_pack *p)
{
	p9_pack_text(p, e->name);
	p9_pack_text(p, e->local.path);
	p9_pack_number(p, e->local.ro);
	p9_pack_number(p, e->local.dev);
	p9_pack_number(p, e->local.xattr_all);
	p9_pack_number(p, e->local.submounts);
	p9_pack_number(p, e->conf.checks);
	p9_pack_number(p, e->conf.squash);
	p9_pack_number(p, p9_server_uses(d->srv, e->name));
	p9_local_pack(e->root, p);
}

static void pack_listener(const struct p9d_listener *l, struct p9_pack *p)
{
	p9_pack_text(p, l->text);
	p9_pack_fd(p, l->monitor.on ? l->monitor.watch : l->source.fd);
	p9_pack_number(p, l->dev);
	p9_pack_number(p, l->ino);
	p9_pack_number(p, l->unlink_path);
	p9_pack_number(p, l->passed);
}

void p9d_pack(struct p9d *d, struct p9_pack *p)
{
	p9_local_pack_ids(p);
	p9_pack_number(p, d->conf.nexports);
	for (unsigned i = 0; i < d->conf.nexports; i++) {
		pack_export(d, &d->conf.exports[i], p);
	}
	p9_pack_number(p, d->nlisteners);
	for (unsigned i = 0; i < d->nlisteners; i++) {
		pack_listener(&d->listeners[i], p);
	}
	p9_server_pack(d->srv, p);
}

/* ---- unpacking ---- */
static char *unpack_string(struct p9_unpack *u)
{
	char text[PATH_BYTES];
	p9_unpack_text(u, text, sizeof(text));
	char *copy = strdup(text);
	if (!copy) {
		p9_unpack_fail(u, "out of memory");
	}
	return copy;
}

static void unpack_export(struct p9d_old_export *e, struct p9_unpack *u)
{
	e->name = unpack_string(u);
	e->path = unpack_string(u);
	e->local.path = e->path;
	e->local.ro = p9_unpack_flag(u);
	e->local.dev = p9_unpack_flag(u);
	e->local.xattr_all = p9_unpack_flag(u);
	e->local.submounts = p9_unpack_flag(u);
	e->checks = (enum p9_checks)p9_unpack_number(u, P9_CHECKS_CLIENT);
	e->squash = (enum p9_squash)p9_unpack_number(u, P9_SQUASH_ALL);
	e->used = p9_unpack_flag(u);
	e->root = p9_unpack_bad(u) ? NULL : p9_local_unpack(&e->local, u);
}

void p9d_unpack(struct p9d_old *old, struct p9_unpack *u)
{
	p9_local_unpack_ids(u);
	unsigned n = (unsigned)p9_unpack_number(u, P9D_EXPORT_MAX);
	for (unsigned i = 0; i < n && !p9_unpack_bad(u); i++) {
		unpack_export(&old->exports[old->nexports++], u);
	}
	n = (unsigned)p9_unpack_number(u, P9D_LISTEN_MAX);
	for (unsigned i = 0; i < n && !p9_unpack_bad(u); i++) {
		struct p9d_old_listener *l = &old->listeners[old->nlisteners++];
		p9_unpack_text(u, l->text, sizeof(l->text));
		l->fd = p9_unpack_fd(u);
		l->dev = p9_unpack_number(u, UINT64_MAX);
		l->ino = p9_unpack_number(u, UINT64_MAX);
		l->unlink_path = p9_unpack_flag(u);
		l->passed = p9_unpack_flag(u);
	}
}

/* ---- finding ---- */
static const char *difference(const struct p9d_old_export *o, const struct p9d_export *e)
{
	const struct p9_local_config *a = &o->local, *b = &e->local;
	if (a->ro != b->ro || a->dev != b->dev || a->xattr_all != b->xattr_all || a->submounts != b->submounts ||
	    o->checks != e->conf.checks || o->squash != e->conf.squash) {
		return "it has other options now";
	}
	return p9_local_same(o->root, b->path) ? NULL : "its path leads to another directory now";
}

int p9d_old_root(struct p9d_old *old, struct p9d_export *e)
{
	for (unsigned i = 0; i < old->nexports; i++) {
		struct p9d_old_export *o = &old->exports[i];
		if (strcmp(o->name, e->name) != 0 || !o->root) {
			continue;
		}
		const char *why = difference(o, e);
		if (!why) {
			e->root = o->root;
			o->root = NULL;
		} else if (o->used) {
			fprintf(stderr, "p9d: --takeover: clients are in export %s, and %s\n", e->name, why);
			return -1;
		}
		return 0;
	}
	return 0;
}

int p9d_old_check(const struct p9d_old *old)
{
	for (unsigned i = 0; i < old->nexports; i++) {
		if (old->exports[i].used && old->exports[i].root) {
			fprintf(stderr, "p9d: --takeover: clients are in export %s, and it is not shared any more\n",
				old->exports[i].name);
			return -1;
		}
	}
	return 0;
}

struct p9d_old_listener *p9d_old_listener(struct p9d_old *old, const char *text)
{
	for (unsigned i = 0; i < old->nlisteners; i++) {
		struct p9d_old_listener *l = &old->listeners[i];
		if (!l->taken && !l->passed && strcmp(l->text, text) == 0) {
			return l;
		}
	}
	return NULL;
}

/* A socket file that was made for an address that is none any more. */
static void drop_file(const struct p9d_old_listener *l)
{
	struct p9_addr a;
	struct stat st;
	char why[256];
	if (l->unlink_path && p9_addr_parse(&a, l->text, why, sizeof(why)) == 0 && lstat(a.path, &st) == 0 &&
	    st.st_dev == l->dev && st.st_ino == l->ino) {
		unlink(a.path);
	}
}

void p9d_old_close(struct p9d_old *old, bool ours)
{
	for (unsigned i = 0; i < old->nlisteners; i++) {
		struct p9d_old_listener *l = &old->listeners[i];
		if (!l->taken && ours) {
			drop_file(l);
		}
		if (!l->taken && l->fd >= 0) {
			close(l->fd);
		}
	}
	for (unsigned i = 0; i < old->nexports; i++) {
		p9_local_close(old->exports[i].root);
		free(old->exports[i].name);
		free(old->exports[i].path);
	}
	old->nlisteners = old->nexports = 0;
}
