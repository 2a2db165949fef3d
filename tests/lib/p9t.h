/* SPDX-License-Identifier: BSD-2-Clause */
/* p9t.h - what unit tests share: cmocka with the headers it wants, random numbers that repeat, counting, files.
 *
 * One cmocka_run_group_tests per program (its output is TAP, and TAP has one plan); cmocka's skip() prints what TAP
 * calls a failure: a test that cannot run here says so with print_message and returns.
 */
#ifndef P9_TESTS_P9T_H
#define P9_TESTS_P9T_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "p9/codec.h"

#define P9T_COUNT(a) (sizeof(a) / sizeof((a)[0]))
/* A struct p9_str of a string constant, NUL bytes inside included. */
#define P9T_STR(text) ((struct p9_str){ (text), sizeof(text) - 1 })

/* Random numbers (xorshift64*): the same in every run, unless P9_SEED is set in the environment. */
struct p9t_rng {
	uint64_t state;
};
struct p9t_rng p9t_rng(void);
uint64_t p9t_rand(struct p9t_rng *r);
/* Below n; 0 for n == 0. */
uint64_t p9t_rand_below(struct p9t_rng *r, uint64_t n);

/* Open descriptors of this process. Before and after must be the same: what is lost shows up here. */
unsigned p9t_open_fds(void);

/* A new directory below $TMPDIR or /tmp; and its removal with all that is in it. Free the path. */
char *p9t_tempdir(void);
void p9t_remove_tree(const char *path);
/* Path of a file of tests/, from the environment of `meson test` or the current directory. Free it. */
char *p9t_path(const char *name);

/* Hexadecimal digits, blanks ignored, to bytes. Returns their number; -1 for anything else or more than cap. */
int p9t_hex(const char *text, uint8_t *buf, size_t cap);

/* Fills a message of this type with random fields; every length is a common or an extreme one. What strings and data
 * point to lies in `store`, good as long as it is. */
struct p9t_store {
	char bytes[32 * 1024];
	size_t used;
};
void p9t_random_msg(struct p9t_rng *r, struct p9t_store *store, uint8_t type, struct p9_msg *msg);
/* Fails the test when two messages differ; strings and data are compared by content. */
void p9t_assert_msg_equal(const struct p9_msg *a, const struct p9_msg *b);

#endif
