/* SPDX-License-Identifier: BSD-2-Clause */
/* front.h - our side of a vhost-user 9P device without a virtual machine: messages through shared memory.
 *
 * What a VM monitor and its guest's driver are to the device, a front is alone: control.c holds the control conversation,
 * region.c owns the one piece of memory that both ends see (rings, heads of messages, blocks for payload), front.c carries
 * messages. Whole messages go in and whole replies come out, in any order; what they mean is the caller's business.
 *
 * Payload that lies in memory from p9_front_buffer() is neither copied on its way out nor in: the device reads and writes
 * it there. Payload that lies elsewhere is copied once, through a block.
 * The device is not trusted: lengths, ring entries and answers are checked, heads are copied out before they are looked
 * at. What it does wrong ends the link: every call then returns the same -P9_Exxx, p9_front_error() says why. It can write
 * to the shared memory whenever it likes, so what must not change under its reader has no place in p9_front_buffer().
 *
 * One thread at a time.
 */
#ifndef P9_FRONT_FRONT_H
#define P9_FRONT_FRONT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "p9/error.h"

#define P9_FRONT_ERR 320

struct p9_front;
struct p9_front_conf {
	int fd;		 /* connected to the device; the front's from here on, also after a failure */
	const char *tag; /* what the device must say it is; NULL or "": anything */
	unsigned queues; /* 0: one */
	unsigned depth;	 /* requests in flight */
	uint32_t msize;	 /* longest message */
	int timeout_ms;	 /* for the control conversation */
};
/* Returns 0, or -P9_Exxx with the cause in err (P9_FRONT_ERR bytes). */
P9_MUST_USE int p9_front_open(struct p9_front **out, const struct p9_front_conf *conf, char *err);
/* Stops the rings, if the device still listens, and unmaps the memory. Accepts NULL. */
void p9_front_close(struct p9_front *f);
/* The same end, seen by the device at once; the memory stays until p9_front_close(). */
void p9_front_hang_up(struct p9_front *f);
/* After that: whether the device has ended its half of the connection, too. Until then it may be at work in our memory. */
P9_MUST_USE bool p9_front_let_go(struct p9_front *f);
/* Then: the same memory with a device that is back, over a new connection, which becomes the front's, also after a failure
 * (which may be followed by another attempt). Every request that was in flight counts as lost: the answers that the new
 * device owes by the old one's in-flight books are thrown away, and until the last of them p9_front_send() says
 * -P9_EAGAIN. Where the books are of no use (there are none, other features, a device that found fault with a request) the
 * rings begin anew. Waits for the control conversation, 3 s at most. */
P9_MUST_USE int p9_front_again(struct p9_front *f, int fd, char *err);
/* Whether such answers are still to come. */
P9_MUST_USE bool p9_front_again_busy(const struct p9_front *f);

/* Memory that the device reaches; NULL when n is above msize, or none is left. Aligned to a page. */
void *p9_front_buffer(struct p9_front *f, size_t n);
void p9_front_buffer_put(struct p9_front *f, void *p);
/* Whether this is such memory. */
bool p9_front_owns(const struct p9_front *f, const void *p, size_t n);

struct p9_front_req {
	const uint8_t *head; /* the message; for a Twrite without its payload */
	uint32_t headlen;
	const void *data; /* payload behind it */
	uint32_t datalen;
	uint32_t reply; /* room for the reply, or for what stands before its payload */
	uint32_t bulk;	/* room for payload of the reply behind `reply` bytes; 0 for none */
	void *into;	/* where that is wanted; NULL: anywhere */
	/* The caller's memory may go away before the reply: use none of it. */
	bool copy;
	unsigned queue; /* any number */
};
/* Fills reply and bulk for the message at head, of which 23 bytes are there if it has as many. */
void p9_front_expect(struct p9_front_req *r, uint32_t msize);
/* Queues a message. Returns 0; -P9_EAGAIN when first a reply must be taken; -P9_EMSGSIZE; or the link's error. */
P9_MUST_USE int p9_front_send(struct p9_front *f, const struct p9_front_req *r);
/* Shows the device what was queued. */
void p9_front_kick(struct p9_front *f);

/* A whole message. The head is a copy, the payload lies where it was written (`into`, when that was usable). */
struct p9_front_reply {
	const uint8_t *head;
	uint32_t headlen;
	const uint8_t *data;
	uint32_t datalen;
};
/* The next reply, valid until the next call. Returns 1, 0 when there is none, or the link's error. */
P9_MUST_USE int p9_front_next(struct p9_front *f, struct p9_front_reply *r);
/* Waits until there may be a reply, or the link's end, at most ms (-1: for ever); polls a little before it sleeps. Returns
 * 0 when time is over or a signal came, else 1. */
int p9_front_wait(struct p9_front *f, int ms);
/* For a poll loop of the caller's: what to wait for (readable). p9_front_arm() before each waiting: true means that there
 * is something already. */
int p9_front_fd(const struct p9_front *f);
P9_MUST_USE bool p9_front_arm(struct p9_front *f);

/* Whether the device has ended the link; the next call that can fails then. */
P9_MUST_USE bool p9_front_ended(const struct p9_front *f);
/* Why the link ended; "" while it lives. */
const char *p9_front_error(const struct p9_front *f);
int p9_front_socket(const struct p9_front *f);
const char *p9_front_tag(const struct p9_front *f);
unsigned p9_front_queues(const struct p9_front *f);

#endif
