/* SPDX-License-Identifier: BSD-2-Clause */
/* fs_path.c - functions by path that are one request between a walk and a clunk.
 *
 * Each walks to the file or to the directory its name is in, asks, and gives the fid back. The error that is reported
 * is the first one; a clunk that fails after a success is not reported, for it changes nothing here.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "client/fs.h"

int p9_fs_end(struct p9_client *c, uint32_t fid, int rc)
{
	p9_client_clunk(c, fid);
	if (rc < 0) {
		return p9_client_dead(c) ? rc : p9_client_set_error(c, rc);
	}
	return rc;
}

static bool sane_time(uint64_t nsec)
{
	return nsec < 1000000000;
}

int p9_fs_judge(struct p9_client *c, const struct p9_rgetattr *st)
{
	uint32_t type = st->mode & S_IFMT;
	bool typed = (st->valid & P9_GETATTR_MODE) && type != 0;
	bool same = ((st->qid.type & P9_QTDIR) != 0) == (type == S_IFDIR);
	bool times = sane_time(st->atime_nsec) && sane_time(st->mtime_nsec) && sane_time(st->ctime_nsec) &&
		     sane_time(st->btime_nsec);
	return typed && same && times && st->size <= INT64_MAX ? 0 : p9_client_set_error(c, P9_EPROTO);
}

int p9_fs_getattr(struct p9_client *c, uint32_t fid, struct p9_rgetattr *st)
{
	int rc = p9_client_getattr(c, fid, P9_GETATTR_ALL, st);
	return rc < 0 ? rc : p9_fs_judge(c, st);
}

uint8_t p9_fs_type(uint32_t mode)
{
	return (uint8_t)((mode & S_IFMT) >> 12);
}

static int stat_path(struct p9_client *c, const char *path, int follow, struct p9_rgetattr *st)
{
	uint32_t fid;
	*st = (struct p9_rgetattr){ 0 };
	int rc = p9_client_walk(c, path, follow, &fid);
	return rc < 0 ? rc : p9_fs_end(c, fid, p9_fs_getattr(c, fid, st));
}

int p9_stat(struct p9_client *c, const char *path, struct p9_rgetattr *st)
{
	return stat_path(c, path, P9_WALK_FOLLOW, st);
}

int p9_lstat(struct p9_client *c, const char *path, struct p9_rgetattr *st)
{
	return stat_path(c, path, P9_WALK_NOFOLLOW, st);
}

int p9_statfs(struct p9_client *c, const char *path, struct p9_rstatfs *st)
{
	uint32_t fid;
	*st = (struct p9_rstatfs){ 0 };
	int rc = p9_client_walk(c, path, P9_WALK_FOLLOW, &fid);
	return rc < 0 ? rc : p9_fs_end(c, fid, p9_client_statfs(c, fid, st));
}

static int set_path(struct p9_client *c, const char *path, int follow, struct p9_tsetattr *set)
{
	int rc = p9_client_walk(c, path, follow, &set->fid);
	return rc < 0 ? rc : p9_fs_end(c, set->fid, p9_client_setattr(c, set));
}

int p9_chmod(struct p9_client *c, const char *path, uint32_t mode)
{
	struct p9_tsetattr set = { .valid = P9_SETATTR_MODE, .mode = mode & 07777 };
	return set_path(c, path, P9_WALK_FOLLOW, &set);
}

int p9_chown(struct p9_client *c, const char *path, int follow, uint32_t uid, uint32_t gid)
{
	struct p9_tsetattr set = { .uid = uid, .gid = gid };
	set.valid = (uid == P9_NONUNAME ? 0 : P9_SETATTR_UID) | (gid == P9_NONUNAME ? 0 : P9_SETATTR_GID);
	return set_path(c, path, follow, &set);
}

static uint32_t time_bits(const struct p9_time *t, uint32_t change, uint32_t set)
{
	return t->nsec == P9_TIME_OMIT ? 0 : t->nsec == P9_TIME_NOW ? change : change | set;
}

int p9_utimens(struct p9_client *c, const char *path, int follow, const struct p9_time *atime,
	       const struct p9_time *mtime)
{
	struct p9_tsetattr set = { .atime_sec = atime->sec, .mtime_sec = mtime->sec };
	set.valid = time_bits(atime, P9_SETATTR_ATIME, P9_SETATTR_ATIME_SET) |
		    time_bits(mtime, P9_SETATTR_MTIME, P9_SETATTR_MTIME_SET);
	set.atime_nsec = set.valid & P9_SETATTR_ATIME_SET ? atime->nsec : 0;
	set.mtime_nsec = set.valid & P9_SETATTR_MTIME_SET ? mtime->nsec : 0;
	if (!sane_time(set.atime_nsec) || !sane_time(set.mtime_nsec)) {
		return p9_client_set_error(c, P9_EINVAL);
	}
	return set_path(c, path, follow, &set);
}

int p9_truncate(struct p9_client *c, const char *path, uint64_t size)
{
	struct p9_tsetattr set = { .valid = P9_SETATTR_SIZE, .size = size };
	return set_path(c, path, P9_WALK_FOLLOW, &set);
}

/* ---- names ---- */
struct place {
	uint32_t dir;
	char name[P9_NAMEMAX + 1];
};

int p9_mkdir(struct p9_client *c, const char *path, uint32_t mode)
{
	struct place p;
	int rc = p9_client_walk_parent(c, path, &p.dir, p.name);
	return rc < 0 ? rc : p9_fs_end(c, p.dir, p9_client_mkdir(c, p.dir, p.name, mode));
}

int p9_mknod(struct p9_client *c, const char *path, uint32_t mode, uint64_t rdev)
{
	struct place p;
	int rc = p9_client_walk_parent(c, path, &p.dir, p.name);
	return rc < 0 ? rc : p9_fs_end(c, p.dir, p9_client_mknod(c, p.dir, p.name, mode, rdev));
}

int p9_symlink(struct p9_client *c, const char *target, const char *path)
{
	struct place p;
	int rc = p9_client_walk_parent(c, path, &p.dir, p.name);
	return rc < 0 ? rc : p9_fs_end(c, p.dir, p9_client_symlink(c, p.dir, p.name, target));
}

int p9_readlink(struct p9_client *c, const char *path, char *buf, size_t cap)
{
	uint32_t fid;
	int rc = p9_client_walk(c, path, P9_WALK_NOFOLLOW, &fid);
	return rc < 0 ? rc : p9_fs_end(c, fid, p9_client_readlink(c, fid, buf, cap));
}

int p9_link(struct p9_client *c, const char *old, const char *path)
{
	uint32_t fid;
	struct place p;
	int rc = p9_client_walk(c, old, P9_WALK_NOFOLLOW, &fid);
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_walk_parent(c, path, &p.dir, p.name);
	if (rc >= 0) {
		rc = p9_fs_end(c, p.dir, p9_client_link(c, p.dir, fid, p.name));
	}
	return p9_fs_end(c, fid, rc);
}

int p9_rename(struct p9_client *c, const char *old, const char *path)
{
	struct place from, to;
	int rc = p9_client_walk_parent(c, old, &from.dir, from.name);
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_walk_parent(c, path, &to.dir, to.name);
	if (rc >= 0) {
		rc = p9_fs_end(c, to.dir, p9_client_renameat(c, from.dir, from.name, to.dir, to.name));
	}
	return p9_fs_end(c, from.dir, rc);
}

static int unlink_path(struct p9_client *c, const char *path, uint32_t flags)
{
	struct place p;
	int rc = p9_client_walk_parent(c, path, &p.dir, p.name);
	return rc < 0 ? rc : p9_fs_end(c, p.dir, p9_client_unlinkat(c, p.dir, p.name, flags));
}

int p9_unlink(struct p9_client *c, const char *path)
{
	return unlink_path(c, path, 0);
}

int p9_rmdir(struct p9_client *c, const char *path)
{
	return unlink_path(c, path, P9_DOTL_AT_REMOVEDIR);
}

int p9_remove(struct p9_client *c, const char *path)
{
	int rc = p9_unlink(c, path);
	if (rc != -P9_EISDIR && rc != -P9_EPERM) { /* EPERM is what some systems say about a directory */
		return rc;
	}
	int dir = p9_rmdir(c, path);
	return dir == -P9_ENOTDIR ? p9_client_set_error(c, rc) : dir;
}

/* Makes `name` in a directory, or finds it. Moves *dir on to it. */
static int enter_or_make(struct p9_client *c, uint32_t *dir, const char *name, uint32_t mode)
{
	uint32_t fid;
	struct p9_qid qid;
	int rc = p9_client_mkdir(c, *dir, name, mode);
	if (rc < 0 && rc != -P9_EEXIST) {
		return rc;
	}
	rc = p9_client_walk1(c, *dir, name, &fid, &qid);
	if (rc >= 0 && !(qid.type & P9_QTDIR)) {
		return p9_fs_end(c, fid, -P9_ENOTDIR);
	}
	if (rc >= 0) {
		p9_client_clunk(c, *dir);
		*dir = fid;
	}
	return rc;
}

/* Makes what is missing of the first `end` bytes of a path: the way up to the last directory that is there is walked as
 * it is, links and all; from there names are made one by one. */
static int make_from(struct p9_client *c, char *path, size_t have, uint32_t mode)
{
	uint32_t dir;
	char cut = path[have];
	path[have] = 0;
	int rc = p9_client_walk(c, path, P9_WALK_FOLLOW, &dir);
	path[have] = cut;
	char *save = NULL;
	for (char *name = strtok_r(path + have, "/", &save); rc >= 0 && name; name = strtok_r(NULL, "/", &save)) {
		if (strcmp(name, ".") == 0) {
			continue;
		}
		bool bad = strlen(name) > P9_NAMEMAX;
		rc = bad ? p9_client_set_error(c, P9_ENAMETOOLONG) : enter_or_make(c, &dir, name, mode);
		rc = rc < 0 ? p9_fs_end(c, dir, rc) : rc;
	}
	return rc < 0 ? rc : p9_fs_end(c, dir, 0);
}

/* The end of the element before the one that ends at `end`. */
static size_t shorter(const char *path, size_t end)
{
	while (end > 0 && path[end - 1] == '/') {
		end--;
	}
	while (end > 0 && path[end - 1] != '/') {
		end--;
	}
	return end;
}

int p9_mkdir_all(struct p9_client *c, const char *text, uint32_t mode)
{
	struct p9_rgetattr st;
	size_t have = strlen(text);
	int rc = p9_stat(c, text, &st);
	if (rc >= 0) {
		return p9_fs_type(st.mode) == P9_DT_DIR ? 0 : p9_client_set_error(c, P9_ENOTDIR);
	}
	char *path = strdup(text);
	if (!path) {
		return p9_client_set_error(c, P9_ENOMEM);
	}
	while (rc == -P9_ENOENT && have > 0) {
		have = shorter(path, have);
		char cut = path[have];
		path[have] = 0;
		rc = p9_stat(c, path, &st);
		path[have] = cut;
	}
	if (rc >= 0) {
		bool dir = p9_fs_type(st.mode) == P9_DT_DIR;
		rc = dir ? make_from(c, path, have, mode) : p9_client_set_error(c, P9_ENOTDIR);
	}
	free(path);
	return rc;
}
