/* SPDX-License-Identifier: BSD-2-Clause */
/* attr.c - attributes of files and file systems, and extended attributes. */
#include "vfs/session.h"

static int stat_how(struct p9_session *s, const char *path, int how, struct p9_rgetattr *st)
{
	struct p9_place at;
	int rc = p9_walk(s, path, how, &at);
	if (rc == 0) {
		struct p9_handle h = { .fid = at.fid };
		rc = p9_session_fstat(s, &h, st);
		p9_session_let_go(s, at.fid);
	}
	return rc;
}

int p9_session_stat(struct p9_session *s, const char *path, struct p9_rgetattr *st)
{
	return stat_how(s, path, P9_WALK_LINK, st);
}
int p9_session_lstat(struct p9_session *s, const char *path, struct p9_rgetattr *st)
{
	return stat_how(s, path, P9_WALK_STAY, st);
}

int p9_session_setattr(struct p9_session *s, const char *path, struct p9_tsetattr *set)
{
	struct p9_place at;
	int rc = p9_walk(s, path, P9_WALK_LINK, &at);
	if (rc < 0) {
		return rc;
	}
	set->fid = at.fid;
	struct p9_msg t = { .type = P9_Tsetattr, .tsetattr = *set };
	return p9_session_last(s, at.fid, 0, &t);
}

int p9_session_truncate(struct p9_session *s, const char *path, uint64_t size)
{
	struct p9_tsetattr set = { .valid = P9_SETATTR_SIZE, .size = size };
	return p9_session_setattr(s, path, &set);
}
int p9_session_chmod(struct p9_session *s, const char *path, uint32_t mode)
{
	struct p9_tsetattr set = { .valid = P9_SETATTR_MODE, .mode = mode };
	return p9_session_setattr(s, path, &set);
}

int p9_session_chown(struct p9_session *s, const char *path, uint32_t uid, uint32_t gid)
{
	struct p9_tsetattr set = { .uid = uid, .gid = gid };
	set.valid |= uid != P9_NONUNAME ? P9_SETATTR_UID : 0;
	set.valid |= gid != P9_NONUNAME ? P9_SETATTR_GID : 0;
	return p9_session_setattr(s, path, &set);
}

int p9_session_utimes(struct p9_session *s, const char *path, const struct p9_time t[2])
{
	static const struct p9_time now[2] = { { 0, P9_TIME_NOW }, { 0, P9_TIME_NOW } };
	struct p9_tsetattr set = { 0 };
	t = t ? t : now;
	if (t[0].nsec != P9_TIME_OMIT) {
		set.valid |= P9_SETATTR_ATIME;
	}
	if (t[1].nsec != P9_TIME_OMIT) {
		set.valid |= P9_SETATTR_MTIME;
	}
	if (t[0].nsec != P9_TIME_OMIT && t[0].nsec != P9_TIME_NOW) {
		set.valid |= P9_SETATTR_ATIME_SET;
		set.atime_sec = t[0].sec;
		set.atime_nsec = t[0].nsec;
	}
	if (t[1].nsec != P9_TIME_OMIT && t[1].nsec != P9_TIME_NOW) {
		set.valid |= P9_SETATTR_MTIME_SET;
		set.mtime_sec = t[1].sec;
		set.mtime_nsec = t[1].nsec;
	}
	return p9_session_setattr(s, path, &set);
}

int p9_session_statfs(struct p9_session *s, const char *path, struct p9_rstatfs *st)
{
	struct p9_place at;
	int rc = p9_walk(s, path, P9_WALK_LINK, &at);
	if (rc == 0) {
		struct p9_msg r, t = { .type = P9_Tstatfs, .tstatfs = { at.fid } };
		rc = p9_session_call(s, &t, NULL, &r);
		if (rc == 0) {
			*st = r.rstatfs;
		}
		p9_session_let_go(s, at.fid);
	}
	return rc;
}

/* Reads what `fid`, made by Txattrwalk, says it has. */
static int64_t read_value(struct p9_session *s, uint32_t fid, uint64_t size, void *buf, size_t cap)
{
	struct p9_handle h = { .fid = fid, .chunk = s->engine.msize - P9_IOHDRSZ };
	if (size > INT64_MAX) {
		return -P9_E2BIG;
	}
	if (cap == 0) {
		return (int64_t)size;
	}
	if (size > cap) {
		return -P9_ERANGE;
	}
	int64_t n = p9_session_read(s, &h, 0, buf, (size_t)size);
	return n >= 0 && (uint64_t)n < size ? -P9_EIO : n; /* it shrank in between, or the server lies */
}

int64_t p9_session_xattr_get(struct p9_session *s, const char *path, const char *name, void *buf, size_t cap)
{
	struct p9_place at;
	uint32_t fid = P9_NOFID;
	int64_t n = p9_walk(s, path, P9_WALK_LINK, &at);
	if (n < 0) {
		return n;
	}
	n = p9_engine_fid_get(&s->engine, &fid);
	if (n == 0) {
		struct p9_msg r, t = { .type = P9_Txattrwalk, .txattrwalk = { at.fid, fid, p9_session_str(name) } };
		n = p9_session_call(s, &t, NULL, &r);
		if (n == 0) {
			n = read_value(s, fid, r.rxattrwalk.size, buf, cap);
			p9_session_let_go(s, fid);
		}
	}
	p9_session_let_go(s, at.fid);
	return n;
}

int64_t p9_session_xattr_list(struct p9_session *s, const char *path, char *buf, size_t cap)
{
	return p9_session_xattr_get(s, path, "", buf, cap);
}

int p9_session_xattr_set(struct p9_session *s, const char *path, const struct p9_xattr *x)
{
	struct p9_place at;
	int rc = p9_walk(s, path, P9_WALK_LINK, &at);
	rc = rc < 0 ? rc : p9_walk_own(s, &at.fid);
	if (rc < 0) {
		return rc;
	}
	struct p9_msg t = { .type = P9_Txattrcreate,
			    .txattrcreate = { at.fid, p9_session_str(x->name), x->size, x->flags } };
	rc = p9_session_call(s, &t, NULL, NULL);
	struct p9_handle h = { .fid = at.fid, .chunk = s->engine.msize - P9_IOHDRSZ, .flags = P9_O_APPEND };
	int64_t n = rc < 0 || x->size == 0 ? rc : p9_session_write(s, &h, 0, x->value, x->size);
	int last = p9_session_close(s, &h); /* this is what sets it */
	if (n < 0) {
		return (int)n;
	}
	return (size_t)n < x->size ? -P9_EIO : last;
}

/* As Linux does it: replace by nothing. */
int p9_session_xattr_remove(struct p9_session *s, const char *path, const char *name)
{
	struct p9_xattr x = { .name = name, .flags = P9_XATTR_REPLACE };
	return p9_session_xattr_set(s, path, &x);
}
