/* SPDX-License-Identifier: BSD-2-Clause */
/* conform_report.c - results of the conformance kit: a table for people, TAP 13, or one JSON object.
 *
 * Table and TAP come as the checks run, JSON at the end, so that it is whole also after ^C. On a terminal the check that
 * runs is shown on stderr and overwritten. Text of a server (what came) has been escaped by p9_wire_print before.
 */
#include <string.h>
#include <unistd.h>
#include "p9/conform.h"

struct counts {
	unsigned of[4]; /* by enum conform_result */
};

static struct counts count(const struct conform_set *set)
{
	struct counts n = { { 0 } };
	for (size_t i = 0; i < set->n; i++) {
		n.of[set->checks[i].result]++;
	}
	return n;
}

/* Prints lines of text, each behind a prefix. */
static void indented(const char *prefix, const char *text)
{
	while (text && *text) {
		size_t n = strcspn(text, "\n");
		printf("%s%.*s\n", prefix, (int)n, text);
		text += n + (text[n] == '\n');
	}
}

static void summary(const char *what, const unsigned of[4])
{
	printf("%s: %u passed, %u failed, %u skipped", what, of[CONFORM_PASS], of[CONFORM_FAIL], of[CONFORM_SKIP]);
	if (of[CONFORM_NOT_RUN]) {
		printf(", %u not run", of[CONFORM_NOT_RUN]);
	}
	putchar('\n');
}

/* ---- JSON ---- */
static void json_text(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		if (c == '"' || c == '\\') {
			printf("\\%c", c);
		} else if (c == '\n') {
			fputs("\\n", stdout);
		} else if (c < 0x20 || c >= 0x7f) {
			printf("\\u%04x", c);
		} else {
			putchar(c);
		}
	}
	putchar('"');
}

static void json_member(const char *name, const char *value)
{
	printf(",\"%s\":", name);
	if (value) {
		json_text(value);
	} else {
		fputs("null", stdout);
	}
}

static void json_check(const struct conform_check *c)
{
	static const char *const results[] = { "not run", "pass", "fail", "skip" };
	fputs("{\"id\":", stdout);
	json_text(c->id);
	json_member("suite", c->suite);
	json_member("expect", c->expect);
	json_member("source", c->source);
	json_member("result", results[c->result]);
	printf(",\"crash\":%s", c->crash ? "true" : "false");
	json_member("why", c->why);
	printf(",\"seconds\":%.3f}", c->seconds);
}

static void json(const struct conform_report *r, const struct conform_set *set, const char *stopped)
{
	struct counts n = count(set);
	fputs("{\"server\":", stdout);
	json_text(r->addr);
	json_member("p9", P9_VERSION);
	json_member("stopped", stopped);
	printf(",\"passed\":%u,\"failed\":%u,\"skipped\":%u,\"not_run\":%u,\"checks\":[", n.of[CONFORM_PASS],
	       n.of[CONFORM_FAIL], n.of[CONFORM_SKIP], n.of[CONFORM_NOT_RUN]);
	for (size_t i = 0; i < set->n; i++) {
		fputs(i ? ",\n" : "\n", stdout);
		json_check(&set->checks[i]);
	}
	fputs("\n]}\n", stdout);
}

/* ---- TAP ---- */
static void tap_text(const char *s)
{
	for (; *s; s++) {
		if (*s == '#' || *s == '\\') {
			putchar('\\');
		}
		putchar(*s == '\n' ? ' ' : *s);
	}
}

static void tap(struct conform_report *r, const struct conform_check *c)
{
	printf("%sok %u - %s ", c->result == CONFORM_FAIL ? "not " : "", r->number, c->id);
	tap_text(c->expect);
	if (c->result == CONFORM_SKIP) {
		fputs(" # SKIP ", stdout);
		tap_text(c->why ? c->why : "");
	}
	putchar('\n');
	if (c->result == CONFORM_FAIL) {
		indented("# source    ", c->source);
		indented("# ", c->why);
	}
}

/* ---- the table ---- */
static void end_suite(struct conform_report *r)
{
	if (r->suite) {
		fputs("  ", stdout);
		summary(r->suite, r->suite_counts);
		putchar('\n');
	}
	memset(r->suite_counts, 0, sizeof(r->suite_counts));
	r->suite = NULL;
}

static void row(struct conform_report *r, const struct conform_check *c)
{
	static const char *const words[] = { "-", "pass", "FAIL", "skip" };
	if (!r->suite || strcmp(r->suite, c->suite) != 0) {
		end_suite(r);
		r->suite = c->suite;
		printf("%s\n", c->suite);
	}
	r->suite_counts[c->result]++;
	printf("  %-5s %-16s %s\n", c->crash ? "CRASH" : words[c->result], c->id, c->expect);
	if (c->result == CONFORM_FAIL) {
		indented("          source    ", c->source);
	}
	if (c->result == CONFORM_FAIL || c->result == CONFORM_SKIP) {
		indented("          ", c->why);
	}
}

/* ---- ---- */
void p9_conform_report_begin(struct conform_report *r, const struct conform_set *set)
{
	r->terminal = isatty(STDERR_FILENO);
	r->total = set->n;
	if (r->form == CONFORM_TAP) {
		printf("TAP version 13\n1..%zu\n", set->n);
	}
}

void p9_conform_report_running(struct conform_report *r, const struct conform_check *c)
{
	r->number++;
	if (r->terminal) {
		fprintf(stderr, "\r%u/%zu %s\033[K", r->number, r->total, c->id);
		fflush(stderr);
	}
}

static void clear_line(const struct conform_report *r)
{
	if (r->terminal) {
		fputs("\r\033[K", stderr);
		fflush(stderr);
	}
}

void p9_conform_report_check(struct conform_report *r, const struct conform_check *c)
{
	clear_line(r);
	if (r->form == CONFORM_TAP) {
		tap(r, c);
	} else if (r->form == CONFORM_TABLE) {
		row(r, c);
	}
	fflush(stdout);
}

static void crashes(const struct conform_set *set, const char *prefix)
{
	for (size_t i = 0; i < set->n; i++) {
		if (set->checks[i].crash) {
			printf("%sthe server crashed or hung in %s\n", prefix, set->checks[i].id);
		}
	}
}

void p9_conform_report_end(struct conform_report *r, const struct conform_set *set, const char *stopped)
{
	struct counts n = count(set);
	clear_line(r);
	switch (r->form) {
	case CONFORM_JSON:
		json(r, set, stopped);
		break;
	case CONFORM_TAP:
		crashes(set, "# ");
		fputs("# ", stdout);
		summary("conform", n.of);
		if (stopped) {
			printf("Bail out! %s\n", stopped);
		}
		break;
	default:
		end_suite(r);
		crashes(set, "");
		if (stopped) {
			printf("not finished: %s\n", stopped);
		}
		summary("conform", n.of);
		break;
	}
}
