/* SPDX-License-Identifier: BSD-2-Clause */
/* tree.c - which request comes next when a tree is copied or removed.
 *
 * Called by get, put, cp, rm, find and du with their operations; calls them when there is room for a request. A directory counts its
 * unfinished entries; when the last one is finished it waits in the list of those to be left, and so it goes on upwards.
 * Must stay true: each call of an operation and each callback sends at most one request, so that the room counted
 * before is there; a directory outlives all that is in it.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "p9/tree.h"

int p9_tree_push(struct p9_tree *t, struct p9_dir *parent, char *name, struct p9_dir **out)
{
	struct p9_dir *d = name ? calloc(1, sizeof(*d)) : NULL;
	if (!d) {
		free(name);
		return -P9_ENOMEM;
	}
	d->tree = t;
	d->parent = parent;
	d->name = name;
	d->fid = d->openfid = P9_NOFID;
	d->upfid = parent ? parent->fid : P9_NOFID;
	d->depth = parent ? parent->depth + 1 : 0;
	d->localfd = -1;
	d->next = t->stack;
	t->stack = d;
	d->all_next = t->all;
	if (t->all) {
		t->all->all_prev = d;
	}
	t->all = d;
	t->ndirs++;
	if (parent) {
		parent->pending++;
	}
	if (out) {
		*out = d;
	}
	return 0;
}

static void free_dir(struct p9_dir *d)
{
	struct p9_tree *t = d->tree;
	*(d->all_prev ? &d->all_prev->all_next : &t->all) = d->all_next;
	if (d->all_next) {
		d->all_next->all_prev = d->all_prev;
	}
	if (t->ops->forget) {
		t->ops->forget(d);
	}
	if (d->local) {
		closedir(d->local); /* closes localfd */
	} else if (d->localfd >= 0) {
		close(d->localfd);
	}
	free(d->buf);
	free(d->name);
	free(d);
	t->ndirs--;
}

void p9_tree_fini(struct p9_tree *t)
{
	while (t->all) {
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): free_dir takes the directory out of the list */
		free_dir(t->all);
	}
}

static void unref(struct p9_dir *d)
{
	if (--d->pending == 0) {
		d->next = d->tree->leaving;
		d->tree->leaving = d;
	}
}

static void gone(struct p9_dir *d)
{
	struct p9_dir *parent = d->parent;
	free_dir(d);
	if (parent) {
		unref(parent);
	}
}

static void on_clunk(struct p9_call *call, const struct p9_msg *r)
{
	gone((struct p9_dir *)call);
}

bool p9_tree_send(struct p9_dir *d, struct p9_msg *t, void (*done)(struct p9_call *call, const struct p9_msg *r))
{
	d->call.done = done;
	return p9_client_send(d->tree->client, t, t->type == P9_Treaddir ? d->buf : NULL, &d->call) >= 0;
}

static void on_clunk_open(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_dir *d = (struct p9_dir *)call;
	d->openfid = P9_NOFID;
	p9_tree_left(d);
}

void p9_tree_left(struct p9_dir *d)
{
	struct p9_msg open = { .type = P9_Tclunk, .tclunk = { .fid = d->openfid } };
	if (d->openfid != P9_NOFID && p9_tree_send(d, &open, on_clunk_open)) {
		return; /* a listing that was given up */
	}
	struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = d->fid } };
	if (d->fid == P9_NOFID || !p9_tree_send(d, &t, on_clunk)) {
		gone(d);
	}
}

void p9_tree_again(struct p9_dir *d)
{
	d->cookie = d->pos = d->len = d->removed = 0;
	d->next = d->tree->stack;
	d->tree->stack = d;
}

static void end_listing(struct p9_dir *d)
{
	struct p9_tree *t = d->tree;
	for (unsigned i = 0; i < t->nlisters; i++) {
		if (t->listers[i] == d) {
			t->listers[i] = t->listers[--t->nlisters];
			break;
		}
	}
	d->listing = false;
	unref(d);
}

void p9_tree_opened(struct p9_dir *d, int rc)
{
	d->busy = false;
	if (rc < 0) {
		d->failed = true;
		end_listing(d);
	}
}

void p9_tree_job_begin(struct p9_tree *t, struct p9_dir *d)
{
	t->njobs++;
	if (d) {
		d->pending++;
	}
}

void p9_tree_job_end(struct p9_tree *t, struct p9_dir *d)
{
	t->njobs--;
	if (d) {
		unref(d);
	}
}

/* The next directory of the stack. When nothing new may begin it only goes away. */
static void pop(struct p9_tree *t)
{
	struct p9_dir *d = t->stack;
	t->stack = d->next;
	if (t->abort) {
		gone(d);
		return;
	}
	d->pending++;
	d->listing = d->busy = true;
	t->listers[t->nlisters++] = d;
	t->ops->open(d);
}

/* Begins one thing. False when there is none. */
static bool schedule_one(struct p9_tree *t)
{
	unsigned most = t->maxjobs ? t->maxjobs : P9_TREE_JOBS;
	if (t->leaving) {
		struct p9_dir *d = t->leaving;
		t->leaving = d->next;
		t->ops->leave(d);
		return true;
	}
	for (unsigned i = 0; i < t->nlisters; i++) {
		struct p9_dir *d = t->listers[i];
		if (d->busy || (t->njobs >= most && !t->abort)) {
			continue;
		}
		enum p9_next n = t->abort ? P9_NEXT_END : t->ops->next(d);
		if (n == P9_NEXT_END) {
			end_listing(d);
		}
		return true;
	}
	if (t->stack && (t->nlisters < P9_TREE_LISTERS || t->abort)) {
		pop(t);
		return true;
	}
	return false;
}

bool p9_tree_room(const struct p9_tree *t)
{
	unsigned most = t->maxjobs ? t->maxjobs : P9_TREE_JOBS;
	return p9_client_room(t->client) > 0 && p9_client_pending(t->client) < most;
}

int p9_tree_step(struct p9_tree *t)
{
	t->abort |= p9_interrupted != 0;
	if (t->ops->pump) {
		t->ops->pump(t);
	}
	while (p9_tree_room(t) && schedule_one(t)) {
	}
	bool wait = p9_client_pending(t->client) > 0 || p9_client_dead(t->client);
	int rc = wait ? p9_client_step(t->client) : 0;
	return rc < 0 ? rc : 0;
}

int p9_tree_run(struct p9_tree *t)
{
	int rc = 0;
	while (rc >= 0 && (t->ndirs > 0 || t->njobs > 0)) {
		rc = p9_tree_step(t);
	}
	return rc;
}

void p9_tree_say(const struct p9_dir *d, const char *name, int rc)
{
	char *path = p9_tree_path(d, name);
	d->tree->failed = true;
	if (!p9_client_dead(d->tree->client)) {
		p9_cli_fail(d->tree->cli, d->tree->client, path ? path : d->name, rc);
	}
	free(path);
}

/* From the top: the names on the way are counted first, then written from the end. */
char *p9_tree_path(const struct p9_dir *d, const char *name)
{
	size_t n = strlen(name) + 1;
	for (const struct p9_dir *i = d; i; i = i->parent) {
		n += strlen(i->name) + 1;
	}
	char *path = malloc(n);
	if (!path) {
		return NULL;
	}
	char *end = path + n - strlen(name) - 1;
	strcpy(end, name);
	for (const struct p9_dir *i = d; i; i = i->parent) {
		size_t k = strlen(i->name);
		bool slash = *end != 0 && (k == 0 || i->name[k - 1] != '/');
		if (slash) {
			*--end = '/';
		}
		end -= k;
		memcpy(end, i->name, k);
	}
	memmove(path, end, strlen(end) + 1);
	return path;
}
