/* SPDX-License-Identifier: BSD-2-Clause */
/* io.c - read, write, fsync.
 *
 * There is no lseek: 9P cannot ask for holes, so all of a file is data, and that the kernel says by itself, by the size it
 * knows. With writeback it knows it better than the server does.
 * The kernel's requests have up to 1 MiB; each is split into pieces that the connection can carry, which travel
 * together. A read that comes up short of a file's known size goes on, since short means the end to the kernel. Bytes
 * written go to the socket from where the kernel's request was read to, bytes read come from it into the buffer that
 * the kernel copies from.
 */
#include <errno.h>
#include "mount/internal.h"

#define PAGE 4096u
#define READ_PIECE (256u * 1024) /* two in flight, so that copying here and at the server overlap */

/* Splits what is left of r->size. */
static unsigned split(struct p9_mreq *r, uint32_t most)
{
	size_t left = r->size - r->done;
	uint32_t io = r->h->iosize < most ? r->h->iosize : most;
	unsigned n = (unsigned)((left + io - 1) / io);
	uint32_t even = n ? (uint32_t)((left + n - 1) / n + PAGE - 1) / PAGE * PAGE : 0;
	r->piece = n > 1 && even <= io ? even : io;
	n = (unsigned)((left + r->piece - 1) / r->piece);
	return n ? n : 1;
}

static uint32_t piece_len(const struct p9_mreq *r, unsigned i)
{
	size_t left = r->size - r->done - (size_t)i * r->piece;
	return left < r->piece ? (uint32_t)left : r->piece;
}

/* Adds up to where the first piece came short. True when that one was not empty. */
static bool gather(struct p9_mreq *r)
{
	for (unsigned i = 0; i < r->ncalls; i++) {
		uint32_t got = r->calls[i].got, want = piece_len(r, i);
		if (r->calls[i].error) {
			r->done += (size_t)i * r->piece;
			return false;
		}
		if (got < want) {
			r->done += (size_t)i * r->piece + got;
			return got > 0;
		}
	}
	r->done += (size_t)(r->ncalls - 1) * r->piece + piece_len(r, r->ncalls - 1);
	return true;
}

/* ---- read ---- */
static int read_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	size_t at = r->done + (size_t)i * r->piece;
	*dst = r->buf + at;
	*t = (struct p9_msg){ .type = P9_Tread,
			      .tread = { .fid = r->h->fid, .offset = r->off + at, .count = piece_len(r, i) } };
	return 0;
}

static int read_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	r->calls[i].got = reply->rread.data.len;
	return 0;
}

static void read_finish(struct p9_mreq *r)
{
	bool more = gather(r);
	if (r->error) {
		p9_mreq_err(r, r->error);
		return;
	}
	if (more && r->done < r->size && r->off + r->done < r->ino->size) {
		r->ncalls = (uint16_t)split(r, r->piece);
		p9_mreq_chain(r, r->op);
		return;
	}
	p9_mreq_buf(r, r->buf, r->done);
}

static const struct p9_mop read_op = { .name = "read", .build = read_build, .took = read_took, .finish = read_finish };

/* Answers from what was read with the open, once. */
static bool from_head(struct p9_mreq *r)
{
	struct p9_mhandle *h = r->h;
	struct p9_mount *m = r->m;
	bool fresh = h->head_changes == m->changes && p9_mount_now() - h->head_when < P9_MHEAD_MS;
	bool whole = r->off == 0 && r->size >= h->head_len && r->req;
	if (fresh && whole) {
		fuse_reply_buf(r->req, (const char *)h->head, h->head_len);
		r->req = NULL;
	}
	p9_mhandle_behead(m, h);
	if (r->req) {
		return false;
	}
	p9_mreq_free(r);
	return true;
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct p9_mreq *r = p9_mreq_open(req, ino, fi);
	if (!r) {
		return;
	}
	r->size = size;
	r->off = (uint64_t)off;
	r->ino->content = true;
	if (r->h->head && from_head(r)) {
		return;
	}
	if (!p9_mreq_buffer(r, size ? size : 1)) {
		p9_mreq_err(r, -P9_ENOMEM);
	} else if (p9_mreq_many(r, split(r, READ_PIECE))) {
		p9_mreq_begin(r, &read_op);
	}
}

/* ---- write ---- */
static int write_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	size_t at = r->done + (size_t)i * r->piece;
	(void)dst;
	*t = (struct p9_msg){
		.type = P9_Twrite,
		.twrite = { .fid = r->h->fid, .offset = r->off + at, .data = { piece_len(r, i), r->data + at } }
	};
	return 0;
}

static int write_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	r->calls[i].got = reply->rwrite.count;
	return 0;
}

static void write_finish(struct p9_mreq *r)
{
	size_t before = r->done;
	bool append = r->h->flags & P9_O_APPEND;
	if (append) { /* one piece at a time, so that they land in order */
		r->done += r->calls[0].error ? 0 : r->calls[0].got;
	} else {
		gather(r);
	}
	if (!r->error && r->done > before && r->done < r->size && r->req) {
		unsigned n = split(r, r->piece);
		r->ncalls = append ? 1 : (uint16_t)n;
		p9_mreq_chain(r, r->op);
		return;
	}
	if (r->off + r->done > r->ino->size && !append) {
		r->ino->size = r->off + r->done;
	}
	if (r->done == 0 && r->size > 0) {
		p9_mreq_err(r, r->error ? r->error : -P9_EIO);
		return;
	}
	if (r->req) {
		fuse_reply_write(r->req, r->done);
		r->req = NULL;
	}
	p9_mreq_free(r);
}

static const struct p9_mop write_op = {
	.name = "write", .writes = true, .build = write_build, .took = write_took, .finish = write_finish
};

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct p9_mreq *r = p9_mreq_open(req, ino, fi);
	if (!r) {
		return;
	}
	r->data = (const uint8_t *)buf;
	r->size = size;
	r->off = (uint64_t)off;
	p9_mreq_keep(r);
	unsigned n = split(r, P9_MOUNT_IO);
	if (p9_mreq_many(r, n)) {
		r->ncalls = r->h->flags & P9_O_APPEND ? 1 : (uint16_t)n;
		p9_mreq_begin(r, &write_op);
	}
}

/* ---- fsync ---- */
static int fsync_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	(void)i;
	(void)dst;
	*t = (struct p9_msg){ .type = P9_Tfsync, .tfsync = { .fid = r->h->fid, .datasync = r->u32[0] } };
	return 0;
}

static void fsync_finish(struct p9_mreq *r)
{
	p9_mreq_err(r, r->error);
}

static const struct p9_mop fsync_op = { .name = "fsync", .steps = 1, .build = fsync_build, .finish = fsync_finish };

static void do_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct p9_mreq *r = p9_mreq_open(req, ino, fi);
	if (r) {
		r->u32[0] = datasync != 0;
		p9_mreq_begin(r, &fsync_op);
	}
}

void p9_mop_io(struct fuse_lowlevel_ops *ops)
{
	ops->read = do_read;
	ops->write = do_write;
	ops->fsync = do_fsync;
	ops->fsyncdir = do_fsync;
}
