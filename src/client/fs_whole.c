/* SPDX-License-Identifier: BSD-2-Clause */
/* fs_whole.c - a file's whole content at once.
 *
 * Reading believes the file's size only as far as it saves work: it ends where the server says that there is no more.
 * An atomic write makes a file of another name in the same directory, and gives it the name when all is in it. Must stay
 * true: whatever fails, no such file is left, as far as the server lets us remove it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "client/fs.h"

#define FIRST_BYTES 4096u
#define NAME_TRIES 16

struct content {
	uint8_t *buf;
	size_t len, cap; /* one more byte is there for the NUL */
};

static int grow(struct content *k, size_t cap)
{
	uint8_t *more = cap < SIZE_MAX ? realloc(k->buf, cap + 1) : NULL;
	if (!more) {
		return -P9_ENOMEM;
	}
	k->buf = more;
	k->cap = cap;
	return 0;
}

/* Fills what there is room for; *end when the file ends before. */
static int fill(struct p9_fh *f, struct content *k, uint64_t size, bool *end)
{
	struct p9_stream s = { .file = f, .offset = k->len, .size = size, .limit = k->cap, .memory = k->buf + k->len };
	int rc = p9_fs_stream(&s);
	k->len += rc < 0 ? 0 : (size_t)s.moved;
	*end = k->len < k->cap;
	return rc;
}

static int read_all(struct p9_fh *f, size_t max, struct content *k)
{
	struct p9_rgetattr st;
	bool end = false;
	int rc = p9_fstat(f, &st);
	if (rc >= 0 && p9_fs_type(st.mode) == P9_DT_DIR) {
		return -P9_EISDIR;
	}
	if (rc >= 0 && st.size > max) {
		return -P9_EFBIG;
	}
	size_t most = max < SIZE_MAX - 1 ? max + 1 : max; /* one byte above, to see that it is too much */
	size_t cap = st.size < FIRST_BYTES ? FIRST_BYTES : (size_t)st.size + 1;
	rc = rc < 0 ? rc : grow(k, cap < most ? cap : most);
	while (rc >= 0 && !end) {
		rc = fill(f, k, st.size, &end);
		if (rc >= 0 && k->len > max) {
			return -P9_EFBIG;
		}
		if (rc >= 0 && !end) {
			rc = grow(k, k->cap < most / 2 ? k->cap * 2 : most);
		}
	}
	return rc;
}

int p9_read_file(struct p9_client *c, const char *path, size_t max, void **out, size_t *len)
{
	struct p9_fh *f;
	struct content k = { 0 };
	*out = NULL;
	*len = 0;
	int rc = p9_open(c, path, P9_O_RDONLY, &f);
	if (rc < 0) {
		return rc;
	}
	rc = read_all(f, max, &k);
	p9_close(f);
	if (rc < 0) {
		free(k.buf);
		return p9_client_dead(c) ? rc : p9_client_set_error(c, rc);
	}
	k.buf[k.len] = 0;
	*out = k.buf;
	*len = k.len;
	return 0;
}

/* Writes, syncs when asked to, and closes; an error of any of them. */
static int put(struct p9_fh *f, const struct p9_bytes *b, unsigned flags)
{
	struct p9_client *c = f->client;
	ssize_t n = b->len ? p9_pwrite(f, b->data, b->len, 0) : 0;
	int rc = n < 0 ? (int)n : 0;
	if (rc >= 0 && (flags & P9_WRITE_SYNC)) {
		rc = p9_fsync(f, false);
	}
	int end = p9_close(f);
	if (rc < 0) {
		return p9_client_dead(c) ? rc : p9_client_set_error(c, rc);
	}
	return end;
}

/* ---- atomic ---- */
struct atomic {
	struct p9_client *client;
	uint32_t dir;
	char name[P9_NAMEMAX + 1], temp[48];
};

static int make_temp(struct atomic *a, uint32_t mode, struct p9_fh **f)
{
	int rc = -P9_EEXIST;
	for (int i = 0; i < NAME_TRIES && rc == -P9_EEXIST; i++) {
		struct timespec t;
		clock_gettime(CLOCK_REALTIME, &t);
		uint64_t n = (uint64_t)t.tv_nsec * 1000003u ^ (uint64_t)t.tv_sec << 20 ^ (uint64_t)getpid() << 40;
		snprintf(a->temp, sizeof(a->temp), ".p9-%016llx-%d", (unsigned long long)n, i);
		rc = p9_fh_make(a->client, a->dir, a->temp, P9_O_WRONLY, mode, f);
	}
	return rc;
}

/* The mode of the file that will be replaced. 1 when there is one, 0 when not. */
static int mode_of_old(struct atomic *a, uint32_t *mode)
{
	uint32_t fid;
	struct p9_rgetattr st;
	int rc = p9_client_walk1(a->client, a->dir, a->name, &fid, NULL);
	if (rc < 0) {
		return rc == -P9_ENOENT ? 0 : rc;
	}
	rc = p9_fs_end(a->client, fid, p9_fs_getattr(a->client, fid, &st));
	if (rc < 0 || p9_fs_type(st.mode) != P9_DT_REG) {
		return rc < 0 ? rc : 0;
	}
	*mode = st.mode & 07777;
	return 1;
}

static int sync_dir(struct atomic *a)
{
	uint32_t fid;
	int rc = p9_client_clone(a->client, a->dir, &fid);
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_lopen(a->client, fid, P9_O_RDONLY | P9_O_DIRECTORY, NULL);
	return p9_fs_end(a->client, fid, rc < 0 ? rc : p9_client_fsync(a->client, fid, false));
}

/* Gives the finished file its name. With EXCL a second name, which fails when it is taken, and the first away. */
static int give_name(struct atomic *a, unsigned flags)
{
	uint32_t fid;
	struct p9_client *c = a->client;
	if (!(flags & P9_WRITE_EXCL)) {
		return p9_client_renameat(c, a->dir, a->temp, a->dir, a->name);
	}
	int rc = p9_client_walk1(c, a->dir, a->temp, &fid, NULL);
	if (rc >= 0) {
		rc = p9_fs_end(c, fid, p9_client_link(c, a->dir, fid, a->name));
	}
	return rc < 0 ? rc : p9_client_unlinkat(c, a->dir, a->temp, 0);
}

static int write_atomic(struct atomic *a, const struct p9_bytes *b, uint32_t mode, unsigned flags)
{
	struct p9_fh *f;
	int old = mode_of_old(a, &mode);
	if (old < 0 || (old && (flags & P9_WRITE_EXCL))) {
		return old < 0 ? old : -P9_EEXIST;
	}
	int rc = make_temp(a, mode, &f);
	if (rc < 0) {
		return rc;
	}
	struct p9_tsetattr set = { .fid = f->fid, .valid = P9_SETATTR_MODE, .mode = mode };
	int chmod = old ? p9_client_setattr(a->client, &set) : 0;
	rc = put(f, b, flags);
	rc = chmod < 0 ? chmod : rc < 0 ? rc : give_name(a, flags);
	if (rc < 0) {
		if (!p9_client_dead(a->client)) {
			int gone = p9_client_unlinkat(a->client, a->dir, a->temp, 0);
			(void)gone; /* the first error is the one that counts */
		}
		return rc;
	}
	return flags & P9_WRITE_SYNC ? sync_dir(a) : 0;
}

int p9_write_file(struct p9_client *c, const char *path, const struct p9_bytes *content, uint32_t mode, unsigned flags)
{
	if ((flags & P9_WRITE_ATOMIC) && (flags & P9_WRITE_APPEND)) {
		return p9_client_set_error(c, P9_EINVAL);
	}
	if (flags & P9_WRITE_ATOMIC) {
		struct atomic a = { .client = c };
		int rc = p9_client_walk_parent(c, path, &a.dir, a.name);
		return rc < 0 ? rc : p9_fs_end(c, a.dir, write_atomic(&a, content, mode, flags));
	}
	struct p9_fh *f;
	uint32_t how = P9_O_WRONLY | (flags & P9_WRITE_EXCL ? P9_O_EXCL : 0) |
		       (flags & P9_WRITE_APPEND ? P9_O_APPEND : P9_O_TRUNC);
	int rc = p9_create(c, path, how, mode, &f);
	return rc < 0 ? rc : put(f, content, flags);
}
