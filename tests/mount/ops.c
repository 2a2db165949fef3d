/* SPDX-License-Identifier: BSD-2-Clause */
/* One random operation, on both sides. What is drawn depends on the seed, the process and the operation's number, and on
 * what the local side has answered so far; never on the mount: so a run can be repeated.
 *
 * What is left out because 9P has no words for it, or says otherwise: fallocate, O_TMPFILE, RENAME_EXCHANGE and WHITEOUT,
 * set-id bits as root (the server drops them on write, as the kernel does for users), device nodes.
 * Long because each operation is a function of a few lines, and the table that names them stands at the end. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "diff.h"

/* Runs an expression for both sides; `s` is the side in it. */
#define BOTH(expr) \
	do { \
		for (int s = 0; s < 2; s++) { \
			errno = 0; \
			w->out[s].ret = (long)(expr); \
			w->out[s].err = w->out[s].ret < 0 ? errno : 0; \
		} \
	} while (0)

typedef const char *paths[2];

uint64_t random_next(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

/* Below n. */
static uint64_t draw(struct world *w, uint64_t n)
{
	return random_next(&w->rng) % n;
}

static bool chance(struct world *w, unsigned percent)
{
	return draw(w, 100) < percent;
}

static void say(struct world *w, const char *format, ...)
{
	va_list args;
	size_t used = strlen(w->now->text);
	va_start(args, format);
	vsnprintf(w->now->text + used, sizeof w->now->text - used, format, args);
	va_end(args);
}

static bool differ(struct world *w, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(w->why, sizeof w->why, format, args);
	va_end(args);
	return false;
}

/* ---- names ---- */

enum kind { ANY, FILES, DIRS, LINKS, FIFOS };

static void leaf(struct world *w, enum kind kind, char *to)
{
	if (kind == ANY || chance(w, 12)) {
		kind = (enum kind)(1 + draw(w, 4));
	}
	if (chance(w, 1)) { /* the longest name, one that is too long, bytes that are not text, blanks */
		size_t n = chance(w, 50) ? 255 : 256;
		switch (draw(w, 3)) {
		case 0:
			memset(to, 'n', n), to[n] = 0;
			return;
		case 1:
			strcpy(to, "\xff\xfe\x80 b");
			return;
		default:
			strcpy(to, "with blank \"'\\\t;*");
			return;
		}
	}
	static const char letter[] = { 'x', 'f', 'd', 'l', 'p' };
	static const unsigned many[] = { 1, 8, 4, 3, 2 };
	sprintf(to, "%c%u", letter[kind], (unsigned)draw(w, many[kind]));
}

/* A path below the process's directory. It never climbs out of it. */
static char *pick(struct world *w, enum kind kind, char *to)
{
	static const unsigned deep[] = { 40, 75, 94, 100 };
	unsigned depth = 0, p = (unsigned)draw(w, 100);
	char *at = to;
	while (p >= deep[depth]) {
		depth++;
	}
	for (unsigned i = 0; i < depth; i++) {
		if (chance(w, 4)) { /* through a link */
			at += sprintf(at, "l%u/", (unsigned)draw(w, 3));
		} else {
			at += sprintf(at, "d%u/", (unsigned)draw(w, 4));
		}
	}
	leaf(w, kind, at);
	if (chance(w, 1)) {
		static const char *const odd[] = { "/", "/.", "/..", "//", "/./f0" };
		strcat(at, odd[draw(w, at == to && at[0] != 'd' ? 2 : 5)]);
	}
	return to;
}

/* The path on a side. One buffer for each of two paths and each side. */
static const char *full(struct world *w, int which, const char *path, int side)
{
	static char text[2][2][PATH_MAX + 600];
	snprintf(text[which][side], sizeof text[which][side], "%s/%s", w->root[side], path);
	return text[which][side];
}

static const char *on(struct world *w, const char *path, int side)
{
	return full(w, 0, path, side);
}

static const char *about(struct world *w, enum kind kind, const char *format)
{
	pick(w, kind, w->now->key[0]);
	say(w, format, w->now->key[0]);
	return w->now->key[0];
}

static struct slot *any_open(struct world *w)
{
	unsigned first = (unsigned)draw(w, SLOTS);
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *slot = &w->slots[(first + i) % SLOTS];
		if (slot->fd[0] >= 0) {
			strcpy(w->now->key[0], slot->path);
			return slot;
		}
	}
	return NULL;
}

static const char *slot_name(struct world *w, const struct slot *slot)
{
	static char text[600];
	snprintf(text, sizeof text, "#%d=%s", (int)(slot - w->slots), slot->path);
	return text;
}

/* ---- data ---- */

static void give(struct world *w, int side, const void *data, size_t n)
{
	w->out[side].data = realloc(w->out[side].data, n + 1);
	if (!w->out[side].data) {
		abort();
	}
	memcpy(w->out[side].data, data, n);
	w->out[side].len = n;
}

static unsigned char *room(struct world *w, int side, size_t n)
{
	w->out[side].data = realloc(w->out[side].data, n + 1);
	if (!w->out[side].data) {
		abort();
	}
	memset(w->out[side].data, 0xa5, n);
	w->out[side].len = n;
	return w->out[side].data;
}

static void fill(struct world *w, size_t n)
{
	uint64_t state = w->rng;
	for (size_t i = 0; i + 8 <= n + 7; i += 8) {
		uint64_t v = random_next(&state);
		memcpy(w->buffer + i, &v, 8);
	}
}

static size_t some_size(struct world *w)
{
	unsigned p = (unsigned)draw(w, 100);
	return p < 3	? 0
	       : p < 30 ? 1 + draw(w, 64)
	       : p < 70 ? draw(w, 8192)
	       : p < 97 ? draw(w, 65536)
			: draw(w, BUFFER);
}

static off_t some_offset(struct world *w, off_t size)
{
	unsigned p = (unsigned)draw(w, 100);
	off_t base = p < 15   ? 0
		     : p < 35 ? size
		     : p < 60 ? (off_t)draw(w, (uint64_t)size + 1)
		     : p < 75 ? (off_t)(4096 * draw(w, 32))
			      : (off_t)draw(w, 200000);
	if (chance(w, 15)) {
		base += chance(w, 50) ? 1 : -1;
	}
	return base < 0 && chance(w, 90) ? 0 : base;
}

static off_t size_of(struct world *w, const struct slot *slot)
{
	struct stat st;
	return fstat(slot->fd[0], &st) == 0 && S_ISREG(st.st_mode) ? st.st_size : 0;
}

/* What is comparable of a stat, as text. */
static void give_stat(struct world *w, int side, const struct stat *st)
{
	char text[256], when[48] = "recent";
	if (st->st_mtime < EXPLICIT) {
		snprintf(when, sizeof when, "%lld.%09ld", (long long)st->st_mtime, st->st_mtim.tv_nsec);
	}
	int n = snprintf(text, sizeof text, "mode=%o nlink=%lu uid=%u gid=%u size=%lld rdev=%lx mtime=%s", st->st_mode,
			 (unsigned long)st->st_nlink, st->st_uid, st->st_gid,
			 S_ISDIR(st->st_mode) ? 0 : (long long)st->st_size, (unsigned long)st->st_rdev, when);
	give(w, side, text, (size_t)n);
}

/* Both clocks of a file to now: where the two sides may tell times apart that nobody has to. */
static void touch_both(int fd[2])
{
	for (int s = 0; s < 2; s++) {
		if (futimens(fd[s], NULL) < 0) {
			continue;
		}
	}
}

/* ---- open and close ---- */

static bool do_close_slot(struct world *w, struct slot *slot)
{
	BOTH(close(slot->fd[s]));
	slot->fd[0] = slot->fd[1] = -1;
	return true;
}

static int some_flags(struct world *w)
{
	static const int extra[] = { O_CREAT,	 O_CREAT,     O_CREAT, O_EXCL,	O_TRUNC,   O_APPEND, O_APPEND,
				     O_NOFOLLOW, O_DIRECTORY, O_SYNC,  O_DSYNC, O_NOATIME, O_DIRECT, O_NOCTTY };
	int flags = (int)draw(w, 8);
	flags = flags < 5 ? O_RDWR : flags < 7 ? O_RDONLY : O_WRONLY;
	for (unsigned n = (unsigned)draw(w, 4); n > 0; n--) {
		int e = extra[draw(w, sizeof extra / sizeof *extra)];
		flags |= e == O_EXCL ? O_EXCL | O_CREAT : e;
	}
	if (flags & O_DIRECTORY) {
		flags &= ~(O_CREAT | O_EXCL); /* Linux has given this several meanings */
	}
	return flags;
}

static bool do_open(struct world *w)
{
	struct slot *slot = &w->slots[draw(w, SLOTS)];
	int flags = some_flags(w);
	mode_t mode = (mode_t)draw(w, 01000) | (w->is_root ? 0 : chance(w, 90) ? 0600 : 0);
	if (slot->fd[0] >= 0) {
		strcpy(w->now->key[0], slot->path);
		say(w, "close(%s) for the next", slot_name(w, slot));
		return do_close_slot(w, slot);
	}
	const char *path = about(w, FILES, "open(%s");
	say(w, ", %s%s%s%s%s%s%s%s%s%s, %o) -> #%d",
	    (flags & O_ACCMODE) == O_RDWR     ? "RDWR"
	    : (flags & O_ACCMODE) == O_WRONLY ? "WRONLY"
					      : "RDONLY",
	    flags & O_CREAT ? "|CREAT" : "", flags & O_EXCL ? "|EXCL" : "", flags & O_TRUNC ? "|TRUNC" : "",
	    flags & O_APPEND ? "|APPEND" : "", flags & O_NOFOLLOW ? "|NOFOLLOW" : "",
	    flags & O_DIRECTORY ? "|DIRECTORY" : "",
	    (flags & O_SYNC) == O_SYNC ? "|SYNC"
	    : flags & O_DSYNC	       ? "|DSYNC"
				       : "",
	    flags & O_DIRECT ? "|DIRECT" : "", flags & O_NOATIME ? "|NOATIME" : "", mode, (int)(slot - w->slots));
	struct stat st;
	bool there = stat(on(w, path, 0), &st) == 0;
	BOTH(slot->fd[s] = open(on(w, path, s), flags | O_NONBLOCK | O_CLOEXEC, mode));
	if (slot->fd[0] < 0 || slot->fd[1] < 0) {
		for (int s = 0; s < 2; s++) {
			if (slot->fd[s] >= 0) {
				close(slot->fd[s]);
			}
		}
		slot->fd[0] = slot->fd[1] = -1;
	} else {
		if (there && (flags & O_TRUNC)) {
			touch_both(slot->fd); /* truncating an empty file: POSIX and the kernel differ about its time */
		}
		slot->flags = flags;
		strcpy(slot->path, path);
		w->out[0].ret = w->out[1].ret = 0;
	}
	return true;
}

static bool do_close(struct world *w)
{
	struct slot *slot = any_open(w);
	if (!slot) {
		return true;
	}
	say(w, "close(%s)", slot_name(w, slot));
	return do_close_slot(w, slot);
}

static bool do_creat_many(struct world *w)
{
	const char *path = about(w, FILES, "open(%s, CREAT|WRONLY|TRUNC), write, close");
	size_t n = some_size(w);
	fill(w, n);
	for (int s = 0; s < 2; s++) {
		struct stat st;
		errno = 0;
		bool fifo = stat(on(w, path, s), &st) == 0 && S_ISFIFO(st.st_mode);
		int fd = open(on(w, path, s), O_CREAT | O_WRONLY | O_TRUNC | O_NONBLOCK | O_CLOEXEC, 0644);
		w->out[s].ret = fd;
		w->out[s].err = fd < 0 ? errno : 0;
		if (fd >= 0) {
			w->out[s].ret = fifo ? 0 : write(fd, w->buffer, n);
			w->out[s].err = w->out[s].ret < 0 ? errno : 0;
			if (futimens(fd, NULL) + close(fd) < 0) {
				w->out[s].ret -= 1000000;
			}
		}
	}
	return true;
}

/* ---- data of open files ---- */

static bool is_data(const struct slot *slot)
{
	struct stat st;
	return fstat(slot->fd[0], &st) == 0 && !S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode);
}

static void positions(struct world *w, const struct slot *slot)
{
	off_t at[2];
	for (int s = 0; s < 2; s++) {
		at[s] = lseek(slot->fd[s], 0, SEEK_CUR);
	}
	if (at[0] != at[1] && !w->why[0]) {
		differ(w, "position afterwards: local %lld, mount %lld", (long long)at[0], (long long)at[1]);
	}
}

static bool do_read(struct world *w)
{
	struct slot *slot = any_open(w);
	if (!slot || !is_data(slot)) {
		return true;
	}
	size_t n = some_size(w);
	off_t at = some_offset(w, size_of(w, slot));
	bool positioned = chance(w, 60), vector = chance(w, 15);
	say(w, "%s%s(%s, %zu at %lld)", positioned ? "p" : "", vector ? "readv" : "read", slot_name(w, slot), n,
	    positioned ? (long long)at : -1);
	for (int s = 0; s < 2; s++) {
		unsigned char *to = room(w, s, n);
		struct iovec part[2] = { { to, n / 3 }, { to + n / 3, n - n / 3 } };
		errno = 0;
		ssize_t got = vector ? (positioned ? preadv(slot->fd[s], part, 2, at) : readv(slot->fd[s], part, 2))
			      : positioned ? pread(slot->fd[s], to, n, at)
					   : read(slot->fd[s], to, n);
		w->out[s].ret = got;
		w->out[s].err = got < 0 ? errno : 0;
		w->out[s].len = got < 0 ? 0 : n; /* what lies behind must not have been touched */
	}
	positions(w, slot);
	return true;
}

static bool do_write(struct world *w)
{
	struct slot *slot = any_open(w);
	if (!slot || !is_data(slot)) {
		return true;
	}
	size_t n = some_size(w);
	off_t at = some_offset(w, size_of(w, slot));
	bool positioned = chance(w, 60), vector = chance(w, 15);
	if (size_of(w, slot) > 2 * BUFFER) {
		n = n % 4096;
	}
	fill(w, n);
	say(w, "%s%s(%s, %zu at %lld)", positioned ? "p" : "", vector ? "writev" : "write", slot_name(w, slot), n,
	    positioned ? (long long)at : -1);
	struct iovec part[2] = { { w->buffer, n / 3 }, { w->buffer + n / 3, n - n / 3 } };
	BOTH(vector	  ? (positioned ? pwritev(slot->fd[s], part, 2, at) : writev(slot->fd[s], part, 2))
	     : positioned ? pwrite(slot->fd[s], w->buffer, n, at)
			  : write(slot->fd[s], w->buffer, n));
	positions(w, slot);
	return true;
}

static bool do_lseek(struct world *w)
{
	static const int whence[] = { SEEK_SET, SEEK_SET, SEEK_CUR, SEEK_END };
	struct slot *slot = any_open(w);
	struct stat st;
	if (!slot || fstat(slot->fd[0], &st) < 0 || !S_ISREG(st.st_mode)) {
		return true;
	}
	off_t at = some_offset(w, st.st_size);
	int from = whence[draw(w, 4)];
	at = from == SEEK_SET ? at : from == SEEK_END ? -at : chance(w, 50) ? at / 4 : -at / 4;
	say(w, "lseek(%s, %lld, %d)", slot_name(w, slot), (long long)at, from);
	BOTH(lseek(slot->fd[s], at, from));
	positions(w, slot);
	return true;
}

/* Whether [from, to) of a descriptor reads as zeros. */
static bool zeros(int fd, off_t from, off_t to)
{
	static const char none[4096];
	static char got[4096];
	while (from < to) {
		size_t n = to - from < 4096 ? (size_t)(to - from) : 4096;
		ssize_t r = pread(fd, got, n, from);
		if (r <= 0) {
			return r == 0;
		}
		if (memcmp(got, none, (size_t)r)) {
			return false;
		}
		from += r;
	}
	return true;
}

/* A file system may take holes for data, never data for holes. */
static bool do_seek_hole(struct world *w)
{
	struct slot *slot = any_open(w);
	struct stat st;
	if (!slot || fstat(slot->fd[0], &st) < 0 || !S_ISREG(st.st_mode) || (slot->flags & O_ACCMODE) == O_WRONLY) {
		return true;
	}
	off_t at = some_offset(w, st.st_size);
	bool data = chance(w, 50);
	say(w, "lseek(%s, %lld, %s)", slot_name(w, slot), (long long)at, data ? "SEEK_DATA" : "SEEK_HOLE");
	BOTH(lseek(slot->fd[s], at, data ? SEEK_DATA : SEEK_HOLE));
	off_t got = w->out[1].ret;
	int err = w->out[1].err;
	for (int s = 0; s < 2; s++) {
		lseek(slot->fd[s], 0, SEEK_SET);
		w->out[s] = (struct outcome){ 0, 0, 0, w->out[s].data };
	}
	if (at < 0 || at >= st.st_size) {
		return got == -1 && err == ENXIO ? true
						 : differ(w, "%lld, %s; want ENXIO", (long long)got, strerror(err));
	}
	if (data && got == -1 && err == ENXIO) {
		return zeros(slot->fd[0], at, st.st_size) ? true : differ(w, "SEEK_DATA says there is none; there is");
	}
	if (got < at || got > st.st_size || (data && got == st.st_size)) {
		return differ(w, "%lld, %s: not within the file", (long long)got, strerror(err));
	}
	if (data && !zeros(slot->fd[0], at, got)) {
		return differ(w, "SEEK_DATA passes data over: %lld", (long long)got);
	}
	return true;
}

static bool do_ftruncate(struct world *w)
{
	struct slot *slot = any_open(w);
	if (!slot || !is_data(slot)) {
		return true;
	}
	off_t was = size_of(w, slot), size = chance(w, 1) ? 4 << 20 : some_offset(w, was);
	size += size == was; /* the same size: who says what happens to the time? */
	say(w, "ftruncate(%s, %lld)", slot_name(w, slot), (long long)size);
	BOTH(ftruncate(slot->fd[s], size));
	return true;
}

static bool do_truncate(struct world *w)
{
	const char *path = about(w, FILES, "truncate(%s");
	struct stat st;
	off_t was = stat(on(w, path, 0), &st) == 0 ? st.st_size : 0;
	off_t size = some_offset(w, was > BUFFER ? 4096 : was);
	size += size == was;
	say(w, ", %lld)", (long long)size);
	BOTH(truncate(on(w, path, s), size));
	return true;
}

static bool do_fsync(struct world *w)
{
	struct slot *slot = any_open(w);
	if (!slot || !is_data(slot)) {
		return true;
	}
	bool data = chance(w, 50);
	say(w, "%s(%s)", data ? "fdatasync" : "fsync", slot_name(w, slot));
	BOTH(data ? fdatasync(slot->fd[s]) : fsync(slot->fd[s]));
	return true;
}

static bool do_copy_range(struct world *w)
{
	struct slot *from = any_open(w), *to = any_open(w);
	if (!from || from == to || !is_data(from) || !is_data(to) || size_of(w, to) > BUFFER) {
		return true;
	}
	struct stat st[2];
	fstat(from->fd[0], &st[0]);
	fstat(to->fd[0], &st[1]);
	if (st[0].st_ino == st[1].st_ino) {
		return true;
	}
	off_t a = some_offset(w, size_of(w, from)), b = some_offset(w, size_of(w, to));
	size_t n = some_size(w);
	strcpy(w->now->key[1], from->path);
	say(w, "copy_file_range(#%d at %lld, %s at %lld, %zu)", (int)(from - w->slots), (long long)a, slot_name(w, to),
	    (long long)b, n);
	for (int s = 0; s < 2; s++) {
		loff_t in = a, out = b;
		size_t left = n;
		ssize_t got;
		do { /* in as many parts as it likes */
			errno = 0;
			got = copy_file_range(from->fd[s], &in, to->fd[s], &out, left, 0);
			left -= got > 0 ? (size_t)got : 0;
		} while (got > 0 && left > 0);
		w->out[s].ret = got < 0 ? -1 : (long)(n - left);
		w->out[s].err = got < 0 ? errno : 0;
	}
	touch_both(to->fd);
	return true;
}

/* ---- attributes ---- */

static bool do_stat(struct world *w)
{
	bool link = chance(w, 60);
	const char *path = about(w, ANY, link ? "lstat(%s)" : "stat(%s)");
	for (int s = 0; s < 2; s++) {
		struct stat st;
		errno = 0;
		w->out[s].ret = link ? lstat(on(w, path, s), &st) : stat(on(w, path, s), &st);
		w->out[s].err = errno;
		if (w->out[s].ret == 0) {
			give_stat(w, s, &st);
		}
	}
	return true;
}

static bool do_fstat(struct world *w)
{
	struct slot *slot = any_open(w);
	if (!slot) {
		return true;
	}
	say(w, "fstat(%s)", slot_name(w, slot));
	for (int s = 0; s < 2; s++) {
		struct stat st;
		errno = 0;
		w->out[s].ret = fstat(slot->fd[s], &st);
		w->out[s].err = errno;
		if (w->out[s].ret == 0) {
			give_stat(w, s, &st);
		}
	}
	return true;
}

static mode_t some_mode(struct world *w, const char *path)
{
	mode_t mode = (mode_t)draw(w, 01000);
	const char *last = strrchr(path, '/');
	last = last ? last + 1 : path;
	if (chance(w, 8)) {
		mode |= 01000;
	}
	if (!w->is_root) {
		mode |= last[0] == 'd' ? 0700 : chance(w, 80) ? 0600 : 0;
		mode |= chance(w, 8) ? 04000 : 0;
		mode |= chance(w, 8) ? 02000 : 0;
	}
	return mode;
}

static bool do_chmod(struct world *w)
{
	struct slot *slot = chance(w, 40) ? any_open(w) : NULL;
	const char *path = slot ? slot->path : about(w, ANY, "chmod(%s");
	mode_t mode = some_mode(w, path);
	if (slot) {
		say(w, "fchmod(%s", slot_name(w, slot));
	}
	say(w, ", %o)", mode);
	BOTH(slot ? fchmod(slot->fd[s], mode) : chmod(on(w, path, s), mode));
	return true;
}

static bool do_chown(struct world *w)
{
	static const uid_t ids[] = { 0, 1, 1000, 65534, (uid_t)-1, (uid_t)-1 };
	struct slot *slot = chance(w, 30) ? any_open(w) : NULL;
	uid_t uid = w->is_root ? ids[draw(w, 6)] : chance(w, 80) ? (uid_t)-1 : 0;
	gid_t gid = w->is_root ? ids[draw(w, 6)] : chance(w, 80) ? getgid() : 0;
	bool link = chance(w, 40);
	const char *path = slot ? slot->path : about(w, ANY, link ? "lchown(%s" : "chown(%s");
	if (slot) {
		say(w, "fchown(%s", slot_name(w, slot));
	}
	say(w, ", %d, %d)", (int)uid, (int)gid);
	BOTH(slot   ? fchown(slot->fd[s], uid, gid)
	     : link ? lchown(on(w, path, s), uid, gid)
		    : chown(on(w, path, s), uid, gid));
	return true;
}

static struct timespec some_time(struct world *w)
{
	unsigned p = (unsigned)draw(w, 10);
	struct timespec t = { (time_t)draw(w, EXPLICIT), (long)draw(w, 1000000000) };
	return p < 6 ? t : p == 6 ? (struct timespec){ 0, 0 } : (struct timespec){ 1, p < 9 ? UTIME_OMIT : UTIME_NOW };
}

static bool do_utimens(struct world *w)
{
	struct slot *slot = chance(w, 40) ? any_open(w) : NULL;
	struct timespec t[2] = { some_time(w), some_time(w) };
	bool link = chance(w, 40);
	const char *path = slot ? slot->path : about(w, ANY, "utimensat(%s");
	if (slot) {
		say(w, "futimens(%s", slot_name(w, slot));
	}
	say(w, ", %lld.%09ld, %lld.%09ld%s)", (long long)t[0].tv_sec, t[0].tv_nsec, (long long)t[1].tv_sec,
	    t[1].tv_nsec, link ? ", NOFOLLOW" : "");
	BOTH(slot ? futimens(slot->fd[s], t) : utimensat(AT_FDCWD, on(w, path, s), t, link ? AT_SYMLINK_NOFOLLOW : 0));
	return true;
}

static bool do_access(struct world *w)
{
	int mode = (int)draw(w, 8);
	const char *path = about(w, ANY, "access(%s");
	say(w, ", %d)", mode);
	BOTH(faccessat(AT_FDCWD, on(w, path, s), mode, AT_EACCESS));
	return true;
}

static bool do_statfs(struct world *w)
{
	const char *path = about(w, ANY, "statvfs(%s)");
	for (int s = 0; s < 2; s++) {
		struct statvfs v;
		errno = 0;
		w->out[s].ret = statvfs(on(w, path, s), &v);
		w->out[s].err = errno;
		if (w->out[s].ret == 0) {
			unsigned long got[] = { v.f_namemax,
						v.f_bsize == 0,
						v.f_frsize == 0,
						v.f_bfree > v.f_blocks,
						v.f_bavail > v.f_blocks,
						v.f_ffree > v.f_files };
			give(w, s, got, sizeof got);
		}
	}
	return true;
}

/* ---- extended attributes ---- */

static const char *some_xattr(struct world *w)
{
	static const char *const names[] = { "user.a", "user.b", "user.c.d", "user.longer-name-with-\xc3\xbc" };
	static char longest[300];
	if (chance(w, 2)) {
		memset(longest, 'y', sizeof longest - 1);
		memcpy(longest, "user.", 5);
		longest[chance(w, 50) ? 255 : 256] = 0;
		return longest;
	}
	return names[draw(w, 4)];
}

static bool do_setxattr(struct world *w)
{
	struct slot *slot = chance(w, 40) ? any_open(w) : NULL;
	const char *name = some_xattr(w);
	unsigned p = (unsigned)draw(w, 100);
	size_t n = p < 4    ? 0
		   : p < 80 ? 1 + draw(w, 40)
		   : p < 98 ? 1 + draw(w, 3000)
			    : 65536 - draw(w, 2) * 100 + draw(w, 2);
	int flags = chance(w, 60) ? 0 : chance(w, 50) ? XATTR_CREATE : XATTR_REPLACE;
	bool link = chance(w, 30);
	const char *path = slot ? slot->path : about(w, FILES, "setxattr(%s");
	if (slot) {
		say(w, "fsetxattr(%s", slot_name(w, slot));
	}
	say(w, ", %.20s, %zu, %s%s)", name, n,
	    flags == XATTR_CREATE ? "CREATE"
	    : flags		  ? "REPLACE"
				  : "0",
	    link ? ", link" : "");
	fill(w, n);
	BOTH(slot   ? fsetxattr(slot->fd[s], name, w->buffer, n, flags)
	     : link ? lsetxattr(on(w, path, s), name, w->buffer, n, flags)
		    : setxattr(on(w, path, s), name, w->buffer, n, flags));
	return true;
}

static bool do_getxattr(struct world *w)
{
	struct slot *slot = chance(w, 40) ? any_open(w) : NULL;
	const char *name = some_xattr(w);
	size_t n = chance(w, 20) ? 0 : chance(w, 20) ? draw(w, 40) : 65536;
	const char *path = slot ? slot->path : about(w, FILES, "lgetxattr(%s");
	if (slot) {
		say(w, "fgetxattr(%s", slot_name(w, slot));
	}
	say(w, ", %.20s, %zu)", name, n);
	for (int s = 0; s < 2; s++) {
		unsigned char *to = room(w, s, n);
		errno = 0;
		ssize_t got = slot ? fgetxattr(slot->fd[s], name, to, n) : lgetxattr(on(w, path, s), name, to, n);
		w->out[s].ret = got;
		w->out[s].err = got < 0 ? errno : 0;
		w->out[s].len = got > 0 && n > 0 ? (size_t)got : 0;
	}
	return true;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool do_listxattr(struct world *w)
{
	static char names[2][1 << 16];
	struct slot *slot = chance(w, 40) ? any_open(w) : NULL;
	size_t n = chance(w, 20) ? 0 : chance(w, 20) ? draw(w, 30) : sizeof names[0];
	const char *path = slot ? slot->path : about(w, FILES, "llistxattr(%s");
	if (slot) {
		say(w, "flistxattr(%s", slot_name(w, slot));
	}
	say(w, ", %zu)", n);
	for (int s = 0; s < 2; s++) {
		char *sorted[256], all[1 << 16];
		size_t count = 0, used = 0;
		errno = 0;
		ssize_t got = slot ? flistxattr(slot->fd[s], names[s], n) : llistxattr(on(w, path, s), names[s], n);
		w->out[s].ret = got;
		w->out[s].err = got < 0 ? errno : 0;
		for (char *p = names[s]; n > 0 && p < names[s] + got && count < 256; p += strlen(p) + 1) {
			sorted[count++] = p;
		}
		qsort(sorted, count, sizeof *sorted, compare_names);
		for (size_t i = 0; i < count; i++) {
			used += (size_t)sprintf(all + used, "%s,", sorted[i]);
		}
		give(w, s, all, used);
	}
	return true;
}

static bool do_removexattr(struct world *w)
{
	struct slot *slot = chance(w, 40) ? any_open(w) : NULL;
	const char *name = some_xattr(w), *path = slot ? slot->path : about(w, FILES, "lremovexattr(%s");
	if (slot) {
		say(w, "fremovexattr(%s", slot_name(w, slot));
	}
	say(w, ", %.20s)", name);
	BOTH(slot ? fremovexattr(slot->fd[s], name) : lremovexattr(on(w, path, s), name));
	return true;
}

/* ---- names and trees ---- */

static bool do_mkdir(struct world *w)
{
	const char *path = about(w, DIRS, "mkdir(%s)");
	mode_t mode = w->is_root ? (mode_t)draw(w, 01000) : 0700 | (mode_t)draw(w, 0100);
	BOTH(mkdir(on(w, path, s), mode));
	return true;
}

static bool do_rmdir(struct world *w)
{
	const char *path = about(w, DIRS, "rmdir(%s)");
	BOTH(rmdir(on(w, path, s)));
	return true;
}

static bool do_unlink(struct world *w)
{
	const char *path = about(w, ANY, "unlink(%s)");
	BOTH(unlink(on(w, path, s)));
	return true;
}

static bool do_rename(struct world *w)
{
	enum kind kind = chance(w, 60) ? FILES : DIRS;
	pick(w, kind, w->now->key[0]);
	if (kind == DIRS && chance(w, 10)) { /* into itself, or something below it over it */
		char more[256];
		leaf(w, DIRS, more);
		snprintf(w->now->key[1], sizeof w->now->key[1], "%.250s/%.250s", w->now->key[0], more);
		if (chance(w, 30)) {
			char swap[512];
			strcpy(swap, w->now->key[0]);
			strcpy(w->now->key[0], w->now->key[1]);
			strcpy(w->now->key[1], swap);
		}
	} else {
		pick(w, kind, w->now->key[1]);
	}
	say(w, "rename(%s, %s)", w->now->key[0], w->now->key[1]);
	BOTH(rename(full(w, 0, w->now->key[0], s), full(w, 1, w->now->key[1], s)));
	return true;
}

/* Done right, or refused as a flag that the file system does not know. */
static bool do_rename_noreplace(struct world *w)
{
	pick(w, ANY, w->now->key[0]);
	pick(w, ANY, w->now->key[1]);
	say(w, "renameat2(%s, %s, NOREPLACE)", w->now->key[0], w->now->key[1]);
	errno = 0;
	int rc = renameat2(AT_FDCWD, full(w, 0, w->now->key[0], 1), AT_FDCWD, full(w, 1, w->now->key[1], 1),
			   RENAME_NOREPLACE);
	if (rc < 0 && errno == EINVAL) {
		return true;
	}
	w->out[1].ret = rc;
	w->out[1].err = rc < 0 ? errno : 0;
	errno = 0;
	rc = renameat2(AT_FDCWD, full(w, 0, w->now->key[0], 0), AT_FDCWD, full(w, 1, w->now->key[1], 0),
		       RENAME_NOREPLACE);
	w->out[0].ret = rc;
	w->out[0].err = rc < 0 ? errno : 0;
	return true;
}

static bool do_link(struct world *w)
{
	pick(w, chance(w, 85) ? FILES : ANY, w->now->key[0]);
	pick(w, FILES, w->now->key[1]);
	say(w, "link(%s, %s)", w->now->key[0], w->now->key[1]);
	BOTH(link(full(w, 0, w->now->key[0], s), full(w, 1, w->now->key[1], s)));
	return true;
}

static bool do_symlink(struct world *w)
{
	static char target[PATH_MAX + 8];
	unsigned p = (unsigned)draw(w, 100);
	if (p < 85) { /* never out of where the link is */
		char name[300];
		leaf(w, ANY, name);
		sprintf(target, "%s%s", p < 15 ? "d0/" : p < 20 ? "./" : p < 25 ? "d1/../" : "", name);
	} else if (p < 90) {
		target[0] = 0;
	} else {
		size_t n = p < 95 ? PATH_MAX - 1 : p < 98 ? PATH_MAX : 1000;
		memset(target, 't', n);
		target[n] = 0;
	}
	const char *path = about(w, LINKS, "symlink(..., %s)");
	say(w, " -> %.60s", target);
	BOTH(symlink(target, on(w, path, s)));
	return true;
}

static bool do_readlink(struct world *w)
{
	const char *path = about(w, LINKS, "readlink(%s");
	size_t n = chance(w, 80) ? PATH_MAX : 1 + draw(w, 10);
	say(w, ", %zu)", n);
	for (int s = 0; s < 2; s++) {
		unsigned char *to = room(w, s, n);
		errno = 0;
		w->out[s].ret = readlink(on(w, path, s), (char *)to, n);
		w->out[s].err = w->out[s].ret < 0 ? errno : 0;
		w->out[s].len = n;
	}
	return true;
}

static bool do_mknod(struct world *w)
{
	static const mode_t types[] = { S_IFIFO, S_IFIFO, S_IFSOCK, S_IFREG };
	mode_t type = types[draw(w, 4)];
	mode_t mode = type | 0600 | (mode_t)draw(w, 0100);
	const char *path = about(w, type == S_IFREG ? FILES : FIFOS, "mknod(%s");
	say(w, ", %o)", mode);
	BOTH(mknod(on(w, path, s), mode, 0));
	return true;
}

/* A listing as sorted text: "name type,". "" when it cannot be. */
static size_t list_text(DIR *d, char *to, size_t room_left, size_t *count)
{
	static char *sorted[BIG_ENTRIES + 400];
	static char store[(BIG_ENTRIES + 400) * 270];
	size_t n = 0, used = 0, at = 0;
	for (struct dirent *e; (e = readdir(d)) && n < sizeof sorted / sizeof *sorted;) {
		sorted[n++] = store + at;
		at += (size_t)sprintf(store + at, "%s %u", e->d_name, e->d_type) + 1;
	}
	qsort(sorted, n, sizeof *sorted, compare_names);
	for (size_t i = 0; i < n && used + 280 < room_left; i++) {
		used += (size_t)sprintf(to + used, "%s,", sorted[i]);
	}
	*count = n;
	return used;
}

static bool do_readdir(struct world *w)
{
	static char text[(BIG_ENTRIES + 400) * 270], again[sizeof text];
	if (chance(w, 10)) {
		strcpy(w->now->key[0], "big");
		say(w, "readdir(big)");
	} else {
		about(w, DIRS, "readdir(%s)");
	}
	uint64_t kept = w->rng;
	for (int s = 0; s < 2; s++) {
		size_t count, rest, twice;
		w->rng = kept;
		errno = 0;
		DIR *d = opendir(on(w, w->now->key[0], s));
		w->out[s].ret = d ? 0 : -1;
		w->out[s].err = d ? 0 : errno;
		if (!d) {
			continue;
		}
		errno = 0;
		size_t n = list_text(d, text, sizeof text, &count);
		if (errno) {
			w->out[s].err = errno;
		}
		give(w, s, text, n);
		rewinddir(d);
		size_t skip = draw(w, count + 1);
		for (size_t i = 0; i < skip; i++) {
			readdir(d);
		}
		long where = telldir(d);
		n = list_text(d, text, sizeof text, &rest);
		seekdir(d, where);
		size_t m = list_text(d, again, sizeof again, &twice);
		closedir(d);
		if (skip + rest != count || n != m || memcmp(text, again, n)) {
			return differ(w, "%s: of %zu entries, after %zu: %zu, and after seekdir: %zu",
				      s ? "mount" : "local", count, skip, rest, twice);
		}
	}
	return true;
}

/* ---- locks: those of the process and those of a descriptor, or flock; never both kinds in one run ---- */

static bool do_lock(struct world *w)
{
	static const short types[] = { F_RDLCK, F_WRLCK, F_WRLCK, F_UNLCK };
	static const int kinds[] = { LOCK_SH, LOCK_EX, LOCK_EX, LOCK_UN };
	struct slot *slot = any_open(w);
	struct stat st;
	if (!slot || fstat(slot->fd[0], &st) < 0 || !S_ISREG(st.st_mode)) {
		return true;
	}
	unsigned kind = (unsigned)draw(w, 4);
	bool own = chance(w, 50), ask = chance(w, 25);
	off_t from = (off_t)draw(w, 20), n = (off_t)draw(w, 10);
	short whence = chance(w, 80) ? SEEK_SET : SEEK_END;
	if (w->flock) {
		static const char *const words[] = { "SH", "EX", "EX", "UN" };
		say(w, "flock(%s, %s|NB)", slot_name(w, slot), words[kind]);
		BOTH(flock(slot->fd[s], kinds[kind] | LOCK_NB));
		int mode = slot->flags & O_ACCMODE;
		bool unfit = kinds[kind] == LOCK_EX ? mode == O_RDONLY : kinds[kind] == LOCK_SH && mode == O_WRONLY;
		if (unfit &&
		    w->out[1].err == EBADF) { /* as on NFS: the server locks by ranges, which want the right mode */
			flock(slot->fd[0], LOCK_UN);
			flock(slot->fd[1], LOCK_UN);
			w->out[0] = (struct outcome){ 0, 0, 0, w->out[0].data };
			w->out[1] = (struct outcome){ 0, 0, 0, w->out[1].data };
		}
		return true;
	}
	say(w, "fcntl(%s, %s%s, %s, %d+%lld+%lld)", slot_name(w, slot), own ? "OFD_" : "", ask ? "GETLK" : "SETLK",
	    kind == 0  ? "read"
	    : kind < 3 ? "write"
		       : "unlock",
	    whence, (long long)from, (long long)n);
	fstat(slot->fd[1], &st); /* the kernel counts from the size that it knows, and does not ask */
	for (int s = 0; s < 2; s++) {
		struct flock l = { .l_type = types[kind], .l_whence = whence, .l_start = from, .l_len = n };
		errno = 0;
		w->out[s].ret =
			fcntl(slot->fd[s], own ? (ask ? F_OFD_GETLK : F_OFD_SETLK) : (ask ? F_GETLK : F_SETLK), &l);
		w->out[s].err = w->out[s].ret < 0 ? errno : 0;
		if (ask && w->out[s].ret == 0) { /* which of several conflicting locks is named is open */
			char free = l.l_type == F_UNLCK;
			give(w, s, &free, 1);
		}
	}
	return true;
}

/* ---- mappings ---- */

static sigjmp_buf on_bus;
static volatile sig_atomic_t bus_expected;

static void bus(int sig)
{
	if (bus_expected) {
		siglongjmp(on_bus, 1);
	}
	signal(SIGBUS, SIG_DFL);
	raise(sig);
}

static void unmap(struct map *map)
{
	for (int s = 0; s < 2; s++) {
		if (map->at[s]) {
			munmap(map->at[s], map->size);
		}
		close(map->fd[s]);
		map->at[s] = NULL;
	}
}

/* false: a page of it is not there. */
static bool copy_mapped(void *to, const void *from, size_t n)
{
	bus_expected = 1;
	if (sigsetjmp(on_bus, 1)) {
		bus_expected = 0;
		return false;
	}
	memcpy(to, from, n);
	bus_expected = 0;
	return true;
}

static bool do_mmap(struct world *w)
{
	struct map *map = &w->maps[draw(w, MAPS)];
	struct slot *slot = any_open(w);
	struct stat st;
	if (w->no_mmap || map->at[0] || !slot || fstat(slot->fd[0], &st) < 0 || !S_ISREG(st.st_mode) ||
	    st.st_size == 0 || st.st_size > BUFFER || (slot->flags & O_ACCMODE) == O_WRONLY ||
	    (slot->flags & O_DIRECT)) {
		return true;
	}
	map->writable = (slot->flags & O_ACCMODE) == O_RDWR;
	map->size = (size_t)st.st_size;
	strcpy(map->path, slot->path);
	say(w, "mmap(%s, %zu, %s) -> m%d", slot_name(w, slot), map->size, map->writable ? "rw" : "r",
	    (int)(map - w->maps));
	for (int s = 0; s < 2; s++) {
		void *at =
			mmap(NULL, map->size, PROT_READ | (map->writable ? PROT_WRITE : 0), MAP_SHARED, slot->fd[s], 0);
		map->at[s] = at == MAP_FAILED ? NULL : at;
		w->out[s].ret = at == MAP_FAILED ? -1 : 0;
		w->out[s].err = at == MAP_FAILED ? errno : 0;
		map->fd[s] = dup(slot->fd[s]);
	}
	if (w->out[1].err == ENODEV &&
	    (slot->flags & O_APPEND)) { /* only the server knows where what is appended lands */
		unmap(map);
		w->out[1] = (struct outcome){ 0, 0, 0, w->out[1].data };
	}
	return true;
}

/* Reads or writes through a mapping; a page behind the end of the file is SIGBUS on both sides. */
static bool do_map_access(struct world *w)
{
	struct map *map = &w->maps[draw(w, MAPS)];
	struct stat st;
	if (!map->at[0] || fstat(map->fd[0], &st) < 0) {
		return true;
	}
	size_t from = draw(w, map->size), n = 1 + draw(w, map->size - from < 20000 ? map->size - from : 20000);
	bool put = map->writable && chance(w, 60);
	if (put) { /* behind the end, on its last page, one side may forget what the other keeps */
		if (from >= (size_t)st.st_size) {
			return true;
		}
		n = from + n > (size_t)st.st_size ? (size_t)st.st_size - from : n;
		fill(w, n);
	}
	strcpy(w->now->key[0], map->path);
	say(w, "%s of m%d=%s, %zu at %zu", put ? "store" : "load", (int)(map - w->maps), map->path, n, from);
	for (int s = 0; s < 2; s++) {
		unsigned char *to = room(w, s, put ? 0 : n);
		if (!copy_mapped(put ? map->at[s] + from : to, put ? w->buffer : map->at[s] + from, n)) {
			w->out[s] = (struct outcome){ -1, EFAULT, 0, w->out[s].data };
		}
		if (put && msync(map->at[s], map->size, MS_SYNC) < 0) {
			return differ(w, "%s: msync: %s", s ? "mount" : "local", strerror(errno));
		}
	}
	if (put) {
		touch_both(map->fd); /* a tmpfs does not tell when a mapping was written */
	}
	return true;
}

static bool do_munmap(struct world *w)
{
	struct map *map = &w->maps[draw(w, MAPS)];
	if (map->at[0]) {
		strcpy(w->now->key[0], map->path);
		say(w, "munmap(m%d=%s)", (int)(map - w->maps), map->path);
		unmap(map);
	}
	return true;
}

/* ---- the table ---- */

static const struct {
	const char *name;
	unsigned weight;
	bool (*run)(struct world *w);
} table[] = {
	{ "open", 90, do_open },
	{ "close", 30, do_close },
	{ "create", 30, do_creat_many },
	{ "read", 90, do_read },
	{ "write", 90, do_write },
	{ "lseek", 25, do_lseek },
	{ "seekhole", 8, do_seek_hole },
	{ "ftruncate", 20, do_ftruncate },
	{ "truncate", 15, do_truncate },
	{ "fsync", 8, do_fsync },
	{ "copyrange", 6, do_copy_range },
	{ "stat", 60, do_stat },
	{ "fstat", 30, do_fstat },
	{ "chmod", 20, do_chmod },
	{ "chown", 12, do_chown },
	{ "utimens", 25, do_utimens },
	{ "access", 12, do_access },
	{ "statfs", 4, do_statfs },
	{ "setxattr", 16, do_setxattr },
	{ "getxattr", 16, do_getxattr },
	{ "listxattr", 10, do_listxattr },
	{ "removexattr", 8, do_removexattr },
	{ "mkdir", 30, do_mkdir },
	{ "rmdir", 14, do_rmdir },
	{ "unlink", 25, do_unlink },
	{ "rename", 40, do_rename },
	{ "noreplace", 8, do_rename_noreplace },
	{ "link", 20, do_link },
	{ "symlink", 14, do_symlink },
	{ "readlink", 14, do_readlink },
	{ "mknod", 10, do_mknod },
	{ "readdir", 12, do_readdir },
	{ "lock", 25, do_lock },
	{ "mmap", 12, do_mmap },
	{ "access-map", 25, do_map_access },
	{ "munmap", 6, do_munmap },
};

unsigned ops_count(void)
{
	return sizeof table / sizeof *table;
}

const char *ops_name(unsigned n)
{
	return table[n].name;
}

void ops_list(FILE *to)
{
	for (unsigned i = 0; i < ops_count(); i++) {
		fprintf(to, "%s\n", table[i].name);
	}
}

static bool skipped(const struct world *w, const char *name)
{
	size_t n = strlen(name);
	for (const char *p = w->skip; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : "") {
		if (!strncmp(p, name, n) && (p[n] == ',' || !p[n])) {
			return true;
		}
	}
	return false;
}

static unsigned choose(struct world *w)
{
	unsigned total = 0, i = 0;
	for (unsigned j = 0; j < ops_count(); j++) {
		total += table[j].weight;
	}
	unsigned at = (unsigned)draw(w, total);
	while (at >= table[i].weight) {
		at -= table[i++].weight;
	}
	return i;
}

/* A fresh tree: empty but for a directory with many entries. */
void ops_begin(struct world *w)
{
	struct sigaction action = { .sa_handler = bus, .sa_flags = SA_NODEFER };
	sigaction(SIGBUS, &action, NULL);
	for (int i = 0; i < SLOTS; i++) {
		w->slots[i].fd[0] = w->slots[i].fd[1] = -1;
	}
	for (int s = 0; s < 2; s++) {
		char path[PATH_MAX + 64];
		tree_remove(w->root[s]);
		if (mkdir(w->root[s], 0755) < 0) {
			perror(w->root[s]);
			exit(2);
		}
		snprintf(path, sizeof path, "%s/big", w->root[s]);
		mkdir(path, 0755);
		for (int i = 0; i < BIG_ENTRIES; i++) {
			snprintf(path, sizeof path, "%s/big/entry-with-a-name-%d", w->root[s], i);
			int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
			if (fd < 0) {
				perror(path);
				exit(2);
			}
			close(fd);
		}
	}
}

bool ops_one(struct world *w)
{
	w->rng = w->seed * 1000003 + w->process * 7919 + w->number * 0x2545f4914f6cdd1d;
	w->why[0] = 0;
	for (int s = 0; s < 2; s++) {
		w->out[s].ret = w->out[s].err = 0;
		w->out[s].len = 0;
	}
	w->now = &w->history[w->number % HISTORY];
	memset(w->now, 0, sizeof *w->now);
	w->now->number = w->number;
	unsigned op = choose(w);
	if (skipped(w, table[op].name)) {
		return true;
	}
	bool fine = table[op].run(w) && !w->why[0];
	const struct outcome *a = &w->out[0], *b = &w->out[1];
	if (w->now->text[0]) {
		say(w, " = %ld%s%s", a->ret, a->err ? " " : "", a->err ? strerrorname_np(a->err) : "");
		w->done[op]++;
		w->good[op] += a->err == 0;
		if (w->trace) {
			printf("%llu: %s\n", (unsigned long long)w->number, w->now->text);
			fflush(stdout);
		}
	}
	return fine && a->ret == b->ret && a->err == b->err && a->len == b->len &&
	       (a->len == 0 || !memcmp(a->data, b->data, a->len));
}

void ops_explain(struct world *w, FILE *to)
{
	const struct outcome *a = &w->out[0], *b = &w->out[1];
	if (w->why[0]) {
		fprintf(to, "  %s\n", w->why);
	}
	if (a->ret != b->ret || a->err != b->err) {
		fprintf(to, "  local %ld %s, mount %ld %s\n", a->ret, a->err ? strerrorname_np(a->err) : "", b->ret,
			b->err ? strerrorname_np(b->err) : "");
	}
	if (a->len != b->len) {
		fprintf(to, "  %zu bytes, %zu bytes\n", a->len, b->len);
	}
	size_t n = a->len < b->len ? a->len : b->len, i = 0;
	while (i < n && a->data[i] == b->data[i]) {
		i++;
	}
	if (i < n) {
		size_t bad = 0, from = i > 40 ? i - 40 : 0;
		for (size_t j = i; j < n; j++) {
			bad += a->data[j] != b->data[j];
		}
		fprintf(to, "  first different at byte %zu, %zu in all: %02x, %02x\n", i, bad, a->data[i], b->data[i]);
		bool text = true;
		for (size_t j = from; j < n; j++) {
			text = text && a->data[j] >= ' ' && a->data[j] < 127;
		}
		if (text) {
			fprintf(to, "  local %.*s\n  mount %.*s\n", (int)(a->len - from), a->data + from,
				(int)(b->len - from), b->data + from);
		}
	}
}

/* Everything that is dirty gets to the server. */
void ops_settle(struct world *w)
{
	for (int i = 0; i < MAPS; i++) {
		if (w->maps[i].at[1]) {
			msync(w->maps[i].at[1], w->maps[i].size, MS_SYNC);
		}
	}
	for (int i = 0; i < SLOTS; i++) {
		if (w->slots[i].fd[1] >= 0) {
			fsync(w->slots[i].fd[1]);
		}
	}
}

void ops_end(struct world *w)
{
	for (int i = 0; i < MAPS; i++) {
		if (w->maps[i].at[0]) {
			unmap(&w->maps[i]);
		}
	}
	for (int i = 0; i < SLOTS; i++) {
		for (int s = 0; s < 2; s++) {
			if (w->slots[i].fd[s] >= 0) {
				close(w->slots[i].fd[s]);
				w->slots[i].fd[s] = -1;
			}
		}
	}
}
