/* SPDX-License-Identifier: BSD-2-Clause */
/* resume.c - a session put up again on a new link.
 *
 * Tversion; Tattach for each tree, to fids of our own; then for each fid that was in use Twalk from its tree, Tlopen and
 * Tlock, many fids at once; then the requests that were set aside go out again or are answered, and our own fids are
 * clunked. Called by recover.c. Must stay true: whatever fails with one fid makes that fid stale and no more; what fails
 * with the link or a tree fails the attempt, which leaves nothing behind.
 */
#include <stdlib.h>
#include "client/recover.h"

static struct p9_flight own(uint8_t stage, uint32_t fid)
{
	return (struct p9_flight){ .kind = P9_FLIGHT_OWN, .stage = stage, .fid = fid };
}

/* Sends one of our own; what cannot be sent fails the attempt. */
static void send_own(struct p9_client *c, struct p9_flight f, struct p9_msg *t)
{
	if (p9_flight_launch(c, &f, t, &c->recover->own) < 0) {
		p9_engine_fail(&c->engine, P9_EIO, "the session could not be put up again");
		return;
	}
	c->recover->own_flying += f.stage != P9_STAGE_TIDY;
}

void p9_resume_begin(struct p9_client *c)
{
	struct p9_recover *r = c->recover;
	struct p9_msg t = { .type = P9_Tversion,
			    .tversion = { .msize = c->engine.msize, .version = { "9P2000.L", 8 } } };
	char why[P9_CLIENT_TEXT];
	int rc = c->carrier->again(c, r->fd, why);
	r->fd = -1;
	r->state = P9_RECOVER_TALK;
	if (rc < 0) {
		p9_engine_fail(&c->engine, -rc, why);
		return;
	}
	r->cursor = 0;
	c->heard = p9_client_now();
	for (uint32_t i = 0; i < r->nkept; i++) {
		r->kept[i].moved = false;
	}
	struct p9_flight f = own(P9_STAGE_VERSION, P9_NOFID);
	if (p9_engine_submit(&c->engine, &t, NULL, &r->own) >= 0) {
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
		p9_engine_fid_hold(&c->engine, f->fid);
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
		p9_engine_fid_hold(&c->engine, f->fid); /* the number stays the program's */
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
		int rc = p9_recover_refusal(r, &t);
		int tag = rc > 0 ? p9_flight_launch(c, f, &t, f->call) : -1;
		if (tag >= 0) {
			f->call->tag = (uint16_t)tag;
			c->npatient += f->call->patient;
			*f = (struct p9_flight){ 0 }; /* its copy is in flight with it */
			return;
		}
		p9_recover_here(c, &t, f->call, rc > 0 ? -P9_EIO : rc);
	} else if (f->verdict == P9_VERDICT_DONE) {
		p9_recover_give(c, f->call, &done);
	} else {
		p9_recover_error(c, f->call, f->verdict == P9_VERDICT_ERROR ? (int)f->ecode : P9_EIO);
	}
	p9_flight_free(f);
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

void p9_resume_reply(struct p9_client *c, const struct p9_flight *f, const struct p9_msg *m)
{
	on_own(c, f, m);
	proceed(c);
}
