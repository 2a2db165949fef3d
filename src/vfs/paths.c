/* SPDX-License-Identifier: BSD-2-Clause */
/* paths.c - the calls by path: find the mount, refuse what mounts and their parents refuse, ask the session.
 *
 * Two kinds. Those that look at a file or change what is in it go to whatever the path leads to (look()). Those that
 * change an entry of a directory do not touch mount points and what is on the way to them (change()).
 */
#include "vfs/vfs.h"

/* For calls on what is there. `made_up` is the answer about a directory that no session has. */
static int look(struct p9_vfs *v, const char *path, int made_up, struct p9_spot *at)
{
	int rc = p9_vfs_find(v, path, v->a, at);
	if (rc < 0 || at->mount) {
		return rc;
	}
	return at->on_the_way || at->len == 0 ? made_up : -P9_ENOENT;
}

/* For calls that make the file when it is not there. */
static int look_or_make(struct p9_vfs *v, const char *path, struct p9_spot *at)
{
	int rc = look(v, path, -P9_EISDIR, at);
	return rc == -P9_ENOENT ? -P9_EROFS : rc;
}

/* For calls on an entry. `busy` is the answer about mount points and what is on the way to them. */
static int change(struct p9_vfs *v, const char *path, char *text, int busy, struct p9_spot *at)
{
	int rc = p9_vfs_find(v, path, text, at);
	if (rc < 0) {
		return rc;
	}
	if (at->is_mount || at->on_the_way || at->len == 0) {
		return busy;
	}
	return at->mount ? 0 : -P9_EROFS;
}

static int stat_made_up(struct p9_vfs *v, const struct p9_spot *at, struct p9_rgetattr *st)
{
	if (!at->on_the_way && at->len > 0) {
		return -P9_ENOENT;
	}
	p9_vfs_made_up(v->a, at->len, st);
	return 0;
}

static int stat_with(struct p9_vfs *v, const char *path, struct p9_rgetattr *st,
		     int (*ask)(struct p9_session *, const char *, struct p9_rgetattr *))
{
	struct p9_spot at;
	int rc = p9_vfs_find(v, path, v->a, &at);
	if (rc < 0) {
		return rc;
	}
	if (!at.mount) {
		return stat_made_up(v, &at, st);
	}
	rc = ask(at.mount->session, at.rest, st);
	if ((rc == -P9_ENOENT || rc == -P9_ENOTDIR) && at.on_the_way) {
		return stat_made_up(v, &at, st);
	}
	return (int)p9_vfs_error(at.mount, rc);
}

int p9_vfs_stat(struct p9_vfs *v, const char *path, struct p9_rgetattr *st)
{
	return stat_with(v, path, st, p9_session_stat);
}
int p9_vfs_lstat(struct p9_vfs *v, const char *path, struct p9_rgetattr *st)
{
	return stat_with(v, path, st, p9_session_lstat);
}

int64_t p9_vfs_read_file(struct p9_vfs *v, const char *path, void *buf, size_t cap)
{
	struct p9_spot at;
	int rc = look(v, path, -P9_EISDIR, &at);
	return rc < 0 ? rc : p9_vfs_error(at.mount, p9_session_read_file(at.mount->session, at.rest, buf, cap));
}
int p9_vfs_write_file(struct p9_vfs *v, const char *path, const void *buf, size_t n, uint32_t mode)
{
	struct p9_spot at;
	int rc = look_or_make(v, path, &at);
	return rc < 0 ? rc
		      : (int)p9_vfs_error(at.mount, p9_session_write_file(at.mount->session, at.rest, buf, n, mode));
}
int p9_vfs_append(struct p9_vfs *v, const char *path, const void *buf, size_t n, uint32_t mode)
{
	struct p9_spot at;
	int rc = look_or_make(v, path, &at);
	return rc < 0 ? rc : (int)p9_vfs_error(at.mount, p9_session_append(at.mount->session, at.rest, buf, n, mode));
}
int p9_vfs_readlink(struct p9_vfs *v, const char *path, char *buf, size_t cap)
{
	struct p9_spot at;
	int rc = look(v, path, -P9_EINVAL, &at);
	return rc < 0 ? rc : (int)p9_vfs_error(at.mount, p9_session_readlink(at.mount->session, at.rest, buf, cap));
}
int p9_vfs_setattr(struct p9_vfs *v, const char *path, struct p9_tsetattr *set)
{
	struct p9_spot at;
	int rc = look(v, path, -P9_EROFS, &at);
	return rc < 0 ? rc : (int)p9_vfs_error(at.mount, p9_session_setattr(at.mount->session, at.rest, set));
}
int p9_vfs_truncate(struct p9_vfs *v, const char *path, uint64_t size)
{
	struct p9_spot at;
	int rc = look(v, path, -P9_EROFS, &at);
	return rc < 0 ? rc : (int)p9_vfs_error(at.mount, p9_session_truncate(at.mount->session, at.rest, size));
}
int p9_vfs_chmod(struct p9_vfs *v, const char *path, uint32_t mode)
{
	struct p9_spot at;
	int rc = look(v, path, -P9_EROFS, &at);
	return rc < 0 ? rc : (int)p9_vfs_error(at.mount, p9_session_chmod(at.mount->session, at.rest, mode));
}
int p9_vfs_chown(struct p9_vfs *v, const char *path, uint32_t uid, uint32_t gid)
{
	struct p9_spot at;
	int rc = look(v, path, -P9_EROFS, &at);
	return rc < 0 ? rc : (int)p9_vfs_error(at.mount, p9_session_chown(at.mount->session, at.rest, uid, gid));
}
int p9_vfs_utimes(struct p9_vfs *v, const char *path, const struct p9_time t[2])
{
	struct p9_spot at;
	int rc = look(v, path, -P9_EROFS, &at);
	return rc < 0 ? rc : (int)p9_vfs_error(at.mount, p9_session_utimes(at.mount->session, at.rest, t));
}
int p9_vfs_statfs(struct p9_vfs *v, const char *path, struct p9_rstatfs *st)
{
	struct p9_spot at;
	int rc = look(v, path, -P9_EOPNOTSUPP, &at);
	return rc < 0 ? rc : (int)p9_vfs_error(at.mount, p9_session_statfs(at.mount->session, at.rest, st));
}
int64_t p9_vfs_xattr_get(struct p9_vfs *v, const char *path, const char *name, void *buf, size_t cap)
{
	struct p9_spot at;
	int rc = look(v, path, -P9_EOPNOTSUPP, &at);
	return rc < 0 ? rc : p9_vfs_error(at.mount, p9_session_xattr_get(at.mount->session, at.rest, name, buf, cap));
}
int64_t p9_vfs_xattr_list(struct p9_vfs *v, const char *path, char *buf, size_t cap)
{
	struct p9_spot at;
	int rc = look(v, path, -P9_EOPNOTSUPP, &at);
	return rc < 0 ? rc : p9_vfs_error(at.mount, p9_session_xattr_list(at.mount->session, at.rest, buf, cap));
}
int p9_vfs_xattr_set(struct p9_vfs *v, const char *path, const struct p9_xattr *x)
{
	struct p9_spot at;
	int rc = look(v, path, -P9_EOPNOTSUPP, &at);
	return rc < 0 ? rc : (int)p9_vfs_error(at.mount, p9_session_xattr_set(at.mount->session, at.rest, x));
}
int p9_vfs_xattr_remove(struct p9_vfs *v, const char *path, const char *name)
{
	struct p9_spot at;
	int rc = look(v, path, -P9_EOPNOTSUPP, &at);
	return rc < 0 ? rc : (int)p9_vfs_error(at.mount, p9_session_xattr_remove(at.mount->session, at.rest, name));
}

int p9_vfs_mkdir(struct p9_vfs *v, const char *path, uint32_t mode)
{
	struct p9_spot at;
	int rc = change(v, path, v->a, -P9_EEXIST, &at);
	return rc < 0 ? rc : (int)p9_vfs_error(at.mount, p9_session_mkdir(at.mount->session, at.rest, mode));
}
int p9_vfs_unlink(struct p9_vfs *v, const char *path)
{
	struct p9_spot at;
	int rc = change(v, path, v->a, -P9_EBUSY, &at);
	return rc < 0 ? rc : (int)p9_vfs_error(at.mount, p9_session_unlink(at.mount->session, at.rest));
}
int p9_vfs_rmdir(struct p9_vfs *v, const char *path)
{
	struct p9_spot at;
	int rc = change(v, path, v->a, -P9_EBUSY, &at);
	return rc < 0 ? rc : (int)p9_vfs_error(at.mount, p9_session_rmdir(at.mount->session, at.rest));
}
int p9_vfs_remove(struct p9_vfs *v, const char *path)
{
	struct p9_spot at;
	int rc = change(v, path, v->a, -P9_EBUSY, &at);
	return rc < 0 ? rc : (int)p9_vfs_error(at.mount, p9_session_remove(at.mount->session, at.rest));
}
int p9_vfs_symlink(struct p9_vfs *v, const char *target, const char *path)
{
	struct p9_spot at;
	int rc = change(v, path, v->a, -P9_EEXIST, &at);
	return rc < 0 ? rc : (int)p9_vfs_error(at.mount, p9_session_symlink(at.mount->session, target, at.rest));
}

int p9_vfs_rename(struct p9_vfs *v, const char *from, const char *to)
{
	struct p9_spot a, b;
	int rc = change(v, from, v->a, -P9_EBUSY, &a);
	rc = rc < 0 ? rc : change(v, to, v->b, -P9_EBUSY, &b);
	if (rc < 0) {
		return rc;
	}
	if (a.mount != b.mount) {
		return -P9_EXDEV;
	}
	return (int)p9_vfs_error(a.mount, p9_session_rename(a.mount->session, a.rest, b.rest));
}

int p9_vfs_link(struct p9_vfs *v, const char *from, const char *path)
{
	struct p9_spot a, b;
	int rc = look(v, from, -P9_EXDEV, &a);
	rc = rc < 0 ? rc : change(v, path, v->b, -P9_EEXIST, &b);
	if (rc < 0) {
		return rc;
	}
	if (a.mount != b.mount) {
		return -P9_EXDEV;
	}
	return (int)p9_vfs_error(a.mount, p9_session_link(a.mount->session, a.rest, b.rest));
}
