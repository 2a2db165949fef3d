/* SPDX-License-Identifier: BSD-2-Clause */
/* late.c - requests that are not simply waited for: those that a signal has reached, and those to be tried again.
 *
 * A signal that does not kill is no reason to give up: a mkdir() must not fail because a timer went off. Only waiting for
 * a lock ends with any signal. A program that is to die is let go at once, and what is in flight for it is cancelled and
 * cleaned up behind it. They all stand in one list, which is short, with the time when to look again.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include "mount/internal.h"

#define FATAL_LOOK_MS 200 /* how often it is looked whether an interrupted program is to die */
#define GRACE_MS 2000	  /* how long a cancelled request waits for what became of it */

void p9_mreq_unlate(struct p9_mreq *r)
{
	for (struct p9_mreq **p = &r->m->late; *p; p = &(*p)->late) {
		if (*p == r) {
			*p = r->late;
			return;
		}
	}
}

static void late(struct p9_mreq *r, unsigned ms)
{
	p9_mreq_unlate(r);
	r->when = p9_mount_now() + ms;
	r->late = r->m->late;
	r->m->late = r;
}

/* Whether the program that made the request is to die of a signal: 1, 0, or -1 when that cannot be seen. */
static int dying(fuse_req_t req)
{
	char path[40], line[128];
	unsigned long long pending = 0, n;
	pid_t pid = fuse_req_ctx(req)->pid;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	FILE *f = pid > 0 ? fopen(path, "re") : NULL;
	if (!f) {
		return -1;
	}
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "SigPnd: %llx", &n) == 1 || sscanf(line, "ShdPnd: %llx", &n) == 1) {
			pending |= n;
		}
	}
	fclose(f);
	return pending >> (SIGKILL - 1) & 1; /* whatever kills a process does so by this one */
}

static void cancel_calls(struct p9_mreq *r)
{
	r->cancelling = false;
	for (unsigned i = 0; i < r->ncalls; i++) {
		struct p9_mcall *c = &r->calls[i];
		if (c->state == P9_MCALL_SENT && !c->cancelled) {
			int rc = p9_client_cancel(r->m->client, &c->call);
			c->cancelled = rc != -P9_EAGAIN;
			r->cancelling |= !c->cancelled;
		}
	}
}

/* Answers now; what is in flight is cancelled and cleaned up behind. */
static void answer_early(struct p9_mreq *r)
{
	fuse_reply_err(r->req, EINTR);
	r->req = NULL;
	cancel_calls(r);
}

static void on_interrupt(fuse_req_t req, void *data)
{
	struct p9_mreq *r = data;
	r->interrupted = true;
	if (r->op && r->op->patient) {
		cancel_calls(r);
		late(r, r->waiting ? 0 : GRACE_MS);
	} else {
		late(r, dying(req) != 0 ? 0 : FATAL_LOOK_MS);
	}
	if (dying(req) < 0 && !(r->op && r->op->patient)) {
		late(r, GRACE_MS);
	}
}

void p9_mreq_watch(struct p9_mreq *r)
{
	fuse_req_interrupt_func(r->req, on_interrupt, r);
}

void p9_mreq_later(struct p9_mreq *r, unsigned ms)
{
	r->waiting = true;
	late(r, r->interrupted ? 0 : ms);
}

/* The time of a late request has come. */
static void act(struct p9_mreq *r)
{
	if (r->waiting) {
		r->waiting = false;
		if (r->interrupted && r->op->patient) {
			p9_mreq_err(r, -P9_ECANCELED);
		} else if (r->error) {
			p9_mreq_resume(r);
		} else {
			p9_mreq_chain(r, r->op);
		}
		return;
	}
	if (!r->req) {
		return;
	}
	if (r->op->patient || dying(r->req) != 0) {
		answer_early(r);
	} else {
		late(r, FATAL_LOOK_MS);
	}
}

int p9_mount_timers(struct p9_mount *m)
{
	int wait = m->queue ? 500 : -1;
	if (!m->queue && !m->late && !m->ahead) {
		return -1;
	}
	uint64_t now = p9_mount_now();
	int ahead = p9_mahead_expire(m, now);
	p9_mount_pump(m); /* fids of what has expired */
	wait = ahead >= 0 && (wait < 0 || ahead < wait) ? ahead : wait;
	p9_mount_expire(m, now);
	for (struct p9_mreq *r = m->late; r; r = r->late) {
		if (r->interrupted && r->cancelling) {
			cancel_calls(r);
		}
	}
	struct p9_mreq *list = m->late;
	m->late = NULL;
	while (list) {
		struct p9_mreq *r = list;
		list = r->late;
		r->late = NULL;
		if (r->when <= now) {
			act(r);
			continue;
		}
		r->late = m->late;
		m->late = r;
	}
	for (struct p9_mreq *r = m->late; r; r = r->late) {
		int ms = r->when > now ? (int)(r->when - now) : 0;
		wait = wait < 0 || ms < wait ? ms : wait;
	}
	return wait;
}
