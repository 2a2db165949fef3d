/* SPDX-License-Identifier: BSD-2-Clause */
/* vfs_odd_test.c - sessions with servers that are odd, old, hostile or random; and a million operations.
 *
 * The servers are functions: a small tree in memory that counts its fids, with switches for what real servers do
 * differently, and one whose replies are damaged. Messages travel whole, as over virtio.
 */
#include <stdbool.h>
#include "unit/vfs_test.h"

/* ---- a small server ---- */
enum { NODES = 8, FIDS = 64 };
struct node {
	const char *name, *target;
	int parent;
	uint8_t type;
	uint32_t size;
};
static const struct node nodes[NODES] = {
	{ "", NULL, 0, P9_QTDIR, 0 },
	{ "d", NULL, 0, P9_QTDIR, 0 },
	{ "f", NULL, 1, 0, 100000 },
	{ "link", "d/f", 0, P9_QTSYMLINK, 0 },
	{ "up", "../d", 1, P9_QTSYMLINK, 0 },
	{ "e", NULL, 1, P9_QTDIR, 0 },
	{ "g", NULL, 5, 0, 10 },
	{ "dir", "/d", 0, P9_QTSYMLINK, 0 },
};
static struct small {
	int fid[FIDS]; /* node + 1; 0: not in use */
	unsigned live, most;
	bool all_or_error; /* Twalk of QEMU before 7.0: an error when any name is not there */
	bool makes_short;  /* diod: a walk that came short makes its fid */
	bool no_renameat;
	uint32_t msize, iounit, short_io;
	unsigned renames;
} sm;

static int find(int dir, const struct p9_str *n)
{
	if (n->len == 2 && memcmp(n->s, "..", 2) == 0) {
		return nodes[dir].parent;
	}
	for (int i = 1; i < NODES; i++) {
		if (nodes[i].parent == dir && strlen(nodes[i].name) == n->len &&
		    memcmp(nodes[i].name, n->s, n->len) == 0) {
			return i;
		}
	}
	return -1;
}

static struct p9_qid qid(int i)
{
	return (struct p9_qid){ nodes[i].type, 0, (uint64_t)i };
}

static void set_fid(uint32_t fid, int node)
{
	assert_true(fid < FIDS);
	sm.live += !sm.fid[fid];
	sm.fid[fid] = node + 1;
	sm.most = sm.live > sm.most ? sm.live : sm.most;
}

static int small_walk(const struct p9_twalk *t, struct p9_rwalk *r)
{
	int at = sm.fid[t->fid] - 1;
	assert_true(!sm.fid[t->newfid]);
	for (r->wqid.n = 0; r->wqid.n < t->wname.n; r->wqid.n++) {
		int next = nodes[at].type & P9_QTDIR ? find(at, &t->wname.v[r->wqid.n]) : -1;
		if (next < 0) {
			break;
		}
		at = next;
		r->wqid.v[r->wqid.n] = qid(at);
	}
	bool whole = r->wqid.n == t->wname.n;
	if (!whole && (r->wqid.n == 0 || sm.all_or_error)) {
		return -P9_ENOENT;
	}
	if (whole || sm.makes_short) {
		set_fid(t->newfid, at);
	}
	return 0;
}

static int small_readdir(const struct p9_treaddir *t, struct p9_rreaddir *r)
{
	static uint8_t buf[4096];
	int dir = sm.fid[t->fid] - 1;
	size_t n = 0;
	for (uint64_t i = t->offset + 1; i < NODES; i++) {
		if (nodes[i].parent == dir) {
			struct p9_dirent e = { qid((int)i), i, 8, { nodes[i].name, (uint16_t)strlen(nodes[i].name) } };
			size_t room = t->count < sizeof(buf) ? t->count : sizeof(buf);
			size_t k = p9_wire_dirent_put(buf + n, room - n, &e);
			if (k == 0) {
				break;
			}
			n += k;
		}
	}
	r->data = (struct p9_data){ (uint32_t)n, buf };
	return 0;
}

static int small_io(const struct p9_msg *t, struct p9_msg *r)
{
	static uint8_t zeros[1 << 17];
	if (t->type == P9_Twrite) {
		r->rwrite.count = sm.short_io && t->twrite.data.len > sm.short_io ? sm.short_io : t->twrite.data.len;
		return 0;
	}
	uint64_t size = nodes[sm.fid[t->tread.fid] - 1].size;
	uint64_t left = t->tread.offset < size ? size - t->tread.offset : 0;
	uint32_t n = left < t->tread.count ? (uint32_t)left : t->tread.count;
	n = sm.short_io && n > sm.short_io ? sm.short_io : n;
	for (uint32_t i = 0; i < n; i++) {
		zeros[i] = (uint8_t)((t->tread.offset + i) * 7);
	}
	r->rread.data = (struct p9_data){ n, zeros };
	return 0;
}

/* Fids are looked at for every message: one that is not in use fails the test, as does one that is made twice. */
static int small_answer(struct odd *o, const struct p9_msg *t, struct p9_msg *r)
{
	(void)o;
	if (t->type == P9_Tversion) {
		r->rversion.version = P9T_STR("9P2000.L");
		r->rversion.msize = t->tversion.msize < sm.msize ? t->tversion.msize : sm.msize;
		return 0;
	}
	if (t->type == P9_Tattach) {
		assert_false(sm.fid[t->tattach.fid]);
		set_fid(t->tattach.fid, 0);
		r->rattach.qid = qid(0);
		return 0;
	}
	uint32_t fid = t->tclunk.fid; /* the first field of all that are left */
	if (t->type == P9_Tclunk && !sm.fid[fid]) {
		return -P9_EBADF; /* after a walk that came short */
	}
	assert_true(fid < FIDS && sm.fid[fid]);
	int node = sm.fid[fid] - 1;
	switch (t->type) {
	case P9_Twalk:
		return small_walk(&t->twalk, &r->rwalk);
	case P9_Tclunk:
		sm.fid[fid] = 0;
		sm.live--;
		return 0;
	case P9_Tlopen:
		r->rlopen.iounit = sm.iounit;
		r->rlopen.qid = qid(node);
		return 0;
	case P9_Tlcreate:
		sm.fid[fid] = 6 + 1;
		return 0;
	case P9_Tgetattr:
		r->rgetattr.mode = nodes[node].type & P9_QTDIR ? 0040755 : 0100644;
		r->rgetattr.size = nodes[node].size;
		r->rgetattr.qid = qid(node);
		return 0;
	case P9_Treadlink:
		if (!nodes[node].target) {
			return -P9_EINVAL;
		}
		r->rreadlink.target = (struct p9_str){ nodes[node].target, (uint16_t)strlen(nodes[node].target) };
		return 0;
	case P9_Treaddir:
		return small_readdir(&t->treaddir, &r->rreaddir);
	case P9_Tread:
	case P9_Twrite:
		return small_io(t, r);
	case P9_Trenameat:
		return sm.no_renameat ? -P9_EOPNOTSUPP : 0;
	case P9_Trename:
		sm.renames++;
		return 0;
	default:
		return 0;
	}
}

static struct odd odd;
static struct p9_session *s;

static int try_begin(int (*answer)(struct odd *, const struct p9_msg *, struct p9_msg *), unsigned buffers)
{
	struct p9_session_conf conf = { .nfids = FIDS, .msize = 65536 };
	int rc;
	odd_init(&odd, answer);
	odd.buffers = buffers;
	s = session_over(&odd.port.port, conf, &rc);
	return rc;
}

static void begin(const struct small *how, unsigned buffers)
{
	sm = *how;
	sm.msize = sm.msize ? sm.msize : 65536;
	assert_int_equal(try_begin(small_answer, buffers), 0);
}

static void end(void)
{
	if (!p9_session_dead(s)) {
		assert_int_equal(p9_session_drain(s), 0);
		assert_int_equal(p9_session_fids(s), 1);
		assert_int_equal(sm.live, 1);
	}
	free(s);
	odd_fini(&odd);
}

static int count_entry(void *arg, const struct p9_entry *e)
{
	(void)e;
	++*(unsigned *)arg;
	return 0;
}

static void every_call(void)
{
	static uint8_t buf[150000];
	struct p9_rgetattr st;
	char text[10];
	unsigned n = 0;
	struct p9_lister l = { .each = count_entry, .arg = &n, .sizes = true };
	struct p9_handle h;
	assert_int_equal(p9_session_stat(s, "d/up/up/e/g", &st), 0);
	assert_int_equal(st.size, 10);
	assert_int_equal(p9_session_stat(s, "dir/e/../e/./g", &st), 0);
	assert_int_equal(p9_session_stat(s, "d/e/no", &st), -P9_ENOENT);
	assert_int_equal(p9_session_stat(s, "d/no/no/no", &st), -P9_ENOENT);
	assert_int_equal(p9_session_stat(s, "d/f/no", &st), -P9_ENOTDIR);
	assert_int_equal(p9_session_stat(s, "no", &st), -P9_ENOENT);
	assert_int_equal(p9_session_read_file(s, "link", buf, sizeof(buf)), 100000);
	for (unsigned i = 0; i < 100000; i++) {
		assert_int_equal(buf[i], (uint8_t)(i * 7));
	}
	assert_int_equal(p9_session_open(s, "d/new", P9_O_CREAT | P9_O_WRONLY, 0644, &h), 0);
	assert_int_equal(p9_session_write(s, &h, 0, buf, 100000), 100000);
	assert_int_equal(p9_session_close(s, &h), 0);
	assert_int_equal(p9_session_list(s, "d", &l), 0);
	assert_int_equal(n, 3);
	assert_int_equal(p9_session_rename(s, "d/f", "d/e/f"), 0);
	assert_int_equal(p9_session_readlink(s, "link", text, sizeof(text)), 3);
	assert_int_equal(p9_session_mkdir(s, "d/dd", 0755), 0);
	assert_int_equal(p9_session_remove(s, "d/e/g"), 0);
}

static void kinds_of_servers(void **state)
{
	static const struct small kinds[] = {
		{ .msize = 0 },		 { .all_or_error = true }, { .makes_short = true },
		{ .no_renameat = true }, { .msize = 4096 },	   { .msize = 4096, .short_io = 1000 },
		{ .iounit = 1 },	 { .iounit = 8192 },	   { .iounit = UINT32_MAX },
		{ .short_io = 777 },
	};
	(void)state;
	for (size_t i = 0; i < P9T_COUNT(kinds); i++) {
		for (unsigned buffers = 1; buffers <= 8; buffers += 7) {
			begin(&kinds[i], buffers);
			every_call();
			assert_int_equal(sm.renames, kinds[i].no_renameat);
			end();
		}
	}
}

static void a_million(void **state)
{
	struct p9_rgetattr st;
	static uint8_t buf[100000];
	unsigned n = 0, ops = 0;
	struct p9_lister l = { .each = count_entry, .arg = &n, .sizes = true };
	(void)state;
	begin(&(struct small){ .makes_short = true }, 1);
	while (ops < 1000000) {
		assert_int_equal(p9_session_stat(s, "d/up/e/g", &st), 0);
		assert_int_equal(p9_session_stat(s, "d/e/no/x", &st), -P9_ENOENT);
		assert_int_equal(p9_session_lstat(s, "link", &st), 0);
		assert_int_equal(p9_session_read_file(s, "d/e/g", buf, 100), 10);
		assert_int_equal(p9_session_write_file(s, "d/e/g", buf, 10, 0644), 0);
		assert_int_equal(p9_session_rename(s, "d/f", "d/e/f"), 0);
		assert_int_equal(p9_session_chmod(s, "d/f", 0600), 0);
		assert_int_equal(p9_session_mkdir(s, "x", 0600), 0);
		assert_int_equal(p9_session_remove(s, "d/e"), 0);
		assert_int_equal(p9_session_list(s, "d/e", &l), 0);
		ops += 10;
	}
	assert_true(sm.most < 10);
	end();
}

/* ---- hostile: one reply after the session began ---- */
static struct p9_msg lie;
static uint8_t lie_to;
static int lie_rc;

static int liar(struct odd *o, const struct p9_msg *t, struct p9_msg *r)
{
	if (t->type != lie_to) {
		return small_answer(o, t, r);
	}
	if (lie_rc == 0) {
		*r = lie;
	}
	return lie_rc;
}

static void begin_lie(uint8_t to, int rc)
{
	sm = (struct small){ .msize = 65536 };
	lie = (struct p9_msg){ 0 };
	lie_to = to;
	lie_rc = rc;
	assert_int_equal(try_begin(liar, 4), 0);
}
static void end_lie(void)
{
	if (!p9_session_dead(s)) {
		assert_int_equal(p9_session_drain(s), 0);
	}
	sm.live = 1; /* what the liar did not say to the small server */
	end();
}

static void lies(void **state)
{
	static char long_text[65536];
	struct p9_rgetattr st;
	struct p9_handle h;
	uint8_t buf[100];
	char text[10];
	(void)state;
	/* writes that never write */
	begin_lie(P9_Twrite, 0);
	assert_int_equal(p9_session_write_file(s, "d/f", "12345", 5, 0644), -P9_EIO);
	end_lie();
	begin_lie(P9_Twrite, 0);
	lie.rwrite.count = 6;
	assert_int_equal(p9_session_write_file(s, "d/f", "12345", 5, 0644), -P9_EPROTO);
	assert_int_equal(p9_session_dead(s), -P9_EPROTO);
	end_lie();
	/* an attribute that is smaller or larger than it says */
	begin_lie(P9_Txattrwalk, 0);
	lie.rxattrwalk.size = UINT64_MAX;
	assert_int_equal(p9_session_xattr_get(s, "d/f", "user.x", buf, 100), -P9_E2BIG);
	lie.rxattrwalk.size = 101;
	assert_int_equal(p9_session_xattr_get(s, "d/f", "user.x", buf, 100), -P9_ERANGE);
	free(s);
	odd_fini(&odd);
	/* texts of links */
	begin_lie(P9_Treadlink, 0);
	memset(long_text, 'l', sizeof(long_text));
	lie.rreadlink.target = (struct p9_str){ long_text, 4096 };
	assert_int_equal(p9_session_stat(s, "link", &st), -P9_ENAMETOOLONG);
	lie.rreadlink.target.len = 0;
	assert_int_equal(p9_session_stat(s, "link", &st), -P9_ENOENT);
	lie.rreadlink.target = P9T_STR("link");
	assert_int_equal(p9_session_stat(s, "link", &st), -P9_ELOOP);
	lie.rreadlink.target = P9T_STR("///");
	assert_int_equal(p9_session_stat(s, "link/d", &st), 0);
	lie.rreadlink.target = (struct p9_str){ long_text, 60000 };
	assert_int_equal(p9_session_readlink(s, "link", text, 10), -P9_ERANGE);
	end_lie();
	/* opening says something odd */
	begin_lie(P9_Tlopen, -4000);
	assert_int_equal(p9_session_open(s, "d/f", P9_O_RDONLY, 0, &h), -4000);
	end_lie();
	/* a file that is never there to open, and never absent to be made */
	begin_lie(P9_Tlcreate, -P9_EEXIST);
	assert_int_equal(p9_session_open(s, "d/new", P9_O_RDWR | P9_O_CREAT, 0644, &h), -P9_EEXIST);
	end_lie();
	/* no answer */
	begin_lie(P9_Tgetattr, 2);
	assert_int_equal(p9_session_stat(s, "d/f", &st), -P9_ETIMEDOUT);
	assert_int_equal(p9_session_stat(s, "d/f", &st), -P9_ETIMEDOUT);
	end_lie();
}

/* A listing in a circle of any length ends. */
static unsigned circle;
static int circling(struct odd *o, const struct p9_msg *t, struct p9_msg *r)
{
	static uint8_t buf[100];
	if (t->type != P9_Treaddir) {
		return small_answer(o, t, r);
	}
	uint64_t next = t->treaddir.offset % circle + 1;
	struct p9_dirent e = { qid(2), next, 8, P9T_STR("f") };
	r->rreaddir.data = (struct p9_data){ (uint32_t)p9_wire_dirent_put(buf, sizeof(buf), &e), buf };
	return 0;
}

static void circles(void **state)
{
	(void)state;
	for (circle = 2; circle < 3000; circle = circle < 20 ? circle + 1 : circle * 3) {
		unsigned n = 0;
		struct p9_lister l = { .each = count_entry, .arg = &n };
		sm = (struct small){ .msize = 65536 };
		assert_int_equal(try_begin(circling, 1), 0);
		assert_int_equal(p9_session_list(s, "d", &l), -P9_EIO);
		assert_true(n <= 4 * circle + 4);
		end();
	}
}

/* What a transport may bring that is no message, and refusals to begin. */
static int garbage(struct odd *o, const struct p9_msg *t, struct p9_msg *r)
{
	return t->type == P9_Tgetattr ? 1 : small_answer(o, t, r);
}
static int refuse(struct odd *o, const struct p9_msg *t, struct p9_msg *r)
{
	return t->type == lie_to ? -P9_EACCES : small_answer(o, t, r);
}
static int unknown_version(struct odd *o, const struct p9_msg *t, struct p9_msg *r)
{
	(void)o;
	r->rversion.msize = t->tversion.msize;
	r->rversion.version = P9T_STR("unknown");
	return 0;
}

static void bad_messages(void **state)
{
	static const char *const frames[] = { "",
					      "07",
					      "07000000",
					      "070000007801",
					      "080000007900",
					      "07000000790000",
					      "0b0000000700000100",
					      "ffffffff790000" };
	struct p9_rgetattr st;
	(void)state;
	for (size_t i = 0; i < P9T_COUNT(frames); i++) {
		sm = (struct small){ .msize = 65536 };
		assert_int_equal(try_begin(garbage, 1), 0);
		odd.raw_len = (uint32_t)p9t_hex(frames[i], odd.raw, sizeof(odd.raw));
		int rc = p9_session_stat(s, "d/f", &st);
		assert_true(rc == -P9_EPROTO || (odd.raw_len == 0 && rc == -P9_ETIMEDOUT));
		assert_int_equal(p9_session_dead(s), rc);
		end();
	}
	sm = (struct small){ .msize = 65536 };
	lie_to = P9_Tversion;
	assert_int_equal(try_begin(refuse, 1), -P9_EACCES);
	end();
	sm = (struct small){ .msize = 65536 };
	lie_to = P9_Tattach;
	assert_int_equal(try_begin(refuse, 1), -P9_EACCES);
	assert_true(strlen(p9_session_error(s)) > 0);
	end();
	assert_int_equal(try_begin(unknown_version, 1), -P9_EPROTONOSUPPORT);
	end();
}

/* ---- random ---- */
static struct p9t_rng rng;
static unsigned odds; /* one reply of so many is not as it should be */

/* Any type, any fields; or the small server's answer with bytes changed. */
static int random_answer(struct odd *o, const struct p9_msg *t, struct p9_msg *r)
{
	static struct p9t_store store;
	static uint8_t frame[70000];
	if (t->type == P9_Twalk && sm.fid[t->twalk.newfid]) { /* its clunk was answered by a lie */
		sm.fid[t->twalk.newfid] = 0;
		sm.live--;
	}
	if (t->type == P9_Tversion || t->type == P9_Tattach || p9t_rand_below(&rng, odds) != 0) {
		return sm.fid[t->tclunk.fid % FIDS] || t->type == P9_Tversion || t->type == P9_Tattach
			       ? small_answer(o, t, r)
			       : -P9_EBADF;
	}
	switch (odds > 100 ? 0 : p9t_rand_below(&rng, 4)) {
	case 0:
		return -1 - (int)p9t_rand_below(&rng, 5000);
	case 1:
		store.used = 0;
		p9t_random_msg(&rng, &store, (uint8_t)(t->type + 1), r);
		if (p9_wire_size(r) > 60000) {
			return -P9_EIO;
		}
		return 0;
	case 2:
		o->raw_len = (uint32_t)p9t_rand_below(&rng, 60);
		for (unsigned i = 0; i < o->raw_len; i++) {
			o->raw[i] = (uint8_t)p9t_rand(&rng);
		}
		if (o->raw_len > 7 && p9t_rand_below(&rng, 2)) {
			memcpy(o->raw, &o->raw_len, 4);
			o->raw[4] = (uint8_t)(t->type + 1);
			memcpy(o->raw + 5, &t->tag, 2);
		}
		return 1;
	default: {
		int rc = sm.fid[t->tclunk.fid % FIDS] ? small_answer(o, t, r) : -P9_EBADF;
		r->tag = t->tag;
		r->type = (uint8_t)(t->type + 1);
		int n = rc < 0 ? 0 : p9_wire_encode(frame, sizeof(frame), r);
		if (n <= 0 || n > (int)sizeof(o->raw)) {
			return rc;
		}
		memcpy(o->raw, frame, (size_t)n);
		o->raw_len = (uint32_t)n;
		o->raw[7 + p9t_rand_below(&rng, (uint64_t)n - 6) % (unsigned)(n > 7 ? n - 7 : 1)] ^=
			(uint8_t)(1u << p9t_rand_below(&rng, 8));
		return 1;
	}
	}
}

static void random_call(void)
{
	static const char *const paths[] = { "d/up/e/g", "dir/e",	 "link", "",
					     "d/e/no",	 "d/up/up/up/f", "x/y",	 "d/e/../../link" };
	static uint8_t buf[120000];
	struct p9_rgetattr st;
	struct p9_rstatfs fs;
	struct p9_handle h;
	unsigned n = 0;
	int64_t rc = 0;
	struct p9_lister l = { .each = count_entry, .arg = &n, .sizes = p9t_rand_below(&rng, 2) };
	const char *p = paths[p9t_rand_below(&rng, P9T_COUNT(paths))];
	switch (p9t_rand_below(&rng, 14)) {
	case 0:
		rc = p9_session_stat(s, p, &st);
		break;
	case 1:
		rc = p9_session_list(s, p, &l);
		break;
	case 2:
		rc = p9_session_read_file(s, p, buf, sizeof(buf));
		break;
	case 3:
		rc = p9_session_write_file(s, p, buf, sizeof(buf), 0644);
		break;
	case 4:
		rc = p9_session_append(s, p, buf, 100, 0644);
		break;
	case 5:
		rc = p9_session_rename(s, p, "d/x");
		break;
	case 6:
		rc = p9_session_readlink(s, p, (char *)buf, 100);
		break;
	case 7:
		rc = p9_session_xattr_get(s, p, "user.x", buf, 1000);
		break;
	case 8:
		rc = p9_session_xattr_set(s, p, &(struct p9_xattr){ "user.x", buf, 1000, 0 });
		break;
	case 9:
		rc = p9_session_remove(s, p);
		break;
	case 10:
		rc = p9_session_statfs(s, p, &fs);
		break;
	case 11:
		rc = p9_session_link(s, p, "d/l");
		break;
	case 12:
		rc = p9_session_truncate(s, p, 10);
		break;
	default:
		rc = p9_session_open(s, p, P9_O_RDWR | P9_O_CREAT, 0600, &h);
		rc = rc < 0 ? rc : p9_session_close(s, &h);
		break;
	}
	assert_true(rc >= -4095);
}

/* Whatever comes: no crash (ASan looks), no endless loop, and while the link lives the fids come back. */
static void random_servers(void **state)
{
	unsigned lived = 0, calls = 0;
	(void)state;
	rng = p9t_rng();
	for (unsigned i = 0; i < 5000; i++) {
		sm = (struct small){ .msize = 65536, .makes_short = i % 2 };
		odds = 3 + i % 200;
		assert_int_equal(try_begin(random_answer, 1 + i % 4), 0);
		for (unsigned k = 0; k < 50 && !p9_session_dead(s); k++) {
			random_call();
			calls++;
		}
		if (!p9_session_dead(s) && p9_session_drain(s) == 0) {
			assert_int_equal(p9_session_fids(s), 1);
			lived++;
		}
		free(s);
		odd_fini(&odd);
	}
	print_message("%u calls, %u of 5000 sessions survived\n", calls, lived);
	assert_true(calls > 50000 && lived > 1000 && lived < 4500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kinds_of_servers), cmocka_unit_test(lies),	      cmocka_unit_test(circles),
		cmocka_unit_test(bad_messages),	    cmocka_unit_test(random_servers), cmocka_unit_test(a_million),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
