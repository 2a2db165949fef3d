/* SPDX-License-Identifier: BSD-2-Clause */
/* root.c - opens an exported directory, and the table of the backend's operations.
 *
 * With CAP_SYS_ADMIN the export is a detached clone of its mount (open_tree(2)): there ".." ends at the root, also for
 * a directory that somebody moved out of the export while we hold it; devices cannot be opened, setuid bits do not
 * count, read-only is the kernel's word, and links or renames between exports are EXDEV. Without the capability the
 * root is a plain descriptor and node.c checks the way up by itself.
 */
#include <linux/magic.h>
#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "backend/local/local.h"

int lprocfd = -1;

struct lfd *lfd_new(int fd)
{
	struct lfd *l = malloc(sizeof(*l));
	if (l) {
		atomic_init(&l->refs, 1);
		l->fd = fd;
		l->home = LFD_ALONE;
		p9_fd_count(1);
	}
	return l;
}

struct lfd *lfd_get(struct lfd *l)
{
	atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
	return l;
}

/* Returns the host's 0 or -1 of close(2) when it was the last reference. */
int lfd_put(struct lfd *l)
{
	if (!l || atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) != 1) {
		return 0;
	}
	int rc = p9_sys_close(l->fd);
	p9_fd_count(-1);
	if (l->home == LFD_ALONE) {
		free(l);
	} else {
		lnode_memory_put(lnode_around(l));
	}
	return rc;
}

void lproc_name(char buf[16], int fd)
{
	char *p = buf + 15;
	*p = 0;
	do {
		*--p = (char)('0' + fd % 10);
		fd /= 10;
	} while (fd);
	memmove(buf, p, (size_t)(buf + 16 - p));
}

void lproc_path(char buf[40], int fd)
{
	memcpy(buf, "/proc/self/fd/", 14);
	lproc_name(buf + 14, fd);
}

static int clone_mount(const struct p9_local_config *conf)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID };
	unsigned recursive = conf->submounts ? AT_RECURSIVE : 0;
	if (conf->ro) {
		attr.attr_set |= MOUNT_ATTR_RDONLY;
	}
	int fd = (int)syscall(SYS_open_tree, AT_FDCWD, conf->path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive);
	if (fd < 0 && recursive) {
		recursive = 0;
		fd = (int)syscall(SYS_open_tree, AT_FDCWD, conf->path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	}
	if (fd >= 0 && syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | recursive, &attr, sizeof(attr)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static bool pages_can_be_sent(int fd)
{
	static const long good[] = { EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC,
				     F2FS_SUPER_MAGIC };
	struct statfs fs;
	if (fstatfs(fd, &fs) < 0) {
		return false;
	}
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		if (fs.f_type == good[i]) {
			return true;
		}
	}
	return false;
}

bool lmagic_fs(int fd)
{
	struct statfs fs;
	return fstatfs(fd, &fs) == 0 && (fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC);
}

int lprocfd_open(char *err, size_t cap)
{
	if (lprocfd < 0 && (lprocfd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0) {
		snprintf(err, cap, "/proc/self/fd: %s; p9d needs /proc", p9_error_text((uint32_t)p9_hosterr(errno)));
		return p9_err();
	}
	return 0;
}

int lroot_new(const struct p9_local_config *conf, struct lfd *self, const struct statx *st, struct lroot **out)
{
	struct lroot *r = calloc(1, sizeof(*r));
	struct llocks *locks = llocks_new();
	if (!r || !locks) {
		llocks_free(locks);
		free(r);
		return -P9_ENOMEM;
	}
	r->conf = *conf;
	r->locks = locks;
	r->self = self;
	r->major = st->stx_dev_major;
	r->minor = st->stx_dev_minor;
	r->ino = st->stx_ino;
	r->sendable = pages_can_be_sent(self->fd);
	lqid_path(r->major, r->minor, r->ino); /* the first device keeps its inode numbers */
	*out = r;
	return 0;
}

int p9_local_open(const struct p9_local_config *conf, struct lroot **out, char *err, size_t cap)
{
	struct statx st = { 0 };
	int rc = lprocfd_open(err, cap);
	if (rc < 0) {
		return rc;
	}
	int fd = clone_mount(conf);
	bool cloned = fd >= 0;
	if (fd < 0) {
		fd = open(conf->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	}
	rc = fd < 0 ? p9_err() : lstat_fd(fd, &st);
	if (rc == 0 && !S_ISDIR(st.stx_mode)) {
		rc = -P9_ENOTDIR;
	}
	if (rc == 0 && lmagic_fs(fd)) {
		rc = -P9_EPERM;
	}
	struct lfd *self = rc == 0 ? lfd_new(fd) : NULL;
	rc = rc < 0 ? rc : !self ? -P9_ENOMEM : lroot_new(conf, self, &st, out);
	if (rc < 0) {
		snprintf(err, cap, "%s: %s (%s)%s", conf->path, p9_error_text((uint32_t)-rc),
			 p9_error_name((uint32_t)-rc), rc == -P9_EPERM ? "; procfs and sysfs are not exported" : "");
		if (self) {
			lfd_put(self);
		} else if (fd >= 0) {
			close(fd);
		}
		return rc;
	}
	(*out)->cloned = cloned;
	return 0;
}

void p9_local_close(struct lroot *root)
{
	if (root) {
		lfd_put(root->self);
		llocks_free(root->locks);
		free(root);
	}
}

bool p9_local_contained(const struct lroot *root)
{
	return root->cloned;
}

void p9_local_set_tree(struct lroot *root, void *tree)
{
	root->tree = tree;
}

int local_attach(struct p9_caller *c, void *arg, struct p9_node **out)
{
	struct lroot *r = arg;
	int rc = lident_enter(c);
	if (rc < 0) {
		return rc;
	}
	struct lnode *n = calloc(1, sizeof(*n));
	if (!n) {
		return -P9_ENOMEM;
	}
	atomic_init(&n->base.refs, 1);
	n->base.be = &p9_local;
	n->base.qtype = P9_QTDIR;
	n->base.tree = r->tree;
	n->root = r;
	n->self = lfd_get(r->self);
	n->name = n->inline_name;
	n->major = r->major;
	n->minor = r->minor;
	n->ino = r->ino;
	n->type = S_IFDIR;
	*out = &n->base;
	return 0;
}

int local_statfs(struct p9_caller *c, struct p9_node *n, struct p9_rstatfs *out)
{
	struct statfs fs;
	int rc = lident_enter(c);
	if (rc < 0) {
		return rc;
	}
	LRETRY(c, rc, fstatfs(LNODE(n)->self->fd, &fs));
	if (rc < 0) {
		return p9_err();
	}
	out->type = (uint32_t)fs.f_type;
	out->bsize = fs.f_bsize > 0 ? (uint32_t)fs.f_bsize : 4096;
	out->blocks = fs.f_blocks;
	out->bfree = fs.f_bfree;
	out->bavail = fs.f_bavail;
	out->files = fs.f_files;
	out->ffree = fs.f_ffree;
	memcpy(&out->fsid, &fs.f_fsid, sizeof(out->fsid));
	out->namelen = fs.f_namelen > 0 ? (uint32_t)fs.f_namelen : P9_NAMEMAX;
	return 0;
}

const struct p9_backend p9_local = {
	.name = "local",
	.attach = local_attach,
	.walk = local_walk,
	.getattr = local_getattr,
	.setattr = local_setattr,
	.statfs = local_statfs,
	.open = local_open,
	.create = local_create,
	.symlink = local_symlink,
	.mknod = local_mknod,
	.mkdir = local_mkdir,
	.link = local_link,
	.rename = local_rename,
	.renameat = local_renameat,
	.unlinkat = local_unlinkat,
	.remove = local_remove,
	.readlink = local_readlink,
	.getxattr = local_getxattr,
	.setxattr = local_setxattr,
	.readdir = local_readdir,
	.read = local_read,
	.write = local_write,
	.ready = local_ready,
	.fsync = local_fsync,
	.lock = local_lock,
	.getlock = local_getlock,
	.unlock_fid = local_unlock_fid,
	.close = local_close,
	.free_node = local_free_node,
	.pack_node = local_pack_node,
	.unpack_node = local_unpack_node,
	.pack_file = local_pack_file,
	.unpack_file = local_unpack_file,
	.pack_locks = llocks_pack,
	.unpack_locks = llocks_unpack,
};
