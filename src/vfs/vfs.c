/* SPDX-License-Identifier: BSD-2-Clause */
/* vfs.c - open files and listings across mounts.
 *
 * Must stay true: a mount's `users` counts the files open and the listings that run in it; so long it keeps its place.
 */
#include "vfs/vfs.h"
#include "wire/cursor.h"

static struct p9_open_file *file_of(struct p9_vfs *v, int fd)
{
	return fd >= 0 && (unsigned)fd < v->nfiles && v->files[fd].mount ? &v->files[fd] : NULL;
}

static int free_number(const struct p9_vfs *v)
{
	for (unsigned i = 0; i < v->nfiles; i++) {
		if (!v->files[i].mount) {
			return (int)i;
		}
	}
	return -P9_EMFILE;
}

/* What opening says to a directory that no session has, or to nothing at all. */
static int no_file(const struct p9_spot *at, uint32_t flags)
{
	if (at->on_the_way || at->len == 0) {
		return -P9_EISDIR;
	}
	return flags & P9_O_CREAT ? -P9_EROFS : -P9_ENOENT;
}

int p9_vfs_open(struct p9_vfs *v, const char *path, uint32_t flags, uint32_t mode)
{
	struct p9_spot at;
	int fd = free_number(v);
	int rc = fd < 0 ? fd : p9_vfs_find(v, path, v->a, &at);
	if (rc < 0) {
		return rc;
	}
	if (!at.mount) {
		return no_file(&at, flags);
	}
	struct p9_open_file *f = &v->files[fd];
	rc = p9_session_open(at.mount->session, at.rest, flags, mode, &f->h);
	if (rc == -P9_ENOENT && at.on_the_way) {
		return -P9_EISDIR;
	}
	if (rc < 0) {
		return (int)p9_vfs_error(at.mount, rc);
	}
	f->mount = at.mount;
	f->offset = 0;
	f->mount->users++;
	return fd;
}

int p9_vfs_close(struct p9_vfs *v, int fd)
{
	struct p9_open_file *f = file_of(v, fd);
	if (!f) {
		return -P9_EBADF;
	}
	struct p9_mount *m = f->mount;
	f->mount = NULL;
	m->users--;
	return (int)p9_vfs_error(m, p9_session_close(m->session, &f->h));
}

int64_t p9_vfs_pread(struct p9_vfs *v, int fd, const struct p9_vfs_span *at)
{
	struct p9_open_file *f = file_of(v, fd);
	if (!f || (f->h.flags & P9_O_ACCMODE) == P9_O_WRONLY) {
		return -P9_EBADF;
	}
	return p9_vfs_error(f->mount, p9_session_read(f->mount->session, &f->h, at->offset, at->buf, at->n));
}

int64_t p9_vfs_pwrite(struct p9_vfs *v, int fd, const struct p9_vfs_span *at)
{
	struct p9_open_file *f = file_of(v, fd);
	if (!f || (f->h.flags & P9_O_ACCMODE) == P9_O_RDONLY) {
		return -P9_EBADF;
	}
	return p9_vfs_error(f->mount, p9_session_write(f->mount->session, &f->h, at->offset, at->buf, at->n));
}

int64_t p9_vfs_read(struct p9_vfs *v, int fd, void *buf, size_t n)
{
	struct p9_open_file *f = file_of(v, fd);
	int64_t rc = p9_vfs_pread(v, fd, &(struct p9_vfs_span){ buf, n, f ? f->offset : 0 });
	if (rc > 0) {
		f->offset += (uint64_t)rc;
	}
	return rc;
}

/* The end of a file that is appended to is asked for each time: others append, too, and not every server keeps
 * O_APPEND. */
static int go_to_end(struct p9_open_file *f)
{
	struct p9_rgetattr st;
	int rc = p9_session_fstat(f->mount->session, &f->h, &st);
	if (rc == 0) {
		f->offset = st.size;
	}
	return rc;
}

int64_t p9_vfs_write(struct p9_vfs *v, int fd, const void *buf, size_t n)
{
	struct p9_open_file *f = file_of(v, fd);
	int64_t rc = f && (f->h.flags & P9_O_APPEND) ? p9_vfs_error(f->mount, go_to_end(f)) : 0;
	if (rc < 0) {
		return rc;
	}
	rc = p9_vfs_pwrite(v, fd, &(struct p9_vfs_span){ (void *)(uintptr_t)buf, n, f ? f->offset : 0 });
	if (rc > 0) {
		f->offset += (uint64_t)rc;
	}
	return rc;
}

int64_t p9_vfs_seek(struct p9_vfs *v, int fd, int64_t offset, enum p9_vfs_whence whence)
{
	struct p9_open_file *f = file_of(v, fd);
	struct p9_rgetattr st = { 0 };
	if (!f) {
		return -P9_EBADF;
	}
	int rc = whence == P9_SEEK_END ? p9_vfs_fstat(v, fd, &st) : 0;
	if (rc < 0) {
		return rc;
	}
	uint64_t from = whence == P9_SEEK_END ? st.size : whence == P9_SEEK_CUR ? f->offset : 0;
	if (from > INT64_MAX || (offset > 0 && from > (uint64_t)(INT64_MAX - offset)) || (int64_t)from + offset < 0) {
		return -P9_EINVAL;
	}
	f->offset = from + (uint64_t)offset;
	return (int64_t)f->offset;
}

int p9_vfs_fstat(struct p9_vfs *v, int fd, struct p9_rgetattr *st)
{
	const struct p9_open_file *f = file_of(v, fd);
	return f ? (int)p9_vfs_error(f->mount, p9_session_fstat(f->mount->session, &f->h, st)) : -P9_EBADF;
}
int p9_vfs_ftruncate(struct p9_vfs *v, int fd, uint64_t size)
{
	const struct p9_open_file *f = file_of(v, fd);
	return f ? (int)p9_vfs_error(f->mount, p9_session_ftruncate(f->mount->session, &f->h, size)) : -P9_EBADF;
}
int p9_vfs_fsync(struct p9_vfs *v, int fd, bool datasync)
{
	const struct p9_open_file *f = file_of(v, fd);
	return f ? (int)p9_vfs_error(f->mount, p9_session_fsync(f->mount->session, &f->h, datasync)) : -P9_EBADF;
}

/* ---- listings ---- */
struct listing {
	struct p9_vfs *v;
	const struct p9_lister *how;
	uint64_t below; /* bit i: mount i lies below the directory */
	unsigned len;	/* of the directory's path; every mount below begins with it */
	bool stopped;	/* the caller's function ended the listing */
};

/* The element behind the directory, on the way to mount i. */
static struct p9_str child(const struct listing *l, unsigned i)
{
	const char *s = l->v->mounts[i].path + l->len + 1;
	uint16_t n = 0;
	while (s[n] && s[n] != '/') {
		n++;
	}
	return (struct p9_str){ s, n };
}

/* Whether a mount before `end` is on the way through this name. A mount may have gone since the listing began. */
static bool is_child(const struct listing *l, const struct p9_str *name, unsigned end)
{
	for (unsigned i = 0; i < end; i++) {
		const struct p9_mount *m = &l->v->mounts[i];
		if ((l->below >> i & 1) && m->session && m->len > l->len) {
			struct p9_str c = child(l, i);
			if (c.len == name->len && memcmp(c.s, name->s, c.len) == 0) {
				return true;
			}
		}
	}
	return false;
}

static int hand_over(struct listing *l, const struct p9_entry *e)
{
	int rc = l->how->each(l->how->arg, e);
	l->stopped = rc != 0;
	return rc;
}

static int session_entry(void *arg, const struct p9_entry *e)
{
	struct listing *l = arg;
	return is_child(l, &e->name, l->v->nmounts) ? 0 : hand_over(l, e);
}

#define DT_DIRECTORY 4

static int mount_entry(struct listing *l, unsigned i)
{
	const struct p9_mount *m = &l->v->mounts[i];
	struct p9_str name = child(l, i);
	unsigned len = l->len + 1 + name.len;
	struct p9_rgetattr st;
	p9_vfs_made_up(m->path, len, &st);
	if (len == m->len && l->how->sizes) {
		struct p9_rgetattr real;
		st = p9_session_stat(m->session, "", &real) == 0 ? real : st;
	}
	struct p9_entry e = { name, st.qid, DT_DIRECTORY, l->how->sizes ? &st : NULL };
	return hand_over(l, &e);
}

static int list_mounts(struct listing *l)
{
	int rc = 0;
	for (unsigned i = 0; i < l->v->nmounts && rc == 0; i++) {
		if ((l->below >> i & 1) && l->v->mounts[i].session && l->v->mounts[i].len > l->len) {
			struct p9_str name = child(l, i);
			rc = is_child(l, &name, i) ? 0 : mount_entry(l, i);
		}
	}
	return rc;
}

/* The directory's own entries. What is on the way to a mount need not be there. */
static int list_session(struct listing *l, const struct p9_spot *at)
{
	struct p9_lister how = *l->how;
	how.each = session_entry;
	how.arg = l;
	at->mount->users++;
	int rc = p9_session_list(at->mount->session, at->rest, &how);
	at->mount->users--;
	if (l->stopped) {
		return rc;
	}
	return at->on_the_way && (rc == -P9_ENOENT || rc == -P9_ENOTDIR) ? 0 : (int)p9_vfs_error(at->mount, rc);
}

/* Mounts come last, so that the path's text is not needed any more when the caller's function runs. */
int p9_vfs_list(struct p9_vfs *v, const char *path, const struct p9_lister *how)
{
	struct listing l = { .v = v, .how = how };
	struct p9_spot at;
	int rc = p9_vfs_find(v, path, v->a, &at);
	if (rc < 0) {
		return rc;
	}
	if (!at.mount && !at.on_the_way && at.len > 0) {
		return -P9_ENOENT;
	}
	l.len = at.len;
	for (unsigned i = 0; i < v->nmounts; i++) {
		bool below = v->mounts[i].session && p9_vfs_below(&v->mounts[i], v->a, at.len);
		l.below |= (uint64_t)below << i;
	}
	rc = at.mount ? list_session(&l, &at) : 0;
	return rc ? rc : list_mounts(&l);
}
