/* SPDX-License-Identifier: BSD-2-Clause */
/* talk_compare.c - what came against what a script expects: = != < <= > >= ~ !~ := :+ of the .9t language.
 *
 * A list on the right of a single value means "one of these"; on the right of a list it is compared item by item. An
 * @name that is not bound takes the value and fits. Used for the fields of an rx, for expect and for the output of host.
 */
#include <string.h>
#include "p9/talk_lang.h"

static bool same_text(const struct talk_text *a, const struct talk_text *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->s, b->s, a->len) == 0);
}

/* Single values: 1 equal, 0 not, -1 failed to bind. */
static int equal(struct talk_vars *vs, const struct talk_val *got, const struct talk_val *want)
{
	uint64_t a, b;
	if (want->kind == VAL_ANY) {
		return 1;
	}
	if (want->kind == VAL_UNBOUND) {
		return p9_talk_bind(vs, want->text, got) < 0 ? -1 : 1;
	}
	if (got->kind == VAL_STR && want->kind == VAL_STR) {
		return same_text(&got->text, &want->text);
	}
	if (got->kind == VAL_QID && want->kind == VAL_QID) {
		return got->qid.type == want->qid.type && got->qid.version == want->qid.version &&
		       got->qid.path == want->qid.path;
	}
	return p9_talk_number(got, &a) && p9_talk_number(want, &b) && a == b;
}

static int one_of(struct talk_vars *vs, const struct talk_val *got, const struct talk_val *list)
{
	int rc = 0;
	for (uint64_t i = 0; rc == 0 && i < list->num; i++) {
		rc = equal(vs, got, &list->v[i]);
	}
	return rc;
}

static int same(struct talk_vars *vs, const struct talk_val *got, const struct talk_val *want)
{
	if (want->kind == VAL_LIST && got->kind != VAL_LIST) {
		return one_of(vs, got, want);
	}
	if (want->kind != VAL_LIST || got->kind != VAL_LIST) {
		return equal(vs, got, want);
	}
	int rc = got->num == want->num;
	for (uint64_t i = 0; rc == 1 && i < want->num; i++) {
		rc = equal(vs, &got->v[i], &want->v[i]);
	}
	return rc;
}

/* A list has an item, a string has a part. */
static int has(struct talk_vars *vs, const struct talk_val *got, const struct talk_val *want)
{
	if (got->kind == VAL_LIST) {
		return one_of(vs, want, got);
	}
	if (got->kind != VAL_STR || want->kind != VAL_STR) {
		return 0;
	}
	return memmem(got->text.s, got->text.len, want->text.s, want->text.len) != NULL;
}

static bool ordered(uint8_t cmp, uint64_t a, uint64_t b)
{
	switch (cmp) {
	case CMP_LT:
		return a < b;
	case CMP_LE:
		return a <= b;
	case CMP_GT:
		return a > b;
	default:
		return a >= b;
	}
}

/* := and :+ */
static int store(struct talk_vars *vs, const struct talk_val *got, const struct talk_field *f)
{
	const struct talk_text name = f->value.code[0].text;
	if (f->cmp == CMP_STORE) {
		return p9_talk_set(vs, name, got);
	}
	struct talk_val old, all;
	if (p9_talk_eval(vs, &f->value, &old) < 0) {
		return -1;
	}
	if (old.kind != VAL_LIST || got->kind != VAL_LIST) {
		return p9_talk_fail(vs->err, f->pos, "expected two lists for :+");
	}
	all = (struct talk_val){ .kind = VAL_LIST, .num = old.num + got->num };
	all.v = p9_talk_alloc(&vs->tmp, (all.num + 1) * sizeof(*all.v));
	if (!all.v) {
		return p9_talk_fail(vs->err, f->pos, "list too long");
	}
	if (old.num) {
		memcpy(all.v, old.v, old.num * sizeof(*all.v));
	}
	if (got->num) {
		memcpy(all.v + old.num, got->v, got->num * sizeof(*all.v));
	}
	return p9_talk_set(vs, name, &all);
}

static int holds(struct talk_vars *vs, uint8_t cmp, const struct talk_val *got, const struct talk_val *want)
{
	uint64_t a, b;
	int rc;
	switch (cmp) {
	case CMP_EQ:
		return same(vs, got, want);
	case CMP_NE:
		rc = want->kind == VAL_UNBOUND ? 1 : same(vs, got, want);
		return rc < 0 ? rc : !rc;
	case CMP_HAS:
		return has(vs, got, want);
	case CMP_HASNOT:
		rc = has(vs, got, want);
		return rc < 0 ? rc : !rc;
	default:
		return p9_talk_number(got, &a) && p9_talk_number(want, &b) && ordered(cmp, a, b);
	}
}

int p9_talk_compare(struct talk_vars *vs, const struct talk_val *got, const struct talk_field *f, char *why, size_t cap)
{
	static const char *const signs[] = { "=", "!=", "<", "<=", ">", ">=", "~", "!~" };
	struct talk_val want;
	if (f->cmp == CMP_STORE || f->cmp == CMP_APPEND) {
		return store(vs, got, f);
	}
	if (p9_talk_eval(vs, &f->value, &want) < 0) {
		return -1;
	}
	int rc = holds(vs, f->cmp, got, &want);
	if (rc < 0) {
		return -1;
	}
	char a[256], b[256];
	p9_talk_show(a, sizeof(a), got);
	p9_talk_show(b, sizeof(b), &want);
	snprintf(why, cap, "%.*s%s%.*s is %s, not %s %s", (int)f->name.len, f->name.s, f->sub.len ? "." : "",
		 (int)f->sub.len, f->sub.s, a, signs[f->cmp], b);
	return !rc;
}
