/* SPDX-License-Identifier: BSD-2-Clause */
/* copy_meta.c - owner, mode and times of copies.
 *
 * Always the permission bits and the time of change; with -p also owner, group, set-id bits and the time of access.
 * That an owner cannot be given away is no failure, as with cp; then the set-id bits, which would be somebody else's,
 * are left out. The order is the kernel's: to change the owner clears set-id bits and capabilities, to write changes
 * the times.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/copy.h"

/* Also when the copy's file system keeps less of the time: it is cut then. */
bool p9_meta_same(const struct p9_meta *src, uint64_t size, const struct timespec *mtime)
{
	static const long units[] = { 1, 100, 1000, 1000000, 1000000000 };
	bool same = false;
	for (size_t i = 0; i < P9_COUNT(units); i++) {
		same |= src->mtime.tv_nsec - src->mtime.tv_nsec % units[i] == mtime->tv_nsec;
	}
	return same && src->size == size && src->mtime.tv_sec == mtime->tv_sec;
}

static uint32_t mode_of(const struct p9_node *n)
{
	uint32_t bits = n->copy->opts.owner ? 07777 : S_ISDIR(n->st.mode) ? 01777 : 0777;
	return n->st.mode & bits & ~(n->foreign ? 06000u : 0);
}

static bool denied(int rc)
{
	return rc == -P9_EPERM || rc == -P9_EACCES || rc == -P9_EINVAL || rc == -P9_EOPNOTSUPP;
}

/* Owner and group, else the group alone. */
static int owner_here(struct p9_node *n)
{
	if (fchown(n->dst.fd, n->st.uid, n->st.gid) == 0) {
		return P9_ON;
	}
	n->foreign = true;
	int rc = fchown(n->dst.fd, (uid_t)-1, n->st.gid) < 0 ? -p9_hosterr(errno) : P9_ON;
	return denied(rc) ? P9_ON : rc;
}

int p9_meta_owner(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_msg t = { .type = P9_Tsetattr,
			    .tsetattr = { .fid = n->dst.fid, .uid = n->st.uid, .gid = n->st.gid } };
	if (!n->copy->opts.owner) {
		return P9_ON;
	}
	if (n->copy->to_here) {
		return owner_here(n);
	}
	int rc = r ? p9_reply_rc(r) : P9_ON;
	if (r && n->sub++ == 0 && denied(rc)) {
		n->foreign = true;
		t.tsetattr.valid = P9_SETATTR_GID;
		return p9_node_send(n, &t, NULL);
	}
	if (r) {
		return denied(rc) ? P9_ON : rc;
	}
	t.tsetattr.valid = P9_SETATTR_UID | P9_SETATTR_GID;
	return p9_node_send(n, &t, NULL);
}

static int seal_here(struct p9_node *n)
{
	struct timespec times[2] = { n->st.atime, n->st.mtime };
	struct stat st;
	if (!n->copy->opts.owner) {
		times[0].tv_nsec = UTIME_OMIT;
	}
	if (!n->self && (fstat(n->dst.fd, &st) < 0 || !S_ISREG(st.st_mode))) {
		return P9_ON; /* a terminal, /dev/null: nothing to keep there */
	}
	bool resize = !n->self && (uint64_t)st.st_size != n->pipe.eof;
	if ((resize && ftruncate(n->dst.fd, (off_t)n->pipe.eof) < 0) || fchmod(n->dst.fd, mode_of(n)) < 0 ||
	    futimens(n->dst.fd, times) < 0) {
		return -p9_hosterr(errno);
	}
	return P9_ON;
}

static void fill_times(const struct p9_node *n, struct p9_tsetattr *set)
{
	set->valid |= P9_SETATTR_MTIME | P9_SETATTR_MTIME_SET;
	set->mtime_sec = (uint64_t)n->st.mtime.tv_sec;
	set->mtime_nsec = (uint64_t)n->st.mtime.tv_nsec;
	if (n->copy->opts.owner) {
		set->valid |= P9_SETATTR_ATIME | P9_SETATTR_ATIME_SET;
		set->atime_sec = (uint64_t)n->st.atime.tv_sec;
		set->atime_nsec = (uint64_t)n->st.atime.tv_nsec;
	}
}

/* Mode and times, and the size where the end is a hole or the copy was longer. */
int p9_meta_seal(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_msg t = { .type = P9_Tsetattr,
			    .tsetattr = { .fid = n->dst.fid, .valid = P9_SETATTR_MODE, .mode = mode_of(n) } };
	if (n->copy->to_here) {
		return seal_here(n);
	}
	if (r) {
		return p9_reply_rc(r);
	}
	fill_times(n, &t.tsetattr);
	if (!n->self && (n->sparse || n->dst_size > 0)) {
		t.tsetattr.valid |= P9_SETATTR_SIZE;
		t.tsetattr.size = n->pipe.eof;
	}
	return p9_node_send(n, &t, NULL);
}

/* ---- links and special files, which are not open ---- */
static int entry_here(struct p9_node *n)
{
	int dir = p9_dst_dir(n)->fd;
	struct timespec times[2] = { n->st.atime, n->st.mtime };
	bool link = S_ISLNK(n->st.mode), owner = n->copy->opts.owner;
	if (!owner) {
		times[0].tv_nsec = UTIME_OMIT;
	}
	if (owner && fchownat(dir, n->to, n->st.uid, n->st.gid, AT_SYMLINK_NOFOLLOW) < 0) {
		n->foreign = true;
		(void)!fchownat(dir, n->to, (uid_t)-1, n->st.gid, AT_SYMLINK_NOFOLLOW);
	}
	if (!link && fchmodat(dir, n->to, mode_of(n), AT_SYMLINK_NOFOLLOW) < 0) {
		return -p9_hosterr(errno);
	}
	return utimensat(dir, n->to, times, AT_SYMLINK_NOFOLLOW) < 0 && !link ? -p9_hosterr(errno) : P9_ON;
}

/* A server that cannot set the times of a link is not to be blamed. */
int p9_meta_entry(struct p9_node *n, const struct p9_msg *r)
{
	bool link = S_ISLNK(n->st.mode);
	struct p9_msg t = { .type = P9_Tsetattr, .tsetattr = { .fid = n->dst.fid } };
	if (n->copy->to_here) {
		return entry_here(n);
	}
	if (!r && n->copy->opts.owner) {
		t.tsetattr.valid = P9_SETATTR_UID | P9_SETATTR_GID;
		t.tsetattr.uid = n->st.uid;
		t.tsetattr.gid = n->st.gid;
		return p9_node_send(n, &t, NULL);
	}
	if (r && n->sub == 1) {
		return link ? P9_ON : p9_reply_rc(r);
	}
	n->sub = 1;
	n->foreign = r && r->type == P9_Rlerror;
	t.tsetattr.valid = link ? 0 : P9_SETATTR_MODE;
	t.tsetattr.mode = mode_of(n);
	fill_times(n, &t.tsetattr);
	return p9_node_send(n, &t, NULL);
}
