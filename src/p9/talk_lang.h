/* SPDX-License-Identifier: BSD-2-Clause */
/* talk_lang.h - the .9t language as such: words, expressions, values, statements. No I/O.
 *
 *   talk_lex.c    text -> words          talk_expr.c     words -> expressions (postfix code)
 *   talk_parse.c  words -> statements    talk_eval.c     expressions -> values; variables and arenas
 *                                        talk_compare.c  values against what is expected
 *
 * A script is parsed as a whole before anything runs. One thread; memory comes from arenas that end with the script,
 * the test or the statement. Functions that return int give 0 or -1, and have then said why (p9_talk_fail).
 */
#ifndef P9_TALK_LANG_H
#define P9_TALK_LANG_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "p9/codec.h"

/* ---- memory: talk_eval.c ---- */
struct talk_arena {
	struct talk_block *blocks;
	size_t total;
};
/* n bytes, zeroed; NULL beyond 256 MiB in all or without memory. */
void *p9_talk_alloc(struct talk_arena *a, size_t n);
void p9_talk_reset(struct talk_arena *a);

struct talk_text {
	const char *s;
	size_t len;
};
struct talk_pos {
	unsigned line, col;
};
/* Where a message about a script goes: parser and runner share it. */
struct talk_err {
	const char *file;
	bool set;
	char text[4096];
};
/* Says "FILE:LINE:COL: ..." once (the first cause stays). Always -1. */
int p9_talk_fail(struct talk_err *e, struct talk_pos pos, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ---- words: talk_lex.c ---- */
enum talk_tok_kind { TOK_EOF, TOK_NL, TOK_WORD, TOK_NUM, TOK_STR, TOK_VAR, TOK_BIND, TOK_PUNCT };
#define TALK_PUNCT2(a, b) ((unsigned)(a) << 8 | (unsigned)(b))
struct talk_tok {
	enum talk_tok_kind kind;
	struct talk_pos pos;
	struct talk_text text; /* word, decoded string, name without $ or @ */
	uint64_t num;	       /* number; code of the punctuation, TALK_PUNCT2 for two characters */
	const char *start;
};
struct talk_lex {
	const char *p, *end, *line_start;
	unsigned line, depth; /* depth: open brackets; newlines count only at 0 */
	struct talk_tok tok;  /* the word under the hand */
	struct talk_arena *arena;
	struct talk_err *err;
};
int p9_talk_lex_next(struct talk_lex *lx);
/* Takes the word after the current one when it is pairs of hex digits: 1, or 0 when it is something else. */
int p9_talk_lex_hex(struct talk_lex *lx, struct talk_text *bytes);
/* "expected WHAT, found ..." at the current word. */
int p9_talk_lex_expected(struct talk_lex *lx, const char *what);
bool p9_talk_is(const struct talk_text *t, const char *s);

/* ---- expressions: talk_expr.c parses them into postfix code, talk_eval.c runs it ---- */
/* clang-format off */
enum talk_op { OP_NUM, OP_STR, OP_VAR, OP_BIND, OP_ANY, OP_LIST, OP_CALL, OP_NEG, OP_POW, OP_MUL, OP_DIV, OP_MOD, OP_ADD,
	       OP_SUB, OP_SHL, OP_SHR, OP_AND, OP_OR };
enum talk_fn { FN_ZEROS, FN_PATTERN, FN_U8, FN_U16, FN_U32, FN_U64, FN_STR, FN_HEX, FN_QID, FN_DIRENT, FN_LEN, FN_COUNT,
	       FN_UNIQUE, FN_SORTED, FN_ITEM };
/* clang-format on */
struct talk_ins {
	uint8_t op, fn;
	unsigned n; /* elements of a list, arguments of a call */
	struct talk_pos pos;
	uint64_t num;
	struct talk_text text;
};
struct talk_expr {
	const struct talk_ins *code;
	unsigned n;
	struct talk_pos pos;
};
int p9_talk_expr(struct talk_lex *lx, struct talk_expr *out);

enum talk_val_kind { VAL_NUM, VAL_STR, VAL_LIST, VAL_QID, VAL_ANY, VAL_UNBOUND };
struct talk_val {
	enum talk_val_kind kind;
	uint64_t num;
	struct talk_text text; /* string, or the name that is not bound */
	struct talk_val *v;    /* list of num elements, none of them a list */
	struct p9_qid qid;
};
struct talk_var {
	struct talk_var *next;
	struct talk_text name;
	struct talk_val val;
};
struct talk_vars {
	struct talk_var *set, *bound; /* $name, @name */
	struct talk_arena keep, tmp;  /* of the test, of the statement */
	struct talk_err *err;
};
int p9_talk_eval(struct talk_vars *vs, const struct talk_expr *e, struct talk_val *out);
int p9_talk_eval_num(struct talk_vars *vs, const struct talk_expr *e, uint64_t *out);
int p9_talk_eval_text(struct talk_vars *vs, const struct talk_expr *e, struct talk_text *out);
int p9_talk_set(struct talk_vars *vs, struct talk_text name, const struct talk_val *val);
int p9_talk_set_num(struct talk_vars *vs, const char *name, uint64_t num);
int p9_talk_bind(struct talk_vars *vs, struct talk_text name, const struct talk_val *val);
/* Number of a value: a number, or a string that spells one. */
bool p9_talk_number(const struct talk_val *v, uint64_t *out);
void p9_talk_show(char *buf, size_t cap, const struct talk_val *v);

/* ---- statements: talk_parse.c ---- */
/* clang-format off */
enum talk_cmp { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_HAS, CMP_HASNOT, CMP_STORE, CMP_APPEND, CMP_NONE };
struct talk_field {
	struct talk_text name, sub; /* "qid", "type" */
	const struct p9_field *desc; /* NULL for tag and the parts of `raw frame` */
	struct talk_expr mask, value; /* mask.n 0: none */
	uint8_t cmp;
	struct talk_pos pos;
};
enum talk_kind {
	ST_TEST, ST_TX, ST_RX, ST_RX_ANY, ST_RX_NONE, ST_RX_CLOSED, ST_VERSION, ST_NOVERSION, ST_RAW, ST_FRAME, ST_CUT,
	ST_TRIM, ST_PAD, ST_SPLIT, ST_FLOOD, ST_CORK, ST_UNCORK, ST_CONN, ST_CLOSE, ST_SHUTDOWN, ST_SLEEP, ST_HOST,
	ST_REPEAT, ST_EACH, ST_END, ST_TIMEOUT, ST_SET, ST_EXPECT, ST_REQUIRES, ST_SERVER, ST_PEER, ST_EXIT, ST_SUITE,
	ST_SOURCE, ST_OPTIONAL, ST_SKIP, ST_SCRATCH, ST_FILE, ST_RX_REFUSED,
	ST_KINDS
};
/* clang-format on */
struct talk_stmt {
	uint8_t kind, cmp;
	bool maybe, negate, joined; /* joined: an rx on the line of its tx */
	struct talk_pos pos;
	struct talk_text source;   /* the text of the statement */
	struct talk_text name, id; /* id: of a check */
	const struct p9_desc *msg;
	struct talk_field *fields;
	unsigned nfields;
	struct talk_expr a, b;
	unsigned jump; /* repeat, each: its end; end: its beginning */
};
struct talk_script {
	struct talk_stmt *stmts;
	unsigned n, cap;
	struct talk_arena arena;
	struct talk_err *err;
};
/* Parses `text`, which must outlive the script. */
int p9_talk_parse(struct talk_script *s, const char *text, size_t len);
void p9_talk_script_fini(struct talk_script *s);

/* Compares a value with the right side of a field, of `expect` or `host`: 0 when it holds, 1 and why when not. */
int p9_talk_compare(struct talk_vars *vs, const struct talk_val *got, const struct talk_field *f, char *why,
		    size_t cap);

#endif
