/* SPDX-License-Identifier: BSD-2-Clause */
/* engine_test.h - an engine with a server beside it that is the test itself: takes requests, feeds replies. */
#ifndef P9_ENGINE_TEST_H
#define P9_ENGINE_TEST_H
#include "lib/p9t.h"
#include "engine/engine.h"

enum { MSIZE = 8192, NTAGS = 8 };

struct rig {
	struct p9_engine e;
	void *mem;
	uint8_t sent[256 * 1024]; /* bytes that went out and were not yet looked at */
	size_t nsent;
	size_t piece; /* most bytes that move at once, either way */
};

static inline void rig_init(struct rig *r, size_t piece)
{
	struct p9_engine_conf conf = { .msize = MSIZE, .nfids = 100, .ntags = NTAGS };
	size_t n = p9_engine_memory(&conf);
	memset(r, 0, sizeof(*r));
	r->mem = aligned_alloc(16, (n + 15) & ~(size_t)15);
	r->piece = piece;
	memset(r->mem, 0xa5, n);
	assert_int_equal(p9_engine_init(&r->e, &conf, r->mem, n), 0);
}

static inline void rig_fini(struct rig *r)
{
	free(r->mem);
}

/* Takes all that the engine wants to send. */
static inline void rig_pump(struct rig *r)
{
	struct p9_engine_iov v[3];
	unsigned n;
	while ((n = p9_engine_out(&r->e, v, 3)) > 0) {
		size_t k = 0;
		for (unsigned i = 0; i < n && k < r->piece; i++) {
			size_t m = v[i].len < r->piece - k ? v[i].len : r->piece - k;
			memcpy(r->sent + r->nsent, v[i].p, m);
			r->nsent += m;
			k += m;
		}
		p9_engine_out_ack(&r->e, k);
	}
}

/* The next request as the server sees it; false when there is none. Views end with the next call. */
static inline bool rig_request(struct rig *r, struct p9_msg *m)
{
	static uint8_t frame[64 * 1024];
	rig_pump(r);
	if (r->nsent < P9_HDRSZ) {
		return false;
	}
	uint32_t size = p9_get32(r->sent);
	assert_true(size <= r->nsent && size <= sizeof(frame));
	memcpy(frame, r->sent, size);
	memmove(r->sent, r->sent + size, r->nsent - size);
	r->nsent -= size;
	assert_int_equal(p9_wire_decode(frame, size, 0, m), 0);
	return true;
}

/* Feeds bytes as they are until the engine has an answer to them, or has taken them all. */
static inline int rig_feed(struct rig *r, const uint8_t *p, size_t n, struct p9_reply *reply)
{
	int rc = p9_engine_next(&r->e, reply);
	while (rc == 0 && n > 0) {
		struct p9_engine_iov v[2];
		unsigned pieces = p9_engine_in(&r->e, v);
		size_t k = 0;
		assert_true(pieces > 0);
		for (unsigned i = 0; i < pieces; i++) {
			size_t m = n - k < v[i].len ? n - k : v[i].len;
			m = m < r->piece - k ? m : r->piece - k;
			memcpy(v[i].p, p + k, m);
			k += m;
		}
		p9_engine_in_ack(&r->e, k);
		p += k;
		n -= k;
		rc = p9_engine_next(&r->e, reply);
	}
	assert_true(rc != 0 || n == 0);
	return rc;
}

/* Feeds one reply. */
static inline int rig_reply(struct rig *r, const struct p9_msg *m, struct p9_reply *reply)
{
	static uint8_t frame[128 * 1024];
	int n = p9_wire_encode(frame, sizeof(frame), m);
	assert_true(n > 0);
	return rig_feed(r, frame, (size_t)n, reply);
}

/* Through Tversion. */
static inline void rig_start(struct rig *r, size_t piece)
{
	struct p9_msg t = { .type = P9_Tversion, .tversion = { .msize = MSIZE, .version = P9T_STR("9P2000.L") } }, got;
	struct p9_msg a = { .type = P9_Rversion,
			    .tag = P9_NOTAG,
			    .rversion = { .msize = MSIZE, .version = P9T_STR("9P2000.L") } };
	struct p9_reply reply;
	rig_init(r, piece);
	assert_true(p9_engine_submit(&r->e, &t, NULL, r) >= 0);
	assert_true(rig_request(r, &got));
	assert_int_equal(got.type, P9_Tversion);
	assert_int_equal(got.tag, P9_NOTAG);
	assert_int_equal(rig_reply(r, &a, &reply), 1);
	assert_ptr_equal(reply.user, r);
}

/* Submits and lets it go out. Returns the tag. */
static inline uint16_t rig_submit(struct rig *r, struct p9_msg *t, void *dst, void *user)
{
	int tag = p9_engine_submit(&r->e, t, dst, user);
	assert_true(tag >= 0);
	rig_pump(r);
	r->nsent = 0;
	return (uint16_t)tag;
}

#endif
