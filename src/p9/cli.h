/* SPDX-License-Identifier: BSD-2-Clause */
/* cli.h - what the commands of p9 share: the options before the command, and how to complain. */
#ifndef P9_CLI_H
#define P9_CLI_H
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Exit codes, in p9.1: 0 fine, 1 the operation failed, 2 wrong usage, 3 no connection to the server. */
enum { P9_EXIT_OK = 0, P9_EXIT_FAILED = 1, P9_EXIT_USAGE = 2, P9_EXIT_CONNECT = 3 };

struct p9_cli {
	const char *addr;  /* -s, or P9_SERVER, or the default of base/addr.h; never NULL */
	const char *aname; /* -a, or "" */
	uint32_t uid;	   /* -u, or geteuid() */
	uint32_t msize;	   /* -m, or 1 MiB */
	uint16_t depth;	   /* -q, or 64: requests in flight */
	bool own_loop;	   /* of a program that waits by itself: no limit to the server's silence */
	bool quiet;	   /* say nothing: somebody else will */
	const char *cmd;   /* name of the command that runs */
};

/* Each command: argv[0] is its name. Returns an exit code. */
int p9_cmd_talk(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_conform(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_bench(struct p9_cli *cli, int argc, char **argv);

/* "p9: CMD: text" on stderr. */
void p9_cli_say(const struct p9_cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
