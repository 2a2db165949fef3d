/* SPDX-License-Identifier: BSD-2-Clause */
/* conn.c - one connection: messages in, sessions begun and ended.
 *
 * A session ends with the connection or with the next Tversion. Either way: no new messages are taken, what runs is
 * cancelled, and when the last request has come home its fids are released on a worker, for closing files may block.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "server/internal.h"

#define CONN(l) ((struct p9_conn *)(l)->owner)

static bool full(struct p9_link *l)
{
	struct p9_conn *c = CONN(l);
	return c->state >= CONN_RESET || atomic_load_explicit(&c->srv->freezing, memory_order_relaxed) ||
	       c->inflight >= P9_INFLIGHT_MAX || l->queued >= (size_t)P9_OUTQ_MSIZES * c->msize;
}

static int malformed(struct p9_conn *c, struct p9_req *r, int rc)
{
	if (++c->bad >= P9_BADMSG_MAX) {
		p9_req_free(r);
		p9_log_some(&c->srv->complaints, P9_LOG_WARN, "%s: too many malformed requests", c->peer.text);
		return -P9_EPROTO;
	}
	r->rc = rc;
	p9_req_finish(r);
	return 0;
}

/* Rules that hold before anything is looked up. Returns 0 to go on, 1 when the answer was given, < 0 to close. */
static int session_rules(struct p9_conn *c, struct p9_req *r)
{
	if (r->type == P9_Tversion) {
		return 0;
	}
	if (c->state == CONN_NEW) {
		/* a guest that does not know that its device, or we, began anew: let it fail, not act on another's fids */
		r->rc = c->link->lasting ? -P9_ESTALE : -P9_EPROTO;
		p9_req_finish(r);
		return c->link->lasting ? 1 : -P9_EPROTO;
	}
	if (r->tag == P9_NOTAG) {
		r->rc = -P9_EINVAL;
		p9_req_finish(r);
		return 1;
	}
	if (c->inflight && p9_req_by_tag(c, r->tag)) {
		r->rc = -P9_EINVAL;
		p9_req_finish(r);
		return ++c->same_tags > 1 ? -P9_EPROTO : 1; /* the tag is ambiguous: once is forgiven */
	}
	return 0;
}

/* Requests that waited come first again when another process had the connection, and are to be known by their tags. */
static uint64_t patience_of(struct p9_conn *c, uint16_t tag)
{
	for (unsigned i = 0; i < c->nagain; i++) {
		if (c->again[i].tag == tag) {
			uint64_t until = c->again[i].until;
			c->again[i] = c->again[--c->nagain];
			return until;
		}
	}
	return 0;
}

static int on_frame(struct p9_link *l, const struct p9_frame *f)
{
	struct p9_conn *c = CONN(l);
	struct p9_req *r = p9_req_new(c);
	if (!r) {
		return -P9_ENOMEM;
	}
	int rc = p9_wire_decode(f->head, f->len, f->elsewhere, &r->t);
	c->hurried = false;
	r->type = r->t.type;
	r->tag = r->t.tag;
	r->patience = c->nagain ? patience_of(c, r->tag) : 0;
	r->bytes = f->owner;
	r->ticket = f->ticket;
	r->payload = f->payload;
	r->npayload = f->npayload;
	r->began = c->shard->last_tick ? c->shard->last_tick : p9_ticks();
	c->requests++;
	c->shard->loop.batch++;
	if (p9_rules[r->type].is_reply) {
		p9_req_free(r);
		return -P9_EPROTO;
	}
	if (c->srv->conf.trace && rc == 0) {
		p9_trace(c, '<', &r->t);
	}
	if (rc == -P9_EPROTO) {
		r->t.type = 0; /* what was decoded of it is not to be shown */
		return c->state == CONN_NEW ? (r->rc = rc, p9_req_finish(r), rc) : malformed(c, r, rc);
	}
	int done = session_rules(c, r);
	if (done != 0) {
		return done < 0 ? done : 0;
	}
	rc = rc < 0 ? rc : p9_wire_check(&r->t);
	if (rc < 0) {
		r->rc = rc;
		p9_req_finish(r);
		return 0;
	}
	return p9_dispatch(r);
}

/* ---- ends ---- */
static void release_job(struct p9_job *job, struct p9_thread *self);
static void released_some(struct p9_job *job, struct p9_thread *self);
static void release_next(struct p9_conn *c);
static void released(struct p9_conn *c);

/* On the loop, from a posted job: whoever saw the session end may still be looking at it. */
static void begin_release(struct p9_job *job, struct p9_thread *self)
{
	struct p9_conn *c = (struct p9_conn *)((char *)job - offsetof(struct p9_conn, job));
	struct p9_fid *list = NULL;
	(void)self;
	for (uint32_t i = 0; i < c->fids.cap; i++) {
		struct p9_fid *f = p9_fid_slot(&c->fids, i);
		if (f) {
			f->next = list;
			list = f;
		}
	}
	free(c->fids.slot);
	c->fids = (struct p9_fidtab){ 0 };
	c->doomed = list;
	release_next(c);
}

static struct p9_volume *volume_of(const struct p9_fid *f)
{
	return f->at && f->node ? p9_volume_of(f->at->ex, f->node) : NULL;
}

/* One file system after the other, each on its own lane: a file system that hangs holds up nobody but who used it. */
static void release_next(struct p9_conn *c)
{
	struct p9_fid *f = c->doomed;
	while (f && !f->at && !f->node && !f->file && !f->xattr) {
		f = f->next;
	}
	if (!f) {
		released(c);
		return;
	}
	c->release_for = volume_of(f);
	c->job.run = release_job;
	p9_crew_submit(&c->srv->crew, c->release_for ? &c->release_for->lane : &c->srv->admin, &c->job);
}

static void release_job(struct p9_job *job, struct p9_thread *self)
{
	struct p9_conn *c = (struct p9_conn *)((char *)job - offsetof(struct p9_conn, job));
	static const _Atomic bool never = false;
	struct p9_caller call = { NULL, &self->ident, &never };
	for (struct p9_fid *f = c->doomed; f; f = f->next) {
		if (volume_of(f) == c->release_for) {
			p9_fid_release(c, f, &call);
		}
	}
	job->run = released_some;
	p9_loop_post(&c->shard->loop, job);
}

static void released_some(struct p9_job *job, struct p9_thread *self)
{
	(void)self;
	release_next((struct p9_conn *)((char *)job - offsetof(struct p9_conn, job)));
}

/* The old session is gone: answer the Tversion that ended it, or free the connection. */
static void released(struct p9_conn *c)
{
	while (c->doomed) {
		struct p9_fid *f = c->doomed;
		c->doomed = f->next;
		p9_fid_free(c, f);
	}
	c->releasing = false;
	if (c->state == CONN_CLOSED) {
		p9_conn_free(c);
		return;
	}
	struct p9_req *r = c->version;
	c->version = NULL;
	if (!r) { /* the device was reset */
		c->state = CONN_NEW;
		p9_conn_settle(c);
		return;
	}
	c->state = CONN_READY;
	r->rc = 0;
	p9_req_finish(r);
	p9_link_of(c)->ops->flush(p9_link_of(c));
	p9_conn_settle(c);
}

static void cancel_all(struct p9_conn *c)
{
	/* a cancel may finish its request, and others with it: begin again after each that did */
	for (unsigned i = 0; i < TAG_BUCKETS && c->inflight;) {
		struct p9_req *r = c->tags[i];
		while (r && (r->cancel || r->state == REQ_FLUSHING || r->op->must_run)) {
			r = r->next;
		}
		if (!r) {
			i++;
			continue;
		}
		p9_req_cancel(r);
	}
}

void p9_conn_reset(struct p9_conn *c)
{
	c->state = CONN_RESET;
	c->attached = false;
	cancel_all(c);
	p9_conn_settle(c);
}

void p9_conn_settle(struct p9_conn *c)
{
	if (c->state == CONN_RESET || c->state == CONN_CLOSED) {
		if (c->inflight == 0 && !c->releasing) {
			c->releasing = true;
			c->job.run = begin_release;
			p9_loop_post(&c->shard->loop, &c->job);
		}
		return;
	}
	if (!c->resuming && !c->link->reading && !c->link->busy && !full(p9_link_of(c))) {
		c->resuming = true;
		c->resume_next = c->shard->resume;
		c->shard->resume = c;
	}
}

static void unresume(struct p9_conn *c)
{
	for (struct p9_conn **p = &c->shard->resume; *p; p = &(*p)->resume_next) {
		if (*p == c) {
			*p = c->resume_next;
			break;
		}
	}
	c->resuming = false;
}

/* Connections that stood still go on, where a call may take the loop away: at the end of a round. */
static int after(struct p9_loop *loop)
{
	struct p9_shard *sh = loop->owner;
	sh->last_tick = 0;
	while (sh->resume) {
		struct p9_conn *c = sh->resume;
		unresume(c);
		if (p9_link_of(c)->ops->process(p9_link_of(c)) == P9_LOST) {
			return P9_LOST;
		}
	}
	return 0;
}

void p9_conn_end(struct p9_conn *c, int why, const char *text)
{
	if (c->state == CONN_CLOSED) {
		return;
	}
	if (why < 0 && why != -P9_ECONNRESET && why != -P9_EPIPE) {
		p9_log_some(&c->srv->complaints, P9_LOG_WARN, "%s: link closed: %s (%s)", c->peer.text, text,
			    p9_error_name((uint32_t)-why));
	} else {
		p9_log_some(&c->srv->comings, P9_LOG_INFO, "%s: %s after %llu requests", c->peer.text, text,
			    (unsigned long long)c->requests);
	}
	c->link->ops->stop(c->link);
	bool resetting = c->state == CONN_RESET;
	c->state = CONN_CLOSED;
	if (c->version) {
		c->version->dropped = true;
		p9_req_free(c->version);
		c->version = NULL;
	}
	if (!resetting) {
		cancel_all(c);
	}
	p9_conn_settle(c);
}

static void on_closed(struct p9_link *l, int why, const char *text)
{
	p9_conn_end(CONN(l), why, text);
}

int p9_conn_on_stolen(struct p9_loop *loop)
{
	struct p9_shard *sh = loop->owner;
	struct p9_req *r = sh->calling;
	struct p9_conn *c = r->conn;
	sh->calling = NULL;
	p9_req_was_stuck(r);
	return p9_link_of(c)->ops->process(p9_link_of(c));
}

static void on_restart(struct p9_link *l)
{
	struct p9_conn *c = CONN(l);
	if (c->version) { /* who asked is gone */
		if (l->ops->no_reply) {
			l->ops->no_reply(l, c->version->ticket);
		}
		p9_req_free(c->version);
		c->version = NULL;
	}
	if (c->state == CONN_READY) {
		c->msize = P9_MSIZE_PREAUTH;
		l->frame_max = P9_MSIZE_PREAUTH;
		l->agreed = false;
		p9_conn_reset(c);
	}
}

static void on_hurry(struct p9_link *l)
{
	CONN(l)->hurried = true;
	p9_lock_hurry(CONN(l));
}

static const struct p9_link_user user = { on_frame, full, on_restart, on_hurry, on_closed };

struct p9_conn *p9_conn_new(struct p9_shard *sh, struct p9_link *link, const struct p9_peer *peer)
{
	struct p9_conn *c = calloc(1, sizeof(*c));
	if (!c) {
		return NULL;
	}
	c->link = link;
	link->owner = c;
	link->user = &user;
	link->frame_max = P9_MSIZE_PREAUTH;
	c->srv = sh->srv;
	c->shard = sh;
	c->peer = *peer;
	c->stranger = true;
	c->msize = P9_MSIZE_PREAUTH;
	c->next = sh->conns;
	c->prev = &sh->conns;
	if (c->next) {
		c->next->prev = &c->next;
	}
	sh->conns = c;
	sh->loop.after = after;
	return c;
}

void p9_conn_is_known(struct p9_conn *c)
{
	if (c->stranger) {
		p9_sources_leave(&c->srv->sources, &c->peer);
	}
	c->stranger = false;
}

void p9_conn_free(struct p9_conn *c)
{
	if (c->resuming) {
		unresume(c);
	}
	*c->prev = c->next;
	if (c->next) {
		c->next->prev = c->prev;
	}
	c->link->ops->free(c->link);
	free(c->fids.slot);
	free(c->again);
	p9_conn_is_known(c);
	atomic_fetch_sub(&c->srv->nconns, 1);
	free(c);
}
