/* SPDX-License-Identifier: BSD-2-Clause */
/* fs_remote.c - a server's tree as one end of a copy (fs_end.h); directories are fids. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "client/fs_end.h"

/* Whether a path has no elements, or only dots. */
static bool is_root(const char *p)
{
	for (;;) {
		p += strspn(p, "/");
		size_t n = strcspn(p, "/");
		if (n == 0) {
			return true;
		}
		if (n > 2 || p[0] != '.' || p[n - 1] != '.') {
			return false;
		}
		p += n;
	}
}

static int remote_root(struct p9_end *e, const char *path, uint32_t *dir, char *name)
{
	if (is_root(path)) { /* it has no name; that of its ".." is none either */
		name[0] = 0;
		return p9_client_clone(e->client, p9_client_root(e->client), dir);
	}
	return p9_client_walk_parent(e->client, path, dir, name);
}

/* The root of all has an empty name. */
static int walk(struct p9_end *e, uint32_t dir, const char *name, uint32_t *fid, struct p9_qid *qid)
{
	if (name[0]) {
		return p9_client_walk1(e->client, dir, name, fid, qid);
	}
	*qid = (struct p9_qid){ .type = P9_QTDIR };
	return p9_client_clone(e->client, dir, fid);
}

static int remote_look(struct p9_end *e, uint32_t dir, const char *name, struct p9_rgetattr *st)
{
	uint32_t fid;
	struct p9_qid qid;
	int rc = walk(e, dir, name, &fid, &qid);
	return rc < 0 ? rc : p9_fs_end(e->client, fid, p9_fs_getattr(e->client, fid, st));
}

static int remote_enter(struct p9_end *e, uint32_t dir, const char *name, uint32_t *out)
{
	struct p9_qid qid;
	int rc = walk(e, dir, name, out, &qid);
	return rc >= 0 && !(qid.type & P9_QTDIR) ? p9_fs_end(e->client, *out, -P9_ENOTDIR) : rc;
}

static void remote_leave(struct p9_end *e, uint32_t dir)
{
	p9_client_clunk(e->client, dir);
}

static int remote_list(struct p9_end *e, uint32_t dir, void **listing)
{
	struct p9_fs_dir *d = NULL;
	int rc = p9_dir_of(e->client, dir, P9_DIR_PLAIN, &d);
	*listing = d;
	return rc;
}

static int remote_next(struct p9_end *e, void *listing, char *name)
{
	struct p9_fs_entry ent;
	int rc = p9_dir_next(listing, &ent);
	if (rc > 0) {
		memcpy(name, ent.name, strlen(ent.name) + 1);
	}
	return rc;
}

static void remote_unlist(struct p9_end *e, void *listing)
{
	p9_dir_close(listing);
}

static int remote_mkdir(struct p9_end *e, uint32_t dir, const char *name, uint32_t mode)
{
	return name[0] ? p9_client_mkdir(e->client, dir, name, mode) : -P9_EEXIST;
}

static int remote_symlink(struct p9_end *e, uint32_t dir, const char *name, const char *target)
{
	return p9_client_symlink(e->client, dir, name, target);
}

static int remote_readlink(struct p9_end *e, uint32_t dir, const char *name, char *target)
{
	uint32_t fid;
	int rc = p9_client_walk1(e->client, dir, name, &fid, NULL);
	return rc < 0 ? rc : p9_fs_end(e->client, fid, p9_client_readlink(e->client, fid, target, P9_TARGETMAX + 1));
}

static int remote_mknod(struct p9_end *e, uint32_t dir, const char *name, const struct p9_rgetattr *st)
{
	return p9_client_mknod(e->client, dir, name, (st->mode & S_IFMT) | 0600, st->rdev);
}

static int remote_open(struct p9_end *e, uint32_t dir, const char *name, struct p9_end_file *f)
{
	uint32_t fid;
	int rc = p9_client_walk1(e->client, dir, name, &fid, NULL);
	return rc < 0 ? rc : p9_fh_open(e->client, fid, P9_O_RDONLY, &f->fh);
}

static int remote_create(struct p9_end *e, uint32_t dir, const char *name, bool replace, struct p9_end_file *f)
{
	uint32_t fid;
	struct p9_rgetattr st;
	int rc = p9_fh_make(e->client, dir, name, P9_O_WRONLY, 0600, &f->fh);
	if (rc != -P9_EEXIST || !replace) {
		return rc;
	}
	rc = p9_client_walk1(e->client, dir, name, &fid, NULL);
	if (rc < 0) {
		return rc;
	}
	rc = p9_fs_getattr(e->client, fid, &st);
	if (rc < 0 || p9_fs_type(st.mode) != P9_DT_REG) {
		int why = p9_fs_type(st.mode) == P9_DT_DIR ? -P9_EISDIR : -P9_EEXIST;
		return p9_fs_end(e->client, fid, rc < 0 ? rc : why);
	}
	return p9_fh_open(e->client, fid, P9_O_WRONLY | P9_O_TRUNC, &f->fh);
}

static int remote_close(struct p9_end *e, struct p9_end_file *f)
{
	int rc = p9_close(f->fh);
	f->fh = NULL;
	return rc;
}

static int remote_unlink(struct p9_end *e, uint32_t dir, const char *name)
{
	return p9_client_unlinkat(e->client, dir, name, 0);
}

static int remote_set(struct p9_end *e, uint32_t dir, const char *name, const struct p9_tsetattr *set)
{
	uint32_t fid;
	struct p9_qid qid;
	struct p9_tsetattr t = *set;
	int rc = walk(e, dir, name, &fid, &qid);
	t.fid = fid;
	return rc < 0 ? rc : p9_fs_end(e->client, fid, p9_client_setattr(e->client, &t));
}

const struct p9_end_ops p9_end_remote = {
	.root = remote_root,
	.look = remote_look,
	.enter = remote_enter,
	.leave = remote_leave,
	.list = remote_list,
	.next = remote_next,
	.unlist = remote_unlist,
	.mkdir = remote_mkdir,
	.symlink = remote_symlink,
	.readlink = remote_readlink,
	.mknod = remote_mknod,
	.open = remote_open,
	.create = remote_create,
	.close = remote_close,
	.unlink = remote_unlink,
	.set = remote_set,
};
