/* SPDX-License-Identifier: BSD-2-Clause */
/* queue.c - a queue of the device: where its ring is, when it runs and stops, how its driver is told.
 *
 * Called by control.c, for the monitor, by chains.c, which takes and gives back what is in the rings, and by pack.c, for
 * rings that another process has begun. Must stay true: a ring that runs is in memory that the queue holds (`mem`), and
 * that stays held until the last of its chains is back.
 */
#include <stdlib.h>
#include <unistd.h>
#include "transport/vhost/device.h"

struct p9_log_rate p9_vhost_complaints;

/* Where the ring is. False: not in the guest's memory. */
static bool find_ring(const struct p9_vqueue *q, struct p9_vdev_conf *out)
{
	const struct p9_vhost *v = q->dev;
	struct p9_vring_layout l = p9_vring_layout(q->num, 4);
	struct p9_vdev_conf c = { .ring = { .num = q->num,
					    .desc = p9_vmem_user(v->mem, q->desc, l.avail),
					    .avail = p9_vmem_user(v->mem, q->avail, 6 + 2 * (uint64_t)q->num),
					    .used = p9_vmem_user(v->mem, q->used, 6 + 8 * (uint64_t)q->num) },
				  .mem = &v->mem->space,
				  .features = v->features,
				  .base = q->base,
				  .most = UINT32_MAX };
	*out = c;
	return c.ring.desc && c.ring.avail && c.ring.used;
}

int p9_vqueue_continue(struct p9_vqueue *q, uint16_t last_avail, uint16_t used_idx)
{
	struct p9_vhost *v = q->dev;
	struct p9_vdev_conf c;
	if (!find_ring(q, &c)) {
		return -P9_EFAULT;
	}
	c.base = last_avail;
	c.used = used_idx;
	int rc = p9_vdev_init(&q->ring, &c);
	if (rc < 0) {
		return rc;
	}
	q->mem = p9_vmem_get(v->mem);
	q->running = true;
	q->signal = true; /* once too often is better than once too few */
	q->inflight = p9_inflight_of(&v->area, (unsigned)(q - v->queues), q->num);
	return 0;
}

int p9_vqueue_run(struct p9_vqueue *q)
{
	struct p9_vhost *v = q->dev;
	struct p9_vdev_conf c;
	if (!find_ring(q, &c)) {
		return -P9_EFAULT;
	}
	c.used = p9_vring_ok(&c.ring) ? p9_vload16(&c.ring.used->idx) : 0;
	int rc = p9_vdev_init(&q->ring, &c);
	if (rc < 0) {
		return rc;
	}
	p9_vmem_put(q->mem); /* chains that are still out hold what they point to themselves */
	q->mem = p9_vmem_get(v->mem);
	q->running = true;
	q->inflight = p9_inflight_of(&v->area, (unsigned)(q - v->queues), q->num);
	if (q->nchains == 0) {
		free(q->orphans);
		q->orphan = 0;
		q->norphans = p9_inflight_orphans(q->inflight, q->num, c.used, &q->orphans);
	}
	if (q->nchains == 0 && q->inflight) { /* the books know better than a monitor that saw us die */
		q->ring.last_avail = (uint16_t)(c.used + q->norphans);
	}
	if (q->norphans > q->orphan) {
		p9_log_some(&p9_vhost_complaints, P9_LOG_INFO,
			    "vhost-user %s: queue %u: %u request%s of a device before this one", v->conf.tag,
			    (unsigned)(q - v->queues), q->norphans, q->norphans == 1 ? "" : "s");
	}
	return 0;
}

void p9_vqueue_stop(struct p9_vqueue *q)
{
	if (!q->running) {
		return;
	}
	p9_vqueue_signal(q, false);
	q->base = q->ring.last_avail;
	if (q->nchains == 0) { /* else the last of them lets go of it */
		p9_vmem_put(q->mem);
		q->mem = NULL;
	}
	q->running = false;
}

void p9_vqueue_break(struct p9_vqueue *q, const char *why)
{
	uint64_t one = 1;
	p9_log_some(&p9_vhost_complaints, P9_LOG_WARN, "vhost-user %s: queue %u is stopped: %s", q->dev->conf.tag,
		    (unsigned)(q - q->dev->queues), why);
	p9_vdev_stop(&q->ring, why);
	q->broken = true;
	if (q->err >= 0 && write(q->err, &one, sizeof(one)) < 0) {
		return; /* told already */
	}
}

void p9_vqueue_drop_kick(struct p9_vqueue *q)
{
	if (q->kick.fd >= 0) {
		p9_loop_del(q->dev->loop, &q->kick);
		close(q->kick.fd);
		q->kick.fd = -1;
	}
}

void p9_vqueue_signal(struct p9_vqueue *q, bool anyway)
{
	uint64_t one = 1;
	bool wanted = q->running && p9_vdev_publish(&q->ring);
	if ((wanted || q->signal || anyway) && q->call >= 0 && write(q->call, &one, sizeof(one)) < 0) {
		q->signal = false; /* the counter is full: the driver has more to look at than it can count */
	}
	q->signal = q->dirty = false;
}
