/* SPDX-License-Identifier: BSD-2-Clause */
/* queue.h - several requests in flight for one function that blocks.
 *
 * The function makes ops, sends them, and takes them back one by one as they are answered, all on its own thread: the
 * callbacks (which may run on the library's thread) only put answers into the queue. So nothing else needs a lock, and
 * the same code serves a handle with a thread and one without. A request that could not be sent comes back like one
 * that the server refused.
 */
#ifndef P9_CLIENT_QUEUE_H
#define P9_CLIENT_QUEUE_H
#include "base/gate.h"
#include "p9/client.h"

struct p9_queue;
struct p9_op {
	struct p9_call call;
	struct p9_queue *queue;
	struct p9_op *next;
	struct p9_msg msg; /* in: the request, whose views stay until it is answered; out: the reply */
	void *dst;	   /* as of p9_client_send() */
	char *text;	   /* takes the terminated text of an Rreadlink: P9_TARGETMAX + 1 bytes; or NULL */
};

struct p9_queue {
	struct p9_client *client;
	struct p9_gate gate;
	struct p9_op *answered, *answered_last; /* behind the gate */
	struct p9_op *waiting, *waiting_last;	/* not sent yet: there was no room */
	unsigned flying;			/* sent, and not taken back */
};

void p9_queue_init(struct p9_queue *q, struct p9_client *c);
/* Nothing may be in flight: p9_queue_next() has returned NULL. */
void p9_queue_fini(struct p9_queue *q);
void p9_queue_send(struct p9_queue *q, struct p9_op *op);
/* Whether another request would go out at once. */
bool p9_queue_room(const struct p9_queue *q);
/* Waits for the next answer. NULL when nothing is in flight. */
struct p9_op *p9_queue_next(struct p9_queue *q);
/* The error of an answered op, -P9_Exxx or 0. */
static inline int p9_op_error(const struct p9_op *op)
{
	return op->msg.type == P9_Rlerror ? -(int)op->msg.rlerror.ecode : 0;
}

#endif
