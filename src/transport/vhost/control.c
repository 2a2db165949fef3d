/* SPDX-License-Identifier: BSD-2-Clause */
/* control.c - what the monitor says: features, memory, rings, configuration.
 *
 * Liberal in order: monitors differ in when they send owner, memory, features and enables, and repeat themselves. Strict in
 * content: sizes, queue numbers, counts of descriptors and addresses are checked here; what cannot be is refused by a
 * non-zero answer where one is expected, and ends the link where the stream cannot be trusted any more.
 * What stops rings is answered late, when all their chains are back: SET_VRING_ENABLE 0, GET_VRING_BASE and what resets
 * the device; until then no further message is read. Memory may change at any other time, with requests under way.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/messages.h"
#include "transport/vhost/device.h"

#define PROTOCOL \
	(VU_P_MQ | VU_P_REPLY_ACK | VU_P_BACKEND_REQ | VU_P_CONFIG | VU_P_INFLIGHT_SHMFD | VU_P_RESET_DEVICE | \
	 VU_P_CONFIGURE_MEM_SLOTS | VU_P_STATUS)
#define FEATURES \
	(P9_VIRTIO_9P_MOUNT_TAG | P9_VIRTIO_F_INDIRECT_DESC | P9_VIRTIO_F_EVENT_IDX | VU_F_PROTOCOL_FEATURES | \
	 P9_VIRTIO_F_VERSION_1)
#define STATUS_RESET 0

enum { DONE = 0, ANSWERED = 1, LATER = 2 }; /* and -P9_Exxx: refused */

void p9_vhost_close_fds(struct p9_vhost *v)
{
	for (unsigned i = 0; i < v->nfds; i++) {
		if (v->fds[i] >= 0) {
			close(v->fds[i]);
		}
	}
	v->nfds = 0;
}

/* The only descriptor of a message; it is the caller's then. -1 when there is not just one. */
static int take_fd(struct p9_vhost *v)
{
	int fd = v->nfds == 1 ? v->fds[0] : -1;
	if (fd >= 0) {
		v->nfds = 0;
	}
	return fd;
}

static void send_message(struct p9_vhost *v, uint32_t size, int fd)
{
	char space[CMSG_SPACE(sizeof(int))] = { 0 };
	v->msg.head.flags = VU_VERSION | VU_REPLY;
	v->msg.head.size = size;
	struct iovec iov[2] = { { &v->msg.head, sizeof(v->msg.head) }, { v->msg.bytes, size } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };
	if (fd >= 0) {
		mh.msg_control = space;
		mh.msg_controllen = sizeof(space);
		struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cm), &fd, sizeof(fd));
	}
	/* answers are small and one at a time: a monitor that lets them pile up has stopped reading */
	if (sendmsg(v->ctl.fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)(sizeof(v->msg.head) + size)) {
		p9_vhost_end(v, errno == EPIPE ? 0 : -P9_EPIPE, "the monitor does not read");
	}
}

static int answer_u64(struct p9_vhost *v, uint64_t value)
{
	v->msg.u64 = value;
	send_message(v, sizeof(value), -1);
	return ANSWERED;
}

/* ---- memory ---- */
/* Starts a ring when everything is known that it takes, which may come in several messages. */
static int try_run(struct p9_vqueue *q)
{
	const struct p9_vhost *v = q->dev;
	bool on = q->enabled || !(v->features & VU_F_PROTOCOL_FEATURES);
	if (q->running || q->broken || !q->started || !q->has_addr || !q->num || !v->has_features || !on) {
		return DONE;
	}
	return p9_vqueue_run(q);
}

/* Rings that run go on in the new memory. Those that are not in it wait for more: monitors take a region away and bring
 * it back larger. */
static void use_memory(struct p9_vhost *v, struct p9_vmem *m)
{
	p9_vmem_put(v->mem);
	v->mem = m;
	for (unsigned i = 0; i < v->nqueues; i++) {
		bool ran = v->queues[i].running;
		p9_vqueue_stop(&v->queues[i]);
		if (try_run(&v->queues[i]) < 0 && ran) {
			p9_log_some(&p9_vhost_complaints, P9_LOG_INFO,
				    "vhost-user %s: queue %u waits for the memory of its ring", v->conf.tag, i);
		}
	}
}

static struct p9_vregion_desc region_of(const struct vu_region *r)
{
	return (struct p9_vregion_desc){ r->guest, r->size, r->user, r->offset };
}

static int set_mem_table(struct p9_vhost *v)
{
	const struct vu_mem_table *t = &v->msg.table;
	struct p9_vmem *m = p9_vmem_new();
	int rc = m ? 0 : -P9_ENOMEM;
	uint32_t n = v->msg.head.size < 8 ? UINT32_MAX : t->n;
	if (n > VU_TABLE_MAX || n != v->nfds || v->msg.head.size < 8 + n * sizeof(struct vu_region)) {
		rc = -P9_EINVAL;
	}
	for (uint32_t i = 0; rc == 0 && i < n; i++) {
		struct p9_vregion_desc d = region_of(&t->r[i]);
		struct p9_vmem *more;
		rc = p9_vmem_add(m, &d, v->fds[i], &more);
		if (rc == 0) {
			p9_vmem_put(m);
			m = more;
		}
	}
	if (rc < 0) {
		p9_vmem_put(m);
		return rc;
	}
	use_memory(v, m);
	return DONE;
}

static int change_memory(struct p9_vhost *v)
{
	bool add = v->msg.head.request == VU_ADD_MEM_REG;
	struct p9_vregion_desc d = region_of(&v->msg.one.r);
	struct p9_vmem *m;
	if (v->msg.head.size < sizeof(struct vu_mem_one) || (add ? v->nfds != 1 : v->nfds > 1)) {
		return -P9_EINVAL; /* a removal may bring the descriptor once more */
	}
	int rc = add ? p9_vmem_add(v->mem, &d, v->fds[0], &m) : p9_vmem_remove(v->mem, &d, &m);
	if (rc == 0) {
		use_memory(v, m);
	}
	return rc;
}

/* ---- rings ---- */
static struct p9_vqueue *queue(struct p9_vhost *v, uint64_t index)
{
	return index < v->nqueues ? &v->queues[index] : NULL;
}

static int set_vring_num(struct p9_vqueue *q, uint32_t num)
{
	if (num == 0 || num > P9_VRING_NUM_MAX || (num & (num - 1)) != 0 || q->running || q->nchains) {
		return -P9_EINVAL;
	}
	q->num = num;
	return DONE;
}

static int set_vring_addr(struct p9_vhost *v)
{
	const struct vu_vring_addr *a = &v->msg.addr;
	struct p9_vqueue *q = v->msg.head.size >= sizeof(*a) ? queue(v, a->index) : NULL;
	if (!q) {
		return -P9_EINVAL;
	}
	bool ran = q->running;
	p9_vqueue_stop(q);
	q->desc = a->desc;
	q->avail = a->avail;
	q->used = a->used;
	q->has_addr = true;
	return ran ? p9_vqueue_run(q) : try_run(q);
}

static bool is_eventfd(int fd)
{
	char path[64], name[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(path, name, sizeof(name) - 1);
	name[n > 0 ? n : 0] = 0;
	/* what cannot be read without ever blocking must not be read on a loop */
	return strcmp(name, "anon_inode:[eventfd]") == 0;
}

/* KICK, CALL, ERR. */
static int set_vring_fd(struct p9_vhost *v)
{
	uint32_t request = v->msg.head.request;
	struct p9_vqueue *q = v->msg.head.size >= 8 ? queue(v, v->msg.u64 & VU_INDEX) : NULL;
	bool none = v->msg.u64 & VU_NOFD;
	if (!q || (none && request == VU_SET_VRING_KICK)) {
		return -P9_EINVAL; /* without kicks we would have to look all the time */
	}
	int fd = none ? -1 : take_fd(v);
	if (!none && (fd < 0 || !is_eventfd(fd))) {
		if (fd >= 0) {
			close(fd);
		}
		return -P9_EINVAL;
	}
	if (fd >= 0) {
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	}
	if (request == VU_SET_VRING_KICK) {
		p9_vqueue_drop_kick(q);
		q->kick.fd = fd;
		int rc = p9_loop_add(v->loop, &q->kick, EPOLLIN | EPOLLET);
		q->started = rc == 0;
		return rc < 0 ? rc : try_run(q);
	}
	int *old = request == VU_SET_VRING_CALL ? &q->call : &q->err;
	if (*old >= 0) {
		close(*old);
	}
	*old = fd;
	if (request == VU_SET_VRING_CALL && q->running) {
		p9_vqueue_signal(q, true); /* what was given back before may have told the old one */
	}
	return DONE;
}

/* Nothing is written to the guest's memory after the answer: its next user may have another use for it. */
static int halt(struct p9_vqueue *q)
{
	p9_vqueue_stop(q);
	q->broken = false;
	q->dev->drain_queue = (unsigned)(q - q->dev->queues);
	return LATER;
}

static int set_vring_enable(struct p9_vqueue *q, bool on)
{
	q->enabled = on;
	return on ? try_run(q) : halt(q);
}

static int with_state(struct p9_vhost *v)
{
	const struct vu_vring_state *s = &v->msg.state;
	struct p9_vqueue *q = v->msg.head.size >= sizeof(*s) ? queue(v, s->index) : NULL;
	if (!q) {
		return v->msg.head.request == VU_GET_VRING_BASE ? -P9_EOPNOTSUPP : -P9_EINVAL;
	}
	switch (v->msg.head.request) {
	case VU_SET_VRING_NUM:
		return set_vring_num(q, s->num);
	case VU_SET_VRING_BASE:
		if (q->running || q->nchains || s->num > UINT16_MAX) {
			return -P9_EINVAL;
		}
		q->base = (uint16_t)s->num;
		return DONE;
	case VU_SET_VRING_ENABLE:
		return set_vring_enable(q, s->num == 1);
	default: /* GET_VRING_BASE stops the ring, and with it ends its kick */
		q->started = false;
		return halt(q);
	}
}

/* ---- the device ---- */
static int get_config(struct p9_vhost *v)
{
	struct vu_config *c = &v->msg.config;
	uint8_t space[VU_CONFIG_MAX] = { 0 };
	size_t tag = strlen(v->conf.tag);
	if (v->msg.head.size < 12 || c->size > VU_CONFIG_MAX || c->offset > VU_CONFIG_MAX - c->size) {
		v->msg.head.size = 0; /* how a refusal of this message looks */
		send_message(v, 0, -1);
		return ANSWERED;
	}
	space[0] = (uint8_t)tag;
	space[1] = (uint8_t)(tag >> 8);
	memcpy(space + 2, v->conf.tag, tag);
	memcpy(c->bytes, space + c->offset, c->size);
	send_message(v, 12 + c->size, -1);
	return ANSWERED;
}

/* Only makes the memory; it is used when it comes with SET_INFLIGHT_FD. */
static int get_inflight(struct p9_vhost *v)
{
	struct vu_inflight *i = &v->msg.inflight;
	uint32_t size =
		v->msg.head.size == VU_INFLIGHT_MIN ? VU_INFLIGHT_MIN : sizeof(*i); /* as long as the question */
	if (v->msg.head.size < VU_INFLIGHT_MIN || i->queues == 0 || i->queues > v->nqueues || i->num == 0 ||
	    i->num > P9_VRING_NUM_MAX) {
		i->mmap_size = 0;
		send_message(v, size, -1);
		return ANSWERED;
	}
	size_t len = p9_inflight_size(i->queues, i->num);
	int fd = memfd_create("p9d-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int rc = fd < 0 || ftruncate(fd, (off_t)len) < 0 ? p9_err() : 0;
	if (rc == 0) {
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	}
	i->mmap_size = rc < 0 ? 0 : len;
	i->mmap_offset = 0;
	send_message(v, size, rc < 0 ? -1 : fd);
	if (fd >= 0) {
		close(fd);
	}
	return ANSWERED;
}

static int set_inflight(struct p9_vhost *v)
{
	const struct vu_inflight *i = &v->msg.inflight;
	for (unsigned k = 0; k < v->nqueues; k++) {
		if (v->queues[k].running || v->queues[k].nchains) {
			return -P9_EBUSY;
		}
	}
	if (v->msg.head.size < VU_INFLIGHT_MIN || v->nfds != 1 || i->mmap_size > SIZE_MAX / 2) {
		return -P9_EINVAL;
	}
	return p9_inflight_map(&v->area, v->fds[0], i->mmap_offset, (size_t)i->mmap_size, i->queues, i->num);
}

static int set_features(struct p9_vhost *v)
{
	if (v->msg.head.size < 8 || (v->msg.u64 & ~(uint64_t)FEATURES)) {
		return -P9_EINVAL;
	}
	int rc = DONE;
	v->features = v->msg.u64;
	v->has_features = true;
	for (unsigned i = 0; i < v->nqueues; i++) {
		p9_vqueue_stop(&v->queues[i]); /* what its ring looks like may have changed */
		int one = try_run(&v->queues[i]);
		rc = rc < 0 ? rc : one;
	}
	return rc;
}

static int reset(struct p9_vhost *v)
{
	for (unsigned i = 0; i < v->nqueues; i++) {
		struct p9_vqueue *q = &v->queues[i];
		p9_vqueue_stop(q);
		q->enabled = q->started = q->has_addr = q->broken = false;
	}
	v->status = 0;
	v->has_features = false;
	v->link.user->restart(&v->link);
	v->drain_queue = v->nqueues;
	return LATER;
}

static int set_status(struct p9_vhost *v)
{
	if (v->msg.head.size < 8) {
		return -P9_EINVAL;
	}
	v->status = (uint8_t)v->msg.u64;
	return v->status == STATUS_RESET ? reset(v) : DONE;
}

static int set_protocol(struct p9_vhost *v)
{
	if (v->msg.head.size < 8 || (v->msg.u64 & ~(uint64_t)PROTOCOL)) {
		return -P9_EINVAL;
	}
	v->protocol = v->msg.u64;
	return DONE;
}

static int set_backend_req(struct p9_vhost *v)
{
	int fd = take_fd(v);
	if (fd < 0) {
		return -P9_EINVAL;
	}
	if (v->backend_req >= 0) {
		close(v->backend_req);
	}
	v->backend_req = fd;
	return DONE;
}

static int handle(struct p9_vhost *v)
{
	switch (v->msg.head.request) {
	case VU_GET_FEATURES:
		return answer_u64(v, FEATURES);
	case VU_SET_FEATURES:
		return set_features(v);
	case VU_SET_OWNER:
	case VU_RESET_OWNER: /* deprecated, and what it meant was never agreed on */
		return DONE;
	case VU_SET_MEM_TABLE:
		return set_mem_table(v);
	case VU_ADD_MEM_REG:
	case VU_REM_MEM_REG:
		return change_memory(v);
	case VU_GET_MAX_MEM_SLOTS:
		return answer_u64(v, P9_VMEM_SLOTS);
	case VU_SET_VRING_ADDR:
		return set_vring_addr(v);
	case VU_SET_VRING_NUM:
	case VU_SET_VRING_BASE:
	case VU_SET_VRING_ENABLE:
	case VU_GET_VRING_BASE:
		return with_state(v);
	case VU_SET_VRING_KICK:
	case VU_SET_VRING_CALL:
	case VU_SET_VRING_ERR:
		return set_vring_fd(v);
	case VU_GET_PROTOCOL_FEATURES:
		return answer_u64(v, PROTOCOL);
	case VU_SET_PROTOCOL_FEATURES:
		return set_protocol(v);
	case VU_GET_QUEUE_NUM:
		return answer_u64(v, v->nqueues);
	case VU_SET_BACKEND_REQ_FD:
		return set_backend_req(v);
	case VU_GET_CONFIG:
		return get_config(v);
	case VU_SET_CONFIG:
		return -P9_EROFS;
	case VU_GET_INFLIGHT_FD:
		return get_inflight(v);
	case VU_SET_INFLIGHT_FD:
		return set_inflight(v);
	case VU_RESET_DEVICE:
		return reset(v);
	case VU_SET_STATUS:
		return set_status(v);
	case VU_GET_STATUS:
		return answer_u64(v, v->status);
	default:
		return -P9_EOPNOTSUPP;
	}
}

/* Whether an answer of 0 or not 0 is due, to a message that has none of its own. */
static bool wants_ack(const struct p9_vhost *v)
{
	return (v->msg.head.flags & VU_NEED_REPLY) && (v->protocol & VU_P_REPLY_ACK);
}

static void conclude(struct p9_vhost *v, int rc)
{
	if (rc < 0) {
		p9_log_some(&p9_vhost_complaints, P9_LOG_WARN, "vhost-user %s: message %u refused (%s)", v->conf.tag,
			    v->msg.head.request, p9_error_name((uint32_t)-rc));
	}
	p9_vhost_close_fds(v);
	if (rc != ANSWERED && wants_ack(v)) {
		answer_u64(v, rc < 0);
	} else if (rc == -P9_EOPNOTSUPP) {
		p9_vhost_end(v, -P9_EPROTO, "a message that cannot be understood, or answered");
	}
	v->have = 0;
}

void p9_vhost_drained(struct p9_vhost *v)
{
	bool all = v->drain_queue >= v->nqueues, base = v->msg.head.request == VU_GET_VRING_BASE;
	if (v->stopped && v->nchains == 0) { /* who waits for us to be done with the guest's memory sees it so */
		shutdown(v->ctl.fd, SHUT_RDWR);
	}
	if (!v->draining || v->link.broken || (all ? v->nchains : v->queues[v->drain_queue].nchains) > 0) {
		return;
	}
	v->draining = false;
	if (base) {
		v->msg.state.num = v->queues[v->drain_queue].base;
		send_message(v, sizeof(struct vu_vring_state), -1);
	}
	conclude(v, base ? ANSWERED : DONE);
	if (!v->link.broken) {
		p9_loop_mod(v->loop, &v->ctl, EPOLLIN | EPOLLRDHUP);
	}
}

/* Receives what is missing of `want` bytes. Returns 1 when they are there, 0 when not yet, -1 at the link's end. */
static int fill(struct p9_vhost *v, size_t want)
{
	while (v->have < want) {
		char space[CMSG_SPACE(sizeof(int) * 32)];
		bool in_head = v->have < sizeof(v->msg.head);
		struct iovec iov = { in_head ? (uint8_t *)&v->msg.head + v->have
					     : v->msg.bytes + (v->have - sizeof(v->msg.head)),
				     want - v->have };
		struct msghdr mh = {
			.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)
		};
		ssize_t n = recvmsg(v->ctl.fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			return 0;
		}
		bool many = mh.msg_flags & MSG_CTRUNC;
		for (struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&mh) : NULL; c; c = CMSG_NXTHDR(&mh, c)) {
			size_t k = c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS
					   ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int)
					   : 0;
			for (size_t i = 0; i < k; i++) {
				int fd;
				memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
				if (v->nfds < P9_VHOST_FDS_MAX) {
					v->fds[v->nfds++] = fd;
				} else {
					close(fd);
					many = true;
				}
			}
		}
		if (n <= 0 || many) {
			p9_vhost_end(v,
				     many    ? -P9_EPROTO
				     : n < 0 ? p9_err()
					     : 0,
				     many ? "more descriptors than a message can have" : "the monitor has closed");
			return -1;
		}
		v->have += (size_t)n;
	}
	return 1;
}

/* One message. Returns whether there may be more. */
static bool one_message(struct p9_vhost *v)
{
	if (fill(v, sizeof(struct vu_header)) <= 0) {
		return false;
	}
	const struct vu_header *h = &v->msg.head;
	if ((h->flags & VU_VERSION_MASK) != VU_VERSION || (h->flags & VU_REPLY) || h->size > VU_PAYLOAD_MAX) {
		p9_vhost_end(v, -P9_EPROTO, "not a message of vhost-user");
		return false;
	}
	if (v->have == sizeof(*h)) {
		memset(v->msg.bytes, 0,
		       sizeof(v->msg.bytes)); /* a short message has zeros behind it, not the last one's */
	}
	if (fill(v, sizeof(*h) + h->size) <= 0) {
		return false;
	}
	int rc = handle(v);
	if (rc == LATER) {
		v->draining = true;
		p9_loop_mod(v->loop, &v->ctl, 0);
		v->link.user->hurry(&v->link);
		p9_vhost_drained(v);
		return !v->draining && !v->link.broken;
	}
	if (!v->link.broken) {
		conclude(v, rc);
	}
	return !v->link.broken;
}

int p9_vhost_control_ready(struct p9_source *s, uint32_t events)
{
	struct p9_vhost *v = (struct p9_vhost *)((char *)s - offsetof(struct p9_vhost, ctl));
	if (v->draining && (events & (EPOLLHUP | EPOLLERR))) {
		p9_vhost_end(v, 0, "the monitor has closed");
		return 0;
	}
	for (int i = 0; i < 64 && !v->link.broken && !v->draining && one_message(v); i++) {
	}
	/* a ring may have been started that was kicked before */
	return v->link.broken ? 0 : p9_vhost_process(&v->link);
}
