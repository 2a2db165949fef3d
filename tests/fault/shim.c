/* SPDX-License-Identifier: BSD-2-Clause */
/* shim.c - LD_PRELOAD library that makes the n-th allocation or the n-th system call of a server fail, or all of them
 * short. tests/fault/run.py arms it through a page that both map (P9_FAULT_CTL names the file).
 *
 * Only what can fail in reality fails: waiting calls are interrupted at most, eventfds and the log are left alone, and a
 * close that reports an error has closed. A thread that sleeps by nanosleep(2) is the watch and is left alone as well:
 * how often it looks is a matter of time, and n would not name the same call in the next run.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <link.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

enum { OFF, ALLOC, CALL, SHORT, STORM };
/* The order is run.py's. */
struct control {
	_Atomic uint32_t mode, n, err, count, hit;
	uint32_t fd;
	uint64_t caller; /* return address, from the start of the program */
	char name[32];
};
static struct control idle, *ctl = &idle;
static _Thread_local bool exempt;
static int bells[16], nbells;
static uintptr_t program, program_end;
static int first_object(struct dl_phdr_info *info, size_t size, void *arg);

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("P9_FAULT_CTL");
	dl_iterate_phdr(first_object, NULL);
	int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
	if (fd >= 0) {
		void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		ctl = p == MAP_FAILED ? ctl : p;
		close(fd);
	}
}

/* What libraries call is their own affair (libc's look-up of users loads a few, and some of them abort when there is no
 * memory): the functions below that look users up stand for them. */
static int first_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		uintptr_t end = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
		if (info->dlpi_phdr[i].p_type == PT_LOAD && end > program_end) {
			program_end = end;
		}
	}
	program = info->dlpi_addr;
	return 1;
}
static bool of_program(void *caller)
{
	return (uintptr_t)caller - program < program_end - program;
}

static void record(const char *name, int fd, void *caller)
{
	size_t n = strlen(name);
	memcpy(ctl->name, name, n < sizeof(ctl->name) ? n + 1 : sizeof(ctl->name));
	ctl->fd = (uint32_t)fd;
	ctl->caller = (uintptr_t)caller - program;
	atomic_store(&ctl->hit, 1);
}

/* Counts one event of a class; true when it is the one that fails. */
static bool strikes(uint32_t mode, const char *name, int fd, void *caller)
{
	if (atomic_load_explicit(&ctl->mode, memory_order_relaxed) != mode || exempt || !of_program(caller)) {
		return false;
	}
	if (atomic_fetch_add(&ctl->count, 1) + 1 != ctl->n) {
		return false;
	}
	exempt = true; /* what recording needs itself */
	record(name, fd, caller);
	exempt = false;
	return true;
}

/* ---- memory ---- */
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t m);
extern void *__libc_realloc(void *p, size_t n);

static bool no_memory(const char *name, void *caller)
{
	if (strikes(ALLOC, name, -1, caller)) {
		errno = ENOMEM;
		return true;
	}
	return false;
}
void *malloc(size_t n)
{
	return no_memory("malloc", __builtin_return_address(0)) ? NULL : __libc_malloc(n);
}
void *calloc(size_t n, size_t m)
{
	return no_memory("calloc", __builtin_return_address(0)) ? NULL : __libc_calloc(n, m);
}
void *realloc(void *p, size_t n)
{
	return no_memory("realloc", __builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}

/* ---- system calls ---- */
static void *real(const char *name)
{
	bool was = exempt;
	exempt = true;
	void *p = dlsym(RTLD_NEXT, name);
	exempt = was;
	return p;
}
#define REAL(name)                                                    \
	static __typeof__(name) *next;                                \
	if (!next) {                                                  \
		next = (__typeof__(name) *)real(#name);               \
	}

static bool fails_for(const char *name, int fd, void *caller)
{
	if (strikes(CALL, name, fd, caller)) {
		errno = (int)ctl->err;
		return true;
	}
	return false;
}
#define fails(name, fd) fails_for(name, fd, __builtin_return_address(0))
static bool is_bell(int fd)
{
	for (int i = 0; i < nbells; i++) {
		if (bells[i] == fd) {
			return true;
		}
	}
	return fd == 2;
}
/* A storm: no descriptor is to be had. */
static bool storm(void)
{
	if (ctl->mode == STORM && !exempt) {
		errno = (int)ctl->err;
		return true;
	}
	return false;
}
static size_t cut(size_t n)
{
	return ctl->mode == SHORT && !exempt && n > ctl->n ? ctl->n : n;
}

#define CALL1(ret, name, fd, params, args)  \
	ret name params                     \
	{                                   \
		REAL(name)                  \
		return fails(#name, fd) ? (ret)-1 : next args; \
	}

/* Calls that are not counted: the caller has been. */
static long bare(long nr, ...);

#define OPEN(name, dirparam, dir)                                            \
	int name(dirparam const char *path, int flags, ...)                  \
	{                                                                    \
		va_list ap;                                                  \
		va_start(ap, flags);                                         \
		mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0; \
		va_end(ap);                                                  \
		return storm() || fails(#name, dir) ? -1 : (int)bare(SYS_openat, dir, path, flags, mode); \
	}
#define DIRPARAM int dirfd,
OPEN(open, , AT_FDCWD)
OPEN(open64, , AT_FDCWD)
OPEN(openat, DIRPARAM, dirfd)
OPEN(openat64, DIRPARAM, dirfd)

CALL1(int, statx, fd, (int fd, const char *p, int f, unsigned m, struct statx *s), (fd, p, f, m, s))
CALL1(int, fstat, fd, (int fd, struct stat *s), (fd, s))
CALL1(int, fstat64, fd, (int fd, struct stat64 *s), (fd, s))
CALL1(int, fstatfs, fd, (int fd, struct statfs *s), (fd, s))
CALL1(int, fstatfs64, fd, (int fd, struct statfs64 *s), (fd, s))
CALL1(ssize_t, readlinkat, fd, (int fd, const char *p, char *b, size_t n), (fd, p, b, n))
CALL1(int, renameat, fd, (int fd, const char *p, int fd2, const char *q), (fd, p, fd2, q))
CALL1(int, linkat, fd, (int fd, const char *p, int fd2, const char *q, int f), (fd, p, fd2, q, f))
CALL1(int, mkdirat, fd, (int fd, const char *p, mode_t m), (fd, p, m))
CALL1(int, mknodat, fd, (int fd, const char *p, mode_t m, dev_t d), (fd, p, m, d))
CALL1(int, symlinkat, fd, (const char *t, int fd, const char *p), (t, fd, p))
CALL1(int, unlinkat, fd, (int fd, const char *p, int f), (fd, p, f))
CALL1(int, fchownat, fd, (int fd, const char *p, uid_t u, gid_t g, int f), (fd, p, u, g, f))
CALL1(int, fchmodat, fd, (int fd, const char *p, mode_t m, int f), (fd, p, m, f))
CALL1(int, chmod, -1, (const char *p, mode_t m), (p, m))
CALL1(int, utimensat, fd, (int fd, const char *p, const struct timespec t[2], int f), (fd, p, t, f))
CALL1(int, ftruncate, fd, (int fd, off_t n), (fd, n))
CALL1(int, ftruncate64, fd, (int fd, off64_t n), (fd, n))
CALL1(int, truncate, -1, (const char *p, off_t n), (p, n))
CALL1(int, truncate64, -1, (const char *p, off64_t n), (p, n))
CALL1(int, fsync, fd, (int fd), (fd))
CALL1(int, fdatasync, fd, (int fd), (fd))
CALL1(ssize_t, getxattr, -1, (const char *p, const char *k, void *v, size_t n), (p, k, v, n))
CALL1(ssize_t, listxattr, -1, (const char *p, char *v, size_t n), (p, v, n))
CALL1(int, setxattr, -1, (const char *p, const char *k, const void *v, size_t n, int f), (p, k, v, n, f))
CALL1(int, removexattr, -1, (const char *p, const char *k), (p, k))
CALL1(off_t, lseek, fd, (int fd, off_t o, int w), (fd, o, w))
CALL1(off64_t, lseek64, fd, (int fd, off64_t o, int w), (fd, o, w))
/* not getsockopt(SO_PEERCRED): it does not fail on a Unix socket, and if it did nobody would be let in */
CALL1(int, setsockopt, fd, (int fd, int l, int o, const void *v, socklen_t n), (fd, l, o, v, n))

#define PWRITE(name)                                                    \
	ssize_t name(int fd, const void *p, size_t n, off_t o)          \
	{                                                               \
		REAL(name)                                              \
		return fails(#name, fd) ? -1 : next(fd, p, cut(n), o);  \
	}
PWRITE(pwrite)
PWRITE(pwrite64)

/* The first pieces of a list, at most as many bytes as are let through. */
static int cut_list(const struct iovec *iov, int n, struct iovec *one)
{
	if (ctl->mode != SHORT || exempt || n < 1) {
		return 0;
	}
	*one = (struct iovec){ iov->iov_base, cut(iov->iov_len) };
	return 1;
}
#define PREADV2(name)                                                                \
	ssize_t name(int fd, const struct iovec *iov, int n, off_t o, int flags)     \
	{                                                                            \
		struct iovec one;                                                    \
		REAL(name)                                                           \
		if (fails(#name, fd)) {                                              \
			return -1;                                                   \
		}                                                                    \
		return cut_list(iov, n, &one) ? next(fd, &one, 1, o, flags) : next(fd, iov, n, o, flags); \
	}
PREADV2(preadv2)
PREADV2(preadv64v2)
#define PWRITEV(name)                                                       \
	ssize_t name(int fd, const struct iovec *iov, int n, off_t o)       \
	{                                                                   \
		struct iovec one;                                           \
		REAL(name)                                                  \
		if (fails(#name, fd)) {                                     \
			return -1;                                          \
		}                                                           \
		return cut_list(iov, n, &one) ? next(fd, &one, 1, o) : next(fd, iov, n, o); \
	}
PWRITEV(pwritev)
PWRITEV(pwritev64)

ssize_t writev(int fd, const struct iovec *iov, int n)
{
	struct iovec one;
	REAL(writev)
	if (fails("writev", fd)) {
		return -1;
	}
	return cut_list(iov, n, &one) ? next(fd, &one, 1) : next(fd, iov, n);
}
#define SENDFILE(name)                                                    \
	ssize_t name(int to, int fd, off_t *o, size_t n)                  \
	{                                                                 \
		REAL(name)                                                \
		return fails(#name, fd) ? -1 : next(to, fd, o, cut(n));   \
	}
SENDFILE(sendfile)
SENDFILE(sendfile64)
/* Never short: for epoll's edges a short read of a socket means that it is empty. fz_server splits what it sends. */
ssize_t read(int fd, void *p, size_t n)
{
	REAL(read)
	return !is_bell(fd) && fails("read", fd) ? -1 : next(fd, p, n);
}

/* EACCES is what some systems say for a lock that another has. */
#define FCNTL(name)                                                                   \
	int name(int fd, int cmd, ...)                                                \
	{                                                                             \
		va_list ap;                                                           \
		va_start(ap, cmd);                                                    \
		void *arg = va_arg(ap, void *);                                       \
		va_end(ap);                                                           \
		return ctl->err != EACCES && fails(#name, fd) ? -1 : (int)bare(SYS_fcntl, fd, cmd, arg); \
	}
FCNTL(fcntl)
FCNTL(fcntl64)

int dup(int fd)
{
	REAL(dup)
	return storm() || fails("dup", fd) ? -1 : next(fd);
}
/* The descriptor is gone all the same, as on Linux. */
int close(int fd)
{
	REAL(close)
	int rc = next(fd);
	return fails("close", fd) ? -1 : rc;
}
int accept4(int fd, struct sockaddr *restrict a, socklen_t *restrict n, int flags)
{
	REAL(accept4)
	return storm() || fails("accept4", fd) ? -1 : next(fd, a, n, flags);
}
int eventfd(unsigned v, int flags)
{
	int fd = (int)bare(SYS_eventfd2, v, flags);
	if (fd >= 0 && nbells < 16) {
		bells[nbells++] = fd;
	}
	return fd;
}
int epoll_ctl(int ep, int op, int fd, struct epoll_event *ev)
{
	REAL(epoll_ctl)
	if (op == EPOLL_CTL_ADD && ctl->err != EINTR && fails("epoll_ctl", fd)) {
		errno = ENOSPC; /* of all these only this can come */
		return -1;
	}
	return next(ep, op, fd, ev);
}
int epoll_wait(int ep, struct epoll_event *ev, int n, int ms)
{
	REAL(epoll_wait)
	return ctl->err == EINTR && fails("epoll_wait", ep) ? -1 : next(ep, ev, n, ms);
}
int nanosleep(const struct timespec *t, struct timespec *rest)
{
	REAL(nanosleep)
	exempt = true;
	return next(t, rest);
}
int pthread_create(pthread_t *restrict t, const pthread_attr_t *restrict a, void *(*f)(void *), void *restrict arg)
{
	REAL(pthread_create)
	if (strikes(ALLOC, "pthread_create", -1, __builtin_return_address(0))) {
		return EAGAIN;
	}
	return next(t, a, f, arg);
}

/* Looking a user up may open files and more: it returns the errno of what failed. */
#define LOOK_UP(name, type)                                                                   \
	int name(type who, struct passwd *pw, char *b, size_t n, struct passwd **found)       \
	{                                                                                     \
		REAL(name)                                                                    \
		if (fails(#name, -1) || strikes(ALLOC, #name, -1, __builtin_return_address(0))) { \
			*found = NULL;                                                        \
			return (int)ctl->err;                                                 \
		}                                                                             \
		return next(who, pw, b, n, found);                                            \
	}
LOOK_UP(getpwuid_r, uid_t)
LOOK_UP(getpwnam_r, const char *)

/* What libc has no function for, and what p9d calls without libc's (base/sys.h). An identity that cannot be put on is reported by it not having changed. */
#define ARGUMENTS(a, nr)                     \
	long a[6];                           \
	do {                                 \
		va_list ap;                  \
		va_start(ap, nr);            \
		for (int i = 0; i < 6; i++) { \
			a[i] = va_arg(ap, long); \
		}                            \
		va_end(ap);                  \
	} while (0)

typedef long syscall_fn(long nr, ...);
static syscall_fn *real_syscall(void)
{
	static syscall_fn *next;
	if (!next) {
		next = (syscall_fn *)real("syscall");
	}
	return next;
}
static long bare(long nr, ...)
{
	ARGUMENTS(a, nr);
	return real_syscall()(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}
long syscall(long nr, ...)
{
	struct iovec one;
	ARGUMENTS(a, nr);
	syscall_fn *next = real_syscall();
	switch (nr) {
	case SYS_openat:
		if (storm() || fails("openat", (int)a[0])) {
			return -1;
		}
		break;
	case SYS_close:
		next(nr, a[0]);
		return fails("close", (int)a[0]) ? -1 : 0;
	case SYS_read:
		if (!is_bell((int)a[0]) && fails("read", (int)a[0])) {
			return -1;
		}
		break;
	case SYS_preadv2:
		if (fails("preadv2", (int)a[0])) {
			return -1;
		}
		if (cut_list((struct iovec *)a[1], (int)a[2], &one)) {
			a[1] = (long)&one;
			a[2] = 1;
		}
		break;
	case SYS_pwrite64:
		if (fails("pwrite", (int)a[0])) {
			return -1;
		}
		a[2] = (long)cut((size_t)a[2]);
		break;
	case SYS_epoll_pwait:
		if (ctl->err == EINTR && fails("epoll_wait", (int)a[0])) {
			return -1;
		}
		break;
	case SYS_setfsuid:
	case SYS_setfsgid:
		if ((uint32_t)a[0] != UINT32_MAX && ctl->err != EINTR &&
		    fails(nr == SYS_setfsuid ? "setfsuid" : "setfsgid", -1)) {
			return next(nr, -1, 0, 0, 0, 0, 0);
		}
		break;
	case SYS_setgroups:
	case SYS_capset:
	case SYS_capget:
		if (ctl->err != EINTR && fails(nr == SYS_setgroups ? "setgroups"
					       : nr == SYS_capset  ? "capset"
								   : "capget",
					       -1)) {
			return -1;
		}
		break;
	case SYS_getdents64:
		if (fails("getdents64", (int)a[0])) {
			return -1;
		}
		if (ctl->mode == SHORT && !exempt) {
			a[2] = 320;
		}
		break;
	case SYS_fchmodat2:
		if (fails("fchmodat2", (int)a[0])) {
			return -1;
		}
		break;
	case SYS_cachestat:
		if (fails("cachestat", (int)a[0])) {
			return -1;
		}
		break;
	default:
		break;
	}
	return next(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}
