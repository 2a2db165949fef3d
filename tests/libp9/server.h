/* SPDX-License-Identifier: BSD-2-Clause */
/* server.h - a p9d of one's own for a test: started on a Unix socket, or as a vhost-user device, killed, started again. */
#ifndef P9_TESTS_SERVER_H
#define P9_TESTS_SERVER_H
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "lib/p9t.h"
#include "p9/fs.h"

struct server {
	char *base; /* scratch directory: the tree is in "t" */
	char tree[300], addr[300], listen[320];
	const char *path; /* of the socket */
	bool device;
	pid_t pid;
};

static inline void pause_ms(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
	nanosleep(&t, NULL);
}

static inline bool answers(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	bool ok = connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0;
	close(fd);
	return ok;
}

/* Starts p9d over s->tree and waits until it takes connections. */
static inline void server_run(struct server *s)
{
	const char *p9d = getenv("P9D");
	assert_non_null(p9d);
	unlink(s->path);
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (s->pid == 0) {
		int null = open("/dev/null", O_RDWR);
		dup2(null, 0);
		dup2(null, 1);
		if (!getenv("P9D_LOG")) { /* nor should it hold on to a pipe that somebody reads from us */
			dup2(null, 2);
		}
		execl(p9d, p9d, "-l", s->listen, s->tree, (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 3000 && !answers(s->path); i++) {
		assert_int_equal(waitpid(s->pid, NULL, WNOHANG), 0);
		pause_ms(10);
	}
}

static inline void server_kill(struct server *s)
{
	int status;
	kill(s->pid, SIGKILL);
	assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
	s->pid = 0;
}

static inline void server_start_as(struct server *s, bool device)
{
	memset(s, 0, sizeof(*s));
	s->device = device;
	s->base = p9t_tempdir();
	snprintf(s->tree, sizeof(s->tree), "%s/t", s->base);
	snprintf(s->addr, sizeof(s->addr), "%s:%s/s", device ? "vhost-user" : "unix", s->base);
	snprintf(s->listen, sizeof(s->listen), "%s%s", s->addr, device ? ",tag=t" : "");
	s->path = strchr(s->addr, ':') + 1;
	assert_int_equal(mkdir(s->tree, 0755), 0);
	server_run(s);
}

static inline void server_start(struct server *s)
{
	server_start_as(s, false);
}

static inline void server_stop(struct server *s)
{
	if (s->pid) {
		int status;
		kill(s->pid, SIGTERM);
		assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0); /* what a sanitizer has to say, too */
	}
	p9t_remove_tree(s->base);
	free(s->base);
}

/* Where a name of the tree is on the host. The last four stay valid. */
static inline const char *server_path(const struct server *s, const char *name)
{
	static char path[4][600];
	static unsigned i;
	char *p = path[i++ % 4];
	snprintf(p, sizeof(path[0]), "%s/%s", s->tree, name);
	return p;
}

static inline void server_put(const struct server *s, const char *name, const void *data, size_t n)
{
	int fd = open(server_path(s, name), O_WRONLY | O_CREAT | O_TRUNC, 0644);
	assert_true(fd >= 0);
	for (size_t at = 0; at < n;) {
		ssize_t k = write(fd, (const char *)data + at, n - at);
		assert_true(k > 0);
		at += (size_t)k;
	}
	close(fd);
}

static inline struct p9_client *server_dial(const struct server *s, const struct p9_client_opts *opts)
{
	struct p9_client_opts o = { .uid = geteuid() };
	struct p9_client *c = p9_client_new();
	assert_non_null(c);
	if (p9_client_dial(c, s->addr, opts ? opts : &o) < 0) {
		fail_msg("dial: %s", p9_client_error(c));
	}
	return c;
}

/* Fails with the text when a call of the library's did. */
#define ok(c, call) \
	do { \
		long long rc_ = (call); \
		if (rc_ < 0) { \
			fail_msg("%s: %lld %s", #call, rc_, p9_client_error(c)); \
		} \
	} while (0)
#define fails(error, call) assert_int_equal((call), -(error))

#endif
