/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_tree.c - p9 tree: a directory and all below it as a drawing, by name.
 *
 * Each directory on the way down keeps its sorted entries; only those of the current branch are in memory, and depth
 * costs no C stack. Entries are asked for without attributes: what they are is in the listing.
 */
#include <dirent.h>
#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "p9/p9.h"

struct level { /* a directory on the way down */
	struct level *up;
	char *path;
	char *lines; /* in front of each entry: what goes on of the levels above */
	struct p9_entry *entries;
	size_t n, cap, at;
};

struct drawing {
	struct p9_cli *cli;
	struct p9_client *client;
	bool all, dirs_only, tty, utf8;
	unsigned deepest;
	struct level *level;
	unsigned depth;
	uint64_t dirs, files;
	int code;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct p9_entry *)a)->name, ((const struct p9_entry *)b)->name);
}

static int take_entry(struct p9_list *l, struct p9_entry *e)
{
	struct drawing *t = l->arg;
	struct level *v = t->level;
	bool dots = strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0;
	if (dots || (t->dirs_only && e->type != DT_DIR)) {
		p9_entry_free(e);
		return 0;
	}
	if (v->n == v->cap) {
		size_t cap = v->cap ? 2 * v->cap : 32;
		struct p9_entry *more = reallocarray(v->entries, cap, sizeof(*more));
		if (!more) {
			p9_entry_free(e);
			return -P9_ENOMEM;
		}
		v->entries = more;
		v->cap = cap;
	}
	v->entries[v->n++] = *e;
	return 0;
}

static void complain(struct drawing *t, const char *path, int rc)
{
	t->code = p9_cli_fail(t->cli, t->client, path, rc);
}

static void leave(struct drawing *t)
{
	struct level *v = t->level;
	for (size_t i = 0; i < v->n; i++) {
		p9_entry_free(&v->entries[i]);
	}
	t->level = v->up;
	t->depth--;
	free(v->entries);
	free(v->lines);
	free(v->path);
	free(v);
}

/* What stands in front of entries one level below the current one. */
static char *lines_below(const struct drawing *t)
{
	const struct level *v = t->level;
	bool last = v && v->at == v->n;
	const char *more = !v ? "" : last ? "    " : t->utf8 ? "\u2502   " : "|   ";
	char *lines;
	return asprintf(&lines, "%s%s", v ? v->lines : "", more) < 0 ? NULL : lines;
}

/* Lists a directory, which becomes the current one. Takes `path` over. */
static void enter(struct drawing *t, char *path)
{
	struct level *v = path ? calloc(1, sizeof(*v)) : NULL;
	char *lines = v ? lines_below(t) : NULL;
	struct p9_list l = { .client = t->client, .dots = t->all, .entry = take_entry, .arg = t };
	if (!lines) {
		free(v);
		free(path);
		complain(t, "listing", -P9_ENOMEM);
		return;
	}
	v->path = path;
	v->lines = lines;
	v->up = t->level;
	t->level = v;
	t->depth++;
	int rc = p9_client_walk(t->client, path, P9_WALK_FOLLOW, &l.dir);
	if (rc >= 0) {
		rc = p9_list_run(&l);
		if (!p9_client_dead(t->client)) {
			p9_client_clunk(t->client, l.dir);
		}
	}
	if (rc < 0) {
		complain(t, path, rc);
	}
	if (v->n) {
		qsort(v->entries, v->n, sizeof(v->entries[0]), by_name);
	}
}

static void draw_lines(const struct drawing *t)
{
	const struct level *v = t->level;
	bool last = v->at == v->n;
	fputs(v->lines, stdout);
	if (t->utf8) {
		fputs(last ? "\u2514\u2500\u2500 " : "\u251c\u2500\u2500 ", stdout);
	} else {
		fputs(last ? "`-- " : "|-- ", stdout);
	}
}

static void print_target(struct drawing *t, const char *dir, const char *name)
{
	char target[P9_TARGETMAX + 1];
	uint32_t fid;
	char *path = p9_path_join(dir, name);
	if (path && p9_client_walk(t->client, path, P9_WALK_NOFOLLOW, &fid) >= 0) {
		if (p9_client_readlink(t->client, fid, target, sizeof(target)) >= 0) {
			fputs(" -> ", stdout);
			p9_show_name(stdout, target, t->tty);
		}
		p9_client_clunk(t->client, fid);
	}
	free(path);
}

static void draw_next(struct drawing *t)
{
	struct level *v = t->level;
	const struct p9_entry *e = &v->entries[v->at++];
	bool dir = e->type == DT_DIR;
	draw_lines(t);
	p9_show_name(stdout, e->name, t->tty);
	if (e->type == DT_LNK) {
		print_target(t, v->path, e->name);
	}
	putchar('\n');
	t->dirs += dir;
	t->files += !dir;
	if (dir && t->depth < t->deepest) {
		enter(t, p9_path_join(v->path, e->name));
	}
}

static void draw(struct drawing *t, const char *path)
{
	p9_show_name(stdout, path, t->tty);
	putchar('\n');
	enter(t, strdup(path));
	while (t->level) {
		bool go_on = !p9_client_dead(t->client) && !ferror(stdout);
		if (go_on && t->level->at < t->level->n) {
			draw_next(t);
		} else {
			leave(t);
		}
	}
}

static void count(uint64_t n, const char *one, const char *many)
{
	printf("%llu %s", (unsigned long long)n, n == 1 ? one : many);
}

int p9_cmd_tree(struct p9_cli *cli, int argc, char **argv)
{
	static char *root[] = { "/" };
	struct drawing t = { .cli = cli, .tty = isatty(STDOUT_FILENO), .deepest = UINT32_MAX };
	uint64_t n = 0;
	int o;
	while ((o = getopt(argc, argv, "adL:")) != -1) {
		t.all |= o == 'a';
		t.dirs_only |= o == 'd';
		if (o == 'L' && (!p9_cli_size(optarg, &n) || n == 0 || n > UINT32_MAX)) {
			return p9_cli_usage(cli, "-L wants a number above 0");
		}
		if (o == '?') {
			return p9_cli_usage(cli, NULL);
		}
		t.deepest = o == 'L' ? (unsigned)n : t.deepest;
	}
	t.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	int code = p9_cli_dial(cli, &t.client);
	if (code != P9_EXIT_OK) {
		return code;
	}
	char **paths = optind < argc ? argv + optind : root;
	for (int i = 0, m = optind < argc ? argc - optind : 1; i < m && !p9_client_dead(t.client); i++) {
		draw(&t, paths[i]);
	}
	putchar('\n');
	count(t.dirs, "directory", "directories");
	if (!t.dirs_only) {
		fputs(", ", stdout);
		count(t.files, "file", "files");
	}
	putchar('\n');
	p9_client_free(t.client);
	return t.code;
}
