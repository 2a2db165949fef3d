/* SPDX-License-Identifier: BSD-2-Clause */
/* fz_server.c - fuzz target: a whole server connection, from the socket to files of a tree in memory.
 *
 * An input is a byte of options and what one client sends. The options: SPLIT sends in small pieces, COPY has a link
 * without sendfile, RUDE closes without reading the rest, PATIENT waits for the replies before it ends, DEAF does not
 * read before all is sent, TWO has two descriptors as over pipes, SLOW has calls that sleep (slow.h).
 * One server lives as long as the process; every input has a connection of its own, over a socket pair, and the server's
 * own threads. What must hold for any input: replies are whole, well-formed, and to tags that were sent; the connection
 * ends within FZ_TIME_LIMIT; afterwards there are no connection, fid, lock waiter or descriptor that there were not before,
 * and nothing outside the tree has changed.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "gen.h"
#include "slow.h"
#include "transport/stream.h"
#include "tree.h"
#include "whole.h"

enum { OPT_SPLIT = 1, OPT_COPY = 2, OPT_RUDE = 4, OPT_PATIENT = 8, OPT_DEAF = 16, OPT_TWO = 32, OPT_SLOW = 64 };
#define MSIZE FZ_MSIZE
#define NAPS 4 /* for an input, so that it does not take long */
#define PATIENCE 3 /* ms without a reply */

/* ---- what a client sees ---- */
struct client {
	int fd;
	const uint8_t *out;
	size_t nout, sent, step;
	uint8_t in[2 * MSIZE + 65536];
	size_t have;
	unsigned replies;
	bool eof;
	uint8_t tags[65536 / 8];
};

static void check_reply(struct client *c, const uint8_t *p, size_t n)
{
	char text[600];
	struct p9_msg m;
	int rc = p9_wire_decode(p, n, 0, &m);
	const struct p9_desc *d = p9_wire_desc(m.type);
	FZ_CHECK(rc == 0 && d && d->name[0] == 'R', "reply of type %u, %zu bytes: %d", m.type, n, rc);
	FZ_CHECK(c->tags[m.tag / 8] & 1u << m.tag % 8, "reply to tag %u, which was not sent", m.tag);
	FZ_CHECK(m.type != P9_Rlerror || (m.rlerror.ecode > 0 && m.rlerror.ecode < 134), "errno %u", m.rlerror.ecode);
	FZ_CHECK(n <= MSIZE, "reply of %zu bytes", n);
	p9_wire_print(text, sizeof(text), &m);
	c->replies++;
}

static void take_replies(struct client *c)
{
	size_t pos = 0;
	while (c->have - pos >= 4) {
		uint32_t n = p9_get32(c->in + pos);
		FZ_CHECK(n >= P9_HDRSZ && n <= sizeof(c->in), "reply size %u", n);
		if (n > c->have - pos) {
			break;
		}
		check_reply(c, c->in + pos, n);
		pos += n;
	}
	memmove(c->in, c->in + pos, c->have - pos);
	c->have -= pos;
}

/* One round of poll: sends and receives what goes. Returns false when nothing happened for `ms`. */
static bool pump(struct client *c, int ms, bool deaf)
{
	bool more = c->sent < c->nout;
	struct pollfd p = { c->fd, (short)((more ? POLLOUT : 0) | (deaf ? 0 : POLLIN)), 0 };
	if (poll(&p, 1, ms) <= 0) {
		return false;
	}
	if (more && p.revents & (POLLOUT | POLLHUP | POLLERR)) {
		size_t left = c->nout - c->sent, k = left < c->step ? left : c->step;
		ssize_t n = send(c->fd, c->out + c->sent, k, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0) {
			c->sent += (size_t)n;
		} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
			c->sent = c->nout; /* it does not want more */
		}
	}
	if (!deaf && p.revents & (POLLIN | POLLHUP | POLLERR)) {
		ssize_t n = recv(c->fd, c->in + c->have, sizeof(c->in) - c->have, MSG_DONTWAIT);
		if (n > 0) {
			c->have += (size_t)n;
			take_replies(c);
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			c->eof = true;
		}
	}
	return true;
}

/* Tags that are sent, whether anything may change, and how many messages there are. */
static unsigned look_at(struct client *c, bool *changes)
{
	unsigned n = 0;
	bool whole;
	*changes = false;
	for (size_t pos = 0; pos < c->nout;) {
		size_t len = fz_next(c->out, c->nout, pos, &whole);
		if (len >= P9_HDRSZ) {
			uint16_t tag = p9_get16(c->out + pos + 5);
			uint8_t type = c->out[pos + 4];
			const struct p9_desc *d = p9_wire_desc(type);
			c->tags[tag / 8] |= (uint8_t)(1u << tag % 8);
			*changes |= !d || d->changes || type == P9_Tlopen || type == P9_Tremove || type == P9_Tclunk;
		}
		n++;
		pos += len;
	}
	return n;
}

static void converse(struct client *c, uint8_t opt, unsigned messages)
{
	uint64_t begin = fz_now_ms();
	while (c->sent < c->nout && !c->eof) {
		if (!pump(c, 50, opt & OPT_DEAF && c->sent < c->nout) && opt & OPT_DEAF) {
			opt &= (uint8_t)~OPT_DEAF; /* its queue is full: read after all */
		}
		FZ_CHECK(fz_now_ms() - begin < FZ_TIME_LIMIT, "the server takes no more: %zu of %zu", c->sent, c->nout);
	}
	while (opt & OPT_PATIENT && !c->eof && c->replies < messages &&
	       pump(c, opt & OPT_SLOW ? 10 * PATIENCE : PATIENCE, false)) {
	}
	if (opt & OPT_RUDE) {
		return;
	}
	shutdown(c->fd, SHUT_WR);
	while (!c->eof) {
		pump(c, 50, false);
		FZ_CHECK(fz_now_ms() - begin < FZ_TIME_LIMIT, "the server does not close");
	}
	FZ_CHECK(c->have == 0, "%zu bytes of a reply without its end", c->have);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct client c;
	bool changes;
	int sv[2];
	if (size < 1) {
		return 0;
	}
	memset(&c, 0, offsetof(struct client, in));
	c.have = c.replies = 0;
	c.eof = false;
	memset(c.tags, 0, sizeof(c.tags));
	c.out = data + 1;
	c.nout = size - 1;
	c.step = data[0] & OPT_SPLIT ? 37 : MSIZE;
	FZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0, "socketpair: %s", strerror(errno));
	c.fd = sv[0];
	fcntl(sv[1], F_SETFL, O_NONBLOCK);
	p9_link_make *make = data[0] & OPT_COPY ? p9_stream_fd_make : p9_stream_unix_make;
	struct p9_peer peer = { .kind = P9_PEER_UNIX, .text = "fuzz" };
	int out = data[0] & OPT_TWO ? dup(sv[1]) : sv[1];
	fz_slow_set(data[0] & OPT_SLOW ? NAPS : 0, data[0] & OPT_SLOW ? 1 + (unsigned)size % 3 : 0);
	FZ_CHECK(p9_server_accept(fz_srv, make, sv[1], out, &peer) == 0, "accept");
	unsigned messages = look_at(&c, &changes);
	converse(&c, data[0], messages);
	close(sv[0]);
	fz_nothing_is_left();
	if (changes) {
		fz_tree_reset();
	}
	return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	if (size < 1) {
		data[0] = 0;
		return max ? 1 : 0;
	}
	if (seed % 8 == 0) {
		data[0] = (uint8_t)((seed >> 8) & (seed & 0x70000 ? ~(unsigned)OPT_SLOW : ~0u)); /* slow ones are few */
	}
	return 1 + fz_mutate(data + 1, size - 1, max - 1, seed, FZ_T);
}

size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t na, const uint8_t *b, size_t nb, uint8_t *out, size_t max,
				 unsigned seed)
{
	if (na < 1 || nb < 1 || max < 1) {
		return 0;
	}
	out[0] = a[0];
	return 1 + fz_cross(a + 1, na - 1, b + 1, nb - 1, out + 1, max - 1, seed);
}
