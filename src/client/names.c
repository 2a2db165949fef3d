/* SPDX-License-Identifier: BSD-2-Clause */
/* names.c - the tree of names by which files were reached (names.h): a hash table by parent and text.
 *
 * Called by track.c. Must stay true: a name counts the one above it; what is in the table has a parent.
 */
#include <stdlib.h>
#include <string.h>
#include "client/names.h"

static unsigned place(const struct p9_names *t, const struct p9_name *up, struct p9_str s)
{
	uint64_t h = (uint64_t)(uintptr_t)up * UINT64_C(0x9e3779b97f4a7c15);
	for (unsigned i = 0; i < s.len; i++) {
		h = (h ^ (uint8_t)s.s[i]) * UINT64_C(0x100000001b3);
	}
	return (unsigned)(h >> 32) & (t->cap - 1);
}

static struct p9_str text_of(const struct p9_name *n)
{
	return (struct p9_str){ n->text, n->len };
}

static bool grow(struct p9_names *t)
{
	struct p9_names bigger = { .cap = t->cap ? 2 * t->cap : 64, .n = t->n };
	if (t->n < t->cap) {
		return true;
	}
	bigger.table = calloc(bigger.cap, sizeof(*bigger.table));
	if (!bigger.table) {
		return t->cap > 0; /* it gets slower, that is all */
	}
	for (unsigned i = 0; i < t->cap; i++) {
		for (struct p9_name *n = t->table[i], *next; n; n = next) {
			unsigned to = place(&bigger, n->up, text_of(n));
			next = n->next;
			n->next = bigger.table[to];
			bigger.table[to] = n;
		}
	}
	free(t->table);
	*t = bigger;
	return true;
}

void p9_names_fini(struct p9_names *t)
{
	free(t->table);
	*t = (struct p9_names){ 0 };
}

struct p9_name *p9_names_root(void)
{
	struct p9_name *n = calloc(1, sizeof(*n));
	if (n) {
		n->refs = 1;
	}
	return n;
}

struct p9_name *p9_name_get(struct p9_name *n)
{
	if (n) {
		n->refs++;
	}
	return n;
}

static void take_out(struct p9_names *t, struct p9_name *n)
{
	struct p9_name **at = &t->table[place(t, n->up, text_of(n))];
	while (*at != n) {
		at = &(*at)->next;
	}
	*at = n->next;
	n->there = false;
	t->n--;
}

static void put_in(struct p9_names *t, struct p9_name *n)
{
	struct p9_name **at = &t->table[place(t, n->up, text_of(n))];
	n->next = *at;
	*at = n;
	n->there = true;
	t->n++;
}

void p9_name_put(struct p9_names *t, struct p9_name *n)
{
	while (n && --n->refs == 0) {
		struct p9_name *up = n->up;
		if (n->there) {
			take_out(t, n);
		}
		free(n->text);
		free(n);
		n = up;
	}
}

struct p9_name *p9_names_find(struct p9_names *t, const struct p9_name *up, struct p9_str s)
{
	struct p9_name *n = t->cap ? t->table[place(t, up, s)] : NULL;
	while (n && !(n->up == up && n->len == s.len && memcmp(n->text, s.s, s.len) == 0)) {
		n = n->next;
	}
	return n;
}

static char *copy(struct p9_str s)
{
	char *text = malloc(s.len + 1u);
	if (text) {
		memcpy(text, s.s, s.len);
		text[s.len] = 0;
	}
	return text;
}

struct p9_name *p9_names_below(struct p9_names *t, struct p9_name *up, struct p9_str s)
{
	struct p9_name *n = p9_names_find(t, up, s);
	if (n) {
		return p9_name_get(n);
	}
	n = grow(t) ? calloc(1, sizeof(*n)) : NULL;
	char *text = n ? copy(s) : NULL;
	if (!text) {
		free(n);
		return NULL;
	}
	*n = (struct p9_name){ .up = p9_name_get(up), .text = text, .len = s.len, .refs = 1 };
	put_in(t, n);
	return n;
}

void p9_names_gone(struct p9_names *t, struct p9_name *n)
{
	if (n && n->there) {
		take_out(t, n);
	}
}

void p9_names_move(struct p9_names *t, struct p9_name *n, struct p9_name *up, struct p9_str s)
{
	struct p9_name *old = p9_names_find(t, up, s), *was = n->up;
	if (old == n) {
		return;
	}
	char *text = copy(s);
	p9_names_gone(t, old);
	p9_names_gone(t, n);
	if (!text || !was) {
		free(text);
		return;
	}
	free(n->text);
	n->text = text;
	n->len = s.len;
	n->up = p9_name_get(up);
	put_in(t, n);
	p9_name_put(t, was);
}

int p9_name_depth(const struct p9_name *n)
{
	int depth = 0;
	for (; n && n->up; n = n->up) {
		if (!n->there) {
			return -P9_ENOENT;
		}
		depth++;
	}
	return n ? depth : -P9_ENOENT;
}

unsigned p9_name_path(const struct p9_name *n, unsigned from, size_t room, struct p9_strs *out)
{
	unsigned depth = (unsigned)p9_name_depth(n), most = from + P9_MAXWELEM;
	for (unsigned i = depth; i > from; i--, n = n->up) {
		if (i <= most) {
			out->v[i - 1 - from] = text_of(n);
		}
	}
	unsigned k = 0, all = depth < most ? depth - from : P9_MAXWELEM;
	while (k < all && out->v[k].len + 2u <= room) {
		room -= out->v[k++].len + 2u;
	}
	out->n = (uint16_t)k;
	return k;
}
