/* SPDX-License-Identifier: BSD-2-Clause */
/* op_session.c - Tversion, Tauth, Tattach, Tflush, Tclunk, Tremove: what begins and ends things.
 *
 * Tversion ends the session before it; its answer waits until all of that is gone (conn.c). Tflush is a request that
 * waits behind another; k flushes of one request are answered in their order, after its reply or its silent end.
 */
#include <stdlib.h>
#include <string.h>
#include "server/internal.h"

static bool str_is(const struct p9_str *s, const char *text)
{
	return s->len == strlen(text) && memcmp(s->s, text, s->len) == 0;
}

/* ---- Tversion ---- */
static int version_start(struct p9_req *r)
{
	struct p9_conn *c = r->conn;
	const struct p9_tversion *m = &r->t.tversion;
	bool known = str_is(&m->version, "9P2000.L");
	if (m->msize < P9_MSIZE_MIN) {
		return -P9_EMSGSIZE;
	}
	uint32_t msize = m->msize < c->srv->conf.msize ? m->msize : c->srv->conf.msize;
	r->r.rversion.msize = msize;
	r->r.rversion.version = known ? m->version : (struct p9_str){ "unknown", 7 };
	c->msize = known ? msize : P9_MSIZE_PREAUTH;
	c->link->frame_max = P9_MSIZE_PREAUTH;
	c->link->agreed = false;
	c->link->handshake_by = known ? 0 : c->link->handshake_by;
	c->attached = false;
	c->shard->loop.pool.bigcap = c->srv->conf.msize + P9_IOHDRSZ + 4096;
	static const char dialect[] = "9P2000.L";
	if (known) {
		r->r.rversion.version = (struct p9_str){ dialect, 8 }; /* outlives the frame */
	}
	if (c->inflight == 0 && c->fids.n == 0) {
		c->state = known ? CONN_READY : CONN_NEW;
		return P9_NOW;
	}
	r->bytes = NULL;
	r->state = REQ_WAITING;
	c->version = r;
	p9_conn_reset(c);
	return P9_WAITS;
}

static int version_done(struct p9_req *r)
{
	r->conn->state = r->r.rversion.version.len == 8 ? CONN_READY : CONN_NEW;
	return 0;
}
const struct p9_op p9_op_version = { version_start, NULL, version_done, NULL, true };

/* ---- Tauth ---- */
static int auth_start(struct p9_req *r)
{
	(void)r;
	return -P9_ENOENT; /* no authentication needed; Linux and diod clients take ENOENT for that */
}
const struct p9_op p9_op_auth = { auth_start, NULL, NULL, NULL, false };

/* ---- Tattach ---- */
static struct p9_str skip_slashes(struct p9_str s)
{
	while (s.len && s.s[0] == '/') {
		s.s++;
		s.len--;
	}
	return s;
}

/* The name "" is that of "/": all is below it. */
static bool is_prefix(struct p9_str aname, struct p9_str name)
{
	return name.len == 0 || (aname.len >= name.len && memcmp(aname.s, name.s, name.len) == 0 &&
				 (aname.len == name.len || aname.s[name.len] == '/'));
}

/* An export's name without slashes around it. */
static struct p9_str bare_name(const struct p9_export *ex)
{
	struct p9_str name = skip_slashes((struct p9_str){ ex->conf.name, (uint16_t)strlen(ex->conf.name) });
	while (name.len && name.s[name.len - 1] == '/') {
		name.len--;
	}
	return name;
}

bool p9_export_is_below(const struct p9_export *ex, const struct p9_export *other)
{
	return ex != other && is_prefix(bare_name(ex), bare_name(other));
}

static struct p9_export *export_named(struct p9_server *srv, const char *name)
{
	for (unsigned i = 0; i < srv->nexports; i++) {
		if (strcmp(srv->exports[i].conf.name, name) == 0) {
			return &srv->exports[i];
		}
	}
	return NULL;
}

/* The export with the longest name that the aname is, or lies below. Who may see one only gets that one. */
static struct p9_export *find_export(const struct p9_conn *conn, struct p9_str aname)
{
	struct p9_server *srv = conn->srv;
	struct p9_export *best = NULL;
	size_t best_len = 0;
	struct p9_str a = skip_slashes(aname);
	if (conn->peer.only) {
		return export_named(srv, conn->peer.only);
	}
	if (a.len == 0) {
		return srv->nexports == 1 ? &srv->exports[0] : &srv->list;
	}
	for (unsigned i = 0; i < srv->nexports; i++) {
		struct p9_str name = bare_name(&srv->exports[i]);
		if (is_prefix(a, name) && (!best || name.len > best_len)) {
			best = &srv->exports[i];
			best_len = name.len;
		}
	}
	return best;
}

/* What follows the export's name in the aname that picked it; where there is one export only, its name may be left out. */
static struct p9_str path_below(struct p9_str aname, const struct p9_export *ex)
{
	struct p9_str a = skip_slashes(aname);
	uint16_t n = is_prefix(a, bare_name(ex)) ? bare_name(ex).len : 0;
	return (struct p9_str){ a.s + n, (uint16_t)(a.len - n) };
}

/* Walks the path below an export's name, element by element; anything odd in it is ENOENT. */
static int walk_rest(struct p9_caller *c, struct p9_str rest, struct p9_node **node)
{
	int rc = 0;
	for (rest = skip_slashes(rest); rest.len && rc == 0; rest = skip_slashes(rest)) {
		struct p9_msg m = { .type = P9_Twalk };
		struct p9_qids qids;
		struct p9_node *next = NULL;
		const char *slash = memchr(rest.s, '/', rest.len);
		uint16_t len = slash ? (uint16_t)(slash - rest.s) : rest.len;
		m.twalk.wname.n = 1;
		m.twalk.wname.v[0] = (struct p9_str){ rest.s, len };
		bool up = len == 2 && rest.s[0] == '.' && rest.s[1] == '.';
		rc = up || p9_wire_check(&m) < 0 ? -P9_ENOENT
						 : (*node)->be->walk(c, *node, &m.twalk.wname, &qids, &next);
		if (rc == 0) {
			p9_node_put(*node);
			*node = next;
		}
		rest.s += len;
		rest.len = (uint16_t)(rest.len - len);
	}
	if (rc == 0 && !((*node)->qtype & P9_QTDIR)) {
		rc = -P9_ENOENT; /* a tree begins with a directory; links are not followed, here neither */
	}
	return rc == -P9_EACCES || rc == -P9_EPERM || rc == 0 ? rc : -P9_ENOENT;
}

int p9_attach_new(struct p9_conn *conn, struct p9_export *ex, const struct p9_tattach *who, struct p9_attach **out)
{
	/* the name is kept only where it counts: 65,536 fids with 64 KiB each would be much */
	uint16_t len = who->n_uname == P9_NONUNAME && who->uname.len < P9_UNAME_MAX ? who->uname.len : 0;
	struct p9_attach *at = calloc(1, sizeof(*at) + len);
	if (!at) {
		return -P9_ENOMEM;
	}
	atomic_init(&at->refs, 1);
	at->ex = ex;
	at->n_uname = who->n_uname;
	at->uname_len = len;
	memcpy(at->uname, who->uname.s, len);
	int rc = p9_users_cred(conn, ex, who, &at->cred);
	if (rc < 0) {
		free(at);
		return rc;
	}
	*out = at;
	return 0;
}

int p9_attach_root(struct p9_caller *c, struct p9_attach *at, struct p9_node **root)
{
	c->cred = at->cred;
	return at->ex->conf.backend->attach(c, at->ex->conf.root, root);
}

static int attach_start(struct p9_req *r)
{
	r->ex = find_export(r->conn, r->t.tattach.aname); /* on its lane, should it block */
	r->vol = r->ex ? &r->ex->volume[0] : NULL;
	/* there are no authentication files, so none can be right */
	return r->t.tattach.afid == P9_NOFID ? 0 : -P9_EBADF;
}

static int attach_run(struct p9_req *r, struct p9_caller *c)
{
	if (!r->ex) {
		return -P9_ENOENT;
	}
	int rc = p9_attach_new(r->conn, r->ex, &r->t.tattach, &r->at);
	rc = rc < 0 ? rc : p9_attach_root(c, r->at, &r->node);
	rc = rc < 0 ? rc : walk_rest(c, path_below(r->t.tattach.aname, r->ex), &r->node);
	if (rc == 0) {
		struct p9_rgetattr a;
		rc = r->node->be->getattr(c, r->node, P9_GETATTR_BASIC, &a);
		r->r.rattach.qid = a.qid;
	}
	return rc;
}

static int attach_done(struct p9_req *r)
{
	struct p9_fid *f;
	int rc = p9_fid_place(r, &f);
	if (rc < 0) {
		return rc;
	}
	f->node = r->node;
	f->at = r->at;
	r->node = NULL;
	r->at = NULL;
	r->conn->attached = true;
	p9_conn_is_known(r->conn);
	r->conn->link->frame_max = r->conn->msize;
	r->conn->link->agreed = true;
	return 0;
}
const struct p9_op p9_op_attach = { attach_start, attach_run, attach_done, NULL, false };

/* ---- Tflush ---- */
static int flush_start(struct p9_req *r)
{
	struct p9_req *target = p9_req_by_tag(r->conn, r->t.tflush.oldtag);
	if (!target || r->t.tflush.oldtag == r->tag) {
		return P9_NOW;
	}
	r->bytes = NULL;
	p9_req_detach(r);
	r->state = REQ_FLUSHING;
	struct p9_req **p = &target->flush_head;
	while (*p) {
		p = &(*p)->flush_next;
	}
	*p = r;
	p9_req_cancel(target); /* may answer r on its way */
	return P9_WAITS;
}
const struct p9_op p9_op_flush = { flush_start, NULL, NULL, NULL, true };

/* ---- Tclunk, Tremove ---- */
/* The fid is gone from now on, whatever comes. */
static int clunk_start(struct p9_req *r)
{
	if (r->conn->lock_waits) {
		p9_lock_drop_fid(r->conn, r->fid);
	}
	p9_fid_remove(r->conn, r->fid);
	return 0;
}

static int write_xattr(struct p9_req *r, struct p9_caller *c)
{
	struct p9_xattr *x = r->fid->xattr;
	struct p9_node *n = r->fid->node;
	if (!n->be->setxattr) {
		return -P9_EOPNOTSUPP;
	}
	if (x->done != x->size) {
		return -P9_EINVAL; /* not all was written */
	}
	struct p9_str name = { x->name, x->name_len };
	/* Size 0 removes: with XATTR_REPLACE, as Linux sends it for removexattr(2), and without flags when the attribute
	 * is there, as QEMU and others take it. Otherwise it sets an empty value. */
	bool removes = x->size == 0 && (x->flags == P9_XATTR_REPLACE || (x->flags == 0 && n->be->getxattr &&
									 n->be->getxattr(c, n, name, NULL, 0) >= 0));
	const uint8_t *value = x->value ? x->value : (const uint8_t *)"";
	return n->be->setxattr(c, n, name, removes ? NULL : value, x->size, x->flags);
}

static int clunk_run(struct p9_req *r, struct p9_caller *c)
{
	int rc = 0;
	if (r->fid->xattr && r->fid->xattr->writing) {
		rc = write_xattr(r, c);
	}
	int closed = p9_fid_release(r->conn, r->fid, c);
	return rc < 0 ? rc : closed;
}

static int remove_run(struct p9_req *r, struct p9_caller *c)
{
	struct p9_node *n = r->fid->node;
	int rc = -P9_EOPNOTSUPP;
	if (r->fid->at->ex->conf.ro && !r->fid->at->ex->conf.ro_below) {
		rc = -P9_EROFS;
	} else if (!r->fid->xattr && n->be->remove) {
		rc = n->be->remove(c, n);
	}
	p9_fid_release(r->conn, r->fid, c);
	return rc;
}

const struct p9_op p9_op_clunk = { clunk_start, clunk_run, NULL, NULL, true };
const struct p9_op p9_op_remove = { clunk_start, remove_run, NULL, NULL, true };
