/* SPDX-License-Identifier: BSD-2-Clause */
/* codec.h - bytes <-> messages, and the table that describes every message.
 *
 * Freestanding: needs nothing but memcpy and friends. No allocation, no I/O, no state; any thread.
 * Protocol source: proto/9p2000L.def (see doc/protocol.md).
 */
#ifndef P9_CODEC_H
#define P9_CODEC_H
#include <stdbool.h>
#include "p9/error.h"
#include "p9/messages.h"
P9_C_BEGIN

static inline uint32_t p9_get32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint16_t p9_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

/* Decodes one frame whose first `len` bytes (size[4] included) are at `buf`. For messages that end in data, `len` may
 * stop anywhere at or after the count field while `elsewhere` more bytes of payload lie in other memory; data.p is
 * then NULL unless all of the payload is in `buf`. `len + elsewhere` must be the frame's size.
 * Strings and data are views into `buf`.
 * Returns 0; -P9_EPROTO for a frame that is cut short, has bytes left over or a size field that differs;
 * -P9_EOPNOTSUPP for a type that is not 9P2000.L's (msg->type and tag are set even then, when len >= 7). */
P9_MUST_USE int p9_wire_decode(const uint8_t *buf, size_t len, size_t elsewhere, struct p9_msg *msg);

/* Encodes all of a message but the payload of a final data field; its size field counts the payload (data.len).
 * Returns the number of bytes written, or -P9_EMSGSIZE when `cap` is too small or a string list is too long. */
P9_MUST_USE int p9_wire_encode_head(uint8_t *buf, size_t cap, const struct p9_msg *msg);
/* The same and copies the payload behind it (data.p must not be NULL when data.len is not 0). */
P9_MUST_USE int p9_wire_encode(uint8_t *buf, size_t cap, const struct p9_msg *msg);
/* Bytes that the whole message takes, payload included; 0 for an unknown type. */
size_t p9_wire_size(const struct p9_msg *msg);
/* The slow way, driven by the descriptors, kept as the oracle for the two above. */
P9_MUST_USE int p9_wire_decode_desc(const uint8_t *buf, size_t len, size_t elsewhere, struct p9_msg *msg);
P9_MUST_USE int p9_wire_encode_desc(uint8_t *buf, size_t cap, const struct p9_msg *msg);

/* Runs every check that the fields' kinds ask for: names, flags, offsets. Returns 0 or the -P9_Exxx of the first
 * field that fails. It looks at the message alone, never at a session. */
P9_MUST_USE int p9_wire_check(const struct p9_msg *msg);

/* Prints a message as the .9t language writes it: `Twalk tag=1 fid=0 newfid=1 wname=["f"]`. Always terminates the
 * text; cuts what does not fit and payload beyond 64 bytes; escapes everything that is not printable ASCII.
 * Returns the length of the text, at most cap - 1. */
size_t p9_wire_print(char *buf, size_t cap, const struct p9_msg *msg);

/* One entry of an Rreaddir. Reads at *pos and moves it. Returns 1; 0 at the end; -P9_EPROTO when it is cut. */
struct p9_dirent {
	struct p9_qid qid;
	uint64_t offset;
	uint8_t type;
	struct p9_str name;
};
P9_MUST_USE int p9_wire_dirent_get(const struct p9_data *data, size_t *pos, struct p9_dirent *out);
/* Writes one entry at buf; returns its length, or 0 when `cap` is too small. */
size_t p9_wire_dirent_put(uint8_t *buf, size_t cap, const struct p9_dirent *ent);

/* ---- the description, at run time ---- */
enum p9_wire {
	P9_WIRE_u8,
	P9_WIRE_u16,
	P9_WIRE_u32,
	P9_WIRE_u64,
	P9_WIRE_str,
	P9_WIRE_strs,
	P9_WIRE_qid,
	P9_WIRE_qids,
	P9_WIRE_data
};
enum p9_print {
	P9_PRINT_dec,
	P9_PRINT_hex,
	P9_PRINT_oct,
	P9_PRINT_quoted,
	P9_PRINT_fid,
	P9_PRINT_uid,
	P9_PRINT_oflags,
	P9_PRINT_attrmask,
	P9_PRINT_setmask,
	P9_PRINT_qid,
	P9_PRINT_bytes,
	P9_PRINT_dirents,
	P9_PRINT_errno,
	P9_PRINT_locktype,
	P9_PRINT_lockflags,
	P9_PRINT_lockstat,
	P9_PRINT_atflags,
	P9_PRINT_xflags
};
/* A kind of field: a row of proto/kinds.def. */
struct p9_kind {
	const char *name, *fuzz, *doc;
	uint8_t wire;  /* enum p9_wire */
	uint8_t print; /* enum p9_print */
};
/* A field: which kind, and where it lies in struct p9_msg (offset in bytes from its beginning). */
struct p9_field {
	const char *name;
	const struct p9_kind *kind;
	uint16_t offset;
};
enum p9_fidstate { P9_STATE_any, P9_STATE_closed, P9_STATE_walkable, P9_STATE_open };
enum p9_order { P9_ORDER_none, P9_ORDER_read, P9_ORDER_write };
/* A message. name is "Twalk"; fields has nfields entries. */
struct p9_desc {
	const char *name;
	const struct p9_field *fields;
	uint8_t type, nfields, state, order;
	bool changes; /* refused on a read-only export */
};
/* Description of a type, or NULL. */
const struct p9_desc *p9_wire_desc(unsigned type);
/* Type for a name such as "Twalk" (length n), or -1. */
int p9_wire_type(const char *name, size_t n);
/* Named values of a printing set ("oflags"): calls f for each until it returns not 0, and returns that. */
struct p9_flag {
	const char *set, *name;
	uint64_t value;
};
extern const struct p9_flag p9_wire_flags[];
extern const unsigned p9_wire_nflags;
/* The flag with this name (length n), of any set; NULL when there is none. */
const struct p9_flag *p9_wire_flag(const char *name, size_t n);
/* The flag of a set that has exactly this value, or, with `bit`, the first single bit that the value holds; or NULL. */
const struct p9_flag *p9_wire_flag_of(const char *set, uint64_t value, bool bit);
/* A number of a field, whose `wire` is one of u8 to u64. */
uint64_t p9_wire_number(uint8_t wire, const void *field);

/* A time to set. */
struct p9_time {
	uint64_t sec, nsec; /* nsec below 10^9, or one of these */
};
#define P9_TIME_NOW UINT64_C(0x3fffffff)  /* the server's time */
#define P9_TIME_OMIT UINT64_C(0x3ffffffe) /* leave it as it is */

P9_C_END

#endif
