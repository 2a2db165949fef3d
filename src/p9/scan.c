/* SPDX-License-Identifier: BSD-2-Clause */
/* scan.c - looking at every file of a tree of the server.
 *
 * Directories are gone through by tree.c and remote.c. Without attributes an entry is handed over as its directory is
 * listed; with them, a directory when it is opened and any other file by a job of its own: walk, getattr, clunk.
 * Must stay true: a directory is handed over before anything in it.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "p9/scan.h"

struct look { /* one file whose attributes are being asked for */
	struct p9_call call;
	struct p9_scan *scan;
	struct p9_dir *dir;
	char *name;
	uint32_t fid;
};

static struct p9_scan *scan_of(const struct p9_dir *d)
{
	return d->tree->arg;
}

static void end_look(struct look *k, int rc)
{
	struct p9_tree *t = k->dir->tree;
	struct p9_dir *d = k->dir;
	if (rc < 0) {
		p9_tree_say(d, k->name, rc);
	}
	free(k->name);
	free(k);
	p9_tree_job_end(t, d);
}

static void send(struct look *k, struct p9_msg *t, void (*done)(struct p9_call *call, const struct p9_msg *r))
{
	k->call.done = done;
	int rc = p9_client_send(k->scan->client, t, NULL, &k->call);
	if (rc < 0) {
		end_look(k, rc);
	}
}

static void on_clunk(struct p9_call *call, const struct p9_msg *r)
{
	end_look((struct look *)call, 0);
}

static void push(struct p9_dir *d, const char *name)
{
	if (p9_tree_push(d->tree, d, strdup(name), NULL) < 0) {
		p9_tree_say(d, name, -P9_ENOMEM);
	}
}

static void on_getattr(struct p9_call *call, const struct p9_msg *r)
{
	struct look *k = (struct look *)call;
	struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = k->fid } };
	const struct p9_rgetattr *a = &r->rgetattr;
	if (r->type == P9_Rlerror) {
		p9_tree_say(k->dir, k->name, -(int)r->rlerror.ecode);
	} else if (S_ISDIR(a->mode)) { /* the listing did not say so */
		push(k->dir, k->name);
	} else {
		struct p9_found f = { k->dir, NULL, k->name, k->dir->depth + 1, a->mode & S_IFMT, a };
		k->scan->found(k->scan, &f);
	}
	send(k, &t, on_clunk);
}

static void on_walk(struct p9_call *call, const struct p9_msg *r)
{
	struct look *k = (struct look *)call;
	struct p9_msg t = { .type = P9_Tgetattr, .tgetattr = { .fid = k->fid, .request_mask = P9_GETATTR_BASIC } };
	if (r->type == P9_Rlerror) {
		end_look(k, -(int)r->rlerror.ecode);
	} else {
		send(k, &t, on_getattr);
	}
}

static void look_at(struct p9_dir *d, char *name)
{
	struct look *k = name ? calloc(1, sizeof(*k)) : NULL;
	if (!k) {
		free(name);
		p9_tree_say(d, "", -P9_ENOMEM);
		return;
	}
	*k = (struct look){ .scan = scan_of(d), .dir = d, .name = name };
	p9_tree_job_begin(d->tree, d);
	int rc = p9_client_fid(k->scan->client, &k->fid);
	if (rc < 0) {
		end_look(k, rc);
		return;
	}
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = d->fid, .newfid = k->fid } };
	t.twalk.wname.n = 1;
	t.twalk.wname.v[0] = (struct p9_str){ name, (uint16_t)strlen(name) };
	send(k, &t, on_walk);
}

static void entry(struct p9_dir *d, char *name, uint8_t type)
{
	struct p9_scan *s = scan_of(d);
	if (!name) {
		p9_tree_say(d, "", -P9_ENOMEM);
	} else if (!s->attrs && type != DT_UNKNOWN) {
		struct p9_found f = { d, NULL, name, d->depth + 1, DTTOIF(type), NULL };
		if (s->found(s, &f) && type == DT_DIR) {
			push(d, name);
		}
		free(name);
	} else if (type == DT_DIR) {
		push(d, name);
		free(name);
	} else {
		look_at(d, name);
	}
}

static enum p9_next next(struct p9_dir *d)
{
	return p9_remote_next(d, entry);
}

/* Not to go into it is no failure, but ends its listing like one. */
static int entered(struct p9_dir *d, const struct p9_rgetattr *st)
{
	struct p9_scan *s = scan_of(d);
	struct p9_found f = { d->parent, d, d->name, d->depth, st->mode & S_IFMT, st };
	bool seen = !s->attrs && d->parent; /* when its own directory was listed */
	return seen || s->found(s, &f) ? 0 : -P9_ECANCELED;
}

static void leave(struct p9_dir *d)
{
	struct p9_scan *s = scan_of(d);
	if (s->left) {
		s->left(s, d);
	}
	p9_tree_left(d);
}

static const struct p9_tree_ops scan_ops = { .open = p9_remote_open, .entered = entered, .next = next, .leave = leave };

int p9_scan_run(struct p9_scan *s, const char *path)
{
	struct p9_rgetattr st;
	struct p9_dir *top;
	uint32_t fid;
	bool failed = s->tree.failed;
	s->tree = (struct p9_tree){ .cli = s->cli, .client = s->client, .ops = &scan_ops, .arg = s, .failed = failed };
	s->tree.maxjobs = s->cli->depth;
	int rc = p9_client_walk(s->client, path, P9_WALK_NOFOLLOW, &fid);
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_getattr(s->client, fid, P9_GETATTR_BASIC, &st);
	if (rc < 0 || !S_ISDIR(st.mode)) {
		struct p9_found f = { NULL, NULL, path, 0, st.mode & S_IFMT, &st };
		if (rc >= 0) {
			s->found(s, &f);
		}
		p9_client_clunk(s->client, fid);
		return rc;
	}
	rc = p9_tree_push(&s->tree, NULL, strdup(path), &top);
	if (rc >= 0) {
		top->fid = fid;
		rc = p9_tree_run(&s->tree);
	}
	p9_tree_fini(&s->tree);
	return rc;
}
