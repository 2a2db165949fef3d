/* SPDX-License-Identifier: BSD-2-Clause */
/* tree.c - see tree.h. Everything belongs to `nobody` when we are root: the server under test works as that user. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "gen.h"
#include "tree.h"

#define NOBODY 65534
static char top[64], root[80];
static int root_fd = -1;
static pid_t owner;

static void empty(int dir)
{
	int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || unlinkat(dir, e->d_name, 0) == 0) {
			continue;
		}
		fchmodat(dir, e->d_name, 0700, 0);
		int sub = openat(dir, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub >= 0) {
			empty(sub);
			close(sub);
		}
		unlinkat(dir, e->d_name, AT_REMOVEDIR);
		rewinddir(d);
	}
	if (d) {
		closedir(d);
	}
}

static void file(int dir, const char *name, size_t size, mode_t mode)
{
	static char text[20000];
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	memset(text, 'x', sizeof(text));
	FZ_CHECK(fd >= 0 && write(fd, text, size) == (ssize_t)size, "%s", name);
	close(fd);
}

static void give(int dir)
{
	static const char *const names[] = {
		".", "f", "d", "d/sub", "d/sub/leaf", "big", "empty", "fifo", "sl", "out"
	};
	for (size_t i = 0; geteuid() == 0 && i < sizeof(names) / sizeof(names[0]); i++) {
		if (fchownat(dir, names[i], NOBODY, NOBODY, AT_SYMLINK_NOFOLLOW) < 0) {
			perror(names[i]);
			abort();
		}
	}
}

void fz_tree_reset(void)
{
	static const char *const xattrs[] = { "user.a", "user.b", "user.", "system.posix_acl_access",
					      "system.posix_acl_default" };
	mode_t old = umask(0);
	for (size_t i = 0; i < sizeof(xattrs) / sizeof(xattrs[0]); i++) {
		fremovexattr(root_fd, xattrs[i]);
	}
	fchmod(root_fd, 0755);
	empty(root_fd);
	file(root_fd, "f", 6, 0644);
	file(root_fd, "big", 20000, 0644);
	file(root_fd, "empty", 0, 0600);
	FZ_CHECK(mkdirat(root_fd, "d", 0755) == 0 && mkdirat(root_fd, "d/sub", 0755) == 0, "mkdir");
	file(root_fd, "d/sub/leaf", 5, 0644);
	FZ_CHECK(symlinkat("f", root_fd, "sl") == 0 && symlinkat("../canary", root_fd, "out") == 0, "symlink");
	FZ_CHECK(linkat(root_fd, "f", root_fd, "hl", 0) == 0 && mkfifoat(root_fd, "fifo", 0644) == 0, "link, mkfifo");
	give(root_fd);
	umask(old);
}

static void clean_up(void)
{
	if (getpid() == owner) { /* not in a child of -fork or -merge */
		char path[100];
		empty(root_fd);
		rmdir(root);
		snprintf(path, sizeof(path), "%s/canary", top);
		unlink(path);
		rmdir(top);
	}
}

int fz_tree_canary(void)
{
	char path[100];
	struct stat st, up;
	snprintf(path, sizeof(path), "%s/canary", top);
	return stat(path, &st) == 0 && st.st_size == 7 && (st.st_mode & 07777) == 0666 && st.st_nlink == 1 &&
	       stat(top, &up) == 0 && up.st_nlink == 3;
}

const char *fz_tree_new(void)
{
	const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	owner = getpid();
	snprintf(top, sizeof(top), "%s/p9-fuzz-%d", base, (int)owner);
	snprintf(root, sizeof(root), "%s/root", top);
	mode_t old = umask(0);
	FZ_CHECK(mkdir(top, 0777) == 0 && mkdir(root, 0755) == 0, "%s", top);
	umask(old);
	root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	FZ_CHECK(root_fd >= 0 && fd >= 0, "%s", root);
	old = umask(0);
	file(fd, "canary", 7, 0666);
	umask(old);
	close(fd);
	atexit(clean_up);
	fz_tree_reset();
	return root;
}
