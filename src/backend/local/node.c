/* SPDX-License-Identifier: BSD-2-Clause */
/* node.c - reaching files: one element at a time, O_PATH and O_NOFOLLOW, so nothing is opened and nothing followed.
 *
 * Called for Twalk. A node pins its inode; parent and name are kept only so that Tremove and Trename, which name a fid
 * and not an entry, can find the entry again, and they check it before they believe it (tree.c).
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "backend/local/local.h"
#include "base/block.h"

#define PATH_FLAGS (O_PATH | O_NOFOLLOW | O_CLOEXEC)
#define STAT_WANTED (STATX_TYPE | STATX_MODE | STATX_INO | STATX_MTIME | STATX_CTIME | STATX_SIZE)
#define UP_MAX 4096 /* levels that the way up may have when it is checked by hand */

pthread_mutex_t lnames_lock = PTHREAD_MUTEX_INITIALIZER;

int lstat_fd(int fd, struct statx *st)
{
	int rc;
	do { /* what was made is made: a flush does not undo it */
		rc = statx(fd, "", AT_EMPTY_PATH | AT_STATX_SYNC_AS_STAT, STAT_WANTED, st);
	} while (rc < 0 && errno == EINTR);
	return rc < 0 ? p9_err() : 0;
}

int lstat_name(int dirfd, const char *name, struct statx *st)
{
	int rc;
	do {
		rc = statx(dirfd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STAT_WANTED, st);
	} while (rc < 0 && errno == EINTR);
	return rc < 0 ? p9_err() : 0;
}

void lname_copy(char buf[P9_NAMEMAX + 1], struct p9_str s)
{
	memcpy(buf, s.s, s.len);
	buf[s.len] = 0;
}

static struct lnode *node_memory(unsigned namelen)
{
	size_t size = sizeof(struct lnode) + namelen + 1u;
	struct lnode *n = size <= P9_BLOCK ? p9_block_get() : malloc(size);
	if (n) {
		n->block = size <= P9_BLOCK;
	}
	return n;
}

void lnode_memory_put(struct lnode *n)
{
	if (n->block) {
		p9_block_put(n);
	} else {
		free(n);
	}
}

/* As lfd_new, with room for a node of that name, which lnode_new will use. */
static struct lfd *roomy_fd(int fd, unsigned namelen)
{
	struct lnode *n = node_memory(namelen);
	if (!n) {
		return NULL;
	}
	atomic_init(&n->own.refs, 1);
	n->own.fd = fd;
	n->own.home = LFD_ROOM;
	p9_fd_count(1);
	return &n->own;
}

int lnode_new(struct lnode *from, struct lfd *self, const struct statx *st, struct p9_str name, struct lnode **out)
{
	bool room = self->home == LFD_ROOM;
	struct lnode *n = room ? lnode_around(self) : node_memory(name.len);
	if (!n) {
		return -P9_ENOMEM;
	}
	if (room) {
		self->home = LFD_NODE;
	}
	atomic_init(&n->base.refs, 1);
	n->base.be = &p9_local;
	n->base.qtype = lqid_type(st->stx_mode);
	n->root = from->root;
	n->base.portal = false;
	n->base.volume = lqid_volume(n->root, st);
	n->base.tree = from->base.tree;
	n->self = self;
	n->parent = NULL;
	n->name = n->inline_name;
	lname_copy(n->name, name);
	n->major = st->stx_dev_major;
	n->minor = st->stx_dev_minor;
	n->ino = st->stx_ino;
	n->type = st->stx_mode & S_IFMT;
	n->shared_fd = false;
	*out = n;
	return 0;
}

void local_free_node(struct p9_node *base)
{
	struct lnode *n = LNODE(base);
	bool together = n->self == &n->own;
	lfd_put(n->parent);
	if (n->name != n->inline_name) {
		free(n->name);
	}
	lfd_put(n->self);
	if (!together) {
		lnode_memory_put(n);
	}
}

static bool is_root(const struct lroot *r, const struct statx *st)
{
	return st->stx_ino == r->ino && st->stx_dev_minor == r->minor && st->stx_dev_major == r->major;
}

/* Without a mount of our own: climbs from fd until the root is met. A directory that was moved out of the export never
 * meets it. */
static int check_below(const struct lroot *r, int fd)
{
	struct statx st = { 0 }, last = { 0 };
	int rc = 0, at = dup(fd);
	for (int i = 0; rc == 0; i++) {
		rc = at < 0 ? p9_err() : lstat_fd(at, &st);
		if (rc < 0 || is_root(r, &st)) {
			break;
		}
		bool top = i > 0 && st.stx_ino == last.stx_ino && st.stx_dev_minor == last.stx_dev_minor &&
			   st.stx_dev_major == last.stx_dev_major;
		if (top || i == UP_MAX) {
			rc = -P9_ENOENT; /* the host's root, or too far from ours to believe it */
			break;
		}
		last = st;
		int up = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		close(at);
		at = up;
	}
	if (at >= 0) {
		close(at);
	}
	return rc;
}

static int step_up(struct p9_caller *c, const struct lroot *r, int dirfd)
{
	int fd;
	LRETRY(c, fd, openat(dirfd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC));
	if (fd < 0) {
		return p9_err();
	}
	int rc = r->cloned ? 0 : check_below(r, fd);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	return fd;
}

struct walk {
	struct lfd *dir; /* where we are, counted */
	struct lfd *parent;
	struct statx st;
};

/* One element. Returns 0 with w moved, or an error with w as it was. The last of a walk gets room for its node. */
static int step(struct p9_caller *c, const struct lroot *r, struct walk *w, struct p9_str name, bool last)
{
	char buf[P9_NAMEMAX + 1];
	struct statx st;
	bool up = name.len == 2 && name.s[0] == '.' && name.s[1] == '.';
	int fd;
	if (up && is_root(r, &w->st)) {
		return 0; /* the root is its own parent */
	}
	if (up) {
		fd = step_up(c, r, w->dir->fd);
	} else {
		lname_copy(buf, name);
		LRETRY(c, fd, p9_sys_openat(w->dir->fd, buf, PATH_FLAGS, 0));
		fd = fd < 0 ? p9_err() : fd;
	}
	if (fd < 0) {
		return fd;
	}
	int rc = lstat_fd(fd, &st);
	if (rc == 0 && lother_fs(&st, w->st.stx_dev_major, w->st.stx_dev_minor) && lmagic_fs(fd)) {
		rc = -P9_EACCES;
	}
	struct lfd *l = rc < 0 ? NULL : last ? roomy_fd(fd, name.len) : lfd_new(fd);
	if (!l) {
		close(fd);
		return rc < 0 ? rc : -P9_ENOMEM;
	}
	lfd_put(w->parent);
	w->parent = w->dir;
	if (up) {
		lfd_put(w->parent);
		w->parent = NULL;
	}
	w->dir = l;
	w->st = st;
	return 0;
}

static int finish(struct lnode *from, struct walk *w, struct p9_str name, struct p9_node **out)
{
	struct lnode *n;
	bool found = w->parent != NULL;
	int rc = lnode_new(from, w->dir, &w->st, found ? name : (struct p9_str){ "", 0 }, &n);
	if (rc < 0) {
		return rc;
	}
	n->parent = w->parent;
	w->dir = w->parent = NULL;
	*out = &n->base;
	return 0;
}

/* A clone of a fid whose descriptor is an open file (Tlcreate) gets one of its own, so that clunk still closes. */
static int clone_node(struct p9_caller *c, struct lnode *n, struct p9_node **out)
{
	char proc[16];
	struct statx st;
	int fd;
	lproc_name(proc, n->self->fd);
	LRETRY(c, fd, openat(lprocfd, proc, O_PATH | O_CLOEXEC));
	if (fd < 0) {
		return p9_err();
	}
	int rc = lstat_fd(fd, &st);
	struct lfd *self = rc < 0 ? NULL : lfd_new(fd);
	if (!self) {
		close(fd);
		return rc < 0 ? rc : -P9_ENOMEM;
	}
	struct lnode *copy;
	pthread_mutex_lock(&lnames_lock);
	rc = lnode_new(n, self, &st, (struct p9_str){ n->name, (uint16_t)strlen(n->name) }, &copy);
	if (rc == 0) {
		copy->parent = n->parent ? lfd_get(n->parent) : NULL;
		*out = &copy->base;
	}
	pthread_mutex_unlock(&lnames_lock);
	if (rc < 0) {
		lfd_put(self);
	}
	return rc;
}

int local_walk(struct p9_caller *c, struct p9_node *base, const struct p9_strs *names, struct p9_qids *qids,
	       struct p9_node **out)
{
	struct lnode *n = LNODE(base);
	int rc = lident_enter(c);
	*out = NULL;
	qids->n = 0;
	if (rc < 0) {
		return rc;
	}
	if (names->n == 0) {
		if (n->shared_fd) {
			return clone_node(c, n, out);
		}
		*out = p9_node_get(base);
		return 0;
	}
	struct walk w = { .dir = lfd_get(n->self) };
	w.st.stx_dev_major = n->major;
	w.st.stx_dev_minor = n->minor;
	w.st.stx_ino = n->ino;
	w.st.stx_mode = (uint16_t)n->type;
	if (names->v[0].len == 2 && memcmp(names->v[0].s, "..", 2) == 0) {
		rc = lstat_fd(n->self->fd, &w.st); /* its qid may be answered */
	}
	if (rc == 0 && n->type != S_IFDIR) {
		rc = -P9_ENOTDIR;
	}
	for (unsigned i = 0; rc == 0 && i < names->n; i++) {
		rc = step(c, n->root, &w, names->v[i], i + 1u == names->n);
		if (rc == 0) {
			qids->v[qids->n++] = lqid_of(&w.st);
		}
	}
	if (rc == 0) {
		rc = finish(n, &w, names->v[names->n - 1], out);
	}
	lfd_put(w.dir);
	lfd_put(w.parent);
	bool ours = rc == -P9_EMFILE || rc == -P9_ENFILE || rc == -P9_ENOMEM || rc == -P9_EIO;
	/* a name that is not there makes a partial walk; a shortage of ours must not look like that */
	return rc < 0 && !ours && qids->n > 0 && qids->n < names->n ? 0 : rc;
}
