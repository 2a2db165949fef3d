/* SPDX-License-Identifier: BSD-2-Clause */
/* copy_xattr.c - the phase that copies extended attributes, one after the other.
 *
 * An attribute is fetched whole and then stored; here by fgetxattr and fsetxattr, on the server by Txattrwalk, Tread,
 * Tclunk and Twalk, Txattrcreate, Twrite, Tclunk. At most 64 KiB each, Linux's limit: a server that announces more is
 * not believed. Without attributes on either side there is nothing to do; one that cannot be stored is said, and the
 * file stays.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include "base/hosterr.h"
#include "p9/copy.h"

enum {
	FETCH,
	FETCH_WALK,
	FETCH_READ,
	FETCH_CLUNK,
	FETCHED,
	STORE,
	STORE_WALK,
	STORE_CREATE,
	STORE_WRITE,
	STORE_CLUNK,
	STORE_GIVEN_UP
};

static const char *name_of(const struct p9_node *n)
{
	return n->x.list ? n->x.list + n->x.at : "";
}

void p9_xattr_fini(struct p9_node *n)
{
	free(n->x.list);
	free(n->x.value);
	n->x = (struct p9_xattrs){ .fid = P9_NOFID };
}

/* There is nothing more to do; rc tells whether that is well. */
static int give_up(struct p9_node *n, int rc)
{
	bool none = rc == -P9_EOPNOTSUPP || rc == -P9_ENODATA;
	if (rc < 0 && !none && !p9_client_dead(n->copy->client)) {
		p9_node_say(n, "extended attribute \"%.200s\": %s (%s)", name_of(n), p9_error_text((uint32_t)-rc),
			    p9_error_name((uint32_t)-rc));
	}
	p9_xattr_fini(n);
	return P9_ON;
}

/* ---- fetching ---- */
static int fetch_here(struct p9_node *n)
{
	struct p9_xattrs *x = &n->x;
	int fd = p9_src_fd(n);
	ssize_t len = x->list ? fgetxattr(fd, name_of(n), x->value, P9_XATTR_MAX)
			      : flistxattr(fd, (char *)x->value, P9_XATTR_MAX);
	x->state = FETCHED;
	x->len = len < 0 ? 0 : (size_t)len;
	return len < 0 ? -p9_hosterr(errno) : P9_ON;
}

static int send_fetch(struct p9_node *n)
{
	struct p9_xattrs *x = &n->x;
	int rc = p9_client_fid(n->copy->client, &x->fid);
	if (rc < 0) {
		return rc;
	}
	struct p9_msg t = { .type = P9_Txattrwalk,
			    .txattrwalk = {
				    .fid = *p9_src_fid(n), .newfid = x->fid, .name = p9_node_str(name_of(n)) } };
	x->state = FETCH_WALK;
	return p9_node_send(n, &t, NULL);
}

static int send_clunk(struct p9_node *n, unsigned state)
{
	struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = n->x.fid } };
	n->x.state = state;
	n->x.fid = P9_NOFID;
	return p9_node_send(n, &t, NULL);
}

static int send_read(struct p9_node *n)
{
	struct p9_xattrs *x = &n->x;
	uint32_t most = p9_client_iosize(n->copy->client, 0), left = (uint32_t)(x->len - x->done);
	struct p9_msg t = { .type = P9_Tread,
			    .tread = { .fid = x->fid, .offset = x->done, .count = left < most ? left : most } };
	if (left == 0) {
		return send_clunk(n, FETCH_CLUNK);
	}
	x->state = FETCH_READ;
	return p9_node_send(n, &t, x->value + x->done);
}

/* ---- storing ---- */
static int store_here(struct p9_node *n)
{
	n->x.state = STORE_CLUNK;
	return fsetxattr(n->dst.fd, name_of(n), n->x.value, n->x.len, 0) < 0 ? -p9_hosterr(errno) : P9_ON;
}

/* A fid of its own: that of the copy is open. */
static int send_store(struct p9_node *n)
{
	struct p9_xattrs *x = &n->x;
	int rc = p9_client_fid(n->copy->client, &x->fid);
	if (rc < 0) {
		return rc;
	}
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .newfid = x->fid } };
	t.twalk.fid = n->self ? n->dst.fid : p9_dst_dir(n)->fid;
	if (!n->self) {
		t.twalk.wname.n = 1;
		t.twalk.wname.v[0] = p9_node_str(n->to);
	}
	x->state = STORE_WALK;
	return p9_node_send(n, &t, NULL);
}

static int send_create(struct p9_node *n)
{
	struct p9_xattrs *x = &n->x;
	struct p9_msg t = { .type = P9_Txattrcreate,
			    .txattrcreate = { .fid = x->fid, .name = p9_node_str(name_of(n)), .attr_size = x->len } };
	t.txattrcreate.flags = x->len ? 0 : P9_XATTR_CREATE; /* of size 0 without flags would mean removal */
	x->state = STORE_CREATE;
	return p9_node_send(n, &t, NULL);
}

static int send_write(struct p9_node *n)
{
	struct p9_xattrs *x = &n->x;
	uint32_t most = p9_client_iosize(n->copy->client, 0), left = (uint32_t)(x->len - x->done);
	struct p9_msg t = { .type = P9_Twrite,
			    .twrite = { .fid = x->fid,
					.offset = x->done,
					.data = { left < most ? left : most, x->value + x->done } } };
	if (left == 0) {
		return send_clunk(n, STORE_CLUNK);
	}
	x->state = STORE_WRITE;
	return p9_node_send(n, &t, NULL);
}

/* ---- the order of it ---- */
/* A reply is there. */
static int take(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_xattrs *x = &n->x;
	switch (x->state) {
	case FETCH_WALK:
		x->len = r->rxattrwalk.size <= P9_XATTR_MAX ? (size_t)r->rxattrwalk.size : 0;
		x->done = 0;
		return r->rxattrwalk.size <= P9_XATTR_MAX ? send_read(n) : -P9_ERANGE;
	case FETCH_READ:
		x->done += r->rread.data.len;
		x->len = r->rread.data.len ? x->len : x->done; /* it has become shorter */
		return send_read(n);
	case FETCH_CLUNK:
		x->state = FETCHED;
		return P9_ON;
	case STORE_WALK:
		return send_create(n);
	case STORE_WRITE:
		x->done += r->rwrite.count;
		return r->rwrite.count ? send_write(n) : -P9_EIO;
	case STORE_CREATE:
		x->done = 0;
		return send_write(n);
	default:
		return P9_ON;
	}
}

/* An attribute is stored, or the list is there: on to the next. False when there is none. */
static bool next_name(struct p9_node *n)
{
	struct p9_xattrs *x = &n->x;
	if (!x->list) {
		x->list = (char *)x->value;
		x->list_len = x->len;
		x->list[x->len] = 0; /* there is room for it */
		x->value = malloc(P9_XATTR_MAX + 1);
	} else {
		x->at += strlen(name_of(n)) + 1;
	}
	x->state = FETCH;
	return x->value && x->at < x->list_len && *name_of(n);
}

/* Goes on until something is waited for. */
static int proceed(struct p9_node *n)
{
	const struct p9_copy *c = n->copy;
	int rc = P9_ON;
	while (rc == P9_ON) {
		bool listed = n->x.list != NULL;
		switch (n->x.state) {
		case FETCH:
			rc = c->from_here ? fetch_here(n) : send_fetch(n);
			break;
		case FETCHED:
			n->x.state = STORE;
			if (!listed && !next_name(n)) {
				return give_up(n, 0);
			}
			break;
		case STORE:
			rc = c->to_here ? store_here(n) : send_store(n);
			break;
		default: /* STORE_CLUNK */
			if (!next_name(n)) {
				return give_up(n, 0);
			}
			break;
		}
	}
	return rc;
}

/* What failed may have left a fid; one that was to be made by what failed is not there. */
static int failed(struct p9_node *n, int rc)
{
	bool made = n->x.fid != P9_NOFID && n->x.state != FETCH_WALK && n->x.state != STORE_WALK;
	uint32_t fid = n->x.fid;
	give_up(n, rc);
	n->x.fid = fid;
	return made && !p9_client_dead(n->copy->client) ? send_clunk(n, STORE_GIVEN_UP) : P9_ON;
}

int p9_xattr_copy(struct p9_node *n, const struct p9_msg *r)
{
	struct p9_xattrs *x = &n->x;
	if (!n->copy->opts.xattrs || (r && x->state == STORE_GIVEN_UP)) {
		return P9_ON;
	}
	if (!r) {
		*x = (struct p9_xattrs){ .fid = P9_NOFID, .value = malloc(P9_XATTR_MAX + 1) };
		if (!x->value) {
			return -P9_ENOMEM;
		}
	}
	int rc = r ? p9_reply_rc(r) : P9_ON;
	rc = rc < 0 ? rc : r ? take(n, r) : P9_ON;
	rc = rc == P9_ON ? proceed(n) : rc;
	return rc < 0 ? failed(n, rc) : rc;
}
