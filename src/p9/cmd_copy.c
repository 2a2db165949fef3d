/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_copy.c - p9 get, put and cp: their options and operands.
 *
 * Owns where copies go: into the target when it is a directory, else to the target itself; and what cp(1) refuses: a
 * directory into itself, several sources to one file. Operands are begun one after the other and copied together.
 * Everything below the target is made relative to one directory that is opened here.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/copy.h"
#include "p9/scan.h"

#define ANCESTORS_MAX 65536

struct job { /* the command */
	struct p9_copy copy;
	char **sources;
	int n;
	const char *target;
	char name[256]; /* of the copy, when the target is not a directory; "" when it is */
};

static int complain(struct p9_copy *c, const char *what, int rc)
{
	c->tree.failed = true;
	if (!p9_client_dead(c->client)) {
		p9_cli_fail(c->cli, c->client, what, rc);
	}
	return rc;
}

/* ---- the target ---- */
static void cut_base(char *path)
{
	size_t n = strlen(path);
	while (n > 0 && path[n - 1] == '/') {
		n--;
	}
	while (n > 0 && path[n - 1] != '/') {
		n--;
	}
	path[n] = 0;
}

static int open_target_here(struct job *j)
{
	struct p9_copy *c = &j->copy;
	struct stat st;
	bool dir = stat(j->target, &st) == 0 && S_ISDIR(st.st_mode);
	c->target = strdup(strcmp(j->target, ".") == 0 ? "" : j->target);
	if (!c->target) {
		return -P9_ENOMEM;
	}
	if (!dir && !p9_path_base(j->target, j->name)) {
		return -P9_ENAMETOOLONG;
	}
	if (!dir) {
		cut_base(c->target);
	}
	if (!dir && !j->name[0]) {
		return -P9_ENOENT;
	}
	c->into.fd = open(c->target[0] ? c->target : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return c->into.fd < 0 ? -p9_hosterr(errno) : 0;
}

static int open_target_there(struct job *j)
{
	struct p9_copy *c = &j->copy;
	struct p9_rgetattr st = { 0 };
	int rc = p9_client_walk(c->client, j->target, P9_WALK_FOLLOW, &c->into.fid);
	c->target = strdup(j->target);
	if (!c->target || (rc < 0 && rc != -P9_ENOENT)) {
		return rc < 0 ? rc : -P9_ENOMEM;
	}
	if (rc >= 0) {
		rc = p9_client_getattr(c->client, c->into.fid, P9_GETATTR_MODE, &st);
		if (rc < 0 || (st.qid.type & P9_QTDIR)) {
			return rc;
		}
		p9_client_clunk(c->client, c->into.fid);
	}
	cut_base(c->target);
	return p9_client_walk_parent(c->client, j->target, &c->into.fid, j->name);
}

static int open_target(struct job *j)
{
	int rc = j->copy.to_here ? open_target_here(j) : open_target_there(j);
	return rc >= 0 && j->name[0] && j->n > 1 ? -P9_ENOTDIR : rc;
}

/* ---- the sources ---- */
/* cp: is the target in the directory that is to be copied? Its ancestors tell. */
static int inside(struct p9_copy *c, uint32_t fid, uint64_t qid)
{
	uint32_t up;
	struct p9_rgetattr st;
	uint64_t last = 0;
	int rc = p9_client_clone(c->client, c->into.fid, &up);
	for (unsigned i = 0; rc >= 0 && i < ANCESTORS_MAX; i++) {
		struct p9_msg t = { .type = P9_Twalk,
				    .twalk = { .fid = up, .newfid = up, .wname = { 1, { { "..", 2 } } } } };
		rc = p9_client_getattr(c->client, up, P9_GETATTR_MODE, &st);
		if (rc < 0 || st.qid.path == qid || (i > 0 && st.qid.path == last)) {
			break;
		}
		last = st.qid.path;
		rc = p9_client_call(c->client, &t, NULL, NULL);
	}
	bool found = rc >= 0 && st.qid.path == qid;
	if (!p9_client_dead(c->client)) {
		p9_client_clunk(c->client, up);
	}
	return rc < 0 ? rc : found;
}

static int begin_tree(struct job *j, const char *source, char *to, uint32_t fid, uint64_t qid)
{
	struct p9_copy *c = &j->copy;
	int rc = c->opts.recursive ? 0 : -P9_EISDIR;
	if (rc >= 0 && !c->from_here && !c->to_here) {
		rc = inside(c, fid, qid);
		if (rc > 0) {
			p9_cli_say(c->cli, "%s: cannot be copied into itself", source);
			c->tree.failed = true;
			free(to);
			return 0;
		}
	}
	if (rc < 0) {
		free(to);
		complain(c, source, rc);
		if (rc == -P9_EISDIR) {
			fprintf(stderr, "p9: %s -r copies directories\n", c->cli->cmd);
		}
		return 0;
	}
	return p9_copy_tree(c, strdup(source), to, fid);
}

/* "new/" asks for a directory, which only a directory becomes. */
static bool wants_directory(const struct job *j)
{
	size_t n = strlen(j->target);
	return j->name[0] && j->target[n - 1] == '/';
}

/* What the copy is called: NULL for "." and the like, whose content goes into the target. */
static char *name_for(const struct job *j, const char *source)
{
	char base[256];
	p9_path_base(source, base);
	return j->name[0] ? strdup(j->name) : base[0] ? strdup(base) : NULL;
}

static int begin_here(struct job *j, const char *source)
{
	struct p9_copy *c = &j->copy;
	struct stat st;
	int flags = c->opts.nofollow ? AT_SYMLINK_NOFOLLOW : 0;
	if (fstatat(AT_FDCWD, source, &st, flags) < 0) {
		return complain(c, source, -p9_hosterr(errno));
	}
	char *to = name_for(j, source);
	if (S_ISDIR(st.st_mode)) {
		return begin_tree(j, source, to, P9_NOFID, 0);
	}
	if (!to) {
		return -P9_ENOMEM;
	}
	if (wants_directory(j)) {
		free(to);
		return complain(c, j->target, -P9_ENOTDIR);
	}
	c->progress.total = j->n == 1 && !c->progress.total ? (uint64_t)st.st_size : c->progress.total;
	p9_copy_operand(c, strdup(source), to, P9_NOFID);
	return 0;
}

static int begin_there(struct job *j, const char *source)
{
	struct p9_copy *c = &j->copy;
	struct p9_rgetattr st;
	uint32_t fid;
	int rc = p9_client_walk(c->client, source, c->opts.nofollow ? P9_WALK_NOFOLLOW : P9_WALK_FOLLOW, &fid);
	rc = rc < 0 ? rc : p9_client_getattr(c->client, fid, P9_GETATTR_BASIC, &st);
	if (rc < 0) {
		return complain(c, source, rc);
	}
	char *to = name_for(j, source);
	if (st.qid.type & P9_QTDIR) {
		return begin_tree(j, source, to, fid, st.qid.path);
	}
	if (!to) {
		return -P9_ENOMEM;
	}
	if (wants_directory(j)) {
		free(to);
		return complain(c, j->target, -P9_ENOTDIR);
	}
	c->progress.total = j->n == 1 && !c->progress.total ? st.size : c->progress.total;
	p9_copy_operand(c, strdup(source), to, fid);
	return 0;
}

/* Begins one operand after the other, and goes on until everything is copied. Returns 0 or the link's error. */
static int copy_all(struct job *j)
{
	struct p9_copy *c = &j->copy;
	for (int i = 0; i < j->n && !p9_interrupted && !p9_client_dead(c->client); i++) {
		int rc = 0;
		while (rc >= 0 && (c->tree.njobs >= c->tree.maxjobs || !p9_tree_room(&c->tree))) {
			rc = p9_tree_step(&c->tree);
		}
		if (rc >= 0) {
			rc = c->from_here ? begin_here(j, j->sources[i]) : begin_there(j, j->sources[i]);
		}
		if (rc == -P9_ENOMEM) {
			complain(c, j->sources[i], rc);
		}
	}
	return p9_tree_run(&c->tree);
}

/* ---- how much it is, for the time left ---- */
static uint64_t counted;

static int count_here(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	counted += type == FTW_F && S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
	return p9_interrupted != 0;
}

static bool count_there(struct p9_scan *s, const struct p9_found *f)
{
	counted += S_ISREG(f->type) ? f->attr->size : 0;
	s->tree.abort |= p9_interrupted != 0;
	return true;
}

/* Only where somebody looks: it takes as long as du. What cannot be read will be complained about later. */
static uint64_t count(struct job *j)
{
	struct p9_copy *c = &j->copy;
	struct p9_cli quiet = *c->cli;
	struct p9_scan s = { .cli = &quiet, .client = c->client, .attrs = true, .found = count_there };
	counted = 0;
	quiet.quiet = true;
	for (int i = 0; i < j->n && !p9_client_dead(c->client) && !p9_interrupted; i++) {
		if (c->from_here) {
			nftw(j->sources[i], count_here, 64, FTW_PHYS);
		} else {
			(void)!p9_scan_run(&s, j->sources[i]);
		}
	}
	return counted;
}

/* ---- the commands ---- */
static void prepare(struct job *j)
{
	struct p9_copy *c = &j->copy;
	uint32_t most = p9_client_iosize(c->client, 0);
	most = most > P9_MSIZE_MIN ? most & ~(P9_MSIZE_MIN - 1) : most; /* whole pages */
	c->chunk = most < P9_COPY_CHUNK ? most : P9_COPY_CHUNK;
	c->tree = (struct p9_tree){ .cli = c->cli, .client = c->client, .ops = &p9_copy_ops, .arg = c };
	c->tree.maxjobs = c->cli->depth;
	c->into = (struct p9_end){ P9_NOFID, -1 };
}

static int run(struct job *j)
{
	struct p9_copy *c = &j->copy;
	int code = p9_cli_dial(c->cli, &c->client);
	if (code != P9_EXIT_OK) {
		return code;
	}
	prepare(j);
	p9_catch_signals();
	int rc = open_target(j);
	if (rc < 0) {
		complain(c, j->target, rc);
	} else {
		bool watched = c->opts.progress || isatty(STDERR_FILENO);
		uint64_t total = watched && (c->opts.recursive || j->n > 1) ? count(j) : 0;
		p9_progress_begin(&c->progress, j->n == 1 ? j->sources[0] : j->target, total, c->opts.progress);
		rc = copy_all(j);
		p9_progress_end(&c->progress);
	}
	if (p9_client_dead(c->client)) {
		p9_cli_fail(c->cli, c->client, "", rc);
		c->tree.failed = true;
	} else if (p9_interrupted) {
		p9_cli_say(c->cli, "interrupted");
	}
	bool failed = c->tree.failed || p9_interrupted;
	p9_copy_fini(c);
	p9_client_free(c->client);
	if (c->into.fd >= 0) {
		close(c->into.fd);
	}
	free(c->target);
	return failed ? P9_EXIT_FAILED : P9_EXIT_OK;
}

enum { OPT_CONTINUE = 256, OPT_CHECK, OPT_PROGRESS };

static bool take_option(struct p9_copy_opts *o, int opt)
{
	switch (opt) {
	case 'a':
		*o = (struct p9_copy_opts){ true,
					    true,
					    true,
					    true,
					    o->sparse,
					    true,
					    .nofollow = true,
					    .resume = o->resume,
					    .check = o->check,
					    .progress = o->progress };
		return true;
	case 'r':
	case 'R':
		return o->recursive = true;
	case 'p':
		return o->owner = true;
	case 'H':
		return o->links = true;
	case 'X':
		return o->xattrs = true;
	case 'S':
		return o->sparse = true;
	case 'D':
		return o->special = true;
	case OPT_CONTINUE:
		return o->resume = true;
	case OPT_CHECK:
		return o->check = true;
	case OPT_PROGRESS:
		return o->progress = true;
	default:
		return false;
	}
}

static bool take_options(struct p9_copy_opts *opts, int argc, char **argv)
{
	static const struct option longs[] = { { "recursive", 0, NULL, 'r' },
					       { "archive", 0, NULL, 'a' },
					       { "preserve", 0, NULL, 'p' },
					       { "links", 0, NULL, 'H' },
					       { "xattrs", 0, NULL, 'X' },
					       { "sparse", 0, NULL, 'S' },
					       { "specials", 0, NULL, 'D' },
					       { "continue", 0, NULL, OPT_CONTINUE },
					       { "check", 0, NULL, OPT_CHECK },
					       { "progress", 0, NULL, OPT_PROGRESS },
					       { 0 } };
	int o;
	while ((o = getopt_long(argc, argv, "rRapHXSD", longs, NULL)) != -1) {
		if (!take_option(opts, o)) {
			return false;
		}
	}
	return true;
}

/* `target` stands for a last operand that is not there; NULL when there must be one. */
static int copy(struct p9_cli *cli, struct job *j, int argc, char **argv)
{
	j->copy.cli = cli;
	int n = argc - optind;
	if (n < 1 || (n < 2 && !j->target)) {
		return p9_cli_usage(cli, n < 1 ? "what?" : "where to?");
	}
	j->sources = argv + optind;
	j->target = n > 1 ? argv[argc - 1] : j->target;
	j->n = n > 1 ? n - 1 : 1;
	return run(j);
}

int p9_cmd_get(struct p9_cli *cli, int argc, char **argv)
{
	struct job j = { .copy.to_here = true, .target = "." };
	if (!take_options(&j.copy.opts, argc, argv)) {
		return p9_cli_usage(cli, NULL);
	}
	if (argc - optind > 1 && strcmp(argv[argc - 1], "-") == 0) {
		int n = argc - optind - 1;
		char **cat = calloc((size_t)n + 3, sizeof(*cat));
		if (!cat) {
			return p9_cli_fail(cli, NULL, "get", P9_ENOMEM);
		}
		cat[0] = argv[0];
		cat[1] = (char[]){ "--" };
		memcpy(cat + 2, argv + optind, (size_t)n * sizeof(*cat));
		optind = 0;
		int code = p9_cmd_cat(cli, n + 2, cat);
		free(cat);
		return code;
	}
	return copy(cli, &j, argc, argv);
}

int p9_cmd_put(struct p9_cli *cli, int argc, char **argv)
{
	struct job j = { .copy.from_here = true, .target = "/" };
	if (!take_options(&j.copy.opts, argc, argv)) {
		return p9_cli_usage(cli, NULL);
	}
	return copy(cli, &j, argc, argv);
}

int p9_cmd_cp(struct p9_cli *cli, int argc, char **argv)
{
	struct job j = { 0 };
	if (!take_options(&j.copy.opts, argc, argv)) {
		return p9_cli_usage(cli, NULL);
	}
	return copy(cli, &j, argc, argv);
}
