/* SPDX-License-Identifier: BSD-2-Clause */
/* print.c - a message as one line of text, in the form that the .9t language reads.
 *
 * Used by --trace, by error lines and by failing tests. A peer chooses every byte of names and payload, so all that is
 * not printable ASCII is escaped and everything has a bound; a line that does not fit is cut, never overrun.
 */
#include "p9/codec.h"
#include "wire/cursor.h"

#define PAYLOAD_SHOWN 64u
#define DIRENTS_SHOWN 8

struct text {
	char *p, *end; /* end: last byte, kept for NUL */
};

static void put_char(struct text *t, char c)
{
	if (t->p < t->end) {
		*t->p++ = c;
	}
}
static void put_text(struct text *t, const char *s)
{
	while (*s) {
		put_char(t, *s++);
	}
}
static void put_number(struct text *t, uint64_t v, unsigned base)
{
	char tmp[24];
	unsigned n = 0;
	do {
		tmp[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	while (n > 0) {
		put_char(t, tmp[--n]);
	}
}
static void put_hex(struct text *t, uint64_t v)
{
	put_text(t, "0x");
	put_number(t, v, 16);
}
static void put_escaped(struct text *t, const char *s, size_t n)
{
	put_char(t, '"');
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];
		if (c == '"' || c == '\\') {
			put_char(t, '\\');
			put_char(t, (char)c);
		} else if (c >= 0x20 && c < 0x7f) {
			put_char(t, (char)c);
		} else {
			put_text(t, "\\x");
			put_char(t, "0123456789abcdef"[c >> 4]);
			put_char(t, "0123456789abcdef"[c & 15]);
		}
	}
	put_char(t, '"');
}

/* Exact value by name, else bits by name, else hex. */
static void put_flags(struct text *t, const char *set, uint64_t v)
{
	const struct p9_flag *f = p9_wire_flag_of(set, v, false);
	const char *sep = "";
	if (f) {
		put_text(t, f->name);
		return;
	}
	while ((f = p9_wire_flag_of(set, v, true))) {
		put_text(t, sep);
		put_text(t, f->name);
		v &= ~f->value;
		sep = "|";
	}
	if (v || !*sep) {
		put_text(t, sep);
		put_hex(t, v);
	}
}

static void put_qid(struct text *t, const struct p9_qid *q)
{
	put_char(t, '(');
	put_flags(t, "qidtype", q->type);
	put_char(t, ' ');
	put_number(t, q->version, 10);
	put_char(t, ' ');
	put_hex(t, q->path);
	put_char(t, ')');
}

static void put_payload(struct text *t, const struct p9_data *d)
{
	if (d->p) {
		put_escaped(t, (const char *)d->p, d->len < PAYLOAD_SHOWN ? d->len : PAYLOAD_SHOWN);
		put_text(t, d->len > PAYLOAD_SHOWN ? "..." : "");
	}
	if (!d->p || d->len > PAYLOAD_SHOWN) {
		put_char(t, '<');
		put_number(t, d->len, 10);
		put_text(t, " bytes>");
	}
}

static void put_dirents(struct text *t, const struct p9_data *d)
{
	size_t pos = 0;
	struct p9_dirent e;
	put_char(t, '[');
	for (int i = 0; d->p && i < DIRENTS_SHOWN && p9_wire_dirent_get(d, &pos, &e) > 0; i++) {
		put_text(t, i ? "," : "");
		put_escaped(t, e.name.s, e.name.len);
	}
	put_text(t, "]<");
	put_number(t, d->len, 10);
	put_text(t, " bytes>");
}

static void put_errno(struct text *t, uint32_t v)
{
	if (!p9_cstr_is(p9_error_name(v), "E?", 2)) {
		put_text(t, p9_error_name(v));
	} else {
		put_number(t, v, 10);
	}
}

static void put_int(struct text *t, const struct p9_kind *k, uint64_t v)
{
	static const char *const sets[] = {
		[P9_PRINT_oflags] = "oflags",	  [P9_PRINT_attrmask] = "attrmask",   [P9_PRINT_setmask] = "setmask",
		[P9_PRINT_locktype] = "locktype", [P9_PRINT_lockflags] = "lockflags", [P9_PRINT_lockstat] = "lockstat",
		[P9_PRINT_atflags] = "atflags",	  [P9_PRINT_xflags] = "xflags",
	};
	bool none = k->wire == P9_WIRE_u32 && v == P9_NOFID;
	if (k->print < sizeof(sets) / sizeof(sets[0]) && sets[k->print]) {
		put_flags(t, sets[k->print], v);
	} else if (k->print == P9_PRINT_errno) {
		put_errno(t, (uint32_t)v);
	} else if (k->print == P9_PRINT_oct) {
		put_char(t, '0');
		put_number(t, v, 8);
	} else if (k->print == P9_PRINT_hex) {
		put_hex(t, v);
	} else if (none && k->print == P9_PRINT_fid) {
		put_text(t, "nofid");
	} else if (none && k->print == P9_PRINT_uid) {
		put_text(t, "none");
	} else {
		put_number(t, v, 10);
	}
}

static void put_list(struct text *t, uint8_t wire, const void *v)
{
	unsigned n = wire == P9_WIRE_strs ? ((const struct p9_strs *)v)->n : ((const struct p9_qids *)v)->n;
	put_char(t, '[');
	for (unsigned i = 0; i < n && i < P9_MAXWELEM; i++) {
		put_text(t, i ? "," : "");
		if (wire == P9_WIRE_strs) {
			const struct p9_str *s = &((const struct p9_strs *)v)->v[i];
			put_escaped(t, s->s, s->len);
		} else {
			put_qid(t, &((const struct p9_qids *)v)->v[i]);
		}
	}
	put_text(t, n > P9_MAXWELEM ? ",...]" : "]");
}

static void put_value(struct text *t, const struct p9_kind *k, const void *v)
{
	switch (k->wire) {
	case P9_WIRE_str:
		put_escaped(t, ((const struct p9_str *)v)->s, ((const struct p9_str *)v)->len);
		break;
	case P9_WIRE_strs:
	case P9_WIRE_qids:
		put_list(t, k->wire, v);
		break;
	case P9_WIRE_qid:
		put_qid(t, v);
		break;
	case P9_WIRE_data:
		(k->print == P9_PRINT_dirents ? put_dirents : put_payload)(t, v);
		break;
	default:
		put_int(t, k, p9_wire_number(k->wire, v));
		break;
	}
}

size_t p9_wire_print(char *buf, size_t cap, const struct p9_msg *msg)
{
	if (cap == 0) {
		return 0;
	}
	struct text t = { buf, buf + cap - 1 };
	const struct p9_desc *d = p9_wire_desc(msg->type);
	if (d) {
		put_text(&t, d->name);
	} else {
		put_text(&t, "type=");
		put_number(&t, msg->type, 10);
	}
	put_text(&t, " tag=");
	if (msg->tag == P9_NOTAG) {
		put_text(&t, "notag");
	} else {
		put_number(&t, msg->tag, 10);
	}
	for (unsigned i = 0; d && i < d->nfields; i++) {
		put_char(&t, ' ');
		put_text(&t, d->fields[i].name);
		put_char(&t, '=');
		put_value(&t, d->fields[i].kind, (const char *)msg + d->fields[i].offset);
	}
	*t.p = 0;
	return (size_t)(t.p - buf);
}
