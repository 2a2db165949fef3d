/* SPDX-License-Identifier: BSD-2-Clause */
/* tree.c - entries of directories: making, removing, moving, linking.
 *
 * Each call walks to the directory and names the entry there, so the server never sees a path.
 */
#include <string.h>
#include "vfs/session.h"

int p9_session_mkdir(struct p9_session *s, const char *path, uint32_t mode)
{
	struct p9_place at;
	int rc = p9_walk(s, path, P9_WALK_PARENT, &at);
	if (rc < 0) {
		return rc;
	}
	struct p9_msg t = { .type = P9_Tmkdir,
			    .tmkdir = { .dfid = at.fid, .name = p9_place_name(&at), .mode = mode, .gid = s->gid } };
	return p9_session_last(s, at.fid, 0, &t);
}

static int unlinkat(struct p9_session *s, const struct p9_place *at, uint32_t flags)
{
	struct p9_msg t = { .type = P9_Tunlinkat,
			    .tunlinkat = { .dirfid = at->fid, .name = p9_place_name(at), .flags = flags } };
	return p9_session_call(s, &t, NULL, NULL);
}

static int unlink_path(struct p9_session *s, const char *path, uint32_t flags)
{
	struct p9_place at;
	int rc = p9_walk(s, path, P9_WALK_PARENT, &at);
	if (rc < 0) {
		return rc;
	}
	rc = unlinkat(s, &at, flags);
	p9_session_let_go(s, at.fid);
	return rc;
}

int p9_session_unlink(struct p9_session *s, const char *path)
{
	return unlink_path(s, path, 0);
}
int p9_session_rmdir(struct p9_session *s, const char *path)
{
	return unlink_path(s, path, P9_DOTL_AT_REMOVEDIR);
}

int p9_session_remove(struct p9_session *s, const char *path)
{
	struct p9_place at;
	int rc = p9_walk(s, path, P9_WALK_PARENT, &at);
	if (rc < 0) {
		return rc;
	}
	rc = unlinkat(s, &at, 0);
	if (rc == -P9_EISDIR || rc == -P9_EPERM) { /* POSIX says EPERM for a directory, and so do some servers */
		int second = unlinkat(s, &at, P9_DOTL_AT_REMOVEDIR);
		rc = second == -P9_ENOTDIR ? rc : second;
	}
	p9_session_let_go(s, at.fid);
	return rc;
}

/* For servers without Trenameat. */
static int rename_fid(struct p9_session *s, const char *from, const struct p9_place *to)
{
	struct p9_place at;
	int rc = p9_walk(s, from, P9_WALK_STAY, &at);
	if (rc < 0) {
		return rc;
	}
	struct p9_msg t = { .type = P9_Trename, .trename = { at.fid, to->fid, p9_place_name(to) } };
	return p9_session_last(s, at.fid, 0, &t);
}

int p9_session_rename(struct p9_session *s, const char *from, const char *to)
{
	struct p9_place a, b;
	int rc = p9_walk(s, from, P9_WALK_PARENT, &a);
	if (rc < 0) {
		return rc;
	}
	rc = p9_walk(s, to, P9_WALK_PARENT, &b);
	if (rc == 0) {
		struct p9_msg t = { .type = P9_Trenameat,
				    .trenameat = { a.fid, p9_place_name(&a), b.fid, p9_place_name(&b) } };
		rc = p9_session_call(s, &t, NULL, NULL);
		if (rc == -P9_EOPNOTSUPP || rc == -P9_ENOSYS) {
			rc = rename_fid(s, from, &b);
		}
		p9_session_let_go(s, b.fid);
	}
	p9_session_let_go(s, a.fid);
	return rc;
}

int p9_session_symlink(struct p9_session *s, const char *target, const char *path)
{
	struct p9_place at;
	int rc = p9_walk(s, path, P9_WALK_PARENT, &at);
	if (rc < 0) {
		return rc;
	}
	struct p9_msg t = { .type = P9_Tsymlink,
			    .tsymlink = { at.fid, p9_place_name(&at), p9_session_str(target), s->gid } };
	rc = t.tsymlink.symtgt.len > P9_TARGETMAX ? -P9_ENAMETOOLONG : 0;
	return p9_session_last(s, at.fid, rc, &t);
}

int p9_session_link(struct p9_session *s, const char *from, const char *path)
{
	struct p9_place file, at;
	int rc = p9_walk(s, from, P9_WALK_STAY, &file);
	if (rc < 0) {
		return rc;
	}
	rc = p9_walk(s, path, P9_WALK_PARENT, &at);
	if (rc == 0) {
		struct p9_msg t = { .type = P9_Tlink, .tlink = { at.fid, file.fid, p9_place_name(&at) } };
		rc = p9_session_last(s, at.fid, 0, &t);
	}
	p9_session_let_go(s, file.fid);
	return rc;
}

int p9_session_readlink(struct p9_session *s, const char *path, char *buf, size_t cap)
{
	struct p9_place at;
	int rc = p9_walk(s, path, P9_WALK_STAY, &at);
	if (rc < 0) {
		return rc;
	}
	struct p9_msg r, t = { .type = P9_Treadlink, .treadlink = { at.fid } };
	rc = p9_session_call(s, &t, NULL, &r);
	if (rc == 0 && r.rreadlink.target.len >= cap) {
		rc = -P9_ERANGE;
	}
	if (rc == 0) {
		rc = r.rreadlink.target.len;
		memcpy(buf, r.rreadlink.target.s, r.rreadlink.target.len);
		buf[rc] = 0;
	}
	p9_session_let_go(s, at.fid);
	return rc;
}
