/* SPDX-License-Identifier: BSD-2-Clause */
/* recover_test.c - a server that dies and comes back, the same, changed, or never; under handles that are stepped, polled
 * and driven by the library's thread. */
#include "libp9/server.h"
#include <errno.h>
#include <pthread.h>
#include "client/internal.h"

static struct server srv;
static struct p9_client *c;
enum { BIG = 24 * 1024 * 1024 };

static void restart(void)
{
	server_kill(&srv);
	server_run(&srv);
}

/* Dies and comes back while somebody else is at work. */
static void *restarter(void *arg)
{
	pause_ms((long)(intptr_t)arg);
	restart();
	return NULL;
}

static struct p9_fh *open_file(const char *name, uint32_t flags)
{
	struct p9_fh *f;
	ok(c, p9_open(c, name, flags, &f));
	return f;
}

static void idle(void **state)
{
	struct p9_rgetattr st;
	char buf[16];
	server_put(&srv, "f", "0123456789", 10);
	struct p9_fh *f = open_file("f", P9_O_RDWR);
	assert_int_equal(p9_read(f, buf, 4), 4);
	for (int i = 0; i < 3; i++) {
		restart();
		ok(c, p9_stat(c, "f", &st));
		assert_int_equal(st.size, 10);
		restart();
		assert_int_equal(p9_pread(f, buf, 3, 4), 3);
		assert_memory_equal(buf, "456", 3);
	}
	restart();
	assert_int_equal(p9_pwrite(f, "ab", 2, 0), 2); /* the loss was seen before: nothing is in doubt */
	restart();
	fails(P9_EIO, p9_fsync(f, false)); /* but nobody knows whether that lasted */
	ok(c, p9_fsync(f, false));
	assert_int_equal(p9_pread(f, buf, 16, 0), 10);
	assert_memory_equal(buf, "ab23456789", 10);
	ok(c, p9_close(f));
}

static void in_mid_read(void **state)
{
	uint8_t *data = malloc(BIG), *back = malloc(BIG);
	struct p9t_rng r = p9t_rng();
	for (size_t i = 0; i < BIG; i += 8) {
		uint64_t v = p9t_rand(&r);
		memcpy(data + i, &v, 8);
	}
	server_put(&srv, "big", data, BIG);
	struct p9_fh *f = open_file("big", P9_O_RDONLY);
	for (int i = 0; i < 6; i++) {
		pthread_t t;
		memset(back, 0, BIG);
		assert_int_equal(pthread_create(&t, NULL, restarter, (void *)(intptr_t)(1 + i)), 0);
		ssize_t n = p9_pread(f, back, BIG, 0);
		pthread_join(t, NULL);
		if (n != BIG) {
			fail_msg("%zd: %s", n, p9_client_error(c));
		}
		assert_memory_equal(back, data, BIG);
	}
	ok(c, p9_close(f));
	free(data);
	free(back);
}

/* Every write is done, or EIO says that it may not be: writing those again makes the file whole. */
static void in_mid_write(void **state)
{
	enum { N = 4000, SIZE = 1000 };
	uint8_t block[SIZE], *back = malloc(N * SIZE);
	struct p9_fh *f;
	unsigned doubts = 0;
	pthread_t t;
	ok(c, p9_create(c, "w", P9_O_RDWR, 0600, &f));
	assert_int_equal(pthread_create(&t, NULL, restarter, (void *)(intptr_t)5), 0);
	for (unsigned i = 0; i < N; i++) {
		memset(block, (int)(i * 7 + 1), SIZE);
		ssize_t n = p9_pwrite(f, block, SIZE, (uint64_t)i * SIZE);
		if (n == -P9_EIO) {
			assert_true(strstr(p9_client_error(c), "may or may not") != NULL);
			assert_false(p9_client_dead(c));
			doubts++;
			i--;
			continue;
		}
		assert_int_equal(n, SIZE);
	}
	pthread_join(t, NULL);
	assert_true(doubts <= 1); /* one server was lost, one request was in flight */
	assert_int_equal(p9_pread(f, back, N * SIZE, 0), N * SIZE);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(back[i * SIZE], (uint8_t)(i * 7 + 1));
		assert_int_equal(back[i * SIZE + SIZE - 1], (uint8_t)(i * 7 + 1));
	}
	ok(c, p9_close(f));
	free(back);
}

/* Whether the host sees a lock on bytes 10 to 29. */
static bool host_sees_lock(void)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 20 };
	int fd = open(server_path(&srv, "f"), O_RDWR | O_CLOEXEC);
	assert_int_equal(fcntl(fd, F_OFD_GETLK, &l), 0);
	close(fd);
	return l.l_type != F_UNLCK;
}

static void locks(void **state)
{
	struct p9_range r = { 10, 20, P9_LOCK_TYPE_WRLCK };
	struct p9_rgetattr st;
	server_put(&srv, "f", "x", 1);
	struct p9_fh *f = open_file("f", P9_O_RDWR);
	ok(c, p9_range_lock(f, &r));
	assert_true(host_sees_lock());
	server_kill(&srv);
	assert_false(host_sees_lock());
	server_run(&srv);
	ok(c, p9_stat(c, "/", &st));
	assert_true(host_sees_lock()); /* taken again */
	/* somebody else is faster this time */
	server_kill(&srv);
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 15 };
	int fd = open(server_path(&srv, "f"), O_RDWR | O_CLOEXEC);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &l), 0);
	server_run(&srv);
	ok(c, p9_stat(c, "/", &st));
	fails(P9_ESTALE, p9_pwrite(f, "y", 1, 0));
	ok(c, p9_close(f));
	close(fd);
	f = open_file("f", P9_O_RDWR);
	ok(c, p9_range_lock(f, &r));
	ok(c, p9_range_unlock(f, &r));
	restart();
	ok(c, p9_stat(c, "/", &st));
	assert_false(host_sees_lock()); /* what was unlocked stays so */
	ok(c, p9_close(f));
}

static void replaced(void **state)
{
	struct p9_rgetattr st;
	char buf[8];
	server_put(&srv, "f", "old", 3);
	server_put(&srv, "g", "same", 4);
	struct p9_fh *f = open_file("f", P9_O_RDWR), *g = open_file("g", P9_O_RDONLY);
	server_kill(&srv);
	server_put(&srv, "new", "new", 3);
	assert_int_equal(rename(server_path(&srv, "new"), server_path(&srv, "f")), 0);
	server_run(&srv);
	fails(P9_ESTALE, p9_pread(f, buf, 3, 0));
	fails(P9_ESTALE, p9_fstat(f, &st));
	assert_int_equal(p9_pread(g, buf, 8, 0), 4);
	ok(c, p9_close(f));
	f = open_file("f", P9_O_RDWR);
	assert_int_equal(p9_pread(f, buf, 3, 0), 3);
	assert_memory_equal(buf, "new", 3);
	/* another tree under the same name: nothing is what it was */
	server_kill(&srv);
	char away[400];
	snprintf(away, sizeof(away), "%s/away", srv.base);
	assert_int_equal(rename(srv.tree, away), 0);
	assert_int_equal(mkdir(srv.tree, 0755), 0);
	server_put(&srv, "f", "other", 5);
	server_run(&srv);
	fails(P9_ESTALE, p9_pread(f, buf, 3, 0));
	fails(P9_ESTALE, p9_pread(g, buf, 3, 0));
	fails(P9_ESTALE, p9_stat(c, "f", &st));
	assert_false(p9_client_dead(c));
	ok(c, p9_close(f));
	ok(c, p9_close(g));
}

static void names(void **state)
{
	char buf[8];
	assert_int_equal(mkdir(server_path(&srv, "d"), 0755) | mkdir(server_path(&srv, "d/e"), 0755), 0);
	server_put(&srv, "d/e/f", "here", 4);
	server_put(&srv, "gone", "gone", 4);
	server_put(&srv, "over", "over", 4);
	struct p9_fh *f = open_file("d/e/f", P9_O_RDONLY), *g = open_file("gone", P9_O_RDONLY),
		     *o = open_file("over", P9_O_RDONLY), *n;
	ok(c, p9_create(c, "made", P9_O_RDWR | P9_O_EXCL | P9_O_TRUNC, 0600, &n));
	assert_int_equal(p9_write(n, "made", 4), 4);
	server_put(&srv, "cut", "what was there", 14);
	struct p9_fh *k = open_file("cut", P9_O_RDWR | P9_O_TRUNC);
	assert_int_equal(p9_write(k, "kept", 4), 4);
	ok(c, p9_rename(c, "d/e/f", "d/e/g"));
	ok(c, p9_rename(c, "d/e", "x"));
	ok(c, p9_rename(c, "x/g", "over"));
	ok(c, p9_unlink(c, "gone"));
	assert_int_equal(p9_pread(g, buf, 8, 0), 4); /* it is open */
	restart();
	assert_int_equal(p9_pread(f, buf, 8, 0), 4);
	assert_memory_equal(buf, "here", 4);
	fails(P9_ESTALE, p9_pread(g, buf, 8, 0));
	fails(P9_ESTALE, p9_pread(o, buf, 8, 0));
	assert_int_equal(p9_pread(n, buf, 8, 0), 4); /* neither cut nor refused because it is there */
	ok(c, p9_close(f));
	ok(c, p9_close(g));
	ok(c, p9_close(o));
	ok(c, p9_close(n));
	assert_int_equal(p9_pread(k, buf, 8, 0), 4); /* it was cut once, not again */
	ok(c, p9_close(k));
}

/* More than 16 names, and 4 KiB messages that hold only some of them. */
static void deep(void **state)
{
	char path[8000], name[200];
	struct p9_client_opts o = { .uid = geteuid(), .msize = 4096, .reconnect_ms = 20000 };
	size_t n = 0;
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = 0;
	for (int i = 0; i < 37; i++) {
		n += (size_t)snprintf(path + n, sizeof(path) - n, "%s%d/", i % 2 ? name : "s", i);
	}
	p9_client_free(c);
	c = server_dial(&srv, &o);
	ok(c, p9_mkdir_all(c, path, 0755));
	snprintf(path + n, sizeof(path) - n, "f");
	struct p9_bytes b = { "deep", 4 };
	ok(c, p9_write_file(c, path, &b, 0644, 0));
	struct p9_fh *f = open_file(path, P9_O_RDONLY);
	restart();
	assert_int_equal(p9_pread(f, name, 8, 0), 4);
	assert_memory_equal(name, "deep", 4);
	ok(c, p9_close(f));
}

static void directories(void **state)
{
	struct p9_fs_dir *d;
	struct p9_fs_entry e;
	char name[32];
	int rc, n = 0;
	assert_int_equal(mkdir(server_path(&srv, "d"), 0755), 0);
	for (int i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "d/entry%06d", i);
		server_put(&srv, name, "", 0);
	}
	ok(c, p9_dir_open(c, "d", P9_DIR_ATTRS, &d));
	while ((rc = p9_dir_next(d, &e)) > 0) {
		assert_int_equal(e.error, 0);
		if (n++ % 700 == 100) {
			restart(); /* nothing has changed: the listing goes on */
		}
	}
	assert_int_equal(rc, 0);
	assert_int_equal(n, 3000);
	p9_dir_seek(d, 0);
	for (n = 0; n < 50; n++) {
		assert_int_equal(p9_dir_next(d, &e), 1);
	}
	server_kill(&srv);
	pause_ms(20); /* the clock of the file system's time stamps goes in steps */
	assert_int_equal(unlink(server_path(&srv, "d/entry000000")), 0);
	server_run(&srv);
	while ((rc = p9_dir_next(d, &e)) > 0) {
	}
	assert_int_equal(rc, -P9_ESTALE);
	p9_dir_seek(d, 0);
	for (n = 0; (rc = p9_dir_next(d, &e)) > 0; n++) {
	}
	assert_int_equal(rc, 0);
	assert_int_equal(n, 2999);
	p9_dir_close(d);
}

static void attributes(void **state)
{
	uint32_t fid, x;
	struct p9_rgetattr st;
	server_put(&srv, "f", "x", 1);
	ok(c, p9_client_walk(c, "f", 0, &fid));
	ok(c, p9_client_clone(c, fid, &x));
	struct p9_msg r, t = { .type = P9_Txattrcreate,
			       .txattrcreate = { .fid = x, .name = P9T_STR("user.a"), .attr_size = 5 } };
	int rc = p9_client_call(c, &t, NULL, &r);
	if (rc == -P9_EOPNOTSUPP) {
		print_message("no user xattrs on this file system\n");
		ok(c, p9_client_clunk(c, x));
		ok(c, p9_client_clunk(c, fid));
		return;
	}
	ok(c, rc);
	assert_int_equal(p9_client_write(c, x, 0, "12345", 5), 5);
	restart();
	fails(P9_ESTALE, p9_client_write(c, x, 0, "12345", 5));
	fails(P9_ESTALE, p9_client_clunk(c, x)); /* it was not set, and nobody says that it was */
	ok(c, p9_client_getattr(c, fid, P9_GETATTR_BASIC, &st));
	ok(c, p9_client_clunk(c, fid));
}

static uint64_t ms_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void never_back(void **state)
{
	struct p9_rgetattr st;
	struct p9_client_opts o = { .uid = geteuid(), .reconnect_ms = 700 };
	bool threaded = c->threaded;
	p9_client_free(c);
	c = server_dial(&srv, &o);
	if (threaded) {
		ok(c, p9_client_thread(c));
	}
	server_kill(&srv);
	uint64_t begin = ms_now();
	int rc = p9_stat(c, "/", &st);
	assert_true(rc < 0);
	assert_true(ms_now() - begin < 60000); /* for ever it is not; how fast is the machine's affair */
	assert_true(p9_client_dead(c));
	assert_true(strstr(p9_client_error(c), "not found again") != NULL);
	assert_true(p9_stat(c, "/", &st) < 0);
	assert_int_equal(p9_client_pending(c), 0);
}

/* ---- a program with a poll loop of its own, many requests of both kinds in flight ---- */
struct own {
	struct p9_call call;
	bool answered;
	int error;
	uint8_t buf[4096];
};

static void on_answer(struct p9_call *call, const struct p9_msg *m)
{
	struct own *o = (struct own *)call;
	assert_false(o->answered);
	o->answered = true;
	o->error = m->type == P9_Rlerror ? (int)m->rlerror.ecode : 0;
}

static void work_until_idle(void)
{
	while (p9_client_pending(c) > 0) {
		struct pollfd v[2];
		int ms;
		unsigned n = p9_client_poll(c, v, &ms);
		poll(v, n, ms);
		ok(c, p9_client_work(c));
	}
}

static void polled(void **state)
{
	enum { N = 20 };
	static struct own o[N], late, given_up;
	server_put(&srv, "f", "content", 7);
	struct p9_fh *f = open_file("f", P9_O_RDWR);
	for (int round = 0; round < 5; round++) {
		/* The server is stopped, so that all of them are in flight when it dies. */
		int status;
		kill(srv.pid, SIGSTOP);
		assert_int_equal(waitpid(srv.pid, &status, WUNTRACED), srv.pid); /* all its threads */
		for (int i = 0; i < N; i++) {
			struct p9_msg t = { .type = i % 2 ? P9_Tread : P9_Twrite };
			o[i] = (struct own){ .call = { .done = on_answer } };
			if (i % 2) {
				t.tread = (struct p9_tread){ p9_fh_fid(f), 0, 7 };
			} else {
				t.twrite = (struct p9_twrite){ p9_fh_fid(f), 0, { 7, (const uint8_t *)"content" } };
			}
			ok(c, p9_client_send(c, &t, o[i].buf, &o[i].call));
		}
		struct p9_msg t = { .type = P9_Tread, .tread = { p9_fh_fid(f), 0, 7 } };
		late = (struct own){ .call = { .done = on_answer, .timeout_ms = 150 } };
		given_up = (struct own){ .call = { .done = on_answer } };
		ok(c, p9_client_send(c, &t, late.buf, &late.call));
		ok(c, p9_client_send(c, &t, given_up.buf, &given_up.call));
		ok(c, p9_client_work(c)); /* all are sent */
		server_kill(&srv);
		struct pollfd v[2];
		int ms;
		while (!late.answered) { /* it does not wait for the server */
			unsigned n = p9_client_poll(c, v, &ms);
			poll(v, n, ms);
			ok(c, p9_client_work(c));
		}
		assert_int_equal(late.error, P9_ETIMEDOUT);
		assert_int_equal(p9_client_room(c), 0);
		fails(P9_EAGAIN, p9_client_send(c, &t, late.buf, &late.call));
		ok(c, p9_client_cancel(c, &given_up.call));
		server_run(&srv);
		work_until_idle();
		assert_int_equal(given_up.error, P9_ECANCELED);
		for (int i = 0; i < N; i++) {
			assert_true(o[i].answered);
			assert_int_equal(o[i].error, i % 2 ? 0 : P9_EIO);
			assert_true(i % 2 == 0 || memcmp(o[i].buf, "content", 7) == 0);
		}
	}
	ok(c, p9_close(f));
}

/* Requests that need each other go out again in their order, whatever their tags are. */
static void in_order(void **state)
{
	static struct own o[3];
	struct p9_client_opts opts = { .uid = geteuid(), .reconnect_ms = 20000, .depth = 5 };
	server_put(&srv, "f", "content", 7);
	p9_client_free(c);
	c = server_dial(&srv, &opts);
	for (int round = 0; round < 8; round++) {
		int status;
		uint32_t fid;
		ok(c, p9_client_fid(c, &fid));
		struct p9_msg t[3] = {
			{ .type = P9_Twalk,
			  .twalk = { .fid = p9_client_root(c), .newfid = fid, .wname = { 1, { P9T_STR("f") } } } },
			{ .type = P9_Tgetattr, .tgetattr = { .fid = fid, .request_mask = P9_GETATTR_BASIC } },
			{ .type = P9_Tclunk, .tclunk = { .fid = fid } },
		};
		kill(srv.pid, SIGSTOP);
		assert_int_equal(waitpid(srv.pid, &status, WUNTRACED), srv.pid);
		for (int i = 0; i < 3; i++) {
			o[i] = (struct own){ .call = { .done = on_answer } };
			ok(c, p9_client_send(c, &t[i], NULL, &o[i].call));
		}
		ok(c, p9_client_work(c));
		restart();
		work_until_idle();
		for (int i = 0; i < 3; i++) {
			assert_true(o[i].answered);
			assert_int_equal(o[i].error, 0);
		}
	}
}

/* ---- several threads while the server comes and goes ---- */
static bool ending;

/* Whether a call was right; says what came when it was not. */
static uintptr_t wrong(const char *what, long long got, long long want)
{
	if (got != want) {
		fprintf(stderr, "%s: %lld (%s), want %lld\n", what, got, p9_client_error(c), want);
	}
	return got != want;
}

static void *reader(void *arg)
{
	char buf[64];
	uintptr_t bad = 0;
	while (!__atomic_load_n(&ending, __ATOMIC_RELAXED)) {
		struct p9_fh *f;
		struct p9_rgetattr st;
		if (wrong("open", p9_open(c, "f", P9_O_RDONLY, &f), 0)) {
			bad++;
			continue;
		}
		for (int i = 0; i < 20; i++) {
			long long n = p9_pread(f, buf, sizeof(buf), 0);
			bad += wrong("read", n, 7) || wrong("content", memcmp(buf, "content", 7), 0);
			bad += wrong("stat", p9_stat(c, "f", &st), 0);
		}
		bad += wrong("close", p9_close(f), 0);
	}
	return (void *)bad;
}

static void threads(void **state)
{
	pthread_t t[4];
	server_put(&srv, "f", "content", 7);
	ending = false;
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_create(&t[i], NULL, reader, NULL), 0);
	}
	for (int i = 0; i < 8; i++) {
		pause_ms(30);
		restart();
	}
	pause_ms(30);
	__atomic_store_n(&ending, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 4; i++) {
		void *bad;
		pthread_join(t[i], &bad);
		assert_ptr_equal(bad, NULL);
	}
}

/* ---- */
static int begin(bool device, bool threaded)
{
	struct p9_client_opts o = { .uid = geteuid(), .reconnect_ms = 20000 };
	server_start_as(&srv, device);
	c = server_dial(&srv, &o);
	return threaded ? p9_client_thread(c) : 0;
}

static int stepped(void **state)
{
	return begin(false, false);
}

static int threaded(void **state)
{
	return begin(false, true);
}

static int device_stepped(void **state)
{
	return begin(true, false);
}

static int device_threaded(void **state)
{
	return begin(true, true);
}

static int end(void **state)
{
	while (!p9_client_dead(c) && !c->threaded && p9_client_pending(c) > 0) {
		ok(c, p9_client_step(c));
	}
	for (int i = 0; c->threaded && i < 1000 && p9_client_pending(c) > 0; i++) {
		pause_ms(1); /* the clunk of the fid that got the tree again */
	}
	if (!p9_client_dead(c) && c->engine.nfids_used != 1) {
		fail_msg("%u fids in use: %llx", c->engine.nfids_used, (unsigned long long)c->engine.fids[0]);
	}
	p9_client_free(c);
	server_stop(&srv);
	return 0;
}

#define ONE(f, how, begin) \
	{ \
#f how, f, begin, end, NULL \
	}
#define STEPPED(f) ONE(f, "", stepped), ONE(f, "/device", device_stepped)
#define THREADED(f) ONE(f, "/thread", threaded), ONE(f, "/device/thread", device_threaded)
#define ALL(f) STEPPED(f), THREADED(f)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ALL(idle),	 ALL(in_mid_read),  ALL(in_mid_write), ALL(locks),	ALL(replaced),
		ALL(names),	 STEPPED(deep),	    ALL(directories),  ALL(attributes), ALL(never_back),
		STEPPED(polled), STEPPED(in_order), THREADED(threads),
	};
	cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
