/* SPDX-License-Identifier: BSD-2-Clause */
/* talk_parse.c - a .9t script as a list of statements.
 *
 * One row of `keywords` per statement. A statement ends at the end of its line or where the next keyword stands, so that
 * `tx ... rx ...` may share a line. Names of messages and fields come from the descriptors (p9_wire_desc), thus a
 * message added to proto/ is known here without a change. Nothing runs before the whole script is parsed; blocks are
 * jumps between statement numbers, resolved here. Runs on untrusted text (fuzz/): bounded, no recursion.
 */
#include <stdlib.h>
#include <string.h>
#include "p9/talk_lang.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define FIELDS_MAX 48u
#define STMTS_MAX 100000u
#define BLOCKS_MAX 8u

struct parser {
	struct talk_lex lx;
	struct talk_script *script;
	struct talk_field fields[FIELDS_MAX]; /* of the statement under construction */
	unsigned nfields;
	unsigned blocks[BLOCKS_MAX], nblocks; /* open repeat and each */
};

static int next(struct parser *p)
{
	return p9_talk_lex_next(&p->lx);
}
static bool is_word(const struct parser *p, const char *s)
{
	return p->lx.tok.kind == TOK_WORD && p9_talk_is(&p->lx.tok.text, s);
}
static bool is_punct(const struct parser *p, unsigned c)
{
	return p->lx.tok.kind == TOK_PUNCT && p->lx.tok.num == c;
}
static int expected(struct parser *p, const char *what)
{
	return p9_talk_lex_expected(&p->lx, what);
}

static int expr(struct parser *p, struct talk_expr *out)
{
	return p9_talk_expr(&p->lx, out);
}

/* A word or string as a name. */
static int name(struct parser *p, struct talk_text *out, const char *what)
{
	if (p->lx.tok.kind != TOK_WORD && p->lx.tok.kind != TOK_STR) {
		return expected(p, what);
	}
	*out = p->lx.tok.text;
	return next(p);
}

static int comparison(struct parser *p, uint8_t *cmp)
{
	static const struct {
		unsigned punct;
		uint8_t cmp;
	} all[] = {
		{ '=', CMP_EQ },
		{ TALK_PUNCT2('!', '='), CMP_NE },
		{ '<', CMP_LT },
		{ TALK_PUNCT2('<', '='), CMP_LE },
		{ '>', CMP_GT },
		{ TALK_PUNCT2('>', '='), CMP_GE },
		{ '~', CMP_HAS },
		{ TALK_PUNCT2('!', '~'), CMP_HASNOT },
		{ TALK_PUNCT2(':', '='), CMP_STORE },
		{ TALK_PUNCT2(':', '+'), CMP_APPEND },
	};
	for (size_t i = 0; i < COUNT(all); i++) {
		if (is_punct(p, all[i].punct)) {
			*cmp = all[i].cmp;
			return next(p);
		}
	}
	return expected(p, "= != < <= > >= ~ !~ := or :+");
}

/* What follows a comparison: a value, or for := and :+ the variable that takes it. */
static int right_side(struct parser *p, struct talk_field *f)
{
	if (comparison(p, &f->cmp) < 0) {
		return -1;
	}
	if ((f->cmp == CMP_STORE || f->cmp == CMP_APPEND) && p->lx.tok.kind != TOK_VAR) {
		return expected(p, "$name to store to");
	}
	if (expr(p, &f->value) < 0) {
		return -1;
	}
	bool store = f->cmp == CMP_STORE || f->cmp == CMP_APPEND;
	return store && f->value.n > 1 ? p9_talk_fail(p->lx.err, f->value.pos, "expected $name alone to store to") : 0;
}

static int add_field(struct parser *p, const struct talk_field *f)
{
	if (p->nfields == FIELDS_MAX) {
		return p9_talk_fail(p->lx.err, f->pos, "expected at most %u fields", FIELDS_MAX);
	}
	p->fields[p->nfields++] = *f;
	return 0;
}

/* Which parts of a field an rx can look at: `qid.type`. */
static bool sub_known(uint8_t wire, const struct talk_text *sub)
{
	static const struct {
		uint8_t wire;
		const char *name;
	} subs[] = {
		{ P9_WIRE_qid, "type" },     { P9_WIRE_qid, "version" }, { P9_WIRE_qid, "path" },
		{ P9_WIRE_qids, "paths" },   { P9_WIRE_qids, "n" },	 { P9_WIRE_qids, "last" },
		{ P9_WIRE_strs, "n" },	     { P9_WIRE_str, "len" },	 { P9_WIRE_data, "len" },
		{ P9_WIRE_data, "n" },	     { P9_WIRE_data, "names" },	 { P9_WIRE_data, "last" },
		{ P9_WIRE_data, "cookies" },
	};
	for (size_t i = 0; i < COUNT(subs); i++) {
		if (subs[i].wire == wire && p9_talk_is(sub, subs[i].name)) {
			return true;
		}
	}
	return false;
}

static const struct p9_field *field_of(const struct p9_desc *d, const struct talk_text *name)
{
	for (unsigned i = 0; i < d->nfields; i++) {
		if (p9_talk_is(name, d->fields[i].name)) {
			return &d->fields[i];
		}
	}
	return NULL;
}

static int no_field(struct parser *p, const struct p9_desc *d, const struct talk_field *f)
{
	char list[512] = "tag";
	size_t n = 3;
	for (unsigned i = 0; i < d->nfields && n < sizeof(list) - 40; i++) {
		n += (size_t)snprintf(list + n, sizeof(list) - n, " %s", d->fields[i].name);
	}
	return p9_talk_fail(p->lx.err, f->pos, "expected a field of %s (%s), found %.*s", d->name, list,
			    (int)f->name.len, f->name.s);
}

static int sub_field(struct parser *p, struct talk_field *f)
{
	if (!is_punct(p, '.')) {
		return 0;
	}
	if (next(p) < 0 || name(p, &f->sub, "a part of the field") < 0) {
		return -1;
	}
	if (!f->desc || !sub_known(f->desc->kind->wire, &f->sub)) {
		static const char *const parts = "qid: type version path; list: n last paths; string: len; "
						 "data: len n names last cookies";
		return p9_talk_fail(p->lx.err, f->pos, "%.*s has no part %.*s (%s)", (int)f->name.len, f->name.s,
				    (int)f->sub.len, f->sub.s, parts);
	}
	return 0;
}

static bool is_keyword(const struct parser *p);

/* NAME[.SUB][&MASK] OP VALUE ... up to the next keyword or the end of the line. Without a message (raw frame) any name
 * of `names` goes. */
static int fields(struct parser *p, const struct p9_desc *d, const char *const *names, bool reply)
{
	while (p->lx.tok.kind == TOK_WORD && !is_keyword(p)) {
		struct talk_field f = { .name = p->lx.tok.text, .pos = p->lx.tok.pos };
		f.desc = d ? field_of(d, &f.name) : NULL;
		bool known = f.desc || (d && p9_talk_is(&f.name, "tag"));
		for (unsigned i = 0; !d && names && names[i]; i++) {
			known |= p9_talk_is(&f.name, names[i]);
		}
		if (!known) {
			return d ? no_field(p, d, &f) : expected(p, reply ? "type or tag" : "size, type, tag or body");
		}
		if (next(p) < 0 || (reply && sub_field(p, &f) < 0)) {
			return -1;
		}
		if (reply && is_punct(p, '&') && (next(p) < 0 || expr(p, &f.mask) < 0)) {
			return -1;
		}
		if (!reply && !is_punct(p, '=')) {
			return expected(p, "= and a value");
		}
		if (right_side(p, &f) < 0 || add_field(p, &f) < 0) {
			return -1;
		}
	}
	return 0;
}

static int message(struct parser *p, const struct p9_desc **out)
{
	int type = -1;
	if (p->lx.tok.kind == TOK_WORD) {
		type = p9_wire_type(p->lx.tok.text.s, p->lx.tok.text.len);
	}
	if (type < 0) {
		return expected(p, "the name of a message, such as Twalk");
	}
	*out = p9_wire_desc((unsigned)type);
	return next(p);
}

/* ---- one function for each form of statement ---- */
static int parse_none(struct parser *p, struct talk_stmt *st)
{
	return next(p);
}

static int parse_name(struct parser *p, struct talk_stmt *st)
{
	return next(p) < 0 ? -1 : name(p, &st->name, "a name");
}

static int parse_expr(struct parser *p, struct talk_stmt *st)
{
	return next(p) < 0 ? -1 : expr(p, &st->a);
}

static int parse_tx(struct parser *p, struct talk_stmt *st)
{
	return next(p) < 0 || message(p, &st->msg) < 0 ? -1 : fields(p, st->msg, NULL, false);
}

static int parse_version(struct parser *p, struct talk_stmt *st)
{
	st->msg = p9_wire_desc(P9_Tversion);
	return next(p) < 0 ? -1 : fields(p, st->msg, NULL, false);
}

/* rx none [TIME] | closed | [maybe] refused | any | [maybe] [tag=N] MESSAGE FIELDS */
static int parse_rx(struct parser *p, struct talk_stmt *st)
{
	static const char *const common[] = { "type", "tag", NULL };
	const struct talk_stmt *prev = st > p->script->stmts ? st - 1 : NULL;
	bool sent = prev && (prev->kind == ST_TX || prev->kind == ST_FRAME || prev->kind == ST_RAW);
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): sent needs prev, and st is a statement */
	st->joined = sent && prev->pos.line == st->pos.line;
	if (next(p) < 0) {
		return -1;
	}
	if (is_word(p, "none")) {
		st->kind = ST_RX_NONE;
		return next(p) < 0 ? -1 : p->lx.tok.kind == TOK_NUM ? expr(p, &st->a) : 0;
	}
	if (is_word(p, "closed")) {
		st->kind = ST_RX_CLOSED;
		return next(p);
	}
	st->maybe = is_word(p, "maybe");
	if (st->maybe && next(p) < 0) {
		return -1;
	}
	if (is_word(p, "refused")) {
		st->kind = ST_RX_REFUSED;
		return next(p);
	}
	if (is_word(p, "tag")) {
		if (next(p) < 0 || !is_punct(p, '=')) {
			return expected(p, "= and a tag");
		}
		if (next(p) < 0 || expr(p, &st->a) < 0) {
			return -1;
		}
	}
	if (is_word(p, "any")) {
		st->kind = ST_RX_ANY;
		return next(p) < 0 ? -1 : fields(p, NULL, common, true);
	}
	return message(p, &st->msg) < 0 ? -1 : fields(p, st->msg, NULL, true);
}

/* raw HEX... | raw EXPR | raw frame size= type= tag= body= */
static int parse_raw(struct parser *p, struct talk_stmt *st)
{
	static const char *const parts[] = { "size", "type", "tag", "body", NULL };
	struct talk_text all = { "", 0 }, bytes;
	while (p9_talk_lex_hex(&p->lx, &bytes)) {
		char *s = p9_talk_alloc(&p->script->arena, all.len + bytes.len);
		if (!s) {
			return expected(p, "fewer bytes");
		}
		memcpy(s, all.s, all.len);
		memcpy(s + all.len, bytes.s, bytes.len);
		all = (struct talk_text){ s, all.len + bytes.len };
	}
	if (next(p) < 0) {
		return -1;
	}
	if (all.len > 0) {
		st->name = all;
		return 0;
	}
	if (is_word(p, "frame")) {
		st->kind = ST_FRAME;
		return next(p) < 0 ? -1 : fields(p, NULL, parts, false);
	}
	return expr(p, &st->a);
}

/* conn NAME|EXPR [noversion] */
static int parse_conn(struct parser *p, struct talk_stmt *st)
{
	if (next(p) < 0) {
		return -1;
	}
	bool plain = p->lx.tok.kind == TOK_WORD;
	if ((plain ? name(p, &st->name, "") : expr(p, &st->a)) < 0) {
		return -1;
	}
	st->negate = is_word(p, "noversion");
	return st->negate ? next(p) : 0;
}

static int parse_shutdown(struct parser *p, struct talk_stmt *st)
{
	if (next(p) < 0 || !is_word(p, "wr")) {
		return expected(p, "wr");
	}
	return next(p);
}

/* host "COMMAND" [OP VALUE], host! "COMMAND" */
static int parse_host(struct parser *p, struct talk_stmt *st)
{
	struct talk_field f = { .pos = p->lx.tok.pos, .name = { "output", 6 } };
	if (next(p) < 0) {
		return -1;
	}
	st->negate = is_punct(p, '!');
	if ((st->negate && next(p) < 0) || expr(p, &st->a) < 0) {
		return -1;
	}
	if (p->lx.tok.kind != TOK_PUNCT) {
		return 0;
	}
	return right_side(p, &f) < 0 ? -1 : add_field(p, &f);
}

static int left_cmp_right(struct parser *p)
{
	struct talk_field f = { .pos = p->lx.tok.pos, .name = { "value", 5 } };
	return expr(p, &f.mask) < 0 || right_side(p, &f) < 0 ? -1 : add_field(p, &f);
}

static int parse_expect(struct parser *p, struct talk_stmt *st)
{
	return next(p) < 0 ? -1 : left_cmp_right(p);
}

static int open_block(struct parser *p, const struct talk_stmt *st)
{
	if (p->nblocks == BLOCKS_MAX) {
		return p9_talk_fail(p->lx.err, st->pos, "expected at most %u blocks within each other", BLOCKS_MAX);
	}
	p->blocks[p->nblocks++] = (unsigned)(st - p->script->stmts);
	return 0;
}

/* repeat N [as NAME] [while A OP B] ... end */
static int parse_repeat(struct parser *p, struct talk_stmt *st)
{
	st->name = (struct talk_text){ "i", 1 };
	if (open_block(p, st) < 0 || parse_expr(p, st) < 0) {
		return -1;
	}
	if (is_word(p, "as") && (next(p) < 0 || name(p, &st->name, "the name of the counter") < 0)) {
		return -1;
	}
	return !is_word(p, "while") ? 0 : next(p) < 0 ? -1 : left_cmp_right(p);
}

/* each NAME in LIST ... end */
static int parse_each(struct parser *p, struct talk_stmt *st)
{
	if (open_block(p, st) < 0 || parse_name(p, st) < 0) {
		return -1;
	}
	return is_word(p, "in") ? parse_expr(p, st) : expected(p, "in");
}

static int parse_end(struct parser *p, struct talk_stmt *st)
{
	if (p->nblocks == 0) {
		return expected(p, "a repeat or each before its end");
	}
	st->jump = p->blocks[--p->nblocks];
	p->script->stmts[st->jump].jump = (unsigned)(st - p->script->stmts);
	return next(p);
}

static int parse_set(struct parser *p, struct talk_stmt *st)
{
	return parse_name(p, st) < 0 ? -1 : expr(p, &st->a);
}

/* requires WORD | requires "COMMAND" */
static int parse_requires(struct parser *p, struct talk_stmt *st)
{
	if (next(p) < 0) {
		return -1;
	}
	st->negate = p->lx.tok.kind == TOK_STR;
	bool known = is_word(p, "root") || is_word(p, "user") || is_word(p, "shared") || is_word(p, "stream") ||
		     is_word(p, "unix") || is_word(p, "tcp") || is_word(p, "vhost");
	return st->negate || known ? name(p, &st->name, "")
				   : expected(p, "root, user, shared, stream, unix, tcp, vhost or a \"command\"");
}

static int parse_test(struct parser *p, struct talk_stmt *st)
{
	if (p->nblocks > 0) {
		return expected(p, "end before the next test");
	}
	return parse_name(p, st);
}

/* check "ID" "EXPECTATION" */
static int parse_check(struct parser *p, struct talk_stmt *st)
{
	if (parse_test(p, st) < 0) {
		return -1;
	}
	st->id = st->name;
	return name(p, &st->name, "what is expected, as a string");
}

/* optional "FEATURE" [ECODES] */
static int parse_optional(struct parser *p, struct talk_stmt *st)
{
	return parse_name(p, st) < 0 ? -1 : is_punct(p, '[') ? expr(p, &st->a) : 0;
}

/* skip "REASON" when A OP B */
static int parse_skip(struct parser *p, struct talk_stmt *st)
{
	if (parse_name(p, st) < 0) {
		return -1;
	}
	return !is_word(p, "when") ? expected(p, "when") : next(p) < 0 ? -1 : left_cmp_right(p);
}

/* scratch [FID] */
static int parse_scratch(struct parser *p, struct talk_stmt *st)
{
	return next(p) < 0 ? -1 : p->lx.tok.kind == TOK_NUM ? expr(p, &st->a) : 0;
}

/* file NAME DATA */
static int parse_file(struct parser *p, struct talk_stmt *st)
{
	return next(p) < 0 || expr(p, &st->a) < 0 ? -1 : expr(p, &st->b);
}

/* clang-format off */
static const struct {
	const char *name;
	int (*parse)(struct parser *p, struct talk_stmt *st);
	uint8_t kind;
} keywords[] = {
	{ "p9test", parse_test, ST_TEST },	 { "tx", parse_tx, ST_TX },
	{ "rx", parse_rx, ST_RX },		 { "version", parse_version, ST_VERSION },
	{ "noversion", parse_none, ST_NOVERSION }, { "raw", parse_raw, ST_RAW },
	{ "cut", parse_expr, ST_CUT },		 { "trim", parse_expr, ST_TRIM },
	{ "pad", parse_expr, ST_PAD },		 { "split", parse_expr, ST_SPLIT },
	{ "flood", parse_expr, ST_FLOOD },	 { "cork", parse_none, ST_CORK },
	{ "uncork", parse_none, ST_UNCORK },	 { "conn", parse_conn, ST_CONN },
	{ "close", parse_none, ST_CLOSE },	 { "shutdown", parse_shutdown, ST_SHUTDOWN },
	{ "sleep", parse_expr, ST_SLEEP },	 { "host", parse_host, ST_HOST },
	{ "repeat", parse_repeat, ST_REPEAT },	 { "each", parse_each, ST_EACH },
	{ "end", parse_end, ST_END },		 { "timeout", parse_expr, ST_TIMEOUT },
	{ "set", parse_set, ST_SET },		 { "expect", parse_expect, ST_EXPECT },
	{ "requires", parse_requires, ST_REQUIRES }, { "server", parse_name, ST_SERVER },
	{ "peer", parse_expr, ST_PEER },	 { "exit", parse_expr, ST_EXIT },
	{ "check", parse_check, ST_TEST },	 { "suite", parse_name, ST_SUITE },
	{ "source", parse_name, ST_SOURCE },	 { "optional", parse_optional, ST_OPTIONAL },
	{ "skip", parse_skip, ST_SKIP },	 { "scratch", parse_scratch, ST_SCRATCH },
	{ "file", parse_file, ST_FILE },
};
/* clang-format on */

static int keyword(const struct parser *p)
{
	for (size_t i = 0; p->lx.tok.kind == TOK_WORD && i < COUNT(keywords); i++) {
		if (p9_talk_is(&p->lx.tok.text, keywords[i].name)) {
			return (int)i;
		}
	}
	return -1;
}

/* The only field that is spelled like a keyword is Tversion's and Rversion's `version`. */
static bool is_keyword(const struct parser *p)
{
	const char *q = p->lx.p;
	while (q < p->lx.end && (*q == ' ' || *q == '\t')) {
		q++;
	}
	bool assigned = q < p->lx.end && (*q == '=' || *q == '~' || *q == '!' || *q == ':' || *q == '.');
	return keyword(p) >= 0 && !assigned;
}

static struct talk_stmt *new_stmt(struct talk_script *s)
{
	if (s->n == s->cap) {
		unsigned cap = s->cap ? 2 * s->cap : 64;
		struct talk_stmt *v = s->n < STMTS_MAX ? realloc(s->stmts, cap * sizeof(*v)) : NULL;
		if (!v) {
			return NULL;
		}
		s->stmts = v;
		s->cap = cap;
	}
	s->stmts[s->n] = (struct talk_stmt){ 0 };
	return &s->stmts[s->n++];
}

static int statement(struct parser *p)
{
	int k = keyword(p);
	if (k < 0) {
		return expected(p, "a statement (tx, rx, raw, host, ...)");
	}
	struct talk_stmt *st = new_stmt(p->script);
	if (!st) {
		return expected(p, "fewer statements");
	}
	st->kind = keywords[k].kind;
	st->pos = p->lx.tok.pos;
	st->source.s = p->lx.tok.start;
	p->nfields = 0;
	if (keywords[k].parse(p, st) < 0) {
		return -1;
	}
	if (p->lx.tok.kind != TOK_NL && p->lx.tok.kind != TOK_EOF && keyword(p) < 0) {
		return expected(p, "the end of the line");
	}
	st->source.len = (size_t)(p->lx.tok.start - st->source.s);
	st->fields = p9_talk_alloc(&p->script->arena, p->nfields * sizeof(*st->fields) + 1);
	if (!st->fields) {
		return expected(p, "a smaller script");
	}
	memcpy(st->fields, p->fields, p->nfields * sizeof(*st->fields));
	st->nfields = p->nfields;
	return 0;
}

static int script(struct parser *p)
{
	while (p->lx.tok.kind != TOK_EOF) {
		if ((p->lx.tok.kind == TOK_NL ? next(p) : statement(p)) < 0) {
			return -1;
		}
	}
	if (p->lx.depth > 0) {
		return expected(p, "a closing bracket");
	}
	return p->nblocks > 0 ? expected(p, "end") : 0;
}

int p9_talk_parse(struct talk_script *s, const char *text, size_t len)
{
	struct parser *p = calloc(1, sizeof(*p));
	if (!p) {
		return p9_talk_fail(s->err, (struct talk_pos){ 1, 1 }, "out of memory");
	}
	p->script = s;
	p->lx = (struct talk_lex){
		.p = text, .end = text + len, .line_start = text, .line = 1, .arena = &s->arena, .err = s->err
	};
	int rc = next(p) < 0 ? -1 : script(p);
	free(p);
	return rc;
}

void p9_talk_script_fini(struct talk_script *s)
{
	free(s->stmts);
	p9_talk_reset(&s->arena);
	s->stmts = NULL;
	s->n = s->cap = 0;
}
