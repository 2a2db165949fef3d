/* SPDX-License-Identifier: BSD-2-Clause */
/* list.c - a directory's entries, with attributes when wanted, as many requests in flight as there is room for.
 *
 * One block of entries is read at a time; for each entry walk, getattr, readlink (of links) and clunk follow each other,
 * for many entries at once; then the block is handed over in the server's order. So a directory of any size takes the
 * memory of one block, unless the taker keeps the entries.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "p9/p9.h"

#define BLOCK (64u * 1024)
#define ASKED_ATTRS P9_GETATTR_BASIC

struct run;
struct probe { /* an entry of the block whose attributes are being asked for */
	struct p9_call call;
	struct run *run;
	struct p9_entry entry;
	uint32_t fid;
	bool walked;
};
struct run {
	struct p9_list *list;
	uint32_t open; /* fid of the directory, opened for reading */
	uint8_t *block;
	uint32_t len, most;
	uint64_t cookie;
	struct probe *probes;
	unsigned n, cap, begun, ended;
};

void p9_entry_free(struct p9_entry *e)
{
	if (e->attr) {
		free(e->attr->target);
	}
	free(e->attr);
	free(e->name);
	*e = (struct p9_entry){ 0 };
}

struct p9_attr *p9_attr_of(const struct p9_rgetattr *r)
{
	struct p9_attr *a = calloc(1, sizeof(*a));
	if (a) {
		*a = (struct p9_attr){ .size = r->size,
				       .blocks = r->blocks,
				       .mtime = r->mtime_sec,
				       .mtime_nsec = r->mtime_nsec,
				       .qid = r->qid.path,
				       .nlink = r->nlink,
				       .rdev = r->rdev,
				       .mode = r->mode,
				       .uid = r->uid,
				       .gid = r->gid };
	}
	return a;
}

static void end_probe(struct probe *p, int error)
{
	p->entry.error = p->entry.error ? p->entry.error : error;
	p->run->ended++;
}

static void send(struct probe *p, struct p9_msg *t)
{
	int rc = p9_client_send(p->run->list->client, t, NULL, &p->call);
	if (rc < 0) {
		end_probe(p, rc);
	}
}

static void on_clunk(struct p9_call *call, const struct p9_msg *r)
{
	end_probe((struct probe *)call, 0);
}

static void clunk(struct probe *p)
{
	struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = p->fid } };
	p->call.done = on_clunk;
	send(p, &t);
}

static void on_readlink(struct p9_call *call, const struct p9_msg *r)
{
	struct probe *p = (struct probe *)call;
	if (r->type == P9_Rreadlink) {
		p->entry.attr->target = strndup(r->rreadlink.target.s, r->rreadlink.target.len);
	}
	clunk(p);
}

static void on_getattr(struct p9_call *call, const struct p9_msg *r)
{
	struct probe *p = (struct probe *)call;
	if (r->type == P9_Rlerror) {
		p->entry.error = -(int)r->rlerror.ecode;
		clunk(p);
		return;
	}
	p->entry.attr = p9_attr_of(&r->rgetattr);
	if (!p->entry.attr || !S_ISLNK(r->rgetattr.mode)) {
		p->entry.error = p->entry.attr ? 0 : -P9_ENOMEM;
		clunk(p);
		return;
	}
	struct p9_msg t = { .type = P9_Treadlink, .treadlink = { .fid = p->fid } };
	p->call.done = on_readlink;
	send(p, &t);
}

static void on_walk(struct p9_call *call, const struct p9_msg *r)
{
	struct probe *p = (struct probe *)call;
	if (r->type == P9_Rlerror) {
		end_probe(p, -(int)r->rlerror.ecode);
		return;
	}
	struct p9_msg t = { .type = P9_Tgetattr, .tgetattr = { .fid = p->fid, .request_mask = ASKED_ATTRS } };
	p->call.done = on_getattr;
	send(p, &t);
}

static void begin_probe(struct run *run, struct probe *p)
{
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = run->list->dir } };
	bool self = strcmp(p->entry.name, ".") == 0;
	int rc = p9_client_fid(run->list->client, &p->fid);
	if (rc < 0) {
		end_probe(p, rc);
		return;
	}
	t.twalk.newfid = p->fid;
	if (!self) {
		t.twalk.wname.n = 1;
		t.twalk.wname.v[0] = (struct p9_str){ p->entry.name, (uint16_t)strlen(p->entry.name) };
	}
	p->call.done = on_walk;
	send(p, &t);
}

static int probe_block(struct run *run)
{
	struct p9_client *c = run->list->client;
	run->begun = run->ended = 0;
	while (run->ended < run->n) {
		while (run->begun < run->n && p9_client_room(c) > 0) {
			begin_probe(run, &run->probes[run->begun++]);
		}
		int rc = run->ended < run->n ? p9_client_step(c) : 0;
		if (rc < 0) {
			return rc;
		}
	}
	return 0;
}

static uint8_t entry_type(const struct p9_dirent *d)
{
	if (d->type != DT_UNKNOWN) {
		return d->type;
	}
	return d->qid.type & P9_QTDIR ? DT_DIR : d->qid.type & P9_QTSYMLINK ? DT_LNK : DT_UNKNOWN;
}

static int add_entry(struct run *run, const struct p9_dirent *d)
{
	if (run->n == run->cap) {
		unsigned cap = run->cap ? 2 * run->cap : 256;
		struct probe *more = realloc(run->probes, cap * sizeof(*more));
		if (!more) {
			return -P9_ENOMEM;
		}
		run->probes = more;
		run->cap = cap;
	}
	struct probe *p = &run->probes[run->n];
	*p = (struct probe){ .run = run, .fid = P9_NOFID };
	p->entry.type = entry_type(d);
	p->entry.name = strndup(d->name.s, d->name.len);
	run->n += p->entry.name != NULL;
	return p->entry.name ? 0 : -P9_ENOMEM;
}

/* Takes the block apart. */
static int read_entries(struct run *run)
{
	struct p9_data data = { run->len, run->block };
	struct p9_dirent d;
	size_t pos = 0;
	run->n = 0;
	while (p9_wire_dirent_get(&data, &pos, &d) > 0) {
		run->cookie = d.offset;
		int rc = !run->list->dots && d.name.s[0] == '.' ? 0 : add_entry(run, &d);
		if (rc < 0) {
			return rc;
		}
	}
	return 0;
}

/* Hands over what it can and frees the rest. */
static int hand_over(struct run *run, int rc)
{
	for (unsigned i = 0; i < run->n; i++) {
		if (rc >= 0) {
			rc = run->list->entry(run->list, &run->probes[i].entry);
		} else {
			p9_entry_free(&run->probes[i].entry);
		}
	}
	run->n = 0;
	return rc;
}

static int list_open(struct run *run)
{
	struct p9_client *c = run->list->client;
	int rc;
	do {
		rc = p9_client_readdir(c, run->open, run->cookie, run->block, run->most);
		if (rc <= 0) {
			return rc;
		}
		run->len = (uint32_t)rc;
		rc = read_entries(run);
		if (rc >= 0 && run->list->attrs) {
			rc = probe_block(run);
		}
		rc = hand_over(run, rc);
	} while (rc >= 0);
	return rc;
}

int p9_list_run(struct p9_list *l)
{
	struct run run = { .list = l, .block = malloc(BLOCK), .most = BLOCK };
	int rc = run.block ? p9_client_clone(l->client, l->dir, &run.open) : -P9_ENOMEM;
	if (rc >= 0) {
		rc = p9_client_lopen(l->client, run.open, P9_O_RDONLY | P9_O_DIRECTORY, NULL);
		rc = rc < 0 ? rc : list_open(&run);
		p9_client_clunk(l->client, run.open);
	}
	free(run.probes);
	free(run.block);
	return rc;
}
