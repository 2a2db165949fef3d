/* SPDX-License-Identifier: BSD-2-Clause */
/* check.c - the checks that a field's kind asks for, once, before any handler runs.
 *
 * Which kind has which check stands in proto/kinds.def; the answers are those of the hostile-input plan (SECURITY.md).
 * A check sees one field. What needs a session (is the fid live?) is dispatch's, in src/server/dispatch.c.
 */
#include "p9/codec.h"
#include "wire/kinds.h"

static int check_none(const void *v)
{
	(void)v;
	return 0;
}
#define check_fid check_none
#define check_dfid check_none
#define check_newfid check_none

static int check_element(const struct p9_str *s)
{
	if (s->len == 0 || memchr(s->s, '/', s->len) || memchr(s->s, 0, s->len)) {
		return -P9_EINVAL;
	}
	return s->len > P9_NAMEMAX ? -P9_ENAMETOOLONG : 0;
}
static bool is_dot(const struct p9_str *s)
{
	return s->len == 1 && s->s[0] == '.';
}
static bool is_dotdot(const struct p9_str *s)
{
	return s->len == 2 && s->s[0] == '.' && s->s[1] == '.';
}

static int check_name(const struct p9_str *s)
{
	return is_dot(s) || is_dotdot(s) ? -P9_EINVAL : check_element(s);
}
static int check_newname(const struct p9_str *s)
{
	return is_dot(s) || is_dotdot(s) ? -P9_EEXIST : check_element(s);
}
static int check_movename(const struct p9_str *s)
{
	return is_dot(s) || is_dotdot(s) ? -P9_EISDIR : check_element(s);
}
static int check_delname(const struct p9_str *s)
{
	if (is_dotdot(s)) {
		return -P9_ENOTEMPTY;
	}
	return is_dot(s) ? -P9_EINVAL : check_element(s);
}
static int check_names(const struct p9_strs *v)
{
	if (v->n > P9_MAXWELEM) {
		return -P9_EINVAL;
	}
	for (unsigned i = 0; i < v->n; i++) {
		int rc = is_dot(&v->v[i]) ? -P9_EINVAL : check_element(&v->v[i]);
		if (rc < 0) {
			return rc;
		}
	}
	return 0;
}
static int check_target(const struct p9_str *s)
{
	if (s->len == 0) {
		return -P9_ENOENT;
	}
	if (s->len > P9_TARGETMAX) {
		return -P9_ENAMETOOLONG;
	}
	return memchr(s->s, 0, s->len) ? -P9_EINVAL : 0;
}
static int check_xwalk(const struct p9_str *s)
{
	if (s->len > P9_NAMEMAX) {
		return -P9_ERANGE;
	}
	return s->len && memchr(s->s, 0, s->len) ? -P9_EINVAL : 0;
}
static int check_xname(const struct p9_str *s)
{
	return s->len == 0 ? -P9_ERANGE : check_xwalk(s);
}
static int check_oflags(const uint32_t *v)
{
	return (*v & P9_O_ACCMODE) == P9_O_ACCMODE ? -P9_EINVAL : 0;
}
static int check_setmask(const uint32_t *v)
{
	if (*v & ~(uint32_t)P9_SETATTR_ALL) {
		return -P9_EINVAL;
	}
	bool lone_atime = (*v & P9_SETATTR_ATIME_SET) && !(*v & P9_SETATTR_ATIME);
	bool lone_mtime = (*v & P9_SETATTR_MTIME_SET) && !(*v & P9_SETATTR_MTIME);
	return lone_atime || lone_mtime ? -P9_EINVAL : 0;
}
static int check_offset(const uint64_t *v)
{
	return *v > INT64_MAX ? -P9_EINVAL : 0;
}
static int check_locktype(const uint8_t *v)
{
	return *v > P9_LOCK_TYPE_UNLCK ? -P9_EINVAL : 0;
}
static int check_lockflags(const uint32_t *v)
{
	return *v & ~(uint32_t)(P9_LOCK_FLAGS_BLOCK | P9_LOCK_FLAGS_RECLAIM) ? -P9_EINVAL : 0;
}
static int check_atflags(const uint32_t *v)
{
	return *v & ~(uint32_t)P9_DOTL_AT_REMOVEDIR ? -P9_EINVAL : 0;
}
static int check_xflags(const uint32_t *v)
{
	return *v & ~(uint32_t)(P9_XATTR_CREATE | P9_XATTR_REPLACE) ? -P9_EINVAL : 0;
}

#define KIND(k, wire, check, print, fuzz, doc)                                                          \
	static inline __attribute__((unused)) int check_kind_##k(const p9_ctype_##wire *v)              \
	{                                                                                               \
		return check_##check(v);                                                                \
	}
#include "kinds.def"

int p9_wire_check(const struct p9_msg *msg)
{
	int rc;
	switch (msg->type) {
#define TMSG(lo, num, state, order, effect, doc) \
	case num: {                              \
		const struct p9_t##lo *m = &msg->t##lo;
#define RMSG(lo, num, doc) \
	case num: {        \
		const struct p9_r##lo *m = &msg->r##lo;
#define FIELD(kind, name, doc)                        \
		rc = check_kind_##kind(&m->name);     \
		if (rc < 0) {                         \
			return rc;                    \
		}
#define END(dir, lo)     \
		(void)m; \
		return 0; \
	}
#include "9p2000L.def"
	default:
		return -P9_EOPNOTSUPP;
	}
}
