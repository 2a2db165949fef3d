/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c - p9d: from options to a running server, and back.
 *
 * Order: options, exports (their mounts need privileges), sockets, then threads. The main thread only waits for
 * signals; everything else happens on the server's threads.
 */
#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/log.h"
#include "p9d/p9d.h"

#define LISTEN_FDS_START 3
#define STOP_MS 900 /* SIGTERM ends within a second */

static struct p9d_config conf;
static struct p9d_listener listeners[P9D_LISTEN_MAX];
static unsigned nlisteners;

static void raise_descriptor_limit(void)
{
	struct rlimit rl;
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}

/* Writes must clear setuid bits whoever asks, so nobody here ever has CAP_FSETID. */
static void drop_fsetid(void)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2];
	prctl(PR_CAPBSET_DROP, CAP_FSETID, 0, 0, 0);
	if (syscall(SYS_capget, &h, d) == 0) {
		d[0].effective &= ~(1u << CAP_FSETID);
		d[0].permitted &= ~(1u << CAP_FSETID);
		d[0].inheritable &= ~(1u << CAP_FSETID);
		syscall(SYS_capset, &h, d);
	}
}

static int decide_identity(void)
{
	bool root = geteuid() == 0;
	conf.server.users = conf.identity ? strcmp(conf.identity, "users") == 0 : root;
	if (conf.server.users && !root) {
		fprintf(stderr, "p9d: --identity users: acting as other users needs root; --identity single works\n");
		return 2;
	}
	return 0;
}

static int open_exports(struct p9_server *srv)
{
	for (unsigned i = 0; i < conf.nexports; i++) {
		struct p9d_export *e = &conf.exports[i];
		char why[512];
		if (p9_local_open(&e->local, &e->root, why, sizeof(why)) < 0) {
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
		if (p9_server_export(srv, &e->conf) < 0) {
			fprintf(stderr, "p9d: --export %s: out of memory\n", e->name);
			return 1;
		}
	}
	return 0;
}

/* Sockets from a service manager: sd_listen_fds(3)'s protocol, a few lines of it. */
static int take_passed_sockets(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	if (!pid || !fds || atol(pid) != (long)getpid()) {
		return 0;
	}
	int n = atoi(fds);
	for (int i = 0; i < n && nlisteners < P9D_LISTEN_MAX; i++) {
		if (p9d_listen_passed(&listeners[nlisteners], &conf, LISTEN_FDS_START + i) < 0) {
			return 1;
		}
		nlisteners++;
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	return 0;
}

static int open_listeners(void)
{
	char def[256];
	if (take_passed_sockets() != 0) {
		return 1;
	}
	for (unsigned i = 0; i < conf.nlisten && nlisteners < P9D_LISTEN_MAX; i++) {
		if (p9d_listen(&listeners[nlisteners], &conf, conf.listen[i]) < 0) {
			return 1;
		}
		nlisteners++;
	}
	if (nlisteners == 0) {
		p9_addr_default(def, sizeof(def));
		if (p9d_listen(&listeners[nlisteners], &conf, def) < 0) {
			return 1;
		}
		nlisteners++;
	}
	return 0;
}

static void close_listeners(void)
{
	for (unsigned i = 0; i < nlisteners; i++) {
		p9d_listen_close(&listeners[i]);
	}
}

static bool only_descriptors(void)
{
	for (unsigned i = 0; i < nlisteners; i++) {
		if (listeners[i].passed || listeners[i].source.fd >= 0 || listeners[i].addr.connect) {
			return false;
		}
	}
	return true;
}

/* How a user gets at it, on one line. */
static void say_hello(void)
{
	const struct p9d_listener *l = &listeners[0];
	const char *name = conf.nexports == 1 ? conf.exports[0].name : "/";
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

static int wait_for_end(struct p9_server *srv, const sigset_t *set)
{
	bool ends_with_link = only_descriptors(), ticks = ends_with_link;
	struct timespec tick = { .tv_nsec = P9D_TICK_MS * 1000000 };
	for (unsigned i = 0; i < nlisteners; i++) {
		ticks |= listeners[i].monitor.on;
	}
	for (;;) {
		int sig = ticks ? sigtimedwait(set, NULL, &tick) : sigwaitinfo(set, NULL);
		for (unsigned i = 0; i < nlisteners; i++) {
			p9d_monitor_tick(&listeners[i]);
		}
		if (sig == SIGUSR1) {
			print_stats(srv);
		} else if (sig == SIGTERM || sig == SIGINT) {
			p9_log(P9_LOG_INFO, "ending on %s", sig == SIGTERM ? "SIGTERM" : "SIGINT");
			return 0;
		} else if (ends_with_link && sig < 0 && p9_server_conns(srv) == 0) {
			return 0;
		}
	}
}

static int serve(struct p9_server *srv, const sigset_t *set)
{
	for (unsigned i = 0; i < conf.nexports; i++) {
		p9_local_set_tree(conf.exports[i].root, NULL);
	}
	for (unsigned i = 0; i < nlisteners; i++) {
		int rc = p9d_listen_start(&listeners[i], srv);
		if (rc < 0) {
			fprintf(stderr, "p9d: --listen %s: %s (%s)\n", listeners[i].text, p9_error_text((uint32_t)-rc),
				p9_error_name((uint32_t)-rc));
			return 1;
		}
	}
	if (p9_server_start(srv) < 0) {
		fprintf(stderr, "p9d: cannot start threads\n");
		return 1;
	}
	say_hello();
	int rc = wait_for_end(srv, set);
	/* the names go first, so that a new server can take them while we finish */
	for (unsigned i = 0; i < nlisteners; i++) {
		p9d_listen_unlink(&listeners[i]);
	}
	if (!p9_server_stop(srv, STOP_MS)) {
		p9_log(P9_LOG_WARN, "some file system calls hang; ending without them");
		_exit(rc);
	}
	return rc;
}

static void prepare_process(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGUSR1);
	sigprocmask(SIG_BLOCK, set, NULL); /* threads inherit it: only the main thread takes them */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	umask(0); /* modes are the client's */
	raise_descriptor_limit();
}

int main(int argc, char **argv)
{
	sigset_t set;
	struct p9_server *srv = NULL;
	int rc = p9d_config_read(&conf, argc, argv);
	if (rc == 0 && (conf.help || conf.version || conf.capabilities)) {
		if (conf.capabilities) {
			printf("{ \"type\": \"9p\", \"features\": [] }\n");
		} else if (conf.help) {
			p9d_usage();
		} else {
			printf("p9d %s\n", P9_VERSION);
		}
		p9d_config_free(&conf);
		return 0;
	}
	rc = rc ? rc : decide_identity();
	if (rc != 0) {
		p9d_config_free(&conf);
		return rc;
	}
	prepare_process(&set);
	if (p9_server_new(&conf.server, &srv) < 0) {
		fprintf(stderr, "p9d: out of memory or descriptors\n");
		p9d_config_free(&conf);
		return 1;
	}
	rc = open_exports(srv);
	rc = rc ? rc : open_listeners();
	drop_fsetid();
	rc = rc ? rc : serve(srv, &set);
	close_listeners();
	p9_server_free(srv);
	p9d_config_free(&conf);
	return rc;
}
