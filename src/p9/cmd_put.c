/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_put.c - p9 put: from here to the server.
 *
 * Owns the command and the directories: one is made (or found) on the server before its entries, which put_file.c
 * copies many at a time, and gets its mode and time after them. Local directories are opened relative to their parent
 * and never through a link, so that a tree that changes meanwhile cannot lead elsewhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/put.h"

static struct p9_str str(const char *s)
{
	return (struct p9_str){ s, (uint16_t)strlen(s) };
}

/* ---- entries ---- */
static enum p9_next next(struct p9_dir *d)
{
	struct stat st;
	struct dirent *e;
	errno = 0;
	e = readdir(d->local);
	if (!e) {
		if (errno) {
			p9_tree_say(d, "", -p9_hosterr(errno));
		}
		return P9_NEXT_END;
	}
	if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
		return P9_NEXT_BEGUN;
	}
	if (fstatat(d->localfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		p9_tree_say(d, e->d_name, -p9_hosterr(errno));
	} else if (S_ISDIR(st.st_mode)) {
		if (p9_tree_push(d->tree, d, strdup(e->d_name), NULL) < 0) {
			p9_tree_say(d, e->d_name, -P9_ENOMEM);
		}
	} else if (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode)) {
		p9_put_entry(d, e->d_name, &st);
	} else {
		char *path = p9_tree_path(d, e->d_name);
		p9_cli_say(d->tree->cli, "%s: a device, FIFO or socket is not copied", path ? path : e->d_name);
		d->tree->failed = true;
		free(path);
	}
	return P9_NEXT_BEGUN;
}

/* ---- directories ---- */
static void dir_failed(struct p9_dir *d, int rc)
{
	p9_tree_say(d, "", rc);
	p9_tree_opened(d, rc);
}

static void on_dir_walk(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_dir *d = (struct p9_dir *)call;
	if (r->type == P9_Rlerror) {
		d->fid = P9_NOFID;
		dir_failed(d, -(int)r->rlerror.ecode);
	} else if (!(r->rwalk.wqid.v[0].type & P9_QTDIR)) {
		dir_failed(d, -P9_ENOTDIR);
	} else {
		p9_tree_opened(d, 0);
	}
}

static const char *dir_name(const struct p9_dir *d)
{
	return d->parent ? d->name : ((struct p9_copy *)d->tree->arg)->put_name;
}

static void on_mkdir(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_dir *d = (struct p9_dir *)call;
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = d->upfid } };
	t.twalk.wname.n = 1;
	t.twalk.wname.v[0] = str(dir_name(d));
	int rc = r->type == P9_Rlerror && r->rlerror.ecode != P9_EEXIST ? -(int)r->rlerror.ecode : 0;
	rc = rc < 0 ? rc : p9_client_fid(d->tree->client, &d->fid);
	t.twalk.newfid = d->fid;
	if (rc >= 0 && !p9_tree_send(d, &t, on_dir_walk)) {
		rc = -P9_EIO;
	}
	if (rc < 0) {
		dir_failed(d, rc);
	}
}

static int open_local(struct p9_dir *d)
{
	struct stat st;
	int up = d->parent ? d->parent->localfd : AT_FDCWD;
	d->localfd = openat(up, d->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (d->parent ? O_NOFOLLOW : 0));
	if (d->localfd < 0 || fstat(d->localfd, &st) < 0) {
		return -p9_hosterr(errno);
	}
	d->mode = st.st_mode;
	d->mtime = (uint64_t)st.st_mtim.tv_sec;
	d->mtime_nsec = (uint64_t)st.st_mtim.tv_nsec;
	d->local = fdopendir(d->localfd);
	return d->local ? 0 : -p9_hosterr(errno);
}

static void open_dir(struct p9_dir *d)
{
	struct p9_msg t = { .type = P9_Tmkdir, .tmkdir = { .dfid = d->upfid, .mode = 0700, .gid = P9_NONUNAME } };
	int rc = open_local(d);
	t.tmkdir.name = str(dir_name(d));
	if (rc >= 0 && d->fid != P9_NOFID) { /* the copy's own root, which is there */
		p9_tree_opened(d, 0);
		return;
	}
	if (rc >= 0 && !p9_tree_send(d, &t, on_mkdir)) {
		rc = -P9_EIO;
	}
	if (rc < 0) {
		dir_failed(d, rc);
	}
}

static void on_dir_seal(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_dir *d = (struct p9_dir *)call;
	if (r->type == P9_Rlerror) {
		p9_tree_say(d, "", -(int)r->rlerror.ecode);
	}
	p9_tree_left(d);
}

static void leave(struct p9_dir *d)
{
	struct p9_msg t = { .type = P9_Tsetattr,
			    .tsetattr = { .fid = d->fid,
					  .mode = d->mode & 07777,
					  .mtime_sec = d->mtime,
					  .mtime_nsec = d->mtime_nsec,
					  .valid = P9_SETATTR_MODE | P9_SETATTR_MTIME | P9_SETATTR_MTIME_SET } };
	bool skip = d->failed || d->tree->abort || d->fid == P9_NOFID;
	if (skip || !p9_tree_send(d, &t, on_dir_seal)) {
		p9_tree_left(d);
	}
}

static const struct p9_tree_ops put_ops = { .open = open_dir, .next = next, .leave = leave, .pump = p9_copy_pump };

/* ---- the command ---- */
/* Finds the directory for the copy, and its name there: REMOTE itself, or in REMOTE when that is a directory. */
static int destination(struct p9_copy *copy, const char *local, const char *remote)
{
	struct p9_rgetattr st;
	char name[256];
	p9_path_base(local, name);
	int rc = p9_client_walk(copy->client, remote, P9_WALK_FOLLOW, &copy->upfid);
	if (rc >= 0) {
		rc = p9_client_getattr(copy->client, copy->upfid, P9_GETATTR_MODE, &st);
		bool is_dir = rc >= 0 && (st.qid.type & P9_QTDIR);
		if (is_dir && name[0]) {
			copy->put_name = strdup(name);
			return copy->put_name ? 0 : -P9_ENOMEM;
		}
		if (is_dir) { /* put -r . DIR: the copy is DIR itself */
			return 0;
		}
		p9_client_clunk(copy->client, copy->upfid);
		if (rc < 0) {
			return rc;
		}
	} else if (rc != -P9_ENOENT) {
		return rc;
	}
	rc = p9_client_walk_parent(copy->client, remote, &copy->upfid, name);
	copy->put_name = rc < 0 ? NULL : strdup(name);
	return rc < 0 || copy->put_name ? rc : -P9_ENOMEM;
}

static int start(struct p9_copy *copy, const char *local, bool recursive)
{
	struct stat st;
	struct p9_dir *top;
	if (stat(local, &st) < 0) {
		return -p9_hosterr(errno);
	}
	if (S_ISDIR(st.st_mode) && recursive) {
		p9_progress_begin(&copy->progress, local, 0);
		int rc = p9_tree_push(&copy->tree, NULL, strdup(local), &top);
		if (rc >= 0) {
			top->upfid = copy->upfid;
			top->fid = copy->put_name ? P9_NOFID : copy->upfid;
		}
		return rc;
	}
	if (S_ISDIR(st.st_mode)) {
		return -P9_EISDIR;
	}
	struct p9_job *j = p9_job_new(copy, NULL, strdup(local));
	if (!j) {
		return 0;
	}
	p9_progress_begin(&copy->progress, local, (uint64_t)st.st_size);
	int rc = copy->put_name ? p9_put_open(j, AT_FDCWD, 0) : -P9_EISDIR;
	if (rc < 0) {
		p9_put_fail(j, rc);
	} else {
		p9_put_file(j);
	}
	return 0;
}

static int put(struct p9_cli *cli, const char *local, const char *remote, bool recursive)
{
	struct p9_copy copy = { 0 };
	int code = p9_copy_begin(&copy, cli, &put_ops);
	if (code != P9_EXIT_OK) {
		return code;
	}
	int rc = destination(&copy, local, remote);
	if (rc < 0) {
		p9_cli_fail(cli, copy.client, remote, rc);
		copy.tree.failed = true;
	} else {
		rc = start(&copy, local, recursive);
		if (rc < 0) {
			p9_cli_fail(cli, copy.client, local, rc);
			copy.tree.failed = true;
		}
		if (rc == -P9_EISDIR) {
			fprintf(stderr, "p9: put -r copies directories\n");
		}
	}
	return p9_copy_end(&copy);
}

int p9_cmd_put(struct p9_cli *cli, int argc, char **argv)
{
	bool recursive = false;
	int o;
	while ((o = getopt(argc, argv, "r")) != -1) {
		if (o != 'r') {
			return p9_cli_usage(cli, NULL);
		}
		recursive = true;
	}
	if (argc - optind < 1 || argc - optind > 2) {
		return p9_cli_usage(cli, optind == argc ? "what?" : "one LOCAL and one REMOTE");
	}
	return put(cli, argv[optind], optind + 1 < argc ? argv[optind + 1] : "/", recursive);
}
