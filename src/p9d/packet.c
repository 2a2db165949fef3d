/* SPDX-License-Identifier: BSD-2-Clause */
/* packet.c - see packet.h. Nothing of a packet is used before its length, magic and version are right; descriptors that
 * came with a packet that is not are closed.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/messages.h"
#include "p9d/packet.h"

static const uint8_t magic[8] = "p9dgives";

static struct p9d_packet packet(enum p9d_said said, uint64_t number)
{
	struct p9d_packet p = { .version = P9D_HANDOVER_VERSION, .said = said, .number = number };
	memcpy(p.magic, magic, sizeof(magic));
	return p;
}

int p9d_packet_send(int sock, enum p9d_said said, uint64_t number, const int *fds, unsigned nfds)
{
	struct p9d_packet p = packet(said, number);
	char space[CMSG_SPACE(sizeof(int) * P9D_PACKET_FDS)] = { 0 };
	struct iovec iov = { &p, sizeof(p) };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	if (nfds) {
		mh.msg_control = space;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(cm), fds, sizeof(int) * nfds);
	}
	return sendmsg(sock, &mh, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof(p) ? 0 : p9_err();
}

void p9d_packet_refuse(int sock, const char *why)
{
	struct p9d_packet p = packet(SAID_REFUSE, 0);
	snprintf(p.words, sizeof(p.words), "%s", why);
	if (send(sock, &p, sizeof(p), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		return; /* it has gone, and will not wonder */
	}
}

static int failed(struct p9d_packet *p, int rc, const char *why)
{
	snprintf(p->words, sizeof(p->words), "%s", why);
	return rc;
}

static unsigned take_fds(struct msghdr *mh, const struct p9d_expect *want, bool *surplus)
{
	unsigned n = 0;
	*surplus = mh->msg_flags & (MSG_CTRUNC | MSG_TRUNC);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		size_t k = c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS
				   ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int)
				   : 0;
		for (size_t i = 0; i < k; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (n < want->cap) {
				want->fds[n++] = fd;
			} else {
				close(fd);
				*surplus = true;
			}
		}
	}
	return n;
}

static int judge(struct p9d_packet *p, ssize_t len, const struct p9d_expect *want)
{
	p->words[sizeof(p->words) - 1] = 0;
	if (len < (ssize_t)offsetof(struct p9d_packet, number) || memcmp(p->magic, magic, sizeof(magic)) != 0) {
		return failed(p, -P9_EPROTO, "what came is not of a p9d that takes over");
	}
	if (p->said == SAID_REFUSE) {
		for (char *s = p->words; *s; s++) {
			*s = *s < ' ' || *s > '~' ? '?' : *s;
		}
		return -P9_ECONNREFUSED;
	}
	if (p->version != P9D_HANDOVER_VERSION) {
		char why[100];
		snprintf(why, sizeof(why), "the two speak different versions of the hand-over: %u here, %u there",
			 P9D_HANDOVER_VERSION, p->version);
		return failed(p, -P9_EPROTO, why);
	}
	return len != (ssize_t)sizeof(*p) || p->said != want->said ? failed(p, -P9_EPROTO, "a packet out of turn") : 0;
}

int p9d_packet_receive(int sock, const struct p9d_expect *want, struct p9d_packet *p)
{
	char space[CMSG_SPACE(sizeof(int) * (P9D_PACKET_FDS + 3))];
	struct pollfd pfd[2] = { { sock, POLLIN, 0 }, { want->stop, POLLIN, 0 } };
	struct iovec iov = { p, sizeof(*p) };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space) };
	bool surplus;
	memset(p, 0, sizeof(*p));
	int n = poll(pfd, want->stop >= 0 ? 2 : 1, want->ms);
	if (n <= 0 || !pfd[0].revents) {
		return failed(p, -P9_ETIMEDOUT, n > 0 ? "ended by a signal" : "the other one does not answer");
	}
	ssize_t len = recvmsg(sock, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (len <= 0) {
		return failed(p, -P9_ECONNRESET, "the other one has gone");
	}
	unsigned got = take_fds(&mh, want, &surplus);
	int rc = judge(p, len, want);
	if (rc == 0 && surplus) {
		rc = failed(p, -P9_EMFILE, "descriptors were lost: the limit for open files is too low");
	}
	for (unsigned i = 0; rc < 0 && i < got; i++) {
		close(want->fds[i]);
	}
	return rc < 0 ? rc : (int)got;
}

bool p9d_packet_trusted(int sock, pid_t *pid)
{
	struct ucred cr;
	socklen_t len = sizeof(cr);
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cr, &len) < 0) {
		return false;
	}
	*pid = cr.pid;
	return cr.uid == geteuid() || cr.uid == 0;
}
