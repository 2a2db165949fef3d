/* SPDX-License-Identifier: BSD-2-Clause */
/* addr.c - addresses as people write them, and connecting to one.
 *
 * Owns the grammar of ADDR (addr.h) and the default address, so that p9d, which listens, and p9, which connects, can
 * not disagree. Parsing looks nothing up and opens nothing; p9_addr_connect() is the only function that blocks.
 * Every failure leaves a text that names the address and the cause, fit to be printed as it is.
 */
#include "base/addr.h"
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/messages.h"

#define VHOST_QUEUES_MAX 64
#define FORMS "unix:PATH, tcp:HOST:PORT, tcp:[V6]:PORT, fd:N, fd:IN,OUT, stdio or vhost-user:PATH[,OPTION]..."

static int parse_unix(struct p9_addr *a, const char *text, char *err, size_t cap)
{
	size_t n = strlen(text);
	a->kind = P9_ADDR_UNIX;
	if (n == 0) {
		snprintf(err, cap, "unix: without a path");
		return -P9_EINVAL;
	}
	if (n >= sizeof(a->path)) {
		snprintf(err, cap, "unix:%.40s...: path of %zu bytes, a socket's has at most %zu", text, n,
			 sizeof(a->path) - 1);
		return -P9_EINVAL;
	}
	memcpy(a->path, text, n + 1);
	return 0;
}

/* A number up to 65535, or a service name. */
static bool port_ok(const char *s)
{
	if (s[0] == 0) {
		return false;
	}
	if (strspn(s, "0123456789") == strlen(s)) {
		return strlen(s) <= 5 && atoi(s) <= 65535;
	}
	return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == strlen(s);
}

/* Finds where the host ends; *colon is the ":" before the port or the end of the text. */
static const char *split_host(const char *text, const char **host, size_t *n, const char **colon)
{
	const char *end;
	if (text[0] == '[') {
		end = strchr(text, ']');
		if (!end) {
			return "the address in brackets has no end";
		}
		*host = text + 1;
		*n = (size_t)(end - text - 1);
		*colon = end + 1;
		return **colon == ':' || **colon == 0 ? NULL : "after ] only :PORT can follow";
	}
	end = strchrnul(text, ':');
	*host = text;
	*n = (size_t)(end - text);
	*colon = end;
	return *end && strchr(end + 1, ':') ? "an IPv6 address needs brackets: tcp:[::1]:564" : NULL;
}

static int parse_tcp(struct p9_addr *a, const char *text, char *err, size_t cap)
{
	const char *host = NULL, *colon = NULL;
	size_t n = 0;
	a->kind = P9_ADDR_TCP;
	const char *why = split_host(text, &host, &n, &colon);
	const char *port = !why && *colon == ':' ? colon + 1 : P9_ADDR_DEFAULT_PORT;
	if (!why && n == 0) {
		why = "no host";
	}
	if (!why && n >= sizeof(a->host)) {
		why = "host name too long";
	}
	if (!why && (strlen(port) >= sizeof(a->port) || !port_ok(port))) {
		why = "the port is neither a number up to 65535 nor a service name";
	}
	if (why) {
		snprintf(err, cap, "tcp:%s: %s", text, why);
		return -P9_EINVAL;
	}
	memcpy(a->host, host, n);
	a->host[n] = 0;
	memcpy(a->port, port, strlen(port) + 1);
	return 0;
}

static int parse_fd(struct p9_addr *a, const char *text, char *err, size_t cap)
{
	char *end;
	a->kind = P9_ADDR_FD;
	errno = 0;
	long in = strtol(text, &end, 10), out = in;
	bool ok = end != text && text[0] >= '0' && text[0] <= '9';
	if (ok && *end == ',') {
		const char *second = end + 1;
		out = strtol(second, &end, 10);
		ok = end != second && second[0] >= '0' && second[0] <= '9';
	}
	if (!ok || *end || errno || in > INT32_MAX || out > INT32_MAX) {
		snprintf(err, cap, "fd:%s: not fd:N or fd:IN,OUT with descriptor numbers", text);
		return -P9_EINVAL;
	}
	a->in = (int)in;
	a->out = (int)out;
	return 0;
}

static int parse_number(const char *text, int *n)
{
	char *end;
	long v = strtol(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || v > INT_MAX) {
		return -P9_EINVAL;
	}
	*n = (int)v;
	return 0;
}

/* One option of vhost-user. Returns what is wrong with it, or NULL. */
static const char *vhost_option(struct p9_addr *a, const char *o, size_t n)
{
	if (n == 7 && memcmp(o, "connect", 7) == 0) {
		a->connect = true;
		return NULL;
	}
	if (n > 4 && memcmp(o, "tag=", 4) == 0) {
		if (n - 4 >= sizeof(a->tag)) {
			return "a tag has at most 31 bytes";
		}
		memcpy(a->tag, o + 4, n - 4);
		return NULL;
	}
	if (n > 7 && memcmp(o, "export=", 7) == 0) {
		if (n - 7 >= sizeof(a->export)) {
			return "the export's name is too long";
		}
		memcpy(a->export, o + 7, n - 7);
		return NULL;
	}
	if (n > 7 && memcmp(o, "queues=", 7) == 0) {
		char *end;
		unsigned long k = strtoul(o + 7, &end, 10);
		if (end != o + n || o[7] < '0' || o[7] > '9' || k < 1 || k > VHOST_QUEUES_MAX) {
			return "queues= is a number from 1 to 64";
		}
		a->queues = (unsigned)k;
		return NULL;
	}
	return "options are tag=TAG, export=NAME, queues=N and connect";
}

static int parse_vhost(struct p9_addr *a, const char *text, char *err, size_t cap)
{
	size_t n = strcspn(text, ",");
	const char *why = n == 0		 ? "without a path"
			  : n >= sizeof(a->path) ? "the path is longer than a socket's may be"
						 : NULL;
	a->kind = P9_ADDR_VHOST;
	a->in = a->out = -1;
	memcpy(a->path, text, why ? 0 : n);
	if (!why && strncmp(a->path, "fd:", 3) == 0 && parse_number(a->path + 3, &a->in) < 0) {
		why = "fd: needs the number of a descriptor";
	}
	a->out = a->in;
	for (const char *o = text + n; !why && *o; o += n) {
		o++;
		n = strcspn(o, ",");
		why = vhost_option(a, o, n);
	}
	if (why) {
		snprintf(err, cap, "vhost-user:%.200s: %s", text, why);
		return -P9_EINVAL;
	}
	return 0;
}

int p9_addr_parse(struct p9_addr *a, const char *text, char *err, size_t cap)
{
	memset(a, 0, sizeof(*a));
	a->in = a->out = -1;
	if (cap) {
		err[0] = 0;
	}
	if (strncmp(text, "unix:", 5) == 0) {
		return parse_unix(a, text + 5, err, cap);
	}
	if (strncmp(text, "tcp:", 4) == 0) {
		return parse_tcp(a, text + 4, err, cap);
	}
	if (strncmp(text, "fd:", 3) == 0) {
		return parse_fd(a, text + 3, err, cap);
	}
	if (strncmp(text, "vhost-user:", 11) == 0) {
		return parse_vhost(a, text + 11, err, cap);
	}
	if (strcmp(text, "stdio") == 0) {
		a->kind = P9_ADDR_STDIO;
		a->in = STDIN_FILENO;
		a->out = STDOUT_FILENO;
		return 0;
	}
	snprintf(err, cap, "%s: not an address; it is written %s", text, FORMS);
	return -P9_EINVAL;
}

void p9_addr_default(char *buf, size_t cap)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");
	if (geteuid() == 0) {
		snprintf(buf, cap, "unix:/run/p9.sock");
	} else if (dir && dir[0] == '/') {
		snprintf(buf, cap, "unix:%s/p9.sock", dir);
	} else {
		snprintf(buf, cap, "unix:/tmp/p9-%u.sock", (unsigned)geteuid());
	}
}

static void address_text(const struct p9_addr *a, char *buf, size_t cap)
{
	if (a->kind == P9_ADDR_UNIX || a->kind == P9_ADDR_VHOST) {
		snprintf(buf, cap, "%s:%s", a->kind == P9_ADDR_UNIX ? "unix" : "vhost-user", a->path);
	} else {
		bool v6 = strchr(a->host, ':') != NULL;
		snprintf(buf, cap, "tcp:%s%s%s:%s", v6 ? "[" : "", a->host, v6 ? "]" : "", a->port);
	}
}

static int say_errno(const struct p9_addr *a, int host_errno, char *err, size_t cap)
{
	char text[400];
	int e = p9_hosterr(host_errno);
	address_text(a, text, sizeof(text));
	snprintf(err, cap, "%s: %s (%s)", text, p9_error_text((uint32_t)e), p9_error_name((uint32_t)e));
	return -e;
}

/* connect(2) to the end, also when a signal came in between. Returns 0 or the host's errno. */
static int connect_whole(int fd, const struct sockaddr *sa, socklen_t len)
{
	if (connect(fd, sa, len) == 0) {
		return 0;
	}
	if (errno != EINTR) {
		return errno;
	}
	struct pollfd p = { fd, POLLOUT, 0 };
	while (poll(&p, 1, -1) < 0) {
		if (errno != EINTR) {
			return errno;
		}
	}
	int e = 0;
	socklen_t n = sizeof(e);
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0 ? errno : e;
}

/* Returns the descriptor, or minus the host's errno. */
static int open_and_connect(int family, const struct sockaddr *sa, socklen_t len)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		return -errno;
	}
	int e = connect_whole(fd, sa, len);
	if (e != 0) {
		close(fd);
		return -e;
	}
	return fd;
}

static int connect_unix(const struct p9_addr *a)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	memcpy(sun.sun_path, a->path, strlen(a->path) + 1);
	return open_and_connect(AF_UNIX, (struct sockaddr *)&sun, sizeof(sun));
}

/* Tries the host's addresses in the order of the resolver. Returns the descriptor, or minus the host's errno of the
 * last try; *gai is not 0 when the name could not be resolved. */
static int connect_tcp(const struct p9_addr *a, int *gai)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG }, *list;
	*gai = getaddrinfo(a->host, a->port, &hints, &list);
	if (*gai != 0) {
		hints.ai_flags = 0; /* a host with the loopback alone */
		*gai = getaddrinfo(a->host, a->port, &hints, &list);
	}
	if (*gai != 0) {
		return *gai == EAI_SYSTEM ? -errno : -EHOSTUNREACH;
	}
	int fd = -EHOSTUNREACH;
	for (const struct addrinfo *i = list; i && fd < 0; i = i->ai_next) {
		fd = open_and_connect(i->ai_family, i->ai_addr, i->ai_addrlen);
	}
	freeaddrinfo(list);
	int on = 1;
	if (fd >= 0) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	}
	return fd;
}

int p9_addr_connect(const struct p9_addr *a, int *in, int *out, char *err, size_t cap)
{
	int gai = 0;
	if (a->kind == P9_ADDR_FD || a->kind == P9_ADDR_STDIO) {
		*in = a->in;
		*out = a->out;
		return 0;
	}
	int fd = a->kind == P9_ADDR_TCP ? connect_tcp(a, &gai) : connect_unix(a);
	if (fd < 0 && gai != 0 && gai != EAI_SYSTEM) {
		char text[400];
		address_text(a, text, sizeof(text));
		snprintf(err, cap, "%s: %s", text, gai_strerror(gai));
		return -P9_EHOSTUNREACH;
	}
	if (fd < 0) {
		return say_errno(a, -fd, err, cap);
	}
	*in = *out = fd;
	return 0;
}

/* Returns the descriptor, or minus the host's errno. */
static int begin_to_connect(int family, const struct sockaddr *sa, socklen_t len)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
	if (fd < 0) {
		return -errno;
	}
	if (connect(fd, sa, len) < 0 && errno != EINPROGRESS) {
		int e = errno;
		close(fd);
		return -e;
	}
	if (family != AF_UNIX) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	}
	return fd;
}

int p9_addr_connect_begin(const struct p9_addr *a, unsigned attempt, int *fd, char *err, size_t cap)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
	unsigned n = 0;
	if (a->kind == P9_ADDR_UNIX || a->kind == P9_ADDR_VHOST) {
		memcpy(sun.sun_path, a->path, strlen(a->path) + 1);
		*fd = begin_to_connect(AF_UNIX, (struct sockaddr *)&sun, sizeof(sun));
	} else if (getaddrinfo(a->host, a->port, &hints, &list) != 0) {
		*fd = -EHOSTUNREACH;
	} else {
		for (const struct addrinfo *i = list; i; i = i->ai_next) {
			n++;
		}
		const struct addrinfo *i = list;
		for (n = n ? attempt % n : 0; n > 0; n--) {
			i = i->ai_next;
		}
		*fd = i ? begin_to_connect(i->ai_family, i->ai_addr, i->ai_addrlen) : -EHOSTUNREACH;
		freeaddrinfo(list);
	}
	if (*fd < 0) {
		int e = -*fd;
		*fd = -1;
		return say_errno(a, e, err, cap);
	}
	return 0;
}
