/* SPDX-License-Identifier: BSD-2-Clause */
/* vfs_vfs_test.c - the mount table: paths, prefixes, listings, files, and what does not go across mounts. */
#include "p9/vfs.h"
#include "unit/vfs_world.h"
#include "vfs/vfs.h"

static struct world one, two;
static struct p9_vfs *v;

static int begin(void **state)
{
	struct p9_session_conf conf = { .uname = "test", .uid = getuid(), .gid = getgid() };
	struct p9_vfs_conf vc = { .mounts = 4, .files = 5 };
	size_t n = p9_vfs_memory(&vc);
	(void)state;
	world_count_fds(true);
	world_begin(&one);
	world_dial(&one);
	world_start(&one, &conf);
	world_begin(&two);
	world_dial(&two);
	world_start(&two, &conf);
	void *mem = aligned_alloc(16, n);
	memset(mem, 0xa5, n);
	assert_int_equal(p9_vfs_init(&v, &vc, mem, n - 1), -P9_ENOMEM);
	assert_int_equal(p9_vfs_init(&v, &vc, mem, n), 0);
	return 0;
}

static int end(void **state)
{
	(void)state;
	for (struct world *w = &one; w; w = w == &one ? &two : NULL) {
		assert_int_equal(p9_session_drain(w->s[0]), 0);
		assert_int_equal(p9_session_fids(w->s[0]), 1);
	}
	free(v);
	world_end(&one);
	world_end(&two);
	world_count_fds(false);
	return 0;
}

static void mount_both(void)
{
	assert_int_equal(p9_vfs_mount(v, "/", one.s[0]), 0);
	assert_int_equal(p9_vfs_mount(v, "/host", two.s[0]), 0);
}

/* path, in order; NULL: refused */
static void order(void **state)
{
	static const char *const table[][2] = {
		{ "/", "/" },
		{ "//", "/" },
		{ "/..", "/" },
		{ "/../..", "/" },
		{ "/.", "/" },
		{ "/a", "/a" },
		{ "/a/", "/a/" },
		{ "/a//", "/a/" },
		{ "/a/.", "/a/" },
		{ "/a/..", "/" },
		{ "/a/../", "/" },
		{ "/a/b/..", "/a/" },
		{ "/a/./b//c/../d", "/a/b/d" },
		{ "/...", "/..." },
		{ "/.a/..b", "/.a/..b" },
		{ "/a/../../b", "/b" },
		{ "a", NULL },
		{ "", NULL },
		{ ".", NULL },
	};
	char text[P9_VFS_PATH];
	unsigned len;
	(void)state;
	for (size_t i = 0; i < P9T_COUNT(table); i++) {
		int rc = p9_vfs_order(table[i][0], text, &len);
		assert_int_equal(rc, table[i][1] ? 0 : -P9_EINVAL);
		if (rc == 0) {
			assert_string_equal(text, table[i][1]);
			size_t full = strlen(text);
			assert_int_equal(len, text[full - 1] == '/' ? full - 1 : full);
		}
	}
	/* the longest that fits, and one more; the buffer's end is watched */
	for (unsigned n = P9_VFS_PATH - 40; n < P9_VFS_PATH + 40; n++) {
		char *path = malloc(n + 2), *exact = malloc(P9_VFS_PATH);
		for (unsigned i = 0; i < n; i++) {
			path[i] = i % 100 ? 'x' : '/';
		}
		strcpy(path + n, "/");
		int rc = p9_vfs_order(path, exact, &len);
		assert_int_equal(rc, n + 2 <= P9_VFS_PATH ? 0 : -P9_ENAMETOOLONG);
		free(path);
		free(exact);
	}
}

static void table(void **state)
{
	struct p9_session *s;
	(void)state;
	assert_null(p9_vfs_mounted(v, 0, NULL));
	mount_both();
	assert_int_equal(p9_vfs_mount(v, "//host/.", one.s[0]), -P9_EBUSY);
	assert_int_equal(p9_vfs_mount(v, "host", one.s[0]), -P9_EINVAL);
	assert_int_equal(p9_vfs_mount(v, "/a/b/c/", two.s[0]), 0);
	assert_int_equal(p9_vfs_mount(v, "/a/b", two.s[0]), 0);
	assert_int_equal(p9_vfs_mount(v, "/e", two.s[0]), -P9_ENOSPC);
	assert_string_equal(p9_vfs_mounted(v, 0, &s), "/");
	assert_ptr_equal(s, one.s[0]);
	assert_string_equal(p9_vfs_mounted(v, 2, NULL), "/a/b/c");
	assert_int_equal(p9_vfs_unmount(v, "/a"), -P9_EINVAL);
	assert_int_equal(p9_vfs_unmount(v, "/a/b/../../host"), 0);
	assert_int_equal(p9_vfs_unmount(v, "/host"), -P9_EINVAL);
	assert_string_equal(p9_vfs_mounted(v, 1, NULL), "/a/b/c");
	assert_null(p9_vfs_mounted(v, 3, NULL));
	assert_int_equal(p9_vfs_mount(v, "/again", two.s[0]), 0);
	char path[400];
	memset(path, 'm', sizeof(path));
	path[0] = '/';
	path[P9_VFS_MOUNT_PATH] = 0;
	assert_int_equal(p9_vfs_unmount(v, "/again"), 0);
	assert_int_equal(p9_vfs_mount(v, path, two.s[0]), -P9_ENAMETOOLONG);
	path[P9_VFS_MOUNT_PATH - 1] = 0;
	assert_int_equal(p9_vfs_mount(v, path, two.s[0]), 0);
	assert_string_equal(p9_vfs_mounted(v, 1, NULL), path);
}

static void longest_prefix(void **state)
{
	char b[16];
	(void)state;
	mount_both();
	assert_int_equal(p9_vfs_mount(v, "/host/deep/er", one.s[0]), 0);
	assert_int_equal(p9_vfs_write_file(v, "/hosts", "one", 3, 0644), 0);
	assert_int_equal(p9_vfs_write_file(v, "/host/f", "two", 3, 0644), 0);
	assert_int_equal(p9_vfs_mkdir(v, "/host/deeper", 0755), 0);
	assert_int_equal(p9_vfs_write_file(v, "/host/deeper/f", "2", 1, 0644), 0);
	assert_int_equal(access(host(&one, "hosts"), F_OK), 0);
	assert_int_equal(access(host(&two, "f"), F_OK), 0);
	assert_int_equal(access(host(&two, "deeper/f"), F_OK), 0);
	assert_int_equal(p9_vfs_read_file(v, "/host/deep/er/hosts", b, 16), 3);
	assert_memory_equal(b, "one", 3);
	assert_int_equal(p9_vfs_read_file(v, "/host/deep/er/../../f", b, 16), 3);
	assert_memory_equal(b, "two", 3);
	assert_int_equal(p9_vfs_read_file(v, "/host/deep/er/../../../hosts", b, 16), 3);
	assert_int_equal(p9_vfs_read_file(v, "/host/f/", b, 16), -P9_ENOTDIR);
	/* a link is the business of its session */
	assert_int_equal(p9_vfs_symlink(v, "/f", "/host/link"), 0);
	assert_int_equal(p9_vfs_read_file(v, "/host/link", b, 16), 3);
	assert_memory_equal(b, "two", 3);
	assert_int_equal(p9_vfs_append(v, "/host/link", "2", 1, 0644), 0);
	assert_int_equal(p9_vfs_read_file(v, "/host/f", b, 16), 4);
	assert_int_equal(p9_vfs_readlink(v, "/host/link", b, 16), 2);
	struct p9_rgetattr st;
	assert_int_equal(p9_vfs_lstat(v, "/host/link", &st), 0);
	assert_int_equal(st.mode & S_IFMT, S_IFLNK);
}

static void without_directories(void **state)
{
	struct p9_rgetattr st, again;
	struct p9_rstatfs fs;
	char b[4];
	(void)state;
	assert_int_equal(p9_vfs_stat(v, "/", &st), 0);
	assert_int_equal(p9_vfs_stat(v, "/x", &st), -P9_ENOENT);
	assert_int_equal(p9_vfs_mount(v, "/x/y/z", one.s[0]), 0);
	assert_int_equal(p9_vfs_stat(v, "/x", &st), 0);
	assert_int_equal(st.mode, 0040555);
	assert_int_equal(p9_vfs_stat(v, "/x/y/", &again), 0);
	assert_true(st.qid.path != again.qid.path);
	assert_int_equal(p9_vfs_stat(v, "/x/../x", &again), 0);
	assert_true(st.qid.path == again.qid.path);
	assert_int_equal(p9_vfs_stat(v, "/x/y/z", &st), 0);
	assert_true(st.mode & 0200);
	assert_int_equal(p9_vfs_stat(v, "/x/no", &st), -P9_ENOENT);
	assert_int_equal(p9_vfs_mkdir(v, "/x", 0755), -P9_EEXIST);
	assert_int_equal(p9_vfs_mkdir(v, "/x/y/z", 0755), -P9_EEXIST);
	assert_int_equal(p9_vfs_mkdir(v, "/x/new", 0755), -P9_EROFS);
	assert_int_equal(p9_vfs_open(v, "/x/new", P9_O_CREAT | P9_O_WRONLY, 0644), -P9_EROFS);
	assert_int_equal(p9_vfs_open(v, "/x/new", P9_O_RDONLY, 0), -P9_ENOENT);
	assert_int_equal(p9_vfs_open(v, "/x/y", P9_O_RDONLY, 0), -P9_EISDIR);
	assert_int_equal(p9_vfs_write_file(v, "/new", "", 0, 0644), -P9_EROFS);
	assert_int_equal(p9_vfs_read_file(v, "/x", b, 4), -P9_EISDIR);
	assert_int_equal(p9_vfs_remove(v, "/x"), -P9_EBUSY);
	assert_int_equal(p9_vfs_rmdir(v, "/x/y/z"), -P9_EBUSY);
	assert_int_equal(p9_vfs_chmod(v, "/x", 0700), -P9_EROFS);
	assert_int_equal(p9_vfs_chmod(v, "/q", 0700), -P9_ENOENT);
	assert_int_equal(p9_vfs_statfs(v, "/x", &fs), -P9_EOPNOTSUPP);
	/* with a session on top that does not have them either */
	assert_int_equal(p9_vfs_mount(v, "/", two.s[0]), 0);
	assert_int_equal(p9_vfs_stat(v, "/x/y", &st), 0);
	assert_int_equal(st.mode, 0040555);
	assert_int_equal(p9_vfs_write_file(v, "/x/y/z/f", "1", 1, 0644), 0);
	assert_int_equal(p9_vfs_mkdir(v, "/x/new", 0755), -P9_ENOENT);
	/* and with one that has */
	assert_int_equal(mkdir(host(&two, "x"), 0711), 0);
	assert_int_equal(p9_vfs_stat(v, "/x", &st), 0);
	assert_int_equal(st.mode, 0040711);
	assert_int_equal(p9_vfs_mkdir(v, "/x/new", 0755), 0);
	assert_int_equal(p9_vfs_rename(v, "/x", "/other"), -P9_EBUSY);
	assert_int_equal(p9_vfs_rename(v, "/x/new", "/x/y"), -P9_EBUSY);
}

/* ---- listings ---- */
struct names {
	char text[1000];
	unsigned with_st;
	const char *unmount;
	unsigned gone; /* times that unmount was done */
};

static int note(void *arg, const struct p9_entry *e)
{
	struct names *n = arg;
	size_t len = strlen(n->text);
	snprintf(n->text + len, sizeof(n->text) - len, "%.*s%s ", (int)e->name.len, e->name.s,
		 e->qid.type & P9_QTDIR ? "/" : "");
	n->with_st += e->st != NULL;
	if (n->unmount) {
		n->gone += p9_vfs_unmount(v, n->unmount) == 0;
	}
	return 0;
}

static const char *listing(const char *path, bool sizes)
{
	static struct names n;
	n = (struct names){ 0 };
	struct p9_lister l = { .each = note, .arg = &n, .sizes = sizes };
	int rc = p9_vfs_list(v, path, &l);
	unsigned count = 0;
	for (const char *p = n.text; *p; p++) {
		count += *p == ' ';
	}
	assert_int_equal(n.with_st, sizes ? count : 0);
	return rc < 0 ? p9_error_name((uint32_t)-rc) : n.text;
}

static void listings(void **state)
{
	(void)state;
	assert_string_equal(listing("/", true), "");
	assert_string_equal(listing("/x", true), "ENOENT");
	assert_int_equal(p9_vfs_mount(v, "/a/b", two.s[0]), 0);
	assert_int_equal(p9_vfs_mount(v, "/a/c", two.s[0]), 0);
	assert_int_equal(p9_vfs_mount(v, "/ab", two.s[0]), 0);
	assert_string_equal(listing("/", false), "a/ ab/ ");
	assert_string_equal(listing("/a", true), "b/ c/ ");
	assert_int_equal(p9_vfs_mount(v, "/", one.s[0]), 0);
	assert_string_equal(listing("/", true), "a/ ab/ ");
	assert_string_equal(listing("/a/", false), "b/ c/ ");
	assert_int_equal(mkdir(host(&one, "a"), 0755), 0); /* now it has one: shown once */
	assert_int_equal(mkdir(host(&one, "a/b"), 0755), 0);
	assert_int_equal(mkdir(host(&one, "a/d"), 0755), 0);
	assert_int_equal(p9_vfs_write_file(v, "/ab/f", "", 0, 0644), 0);
	assert_string_equal(listing("/", true), "a/ ab/ ");
	assert_string_equal(listing("/a", true), "d/ b/ c/ ");
	assert_string_equal(listing("/a/b", true), "f ");
	assert_string_equal(listing("/ab/f", true), "ENOTDIR");
	/* a mount in use stays; another may go while it is being listed */
	struct names n = { .unmount = "/" };
	struct p9_lister l = { .each = note, .arg = &n };
	assert_int_equal(p9_vfs_list(v, "/a", &l), 0);
	assert_int_equal(n.gone, 1); /* the last entries are no session's */
	assert_int_equal(p9_vfs_mount(v, "/", one.s[0]), 0);
	n = (struct names){ .unmount = "/a/b" };
	assert_int_equal(p9_vfs_list(v, "/a/b", &l), 0);
	assert_int_equal(n.gone, 0);
	n = (struct names){ .unmount = "/a/b" };
	assert_int_equal(p9_vfs_list(v, "/a", &l), 0);
	assert_int_equal(n.gone, 1);
	assert_string_equal(n.text, "d/ c/ ");
}

static void files(void **state)
{
	int fd[5];
	char b[32];
	struct p9_rgetattr st;
	(void)state;
	mount_both();
	assert_int_equal(p9_vfs_open(v, "/no", P9_O_RDONLY, 0), -P9_ENOENT);
	for (int i = 0; i < 5; i++) {
		snprintf(b, sizeof(b), i % 2 ? "/f%d" : "/host/f%d", i);
		fd[i] = p9_vfs_open(v, b, P9_O_CREAT | P9_O_RDWR, 0644);
		assert_int_equal(fd[i], i);
		assert_int_equal(p9_vfs_write(v, i, b, strlen(b)), strlen(b));
	}
	assert_int_equal(p9_vfs_open(v, "/more", P9_O_CREAT | P9_O_RDWR, 0644), -P9_EMFILE);
	assert_int_equal(p9_vfs_unmount(v, "/host"), -P9_EBUSY);
	assert_int_equal(p9_vfs_read(v, 1, b, 10), 0);
	assert_int_equal(p9_vfs_seek(v, 1, 1, P9_SEEK_SET), 1);
	assert_int_equal(p9_vfs_read(v, 1, b, 1), 1);
	assert_int_equal(b[0], 'f');
	assert_int_equal(p9_vfs_seek(v, 1, 0, P9_SEEK_CUR), 2);
	assert_int_equal(p9_vfs_seek(v, 1, -1, P9_SEEK_END), 2);
	assert_int_equal(p9_vfs_seek(v, 1, -4, P9_SEEK_END), -P9_EINVAL);
	assert_int_equal(p9_vfs_seek(v, 1, INT64_MAX, P9_SEEK_END), -P9_EINVAL);
	assert_int_equal(p9_vfs_seek(v, 1, INT64_MAX, P9_SEEK_SET), INT64_MAX);
	assert_int_equal(p9_vfs_pread(v, 2, &(struct p9_vfs_span){ b, 4, 1 }), 4);
	assert_memory_equal(b, "host", 4);
	assert_int_equal(p9_vfs_pwrite(v, 2, &(struct p9_vfs_span){ b, 4, 100 }), 4);
	assert_int_equal(p9_vfs_fstat(v, 2, &st), 0);
	assert_int_equal(st.size, 104);
	assert_int_equal(p9_vfs_ftruncate(v, 2, 1), 0);
	assert_int_equal(p9_vfs_fsync(v, 2, true), 0);
	assert_int_equal(p9_vfs_close(v, 2), 0);
	assert_int_equal(p9_vfs_close(v, 2), -P9_EBADF);
	assert_int_equal(p9_vfs_read(v, 2, b, 1), -P9_EBADF);
	assert_int_equal(p9_vfs_write(v, -1, b, 1), -P9_EBADF);
	assert_int_equal(p9_vfs_fstat(v, 5, &st), -P9_EBADF);
	assert_int_equal(p9_vfs_open(v, "/f1", P9_O_RDONLY, 0), 2); /* the smallest number */
	assert_int_equal(p9_vfs_write(v, 2, b, 1), -P9_EBADF);
	assert_int_equal(p9_vfs_close(v, 2), 0);
	assert_int_equal(p9_vfs_open(v, "/f1", P9_O_WRONLY | P9_O_APPEND, 0), 2);
	assert_int_equal(p9_vfs_read(v, 2, b, 1), -P9_EBADF);
	assert_int_equal(p9_vfs_write(v, 2, "++", 2), 2);
	assert_int_equal(p9_vfs_seek(v, 2, 0, P9_SEEK_SET), 0);
	assert_int_equal(p9_vfs_write(v, 2, "--", 2), 2);
	assert_int_equal(p9_vfs_seek(v, 2, 0, P9_SEEK_CUR), 7);
	assert_int_equal(p9_vfs_read_file(v, "/f1", b, sizeof(b)), 7);
	assert_memory_equal(b, "/f1++--", 7);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(p9_vfs_close(v, i), 0);
	}
	assert_int_equal(p9_vfs_unmount(v, "/host"), 0);
}

static void across(void **state)
{
	struct p9_time t[2] = { { 1, 0 }, { 2, 0 } };
	struct p9_rgetattr st;
	struct p9_rstatfs fs;
	char b[16];
	(void)state;
	mount_both();
	assert_int_equal(p9_vfs_write_file(v, "/f", "f", 1, 0644), 0);
	assert_int_equal(p9_vfs_rename(v, "/f", "/host/f"), -P9_EXDEV);
	assert_int_equal(p9_vfs_link(v, "/f", "/host/f"), -P9_EXDEV);
	assert_int_equal(p9_vfs_rename(v, "/f", "/g"), 0);
	assert_int_equal(p9_vfs_link(v, "/g", "/f"), 0);
	assert_int_equal(p9_vfs_link(v, "/g", "/host"), -P9_EEXIST);
	assert_int_equal(p9_vfs_rename(v, "/host", "/x"), -P9_EBUSY);
	assert_int_equal(p9_vfs_rename(v, "/g", "/host"), -P9_EBUSY);
	assert_int_equal(p9_vfs_rename(v, "/", "/x"), -P9_EBUSY);
	assert_int_equal(p9_vfs_unlink(v, "/host"), -P9_EBUSY);
	assert_int_equal(p9_vfs_truncate(v, "/g", 9), 0);
	assert_int_equal(p9_vfs_chown(v, "/g", P9_NONUNAME, getgid()), 0);
	assert_int_equal(p9_vfs_utimes(v, "/g", t), 0);
	assert_int_equal(p9_vfs_stat(v, "/f", &st), 0);
	assert_int_equal(st.size, 9);
	assert_int_equal(st.mtime_sec, 2);
	assert_int_equal(p9_vfs_statfs(v, "/host", &fs), 0);
	assert_int_equal(p9_vfs_xattr_get(v, "/f", "user.x", b, 16), -P9_ENODATA);
	assert_int_equal(p9_vfs_unlink(v, "/f"), 0);
	assert_int_equal(p9_vfs_remove(v, "/g"), 0);
}

/* One session is lost: its mount says EIO, the other goes on. */
static void one_is_lost(void **state)
{
	struct p9_rgetattr st;
	int fd;
	(void)state;
	mount_both();
	fd = p9_vfs_open(v, "/host/f", P9_O_CREAT | P9_O_WRONLY, 0644);
	assert_int_equal(fd, 0);
	shutdown(two.wire[0].fd, SHUT_RDWR);
	assert_int_equal(p9_vfs_write(v, fd, "1", 1), -P9_EIO);
	assert_int_equal(p9_vfs_stat(v, "/host/f", &st), -P9_EIO);
	assert_int_equal(p9_vfs_mkdir(v, "/host/d", 0755), -P9_EIO);
	assert_string_equal(listing("/host", false), "EIO");
	assert_string_equal(listing("/", true), "host/ ");
	assert_int_equal(p9_vfs_mkdir(v, "/d", 0755), 0);
	assert_int_equal(p9_vfs_unmount(v, "/host"), -P9_EBUSY);
	assert_int_equal(p9_vfs_close(v, fd), -P9_EIO);
	assert_int_equal(p9_vfs_unmount(v, "/host"), 0);
	assert_string_equal(listing("/", true), "d/ ");
}

static int end_lost(void **state)
{
	(void)state;
	free(v);
	world_end(&one);
	world_end(&two);
	world_count_fds(false);
	return 0;
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {
		CASE(order),	      CASE(table),
		CASE(longest_prefix), CASE(without_directories),
		CASE(listings),	      CASE(files),
		CASE(across),	      cmocka_unit_test_setup_teardown(one_is_lost, begin, end_lost),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
