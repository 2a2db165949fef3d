/* SPDX-License-Identifier: BSD-2-Clause */
/* conform_load.c - the checks of the conformance kit, read from .9t files.
 *
 * A file begins with `suite NAME`; each check in it is `check "ID" "EXPECTATION"`, then `source "..."`, then statements.
 * What stands before the first check belongs to each. Every check has an id of its own and says its source, and none may
 * use a statement that touches this machine: the server is somewhere else. Files that do not keep to it are refused as a
 * whole, before anything runs.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "p9/conform.h"

#define SCRIPT_MAX ((size_t)1 << 20)

static const char *const order[] = { "wire",  "session", "walk",  "open",    "io",	    "attr",   "tree",
				     "xattr", "lock",	 "flush", "readdir", "concurrency", "limits", "hostile" };

static char *read_text(const char *path, size_t *len)
{
	FILE *f = fopen(path, "re");
	char *text = f ? malloc(SCRIPT_MAX + 1) : NULL;
	*len = text ? fread(text, 1, SCRIPT_MAX + 1, f) : 0;
	bool bad = !text || ferror(f) || *len > SCRIPT_MAX;
	if (f) {
		fclose(f);
	}
	if (bad) {
		errno = *len > SCRIPT_MAX ? EFBIG : errno ? errno : EIO;
		free(text);
		return NULL;
	}
	text[*len] = 0;
	return text;
}

static char *copy(const struct talk_text *t)
{
	return strndup(t->s, t->len);
}

/* Statements of which a check cannot know what they would do. */
static bool local(const struct talk_stmt *st)
{
	return st->kind == ST_HOST || st->kind == ST_PEER || st->kind == ST_EXIT || st->kind == ST_SERVER ||
	       st->kind == ST_REQUIRES;
}

static struct conform_check *add(struct conform_set *set)
{
	if (set->n == set->cap) {
		size_t cap = set->cap ? 2 * set->cap : 64;
		struct conform_check *v = realloc(set->checks, cap * sizeof(*v));
		if (!v) {
			return NULL;
		}
		set->checks = v;
		set->cap = cap;
	}
	set->checks[set->n] = (struct conform_check){ 0 };
	return &set->checks[set->n++];
}

/* A word for what is wrong with an id, or NULL. It becomes the name of a directory. */
static const char *bad_id(const struct conform_set *set, const struct talk_text *id)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
	if (id->len == 0 || id->len > 60) {
		return "an id of 1 to 60 characters";
	}
	for (size_t i = 0; i < id->len; i++) {
		if (!id->s[i] || !strchr(good, id->s[i])) {
			return "an id of letters, digits, - and _";
		}
	}
	for (size_t i = 0; i < set->n; i++) {
		if (p9_talk_is(id, set->checks[i].id)) {
			return "an id that no other check has";
		}
	}
	return NULL;
}

/* Looks through the statements of a check, or of what stands before the first one. */
static int look(struct conform_file *f, unsigned from, unsigned to, struct conform_check *c)
{
	for (unsigned i = from; i < to; i++) {
		const struct talk_stmt *st = &f->script.stmts[i];
		if (local(st)) {
			return p9_talk_fail(&f->err, st->pos, "%.*s: not in a check, which runs against any server",
					    (int)strcspn(st->source.s, " \t\n"), st->source.s);
		}
		if (c && st->kind == ST_SOURCE && !c->source) {
			c->source = copy(&st->name);
		}
		if (c) {
			c->scratch |= st->kind == ST_SCRATCH || st->kind == ST_FILE;
		}
	}
	return 0;
}

static int one_check(struct conform_set *set, struct conform_file *f, const struct talk_text *suite,
		     const unsigned range[3])
{
	const struct talk_stmt *st = &f->script.stmts[range[1]];
	const char *why = bad_id(set, &st->id);
	struct conform_check *c = why ? NULL : add(set);
	if (!c) {
		return p9_talk_fail(&f->err, st->pos, "expected %s, found \"%.*s\"", why ? why : "more memory",
				    (int)st->id.len, st->id.s);
	}
	c->file = f;
	memcpy(c->range, range, sizeof(c->range));
	c->id = copy(&st->id);
	c->suite = copy(suite);
	c->expect = copy(&st->name);
	if (look(f, 0, range[0], c) < 0 || look(f, range[1], range[2], c) < 0) {
		return -1;
	}
	if (!c->id || !c->suite || !c->expect) {
		return p9_talk_fail(&f->err, st->pos, "out of memory");
	}
	return c->source ? 0 : p9_talk_fail(&f->err, st->pos, "expected a source \"...\" in the check %s", c->id);
}

static int checks_of(struct conform_set *set, struct conform_file *f)
{
	const struct talk_script *s = &f->script;
	struct talk_text suite = { NULL, 0 };
	unsigned prologue = 0;
	while (prologue < s->n && s->stmts[prologue].kind != ST_TEST) {
		if (s->stmts[prologue].kind == ST_SUITE) {
			suite = s->stmts[prologue].name;
		}
		prologue++;
	}
	if (!suite.s) {
		return p9_talk_fail(&f->err, (struct talk_pos){ 1, 1 }, "expected suite NAME before the first check");
	}
	int rc = 0;
	for (unsigned from = prologue, to; rc == 0 && from < s->n; from = to) {
		to = from + 1;
		while (to < s->n && s->stmts[to].kind != ST_TEST) {
			to++;
		}
		rc = one_check(set, f, &suite, (const unsigned[3]){ prologue, from, to });
	}
	return rc;
}

static bool load_file(struct conform_set *set, const struct p9_cli *cli, const char *dir, const char *name)
{
	size_t len;
	struct conform_file *f = calloc(1, sizeof(*f));
	if (!f || !(f->path = p9_path_join(dir, name))) {
		free(f);
		p9_cli_say(cli, "out of memory");
		return false;
	}
	f->next = set->files;
	set->files = f;
	f->err.file = f->path;
	f->script.err = &f->err;
	f->text = read_text(f->path, &len);
	if (!f->text) {
		p9_cli_fail_errno(cli, f->path, errno);
		return false;
	}
	if (p9_talk_parse(&f->script, f->text, len) < 0 || checks_of(set, f) < 0) {
		p9_cli_say(cli, "%s", f->err.text);
		return false;
	}
	return true;
}

bool p9_conform_load(struct conform_set *set, const struct p9_cli *cli, const char *dir)
{
	struct dirent **names;
	int n = scandir(dir, &names, NULL, alphasort);
	bool fine = n >= 0;
	unsigned files = 0;
	if (n < 0) {
		p9_cli_fail_errno(cli, dir, errno);
	}
	for (int i = 0; i < n; i++) {
		size_t len = strlen(names[i]->d_name);
		if (fine && len > 3 && strcmp(names[i]->d_name + len - 3, ".9t") == 0) {
			fine = load_file(set, cli, dir, names[i]->d_name);
			files++;
		}
		free(names[i]);
	}
	if (n >= 0) {
		free(names);
	}
	if (fine && files == 0) {
		p9_cli_say(cli, "%s: no .9t files in it", dir);
	}
	return fine && files > 0;
}

static size_t rank(const char *suite)
{
	size_t i = 0;
	while (i < P9_COUNT(order) && strcmp(order[i], suite) != 0) {
		i++;
	}
	return i;
}

static int compare(const void *va, const void *vb)
{
	const struct conform_check *a = va, *b = vb;
	size_t x = rank(a->suite), y = rank(b->suite);
	int d = x == y ? strcmp(a->suite, b->suite) : x < y ? -1 : 1;
	return d ? d : strcmp(a->id, b->id);
}

void p9_conform_sort(struct conform_set *set)
{
	if (set->n > 1) {
		qsort(set->checks, set->n, sizeof(*set->checks), compare);
	}
}

/* DIR/WHERE when DIR/MARK is there and it can be listed; else NULL. */
static char *beside(const char *dir, const char *mark, const char *where)
{
	char *m = p9_path_join(dir, mark), *w = p9_path_join(dir, where);
	if (!m || !w || access(m, F_OK) != 0 || access(w, R_OK | X_OK) != 0) {
		free(w);
		w = NULL;
	}
	free(m);
	return w;
}

char *p9_conform_find(void)
{
	const char *env = getenv("P9_CONFORM");
	char exe[4096], *dir = NULL;
	if (env && *env) {
		return strdup(env);
	}
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	exe[n < 0 ? 0 : n] = 0;
	char *slash = strrchr(exe, '/');
	if (slash) {
		*slash = 0;
		dir = beside(exe, "build.ninja", "../conform");
		dir = dir ? dir : beside(exe, "p9", "../share/p9/conform");
	}
	return dir ? dir : strdup(P9_DATADIR "/p9/conform");
}

void p9_conform_unload(struct conform_set *set)
{
	for (size_t i = 0; i < set->n; i++) {
		struct conform_check *c = &set->checks[i];
		free(c->id);
		free(c->suite);
		free(c->expect);
		free(c->source);
		free(c->why);
	}
	free(set->checks);
	while (set->files) {
		struct conform_file *f = set->files;
		set->files = f->next;
		p9_talk_script_fini(&f->script);
		free(f->text);
		free(f->path);
		free(f);
	}
}
