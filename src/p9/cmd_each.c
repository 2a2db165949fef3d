/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_each.c - readlink, truncate, chown, df: commands that do one thing to each of their operands.
 *
 * They share one loop: walk, do it, clunk, complain. What differs is a function and its argument.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "p9/each.h"
#include "p9/json.h"

int p9_each(struct p9_cli *cli, struct p9_each *e, int n, char **paths)
{
	int code = p9_cli_dial(cli, &e->client);
	int begun = e->client && e->begin ? e->begin(e) : 0;
	if (begun < 0) {
		code = p9_cli_fail(cli, e->client, e->path, begun);
		n = 0;
	}
	for (int i = 0; e->client && i < n && !p9_client_dead(e->client); i++) {
		uint32_t fid = P9_NOFID;
		e->path = paths[i];
		int rc = p9_client_walk(e->client, paths[i], e->follow, &fid);
		if (rc == -P9_ENOENT && e->missing) {
			rc = e->missing(e, paths[i], &fid);
		}
		if (rc == 0) {
			rc = e->act(e, fid);
			p9_client_clunk(e->client, fid);
		}
		if (rc < 0) {
			code = p9_cli_fail(cli, e->client, paths[i], rc);
		}
	}
	p9_client_free(e->client);
	return code;
}

/* ---- readlink ---- */
static int print_target(struct p9_each *e, uint32_t fid)
{
	char target[P9_TARGETMAX + 1];
	int rc = p9_client_readlink(e->client, fid, target, sizeof(target));
	if (rc >= 0) {
		p9_show_name(stdout, target, isatty(STDOUT_FILENO));
		putchar('\n');
	}
	return rc;
}

int p9_cmd_readlink(struct p9_cli *cli, int argc, char **argv)
{
	struct p9_each e = { .act = print_target, .follow = P9_WALK_NOFOLLOW };
	if (getopt(argc, argv, "") != -1 || optind == argc) {
		return p9_cli_usage(cli, optind == argc ? "which link?" : NULL);
	}
	return p9_each(cli, &e, argc - optind, argv + optind);
}

/* ---- truncate ---- */
struct resize {
	struct p9_each each;
	char sign; /* + - or 0 */
	uint64_t size;
};

static int resize(struct p9_each *e, uint32_t fid)
{
	const struct resize *r = (const struct resize *)e;
	struct p9_tsetattr set = { .fid = fid, .valid = P9_SETATTR_SIZE, .size = r->size };
	struct p9_rgetattr st;
	if (r->sign) {
		int rc = p9_client_getattr(e->client, fid, P9_GETATTR_SIZE, &st);
		if (rc < 0) {
			return rc;
		}
		uint64_t shrunk = st.size > r->size ? st.size - r->size : 0;
		set.size = r->sign == '+' ? st.size + r->size : shrunk;
	}
	return set.size > INT64_MAX ? -P9_EFBIG : p9_client_setattr(e->client, &set);
}

static int create(struct p9_each *e, const char *path, uint32_t *fid)
{
	char name[256];
	int rc = p9_client_walk_parent(e->client, path, fid, name);
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_lcreate(e->client, *fid, name, P9_O_WRONLY | P9_O_CREAT | P9_O_EXCL, 0666 & ~p9_umask());
	if (rc < 0) {
		p9_client_clunk(e->client, *fid);
	}
	return rc;
}

int p9_cmd_truncate(struct p9_cli *cli, int argc, char **argv)
{
	struct resize r = { .each = { .act = resize, .missing = create, .follow = P9_WALK_FOLLOW } };
	bool given = false;
	int o;
	while ((o = getopt(argc, argv, "s:")) != -1) {
		if (o != 's') {
			return p9_cli_usage(cli, NULL);
		}
		r.sign = optarg[0] == '+' || optarg[0] == '-' ? optarg[0] : 0;
		given = p9_cli_size(optarg + (r.sign != 0), &r.size);
		if (!given) {
			return p9_cli_usage(cli, "-s wants a size");
		}
	}
	if (!given || optind == argc) {
		return p9_cli_usage(cli, given ? "which file?" : "-s SIZE is missing");
	}
	return p9_each(cli, &r.each, argc - optind, argv + optind);
}

/* ---- chown ---- */
struct owner {
	struct p9_each each;
	uint32_t valid, uid, gid;
};

static int set_owner(struct p9_each *e, uint32_t fid)
{
	const struct owner *w = (const struct owner *)e;
	struct p9_tsetattr set = { .fid = fid, .valid = w->valid, .uid = w->uid, .gid = w->gid };
	return p9_client_setattr(e->client, &set);
}

/* USER, USER:GROUP or :GROUP. */
static bool parse_owner(struct owner *w, char *text)
{
	char *colon = strchr(text, ':');
	if (colon) {
		*colon = 0;
		w->valid |= colon[1] ? P9_SETATTR_GID : 0;
		if (colon[1] && !p9_cli_group(colon + 1, &w->gid)) {
			return false;
		}
	}
	w->valid |= text[0] ? P9_SETATTR_UID : 0;
	return w->valid && (!text[0] || p9_cli_user(text, &w->uid));
}

int p9_cmd_chown(struct p9_cli *cli, int argc, char **argv)
{
	struct owner w = { .each = { .act = set_owner, .follow = P9_WALK_FOLLOW } };
	int o;
	while ((o = getopt(argc, argv, "h")) != -1) {
		if (o != 'h') {
			return p9_cli_usage(cli, NULL);
		}
		w.each.follow = P9_WALK_NOFOLLOW;
	}
	if (argc - optind < 2) {
		return p9_cli_usage(cli, "an owner and a file");
	}
	if (!parse_owner(&w, argv[optind])) {
		return p9_cli_usage(cli, "no such user or group");
	}
	return p9_each(cli, &w.each, argc - optind - 1, argv + optind + 1);
}

/* ---- df ---- */
struct space {
	struct p9_each each;
	bool human, titled;
	struct p9_json json;
};

static void print_amount(const struct space *s, uint64_t blocks, uint64_t bsize)
{
	char text[24];
	if (s->human) {
		p9_show_size(text, blocks * bsize);
	} else {
		snprintf(text, sizeof(text), "%.0f", (double)blocks * (double)bsize / 1024);
	}
	printf("%14s", text);
}

static uint64_t bytes(uint64_t blocks, uint64_t bsize)
{
	uint64_t n;
	return __builtin_mul_overflow(blocks, bsize, &n) ? UINT64_MAX : n;
}

static void print_space_json(struct space *s, const struct p9_rstatfs *st)
{
	struct p9_json *j = &s->json;
	uint64_t used = st->blocks > st->bfree ? st->blocks - st->bfree : 0;
	p9_json_open(j);
	p9_json_text(j, "path", s->each.path);
	p9_json_number(j, "fs_type", st->type);
	p9_json_number(j, "bsize", st->bsize);
	p9_json_number(j, "blocks", st->blocks);
	p9_json_number(j, "bfree", st->bfree);
	p9_json_number(j, "bavail", st->bavail);
	p9_json_number(j, "size", bytes(st->blocks, st->bsize));
	p9_json_number(j, "used", bytes(used, st->bsize));
	p9_json_number(j, "available", bytes(st->bavail, st->bsize));
	p9_json_number(j, "files", st->files);
	p9_json_number(j, "ffree", st->ffree);
	p9_json_number(j, "fsid", st->fsid);
	p9_json_number(j, "namelen", st->namelen);
	p9_json_close(j);
}

static void print_title(struct space *s)
{
	if (!s->titled) {
		printf("%14s%14s%14s%7s%12s  %s\n", s->human ? "Size" : "1K-blocks", "Used", "Available", "Use%",
		       "Free inodes", "Path");
	}
	s->titled = true;
}

static int print_space(struct p9_each *e, uint32_t fid)
{
	struct space *s = (struct space *)e;
	struct p9_rstatfs st;
	int rc = p9_client_statfs(e->client, fid, &st);
	if (rc < 0) {
		return rc;
	}
	if (s->json.on) {
		print_space_json(s, &st);
		return 0;
	}
	uint64_t used = st.blocks > st.bfree ? st.blocks - st.bfree : 0;
	double all = (double)used + (double)st.bavail;
	print_title(s);
	print_amount(s, st.blocks, st.bsize);
	print_amount(s, used, st.bsize);
	print_amount(s, st.bavail, st.bsize);
	if (all > 0) {
		printf("%6.0f%%", 100 * (double)used / all + 0.499);
	} else {
		printf("%7s", "-");
	}
	printf("%12llu  ", (unsigned long long)st.ffree);
	p9_show_name(stdout, e->path, isatty(STDOUT_FILENO));
	putchar('\n');
	return 0;
}

int p9_cmd_df(struct p9_cli *cli, int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'J' }, { 0 } };
	static char *root[] = { "/" };
	struct space s = { .each = { .act = print_space, .follow = P9_WALK_FOLLOW } };
	int o;
	while ((o = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (o != 'h' && o != 'J') {
			return p9_cli_usage(cli, NULL);
		}
		s.human |= o == 'h';
		s.json.on |= o == 'J';
	}
	bool given = optind < argc;
	if (s.json.on) {
		p9_json_begin(&s.json);
	}
	int code = p9_each(cli, &s.each, given ? argc - optind : 1, given ? argv + optind : root);
	if (s.json.on) {
		p9_json_end(&s.json);
	}
	return code;
}
