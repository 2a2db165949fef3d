/* SPDX-License-Identifier: BSD-2-Clause */
/* hostile_test.c - functions of p9/fs.h with a server that lies within the protocol: each ends, with the right error,
 * and the link is as good as before. What breaks the protocol is the engine's affair (unit/engine_check_test.c). */
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "client/internal.h"
#include "lib/p9t.h"
#include "p9/fs.h"

/* ---- the server: answers everything sanely, but what `lie` is about ---- */
enum lie {
	LIE_NONE,
	LIE_ENDLESS,	/* a directory with ever new entries and cookies */
	LIE_CIRCLE,	/* cookies 1, 2, 1, 2... */
	LIE_XATTR_SIZE, /* 2^64-1 bytes */
	LIE_XATTR_SHORT,
	LIE_WRITES_NOTHING,
	LIE_NO_END, /* a file that never ends, whatever its size */
	LIE_SIZE,   /* 2^63 */
	LIE_VALID,  /* nothing is */
	LIE_NSEC,
	LIE_TYPE,     /* a directory by its mode, not by its qid */
	LIE_LOCK,     /* status 255 */
	LIE_GETLOCK,  /* a range that wraps */
	LIE_ALL_DIRS, /* each directory has a directory in it, for ever */
	LIE_LINK_NUL,
};

static int lie;
static int fds[2];
static uint8_t in[1 << 17], out[1 << 17], payload[1 << 16];
static struct p9_client *c;

static uint32_t entries(uint64_t offset, uint32_t room)
{
	uint32_t n = 0;
	bool circle = lie == LIE_CIRCLE;
	for (unsigned i = 0; lie == LIE_ENDLESS || lie == LIE_ALL_DIRS || circle; i++) {
		bool dir = lie == LIE_ALL_DIRS;
		struct p9_dirent e = { .qid = { .type = dir ? P9_QTDIR : 0, .path = offset + i + 1 },
				       .offset = circle ? offset % 2 + 1 : offset + i + 1,
				       .type = dir ? 4 : 8,
				       .name = P9T_STR("name") };
		size_t k = p9_wire_dirent_put(payload + n, room - n, &e);
		n += (uint32_t)k;
		if (k == 0 || circle || (dir && offset == 0)) {
			break;
		}
		if (dir) {
			return 0; /* one in each */
		}
	}
	return n;
}

static void attributes(struct p9_msg *r)
{
	struct p9_rgetattr *a = &r->rgetattr;
	*a = (struct p9_rgetattr){ .valid = P9_GETATTR_ALL, .mode = S_IFREG | 0644, .size = 10, .nlink = 1 };
	a->valid = lie == LIE_VALID ? 0 : a->valid;
	a->size = lie == LIE_SIZE ? UINT64_C(1) << 63 : a->size;
	a->mtime_nsec = lie == LIE_NSEC ? 1000000000 : 0;
	a->mode = lie == LIE_TYPE || lie == LIE_ALL_DIRS ? S_IFDIR | 0755 : a->mode;
	a->qid.type = lie == LIE_ALL_DIRS ? P9_QTDIR : 0;
}

static void answer(const struct p9_msg *t, struct p9_msg *r)
{
	bool dirs = lie == LIE_ALL_DIRS || lie == LIE_ENDLESS || lie == LIE_CIRCLE;
	*r = (struct p9_msg){ .type = (uint8_t)(t->type + 1), .tag = t->tag };
	switch (t->type) {
	case P9_Tversion:
		r->rversion.msize = t->tversion.msize;
		r->rversion.version = t->tversion.version;
		break;
	case P9_Tattach:
		r->rattach.qid.type = P9_QTDIR;
		break;
	case P9_Twalk:
		r->rwalk.wqid.n = t->twalk.wname.n;
		for (int i = 0; i < t->twalk.wname.n; i++) {
			r->rwalk.wqid.v[i].type = dirs ? P9_QTDIR : 0;
		}
		break;
	case P9_Tgetattr:
		attributes(r);
		break;
	case P9_Treaddir:
		r->rreaddir.data = (struct p9_data){ entries(t->treaddir.offset, t->treaddir.count), payload };
		break;
	case P9_Tread:
		r->rread.data = (struct p9_data){ lie == LIE_NO_END ? t->tread.count : 0, payload };
		break;
	case P9_Txattrwalk:
		r->rxattrwalk.size = lie == LIE_XATTR_SIZE ? UINT64_MAX : 100;
		break;
	case P9_Tlock:
		r->rlock.status = 255;
		break;
	case P9_Tgetlock:
		r->rgetlock = (struct p9_rgetlock){ .type = 1, .start = 100, .length = UINT64_MAX - 50 };
		break;
	case P9_Treadlink:
		r->rreadlink.target = (struct p9_str){ "a\0b", 3 };
		break;
	case P9_Tunlinkat:
		r->type = lie == LIE_ALL_DIRS && !(t->tunlinkat.flags & P9_DOTL_AT_REMOVEDIR) ? P9_Rlerror : r->type;
		r->rlerror.ecode = r->type == P9_Rlerror ? P9_EISDIR : 0;
		break;
	default:
		break; /* an Rwrite of nothing, among others */
	}
}

static bool read_all(int fd, uint8_t *p, size_t n)
{
	while (n > 0) {
		ssize_t k = read(fd, p, n);
		if (k <= 0) {
			return false;
		}
		p += k;
		n -= (size_t)k;
	}
	return true;
}

static void *serve(void *arg)
{
	struct p9_msg t, r;
	while (read_all(fds[1], in, 4) && read_all(fds[1], in + 4, p9_get32(in) - 4)) {
		assert_int_equal(p9_wire_decode(in, p9_get32(in), 0, &t), 0);
		answer(&t, &r);
		int n = p9_wire_encode(out, sizeof(out), &r);
		if (n < 0 || write(fds[1], out, (size_t)n) != n) {
			break;
		}
	}
	return NULL;
}

static pthread_t server;

static int begin(void **state)
{
	struct p9_client_opts o = { .msize = 65536 };
	lie = LIE_NONE;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(pthread_create(&server, NULL, serve, NULL), 0);
	c = p9_client_new();
	return p9_client_start(c, fds[0], fds[0], true, &o);
}

static int end(void **state)
{
	bool dead = p9_client_dead(c);
	unsigned used = c->engine.nfids_used;
	p9_client_free(c);
	pthread_join(server, NULL);
	close(fds[1]);
	assert_true(dead || used == 1);
	return 0;
}

#define fails(error, call) assert_int_equal((call), -(error))

/* ---- */
static int stop(void *arg, const struct p9_fs_entry *e)
{
	return 0;
}

static void listings(void **state)
{
	struct p9_fs_dir *d;
	struct p9_fs_entry e;
	int rc = 0, n = 0;
	lie = LIE_ENDLESS;
	assert_int_equal(p9_dir_open(c, "/", P9_DIR_ATTRS, &d), 0);
	p9_dir_bound(d, 5000);
	while ((rc = p9_dir_next(d, &e)) > 0) {
		n++;
	}
	assert_int_equal(rc, -P9_EOVERFLOW);
	assert_int_equal(n, 5000);
	p9_dir_close(d);
	lie = LIE_CIRCLE;
	fails(P9_EPROTO, p9_list_dir(c, "/", P9_DIR_PLAIN, stop, NULL));
	fails(P9_EPROTO, p9_list_dir(c, "/", P9_DIR_ATTRS, stop, NULL));
	assert_false(p9_client_dead(c));
}

static int count(void *arg, const struct p9_visit *v)
{
	unsigned *deepest = arg;
	*deepest = v->depth > *deepest ? v->depth : *deepest;
	return 0;
}

static void trees(void **state)
{
	unsigned deepest = 0;
	lie = LIE_ALL_DIRS;
	fails(P9_ELOOP, p9_walk_tree(c, "/", 0, count, &deepest));
	assert_int_equal(deepest, P9_TREE_DEPTH);
	fails(P9_ELOOP, p9_remove_tree(c, "x"));
	assert_false(p9_client_dead(c));
}

static void xattr(void **state)
{
	char buf[200];
	lie = LIE_XATTR_SIZE;
	fails(P9_E2BIG, p9_getxattr(c, "f", 0, "user.a", buf, sizeof(buf)));
	fails(P9_E2BIG, p9_getxattr(c, "f", 0, "user.a", NULL, 0));
	fails(P9_E2BIG, p9_listxattr(c, "f", 0, buf, sizeof(buf)));
	fails(P9_ERANGE, p9_client_xattr_get(c, p9_client_root(c), "user.a", buf, sizeof(buf)));
	lie = LIE_XATTR_SHORT; /* 100 bytes, it says, and has none */
	fails(P9_EIO, p9_getxattr(c, "f", 0, "user.a", buf, sizeof(buf)));
	assert_false(p9_client_dead(c));
}

static void files(void **state)
{
	struct p9_fh *f;
	struct p9_rgetattr st;
	static uint8_t big[1000000];
	void *data;
	size_t n;
	struct p9_bytes b = { big, sizeof(big) };
	lie = LIE_WRITES_NOTHING;
	assert_int_equal(p9_open(c, "f", P9_O_RDWR, &f), 0);
	fails(P9_EIO, p9_pwrite(f, "x", 1, 0));
	fails(P9_EIO, p9_pwrite(f, big, sizeof(big), 0));
	fails(P9_EIO, p9_write_file(c, "f", &b, 0644, 0));
	fails(P9_EIO, p9_write_file(c, "f", &b, 0644, P9_WRITE_ATOMIC));
	lie = LIE_NO_END;
	fails(P9_EFBIG, p9_read_file(c, "f", 3000000, &data, &n));
	assert_int_equal(p9_pread(f, big, sizeof(big), 5), sizeof(big));
	lie = LIE_SIZE;
	fails(P9_EPROTO, p9_read_file(c, "f", SIZE_MAX, &data, &n));
	fails(P9_EPROTO, p9_stat(c, "f", &st));
	lie = LIE_VALID;
	fails(P9_EPROTO, p9_fstat(f, &st));
	lie = LIE_NSEC;
	fails(P9_EPROTO, p9_fstat(f, &st));
	lie = LIE_TYPE;
	fails(P9_EPROTO, p9_fstat(f, &st));
	lie = LIE_NONE;
	assert_int_equal(p9_fstat(f, &st), 0);
	assert_int_equal(p9_close(f), 0);
}

static void locks(void **state)
{
	struct p9_fh *f;
	struct p9_range r = { 0, 10, P9_LOCK_TYPE_WRLCK }, who;
	assert_int_equal(p9_open(c, "f", P9_O_RDWR, &f), 0);
	lie = LIE_LOCK;
	fails(P9_EPROTO, p9_range_lock(f, &r));
	fails(P9_EPROTO, p9_range_trylock(f, &r));
	fails(P9_EPROTO, p9_range_test(f, &r, &who));
	assert_int_equal(p9_close(f), 0);
}

static void links(void **state)
{
	char text[100];
	lie = LIE_LINK_NUL;
	fails(P9_EPROTO, p9_readlink(c, "f", text, sizeof(text)));
	assert_true(p9_client_dead(c)); /* that one breaks the protocol */
	assert_true(strstr(p9_client_error(c), "NUL") != NULL);
}

#define ONE(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ONE(listings), ONE(trees), ONE(xattr), ONE(files), ONE(locks), ONE(links),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
