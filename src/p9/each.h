/* SPDX-License-Identifier: BSD-2-Clause */
/* each.h - commands that do one thing to each of their operands. */
#ifndef P9_EACH_H
#define P9_EACH_H
#include "p9/p9.h"

/* Embed it, to give `act` an argument. */
struct p9_each {
	/* Before the first operand; may be NULL. Returns 0 or -P9_Exxx, about the file that it set `path` to. */
	int (*begin)(struct p9_each *e);
	/* Returns 0 or -P9_Exxx; the fid is clunked afterwards. */
	int (*act)(struct p9_each *e, uint32_t fid);
	/* When the path is not there: may make it and a fid for it, or return 1 when there is nothing to do.
	 * May be NULL. */
	int (*missing)(struct p9_each *e, const char *path, uint32_t *fid);
	int follow;
	struct p9_client *client;
	const char *path;
};
/* Connects, does it, frees. Returns an exit code. */
int p9_each(struct p9_cli *cli, struct p9_each *e, int n, char **paths);

#endif
