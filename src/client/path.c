/* SPDX-License-Identifier: BSD-2-Clause */
/* path.c - from a path to a fid: any depth, and symbolic links as their owner meant them.
 *
 * A server never follows a link: a walk stops behind it, and its last qid says that it is one. Then the text of the
 * link takes its place in the path, "/" being the attached root, and the walk begins again; at most 40 times.
 * The way that was walked so far has no links in it, so that ".." in the rest means what the server says it means.
 * Names go out 16 at a time, fewer when msize is small.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "client/internal.h"

#define LINKS_MAX 40

struct path {
	char *text; /* what is still to be walked, from the root; owned */
	int follow;
	int links;
};

struct element {
	const char *s;
	size_t len;
};

/* The next element that means something. False at the end. */
static bool next_element(const char **p, struct element *e)
{
	for (;;) {
		/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): no caller passes NULL */
		*p += strspn(*p, "/");
		e->s = *p;
		e->len = strcspn(*p, "/");
		*p += e->len;
		if (e->len == 0) {
			return false;
		}
		if (e->len != 1 || e->s[0] != '.') {
			return true;
		}
	}
}

static bool more_elements(const char *p)
{
	struct element e;
	return next_element(&p, &e);
}

/* Fills a Twalk with names from *p on. */
static int take_names(struct p9_client *c, struct p9_strs *names, const char **p)
{
	size_t room = c->msize - 64;
	names->n = 0;
	for (;;) {
		const char *before = *p;
		struct element e;
		if (!next_element(p, &e)) {
			return 0;
		}
		if (e.len > P9_NAMEMAX) {
			return p9_client_set_error(c, P9_ENAMETOOLONG);
		}
		if (names->n == P9_MAXWELEM || e.len + 2 > room) {
			*p = before;
			return 0;
		}
		room -= e.len + 2;
		names->v[names->n++] = (struct p9_str){ e.s, (uint16_t)e.len };
	}
}

/* What a walk over the whole path came to. */
struct walked {
	uint32_t fid; /* last file reached; made when `made` */
	bool made;
	unsigned short_by;  /* names of the last Twalk that were not reached */
	struct p9_qid last; /* of the last file reached, when any element was walked */
	const char *upto;   /* in the path: behind the last element reached */
	const char *at;	    /* in the path: where the last element reached begins */
};

static void note_reached(struct walked *w, const struct p9_strs *names, const struct p9_qids *qids)
{
	if (qids->n > 0) {
		const struct p9_str *n = &names->v[qids->n - 1];
		w->last = qids->v[qids->n - 1];
		w->at = n->s;
		w->upto = n->s + n->len;
	}
	w->short_by = names->n - qids->n;
}

/* Walks as far as it goes, with one new fid. Returns 0 also when that is not the end; then short_by is not 0. */
static int walk_far(struct p9_client *c, const char *path, struct walked *w)
{
	uint32_t from = c->root;
	const char *p = path;
	*w = (struct walked){ .upto = path, .at = path, .last = { .type = P9_QTDIR } };
	int rc = p9_client_fid(c, &w->fid);
	do {
		struct p9_msg r, t = { .type = P9_Twalk, .twalk = { .fid = from, .newfid = w->fid } };
		rc = rc < 0 ? rc : take_names(c, &t.twalk.wname, &p);
		if (rc < 0) {
			return rc;
		}
		struct p9_strs names = t.twalk.wname;
		rc = p9_client_call(c, &t, NULL, &r);
		if (rc < 0 && w->made && (w->last.type & P9_QTSYMLINK) && !p9_client_dead(c)) {
			w->short_by = names.n; /* the link was the last of the Twalk before */
			return 0;
		}
		if (rc < 0) {
			return rc;
		}
		note_reached(w, &names, &r.rwalk.wqid);
		w->made |= w->short_by == 0;
		from = w->fid;
	} while (w->short_by == 0 && more_elements(p));
	return 0;
}

/* Replaces the link that ends at w->upto by its text. */
static int splice(struct p9_client *c, struct path *path, const struct walked *w, const char *target)
{
	size_t prefix = target[0] == '/' ? 0 : (size_t)(w->at - path->text);
	char *text;
	if (++path->links > LINKS_MAX) {
		return p9_client_set_error(c, P9_ELOOP);
	}
	if (asprintf(&text, "%.*s%s/%s", (int)prefix, path->text, target, w->upto) < 0) {
		return p9_client_set_error(c, P9_ENOMEM);
	}
	free(path->text);
	path->text = text;
	return 0;
}

/* A fid for the first `end` bytes of the path, which were walked before, so that they are no link's. */
static int walk_prefix(struct p9_client *c, const char *path, size_t end, uint32_t *fid)
{
	struct walked w = { 0 };
	/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): no caller passes NULL */
	char *head = strndup(path, end);
	int rc = head ? walk_far(c, head, &w) : p9_client_set_error(c, P9_ENOMEM);
	free(head);
	*fid = w.fid;
	if (rc >= 0 && w.short_by) {
		if (w.made) {
			p9_client_clunk(c, w.fid);
		} else {
			p9_client_fid_unused(c, w.fid);
		}
		return p9_client_set_error(c, P9_ENOENT);
	}
	return rc;
}

static int follow_link(struct p9_client *c, struct path *path, const struct walked *w)
{
	char target[P9_TARGETMAX + 1];
	uint32_t fid;
	int rc = walk_prefix(c, path->text, (size_t)(w->upto - path->text), &fid);
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_readlink(c, fid, target, sizeof(target));
	if (rc < 0) {
		int keep = rc;
		p9_client_clunk(c, fid);
		return p9_client_dead(c) ? keep : p9_client_set_error(c, keep);
	}
	p9_client_clunk(c, fid);
	return splice(c, path, w, target);
}

/* A walk that came short does not say why. Ask again, for the one element. */
static int ask_why(struct p9_client *c, const struct path *path, const struct walked *w)
{
	uint32_t dir, fid;
	struct element e;
	char name[P9_NAMEMAX + 1];
	const char *p = w->upto;
	if (!(w->last.type & P9_QTDIR)) {
		return p9_client_set_error(c, P9_ENOTDIR);
	}
	if (!next_element(&p, &e) || e.len > P9_NAMEMAX) {
		return p9_client_set_error(c, P9_ENOENT);
	}
	memcpy(name, e.s, e.len);
	name[e.len] = 0;
	int rc = walk_prefix(c, path->text, (size_t)(w->upto - path->text), &dir);
	if (rc < 0) {
		return rc;
	}
	int why = p9_client_walk1(c, dir, name, &fid, NULL);
	if (why >= 0) { /* it has appeared in between */
		p9_client_clunk(c, fid);
		why = -P9_ENOENT;
	}
	p9_client_clunk(c, dir);
	return p9_client_dead(c) ? why : p9_client_set_error(c, why);
}

/* Some servers make the fid of a walk that came short: clunk it also when it should not be there. */
static int walk_once(struct p9_client *c, struct path *path, uint32_t *fid, bool *again)
{
	struct walked w;
	int rc = walk_far(c, path->text, &w);
	*again = false;
	if (rc < 0) {
		if (w.made && !p9_client_dead(c)) {
			p9_client_clunk(c, w.fid);
			p9_client_set_error(c, rc);
		}
		return rc;
	}
	bool is_link = w.last.type & P9_QTSYMLINK;
	if (w.short_by == 0 && !(is_link && (path->follow || *w.upto == '/'))) {
		*fid = w.fid;
		return 0;
	}
	p9_client_clunk(c, w.fid);
	if (!is_link) {
		return ask_why(c, path, &w);
	}
	*again = true;
	return follow_link(c, path, &w);
}

int p9_client_walk(struct p9_client *c, const char *text, int follow, uint32_t *fid)
{
	struct path path = { strdup(text), follow, 0 };
	bool again = true;
	int rc = path.text ? 0 : p9_client_set_error(c, P9_ENOMEM);
	while (rc >= 0 && again) {
		rc = walk_once(c, &path, fid, &again);
	}
	free(path.text);
	return rc;
}

int p9_client_walk_parent(struct p9_client *c, const char *text, uint32_t *dir, char *name)
{
	size_t end = strlen(text);
	while (end > 0 && text[end - 1] == '/') {
		end--;
	}
	size_t begin = end;
	while (begin > 0 && text[begin - 1] != '/') {
		begin--;
	}
	size_t n = end - begin;
	bool dots = (n == 1 && text[begin] == '.') || (n == 2 && text[begin] == '.' && text[begin + 1] == '.');
	if (n == 0 || dots || n > P9_NAMEMAX) {
		return p9_client_set_error(c, n > P9_NAMEMAX ? P9_ENAMETOOLONG : P9_EINVAL);
	}
	memcpy(name, text + begin, n);
	name[n] = 0;
	char *head = strndup(text, begin);
	int rc = head ? p9_client_walk(c, head, P9_WALK_FOLLOW, dir) : p9_client_set_error(c, P9_ENOMEM);
	free(head);
	return rc;
}
