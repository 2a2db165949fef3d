/* SPDX-License-Identifier: BSD-2-Clause */
/* fs_test.c - every function of p9/fs.h against a real p9d; what it did is looked at on the host, where the tree is. Each
 * test runs on a handle that is stepped, on one with a thread, and on one of two requests and 4 KiB messages. */
#include "libp9/server.h"
#include <dirent.h>
#include <pthread.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include "client/internal.h" /* how many fids are in use */

static struct server srv;
static struct p9_client *c;

static void assert_host(const char *name, const void *data, size_t n)
{
	struct stat st;
	assert_int_equal(stat(server_path(&srv, name), &st), 0);
	assert_int_equal(st.st_size, n);
	char *buf = malloc(n + 1);
	int fd = open(server_path(&srv, name), O_RDONLY);
	for (size_t at = 0; at < n;) {
		ssize_t k = read(fd, buf + at, n - at);
		assert_true(k > 0);
		at += (size_t)k;
	}
	close(fd);
	if (memcmp(buf, data, n) != 0) {
		fail_msg("%s: other bytes", name);
	}
	free(buf);
}

static bool there(const char *name)
{
	struct stat st;
	return lstat(server_path(&srv, name), &st) == 0;
}

static uint8_t *noise(size_t n)
{
	struct p9t_rng r = p9t_rng();
	uint8_t *p = malloc(n + 8);
	for (size_t i = 0; i < n; i += 8) {
		uint64_t v = p9t_rand(&r);
		memcpy(p + i, &v, 8);
	}
	return p;
}

static void attributes(void **state)
{
	struct p9_rgetattr st;
	struct p9_rstatfs fs;
	struct stat h;
	struct p9_time a = { 1000000001, 5 }, m = { 1500000000, 999999999 }, omit = { 0, P9_TIME_OMIT };
	server_put(&srv, "f", "hello", 5);
	assert_int_equal(symlink("f", server_path(&srv, "l")), 0);
	ok(c, p9_stat(c, "l", &st));
	assert_int_equal(stat(server_path(&srv, "f"), &h), 0);
	assert_int_equal(st.size, 5);
	assert_int_equal(st.mode, h.st_mode);
	assert_int_equal(st.uid, h.st_uid);
	assert_int_equal(st.mtime_sec, h.st_mtim.tv_sec);
	assert_int_equal(st.nlink, 1);
	ok(c, p9_lstat(c, "/l", &st));
	assert_true(S_ISLNK(st.mode));
	ok(c, p9_chmod(c, "l", 0640));
	ok(c, p9_utimens(c, "f", P9_WALK_FOLLOW, &a, &m));
	assert_int_equal(stat(server_path(&srv, "f"), &h), 0);
	assert_int_equal(h.st_mode & 07777, 0640);
	assert_int_equal(h.st_atim.tv_sec, 1000000001);
	assert_int_equal(h.st_mtim.tv_nsec, 999999999);
	m.sec = 7;
	ok(c, p9_utimens(c, "l", P9_WALK_NOFOLLOW, &omit, &m));
	assert_int_equal(stat(server_path(&srv, "f"), &h), 0);
	assert_int_equal(h.st_mtim.tv_sec, 1500000000); /* the link's own was set */
	a.nsec = 1000000000;
	fails(P9_EINVAL, p9_utimens(c, "f", P9_WALK_FOLLOW, &a, &m));
	ok(c, p9_chown(c, "f", P9_WALK_FOLLOW, P9_NONUNAME, getegid()));
	ok(c, p9_truncate(c, "f", 3));
	assert_host("f", "hel", 3);
	ok(c, p9_statfs(c, "/", &fs));
	assert_true(fs.bsize > 0 && fs.blocks > 0);
	fails(P9_ENOENT, p9_stat(c, "nothing/at/all", &st));
	assert_true(strstr(p9_client_error(c), "ENOENT") != NULL);
	fails(P9_ENOTDIR, p9_stat(c, "f/x", &st));
}

static void names(void **state)
{
	char text[64];
	struct stat h, g;
	ok(c, p9_mkdir(c, "d", 0750));
	fails(P9_EEXIST, p9_mkdir(c, "d", 0750));
	ok(c, p9_mkdir_all(c, "d/a/b//c/", 0755));
	ok(c, p9_mkdir_all(c, "d/a/b/c", 0755));
	ok(c, p9_mkdir_all(c, "/", 0755));
	assert_true(there("d/a/b/c"));
	server_put(&srv, "d/f", "x", 1);
	fails(P9_ENOTDIR, p9_mkdir_all(c, "d/f/g", 0755));
	fails(P9_ENOTDIR, p9_mkdir_all(c, "d/f", 0755));
	assert_int_equal(symlink("d/a", server_path(&srv, "way")), 0);
	ok(c, p9_mkdir_all(c, "way/new/er", 0755)); /* through a link */
	assert_true(there("d/a/new/er"));
	ok(c, p9_symlink(c, "some where", "d/l"));
	assert_int_equal(p9_readlink(c, "d/l", text, sizeof(text)), 10);
	assert_string_equal(text, "some where");
	fails(P9_ENAMETOOLONG, p9_readlink(c, "d/l", text, 10));
	ok(c, p9_link(c, "d/f", "d/g"));
	assert_int_equal(stat(server_path(&srv, "d/f"), &h) | stat(server_path(&srv, "d/g"), &g), 0);
	assert_true(h.st_ino == g.st_ino);
	ok(c, p9_rename(c, "d/g", "h"));
	assert_true(there("h") && !there("d/g"));
	fails(P9_ENOENT, p9_rename(c, "d/g", "h"));
	ok(c, p9_mknod(c, "fifo", S_IFIFO | 0600, 0));
	assert_int_equal(stat(server_path(&srv, "fifo"), &h), 0);
	assert_true(S_ISFIFO(h.st_mode));
	ok(c, p9_remove(c, "fifo"));
	fails(P9_ENOTEMPTY, p9_remove(c, "d"));
	fails(P9_ENOTDIR, p9_rmdir(c, "h"));
	ok(c, p9_unlink(c, "h"));
	ok(c, p9_remove(c, "d/a/new/er"));
	assert_false(there("d/a/new/er"));
	fails(P9_EINVAL, p9_remove(c, "d/.."));
	fails(P9_EINVAL, p9_remove(c, "/"));
}

static void xattrs(void **state)
{
	char buf[300];
	struct p9_data v = { 5, (const uint8_t *)"value" }, none = { 0, NULL };
	server_put(&srv, "f", "x", 1);
	if (setxattr(server_path(&srv, "f"), "user.probe", "1", 1, 0) < 0) {
		print_message("no user xattrs on this file system\n");
		return;
	}
	ok(c, p9_setxattr(c, "f", P9_WALK_FOLLOW, "user.a", &v, P9_XATTR_CREATE));
	fails(P9_EEXIST, p9_setxattr(c, "f", P9_WALK_FOLLOW, "user.a", &v, P9_XATTR_CREATE));
	ok(c, p9_setxattr(c, "f", P9_WALK_FOLLOW, "user.empty", &none, 0));
	assert_int_equal(p9_getxattr(c, "f", P9_WALK_FOLLOW, "user.a", buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "value", 5);
	assert_int_equal(p9_getxattr(c, "f", P9_WALK_FOLLOW, "user.a", NULL, 0), 5);
	fails(P9_ERANGE, p9_getxattr(c, "f", P9_WALK_FOLLOW, "user.a", buf, 4));
	fails(P9_ENODATA, p9_getxattr(c, "f", P9_WALK_FOLLOW, "user.b", buf, sizeof(buf)));
	fails(P9_EINVAL, p9_getxattr(c, "f", P9_WALK_FOLLOW, "", buf, sizeof(buf)));
	ssize_t n = p9_listxattr(c, "f", P9_WALK_FOLLOW, buf, sizeof(buf));
	assert_true(n > 0 && memmem(buf, (size_t)n, "user.a", 7));
	ok(c, p9_removexattr(c, "f", P9_WALK_FOLLOW, "user.a"));
	assert_true(getxattr(server_path(&srv, "f"), "user.a", buf, sizeof(buf)) < 0);
}

static void open_files(void **state)
{
	struct p9_fh *f;
	struct p9_rgetattr st;
	char buf[64];
	fails(P9_ENOENT, p9_open(c, "f", P9_O_RDONLY, &f));
	assert_null(f);
	ok(c, p9_create(c, "f", P9_O_RDWR, 0600, &f));
	assert_int_equal(p9_write(f, "0123456789", 10), 10);
	assert_int_equal(p9_write(f, "ab", 2), 2);
	assert_int_equal(p9_tell(f), 12);
	assert_int_equal(p9_pwrite(f, "XY", 2, 4), 2);
	p9_seek(f, 2);
	assert_int_equal(p9_read(f, buf, 6), 6);
	assert_memory_equal(buf, "23XY67", 6);
	assert_int_equal(p9_pread(f, buf, sizeof(buf), 10), 2);
	assert_int_equal(p9_pread(f, buf, sizeof(buf), 12), 0);
	fails(P9_EINVAL, p9_pread(f, buf, 2, INT64_MAX - 1 + UINT64_C(1)));
	ok(c, p9_fstat(f, &st));
	assert_int_equal(st.size, 12);
	ok(c, p9_ftruncate(f, 4));
	ok(c, p9_fsync(f, true));
	ok(c, p9_close(f));
	assert_host("f", "0123", 4);
	fails(P9_EEXIST, p9_create(c, "f", P9_O_RDWR | P9_O_EXCL, 0600, &f));
	ok(c, p9_create(c, "f", P9_O_WRONLY | P9_O_APPEND, 0600, &f));
	assert_int_equal(p9_pwrite(f, "45", 2, 0), 2);
	ok(c, p9_close(f));
	assert_host("f", "012345", 6);
	assert_int_equal(symlink("f", server_path(&srv, "l")), 0);
	fails(P9_ELOOP, p9_open(c, "l", P9_O_RDONLY | P9_O_NOFOLLOW, &f));
	ok(c, p9_open(c, "l", P9_O_WRONLY | P9_O_TRUNC, &f));
	ok(c, p9_close(f));
	assert_host("f", "", 0);
	assert_int_equal(symlink("gone", server_path(&srv, "dangling")), 0);
	fails(P9_EEXIST, p9_create(c, "dangling", P9_O_WRONLY, 0600, &f));
	assert_int_equal(p9_close(NULL), 0);
}

enum { BIG = 5 * 1024 * 1024 + 4711 };

static void big_files(void **state)
{
	uint8_t *data = noise(BIG), *back = malloc(BIG + 100);
	struct p9_fh *f;
	ok(c, p9_create(c, "big", P9_O_RDWR, 0600, &f));
	assert_int_equal(p9_pwrite(f, data, BIG, 0), BIG);
	assert_host("big", data, BIG);
	memset(back, 0, BIG + 100);
	assert_int_equal(p9_pread(f, back, BIG + 100, 0), BIG);
	assert_memory_equal(back, data, BIG);
	assert_int_equal(p9_pread(f, back, BIG, 1000001), BIG - 1000001);
	assert_memory_equal(back, data + 1000001, BIG - 1000001);
	assert_int_equal(p9_pwrite(f, data, BIG / 2, BIG / 3), BIG / 2);
	assert_int_equal(p9_pread(f, back, BIG / 2, BIG / 3), BIG / 2);
	assert_memory_equal(back, data, BIG / 2);
	ok(c, p9_close(f));
	ok(c, p9_open(c, "big", P9_O_WRONLY | P9_O_TRUNC | P9_O_APPEND, &f));
	assert_int_equal(p9_pwrite(f, data, BIG, 77), BIG);
	ok(c, p9_close(f));
	assert_host("big", data, BIG);
	free(data);
	free(back);
}

static void whole_files(void **state)
{
	uint8_t *data = noise(BIG);
	void *got;
	size_t n;
	struct stat st;
	struct p9_bytes b = { data, BIG }, small = { "small", 5 };
	ok(c, p9_write_file(c, "w", &b, 0644, 0));
	ok(c, p9_read_file(c, "w", SIZE_MAX, &got, &n));
	assert_int_equal(n, BIG);
	assert_memory_equal(got, data, BIG);
	free(got);
	ok(c, p9_read_file(c, "w", BIG, &got, &n));
	free(got);
	fails(P9_EFBIG, p9_read_file(c, "w", BIG - 1, &got, &n));
	assert_null(got);
	fails(P9_EISDIR, p9_read_file(c, "/", 100, &got, &n));
	assert_int_equal(chmod(server_path(&srv, "w"), 0604), 0);
	ok(c, p9_write_file(c, "w", &small, 0644, P9_WRITE_ATOMIC | P9_WRITE_SYNC));
	assert_host("w", "small", 5);
	assert_int_equal(stat(server_path(&srv, "w"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0604);
	ok(c, p9_write_file(c, "w", &small, 0644, P9_WRITE_APPEND));
	assert_host("w", "smallsmall", 10);
	fails(P9_EEXIST, p9_write_file(c, "w", &small, 0644, P9_WRITE_EXCL));
	fails(P9_EEXIST, p9_write_file(c, "w", &small, 0644, P9_WRITE_EXCL | P9_WRITE_ATOMIC));
	ok(c, p9_write_file(c, "v", &small, 0644, P9_WRITE_EXCL | P9_WRITE_ATOMIC));
	assert_int_equal(stat(server_path(&srv, "v"), &st), 0);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(mkdir(server_path(&srv, "dir"), 0755), 0);
	fails(P9_EISDIR, p9_write_file(c, "dir", &small, 0644, P9_WRITE_ATOMIC));
	DIR *d = opendir(srv.tree);
	for (struct dirent *e; (e = readdir(d));) {
		assert_true(strncmp(e->d_name, ".p9-", 4) != 0); /* nothing is left */
	}
	closedir(d);
	free(data);
}

static void locks(void **state)
{
	struct p9_fh *f, *g;
	struct p9_range r = { 10, 20, P9_LOCK_TYPE_WRLCK }, other = { 15, 1, P9_LOCK_TYPE_RDLCK }, who;
	server_put(&srv, "f", "x", 1);
	ok(c, p9_open(c, "f", P9_O_RDWR, &f));
	ok(c, p9_range_lock(f, &r));
	/* somebody else: a process of its own, with its own connection */
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		struct p9_client_opts o = { .uid = geteuid() };
		struct p9_client *mine = p9_client_new();
		if (p9_client_dial(mine, srv.addr, &o) < 0 || p9_open(mine, "f", P9_O_RDWR, &g) < 0) {
			_exit(1);
		}
		int rc = 0;
		rc |= p9_range_trylock(g, &other) != -P9_EAGAIN ? 2 : 0;
		rc |= p9_range_test(g, &other, &who) != 1 || who.start != 10 || who.length != 20 ? 4 : 0;
		other.start = 30;
		rc |= p9_range_test(g, &other, &who) != 0 || p9_range_trylock(g, &other) != 0 ? 8 : 0;
		_exit(rc);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	ok(c, p9_range_unlock(f, &r));
	ok(c, p9_close(f));
}

struct listed {
	unsigned n, dirs, links;
	uint64_t bytes;
	int stop_at;
};

static int list_one(void *arg, const struct p9_fs_entry *e)
{
	struct listed *l = arg;
	assert_true(strcmp(e->name, ".") != 0 && strcmp(e->name, "..") != 0);
	assert_int_equal(e->error, 0);
	l->n++;
	l->dirs += e->type == DT_DIR;
	l->links += e->type == DT_LNK;
	l->bytes += e->type == DT_REG ? e->st.size : 0;
	return l->stop_at && l->n == (unsigned)l->stop_at ? 42 : 0;
}

static void listing(void **state)
{
	struct listed plain = { 0 }, full = { 0 }, some = { .stop_at = 5 };
	struct p9_fs_dir *d;
	struct p9_fs_entry e;
	char name[300];
	assert_int_equal(mkdir(server_path(&srv, "many"), 0755), 0);
	for (int i = 0; i < 3000; i++) {
		snprintf(
			name, sizeof(name), "many/entry-%d-%.*s", i, i % 100,
			"a name of some length a name of some length a name of some length a name of some length a name");
		server_put(&srv, name, name, (size_t)(i % 7));
	}
	assert_int_equal(mkdir(server_path(&srv, "many/sub"), 0755), 0);
	assert_int_equal(symlink("nowhere", server_path(&srv, "many/link")), 0);
	ok(c, p9_list_dir(c, "many", P9_DIR_PLAIN, list_one, &plain));
	ok(c, p9_list_dir(c, "many", P9_DIR_ATTRS, list_one, &full));
	assert_int_equal(plain.n, 3002);
	assert_int_equal(full.n, 3002);
	assert_int_equal(full.dirs, 1);
	assert_int_equal(full.links, 1);
	uint64_t want = 0;
	for (int i = 0; i < 3000; i++) {
		want += (uint64_t)(i % 7);
	}
	assert_int_equal(full.bytes, want);
	assert_int_equal(p9_list_dir(c, "many", P9_DIR_ATTRS, list_one, &some), 42);
	ok(c, p9_dir_open(c, "many", P9_DIR_PLAIN, &d));
	p9_dir_bound(d, 10);
	int n = 0, rc;
	while ((rc = p9_dir_next(d, &e)) > 0) {
		n++;
	}
	assert_int_equal(n, 10);
	assert_int_equal(rc, -P9_EOVERFLOW);
	p9_dir_bound(d, UINT64_MAX);
	p9_dir_seek(d, 0);
	for (n = 0; n < 100 && p9_dir_next(d, &e) > 0; n++) {
	}
	uint64_t at = e.cookie;
	assert_int_equal(p9_dir_next(d, &e), 1);
	snprintf(name, sizeof(name), "%s", e.name);
	p9_dir_seek(d, at);
	assert_int_equal(p9_dir_next(d, &e), 1);
	assert_string_equal(e.name, name);
	p9_dir_close(d);
	fails(P9_ENOTDIR, p9_dir_open(c, "many/entry-0-", P9_DIR_PLAIN, &d));
	fails(P9_ENOENT, p9_list_dir(c, "nothing", 0, list_one, &some));
}

/* A tree with files, links, a deep way down and a wide directory. Returns its files. */
static unsigned plant(const char *top)
{
	char path[4096], name[300];
	unsigned files = 0;
	int n = snprintf(path, sizeof(path), "%s", top);
	assert_int_equal(mkdir(server_path(&srv, top), 0755), 0);
	for (int depth = 0; depth < 40; depth++) {
		n += snprintf(path + n, sizeof(path) - (size_t)n, "/down%d", depth);
		char full[5000];
		snprintf(full, sizeof(full), "%s/%s", srv.tree, path);
		assert_int_equal(mkdir(full, 0755), 0);
		for (int i = 0; i < 3; i++) {
			snprintf(full, sizeof(full), "%s/%s/f%d", srv.tree, path, i);
			int fd = open(full, O_WRONLY | O_CREAT, 0640);
			assert_true(fd >= 0 && write(fd, full, strlen(full)) > 0);
			close(fd);
			files++;
		}
	}
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "%s/wide%d", top, i);
		server_put(&srv, name, name, strlen(name));
		files++;
	}
	snprintf(name, sizeof(name), "%s/link", top);
	assert_int_equal(symlink("../outside", server_path(&srv, name)), 0);
	snprintf(name, sizeof(name), "%s/empty", top);
	assert_int_equal(mkdir(server_path(&srv, name), 0700), 0);
	return files;
}

struct seen {
	unsigned files, dirs, left, links;
	unsigned depth;
	bool skip;
};

static int see(void *arg, const struct p9_visit *v)
{
	struct seen *s = arg;
	assert_int_equal(v->error, 0);
	if (v->leaving) {
		s->left++;
		return 0;
	}
	s->files += v->type == DT_REG;
	s->dirs += v->type == DT_DIR;
	s->links += v->type == DT_LNK;
	s->depth = v->depth > s->depth ? v->depth : s->depth;
	assert_true(strlen(v->path) >= strlen(v->name));
	assert_string_equal(v->path + strlen(v->path) - strlen(v->name), v->name);
	return s->skip && strcmp(v->name, "down0") == 0 ? P9_VISIT_SKIP : 0;
}

static void trees(void **state)
{
	struct seen s = { 0 }, t = { .skip = true };
	unsigned files = plant("tree");
	ok(c, p9_walk_tree(c, "tree", P9_WALK_TREE_POST, see, &s));
	assert_int_equal(s.files, files);
	assert_int_equal(s.dirs, 42);
	assert_int_equal(s.left, 42);
	assert_int_equal(s.links, 1);
	assert_int_equal(s.depth, 41);
	ok(c, p9_walk_tree(c, "/tree/", P9_WALK_TREE_ATTRS, see, &t));
	assert_int_equal(t.files, 500);
	assert_int_equal(t.left, 0);
	server_put(&srv, "outside", "stays", 5);
	ok(c, p9_remove_tree(c, "tree"));
	assert_false(there("tree"));
	assert_host("outside", "stays", 5);
	fails(P9_ENOENT, p9_remove_tree(c, "tree"));
	ok(c, p9_remove_tree(c, "outside"));
	assert_int_equal(mkdir(server_path(&srv, "d"), 0755), 0);
	server_put(&srv, "d/f", "x", 1);
	assert_int_equal(symlink("d", server_path(&srv, "dl")), 0);
	ok(c, p9_remove_tree(c, "dl"));
	assert_true(there("d/f"));
}

static int run_diff(const char *a, const char *b)
{
	char cmd[2000];
	snprintf(cmd, sizeof(cmd), "diff -r --no-dereference '%s' '%s'", a, b);
	return system(cmd);
}

static int go_on(void *arg, const char *path, int error, const char *text)
{
	unsigned *bad = arg;
	*bad += error < 0;
	return 0;
}

static void copies(void **state)
{
	char here[700], far_[700];
	uint8_t *data = noise(BIG);
	struct p9_copied k = { 0 };
	struct stat st;
	unsigned files = plant("tree");
	server_put(&srv, "tree/big", data, BIG);
	snprintf(here, sizeof(here), "%s/here", srv.base);
	snprintf(far_, sizeof(far_), "%s/here2", srv.base);
	struct p9_place a = { c, "tree" }, b = { c, "copy" }, h = { NULL, here }, h2 = { NULL, far_ },
			back = { c, "back" };
	ok(c, p9_copy_tree(&a, &b, P9_COPY_TIMES, &k));
	assert_int_equal(k.files, files + 1);
	assert_int_equal(k.directories, 42);
	assert_int_equal(k.links, 1);
	assert_int_equal(run_diff(server_path(&srv, "tree"), server_path(&srv, "copy")), 0);
	ok(c, p9_copy_tree(&a, &h, P9_COPY_TIMES | P9_COPY_SPARSE, NULL));
	assert_int_equal(run_diff(server_path(&srv, "tree"), here), 0);
	ok(c, p9_copy_tree(&h, &back, 0, NULL));
	assert_int_equal(run_diff(server_path(&srv, "back"), here), 0);
	ok(c, p9_copy_tree(&h, &h2, P9_COPY_SPARSE, NULL));
	assert_int_equal(run_diff(far_, here), 0);
	fails(P9_EEXIST, p9_copy_tree(&h, &back, 0, NULL));
	ok(c, p9_copy_tree(&h, &back, P9_COPY_REPLACE, NULL));
	struct stat two;
	assert_int_equal(stat(server_path(&srv, "tree/big"), &st) | stat(server_path(&srv, "copy/big"), &two), 0);
	assert_int_equal(st.st_mtim.tv_nsec, two.st_mtim.tv_nsec);
	assert_int_equal(st.st_mode, two.st_mode);
	/* into itself */
	struct p9_place in = { c, "tree/inside" };
	fails(P9_EINVAL, p9_copy_tree(&a, &in, 0, NULL));
	/* the host's directory holds a link where the tree has a directory: it is not followed */
	unsigned bad = 0;
	char trap[800];
	struct p9_copied each = { .each = go_on, .arg = &bad };
	snprintf(trap, sizeof(trap), "%s/down0", here);
	p9t_remove_tree(trap);
	assert_int_equal(symlink(srv.base, trap), 0);
	fails(P9_ENOTDIR, p9_copy_tree(&a, &h, P9_COPY_REPLACE, &each));
	assert_int_equal(bad, 1);
	snprintf(trap, sizeof(trap), "%s/f0", srv.base);
	assert_true(lstat(trap, &st) < 0);
	p9t_remove_tree(here);
	p9t_remove_tree(far_);
	free(data);
}

static void sparse(void **state)
{
	struct stat st;
	struct p9_place a = { c, "hole" }, b = { c, "hole2" };
	int fd = open(server_path(&srv, "hole"), O_WRONLY | O_CREAT, 0644);
	assert_int_equal(pwrite(fd, "begin", 5, 0), 5);
	assert_int_equal(pwrite(fd, "end", 3, 6000000), 3);
	assert_int_equal(ftruncate(fd, 9000000), 0);
	close(fd);
	ok(c, p9_copy_tree(&a, &b, P9_COPY_SPARSE, NULL));
	assert_int_equal(stat(server_path(&srv, "hole2"), &st), 0);
	assert_int_equal(st.st_size, 9000000);
	assert_true(st.st_blocks * 512 < 4500000);
	char cmd[1500];
	snprintf(cmd, sizeof(cmd), "cmp '%s' '%s'", server_path(&srv, "hole"), server_path(&srv, "hole2"));
	assert_int_equal(system(cmd), 0);
}

/* ---- the ways to use a handle ---- */
static int begin(const struct p9_client_opts *o, bool threaded)
{
	server_start(&srv);
	c = server_dial(&srv, o);
	return threaded ? p9_client_thread(c) : 0;
}

static int stepped(void **state)
{
	struct p9_client_opts o = { .uid = geteuid() };
	return begin(&o, false);
}

static int narrow(void **state)
{
	struct p9_client_opts o = { .uid = geteuid(), .msize = 4096, .depth = 3 };
	return begin(&o, false);
}

static int threaded(void **state)
{
	struct p9_client_opts o = { .uid = geteuid() };
	return begin(&o, true);
}

static int end(void **state)
{
	/* every fid has been given back: what is left is the root's */
	assert_int_equal(p9_client_pending(c), 0);
	assert_int_equal(c->engine.nfids_used, 1);
	p9_client_free(c);
	server_stop(&srv);
	return 0;
}

/* ---- several threads on one handle, each with its own files ---- */
static void *worker(void *arg)
{
	char name[64], other[64];
	uintptr_t id = (uintptr_t)arg;
	uint8_t *data = malloc(300000), *back = malloc(300000);
	uintptr_t bad = 0;
	for (unsigned i = 0; i < 12; i++) {
		struct p9_fh *f;
		struct p9_rgetattr st;
		memset(data, (int)(id * 16 + i), 300000);
		snprintf(name, sizeof(name), "t%u-%u", (unsigned)id, i);
		snprintf(other, sizeof(other), "missing-%u", (unsigned)id);
		if (p9_create(c, name, P9_O_RDWR, 0600, &f) < 0) {
			bad++;
			continue;
		}
		bad += p9_pwrite(f, data, 300000, 0) != 300000;
		bad += p9_pread(f, back, 300000, 0) != 300000 || memcmp(data, back, 300000) != 0;
		bad += p9_stat(c, other, &st) != -P9_ENOENT || !strstr(p9_client_error(c), "ENOENT");
		bad += p9_close(f) != 0;
		struct listed l = { 0 };
		bad += p9_list_dir(c, "many", P9_DIR_ATTRS, list_one, &l) != 0 || l.n != 200;
	}
	free(data);
	free(back);
	return (void *)bad;
}

static void many_threads(void **state)
{
	pthread_t t[6];
	char name[64];
	assert_int_equal(mkdir(server_path(&srv, "many"), 0755), 0);
	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "many/%d", i);
		server_put(&srv, name, "x", 1);
	}
	for (uintptr_t i = 0; i < 6; i++) {
		assert_int_equal(pthread_create(&t[i], NULL, worker, (void *)i), 0);
	}
	for (int i = 0; i < 6; i++) {
		void *bad;
		pthread_join(t[i], &bad);
		assert_ptr_equal(bad, NULL);
	}
}

/* ---- requests of the program's own go on while a function blocks ---- */
struct own {
	struct p9_call call;
	unsigned left, errors;
	uint32_t fid;
};

static void again(struct p9_call *call, const struct p9_msg *reply)
{
	struct own *o = (struct own *)call;
	struct p9_msg t = { .type = P9_Tgetattr, .tgetattr = { .fid = o->fid, .request_mask = P9_GETATTR_BASIC } };
	o->errors += reply->type != P9_Rgetattr;
	if (--o->left > 0 && p9_client_send(c, &t, NULL, &o->call) < 0) {
		o->errors++;
	}
}

static void mixed(void **state)
{
	struct own o[3] = { 0 };
	uint8_t *data = noise(BIG);
	struct p9_bytes b = { data, BIG };
	for (int i = 0; i < 3; i++) {
		o[i] = (struct own){ .call = { .done = again }, .left = 100, .fid = p9_client_root(c) };
		struct p9_msg t = { .type = P9_Tgetattr, .tgetattr = { o[i].fid, P9_GETATTR_BASIC } };
		ok(c, p9_client_send(c, &t, NULL, &o[i].call));
	}
	ok(c, p9_write_file(c, "mixed", &b, 0644, P9_WRITE_ATOMIC));
	assert_host("mixed", data, BIG);
	while (p9_client_pending(c) > 0) {
		ok(c, p9_client_step(c));
	}
	for (int i = 0; i < 3; i++) {
		assert_int_equal(o[i].left | o[i].errors, 0);
	}
	free(data);
}

#define THREE(f) \
	cmocka_unit_test_setup_teardown(f, stepped, end), { #f "/narrow", f, narrow, end, NULL }, \
	{ \
#f "/thread", f, threaded, end, NULL \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		THREE(attributes),
		THREE(names),
		THREE(xattrs),
		THREE(open_files),
		THREE(big_files),
		THREE(whole_files),
		THREE(locks),
		THREE(listing),
		THREE(trees),
		THREE(copies),
		THREE(sparse),
		cmocka_unit_test_setup_teardown(many_threads, threaded, end),
		cmocka_unit_test_setup_teardown(mixed, stepped, end),
		{ "mixed/narrow", mixed, narrow, end, NULL },
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
