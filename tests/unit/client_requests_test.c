/* SPDX-License-Identifier: BSD-2-Clause */
/* client_requests_test.c - the client handle with a real server in this process, and with peers that fall silent. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/spin.h"
#include "p9/client.h"
#include "p9/server.h"
#include "p9/synth.h"
#include "transport/stream.h"

#define THREADS 6
#define ROUNDS 300

static struct p9_server *srv;
static struct p9_synth *tree;

static size_t hello(void *arg, char *buf, size_t cap)
{
	(void)arg;
	(void)cap;
	memcpy(buf, "hello", 5);
	return 5;
}

static int begin(void **state)
{
	struct p9_server_config conf = { .msize = 65536, .loops = 1, .workers = 4, .conns = 16, .look_us = 100 };
	assert_int_equal(p9_synth_new(&tree), 0);
	assert_int_equal(p9_synth_file(tree, "dir/file", hello, NULL), 0);
	assert_int_equal(p9_server_new(&conf, &srv), 0);
	struct p9_export_config ex = { .name = "tree", .backend = &p9_synth, .root = tree, .ro = true };
	assert_int_equal(p9_server_export(srv, &ex), 0);
	assert_int_equal(p9_server_start(srv), 0);
	return 0;
}

static int end(void **state)
{
	assert_true(p9_server_stop(srv, 5000));
	p9_server_free(srv);
	p9_synth_free(tree);
	return 0;
}

static struct p9_client *dial_as(const struct p9_client_opts *opts)
{
	int sv[2];
	struct p9_peer peer = { .kind = P9_PEER_FD, .text = "pair" };
	struct p9_client *c = p9_client_new();
	assert_non_null(c);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv), 0);
	assert_int_equal(p9_server_accept(srv, p9_stream_unix_make, sv[0], sv[0], &peer), 0);
	assert_int_equal(p9_client_start(c, sv[1], sv[1], true, opts), 0);
	return c;
}

static struct p9_client *dial(int timeout_ms)
{
	return dial_as(&(struct p9_client_opts){ .uid = 0, .timeout_ms = timeout_ms });
}

static void look_at_file(struct p9_client *c)
{
	uint32_t fid;
	struct p9_rgetattr st;
	char buf[16];
	assert_int_equal(p9_client_walk(c, "dir/file", P9_WALK_NOFOLLOW, &fid), 0);
	assert_int_equal(p9_client_getattr(c, fid, P9_GETATTR_BASIC, &st), 0);
	assert_int_equal(p9_client_lopen(c, fid, 0, NULL), 0);
	assert_int_equal(p9_client_read(c, fid, 0, buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "hello", 5);
	assert_int_equal(p9_client_walk(c, "dir/none", P9_WALK_NOFOLLOW, &(uint32_t){ 0 }), -P9_ENOENT);
	assert_string_equal(p9_client_error(c), "No such file or directory (ENOENT)");
	assert_int_equal(p9_client_clunk(c, fid), 0);
}

static void sync_calls(void **state)
{
	struct p9_client *c = dial(0);
	for (int i = 0; i < ROUNDS; i++) {
		look_at_file(c);
	}
	assert_int_equal(p9_client_pending(c), 0);
	p9_client_free(c);
}

/* Who looks for replies, who sleeps, and who looks for longer than a reply takes get the same. */
static void looking_or_sleeping(void **state)
{
	static const uint32_t us[] = { P9_CLIENT_SLEEP, 1, 1000000 };
	for (int k = 0; k < 3; k++) {
		struct p9_client *c = dial_as(&(struct p9_client_opts){ .uid = 0, .look_us = us[k] });
		for (int i = 0; i < ROUNDS; i++) {
			look_at_file(c);
		}
		p9_client_free(c);
	}
}

static void *one_thread(void *arg)
{
	for (int i = 0; i < ROUNDS; i++) {
		look_at_file(arg);
	}
	return NULL;
}

static void calls_from_many_threads(void **state)
{
	pthread_t t[THREADS];
	struct p9_client *c = dial(60000);
	assert_int_equal(p9_client_thread(c), 0);
	assert_int_equal(p9_client_thread(c), -P9_EALREADY);
	assert_int_equal(p9_client_step(c), -P9_EDEADLK);
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_create(&t[i], NULL, one_thread, c), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
	}
	assert_int_equal(p9_client_pending(c), 0);
	p9_client_free(c);
}

/* ---- requests with callbacks ---- */
struct tally {
	struct p9_call call;
	struct p9_client *client;
	unsigned *done, *failed;
	uint32_t ecode;
	bool again;
};

static void count(struct p9_call *call, const struct p9_msg *reply)
{
	struct tally *t = (struct tally *)call;
	struct p9_msg m = { .type = P9_Tgetattr, .tgetattr = { .fid = p9_client_root(t->client) } };
	++*t->done;
	if (reply->type == P9_Rlerror) {
		++*t->failed;
		t->ecode = reply->rlerror.ecode;
	} else if (t->again) {
		t->again = false;
		assert_true(p9_client_send(t->client, &m, NULL, call) >= 0);
	}
}

static void ones_own_loop(void **state)
{
	struct p9_client *c = dial(0);
	struct tally t[40];
	unsigned done = 0, failed = 0;
	for (int i = 0; i < 40; i++) {
		struct p9_msg m = { .type = P9_Tgetattr, .tgetattr = { .fid = p9_client_root(c) } };
		t[i] = (struct tally){ { .done = count }, c, &done, &failed, 0, true };
		assert_true(p9_client_send(c, &m, NULL, &t[i].call) >= 0);
	}
	assert_int_equal(done, 0);
	while (p9_client_pending(c)) {
		struct pollfd v[2];
		int ms;
		assert_true(p9_client_work(c) >= 0);
		unsigned n = p9_client_poll(c, v, &ms);
		if (p9_client_pending(c)) {
			assert_true(poll(v, n, ms) >= 0);
		}
	}
	assert_int_equal(done, 80);
	assert_int_equal(failed, 0);
	p9_client_free(c);
}

/* A peer of our own that answers version and attach, and then nothing. */
static int silent_peer(struct p9_client *c, const struct p9_client_opts *opts)
{
	static const uint8_t hello_bytes[] = { 21,   0,	  0,   0,   101, 0xff, 0xff, 0,	 0, 1, 0, 8,   0, '9',
					       'P',  '2', '0', '0', '0', '.',  'L',  20, 0, 0, 0, 105, 0, 0,
					       0x80, 0,	  0,   0,   0,	 1,    0,    0,	 0, 0, 0, 0,   0 };
	int sv[2];
	uint8_t buf[256];
	size_t have = 0;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) { /* answers when asked, so that no reply comes before its request */
		for (const uint8_t *p = hello_bytes; p < hello_bytes + sizeof(hello_bytes); p += p[0]) {
			have = 0;
			while (have < 4 || have < buf[0]) {
				ssize_t n = read(sv[0], buf + have, have < 4 ? 4 - have : buf[0] - have);
				if (n <= 0) {
					_exit(1);
				}
				have += (size_t)n;
			}
			if (write(sv[0], p, p[0]) != p[0]) {
				_exit(1);
			}
		}
		_exit(0);
	}
	assert_int_equal(p9_client_start(c, sv[1], sv[1], true, opts), 0);
	return sv[0];
}

static void send_some(struct p9_client *c, struct tally *t, unsigned n, unsigned *done, unsigned *failed)
{
	for (unsigned i = 0; i < n; i++) {
		struct p9_msg m = { .type = P9_Tgetattr, .tgetattr = { .fid = p9_client_root(c) } };
		t[i].call.done = count;
		t[i].client = c;
		t[i].done = done;
		t[i].failed = failed;
		assert_true(p9_client_send(c, &m, NULL, &t[i].call) >= 0);
	}
}

static void the_link_ends(void **state)
{
	struct p9_client *c = p9_client_new();
	struct p9_client_opts opts = { .uid = 0 };
	struct tally t[10] = { 0 };
	unsigned done = 0, failed = 0;
	int peer = silent_peer(c, &opts);
	send_some(c, t, 10, &done, &failed);
	close(peer);
	int rc = 0;
	while (rc >= 0) {
		rc = p9_client_step(c);
	}
	assert_int_equal(rc, -(int)t[0].ecode);
	assert_int_equal(done, 10);
	assert_int_equal(failed, 10);
	assert_true(p9_client_dead(c));
	assert_int_equal(p9_client_step(c), rc);
	assert_int_equal(p9_client_work(c), rc);
	assert_int_equal(done, 10);
	assert_int_equal(p9_client_clunk(c, 0), rc);
	p9_client_free(c);
}

static void *one_call(void *arg)
{
	struct p9_rgetattr st;
	return (void *)(intptr_t)p9_client_getattr(arg, p9_client_root(arg), 1, &st);
}

static void the_link_ends_under_threads(void **state)
{
	struct p9_client *c = p9_client_new();
	struct p9_client_opts opts = { .uid = 0, .depth = 4 }; /* so that some wait for room */
	pthread_t t[THREADS];
	int peer = silent_peer(c, &opts);
	assert_int_equal(p9_client_thread(c), 0);
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_create(&t[i], NULL, one_call, c), 0);
	}
	while (p9_client_pending(c) < 4) {
		usleep(1000);
	}
	close(peer);
	for (int i = 0; i < THREADS; i++) {
		void *rc;
		pthread_join(t[i], &rc);
		assert_int_equal((intptr_t)rc, -P9_ECONNRESET);
	}
	p9_client_free(c);
}

static bool has_bytes(int fd)
{
	char byte;
	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
}

struct chain {
	struct tally t;
	int peer;
	bool last, seen;
};

/* Takes its time, and sends another. */
static void work_long(struct p9_call *call, const struct p9_msg *reply)
{
	struct chain *k = (struct chain *)call;
	k->seen = k->last && has_bytes(k->peer);
	for (uint64_t end = p9_spin_clock() + 60000; p9_spin_clock() < end;) {
	}
	count(call, reply);
}

/* What one callback sends does not wait until all of them have run. */
static void requests_leave_between_callbacks(void **state)
{
	enum { N = 8 };
	struct p9_client *c = p9_client_new();
	struct p9_client_opts opts = { .uid = 0 };
	static struct chain k[N];
	unsigned done = 0, failed = 0;
	uint8_t bytes[4096];
	size_t n = 0;
	int peer = silent_peer(c, &opts);
	for (int i = 0; i < N; i++) {
		k[i] = (struct chain){ .peer = peer, .last = i == N - 1 };
		send_some(c, &k[i].t, 1, &done, &failed);
		k[i].t.call.done = work_long;
		k[i].t.again = true;
	}
	assert_int_equal(p9_client_work(c), 0);
	while (has_bytes(peer)) {
		assert_true(recv(peer, bytes, sizeof(bytes), 0) > 0);
	}
	for (int i = 0; i < N; i++) {
		struct p9_msg r = { .type = P9_Rgetattr, .tag = k[i].t.call.tag };
		n += (size_t)p9_wire_encode(bytes + n, sizeof(bytes) - n, &r);
	}
	assert_int_equal(send(peer, bytes, n, 0), n);
	while (done < N) {
		assert_true(p9_client_step(c) >= 0);
	}
	assert_int_equal(failed, 0);
	assert_true(k[N - 1].seen);
	p9_client_free(c);
	close(peer);
}

struct reader {
	struct p9_call call;
	struct p9_client *client;
	struct reader *next; /* is to have this one's memory */
	char *into;
	int rc;
	bool done;
};

static void took(struct p9_call *call, const struct p9_msg *reply)
{
	struct reader *r = (struct reader *)call;
	assert_int_equal(reply->type, P9_Rread);
	assert_memory_equal(r->into, "hello", 5);
	memset(r->into, '-', 5);
	if (r->next) {
		r->rc = p9_client_redirect(r->client, &r->next->call, r->into);
		r->next->into = r->rc == 0 ? r->into : r->next->into;
	}
	r->done = true;
}

static void an_answer_goes_elsewhere(void **state)
{
	struct p9_client *c = dial(0);
	char mem[2][16] = { "", "" };
	struct reader r[2] = { { { .done = took }, c, &r[1], mem[0], 1, false },
			       { { .done = took }, c, NULL, mem[1], 1, false } };
	uint32_t fid;
	assert_int_equal(p9_client_walk(c, "dir/file", P9_WALK_NOFOLLOW, &fid), 0);
	assert_int_equal(p9_client_lopen(c, fid, 0, NULL), 0);
	for (int i = 0; i < 2; i++) {
		struct p9_msg m = { .type = P9_Tread, .tread = { fid, 0, sizeof(mem[i]) } };
		assert_true(p9_client_send(c, &m, mem[i], &r[i].call) >= 0);
	}
	while (!r[1].done) {
		assert_true(p9_client_step(c) >= 0);
	}
	assert_int_equal(r[0].rc, 0);
	assert_ptr_equal(r[1].into, mem[0]);
	assert_memory_equal(mem[1], (char[16]){ 0 }, 16);
	assert_int_equal(p9_client_redirect(c, &r[1].call, mem[1]), -P9_EINVAL);
	p9_client_free(c);
}

static void one_request_times_out(void **state)
{
	struct p9_client *c = p9_client_new();
	struct p9_client_opts opts = { .uid = 0 };
	struct tally t[3] = { 0 };
	t[0].call.timeout_ms = 20;
	t[1].call.timeout_ms = 40;
	unsigned done = 0, failed = 0;
	int peer = silent_peer(c, &opts);
	send_some(c, t, 3, &done, &failed);
	while (done < 2) {
		assert_true(p9_client_step(c) >= 0);
	}
	assert_int_equal(t[0].ecode, P9_ETIMEDOUT);
	assert_int_equal(t[1].ecode, P9_ETIMEDOUT);
	assert_int_equal(p9_client_pending(c), 1);
	assert_false(p9_client_dead(c));
	assert_int_equal(p9_client_cancel(c, &t[0].call), -P9_EINVAL);
	assert_int_equal(p9_client_cancel(c, &t[2].call), 0);
	p9_client_free(c);
	close(peer);
}

static void silence_ends_the_link(void **state)
{
	struct p9_client *c = p9_client_new();
	struct p9_client_opts opts = { .uid = 0, .timeout_ms = 50 };
	struct tally t[2] = { 0 };
	t[0].call.patient = true;
	unsigned done = 0, failed = 0;
	int peer = silent_peer(c, &opts), ms;
	struct pollfd v[2];
	send_some(c, t, 1, &done, &failed);
	assert_int_equal(p9_client_work(c), 0);
	assert_int_equal(p9_client_poll(c, v, &ms), 1);
	assert_int_equal(ms, -1); /* a patient request alone may wait for ever */
	send_some(c, t + 1, 1, &done, &failed);
	int rc = 0;
	while (rc >= 0) {
		rc = p9_client_step(c);
	}
	assert_int_equal(rc, -P9_ETIMEDOUT);
	assert_int_equal(failed, 2);
	p9_client_free(c);
	close(peer);
}

static void not_connected(void **state)
{
	struct p9_client *c = p9_client_new();
	struct p9_call call = { 0 };
	struct p9_msg m = { .type = P9_Tgetattr };
	assert_int_equal(p9_client_step(c), -P9_ENOTCONN);
	assert_int_equal(p9_client_work(c), -P9_ENOTCONN);
	assert_int_equal(p9_client_send(c, &m, NULL, &call), -P9_ENOTCONN);
	assert_int_equal(p9_client_cancel(c, &call), -P9_EINVAL);
	assert_int_equal(p9_client_redirect(c, &call, &m), -P9_EINVAL);
	assert_int_equal(p9_client_thread(c), -P9_ENOTCONN);
	assert_true(p9_client_dead(c));
	p9_client_free(c);
	p9_client_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sync_calls),
		cmocka_unit_test(looking_or_sleeping),
		cmocka_unit_test(calls_from_many_threads),
		cmocka_unit_test(ones_own_loop),
		cmocka_unit_test(the_link_ends),
		cmocka_unit_test(the_link_ends_under_threads),
		cmocka_unit_test(requests_leave_between_callbacks),
		cmocka_unit_test(an_answer_goes_elsewhere),
		cmocka_unit_test(one_request_times_out),
		cmocka_unit_test(silence_ends_the_link),
		cmocka_unit_test(not_connected),
	};
	return cmocka_run_group_tests(tests, begin, end);
}
