/* SPDX-License-Identifier: BSD-2-Clause */
/* track.c - what every fid stands for: the name it was walked to, how it was opened, which locks it took.
 *
 * Called by recover.c with each request that goes out and each reply to one, only on handles that may reconnect. Names are
 * a tree (names.c), so that a rename of this client's moves all fids below it. Renames by others are not seen; the qid
 * tells when a name leads to another file by then.
 */
#include <stdlib.h>
#include <string.h>
#include "client/recover.h"

struct p9_kept *p9_track_kept(struct p9_recover *r, uint32_t fid)
{
	return fid < r->nkept && r->kept[fid].live ? &r->kept[fid] : NULL;
}

static void free_lock(struct p9_held_lock *l)
{
	free((char *)(uintptr_t)l->client_id.s);
	free(l);
}

static void free_locks(struct p9_held_lock *l)
{
	while (l) {
		struct p9_held_lock *next = l->next;
		free_lock(l);
		l = next;
	}
}

void p9_track_drop(struct p9_recover *r, uint32_t fid)
{
	struct p9_kept *k = p9_track_kept(r, fid);
	if (k) {
		p9_name_put(&r->names, k->name);
		free_locks(k->locks);
		*k = (struct p9_kept){ 0 };
	}
}

/* A new entry for a fid; without memory NULL, and the fid will not be got again. */
static struct p9_kept *keep(struct p9_recover *r, uint32_t fid)
{
	if (fid >= r->nkept) {
		uint32_t n = fid < 64 ? 64 : 2 * fid;
		struct p9_kept *more = realloc(r->kept, n * sizeof(*more));
		if (!more) {
			return NULL;
		}
		memset(more + r->nkept, 0, (n - r->nkept) * sizeof(*more));
		r->kept = more;
		r->nkept = n;
	}
	p9_track_drop(r, fid);
	r->kept[fid].live = true;
	return &r->kept[fid];
}

bool p9_track_request(struct p9_flight *f, const struct p9_msg *msg)
{
	bool writes = msg->type == P9_Twrite;
	size_t n = p9_wire_size(msg) - (writes ? msg->twrite.data.len : 0);
	f->type = msg->type;
	f->payload = writes ? msg->twrite.data.p : NULL;
	f->frame = malloc(n);
	if (!f->frame) {
		return false;
	}
	int rc = p9_wire_encode_head(f->frame, n, msg);
	f->size = rc > 0 ? (uint32_t)rc : 0;
	return rc > 0;
}

int p9_track_message(const struct p9_flight *f, struct p9_msg *msg)
{
	int rc = p9_wire_decode(f->frame, f->size, p9_get32(f->frame) - f->size, msg);
	if (rc >= 0 && msg->type == P9_Twrite) {
		msg->twrite.data.p = f->payload;
	}
	return rc;
}

struct p9_kept *p9_track_stale(struct p9_recover *r, const struct p9_msg *msg)
{
	const struct p9_desc *d = p9_wire_desc(msg->type);
	for (unsigned i = 0; d && i < d->nfields; i++) {
		const char *kind = d->fields[i].kind->name;
		uint32_t fid;
		if (strcmp(kind, "fid") != 0 && strcmp(kind, "dfid") != 0) {
			continue;
		}
		memcpy(&fid, (const char *)msg + d->fields[i].offset, sizeof(fid));
		struct p9_kept *k = p9_track_kept(r, fid);
		if (k && k->stale) {
			return k;
		}
	}
	return NULL;
}

/* ---- sessions and walks ---- */
static struct p9_root *root_for(struct p9_recover *r, const struct p9_flight *f)
{
	enum { REST = P9_HDRSZ + 4 }; /* size, type, tag and fid differ from one Tattach to the next */
	struct p9_root *root = r->roots;
	while (root && !(root->size == f->size && memcmp(root->frame + REST, f->frame + REST, f->size - REST) == 0)) {
		root = root->next;
	}
	if (root) {
		return root;
	}
	root = calloc(1, sizeof(*root));
	uint8_t *copy = root ? malloc(f->size) : NULL;
	struct p9_name *name = copy ? p9_names_root() : NULL;
	if (!name) {
		free(copy);
		free(root);
		return NULL;
	}
	memcpy(copy, f->frame, f->size);
	*root = (struct p9_root){ .next = r->roots, .name = name, .frame = copy, .size = f->size, .fid = P9_NOFID };
	r->roots = root;
	return root;
}

static void on_attach(struct p9_recover *r, const struct p9_flight *f, const struct p9_msg *t, const struct p9_msg *m)
{
	struct p9_kept *k = keep(r, t->tattach.fid);
	struct p9_root *root = k ? root_for(r, f) : NULL;
	if (k) {
		k->root = root;
		k->name = root ? p9_name_get(root->name) : NULL;
		k->qid = m->rattach.qid;
	}
}

/* The name that a walk from `n` leads to; counted. */
static struct p9_name *walked(struct p9_recover *r, struct p9_name *n, const struct p9_strs *names)
{
	n = p9_name_get(n);
	for (unsigned i = 0; n && i < names->n; i++) {
		const struct p9_str *s = &names->v[i];
		bool up = s->len == 2 && s->s[0] == '.' && s->s[1] == '.';
		struct p9_name *next = up ? p9_name_get(n->up ? n->up : n) : p9_names_below(&r->names, n, *s);
		p9_name_put(&r->names, n);
		n = next;
	}
	return n;
}

static void on_walk(struct p9_recover *r, const struct p9_twalk *t, const struct p9_rwalk *m)
{
	struct p9_kept *from = p9_track_kept(r, t->fid);
	if (m->wqid.n < t->wname.n || !from) {
		return; /* newfid was not made */
	}
	struct p9_name *name = walked(r, from->name, &t->wname);
	struct p9_root *root = from->root;
	struct p9_qid qid = t->wname.n ? m->wqid.v[t->wname.n - 1] : from->qid;
	struct p9_kept *k = keep(r, t->newfid);
	if (!k) {
		p9_name_put(&r->names, name);
		return;
	}
	k->name = name;
	k->root = root;
	k->qid = qid;
}

static void on_create(struct p9_recover *r, const struct p9_tlcreate *t, const struct p9_rlcreate *m)
{
	struct p9_kept *k = p9_track_kept(r, t->fid);
	if (k) {
		struct p9_name *dir = k->name;
		k->name = dir ? p9_names_below(&r->names, dir, t->name) : NULL;
		p9_name_put(&r->names, dir);
		k->qid = m->qid;
		k->flags = t->flags;
		k->open = true;
	}
}

/* ---- changes of names ---- */
static void on_renameat(struct p9_recover *r, const struct p9_trenameat *t)
{
	struct p9_kept *from = p9_track_kept(r, t->olddirfid), *to = p9_track_kept(r, t->newdirfid);
	struct p9_name *n = from && from->name ? p9_names_find(&r->names, from->name, t->oldname) : NULL;
	if (n && to && to->name) {
		p9_names_move(&r->names, n, to->name, t->newname);
	} else if (n) {
		p9_names_gone(&r->names, n);
	} else if (to && to->name) {
		p9_names_gone(&r->names, p9_names_find(&r->names, to->name, t->newname));
	}
}

static void on_rename(struct p9_recover *r, const struct p9_trename *t)
{
	struct p9_kept *k = p9_track_kept(r, t->fid), *to = p9_track_kept(r, t->dfid);
	if (k && k->name && to && to->name) {
		p9_names_move(&r->names, k->name, to->name, t->name);
	} else if (k && k->name) {
		p9_names_gone(&r->names, k->name);
	}
}

static void on_unlink(struct p9_recover *r, const struct p9_tunlinkat *t)
{
	struct p9_kept *dir = p9_track_kept(r, t->dirfid);
	if (dir && dir->name) {
		p9_names_gone(&r->names, p9_names_find(&r->names, dir->name, t->name));
	}
}

/* ---- locks ---- */
static uint64_t end_of(uint64_t start, uint64_t length)
{
	return length == 0 || length > UINT64_MAX - start ? UINT64_MAX : start + length;
}

static bool same_owner(const struct p9_held_lock *l, const struct p9_tlock *t)
{
	return l->proc_id == t->proc_id && l->client_id.len == t->client_id.len &&
	       memcmp(l->client_id.s, t->client_id.s, t->client_id.len) == 0;
}

static void add_lock(struct p9_kept *k, const struct p9_tlock *t, uint64_t start, uint64_t end, uint8_t type)
{
	struct p9_held_lock *l = start < end ? calloc(1, sizeof(*l)) : NULL;
	char *id = l ? malloc(t->client_id.len + 1u) : NULL;
	if (!id) {
		k->moved |= start < end; /* not remembered: it will count as lost */
		free(l);
		return;
	}
	memcpy(id, t->client_id.s, t->client_id.len);
	*l = (struct p9_held_lock){ .next = k->locks,
				    .start = start,
				    .length = end == UINT64_MAX ? 0 : end - start,
				    .proc_id = t->proc_id,
				    .type = type,
				    .client_id = { id, t->client_id.len } };
	k->locks = l;
}

/* The range is taken out of what the owner had, and put in with its new type. */
static void on_lock(struct p9_kept *k, const struct p9_tlock *t)
{
	uint64_t start = t->start, end = end_of(t->start, t->length);
	struct p9_held_lock *old = k->locks;
	k->locks = NULL;
	while (old) {
		struct p9_held_lock *l = old;
		uint64_t l_end = end_of(l->start, l->length);
		old = l->next;
		if (!same_owner(l, t) || l_end <= start || end <= l->start) {
			l->next = k->locks;
			k->locks = l;
			continue;
		}
		add_lock(k, t, l->start, start, l->type);
		add_lock(k, t, end, l_end, l->type);
		free_lock(l);
	}
	if (t->type != P9_LOCK_TYPE_UNLCK) {
		add_lock(k, t, start, end, t->type);
	}
}

/* ---- replies ---- */
static void on_opened(struct p9_kept *k, const struct p9_tlopen *t, const struct p9_rlopen *m)
{
	k->open = true;
	k->flags = t->flags;
	if (m->qid.path == k->qid.path) {
		k->qid.version = m->qid.version;
	}
}

/* Messages about one fid that is there. */
static void on_fid(struct p9_recover *r, const struct p9_msg *t, const struct p9_msg *m)
{
	struct p9_kept *k = p9_track_kept(r, t->tclunk.fid); /* the first field of all of these */
	struct p9_kept *x = m->type == P9_Rxattrwalk ? keep(r, t->txattrwalk.newfid) : NULL;
	if (x) {
		x->xattr = true;
	}
	if (!k || x) {
		return;
	}
	switch (m->type) {
	case P9_Rlopen:
		on_opened(k, &t->tlopen, &m->rlopen);
		break;
	case P9_Rxattrcreate:
		k->xattr = k->xwrite = true;
		break;
	case P9_Rlock:
		if (m->rlock.status == P9_LOCK_SUCCESS) {
			on_lock(k, &t->tlock);
		}
		break;
	case P9_Rfsync:
		k->dirty = false;
		break;
	case P9_Rwrite:
		k->dirty = true;
		break;
	default:
		break;
	}
}

void p9_track_reply(struct p9_recover *r, const struct p9_flight *f, const struct p9_msg *m)
{
	struct p9_msg t;
	struct p9_kept *k;
	if (p9_track_message(f, &t) < 0) {
		return;
	}
	if (t.type == P9_Tclunk || t.type == P9_Tremove) {
		k = p9_track_kept(r, t.tclunk.fid);
		if (k && m->type == P9_Rremove) {
			p9_names_gone(&r->names, k->name);
		}
		p9_track_drop(r, t.tclunk.fid);
		return;
	}
	switch (m->type) {
	case P9_Rattach:
		on_attach(r, f, &t, m);
		break;
	case P9_Rwalk:
		on_walk(r, &t.twalk, &m->rwalk);
		break;
	case P9_Rlcreate:
		on_create(r, &t.tlcreate, &m->rlcreate);
		break;
	case P9_Rrenameat:
		on_renameat(r, &t.trenameat);
		break;
	case P9_Rrename:
		on_rename(r, &t.trename);
		break;
	case P9_Runlinkat:
		on_unlink(r, &t.tunlinkat);
		break;
	case P9_Rlopen:
	case P9_Rxattrwalk:
	case P9_Rxattrcreate:
	case P9_Rlock:
	case P9_Rfsync:
	case P9_Rwrite:
		on_fid(r, &t, m);
		break;
	default:
		break;
	}
}

void p9_track_free(struct p9_recover *r)
{
	for (uint32_t i = 0; i < r->nkept; i++) {
		p9_track_drop(r, i);
	}
	free(r->kept);
	while (r->roots) {
		struct p9_root *root = r->roots;
		r->roots = root->next;
		p9_name_put(&r->names, root->name);
		free(root->frame);
		free(root);
	}
	p9_names_fini(&r->names);
}
