/* SPDX-License-Identifier: BSD-2-Clause */
/* fs_file.c - open files: a fid, its flags, and where sequential reading goes on.
 *
 * What fits one request is one call; more is a transfer with several in flight (fs_stream.c). Bytes of a file opened for
 * appending go one request after the other, for nobody says in which order a server takes those that are in flight.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include "client/fs.h"

/* Flags that mean something to this side alone. */
#define OURS (P9_O_CREAT | P9_O_EXCL | P9_O_NOFOLLOW | P9_O_CLOEXEC | P9_O_NOCTTY)
#define CREATE_TRIES 8

static int new_handle(struct p9_client *c, uint32_t fid, uint32_t flags, struct p9_fh **out)
{
	*out = calloc(1, sizeof(**out));
	if (!*out) {
		return -P9_ENOMEM;
	}
	**out = (struct p9_fh){ .client = c, .fid = fid, .flags = flags };
	return 0;
}

int p9_fh_open(struct p9_client *c, uint32_t fid, uint32_t flags, struct p9_fh **out)
{
	uint32_t iounit = 0;
	*out = NULL;
	int rc = p9_client_lopen(c, fid, flags & ~OURS, &iounit);
	rc = rc < 0 ? rc : new_handle(c, fid, flags, out);
	if (rc < 0) {
		return p9_fs_end(c, fid, rc);
	}
	(*out)->chunk = p9_client_iosize(c, iounit);
	return 0;
}

int p9_fh_make(struct p9_client *c, uint32_t dir, const char *name, uint32_t flags, uint32_t mode, struct p9_fh **out)
{
	uint32_t fid;
	*out = NULL;
	int rc = p9_client_clone(c, dir, &fid);
	if (rc < 0) {
		return rc;
	}
	uint32_t wire = (flags & ~(OURS | P9_O_TRUNC)) | P9_O_CREAT | P9_O_EXCL;
	rc = p9_client_lcreate(c, fid, name, wire, mode & 07777);
	rc = rc < 0 ? rc : new_handle(c, fid, flags, out);
	if (rc < 0) {
		return p9_fs_end(c, fid, rc);
	}
	(*out)->chunk = p9_client_iosize(c, 0);
	return 0;
}

/* A server may open what a link points to on its own side: ask before. */
static int refuse_link(struct p9_client *c, uint32_t fid)
{
	struct p9_rgetattr st;
	int rc = p9_fs_getattr(c, fid, &st);
	return rc < 0 ? rc : p9_fs_type(st.mode) == P9_DT_LNK ? -P9_ELOOP : 0;
}

int p9_open(struct p9_client *c, const char *path, uint32_t flags, struct p9_fh **out)
{
	uint32_t fid;
	bool nofollow = flags & P9_O_NOFOLLOW;
	*out = NULL;
	int rc = p9_client_walk(c, path, nofollow ? P9_WALK_NOFOLLOW : P9_WALK_FOLLOW, &fid);
	if (rc < 0) {
		return rc;
	}
	rc = nofollow ? refuse_link(c, fid) : 0;
	return rc < 0 ? p9_fs_end(c, fid, rc) : p9_fh_open(c, fid, flags, out);
}

int p9_create(struct p9_client *c, const char *path, uint32_t flags, uint32_t mode, struct p9_fh **out)
{
	uint32_t dir;
	char name[P9_NAMEMAX + 1];
	bool exclusive = flags & P9_O_EXCL;
	*out = NULL;
	int rc = exclusive ? -P9_ENOENT : p9_open(c, path, flags, out);
	if (rc != -P9_ENOENT || p9_client_dead(c)) {
		return rc;
	}
	rc = p9_client_walk_parent(c, path, &dir, name);
	if (rc < 0) {
		return rc;
	}
	/* Somebody may make it, or remove it, in between: then the other way is right. */
	for (int i = 0; i < CREATE_TRIES; i++) {
		rc = p9_fh_make(c, dir, name, flags, mode, out);
		if (rc != -P9_EEXIST || exclusive) {
			break;
		}
		int open = p9_open(c, path, flags, out);
		rc = open == -P9_ENOENT ? rc : open;
		if (open != -P9_ENOENT) {
			break;
		}
	}
	return p9_fs_end(c, dir, rc);
}

int p9_close(struct p9_fh *f)
{
	if (!f) {
		return 0;
	}
	int rc = p9_client_clunk(f->client, f->fid);
	free(f);
	return rc;
}

static ssize_t stream(struct p9_fh *f, uint8_t *buf, size_t n, uint64_t offset, bool writing)
{
	struct p9_stream s = { .file = f, .offset = offset, .memory = buf, .writing = writing };
	s.size = s.limit = offset + n;
	int rc = p9_fs_stream(&s);
	return rc < 0 ? rc : (ssize_t)s.moved;
}

static bool in_range(size_t n, uint64_t offset)
{
	return n <= SSIZE_MAX && offset <= INT64_MAX && n <= INT64_MAX - offset;
}

ssize_t p9_pread(struct p9_fh *f, void *buf, size_t n, uint64_t offset)
{
	size_t got = 0;
	if (!in_range(n, offset)) {
		return p9_client_set_error(f->client, P9_EINVAL);
	}
	if (n > f->chunk) {
		return stream(f, buf, n, offset, false);
	}
	while (got < n) {
		int rc = p9_client_read(f->client, f->fid, offset + got, (uint8_t *)buf + got, (uint32_t)(n - got));
		if (rc < 0) {
			return rc;
		}
		if (rc == 0) {
			break;
		}
		got += (size_t)rc;
	}
	return (ssize_t)got;
}

ssize_t p9_pwrite(struct p9_fh *f, const void *buf, size_t n, uint64_t offset)
{
	size_t done = 0;
	if (!in_range(n, offset)) {
		return p9_client_set_error(f->client, P9_EINVAL);
	}
	if (n > f->chunk && !(f->flags & P9_O_APPEND)) {
		return stream(f, (uint8_t *)(uintptr_t)buf, n, offset, true);
	}
	while (done < n) {
		uint32_t some = n - done < f->chunk ? (uint32_t)(n - done) : f->chunk;
		int rc = p9_client_write(f->client, f->fid, offset + done, (const uint8_t *)buf + done, some);
		if (rc <= 0) { /* a server that takes nothing would be asked for ever */
			return rc < 0 ? rc : p9_client_set_error(f->client, P9_EIO);
		}
		done += (size_t)rc;
	}
	return (ssize_t)done;
}

ssize_t p9_read(struct p9_fh *f, void *buf, size_t n)
{
	ssize_t k = p9_pread(f, buf, n, f->at);
	f->at += k > 0 ? (uint64_t)k : 0;
	return k;
}

ssize_t p9_write(struct p9_fh *f, const void *buf, size_t n)
{
	ssize_t k = p9_pwrite(f, buf, n, f->at);
	f->at += k > 0 ? (uint64_t)k : 0;
	return k;
}

void p9_seek(struct p9_fh *f, uint64_t offset)
{
	f->at = offset;
}
uint64_t p9_tell(const struct p9_fh *f)
{
	return f->at;
}
uint32_t p9_fh_fid(const struct p9_fh *f)
{
	return f->fid;
}

int p9_fstat(struct p9_fh *f, struct p9_rgetattr *st)
{
	return p9_fs_getattr(f->client, f->fid, st);
}

int p9_ftruncate(struct p9_fh *f, uint64_t size)
{
	struct p9_tsetattr set = { .fid = f->fid, .valid = P9_SETATTR_SIZE, .size = size };
	return p9_client_setattr(f->client, &set);
}

int p9_fsync(struct p9_fh *f, bool datasync)
{
	return p9_client_fsync(f->client, f->fid, datasync);
}
