/* SPDX-License-Identifier: BSD-2-Clause */
/* p9spec.c - prints what is made from proto/ and is not C source of ours:
 *   p9spec messages   include/p9/messages.h: constants, structs, the union of all messages
 *   p9spec protocol   doc/protocol.md
 *   p9spec dict       the fuzzers' dictionary (AFL and libFuzzer format)
 * The C preprocessor is the only reader of the .def files; this program includes them like any other.
 */
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct kind {
	const char *name, *wire, *check, *print, *fuzz, *doc;
};
static const struct kind kinds[] = {
#define KIND(k, w, c, p, f, d) { #k, #w, #c, #p, #f, d },
#include "kinds.def"
};

struct field {
	const char *kind, *name, *doc;
};
struct msg {
	char dir;
	const char *lo;
	int num;
	const char *state, *order, *effect, *doc;
	const struct field *fields;
};

#define TMSG(lo, num, state, order, effect, doc) static const struct field f_T##lo[] = {
#define RMSG(lo, num, doc) static const struct field f_R##lo[] = {
#define FIELD(k, n, d) { #k, #n, d },
#define END(dir, lo) { 0, 0, 0 } };
#include "9p2000L.def"

static const struct msg msgs[] = {
#define TMSG(lo, num, state, order, effect, doc) { 'T', #lo, num, #state, #order, #effect, doc, f_T##lo },
#define RMSG(lo, num, doc) { 'R', #lo, num, "", "", "", doc, f_R##lo },
#define FIELD(k, n, d)
#define END(dir, lo)
#include "9p2000L.def"
};

struct num {
	const char *set, *name;
	unsigned long long v;
	const char *doc;
};
static const struct num flags[] = {
#define FLAG(set, name, v) { #set, #name, v, "" },
#include "flags.def"
};
static const struct num limits[] = {
#define LIMIT(name, v, doc) { "", #name, v, doc },
#include "limits.def"
};
static const struct num errnos[] = {
#define ERRNO(name, v, doc) { "", #name, v, doc },
#include "errno.def"
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const struct kind *kind_of(const char *name)
{
	for (size_t i = 0; i < COUNT(kinds); i++) {
		if (strcmp(kinds[i].name, name) == 0) {
			return &kinds[i];
		}
	}
	return NULL;
}

static const char *ctype_of(const char *wire)
{
	static const char *const map[][2] = {
		{ "u8", "uint8_t" },	    { "u16", "uint16_t" },	  { "u32", "uint32_t" },
		{ "u64", "uint64_t" },	    { "str", "struct p9_str" },	  { "strs", "struct p9_strs" },
		{ "qid", "struct p9_qid" }, { "qids", "struct p9_qids" }, { "data", "struct p9_data" },
	};
	for (size_t i = 0; i < COUNT(map); i++) {
		if (strcmp(map[i][0], wire) == 0) {
			return map[i][1];
		}
	}
	return "?";
}

static const char messages_head[] =
	"/* SPDX-License-Identifier: BSD-2-Clause */\n"
	"/* messages.h - every message of 9P2000.L as a C struct. Printed by tools/p9spec from proto/; do not edit.\n"
	" *\n"
	" * Strings and payload are views: they point into the buffer that was decoded and live as long as it does.\n"
	" */\n"
	"#ifndef P9_MESSAGES_H\n"
	"#define P9_MESSAGES_H\n"
	"#include <stddef.h>\n"
	"#include <stdint.h>\n\n"
	"/* A string as 9P carries it: any bytes, no NUL at its end. */\n"
	"struct p9_str {\n\tconst char *s;\n\tuint16_t len;\n};\n"
	"/* Identity of a file: equal path means the same file, another version means that it changed. */\n"
	"struct p9_qid {\n\tuint8_t type;\n\tuint32_t version;\n\tuint64_t path;\n};\n"
	"/* Names of a Twalk. n may be above 16 in a decoded message: then only v[0..15] are filled. */\n"
	"struct p9_strs {\n\tuint16_t n;\n\tstruct p9_str v[16];\n};\n"
	"/* Qids of an Rwalk; n as above. */\n"
	"struct p9_qids {\n\tuint16_t n;\n\tstruct p9_qid v[16];\n};\n"
	"/* Payload. p is NULL when it is elsewhere (scattered, or to be filled in place). */\n"
	"struct p9_data {\n\tuint32_t len;\n\tconst uint8_t *p;\n};\n\n";

static void print_messages(void)
{
	fputs(messages_head, stdout);
	printf("/* Message types. */\nenum p9_type {\n");
	for (size_t i = 0; i < COUNT(msgs); i++) {
		printf("\tP9_%c%s = %d,\n", msgs[i].dir, msgs[i].lo, msgs[i].num);
	}
	printf("};\n\n");
	for (size_t i = 0; i < COUNT(limits); i++) {
		printf("#define P9_%-20s %lluu /* %s */\n", limits[i].name, limits[i].v, limits[i].doc);
	}
	printf("\n/* Flags and values, Linux generic numbers. */\n");
	for (size_t i = 0; i < COUNT(flags); i++) {
		printf("#define P9_%-24s 0x%llxu\n", flags[i].name, flags[i].v);
	}
	printf("\n/* Errors, Linux generic numbers. */\n");
	for (size_t i = 0; i < COUNT(errnos); i++) {
		printf("#define P9_%-16s %llu /* %s */\n", errnos[i].name, errnos[i].v, errnos[i].doc);
	}
	printf("\n");
	for (size_t i = 0; i < COUNT(msgs); i++) {
		const struct msg *m = &msgs[i];
		printf("/* %c%s [%d]: %s */\nstruct p9_%c%s {\n", m->dir, m->lo, m->num, m->doc, tolower(m->dir),
		       m->lo);
		if (!m->fields[0].name) {
			printf("\tchar empty; /* no fields; not on the wire */\n");
		}
		for (const struct field *f = m->fields; f->name; f++) {
			const struct kind *k = kind_of(f->kind);
			printf("\t%s %s;%s%s%s\n", ctype_of(k->wire), f->name, *f->doc ? " /* " : "", f->doc,
			       *f->doc ? " */" : "");
		}
		printf("};\n\n");
	}
	printf("/* Any message. `type` says which member of the union counts. */\n"
	       "struct p9_msg {\n\tuint8_t type;\n\tuint16_t tag;\n\tunion {\n");
	for (size_t i = 0; i < COUNT(msgs); i++) {
		printf("\t\tstruct p9_%c%s %c%s;\n", tolower(msgs[i].dir), msgs[i].lo, tolower(msgs[i].dir),
		       msgs[i].lo);
	}
	printf("\t};\n};\n\n#endif\n");
}

static void print_layout(const struct msg *m)
{
	printf("    size[4] %c%s tag[2]", m->dir, m->lo);
	for (const struct field *f = m->fields; f->name; f++) {
		static const char *const map[][2] = {
			{ "u8", "%s[1]" },
			{ "u16", "%s[2]" },
			{ "u32", "%s[4]" },
			{ "u64", "%s[8]" },
			{ "str", "%s[s]" },
			{ "strs", "n%s[2] n%s*(%s[s])" },
			{ "qid", "%s[13]" },
			{ "qids", "n%s[2] n%s*(%s[13])" },
			{ "data", "count[4] %s[count]" },
		};
		const struct kind *k = kind_of(f->kind);
		for (size_t i = 0; i < COUNT(map); i++) {
			if (strcmp(map[i][0], k->wire) != 0) {
				continue;
			}
			putchar(' ');
			for (const char *p = map[i][1]; *p; p++) {
				if (p[0] == '%') {
					fputs(f->name, stdout);
					p++;
				} else {
					putchar(*p);
				}
			}
		}
	}
	printf("\n");
}

static void print_protocol(void)
{
	printf("# 9P2000.L as p9 speaks it\n\n"
	       "<!-- Printed by tools/p9spec from proto/*.def; do not edit. -->\n\n"
	       "Integers are little-endian. `[s]` is a string: length[2] and that many bytes, any bytes, no NUL at the\n"
	       "end. A qid is type[1] version[4] path[8]. Every message begins with size[4] (its own length, these\n"
	       "four bytes included), type[1] and tag[2].\n\n## Messages\n");
	for (size_t i = 0; i < COUNT(msgs); i++) {
		const struct msg *m = &msgs[i];
		printf("\n### %c%s (%d)\n\n%s\n\n", m->dir, m->lo, m->num, m->doc);
		print_layout(m);
		if (m->dir == 'T') {
			printf("\nThe fid must be: %s. Order among requests of one fid: %s. %s.\n", m->state, m->order,
			       strcmp(m->effect, "changes") == 0 ? "Refused with EROFS on a read-only export"
								 : "Allowed on a read-only export");
		}
		if (m->fields[0].name) {
			printf("\n| field | kind | meaning |\n|---|---|---|\n");
		}
		for (const struct field *f = m->fields; f->name; f++) {
			printf("| %s | %s | %s |\n", f->name, f->kind, f->doc);
		}
	}
	printf("\n## Kinds of fields\n\n| kind | on the wire | check | meaning |\n|---|---|---|---|\n");
	for (size_t i = 0; i < COUNT(kinds); i++) {
		printf("| %s | %s | %s | %s |\n", kinds[i].name, kinds[i].wire, kinds[i].check, kinds[i].doc);
	}
	printf("\n## Limits\n\n| name | value | meaning |\n|---|---|---|\n");
	for (size_t i = 0; i < COUNT(limits); i++) {
		printf("| P9_%s | %llu | %s |\n", limits[i].name, limits[i].v, limits[i].doc);
	}
	printf("\n## Flags and values\n\n| set | name | value |\n|---|---|---|\n");
	for (size_t i = 0; i < COUNT(flags); i++) {
		printf("| %s | P9_%s | 0x%llx |\n", flags[i].set, flags[i].name, flags[i].v);
	}
	printf("\n## Errors (Rlerror ecode)\n\n| name | number | text |\n|---|---|---|\n");
	for (size_t i = 0; i < COUNT(errnos); i++) {
		printf("| %s | %llu | %s |\n", errnos[i].name, errnos[i].v, errnos[i].doc);
	}
}

static void print_le(unsigned long long v, int n)
{
	for (int i = 0; i < n; i++) {
		printf("\\x%02x", (unsigned)(v >> (8 * i)) & 0xff);
	}
}

static void print_dict(void)
{
	printf("# Printed by tools/p9spec from proto/; do not edit.\n");
	for (size_t i = 0; i < COUNT(msgs); i++) {
		printf("%c%s=\"\\x%02x\"\n", msgs[i].dir, msgs[i].lo, msgs[i].num);
	}
	for (size_t i = 0; i < COUNT(limits); i++) {
		printf("limit_%s=\"", limits[i].name);
		print_le(limits[i].v, limits[i].v > 0xffff ? 4 : limits[i].v > 0xff ? 2 : 4);
		printf("\"\n");
	}
	for (size_t i = 0; i < COUNT(flags); i++) {
		printf("flag_%s=\"", flags[i].name);
		print_le(flags[i].v, 4);
		printf("\"\n");
	}
	printf("dialect=\"9P2000.L\"\ndotdot=\"\\x02\\x00..\"\nempty=\"\\x00\\x00\"\nacl=\"system.posix_acl_access\"\n"
	       "user=\"user.a\"\nbig=\"\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x7f\"\n");
}

int main(int argc, char **argv)
{
	const char *what = argc == 2 ? argv[1] : "";
	if (strcmp(what, "messages") == 0) {
		print_messages();
	} else if (strcmp(what, "protocol") == 0) {
		print_protocol();
	} else if (strcmp(what, "dict") == 0) {
		print_dict();
	} else {
		fprintf(stderr, "usage: p9spec messages|protocol|dict\n");
		return 2;
	}
	return 0;
}
