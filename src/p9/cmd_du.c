/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_du.c - p9 du: the space that files and directories take, directories after what is in them.
 *
 * Counts blocks of 512 bytes, as the server tells them. A file with several links is counted once for all operands, by
 * its qid path; those that were seen are kept in a hash table, 8 bytes each.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "p9/scan.h"

struct seen { /* qid paths; 0 is an empty place, so that path 0 is never remembered */
	uint64_t *v;
	size_t n, cap;
};

struct du {
	struct p9_scan scan;
	bool all, apparent, human;
	unsigned deepest;
	struct seen seen;
};

static size_t place(const struct seen *s, uint64_t id)
{
	size_t i = (size_t)(id * 0x9e3779b97f4a7c15u >> 20) & (s->cap - 1);
	while (s->v[i] && s->v[i] != id) {
		i = (i + 1) & (s->cap - 1);
	}
	return i;
}

static bool grow(struct seen *s)
{
	struct seen more = { .cap = s->cap ? 2 * s->cap : 1024 };
	more.v = calloc(more.cap, sizeof(*more.v));
	if (!more.v) {
		return false;
	}
	for (size_t i = 0; i < s->cap; i++) {
		if (s->v[i]) {
			more.v[place(&more, s->v[i])] = s->v[i];
		}
	}
	free(s->v);
	more.n = s->n;
	*s = more;
	return true;
}

/* Whether the file was counted before. Without memory it is counted again. */
static bool seen_before(struct seen *s, uint64_t id)
{
	if (id == 0 || (2 * s->n >= s->cap && !grow(s))) {
		return false;
	}
	size_t i = place(s, id);
	bool known = s->v[i] == id;
	s->n += !known;
	s->v[i] = id;
	return known;
}

/* In bytes. A server that knows no blocks is taken by its sizes. */
static uint64_t space_of(const struct du *du, const struct p9_rgetattr *a)
{
	bool blocks = !du->apparent && (a->valid & P9_GETATTR_BLOCKS);
	return blocks ? a->blocks * 512 : a->size;
}

static void print(struct du *du, uint64_t bytes, const struct p9_dir *d, const char *name)
{
	char size[16];
	char *path = d ? p9_tree_path(d, name) : NULL;
	if (du->human) {
		p9_show_size(size, bytes);
		printf("%s\t", size);
	} else {
		printf("%llu\t", (unsigned long long)bytes / 1024 + (bytes % 1024 != 0));
	}
	p9_show_name(stdout, path ? path : name, isatty(STDOUT_FILENO));
	putchar('\n');
	free(path);
}

static bool found(struct p9_scan *s, const struct p9_found *f)
{
	struct du *du = (struct du *)s;
	bool dir = S_ISDIR(f->type);
	if (!dir && f->attr->nlink > 1 && seen_before(&du->seen, f->attr->qid.path)) {
		return false;
	}
	uint64_t bytes = space_of(du, f->attr);
	if (dir) {
		f->self->sum += bytes;
	} else if (f->up) {
		f->up->sum += bytes;
	}
	if (!dir && (!f->up || (du->all && f->depth <= du->deepest))) {
		print(du, bytes, f->up, f->name);
	}
	return true;
}

static void left(struct p9_scan *s, struct p9_dir *d)
{
	struct du *du = (struct du *)s;
	if (d->parent) {
		d->parent->sum += d->sum;
	}
	if (d->depth <= du->deepest) {
		print(du, d->sum, d, "");
	}
}

static bool take_option(struct du *du, int o)
{
	uint64_t n;
	switch (o) {
	case 's':
		du->deepest = 0;
		return true;
	case 'h':
		du->human = true;
		return true;
	case 'a':
		du->all = true;
		return true;
	case 'A':
		du->apparent = true;
		return true;
	case 'd':
		du->deepest = p9_cli_size(optarg, &n) && n < UINT32_MAX ? (unsigned)n : 0;
		return p9_cli_size(optarg, &n);
	default:
		return false;
	}
}

int p9_cmd_du(struct p9_cli *cli, int argc, char **argv)
{
	static const struct option longs[] = { { "apparent-size", no_argument, NULL, 'A' }, { 0 } };
	static char *root[] = { "/" };
	struct du du = { .scan = { .cli = cli, .attrs = true, .found = found, .left = left }, .deepest = UINT32_MAX };
	int o;
	while ((o = getopt_long(argc, argv, "shad:", longs, NULL)) != -1) {
		if (!take_option(&du, o)) {
			return p9_cli_usage(cli, o == 'd' ? "-d wants a number" : NULL);
		}
	}
	char **paths = optind < argc ? argv + optind : root;
	int n = optind < argc ? argc - optind : 1;
	int code = p9_cli_dial(cli, &du.scan.client);
	for (int i = 0; du.scan.client && i < n && !p9_client_dead(du.scan.client); i++) {
		int rc = p9_scan_run(&du.scan, paths[i]);
		if (rc < 0) {
			code = p9_cli_fail(cli, du.scan.client, paths[i], rc);
		}
	}
	p9_client_free(du.scan.client);
	free(du.seen.v);
	return du.scan.tree.failed ? P9_EXIT_FAILED : code;
}
