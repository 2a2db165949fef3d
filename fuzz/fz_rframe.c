/* SPDX-License-Identifier: BSD-2-Clause */
/* fz_rframe.c - fuzz target: replies, as a client decodes them, and the client's engine with a hostile server.
 *
 * An input is REQUESTS bytes, each of which chooses a request that the engine sends once the session is there, and then
 * what the server says. Whatever that is, the engine stays in the memory it was given, hands out replies that match
 * their requests, or fails for good. Two bits of the first byte: PIECES brings the bytes in small pieces, FITTING begins
 * with a session and gives replies the tags of requests.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "engine/engine.h"
#include "frame.h"

#define REQUESTS 8
#define TAGS 16
#define COUNT_MAX 20000
#define STEPS_MAX 20000
enum { PIECES = 1, FITTING = 2 }; /* bits of the first byte */

struct request {
	uint8_t type;
	uint16_t tag;
	uint32_t asked;
	uint8_t *dst;
	bool open;
};
struct session {
	struct p9_engine e;
	struct request r[REQUESTS * 2 + 1];
	unsigned n, answered;
	bool ready;
};

static void submit(struct session *s, uint8_t choice)
{
	static uint8_t types[128];
	static unsigned ntypes;
	uint64_t rng = (uint64_t)choice * 0x9E3779B97F4A7C15ull | 1;
	struct request *r = &s->r[s->n];
	struct p9_msg m;
	for (unsigned t = 0; t < 128 && (ntypes == 0 || t > types[ntypes - 1]); t++) {
		const struct p9_desc *d = p9_wire_desc(t);
		if (d && d->name[0] == 'T' && t != P9_Tversion && t != P9_Tflush) {
			types[ntypes++] = (uint8_t)t;
		}
	}
	fz_message_of(&rng, types[choice % ntypes], &m);
	*r = (struct request){ .type = m.type };
	if (m.type == P9_Tread || m.type == P9_Treaddir) {
		uint32_t *count = m.type == P9_Tread ? &m.tread.count : &m.treaddir.count;
		*count %= COUNT_MAX;
		r->asked = *count;
		r->dst = malloc(*count + !*count);
	}
	int tag = p9_engine_submit(&s->e, &m, r->dst, r);
	if (tag < 0) {
		free(r->dst);
		return;
	}
	r->open = true;
	r->tag = (uint16_t)tag;
	s->n++;
	if (choice & 0x20) {
		p9_engine_deadline(&s->e, (uint16_t)tag, 2 + choice % 7);
	}
	if (choice >= 0xe0) {
		FZ_CHECK(p9_engine_flush(&s->e, (uint16_t)tag, NULL) != -P9_EINVAL, "cancel");
	} else if (choice >= 0xc0) {
		struct request *f = &s->r[s->n];
		*f = (struct request){ .type = P9_Tflush };
		int ftag = p9_engine_flush(&s->e, (uint16_t)tag, f);
		if (ftag >= 0) {
			f->open = true;
			f->tag = (uint16_t)ftag;
			s->n++;
		}
	}
}

/* What goes out is looked at byte by byte, in odd pieces. */
static void send_all(struct session *s)
{
	struct p9_engine_iov v[3];
	unsigned sum = 0, n;
	while ((n = p9_engine_out(&s->e, v, 3)) > 0) {
		size_t total = 0;
		for (unsigned i = 0; i < n; i++) {
			for (size_t k = 0; k < v[i].len; k++) {
				sum += v[i].p[k];
			}
			total += v[i].len;
		}
		FZ_CHECK(total > 0, "nothing to send in %u pieces", n);
		p9_engine_out_ack(&s->e, total > 50 ? total - 3 : total);
	}
	FZ_CHECK(sum < ~0u, "sum");
}

static void take(struct session *s, const struct p9_reply *reply, const uint8_t *choices)
{
	struct request *r = reply->user;
	FZ_CHECK(r && r->open, "a reply to a request that was answered, or never sent");
	FZ_CHECK(reply->msg.type == r->type + 1 || reply->msg.type == P9_Rlerror, "type %u for %u", reply->msg.type,
		 r->type);
	FZ_CHECK(reply->msg.type != P9_Rread || reply->msg.rread.data.len <= r->asked, "%u bytes of %u",
		 reply->msg.rread.data.len, r->asked);
	FZ_CHECK(reply->msg.type != P9_Rlerror || (reply->msg.rlerror.ecode > 0 && reply->msg.rlerror.ecode < 4096),
		 "errno %u", reply->msg.rlerror.ecode);
	fz_frame_print(&reply->msg, 400);
	r->open = false;
	s->answered++;
	free(r->dst); /* ours again: nothing may be written to it */
	r->dst = NULL;
	if (r->type == P9_Tversion && reply->msg.type == P9_Rversion && !s->ready) {
		s->ready = true;
		for (unsigned i = 0; i < REQUESTS; i++) {
			submit(s, choices[i]);
		}
		send_all(s);
	}
}

/* The tags of replies are made those of requests that they fit, where there is one: else hardly any would. */
static void fit_tags(const struct session *s, uint8_t *data, size_t size)
{
	bool used[REQUESTS * 2 + 1] = { false }, whole;
	for (size_t pos = 0, n; pos < size; pos += n) {
		n = fz_next(data, size, pos, &whole);
		for (unsigned i = 0; whole && i < s->n; i++) {
			if (s->r[i].open && !used[i] &&
			    (data[pos + 4] == s->r[i].type + 1 || data[pos + 4] == P9_Rlerror)) {
				data[pos + 5] = (uint8_t)s->r[i].tag;
				data[pos + 6] = (uint8_t)(s->r[i].tag >> 8);
				used[i] = true;
				break;
			}
		}
	}
}

/* What a server says that keeps to the rules, so that the rest of the input meets a session. */
static void begin_session(struct session *s, const uint8_t *choices)
{
	struct p9_msg m = { .type = P9_Rversion, .tag = P9_NOTAG, .rversion = { 32768, { "9P2000.L", 8 } } };
	struct p9_engine_iov v[2];
	struct p9_reply reply;
	uint8_t frame[64];
	size_t n = fz_put(frame, sizeof(frame), &m);
	FZ_CHECK(p9_engine_in(&s->e, v) > 0 && v[0].len >= n, "room");
	memcpy(v[0].p, frame, n);
	p9_engine_in_ack(&s->e, n);
	FZ_CHECK(p9_engine_next(&s->e, &reply) == 1, "Rversion: %s", p9_engine_error(&s->e));
	take(s, &reply, choices);
}

static void engine(const uint8_t *choices, uint8_t *data, size_t size)
{
	static struct session s;
	struct p9_engine_conf conf = { .msize = 32768, .nfids = 64, .ntags = TAGS };
	size_t len = p9_engine_memory(&conf), pos = 0, chunk = choices[0] & PIECES ? 5 : 4000;
	void *mem = aligned_alloc(16, (len + 15) / 16 * 16);
	struct p9_msg version = { .type = P9_Tversion, .tversion = { 32768, { "9P2000.L", 8 } } };
	struct p9_reply reply;
	int rc = 0;
	memset(&s, 0, sizeof(s));
	FZ_CHECK(p9_engine_init(&s.e, &conf, mem, len) == 0, "init");
	s.r[s.n++] = (struct request){ .type = P9_Tversion, .open = true };
	FZ_CHECK(p9_engine_submit(&s.e, &version, NULL, &s.r[0]) >= 0, "Tversion");
	send_all(&s);
	if (choices[0] & FITTING) {
		begin_session(&s, choices);
		fit_tags(&s, data, size);
	}
	for (unsigned steps = 0; rc >= 0 && pos < size; steps++) {
		struct p9_engine_iov v[2];
		unsigned n = p9_engine_in(&s.e, v);
		FZ_CHECK(n > 0 && steps < STEPS_MAX, "%u pieces to receive into, step %u", n, steps);
		size_t got = 0;
		for (unsigned i = 0; i < n && got < chunk; i++) {
			size_t k = v[i].len < size - pos - got ? v[i].len : size - pos - got;
			k = k < chunk - got ? k : chunk - got;
			memcpy(v[i].p, data + pos + got, k);
			got += k;
			if (k < v[i].len) {
				break;
			}
		}
		FZ_CHECK(got > 0, "no room to receive");
		p9_engine_in_ack(&s.e, got);
		pos += got;
		p9_engine_expire(&s.e, steps + 1, 1000);
		while ((rc = p9_engine_next(&s.e, &reply)) == 1) {
			take(&s, &reply, choices);
		}
		send_all(&s); /* the engine's own flushes and clunks */
	}
	FZ_CHECK(rc >= 0 || (p9_engine_error(&s.e)[0] && p9_engine_next(&s.e, &reply) == rc), "error %d does not stay",
		 rc);
	p9_engine_fail(&s.e, P9_EPIPE, "the end");
	while (p9_engine_drain(&s.e, &reply)) {
		take(&s, &reply, choices);
	}
	FZ_CHECK(s.answered == s.n && p9_engine_pending(&s.e) == 0, "%u of %u requests were told", s.answered, s.n);
	free(mem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool whole;
	for (size_t pos = 0, n; pos < size; pos += n) {
		n = fz_next(data, size, pos, &whole);
		fz_frame(data + pos, n);
	}
	if (size > REQUESTS) {
		uint8_t *copy = malloc(size - REQUESTS);
		memcpy(copy, data + REQUESTS, size - REQUESTS);
		engine(data, copy, size - REQUESTS);
		free(copy);
	}
	return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	if (size <= REQUESTS || seed % 8 == 0) {
		return LLVMFuzzerMutate(data, size, max);
	}
	return REQUESTS + fz_mutate(data + REQUESTS, size - REQUESTS, max - REQUESTS, seed, FZ_R);
}
