/* SPDX-License-Identifier: BSD-2-Clause */
/* listen.c - sockets that take connections, and descriptors that are connections already (fd:, stdio).
 *
 * A Unix socket file that nobody answers on is stale and replaced; one that answers is another server's, and said so.
 * Sockets are made with a umask that leaves nothing, then given their mode: there is no moment at which anybody may
 * connect. When descriptors run out, one is kept back to accept and close with, and accepting pauses.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "base/log.h"
#include "p9d/p9d.h"
#include "transport/stream.h"

#define BACKLOG 128
#define SOCKET_BUFFER (4 * 1024 * 1024)
#define LOCK_TRIES 200 /* every 10 ms */
#define ACCEPT_BATCH 16
#define PAUSE_MS 100
#define INSECURE \
	"plain TCP on an address that is not loopback sends everything in the clear and believes every client; " \
	"say --insecure if that is what you want"

static struct p9_log_rate complaints;

static int fail(const char *text, const char *why)
{
	fprintf(stderr, "p9d: --listen %s: %s\n", text, why);
	return -1;
}

static int fail_errno(const char *text)
{
	char why[128];
	int e = p9_hosterr(errno);
	snprintf(why, sizeof(why), "%s (%s)", p9_error_text((uint32_t)e), p9_error_name((uint32_t)e));
	return fail(text, why);
}

static bool somebody_answers(const struct sockaddr_un *sa)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool alive = fd >= 0 && (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 || errno == EAGAIN);
	if (fd >= 0) {
		close(fd);
	}
	return alive;
}

static int clear_stale(struct p9d_listener *l, const struct sockaddr_un *sa)
{
	struct stat st;
	if (lstat(sa->sun_path, &st) < 0) {
		return errno == ENOENT ? 0 : fail_errno(l->text);
	}
	if (!S_ISSOCK(st.st_mode)) {
		return fail(l->text, "there is a file of that name, and it is not a socket");
	}
	if (somebody_answers(sa)) {
		return fail(l->text, "another server is listening there");
	}
	p9_log(P9_LOG_INFO, "%s: replacing a stale socket", l->text);
	return unlink(sa->sun_path) < 0 && errno != ENOENT ? fail_errno(l->text) : 0;
}

/* Looking for a stale socket, removing it and making ours must not mix with another start doing the same: the directory
 * is locked meanwhile. -1 where that cannot be, or where somebody does not let go: anybody may lock /tmp for ever. */
static int lock_directory(const char *path)
{
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
	snprintf(dir, sizeof(dir), "%s", path);
	char *slash = strrchr(dir, '/');
	snprintf(slash ? slash + (slash == dir) : dir, 2, "%s", slash ? "" : ".");
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
		if (errno != EWOULDBLOCK || i == LOCK_TRIES) {
			close(fd);
			return -1;
		}
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	return fd;
}

static int bind_unix(struct p9d_listener *l, unsigned mode);

static int listen_unix(struct p9d_listener *l, unsigned mode)
{
	int lock = lock_directory(l->addr.path);
	int fd = bind_unix(l, mode);
	if (lock >= 0) {
		close(lock);
	}
	return fd;
}

static int bind_unix(struct p9d_listener *l, unsigned mode)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	memcpy(sa.sun_path, l->addr.path, sizeof(sa.sun_path));
	if (clear_stale(l, &sa) < 0) {
		return -1;
	}
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return fail_errno(l->text);
	}
	mode_t old = umask(0777);
	int rc = bind(fd, (struct sockaddr *)&sa, sizeof(sa));
	umask(old);
	if (rc == 0) {
		struct stat st;
		l->unlink_path = true;
		rc = chmod(sa.sun_path, mode);
		if (rc == 0 && lstat(sa.sun_path, &st) == 0) {
			l->dev = st.st_dev;
			l->ino = st.st_ino;
		}
	}
	if (rc < 0 || listen(fd, BACKLOG) < 0) {
		rc = fail_errno(l->text);
		close(fd);
		return rc;
	}
	return fd;
}

static bool is_loopback(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET) {
		return (ntohl(((const struct sockaddr_in *)sa)->sin_addr.s_addr) >> 24) == 127;
	}
	return sa->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)sa)->sin6_addr);
}

static int bind_tcp(const struct addrinfo *ai)
{
	int one = 1;
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ai->ai_family == AF_INET6) {
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	}
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
		int e = errno;
		close(fd);
		errno = e;
		return -1;
	}
	return fd;
}

/* Port 0 is one that the kernel picks; it is told, or nobody could find us. */
static void note_port(struct p9d_listener *l, int fd)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	char port[16];
	if (getsockname(fd, (struct sockaddr *)&sa, &len) == 0 &&
	    getnameinfo((struct sockaddr *)&sa, len, NULL, 0, port, sizeof(port), NI_NUMERICSERV) == 0) {
		bool v6 = strchr(l->addr.host, ':') != NULL;
		snprintf(l->addr.port, sizeof(l->addr.port), "%s", port);
		snprintf(l->text, sizeof(l->text), "tcp:%s%s%s:%s", v6 ? "[" : "", l->addr.host, v6 ? "]" : "", port);
	}
}

static int listen_tcp(struct p9d_listener *l, bool insecure)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *list;
	int rc = getaddrinfo(l->addr.host[0] ? l->addr.host : NULL, l->addr.port, &hints, &list);
	if (rc != 0) {
		return fail(l->text, gai_strerror(rc));
	}
	int fd = -1;
	if (!is_loopback(list->ai_addr) && !insecure) {
		fail(l->text, INSECURE);
	} else {
		fd = bind_tcp(list);
		if (fd < 0) {
			fail_errno(l->text);
		} else if (strcmp(l->addr.port, "0") == 0) {
			note_port(l, fd);
		}
	}
	freeaddrinfo(list);
	return fd;
}

/* A socket that is open already: one that a monitor is at the other end of, or one that monitors will connect to. */
static int listen_given(struct p9d_listener *l)
{
	int listens = 0;
	socklen_t len = sizeof(listens);
	if (getsockopt(l->addr.in, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0) {
		return fail_errno(l->text);
	}
	fcntl(l->addr.in, F_SETFD, FD_CLOEXEC);
	if (listens) {
		fcntl(l->addr.in, F_SETFL, fcntl(l->addr.in, F_GETFL) | O_NONBLOCK);
		l->source.fd = l->addr.in;
	}
	return 0;
}

/* A device for a monitor: which tree it shows, under which tag. */
static int check_vhost(struct p9d_listener *l, const struct p9d_config *c)
{
	const char *only = l->addr.export;
	if (!only[0] && c->nexports == 1) {
		only = c->exports[0].name;
	}
	bool there = !only[0];
	for (unsigned i = 0; i < c->nexports && !there; i++) {
		there = strcmp(c->exports[i].name, only) == 0;
	}
	if (!there) {
		return fail(l->text, "export= names none of the exports");
	}
	if (!l->addr.tag[0]) {
		return fail(l->text, "a device needs a tag=TAG for the guest to mount");
	}
	l->vhost = (struct p9_vhost_conf){ l->addr.tag, l->addr.queues ? l->addr.queues : 1 };
	return 0;
}

static int listen_vhost(struct p9d_listener *l, const struct p9d_config *c)
{
	if (check_vhost(l, c) < 0) {
		return -1;
	}
	if (l->addr.in >= 0) {
		return listen_given(l);
	}
	if (l->addr.connect) {
		return 0; /* monitor.c */
	}
	l->source.fd = listen_unix(l, c->socket_mode);
	return l->source.fd < 0 ? -1 : 0;
}

int p9d_listen(struct p9d_listener *l, const struct p9d_config *c, const char *text)
{
	char why[256];
	snprintf(l->text, sizeof(l->text), "%s", text);
	l->source.fd = l->reserve_fd = -1;
	if (p9_addr_parse(&l->addr, text, why, sizeof(why)) < 0) {
		return fail(text, why);
	}
	switch (l->addr.kind) {
	case P9_ADDR_UNIX:
		l->source.fd = listen_unix(l, c->socket_mode);
		break;
	case P9_ADDR_VHOST:
		return listen_vhost(l, c);
	case P9_ADDR_TCP:
		l->source.fd = listen_tcp(l, c->insecure);
		break;
	default:
		if (fcntl(l->addr.in, F_GETFD) < 0 || fcntl(l->addr.out, F_GETFD) < 0) {
			return fail_errno(text);
		}
		return 0;
	}
	return l->source.fd < 0 ? -1 : 0;
}

int p9d_listen_inherited(struct p9d_listener *l, const struct p9d_config *c, const char *text, int fd)
{
	char why[256];
	snprintf(l->text, sizeof(l->text), "%s", text);
	l->source.fd = fd;
	l->reserve_fd = -1;
	l->inherited = true;
	if (p9_addr_parse(&l->addr, text, why, sizeof(why)) < 0) {
		return fail(text, why);
	}
	l->addr.in = l->addr.out = -1;
	if (l->addr.kind == P9_ADDR_TCP) {
		struct sockaddr_storage sa = { 0 };
		socklen_t len = sizeof(sa);
		bool known = getsockname(fd, (struct sockaddr *)&sa, &len) == 0;
		return known && (c->insecure || is_loopback((struct sockaddr *)&sa)) ? 0 : fail(text, INSECURE);
	}
	return l->addr.kind == P9_ADDR_VHOST ? check_vhost(l, c) : 0;
}

int p9d_listen_passed(struct p9d_listener *l, const struct p9d_config *c, int fd)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t len = sizeof(sa);
	snprintf(l->text, sizeof(l->text), "LISTEN_FDS descriptor %d", fd);
	l->passed = true;
	l->reserve_fd = -1;
	if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0) {
		return fail_errno(l->text);
	}
	l->addr.kind = sa.ss_family == AF_UNIX ? P9_ADDR_UNIX : P9_ADDR_TCP;
	if (sa.ss_family != AF_UNIX && !is_loopback((struct sockaddr *)&sa) && !c->insecure) {
		return fail(l->text, INSECURE);
	}
	int listening = 0;
	socklen_t size = sizeof(listening);
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0 || !listening) {
		return fail(l->text, "not a listening stream socket");
	}
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	l->source.fd = fd;
	return 0;
}

/* ---- connections ---- */
static void note_source(struct p9_peer *p, const struct sockaddr_storage *sa)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)sa;
	const struct sockaddr_in *four = (const struct sockaddr_in *)sa;
	p->remote = true;
	if (sa->ss_family == AF_INET) {
		memcpy(p->source, mapped, sizeof(mapped));
		memcpy(p->source + sizeof(mapped), &four->sin_addr, 4);
	} else if (sa->ss_family == AF_INET6) {
		bool is_mapped = memcmp(&six->sin6_addr, mapped, sizeof(mapped)) == 0;
		memcpy(p->source, &six->sin6_addr, is_mapped ? 16 : 8);
	} else {
		p->remote = false;
	}
}

static void describe_peer(int fd, const struct p9d_listener *l, struct p9_peer *p)
{
	struct ucred cr;
	socklen_t len = sizeof(cr);
	struct sockaddr_storage sa = { 0 };
	socklen_t salen = sizeof(sa);
	char host[64] = "?", port[16] = "?";
	p->kind = l->addr.kind == P9_ADDR_TCP ? P9_PEER_TCP : P9_PEER_UNIX;
	p->known = p->kind == P9_PEER_UNIX;
	p->uid = p->gid = UINT32_MAX - 1; /* who cannot be told is nobody in particular, and never root */
	if (p->kind == P9_PEER_UNIX && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cr, &len) == 0) {
		p->known = true;
		p->uid = cr.uid;
		p->gid = cr.gid;
		p->pid = (uint32_t)cr.pid;
		snprintf(p->text, sizeof(p->text), "unix(pid %u uid %u)", p->pid, p->uid);
		return;
	}
	if (getpeername(fd, (struct sockaddr *)&sa, &salen) == 0) {
		getnameinfo((struct sockaddr *)&sa, salen, host, sizeof(host), port, sizeof(port),
			    NI_NUMERICHOST | NI_NUMERICSERV);
		note_source(p, &sa);
	}
	snprintf(p->text, sizeof(p->text), "%s:%s:%s", p->kind == P9_PEER_TCP ? "tcp" : "unix", host, port);
}

static void tune(int fd, const struct p9_peer *p)
{
	int one = 1, size = SOCKET_BUFFER;
	if (p->kind == P9_PEER_TCP) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	} else if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0) {
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	}
}

static void accept_again(struct p9_timer *t)
{
	struct p9_listener_timer *lt = (struct p9_listener_timer *)t;
	struct p9d_listener *l = lt->listener;
	if (l->reserve_fd < 0) {
		l->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	}
	p9_loop_mod(p9_server_loop(l->srv, 0), &l->source, EPOLLIN);
}

/* Not even the reserve is left: wait a little instead of asking the kernel again and again. */
static void pause_accepting(struct p9d_listener *l)
{
	struct p9_loop *loop = p9_server_loop(l->srv, 0);
	l->again.timer.fire = accept_again;
	l->again.listener = l;
	p9_loop_mod(loop, &l->source, 0);
	if (p9_timer_set(&loop->timers, &l->again.timer, loop->now + PAUSE_MS) < 0) {
		p9_loop_mod(loop, &l->source, EPOLLIN);
	}
}

static p9_link_make *maker(const struct p9_peer *peer)
{
	if (peer->kind == P9_PEER_GUEST) {
		return p9_vhost_make;
	}
	return peer->kind == P9_PEER_UNIX ? p9_stream_unix_make : p9_stream_fd_make;
}

/* Who speaks over a device is the guest's kernel; the monitor only connects it. */
static void as_guest(struct p9d_listener *l, struct p9_peer *p)
{
	if (l->addr.kind != P9_ADDR_VHOST) {
		return;
	}
	p->kind = P9_PEER_GUEST;
	p->only = l->addr.export[0] ? l->addr.export : NULL;
	p->make_arg = &l->vhost;
	snprintf(p->text, sizeof(p->text), "guest(tag %s pid %u uid %u)", l->vhost.tag, p->pid, p->uid);
}

static int accept_one(struct p9d_listener *l)
{
	struct p9_peer peer = { 0 };
	int fd = accept4(l->source.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE) && l->reserve_fd >= 0) {
		/* give the reserve up, turn the caller away, take it back: no spinning */
		close(l->reserve_fd);
		fd = accept4(l->source.fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0) {
			close(fd);
		}
		l->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		p9_log_some(&complaints, P9_LOG_WARN, "%s: out of descriptors, a connection was turned away", l->text);
		return -1;
	}
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			pause_accepting(l);
		}
		return -1;
	}
	describe_peer(fd, l, &peer);
	tune(fd, &peer);
	as_guest(l, &peer);
	int rc = p9_server_accept(l->srv, maker(&peer), fd, fd, &peer);
	if (rc < 0 && rc != -P9_EAGAIN) {
		p9_log_some(&complaints, P9_LOG_WARN, "%s: %s turned away: too many connections%s", l->text, peer.text,
			    rc == -P9_EBUSY ? " from there that have not attached (said once a minute)" : "");
	}
	return 0;
}

static int on_ready(struct p9_source *s, uint32_t events)
{
	struct p9d_listener *l = (struct p9d_listener *)s;
	(void)events;
	for (int i = 0; i < ACCEPT_BATCH && accept_one(l) == 0; i++) {
	}
	return 0;
}

int p9d_listen_adopt(struct p9d_listener *l, int in, int out)
{
	struct p9_peer peer = { .kind = P9_PEER_FD };
	struct ucred cr;
	struct sockaddr_storage sa = { 0 };
	socklen_t len = sizeof(cr), salen = sizeof(sa);
	if (getsockname(in, (struct sockaddr *)&sa, &salen) == 0 &&
	    (sa.ss_family == AF_INET || sa.ss_family == AF_INET6)) {
		peer.kind = P9_PEER_TCP; /* the same rules as for one that was accepted */
	} else if (getsockopt(in, SOL_SOCKET, SO_PEERCRED, &cr, &len) == 0 && cr.pid > 0) {
		peer = (struct p9_peer){ P9_PEER_UNIX, true, cr.uid, cr.gid, (uint32_t)cr.pid, "" };
	}
	snprintf(peer.text, sizeof(peer.text), "%.90s", l->text);
	as_guest(l, &peer);
	fcntl(in, F_SETFL, fcntl(in, F_GETFL) | O_NONBLOCK);
	fcntl(out, F_SETFL, fcntl(out, F_GETFL) | O_NONBLOCK);
	return p9_server_accept(l->srv, maker(&peer), in, out, &peer);
}

int p9d_listen_start(struct p9d_listener *l, struct p9_server *srv)
{
	l->srv = srv;
	if (l->addr.connect) {
		p9d_monitor_begin(l);
		return 0;
	}
	if (l->source.fd >= 0) {
		l->source.ready = on_ready;
		l->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		return p9_loop_add(p9_server_loop(srv, 0), &l->source, EPOLLIN);
	}
	if (l->inherited) {
		return 0; /* its connection is among those that were taken over */
	}
	return p9d_listen_adopt(l, l->addr.in, l->addr.out);
}

/* Takes the socket file away, if it is still the one we made. */
void p9d_listen_unlink(struct p9d_listener *l)
{
	struct stat st;
	if (l->unlink_path && lstat(l->addr.path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino) {
		unlink(l->addr.path);
	}
	l->unlink_path = false;
}

void p9d_listen_close(struct p9d_listener *l)
{
	p9d_listen_unlink(l);
	if (l->source.fd >= 0) {
		close(l->source.fd);
	}
	if (l->reserve_fd >= 0) {
		close(l->reserve_fd);
	}
	p9d_monitor_end(l);
	l->source.fd = l->reserve_fd = -1;
}
