/* SPDX-License-Identifier: BSD-2-Clause */
/* takeover.c - p9d --takeover: finds the p9d that runs, gets all it has, and goes on in its place.
 *
 * Until the other says GO nothing of what came may be changed, nor told to anybody: the other may have to go on with it.
 * So whatever fails ends the process at once, and the kernel closes our copies. The server is frozen from its start
 * until then. See packet.h for the conversation, control.c for the other end.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/log.h"
#include "p9d/handover.h"
#include "p9d/packet.h"
#include "transport/stream.h"

#define ANSWER_MS 30000 /* the other one waits for its own requests first */
#define STATE_MAX ((size_t)1 << 31)
#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK)

static int fail(const char *why)
{
	fprintf(stderr, "p9d: --takeover: %s\n", why);
	return 1;
}

/* ---- finding ---- */
static int connect_path(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(sa.sun_path)) {
		return -1;
	}
	memcpy(sa.sun_path, path, strlen(path));
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* The only one there is. */
static int connect_any(const char *dir)
{
	char path[400], names[200] = "", why[700];
	int found = -1, count = 0;
	DIR *d = opendir(dir);
	for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
		int pid, end = 0;
		if (sscanf(e->d_name, "p9d-%d.ctl%n", &pid, &end) != 1 || end == 0 || e->d_name[end]) {
			continue;
		}
		snprintf(path, sizeof(path), "%.100s/%s", dir, e->d_name);
		int fd = connect_path(path);
		if (fd < 0) {
			continue; /* stale, or somebody else's */
		}
		size_t used = strlen(names);
		snprintf(names + used, sizeof(names) - used, " %d", pid);
		count++;
		if (found >= 0) {
			close(found);
		}
		found = fd;
	}
	if (d) {
		closedir(d);
	}
	if (count == 1) {
		return found;
	}
	if (found >= 0) {
		close(found);
	}
	snprintf(why, sizeof(why),
		 count ? "there are several p9d (%s), say which: --takeover=PID%s"
		       : "%sno p9d of this user has its private socket in %s",
		 count ? names + 1 : "", count ? "" : dir);
	fail(why);
	return -1;
}

static int find(const struct p9d_config *c)
{
	const char *who = c->takeover, *dir = p9d_control_dir(c);
	char path[400], why[600];
	if (!*who) {
		return connect_any(dir);
	}
	bool is_path = strchr(who, '/') != NULL;
	snprintf(path, sizeof(path), is_path ? "%.300s%s%s" : "%.200s/p9d-%.100s%s", is_path ? who : dir,
		 is_path ? "" : who, is_path ? "" : ".ctl");
	int fd = connect_path(path);
	if (fd < 0) {
		snprintf(why, sizeof(why), "%s: %s", path, strerror(errno));
		fail(why);
	}
	return fd;
}

/* ---- getting ---- */
static int hear(struct p9d *d, const struct p9d_expect *want, struct p9d_packet *p)
{
	int rc = p9d_packet_receive(d->from->sock, want, p);
	if (rc < 0) {
		fail(p->words);
	}
	return rc;
}

static int read_state(struct p9d_takeover *t, int fd)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0 || st.st_size <= 0 ||
	    (uint64_t)st.st_size > STATE_MAX) {
		return fail("its state is none");
	}
	t->len = (size_t)st.st_size;
	t->bytes = mmap(NULL, t->len, PROT_READ, MAP_PRIVATE, fd, 0);
	if (t->bytes == MAP_FAILED) {
		t->bytes = NULL;
		return fail("no memory for its state");
	}
	return 0;
}

static int get_fds(struct p9d *d, size_t n)
{
	struct p9d_takeover *t = d->from;
	struct rlimit rl;
	char why[160];
	if (getrlimit(RLIMIT_NOFILE, &rl) < 0 || n + 64 > rl.rlim_cur) {
		snprintf(why, sizeof(why), "it has %zu descriptors, and we may have %llu only (ulimit -n)", n,
			 (unsigned long long)rl.rlim_cur);
		return fail(why);
	}
	t->fds = calloc(n + P9D_PACKET_FDS, sizeof(int));
	if (!t->fds) {
		return fail("out of memory");
	}
	for (size_t at = 0; at < n;) {
		struct p9d_packet p;
		struct p9d_expect some = { SAID_FDS, ANSWER_MS, d->ends, t->fds + at, P9D_PACKET_FDS };
		int k = hear(d, &some, &p);
		if (k <= 0 || (size_t)k > n - at) {
			return k < 0 ? 1 : fail("another number of descriptors came than was said");
		}
		at += (size_t)k;
		if (p9d_packet_send(t->sock, SAID_ACK, at, NULL, 0) < 0) {
			return fail("the other one has gone");
		}
	}
	return 0;
}

int p9d_takeover_begin(struct p9d *d)
{
	static struct p9d_takeover t;
	struct p9d_packet p;
	int memfd;
	struct p9d_expect state = { SAID_STATE, ANSWER_MS, d->ends, &memfd, 1 };
	d->from = &t;
	t.sock = find(&d->conf);
	if (t.sock < 0) {
		return 1;
	}
	if (!p9d_packet_trusted(t.sock, &t.pid)) {
		return fail("the socket is another user's");
	}
	if (p9d_packet_send(t.sock, SAID_HELLO, 0, NULL, 0) < 0) {
		return fail("the other one has gone");
	}
	int got = hear(d, &state, &p);
	if (got != 1) {
		return got < 0 ? 1 : fail("its state did not come");
	}
	int rc = read_state(&t, memfd);
	close(memfd);
	rc = rc ? rc : get_fds(d, (size_t)p.number);
	if (rc) {
		return rc;
	}
	p9_unpack_init(&t.u, t.bytes, t.len, t.fds, (size_t)p.number);
	p9d_unpack(&t.old, &t.u);
	return p9_unpack_bad(&t.u) ? fail(t.u.why) : 0;
}

/* ---- going on ---- */
void p9d_takeover_leave(struct p9d *d)
{
	if (d->from->sock >= 0) {
		p9d_packet_refuse(d->from->sock, "the new one cannot start, and says why itself");
		close(d->from->sock);
	}
	if (d->from->bytes) {
		munmap(d->from->bytes, d->from->len);
	}
}

void p9d_takeover_fail(struct p9d *d, const char *why)
{
	p9d_packet_refuse(d->from->sock, why);
	fail(why);
	for (unsigned i = 0; i < d->nlisteners; i++) {
		p9d_listen_unlink(&d->listeners[i]); /* those of addresses that the other does not have */
	}
	_exit(1);
}

static struct p9_link *link_of(struct p9_loop *loop, const struct p9_peer *peer, struct p9_unpack *u)
{
	return peer->kind == P9_PEER_GUEST ? p9_vhost_unpack(loop, u) : p9_stream_unpack(loop, u);
}

/* Socket files are ours from now on. */
static void own_files(struct p9d *d)
{
	for (unsigned i = 0; i < d->nlisteners; i++) {
		struct p9d_listener *l = &d->listeners[i];
		l->unlink_path = l->inherited ? l->file_inherited : l->unlink_path;
	}
}

void p9d_takeover_finish(struct p9d *d)
{
	struct p9d_takeover *t = d->from;
	struct p9d_packet p;
	struct p9d_expect go = { SAID_GO, ANSWER_MS, d->ends, NULL, 0 };
	if (p9_server_unpack(d->srv, &t->u, link_of) == 0) {
		p9_unpack_end(&t->u);
	}
	if (p9_unpack_bad(&t->u)) {
		p9d_takeover_fail(d, t->u.why);
	}
	for (unsigned i = 0; i < d->nlisteners; i++) {
		if (p9d_listen_start(&d->listeners[i], d->srv) < 0) {
			p9d_takeover_fail(d, "a listening socket cannot be waited for");
		}
	}
	if (p9d_packet_send(t->sock, SAID_READY, 0, NULL, 0) < 0) {
		p9d_takeover_fail(d, "the other one has gone");
	}
	if (p9d_packet_receive(t->sock, &go, &p) < 0) {
		p9d_takeover_fail(d, p.words);
	}
	p9d_notify(); /* before the other one ends */
	if (p9d_packet_send(t->sock, SAID_TAKEN, 0, NULL, 0) < 0) {
		p9_log(P9_LOG_DEBUG, "p9d %d has ended on its last word", (int)t->pid); /* all is ours, as it said */
	}
	own_files(d);
	p9d_old_close(&t->old, true);
	p9_unpack_fini(&t->u);
	free(t->fds);
	munmap(t->bytes, t->len);
	close(t->sock);
	p9_log(P9_LOG_INFO, "took %u connections over from p9d %d", p9_server_conns(d->srv), (int)t->pid);
	d->from = NULL;
}
