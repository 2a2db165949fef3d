/* SPDX-License-Identifier: BSD-2-Clause */
/* list.c - listings, with attributes when asked for.
 *
 * Attributes cost three requests an entry (walk, getattr, clunk). They go out for BATCH entries at once, one kind after
 * the other, because servers may answer requests out of order. The directory has two fids then: one open for Treaddir,
 * one to walk from, since walking from an open fid is not for every server.
 * A server that repeats an offset would list for ever: Brent's method finds a circle of any length without memory.
 */
#include "vfs/session.h"

#define BATCH 8

struct job {
	struct p9_session_call call;
	struct p9_entry entry;
	struct p9_rgetattr st;
	uint32_t fid;
	bool done, ok;
};
struct listing {
	struct p9_session *s;
	const struct p9_lister *how;
	uint32_t dir, open; /* dir: NOFID when no attributes are wanted */
	uint64_t offset;
	uint64_t seen, power, steps; /* Brent: an offset met, and how long it is kept */
};

static void job_done(struct p9_session_call *c, const struct p9_msg *r)
{
	struct job *j = (struct job *)c;
	j->done = true;
	j->ok = r->type == P9_Rgetattr || (r->type == P9_Rwalk && r->rwalk.wqid.n == 1);
	if (r->type == P9_Rgetattr) {
		j->st = r->rgetattr;
	}
}

/* Queues for one job, taking turns with what is in flight. A job that cannot be sent is done, and failed. */
static void job_send(struct p9_session *s, struct job *j, struct p9_msg *t)
{
	int rc;
	j->done = false;
	while ((rc = p9_session_submit(s, t, NULL, &j->call)) == -P9_EAGAIN && p9_session_step(s, true) >= 0) {
	}
	if (rc < 0) {
		j->done = true;
		j->ok = false;
	}
}

static void jobs_wait(struct p9_session *s, const struct job *jobs, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		while (!jobs[i].done && p9_session_step(s, true) >= 0) {
		}
	}
}

/* Attributes of up to BATCH entries. One that is gone by now has none. */
static void get_attributes(struct listing *l, struct job *jobs, unsigned n)
{
	struct p9_session *s = l->s;
	for (unsigned i = 0; i < n; i++) {
		jobs[i].fid = P9_NOFID;
		jobs[i].done = true;
		jobs[i].ok = false;
		if (p9_engine_fid_get(&s->engine, &jobs[i].fid) == 0) {
			struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = l->dir, .newfid = jobs[i].fid } };
			t.twalk.wname.n = 1;
			t.twalk.wname.v[0] = jobs[i].entry.name;
			job_send(s, &jobs[i], &t);
		}
	}
	jobs_wait(s, jobs, n);
	for (unsigned i = 0; i < n; i++) {
		if (jobs[i].ok) {
			struct p9_msg t = { .type = P9_Tgetattr,
					    .tgetattr = { .fid = jobs[i].fid, .request_mask = P9_GETATTR_BASIC } };
			job_send(s, &jobs[i], &t);
		} else {
			jobs[i].fid = P9_NOFID; /* it went back with the error */
		}
	}
	jobs_wait(s, jobs, n);
	for (unsigned i = 0; i < n; i++) {
		p9_session_let_go(s, jobs[i].fid);
		jobs[i].entry.st = jobs[i].ok ? &jobs[i].st : NULL;
	}
}

/* Hands up to BATCH entries over. */
static int deliver(struct listing *l, struct job *jobs, unsigned n)
{
	int rc = 0;
	if (l->how->sizes) {
		get_attributes(l, jobs, n);
		rc = p9_session_dead(l->s);
	}
	for (unsigned i = 0; i < n && rc == 0; i++) {
		rc = l->how->each(l->how->arg, &jobs[i].entry);
	}
	return rc;
}

static bool is_dots(const struct p9_str *n)
{
	return (n->len == 1 && n->s[0] == '.') || (n->len == 2 && n->s[0] == '.' && n->s[1] == '.');
}

/* The entries of one Rreaddir. The engine has looked at their names. */
static int take_entries(struct listing *l, const struct p9_data *data)
{
	struct job jobs[BATCH];
	struct p9_dirent ent;
	size_t pos = 0;
	unsigned n = 0;
	int rc = 0;
	while (rc == 0 && p9_wire_dirent_get(data, &pos, &ent) > 0) {
		l->offset = ent.offset;
		if (is_dots(&ent.name)) {
			continue;
		}
		jobs[n++] = (struct job){ .call = { job_done }, .entry = { ent.name, ent.qid, ent.type, NULL } };
		if (n == BATCH) {
			rc = deliver(l, jobs, n);
			n = 0;
		}
	}
	return rc ? rc : deliver(l, jobs, n);
}

static bool in_a_circle(struct listing *l)
{
	if (l->steps > 0 && l->offset == l->seen) {
		return true;
	}
	if (l->steps == l->power) {
		l->seen = l->offset;
		l->power = l->power ? l->power * 2 : 1;
		l->steps = 0;
	}
	l->steps++;
	return false;
}

static int read_entries(struct listing *l, uint8_t *buf, uint32_t cap)
{
	uint32_t most = l->s->engine.msize - P9_RREADHDRSZ;
	int rc = 0;
	cap = cap < most ? cap : most;
	while (rc == 0) {
		struct p9_msg r,
			t = { .type = P9_Treaddir, .treaddir = { .fid = l->open, .offset = l->offset, .count = cap } };
		rc = p9_session_call(l->s, &t, buf, &r);
		if (rc < 0 || r.rreaddir.data.len == 0) {
			return rc;
		}
		rc = take_entries(l, &r.rreaddir.data);
		if (rc == 0 && in_a_circle(l)) {
			return -P9_EIO;
		}
	}
	return rc;
}

/* A second fid for the directory. */
static int again(struct p9_session *s, uint32_t fid, uint32_t *newfid)
{
	int rc = p9_engine_fid_get(&s->engine, newfid);
	if (rc < 0) {
		*newfid = P9_NOFID;
		return rc;
	}
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = fid, .newfid = *newfid } };
	rc = p9_session_call(s, &t, NULL, NULL);
	if (rc < 0) {
		*newfid = P9_NOFID;
	}
	return rc;
}

int p9_session_list(struct p9_session *s, const char *path, const struct p9_lister *how)
{
	struct listing l = { .s = s, .how = how, .dir = P9_NOFID };
	struct p9_place at;
	if (!how->buf && s->listing) {
		return -P9_EBUSY;
	}
	int rc = p9_walk(s, path, P9_WALK_LINK, &at);
	if (rc < 0) {
		return rc;
	}
	l.dir = at.fid;
	rc = at.qid.type & P9_QTDIR ? again(s, at.fid, &l.open) : -P9_ENOTDIR;
	if (rc == 0) {
		struct p9_msg t = { .type = P9_Tlopen, .tlopen = { l.open, P9_O_RDONLY | P9_O_DIRECTORY } };
		rc = p9_session_call(s, &t, NULL, NULL);
		s->listing |= !how->buf;
		rc = rc < 0 ? rc : read_entries(&l, how->buf ? how->buf : s->dir, how->buf ? how->cap : s->dir_size);
		s->listing &= how->buf != NULL;
		p9_session_let_go(s, l.open);
	}
	p9_session_let_go(s, l.dir);
	return rc;
}
