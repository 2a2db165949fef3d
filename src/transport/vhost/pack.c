/* SPDX-License-Identifier: BSD-2-Clause */
/* pack.c - a device as it goes from one p9d to the next: its monitor's socket, memory, rings and books. Called by the
 * server while nothing else is at work (server/handover.c).
 *
 * The rings are drained before, as for GET_VRING_BASE but without telling the monitor. What is left are chains of
 * requests that wait for a lock: whoever goes on reads them out of the guest's memory once more, before any others, the
 * way of chains that a p9d has left behind when it died. The other end is kicked and kicks as ever: the eventfds are the
 * same, kicks that came meanwhile are still counted in them, and rings are looked at in any case.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/pack.h"
#include "transport/vhost/device.h"

#define VHOST(l) ((struct p9_vhost *)(l))
#define HEAD_BYTES sizeof(struct vu_header)

bool p9_vhost_quiet(const struct p9_link *l, unsigned undone)
{
	const struct p9_vhost *v = (const struct p9_vhost *)l;
	bool quiet = !l->busy && !v->draining && v->nchains == undone;
	for (unsigned i = 0; i < v->nqueues; i++) {
		quiet = quiet && (v->queues[i].running || v->queues[i].nchains == 0);
	}
	return quiet;
}

/* Chains to be taken first, in order: those of requests that are undone, then what a p9d before us has left. */
static void pack_chains(const struct p9_vqueue *q, struct p9_pack *p, const struct p9_undone *undone, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (p9_vchain_queue(undone[i].ticket) == q) {
			p9_pack_number(p, 1);
			p9_pack_number(p, p9_vchain_head(undone[i].ticket));
		}
	}
	for (unsigned i = q->orphan; i < q->norphans; i++) {
		p9_pack_number(p, 1);
		p9_pack_number(p, q->orphans[i].head);
	}
	p9_pack_number(p, 0);
}

static void pack_queue(const struct p9_vqueue *q, struct p9_pack *p, const struct p9_undone *undone, unsigned n)
{
	p9_pack_fd(p, q->kick.fd);
	p9_pack_fd(p, q->call);
	p9_pack_fd(p, q->err);
	p9_pack_number(p, q->num);
	p9_pack_number(p, q->base);
	p9_pack_number(p, q->desc);
	p9_pack_number(p, q->avail);
	p9_pack_number(p, q->used);
	p9_pack_number(p, q->has_addr);
	p9_pack_number(p, q->started);
	p9_pack_number(p, q->enabled);
	p9_pack_number(p, q->running);
	p9_pack_number(p, q->broken || (q->running && q->ring.why));
	p9_pack_number(p, q->ring.last_avail);
	p9_pack_number(p, q->ring.used_idx);
	pack_chains(q, p, undone, n);
}

static void pack_message(const struct p9_vhost *v, struct p9_pack *p)
{
	p9_pack_number(p, v->have);
	p9_pack_bytes(p, &v->msg.head, HEAD_BYTES);
	p9_pack_bytes(p, v->msg.bytes, sizeof(v->msg.bytes));
	p9_pack_number(p, v->nfds);
	for (unsigned i = 0; i < v->nfds; i++) {
		p9_pack_fd(p, v->fds[i]);
	}
}

void p9_vhost_pack(struct p9_link *l, struct p9_pack *p, const struct p9_undone *undone, unsigned n)
{
	const struct p9_vhost *v = VHOST(l);
	p9_pack_text(p, v->conf.tag);
	p9_pack_number(p, v->nqueues);
	p9_pack_fd(p, v->ctl.fd);
	p9_vmem_pack(v->mem, p);
	p9_pack_number(p, v->features);
	p9_pack_number(p, v->protocol);
	p9_pack_number(p, v->has_features);
	p9_pack_number(p, v->status);
	p9_pack_fd(p, v->backend_req);
	pack_message(v, p);
	p9_pack_fd(p, v->area.map ? v->area.fd : -1);
	p9_pack_number(p, v->area.offset);
	p9_pack_number(p, v->area.len);
	p9_pack_number(p, v->area.queues);
	p9_pack_number(p, v->area.num);
	p9_pack_number(p, p9_inflight_count(0));
	for (unsigned i = 0; i < v->nqueues; i++) {
		pack_queue(&v->queues[i], p, undone, n);
	}
}

/* ---- and back ---- */
static void unpack_message(struct p9_vhost *v, struct p9_unpack *u)
{
	size_t n;
	v->have = (size_t)p9_unpack_number(u, HEAD_BYTES + sizeof(v->msg.bytes) - 1);
	const uint8_t *head = p9_unpack_bytes(u, HEAD_BYTES, &n);
	bool whole = n == HEAD_BYTES;
	const uint8_t *bytes = p9_unpack_bytes(u, sizeof(v->msg.bytes), &n);
	if (!whole || n != sizeof(v->msg.bytes)) {
		p9_unpack_fail(u, "a control message of another size");
		v->have = 0;
		return;
	}
	memcpy(&v->msg.head, head, HEAD_BYTES);
	memcpy(v->msg.bytes, bytes, n);
	if (v->have > HEAD_BYTES && (v->msg.head.size > VU_PAYLOAD_MAX || v->have >= HEAD_BYTES + v->msg.head.size)) {
		p9_unpack_fail(u, "a control message that is longer than itself");
	}
	unsigned nfds = (unsigned)p9_unpack_number(u, P9_VHOST_FDS_MAX);
	for (unsigned i = 0; i < nfds && !p9_unpack_bad(u); i++) {
		v->fds[v->nfds++] = p9_unpack_fd(u);
	}
}

static void unpack_area(struct p9_vhost *v, struct p9_unpack *u)
{
	int fd = p9_unpack_fd(u);
	uint64_t offset = p9_unpack_number(u, INT64_MAX);
	size_t len = (size_t)p9_unpack_number(u, SIZE_MAX / 2);
	unsigned queues = (unsigned)p9_unpack_number(u, UINT16_MAX), num = (unsigned)p9_unpack_number(u, UINT16_MAX);
	p9_inflight_count(p9_unpack_number(u, UINT64_MAX / 2));
	if (fd < 0) {
		return;
	}
	if (p9_unpack_bad(u) || p9_inflight_map(&v->area, fd, offset, len, queues, num) < 0) {
		p9_unpack_fail(u, "the books of requests in flight cannot be mapped");
	}
	close(fd);
}

static void unpack_chains(struct p9_vqueue *q, struct p9_unpack *u)
{
	while (p9_unpack_flag(u)) {
		uint16_t head = (uint16_t)p9_unpack_number(u, UINT16_MAX);
		if (q->norphans == 0) {
			q->orphans = calloc(P9_VRING_NUM_MAX, sizeof(*q->orphans));
		}
		if (!q->orphans || q->norphans == P9_VRING_NUM_MAX || head >= q->num) {
			p9_unpack_fail(u, "a chain that cannot be, or no memory");
			return;
		}
		q->orphans[q->norphans++] = (struct p9_orphan){ 0, head };
	}
}

static void unpack_queue(struct p9_vqueue *q, struct p9_unpack *u)
{
	q->kick.fd = p9_unpack_fd(u);
	q->call = p9_unpack_fd(u);
	q->err = p9_unpack_fd(u);
	q->num = (uint32_t)p9_unpack_number(u, P9_VRING_NUM_MAX);
	q->base = (uint16_t)p9_unpack_number(u, UINT16_MAX);
	q->desc = p9_unpack_number(u, UINT64_MAX);
	q->avail = p9_unpack_number(u, UINT64_MAX);
	q->used = p9_unpack_number(u, UINT64_MAX);
	q->has_addr = p9_unpack_flag(u);
	q->started = p9_unpack_flag(u);
	q->enabled = p9_unpack_flag(u);
	bool running = p9_unpack_flag(u);
	q->broken = p9_unpack_flag(u);
	uint16_t last_avail = (uint16_t)p9_unpack_number(u, UINT16_MAX);
	uint16_t used_idx = (uint16_t)p9_unpack_number(u, UINT16_MAX);
	if (q->num & (q->num - 1)) {
		p9_unpack_fail(u, "a ring of a size that none has");
	}
	unpack_chains(q, u);
	if (p9_unpack_bad(u) || !running) {
		return;
	}
	if (!q->num || p9_vqueue_continue(q, last_avail, used_idx) < 0) {
		p9_unpack_fail(u, "a ring that is not in its guest's memory");
	} else if (q->broken) {
		p9_vdev_stop(&q->ring, "its driver broke it before the hand-over");
	}
}

static struct p9_vmem *unpack_memory(struct p9_unpack *u)
{
	struct p9_vmem *m = p9_vmem_new();
	unsigned n = (unsigned)p9_unpack_number(u, P9_VMEM_SLOTS);
	for (unsigned i = 0; m && i < n && !p9_unpack_bad(u); i++) {
		struct p9_vmem *more;
		struct p9_vregion_desc d;
		int fd = p9_unpack_fd(u);
		d.guest = p9_unpack_number(u, UINT64_MAX);
		d.size = p9_unpack_number(u, UINT64_MAX);
		d.user = p9_unpack_number(u, UINT64_MAX);
		d.offset = p9_unpack_number(u, UINT64_MAX);
		int rc = p9_unpack_bad(u) ? -P9_EINVAL : p9_vmem_add(m, &d, fd, &more);
		if (fd >= 0) {
			close(fd);
		}
		if (rc < 0) {
			p9_unpack_fail(u, "the memory of a guest: %s", p9_error_text((uint32_t)-rc));
		} else {
			p9_vmem_put(m);
			m = more;
		}
	}
	if (!m) {
		p9_unpack_fail(u, "out of memory");
	}
	return m;
}

static void unpack_device(struct p9_vhost *v, struct p9_unpack *u)
{
	struct p9_vmem *m = unpack_memory(u);
	if (m) {
		p9_vmem_put(v->mem);
		v->mem = m;
	}
	v->features = p9_unpack_number(u, UINT64_MAX);
	v->protocol = p9_unpack_number(u, UINT64_MAX);
	v->has_features = p9_unpack_flag(u);
	v->status = (uint8_t)p9_unpack_number(u, UINT8_MAX);
	v->backend_req = p9_unpack_fd(u);
	unpack_message(v, u);
	unpack_area(v, u);
	for (unsigned i = 0; i < v->nqueues && !p9_unpack_bad(u); i++) {
		unpack_queue(&v->queues[i], u);
	}
}

struct p9_link *p9_vhost_unpack(struct p9_loop *loop, struct p9_unpack *u)
{
	char tag[P9_VHOST_TAG_MAX + 1];
	p9_unpack_text(u, tag, sizeof(tag));
	struct p9_vhost_conf conf = { tag, (unsigned)p9_unpack_number(u, P9_VHOST_QUEUES_MAX) };
	int fd = p9_unpack_fd(u);
	struct p9_link *l = fd < 0 || conf.queues == 0 ? NULL : p9_vhost_make(loop, fd, fd, &conf);
	if (!l) {
		p9_unpack_fail(u, "a device without a socket, or without memory");
		if (fd >= 0) {
			close(fd);
		}
		return NULL;
	}
	unpack_device(VHOST(l), u);
	if (p9_unpack_bad(u)) {
		l->ops->free(l);
		return NULL;
	}
	return l;
}
