/* SPDX-License-Identifier: BSD-2-Clause */
/* pack.c - see pack.h. Called by the server, its backends and transports when a p9d hands over to another.
 *
 * A number is 1 to 10 bytes, seven bits each, low ones first. A reference is the number of the thing, counted from 1 as
 * things are met, so one that is next in the count is new. A descriptor is its place in the list, plus 1; each place is
 * taken once. Must stay true: whatever bytes come, nothing is read outside of them, and each descriptor has one owner.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/pack.h"

#define FIRST 256u

/* ---- writing ---- */
void p9_pack_fail(struct p9_pack *p, const char *fmt, ...)
{
	va_list ap;
	if (p->why[0]) {
		return;
	}
	va_start(ap, fmt);
	vsnprintf(p->why, sizeof(p->why), fmt, ap);
	va_end(ap);
}

/* Room for n bytes more, or NULL. */
static uint8_t *room(struct p9_pack *p, size_t n)
{
	if (p->why[0]) {
		return NULL;
	}
	if (n > p->cap - p->len) {
		size_t cap = p->cap ? p->cap : 4096;
		while (cap - p->len < n && cap < SIZE_MAX / 2) {
			cap *= 2;
		}
		uint8_t *more = cap - p->len >= n ? realloc(p->bytes, cap) : NULL;
		if (!more) {
			p9_pack_fail(p, "out of memory");
			return NULL;
		}
		p->bytes = more;
		p->cap = cap;
	}
	uint8_t *at = p->bytes + p->len;
	p->len += n;
	return at;
}

void p9_pack_number(struct p9_pack *p, uint64_t v)
{
	uint8_t b[10];
	size_t n = 0;
	do {
		b[n] = (uint8_t)(v & 127) | (v > 127 ? 128 : 0);
		n++;
		v >>= 7;
	} while (v);
	uint8_t *to = room(p, n);
	if (to) {
		memcpy(to, b, n);
	}
}

void p9_pack_bytes(struct p9_pack *p, const void *bytes, size_t n)
{
	p9_pack_number(p, n);
	uint8_t *to = room(p, n);
	if (to && n) {
		memcpy(to, bytes, n);
	}
}

void p9_pack_text(struct p9_pack *p, const char *text)
{
	p9_pack_bytes(p, text, strlen(text));
}

void p9_pack_fd(struct p9_pack *p, int fd)
{
	if (fd < 0) {
		p9_pack_number(p, 0);
		return;
	}
	if (p->nfds == p->fds_cap) {
		size_t cap = p->fds_cap ? p->fds_cap * 2 : FIRST;
		int *more = realloc(p->fds, cap * sizeof(*more));
		if (!more) {
			p9_pack_fail(p, "out of memory");
			return;
		}
		p->fds = more;
		p->fds_cap = cap;
	}
	p->fds[p->nfds++] = fd;
	p9_pack_number(p, p->nfds);
}

static uint32_t place(const struct p9_packed *table, uint32_t cap, const void *thing)
{
	uint64_t x = (uint64_t)(uintptr_t)thing * 0x9e3779b97f4a7c15ull;
	uint32_t h = (uint32_t)(x >> 32) & (cap - 1);
	while (table[h].thing && table[h].thing != thing) {
		h = (h + 1) & (cap - 1);
	}
	return h;
}

static bool grow(struct p9_pack *p)
{
	uint32_t cap = p->seen_cap ? p->seen_cap * 2 : FIRST;
	struct p9_packed *t = cap ? calloc(cap, sizeof(*t)) : NULL;
	if (!t) {
		p9_pack_fail(p, "out of memory");
		return false;
	}
	for (uint32_t i = 0; i < p->seen_cap; i++) {
		if (p->seen[i].thing) {
			t[place(t, cap, p->seen[i].thing)] = p->seen[i];
		}
	}
	free(p->seen);
	p->seen = t;
	p->seen_cap = cap;
	return true;
}

bool p9_pack_knows(const struct p9_pack *p, const void *thing)
{
	return p->seen_cap && p->seen[place(p->seen, p->seen_cap, thing)].thing;
}

bool p9_pack_thing(struct p9_pack *p, const void *thing)
{
	if (!thing) {
		p9_pack_number(p, 0);
		return false;
	}
	if (p->nseen * 2 >= p->seen_cap && !grow(p)) {
		return false;
	}
	struct p9_packed *e = &p->seen[place(p->seen, p->seen_cap, thing)];
	bool fresh = !e->thing;
	if (fresh) {
		*e = (struct p9_packed){ thing, ++p->nseen };
	}
	p9_pack_number(p, e->number);
	return fresh;
}

void p9_pack_fini(struct p9_pack *p)
{
	free(p->bytes);
	free(p->fds);
	free(p->seen);
	memset(p, 0, sizeof(*p));
}

/* ---- reading ---- */
void p9_unpack_init(struct p9_unpack *u, const void *bytes, size_t len, int *fds, size_t nfds)
{
	*u = (struct p9_unpack){ .bytes = bytes, .len = len, .fds = fds, .nfds = nfds };
}

bool p9_unpack_bad(const struct p9_unpack *u)
{
	return u->why[0] != 0;
}

void p9_unpack_fail(struct p9_unpack *u, const char *fmt, ...)
{
	va_list ap;
	if (u->why[0]) {
		return;
	}
	va_start(ap, fmt);
	vsnprintf(u->why, sizeof(u->why), fmt, ap);
	va_end(ap);
}

uint64_t p9_unpack_number(struct p9_unpack *u, uint64_t most)
{
	uint64_t v = 0;
	unsigned shift = 0;
	bool more = true;
	while (more && !u->why[0]) {
		if (u->at == u->len || shift > 63 || (shift == 63 && u->bytes[u->at] > 1)) {
			p9_unpack_fail(u, "a number is not whole, at byte %zu", u->at);
			break;
		}
		uint8_t b = u->bytes[u->at++];
		v |= (uint64_t)(b & 127) << shift;
		shift += 7;
		more = b & 128;
	}
	if (v > most) {
		p9_unpack_fail(u, "the number %llu is too large, at byte %zu", (unsigned long long)v, u->at);
	}
	return u->why[0] ? 0 : v;
}

bool p9_unpack_flag(struct p9_unpack *u)
{
	return p9_unpack_number(u, 1) == 1;
}

const uint8_t *p9_unpack_bytes(struct p9_unpack *u, size_t most, size_t *n)
{
	*n = (size_t)p9_unpack_number(u, most);
	if (*n > u->len - u->at) {
		p9_unpack_fail(u, "bytes are missing, at byte %zu", u->at);
	}
	if (u->why[0]) {
		*n = 0;
		return NULL;
	}
	const uint8_t *at = u->bytes + u->at;
	u->at += *n;
	return at;
}

void p9_unpack_text(struct p9_unpack *u, char *buf, size_t cap)
{
	size_t n;
	const uint8_t *s = p9_unpack_bytes(u, cap - 1, &n);
	if (s && memchr(s, 0, n)) {
		p9_unpack_fail(u, "a text with a zero in it, at byte %zu", u->at);
	}
	n = u->why[0] ? 0 : n;
	if (s && n) {
		memcpy(buf, s, n);
	}
	buf[n] = 0;
}

int p9_unpack_fd(struct p9_unpack *u)
{
	size_t i = (size_t)p9_unpack_number(u, u->nfds);
	if (i == 0) {
		return -1;
	}
	int fd = u->fds[i - 1];
	if (fd < 0) {
		p9_unpack_fail(u, "a descriptor is used twice, at byte %zu", u->at);
	}
	u->fds[i - 1] = -1;
	return fd;
}

uint32_t p9_unpack_thing(struct p9_unpack *u, enum p9_thing kind, void **thing)
{
	uint32_t n = (uint32_t)p9_unpack_number(u, (uint64_t)u->nknown + 1);
	*thing = NULL;
	if (n == 0) {
		return 0;
	}
	if (n <= u->nknown) {
		if (u->known[n - 1].kind != kind || !u->known[n - 1].thing) {
			p9_unpack_fail(u, "a reference to another kind of thing, at byte %zu", u->at);
			return 0;
		}
		*thing = u->known[n - 1].thing;
		return 0;
	}
	if (u->nknown == u->known_cap) {
		uint32_t cap = u->known_cap ? u->known_cap * 2 : FIRST;
		struct p9_unpacked *more = cap ? realloc(u->known, cap * sizeof(*more)) : NULL;
		if (!more) {
			p9_unpack_fail(u, "out of memory");
			return 0;
		}
		u->known = more;
		u->known_cap = cap;
	}
	u->known[u->nknown++] = (struct p9_unpacked){ NULL, (uint8_t)kind };
	return n;
}

void p9_unpack_made(struct p9_unpack *u, uint32_t number, void *thing)
{
	if (!u->why[0]) {
		u->known[number - 1].thing = thing;
	}
}

void p9_unpack_end(struct p9_unpack *u)
{
	if (u->at != u->len) {
		p9_unpack_fail(u, "%zu bytes are left over", u->len - u->at);
	}
}

void p9_unpack_fini(struct p9_unpack *u)
{
	for (size_t i = 0; i < u->nfds; i++) {
		if (u->fds[i] >= 0) {
			close(u->fds[i]);
			u->fds[i] = -1;
		}
	}
	free(u->known);
	u->known = NULL;
	u->nknown = u->known_cap = 0;
}
