/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_rm.c - p9 rm: files, and with -r directories with all that is below them.
 *
 * Entries are removed while their directory is listed, many at once. A server's listing may pass over entries when
 * others vanish meanwhile: when a directory turns out not to be empty, and something was removed from it, it is listed
 * once more. Servers without Tunlinkat (diod) get a walk and a Tremove for each entry instead; the first answer tells.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "p9/tree.h"

struct rm {
	struct p9_cli *cli;
	struct p9_client *client;
	struct p9_tree tree;
	bool recursive, force;
	bool by_fid; /* the server has no Tunlinkat */
};

struct removal { /* one entry */
	struct p9_call call;
	struct p9_dir *dir;
	char *name;
	uint32_t fid; /* by_fid */
};

static bool by_fid(struct p9_dir *d)
{
	return ((struct rm *)d->tree->arg)->by_fid;
}

static int send_removal(struct removal *v, struct p9_msg *t, void (*done)(struct p9_call *call, const struct p9_msg *r))
{
	v->call.done = done;
	return p9_client_send(v->dir->tree->client, t, NULL, &v->call);
}

static void end_removal(struct removal *v, int rc)
{
	struct p9_dir *d = v->dir;
	if (rc == -P9_ENOENT) { /* somebody was faster */
		rc = 0;
	}
	if (rc == -P9_EISDIR && p9_tree_push(d->tree, d, strdup(v->name), NULL) >= 0) {
		rc = 0; /* the listing did not say what it is */
	}
	if (rc < 0) {
		p9_tree_say(d, v->name, rc);
		d->failed = true;
	} else {
		d->removed++;
	}
	free(v->name);
	free(v);
	p9_tree_job_end(d->tree, d);
}

static void on_removed(struct p9_call *call, const struct p9_msg *r)
{
	end_removal((struct removal *)call, r->type == P9_Rlerror ? -(int)r->rlerror.ecode : 0);
}

static void on_walked(struct p9_call *call, const struct p9_msg *r)
{
	struct removal *v = (struct removal *)call;
	struct p9_msg t = { .type = P9_Tremove, .tremove = { .fid = v->fid } };
	int rc = r->type == P9_Rlerror ? -(int)r->rlerror.ecode : send_removal(v, &t, on_removed);
	if (rc < 0) {
		end_removal(v, rc);
	}
}

static int remove_by_fid(struct removal *v)
{
	int rc = p9_client_fid(v->dir->tree->client, &v->fid);
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = v->dir->fid, .newfid = v->fid } };
	t.twalk.wname.n = 1;
	t.twalk.wname.v[0] = (struct p9_str){ v->name, (uint16_t)strlen(v->name) };
	return rc < 0 ? rc : send_removal(v, &t, on_walked);
}

static void on_unlinked(struct p9_call *call, const struct p9_msg *r)
{
	struct removal *v = (struct removal *)call;
	int rc = r->type == P9_Rlerror ? -(int)r->rlerror.ecode : 0;
	if (rc == -P9_EOPNOTSUPP) {
		((struct rm *)v->dir->tree->arg)->by_fid = true;
		rc = remove_by_fid(v);
		if (rc >= 0) {
			return;
		}
	}
	end_removal(v, rc);
}

static void entry(struct p9_dir *d, char *name, uint8_t type)
{
	if (type == DT_DIR) {
		if (p9_tree_push(d->tree, d, name, NULL) < 0) {
			p9_tree_say(d, "", -P9_ENOMEM);
		}
		return;
	}
	struct removal *v = name ? calloc(1, sizeof(*v)) : NULL;
	if (!v) {
		free(name);
		p9_tree_say(d, "", -P9_ENOMEM);
		return;
	}
	v->dir = d;
	v->name = name;
	struct p9_msg t = { .type = P9_Tunlinkat,
			    .tunlinkat = { .dirfid = d->fid, .name = { name, (uint16_t)strlen(name) } } };
	p9_tree_job_begin(d->tree, d);
	int rc = by_fid(d) ? remove_by_fid(v) : send_removal(v, &t, on_unlinked);
	if (rc < 0) {
		end_removal(v, rc);
	}
}

static enum p9_next next(struct p9_dir *d)
{
	return p9_remote_next(d, entry);
}

static void leave(struct p9_dir *d);

static void on_rmdir(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_dir *d = (struct p9_dir *)call;
	int rc = r->type == P9_Rlerror ? -(int)r->rlerror.ecode : 0;
	if (rc == -P9_EOPNOTSUPP && !d->tremove) { /* other directories may have found it out meanwhile */
		((struct rm *)d->tree->arg)->by_fid = true;
		leave(d);
		return;
	}
	if (d->tremove) {
		d->fid = P9_NOFID; /* Tremove ends it, whatever the answer */
	} else if ((rc == -P9_ENOTEMPTY || rc == -P9_EEXIST) && d->removed > 0) {
		p9_tree_again(d);
		return;
	}
	if (rc < 0 && rc != -P9_ENOENT) {
		p9_tree_say(d, "", rc);
		if (d->parent) {
			d->parent->failed = true;
		}
	} else if (d->parent) {
		d->parent->removed++;
	}
	p9_tree_left(d);
}

static void leave(struct p9_dir *d)
{
	const char *name = d->name;
	char base[256];
	if (!d->parent) {
		p9_path_base(d->name, base);
		name = base;
	}
	struct p9_msg t = { .type = P9_Tunlinkat,
			    .tunlinkat = { .dirfid = d->upfid,
					   .name = { name, (uint16_t)strlen(name) },
					   .flags = P9_DOTL_AT_REMOVEDIR } };
	d->tremove = by_fid(d);
	if (d->tremove) {
		t = (struct p9_msg){ .type = P9_Tremove, .tremove = { .fid = d->fid } };
	}
	if (!d->failed && !d->tree->abort && p9_tree_send(d, &t, on_rmdir)) {
		return;
	}
	if (d->parent) {
		d->parent->failed = true; /* it can not become empty */
	}
	p9_tree_left(d);
}

static const struct p9_tree_ops rm_ops = { .open = p9_remote_open, .next = next, .leave = leave };

/* Removes a tree. `fid` is its directory, `dir` the one that it is in. */
static int remove_tree(struct rm *rm, uint32_t dir, uint32_t fid, const char *path)
{
	struct p9_dir *top;
	int rc = p9_tree_push(&rm->tree, NULL, strdup(path), &top);
	if (rc < 0) {
		return rc;
	}
	top->fid = fid;
	top->upfid = dir;
	rc = p9_tree_run(&rm->tree);
	p9_tree_fini(&rm->tree);
	return rc;
}

static int remove_file(struct rm *rm, uint32_t dir, uint32_t fid, const char *name)
{
	int rc = p9_client_unlinkat(rm->client, dir, name, 0);
	if (rc == -P9_EOPNOTSUPP) { /* a server that has only the older message */
		return p9_client_remove(rm->client, fid);
	}
	p9_client_clunk(rm->client, fid);
	return rc;
}

/* Looks first: not every server refuses to unlink a directory without the flag for it. */
static int remove_one(struct rm *rm, const char *path)
{
	char name[256];
	uint32_t dir, fid;
	struct p9_qid qid;
	int rc = p9_client_walk_parent(rm->client, path, &dir, name);
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_walk1(rm->client, dir, name, &fid, &qid);
	if (rc >= 0 && !(qid.type & P9_QTDIR)) {
		rc = remove_file(rm, dir, fid, name);
	} else if (rc >= 0 && rm->recursive) {
		rc = remove_tree(rm, dir, fid, path);
	} else if (rc >= 0) {
		p9_client_clunk(rm->client, fid);
		rc = -P9_EISDIR;
	}
	if (!p9_client_dead(rm->client)) {
		p9_client_clunk(rm->client, dir);
	}
	return rc;
}

int p9_rm_tree(struct p9_cli *cli, struct p9_client *c, const char *path)
{
	struct rm rm = { .cli = cli, .client = c, .recursive = true };
	rm.tree = (struct p9_tree){ .cli = cli, .client = c, .ops = &rm_ops, .arg = &rm };
	int rc = remove_one(&rm, path);
	return rc < 0 ? rc : rm.tree.failed ? -P9_EIO : 0;
}

int p9_cmd_rm(struct p9_cli *cli, int argc, char **argv)
{
	struct rm rm = { .cli = cli };
	int o;
	while ((o = getopt(argc, argv, "rRf")) != -1) {
		if (o != 'r' && o != 'R' && o != 'f') {
			return p9_cli_usage(cli, NULL);
		}
		rm.recursive |= o != 'f';
		rm.force |= o == 'f';
	}
	if (optind == argc && !rm.force) {
		return p9_cli_usage(cli, "which file?");
	}
	int code = p9_cli_dial(cli, &rm.client);
	if (code != P9_EXIT_OK) {
		return code;
	}
	p9_catch_signals();
	rm.tree = (struct p9_tree){ .cli = cli, .client = rm.client, .ops = &rm_ops, .arg = &rm };
	for (int i = optind; i < argc && !p9_client_dead(rm.client) && !p9_interrupted; i++) {
		int rc = remove_one(&rm, argv[i]);
		if (rc < 0 && !(rm.force && rc == -P9_ENOENT)) {
			code = p9_cli_fail(cli, rm.client, argv[i], rc);
		}
	}
	code = rm.tree.failed || p9_interrupted ? P9_EXIT_FAILED : code;
	p9_client_free(rm.client);
	return code;
}
