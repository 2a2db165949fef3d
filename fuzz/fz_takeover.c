/* SPDX-License-Identifier: BSD-2-Clause */
/* fz_takeover.c - fuzz target: what a p9d that takes over reads from another, with any bytes and any descriptors.
 *
 * An input is a count, as many kinds of descriptors (enum kind), and the state (src/p9d/state.c, src/server/handover.c).
 * It is read into a server that is frozen and stays so: nothing of what was read is ever at work. What must hold: no byte
 * outside of the input is read, and whether it is taken or refused, nothing is left of it afterwards - no connection, no
 * fid, no descriptor. What is taken can be packed again.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/log.h"
#include "gen.h"
#include "p9d/handover.h"
#include "server/internal.h"
#include "transport/stream.h"
#include "tree.h"

enum kind { SOCKET, DIRECTORY, PINNED, FILE_RDWR, EVENTFD, MEMORY, NOTHING, KINDS };
#define FDS_MAX 250
#define MEMORY_SIZE (16u << 20) /* as tests/vhost/frontend.py has */

static struct p9_server *srv;
static struct lroot *root;
static int kinds[KINDS];

static unsigned count_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;
	while (d && readdir(d)) {
		n++;
	}
	closedir(d);
	return n;
}

static void make_kinds(const char *tree)
{
	int sv[2];
	char path[4200];
	FZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) == 0, "socketpair");
	kinds[SOCKET] = sv[0];
	kinds[DIRECTORY] = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	snprintf(path, sizeof(path), "%s/file", tree);
	kinds[FILE_RDWR] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	kinds[PINNED] = open(path, O_PATH | O_CLOEXEC);
	kinds[EVENTFD] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	kinds[MEMORY] = memfd_create("fuzz", MFD_CLOEXEC);
	kinds[NOTHING] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	FZ_CHECK(ftruncate(kinds[MEMORY], MEMORY_SIZE) == 0, "ftruncate");
	for (int i = 0; i < KINDS; i++) {
		FZ_CHECK(kinds[i] >= 0, "descriptor %d", i);
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const struct p9_patience patience = { 5000, NULL, NULL };
	const char *tree = fz_tree_new();
	struct p9_local_config local = { .path = tree };
	struct p9_server_config conf = { .msize = 65536, .users = true, .loops = 2, .workers = 2, .lock_wait = 1 };
	char why[200];
	(void)argc;
	(void)argv;
	p9_log_level = P9_LOG_ERROR;
	make_kinds(tree);
	FZ_CHECK(p9_local_open(&local, &root, why, sizeof(why)) == 0, "%s", why);
	FZ_CHECK(p9_server_new(&conf, &srv) == 0, "server");
	for (const char *name = "x"; name; name = *name == 'x' ? "y" : NULL) {
		struct p9_export_config ex = { .name = name, .backend = &p9_local, .root = root };
		FZ_CHECK(p9_server_export(srv, &ex) == 0, "export");
	}
	FZ_CHECK(p9_server_start(srv) == 0, "start");
	FZ_CHECK(p9_server_freeze(srv, &patience, why, sizeof(why)) == 0, "%s", why);
	return 0;
}

static struct p9_link *link_of(struct p9_loop *loop, const struct p9_peer *peer, struct p9_unpack *u)
{
	return peer->kind == P9_PEER_GUEST ? p9_vhost_unpack(loop, u) : p9_stream_unpack(loop, u);
}

static void pack_again(void)
{
	struct p9_pack p = { 0 };
	p9_server_pack(srv, &p);
	p9_pack_fini(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct p9d_old old;
	int fds[FDS_MAX];
	unsigned before = count_descriptors(), n = size ? data[0] : 0;
	if (size < 1 || n > FDS_MAX || size < 1 + n) {
		return 0;
	}
	for (unsigned i = 0; i < n; i++) {
		fds[i] = fcntl(kinds[data[1 + i] % KINDS], F_DUPFD_CLOEXEC, 0);
		FZ_CHECK(fds[i] >= 0, "no descriptor");
	}
	struct p9_unpack u;
	uint8_t *state = malloc(size - n); /* of just its size: whatever is read behind it is found */
	FZ_CHECK(state, "memory");
	memcpy(state, data + 1 + n, size - 1 - n);
	p9_unpack_init(&u, state, size - 1 - n, fds, n);
	memset(&old, 0, sizeof(old));
	p9_local_forget_ids();
	p9d_unpack(&old, &u);
	if (p9_server_unpack(srv, &u, link_of) == 0) {
		p9_unpack_end(&u);
		pack_again();
	}
	if (getenv("FZ_SHOW")) {
		fprintf(stderr, "%s\n", u.why[0] ? u.why : "taken");
	}
	p9_server_forget(srv);
	p9_local_forget_locks(root);
	p9d_old_close(&old, false);
	p9_unpack_fini(&u);
	free(state);
	FZ_CHECK(p9_server_conns(srv) == 0 && p9_server_fids(srv) == 0, "connections or fids are left");
	FZ_CHECK(count_descriptors() == before, "descriptors are left: %u, there were %u", count_descriptors(), before);
	return 0;
}
