/* SPDX-License-Identifier: BSD-2-Clause */
/* mount.c - the mount table: paths in order, which mount a path belongs to, directories that no session has. */
#include <string.h>
#include "vfs/vfs.h"
#include "vfs/session.h"

#define MOUNTS_DEFAULT 8
#define FILES_DEFAULT 64

static size_t round_up(size_t n)
{
	return (n + 15) & ~(size_t)15;
}
static unsigned nmounts(const struct p9_vfs_conf *c)
{
	return c->mounts ? c->mounts : MOUNTS_DEFAULT;
}
static unsigned nfiles(const struct p9_vfs_conf *c)
{
	return c->files ? c->files : FILES_DEFAULT;
}

size_t p9_vfs_memory(const struct p9_vfs_conf *c)
{
	return round_up(sizeof(struct p9_vfs)) + round_up(nmounts(c) * sizeof(struct p9_mount)) +
	       round_up((size_t)nfiles(c) * sizeof(struct p9_open_file));
}

int p9_vfs_init(struct p9_vfs **out, const struct p9_vfs_conf *c, void *mem, size_t len)
{
	*out = NULL;
	if (nmounts(c) > P9_VFS_MOUNTS_MAX || nfiles(c) > INT32_MAX) {
		return -P9_EINVAL;
	}
	if (len < p9_vfs_memory(c)) {
		return -P9_ENOMEM;
	}
	struct p9_vfs *v = mem;
	memset(mem, 0, p9_vfs_memory(c));
	uint8_t *rest = (uint8_t *)mem + round_up(sizeof(*v));
	v->mounts = (struct p9_mount *)rest;
	v->nmounts = nmounts(c);
	v->files = (struct p9_open_file *)(rest + round_up(nmounts(c) * sizeof(struct p9_mount)));
	v->nfiles = nfiles(c);
	*out = v;
	return 0;
}

/* ---- paths ---- */
/* Takes the last element away. */
static unsigned step_up(const char *text, unsigned len)
{
	while (len > 0 && text[--len] != '/') {
	}
	return len;
}

int p9_vfs_order(const char *path, char *text, unsigned *len)
{
	unsigned n = 0;
	bool slash = false;
	if (path[0] != '/') {
		return -P9_EINVAL;
	}
	for (;;) {
		while (*path == '/') {
			path++;
			slash = true;
		}
		const char *begin = path;
		while (*path && *path != '/') {
			path++;
		}
		size_t k = (size_t)(path - begin);
		bool dot = k == 1 && begin[0] == '.';
		if (k == 0) {
			break;
		}
		if (dot || (k == 2 && begin[0] == '.' && begin[1] == '.')) {
			n = dot ? n : step_up(text, n);
			slash = true;
			continue;
		}
		if (k > P9_NAMEMAX || n + k + 3 > P9_VFS_PATH) { /* slash, element, slash, end */
			return -P9_ENAMETOOLONG;
		}
		text[n] = '/';
		memcpy(text + n + 1, begin, k);
		n += (unsigned)k + 1;
		slash = false;
	}
	*len = n;
	text[n] = '/';
	text[n + slash] = 0;
	return 0;
}

bool p9_vfs_below(const struct p9_mount *m, const char *text, unsigned len)
{
	return m->len > len && m->path[len] == '/' && memcmp(m->path, text, len) == 0;
}

static bool covers(const struct p9_mount *m, const char *text, unsigned len)
{
	return m->len <= len && (m->len == len || text[m->len] == '/') && memcmp(m->path, text, m->len) == 0;
}

int p9_vfs_find(struct p9_vfs *v, const char *path, char *text, struct p9_spot *at)
{
	*at = (struct p9_spot){ 0 };
	int rc = p9_vfs_order(path, text, &at->len);
	if (rc < 0) {
		return rc;
	}
	for (unsigned i = 0; i < v->nmounts; i++) {
		struct p9_mount *m = &v->mounts[i];
		if (!m->session) {
			continue;
		}
		if (covers(m, text, at->len) && (!at->mount || m->len > at->mount->len)) {
			at->mount = m;
		}
		at->on_the_way |= p9_vfs_below(m, text, at->len);
	}
	if (at->mount) {
		at->rest = text + at->mount->len;
		at->is_mount = at->mount->len == at->len;
	}
	return 0;
}

/* ---- the table ---- */
int p9_vfs_mount(struct p9_vfs *v, const char *path, struct p9_session *s)
{
	unsigned len;
	int rc = p9_vfs_order(path, v->a, &len);
	if (rc < 0 || len >= P9_VFS_MOUNT_PATH) {
		return rc < 0 ? rc : -P9_ENAMETOOLONG;
	}
	struct p9_mount *room = NULL;
	for (unsigned i = v->nmounts; i-- > 0;) {
		struct p9_mount *m = &v->mounts[i];
		if (m->session && m->len == len && memcmp(m->path, v->a, len) == 0) {
			return -P9_EBUSY;
		}
		room = m->session ? room : m;
	}
	if (!room) {
		return -P9_ENOSPC;
	}
	*room = (struct p9_mount){ .session = s, .len = len };
	memcpy(room->path, v->a, len);
	return 0;
}

int p9_vfs_unmount(struct p9_vfs *v, const char *path)
{
	struct p9_spot at;
	int rc = p9_vfs_find(v, path, v->a, &at);
	if (rc < 0) {
		return rc;
	}
	if (!at.is_mount) {
		return -P9_EINVAL;
	}
	if (at.mount->users > 0) {
		return -P9_EBUSY;
	}
	*at.mount = (struct p9_mount){ 0 };
	return 0;
}

const char *p9_vfs_mounted(const struct p9_vfs *v, unsigned i, struct p9_session **s)
{
	for (const struct p9_mount *m = v->mounts; m < v->mounts + v->nmounts; m++) {
		if (!m->session || i-- > 0) {
			continue;
		}
		if (s) {
			*s = m->session;
		}
		return m->len ? m->path : "/";
	}
	return NULL;
}

/* ---- what no session has ---- */
int64_t p9_vfs_error(const struct p9_mount *m, int64_t rc)
{
	if (rc >= 0) {
		return rc;
	}
	return p9_session_dead(m->session) || p9_error_name((uint32_t)-rc)[1] == '?' ? -P9_EIO : rc;
}

void p9_vfs_made_up(const char *text, unsigned len, struct p9_rgetattr *st)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a: a path's number is the same each time */
	for (unsigned i = 0; i < len; i++) {
		hash = (hash ^ (uint8_t)text[i]) * UINT64_C(0x100000001b3);
	}
	*st = (struct p9_rgetattr){ .valid = P9_GETATTR_BASIC, .mode = 0040555, .nlink = 2, .blksize = 4096 };
	st->qid = (struct p9_qid){ .type = P9_QTDIR, .path = hash | UINT64_C(1) << 63 };
}
