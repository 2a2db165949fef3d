/* SPDX-License-Identifier: BSD-2-Clause */
/* conform.h - the conformance kit, `p9 conform`: named checks that run against any 9P2000.L server.
 *
 *   conform_load.c    .9t files -> checks         conform_server.c  the server between two checks: scratch, life signs
 *   conform_report.c  results as table, TAP, JSON  cmd_conform.c     options, and one check after the other
 */
#ifndef P9_CONFORM_H
#define P9_CONFORM_H
#include "p9/p9.h"
#include "p9/talk.h"

/* ---- checks: conform_load.c ---- */
struct conform_file {
	struct conform_file *next;
	char *path, *text;
	struct talk_err err;
	struct talk_script script;
};
enum conform_result { CONFORM_NOT_RUN, CONFORM_PASS, CONFORM_FAIL, CONFORM_SKIP };
struct conform_check {
	const struct conform_file *file;
	unsigned range[3]; /* as p9_talk_test() wants them */
	char *id, *suite, *expect, *source;
	bool scratch; /* it needs a directory */
	enum conform_result result;
	bool crash; /* the server was gone, or dumb, behind it */
	char *why;  /* of a failure or a skip; or NULL */
	double seconds;
};
struct conform_set {
	struct conform_file *files;
	struct conform_check *checks;
	size_t n, cap;
};
/* Reads all .9t files of a directory. False when something is wrong with one of them, having said what. */
bool p9_conform_load(struct conform_set *set, const struct p9_cli *cli, const char *dir);
/* Puts the checks in order: suites as the kit knows them, then others by name; within a suite by id. */
void p9_conform_sort(struct conform_set *set);
/* Where the checks are that came with this p9: $P9_CONFORM, the sources beside the build, or the installed ones. The
 * caller frees it; NULL without memory. */
char *p9_conform_find(void);
void p9_conform_unload(struct conform_set *set);

/* ---- the server: conform_server.c ---- */
struct conform_server {
	struct p9_cli *cli;
	struct p9_client *client; /* a connection of the kit's own, kept through all checks; NULL when there is none */
	char top[32];		  /* the kit's directory in the attached root; "" before it is made */
	const char *restart;	  /* a command for when the server is gone, or NULL */
};
/* Connects. Returns P9_EXIT_OK or another exit code after having said why. */
int p9_conform_connect(struct conform_server *sv);
/* Makes the kit's directory. Returns 0 or -P9_Exxx. */
P9_MUST_USE int p9_conform_begin(struct conform_server *sv);
/* Makes, removes the directory of a check. */
P9_MUST_USE int p9_conform_mkdir(struct conform_server *sv, const char *id);
void p9_conform_rmdir(struct conform_server *sv, const char *id);
/* Whether the server still answers on the kit's own connection and takes new ones. When it does not, says in why what
 * became of it, waits a while for it to come back, and connects anew. Returns 1 when all is well, 0 when it was gone and
 * has come back, -1 when it has not. */
int p9_conform_alive(struct conform_server *sv, char *why, size_t cap);
/* Removes the kit's directory and closes. False when something was left behind. */
bool p9_conform_end(struct conform_server *sv);

/* ---- what is printed: conform_report.c ---- */
enum conform_form { CONFORM_TABLE, CONFORM_TAP, CONFORM_JSON };
struct conform_report {
	enum conform_form form;
	const char *addr;
	bool terminal;	   /* stderr is one: the check that runs is shown */
	const char *suite; /* whose checks are being printed */
	unsigned number, suite_counts[4];
	size_t total;
};
void p9_conform_report_begin(struct conform_report *r, const struct conform_set *set);
/* The check that is about to run, on a terminal. */
void p9_conform_report_running(struct conform_report *r, const struct conform_check *c);
void p9_conform_report_check(struct conform_report *r, const struct conform_check *c);
/* stopped: why not all checks ran, or NULL. */
void p9_conform_report_end(struct conform_report *r, const struct conform_set *set, const char *stopped);

#endif
