/* SPDX-License-Identifier: BSD-2-Clause */
/* talk_host.c - the commands a .9t script runs beside the conversation: `host`, --setup, --spawn, `peer`.
 *
 * Scripts are trusted like any test; what is bounded is time and output, so that a test cannot hang or fill memory. A
 * command runs in a process group of its own in the exported directory, with the script's $names in its environment.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "p9/talk.h"

static void export_vars(const struct talk_vars *vars)
{
	for (const struct talk_var *v = vars ? vars->set : NULL; v; v = v->next) {
		char name[64], number[24], value[4096];
		snprintf(name, sizeof(name), "%.*s", (int)v->name.len, v->name.s);
		snprintf(number, sizeof(number), "%llu", (unsigned long long)v->val.num);
		snprintf(value, sizeof(value), "%.*s", (int)v->val.text.len, v->val.text.s ? v->val.text.s : "");
		if (v->val.kind == VAL_NUM || v->val.kind == VAL_STR) {
			setenv(name, v->val.kind == VAL_NUM ? number : value, 1);
		}
	}
}

/* In the child: never returns. fds: what becomes stdin, stdout, stderr; -1 leaves it. */
static void become(const struct talk_cmd *cmd, const int fds[3])
{
	setpgid(0, 0);
	signal(SIGPIPE, SIG_DFL);
	for (int i = 0; i < 3; i++) {
		if (fds[i] >= 0) {
			dup2(fds[i], i);
		}
	}
	if (cmd->dir) {
		setenv("P9_HOST_DIR", cmd->dir, 1);
	}
	export_vars(cmd->vars);
	if (!cmd->dir || chdir(cmd->dir) == 0) {
		execl("/bin/sh", "sh", "-c", cmd->line, (char *)NULL);
	}
	fprintf(stderr, "cannot run \"%s\" in %s\n", cmd->line, cmd->dir ? cmd->dir : ".");
	_exit(127);
}

int p9_talk_wait(pid_t pid, int ms)
{
	int64_t until = p9_talk_now() + ms;
	int status;
	pid_t got = waitpid(pid, &status, WNOHANG);
	while (got == 0 && p9_talk_now() < until) {
		poll(NULL, 0, 2);
		got = waitpid(pid, &status, WNOHANG);
	}
	if (got == pid) {
		return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
	kill(-pid, SIGKILL);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -1;
}

/* Output of a command up to its end, or to the end of its time. Returns false when time ran out. */
static bool collect(int fd, int ms, char *buf, size_t cap)
{
	int64_t until = p9_talk_now() + ms;
	size_t n = 0;
	char spill[4096] = { 0 };
	for (int64_t left = ms; left > 0; left = until - p9_talk_now()) {
		struct pollfd pfd = { fd, POLLIN, 0 };
		if (poll(&pfd, 1, (int)left) <= 0) {
			continue;
		}
		bool full = n + 1 >= cap;
		ssize_t got = read(fd, full ? spill : buf + n, full ? sizeof(spill) : cap - 1 - n);
		if (got <= 0) {
			n -= n > 0 && buf[n - 1] == '\n';
			buf[n] = 0;
			return true;
		}
		n += full ? 0 : (size_t)got;
	}
	snprintf(buf, cap, "not finished after %d ms", ms);
	return false;
}

int p9_talk_host(const struct talk_cmd *cmd, char *buf, size_t cap)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0) {
		snprintf(buf, cap, "pipe: %s", strerror(errno));
		return -1;
	}
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		become(cmd, (const int[3]){ open("/dev/null", O_RDONLY | O_CLOEXEC), fds[1], fds[1] });
	}
	close(fds[1]);
	int status = -1;
	if (pid < 0) {
		snprintf(buf, cap, "fork: %s", strerror(errno));
	} else {
		bool done = collect(fds[0], cmd->ms, buf, cap);
		status = p9_talk_wait(pid, done ? cmd->ms : 0);
	}
	close(fds[0]);
	return status;
}

pid_t p9_talk_spawn(const struct talk_cmd *cmd, bool client, int *fd)
{
	int sv[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0) {
		return -1;
	}
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0 && client) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		setenv("P9_SERVER", "fd:0", 1);
		become(cmd, (const int[3]){ sv[1], null, null });
	}
	if (pid == 0) {
		become(cmd, (const int[3]){ sv[1], sv[1], -1 });
	}
	close(sv[1]);
	*fd = sv[0];
	if (pid < 0) {
		close(sv[0]);
	}
	return pid;
}
