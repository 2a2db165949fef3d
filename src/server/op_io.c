/* SPDX-License-Identifier: BSD-2-Clause */
/* op_io.c - Tread, Twrite, Treaddir, Tfsync, and reading and writing of extended attributes in memory.
 *
 * Reads of files are tried without waiting first (RWF_NOWAIT): what is cached is answered at once, behind the reply's
 * head; what is not goes to a worker. Large reads over a link that can do it are not copied at all: the kernel sends
 * the pages. Writes go straight from the frame.
 */
#include <string.h>
#include "server/internal.h"

#define READDIR_MAX (256u * 1024) /* of one reply: a longer one would hold others up */
#define HALF_PIECES 300
#define SENDFILE_MIN (32u * 1024) /* below, a copy is cheaper than the second system call */

static uint32_t clamp(const struct p9_req *r, uint32_t count)
{
	uint32_t most = r->conn->msize - P9_RREADHDRSZ;
	return count < most ? count : most;
}

/* flat: in one piece, for what is not read from a file. */
static int take_room(struct p9_req *r, uint32_t count, bool flat)
{
	struct p9_link *l = p9_link_of(r->conn);
	int rc = l->ops->reserve(l, r->ticket, P9_RREADHDRSZ, count, flat, &r->room);
	r->has_room = rc == 0;
	if (r->has_room && r->detached) { /* it waited behind its fid: the loop goes on while this one is worked on */
		l->ops->keep(l, &r->room);
	}
	return rc;
}

/* ---- Tread ---- */
static int read_xattr(struct p9_req *r, uint32_t count)
{
	const struct p9_xattr *x = r->fid->xattr;
	uint64_t off = r->t.tread.offset;
	if (x->writing) {
		return -P9_EBADF;
	}
	uint32_t n = off >= x->size ? 0 : x->size - (uint32_t)off;
	n = n < count ? n : count;
	int rc = take_room(r, n, true);
	if (rc == 0 && n) {
		memcpy(p9_room_flat(&r->room), x->value + off, n);
	}
	r->r.rread.data = (struct p9_data){ n, NULL };
	return rc < 0 ? rc : P9_NOW;
}

static int read_start(struct p9_req *r)
{
	const struct p9_fid *f = r->fid;
	uint32_t count = clamp(r, r->t.tread.count);
	if (f->xattr) {
		return read_xattr(r, count);
	}
	if (!f->file || (f->file->flags & P9_O_ACCMODE) == P9_O_WRONLY) {
		return -P9_EBADF;
	}
	if (f->node->qtype & P9_QTDIR) {
		return -P9_EISDIR;
	}
	if (r->t.tread.offset + count > INT64_MAX) {
		return -P9_EINVAL;
	}
	r->t.tread.count = count;
	bool by_kernel = count >= SENDFILE_MIN && f->file->fd >= 0 && !r->detached && !r->vol->slow &&
			 p9_link_of(r->conn)->ops->send_file;
	return by_kernel ? 0 : take_room(r, count, false);
}

/* A large read that comes alone, into a guest's memory: two processors copy it faster than one. */
struct half {
	struct p9_job job;
	struct p9_file *f;
	const struct p9_caller *by; /* whose user and cancel flag count */
	struct iovec iov[HALF_PIECES];
	int niov;
	uint64_t offset;
	int64_t n;
	struct p9_gate gate; /* and what it guards: */
	bool through;
};

static int64_t read_half(struct half *h, struct p9_caller *c)
{
	return h->f->be->read(c, h->f, h->offset, h->iov, h->niov, true);
}

static void on_helper(struct p9_job *job, struct p9_thread *self)
{
	struct half *h = (struct half *)((char *)job - offsetof(struct half, job));
	struct p9_caller c = { h->by->cred, &self->ident, h->by->cancel };
	h->n = read_half(h, &c);
	p9_gate_enter(&h->gate);
	h->through = true;
	p9_gate_wake(&h->gate);
	p9_gate_leave(&h->gate);
}

/* Deals the pieces out: n bytes to a, the rest to b. */
static void deal(const struct p9_room *room, size_t n, struct half *a, struct half *b)
{
	for (int i = 0; i < room->niov; i++) {
		struct iovec v = room->iov[i];
		size_t k = v.iov_len < n ? v.iov_len : n;
		if (k) {
			a->iov[a->niov++] = (struct iovec){ v.iov_base, k };
		}
		if (k < v.iov_len) {
			b->iov[b->niov++] = (struct iovec){ (char *)v.iov_base + k, v.iov_len - k };
		}
		n -= k;
	}
}

static int64_t read_together(struct p9_req *r, struct p9_caller *c)
{
	struct p9_crew *crew = &r->conn->srv->crew;
	const struct p9_tread *m = &r->t.tread;
	size_t first = m->count / 2 / 4096 * 4096;
	struct half a = { .f = r->fid->file, .offset = m->offset };
	struct half b = { .f = a.f, .offset = m->offset + first, .by = c, .job.run = on_helper };
	deal(&r->room, first, &a, &b);
	p9_gate_init(&b.gate);
	p9_crew_submit(crew, &r->vol->lane, &b.job);
	a.n = read_half(&a, c);
	if (p9_crew_cancel(crew, &b.job)) { /* nobody was free */
		b.n = a.n == (int64_t)first ? read_half(&b, c) : 0;
	} else {
		p9_gate_enter(&b.gate);
		while (!b.through) {
			p9_gate_wait(&b.gate);
		}
		p9_gate_leave(&b.gate);
	}
	p9_gate_fini(&b.gate);
	if (a.n != (int64_t)first) {
		return a.n;
	}
	return b.n >= 0		   ? a.n + b.n
	       : b.n == -P9_EAGAIN ? b.n
				   : a.n; /* an error comes up when it is asked for from there */
}

static int read_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_file *f = r->fid->file;
	const struct p9_tread *m = &r->t.tread;
	if (!r->has_room) { /* see whether the kernel can send it; without room, that is all that can be done here */
		int64_t n = f->be->ready(c, f, m->offset, m->count);
		r->r.rread.data = (struct p9_data){ n < 0 ? 0 : (uint32_t)n, NULL };
		return n < 0 ? (int)n : 0;
	}
	int64_t n = r->helped && !r->blocking && r->room.niov < HALF_PIECES
			    ? read_together(r, c)
			    : f->be->read(c, f, m->offset, r->room.iov, r->room.niov, !r->blocking);
	r->r.rread.data = (struct p9_data){ n < 0 ? 0 : (uint32_t)n, NULL };
	return n < 0 ? (int)n : 0;
}

/* Head from here, payload from the file. */
static int read_done(struct p9_req *r)
{
	struct p9_link *l = p9_link_of(r->conn);
	uint32_t n = r->r.rread.data.len;
	if (r->has_room || n == 0) {
		return r->has_room ? 0 : take_room(r, 0, false);
	}
	struct p9_room room;
	r->r.type = P9_Rread;
	r->r.tag = r->tag;
	int rc = l->ops->reserve(l, r->ticket, P9_RREADHDRSZ, 0, false, &room);
	if (rc < 0) {
		return rc;
	}
	int head = p9_wire_encode_head(room.head, P9_RREADHDRSZ, &r->r);
	l->ops->commit(l, &room, (size_t)head);
	if (l->ops->send_file(l, r->fid->file, r->t.tread.offset, n) < 0) {
		p9_conn_end(r->conn, -P9_ENOMEM, "no memory for a reply");
	}
	r->dropped = true; /* answered */
	if (r->conn->srv->conf.trace) {
		p9_trace(r->conn, '>', &r->r);
	}
	return 0;
}
/* A copy needs room for the payload. */
static int read_again(struct p9_req *r)
{
	return r->has_room ? 0 : take_room(r, r->t.tread.count, false);
}
const struct p9_op p9_op_read = { read_start, read_run, read_done, read_again, false };

/* ---- Twrite ---- */
/* Takes the data to where it is one piece. */
static void copy_in(const struct p9_req *r, uint8_t *to)
{
	if (!r->payload) {
		if (r->t.twrite.data.len) {
			memcpy(to, r->t.twrite.data.p, r->t.twrite.data.len);
		}
		return;
	}
	for (int i = 0; i < r->npayload; i++) {
		memcpy(to, r->payload[i].iov_base, r->payload[i].iov_len);
		to += r->payload[i].iov_len;
	}
}

static int write_xattr(struct p9_req *r)
{
	struct p9_xattr *x = r->fid->xattr;
	const struct p9_twrite *m = &r->t.twrite;
	if (!x->writing) {
		return -P9_EBADF;
	}
	if (m->offset != x->done || m->data.len > x->size - x->done) {
		return -P9_EINVAL; /* once, in order, and no more than was announced */
	}
	copy_in(r, x->value + x->done);
	x->done += m->data.len;
	r->r.rwrite.count = m->data.len;
	return P9_NOW;
}

static int write_start(struct p9_req *r)
{
	const struct p9_fid *f = r->fid;
	const struct p9_twrite *m = &r->t.twrite;
	if (f->xattr) {
		return write_xattr(r);
	}
	if (!f->file || (f->file->flags & P9_O_ACCMODE) == P9_O_RDONLY) {
		return -P9_EBADF;
	}
	if (!f->file->be->write) {
		return -P9_EOPNOTSUPP;
	}
	return m->offset + m->data.len > INT64_MAX ? -P9_EINVAL : 0;
}

static int write_run(struct p9_req *r, struct p9_caller *c)
{
	const struct p9_twrite *m = &r->t.twrite;
	struct iovec iov = { (void *)m->data.p, m->data.len };
	int64_t n = r->fid->file->be->write(c, r->fid->file, m->offset, r->payload ? r->payload : &iov,
					    r->payload ? r->npayload : 1);
	r->r.rwrite.count = n < 0 ? 0 : (uint32_t)n;
	return n < 0 ? (int)n : 0;
}
const struct p9_op p9_op_write = { write_start, write_run, NULL, NULL, false };

/* ---- Treaddir ---- */
static int readdir_start(struct p9_req *r)
{
	const struct p9_fid *f = r->fid;
	if (!(f->node->qtype & P9_QTDIR) || f->xattr) {
		return -P9_ENOTDIR;
	}
	if (!f->file->be->readdir) {
		return -P9_EOPNOTSUPP;
	}
	uint32_t count = clamp(r, r->t.treaddir.count);
	r->t.treaddir.count = count < READDIR_MAX ? count : READDIR_MAX;
	return take_room(r, r->t.treaddir.count, true);
}

static int readdir_run(struct p9_req *r, struct p9_caller *c)
{
	const struct p9_treaddir *m = &r->t.treaddir;
	struct p9_file *f = r->fid->file;
	int n = f->be->readdir(c, f, m->offset, p9_room_flat(&r->room), m->count);
	r->r.rreaddir.data = (struct p9_data){ n < 0 ? 0 : (uint32_t)n, NULL };
	return n < 0 ? n : 0;
}
const struct p9_op p9_op_readdir = { readdir_start, readdir_run, NULL, NULL, false };

/* ---- Tfsync ---- */
static int fsync_start(struct p9_req *r)
{
	if (r->fid->xattr) {
		return -P9_EINVAL;
	}
	return r->fid->file->be->fsync ? 0 : P9_NOW;
}
static int fsync_run(struct p9_req *r, struct p9_caller *c)
{
	return r->fid->file->be->fsync(c, r->fid->file, r->t.tfsync.datasync != 0);
}
const struct p9_op p9_op_fsync = { fsync_start, fsync_run, NULL, NULL, false };
