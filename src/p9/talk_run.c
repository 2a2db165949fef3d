/* SPDX-License-Identifier: BSD-2-Clause */
/* talk_run.c - the tests of a .9t script, one after the other, and their results in TAP.
 *
 * What stands before the first p9test belongs to every test and runs at its beginning. A test starts with no connection,
 * no names and, when --setup says how, a fresh directory; it ends with all connections closed. The first failing
 * statement ends the test and is told with its place, what was expected and what came.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "p9/talk.h"

#define SETUP_MS 60000

/* $uid, $gid, $root, $host and what -D gave. */
static int predefine(struct talk_run *r)
{
	const struct talk_val host = { .kind = VAL_STR, .text = { r->opt->host_dir, strlen(r->opt->host_dir) } };
	if (p9_talk_set_num(&r->vars, "uid", r->opt->uid) < 0 || p9_talk_set_num(&r->vars, "gid", r->opt->gid) < 0 ||
	    p9_talk_set_num(&r->vars, "root", geteuid() == 0) < 0 ||
	    p9_talk_set_num(&r->vars, "msize", r->opt->msize) < 0) {
		return -1;
	}
	for (unsigned i = 0; r->opt->defines[i]; i++) {
		const char *d = r->opt->defines[i], *eq = strchr(d, '=');
		struct talk_val v = { .kind = VAL_STR, .text = { eq ? eq + 1 : "", eq ? strlen(eq + 1) : 0 } };
		uint64_t num;
		if (p9_talk_number(&v, &num)) {
			v = (struct talk_val){ .kind = VAL_NUM, .num = num };
		}
		if (p9_talk_set(&r->vars, (struct talk_text){ d, eq ? (size_t)(eq - d) : strlen(d) }, &v) < 0) {
			return -1;
		}
	}
	return p9_talk_set(&r->vars, (struct talk_text){ "host", 4 }, &host);
}

static int setup(struct talk_run *r)
{
	char out[1024];
	if (!r->opt->setup) {
		return 0;
	}
	const struct talk_cmd cmd = { r->opt->host_dir, r->opt->setup, NULL, SETUP_MS };
	int status = p9_talk_host(&cmd, out, sizeof(out));
	return status == 0
		       ? 0
		       : p9_talk_fail(r->err, r->script->stmts[r->pc].pos, "setup failed (%d): %.900s", status, out);
}

/* Statements [from, to). */
static int run_range(struct talk_run *r, unsigned from, unsigned to)
{
	for (r->pc = from; r->pc < to; r->pc++) {
		const struct talk_stmt *st = &r->script->stmts[r->pc];
		if (p9_talk_now() > r->until) {
			return p9_talk_fail(r->err, st->pos, "not finished within %d s", r->opt->limit_ms / 1000);
		}
		int rc = p9_talk_exec(r, st);
		p9_talk_reset(&r->vars.tmp);
		if (rc < 0) {
			return -1;
		}
		if (r->skip[0]) {
			return 0;
		}
	}
	return 0;
}

/* Prints text as TAP comment lines. */
static void comment(const char *text)
{
	while (*text) {
		size_t n = strcspn(text, "\n");
		printf("# %.*s\n", (int)n, text);
		text += n + (text[n] == '\n');
	}
}

static void print_result(const struct talk_text *name, struct talk_totals *t, const struct talk_result *res)
{
	bool skipped = res->rc == 0 && res->skip[0];
	t->number++;
	t->passed += res->rc == 0 && !skipped;
	t->skipped += skipped;
	t->failed += res->rc < 0;
	printf("%sok %u - %.*s%s%s\n", res->rc < 0 ? "not " : "", t->number, (int)name->len, name->s,
	       skipped ? " # SKIP " : "", skipped ? res->skip : "");
	if (res->rc < 0) {
		comment(res->err.text);
	}
	fflush(stdout);
}

/* Replies that nobody asked for may have come after the last rx. A connection whose frames were made wrong on purpose is
 * not judged. */
static int unasked(struct talk_run *r, const struct talk_stmt *last)
{
	struct talk_frame *f = NULL;
	int rc = 0;
	for (struct talk_conn *c = r->conns; c && rc == 0; c = c->next) {
		bool no_tag = !c->lost && p9_talk_recv(c, UINT16_MAX + 1, 0, &f) == GOT_BROKEN;
		rc = no_tag ? p9_talk_fail(r->err, last->pos, "after the last statement: %s", c->broken) : 0;
	}
	return rc;
}

void p9_talk_test(const struct talk_script *s, const struct talk_options *opt, const unsigned range[3],
		  struct talk_result *res)
{
	struct talk_run *r = calloc(1, sizeof(*r));
	*res = (struct talk_result){ .rc = -1, .err = { .file = s->err->file } };
	if (!r) {
		p9_talk_fail(&res->err, s->stmts[range[1]].pos, "out of memory");
		return;
	}
	r->script = s;
	r->opt = opt;
	r->err = r->vars.err = &res->err;
	r->name = (struct talk_text){ "", 0 };
	r->timeout_ms = opt->timeout_ms;
	r->until = opt->limit_ms ? p9_talk_now() + opt->limit_ms : INT64_MAX;
	r->pc = range[1];
	res->rc = setup(r) < 0 || predefine(r) < 0 || run_range(r, 0, range[0]) < 0 ? -1 : 0;
	if (res->rc == 0 && !r->skip[0]) {
		res->rc = run_range(r, range[1], range[2]);
	}
	if (res->rc == 0 && opt->limit_ms) {
		res->rc = unasked(r, &s->stmts[range[2] - 1]);
	}
	res->pc = r->pc;
	struct talk_pos end = s->stmts[range[2] - 1].pos;
	while (r->conns) {
		if (p9_talk_close(r, r->conns, end) < 0) {
			res->rc = -1;
		}
	}
	memcpy(res->skip, r->skip, sizeof(res->skip));
	p9_talk_reset(&r->vars.tmp);
	p9_talk_reset(&r->vars.keep);
	free(r);
}

static bool chosen(const struct talk_options *opt, const struct talk_text *name)
{
	return !opt->filter || memmem(name->s, name->len, opt->filter, strlen(opt->filter)) != NULL;
}

void p9_talk_run(const struct talk_script *s, const struct talk_options *opt, struct talk_totals *totals)
{
	unsigned prologue = 0;
	while (prologue < s->n && s->stmts[prologue].kind != ST_TEST) {
		prologue++;
	}
	for (unsigned from = prologue, to; from < s->n; from = to) {
		to = from + 1;
		while (to < s->n && s->stmts[to].kind != ST_TEST) {
			to++;
		}
		const struct talk_text *name = &s->stmts[from].name;
		if (chosen(opt, name) && opt->list) {
			printf("%.*s\n", (int)name->len, name->s);
		} else if (chosen(opt, name)) {
			struct talk_result res;
			p9_talk_test(s, opt, (const unsigned[3]){ prologue, from, to }, &res);
			print_result(name, totals, &res);
		}
	}
}
