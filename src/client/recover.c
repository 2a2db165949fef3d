/* SPDX-License-Identifier: BSD-2-Clause */
/* recover.c - a lost link is looked for, and what stood on it is put up again.
 *
 * When the engine's link ends, requests in flight are set aside and the engine is restarted. Then, in the background of
 * step, work or the thread: wait (longer after each failure, with jitter), connect, Tversion, Tattach, and for each fid
 * that was in use Twalk, Tlopen with the old flags but those that make or cut a file, and Tlock. A fid that leads to
 * another file, or nowhere, or whose locks are taken, is stale: ESTALE to everything, without asking the server.
 * At last the requests that were set aside go out again, when that can do no harm; the others are answered EIO.
 * Fids keep their numbers. Until then p9_client_send() has no room; it is as if the server were slow.
 * What ends the handle for good: the time for looking is over, the server speaks nonsense or grants smaller messages.
 * Must stay true: each request gets one answer; a fid of the program's is free in the engine only after its Tclunk or
 * Tremove was answered; requests of our own are never handed out.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "client/recover.h"

#define FIRST_WAIT_MS 40u
#define LAST_WAIT_MS 5000u
#define ATTEMPT_MS 10000u

/* ---- life ---- */
struct p9_recover *p9_recover_new(struct p9_client *c, const char *addr, const struct p9_client_opts *o)
{
	struct p9_recover *r = calloc(1, sizeof(*r));
	size_t ntags = c->engine.ntags + 1u;
	if (!r) {
		return NULL;
	}
	r->text = strdup(addr);
	r->flights = calloc(ntags, sizeof(*r->flights));
	r->held = calloc(ntags, sizeof(*r->held));
	r->fd = -1;
	r->nflights = (unsigned)ntags;
	r->msize = c->engine.msize;
	r->total_ms = o->reconnect_ms;
	r->random = p9_client_now() * 0x9e3779b97f4a7c15u ^ (uint64_t)getpid();
	if (!r->text || !r->flights || !r->held || p9_addr_parse(&r->addr, addr, r->why, sizeof(r->why)) < 0) {
		p9_recover_free(r);
		return NULL;
	}
	return r;
}

static void free_flight(struct p9_flight *f)
{
	free(f->frame);
	*f = (struct p9_flight){ 0 };
}

void p9_recover_free(struct p9_recover *r)
{
	if (!r) {
		return;
	}
	p9_track_free(r);
	if (r->fd >= 0) {
		close(r->fd);
	}
	for (struct p9_answer *a = r->answers, *next; a; a = next) {
		next = a->next;
		free(a);
	}
	for (unsigned i = 0; r->held && i < r->nheld; i++) {
		free_flight(&r->held[i]);
	}
	for (unsigned i = 0; r->flights && i < r->nflights; i++) {
		free_flight(&r->flights[i]);
	}
	free(r->held);
	free(r->flights);
	free(r->text);
	free(r);
}

/* ---- answers of our own ---- */
/* Without memory the link ends: better than a request that is never answered. */
static void answer(struct p9_client *c, struct p9_call *call, const struct p9_msg *m)
{
	struct p9_recover *r = c->recover;
	struct p9_answer *a = calloc(1, sizeof(*a));
	if (!a) {
		p9_engine_fail(&c->engine, P9_ENOMEM, "out of memory");
		return;
	}
	*a = (struct p9_answer){ NULL, call, *m };
	if (r->answers) {
		r->answers_last->next = a;
	} else {
		r->answers = a;
	}
	r->answers_last = a;
	r->nanswers++;
}

/* tag NOTAG: p9_client_call() has a text of its own for that. */
static void answer_error(struct p9_client *c, struct p9_call *call, int ecode)
{
	struct p9_msg m = { .type = P9_Rlerror, .tag = P9_NOTAG, .rlerror = { (uint32_t)ecode } };
	answer(c, call, &m);
}

int p9_recover_answer(struct p9_client *c, struct p9_reply *out)
{
	struct p9_recover *r = c->recover;
	struct p9_answer *a = r->answers;
	if (!a) {
		return 0;
	}
	r->answers = a->next;
	r->nanswers--;
	*out = (struct p9_reply){ a->call, a->msg };
	free(a);
	return 1;
}

unsigned p9_recover_pending(const struct p9_client *c)
{
	return c->recover->nanswers + c->recover->nheld;
}

bool p9_recover_busy(const struct p9_client *c)
{
	return c->recover && c->recover->state != P9_RECOVER_OK && c->recover->state != P9_RECOVER_OVER;
}

/* ---- fids ---- */
/* The engine has let go of a fid that is still the program's. */
static void hold_fid(struct p9_client *c, uint32_t fid)
{
	p9_engine_fid_hold(&c->engine, fid);
}

static void hold_all(struct p9_client *c)
{
	struct p9_recover *r = c->recover;
	for (uint32_t fid = 0; fid < r->nkept; fid++) {
		if (r->kept[fid].live) {
			hold_fid(c, fid);
		}
	}
}

/* The fid that is free when a request was answered without a server: the one it ends, or would have made. */
static uint32_t fid_to_free(const struct p9_msg *msg)
{
	switch (msg->type) {
	case P9_Tclunk:
	case P9_Tremove:
		return msg->tclunk.fid;
	case P9_Twalk:
		return msg->twalk.newfid == msg->twalk.fid ? P9_NOFID : msg->twalk.newfid;
	case P9_Txattrwalk:
		return msg->txattrwalk.newfid;
	case P9_Tattach:
		return msg->tattach.fid;
	default:
		return P9_NOFID;
	}
}

/* The fid that a request would make. */
static uint32_t made_by(const struct p9_flight *f)
{
	struct p9_msg t;
	if (p9_track_message(f, &t) < 0) {
		return P9_NOFID;
	}
	return t.type == P9_Tclunk || t.type == P9_Tremove ? P9_NOFID : fid_to_free(&t);
}

/* ---- requests of the program's ---- */
/* Whether a request is answered here; see p9_kept. */
static int refusal(struct p9_recover *r, const struct p9_msg *msg)
{
	struct p9_kept *k = p9_track_stale(r, msg);
	if (k) {
		bool gone = msg->type == P9_Tclunk && !k->xwrite;
		return gone ? 0 : -P9_ESTALE;
	}
	if (msg->type == P9_Treaddir) {
		k = p9_track_kept(r, msg->treaddir.fid);
		if (k && k->rewound && msg->treaddir.offset != 0) {
			return -P9_ESTALE;
		}
		if (k) {
			k->rewound = false;
		}
	}
	k = msg->type == P9_Tfsync ? p9_track_kept(r, msg->tfsync.fid) : NULL;
	if (k && k->unsure) {
		k->unsure = false;
		return -P9_EIO;
	}
	return 1;
}

/* Answers a request about a stale fid, as the server and the engine would have. */
static void answer_here(struct p9_client *c, const struct p9_msg *msg, struct p9_call *call, int rc)
{
	struct p9_msg ok = { .type = P9_Rclunk };
	uint32_t fid = fid_to_free(msg);
	if (msg->type == P9_Tclunk || msg->type == P9_Tremove) {
		p9_track_drop(c->recover, fid);
	}
	if (fid != P9_NOFID) {
		p9_engine_fid_put(&c->engine, fid);
	}
	if (rc < 0) {
		answer_error(c, call, -rc);
	} else {
		answer(c, call, &ok);
	}
}

static int launch(struct p9_client *c, struct p9_flight *f, struct p9_msg *msg, void *user)
{
	int rc = p9_engine_submit(&c->engine, msg, f->dst, user);
	if (rc < 0) {
		return rc;
	}
	struct p9_flight *at = &c->recover->flights[rc];
	free_flight(at); /* one that was abandoned */
	*at = *f;
	if (f->due) {
		p9_engine_deadline(&c->engine, (uint16_t)rc, f->due);
	}
	return rc;
}

/* A server that went away while nothing was in flight is noticed before a request is sent to nobody: it need not be
 * answered EIO then. A handle with a thread has noticed already. */
static bool idle_and_closed(struct p9_client *c)
{
	char byte;
	if (c->threaded || p9_engine_pending(&c->engine) > 0 || !c->in_socket) {
		return false;
	}
	if (recv(c->in, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0) {
		return false;
	}
	p9_engine_fail(&c->engine, P9_ECONNRESET, "the server closed the connection");
	return true;
}

int p9_recover_submit(struct p9_client *c, struct p9_msg *msg, void *dst, struct p9_call *call)
{
	struct p9_recover *r = c->recover;
	if (p9_recover_busy(c) || (c->engine.error && p9_recover_hope(c))) {
		return -P9_EAGAIN;
	}
	if (!c->engine.error && idle_and_closed(c)) {
		return -P9_EAGAIN;
	}
	int rc = c->engine.error ? 1 : refusal(r, msg);
	if (rc <= 0) {
		answer_here(c, msg, call, rc);
		return P9_NOTAG;
	}
	struct p9_flight f = { .call = call, .dst = dst, .kind = P9_FLIGHT_USER };
	if (!p9_track_request(&f, msg)) {
		return -P9_ENOMEM;
	}
	f.due = call->timeout_ms ? p9_client_now() + call->timeout_ms : 0;
	rc = launch(c, &f, msg, call);
	if (rc < 0) {
		free_flight(&f);
	}
	return rc;
}

/* ---- the loss ---- */
static uint8_t judge(const struct p9_flight *f)
{
	struct p9_msg t;
	switch (f->type) {
	case P9_Tgetattr:
	case P9_Tread:
	case P9_Twalk:
	case P9_Tstatfs:
	case P9_Treadlink:
	case P9_Treaddir:
	case P9_Tgetlock:
	case P9_Tlock: /* what the old session held went with it */
	case P9_Txattrwalk:
	case P9_Tattach:
		return P9_VERDICT_REPEAT;
	case P9_Tlopen:
		return p9_track_message(f, &t) >= 0 && !(t.tlopen.flags & P9_O_TRUNC) ? P9_VERDICT_REPEAT
										      : P9_VERDICT_UNSURE;
	case P9_Tclunk:
		return P9_VERDICT_DONE; /* the fid has gone with the link */
	default:
		return P9_VERDICT_UNSURE;
	}
}

static void hold(struct p9_client *c, struct p9_flight *f, const struct p9_slot *s)
{
	struct p9_recover *r = c->recover;
	struct p9_msg t;
	uint64_t begin = s->out_end - p9_get32(f->frame);
	f->verdict = begin >= c->engine.sent ? P9_VERDICT_REPEAT : judge(f); /* what was never sent, has not happened */
	if (s->state == P9_SLOT_OVERDUE || s->flushes) {
		f->verdict = P9_VERDICT_ERROR;
		f->ecode = s->flushes ? P9_ECANCELED : P9_ETIMEDOUT;
	}
	if ((f->type == P9_Tclunk || f->type == P9_Tremove) && p9_track_message(f, &t) >= 0) {
		struct p9_kept *k = p9_track_kept(r, t.tclunk.fid);
		f->verdict = k && k->xwrite ? P9_VERDICT_UNSURE : f->verdict;
		p9_track_drop(r, t.tclunk.fid);
	}
	r->held[r->nheld++] = *f;
	*f = (struct p9_flight){ 0 };
}

static void set_aside(struct p9_client *c)
{
	struct p9_recover *r = c->recover;
	struct p9_reply reply;
	for (uint32_t tag = 0; tag <= c->engine.ntags; tag++) {
		struct p9_flight *f = &r->flights[tag];
		const struct p9_slot *s = &c->engine.slots[tag];
		bool waits = s->state == P9_SLOT_SENT || s->state == P9_SLOT_OVERDUE;
		if (f->kind == P9_FLIGHT_USER && waits && s->user == f->call) {
			hold(c, f, s);
		} else {
			free_flight(f);
		}
	}
	while (p9_engine_drain(&c->engine, &reply)) {
	}
	hold_all(c);
	for (unsigned i = 0; i < r->nheld; i++) {
		uint32_t fid = r->held[i].verdict == P9_VERDICT_REPEAT ? made_by(&r->held[i]) : P9_NOFID;
		if (fid != P9_NOFID) {
			hold_fid(c, fid);
		}
	}
	r->own_flying = 0;
	c->npatient = 0;
}

static void hang_up(struct p9_client *c)
{
	if (c->own && c->in >= 0) {
		close(c->in);
	}
	c->in = c->out = -1;
	if (c->recover->fd >= 0) {
		close(c->recover->fd);
	}
	c->recover->fd = -1;
}

static uint64_t any(struct p9_recover *r, uint64_t below)
{
	r->random ^= r->random >> 12;
	r->random ^= r->random << 25;
	r->random ^= r->random >> 27;
	return r->random * UINT64_C(2685821657736338717) % (below ? below : 1);
}

/* Every request that waits hears that it was in vain. */
static void give_up(struct p9_client *c, int ecode, const char *text)
{
	struct p9_recover *r = c->recover;
	hang_up(c);
	r->state = P9_RECOVER_OVER;
	p9_engine_fail(&c->engine, ecode, text);
	for (unsigned i = 0; i < r->nheld; i++) {
		answer_error(c, r->held[i].call, ecode);
		free_flight(&r->held[i]);
	}
	r->nheld = 0;
	if (c->threaded) {
		pthread_cond_broadcast(&c->news);
	}
}

/* An attempt has failed, or the link: when is the next? */
static void again(struct p9_client *c, int ecode, const char *why)
{
	struct p9_recover *r = c->recover;
	uint64_t now = p9_client_now();
	uint64_t wait = r->attempts == 0 ? 0 : (uint64_t)FIRST_WAIT_MS << (r->attempts < 8 ? r->attempts - 1 : 7);
	wait = wait < LAST_WAIT_MS ? wait : LAST_WAIT_MS;
	wait = wait / 2 + any(r, wait + 1);
	snprintf(r->why, sizeof(r->why), "%s", why);
	r->cause = ecode;
	hang_up(c);
	if (now + wait >= r->give_up) {
		char text[P9_CLIENT_TEXT + 80];
		snprintf(text, sizeof(text), "lost, and not found again in %u s: %s", r->total_ms / 1000, r->why);
		give_up(c, ecode, text);
		return;
	}
	r->state = P9_RECOVER_WAIT;
	r->attempts++;
	r->next = now + wait;
}

bool p9_recover_hope(const struct p9_client *c)
{
	const struct p9_recover *r = c->recover;
	int e = -c->engine.error;
	bool nonsense = e == P9_EPROTO || e == P9_EPROTONOSUPPORT || e == P9_ENOMEM || e == P9_EMSGSIZE;
	return r && r->armed && r->state != P9_RECOVER_OVER && e != 0 && !nonsense;
}

/* Temporary fids of roots, when what held them has ended. */
static void forget_roots(struct p9_client *c)
{
	for (struct p9_root *root = c->recover->roots; root; root = root->next) {
		if (root->fid != P9_NOFID) {
			p9_engine_fid_put(&c->engine, root->fid);
			root->fid = P9_NOFID;
		}
	}
}

bool p9_recover_lost(struct p9_client *c)
{
	struct p9_recover *r = c->recover;
	char text[P9_ENGINE_TEXT];
	int ecode = -c->engine.error;
	if (!p9_recover_hope(c)) {
		if (p9_recover_busy(c)) { /* the server that was found is not the one we knew */
			give_up(c, ecode, "");
		}
		r->state = P9_RECOVER_OVER;
		return false;
	}
	snprintf(text, sizeof(text), "%s", p9_engine_error(&c->engine));
	if (r->state == P9_RECOVER_OK) {
		r->give_up = p9_client_now() + r->total_ms;
		r->attempts = 0;
		for (uint32_t i = 0; i < r->nkept; i++) {
			r->kept[i].unsure |= r->kept[i].dirty;
			r->kept[i].dirty = false;
		}
	}
	set_aside(c);
	forget_roots(c);
	p9_engine_restart(&c->engine, r->msize);
	again(c, ecode, text);
	return r->state != P9_RECOVER_OVER;
}

/* ---- the new session ---- */
static struct p9_flight own(uint8_t stage, uint32_t fid)
{
	return (struct p9_flight){ .kind = P9_FLIGHT_OWN, .stage = stage, .fid = fid };
}

/* Sends one of our own; what cannot be sent fails the attempt. */
static void send_own(struct p9_client *c, struct p9_flight f, struct p9_msg *t)
{
	if (launch(c, &f, t, &c->recover->own) < 0) {
		p9_engine_fail(&c->engine, P9_EIO, "the session could not be put up again");
		return;
	}
	c->recover->own_flying += f.stage != P9_STAGE_TIDY;
}

static void begin_session(struct p9_client *c)
{
	struct p9_recover *r = c->recover;
	struct p9_msg t = { .type = P9_Tversion,
			    .tversion = { .msize = c->engine.msize, .version = { "9P2000.L", 8 } } };
	fcntl(r->fd, F_SETFL, fcntl(r->fd, F_GETFL) & ~O_NONBLOCK);
	c->in = c->out = r->fd;
	c->in_socket = c->out_socket = c->own = true;
	r->fd = -1;
	r->state = P9_RECOVER_TALK;
	r->cursor = 0;
	c->heard = p9_client_now();
	for (uint32_t i = 0; i < r->nkept; i++) {
		r->kept[i].moved = false;
	}
	struct p9_flight f = own(P9_STAGE_VERSION, P9_NOFID);
	int rc = p9_engine_submit(&c->engine, &t, NULL, &r->own);
	if (rc >= 0) {
		r->flights[c->engine.ntags] = f;
		r->own_flying++;
	}
}

static void attach_all(struct p9_client *c)
{
	struct p9_recover *r = c->recover;
	for (struct p9_root *root = r->roots; root && !c->engine.error; root = root->next) {
		struct p9_msg t;
		int rc = p9_wire_decode(root->frame, root->size, 0, &t);
		rc = rc < 0 ? rc : p9_engine_fid_get(&c->engine, &root->fid);
		if (rc < 0 || p9_engine_room(&c->engine) == 0) {
			p9_engine_fail(&c->engine, P9_EIO, "the trees could not be attached again");
			return;
		}
		struct p9_flight f = own(P9_STAGE_ATTACH, root->fid);
		f.root = root;
		t.tattach.fid = root->fid;
		send_own(c, f, &t);
	}
}

static void stale(struct p9_client *c, uint32_t fid, bool made)
{
	struct p9_kept *k = &c->recover->kept[fid];
	struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = fid } };
	k->stale = true;
	if (made) {
		send_own(c, own(P9_STAGE_DROP, fid), &t);
	}
}

/* Walks on from element `at`; from the root first, then from where the fid is. */
static void walk(struct p9_client *c, uint32_t fid, unsigned at)
{
	struct p9_kept *k = &c->recover->kept[fid];
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = at ? fid : k->root->fid, .newfid = fid } };
	struct p9_flight f = own(P9_STAGE_WALK, fid);
	f.from = at;
	f.at = at + p9_name_path(k->name, at, c->engine.msize - 64, &t.twalk.wname);
	send_own(c, f, &t);
}

static void get_again(struct p9_client *c, uint32_t fid)
{
	struct p9_kept *k = &c->recover->kept[fid];
	bool lost_way = k->xattr || !k->root || !k->name || k->root->fid == P9_NOFID || p9_name_depth(k->name) < 0;
	k->stale |= lost_way;
	if (!k->stale) {
		walk(c, fid, 0);
	}
}

static void lock_next(struct p9_client *c, uint32_t fid, struct p9_held_lock *l)
{
	struct p9_flight f = own(P9_STAGE_LOCK, fid);
	struct p9_msg t = { .type = P9_Tlock };
	if (!l) {
		return;
	}
	f.lock = l;
	t.tlock = (struct p9_tlock){ .fid = fid,
				     .type = l->type,
				     .start = l->start,
				     .length = l->length,
				     .proc_id = l->proc_id,
				     .client_id = l->client_id };
	send_own(c, f, &t);
}

static void open_again(struct p9_client *c, uint32_t fid)
{
	struct p9_kept *k = &c->recover->kept[fid];
	struct p9_msg t = { .type = P9_Tlopen, .tlopen = { .fid = fid } };
	t.tlopen.flags = k->flags & ~(P9_O_TRUNC | P9_O_EXCL | P9_O_CREAT);
	send_own(c, own(P9_STAGE_OPEN, fid), &t);
}

static bool same_file(struct p9_kept *k, const struct p9_qid *q)
{
	if (k->qid.path != q->path || (k->qid.type & P9_QTDIR) != (q->type & P9_QTDIR)) {
		return false;
	}
	k->rewound = k->open && k->qid.version != q->version;
	k->qid = *q;
	return true;
}

static void on_walked(struct p9_client *c, const struct p9_flight *f, const struct p9_msg *m)
{
	struct p9_kept *k = &c->recover->kept[f->fid];
	unsigned depth = (unsigned)p9_name_depth(k->name);
	bool whole = m->type == P9_Rwalk && m->rwalk.wqid.n == f->at - f->from;
	if (!whole) {
		hold_fid(c, f->fid);
		stale(c, f->fid, f->from > 0 || m->type == P9_Rwalk); /* some servers make the fid of half a walk */
	} else if (f->at < depth) {
		walk(c, f->fid, f->at);
	} else if (!same_file(k, depth ? &m->rwalk.wqid.v[m->rwalk.wqid.n - 1] : &k->root->qid)) {
		stale(c, f->fid, true);
	} else if (k->open) {
		open_again(c, f->fid);
	}
}

static void on_own(struct p9_client *c, const struct p9_flight *f, const struct p9_msg *m)
{
	switch (f->stage) {
	case P9_STAGE_VERSION:
		if (m->type != P9_Rversion || m->rversion.msize < c->recover->msize) {
			p9_engine_fail(&c->engine, P9_EMSGSIZE, "the server grants smaller messages than before");
		} else {
			attach_all(c);
		}
		break;
	case P9_STAGE_ATTACH:
		if (m->type == P9_Rattach) {
			f->root->qid = m->rattach.qid;
		} else { /* the engine has the fid back; the server may be half started: ask once more */
			f->root->fid = P9_NOFID;
			p9_engine_fail(&c->engine, m->type == P9_Rlerror ? (int)m->rlerror.ecode : P9_EIO,
				       "the tree cannot be attached any more");
		}
		break;
	case P9_STAGE_WALK:
		on_walked(c, f, m);
		break;
	case P9_STAGE_OPEN:
		if (m->type == P9_Rlopen) {
			lock_next(c, f->fid, c->recover->kept[f->fid].locks);
		} else {
			stale(c, f->fid, true);
		}
		break;
	case P9_STAGE_LOCK:
		if (m->type == P9_Rlock && m->rlock.status == P9_LOCK_SUCCESS) {
			lock_next(c, f->fid, f->lock->next);
		} else {
			stale(c, f->fid, true);
		}
		break;
	case P9_STAGE_DROP:
		hold_fid(c, f->fid); /* the number stays the program's */
		break;
	default:
		break;
	}
}

/* One that was set aside goes out again, or is answered. */
static void release(struct p9_client *c, struct p9_flight *f)
{
	struct p9_recover *r = c->recover;
	struct p9_msg t, done = { .type = P9_Rclunk };
	if (f->verdict == P9_VERDICT_REPEAT && p9_track_message(f, &t) >= 0) {
		int rc = refusal(r, &t);
		int tag = rc > 0 ? launch(c, f, &t, f->call) : -1;
		if (tag >= 0) {
			f->call->tag = (uint16_t)tag;
			c->npatient += f->call->patient;
			*f = (struct p9_flight){ 0 }; /* its copy is in flight with it */
			return;
		}
		answer_here(c, &t, f->call, rc > 0 ? -P9_EIO : rc);
	} else if (f->verdict == P9_VERDICT_DONE) {
		answer(c, f->call, &done);
	} else {
		answer_error(c, f->call, f->verdict == P9_VERDICT_ERROR ? (int)f->ecode : P9_EIO);
	}
	free_flight(f);
}

static void finish(struct p9_client *c)
{
	struct p9_recover *r = c->recover;
	for (struct p9_root *root = r->roots; root; root = root->next) {
		struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = root->fid } };
		if (root->fid != P9_NOFID) {
			send_own(c, own(P9_STAGE_TIDY, root->fid), &t);
			root->fid = P9_NOFID;
		}
	}
	r->state = P9_RECOVER_OK;
	for (unsigned i = 0; i < r->nheld; i++) {
		release(c, &r->held[i]);
	}
	r->nheld = 0;
	c->heard = p9_client_now();
	if (c->threaded) {
		pthread_cond_broadcast(&c->news);
	}
}

/* Begins with as many fids as there is room for; when all are through, so are we. */
static void proceed(struct p9_client *c)
{
	struct p9_recover *r = c->recover;
	bool attaching = r->cursor == 0 && r->own_flying > 0;
	if (attaching || !c->engine.ready || c->engine.error) {
		return;
	}
	while (r->cursor < r->nkept && p9_engine_room(&c->engine) > 1 && !c->engine.error) {
		uint32_t fid = r->cursor++;
		if (r->kept[fid].live && !r->kept[fid].stale) {
			get_again(c, fid);
		}
	}
	if (r->cursor >= r->nkept && r->own_flying == 0 && !c->engine.error) {
		finish(c);
	}
}

bool p9_recover_reply(struct p9_client *c, const struct p9_reply *reply)
{
	struct p9_recover *r = c->recover;
	uint16_t tag = reply->msg.tag == P9_NOTAG ? c->engine.ntags : reply->msg.tag;
	struct p9_flight f = r->flights[tag];
	if (reply->user == &r->own) {
		r->flights[tag] = (struct p9_flight){ 0 };
		r->own_flying -= f.stage != P9_STAGE_TIDY;
		if (f.stage != P9_STAGE_TIDY) {
			on_own(c, &f, &reply->msg);
			proceed(c);
		}
		free(f.frame);
		return true;
	}
	if (f.kind == P9_FLIGHT_USER && f.call == reply->user) {
		r->flights[tag] = (struct p9_flight){ 0 };
		p9_track_reply(r, &f, &reply->msg);
		free(f.frame);
	}
	return false;
}

/* ---- time ---- */
static void connect_now(struct p9_client *c)
{
	struct p9_recover *r = c->recover;
	char why[P9_CLIENT_TEXT];
	uint64_t now = p9_client_now();
	r->attempt_end = now + ATTEMPT_MS < r->give_up ? now + ATTEMPT_MS : r->give_up;
	int rc = p9_addr_connect_begin(&r->addr, r->attempts, &r->fd, why, sizeof(why));
	if (rc < 0) {
		again(c, -rc, why);
		return;
	}
	r->state = P9_RECOVER_CONNECT;
}

static void look_at_connect(struct p9_client *c)
{
	struct p9_recover *r = c->recover;
	struct pollfd p = { .fd = r->fd, .events = POLLOUT };
	int e = 0;
	socklen_t n = sizeof(e);
	if (poll(&p, 1, 0) <= 0) {
		return;
	}
	if (getsockopt(r->fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0 || e != 0) {
		int ecode = p9_hosterr(e ? e : errno);
		again(c, ecode, p9_error_text((uint32_t)ecode));
		return;
	}
	begin_session(c);
}

/* One that was set aside is answered before the link is back. */
static void answer_held(struct p9_client *c, unsigned i, int ecode)
{
	struct p9_recover *r = c->recover;
	struct p9_flight *f = &r->held[i];
	uint32_t fid = f->verdict == P9_VERDICT_REPEAT ? made_by(f) : P9_NOFID;
	if (fid != P9_NOFID) {
		p9_engine_fid_put(&c->engine, fid);
	}
	answer_error(c, f->call, ecode);
	free_flight(f);
	*f = r->held[--r->nheld];
	r->held[r->nheld] = (struct p9_flight){ 0 };
}

/* Deadlines of requests that were set aside. Returns the next. */
static uint64_t expire_held(struct p9_client *c, uint64_t now)
{
	struct p9_recover *r = c->recover;
	uint64_t next = UINT64_MAX;
	for (unsigned i = 0; i < r->nheld;) {
		uint64_t due = r->held[i].due;
		if (due && due <= now) {
			answer_held(c, i, P9_ETIMEDOUT);
			continue;
		}
		next = due && due < next ? due : next;
		i++;
	}
	return next;
}

bool p9_recover_cancel(struct p9_client *c, struct p9_call *call)
{
	struct p9_recover *r = c->recover;
	for (unsigned i = 0; i < r->nheld; i++) {
		if (r->held[i].call == call) {
			answer_held(c, i, P9_ECANCELED);
			return true;
		}
	}
	for (struct p9_answer *a = r->answers; a; a = a->next) {
		if (a->call == call) {
			return true; /* its answer is on the way */
		}
	}
	return false;
}

int p9_recover_tick(struct p9_client *c)
{
	struct p9_recover *r = c->recover;
	if (!p9_recover_busy(c)) {
		return -1;
	}
	uint64_t now = p9_client_now();
	enum p9_recover_state was = r->state;
	if (was == P9_RECOVER_WAIT && now >= r->next) {
		connect_now(c);
	} else if (was == P9_RECOVER_CONNECT) {
		look_at_connect(c);
	}
	bool slow = was != P9_RECOVER_WAIT && r->state == was && now >= r->attempt_end;
	if (slow && was == P9_RECOVER_CONNECT) {
		again(c, P9_ETIMEDOUT, p9_error_text(P9_ETIMEDOUT));
	} else if (slow) {
		p9_engine_fail(&c->engine, P9_ETIMEDOUT, "the server does not answer");
	}
	if (r->state != was || slow) {
		return 0;
	}
	uint64_t next = was == P9_RECOVER_WAIT ? r->next : r->attempt_end, due = expire_held(c, now);
	if (r->answers) {
		return 0;
	}
	next = due < next ? due : next;
	return next > now ? (int)(next - now) : 1;
}
