/* SPDX-License-Identifier: BSD-2-Clause */
/* The differential test: the same random operations on a local directory and on a mount, side by side. After each, the
 * result, errno, data and position must be the same; now and then and at the end, the whole trees must be; at the end also
 * that of the mount and that of the exported directory beneath it.
 *
 * Each process has a directory of its own, so every process's run depends on seed and number alone and can be repeated by
 * itself. --shared is the other mode: processes meet in one directory and invariants are checked (shared.c).
 * Exit code: 0 all the same; 1 different; 2 it could not run. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "diff.h"

struct options {
	uint64_t seed, ops, check_every, replay;
	unsigned processes;
	int only; /* this process alone; -1: all */
	bool shared, trace, keep, stats;
	struct world first; /* what all processes begin with */
};

static const char usage[] =
	"usage: differential [OPTION]... LOCAL MOUNT [BENEATH]\n"
	"       differential --shared [OPTION]... MOUNT... --beneath BENEATH\n"
	"  --seed N         where the random numbers begin (1)\n"
	"  --ops N          operations of each process (10000); with --shared: rounds\n"
	"  --procs N        processes (1)\n"
	"  --check-every N  compare the trees after so many operations (2500)\n"
	"  --replay N       the run again, up to operation N, which is shown with what led to it\n"
	"  --process N      only this process\n"
	"  --skip A,B       without these operations; --list names them\n"
	"  --no-mmap        without mappings\n"
	"  --own-times      with writeback the mount's kernel has times of its own: not compared with BENEATH's\n"
	"  --trace          print each operation\n"
	"  --stats          how often each operation was done, and how often with success\n"
	"  --keep           leave the trees\n";

static bool same_file(const struct memory *m, const struct memory *bad)
{
	for (int i = 0; i < 2; i++) {
		for (int j = 0; j < 2; j++) {
			if (m->key[i][0] && !strcmp(m->key[i], bad->key[j])) {
				return true;
			}
		}
	}
	return false;
}

/* The last operations on the files that the latest is about. */
static void print_history(const struct world *w, FILE *to)
{
	const struct memory *shown[SHOWN], *bad = w->now;
	unsigned n = 0;
	uint64_t oldest = w->number > HISTORY - 1 ? w->number - (HISTORY - 1) : 0;
	for (uint64_t i = w->number; n < SHOWN && i-- > oldest;) {
		const struct memory *m = &w->history[i % HISTORY];
		if (m->number == i && m->text[0] && (same_file(m, bad) || !bad->key[0][0])) {
			shown[n++] = m;
		}
	}
	fprintf(to, "  the last %u on %s %s:\n", n, bad->key[0][0] ? bad->key[0] : "anything", bad->key[1]);
	while (n-- > 0) {
		fprintf(to, "    %llu: %s\n", (unsigned long long)shown[n]->number, shown[n]->text);
	}
}

static void print_failure(const struct options *opt, struct world *w, bool trees)
{
	fprintf(stderr, "FAILED seed %llu process %u operation %llu: %s\n", (unsigned long long)w->seed, w->process,
		(unsigned long long)w->number, trees ? "the trees differ (above)" : w->now->text);
	if (!trees) {
		ops_explain(w, stderr);
		print_history(w, stderr);
	}
	fprintf(stderr,
		"  again: differential --seed %llu --procs %u --process %u --check-every %llu%s%s%s%s --replay %llu %s %s %s\n",
		(unsigned long long)w->seed, opt->processes, w->process, (unsigned long long)opt->check_every,
		w->no_mmap ? " --no-mmap" : "", w->own_times ? " --own-times" : "", w->skip ? " --skip " : "",
		w->skip ? w->skip : "", (unsigned long long)w->number, w->dir[0], w->dir[1],
		w->dir[2] ? w->dir[2] : "");
}

static bool check_trees(struct world *w)
{
	ops_settle(w);
	return tree_equal(w->root[0], w->root[1], false, stderr) &&
	       (!w->dir[2] || tree_equal(w->root[1], w->root[2], !w->own_times, stderr));
}

static void print_stats(const struct world *w)
{
	for (unsigned i = 0; i < ops_count(); i++) {
		printf("%-12s %8llu %8llu\n", ops_name(i), (unsigned long long)w->done[i],
		       (unsigned long long)w->good[i]);
	}
}

/* One process's run. */
static int run(const struct options *opt, unsigned process)
{
	struct world w = opt->first;
	uint64_t ops = opt->replay ? opt->replay + 1 : opt->ops;
	w.process = process;
	w.history = calloc(HISTORY, sizeof *w.history);
	w.buffer = malloc(BUFFER + 16);
	w.done = calloc(2 * ops_count(), sizeof *w.done);
	w.good = w.done + ops_count();
	if (!w.history || !w.buffer || !w.done) {
		abort();
	}
	for (int i = 0; i < 3; i++) {
		snprintf(w.root[i], sizeof w.root[i], "%s/p%u", w.dir[i] ? w.dir[i] : "", process);
	}
	umask(022);
	ops_begin(&w);
	bool fine = true, trees = false;
	for (w.number = 0; w.number < ops; w.number++) {
		w.trace = opt->trace || (opt->replay && w.number + 60 > opt->replay);
		fine = ops_one(&w);
		if (fine && (w.number + 1) % opt->check_every == 0) {
			trees = true;
			fine = check_trees(&w);
		}
		if (!fine) {
			print_failure(opt, &w, trees);
			return 1;
		}
		trees = false;
	}
	ops_end(&w);
	if (!check_trees(&w)) {
		print_failure(opt, &w, true);
		return 1;
	}
	if (opt->stats) {
		print_stats(&w);
	}
	if (!opt->keep) {
		tree_remove(w.root[0]);
		tree_remove(w.root[1]);
	}
	return 0;
}

static int run_all(const struct options *opt)
{
	int worst = 0, status;
	for (unsigned i = 0; i < opt->processes; i++) {
		if (opt->only >= 0 && (unsigned)opt->only != i) {
			continue;
		}
		pid_t pid = fork();
		if (pid == 0) {
			exit(run(opt, i));
		}
		if (pid < 0) {
			perror("fork");
			return 2;
		}
	}
	while (wait(&status) > 0) {
		int code = WIFEXITED(status) ? WEXITSTATUS(status) : 2;
		if (WIFSIGNALED(status)) {
			fprintf(stderr, "FAILED: a process was killed by signal %d\n", WTERMSIG(status));
		}
		worst = code > worst ? code : worst;
	}
	return worst;
}

static uint64_t number(const char *text)
{
	char *end;
	errno = 0;
	uint64_t n = strtoull(text, &end, 0);
	if (errno || *end || end == text) {
		fprintf(stderr, "differential: not a number: %s\n", text);
		exit(2);
	}
	return n;
}

enum {
	SEED = 256,
	OPS,
	PROCS,
	EVERY,
	REPLAY,
	PROCESS,
	SKIP,
	SHARED,
	BENEATH,
	TRACE,
	KEEP,
	LIST,
	NO_MMAP,
	STATS,
	TIMES
};

static const struct option names[] = {
	{ "seed", 1, NULL, SEED },	 { "ops", 1, NULL, OPS },
	{ "procs", 1, NULL, PROCS },	 { "check-every", 1, NULL, EVERY },
	{ "replay", 1, NULL, REPLAY },	 { "process", 1, NULL, PROCESS },
	{ "skip", 1, NULL, SKIP },	 { "shared", 0, NULL, SHARED },
	{ "beneath", 1, NULL, BENEATH }, { "trace", 0, NULL, TRACE },
	{ "keep", 0, NULL, KEEP },	 { "list", 0, NULL, LIST },
	{ "no-mmap", 0, NULL, NO_MMAP }, { "own-times", 0, NULL, TIMES },
	{ "stats", 0, NULL, STATS },	 { NULL, 0, NULL, 0 },
};

static void parse(struct options *opt, int argc, char **argv)
{
	for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
		switch (c) {
		case SEED:
			opt->seed = number(optarg);
			break;
		case OPS:
			opt->ops = number(optarg);
			break;
		case PROCS:
			opt->processes = (unsigned)number(optarg);
			break;
		case EVERY:
			opt->check_every = number(optarg) ? number(optarg) : UINT64_MAX;
			break;
		case REPLAY:
			opt->replay = number(optarg);
			break;
		case PROCESS:
			opt->only = (int)number(optarg);
			break;
		case SKIP:
			opt->first.skip = optarg;
			break;
		case SHARED:
			opt->shared = true;
			break;
		case BENEATH:
			opt->first.dir[2] = optarg;
			break;
		case TRACE:
			opt->trace = true;
			break;
		case KEEP:
			opt->keep = true;
			break;
		case TIMES:
			opt->first.own_times = true;
			break;
		case NO_MMAP:
			opt->first.no_mmap = true;
			break;
		case STATS:
			opt->stats = true;
			break;
		case LIST:
			ops_list(stdout);
			exit(0);
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	struct options opt = { .seed = 1, .ops = 10000, .check_every = 2500, .processes = 1, .only = -1 };
	parse(&opt, argc, argv);
	int dirs = argc - optind;
	if (opt.shared) {
		if (dirs < 1) {
			fputs(usage, stderr);
			return 2;
		}
		int broken = shared_run((const char *const *)argv + optind, (unsigned)dirs, opt.first.dir[2],
					opt.processes, opt.ops, opt.seed, !opt.first.own_times);
		return broken ? 1 : 0;
	}
	if (dirs < 2 || dirs > 3) {
		fputs(usage, stderr);
		return 2;
	}
	for (int i = 0; i < dirs; i++) {
		opt.first.dir[i] = argv[optind + i];
	}
	opt.first.seed = opt.seed;
	opt.first.flock = opt.seed % 2 == 0;
	opt.first.is_root = geteuid() == 0;
	struct timespec began, ended;
	clock_gettime(CLOCK_MONOTONIC, &began);
	int rc = run_all(&opt);
	clock_gettime(CLOCK_MONOTONIC, &ended);
	if (rc == 0) {
		printf("the same: seed %llu, %u processes, %llu operations each, %.1f s\n",
		       (unsigned long long)opt.seed, opt.only < 0 ? opt.processes : 1, (unsigned long long)opt.ops,
		       (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9);
	}
	return rc;
}
