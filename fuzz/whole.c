/* SPDX-License-Identifier: BSD-2-Clause */
/* whole.c - see whole.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/log.h"
#include "gen.h"
#include "p9/local.h"
#include "slow.h"
#include "tree.h"
#include "whole.h"

#define NOBODY 65534
#define FD_CHECK_EVERY 32

struct p9_server *fz_srv;
static struct lroot *local;
static unsigned descriptors, runs;

uint64_t fz_now_ms(void)
{
	return p9_now_ns() / 1000000;
}

static unsigned count_descriptors(bool show)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	unsigned n = 0;
	FZ_CHECK(d, "/proc/self/fd");
	while ((e = readdir(d))) {
		char text[200] = "";
		ssize_t len = readlinkat(dirfd(d), e->d_name, text, sizeof(text) - 1);
		if (len <= 0 || strncmp(text, "pipe:", 5) == 0) {
			continue; /* libFuzzer's, to its symbolizer */
		}
		n++;
		if (show) {
			fprintf(stderr, "descriptor %s: %s\n", e->d_name, text);
		}
	}
	closedir(d);
	return n;
}

/* The server's threads work as nobody: they inherit the identity of whoever starts the first of them. */
static void start_as_nobody(void)
{
	bool root = geteuid() == 0;
	if (root) {
		setfsgid(NOBODY);
		setfsuid(NOBODY);
	}
	FZ_CHECK(p9_server_start(fz_srv) == 0, "start");
	if (root) {
		setfsuid(0);
		setfsgid(0);
		prctl(PR_SET_DUMPABLE, 1);
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	char why[300];
	struct p9_local_config lc = { .path = fz_tree_new() };
	struct p9_server_config conf = { .msize = FZ_MSIZE, .loops = 1, .workers = 8, .conns = 16, .lock_wait = 1 };
	signal(SIGPIPE, SIG_IGN);
	umask(0);
	p9_log_level = P9_LOG_ERROR;
	FZ_CHECK(p9_local_open(&lc, &local, why, sizeof(why)) == 0, "%s", why);
	FZ_CHECK(p9_server_new(&conf, &fz_srv) == 0, "new");
	struct p9_export_config ex = { .name = "main", .backend = &fz_slow, .root = local };
	struct p9_export_config ro = { .name = "ro", .backend = &fz_slow, .root = local, .ro = true };
	FZ_CHECK(p9_server_export(fz_srv, &ex) == 0 && p9_server_export(fz_srv, &ro) == 0, "export");
	start_as_nobody();
	return 0;
}

void fz_nothing_is_left(void)
{
	uint64_t begin = fz_now_ms();
	while (p9_server_conns(fz_srv) > 0) {
		nanosleep(&(struct timespec){ .tv_nsec = 20000 }, NULL);
		FZ_CHECK(fz_now_ms() - begin < FZ_TIME_LIMIT, "%u connections are left", p9_server_conns(fz_srv));
	}
	unsigned fids = p9_server_fids(fz_srv), waiters = atomic_load(&fz_srv->lock_waiters);
	FZ_CHECK(fids == 0 && waiters == 0, "%u fids, %u lock waiters are left", fids, waiters);
	if (runs++ % FD_CHECK_EVERY == 0) {
		unsigned n = count_descriptors(false);
		descriptors = descriptors ? descriptors : n;
		if (n > descriptors) {
			count_descriptors(true);
		}
		FZ_CHECK(n <= descriptors, "%u descriptors, at first %u", n, descriptors);
		FZ_CHECK(fz_tree_canary(), "something outside has changed");
	}
}
