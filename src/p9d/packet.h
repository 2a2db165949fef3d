/* SPDX-License-Identifier: BSD-2-Clause */
/* packet.h - what two p9d say to each other when one takes over from the other: packets over a private socket.
 *
 *     new: HELLO                        I want what you have
 *     old: STATE + memfd (n)            it stands still; its state, and how many descriptors follow
 *     old: FDS + at most 250 of them    new: ACK, each time
 *     new: READY                        I have it all, and can serve
 *     old: GO                           it is yours, and I will never touch it again unless you end now
 *     new: TAKEN                        so be it; the old one ends
 *
 * REFUSE instead of any of these, with a reason, ends it, as does the end of the socket; the old one goes on then. After
 * GO it waits for TAKEN or for the end of the new one, however long that takes: there are never two who serve. What is
 * before `number` in a packet is the same in all versions, so that a stranger can be told so.
 */
#ifndef P9_P9D_PACKET_H
#define P9_P9D_PACKET_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "p9/error.h"

#define P9D_HANDOVER_VERSION 1u
#define P9D_PACKET_FDS 250u
#define P9D_PACKET_WORDS 200

enum p9d_said { SAID_HELLO = 1, SAID_STATE, SAID_FDS, SAID_ACK, SAID_READY, SAID_GO, SAID_TAKEN, SAID_REFUSE };

struct p9d_packet {
	uint8_t magic[8];
	uint32_t version, said;
	char words[P9D_PACKET_WORDS]; /* REFUSE: why */
	uint64_t number;
};

/* Sends one, with descriptors. Never waits. Returns 0 or -P9_Exxx. */
P9_MUST_USE int p9d_packet_send(int sock, enum p9d_said said, uint64_t number, const int *fds, unsigned nfds);
/* Says no. */
void p9d_packet_refuse(int sock, const char *why);
/* The next one, which must be `said` and have no more than `cap` descriptors; waits at most ms (-1: for ever), or until
 * `stop` is readable (-1: none). Returns how many descriptors came, or -P9_Exxx with the reason in p->words. */
struct p9d_expect {
	enum p9d_said said;
	int ms, stop;
	int *fds;
	unsigned cap;
};
P9_MUST_USE int p9d_packet_receive(int sock, const struct p9d_expect *want, struct p9d_packet *p);
/* Who is at the other end; false when it is neither root nor who we are: what root says of itself is true enough. */
P9_MUST_USE bool p9d_packet_trusted(int sock, pid_t *pid);

#endif
