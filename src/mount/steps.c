/* SPDX-License-Identifier: BSD-2-Clause */
/* steps.c - the steps of an operation: building, sending, waiting for a tag, and what follows from how they ended.
 *
 * An operation is a chain of steps that need each other, or a number of independent ones. To a server that keeps the
 * order of requests on a fid (session.c asks it) a whole chain goes at once: it costs one round trip. When a later step
 * fails, it is sent once more after those before it were answered, for a server may have run it too early. Steps are
 * built when they can be sent, so that nothing of them is kept while every tag is in use; they wait in order.
 * Must stay true: a fid that a step made is in an inode or a handle, or is clunked when the request ends.
 */
#include <stdlib.h>
#include <syslog.h>
#include "mount/internal.h"

#define SHEDS 5u /* times that a request waits for fids */
#define SHED_MS 10u
#define RESERVE 4u     /* tags kept for Tflush */
#define CLUNK_ROOM 24u /* tags left to others when a fid is given back */

void p9_mreq_drop_made(struct p9_mreq *r, bool held)
{
	for (unsigned k = 0; held && k < P9_COUNT(r->held); k++) {
		if (r->held[k] != P9_NOFID) {
			p9_mount_clunk(r->m, r->held[k]);
			r->held[k] = P9_NOFID;
		}
	}
	for (unsigned i = 0; i < r->ncalls; i++) {
		if (r->calls[i].made != P9_NOFID) {
			p9_mount_clunk(r->m, r->calls[i].made);
			r->calls[i].made = P9_NOFID;
		}
	}
}

static void settle(struct p9_mreq *r);

static void step_end(struct p9_mcall *c, int error)
{
	struct p9_mreq *r = c->req;
	c->state = P9_MCALL_DONE;
	c->error = error;
	if (error < 0 && (!r->error || c->index < r->failed)) {
		r->error = error;
		r->failed = c->index;
	}
	r->open--;
	settle(r);
}

/* What a reply means for fids. */
static int took(struct p9_mcall *c, const struct p9_msg *reply)
{
	struct p9_mreq *r = c->req;
	if (c->ends != P9_NOFID) {
		p9_mreq_take(r, c->ends);
	}
	if (reply->type == P9_Rlerror) {
		return -(int)reply->rlerror.ecode;
	}
	c->made = c->makes;
	return r->op->took ? r->op->took(r, c->index, reply) : 0;
}

static void on_reply(struct p9_call *call, const struct p9_msg *reply)
{
	struct p9_mcall *c = (struct p9_mcall *)call;
	step_end(c, took(c, reply));
}

static void note_fids(struct p9_mcall *c, const struct p9_msg *t)
{
	c->makes = t->type == P9_Twalk	      ? t->twalk.newfid
		   : t->type == P9_Txattrwalk ? t->txattrwalk.newfid
		   : t->type == P9_Tattach    ? t->tattach.fid
					      : P9_NOFID;
	c->ends = t->type == P9_Tclunk ? t->tclunk.fid : t->type == P9_Tremove ? t->tremove.fid : P9_NOFID;
	c->made = P9_NOFID;
}

/* Builds and sends. False when there is no room after all. */
static bool issue(struct p9_mcall *c)
{
	struct p9_mreq *r = c->req;
	struct p9_mount *m = r->m;
	struct p9_msg t = { 0 };
	void *dst = NULL;
	if (r->interrupted && (!r->req || r->op->patient)) {
		step_end(c, -P9_ECANCELED);
		return true;
	}
	int rc = r->op->build(r, c->index, &t, &dst);
	if (rc != 0) {
		c->makes = c->made = c->ends = P9_NOFID;
		step_end(c, rc < 0 ? rc : 0);
		return true;
	}
	note_fids(c, &t);
	c->call = (struct p9_call){ .done = on_reply,
				    .timeout_ms = r->op->patient ? 0 : m->o.timeout * 1000,
				    .patient = r->op->patient };
	c->state = P9_MCALL_SENT;
	rc = p9_client_send(m->client, &t, dst, &c->call);
	if (rc >= 0) {
		return true;
	}
	if (c->makes != P9_NOFID) {
		p9_client_fid_unused(m->client, c->makes);
	}
	if (rc == -P9_EAGAIN) {
		c->state = P9_MCALL_QUEUED;
		return false;
	}
	step_end(c, rc);
	return true;
}

static void enqueue(struct p9_mcall *c)
{
	struct p9_mount *m = c->req->m;
	c->state = P9_MCALL_QUEUED;
	c->since = p9_mount_now();
	c->next = NULL;
	if (!m->queue) {
		m->queue_end = &m->queue;
	}
	*m->queue_end = c;
	m->queue_end = &c->next;
}

static bool room(const struct p9_mount *m)
{
	return p9_client_dead(m->client) || p9_client_room(m->client) > RESERVE;
}

static void step_begin(struct p9_mreq *r, unsigned i)
{
	struct p9_mcall *c = &r->calls[i];
	*c = (struct p9_mcall){ .req = r, .index = (uint16_t)i, .makes = P9_NOFID, .made = P9_NOFID, .ends = P9_NOFID };
	r->open++;
	if (r->m->queue || !room(r->m) || !issue(c)) {
		enqueue(c);
	}
}

static void clunk_done(struct p9_call *call, const struct p9_msg *reply)
{
	struct p9_mclunk *k = (struct p9_mclunk *)call;
	struct p9_mount *m = k->m;
	bool error = reply->type == P9_Rlerror && reply->rlerror.ecode != P9_EBADF; /* a walk that came half way */
	if (error && !p9_client_dead(m->client)) {
		syslog(LOG_WARNING, "closing a file: %s (%s)", p9_error_text(reply->rlerror.ecode),
		       p9_error_name(reply->rlerror.ecode));
	}
	k->next = m->free_clunks;
	m->free_clunks = k;
}

static void send_clunks(struct p9_mount *m)
{
	while (m->nclunks && m->free_clunks && p9_client_room(m->client) > CLUNK_ROOM) {
		struct p9_mclunk *k = m->free_clunks;
		uint32_t fid = m->clunks[m->nclunks - 1];
		struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = fid } };
		k->call = (struct p9_call){ .done = clunk_done, .timeout_ms = m->o.timeout * 1000 };
		k->m = m;
		if (p9_client_send(m->client, &t, NULL, &k->call) < 0) {
			break;
		}
		m->free_clunks = k->next;
		m->nclunks--;
	}
	if (p9_client_dead(m->client)) {
		m->nclunks = 0;
	}
}

void p9_mount_clunk(struct p9_mount *m, uint32_t fid)
{
	if (m->nclunks == m->clunks_cap) {
		size_t cap = m->clunks_cap ? m->clunks_cap * 2 : 256;
		uint32_t *more = realloc(m->clunks, cap * sizeof(*more));
		if (!more) {
			return; /* the server keeps it until the end */
		}
		m->clunks = more;
		m->clunks_cap = cap;
	}
	m->clunks[m->nclunks++] = fid;
}

void p9_mount_pump(struct p9_mount *m)
{
	while (m->queue && room(m)) {
		struct p9_mcall *c = m->queue;
		m->queue = c->next;
		c->next = NULL;
		if (!issue(c)) {
			c->next = m->queue;
			m->queue = c;
			if (!c->next) {
				m->queue_end = &c->next;
			}
			break;
		}
	}
	send_clunks(m);
}

/* ---- chains ---- */
static void start(struct p9_mreq *r, unsigned from)
{
	bool one = r->op->steps && (r->op->serial || r->serial || !r->m->ordered);
	r->sending = true;
	for (unsigned i = from; i < r->ncalls && !(r->op->steps && r->error); i++) {
		step_begin(r, i);
		if (one) {
			break;
		}
	}
	r->sending = false;
	settle(r);
}

/* Makes a chain ready to go on from a step, one at a time. */
static void undo(struct p9_mreq *r, unsigned from)
{
	for (unsigned i = from; i < r->ncalls; i++) {
		struct p9_mcall *c = &r->calls[i];
		if (c->made != P9_NOFID) {
			p9_mount_clunk(r->m, c->made);
		}
		c->made = P9_NOFID;
		c->state = P9_MCALL_IDLE;
	}
	r->serial = true;
	r->error = 0;
}

/* The server, or the connection, has no more fids: some of ours go back, and it is tried again. */
static bool shed(struct p9_mreq *r)
{
	struct p9_mount *m = r->m;
	bool scarce = r->error == -P9_ENFILE || r->error == -P9_EMFILE;
	if (!scarce || r->sheds >= SHEDS || !r->req || !p9_minode_shed(m)) {
		return false;
	}
	r->sheds++;
	p9_mreq_later(r, SHED_MS);
	return true;
}

/* A later step of a chain failed that went out with the others: once more, alone. */
static bool again(struct p9_mreq *r)
{
	bool early = r->op->steps && r->error && r->failed > 0 && !r->serial && !r->op->serial && r->m->ordered;
	if (!early || !r->req || p9_client_dead(r->m->client) || r->error == -P9_ETIMEDOUT) {
		return false;
	}
	undo(r, r->failed);
	r->resent = true;
	start(r, r->failed);
	return true;
}

static void settle(struct p9_mreq *r)
{
	if (r->open || r->sending || again(r) || (r->op->steps && shed(r))) {
		return;
	}
	for (unsigned i = 0; r->op->steps && !r->error && i < r->ncalls; i++) {
		if (r->calls[i].state == P9_MCALL_IDLE) {
			start(r, i);
			return;
		}
	}
	if (r->resent && !r->error && !r->op->by_name) {
		r->m->ordered = false; /* it does run requests in an order of its own */
	}
	p9_mount_note(r->m, r->op);
	r->op->finish(r);
}

bool p9_mreq_many(struct p9_mreq *r, unsigned n)
{
	if (n > P9_COUNT(r->few)) {
		r->calls = calloc(n, sizeof(*r->calls));
	}
	if (!r->calls || n > UINT16_MAX) {
		r->calls = r->few;
		p9_mreq_err(r, -P9_ENOMEM);
		return false;
	}
	r->ncalls = (uint16_t)n;
	for (unsigned i = 0; i < n; i++) {
		r->calls[i].made = P9_NOFID;
	}
	return true;
}

void p9_mreq_step(struct p9_mreq *r, unsigned i)
{
	step_begin(r, i);
}

/* Fids that the operation which has ended made stay for the next one. */
static void hold_made(struct p9_mreq *r)
{
	for (unsigned i = 0, k = 0; r->op && i < r->ncalls; i++) {
		while (k < P9_COUNT(r->held) && r->held[k] != P9_NOFID) {
			k++;
		}
		if (r->calls[i].made != P9_NOFID && k < P9_COUNT(r->held)) {
			r->held[k] = r->calls[i].made;
			r->calls[i].made = P9_NOFID;
		}
	}
	p9_mreq_drop_made(r, false);
}

void p9_mreq_chain(struct p9_mreq *r, const struct p9_mop *op)
{
	hold_made(r);
	r->op = op;
	p9_mount_note(r->m, op);
	r->error = 0;
	r->failed = 0;
	r->serial = r->resent = false;
	if (op->steps) {
		r->ncalls = op->steps;
	}
	for (unsigned i = 0; i < r->ncalls; i++) {
		r->calls[i] = (struct p9_mcall){ .makes = P9_NOFID, .made = P9_NOFID, .ends = P9_NOFID };
	}
	start(r, 0);
}

void p9_mreq_resume(struct p9_mreq *r)
{
	unsigned from = r->failed;
	undo(r, from);
	start(r, from);
}

void p9_mreq_take(struct p9_mreq *r, uint32_t fid)
{
	for (unsigned k = 0; k < P9_COUNT(r->held); k++) {
		if (r->held[k] == fid) {
			r->held[k] = P9_NOFID;
		}
	}
	for (unsigned i = 0; i < r->ncalls; i++) {
		if (r->calls[i].made == fid) {
			r->calls[i].made = P9_NOFID;
		}
	}
}

int p9_mreq_fid(struct p9_mreq *r, unsigned slot)
{
	return p9_client_fid(r->m->client, &r->fid[slot]);
}

/* Those in the queue have not been sent, so nobody else counts their time. */
void p9_mount_expire(struct p9_mount *m, uint64_t now)
{
	uint64_t most = (uint64_t)m->o.timeout * 1000;
	while (most && m->queue && now - m->queue->since >= most) {
		struct p9_mcall *c = m->queue;
		m->queue = c->next;
		c->next = NULL;
		step_end(c, -P9_ETIMEDOUT);
	}
}
