/* SPDX-License-Identifier: BSD-2-Clause */
/* file.c - opening, reading and writing, and whole files.
 *
 * Large transfers keep up to WINDOW requests in flight, the first of them alone: most files are smaller than a message,
 * and asking behind their end is wasted. The pieces lie on the stack of transfer(), which returns only when all of them
 * are answered. What counts is the part without a gap: a piece that came short ends it, and the next turn goes on there.
 */
#include "vfs/session.h"

#define WINDOW 8
#define CREATE_TRIES 8 /* others create and remove the same name at the same time */

/* ---- opening ---- */
static void fill_handle(const struct p9_session *s, struct p9_handle *h, uint32_t flags, uint32_t iounit)
{
	uint32_t most = s->engine.msize - P9_IOHDRSZ;
	h->flags = flags;
	h->chunk = iounit >= P9_MSIZE_MIN && iounit < most ? iounit : most; /* an iounit without sense is no hint */
}

static int open_fid(struct p9_session *s, const struct p9_place *at, uint32_t flags, struct p9_handle *h)
{
	struct p9_msg r, t = { .type = P9_Tlopen };
	h->fid = at->fid;
	if ((at->qid.type & P9_QTSYMLINK) && (flags & P9_O_NOFOLLOW)) {
		p9_session_let_go(s, h->fid);
		return -P9_ELOOP;
	}
	int rc = p9_walk_own(s, &h->fid);
	if (rc < 0) {
		return rc;
	}
	t.tlopen.fid = h->fid;
	t.tlopen.flags = flags & ~(uint32_t)(P9_O_CREAT | P9_O_EXCL);
	rc = p9_session_call(s, &t, NULL, &r);
	if (rc < 0) {
		p9_session_let_go(s, h->fid);
		return rc;
	}
	h->qid = r.rlopen.qid;
	fill_handle(s, h, flags, r.rlopen.iounit);
	return 0;
}

static int create(struct p9_session *s, const struct p9_place *at, uint32_t flags, uint32_t mode, struct p9_handle *h)
{
	struct p9_msg r, t = { .type = P9_Tlcreate };
	h->fid = at->fid;
	int rc = p9_walk_own(s, &h->fid);
	if (rc < 0) {
		return rc;
	}
	t.tlcreate = (struct p9_tlcreate){ .fid = h->fid,
					   .name = p9_place_name(at),
					   .flags = flags | P9_O_CREAT | P9_O_EXCL,
					   .mode = mode,
					   .gid = s->gid };
	rc = p9_session_call(s, &t, NULL, &r);
	if (rc < 0) {
		p9_session_let_go(s, h->fid);
		return rc;
	}
	h->qid = r.rlcreate.qid;
	fill_handle(s, h, flags, r.rlcreate.iounit);
	return 0;
}

static int how_to_walk(uint32_t flags)
{
	if ((flags & P9_O_CREAT) && (flags & P9_O_EXCL)) {
		return P9_WALK_PARENT;
	}
	return (flags & P9_O_CREAT ? P9_WALK_MISSING : 0) | (flags & P9_O_NOFOLLOW ? P9_WALK_STAY : P9_WALK_LINK);
}

int p9_session_open(struct p9_session *s, const char *path, uint32_t flags, uint32_t mode, struct p9_handle *h)
{
	int how = how_to_walk(flags), rc = -P9_EEXIST;
	h->fid = P9_NOFID;
	for (unsigned i = 0; i < CREATE_TRIES && rc == -P9_EEXIST; i++) {
		struct p9_place at;
		rc = p9_walk(s, path, how, &at);
		if (rc < 0) {
			return rc;
		}
		if (!at.missing && how != P9_WALK_PARENT) {
			return open_fid(s, &at, flags, h);
		}
		rc = create(s, &at, flags, mode, h);
		if (how == P9_WALK_PARENT) {
			return rc;
		}
	}
	return rc;
}

int p9_session_close(struct p9_session *s, struct p9_handle *h)
{
	struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = h->fid } };
	if (h->fid == P9_NOFID) {
		return -P9_EBADF;
	}
	h->fid = P9_NOFID;
	return p9_session_call(s, &t, NULL, NULL);
}

int p9_session_fstat(struct p9_session *s, const struct p9_handle *h, struct p9_rgetattr *st)
{
	struct p9_msg r, t = { .type = P9_Tgetattr, .tgetattr = { .fid = h->fid, .request_mask = P9_GETATTR_BASIC } };
	int rc = p9_session_call(s, &t, NULL, &r);
	if (rc >= 0) {
		*st = r.rgetattr;
	}
	return rc;
}

int p9_session_ftruncate(struct p9_session *s, const struct p9_handle *h, uint64_t size)
{
	struct p9_msg t = { .type = P9_Tsetattr,
			    .tsetattr = { .fid = h->fid, .valid = P9_SETATTR_SIZE, .size = size } };
	return p9_session_call(s, &t, NULL, NULL);
}

int p9_session_fsync(struct p9_session *s, const struct p9_handle *h, bool datasync)
{
	struct p9_msg t = { .type = P9_Tfsync, .tfsync = { .fid = h->fid, .datasync = datasync } };
	return p9_session_call(s, &t, NULL, NULL);
}

/* ---- moving bytes ---- */
struct piece {
	struct p9_session_call call;
	uint32_t want, got;
	int error;
	bool done;
};
struct transfer {
	struct p9_session *s;
	const struct p9_handle *h;
	uint64_t offset;
	uint8_t *buf;
	size_t n;
	bool writing;
};

static void piece_done(struct p9_session_call *c, const struct p9_msg *r)
{
	struct piece *p = (struct piece *)c;
	p->done = true;
	if (r->type == P9_Rlerror) {
		p->error = -(int)r->rlerror.ecode;
	} else {
		p->got = r->type == P9_Rwrite ? r->rwrite.count : r->rread.data.len;
	}
}

static int submit_piece(const struct transfer *x, struct piece *p, uint64_t skip)
{
	uint64_t left = x->n - skip;
	*p = (struct piece){ .call = { piece_done }, .want = left < x->h->chunk ? (uint32_t)left : x->h->chunk };
	uint8_t *at = x->buf + skip;
	struct p9_msg t;
	if (x->writing) {
		t = (struct p9_msg){ .type = P9_Twrite, .twrite = { x->h->fid, x->offset + skip, { p->want, at } } };
	} else {
		t = (struct p9_msg){ .type = P9_Tread, .tread = { x->h->fid, x->offset + skip, p->want } };
	}
	return p9_session_submit(x->s, &t, x->writing ? NULL : at, &p->call);
}

/* Waits until all pieces are answered; at the link's end all are. */
static void wait_for(struct p9_session *s, const struct piece *pieces, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		while (!pieces[i].done && p9_session_step(s, true) >= 0) {
		}
	}
}

/* Up to `window` pieces. Returns the bytes without a gap, 0 when the first brought none, or its error. */
static int64_t some(const struct transfer *x, unsigned window)
{
	struct piece pieces[WINDOW];
	unsigned count = 0;
	uint64_t asked = 0;
	int rc = 0;
	while (count < window && asked < x->n) {
		rc = submit_piece(x, &pieces[count], asked);
		if (rc == -P9_EAGAIN && count == 0) {
			rc = p9_session_step(x->s, true); /* others have all the tags */
			if (rc >= 0) {
				continue;
			}
		}
		if (rc < 0) {
			break;
		}
		asked += pieces[count++].want;
	}
	wait_for(x->s, pieces, count);
	int64_t moved = 0;
	for (unsigned i = 0; i < count; i++) {
		if (pieces[i].error) {
			return moved ? moved : pieces[i].error;
		}
		moved += pieces[i].got;
		if (pieces[i].got < pieces[i].want) {
			break;
		}
	}
	return count ? moved : rc;
}

static int64_t transfer(struct transfer *x)
{
	unsigned window = 1, most = x->h->flags & P9_O_APPEND ? 1 : WINDOW;
	int64_t moved = 0;
	if (x->n > INT64_MAX || x->offset > INT64_MAX - x->n) {
		return -P9_EINVAL;
	}
	while (x->n > 0) {
		int64_t rc = some(x, window);
		if (rc == 0 && x->writing) {
			rc = -P9_EIO; /* a server that never writes would have us ask for ever */
		}
		if (rc <= 0) {
			return moved ? moved : rc;
		}
		moved += rc;
		x->offset += (uint64_t)rc;
		x->buf += rc;
		x->n -= (size_t)rc;
		window = window * 2 < most ? window * 2 : most;
	}
	return moved;
}

int64_t p9_session_read(struct p9_session *s, const struct p9_handle *h, uint64_t offset, void *buf, size_t n)
{
	struct transfer x = { s, h, offset, buf, n, false };
	/* Servers say what they like: EISDIR, EOPNOTSUPP (QEMU), or nothing and bytes. */
	return h->qid.type & P9_QTDIR ? -P9_EISDIR : transfer(&x);
}

int64_t p9_session_write(struct p9_session *s, const struct p9_handle *h, uint64_t offset, const void *buf, size_t n)
{
	struct transfer x = { s, h, offset, (uint8_t *)(uintptr_t)buf, n, true };
	return transfer(&x);
}

/* ---- whole files ---- */
int64_t p9_session_read_file(struct p9_session *s, const char *path, void *buf, size_t cap)
{
	struct p9_handle h;
	uint8_t more;
	int rc = p9_session_open(s, path, P9_O_RDONLY, 0, &h);
	if (rc < 0) {
		return rc;
	}
	int64_t n = p9_session_read(s, &h, 0, buf, cap);
	if (n >= 0 && (size_t)n == cap) {
		int64_t behind = p9_session_read(s, &h, cap, &more, 1);
		n = behind > 0 ? -P9_EFBIG : behind < 0 ? behind : n;
	}
	p9_session_let_go(s, h.fid);
	return n;
}

/* Writes all of it, and closes. */
static int write_and_close(struct p9_session *s, struct p9_handle *h, uint64_t offset, const void *buf, size_t n)
{
	size_t at = 0;
	int64_t rc = 0;
	while (at < n && rc >= 0) {
		rc = p9_session_write(s, h, offset + at, (const uint8_t *)buf + at, n - at);
		at += rc > 0 ? (size_t)rc : 0;
	}
	int last = p9_session_close(s, h);
	return rc < 0 ? (int)rc : last;
}

int p9_session_write_file(struct p9_session *s, const char *path, const void *buf, size_t n, uint32_t mode)
{
	struct p9_handle h;
	int rc = p9_session_open(s, path, P9_O_WRONLY | P9_O_CREAT | P9_O_TRUNC, mode, &h);
	return rc < 0 ? rc : write_and_close(s, &h, 0, buf, n);
}

/* The offset is for servers that do not know O_APPEND. */
int p9_session_append(struct p9_session *s, const char *path, const void *buf, size_t n, uint32_t mode)
{
	struct p9_handle h;
	struct p9_rgetattr st = { 0 };
	int rc = p9_session_open(s, path, P9_O_WRONLY | P9_O_CREAT | P9_O_APPEND, mode, &h);
	if (rc < 0) {
		return rc;
	}
	rc = p9_session_fstat(s, &h, &st);
	if (rc < 0) {
		p9_session_let_go(s, h.fid);
		return rc;
	}
	return write_and_close(s, &h, st.size, buf, n);
}
