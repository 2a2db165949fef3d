/* SPDX-License-Identifier: BSD-2-Clause */
/* tree.c - operations that make, move and remove entries. All are (directory descriptor, name).
 *
 * Tremove and Trename name a fid. The node remembers where it was found; that entry is looked at again and must still
 * be the same inode, else ESTALE. Between that look and the removal somebody on the host may swap the entry: what is
 * removed is then the entry of that name, in that directory, which the client was allowed to remove anyway.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "backend/local/local.h"

static int made(struct p9_caller *c, int dirfd, const char *name, uint32_t gid, struct p9_qid *out)
{
	struct statx st;
	lident_give_gid(c, dirfd, name, gid);
	int rc = lstat_name(dirfd, name, &st);
	if (rc == 0) {
		*out = lqid_of(&st);
	}
	return rc;
}

static int need_dir(const struct p9_node *n)
{
	return S_ISDIR(((const struct lnode *)n)->type) ? 0 : -P9_ENOTDIR;
}

int local_symlink(struct p9_caller *c, struct p9_node *dir, const struct p9_tsymlink *m, struct p9_qid *out)
{
	char name[P9_NAMEMAX + 1], target[P9_TARGETMAX + 1];
	int rc = need_dir(dir);
	rc = rc < 0 ? rc : lident_enter_gid(c, m->gid);
	if (rc < 0) {
		return rc;
	}
	lname_copy(name, m->name);
	memcpy(target, m->symtgt.s, m->symtgt.len);
	target[m->symtgt.len] = 0;
	LRETRY(c, rc, symlinkat(target, LNODE(dir)->self->fd, name));
	lident_leave_gid(c, m->gid);
	return rc < 0 ? p9_err() : made(c, LNODE(dir)->self->fd, name, m->gid, out);
}

static int node_type(const struct lroot *r, uint32_t mode)
{
	switch (mode & S_IFMT) {
	case 0:
	case S_IFREG:
	case S_IFIFO:
	case S_IFSOCK:
		return 0;
	case S_IFCHR:
	case S_IFBLK:
		return r->conf.dev ? 0 : -P9_EPERM;
	case S_IFDIR:
		return -P9_EPERM;
	default:
		return -P9_EINVAL;
	}
}

int local_mknod(struct p9_caller *c, struct p9_node *dir, const struct p9_tmknod *m, struct p9_qid *out)
{
	char name[P9_NAMEMAX + 1];
	int rc = need_dir(dir);
	rc = rc < 0 ? rc : node_type(LROOT(dir), m->mode);
	rc = rc < 0 ? rc : lident_enter_gid(c, m->gid);
	if (rc < 0) {
		return rc;
	}
	lname_copy(name, m->name);
	LRETRY(c, rc, mknodat(LNODE(dir)->self->fd, name, m->mode & (S_IFMT | 07777), makedev(m->major, m->minor)));
	lident_leave_gid(c, m->gid);
	return rc < 0 ? p9_err() : made(c, LNODE(dir)->self->fd, name, m->gid, out);
}

int local_mkdir(struct p9_caller *c, struct p9_node *dir, const struct p9_tmkdir *m, struct p9_qid *out)
{
	char name[P9_NAMEMAX + 1];
	int rc = need_dir(dir);
	rc = rc < 0 ? rc : lident_enter_gid(c, m->gid);
	if (rc < 0) {
		return rc;
	}
	lname_copy(name, m->name);
	LRETRY(c, rc, mkdirat(LNODE(dir)->self->fd, name, m->mode & 07777));
	lident_leave_gid(c, m->gid);
	return rc < 0 ? p9_err() : made(c, LNODE(dir)->self->fd, name, m->gid, out);
}

int local_link(struct p9_caller *c, struct p9_node *dir, struct p9_node *n, struct p9_str to)
{
	char name[P9_NAMEMAX + 1], proc[40];
	int rc = need_dir(dir);
	rc = rc < 0 ? rc : lident_enter(c);
	if (rc < 0) {
		return rc;
	}
	if (S_ISDIR(LNODE(n)->type)) {
		return -P9_EPERM;
	}
	lname_copy(name, to);
	lproc_path(proc, LNODE(n)->self->fd);
	LRETRY(c, rc, linkat(AT_FDCWD, proc, LNODE(dir)->self->fd, name, AT_SYMLINK_FOLLOW));
	return rc < 0 ? p9_err() : 0;
}

int local_renameat(struct p9_caller *c, struct p9_node *from, struct p9_node *to, const struct p9_trenameat *m)
{
	char oldname[P9_NAMEMAX + 1], newname[P9_NAMEMAX + 1];
	int rc = need_dir(from) < 0 ? -P9_ENOTDIR : need_dir(to);
	rc = rc < 0 ? rc : lident_enter(c);
	if (rc < 0) {
		return rc;
	}
	lname_copy(oldname, m->oldname);
	lname_copy(newname, m->newname);
	LRETRY(c, rc, renameat(LNODE(from)->self->fd, oldname, LNODE(to)->self->fd, newname));
	return rc < 0 ? p9_err() : 0;
}

int local_unlinkat(struct p9_caller *c, struct p9_node *dir, struct p9_str what, uint32_t flags)
{
	char name[P9_NAMEMAX + 1];
	int rc = need_dir(dir);
	rc = rc < 0 ? rc : lident_enter(c);
	if (rc < 0) {
		return rc;
	}
	lname_copy(name, what);
	LRETRY(c, rc, unlinkat(LNODE(dir)->self->fd, name, flags & P9_DOTL_AT_REMOVEDIR ? AT_REMOVEDIR : 0));
	return rc < 0 ? p9_err() : 0;
}

/* Where the node was found, if it is there still: a counted directory and its name. */
static int find_entry(struct lnode *n, struct lfd **dir, char name[P9_NAMEMAX + 1])
{
	struct statx st;
	pthread_mutex_lock(&lnames_lock);
	*dir = n->parent ? lfd_get(n->parent) : NULL;
	snprintf(name, P9_NAMEMAX + 1, "%s", n->name);
	pthread_mutex_unlock(&lnames_lock);
	if (!*dir) {
		return n->ino == n->root->ino && n->minor == n->root->minor && n->major == n->root->major
			       ? -P9_EBUSY
			       : -P9_EOPNOTSUPP;
	}
	int rc = lstat_name((*dir)->fd, name, &st);
	bool same = rc == 0 && st.stx_ino == n->ino && st.stx_dev_major == n->major && st.stx_dev_minor == n->minor;
	if (!same) {
		lfd_put(*dir);
		return rc == 0 || rc == -P9_ENOENT ? -P9_ESTALE : rc;
	}
	return 0;
}

static int moved(struct lnode *n, struct lfd *dir, const char *name)
{
	char *copy = strdup(name);
	if (!copy) {
		return 0; /* moved all the same; a later Tremove of this fid answers ESTALE */
	}
	pthread_mutex_lock(&lnames_lock);
	struct lfd *old = n->parent;
	char *old_name = n->name;
	n->parent = lfd_get(dir);
	n->name = copy;
	pthread_mutex_unlock(&lnames_lock);
	lfd_put(old);
	if (old_name != n->inline_name) {
		free(old_name);
	}
	return 0;
}

int local_rename(struct p9_caller *c, struct p9_node *base, struct p9_node *to, struct p9_str newname)
{
	struct lnode *n = LNODE(base);
	char oldname[P9_NAMEMAX + 1], name[P9_NAMEMAX + 1];
	struct lfd *dir;
	int rc = need_dir(to);
	rc = rc < 0 ? rc : lident_enter(c);
	rc = rc < 0 ? rc : find_entry(n, &dir, oldname);
	if (rc < 0) {
		return rc;
	}
	lname_copy(name, newname);
	LRETRY(c, rc, renameat(dir->fd, oldname, LNODE(to)->self->fd, name));
	rc = rc < 0 ? p9_err() : moved(n, LNODE(to)->self, name);
	lfd_put(dir);
	return rc;
}

int local_remove(struct p9_caller *c, struct p9_node *base)
{
	struct lnode *n = LNODE(base);
	char name[P9_NAMEMAX + 1];
	struct lfd *dir;
	int rc = lident_enter(c);
	rc = rc < 0 ? rc : find_entry(n, &dir, name);
	if (rc < 0) {
		return rc;
	}
	LRETRY(c, rc, unlinkat(dir->fd, name, S_ISDIR(n->type) ? AT_REMOVEDIR : 0));
	rc = rc < 0 ? p9_err() : 0;
	lfd_put(dir);
	return rc;
}

int local_readlink(struct p9_caller *c, struct p9_node *n, char *buf, size_t cap)
{
	ssize_t len;
	int rc = lident_enter(c);
	if (rc < 0) {
		return rc;
	}
	if (!S_ISLNK(LNODE(n)->type)) {
		return -P9_EINVAL;
	}
	LRETRY(c, len, readlinkat(LNODE(n)->self->fd, "", buf, cap));
	return len < 0 ? p9_err() : (int)len;
}
