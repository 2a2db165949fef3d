/* SPDX-License-Identifier: BSD-2-Clause */
/* kinds.h - for each kind of field, its C type and its two cursor functions, from proto/kinds.def. */
#ifndef P9_WIRE_KINDS_H
#define P9_WIRE_KINDS_H
#include "wire/cursor.h"

typedef uint8_t p9_ctype_u8;
typedef uint16_t p9_ctype_u16;
typedef uint32_t p9_ctype_u32;
typedef uint64_t p9_ctype_u64;
typedef struct p9_str p9_ctype_str;
typedef struct p9_strs p9_ctype_strs;
typedef struct p9_qid p9_ctype_qid;
typedef struct p9_qids p9_ctype_qids;
typedef struct p9_data p9_ctype_data;

#define KIND(k, wire, check, print, fuzz, doc)                                                              \
	static inline __attribute__((unused)) void p9_kget_##k(struct p9_in *c, p9_ctype_##wire *v)         \
	{                                                                                                   \
		p9_get_##wire(c, v);                                                                        \
	}                                                                                                   \
	static inline __attribute__((unused)) void p9_kput_##k(struct p9_out *c, const p9_ctype_##wire *v)  \
	{                                                                                                   \
		p9_put_##wire(c, v);                                                                        \
	}
#include "kinds.def"

#endif
