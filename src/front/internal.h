/* SPDX-License-Identifier: BSD-2-Clause */
/* internal.h - a front, for the files of this directory alone. */
#ifndef P9_FRONT_INTERNAL_H
#define P9_FRONT_INTERNAL_H
#include "base/spin.h"
#include "front/front.h"
#include "virtio/driver.h"
#include "virtio/vhost_user.h"

#define P9_FRONT_QUEUES_MAX 64u
#define P9_FRONT_T 1408u /* of a slot's page: what goes out, */
#define P9_FRONT_R 640u	 /* and what comes back, unless either needs a block */
#define P9_FRONT_TABLE 4u

/* A request in flight. Private memory; only `page` and the blocks are shared. */
struct p9_front_slot {
	struct p9_front_slot *next;
	uint8_t *page;		    /* P9_FRONT_T + P9_FRONT_R bytes */
	uint8_t *out_block, *block; /* NULL: none taken */
	uint8_t *reply, *data;
	uint32_t room, bulk;
	bool flying; /* the device has it */
	bool stale;  /* and its owner has been told that the device is gone: the answer is nobody's */
};
struct p9_front_queue {
	struct p9_vdrv drv;
	int kick, call, err; /* eventfds */
};
/* The shared memory; addresses are the same for the device. */
struct p9_region {
	int fd;
	uint8_t *map;
	size_t len;
	uint8_t *blocks, **free;
	size_t block; /* bytes of each */
	unsigned nblocks, nfree;
};
struct p9_front {
	struct p9_region mem;
	struct p9_front_queue queues[P9_FRONT_QUEUES_MAX];
	unsigned nqueues, turn;
	uint32_t num;				   /* entries of a ring */
	struct p9_front_slot *slots, *free, *held; /* held: its reply is being looked at */
	uint8_t *head;				   /* copy of a reply's head: P9_FRONT_HEAD bytes */
	void *places;
	int sock, ep;
	int patience_ms, timeout_ms; /* as configured; of the conversation that goes on */
	int64_t until;		     /* ms: when the control conversation must be through */
	unsigned nstale;	     /* slots that are */
	bool faulty;		     /* the device refused a chain, or our books: neither is shown to another */
	int inflight;		     /* the device's record of what it has not answered; -1: none */
	struct vu_inflight inflight_desc;
	uint64_t features, protocol;
	char tag[VU_CONFIG_MAX];
	struct p9_spin spin;
	const char *gone; /* the device has ended the link, but what it answered before is still to be taken */
	int gone_code;
	int error;
	char text[P9_FRONT_ERR];
};
/* Longest reply but for payload: an Rreadlink or Rgetlock with a string of 65535 bytes. */
#define P9_FRONT_HEAD (66u * 1024)

/* region.c */
P9_MUST_USE int p9_region_make(struct p9_region *m, size_t fixed, size_t block, unsigned nblocks);
void p9_region_free(struct p9_region *m);
/* NULL when no more than `reserve` are left. */
uint8_t *p9_region_get(struct p9_region *m, unsigned reserve);
void p9_region_put(struct p9_region *m, uint8_t *block);
/* control.c */
/* How long all that follows may take. */
void p9_front_allow(struct p9_front *f, int ms);
/* The conversation that makes a device of what is behind f->sock. Returns 0, or -P9_Exxx with the cause in err. */
P9_MUST_USE int p9_front_talk(struct p9_front *f, unsigned queues, const char *tag, char *err);
/* Memory and rings, which exist by then; the used index of each ring is where the device goes on. */
P9_MUST_USE int p9_front_start(struct p9_front *f, char *err);
/* Stops them. */
void p9_front_stop(struct p9_front *f);
/* front.c */
enum { P9_FRONT_EV_CALL, P9_FRONT_EV_ERR, P9_FRONT_EV_SOCKET };
P9_MUST_USE int p9_front_watch(const struct p9_front *f, int fd, uint32_t what, uint32_t events);
void p9_front_slot_put(struct p9_front *f, struct p9_front_slot *s);
int p9_front_fail(struct p9_front *f, int ecode, const char *text);

#endif
