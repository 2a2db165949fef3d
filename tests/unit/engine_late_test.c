/* SPDX-License-Identifier: BSD-2-Clause */
/* engine_late_test.c - requests that end otherwise than by their reply: deadlines, late replies, cancelling, the end. */
#include "unit/engine_test.h"

static struct rig rig;

static int next(struct p9_reply *r)
{
	return p9_engine_next(&rig.e, r);
}

/* The next request that goes out, of this type. */
static struct p9_msg expect_request(uint8_t type)
{
	struct p9_msg m;
	assert_true(rig_request(&rig, &m));
	assert_int_equal(m.type, type);
	return m;
}

static void expect_silence(void)
{
	struct p9_msg m;
	assert_false(rig_request(&rig, &m));
}

static void expect_error(const struct p9_reply *r, const void *user, uint32_t ecode)
{
	assert_ptr_equal(r->user, user);
	assert_int_equal(r->msg.type, P9_Rlerror);
	assert_int_equal(r->msg.rlerror.ecode, ecode);
}

/* A request that the server was sent and that is overdue; its Tflush has gone out. Returns the flush's tag. */
static uint16_t let_pass(struct p9_msg *t, void *dst, void *user, uint16_t *tag)
{
	struct p9_reply reply;
	*tag = rig_submit(&rig, t, dst, user);
	p9_engine_deadline(&rig.e, *tag, 100);
	assert_int_equal(p9_engine_expire(&rig.e, 99, 50), 100);
	assert_int_equal(next(&reply), 0);
	assert_int_equal(p9_engine_expire(&rig.e, 100, 50), 150);
	assert_int_equal(next(&reply), 1);
	expect_error(&reply, user, P9_ETIMEDOUT);
	assert_int_equal(p9_engine_pending(&rig.e), 0);
	struct p9_msg f = expect_request(P9_Tflush);
	assert_int_equal(f.tflush.oldtag, *tag);
	return f.tag;
}

static void late_payload_goes_nowhere(void **state)
{
	static uint8_t data[4000], dst[4000];
	memset(data, 0xee, sizeof(data));
	for (size_t piece = 1; piece < 6000; piece = piece * 2 + 1) {
		struct p9_reply reply;
		struct p9_msg t = { .type = P9_Tread, .tread = { 1, 0, sizeof(dst) } };
		struct p9_msg other = { .type = P9_Tgetattr };
		uint16_t tag;
		int user, second;
		rig_start(&rig, piece);
		memset(dst, 0, sizeof(dst));
		uint16_t ftag = let_pass(&t, dst, &user, &tag);
		struct p9_msg r = { .type = P9_Rread, .tag = tag, .rread = { { sizeof(data), data } } };
		assert_int_equal(rig_reply(&rig, &r, &reply), 0);
		uint16_t otag = rig_submit(&rig, &other, NULL, &second);
		assert_int_not_equal(otag, tag); /* which waits for its Rflush */
		struct p9_msg ra = { .type = P9_Rgetattr,
				     .tag = otag,
				     .rgetattr = { .valid = 0x7ff, .mode = 0100644 } };
		assert_int_equal(rig_reply(&rig, &ra, &reply), 1);
		assert_ptr_equal(reply.user, &second);
		struct p9_msg rf = { .type = P9_Rflush, .tag = ftag };
		assert_int_equal(rig_reply(&rig, &rf, &reply), 0);
		assert_int_equal(p9_engine_room(&rig.e), NTAGS);
		for (size_t i = 0; i < sizeof(dst); i++) {
			assert_int_equal(dst[i], 0);
		}
		rig_fini(&rig);
	}
}

/* The deadline passes while the payload is on its way: what comes after it does not touch the caller's memory. */
static void deadline_in_a_payload(void **state)
{
	static uint8_t data[4000], dst[4000], frame[8192];
	struct p9_reply reply;
	struct p9_msg t = { .type = P9_Tread, .tread = { 1, 0, sizeof(dst) } };
	int user;
	rig_start(&rig, 100000);
	memset(data, 0xee, sizeof(data));
	memset(dst, 0, sizeof(dst));
	uint16_t tag = rig_submit(&rig, &t, dst, &user);
	struct p9_msg r = { .type = P9_Rread, .tag = tag, .rread = { { sizeof(data), data } } };
	int n = p9_wire_encode(frame, sizeof(frame), &r);
	assert_int_equal(rig_feed(&rig, frame, 1011, &reply), 0);
	assert_int_equal(dst[999], 0xee);
	p9_engine_deadline(&rig.e, tag, 10);
	p9_engine_expire(&rig.e, 11, 50);
	assert_int_equal(next(&reply), 1);
	expect_error(&reply, &user, P9_ETIMEDOUT);
	expect_silence(); /* it was answered: there is nothing to flush */
	assert_int_equal(p9_engine_room(&rig.e), NTAGS);
	assert_int_equal(rig_feed(&rig, frame + 1011, (size_t)n - 1011, &reply), 0);
	assert_int_equal(dst[1000], 0);
	assert_int_equal(rig.e.error, 0);
	rig_fini(&rig);
}

static void late_fids(void **state)
{
	struct p9_reply reply;
	int user;
	uint32_t fid;
	uint16_t tag;
	/* made late: clunked */
	rig_start(&rig, 100000);
	assert_int_equal(p9_engine_fid_get(&rig.e, &fid), 0);
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = 90, .newfid = fid, .wname = { 1, { P9T_STR("a") } } } };
	uint16_t ftag = let_pass(&t, NULL, &user, &tag);
	assert_int_equal(rig.e.nfids_used, 1);
	struct p9_msg r = { .type = P9_Rwalk, .tag = tag, .rwalk = { { 1, { { 0 } } } } };
	assert_int_equal(rig_reply(&rig, &r, &reply), 0);
	expect_silence();
	struct p9_msg rf = { .type = P9_Rflush, .tag = ftag };
	assert_int_equal(rig_reply(&rig, &rf, &reply), 0);
	struct p9_msg clunk = expect_request(P9_Tclunk);
	assert_int_equal(clunk.tclunk.fid, fid);
	assert_int_equal(rig.e.nfids_used, 1);
	struct p9_msg rc = { .type = P9_Rclunk, .tag = clunk.tag };
	assert_int_equal(rig_reply(&rig, &rc, &reply), 0);
	assert_int_equal(rig.e.nfids_used, 0);
	assert_int_equal(p9_engine_room(&rig.e), NTAGS);
	/* never made, for it was cancelled, or for it failed */
	for (int fails = 0; fails < 2; fails++) {
		assert_int_equal(p9_engine_fid_get(&rig.e, &fid), 0);
		rig.e.heard_at = 0;
		ftag = let_pass(&t, NULL, &user, &tag);
		t.twalk.newfid = fid;
		struct p9_msg re = { .type = P9_Rlerror, .tag = tag, .rlerror = { P9_ENOENT } };
		if (fails) {
			assert_int_equal(rig_reply(&rig, &re, &reply), 0);
		}
		rf.tag = ftag;
		assert_int_equal(rig_reply(&rig, &rf, &reply), 0);
		expect_silence();
		assert_int_equal(p9_engine_room(&rig.e), NTAGS);
		p9_engine_fid_put(&rig.e, fid);
		assert_int_equal(rig.e.nfids_used, 0);
	}
	rig_fini(&rig);
}

static void late_clunk(void **state)
{
	struct p9_reply reply;
	int user;
	uint32_t fid;
	rig_start(&rig, 100000);
	assert_int_equal(p9_engine_fid_get(&rig.e, &fid), 0);
	struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = fid } };
	uint16_t tag = rig_submit(&rig, &t, NULL, &user);
	p9_engine_deadline(&rig.e, tag, 5);
	p9_engine_expire(&rig.e, 6, 50);
	assert_int_equal(next(&reply), 1);
	expect_error(&reply, &user, P9_ETIMEDOUT);
	expect_silence(); /* what ends a fid is not cancelled */
	assert_int_equal(rig.e.nfids_used, 1);
	struct p9_msg r = { .type = P9_Rclunk, .tag = tag };
	assert_int_equal(rig_reply(&rig, &r, &reply), 0);
	assert_int_equal(rig.e.nfids_used, 0);
	rig_fini(&rig);
}

/* A server that says nothing for `grace` after a deadline is gone; one that answers others is not. */
static void silence_after_a_deadline(void **state)
{
	struct p9_reply reply;
	struct p9_msg t = { .type = P9_Tgetattr }, hung = { .type = P9_Tgetattr };
	int user, other;
	uint16_t tag;
	rig_start(&rig, 100000);
	let_pass(&hung, NULL, &user, &tag);
	for (uint64_t now = 140; now < 1000; now += 40) {
		uint16_t otag = rig_submit(&rig, &t, NULL, &other);
		struct p9_msg r = { .type = P9_Rlerror, .tag = otag, .rlerror = { P9_EACCES } };
		assert_int_equal(rig_reply(&rig, &r, &reply), 1);
		p9_engine_expire(&rig.e, now, 50);
		assert_int_equal(rig.e.error, 0);
	}
	p9_engine_expire(&rig.e, 1100, 50);
	assert_int_equal(rig.e.error, -P9_ETIMEDOUT);
	assert_int_equal(next(&reply), -P9_ETIMEDOUT);
	assert_int_equal(p9_engine_drain(&rig.e, &reply), 0); /* its owner was told */
	rig_fini(&rig);
}

/* The payload of a Twrite lies with the caller, so the request cannot be given up before it has left. */
static void write_that_is_not_taken(void **state)
{
	static uint8_t data[4000];
	struct p9_reply reply;
	struct p9_msg t = { .type = P9_Twrite, .twrite = { 1, 0, { sizeof(data), data } } };
	int user;
	rig_start(&rig, 100000);
	int tag = p9_engine_submit(&rig.e, &t, NULL, &user);
	assert_true(tag >= 0);
	p9_engine_out_ack(&rig.e, 500);
	p9_engine_deadline(&rig.e, (uint16_t)tag, 10);
	p9_engine_expire(&rig.e, 10, 50);
	assert_int_equal(rig.e.error, -P9_ETIMEDOUT);
	assert_int_equal(next(&reply), -P9_ETIMEDOUT);
	assert_int_equal(p9_engine_drain(&rig.e, &reply), 1);
	expect_error(&reply, &user, P9_ETIMEDOUT);
	assert_int_equal(p9_engine_drain(&rig.e, &reply), 0);
	rig_fini(&rig);
}

static void cancel(void **state)
{
	struct p9_reply reply;
	struct p9_msg t = { .type = P9_Tlock };
	int user;
	rig_start(&rig, 100000);
	for (int faster = 0; faster < 2; faster++) {
		uint16_t tag = rig_submit(&rig, &t, NULL, &user);
		assert_true(p9_engine_flush(&rig.e, tag, NULL) >= 0);
		uint16_t ftag = expect_request(P9_Tflush).tag;
		struct p9_msg r = { .type = P9_Rlock, .tag = tag }, rf = { .type = P9_Rflush, .tag = ftag };
		assert_int_equal(p9_engine_pending(&rig.e), 1);
		if (faster) {
			assert_int_equal(rig_reply(&rig, &r, &reply), 1);
			assert_ptr_equal(reply.user, &user);
			assert_int_equal(reply.msg.type, P9_Rlock);
			assert_int_equal(rig_reply(&rig, &rf, &reply), 0);
		} else {
			assert_int_equal(rig_reply(&rig, &rf, &reply), 1);
			expect_error(&reply, &user, P9_ECANCELED);
			assert_int_equal(next(&reply), 0);
		}
		assert_int_equal(p9_engine_room(&rig.e), NTAGS);
	}
	rig_fini(&rig);
}

/* The end of the link reaches each request once, also those whose flush is open; then a new link can begin. */
static void the_end_is_told_once(void **state)
{
	struct p9_reply reply;
	struct p9_msg t = { .type = P9_Tgetattr };
	static int users[NTAGS];
	static const uint8_t junk[7] = { 7, 0, 0, 0, 200, 0, 0 };
	uint32_t fid;
	rig_start(&rig, 100000);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(p9_engine_fid_get(&rig.e, &fid), 0);
		struct p9_msg w = { .type = P9_Twalk, .twalk = { .fid = 90, .newfid = fid } };
		uint16_t tag = rig_submit(&rig, &w, NULL, &users[0]);
		for (int i = 1; i < NTAGS - 2; i++) {
			rig_submit(&rig, &t, NULL, &users[i]);
		}
		assert_true(p9_engine_flush(&rig.e, tag, NULL) >= 0);
		assert_true(p9_engine_flush(&rig.e, tag, &users[NTAGS - 1]) >= 0);
		rig_pump(&rig);
		rig.nsent = 0;
		assert_int_equal(rig_feed(&rig, junk, sizeof(junk), &reply), -P9_EPROTO);
		unsigned told[NTAGS] = { 0 }, n = 0;
		while (p9_engine_drain(&rig.e, &reply)) {
			expect_error(&reply, reply.user, P9_EPROTO);
			told[(int *)reply.user - users]++;
			n++;
		}
		assert_int_equal(n, NTAGS - 1);
		for (int i = 0; i < NTAGS; i++) {
			assert_int_equal(told[i], i != NTAGS - 2);
		}
		assert_int_equal(rig.e.nfids_used, 0);
		p9_engine_restart(&rig.e, MSIZE);
		struct p9_msg v = { .type = P9_Tversion, .tversion = { MSIZE, P9T_STR("9P2000.L") } };
		assert_true(p9_engine_submit(&rig.e, &v, NULL, &rig) >= 0);
		expect_request(P9_Tversion);
		struct p9_msg rv = { .type = P9_Rversion, .tag = P9_NOTAG, .rversion = { MSIZE, P9T_STR("9P2000.L") } };
		assert_int_equal(rig_reply(&rig, &rv, &reply), 1);
		assert_int_equal(p9_engine_room(&rig.e), NTAGS);
	}
	rig_fini(&rig);
}

/* Deadlines, late replies, flushes and cancels at random: each request is answered once, tags and fids come back. */
static void at_random(void **state)
{
	struct p9t_rng rng = p9t_rng();
	static uint8_t dst[NTAGS][512], data[512];
	static struct p9_msg open[NTAGS * 4];
	uint64_t now = 1;
	unsigned nopen = 0, answers = 0, asked = 0;
	bool waiting[NTAGS * 100000 / 1000] = { false };
	rig_start(&rig, 64);
	while (asked < 700 || p9_engine_room(&rig.e) < NTAGS) {
		struct p9_reply reply;
		uint64_t what = p9t_rand_below(&rng, 6);
		now++;
		if (what < 2 && asked < 700 && p9_engine_room(&rig.e)) {
			uint16_t tag = rig.e.free_first;
			struct p9_msg t = { .type = P9_Tread, .tread = { 1, 0, 512 } };
			waiting[asked] = true;
			assert_true(p9_engine_submit(&rig.e, &t, dst[tag], &waiting[asked++]) >= 0);
			p9_engine_deadline(&rig.e, t.tag, p9t_rand_below(&rng, 2) ? now + p9t_rand_below(&rng, 30) : 0);
			if (p9t_rand_below(&rng, 4) == 0 && p9_engine_room(&rig.e)) {
				assert_true(p9_engine_flush(&rig.e, t.tag, NULL) >= 0);
			}
		} else if (what < 4) {
			p9_engine_expire(&rig.e, now, 1000000);
		} else if (nopen > 0) { /* the server answers one, and forgets what it has flushed */
			unsigned i = (unsigned)p9t_rand_below(&rng, nopen);
			struct p9_msg t = open[i], r = { .type = (uint8_t)(t.type + 1), .tag = t.tag };
			open[i] = open[--nopen];
			if (t.type == P9_Tread) {
				r.rread.data = (struct p9_data){ (uint32_t)p9t_rand_below(&rng, 513), data };
			}
			for (unsigned k = 0; t.type == P9_Tflush && k < nopen; k++) {
				if (open[k].type == P9_Tread && open[k].tag == t.tflush.oldtag) {
					open[k--] = open[--nopen];
				}
			}
			int rc = 1;
			static uint8_t frame[1024];
			int n = p9_wire_encode(frame, sizeof(frame), &r);
			while (p9_engine_next(&rig.e, &reply) == 1) {
				assert_true(*(bool *)reply.user);
				*(bool *)reply.user = false;
				answers++;
			}
			rc = rig_feed(&rig, frame, (size_t)n, &reply);
			assert_true(rc >= 0);
			if (rc == 1) {
				assert_true(*(bool *)reply.user);
				*(bool *)reply.user = false;
				answers++;
			}
		}
		while (p9_engine_next(&rig.e, &reply) == 1) {
			assert_true(*(bool *)reply.user);
			*(bool *)reply.user = false;
			answers++;
		}
		while (rig_request(&rig, &open[nopen])) {
			nopen++;
		}
	}
	assert_int_equal(answers, 700);
	assert_int_equal(p9_engine_pending(&rig.e), 0);
	assert_int_equal(rig.e.nquiet, 0);
	rig_fini(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(late_payload_goes_nowhere),
		cmocka_unit_test(deadline_in_a_payload),
		cmocka_unit_test(late_fids),
		cmocka_unit_test(late_clunk),
		cmocka_unit_test(silence_after_a_deadline),
		cmocka_unit_test(write_that_is_not_taken),
		cmocka_unit_test(cancel),
		cmocka_unit_test(the_end_is_told_once),
		cmocka_unit_test(at_random),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
