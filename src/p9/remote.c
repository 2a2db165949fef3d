/* SPDX-License-Identifier: BSD-2-Clause */
/* remote.c - listing the server's directories for tree.c.
 *
 * A directory is walked, looked at, and opened with a second fid, because the first must stay walkable for its entries.
 * Entries are read in blocks and handed on one by one, as fast as jobs are begun: a directory of any size takes one
 * block. Names are single path elements (the engine refused others); "." and ".." are dropped here.
 */
#include <stdlib.h>
#include <string.h>
#include "p9/tree.h"

#define BLOCK (64u * 1024)

static void fail(struct p9_dir *d, int rc)
{
	p9_tree_say(d, "", rc);
	p9_tree_opened(d, rc);
}

static bool failed(struct p9_dir *d, const struct p9_msg *r)
{
	if (r->type != P9_Rlerror) {
		return false;
	}
	fail(d, -(int)r->rlerror.ecode);
	return true;
}

static void send(struct p9_dir *d, struct p9_msg *t, void (*done)(struct p9_call *call, const struct p9_msg *r))
{
	if (!p9_tree_send(d, t, done)) {
		fail(d, -P9_EIO);
	}
}

static void on_open(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_dir *d = (struct p9_dir *)call;
	if (!failed(d, r)) {
		p9_tree_opened(d, 0);
	}
}

static void on_clone(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_dir *d = (struct p9_dir *)call;
	if (r->type == P9_Rlerror) {
		d->openfid = P9_NOFID;
	}
	if (!failed(d, r)) {
		struct p9_msg t = { .type = P9_Tlopen,
				    .tlopen = { .fid = d->openfid, .flags = P9_O_RDONLY | P9_O_DIRECTORY } };
		send(d, &t, on_open);
	}
}

void p9_remote_list(struct p9_dir *d)
{
	d->buf = d->buf ? d->buf : malloc(BLOCK);
	int rc = d->buf ? p9_client_fid(d->tree->client, &d->openfid) : -P9_ENOMEM;
	if (rc < 0) {
		d->openfid = P9_NOFID;
		fail(d, rc);
		return;
	}
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = d->fid, .newfid = d->openfid } };
	send(d, &t, on_clone);
}

static void on_getattr(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_dir *d = (struct p9_dir *)call;
	if (failed(d, r)) {
		return;
	}
	int rc = d->tree->ops->entered(d, &r->rgetattr);
	if (rc < 0) {
		p9_tree_opened(d, rc); /* it has said why */
	} else {
		p9_remote_list(d);
	}
}

static void look(struct p9_dir *d)
{
	if (!d->tree->ops->entered) {
		p9_remote_list(d);
		return;
	}
	struct p9_msg t = { .type = P9_Tgetattr, .tgetattr = { .fid = d->fid, .request_mask = P9_GETATTR_BASIC } };
	send(d, &t, on_getattr);
}

static void on_walk(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_dir *d = (struct p9_dir *)call;
	if (r->type == P9_Rlerror) {
		d->fid = P9_NOFID;
	}
	if (!failed(d, r)) {
		look(d);
	}
}

void p9_remote_open(struct p9_dir *d)
{
	if (d->fid != P9_NOFID) {
		look(d);
		return;
	}
	int rc = p9_client_fid(d->tree->client, &d->fid);
	if (rc < 0) {
		d->fid = P9_NOFID;
		fail(d, rc);
		return;
	}
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = d->parent->fid, .newfid = d->fid } };
	t.twalk.wname.n = 1;
	t.twalk.wname.v[0] = (struct p9_str){ d->name, (uint16_t)strlen(d->name) };
	send(d, &t, on_walk);
}

static void on_clunk(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_dir *d = (struct p9_dir *)call;
	d->openfid = P9_NOFID;
	d->busy = false; /* the next look ends the listing */
}

static void on_readdir(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_dir *d = (struct p9_dir *)call;
	struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = d->openfid } };
	d->len = r->type == P9_Rlerror ? 0 : r->rreaddir.data.len;
	d->pos = 0;
	if (d->len > 0) {
		d->busy = false;
		return;
	}
	if (r->type == P9_Rlerror) {
		p9_tree_say(d, "", -(int)r->rlerror.ecode);
		d->failed = true;
	}
	if (!p9_tree_send(d, &t, on_clunk)) {
		d->openfid = P9_NOFID;
		d->busy = false;
	}
}

enum p9_next p9_remote_next(struct p9_dir *d, void (*entry)(struct p9_dir *d, char *name, uint8_t type))
{
	struct p9_data data = { d->len, d->buf };
	struct p9_dirent e;
	if (p9_wire_dirent_get(&data, &d->pos, &e) > 0) {
		bool dots = e.name.s[0] == '.' && (e.name.len == 1 || (e.name.len == 2 && e.name.s[1] == '.'));
		uint8_t type = e.type != DT_UNKNOWN ? e.type : e.qid.type & P9_QTDIR ? DT_DIR : DT_UNKNOWN;
		d->cookie = e.offset;
		if (!dots) {
			entry(d, strndup(e.name.s, e.name.len), type);
		}
		return P9_NEXT_BEGUN;
	}
	if (d->openfid == P9_NOFID) {
		return P9_NEXT_END;
	}
	uint32_t most = p9_client_iosize(d->tree->client, 0);
	struct p9_msg t = { .type = P9_Treaddir,
			    .treaddir = {
				    .fid = d->openfid, .offset = d->cookie, .count = BLOCK < most ? BLOCK : most } };
	d->busy = true;
	if (!p9_tree_send(d, &t, on_readdir)) {
		d->openfid = P9_NOFID;
		return P9_NEXT_END;
	}
	return P9_NEXT_BEGUN;
}
