/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_find.c - p9 find: the paths of files that pass all of some tests.
 *
 * The tests are a list that is gone through for each file; there is no "or", and no -exec: names go to xargs -0.
 * Attributes are asked for only when a test needs them. A directory comes before what is in it; in which order the
 * entries of different directories come is not said, because many are listed at once.
 */
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "p9/scan.h"

enum kind { T_NAME, T_INAME, T_PATH, T_TYPE, T_SIZE, T_NEWER, T_MTIME, T_USER, T_GROUP, T_PERM, T_LINKS, T_EMPTY };

struct test {
	enum kind kind;
	bool negated;
	int sign; /* + - or 0, of a number */
	uint64_t n, unit;
	struct timespec than;
	const char *text;
};

enum { TESTS_MAX = 64 };

struct find {
	struct p9_scan scan;
	struct test tests[TESTS_MAX];
	unsigned ntests;
	unsigned shallowest, deepest;
	bool zero, tty;
	time_t now;
};

struct word {
	const char *name;
	enum kind kind;
	bool attrs;
};

static const struct word words[] = {
	{ "-name", T_NAME, false },  { "-iname", T_INAME, false }, { "-path", T_PATH, false },
	{ "-type", T_TYPE, false },  { "-size", T_SIZE, true },	   { "-newer", T_NEWER, true },
	{ "-mtime", T_MTIME, true }, { "-user", T_USER, true },	   { "-group", T_GROUP, true },
	{ "-perm", T_PERM, true },   { "-links", T_LINKS, true },  { "-empty", T_EMPTY, true },
};

/* ---- one file ---- */
static bool compare(const struct test *t, uint64_t n)
{
	return t->sign == '+' ? n > t->n : t->sign == '-' ? n < t->n : n == t->n;
}

static bool newer(const struct test *t, const struct p9_rgetattr *a)
{
	int64_t sec = (int64_t)a->mtime_sec;
	return sec > t->than.tv_sec || (sec == t->than.tv_sec && (long)a->mtime_nsec > t->than.tv_nsec);
}

/* The last element of a path that was given, as find(1) has it: "/" stays. */
static const char *base_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash && slash[1] ? slash + 1 : path;
}

static bool type_is(const char *letters, uint32_t type)
{
	static const struct {
		char letter;
		uint32_t type;
	} types[] = { { 'f', S_IFREG },	 { 'd', S_IFDIR }, { 'l', S_IFLNK }, { 'p', S_IFIFO },
		      { 's', S_IFSOCK }, { 'c', S_IFCHR }, { 'b', S_IFBLK } };
	for (size_t i = 0; i < P9_COUNT(types); i++) {
		if (types[i].type == type) {
			return strchr(letters, types[i].letter) != NULL;
		}
	}
	return false;
}

static bool permitted(const struct test *t, uint32_t mode)
{
	mode &= 07777;
	return t->sign == '-' ? (mode & t->n) == t->n : t->sign == '/' ? !t->n || (mode & t->n) : mode == t->n;
}

static bool pass_attr(const struct find *f, const struct test *t, const struct p9_rgetattr *a)
{
	uint64_t age = (uint64_t)f->now > a->mtime_sec ? (uint64_t)f->now - a->mtime_sec : 0;
	switch (t->kind) {
	case T_SIZE:
		return compare(t, a->size / t->unit + (a->size % t->unit != 0));
	case T_NEWER:
		return newer(t, a);
	case T_MTIME:
		return compare(t, age / 86400);
	case T_USER:
		return a->uid == t->n;
	case T_GROUP:
		return a->gid == t->n;
	case T_PERM:
		return permitted(t, a->mode);
	case T_LINKS:
		return compare(t, a->nlink);
	default: /* T_EMPTY; a directory with no more than . and .. cannot be told by its attributes */
		return S_ISREG(a->mode) && a->size == 0;
	}
}

static bool pass(const struct find *f, const struct test *t, const struct p9_found *e, const char *path)
{
	switch (t->kind) {
	case T_NAME:
		return fnmatch(t->text, base_of(e->name), 0) == 0;
	case T_INAME:
		return fnmatch(t->text, base_of(e->name), FNM_CASEFOLD) == 0;
	case T_PATH:
		return fnmatch(t->text, path, 0) == 0;
	case T_TYPE:
		return type_is(t->text, e->type);
	default:
		return pass_attr(f, t, e->attr);
	}
}

static bool found(struct p9_scan *s, const struct p9_found *e)
{
	struct find *f = (struct find *)s;
	char *path = e->up ? p9_tree_path(e->up, e->name) : strdup(e->name);
	bool wanted = path && e->depth >= f->shallowest && e->depth <= f->deepest;
	for (unsigned i = 0; wanted && i < f->ntests; i++) {
		wanted = pass(f, &f->tests[i], e, path) != f->tests[i].negated;
	}
	if (wanted && f->zero) {
		fputs(path, stdout);
		putchar(0);
	} else if (wanted) {
		p9_show_name(stdout, path, f->tty);
		putchar('\n');
	}
	if (!path) {
		s->tree.failed = true;
		p9_cli_fail(s->cli, NULL, e->name, P9_ENOMEM);
	}
	free(path);
	s->tree.abort |= ferror(stdout) != 0;
	return e->depth < f->deepest;
}

/* ---- the tests ---- */
static bool take_number(struct test *t, const char *text)
{
	char *end;
	t->sign = *text == '+' || *text == '-' ? *text : 0;
	text += t->sign != 0;
	t->n = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9') {
		return false;
	}
	t->unit = 512;
	if (t->kind == T_SIZE && *end) {
		static const char letters[] = "cwbkMG";
		static const uint64_t units[] = { 1, 2, 512, 1024, 1048576, 1073741824 };
		const char *u = strchr(letters, *end);
		t->unit = u ? units[u - letters] : 0;
		end++;
	}
	return t->unit && *end == 0;
}

static bool take_perm(struct test *t, const char *text)
{
	char *end;
	t->sign = *text == '-' || *text == '/' ? *text : 0;
	text += t->sign != 0;
	t->n = strtoull(text, &end, 8);
	return end != text && *end == 0 && t->n <= 07777;
}

static bool take_value(struct test *t, const char *text)
{
	uint32_t id = 0;
	bool ok = true;
	t->text = text;
	switch (t->kind) {
	case T_TYPE:
		return *text && strspn(text, "fdlpscb,") == strlen(text);
	case T_SIZE:
	case T_MTIME:
	case T_LINKS:
		return take_number(t, text);
	case T_PERM:
		return take_perm(t, text);
	case T_USER:
	case T_GROUP:
		ok = t->kind == T_USER ? p9_cli_user(text, &id) : p9_cli_group(text, &id);
		t->n = id;
		return ok;
	default:
		return true;
	}
}

static bool take_depth(const char *text, unsigned *depth)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);
	*depth = n < UINT32_MAX ? (unsigned)n : UINT32_MAX;
	return *text >= '0' && *text <= '9' && *end == 0;
}

/* Words that are no test. Returns how many arguments they took, 0 for another word, -1 for a bad value. */
static int take_setting(struct find *f, const char *word, const char *value)
{
	if (strcmp(word, "-print") == 0 || strcmp(word, "-print0") == 0) {
		f->zero |= word[6] == '0';
		return 1;
	}
	bool max = strcmp(word, "-maxdepth") == 0;
	if (!max && strcmp(word, "-mindepth") != 0) {
		return 0;
	}
	return value && take_depth(value, max ? &f->deepest : &f->shallowest) ? 2 : -1;
}

/* A test, with its value. Returns how many arguments it took, or -1. */
static int take_test(struct find *f, const char *word, const char *value, bool negated)
{
	for (size_t i = 0; i < P9_COUNT(words) && f->ntests < TESTS_MAX; i++) {
		if (strcmp(word, words[i].name) != 0) {
			continue;
		}
		struct test *t = &f->tests[f->ntests++];
		*t = (struct test){ .kind = words[i].kind, .negated = negated };
		f->scan.attrs |= words[i].attrs;
		if (t->kind == T_EMPTY) {
			return 1;
		}
		return value && take_value(t, value) ? 2 : -1;
	}
	return -1;
}

static int take_words(struct find *f, const struct p9_cli *cli, int argc, char **argv)
{
	for (int i = 0; i < argc;) {
		bool negated = strcmp(argv[i], "!") == 0 || strcmp(argv[i], "-not") == 0;
		i += negated;
		const char *word = i < argc ? argv[i] : "!", *value = i + 1 < argc ? argv[i + 1] : NULL;
		int n = negated ? 0 : take_setting(f, word, value);
		n = n ? n : take_test(f, word, value, negated);
		if (n < 0) {
			p9_cli_say(cli, "%s%s%s: not a test, or not a value for it", word, value ? " " : "",
				   value ? value : "");
			return P9_EXIT_USAGE;
		}
		i += n;
	}
	return P9_EXIT_OK;
}

/* -newer names a file of the server. */
static int fill_newer(struct find *f, const char **culprit)
{
	for (unsigned i = 0; i < f->ntests; i++) {
		struct test *t = &f->tests[i];
		struct p9_rgetattr st;
		uint32_t fid;
		if (t->kind != T_NEWER) {
			continue;
		}
		*culprit = t->text;
		int rc = p9_client_walk(f->scan.client, t->text, P9_WALK_FOLLOW, &fid);
		if (rc < 0) {
			return rc;
		}
		rc = p9_client_getattr(f->scan.client, fid, P9_GETATTR_MTIME, &st);
		p9_client_clunk(f->scan.client, fid);
		if (rc < 0) {
			return rc;
		}
		t->than = (struct timespec){ (time_t)st.mtime_sec, (long)st.mtime_nsec };
	}
	return 0;
}

static int find_below(struct find *f, const char *path)
{
	struct p9_client *c = f->scan.client;
	int rc = p9_client_dead(c) || ferror(stdout) ? 1 : p9_scan_run(&f->scan, path);
	return rc < 0 ? p9_cli_fail(f->scan.cli, c, path, rc) : P9_EXIT_OK;
}

int p9_cmd_find(struct p9_cli *cli, int argc, char **argv)
{
	static char *root[] = { "/" };
	struct find f = { .scan = { .cli = cli, .found = found }, .deepest = UINT32_MAX, .now = time(NULL) };
	const char *culprit = "";
	if (argc > 1 && strcmp(argv[1], "--") == 0) {
		argc--;
		argv++;
	}
	int n = 1;
	while (n < argc && argv[n][0] != '-' && strcmp(argv[n], "!") != 0) {
		n++;
	}
	if (take_words(&f, cli, argc - n, argv + n) != P9_EXIT_OK) {
		return p9_cli_usage(cli, NULL);
	}
	f.tty = isatty(STDOUT_FILENO);
	char **paths = n > 1 ? argv + 1 : root;
	int npaths = n > 1 ? n - 1 : 1;
	int code = p9_cli_dial(cli, &f.scan.client);
	if (code != P9_EXIT_OK) {
		return code;
	}
	int rc = fill_newer(&f, &culprit);
	if (rc < 0) {
		code = p9_cli_fail(cli, f.scan.client, culprit, rc);
	}
	for (int i = 0; rc >= 0 && i < npaths; i++) {
		int one = find_below(&f, paths[i]);
		code = one != P9_EXIT_OK ? one : code;
	}
	p9_client_free(f.scan.client);
	return f.scan.tree.failed ? P9_EXIT_FAILED : code;
}
