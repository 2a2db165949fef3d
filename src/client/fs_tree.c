/* SPDX-License-Identifier: BSD-2-Clause */
/* fs_tree.c - going through trees: for somebody who looks, and to remove them.
 *
 * A stack of directories, deepest last, each with a fid of its own and a listing. Everything is done from a directory's
 * fid with one name, so that nobody who moves or replaces what is above leads us elsewhere. Only the deepest eight
 * listings hold buffers; those above are parked and read their block again when their turn comes.
 * Removing, the names of one batch are unlinked with many requests in flight; what turns out to be a directory is entered.
 * Must stay true: depth costs heap, never C stack; a fid on the stack is clunked when its level goes.
 */
#include <stdlib.h>
#include <string.h>
#include "client/fs.h"
#include "client/queue.h"

#define AWAKE 8
#define BATCH 64

struct level {
	uint32_t fid;
	struct p9_fs_dir *dir;
	size_t path;   /* walking: bytes of the path up to and with this directory */
	char *name;    /* removing: in the level above */
	char **inside; /* removing: directories of the batch that wait to be entered */
	unsigned ninside;
	bool removed, failed; /* removing: anything, since the listing began; something is still in it */
};

struct stack {
	struct p9_client *client;
	struct level *v;
	unsigned n, cap;
	int first; /* error */
};

static struct level *top(struct stack *s)
{
	return &s->v[s->n - 1];
}

static void note(struct stack *s, int rc)
{
	s->first = s->first < 0 ? s->first : rc;
}

/* Takes the fid over, also on errors. */
static int push(struct stack *s, uint32_t fid, unsigned flags)
{
	struct p9_client *c = s->client;
	if (s->n == P9_TREE_DEPTH) {
		return p9_fs_end(c, fid, -P9_ELOOP);
	}
	if (s->n == s->cap) {
		unsigned cap = s->cap ? 2 * s->cap : 16;
		struct level *more = realloc(s->v, cap * sizeof(*more));
		if (!more) {
			return p9_fs_end(c, fid, -P9_ENOMEM);
		}
		s->v = more;
		s->cap = cap;
	}
	struct level *l = &s->v[s->n];
	*l = (struct level){ .fid = fid };
	int rc = p9_dir_of(c, fid, flags, &l->dir);
	if (rc < 0) {
		return p9_fs_end(c, fid, rc);
	}
	s->n++;
	if (s->n > AWAKE) {
		p9_dir_park(s->v[s->n - AWAKE - 1].dir);
	}
	return 0;
}

static void pop(struct stack *s)
{
	struct level *l = top(s);
	p9_dir_close(l->dir);
	p9_client_clunk(s->client, l->fid);
	while (l->ninside > 0) {
		free(l->inside[--l->ninside]);
	}
	free(l->inside);
	free(l->name);
	s->n--;
}

static int finish(struct stack *s, int rc)
{
	while (s->n > 0) {
		pop(s);
	}
	free(s->v);
	rc = rc < 0 ? rc : s->first;
	return rc < 0 && !p9_client_dead(s->client) ? p9_client_set_error(s->client, rc) : rc;
}

/* A fid for a name that is a directory. -P9_ENOTDIR when it is something else by now. */
static int enter(struct p9_client *c, uint32_t dir, const char *name, uint32_t *fid)
{
	struct p9_qid qid;
	int rc = p9_client_walk1(c, dir, name, fid, &qid);
	return rc >= 0 && !(qid.type & P9_QTDIR) ? p9_fs_end(c, *fid, -P9_ENOTDIR) : rc;
}

/* ---- walking ---- */
struct walk {
	struct stack stack;
	unsigned flags;
	p9_visit_fn *f;
	void *arg;
	char *path;
	size_t cap;
};

static int set_path(struct walk *w, size_t at, const char *name)
{
	size_t n = strlen(name);
	bool slash = at > 0 && w->path[at - 1] != '/';
	if (at + n + 2 > w->cap) {
		size_t cap = 2 * (at + n + 2);
		char *more = realloc(w->path, cap);
		if (!more) {
			return p9_client_set_error(w->stack.client, P9_ENOMEM);
		}
		w->path = more;
		w->cap = cap;
	}
	if (slash) {
		w->path[at++] = '/';
	}
	memcpy(w->path + at, name, n + 1);
	return 0;
}

static const char *last_element(const char *path)
{
	/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): no caller passes NULL */
	const char *slash = strrchr(path, '/');
	return slash && slash[1] ? slash + 1 : path;
}

static int visit(struct walk *w, struct p9_visit *v)
{
	v->path = w->path;
	v->name = last_element(w->path);
	if (v->error < 0) {
		note(&w->stack, v->error);
	}
	return w->f(w->arg, v);
}

/* Says that a directory could not be entered or listed. */
static int complain(struct walk *w, unsigned depth, int error)
{
	struct p9_visit v = { .depth = depth, .type = P9_DT_DIR, .error = error };
	int rc = p9_client_dead(w->stack.client) ? error : visit(w, &v);
	return rc < 0 ? rc : 0;
}

static int see_entry(struct walk *w, const struct p9_fs_entry *e)
{
	struct stack *s = &w->stack;
	struct p9_visit v = { .depth = s->n, .type = e->type, .error = e->error };
	uint32_t fid;
	int rc = set_path(w, top(s)->path, e->name);
	v.st = (w->flags & P9_WALK_TREE_ATTRS) && !e->error ? &e->st : NULL;
	rc = rc < 0 ? rc : visit(w, &v);
	if (rc != 0 || e->error || e->type != P9_DT_DIR) {
		return rc < 0 ? rc : 0;
	}
	rc = enter(s->client, top(s)->fid, e->name, &fid);
	rc = rc < 0 ? rc : push(s, fid, w->flags & P9_WALK_TREE_ATTRS ? P9_DIR_ATTRS : P9_DIR_PLAIN);
	if (rc < 0) {
		return complain(w, v.depth, rc);
	}
	top(s)->path = strlen(w->path);
	return 0;
}

static int leave(struct walk *w)
{
	struct p9_visit v = { .depth = w->stack.n - 1, .leaving = true, .type = P9_DT_DIR };
	w->path[top(&w->stack)->path] = 0;
	int rc = w->flags & P9_WALK_TREE_POST ? visit(w, &v) : 0;
	pop(&w->stack);
	return rc < 0 ? rc : 0;
}

static int walk_on(struct walk *w)
{
	struct stack *s = &w->stack;
	struct p9_fs_entry e;
	int rc = p9_dir_next(top(s)->dir, &e);
	if (rc > 0) {
		return see_entry(w, &e);
	}
	if (rc < 0) {
		w->path[top(s)->path] = 0;
		rc = complain(w, s->n - 1, rc);
	}
	return rc < 0 ? rc : leave(w);
}

/* The path itself. */
static int walk_first(struct walk *w, const char *path)
{
	struct p9_client *c = w->stack.client;
	struct p9_rgetattr st;
	uint32_t fid;
	int rc = set_path(w, 0, path);
	rc = rc < 0 ? rc : p9_client_walk(c, path, P9_WALK_FOLLOW, &fid);
	if (rc < 0) {
		return rc;
	}
	rc = p9_fs_getattr(c, fid, &st);
	if (rc < 0) {
		return p9_fs_end(c, fid, rc);
	}
	struct p9_visit v = { .type = p9_fs_type(st.mode), .st = w->flags & P9_WALK_TREE_ATTRS ? &st : NULL };
	rc = visit(w, &v);
	if (rc != 0 || v.type != P9_DT_DIR) {
		return p9_fs_end(c, fid, rc < 0 ? rc : 0);
	}
	rc = push(&w->stack, fid, w->flags & P9_WALK_TREE_ATTRS ? P9_DIR_ATTRS : P9_DIR_PLAIN);
	if (rc >= 0) {
		top(&w->stack)->path = strlen(w->path);
	}
	return rc;
}

int p9_walk_tree(struct p9_client *c, const char *path, unsigned flags, p9_visit_fn *f, void *arg)
{
	struct walk w = { .stack = { .client = c }, .flags = flags, .f = f, .arg = arg };
	int rc = walk_first(&w, path);
	while (rc >= 0 && w.stack.n > 0) {
		rc = walk_on(&w);
	}
	free(w.path);
	return finish(&w.stack, rc);
}

/* ---- removing ---- */
struct name {
	struct p9_op op;
	uint8_t type;
	char text[P9_NAMEMAX + 1];
};

static int add_inside(struct level *l, const char *name)
{
	if (!l->inside) {
		l->inside = calloc(BATCH, sizeof(*l->inside));
	}
	char *copy = l->inside ? strdup(name) : NULL;
	if (!copy) {
		return -P9_ENOMEM;
	}
	l->inside[l->ninside++] = copy;
	return 0;
}

static bool is_a_directory(int rc)
{
	return rc == -P9_EISDIR || rc == -P9_EPERM;
}

/* What became of a name. A directory is put aside; what has gone by itself is as good as removed. */
static void settle(struct stack *s, struct level *l, const struct name *n, int rc)
{
	if (rc >= 0 || rc == -P9_ENOENT) {
		l->removed = true;
		return;
	}
	rc = n->type == P9_DT_DIR || (n->type == 0 && is_a_directory(rc)) ? add_inside(l, n->text) : rc;
	if (rc < 0) {
		note(s, rc);
		l->failed = true;
	}
}

static int unlink_batch(struct stack *s, struct name *v, unsigned n)
{
	struct level *l = top(s);
	struct p9_queue q;
	struct p9_op *op;
	p9_queue_init(&q, s->client);
	for (unsigned i = 0; i < n; i++) {
		if (v[i].type == P9_DT_DIR) {
			settle(s, l, &v[i], -P9_EISDIR);
			continue;
		}
		struct p9_str name = { v[i].text, (uint16_t)strlen(v[i].text) };
		v[i].op.msg = (struct p9_msg){ .type = P9_Tunlinkat, .tunlinkat = { l->fid, name, 0 } };
		p9_queue_send(&q, &v[i].op);
	}
	while ((op = p9_queue_next(&q))) {
		settle(s, l, (struct name *)op, p9_op_error(op));
	}
	p9_queue_fini(&q);
	return p9_client_dead(s->client) ? p9_client_link_error(s->client) : 0;
}

/* Unlinks the next names of the directory on top. 0 when there are none. */
static int remove_batch(struct stack *s, struct name *v)
{
	struct level *l = top(s);
	struct p9_fs_entry e;
	unsigned n = 0;
	int rc = 1;
	while (n < BATCH && (rc = p9_dir_next(l->dir, &e)) > 0) {
		v[n] = (struct name){ .type = e.type };
		memcpy(v[n++].text, e.name, strlen(e.name) + 1);
	}
	int removed = unlink_batch(s, v, n);
	return rc < 0 ? rc : removed < 0 ? removed : (int)n;
}

/* The directory on top is as empty as it gets: away with it. */
static int remove_top(struct stack *s, uint32_t up)
{
	struct level *l = top(s);
	int rc = l->failed ? -P9_ENOTEMPTY : p9_client_unlinkat(s->client, up, l->name, P9_DOTL_AT_REMOVEDIR);
	bool again = rc == -P9_ENOTEMPTY && !l->failed && l->removed;
	if (again) { /* servers leave entries out of a listing while others are removed */
		l->removed = false;
		p9_dir_seek(l->dir, 0);
		return 0;
	}
	if (rc < 0 && rc != -P9_ENOENT) {
		note(s, rc);
	}
	pop(s);
	if (s->n > 0) {
		top(s)->failed |= rc < 0 && rc != -P9_ENOENT;
		top(s)->removed |= rc >= 0;
	}
	return p9_client_dead(s->client) ? p9_client_link_error(s->client) : 0;
}

/* Takes `name` over. Errors that are this directory's alone are noted. */
static int enter_to_remove(struct stack *s, uint32_t dir, char *name)
{
	uint32_t fid;
	int rc = enter(s->client, dir, name, &fid);
	rc = rc < 0 ? rc : push(s, fid, P9_DIR_PLAIN);
	if (rc >= 0) {
		top(s)->name = name;
		return 0;
	}
	free(name);
	if (rc != -P9_ENOENT && s->n > 0) {
		top(s)->failed = true;
	}
	if (rc != -P9_ENOENT) {
		note(s, rc);
	}
	return p9_client_dead(s->client) ? rc : 0;
}

static int remove_below(struct stack *s, uint32_t dir)
{
	struct name *v = calloc(BATCH, sizeof(*v));
	int rc = v ? 0 : -P9_ENOMEM;
	while (rc >= 0 && s->n > 0) {
		struct level *l = top(s);
		if (l->ninside > 0) {
			rc = enter_to_remove(s, l->fid, l->inside[--l->ninside]);
			continue;
		}
		rc = remove_batch(s, v);
		if (rc < 0 && !p9_client_dead(s->client)) {
			note(s, rc);
			l->failed = true;
			rc = 0;
		}
		if (rc == 0 && l->ninside == 0) {
			rc = remove_top(s, s->n > 1 ? s->v[s->n - 2].fid : dir);
		}
	}
	free(v);
	return rc;
}

int p9_remove_tree(struct p9_client *c, const char *path)
{
	struct stack s = { .client = c };
	uint32_t dir;
	char name[P9_NAMEMAX + 1];
	int rc = p9_client_walk_parent(c, path, &dir, name);
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_unlinkat(c, dir, name, 0);
	if (is_a_directory(rc)) {
		char *copy = strdup(name);
		rc = copy ? enter_to_remove(&s, dir, copy) : -P9_ENOMEM;
		rc = rc < 0 ? rc : remove_below(&s, dir);
	}
	return p9_fs_end(c, dir, finish(&s, rc));
}
