/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_get.c - p9 get: from the server to here.
 *
 * A file: walk, getattr, lopen, its bytes, its mode and time, clunk. A directory is made before its entries and gets its
 * mode and time after them. Names come from the server, so everything below the place that the user named is made
 * relative to a directory descriptor, by single names, never following a link: nothing is written outside of it.
 * A file that could not be copied whole is removed, unless it was there before.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/copy.h"

#define PAGE 4096u

static const char *local_name(const struct p9_job *j)
{
	return j->dir ? j->name : j->copy->local;
}
static int local_dir(const struct p9_job *j)
{
	return j->dir ? j->dir->localfd : AT_FDCWD;
}

/* ---- the end of a job ---- */
static void on_clunk(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	struct p9_copy *copy = j->copy;
	struct p9_dir *d = j->dir;
	p9_job_free(j);
	p9_tree_job_end(&copy->tree, d);
}

static void finish(struct p9_job *j)
{
	struct p9_msg t = { .type = P9_Tclunk, .tclunk = { .fid = j->fid } };
	if (j->fid == P9_NOFID || !p9_job_send(j, &t, on_clunk)) {
		on_clunk(&j->call, NULL);
	}
}

static void fail_local(struct p9_job *j, int host_errno)
{
	char *path = j->dir ? p9_tree_path(j->dir, j->name) : NULL;
	p9_job_fail(j, j->dir ? path : j->copy->local, -p9_hosterr(host_errno));
	free(path);
}

static bool reply_failed(struct p9_job *j, const struct p9_msg *r)
{
	if (r->type == P9_Rlerror) {
		p9_job_fail(j, NULL, -(int)r->rlerror.ecode);
		finish(j);
	}
	return r->type == P9_Rlerror;
}

/* Mode and time; then the copy is complete. */
static void seal(struct p9_job *j)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
				     { (time_t)j->mtime, j->mtime_nsec < 1000000000 ? (long)j->mtime_nsec : 0 } };
	struct stat st;
	bool regular = fstat(j->localfd, &st) == 0 && S_ISREG(st.st_mode);
	if (!regular) {
		return; /* a terminal, /dev/null: nothing to keep there */
	}
	if (ftruncate(j->localfd, (off_t)j->xfer.moved) < 0 || fchmod(j->localfd, j->mode & 0777) < 0 ||
	    futimens(j->localfd, times) < 0) {
		fail_local(j, errno);
	} else if (fstat(j->localfd, &st) < 0 || (uint64_t)st.st_size != j->xfer.moved) {
		fail_local(j, EIO);
	}
}

static void remove_partial(struct p9_job *j)
{
	if (j->error && j->made && !j->existed) {
		unlinkat(local_dir(j), local_name(j), 0);
	}
	if (j->localfd >= 0 && close(j->localfd) < 0 && !j->error) {
		fail_local(j, errno);
	}
	j->localfd = -1;
}

static void abandon(struct p9_job *j)
{
	j->error = -P9_EIO;
	remove_partial(j);
}

static void complete(struct p9_job *j)
{
	if (!j->error) {
		seal(j);
	}
	remove_partial(j);
	finish(j);
}

static void on_getattr_again(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	if (r->type == P9_Rlerror || r->rgetattr.size > j->xfer.moved) {
		p9_cli_say(j->copy->cli, "%s: %llu bytes came, the server says %llu", j->name,
			   (unsigned long long)j->xfer.moved,
			   (unsigned long long)(r->type == P9_Rlerror ? j->size : r->rgetattr.size));
		j->error = -P9_EIO;
		j->copy->tree.failed = true;
	}
	complete(j);
}

/* All bytes are here. When they are not as many as the server said, ask once more: it may have changed. */
static void on_moved(struct p9_xfer *x)
{
	struct p9_job *j = (struct p9_job *)((char *)x - offsetof(struct p9_job, xfer));
	struct p9_msg t = { .type = P9_Tgetattr, .tgetattr = { .fid = j->fid, .request_mask = P9_GETATTR_SIZE } };
	j->moving = false;
	if (x->error) {
		bool stopped = x->error == -P9_EINTR && j->copy->tree.abort;
		if (stopped) {
			j->error = x->error;
		} else if (x->local) {
			fail_local(j, p9_hosterr_from(-x->error));
		} else {
			p9_job_fail(j, NULL, x->error);
		}
	} else if (x->moved != j->size && p9_job_send(j, &t, on_getattr_again)) {
		return;
	}
	complete(j);
}

/* ---- bytes ---- */
static bool all_zero(const uint8_t *p, size_t n)
{
	return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

static int write_whole(int fd, const uint8_t *p, size_t n, uint64_t offset)
{
	while (n > 0) {
		ssize_t k = pwrite(fd, p, n, (off_t)offset);
		if (k < 0 && errno == ESPIPE) {
			k = write(fd, p, n);
		}
		if (k < 0 && errno != EINTR) {
			return -p9_hosterr(errno);
		}
		k = k < 0 ? 0 : k;
		p += k;
		n -= (size_t)k;
		offset += (uint64_t)k;
	}
	return 0;
}

/* Leaves holes where a sparse file has zeros: runs of pages that are not zero are written. */
static int write_sparse(int fd, const uint8_t *p, size_t n, uint64_t offset)
{
	size_t begin = 0;
	for (size_t at = 0; at < n; at += PAGE) {
		size_t step = n - at < PAGE ? n - at : PAGE;
		if (all_zero(p + at, step)) {
			int rc = write_whole(fd, p + begin, at - begin, offset + begin);
			if (rc < 0) {
				return rc;
			}
			begin = at + step;
		}
	}
	return write_whole(fd, p + begin, n - begin, offset + begin);
}

static int take_bytes(struct p9_xfer *x, uint64_t offset, uint8_t *buf, uint32_t n)
{
	struct p9_job *j = (struct p9_job *)((char *)x - offsetof(struct p9_job, xfer));
	p9_progress_add(&j->copy->progress, n);
	return (j->sparse ? write_sparse : write_whole)(j->localfd, buf, n, offset);
}

/* ---- a regular file ---- */
static int open_local(struct p9_job *j)
{
	int flags = O_WRONLY | O_CLOEXEC | O_NOCTTY | (j->dir ? O_NOFOLLOW | O_NONBLOCK : 0);
	j->localfd = openat(local_dir(j), local_name(j), flags | O_CREAT | O_EXCL, 0600);
	if (j->localfd < 0 && errno == EEXIST) {
		j->existed = true;
		j->localfd = openat(local_dir(j), local_name(j), flags | O_CREAT | O_TRUNC, 0600);
	}
	j->made = j->localfd >= 0;
	return j->localfd < 0 ? -errno : 0;
}

static void on_lopen(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	if (reply_failed(j, r)) {
		return;
	}
	int rc = open_local(j);
	if (rc < 0) {
		fail_local(j, -rc);
		finish(j);
		return;
	}
	uint32_t chunk = p9_client_iosize(j->copy->client, r->rlopen.iounit);
	j->xfer.client = j->copy->client;
	j->xfer.pool = j->copy->pool;
	j->xfer.fid = j->fid;
	j->xfer.chunk = chunk < P9_COPY_CHUNK ? chunk : P9_COPY_CHUNK;
	j->xfer.size = j->size;
	j->xfer.data = take_bytes;
	j->xfer.done = on_moved;
	j->moving = true;
	p9_xfer_begin(&j->xfer);
}

/* ---- links ---- */
static void on_readlink(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	char target[P9_TARGETMAX + 1];
	if (reply_failed(j, r)) {
		return;
	}
	const struct p9_str *s = &r->rreadlink.target;
	if (s->len == 0 || s->len > P9_TARGETMAX) {
		p9_job_fail(j, NULL, -P9_ENAMETOOLONG);
		finish(j);
		return;
	}
	memcpy(target, s->s, s->len);
	target[s->len] = 0;
	int rc = symlinkat(target, local_dir(j), local_name(j));
	struct stat st;
	if (rc < 0 && errno == EEXIST && fstatat(local_dir(j), local_name(j), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    S_ISLNK(st.st_mode) && unlinkat(local_dir(j), local_name(j), 0) == 0) {
		rc = symlinkat(target, local_dir(j), local_name(j));
	}
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { (time_t)j->mtime, (long)j->mtime_nsec } };
	if (rc < 0) {
		fail_local(j, errno);
	} else if (j->mtime_nsec < 1000000000) {
		(void)utimensat(local_dir(j), local_name(j), times, AT_SYMLINK_NOFOLLOW);
	}
	finish(j);
}

static void skip_special(struct p9_job *j)
{
	char *path = j->dir ? p9_tree_path(j->dir, j->name) : NULL;
	p9_cli_say(j->copy->cli, "%s: a device, FIFO or socket is not copied", path ? path : j->name);
	j->copy->tree.failed = true;
	free(path);
	finish(j);
}

static void begin_directory(struct p9_job *j)
{
	char *name = j->dir ? strdup(j->name) : NULL;
	if (j->dir && p9_tree_push(&j->copy->tree, j->dir, name, NULL) < 0) {
		p9_job_fail(j, NULL, -P9_ENOMEM);
	} else if (!j->dir) {
		p9_job_fail(j, NULL, -P9_EISDIR);
	}
	finish(j);
}

static void on_getattr(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	if (reply_failed(j, r)) {
		return;
	}
	const struct p9_rgetattr *a = &r->rgetattr;
	j->size = a->size;
	j->mode = a->mode;
	j->mtime = a->mtime_sec;
	j->mtime_nsec = a->mtime_nsec;
	j->sparse = a->blocks < a->size / 512;
	struct p9_msg open = { .type = P9_Tlopen, .tlopen = { .fid = j->fid, .flags = P9_O_RDONLY } };
	struct p9_msg link = { .type = P9_Treadlink, .treadlink = { .fid = j->fid } };
	bool sent = true;
	j->copy->progress.files++;
	if (S_ISREG(a->mode)) {
		sent = p9_job_send(j, &open, on_lopen);
	} else if (S_ISLNK(a->mode)) {
		sent = p9_job_send(j, &link, on_readlink);
	} else if (S_ISDIR(a->mode)) {
		begin_directory(j);
	} else {
		skip_special(j);
	}
	if (!sent) {
		p9_job_fail(j, NULL, -P9_EIO);
		finish(j);
	}
}

static void look(struct p9_job *j)
{
	struct p9_msg t = { .type = P9_Tgetattr, .tgetattr = { .fid = j->fid, .request_mask = P9_GETATTR_BASIC } };
	if (!p9_job_send(j, &t, on_getattr)) {
		p9_job_fail(j, NULL, -P9_EIO);
		finish(j);
	}
}

static void on_walk(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_job *j = (struct p9_job *)call;
	if (r->type == P9_Rlerror) {
		j->fid = P9_NOFID;
	}
	if (!reply_failed(j, r)) {
		look(j);
	}
}

static void begin_job(struct p9_copy *copy, struct p9_dir *d, char *name)
{
	struct p9_job *j = p9_job_new(copy, d, name);
	int rc = j ? p9_client_fid(copy->client, &j->fid) : 0;
	if (!j) {
		return;
	}
	struct p9_msg t = { .type = P9_Twalk, .twalk = { .fid = d->fid, .newfid = j->fid } };
	t.twalk.wname.n = 1;
	t.twalk.wname.v[0] = (struct p9_str){ j->name, (uint16_t)strlen(j->name) };
	if (rc < 0 || !p9_job_send(j, &t, on_walk)) {
		p9_job_fail(j, NULL, rc < 0 ? rc : -P9_EIO);
		finish(j);
	}
}

/* ---- directories ---- */
static void entry(struct p9_dir *d, char *name, uint8_t type)
{
	struct p9_copy *copy = d->tree->arg;
	if (type != DT_DIR) {
		begin_job(copy, d, name);
	} else if (p9_tree_push(&copy->tree, d, name, NULL) < 0) {
		p9_tree_say(d, "", -P9_ENOMEM);
	}
}

static enum p9_next next(struct p9_dir *d)
{
	return p9_remote_next(d, entry);
}

static int entered(struct p9_dir *d, const struct p9_rgetattr *st)
{
	struct p9_copy *copy = d->tree->arg;
	int up = d->parent ? d->parent->localfd : copy->rootfd;
	const char *name = d->parent ? d->name : copy->root_name;
	int nofollow = d->parent ? O_NOFOLLOW : 0;
	d->mode = st->mode;
	d->mtime = st->mtime_sec;
	d->mtime_nsec = st->mtime_nsec;
	if (!S_ISDIR(st->mode)) {
		p9_tree_say(d, "", -P9_ENOTDIR);
		return -P9_ENOTDIR;
	}
	bool made = mkdirat(up, name, 0700) == 0;
	if (made || errno == EEXIST) {
		d->localfd = openat(up, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | nofollow);
	}
	if (d->localfd < 0) {
		int rc = -p9_hosterr(errno);
		p9_tree_say(d, "", rc);
		return rc;
	}
	return 0;
}

static void leave(struct p9_dir *d)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
				     { (time_t)d->mtime, d->mtime_nsec < 1000000000 ? (long)d->mtime_nsec : 0 } };
	if (d->localfd >= 0 && !d->tree->abort &&
	    (fchmod(d->localfd, d->mode & 0777) < 0 || futimens(d->localfd, times) < 0)) {
		p9_tree_say(d, "", -p9_hosterr(errno));
	}
	p9_tree_left(d);
}

static const struct p9_tree_ops get_ops = {
	.open = p9_remote_open, .entered = entered, .next = next, .leave = leave, .pump = p9_copy_pump
};

/* ---- the command ---- */
/* Where the copy goes: into LOCAL when that is a directory, else to LOCAL itself. */
static char *destination(const char *remote, const char *local)
{
	struct stat st;
	char base[256];
	p9_path_base(remote, base);
	if (!local) {
		return strdup(base[0] ? base : ".");
	}
	bool into = stat(local, &st) == 0 && S_ISDIR(st.st_mode) && base[0];
	return into ? p9_path_join(local, base) : strdup(local);
}

/* Splits the path of the tree's copy into a directory that is there and a name. */
static int open_root(struct p9_copy *copy, const char *local)
{
	char *dir = strdup(local);
	p9_path_base(local, copy->root_name);
	if (dir && copy->root_name[0]) {
		size_t n = strlen(dir);
		while (n > 0 && dir[n - 1] == '/') {
			n--;
		}
		while (n > 0 && dir[n - 1] != '/') {
			n--;
		}
		dir[n] = 0;
	}
	if (!copy->root_name[0]) {
		strcpy(copy->root_name, ".");
	}
	copy->rootfd = dir ? open(dir[0] ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	free(dir);
	return copy->rootfd < 0 ? -p9_hosterr(errno) : 0;
}

static int start(struct p9_copy *copy, const char *remote, bool recursive)
{
	struct p9_rgetattr st;
	struct p9_dir *top;
	uint32_t fid;
	int rc = p9_client_walk(copy->client, remote, P9_WALK_FOLLOW, &fid);
	rc = rc < 0 ? rc : p9_client_getattr(copy->client, fid, P9_GETATTR_BASIC, &st);
	if (rc < 0) {
		return rc;
	}
	bool is_dir = S_ISDIR(st.mode);
	if (is_dir && !recursive) {
		return -P9_EISDIR;
	}
	p9_progress_begin(&copy->progress, remote, is_dir ? 0 : st.size);
	if (is_dir) {
		rc = open_root(copy, copy->local);
		if (rc < 0) {
			p9_cli_fail(copy->cli, NULL, copy->local, rc);
			copy->tree.failed = true;
			return 0;
		}
		rc = p9_tree_push(&copy->tree, NULL, strdup(remote), &top);
		if (rc >= 0) {
			top->fid = fid;
		}
		return rc;
	}
	struct p9_job *j = p9_job_new(copy, NULL, strdup(remote));
	if (j) {
		j->fid = fid;
		look(j);
	}
	return 0;
}

static int get(struct p9_cli *cli, const char *remote, const char *local, bool recursive)
{
	struct p9_copy copy = { 0 };
	char *to = destination(remote, local);
	int code = to ? p9_copy_begin(&copy, cli, &get_ops) : p9_cli_fail(cli, NULL, "get", P9_ENOMEM);
	if (code == P9_EXIT_OK) {
		copy.local = to;
		copy.abandon = abandon;
		int rc = start(&copy, remote, recursive);
		if (rc < 0) {
			p9_cli_fail(cli, copy.client, remote, rc);
			if (rc == -P9_EISDIR) {
				fprintf(stderr, "p9: get -r copies directories\n");
			}
			copy.tree.failed = true;
		}
		code = p9_copy_end(&copy);
	}
	free(to);
	return code;
}

int p9_cmd_get(struct p9_cli *cli, int argc, char **argv)
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
		return p9_cli_usage(cli, optind == argc ? "what?" : "one REMOTE and one LOCAL");
	}
	const char *local = optind + 1 < argc ? argv[optind + 1] : NULL;
	if (local && strcmp(local, "-") == 0) {
		char *cat[] = { argv[0], "--", argv[optind], NULL };
		optind = 0;
		return p9_cmd_cat(cli, 3, cat);
	}
	return get(cli, argv[optind], local, recursive);
}
