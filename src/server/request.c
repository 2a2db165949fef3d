/* SPDX-License-Identifier: BSD-2-Clause */
/* request.c - the life of a request: in place, or detached from the loop.
 *
 * Nearly all requests live on the loop from frame to reply and never meet this file beyond new and free. A request is
 * detached when its call blocked (the watch took the loop away), when it is known to block, or when it must wait: then
 * it keeps its frame's bytes, has a place in the table of tags, pins its fids and holds its order on them.
 */
#include <stdlib.h>
#include <string.h>
#include "server/internal.h"

#define SLOW_NS 2000000u /* a call that takes longer makes its export one whose calls leave the loop, */
#define SLOW_CALLS 16u	 /* until so many in a row were quicker */
#define KICK_MS 10	 /* how often a call that was flushed is interrupted again */

struct p9_req *p9_req_new(struct p9_conn *conn)
{
	struct p9_shard *sh = conn->shard;
	struct p9_req *r = sh->free_reqs;
	if (r) {
		sh->free_reqs = r->next;
	} else if (!(r = malloc(sizeof(*r)))) {
		return NULL;
	}
	memset(r, 0, offsetof(struct p9_req, t));
	r->conn = conn;
	return r;
}

/* What run brought and done did not take. */
static void drop_results(struct p9_req *r)
{
	p9_node_put(r->node);
	p9_file_put(NULL, r->file);
	p9_attach_put(r->at);
	if (r->xattr) {
		atomic_fetch_sub(&r->conn->nxattr, 1);
		free(r->xattr->value);
		free(r->xattr);
	}
	free(r->text);
}

void p9_req_free(struct p9_req *r)
{
	struct p9_shard *sh = r->conn->shard;
	if (r->node || r->file || r->at || r->xattr || r->text) {
		drop_results(r);
	}
	r->next = sh->free_reqs;
	sh->free_reqs = r;
}

struct p9_req *p9_req_by_tag(const struct p9_conn *conn, uint16_t tag)
{
	struct p9_req *r = conn->tags[tag % TAG_BUCKETS];
	while (r && r->tag != tag) {
		r = r->next;
	}
	return r;
}

static void count_order(struct p9_req *r, int by)
{
	if (r->fid && p9_req_order(r) == P9_ORDER_write) {
		r->fid->writers += (unsigned)by;
	} else if (r->fid) {
		r->fid->readers += (unsigned)by;
	}
	if (r->fid2 && !r->want_new) { /* the second fid is used, not changed */
		r->fid2->readers += (unsigned)by;
	}
}

/* A place for the fid that will be made, so that nobody else takes the number meanwhile. */
static void hold_new_fid(struct p9_req *r)
{
	struct p9_fid *f;
	if (p9_fid_add(r->conn, r->new_id, &f) < 0) {
		return; /* p9_fid_place tries again and reports it */
	}
	f->unborn = true;
	f->pins = 1;
	f->writers = 1;
	r->fid2 = f;
}

void p9_req_detach(struct p9_req *r)
{
	struct p9_conn *conn = r->conn;
	if (r->detached) {
		return;
	}
	r->detached = true;
	if (r->bytes) {
		p9_buf_ref(r->bytes);
	}
	if (r->has_room) {
		p9_link_of(conn)->ops->keep(p9_link_of(conn), &r->room);
	}
	r->next = conn->tags[r->tag % TAG_BUCKETS];
	conn->tags[r->tag % TAG_BUCKETS] = r;
	conn->inflight++;
	if (r->fid) {
		r->fid->pins++;
	}
	if (r->fid2) {
		r->fid2->pins++;
	}
}

/* The request begins to work (it is detached): takes its order on the fid. */
static void hold(struct p9_req *r)
{
	if (r->holds) {
		return;
	}
	r->holds = true;
	count_order(r, 1);
	if (r->want_new && !r->fid2) {
		hold_new_fid(r);
	}
}

void p9_req_unlink(struct p9_req *r)
{
	struct p9_conn *conn = r->conn;
	struct p9_req **p = &conn->tags[r->tag % TAG_BUCKETS];
	while (*p && *p != r) {
		p = &(*p)->next;
	}
	if (*p) {
		*p = r->next;
		conn->inflight--;
	}
}

static void unpin(struct p9_conn *conn, struct p9_fid *f)
{
	if (f) {
		f->pins--;
		p9_fid_next(conn, f);
	}
}

static void let_go(struct p9_req *r)
{
	struct p9_fid *f = r->fid, *f2 = r->fid2;
	if (r->holds) {
		count_order(r, -1);
	}
	if (f2 && r->want_new && r->holds) {
		f2->writers--;
		if (f2->unborn) { /* it was not to be */
			f2->unborn = false;
			p9_fid_remove(r->conn, f2);
		}
	}
	r->fid = r->fid2 = NULL;
	unpin(r->conn, f);
	unpin(r->conn, f2);
}

static void answer_flushes(struct p9_req *r)
{
	while (r->flush_head) {
		struct p9_req *f = r->flush_head;
		r->flush_head = f->flush_next;
		f->rc = 0;
		p9_req_finish(f);
	}
}

/* It waits on: without its order on the fid, for what it waits for may come over the same fid. */
static void park(struct p9_req *r)
{
	struct p9_fid *f = r->fid;
	struct p9_conn *conn = r->conn;
	bool held = r->holds;
	p9_req_detach(r);
	if (held) {
		r->holds = false;
		count_order(r, -1);
	}
	p9_lock_enqueue(r);
	if (held) {
		p9_fid_next(conn, f); /* may end r: a Tclunk of its fid may be next */
	}
}

static void end(struct p9_req *r);

static void file_dropped(struct p9_job *job, struct p9_thread *self)
{
	(void)self;
	p9_req_finish((struct p9_req *)((char *)job - offsetof(struct p9_req, job)));
}

static void drop_on_worker(struct p9_job *job, struct p9_thread *self)
{
	struct p9_req *r = (struct p9_req *)((char *)job - offsetof(struct p9_req, job));
	(void)self;
	p9_file_put(NULL, r->file);
	r->file = NULL;
	job->run = file_dropped;
	p9_loop_post(&r->conn->shard->loop, job);
}

/* A file was opened for nobody (the link has gone meanwhile). Closing it may block: not on the loop. */
static void drop_file(struct p9_req *r)
{
	r->state = REQ_RUNNING;
	r->job.run = drop_on_worker;
	p9_crew_submit(&r->conn->srv->crew, r->vol ? &r->vol->lane : &r->conn->srv->admin, &r->job);
}

/* Whatever the link keeps for the reply, it may have back. */
static void no_reply(struct p9_req *r)
{
	struct p9_link *l = p9_link_of(r->conn);
	if (r->has_room && r->detached) {
		l->ops->send_room(l, &r->room, 0);
	}
	if (l->ops->no_reply) {
		l->ops->no_reply(l, r->ticket);
	}
}

void p9_req_finish(struct p9_req *r)
{
	struct p9_conn *conn = r->conn;
	bool live = conn->state == CONN_READY || conn->state == CONN_NEW;
	if (r->rc >= 0 && r->op && r->op->done && live && !r->dropped) {
		r->rc = r->op->done(r);
	}
	if (r->detached && r->file) {
		drop_file(r); /* then back here: the tag must be free when the reply goes */
		return;
	}
	if (r->rc == P9_WAITS && !atomic_load(&r->cancel)) {
		park(r);
		return;
	}
	if (r->wait_until) {
		p9_lock_forget(r);
	}
	if (atomic_load(&r->cancel) && (r->rc == -P9_EINTR || r->rc == P9_WAITS)) {
		r->dropped = true; /* flushed, and nothing has happened */
	}
	if (live && !r->dropped) {
		p9_reply(r);
	} else {
		no_reply(r);
	}
	p9_stat_count(r, r->rc);
	end(r);
}

static void end(struct p9_req *r)
{
	struct p9_conn *conn = r->conn;
	if (!r->detached) {
		if (r->fid && r->fid->gone && r->fid->pins == 0) { /* clunked in place */
			p9_fid_free(conn, r->fid);
		}
		p9_req_free(r);
		return;
	}
	p9_req_unlink(r);
	let_go(r);
	answer_flushes(r);
	p9_buf_put(&conn->shard->loop.pool, r->bytes);
	p9_req_free(r);
	p9_link_of(conn)->ops->flush(p9_link_of(conn));
	p9_conn_settle(conn);
}

/* ---- on a worker and back ---- */
static void on_loop(struct p9_job *job, struct p9_thread *self)
{
	struct p9_req *r = (struct p9_req *)((char *)job - offsetof(struct p9_req, job));
	(void)self;
	if (r->rc == -P9_EAGAIN && !r->blocking && r->op->again && !atomic_load(&r->cancel)) {
		p9_req_again(r);
	} else {
		p9_req_finish(r);
	}
}

static void on_worker(struct p9_job *job, struct p9_thread *self)
{
	struct p9_req *r = (struct p9_req *)((char *)job - offsetof(struct p9_req, job));
	struct p9_loop *loop = &r->conn->shard->loop;
	struct p9_volume *vol = r->vol;
	uint64_t from = p9_now_ns();
	atomic_store(&r->thread, self);
	p9_req_run(r, &self->ident);
	atomic_store(&r->thread, NULL);
	if (vol && !r->apart && p9_now_ns() - from > SLOW_NS) {
		atomic_store_explicit(&vol->slow, SLOW_CALLS, memory_order_relaxed);
	} else if (vol && atomic_load_explicit(&vol->slow, memory_order_relaxed) > 0) {
		atomic_fetch_sub_explicit(&vol->slow, 1, memory_order_relaxed);
	}
	r->job.run = on_loop;
	p9_loop_post(loop, &r->job);
}

/* The call came back, but the loop has gone to another thread meanwhile. */
void p9_req_come_back(struct p9_req *r)
{
	atomic_store(&r->thread, NULL);
	r->job.run = on_loop;
	p9_loop_post(&r->conn->shard->loop, &r->job);
}

static void submit(struct p9_req *r, struct p9_lane *lane, bool blocking)
{
	p9_req_detach(r);
	hold(r);
	r->state = REQ_SUBMITTED;
	r->blocking = blocking;
	r->job.run = on_worker;
	p9_crew_submit(&r->conn->srv->crew, lane, &r->job);
}

void p9_req_submit(struct p9_req *r)
{
	submit(r, r->vol ? &r->vol->lane : &r->conn->srv->admin, true);
}

void p9_req_submit_copy(struct p9_req *r)
{
	submit(r, &r->conn->srv->copies, false);
}

void p9_req_again(struct p9_req *r)
{
	int rc = r->op->again(r);
	if (rc < 0) {
		r->rc = rc;
		p9_req_finish(r);
	} else {
		p9_req_submit(r);
	}
}

/* The loop was taken over while this request was in its call. */
void p9_req_was_stuck(struct p9_req *r)
{
	struct p9_volume *vol = r->vol;
	p9_req_detach(r);
	hold(r);
	r->state = REQ_RUNNING;
	if (vol) {
		atomic_store_explicit(&vol->slow, SLOW_CALLS, memory_order_relaxed);
	}
}

/* ---- cancelling ---- */
static void drop(struct p9_req *r)
{
	r->dropped = true;
	r->rc = -P9_EINTR;
	p9_req_finish(r);
}

static void unqueue(struct p9_req *r)
{
	struct p9_fid *fids[2] = { r->fid, r->fid2 };
	for (int i = 0; i < 2; i++) {
		struct p9_req *prev = NULL;
		for (struct p9_req *q = fids[i] ? fids[i]->wait_head : NULL; q; prev = q, q = q->wait_next) {
			if (q != r) {
				continue;
			}
			*(prev ? &prev->wait_next : &fids[i]->wait_head) = q->wait_next;
			if (fids[i]->wait_tail == q) {
				fids[i]->wait_tail = prev;
			}
			return;
		}
	}
}

static bool kick(struct p9_req *r)
{
	struct p9_thread *t = atomic_load(&r->thread);
	if (t) {
		p9_thread_kick(t);
	}
	return t != NULL;
}

void p9_req_cancel(struct p9_req *r)
{
	struct p9_shard *sh = r->conn->shard;
	if (r->op && r->op->must_run) {
		return;
	}
	switch (r->state) {
	case REQ_QUEUED:
		unqueue(r);
		drop(r);
		break;
	case REQ_WAITING:
		p9_lock_forget(r);
		drop(r);
		break;
	case REQ_SUBMITTED:
		if (p9_crew_cancel(&r->conn->srv->crew, &r->job)) {
			drop(r);
			break;
		}
		/* fall through */
	case REQ_RUNNING:
		atomic_store(&r->cancel, true);
		kick(r);
		p9_timer_set(&sh->loop.timers, &sh->flush_timer, sh->loop.now + KICK_MS);
		break;
	default:
		break; /* a Tflush waits for what it flushes */
	}
}

/* A signal can come just before the call that it should interrupt: send it again until the call has ended. */
void p9_flush_timer_fired(struct p9_timer *t)
{
	struct p9_shard *sh = (struct p9_shard *)((char *)t - offsetof(struct p9_shard, flush_timer));
	bool again = false;
	for (struct p9_conn *c = sh->conns; c; c = c->next) {
		for (unsigned i = 0; i < TAG_BUCKETS && c->inflight; i++) {
			for (struct p9_req *r = c->tags[i]; r; r = r->next) {
				if (atomic_load_explicit(&r->cancel, memory_order_relaxed)) {
					again |= kick(r);
				}
			}
		}
	}
	if (again) {
		p9_timer_set(&sh->loop.timers, t, sh->loop.now + KICK_MS);
	}
}
