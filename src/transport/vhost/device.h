/* SPDX-License-Identifier: BSD-2-Clause */
/* device.h - the device, for the files of this directory alone. All of it is its loop's. */
#ifndef P9_VHOST_DEVICE_H
#define P9_VHOST_DEVICE_H
#include "base/log.h"
#include "base/loop.h"
#include "transport/vhost/inflight.h"
#include "transport/vhost/memory.h"
#include "virtio/vhost_user.h"
#include "transport/vhost/vhost.h"

struct p9_vhost;
struct p9_chain;

struct p9_vqueue {
	struct p9_source kick; /* fd -1: none */
	struct p9_vhost *dev;
	int call, err; /* -1: none */
	uint32_t num;
	uint16_t base;		    /* where avail goes on, while it is not running */
	uint64_t desc, avail, used; /* the monitor's addresses */
	bool has_addr, started, enabled, running;
	bool broken;		   /* by its driver; until the monitor stops it */
	bool dirty, signal;	   /* given back, and not shown; shown, and the driver not told */
	struct p9_orphan *orphans; /* of a p9d before this one, to be answered first */
	unsigned norphans, orphan;
	struct p9_vdev ring;
	struct p9_vmem *mem;	      /* what ring points into */
	unsigned nchains;	      /* taken and not given back */
	struct p9_inflight *inflight; /* NULL: not wanted */
};

struct p9_vhost {
	struct p9_link link;
	struct p9_loop *loop;
	struct p9_source ctl;
	struct p9_poller poller; /* the rings */
	struct p9_vhost_conf conf;
	char tag[P9_VHOST_TAG_MAX + 1]; /* conf.tag */
	struct p9_vmem *mem;
	uint64_t features, protocol;
	bool has_features;
	struct p9_vqueue *queues;
	unsigned nqueues, next_queue;
	struct p9_chain *chains; /* taken and not given back, of all queues */
	unsigned nchains;
	int backend_req; /* the monitor's end for requests of ours; none are sent so far */
	uint8_t status;
	struct p9_inflight_area area;
	/* the control message that is coming, or, while `draining`, waits to be answered */
	struct p9_vhost_message msg;
	size_t have;
	int fds[P9_VHOST_FDS_MAX];
	unsigned nfds;
	bool draining;
	bool stopped;	      /* the link is; the connection ends with the last chain */
	unsigned drain_queue; /* the one that is stopped; nqueues for all */
};

/* ---- queue.c ---- */
extern struct p9_log_rate p9_vhost_complaints; /* lines that a guest or a monitor causes */
/* ---- control.c ---- */
int p9_vhost_control_ready(struct p9_source *s, uint32_t events);
/* A chain was given back: an answer may have waited for that, or the connection's end. */
void p9_vhost_drained(struct p9_vhost *v);
void p9_vhost_close_fds(struct p9_vhost *v);

/* ---- chains.c ---- */
/* Takes messages from the rings. Returns 0 or P9_LOST. */
int p9_vhost_process(struct p9_link *l);
/* The queue gets its ring, when all is known that it needs and it is not stopped. Returns 0 or -P9_Exxx. */
P9_MUST_USE int p9_vqueue_run(struct p9_vqueue *q);
/* It stops taking; its base says where it was. */
void p9_vqueue_stop(struct p9_vqueue *q);
/* It stops for good and the monitor is told. */
void p9_vqueue_break(struct p9_vqueue *q, const char *why);
void p9_vqueue_drop_kick(struct p9_vqueue *q);
/* Tells the driver of what was given back, if it wishes. */
void p9_vqueue_signal(struct p9_vqueue *q, bool anyway);
/* The queue's ring as it was, in the device's memory. Returns 0 or -P9_Exxx. */
P9_MUST_USE int p9_vqueue_continue(struct p9_vqueue *q, uint16_t last_avail, uint16_t used_idx);
/* The descriptor's number of a chain that a request holds as its ticket. */
uint16_t p9_vchain_head(const void *ticket);
/* The queue that it came from. */
const struct p9_vqueue *p9_vchain_queue(const void *ticket);

/* ---- pack.c ---- */
bool p9_vhost_quiet(const struct p9_link *l, unsigned undone);
void p9_vhost_pack(struct p9_link *l, struct p9_pack *p, const struct p9_undone *undone, unsigned n);

/* The link has ended, for the log and for good. */
void p9_vhost_end(struct p9_vhost *v, int why, const char *text);

#endif
