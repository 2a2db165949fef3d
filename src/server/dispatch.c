/* SPDX-License-Identifier: BSD-2-Clause */
/* dispatch.c - from a decoded message to its operation.
 *
 * What a message needs stands in proto/: which fields are fids to look up, in what state the fid must be, whether it
 * may run beside others on the same fid, whether it changes anything. That is done here, once, for all messages; an
 * operation then consists of start (rules, on the loop), run (backend, any thread), done (fids change, on the loop).
 */
#include <string.h>
#include "server/internal.h"

#define APART_MIN (256u * 1024)
#define HELPER_MIN (512u * 1024) /* below, waking a thread costs more than it saves */

const struct p9_op *const p9_op_table[128] = {
#define P9_OP_ROW(lo) [P9_T##lo] = &p9_op_##lo,
	P9_OP_LIST(P9_OP_ROW)
};

enum { EFFECT_pure = 0, EFFECT_changes = 1 };
const struct p9_rule p9_rules[256] = {
#define TMSG(lo, num, st, ord, eff, doc) [num] = { 1, 0, P9_STATE_##st, P9_ORDER_##ord, EFFECT_##eff },
#define RMSG(lo, num, doc) [num] = { 0, 1, 0, 0, 0 },
#define FIELD(kind, name, doc)
#define END(dir, lo)
#include "9p2000L.def"
};

/* ---- look-ups, by kind of field ---- */
static int look_none(struct p9_req *r, uint32_t id)
{
	(void)r;
	(void)id;
	return 0;
}
static int look_fid(struct p9_req *r, uint32_t id)
{
	r->fid = p9_fid_find(&r->conn->fids, id);
	return r->fid ? 0 : -P9_EBADF;
}
static int look_dfid(struct p9_req *r, uint32_t id)
{
	r->fid2 = p9_fid_find(&r->conn->fids, id);
	return r->fid2 ? 0 : -P9_EBADF;
}
static int look_newfid(struct p9_req *r, uint32_t id)
{
	if (id == P9_NOFID) {
		return -P9_EBADF;
	}
	if (p9_fid_find(&r->conn->fids, id)) {
		return -P9_EEXIST;
	}
	r->want_new = true;
	r->new_id = id;
	return 0;
}
/* Only integers are looked up; the rest of the kinds take this way out. */
#define look_name(r, v) 0
#define look_newname(r, v) 0
#define look_movename(r, v) 0
#define look_delname(r, v) 0
#define look_names(r, v) 0
#define look_target(r, v) 0
#define look_xname(r, v) 0
#define look_xwalk(r, v) 0
#define look_oflags(r, v) 0
#define look_setmask(r, v) 0
#define look_offset(r, v) 0
#define look_locktype(r, v) 0
#define look_lockflags(r, v) 0
#define look_atflags(r, v) 0
#define look_xflags(r, v) 0
#define none_u8(v) 0
#define none_u16(v) 0
#define none_u32(v) (*(v))
#define none_u64(v) 0
#define none_str(v) 0
#define none_strs(v) 0
#define none_qid(v) 0
#define none_qids(v) 0
#define none_data(v) 0

typedef uint8_t ctype_u8;
typedef uint16_t ctype_u16;
typedef uint32_t ctype_u32;
typedef uint64_t ctype_u64;
typedef struct p9_str ctype_str;
typedef struct p9_strs ctype_strs;
typedef struct p9_qid ctype_qid;
typedef struct p9_qids ctype_qids;
typedef struct p9_data ctype_data;
#define KIND(k, wire, check, print, fuzz, doc) \
	static inline __attribute__((unused)) int look_kind_##k(struct p9_req *r, const ctype_##wire *v) \
	{ \
		(void)r; \
		(void)v; \
		return look_##check(r, none_##wire(v)); \
	}
#include "kinds.def"

static int look_up(struct p9_req *r)
{
	int rc = 0;
	switch (r->type) {
#define TMSG(lo, num, state, order, effect, doc) \
	case num: { \
		const struct p9_t##lo *m = &r->t.t##lo;
#define RMSG(lo, num, doc) /* never comes here: conn.c closes the link */ \
	case num: { \
		const struct p9_r##lo *m = &r->t.r##lo;
#define FIELD(kind, name, doc) \
	rc = look_kind_##kind(r, &m->name); \
	if (rc < 0) { \
		return rc; \
	}
#define END(dir, lo) \
	(void)m; \
	return rc; \
	}
#include "9p2000L.def"
	default:
		return -P9_EOPNOTSUPP;
	}
}

/* ---- what a fid must be ---- */
static int check_state(const struct p9_req *r, const struct p9_rule *d)
{
	const struct p9_fid *f = r->fid;
	if (!f) {
		return 0;
	}
	if (f->gone || !f->node) {
		return -P9_EBADF;
	}
	if (r->fid2 && !r->want_new && (r->fid2->gone || !r->fid2->node)) {
		return -P9_EBADF;
	}
	switch (d->state) {
	case P9_STATE_closed:
		return f->file || f->xattr ? -P9_EINVAL : 0;
	case P9_STATE_walkable:
		return f->xattr ? -P9_EINVAL : 0;
	case P9_STATE_open:
		return f->file || f->xattr ? 0 : -P9_EBADF;
	default:
		return 0;
	}
}

static int check_changes(const struct p9_req *r, const struct p9_rule *d)
{
	const struct p9_export *ex = r->ex;
	bool frees = r->type == P9_Tremove; /* the fid goes all the same: op_session.c answers */
	return d->changes && !frees && ex && ex->conf.ro && !ex->conf.ro_below ? -P9_EROFS : 0;
}

static bool must_wait(const struct p9_fid *f, uint8_t order)
{
	return f->writers || f->wait_head || (f->readers && order == P9_ORDER_write);
}

/* The fid that r has to wait behind, or NULL. The second fid is read only. */
static struct p9_fid *in_the_way(const struct p9_req *r)
{
	if (r->fid && must_wait(r->fid, p9_req_order(r))) {
		return r->fid;
	}
	return r->fid2 && !r->want_new && must_wait(r->fid2, P9_ORDER_read) ? r->fid2 : NULL;
}

static void wait_behind(struct p9_req *r, struct p9_fid *f)
{
	p9_req_detach(r);
	r->state = REQ_QUEUED;
	r->wait_next = NULL;
	*(f->wait_tail ? &f->wait_tail->wait_next : &f->wait_head) = r;
	f->wait_tail = r;
}

void p9_req_run(struct p9_req *r, const void **ident)
{
	static const _Atomic bool never = false;
	const struct p9_attach *at = r->fid ? r->fid->at : NULL;
	struct p9_caller c = { at ? at->cred : NULL, ident, r->op->must_run ? &never : &r->cancel };
	do {
		r->rc = r->op->run(r, &c);
	} while (r->rc == -P9_EINTR && r->pure && !atomic_load_explicit(&r->cancel, memory_order_relaxed));
}

/* In place, on the loop. Returns 0 or P9_LOST. */
static int run_here(struct p9_req *r)
{
	struct p9_shard *sh = r->conn->shard;
	struct p9_thread *self = sh->loop.thread;
	sh->calling = r;
	atomic_store_explicit(&r->thread, self, memory_order_relaxed);
	uint64_t turn = p9_loop_enter(&sh->loop);
	p9_req_run(r, &self->ident);
	if (!p9_loop_leave(&sh->loop, turn)) {
		p9_req_come_back(r);
		return P9_LOST;
	}
	sh->calling = NULL;
	if (r->rc == -P9_EAGAIN && r->op->again) {
		bool had_room = r->has_room;
		if (had_room || r->op->again(r) < 0) {
			p9_req_again(r); /* it would wait for a disk: not here */
			return 0;
		}
		return run_here(r); /* the kernel cannot send it by itself: copy it */
	}
	p9_req_finish(r);
	return 0;
}

/* Checks and starts; the fid is free for it. Returns what start said. */
static int begin(struct p9_req *r, const struct p9_rule *d)
{
	int rc = check_state(r, d);
	r->ex = rc == 0 && r->fid ? r->fid->at->ex : NULL;
	r->vol = r->ex ? p9_volume_of(r->ex, r->fid->node) : NULL;
	rc = rc < 0 ? rc : check_changes(r, d);
	if (rc == 0 && r->want_new && p9_fid_find(&r->conn->fids, r->new_id)) {
		rc = -P9_EEXIST; /* made by another while this one waited */
	}
	r->pure = !d->changes;
	return rc < 0 ? rc : r->op->start ? r->op->start(r) : 0;
}

/* A large read that copies, with others behind it: two processors copy faster than one, and a thread costs little to that. */
static bool worth_a_thread(const struct p9_req *r)
{
	return r->type == P9_Tread && p9_link_of(r->conn)->more && r->has_room && r->t.tread.count >= APART_MIN;
}

/* One that is alone, into a guest's memory: another thread copies half of it (op_io.c). */
static bool worth_a_helper(const struct p9_req *r)
{
	const struct p9_link *l = p9_link_of(r->conn);
	return r->type == P9_Tread && l->lasting && !l->more && r->vol && r->has_room &&
	       r->t.tread.count >= HELPER_MIN && r->conn->srv->nshards > 1;
}

int p9_dispatch(struct p9_req *r)
{
	const struct p9_rule *d = &p9_rules[r->type];
	r->op = p9_op_table[r->type];
	int rc = look_up(r);
	if (rc < 0) {
		r->rc = rc;
		r->want_new = false;
		p9_req_finish(r);
		return 0;
	}
	struct p9_fid *busy = in_the_way(r);
	if (busy) {
		wait_behind(r, busy);
		return 0;
	}
	rc = begin(r, d);
	if (rc == P9_WAITS) {
		return 0;
	}
	if (rc < 0 || rc == P9_NOW) {
		r->rc = rc == P9_NOW ? 0 : rc;
		p9_req_finish(r);
		return 0;
	}
	bool slow = r->vol && atomic_load_explicit(&r->vol->slow, memory_order_relaxed);
	r->apart = !slow && worth_a_thread(r);
	r->helped = worth_a_helper(r);
	if (r->apart || slow) {
		(r->apart ? p9_req_submit_copy : p9_req_submit)(r);
		return 0;
	}
	return run_here(r);
}

/* A request that waited behind `f` may go on: never in place, for this runs inside of another's end. */
static void go_on(struct p9_req *r, const struct p9_fid *f)
{
	struct p9_fid *other = f == r->fid ? r->fid2 : r->fid;
	uint8_t order = other == r->fid ? p9_req_order(r) : (uint8_t)P9_ORDER_read;
	if (other && other != f && !r->want_new && must_wait(other, order)) {
		wait_behind(r, other);
		return;
	}
	int rc = begin(r, &p9_rules[r->type]);
	if (rc == P9_WAITS) {
		return;
	}
	if (rc < 0 || rc == P9_NOW) {
		r->rc = rc == P9_NOW ? 0 : rc;
		p9_req_finish(r);
	} else {
		p9_req_submit(r);
	}
}

void p9_fid_next(struct p9_conn *conn, struct p9_fid *f)
{
	f->pins++; /* f must outlive what ends here */
	while (f->wait_head && !f->writers) {
		struct p9_req *r = f->wait_head;
		if (f->readers && f == r->fid && p9_req_order(r) == P9_ORDER_write) {
			break;
		}
		f->wait_head = r->wait_next;
		if (!f->wait_head) {
			f->wait_tail = NULL;
		}
		go_on(r, f);
	}
	if (--f->pins == 0 && f->gone) { /* whoever waited was the last to hold it */
		p9_fid_release(conn, f, NULL);
		p9_fid_free(conn, f);
	}
}
