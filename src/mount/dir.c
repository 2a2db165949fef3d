/* SPDX-License-Identifier: BSD-2-Clause */
/* dir.c - readdir and readdirplus.
 *
 * The kernel's offsets are the server's cookies. Entries come in blocks that are larger than the kernel asks for; what
 * it did not take stays with the handle as long as it reads on from there, and is read anew when it seeks. readdirplus
 * walks to the entries it does not know and looks at all that the kernel was not told of just now, in one go. A server whose cookies come round again is caught
 * (Brent's way: remember one, ever more rarely, and look whether it comes back).
 */
#include <stdlib.h>
#include <string.h>
#include "mount/internal.h"

#define BLOCK (64u * 1024)
#define ENTRY_MIN 24u /* of the wire, without the name */
#define PLUS_MIN 152u /* of the kernel's readdirplus, without the name */
#define PLAIN_MIN 24u

/* ---- reading a block; r->off is the cookie, r->size what the kernel has room for ---- */
static int block_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	const struct p9_mhandle *h = r->h;
	uint32_t n = h->iosize < BLOCK ? h->iosize : BLOCK;
	(void)i;
	if (h->ents && h->ents_pos < h->ents_len && r->off == h->cookie && r->off != 0) {
		return P9_MSKIP; /* some are left of the last block */
	}
	*dst = p9_mreq_buffer(r, BLOCK);
	*t = (struct p9_msg){ .type = P9_Treaddir, .treaddir = { .fid = r->h->fid, .offset = r->off, .count = n } };
	return *dst ? 0 : -P9_ENOMEM;
}

/* True when a listing has come back to where it was. */
static bool goes_round(struct p9_mhandle *h, uint64_t cookie)
{
	if (h->steps && cookie == h->mark) {
		return true;
	}
	if (h->steps++ == h->stride) {
		h->mark = cookie;
		h->stride = h->stride * 2 + 1;
		h->steps = 1;
	}
	return false;
}

static int block_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	struct p9_mhandle *h = r->h;
	(void)i;
	if (r->off == 0 || r->off != h->cookie) { /* it begins anew */
		h->mark = r->off;
		h->steps = h->stride = 1;
	} else if (reply->rreaddir.data.len && goes_round(h, r->off)) {
		return -P9_EIO;
	}
	free(h->ents);
	h->ents = r->buf;
	h->ents_len = reply->rreaddir.data.len;
	h->ents_pos = 0;
	h->cookie = r->off;
	r->buf = NULL;
	r->buf_kind = P9_BUF_NONE;
	return 0;
}

static void fill(struct p9_mreq *r);
static void block_finish(struct p9_mreq *r)
{
	if (r->error) {
		p9_mreq_err(r, r->error);
	} else {
		fill(r);
	}
}

static const struct p9_mop block_op = {
	.name = "readdir", .steps = 1, .build = block_build, .took = block_took, .finish = block_finish
};

/* ---- entries for the kernel ---- */
static bool next_entry(const struct p9_mhandle *h, size_t *pos, struct p9_dirent *e)
{
	struct p9_data d = { h->ents_len, h->ents };
	return p9_wire_dirent_get(&d, pos, e) > 0;
}

static bool dots(const uint8_t *name, size_t len)
{
	return name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'));
}

static uint32_t type_of(uint8_t type)
{
	return (uint32_t)type << 12 & S_IFMT;
}

static void fill_plain(struct p9_mreq *r)
{
	struct p9_mhandle *h = r->h;
	struct p9_dirent e;
	char *out = p9_mreq_buffer(r, r->size ? r->size : 1), name[P9_NAMEMAX + 1];
	size_t used = 0, pos = h->ents_pos;
	if (!out) {
		p9_mreq_err(r, -P9_ENOMEM);
		return;
	}
	while (r->req && next_entry(h, &pos, &e)) {
		struct stat st = { .st_ino = p9_mattr_ino(e.qid.path), .st_mode = type_of(e.type) };
		memcpy(name, e.name.s, e.name.len);
		name[e.name.len] = 0;
		size_t n = fuse_add_direntry(r->req, out + used, r->size - used, name, &st, (off_t)e.offset);
		if (n > r->size - used) {
			break;
		}
		used += n;
		h->ents_pos = (uint32_t)pos;
		h->cookie = e.offset;
	}
	p9_mreq_buf(r, out, used);
}

/* ---- plus: of r->piece steps for each entry the first walks to it, the second looks at it, and others ask for extended
 * attributes that it is not expected to have ---- */
static int plus_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	struct p9_mentry *e = &r->entries[i / r->piece];
	unsigned what = i % r->piece;
	(void)dst;
	bool known = e->ino || dots(e->name, e->name_len);
	if (e->fresh) {
		return P9_MSKIP;
	}
	if (what == 0) {
		if (known || r->ino->fid == P9_NOFID) { /* or its fid was given back: the kernel will look names up */
			return P9_MSKIP;
		}
		struct p9_str name = { (const char *)e->name, e->name_len };
		int rc = p9_client_fid(r->m->client, &e->fid);
		*t = (struct p9_msg){ .type = P9_Twalk,
				      .twalk = { .fid = r->ino->fid, .newfid = e->fid, .wname = { 1, { name } } } };
		return rc;
	}
	if (!e->ino && (e->fid == P9_NOFID || r->calls[i - what].error || (r->u32[2] && !e->walked))) {
		return P9_MSKIP;
	}
	if (what > 1) {
		if (!r->m->xnames[what - 2].of[(e->qid.type & P9_QTDIR) != 0]) {
			return P9_MSKIP;
		}
		*t = (struct p9_msg){ .type = P9_Txattrwalk,
				      .txattrwalk = { .fid = e->ino ? e->ino->fid : e->fid,
						      .name = p9_mstr(r->m->xnames[what - 2].name) } };
		return p9_client_fid(r->m->client, &t->txattrwalk.newfid);
	}
	*t = (struct p9_msg){ .type = P9_Tgetattr,
			      .tgetattr = { .fid = e->ino ? e->ino->fid : e->fid, .request_mask = P9_MOUNT_ATTRS } };
	return 0;
}

static int plus_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	struct p9_mentry *e = &r->entries[i / r->piece];
	unsigned what = i % r->piece;
	if (what > 1) {
		return 0; /* it has it: the fid goes back with the request */
	}
	if (what == 0) {
		e->qid = reply->rwalk.wqid.v[0];
		e->walked = true;
		if (r->u32[2] &&
		    r->calls[i + 1].state == P9_MCALL_DONE) { /* else it is still to be built, and will see */
			p9_mreq_step(r, i + 1);
		}
		return 0;
	}
	e->attr = reply->rgetattr;
	e->got = p9_mattr_check(&e->attr) == 0 && e->attr.qid.path == e->qid.path && e->attr.qid.type == e->qid.type;
	return 0;
}

/* What an entry was found not to have. */
static void note_absent(struct p9_mreq *r, unsigned k, struct p9_minode *i)
{
	struct p9_mount *m = r->m;
	uint8_t mask = 0;
	for (unsigned x = 0; x + 2 < r->piece; x++) {
		int error = r->calls[k * r->piece + 2 + x].error;
		mask |= (uint8_t)((error != 0 && error == m->xnames[x].error) << x);
	}
	if (r->u32[1] == m->xepoch && r->changes == m->xchanges) {
		p9_mabsent_set(m, i, mask, r->changes);
	}
}

/* What the kernel is told about one entry; without an inode it will look it up when it wants to know. */
static void plus_entry(struct p9_mreq *r, unsigned k, struct fuse_entry_param *out)
{
	struct p9_mentry *e = &r->entries[k];
	struct p9_mount *m = r->m;
	*out = (struct fuse_entry_param){ .attr = { .st_ino = p9_mattr_ino(e->qid.path),
						    .st_mode = type_of(e->type) } };
	if (!e->got) {
		return;
	}
	bool walked = !e->ino;
	struct p9_minode *i = p9_minode_got(m, &e->attr, walked ? e->fid : P9_NOFID);
	if (!i || (!walked && i != e->ino)) { /* no memory, or a known inode that changed its type */
		return;
	}
	if (walked) {
		p9_mreq_take(r, e->fid);
		p9_minode_hold(m, i);
		e->ino = i;
		p9_minode_place(m, i, r->ino, (const char *)e->name, e->name_len);
	}
	p9_mentry_fill(m, i, &e->attr, out);
	note_absent(r, k, i);
}

static void plus_forget(struct p9_mreq *r, unsigned upto)
{
	for (unsigned k = 0; k < upto; k++) {
		if (r->entries[k].counted) {
			p9_minode_forget(r->m, r->entries[k].ino, 1);
		}
	}
}

static void plus_release(struct p9_mreq *r)
{
	for (unsigned k = 0; k < r->nentries; k++) {
		p9_minode_release(r->m, r->entries[k].ino);
		r->entries[k].ino = NULL;
	}
}

static void plus_finish(struct p9_mreq *r)
{
	char *out = p9_mreq_buffer(r, r->size), name[P9_NAMEMAX + 1];
	size_t used = 0;
	unsigned k;
	r->error = out ? 0 : -P9_ENOMEM;
	for (k = 0; out && r->req && k < r->nentries; k++) {
		struct p9_mentry *e = &r->entries[k];
		struct fuse_entry_param p;
		plus_entry(r, k, &p);
		memcpy(name, e->name, e->name_len);
		name[e->name_len] = 0;
		size_t n = fuse_add_direntry_plus(r->req, out + used, r->size - used, name, &p, (off_t)e->offset);
		if (n > r->size - used) {
			break; /* cannot be: they were counted before */
		}
		used += n;
		if (p.ino) {
			p9_minode_looked(r->m, e->ino);
			e->counted = true;
		}
	}
	if (r->req && out) {
		int rc = fuse_reply_buf(r->req, out, used);
		r->req = NULL;
		plus_forget(r, rc < 0 ? k : 0);
	}
	plus_release(r);
	p9_mreq_err(r, r->error);
}

static const struct p9_mop plus_op = {
	.name = "readdirplus", .build = plus_build, .took = plus_took, .finish = plus_finish
};

/* Takes from the block what will fit. */
static unsigned choose(struct p9_mreq *r, unsigned most)
{
	struct p9_mhandle *h = r->h;
	size_t pos = h->ents_pos, used = 0;
	struct p9_dirent e;
	unsigned n = 0;
	while (n < most && next_entry(h, &pos, &e)) {
		size_t need = (PLUS_MIN + e.name.len + 7) & ~(size_t)7;
		if (used + need > r->size) {
			break;
		}
		used += need;
		struct p9_mentry *me = &r->entries[n++];
		*me = (struct p9_mentry){ .qid = e.qid,
					  .offset = e.offset,
					  .type = e.type,
					  .fid = P9_NOFID,
					  .name = (const uint8_t *)e.name.s,
					  .name_len = e.name.len };
		struct p9_minode *i = p9_minode_named(r->m, r->ino, e.name.s, e.name.len);
		if (i && i->hashed && i->path == e.qid.path && i->qtype == e.qid.type && i->fid != P9_NOFID) {
			p9_minode_hold(r->m, i);
			me->ino = i;
			me->fresh = r->piece == 2 && p9_mentry_fresh(r->m, i);
		}
		h->ents_pos = (uint32_t)pos;
		h->cookie = e.offset;
	}
	return n;
}

/* Names must outlive a seek that reads another block. */
static bool keep_names(struct p9_mreq *r)
{
	size_t len = 0;
	for (unsigned k = 0; k < r->nentries; k++) {
		len += r->entries[k].name_len;
	}
	uint8_t *p = malloc(len ? len : 1);
	r->text = (char *)p;
	for (unsigned k = 0; p && k < r->nentries; k++) {
		memcpy(p, r->entries[k].name, r->entries[k].name_len);
		r->entries[k].name = p;
		p += r->entries[k].name_len;
	}
	return p != NULL;
}

static void fill_plus(struct p9_mreq *r)
{
	unsigned most = (unsigned)(r->size / PLUS_MIN);
	unsigned cap = (r->h->ents_len - r->h->ents_pos) / ENTRY_MIN;
	r->piece = 2 + (r->m->ordered ? p9_mabsent_names(r->m) : 0);
	most = most < cap ? most : cap;
	r->entries = calloc(most ? most : 1, sizeof(*r->entries));
	r->nentries = r->entries ? choose(r, most) : 0;
	if (!r->entries || !keep_names(r)) {
		plus_release(r);
		p9_mreq_err(r, -P9_ENOMEM);
		return;
	}
	if (r->nentries == 0) {
		p9_mreq_buf(r, NULL, 0);
		return;
	}
	r->u32[2] = !r->m->ordered; /* then each walk's reply is awaited */
	r->u32[1] = r->m->xepoch;
	r->changes = r->m->xchanges;
	if (p9_mreq_many(r, r->piece * r->nentries)) {
		p9_mreq_chain(r, &plus_op);
	}
}

static void fill(struct p9_mreq *r)
{
	if (r->u32[0]) {
		fill_plus(r);
	} else {
		fill_plain(r);
	}
}

static void begin(struct p9_mreq *r, size_t size, off_t off, bool plus)
{
	r->size = size;
	r->off = (uint64_t)off;
	r->u32[0] = plus;
	p9_mreq_begin(r, &block_op);
}

static void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct p9_mreq *r = p9_mreq_open(req, ino, fi);
	if (r) {
		begin(r, size, off, false);
	}
}

static void do_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct p9_mreq *r = p9_mreq_open(req, ino, fi);
	if (r) {
		begin(r, size, off, true);
	}
}

void p9_mop_dir(struct fuse_lowlevel_ops *ops)
{
	ops->readdir = do_readdir;
	ops->readdirplus = do_readdirplus;
}
