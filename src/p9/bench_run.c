/* SPDX-License-Identifier: BSD-2-Clause */
/* bench_run.c - the loop of `p9 bench`: keeps `depth` chains going on every connection and counts what they did.
 *
 * One thread. A round takes in what one recv brings, moves every chain whose reply is there to its next request, and
 * sends all those requests in one writev; the clock is read once per round. No allocation. The times that are counted
 * lie between begin and end: what started before begin warms up, what is under way at the end is waited for and not
 * counted. A chain that failed goes to the step that gives its fid back and is counted as an error, not as an op.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/bench.h"

enum { ERRORS_MAX = 1000, REPLY_HEAD = 11, EVENTS = 64 };

volatile bool bench_stopped;

static void send_step(struct bench_run *r, struct bench_conn *c, struct bench_slot *s)
{
	const struct bench_load *l = r->load;
	const struct bench_step *step = &l->steps[s->step];
	if (step->patch != NULL) {
		step->patch(r, c, s, s->frame[s->step]);
	}
	uint32_t payload = 0;
	if (s->step + 1u == l->payload_step) {
		payload = l->payload != 0 ? l->payload : bench_chunk(c);
	}
	bench_queue(c, s, payload);
}

/* Begins another chain on an idle slot, unless the run is over. */
static void start_chain(struct bench_run *r, struct bench_conn *c, struct bench_slot *s)
{
	s->step = 0;
	s->failed = false;
	s->busy = r->todo > 0;
	if (!s->busy) {
		return;
	}
	r->todo--;
	s->item = r->issued++;
	r->active++;
	s->start = r->now;
	send_step(r, c, s);
}

static void end_chain(struct bench_run *r, struct bench_conn *c, struct bench_slot *s)
{
	if (!s->failed && r->measuring) {
		r->tally.ops++;
		bench_hist_add(&r->hist, r->now - s->start);
	}
	r->active--;
	start_chain(r, c, s);
}

static void fail_chain(struct bench_run *r, const struct bench_slot *s, const uint8_t *frame, int rc)
{
	if (s->failed) {
		return;
	}
	if (r->tally.errors++ == 0) {
		r->tally.ecode = (uint32_t)-rc;
		r->tally.failed = p9_wire_desc(s->frame[s->step][4])->name;
	}
	if (r->tally.errors >= ERRORS_MAX) {
		r->todo = 0;
	}
}

/* A step is over, with 0, 1 (once more) or an error. */
static void step_over(struct bench_run *r, struct bench_conn *c, struct bench_slot *s, int rc)
{
	const struct bench_load *l = r->load;
	unsigned next = rc == 1 ? s->step : s->step + 1u;
	if (rc < 0) {
		if (s->step == 0) {
			next = l->nsteps; /* no fid yet */
		} else if (s->step < l->undo) {
			next = l->undo;
		}
		s->failed = true;
	}
	if (next >= l->nsteps) {
		end_chain(r, c, s);
		return;
	}
	s->step = (uint8_t)next;
	send_step(r, c, s);
}

/* Looks at one reply, of which `have` bytes of `len` are in the buffer. Returns 0, or -P9_EPROTO. */
static int take_reply(struct bench_run *r, struct bench_conn *c, const uint8_t *frame, uint32_t len, uint32_t have)
{
	uint16_t tag = p9_get16(frame + 5);
	struct bench_slot *s = tag < c->nslots ? &c->slots[tag] : NULL;
	if (s == NULL || !s->busy) {
		return -P9_EPROTO;
	}
	const struct bench_step *step = &r->load->steps[s->step];
	int rc = 0;
	if (frame[4] == P9_Rlerror && len == P9_RLERRORSZ) {
		rc = -(int)p9_get32(frame + 7);
	} else if (frame[4] != s->frame[s->step][4] + 1) {
		return -P9_EPROTO;
	} else if (step->done != NULL) {
		rc = step->done(r, c, s, frame, len);
	}
	if (rc < 0) {
		fail_chain(r, s, frame, rc);
		s->failed = true;
	}
	if (have < len) {
		c->skip = len - have;
		c->skip_for = s;
		return 0;
	}
	step_over(r, c, s, rc);
	return 0;
}

/* True if the rest of this reply may be dropped unseen. */
static bool drops(const struct bench_run *r, const struct bench_conn *c, const uint8_t *frame)
{
	uint16_t tag = p9_get16(frame + 5);
	return frame[4] == P9_Rread && tag < c->nslots && r->load->steps[c->slots[tag].step].drops;
}

/* Drops payload that is of no interest; its reply counts when the last byte of it is here. */
static void take_skipped(struct bench_run *r, struct bench_conn *c)
{
	size_t have = c->inend - c->inpos;
	size_t part = have < c->skip ? have : c->skip;
	c->inpos += part;
	c->skip -= (uint32_t)part;
	if (c->skip == 0 && c->skip_for != NULL) {
		struct bench_slot *s = c->skip_for;
		c->skip_for = NULL;
		step_over(r, c, s, s->failed ? -P9_EIO : 0);
	}
}

/* Takes all replies out of the buffer. */
static int take_replies(struct bench_run *r, struct bench_conn *c)
{
	take_skipped(r, c);
	while (c->inend - c->inpos >= P9_HDRSZ && c->skip == 0) {
		const uint8_t *frame = c->inbuf + c->inpos;
		uint32_t len = p9_get32(frame);
		size_t have = c->inend - c->inpos;
		if (len < P9_HDRSZ || len > c->msize) {
			return -P9_EPROTO;
		}
		if (have < len && !(have >= REPLY_HEAD && drops(r, c, frame))) {
			return 0;
		}
		uint32_t part = have < len ? (uint32_t)have : len;
		c->inpos += part;
		int rc = take_reply(r, c, frame, len, part);
		if (rc < 0) {
			return rc;
		}
	}
	return 0;
}

/* Begins and ends the time that counts. */
static void watch_clock(struct bench_run *r)
{
	r->now = bench_now();
	if (bench_stopped) {
		r->todo = 0;
	}
	if (r->end == 0) {
		return;
	}
	if (!r->measuring && r->todo > 0 && r->now >= r->begin) {
		r->measuring = true;
		r->begin = r->now;
		r->server_ns = bench_cpu(r->pid);
		r->client_ns = bench_cpu(0);
	}
	if (r->measuring && (r->now >= r->end || r->todo == 0)) {
		r->measuring = false;
		r->todo = 0;
		int64_t server = r->pid != 0 ? bench_cpu(r->pid) : -1;
		r->server_ns = server < 0 || r->server_ns < 0 ? -1 : server - r->server_ns;
		r->client_ns = bench_cpu(0) - r->client_ns;
		r->secs = (double)(r->now - r->begin) / 1e9;
	}
}

static bool front_drops(const void *arg, const struct bench_conn *c, const uint8_t *frame)
{
	return drops(arg, c, frame);
}

/* A round over vhost-user: whole replies, one by one. */
static int take_front(struct bench_run *r, struct bench_conn *c)
{
	int len, rc = 0;
	bench_front_wait(c, r->nconns > 1 ? 0 : 1000);
	watch_clock(r);
	while (rc == 0 && (len = bench_front_next(c, front_drops, r)) != 0) {
		rc = len < 0 ? len : take_reply(r, c, c->inbuf, (uint32_t)len, (uint32_t)len);
		if (len > 0 && rc < 0) {
			snprintf(c->err, sizeof(c->err), "the server sent a malformed or unasked reply");
		}
	}
	return rc;
}

/* One round on a connection. */
static int pump(struct bench_run *r, struct bench_conn *c)
{
	int rc = 0;
	if (c->front != NULL) {
		rc = take_front(r, c);
	} else if (!c->waiting) {
		rc = bench_fill(c);
		watch_clock(r);
		if (rc > 0) {
			rc = take_replies(r, c);
			if (rc < 0) {
				snprintf(c->err, sizeof(c->err), "the server sent a malformed or unasked reply");
			}
		}
	}
	if (rc >= 0) {
		rc = bench_flush(c);
	}
	if (rc < 0) {
		memcpy(r->err, c->err, sizeof(r->err));
	}
	return rc;
}

struct events {
	struct epoll_event ev[EVENTS];
	int ep, n;
};

static bool has_events(void *arg)
{
	struct events *e = arg;
	e->n = epoll_wait(e->ep, e->ev, EVENTS, 0);
	return e->n != 0;
}

static void wait_many(struct bench_run *r, struct events *e, int ms)
{
	if (r->how != BENCH_LOOK || ms == 0 || !p9_spin_look(&r->spin, has_events, e)) {
		e->n = epoll_wait(e->ep, e->ev, EVENTS, ms);
		p9_spin_slept(&r->spin);
	}
}

/* More than one connection: rounds where epoll says that something can be done. */
static int pump_many(struct bench_run *r, int ep)
{
	struct events e;
	e.ep = ep;
	int ms = r->how == BENCH_POLL ? 0 : 1000;
	for (unsigned i = 0; i < r->nconns; i++) { /* what a device has said already, it does not say again */
		struct bench_conn *c = &r->conns[i];
		if (c->front != NULL && bench_front_arm(c)) {
			int rc = pump(r, c);
			if (rc < 0) {
				return rc;
			}
			ms = 0;
		}
	}
	wait_many(r, &e, ms);
	if (e.n < 0 && errno != EINTR) {
		return -p9_hosterr(errno);
	}
	for (int i = 0; i < e.n; i++) {
		struct bench_conn *c = e.ev[i].data.ptr;
		bool waited = c->waiting;
		int rc = 0;
		if (waited) {
			rc = bench_flush(c);
		}
		if (rc == 0 && !c->waiting) {
			rc = pump(r, c);
		}
		if (rc < 0) {
			return rc;
		}
		if (waited != c->waiting) {
			struct epoll_event want = { .events = c->waiting ? EPOLLOUT : EPOLLIN, .data.ptr = c };
			epoll_ctl(ep, EPOLL_CTL_MOD, c->in, &want);
		}
	}
	return 0;
}

static void set_blocking(struct bench_run *r, int ep, bool blocking)
{
	for (unsigned i = 0; i < r->nconns && r->nconns > 1; i++) {
		struct bench_conn *c = &r->conns[i];
		int flags = fcntl(c->in, F_GETFL);
		fcntl(c->in, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
		struct epoll_event e = { .events = c->waiting ? EPOLLOUT : EPOLLIN, .data.ptr = c };
		epoll_ctl(ep, blocking ? EPOLL_CTL_DEL : EPOLL_CTL_ADD, c->in, &e);
	}
}

static int start_all(struct bench_run *r)
{
	int rc = 0;
	for (unsigned i = 0; i < r->nconns && rc == 0; i++) {
		struct bench_conn *c = &r->conns[i];
		for (unsigned k = 0; k < r->depth; k++) {
			start_chain(r, c, &c->slots[k]);
		}
		rc = bench_flush(c);
		if (rc < 0) {
			memcpy(r->err, c->err, sizeof(r->err));
		}
	}
	return rc;
}

int bench_run(struct bench_run *r, const struct bench_load *load, uint64_t count, double secs)
{
	if (r->by_remove && load->by_remove != NULL) {
		load = bench_load_find(load->by_remove);
	}
	r->load = load;
	r->todo = count > 0 ? count : UINT64_MAX;
	r->issued = 0;
	r->active = 0;
	r->measuring = count > 0;
	memset(&r->tally, 0, sizeof(r->tally));
	memset(&r->hist, 0, sizeof(r->hist));
	for (unsigned i = 0; i < r->nconns; i++) {
		bench_arm(&r->conns[i], load);
		r->conns[i].inpos = r->conns[i].inend = 0;
	}
	r->now = bench_now();
	double warm = secs * 0.15 < 0.5 ? secs * 0.15 : 0.5;
	r->begin = r->now + (uint64_t)(warm * 1e9);
	r->end = count > 0 ? 0 : r->begin + (uint64_t)(secs * 1e9);
	int ep = r->nconns > 1 ? epoll_create1(EPOLL_CLOEXEC) : -1;
	int rc = start_all(r);
	set_blocking(r, ep, false);
	for (unsigned i = 0; i < r->nconns; i++) {
		struct bench_conn *c = &r->conns[i];
		c->how = r->nconns == 1 ? r->how : BENCH_SLEEP; /* pump_many() has waited */
	}
	while (rc >= 0 && r->active > 0) {
		rc = r->nconns > 1 ? pump_many(r, ep) : pump(r, &r->conns[0]);
	}
	set_blocking(r, ep, true);
	if (ep >= 0) {
		close(ep);
	}
	return rc < 0 ? rc : 0;
}
