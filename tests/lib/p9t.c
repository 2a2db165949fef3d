/* SPDX-License-Identifier: BSD-2-Clause */
/* p9t.c - what unit tests share. */
#include "lib/p9t.h"
#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <unistd.h>

struct p9t_rng p9t_rng(void)
{
	const char *seed = getenv("P9_SEED");
	struct p9t_rng r = { seed ? strtoull(seed, NULL, 0) : 0x9e3779b97f4a7c15u };
	r.state += r.state == 0;
	return r;
}

uint64_t p9t_rand(struct p9t_rng *r)
{
	r->state ^= r->state >> 12;
	r->state ^= r->state << 25;
	r->state ^= r->state >> 27;
	return r->state * 0x2545f4914f6cdd1du;
}

uint64_t p9t_rand_below(struct p9t_rng *r, uint64_t n)
{
	return n == 0 ? 0 : (p9t_rand(r) >> 16) % n;
}

unsigned p9t_open_fds(void)
{
	unsigned n = 0;
	DIR *dir = opendir("/proc/self/fd");
	assert_non_null(dir);
	for (struct dirent *e; (e = readdir(dir));) {
		n += e->d_name[0] != '.';
	}
	closedir(dir);
	return n - 1; /* the directory's own */
}

char *p9t_tempdir(void)
{
	const char *top = getenv("TMPDIR");
	char *path = NULL;
	assert_true(asprintf(&path, "%s/p9-test.XXXXXX", top ? top : "/tmp") > 0);
	assert_non_null(mkdtemp(path));
	return path;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

void p9t_remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

char *p9t_path(const char *name)
{
	const char *top = getenv("P9_TESTS");
	char *path = NULL;
	assert_true(asprintf(&path, "%s/%s", top ? top : "tests", name) > 0);
	return path;
}

static int digit(char c)
{
	const char *digits = "0123456789abcdef", *p = c ? strchr(digits, c) : NULL;
	return p ? (int)(p - digits) : -1;
}

int p9t_hex(const char *text, uint8_t *buf, size_t cap)
{
	size_t n = 0;
	while (*text) {
		if (strchr(" \t\n", *text)) {
			text++;
			continue;
		}
		int high = digit(text[0]), low = high < 0 ? -1 : digit(text[1]);
		if (low < 0 || n == cap) {
			return -1;
		}
		buf[n++] = (uint8_t)(high << 4 | low);
		text += 2;
	}
	return (int)n;
}
