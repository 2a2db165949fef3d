/* SPDX-License-Identifier: BSD-2-Clause */
/* cli.c - what every command of p9 does the same way: connect, complain, read sizes and users.
 *
 * All complaints go through p9_cli_say(), so that they look alike: "p9: CMD: WHAT: text (ECODE)". Names that a server
 * chose are written as they are only when nobody's terminal reads them.
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/p9.h"

#define SHOWN_MAX 1500	  /* bytes of a path in a complaint */
#define SILENCE_MS 120000 /* how long a server may be silent while it owes an answer */

volatile sig_atomic_t p9_interrupted;

void p9_cli_say(const struct p9_cli *cli, const char *fmt, ...)
{
	char text[2048];
	va_list ap;
	if (cli->quiet) {
		return;
	}
	va_start(ap, fmt);
	/* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): va_start is the line before */
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fflush(stdout);
	fputs("p9: ", stderr);
	if (cli->cmd) {
		fprintf(stderr, "%s: ", cli->cmd);
	}
	p9_show_name(stderr, text, isatty(STDERR_FILENO));
	fputc('\n', stderr);
}

int p9_cli_fail(const struct p9_cli *cli, const struct p9_client *c, const char *what, int ecode)
{
	uint32_t e = (uint32_t)(ecode < 0 ? -ecode : ecode);
	if (c && p9_client_dead(c)) {
		p9_cli_say(cli, "%s", p9_client_error(c));
	} else {
		const char *cut = strlen(what) > SHOWN_MAX ? "..." : ""; /* the cause must not be what is cut */
		p9_cli_say(cli, "%.*s%s: %s (%s)", SHOWN_MAX, what, cut, p9_error_text(e), p9_error_name(e));
	}
	return P9_EXIT_FAILED;
}

int p9_cli_fail_errno(const struct p9_cli *cli, const char *what, int host_errno)
{
	return p9_cli_fail(cli, NULL, what, p9_hosterr(host_errno));
}

static void hint_start(const struct p9_cli *cli, int rc)
{
	bool nobody = rc == -P9_ECONNREFUSED || rc == -P9_ENOENT;
	if (nobody && strncmp(cli->addr, "unix:", 5) == 0) {
		fprintf(stderr, "p9: no server is there; start one with: p9d DIR, or name another with -s ADDR\n");
	} else if (nobody && strncmp(cli->addr, "vhost-user:", 11) == 0) {
		fprintf(stderr, "p9: no server is there; start one with: p9d -l %.*s,tag=share DIR\n",
			(int)strcspn(cli->addr, ","), cli->addr);
	} else if (nobody) {
		fprintf(stderr, "p9: no server is there; start one with: p9d -l %s DIR\n", cli->addr);
	}
}

int p9_cli_dial(struct p9_cli *cli, struct p9_client **out)
{
	struct p9_client_opts o = { .aname = cli->aname,
				    .uid = cli->uid,
				    .msize = cli->msize,
				    .depth = (uint16_t)(cli->depth + 1), /* one for a Tflush */
				    .timeout_ms = cli->own_loop ? 0 : SILENCE_MS };
	const struct passwd *pw = getpwuid(cli->uid);
	const char *cmd = cli->cmd;
	struct p9_client *c = p9_client_new();
	o.uname = pw ? pw->pw_name : "";
	*out = c;
	if (!c) {
		return p9_cli_fail(cli, NULL, "connecting", P9_ENOMEM);
	}
	int rc = p9_client_dial(c, cli->addr, &o);
	if (rc >= 0) {
		return P9_EXIT_OK;
	}
	cli->cmd = NULL; /* it has not begun */
	bool refused = !p9_client_dead(c);
	if (refused) {
		p9_cli_say(cli, "%s: attach \"%s\": %s", cli->addr, cli->aname, p9_client_error(c));
	} else {
		p9_cli_say(cli, "%s", p9_client_error(c));
		hint_start(cli, rc);
	}
	cli->cmd = cmd;
	p9_client_free(c);
	*out = NULL;
	return P9_EXIT_CONNECT;
}

int p9_cli_close_stdout(const struct p9_cli *cli, int code)
{
	struct stat st;
	errno = 0;
	bool bad = ferror(stdout) || fflush(stdout) != 0;
	if (!bad) {
		return code;
	}
	int e = errno; /* 0: it happened before */
	bool pipe = fstat(STDOUT_FILENO, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode));
	if (e == 0 && !pipe) {
		p9_cli_say(cli, "standard output: could not be written");
	}
	if (e != EPIPE && e != 0) { /* whoever closed the pipe knows it */
		p9_cli_fail_errno(cli, "standard output", e);
	}
	return code == P9_EXIT_OK ? P9_EXIT_FAILED : code;
}

bool p9_cli_size(const char *text, uint64_t *size)
{
	static const char units[] = "KMGTP";
	char *end;
	if (text[0] < '0' || text[0] > '9') {
		return false;
	}
	errno = 0;
	*size = strtoull(text, &end, 10);
	if (errno) {
		return false;
	}
	const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
	unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
	end += unit != NULL;
	if (unit && end[0] == 'i' && end[1] == 'B') {
		end += 2;
	}
	if (*end || (shift && *size >> (64 - shift))) {
		return false;
	}
	*size <<= shift;
	return true;
}

static bool number32(const char *text, uint32_t *n)
{
	char *end;
	errno = 0;
	unsigned long long v = strtoull(text, &end, 10);
	*n = (uint32_t)v;
	return text[0] >= '0' && text[0] <= '9' && *end == 0 && !errno && v <= UINT32_MAX;
}

bool p9_cli_user(const char *text, uint32_t *uid)
{
	const struct passwd *pw = getpwnam(text);
	*uid = pw ? pw->pw_uid : 0;
	return pw || number32(text, uid);
}

bool p9_cli_group(const char *text, uint32_t *gid)
{
	const struct group *gr = getgrnam(text);
	*gid = gr ? gr->gr_gid : 0;
	return gr || number32(text, gid);
}

uint32_t p9_umask(void)
{
	mode_t mask = umask(0);
	umask(mask);
	return mask;
}

bool p9_path_base(const char *path, char *name)
{
	size_t end = strlen(path);
	while (end > 0 && path[end - 1] == '/') {
		end--;
	}
	size_t begin = end;
	while (begin > 0 && path[begin - 1] != '/') {
		begin--;
	}
	size_t n = end - begin;
	bool fits = n <= P9_NAMEMAX;
	n = fits ? n : 0;
	memcpy(name, path + begin, n);
	name[n] = 0;
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
		name[0] = 0;
	}
	return fits;
}

char *p9_path_join(const char *dir, const char *name)
{
	char *path;
	size_t n = strlen(dir);
	bool slash = n == 0 || dir[n - 1] == '/' || name[0] == 0;
	return asprintf(&path, "%s%s%s", dir, slash ? "" : "/", name) < 0 ? NULL : path;
}

static void on_signal(int sig)
{
	p9_interrupted = sig;
}

void p9_catch_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}
