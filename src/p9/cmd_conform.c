/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_conform.c - `p9 conform`: runs the checks of the conformance kit against a server, one after the other.
 *
 * Each check gets connections of its own and, when it wants one, an empty directory on the server, made and removed
 * through the protocol. Behind each the server is asked whether it lives. Nothing is left behind: the kit's directory goes
 * at the end, after failures and after ^C as well.
 */
#include <fnmatch.h>
#include <getopt.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "p9/conform.h"

#define TIMEOUT_MS 5000
#define LIMIT_MS 120000
#define DIRS_MAX 16u

static const char help[] =
	"usage: p9 [-s ADDR] [-a ANAME] [-u UID] [-m MSIZE] conform [OPTIONS] [ADDR]\n"
	"Runs named checks against any 9P2000.L server and prints what passed, failed and was skipped. They work in a\n"
	"directory of their own below the root that is attached, p9-conform-XXXXXX, which is removed at the end.\n"
	"  --suite NAME,...  only these suites: wire, session, walk, open, io, attr, tree, xattr, lock, flush, readdir,\n"
	"                    concurrency, limits, hostile\n"
	"  --only PATTERN    only checks whose id fits, such as 'walk-01*'\n"
	"  --list            print the checks, run nothing\n"
	"  --tap             print TAP 13 instead of a table\n"
	"  --json            print one JSON object instead\n"
	"  --dir DIR         checks from here, too; may be given again ($P9_CONFORM: instead of those that came with p9)\n"
	"  --restart COMMAND run this when the server has crashed or hangs, and go on when it is back\n"
	"  --timeout SECS    longest wait for a reply (default 5)\n"
	"  -a ANAME, -u UID  as before the command\n"
	"  -v, --verbose     print every message (not with --json)\n"
	"  -h, --help        print this\n"
	"exit code: 0 all checks that ran passed, 1 some failed, 2 wrong usage, 3 no connection\n";

static const struct option longopts[] = {
	{ "suite", required_argument, NULL, 'S' },
	{ "only", required_argument, NULL, 'o' },
	{ "list", no_argument, NULL, 'l' },
	{ "tap", no_argument, NULL, 't' },
	{ "json", no_argument, NULL, 'j' },
	{ "dir", required_argument, NULL, 'd' },
	{ "timeout", required_argument, NULL, 'T' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "restart", required_argument, NULL, 'R' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

struct conform {
	struct p9_cli *cli;
	struct conform_set set;
	struct conform_server server;
	struct conform_report report;
	struct talk_options opt;
	const char *suites, *only, *dirs[DIRS_MAX];
	unsigned ndirs;
	bool list, gone;
	bool early;	      /* the check ended before its own first statement */
	const char *previous; /* id of the check before, or NULL */
};

static int bad_option(const struct p9_cli *cli, const char *what, const char *value)
{
	p9_cli_say(cli, "%s %s (see p9 conform --help)", what, value);
	return P9_EXIT_USAGE;
}

static int timeout_option(struct conform *k, const char *value)
{
	char *end;
	double s = strtod(value, &end);
	if (end == value || *end || !(s >= 0.1 && s <= 600)) {
		return bad_option(k->cli, "--timeout: expected 0.1 to 600 seconds, found", value);
	}
	k->opt.timeout_ms = (int)(s * 1000);
	return -1;
}

/* Options with a value. Returns -1 to go on, or an exit code. */
static int value_option(struct conform *k, int c)
{
	switch (c) {
	case 'S':
		k->suites = optarg;
		return -1;
	case 'o':
		k->only = optarg;
		return -1;
	case 'd':
		if (k->ndirs == DIRS_MAX) {
			return bad_option(k->cli, "--dir: too many:", optarg);
		}
		k->dirs[k->ndirs++] = optarg;
		return -1;
	case 'R':
		k->server.restart = optarg;
		return -1;
	case 'T':
		return timeout_option(k, optarg);
	case 's':
		k->cli->addr = optarg;
		return -1;
	case 'a':
		k->cli->aname = optarg;
		return -1;
	default:
		return p9_cli_user(optarg, &k->cli->uid) ? -1 : bad_option(k->cli, "-u: no such user:", optarg);
	}
}

static int option(struct conform *k, int c)
{
	switch (c) {
	case 'l':
		k->list = true;
		return -1;
	case 't':
		k->report.form = CONFORM_TAP;
		return -1;
	case 'j':
		k->report.form = CONFORM_JSON;
		return -1;
	case 'v':
		k->opt.verbose = true;
		return -1;
	case 'h':
		fputs(help, stdout);
		return P9_EXIT_OK;
	case '?':
		fputs(help, stderr);
		return P9_EXIT_USAGE;
	default:
		return value_option(k, c);
	}
}

/* Whether a comma list names a word. */
static bool named(const char *list, const char *word)
{
	size_t n = strlen(word);
	for (const char *p = list; *p; p += *p == ',') {
		size_t k = strcspn(p, ",");
		if (k == n && memcmp(p, word, n) == 0) {
			return true;
		}
		p += k;
	}
	return false;
}

/* Every suite that is asked for must be there: a wrong name must not pass with no check run. */
static bool suites_known(const struct conform *k)
{
	for (const char *p = k->suites; p && *p; p += *p == ',') {
		size_t n = strcspn(p, ",");
		bool known = false;
		for (size_t i = 0; i < k->set.n && !known; i++) {
			known = strlen(k->set.checks[i].suite) == n && memcmp(k->set.checks[i].suite, p, n) == 0;
		}
		if (!known) {
			p9_cli_say(k->cli, "--suite: there is no suite %.*s", (int)n, p);
			return false;
		}
		p += n;
	}
	return true;
}

static bool chosen(const struct conform *k, const struct conform_check *c)
{
	return (!k->suites || named(k->suites, c->suite)) && (!k->only || fnmatch(k->only, c->id, 0) == 0);
}

/* Keeps the chosen checks. The others stay behind the end of the list, for p9_conform_unload(). */
static size_t choose(struct conform *k)
{
	size_t n = 0;
	for (size_t i = 0; i < k->set.n; i++) {
		if (chosen(k, &k->set.checks[i])) {
			struct conform_check c = k->set.checks[i];
			k->set.checks[i] = k->set.checks[n];
			k->set.checks[n++] = c;
		}
	}
	return n;
}

static bool load(struct conform *k)
{
	char *dir = p9_conform_find();
	bool fine = dir && p9_conform_load(&k->set, k->cli, dir);
	for (unsigned i = 0; fine && i < k->ndirs; i++) {
		fine = p9_conform_load(&k->set, k->cli, k->dirs[i]);
	}
	free(dir);
	p9_conform_sort(&k->set);
	return fine;
}

static void list(const struct conform_set *set)
{
	for (size_t i = 0; i < set->n; i++) {
		const struct conform_check *c = &set->checks[i];
		printf("%-12s %-16s %s [%s]\n", c->suite, c->id, c->expect, c->source);
	}
}

/* ---- running ---- */
static void set_result(struct conform_check *c, enum conform_result result, const char *why)
{
	c->result = result;
	if (why && why[0]) {
		free(c->why);
		c->why = strdup(why);
	}
}

/* The check itself, and how it went. */
static void talk(struct conform *k, struct conform_check *c)
{
	struct talk_result *res = calloc(1, sizeof(*res));
	if (!res) {
		set_result(c, CONFORM_FAIL, "out of memory");
		return;
	}
	k->opt.scratch[0] = c->scratch ? k->server.top : NULL;
	k->opt.scratch[1] = c->scratch ? c->id : NULL;
	p9_talk_test(&c->file->script, &k->opt, c->range, res);
	k->early = res->rc < 0 && res->pc < c->range[0];
	if (res->rc < 0) {
		set_result(c, CONFORM_FAIL, res->err.text);
	} else {
		set_result(c, res->skip[0] ? CONFORM_SKIP : CONFORM_PASS, res->skip);
	}
	free(res);
}

/* Looks at the server behind a check; the check is to blame for what became of it. */
static void look(struct conform *k, struct conform_check *c)
{
	char why[1024];
	int rc = p9_conform_alive(&k->server, why, sizeof(why));
	if (rc == 1 || p9_interrupted) {
		return;
	}
	char *all;
	bool late = k->early && k->previous; /* it may have died a moment after it was looked at */
	if (asprintf(&all, "%s%s%s%s%s", why, late ? "\nit may have been " : "", late ? k->previous : "",
		     c->why ? "\n" : "", c->why ? c->why : "") < 0) {
		all = NULL;
	}
	c->crash = true;
	set_result(c, CONFORM_FAIL, all ? all : why);
	free(all);
	k->gone = rc < 0;
}

static void run_check(struct conform *k, struct conform_check *c)
{
	int64_t begin = p9_talk_now();
	int rc = c->scratch ? p9_conform_mkdir(&k->server, c->id) : 0;
	if (rc < 0) {
		char why[256];
		snprintf(why, sizeof(why), "no directory for the check: %s (%s)", p9_error_text((uint32_t)-rc),
			 p9_error_name((uint32_t)-rc));
		set_result(c, CONFORM_FAIL, why);
	} else {
		talk(k, c);
	}
	if (p9_interrupted) { /* it may have failed for that */
		c->result = CONFORM_NOT_RUN;
		return;
	}
	if (c->scratch) {
		p9_conform_rmdir(&k->server, c->id);
	}
	look(k, c);
	c->seconds = (double)(p9_talk_now() - begin) / 1000;
}

static void run_all(struct conform *k, size_t n)
{
	for (size_t i = 0; i < n && !p9_interrupted && !k->gone; i++) {
		struct conform_check *c = &k->set.checks[i];
		p9_conform_report_running(&k->report, c);
		run_check(k, c);
		k->previous = c->id;
		if (c->result != CONFORM_NOT_RUN) {
			p9_conform_report_check(&k->report, c);
		}
	}
}

static bool any_scratch(const struct conform *k, size_t n)
{
	bool any = false;
	for (size_t i = 0; i < n; i++) {
		any |= k->set.checks[i].scratch;
	}
	return any;
}

static int failed_checks(const struct conform *k, size_t n)
{
	bool bad = k->gone;
	for (size_t i = 0; i < n; i++) {
		bad |= k->set.checks[i].result == CONFORM_FAIL || k->set.checks[i].result == CONFORM_NOT_RUN;
	}
	return bad ? P9_EXIT_FAILED : P9_EXIT_OK;
}

static int run(struct conform *k, size_t n)
{
	int code = p9_conform_connect(&k->server);
	if (code != P9_EXIT_OK) {
		return code;
	}
	int rc = any_scratch(k, n) ? p9_conform_begin(&k->server) : 0;
	if (rc < 0) {
		p9_cli_say(k->cli, "%s: the checks need a directory to work in, and none can be made: %s (%s)",
			   k->cli->addr, p9_error_text((uint32_t)-rc), p9_error_name((uint32_t)-rc));
		p9_client_free(k->server.client);
		return P9_EXIT_FAILED;
	}
	struct conform_set part = { .checks = k->set.checks, .n = n };
	p9_catch_signals();
	p9_conform_report_begin(&k->report, &part);
	run_all(k, n);
	const char *stopped = p9_interrupted ? "interrupted" : k->gone ? "the server is gone" : NULL;
	p9_interrupted = 0; /* for the cleaning up; a second signal ends even that */
	bool clean = p9_conform_end(&k->server);
	p9_conform_report_end(&k->report, &part, stopped);
	return clean ? failed_checks(k, n) : P9_EXIT_FAILED;
}

static int start(struct conform *k, int argc, char **argv)
{
	if (argc - optind > 1) {
		return bad_option(k->cli, "expected one ADDR, found another:", argv[optind + 1]);
	}
	if (optind < argc) {
		k->cli->addr = argv[optind];
	}
	const struct passwd *pw = k->cli->uid == geteuid() ? NULL : getpwuid(k->cli->uid);
	k->opt.gid = pw ? pw->pw_gid : (uint32_t)getegid();
	k->opt.addr = k->report.addr = k->cli->addr;
	k->opt.aname = k->cli->aname;
	k->opt.uid = k->cli->uid;
	k->opt.msize = k->cli->msize;
	k->opt.verbose &= k->report.form != CONFORM_JSON;
	if (!load(k) || !suites_known(k)) {
		return P9_EXIT_USAGE;
	}
	size_t n = choose(k);
	if (n == 0) {
		return bad_option(k->cli, "no check fits", k->only ? k->only : "");
	}
	if (k->list) {
		list(&(struct conform_set){ .checks = k->set.checks, .n = n });
		return P9_EXIT_OK;
	}
	return run(k, n);
}

int p9_cmd_conform(struct p9_cli *cli, int argc, char **argv)
{
	struct conform k = { .cli = cli,
			     .server = { .cli = cli },
			     .opt = { .host_dir = "/", .timeout_ms = TIMEOUT_MS, .limit_ms = LIMIT_MS } };
	optind = 0;
	for (int c; (c = getopt_long(argc, argv, "s:a:u:vh", longopts, NULL)) != -1;) {
		int rc = option(&k, c);
		if (rc >= 0) {
			return rc;
		}
	}
	int code = start(&k, argc, argv);
	p9_conform_unload(&k.set);
	return code;
}
