/* SPDX-License-Identifier: BSD-2-Clause */
/* copy_link.c - hard links stay hard links (--links).
 *
 * The first node with a file that has several links copies it; others with the same file wait until it is there and
 * then link to it. They find it by its path below the target, walked name by name and never through a link. When the
 * first could not be copied the next takes its place. What was copied is forgotten when all of its links were seen.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/copy.h"

struct p9_linked {
	struct p9_linked *chain;
	uint64_t dev, ino, left; /* links that were not seen yet */
	char *path;		 /* of the copy, below the target; NULL while it is being made, or failed */
	bool busy;
	struct p9_node *waiting;
};

enum { BUCKETS = 4096 };

static struct p9_linked **bucket(struct p9_copy *c, const struct p9_meta *m)
{
	uint64_t h = (m->ino ^ m->dev << 40) * 0x9e3779b97f4a7c15u;
	return &c->linked[h >> 52];
}

static struct p9_linked **find(struct p9_copy *c, const struct p9_meta *m)
{
	struct p9_linked **p = bucket(c, m);
	while (*p && ((*p)->ino != m->ino || (*p)->dev != m->dev)) {
		p = &(*p)->chain;
	}
	return p;
}

static void forget(struct p9_linked **p)
{
	struct p9_linked *e = *p;
	*p = e->chain;
	free(e->path);
	free(e);
}

void p9_link_fini(struct p9_copy *c)
{
	for (size_t i = 0; c->linked && i < BUCKETS; i++) {
		while (c->linked[i]) {
			forget(&c->linked[i]);
		}
	}
	free(c->linked);
	c->linked = NULL;
}

/* Names below the target, slashes between them. */
static char *relative(const struct p9_node *n)
{
	char *path = n->to ? strdup(n->to) : NULL;
	for (const struct p9_dir *d = n->dir; d && path; d = d->parent) {
		const struct p9_node *up = d->data;
		char *more = up->to ? p9_path_join(up->to, path) : strdup(path);
		free(path);
		path = more;
	}
	return path;
}

/* ---- here ---- */
static int parent_here(const struct p9_copy *c, char *path, char **base)
{
	int fd = openat(c->into.fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char *slash;
	for (*base = path; fd >= 0 && (slash = strchr(*base, '/')); *base = slash + 1) {
		*slash = 0;
		int below = openat(fd, *base, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(fd);
		fd = below;
	}
	return fd;
}

static int link_here(struct p9_node *n, const char *to_path)
{
	char *path = strdup(to_path), *base;
	int dir = p9_dst_dir(n)->fd, rc = path ? 0 : -P9_ENOMEM;
	int fd = path ? parent_here(n->copy, path, &base) : -1;
	if (rc == 0 && (fd < 0 || linkat(fd, base, dir, n->to, 0) < 0)) {
		rc = -p9_hosterr(errno);
	}
	struct stat a, b;
	bool same = rc == -P9_EEXIST && fstatat(fd, base, &a, AT_SYMLINK_NOFOLLOW) == 0 &&
		    fstatat(dir, n->to, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
	if (same) {
		rc = 0;
	} else if (rc == -P9_EEXIST && unlinkat(dir, n->to, 0) == 0) {
		rc = linkat(fd, base, dir, n->to, 0) < 0 ? -p9_hosterr(errno) : 0;
	}
	if (fd >= 0) {
		close(fd);
	}
	free(path);
	return rc;
}

/* ---- on the server ---- */
enum { AT_WALK = 1, AT_LINK, AT_UNLINK, AT_RELINK };

/* The next names of the path, as many as a Twalk takes; n->pipe.next counts the bytes that were walked. */
static int send_walk(struct p9_node *n, const char *path)
{
	struct p9_msg t = { .type = P9_Twalk };
	const char *p = path + n->pipe.next;
	size_t room = p9_client_msize(n->copy->client) - 64;
	bool first = n->dst.fid == P9_NOFID;
	int rc = first ? p9_client_fid(n->copy->client, &n->dst.fid) : 0;
	t.twalk.fid = first ? n->copy->into.fid : n->dst.fid;
	t.twalk.newfid = n->dst.fid;
	while (*p && t.twalk.wname.n < P9_MAXWELEM) {
		size_t len = strcspn(p, "/");
		if (len + 2 > room) {
			break;
		}
		room -= len + 2;
		t.twalk.wname.v[t.twalk.wname.n++] = (struct p9_str){ p, (uint16_t)len };
		p += len + (p[len] == '/');
	}
	n->pipe.next = (uint64_t)(p - path);
	n->pipe.moved = t.twalk.wname.n; /* that many must be reached */
	n->sub = AT_WALK;
	return rc < 0 ? rc : p9_node_send(n, &t, NULL);
}

static int send_link(struct p9_node *n, unsigned state)
{
	struct p9_msg t = { .type = P9_Tlink,
			    .tlink = { .dfid = p9_dst_dir(n)->fid, .fid = n->dst.fid, .name = p9_node_str(n->to) } };
	n->sub = state;
	return p9_node_send(n, &t, NULL);
}

static int send_unlink(struct p9_node *n)
{
	struct p9_msg t = { .type = P9_Tunlinkat,
			    .tunlinkat = { .dirfid = p9_dst_dir(n)->fid, .name = p9_node_str(n->to) } };
	n->sub = AT_UNLINK;
	return p9_node_send(n, &t, NULL);
}

static int link_there(struct p9_node *n, const struct p9_msg *r, const char *path)
{
	int rc = r ? p9_reply_rc(r) : 0;
	if (!r) {
		return send_walk(n, path);
	}
	if (n->sub == AT_WALK && rc < 0) {
		n->dst.fid = P9_NOFID;
		return rc;
	}
	if (n->sub == AT_WALK && r->rwalk.wqid.n < n->pipe.moved) {
		return -P9_ENOENT; /* the fid is clunked in the end */
	}
	if (n->sub == AT_LINK && rc == -P9_EEXIST) {
		return send_unlink(n);
	}
	if (rc < 0) {
		return rc;
	}
	if (n->sub == AT_WALK) {
		return path[n->pipe.next] ? send_walk(n, path) : send_link(n, AT_LINK);
	}
	return n->sub == AT_UNLINK ? send_link(n, AT_RELINK) : P9_ON;
}

/* ---- phases ---- */
static int claim(struct p9_node *n, struct p9_linked **p)
{
	struct p9_linked *e = *p ? *p : calloc(1, sizeof(*e));
	if (!e) {
		return -P9_ENOMEM;
	}
	if (!*p) {
		*e = (struct p9_linked){ .dev = n->st.dev, .ino = n->st.ino, .left = n->st.nlink };
		*p = e;
	}
	e->busy = true;
	n->linked = e;
	return P9_ON;
}

static void seen(struct p9_linked **p)
{
	if (*p && --(*p)->left == 0 && !(*p)->waiting) {
		forget(p);
	}
}

/* A link was made, or the file must be copied after all: across file systems, say, or beyond the number of links. */
static int linked(struct p9_node *n, int rc, struct p9_linked **p)
{
	static p9_phase *const nothing[] = { NULL };
	bool copy = rc == -P9_EXDEV || rc == -P9_EMLINK || rc == -P9_EPERM || rc == -P9_EOPNOTSUPP;
	if (rc == P9_WAIT || (rc < 0 && !copy)) {
		return rc;
	}
	seen(p);
	if (rc == 0) {
		return p9_node_jump(n, nothing);
	}
	if (n->dst.fid != P9_NOFID) {
		struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = n->dst.fid } };
		n->dst.fid = P9_NOFID;
		n->sub = AT_RELINK + 1; /* its reply goes on */
		return p9_node_send(n, &t, NULL);
	}
	return P9_ON;
}

int p9_link_claim(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_copy *c = n->copy;
	if (!c->opts.links || n->st.nlink < 2 || (r && n->sub > AT_RELINK)) {
		return P9_ON;
	}
	c->linked = c->linked ? c->linked : calloc(BUCKETS, sizeof(struct p9_linked *));
	if (!c->linked) {
		return -P9_ENOMEM;
	}
	struct p9_linked **p = find(c, &n->st);
	if (*p && (*p)->busy) {
		n->wait_next = (*p)->waiting;
		(*p)->waiting = n;
		n->waiting = true;
		return P9_WAIT;
	}
	if (!*p || !(*p)->path) {
		return claim(n, p);
	}
	int rc = c->to_here ? link_here(n, (*p)->path) : link_there(n, r, (*p)->path);
	if (rc != P9_WAIT) {
		n->pipe.next = n->pipe.moved = 0;
	}
	return linked(n, rc, p);
}

/* The first is through: others go on, from the pump. */
int p9_link_settle(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_copy *c = n->copy;
	struct p9_linked *e = n->linked;
	if (!e) {
		return P9_ON;
	}
	n->linked = NULL;
	e->busy = false;
	e->path = n->made && !n->error ? relative(n) : NULL;
	while (e->waiting) {
		struct p9_node *w = e->waiting;
		e->waiting = w->wait_next;
		w->wait_next = c->ready;
		c->ready = w;
	}
	seen(find(c, &n->st));
	return P9_ON;
}
