/* SPDX-License-Identifier: BSD-2-Clause */
/* hangfs.c - a FUSE file system that stops answering when it is told to; bench/hang.py exports it.
 *
 * usage: hangfs GATE MOUNTPOINT
 *
 * It shows eight small read-only files, hang0 to hang7, in one directory. While the file GATE exists every operation
 * waits in here, as it would on a network file system whose server is gone; when GATE is removed all go on. Nothing
 * is cached by the kernel (all timeouts are 0), so that every system call on the mount arrives here. It runs in the
 * foreground, with as many threads as there are waiting operations, and ends when it is unmounted.
 */
#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fuse.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FILES = 8, SIZE = 4096 };

static const char *gate_path;

static void gate(void)
{
	const struct timespec nap = { 0, 2000000 };
	while (access(gate_path, F_OK) == 0) {
		nanosleep(&nap, NULL);
	}
}

/* Number of the file, or -1. */
static int file_of(const char *path)
{
	return strlen(path) == 6 && strncmp(path, "/hang", 5) == 0 && path[5] >= '0' && path[5] < '0' + FILES
		       ? path[5] - '0'
		       : -1;
}

static int hang_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	(void)fi;
	gate();
	memset(st, 0, sizeof(*st));
	if (strcmp(path, "/") == 0) {
		st->st_mode = S_IFDIR | 0755;
		st->st_nlink = 2;
		return 0;
	}
	st->st_mode = S_IFREG | 0644;
	st->st_nlink = 1;
	st->st_size = SIZE;
	return file_of(path) < 0 ? -ENOENT : 0;
}

static int hang_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off, struct fuse_file_info *fi,
			enum fuse_readdir_flags flags)
{
	(void)path;
	(void)off;
	(void)fi;
	(void)flags;
	gate();
	for (int i = 0; i < FILES; i++) {
		char name[] = "hang0";
		name[4] = (char)('0' + i);
		fill(buf, name, NULL, 0, 0);
	}
	return 0;
}

static int hang_open(const char *path, struct fuse_file_info *fi)
{
	gate();
	fi->direct_io = 1; /* reads come here, every time */
	return file_of(path) < 0 ? -ENOENT : 0;
}

static int hang_read(const char *path, char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)path;
	(void)fi;
	gate();
	if (off >= SIZE) {
		return 0;
	}
	size = size < (size_t)(SIZE - off) ? size : (size_t)(SIZE - off);
	memset(buf, 'h', size);
	return (int)size;
}

static int hang_statfs(const char *path, struct statvfs *st)
{
	(void)path;
	gate();
	memset(st, 0, sizeof(*st));
	st->f_bsize = SIZE;
	return 0;
}

static void *hang_init(struct fuse_conn_info *conn, struct fuse_config *cfg)
{
	(void)conn;
	cfg->attr_timeout = cfg->entry_timeout = cfg->negative_timeout = 0;
	return NULL;
}

int main(int argc, char **argv)
{
	static const struct fuse_operations ops = { .getattr = hang_getattr,
						    .readdir = hang_readdir,
						    .open = hang_open,
						    .read = hang_read,
						    .statfs = hang_statfs,
						    .init = hang_init };
	if (argc != 3) {
		fputs("usage: hangfs GATE MOUNTPOINT\n", stderr);
		return 2;
	}
	gate_path = argv[1];
	char *args[] = { argv[0], "-f", argv[2], NULL };
	return fuse_main(3, args, &ops, NULL);
}
