/* SPDX-License-Identifier: BSD-2-Clause */
/* talk_front.c - a script's connection to a vhost-user device: its bytes as requests of a ring, and back.
 *
 * What a script sends is cut where its size fields say. A frame whose size cannot be, below 7 or above msize, goes with the
 * bytes that are there: what the device makes of such a request is worth testing too.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/addr.h"
#include "front/front.h"
#include "p9/talk.h"

#define SETUP_MS 10000
#define DEPTH 255	   /* requests in flight; a script that floods waits then */
#define LONGEST (4u << 20) /* message; no script agrees on more */

int p9_talk_front_open(const struct p9_addr *a, int fd, struct p9_front **out, char *why)
{
	char err[P9_FRONT_ERR];
	struct p9_front_conf conf = {
		.fd = fd, .tag = a->tag, .queues = a->queues, .depth = DEPTH, .msize = LONGEST, .timeout_ms = SETUP_MS
	};
	int rc = p9_front_open(out, &conf, err);
	if (rc < 0) {
		snprintf(why, P9_TALK_FRONT_ERR, "vhost-user:%s: %s", a->path, err);
	}
	return rc;
}

void p9_talk_front_close(struct talk_conn *c)
{
	p9_front_close(c->front);
	c->front = NULL;
}

/* Bytes of the request that is first in the output; 0 when it is not whole yet. */
static size_t first(const struct talk_conn *c)
{
	uint32_t size = c->olen >= 4 ? p9_get32(c->obuf) : 0;
	if (c->olen < 4) {
		return 0;
	}
	if (size < P9_HDRSZ || size > (c->msize ? c->msize : P9_MSIZE_PREAUTH)) {
		return c->olen;
	}
	return size <= c->olen ? size : 0;
}

bool p9_talk_front_waits(const struct talk_conn *c)
{
	return first(c) > 0;
}

static void send_frames(struct talk_conn *c)
{
	size_t n;
	while ((n = first(c)) > 0) {
		struct p9_front_req r = { .head = c->obuf, .headlen = (uint32_t)n, .copy = true };
		p9_front_expect(&r, c->msize && c->msize < LONGEST ? c->msize : LONGEST);
		int rc = n > LONGEST ? -P9_EMSGSIZE : p9_front_send(c->front, &r);
		if (rc == -P9_EAGAIN) {
			break;
		}
		if (rc < 0) {
			c->deaf_peer = true;
			c->olen = 0;
			break;
		}
		memmove(c->obuf, c->obuf + n, c->olen - n);
		c->olen -= n;
	}
	p9_front_kick(c->front);
}

/* Puts a reply behind what has come. False when there is no memory. */
static bool keep(struct talk_conn *c, const struct p9_front_reply *r)
{
	size_t n = r->headlen + r->datalen;
	if (c->icap - c->ilen < n) {
		uint8_t *p = realloc(c->ibuf, c->ilen + n);
		if (!p) {
			return false;
		}
		c->ibuf = p;
		c->icap = c->ilen + n;
	}
	memcpy(c->ibuf + c->ilen, r->head, r->headlen);
	if (r->datalen) {
		memcpy(c->ibuf + c->ilen + r->headlen, r->data, r->datalen);
	}
	c->ilen += n;
	return true;
}

bool p9_talk_front_pump(struct talk_conn *c, int ms, bool deaf)
{
	struct p9_front_reply r;
	size_t before = c->olen;
	int rc = 0, came = 0;
	send_frames(c);
	bool moved = c->olen < before;
	if (deaf || c->eof) {
		return moved;
	}
	p9_front_wait(c->front, moved ? 0 : ms);
	while (came < DEPTH && (rc = p9_front_next(c->front, &r)) > 0) {
		if (!keep(c, &r)) {
			rc = -P9_ENOMEM;
			break;
		}
		came++;
	}
	c->eof = rc < 0;
	return moved || came > 0 || rc < 0;
}
