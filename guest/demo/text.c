/* SPDX-License-Identifier: BSD-2-Clause */
/* text.c - memory functions, which the compiler calls and the driver needs, and the few string functions of the demo. */
#include <string.h>
#include "guest/demo/demo.h"

void *memcpy(void *restrict dst, const void *restrict src, size_t n)
{
	void *d = dst;
	__asm__ volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(n) : : "memory");
	return dst;
}

void *memset(void *dst, int c, size_t n)
{
	void *d = dst;
	__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return dst;
}

void *memmove(void *dst, const void *src, size_t n)
{
	uint8_t *d = dst;
	const uint8_t *s = src;
	if ((uintptr_t)d - (uintptr_t)s >= n) {
		return memcpy(dst, src, n);
	}
	while (n-- > 0) {
		__asm__ volatile("" : : : "memory"); /* the loop must not become a call of memmove */
		d[n] = s[n];
	}
	return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const uint8_t *x = a, *y = b;
	for (size_t i = 0; i < n; i++) {
		if (x[i] != y[i]) {
			return x[i] - y[i];
		}
	}
	return 0;
}

size_t demo_len(const char *s)
{
	size_t n = 0;
	while (s[n]) {
		n++;
	}
	return n;
}

bool demo_same(const char *a, const char *b)
{
	size_t n = demo_len(a);
	return n == demo_len(b) && memcmp(a, b, n) == 0;
}

const char *demo_after(const char *s, const char *prefix)
{
	size_t n = demo_len(prefix);
	return demo_len(s) >= n && memcmp(s, prefix, n) == 0 ? s + n : NULL;
}

static int digit(char c)
{
	if (c >= '0' && c <= '9') {
		return c - '0';
	}
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

bool demo_number(const char *s, uint64_t *out, const char **end)
{
	const char *hex = demo_after(s, "0x"), *first;
	uint64_t base = hex ? 16 : 10, n = 0;
	s = hex ? hex : s;
	first = s;
	for (; (uint64_t)digit(*s) < base; s++) {
		if (n > (UINT64_MAX - 15) / base) {
			return false;
		}
		n = n * base + (uint64_t)digit(*s);
	}
	unsigned shift = *s == 'k' ? 10 : *s == 'm' ? 20 : *s == 'g' ? 30 : 0;
	if (s == first || (shift && n >> (64 - shift))) {
		return false;
	}
	s += shift != 0;
	*out = n << shift;
	if (end) {
		*end = s;
	}
	return end || *s == 0;
}

bool demo_join(char *dst, size_t cap, const char *a, const char *b)
{
	size_t n = 0;
	for (; *a && n + 1 < cap; n++) {
		dst[n] = *a++;
	}
	for (; *b && n + 1 < cap; n++) {
		dst[n] = *b++;
	}
	dst[n] = 0;
	return !*a && !*b;
}
