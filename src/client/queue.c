/* SPDX-License-Identifier: BSD-2-Clause */
/* queue.c - requests in flight whose answers are waited for by one thread (queue.h).
 *
 * A handle without a thread of the library's is stepped here until an answer has come; with one, the gate is waited at.
 * Must stay true: every op that was sent comes back once, also when the link ends, for the end is reported to every
 * request in flight; only p9_queue_next() counts `flying` down.
 */
#include <string.h>
#include "client/internal.h"
#include "client/queue.h"

void p9_queue_init(struct p9_queue *q, struct p9_client *c)
{
	*q = (struct p9_queue){ .client = c };
	p9_gate_init(&q->gate);
}

void p9_queue_fini(struct p9_queue *q)
{
	p9_gate_fini(&q->gate);
}

static void append(struct p9_op **first, struct p9_op **last, struct p9_op *op)
{
	op->next = NULL;
	if (*first) {
		(*last)->next = op;
	} else {
		*first = op;
	}
	*last = op;
}

static struct p9_op *take(struct p9_op **first)
{
	struct p9_op *op = *first;
	if (op) {
		*first = op->next;
	}
	return op;
}

static void keep_text(struct p9_op *op, const struct p9_msg *reply)
{
	const struct p9_str *s = &reply->rreadlink.target;
	if (op->text && reply->type == P9_Rreadlink) {
		size_t n = s->len < P9_TARGETMAX ? s->len : P9_TARGETMAX;
		memcpy(op->text, s->s, n);
		op->text[n] = 0;
	}
}

static void answered(struct p9_call *call, const struct p9_msg *reply)
{
	struct p9_op *op = (struct p9_op *)call;
	struct p9_queue *q = op->queue;
	keep_text(op, reply);
	op->msg = *reply;
	p9_gate_enter(&q->gate);
	append(&q->answered, &q->answered_last, op);
	p9_gate_wake(&q->gate);
	p9_gate_leave(&q->gate);
}

static void refuse(struct p9_op *op, int rc)
{
	struct p9_msg r = { .type = P9_Rlerror, .rlerror = { .ecode = (uint32_t)-rc } };
	answered(&op->call, &r);
}

/* Returns false without room; then the op was not touched. */
static bool try_send(struct p9_queue *q, struct p9_op *op)
{
	int rc = p9_client_send(q->client, &op->msg, op->dst, &op->call);
	if (rc == -P9_EAGAIN) {
		return false;
	}
	q->flying++;
	if (rc < 0) {
		refuse(op, rc);
	}
	return true;
}

void p9_queue_send(struct p9_queue *q, struct p9_op *op)
{
	op->queue = q;
	op->call.done = answered;
	if (q->waiting || !try_send(q, op)) {
		append(&q->waiting, &q->waiting_last, op);
	}
}

bool p9_queue_room(const struct p9_queue *q)
{
	return !q->waiting && p9_client_room(q->client) > 0;
}

/* Nothing of ours is in flight, others have taken all the room: the function that waits for room sends it. */
static void send_patiently(struct p9_queue *q, struct p9_op *op)
{
	struct p9_msg reply;
	int rc = p9_client_call(q->client, &op->msg, op->dst, &reply);
	q->flying++;
	if (rc < 0) {
		refuse(op, rc);
	} else {
		answered(&op->call, &reply);
	}
}

static void send_waiting(struct p9_queue *q)
{
	struct p9_op *op;
	while ((op = take(&q->waiting))) {
		if (!try_send(q, op)) { /* it was not touched: back to the front */
			op->next = q->waiting;
			q->waiting = op;
			q->waiting_last = op->next ? q->waiting_last : op;
			break;
		}
	}
	if (q->waiting && q->flying == 0) {
		send_patiently(q, take(&q->waiting));
	}
}

static struct p9_op *take_answered(struct p9_queue *q, bool wait)
{
	p9_gate_enter(&q->gate);
	while (wait && !q->answered) {
		p9_gate_wait(&q->gate);
	}
	struct p9_op *op = take(&q->answered);
	p9_gate_leave(&q->gate);
	return op;
}

struct p9_op *p9_queue_next(struct p9_queue *q)
{
	send_waiting(q);
	if (q->flying == 0) {
		return NULL;
	}
	bool threaded = p9_client_threaded(q->client);
	struct p9_op *op = take_answered(q, threaded);
	while (!op) {
		int rc = p9_client_step(q->client);
		op = take_answered(q, false);
		if (rc < 0 && !op) {
			q->flying = 0;
			return NULL;
		}
	}
	q->flying--;
	return op;
}
