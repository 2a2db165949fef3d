/* SPDX-License-Identifier: BSD-2-Clause */
/* limit.c - a 9P2000.L server that makes just the system calls and answers: the yardstick of BENCHMARKING.md.
 *
 * usage: limit unix:PATH|tcp:PORT DIR     (tcp: on 127.0.0.1)
 *
 * One thread, one connection at a time. One blocking read() takes in as many requests as there are, each is executed
 * in place, one write() answers them all. Nothing is checked: neither names nor fids nor frames, so it must never meet
 * a client that is not ours. What it does is what any server must that pins inodes: a walk opens every name O_PATH and
 * asks for its identity, an open goes through /proc/self/fd, a clunk closes. A walk without names costs nothing.
 * Where it could be cheaper at the price of what 9P promises, it is not; where the kernel offers a cheaper way to
 * move payload (sendfile), it does not use it: targets below 1 in the table mean that.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include "p9/messages.h"

enum { MSIZE = 1 << 20, FIDS = 1 << 16, SLACK = 64 << 10, BIG = 64 << 10, STATS = STATX_BASIC_STATS | STATX_BTIME };

struct pin { /* an inode, shared by the fids that were walked from each other without names */
	int fd, refs;
	uint8_t qid[P9_QIDSZ];
	struct pin *next;
};
struct fid {
	struct pin *pin;
	int io;	       /* open file, or 0 */
	int64_t place; /* of a directory: where the next getdents goes on */
};

static struct fid fids[FIDS];
static struct pin *spare;
static uint8_t in[MSIZE + SLACK], out[MSIZE + SLACK], entries[MSIZE];
static size_t outlen;
static int conn, procfd;
static uint32_t msize = MSIZE;
static const char *root;

/* ---- bytes ---- */

static uint16_t get16(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof(v)); /* little-endian hosts only, like everything here */
	return v;
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
	return p + sizeof(v);
}

static uint8_t *put64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
	return p + sizeof(v);
}

static uint8_t *put_qid(uint8_t *p, const uint8_t *qid)
{
	memcpy(p, qid, P9_QIDSZ);
	return p + P9_QIDSZ;
}

/* A name in a request, copied to where it can have its NUL. Returns what follows it. */
static const uint8_t *get_name(const uint8_t *p, char name[static 256])
{
	uint16_t n = get16(p);
	memcpy(name, p + 2, n & 255);
	name[n & 255] = 0;
	return p + 2 + n;
}

static void send_replies(void)
{
	for (size_t done = 0; done < outlen;) {
		ssize_t n = write(conn, out + done, outlen - done);
		if (n <= 0) {
			break; /* the next read() tells */
		}
		done += (size_t)n;
	}
	outlen = 0;
}

/* ---- inodes ---- */

static void drop(struct pin *pin)
{
	if (--pin->refs == 0) {
		close(pin->fd);
		pin->next = spare;
		spare = pin;
	}
}

static void make_qid(uint8_t *qid, const struct statx *st)
{
	qid[0] = S_ISDIR(st->stx_mode) ? P9_QTDIR : S_ISLNK(st->stx_mode) ? P9_QTSYMLINK : P9_QTFILE;
	put32(qid + 1, (uint32_t)(st->stx_mtime.tv_sec ^ st->stx_mtime.tv_nsec << 2));
	put64(qid + 5, st->stx_ino);
}

/* Takes over fd. NULL with errno when it is -1 or stat fails. */
static struct pin *pin_new(int fd)
{
	struct statx st;
	if (fd < 0 || statx(fd, "", AT_EMPTY_PATH, STATS, &st) < 0) {
		return NULL;
	}
	struct pin *pin = spare != NULL ? spare : malloc(sizeof(*pin));
	spare = spare != NULL ? pin->next : NULL;
	pin->fd = fd;
	pin->refs = 1;
	make_qid(pin->qid, &st);
	return pin;
}

static void clunk(struct fid *f)
{
	if (f->io > 0 && f->io != f->pin->fd) {
		close(f->io);
	}
	drop(f->pin);
	*f = (struct fid){ 0 };
}

/* ---- requests: t is behind the tag, p where the reply's fields go; returns their end, NULL for errno ---- */

static uint8_t *do_version(const uint8_t *t, uint8_t *p)
{
	uint32_t want = get32(t);
	msize = want < MSIZE ? want : MSIZE;
	p = put32(p, msize);
	memcpy(p, "\10\0009P2000.L", 10);
	return p + 10;
}

static uint8_t *do_attach(const uint8_t *t, uint8_t *p)
{
	struct fid *f = &fids[get32(t)];
	f->pin = pin_new(open(root, O_PATH | O_DIRECTORY | O_CLOEXEC));
	return f->pin == NULL ? NULL : put_qid(p, f->pin->qid);
}

static uint8_t *do_walk(const uint8_t *t, uint8_t *p)
{
	struct pin *pin = fids[get32(t)].pin;
	uint16_t n = get16(t + 8);
	uint8_t *count = p;
	const uint8_t *next = t + 10;
	pin->refs++;
	p += 2;
	for (uint16_t i = 0; i < n; i++) {
		char name[256];
		next = get_name(next, name);
		struct pin *child = pin_new(openat(pin->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
		drop(pin);
		if (child == NULL) {
			return NULL;
		}
		pin = child;
		p = put_qid(p, pin->qid);
	}
	memcpy(count, &n, 2);
	fids[get32(t + 4)] = (struct fid){ .pin = pin };
	return p;
}

static uint8_t *do_getattr(const uint8_t *t, uint8_t *p)
{
	struct statx st;
	if (statx(fids[get32(t)].pin->fd, "", AT_EMPTY_PATH, STATS, &st) < 0) {
		return NULL;
	}
	p = put64(p, P9_GETATTR_BASIC | P9_GETATTR_BTIME);
	make_qid(p, &st);
	p = put32(p + P9_QIDSZ, st.stx_mode);
	p = put32(p, st.stx_uid);
	p = put32(p, st.stx_gid);
	p = put64(p, st.stx_nlink);
	p = put64(p, (uint64_t)st.stx_rdev_major << 8 | st.stx_rdev_minor);
	p = put64(p, st.stx_size);
	p = put64(p, st.stx_blksize);
	p = put64(p, st.stx_blocks);
	const struct statx_timestamp *times[] = { &st.stx_atime, &st.stx_mtime, &st.stx_ctime, &st.stx_btime };
	for (unsigned i = 0; i < 4; i++) {
		p = put64(p, (uint64_t)times[i]->tv_sec);
		p = put64(p, times[i]->tv_nsec);
	}
	p = put64(p, 0);
	return put64(p, 0);
}

static uint8_t *do_open(const uint8_t *t, uint8_t *p)
{
	struct fid *f = &fids[get32(t)];
	char name[16];
	snprintf(name, sizeof(name), "%d", f->pin->fd);
	f->io = openat(procfd, name, (int)(get32(t + 4) & ~(uint32_t)O_NOFOLLOW) | O_CLOEXEC);
	if (f->io < 0) {
		return NULL;
	}
	return put32(put_qid(p, f->pin->qid), 0);
}

static uint8_t *do_create(const uint8_t *t, uint8_t *p)
{
	struct fid *f = &fids[get32(t)];
	char name[256];
	t = get_name(t + 4, name);
	int flags = (int)get32(t) | O_CREAT | O_NOFOLLOW | O_CLOEXEC;
	struct pin *pin = pin_new(openat(f->pin->fd, name, flags, get32(t + 4) & 07777));
	if (pin == NULL) {
		return NULL;
	}
	drop(f->pin);
	*f = (struct fid){ .pin = pin, .io = pin->fd };
	return put32(put_qid(p, pin->qid), 0);
}

static uint8_t *do_read(const uint8_t *t, uint8_t *p)
{
	ssize_t n = pread(fids[get32(t)].io, p + 4, get32(t + 12), (off_t)get64(t + 4));
	if (n < 0) {
		return NULL;
	}
	return put32(p, (uint32_t)n) + n;
}

static uint8_t *do_write(const uint8_t *t, uint8_t *p)
{
	ssize_t n = pwrite(fids[get32(t)].io, t + 16, get32(t + 12), (off_t)get64(t + 4));
	return n < 0 ? NULL : put32(p, (uint32_t)n);
}

/* An entry takes at most 4 bytes more than the kernel's, of which none is below 24: six sevenths always fit. */
static uint8_t *do_readdir(const uint8_t *t, uint8_t *p)
{
	struct fid *f = &fids[get32(t)];
	int64_t place = (int64_t)get64(t + 4);
	if (place != f->place) {
		lseek(f->io, place, SEEK_SET);
	}
	long n = syscall(SYS_getdents64, f->io, entries, get32(t + 12) / 7 * 6);
	if (n < 0) {
		return NULL;
	}
	uint8_t *start = p;
	p += 4;
	for (const uint8_t *e = entries; e < entries + n;) {
		const struct dirent64 *d = (const struct dirent64 *)(const void *)e;
		uint16_t len = (uint16_t)strlen(d->d_name);
		*p = d->d_type == DT_DIR ? P9_QTDIR : d->d_type == DT_LNK ? P9_QTSYMLINK : P9_QTFILE;
		p = put64(put32(p + 1, 0), d->d_ino);
		p = put64(p, (uint64_t)d->d_off);
		*p = d->d_type;
		memcpy(p + 1, &len, 2);
		memcpy(p + 3, d->d_name, len);
		p += 3 + len;
		place = d->d_off;
		e += d->d_reclen;
	}
	f->place = place;
	put32(start, (uint32_t)(p - start - 4));
	return p;
}

static uint8_t *do_clunk(const uint8_t *t, uint8_t *p)
{
	clunk(&fids[get32(t)]);
	return p;
}

static uint8_t *do_unlink(const uint8_t *t, uint8_t *p)
{
	char name[256];
	const uint8_t *end = get_name(t + 4, name);
	return unlinkat(fids[get32(t)].pin->fd, name, (int)get32(end)) < 0 ? NULL : p;
}

static uint8_t *do_mkdir(const uint8_t *t, uint8_t *p)
{
	char name[256];
	const uint8_t *end = get_name(t + 4, name);
	memset(p, 0, P9_QIDSZ);
	return mkdirat(fids[get32(t)].pin->fd, name, get32(end)) < 0 ? NULL : p + P9_QIDSZ;
}

static uint8_t *execute(const uint8_t *frame, uint8_t *p)
{
	const uint8_t *t = frame + 7;
	switch (frame[4]) {
	case P9_Tversion:
		return do_version(t, p);
	case P9_Tattach:
		return do_attach(t, p);
	case P9_Twalk:
		return do_walk(t, p);
	case P9_Tgetattr:
		return do_getattr(t, p);
	case P9_Tlopen:
		return do_open(t, p);
	case P9_Tlcreate:
		return do_create(t, p);
	case P9_Tread:
		return do_read(t, p);
	case P9_Twrite:
		return do_write(t, p);
	case P9_Treaddir:
		return do_readdir(t, p);
	case P9_Tclunk:
		return do_clunk(t, p);
	case P9_Tunlinkat:
		return do_unlink(t, p);
	case P9_Tmkdir:
		return do_mkdir(t, p);
	default:
		errno = EOPNOTSUPP;
		return NULL;
	}
}

/* ---- the loop ---- */

static void answer(const uint8_t *frame)
{
	uint32_t room = 512;
	if (frame[4] == P9_Tread || frame[4] == P9_Treaddir) {
		room += get32(frame + 19);
	}
	if (outlen + room > sizeof(out)) {
		send_replies();
	}
	uint8_t *reply = out + outlen;
	uint8_t *end = execute(frame, reply + 7);
	reply[4] = frame[4] + 1;
	if (end == NULL) {
		end = put32(reply + 7, (uint32_t)errno);
		reply[4] = P9_Rlerror;
	}
	memcpy(reply + 5, frame + 5, 2);
	put32(reply, (uint32_t)(end - reply));
	outlen += (size_t)(end - reply);
}

static void serve(void)
{
	size_t have = 0;
	for (;;) {
		/* Of a large request that is here in part just the rest: it stays where it is and is not moved. */
		size_t frame = have >= 4 ? get32(in) : 0;
		ssize_t n = read(conn, in + have, (frame > BIG ? frame : sizeof(in)) - have);
		if (n <= 0) {
			return;
		}
		have += (size_t)n;
		const uint8_t *p = in, *end = in + have;
		for (; end - p >= 7 && end - p >= get32(p); p += get32(p)) {
			answer(p);
		}
		have = (size_t)(end - p);
		memmove(in, p, p > in ? have : 0);
		send_replies();
	}
}

static int listen_on(const char *addr)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct sockaddr_in tcp = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	bool local = strncmp(addr, "unix:", 5) == 0;
	int fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", addr + 5);
	tcp.sin_port = htons((uint16_t)atoi(strncmp(addr, "tcp:", 4) == 0 ? addr + 4 : addr));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	int rc = local ? bind(fd, (struct sockaddr *)&un, sizeof(un)) : bind(fd, (struct sockaddr *)&tcp, sizeof(tcp));
	if (fd < 0 || rc < 0 || listen(fd, 4) < 0) {
		perror(addr);
		exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fputs("usage: limit unix:PATH|tcp:PORT DIR\n", stderr);
		return 2;
	}
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	root = argv[2];
	umask(0);
	procfd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = listen_on(argv[1]), one = 1, size = MSIZE;
	while ((conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		setsockopt(conn, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		setsockopt(conn, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* room for replies of MSIZE */
		serve();
		close(conn);
		for (unsigned i = 0; i < FIDS; i++) {
			if (fids[i].pin != NULL) {
				clunk(&fids[i]);
			}
		}
	}
	return 1;
}
