/* SPDX-License-Identifier: BSD-2-Clause */
/* json.c - writing JSON: what --json of ls, stat and df prints.
 *
 * Owns the rule for bytes that JSON cannot say: a name comes from a server and need not be UTF-8. Such a text is still
 * a valid JSON string that every parser takes (U+FFFD for each bad byte), and its exact bytes follow as base64.
 * Numbers are written as integers, never through floating point.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "p9/json.h"

/* Bytes of the valid UTF-8 sequence at s, of which `left` bytes are there; 0 for none (RFC 3629). */
static size_t sequence(const unsigned char *s, size_t left)
{
	size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
	if (n == 0 || n > left) {
		return 0;
	}
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80) {
			return 0;
		}
	}
	bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
	bool surrogate = s[0] == 0xed && s[1] >= 0xa0;
	bool beyond = s[0] == 0xf4 && s[1] >= 0x90;
	return overlong || surrogate || beyond ? 0 : n;
}

static void put_character(const unsigned char *s, size_t n)
{
	if (n == 0) {
		fputs("\\ufffd", stdout);
	} else if (*s == '"' || *s == '\\') {
		printf("\\%c", *s);
	} else if (*s < 0x20 || *s == 0x7f) {
		printf("\\u%04x", *s);
	} else {
		fwrite(s, 1, n, stdout);
	}
}

/* Returns whether all of it was valid UTF-8. */
static bool put_string(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t left = strlen(text);
	bool valid = true;
	putchar('"');
	while (left > 0) {
		size_t n = sequence(s, left);
		put_character(s, n);
		valid &= n > 0;
		n = n ? n : 1;
		s += n;
		left -= n;
	}
	putchar('"');
	return valid;
}

static void put_base64(const char *text)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *s = (const unsigned char *)text;
	putchar('"');
	for (size_t left = strlen(text); left > 0; s += 3, left -= left < 3 ? left : 3) {
		uint32_t v = (uint32_t)s[0] << 16 | (left > 1 ? (uint32_t)s[1] << 8 : 0) | (left > 2 ? s[2] : 0);
		putchar(digits[v >> 18]);
		putchar(digits[v >> 12 & 63]);
		putchar(left > 1 ? digits[v >> 6 & 63] : '=');
		putchar(left > 2 ? digits[v & 63] : '=');
	}
	putchar('"');
}

void p9_json_begin(struct p9_json *j)
{
	j->items = false;
	putchar('[');
}

void p9_json_end(struct p9_json *j)
{
	fputs(j->items ? "\n]\n" : "]\n", stdout);
}

void p9_json_open(struct p9_json *j)
{
	fputs(j->items ? ",\n{" : "\n{", stdout);
	j->items = true;
	j->members = false;
}

void p9_json_close(struct p9_json *j)
{
	putchar('}');
}

static void put_key(struct p9_json *j, const char *key, const char *suffix)
{
	printf("%s\"%s%s\": ", j->members ? ", " : "", key, suffix);
	j->members = true;
}

void p9_json_text(struct p9_json *j, const char *key, const char *text)
{
	if (!text) {
		p9_json_null(j, key);
		return;
	}
	put_key(j, key, "");
	if (!put_string(text)) {
		put_key(j, key, "_b64");
		put_base64(text);
	}
}

void p9_json_number(struct p9_json *j, const char *key, uint64_t n)
{
	put_key(j, key, "");
	printf("%llu", (unsigned long long)n);
}

void p9_json_null(struct p9_json *j, const char *key)
{
	put_key(j, key, "");
	fputs("null", stdout);
}

/* Seconds before 1970 come as large numbers and go out as what they mean. */
void p9_json_time(struct p9_json *j, const char *key, const uint64_t t[2], bool known)
{
	put_key(j, key, "");
	if (known) {
		printf("%lld", (long long)t[0]);
	} else {
		fputs("null", stdout);
	}
	put_key(j, key, "_nsec");
	if (known) {
		printf("%llu", (unsigned long long)t[1]);
	} else {
		fputs("null", stdout);
	}
}

const char *p9_json_type(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "directory";
	case S_IFLNK:
		return "symlink";
	case S_IFCHR:
		return "char";
	case S_IFBLK:
		return "block";
	case S_IFIFO:
		return "fifo";
	case S_IFSOCK:
		return "socket";
	default:
		return S_ISREG(mode) ? "file" : "unknown";
	}
}
