/* SPDX-License-Identifier: BSD-2-Clause */
/* bench_load.c - the workloads of `p9 bench`, each a list of the requests that make one operation.
 *
 * A step has up to three functions: make() fills in the message that its frame is encoded from, once per slot;
 * patch() changes bytes of the frame before each sending; done() looks at the reply. Offsets into frames are those of
 * proto/9p2000L.def. The workloads at the end of the table make and remove the fixture
 * with the same machinery.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "p9/bench.h"

/* Tread, Twrite, Treaddir; Tlcreate, Tunlinkat; Twalk; Rread, Rwrite, Rreaddir */
enum { AT_OFFSET = 11, AT_NAME = 13, AT_WALK_NAME = 19, AT_COUNT = 7 };

static void put32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++) {
		p[i] = (uint8_t)(v >> 8 * i);
	}
}

static void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)v);
	put32(p + 4, (uint32_t)(v >> 32));
}

static uint64_t get64(const uint8_t *p)
{
	return p9_get32(p) | (uint64_t)p9_get32(p + 4) << 32;
}

uint32_t bench_chunk(const struct bench_conn *c)
{
	return c->msize - P9_IOHDRSZ;
}

/* ---- walk, getattr, open, clunk ---- */

static struct p9_str str(const char *s)
{
	return (struct p9_str){ s, (uint16_t)strlen(s) };
}

static void make_walk(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	m->type = P9_Twalk;
	m->twalk.fid = s->file->dir;
	m->twalk.newfid = s->fid;
	m->twalk.wname.n = s->file->name[0] != 0;
	m->twalk.wname.v[0] = str(s->file->name);
}

static int done_walk(struct bench_run *r, struct bench_conn *c, struct bench_slot *s, const uint8_t *frame,
		     uint32_t len)
{
	if (len < 9) {
		return -P9_EPROTO;
	}
	return p9_get16(frame + 7) == (s->file->name[0] != 0) ? 0 : -P9_ENOENT;
}

static void make_clone(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	m->type = P9_Twalk;
	m->twalk.fid = BENCH_SCRATCH;
	m->twalk.newfid = s->fid;
}

static void make_clunk(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	m->type = P9_Tclunk;
	m->tclunk.fid = s->fid;
}

static void make_getattr(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	m->type = P9_Tgetattr;
	m->tgetattr.fid = s->fid;
	m->tgetattr.request_mask = P9_GETATTR_BASIC;
}

static void make_open(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	m->type = P9_Tlopen;
	m->tlopen.fid = s->fid;
	m->tlopen.flags = P9_O_RDONLY;
}

/* ---- read and write ---- */

static void make_small_read(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	m->type = P9_Tread;
	m->tread.fid = s->fid;
	m->tread.count = BENCH_IO;
}

static void make_read(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	m->type = P9_Tread;
	m->tread.fid = BENCH_FILE;
	m->tread.count = bench_chunk(c);
}

static void make_randread(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	make_read(c, s, m);
	m->tread.count = BENCH_IO;
}

static void make_write(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	m->type = P9_Twrite;
	m->twrite.fid = BENCH_FILE;
	m->twrite.data.len = bench_chunk(c);
}

static void make_randwrite(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	make_write(c, s, m);
	m->twrite.data.len = BENCH_IO;
}

static void make_small_write(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	make_randwrite(c, s, m);
	m->twrite.fid = s->fid;
}

/* The next chunk of the connection's file, from the beginning again where none is left. */
static void patch_next(struct bench_run *r, struct bench_conn *c, struct bench_slot *s, uint8_t *frame)
{
	if (c->next + bench_chunk(c) > c->size) {
		c->next = 0;
	}
	put64(frame + AT_OFFSET, c->next);
	c->next += bench_chunk(c);
}

static void patch_random(struct bench_run *r, struct bench_conn *c, struct bench_slot *s, uint8_t *frame)
{
	c->random ^= c->random << 13; /* xorshift64 */
	c->random ^= c->random >> 7;
	c->random ^= c->random << 17;
	uint64_t blocks = c->size / BENCH_IO;
	put64(frame + AT_OFFSET, blocks == 0 ? 0 : c->random % blocks * BENCH_IO);
}

static int done_io(struct bench_run *r, struct bench_conn *c, struct bench_slot *s, const uint8_t *frame, uint32_t len)
{
	uint32_t count = len >= AT_COUNT + 4 ? p9_get32(frame + AT_COUNT) : 0;
	if (r->measuring) {
		r->tally.bytes += count;
	}
	return count > 0 ? 0 : -P9_EIO; /* an empty read or write is no success: the files are never empty */
}

/* ---- create, unlink ---- */

static const char *create_name(char buf[static 16], const struct bench_conn *c, const struct bench_slot *s)
{
	snprintf(buf, 16, "c%07u", c->number * c->nslots + s->tag);
	return buf;
}

static void make_create(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	static char name[16]; /* the message is encoded before the next one is made */
	m->type = P9_Tlcreate;
	m->tlcreate.fid = s->fid;
	m->tlcreate.name = str(create_name(name, c, s));
	m->tlcreate.flags = P9_O_RDWR | P9_O_EXCL;
	m->tlcreate.mode = 0600;
	m->tlcreate.gid = getegid();
}

static void make_unlink(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	static char name[16];
	m->type = P9_Tunlinkat;
	m->tunlinkat.dirfid = BENCH_SCRATCH;
	m->tunlinkat.name = str(create_name(name, c, s));
}

static void make_find(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	static char name[16];
	make_clone(c, s, m);
	m->twalk.wname.n = 1;
	m->twalk.wname.v[0] = str(create_name(name, c, s));
}

static void make_remove(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	m->type = P9_Tremove;
	m->tremove.fid = s->fid;
}

/* f0000000, f0000001, ... in the place of the name that create_name gave. */
static void patch_number(struct bench_run *r, struct bench_conn *c, struct bench_slot *s, uint8_t *frame)
{
	char name[16];
	snprintf(name, sizeof(name), "f%07u", (unsigned)(s->item % 10000000));
	memcpy(frame + (frame[4] == P9_Twalk ? AT_WALK_NAME : AT_NAME), name, 8);
}

/* ---- readdir ---- */

static void make_readdir(const struct bench_conn *c, const struct bench_slot *s, struct p9_msg *m)
{
	m->type = P9_Treaddir;
	m->treaddir.fid = s->fid;
	m->treaddir.count = bench_chunk(c);
}

static void patch_cookie(struct bench_run *r, struct bench_conn *c, struct bench_slot *s, uint8_t *frame)
{
	put64(frame + AT_OFFSET, s->offset);
}

/* Steps over the entries (qid[13] offset[8] type[1] name[s]) as any client must; an empty reply ends the listing. */
static int done_readdir(struct bench_run *r, struct bench_conn *c, struct bench_slot *s, const uint8_t *frame,
			uint32_t len)
{
	uint32_t count = len >= AT_COUNT + 4 ? p9_get32(frame + AT_COUNT) : UINT32_MAX;
	if (count != len - 11) {
		return -P9_EPROTO;
	}
	if (count == 0) {
		s->offset = 0;
		return 0;
	}
	const uint8_t *p = frame + 11, *end = p + count;
	uint64_t entries = 0;
	while (end - p >= 24) {
		s->offset = get64(p + 13);
		p += 24 + p9_get16(p + 22);
		entries++;
	}
	if (r->measuring) {
		r->tally.entries += entries;
		r->tally.bytes += count;
	}
	return p == end ? 1 : -P9_EPROTO;
}

#define STEP(name) make_##name, NULL, NULL, 0
#define NUMBERED(name) make_##name, patch_number, NULL, 0
#define WALK make_walk, NULL, done_walk, 0
#define SMALL_READ make_small_read, NULL, done_io, 1
#define SMALL_WRITE make_small_write, NULL, done_io, 0

static const struct bench_load loads[] = {
	{ .name = "getattr",
	  .nsteps = 1,
	  .steps = { { STEP(getattr) } },
	  .files_ok = true,
	  .needs = BENCH_NEEDS_FILES,
	  .holds = BENCH_HOLDS_FID },
	{ .name = "walk",
	  .nsteps = 2,
	  .steps = { { WALK }, { STEP(clunk) } },
	  .undo = 1,
	  .files_ok = true,
	  .needs = BENCH_NEEDS_FILES },
	{ .name = "small",
	  .nsteps = 5,
	  .steps = { { WALK }, { STEP(getattr) }, { STEP(open) }, { SMALL_READ }, { STEP(clunk) } },
	  .undo = 4,
	  .files_ok = true,
	  .needs = BENCH_NEEDS_FILES },
	{ .name = "create",
	  .nsteps = 5,
	  .steps = { { STEP(clone) }, { STEP(create) }, { SMALL_WRITE }, { STEP(clunk) }, { STEP(unlink) } },
	  .undo = 3,
	  .payload_step = 3,
	  .payload = BENCH_IO,
	  .needs = BENCH_NEEDS_NOTHING,
	  .by_remove = "create_remove" },
	{ .name = "read",
	  .nsteps = 1,
	  .steps = { { make_read, patch_next, done_io, 1 } },
	  .files_ok = true,
	  .needs = BENCH_NEEDS_BIG,
	  .holds = BENCH_HOLDS_READER },
	{ .name = "write",
	  .nsteps = 1,
	  .steps = { { make_write, patch_next, done_io, 0 } },
	  .payload_step = 1,
	  .needs = BENCH_NEEDS_OWN,
	  .holds = BENCH_HOLDS_WRITER },
	{ .name = "randread",
	  .nsteps = 1,
	  .steps = { { make_randread, patch_random, done_io, 1 } },
	  .files_ok = true,
	  .needs = BENCH_NEEDS_BIG,
	  .holds = BENCH_HOLDS_READER },
	{ .name = "randwrite",
	  .nsteps = 1,
	  .steps = { { make_randwrite, patch_random, done_io, 0 } },
	  .payload_step = 1,
	  .payload = BENCH_IO,
	  .needs = BENCH_NEEDS_OWN,
	  .holds = BENCH_HOLDS_WRITER },
	{ .name = "readdir",
	  .nsteps = 1,
	  .steps = { { make_readdir, patch_cookie, done_readdir, 0 } },
	  .files_ok = true,
	  .needs = BENCH_NEEDS_DIR,
	  .holds = BENCH_HOLDS_DIR },
	/* not for users */
	{ .name = "create_remove",
	  .nsteps = 4,
	  .steps = { { STEP(clone) }, { STEP(create) }, { SMALL_WRITE }, { STEP(remove) } },
	  .undo = 3,
	  .payload_step = 3,
	  .payload = BENCH_IO },
	{ .name = "mkfiles",
	  .nsteps = 4,
	  .steps = { { STEP(clone) }, { NUMBERED(create) }, { SMALL_WRITE }, { STEP(clunk) } },
	  .undo = 3,
	  .payload_step = 3,
	  .payload = BENCH_IO },
	{ .name = "mkempty",
	  .nsteps = 3,
	  .steps = { { STEP(clone) }, { NUMBERED(create) }, { STEP(clunk) } },
	  .undo = 2 },
	{ .name = "fill", .nsteps = 1, .steps = { { make_write, patch_next, done_io, 0 } }, .payload_step = 1 },
	{ .name = "rmfiles", .nsteps = 1, .steps = { { NUMBERED(unlink) } }, .by_remove = "rmfiles_remove" },
	{ .name = "rmfiles_remove", .nsteps = 2, .steps = { { NUMBERED(find) }, { STEP(remove) } } },
};

const char bench_workloads[] = "getattr walk small create read write randread randwrite readdir";

const struct bench_load *bench_load_find(const char *name)
{
	for (unsigned i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
		if (strcmp(loads[i].name, name) == 0) {
			return &loads[i];
		}
	}
	return NULL;
}

void bench_arm(struct bench_conn *c, const struct bench_load *load)
{
	for (unsigned i = 0; i < c->nslots; i++) {
		struct bench_slot *s = &c->slots[i];
		s->step = 0;
		s->offset = 0;
		s->busy = s->failed = false;
		for (unsigned k = 0; k < load->nsteps; k++) {
			struct p9_msg m = { .tag = s->tag };
			load->steps[k].make(c, s, &m);
			int len = p9_wire_encode_head(s->frame[k], BENCH_FRAME, &m);
			s->len[k] = len < 0 ? 0 : (uint16_t)len; /* cannot be: BENCH_FRAME has room for any name */
		}
	}
}
