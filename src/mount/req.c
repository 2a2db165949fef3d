/* SPDX-License-Identifier: BSD-2-Clause */
/* req.c - a FUSE request becomes 9P requests, and their end its answer.
 *
 * An operation is a chain of steps that need each other, or a number of independent ones. To a server that keeps the
 * order of requests on a fid (session.c asks it) a whole chain goes at once: it costs one round trip. When a later step
 * fails, it is sent once more after those before it were answered, for a server may have run it too early. Steps are
 * built when they can be sent, so that nothing of them is kept while every tag is in use; they wait in order.
 * Must stay true: each FUSE request is answered exactly once; a fid that a step made is in an inode or a handle, or is
 * clunked when the request ends; a request that was answered early (a signal) goes on without it and cleans up.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include "base/hosterr.h"
#include "mount/internal.h"

#define SHEDS 5u /* times that a request waits for fids */
#define SHED_MS 10u
#define RESERVE 4u	  /* tags kept for Tflush */
#define CLUNK_ROOM 24u	  /* tags left to others when one is sent */
#define FATAL_LOOK_MS 200 /* how often it is looked whether an interrupted program is to die */
#define GRACE_MS 2000	  /* how long a cancelled request waits for what became of it */
#define ERRNO_MOST 511	  /* the kernel takes no other for an answer */

uint64_t p9_mount_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int p9_mount_errno(const struct p9_mount *m, int error)
{
	if (error == -P9_ETIMEDOUT) {
		return ETIMEDOUT;
	}
	if (p9_client_dead(m->client)) {
		return EIO;
	}
	int e = error == -P9_ECANCELED ? EINTR : p9_hosterr_from(-error);
	return e > 0 && e <= ERRNO_MOST ? e : EIO;
}

/* ---- life ---- */
struct p9_mreq *p9_mreq_new(struct p9_mount *m, fuse_req_t req)
{
	struct p9_mreq *r = m->free_reqs;
	if (r) {
		m->free_reqs = r->next;
	} else {
		r = malloc(sizeof(*r));
	}
	if (!r) {
		if (req) {
			fuse_reply_err(req, ENOMEM);
		}
		return NULL;
	}
	memset(r, 0, offsetof(struct p9_mreq, name));
	r->m = m;
	r->req = req;
	r->calls = r->few;
	r->fid[0] = r->fid[1] = r->held[0] = r->held[1] = P9_NOFID;
	r->name[0] = 0;
	r->next = m->live;
	if (r->next) {
		r->next->prev = r;
	}
	m->live = r;
	return r;
}

struct p9_mreq *p9_mreq_ino(fuse_req_t req, fuse_ino_t ino)
{
	struct p9_mount *m = fuse_req_userdata(req);
	struct p9_mreq *r = p9_mreq_new(m, req);
	if (r) {
		r->ino = p9_minode_of(m, ino);
		p9_minode_hold(m, r->ino);
	}
	return r;
}

struct p9_mreq *p9_mreq_name(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	size_t n = strlen(name);
	if (n > P9_NAMEMAX) {
		fuse_reply_err(req, ENAMETOOLONG);
		return NULL;
	}
	struct p9_mreq *r = p9_mreq_ino(req, dir);
	if (r) {
		memcpy(r->name, name, n + 1);
	}
	return r;
}

struct p9_mreq *p9_mreq_open(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi)
{
	struct p9_mreq *r = p9_mreq_ino(req, ino);
	if (r) {
		r->fi = *fi;
		r->h = (struct p9_mhandle *)(uintptr_t)fi->fh;
		r->h->refs++;
	}
	return r;
}

void *p9_mreq_buffer(struct p9_mreq *r, size_t n)
{
	struct p9_mount *m = r->m;
	bool big = n > 64u * 1024 && n <= P9_MOUNT_IO;
	if (big && m->nbufs) {
		r->buf = m->bufs[--m->nbufs];
	} else {
		r->buf = malloc(big ? P9_MOUNT_IO : n);
	}
	r->buf_kind = !r->buf ? P9_BUF_NONE : big ? P9_BUF_READ : P9_BUF_HEAP;
	return r->buf;
}

void p9_mreq_keep(struct p9_mreq *r)
{
	struct p9_mount *m = r->m;
	r->buf = m->in.mem;
	r->buf_kind = P9_BUF_IN;
	m->in.mem = m->nins ? m->ins[--m->nins] : NULL;
}

static void drop_buffer(struct p9_mreq *r)
{
	struct p9_mount *m = r->m;
	if (r->buf_kind == P9_BUF_READ && m->nbufs < P9_COUNT(m->bufs)) {
		m->bufs[m->nbufs++] = r->buf;
	} else if (r->buf_kind == P9_BUF_IN && m->nins < P9_COUNT(m->ins)) {
		m->ins[m->nins++] = r->buf;
	} else {
		free(r->buf);
	}
	r->buf = NULL;
	r->buf_kind = P9_BUF_NONE;
}

static void drop_made(struct p9_mreq *r, bool held)
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

static void unlate(struct p9_mreq *r)
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
	unlate(r);
	r->when = p9_mount_now() + ms;
	r->late = r->m->late;
	r->m->late = r;
}

void p9_mreq_free(struct p9_mreq *r)
{
	struct p9_mount *m = r->m;
	if (r->req) { /* cannot be, but would hang the program */
		fuse_reply_err(r->req, EIO);
		r->req = NULL;
	}
	if (r->interrupted || r->waiting) {
		unlate(r);
	}
	drop_made(r, true);
	if (r->buf) {
		drop_buffer(r);
	}
	if (r->calls != r->few) {
		free(r->calls);
	}
	free(r->entries);
	free(r->text);
	if (r->h) {
		p9_mhandle_put(m, r->h);
	}
	p9_minode_release(m, r->lost);
	p9_minode_release(m, r->dir);
	p9_minode_release(m, r->ino);
	*(r->prev ? &r->prev->next : &m->live) = r->next;
	if (r->next) {
		r->next->prev = r->prev;
	}
	r->next = m->free_reqs;
	m->free_reqs = r;
}

void p9_mount_reqs_init(struct p9_mount *m)
{
	for (size_t i = 0; i < P9_COUNT(m->clunking); i++) {
		m->clunking[i].next = m->free_clunks;
		m->free_clunks = &m->clunking[i];
	}
}

void p9_mount_reqs_abort(struct p9_mount *m)
{
	m->queue = NULL;
	for (struct p9_mreq *r = m->live; r; r = r->next) {
		if (r->req) {
			fuse_reply_err(r->req, EIO);
			r->req = NULL;
		}
	}
}

void p9_mount_reqs_fini(struct p9_mount *m)
{
	while (m->live) {
		p9_mreq_free(m->live);
	}
	while (m->free_reqs) {
		struct p9_mreq *r = m->free_reqs;
		m->free_reqs = r->next;
		free(r);
	}
	while (m->nins) {
		free(m->ins[--m->nins]);
	}
	while (m->nbufs) {
		free(m->bufs[--m->nbufs]);
	}
	free(m->in.mem);
	free(m->clunks);
}

/* ---- steps ---- */
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
	drop_made(r, false);
}

void p9_mreq_chain(struct p9_mreq *r, const struct p9_mop *op)
{
	hold_made(r);
	r->op = op;
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

/* ---- signals ---- */
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

/* Signals that do not kill are no reason to give up: a mkdir() must not fail because a timer went off. Only waiting for
 * a lock ends with any signal. */
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
			unsigned from = r->failed;
			undo(r, from);
			start(r, from);
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

/* Those in the queue have not been sent, so nobody else counts their time. */
static void expire_queue(struct p9_mount *m, uint64_t now)
{
	uint64_t most = (uint64_t)m->o.timeout * 1000;
	while (most && m->queue && now - m->queue->since >= most) {
		struct p9_mcall *c = m->queue;
		m->queue = c->next;
		c->next = NULL;
		step_end(c, -P9_ETIMEDOUT);
	}
}

int p9_mount_timers(struct p9_mount *m)
{
	int wait = m->queue ? 500 : -1;
	if (!m->queue && !m->late) {
		return -1;
	}
	uint64_t now = p9_mount_now();
	expire_queue(m, now);
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

/* ---- begin and answers ---- */
static bool lost(const struct p9_minode *i)
{
	return i && i->fid == P9_NOFID;
}

void p9_mreq_begin(struct p9_mreq *r, const struct p9_mop *op)
{
	r->op = op;
	fuse_req_interrupt_func(r->req, on_interrupt, r);
	if ((lost(r->ino) && !r->h) || lost(r->dir)) {
		r->then = op;
		p9_mreq_rewalk(r);
		return;
	}
	p9_mreq_chain(r, op);
}

void p9_mreq_err(struct p9_mreq *r, int error)
{
	if (r->req) {
		fuse_reply_err(r->req, error ? p9_mount_errno(r->m, error) : 0);
		r->req = NULL;
	}
	p9_mreq_free(r);
}

void p9_mreq_attr(struct p9_mreq *r)
{
	struct stat st;
	if (r->req) {
		p9_mattr_stat(r->m, &r->attr, &st);
		r->ino->told = p9_mattr_stamp(&r->attr);
		r->ino->size = r->attr.size;
		fuse_reply_attr(r->req, &st, p9_mount_attr_timeout(r->m));
		r->req = NULL;
	}
	p9_mreq_free(r);
}

void p9_mreq_entry(struct p9_mreq *r, struct p9_minode *ino)
{
	struct fuse_entry_param e;
	if (r->req) {
		p9_mentry_fill(r->m, ino, &r->attr, &e);
		p9_minode_looked(r->m, ino);
		int rc = fuse_reply_entry(r->req, &e);
		r->req = NULL;
		if (rc < 0) { /* it never came to know it */
			p9_minode_forget(r->m, ino, 1);
		}
	}
	p9_mreq_free(r);
}

void p9_mreq_buf(struct p9_mreq *r, const void *buf, size_t n)
{
	if (r->req) {
		fuse_reply_buf(r->req, buf, n);
		r->req = NULL;
	}
	p9_mreq_free(r);
}
