/* SPDX-License-Identifier: BSD-2-Clause */
/* random_msg.c - messages with random fields, made and compared by the descriptors. */
#include "lib/p9t.h"

static const char *store_bytes(struct p9t_rng *r, struct p9t_store *store, size_t n)
{
	if (n > sizeof(store->bytes) - store->used) {
		store->used = 0; /* contents may be shared, only their length matters */
	}
	char *p = store->bytes + store->used;
	for (size_t i = 0; i < n; i++) {
		p[i] = (char)p9t_rand(r);
	}
	store->used += n;
	return p;
}

static uint64_t random_int(struct p9t_rng *r)
{
	static const uint64_t edges[] = { 0,	  1,	     0x7f,	 0x80,	    0xff,      0x7fff,
					  0xffff, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX };
	return p9t_rand_below(r, 3) ? p9t_rand(r) : edges[p9t_rand_below(r, P9T_COUNT(edges))];
}

static struct p9_str random_str(struct p9t_rng *r, struct p9t_store *store)
{
	static const uint16_t lengths[] = { 0, 1, 2, 3, 7, 8, 31, 255, 256, 1000 };
	uint16_t n = lengths[p9t_rand_below(r, P9T_COUNT(lengths))];
	return (struct p9_str){ store_bytes(r, store, n), n };
}

static struct p9_qid random_qid(struct p9t_rng *r)
{
	return (struct p9_qid){ (uint8_t)p9t_rand(r), (uint32_t)random_int(r), random_int(r) };
}

static void random_field(struct p9t_rng *r, struct p9t_store *store, uint8_t wire, void *v)
{
	uint64_t x = random_int(r);
	struct p9_strs *strs = v;
	struct p9_qids *qids = v;
	static const uint8_t width[] = { [P9_WIRE_u8] = 1, [P9_WIRE_u16] = 2, [P9_WIRE_u32] = 4, [P9_WIRE_u64] = 8 };
	switch (wire) {
	case P9_WIRE_str:
		*(struct p9_str *)v = random_str(r, store);
		break;
	case P9_WIRE_strs:
		strs->n = (uint16_t)p9t_rand_below(r, P9_MAXWELEM + 1);
		for (unsigned i = 0; i < strs->n; i++) {
			strs->v[i] = random_str(r, store);
		}
		break;
	case P9_WIRE_qid:
		*(struct p9_qid *)v = random_qid(r);
		break;
	case P9_WIRE_qids:
		qids->n = (uint16_t)p9t_rand_below(r, P9_MAXWELEM + 1);
		for (unsigned i = 0; i < qids->n; i++) {
			qids->v[i] = random_qid(r);
		}
		break;
	case P9_WIRE_data: {
		uint32_t n = (uint32_t)p9t_rand_below(r, 300);
		*(struct p9_data *)v = (struct p9_data){ n, (const uint8_t *)store_bytes(r, store, n) };
		break;
	}
	default: {
		uint8_t u8 = (uint8_t)x;
		uint16_t u16 = (uint16_t)x;
		uint32_t u32 = (uint32_t)x;
		const void *from[] = { [1] = &u8, [2] = &u16, [4] = &u32, [8] = &x };
		memcpy(v, from[width[wire]], width[wire]);
		break;
	}
	}
}

void p9t_random_msg(struct p9t_rng *r, struct p9t_store *store, uint8_t type, struct p9_msg *msg)
{
	const struct p9_desc *d = p9_wire_desc(type);
	assert_non_null(d);
	memset(msg, 0xee, sizeof(*msg));
	msg->type = type;
	msg->tag = (uint16_t)random_int(r);
	for (unsigned i = 0; i < d->nfields; i++) {
		random_field(r, store, d->fields[i].kind->wire, (char *)msg + d->fields[i].offset);
	}
}

static bool str_equal(const struct p9_str *a, const struct p9_str *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->s, b->s, a->len) == 0);
}
static bool qid_equal(const struct p9_qid *a, const struct p9_qid *b)
{
	return a->type == b->type && a->version == b->version && a->path == b->path;
}
static bool strs_equal(const struct p9_strs *a, const struct p9_strs *b)
{
	for (unsigned i = 0; a->n == b->n && i < a->n && i < P9_MAXWELEM; i++) {
		if (!str_equal(&a->v[i], &b->v[i])) {
			return false;
		}
	}
	return a->n == b->n;
}
static bool qids_equal(const struct p9_qids *a, const struct p9_qids *b)
{
	for (unsigned i = 0; a->n == b->n && i < a->n && i < P9_MAXWELEM; i++) {
		if (!qid_equal(&a->v[i], &b->v[i])) {
			return false;
		}
	}
	return a->n == b->n;
}
static bool data_equal(const struct p9_data *a, const struct p9_data *b)
{
	return a->len == b->len && (a->p == b->p || a->len == 0 || (a->p && b->p && memcmp(a->p, b->p, a->len) == 0));
}

static bool field_equal(uint8_t wire, const void *a, const void *b)
{
	static const uint8_t width[] = { [P9_WIRE_u8] = 1, [P9_WIRE_u16] = 2, [P9_WIRE_u32] = 4, [P9_WIRE_u64] = 8 };
	switch (wire) {
	case P9_WIRE_str:
		return str_equal(a, b);
	case P9_WIRE_strs:
		return strs_equal(a, b);
	case P9_WIRE_qid:
		return qid_equal(a, b);
	case P9_WIRE_qids:
		return qids_equal(a, b);
	case P9_WIRE_data:
		return data_equal(a, b);
	default:
		return memcmp(a, b, width[wire]) == 0;
	}
}

void p9t_assert_msg_equal(const struct p9_msg *a, const struct p9_msg *b)
{
	assert_int_equal(a->type, b->type);
	assert_int_equal(a->tag, b->tag);
	const struct p9_desc *d = p9_wire_desc(a->type);
	for (unsigned i = 0; d && i < d->nfields; i++) {
		const struct p9_field *f = &d->fields[i];
		if (!field_equal(f->kind->wire, (const char *)a + f->offset, (const char *)b + f->offset)) {
			fail_msg("%s: field %s differs", d->name, f->name);
		}
	}
}
