/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_talk.c - `p9 talk FILE.9t...`: runs conversations with a server and says whether it kept to them.
 *
 * Owns the command line; the language is told in tests/talk/README.md and lives in talk_*.c. Prints TAP (one line per
 * test, the cause of a failure behind it as a comment) and a line of totals. Exit code 0 when all tests that ran passed.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "p9/cli.h"
#include "p9/talk.h"

#define SCRIPT_MAX ((size_t)16 << 20)
#define TIMEOUT_MS 5000
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const char help[] =
	"usage: p9 [-s ADDR] [-a ANAME] [-u UID] [-m MSIZE] talk [OPTIONS] FILE.9t...\n"
	"Runs scripts of 9P messages and expected answers. The language: tests/talk/README.md, p9(1).\n"
	"  --check          parse the scripts, run nothing\n"
	"  --filter TEXT    only tests with TEXT in their name\n"
	"  --list           names of the tests, run nothing\n"
	"  --host DIR       the exported directory, for `host` (default: P9_HOST_DIR, or the current one)\n"
	"  --setup COMMAND  run this in that directory before each test\n"
	"  --spawn COMMAND  start this for each connection and talk to its stdin and stdout, instead of ADDR\n"
	"  --timeout TIME   longest wait for a reply, in ms (default 5000)\n"
	"  -D NAME=VALUE    set $NAME\n"
	"  -v, --verbose    print every message\n"
	"  -h, --help       print this\n";

static const struct option longopts[] = {
	{ "check", no_argument, NULL, 'C' },
	{ "filter", required_argument, NULL, 'f' },
	{ "list", no_argument, NULL, 'l' },
	{ "host", required_argument, NULL, 'd' },
	{ "setup", required_argument, NULL, 'S' },
	{ "spawn", required_argument, NULL, 'p' },
	{ "timeout", required_argument, NULL, 't' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "define", required_argument, NULL, 'D' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

struct talk_cli {
	struct talk_options opt;
	bool check;
	char cwd[4096];
};

static int bad_option(struct p9_cli *cli, const char *what, const char *value)
{
	p9_cli_say(cli, "%s %s (see p9 talk --help)", what, value);
	return P9_EXIT_USAGE;
}

static int timeout_option(struct p9_cli *cli, struct talk_options *opt, const char *value)
{
	char *end;
	errno = 0;
	long ms = strtol(value, &end, 10);
	if (errno || end == value || *end || ms <= 0 || ms > 600000) {
		return bad_option(cli, "--timeout: expected 1 to 600000 ms, found", value);
	}
	opt->timeout_ms = (int)ms;
	return -1;
}

static int define_option(struct p9_cli *cli, struct talk_options *opt, const char *value)
{
	for (size_t i = 0; i + 1 < COUNT(opt->defines); i++) {
		if (!opt->defines[i]) {
			opt->defines[i] = value;
			return -1;
		}
	}
	return bad_option(cli, "-D: too many:", value);
}

/* One option. Returns -1 to go on, or an exit code. */
static int option(struct p9_cli *cli, struct talk_cli *t, int c)
{
	switch (c) {
	case 'C':
		t->check = true;
		return -1;
	case 'f':
		t->opt.filter = optarg;
		return -1;
	case 'l':
		t->opt.list = true;
		return -1;
	case 'd':
		t->opt.host_dir = optarg;
		return -1;
	case 'S':
		t->opt.setup = optarg;
		return -1;
	case 'p':
		t->opt.spawn = optarg;
		return -1;
	case 't':
		return timeout_option(cli, &t->opt, optarg);
	case 'v':
		t->opt.verbose = true;
		return -1;
	case 'D':
		return define_option(cli, &t->opt, optarg);
	case 'h':
		fputs(help, stdout);
		return P9_EXIT_OK;
	default:
		fputs(help, stderr);
		return P9_EXIT_USAGE;
	}
}

static char *read_file(const char *path, size_t *len)
{
	FILE *f = fopen(path, "re");
	char *text = f ? malloc(SCRIPT_MAX + 1) : NULL;
	if (!text) {
		if (f) {
			fclose(f);
		}
		return NULL;
	}
	*len = fread(text, 1, SCRIPT_MAX + 1, f);
	bool bad = ferror(f) || *len > SCRIPT_MAX;
	fclose(f);
	if (bad) {
		errno = *len > SCRIPT_MAX ? EFBIG : EIO;
		free(text);
		return NULL;
	}
	return text;
}

/* One script; false when it could not be read or parsed. */
static bool script(struct p9_cli *cli, const struct talk_cli *t, const char *path, struct talk_totals *totals)
{
	size_t len = 0;
	char *text = read_file(path, &len);
	if (!text) {
		p9_cli_say(cli, "%s: %s", path, strerror(errno));
		return false;
	}
	struct talk_err err = { .file = path };
	struct talk_script s = { .err = &err };
	bool fine = p9_talk_parse(&s, text, len) == 0;
	if (!fine) {
		p9_cli_say(cli, "%s", err.text);
	} else if (!t->check) {
		p9_talk_run(&s, &t->opt, totals);
	}
	p9_talk_script_fini(&s);
	free(text);
	return fine;
}

int p9_cmd_talk(struct p9_cli *cli, int argc, char **argv)
{
	struct talk_cli t = { .opt = { .addr = cli->addr,
				       .aname = cli->aname,
				       .uid = cli->uid,
				       .gid = (uint32_t)getegid(),
				       .msize = cli->msize,
				       .timeout_ms = TIMEOUT_MS } };
	t.opt.host_dir = getenv("P9_HOST_DIR");
	optind = 0;
	for (int c; (c = getopt_long(argc, argv, "+D:vh", longopts, NULL)) != -1;) {
		int rc = option(cli, &t, c);
		if (rc >= 0) {
			return rc;
		}
	}
	if (optind == argc) {
		return bad_option(cli, "expected at least one", "FILE.9t");
	}
	if (!t.opt.host_dir) {
		t.opt.host_dir = getcwd(t.cwd, sizeof(t.cwd)) ? t.cwd : "/";
	}
	signal(SIGPIPE, SIG_IGN);
	struct talk_totals totals = { 0 };
	bool fine = true;
	for (int i = optind; i < argc; i++) {
		fine &= script(cli, &t, argv[i], &totals);
	}
	if (!t.check && !t.opt.list) {
		printf("1..%u\n# talk: %u passed, %u failed, %u skipped\n", totals.number, totals.passed, totals.failed,
		       totals.skipped);
	}
	return fine && totals.failed == 0 ? P9_EXIT_OK : P9_EXIT_FAILED;
}
