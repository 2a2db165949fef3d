/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c - p9d: from options to a running server, and back.
 *
 * Order: options, what another p9d gives (takeover.c), exports (their mounts need privileges), sockets, then threads. The
 * main thread only waits, for signals and for another p9d that takes over (control.c); everything else happens on the
 * server's threads.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/log.h"
#include "p9d/handover.h"

#define LISTEN_FDS_START 3
#define STOP_MS 900	  /* SIGTERM ends within a second */
#define DESCRIPTORS 65536 /* that the table is made for: half a MiB */

static struct p9d d = { .control = -1, .stop = -1, .ends = -1 };

static void raise_descriptor_limit(void)
{
	struct rlimit rl;
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}

/* Makes the kernel's table of our descriptors as large as it may become, while there is one thread: to grow that of a process
 * with threads it waits for all processors (fs/file.c, expand_fdtable), 10 ms for each doubling, in the middle of somebody's Twalk. */
static void widen_descriptor_table(void)
{
	struct rlimit rl;
	int last = -1;
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		int most = rl.rlim_cur < DESCRIPTORS ? (int)rl.rlim_cur : DESCRIPTORS;
		last = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, most - 1);
	}
	if (last >= 0) {
		close(last);
	}
}

/* Writes must clear setuid bits whoever asks, so nobody here ever has CAP_FSETID. */
static void drop_fsetid(void)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct c[2];
	prctl(PR_CAPBSET_DROP, CAP_FSETID, 0, 0, 0);
	if (syscall(SYS_capget, &h, c) == 0) {
		c[0].effective &= ~(1u << CAP_FSETID);
		c[0].permitted &= ~(1u << CAP_FSETID);
		c[0].inheritable &= ~(1u << CAP_FSETID);
		syscall(SYS_capset, &h, c);
	}
}

static int decide_identity(void)
{
	bool root = geteuid() == 0;
	d.conf.server.users = d.conf.identity ? strcmp(d.conf.identity, "users") == 0 : root;
	if (d.conf.server.users && !root) {
		fprintf(stderr, "p9d: --identity users: acting as other users needs root; --identity single works\n");
		return 2;
	}
	return 0;
}

static int open_exports(void)
{
	for (unsigned i = 0; i < d.conf.nexports; i++) {
		struct p9d_export *e = &d.conf.exports[i];
		char why[512];
		if (d.from && p9d_old_root(&d.from->old, e) < 0) {
			return 1;
		}
		if (!e->root && p9_local_open(&e->local, &e->root, why, sizeof(why)) < 0) {
			fprintf(stderr, "p9d: --export %s: %s\n", e->name, why);
			return 1;
		}
		e->conf.name = e->name;
		e->conf.backend = &p9_local;
		e->conf.root = e->root;
		e->conf.ro = e->local.ro;
		e->conf.ro_below = p9_local_contained(e->root);
		if (!p9_local_contained(e->root)) {
			p9_log(P9_LOG_DEBUG, "export %s: without CAP_SYS_ADMIN, \"..\" is checked by p9d itself",
			       e->name);
		}
		if (!p9_local_contained(e->root) && !e->local.submounts) {
			p9_log(P9_LOG_WARN, "export %s: nosub needs CAP_SYS_ADMIN and has no effect here", e->name);
		}
		if (p9_server_export(d.srv, &e->conf) < 0) {
			fprintf(stderr, "p9d: --export %s: out of memory\n", e->name);
			return 1;
		}
	}
	return d.from ? p9d_old_check(&d.from->old) < 0 : 0;
}

/* Sockets that another p9d has had from a service manager: there is no other way to get them. */
static int take_old_passed(struct p9d_old *old)
{
	for (unsigned i = 0; i < old->nlisteners && d.nlisteners < P9D_LISTEN_MAX; i++) {
		struct p9d_old_listener *o = &old->listeners[i];
		if (!o->passed || o->fd < 0) {
			continue;
		}
		o->taken = true;
		if (p9d_listen_passed(&d.listeners[d.nlisteners++], &d.conf, o->fd) < 0) {
			return 1;
		}
		snprintf(d.listeners[d.nlisteners - 1].text, sizeof(o->text), "%s", o->text);
	}
	return 0;
}

static int open_listener(const char *text)
{
	struct p9d_old_listener *o = d.from ? p9d_old_listener(&d.from->old, text) : NULL;
	struct p9d_listener *l = &d.listeners[d.nlisteners++];
	if (!o) {
		return p9d_listen(l, &d.conf, text) < 0;
	}
	o->taken = true;
	l->file_inherited = o->unlink_path;
	l->dev = o->dev;
	l->ino = o->ino;
	return p9d_listen_inherited(l, &d.conf, text, o->fd) < 0;
}

/* Whether the socket is one that the p9d before us has given already. */
static bool have_socket(int fd)
{
	struct stat a, b;
	bool have = false;
	for (unsigned i = 0; fstat(fd, &a) == 0 && i < d.nlisteners && !have; i++) {
		have = fstat(d.listeners[i].source.fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
	}
	return have;
}

/* Sockets from a service manager: sd_listen_fds(3)'s protocol, a few lines of it. */
static int take_passed_sockets(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	if (!pid || !fds || atol(pid) != (long)getpid()) {
		return 0;
	}
	int n = atoi(fds);
	for (int i = 0; i < n && d.nlisteners < P9D_LISTEN_MAX; i++) {
		if (have_socket(LISTEN_FDS_START + i)) {
			close(LISTEN_FDS_START + i);
			continue;
		}
		if (p9d_listen_passed(&d.listeners[d.nlisteners], &d.conf, LISTEN_FDS_START + i) < 0) {
			return 1;
		}
		d.nlisteners++;
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	return 0;
}

static int open_listeners(void)
{
	char def[256];
	int rc = d.from ? take_old_passed(&d.from->old) : 0;
	rc = rc ? rc : take_passed_sockets();
	for (unsigned i = 0; rc == 0 && i < d.conf.nlisten && d.nlisteners < P9D_LISTEN_MAX; i++) {
		rc = open_listener(d.conf.listen[i]);
	}
	if (rc == 0 && d.nlisteners == 0) {
		p9_addr_default(def, sizeof(def));
		rc = open_listener(def);
	}
	return rc;
}

static void close_listeners(void)
{
	for (unsigned i = 0; i < d.nlisteners; i++) {
		p9d_listen_close(&d.listeners[i]);
	}
}

static bool only_descriptors(void)
{
	for (unsigned i = 0; i < d.nlisteners; i++) {
		const struct p9d_listener *l = &d.listeners[i];
		if (l->passed || l->source.fd >= 0 || l->addr.connect) {
			return false;
		}
	}
	return true;
}

/* How a user gets at it, on one line. */
static void say_hello(void)
{
	const struct p9d_listener *l = &d.listeners[0];
	const char *name = d.conf.nexports == 1 ? d.conf.exports[0].name : "/";
	if (l->addr.kind == P9_ADDR_UNIX && !l->passed) {
		p9_log(P9_LOG_INFO,
		       "sharing %s on %s; list: p9 -s %s ls; mount: mount -t 9p -o "
		       "trans=unix,version=9p2000.L,aname=%s %s /mnt",
		       name, l->text, l->text, name, l->addr.path);
	} else if (l->addr.kind == P9_ADDR_TCP && !l->passed) {
		p9_log(P9_LOG_INFO,
		       "sharing %s on %s; list: p9 -s %s ls; mount: mount -t 9p -o "
		       "trans=tcp,version=9p2000.L,port=%s,aname=%s %s /mnt",
		       name, l->text, l->text, l->addr.port, name, l->addr.host);
	} else if (l->addr.kind == P9_ADDR_VHOST) {
		p9_log(P9_LOG_INFO,
		       "sharing %s as a device with tag %s on %s; in the guest: mount -t 9p -o "
		       "trans=virtio,version=9p2000.L,msize=512000 %s /mnt",
		       l->addr.export[0] ? l->addr.export : name, l->vhost.tag, l->text, l->vhost.tag);
	} else {
		p9_log(P9_LOG_INFO, "sharing %s on %s", name, l->text);
	}
}

/* In one write: whoever reads the log sees all of it or nothing. */
static void print_stats(struct p9_server *srv)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	if (!f) {
		return;
	}
	p9_server_stats(srv, f);
	if (fclose(f) == 0 && write(STDERR_FILENO, text, len) < 0) {
		p9_log(P9_LOG_DEBUG, "counters could not be printed");
	}
	free(text);
}

/* Returns false when it is time to end. */
static bool on_signal(void)
{
	struct signalfd_siginfo info;
	if (read(d.stop, &info, sizeof(info)) != (ssize_t)sizeof(info)) {
		return true;
	}
	if (info.ssi_signo == SIGUSR1) {
		print_stats(d.srv);
		return true;
	}
	p9_log(P9_LOG_INFO, "ending on %s", info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
	return false;
}

static void wait_for_end(void)
{
	bool ends_with_link = only_descriptors(), ticks = ends_with_link;
	for (unsigned i = 0; i < d.nlisteners; i++) {
		ticks |= d.listeners[i].monitor.on;
	}
	for (bool go_on = true; go_on;) {
		struct pollfd p[2] = { { d.stop, POLLIN, 0 }, { d.control, POLLIN, 0 } };
		for (unsigned i = 0; i < d.nlisteners; i++) {
			p9d_monitor_tick(&d.listeners[i]);
		}
		int n = poll(p, 2, ticks ? P9D_TICK_MS : -1);
		if (n > 0 && p[1].revents) {
			p9d_control_ready(&d);
		}
		if (n > 0 && p[0].revents) {
			go_on = on_signal();
		} else if (ends_with_link && p9_server_conns(d.srv) == 0) {
			go_on = false;
		}
	}
}

static int start_listeners(void)
{
	for (unsigned i = 0; i < d.nlisteners; i++) {
		int rc = p9d_listen_start(&d.listeners[i], d.srv);
		if (rc < 0) {
			fprintf(stderr, "p9d: --listen %s: %s (%s)\n", d.listeners[i].text,
				p9_error_text((uint32_t)-rc), p9_error_name((uint32_t)-rc));
			return 1;
		}
	}
	return 0;
}

/* With whatever another p9d has given: nothing moves before that one ends. */
static int start_server(void)
{
	static const struct p9_patience at_once = { 1000, NULL, NULL };
	char why[200];
	int rc = p9_server_start(d.srv);
	if (rc < 0) {
		fprintf(stderr, "p9d: cannot start threads: %s (%s)\n", p9_error_text((uint32_t)-rc),
			p9_error_name((uint32_t)-rc));
		return 1;
	}
	if (d.from) {
		if (p9_server_freeze(d.srv, &at_once, why, sizeof(why)) < 0) {
			p9d_takeover_fail(&d, why);
		}
		p9d_takeover_finish(&d);
		p9_server_thaw(d.srv);
		p9d_control_open(&d);
	} else {
		p9d_notify();
	}
	return 0;
}

static int serve(void)
{
	for (unsigned i = 0; i < d.conf.nexports; i++) {
		p9_local_set_tree(d.conf.exports[i].root, NULL);
	}
	if (!d.from) { /* else its name may still be the other one's */
		p9d_control_open(&d);
	}
	int rc = d.from ? 0 : start_listeners();
	rc = rc ? rc : start_server();
	if (rc) {
		p9d_control_close(&d);
		return rc;
	}
	say_hello();
	p9d_tell_starter();
	wait_for_end();
	/* the names go first, so that a new server can take them while we finish */
	p9d_control_close(&d);
	for (unsigned i = 0; i < d.nlisteners; i++) {
		p9d_listen_unlink(&d.listeners[i]);
	}
	if (!p9_server_stop(d.srv, STOP_MS)) {
		p9_log(P9_LOG_WARN, "some file system calls hang; ending without them");
		_exit(0);
	}
	return 0;
}

static int prepare_process(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	d.ends = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL); /* threads inherit it: only the main thread takes them */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	umask(0); /* modes are the client's */
	raise_descriptor_limit();
	widen_descriptor_table();
	d.stop = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return d.stop < 0 || d.ends < 0 || p9_server_new(&d.conf.server, &d.srv) < 0 ? -1 : 0;
}

/* The one before us has its sockets still, and says nothing of ours. */
static void leave_old(void)
{
	if (d.from) {
		p9d_takeover_leave(&d);
		p9d_old_close(&d.from->old, false);
		p9_unpack_fini(&d.from->u);
		free(d.from->fds);
	}
}

int main(int argc, char **argv)
{
	int rc = p9d_config_read(&d.conf, argc, argv);
	if (rc == 0 && (d.conf.help || d.conf.version || d.conf.capabilities)) {
		if (d.conf.capabilities) {
			printf("{ \"type\": \"9p\", \"features\": [] }\n");
		} else if (d.conf.help) {
			p9d_usage();
		} else {
			printf("p9d %s\n", P9_VERSION);
		}
		p9d_config_free(&d.conf);
		return 0;
	}
	rc = rc ? rc : decide_identity();
	if (rc != 0) {
		p9d_config_free(&d.conf);
		return rc;
	}
	if ((d.conf.background && p9d_background() < 0) || prepare_process() < 0) {
		fprintf(stderr, "p9d: out of memory or descriptors\n");
		p9d_config_free(&d.conf);
		return 1;
	}
	rc = d.conf.takeover ? p9d_takeover_begin(&d) : 0;
	rc = rc ? rc : open_exports();
	rc = rc ? rc : open_listeners();
	drop_fsetid();
	rc = rc ? rc : serve();
	close_listeners();
	leave_old();
	p9_server_free(d.srv);
	p9d_config_free(&d.conf);
	return rc;
}
