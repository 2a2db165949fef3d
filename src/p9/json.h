/* SPDX-License-Identifier: BSD-2-Clause */
/* json.h - writing JSON (RFC 8259) to stdout: one array of objects, whatever bytes the names hold. */
#ifndef P9_JSON_H
#define P9_JSON_H
#include <stdbool.h>
#include <stdint.h>

struct p9_json {      /* zero it */
	bool on;      /* the user asked for it */
	bool items;   /* the array has some */
	bool members; /* the object has some */
};
void p9_json_begin(struct p9_json *j);
void p9_json_end(struct p9_json *j);
void p9_json_open(struct p9_json *j);
void p9_json_close(struct p9_json *j);
/* Members of the object. A text that is not valid UTF-8 gets U+FFFD for each bad byte, and behind it a member
 * KEY_b64 with the exact bytes. NULL is null. */
void p9_json_text(struct p9_json *j, const char *key, const char *text);
void p9_json_number(struct p9_json *j, const char *key, uint64_t n);
void p9_json_null(struct p9_json *j, const char *key);
/* KEY in seconds and KEY_nsec; null for both when not `known`. */
void p9_json_time(struct p9_json *j, const char *key, const uint64_t t[2], bool known);
/* "file", "directory", "symlink", "fifo", "socket", "char", "block" or "unknown". */
const char *p9_json_type(uint32_t mode);

#endif
