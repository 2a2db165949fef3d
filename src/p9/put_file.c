/* SPDX-License-Identifier: BSD-2-Clause */
/* put_file.c - p9 put: one file, or one symbolic link, on its way to the server.
 *
 * A file: a second fid for its directory, lcreate, its bytes, mode and time, getattr to compare the size, clunk. When it
 * is there already, its fid is walked and opened with O_TRUNC instead. Holes are not sent. A file that could not be
 * copied whole is removed from the server, unless it was there before. Each callback sends the next request; every way
 * through ends in end().
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/put.h"

typedef void reply_fn(struct p9_call *call, const struct p9_msg *r);

static const char *remote_name(const struct p9_job *j)
{
	return j->dir ? j->name : j->copy->put_name;
}
static uint32_t remote_dir(const struct p9_job *j)
{
	return j->dir ? j->dir->fid : j->copy->upfid;
}
static struct p9_str str(const char *s)
{
	return (struct p9_str){ s, (uint16_t)strlen(s) };
}

/* ---- the end of a job ---- */
static void end(struct p9_job *j)
{
	struct p9_copy *copy = j->copy;
	struct p9_dir *d = j->dir;
	p9_job_free(j);
	p9_tree_job_end(&copy->tree, d);
}

static void on_clunk(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	if (r->type == P9_Rlerror && !j->error) { /* closing can be where a full disk shows */
		p9_job_fail(j, NULL, -(int)r->rlerror.ecode);
	}
	end(j);
}

static void clunk(struct p9_job *j)
{
	struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = j->fid } };
	if (j->fid == P9_NOFID || !p9_job_send(j, &t, on_clunk)) {
		end(j);
	}
}

/* A partial copy is gone; for a server without Tunlinkat, remove it by its fid. */
static void on_unlink(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	struct p9_msg t = { .type = P9_Tremove, .tremove = { .fid = j->fid } };
	bool unknown = r->type == P9_Rlerror && r->rlerror.ecode == P9_EOPNOTSUPP;
	if (!unknown || !p9_job_send(j, &t, on_clunk)) {
		clunk(j);
	}
}

static void finish(struct p9_job *j)
{
	struct p9_msg t = { .type = P9_Tunlinkat,
			    .tunlinkat = { .dirfid = remote_dir(j), .name = str(remote_name(j)) } };
	bool partial = j->error && j->made && !j->existed;
	if (!partial || !p9_job_send(j, &t, on_unlink)) {
		clunk(j);
	}
}

void p9_put_fail(struct p9_job *j, int rc)
{
	p9_job_fail(j, NULL, rc);
	finish(j);
}

static bool reply_failed(struct p9_job *j, const struct p9_msg *r)
{
	if (r->type == P9_Rlerror) {
		p9_put_fail(j, -(int)r->rlerror.ecode);
	}
	return r->type == P9_Rlerror;
}

static void send(struct p9_job *j, struct p9_msg *t, reply_fn *done)
{
	if (!p9_job_send(j, t, done)) {
		p9_put_fail(j, -P9_EIO);
	}
}

static void on_compare(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	if (reply_failed(j, r)) {
		return;
	}
	if (r->rgetattr.size != j->size && S_ISREG(r->rgetattr.mode)) {
		p9_cli_say(j->copy->cli, "%s: the copy has %llu bytes, not %llu", j->name,
			   (unsigned long long)r->rgetattr.size, (unsigned long long)j->size);
		j->copy->tree.failed = true;
		j->error = -P9_EIO;
	}
	finish(j);
}

static void on_seal(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	struct p9_msg t = { .type = P9_Tgetattr,
			    .tgetattr = { .fid = j->fid, .request_mask = P9_GETATTR_MODE | P9_GETATTR_SIZE } };
	if (!reply_failed(j, r)) {
		send(j, &t, on_compare);
	}
}

/* Mode and time, and the size where the end of the file is a hole. */
static void on_moved(struct p9_xfer *x)
{
	struct p9_job *j = (struct p9_job *)((char *)x - offsetof(struct p9_job, xfer));
	struct p9_msg t = { .type = P9_Tsetattr,
			    .tsetattr = { .fid = j->fid,
					  .mode = j->mode & 0777,
					  .size = j->size,
					  .mtime_sec = j->mtime,
					  .mtime_nsec = j->mtime_nsec } };
	t.tsetattr.valid = P9_SETATTR_MODE | P9_SETATTR_MTIME | P9_SETATTR_MTIME_SET;
	t.tsetattr.valid |= j->sparse ? P9_SETATTR_SIZE : 0;
	j->moving = false;
	if (x->error == -P9_EINTR && j->copy->tree.abort) {
		j->error = x->error;
		finish(j);
	} else if (x->error) {
		p9_put_fail(j, x->error);
	} else {
		j->size = j->sparse || x->next < j->size ? j->size : x->next; /* it may have grown meanwhile */
		send(j, &t, on_seal);
	}
}

/* ---- bytes ---- */
/* Moves x->next to the next data of a sparse file. Returns how far the data goes, 0 at the end. */
static uint64_t next_data(struct p9_xfer *x, int fd)
{
	off_t data = lseek(fd, (off_t)x->next, SEEK_DATA);
	if (data < 0) {
		return 0;
	}
	off_t hole = lseek(fd, data, SEEK_HOLE);
	x->next = (uint64_t)data;
	return hole < data ? 0 : (uint64_t)(hole - data);
}

static int give_bytes(struct p9_xfer *x, uint64_t offset, uint8_t *buf, uint32_t n)
{
	struct p9_job *j = (struct p9_job *)((char *)x - offsetof(struct p9_job, xfer));
	if (j->sparse) {
		uint64_t far = next_data(x, j->localfd);
		n = far < n ? (uint32_t)far : n;
	}
	ssize_t k = n ? pread(j->localfd, buf, n, (off_t)x->next) : 0;
	if (k < 0) {
		return -p9_hosterr(errno);
	}
	p9_progress_add(&j->copy->progress, (uint64_t)k);
	return (int)k;
}

static void begin_transfer(struct p9_job *j, uint32_t iounit)
{
	uint32_t chunk = p9_client_iosize(j->copy->client, iounit);
	j->xfer.client = j->copy->client;
	j->xfer.pool = j->copy->pool;
	j->xfer.fid = j->fid;
	j->xfer.chunk = chunk < P9_COPY_CHUNK ? chunk : P9_COPY_CHUNK;
	j->xfer.size = j->size;
	j->xfer.writing = true;
	j->xfer.data = give_bytes;
	j->xfer.done = on_moved;
	j->moving = true;
	p9_xfer_begin(&j->xfer);
}

/* ---- a file that is there already ---- */
static void on_reopen(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	if (!reply_failed(j, r)) {
		begin_transfer(j, r->rlopen.iounit);
	}
}

static void on_rewalk(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	struct p9_msg t = { .type = P9_Tlopen, .tlopen = { .fid = j->fid, .flags = P9_O_WRONLY | P9_O_TRUNC } };
	if (reply_failed(j, r)) {
		return;
	}
	if (r->rwalk.wqid.v[0].type & (P9_QTDIR | P9_QTSYMLINK)) { /* never write through a link that is in the way */
		p9_put_fail(j, r->rwalk.wqid.v[0].type & P9_QTDIR ? -P9_EISDIR : -P9_ELOOP);
		return;
	}
	send(j, &t, on_reopen);
}

static void on_lcreate(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	if (r->type == P9_Rlerror && r->rlerror.ecode == P9_EEXIST) {
		struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = j->fid, .newfid = j->fid } };
		t.twalk.wname.n = 1;
		t.twalk.wname.v[0] = str(remote_name(j));
		j->existed = true;
		send(j, &t, on_rewalk);
	} else if (!reply_failed(j, r)) {
		j->made = true;
		begin_transfer(j, r->rlcreate.iounit);
	}
}

static void on_clone(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	struct p9_msg t = { .type = P9_Tlcreate,
			    .tlcreate = { .fid = j->fid,
					  .name = str(remote_name(j)),
					  .mode = j->mode & 0777,
					  .flags = P9_O_WRONLY | P9_O_CREAT | P9_O_EXCL,
					  .gid = P9_NONUNAME } };
	if (r->type == P9_Rlerror) {
		j->fid = P9_NOFID;
	}
	if (!reply_failed(j, r)) {
		send(j, &t, on_lcreate);
	}
}

void p9_put_file(struct p9_job *j)
{
	int rc = p9_client_fid(j->copy->client, &j->fid);
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = remote_dir(j), .newfid = j->fid } };
	if (rc < 0) {
		p9_put_fail(j, rc);
	} else {
		send(j, &t, on_clone);
	}
}

/* ---- a symbolic link ---- */
static void link_again(struct p9_job *j);

static void on_symlink(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	bool there = r->type == P9_Rlerror && r->rlerror.ecode == P9_EEXIST && !j->existed;
	if (there) {
		j->existed = true;
		link_again(j);
	} else if (!reply_failed(j, r)) {
		finish(j);
	}
}

static void make_link(struct p9_job *j)
{
	char target[P9_TARGETMAX + 1];
	ssize_t n = readlinkat(j->dir->localfd, j->name, target, sizeof(target) - 1);
	if (n < 0) {
		p9_put_fail(j, -p9_hosterr(errno));
		return;
	}
	struct p9_msg t = { .type = P9_Tsymlink,
			    .tsymlink = { .fid = remote_dir(j),
					  .name = str(j->name),
					  .symtgt = { target, (uint16_t)n },
					  .gid = P9_NONUNAME } };
	send(j, &t, on_symlink);
}

static void on_old_unlinked(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	if (!reply_failed(j, r)) {
		make_link(j);
	}
}

static void on_old_walked(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	struct p9_msg t = { .type = P9_Tunlinkat, .tunlinkat = { .dirfid = remote_dir(j), .name = str(j->name) } };
	if (r->type == P9_Rlerror) {
		j->fid = P9_NOFID;
	}
	if (reply_failed(j, r)) {
		return;
	}
	if (!(r->rwalk.wqid.v[0].type & P9_QTSYMLINK)) { /* a link takes the place of a link, of nothing else */
		p9_put_fail(j, -P9_EEXIST);
		return;
	}
	send(j, &t, on_old_unlinked);
}

static void link_again(struct p9_job *j)
{
	int rc = p9_client_fid(j->copy->client, &j->fid);
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = remote_dir(j), .newfid = j->fid } };
	t.twalk.wname.n = 1;
	t.twalk.wname.v[0] = str(j->name);
	if (rc < 0) {
		p9_put_fail(j, rc);
	} else {
		send(j, &t, on_old_walked);
	}
}

/* ---- entries ---- */
static void note(struct p9_job *j, const struct stat *st)
{
	j->mode = st->st_mode;
	j->size = (uint64_t)st->st_size;
	j->mtime = (uint64_t)st->st_mtim.tv_sec;
	j->mtime_nsec = (uint64_t)st->st_mtim.tv_nsec;
	j->sparse = (uint64_t)st->st_blocks < j->size / 512;
	j->copy->progress.files++;
}

/* Opens what is a regular file, also when it was something else a moment ago. */
int p9_put_open(struct p9_job *j, int dir, int flags)
{
	struct stat st;
	j->localfd = openat(dir, j->name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | flags);
	if (j->localfd < 0 || fstat(j->localfd, &st) < 0) {
		return -p9_hosterr(errno);
	}
	note(j, &st);
	if (S_ISDIR(st.st_mode)) {
		return -P9_EISDIR;
	}
	return S_ISREG(st.st_mode) ? 0 : -P9_EINVAL;
}

void p9_put_entry(struct p9_dir *d, const char *name, const struct stat *st)
{
	struct p9_copy *copy = d->tree->arg;
	struct p9_job *j = p9_job_new(copy, d, strdup(name));
	if (!j) {
		return;
	}
	int rc = S_ISREG(st->st_mode) ? p9_put_open(j, d->localfd, O_NOFOLLOW) : 0;
	if (rc < 0) {
		p9_put_fail(j, rc);
	} else if (S_ISREG(st->st_mode)) {
		p9_put_file(j);
	} else {
		note(j, st);
		make_link(j);
	}
}
