/* SPDX-License-Identifier: BSD-2-Clause */
/* talk_expr.c - expressions of the .9t language: from words to postfix code.
 *
 * A shunting yard with two fixed stacks, so nesting costs no C stack and has a bound. Binding, loosest first:
 * |  &  << >>  + -  * / %  unary -  ^ (power, from the right). Names of constants are resolved here: flags.def without
 * their P9_, limits.def, errno.def, message types, S_IF*, and nofid, notag, none, true, false.
 * talk_eval.c runs the code.
 */
#include <stdlib.h>
#include <string.h>
#include "p9/talk_lang.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define NESTING 64u
#define CODE_MAX 1024u

/* What waits on the operator stack; brackets carry what they will become. */
struct pending {
	uint8_t op, prec, fn;
	char close; /* ')' or ']' of a bracket, else 0 */
	bool right;
	unsigned n; /* elements before the last comma */
	struct talk_pos pos;
};
struct yard {
	struct talk_lex *lx;
	struct pending ops[NESTING];
	unsigned nops;
	struct talk_ins code[CODE_MAX];
	unsigned ncode;
};

enum { PREC_UNARY = 6 };

/* clang-format off */
static const struct {
	unsigned punct;
	uint8_t op, prec;
} operators[] = {
	{ '|', OP_OR, 1 },  { '&', OP_AND, 2 }, { TALK_PUNCT2('<', '<'), OP_SHL, 3 }, { TALK_PUNCT2('>', '>'), OP_SHR, 3 },
	{ '+', OP_ADD, 4 }, { '-', OP_SUB, 4 }, { '*', OP_MUL, 5 },		      { '/', OP_DIV, 5 },
	{ '%', OP_MOD, 5 }, { '^', OP_POW, 7 },
};

static const struct {
	const char *name;
	uint8_t fn, least, most;
} functions[] = {
	{ "zeros", FN_ZEROS, 1, 1 },   { "pattern", FN_PATTERN, 1, 2 }, { "u8", FN_U8, 1, 1 },	 { "u16", FN_U16, 1, 1 },
	{ "u32", FN_U32, 1, 1 },       { "u64", FN_U64, 1, 1 },		{ "str", FN_STR, 1, 1 }, { "hex", FN_HEX, 1, 1 },
	{ "qid", FN_QID, 3, 3 },       { "dirent", FN_DIRENT, 4, 4 },	{ "len", FN_LEN, 1, 1 }, { "count", FN_COUNT, 1, 1 },
	{ "unique", FN_UNIQUE, 1, 1 }, { "sorted", FN_SORTED, 1, 1 },
	{ "item", FN_ITEM, 2, 2 },
};

static const struct {
	const char *name;
	uint64_t value;
} constants[] = {
#define LIMIT(name, value, doc) { #name, value },
#include "limits.def"
	{ "nofid", P9_NOFID },	{ "notag", P9_NOTAG },	{ "none", P9_NONUNAME }, { "true", 1 },
	{ "false", 0 },		{ "S_IFMT", 0170000 },	{ "S_IFSOCK", 0140000 }, { "S_IFLNK", 0120000 },
	{ "S_IFREG", 0100000 }, { "S_IFBLK", 0060000 }, { "S_IFDIR", 0040000 },	 { "S_IFCHR", 0020000 },
	{ "S_IFIFO", 0010000 }, { "S_ISUID", 04000 },	{ "S_ISGID", 02000 },	 { "S_ISVTX", 01000 },
};
/* clang-format on */

static bool constant(const struct talk_text *name, uint64_t *value)
{
	for (size_t i = 0; i < COUNT(constants); i++) {
		if (p9_talk_is(name, constants[i].name)) {
			*value = constants[i].value;
			return true;
		}
	}
	const struct p9_flag *f = p9_wire_flag(name->s, name->len);
	if (f) {
		*value = f->value;
		return true;
	}
	int type = p9_wire_type(name->s, name->len);
	*value = type >= 0 ? (uint64_t)type : p9_error_number(name->s, (unsigned)name->len);
	return *value != 0;
}

static int emit(struct yard *y, const struct talk_ins *ins)
{
	if (y->ncode == CODE_MAX) {
		return p9_talk_fail(y->lx->err, ins->pos, "expected a shorter expression (at most %u parts)", CODE_MAX);
	}
	y->code[y->ncode++] = *ins;
	return 0;
}

static int push(struct yard *y, const struct pending *p)
{
	if (y->nops == NESTING) {
		return p9_talk_fail(y->lx->err, p->pos, "expected at most %u open brackets and operators", NESTING);
	}
	y->ops[y->nops++] = *p;
	return 0;
}

/* Emits the operators on top that bind at least as tightly as prec (more tightly, for one that works from the right). */
static int reduce(struct yard *y, unsigned prec, bool right)
{
	while (y->nops > 0) {
		const struct pending *top = &y->ops[y->nops - 1];
		if (top->close || top->prec < prec || (right && top->prec == prec)) {
			return 0;
		}
		y->nops--;
		if (emit(y, &(struct talk_ins){ .op = top->op, .pos = top->pos }) < 0) {
			return -1;
		}
	}
	return 0;
}

/* A closing bracket: what it closes becomes a list, a call, or nothing. */
static int close_bracket(struct yard *y, bool empty)
{
	const struct talk_tok *t = &y->lx->tok;
	if (reduce(y, 0, false) < 0) {
		return -1;
	}
	struct pending p = y->ops[--y->nops];
	unsigned n = empty ? 0 : p.n + 1;
	if (p.op == OP_CALL && (n < functions[p.fn].least || n > functions[p.fn].most)) {
		return p9_talk_fail(y->lx->err, t->pos, "expected %u argument%s for %s()", functions[p.fn].least,
				    functions[p.fn].least == 1 ? "" : "s", functions[p.fn].name);
	}
	if (p.op == OP_LIST || p.op == OP_CALL) {
		uint8_t fn = p.op == OP_CALL ? functions[p.fn].fn : 0;
		if (emit(y, &(struct talk_ins){ .op = p.op, .fn = fn, .n = n, .pos = p.pos }) < 0) {
			return -1;
		}
	}
	return p9_talk_lex_next(y->lx);
}

/* A name: a function with its bracket, `any`, or a constant. Returns 1 when an operand must still come. */
static int name(struct yard *y)
{
	struct talk_tok t = y->lx->tok;
	uint64_t value = 0;
	if (p9_talk_lex_next(y->lx) < 0) {
		return -1;
	}
	bool call = y->lx->tok.kind == TOK_PUNCT && y->lx->tok.num == '(';
	for (size_t i = 0; call && i < COUNT(functions); i++) {
		if (p9_talk_is(&t.text, functions[i].name)) {
			struct pending p = { .op = OP_CALL, .fn = (uint8_t)i, .close = ')', .pos = t.pos };
			return push(y, &p) < 0 || p9_talk_lex_next(y->lx) < 0 ? -1 : 1;
		}
	}
	if (call) {
		return p9_talk_fail(y->lx->err, t.pos, "expected a function, found %.*s()", (int)t.text.len, t.text.s);
	}
	if (p9_talk_is(&t.text, "any")) {
		return emit(y, &(struct talk_ins){ .op = OP_ANY, .pos = t.pos });
	}
	if (!constant(&t.text, &value)) {
		return p9_talk_fail(y->lx->err, t.pos, "expected a value, found the unknown name %.*s", (int)t.text.len,
				    t.text.s);
	}
	return emit(y, &(struct talk_ins){ .op = OP_NUM, .num = value, .pos = t.pos });
}

/* Where an operand must come. Returns 1 when it is still to come, 0 when it was there, -1. */
static int operand(struct yard *y)
{
	const struct talk_tok *t = &y->lx->tok;
	struct talk_ins ins = { .pos = t->pos, .num = t->num, .text = t->text };
	struct pending p = { .pos = t->pos };
	switch (t->kind) {
	case TOK_WORD:
		return name(y);
	case TOK_NUM:
		ins.op = OP_NUM;
		break;
	case TOK_STR:
		ins.op = OP_STR;
		break;
	case TOK_VAR:
		ins.op = OP_VAR;
		break;
	case TOK_BIND:
		ins.op = OP_BIND;
		break;
	case TOK_PUNCT:
		if (t->num == '-') {
			p.op = OP_NEG;
			p.prec = PREC_UNARY;
		} else if (t->num == '(' || t->num == '[') {
			p.op = t->num == '[' ? OP_LIST : OP_NUM;
			p.close = t->num == '[' ? ']' : ')';
		} else if (y->nops > 0 && y->ops[y->nops - 1].close == (char)t->num && y->ops[y->nops - 1].n == 0) {
			return y->ops[y->nops - 1].op == OP_NUM ? p9_talk_lex_expected(y->lx, "a value")
								: close_bracket(y, true);
		} else {
			return p9_talk_lex_expected(y->lx, "a value");
		}
		return push(y, &p) < 0 || p9_talk_lex_next(y->lx) < 0 ? -1 : 1;
	default:
		return p9_talk_lex_expected(y->lx, "a value");
	}
	return emit(y, &ins) < 0 ? -1 : p9_talk_lex_next(y->lx);
}

/* A comma belongs to the bracket that is open. */
static int comma(struct yard *y)
{
	if (reduce(y, 0, false) < 0) {
		return -1;
	}
	if (y->nops == 0 || y->ops[y->nops - 1].op == OP_NUM) {
		return p9_talk_lex_expected(y->lx, "an operator");
	}
	y->ops[y->nops - 1].n++;
	return p9_talk_lex_next(y->lx) < 0 ? -1 : 1;
}

static bool bracket_open(const struct yard *y)
{
	bool open = false;
	for (unsigned i = 0; i < y->nops; i++) {
		open |= y->ops[i].close != 0;
	}
	return open;
}

/* After an operand. Returns 1 when another operand must come, 0 to look for another operator, 2 at the end. */
static int operator(struct yard *y)
{
	const struct talk_tok *t = &y->lx->tok;
	bool open = bracket_open(y);
	if (t->kind == TOK_PUNCT) {
		for (size_t i = 0; i < COUNT(operators); i++) {
			if (operators[i].punct == t->num) {
				struct pending p = {
					operators[i].op, operators[i].prec, 0, 0, t->num == '^', 0, t->pos
				};
				bool fine = reduce(y, p.prec, p.right) == 0 && push(y, &p) == 0;
				return fine && p9_talk_lex_next(y->lx) == 0 ? 1 : -1;
			}
		}
		if (open && t->num == ',') {
			return comma(y);
		}
		if (open && (t->num == ')' || t->num == ']')) {
			if (reduce(y, 0, false) < 0) {
				return -1;
			}
			if (y->ops[y->nops - 1].close != (char)t->num) {
				return p9_talk_lex_expected(y->lx, t->num == ')' ? "]" : ")");
			}
			return close_bracket(y, false);
		}
	}
	return open ? p9_talk_lex_expected(y->lx, "an operator or a closing bracket") : 2;
}

static int finish(struct yard *y, struct talk_expr *out)
{
	if (reduce(y, 0, false) < 0) {
		return -1;
	}
	struct talk_ins *code = p9_talk_alloc(y->lx->arena, y->ncode * sizeof(*code));
	if (!code) {
		return p9_talk_fail(y->lx->err, out->pos, "out of memory");
	}
	memcpy(code, y->code, y->ncode * sizeof(*code));
	out->code = code;
	out->n = y->ncode;
	return 0;
}

int p9_talk_expr(struct talk_lex *lx, struct talk_expr *out)
{
	struct yard *y = malloc(sizeof(*y));
	out->pos = lx->tok.pos;
	if (!y) {
		return p9_talk_fail(lx->err, out->pos, "out of memory");
	}
	y->lx = lx;
	y->nops = y->ncode = 0;
	int rc = 1;
	while (rc == 0 || rc == 1) {
		rc = rc == 1 ? operand(y) : operator(y);
	}
	rc = rc == 2 ? finish(y, out) : -1;
	free(y);
	return rc;
}
