/* SPDX-License-Identifier: BSD-2-Clause */
/* ahead.c - attributes of files that a program is likely to ask for next.
 *
 * A program that looks for one name after the other in a directory waits for a round trip each. At its second look the
 * directory is read here, and its entries are walked to and looked at, many in flight; the lookups that follow are answered
 * at once. Called by node.c (a lookup), steps.c (what changes anything) and late.c (time).
 * Must stay true: what was fetched is believed no longer than what was asked for (attr_timeout, entry_timeout, counted
 * from when it was asked), never after anything was changed through this mount, and never for a file that the kernel
 * knows already. It is bounded, and gone when its time is over. A directory where it was in vain rests.
 */
#include <stdlib.h>
#include <string.h>
#include "mount/internal.h"

#define LOOKS 2u	    /* of a directory, before it is read ahead */
#define WITHIN_MS 500u	    /* of each other */
#define ENTRIES 256u	    /* fetched for one read ahead */
#define CHUNK 16u	    /* of them at a time, so that others' requests need not wait long behind them */
#define MOST 8192u	    /* kept; a fid each, of which there are as many as max_fids says */
#define BLOCK (32u * 1024)  /* of a listing */
#define REST_MS 10000u	    /* of a directory after a fetch of which less than a quarter was used */
#define ENTRY_MIN 24u

struct p9_mahead {
	struct p9_mahead *next, *prev; /* by age */
	struct p9_minode *ino, *dir;   /* counted */
	struct p9_rgetattr attr;
	uint64_t when, changes;
};

/* How long what was fetched is believed, ms. */
static uint64_t lifetime(const struct p9_mount *m)
{
	double a = p9_mount_attr_timeout(m), e = p9_mount_entry_timeout(m);
	double s = a < e ? a : e;
	return s <= 0 ? 0 : s < 1.0 ? (uint64_t)(s * 1000) : 1000;
}

static void drop(struct p9_mount *m, struct p9_mahead *a)
{
	struct p9_minode *ino = a->ino, *dir = a->dir;
	*(a->prev ? &a->prev->next : &m->ahead) = a->next;
	*(a->next ? &a->next->prev : &m->ahead_last) = a->prev;
	m->naheads--;
	ino->ahead = NULL;
	free(a);
	p9_minode_unref(m, ino);
	p9_minode_unref(m, dir);
}

void p9_mahead_drop(struct p9_mount *m, struct p9_minode *i)
{
	if (i->ahead) {
		drop(m, i->ahead);
	}
}

int p9_mahead_expire(struct p9_mount *m, uint64_t now)
{
	uint64_t life = lifetime(m);
	while (m->ahead && (now - m->ahead->when >= life || m->ahead->changes != m->changes)) {
		drop(m, m->ahead);
	}
	return m->ahead ? (int)(m->ahead->when + life - now) : -1;
}

void p9_mahead_fini(struct p9_mount *m)
{
	while (m->ahead) {
		drop(m, m->ahead);
	}
}

/* Keeps what was found out about an entry; its fid becomes the inode's. */
static void keep(struct p9_mreq *r, struct p9_mentry *e)
{
	struct p9_mount *m = r->m;
	struct p9_minode *i = p9_minode_got(m, &e->attr, e->fid);
	if (!i) {
		return; /* the fid goes back with the request */
	}
	p9_mreq_take(r, e->fid);
	p9_minode_hold(m, i);
	p9_minode_place(m, i, r->ino, (const char *)e->name, e->name_len);
	struct p9_mahead *a = i->nlookup == 0 && !i->ahead && i->dir == r->ino ? malloc(sizeof(*a)) : NULL;
	if (a) {
		*a = (struct p9_mahead){
			.ino = i, .dir = r->ino, .attr = e->attr, .when = r->when, .changes = r->changes
		};
		p9_minode_ref(i);
		p9_minode_ref(r->ino);
		i->ahead = a;
		a->prev = m->ahead_last;
		*(a->prev ? &a->prev->next : &m->ahead) = a;
		m->ahead_last = a;
		m->naheads++;
		r->ino->fetched++;
	}
	p9_minode_release(m, i);
	while (m->naheads > MOST) {
		drop(m, m->ahead);
	}
}

/* ---- looking at a chunk: step 2k walks to entry u32[0] + k, step 2k + 1 looks at it ---- */
static int look_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	struct p9_mentry *e = &r->entries[r->u32[0] + i / 2];
	struct p9_str name = { (const char *)e->name, e->name_len };
	(void)dst;
	if (i % 2 == 0) {
		int rc = p9_client_fid(r->m->client, &e->fid);
		*t = (struct p9_msg){ .type = P9_Twalk,
				      .twalk = { .fid = r->ino->fid, .newfid = e->fid, .wname = { 1, { name } } } };
		return rc;
	}
	if (e->fid == P9_NOFID || r->calls[i - 1].error) {
		return P9_MSKIP;
	}
	*t = (struct p9_msg){ .type = P9_Tgetattr, .tgetattr = { .fid = e->fid, .request_mask = P9_MOUNT_ATTRS } };
	return 0;
}

static int look_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	struct p9_mentry *e = &r->entries[r->u32[0] + i / 2];
	if (i % 2 == 0) {
		e->qid = reply->rwalk.wqid.v[0];
		return 0;
	}
	e->attr = reply->rgetattr;
	e->got = p9_mattr_check(&e->attr) == 0 && e->attr.qid.path == e->qid.path && e->attr.qid.type == e->qid.type;
	return 0;
}

static void chunk(struct p9_mreq *r);
static void look_finish(struct p9_mreq *r)
{
	for (unsigned k = 0; k < r->ncalls / 2; k++) {
		struct p9_mentry *e = &r->entries[r->u32[0] + k];
		if (e->got && r->changes == r->m->changes) {
			keep(r, e);
		}
	}
	r->u32[0] += r->ncalls / 2;
	p9_mreq_drop_made(r, false);
	chunk(r);
}

static const struct p9_mop look_op = {
	.name = "look ahead", .build = look_build, .took = look_took, .finish = look_finish
};

static void end(struct p9_mreq *r)
{
	r->ino->fetching = false;
	r->m->fetching--;
	p9_mreq_free(r);
}

static void chunk(struct p9_mreq *r)
{
	unsigned left = r->nentries - r->u32[0];
	bool stale = r->changes != r->m->changes || p9_mount_now() - r->when >= lifetime(r->m);
	if (left == 0 || stale || p9_client_dead(r->m->client)) {
		end(r);
		return;
	}
	r->ncalls = (uint16_t)(2 * (left < CHUNK ? left : CHUNK));
	r->when = p9_mount_now();
	p9_mreq_chain(r, &look_op);
}

/* ---- reading the directory ---- */
static int list_build(struct p9_mreq *r, unsigned i, struct p9_msg *t, void **dst)
{
	int rc = 0;
	switch (i) {
	case 0:
		rc = p9_mreq_fid(r, 0);
		*t = (struct p9_msg){ .type = P9_Twalk, .twalk = { .fid = r->ino->fid, .newfid = r->fid[0] } };
		return rc;
	case 1:
		*t = (struct p9_msg){ .type = P9_Tlopen,
				      .tlopen = { .fid = r->fid[0], .flags = P9_O_RDONLY | P9_O_DIRECTORY } };
		return 0;
	default:
		*dst = p9_mreq_buffer(r, BLOCK);
		*t = (struct p9_msg){ .type = P9_Treaddir,
				      .treaddir = { .fid = r->fid[0], .offset = r->off, .count = (uint32_t)r->size } };
		return *dst ? 0 : -P9_ENOMEM;
	}
}

static int list_took(struct p9_mreq *r, unsigned i, const struct p9_msg *reply)
{
	if (i == 2) {
		r->done = reply->rreaddir.data.len;
	}
	return 0;
}

static bool wanted(const struct p9_mreq *r, const struct p9_dirent *e)
{
	bool dots = e->name.s[0] == '.' && (e->name.len == 1 || (e->name.len == 2 && e->name.s[1] == '.'));
	struct p9_minode *i = dots ? NULL : p9_minode_named(r->m, r->ino, e->name.s, e->name.len);
	return !dots && (!i || (i->nlookup == 0 && !i->ahead));
}

/* Chooses what is not known. */
static void choose(struct p9_mreq *r, unsigned most)
{
	struct p9_data d = { (uint32_t)r->done, r->buf };
	struct p9_dirent e;
	size_t pos = 0;
	uint64_t cookie = 0;
	while (r->nentries < most && p9_wire_dirent_get(&d, &pos, &e) > 0) {
		cookie = e.offset;
		if (wanted(r, &e)) {
			r->entries[r->nentries++] = (struct p9_mentry){ .fid = P9_NOFID,
									.name = (const uint8_t *)e.name.s,
									.name_len = e.name.len };
		}
	}
	r->ino->ahead_cookie = pos < d.len || r->done >= BLOCK / 2 ? cookie : 0; /* else that was all of it */
}

static void list_finish(struct p9_mreq *r)
{
	p9_mreq_drop_made(r, false);
	unsigned most = r->m->o.max_fids / 4 < ENTRIES ? r->m->o.max_fids / 4 : ENTRIES;
	unsigned cap = (unsigned)(r->done / ENTRY_MIN);
	most = most < cap ? most : cap;
	r->entries = !r->error && most ? calloc(most, sizeof(*r->entries)) : NULL;
	if (!r->entries) {
		r->ino->rests_until = r->error ? p9_mount_now() + REST_MS : 0;
		end(r);
		return;
	}
	choose(r, most);
	r->u32[0] = 0;
	r->ino->fetched = r->ino->used = 0;
	struct p9_mount *m = r->m;
	r->ino->fetching = false; /* without memory the request is gone, and perhaps the directory */
	m->fetching--;
	if (p9_mreq_many(r, 2 * CHUNK)) {
		r->ino->fetching = true;
		m->fetching++;
		chunk(r);
	}
}

static const struct p9_mop list_op = {
	.name = "read ahead", .steps = 3, .build = list_build, .took = list_took, .finish = list_finish
};

static void begin(struct p9_mount *m, struct p9_minode *dir, uint64_t now)
{
	struct p9_mreq *r = p9_mreq_new(m, NULL);
	if (!r) {
		return;
	}
	uint32_t io = p9_client_iosize(m->client, 0);
	r->ino = dir;
	p9_minode_hold(m, dir);
	dir->fetching = true;
	m->fetching++;
	r->off = dir->ahead_cookie;
	r->size = io < BLOCK ? io : BLOCK;
	r->when = now;
	r->changes = m->changes;
	p9_mreq_chain(r, &list_op);
}

/* ---- lookups ---- */
bool p9_mahead_lookup(fuse_req_t req, struct p9_minode *dir, const char *name)
{
	struct p9_mount *m = fuse_req_userdata(req);
	struct p9_minode *i = m->ahead ? p9_minode_named(m, dir, name, strlen(name)) : NULL;
	struct fuse_entry_param e;
	if (!i || !i->ahead) {
		return false;
	}
	uint64_t now = p9_mount_now(), life = lifetime(m), age = now - i->ahead->when;
	if (age >= life || i->ahead->changes != m->changes || i->nlookup > 0 || !i->hashed) {
		drop(m, i->ahead);
		return false;
	}
	p9_mentry_fill(m, i, &i->ahead->attr, &e);
	e.attr_timeout -= (double)age / 1000;
	e.entry_timeout -= (double)age / 1000;
	i->told_when -= age;
	dir->used++;
	p9_minode_looked(m, i); /* and it is ahead no more */
	if (fuse_reply_entry(req, &e) < 0) {
		p9_minode_forget(m, i, 1);
	}
	return true;
}

void p9_mahead_missed(struct p9_mount *m, struct p9_minode *dir)
{
	uint64_t now = p9_mount_now();
	bool again = now - dir->looked < WITHIN_MS && dir->looked_changes == m->changes;
	dir->looks = again ? dir->looks + 1 : 1;
	dir->looked = now;
	dir->looked_changes = m->changes;
	if (dir->looks < LOOKS || dir->fetching || dir->fid == P9_NOFID || now < dir->rests_until || !m->ordered ||
	    lifetime(m) == 0 || p9_client_dead(m->client)) {
		return;
	}
	if (dir->used < dir->fetched / 4) {
		dir->rests_until = now + REST_MS;
		dir->fetched = 0;
		return;
	}
	begin(m, dir, now);
}
