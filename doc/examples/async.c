/* SPDX-License-Identifier: BSD-2-Clause */
/* async.c - asks for many attributes at once, in a poll loop of its own: a program of libp9's that never blocks.
 *
 *   cc async.c -o async $(pkg-config --cflags --libs p9)
 *   ./async unix:/run/p9.sock 1000
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <p9/client.h>

struct question { /* the call first: the callback finds the rest from it */
	struct p9_call call;
	unsigned *answered;
};

static void on_reply(struct p9_call *call, const struct p9_msg *reply)
{
	struct question *q = (struct question *)call;
	if (reply->type == P9_Rgetattr) {
		*q->answered += 1;
	}
}

/* Sends as many as there is room for. Returns how many. */
static unsigned send_some(struct p9_client *c, struct question *q, unsigned left)
{
	unsigned n = 0;
	while (n < left && p9_client_room(c) > 0) {
		struct p9_msg t = { .type = P9_Tgetattr };
		t.tgetattr.fid = p9_client_root(c);
		t.tgetattr.request_mask = P9_GETATTR_BASIC;
		if (p9_client_send(c, &t, NULL, &q[n].call) < 0) {
			break;
		}
		n++;
	}
	return n;
}

int main(int argc, char **argv)
{
	struct p9_client_opts opts = { .uid = 0 };
	struct p9_client *c = p9_client_new();
	unsigned n = argc > 2 ? (unsigned)atoi(argv[2]) : 100, sent = 0, answered = 0;
	struct question *q = calloc(n + 1, sizeof(*q));
	int rc = c && q && argc > 1 ? p9_client_dial(c, argv[1], &opts) : -P9_EINVAL;
	for (unsigned i = 0; q && i < n; i++) {
		q[i].call.done = on_reply;
		q[i].call.timeout_ms = 5000;
		q[i].answered = &answered;
	}
	while (rc >= 0 && (sent < n || p9_client_pending(c) > 0)) {
		struct pollfd v[2];
		int wait_ms;
		sent += send_some(c, q + sent, n - sent);
		unsigned k = p9_client_poll(c, v, &wait_ms);
		poll(v, k, wait_ms); /* other descriptors of the program would stand beside these */
		rc = p9_client_work(c);
	}
	if (rc < 0) {
		fprintf(stderr, "async: %s\n",
			c && q && argc > 1 ? p9_client_error(c) : "usage: async ADDRESS [COUNT]");
	} else {
		printf("%u of %u answered\n", answered, n);
	}
	p9_client_free(c); /* first: requests in flight own a question each */
	free(q);
	return rc < 0 || answered != n;
}
