/* SPDX-License-Identifier: BSD-2-Clause */
/* pack.h - the state of a running server as bytes and descriptors, for another process of this machine to go on with.
 *
 * Four things are written, one behind the other: numbers, bytes, descriptors, and references to things that several
 * others share. Who reads says how large a number may be and what kind of thing a reference must name; the first thing
 * that does not fit is remembered with its reason, and from then on everything reads as zero. So code that reads may
 * look once, at the end, but for loops and memory: those look at p9_unpack_bad().
 */
#ifndef P9_BASE_PACK_H
#define P9_BASE_PACK_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "p9/error.h"

/* All zero to begin with. Descriptors are borrowed; they must stay open until they were sent. */
struct p9_pack {
	uint8_t *bytes;
	size_t len, cap;
	int *fds;
	size_t nfds, fds_cap;
	struct p9_packed {
		const void *thing;
		uint32_t number;
	} * seen;
	uint32_t nseen, seen_cap;
	char why[160]; /* it cannot be done: why; "" as long as it can */
};

void p9_pack_number(struct p9_pack *p, uint64_t v);
void p9_pack_bytes(struct p9_pack *p, const void *bytes, size_t n);
void p9_pack_text(struct p9_pack *p, const char *text);
/* -1 for none. */
void p9_pack_fd(struct p9_pack *p, int fd);
/* A reference; NULL is one, too. Returns true when the thing was not met before: then what it is made of comes next. */
bool p9_pack_thing(struct p9_pack *p, const void *thing);
/* Whether it was met. */
bool p9_pack_knows(const struct p9_pack *p, const void *thing);
__attribute__((format(printf, 2, 3))) void p9_pack_fail(struct p9_pack *p, const char *fmt, ...);
void p9_pack_fini(struct p9_pack *p);

/* Kinds of things that are referred to. */
enum p9_thing {
	P9_THING_PINNED = 'p', /* a descriptor of the local backend that several nodes share */
	P9_THING_NODE = 'n',
	P9_THING_CRED = 'c',
	P9_THING_ATTACH = 'a',
	P9_THING_CONN = 'C',
	P9_THING_FID = 'F',
	P9_THING_HELD = 'h' /* the counter of locks of a connection */
};

struct p9_unpack {
	const uint8_t *bytes;
	size_t len, at;
	int *fds; /* owned: what is not taken is closed by p9_unpack_fini() */
	size_t nfds;
	struct p9_unpacked {
		void *thing;
		uint8_t kind;
	} * known;
	uint32_t nknown, known_cap;
	char why[160];
};

/* `bytes` stay the caller's; the array of descriptors is the caller's, the descriptors are u's. */
void p9_unpack_init(struct p9_unpack *u, const void *bytes, size_t len, int *fds, size_t nfds);
/* Returns at most `most`. */
uint64_t p9_unpack_number(struct p9_unpack *u, uint64_t most);
bool p9_unpack_flag(struct p9_unpack *u);
/* A view of bytes, at most `most`; NULL with *n 0 when something is wrong. */
const uint8_t *p9_unpack_bytes(struct p9_unpack *u, size_t most, size_t *n);
/* A text without NUL in it, into buf; "" when something is wrong. */
void p9_unpack_text(struct p9_unpack *u, char *buf, size_t cap);
/* A descriptor, the caller's from now on; -1 for none. */
int p9_unpack_fd(struct p9_unpack *u);
/* A reference to a thing of this kind. Returns 0 with *thing (NULL for none, or when something is wrong); or, when what
 * it is made of comes next, the number to give to p9_unpack_made(). */
uint32_t p9_unpack_thing(struct p9_unpack *u, enum p9_thing kind, void **thing);
void p9_unpack_made(struct p9_unpack *u, uint32_t number, void *thing);
bool p9_unpack_bad(const struct p9_unpack *u);
/* The first reason stays. */
__attribute__((format(printf, 2, 3))) void p9_unpack_fail(struct p9_unpack *u, const char *fmt, ...);
/* Nothing may be left over. */
void p9_unpack_end(struct p9_unpack *u);
void p9_unpack_fini(struct p9_unpack *u);

#endif
