/* SPDX-License-Identifier: BSD-2-Clause */
/* sys.h - the system calls of the hot paths, without what libc adds for pthread_cancel(3).
 *
 * In a process with threads libc makes each of these a cancellation point: two locked instructions around a call, which is 4 % of the
 * CPU of a walk. Nobody here cancels threads. syscall(2) goes without. Sanitizers must see the calls, so they get libc's;
 * and so do systems where an argument takes two registers.
 */
#ifndef P9_BASE_SYS_H
#define P9_BASE_SYS_H
#include <fcntl.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#if defined(__LP64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define P9_SYS_BARE 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#undef P9_SYS_BARE
#endif
#endif

#ifdef P9_SYS_BARE
static inline int p9_sys_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	return (int)syscall(SYS_openat, dirfd, path, flags, mode);
}
static inline int p9_sys_close(int fd)
{
	return (int)syscall(SYS_close, fd);
}
static inline ssize_t p9_sys_read(int fd, void *buf, size_t n)
{
	return syscall(SYS_read, fd, buf, n);
}
static inline ssize_t p9_sys_write(int fd, const void *buf, size_t n)
{
	return syscall(SYS_write, fd, buf, n);
}
static inline ssize_t p9_sys_preadv2(int fd, const struct iovec *iov, int n, off_t at, int flags)
{
	return syscall(SYS_preadv2, fd, iov, n, at, 0L, flags);
}
static inline ssize_t p9_sys_pwrite(int fd, const void *buf, size_t n, off_t at)
{
	return syscall(SYS_pwrite64, fd, buf, n, at);
}
static inline int p9_sys_epoll_wait(int ep, struct epoll_event *ev, int most, int ms)
{
	return (int)syscall(SYS_epoll_pwait, ep, ev, most, ms, NULL, 0L);
}
#else
#define p9_sys_openat(dirfd, path, flags, mode) openat(dirfd, path, flags, mode)
#define p9_sys_close(fd) close(fd)
#define p9_sys_read(fd, buf, n) read(fd, buf, n)
#define p9_sys_write(fd, buf, n) write(fd, buf, n)
#define p9_sys_preadv2(fd, iov, n, at, flags) preadv2(fd, iov, n, at, flags)
#define p9_sys_pwrite(fd, buf, n, at) pwrite(fd, buf, n, at)
#define p9_sys_epoll_wait(ep, ev, most, ms) epoll_wait(ep, ev, most, ms)
#endif

#endif
