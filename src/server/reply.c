/* SPDX-License-Identifier: BSD-2-Clause */
/* reply.c - encodes a reply where it will be sent from, and says what went wrong.
 *
 * Payload is in its place already (the backend wrote it behind the head); only heads are written here.
 */
#include <stdlib.h>
#include "server/internal.h"

#define SMALL_REPLY 256u /* all replies without long strings */
#define ERRORS_PER_SECOND 20

void p9_trace(const struct p9_conn *conn, char dir, const struct p9_msg *m)
{
	char text[1500];
	p9_wire_print(text, sizeof(text), m);
	p9_log_always("%c %s %s", dir, conn->peer.text, text);
}

/* Errors that are part of everyday work are debug; those that somebody should look into are not. */
static enum p9_log_level level_of(const struct p9_req *r)
{
	switch (-r->rc) {
	case P9_EIO:
	case P9_EPROTO:
	case P9_EMFILE:
	case P9_ENFILE:
	case P9_ENOMEM:
	case P9_ENOSPC:
	case P9_EDQUOT:
	case P9_ESTALE:
	case P9_EROFS:
		return P9_LOG_INFO;
	case P9_EPERM:
	case P9_EACCES:
	case P9_ENOENT:
		return r->type == P9_Tattach ? P9_LOG_WARN : P9_LOG_DEBUG;
	default:
		return P9_LOG_DEBUG;
	}
}

void p9_req_log_error(const struct p9_req *r)
{
	struct p9_shard *sh = r->conn->shard;
	enum p9_log_level level = level_of(r);
	char text[600];
	if (level > p9_log_level) {
		return;
	}
	if (sh->loop.now / 1000 != sh->errors_window) {
		if (sh->errors_logged > ERRORS_PER_SECOND) {
			p9_log(P9_LOG_INFO, "%llu more errors in a second",
			       (unsigned long long)(sh->errors_logged - ERRORS_PER_SECOND));
		}
		sh->errors_window = sh->loop.now / 1000;
		sh->errors_logged = 0;
	}
	if (sh->errors_logged++ < ERRORS_PER_SECOND) {
		p9_wire_print(text, sizeof(text), &r->t);
		p9_log(level, "%s: %s: %s (%s)", r->conn->peer.text, text, p9_error_text((uint32_t)-r->rc),
		       p9_error_name((uint32_t)-r->rc));
	}
}

void p9_reply_msg(struct p9_conn *conn, void *ticket, const struct p9_msg *m)
{
	struct p9_link *l = p9_link_of(conn);
	struct p9_room room;
	size_t need = m->type == P9_Rreadlink || m->type == P9_Rgetlock ? p9_wire_size(m) : SMALL_REPLY;
	if (l->broken) {
		return;
	}
	if (l->ops->reserve(l, ticket, need, 0, true, &room) < 0) {
		p9_conn_end(conn, -P9_ENOMEM, "no memory for a reply");
		return;
	}
	int n = p9_wire_encode_head(room.head, need, m);
	if (n > 0) {
		l->ops->commit(l, &room, (size_t)n);
	}
	if (conn->srv->conf.trace) {
		p9_trace(conn, '>', m);
	}
}

static void reply_payload(struct p9_req *r)
{
	struct p9_link *l = p9_link_of(r->conn);
	int n = p9_wire_encode_head(r->room.head, P9_RREADHDRSZ, &r->r);
	size_t total = (size_t)n + r->r.rread.data.len;
	if (r->detached) {
		l->ops->send_room(l, &r->room, total);
	} else {
		l->ops->commit(l, &r->room, total);
	}
	r->has_room = false;
	if (r->conn->srv->conf.trace) {
		p9_trace(r->conn, '>', &r->r);
	}
}

void p9_reply(struct p9_req *r)
{
	struct p9_conn *conn = r->conn;
	struct p9_link *l = p9_link_of(conn);
	r->r.tag = r->tag;
	if (r->rc >= 0) {
		r->r.type = (uint8_t)(r->type + 1);
		if (r->has_room) {
			reply_payload(r);
			return;
		}
		bool may_be_long = r->r.type == P9_Rreadlink || r->r.type == P9_Rgetlock;
		if (may_be_long && p9_wire_size(&r->r) > conn->msize) {
			r->rc = -P9_EMSGSIZE;
		}
	}
	if (r->has_room && r->detached) {
		l->ops->send_room(l, &r->room, 0);
	}
	r->has_room = false;
	if (r->rc < 0) {
		p9_req_log_error(r);
		r->r.type = P9_Rlerror;
		r->r.rlerror.ecode = (uint32_t)-r->rc;
	}
	p9_reply_msg(conn, r->ticket, &r->r);
}
