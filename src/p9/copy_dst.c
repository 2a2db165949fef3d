/* SPDX-License-Identifier: BSD-2-Clause */
/* copy_dst.c - the phases of the end that is copied to.
 *
 * Names come from the other side. A file is made in the directory that was opened for it, by a single name, and never
 * through a link that is in the way: here by O_NOFOLLOW, on the server by looking at what the walk found. So nothing is
 * written outside of the target, whatever a server or a neighbour does meanwhile.
 * A file that could not be copied whole is removed, unless it was there before or the copy was interrupted: then what
 * has come stays, for --continue.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/copy.h"

const struct p9_end *p9_dst_dir(const struct p9_node *n)
{
	return n->dir ? &((const struct p9_node *)n->dir->data)->dst : &n->copy->into;
}

static bool here(const struct p9_node *n)
{
	return n->copy->to_here;
}

/* Sends a Twalk from the directory of the copy to its name, or for name NULL to the directory itself. */
static int send_walk(struct p9_node *n, const char *name)
{
	struct p9_client *c = n->copy->client;
	int rc = p9_client_fid(c, &n->dst.fid);
	if (rc < 0) {
		n->dst.fid = P9_NOFID;
		return rc;
	}
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = p9_dst_dir(n)->fid, .newfid = n->dst.fid } };
	if (name) {
		t.twalk.wname.n = 1;
		t.twalk.wname.v[0] = p9_node_str(name);
	}
	rc = p9_node_send(n, &t, NULL);
	if (rc < 0) {
		p9_client_fid_unused(c, n->dst.fid);
		n->dst.fid = P9_NOFID;
	}
	return rc;
}

static int walked(struct p9_node *n, const struct p9_msg *r)
{
	n->dst.fid = r->type == P9_Rlerror ? P9_NOFID : n->dst.fid;
	return p9_reply_rc(r);
}

static uint32_t open_flags(const struct p9_node *n)
{
	return n->copy->opts.check ? P9_O_RDWR : P9_O_WRONLY;
}

/* Until its owner is right nobody else gets in; until its attributes are set its owner does. */
static uint32_t first_mode(const struct p9_node *n)
{
	const struct p9_copy_opts *o = &n->copy->opts;
	return (n->st.mode & (o->owner ? 0700 : 0777)) | (o->xattrs ? 0600 : 0);
}

/* ---- --continue: is it there already? ---- */
/* Sets where to go on: some way back from the end, for a server may have written chunks out of order. */
static int resume(struct p9_node *n, uint32_t mode, uint64_t size, const struct timespec *mtime)
{
	if (!S_ISREG(mode)) {
		return P9_ON;
	}
	if (p9_meta_same(&n->st, size, mtime)) {
		n->pipe.next = n->pipe.eof = n->pipe.moved = size;
		n->pipe.ended = true;
		n->dst_size = size;
		n->existed = true;
		return P9_ON;
	}
	if (size < n->st.size) {
		uint64_t back = size > P9_COPY_BYTES ? size - P9_COPY_BYTES : 0;
		n->dst_size = size;
		n->pipe.next = back - back % P9_COPY_CHUNK;
	}
	return P9_ON;
}

static int look_here(struct p9_node *n)
{
	struct stat st;
	if (fstatat(p9_dst_dir(n)->fd, n->to, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		return errno == ENOENT ? P9_ON : -p9_hosterr(errno);
	}
	return resume(n, st.st_mode, (uint64_t)st.st_size, &st.st_mtim);
}

/* A complete copy needs nothing more, or only to be compared. */
static int looked(struct p9_node *n, int rc)
{
	if (rc != P9_ON || !n->pipe.ended || n->copy->opts.check) {
		return rc;
	}
	n->made = true;
	static p9_phase *const nothing[] = { NULL };
	return p9_node_jump(n, nothing);
}

int p9_dst_look(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_msg t = { .type = P9_Tgetattr, .tgetattr = { .request_mask = P9_GETATTR_BASIC } };
	struct p9_meta m;
	if (!n->copy->opts.resume || !S_ISREG(n->st.mode)) {
		return P9_ON;
	}
	if (here(n)) {
		return looked(n, look_here(n));
	}
	if (!r) {
		return send_walk(n, n->to);
	}
	if (n->sub++ == 0) {
		int rc = walked(n, r);
		t.tgetattr.fid = n->dst.fid;
		return rc == -P9_ENOENT ? P9_ON : rc < 0 ? rc : p9_node_send(n, &t, NULL);
	}
	if (p9_reply_rc(r) < 0) {
		return p9_reply_rc(r);
	}
	p9_meta_of(&m, &r->rgetattr);
	return looked(n, resume(n, m.mode, m.size, &m.mtime));
}

/* ---- a file ---- */
static int open_here(struct p9_node *n)
{
	int dir = p9_dst_dir(n)->fd;
	int flags = (n->copy->opts.check ? O_RDWR : O_WRONLY) | O_CLOEXEC | O_NOCTTY;
	struct stat st;
	flags |= n->dir ? O_NOFOLLOW | O_NONBLOCK : 0;
	n->dst.fd = openat(dir, n->to, flags | O_CREAT | O_EXCL, 0600);
	if (n->dst.fd >= 0) {
		n->made = true;
		n->dst_size = n->pipe.next = 0;
		return P9_ON;
	}
	if (errno != EEXIST) {
		return -p9_hosterr(errno);
	}
	n->existed = true;
	bool anew = n->dst_size == 0 && n->pipe.next == 0;
	n->dst.fd = openat(dir, n->to, flags | O_CREAT | (anew ? O_TRUNC : 0), 0600);
	if (n->dst.fd < 0 || fstat(n->dst.fd, &st) < 0) {
		return -p9_hosterr(errno);
	}
	n->made = true;
	return n->dir && !S_ISREG(st.st_mode) ? -P9_EEXIST : P9_ON;
}

enum { OPEN_CLONE, OPEN_CREATE, OPEN_WALK, OPEN_OPEN };

static int send_create(struct p9_node *n)
{
	struct p9_msg t = { .type = P9_Tlcreate,
			    .tlcreate = { .fid = n->dst.fid,
					  .name = p9_node_str(n->to),
					  .mode = first_mode(n),
					  .flags = open_flags(n) | P9_O_CREAT | P9_O_EXCL,
					  .gid = P9_NONUNAME } };
	n->sub = OPEN_CREATE;
	return p9_node_send(n, &t, NULL);
}

static int send_rewalk(struct p9_node *n)
{
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = n->dst.fid, .newfid = n->dst.fid } };
	t.twalk.wname.n = 1;
	t.twalk.wname.v[0] = p9_node_str(n->to);
	n->existed = true;
	n->sub = OPEN_WALK;
	return p9_node_send(n, &t, NULL);
}

static int send_open(struct p9_node *n)
{
	bool anew = n->dst_size == 0 && n->pipe.next == 0;
	struct p9_msg t = { .type = P9_Tlopen,
			    .tlopen = { .fid = n->dst.fid, .flags = open_flags(n) | (anew ? P9_O_TRUNC : 0) } };
	n->existed = true;
	n->sub = OPEN_OPEN;
	return p9_node_send(n, &t, NULL);
}

/* Something is there: not to be written through when it is a link, nor onto itself. */
static int reuse(struct p9_node *n, const struct p9_qid *q)
{
	if (q->type & (P9_QTDIR | P9_QTSYMLINK)) {
		return q->type & P9_QTDIR ? -P9_EISDIR : -P9_ELOOP;
	}
	if (!n->copy->from_here && q->path == n->st.ino) {
		p9_node_say(n, "the copy would be the same file");
		n->error = -P9_EINVAL;
		return -P9_EINVAL;
	}
	return send_open(n);
}

int p9_dst_open(struct p9_node *n, const struct p9_msg *r)
{
	if (here(n)) {
		return open_here(n);
	}
	if (!r) { /* --continue may have found it */
		n->sub = n->dst.fid != P9_NOFID ? OPEN_OPEN : OPEN_CLONE;
		return n->dst.fid != P9_NOFID ? send_open(n) : send_walk(n, NULL);
	}
	int rc = n->sub == OPEN_CLONE ? walked(n, r) : p9_reply_rc(r);
	if (n->sub == OPEN_CREATE && rc == -P9_EEXIST) {
		return send_rewalk(n);
	}
	if (rc < 0) {
		return rc;
	}
	switch (n->sub) {
	case OPEN_CLONE:
		return send_create(n);
	case OPEN_WALK:
		return reuse(n, &r->rwalk.wqid.v[0]);
	default:
		n->made = true;
		return P9_ON;
	}
}

/* ---- a directory ---- */
static int open_dir_here(struct p9_node *n)
{
	int up = p9_dst_dir(n)->fd;
	const char *name = n->to ? n->to : ".";
	int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | (n->dir ? O_NOFOLLOW : 0);
	if (mkdirat(up, name, 0700) < 0 && errno != EEXIST) {
		return -p9_hosterr(errno);
	}
	n->dst.fd = openat(up, name, flags);
	n->made = n->dst.fd >= 0;
	return n->made ? P9_ON : -p9_hosterr(errno);
}

static int dir_walked(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_copy *c = n->copy;
	int rc = walked(n, r);
	if (rc < 0 || !n->to) {
		n->made = rc >= 0;
		return rc;
	}
	const struct p9_qid *q = &r->rwalk.wqid.v[0];
	n->made = q->type & P9_QTDIR;
	if (!n->dir) {
		c->top_qid = q->path;
		c->has_top = true;
	}
	return n->made ? P9_ON : -P9_ENOTDIR;
}

int p9_dst_dir_open(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_msg t = { .type = P9_Tmkdir,
			    .tmkdir = { .dfid = p9_dst_dir(n)->fid, .mode = 0700, .gid = P9_NONUNAME } };
	const struct p9_copy *c = n->copy;
	if (here(n)) {
		return open_dir_here(n);
	}
	if (!r && !c->from_here && n->dir && c->has_top && n->st.ino == c->top_qid) {
		p9_node_say(n, "this is the copy itself: left out");
		n->error = -P9_EINVAL;
		return -P9_EINVAL;
	}
	if (!r && !n->to) {
		n->sub = 1;
		return send_walk(n, NULL);
	}
	if (!r) {
		t.tmkdir.name = p9_node_str(n->to);
		return p9_node_send(n, &t, NULL);
	}
	if (n->sub++ == 0) {
		int rc = p9_reply_rc(r);
		return rc < 0 && rc != -P9_EEXIST ? rc : send_walk(n, n->to);
	}
	return dir_walked(n, r);
}

/* ---- links and special files ---- */
/* Makes way for a link when there is one already; anything else stays. */
static int symlink_here(struct p9_node *n)
{
	int dir = p9_dst_dir(n)->fd;
	struct stat st;
	int rc = symlinkat(n->target, dir, n->to);
	if (rc < 0 && errno == EEXIST && fstatat(dir, n->to, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		rc = S_ISLNK(st.st_mode) ? unlinkat(dir, n->to, 0) : -1;
		errno = S_ISLNK(st.st_mode) ? errno : EEXIST;
		rc = rc < 0 ? rc : symlinkat(n->target, dir, n->to);
	}
	n->made = rc == 0;
	return rc < 0 ? -p9_hosterr(errno) : P9_ON;
}

enum { LINK_MAKE, LINK_LOOK, LINK_UNLINK, LINK_AGAIN };

static int send_symlink(struct p9_node *n)
{
	struct p9_msg t = { .type = P9_Tsymlink,
			    .tsymlink = { .fid = p9_dst_dir(n)->fid,
					  .name = p9_node_str(n->to),
					  .symtgt = p9_node_str(n->target),
					  .gid = P9_NONUNAME } };
	return p9_node_send(n, &t, NULL);
}

static int send_unlink(struct p9_node *n)
{
	struct p9_msg t = { .type = P9_Tunlinkat,
			    .tunlinkat = { .dirfid = p9_dst_dir(n)->fid, .name = p9_node_str(n->to) } };
	return p9_node_send(n, &t, NULL);
}

int p9_dst_symlink(struct p9_node *n, const struct p9_msg *r)
{
	if (here(n)) {
		return symlink_here(n);
	}
	if (!r) {
		n->sub = LINK_MAKE;
		return send_symlink(n);
	}
	int rc = n->sub == LINK_LOOK ? walked(n, r) : p9_reply_rc(r);
	if (n->sub == LINK_MAKE && rc == -P9_EEXIST) {
		n->existed = true;
		n->sub = LINK_LOOK;
		return send_walk(n, n->to);
	}
	if (rc < 0) {
		return rc;
	}
	if (n->sub == LINK_LOOK) {
		n->sub = LINK_UNLINK;
		bool link = r->rwalk.wqid.v[0].type & P9_QTSYMLINK;
		bool same = r->rwalk.wqid.v[0].path == n->st.ino && !n->copy->from_here;
		return link && !same ? send_unlink(n) : -P9_EEXIST;
	}
	if (n->sub == LINK_UNLINK) {
		n->sub = LINK_AGAIN;
		return send_symlink(n);
	}
	n->made = true;
	return P9_ON;
}

/* --continue: is what is there already what would be made? */
static bool same_special(struct p9_node *n, uint32_t mode, uint64_t rdev)
{
	bool device = S_ISCHR(mode) || S_ISBLK(mode);
	n->existed = true;
	n->made = (mode & S_IFMT) == (n->st.mode & S_IFMT) && (!device || rdev == n->st.rdev);
	return n->made;
}

static int mknod_here(struct p9_node *n, uint32_t mode)
{
	int dir = p9_dst_dir(n)->fd;
	struct stat st;
	if (mknodat(dir, n->to, mode, (dev_t)n->st.rdev) == 0) {
		n->made = true;
		return P9_ON;
	}
	int rc = -p9_hosterr(errno);
	bool look = errno == EEXIST && n->copy->opts.resume;
	bool there = look && fstatat(dir, n->to, &st, AT_SYMLINK_NOFOLLOW) == 0;
	return there && same_special(n, st.st_mode, st.st_rdev) ? P9_ON : rc;
}

enum { NODE_MAKE, NODE_WALK, NODE_LOOK };

static int mknod_replied(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_msg t = { .type = P9_Tgetattr, .tgetattr = { .request_mask = P9_GETATTR_BASIC } };
	struct p9_meta m;
	int rc = n->sub == NODE_WALK ? walked(n, r) : p9_reply_rc(r);
	if (n->sub == NODE_MAKE && rc == -P9_EEXIST && n->copy->opts.resume) {
		n->sub = NODE_WALK;
		return send_walk(n, n->to);
	}
	if (n->sub == NODE_MAKE || rc < 0) {
		n->made = rc >= 0;
		return rc;
	}
	if (n->sub == NODE_WALK) {
		n->sub = NODE_LOOK;
		t.tgetattr.fid = n->dst.fid;
		return p9_node_send(n, &t, NULL);
	}
	p9_meta_of(&m, &r->rgetattr);
	return same_special(n, m.mode, m.rdev) ? P9_ON : -P9_EEXIST;
}

/* The bits above 0777 come later, with the owner. */
int p9_dst_mknod(struct p9_node *n, const struct p9_msg *r)
{
	uint32_t mode = (n->st.mode & S_IFMT) | first_mode(n);
	if (here(n)) {
		return mknod_here(n, mode);
	}
	if (r) {
		return mknod_replied(n, r);
	}
	struct p9_msg t = { .type = P9_Tmknod,
			    .tmknod = { .dfid = p9_dst_dir(n)->fid,
					.name = p9_node_str(n->to),
					.mode = mode,
					.major = major(n->st.rdev),
					.minor = minor(n->st.rdev),
					.gid = P9_NONUNAME } };
	return p9_node_send(n, &t, NULL);
}

/* A fid for what was made, to set its times. One that stands for the link that was there before is of no use. */
int p9_dst_reach(struct p9_node *n, const struct p9_msg *r)
{
	if (here(n)) {
		return P9_ON;
	}
	if (!r && n->dst.fid != P9_NOFID) {
		struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = n->dst.fid } };
		n->dst.fid = P9_NOFID;
		return p9_node_send(n, &t, NULL);
	}
	bool clunked = r && r->type != P9_Rwalk && n->dst.fid == P9_NOFID;
	return !r || clunked ? send_walk(n, n->to) : walked(n, r);
}

/* ---- the end ---- */
/* Is all of it there? */
int p9_dst_verify(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_msg t = { .type = P9_Tgetattr,
			    .tgetattr = { .fid = n->dst.fid, .request_mask = P9_GETATTR_MODE | P9_GETATTR_SIZE } };
	struct stat st;
	if (!r && !here(n)) {
		return p9_node_send(n, &t, NULL);
	}
	if (r && p9_reply_rc(r) < 0) {
		return p9_reply_rc(r);
	}
	if (!r && fstat(n->dst.fd, &st) < 0) {
		return -p9_hosterr(errno);
	}
	uint64_t size = r ? r->rgetattr.size : (uint64_t)st.st_size;
	uint64_t want = S_ISREG(n->st.mode) ? n->st.size : n->pipe.eof;
	if (size != want && S_ISREG(r ? r->rgetattr.mode : st.st_mode)) {
		p9_node_say(n, "the copy has %llu bytes, not %llu", (unsigned long long)size, (unsigned long long)want);
		n->error = -P9_EIO;
		return -P9_EIO;
	}
	return P9_ON;
}

static void say_partial(struct p9_node *n)
{
	char *path = p9_node_copy_path(n);
	p9_cli_say(n->copy->cli, "%.1500s: %llu of %llu bytes; --continue goes on from there", path ? path : n->name,
		   (unsigned long long)n->pipe.moved, (unsigned long long)n->st.size);
	free(path);
}

/* Removes what is not whole. */
int p9_dst_discard(struct p9_node *n, const struct p9_msg *r)
{
	bool dead = p9_client_dead(n->copy->client);
	bool keep = dead || n->copy->tree.abort;
	bool partial = n->error && n->made && S_ISREG(n->st.mode);
	if (r) { /* a server without Tunlinkat: by its fid, which is gone then */
		bool unknown = n->sub++ == 0 && p9_reply_rc(r) == -P9_EOPNOTSUPP;
		struct p9_msg t = { .type = P9_Tremove, .tremove = { .fid = n->dst.fid } };
		n->dst.fid = unknown ? P9_NOFID : n->dst.fid;
		return unknown ? p9_node_send(n, &t, NULL) : P9_ON;
	}
	if (partial && keep && n->pipe.moved > 0) {
		say_partial(n);
		return P9_ON;
	}
	if (!partial || n->existed) {
		return P9_ON;
	}
	if (here(n)) {
		unlinkat(p9_dst_dir(n)->fd, n->to, 0);
		return P9_ON;
	}
	return dead ? P9_ON : send_unlink(n);
}

/* Closing can be where a full disk shows. */
int p9_dst_close(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = n->dst.fid } };
	if (r) {
		return n->error ? P9_ON : p9_reply_rc(r);
	}
	if (n->dst.fd >= 0) {
		int fd = n->dst.fd;
		n->dst.fd = -1;
		return close(fd) < 0 && !n->error ? -p9_hosterr(errno) : P9_ON;
	}
	if (n->dst.fid == P9_NOFID || p9_client_dead(n->copy->client)) {
		return P9_ON;
	}
	n->dst.fid = P9_NOFID;
	return p9_node_send(n, &t, NULL);
}
