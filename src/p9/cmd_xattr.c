/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_xattr.c - p9 xattr ls, get, set, rm: extended attributes of files, and of links themselves never.
 *
 * A value is bytes: written as it is to a file or pipe, escaped on a terminal. At most 64 KiB, the limit of Linux; a
 * server that announces more is not believed (ERANGE) and nothing of that size is allocated. rm is Linux's way of
 * removing over 9P: an attribute created with size 0 and XATTR_REPLACE.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/each.h"

struct xattr {
	struct p9_each each;
	bool titles; /* ls of several files */
	const char *name;
	struct p9_data value;
	uint8_t buf[P9_XATTR_MAX];
};

static int list(struct p9_each *e, uint32_t fid)
{
	struct xattr *x = (struct xattr *)e;
	bool tty = isatty(STDOUT_FILENO);
	ssize_t n = p9_client_xattr_get(e->client, fid, "", x->buf, sizeof(x->buf));
	for (ssize_t at = 0; at < n;) {
		size_t len = strnlen((char *)x->buf + at, (size_t)(n - at));
		char name[256];
		snprintf(name, sizeof(name), "%.*s", (int)len, (char *)x->buf + at);
		if (x->titles) {
			p9_show_name(stdout, e->path, tty);
			fputs(": ", stdout);
		}
		p9_show_name(stdout, name, tty);
		putchar('\n');
		at += (ssize_t)len + 1;
	}
	return n < 0 ? (int)n : 0;
}

static void print_escaped(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i] >= 0x20 && p[i] < 0x7f) {
			putchar(p[i]);
		} else {
			printf("\\%03o", p[i]);
		}
	}
	putchar('\n');
}

static int get(struct p9_each *e, uint32_t fid)
{
	struct xattr *x = (struct xattr *)e;
	ssize_t n = p9_client_xattr_get(e->client, fid, x->name, x->buf, sizeof(x->buf));
	if (n < 0) {
		return (int)n;
	}
	if (isatty(STDOUT_FILENO)) {
		print_escaped(x->buf, (size_t)n);
	} else {
		fwrite(x->buf, 1, (size_t)n, stdout);
	}
	return 0;
}

static int set(struct p9_each *e, uint32_t fid)
{
	struct xattr *x = (struct xattr *)e;
	if (x->value.len > 0) {
		return p9_client_xattr_set(e->client, fid, x->name, &x->value, 0);
	}
	/* size 0 without flags may mean removal: say that an empty one is to be made */
	int rc = p9_client_xattr_set(e->client, fid, x->name, &x->value, P9_XATTR_CREATE);
	if (rc == -P9_EEXIST) {
		rc = p9_client_xattr_remove(e->client, fid, x->name);
		rc = rc < 0 ? rc : p9_client_xattr_set(e->client, fid, x->name, &x->value, P9_XATTR_CREATE);
	}
	return rc;
}

static int drop(struct p9_each *e, uint32_t fid)
{
	struct xattr *x = (struct xattr *)e;
	return p9_client_xattr_remove(e->client, fid, x->name);
}

/* The value of `set` from standard input. */
static int read_value(struct xattr *x)
{
	uint32_t n = 0;
	ssize_t k;
	while ((k = read(STDIN_FILENO, x->buf + n, sizeof(x->buf) - n)) != 0) {
		if (k < 0 && errno != EINTR) {
			return -p9_hosterr(errno);
		}
		n += k < 0 ? 0 : (uint32_t)k;
		if (n == sizeof(x->buf)) {
			return -P9_E2BIG;
		}
	}
	x->value = (struct p9_data){ n, x->buf };
	return 0;
}

static int take_value(struct p9_cli *cli, struct xattr *x, const char *text)
{
	int rc = 0;
	if (strcmp(text, "-") == 0) {
		rc = read_value(x);
	} else if (strlen(text) > P9_XATTR_MAX) {
		rc = -P9_E2BIG;
	} else {
		x->value = (struct p9_data){ (uint32_t)strlen(text), (const uint8_t *)text };
	}
	return rc < 0 ? p9_cli_fail(cli, NULL, text, rc) : P9_EXIT_OK;
}

static int run(struct p9_cli *cli, struct xattr *x, int argc, char **argv)
{
	const char *verb = argv[0];
	x->each.follow = P9_WALK_FOLLOW;
	x->name = argc > 2 ? argv[2] : NULL;
	if (strcmp(verb, "ls") == 0 && argc >= 2) {
		x->each.act = list;
		x->titles = argc > 2;
		return p9_each(cli, &x->each, argc - 1, argv + 1);
	}
	if (strcmp(verb, "get") == 0 && argc == 3) {
		x->each.act = get;
	} else if (strcmp(verb, "rm") == 0 && argc == 3) {
		x->each.act = drop;
	} else if (strcmp(verb, "set") == 0 && argc == 4) {
		x->each.act = set;
		int code = take_value(cli, x, argv[3]);
		if (code != P9_EXIT_OK) {
			return code;
		}
	} else {
		return p9_cli_usage(cli, NULL);
	}
	if (x->name[0] == 0) {
		return p9_cli_usage(cli, "an attribute has a name");
	}
	return p9_each(cli, &x->each, 1, argv + 1);
}

int p9_cmd_xattr(struct p9_cli *cli, int argc, char **argv)
{
	if (getopt(argc, argv, "+") != -1 || optind == argc) {
		return p9_cli_usage(cli, optind == argc ? "ls, get, set or rm?" : NULL);
	}
	struct xattr *x = calloc(1, sizeof(*x));
	int code = x ? run(cli, x, argc - optind, argv + optind) : p9_cli_fail(cli, NULL, "xattr", P9_ENOMEM);
	free(x);
	return code;
}
