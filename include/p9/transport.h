/* SPDX-License-Identifier: BSD-2-Clause */
/* transport.h - the contract between the server and what carries messages.
 *
 * A link brings whole messages up (user->frame) and takes replies down. Head and payload are apart all the way: a head
 * is private memory, payload may lie wherever the transport has it (one piece in a stream's buffer, many in a guest's
 * pages), so that files are read and written in place. Everything here is called on the link's loop.
 */
#ifndef P9_TRANSPORT_H
#define P9_TRANSPORT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "p9/error.h"

struct p9_buf;
struct p9_file;
struct p9_link;
struct p9_pack;
struct p9_unpack;

/* One message that came. Views; they last until frame() returns, or, with `owner` counted up, as long as wished. */
struct p9_frame {
	const uint8_t *head; /* size[4] and all fields up to payload */
	size_t len;	     /* bytes at head; payload in one piece may follow within it */
	const struct iovec *payload;
	int npayload;
	size_t elsewhere; /* bytes at payload */
	struct p9_buf *owner;
	void *ticket; /* what its reply is sent with; the link's own, may be NULL */
};

/* Room for one reply. Commit it, or keep it (then it is the request's own), or just forget it. */
struct p9_room {
	uint8_t *head;	   /* `headlen` bytes, private */
	struct iovec *iov; /* payload goes here */
	int niov;
	struct iovec one;   /* the only piece, where one is enough */
	struct p9_buf *buf; /* the link's: where head, or both, lie */
	uint32_t off;	    /* of head in buf */
	uint32_t headlen;
	void *ticket;
};
/* Where the payload is one piece: the place of its first byte. */
static inline uint8_t *p9_room_flat(const struct p9_room *room)
{
	return room->iov[0].iov_base;
}

/* A request that was taken and not done, when a link goes to another process. */
struct p9_undone {
	const uint8_t *msg; /* the message, whole */
	size_t len;
	void *ticket;
};

/* Why a link ended, for the log. */
struct p9_link_user {
	/* A message. Returns 0, P9_LOST (base/loop.h), or -P9_Exxx: the link is broken and will be closed. */
	int (*frame)(struct p9_link *l, const struct p9_frame *f);
	/* True while no more messages can be taken; p9_link_ops.resume ends that. */
	bool (*full)(struct p9_link *l);
	/* The peer begins anew without a Tversion (a device that is reset): the session ends, the link stays. NULL: no. */
	void (*restart)(struct p9_link *l);
	/* The peer wants to pause and waits for all requests to be answered: those that wait for others give up. */
	void (*hurry)(struct p9_link *l);
	/* The peer is gone, or broke the framing. Called once; nothing is sent any more. */
	void (*closed)(struct p9_link *l, int why, const char *text);
};

struct p9_link_ops {
	/* Room for the reply to the frame with this ticket: headlen bytes and at most `payload` more, in one piece when
	 * `flat`. -P9_ENOMEM when there is none, -P9_EMSGSIZE when the peer left less. */
	int (*reserve)(struct p9_link *l, void *ticket, size_t headlen, size_t payload, bool flat,
		       struct p9_room *room);
	/* Sends the first n bytes of the room that was reserved last. */
	void (*commit)(struct p9_link *l, const struct p9_room *room, size_t n);
	/* Makes the room the caller's own for longer than this message; it is then sent with send_room. */
	void (*keep)(struct p9_link *l, struct p9_room *room);
	/* Sends n bytes of a room that was kept, and gives it back (n may be 0: then nothing is sent). */
	void (*send_room)(struct p9_link *l, struct p9_room *room, size_t n);
	/* The frame with this ticket gets no reply. NULL: nothing is to be done then. */
	void (*no_reply)(struct p9_link *l, void *ticket);
	/* Sends len bytes of a file behind what was committed, without copying them. NULL: not possible here. */
	int (*send_file)(struct p9_link *l, struct p9_file *f, uint64_t off, uint32_t len);
	/* Goes on with messages that have come already. Returns 0 or P9_LOST. */
	int (*process)(struct p9_link *l);
	/* Sends what is queued; called after replies that do not come out of frame(). */
	void (*flush)(struct p9_link *l);
	/* Begins to read. Returns 0 or -P9_Exxx. */
	int (*start)(struct p9_link *l);
	/* Stops reading and sending for good; user->closed is not called. */
	void (*stop)(struct p9_link *l);
	/* Frees the link and closes what it has open. */
	void (*free)(struct p9_link *l);
	/* Whether all that it has taken is answered but for `undone` requests, and nothing is half done with its peer. */
	bool (*quiet)(const struct p9_link *l, unsigned undone);
	/* Writes the link for another process (base/pack.h), with its descriptors; the undone are to come first there, in
	 * this order. Nothing of the link changes. NULL: it cannot be handed over. */
	void (*pack)(struct p9_link *l, struct p9_pack *p, const struct p9_undone *undone, unsigned n);
};

struct p9_loop;
/* Makes a link of two descriptors (the same twice for a socket), which it takes over, on a loop; `arg` is what the
 * caller of p9_server_accept() gave. NULL: no memory. */
typedef struct p9_link *p9_link_make(struct p9_loop *loop, int in, int out, void *arg);
/* Makes a link of what `pack` of its kind wrote; it is started and told to process() as any other. NULL when u is bad. */
typedef struct p9_link *p9_link_unpack(struct p9_loop *loop, struct p9_unpack *u);

struct p9_link {
	const struct p9_link_ops *ops;
	const struct p9_link_user *user;
	void *owner;	       /* the user's */
	uint32_t frame_max;    /* longest message that may come */
	bool agreed;	       /* by a Tattach's session; else it is what anybody may send first */
	size_t queued;	       /* bytes of replies not sent yet */
	uint64_t handshake_by; /* ms of the monotonic clock; 0 for none */
	bool reading;	       /* messages are being taken; false while user->full() */
	bool busy;	       /* process() is at work, perhaps in a call that has lost the loop */
	bool broken;	       /* ended, one way or the other */
	bool more;    /* with frame(): another message has come already, whose reply need not wait for this one's */
	bool lasting; /* outlives sessions: what comes before a Tversion is answered ESTALE */
};

#endif
