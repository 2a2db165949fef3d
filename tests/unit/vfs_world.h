/* SPDX-License-Identifier: BSD-2-Clause */
/* vfs_world.h - a real server in this process that serves a new directory, and sessions with it. */
#ifndef P9_VFS_WORLD_H
#define P9_VFS_WORLD_H
#include "p9/local.h"
#include "p9/server.h"
#include "transport/stream.h"
#include "unit/vfs_test.h"

struct world {
	struct p9_server *srv;
	struct lroot *root;
	char *dir;
	struct wire wire[4];
	struct p9_session *s[4];
	unsigned n;
};

static inline void world_begin(struct world *w)
{
	struct p9_server_config conf = { .msize = 1 << 20, .loops = 1, .workers = 4, .conns = 4 };
	char err[256] = "";
	*w = (struct world){ 0 };
	umask(0);
	w->dir = p9t_tempdir();
	struct p9_local_config lc = { .path = w->dir };
	assert_int_equal(p9_local_open(&lc, &w->root, err, sizeof(err)), 0);
	assert_int_equal(p9_server_new(&conf, &w->srv), 0);
	struct p9_export_config ex = { .name = "tree", .backend = &p9_local, .root = w->root };
	assert_int_equal(p9_server_export(w->srv, &ex), 0);
}

/* One more connection, before world_start(). */
static inline void world_dial(struct world *w)
{
	struct p9_peer peer = { .kind = P9_PEER_UNIX, .text = "test" };
	int fd;
	wire_open(&w->wire[w->n++], &fd);
	assert_int_equal(p9_server_accept(w->srv, p9_stream_unix_make, fd, fd, &peer), 0);
}

static inline void world_start(struct world *w, const struct p9_session_conf *conf)
{
	assert_int_equal(p9_server_start(w->srv), 0);
	for (unsigned i = 0; i < w->n; i++) {
		int rc;
		w->s[i] = session_over(&w->wire[i].port, *conf, &rc);
		assert_int_equal(rc, 0);
	}
}

static inline void world_end(struct world *w)
{
	for (unsigned i = 0; i < w->n; i++) {
		free(w->s[i]);
		close(w->wire[i].fd);
	}
	assert_true(p9_server_stop(w->srv, 10000));
	p9_server_free(w->srv);
	p9_local_close(w->root);
	p9t_remove_tree(w->dir);
	free(w->dir);
}

/* A path of the host below the directory; good until the fourth call from here. */
static inline const char *host(const struct world *w, const char *name)
{
	static char path[4][8192];
	static unsigned turn;
	char *p = path[turn++ % 4];
	snprintf(p, sizeof(path[0]), "%s/%s", w->dir, name);
	return p;
}

/* Descriptors that a test has lost. The first of a process opens what all use, and is not counted. */
static inline void world_count_fds(bool begin)
{
	static unsigned before, turn;
	if (begin) {
		before = p9t_open_fds();
	} else if (turn++ > 0) {
		assert_int_equal(p9t_open_fds(), before);
	}
}

#endif
