/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_mv.c - p9 mv and p9 ln: new names for what is there.
 *
 * All of them need the directory for the new name, and that name: target_of() finds both, by the rule that everybody
 * knows from mv and cp: a TARGET that is a directory takes the last element of the source. The complaint names the
 * operand that is to blame, which is why the functions hand it back as `culprit`.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "p9/p9.h"

/* Where a new entry goes: into PATH when that is a directory and `base` is not "", else to PATH itself. */
static int target_of(struct p9_client *c, const char *path, const char *base, uint32_t *dir, char *name)
{
	struct p9_rgetattr st;
	int rc = base[0] ? p9_client_walk(c, path, P9_WALK_FOLLOW, dir) : -P9_ENOENT;
	if (rc >= 0) {
		rc = p9_client_getattr(c, *dir, P9_GETATTR_MODE, &st);
		if (rc >= 0 && (st.qid.type & P9_QTDIR)) {
			strcpy(name, base);
			return 0;
		}
		p9_client_clunk(c, *dir);
	}
	return p9_client_walk_parent(c, path, dir, name);
}

/* Trenameat, or Trename for servers that do not have it. */
static int move(struct p9_client *c, uint32_t olddir, const char *oldname, uint32_t newdir, const char *newname)
{
	uint32_t fid;
	int rc = p9_client_renameat(c, olddir, oldname, newdir, newname);
	if (rc != -P9_EOPNOTSUPP) {
		return rc;
	}
	rc = p9_client_walk1(c, olddir, oldname, &fid, NULL);
	if (rc >= 0) {
		rc = p9_client_rename(c, fid, newdir, newname);
		p9_client_clunk(c, fid);
	}
	return rc;
}

static bool is_directory(struct p9_client *c, const char *path)
{
	struct p9_rgetattr st = { 0 };
	uint32_t fid;
	if (p9_client_walk(c, path, P9_WALK_FOLLOW, &fid) < 0) {
		return false;
	}
	int rc = p9_client_getattr(c, fid, P9_GETATTR_MODE, &st);
	p9_client_clunk(c, fid);
	return rc >= 0 && (st.qid.type & P9_QTDIR);
}

/* "new/" asks for a directory, which only a directory becomes. */
static bool wants_directory(struct p9_client *c, const char *target)
{
	size_t n = strlen(target);
	return n > 1 && target[n - 1] == '/' && !is_directory(c, target);
}

/* Both directories are walked with links followed; the entry itself is moved, never what it points to. */
static int move_one(struct p9_client *c, const char *source, const char *target, const char **culprit)
{
	char oldname[256], newname[256];
	uint32_t olddir, newdir;
	*culprit = source;
	int rc = p9_client_walk_parent(c, source, &olddir, oldname);
	if (rc < 0) {
		return rc;
	}
	rc = target_of(c, target, oldname, &newdir, newname);
	if (rc < 0) {
		*culprit = target;
	} else if (wants_directory(c, target) && !is_directory(c, source)) {
		*culprit = target;
		rc = -P9_ENOTDIR;
		p9_client_clunk(c, newdir);
	} else {
		rc = move(c, olddir, oldname, newdir, newname);
		p9_client_clunk(c, newdir);
	}
	p9_client_clunk(c, olddir);
	return rc;
}

int p9_cmd_mv(struct p9_cli *cli, int argc, char **argv)
{
	struct p9_client *c;
	if (getopt(argc, argv, "") != -1) {
		return p9_cli_usage(cli, NULL);
	}
	int n = argc - optind - 1;
	if (n < 1) {
		return p9_cli_usage(cli, "from where to where?");
	}
	int code = p9_cli_dial(cli, &c);
	if (code == P9_EXIT_OK && n > 1 && !is_directory(c, argv[argc - 1])) {
		code = p9_cli_fail(cli, c, argv[argc - 1], P9_ENOTDIR);
		n = 0;
	}
	for (int i = optind; c && i < optind + n && !p9_client_dead(c); i++) {
		const char *culprit;
		int rc = move_one(c, argv[i], argv[argc - 1], &culprit);
		if (rc < 0) {
			code = p9_cli_fail(cli, c, culprit, rc);
		}
	}
	p9_client_free(c);
	return code;
}

/* To a link itself when TARGET is one, as the kernel's link(2) does. */
static int hard_link(struct p9_client *c, const char *target, const char *path, const char **culprit)
{
	char base[256], name[256];
	uint32_t fid, dir;
	p9_path_base(target, base);
	*culprit = target;
	int rc = p9_client_walk(c, target, P9_WALK_NOFOLLOW, &fid);
	if (rc < 0) {
		return rc;
	}
	*culprit = path;
	rc = target_of(c, path, base, &dir, name);
	if (rc >= 0) {
		rc = p9_client_link(c, dir, fid, name);
		p9_client_clunk(c, dir);
	}
	p9_client_clunk(c, fid);
	return rc;
}

/* TARGET is only text: it is stored as it is and need not exist. */
static int symbolic_link(struct p9_client *c, const char *target, const char *path, const char **culprit)
{
	char base[256], name[256];
	uint32_t dir;
	p9_path_base(target, base);
	*culprit = path;
	int rc = target_of(c, path, base, &dir, name);
	if (rc >= 0) {
		rc = p9_client_symlink(c, dir, name, target);
		p9_client_clunk(c, dir);
	}
	return rc;
}

int p9_cmd_ln(struct p9_cli *cli, int argc, char **argv)
{
	struct p9_client *c;
	bool symbolic = false;
	const char *culprit;
	int o;
	while ((o = getopt(argc, argv, "s")) != -1) {
		if (o != 's') {
			return p9_cli_usage(cli, NULL);
		}
		symbolic = true;
	}
	if (argc - optind != 2) {
		return p9_cli_usage(cli, "one TARGET and one LINK");
	}
	int code = p9_cli_dial(cli, &c);
	if (code == P9_EXIT_OK) {
		int rc = (symbolic ? symbolic_link : hard_link)(c, argv[optind], argv[optind + 1], &culprit);
		code = rc < 0 ? p9_cli_fail(cli, c, culprit, rc) : P9_EXIT_OK;
	}
	p9_client_free(c);
	return code;
}
