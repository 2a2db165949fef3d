/* SPDX-License-Identifier: BSD-2-Clause */
/* calls.c - one blocking function for each message.
 *
 * Each fills a T struct, calls, and takes what it wants from the R struct. Nothing here keeps state. A fid that a
 * failed request did not make comes back by itself (engine.h); one that a function of two requests made on its way is
 * clunked here.
 */
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "client/internal.h"

static int call(struct p9_client *c, struct p9_msg *t, struct p9_msg *r)
{
	return p9_client_call(c, t, NULL, r);
}

int p9_client_fid(struct p9_client *c, uint32_t *fid)
{
	p9_client_enter(c);
	int rc = c->mem ? p9_engine_fid_get(&c->engine, fid) : -P9_ENOTCONN;
	p9_client_leave(c);
	return rc < 0 ? p9_client_set_error(c, rc) : 0;
}

void p9_client_fid_unused(struct p9_client *c, uint32_t fid)
{
	p9_client_enter(c);
	p9_engine_fid_put(&c->engine, fid);
	p9_client_leave(c);
}

int p9_client_clone(struct p9_client *c, uint32_t fid, uint32_t *newfid)
{
	*newfid = P9_NOFID;
	int rc = p9_client_fid(c, newfid);
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = fid, .newfid = *newfid } };
	return rc < 0 ? rc : call(c, &t, NULL);
}

int p9_client_walk1(struct p9_client *c, uint32_t dir, const char *name, uint32_t *newfid, struct p9_qid *qid)
{
	int rc = p9_client_fid(c, newfid);
	struct p9_msg r, t = { .type = P9_Twalk,
			       .twalk = { .fid = dir, .newfid = *newfid, .wname = { 1, { p9_client_str(name) } } } };
	rc = rc < 0 ? rc : call(c, &t, &r);
	if (rc >= 0 && qid) {
		*qid = r.rwalk.wqid.v[0];
	}
	return rc;
}

int p9_client_statfs(struct p9_client *c, uint32_t fid, struct p9_rstatfs *st)
{
	struct p9_msg r, t = { .type = P9_Tstatfs, .tstatfs = { .fid = fid } };
	int rc = call(c, &t, &r);
	*st = rc < 0 ? (struct p9_rstatfs){ 0 } : r.rstatfs;
	return rc;
}

int p9_client_lopen(struct p9_client *c, uint32_t fid, uint32_t flags, uint32_t *iounit)
{
	struct p9_msg r, t = { .type = P9_Tlopen, .tlopen = { .fid = fid, .flags = flags } };
	int rc = call(c, &t, &r);
	if (rc >= 0 && iounit) {
		*iounit = r.rlopen.iounit;
	}
	return rc;
}

int p9_client_lcreate(struct p9_client *c, uint32_t fid, const char *name, uint32_t flags, uint32_t mode)
{
	struct p9_msg t = { .type = P9_Tlcreate,
			    .tlcreate = { .fid = fid,
					  .name = p9_client_str(name),
					  .flags = flags,
					  .mode = mode,
					  .gid = P9_NONUNAME } };
	return call(c, &t, NULL);
}

int p9_client_symlink(struct p9_client *c, uint32_t dir, const char *name, const char *target)
{
	struct p9_msg t = { .type = P9_Tsymlink,
			    .tsymlink = { .fid = dir,
					  .name = p9_client_str(name),
					  .symtgt = p9_client_str(target),
					  .gid = P9_NONUNAME } };
	return call(c, &t, NULL);
}

int p9_client_mknod(struct p9_client *c, uint32_t dir, const char *name, uint32_t mode, uint64_t rdev)
{
	struct p9_msg t = { .type = P9_Tmknod,
			    .tmknod = { .dfid = dir,
					.name = p9_client_str(name),
					.mode = mode,
					.major = major(rdev),
					.minor = minor(rdev),
					.gid = P9_NONUNAME } };
	return call(c, &t, NULL);
}

int p9_client_mkdir(struct p9_client *c, uint32_t dir, const char *name, uint32_t mode)
{
	struct p9_msg t = { .type = P9_Tmkdir,
			    .tmkdir = { .dfid = dir, .name = p9_client_str(name), .mode = mode, .gid = P9_NONUNAME } };
	return call(c, &t, NULL);
}

int p9_client_link(struct p9_client *c, uint32_t dir, uint32_t fid, const char *name)
{
	struct p9_msg t = { .type = P9_Tlink, .tlink = { .dfid = dir, .fid = fid, .name = p9_client_str(name) } };
	return call(c, &t, NULL);
}

int p9_client_rename(struct p9_client *c, uint32_t fid, uint32_t dir, const char *name)
{
	struct p9_msg t = { .type = P9_Trename, .trename = { .fid = fid, .dfid = dir, .name = p9_client_str(name) } };
	return call(c, &t, NULL);
}

int p9_client_renameat(struct p9_client *c, uint32_t olddir, const char *oldname, uint32_t newdir, const char *newname)
{
	struct p9_msg t = { .type = P9_Trenameat,
			    .trenameat = { .olddirfid = olddir,
					   .oldname = p9_client_str(oldname),
					   .newdirfid = newdir,
					   .newname = p9_client_str(newname) } };
	return call(c, &t, NULL);
}

int p9_client_unlinkat(struct p9_client *c, uint32_t dir, const char *name, uint32_t flags)
{
	struct p9_msg t = { .type = P9_Tunlinkat,
			    .tunlinkat = { .dirfid = dir, .name = p9_client_str(name), .flags = flags } };
	return call(c, &t, NULL);
}

int p9_client_remove(struct p9_client *c, uint32_t fid)
{
	struct p9_msg t = { .type = P9_Tremove, .tremove = { .fid = fid } };
	return call(c, &t, NULL);
}

int p9_client_readlink(struct p9_client *c, uint32_t fid, char *buf, size_t cap)
{
	struct p9_msg r, t = { .type = P9_Treadlink, .treadlink = { .fid = fid } };
	int rc = call(c, &t, &r);
	if (rc < 0) {
		return rc;
	}
	if (r.rreadlink.target.len >= cap) {
		return p9_client_set_error(c, P9_ENAMETOOLONG);
	}
	memcpy(buf, r.rreadlink.target.s, r.rreadlink.target.len);
	buf[r.rreadlink.target.len] = 0;
	return r.rreadlink.target.len;
}

int p9_client_getattr(struct p9_client *c, uint32_t fid, uint64_t mask, struct p9_rgetattr *st)
{
	struct p9_msg r, t = { .type = P9_Tgetattr, .tgetattr = { .fid = fid, .request_mask = mask } };
	int rc = call(c, &t, &r);
	*st = rc < 0 ? (struct p9_rgetattr){ 0 } : r.rgetattr;
	return rc;
}

int p9_client_setattr(struct p9_client *c, const struct p9_tsetattr *set)
{
	struct p9_msg t = { .type = P9_Tsetattr, .tsetattr = *set };
	return call(c, &t, NULL);
}

int p9_client_read(struct p9_client *c, uint32_t fid, uint64_t offset, void *buf, uint32_t n)
{
	uint32_t most = c->msize - P9_IOHDRSZ;
	struct p9_msg r,
		t = { .type = P9_Tread, .tread = { .fid = fid, .offset = offset, .count = n < most ? n : most } };
	int rc = p9_client_call(c, &t, buf, &r);
	return rc < 0 ? rc : (int)r.rread.data.len;
}

int p9_client_write(struct p9_client *c, uint32_t fid, uint64_t offset, const void *buf, uint32_t n)
{
	uint32_t most = c->msize - P9_IOHDRSZ;
	struct p9_msg r, t = { .type = P9_Twrite,
			       .twrite = { .fid = fid, .offset = offset, .data = { n < most ? n : most, buf } } };
	int rc = p9_client_call(c, &t, NULL, &r);
	return rc < 0 ? rc : (int)r.rwrite.count;
}

int p9_client_readdir(struct p9_client *c, uint32_t fid, uint64_t offset, void *buf, uint32_t n)
{
	uint32_t most = c->msize - P9_IOHDRSZ;
	struct p9_msg r,
		t = { .type = P9_Treaddir, .treaddir = { .fid = fid, .offset = offset, .count = n < most ? n : most } };
	int rc = p9_client_call(c, &t, buf, &r);
	return rc < 0 ? rc : (int)r.rreaddir.data.len;
}

int p9_client_fsync(struct p9_client *c, uint32_t fid, bool datasync)
{
	struct p9_msg t = { .type = P9_Tfsync, .tfsync = { .fid = fid, .datasync = datasync } };
	return call(c, &t, NULL);
}

int p9_client_lock(struct p9_client *c, const struct p9_tlock *lock, uint8_t *status)
{
	struct p9_msg r, t = { .type = P9_Tlock, .tlock = *lock };
	int rc = call(c, &t, &r);
	*status = rc < 0 ? P9_LOCK_ERROR : r.rlock.status;
	return rc;
}

int p9_client_getlock(struct p9_client *c, const struct p9_tgetlock *ask, struct p9_rgetlock *found)
{
	struct p9_msg r, t = { .type = P9_Tgetlock, .tgetlock = *ask };
	int rc = call(c, &t, &r);
	*found = rc < 0 ? (struct p9_rgetlock){ 0 } : r.rgetlock;
	return rc;
}

int p9_client_clunk(struct p9_client *c, uint32_t fid)
{
	struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = fid } };
	return call(c, &t, NULL);
}

static ssize_t read_all(struct p9_client *c, uint32_t fid, uint8_t *buf, size_t size)
{
	size_t got = 0;
	while (got < size) {
		uint32_t n = size - got < INT32_MAX ? (uint32_t)(size - got) : INT32_MAX;
		int rc = p9_client_read(c, fid, got, buf + got, n);
		if (rc <= 0) {
			return rc < 0 ? rc : (ssize_t)got;
		}
		got += (size_t)rc;
	}
	return (ssize_t)got;
}

ssize_t p9_client_xattr_get(struct p9_client *c, uint32_t fid, const char *name, void *buf, size_t cap)
{
	uint32_t newfid = P9_NOFID;
	int rc = p9_client_fid(c, &newfid);
	if (rc < 0) {
		return rc;
	}
	struct p9_msg r, t = { .type = P9_Txattrwalk,
			       .txattrwalk = { .fid = fid, .newfid = newfid, .name = p9_client_str(name) } };
	rc = call(c, &t, &r);
	if (rc < 0) {
		return rc;
	}
	uint64_t size = r.rxattrwalk.size;
	ssize_t n = size > cap ? p9_client_set_error(c, P9_ERANGE) : read_all(c, newfid, buf, (size_t)size);
	if (n >= 0 && (uint64_t)n < size) {
		n = p9_client_set_error(c, P9_EIO); /* it shrank in between, or the server lies */
	}
	char keep[P9_CLIENT_TEXT];
	memcpy(keep, p9_client_text(c), sizeof(keep));
	p9_client_clunk(c, newfid);
	if (n < 0 && !p9_client_dead(c)) {
		memcpy(p9_client_text(c), keep, sizeof(keep));
	}
	return n;
}

static int write_all(struct p9_client *c, uint32_t fid, const struct p9_data *d)
{
	uint32_t at = 0;
	while (at < d->len) {
		int rc = p9_client_write(c, fid, at, d->p + at, d->len - at);
		if (rc <= 0) {
			return rc < 0 ? rc : p9_client_set_error(c, P9_EIO);
		}
		at += (uint32_t)rc;
	}
	return 0;
}

int p9_client_xattr_set(struct p9_client *c, uint32_t fid, const char *name, const struct p9_data *value,
			uint32_t flags)
{
	uint32_t f = P9_NOFID;
	int rc = p9_client_clone(c, fid, &f);
	if (rc < 0) {
		return rc;
	}
	struct p9_msg t = { .type = P9_Txattrcreate,
			    .txattrcreate = {
				    .fid = f, .name = p9_client_str(name), .attr_size = value->len, .flags = flags } };
	rc = call(c, &t, NULL);
	rc = rc < 0 ? rc : write_all(c, f, value);
	if (rc < 0) {
		char keep[P9_CLIENT_TEXT];
		memcpy(keep, p9_client_text(c), sizeof(keep));
		p9_client_clunk(c, f);
		memcpy(p9_client_text(c), keep, sizeof(keep));
		return rc;
	}
	return p9_client_clunk(c, f); /* this is what sets it */
}

int p9_client_xattr_remove(struct p9_client *c, uint32_t fid, const char *name)
{
	static const struct p9_data nothing;
	return p9_client_xattr_set(c, fid, name, &nothing, P9_XATTR_REPLACE);
}
