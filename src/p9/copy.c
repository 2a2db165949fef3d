/* SPDX-License-Identifier: BSD-2-Clause */
/* copy.c - the copy engine: nodes, and the order of their phases.
 *
 * Owns which phases a file, a link, a device and a directory go through, and what happens when one fails: it is said
 * once, and the node goes on with the phases that close it. Other files are not touched by that.
 * Must stay true: a callback sends at most one request (its own tag is free); what can go on without a reply, such as
 * nodes that waited for another, does so from the pump, where room is counted. After the link's end callbacks go
 * through the closing phases, too, but nothing can be sent and nothing is said.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "p9/copy.h"

static p9_phase choose;

static p9_phase *const begin_phases[] = { p9_src_walk, p9_src_stat, choose, NULL };
static p9_phase *const file_phases[] = { p9_link_claim, p9_dst_look,   p9_src_open,   p9_dst_open,
					 p9_pipe_move,	p9_src_settle, p9_meta_owner, p9_xattr_copy,
					 p9_meta_seal,	p9_dst_verify, p9_pipe_check, NULL };
static p9_phase *const symlink_phases[] = { p9_link_claim, p9_src_readlink, p9_dst_symlink,
					    p9_dst_reach,  p9_meta_entry,   NULL };
static p9_phase *const special_phases[] = { p9_link_claim, p9_dst_mknod, p9_dst_reach, p9_meta_entry, NULL };
static p9_phase *const closing_phases[] = { p9_dst_discard, p9_dst_close, p9_link_settle, p9_src_close, NULL };
static p9_phase *const enter_phases[] = { p9_src_walk, p9_src_stat, p9_dst_dir_open, NULL };
static p9_phase *const leave_phases[] = { p9_meta_owner, p9_xattr_copy, p9_meta_seal, p9_dst_close, NULL };
static p9_phase *const left_phases[] = { p9_dst_close, NULL };
static p9_phase *const no_phases[] = { NULL };

/* ---- saying ---- */
char *p9_node_path(const struct p9_node *n)
{
	if (n->self) {
		return p9_tree_path(n->self, "");
	}
	return n->dir ? p9_tree_path(n->dir, n->name) : strdup(n->name);
}

/* The names from the node upwards to the operand's copy are those of the source; the operand's own may differ. */
char *p9_node_copy_path(const struct p9_node *n)
{
	char *path = NULL;
	const char *to = n->to ? n->to : "";
	for (const struct p9_dir *d = n->dir; d; d = d->parent) {
		const struct p9_node *up = d->data;
		char *more = p9_path_join(up->to ? up->to : "", path ? path : to);
		free(path);
		path = more;
	}
	char *all = p9_path_join(n->copy->target, path ? path : to);
	free(path);
	return all;
}

void p9_node_say(struct p9_node *n, const char *fmt, ...)
{
	char text[256];
	va_list ap;
	va_start(ap, fmt);
	/* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): va_start is the line before */
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	char *path = p9_node_path(n);
	n->copy->tree.failed = true;
	p9_cli_say(n->copy->cli, "%.1500s: %s", path ? path : n->name, text);
	free(path);
}

void p9_node_fail(struct p9_node *n, int rc, char end)
{
	struct p9_copy *c = n->copy;
	c->tree.failed = true;
	bool quiet = n->error || p9_client_dead(c->client) || (rc == -P9_EINTR && c->tree.abort);
	n->error = n->error ? n->error : rc;
	if (quiet) {
		return;
	}
	char *path = end == 'd' ? p9_node_copy_path(n) : p9_node_path(n);
	p9_cli_fail(c->cli, c->client, path ? path : n->name, rc);
	free(path);
}

/* ---- phases ---- */
struct p9_str p9_node_str(const char *s)
{
	return (struct p9_str){ s, (uint16_t)strlen(s) };
}

int p9_reply_rc(const struct p9_msg *r)
{
	return r->type == P9_Rlerror ? -(int)r->rlerror.ecode : 0;
}

static void on_reply(struct p9_call *call, const struct p9_msg *r)
{
	struct p9_node *n = (struct p9_node *)call;
	p9_node_go(n, n->list[n->at](n, r));
}

int p9_node_send(struct p9_node *n, struct p9_msg *t, void *dst)
{
	n->call = (struct p9_call){ .done = on_reply };
	int rc = p9_client_send(n->copy->client, t, dst, &n->call);
	return rc < 0 ? rc : P9_WAIT;
}

int p9_node_jump(struct p9_node *n, p9_phase *const *list)
{
	n->list = list;
	n->at = -1;
	return P9_ON;
}

static void node_free(struct p9_node *n);

static void node_end(struct p9_node *n)
{
	struct p9_copy *c = n->copy;
	struct p9_dir *d = n->dir;
	if (!n->self) {
		node_free(n);
		p9_tree_job_end(&c->tree, d);
	} else if (n->list == enter_phases || n->closing) {
		n->closing = false;
		if (n->error) {
			p9_tree_opened(n->self, n->error);
		} else if (c->from_here) {
			p9_tree_opened(n->self, 0);
		} else {
			p9_remote_list(n->self);
		}
	} else {
		p9_tree_left(n->self);
	}
}

/* A directory that could not be entered has nothing to close but what leaving it closes. */
static void begin_closing(struct p9_node *n)
{
	if (n->self && n->list != enter_phases) {
		return; /* leaving goes on with what is left */
	}
	n->closing = true;
	p9_node_jump(n, n->self ? no_phases : closing_phases);
}

/* Whether the copy is to blame when the phase fails. */
static bool at_copy(const struct p9_node *n)
{
	static p9_phase *const phases[] = { p9_dst_look,    p9_dst_open,   p9_dst_dir_open, p9_dst_symlink,
					    p9_dst_mknod,   p9_dst_reach,  p9_dst_verify,   p9_dst_close,
					    p9_dst_discard, p9_meta_owner, p9_meta_entry,   p9_meta_seal };
	bool found = n->list == closing_phases;
	for (size_t i = 0; n->at >= 0 && i < P9_COUNT(phases); i++) {
		found |= n->list[n->at] == phases[i];
	}
	return found;
}

void p9_node_go(struct p9_node *n, int rc)
{
	while (rc != P9_WAIT) {
		if (rc < 0) {
			p9_node_fail(n, rc, at_copy(n) ? 'd' : 's');
			if (!n->closing) {
				begin_closing(n);
			}
		}
		n->at++;
		n->sub = 0;
		if (!n->list[n->at] && !n->closing && !n->self) {
			n->closing = true;
			p9_node_jump(n, closing_phases);
			n->at = 0;
		}
		if (!n->list[n->at]) {
			node_end(n);
			return;
		}
		rc = n->list[n->at](n, NULL);
	}
}

/* ---- nodes ---- */
static struct p9_node *node_new(struct p9_copy *c, struct p9_dir *dir, char *name, char *to)
{
	struct p9_node *n = name ? calloc(1, sizeof(*n)) : NULL;
	if (!n) {
		free(name);
		free(to);
		c->tree.failed = true;
		p9_cli_fail(c->cli, NULL, "copying", P9_ENOMEM);
		return NULL;
	}
	n->copy = c;
	n->dir = dir;
	n->name = name;
	n->to = to;
	n->src = n->dst = (struct p9_end){ P9_NOFID, -1 };
	n->pipe.node = n;
	n->next = c->nodes;
	if (c->nodes) {
		c->nodes->prev = n;
	}
	c->nodes = n;
	return n;
}

static void node_free(struct p9_node *n)
{
	struct p9_copy *c = n->copy;
	*(n->prev ? &n->prev->next : &c->nodes) = n->next;
	if (n->next) {
		n->next->prev = n->prev;
	}
	p9_pipe_fini(&n->pipe);
	p9_xattr_fini(n);
	if (n->src.fd >= 0) {
		close(n->src.fd);
	}
	if (n->dst.fd >= 0) {
		close(n->dst.fd);
	}
	free(n->target);
	free(n->name);
	free(n->to);
	free(n);
}

static void push(struct p9_node *n)
{
	char *name = strdup(n->name);
	if (p9_tree_push(&n->copy->tree, n->dir, name, NULL) < 0) {
		p9_node_fail(n, -P9_ENOMEM, 's');
	}
}

/* By type. What turns out to be a directory, though the listing did not say so, is begun anew as one. */
static int choose(struct p9_node *n, const struct p9_msg *r)
{
	uint32_t type = n->st.mode & S_IFMT;
	n->copy->progress.files++;
	if (type == S_IFREG || (!n->dir && type != S_IFDIR && type != S_IFLNK && !n->copy->opts.special)) {
		return p9_node_jump(n, file_phases); /* an operand may be anything that can be read */
	}
	if (type == S_IFLNK) {
		return p9_node_jump(n, symlink_phases);
	}
	if (type == S_IFDIR) {
		if (!n->dir) {
			return -P9_EISDIR;
		}
		push(n);
		n->closing = true;
		return p9_node_jump(n, closing_phases);
	}
	if (!n->copy->opts.special) {
		p9_node_say(n, "a device, FIFO or socket is not copied");
		n->closing = true;
		return p9_node_jump(n, closing_phases);
	}
	return p9_node_jump(n, special_phases);
}

static void begin(struct p9_node *n)
{
	n->list = begin_phases;
	n->at = -1;
	p9_tree_job_begin(&n->copy->tree, n->dir);
	p9_node_go(n, P9_ON);
}

void p9_copy_entry(struct p9_dir *d, char *name, uint8_t type)
{
	struct p9_copy *c = d->tree->arg;
	if (type == DT_DIR) {
		if (p9_tree_push(&c->tree, d, name, NULL) < 0) {
			p9_tree_say(d, "", -P9_ENOMEM);
		}
		return;
	}
	struct p9_node *n = node_new(c, d, name, name ? strdup(name) : NULL);
	if (n && n->to) {
		begin(n);
	} else if (n) {
		node_free(n);
		p9_tree_say(d, "", -P9_ENOMEM);
	}
}

void p9_copy_operand(struct p9_copy *c, char *name, char *to, uint32_t fid)
{
	struct p9_node *n = node_new(c, NULL, name, to);
	if (n) {
		n->src.fid = fid;
		begin(n);
	}
}

int p9_copy_tree(struct p9_copy *c, char *name, char *to, uint32_t fid)
{
	struct p9_dir *d;
	struct p9_node *n;
	int rc = p9_tree_push(&c->tree, NULL, name, &d);
	if (rc < 0) {
		free(to);
		return rc;
	}
	d->fid = fid;
	n = node_new(c, NULL, strdup(name), to);
	d->data = n;
	if (n) {
		n->self = d;
	}
	return 0;
}

/* ---- directories ---- */
static void open_dir(struct p9_dir *d)
{
	struct p9_copy *c = d->tree->arg;
	struct p9_node *n = d->data;
	if (!n && d->parent) {
		n = node_new(c, d->parent, strdup(d->name), strdup(d->name));
	}
	d->data = n;
	if (!n) {
		p9_tree_opened(d, -P9_ENOMEM);
		return;
	}
	n->self = d;
	n->list = enter_phases;
	n->at = -1;
	p9_node_go(n, P9_ON);
}

static enum p9_next next_here(struct p9_dir *d)
{
	errno = 0;
	struct dirent *e = readdir(d->local);
	if (!e) {
		if (errno) {
			p9_tree_say(d, "", -p9_hosterr(errno));
		}
		return P9_NEXT_END;
	}
	struct stat st;
	uint8_t type = e->d_type;
	if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
		return P9_NEXT_BEGUN;
	}
	if (type == DT_UNKNOWN && fstatat(d->localfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		type = IFTODT(st.st_mode);
	}
	p9_copy_entry(d, strdup(e->d_name), type);
	return P9_NEXT_BEGUN;
}

static enum p9_next next(struct p9_dir *d)
{
	const struct p9_copy *c = d->tree->arg;
	return c->from_here ? next_here(d) : p9_remote_next(d, p9_copy_entry);
}

static void leave(struct p9_dir *d)
{
	struct p9_node *n = d->data;
	if (!n) {
		p9_tree_left(d);
		return;
	}
	bool whole = n->made && !n->error && !d->tree->abort;
	n->list = whole ? leave_phases : left_phases;
	n->at = -1;
	n->error = 0;
	p9_node_go(n, P9_ON);
}

static void forget(struct p9_dir *d)
{
	if (d->data) {
		node_free(d->data);
	}
	d->data = NULL;
}

/* Lets go on what can: nodes that waited for another, then transfers. */
static void pump(struct p9_tree *t)
{
	struct p9_copy *c = t->arg;
	while (c->ready && p9_tree_room(t)) {
		struct p9_node *n = c->ready;
		c->ready = n->wait_next;
		n->waiting = false;
		p9_node_go(n, n->list[n->at](n, NULL));
	}
	for (struct p9_node *n = c->nodes, *following; n; n = following) {
		following = n->next; /* it may end at once, and nothing else does */
		if (n->pipe.active && p9_tree_room(t)) {
			n->pipe.stopped |= t->abort;
			p9_pipe_pump(&n->pipe);
		}
	}
}

const struct p9_tree_ops p9_copy_ops = {
	.open = open_dir, .next = next, .leave = leave, .forget = forget, .pump = pump
};

void p9_copy_fini(struct p9_copy *c)
{
	p9_tree_fini(&c->tree);
	while (c->nodes) {
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): node_free takes the node out of the list */
		node_free(c->nodes);
	}
	p9_link_fini(c);
	while (c->nbuffers > 0) {
		p9_client_buffer_free(c->client, c->buffers[--c->nbuffers]);
	}
}
