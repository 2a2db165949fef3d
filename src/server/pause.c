/* SPDX-License-Identifier: BSD-2-Clause */
/* pause.c - stands the whole server still, so that one thread may look at all of it, and lets it go on.
 *
 * Called by p9d's main thread when another p9d takes over (p9_server_freeze in include/p9/server.h). While `freezing` no
 * connection takes messages (conn.c:full) and locks that wait are not tried; what runs comes home by itself. Each look
 * holds every loop inside of a posted job, where it is in the middle of nothing; when something is still at work they are
 * let go and held again a little later. A call that hangs is waited for while all others run. Must stay true: after p9_server_freeze() has said 0 no thread of the server's
 * touches a connection until p9_server_thaw(), but for closing files of connections that have ended.
 */
#include <stdio.h>
#include <time.h>
#include "base/gate.h"
#include "server/internal.h"

#define LOOK_NS 1000000
#define ENDED_MS 2000 /* closed connections whose files take longer to close are not waited for */
#define HANG_MS 3000  /* what takes longer than this may never end: nobody else stands still for it */
#define RUN_NS 20000000
#define HOLD_MS 1000 /* a loop comes at once, or is in a call that nobody can take it from */

static uint64_t now_ms(void)
{
	return p9_now_ns() / 1000000;
}

/* On the loop: what stood still goes on. */
static void thaw(struct p9_shard *sh, uint64_t paused)
{
	for (struct p9_conn *c = sh->conns; c; c = c->next) {
		c->link->handshake_by += c->link->handshake_by ? paused : 0;
		if (!c->link->broken) { /* what another process had still to send */
			c->link->ops->flush(c->link);
		}
		p9_conn_settle(c);
	}
	p9_lock_arm(sh);
}

static void on_hold(struct p9_job *job, struct p9_thread *self)
{
	struct p9_shard *sh = (struct p9_shard *)((char *)job - offsetof(struct p9_shard, hold_job));
	struct p9_hold *h = &sh->srv->hold;
	(void)self;
	p9_gate_enter(&h->gate);
	sh->hold_posted = false;
	h->held++;
	p9_gate_wake_all(&h->gate);
	while (h->holding) {
		p9_gate_wait(&h->gate);
	}
	h->held--;
	p9_gate_wake_all(&h->gate);
	bool goes_on = sh->thaw;
	uint64_t paused = h->paused;
	sh->thaw = false;
	p9_gate_leave(&h->gate);
	if (goes_on) {
		thaw(sh, paused);
	}
}

/* False: a loop does not come, and those that did wait for let_go(). Its job stays posted. */
static bool hold(struct p9_server *srv)
{
	struct p9_hold *h = &srv->hold;
	uint64_t until = now_ms() + HOLD_MS;
	p9_gate_enter(&h->gate);
	h->holding = true;
	for (unsigned i = 0; i < srv->nshards; i++) {
		struct p9_shard *sh = &srv->shards[i];
		if (!sh->hold_posted) {
			sh->hold_posted = true;
			sh->hold_job.run = on_hold;
			p9_loop_post(&sh->loop, &sh->hold_job);
		}
	}
	while (h->held < srv->nshards && now_ms() < until) {
		p9_gate_wait_ms(&h->gate, HOLD_MS);
	}
	bool all = h->held == srv->nshards;
	p9_gate_leave(&h->gate);
	return all;
}

static void let_go(struct p9_server *srv)
{
	struct p9_hold *h = &srv->hold;
	p9_gate_enter(&h->gate);
	h->holding = false;
	p9_gate_wake_all(&h->gate);
	while (h->held > 0) {
		p9_gate_wait(&h->gate);
	}
	p9_gate_leave(&h->gate);
}

/* ---- what is still at work; all loops are held ---- */
unsigned p9_conn_waiting(const struct p9_conn *c)
{
	unsigned n = 0;
	for (const struct p9_req *r = c->shard->lock_waits; r; r = r->wait_next) {
		n += r->conn == c;
	}
	return n;
}

static void name_request(const struct p9_conn *c, struct iovec why)
{
	const struct p9_req *busy = NULL;
	for (unsigned i = 0; i < TAG_BUCKETS; i++) {
		for (const struct p9_req *r = c->tags[i]; r; r = r->next) {
			bool better = r->state != REQ_WAITING && (!busy || r->state == REQ_RUNNING);
			busy = better ? r : busy;
		}
	}
	const struct p9_desc *d = busy ? p9_wire_desc(busy->type) : NULL;
	const char *what = d ? d->name : c->state != CONN_READY ? "the end of a session" : "its link";
	if (d && busy->fid) {
		snprintf(why.iov_base, why.iov_len, "%s: %s tag=%u fid=%u is still at work", c->peer.text, what,
			 busy->tag, busy->fid->id);
	} else {
		snprintf(why.iov_base, why.iov_len, "%s: %s is still at work", c->peer.text, what);
	}
}

static bool at_work(const struct p9_conn *c, bool patient)
{
	if (c->state == CONN_CLOSED) {
		return patient;
	}
	unsigned waiting = p9_conn_waiting(c);
	return c->state == CONN_RESET || c->version || c->releasing || c->inflight != waiting || !c->link->ops->quiet ||
	       !c->link->ops->quiet(c->link, waiting);
}

static bool look(struct p9_server *srv, bool patient, struct iovec why)
{
	unsigned n = 0;
	for (unsigned i = 0; i < srv->nshards; i++) {
		for (const struct p9_conn *c = srv->shards[i].conns; c; c = c->next) {
			n++;
			if (at_work(c, patient)) {
				name_request(c, why);
				return false;
			}
		}
	}
	snprintf(why.iov_base, why.iov_len, "a connection is being made");
	return n == p9_server_conns(srv); /* else one is on its way to its loop */
}

/* Whether there is a request that has been at work for long. Those that wait for a lock are not at work. */
static bool hangs(struct p9_server *srv, struct iovec why)
{
	double per_ms = (double)(p9_ticks() - srv->tick0 + 1) / (double)(p9_now_ns() - srv->ns0 + 1) * 1e6;
	uint64_t now = p9_ticks();
	for (unsigned i = 0; i < srv->nshards; i++) {
		for (const struct p9_conn *c = srv->shards[i].conns; c; c = c->next) {
			for (unsigned k = 0; k < TAG_BUCKETS && c->state != CONN_CLOSED; k++) {
				for (const struct p9_req *r = c->tags[k]; r; r = r->next) {
					if (!r->wait_until && (double)(int64_t)(now - r->began) > per_ms * HANG_MS) {
						name_request(c, why);
						return true;
					}
				}
			}
		}
	}
	return false;
}

/* All stand still only while that may be over soon. Else they run, until what hangs has ended, and for as long as they
 * stood still in vain. */
int p9_server_freeze(struct p9_server *srv, const struct p9_patience *patience, char *why, size_t cap)
{
	uint64_t begin = now_ms(), run_until = 0;
	struct iovec text = { why, cap };
	bool frozen = false;
	snprintf(why, cap, "it was given up at once");
	for (;;) {
		uint64_t now = now_ms();
		bool held = hold(srv);
		if (!held) {
			snprintf(why, cap, "a loop is in a call that hangs");
		} else if (frozen && look(srv, now - begin < ENDED_MS, text)) {
			return 0;
		}
		bool over = now - begin >= patience->ms || (patience->over && patience->over(patience->arg));
		if (frozen && (over || !held || now - srv->frozen_at >= HANG_MS)) {
			p9_server_thaw(srv);
			frozen = false;
			run_until = now + HANG_MS;
		} else if (!frozen && !over && held && !hangs(srv, text) && now >= run_until) {
			frozen = true;
			srv->frozen_at = now;
			atomic_store(&srv->freezing, true);
			let_go(srv);
			continue; /* most often all is quiet at once */
		} else {
			let_go(srv);
		}
		if (over) {
			return -P9_ETIMEDOUT;
		}
		nanosleep(&(struct timespec){ .tv_nsec = frozen ? LOOK_NS : RUN_NS }, NULL);
	}
}

/* A loop that is not held does it when it comes to what is posted. */
void p9_server_thaw(struct p9_server *srv)
{
	struct p9_hold *h = &srv->hold;
	atomic_store(&srv->freezing, false);
	p9_gate_enter(&h->gate);
	h->paused = now_ms() - srv->frozen_at;
	for (unsigned i = 0; i < srv->nshards; i++) {
		srv->shards[i].thaw = true;
	}
	p9_gate_leave(&h->gate);
	let_go(srv);
}
