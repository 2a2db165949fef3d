/* SPDX-License-Identifier: BSD-2-Clause */
/* base_addr_test.c - addresses: what is accepted, what is refused and with which words, and where p9 connects. */
#include "lib/p9t.h"
#include <stdio.h>
#include <unistd.h>
#include <sys/un.h>
#include "base/addr.h"
#include "base/hosterr.h"

static struct p9_addr parse(const char *text)
{
	struct p9_addr a;
	char err[200];
	int rc = p9_addr_parse(&a, text, err, sizeof(err));
	if (rc != 0) {
		fail_msg("%s: %s", text, err);
	}
	return a;
}

static void accepted(void **state)
{
	struct p9_addr a = parse("unix:/run/p9.sock");
	assert_int_equal(a.kind, P9_ADDR_UNIX);
	assert_string_equal(a.path, "/run/p9.sock");
	a = parse("tcp:host.example:15640");
	assert_int_equal(a.kind, P9_ADDR_TCP);
	assert_string_equal(a.host, "host.example");
	assert_string_equal(a.port, "15640");
	a = parse("tcp:host");
	assert_string_equal(a.port, "564");
	a = parse("tcp:[::1]:9pfs");
	assert_string_equal(a.host, "::1");
	assert_string_equal(a.port, "9pfs");
	a = parse("tcp:[fe80::1%eth0]");
	assert_string_equal(a.host, "fe80::1%eth0");
	assert_string_equal(a.port, "564");
	a = parse("fd:7");
	assert_int_equal(a.kind, P9_ADDR_FD);
	assert_int_equal(a.in, 7);
	assert_int_equal(a.out, 7);
	a = parse("fd:3,4");
	assert_int_equal(a.in, 3);
	assert_int_equal(a.out, 4);
	a = parse("stdio");
	assert_int_equal(a.kind, P9_ADDR_STDIO);
	assert_int_equal(a.in, 0);
	assert_int_equal(a.out, 1);
}

static void refused(void **state)
{
	static const char *const bad[][2] = {
		{ "", "not an address" },
		{ "/run/p9.sock", "not an address" },
		{ "udp:x", "not an address" },
		{ "stdio:", "not an address" },
		{ "unix:", "without a path" },
		{ "tcp:", "no host" },
		{ "tcp::564", "no host" },
		{ "tcp:::1:564", "needs brackets" },
		{ "tcp:[::1:564", "has no end" },
		{ "tcp:[::1]x", "after ]" },
		{ "tcp:host:", "port" },
		{ "tcp:host:65536", "port" },
		{ "tcp:host:123456", "port" },
		{ "tcp:host:a b", "port" },
		{ "fd:", "fd:N" },
		{ "fd:-1", "fd:N" },
		{ "fd:1,", "fd:N" },
		{ "fd:1,2,3", "fd:N" },
		{ "fd:1x", "fd:N" },
		{ "fd:99999999999", "fd:N" },
	};
	for (size_t i = 0; i < P9T_COUNT(bad); i++) {
		struct p9_addr a;
		char err[200];
		assert_int_equal(p9_addr_parse(&a, bad[i][0], err, sizeof(err)), -P9_EINVAL);
		if (!strstr(err, bad[i][1])) {
			fail_msg("\"%s\" says \"%s\", not \"%s\"", bad[i][0], err, bad[i][1]);
		}
	}
}

static void lengths(void **state)
{
	char text[600], err[64];
	struct p9_addr a;
	memset(text, 'x', sizeof(text));
	memcpy(text, "unix:", 5);
	text[5 + 107] = 0;
	assert_int_equal(p9_addr_parse(&a, text, err, sizeof(err)), 0);
	text[5 + 107] = 'x';
	text[5 + 108] = 0;
	assert_int_equal(p9_addr_parse(&a, text, err, sizeof(err)), -P9_EINVAL);
	memset(text, 'x', sizeof(text));
	memcpy(text, "tcp:", 4);
	text[599] = 0;
	assert_int_equal(p9_addr_parse(&a, text, err, sizeof(err)), -P9_EINVAL);
	assert_true(strlen(err) < sizeof(err));
	assert_int_equal(p9_addr_parse(&a, text, NULL, 0), -P9_EINVAL);
}

static void connecting(void **state)
{
	struct p9_addr a;
	char err[300], text[200];
	int in = -1, out = -1;
	unsigned fds = p9t_open_fds();
	char *dir = p9t_tempdir();
	snprintf(text, sizeof(text), "unix:%s/s", dir);
	a = parse(text);
	assert_int_equal(p9_addr_connect(&a, &in, &out, err, sizeof(err)), -P9_ENOENT);
	assert_non_null(strstr(err, "/s: No such file or directory (ENOENT)"));
	int l = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	memcpy(sun.sun_path, a.path, sizeof(sun.sun_path));
	assert_int_equal(bind(l, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(p9_addr_connect(&a, &in, &out, err, sizeof(err)), -P9_ECONNREFUSED);
	assert_int_equal(listen(l, 1), 0);
	assert_int_equal(p9_addr_connect(&a, &in, &out, err, sizeof(err)), 0);
	assert_int_equal(in, out);
	close(in);
	close(l);
	a = parse("fd:40,41");
	assert_int_equal(p9_addr_connect(&a, &in, &out, err, sizeof(err)), 0);
	assert_int_equal(in, 40);
	assert_int_equal(out, 41);
	p9t_remove_tree(dir);
	free(dir);
	assert_int_equal(p9t_open_fds(), fds);
}

static void host_errors(void **state)
{
	for (int e = 1; e < 134; e++) {
		if (strcmp(p9_error_name((uint32_t)e), "E?") != 0) {
			assert_int_equal(p9_hosterr(p9_hosterr_from(e)), e);
		}
	}
	assert_int_equal(p9_hosterr(100000), P9_EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepted),   cmocka_unit_test(refused),     cmocka_unit_test(lengths),
		cmocka_unit_test(connecting), cmocka_unit_test(host_errors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
