/* SPDX-License-Identifier: BSD-2-Clause */
/* fz_vhost.c - fuzz target: a hostile monitor and a hostile guest against p9d's vhost-user device.
 *
 * An input is a row of steps: control messages with any bytes and descriptors of any kind, writes into the guest's memory,
 * kicks, chains with 9P messages, the shortening of memory's file; step START does what an honest monitor does, so that
 * inputs get far. With FLIP a second thread changes bytes of the rings meanwhile. The server is a whole one (whole.h),
 * with its own threads, over a socket pair. What must hold: it stays alive, and after the end of the link nothing is left.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "gen.h"
#include "slow.h"
#include "virtio/vhost_user.h"
#include "transport/vhost/vhost.h"
#include "tree.h"
#include "virtio/ring.h"
#include "whole.h"

/* Steps; each has a byte of argument, and some have a length and bytes. */
enum { MESSAGE, START, CHAIN, RAW, POKE, KICK, CUT, STOP, WAIT, DESC, STEPS };
enum { OPT_FLIP = 1, OPT_SLOW = 2, OPT_RUDE = 4 };
enum { QUEUES = 2, NUM = 16, MEMORY = 0x10000, GUEST = 0x100000, USER = 0x7000000 };
/* Offsets in memory: the parts of queue q's ring, then what chains point to. */
enum { RING = 0x1000, AVAIL = 0x200, USED = 0x400, BUFFERS = 0x4000, REPLIES = 0xa000, TABLE = 0x3000 };
#define FDS 4

struct run {
	int sock, mem, kick[QUEUES], call[QUEUES];
	uint16_t idx[QUEUES];
	unsigned buffer;
	bool dead;
};
static _Atomic bool flipping;

static void put(const struct run *r, uint64_t at, const void *p, size_t n)
{
	if (at < MEMORY && n <= MEMORY - at && pwrite(r->mem, p, n, (off_t)at) < 0) {
		abort();
	}
}

/* Sends a message; what: which descriptors come with it. Never waits: what the server does not take is lost. */
static void send_message(struct run *r, uint32_t request, uint32_t flags, const void *body, uint32_t len, unsigned what)
{
	struct vu_header h = { request, VU_VERSION | flags, len };
	const int kinds[FDS] = { r->mem, r->kick[0], r->call[0], r->kick[1] };
	char space[CMSG_SPACE(sizeof(int) * 12)] = { 0 };
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)body, len } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };
	unsigned n = what & 15;
	n = n > 12 ? 12 : n;
	if (n) {
		mh.msg_control = space;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int) * n);
		for (unsigned i = 0; i < n; i++) {
			memcpy(CMSG_DATA(cm) + i * sizeof(int), &kinds[(what >> 4) % FDS], sizeof(int));
		}
	}
	ssize_t sent = sendmsg(r->sock, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
	r->dead |= sent < 0 && errno != EAGAIN && errno != ETOOMANYREFS;
}

/* Takes in answers, and waits up to `ms` for the first. */
static void take_answers(struct run *r, int ms)
{
	uint8_t buf[4096];
	char space[CMSG_SPACE(sizeof(int) * 4)];
	struct iovec iov = { buf, sizeof(buf) };
	struct pollfd p = { r->sock, POLLIN, 0 };
	while (poll(&p, 1, ms) > 0) {
		struct msghdr mh = {
			.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)
		};
		ssize_t n = recvmsg(r->sock, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n <= 0) {
			r->dead |= n == 0 || errno != EAGAIN;
			return;
		}
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c)) {
			for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
				int fd;
				memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
				close(fd);
			}
		}
		ms = 0;
	}
}

static void tell_u64(struct run *r, uint32_t request, uint64_t v, unsigned what)
{
	send_message(r, request, 0, &v, sizeof(v), what);
}

static void start_queue(struct run *r, uint32_t q)
{
	uint64_t at = USER + (uint64_t)q * RING;
	struct vu_vring_state num = { q, NUM }, base = { q, r->idx[q] }, on = { q, 1 };
	struct vu_vring_addr addr = { q, 0, at, at + USED, at + AVAIL, 0 };
	send_message(r, VU_SET_VRING_NUM, 0, &num, sizeof(num), 0);
	send_message(r, VU_SET_VRING_BASE, 0, &base, sizeof(base), 0);
	send_message(r, VU_SET_VRING_ADDR, 0, &addr, sizeof(addr), 0);
	tell_u64(r, VU_SET_VRING_CALL, q, 1 | 2 << 4);
	tell_u64(r, VU_SET_VRING_KICK, q, 1 | (q ? 3 : 1) << 4);
	send_message(r, VU_SET_VRING_ENABLE, 0, &on, sizeof(on), 0);
}

static void start(struct run *r, uint8_t how)
{
	struct vu_mem_one m = { .r = { GUEST, MEMORY, USER, 0 } };
	uint64_t off = (how & 1 ? P9_VIRTIO_F_INDIRECT_DESC : 0) | (how & 2 ? P9_VIRTIO_F_EVENT_IDX : 0);
	tell_u64(r, VU_SET_PROTOCOL_FEATURES, VU_P_MQ | VU_P_REPLY_ACK | VU_P_CONFIGURE_MEM_SLOTS | VU_P_INFLIGHT_SHMFD,
		 0);
	tell_u64(r, VU_SET_FEATURES,
		 (P9_VIRTIO_9P_MOUNT_TAG | P9_VIRTIO_F_VERSION_1 | P9_VIRTIO_F_INDIRECT_DESC | P9_VIRTIO_F_EVENT_IDX |
		  VU_F_PROTOCOL_FEATURES) &
			 ~off,
		 0);
	send_message(r, VU_ADD_MEM_REG, 0, &m, sizeof(m), 1);
	for (uint32_t q = 0; q < (how & 4 ? 2u : 1u); q++) {
		start_queue(r, q);
	}
}

static void offer(struct run *r, uint32_t q, uint16_t head)
{
	uint64_t avail = (uint64_t)q * RING + AVAIL;
	uint64_t one = 1;
	put(r, avail + 4 + 2u * (r->idx[q] % NUM), &head, 2);
	r->idx[q]++;
	put(r, avail + 2, &r->idx[q], 2);
	if (write(r->kick[q], &one, sizeof(one)) < 0) {
		return;
	}
}

/* A 9P message as a chain: in two descriptors, in a table, or cut in many. */
static void chain(struct run *r, uint8_t how, const uint8_t *p, size_t n)
{
	uint32_t q = how & 1, cut = how & 2 ? 5 : 0x1000, room = how & 4 ? 11 : 0x1000, k = 0;
	uint32_t at = r->buffer++ % 8 * 0xc00;
	bool indirect = how & 8;
	uint64_t table = indirect ? TABLE : (uint64_t)q * RING;
	n = n < 0xc00 ? n : 0xc00;
	put(r, BUFFERS + at, p, n);
	for (size_t done = 0; done < n && k < NUM - 2; k++) {
		uint32_t len = n - done < cut || k == NUM - 3 ? (uint32_t)(n - done) : cut;
		struct p9_vdesc d = { GUEST + BUFFERS + at + done,
				      len | (uint64_t)P9_VDESC_NEXT << 32 | (uint64_t)(k + 1) << 48 };
		put(r, table + 16u * k, &d, sizeof(d));
		done += len;
	}
	struct p9_vdesc w = { GUEST + REPLIES + at % 0x5000, room | (uint64_t)P9_VDESC_WRITE << 32 };
	put(r, table + 16u * k++, &w, sizeof(w));
	if (indirect) {
		struct p9_vdesc t = { GUEST + TABLE, 16u * k | (uint64_t)P9_VDESC_INDIRECT << 32 };
		put(r, (uint64_t)q * RING + 16 * (NUM - 1), &t, sizeof(t));
	}
	offer(r, q, indirect ? NUM - 1 : 0);
}

/* One step at p; returns how many bytes it took. */
static size_t step(struct run *r, const uint8_t *p, size_t n)
{
	uint8_t arg = p[1];
	size_t len = n > 4 ? (size_t)p[2] | (size_t)p[3] << 8 : 0;
	const uint8_t *body = p + 4;
	len = n < 4 ? 0 : len < n - 4 ? len : n - 4;
	uint64_t one = 1;
	switch (p[0] % STEPS) {
	case MESSAGE: /* arg: the request; first byte: descriptors and flags */
		if (len > 0) {
			send_message(r, arg, body[0] & 0x40 ? VU_NEED_REPLY : 0, body + 1, (uint32_t)len - 1,
				     body[0] & 0xbfu);
		}
		break;
	case RAW:
		r->dead |= send(r->sock, body, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0;
		break;
	case CHAIN:
		chain(r, arg, body, len);
		break;
	case POKE:
		put(r, arg * 0x100u + (len ? body[0] : 0), body + 1, len ? len - 1 : 0);
		break;
	case DESC:
		put(r, (arg & 1) * (uint64_t)RING + 16 * (arg >> 1 & 15), body, len < 16 ? len : 16);
		break;
	case START:
		start(r, arg);
		return 2;
	case KICK:
		if (arg & 2) {
			offer(r, arg & 1, arg >> 2);
		} else if (write(r->kick[arg & 1], &one, sizeof(one)) < 0) {
			r->dead = true;
		}
		return 2;
	case CUT:
		if (ftruncate(r->mem, arg * 0x100) < 0 || (arg & 1 && ftruncate(r->mem, MEMORY) < 0)) {
			abort();
		}
		return 2;
	case STOP: {
		struct vu_vring_state s = { arg & 1, 0 };
		send_message(r, VU_GET_VRING_BASE, 0, &s, sizeof(s), 0);
		take_answers(r, 20);
		return 2;
	}
	default:
		take_answers(r, 2);
		return 2;
	}
	return n < 4 ? n : 4 + len;
}

static void *flip(void *arg)
{
	const struct run *r = arg;
	uint64_t rng = 88172645463325252u;
	while (atomic_load(&flipping)) {
		rng ^= rng << 13;
		rng ^= rng >> 7;
		rng ^= rng << 17;
		uint8_t byte = (uint8_t)(rng >> 56);
		put(r, rng & 8 ? rng >> 8 & 0x13ff : BUFFERS + (rng >> 8 & 0x3f), &byte, 1);
	}
	return NULL;
}

static void finish(struct run *r, bool rude)
{
	if (!rude) {
		take_answers(r, 3);
	}
	close(r->sock);
	fz_nothing_is_left();
	close(r->mem);
	for (int q = 0; q < QUEUES; q++) {
		close(r->kick[q]);
		close(r->call[q]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct p9_vhost_conf conf = { "fuzz", QUEUES };
	struct p9_peer peer = { .kind = P9_PEER_GUEST, .text = "fuzz", .only = "main", .make_arg = &conf };
	pthread_t thread;
	int sv[2];
	if (size < 1) {
		return 0;
	}
	uint8_t opt = data[0];
	FZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0, "socketpair: %s", strerror(errno));
	struct run r = { .sock = sv[0], .mem = memfd_create("guest", MFD_CLOEXEC) };
	for (int q = 0; q < QUEUES; q++) {
		r.kick[q] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		r.call[q] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
	FZ_CHECK(r.mem >= 0 && ftruncate(r.mem, MEMORY) == 0 && r.call[1] >= 0, "%s", strerror(errno));
	fcntl(sv[1], F_SETFL, O_NONBLOCK);
	fz_slow_set(opt & OPT_SLOW ? 4 : 0, opt & OPT_SLOW ? 1 + (unsigned)size % 3 : 0);
	FZ_CHECK(p9_server_accept(fz_srv, p9_vhost_make, sv[1], sv[1], &peer) == 0, "accept");
	atomic_store(&flipping, true);
	bool flips = opt & OPT_FLIP && pthread_create(&thread, NULL, flip, &r) == 0;
	for (size_t pos = 1; pos + 2 <= size && !r.dead;) {
		pos += step(&r, data + pos, size - pos);
	}
	atomic_store(&flipping, false);
	if (flips) {
		pthread_join(thread, NULL);
	}
	finish(&r, opt & OPT_RUDE);
	fz_tree_reset();
	return 0;
}
