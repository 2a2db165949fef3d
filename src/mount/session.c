/* SPDX-License-Identifier: BSD-2-Clause */
/* session.c - the mount's life: what is agreed with the server and with the kernel, and the loop between them.
 *
 * One thread and one poll(2) for /dev/fuse, the connection and signals. Requests of the kernel are taken until there are
 * no more, then everything goes to the server in one system call. When the connection has ended the loop goes on, and
 * answers everything with an error, until somebody unmounts.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <syslog.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "mount/internal.h"

#define BACKGROUND 64u
#define TURN 64 /* requests of the kernel taken before the server has its turn */
#define TURNS 64
#define PROBES 8
#define LOOKS 8 /* for a reply, between two looks at what the kernel asks */

static const struct fuse_lowlevel_ops *operations(void);

bool p9_mount_built_in(void)
{
	return true;
}

/* ---- agreeing with the server ---- */
struct probe {
	struct p9_call call; /* first */
	bool *failed;
	uint32_t fid; /* that it makes; P9_NOFID: none, or the server did not */
	unsigned number, *next;
};

static void in_turn(struct p9_call *call, const struct p9_msg *reply)
{
	struct probe *p = (struct probe *)call;
	*p->failed |= reply->type == P9_Rlerror || p->number != (*p->next)++;
}

static void probe_done(struct p9_call *call, const struct p9_msg *reply)
{
	struct probe *p = (struct probe *)call;
	if (reply->type == P9_Rlerror) {
		*p->failed = true;
		p->fid = P9_NOFID;
	}
}

static int send_probe(struct p9_mount *m, struct probe *p, struct p9_msg *t)
{
	p->call = (struct p9_call){ .done = probe_done };
	return p9_client_send(m->client, t, NULL, &p->call);
}

static int wait_for_all(struct p9_mount *m)
{
	int rc = 0;
	while (p9_client_pending(m->client) && !p9_client_dead(m->client)) {
		int step = p9_client_step(m->client);
		rc = step < 0 ? step : rc;
	}
	return rc;
}

/* A walk, a walk from where it leads, and a look there: three requests that need each other. */
static int send_probes(struct p9_mount *m, struct probe p[3])
{
	uint32_t from = m->root.fid;
	for (unsigned k = 0; k < 2; k++) {
		int rc = p9_client_fid(m->client, &p[k].fid);
		struct p9_msg walk = { .type = P9_Twalk, .twalk = { .fid = from, .newfid = p[k].fid } };
		rc = rc < 0 ? rc : send_probe(m, &p[k], &walk);
		if (rc < 0) {
			p[k].fid = P9_NOFID;
			return rc;
		}
		from = p[k].fid;
	}
	struct p9_msg look = { .type = P9_Tgetattr, .tgetattr = { .fid = from, .request_mask = P9_MOUNT_ATTRS } };
	return send_probe(m, &p[2], &look);
}

/* Many requests for one fid: a server whose threads take them as they come answers out of turn. Sets *failed then. */
static int probe_turns(struct p9_mount *m, bool *failed)
{
	struct probe p[TURNS];
	unsigned next = 0;
	int rc = 0;
	for (unsigned i = 0; i < TURNS && rc >= 0; i++) {
		struct p9_msg look = { .type = P9_Tgetattr,
				       .tgetattr = { .fid = m->root.fid, .request_mask = P9_MOUNT_ATTRS } };
		p[i] = (struct probe){ .call = { .done = in_turn }, .failed = failed, .number = i, .next = &next };
		rc = p9_client_send(m->client, &look, NULL, &p[i].call);
	}
	int end = wait_for_all(m);
	return end < 0 ? end : rc < 0 ? rc : 0;
}

/* Requests in a row that need each other, and are not waited for: does the server take them in order? Only asked of one that
 * answers in turn, for a diod 1.0 crashes now and then when a thread uses a fid that another is just making. */
static int probe_order(struct p9_mount *m)
{
	struct probe p[PROBES][3];
	bool failed = false;
	if (m->o.nopipeline) {
		return 0;
	}
	int rc = probe_turns(m, &failed);
	if (failed || rc < 0) {
		return rc;
	}
	for (unsigned i = 0; i < PROBES; i++) {
		for (unsigned k = 0; k < 3; k++) {
			p[i][k] = (struct probe){ .failed = &failed, .fid = P9_NOFID };
		}
		rc = rc < 0 || failed ? rc : send_probes(m, p[i]);
		rc = rc < 0 || i > 0 ? rc : wait_for_all(m); /* the first alone: most will not need a second */
	}
	int end = wait_for_all(m);
	m->ordered = !failed;
	for (unsigned i = 0; i < PROBES * 3 && rc >= 0 && end >= 0; i++) {
		struct probe *q = &p[i / 3][i % 3];
		struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = q->fid } };
		rc = q->fid == P9_NOFID ? rc : send_probe(m, q, &t);
	}
	rc = end < 0 ? end : rc;
	end = wait_for_all(m);
	return end < 0 ? end : rc < 0 ? rc : 0;
}

static int learn_root(struct p9_mount *m)
{
	struct p9_rgetattr a;
	int rc = p9_client_getattr(m->client, p9_client_root(m->client), P9_MOUNT_ATTRS, &a);
	rc = rc < 0 ? rc : p9_mattr_check(&a);
	struct p9_qid qid = p9_client_root_qid(m->client);
	if (rc >= 0 && (!S_ISDIR(a.mode) || !(qid.type & P9_QTDIR))) {
		rc = -P9_ENOTDIR;
	}
	rc = rc < 0 ? rc : p9_minode_init(m, &a.qid);
	if (rc >= 0) {
		m->root.mode = a.mode;
		m->root.gid = a.gid;
	}
	return rc < 0 ? rc : probe_order(m);
}

static void choose_client_id(struct p9_mount *m)
{
	char host[48] = "p9";
	uint64_t salt = 0;
	gethostname(host, sizeof(host) - 1);
	if (getrandom(&salt, sizeof(salt), 0) < 0) {
		salt = (uint64_t)getpid();
	}
	snprintf(m->client_id, sizeof(m->client_id), "%s:%016llx", host, (unsigned long long)salt);
}

/* ---- agreeing with the kernel ---- */
static void do_init(void *userdata, struct fuse_conn_info *c)
{
	static const unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS |
				       FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
				       FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_DIO | FUSE_CAP_HANDLE_KILLPRIV;
	struct p9_mount *m = userdata;
	bool loose = m->o.cache == P9_CACHE_LOOSE;
	unsigned most = m->o.max_read ? m->o.max_read : P9_MOUNT_IO;
	c->want = wanted & c->capable;
	c->want |= (loose ? FUSE_CAP_CACHE_SYMLINKS : FUSE_CAP_AUTO_INVAL_DATA) & c->capable;
	c->want |= m->o.writeback ? FUSE_CAP_WRITEBACK_CACHE & c->capable : 0;
	m->o.writeback = m->o.writeback && (c->capable & FUSE_CAP_WRITEBACK_CACHE);
	c->max_write = c->max_write < most ? c->max_write : most;
	c->max_read = most;
	c->max_readahead = m->o.readahead ? m->o.readahead : P9_MOUNT_READAHEAD;
	c->max_background = BACKGROUND;
	c->congestion_threshold = BACKGROUND * 3 / 4;
	m->inited = true;
}

static const struct fuse_lowlevel_ops *operations(void)
{
	static struct fuse_lowlevel_ops ops;
	ops.init = do_init;
	p9_mop_node(&ops);
	p9_mop_tree(&ops);
	p9_mop_open(&ops);
	p9_mop_io(&ops);
	p9_mop_dir(&ops);
	p9_mop_xattr(&ops);
	p9_mop_lock(&ops);
	return &ops;
}

/* A comma in a value is written "\,". */
static void put_escaped(FILE *f, const char *text)
{
	for (; *text; text++) {
		if (*text == ',' || *text == '\\') {
			fputc('\\', f);
		}
		fputc(*text, f);
	}
}

/* The option list for libfuse, which takes from it what is the kernel's and what is fusermount3's. NULL without memory. */
static char *fuse_options(const struct p9_mount_opts *o)
{
	char *list = NULL;
	size_t n;
	FILE *f = open_memstream(&list, &n);
	if (!f) {
		return NULL;
	}
	fprintf(f, "subtype=p9,fsname=");
	put_escaped(f, o->fsname ? o->fsname : "p9");
	fprintf(f, ",max_read=%u%s%s", o->max_read ? o->max_read : P9_MOUNT_IO,
		o->permissions ? ",default_permissions" : "", o->fuse ? o->fuse : "");
	if (fclose(f) != 0) {
		free(list);
		return NULL;
	}
	return list;
}

static int attach_kernel(struct p9_mount *m, const char *dir)
{
	char *list = fuse_options(&m->o);
	char *argv[] = { "p9", "-o", list, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	if (!list) {
		return -P9_ENOMEM;
	}
	m->se = fuse_session_new(&args, operations(), sizeof(struct fuse_lowlevel_ops), m);
	fuse_opt_free_args(&args);
	free(list);
	if (!m->se) {
		return -P9_EINVAL;
	}
	if (fuse_session_mount(m->se, dir) != 0) {
		return -P9_EPERM;
	}
	m->mounted = true;
	int fd = fuse_session_fd(m->se);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	return 0;
}

struct p9_mount *p9_mount_new(struct p9_client *c, const char *dir, const struct p9_mount_opts *o, char *err,
			      size_t cap)
{
	struct p9_mount *m = calloc(1, sizeof(*m));
	if (!m) {
		snprintf(err, cap, "%s", p9_error_text(P9_ENOMEM));
		return NULL;
	}
	m->client = c;
	m->o = *o;
	p9_mount_reqs_init(m);
	choose_client_id(m);
	int rc = learn_root(m);
	if (rc < 0) {
		snprintf(err, cap, "the server's root: %s (%s)", p9_error_text((uint32_t)-rc),
			 p9_error_name((uint32_t)-rc));
	} else {
		rc = attach_kernel(m, dir);
		snprintf(err, cap, "%s: cannot be mounted on", dir); /* libfuse has said why */
	}
	if (rc < 0) {
		m->client = NULL; /* still the caller's */
		p9_mount_free(m);
		return NULL;
	}
	return m;
}

void p9_mount_free(struct p9_mount *m)
{
	if (!m) {
		return;
	}
	p9_mount_reqs_abort(m);
	if (m->mounted) {
		fuse_session_unmount(m->se);
	}
	p9_client_free(m->client);
	m->client = NULL;
	p9_mahead_fini(m);
	p9_mount_reqs_fini(m);
	p9_minode_fini(m);
	if (m->se) {
		fuse_session_destroy(m->se);
	}
	free(m);
}

/* ---- the loop ---- */
/* Takes the kernel's requests. Returns false when it has unmounted. */
static bool take_requests(struct p9_mount *m)
{
	m->asked = true;
	bool busy = p9_client_pending(m->client) > 0;
	for (int i = 0; i < TURN; i++) {
		if (!m->in.mem && m->nins) {
			m->in.mem = m->ins[--m->nins];
		}
		int n = fuse_session_receive_buf(m->se, &m->in);
		if (n == -EAGAIN || n == -EINTR) {
			return true;
		}
		if (n <= 0) {
			return false;
		}
		fuse_session_process_buf(m->se, &m->in);
		if (!busy) { /* a program by itself: it waits for the answer before there is another */
			return true;
		}
	}
	return true;
}

/* Moves the connection's bytes until nothing is left to be sent now. */
static void talk(struct p9_mount *m)
{
	for (int i = 0; i < TURN && !p9_client_dead(m->client); i++) {
		p9_mount_pump(m);
		int rc = p9_client_work(m->client);
		bool more = (m->queue || (m->nclunks && m->free_clunks)) && rc > 0;
		if (!more) {
			break;
		}
	}
	p9_mount_pump(m);
	if (p9_client_dead(m->client) && !m->dead_said) {
		m->dead_said = true;
		syslog(LOG_ERR, "%s", p9_client_error(m->client));
	}
}

static bool kernel_asks(void *arg)
{
	const struct p9_mount *m = arg;
	struct pollfd v = { fuse_session_fd(m->se), POLLIN, 0 };
	return poll(&v, 1, 0) > 0;
}

/* Looks for replies until time is over or the kernel asks. Returns whether one came. */
static bool look_until(struct p9_mount *m, uint64_t until)
{
	for (unsigned looks = 1; p9_spin_clock() < until; looks++) {
		p9_spin_yield();
		if (p9_client_work(m->client) != 0) {
			return true;
		}
		if ((looks % LOOKS == 0 || m->fetching) && kernel_asks(m)) {
			m->spin.since = 0;
			return false;
		}
	}
	p9_spin_missed(&m->spin);
	m->spin.since = 0;
	return false;
}

/* A server on this machine answers sooner than a process can be put to sleep and woken, so that its reply is looked for
 * before it is waited for (base/spin.h). */
static void look(struct p9_mount *m)
{
	while (m->o.busy_poll > 0 && !p9_client_dead(m->client) && p9_client_pending(m->client) > 0) {
		uint64_t until = p9_spin_begin(&m->spin);
		if (until == 0 || !look_until(m, until)) {
			break;
		}
		p9_spin_end(&m->spin, true);
		talk(m);
	}
}

/* A program that was answered at once has its next question sooner than this process sleeps and is woken. Looks for it, and
 * answers, a number of times. Returns false when the kernel has unmounted. */
static bool look_for_requests(struct p9_mount *m)
{
	for (int i = 0; i < TURN && m->o.busy_poll > 0; i++) {
		bool quiet = !m->queue && !m->nclunks && !m->fetching && p9_client_pending(m->client) == 0;
		if (!m->asked || !quiet || p9_client_dead(m->client)) {
			break;
		}
		m->asked = false;
		if (!p9_spin_look(&m->spin_asks, kernel_asks, m)) {
			break;
		}
		if (!take_requests(m)) {
			return false;
		}
		talk(m);
		look(m);
	}
	return true;
}

static int signals(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* Returns false when it is to end. */
static bool on_signal(const struct p9_mount *m, int fd)
{
	struct signalfd_siginfo s;
	if (read(fd, &s, sizeof(s)) != (ssize_t)sizeof(s)) {
		return true;
	}
	if (s.ssi_signo == SIGUSR1) {
		syslog(LOG_INFO, "%zu inodes, %zu fids, %zu to be clunked, %u in flight, %s", m->ninodes, m->nfids,
		       m->nclunks, p9_client_pending(m->client), m->ordered ? "in order" : "one by one");
		return true;
	}
	return false;
}

static int sooner(int a, int b)
{
	return a < 0 ? b : b < 0 || a < b ? a : b;
}

int p9_mount_run(struct p9_mount *m, void (*ready)(void *arg), void *arg)
{
	int sig = signals(), rc = 0;
	if (sig < 0) {
		return p9_err();
	}
	m->spin.most = m->spin_asks.most = m->o.busy_poll * 1000;
	for (;;) {
		struct pollfd v[4] = { { fuse_session_fd(m->se), POLLIN, 0 }, { sig, POLLIN, 0 } };
		int wait = -1, mine = p9_mount_timers(m); /* which may send */
		unsigned n = p9_client_dead(m->client) ? 0 : p9_client_poll(m->client, v + 2, &wait);
		wait = sooner(wait, mine);
		int k = poll(v, 2 + n, wait);
		if (k < 0 && errno != EINTR) {
			rc = p9_err();
			break;
		}
		bool heard = v[2].revents || v[3].revents || k == 0;
		p9_spin_slept(&m->spin_asks); /* how long it took tells when looking would have paid */
		if ((v[1].revents && !on_signal(m, sig)) || (v[0].revents && !take_requests(m))) {
			break;
		}
		if (heard || p9_client_pending(m->client) > 0 || m->queue || m->nclunks) {
			talk(m);
			look(m);
		}
		if (!look_for_requests(m)) {
			break;
		}
		if (ready && m->inited) {
			ready(arg);
			ready = NULL;
		}
	}
	close(sig);
	return rc;
}
