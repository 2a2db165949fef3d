// SPDX-License-Identifier: BSD-2-Clause
//
// relay PORT MOUNTPOINT OPTIONS: mounts with trans=fd what speaks 9P behind a
// virtio-serial port. The kernel's trans=fd wants sockets or pipes, the port is
// neither: two processes copy between the port and one end of a socket pair, the
// kernel gets the other end.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *what)
{
	fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static _Noreturn void copy(int from, int to)
{
	static char buf[256 * 1024];

	for (;;) {
		ssize_t have = read(from, buf, sizeof(buf));
		ssize_t done = 0;

		if (have < 0 && errno == EINTR)
			continue;
		if (have <= 0)
			break;
		while (done < have) {
			ssize_t n = write(to, buf + done, (size_t)(have - done));

			if (n < 0 && errno != EINTR)
				goto end;
			done += n > 0 ? n : 0;
		}
	}
end:
	kill(0, SIGKILL); // the other one too, so that the port is free again
	_exit(0);
}

int main(int argc, char **argv)
{
	char options[1024];
	int port, pair[2];
	pid_t group = 0;

	if (argc != 4) {
		fprintf(stderr, "usage: relay PORT MOUNTPOINT OPTIONS\n");
		return 2;
	}
	port = open(argv[1], O_RDWR | O_CLOEXEC);
	if (port < 0)
		fail(argv[1]);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		fail("socketpair");
	for (int i = 0; i < 2; i++) {
		pid_t child = fork();

		if (child < 0)
			fail("fork");
		setpgid(child, group);
		if (child == 0) {
			close(pair[1]);
			if (i == 0)
				copy(port, pair[0]);
			copy(pair[0], port);
		}
		group = group ? group : child;
	}
	close(pair[0]);
	snprintf(options, sizeof(options), "trans=fd,rfdno=%d,wfdno=%d,%s", pair[1], pair[1], argv[3]);
	if (mount("relay", argv[2], "9p", 0, options) < 0)
		fail(argv[2]);
	return 0;
}
