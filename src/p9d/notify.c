/* SPDX-License-Identifier: BSD-2-Clause */
/* notify.c - tells the service manager that started us, or the p9d before us, that we serve and which process we are.
 *
 * sd_notify(3)'s protocol without its library: a datagram to the socket that $NOTIFY_SOCKET names. A manager that wants
 * none has set none. Called once, by the main thread, when everything serves.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/log.h"
#include "p9d/p9d.h"

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
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	if (fd < 0 || sendto(fd, text, (size_t)len, MSG_NOSIGNAL, (struct sockaddr *)&sa, size) < 0) {
		p9_log(P9_LOG_DEBUG, "the service manager cannot be told");
	}
	if (fd >= 0) {
		close(fd);
	}
}
