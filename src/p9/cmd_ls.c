/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_ls.c - p9 ls: directories as ls shows them.
 *
 * Without -U a directory's entries are kept, sorted, and printed by columns, lines or in full; with -U each is printed
 * as it comes. -R keeps a stack of directories still to be listed, so that depth costs memory and not C stack.
 * Attributes are asked for only when -l shows them (list.c does it, many at once).
 */
#include <dirent.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "p9/json.h"
#include "p9/p9.h"

struct pending { /* a directory to be listed */
	struct pending *next;
	char *path;
};

struct ls {
	struct p9_cli *cli;
	struct p9_client *client;
	bool full, all, recursive, columns, self, human, numeric, unsorted, slash;
	struct p9_json json;
	bool tty, titles, printed;
	time_t now;
	int code;
	struct p9_entry *entries;
	size_t n, cap;
	const char *dir;	       /* being listed */
	struct pending *stack, *found; /* found: below the directory being listed, last first */
};

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct p9_entry *)a)->name, ((const struct p9_entry *)b)->name);
}

static void complain(struct ls *ls, const char *dir, const char *name, int rc)
{
	char *path = dir ? p9_path_join(dir, name) : NULL;
	p9_cli_fail(ls->cli, ls->client, path ? path : name, rc);
	free(path);
	ls->code = P9_EXIT_FAILED;
}

/* ---- one entry in full ---- */
struct widths {
	int links, user, group, size;
};

static void show_size(const struct ls *ls, char *buf, const struct p9_attr *a)
{
	if (S_ISCHR(a->mode) || S_ISBLK(a->mode)) {
		snprintf(buf, 32, "%u, %u", major(a->rdev), minor(a->rdev));
	} else if (ls->human) {
		p9_show_size(buf, a->size);
	} else {
		snprintf(buf, 32, "%llu", (unsigned long long)a->size);
	}
}

static const char *show_user(const struct ls *ls, char *buf, uint32_t id, bool group)
{
	if (ls->numeric) {
		snprintf(buf, 16, "%u", id);
		return buf;
	}
	return group ? p9_show_group(id) : p9_show_user(id);
}

static void widen(int *w, const char *text)
{
	int n = (int)strlen(text);
	*w = n > *w ? n : *w;
}

static void measure(const struct ls *ls, const struct p9_entry *e, struct widths *w)
{
	char buf[32];
	if (!e->attr) {
		return;
	}
	snprintf(buf, sizeof(buf), "%llu", (unsigned long long)e->attr->nlink);
	widen(&w->links, buf);
	widen(&w->user, show_user(ls, buf, e->attr->uid, false));
	widen(&w->group, show_user(ls, buf, e->attr->gid, true));
	show_size(ls, buf, e->attr);
	widen(&w->size, buf);
}

static void print_full(const struct ls *ls, const struct p9_entry *e, const struct widths *w)
{
	char mode[12], user[16], group[16], size[32], date[32];
	const struct p9_attr *a = e->attr;
	if (!a) {
		printf("?????????? %*s %-*s %-*s %*s %12s ", w->links, "?", w->user, "?", w->group, "?", w->size, "?",
		       "?");
		p9_show_name(stdout, e->name, ls->tty);
		putchar('\n');
		return;
	}
	p9_show_mode(mode, a->mode);
	show_size(ls, size, a);
	p9_show_date(date, a->mtime, ls->now);
	printf("%s %*llu %-*s %-*s %*s %12s ", mode, w->links, (unsigned long long)a->nlink, w->user,
	       show_user(ls, user, a->uid, false), w->group, show_user(ls, group, a->gid, true), w->size, size, date);
	p9_show_name(stdout, e->name, ls->tty);
	if (a->target) {
		fputs(" -> ", stdout);
		p9_show_name(stdout, a->target, ls->tty);
	}
	putchar('\n');
}

/* ---- as JSON ---- */
static const char *entry_type(const struct p9_entry *e)
{
	return p9_json_type(e->attr ? e->attr->mode : DTTOIF(e->type));
}

static void print_json(struct ls *ls, const struct p9_entry *e)
{
	struct p9_json *j = &ls->json;
	const struct p9_attr *a = e->attr;
	bool device = a && (S_ISCHR(a->mode) || S_ISBLK(a->mode));
	char *path = ls->dir ? p9_path_join(ls->dir, e->name) : NULL;
	p9_json_open(j);
	p9_json_text(j, "path", path ? path : e->name);
	p9_json_text(j, "name", e->name);
	p9_json_text(j, "type", entry_type(e));
	p9_json_text(j, "target", a ? a->target : NULL);
	p9_json_text(j, "error", e->error ? p9_error_name((uint32_t)-e->error) : NULL);
	const struct {
		const char *key;
		uint64_t n;
		bool known;
	} numbers[] = {
		{ "mode", a ? a->mode & 07777 : 0, a },
		{ "nlink", a ? a->nlink : 0, a },
		{ "uid", a ? a->uid : 0, a },
		{ "gid", a ? a->gid : 0, a },
		{ "size", a ? a->size : 0, a },
		{ "blocks", a ? a->blocks : 0, a },
		{ "major", device ? major(a->rdev) : 0, device },
		{ "minor", device ? minor(a->rdev) : 0, device },
		{ "qid_path", a ? a->qid : 0, a },
	};
	for (size_t i = 0; i < P9_COUNT(numbers); i++) {
		if (numbers[i].known) {
			p9_json_number(j, numbers[i].key, numbers[i].n);
		} else {
			p9_json_null(j, numbers[i].key);
		}
	}
	p9_json_time(j, "mtime", (uint64_t[]){ a ? a->mtime : 0, a ? a->mtime_nsec : 0 }, a);
	p9_json_close(j);
	free(path);
}

/* ---- many entries ---- */
/* -p: a slash behind directories. */
static void print_mark(const struct ls *ls, const struct p9_entry *e)
{
	bool is_dir = e->attr ? S_ISDIR(e->attr->mode) : e->type == DT_DIR;
	if (ls->slash && is_dir) {
		putchar('/');
	}
}

static unsigned terminal_width(void)
{
	struct winsize ws;
	const char *env = getenv("COLUMNS");
	if (env && atoi(env) > 0) {
		return (unsigned)atoi(env);
	}
	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col > 0 ? ws.ws_col : 80;
}

/* Width of the lines when there are `rows` of them; fills the width of each column. */
static size_t layout(const int *width, size_t n, size_t rows, int *column)
{
	size_t total = 0;
	for (size_t c = 0; c * rows < n; c++) {
		column[c] = 0;
		for (size_t i = c * rows; i < n && i < (c + 1) * rows; i++) {
			column[c] = width[i] > column[c] ? width[i] : column[c];
		}
		total += (size_t)column[c] + 2;
	}
	return total - 2;
}

static void print_rows(const struct ls *ls, const int *width, const int *column, size_t rows)
{
	for (size_t r = 0; r < rows; r++) {
		for (size_t i = r; i < ls->n; i += rows) {
			p9_show_name(stdout, ls->entries[i].name, ls->tty);
			if (i + rows < ls->n) {
				printf("%*s", column[i / rows] + 2 - width[i], "");
			}
		}
		putchar('\n');
	}
}

static void print_columns(const struct ls *ls)
{
	int *width = calloc(ls->n, sizeof(int)), *column = calloc(ls->n, sizeof(int));
	size_t line = terminal_width(), area = 0, rows = 1;
	for (size_t i = 0; width && i < ls->n; i++) {
		width[i] = p9_show_name(NULL, ls->entries[i].name, ls->tty);
		area += (size_t)width[i] + 2;
	}
	if (width && column) {
		rows = ls->n > 4096 ? area / line + 1 : 1; /* do not try every number for a huge directory */
		while (rows < ls->n && layout(width, ls->n, rows, column) > line) {
			rows += ls->n > 4096 ? 1 + rows / 16 : 1;
		}
		rows = rows < ls->n ? rows : ls->n;
		layout(width, ls->n, rows, column);
		print_rows(ls, width, column, rows);
	}
	free(width);
	free(column);
}

static void print_lines(struct ls *ls)
{
	struct widths w = { 0 };
	for (size_t i = 0; ls->full && i < ls->n; i++) {
		measure(ls, &ls->entries[i], &w);
	}
	for (size_t i = 0; i < ls->n; i++) {
		if (ls->json.on) {
			print_json(ls, &ls->entries[i]);
		} else if (ls->full) {
			print_full(ls, &ls->entries[i], &w);
		} else {
			p9_show_name(stdout, ls->entries[i].name, ls->tty);
			print_mark(ls, &ls->entries[i]);
			putchar('\n');
		}
	}
}

static void print_entries(struct ls *ls)
{
	if (ls->n && !ls->unsorted) {
		qsort(ls->entries, ls->n, sizeof(ls->entries[0]), by_name);
	}
	if (ls->n && ls->columns) {
		print_columns(ls);
	} else {
		print_lines(ls);
	}
	ls->printed |= ls->n > 0;
	for (size_t i = 0; i < ls->n; i++) {
		p9_entry_free(&ls->entries[i]);
	}
	ls->n = 0;
}

/* ---- directories ---- */
static void push(struct ls *ls, struct pending **list, char *path)
{
	struct pending *p = path ? malloc(sizeof(*p)) : NULL;
	if (!p) {
		complain(ls, NULL, "listing", -P9_ENOMEM);
		free(path);
		return;
	}
	p->path = path;
	p->next = *list;
	*list = p;
}

static int keep(struct ls *ls, struct p9_entry *e)
{
	if (ls->n == ls->cap) {
		size_t cap = ls->cap ? 2 * ls->cap : 64;
		struct p9_entry *more = reallocarray(ls->entries, cap, sizeof(*more));
		if (!more) {
			p9_entry_free(e);
			return -P9_ENOMEM;
		}
		ls->entries = more;
		ls->cap = cap;
	}
	ls->entries[ls->n++] = *e;
	return 0;
}

static int take_entry(struct p9_list *l, struct p9_entry *e)
{
	struct ls *ls = l->arg;
	bool dots = strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0;
	if (e->error) {
		complain(ls, ls->dir, e->name, e->error);
	}
	if (ls->unsorted && ls->recursive && e->type == DT_DIR && !dots) {
		push(ls, &ls->found, p9_path_join(ls->dir, e->name));
	}
	int rc = keep(ls, e);
	if (rc >= 0 && ls->unsorted) {
		print_lines(ls);
		p9_entry_free(&ls->entries[0]);
		ls->n = 0;
		ls->printed = true;
		rc = ferror(stdout) ? -P9_EPIPE : 0;
	}
	return rc;
}

static void print_total(const struct ls *ls)
{
	uint64_t blocks = 0;
	char buf[16];
	for (size_t i = 0; i < ls->n; i++) {
		blocks += ls->entries[i].attr ? ls->entries[i].attr->blocks : 0;
	}
	if (ls->human) {
		p9_show_size(buf, blocks * 512);
		printf("total %s\n", buf);
	} else {
		printf("total %llu\n", (unsigned long long)blocks / 2);
	}
}

/* Remembers the directories among the sorted entries, the first to come out first. */
static void note_subdirectories(struct ls *ls)
{
	qsort(ls->entries, ls->n, sizeof(ls->entries[0]), by_name);
	for (size_t i = 0; i < ls->n; i++) {
		const struct p9_entry *e = &ls->entries[i];
		bool dots = strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0;
		bool is_dir = e->attr ? S_ISDIR(e->attr->mode) : e->type == DT_DIR;
		if (is_dir && !dots) {
			push(ls, &ls->found, p9_path_join(ls->dir, e->name));
		}
	}
}

static void list_directory(struct ls *ls, const char *path)
{
	struct p9_list l = {
		.client = ls->client, .attrs = ls->full || ls->json.on, .dots = ls->all, .entry = take_entry, .arg = ls
	};
	int rc = p9_client_walk(ls->client, path, P9_WALK_FOLLOW, &l.dir);
	ls->dir = path;
	if (rc < 0) {
		complain(ls, NULL, path, rc);
		return;
	}
	if (ls->titles && !ls->json.on) {
		fputs(ls->printed ? "\n" : "", stdout);
		p9_show_name(stdout, path, ls->tty);
		puts(":");
		ls->printed = true;
	}
	rc = p9_list_run(&l);
	if (rc < 0 && !ferror(stdout)) {
		complain(ls, NULL, path, rc);
	}
	if (ls->recursive && !ls->unsorted && ls->n) {
		note_subdirectories(ls);
	}
	if (ls->full && !ls->unsorted && !ls->json.on && rc >= 0) {
		print_total(ls);
	}
	print_entries(ls);
	if (!p9_client_dead(ls->client)) {
		p9_client_clunk(ls->client, l.dir);
	}
}

static void list_stack(struct ls *ls)
{
	while (ls->stack) {
		struct pending *p = ls->stack;
		ls->stack = p->next;
		if (!p9_client_dead(ls->client) && !ferror(stdout)) {
			list_directory(ls, p->path);
		}
		while (ls->found) { /* last first becomes first first, on top of what waits */
			struct pending *f = ls->found;
			ls->found = f->next;
			f->next = ls->stack;
			ls->stack = f;
		}
		free(p->path);
		free(p);
	}
}

/* ---- operands ---- */
static int probe(struct ls *ls, const char *path, struct p9_entry *e)
{
	struct p9_rgetattr st;
	uint32_t fid;
	char target[P9_TARGETMAX + 1];
	bool follow = !ls->full && !ls->self;
	int rc = p9_client_walk(ls->client, path, follow, &fid);
	if (rc == -P9_ENOENT && follow) { /* perhaps a link to nothing */
		rc = p9_client_walk(ls->client, path, P9_WALK_NOFOLLOW, &fid);
	}
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_getattr(ls->client, fid, P9_GETATTR_BASIC, &st);
	if (rc >= 0) {
		*e = (struct p9_entry){ .name = strdup(path), .attr = p9_attr_of(&st) };
		rc = e->name && e->attr ? 0 : -P9_ENOMEM;
	}
	if (rc >= 0 && S_ISLNK(st.mode) && p9_client_readlink(ls->client, fid, target, sizeof(target)) >= 0) {
		e->attr->target = strdup(target);
	}
	p9_client_clunk(ls->client, fid);
	return rc;
}

static void take_operand(struct ls *ls, const char *path)
{
	struct p9_entry e = { 0 };
	int rc = p9_client_dead(ls->client) ? 1 : probe(ls, path, &e);
	if (rc != 0) {
		if (rc < 0) {
			complain(ls, NULL, path, rc);
		}
		p9_entry_free(&e);
		return;
	}
	if (S_ISDIR(e.attr->mode) && !ls->self) {
		p9_entry_free(&e);
		push(ls, &ls->found, strdup(path));
	} else if (keep(ls, &e) < 0) {
		complain(ls, NULL, path, -P9_ENOMEM);
	}
}

static int list_operands(struct ls *ls, int n, char **paths)
{
	static char *root[] = { "/" };
	int given = n;
	if (n == 0) {
		paths = root;
		n = 1;
	}
	ls->titles = given > 1 || ls->recursive;
	for (int i = 0; i < n; i++) {
		take_operand(ls, paths[i]);
	}
	print_entries(ls);
	while (ls->found) {
		struct pending *f = ls->found;
		ls->found = f->next;
		f->next = ls->stack;
		ls->stack = f;
	}
	list_stack(ls);
	return ls->code;
}

static bool set_option(struct ls *ls, int o)
{
	switch (o) {
	case 'l':
		ls->full = true;
		break;
	case 'a':
		ls->all = true;
		break;
	case 'R':
		ls->recursive = true;
		break;
	case '1':
		ls->columns = false;
		break;
	case 'd':
		ls->self = true;
		break;
	case 'h':
		ls->human = true;
		break;
	case 'n':
		ls->numeric = ls->full = true;
		break;
	case 'U':
		ls->unsorted = true;
		break;
	case 'p':
		ls->slash = true;
		break;
	case 'J':
		ls->json.on = true;
		break;
	default:
		return false;
	}
	return true;
}

int p9_cmd_ls(struct p9_cli *cli, int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'J' }, { 0 } };
	struct ls ls = { .cli = cli, .now = time(NULL), .tty = isatty(STDOUT_FILENO) };
	int o;
	ls.columns = ls.tty;
	while ((o = getopt_long(argc, argv, "laR1dhnUp", longs, NULL)) != -1) {
		if (!set_option(&ls, o)) {
			return p9_cli_usage(cli, NULL);
		}
	}
	ls.columns = ls.columns && !ls.full && !ls.unsorted && !ls.json.on && !ls.slash;
	int code = p9_cli_dial(cli, &ls.client);
	if (code != P9_EXIT_OK) {
		return code;
	}
	if (ls.json.on) {
		p9_json_begin(&ls.json);
	}
	code = list_operands(&ls, argc - optind, argv + optind);
	if (ls.json.on) {
		p9_json_end(&ls.json);
	}
	free(ls.entries);
	p9_client_free(ls.client);
	return code;
}
