/* SPDX-License-Identifier: BSD-2-Clause */
/* recover.c - a lost link is looked for, and what stood on it is put up again.
 *
 * When the engine's link ends, requests in flight are set aside and the engine is restarted. Then, in the background of
 * step, work or the thread: wait (longer after each failure, with jitter), connect, Tversion, Tattach, and for each fid
 * that was in use Twalk, Tlopen with the old flags but those that make or cut a file, and Tlock. A fid that leads to
 * another file, or nowhere, or whose locks are taken, is stale: ESTALE to everything, without asking the server.
 * At last the requests that were set aside go out again, in order, when that can do no harm; others are answered EIO. Fids
 * keep their numbers. Until then p9_client_send() has no room; it is as if the server were slow. The new link is resume.c's.
 * The handle ends when the time for looking is over, or the server speaks nonsense or grants less.
 * Must stay true: each request gets one answer; a fid of the program's is free in the engine only after its Tclunk or Tremove
 * was answered; requests of our own are never handed out.
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

/* ---- life: a request of our own that is in flight when the handle ends ---- */
static void unheard(struct p9_call *call, const struct p9_msg *reply)
{
	(void)call, (void)reply;
}

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
	r->own.done = unheard;
	r->random = p9_client_now() * 0x9e3779b97f4a7c15u ^ (uint64_t)getpid();
	if (!r->text || !r->flights || !r->held || p9_addr_parse(&r->addr, addr, r->why, sizeof(r->why)) < 0) {
		p9_recover_free(r);
		return NULL;
	}
	return r;
}

void p9_flight_free(struct p9_flight *f)
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
		p9_flight_free(&r->held[i]);
	}
	for (unsigned i = 0; r->flights && i < r->nflights; i++) {
		p9_flight_free(&r->flights[i]);
	}
	free(r->held);
	free(r->flights);
	free(r->text);
	free(r);
}

/* ---- answers of our own ---- */
/* Without memory the link ends: better than a request that is never answered. */
void p9_recover_give(struct p9_client *c, struct p9_call *call, const struct p9_msg *m)
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
void p9_recover_error(struct p9_client *c, struct p9_call *call, int ecode)
{
	struct p9_msg m = { .type = P9_Rlerror, .tag = P9_NOTAG, .rlerror = { (uint32_t)ecode } };
	p9_recover_give(c, call, &m);
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
static void hold_all(struct p9_client *c)
{
	struct p9_recover *r = c->recover;
	for (uint32_t fid = 0; fid < r->nkept; fid++) {
		if (r->kept[fid].live) {
			p9_engine_fid_hold(&c->engine, fid);
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
int p9_recover_refusal(struct p9_recover *r, const struct p9_msg *msg)
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
void p9_recover_here(struct p9_client *c, const struct p9_msg *msg, struct p9_call *call, int rc)
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
		p9_recover_error(c, call, -rc);
	} else {
		p9_recover_give(c, call, &ok);
	}
}

int p9_flight_launch(struct p9_client *c, struct p9_flight *f, struct p9_msg *msg, void *user)
{
	int rc = p9_engine_submit(&c->engine, msg, f->dst, user);
	if (rc < 0) {
		return rc;
	}
	struct p9_flight *at = &c->recover->flights[rc];
	p9_flight_free(at); /* one that was abandoned */
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
	if (c->threaded || p9_engine_pending(&c->engine) > 0 || !c->carrier->closed(c)) {
		return false;
	}
	p9_engine_fail(&c->engine, P9_ECONNRESET, "the server closed the connection");
	return true;
}

int p9_recover_submit(struct p9_client *c, struct p9_msg *msg, void *dst, struct p9_call *call)
{
	struct p9_recover *r = c->recover;
	bool lost = c->engine.error ? p9_recover_hope(c) : !p9_recover_busy(c) && idle_and_closed(c);
	if (p9_recover_busy(c) || lost) {
		return -P9_EAGAIN;
	}
	int rc = c->engine.error ? 1 : p9_recover_refusal(r, msg);
	if (rc <= 0) {
		p9_recover_here(c, msg, call, rc);
		return P9_NOTAG;
	}
	struct p9_flight f = { .call = call, .dst = dst, .kind = P9_FLIGHT_USER };
	if (!p9_track_request(&f, msg)) {
		return -P9_ENOMEM;
	}
	f.due = call->timeout_ms ? p9_client_now() + call->timeout_ms : 0;
	rc = p9_flight_launch(c, &f, msg, call);
	if (rc < 0) {
		p9_flight_free(&f);
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
	bool sent = s->out_end - p9_get32(f->frame) < c->engine.sent; /* else it has not happened */
	f->verdict = sent ? judge(f) : P9_VERDICT_REPEAT;
	if (s->state == P9_SLOT_OVERDUE || s->flushes) {
		f->verdict = P9_VERDICT_ERROR;
		f->ecode = s->flushes ? P9_ECANCELED : P9_ETIMEDOUT;
	}
	bool ends = f->type == P9_Tclunk || (f->type == P9_Tremove && f->verdict != P9_VERDICT_REPEAT);
	if (ends && p9_track_message(f, &t) >= 0) { /* for a Tremove to be done its fid is put up again */
		struct p9_kept *k = p9_track_kept(r, t.tclunk.fid);
		uint8_t v = f->verdict;
		v = k && v == P9_VERDICT_REPEAT	 ? P9_VERDICT_DONE   /* never sent, and the fid has gone all the same */
		    : !k && v == P9_VERDICT_DONE ? P9_VERDICT_REPEAT /* what makes the fid goes out again, then this */
						 : v;
		f->verdict = k && k->xwrite ? P9_VERDICT_UNSURE : v;
		p9_track_drop(r, t.tclunk.fid);
	}
	unsigned at = r->nheld++;
	f->order = s->out_end;
	for (; at > 0 && r->held[at - 1].order > f->order; at--) { /* in the order in which the program sent them */
		r->held[at] = r->held[at - 1];
	}
	r->held[at] = *f;
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
			p9_flight_free(f);
		}
	}
	while (p9_engine_drain(&c->engine, &reply)) {
	}
	hold_all(c);
	for (unsigned i = 0; i < r->nheld; i++) {
		uint32_t fid = r->held[i].verdict == P9_VERDICT_REPEAT ? made_by(&r->held[i]) : P9_NOFID;
		if (fid != P9_NOFID) {
			p9_engine_fid_hold(&c->engine, fid);
		}
	}
	r->own_flying = 0;
	c->npatient = 0;
}

static void hang_up(struct p9_client *c)
{
	if (c->carrier->hang_up) {
		c->carrier->hang_up(c);
	}
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

/* One that was set aside is answered before the link is back. */
static void answer_held(struct p9_client *c, unsigned i, int ecode)
{
	struct p9_recover *r = c->recover;
	struct p9_flight *f = &r->held[i];
	uint32_t fid = f->verdict == P9_VERDICT_REPEAT ? made_by(f) : P9_NOFID;
	if (fid != P9_NOFID) {
		p9_engine_fid_put(&c->engine, fid);
	}
	p9_recover_error(c, f->call, ecode);
	p9_flight_free(f);
	r->nheld--;
	memmove(f, f + 1, (r->nheld - i) * sizeof(*f));
	r->held[r->nheld] = (struct p9_flight){ 0 };
}

/* Every request that waits hears that it was in vain. */
static void give_up(struct p9_client *c, int ecode, const char *text)
{
	struct p9_recover *r = c->recover;
	hang_up(c);
	r->state = P9_RECOVER_OVER;
	p9_engine_fail(&c->engine, ecode, text);
	while (r->nheld > 0) {
		answer_held(c, r->nheld - 1, ecode);
	}
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

/* ---- replies ---- */
bool p9_recover_reply(struct p9_client *c, const struct p9_reply *reply)
{
	struct p9_recover *r = c->recover;
	uint16_t tag = reply->msg.tag == P9_NOTAG ? c->engine.ntags : reply->msg.tag;
	struct p9_flight f = r->flights[tag];
	if (reply->user == &r->own) {
		r->flights[tag] = (struct p9_flight){ 0 };
		r->own_flying -= f.stage != P9_STAGE_TIDY;
		if (f.stage != P9_STAGE_TIDY) {
			p9_resume_reply(c, &f, &reply->msg);
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
	if (c->carrier->let_go && !c->carrier->let_go(c)) {
		again(c, P9_EBUSY, "the device that we had still holds our memory");
		return;
	}
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
	p9_resume_begin(c);
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
