/* SPDX-License-Identifier: BSD-2-Clause */
/* fs_copy.c - copies of files and trees between two ends (fs_end.h), each a server or this host.
 *
 * A stack of pairs of directories, deepest last. Files go one after the other, the bytes of each with as many requests
 * in flight as the link needs. Files and directories are made private and get their mode, owner and times when all is in
 * them. Must stay true: depth costs heap, never C stack; whatever fails, nothing half copied keeps its name.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <errno.h>
#include "base/hosterr.h"
#include "client/fs_end.h"

#define LOCAL_BLOCK (256u * 1024)

struct pair { /* a directory on both sides */
	uint32_t from, to;
	void *listing;
	size_t path;
	char name[P9_NAMEMAX + 1];
	struct p9_rgetattr st;
	bool made;
};

struct copy {
	struct p9_end from, to;
	unsigned flags;
	struct p9_copied *stats;
	struct pair *v;
	unsigned n, cap;
	char *path;
	size_t path_cap;
	int first;
	bool stop;
	struct p9_qid top; /* of the copy, when it is a directory: it is not copied into itself */
};

static int set_path(struct copy *k, size_t at, const char *name)
{
	size_t n = strlen(name);
	if (at + n + 2 > k->path_cap) {
		size_t cap = 2 * (at + n + 2);
		char *more = realloc(k->path, cap);
		if (!more) {
			return -P9_ENOMEM;
		}
		k->path = more;
		k->path_cap = cap;
	}
	if (at > 0 && k->path[at - 1] != '/') {
		k->path[at++] = '/';
	}
	memcpy(k->path + at, name, n + 1);
	return 0;
}

static bool dead(const struct copy *k)
{
	return (k->from.client && p9_client_dead(k->from.client)) || (k->to.client && p9_client_dead(k->to.client));
}

static const char *text_of(struct copy *k, int rc)
{
	struct p9_client *c = k->from.client && p9_client_dead(k->from.client) ? k->from.client : k->to.client;
	if (c && p9_client_dead(c)) {
		return p9_client_error(c);
	}
	return rc < 0 ? p9_error_text((uint32_t)-rc) : "";
}

/* An entry is through. */
static void through(struct copy *k, int rc)
{
	k->first = k->first < 0 ? k->first : rc < 0 ? rc : 0;
	if (k->stats->each) {
		int stop = k->stats->each(k->stats->arg, k->path, rc < 0 ? rc : 0, text_of(k, rc));
		k->first = k->first < 0 || stop >= 0 ? k->first : stop;
		k->stop |= stop < 0;
	}
	k->stop |= (rc < 0 && !k->stats->each) || dead(k);
}

/* ---- the bytes of one file ---- */
struct job {
	struct copy *copy;
	struct p9_end_file from, to;
	uint64_t end; /* of what was written, or left as a hole */
};

static bool all_zeros(const uint8_t *p, size_t n)
{
	return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

static int write_local(int fd, const uint8_t *p, size_t n, uint64_t offset)
{
	while (n > 0) {
		ssize_t k = pwrite(fd, p, n, (off_t)offset);
		if (k < 0 && errno != EINTR) {
			return -p9_hosterr(errno);
		}
		p += k < 0 ? 0 : k;
		n -= k < 0 ? 0 : (size_t)k;
		offset += k < 0 ? 0 : (uint64_t)k;
	}
	return 0;
}

/* Takes bytes that were read. */
static int take(void *arg, uint64_t offset, uint8_t *buf, uint32_t n)
{
	struct job *j = arg;
	ssize_t rc = 0;
	j->end = offset + n;
	if ((j->copy->flags & P9_COPY_SPARSE) && all_zeros(buf, n)) {
		return 0;
	}
	if (j->copy->to.client) {
		rc = p9_pwrite(j->to.fh, buf, n, offset);
	} else {
		rc = write_local(j->to.fd, buf, n, offset);
	}
	return rc < 0 ? (int)rc : 0;
}

/* Gives bytes of this host's file. */
static int give(void *arg, uint64_t offset, uint8_t *buf, uint32_t n)
{
	struct job *j = arg;
	ssize_t k;
	do {
		k = pread(j->from.fd, buf, n, (off_t)offset);
	} while (k < 0 && errno == EINTR);
	j->end = k > 0 ? offset + (uint64_t)k : j->end;
	return k < 0 ? -p9_hosterr(errno) : (int)k;
}

static int from_here(struct job *j)
{
	uint8_t *buf = malloc(LOCAL_BLOCK);
	int n = buf ? 1 : -P9_ENOMEM;
	while (n > 0) {
		n = give(j, j->end, buf, LOCAL_BLOCK);
		int rc = n > 0 ? take(j, j->end - (uint64_t)n, buf, (uint32_t)n) : 0;
		n = rc < 0 ? rc : n;
	}
	free(buf);
	return n;
}

static int move_bytes(struct job *j, uint64_t size)
{
	bool in_flight = j->copy->to.client && !(j->copy->flags & P9_COPY_SPARSE);
	struct p9_stream s = { .size = size, .arg = j };
	if (j->copy->from.client) {
		s.file = j->from.fh;
		s.data = take;
		return p9_fs_stream(&s);
	}
	if (!in_flight) {
		return from_here(j);
	}
	s.file = j->to.fh;
	s.writing = true;
	s.data = give;
	return p9_fs_stream(&s);
}

/* A hole at the end is made by the length. */
static int set_length(struct job *j)
{
	if (!(j->copy->flags & P9_COPY_SPARSE)) {
		return 0;
	}
	if (j->copy->to.client) {
		return p9_ftruncate(j->to.fh, j->end);
	}
	return ftruncate(j->to.fd, (off_t)j->end) < 0 ? -p9_hosterr(errno) : 0;
}

static int set_attributes(struct copy *k, uint32_t dir, const char *name, const struct p9_rgetattr *st)
{
	bool link = S_ISLNK(st->mode), owner = k->flags & P9_COPY_OWNER;
	struct p9_tsetattr set = { .mode = st->mode & (owner ? 07777 : 0777), .uid = st->uid, .gid = st->gid };
	set.atime_sec = st->atime_sec;
	set.atime_nsec = st->atime_nsec;
	set.mtime_sec = st->mtime_sec;
	set.mtime_nsec = st->mtime_nsec;
	/* the owner first: changing it takes set-id bits away */
	set.valid = owner ? P9_SETATTR_UID | P9_SETATTR_GID : 0;
	int rc = set.valid ? k->to.ops->set(&k->to, dir, name, &set) : 0;
	set.valid = S_ISREG(st->mode) || S_ISDIR(st->mode) ? P9_SETATTR_MODE : 0;
	rc = rc >= 0 && set.valid ? k->to.ops->set(&k->to, dir, name, &set) : rc;
	set.valid = P9_SETATTR_ATIME | P9_SETATTR_ATIME_SET | P9_SETATTR_MTIME | P9_SETATTR_MTIME_SET;
	rc = rc >= 0 && (k->flags & P9_COPY_TIMES) ? k->to.ops->set(&k->to, dir, name, &set) : rc;
	return link && rc == -P9_EOPNOTSUPP ? 0 : rc; /* servers that cannot set a link's own */
}

/* ---- one entry ---- */
struct spot { /* an entry on both sides */
	uint32_t from, to;
	const char *from_name, *to_name;
};

static int copy_file(struct copy *k, const struct spot *at, const struct p9_rgetattr *st)
{
	struct job j = { .copy = k, .from = { NULL, -1 }, .to = { NULL, -1 } };
	int rc = k->from.ops->open(&k->from, at->from, at->from_name, &j.from);
	if (rc < 0) {
		return rc;
	}
	rc = k->to.ops->create(&k->to, at->to, at->to_name, k->flags & P9_COPY_REPLACE, &j.to);
	if (rc < 0) {
		k->from.ops->close(&k->from, &j.from);
		return rc;
	}
	rc = move_bytes(&j, st->size);
	rc = rc < 0 ? rc : set_length(&j);
	k->from.ops->close(&k->from, &j.from);
	int end = k->to.ops->close(&k->to, &j.to);
	rc = rc < 0 ? rc : end < 0 ? end : set_attributes(k, at->to, at->to_name, st);
	if (rc < 0 && !dead(k)) {
		k->to.ops->unlink(&k->to, at->to, at->to_name);
	}
	k->stats->files += rc >= 0;
	k->stats->bytes += rc >= 0 ? j.end : 0;
	return rc;
}

static int make_link_or_node(struct copy *k, const struct spot *at, const struct p9_rgetattr *st)
{
	char target[P9_TARGETMAX + 1];
	if (!S_ISLNK(st->mode)) {
		return k->to.ops->mknod(&k->to, at->to, at->to_name, st);
	}
	int rc = k->from.ops->readlink(&k->from, at->from, at->from_name, target);
	return rc < 0 ? rc : k->to.ops->symlink(&k->to, at->to, at->to_name, target);
}

static int copy_other(struct copy *k, const struct spot *at, const struct p9_rgetattr *st)
{
	int rc = make_link_or_node(k, at, st);
	if (rc == -P9_EEXIST && (k->flags & P9_COPY_REPLACE)) {
		rc = k->to.ops->unlink(&k->to, at->to, at->to_name);
		rc = rc < 0 ? rc : make_link_or_node(k, at, st);
	}
	rc = rc < 0 ? rc : set_attributes(k, at->to, at->to_name, st);
	k->stats->links += rc >= 0 && S_ISLNK(st->mode);
	k->stats->others += rc >= 0 && !S_ISLNK(st->mode);
	return rc;
}

static struct pair *room_for_pair(struct copy *k)
{
	if (k->n == k->cap) {
		unsigned cap = k->cap ? 2 * k->cap : 16;
		struct pair *more = realloc(k->v, cap * sizeof(*more));
		if (!more) {
			return NULL;
		}
		k->v = more;
		k->cap = cap;
	}
	return &k->v[k->n];
}

static bool same_file(const struct copy *k, const struct p9_qid *a, const struct p9_qid *b)
{
	bool version = k->from.client || a->version == b->version; /* of this host: the device */
	return k->from.client == k->to.client && a->path == b->path && version;
}

/* Goes into a directory on both sides. */
static int enter(struct copy *k, const struct spot *at, const struct p9_rgetattr *st)
{
	if (k->n == P9_TREE_DEPTH) {
		return -P9_ELOOP;
	}
	if (k->n > 0 && same_file(k, &k->top, &st->qid)) {
		return -P9_EINVAL;
	}
	struct pair *p = room_for_pair(k);
	int rc = p ? k->to.ops->mkdir(&k->to, at->to, at->to_name, 0700) : -P9_ENOMEM;
	if (rc < 0 && rc != -P9_EEXIST) {
		return rc;
	}
	*p = (struct pair){ .made = rc >= 0, .st = *st, .path = strlen(k->path) };
	memcpy(p->name, at->to_name, strlen(at->to_name) + 1);
	struct p9_rgetattr made = { 0 };
	rc = k->n == 0 ? k->to.ops->look(&k->to, at->to, at->to_name, &made) : 0;
	k->top = k->n == 0 ? made.qid : k->top;
	rc = rc < 0 ? rc : k->to.ops->enter(&k->to, at->to, at->to_name, &p->to);
	if (rc < 0) {
		return rc;
	}
	rc = k->from.ops->enter(&k->from, at->from, at->from_name, &p->from);
	if (rc < 0) {
		k->to.ops->leave(&k->to, p->to);
		return rc;
	}
	rc = k->from.ops->list(&k->from, p->from, &p->listing);
	if (rc < 0) {
		k->from.ops->leave(&k->from, p->from);
		k->to.ops->leave(&k->to, p->to);
		return rc;
	}
	k->n++;
	return 0;
}

static void copy_entry(struct copy *k, const struct spot *at)
{
	struct p9_rgetattr st;
	int rc = k->from.ops->look(&k->from, at->from, at->from_name, &st);
	if (rc >= 0 && S_ISDIR(st.mode)) {
		rc = enter(k, at, &st);
		if (rc >= 0) {
			return; /* it is through when it is left */
		}
	} else if (rc >= 0) {
		rc = S_ISREG(st.mode) ? copy_file(k, at, &st) : copy_other(k, at, &st);
	}
	through(k, rc);
}

static void pop(struct copy *k)
{
	struct pair *p = &k->v[--k->n];
	k->from.ops->unlist(&k->from, p->listing);
	k->from.ops->leave(&k->from, p->from);
	k->to.ops->leave(&k->to, p->to);
}

/* The directory on top is through, with or without an error of its listing. `up` is where its copy is. */
static void leave(struct copy *k, uint32_t up, int rc)
{
	struct pair p = k->v[k->n - 1];
	pop(k);
	k->path[p.path] = 0;
	rc = rc >= 0 && p.made ? set_attributes(k, k->n ? k->v[k->n - 1].to : up, p.name, &p.st) : rc;
	k->stats->directories += rc >= 0;
	through(k, rc);
}

static void copy_below(struct copy *k, uint32_t up)
{
	char name[P9_NAMEMAX + 1];
	while (k->n > 0 && !k->stop) {
		struct pair *p = &k->v[k->n - 1];
		int rc = k->from.ops->next(&k->from, p->listing, name);
		rc = rc > 0 && set_path(k, p->path, name) < 0 ? -P9_ENOMEM : rc;
		if (rc > 0) {
			copy_entry(k, &(struct spot){ p->from, p->to, name, name });
		} else {
			leave(k, up, rc);
		}
	}
	while (k->n > 0) {
		pop(k);
	}
}

static int run(struct copy *k, const char *from, const char *to)
{
	char from_name[P9_NAMEMAX + 1], to_name[P9_NAMEMAX + 1];
	struct spot at = { .from_name = from_name, .to_name = to_name };
	int rc = set_path(k, 0, from);
	rc = rc < 0 ? rc : k->from.ops->root(&k->from, from, &at.from, from_name);
	if (rc < 0) {
		return rc;
	}
	rc = k->to.ops->root(&k->to, to, &at.to, to_name);
	if (rc >= 0) {
		copy_entry(k, &at);
		copy_below(k, at.to);
		k->to.ops->leave(&k->to, at.to);
	}
	k->from.ops->leave(&k->from, at.from);
	return rc < 0 ? rc : k->first;
}

static struct p9_end end_of(const struct p9_place *p)
{
	return (struct p9_end){ p->client ? &p9_end_remote : &p9_end_local, p->client };
}

int p9_copy_tree(const struct p9_place *from, const struct p9_place *to, unsigned flags, struct p9_copied *stats)
{
	struct p9_copied mine = { 0 };
	struct copy k = { .from = end_of(from), .to = end_of(to), .flags = flags, .stats = stats ? stats : &mine };
	struct p9_client *tell = to->client ? to->client : from->client;
	int rc = run(&k, from->path, to->path);
	free(k.v);
	free(k.path);
	return rc < 0 && tell && !dead(&k) ? p9_client_set_error(tell, rc) : rc;
}
