/* SPDX-License-Identifier: BSD-2-Clause */
/* wire_codec_test.c - codec.c and desc.c: golden bytes, round trips, every way to cut a frame, no byte past a bound. */
#include "lib/p9t.h"
#include <stdio.h>

#define ROUNDS 200
#define FRAME 40000

typedef int decode_fn(const uint8_t *, size_t, size_t, struct p9_msg *);
static decode_fn *const decoders[] = { p9_wire_decode, p9_wire_decode_desc };

static void set_size(uint8_t *frame, size_t n)
{
	for (int i = 0; i < 4; i++) {
		frame[i] = (uint8_t)(n >> (8 * i));
	}
}

static struct p9_data *data_of(struct p9_msg *m)
{
	const struct p9_desc *d = p9_wire_desc(m->type);
	if (d->nfields == 0 || d->fields[d->nfields - 1].kind->wire != P9_WIRE_data) {
		return NULL;
	}
	return (struct p9_data *)((char *)m + d->fields[d->nfields - 1].offset);
}

/* Calls f for `rounds` random messages of each type. */
static void for_each_type(unsigned rounds, void (*f)(struct p9t_rng *r, struct p9_msg *m))
{
	struct p9t_rng r = p9t_rng();
	static struct p9t_store store;
	unsigned types = 0;
	for (unsigned type = 0; type < 256; type++) {
		for (unsigned i = 0; i < rounds && p9_wire_desc(type); i++) {
			struct p9_msg m;
			store.used = 0;
			p9t_random_msg(&r, &store, (uint8_t)type, &m);
			f(&r, &m);
		}
		types += p9_wire_desc(type) != NULL;
	}
	assert_int_equal(types, 57);
}

/* ---- golden bytes ---- */
struct golden {
	char text[1024];
	uint8_t frame[512];
	size_t len;
};

static void check_golden(const struct golden *g)
{
	struct p9_msg m;
	char text[1024];
	uint8_t again[512];
	for (unsigned i = 0; i < P9T_COUNT(decoders); i++) {
		memset(&m, 0xee, sizeof(m));
		assert_int_equal(decoders[i](g->frame, g->len, 0, &m), 0);
		p9_wire_print(text, sizeof(text), &m);
		assert_string_equal(text, g->text);
	}
	assert_int_equal(p9_wire_size(&m), g->len);
	assert_int_equal(p9_wire_encode(again, sizeof(again), &m), g->len);
	assert_memory_equal(again, g->frame, g->len);
}

/* Reads tests/wire/messages.hex and checks each of its messages; marks the types seen. */
static void golden_bytes(void **state)
{
	char *path = p9t_path("wire/messages.hex"), line[1200];
	static struct golden g;
	bool seen[256] = { false };
	unsigned n = 0, types = 0;
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	for (bool more = true; more;) {
		more = fgets(line, sizeof(line), f);
		bool bytes = more && line[0] == '\t';
		if (!bytes && g.len > 0) {
			check_golden(&g);
			seen[g.frame[4]] = true;
			n++;
			g.len = 0;
		}
		if (bytes) {
			int got = p9t_hex(line, g.frame + g.len, sizeof(g.frame) - g.len);
			assert_true(got > 0);
			g.len += (size_t)got;
		} else if (more && line[0] != '#' && line[0] != '\n') {
			snprintf(g.text, sizeof(g.text), "%.*s", (int)strcspn(line, "\n"), line);
		}
	}
	fclose(f);
	free(path);
	for (unsigned type = 0; type < 256; type++) {
		assert_int_equal(seen[type], p9_wire_desc(type) != NULL);
		types += seen[type];
	}
	assert_int_equal(types, 57);
	assert_true(n >= types);
}

/* Frames of the Linux kernel and of diod: each is understood, and made again byte for byte. */
static void frames_of_others(void **state)
{
	char *path = p9t_path("wire/linux-diod.hex"), line[1200];
	uint8_t frame[512], again[512];
	unsigned n = 0;
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		int len = line[0] == '\t' ? p9t_hex(line, frame, sizeof(frame)) : 0;
		assert_true(len >= 0);
		for (unsigned i = 0; i < P9T_COUNT(decoders) && len > 0; i++) {
			struct p9_msg m;
			memset(&m, 0xee, sizeof(m));
			assert_int_equal(decoders[i](frame, (size_t)len, 0, &m), 0);
			assert_int_equal(p9_wire_check(&m), 0);
			assert_int_equal(p9_wire_encode(again, sizeof(again), &m), len);
			assert_memory_equal(again, frame, (size_t)len);
			n++;
		}
	}
	fclose(f);
	free(path);
	assert_true(n >= 2 * 100);
}

/* ---- round trips ---- */
static void round_trip(struct p9t_rng *r, struct p9_msg *m)
{
	static uint8_t fast[FRAME], slow[FRAME];
	struct p9_data *data = data_of(m);
	size_t payload = data ? data->len : 0, size = p9_wire_size(m);
	assert_int_equal(p9_wire_encode(fast, sizeof(fast), m), size);
	assert_int_equal(p9_get32(fast), size);
	int head = p9_wire_encode_head(slow, sizeof(slow), m);
	assert_int_equal(head, size - payload);
	assert_memory_equal(slow, fast, (size_t)head);
	assert_int_equal(p9_wire_encode_desc(slow, sizeof(slow), m), head);
	assert_memory_equal(slow, fast, (size_t)head);
	for (unsigned i = 0; i < P9T_COUNT(decoders); i++) {
		struct p9_msg got;
		memset(&got, 0x11, sizeof(got));
		assert_int_equal(decoders[i](fast, size, 0, &got), 0);
		p9t_assert_msg_equal(m, &got);
	}
}

static void all_messages_round_trip(void **state)
{
	for_each_type(ROUNDS, round_trip);
}

/* Payload elsewhere: any part of it may lie in other memory; the pointer then is NULL and the length still right. */
static void split_payload(struct p9t_rng *r, struct p9_msg *m)
{
	static uint8_t frame[FRAME];
	struct p9_data *data = data_of(m);
	int size = p9_wire_encode(frame, sizeof(frame), m);
	assert_true(size > 0);
	for (size_t away = 1; away <= (data ? data->len : 64); away++) {
		for (unsigned i = 0; i < P9T_COUNT(decoders); i++) {
			struct p9_msg got;
			int rc = decoders[i](frame, (size_t)size - away, away, &got);
			if (!data) {
				assert_int_equal(rc, -P9_EPROTO);
				continue;
			}
			assert_int_equal(rc, 0);
			assert_int_equal(data_of(&got)->len, data->len);
			assert_null(data_of(&got)->p);
		}
		if (!data && away == (size_t)size) {
			break;
		}
	}
}

static void payload_may_lie_elsewhere(void **state)
{
	for_each_type(5, split_payload);
}

/* ---- frames that are wrong ---- */
static void cut(struct p9t_rng *r, struct p9_msg *m)
{
	static uint8_t frame[FRAME];
	int size = p9_wire_encode(frame, sizeof(frame), m);
	for (size_t n = 0; n < (size_t)size; n++) {
		/* A copy of exactly n bytes, so that ASan sees a read behind them. */
		uint8_t *copy = malloc(n + (n == 0));
		memcpy(copy, frame, n);
		struct p9_msg got;
		for (unsigned i = 0; i < P9T_COUNT(decoders); i++) {
			assert_int_equal(decoders[i](copy, n, 0, &got), -P9_EPROTO);
			if (n >= 4) {
				set_size(copy, n);
				assert_int_equal(decoders[i](copy, n, 0, &got), -P9_EPROTO);
				memcpy(copy, frame, 4);
			}
		}
		free(copy);
	}
}

static void cut_at_every_byte_is_eproto(void **state)
{
	for_each_type(3, cut);
}

static void longer(struct p9t_rng *r, struct p9_msg *m)
{
	static uint8_t frame[FRAME];
	size_t size = (size_t)p9_wire_encode(frame, sizeof(frame), m);
	for (size_t more = 1; more <= 9; more++) {
		memset(frame + size, (int)more, more);
		for (unsigned i = 0; i < P9T_COUNT(decoders); i++) {
			struct p9_msg got;
			set_size(frame, size);
			assert_int_equal(decoders[i](frame, size + more, 0, &got), -P9_EPROTO);
			set_size(frame, size + more);
			assert_int_equal(decoders[i](frame, size + more, 0, &got), -P9_EPROTO);
			assert_int_equal(decoders[i](frame, size, more, &got), -P9_EPROTO);
		}
	}
}

static void trailing_bytes_are_eproto(void **state)
{
	for_each_type(5, longer);
}

static void size_field_must_be_the_frame(void **state)
{
	static const uint32_t wrong[] = { 0, 1, 4, 6, 7, 10, 12, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff };
	uint8_t frame[11] = { 11, 0, 0, 0, P9_Tclunk, 0, 0 };
	struct p9_msg m;
	for (unsigned i = 0; i < P9T_COUNT(decoders); i++) {
		assert_int_equal(decoders[i](frame, sizeof(frame), 0, &m), 0);
		for (unsigned k = 0; k < P9T_COUNT(wrong); k++) {
			set_size(frame, wrong[k]);
			assert_int_equal(decoders[i](frame, sizeof(frame), 0, &m), -P9_EPROTO);
		}
		set_size(frame, sizeof(frame));
	}
}

static void other_types_are_eopnotsupp(void **state)
{
	uint8_t frame[64] = { 7, 0, 0, 0, 0, 0x34, 0x12 };
	for (unsigned type = 0; type < 256; type++) {
		for (unsigned i = 0; i < P9T_COUNT(decoders) && !p9_wire_desc(type); i++) {
			struct p9_msg m;
			memset(&m, 0, sizeof(m));
			frame[4] = (uint8_t)type;
			assert_int_equal(decoders[i](frame, 7, 0, &m), -P9_EOPNOTSUPP);
			assert_int_equal(m.type, type);
			assert_int_equal(m.tag, 0x1234);
		}
	}
	struct p9_msg none = { .type = P9_Tversion - 1 };
	assert_int_equal(p9_wire_size(&none), 0);
	assert_int_equal(p9_wire_encode(frame, sizeof(frame), &none), -P9_EMSGSIZE);
	assert_int_equal(p9_wire_encode_desc(frame, sizeof(frame), &none), -P9_EMSGSIZE);
}

/* A list says how many it has even when that is too many; p9_wire_check refuses it, nothing is written past v[15]. */
static void long_lists_are_parsed_and_kept_short(void **state)
{
	static const unsigned counts[] = { 16, 17, 1000, 16382 };
	for (unsigned k = 0; k < P9T_COUNT(counts); k++) {
		size_t size = 17 + 3 * (size_t)counts[k];
		uint8_t *frame = calloc(1, size);
		memcpy(frame + 4, "\x6e\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00", 11);
		set_size(frame, size);
		frame[15] = (uint8_t)counts[k];
		frame[16] = (uint8_t)(counts[k] >> 8);
		for (unsigned i = 0; i < counts[k]; i++) {
			memcpy(frame + 17 + 3 * (size_t)i, "\x01\x00x", 3);
		}
		for (unsigned i = 0; i < P9T_COUNT(decoders); i++) {
			struct {
				struct p9_msg m;
				char guard[64];
			} got;
			memset(&got, 0x55, sizeof(got));
			assert_int_equal(decoders[i](frame, size, 0, &got.m), 0);
			assert_int_equal(got.m.twalk.wname.n, counts[k]);
			assert_int_equal(p9_wire_check(&got.m), counts[k] > 16 ? -P9_EINVAL : 0);
			for (unsigned g = 0; g < sizeof(got.guard); g++) {
				assert_int_equal(got.guard[g], 0x55);
			}
			if (counts[k] > 16) {
				uint8_t out[256];
				assert_int_equal(p9_wire_encode(out, sizeof(out), &got.m), -P9_EMSGSIZE);
				assert_int_equal(p9_wire_encode_desc(out, sizeof(out), &got.m), -P9_EMSGSIZE);
			}
		}
		free(frame);
	}
}

/* ---- room for the encoders ---- */
static void too_little_room(struct p9t_rng *r, struct p9_msg *m)
{
	static uint8_t frame[FRAME];
	size_t size = p9_wire_size(m);
	size_t head = size - (data_of(m) ? data_of(m)->len : 0);
	for (size_t cap = 0; cap < size; cap++) {
		memset(frame, 0xa5, size + 8);
		assert_int_equal(p9_wire_encode(frame, cap, m), -P9_EMSGSIZE);
		if (cap < head) {
			assert_int_equal(p9_wire_encode_head(frame, cap, m), -P9_EMSGSIZE);
			assert_int_equal(p9_wire_encode_desc(frame, cap, m), -P9_EMSGSIZE);
		}
		for (size_t i = cap; i < size + 8; i++) {
			assert_int_equal(frame[i], 0xa5);
		}
	}
	assert_int_equal(p9_wire_encode(frame, size, m), size);
	assert_int_equal(p9_wire_encode_head(frame, head, m), head);
	assert_int_equal(frame[size], 0xa5);
}

static void encoders_keep_to_their_room(void **state)
{
	for_each_type(2, too_little_room);
}

/* Data so long that the size field could not say it. */
static void data_longer_than_a_frame_is_emsgsize(void **state)
{
	uint8_t out[64];
	struct p9_msg m = { .type = P9_Rread, .rread = { .data = { UINT32_MAX, NULL } } };
	assert_int_equal(p9_wire_encode_head(out, sizeof(out), &m), -P9_EMSGSIZE);
	m.rread.data.len = UINT32_MAX - P9_RREADHDRSZ;
	assert_int_equal(p9_wire_encode_head(out, sizeof(out), &m), P9_RREADHDRSZ);
	assert_int_equal(p9_get32(out), UINT32_MAX);
	assert_int_equal(p9_wire_encode(out, sizeof(out), &m), -P9_EMSGSIZE);
}

/* ---- the two readings of the description agree, also on bytes that nobody meant ---- */
static void mutate(struct p9t_rng *r, struct p9_msg *m)
{
	static uint8_t frame[FRAME];
	size_t size = (size_t)p9_wire_encode(frame, sizeof(frame), m);
	for (unsigned k = 0; k < 8; k++) {
		size_t at = 4 + (size_t)p9t_rand_below(r, size < 44 ? size - 4 : 40);
		frame[at] = p9t_rand_below(r, 2) ? (uint8_t)p9t_rand(r) : (uint8_t)(frame[at] + 1);
		struct p9_msg a, b;
		memset(&a, 0, sizeof(a));
		memset(&b, 0, sizeof(b));
		int rc = p9_wire_decode(frame, size, 0, &a);
		assert_int_equal(rc, p9_wire_decode_desc(frame, size, 0, &b));
		if (rc == 0) {
			p9t_assert_msg_equal(&a, &b);
		}
	}
}

static void decoders_agree_on_mutants(void **state)
{
	for_each_type(ROUNDS, mutate);
}

/* ---- directory entries ---- */
static void dirents_round_trip(void **state)
{
	uint8_t buf[256];
	struct p9_dirent in = { { 0x80, 1, 2 }, 3, 4, P9T_STR("name") }, out;
	size_t n = p9_wire_dirent_put(buf, sizeof(buf), &in);
	assert_int_equal(n, 13 + 8 + 1 + 2 + 4);
	for (size_t cap = 0; cap < n; cap++) {
		uint8_t small[64];
		memset(small, 0xa5, sizeof(small));
		assert_int_equal(p9_wire_dirent_put(small, cap, &in), 0);
		assert_int_equal(small[cap], 0xa5);
	}
	in.name = P9T_STR("");
	size_t n2 = p9_wire_dirent_put(buf + n, sizeof(buf) - n, &in);
	struct p9_data data = { (uint32_t)(n + n2), buf };
	size_t pos = 0;
	assert_int_equal(p9_wire_dirent_get(&data, &pos, &out), 1);
	assert_int_equal(pos, n);
	assert_int_equal(out.qid.type, 0x80);
	assert_int_equal(out.qid.path, 2);
	assert_int_equal(out.offset, 3);
	assert_int_equal(out.type, 4);
	assert_int_equal(out.name.len, 4);
	assert_memory_equal(out.name.s, "name", 4);
	assert_int_equal(p9_wire_dirent_get(&data, &pos, &out), 1);
	assert_int_equal(out.name.len, 0);
	assert_int_equal(p9_wire_dirent_get(&data, &pos, &out), 0);
	for (uint32_t len = 1; len < n; len++) {
		data.len = len;
		pos = 0;
		assert_int_equal(p9_wire_dirent_get(&data, &pos, &out), -P9_EPROTO);
	}
}

/* ---- the tables ---- */
static void descriptors_are_complete(void **state)
{
	for (unsigned type = 0; type < 256; type++) {
		const struct p9_desc *d = p9_wire_desc(type);
		if (!d) {
			continue;
		}
		assert_int_equal(d->type, type);
		assert_int_equal(d->name[0], type % 2 == 0 ? 'T' : 'R');
		assert_int_equal(p9_wire_type(d->name, strlen(d->name)), type);
		assert_int_equal(p9_wire_type(d->name, strlen(d->name) - 1), -1);
		assert_true(type % 2 == 1 || p9_wire_desc(type + 1));
		for (unsigned i = 0; i < d->nfields; i++) {
			assert_true(d->fields[i].offset < sizeof(struct p9_msg));
			/* Payload is never copied with the head: it must be the last. */
			assert_true(d->fields[i].kind->wire != P9_WIRE_data || i + 1 == d->nfields);
		}
	}
	assert_int_equal(p9_wire_type("Rerror", 6), -1);
	assert_int_equal(p9_wire_type("", 0), -1);
}

static void errors_have_names_and_numbers(void **state)
{
	for (uint32_t e = 1; e <= 133; e++) {
		const char *name = p9_error_name(e);
		if (strcmp(name, "E?") != 0) {
			assert_int_equal(p9_error_number(name, (unsigned)strlen(name)), e);
			assert_string_equal(p9_error_text(e), strerror((int)e));
		}
	}
	assert_string_equal(p9_error_name(2), "ENOENT");
	assert_string_equal(p9_error_name(134), "E?");
	assert_string_equal(p9_error_name(UINT32_MAX), "E?");
	assert_string_equal(p9_error_text(UINT32_MAX), "Unknown error");
	assert_int_equal(p9_error_number("ENOEN", 5), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_bytes),
		cmocka_unit_test(frames_of_others),
		cmocka_unit_test(all_messages_round_trip),
		cmocka_unit_test(payload_may_lie_elsewhere),
		cmocka_unit_test(cut_at_every_byte_is_eproto),
		cmocka_unit_test(trailing_bytes_are_eproto),
		cmocka_unit_test(size_field_must_be_the_frame),
		cmocka_unit_test(other_types_are_eopnotsupp),
		cmocka_unit_test(long_lists_are_parsed_and_kept_short),
		cmocka_unit_test(encoders_keep_to_their_room),
		cmocka_unit_test(data_longer_than_a_frame_is_emsgsize),
		cmocka_unit_test(decoders_agree_on_mutants),
		cmocka_unit_test(dirents_round_trip),
		cmocka_unit_test(descriptors_are_complete),
		cmocka_unit_test(errors_have_names_and_numbers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
