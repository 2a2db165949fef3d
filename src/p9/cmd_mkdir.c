/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_mkdir.c - p9 mkdir: directories, with -p those on the way, too.
 *
 * -p tries the whole path first, then goes up until something can be made, then down again: in the usual case, where
 * all but the last are there, that is one request more than without -p. Directories on the way get u+wx whatever the
 * umask says, or nothing could be made in them.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "p9/p9.h"

static int make_one(struct p9_client *c, const char *path, uint32_t mode)
{
	char name[256];
	uint32_t dir;
	int rc = p9_client_walk_parent(c, path, &dir, name);
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_mkdir(c, dir, name, mode);
	p9_client_clunk(c, dir);
	return rc;
}

/* 0 when the path is a directory already. */
static int is_directory(struct p9_client *c, const char *path)
{
	struct p9_rgetattr st;
	uint32_t fid;
	int rc = p9_client_walk(c, path, P9_WALK_FOLLOW, &fid);
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_getattr(c, fid, P9_GETATTR_MODE, &st);
	p9_client_clunk(c, fid);
	return rc < 0 ? rc : st.qid.type & P9_QTDIR ? 0 : -P9_EEXIST;
}

/* Asks for the deepest first: mostly all but the last are there. */
static int make_path(struct p9_client *c, char *path, uint32_t mode, uint32_t way_mode)
{
	size_t len = strlen(path), end;
	while (len > 0 && path[len - 1] == '/') {
		path[--len] = 0;
	}
	int rc = make_one(c, path, mode);
	for (end = len; rc == -P9_ENOENT && end > 0;) {
		while (end > 0 && path[--end] != '/') {
		}
		path[end] = 0;
		rc = end ? make_one(c, path, way_mode) : -P9_ENOENT;
	}
	while (rc >= 0 && end < len) {
		path[end] = '/';
		end = strlen(path);
		rc = make_one(c, path, end < len ? way_mode : mode);
		rc = rc == -P9_EEXIST ? 0 : rc;
	}
	return rc == -P9_EEXIST || rc == -P9_EINVAL ? is_directory(c, path) : rc;
}

int p9_cmd_mkdir(struct p9_cli *cli, int argc, char **argv)
{
	struct p9_client *c;
	bool parents = false;
	int o;
	char *end;
	uint32_t mode = 0777 & ~p9_umask(), way_mode = mode | 0300;
	while ((o = getopt(argc, argv, "pm:")) != -1) {
		if (o == 'p') {
			parents = true;
			continue;
		}
		mode = o == 'm' ? (uint32_t)strtoul(optarg, &end, 8) : 0;
		if (o != 'm' || *end || end == optarg || mode > 07777) {
			return p9_cli_usage(cli, o == 'm' ? "-m wants octal permission bits" : NULL);
		}
	}
	if (optind == argc) {
		return p9_cli_usage(cli, "which directory?");
	}
	int code = p9_cli_dial(cli, &c);
	for (int i = optind; c && i < argc && !p9_client_dead(c); i++) {
		char *path = strdup(argv[i]);
		int rc = !path ? -P9_ENOMEM : parents ? make_path(c, path, mode, way_mode) : make_one(c, path, mode);
		if (rc < 0) {
			code = p9_cli_fail(cli, c, argv[i], rc);
		}
		free(path);
	}
	p9_client_free(c);
	return code;
}
