/* SPDX-License-Identifier: BSD-2-Clause */
/* lock.c - byte-range locks that are real: held in the kernel, as open-file-description locks (fcntl(2), F_OFD_SETLK).
 *
 * An owner is (session, proc_id, client_id). Each owner has, per inode it holds locks on, one descriptor of its own:
 * two fids of one owner therefore never conflict, two owners always do, and processes of the host take part. Which
 * ranges an owner holds is kept here too, with the fid through which each was taken, so that a clunk releases what the
 * fid brought and Tgetlock can name the holder.
 * One mutex per export: these calls are rare and never wait for a lock. Waiting is the server's business (op_lock.c).
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "backend/local/local.h"
#include "backend/local/locks.h"

#define LOCKS_ALWAYS 16u /* ranges that a session may hold even when descriptors are short */

struct llocks *llocks_new(void)
{
	struct llocks *l = calloc(1, sizeof(*l));
	if (l) {
		pthread_mutex_init(&l->mutex, NULL);
	}
	return l;
}

struct inode **llocks_find(struct llocks *l, uint32_t major, uint32_t minor, uint64_t ino)
{
	struct inode **p = &l->table[(ino ^ ino >> 8 ^ minor) % BUCKETS];
	while (*p && ((*p)->ino != ino || (*p)->minor != minor || (*p)->major != major)) {
		p = &(*p)->next;
	}
	return p;
}

static struct inode **find_inode(const struct lnode *n)
{
	return llocks_find(n->root->locks, n->major, n->minor, n->ino);
}

static struct owner *find_owner(struct inode *in, const struct p9_lockreq *l)
{
	struct owner *o = in ? in->owners : NULL;
	while (o && (o->session != l->session || o->proc_id != l->proc_id || o->client_len != l->client_id.len ||
		     memcmp(o->client_id, l->client_id.s, o->client_len) != 0)) {
		o = o->next;
	}
	return o;
}

void llocks_tidy(struct inode **pi)
{
	struct inode *in = *pi;
	for (struct owner **po = &in->owners; *po;) {
		struct owner *o = *po;
		if (o->ranges) {
			po = &o->next;
		} else {
			*po = o->next;
			close(o->fd);
			p9_fd_count(-1);
			atomic_fetch_sub(o->held, o->client_len / NAME_UNIT);
			free(o);
		}
	}
	if (!in->owners) {
		*pi = in->next;
		free(in);
	}
}

static void free_ranges(struct owner *o)
{
	while (o->ranges) {
		struct range *r = o->ranges;
		o->ranges = r->next;
		free(r);
	}
}

static void drop_all(struct llocks *l)
{
	_Atomic unsigned nobody = 0;
	for (unsigned i = 0; i < BUCKETS; i++) {
		while (l->table[i]) { /* of sessions that were never whole: each ends its own otherwise */
			for (struct owner *o = l->table[i]->owners; o; o = o->next) {
				free_ranges(o);
				o->held = &nobody; /* the session may have gone */
			}
			llocks_tidy(&l->table[i]);
		}
	}
}

void llocks_free(struct llocks *l)
{
	if (l) {
		drop_all(l);
		pthread_mutex_destroy(&l->mutex);
		free(l);
	}
}

void p9_local_forget_locks(struct lroot *root)
{
	pthread_mutex_lock(&root->locks->mutex);
	drop_all(root->locks);
	pthread_mutex_unlock(&root->locks->mutex);
}

static int open_for_locks(struct p9_caller *c, const struct lfile *f, bool *writable)
{
	/* a description open for writing would keep the host from running the file: only where the fid is one, too */
	char proc[16];
	uint32_t acc = f->base.flags & P9_O_ACCMODE;
	int fd;
	lproc_name(proc, f->io->fd);
	fd = -1;
	errno = EACCES;
	if (acc != P9_O_RDONLY) {
		LRETRY(c, fd, openat(lprocfd, proc, O_RDWR | O_CLOEXEC | O_NONBLOCK));
	}
	*writable = fd >= 0;
	if (fd < 0 && acc == P9_O_RDONLY) {
		LRETRY(c, fd, openat(lprocfd, proc, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
	}
	if (fd < 0 && (errno == EACCES || errno == EPERM || errno == EROFS)) {
		/* not to be opened so again: share the fid's own description rather than refuse */
		fd = fcntl(f->io->fd, F_DUPFD_CLOEXEC, 0);
		*writable = acc != P9_O_RDONLY;
	}
	return fd < 0 ? p9_err() : fd;
}

static struct owner *new_owner(struct p9_caller *c, const struct lfile *f, const struct p9_lockreq *l, int *rc)
{
	unsigned held = atomic_load(l->held), weight = l->client_id.len / NAME_UNIT;
	bool too_much = (p9_fd_short() && held >= LOCKS_ALWAYS) || held + weight >= P9_LOCKS_MAX;
	struct owner *o = too_much ? NULL : calloc(1, sizeof(*o) + l->client_id.len);
	if (!o) {
		*rc = -P9_ENOLCK;
		return NULL;
	}
	o->fd = open_for_locks(c, f, &o->writable);
	if (o->fd < 0) {
		*rc = o->fd;
		free(o);
		return NULL;
	}
	p9_fd_count(1);
	atomic_fetch_add(l->held, weight);
	o->session = l->session;
	o->held = l->held;
	o->proc_id = l->proc_id;
	o->client_len = l->client_id.len;
	memcpy(o->client_id, l->client_id.s, o->client_len);
	return o;
}

static int set_kernel(int fd, uint8_t type, uint64_t start, uint64_t end)
{
	struct flock fl = {
		.l_type = type == P9_LOCK_TYPE_UNLCK   ? F_UNLCK
			  : type == P9_LOCK_TYPE_WRLCK ? F_WRLCK
						       : F_RDLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)start,
		.l_len = end == TO_EOF ? 0 : (off_t)(end - start + 1),
	};
	if (fcntl(fd, F_OFD_SETLK, &fl) == 0) {
		return 0;
	}
	return errno == EACCES || errno == EAGAIN ? -P9_EAGAIN : p9_err();
}

/* A read-only descriptor cannot hold write locks: take what is held with a writable one first, then let the old go. */
static int make_writable(struct p9_caller *c, struct owner *o, const struct lfile *f)
{
	bool writable;
	int fd = open_for_locks(c, f, &writable);
	int rc = fd < 0 ? fd : writable ? 0 : -P9_EBADF;
	for (struct range *r = o->ranges; r && rc == 0; r = r->next) {
		rc = set_kernel(fd, r->type, r->start, r->end);
	}
	if (rc < 0) {
		if (fd >= 0) {
			close(fd);
		}
		return rc;
	}
	close(o->fd);
	o->fd = fd;
	o->writable = true;
	return 0;
}

/* Cuts [start, end] out of what the owner is known to hold. `rest` is a spare range for the case that one is split. */
static void cut(struct owner *o, uint64_t start, uint64_t end, struct range **rest)
{
	for (struct range **p = &o->ranges; *p;) {
		struct range *r = *p;
		if (r->end < start || r->start > end) {
			p = &r->next;
		} else if (r->start >= start && r->end <= end) {
			*p = r->next;
			free(r);
			atomic_fetch_sub(o->held, 1);
		} else if (r->start < start && r->end > end) {
			struct range *tail = *rest;
			*rest = NULL;
			*tail = *r;
			tail->start = end + 1;
			r->end = start - 1;
			r->next = tail;
			atomic_fetch_add(o->held, 1);
			return;
		} else if (r->start < start) {
			r->end = start - 1;
			p = &r->next;
		} else {
			r->start = end + 1;
			p = &r->next;
		}
	}
}

/* Whether [start, end] lies in the middle of a range, which then becomes two. */
static bool splits(const struct owner *o, uint64_t start, uint64_t end)
{
	const struct range *r = o->ranges;
	while (r && !(r->start < start && r->end > end)) {
		r = r->next;
	}
	return r != NULL;
}

static int apply(struct owner *o, const struct p9_lockreq *l, uint64_t end)
{
	if (atomic_load(o->held) >= P9_LOCKS_MAX && splits(o, l->start, end)) {
		return -P9_ENOLCK; /* an unlock can make ranges, too */
	}
	struct range *rest = malloc(sizeof(*rest)), *mine = malloc(sizeof(*mine));
	int rc = rest && mine ? set_kernel(o->fd, l->type, l->start, end) : -P9_ENOMEM;
	if (rc == 0) {
		cut(o, l->start, end, &rest);
		if (l->type != P9_LOCK_TYPE_UNLCK) {
			*mine = (struct range){ o->ranges, l->start, end, l->type, l->fid };
			o->ranges = mine;
			mine = NULL;
			atomic_fetch_add(o->held, 1);
		}
	}
	free(rest);
	free(mine);
	return rc;
}

static int range_of(const struct p9_lockreq *l, uint64_t *end)
{
	if (l->start > TO_EOF || (l->length && l->length - 1 > TO_EOF - l->start)) {
		return -P9_EINVAL;
	}
	*end = l->length ? l->start + l->length - 1 : TO_EOF;
	return 0;
}

static int may_lock(const struct p9_file *f, const struct p9_lockreq *l)
{
	uint32_t acc = f->flags & P9_O_ACCMODE;
	if ((l->type == P9_LOCK_TYPE_WRLCK && acc == P9_O_RDONLY) ||
	    (l->type == P9_LOCK_TYPE_RDLCK && acc == P9_O_WRONLY)) {
		return -P9_EBADF;
	}
	if (l->type != P9_LOCK_TYPE_UNLCK && atomic_load(l->held) >= P9_LOCKS_MAX) {
		return -P9_ENOLCK;
	}
	return 0;
}

/* A range of another owner that is in the way. The kernel knows of it, too, but for owners that share a fid's description
 * (open_for_locks): between those it sees no conflict. */
static const struct range *in_the_way(const struct inode *in, const struct owner *me, const struct p9_lockreq *l,
				      uint64_t end, const struct owner **whose)
{
	bool shared = l->type == P9_LOCK_TYPE_RDLCK;
	for (const struct owner *o = in ? in->owners : NULL; o; o = o->next) {
		for (const struct range *r = o->ranges; r && o != me; r = r->next) {
			if (r->start <= end && r->end >= l->start && (!shared || r->type == P9_LOCK_TYPE_WRLCK)) {
				*whose = o;
				return r;
			}
		}
	}
	return NULL;
}

static int lock_locked(struct p9_caller *c, const struct lfile *f, const struct p9_lockreq *l, uint64_t end)
{
	struct inode **pi = find_inode(LNODE(f->base.node));
	struct owner *o = find_owner(*pi, l);
	const struct owner *whose;
	int rc = 0;
	if (!o && l->type == P9_LOCK_TYPE_UNLCK) {
		return 0;
	}
	if (l->type != P9_LOCK_TYPE_UNLCK && in_the_way(*pi, o, l, end, &whose)) {
		return -P9_EAGAIN;
	}
	if (!*pi) {
		struct inode *in = calloc(1, sizeof(*in));
		if (!in) {
			return -P9_ENOMEM;
		}
		in->major = LNODE(f->base.node)->major;
		in->minor = LNODE(f->base.node)->minor;
		in->ino = LNODE(f->base.node)->ino;
		*pi = in;
	}
	if (!o && (o = new_owner(c, f, l, &rc))) {
		o->next = (*pi)->owners;
		(*pi)->owners = o;
	}
	if (rc == 0 && l->type == P9_LOCK_TYPE_WRLCK && !o->writable) {
		rc = make_writable(c, o, f);
	}
	rc = rc < 0 ? rc : apply(o, l, end);
	llocks_tidy(pi);
	return rc;
}

int local_lock(struct p9_caller *c, struct p9_file *base, const struct p9_lockreq *l)
{
	uint64_t end;
	int rc = range_of(l, &end);
	rc = rc < 0 ? rc : may_lock(base, l);
	rc = rc < 0 ? rc : lident_enter(c);
	if (rc < 0) {
		return rc;
	}
	pthread_mutex_lock(&LROOT(base->node)->locks->mutex);
	rc = lock_locked(c, LFILE(base), l, end);
	pthread_mutex_unlock(&LROOT(base->node)->locks->mutex);
	return rc;
}

static void name_holder(const struct owner *o, pid_t pid, struct p9_rgetlock *out, struct iovec name)
{
	if (o) {
		size_t n = o->client_len < name.iov_len ? o->client_len : name.iov_len;
		memcpy(name.iov_base, o->client_id, n);
		out->client_id = (struct p9_str){ name.iov_base, (uint16_t)n };
		out->proc_id = o->proc_id;
		return;
	}
	if (gethostname(name.iov_base, name.iov_len) < 0) {
		memcpy(name.iov_base, "host", 5);
	}
	((char *)name.iov_base)[name.iov_len - 1] = 0;
	out->client_id = (struct p9_str){ name.iov_base, (uint16_t)strlen(name.iov_base) };
	out->proc_id = pid > 0 ? (uint32_t)pid : 0; /* the kernel does not say who holds an OFD lock */
}

static int getlock_locked(struct p9_caller *c, const struct lfile *f, const struct p9_lockreq *l,
			  struct p9_rgetlock *out, struct iovec name)
{
	struct inode *in = *find_inode(LNODE(f->base.node));
	struct owner *o = find_owner(in, l);
	const struct owner *whose = NULL;
	bool writable;
	uint64_t end = l->length ? l->start + l->length - 1 : TO_EOF;
	const struct range *r = in_the_way(in, o, l, end, &whose);
	if (r) {
		out->type = r->type;
		out->start = r->start;
		out->length = r->end == TO_EOF ? 0 : r->end - r->start + 1;
		name_holder(whose, 0, out, name);
		return 0;
	}
	int fd = o ? o->fd : open_for_locks(c, f, &writable);
	struct flock fl = {
		/* Linux up to 6.1 at least asks with "unlock" whatever was asked of it: that means any lock */
		.l_type = l->type == P9_LOCK_TYPE_RDLCK ? F_RDLCK : F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)l->start,
		.l_len = (off_t)l->length,
	};
	if (fd < 0) {
		return fd;
	}
	int rc = fcntl(fd, F_OFD_GETLK, &fl) < 0 ? p9_err() : 0;
	if (!o) {
		close(fd);
	}
	if (rc < 0) {
		return rc;
	}
	if (fl.l_type == F_UNLCK) {
		*out = (struct p9_rgetlock){ P9_LOCK_TYPE_UNLCK, l->start, l->length, l->proc_id, l->client_id };
		return 0;
	}
	out->type = fl.l_type == F_WRLCK ? P9_LOCK_TYPE_WRLCK : P9_LOCK_TYPE_RDLCK;
	out->start = (uint64_t)fl.l_start;
	out->length = (uint64_t)fl.l_len;
	name_holder(NULL, fl.l_pid, out, name); /* one of ours would have been found above */
	return 0;
}

int local_getlock(struct p9_caller *c, struct p9_file *base, const struct p9_lockreq *l, struct p9_rgetlock *out,
		  char *client_id, size_t cap)
{
	uint64_t end;
	int rc = range_of(l, &end);
	rc = rc < 0 ? rc : lident_enter(c);
	if (rc < 0) {
		return rc;
	}
	pthread_mutex_lock(&LROOT(base->node)->locks->mutex);
	rc = getlock_locked(c, LFILE(base), l, out, (struct iovec){ client_id, cap });
	pthread_mutex_unlock(&LROOT(base->node)->locks->mutex);
	return rc;
}

static int drop_fid(struct owner *o, const void *fid)
{
	int n = 0;
	for (struct range **p = &o->ranges; *p;) {
		struct range *r = *p;
		if (r->fid != fid) {
			p = &r->next;
			continue;
		}
		*p = r->next;
		set_kernel(o->fd, P9_LOCK_TYPE_UNLCK, r->start, r->end);
		free(r);
		atomic_fetch_sub(o->held, 1);
		n++;
	}
	return n;
}

int local_unlock_fid(struct p9_file *base, const void *session, const void *fid)
{
	int n = 0;
	pthread_mutex_lock(&LROOT(base->node)->locks->mutex);
	struct inode **pi = find_inode(LNODE(base->node));
	if (*pi) {
		for (struct owner *o = (*pi)->owners; o; o = o->next) {
			n += o->session == session ? drop_fid(o, fid) : 0;
		}
		llocks_tidy(pi);
	}
	pthread_mutex_unlock(&LROOT(base->node)->locks->mutex);
	return n;
}
