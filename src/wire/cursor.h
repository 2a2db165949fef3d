/* SPDX-License-Identifier: BSD-2-Clause */
/* cursor.h - the two cursors that hold every bound of the codec.
 *
 * Both are sticky: past the end a read yields 0 and a write does nothing, `bad` is set, and one look at the end of the
 * message decides. No other code of wire/ compares positions.
 */
#ifndef P9_WIRE_CURSOR_H
#define P9_WIRE_CURSOR_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "p9/messages.h"

struct p9_in {
	const uint8_t *p, *end;
	size_t elsewhere; /* payload bytes that are not in p..end */
	bool bad;
};
struct p9_out {
	uint8_t *p, *end;
	bool bad;
};

/* n bytes to read, or NULL (and bad). */
static inline const uint8_t *p9_in_take(struct p9_in *c, size_t n)
{
	if (__builtin_expect((size_t)(c->end - c->p) < n, 0)) {
		c->bad = true;
		c->p = c->end;
		return NULL;
	}
	const uint8_t *p = c->p;
	c->p += n;
	return p;
}
/* n bytes to write, or NULL (and bad). */
static inline uint8_t *p9_out_take(struct p9_out *c, size_t n)
{
	if (__builtin_expect((size_t)(c->end - c->p) < n, 0)) {
		c->bad = true;
		c->end = c->p;
		return NULL;
	}
	uint8_t *p = c->p;
	c->p += n;
	return p;
}

/* The wire is little-endian: a plain copy on most hosts, reversed on the others. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define P9_LE16(x) (x)
#define P9_LE32(x) (x)
#define P9_LE64(x) (x)
#else
#define P9_LE16(x) __builtin_bswap16(x)
#define P9_LE32(x) __builtin_bswap32(x)
#define P9_LE64(x) __builtin_bswap64(x)
#endif
#define P9_LE8(x) (x)

#define P9_INT(bits)                                                                              \
	static inline void p9_get_u##bits(struct p9_in *c, uint##bits##_t *v)                     \
	{                                                                                         \
		const uint8_t *p = p9_in_take(c, sizeof(*v));                                     \
		uint##bits##_t x = 0;                                                             \
		if (p) {                                                                          \
			__builtin_memcpy(&x, p, sizeof(x));                                                 \
		}                                                                                 \
		*v = P9_LE##bits(x);                                                              \
	}                                                                                         \
	static inline void p9_put_u##bits(struct p9_out *c, const uint##bits##_t *v)              \
	{                                                                                         \
		uint8_t *p = p9_out_take(c, sizeof(*v));                                          \
		uint##bits##_t x = P9_LE##bits(*v);                                               \
		if (p) {                                                                          \
			__builtin_memcpy(p, &x, sizeof(x));                                                 \
		}                                                                                 \
	}
P9_INT(8)
P9_INT(16)
P9_INT(32)
P9_INT(64)
#undef P9_INT

/* Length and equality of C strings: freestanding code has no strlen and strcmp. */
static inline size_t p9_cstr_len(const char *s)
{
	size_t n = 0;
	while (s[n]) {
		n++;
	}
	return n;
}
static inline bool p9_cstr_is(const char *s, const char *t, size_t n)
{
	return p9_cstr_len(s) == n && memcmp(s, t, n) == 0;
}

static inline void p9_get_str(struct p9_in *c, struct p9_str *v)
{
	p9_get_u16(c, &v->len);
	v->s = (const char *)p9_in_take(c, v->len);
	if (!v->s) {
		v->len = 0;
	}
}
static inline void p9_put_str(struct p9_out *c, const struct p9_str *v)
{
	p9_put_u16(c, &v->len);
	uint8_t *p = p9_out_take(c, v->len);
	if (p && v->len) {
		__builtin_memcpy(p, v->s, v->len);
	}
}
static inline void p9_get_qid(struct p9_in *c, struct p9_qid *v)
{
	p9_get_u8(c, &v->type);
	p9_get_u32(c, &v->version);
	p9_get_u64(c, &v->path);
}
static inline void p9_put_qid(struct p9_out *c, const struct p9_qid *v)
{
	p9_put_u8(c, &v->type);
	p9_put_u32(c, &v->version);
	p9_put_u64(c, &v->path);
}
/* Lists keep the count that was sent, so that a check can refuse it; only 16 elements are stored, all are parsed. */
static inline void p9_get_strs(struct p9_in *c, struct p9_strs *v)
{
	p9_get_u16(c, &v->n);
	for (unsigned i = 0; i < v->n && !c->bad; i++) {
		struct p9_str s;
		p9_get_str(c, &s);
		if (i < P9_MAXWELEM) {
			v->v[i] = s;
		}
	}
}
static inline void p9_put_strs(struct p9_out *c, const struct p9_strs *v)
{
	p9_put_u16(c, &v->n);
	c->bad |= v->n > P9_MAXWELEM;
	for (unsigned i = 0; i < v->n && !c->bad; i++) {
		p9_put_str(c, &v->v[i]);
	}
}
static inline void p9_get_qids(struct p9_in *c, struct p9_qids *v)
{
	p9_get_u16(c, &v->n);
	for (unsigned i = 0; i < v->n && !c->bad; i++) {
		struct p9_qid q;
		p9_get_qid(c, &q);
		if (i < P9_MAXWELEM) {
			v->v[i] = q;
		}
	}
}
static inline void p9_put_qids(struct p9_out *c, const struct p9_qids *v)
{
	p9_put_u16(c, &v->n);
	c->bad |= v->n > P9_MAXWELEM;
	for (unsigned i = 0; i < v->n && !c->bad; i++) {
		p9_put_qid(c, &v->v[i]);
	}
}
/* Payload must be exactly what is left of the frame, here and elsewhere. */
static inline void p9_get_data(struct p9_in *c, struct p9_data *v)
{
	p9_get_u32(c, &v->len);
	size_t here = (size_t)(c->end - c->p);
	if (c->bad || v->len != here + c->elsewhere) {
		c->bad = true;
		v->len = 0;
		v->p = NULL;
		return;
	}
	v->p = c->elsewhere == 0 ? c->p : NULL;
	c->p = c->end;
	c->elsewhere = 0;
}
static inline void p9_put_data(struct p9_out *c, const struct p9_data *v)
{
	p9_put_u32(c, &v->len);
}

#endif
