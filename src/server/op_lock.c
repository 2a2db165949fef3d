/* SPDX-License-Identifier: BSD-2-Clause */
/* op_lock.c - Tlock and Tgetlock. The backend never waits for a lock; a request with P9_LOCK_FLAGS_BLOCK that finds one
 * in the way waits here, without a thread, in the order of arrival.
 *
 * It is tried again when any lock of this server is let go, and every LOCK_POLL_MS because locks of other processes on
 * the host end without a word to us. Past lock-wait seconds, or when the connection has too many that wait, the answer
 * is status BLOCKED.
 */
#include <stdlib.h>
#include "server/internal.h"

#define LOCK_POLL_MS 50

static struct p9_lockreq lockreq(struct p9_req *r)
{
	const struct p9_tlock *m = &r->t.tlock;
	return (struct p9_lockreq){ .session = r->conn,
				    .fid = r->fid,
				    .type = m->type,
				    .proc_id = m->proc_id,
				    .client_id = m->client_id,
				    .start = m->start,
				    .length = m->length,
				    .held = &r->conn->locks_held };
}

static int lock_start(struct p9_req *r)
{
	if (r->fid->xattr) {
		return -P9_EINVAL;
	}
	return r->fid->file->be->lock ? 0 : -P9_EOPNOTSUPP;
}

/* EAGAIN has a meaning of its own here, so it becomes a status before dispatch could take it for "would block". */
static int lock_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_lockreq l = lockreq(r);
	if (!r->fid->file) {
		return -P9_EBADF; /* clunked while it waited */
	}
	int rc = r->fid->file->be->lock(c, r->fid->file, &l);
	r->r.rlock.status = rc == -P9_EAGAIN ? P9_LOCK_BLOCKED : P9_LOCK_SUCCESS;
	return rc == -P9_EAGAIN ? 0 : rc;
}

void p9_lock_arm(struct p9_shard *sh)
{
	if (sh->lock_waits && !sh->lock_timer.slot) {
		p9_timer_set(&sh->loop.timers, &sh->lock_timer, sh->loop.now + LOCK_POLL_MS);
	}
}

/* Parks the request, in the order of arrival. It stays answerable: flush and disconnect find it by its tag. */
void p9_lock_enqueue(struct p9_req *r)
{
	struct p9_shard *sh = r->conn->shard;
	struct p9_req **p = &sh->lock_waits;
	while (*p && (*p)->wait_until <= r->wait_until) {
		p = &(*p)->wait_next;
	}
	r->wait_next = *p;
	*p = r;
	r->state = REQ_WAITING;
	p9_lock_arm(sh);
}

static void unlink_wait(struct p9_req *r)
{
	for (struct p9_req **p = &r->conn->shard->lock_waits; *p; p = &(*p)->wait_next) {
		if (*p == r) {
			*p = r->wait_next;
			return;
		}
	}
}

void p9_lock_forget(struct p9_req *r)
{
	unlink_wait(r);
	if (r->wait_until) {
		r->wait_until = 0;
		r->conn->lock_waits--;
		atomic_fetch_sub(&r->conn->srv->lock_waiters, 1);
	}
}

void p9_lock_drop_fid(struct p9_conn *conn, const struct p9_fid *f)
{
	struct p9_req *r = conn->shard->lock_waits;
	while (r) {
		if (r->fid != f) {
			r = r->wait_next;
			continue;
		}
		p9_lock_forget(r);
		r->rc = -P9_EBADF;
		p9_req_finish(r);
		r = conn->shard->lock_waits; /* what ended may have ended others */
	}
}

void p9_lock_hurry(struct p9_conn *conn)
{
	struct p9_req *r = conn->shard->lock_waits;
	while (r) {
		if (r->conn != conn) {
			r = r->wait_next;
			continue;
		}
		r->wait_until = 1; /* over: done() answers BLOCKED */
		p9_req_finish(r);
		r = conn->shard->lock_waits;
	}
}

static int lock_done(struct p9_req *r)
{
	struct p9_conn *conn = r->conn;
	const struct p9_tlock *m = &r->t.tlock;
	uint64_t now = conn->shard->loop.now;
	if (r->r.rlock.status == P9_LOCK_SUCCESS) {
		if (m->type != P9_LOCK_TYPE_WRLCK) {
			p9_locks_changed(conn->srv);
		}
		return 0;
	}
	if (!(m->flags & P9_LOCK_FLAGS_BLOCK) || conn->hurried || (r->wait_until && now >= r->wait_until)) {
		return 0;
	}
	if (!r->wait_until) {
		if (conn->lock_waits >= P9_LOCKWAIT_MAX || conn->srv->conf.lock_wait == 0) {
			return 0;
		}
		r->wait_until = r->patience ? r->patience : now + 1000ull * conn->srv->conf.lock_wait;
		conn->lock_waits++;
		atomic_fetch_add(&conn->srv->lock_waiters, 1);
	}
	return P9_WAITS;
}
const struct p9_op p9_op_lock = { lock_start, lock_run, lock_done, NULL, false };

static int getlock_start(struct p9_req *r)
{
	if (r->fid->xattr) {
		return -P9_EINVAL;
	}
	if (!r->fid->file->be->getlock) {
		return -P9_EOPNOTSUPP;
	}
	r->text = malloc(UINT16_MAX);
	return r->text ? 0 : -P9_ENOMEM;
}

static int getlock_run(struct p9_req *r, struct p9_caller *c)
{
	const struct p9_tgetlock *m = &r->t.tgetlock;
	struct p9_lockreq l = { .session = r->conn,
				.fid = r->fid,
				.type = m->type,
				.proc_id = m->proc_id,
				.client_id = m->client_id,
				.start = m->start,
				.length = m->length };
	return r->fid->file->be->getlock(c, r->fid->file, &l, &r->r.rgetlock, r->text, UINT16_MAX);
}
const struct p9_op p9_op_getlock = { getlock_start, getlock_run, NULL, NULL, false };

/* ---- trying again ---- */
static void retry_all(struct p9_shard *sh)
{
	struct p9_req *list = sh->lock_waits;
	if (atomic_load(&sh->srv->freezing)) {
		return; /* they wait where they are, for us or for another process */
	}
	sh->lock_waits = NULL;
	while (list) {
		struct p9_req *r = list;
		list = r->wait_next;
		p9_req_submit(r);
	}
}

static void on_timer(struct p9_timer *t)
{
	retry_all((struct p9_shard *)((char *)t - offsetof(struct p9_shard, lock_timer)));
}

static void on_change(struct p9_job *job, struct p9_thread *self)
{
	struct p9_shard *sh = (struct p9_shard *)((char *)job - offsetof(struct p9_shard, lock_job));
	(void)self;
	atomic_store(&sh->lock_posted, false);
	retry_all(sh);
}

void p9_locks_changed(struct p9_server *srv)
{
	if (atomic_load(&srv->lock_waiters) == 0) {
		return;
	}
	for (unsigned i = 0; i < srv->nshards; i++) {
		struct p9_shard *sh = &srv->shards[i];
		if (!atomic_exchange(&sh->lock_posted, true)) {
			p9_loop_post(&sh->loop, &sh->lock_job);
		}
	}
}

void p9_lock_shard_init(struct p9_shard *sh)
{
	sh->lock_timer.fire = on_timer;
	sh->lock_job.run = on_change;
}
