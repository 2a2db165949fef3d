/* SPDX-License-Identifier: BSD-2-Clause */
/* codec.c - bytes to messages and back, in straight lines.
 *
 * The .def is expanded into one function per message, so that a Tgetattr costs a few loads: a loop over descriptors
 * costs 60-100 ns for an Rgetattr, a quarter of the system call behind it. desc.c holds that loop, as the oracle.
 * All bounds live in cursor.h.
 */
#include "p9/codec.h"
#include "wire/cursor.h"
#include "wire/kinds.h"

#define TMSG(lo, num, state, order, effect, doc) \
	static void get_T##lo(struct p9_in *c, struct p9_t##lo *m) { (void)c; (void)m;
#define RMSG(lo, num, doc) \
	static void get_R##lo(struct p9_in *c, struct p9_r##lo *m) { (void)c; (void)m;
#define FIELD(kind, name, doc) p9_kget_##kind(c, &m->name);
#define END(dir, lo) }
#include "9p2000L.def"

#define TMSG(lo, num, state, order, effect, doc) \
	static void put_T##lo(struct p9_out *c, const struct p9_t##lo *m) { (void)c; (void)m;
#define RMSG(lo, num, doc) \
	static void put_R##lo(struct p9_out *c, const struct p9_r##lo *m) { (void)c; (void)m;
#define FIELD(kind, name, doc) p9_kput_##kind(c, &m->name);
#define END(dir, lo) }
#include "9p2000L.def"

/* Payload length of a message that ends in data, else 0. */
static size_t payload(const struct p9_msg *m)
{
	switch (m->type) {
	case P9_Twrite:
		return m->twrite.data.len;
	case P9_Rread:
		return m->rread.data.len;
	case P9_Rreaddir:
		return m->rreaddir.data.len;
	default:
		return 0;
	}
}

static const uint8_t *payload_bytes(const struct p9_msg *m)
{
	switch (m->type) {
	case P9_Twrite:
		return m->twrite.data.p;
	case P9_Rread:
		return m->rread.data.p;
	default:
		return m->rreaddir.data.p;
	}
}

static bool get_body(struct p9_in *c, struct p9_msg *m)
{
	switch (m->type) {
#define TMSG(lo, num, state, order, effect, doc) case num: get_T##lo(c, &m->t##lo); return true;
#define RMSG(lo, num, doc) case num: get_R##lo(c, &m->r##lo); return true;
#define FIELD(kind, name, doc)
#define END(dir, lo)
#include "9p2000L.def"
	default:
		return false;
	}
}

static bool put_body(struct p9_out *c, const struct p9_msg *m)
{
	switch (m->type) {
#define TMSG(lo, num, state, order, effect, doc) case num: put_T##lo(c, &m->t##lo); return true;
#define RMSG(lo, num, doc) case num: put_R##lo(c, &m->r##lo); return true;
#define FIELD(kind, name, doc)
#define END(dir, lo)
#include "9p2000L.def"
	default:
		return false;
	}
}

int p9_wire_decode(const uint8_t *buf, size_t len, size_t elsewhere, struct p9_msg *msg)
{
	struct p9_in c = { buf, buf + len, elsewhere, false };
	uint32_t size;
	p9_get_u32(&c, &size);
	p9_get_u8(&c, &msg->type);
	p9_get_u16(&c, &msg->tag);
	if (c.bad || size != len + elsewhere) {
		return -P9_EPROTO;
	}
	if (!get_body(&c, msg)) {
		return -P9_EOPNOTSUPP;
	}
	return c.bad || c.p != c.end || c.elsewhere != 0 ? -P9_EPROTO : 0;
}

int p9_wire_encode_head(uint8_t *buf, size_t cap, const struct p9_msg *msg)
{
	struct p9_out c = { buf, buf + cap, false };
	uint32_t size = 0;
	p9_put_u32(&c, &size);
	p9_put_u8(&c, &msg->type);
	p9_put_u16(&c, &msg->tag);
	if (!put_body(&c, msg) || c.bad) {
		return -P9_EMSGSIZE;
	}
	size_t head = (size_t)(c.p - buf);
	size_t total = head + payload(msg);
	if (total > UINT32_MAX) {
		return -P9_EMSGSIZE;
	}
	struct p9_out s = { buf, buf + 4, false };
	size = (uint32_t)total;
	p9_put_u32(&s, &size);
	return (int)head;
}

int p9_wire_encode(uint8_t *buf, size_t cap, const struct p9_msg *msg)
{
	int head = p9_wire_encode_head(buf, cap, msg);
	size_t n = payload(msg);
	if (head < 0 || n == 0) {
		return head;
	}
	if (n > cap - (size_t)head || n > (size_t)(INT32_MAX - head)) {
		return -P9_EMSGSIZE;
	}
	memcpy(buf + head, payload_bytes(msg), n);
	return head + (int)n;
}

int p9_wire_dirent_get(const struct p9_data *data, size_t *pos, struct p9_dirent *out)
{
	if (*pos >= data->len) {
		return 0;
	}
	struct p9_in c = { data->p + *pos, data->p + data->len, 0, false };
	p9_get_qid(&c, &out->qid);
	p9_get_u64(&c, &out->offset);
	p9_get_u8(&c, &out->type);
	p9_get_str(&c, &out->name);
	if (c.bad) {
		return -P9_EPROTO;
	}
	*pos = (size_t)(c.p - data->p);
	return 1;
}

size_t p9_wire_dirent_put(uint8_t *buf, size_t cap, const struct p9_dirent *ent)
{
	struct p9_out c = { buf, buf + cap, false };
	p9_put_qid(&c, &ent->qid);
	p9_put_u64(&c, &ent->offset);
	p9_put_u8(&c, &ent->type);
	p9_put_str(&c, &ent->name);
	return c.bad ? 0 : (size_t)(c.p - buf);
}
