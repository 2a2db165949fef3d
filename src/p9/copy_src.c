/* SPDX-License-Identifier: BSD-2-Clause */
/* copy_src.c - the phases of the end that is copied from.
 *
 * Here a file is opened relative to its directory, never through a link and never waiting for a FIFO's other end, and
 * looked at once it is open, so that what is copied is what was looked at. On the server it is walked, looked at and
 * then opened by the same fid.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/copy.h"

uint32_t *p9_src_fid(struct p9_node *n)
{
	return n->self ? &n->self->fid : &n->src.fid;
}

int p9_src_fd(const struct p9_node *n)
{
	return n->self ? n->self->localfd : n->src.fd;
}

void p9_meta_of(struct p9_meta *m, const struct p9_rgetattr *a)
{
	*m = (struct p9_meta){ .mode = a->mode,
			       .uid = a->uid,
			       .gid = a->gid,
			       .rdev = a->rdev,
			       .size = a->size,
			       .blocks = a->blocks,
			       .nlink = a->nlink,
			       .ino = a->qid.path };
	m->atime = (struct timespec){ (time_t)a->atime_sec, a->atime_nsec < 1000000000 ? (long)a->atime_nsec : 0 };
	m->mtime = (struct timespec){ (time_t)a->mtime_sec, a->mtime_nsec < 1000000000 ? (long)a->mtime_nsec : 0 };
}

static void meta_of_stat(struct p9_meta *m, const struct stat *st)
{
	*m = (struct p9_meta){ .mode = st->st_mode,
			       .uid = st->st_uid,
			       .gid = st->st_gid,
			       .rdev = st->st_rdev,
			       .size = (uint64_t)st->st_size,
			       .blocks = (uint64_t)st->st_blocks,
			       .nlink = st->st_nlink,
			       .dev = st->st_dev,
			       .ino = st->st_ino,
			       .atime = st->st_atim,
			       .mtime = st->st_mtim };
}

/* ---- here ---- */
static int parent_fd(const struct p9_node *n)
{
	return n->dir ? n->dir->localfd : AT_FDCWD;
}

static int open_dir_here(struct p9_node *n)
{
	struct p9_dir *d = n->self;
	struct stat st;
	int nofollow = n->dir ? O_NOFOLLOW : 0;
	d->localfd = openat(parent_fd(n), n->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | nofollow);
	if (d->localfd < 0 || fstat(d->localfd, &st) < 0) {
		return -p9_hosterr(errno);
	}
	meta_of_stat(&n->st, &st);
	d->local = fdopendir(d->localfd);
	return d->local ? P9_ON : -p9_hosterr(errno);
}

/* A link or a special file cannot be opened, or should not be: it is looked at by its name. */
static int look_here(struct p9_node *n)
{
	struct stat st;
	int nofollow = n->dir || n->copy->opts.nofollow ? AT_SYMLINK_NOFOLLOW : 0;
	if (fstatat(parent_fd(n), n->name, &st, nofollow) < 0) {
		return -p9_hosterr(errno);
	}
	meta_of_stat(&n->st, &st);
	return P9_ON;
}

static int open_here(struct p9_node *n)
{
	struct stat st;
	bool inside = n->dir || n->copy->opts.nofollow;
	int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | (n->dir ? O_NONBLOCK : 0) | (inside ? O_NOFOLLOW : 0);
	n->src.fd = openat(parent_fd(n), n->name, flags);
	if (n->src.fd < 0 && (errno == ELOOP || errno == ENXIO || errno == EMLINK)) {
		return look_here(n);
	}
	if (n->src.fd < 0 || fstat(n->src.fd, &st) < 0) {
		return -p9_hosterr(errno);
	}
	meta_of_stat(&n->st, &st);
	return P9_ON;
}

/* What can be opened without harm is; a device is only looked at. */
static int stat_here(struct p9_node *n)
{
	if (n->self) {
		return open_dir_here(n);
	}
	int rc = look_here(n);
	if (rc < 0) {
		return rc;
	}
	bool special = !S_ISREG(n->st.mode) && (n->dir || n->copy->opts.special || S_ISLNK(n->st.mode));
	return special || S_ISDIR(n->st.mode) ? P9_ON : open_here(n);
}

/* ---- phases ---- */
int p9_src_walk(struct p9_node *n, const struct p9_msg *r)
{
	uint32_t *fid = p9_src_fid(n);
	if (r) {
		*fid = r->type == P9_Rlerror ? P9_NOFID : *fid;
		return p9_reply_rc(r);
	}
	if (n->copy->from_here || *fid != P9_NOFID) {
		return P9_ON;
	}
	int rc = p9_client_fid(n->copy->client, fid);
	if (rc < 0) {
		*fid = P9_NOFID;
		return rc;
	}
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = n->dir->fid, .newfid = *fid } };
	t.twalk.wname.n = 1;
	t.twalk.wname.v[0] = p9_node_str(n->name);
	rc = p9_node_send(n, &t, NULL);
	if (rc < 0) {
		p9_client_fid_unused(n->copy->client, *fid);
		*fid = P9_NOFID;
	}
	return rc;
}

int p9_src_stat(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_msg t = { .type = P9_Tgetattr,
			    .tgetattr = { .fid = *p9_src_fid(n), .request_mask = P9_GETATTR_BASIC } };
	int rc = P9_ON;
	if (!r && n->copy->from_here) {
		rc = stat_here(n);
	} else if (!r) {
		return p9_node_send(n, &t, NULL);
	} else {
		rc = p9_reply_rc(r);
		if (rc >= 0) {
			p9_meta_of(&n->st, &r->rgetattr);
		}
	}
	if (rc >= 0 && n->self && !S_ISDIR(n->st.mode)) {
		rc = -P9_ENOTDIR;
	}
	n->looked = rc >= 0;
	n->sparse = n->copy->opts.sparse || n->st.blocks < n->st.size / 512;
	return rc;
}

int p9_src_open(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_msg t = { .type = P9_Tlopen, .tlopen = { .fid = n->src.fid, .flags = P9_O_RDONLY } };
	if (r) {
		return p9_reply_rc(r);
	}
	return n->copy->from_here ? P9_ON : p9_node_send(n, &t, NULL);
}

/* All is copied that could be read. When that is not what the file was said to hold, it is looked at once more: it may
 * have changed meanwhile. What has grown was copied up to where it was then; what has shrunk, too. */
int p9_src_settle(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_msg t = { .type = P9_Tgetattr, .tgetattr = { .fid = n->src.fid, .request_mask = P9_GETATTR_SIZE } };
	uint64_t got = n->pipe.eof, size = n->st.size;
	struct stat st;
	if (!r && (got == size || !S_ISREG(n->st.mode))) {
		return P9_ON;
	}
	if (!r && !n->copy->from_here) {
		return p9_node_send(n, &t, NULL);
	}
	if (r && p9_reply_rc(r) < 0) {
		return p9_reply_rc(r);
	}
	if (!r && fstat(n->src.fd, &st) < 0) {
		return -p9_hosterr(errno);
	}
	size = r ? r->rgetattr.size : (uint64_t)st.st_size;
	n->st.size = got;
	if (size > got) {
		p9_node_say(n, "%llu bytes came, there are %llu", (unsigned long long)got, (unsigned long long)size);
		n->error = -P9_EIO;
		return -P9_EIO;
	}
	return P9_ON;
}

int p9_src_readlink(struct p9_node *n, const struct p9_msg *r)
{
	char text[P9_TARGETMAX + 1];
	ssize_t len;
	struct p9_msg t = { .type = P9_Treadlink, .treadlink = { .fid = n->src.fid } };
	if (!r && !n->copy->from_here) {
		return p9_node_send(n, &t, NULL);
	}
	if (r && p9_reply_rc(r) < 0) {
		return p9_reply_rc(r);
	}
	if (r) {
		const struct p9_str *s = &r->rreadlink.target;
		len = s->len <= P9_TARGETMAX ? (ssize_t)s->len : 0;
		memcpy(text, s->s, (size_t)len);
	} else {
		len = readlinkat(parent_fd(n), n->name, text, sizeof(text) - 1);
		if (len < 0) {
			return -p9_hosterr(errno);
		}
	}
	n->target = len > 0 ? strndup(text, (size_t)len) : NULL;
	return n->target ? P9_ON : len > 0 ? -P9_ENOMEM : -P9_ENAMETOOLONG;
}

int p9_src_close(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = n->src.fid } };
	if (r || n->src.fid == P9_NOFID || p9_client_dead(n->copy->client)) {
		return P9_ON;
	}
	n->src.fid = P9_NOFID;
	return p9_node_send(n, &t, NULL);
}
