/* SPDX-License-Identifier: BSD-2-Clause */
/* control.c - the private socket of a p9d, where another takes over from it, and what the one that goes does then.
 *
 * Owns a socket file that only our user can open; who is at the other end is asked of the kernel all the same. Runs on the
 * main thread, for one who comes at a time. Nothing is touched before that one has said what it wants in our version;
 * then the server stands still until it is given away or goes on. Nothing of what is given is changed, whatever becomes
 * of it, so that going on is all there is to do. Must stay true: once GO is sent we go on only when the
 * other has ended, or has said something else than TAKEN.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "base/log.h"
#include "p9d/handover.h"
#include "p9d/packet.h"

#define HELLO_MS 2000	  /* who connects says at once what it wants */
#define SHORT_NS 100000000
#define PATIENCE_MS 10000 /* for requests that run, and for each answer */

const char *p9d_control_dir(const struct p9d_config *c)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");
	struct stat st;
	if (c->control && stat(c->control, &st) == 0 && S_ISDIR(st.st_mode)) {
		return c->control;
	}
	return geteuid() == 0 ? "/run" : dir && dir[0] == '/' ? dir : "/tmp";
}

/* ---- the socket ---- */
static bool answers(const struct sockaddr_un *sa)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool alive = fd >= 0 && (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 || errno == EAGAIN);
	if (fd >= 0) {
		close(fd);
	}
	return alive;
}

/* Files of processes that were killed. */
static void clean(const char *dir)
{
	DIR *d = opendir(dir);
	for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
		struct sockaddr_un sa = { .sun_family = AF_UNIX };
		int pid, end = 0;
		if (sscanf(e->d_name, "p9d-%d.ctl%n", &pid, &end) != 1 || end == 0 || e->d_name[end] ||
		    kill(pid, 0) == 0 || errno != ESRCH ||
		    (size_t)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/%s", dir, e->d_name) >=
			    sizeof(sa.sun_path)) {
			continue;
		}
		if (!answers(&sa)) {
			unlink(sa.sun_path);
		}
	}
	if (d) {
		closedir(d);
	}
}

static int bind_control(struct p9d *d, int fd)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct stat st;
	memcpy(sa.sun_path, d->control_path, sizeof(sa.sun_path));
	if (lstat(sa.sun_path, &st) == 0 && S_ISSOCK(st.st_mode) && !answers(&sa)) {
		unlink(sa.sun_path);
	}
	/* the mode is the socket's own at bind(2); umask(2) would be that of files that clients make meanwhile */
	int rc = fchmod(fd, 0600) < 0 ? -1 : bind(fd, (struct sockaddr *)&sa, sizeof(sa));
	if (rc < 0 || listen(fd, 4) < 0 || lstat(sa.sun_path, &st) < 0) {
		return -1;
	}
	d->control_dev = st.st_dev;
	d->control_ino = st.st_ino;
	return 0;
}

void p9d_control_open(struct p9d *d)
{
	const char *path = d->conf.control, *dir = p9d_control_dir(&d->conf);
	size_t cap = sizeof(d->control_path), len;
	d->control = -1;
	memset(d->control_path, 0, cap);
	if (path && strcmp(path, "none") == 0) {
		return;
	}
	if (path && path != dir) {
		len = (size_t)snprintf(d->control_path, cap, "%s", path);
	} else {
		clean(dir);
		len = (size_t)snprintf(d->control_path, cap, "%s/p9d-%d.ctl", dir, (int)getpid());
	}
	int fd = len < cap ? socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
	if (fd < 0 || bind_control(d, fd) < 0) {
		p9_log(P9_LOG_WARN, "%s: %s; no other p9d will be able to take over from this one", d->control_path,
		       len < cap ? p9_error_text((uint32_t)p9_hosterr(errno)) : "the path is too long");
		d->control_path[0] = 0;
		if (fd >= 0) {
			close(fd);
		}
		return;
	}
	d->control = fd;
}

void p9d_control_close(struct p9d *d)
{
	struct stat st;
	if (d->control < 0) {
		return;
	}
	if (lstat(d->control_path, &st) == 0 && st.st_dev == d->control_dev && st.st_ino == d->control_ino) {
		unlink(d->control_path);
	}
	close(d->control);
	d->control = -1;
}

/* ---- giving ---- */
struct giving {
	int sock, stop;
	pid_t to;
	struct p9d_packet in; /* what was said last; its words say what went wrong */
};

static int expect(struct giving *g, enum p9d_said said, int ms)
{
	struct p9d_expect want = { said, ms, ms < 0 ? -1 : g->stop, NULL, 0 };
	return p9d_packet_receive(g->sock, &want, &g->in);
}

static bool must_end(void *arg)
{
	const struct giving *g = arg;
	struct pollfd p[2] = { { g->stop, POLLIN, 0 }, { g->sock, POLLRDHUP, 0 } };
	return poll(p, 2, 0) > 0;
}

static int failed(struct giving *g, const char *why)
{
	snprintf(g->in.words, sizeof(g->in.words), "%s", why);
	return -1;
}

/* The bytes in a memfd that nobody can change. */
static int seal(const struct p9_pack *p)
{
	int fd = memfd_create("p9d-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	size_t done = 0;
	ssize_t n = 1;
	while (fd >= 0 && done < p->len && n > 0) {
		n = write(fd, p->bytes + done, p->len - done);
		done += n > 0 ? (size_t)n : 0;
	}
	int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	if (fd >= 0 && (done < p->len || fcntl(fd, F_ADD_SEALS, seals) < 0)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int send_state(struct giving *g, const struct p9_pack *p)
{
	int fd = seal(p);
	int rc = fd < 0 ? -P9_ENOMEM : p9d_packet_send(g->sock, SAID_STATE, p->nfds, &fd, 1);
	if (fd >= 0) {
		close(fd);
	}
	for (size_t at = 0; rc == 0 && at < p->nfds;) {
		size_t n = p->nfds - at < P9D_PACKET_FDS ? p->nfds - at : P9D_PACKET_FDS;
		rc = p9d_packet_send(g->sock, SAID_FDS, n, p->fds + at, (unsigned)n);
		at += n;
		int answer = rc == 0 ? expect(g, SAID_ACK, PATIENCE_MS) : 0;
		if (answer < 0) {
			return -1;
		}
	}
	return rc < 0 ? failed(g, p9_error_text((uint32_t)-rc)) : 0;
}

/* Frozen. Returns 0: all of it is theirs. -1: it is ours still, g->in.words says why. */
static int give(struct p9d *d, struct giving *g)
{
	struct p9_pack p = { 0 };
	p9d_pack(d, &p);
	int rc = p.why[0] ? failed(g, p.why) : send_state(g, &p);
	p9_pack_fini(&p);
	if (rc < 0 || expect(g, SAID_READY, PATIENCE_MS) < 0) {
		p9d_packet_refuse(g->sock, g->in.words);
		return -1;
	}
	p9d_control_close(d); /* the name may be theirs now */
	if (p9d_packet_send(g->sock, SAID_GO, 0, NULL, 0) == 0 && expect(g, SAID_TAKEN, -1) == 0) {
		return 0;
	}
	p9d_control_open(d);
	return -1;
}

static void hand_over(struct p9d *d, struct giving *g)
{
	char why[P9D_PACKET_WORDS];
	struct p9_patience patience = { PATIENCE_MS, must_end, g };
	p9_log(P9_LOG_INFO, "p9d %d asks to take over", (int)g->to);
	if (p9_server_freeze(d->srv, &patience, why, sizeof(why)) < 0) {
		p9d_packet_refuse(g->sock, why);
		p9_log(P9_LOG_WARN, "nothing is handed over: %s", why);
		return;
	}
	unsigned n = p9_server_conns(d->srv);
	if (give(d, g) == 0) {
		p9_log(P9_LOG_INFO, "%u connections have been handed over to p9d %d; ending", n, (int)g->to);
		_exit(0);
	}
	p9_server_thaw(d->srv);
	p9_log(P9_LOG_WARN, "nothing is handed over, and all goes on here: %s", g->in.words);
}

void p9d_control_ready(struct p9d *d)
{
	struct giving g = { .sock = accept4(d->control, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), .stop = d->ends };
	if (g.sock < 0) { /* without descriptors: it waits, and so do we, not to ask again and again */
		nanosleep(&(struct timespec){ .tv_nsec = SHORT_NS }, NULL);
		return;
	}
	if (!p9d_packet_trusted(g.sock, &g.to)) {
		p9_log(P9_LOG_WARN, "process %d wants to take over, and is another user's", (int)g.to);
	} else if (expect(&g, SAID_HELLO, HELLO_MS) < 0) {
		p9d_packet_refuse(g.sock, g.in.words);
		p9_log(P9_LOG_INFO, "process %d on the private socket: %s", (int)g.to, g.in.words);
	} else {
		hand_over(d, &g);
	}
	close(g.sock);
}
