/* SPDX-License-Identifier: BSD-2-Clause */
/* desc.c - the messages as data: descriptors made from proto/, and the codec that is one loop over them.
 *
 * The printer, the .9t language and the fuzzers' mutator read these tables; the slow codec is compared with codec.c by
 * tests and fuzzing, so that two readings of the same .def must agree.
 */
#include "p9/codec.h"
#include "wire/cursor.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum {
#define KIND(k, wire, check, print, fuzz, doc) K_##k,
#include "kinds.def"
};

static const struct p9_kind kinds[] = {
#define KIND(k, w, check, p, fuzz, doc) [K_##k] = { #k, #fuzz, doc, P9_WIRE_##w, P9_PRINT_##p },
#include "kinds.def"
};

const struct p9_flag p9_wire_flags[] = {
#define FLAG(set, name, value) { #set, #name, value },
#include "flags.def"
};
const unsigned p9_wire_nflags = COUNT(p9_wire_flags);

const struct p9_flag *p9_wire_flag(const char *name, size_t n)
{
	for (unsigned i = 0; i < COUNT(p9_wire_flags); i++) {
		if (p9_cstr_is(p9_wire_flags[i].name, name, n)) {
			return &p9_wire_flags[i];
		}
	}
	return NULL;
}

const struct p9_flag *p9_wire_flag_of(const char *set, uint64_t value, bool bit)
{
	size_t n = p9_cstr_len(set);
	for (unsigned i = 0; i < COUNT(p9_wire_flags); i++) {
		const struct p9_flag *f = &p9_wire_flags[i];
		bool single = f->value && (f->value & (f->value - 1)) == 0;
		bool hit = bit ? single && (value & f->value) : value == f->value;
		if (hit && p9_cstr_is(f->set, set, n)) {
			return f;
		}
	}
	return NULL;
}

uint64_t p9_wire_number(uint8_t wire, const void *field)
{
	switch (wire) {
	case P9_WIRE_u8:
		return *(const uint8_t *)field;
	case P9_WIRE_u16:
		return *(const uint16_t *)field;
	case P9_WIRE_u32:
		return *(const uint32_t *)field;
	default:
		return *(const uint64_t *)field;
	}
}

enum { EFFECT_pure = 0, EFFECT_changes = 1, BODY = offsetof(struct p9_msg, tversion) };

/* One static table per message, in the scope of its case, where `self` names the message's struct. */
const struct p9_desc *p9_wire_desc(unsigned type)
{
	switch (type) {
#define TMSG(lo, num, st, ord, eff, doc) \
	case num: { \
		typedef struct p9_t##lo self; \
		enum { NUM = num, STATE = P9_STATE_##st, ORDER = P9_ORDER_##ord, CHANGES = EFFECT_##eff }; \
		static const char text[] = "T" #lo; \
		static const struct p9_field fields[] = {
#define RMSG(lo, num, doc) \
	case num: { \
		typedef struct p9_r##lo self; \
		enum { NUM = num, STATE = P9_STATE_any, ORDER = P9_ORDER_none, CHANGES = 0 }; \
		static const char text[] = "R" #lo; \
		static const struct p9_field fields[] = {
#define FIELD(k, f, doc) { #f, &kinds[K_##k], (uint16_t)(BODY + offsetof(self, f)) },
#define END(dir, lo) \
	{ \
		NULL, NULL, (uint16_t)sizeof(self) \
	} \
	} \
	; \
	static const struct p9_desc desc = { text, fields, NUM, COUNT(fields) - 1, STATE, ORDER, CHANGES }; \
	return &desc; \
	}
#include "9p2000L.def"
	default:
		return NULL;
	}
}

int p9_wire_type(const char *name, size_t n)
{
	for (unsigned t = 0; t < 256; t++) {
		const struct p9_desc *d = p9_wire_desc(t);
		if (d && p9_cstr_is(d->name, name, n)) {
			return (int)t;
		}
	}
	return -1;
}

static void get_field(struct p9_in *c, uint8_t wire, void *v)
{
	switch (wire) {
	case P9_WIRE_u8:
		p9_get_u8(c, v);
		break;
	case P9_WIRE_u16:
		p9_get_u16(c, v);
		break;
	case P9_WIRE_u32:
		p9_get_u32(c, v);
		break;
	case P9_WIRE_u64:
		p9_get_u64(c, v);
		break;
	case P9_WIRE_str:
		p9_get_str(c, v);
		break;
	case P9_WIRE_strs:
		p9_get_strs(c, v);
		break;
	case P9_WIRE_qid:
		p9_get_qid(c, v);
		break;
	case P9_WIRE_qids:
		p9_get_qids(c, v);
		break;
	default:
		p9_get_data(c, v);
		break;
	}
}

static void put_field(struct p9_out *c, uint8_t wire, const void *v)
{
	switch (wire) {
	case P9_WIRE_u8:
		p9_put_u8(c, v);
		break;
	case P9_WIRE_u16:
		p9_put_u16(c, v);
		break;
	case P9_WIRE_u32:
		p9_put_u32(c, v);
		break;
	case P9_WIRE_u64:
		p9_put_u64(c, v);
		break;
	case P9_WIRE_str:
		p9_put_str(c, v);
		break;
	case P9_WIRE_strs:
		p9_put_strs(c, v);
		break;
	case P9_WIRE_qid:
		p9_put_qid(c, v);
		break;
	case P9_WIRE_qids:
		p9_put_qids(c, v);
		break;
	default:
		p9_put_data(c, v);
		break;
	}
}

int p9_wire_decode_desc(const uint8_t *buf, size_t len, size_t elsewhere, struct p9_msg *msg)
{
	struct p9_in c = { buf, buf + len, elsewhere, false };
	uint32_t size;
	p9_get_u32(&c, &size);
	p9_get_u8(&c, &msg->type);
	p9_get_u16(&c, &msg->tag);
	if (c.bad || size != len + elsewhere) {
		return -P9_EPROTO;
	}
	const struct p9_desc *d = p9_wire_desc(msg->type);
	if (!d) {
		return -P9_EOPNOTSUPP;
	}
	for (unsigned i = 0; i < d->nfields; i++) {
		get_field(&c, d->fields[i].kind->wire, (char *)msg + d->fields[i].offset);
	}
	return c.bad || c.p != c.end || c.elsewhere != 0 ? -P9_EPROTO : 0;
}

static size_t field_size(uint8_t wire, const void *v)
{
	static const uint8_t fixed[] = { [P9_WIRE_u8] = 1,  [P9_WIRE_u16] = 2,	      [P9_WIRE_u32] = 4,
					 [P9_WIRE_u64] = 8, [P9_WIRE_qid] = P9_QIDSZ, [P9_WIRE_data] = 4 };
	const struct p9_strs *strs = v;
	size_t n = 2;
	switch (wire) {
	case P9_WIRE_str:
		return 2 + (size_t)((const struct p9_str *)v)->len;
	case P9_WIRE_strs:
		for (unsigned i = 0; i < strs->n && i < P9_MAXWELEM; i++) {
			n += 2 + (size_t)strs->v[i].len;
		}
		return n;
	case P9_WIRE_qids:
		return 2 + (size_t)((const struct p9_qids *)v)->n * P9_QIDSZ;
	case P9_WIRE_data:
		return 4 + (size_t)((const struct p9_data *)v)->len;
	default:
		return fixed[wire];
	}
}

size_t p9_wire_size(const struct p9_msg *msg)
{
	const struct p9_desc *d = p9_wire_desc(msg->type);
	if (!d) {
		return 0;
	}
	size_t n = P9_HDRSZ;
	for (unsigned i = 0; i < d->nfields; i++) {
		n += field_size(d->fields[i].kind->wire, (const char *)msg + d->fields[i].offset);
	}
	return n;
}

int p9_wire_encode_desc(uint8_t *buf, size_t cap, const struct p9_msg *msg)
{
	const struct p9_desc *d = p9_wire_desc(msg->type);
	struct p9_out c = { buf, buf + cap, false };
	uint32_t size = (uint32_t)p9_wire_size(msg);
	if (!d) {
		return -P9_EMSGSIZE;
	}
	p9_put_u32(&c, &size);
	p9_put_u8(&c, &msg->type);
	p9_put_u16(&c, &msg->tag);
	for (unsigned i = 0; i < d->nfields; i++) {
		put_field(&c, d->fields[i].kind->wire, (const char *)msg + d->fields[i].offset);
	}
	return c.bad ? -P9_EMSGSIZE : (int)(c.p - buf);
}
