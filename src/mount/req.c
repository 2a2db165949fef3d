/* SPDX-License-Identifier: BSD-2-Clause */
/* req.c - a FUSE request from its arrival to its answer.
 *
 * Holds the inodes and the handle that it is about, and the memory that its bytes lie in. steps.c runs its operation,
 * late.c what signals and waiting do to it.
 * Must stay true: each FUSE request is answered exactly once, with a number that the kernel accepts.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/hosterr.h"
#include "mount/internal.h"

#define ERRNO_MOST 511 /* the kernel takes no other for an answer */

uint64_t p9_mount_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int p9_mount_errno(const struct p9_mount *m, int error)
{
	if (error == -P9_ETIMEDOUT) {
		return ETIMEDOUT;
	}
	if (p9_client_dead(m->client)) {
		return EIO;
	}
	int e = error == -P9_ECANCELED ? EINTR : p9_hosterr_from(-error);
	return e > 0 && e <= ERRNO_MOST ? e : EIO;
}

/* ---- life ---- */
struct p9_mreq *p9_mreq_new(struct p9_mount *m, fuse_req_t req)
{
	struct p9_mreq *r = m->free_reqs;
	if (r) {
		m->free_reqs = r->next;
	} else {
		r = malloc(sizeof(*r));
	}
	if (!r) {
		if (req) {
			fuse_reply_err(req, ENOMEM);
		}
		return NULL;
	}
	memset(r, 0, offsetof(struct p9_mreq, name));
	r->m = m;
	r->req = req;
	r->calls = r->few;
	r->fid[0] = r->fid[1] = r->held[0] = r->held[1] = r->as = P9_NOFID;
	r->name[0] = 0;
	r->next = m->live;
	if (r->next) {
		r->next->prev = r;
	}
	m->live = r;
	return r;
}

struct p9_mreq *p9_mreq_ino(fuse_req_t req, fuse_ino_t ino)
{
	struct p9_mount *m = fuse_req_userdata(req);
	struct p9_mreq *r = p9_mreq_new(m, req);
	if (r) {
		r->ino = p9_minode_of(m, ino);
		p9_minode_hold(m, r->ino);
	}
	return r;
}

struct p9_mreq *p9_mreq_name(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	size_t n = strlen(name);
	if (n > P9_NAMEMAX) {
		fuse_reply_err(req, ENAMETOOLONG);
		return NULL;
	}
	struct p9_mreq *r = p9_mreq_ino(req, dir);
	if (r) {
		memcpy(r->name, name, n + 1);
	}
	return r;
}

struct p9_mreq *p9_mreq_open(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi)
{
	struct p9_mreq *r = p9_mreq_ino(req, ino);
	if (r) {
		r->fi = *fi;
		r->h = (struct p9_mhandle *)(uintptr_t)fi->fh;
		r->h->refs++;
	}
	return r;
}

void *p9_mreq_buffer(struct p9_mreq *r, size_t n)
{
	struct p9_mount *m = r->m;
	bool big = n > 64u * 1024 && n <= P9_MOUNT_IO;
	if (big && m->nbufs) {
		r->buf = m->bufs[--m->nbufs];
	} else {
		r->buf = malloc(big ? P9_MOUNT_IO : n);
	}
	r->buf_kind = !r->buf ? P9_BUF_NONE : big ? P9_BUF_READ : P9_BUF_HEAP;
	return r->buf;
}

void p9_mreq_keep(struct p9_mreq *r)
{
	struct p9_mount *m = r->m;
	r->buf = m->in.mem;
	r->buf_kind = P9_BUF_IN;
	m->in.mem = m->nins ? m->ins[--m->nins] : NULL;
}

static void drop_buffer(struct p9_mreq *r)
{
	struct p9_mount *m = r->m;
	if (r->buf_kind == P9_BUF_READ && m->nbufs < P9_COUNT(m->bufs)) {
		m->bufs[m->nbufs++] = r->buf;
	} else if (r->buf_kind == P9_BUF_IN && m->nins < P9_COUNT(m->ins)) {
		m->ins[m->nins++] = r->buf;
	} else {
		free(r->buf);
	}
	r->buf = NULL;
	r->buf_kind = P9_BUF_NONE;
}

void p9_mreq_free(struct p9_mreq *r)
{
	struct p9_mount *m = r->m;
	if (r->req) { /* cannot be, but would hang the program */
		fuse_reply_err(r->req, EIO);
		r->req = NULL;
	}
	if (r->interrupted || r->waiting) {
		p9_mreq_unlate(r);
	}
	p9_mreq_drop_made(r, true);
	if (r->as != P9_NOFID) {
		p9_mount_clunk(m, r->as);
	}
	if (r->buf) {
		drop_buffer(r);
	}
	if (r->calls != r->few) {
		free(r->calls);
	}
	free(r->entries);
	free(r->text);
	if (r->h) {
		p9_mhandle_put(m, r->h);
	}
	p9_minode_release(m, r->lost);
	p9_minode_release(m, r->dir);
	p9_minode_release(m, r->ino);
	*(r->prev ? &r->prev->next : &m->live) = r->next;
	if (r->next) {
		r->next->prev = r->prev;
	}
	r->next = m->free_reqs;
	m->free_reqs = r;
}

void p9_mount_reqs_init(struct p9_mount *m)
{
	for (size_t i = 0; i < P9_COUNT(m->clunking); i++) {
		m->clunking[i].next = m->free_clunks;
		m->free_clunks = &m->clunking[i];
	}
}

void p9_mount_reqs_abort(struct p9_mount *m)
{
	m->queue = NULL;
	for (struct p9_mreq *r = m->live; r; r = r->next) {
		if (r->req) {
			fuse_reply_err(r->req, EIO);
			r->req = NULL;
		}
	}
}

void p9_mount_reqs_fini(struct p9_mount *m)
{
	while (m->live) {
		p9_mreq_free(m->live);
	}
	while (m->free_reqs) {
		struct p9_mreq *r = m->free_reqs;
		m->free_reqs = r->next;
		free(r);
	}
	while (m->nins) {
		free(m->ins[--m->nins]);
	}
	while (m->nbufs) {
		free(m->bufs[--m->nbufs]);
	}
	p9_mount_users_fini(m);
	free(m->in.mem);
	free(m->clunks);
}

/* ---- begin and answers ---- */
static bool lost(const struct p9_minode *i)
{
	return i && i->fid == P9_NOFID;
}

void p9_mreq_begin(struct p9_mreq *r, const struct p9_mop *op)
{
	r->op = op;
	p9_mreq_watch(r);
	if ((lost(r->ino) && !r->h) || lost(r->dir)) {
		r->then = op;
		p9_mreq_rewalk(r);
		return;
	}
	p9_mreq_chain(r, op);
}

void p9_mreq_err(struct p9_mreq *r, int error)
{
	if (r->req) {
		fuse_reply_err(r->req, error ? p9_mount_errno(r->m, error) : 0);
		r->req = NULL;
	}
	p9_mreq_free(r);
}

void p9_mreq_attr(struct p9_mreq *r)
{
	struct stat st;
	if (r->req) {
		p9_mattr_stat(r->m, &r->attr, &st);
		r->ino->told = p9_mattr_stamp(&r->attr);
		r->ino->size = r->attr.size;
		fuse_reply_attr(r->req, &st, p9_mount_attr_timeout(r->m));
		r->req = NULL;
	}
	p9_mreq_free(r);
}

void p9_mreq_entry(struct p9_mreq *r, struct p9_minode *ino)
{
	struct fuse_entry_param e;
	if (r->req) {
		p9_mentry_fill(r->m, ino, &r->attr, &e);
		p9_minode_looked(r->m, ino);
		int rc = fuse_reply_entry(r->req, &e);
		r->req = NULL;
		if (rc < 0) { /* it never came to know it */
			p9_minode_forget(r->m, ino, 1);
		}
	}
	p9_mreq_free(r);
}

void p9_mreq_buf(struct p9_mreq *r, const void *buf, size_t n)
{
	if (r->req) {
		fuse_reply_buf(r->req, buf, n);
		r->req = NULL;
	}
	p9_mreq_free(r);
}
