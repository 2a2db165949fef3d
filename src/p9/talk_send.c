/* SPDX-License-Identifier: BSD-2-Clause */
/* talk_send.c - the statements of a .9t script that open connections and send: tx, version, raw, and what changes the
 * next message (cut, trim, pad, split, flood).
 *
 * A connection is opened by the first statement that needs it, and begins with a Tversion unless the script said
 * noversion. A tx without tag= takes a free one, 100 if it can, so tags below 100 are the script's own.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/addr.h"
#include "p9/talk.h"

#define FIRST_AUTO_TAG 100u
#define FLOOD_STALL_MS 300

void p9_talk_trace(const struct talk_run *r, char dir, const void *frame, size_t len)
{
	struct p9_msg m = { 0 };
	char text[512];
	if (!r->opt->verbose) {
		return;
	}
	if (p9_wire_decode(frame, len, 0, &m) == 0) {
		p9_wire_print(text, sizeof(text), &m);
		printf("# %c %s\n", dir, text);
		return;
	}
	printf("# %c %zu bytes:", dir, len);
	for (size_t i = 0; i < len && i < 32; i++) {
		printf(" %02x", ((const uint8_t *)frame)[i]);
	}
	printf("%s\n", len > 32 ? " ..." : "");
}

static uint16_t free_tag(struct talk_conn *c)
{
	if (!p9_talk_tag_busy(c, FIRST_AUTO_TAG)) {
		return FIRST_AUTO_TAG;
	}
	for (unsigned n = 0; n < P9_NOTAG; n++) {
		bool wrap = c->auto_tag < FIRST_AUTO_TAG || c->auto_tag == P9_NOTAG - 1;
		c->auto_tag = (uint16_t)(wrap ? FIRST_AUTO_TAG : c->auto_tag + 1u);
		if (!p9_talk_tag_busy(c, c->auto_tag)) {
			break;
		}
	}
	return c->auto_tag;
}

/* ---- opening ---- */

static int dial(struct talk_run *r, int *in, int *out, struct p9_front **front)
{
	struct talk_pos pos = r->script->stmts[r->pc].pos;
	struct p9_addr a;
	char why[P9_TALK_FRONT_ERR];
	if (p9_addr_parse(&a, r->opt->addr, why, sizeof(why)) < 0 ||
	    p9_addr_connect(&a, in, out, why, sizeof(why)) < 0) {
		return p9_talk_fail(r->err, pos, "%s", why);
	}
	if (a.kind == P9_ADDR_VHOST) {
		int fd = *in;
		*in = *out = -1;
		return p9_talk_front_open(&a, fd, front, why) < 0 ? p9_talk_fail(r->err, pos, "%s", why) : 0;
	}
	if (a.kind != P9_ADDR_FD && a.kind != P9_ADDR_STDIO) {
		return 0;
	}
	/* The only connection there is: the next test needs it too. */
	bool one = *in == *out;
	*in = fcntl(*in, F_DUPFD_CLOEXEC, 0);
	*out = one ? *in : fcntl(*out, F_DUPFD_CLOEXEC, 0);
	return *in < 0 || *out < 0 ? p9_talk_fail(r->err, pos, "%s: not open", r->opt->addr) : 0;
}

int p9_talk_connect(struct talk_run *r, bool version)
{
	const struct talk_stmt *st = &r->script->stmts[r->pc];
	int in = -1, out = -1;
	struct p9_front *front = NULL;
	pid_t child = 0;
	if (r->opt->spawn) {
		const struct talk_cmd cmd = { r->opt->host_dir, r->opt->spawn, NULL, 0 };
		child = p9_talk_spawn(&cmd, false, &in);
		out = in;
	} else if (dial(r, &in, &out, &front) < 0) {
		return -1;
	}
	struct talk_conn *c = child < 0 ? NULL : p9_talk_conn_new(r->name, in, out);
	if (!c) {
		return p9_talk_fail(r->err, st->pos, "cannot start \"%s\"", r->opt->spawn ? r->opt->spawn : "");
	}
	c->child = child;
	c->front = front;
	c->next = r->conns;
	r->conns = r->conn = c;
	const struct talk_stmt plain = {
		.kind = ST_VERSION, .pos = st->pos, .source = { "version", 7 }, .msg = p9_wire_desc(P9_Tversion)
	};
	return version && !r->noversion ? p9_talk_version(r, &plain) : 0;
}

int p9_talk_close(struct talk_run *r, struct talk_conn *c, struct talk_pos pos)
{
	for (struct talk_conn **pp = &r->conns; *pp; pp = &(*pp)->next) {
		if (*pp == c) {
			*pp = c->next;
			break;
		}
	}
	if (r->conn == c) {
		r->conn = NULL;
	}
	bool serving = c && c->serving;
	int status = p9_talk_conn_free(c);
	if (status == 0 || serving) {
		return 0;
	}
	return p9_talk_fail(r->err, pos,
			    status < 0 ? "the server did not end after its connection, killed (%d)"
				       : "the server ended with status %d",
			    status);
}

/* ---- sending ---- */

/* cut, trim and pad, once. `out` is in memory of the statement that may be changed. */
static int change(struct talk_run *r, const struct talk_stmt *st, struct talk_text *out)
{
	size_t len = r->trim && r->trim_at < out->len ? r->trim_at : out->len;
	char *s = p9_talk_alloc(&r->vars.tmp, len + r->pad.len + 4);
	if (!s) {
		return p9_talk_fail(r->err, st->pos, "message too large");
	}
	memcpy(s, out->s, len);
	if (r->pad.len) {
		memcpy(s + len, r->pad.s, r->pad.len);
		len += r->pad.len;
	}
	for (unsigned i = 0; i < 4 && (r->trim || r->pad.len) && len >= 4; i++) {
		s[i] = (char)(len >> (8 * i));
	}
	*out = (struct talk_text){ s, r->cut && r->cut_at < len ? r->cut_at : len };
	return 0;
}

static int put(struct talk_run *r, const struct talk_stmt *st, const struct talk_text *bytes)
{
	size_t step = r->split && r->split_at > 0 ? r->split_at : bytes->len;
	p9_talk_trace(r, '>', bytes->s, bytes->len);
	for (size_t i = 0; i < bytes->len; i += step) {
		size_t n = bytes->len - i < step ? bytes->len - i : step;
		if (p9_talk_put(r->conn, bytes->s + i, n) < 0) {
			return p9_talk_fail(r->err, st->pos, "too much to send");
		}
		if (!r->corked && !r->flood && !p9_talk_flush(r->conn, r->timeout_ms, false)) {
			return p9_talk_mismatch(r, st, "the peer takes nothing any more", NULL);
		}
	}
	return 0;
}

/* The bytes of a statement, before any change. */
static int make(struct talk_run *r, const struct talk_stmt *st, struct talk_text *out)
{
	struct talk_ids ids = { r->opt->uid, r->opt->gid, r->opt->msize, 0, { r->opt->aname, strlen(r->opt->aname) } };
	ids.tag = r->conn->serving ? r->conn->last_tag : free_tag(r->conn);
	if (st->kind == ST_FRAME) {
		return p9_talk_frame(&r->vars, st, &ids, out);
	}
	if (st->kind == ST_RAW) {
		*out = st->name;
		return st->a.n > 0 ? p9_talk_eval_text(&r->vars, &st->a, out) : 0;
	}
	if (st->msg->type == P9_Tversion) {
		ids.tag = P9_NOTAG;
	}
	return p9_talk_encode(&r->vars, st, &ids, out);
}

/* flood N: deaf, until N are out or the peer takes no more. $sent says how many were. */
static int flood(struct talk_run *r, const struct talk_stmt *st)
{
	uint64_t sent = 0;
	bool moved = true;
	for (; moved && sent < r->flood_n; sent += moved) {
		struct talk_text bytes;
		if (make(r, st, &bytes) < 0 || put(r, st, &bytes) < 0) {
			return -1;
		}
		moved = p9_talk_flush(r->conn, FLOOD_STALL_MS, true);
		p9_talk_reset(&r->vars.tmp);
	}
	return p9_talk_set_num(&r->vars, "sent", sent);
}

int p9_talk_send(struct talk_run *r, const struct talk_stmt *st)
{
	struct talk_text bytes;
	if (!r->conn && p9_talk_connect(r, true) < 0) {
		return -1;
	}
	int rc;
	if (r->flood) {
		rc = flood(r, st);
	} else {
		rc = make(r, st, &bytes) < 0 || change(r, st, &bytes) < 0 ? -1 : put(r, st, &bytes);
	}
	r->cut = r->trim = r->split = r->flood = false;
	r->pad.len = 0;
	return rc;
}

/* A Tversion and its reply, which must be of our dialect. */
int p9_talk_version(struct talk_run *r, const struct talk_stmt *st)
{
	struct talk_frame *f = NULL;
	if ((!r->conn && p9_talk_connect(r, false) < 0) || p9_talk_send(r, st) < 0) {
		return -1;
	}
	enum talk_got got = p9_talk_recv(r->conn, P9_NOTAG, r->timeout_ms, &f);
	if (got != GOT_FRAME) {
		return p9_talk_mismatch(r, st, got == GOT_BROKEN ? r->conn->broken : "no answer to Tversion", NULL);
	}
	p9_talk_trace(r, '<', f->b, f->len);
	const struct p9_rversion *m = &f->msg.rversion;
	bool fine = f->rc == 0 && f->msg.type == P9_Rversion && m->version.len == 8 &&
		    memcmp(m->version.s, "9P2000.L", 8) == 0;
	int rc = fine ? p9_talk_set_num(&r->vars, "msize", m->msize)
		      : p9_talk_mismatch(r, st, "expected Rversion version=\"9P2000.L\"", f);
	free(f);
	return rc;
}
