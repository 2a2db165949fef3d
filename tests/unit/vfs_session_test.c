/* SPDX-License-Identifier: BSD-2-Clause */
/* vfs_session_test.c - the session with a real server: every call, compared with what the host has. */
#include <dirent.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include "unit/vfs_world.h"

static struct world w;
static struct p9_session *s;

static int begin(void **state)
{
	struct p9_session_conf conf = { .uname = "test", .uid = getuid(), .gid = getgid(), .nfids = 40, .ntags = 8 };
	(void)state;
	world_count_fds(true);
	world_begin(&w);
	world_dial(&w);
	world_start(&w, &conf);
	s = w.s[0];
	return 0;
}

/* Every test ends with the root's fid alone in use. */
static int end(void **state)
{
	(void)state;
	if (!p9_session_dead(s)) {
		assert_int_equal(p9_session_drain(s), 0);
		assert_int_equal(p9_session_fids(s), 1);
	}
	world_end(&w);
	world_count_fds(false);
	return 0;
}

static void files(void **state)
{
	static uint8_t out[3000000], in[3000001];
	struct p9_handle h;
	struct stat st;
	(void)state;
	for (size_t i = 0; i < sizeof(out); i++) {
		out[i] = (uint8_t)(i * 31 + i / 4096);
	}
	assert_int_equal(p9_session_read_file(s, "f", in, 10), -P9_ENOENT);
	assert_int_equal(p9_session_write_file(s, "/f", out, sizeof(out), 0640), 0);
	assert_int_equal(stat(host(&w, "f"), &st), 0);
	assert_int_equal(st.st_size, sizeof(out));
	assert_int_equal(st.st_mode, S_IFREG | 0640);
	assert_int_equal(p9_session_read_file(s, "f", in, sizeof(in)), sizeof(out));
	assert_memory_equal(in, out, sizeof(out));
	assert_int_equal(p9_session_read_file(s, "f", in, sizeof(out)), sizeof(out));
	assert_int_equal(p9_session_read_file(s, "f", in, sizeof(out) - 1), -P9_EFBIG);
	assert_int_equal(p9_session_read_file(s, "f/", in, 10), -P9_ENOTDIR);
	assert_int_equal(p9_session_write_file(s, "f", "abc", 3, 0640), 0);
	assert_int_equal(p9_session_append(s, "f", "def", 3, 0640), 0);
	assert_int_equal(p9_session_append(s, "new", "x", 1, 0600), 0);
	assert_int_equal(p9_session_read_file(s, "f", in, 10), 6);
	assert_memory_equal(in, "abcdef", 6);

	assert_int_equal(p9_session_open(s, "f", P9_O_RDWR, 0, &h), 0);
	assert_int_equal(p9_session_write(s, &h, 1000000, out, 100000), 100000);
	assert_int_equal(p9_session_read(s, &h, 999998, in, 200000), 100002);
	assert_memory_equal(in, "\0", 2);
	assert_memory_equal(in + 2, out, 100000);
	assert_int_equal(p9_session_read(s, &h, 2000000, in, 10), 0);
	assert_int_equal(p9_session_read(s, &h, UINT64_MAX - 3, in, 10), -P9_EINVAL);
	assert_int_equal(p9_session_write(s, &h, 0, in, 0), 0);
	assert_int_equal(p9_session_ftruncate(s, &h, 5), 0);
	struct p9_rgetattr a;
	assert_int_equal(p9_session_fstat(s, &h, &a), 0);
	assert_int_equal(a.size, 5);
	assert_int_equal(p9_session_fsync(s, &h, false), 0);
	assert_int_equal(p9_session_fsync(s, &h, true), 0);
	assert_int_equal(p9_session_close(s, &h), 0);
	assert_int_equal(p9_session_close(s, &h), -P9_EBADF);
}

static void opening(void **state)
{
	struct p9_handle h;
	uint8_t b[8];
	(void)state;
	assert_int_equal(p9_session_open(s, "a", P9_O_RDWR, 0, &h), -P9_ENOENT);
	assert_int_equal(p9_session_open(s, "a", P9_O_RDWR | P9_O_CREAT | P9_O_EXCL, 0644, &h), 0);
	assert_int_equal(p9_session_write(s, &h, 0, "hello", 5), 5);
	assert_int_equal(p9_session_close(s, &h), 0);
	assert_int_equal(p9_session_open(s, "a", P9_O_RDWR | P9_O_CREAT | P9_O_EXCL, 0644, &h), -P9_EEXIST);
	assert_int_equal(p9_session_open(s, "a", P9_O_RDWR | P9_O_CREAT, 0644, &h), 0);
	assert_int_equal(p9_session_read(s, &h, 0, b, 8), 5);
	assert_int_equal(p9_session_close(s, &h), 0);
	assert_int_equal(p9_session_open(s, "a", P9_O_WRONLY | P9_O_TRUNC, 0, &h), 0);
	assert_int_equal(p9_session_read(s, &h, 0, b, 8), -P9_EBADF);
	assert_int_equal(p9_session_close(s, &h), 0);
	assert_int_equal(p9_session_read_file(s, "a", b, 8), 0);
	assert_int_equal(p9_session_open(s, "/", P9_O_RDWR, 0, &h), -P9_EISDIR);
	assert_int_equal(p9_session_open(s, "", P9_O_RDONLY | P9_O_DIRECTORY, 0, &h), 0);
	assert_int_equal(p9_session_close(s, &h), 0);
	assert_int_equal(p9_session_open(s, "no/a", P9_O_CREAT | P9_O_WRONLY, 0644, &h), -P9_ENOENT);
	assert_int_equal(p9_session_open(s, "a/b", P9_O_CREAT | P9_O_WRONLY, 0644, &h), -P9_ENOTDIR);
	assert_int_equal(p9_session_open(s, "b/", P9_O_CREAT | P9_O_WRONLY, 0644, &h), -P9_ENOENT);
	/* a link that points to nothing: the file that it names is made */
	assert_int_equal(symlink("d/made", host(&w, "to")), 0);
	assert_int_equal(p9_session_write_file(s, "to", "1", 1, 0644), -P9_ENOENT);
	assert_int_equal(p9_session_mkdir(s, "d", 0755), 0);
	assert_int_equal(p9_session_open(s, "to", P9_O_CREAT | P9_O_EXCL | P9_O_WRONLY, 0644, &h), -P9_EEXIST);
	assert_int_equal(p9_session_write_file(s, "to", "1", 1, 0644), 0);
	assert_int_equal(access(host(&w, "d/made"), F_OK), 0);
	assert_int_equal(p9_session_open(s, "to", P9_O_RDONLY | P9_O_NOFOLLOW, 0, &h), -P9_ELOOP);
}

/* Paths far deeper than a Twalk, and than the buffer of the walker. */
static void depth(void **state)
{
	static char path[200000];
	struct p9_rgetattr st;
	size_t n = 0;
	int fd = open(w.dir, O_PATH | O_DIRECTORY);
	(void)state;
	for (int i = 0; i < 700; i++) {
		static const char name[] = "directory-with-a-name-of-some-length";
		assert_int_equal(mkdirat(fd, name, 0755), 0);
		int next = openat(fd, name, O_PATH | O_DIRECTORY);
		close(fd);
		fd = next;
		n += (size_t)snprintf(path + n, sizeof(path) - n, "%s%s", i % 3 ? "/./" : "//", name);
		if (i < 40 || i > 690) {
			assert_int_equal(p9_session_stat(s, path, &st), 0);
		}
	}
	strcat(path, "/f");
	assert_int_equal(p9_session_stat(s, path, &st), -P9_ENOENT);
	assert_int_equal(p9_session_write_file(s, path, "deep", 4, 0644), 0);
	assert_int_equal(faccessat(fd, "f", F_OK, 0), 0);
	strcat(path, "/../..");
	assert_int_equal(p9_session_stat(s, path, &st), -P9_ENOTDIR);
	close(fd);
	char name[300] = { 0 };
	memset(name, 'n', 256);
	assert_int_equal(p9_session_stat(s, name, &st), -P9_ENAMETOOLONG);
	assert_int_equal(p9_session_mkdir(s, name, 0755), -P9_ENAMETOOLONG);
	name[255] = 0;
	assert_int_equal(p9_session_mkdir(s, name, 0755), 0);
	assert_int_equal(p9_session_stat(s, "../../..", &st), 0);
	assert_int_equal(st.mode & S_IFMT, S_IFDIR);
}

static void symlinks(void **state)
{
	struct p9_rgetattr st;
	char text[64], b[8];
	(void)state;
	assert_int_equal(p9_session_mkdir(s, "a", 0755), 0);
	assert_int_equal(p9_session_mkdir(s, "a/b", 0755), 0);
	assert_int_equal(p9_session_write_file(s, "a/b/f", "content", 7, 0644), 0);
	assert_int_equal(p9_session_symlink(s, "../a/b", "a/rel"), 0);
	assert_int_equal(p9_session_symlink(s, "/a/rel", "abs"), 0);
	assert_int_equal(p9_session_symlink(s, "abs/f", "file"), 0);
	assert_int_equal(p9_session_readlink(s, "abs", text, sizeof(text)), 6);
	assert_string_equal(text, "/a/rel");
	assert_int_equal(p9_session_readlink(s, "abs", text, 6), -P9_ERANGE);
	assert_int_equal(p9_session_readlink(s, "a", text, 6), -P9_EINVAL);
	assert_int_equal(p9_session_read_file(s, "file", b, 8), 7);
	assert_int_equal(p9_session_read_file(s, "a/rel/../rel/f", b, 8), 7); /* a/rel/.. is a */
	assert_int_equal(p9_session_read_file(s, "abs/../b/f", b, 8), 7);
	assert_int_equal(p9_session_stat(s, "file", &st), 0);
	assert_int_equal(st.size, 7);
	assert_int_equal(p9_session_stat(s, "file/", &st), -P9_ENOTDIR);
	assert_int_equal(p9_session_lstat(s, "file", &st), 0);
	assert_int_equal(st.mode & S_IFMT, S_IFLNK);
	assert_int_equal(p9_session_lstat(s, "abs/", &st), 0);
	assert_int_equal(st.mode & S_IFMT, S_IFDIR);
	assert_int_equal(p9_session_symlink(s, "loop", "loop"), 0);
	assert_int_equal(p9_session_stat(s, "loop", &st), -P9_ELOOP);
	assert_int_equal(p9_session_stat(s, "loop/x", &st), -P9_ELOOP);
	assert_int_equal(p9_session_lstat(s, "loop", &st), 0);
	/* 40 links are followed, 41 are not */
	assert_int_equal(p9_session_symlink(s, "a", "l0"), 0);
	for (int i = 1; i <= 40; i++) {
		char name[8];
		snprintf(name, sizeof(name), "l%d", i);
		snprintf(text, sizeof(text), "l%d", i - 1);
		assert_int_equal(p9_session_symlink(s, text, name), 0);
	}
	assert_int_equal(p9_session_stat(s, "l39", &st), 0);
	assert_int_equal(p9_session_stat(s, "l40", &st), -P9_ELOOP);
	static char longest[5000];
	memset(longest, 'x', 4096);
	assert_int_equal(p9_session_symlink(s, longest, "too-long"), -P9_ENAMETOOLONG);
	/* what is behind a link may be long, but has to fit */
	static char path[20000];
	int n = snprintf(path, sizeof(path), "abs");
	while (n < 8000) {
		n += snprintf(path + n, sizeof(path) - (size_t)n, "/../b");
	}
	assert_int_equal(p9_session_stat(s, path, &st), 0);
	while (n < 9000) {
		n += snprintf(path + n, sizeof(path) - (size_t)n, "/../b");
	}
	assert_int_equal(p9_session_stat(s, path, &st), -P9_ENAMETOOLONG);
}

static void entries(void **state)
{
	struct p9_rgetattr st;
	struct stat hs;
	(void)state;
	assert_int_equal(p9_session_mkdir(s, "/d/", 02755), 0);
	assert_int_equal(p9_session_mkdir(s, "d", 0755), -P9_EEXIST);
	assert_int_equal(p9_session_mkdir(s, "/", 0755), -P9_EINVAL);
	assert_int_equal(p9_session_mkdir(s, "d/..", 0755), -P9_EINVAL);
	assert_int_equal(p9_session_mkdir(s, "no/d", 0755), -P9_ENOENT);
	assert_int_equal(p9_session_write_file(s, "d/f", "1", 1, 0644), 0);
	assert_int_equal(p9_session_link(s, "d/f", "d/g"), 0);
	assert_int_equal(p9_session_stat(s, "d/g", &st), 0);
	assert_int_equal(st.nlink, 2);
	assert_int_equal(p9_session_link(s, "d/f", "d/g"), -P9_EEXIST);
	assert_int_equal(p9_session_rename(s, "d/g", "d/h"), 0);
	assert_int_equal(p9_session_rename(s, "d/no", "d/h"), -P9_ENOENT);
	assert_int_equal(p9_session_rename(s, "d/h", "no/h"), -P9_ENOENT);
	assert_int_equal(p9_session_rename(s, "d", "d/below"), -P9_EINVAL);
	assert_int_equal(access(host(&w, "d/h"), F_OK), 0);
	assert_int_equal(p9_session_rmdir(s, "d"), -P9_ENOTEMPTY);
	assert_int_equal(p9_session_unlink(s, "d"), -P9_EISDIR);
	assert_int_equal(p9_session_rmdir(s, "d/h"), -P9_ENOTDIR);
	assert_int_equal(p9_session_unlink(s, "d/h"), 0);
	assert_int_equal(p9_session_remove(s, "d/f"), 0);
	assert_int_equal(p9_session_remove(s, "d"), 0);
	assert_int_equal(p9_session_remove(s, "d"), -P9_ENOENT);
	assert_int_equal(stat(host(&w, "d"), &hs), -1);
}

static void attributes(void **state)
{
	struct p9_rgetattr st;
	struct p9_rstatfs fs;
	struct stat hs;
	struct statvfs hv;
	(void)state;
	assert_int_equal(p9_session_write_file(s, "f", "12345", 5, 0644), 0);
	assert_int_equal(p9_session_chmod(s, "f", 0751), 0);
	assert_int_equal(p9_session_truncate(s, "f", 3), 0);
	assert_int_equal(p9_session_utimes(s, "f", (struct p9_time[2]){ { 1000, 5 }, { 2000, 7 } }), 0);
	assert_int_equal(stat(host(&w, "f"), &hs), 0);
	assert_int_equal(p9_session_stat(s, "f", &st), 0);
	assert_int_equal(hs.st_mode, S_IFREG | 0751);
	assert_int_equal(st.mode, hs.st_mode);
	assert_int_equal(st.size, 3);
	assert_int_equal(st.uid, hs.st_uid);
	assert_int_equal(hs.st_atim.tv_sec, 1000);
	assert_int_equal(hs.st_atim.tv_nsec, 5);
	assert_int_equal(st.mtime_sec, 2000);
	assert_int_equal(hs.st_mtim.tv_nsec, 7);
	assert_int_equal(p9_session_utimes(s, "f", (struct p9_time[2]){ { 0, P9_TIME_OMIT }, { 0, P9_TIME_NOW } }), 0);
	assert_int_equal(stat(host(&w, "f"), &hs), 0);
	assert_int_equal(hs.st_atim.tv_sec, 1000);
	assert_true(hs.st_mtim.tv_sec > 1000000000);
	assert_int_equal(p9_session_utimes(s, "f", NULL), 0);
	assert_int_equal(stat(host(&w, "f"), &hs), 0);
	assert_true(hs.st_atim.tv_sec > 1000000000);
	assert_int_equal(p9_session_chown(s, "f", P9_NONUNAME, getgid()), 0);
	assert_int_equal(p9_session_statfs(s, "f", &fs), 0);
	assert_int_equal(statvfs(w.dir, &hv), 0);
	assert_int_equal(fs.blocks, hv.f_blocks);
	assert_int_equal(fs.namelen, hv.f_namemax);
	assert_int_equal(p9_session_statfs(s, "no", &fs), -P9_ENOENT);
}

static void xattrs(void **state)
{
	static uint8_t big[60000], got[60000];
	char list[256];
	(void)state;
	assert_int_equal(p9_session_write_file(s, "f", "", 0, 0644), 0);
	if (setxattr(host(&w, "f"), "user.probe", "1", 1, 0) < 0) {
		print_message("no extended attributes here\n");
		return;
	}
	assert_int_equal(p9_session_xattr_remove(s, "f", "user.probe"), 0);
	assert_int_equal(getxattr(host(&w, "f"), "user.probe", list, sizeof(list)), -1);
	assert_int_equal(p9_session_xattr_get(s, "f", "user.a", got, 10), -P9_ENODATA);
	assert_int_equal(p9_session_xattr_set(s, "f", &(struct p9_xattr){ "user.a", "value", 5, 0 }), 0);
	assert_int_equal(p9_session_xattr_set(s, "f", &(struct p9_xattr){ "user.b", "v", 1, 0 }), 0);
	assert_int_equal(p9_session_xattr_set(s, "f", &(struct p9_xattr){ "user.a", "x", 1, P9_XATTR_CREATE }),
			 -P9_EEXIST);
	assert_int_equal(p9_session_xattr_get(s, "f", "user.a", NULL, 0), 5);
	assert_int_equal(p9_session_xattr_get(s, "f", "user.a", got, 4), -P9_ERANGE);
	assert_int_equal(p9_session_xattr_get(s, "f", "user.a", got, 5), 5);
	assert_memory_equal(got, "value", 5);
	assert_int_equal(p9_session_xattr_list(s, "f", list, sizeof(list)), 14);
	assert_true(memcmp(list, "user.a\0user.b", 14) == 0 || memcmp(list, "user.b\0user.a", 14) == 0);
	memset(big, 'b', sizeof(big));
	int rc = p9_session_xattr_set(s, "f", &(struct p9_xattr){ "user.big", big, sizeof(big), 0 });
	if (rc == 0) { /* not every file system takes as much */
		assert_int_equal(p9_session_xattr_get(s, "f", "user.big", got, sizeof(got)), sizeof(big));
		assert_memory_equal(got, big, sizeof(big));
	} else {
		assert_true(rc == -P9_ENOSPC || rc == -P9_E2BIG);
	}
}

/* ---- listings ---- */
struct seen {
	unsigned n, with_st, stop_at;
	const struct p9_lister *nested;
	int nested_rc;
};

static int see(void *arg, const struct p9_entry *e)
{
	struct seen *seen = arg;
	char name[300];
	struct stat st;
	snprintf(name, sizeof(name), "d/%.*s", (int)e->name.len, e->name.s);
	assert_int_equal(lstat(host(&w, name), &st), 0);
	assert_int_equal(e->qid.path & 0xffffffffffff, st.st_ino & 0xffffffffffff);
	assert_int_equal(e->type, S_ISDIR(st.st_mode) ? DT_DIR : S_ISLNK(st.st_mode) ? DT_LNK : DT_REG);
	if (e->st) {
		seen->with_st++;
		assert_int_equal(e->st->mode, st.st_mode);
		assert_int_equal(e->st->size, st.st_size);
	}
	if (seen->nested) {
		seen->nested_rc = p9_session_list(s, "d", seen->nested);
	}
	return ++seen->n == seen->stop_at ? 77 : 0;
}

static void listings(void **state)
{
	uint8_t buf[2048];
	struct seen seen = { 0 }, inner = { 0 };
	struct p9_lister names = { .each = see, .arg = &seen }, sizes = { .each = see, .arg = &seen, .sizes = true };
	(void)state;
	assert_int_equal(p9_session_mkdir(s, "d", 0755), 0);
	assert_int_equal(p9_session_list(s, "d", &names), 0);
	assert_int_equal(seen.n, 0);
	for (int i = 0; i < 500; i++) {
		char name[300];
		snprintf(name, sizeof(name), "d/%0*d", 1 + i % 250, i);
		if (i % 10 == 0) {
			assert_int_equal(mkdir(host(&w, name), 0755), 0);
		} else if (i % 10 == 1) {
			assert_int_equal(symlink("nowhere", host(&w, name)), 0);
		} else {
			int fd = open(host(&w, name), O_CREAT | O_WRONLY, 0600);
			assert_int_equal(ftruncate(fd, i * 1000), 0);
			close(fd);
		}
	}
	DIR *d = opendir(host(&w, "d"));
	unsigned count = 0;
	while (readdir(d)) {
		count++;
	}
	closedir(d);
	assert_int_equal(p9_session_list(s, "d", &names), 0);
	assert_int_equal(seen.n, count - 2);
	seen.n = 0;
	assert_int_equal(p9_session_list(s, "/d/.", &sizes), 0);
	assert_int_equal(seen.n, count - 2);
	assert_int_equal(seen.with_st, seen.n);
	/* small buffers, and listings in listings */
	seen = (struct seen){ .stop_at = 3, .nested = &names };
	assert_int_equal(p9_session_list(s, "d", &names), 77);
	assert_int_equal(seen.nested_rc, -P9_EBUSY);
	struct p9_lister within = { see, &inner, true, buf, sizeof(buf) };
	seen = (struct seen){ .stop_at = 2, .nested = &within };
	assert_int_equal(p9_session_list(s, "d", &sizes), 77);
	assert_int_equal(inner.n, 2 * (count - 2));
	assert_int_equal(inner.with_st, inner.n);
	assert_int_equal(p9_session_list(s, "d/no", &names), -P9_ENOENT);
	assert_int_equal(p9_session_write_file(s, "file", "", 0, 0644), 0);
	assert_int_equal(p9_session_list(s, "file", &names), -P9_ENOTDIR);
}

/* ---- asynchronous requests beside calls that wait ---- */
struct many {
	struct p9_session_call call;
	struct p9_session *s;
	unsigned left, answered;
};

static void one_more(struct p9_session_call *c, const struct p9_msg *r)
{
	struct many *m = (struct many *)c;
	struct p9_msg t = { .type = P9_Tgetattr, .tgetattr = { p9_session_root(m->s), P9_GETATTR_BASIC } };
	assert_true(r->type == P9_Rgetattr);
	m->answered++;
	if (m->left > 0) {
		m->left--;
		assert_true(p9_session_submit(m->s, &t, NULL, c) >= 0);
	}
}

static void asynchronous(void **state)
{
	struct many m[5];
	static uint8_t data[500000], got[500000];
	(void)state;
	for (int i = 0; i < 5; i++) {
		struct p9_msg t = { .type = P9_Tgetattr, .tgetattr = { p9_session_root(s), P9_GETATTR_BASIC } };
		m[i] = (struct many){ { one_more }, s, 2000, 0 };
		assert_true(p9_session_submit(s, &t, NULL, &m[i].call) >= 0);
	}
	memset(data, 'd', sizeof(data));
	for (int i = 0; i < 20; i++) {
		assert_int_equal(p9_session_write_file(s, "f", data, sizeof(data), 0644), 0);
		assert_int_equal(p9_session_read_file(s, "f", got, sizeof(got)), sizeof(got));
		assert_memory_equal(data, got, sizeof(got));
	}
	assert_true(m[0].answered > 0);
	while (m[0].left + m[1].left + m[2].left + m[3].left + m[4].left > 0) {
		assert_true(p9_session_step(s, true) > 0);
	}
	assert_int_equal(p9_session_drain(s), 0);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(m[i].answered, 2001);
	}
	assert_int_equal(p9_session_step(s, true), 0);
}

/* Bytes in pieces of any length give the same results. */
static void in_pieces(void **state)
{
	static uint8_t data[20000], got[20000];
	(void)state;
	memset(data, 'p', sizeof(data));
	for (size_t piece = 1; piece < 30000; piece = piece < 8 ? piece + 1 : piece * 5) {
		w.wire[0].piece = piece;
		assert_int_equal(p9_session_write_file(s, "f", data, sizeof(data), 0644), 0);
		memset(got, 0, sizeof(got));
		assert_int_equal(p9_session_read_file(s, "f", got, sizeof(got)), sizeof(got));
		assert_memory_equal(data, got, sizeof(got));
	}
	w.wire[0].piece = 0;
}

static void count_errors(struct p9_session_call *c, const struct p9_msg *r)
{
	struct many *m = (struct many *)c;
	assert_int_equal(r->type, P9_Rlerror);
	assert_int_equal(r->rlerror.ecode, P9_ECONNRESET);
	m->answered++;
}

/* The server goes away in the middle: each call in flight is answered, and all calls after it fail at once. */
static void link_lost(void **state)
{
	struct many m = { { count_errors }, s, 0, 0 };
	struct p9_msg t = { .type = P9_Tgetattr, .tgetattr = { p9_session_root(s), P9_GETATTR_BASIC } };
	struct p9_rgetattr st;
	struct p9_handle h;
	uint8_t b[10];
	(void)state;
	assert_int_equal(p9_session_write_file(s, "f", "1", 1, 0644), 0);
	assert_int_equal(p9_session_open(s, "f", P9_O_RDWR, 0, &h), 0);
	assert_true(p9_session_submit(s, &t, NULL, &m.call) >= 0);
	assert_true(p9_session_submit(s, &t, NULL, &m.call) >= 0);
	shutdown(w.wire[0].fd, SHUT_RDWR);
	assert_int_equal(p9_session_stat(s, "f", &st), -P9_ECONNRESET);
	assert_int_equal(p9_session_dead(s), -P9_ECONNRESET);
	assert_true(strlen(p9_session_error(s)) > 0);
	assert_int_equal(p9_session_read(s, &h, 0, b, 10), -P9_ECONNRESET);
	assert_int_equal(p9_session_close(s, &h), -P9_ECONNRESET);
	assert_int_equal(p9_session_mkdir(s, "d", 0755), -P9_ECONNRESET);
	assert_int_equal(p9_session_drain(s), -P9_ECONNRESET);
	assert_int_equal(m.answered, 2);
}

/* Operations of every kind, again and again: neither fids nor anything else runs out. */
static void fids_come_back(void **state)
{
	struct p9_rgetattr st;
	struct seen seen = { 0 };
	struct p9_lister l = { .each = see, .arg = &seen, .sizes = true };
	char text[100];
	uint8_t b[16];
	(void)state;
	assert_int_equal(p9_session_mkdir(s, "d", 0755), 0);
	assert_int_equal(p9_session_symlink(s, "d/f", "link"), 0);
	for (int i = 0; i < 1500; i++) {
		assert_int_equal(p9_session_write_file(s, "d/f", "abc", 3, 0644), 0);
		assert_int_equal(p9_session_read_file(s, "link", b, 16), 3);
		assert_int_equal(p9_session_stat(s, "d/f/x", &st), -P9_ENOTDIR);
		assert_int_equal(p9_session_stat(s, "d/no/x", &st), -P9_ENOENT);
		assert_int_equal(p9_session_list(s, "d", &l), 0);
		assert_int_equal(p9_session_rename(s, "d/f", "d/g"), 0);
		assert_int_equal(p9_session_rename(s, "d/f", "d/g"), -P9_ENOENT);
		assert_int_equal(p9_session_link(s, "d/g", "d/h"), 0);
		assert_int_equal(p9_session_link(s, "d/g", "d/h"), -P9_EEXIST);
		assert_int_equal(p9_session_readlink(s, "link", text, 100), 3);
		assert_int_equal(p9_session_xattr_get(s, "d/g", "user.none", b, 16), -P9_ENODATA);
		assert_int_equal(p9_session_remove(s, "d/h"), 0);
		assert_int_equal(p9_session_remove(s, "d/g"), 0);
	}
	assert_int_equal(seen.n, 1500);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {
		CASE(files),	    CASE(opening),    CASE(depth),     CASE(symlinks),
		CASE(entries),	    CASE(attributes), CASE(xattrs),    CASE(listings),
		CASE(asynchronous), CASE(in_pieces),  CASE(link_lost), CASE(fids_come_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
