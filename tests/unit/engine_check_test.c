/* SPDX-License-Identifier: BSD-2-Clause */
/* engine_check_test.c - the client engine with a server that breaks the rules: rows 1 to 6, 8 and 10 of the plan for
 * hostile servers. Each ends the link with EPROTO and a text that says what came; nothing is written outside of what
 * the request named. */
#include "unit/engine_test.h"

static struct rig rig;
static uint8_t dst[600];

/* The link has ended, and says why; nothing works any more. */
static void assert_broken(int rc, int ecode, const char *why)
{
	struct p9_reply reply;
	struct p9_msg t = { .type = P9_Tclunk };
	struct p9_engine_iov v[2];
	assert_int_equal(rc, -ecode);
	if (!strstr(p9_engine_error(&rig.e), why)) {
		fail_msg("\"%s\" does not say \"%s\"", p9_engine_error(&rig.e), why);
	}
	assert_int_equal(p9_engine_next(&rig.e, &reply), -ecode);
	assert_int_equal(p9_engine_submit(&rig.e, &t, NULL, NULL), -ecode);
	assert_int_equal(p9_engine_in(&rig.e, v), 0);
	assert_int_equal(p9_engine_room(&rig.e), 0);
	rig_fini(&rig);
}

/* Sends `t`, feeds `r` with the right tag, expects the link's end. */
static void breach(struct p9_msg t, struct p9_msg r, const char *why)
{
	struct p9_reply reply;
	for (size_t piece = 1; piece < 5000; piece *= 8) {
		rig_start(&rig, piece);
		memset(dst, 0x5a, sizeof(dst));
		r.tag = rig_submit(&rig, &t, dst, NULL);
		assert_broken(rig_reply(&rig, &r, &reply), P9_EPROTO, why);
		assert_int_equal(dst[512], 0x5a); /* every request asks for 512 at most */
	}
}

/* The same with bytes instead of a message; the tag is put in. */
static void breach_raw(struct p9_msg t, const char *hex, const char *why)
{
	uint8_t bytes[128];
	struct p9_reply reply;
	int n = p9t_hex(hex, bytes, sizeof(bytes));
	assert_true(n > 0);
	rig_start(&rig, 4096);
	uint16_t tag = rig_submit(&rig, &t, dst, NULL);
	bytes[5] = (uint8_t)tag;
	assert_broken(rig_feed(&rig, bytes, (size_t)n, &reply), P9_EPROTO, why);
}

static const struct p9_msg clunk = { .type = P9_Tclunk };
static const struct p9_msg reading = { .type = P9_Tread, .tread = { 1, 0, 512 } };
static const struct p9_msg listing = { .type = P9_Treaddir, .treaddir = { 1, 77, 512 } };

static void frame_sizes(void **state)
{
	breach_raw(clunk, "06000000 79 0000", "below 7");
	breach_raw(clunk, "00000000 79 0000", "below 7");
	breach_raw(clunk, "01200000 79 0000", "larger than msize");
	breach_raw(clunk, "ffffffff 79 0000", "larger than msize");
	breach_raw(clunk, "08000000 79 0000 00", "malformed");	 /* a byte too many */
	breach_raw(clunk, "09000000 07 0000 0200", "malformed"); /* Rlerror cut short */
	breach_raw(clunk, "07000000 ff 0000", "unknown message");
	breach_raw(reading, "07000000 75 0000", "count and frame size differ");
	breach_raw(reading, "0a000000 75 0000 010000", "count and frame size differ");
	breach_raw(reading, "0c000000 75 0000 02000000 41", "count and frame size differ");
	breach_raw(reading, "0d000000 75 0000 01000000 4142", "count and frame size differ");
	breach_raw(reading, "0b000000 75 0000 ffffffff", "count and frame size differ");
}

static void tags(void **state)
{
	struct p9_reply reply;
	struct p9_msg r = { .type = P9_Rclunk }, t = clunk;
	rig_start(&rig, 4096);
	r.tag = 3; /* never sent */
	assert_broken(rig_reply(&rig, &r, &reply), P9_EPROTO, "not in flight");
	rig_start(&rig, 4096);
	r.tag = 60000; /* beyond the table */
	assert_broken(rig_reply(&rig, &r, &reply), P9_EPROTO, "not in flight");
	rig_start(&rig, 4096);
	r.tag = P9_NOTAG;
	assert_broken(rig_reply(&rig, &r, &reply), P9_EPROTO, "not in flight");
	rig_start(&rig, 4096);
	r.tag = rig_submit(&rig, &t, NULL, NULL); /* twice */
	assert_int_equal(rig_reply(&rig, &r, &reply), 1);
	assert_broken(rig_reply(&rig, &r, &reply), P9_EPROTO, "not in flight");
	rig_start(&rig, 4096);
	int tag = p9_engine_submit(&rig.e, &t, NULL, NULL); /* not sent yet */
	r.tag = (uint16_t)tag;
	assert_broken(rig_reply(&rig, &r, &reply), P9_EPROTO, "not in flight");
}

static void types(void **state)
{
	struct p9_msg r = { .type = P9_Rread };
	breach(clunk, r, "another type, to Tclunk came Rread");
	r.type = P9_Tclunk;
	breach(clunk, r, "another type");
	r.type = P9_Rclunk;
	breach(reading, r, "another type");
	r = (struct p9_msg){ .type = P9_Rreaddir };
	breach(reading, r, "another type");
}

static void error_numbers(void **state)
{
	static const uint32_t bad[] = { 0, 4096, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffe };
	for (size_t i = 0; i < P9T_COUNT(bad); i++) {
		struct p9_msg r = { .type = P9_Rlerror, .rlerror = { bad[i] } };
		breach(clunk, r, "error number");
	}
	struct p9_msg r = { .type = P9_Rlerror, .rlerror = { 4095 } }, t = clunk;
	struct p9_reply reply;
	rig_start(&rig, 4096);
	r.tag = rig_submit(&rig, &t, NULL, NULL);
	assert_int_equal(rig_reply(&rig, &r, &reply), 1);
	rig_fini(&rig);
}

static void counts(void **state)
{
	static uint8_t data[600];
	struct p9_msg r = { .type = P9_Rread, .rread = { { 513, data } } };
	breach(reading, r, "more bytes than asked");
	r = (struct p9_msg){ .type = P9_Rreaddir, .rreaddir = { { 600, data } } };
	breach(listing, r, "more bytes than asked");
	struct p9_msg w = { .type = P9_Twrite, .twrite = { 1, 0, { 10, data } } };
	r = (struct p9_msg){ .type = P9_Rwrite, .rwrite = { 11 } };
	breach(w, r, "more bytes than were sent");
	r.rwrite.count = 0xffffffff;
	breach(w, r, "more bytes than were sent");
}

static void walks(void **state)
{
	struct p9_msg t = { .type = P9_Twalk, .twalk = { 0, 1, { 2, { P9T_STR("a"), P9T_STR("b") } } } };
	struct p9_msg r = { .type = P9_Rwalk, .rwalk = { { 3 } } };
	breach(t, r, "more qids than names");
	r.rwalk.wqid.n = 0;
	breach(t, r, "no qid and no error");
	t.twalk.wname.n = 0;
	r.rwalk.wqid.n = 1;
	breach(t, r, "more qids than names");
	t.twalk.wname.n = 2; /* 65535 qids that are not there */
	breach_raw(t, "09000000 6f 0000 ffff", "malformed");
}

/* ---- entries ---- */
static void breach_entry(struct p9_str name, uint64_t offset, const char *why)
{
	uint8_t buf[512];
	struct p9_dirent e = { .offset = offset, .name = name };
	size_t n = p9_wire_dirent_put(buf, sizeof(buf), &e);
	assert_true(n > 0);
	struct p9_msg r = { .type = P9_Rreaddir, .rreaddir = { { (uint32_t)n, buf } } };
	breach(listing, r, why);
}

static void entries(void **state)
{
	static char longest[300];
	memset(longest, 'x', sizeof(longest));
	breach_entry((struct p9_str){ "", 0 }, 1, "without a name");
	breach_entry(P9T_STR("/"), 1, "'/' or NUL");
	breach_entry(P9T_STR("../x"), 1, "'/' or NUL");
	breach_entry(P9T_STR("a\0b"), 1, "'/' or NUL");
	breach_entry((struct p9_str){ longest, 256 }, 1, "above 255");
	breach_entry(P9T_STR("x"), 77, "does not advance");
	/* cut at the end, at every length */
	uint8_t buf[512];
	struct p9_dirent e = { .offset = 78, .name = P9T_STR("name") };
	size_t n = p9_wire_dirent_put(buf, sizeof(buf), &e);
	for (size_t cut = 1; cut < n; cut++) {
		struct p9_msg r = { .type = P9_Rreaddir, .rreaddir = { { (uint32_t)cut, buf } } };
		breach(listing, r, "cut short");
	}
	/* and what is fine */
	struct p9_msg r = { .type = P9_Rreaddir, .rreaddir = { { (uint32_t)n, buf } } }, t = listing;
	struct p9_reply reply;
	rig_start(&rig, 4096);
	r.tag = rig_submit(&rig, &t, dst, NULL);
	assert_int_equal(rig_reply(&rig, &r, &reply), 1);
	r.rreaddir.data.len = 0;
	r.tag = rig_submit(&rig, &t, dst, NULL);
	assert_int_equal(rig_reply(&rig, &r, &reply), 1);
	rig_fini(&rig);
}

static void link_texts(void **state)
{
	struct p9_msg t = { .type = P9_Treadlink };
	struct p9_msg r = { .type = P9_Rreadlink, .rreadlink = { P9T_STR("a\0b") } };
	breach(t, r, "NUL");
}

static void version_reply(struct p9_str version, uint32_t msize, int ecode, const char *why)
{
	struct p9_msg t = { .type = P9_Tversion, .tversion = { .msize = MSIZE, .version = P9T_STR("9P2000.L") } };
	struct p9_msg r = { .type = P9_Rversion, .tag = P9_NOTAG, .rversion = { msize, version } };
	struct p9_reply reply;
	rig_init(&rig, 4096);
	assert_true(p9_engine_submit(&rig.e, &t, NULL, NULL) >= 0);
	rig_pump(&rig);
	assert_broken(rig_reply(&rig, &r, &reply), ecode, why);
}

static void versions(void **state)
{
	static char endless[MSIZE - 13];
	memset(endless, '9', sizeof(endless));
	version_reply(P9T_STR("9P2000.L"), MSIZE + 1, P9_EPROTO, "larger than asked");
	version_reply(P9T_STR("9P2000.L"), 0xffffffff, P9_EPROTO, "larger than asked");
	version_reply(P9T_STR("9P2000.L"), 4095, P9_EPROTO, "below 4096");
	version_reply(P9T_STR("9P2000.L"), 0, P9_EPROTO, "below 4096");
	version_reply(P9T_STR("9P2000"), MSIZE, P9_EPROTONOSUPPORT, "does not speak");
	version_reply(P9T_STR("9P2000.Lx"), MSIZE, P9_EPROTONOSUPPORT, "does not speak");
	version_reply(P9T_STR("unknown"), 0, P9_EPROTONOSUPPORT, "does not speak");
	version_reply(P9T_STR(""), MSIZE, P9_EPROTONOSUPPORT, "does not speak");
	version_reply((struct p9_str){ endless, sizeof(endless) }, MSIZE, P9_EPROTONOSUPPORT, "does not speak");
	/* twice */
	struct p9_msg r = { .type = P9_Rversion, .tag = P9_NOTAG, .rversion = { MSIZE, P9T_STR("9P2000.L") } };
	struct p9_reply reply;
	rig_start(&rig, 4096);
	assert_broken(rig_reply(&rig, &r, &reply), P9_EPROTO, "not in flight");
}

/* Random bytes in the place of replies: the link ends or waits, memory stays whole (the sanitizers look). */
static void noise(void **state)
{
	struct p9t_rng rng = p9t_rng();
	for (int round = 0; round < 3000; round++) {
		struct p9_msg t[3] = { reading, listing, { .type = P9_Treadlink } };
		uint8_t bytes[64];
		struct p9_reply reply;
		rig_start(&rig, 1 + p9t_rand_below(&rng, 100));
		for (int i = 0; i < 3; i++) {
			rig_submit(&rig, &t[i], dst, NULL);
		}
		for (size_t i = 0; i < sizeof(bytes); i++) {
			bytes[i] = (uint8_t)p9t_rand(&rng);
		}
		int which = (int)p9t_rand_below(&rng, 3);
		bytes[0] = (uint8_t)(7 + p9t_rand_below(&rng, 60));
		bytes[1] = bytes[2] = bytes[3] = bytes[6] = 0;
		bytes[4] = (uint8_t)(t[which].type + 1);
		bytes[5] = (uint8_t)t[which].tag;
		(void)rig_feed(&rig, bytes, bytes[0] < sizeof(bytes) ? bytes[0] : sizeof(bytes), &reply);
		rig_fini(&rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frame_sizes),	 cmocka_unit_test(tags),       cmocka_unit_test(types),
		cmocka_unit_test(error_numbers), cmocka_unit_test(counts),     cmocka_unit_test(walks),
		cmocka_unit_test(entries),	 cmocka_unit_test(link_texts), cmocka_unit_test(versions),
		cmocka_unit_test(noise),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
