/* SPDX-License-Identifier: BSD-2-Clause */
/* bench_prep.c - what a workload of `p9 bench` needs on the server, made before it and removed after it.
 *
 * All of it lies in one scratch directory, .p9bench-PID-N, in the root of the export; with --file nothing is made and
 * the given files are used, only by workloads that do not change them. Many files are made and removed by the
 * workloads mkfiles, mkempty and rmfiles over the first connection, pipelined like any other. Their names are
 * f0000000 and so on, so that removing needs no listing; what is left after errors makes the last rmdir fail, and
 * that is reported.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "p9/bench.h"

static int fail(struct bench_run *r, int rc, const struct bench_conn *c, const char *what)
{
	snprintf(r->err, sizeof(r->err), "%s: %.150s", what, c->err);
	return rc;
}

static int remove_entry(struct bench_run *r, uint32_t dir, const char *name, uint32_t flags)
{
	struct bench_conn *c = &r->conns[0];
	struct p9_msg t = { .type = P9_Tunlinkat };
	struct p9_msg reply;
	if (r->by_remove) {
		int rc = bench_walk(c, dir, BENCH_TEMP, name, strlen(name));
		t.type = P9_Tremove;
		t.tremove.fid = BENCH_TEMP;
		return rc < 0 ? rc : bench_call(c, &t, &reply);
	}
	t.tunlinkat.dirfid = dir;
	t.tunlinkat.name = (struct p9_str){ name, (uint16_t)strlen(name) };
	t.tunlinkat.flags = flags;
	return bench_call(c, &t, &reply);
}

static int make_scratch(struct bench_run *r, struct bench_fixture *f)
{
	struct bench_conn *c = &r->conns[0];
	char name[sizeof(f->scratch)];
	snprintf(name, sizeof(name), ".p9bench-%d-%u", (int)getpid(), (unsigned)(bench_now() / 1000));
	struct p9_msg t = { .type = P9_Tmkdir };
	struct p9_msg reply;
	t.tmkdir.dfid = BENCH_ROOT;
	t.tmkdir.name = (struct p9_str){ name, (uint16_t)strlen(name) };
	t.tmkdir.mode = 0700;
	t.tmkdir.gid = getegid();
	int rc = bench_call(c, &t, &reply);
	if (rc < 0) {
		return fail(r, rc, c, "making a scratch directory in the export");
	}
	memcpy(f->scratch, name, sizeof(name));
	for (unsigned i = 0; i < r->nconns && rc == 0; i++) {
		c = &r->conns[i];
		rc = bench_walk(c, BENCH_ROOT, BENCH_SCRATCH, name, strlen(name));
	}
	if (rc == 0) {
		r->by_remove = remove_entry(r, BENCH_SCRATCH, "none", 0) == -P9_EOPNOTSUPP;
	}
	return rc < 0 ? fail(r, rc, c, "the scratch directory") : 0;
}

/* Runs one of the workloads that prepare, `count` times, over the first connection. */
static int run_first(struct bench_run *r, const char *load, uint64_t count)
{
	unsigned nconns = r->nconns, depth = r->depth;
	r->nconns = 1;
	r->depth = r->conns[0].nslots;
	int rc = bench_run(r, bench_load_find(load), count, 0);
	r->nconns = nconns;
	r->depth = depth;
	if (rc == 0 && r->tally.errors > 0) {
		snprintf(r->err, sizeof(r->err), "preparing: %s: %s (%s)", r->tally.failed,
			 p9_error_text(r->tally.ecode), p9_error_name(r->tally.ecode));
		rc = -(int)r->tally.ecode;
	}
	return rc;
}

static int open_fid(struct bench_run *r, struct bench_conn *c, uint32_t fid, uint32_t flags)
{
	struct p9_msg t = { .type = P9_Tlopen };
	struct p9_msg reply;
	t.tlopen.fid = fid;
	t.tlopen.flags = flags;
	int rc = bench_call(c, &t, &reply);
	return rc < 0 ? fail(r, rc, c, "preparing") : 0;
}

static int walk_file(struct bench_run *r, struct bench_conn *c, const struct bench_file *file, uint32_t fid)
{
	int rc = bench_walk(c, file->dir, fid, file->name, strlen(file->name));
	return rc < 0 ? fail(r, rc, c, file->name) : 0;
}

static int clunk(struct bench_run *r, struct bench_conn *c, uint32_t fid)
{
	struct p9_msg t = { .type = P9_Tclunk };
	struct p9_msg reply;
	t.tclunk.fid = fid;
	int rc = bench_call(c, &t, &reply);
	return rc < 0 ? fail(r, rc, c, "preparing") : 0;
}

/* Makes n files and lists them in f->files; those of a directory that is to be listed stay empty and are not. */
static int make_files(struct bench_run *r, struct bench_fixture *f, unsigned n, bool empty)
{
	f->made = n;
	int rc = run_first(r, empty ? "mkempty" : "mkfiles", n);
	f->nfiles = empty ? 1 : n;
	f->files = rc < 0 ? NULL : calloc(f->nfiles, sizeof(*f->files));
	if (f->files == NULL) {
		return rc < 0 ? rc : -P9_ENOMEM;
	}
	for (unsigned i = 0; i < f->nfiles; i++) {
		f->files[i].dir = BENCH_SCRATCH;
		if (!empty) {
			snprintf(f->files[i].name, sizeof(f->files[i].name), "f%07u", i);
		}
	}
	return 0;
}

/* Writes a made file up to about `size` bytes. */
static int fill_file(struct bench_run *r, const struct bench_file *file, uint64_t size)
{
	struct bench_conn *c = &r->conns[0];
	int rc = walk_file(r, c, file, BENCH_FILE);
	if (rc == 0) {
		rc = open_fid(r, c, BENCH_FILE, P9_O_RDWR);
	}
	if (rc < 0) {
		return rc;
	}
	uint64_t chunks = size / bench_chunk(c) > 0 ? size / bench_chunk(c) : 1;
	c->next = 0;
	c->size = chunks * bench_chunk(c);
	unsigned nslots = c->nslots;
	c->nslots = nslots < 8 ? nslots : 8; /* large requests: no use in more */
	rc = run_first(r, "fill", chunks);
	c->nslots = nslots;
	return rc < 0 ? rc : clunk(r, c, BENCH_FILE);
}

/* --file: every connection gets a fid for the directory of each path. */
static int find_files(struct bench_run *r, struct bench_fixture *f, const struct bench_want *w)
{
	f->nfiles = w->npaths;
	f->files = calloc(w->npaths, sizeof(*f->files));
	for (unsigned i = 0; f->files != NULL && i < w->npaths; i++) {
		const char *path = w->paths[i], *slash = strrchr(path, '/');
		const char *name = slash != NULL ? slash + 1 : path;
		if (strlen(name) >= sizeof(f->files[i].name)) {
			snprintf(r->err, sizeof(r->err), "--file %.60s...: the name is too long", path);
			return -P9_ENAMETOOLONG;
		}
		f->files[i].dir = BENCH_DIRS + i;
		strcpy(f->files[i].name, name);
		for (unsigned k = 0; k < r->nconns; k++) {
			struct bench_conn *c = &r->conns[k];
			int rc = bench_walk(c, BENCH_ROOT, BENCH_DIRS + i, path, (size_t)(name - path));
			if (rc < 0) {
				return fail(r, rc, c, path);
			}
		}
	}
	return f->files == NULL ? -P9_ENOMEM : 0;
}

static int make_fixture(struct bench_run *r, const struct bench_load *load, const struct bench_want *w,
			struct bench_fixture *f)
{
	if (w->npaths > 0) {
		return find_files(r, f, w);
	}
	int rc = make_scratch(r, f);
	if (rc < 0 || load->needs == BENCH_NEEDS_NOTHING) {
		return rc;
	}
	unsigned files = load->needs == BENCH_NEEDS_BIG ? 1 : load->needs == BENCH_NEEDS_OWN ? r->nconns : w->count;
	rc = make_files(r, f, files, load->needs == BENCH_NEEDS_DIR);
	bool big = load->needs == BENCH_NEEDS_BIG || load->needs == BENCH_NEEDS_OWN;
	for (unsigned i = 0; big && rc == 0 && i < files; i++) {
		rc = fill_file(r, &f->files[i], w->size);
	}
	return rc;
}

/* Opens the connection's file and learns its size. */
static int hold_file(struct bench_run *r, struct bench_conn *c, const struct bench_file *file, uint32_t flags)
{
	int rc = walk_file(r, c, file, BENCH_FILE);
	if (rc == 0) {
		rc = open_fid(r, c, BENCH_FILE, flags);
	}
	if (rc < 0) {
		return rc;
	}
	struct p9_msg t = { .type = P9_Tgetattr };
	struct p9_msg reply;
	t.tgetattr.fid = BENCH_FILE;
	t.tgetattr.request_mask = P9_GETATTR_BASIC;
	rc = bench_call(c, &t, &reply);
	if (rc < 0) {
		return fail(r, rc, c, file->name);
	}
	c->next = 0;
	c->size = reply.rgetattr.size;
	return 0;
}

/* Gives every slot of a connection its file, and the fids that the workload holds all the time. */
static int hold(struct bench_run *r, struct bench_conn *c, const struct bench_load *load, struct bench_fixture *f)
{
	int rc = 0;
	for (unsigned i = 0; i < c->nslots && rc == 0; i++) {
		struct bench_slot *s = &c->slots[i];
		s->file = f->nfiles > 0 ? &f->files[(c->number * c->nslots + i) % f->nfiles] : NULL;
		if (load->holds == BENCH_HOLDS_FID || load->holds == BENCH_HOLDS_DIR) {
			rc = walk_file(r, c, s->file, s->fid);
		}
		if (rc == 0 && load->holds == BENCH_HOLDS_DIR) {
			rc = open_fid(r, c, s->fid, P9_O_RDONLY | P9_O_DIRECTORY);
		}
	}
	if (rc == 0 && (load->holds == BENCH_HOLDS_READER || load->holds == BENCH_HOLDS_WRITER)) {
		uint32_t flags = load->holds == BENCH_HOLDS_READER ? P9_O_RDONLY : P9_O_RDWR;
		rc = hold_file(r, c, &f->files[c->number % f->nfiles], flags);
	}
	return rc;
}

/* One listing, before it counts, tells how many entries there are. */
static int count_entries(struct bench_run *r, const struct bench_load *load, struct bench_fixture *f)
{
	unsigned nconns = r->nconns, depth = r->depth;
	r->nconns = r->depth = 1;
	int rc = bench_run(r, load, 1, 0);
	r->nconns = nconns;
	r->depth = depth;
	f->entries = r->tally.entries > 0 ? r->tally.entries : 1;
	return rc;
}

int bench_prep(struct bench_run *r, const struct bench_load *load, const struct bench_want *w, struct bench_fixture *f)
{
	int rc = make_fixture(r, load, w, f);
	for (unsigned i = 0; i < r->nconns && rc == 0; i++) {
		rc = hold(r, &r->conns[i], load, f);
	}
	if (rc == 0 && load->holds == BENCH_HOLDS_DIR) {
		rc = count_entries(r, load, f);
	}
	return rc;
}

int bench_unprep(struct bench_run *r, struct bench_fixture *f)
{
	bench_stopped = false; /* what was made is removed also after ^C; a second one ends the program */
	free(f->files);
	f->files = NULL;
	if (f->scratch[0] == 0) {
		return 0;
	}
	struct bench_conn *c = &r->conns[0];
	if (f->made > 0 && run_first(r, "rmfiles", f->made) < 0) {
		f->made = 0; /* rmdir will say what is wrong */
	}
	int rc = remove_entry(r, BENCH_ROOT, f->scratch, P9_DOTL_AT_REMOVEDIR);
	for (unsigned i = 0; rc == -P9_ENOTEMPTY && i < r->nconns * c->nslots; i++) {
		char name[16]; /* chains that failed in the middle */
		snprintf(name, sizeof(name), "c%07u", i);
		rc = remove_entry(r, BENCH_SCRATCH, name, 0) == -P9_ECONNRESET ? -P9_ECONNRESET : rc;
	}
	if (rc == -P9_ENOTEMPTY) {
		rc = remove_entry(r, BENCH_ROOT, f->scratch, P9_DOTL_AT_REMOVEDIR);
	}
	return rc < 0 ? fail(r, rc, c, "removing the scratch directory") : 0;
}
