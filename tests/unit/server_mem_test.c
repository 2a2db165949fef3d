/* SPDX-License-Identifier: BSD-2-Clause */
/* server_mem_test.c - a whole server with a synthetic tree, over the memory transport: no socket, no directory. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include "base/loop.h"
#include "p9/codec.h"
#include "p9/server.h"
#include "p9/synth.h"
#include "transport/mem.h"

#define QUEUE 8192

struct world {
	struct p9_server *srv;
	struct p9_synth *tree;
	struct p9_mem *mem;
};

static size_t hello(void *arg, char *buf, size_t cap)
{
	(void)arg;
	(void)cap;
	memcpy(buf, "hello", 5);
	return 5;
}

enum { OPENS = 24 };
static struct p9_mem *peer_end;
static _Atomic unsigned opened;
static _Atomic bool early; /* a reply was there before the last request had been worked on */

/* A file that takes its time, and looks at what the peer has got meanwhile. */
static size_t slow(void *arg, char *buf, size_t cap)
{
	(void)arg;
	(void)cap;
	uint8_t byte;
	for (uint64_t end = p9_spin_clock() + 60000; p9_spin_clock() < end;) {
	}
	if (opened + 1 == OPENS) {
		early = p9_mem_get(peer_end, &byte, 1) == 1;
	}
	opened++;
	memcpy(buf, "slow", 4);
	return 4;
}

static int begin(void **state)
{
	static struct world w;
	struct p9_server_config conf = { .msize = 65536, .loops = 1, .workers = 4, .conns = 4 };
	struct p9_peer peer = { .kind = P9_PEER_FD, .text = "mem" };
	w = (struct world){ 0 };
	assert_int_equal(p9_synth_new(&w.tree), 0);
	assert_int_equal(p9_synth_file(w.tree, "dir/file", hello, NULL), 0);
	assert_int_equal(p9_synth_file(w.tree, "dir/file", hello, NULL), -P9_EEXIST);
	assert_int_equal(p9_synth_file(w.tree, "slow", slow, NULL), 0);
	assert_int_equal(p9_server_new(&conf, &w.srv), 0);
	struct p9_export_config ex = { .name = "tree", .backend = &p9_synth, .root = w.tree, .ro = true };
	assert_int_equal(p9_server_export(w.srv, &ex), 0);
	assert_int_equal(p9_server_start(w.srv), 0);
	w.mem = p9_mem_new(QUEUE);
	assert_non_null(w.mem);
	int fd = p9_mem_fd(w.mem);
	assert_int_equal(p9_server_accept(w.srv, p9_mem_make, fd, fd, &peer), 0);
	*state = &w;
	return 0;
}

static int finish(void **state)
{
	struct world *w = *state;
	if (w->mem) {
		p9_mem_close(w->mem);
	}
	assert_true(p9_server_stop(w->srv, 5000));
	p9_server_free(w->srv);
	p9_synth_free(w->tree);
	return 0;
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
}

/* Sends a request and waits for one whole reply, which `buf` holds. */
static void call(struct world *w, const struct p9_msg *t, struct p9_msg *r, uint8_t buf[QUEUE])
{
	int n = p9_wire_encode(buf, QUEUE, t);
	assert_true(n > 0);
	assert_int_equal(p9_mem_put(w->mem, buf, (size_t)n), (size_t)n);
	size_t have = 0;
	while (have < 4 || have < p9_get32(buf)) {
		ssize_t k = p9_mem_get(w->mem, buf + have, (have < 4 ? 4 : p9_get32(buf)) - have);
		assert_true(k >= 0);
		have += (size_t)k;
		if (k == 0) {
			nap();
		}
	}
	assert_int_equal(p9_wire_decode(buf, have, 0, r), 0);
	assert_int_equal(r->tag, t->tag);
}

static void attach(struct world *w, uint8_t buf[QUEUE])
{
	struct p9_msg r;
	call(w, &(struct p9_msg){ P9_Tversion, P9_NOTAG, .tversion = { 4096, { "9P2000.L", 8 } } }, &r, buf);
	assert_int_equal(r.type, P9_Rversion);
	assert_int_equal(r.rversion.msize, 4096);
	call(w, &(struct p9_msg){ P9_Tattach, 1, .tattach = { 0, P9_NOFID, { "u", 1 }, { "", 0 }, 0 } }, &r, buf);
	assert_int_equal(r.type, P9_Rattach);
	assert_int_equal(r.rattach.qid.type, P9_QTDIR);
}

static void a_conversation(void **state)
{
	struct world *w = *state;
	uint8_t buf[QUEUE];
	struct p9_msg r, walk = { P9_Twalk, 2, .twalk = { 0, 1, { 2, { { "dir", 3 }, { "file", 4 } } } } };
	attach(w, buf);
	call(w, &walk, &r, buf);
	assert_int_equal(r.type, P9_Rwalk);
	assert_int_equal(r.rwalk.wqid.n, 2);
	call(w, &(struct p9_msg){ P9_Tlopen, 3, .tlopen = { 1, P9_O_RDONLY } }, &r, buf);
	assert_int_equal(r.type, P9_Rlopen);
	call(w, &(struct p9_msg){ P9_Tread, 4, .tread = { 1, 1, 100 } }, &r, buf);
	assert_int_equal(r.type, P9_Rread);
	assert_int_equal(r.rread.data.len, 4);
	assert_memory_equal(r.rread.data.p, "ello", 4);
	call(w, &(struct p9_msg){ P9_Tmkdir, 5, .tmkdir = { 0, { "x", 1 }, 0755, 0 } }, &r, buf);
	assert_int_equal(r.type, P9_Rlerror);
	assert_int_equal(r.rlerror.ecode, P9_EROFS);
	call(w, &(struct p9_msg){ P9_Tclunk, 6, .tclunk = { 1 } }, &r, buf);
	assert_int_equal(r.type, P9_Rclunk);
}

static void a_directory(void **state)
{
	struct world *w = *state;
	uint8_t buf[QUEUE];
	struct p9_msg r;
	struct p9_dirent e;
	size_t pos = 0;
	attach(w, buf);
	call(w, &(struct p9_msg){ P9_Tlopen, 3, .tlopen = { 0, P9_O_RDONLY } }, &r, buf);
	call(w, &(struct p9_msg){ P9_Treaddir, 4, .treaddir = { 0, 0, 4000 } }, &r, buf);
	assert_int_equal(r.type, P9_Rreaddir);
	const char *const names[] = { ".", "..", "dir", "slow" };
	for (int i = 0; i < 4; i++) {
		assert_int_equal(p9_wire_dirent_get(&r.rreaddir.data, &pos, &e), 1);
		assert_int_equal(e.name.len, strlen(names[i]));
		assert_memory_equal(e.name.s, names[i], e.name.len);
	}
	assert_int_equal(p9_wire_dirent_get(&r.rreaddir.data, &pos, &e), 0);
	call(w, &(struct p9_msg){ P9_Treaddir, 5, .treaddir = { 0, 0, 20 } }, &r, buf);
	assert_int_equal(r.rlerror.ecode, P9_EINVAL);
}

/* The replies to many requests that came together do not wait for the last of them. */
static void replies_leave_between_requests(void **state)
{
	struct world *w = *state;
	static uint8_t buf[QUEUE], many[QUEUE];
	size_t n = 0;
	attach(w, buf);
	peer_end = w->mem;
	for (uint16_t i = 0; i < OPENS; i++) {
		struct p9_msg walk = { P9_Twalk, (uint16_t)(2 * i), .twalk = { 0, 1u + i, { 1, { { "slow", 4 } } } } };
		struct p9_msg open = { P9_Tlopen, (uint16_t)(2 * i + 1), .tlopen = { 1u + i, P9_O_RDONLY } };
		n += (size_t)p9_wire_encode(many + n, QUEUE - n, &walk);
		n += (size_t)p9_wire_encode(many + n, QUEUE - n, &open);
	}
	assert_int_equal(p9_mem_put(w->mem, many, n), n);
	while (opened < OPENS) {
		nap();
	}
	assert_true(early);
}

static void bad_framing_ends_the_link(void **state)
{
	struct world *w = *state;
	uint8_t buf[QUEUE];
	attach(w, buf);
	assert_int_equal(p9_mem_put(w->mem, "\3\0\0\0\0\0\0", 7), 7);
	ssize_t n;
	while ((n = p9_mem_get(w->mem, buf, sizeof(buf))) >= 0) {
		assert_int_equal(n, 0);
		nap();
	}
	while (p9_server_conns(w->srv) > 0) {
		nap();
	}
}

struct stuck {
	struct p9_job job;
	atomic_bool here, go;
};

static void stick(struct p9_job *job, struct p9_thread *self)
{
	struct stuck *s = (struct stuck *)job;
	(void)self;
	atomic_store(&s->here, true);
	while (!atomic_load(&s->go)) {
		nap();
	}
}

/* A loop that does not come is not waited for for ever; once it comes all is as it was. */
static void stand_still(void **state)
{
	struct world *w = *state;
	static struct stuck s = { .job.run = stick };
	static const struct p9_patience patience = { .ms = 100 }, more = { .ms = 60000 };
	char why[200] = "";
	uint8_t buf[QUEUE];
	struct p9_msg r, t = { .type = P9_Tversion, .tag = P9_NOTAG };
	t.tversion.msize = 4096;
	t.tversion.version = (struct p9_str){ "9P2000.L", 8 };
	p9_loop_post(p9_server_loop(w->srv, 0), &s.job);
	while (!atomic_load(&s.here)) {
		nap();
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(p9_server_freeze(w->srv, &patience, why, sizeof(why)), -P9_ETIMEDOUT);
		assert_string_equal(why, "a loop is in a call that hangs");
	}
	atomic_store(&s.go, true);
	call(w, &t, &r, buf);
	assert_int_equal(r.type, P9_Rversion);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(p9_server_freeze(w->srv, &more, why, sizeof(why)), 0);
		p9_server_thaw(w->srv);
		call(w, &t, &r, buf);
		assert_int_equal(r.type, P9_Rversion);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_conversation, begin, finish),
		cmocka_unit_test_setup_teardown(a_directory, begin, finish),
		cmocka_unit_test_setup_teardown(replies_leave_between_requests, begin, finish),
		cmocka_unit_test_setup_teardown(bad_framing_ends_the_link, begin, finish),
		cmocka_unit_test_setup_teardown(stand_still, begin, finish),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
