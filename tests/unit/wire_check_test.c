/* SPDX-License-Identifier: BSD-2-Clause */
/* wire_check_test.c - the check of each kind of field, row by row, with the answers that SECURITY.md promises. */
#include "lib/p9t.h"

#define CHECK(want, ...)                                                  \
	do {                                                              \
		struct p9_msg check_m = __VA_ARGS__;                      \
		assert_int_equal(p9_wire_check(&check_m), -(int)(want));  \
	} while (0)

static const char name255[] =
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/* What each kind of name answers. Columns: name (all fields that may only name what is there and has no kind of its
 * own), newname, movename, delname. */
struct row {
	struct p9_str name;
	int newname, movename, delname, walk;
};

static const struct row rows[] = {
	{ { "f", 1 }, 0, 0, 0, 0 },
	{ { "...", 3 }, 0, 0, 0, 0 },
	{ { ".f", 2 }, 0, 0, 0, 0 },
	{ { "..f", 3 }, 0, 0, 0, 0 },
	{ { "\xff\xfe", 2 }, 0, 0, 0, 0 }, /* not UTF-8: bytes pass as they are */
	{ { "a\nb", 3 }, 0, 0, 0, 0 },
	{ { " ", 1 }, 0, 0, 0, 0 },
	{ { name255, 255 }, 0, 0, 0, 0 },
	{ { "", 0 }, P9_EINVAL, P9_EINVAL, P9_EINVAL, P9_EINVAL },
	{ { "/", 1 }, P9_EINVAL, P9_EINVAL, P9_EINVAL, P9_EINVAL },
	{ { "a/b", 3 }, P9_EINVAL, P9_EINVAL, P9_EINVAL, P9_EINVAL },
	{ { "/etc", 4 }, P9_EINVAL, P9_EINVAL, P9_EINVAL, P9_EINVAL },
	{ { "a/", 2 }, P9_EINVAL, P9_EINVAL, P9_EINVAL, P9_EINVAL },
	{ { "../x", 4 }, P9_EINVAL, P9_EINVAL, P9_EINVAL, P9_EINVAL },
	{ { "a\0b", 3 }, P9_EINVAL, P9_EINVAL, P9_EINVAL, P9_EINVAL },
	{ { "a\0", 2 }, P9_EINVAL, P9_EINVAL, P9_EINVAL, P9_EINVAL },
	{ { "\0", 1 }, P9_EINVAL, P9_EINVAL, P9_EINVAL, P9_EINVAL },
	{ { ".", 1 }, P9_EEXIST, P9_EISDIR, P9_EINVAL, P9_EINVAL },
	{ { "..", 2 }, P9_EEXIST, P9_EISDIR, P9_ENOTEMPTY, 0 },
};

static void names(void **state)
{
	for (unsigned i = 0; i < P9T_COUNT(rows); i++) {
		const struct row *w = &rows[i];
		CHECK(w->newname, { .type = P9_Tlcreate, .tlcreate = { .name = w->name } });
		CHECK(w->newname, { .type = P9_Tmkdir, .tmkdir = { .name = w->name } });
		CHECK(w->newname, { .type = P9_Tmknod, .tmknod = { .name = w->name } });
		CHECK(w->newname, { .type = P9_Tlink, .tlink = { .name = w->name } });
		CHECK(w->newname, { .type = P9_Tsymlink, .tsymlink = { .name = w->name, .symtgt = P9T_STR("t") } });
		CHECK(w->movename, { .type = P9_Trename, .trename = { .name = w->name } });
		CHECK(w->movename,
		      { .type = P9_Trenameat, .trenameat = { .oldname = w->name, .newname = P9T_STR("b") } });
		CHECK(w->movename,
		      { .type = P9_Trenameat, .trenameat = { .oldname = P9T_STR("a"), .newname = w->name } });
		CHECK(w->delname, { .type = P9_Tunlinkat, .tunlinkat = { .name = w->name } });
		CHECK(w->walk, { .type = P9_Twalk, .twalk = { .wname = { 1, { w->name } } } });
		CHECK(w->walk,
		      { .type = P9_Twalk, .twalk = { .wname = { 3, { P9T_STR("a"), P9T_STR(".."), w->name } } } });
	}
}

static void names_too_long(void **state)
{
	char text[65535];
	memset(text, 'a', sizeof(text));
	static const uint16_t lengths[] = { 256, 4095, 65535 };
	for (unsigned i = 0; i < P9T_COUNT(lengths); i++) {
		struct p9_str s = { text, lengths[i] };
		CHECK(P9_ENAMETOOLONG, { .type = P9_Tlcreate, .tlcreate = { .name = s } });
		CHECK(P9_ENAMETOOLONG, { .type = P9_Tunlinkat, .tunlinkat = { .name = s } });
		CHECK(P9_ENAMETOOLONG, { .type = P9_Trename, .trename = { .name = s } });
		CHECK(P9_ENAMETOOLONG, { .type = P9_Twalk, .twalk = { .wname = { 1, { s } } } });
		CHECK(P9_ERANGE, { .type = P9_Txattrwalk, .txattrwalk = { .name = s } });
		CHECK(P9_ERANGE, { .type = P9_Txattrcreate, .txattrcreate = { .name = s } });
	}
}

static void walks(void **state)
{
	struct p9_msg m = { .type = P9_Twalk };
	assert_int_equal(p9_wire_check(&m), 0);
	for (unsigned i = 0; i < 16; i++) {
		m.twalk.wname.v[i] = P9T_STR("x");
	}
	m.twalk.wname.n = 16;
	assert_int_equal(p9_wire_check(&m), 0);
	m.twalk.wname.n = 17;
	assert_int_equal(p9_wire_check(&m), -P9_EINVAL);
	m.twalk.wname.n = UINT16_MAX;
	assert_int_equal(p9_wire_check(&m), -P9_EINVAL);
	m.twalk.wname.n = 16;
	m.twalk.wname.v[15] = P9T_STR("a/b");
	assert_int_equal(p9_wire_check(&m), -P9_EINVAL);
}

static void symlink_targets(void **state)
{
	char text[4096];
	memset(text, '/', sizeof(text));
	CHECK(0, { .type = P9_Tsymlink, .tsymlink = { .name = P9T_STR("l"), .symtgt = P9T_STR("../../etc/passwd") } });
	CHECK(0, { .type = P9_Tsymlink, .tsymlink = { .name = P9T_STR("l"), .symtgt = { text, 4095 } } });
	CHECK(P9_ENAMETOOLONG, { .type = P9_Tsymlink, .tsymlink = { .name = P9T_STR("l"), .symtgt = { text, 4096 } } });
	CHECK(P9_ENOENT, { .type = P9_Tsymlink, .tsymlink = { .name = P9T_STR("l"), .symtgt = P9T_STR("") } });
	CHECK(P9_EINVAL, { .type = P9_Tsymlink, .tsymlink = { .name = P9T_STR("l"), .symtgt = P9T_STR("a\0b") } });
}

static void xattr_names(void **state)
{
	CHECK(0, { .type = P9_Txattrwalk, .txattrwalk = { .name = P9T_STR("") } });
	CHECK(0, { .type = P9_Txattrwalk, .txattrwalk = { .name = P9T_STR("user.a/b") } });
	CHECK(0, { .type = P9_Txattrwalk, .txattrwalk = { .name = { name255, 255 } } });
	CHECK(P9_EINVAL, { .type = P9_Txattrwalk, .txattrwalk = { .name = P9T_STR("user.a\0b") } });
	CHECK(P9_ERANGE, { .type = P9_Txattrcreate, .txattrcreate = { .name = P9T_STR("") } });
	CHECK(P9_EINVAL, { .type = P9_Txattrcreate, .txattrcreate = { .name = P9T_STR("\0") } });
	for (uint32_t flags = 0; flags < 9; flags++) {
		CHECK(flags > 3 ? P9_EINVAL : 0,
		      { .type = P9_Txattrcreate, .txattrcreate = { .name = P9T_STR("user.a"), .flags = flags } });
	}
}

/* Every value of a flags field up to 2^n, and each single bit. */
static void flags(void **state)
{
	for (unsigned bit = 0; bit < 32; bit++) {
		uint32_t v = 1u << bit;
		CHECK(v & ~0x1ffu || v == P9_SETATTR_ATIME_SET || v == P9_SETATTR_MTIME_SET ? P9_EINVAL : 0,
		      { .type = P9_Tsetattr, .tsetattr = { .valid = v } });
		CHECK(v != P9_DOTL_AT_REMOVEDIR ? P9_EINVAL : 0,
		      { .type = P9_Tunlinkat, .tunlinkat = { .name = P9T_STR("a"), .flags = v } });
		CHECK(v > 2 ? P9_EINVAL : 0, { .type = P9_Tlock, .tlock = { .flags = v } });
		/* Open flags that we do not know are for the operation to drop; only an impossible access mode is wrong. */
		CHECK(0, { .type = P9_Tlopen, .tlopen = { .flags = v } });
		CHECK(P9_EINVAL, { .type = P9_Tlopen, .tlopen = { .flags = v | P9_O_ACCMODE } });
		CHECK(P9_EINVAL, { .type = P9_Tlcreate, .tlcreate = { .name = P9T_STR("a"), .flags = v | 3 } });
	}
	CHECK(0, { .type = P9_Tsetattr, .tsetattr = { .valid = P9_SETATTR_ALL } });
	CHECK(0, { .type = P9_Tsetattr, .tsetattr = { .valid = P9_SETATTR_ATIME | P9_SETATTR_ATIME_SET } });
	CHECK(P9_EINVAL, { .type = P9_Tsetattr, .tsetattr = { .valid = P9_SETATTR_ATIME | P9_SETATTR_MTIME_SET } });
	CHECK(0, { .type = P9_Tgetattr, .tgetattr = { .request_mask = UINT64_MAX } });
}

static void offsets(void **state)
{
	static const struct {
		uint64_t v;
		int want;
	} cases[] = { { 0, 0 }, { INT64_MAX, 0 }, { (uint64_t)INT64_MAX + 1, P9_EINVAL }, { UINT64_MAX, P9_EINVAL } };
	for (unsigned i = 0; i < P9T_COUNT(cases); i++) {
		CHECK(cases[i].want, { .type = P9_Tread, .tread = { .offset = cases[i].v } });
		CHECK(cases[i].want, { .type = P9_Twrite, .twrite = { .offset = cases[i].v } });
		CHECK(cases[i].want, { .type = P9_Treaddir, .treaddir = { .offset = cases[i].v } });
		CHECK(cases[i].want, { .type = P9_Tlock, .tlock = { .start = cases[i].v } });
		CHECK(cases[i].want, { .type = P9_Tgetlock, .tgetlock = { .start = cases[i].v } });
	}
}

static void lock_types(void **state)
{
	for (unsigned type = 0; type < 256; type++) {
		CHECK(type > 2 ? P9_EINVAL : 0, { .type = P9_Tlock, .tlock = { .type = (uint8_t)type } });
		CHECK(type > 2 ? P9_EINVAL : 0, { .type = P9_Tgetlock, .tgetlock = { .type = (uint8_t)type } });
	}
}

/* Names of users and trees, versions and masks are not checked here: what they mean is the session's. */
static void free_fields(void **state)
{
	struct p9_str odd = P9T_STR("a/b\0\xff");
	CHECK(0, { .type = P9_Tversion, .tversion = { 0, odd } });
	CHECK(0, { .type = P9_Tattach, .tattach = { .fid = P9_NOFID, .uname = odd, .aname = odd } });
	CHECK(0, { .type = P9_Tauth, .tauth = { .uname = odd, .aname = odd } });
	CHECK(0, { .type = P9_Tflush, .tflush = { UINT16_MAX } });
	CHECK(P9_EOPNOTSUPP, { .type = 0 });
	CHECK(P9_EOPNOTSUPP, { .type = 106 });
	CHECK(P9_EOPNOTSUPP, { .type = 255 });
}

/* Whatever a random message holds, the answer is 0 or one of the errors that checks give. */
static void random_messages_get_an_answer(void **state)
{
	struct p9t_rng r = p9t_rng();
	static struct p9t_store store;
	for (unsigned type = 0; type < 256; type++) {
		for (unsigned i = 0; i < 500 && p9_wire_desc(type); i++) {
			struct p9_msg m;
			store.used = 0;
			p9t_random_msg(&r, &store, (uint8_t)type, &m);
			int rc = p9_wire_check(&m);
			assert_true(rc == 0 || rc == -P9_EINVAL || rc == -P9_ENAMETOOLONG || rc == -P9_EEXIST ||
				    rc == -P9_ERANGE || rc == -P9_EISDIR || rc == -P9_ENOTEMPTY || rc == -P9_ENOENT);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),       cmocka_unit_test(names_too_long),
		cmocka_unit_test(walks),       cmocka_unit_test(symlink_targets),
		cmocka_unit_test(xattr_names), cmocka_unit_test(flags),
		cmocka_unit_test(offsets),     cmocka_unit_test(lock_types),
		cmocka_unit_test(free_fields), cmocka_unit_test(random_messages_get_an_answer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
