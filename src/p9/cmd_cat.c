/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_cat.c - p9 cat: files to standard output, read ahead by several requests, written in order.
 *
 * A file's size is only a hint for how far to read ahead: reading goes on until the server says that there is no more,
 * so files that say they are empty and are not (/proc) come whole. A reader that goes away ends the command quietly.
 */
#include <errno.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/p9.h"

#define BUFFERS 8

static int to_stdout(struct p9_xfer *x, uint64_t offset, uint8_t *buf, uint32_t n)
{
	while (n > 0) {
		ssize_t k = write(STDOUT_FILENO, buf, n);
		if (k < 0 && errno != EINTR) {
			return -p9_hosterr(errno);
		}
		buf += k < 0 ? 0 : k;
		n -= k < 0 ? 0 : (uint32_t)k;
	}
	return 0;
}

/* A transfer that is run to its end needs no call there. */
static void nothing(struct p9_xfer *x)
{
}

/* Opens for reading and finds out how long the file is. */
static int open_file(struct p9_client *c, const char *path, struct p9_xfer *x)
{
	struct p9_rgetattr st;
	uint32_t iounit = 0;
	int rc = p9_client_walk(c, path, P9_WALK_FOLLOW, &x->fid);
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_getattr(c, x->fid, P9_GETATTR_MODE | P9_GETATTR_SIZE, &st);
	if (rc >= 0 && (st.qid.type & P9_QTDIR)) {
		rc = -P9_EISDIR;
	}
	rc = rc < 0 ? rc : p9_client_lopen(c, x->fid, P9_O_RDONLY, &iounit);
	if (rc < 0) {
		p9_client_clunk(c, x->fid);
		return rc;
	}
	x->size = st.size;
	x->chunk = p9_client_iosize(c, iounit);
	return 0;
}

/* Returns an exit code, or -1 when standard output is gone. */
static int cat_one(struct p9_cli *cli, struct p9_client *c, struct p9_pool *pool, const char *path)
{
	struct p9_xfer x = { .client = c, .pool = pool, .data = to_stdout, .done = nothing };
	int rc = open_file(c, path, &x);
	if (rc < 0) {
		return p9_cli_fail(cli, c, path, rc);
	}
	rc = p9_xfer_run(&x);
	if (!p9_client_dead(c)) {
		p9_client_clunk(c, x.fid);
	}
	if (x.local) {
		if (rc != -P9_EPIPE) {
			p9_cli_fail(cli, NULL, "standard output", rc);
		}
		return -1;
	}
	return rc < 0 ? p9_cli_fail(cli, c, path, rc) : P9_EXIT_OK;
}

int p9_cmd_cat(struct p9_cli *cli, int argc, char **argv)
{
	struct p9_client *c;
	if (getopt(argc, argv, "") != -1) {
		return p9_cli_usage(cli, NULL);
	}
	if (optind == argc) {
		return p9_cli_usage(cli, "which file?");
	}
	int code = p9_cli_dial(cli, &c);
	if (code != P9_EXIT_OK) {
		return code;
	}
	struct p9_pool *pool = p9_pool_new(p9_client_iosize(c, 0), BUFFERS);
	for (int i = optind; pool && i < argc; i++) {
		int one = p9_client_dead(c) ? P9_EXIT_FAILED : cat_one(cli, c, pool, argv[i]);
		code = one != P9_EXIT_OK ? P9_EXIT_FAILED : code;
		if (one < 0) {
			break;
		}
	}
	p9_pool_free(pool);
	p9_client_free(c);
	return code;
}
