/* SPDX-License-Identifier: BSD-2-Clause */
/* port.c - between the engine's stream of bytes and a transport that carries whole messages.
 *
 * Outwards it cuts the engine's bytes at frames: the engine queues whole requests only, so the first four bytes it shows
 * are always a size, and a frame is one piece, or two when it has payload. Inwards it feeds a reply in two steps, head
 * first where there is payload, so that the payload is copied once, to where it was asked for.
 */
#include <string.h>
#include "vfs/session.h"

/* Sends frames until the transport or the engine has had enough. Returns whether any went, or -P9_Exxx. */
static int send_all(struct p9_msg_port *p, struct p9_engine *e)
{
	struct p9_engine_iov v[2];
	unsigned n;
	int moved = 0;
	while ((n = p9_engine_out(e, v, 2)) > 0) {
		uint32_t size = p9_get32(v[0].p);
		if (size <= v[0].len) {
			v[0].len = size;
			n = 1;
		} else {
			v[1].len = size - v[0].len;
		}
		int rc = p->send(p, v, n, size);
		if (rc <= 0) {
			return rc < 0 ? rc : moved;
		}
		p9_engine_out_ack(e, size);
		p->waiting++;
		moved = 1;
	}
	return moved;
}

/* Bytes of the reply that may go into the engine's buffer now: of a reply with payload only the head, for when that was
 * looked at the engine offers the payload's own place. */
static uint32_t first_part(const struct p9_msg_port *p)
{
	bool bulk = p->len > P9_RREADHDRSZ && (p->reply[4] == P9_Rread || p->reply[4] == P9_Rreaddir);
	return bulk && p->pos < P9_RREADHDRSZ ? P9_RREADHDRSZ - p->pos : p->len - p->pos;
}

static void feed(struct p9_msg_port *p, struct p9_engine *e)
{
	struct p9_engine_iov v[2];
	uint32_t rest = first_part(p);
	unsigned n = p9_engine_in(e, v);
	for (unsigned i = 0; i < n && rest > 0; i++) {
		uint32_t k = v[i].len < rest ? (uint32_t)v[i].len : rest;
		memcpy(v[i].p, p->reply + p->pos, k);
		p->pos += k;
		rest -= k;
		p9_engine_in_ack(e, k);
		if (rest > 0) {
			n = p9_engine_in(e, v); /* the pieces have moved on */
			i = (unsigned)-1;
		}
	}
}

static int move(struct p9_port *port, struct p9_engine *e, bool wait)
{
	struct p9_msg_port *p = (struct p9_msg_port *)port;
	int sent = send_all(p, e);
	if (sent < 0) {
		return sent;
	}
	if (p->pos == p->len) {
		int rc = p->recv(p, &p->reply, wait && p->waiting > 0);
		if (rc <= 0) {
			return rc < 0 ? rc : sent;
		}
		if (rc < (int)P9_HDRSZ || p9_get32(p->reply) != (uint32_t)rc) {
			return p9_engine_fail(e, P9_EPROTO, "a reply whose size field is not its length");
		}
		p->len = (uint32_t)rc;
		p->pos = 0;
		p->waiting -= p->waiting > 0;
	}
	feed(p, e);
	return 1;
}

void p9_msg_port_init(struct p9_msg_port *p)
{
	*p = (struct p9_msg_port){ .port = { move } };
}
