/* SPDX-License-Identifier: BSD-2-Clause */
/* gen.c - see gen.h. The pools are those that proto/kinds.def names; what is in them is chosen for the tree that
 * fz_server serves: a few names that exist, a few that may be made, and what no server may accept. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "gen.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define FRAMES_MAX 256

uint32_t fz_rand(uint64_t *rng)
{
	*rng ^= *rng >> 12;
	*rng ^= *rng << 25;
	*rng ^= *rng >> 27;
	return (uint32_t)((*rng * 0x2545F4914F6CDD1Dull) >> 32);
}

/* ---- pools ---- */
static const uint64_t p_any[] = { 0,
				  1,
				  2,
				  0x7f,
				  0x80,
				  0xff,
				  0x7fff,
				  0xffff,
				  0x7fffffff,
				  0x80000000,
				  0xfffffffe,
				  0xffffffff,
				  0x7fffffffffffffffull,
				  ~0ull };
static const uint64_t p_tags[] = { 0, 1, 2, 3, 4, 5, 6, 7, 64, 65, 0xfffe, 0xffff };
static const uint64_t p_fids[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 0xfffffffe, 0xffffffff };
static const uint64_t p_ids[] = { 0, 1, 1000, 65534, 0xfffffffe, 0xffffffff };
static const uint64_t p_oflags[] = {
	0,    1,    2,	     3,	      0x200,   0x201,	 0x202,	 0x400,	   0x401, 0x402,
	0x40, 0xc2, 0x10000, 0x20000, 0x41000, 0x101002, 0x8000, 0x410000, 0x800, 0x40000
};
static const uint64_t p_modes[] = { 0,	    0644,   0755,   0777,   0700,    07777,   02755,   04755,	0100644,
				    010644, 020600, 040755, 060600, 0120777, 0140666, 0170000, 0000777, 01777 };
static const uint64_t p_masks[] = { 0,	  1,	 2,	4,     8,     0x10,  0x20,   0x30, 0x40, 0x90,
				    0xb0, 0x130, 0x180, 0x1ff, 0x200, 0x7ff, 0x3fff, 0xf,  0x79, ~0ull };
static const uint64_t p_offsets[] = { 0,
				      1,
				      2,
				      5,
				      6,
				      7,
				      100,
				      4095,
				      4096,
				      4097,
				      65536,
				      1ull << 31,
				      1ull << 32,
				      1ull << 62,
				      (1ull << 63) - 4096,
				      (1ull << 63) - 1,
				      1ull << 63,
				      ~0ull };
static const uint64_t p_counts[] = { 0,	  1,	5,    6,    10,	   23,	     24,	 40,	    100,
				     512, 4095, 4096, 8192, 65536, 1u << 20, 0x7fffffff, 0xffffffff };
static const uint64_t p_times[] = {
	0, 1, 999999999, 1000000000, 0x3ffffffe, 0x3fffffff, 0x7fffffff, 1ull << 40, ~0ull
};
static const uint64_t p_errnos[] = {
	0, 1, 2, 4, 5, 11, 12, 22, 71, 95, 133, 4095, 4096, 0x7fffffff, 0x80000000, ~0ull
};
static const uint64_t p_locktypes[] = { 0, 1, 2, 3, 255 };
static const uint64_t p_lockflags[] = { 0, 1, 2, 3, 4, 0xffffffff };
static const uint64_t p_atflags[] = { 0, 0x200, 1, 0x100, 0xffffffff };

static const struct num_pool {
	const char *name;
	const uint64_t *v;
	unsigned n;
} num_pools[] = {
#define POOL(name) { #name, p_##name, COUNT(p_##name) }
	POOL(tags),	 POOL(fids),
	POOL(ids),	 POOL(oflags),
	POOL(modes),	 POOL(masks),
	POOL(offsets),	 POOL(counts),
	POOL(times),	 POOL(errnos),
	POOL(locktypes), POOL(lockflags),
	POOL(atflags),	 { "sizes", p_offsets, COUNT(p_offsets) },
};

static char long_text[5000];
static const struct p9_str p_names[] = {
#define S(t) { t, sizeof(t) - 1 }
	S("f"),
	S("d"),
	S("sub"),
	S("leaf"),
	S("big"),
	S("empty"),
	S("fifo"),
	S("sl"),
	S("out"),
	S("hl"),
	S("n1"),
	S("n2"),
	S("n3"),
	S("f"),
	S("d"),
	S("n1"),
	S(".."),
	S("."),
	S(""),
	S("a/b"),
	S("/"),
	S("\0"),
	S("x\0y"),
	S("\xff\xfe"),
	{ long_text, 255 },
	{ long_text, 256 },
	{ long_text, 254 },
};
static const struct p9_str p_anames[] = { S(""),	   S("/"),	S("main"),    S("/main"),	  S("main/d"),
					  S("main/d/sub"), S("//main"), S("main/.."), S("main/sl"),	  S("nope"),
					  S("main/f"),	   S("ro"),	S("/ro/d"),   { long_text, 4000 } };
static const struct p9_str p_targets[] = {
	S("f"), S(""), S("/"), S("../../../.."), S("d/sub"), S("\0"), { long_text, 4095 }, { long_text, 4096 }
};
static const struct p9_str p_xnames[] = { S("user.a"),
					  S("user.b"),
					  S("user."),
					  S(""),
					  S("trusted.x"),
					  S("security.capability"),
					  S("system.posix_acl_access"),
					  S("nope"),
					  { long_text, 255 },
					  { long_text, 256 } };
static const struct str_pool {
	const char *name;
	const struct p9_str *v;
	unsigned n;
} str_pools[] = { { "names", p_names, COUNT(p_names) },
		  { "anames", p_anames, COUNT(p_anames) },
		  { "targets", p_targets, COUNT(p_targets) },
		  { "xnames", p_xnames, COUNT(p_xnames) } };
static const struct p9_str versions[] = {
	S("9P2000.L"), S("9P2000.L"), S("9P2000"), S("9P2000.Lx"), S("unknown"), S("")
};

static uint64_t number(uint64_t *rng, const char *pool)
{
	if (fz_below(rng, 24) == 0) {
		return (uint64_t)fz_rand(rng) << 32 | fz_rand(rng);
	}
	for (size_t i = 0; i < COUNT(num_pools); i++) {
		if (strcmp(num_pools[i].name, pool) == 0) {
			return num_pools[i].v[fz_below(rng, num_pools[i].n)];
		}
	}
	return p_any[fz_below(rng, COUNT(p_any))];
}

static struct p9_str text(uint64_t *rng, const char *pool)
{
	if (!long_text[0]) {
		memset(long_text, 'L', sizeof(long_text));
	}
	for (size_t i = 0; i < COUNT(str_pools); i++) {
		if (strcmp(str_pools[i].name, pool) == 0) {
			return str_pools[i].v[fz_below(rng, str_pools[i].n)];
		}
	}
	return p_names[fz_below(rng, COUNT(p_names))];
}

static struct p9_qid qid(uint64_t *rng)
{
	static const uint8_t types[] = { 0, 0x80, 2, 0xff };
	return (struct p9_qid){ types[fz_below(rng, COUNT(types))], fz_rand(rng), number(rng, "u64s") };
}

static void list_field(uint64_t *rng, uint8_t wire, const char *pool, void *at)
{
	struct p9_strs *strs = at;
	struct p9_qids *qids = at;
	uint16_t n = (uint16_t)(fz_below(rng, 8) == 0 ? fz_below(rng, P9_MAXWELEM + 1) : fz_below(rng, 4));
	if (wire == P9_WIRE_strs) {
		strs->n = n;
		for (unsigned i = 0; i < n; i++) {
			strs->v[i] = text(rng, pool);
		}
	} else {
		qids->n = n;
		for (unsigned i = 0; i < n; i++) {
			qids->v[i] = qid(rng);
		}
	}
}

static struct p9_data payload(uint64_t *rng)
{
	static uint8_t bytes[9000];
	static const uint32_t lengths[] = { 0, 1, 5, 24, 64, 100, 1000, 4096, 8192 };
	uint32_t n = lengths[fz_below(rng, fz_below(rng, 8) == 0 ? COUNT(lengths) : 5)];
	for (uint32_t i = 0; i < n && i < 64; i++) {
		bytes[i] = (uint8_t)fz_rand(rng);
	}
	return (struct p9_data){ n, bytes };
}

void fz_field(uint64_t *rng, const struct p9_field *f, struct p9_msg *m)
{
	void *at = (char *)m + f->offset;
	const char *pool = f->kind->fuzz;
	switch (f->kind->wire) {
	case P9_WIRE_u8:
		*(uint8_t *)at = (uint8_t)number(rng, pool);
		break;
	case P9_WIRE_u16:
		*(uint16_t *)at = (uint16_t)number(rng, pool);
		break;
	case P9_WIRE_u32:
		*(uint32_t *)at = (uint32_t)number(rng, pool);
		break;
	case P9_WIRE_u64:
		*(uint64_t *)at = number(rng, pool);
		break;
	case P9_WIRE_str:
		*(struct p9_str *)at =
			strcmp(f->name, "version") == 0 ? versions[fz_below(rng, COUNT(versions))] : text(rng, pool);
		break;
	case P9_WIRE_qid:
		*(struct p9_qid *)at = qid(rng);
		break;
	case P9_WIRE_data:
		*(struct p9_data *)at = payload(rng);
		break;
	default:
		list_field(rng, f->kind->wire, pool, at);
		break;
	}
}

void fz_message_of(uint64_t *rng, uint8_t type, struct p9_msg *m)
{
	const struct p9_desc *d = p9_wire_desc(type);
	memset(m, 0, sizeof(*m));
	m->type = type;
	m->tag = type == P9_Tversion ? P9_NOTAG : (uint16_t)fz_below(rng, 8);
	for (unsigned i = 0; d && i < d->nfields; i++) {
		fz_field(rng, &d->fields[i], m);
	}
}

void fz_message(uint64_t *rng, enum fz_side side, struct p9_msg *m)
{
	static uint8_t types[2][128];
	static unsigned n[2];
	unsigned s = side == FZ_R;
	bool first = n[s] == 0;
	for (unsigned t = 0; first && t < 128; t++) {
		const struct p9_desc *d = p9_wire_desc(t);
		if (d && d->name[0] == (char)side) {
			types[s][n[s]++] = (uint8_t)t;
		}
	}
	fz_message_of(rng, types[s][fz_below(rng, n[s])], m);
}

size_t fz_put(uint8_t *buf, size_t cap, const struct p9_msg *m)
{
	int n = p9_wire_encode(buf, cap, m);
	return n < 0 ? 0 : (size_t)n;
}

/* ---- streams ---- */
size_t fz_next(const uint8_t *data, size_t size, size_t pos, bool *whole)
{
	size_t left = size - pos;
	uint32_t n = left >= 4 ? p9_get32(data + pos) : 0;
	*whole = n >= P9_HDRSZ && n <= left;
	return *whole ? n : left;
}

struct span {
	size_t at, len;
};

static unsigned split(const uint8_t *data, size_t size, struct span *v)
{
	unsigned n = 0;
	bool whole;
	for (size_t pos = 0; pos < size && n < FRAMES_MAX;) {
		v[n] = (struct span){ pos, fz_next(data, size, pos, &whole) };
		pos += v[n++].len;
	}
	return n;
}

static size_t replace(uint8_t *data, size_t size, size_t max, struct span old, const uint8_t *with, size_t n)
{
	if (size - old.len + n > max) {
		return size;
	}
	memmove(data + old.at + n, data + old.at + old.len, size - old.at - old.len);
	memcpy(data + old.at, with, n);
	return size - old.len + n;
}

/* Another value in one field of one message; sometimes its tag, its size field, or its end. */
static size_t change_message(uint64_t *rng, uint8_t *data, size_t size, size_t max, struct span s)
{
	static uint8_t buf[96 * 1024];
	struct p9_msg m;
	if (s.len > sizeof(buf) / 2 || s.len < P9_HDRSZ || p9_wire_decode(data + s.at, s.len, 0, &m) < 0) {
		return LLVMFuzzerMutate(data, size, max);
	}
	const struct p9_desc *d = p9_wire_desc(m.type);
	if (d && d->nfields && fz_below(rng, 8)) {
		for (unsigned i = 0, k = fz_below(rng, 4) == 0 ? 2 : 1; i < k; i++) {
			fz_field(rng, &d->fields[fz_below(rng, d->nfields)], &m);
		}
	} else {
		m.tag = (uint16_t)number(rng, "tags");
	}
	size_t n = fz_put(buf, sizeof(buf), &m);
	if (n && fz_below(rng, 40) == 0) { /* a message whose end and size do not agree */
		size_t other = fz_below(rng, (uint32_t)n + 8);
		memcpy(buf, &(uint32_t){ (uint32_t)other }, 4);
	}
	return n ? replace(data, size, max, s, buf, n) : size;
}

static size_t insert_message(uint64_t *rng, uint8_t *data, size_t size, size_t max, struct span at, enum fz_side side)
{
	static uint8_t buf[96 * 1024];
	struct p9_msg m;
	fz_message(rng, side, &m);
	size_t n = fz_put(buf, sizeof(buf), &m);
	return replace(data, size, max, (struct span){ at.at, 0 }, buf, n);
}

static size_t swap_messages(uint8_t *data, struct span a, struct span b, size_t size)
{
	static uint8_t copy[256 * 1024];
	if (a.at >= b.at || size > sizeof(copy)) {
		return size;
	}
	memcpy(copy, data, size);
	uint8_t *p = data + a.at;
	memcpy(p, copy + b.at, b.len);
	p += b.len;
	memcpy(p, copy + a.at + a.len, b.at - a.at - a.len);
	p += b.at - a.at - a.len;
	memcpy(p, copy + a.at, a.len);
	return size;
}

size_t fz_mutate(uint8_t *data, size_t size, size_t max, unsigned seed, enum fz_side side)
{
	uint64_t rng = (uint64_t)seed * 0x9E3779B97F4A7C15ull | 1;
	static uint8_t one[96 * 1024];
	struct span v[FRAMES_MAX];
	for (unsigned rounds = 1 + fz_below(&rng, 3); rounds; rounds--) {
		unsigned n = split(data, size, v);
		struct span s = n ? v[fz_below(&rng, n)] : (struct span){ 0, 0 };
		uint32_t what = fz_below(&rng, 32);
		if (n == 0 || what < 6) {
			size = insert_message(&rng, data, size, max, s, side);
		} else if (what < 22) {
			size = change_message(&rng, data, size, max, s);
		} else if (what < 24) {
			size = replace(data, size, max, s, one, 0);
		} else if (what < 27 && s.len <= sizeof(one)) {
			memcpy(one, data + s.at, s.len);
			struct span to = { v[fz_below(&rng, n)].at, 0 };
			size = replace(data, size, max, to, one, s.len);
		} else if (what < 29) {
			size = swap_messages(data, s, v[fz_below(&rng, n)], size);
		} else if (what < 30) {
			size = s.at + fz_below(&rng, (uint32_t)s.len + 1);
		} else {
			size = LLVMFuzzerMutate(data, size, max);
		}
	}
	return size;
}

size_t fz_cross(const uint8_t *a, size_t na, const uint8_t *b, size_t nb, uint8_t *out, size_t max, unsigned seed)
{
	uint64_t rng = (uint64_t)seed * 0x9E3779B97F4A7C15ull | 1;
	struct span va[FRAMES_MAX], vb[FRAMES_MAX];
	unsigned ka = split(a, na, va), kb = split(b, nb, vb);
	size_t head = ka ? va[fz_below(&rng, ka)].at : 0, from = kb ? vb[fz_below(&rng, kb)].at : 0;
	head = head < max ? head : max;
	memcpy(out, a, head);
	size_t tail = nb - from < max - head ? nb - from : max - head;
	memcpy(out + head, b + from, tail);
	return head + tail;
}
