/* SPDX-License-Identifier: BSD-2-Clause */
/* frame.c - see frame.h. Every buffer is on the heap and of the exact size, so that one byte too far is seen. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "frame.h"

#define ERRNO_MAX 133

void fz_frame_print(const struct p9_msg *m, size_t cap)
{
	char *text = malloc(cap);
	FZ_CHECK(text, "memory");
	memset(text, '\n', cap);
	size_t n = p9_wire_print(text, cap, m);
	FZ_CHECK(n < cap && text[n] == 0, "length %zu of %zu", n, cap);
	for (size_t i = 0; i < n; i++) {
		FZ_CHECK(text[i] >= ' ' && text[i] <= '~', "byte %u at %zu", (unsigned char)text[i], i);
	}
	free(text);
}

typedef int encoder(uint8_t *buf, size_t cap, const struct p9_msg *m);

/* An encoder writes the first `want` bytes of the frame, and into less room nothing at all. */
static void same_bytes(encoder *encode, const struct p9_msg *m, const uint8_t *frame, size_t want)
{
	uint8_t *out = malloc(want);
	int n = encode(out, want, m);
	FZ_CHECK(n == (int)want && memcmp(out, frame, want) == 0, "%d of %zu bytes", n, want);
	free(out);
	for (size_t cap = 0; cap < want; cap += 1 + cap / 4) {
		uint8_t *little = malloc(cap + !cap);
		n = encode(little, cap, m);
		FZ_CHECK(n == -P9_EMSGSIZE, "%d in %zu bytes", n, cap);
		free(little);
	}
}

/* Payload at the end of the message, or NULL for a message without. */
static const struct p9_data *payload(const struct p9_msg *m)
{
	const struct p9_desc *d = p9_wire_desc(m->type);
	const struct p9_field *last = d && d->nfields ? &d->fields[d->nfields - 1] : NULL;
	return last && last->kind->wire == P9_WIRE_data ? (const void *)((const char *)m + last->offset) : NULL;
}

/* The list that a message has may be longer than the 16 that are kept. */
static bool keeps_all(const struct p9_msg *m)
{
	return (m->type != P9_Twalk || m->twalk.wname.n <= P9_MAXWELEM) &&
	       (m->type != P9_Rwalk || m->rwalk.wqid.n <= P9_MAXWELEM);
}

/* Payload in other memory: the same message, whose data is elsewhere. */
static void split_payload(const uint8_t *data, size_t size, const struct p9_msg *whole)
{
	const struct p9_data *p = payload(whole);
	for (size_t away = 0; p && away <= p->len; away += 1 + away) {
		struct p9_msg m = { .type = whole->type };
		uint8_t *head = malloc(size - away);
		memcpy(head, data, size - away);
		const struct p9_data *q = payload(&m);
		int rc = p9_wire_decode(head, size - away, away, &m);
		FZ_CHECK(rc == 0 && q->len == p->len && (away == 0 || q->p == NULL), "%d with %zu elsewhere", rc, away);
		free(head);
	}
}

bool fz_frame(const uint8_t *data, size_t size)
{
	struct p9_msg a, b;
	uint8_t *frame = malloc(size + !size);
	memcpy(frame, data, size);
	memset(&a, 0x11, sizeof(a));
	memset(&b, 0xee, sizeof(b));
	int rc = p9_wire_decode(frame, size, 0, &a), rc2 = p9_wire_decode_desc(frame, size, 0, &b);
	FZ_CHECK(rc == rc2, "%d, by the descriptors %d", rc, rc2);
	FZ_CHECK(rc == 0 || rc == -P9_EPROTO || rc == -P9_EOPNOTSUPP, "%d", rc);
	if (rc == 0) {
		int check = p9_wire_check(&a);
		FZ_CHECK(check <= 0 && check >= -ERRNO_MAX && check == p9_wire_check(&b), "%d", check);
		FZ_CHECK(p9_wire_size(&a) == size || !keeps_all(&a), "%zu, is %zu", p9_wire_size(&a), size);
		fz_frame_print(&a, 300);
		split_payload(frame, size, &a);
	}
	if (rc == 0 && keeps_all(&a)) {
		const struct p9_data *p = payload(&a);
		size_t head = size - (p ? p->len : 0);
		same_bytes(p9_wire_encode, &a, frame, size);
		same_bytes(p9_wire_encode, &b, frame, size);
		same_bytes(p9_wire_encode_head, &a, frame, head);
		same_bytes(p9_wire_encode_desc, &a, frame, head);
	}
	if (size >= P9_HDRSZ && rc == -P9_EOPNOTSUPP) {
		FZ_CHECK(a.type == frame[4] && a.tag == p9_get16(frame + 5), "type and tag");
	}
	free(frame);
	return rc == 0;
}
