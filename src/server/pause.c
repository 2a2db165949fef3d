/* SPDX-License-Identifier: BSD-2-Clause */
/* pause.c - stands the whole server still, so that one thread may look at all of it, and lets it go on.
 *
 * Called by p9d's main thread when another p9d takes over (p9_server_freeze in include/p9/server.h). While `freezing` no
 * connection takes messages (conn.c:full) and locks that wait are not tried; what runs comes home by itself. Each look
 * holds every loop inside of a posted job, where it is in the middle of nothing; when something is still at work they are
 * let go and held again a little later. Must stay true: after p9_server_freeze() has said 0 no thread of the server's
 * touches a connection until p9_server_thaw(), but for closing files of connections that have ended.
 */
#include <stdio.h>
#include <time.h>
#include "base/gate.h"
#include "server/internal.h"

#define LOOK_NS 1000000
#define ENDED_MS 2000 /* closed connections whose files take longer to close are not waited for */

static void on_hold(struct p9_job *job, struct p9_thread *self)
{
	struct p9_shard *sh = (struct p9_shard *)((char *)job - offsetof(struct p9_shard, hold_job));
	struct p9_hold *h = &sh->srv->hold;
	(void)self;
	p9_gate_enter(&h->gate);
	h->held++;
	p9_gate_wake_all(&h->gate);
	while (h->holding) {
		p9_gate_wait(&h->gate);
	}
	h->held--;
	p9_gate_wake_all(&h->gate);
	p9_gate_leave(&h->gate);
}

static void wait_held(struct p9_hold *h, unsigned n)
{
	while (h->held != n) {
		p9_gate_wait(&h->gate);
	}
}

static void hold(struct p9_server *srv)
{
	struct p9_hold *h = &srv->hold;
	p9_gate_enter(&h->gate);
	h->holding = true;
	p9_gate_leave(&h->gate);
	for (unsigned i = 0; i < srv->nshards; i++) {
		srv->shards[i].hold_job.run = on_hold;
		p9_loop_post(&srv->shards[i].loop, &srv->shards[i].hold_job);
	}
	p9_gate_enter(&h->gate);
	wait_held(h, srv->nshards);
	p9_gate_leave(&h->gate);
}

static void let_go(struct p9_server *srv)
{
	struct p9_hold *h = &srv->hold;
	p9_gate_enter(&h->gate);
	h->holding = false;
	p9_gate_wake_all(&h->gate);
	wait_held(h, 0);
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

int p9_server_freeze(struct p9_server *srv, const struct p9_patience *patience, char *why, size_t cap)
{
	uint64_t begin = p9_now_ns(), waited = 0;
	atomic_store(&srv->freezing, true);
	srv->frozen_at = begin / 1000000;
	for (;;) {
		hold(srv);
		if (look(srv, waited < ENDED_MS, (struct iovec){ why, cap })) {
			return 0;
		}
		if (waited >= patience->ms || (patience->over && patience->over(patience->arg))) {
			p9_server_thaw(srv);
			return -P9_ETIMEDOUT;
		}
		let_go(srv);
		nanosleep(&(struct timespec){ .tv_nsec = LOOK_NS }, NULL);
		waited = (p9_now_ns() - begin) / 1000000;
	}
}

void p9_server_thaw(struct p9_server *srv)
{
	uint64_t paused = p9_now_ns() / 1000000 - srv->frozen_at;
	atomic_store(&srv->freezing, false);
	for (unsigned i = 0; i < srv->nshards; i++) {
		struct p9_shard *sh = &srv->shards[i];
		for (struct p9_conn *c = sh->conns; c; c = c->next) {
			c->link->handshake_by += c->link->handshake_by ? paused : 0;
			if (!c->link->broken) { /* what another process had still to send */
				c->link->ops->flush(c->link);
			}
			p9_conn_settle(c);
		}
		p9_lock_arm(sh);
	}
	let_go(srv);
}
