/* SPDX-License-Identifier: BSD-2-Clause */
/* fz_front.c - fuzz target: our side of a vhost-user device (src/front) against a hostile device.
 *
 * What the device says in the control conversation lies in the socket before the front begins: the answers that an honest one
 * would give, each passed on, bent, dropped, given twice, or with descriptors of any kind, as the input says. Then requests
 * and deeds take turns: honest and bent replies, anything in the used ring or anywhere in the shared memory, the error
 * descriptor, words on the socket; and at last another device takes its place (p9_front_again()), which may lie as well.
 * What must hold: a reply is as long as it says and lies where it may, none comes twice, no descriptor is left over, the end
 * of the link has a reason.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "front/internal.h"
#include "gen.h"

enum { QUEUES = 2, REQUESTS = 12, MSIZE = 8192, BULK = 3000, STEPS = 400, PATIENCE_MS = 5 };
enum { SEND, SEND_MORE, HONEST, BENT, ENTRY, SCRIBBLE, TAKE, FAULT, TALK, AGAIN, DEEDS };

static struct run {
	const uint8_t *in, *end;
	struct p9_front *f;
	int device; /* the other end of its socket */
	uint16_t seen[QUEUES];
	bool open[REQUESTS];
	uint8_t *own[REQUESTS], *shared[REQUESTS];
} r;

static uint8_t next(void)
{
	return r.in < r.end ? *r.in++ : 0;
}
static uint32_t next16(void)
{
	uint32_t low = next();
	return low | (uint32_t)next() << 8;
}

/* ---- the conversation ---- */
static void say(const struct p9_vhost_message *m, unsigned nfds)
{
	char space[CMSG_SPACE(sizeof(int) * 16)] = { 0 };
	struct iovec iov[2] = { { (void *)(uintptr_t)&m->head, sizeof(m->head) },
				{ (void *)(uintptr_t)m->bytes, m->head.size < VU_PAYLOAD_MAX ? m->head.size : 8 } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };
	int fd = nfds % 2 ? memfd_create("books", MFD_CLOEXEC) : eventfd(0, EFD_CLOEXEC);
	if (nfds % 2 && ftruncate(fd, nfds & 4 ? 5 : 1 << 16) < 0) {
		abort();
	}
	if (nfds) {
		mh.msg_control = space;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);
		*cm = (struct cmsghdr){ CMSG_LEN(sizeof(int) * nfds), SOL_SOCKET, SCM_RIGHTS };
		for (unsigned i = 0; i < nfds; i++) {
			memcpy(CMSG_DATA(cm) + i * sizeof(fd), &fd, sizeof(fd));
		}
	}
	if (sendmsg(r.device, &mh, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EPIPE && errno != EAGAIN) {
		abort();
	}
	close(fd);
}

static struct p9_vhost_message answer(uint32_t request, uint64_t value, uint32_t size)
{
	struct p9_vhost_message m = { .head = { request, VU_VERSION | VU_REPLY, size } };
	m.u64 = value;
	return m;
}

/* How an answer is passed on. */
static void pass(struct p9_vhost_message m, unsigned nfds)
{
	uint8_t how = next();
	if (how == 1) {
		return;
	}
	for (unsigned i = how >= 4 && how < 12 ? how - 3u : 0; i > 0; i--) {
		uint32_t at = next16() % (sizeof(m.head) + 32);
		((uint8_t *)&m)[at < sizeof(m.head) ? at
						    : offsetof(struct p9_vhost_message, bytes) + at - sizeof(m.head)] =
			next();
	}
	nfds = how >= 16 && how < 32 ? how - 16u : nfds;
	say(&m, nfds);
	if (how == 2) {
		say(&m, nfds);
	}
}

/* All that an honest device would say, in this order. */
static void converse(uint8_t books)
{
	static const uint32_t ring[] = { VU_SET_VRING_NUM, VU_SET_VRING_BASE, VU_SET_VRING_ADDR,  VU_SET_VRING_CALL,
					 VU_SET_VRING_ERR, VU_SET_VRING_KICK, VU_SET_VRING_ENABLE };
	struct p9_vhost_message config = answer(VU_GET_CONFIG, 0, 12 + 8), area = answer(VU_GET_INFLIGHT_FD, 0, 24);
	uint64_t features = P9_VIRTIO_9P_MOUNT_TAG | P9_VIRTIO_F_INDIRECT_DESC | P9_VIRTIO_F_EVENT_IDX |
			    VU_F_PROTOCOL_FEATURES | P9_VIRTIO_F_VERSION_1;
	memcpy(config.config.bytes, "\3\0tag", 5);
	area.inflight = (struct vu_inflight){ 4096, 0, QUEUES, 16, 0 };
	pass(answer(VU_GET_FEATURES, features & ~(uint64_t)(next() % 4 == 3 ? P9_VIRTIO_F_EVENT_IDX : 0), 8), 0);
	pass(answer(VU_GET_PROTOCOL_FEATURES,
		    VU_P_MQ | VU_P_REPLY_ACK | VU_P_CONFIG | (books ? VU_P_INFLIGHT_SHMFD : 0), 8),
	     0);
	pass(answer(VU_SET_PROTOCOL_FEATURES, 0, 8), 0);
	pass(answer(VU_SET_OWNER, 0, 8), 0);
	pass(answer(VU_GET_QUEUE_NUM, QUEUES, 8), 0);
	pass(config, 0);
	pass(answer(VU_SET_FEATURES, 0, 8), 0);
	if (books == 1) {
		pass(area, 1);
	}
	if (books) {
		pass(answer(VU_SET_INFLIGHT_FD, 0, 8), 0);
	}
	pass(answer(VU_SET_MEM_TABLE, 0, 8), 0);
	for (unsigned i = 0; i < QUEUES; i++) {
		for (unsigned k = 0; k < sizeof(ring) / sizeof(ring[0]); k++) {
			pass(answer(ring[k], 0, 8), 0);
		}
	}
}

static int connection(void)
{
	int sv[2];
	FZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0, "socketpair: %s", strerror(errno));
	if (r.device >= 0) {
		close(r.device);
	}
	r.device = sv[1];
	return sv[0];
}

/* ---- requests, and the device's deeds ---- */
static void request(bool direct)
{
	uint8_t head[P9_TWRITEHDRSZ + 8];
	unsigned i = next() % REQUESTS, kind = next() % 4;
	struct p9_msg m = { .type = P9_Tgetattr, .tag = (uint16_t)i, .tgetattr = { 1, 0 } };
	if (r.open[i]) {
		return;
	}
	if (kind == 1) {
		m = (struct p9_msg){ .type = P9_Tread, .tag = (uint16_t)i, .tread = { 1, 0, BULK } };
	} else if (kind == 2) {
		m = (struct p9_msg){ .type = P9_Treaddir, .tag = (uint16_t)i, .treaddir = { 1, 0, BULK } };
	} else if (kind == 3) {
		m = (struct p9_msg){ .type = P9_Twrite, .tag = (uint16_t)i, .twrite = { 1, 0, { BULK, r.own[i] } } };
	}
	int n = p9_wire_encode_head(head, sizeof(head), &m);
	FZ_CHECK(n > 0, "head of %d", n);
	struct p9_front_req q = { .head = head, .headlen = (uint32_t)n, .queue = i };
	uint8_t *payload = direct && r.shared[i] ? r.shared[i] : r.own[i];
	q.data = kind == 3 ? payload : NULL;
	q.datalen = kind == 3 ? BULK : 0;
	p9_front_expect(&q, MSIZE);
	q.into = kind == 1 ? payload : NULL;
	q.copy = next() % 8 == 0;
	int rc = p9_front_send(r.f, &q);
	bool ended =
		rc == r.f->error; /* whatever ended the link: a device that came back with fewer queues is EINVAL */
	FZ_CHECK(ended || (rc <= 0 && rc != -P9_EINVAL && rc != -P9_EMSGSIZE), "send: %d", rc);
	r.open[i] = rc == 0;
}

static void take(void)
{
	struct p9_front_reply a;
	int rc;
	while ((rc = p9_front_next(r.f, &a)) > 0) {
		const uint8_t *map = r.f->mem.map;
		FZ_CHECK(a.headlen >= 7 && a.headlen <= P9_FRONT_HEAD, "a head of %u", a.headlen);
		FZ_CHECK(p9_get32(a.head) == a.headlen + a.datalen, "%u + %u bytes, not %u", a.headlen, a.datalen,
			 p9_get32(a.head));
		FZ_CHECK(a.datalen == 0 ||
				 (a.data >= map && a.datalen <= BULK && a.data + a.datalen <= map + r.f->mem.len),
			 "payload outside");
		uint16_t tag = p9_get16(a.head + 5);
		if (tag < REQUESTS) {
			r.open[tag] = false; /* which request it is for is the engine's to check */
		}
	}
	FZ_CHECK(rc == 0 || p9_front_error(r.f)[0], "an end without a reason");
}

/* Answers the next request of a queue, in the ring's memory as it is. */
static void reply(unsigned q, bool bent)
{
	const struct p9_vring *v = &r.f->queues[q].drv.conf.ring;
	uint8_t *map = r.f->mem.map;
	uint64_t len = r.f->mem.len;
	uint8_t frame[64] = { 11, 0, 0, 0, P9_Rlerror, 0, 0, P9_EACCES };
	uint32_t size = 11, id;
	if (p9_vload_index(&v->avail->idx) == r.seen[q]) {
		return;
	}
	id = v->avail->ring[r.seen[q]++ % v->num] % v->num;
	struct p9_vdesc d = v->desc[id];
	for (unsigned i = 0; i < 8; i++) { /* the first that can be written to */
		uint64_t off = d.addr - (uintptr_t)map;
		if (d.addr < (uintptr_t)map || off > len - sizeof(d) || off % 8) {
			break;
		}
		if (d.rest >> 32 & P9_VDESC_INDIRECT) {
			memcpy(&d, map + off, sizeof(d));
			continue;
		}
		if (d.rest >> 32 & P9_VDESC_WRITE) {
			frame[5] = next() % REQUESTS;
			for (unsigned k = bent ? next() % 4 : 0; k > 0; k--) {
				frame[next() % sizeof(frame)] = next();
			}
			size = bent && next() % 4 == 0 ? next16() : p9_get32(frame) % 70000;
			memcpy(map + off, frame, len - off < sizeof(frame) ? len - off : sizeof(frame));
			break;
		}
		uint64_t follows = r.f->features & P9_VIRTIO_F_INDIRECT_DESC
					   ? off + sizeof(d)
					   : (uintptr_t)&v->desc[d.rest >> 48 & (v->num - 1)] - (uintptr_t)map;
		memcpy(&d, map + (follows <= len - sizeof(d) ? follows : 0), sizeof(d));
	}
	uint16_t used = v->used->idx;
	v->used->ring[used % v->num] = (struct p9_vused_elem){ id, size };
	p9_vstore_index(&v->used->idx, (uint16_t)(used + 1));
}

static void again(void)
{
	char err[P9_FRONT_ERR];
	uint8_t books = next() % 3;
	p9_front_hang_up(r.f);
	close(r.device);
	r.device = -1;
	FZ_CHECK(p9_front_let_go(r.f), "the device has closed");
	int fd = connection();
	converse(books);
	if (p9_front_again(r.f, fd, err) < 0) {
		FZ_CHECK(strlen(err) > 0 && p9_front_error(r.f)[0], "no reason");
	}
	memset(r.open, 0, sizeof(r.open));
	for (unsigned q = 0; q < QUEUES; q++) {
		r.seen[q] = p9_vload_index(&r.f->queues[q].drv.conf.ring.used->idx);
	}
}

static void deed(uint8_t what)
{
	unsigned q = what / DEEDS % QUEUES;
	struct p9_vused *used = r.f->queues[q].drv.conf.ring.used;
	uint64_t one = 1;
	switch (what % DEEDS) {
	case SEND:
	case SEND_MORE:
		request(what % DEEDS == SEND);
		p9_front_kick(r.f);
		break;
	case HONEST:
	case BENT:
		reply(q, what % DEEDS == BENT);
		break;
	case ENTRY:
		used->ring[next() % 16] = (struct p9_vused_elem){ next(), next16() };
		p9_vstore_index(&used->idx, (uint16_t)(used->idx + (next() % 4 ? 1 : next16())));
		break;
	case SCRIBBLE: {
		uint32_t at = next16() * (next() % 8 + 1u);
		r.f->mem.map[at % r.f->mem.len] = next();
		break;
	}
	case FAULT:
		if (next() % 4 == 0 && write(r.f->queues[q].err, &one, sizeof(one)) < 0) {
			abort();
		}
		break;
	case TALK:
		if (next() % 4 == 0) {
			say(&(struct p9_vhost_message){ .head = { next(), next(), next() } }, next() % 3);
		}
		break;
	case AGAIN:
		if (next() % 4 == 0) {
			again();
		}
		break;
	default:
		(void)p9_front_wait(r.f, 0);
		take();
		break;
	}
}

static unsigned descriptors(void)
{
	unsigned n = 0;
	for (int fd = 0; fd < 256; fd++) {
		n += fcntl(fd, F_GETFD) >= 0;
	}
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char err[P9_FRONT_ERR];
	struct p9_front_conf conf = {
		.queues = QUEUES, .depth = 15, .msize = MSIZE, .timeout_ms = PATIENCE_MS, .tag = "tag"
	};
	unsigned before = descriptors();
	if (size < 2) {
		return 0;
	}
	r = (struct run){ .in = data + 1, .end = data + size, .device = -1 };
	conf.fd = connection();
	converse(data[0] % 2);
	if (p9_front_open(&r.f, &conf, err) == 0) {
		for (unsigned i = 0; i < REQUESTS; i++) {
			r.own[i] = calloc(1, BULK);
			r.shared[i] = i % 2 ? p9_front_buffer(r.f, BULK) : NULL;
		}
		for (unsigned i = 0; i < STEPS && r.in < r.end; i++) {
			deed(next());
		}
		take();
	} else {
		FZ_CHECK(strlen(err) > 0, "no reason");
	}
	close(r.device);
	p9_front_close(r.f);
	for (unsigned i = 0; i < REQUESTS; i++) {
		free(r.own[i]);
	}
	unsigned after = descriptors();
	FZ_CHECK(after == before, "%u descriptors, before there were %u", after, before);
	return 0;
}
