/* SPDX-License-Identifier: BSD-2-Clause */
/* notify.c - tells those who wait for it that we serve: a service manager, and with --background whoever started us.
 *
 * The manager: sd_notify(3)'s protocol without its library, a datagram to the socket that $NOTIFY_SOCKET names; one that
 * wants none has set none. It hears of a new main process before the old one ends, or it would take the service for dead.
 * In the background: the process that was started waits for a byte from the one that serves, and ends with its fortune.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/log.h"
#include "p9d/p9d.h"

static int waits = -1; /* where the process that was started hears from us */

int p9d_background(void)
{
	int ends[2];
	char byte;
	pid_t pid = pipe2(ends, O_CLOEXEC) < 0 ? -1 : fork();
	if (pid < 0) {
		return -1;
	}
	if (pid == 0) {
		close(ends[0]);
		waits = ends[1];
		setsid();
		return 0;
	}
	close(ends[1]);
	_exit(read(ends[0], &byte, 1) == 1 ? 0 : 1);
}

void p9d_tell_starter(void)
{
	if (waits >= 0 && write(waits, "", 1) < 0) {
		p9_log(P9_LOG_DEBUG, "who has started us has gone");
	}
	if (waits >= 0) {
		close(waits);
	}
	waits = -1;
}

void p9d_notify(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char text[64];
	if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(sa.sun_path)) {
		return;
	}
	memcpy(sa.sun_path, path, strlen(path));
	sa.sun_path[0] = path[0] == '@' ? 0 : path[0]; /* a name that is in no file system */
	int len = snprintf(text, sizeof(text), "READY=1\nMAINPID=%d\n", (int)getpid());
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct timeval patience = { .tv_sec = 1 }; /* in a hand-over all stand still: not for one that does not read */
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
	    sendto(fd, text, (size_t)len, MSG_NOSIGNAL, (struct sockaddr *)&sa, size) < 0) {
		p9_log(P9_LOG_DEBUG, "the service manager cannot be told");
	}
	if (fd >= 0) {
		close(fd);
	}
}
