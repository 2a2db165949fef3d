/* SPDX-License-Identifier: BSD-2-Clause */
/* monitor.c - monitors that listen for their device: connecting to them, and again when they have gone.
 *
 * The main thread does the looking, for it alone never has a client's identity on, and a socket's permissions are asked of
 * the identity. What it has connected is taken by loop 0. It keeps a second descriptor of each connection to see its end.
 * Nobody there, or a connection that soon ends: the next attempt is after 0.1 s, then 0.2, 0.4 ... 2 s.
 * Must stay true: one connection of a listener is on its way to loop 0 at a time; the listener is there as long as the loop.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "base/log.h"
#include "base/spin.h"
#include "p9d/p9d.h"

#define FIRST_WAIT_MS 100u
#define LAST_WAIT_MS 2000u

static uint64_t now_ms(void)
{
	return p9_spin_clock() / 1000000;
}

static void take(struct p9_job *job, struct p9_thread *self)
{
	struct p9d_monitor *m = (struct p9d_monitor *)job;
	struct p9d_listener *l = (struct p9d_listener *)((char *)m - offsetof(struct p9d_listener, monitor));
	(void)self;
	int rc = p9d_listen_adopt(l, m->fd, m->fd);
	if (rc < 0) { /* our second descriptor would keep the monitor waiting */
		shutdown(m->watch, SHUT_RDWR);
	}
	atomic_store(&m->busy, false);
	if (rc < 0) {
		p9_log(P9_LOG_WARN, "%s: too many connections", l->text);
	}
}

static int connect_monitor(const struct p9d_listener *l)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	memcpy(sa.sun_path, l->addr.path, sizeof(sa.sun_path));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0) {
		return fd < 0 ? p9_err() : fd;
	}
	int rc = p9_err();
	close(fd);
	return rc;
}

static void later(struct p9d_monitor *m)
{
	m->next = now_ms() + m->wait;
	m->wait = m->wait * 2 < LAST_WAIT_MS ? m->wait * 2 : LAST_WAIT_MS;
}

/* Whether there is one to wait for the end of. */
static bool still_there(struct p9d_monitor *m)
{
	struct pollfd p = { .fd = m->watch, .events = POLLRDHUP };
	if (m->watch < 0 || poll(&p, 1, 0) <= 0) {
		return m->watch >= 0;
	}
	close(m->watch);
	m->watch = -1;
	m->wait = now_ms() - m->since > LAST_WAIT_MS ? FIRST_WAIT_MS : m->wait;
	later(m);
	return false;
}

void p9d_monitor_tick(struct p9d_listener *l)
{
	struct p9d_monitor *m = &l->monitor;
	if (!m->on || atomic_load(&m->busy) || still_there(m) || now_ms() < m->next) {
		return;
	}
	int fd = connect_monitor(l);
	if (fd < 0) {
		if (!m->told) {
			p9_log(P9_LOG_INFO, "%s: no monitor is there (%s), waiting for one", l->text,
			       p9_error_name((uint32_t)-fd));
		}
		m->told = true;
		later(m);
		return;
	}
	m->watch = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (m->watch < 0) {
		close(fd);
		later(m);
		return;
	}
	m->told = false;
	m->since = now_ms();
	m->fd = fd;
	atomic_store(&m->busy, true);
	m->job.run = take;
	p9_loop_post(p9_server_loop(l->srv, 0), &m->job);
}

void p9d_monitor_begin(struct p9d_listener *l)
{
	l->monitor.on = true;
	l->monitor.watch = l->source.fd; /* of a connection that was another p9d's, or -1 */
	l->source.fd = -1;
	l->monitor.since = now_ms();
	l->monitor.wait = FIRST_WAIT_MS;
}

void p9d_monitor_end(struct p9d_listener *l)
{
	if (l->monitor.on && l->monitor.watch >= 0) {
		close(l->monitor.watch);
	}
	l->monitor.on = false;
}
