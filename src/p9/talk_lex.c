/* SPDX-License-Identifier: BSD-2-Clause */
/* talk_lex.c - the words of the .9t language.
 *
 * A word is a name, a number (with a unit if you like: 4k, 200ms), a string in "" or '', $name, @name or punctuation.
 * A comment runs from # to the end of its line; a newline ends a statement, unless a bracket is open or the line ends in
 * a backslash. Strings know \n \t \r \0 \\ \" and \xNN; in '' only bytes as they stand, which suits shell commands.
 * Called by talk_parse.c and talk_expr.c, one word at a time; reports errors with file, line and column.
 */
#include <stdarg.h>
#include <string.h>
#include "p9/talk_lang.h"

int p9_talk_fail(struct talk_err *e, struct talk_pos pos, const char *fmt, ...)
{
	if (e->set) {
		return -1;
	}
	int n = snprintf(e->text, sizeof(e->text), "%s:%u:%u: ", e->file, pos.line, pos.col);
	va_list ap;
	va_start(ap, fmt);
	if (n >= 0 && (size_t)n < sizeof(e->text)) {
		/* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): va_start is above */
		vsnprintf(e->text + n, sizeof(e->text) - (size_t)n, fmt, ap);
	}
	va_end(ap);
	e->set = true;
	return -1;
}

bool p9_talk_is(const struct talk_text *t, const char *s)
{
	return strlen(s) == t->len && memcmp(t->s, s, t->len) == 0;
}

static bool is_digit(int c)
{
	return c >= '0' && c <= '9';
}
static bool is_alpha(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
static bool is_word(int c)
{
	return is_alpha(c) || is_digit(c);
}
static int hex_digit(int c)
{
	if (is_digit(c)) {
		return c - '0';
	}
	if (c >= 'a' && c <= 'f') {
		return c - 'a' + 10;
	}
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int at(const struct talk_lex *lx, size_t i)
{
	return (size_t)(lx->end - lx->p) > i ? (unsigned char)lx->p[i] : -1;
}

static struct talk_pos here(const struct talk_lex *lx)
{
	return (struct talk_pos){ lx->line, (unsigned)(lx->p - lx->line_start) + 1 };
}

static void newline(struct talk_lex *lx)
{
	lx->p++;
	lx->line++;
	lx->line_start = lx->p;
}

/* Blanks, comments, continued lines, and newlines within brackets. */
static void skip(struct talk_lex *lx)
{
	for (int c = at(lx, 0); c >= 0; c = at(lx, 0)) {
		if (c == '#') {
			while (at(lx, 0) >= 0 && at(lx, 0) != '\n') {
				lx->p++;
			}
		} else if (c == '\n' && lx->depth > 0) {
			newline(lx);
		} else if (c == '\\' && at(lx, 1) == '\n') {
			lx->p++;
			newline(lx);
		} else if (c == ' ' || c == '\t' || c == '\r') {
			lx->p++;
		} else {
			return;
		}
	}
}

static int number(struct talk_lex *lx)
{
	static const struct {
		const char *name;
		unsigned factor;
	} units[] = { { "", 1 }, { "ms", 1 }, { "s", 1000 }, { "k", 1024 }, { "m", 1048576 } };
	int base = at(lx, 0) == '0' ? 8 : 10;
	if (base == 8 && (at(lx, 1) == 'x' || at(lx, 1) == 'X')) {
		base = 16;
		lx->p += 2;
	}
	uint64_t v = 0;
	const char *digits = lx->p;
	for (int d = hex_digit(at(lx, 0)); d >= 0 && d < base; d = hex_digit(at(lx, 0))) {
		if (v > (UINT64_MAX - (unsigned)d) / (unsigned)base) {
			return p9_talk_fail(lx->err, lx->tok.pos, "number above 2^64-1");
		}
		v = v * (unsigned)base + (unsigned)d;
		lx->p++;
	}
	struct talk_text unit = { lx->p, 0 };
	while (is_word(at(lx, 0))) {
		lx->p++;
		unit.len++;
	}
	lx->tok.kind = TOK_NUM;
	for (size_t i = 0; lx->p > digits && i < sizeof(units) / sizeof(units[0]); i++) {
		if (p9_talk_is(&unit, units[i].name)) {
			lx->tok.num = v * units[i].factor;
			return 0;
		}
	}
	return p9_talk_fail(lx->err, lx->tok.pos, "expected a number (units: ms s k m), found \"%.*s\"",
			    (int)(lx->p - lx->tok.start), lx->tok.start);
}

/* One escape after a backslash; -1 when it is not one. */
static int escape(struct talk_lex *lx)
{
	static const char from[] = "ntr0\\\"'", to[] = "\n\t\r\0\\\"'";
	int c = at(lx, 0);
	if (c == 'x' && hex_digit(at(lx, 1)) >= 0 && hex_digit(at(lx, 2)) >= 0) {
		c = hex_digit(at(lx, 1)) * 16 + hex_digit(at(lx, 2));
		lx->p += 3;
		return c;
	}
	const char *f = c > 0 ? strchr(from, c) : NULL;
	lx->p++;
	return f ? (unsigned char)to[f - from] : -1;
}

static int string(struct talk_lex *lx)
{
	int quote = at(lx, 0);
	const char *close = ++lx->p;
	while (close < lx->end && *close != quote && *close != '\n') {
		close += *close == '\\' && quote == '"' && close + 1 < lx->end ? 2 : 1;
	}
	char *s = p9_talk_alloc(lx->arena, (size_t)(close - lx->p) + 1);
	if (!s) {
		return p9_talk_fail(lx->err, lx->tok.pos, "out of memory");
	}
	lx->tok.kind = TOK_STR;
	lx->tok.text = (struct talk_text){ s, 0 };
	for (int c = at(lx, 0); c >= 0 && c != '\n' && c != quote; c = at(lx, 0)) {
		lx->p++;
		if (c == '\\' && quote == '"') {
			c = escape(lx);
		}
		if (c < 0) {
			return p9_talk_fail(lx->err, here(lx), "expected \\n \\t \\r \\0 \\\\ \\\" or \\xNN");
		}
		s[lx->tok.text.len++] = (char)c;
	}
	if (at(lx, 0) != quote) {
		return p9_talk_fail(lx->err, here(lx), "expected %c at the end of the string", quote);
	}
	lx->p++;
	return 0;
}

static void take_word(struct talk_lex *lx, enum talk_tok_kind kind)
{
	lx->tok.kind = kind;
	lx->tok.text = (struct talk_text){ lx->p, 0 };
	while (is_word(at(lx, 0))) {
		lx->p++;
		lx->tok.text.len++;
	}
}

static int punctuation(struct talk_lex *lx)
{
	static const char pairs[][3] = { "!=", "<=", ">=", "<<", ">>", "!~", ":=", ":+" };
	int c = at(lx, 0);
	lx->tok.kind = TOK_PUNCT;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		if (c == pairs[i][0] && at(lx, 1) == pairs[i][1]) {
			lx->tok.num = TALK_PUNCT2(c, pairs[i][1]);
			lx->p += 2;
			return 0;
		}
	}
	if (!strchr("=<>~!&|+-*/%^()[],.", c)) {
		return p9_talk_fail(lx->err, lx->tok.pos, "unexpected character 0x%02x", (unsigned)c);
	}
	lx->depth += c == '(' || c == '[';
	lx->depth -= (c == ')' || c == ']') && lx->depth > 0;
	lx->tok.num = (uint64_t)c;
	lx->p++;
	return 0;
}

int p9_talk_lex_next(struct talk_lex *lx)
{
	skip(lx);
	int c = at(lx, 0);
	lx->tok = (struct talk_tok){ .pos = here(lx), .start = lx->p };
	if (c < 0) {
		lx->tok.kind = TOK_EOF;
		return 0;
	}
	if (c == '\n') {
		lx->tok.kind = TOK_NL;
		newline(lx);
		return 0;
	}
	if (is_digit(c)) {
		return number(lx);
	}
	if (c == '"' || c == '\'') {
		return string(lx);
	}
	if ((c == '$' || c == '@') && is_alpha(at(lx, 1))) {
		lx->p++;
		take_word(lx, c == '$' ? TOK_VAR : TOK_BIND);
		return 0;
	}
	if (is_alpha(c)) {
		take_word(lx, TOK_WORD);
		return 0;
	}
	if (c == 0) {
		return p9_talk_fail(lx->err, lx->tok.pos, "unexpected character 0x00");
	}
	return punctuation(lx);
}

int p9_talk_lex_hex(struct talk_lex *lx, struct talk_text *bytes)
{
	skip(lx);
	size_t n = 0;
	while (is_word(at(lx, n))) {
		if (hex_digit(at(lx, n++)) < 0) {
			return 0;
		}
	}
	char *b = n > 0 && n % 2 == 0 ? p9_talk_alloc(lx->arena, n / 2) : NULL;
	if (!b) {
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		b[i / 2] = (char)((unsigned char)b[i / 2] << 4 | hex_digit((unsigned char)lx->p[i]));
	}
	*bytes = (struct talk_text){ b, n / 2 };
	lx->p += n;
	return 1;
}

int p9_talk_lex_expected(struct talk_lex *lx, const char *what)
{
	const struct talk_tok *t = &lx->tok;
	if (t->kind == TOK_EOF || t->kind == TOK_NL) {
		return p9_talk_fail(lx->err, t->pos, "expected %s, found the end of the %s", what,
				    t->kind == TOK_EOF ? "file" : "line");
	}
	int n = (int)(lx->p - t->start);
	return p9_talk_fail(lx->err, t->pos, "expected %s, found %.*s", what, n < 40 ? n : 40, t->start);
}
