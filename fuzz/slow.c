/* SPDX-License-Identifier: BSD-2-Clause */
/* slow.c - see slow.h. A nap is longer than the watch's patience; a call that is cancelled in its nap does nothing and
 * says EINTR, as a system call would. Nodes and files that come out of the local backend are made ours on their way. */
#include <errno.h>
#include <time.h>
#include "base/crew.h"
#include "p9/local.h"
#include "slow.h"

#define NAP_NS (4000000L * P9_WATCH_MS)

static _Atomic unsigned naps, every, calls;

void fz_slow_set(unsigned n, unsigned e)
{
	atomic_store(&naps, n);
	atomic_store(&every, e);
}

static int nap(struct p9_caller *c)
{
	unsigned e = atomic_load(&every), left = atomic_load(&naps);
	if (e == 0 || left == 0 || atomic_fetch_add(&calls, 1) % e != 0) {
		return 0;
	}
	if (!atomic_compare_exchange_strong(&naps, &left, left - 1)) {
		return 0;
	}
	struct timespec t = { .tv_nsec = NAP_NS };
	while (nanosleep(&t, &t) < 0 && errno == EINTR) {
		if (c && atomic_load(c->cancel)) {
			return -P9_EINTR;
		}
	}
	return 0;
}

static int own_node(int rc, struct p9_node **n)
{
	if (rc >= 0 && *n) {
		(*n)->be = &fz_slow;
	}
	return rc;
}
static int own_file(int rc, struct p9_file **f)
{
	if (rc >= 0) {
		(*f)->be = &fz_slow;
		(*f)->node->be = &fz_slow;
	}
	return rc;
}

#define NAP(ret, name, params, args) \
	static ret slow_##name params \
	{ \
		int tired = nap(c); \
		return tired < 0 ? tired : p9_local.name args; \
	}

static int slow_attach(struct p9_caller *c, void *arg, struct p9_node **out)
{
	return own_node(p9_local.attach(c, arg, out), out);
}
static int slow_walk(struct p9_caller *c, struct p9_node *n, const struct p9_strs *names, struct p9_qids *qids,
		     struct p9_node **out)
{
	int tired = nap(c);
	*out = NULL;
	return tired < 0 ? tired : own_node(p9_local.walk(c, n, names, qids, out), out);
}
static int slow_open(struct p9_caller *c, struct p9_node *n, uint32_t flags, struct p9_file **out)
{
	int tired = nap(c);
	return tired < 0 ? tired : own_file(p9_local.open(c, n, flags, out), out);
}
static int slow_create(struct p9_caller *c, struct p9_node *dir, const struct p9_tlcreate *m, struct p9_file **out,
		       struct p9_qid *qid)
{
	int tired = nap(c);
	return tired < 0 ? tired : own_file(p9_local.create(c, dir, m, out, qid), out);
}
static int slow_close(struct p9_caller *c, struct p9_file *f)
{
	nap(NULL);
	return p9_local.close(c, f);
}
NAP(int, getattr, (struct p9_caller * c, struct p9_node *n, uint64_t mask, struct p9_rgetattr *out), (c, n, mask, out))
NAP(int, setattr, (struct p9_caller * c, struct p9_node *n, struct p9_file *f, const struct p9_tsetattr *a),
    (c, n, f, a))
NAP(int, symlink, (struct p9_caller * c, struct p9_node *d, const struct p9_tsymlink *m, struct p9_qid *q),
    (c, d, m, q))
NAP(int, mkdir, (struct p9_caller * c, struct p9_node *d, const struct p9_tmkdir *m, struct p9_qid *q), (c, d, m, q))
NAP(int, link, (struct p9_caller * c, struct p9_node *d, struct p9_node *n, struct p9_str s), (c, d, n, s))
NAP(int, rename, (struct p9_caller * c, struct p9_node *n, struct p9_node *d, struct p9_str s), (c, n, d, s))
NAP(int, renameat, (struct p9_caller * c, struct p9_node *a, struct p9_node *b, const struct p9_trenameat *m),
    (c, a, b, m))
NAP(int, unlinkat, (struct p9_caller * c, struct p9_node *d, struct p9_str s, uint32_t flags), (c, d, s, flags))
NAP(int, remove, (struct p9_caller * c, struct p9_node *n), (c, n))
NAP(int, readlink, (struct p9_caller * c, struct p9_node *n, char *buf, size_t cap), (c, n, buf, cap))
NAP(int, getxattr, (struct p9_caller * c, struct p9_node *n, struct p9_str s, void *buf, size_t cap),
    (c, n, s, buf, cap))
NAP(int, setxattr,
    (struct p9_caller * c, struct p9_node *n, struct p9_str s, const void *v, size_t size, uint32_t flags),
    (c, n, s, v, size, flags))
NAP(int, readdir, (struct p9_caller * c, struct p9_file *f, uint64_t off, uint8_t *buf, uint32_t cap),
    (c, f, off, buf, cap))
NAP(int64_t, write, (struct p9_caller * c, struct p9_file *f, uint64_t off, const struct iovec *iov, int n),
    (c, f, off, iov, n))
NAP(int, fsync, (struct p9_caller * c, struct p9_file *f, bool datasync), (c, f, datasync))
NAP(int, lock, (struct p9_caller * c, struct p9_file *f, const struct p9_lockreq *l), (c, f, l))

static int slow_mknod(struct p9_caller *c, struct p9_node *d, const struct p9_tmknod *m, struct p9_qid *q)
{
	return p9_local.mknod(c, d, m, q);
}
static int slow_statfs(struct p9_caller *c, struct p9_node *n, struct p9_rstatfs *out)
{
	return p9_local.statfs(c, n, out);
}
static int64_t slow_read(struct p9_caller *c, struct p9_file *f, uint64_t off, const struct iovec *iov, int n,
			 bool nowait)
{
	int tired = nowait ? 0 : nap(c);
	return tired < 0 ? tired : p9_local.read(c, f, off, iov, n, nowait);
}
/* While calls sleep nothing is sure to be in memory: a read then leaves the loop. */
static int64_t slow_ready(struct p9_caller *c, struct p9_file *f, uint64_t off, uint32_t count)
{
	return atomic_load(&naps) ? -P9_EAGAIN : p9_local.ready(c, f, off, count);
}
static int slow_getlock(struct p9_caller *c, struct p9_file *f, const struct p9_lockreq *l, struct p9_rgetlock *out,
			char *client_id, size_t cap)
{
	return p9_local.getlock(c, f, l, out, client_id, cap);
}
static int slow_unlock_fid(struct p9_file *f, const void *session, const void *fid)
{
	return p9_local.unlock_fid(f, session, fid);
}
static void slow_free_node(struct p9_node *n)
{
	p9_local.free_node(n);
}

const struct p9_backend fz_slow = {
	.name = "slow",
#define OWN(op) .op = slow_##op
	OWN(attach),
	OWN(walk),
	OWN(getattr),
	OWN(setattr),
	OWN(statfs),
	OWN(open),
	OWN(create),
	OWN(symlink),
	OWN(mknod),
	OWN(mkdir),
	OWN(link),
	OWN(rename),
	OWN(renameat),
	OWN(unlinkat),
	OWN(remove),
	OWN(readlink),
	OWN(getxattr),
	OWN(setxattr),
	OWN(readdir),
	OWN(read),
	OWN(write),
	OWN(ready),
	OWN(fsync),
	OWN(lock),
	OWN(getlock),
	OWN(unlock_fid),
	OWN(close),
	OWN(free_node),
};
