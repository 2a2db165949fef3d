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
#define TOGETHER_IOV 300
#define PIECES 9
#define PIECE_MIN (128u * 1024)
#define HELPER_LOOKS 2000
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

/* A large read that comes alone, into a guest's memory: two processors copy it faster than one. It is cut into pieces that
 * both take one by one, so that a helper who comes late (it may have to be woken first) takes less of them. */
struct together {
	struct p9_job job;
	const struct p9_req *r;
	const struct p9_caller *by; /* whose user and cancel flag count */
	uint32_t piece;
	unsigned npieces;
	_Atomic unsigned next;
	int64_t n[PIECES];
	struct p9_gate gate; /* and what it guards: */
	_Atomic bool through;
};

static uint32_t piece_size(const struct together *t, unsigned i)
{
	uint32_t left = t->r->t.tread.count - i * t->piece;
	return left < t->piece ? left : t->piece;
}

/* The memory of one piece. Returns how many vectors it takes. */
static int memory_of(const struct together *t, unsigned i, struct iovec *v)
{
	const struct p9_room *room = &t->r->room;
	size_t skip = (size_t)i * t->piece, left = piece_size(t, i);
	int n = 0;
	for (int k = 0; k < room->niov && left > 0; k++) {
		size_t len = room->iov[k].iov_len, from = skip < len ? skip : len;
		size_t part = len - from < left ? len - from : left;
		if (part) {
			v[n++] = (struct iovec){ (char *)room->iov[k].iov_base + from, part };
		}
		skip -= from;
		left -= part;
	}
	return n;
}

static void read_pieces(struct together *t, struct p9_caller *c)
{
	struct iovec v[TOGETHER_IOV];
	struct p9_file *f = t->r->fid->file;
	for (unsigned i; (i = atomic_fetch_add_explicit(&t->next, 1, memory_order_relaxed)) < t->npieces;) {
		uint64_t at = t->r->t.tread.offset + (uint64_t)i * t->piece;
		t->n[i] = f->be->read(c, f, at, v, memory_of(t, i, v), true);
	}
}

static void on_helper(struct p9_job *job, struct p9_thread *self)
{
	struct together *t = (struct together *)((char *)job - offsetof(struct together, job));
	struct p9_caller c = { t->by->cred, &self->ident, t->by->cancel };
	read_pieces(t, &c);
	p9_gate_enter(&t->gate);
	atomic_store_explicit(&t->through, true, memory_order_release);
	p9_gate_wake(&t->gate);
	p9_gate_leave(&t->gate);
}

/* It has one piece to do at most. Its last word is said under the lock, which is taken before the lock goes. */
static void wait_for_helper(struct together *t)
{
	for (int i = 0; i < HELPER_LOOKS && !atomic_load_explicit(&t->through, memory_order_acquire); i++) {
		p9_spin_relax();
	}
	p9_gate_enter(&t->gate);
	while (!atomic_load_explicit(&t->through, memory_order_relaxed)) {
		p9_gate_wait(&t->gate);
	}
	p9_gate_leave(&t->gate);
}

static int64_t read_together(struct p9_req *r, struct p9_caller *c)
{
	struct p9_crew *crew = &r->conn->srv->crew;
	uint32_t count = r->t.tread.count, piece = (count / PIECES + 4096) / 4096 * 4096;
	struct together t = { .job.run = on_helper, .r = r, .by = c, .piece = piece < PIECE_MIN ? PIECE_MIN : piece };
	t.npieces = (count + t.piece - 1) / t.piece;
	p9_gate_init(&t.gate);
	p9_crew_submit(crew, &r->vol->lane, &t.job);
	read_pieces(&t, c);
	if (!p9_crew_cancel(crew, &t.job)) { /* somebody was free */
		wait_for_helper(&t);
	}
	p9_gate_fini(&t.gate);
	int64_t n = 0;
	for (unsigned i = 0; i < t.npieces; i++) {
		if (t.n[i] == -P9_EAGAIN || (t.n[i] < 0 && i == 0)) {
			return t.n[i];
		}
		n += t.n[i] < 0 ? 0 : t.n[i]; /* an error comes up when it is asked for from there */
		if (t.n[i] < piece_size(&t, i)) {
			break;
		}
	}
	return n;
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
	int64_t n = r->helped && !r->blocking && r->room.niov < TOGETHER_IOV
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
