/* SPDX-License-Identifier: BSD-2-Clause */
/* check.c - is this reply an answer to that request?
 *
 * A server is not trusted: every number in a reply that says how much there is, is compared with what was asked before
 * anyone uses it. engine.c calls p9_engine_check() for each reply once its head is decoded, and
 * p9_engine_check_entries() when the payload of an Rreaddir has arrived. What comes through here can be used without a
 * second look: counts fit their buffers, names are single path elements, an error is an error.
 */
#include "engine/engine.h"
#include "wire/cursor.h"

#define MAX_ECODE 4095

static bool has_byte(const struct p9_str *s, char c)
{
	for (unsigned i = 0; i < s->len; i++) {
		if (s->s[i] == c) {
			return true;
		}
	}
	return false;
}

static const char *check_version(const struct p9_slot *s, const struct p9_rversion *r)
{
	if (r->msize > s->asked) {
		return "msize is larger than asked for";
	}
	if (r->msize < P9_MSIZE_MIN && p9_cstr_is("9P2000.L", r->version.s, r->version.len)) {
		return "msize is below 4096";
	}
	return NULL;
}

static const char *check_target(const struct p9_str *t)
{
	return has_byte(t, 0) ? "NUL in the text of a link" : NULL;
}

const char *p9_engine_check(const struct p9_slot *s, const struct p9_msg *r)
{
	if (r->type == P9_Rlerror) {
		bool known = r->rlerror.ecode > 0 && r->rlerror.ecode <= MAX_ECODE;
		return known ? NULL : "an error number that is none";
	}
	if (r->type != s->type + 1) {
		return "reply of another type";
	}
	switch (r->type) {
	case P9_Rversion:
		return check_version(s, &r->rversion);
	case P9_Rread:
		return r->rread.data.len > s->asked ? "more bytes than asked for" : NULL;
	case P9_Rreaddir:
		return r->rreaddir.data.len > s->asked ? "more bytes than asked for" : NULL;
	case P9_Rwrite:
		return r->rwrite.count > s->asked ? "more bytes than were sent" : NULL;
	case P9_Rwalk:
		if (r->rwalk.wqid.n > s->asked) {
			return "more qids than names";
		}
		return s->asked && r->rwalk.wqid.n == 0 ? "no qid and no error" : NULL;
	case P9_Rreadlink:
		return check_target(&r->rreadlink.target);
	default:
		return NULL;
	}
}

static const char *check_name(const struct p9_str *n)
{
	if (n->len == 0) {
		return "entry without a name";
	}
	if (n->len > P9_NAMEMAX) {
		return "entry with a name above 255 bytes";
	}
	return has_byte(n, '/') || has_byte(n, 0) ? "entry with '/' or NUL in its name" : NULL;
}

const char *p9_engine_check_entries(const struct p9_slot *s, const struct p9_data *d)
{
	struct p9_dirent ent = { .offset = s->cookie + 1 };
	size_t pos = 0;
	int rc;
	while ((rc = p9_wire_dirent_get(d, &pos, &ent)) > 0) {
		const char *why = check_name(&ent.name);
		if (why) {
			return why;
		}
	}
	if (rc < 0) {
		return "entry cut short";
	}
	return ent.offset == s->cookie ? "offset that does not advance" : NULL;
}
