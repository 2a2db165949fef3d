/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_bench.c - `p9 bench`: how fast a 9P2000.L server is.
 *
 * Owns the command line and what is printed. The work is in bench_prep.c (fixture), bench_load.c (what an operation
 * is), bench_run.c (the loop), bench_conn.c (one connection), bench_stat.c (latencies, CPU). It runs against any
 * server; server CPU is known when the server runs on this host: --server-pid, or the peer of a Unix socket.
 */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "p9/bench.h"

struct settings {
	unsigned conns, depth;
	double secs;
	bool json;
	enum bench_wait how;
	pid_t pid;
	const struct bench_load *load;
	struct bench_want want;
};

static const char usage[] =
	"usage: p9 bench [-c conns] [-q depth] [-t secs] [-n count] [-z MiB] [--poll|--sleep] [--json]\n"
	"                [--server-pid PID] [--file PATH]... WORKLOAD\n"
	"  -c, --conns N       connections (1)\n"
	"  -q, --depth N       operations in flight on each (32)\n"
	"  -t, --secs S        seconds to measure (3)\n"
	"  -n, --count N       files, or entries of the directory, to make (64, readdir 10000)\n"
	"  -z, --size MIB      size of a file that is read or written (64)\n"
	"      --file PATH     use this file of the export and make none (may be given again)\n"
	"      --poll          look for replies all the time (takes a processor), not for a while before sleeping\n"
	"      --sleep         sleep at once until replies come, as the Linux kernel's client does\n"
	"      --server-pid P  process whose CPU time is told per op (else the peer of a Unix socket)\n"
	"      --json          one JSON object instead of text\n"
	"  WORKLOAD            getattr walk small create read write randread randwrite readdir\n";

static void on_interrupt(int sig)
{
	bench_stopped = true;
}

static bool number(const struct p9_cli *cli, const char *what, const char *text, double max, double *out)
{
	char *end;
	errno = 0;
	*out = strtod(text, &end);
	if (end == text || *end != 0 || errno != 0 || !isfinite(*out) || *out <= 0 || *out > max) {
		p9_cli_say(cli, "%s %s: a number above 0 and up to %.0f is wanted", what, text, max);
		return false;
	}
	return true;
}

enum { OPT_JSON = 256, OPT_PID, OPT_FILE, OPT_POLL, OPT_SLEEP };

static bool take_option(const struct p9_cli *cli, struct settings *s, int opt)
{
	static const double max[128] = {
		['c'] = BENCH_CONNS_MAX, ['q'] = BENCH_DEPTH_MAX, ['t'] = 86400, ['n'] = 9999999, ['z'] = 1 << 20
	};
	double v = 0;
	if (opt < 128 && max[opt] != 0 && !number(cli, (char[]){ '-', (char)opt, 0 }, optarg, max[opt], &v)) {
		return false;
	}
	switch (opt) {
	case 'c':
		s->conns = v < 1 ? 1 : (unsigned)v;
		return true;
	case 'q':
		s->depth = v < 1 ? 1 : (unsigned)v;
		return true;
	case 't':
		s->secs = v;
		return true;
	case 'n':
		s->want.count = v < 1 ? 1 : (unsigned)v;
		return true;
	case 'z':
		s->want.size = (uint64_t)(v * 1048576);
		return true;
	case OPT_JSON:
		s->json = true;
		return true;
	case OPT_POLL:
		s->how = BENCH_POLL;
		return true;
	case OPT_SLEEP:
		s->how = BENCH_SLEEP;
		return true;
	case OPT_PID:
		if (number(cli, "--server-pid", optarg, INT32_MAX, &v)) {
			s->pid = (pid_t)v;
		}
		return s->pid != 0;
	case OPT_FILE:
		if (s->want.npaths == BENCH_FILES_MAX) {
			p9_cli_say(cli, "--file: at most %d of them", BENCH_FILES_MAX);
			return false;
		}
		s->want.paths[s->want.npaths++] = optarg;
		return true;
	default:
		return false;
	}
}

static bool take_options(const struct p9_cli *cli, struct settings *s, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "conns", 1, NULL, 'c' },     { "depth", 1, NULL, 'q' },
		{ "secs", 1, NULL, 't' },      { "count", 1, NULL, 'n' },
		{ "size", 1, NULL, 'z' },      { "json", 0, NULL, OPT_JSON },
		{ "file", 1, NULL, OPT_FILE }, { "server-pid", 1, NULL, OPT_PID },
		{ "poll", 0, NULL, OPT_POLL }, { "sleep", 0, NULL, OPT_SLEEP },
		{ NULL, 0, NULL, 0 },
	};
	static const char *paths[BENCH_FILES_MAX];
	s->want.paths = paths;
	optind = 1;
	for (int opt; (opt = getopt_long(argc, argv, "+c:q:t:n:z:", longs, NULL)) != -1;) {
		if (!take_option(cli, s, opt)) {
			return false;
		}
	}
	if (optind != argc - 1) {
		return false;
	}
	s->load = bench_load_find(argv[optind]);
	if (s->load == NULL || strstr(bench_workloads, argv[optind]) == NULL) {
		p9_cli_say(cli, "%s: no such workload; there are %s", argv[optind], bench_workloads);
		return false;
	}
	if (s->want.npaths > 0 && !s->load->files_ok) {
		p9_cli_say(cli, "--file: %s changes its files and makes its own", s->load->name);
		return false;
	}
	if (s->want.count == 0) {
		s->want.count = s->load->needs == BENCH_NEEDS_DIR ? 10000 : 64;
	}
	return true;
}

/* ---- the report ---- */

struct figures {
	double ops, rate, mb, p50, p99, p999, max, server, client; /* times in us; server < 0 when not known */
};

static struct figures figure(const struct bench_run *r, const struct bench_fixture *f)
{
	struct figures g = { 0 };
	double secs = r->secs > 0 ? r->secs : 1;
	g.ops = f->entries > 0 ? (double)r->tally.entries / (double)f->entries : (double)r->tally.ops;
	g.rate = g.ops / secs;
	g.mb = (double)r->tally.bytes / secs / 1e6;
	g.p50 = (double)bench_hist_at(&r->hist, 0.5) / 1e3;
	g.p99 = (double)bench_hist_at(&r->hist, 0.99) / 1e3;
	g.p999 = (double)bench_hist_at(&r->hist, 0.999) / 1e3;
	g.max = (double)r->hist.max / 1e3;
	double ops = g.ops > 0 ? g.ops : 1;
	g.server = r->server_ns < 0 ? -1 : (double)r->server_ns / 1e3 / ops;
	g.client = (double)r->client_ns / 1e3 / ops;
	return g;
}

static void print_json(const struct settings *s, const struct bench_run *r, const struct bench_fixture *f)
{
	struct figures g = figure(r, f);
	printf("{\"workload\": \"%s\", \"conns\": %u, \"depth\": %u, \"msize\": %u, \"secs\": %.4f, \"ops\": %.2f, ",
	       s->load->name, s->conns, s->depth, r->conns[0].msize, r->secs, g.ops);
	printf("\"ops_per_s\": %.2f, \"mb_per_s\": %.2f, \"entries\": %llu, ", g.rate, g.mb,
	       (unsigned long long)f->entries);
	printf("\"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.2f, ", g.p50, g.p99, g.p999,
	       g.max);
	printf("\"server_pid\": %d, \"server_cpu_us_per_op\": ", (int)r->pid);
	printf(g.server < 0 ? "null, " : "%.4f, ", g.server);
	printf("\"client_cpu_us_per_op\": %.4f, \"errors\": %llu, \"first_error\": ", g.client,
	       (unsigned long long)r->tally.errors);
	if (r->tally.errors > 0) {
		printf("\"%s: %s\"}\n", r->tally.failed, p9_error_name(r->tally.ecode));
	} else {
		printf("null}\n");
	}
}

static void print_text(const struct settings *s, const struct bench_run *r, const struct bench_fixture *f)
{
	struct figures g = figure(r, f);
	printf("%s, %u connection%s, depth %u, msize %u, %.2f s\n", s->load->name, s->conns, s->conns == 1 ? "" : "s",
	       s->depth, r->conns[0].msize, r->secs);
	if (f->entries > 0) {
		printf("  listings/s    %14.2f  (%llu entries each, %.0f entries/s)\n", g.rate,
		       (unsigned long long)f->entries, g.rate * (double)f->entries);
	} else {
		printf("  ops/s         %14.0f\n", g.rate);
	}
	if (r->tally.bytes > 0) {
		printf("  MB/s          %14.1f\n", g.mb);
	}
	printf("  latency, us   %14.1f  p50\n%30.1f  p99\n%30.1f  p99.9\n%30.1f  max\n", g.p50, g.p99, g.p999, g.max);
	if (g.server >= 0) {
		printf("  server CPU    %14.3f  us/op (pid %d)\n", g.server, (int)r->pid);
	}
	printf("  client CPU    %14.3f  us/op\n", g.client);
	if (r->load->by_remove == NULL && s->load->by_remove != NULL) {
		printf("  the server has no Tunlinkat: Tremove took the place of Tclunk and Tunlinkat\n");
	}
	if (r->tally.errors > 0) {
		printf("  errors        %14llu  not counted above\n", (unsigned long long)r->tally.errors);
	}
}

static int measure(const struct p9_cli *cli, const struct settings *s, struct bench_run *r)
{
	struct bench_fixture f = { 0 };
	int rc = bench_prep(r, s->load, &s->want, &f);
	if (rc == 0 && !bench_stopped) {
		rc = bench_run(r, s->load, 0, s->secs);
	}
	if (bench_stopped && r->secs == 0) {
		p9_cli_say(cli, "interrupted");
	} else if (rc < 0) {
		p9_cli_say(cli, "%s", r->err[0] != 0 ? r->err : p9_error_text((uint32_t)-rc));
	} else if (r->secs > 0) {
		(s->json ? print_json : print_text)(s, r, &f);
		fflush(stdout);
	}
	if (rc == 0 && r->tally.errors > 0) {
		p9_cli_say(cli, "%s: %s (%s), %llu errors", r->tally.failed, p9_error_text(r->tally.ecode),
			   p9_error_name(r->tally.ecode), (unsigned long long)r->tally.errors);
		rc = -P9_EIO;
	}
	rc = bench_stopped && rc == 0 ? -P9_EINTR : rc;
	if (bench_unprep(r, &f) < 0) {
		p9_cli_say(cli, "%s: %s stays behind", r->err, f.scratch);
		return P9_EXIT_FAILED;
	}
	return rc < 0 ? P9_EXIT_FAILED : P9_EXIT_OK;
}

int p9_cmd_bench(struct p9_cli *cli, int argc, char **argv)
{
	if (argc == 2 && (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0)) {
		fputs(usage, stdout);
		return P9_EXIT_OK;
	}
	struct settings s = { .conns = 1, .depth = 32, .secs = 3, .want.size = 64 << 20 };
	if (!take_options(cli, &s, argc, argv)) {
		fputs(usage, stderr);
		return P9_EXIT_USAGE;
	}
	static struct bench_run run; /* its histogram does not belong on the stack */
	run = (struct bench_run){ .nconns = 0, .depth = s.depth };
	run.conns = calloc(s.conns, sizeof(*run.conns));
	int rc = run.conns == NULL ? P9_EXIT_FAILED : P9_EXIT_OK;
	struct sigaction sa = { .sa_handler = on_interrupt, .sa_flags = SA_RESETHAND };
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	for (; rc == P9_EXIT_OK && run.nconns < s.conns; run.nconns++) {
		rc = bench_conn_init(&run.conns[run.nconns], cli, run.nconns, s.depth);
		if (rc != P9_EXIT_OK) {
			p9_cli_say(cli, "%s", run.conns[run.nconns].err);
		}
	}
	if (rc == P9_EXIT_OK) {
		run.pid = s.pid != 0 ? s.pid : bench_conn_peer(&run.conns[0]);
		run.how = p9_spin_worth() || s.how == BENCH_POLL ? s.how : BENCH_SLEEP;
		rc = measure(cli, &s, &run);
	}
	for (unsigned i = 0; run.conns != NULL && i < run.nconns; i++) {
		bench_conn_fini(&run.conns[i]);
	}
	free(run.conns);
	return rc;
}
