/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_mount.c - p9 mount, p9 umount, and the ways in which mount(8) calls us.
 *
 * `p9 mount` connects and mounts in the caller's process, so that every error reaches the caller, and goes to the
 * background only once the kernel has agreed; the caller's process ends then. mount(8) runs /sbin/mount.fuse.p9 (this
 * program under another name), or, through mount.fuse(8), `p9 ADDR DIR -o OPTIONS`.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>
#include "mount/mount.h"
#include "p9/p9.h"

#define DEPTH 192 /* requests in flight */

struct job {
	const char *dir;
	bool foreground;
	struct p9_mount_opts o;
};

/* ---- the background ---- */
static int tell = -1; /* where the caller waits */

/* mountinfo writes blanks and such as \040. */
static void unescape(char *s)
{
	char *to = s;
	while (*s) {
		if (s[0] == '\\' && s[1] && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = 0;
}

/* Whether the last thing mounted on `path` is ours; and its device number, as "0:39". The directory itself is not touched. */
static bool is_ours(const char *path, char dev[24])
{
	char *line = NULL;
	size_t cap = 0;
	bool ours = false;
	FILE *f = fopen("/proc/self/mountinfo", "re");
	while (f && getline(&line, &cap, f) > 0) {
		char dir[PATH_MAX], number[24];
		const char *type = strstr(line, " - ");
		if (sscanf(line, "%*s %*s %23s %*s %4095s", number, dir) != 2 || !type) {
			continue;
		}
		unescape(dir);
		if (strcmp(dir, path) == 0) {
			ours = strncmp(type + 3, "fuse.p9 ", 8) == 0;
			memcpy(dev, number, sizeof(number));
		}
	}
	free(line);
	if (f) {
		fclose(f);
	}
	return ours;
}

/* A FUSE file system may ask for less read-ahead than the kernel's 128 KiB, not for more: that only root may set. */
static void read_ahead_more(const struct job *j)
{
	char dev[24], path[80];
	unsigned kib = (j->o.readahead ? j->o.readahead : P9_MOUNT_READAHEAD) / 1024;
	if (kib <= 128 || !is_ours(j->dir, dev)) {
		return;
	}
	snprintf(path, sizeof(path), "/sys/class/bdi/%s/read_ahead_kb", dev);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		dprintf(fd, "%u", kib);
		close(fd);
	}
}

static void ready(void *arg)
{
	const struct job *j = arg;
	read_ahead_more(j);
	int null = j->foreground ? -1 : open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		close(null);
	}
	if (!j->foreground && chdir("/") < 0) {
		syslog(LOG_WARNING, "chdir: %m");
	}
	if (tell >= 0 && write(tell, "r", 1) == 1) {
		close(tell);
		tell = -1;
	}
}

/* The caller's process: waits until the other says that all is well, and ends. */
static void wait_ready(int fd, pid_t child)
{
	char c;
	int status = 0;
	if (read(fd, &c, 1) == 1) {
		_exit(P9_EXIT_OK);
	}
	waitpid(child, &status, 0);
	_exit(P9_EXIT_FAILED);
}

static int go_background(const struct p9_cli *cli)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0) {
		return p9_cli_fail_errno(cli, "pipe", errno);
	}
	pid_t pid = fork();
	if (pid < 0) {
		return p9_cli_fail_errno(cli, "fork", errno);
	}
	if (pid > 0) {
		close(fds[1]);
		wait_ready(fds[0], pid);
	}
	close(fds[0]);
	tell = fds[1];
	setsid();
	return P9_EXIT_OK;
}

/* ---- mount ---- */
/* Says what is wrong with a mount point, before the server is bothered. */
static int check_dir(const struct p9_cli *cli, const char *dir)
{
	struct stat st;
	if (stat(dir, &st) < 0 && errno == ENOTCONN) {
		p9_cli_say(cli, "%s: something is mounted there whose program has ended; clean up with: p9 umount %s",
			   dir, dir);
		return P9_EXIT_FAILED;
	}
	if (stat(dir, &st) < 0) {
		return p9_cli_fail_errno(cli, dir, errno);
	}
	return S_ISDIR(st.st_mode) ? P9_EXIT_OK : p9_cli_fail(cli, NULL, dir, P9_ENOTDIR);
}

static int serve(struct p9_cli *cli, struct p9_mount *m, struct job *j)
{
	int code = j->foreground ? P9_EXIT_OK : go_background(cli);
	if (code == P9_EXIT_OK) {
		openlog("p9 mount", LOG_PID | (j->foreground ? LOG_PERROR : 0), LOG_DAEMON);
		int rc = p9_mount_run(m, ready, j);
		code = rc < 0 ? p9_cli_fail(cli, NULL, j->dir, rc) : P9_EXIT_OK;
	}
	p9_mount_free(m);
	return code;
}

static int mount_it(struct p9_cli *cli, struct job *j)
{
	static char real[PATH_MAX];
	char err[600];
	struct p9_client *c;
	if (!p9_mount_built_in()) {
		p9_cli_say(cli, "p9 was built without FUSE");
		return P9_EXIT_FAILED;
	}
	cli->addr = j->o.server ? j->o.server : cli->addr;
	cli->aname = j->o.aname ? j->o.aname : cli->aname;
	cli->msize = j->o.msize ? j->o.msize : cli->msize;
	cli->depth = DEPTH;
	cli->own_loop = true;
	if (!j->o.fsname && asprintf(&j->o.fsname, "%s%s%s", cli->addr, *cli->aname ? "#" : "", cli->aname) < 0) {
		j->o.fsname = NULL;
	}
	int code = check_dir(cli, j->dir);
	code = code == P9_EXIT_OK ? p9_cli_dial(cli, &c) : code;
	if (code != P9_EXIT_OK) {
		return code;
	}
	/* libfuse looks at "." and the like once more when it has mounted, and nobody would answer it. */
	j->dir = realpath(j->dir, real) ? real : j->dir;
	j->o.attached = cli->uid;
	if (!j->o.aname && *cli->aname) {
		j->o.aname = strdup(cli->aname);
	}
	struct p9_mount *m = p9_mount_new(c, j->dir, &j->o, err, sizeof(err));
	if (!m) {
		p9_cli_say(cli, "%s", err);
		p9_client_free(c);
		return P9_EXIT_FAILED;
	}
	return serve(cli, m, j);
}

static bool options(const struct p9_cli *cli, struct job *j, const char *list, bool lenient)
{
	char err[300];
	if (p9_mount_opts_parse(&j->o, list, lenient, err, sizeof(err)) < 0) {
		p9_cli_say(cli, "-o: %s", err);
		return false;
	}
	return true;
}

int p9_cmd_mount(struct p9_cli *cli, int argc, char **argv)
{
	struct job j = { 0 };
	int o, code = P9_EXIT_OK;
	p9_mount_opts_init(&j.o);
	while (code == P9_EXIT_OK && (o = getopt(argc, argv, "fo:")) != -1) {
		if (o == 'f') {
			j.foreground = true;
		} else if (o != 'o') {
			code = p9_cli_usage(cli, NULL);
		} else if (!options(cli, &j, optarg, false)) {
			code = P9_EXIT_USAGE;
		}
	}
	if (code == P9_EXIT_OK && optind != argc - 1) {
		code = p9_cli_usage(cli, "which directory?");
	}
	if (code == P9_EXIT_OK) {
		j.dir = argv[optind];
		code = mount_it(cli, &j);
	}
	p9_mount_opts_fini(&j.o);
	return code;
}

/* ADDR or ADDR#ANAME, as fstab names what is mounted. */
static bool take_source(struct job *j, const char *source)
{
	const char *hash = strrchr(source, '#');
	j->o.fsname = j->o.fsname ? j->o.fsname : strdup(source);
	if (!j->o.server) {
		j->o.server = hash ? strndup(source, (size_t)(hash - source)) : strdup(source);
	}
	if (!j->o.aname && hash) {
		j->o.aname = strdup(hash + 1);
	}
	return j->o.server != NULL;
}

int p9_mount_helper(struct p9_cli *cli, int argc, char **argv, bool lenient)
{
	struct job j = { 0 };
	bool fake = false;
	int o, code = P9_EXIT_OK;
	cli->cmd = "mount";
	p9_mount_opts_init(&j.o);
	optind = 0; /* operands may stand first, so no '+' */
	while (code == P9_EXIT_OK && (o = getopt(argc, argv, "sfnvN:o:t:")) != -1) {
		if (o == 'f') {
			fake = true;
		} else if (o == '?' || o == 'N') {
			code = P9_EXIT_USAGE;
		} else if (o == 'o' && !options(cli, &j, optarg, lenient)) {
			code = P9_EXIT_USAGE;
		}
	}
	if (code == P9_EXIT_OK && optind != argc - 2) {
		p9_cli_say(cli, "usage: mount -t fuse.p9 ADDR[#ANAME] DIR -o OPTIONS");
		code = P9_EXIT_USAGE;
	}
	if (code == P9_EXIT_OK && !fake) {
		j.dir = argv[optind + 1];
		code = take_source(&j, argv[optind]) ? mount_it(cli, &j) : P9_EXIT_FAILED;
	}
	p9_mount_opts_fini(&j.o);
	return code;
}

/* ---- umount ---- */
/* The real path of a directory that may be a mount whose program has ended: only what is above it is looked at. */
static bool real_path(const char *dir, char *out)
{
	char copy[PATH_MAX], *slash;
	snprintf(copy, sizeof(copy), "%s", dir);
	size_t n = strlen(copy);
	while (n > 1 && copy[n - 1] == '/') {
		copy[--n] = 0;
	}
	slash = strrchr(copy, '/');
	const char *name = slash ? slash + 1 : copy;
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || *name == 0) {
		return realpath(dir, out) != NULL;
	}
	char base[NAME_MAX + 1];
	snprintf(base, sizeof(base), "%s", name);
	if (slash) {
		slash[slash == copy] = 0;
	}
	if (!realpath(slash ? copy : ".", out) || strlen(out) + strlen(base) + 2 > PATH_MAX) {
		return false;
	}
	snprintf(out + strlen(out), PATH_MAX - strlen(out), "%s%s", out[1] ? "/" : "", base);
	return true;
}

/* fusermount3 itself says why it does not do it. */
static int by_fusermount(const struct p9_cli *cli, const char *path, bool lazy)
{
	int status = 0;
	pid_t pid = fork();
	if (pid == 0) {
		execlp("fusermount3", "fusermount3", lazy ? "-uz" : "-u", "--", path, (char *)NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0) {
		return p9_cli_fail_errno(cli, path, errno);
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		return P9_EXIT_OK;
	}
	bool missing = WIFEXITED(status) && WEXITSTATUS(status) == 127;
	p9_cli_say(cli, "%s: %s", path, missing ? "fusermount3 is needed to unmount it" : "is still mounted");
	return P9_EXIT_FAILED;
}

static int umount_one(const struct p9_cli *cli, const char *dir, bool lazy)
{
	char path[PATH_MAX];
	if (!real_path(dir, path)) {
		return p9_cli_fail_errno(cli, dir, errno);
	}
	char text[2], dev[24];
	if (!is_ours(path, dev) && readlink(path, text, sizeof(text)) >= 0 && !realpath(dir, path)) {
		return p9_cli_fail_errno(cli, dir, errno);
	}
	if (!is_ours(path, dev)) {
		p9_cli_say(cli, "%s: nothing of p9 is mounted there", dir);
		return P9_EXIT_FAILED;
	}
	if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0) {
		return P9_EXIT_OK;
	}
	return errno == EPERM ? by_fusermount(cli, path, lazy) : p9_cli_fail_errno(cli, dir, errno);
}

int p9_cmd_umount(struct p9_cli *cli, int argc, char **argv)
{
	int o, code = P9_EXIT_OK;
	bool lazy = false;
	while ((o = getopt(argc, argv, "l")) != -1) {
		if (o != 'l') {
			return p9_cli_usage(cli, NULL);
		}
		lazy = true;
	}
	if (optind == argc) {
		return p9_cli_usage(cli, "which directory?");
	}
	for (int i = optind; i < argc; i++) {
		int one = umount_one(cli, argv[i], lazy);
		code = one == P9_EXIT_OK ? code : one;
	}
	return code;
}
