/* SPDX-License-Identifier: BSD-2-Clause */
/* talk_kit.c - the statements of a .9t script that only checks of the conformance kit need: scratch, file, optional,
 * skip.
 *
 * A check runs against a server of which nothing is known but its address, so all it needs is made by the protocol:
 * `scratch` attaches and walks to the directory that is the check's own, `file` makes a file in it. Both ask and wait on
 * the current connection, and fail the check when the answer is not the one that any server must give.
 */
#include <stdlib.h>
#include <string.h>
#include "p9/talk.h"

/* Fids of the kit; scripts use small ones. */
#define KIT_FID 0x7ffffff0u
#define KIT_TAG 0xfff0u
#define HEAD_MAX 1024u

/* Sends a message and waits for its reply, which must be of the next type. 0, or -1 after having said why. */
static int ask(struct talk_run *r, const struct talk_stmt *st, struct p9_msg *m)
{
	size_t size = p9_wire_size(m);
	uint8_t *b = p9_talk_alloc(&r->vars.tmp, size + 1);
	struct talk_frame *f = NULL;
	m->tag = KIT_TAG;
	int len = b ? p9_wire_encode(b, size, m) : -1;
	if (len < 0) {
		return p9_talk_fail(r->err, st->pos, "message too large");
	}
	p9_talk_trace(r, '>', b, (size_t)len);
	if (p9_talk_put(r->conn, b, (size_t)len) < 0 || !p9_talk_flush(r->conn, r->timeout_ms, false)) {
		return p9_talk_mismatch(r, st, "the peer takes nothing any more", NULL);
	}
	enum talk_got got = p9_talk_recv(r->conn, KIT_TAG, r->timeout_ms, &f);
	if (got != GOT_FRAME) {
		const char *const why = got == GOT_BROKEN   ? r->conn->broken
					: got == GOT_CLOSED ? "the peer closed the connection"
							    : "no answer";
		char text[512];
		snprintf(text, sizeof(text), "%s: %.300s", p9_wire_desc(m->type)->name, why);
		return p9_talk_mismatch(r, st, text, NULL);
	}
	p9_talk_trace(r, '<', f->b, f->len);
	int rc = f->rc == 0 && f->msg.type == m->type + 1u ? 0 : -1;
	if (rc == 0 && m->type == P9_Twalk && f->msg.rwalk.wqid.n != m->twalk.wname.n) {
		rc = -1;
	}
	if (rc == 0 && m->type == P9_Twrite && f->msg.rwrite.count != m->twrite.data.len) {
		rc = -1;
	}
	if (rc < 0) {
		char text[64];
		snprintf(text, sizeof(text), "%s for the check's own use failed", p9_wire_desc(m->type)->name);
		p9_talk_mismatch(r, st, text, f);
	}
	free(f);
	return rc;
}

static struct p9_str str(const char *s)
{
	return (struct p9_str){ s, (uint16_t)strlen(s) };
}

/* Makes fid the directory of the check. */
static int reach(struct talk_run *r, const struct talk_stmt *st, uint32_t fid)
{
	struct p9_msg a = { .type = P9_Tattach,
			    .tattach = { .fid = fid,
					 .afid = P9_NOFID,
					 .uname = str(""),
					 .aname = str(r->opt->aname),
					 .n_uname = r->opt->uid } };
	struct p9_msg w = { .type = P9_Twalk, .twalk = { .fid = fid, .newfid = fid } };
	if ((!r->conn && p9_talk_connect(r, true) < 0) || ask(r, st, &a) < 0) {
		return -1;
	}
	for (unsigned i = 0; i < 2 && r->opt->scratch[i]; i++) {
		w.twalk.wname.v[w.twalk.wname.n++] = str(r->opt->scratch[i]);
	}
	return w.twalk.wname.n ? ask(r, st, &w) : 0;
}

int p9_talk_scratch(struct talk_run *r, const struct talk_stmt *st)
{
	uint64_t fid = 0;
	if (st->a.n > 0 && p9_talk_eval_num(&r->vars, &st->a, &fid) < 0) {
		return -1;
	}
	return reach(r, st, (uint32_t)fid);
}

int p9_talk_file(struct talk_run *r, const struct talk_stmt *st)
{
	struct talk_text name, data;
	if (p9_talk_eval_text(&r->vars, &st->a, &name) < 0 || p9_talk_eval_text(&r->vars, &st->b, &data) < 0 ||
	    reach(r, st, KIT_FID) < 0) {
		return -1;
	}
	struct p9_msg c = { .type = P9_Tlcreate,
			    .tlcreate = { .fid = KIT_FID,
					  .name = { name.s, (uint16_t)name.len },
					  .flags = P9_O_WRONLY,
					  .mode = 0644,
					  .gid = r->opt->gid } };
	int rc = ask(r, st, &c);
	uint32_t msize = r->conn ? r->conn->msize : 0;
	size_t most = (msize > 8192 ? 8192 : msize > HEAD_MAX ? msize : HEAD_MAX) - P9_IOHDRSZ;
	for (size_t done = 0; rc == 0 && done < data.len;) {
		size_t n = data.len - done < most ? data.len - done : most;
		struct p9_msg w = { .type = P9_Twrite,
				    .twrite = { .fid = KIT_FID,
						.offset = done,
						.data = { (uint32_t)n, (const uint8_t *)data.s + done } } };
		rc = ask(r, st, &w);
		done += n;
	}
	struct p9_msg k = { .type = P9_Tclunk, .tclunk = { .fid = KIT_FID } };
	return rc < 0 ? rc : ask(r, st, &k);
}

int p9_talk_optional(struct talk_run *r, const struct talk_stmt *st)
{
	r->optional = st;
	return 0;
}

bool p9_talk_missing(struct talk_run *r, const struct p9_msg *m)
{
	const struct talk_stmt *o = r->optional;
	if (!o || m->type != P9_Rlerror) {
		return false;
	}
	uint32_t e = m->rlerror.ecode;
	bool hit = e == P9_EOPNOTSUPP || e == P9_ENOSYS;
	struct talk_val list;
	if (o->a.n > 0 && p9_talk_eval(&r->vars, &o->a, &list) == 0) {
		hit = false;
		for (uint64_t i = 0; list.kind == VAL_LIST && i < list.num; i++) {
			hit |= list.v[i].kind == VAL_NUM && list.v[i].num == e;
		}
	}
	if (hit) {
		snprintf(r->skip, sizeof(r->skip), "no %.*s here (%s)", (int)o->name.len, o->name.s, p9_error_name(e));
	}
	return hit;
}

int p9_talk_skip(struct talk_run *r, const struct talk_stmt *st)
{
	char why[1024];
	int rc = p9_talk_condition(r, &st->fields[0], why, sizeof(why));
	if (rc == 0) {
		snprintf(r->skip, sizeof(r->skip), "%.*s", (int)st->name.len, st->name.s);
	}
	return rc < 0 ? -1 : 0;
}
