/* SPDX-License-Identifier: BSD-2-Clause */
/* fs_dir.c - what is in a directory, with attributes when wanted.
 *
 * One block of entries is read at a time. With attributes, walk, getattr and clunk follow each other for each entry of
 * the block, for as many entries at once as there is room; then the entries are handed out in the server's order. The
 * memory is one block's, whatever the server sends.
 * A listing ends: the cookies that blocks begin with are watched for a circle (Brent's way: one is kept, and replaced
 * after 1, 2, 4, 8... blocks), and entries are counted against a bound.
 * Must stay true: names that are handed out are single path elements (the engine refuses others; "." and ".." are left
 * out here).
 */
#include <stdlib.h>
#include <string.h>
#include "client/fs.h"
#include "client/queue.h"

#define BLOCK (32u * 1024)
#define BOUND (UINT64_C(1) << 32)

struct probe { /* an entry of the block */
	struct p9_op op;
	struct p9_dirent ent;
	struct p9_rgetattr st;
	uint32_t fid;
	bool walked, clunked; /* sent, that is */
	int error;
};

struct p9_fs_dir {
	struct p9_client *client;
	uint32_t fid, open; /* open: a second fid, open for reading; P9_NOFID before and when parked */
	bool own;	    /* fid is ours */
	bool attrs, end;
	uint8_t *block;
	uint32_t len, most; /* bytes in the block; most to ask for */
	uint64_t cookie;    /* behind the last entry that was handed out, or where the block began */
	uint64_t circle, steps, power;
	uint64_t count, bound;
	struct probe *probes;
	unsigned n, cap, at;
	char name[P9_NAMEMAX + 1];
};

int p9_dir_of(struct p9_client *c, uint32_t fid, unsigned flags, struct p9_fs_dir **out)
{
	struct p9_fs_dir *d = *out = calloc(1, sizeof(*d));
	if (!d) {
		return p9_client_set_error(c, P9_ENOMEM);
	}
	uint32_t most = p9_client_iosize(c, 0);
	*d = (struct p9_fs_dir){ .client = c,
				 .fid = fid,
				 .open = P9_NOFID,
				 .attrs = flags & P9_DIR_ATTRS,
				 .most = most < BLOCK ? most : BLOCK,
				 .circle = UINT64_MAX,
				 .power = 1,
				 .bound = BOUND };
	return 0;
}

/* Opens the second fid. */
static int open_fid(struct p9_fs_dir *d)
{
	if (d->open != P9_NOFID) {
		return 0;
	}
	uint32_t fid = P9_NOFID;
	d->block = d->block ? d->block : malloc(BLOCK);
	int rc = d->block ? p9_client_clone(d->client, d->fid, &fid) : p9_client_set_error(d->client, P9_ENOMEM);
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_lopen(d->client, fid, P9_O_RDONLY | P9_O_DIRECTORY, NULL);
	if (rc < 0) {
		return p9_fs_end(d->client, fid, rc);
	}
	d->open = fid;
	return 0;
}

int p9_dir_open(struct p9_client *c, const char *path, unsigned flags, struct p9_fs_dir **out)
{
	uint32_t fid;
	*out = NULL;
	int rc = p9_client_walk(c, path, P9_WALK_FOLLOW, &fid);
	if (rc < 0) {
		return rc;
	}
	rc = p9_dir_of(c, fid, flags, out);
	if (rc < 0 || !*out) {
		return p9_fs_end(c, fid, rc);
	}
	(*out)->own = true;
	rc = open_fid(*out);
	if (rc < 0) {
		p9_dir_close(*out);
		*out = NULL;
		return p9_client_dead(c) ? rc : p9_client_set_error(c, rc);
	}
	return 0;
}

void p9_dir_park(struct p9_fs_dir *d)
{
	if (d->open != P9_NOFID) {
		p9_client_clunk(d->client, d->open);
	}
	if (d->at > 0 && d->at < d->n) {
		d->cookie = d->probes[d->at - 1].ent.offset;
	}
	free(d->block);
	free(d->probes);
	d->open = P9_NOFID;
	d->block = NULL;
	d->probes = NULL;
	d->n = d->at = d->cap = 0;
}

void p9_dir_close(struct p9_fs_dir *d)
{
	if (!d) {
		return;
	}
	p9_dir_park(d);
	if (d->own) {
		p9_client_clunk(d->client, d->fid);
	}
	free(d);
}

void p9_dir_seek(struct p9_fs_dir *d, uint64_t cookie)
{
	if (cookie == 0) { /* another fid begins anew, whatever the server's file system thinks of rewinding */
		p9_dir_park(d);
	}
	d->cookie = cookie;
	d->n = d->at = 0;
	d->end = false;
	d->count = 0;
	d->circle = UINT64_MAX;
	d->steps = 0;
	d->power = 1;
}

void p9_dir_bound(struct p9_fs_dir *d, uint64_t entries)
{
	d->bound = entries;
}

/* ---- attributes ---- */
static void send(struct p9_queue *q, struct probe *p, struct p9_msg t)
{
	p->op.msg = t;
	p9_queue_send(q, &p->op);
}

static void begin_probe(struct p9_fs_dir *d, struct p9_queue *q, struct probe *p)
{
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = d->fid, .wname = { 1, { p->ent.name } } } };
	p->error = p9_client_fid(d->client, &p->fid);
	if (p->error >= 0) {
		t.twalk.newfid = p->fid;
		send(q, p, t);
	}
}

/* An answer came: the next request for the same entry, if there is one. */
static void go_on(struct p9_fs_dir *d, struct p9_queue *q, struct probe *p)
{
	struct p9_msg ask = { .type = P9_Tgetattr, .tgetattr = { p->fid, P9_GETATTR_ALL } };
	struct p9_msg clunk = { .type = P9_Tclunk, .tclunk = { .fid = p->fid } };
	switch (p->op.msg.type) {
	case P9_Rwalk:
		p->walked = true;
		send(q, p, ask);
		return;
	case P9_Rgetattr:
		p->st = p->op.msg.rgetattr;
		p->error = p9_fs_judge(d->client, &p->st);
		break;
	case P9_Rlerror:
		p->error = p->clunked ? p->error : p9_op_error(&p->op);
		break;
	default:
		break;
	}
	if (p->walked && !p->clunked) {
		p->clunked = true;
		send(q, p, clunk);
	}
}

static int probe_block(struct p9_fs_dir *d)
{
	struct p9_queue q;
	unsigned begun = 0;
	bool more = true;
	p9_queue_init(&q, d->client);
	while (more) {
		do { /* at least one: when others have all the room, it waits its turn */
			more = begun < d->n && !p9_client_dead(d->client);
			if (more) {
				begin_probe(d, &q, &d->probes[begun++]);
			}
		} while (more && p9_queue_room(&q));
		struct p9_op *op = p9_queue_next(&q);
		if (op) {
			go_on(d, &q, (struct probe *)op);
			more = true;
		}
	}
	p9_queue_fini(&q);
	return p9_client_dead(d->client) ? p9_client_link_error(d->client) : 0;
}

/* ---- entries ---- */
static bool is_dots(const struct p9_str *n)
{
	return n->s[0] == '.' && (n->len == 1 || (n->len == 2 && n->s[1] == '.'));
}

static int add_entry(struct p9_fs_dir *d, const struct p9_dirent *e)
{
	if (d->n == d->cap) {
		unsigned cap = d->cap ? 2 * d->cap : 64;
		struct probe *more = realloc(d->probes, cap * sizeof(*more));
		if (!more) {
			return p9_client_set_error(d->client, P9_ENOMEM);
		}
		d->probes = more;
		d->cap = cap;
	}
	d->probes[d->n++] = (struct probe){ .ent = *e, .fid = P9_NOFID };
	return 0;
}

static int take_apart(struct p9_fs_dir *d)
{
	struct p9_data data = { d->len, d->block };
	struct p9_dirent e;
	size_t pos = 0;
	int rc = 0;
	d->n = d->at = 0;
	while (rc >= 0 && p9_wire_dirent_get(&data, &pos, &e) > 0) {
		d->cookie = e.offset; /* also behind what is left out */
		rc = is_dots(&e.name) ? 0 : add_entry(d, &e);
	}
	return rc;
}

/* Whether blocks began with this cookie before. */
static bool in_circle(struct p9_fs_dir *d)
{
	if (d->cookie == d->circle) {
		return true;
	}
	if (++d->steps == d->power) {
		d->circle = d->cookie;
		d->power *= 2;
		d->steps = 0;
	}
	return false;
}

/* The next block that has entries for us; sets d->end behind the last. */
static int next_block(struct p9_fs_dir *d)
{
	int rc = open_fid(d);
	while (rc >= 0 && d->at == d->n && !d->end) {
		if (in_circle(d)) {
			return p9_client_set_error(d->client, P9_EPROTO);
		}
		rc = p9_client_readdir(d->client, d->open, d->cookie, d->block, d->most);
		d->end = rc == 0;
		d->len = rc > 0 ? (uint32_t)rc : 0;
		rc = rc > 0 ? take_apart(d) : rc;
	}
	return rc >= 0 && d->attrs && !d->end ? probe_block(d) : rc;
}

static uint8_t type_of(const struct p9_fs_dir *d, const struct probe *p)
{
	uint8_t by_qid = p->ent.qid.type & P9_QTDIR ? P9_DT_DIR : p->ent.qid.type & P9_QTSYMLINK ? P9_DT_LNK : 0;
	if (d->attrs && !p->error) {
		return p9_fs_type(p->st.mode);
	}
	return p->ent.type ? p->ent.type : by_qid;
}

int p9_dir_next(struct p9_fs_dir *d, struct p9_fs_entry *e)
{
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): p9_dir_open() has made one */
	int rc = d->at == d->n && !d->end ? next_block(d) : 0;
	if (rc < 0 || d->at == d->n) {
		return rc < 0 ? rc : 0;
	}
	if (d->count++ == d->bound) {
		return p9_client_set_error(d->client, P9_EOVERFLOW);
	}
	struct probe *p = &d->probes[d->at++];
	memcpy(d->name, p->ent.name.s, p->ent.name.len);
	d->name[p->ent.name.len] = 0;
	*e = (struct p9_fs_entry){ .name = d->name,
				   .type = type_of(d, p),
				   .qid = p->ent.qid,
				   .cookie = p->ent.offset,
				   .error = d->attrs ? p->error : 0,
				   .st = p->st };
	return 1;
}

int p9_list_dir(struct p9_client *c, const char *path, unsigned flags, p9_dir_fn *f, void *arg)
{
	struct p9_fs_dir *d;
	struct p9_fs_entry e;
	int rc = p9_dir_open(c, path, flags, &d);
	if (rc < 0) {
		return rc;
	}
	int stop = 0;
	while (stop == 0 && (rc = p9_dir_next(d, &e)) > 0) {
		stop = f(arg, &e);
	}
	p9_dir_close(d);
	if (rc < 0) {
		return p9_client_dead(c) ? rc : p9_client_set_error(c, rc);
	}
	return stop;
}
