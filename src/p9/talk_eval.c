/* SPDX-License-Identifier: BSD-2-Clause */
/* talk_eval.c - values of the .9t language: arenas, variables, and the machine that runs expressions.
 *
 * A value is a number (64 bits, unsigned, wrapping), a string of any bytes, a qid, `any`, a list of those, or a binding
 * that has no value yet. $names are set, @names are bound once by an rx and compared from then on. A string that spells
 * a number does as one, so that output of shell commands can be used. Everything has a bound: a script, or a peer whose
 * bytes are bound, cannot take more than an arena holds.
 */
/* NOLINTBEGIN(clang-analyzer-core.NullDereference): the parser counts operands, which the analyzer cannot follow */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "p9/talk_lang.h"

#define ARENA_MAX ((size_t)256 << 20)
#define BLOCK ((size_t)16 << 10)

struct talk_block {
	struct talk_block *next;
	size_t used, cap;
	max_align_t b[];
};

void *p9_talk_alloc(struct talk_arena *a, size_t n)
{
	struct talk_block *k = a->blocks;
	if (n > ARENA_MAX) {
		return NULL;
	}
	n = (n + 15) & ~(size_t)15;
	if (!k || k->cap - k->used < n) {
		size_t cap = n > BLOCK ? n : BLOCK;
		k = a->total + cap <= ARENA_MAX ? malloc(sizeof(*k) + cap) : NULL;
		if (!k) {
			return NULL;
		}
		*k = (struct talk_block){ a->blocks, 0, cap };
		a->blocks = k;
		a->total += cap;
	}
	void *p = (char *)k->b + k->used;
	k->used += n;
	return memset(p, 0, n);
}

void p9_talk_reset(struct talk_arena *a)
{
	while (a->blocks) {
		struct talk_block *k = a->blocks;
		a->blocks = k->next;
		free(k);
	}
	a->total = 0;
}

static struct talk_var *find(struct talk_var *v, const struct talk_text *name)
{
	while (v && (v->name.len != name->len || memcmp(v->name.s, name->s, name->len) != 0)) {
		v = v->next;
	}
	return v;
}

static bool copy_text(struct talk_arena *a, struct talk_text *t)
{
	char *s = p9_talk_alloc(a, t->len + 1);
	if (s && t->len) {
		memcpy(s, t->s, t->len);
	}
	t->s = s;
	return s != NULL;
}

/* Moves what a value points to into an arena that lives longer. */
static bool keep(struct talk_arena *a, struct talk_val *v)
{
	if (v->kind == VAL_STR) {
		return copy_text(a, &v->text);
	}
	if (v->kind != VAL_LIST) {
		return true;
	}
	struct talk_val *items = p9_talk_alloc(a, (v->num + 1) * sizeof(*items));
	for (uint64_t i = 0; items && i < v->num; i++) {
		items[i] = v->v[i];
		if (items[i].kind == VAL_STR && !copy_text(a, &items[i].text)) {
			return false;
		}
	}
	v->v = items;
	return items != NULL;
}

static int assign(struct talk_vars *vs, struct talk_var **list, struct talk_text name, const struct talk_val *val)
{
	struct talk_var *v = find(*list, &name);
	struct talk_val copy = *val;
	if (!v && copy_text(&vs->keep, &name)) {
		v = p9_talk_alloc(&vs->keep, sizeof(*v));
		if (v) {
			v->name = name;
			v->next = *list;
			*list = v;
		}
	}
	if (!v || !keep(&vs->keep, &copy)) {
		return p9_talk_fail(vs->err, (struct talk_pos){ 0 }, "out of memory for $%.*s", (int)name.len, name.s);
	}
	v->val = copy;
	return 0;
}

int p9_talk_set(struct talk_vars *vs, struct talk_text name, const struct talk_val *val)
{
	return assign(vs, &vs->set, name, val);
}

int p9_talk_set_num(struct talk_vars *vs, const char *name, uint64_t num)
{
	struct talk_val v = { .kind = VAL_NUM, .num = num };
	return assign(vs, &vs->set, (struct talk_text){ name, strlen(name) }, &v);
}

int p9_talk_bind(struct talk_vars *vs, struct talk_text name, const struct talk_val *val)
{
	return assign(vs, &vs->bound, name, val);
}

bool p9_talk_number(const struct talk_val *v, uint64_t *out)
{
	*out = v->num;
	if (v->kind == VAL_NUM) {
		return true;
	}
	char text[32] = "";
	if (v->kind != VAL_STR || v->text.len == 0 || v->text.len >= sizeof(text)) {
		return false;
	}
	memcpy(text, v->text.s, v->text.len);
	char *end;
	*out = strtoull(text, &end, 0);
	return *end == 0 && isxdigit((unsigned char)text[0]);
}

static void show_text(char *buf, size_t cap, const struct talk_text *t)
{
	size_t n = (size_t)snprintf(buf, cap, "\"");
	for (size_t i = 0; i < t->len && i < 64 && n + 8 < cap; i++) {
		unsigned char c = (unsigned char)t->s[i];
		n += (size_t)snprintf(buf + n, cap - n, c >= 0x20 && c < 0x7f ? "%c" : "\\x%02x", c);
	}
	if (t->len > 64) {
		snprintf(buf + n, cap - n, "\"... (%zu bytes)", t->len);
	} else {
		snprintf(buf + n, cap - n, "\"");
	}
}

void p9_talk_show(char *buf, size_t cap, const struct talk_val *v)
{
	switch (v->kind) {
	case VAL_NUM:
		snprintf(buf, cap, "%llu", (unsigned long long)v->num);
		break;
	case VAL_STR:
		show_text(buf, cap, &v->text);
		break;
	case VAL_QID:
		snprintf(buf, cap, "qid(0x%x,%u,0x%llx)", v->qid.type, v->qid.version, (unsigned long long)v->qid.path);
		break;
	case VAL_LIST:
		snprintf(buf, cap, "a list of %llu", (unsigned long long)v->num);
		break;
	case VAL_ANY:
		snprintf(buf, cap, "any");
		break;
	default:
		snprintf(buf, cap, "@%.*s, not bound", (int)v->text.len, v->text.s);
		break;
	}
}

/* ---- the machine ---- */
struct machine {
	struct talk_vars *vs;
	struct talk_val *stack; /* as deep as the code is long */
	unsigned n;
};

static int bad_value(struct machine *m, const struct talk_ins *ins, const char *want, const struct talk_val *got)
{
	char text[256];
	p9_talk_show(text, sizeof(text), got);
	return p9_talk_fail(m->vs->err, ins->pos, "expected %s, found %s", want, text);
}

static int no_memory(struct machine *m, const struct talk_ins *ins)
{
	return p9_talk_fail(m->vs->err, ins->pos, "value too large (at most 256 MiB in all)");
}

static int text_of(struct machine *m, const struct talk_ins *ins, struct talk_val *v)
{
	if (v->kind == VAL_NUM) {
		char *s = p9_talk_alloc(&m->vs->tmp, 24);
		if (!s) {
			return no_memory(m, ins);
		}
		v->text.s = s;
		v->text.len = (size_t)snprintf(s, 24, "%llu", (unsigned long long)v->num);
		v->kind = VAL_STR;
	}
	return v->kind == VAL_STR ? 0 : bad_value(m, ins, "a string", v);
}

/* String + string (or number), string * number. */
static int text_op(struct machine *m, const struct talk_ins *ins, struct talk_val *a, struct talk_val *b)
{
	uint64_t times = 1;
	struct talk_text tail = { "", 0 };
	if (ins->op == OP_ADD) {
		if (text_of(m, ins, a) < 0 || text_of(m, ins, b) < 0) {
			return -1;
		}
		tail = b->text;
	} else if (ins->op != OP_MUL || a->kind != VAL_STR || !p9_talk_number(b, &times)) {
		return bad_value(m, ins, "a number", a->kind == VAL_STR ? a : b);
	}
	size_t len = a->text.len, total = len * times + tail.len;
	char *s = len == 0 || times < ARENA_MAX / len ? p9_talk_alloc(&m->vs->tmp, total + 1) : NULL;
	if (!s) {
		return no_memory(m, ins);
	}
	for (uint64_t i = 0; len > 0 && i < times; i++) {
		memcpy(s + i * len, a->text.s, len);
	}
	memcpy(s + total - tail.len, tail.s, tail.len);
	a->text = (struct talk_text){ s, total };
	return 0;
}

static uint64_t power(uint64_t base, uint64_t exp)
{
	uint64_t v = 1;
	for (; exp > 0; exp >>= 1) {
		v *= exp & 1 ? base : 1;
		base *= base;
	}
	return v;
}

static uint64_t arithmetic(uint8_t op, uint64_t a, uint64_t b)
{
	switch (op) {
	case OP_POW:
		return power(a, b);
	case OP_MUL:
		return a * b;
	case OP_DIV:
		return a / b;
	case OP_MOD:
		return a % b;
	case OP_ADD:
		return a + b;
	case OP_SUB:
		return a - b;
	case OP_SHL:
		return b < 64 ? a << b : 0;
	case OP_SHR:
		return b < 64 ? a >> b : 0;
	case OP_AND:
		return a & b;
	default:
		return a | b;
	}
}

static int binary(struct machine *m, const struct talk_ins *ins)
{
	struct talk_val *b = &m->stack[--m->n], *a = b - 1;
	uint64_t x, y;
	bool spelled = a->kind == VAL_STR && (ins->op == OP_ADD || ins->op == OP_MUL);
	if (spelled || (b->kind == VAL_STR && ins->op == OP_ADD) || !p9_talk_number(a, &x) || !p9_talk_number(b, &y)) {
		return text_op(m, ins, a, b);
	}
	if (y == 0 && (ins->op == OP_DIV || ins->op == OP_MOD)) {
		return p9_talk_fail(m->vs->err, ins->pos, "division by 0");
	}
	*a = (struct talk_val){ .kind = VAL_NUM, .num = arithmetic(ins->op, x, y) };
	return 0;
}

static int negate(struct machine *m, const struct talk_ins *ins)
{
	struct talk_val *a = &m->stack[m->n - 1];
	uint64_t x;
	if (!p9_talk_number(a, &x)) {
		return bad_value(m, ins, "a number", a);
	}
	*a = (struct talk_val){ .kind = VAL_NUM, .num = 0 - x };
	return 0;
}

static void put_le(char *s, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++) {
		s[i] = (char)(v >> (8 * i));
	}
}

/* zeros(n), pattern(n[, offset]), u8() .. u64(): bytes made from numbers. */
static int make_bytes(struct machine *m, const struct talk_ins *ins, struct talk_val *arg)
{
	uint64_t x, off = 0;
	if (!p9_talk_number(&arg[0], &x) || (ins->n > 1 && !p9_talk_number(&arg[1], &off))) {
		return bad_value(m, ins, "a number", arg);
	}
	bool fill = ins->fn == FN_ZEROS || ins->fn == FN_PATTERN;
	size_t len = fill ? x : (size_t)1 << (ins->fn - FN_U8);
	char *s = fill && x > ARENA_MAX ? NULL : p9_talk_alloc(&m->vs->tmp, len + 1);
	if (!s) {
		return no_memory(m, ins);
	}
	for (uint64_t i = 0; ins->fn == FN_PATTERN && i < len; i++) {
		s[i] = (char)((off + i) * 31 + ((off + i) >> 8) * 7);
	}
	if (!fill) {
		put_le(s, x, (unsigned)len);
	}
	*arg = (struct talk_val){ .kind = VAL_STR, .text = { s, len } };
	return 0;
}

/* str(s): a string as it stands in a message; hex("0c00"): its bytes. */
static int make_text(struct machine *m, const struct talk_ins *ins, struct talk_val *arg)
{
	if (text_of(m, ins, arg) < 0) {
		return -1;
	}
	const struct talk_text t = arg->text;
	char *s = p9_talk_alloc(&m->vs->tmp, t.len + 3);
	if (!s) {
		return no_memory(m, ins);
	}
	if (ins->fn == FN_STR) {
		put_le(s, t.len, 2);
		memcpy(s + 2, t.s, t.len);
		arg->text = (struct talk_text){ s, t.len + 2 };
		return 0;
	}
	size_t n = 0;
	for (size_t i = 0; i < t.len; i++) {
		const char *digits = "0123456789abcdef0123456789ABCDEF";
		const char *d = t.s[i] ? strchr(digits, t.s[i]) : NULL;
		if (d) {
			s[n / 2] = (char)((unsigned char)s[n / 2] << 4 | (d - digits) % 16);
			n++;
		} else if (t.s[i] != ' ') {
			return bad_value(m, ins, "hex digits", arg);
		}
	}
	arg->text = (struct talk_text){ s, n / 2 };
	return 0;
}

static int make_qid(struct machine *m, const struct talk_ins *ins, struct talk_val *arg)
{
	uint64_t x[3];
	for (int i = 0; i < 3; i++) {
		if (!p9_talk_number(&arg[i], &x[i])) {
			return bad_value(m, ins, "a number", &arg[i]);
		}
	}
	*arg = (struct talk_val){ .kind = VAL_QID, .qid = { (uint8_t)x[0], (uint32_t)x[1], x[2] } };
	return 0;
}

/* dirent(qid, offset, type, name): one entry of an Rreaddir. */
static int make_dirent(struct machine *m, const struct talk_ins *ins, struct talk_val *arg)
{
	uint64_t off, type;
	bool fine = arg[0].kind == VAL_QID && arg[3].kind == VAL_STR && arg[3].text.len <= UINT16_MAX;
	if (!fine || !p9_talk_number(&arg[1], &off) || !p9_talk_number(&arg[2], &type)) {
		return p9_talk_fail(m->vs->err, ins->pos, "expected dirent(qid, offset, type, name)");
	}
	const struct p9_dirent e = { arg[0].qid, off, (uint8_t)type, { arg[3].text.s, (uint16_t)arg[3].text.len } };
	size_t cap = arg[3].text.len + 32;
	uint8_t *s = p9_talk_alloc(&m->vs->tmp, cap);
	if (!s) {
		return no_memory(m, ins);
	}
	*arg = (struct talk_val){ .kind = VAL_STR, .text = { (char *)s, p9_wire_dirent_put(s, cap, &e) } };
	return 0;
}

static int by_text(const void *va, const void *vb)
{
	const struct talk_val *a = va, *b = vb;
	size_t n = a->text.len < b->text.len ? a->text.len : b->text.len;
	int d = n ? memcmp(a->text.s, b->text.s, n) : 0;
	return d ? d : (a->text.len > b->text.len) - (a->text.len < b->text.len);
}

/* len(string), count(list), sorted(list), unique(list): the strings of a list, each once, in order. */
static int measure(struct machine *m, const struct talk_ins *ins, struct talk_val *arg)
{
	if (ins->fn == FN_LEN) {
		int rc = text_of(m, ins, arg);
		*arg = (struct talk_val){ .kind = VAL_NUM, .num = arg->text.len };
		return rc;
	}
	if (arg->kind != VAL_LIST) {
		return bad_value(m, ins, "a list", arg);
	}
	if (ins->fn == FN_COUNT) {
		*arg = (struct talk_val){ .kind = VAL_NUM, .num = arg->num };
		return 0;
	}
	struct talk_val list = *arg;
	if (!keep(&m->vs->tmp, &list)) {
		return no_memory(m, ins);
	}
	for (uint64_t i = 0; i < list.num; i++) {
		if (text_of(m, ins, &list.v[i]) < 0) {
			return -1;
		}
	}
	qsort(list.v, list.num, sizeof(*list.v), by_text);
	uint64_t n = 0;
	for (uint64_t i = 0; ins->fn == FN_UNIQUE && i < list.num; i++) {
		if (n == 0 || by_text(&list.v[n - 1], &list.v[i]) != 0) {
			list.v[n++] = list.v[i];
		}
	}
	list.num = ins->fn == FN_UNIQUE ? n : list.num;
	*arg = list;
	return 0;
}

/* item(list, n): counted from 0. */
static int pick(struct machine *m, const struct talk_ins *ins, struct talk_val *arg)
{
	uint64_t i;
	if (arg[0].kind != VAL_LIST || !p9_talk_number(&arg[1], &i) || i >= arg[0].num) {
		return bad_value(m, ins, "item(list, number below its length)", &arg[0]);
	}
	*arg = arg[0].v[i];
	return 0;
}

static int call(struct machine *m, const struct talk_ins *ins)
{
	m->n -= ins->n - 1;
	struct talk_val *arg = &m->stack[m->n - 1];
	switch (ins->fn) {
	case FN_STR:
	case FN_HEX:
		return make_text(m, ins, arg);
	case FN_QID:
		return make_qid(m, ins, arg);
	case FN_DIRENT:
		return make_dirent(m, ins, arg);
	case FN_LEN:
	case FN_COUNT:
	case FN_UNIQUE:
	case FN_SORTED:
		return measure(m, ins, arg);
	case FN_ITEM:
		return pick(m, ins, arg);
	default:
		return make_bytes(m, ins, arg);
	}
}

static int make_list(struct machine *m, const struct talk_ins *ins)
{
	struct talk_val *items = p9_talk_alloc(&m->vs->tmp, (ins->n + 1) * sizeof(*items));
	if (!items) {
		return no_memory(m, ins);
	}
	m->n -= ins->n;
	for (unsigned i = 0; i < ins->n; i++) {
		items[i] = m->stack[m->n + i];
		if (items[i].kind == VAL_LIST) {
			return bad_value(m, ins, "no list within a list", &items[i]);
		}
	}
	m->stack[m->n++] = (struct talk_val){ .kind = VAL_LIST, .num = ins->n, .v = items };
	return 0;
}

static int load(struct machine *m, const struct talk_ins *ins)
{
	struct talk_val v = { .num = ins->num, .text = ins->text };
	const struct talk_var *var;
	switch (ins->op) {
	case OP_NUM:
		v.kind = VAL_NUM;
		break;
	case OP_STR:
		v.kind = VAL_STR;
		break;
	case OP_ANY:
		v.kind = VAL_ANY;
		break;
	default:
		var = find(ins->op == OP_VAR ? m->vs->set : m->vs->bound, &ins->text);
		if (!var && ins->op == OP_VAR) {
			return p9_talk_fail(m->vs->err, ins->pos, "$%.*s is not set", (int)v.text.len, v.text.s);
		}
		v.kind = VAL_UNBOUND;
		v = var ? var->val : v;
		break;
	}
	m->stack[m->n++] = v;
	return 0;
}

static int step(struct machine *m, const struct talk_ins *ins)
{
	switch (ins->op) {
	case OP_LIST:
		return make_list(m, ins);
	case OP_CALL:
		return call(m, ins);
	case OP_NEG:
		return negate(m, ins);
	case OP_NUM:
	case OP_STR:
	case OP_ANY:
	case OP_VAR:
	case OP_BIND:
		return load(m, ins);
	default:
		return binary(m, ins);
	}
}

int p9_talk_eval(struct talk_vars *vs, const struct talk_expr *e, struct talk_val *out)
{
	struct machine m = { vs, p9_talk_alloc(&vs->tmp, e->n * sizeof(*m.stack)), 0 };
	int rc = m.stack ? 0 : p9_talk_fail(vs->err, e->pos, "out of memory");
	for (unsigned i = 0; rc == 0 && i < e->n; i++) {
		rc = step(&m, &e->code[i]);
	}
	if (rc == 0) {
		*out = m.stack[0];
	}
	return rc;
}

int p9_talk_eval_num(struct talk_vars *vs, const struct talk_expr *e, uint64_t *out)
{
	struct talk_val v;
	if (p9_talk_eval(vs, e, &v) < 0) {
		return -1;
	}
	char text[256];
	p9_talk_show(text, sizeof(text), &v);
	return p9_talk_number(&v, out) ? 0 : p9_talk_fail(vs->err, e->pos, "expected a number, found %s", text);
}

int p9_talk_eval_text(struct talk_vars *vs, const struct talk_expr *e, struct talk_text *out)
{
	struct talk_val v;
	if (p9_talk_eval(vs, e, &v) < 0) {
		return -1;
	}
	char text[256];
	p9_talk_show(text, sizeof(text), &v);
	*out = v.text;
	return v.kind == VAL_STR ? 0 : p9_talk_fail(vs->err, e->pos, "expected a string, found %s", text);
}
/* NOLINTEND(clang-analyzer-core.NullDereference) */
