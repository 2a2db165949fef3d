/* SPDX-License-Identifier: BSD-2-Clause */
/* engine_engine_test.c - the client engine with a server that keeps the rules: requests, replies, tags, fids, flush. */
#include "unit/engine_test.h"

static struct rig rig;

static void begin(size_t piece)
{
	rig_start(&rig, piece);
}
static void end(void)
{
	rig_fini(&rig);
}

static void configuration(void **state)
{
	struct p9_engine e;
	static _Alignas(16) uint8_t mem[512 * 1024];
	struct p9_engine_conf good = { .msize = 4096, .nfids = 1, .ntags = 2 }, bad = good;
	bad.msize = 4095;
	assert_int_equal(p9_engine_init(&e, &bad, mem, sizeof(mem)), -P9_EINVAL);
	bad = good;
	bad.ntags = 1;
	assert_int_equal(p9_engine_init(&e, &bad, mem, sizeof(mem)), -P9_EINVAL);
	bad = good;
	bad.nfids = 0;
	assert_int_equal(p9_engine_init(&e, &bad, mem, sizeof(mem)), -P9_EINVAL);
	assert_int_equal(p9_engine_init(&e, &good, mem, p9_engine_memory(&good) - 1), -P9_ENOMEM);
	assert_int_equal(p9_engine_init(&e, &good, mem, p9_engine_memory(&good)), 0);
	struct p9_msg t = { .type = P9_Tclunk };
	assert_int_equal(p9_engine_submit(&e, &t, NULL, NULL), -P9_EINVAL); /* Tversion comes first */
	assert_int_equal(p9_engine_room(&e), 0);
}

/* Every length of piece in which bytes can arrive gives the same conversation. */
static void conversation_in_pieces(void **state)
{
	static uint8_t dst[4096], payload[4096];
	for (size_t piece = 1; piece < 5000; piece = piece < 40 ? piece + 1 : piece * 3) {
		begin(piece);
		struct p9_msg got, r;
		struct p9_reply reply;
		for (unsigned i = 0; i < sizeof(payload); i++) {
			payload[i] = (uint8_t)(i * 7 + piece);
		}
		struct p9_msg w = { .type = P9_Twrite, .twrite = { 1, 10, { sizeof(payload), payload } } };
		struct p9_msg rd = { .type = P9_Tread, .tread = { 1, 0, sizeof(dst) } };
		assert_true(p9_engine_submit(&rig.e, &w, NULL, &w) >= 0);
		assert_true(p9_engine_submit(&rig.e, &rd, dst, &rd) >= 0);
		assert_int_equal(p9_engine_pending(&rig.e), 2);
		assert_true(rig_request(&rig, &got));
		assert_int_equal(got.type, P9_Twrite);
		assert_int_equal(got.twrite.data.len, sizeof(payload));
		assert_memory_equal(got.twrite.data.p, payload, sizeof(payload));
		assert_true(rig_request(&rig, &got));
		assert_int_equal(got.type, P9_Tread);
		/* the answers come the other way round */
		memset(dst, 0, sizeof(dst));
		r = (struct p9_msg){ .type = P9_Rread, .tag = rd.tag, .rread = { { 4000, payload } } };
		assert_int_equal(rig_reply(&rig, &r, &reply), 1);
		assert_ptr_equal(reply.user, &rd);
		assert_ptr_equal(reply.msg.rread.data.p, dst);
		assert_int_equal(reply.msg.rread.data.len, 4000);
		assert_memory_equal(dst, payload, 4000);
		assert_int_equal(dst[4000], 0);
		r = (struct p9_msg){ .type = P9_Rwrite, .tag = w.tag, .rwrite = { 4096 } };
		assert_int_equal(rig_reply(&rig, &r, &reply), 1);
		assert_ptr_equal(reply.user, &w);
		assert_int_equal(p9_engine_pending(&rig.e), 0);
		assert_int_equal(p9_engine_next(&rig.e, &reply), 0);
		end();
	}
}

/* Several replies in one piece of input, with payload in between. */
static void replies_together(void **state)
{
	static uint8_t dst[2][100], bytes[1024], data[100];
	struct p9_msg t[3] = { { .type = P9_Tread, .tread = { 1, 0, 100 } },
			       { .type = P9_Tgetattr },
			       { .type = P9_Tread, .tread = { 1, 100, 100 } } };
	struct p9_reply reply;
	size_t n = 0;
	begin(4096);
	for (int i = 0; i < 3; i++) {
		rig_submit(&rig, &t[i], i == 1 ? NULL : dst[i / 2], &t[i]);
	}
	memset(data, 'x', sizeof(data));
	for (int i = 0; i < 3; i++) {
		struct p9_msg r = { .type = (uint8_t)(t[i].type + 1), .tag = t[i].tag };
		if (i != 1) {
			r.rread.data = (struct p9_data){ 100, data };
		}
		n += (size_t)p9_wire_encode(bytes + n, sizeof(bytes) - n, &r);
	}
	struct p9_engine_iov v[2];
	assert_int_equal(p9_engine_in(&rig.e, v), 1);
	memcpy(v[0].p, bytes, n);
	p9_engine_in_ack(&rig.e, n);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(p9_engine_next(&rig.e, &reply), 1);
		assert_ptr_equal(reply.user, &t[i]);
	}
	assert_memory_equal(dst[0], data, 100);
	assert_memory_equal(dst[1], data, 100);
	assert_int_equal(p9_engine_next(&rig.e, &reply), 0);
	end();
}

static void payload_goes_elsewhere(void **state)
{
	static uint8_t first[100], other[100], data[100], bytes[256];
	struct p9_msg t = { .type = P9_Tread, .tread = { 1, 0, 100 } }, stat = { .type = P9_Tgetattr };
	struct p9_reply reply;
	begin(7);
	rig_submit(&rig, &t, first, &t);
	rig_submit(&rig, &stat, NULL, &stat);
	assert_int_equal(p9_engine_redirect(&rig.e, stat.tag, other), -P9_EINVAL);
	assert_int_equal(p9_engine_redirect(&rig.e, NTAGS - 1, other), -P9_EINVAL);
	assert_int_equal(p9_engine_redirect(&rig.e, P9_NOTAG, other), -P9_EINVAL);
	assert_int_equal(p9_engine_redirect(&rig.e, t.tag, NULL), -P9_EINVAL);
	assert_int_equal(p9_engine_redirect(&rig.e, t.tag, other), 0);
	memset(data, 'x', sizeof(data));
	struct p9_msg r = { .type = P9_Rread, .tag = t.tag, .rread = { { 100, data } } };
	size_t n = (size_t)p9_wire_encode(bytes, sizeof(bytes), &r);
	assert_int_equal(rig_feed(&rig, bytes, 50, &reply), 0);
	assert_int_equal(p9_engine_redirect(&rig.e, t.tag, first), -P9_EBUSY);
	assert_int_equal(rig_feed(&rig, bytes + 50, n - 50, &reply), 1);
	assert_ptr_equal(reply.msg.rread.data.p, other);
	assert_memory_equal(other, data, 100);
	assert_memory_equal(first, (uint8_t[100]){ 0 }, 100);
	assert_int_equal(p9_engine_redirect(&rig.e, t.tag, first), -P9_EINVAL);
	end();
}

static void tags_run_out_and_come_back(void **state)
{
	struct p9_msg t = { .type = P9_Tgetattr };
	struct p9_reply reply;
	bool used[NTAGS] = { false };
	begin(4096);
	for (int i = 0; i < NTAGS; i++) {
		assert_int_equal(p9_engine_room(&rig.e), NTAGS - i);
		uint16_t tag = rig_submit(&rig, &t, NULL, NULL);
		assert_true(tag < NTAGS && !used[tag]);
		used[tag] = true;
	}
	assert_int_equal(p9_engine_submit(&rig.e, &t, NULL, NULL), -P9_EAGAIN);
	/* the one that comes back first is used first */
	struct p9_msg r = { .type = P9_Rgetattr, .tag = 5 };
	assert_int_equal(rig_reply(&rig, &r, &reply), 1);
	r.tag = 2;
	assert_int_equal(rig_reply(&rig, &r, &reply), 1);
	assert_int_equal(rig_submit(&rig, &t, NULL, NULL), 5);
	assert_int_equal(rig_submit(&rig, &t, NULL, NULL), 2);
	end();
}

static void fids_are_reused_when_clunked(void **state)
{
	uint32_t fid[100], one;
	struct p9_reply reply;
	begin(4096);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(p9_engine_fid_get(&rig.e, &fid[i]), 0);
		assert_true(fid[i] < 100);
		for (unsigned k = 0; k < i; k++) {
			assert_int_not_equal(fid[i], fid[k]);
		}
	}
	assert_int_equal(p9_engine_fid_get(&rig.e, &one), -P9_EMFILE);
	struct p9_msg t = { .type = P9_Tclunk, .tclunk = { fid[70] } };
	rig_submit(&rig, &t, NULL, NULL);
	assert_int_equal(p9_engine_fid_get(&rig.e, &one), -P9_EMFILE); /* not before the reply */
	struct p9_msg r = { .type = P9_Rlerror, .tag = t.tag, .rlerror = { P9_EIO } };
	assert_int_equal(rig_reply(&rig, &r, &reply), 1); /* an error ends the fid, too */
	assert_int_equal(p9_engine_fid_get(&rig.e, &one), 0);
	assert_int_equal(one, fid[70]);
	/* a walk that fails gives its new fid back; one that comes short does not */
	p9_engine_fid_put(&rig.e, one);
	assert_int_equal(p9_engine_fid_get(&rig.e, &one), 0);
	struct p9_msg w = { .type = P9_Twalk, .twalk = { 0, one, { 2, { P9T_STR("a"), P9T_STR("b") } } } };
	rig_submit(&rig, &w, NULL, NULL);
	r.tag = w.tag;
	assert_int_equal(rig_reply(&rig, &r, &reply), 1);
	assert_int_equal(p9_engine_fid_get(&rig.e, &one), 0);
	rig_submit(&rig, &w, NULL, NULL);
	r = (struct p9_msg){ .type = P9_Rwalk, .tag = w.tag, .rwalk = { { 1 } } };
	assert_int_equal(rig_reply(&rig, &r, &reply), 1);
	assert_int_equal(p9_engine_fid_get(&rig.e, &one), -P9_EMFILE);
	/* put twice is put once */
	p9_engine_fid_put(&rig.e, 3);
	p9_engine_fid_put(&rig.e, 3);
	p9_engine_fid_put(&rig.e, 1000);
	assert_int_equal(p9_engine_fid_get(&rig.e, &one), 0);
	assert_int_equal(p9_engine_fid_get(&rig.e, &one), -P9_EMFILE);
	end();
}

static void what_does_not_fit_is_refused(void **state)
{
	static uint8_t big[MSIZE];
	begin(4096);
	struct p9_msg w = { .type = P9_Twrite, .twrite = { 1, 0, { MSIZE - P9_TWRITEHDRSZ + 1, big } } };
	assert_int_equal(p9_engine_submit(&rig.e, &w, NULL, NULL), -P9_EMSGSIZE);
	w.twrite.data.len--;
	assert_true(p9_engine_submit(&rig.e, &w, NULL, NULL) >= 0);
	struct p9_msg r = { .type = P9_Tread, .tread = { 1, 0, MSIZE - P9_RREADHDRSZ + 1 } };
	assert_int_equal(p9_engine_submit(&rig.e, &r, big, NULL), -P9_EMSGSIZE);
	r.tread.count--;
	assert_true(p9_engine_submit(&rig.e, &r, big, NULL) >= 0);
	assert_int_equal(p9_engine_submit(&rig.e, &r, NULL, NULL), -P9_EINVAL); /* nowhere to put it */
	struct p9_msg reply = { .type = P9_Rread };
	assert_int_equal(p9_engine_submit(&rig.e, &reply, NULL, NULL), -P9_EINVAL);
	assert_int_equal(p9_engine_room(&rig.e), NTAGS - 2);
	end();
}

/* A short output buffer takes what fits, and the rest when room is there again. */
static void output_buffer_fills(void **state)
{
	struct p9_engine_conf conf = { .msize = MSIZE, .nfids = 1, .ntags = 64, .out_size = 64 };
	static struct p9_engine e;
	static _Alignas(16) uint8_t mem[1024 * 1024];
	struct p9_msg v = { .type = P9_Tversion, .tversion = { MSIZE, P9T_STR("9P2000.L") } };
	struct p9_msg t = { .type = P9_Tgetattr };
	struct p9_engine_iov iov[1], in[2];
	struct p9_reply reply;
	uint8_t frame[64];
	assert_int_equal(p9_engine_init(&e, &conf, mem, sizeof(mem)), 0);
	assert_true(p9_engine_submit(&e, &v, NULL, NULL) >= 0);
	assert_int_equal(p9_engine_out(&e, iov, 1), 1);
	p9_engine_out_ack(&e, iov[0].len);
	v.type = P9_Rversion;
	int n = p9_wire_encode(frame, sizeof(frame), &v);
	p9_engine_in(&e, in);
	memcpy(in[0].p, frame, (size_t)n);
	p9_engine_in_ack(&e, (size_t)n);
	assert_int_equal(p9_engine_next(&e, &reply), 1);
	for (int i = 0; i < 3; i++) {
		assert_true(p9_engine_submit(&e, &t, NULL, NULL) >= 0); /* 19 bytes each */
	}
	assert_int_equal(p9_engine_submit(&e, &t, NULL, NULL), -P9_EAGAIN);
	assert_int_equal(p9_engine_room(&e), 61);
	p9_engine_out_ack(&e, 20);
	assert_true(p9_engine_submit(&e, &t, NULL, NULL) >= 0);
	assert_int_equal(p9_engine_out(&e, iov, 1), 1);
	assert_int_equal(iov[0].len, 4 * 19 - 20);
	assert_int_equal(p9_get16(iov[0].p + 18 + 5), 2); /* the third request, whole */
}

/* ---- flush ---- */
static void flush_after_the_reply(void **state)
{
	struct p9_msg t = { .type = P9_Tlock }, r = { .type = P9_Rlock }, rf = { .type = P9_Rflush };
	struct p9_reply reply;
	int user, flusher;
	begin(4096);
	uint16_t tag = rig_submit(&rig, &t, NULL, &user);
	int f = p9_engine_flush(&rig.e, tag, &flusher);
	assert_true(f >= 0);
	rig_pump(&rig);
	r.tag = tag;
	rf.tag = (uint16_t)f;
	assert_int_equal(rig_reply(&rig, &r, &reply), 1);
	assert_ptr_equal(reply.user, &user);
	assert_int_equal(reply.msg.type, P9_Rlock);
	for (int i = 0; i < NTAGS - 2; i++) { /* the tag waits for its Rflush */
		assert_int_not_equal(rig_submit(&rig, &t, NULL, NULL), tag);
	}
	assert_int_equal(p9_engine_submit(&rig.e, &t, NULL, NULL), -P9_EAGAIN);
	assert_int_equal(rig_reply(&rig, &rf, &reply), 1);
	assert_ptr_equal(reply.user, &flusher);
	assert_int_equal(p9_engine_room(&rig.e), 2);
	end();
}

static void flush_instead_of_the_reply(void **state)
{
	struct p9_msg t = { .type = P9_Tlock }, rf = { .type = P9_Rflush }, r = { .type = P9_Rlock };
	struct p9_reply reply;
	int user, flusher[2];
	begin(4096);
	uint16_t tag = rig_submit(&rig, &t, NULL, &user);
	int f1 = p9_engine_flush(&rig.e, tag, &flusher[0]), f2 = p9_engine_flush(&rig.e, tag, &flusher[1]);
	rig_pump(&rig);
	rf.tag = (uint16_t)f1;
	assert_int_equal(rig_reply(&rig, &rf, &reply), 1);
	assert_ptr_equal(reply.user, &user);
	assert_int_equal(reply.msg.type, P9_Rlerror);
	assert_int_equal(reply.msg.rlerror.ecode, P9_ECANCELED);
	assert_int_equal(p9_engine_next(&rig.e, &reply), 1);
	assert_ptr_equal(reply.user, &flusher[0]);
	assert_int_equal(reply.msg.type, P9_Rflush);
	assert_int_equal(p9_engine_room(&rig.e), NTAGS - 2); /* two: the second flush, and the tag it names */
	rf.tag = (uint16_t)f2;
	assert_int_equal(rig_reply(&rig, &rf, &reply), 1);
	assert_ptr_equal(reply.user, &flusher[1]);
	assert_int_equal(p9_engine_room(&rig.e), NTAGS);
	/* after Rflush no reply can come */
	r.tag = tag;
	assert_int_equal(rig_reply(&rig, &r, &reply), -P9_EPROTO);
	end();
}

static void flush_of_nothing(void **state)
{
	begin(4096);
	assert_int_equal(p9_engine_flush(&rig.e, 3, NULL), -P9_EINVAL);
	assert_int_equal(p9_engine_flush(&rig.e, 60000, NULL), -P9_EINVAL);
	end();
}

/* Thousands of requests at random, answered in random order, in random pieces: every reply meets its request. */
static void random_conversations(void **state)
{
	struct p9t_rng rng = p9t_rng();
	static uint8_t dst[NTAGS][512], data[512];
	uintptr_t owner[NTAGS] = { 0 }, count = 0, answered = 0;
	begin(1);
	while (answered < 20000) {
		rig.piece = 1 + p9t_rand_below(&rng, 700);
		uint32_t want = (uint32_t)p9t_rand_below(&rng, 512) + 1;
		struct p9_msg t = { .type = P9_Tread, .tread = { 1, 0, want } };
		uint16_t next = rig.e.free_first;
		if (p9_engine_room(&rig.e) > 0 && p9t_rand_below(&rng, 2)) {
			int tag = p9_engine_submit(&rig.e, &t, dst[next], (void *)++count);
			assert_int_equal(tag, next);
			owner[tag] = count;
			rig_pump(&rig);
			rig.nsent = 0;
			continue;
		}
		unsigned tag = (unsigned)p9t_rand_below(&rng, NTAGS);
		if (!owner[tag]) {
			continue;
		}
		uint32_t len = (uint32_t)p9t_rand_below(&rng, rig.e.slots[tag].asked + 1);
		memset(data, (int)owner[tag], sizeof(data));
		struct p9_msg r = { .type = P9_Rread, .tag = (uint16_t)tag, .rread = { { len, data } } };
		struct p9_reply reply;
		assert_int_equal(rig_reply(&rig, &r, &reply), 1);
		assert_int_equal((uintptr_t)reply.user, owner[tag]);
		assert_int_equal(reply.msg.rread.data.len, len);
		assert_memory_equal(dst[tag], data, len);
		owner[tag] = 0;
		answered++;
	}
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(configuration),
		cmocka_unit_test(conversation_in_pieces),
		cmocka_unit_test(replies_together),
		cmocka_unit_test(payload_goes_elsewhere),
		cmocka_unit_test(tags_run_out_and_come_back),
		cmocka_unit_test(fids_are_reused_when_clunked),
		cmocka_unit_test(what_does_not_fit_is_refused),
		cmocka_unit_test(output_buffer_fills),
		cmocka_unit_test(flush_after_the_reply),
		cmocka_unit_test(flush_instead_of_the_reply),
		cmocka_unit_test(flush_of_nothing),
		cmocka_unit_test(random_conversations),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
