/* SPDX-License-Identifier: BSD-2-Clause */
/* talk_msg.c - values of the .9t language to messages, and messages against what an rx expects.
 *
 * Both directions walk the fields of a descriptor; no message is named here. Encoding is done here and not by codec.c,
 * because a script must be able to send what the codec refuses: lists of 17 names, strings without sense. Matching works
 * on what p9_wire_decode gave, whose views are bounded by the frame.
 */
#include <string.h>
#include "p9/talk.h"

struct bytes {
	struct talk_vars *vs;
	uint8_t *p;
	size_t n, cap;
};

static int put(struct bytes *b, const void *p, size_t n)
{
	if (b->n + n > b->cap) {
		size_t cap = 2 * (b->n + n) + 64;
		uint8_t *q = p9_talk_alloc(&b->vs->tmp, cap);
		if (!q) {
			return p9_talk_fail(b->vs->err, (struct talk_pos){ 0 }, "message too large");
		}
		if (b->n) {
			memcpy(q, b->p, b->n);
		}
		b->p = q;
		b->cap = cap;
	}
	if (n) {
		memcpy(b->p + b->n, p, n);
	}
	b->n += n;
	return 0;
}

static int put_int(struct bytes *b, uint64_t v, unsigned bytes)
{
	uint8_t le[8];
	for (unsigned i = 0; i < bytes; i++) {
		le[i] = (uint8_t)(v >> (8 * i));
	}
	return put(b, le, bytes);
}

/* Widths of the wire types that are numbers. */
static unsigned int_bytes(uint8_t wire)
{
	static const uint8_t bytes[] = { [P9_WIRE_u8] = 1, [P9_WIRE_u16] = 2, [P9_WIRE_u32] = 4, [P9_WIRE_u64] = 8 };
	return wire < sizeof(bytes) ? bytes[wire] : 0;
}

static int wrong(struct talk_vars *vs, const struct talk_field *f, const char *want, const struct talk_val *got)
{
	char text[256];
	p9_talk_show(text, sizeof(text), got);
	return p9_talk_fail(vs->err, f->pos, "%.*s: expected %s, found %s", (int)f->name.len, f->name.s, want, text);
}

static int put_number(struct bytes *b, const struct talk_field *f, const struct talk_val *v, unsigned bytes)
{
	uint64_t x, max = bytes == 8 ? UINT64_MAX : ((uint64_t)1 << (8 * bytes)) - 1;
	if (!p9_talk_number(v, &x)) {
		return wrong(b->vs, f, "a number", v);
	}
	if (x > max && x < UINT64_MAX - max / 2) {
		char want[32];
		snprintf(want, sizeof(want), "at most %u bits", 8 * bytes);
		return wrong(b->vs, f, want, v);
	}
	return put_int(b, x, bytes);
}

static int put_qid(struct bytes *b, const struct talk_field *f, const struct talk_val *v)
{
	if (v->kind != VAL_QID) {
		return wrong(b->vs, f, "qid(type, version, path) or a bound @name", v);
	}
	return put_int(b, v->qid.type, 1) < 0 || put_int(b, v->qid.version, 4) < 0 ? -1 : put_int(b, v->qid.path, 8);
}

static int put_text(struct bytes *b, const struct talk_field *f, const struct talk_val *v, unsigned bytes)
{
	if (v->kind != VAL_STR || (bytes == 2 && v->text.len > UINT16_MAX)) {
		return wrong(b->vs, f, bytes == 2 ? "a string of at most 65535 bytes" : "a string", v);
	}
	return put_int(b, v->text.len, bytes) < 0 ? -1 : put(b, v->text.s, v->text.len);
}

static int put_list(struct bytes *b, const struct talk_field *f, const struct talk_val *v, bool qids)
{
	if (v->kind != VAL_LIST || v->num > UINT16_MAX) {
		return wrong(b->vs, f, "a list", v);
	}
	int rc = put_int(b, v->num, 2);
	for (uint64_t i = 0; rc == 0 && i < v->num; i++) {
		rc = qids ? put_qid(b, f, &v->v[i]) : put_text(b, f, &v->v[i], 2);
	}
	return rc;
}

static int put_value(struct bytes *b, const struct talk_field *f, uint8_t wire, const struct talk_val *v)
{
	switch (wire) {
	case P9_WIRE_str:
		return put_text(b, f, v, 2);
	case P9_WIRE_data:
		return put_text(b, f, v, 4);
	case P9_WIRE_qid:
		return put_qid(b, f, v);
	case P9_WIRE_strs:
	case P9_WIRE_qids:
		return put_list(b, f, v, wire == P9_WIRE_qids);
	default:
		return put_number(b, f, v, int_bytes(wire));
	}
}

/* What a field of this kind is when the script does not say: 0 or empty, and by meaning where that would be useless. */
static struct talk_val unsaid(const struct p9_field *fd, const struct talk_ids *ids)
{
	const struct talk_text kind = { fd->kind->name, strlen(fd->kind->name) };
	struct talk_val v = { .kind = VAL_NUM, .text = { "", 0 } };
	if (p9_talk_is(&kind, "afid")) {
		v.num = P9_NOFID;
	} else if (p9_talk_is(&kind, "n_uname") || p9_talk_is(&kind, "uid")) {
		v.num = ids->uid;
	} else if (p9_talk_is(&kind, "gid")) {
		v.num = ids->gid;
	} else if (p9_talk_is(&kind, "msize")) {
		v.num = ids->msize;
	} else if (p9_talk_is(&kind, "aname")) {
		v.text = ids->aname;
	} else if (p9_talk_is(&kind, "version")) {
		v.text = (struct talk_text){ "9P2000.L", 8 };
	}
	uint8_t wire = fd->kind->wire;
	if (wire == P9_WIRE_str || wire == P9_WIRE_data) {
		v.kind = VAL_STR;
	} else if (wire == P9_WIRE_qid) {
		v.kind = VAL_QID;
	} else if (int_bytes(wire) == 0) {
		v.kind = VAL_LIST;
	}
	return v;
}

static const struct talk_field *said(const struct talk_stmt *st, const char *name)
{
	for (unsigned i = 0; i < st->nfields; i++) {
		if (p9_talk_is(&st->fields[i].name, name)) {
			return &st->fields[i];
		}
	}
	return NULL;
}

static int header_part(struct bytes *b, const struct talk_stmt *st, const char *name, uint64_t *v)
{
	const struct talk_field *f = said(st, name);
	return f ? p9_talk_eval_num(b->vs, &f->value, v) : 0;
}

static void finish(struct bytes *b, uint64_t size, struct talk_text *out)
{
	for (unsigned i = 0; i < 4; i++) {
		b->p[i] = (uint8_t)(size >> (8 * i));
	}
	*out = (struct talk_text){ (const char *)b->p, b->n };
}

int p9_talk_encode(struct talk_vars *vs, const struct talk_stmt *st, const struct talk_ids *ids, struct talk_text *out)
{
	struct bytes b = { .vs = vs };
	uint64_t tag = ids->tag;
	if (header_part(&b, st, "tag", &tag) < 0 || put_int(&b, 0, 4) < 0 || put_int(&b, st->msg->type, 1) < 0 ||
	    put_int(&b, tag, 2) < 0) {
		return -1;
	}
	for (unsigned i = 0; i < st->msg->nfields; i++) {
		const struct p9_field *fd = &st->msg->fields[i];
		const struct talk_field *f = said(st, fd->name);
		const struct talk_field none = { .name = { fd->name, strlen(fd->name) }, .pos = st->pos };
		struct talk_val v = unsaid(fd, ids);
		if (f && p9_talk_eval(vs, &f->value, &v) < 0) {
			return -1;
		}
		if (put_value(&b, f ? f : &none, fd->kind->wire, &v) < 0) {
			return -1;
		}
	}
	finish(&b, b.n, out);
	return 0;
}

int p9_talk_frame(struct talk_vars *vs, const struct talk_stmt *st, const struct talk_ids *ids, struct talk_text *out)
{
	struct bytes b = { .vs = vs };
	uint64_t tag = ids->tag, type = 0, size = 0;
	struct talk_text body = { "", 0 };
	const struct talk_field *f = said(st, "body");
	if (f && p9_talk_eval_text(vs, &f->value, &body) < 0) {
		return -1;
	}
	size = body.len + P9_HDRSZ;
	if (header_part(&b, st, "tag", &tag) < 0 || header_part(&b, st, "type", &type) < 0 ||
	    header_part(&b, st, "size", &size) < 0) {
		return -1;
	}
	if (put_int(&b, 0, 4) < 0 || put_int(&b, type, 1) < 0 || put_int(&b, tag, 2) < 0 ||
	    put(&b, body.s, body.len) < 0) {
		return -1;
	}
	finish(&b, size, out);
	return 0;
}

/* ---- what came, as a value ---- */
static struct talk_val number(uint64_t v)
{
	return (struct talk_val){ .kind = VAL_NUM, .num = v };
}
static struct talk_val text(const void *s, size_t n)
{
	return (struct talk_val){ .kind = VAL_STR, .text = { s ? s : "", n } };
}

static struct talk_val list(struct talk_vars *vs, uint64_t n)
{
	struct talk_val v = { .kind = VAL_LIST, .num = n, .v = p9_talk_alloc(&vs->tmp, (n + 1) * sizeof(*v.v)) };
	v.num = v.v ? n : 0;
	return v;
}

/* Entries of a readdir payload as a list: names, or cookies. */
static struct talk_val entries(struct talk_vars *vs, const struct p9_data *d, bool names)
{
	struct p9_dirent e;
	size_t pos = 0;
	uint64_t n = 0;
	while (p9_wire_dirent_get(d, &pos, &e) > 0) {
		n++;
	}
	struct talk_val v = list(vs, n);
	pos = 0;
	for (uint64_t i = 0; i < v.num && p9_wire_dirent_get(d, &pos, &e) > 0; i++) {
		v.v[i] = names ? text(e.name.s, e.name.len) : number(e.offset);
	}
	return v;
}

static struct talk_val data_value(struct talk_vars *vs, const struct p9_data *d, const struct talk_text *sub)
{
	if (sub->len == 0) {
		return text(d->p, d->len);
	}
	if (p9_talk_is(sub, "len")) {
		return number(d->len);
	}
	struct talk_val v = entries(vs, d, p9_talk_is(sub, "names"));
	if (p9_talk_is(sub, "n")) {
		return number(v.num);
	}
	if (p9_talk_is(sub, "last")) {
		return v.num ? v.v[v.num - 1] : number(0);
	}
	return v;
}

static struct talk_val qid_value(const struct p9_qid *q, const struct talk_text *sub)
{
	if (p9_talk_is(sub, "type")) {
		return number(q->type);
	}
	if (p9_talk_is(sub, "version")) {
		return number(q->version);
	}
	if (p9_talk_is(sub, "path")) {
		return number(q->path);
	}
	return (struct talk_val){ .kind = VAL_QID, .qid = *q };
}

static struct talk_val qids_value(struct talk_vars *vs, const struct p9_qids *q, const struct talk_text *sub)
{
	uint64_t n = q->n < P9_MAXWELEM ? q->n : P9_MAXWELEM;
	if (p9_talk_is(sub, "n")) {
		return number(q->n);
	}
	if (p9_talk_is(sub, "last") && n > 0) {
		return qid_value(&q->v[n - 1], &(struct talk_text){ "", 0 });
	}
	struct talk_val v = list(vs, n);
	for (uint64_t i = 0; i < v.num; i++) {
		v.v[i] = p9_talk_is(sub, "paths") ? number(q->v[i].path)
						  : (struct talk_val){ .kind = VAL_QID, .qid = q->v[i] };
	}
	return v;
}

static struct talk_val strs_value(struct talk_vars *vs, const struct p9_strs *s, const struct talk_text *sub)
{
	uint64_t n = s->n < P9_MAXWELEM ? s->n : P9_MAXWELEM;
	if (p9_talk_is(sub, "n")) {
		return number(s->n);
	}
	struct talk_val v = list(vs, n);
	for (uint64_t i = 0; i < v.num; i++) {
		v.v[i] = text(s->v[i].s, s->v[i].len);
	}
	return v;
}

static struct talk_val came(struct talk_vars *vs, const struct talk_field *f, const struct p9_msg *m)
{
	if (!f->desc) {
		return number(p9_talk_is(&f->name, "tag") ? m->tag : m->type);
	}
	const void *p = (const char *)m + f->desc->offset;
	switch (f->desc->kind->wire) {
	case P9_WIRE_str:
		return f->sub.len ? number(((const struct p9_str *)p)->len)
				  : text(((const struct p9_str *)p)->s, ((const struct p9_str *)p)->len);
	case P9_WIRE_data:
		return data_value(vs, p, &f->sub);
	case P9_WIRE_qid:
		return qid_value(p, &f->sub);
	case P9_WIRE_qids:
		return qids_value(vs, p, &f->sub);
	case P9_WIRE_strs:
		return strs_value(vs, p, &f->sub);
	default:
		return number(p9_wire_number(f->desc->kind->wire, p));
	}
}

int p9_talk_match(struct talk_vars *vs, const struct talk_stmt *st, const struct p9_msg *m, char *why, size_t cap)
{
	for (unsigned i = 0; i < st->nfields; i++) {
		const struct talk_field *f = &st->fields[i];
		struct talk_val v = came(vs, f, m);
		uint64_t mask;
		if (f->mask.n > 0) {
			if (v.kind != VAL_NUM) {
				return wrong(vs, f, "a number to mask", &v);
			}
			if (p9_talk_eval_num(vs, &f->mask, &mask) < 0) {
				return -1;
			}
			v.num &= mask;
		}
		/* A directory entry is looked for by name. */
		bool has = f->cmp == CMP_HAS || f->cmp == CMP_HASNOT;
		bool dirents = f->desc && f->desc->kind->print == P9_PRINT_dirents && f->sub.len == 0;
		if (has && dirents) {
			v = entries(vs, (const void *)((const char *)m + f->desc->offset), true);
		}
		int rc = p9_talk_compare(vs, &v, f, why, cap);
		if (rc != 0) {
			return rc;
		}
	}
	return 0;
}
