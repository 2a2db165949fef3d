/* SPDX-License-Identifier: BSD-2-Clause */
/* talk_exec.c - what each statement of a .9t script does; one row of `handlers` per statement.
 *
 * Sending is in talk_send.c. A handler returns 0 to go on, or -1 when the test has failed and has said why. Loops work by
 * moving r->pc, which stands on the statement that runs.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "p9/talk.h"

#define HOST_MS 20000
#define SILENCE_MS 100
#define LOOPS_MAX (sizeof(((struct talk_run *)0)->loops) / sizeof(struct talk_loop))

int p9_talk_mismatch(struct talk_run *r, const struct talk_stmt *st, const char *why, const struct talk_frame *got)
{
	char text[1024] = "";
	size_t n = 0;
	if (got && got->rc == 0) {
		n = p9_wire_print(text, sizeof(text), &got->msg);
	} else if (got) {
		n = (size_t)snprintf(text, sizeof(text), "%u bytes that are no message:", got->len);
		for (uint32_t i = 0; i < got->len && i < 64; i++) {
			n += (size_t)snprintf(text + n, sizeof(text) - n, " %02x", got->b[i]);
		}
	}
	int len = (int)(st->source.len < 800 ? st->source.len : 800);
	while (len > 0 && strchr(" \t\r\n", st->source.s[len - 1])) {
		len--;
	}
	return p9_talk_fail(r->err, st->pos, "%s\nexpected  %.*s%s%s", why, len, st->source.s, n ? "\ngot       " : "",
			    text);
}

/* ---- receiving ---- */

static int open_conn(struct talk_run *r)
{
	return r->conn ? 0 : p9_talk_connect(r, true);
}

static const char *why_not(struct talk_run *r, enum talk_got got)
{
	static char text[64];
	if (got == GOT_BROKEN) {
		return r->conn->broken;
	}
	snprintf(text, sizeof(text), "no answer within %g s", r->timeout_ms / 1000.0);
	return got == GOT_CLOSED ? "the peer closed the connection" : text;
}

/* Whether a frame is what an rx wants: 1 yes, 0 no (why says it), -1 the script itself failed. */
static int fits(struct talk_run *r, const struct talk_stmt *st, const struct talk_frame *f, char *why, size_t cap)
{
	if (f->rc < 0) {
		snprintf(why, cap, "a malformed message");
		return 0;
	}
	if (st->msg && f->msg.type != st->msg->type) {
		const struct p9_desc *d = p9_wire_desc(f->msg.type);
		snprintf(why, cap, "%s came, not %s", d ? d->name : "an unknown message", st->msg->name);
		return 0;
	}
	int rc = p9_talk_match(&r->vars, st, &f->msg, why, cap);
	return rc < 0 ? -1 : !rc;
}

static int do_rx(struct talk_run *r, const struct talk_stmt *st)
{
	struct talk_frame *f = NULL;
	uint64_t tag = 0;
	char why[1024] = "";
	if (open_conn(r) < 0 || (st->a.n > 0 && p9_talk_eval_num(&r->vars, &st->a, &tag) < 0)) {
		return -1;
	}
	bool any_tag = st->a.n == 0 && !(st->joined && !r->conn->serving);
	int want = any_tag ? -1 : st->a.n ? (int)(tag & 0xffff) : r->conn->last_tag;
	enum talk_got got = p9_talk_recv(r->conn, want, r->timeout_ms, &f);
	if (got != GOT_FRAME) {
		return st->maybe && got != GOT_BROKEN ? p9_talk_set_num(&r->vars, "fits", 0)
						      : p9_talk_mismatch(r, st, why_not(r, got), NULL);
	}
	int rc = fits(r, st, f, why, sizeof(why));
	if (rc == 0 && st->maybe) {
		p9_talk_unrecv(r->conn, f);
		return p9_talk_set_num(&r->vars, "fits", 0);
	}
	p9_talk_trace(r, '<', f->b, f->len);
	if (rc == 0 && f->rc == 0 && p9_talk_missing(r, &f->msg)) {
		rc = 1;
	} else if (rc == 0) {
		p9_talk_mismatch(r, st, why, f);
	}
	r->optional = NULL;
	free(f);
	return rc != 1 ? -1 : st->maybe ? p9_talk_set_num(&r->vars, "fits", 1) : 0;
}

static int do_rx_none(struct talk_run *r, const struct talk_stmt *st)
{
	struct talk_frame *f = NULL;
	uint64_t ms = SILENCE_MS;
	if (open_conn(r) < 0 || (st->a.n > 0 && p9_talk_eval_num(&r->vars, &st->a, &ms) < 0)) {
		return -1;
	}
	enum talk_got got = p9_talk_recv(r->conn, -1, (int)ms, &f);
	if (got != GOT_NOTHING) {
		p9_talk_mismatch(r, st, got == GOT_FRAME ? "something came" : why_not(r, got), f);
	}
	free(f);
	return got == GOT_NOTHING ? 0 : -1;
}

static int do_rx_closed(struct talk_run *r, const struct talk_stmt *st)
{
	struct talk_frame *f = NULL;
	if (open_conn(r) < 0) {
		return -1;
	}
	enum talk_got got = p9_talk_recv(r->conn, -1, r->timeout_ms, &f);
	if (got != GOT_CLOSED) {
		p9_talk_mismatch(r, st, got == GOT_FRAME ? "a message came" : why_not(r, got), f);
	}
	free(f);
	return got == GOT_CLOSED ? 0 : -1;
}

/* Rlerror for what was sent last, or the end of the connection (the next message then opens a new one); with maybe, or
 * silence. */
static int do_rx_refused(struct talk_run *r, const struct talk_stmt *st)
{
	struct talk_frame *f = NULL;
	if (open_conn(r) < 0) {
		return -1;
	}
	enum talk_got got = p9_talk_recv(r->conn, r->conn->lost ? -1 : r->conn->last_tag, r->timeout_ms, &f);
	if (got == GOT_CLOSED) {
		return p9_talk_close(r, r->conn, st->pos);
	}
	if (got == GOT_NOTHING && st->maybe) {
		return 0;
	}
	bool fine = got == GOT_FRAME && f->rc == 0 && f->msg.type == P9_Rlerror;
	if (!fine) {
		p9_talk_mismatch(r, st, got == GOT_FRAME ? "it was not refused" : why_not(r, got), f);
	} else {
		p9_talk_trace(r, '<', f->b, f->len);
	}
	free(f);
	return fine ? 0 : -1;
}

/* ---- connections ---- */

static int do_conn(struct talk_run *r, const struct talk_stmt *st)
{
	struct talk_val v = { .kind = VAL_STR, .text = st->name };
	if (st->a.n > 0 && p9_talk_eval_text(&r->vars, &st->a, &v.text) < 0) {
		return -1;
	}
	char *s = p9_talk_alloc(&r->vars.keep, v.text.len + 1);
	if (!s) {
		return p9_talk_fail(r->err, st->pos, "out of memory");
	}
	memcpy(s, v.text.s, v.text.len);
	r->name = (struct talk_text){ s, v.text.len };
	r->conn = r->conns;
	while (r->conn && (r->conn->name.len != v.text.len || memcmp(r->conn->name.s, s, v.text.len) != 0)) {
		r->conn = r->conn->next;
	}
	return r->conn ? 0 : p9_talk_connect(r, !st->negate);
}

static int do_close(struct talk_run *r, const struct talk_stmt *st)
{
	return r->conn ? p9_talk_close(r, r->conn, st->pos) : 0;
}

static int do_shutdown(struct talk_run *r, const struct talk_stmt *st)
{
	if (open_conn(r) < 0) {
		return -1;
	}
	p9_talk_flush(r->conn, r->timeout_ms, false);
	return shutdown(r->conn->out, SHUT_WR) == 0 ? 0 : p9_talk_fail(r->err, st->pos, "the connection is no socket");
}

static int do_noversion(struct talk_run *r, const struct talk_stmt *st)
{
	r->noversion = true;
	return 0;
}

static int do_cork(struct talk_run *r, const struct talk_stmt *st)
{
	r->corked = st->kind == ST_CORK;
	if (r->corked || !r->conn || p9_talk_flush(r->conn, r->timeout_ms, false)) {
		return 0;
	}
	return p9_talk_mismatch(r, st, "the peer takes nothing any more", NULL);
}

/* peer "COMMAND": we are the server of the command that is started here. */
static int do_peer(struct talk_run *r, const struct talk_stmt *st)
{
	struct talk_text line;
	if (p9_talk_eval_text(&r->vars, &st->a, &line) < 0) {
		return -1;
	}
	const struct talk_cmd cmd = { r->opt->host_dir, line.s, &r->vars, 0 };
	int fd = -1;
	if (r->conn && p9_talk_close(r, r->conn, st->pos) < 0) {
		return -1;
	}
	pid_t pid = p9_talk_spawn(&cmd, true, &fd);
	struct talk_conn *c = pid < 0 ? NULL : p9_talk_conn_new(r->name, fd, fd);
	if (!c) {
		return p9_talk_fail(r->err, st->pos, "cannot start \"%s\"", line.s);
	}
	c->child = pid;
	c->serving = true;
	c->next = r->conns;
	r->conns = r->conn = c;
	return 0;
}

/* exit N: the command of `peer` ends with this status (or one of a list). */
static int do_exit(struct talk_run *r, const struct talk_stmt *st)
{
	if (!r->conn || !r->conn->serving) {
		return p9_talk_fail(r->err, st->pos, "expected a peer before exit");
	}
	p9_talk_flush(r->conn, r->timeout_ms, false);
	int status = p9_talk_wait(r->conn->child, r->timeout_ms);
	r->conn->child = 0;
	if (status < 0) {
		return p9_talk_fail(r->err, st->pos, "the peer did not end within %d ms, killed", r->timeout_ms);
	}
	char why[1024];
	const struct talk_field f = { .name = { "status", 6 }, .cmp = CMP_EQ, .value = st->a, .pos = st->pos };
	const struct talk_val v = { .kind = VAL_NUM, .num = (uint64_t)status };
	int rc = p9_talk_compare(&r->vars, &v, &f, why, sizeof(why));
	return rc > 0 ? p9_talk_mismatch(r, st, why, NULL) : rc;
}

/* ---- what changes the next message ---- */

static int do_change(struct talk_run *r, const struct talk_stmt *st)
{
	if (st->kind == ST_PAD) {
		struct talk_val v = { .kind = VAL_STR };
		if (p9_talk_eval_text(&r->vars, &st->a, &v.text) < 0) {
			return -1;
		}
		char *s = p9_talk_alloc(&r->vars.keep, v.text.len + 1);
		if (!s) {
			return p9_talk_fail(r->err, st->pos, "too many bytes");
		}
		memcpy(s, v.text.s, v.text.len);
		r->pad = (struct talk_text){ s, v.text.len };
		return 0;
	}
	uint64_t n;
	if (p9_talk_eval_num(&r->vars, &st->a, &n) < 0) {
		return -1;
	}
	switch (st->kind) {
	case ST_CUT:
		r->cut = true;
		r->cut_at = n;
		break;
	case ST_TRIM:
		r->trim = true;
		r->trim_at = n;
		break;
	case ST_SPLIT:
		r->split = true;
		r->split_at = n;
		break;
	default:
		r->flood = true;
		r->flood_n = n;
		break;
	}
	return 0;
}

/* ---- around the conversation ---- */

static int do_time(struct talk_run *r, const struct talk_stmt *st)
{
	uint64_t ms;
	if (p9_talk_eval_num(&r->vars, &st->a, &ms) < 0) {
		return -1;
	}
	if (ms > 600000) {
		return p9_talk_fail(r->err, st->pos, "expected at most 600s");
	}
	if (st->kind == ST_TIMEOUT) {
		r->timeout_ms = (int)ms;
	} else {
		poll(NULL, 0, (int)ms);
	}
	return 0;
}

/* What a command printed: a number when it is one in decimal, so that scripts can calculate with it. */
static struct talk_val output(const char *out)
{
	struct talk_val v = { .kind = VAL_STR, .text = { out, strlen(out) } };
	uint64_t num;
	bool decimal = v.text.len > 0 && v.text.len < 20 && strspn(out, "0123456789") == v.text.len;
	if (decimal && (out[0] != '0' || v.text.len == 1) && p9_talk_number(&v, &num)) {
		v = (struct talk_val){ .kind = VAL_NUM, .num = num };
	}
	return v;
}

static int do_host(struct talk_run *r, const struct talk_stmt *st)
{
	struct talk_text line;
	if (p9_talk_eval_text(&r->vars, &st->a, &line) < 0) {
		return -1;
	}
	size_t cap = (size_t)64 << 10;
	char *out = p9_talk_alloc(&r->vars.tmp, cap), why[1024];
	if (!out) {
		return p9_talk_fail(r->err, st->pos, "out of memory");
	}
	const struct talk_cmd cmd = { r->opt->host_dir, line.s, &r->vars, HOST_MS };
	int status = p9_talk_host(&cmd, out, cap);
	if (status < 0 || (status == 0) == st->negate) {
		return p9_talk_fail(r->err, st->pos, "\"%s\" ended with status %d: %.2000s", line.s, status, out);
	}
	const struct talk_val v = output(out);
	int rc = st->nfields ? p9_talk_compare(&r->vars, &v, &st->fields[0], why, sizeof(why)) : 0;
	return rc > 0 ? p9_talk_mismatch(r, st, why, NULL) : rc;
}

static int do_set(struct talk_run *r, const struct talk_stmt *st)
{
	struct talk_val v;
	return p9_talk_eval(&r->vars, &st->a, &v) < 0 ? -1 : p9_talk_set(&r->vars, st->name, &v);
}

int p9_talk_condition(struct talk_run *r, const struct talk_field *f, char *why, size_t cap)
{
	struct talk_val v;
	return p9_talk_eval(&r->vars, &f->mask, &v) < 0 ? -1 : p9_talk_compare(&r->vars, &v, f, why, cap);
}

static int do_expect(struct talk_run *r, const struct talk_stmt *st)
{
	char why[1024];
	int rc = p9_talk_condition(r, &st->fields[0], why, sizeof(why));
	return rc > 0 ? p9_talk_mismatch(r, st, why, NULL) : rc;
}

static int do_requires(struct talk_run *r, const struct talk_stmt *st)
{
	bool root = geteuid() == 0, fine = true;
	if (st->negate) {
		char out[256], line[1024];
		snprintf(line, sizeof(line), "%.*s", (int)st->name.len, st->name.s);
		const struct talk_cmd cmd = { r->opt->host_dir, line, &r->vars, HOST_MS };
		fine = p9_talk_host(&cmd, out, sizeof(out)) == 0;
	} else if (p9_talk_is(&st->name, "root") || p9_talk_is(&st->name, "user")) {
		fine = root == p9_talk_is(&st->name, "root");
	} else if (p9_talk_is(&st->name, "shared")) {
		fine = !r->opt->spawn;
	} else if (p9_talk_is(&st->name, "stream")) {
		fine = r->opt->spawn || strncmp(r->opt->addr, "vhost-user:", 11) != 0;
	} else {
		fine = !r->opt->spawn && strncmp(r->opt->addr, st->name.s, st->name.len) == 0;
	}
	if (!fine) {
		snprintf(r->skip, sizeof(r->skip), "needs %.*s", (int)st->name.len, st->name.s);
	}
	return 0;
}

/* ---- loops ---- */

/* Whether a loop goes round once more; sets its variable. -1 on failure. */
static int again(struct talk_run *r, const struct talk_stmt *st, uint64_t i)
{
	struct talk_val v;
	char why[1024];
	if (p9_talk_eval(&r->vars, &st->a, &v) < 0) {
		return -1;
	}
	uint64_t n;
	if (st->kind == ST_EACH && v.kind == VAL_LIST) {
		return i == v.num ? 0 : p9_talk_set(&r->vars, st->name, &v.v[i]) < 0 ? -1 : 1;
	}
	if (st->kind == ST_EACH || !p9_talk_number(&v, &n)) {
		return p9_talk_fail(r->err, st->a.pos, st->kind == ST_EACH ? "expected a list" : "expected a number");
	}
	int rc = st->nfields && i < n ? p9_talk_condition(r, &st->fields[0], why, sizeof(why)) : i >= n;
	if (rc != 0) {
		return rc < 0 ? -1 : 0;
	}
	const struct talk_val count = { .kind = VAL_NUM, .num = i };
	return p9_talk_set(&r->vars, st->name, &count) < 0 ? -1 : 1;
}

static int do_loop(struct talk_run *r, const struct talk_stmt *st)
{
	bool inside = r->nloops > 0 && r->loops[r->nloops - 1].stmt == r->pc;
	if (!inside && r->nloops == LOOPS_MAX) {
		return p9_talk_fail(r->err, st->pos, "loops too deep");
	}
	if (!inside) {
		r->loops[r->nloops++] = (struct talk_loop){ r->pc, 0 };
	}
	int rc = again(r, st, r->loops[r->nloops - 1].i);
	if (rc == 0) {
		r->nloops--;
		r->pc = st->jump;
	}
	return rc < 0 ? -1 : 0;
}

static int do_end(struct talk_run *r, const struct talk_stmt *st)
{
	r->loops[r->nloops - 1].i++;
	r->pc = st->jump - 1;
	return 0;
}

static int do_nothing(struct talk_run *r, const struct talk_stmt *st)
{
	return 0;
}

int p9_talk_exec(struct talk_run *r, const struct talk_stmt *st)
{
	/* clang-format off */
	static int (*const handlers[ST_KINDS])(struct talk_run *r, const struct talk_stmt *st) = {
		[ST_TEST] = do_nothing,	     [ST_SERVER] = do_nothing,	  [ST_TX] = p9_talk_send,
		[ST_RAW] = p9_talk_send,     [ST_FRAME] = p9_talk_send,	  [ST_VERSION] = p9_talk_version,
		[ST_RX] = do_rx,	     [ST_RX_ANY] = do_rx,	  [ST_RX_NONE] = do_rx_none,
		[ST_RX_CLOSED] = do_rx_closed, [ST_NOVERSION] = do_noversion, [ST_CUT] = do_change,
		[ST_TRIM] = do_change,	     [ST_PAD] = do_change,	  [ST_SPLIT] = do_change,
		[ST_FLOOD] = do_change,	     [ST_CORK] = do_cork,	  [ST_UNCORK] = do_cork,
		[ST_CONN] = do_conn,	     [ST_CLOSE] = do_close,	  [ST_SHUTDOWN] = do_shutdown,
		[ST_SLEEP] = do_time,	     [ST_TIMEOUT] = do_time,	  [ST_HOST] = do_host,
		[ST_REPEAT] = do_loop,	     [ST_EACH] = do_loop,	  [ST_END] = do_end,
		[ST_SET] = do_set,	     [ST_EXPECT] = do_expect,	  [ST_REQUIRES] = do_requires,
		[ST_PEER] = do_peer,	     [ST_EXIT] = do_exit,	  [ST_SUITE] = do_nothing,
		[ST_SOURCE] = do_nothing,    [ST_OPTIONAL] = p9_talk_optional, [ST_SKIP] = p9_talk_skip,
		[ST_RX_REFUSED] = do_rx_refused, [ST_SCRATCH] = p9_talk_scratch, [ST_FILE] = p9_talk_file,
	};
	/* clang-format on */
	return handlers[st->kind](r, st);
}
