/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_lock.c - p9 lock: holds a byte range of a file while a command runs.
 *
 * The server lets the lock go when the connection ends, so that giving up while waiting (^C, -w) is to close it. While
 * the command runs the link is looked after once a second by a Tgetattr: when it is lost, so is the lock; that is said,
 * and the command gets SIGTERM, for it relies on what it no longer has.
 * Must stay true: no signal but SIGKILL ends p9 before the command has ended, or the command would go on without the lock.
 * A server that answers BLOCKED to a request that may wait (QEMU, diod) is asked again, less and less often.
 */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/p9.h"

#define TICK_US 200000
#define LOOK_SECONDS 1
#define AGAIN_MS_MIN 20
#define AGAIN_MS_MAX 1000

struct lock {
	struct p9_call call;
	struct p9_cli *cli;
	struct p9_client *client;
	const char *path;
	uint32_t fid;
	bool shared, no_wait, limited;
	double seconds; /* -w */
	uint64_t start, length;
	char host[65];
	bool in_flight, lost;
	int error;
	uint8_t status;
};

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- taking it ---- */
static struct p9_tlock request(struct lock *l, uint8_t type)
{
	return (struct p9_tlock){ .fid = l->fid,
				  .type = type,
				  .flags = l->no_wait || type == P9_LOCK_TYPE_UNLCK ? 0 : P9_LOCK_FLAGS_BLOCK,
				  .start = l->start,
				  .length = l->length,
				  .proc_id = (uint32_t)getpid(),
				  .client_id = { l->host, (uint16_t)strlen(l->host) } };
}

static void on_lock(struct p9_call *call, const struct p9_msg *r)
{
	struct lock *l = (struct lock *)call;
	l->in_flight = false;
	l->error = r->type == P9_Rlerror ? -(int)r->rlerror.ecode : 0;
	l->status = r->type == P9_Rlerror ? P9_LOCK_ERROR : r->rlock.status;
}

static bool given_up(const struct lock *l, double until)
{
	return p9_interrupted || (l->limited && now() >= until);
}

/* One Tlock. A signal, also that of the timer, ends each step. */
static int ask(struct lock *l, double until)
{
	struct p9_msg t = { .type = P9_Tlock,
			    .tlock = request(l, l->shared ? P9_LOCK_TYPE_RDLCK : P9_LOCK_TYPE_WRLCK) };
	l->call = (struct p9_call){ .done = on_lock, .patient = true };
	int rc = p9_client_send(l->client, &t, NULL, &l->call);
	l->in_flight = rc >= 0;
	while (rc >= 0 && l->in_flight && !given_up(l, until)) {
		rc = p9_client_step(l->client);
	}
	if (rc < 0 || !l->in_flight) {
		return rc < 0 ? rc : l->error;
	}
	return p9_interrupted ? -P9_EINTR : -P9_EAGAIN;
}

static void rest(unsigned ms)
{
	struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };
	nanosleep(&t, NULL); /* a signal may end it early */
}

static int take(struct lock *l)
{
	double until = now() + l->seconds;
	unsigned ms = AGAIN_MS_MIN;
	for (;;) {
		double begun = now();
		int rc = ask(l, until);
		if (rc < 0 || l->status == P9_LOCK_SUCCESS) {
			return rc;
		}
		if (l->status == P9_LOCK_ERROR) {
			return -P9_EIO;
		}
		if (l->no_wait || given_up(l, until)) {
			return p9_interrupted ? -P9_EINTR : -P9_EAGAIN;
		}
		if (now() - begun < 1) {
			rest(ms);
			ms = 2 * ms < AGAIN_MS_MAX ? 2 * ms : AGAIN_MS_MAX;
		}
	}
}

/* Somebody else has it: say who, if the server knows. */
static void say_busy(struct lock *l)
{
	struct p9_tgetlock ask = { .fid = l->fid,
				   .type = l->shared ? P9_LOCK_TYPE_RDLCK : P9_LOCK_TYPE_WRLCK,
				   .start = l->start,
				   .length = l->length,
				   .proc_id = (uint32_t)getpid(),
				   .client_id = { l->host, (uint16_t)strlen(l->host) } };
	struct p9_rgetlock found;
	int rc = l->in_flight ? -P9_EAGAIN : p9_client_getlock(l->client, &ask, &found);
	if (rc >= 0 && found.type != P9_LOCK_TYPE_UNLCK) {
		p9_cli_say(l->cli, "%s: locked by process %u of \"%.*s\"", l->path, found.proc_id,
			   (int)found.client_id.len, found.client_id.s);
	} else {
		p9_cli_say(l->cli, "%s: locked by somebody else", l->path);
	}
}

static int create(struct lock *l)
{
	char name[256];
	int rc = p9_client_walk_parent(l->client, l->path, &l->fid, name);
	rc = rc < 0 ? rc : p9_client_lcreate(l->client, l->fid, name, P9_O_RDWR | P9_O_CREAT, 0666 & ~p9_umask());
	return rc;
}

static int open_file(struct lock *l)
{
	int rc = p9_client_walk(l->client, l->path, P9_WALK_FOLLOW, &l->fid);
	if (rc == -P9_ENOENT) {
		return create(l);
	}
	return rc < 0 ? rc : p9_client_lopen(l->client, l->fid, l->shared ? P9_O_RDONLY : P9_O_RDWR, NULL);
}

/* ---- the command ---- */
static void on_tick(int sig)
{
}

/* Ends a poll that waits for the server from time to time, so that signals are never missed for long. */
static void start_ticks(bool on)
{
	struct sigaction sa = { .sa_handler = on_tick };
	struct timeval t = { 0, on ? TICK_US : 0 };
	struct itimerval it = { t, t };
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &it, NULL);
}

/* What somebody sends to p9 and means for the command; a terminal sends the others to both. */
static const int passed_on[] = { SIGTERM, SIGHUP };
static const int outlived[] = { SIGTERM, SIGHUP, SIGINT, SIGQUIT };
static volatile sig_atomic_t came[NSIG];

static void on_outlived(int sig)
{
	came[sig] = 1;
}

/* What the caller had p9 ignore stays ignored, also by the command. */
static void outlive_signals(void)
{
	struct sigaction sa = { .sa_handler = on_outlived }, old;
	for (size_t i = 0; i < P9_COUNT(outlived); i++) {
		if (sigaction(outlived[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
			sigaction(outlived[i], &sa, NULL);
		}
	}
}

static void run_child(const struct lock *l, char **argv, const sigset_t *mask)
{
	struct sigaction old;
	for (size_t i = 0; i < P9_COUNT(outlived); i++) {
		if (sigaction(outlived[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
			signal(outlived[i], SIG_DFL);
		}
	}
	sigprocmask(SIG_SETMASK, mask, NULL);
	signal(SIGPIPE, SIG_DFL);
	execvp(argv[0], argv);
	int e = errno;
	p9_cli_fail_errno(l->cli, argv[0], e);
	_exit(e == ENOENT ? 127 : 126);
}

static void on_alive(struct p9_call *call, const struct p9_msg *r)
{
	((struct lock *)call)->in_flight = false;
}

/* Is the server still there? Asks when nobody is asking, and takes what has come. */
static void look_after_link(struct lock *l, double *next, pid_t child)
{
	struct p9_msg t = { .type = P9_Tgetattr, .tgetattr = { .fid = l->fid, .request_mask = P9_GETATTR_MODE } };
	int rc = 0;
	if (l->lost) {
		return;
	}
	if (!l->in_flight && now() >= *next) {
		l->call = (struct p9_call){ .done = on_alive };
		*next = now() + LOOK_SECONDS;
		rc = p9_client_send(l->client, &t, NULL, &l->call);
		l->in_flight = rc >= 0;
	}
	if (rc >= 0 && l->in_flight) {
		rc = p9_client_step(l->client);
	}
	if (rc < 0) {
		l->lost = true;
		p9_cli_say(l->cli, "%s: the lock is lost: %s", l->path, p9_client_error(l->client));
		kill(child, SIGTERM);
	}
}

static void pass_on(pid_t child)
{
	for (size_t i = 0; i < P9_COUNT(passed_on); i++) {
		if (came[passed_on[i]]) {
			came[passed_on[i]] = 0;
			kill(child, passed_on[i]);
		}
	}
}

/* Waits for the command. SIGCHLD is blocked, so that it is never missed. */
static int await(struct lock *l, pid_t child)
{
	sigset_t chld;
	int status;
	double next = now() + LOOK_SECONDS;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	while (waitpid(child, &status, WNOHANG) == 0) {
		struct timespec t = { 0, TICK_US * 1000 };
		pass_on(child);
		look_after_link(l, &next, child);
		if (!l->in_flight) {
			sigtimedwait(&chld, NULL, &t);
		}
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run_command(struct lock *l, char **argv)
{
	sigset_t chld, all, old;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &old); /* none gets lost between fork and exec */
	outlive_signals();
	fflush(NULL);
	pid_t child = p9_interrupted ? -1 : fork();
	if (child == 0) {
		run_child(l, argv, &old);
	}
	int forked = p9_interrupted ? EINTR : errno;
	sigprocmask(SIG_SETMASK, &old, NULL);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	if (child < 0) {
		return p9_cli_fail_errno(l->cli, argv[0], forked);
	}
	int code = await(l, child);
	if (!l->lost && !l->in_flight) {
		struct p9_tlock unlock = request(l, P9_LOCK_TYPE_UNLCK);
		uint8_t status;
		int rc = p9_client_lock(l->client, &unlock, &status);
		if (rc < 0 && p9_client_dead(l->client)) {
			l->lost = true;
			p9_cli_fail(l->cli, l->client, l->path, rc);
		}
	}
	return l->lost ? P9_EXIT_FAILED : code;
}

static int hold(struct lock *l, char **argv)
{
	int rc = open_file(l);
	if (rc < 0) {
		return p9_cli_fail(l->cli, l->client, l->path, rc);
	}
	p9_catch_signals();
	start_ticks(true);
	rc = take(l);
	if (rc == -P9_EAGAIN && !p9_client_dead(l->client)) {
		say_busy(l);
		return P9_EXIT_FAILED;
	}
	if (rc < 0) {
		return p9_cli_fail(l->cli, l->client, l->path, rc);
	}
	return run_command(l, argv);
}

static bool take_range(struct lock *l, const char *text)
{
	char off[32];
	const char *colon = strchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : strlen(text);
	if (n >= sizeof(off)) {
		return false;
	}
	memcpy(off, text, n);
	off[n] = 0;
	bool ok = p9_cli_size(off, &l->start) && (!colon || p9_cli_size(colon + 1, &l->length));
	return ok && l->start <= INT64_MAX && l->length <= INT64_MAX - l->start;
}

static bool take_option(struct lock *l, int o)
{
	char *end;
	switch (o) {
	case 'x':
	case 's':
		l->shared = o == 's';
		return true;
	case 'n':
		l->no_wait = true;
		return true;
	case 'w':
		l->limited = true;
		l->seconds = strtod(optarg, &end);
		return end != optarg && *end == 0 && isfinite(l->seconds) && l->seconds >= 0;
	case 'r':
		return take_range(l, optarg);
	default:
		return false;
	}
}

int p9_cmd_lock(struct p9_cli *cli, int argc, char **argv)
{
	static const struct option longs[] = { { "range", required_argument, NULL, 'r' }, { 0 } };
	struct lock l = { .cli = cli };
	int o;
	while ((o = getopt_long(argc, argv, "+xsnw:", longs, NULL)) != -1) {
		if (!take_option(&l, o)) {
			return p9_cli_usage(cli, o == 'w'   ? "-w wants seconds"
						 : o == 'r' ? "--range wants OFFSET[:LENGTH]"
							    : NULL);
		}
	}
	if (argc - optind < 2) {
		return p9_cli_usage(cli, "a file and a command");
	}
	l.path = argv[optind];
	if (gethostname(l.host, sizeof(l.host) - 1) < 0) {
		strcpy(l.host, "p9");
	}
	int code = p9_cli_dial(cli, &l.client);
	if (code == P9_EXIT_OK) {
		code = hold(&l, argv + optind + 1);
		start_ticks(false);
		p9_client_free(l.client);
	}
	return code;
}
