/* SPDX-License-Identifier: BSD-2-Clause */
/* handover.c - every connection, with fids, locks and requests that wait, as it goes from one p9d to the next.
 *
 * Called by p9d while the server is frozen (pause.c): the one that goes packs, and changes nothing by that; the one that
 * comes unpacks into a server of its own. Requests that wait for a lock go as the messages they came as, and begin anew,
 * with as much of their patience as was left. Fids of one connection may share nodes, users and attaches; they do so
 * afterwards. Statistics are not handed over. Must stay true: what is read here is judged before it is used, and all
 * that was made before something proved wrong is found by p9_server_forget().
 */
#include <stdlib.h>
#include <string.h>
#include "base/pack.h"
#include "server/internal.h"

#define GROUPS_MAX 65536u
#define EXPORT_NAME 4096 /* bytes of an export's name: it may be a path */

bool p9_server_uses(const struct p9_server *srv, const char *name)
{
	for (unsigned i = 0; i < srv->nshards; i++) {
		for (const struct p9_conn *c = srv->shards[i].conns; c; c = c->next) {
			for (uint32_t k = 0; c->state != CONN_CLOSED && k < c->fids.cap; k++) {
				const struct p9_fid *f = p9_fid_slot(&c->fids, k);
				if (f && f->at && strcmp(f->at->ex->conf.name, name) == 0) {
					return true;
				}
			}
		}
	}
	return false;
}

/* ---- packing ---- */
static void pack_cred(const struct p9_cred *c, struct p9_pack *p)
{
	if (p9_pack_thing(p, c)) {
		p9_pack_number(p, c->daemon);
		p9_pack_number(p, c->checked);
		p9_pack_number(p, c->uid);
		p9_pack_number(p, c->gid);
		p9_pack_number(p, c->ngroups);
		for (uint32_t i = 0; i < c->ngroups; i++) {
			p9_pack_number(p, c->groups[i]);
		}
	}
}

static void pack_attach(const struct p9_attach *at, struct p9_pack *p)
{
	if (p9_pack_thing(p, at)) {
		pack_cred(at->cred, p);
		p9_pack_text(p, at->ex->conf.name);
		p9_pack_number(p, at->n_uname);
		p9_pack_bytes(p, at->uname, at->uname_len);
	}
}

static void pack_xattr(const struct p9_xattr *x, struct p9_pack *p)
{
	p9_pack_number(p, x != NULL);
	if (x) {
		p9_pack_number(p, x->writing);
		p9_pack_number(p, x->flags);
		p9_pack_number(p, x->done);
		p9_pack_bytes(p, x->value, x->size);
		p9_pack_bytes(p, x->name, x->name_len);
	}
}

static void pack_fid(const struct p9_fid *f, struct p9_pack *p)
{
	const struct p9_backend *be = f->node ? f->node->be : NULL;
	p9_pack_thing(p, f);
	p9_pack_number(p, f->id);
	pack_attach(f->at, p);
	if (!be || !be->pack_node || !be->pack_file) {
		p9_pack_fail(p, "backend %s cannot be handed over", be ? be->name : "of no file");
		return;
	}
	be->pack_node(f->node, p);
	p9_pack_number(p, f->file != NULL);
	if (f->file) {
		be->pack_file(f->file, p);
	}
	pack_xattr(f->xattr, p);
}

static void pack_fids(const struct p9_conn *c, struct p9_pack *p)
{
	p9_pack_number(p, c->fids.n);
	for (uint32_t i = 0; i < c->fids.cap; i++) {
		const struct p9_fid *f = p9_fid_slot(&c->fids, i);
		if (f) {
			pack_fid(f, p);
		}
	}
}

static void pack_peer(const struct p9_peer *peer, struct p9_pack *p)
{
	p9_pack_number(p, peer->kind);
	p9_pack_number(p, peer->known);
	p9_pack_number(p, peer->uid);
	p9_pack_number(p, peer->gid);
	p9_pack_number(p, peer->pid);
	p9_pack_text(p, peer->text);
	p9_pack_number(p, peer->remote);
	p9_pack_bytes(p, peer->source, sizeof(peer->source));
	p9_pack_text(p, peer->only ? peer->only : "");
}

static uint64_t left_of(uint64_t deadline, uint64_t now)
{
	return deadline > now ? deadline - now : 1;
}

/* The link with its requests that wait: as messages, encoded again, for what they came in may hold others, too. */
static void pack_link(struct p9_conn *c, struct p9_pack *p)
{
	struct p9_undone *undone = calloc(P9_LOCKWAIT_MAX, sizeof(*undone));
	uint64_t now = p9_now_ns() / 1000000;
	unsigned n = 0, waiting = p9_conn_waiting(c);
	/* those that waited in a p9d before this one, and have not been begun anew: their messages are still to be read */
	unsigned again = c->nagain < P9_LOCKWAIT_MAX - waiting ? c->nagain : P9_LOCKWAIT_MAX - waiting;
	p9_pack_number(p, waiting + again);
	for (const struct p9_req *r = c->shard->lock_waits; r && undone; r = r->wait_next) {
		if (r->conn != c || n == P9_LOCKWAIT_MAX) {
			continue;
		}
		size_t len = p9_wire_size(&r->t);
		uint8_t *msg = malloc(len);
		if (!msg || p9_wire_encode_head(msg, len, &r->t) != (int)len) {
			p9_pack_fail(p, "out of memory");
		}
		undone[n++] = (struct p9_undone){ msg, len, r->ticket };
		p9_pack_number(p, r->tag);
		p9_pack_number(p, left_of(r->wait_until, now));
	}
	for (unsigned i = 0; i < again; i++) {
		p9_pack_number(p, c->again[i].tag);
		p9_pack_number(p, left_of(c->again[i].until, now));
	}
	if (!undone || n != waiting || !c->link->ops->pack) {
		p9_pack_fail(p, "this link cannot be handed over, or no memory");
	} else {
		c->link->ops->pack(c->link, p, undone, n);
	}
	for (unsigned i = 0; i < n; i++) {
		free((void *)undone[i].msg);
	}
	free(undone);
}

static void pack_conn(struct p9_conn *c, struct p9_pack *p)
{
	uint64_t now = p9_now_ns() / 1000000;
	p9_pack_thing(p, c);
	p9_pack_thing(p, &c->locks_held);
	pack_peer(&c->peer, p);
	p9_pack_number(p, c->state == CONN_READY);
	p9_pack_number(p, c->attached);
	p9_pack_number(p, c->hurried);
	p9_pack_number(p, c->stranger);
	p9_pack_number(p, c->msize);
	p9_pack_number(p, c->bad);
	p9_pack_number(p, c->same_tags);
	p9_pack_number(p, c->requests);
	p9_pack_number(p, c->link->frame_max);
	p9_pack_number(p, c->link->agreed);
	p9_pack_number(p, c->link->handshake_by ? left_of(c->link->handshake_by, now) : 0);
	pack_link(c, p);
	pack_fids(c, p);
}

void p9_server_pack(struct p9_server *srv, struct p9_pack *p)
{
	p9_pack_number(p, srv->conf.users);
	for (unsigned i = 0; i < srv->nshards; i++) {
		for (struct p9_conn *c = srv->shards[i].conns; c; c = c->next) {
			if (c->state == CONN_CLOSED) {
				continue; /* its end ends with this process */
			}
			p9_pack_number(p, 1);
			pack_conn(c, p);
			if (p->why[0]) {
				return;
			}
		}
	}
	p9_pack_number(p, 0);
	for (unsigned i = 0; i < srv->nexports; i++) {
		const struct p9_export_config *x = &srv->exports[i].conf;
		if (x->backend->pack_locks && p9_server_uses(srv, x->name)) {
			p9_pack_number(p, 1);
			p9_pack_text(p, x->name);
			x->backend->pack_locks(x->root, p);
		}
	}
	p9_pack_number(p, 0);
}

/* ---- unpacking ---- */
static struct p9_export *export_of(struct p9_server *srv, const char *name)
{
	for (unsigned i = 0; i < srv->nexports; i++) {
		if (strcmp(srv->exports[i].conf.name, name) == 0) {
			return &srv->exports[i];
		}
	}
	return name[0] ? NULL : &srv->list;
}

/* A new reference, or NULL. */
static struct p9_cred *unpack_cred(struct p9_unpack *u)
{
	void *known;
	uint32_t number = p9_unpack_thing(u, P9_THING_CRED, &known);
	if (!number) {
		return known ? p9_cred_get(known) : NULL;
	}
	struct p9_cred head = { .daemon = p9_unpack_flag(u), .checked = p9_unpack_flag(u) };
	head.uid = (uint32_t)p9_unpack_number(u, UINT32_MAX);
	head.gid = (uint32_t)p9_unpack_number(u, UINT32_MAX);
	head.ngroups = (uint32_t)p9_unpack_number(u, GROUPS_MAX);
	struct p9_cred *c = calloc(1, sizeof(*c) + head.ngroups * sizeof(uint32_t));
	if (!c) {
		p9_unpack_fail(u, "out of memory");
		return NULL;
	}
	atomic_init(&c->refs, 1);
	c->daemon = head.daemon;
	c->checked = head.checked;
	c->uid = head.uid;
	c->gid = head.gid;
	c->ngroups = head.ngroups;
	for (uint32_t i = 0; i < c->ngroups; i++) {
		c->groups[i] = (uint32_t)p9_unpack_number(u, UINT32_MAX);
	}
	p9_unpack_made(u, number, c);
	return c;
}

static struct p9_attach *unpack_attach(struct p9_server *srv, struct p9_unpack *u)
{
	void *known;
	char name[EXPORT_NAME];
	size_t n;
	uint32_t number = p9_unpack_thing(u, P9_THING_ATTACH, &known);
	if (!number) {
		struct p9_attach *at = known;
		if (at) {
			atomic_fetch_add_explicit(&at->refs, 1, memory_order_relaxed);
		}
		return at;
	}
	struct p9_cred *cred = unpack_cred(u);
	p9_unpack_text(u, name, sizeof(name));
	uint32_t n_uname = (uint32_t)p9_unpack_number(u, UINT32_MAX);
	const uint8_t *uname = p9_unpack_bytes(u, UINT16_MAX, &n);
	struct p9_export *ex = export_of(srv, name);
	if (!ex) {
		p9_unpack_fail(u, "export \"%s\" is in use and not one of ours", name);
	}
	struct p9_attach *at = calloc(1, sizeof(*at) + n);
	if (!at || !cred || p9_unpack_bad(u)) {
		p9_unpack_fail(u, "a fid of nobody, or no memory");
		p9_cred_put(cred);
		free(at);
		return NULL;
	}
	atomic_init(&at->refs, 1);
	at->cred = cred;
	at->ex = ex;
	at->n_uname = n_uname;
	at->uname_len = (uint16_t)n;
	memcpy(at->uname, uname, n);
	p9_unpack_made(u, number, at);
	return at;
}

static void unpack_xattr(struct p9_conn *c, struct p9_fid *f, struct p9_unpack *u)
{
	size_t size, len;
	struct p9_xattr *x = p9_unpack_flag(u) ? calloc(1, sizeof(*x)) : NULL;
	if (!x) {
		return;
	}
	x->writing = p9_unpack_flag(u);
	x->flags = (uint32_t)p9_unpack_number(u, UINT32_MAX);
	x->done = (uint32_t)p9_unpack_number(u, P9_XATTR_MAX);
	const uint8_t *value = p9_unpack_bytes(u, P9_XATTR_MAX, &size);
	x->value = malloc(size ? size : 1);
	x->size = (uint32_t)size;
	if (value && x->value) {
		memcpy(x->value, value, size);
	}
	const uint8_t *name = p9_unpack_bytes(u, sizeof(x->name), &len);
	if (name) {
		memcpy(x->name, name, len);
	}
	x->name_len = (uint16_t)len;
	f->xattr = x;
	if (atomic_fetch_add(&c->nxattr, 1) >= P9_XATTR_FIDS_MAX || x->done > x->size || !x->value) {
		p9_unpack_fail(u, "an extended attribute that cannot be, or no memory");
	}
}

static void unpack_fid(struct p9_conn *c, struct p9_unpack *u)
{
	void *known;
	struct p9_fid *f;
	uint32_t number = p9_unpack_thing(u, P9_THING_FID, &known);
	uint32_t id = (uint32_t)p9_unpack_number(u, UINT32_MAX);
	int rc = number && !p9_unpack_bad(u) ? p9_fid_add(c, id, &f) : -P9_EINVAL;
	if (rc < 0) {
		p9_unpack_fail(u, "fid %u: %s", id, p9_error_text((uint32_t)-rc));
		return;
	}
	p9_unpack_made(u, number, f);
	f->at = unpack_attach(c->srv, u);
	if (!f->at) {
		p9_unpack_fail(u, "a fid of no export");
		return;
	}
	const struct p9_export_config *x = &f->at->ex->conf;
	f->node = x->backend->unpack_node ? x->backend->unpack_node(x->root, u) : NULL;
	if (!f->node) {
		p9_unpack_fail(u, "a fid without a file");
		return;
	}
	if (p9_unpack_flag(u)) {
		f->file = x->backend->unpack_file(x->root, u);
	}
	unpack_xattr(c, f, u);
}

static void unpack_peer(struct p9_server *srv, struct p9_peer *peer, struct p9_unpack *u)
{
	char only[EXPORT_NAME];
	size_t n;
	memset(peer, 0, sizeof(*peer));
	peer->kind = (unsigned)p9_unpack_number(u, P9_PEER_GUEST);
	peer->known = p9_unpack_flag(u);
	peer->uid = (uint32_t)p9_unpack_number(u, UINT32_MAX);
	peer->gid = (uint32_t)p9_unpack_number(u, UINT32_MAX);
	peer->pid = (uint32_t)p9_unpack_number(u, UINT32_MAX);
	p9_unpack_text(u, peer->text, sizeof(peer->text));
	peer->remote = p9_unpack_flag(u);
	const uint8_t *source = p9_unpack_bytes(u, sizeof(peer->source), &n);
	if (n == sizeof(peer->source)) {
		memcpy(peer->source, source, n);
	}
	p9_unpack_text(u, only, sizeof(only));
	struct p9_export *ex = only[0] ? export_of(srv, only) : NULL;
	if (only[0] && !ex) {
		p9_unpack_fail(u, "a device shows export \"%s\", which is not one of ours", only);
	}
	peer->only = ex ? ex->conf.name : NULL;
}

/* What it said of itself, read before there is a connection to say it to. */
struct session {
	bool ready, attached, hurried, stranger, agreed;
	uint32_t msize, frame_max;
	unsigned bad, same_tags;
	uint64_t requests, handshake;
};

static void unpack_session(struct session *s, struct p9_unpack *u)
{
	s->ready = p9_unpack_flag(u);
	s->attached = p9_unpack_flag(u);
	s->hurried = p9_unpack_flag(u);
	s->stranger = p9_unpack_flag(u);
	s->msize = (uint32_t)p9_unpack_number(u, P9_MSIZE_MAX);
	s->bad = (unsigned)p9_unpack_number(u, P9_BADMSG_MAX);
	s->same_tags = (unsigned)p9_unpack_number(u, 1);
	s->requests = p9_unpack_number(u, UINT64_MAX);
	s->frame_max = (uint32_t)p9_unpack_number(u, P9_MSIZE_MAX);
	s->agreed = p9_unpack_flag(u);
	s->handshake = p9_unpack_number(u, 60u * P9_HANDSHAKE_MS);
	if (s->msize < P9_MSIZE_MIN || s->frame_max < P9_MSIZE_MIN) {
		p9_unpack_fail(u, "a session with a message size that none has");
	}
}

static void begin_session(struct p9_conn *c, const struct session *s)
{
	bool counted = true, tell;
	c->state = s->ready ? CONN_READY : CONN_NEW;
	c->attached = s->attached;
	c->hurried = s->hurried;
	c->msize = s->msize;
	c->bad = s->bad;
	c->same_tags = s->same_tags;
	c->requests = s->requests;
	c->link->frame_max = s->frame_max;
	c->link->agreed = s->agreed;
	c->link->handshake_by = s->handshake ? p9_now_ns() / 1000000 + s->handshake : 0;
	if (s->stranger) {
		counted = p9_sources_enter(&c->srv->sources, &c->peer, p9_now_ns() / 1000000, &tell);
	}
	c->stranger = s->stranger && counted;
}

/* One connection, on the next shard. */
static void unpack_conn(struct p9_server *srv, struct p9_unpack *u, p9_peer_link *link_of)
{
	void *known;
	struct p9_peer peer;
	struct session s;
	struct p9_again again[P9_LOCKWAIT_MAX];
	uint32_t number = p9_unpack_thing(u, P9_THING_CONN, &known);
	uint32_t held = p9_unpack_thing(u, P9_THING_HELD, &known);
	if (!number || !held) {
		p9_unpack_fail(u, "a connection that was there already");
	}
	unpack_peer(srv, &peer, u);
	unpack_session(&s, u);
	unsigned nagain = (unsigned)p9_unpack_number(u, P9_LOCKWAIT_MAX);
	for (unsigned i = 0; i < nagain; i++) {
		again[i].tag = (uint16_t)p9_unpack_number(u, UINT16_MAX);
		again[i].until = p9_now_ns() / 1000000 + p9_unpack_number(u, UINT32_MAX);
	}
	struct p9_shard *sh = &srv->shards[srv->next_shard++ % srv->nshards];
	struct p9_link *link = p9_unpack_bad(u) ? NULL : link_of(&sh->loop, &peer, u);
	struct p9_conn *c = link ? p9_conn_new(sh, link, &peer) : NULL;
	if (!c) {
		p9_unpack_fail(u, "a connection without a link, or no memory");
		if (link) {
			link->ops->free(link);
		}
		return;
	}
	atomic_fetch_add(&srv->nconns, 1);
	sh->loop.pool.bigcap = srv->conf.msize + P9_IOHDRSZ + 4096;
	p9_unpack_made(u, number, c);
	p9_unpack_made(u, held, (void *)&c->locks_held);
	begin_session(c, &s);
	if (nagain) {
		c->again = malloc(nagain * sizeof(*c->again));
		c->nagain = c->again ? nagain : 0;
		memcpy(c->again ? c->again : again, again, nagain * sizeof(*again));
	}
	uint32_t n = (uint32_t)p9_unpack_number(u, P9_FIDS_MAX);
	for (uint32_t i = 0; i < n && !p9_unpack_bad(u); i++) {
		unpack_fid(c, u);
	}
}

static void unpack_locks(struct p9_server *srv, struct p9_unpack *u)
{
	char name[EXPORT_NAME];
	p9_unpack_text(u, name, sizeof(name));
	const struct p9_export *ex = name[0] ? export_of(srv, name) : NULL;
	if (!ex || !ex->conf.backend->unpack_locks) {
		p9_unpack_fail(u, "locks in \"%s\", which is not an export of ours", name);
		return;
	}
	ex->conf.backend->unpack_locks(ex->conf.root, u);
}

int p9_server_unpack(struct p9_server *srv, struct p9_unpack *u, p9_peer_link *link_of)
{
	bool users = p9_unpack_flag(u);
	while (p9_unpack_flag(u)) {
		if (users != srv->conf.users) {
			p9_unpack_fail(u, "it serves with --identity %s, we with %s", users ? "users" : "single",
				       srv->conf.users ? "users" : "single");
		}
		unpack_conn(srv, u, link_of);
	}
	while (p9_unpack_flag(u)) {
		unpack_locks(srv, u);
	}
	for (unsigned i = 0; i < srv->nshards && !p9_unpack_bad(u); i++) {
		for (struct p9_conn *c = srv->shards[i].conns; c; c = c->next) {
			int rc = c->link->ops->start(c->link);
			c->link->reading =
				false; /* it has messages already, for which no event comes: p9_server_thaw() */
			if (rc < 0) {
				p9_unpack_fail(u, "%s: cannot wait for it (%s)", c->peer.text,
					       p9_error_name((uint32_t)-rc));
			}
		}
	}
	return p9_unpack_bad(u) ? -P9_EINVAL : 0;
}

void p9_server_forget(struct p9_server *srv)
{
	for (unsigned i = 0; i < srv->nshards; i++) {
		struct p9_shard *sh = &srv->shards[i];
		while (sh->conns) {
			struct p9_conn *c = sh->conns;
			for (uint32_t k = 0; k < c->fids.cap; k++) {
				struct p9_fid *f = p9_fid_slot(&c->fids, k);
				if (f) {
					p9_fid_release(c, f, NULL);
					p9_fid_free(c, f);
				}
			}
			p9_conn_free(c);
		}
	}
}
