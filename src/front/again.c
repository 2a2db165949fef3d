/* SPDX-License-Identifier: BSD-2-Clause */
/* again.c - a device that is lost and comes back: the same memory over a new connection.
 *
 * Called by the client that looks for a lost device. In-flight books of the old device are handed to the new one, which then
 * answers what the old one had taken; nobody waits for those answers, their slots are stale.
 * Must stay true: nothing new is in a ring before the last stale slot is back, for the rings' order means nothing across
 * queues, and an old request must not be done in the new session.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "front/internal.h"
#include "p9/messages.h"

#define AGAIN_MS 3000 /* for a device that is back to introduce itself: its user may be waiting */

bool p9_front_let_go(struct p9_front *f)
{
	char rest[256];
	ssize_t n = 1;
	for (int i = 0; i < 64 && n > 0; i++) { /* what it still has to say is of no interest */
		n = recv(f->sock, rest, sizeof(rest), MSG_DONTWAIT);
	}
	return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/* Whether another device can go on where the last one stopped. */
static bool books_are_good(const struct p9_front *f)
{
	const struct vu_inflight *d = &f->inflight_desc;
	struct stat st;
	bool good = !f->faulty && f->inflight >= 0 && (f->protocol & VU_P_INFLIGHT_SHMFD) &&
		    f->features == f->queues[0].drv.conf.features && fstat(f->inflight, &st) == 0 &&
		    d->mmap_size <= (uint64_t)st.st_size && d->mmap_offset <= (uint64_t)st.st_size - d->mmap_size;
	for (unsigned q = 0; q < f->nqueues; q++) {
		good = good && !f->queues[q].drv.why;
	}
	return good;
}

/* What is in the rings stays; nobody waits for its answers any more. */
static void go_on(struct p9_front *f)
{
	f->nstale = 0;
	for (unsigned i = 0; i < f->num * f->nqueues; i++) {
		f->slots[i].stale = f->slots[i].flying;
		f->nstale += f->slots[i].stale;
	}
}

/* Empty rings and no books. */
static int begin_anew(struct p9_front *f)
{
	int rc = 0;
	if (f->inflight >= 0) {
		close(f->inflight);
	}
	f->inflight = -1;
	f->faulty = false;
	f->nstale = 0;
	for (unsigned i = 0; i < f->num * f->nqueues; i++) {
		if (f->slots[i].flying) {
			p9_front_slot_put(f, &f->slots[i]);
		}
	}
	for (unsigned i = 0; i < f->nqueues && rc == 0; i++) {
		struct p9_vdrv_conf conf = f->queues[i].drv.conf;
		uint64_t count;
		conf.features = f->features;
		rc = p9_vdrv_init(&f->queues[i].drv, &conf, (char *)f->places + i * p9_vdrv_memory(f->num));
		if (read(f->queues[i].err, &count, sizeof(count)) < 0) {
			continue; /* it had found no fault */
		}
	}
	return rc;
}

static void forget_end(struct p9_front *f)
{
	f->error = f->gone_code = 0;
	f->gone = NULL;
	f->text[0] = 0;
	if (f->held) {
		p9_front_slot_put(f, f->held);
		f->held = NULL;
	}
}

int p9_front_again(struct p9_front *f, int fd, char *err)
{
	close(f->sock);
	f->sock = fd;
	forget_end(f);
	p9_front_allow(f, f->patience_ms < AGAIN_MS ? f->patience_ms : AGAIN_MS);
	snprintf(err, P9_FRONT_ERR, "%s (EIO)", p9_error_text(P9_EIO));
	int rc = p9_front_watch(f, fd, P9_FRONT_EV_SOCKET, EPOLLIN | EPOLLRDHUP);
	rc = rc < 0 ? rc : p9_front_talk(f, f->nqueues, f->tag, err);
	bool books = rc == 0 && books_are_good(f);
	if (books) {
		go_on(f);
	} else if (rc == 0) {
		rc = begin_anew(f);
	}
	rc = rc < 0 ? rc : p9_front_start(f, err);
	f->faulty |= books && rc == -P9_EIO; /* the next attempt does without */
	if (rc < 0) {
		return p9_front_fail(f, -rc, err);
	}
	for (unsigned i = 0; i < f->nqueues; i++) { /* what the old one was never told of */
		uint64_t one = 1;
		if (write(f->queues[i].kick, &one, sizeof(one)) < 0) {
			continue; /* full: it has enough to read */
		}
	}
	return 0;
}

bool p9_front_again_busy(const struct p9_front *f)
{
	return f->nstale > 0;
}
