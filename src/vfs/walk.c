/* SPDX-License-Identifier: BSD-2-Clause */
/* walk.c - from a path to a fid: any depth, and symbolic links followed within the tree.
 *
 * The walker goes forward only. It holds a fid for what was walked (`from`) and the text of what is left (`rest`); a
 * Twalk takes up to 16 names. The server stops behind a link, or tells its kind in the last qid: then the walker goes to
 * the link's directory, puts the link's text in front of the rest and goes on from there, so that of all links together
 * only the rest of the path has to fit into memory. A Twalk that came short for another reason is asked again from where
 * it stopped: then the error is about the first name, and the server says it.
 * Must stay true: each turn of advance(), but one, takes an element of the rest or a link, of which there are 40; `from` is the
 * root's or the walker's own.
 */
#include "vfs/session.h"
#include "wire/cursor.h"

struct walk {
	uint32_t from;
	struct p9_qid qid; /* of from */
	const char *rest;
	int how;
	unsigned links, most; /* names of one Twalk */
};

/* The next element that means something, or an empty one at the end; moves *p behind it. */
static struct p9_str next_element(const char **p)
{
	for (;;) {
		while (**p == '/') {
			(*p)++;
		}
		const char *begin = *p;
		while (**p && **p != '/') {
			(*p)++;
		}
		size_t n = (size_t)(*p - begin);
		if (n != 1 || begin[0] != '.') {
			return (struct p9_str){ begin, (uint16_t)(n < UINT16_MAX ? n : UINT16_MAX) };
		}
	}
}
static bool is_last(const char *behind)
{
	return next_element(&behind).len == 0;
}

/* Fills a Twalk with names from the rest on; *p is behind them. */
static int take_names(const struct p9_session *s, const struct walk *w, struct p9_strs *names, const char **p)
{
	size_t room = s->engine.msize - 64;
	names->n = 0;
	*p = w->rest;
	for (;;) {
		const char *before = *p;
		struct p9_str e = next_element(p);
		bool stop = e.len == 0 || ((w->how & P9_WALK_PARENT) && is_last(*p));
		if (!stop && e.len > P9_NAMEMAX) {
			return -P9_ENAMETOOLONG;
		}
		if (stop || names->n == w->most || e.len + 2u > room) {
			*p = before;
			return 0;
		}
		room -= e.len + 2u;
		names->v[names->n++] = e;
	}
}

static int walk_names(struct p9_session *s, uint32_t from, const struct p9_strs *names, uint32_t *fid,
		      struct p9_qids *got)
{
	struct p9_msg r;
	int rc = p9_engine_fid_get(&s->engine, fid);
	if (rc < 0) {
		return rc;
	}
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = from, .newfid = *fid, .wname = *names } };
	rc = p9_session_call(s, &t, NULL, &r);
	if (rc == 0) {
		*got = r.rwalk.wqid;
	}
	return rc;
}

/* names[begin..end) from `from`, and all of them. */
static int walk_all(struct p9_session *s, uint32_t from, const struct p9_strs *names, unsigned begin, unsigned end,
		    uint32_t *fid)
{
	struct p9_strs some = { .n = (uint16_t)(end - begin) };
	struct p9_qids got;
	memcpy(some.v, names->v + begin, some.n * sizeof(some.v[0]));
	int rc = walk_names(s, from, &some, fid, &got);
	if (rc == 0 && got.n < some.n) { /* it changed in between; some servers make the fid all the same */
		p9_session_let_go(s, *fid);
		rc = -P9_ENOENT;
	}
	return rc;
}

static void go_to(struct p9_session *s, struct walk *w, uint32_t fid)
{
	p9_session_let_go(s, w->from);
	w->from = fid;
}

/* Puts a link's text in front of what is left behind it. */
static int splice(struct p9_session *s, struct walk *w, const struct p9_str *target, const char *behind)
{
	size_t left = p9_cstr_len(behind) + 1;
	if (target->len == 0) {
		return -P9_ENOENT;
	}
	if (target->len > P9_TARGETMAX || target->len + 1 + left > sizeof(s->text)) {
		return -P9_ENAMETOOLONG;
	}
	/* cppcheck-suppress comparePointers ; `behind` may lie in text */
	memmove(s->text + target->len + (*behind != 0), behind, left);
	if (*behind) {
		s->text[target->len] = '/';
	}
	memcpy(s->text, target->s, target->len);
	w->rest = s->text;
	return 0;
}

/* names[k] is a link: its directory is where we go on from, its text what we go on with. */
static int follow(struct p9_session *s, struct walk *w, const struct p9_strs *names, unsigned k)
{
	uint32_t fid;
	struct p9_msg r;
	if (++w->links > P9_SYMLINKS_MAX) {
		return -P9_ELOOP;
	}
	if (k > 0) {
		int rc = walk_all(s, w->from, names, 0, k, &fid);
		if (rc < 0) {
			return rc;
		}
		go_to(s, w, fid);
	}
	int rc = walk_all(s, w->from, names, k, k + 1, &fid);
	if (rc < 0) {
		return rc;
	}
	struct p9_msg t = { .type = P9_Treadlink, .treadlink = { .fid = fid } };
	rc = p9_session_call(s, &t, NULL, &r);
	rc = rc < 0 ? rc : splice(s, w, &r.rreadlink.target, names->v[k].s + names->v[k].len);
	p9_session_let_go(s, fid);
	if (rc == 0 && s->text[0] == '/') {
		go_to(s, w, s->root);
	}
	w->qid = (struct p9_qid){ .type = P9_QTDIR };
	return rc;
}

/* The walk ends at `from`, with the next element of the rest as the name. */
static int end_before(struct walk *w, struct p9_place *out)
{
	struct p9_str e = next_element(&w->rest);
	bool dots = e.len == 2 && e.s[0] == '.' && e.s[1] == '.';
	if (e.len == 0 || dots || e.len > P9_NAMEMAX) {
		return e.len > P9_NAMEMAX ? -P9_ENAMETOOLONG : -P9_EINVAL;
	}
	memcpy(out->name, e.s, e.len);
	out->name[e.len] = 0;
	out->name_len = e.len;
	return 0;
}

/* A Twalk that came short: at a link, at a file, or at something that is asked again. */
static int came_short(struct p9_session *s, struct walk *w, const struct p9_strs *names, const struct p9_qids *got)
{
	uint32_t fid;
	const struct p9_qid *last = &got->v[got->n - 1];
	if (last->type & P9_QTSYMLINK) {
		return follow(s, w, names, got->n - 1u);
	}
	if (!(last->type & P9_QTDIR)) {
		return -P9_ENOTDIR;
	}
	int rc = walk_all(s, w->from, names, 0, got->n, &fid);
	if (rc == 0) {
		go_to(s, w, fid);
		w->qid = *last;
		w->rest = names->v[got->n].s;
	}
	return rc;
}

/* One Twalk and what follows from it. Returns 1 to go on, 0 when `from` is the place. */
static int advance(struct p9_session *s, struct walk *w, struct p9_place *out)
{
	struct p9_strs names;
	struct p9_qids got = { 0 };
	const char *p;
	uint32_t fid;
	int rc = take_names(s, w, &names, &p);
	if (rc < 0) {
		return rc;
	}
	if (names.n == 0) {
		return w->how & P9_WALK_PARENT ? end_before(w, out) : 0;
	}
	rc = walk_names(s, w->from, &names, &fid, &got);
	if (rc == -P9_ENOENT && (w->how & P9_WALK_MISSING) && names.n == 1 && *p == 0 && !s->engine.error) {
		out->missing = true;
		return end_before(w, out);
	}
	if (rc < 0 && names.n > 1 && !s->engine.error) {
		w->most = 1; /* QEMU before 7.0 answers so for any name, not only for the first */
		return 1;
	}
	if (rc < 0) {
		return rc;
	}
	if (got.n < names.n) {
		p9_session_let_go(s, fid);
		rc = came_short(s, w, &names, &got);
		return rc < 0 ? rc : 1;
	}
	const struct p9_qid *last = &got.v[got.n - 1];
	bool more = *p != 0; /* a slash at least */
	if ((last->type & P9_QTSYMLINK) && (more || (w->how & P9_WALK_LINK))) {
		p9_session_let_go(s, fid);
		rc = follow(s, w, &names, names.n - 1u);
		return rc < 0 ? rc : 1;
	}
	go_to(s, w, fid);
	w->qid = *last;
	w->rest = p;
	return more && !(last->type & P9_QTDIR) ? -P9_ENOTDIR : 1;
}

int p9_walk(struct p9_session *s, const char *path, int how, struct p9_place *out)
{
	struct walk w = { .from = s->root, .qid = { .type = P9_QTDIR }, .rest = path, .how = how, .most = P9_MAXWELEM };
	int rc = s->engine.error;
	out->missing = false;
	out->name_len = 0;
	do {
		rc = rc < 0 ? rc : advance(s, &w, out);
	} while (rc > 0);
	if (rc < 0) {
		p9_session_let_go(s, w.from);
		return rc;
	}
	out->fid = w.from;
	out->qid = w.qid;
	return 0;
}

int p9_walk_own(struct p9_session *s, uint32_t *fid)
{
	static const struct p9_strs none;
	struct p9_qids got;
	return *fid == s->root ? walk_names(s, s->root, &none, fid, &got) : 0;
}
