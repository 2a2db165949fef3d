/* SPDX-License-Identifier: BSD-2-Clause */
/* vfs.c - two servers in one tree, with the freestanding part of p9 alone.
 *
 *     p9d -l unix:/tmp/a.sock ... & p9d -l unix:/tmp/b.sock ... &
 *     cc vfs.c $(pkg-config --cflags --libs p9core) -o vfs && ./vfs /tmp/a.sock /tmp/b.sock
 *
 * The first is mounted at /, the second at /host. The only part that knows the operating system is move(); a kernel
 * writes that part anew, and takes the memory from where it has some.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>
#include <p9/engine.h>
#include <p9/vfs.h>

#define PATIENCE_MS 30000

struct link {
	struct p9_port port;
	int fd;
};

/* Sends what the engine has, receives what the server has said. Returns 1 when bytes moved, 0, or why the link is lost. */
static int move(struct p9_port *port, struct p9_engine *e, bool wait)
{
	int fd = ((struct link *)port)->fd;
	struct p9_engine_iov v[8];
	for (;;) {
		int moved = 0;
		unsigned n = p9_engine_out(e, v, 8);
		struct iovec iov[8];
		for (unsigned i = 0; i < n; i++) {
			iov[i] = (struct iovec){ v[i].p, v[i].len };
		}
		struct msghdr out = { .msg_iov = iov, .msg_iovlen = n };
		ssize_t k = n ? sendmsg(fd, &out, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
		if (k > 0) {
			p9_engine_out_ack(e, (size_t)k);
			moved = 1;
		} else if (k < 0 && errno != EAGAIN && errno != EINTR) {
			return -P9_ECONNRESET;
		}
		n = p9_engine_in(e, v);
		for (unsigned i = 0; i < n; i++) {
			iov[i] = (struct iovec){ v[i].p, v[i].len };
		}
		struct msghdr in = { .msg_iov = iov, .msg_iovlen = n };
		k = recvmsg(fd, &in, MSG_DONTWAIT);
		if (k > 0) {
			p9_engine_in_ack(e, (size_t)k);
			moved = 1;
		} else if (k == 0 || (errno != EAGAIN && errno != EINTR)) {
			return -P9_ECONNRESET;
		}
		if (moved || !wait) {
			return moved;
		}
		struct pollfd p = { fd, (short)(POLLIN | (p9_engine_out(e, v, 1) ? POLLOUT : 0)), 0 };
		if (poll(&p, 1, PATIENCE_MS) == 0) {
			return -P9_ETIMEDOUT;
		}
	}
}

static int fail(const char *what, int rc)
{
	fprintf(stderr, "vfs: %s: %s (%s)\n", what, p9_error_text((uint32_t)-rc), p9_error_name((uint32_t)-rc));
	return 1;
}

static int dial(struct link *l, const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	l->port.move = move;
	l->fd = socket(AF_UNIX, SOCK_STREAM, 0);
	strncpy(sa.sun_path, path, sizeof(sa.sun_path) - 1);
	return connect(l->fd, (struct sockaddr *)&sa, sizeof(sa));
}

static int show(void *arg, const struct p9_entry *e)
{
	printf("%s%-20.*s %c %10llu\n", (const char *)arg, e->name.len, e->name.s, e->qid.type & P9_QTDIR ? 'd' : '-',
	       e->st ? (unsigned long long)e->st->size : 0);
	return 0;
}

/* A kernel has such arrays, or pages. */
static _Alignas(16) uint8_t memory[2][1 << 20], table[64 << 10];

int main(int argc, char **argv)
{
	static const char *const where[2] = { "/", "/host" };
	static struct link links[2];
	struct p9_session *s;
	struct p9_vfs *v;
	if (argc != 3) {
		fprintf(stderr, "usage: vfs SOCKET SOCKET\n");
		return 2;
	}
	int rc = p9_vfs_init(&v, &(struct p9_vfs_conf){ .mounts = 2, .files = 16 }, table, sizeof(table));
	for (int i = 0; i < 2 && rc == 0; i++) {
		struct p9_session_conf conf = {
			.port = &links[i].port, .uname = "root", .uid = (uint32_t)getuid(), .gid = (uint32_t)getgid()
		};
		if (dial(&links[i], argv[1 + i]) < 0) {
			perror(argv[1 + i]);
			return 1;
		}
		rc = p9_session_init(&s, &conf, memory[i], sizeof(memory[i]));
		rc = rc < 0 ? rc : p9_vfs_mount(v, where[i], s);
	}
	if (rc < 0) {
		return fail("mount", rc);
	}
	static const char text[] = "written through the mount table\n";
	rc = p9_vfs_write_file(v, "/host/hello.txt", text, sizeof(text) - 1, 0644);
	if (rc < 0) {
		return fail("/host/hello.txt", rc);
	}
	for (int i = 0; i < 2; i++) {
		struct p9_lister l = { .each = show, .arg = i ? "/host/" : "/", .sizes = true };
		rc = p9_vfs_list(v, where[i], &l);
		if (rc < 0) {
			return fail(where[i], rc);
		}
	}
	rc = p9_vfs_rename(v, "/host/hello.txt", "/hello.txt");
	printf("rename across: %s\n", p9_error_name((uint32_t)-rc));
	rc = p9_vfs_remove(v, "/host/hello.txt");
	return rc < 0 ? fail("remove", rc) : 0;
}
