/* SPDX-License-Identifier: BSD-2-Clause */
/* control.c - the control conversation, in an order that every device takes.
 *
 * Called when a link begins, begins again, and ends; in between the socket only tells that the device is gone. Each
 * message whose failure could be hidden asks for an acknowledgement, when the device knows those. Answers are checked
 * against what was asked; all of it must be through within a time.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "front/internal.h"
#include "p9/messages.h"

#define PROTOCOL (VU_P_MQ | VU_P_REPLY_ACK | VU_P_CONFIG | VU_P_INFLIGHT_SHMFD)
#define FEATURES \
	(P9_VIRTIO_9P_MOUNT_TAG | P9_VIRTIO_F_INDIRECT_DESC | P9_VIRTIO_F_EVENT_IDX | VU_F_PROTOCOL_FEATURES | \
	 P9_VIRTIO_F_VERSION_1)
#define STOP_MS 1000 /* a device that does not stop its rings is left as it is */

/* One message on its way out, or its answer. */
struct talk {
	struct p9_front *f;
	struct p9_vhost_message msg;
	int fd; /* that goes, or has come; -1: none */
	char *err;
};

static __attribute__((format(printf, 3, 4))) int refuse(struct talk *t, int ecode, const char *fmt, ...)
{
	char text[P9_FRONT_ERR - 32];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(t->err, P9_FRONT_ERR, "%s (%s)", text, p9_error_name((uint32_t)ecode));
	return -ecode;
}

static int64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void p9_front_allow(struct p9_front *f, int ms)
{
	f->until = now_ms() + ms;
	f->timeout_ms = ms;
}

static int put(struct talk *t, uint32_t request, uint32_t size, bool answer)
{
	char space[CMSG_SPACE(sizeof(int))] = { 0 };
	bool ack = !answer && (t->f->protocol & VU_P_REPLY_ACK);
	t->msg.head = (struct vu_header){ request, VU_VERSION | (ack ? VU_NEED_REPLY : 0), size };
	struct iovec iov[2] = { { &t->msg.head, sizeof(t->msg.head) }, { t->msg.bytes, size } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };
	if (t->fd >= 0) {
		mh.msg_control = space;
		mh.msg_controllen = sizeof(space);
		struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);
		*cm = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(cm), &t->fd, sizeof(t->fd));
	}
	ssize_t n = sendmsg(t->f->sock, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
	t->fd = -1;
	if (n != (ssize_t)(sizeof(t->msg.head) + size)) {
		int e = n < 0 ? p9_hosterr(errno) : P9_EPIPE;
		return refuse(t, e, "the device does not take messages: %s", p9_error_text((uint32_t)e));
	}
	return 0;
}

/* Keeps the first descriptor that comes, closes others. */
static void take_fds(struct talk *t, struct msghdr *mh)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		bool rights = c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS;
		size_t k = rights ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
		for (size_t i = 0; i < k; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (t->fd < 0) {
				t->fd = fd;
			} else {
				close(fd);
			}
		}
	}
}

/* Exactly n bytes. */
static int fill(struct talk *t, void *to, size_t n)
{
	for (size_t have = 0; have < n;) {
		char space[CMSG_SPACE(sizeof(int) * 8)];
		struct iovec iov = { (uint8_t *)to + have, n - have };
		struct msghdr mh = {
			.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)
		};
		ssize_t k = recvmsg(t->f->sock, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (k > 0) {
			take_fds(t, &mh);
			have += (size_t)k;
			continue;
		}
		if (k == 0 || (errno != EAGAIN && errno != EINTR)) {
			return refuse(t, P9_ECONNRESET, "the device closed the connection");
		}
		int64_t left = t->f->until - now_ms();
		struct pollfd p = { t->f->sock, POLLIN, 0 };
		if (left <= 0) {
			return refuse(t, P9_ETIMEDOUT, "the device did not answer for %d s", t->f->timeout_ms / 1000);
		}
		if (poll(&p, 1, (int)left) < 0 && errno != EINTR) {
			return refuse(t, p9_hosterr(errno), "waiting for the device");
		}
	}
	return 0;
}

/* The answer to the message that went last; the descriptor that came with it is t->fd. */
static int get(struct talk *t, uint32_t least)
{
	uint32_t request = t->msg.head.request;
	t->fd = -1;
	memset(t->msg.bytes, 0, sizeof(t->msg.bytes));
	int rc = fill(t, &t->msg.head, sizeof(t->msg.head));
	const struct vu_header *h = &t->msg.head;
	if (rc == 0 &&
	    (h->request != request || (h->flags & (VU_VERSION_MASK | VU_REPLY)) != (VU_VERSION | VU_REPLY))) {
		rc = refuse(t, P9_EPROTO, "to message %u of vhost-user came no answer, but message %u with flags %#x",
			    request, h->request, h->flags);
	} else if (rc == 0 && (h->size < least || h->size > VU_PAYLOAD_MAX)) {
		rc = refuse(t, P9_EPROTO, "the answer to message %u of vhost-user has %u bytes", request, h->size);
	}
	rc = rc < 0 ? rc : fill(t, t->msg.bytes, h->size);
	if (t->fd >= 0 && (rc < 0 || request != VU_GET_INFLIGHT_FD)) {
		close(t->fd);
		t->fd = -1;
	}
	return rc;
}

static int set(struct talk *t, uint32_t request, uint32_t size)
{
	int rc = put(t, request, size, false);
	if (rc < 0 || !(t->f->protocol & VU_P_REPLY_ACK)) {
		return rc;
	}
	rc = get(t, sizeof(uint64_t));
	return rc == 0 && t->msg.u64 != 0 ? refuse(t, P9_EIO, "the device refuses message %u of vhost-user", request)
					  : rc;
}

static int set_u64(struct talk *t, uint32_t request, uint64_t value)
{
	t->msg.u64 = value;
	return set(t, request, sizeof(value));
}

static int ask_u64(struct talk *t, uint32_t request, uint64_t *value)
{
	int rc = put(t, request, 0, true);
	rc = rc < 0 ? rc : get(t, sizeof(uint64_t));
	*value = rc < 0 ? 0 : t->msg.u64;
	return rc;
}

static int set_state(struct talk *t, uint32_t request, unsigned index, uint32_t num)
{
	t->msg.state = (struct vu_vring_state){ index, num };
	return set(t, request, sizeof(t->msg.state));
}

static int agree_features(struct talk *t)
{
	struct p9_front *f = t->f;
	uint64_t offered, protocol = 0;
	f->protocol = 0;
	int rc = ask_u64(t, VU_GET_FEATURES, &offered);
	if (rc == 0 && !(offered & P9_VIRTIO_9P_MOUNT_TAG)) {
		return refuse(t, P9_EOPNOTSUPP, "what listens there is no 9P device");
	}
	if (rc == 0 && !(offered & P9_VIRTIO_F_VERSION_1)) {
		return refuse(t, P9_EOPNOTSUPP, "the device is older than VIRTIO 1.0");
	}
	f->features = offered & FEATURES;
	if (rc == 0 && (offered & VU_F_PROTOCOL_FEATURES)) {
		rc = ask_u64(t, VU_GET_PROTOCOL_FEATURES, &protocol);
		protocol &= PROTOCOL;
		rc = rc < 0 ? rc : set_u64(t, VU_SET_PROTOCOL_FEATURES, protocol);
		f->protocol = protocol;
	}
	return rc < 0 ? rc : set(t, VU_SET_OWNER, 0);
}

static int agree_queues(struct talk *t, unsigned wanted)
{
	uint64_t most = 1;
	int rc = t->f->protocol & VU_P_MQ ? ask_u64(t, VU_GET_QUEUE_NUM, &most) : 0;
	if (rc == 0 && (most == 0 || wanted > most)) {
		return refuse(t, P9_EINVAL, "the device has %llu queues, not %u", (unsigned long long)most, wanted);
	}
	return rc;
}

static int learn_tag(struct talk *t, const char *wanted)
{
	struct p9_front *f = t->f;
	memset(&t->msg.config, 0, sizeof(t->msg.config));
	t->msg.config.size = VU_CONFIG_MAX;
	int rc = f->protocol & VU_P_CONFIG ? put(t, VU_GET_CONFIG, sizeof(t->msg.config), true) : 0;
	rc = rc == 0 && (f->protocol & VU_P_CONFIG) ? get(t, 0) : rc;
	uint32_t size = f->protocol & VU_P_CONFIG ? t->msg.head.size : 0;
	unsigned n = size > 14 ? t->msg.config.bytes[0] | (unsigned)t->msg.config.bytes[1] << 8 : 0;
	n = n < VU_CONFIG_MAX - 2 && n + 14 <= size ? n : 0;
	char tag[VU_CONFIG_MAX] = "";
	memcpy(tag, t->msg.config.bytes + 2, n);
	if (rc == 0 && wanted && wanted[0] && strcmp(wanted, tag) != 0) {
		return refuse(t, P9_ENODEV, "the device's tag is \"%.40s\", not \"%.40s\"", tag, wanted);
	}
	memcpy(f->tag, tag, sizeof(tag)); /* `wanted` may be what stands there */
	return rc;
}

int p9_front_talk(struct p9_front *f, unsigned queues, const char *tag, char *err)
{
	struct talk t = { .f = f, .fd = -1, .err = err };
	int rc = agree_features(&t);
	rc = rc < 0 ? rc : agree_queues(&t, queues);
	rc = rc < 0 ? rc : learn_tag(&t, tag);
	return rc < 0 ? rc : set_u64(&t, VU_SET_FEATURES, f->features);
}

/* The device keeps in this memory what it has taken and not answered; we only hold it for the next device. */
static int agree_inflight(struct talk *t)
{
	struct p9_front *f = t->f;
	int rc = 0;
	if (!(f->protocol & VU_P_INFLIGHT_SHMFD)) {
		return 0;
	}
	if (f->inflight < 0) {
		t->msg.inflight = (struct vu_inflight){ .queues = (uint16_t)f->nqueues, .num = (uint16_t)f->num };
		rc = put(t, VU_GET_INFLIGHT_FD, sizeof(t->msg.inflight), true);
		rc = rc < 0 ? rc : get(t, sizeof(t->msg.inflight));
		if (rc < 0 || t->msg.inflight.mmap_size == 0 || t->fd < 0) {
			if (rc == 0 && t->fd >= 0) {
				close(t->fd);
			}
			t->fd = -1;
			return rc;
		}
		f->inflight = t->fd;
		f->inflight_desc = t->msg.inflight;
		f->inflight_desc.queues = (uint16_t)f->nqueues;
		f->inflight_desc.num = (uint16_t)f->num;
	}
	t->fd = f->inflight;
	t->msg.inflight = f->inflight_desc;
	return set(t, VU_SET_INFLIGHT_FD, sizeof(t->msg.inflight));
}

static int set_memory(struct talk *t)
{
	struct p9_front *f = t->f;
	uint64_t at = (uint64_t)(uintptr_t)f->mem.map;
	t->msg.table.n = 1;
	t->msg.table.padding = 0;
	t->msg.table.r[0] = (struct vu_region){ .guest = at, .size = f->mem.len, .user = at, .offset = 0 };
	t->fd = f->mem.fd;
	return set(t, VU_SET_MEM_TABLE, 8 + sizeof(struct vu_region));
}

static int set_fd(struct talk *t, uint32_t request, unsigned index, int fd)
{
	t->fd = fd;
	return set_u64(t, request, index);
}

static int start_queue(struct talk *t, unsigned i)
{
	struct p9_front_queue *q = &t->f->queues[i];
	const struct p9_vring *r = &q->drv.conf.ring;
	int rc = set_state(t, VU_SET_VRING_NUM, i, r->num);
	rc = rc < 0 ? rc : set_state(t, VU_SET_VRING_BASE, i, p9_vload_index(&r->used->idx));
	t->msg.addr = (struct vu_vring_addr){ .index = i,
					      .desc = (uint64_t)(uintptr_t)r->desc,
					      .avail = (uint64_t)(uintptr_t)r->avail,
					      .used = (uint64_t)(uintptr_t)r->used };
	rc = rc < 0 ? rc : set(t, VU_SET_VRING_ADDR, sizeof(t->msg.addr));
	rc = rc < 0 ? rc : set_fd(t, VU_SET_VRING_CALL, i, q->call);
	rc = rc < 0 ? rc : set_fd(t, VU_SET_VRING_ERR, i, q->err);
	rc = rc < 0 ? rc : set_fd(t, VU_SET_VRING_KICK, i, q->kick);
	bool enable = t->f->features & VU_F_PROTOCOL_FEATURES;
	return rc < 0 || !enable ? rc : set_state(t, VU_SET_VRING_ENABLE, i, 1);
}

int p9_front_start(struct p9_front *f, char *err)
{
	struct talk t = { .f = f, .fd = -1, .err = err };
	int rc = agree_inflight(&t);
	rc = rc < 0 ? rc : set_memory(&t);
	for (unsigned i = 0; i < f->nqueues; i++) {
		rc = rc < 0 ? rc : start_queue(&t, i);
	}
	return rc;
}

void p9_front_stop(struct p9_front *f)
{
	char err[P9_FRONT_ERR];
	struct talk t = { .f = f, .fd = -1, .err = err };
	int rc = 0;
	p9_front_allow(f, STOP_MS);
	for (unsigned i = 0; i < f->nqueues && rc == 0; i++) {
		bool enable = f->features & VU_F_PROTOCOL_FEATURES;
		rc = enable ? set_state(&t, VU_SET_VRING_ENABLE, i, 0) : 0;
		t.msg.state = (struct vu_vring_state){ i, 0 };
		rc = rc < 0 ? rc : put(&t, VU_GET_VRING_BASE, sizeof(t.msg.state), true);
		rc = rc < 0 ? rc : get(&t, sizeof(t.msg.state));
	}
}
