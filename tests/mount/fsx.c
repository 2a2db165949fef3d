/* SPDX-License-Identifier: BSD-2-Clause */
/* A data test of one file: random reads, writes, truncations and mappings, against a copy in memory. Every byte that comes
 * back is compared, over each way there is: read(2) and a shared mapping, of either of two descriptors, and with --beneath
 * the file as the server's host sees it (after fsync).
 *
 * What a store to a mapping leaves behind the file's end is never looked at again without the file being made longer, which
 * must show zeros. Exit code: 0 fine; 1 wrong data or a failed call; 2 it could not run. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST = 256 << 10, KEPT = 4096, SHOWN = 40, FDS = 2 };

struct file {
	const char *path, *beneath;
	unsigned char *model, *got;
	size_t size;
	int fd[FDS], append_fd;
	unsigned char *map;
	size_t mapped;
	uint64_t seed, rng, number, ops;
	bool unlinked, unlink, no_mmap, appends, direct, trace, can_allocate;
	char (*history)[120];
};

static uint64_t next(struct file *f)
{
	uint64_t z = (f->rng += 0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static size_t below(struct file *f, size_t n)
{
	return n ? (size_t)(next(f) % n) : 0;
}

static void say(struct file *f, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(f->history[f->number % KEPT], sizeof f->history[0], format, args);
	va_end(args);
	if (f->trace) {
		printf("%llu: %s\n", (unsigned long long)f->number, f->history[f->number % KEPT]);
		fflush(stdout);
	}
}

static _Noreturn void fail(struct file *f, const char *format, ...)
{
	va_list args;
	int err = errno;
	va_start(args, format);
	fprintf(stderr, "FAILED seed %llu operation %llu: ", (unsigned long long)f->seed,
		(unsigned long long)f->number);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, " (errno %s; size %zu)\n  the last operations:\n", strerrorname_np(err), f->size);
	for (uint64_t i = f->number > SHOWN ? f->number - SHOWN : 0; i <= f->number; i++) {
		fprintf(stderr, "    %llu: %s\n", (unsigned long long)i, f->history[i % KEPT]);
	}
	exit(1);
}

static void same(struct file *f, const unsigned char *got, size_t at, size_t n, const char *how)
{
	size_t i = 0, bad = 0;
	if (!memcmp(got, f->model + at, n)) {
		return;
	}
	while (got[i] == f->model[at + i]) {
		i++;
	}
	for (size_t j = i; j < n; j++) {
		bad += got[j] != f->model[at + j];
	}
	errno = 0;
	fail(f, "%s: byte %zu (page %zu+%zu) is %02x, not %02x; %zu of %zu are wrong", how, at + i, (at + i) / 4096,
	     (at + i) % 4096, got[i], f->model[at + i], bad, n);
}

static void unmap(struct file *f)
{
	if (f->map && munmap(f->map, f->mapped) < 0) {
		fail(f, "munmap");
	}
	f->map = NULL;
}

static void open_one(struct file *f, int i)
{
	f->fd[i] = open(f->path, O_RDWR | O_CLOEXEC | (f->direct && i == 1 ? O_DIRECT : 0));
	if (f->fd[i] < 0) {
		fail(f, "open");
	}
}

static void do_reopen(struct file *f)
{
	int i = (int)below(f, FDS);
	bool append = f->appends && below(f, 3) == 0;
	if (f->unlinked) {
		say(f, "(cannot be opened again)");
		return;
	}
	say(f, "close and open of #%d%s", i, append ? " and the appender" : "");
	if (close(f->fd[i]) < 0) {
		fail(f, "close");
	}
	open_one(f, i);
	if (append) {
		if (close(f->append_fd) < 0 || (f->append_fd = open(f->path, O_WRONLY | O_APPEND | O_CLOEXEC)) < 0) {
			fail(f, "the appender");
		}
	}
}

static void fresh(struct file *f, size_t at, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		f->model[at + i] = (unsigned char)(next(f) >> 11 | 1); /* never 0: zeros are what is lost */
	}
}

static size_t span(struct file *f, size_t at)
{
	static const size_t most[] = { 16, 4096, 4096, 20000, 65536, MOST };
	size_t n = 1 + below(f, most[below(f, 6)]);
	return n > MOST - at ? MOST - at : n;
}

static void do_write(struct file *f)
{
	int i = (int)below(f, FDS);
	size_t at = below(f, below(f, 4) ? f->size + 1 : MOST - 1);
	at = at >= MOST ? MOST - 1 : at;
	at = below(f, 4) ? at : at & ~(size_t)4095;
	size_t n = span(f, at);
	say(f, "write #%d %zu+%zu (to %zu of %zu)", i, at, n, at + n, f->size);
	fresh(f, at, n);
	if (at > f->size) {
		memset(f->model + f->size, 0, at - f->size);
	}
	f->size = at + n > f->size ? at + n : f->size;
	for (size_t done = 0; done < n;) {
		ssize_t put = pwrite(f->fd[i], f->model + at + done, n - done, (off_t)(at + done));
		if (put <= 0) {
			fail(f, "pwrite: %zd", put);
		}
		done += (size_t)put;
	}
}

static void do_append(struct file *f)
{
	size_t n = span(f, f->size < MOST ? f->size : MOST - 1);
	if (!f->appends || f->size + n > MOST) {
		say(f, "(no appending)");
		return;
	}
	say(f, "append %zu to %zu", n, f->size);
	fresh(f, f->size, n);
	if (write(f->append_fd, f->model + f->size, n) != (ssize_t)n) {
		fail(f, "write by the appender");
	}
	f->size += n;
}

static void do_read(struct file *f)
{
	int i = (int)below(f, FDS);
	size_t at = below(f, f->size + 10), n = span(f, at < MOST ? at : MOST - 1);
	size_t want = at >= f->size ? 0 : n > f->size - at ? f->size - at : n;
	say(f, "read #%d %zu+%zu of %zu", i, at, n, f->size);
	ssize_t got = pread(f->fd[i], f->got, n, (off_t)at);
	if (got != (ssize_t)want) {
		fail(f, "pread gives %zd, not %zu", got, want);
	}
	same(f, f->got, at, want, "read");
}

static void do_truncate(struct file *f)
{
	size_t to = below(f, 3) ? below(f, f->size + 1) : below(f, MOST);
	bool by_name = !f->unlinked && below(f, 3) == 0;
	say(f, "%s %zu to %zu", by_name ? "truncate" : "ftruncate", f->size, to);
	if (by_name ? truncate(f->path, (off_t)to) : ftruncate(f->fd[below(f, FDS)], (off_t)to)) {
		fail(f, "it failed");
	}
	if (to > f->size) {
		memset(f->model + f->size, 0, to - f->size);
	}
	f->size = to;
}

/* One mapping lives for several operations, and then covers more or less than the file. */
static bool mapped(struct file *f)
{
	if (f->no_mmap || f->size == 0) {
		return false;
	}
	if (f->map && below(f, 4) && f->mapped >= f->size) {
		return true;
	}
	unmap(f);
	f->mapped = MOST;
	f->map = mmap(NULL, f->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd[0], 0);
	if (f->map == MAP_FAILED) {
		f->map = NULL;
		fail(f, "mmap");
	}
	return true;
}

static void do_map_read(struct file *f)
{
	if (!mapped(f)) {
		say(f, "(no mapping)");
		return;
	}
	size_t at = below(f, f->size), n = span(f, at);
	n = n > f->size - at ? f->size - at : n;
	say(f, "load %zu+%zu of %zu", at, n, f->size);
	memcpy(f->got, f->map + at, n);
	same(f, f->got, at, n, "mapping");
}

static void do_map_write(struct file *f)
{
	if (!mapped(f)) {
		say(f, "(no mapping)");
		return;
	}
	size_t at = below(f, f->size), n = span(f, at);
	n = n > f->size - at ? f->size - at : n;
	bool sync = below(f, 3) == 0;
	say(f, "store %zu+%zu of %zu%s", at, n, f->size, sync ? ", msync" : "");
	fresh(f, at, n);
	memcpy(f->map + at, f->model + at, n);
	if (sync && msync(f->map, f->mapped, MS_SYNC) < 0) {
		fail(f, "msync");
	}
}

static void do_sync(struct file *f)
{
	bool drop = below(f, 2);
	say(f, "fsync%s", drop ? ", out of the cache" : "");
	if (fsync(f->fd[0]) < 0) {
		fail(f, "fsync");
	}
	if (drop) {
		posix_fadvise(f->fd[0], 0, 0, POSIX_FADV_DONTNEED);
	}
}

static void do_allocate(struct file *f)
{
	size_t at = below(f, MOST - 1), n = span(f, at);
	bool punch = below(f, 2);
	if (!f->can_allocate) {
		say(f, "(no fallocate)");
		return;
	}
	say(f, "fallocate%s %zu+%zu of %zu", punch ? " punch" : "", at, n, f->size);
	if (fallocate(f->fd[0], punch ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0, (off_t)at, (off_t)n) < 0) {
		if (errno != EOPNOTSUPP) {
			fail(f, "fallocate");
		}
		f->can_allocate = false;
		return;
	}
	size_t end = at + n;
	if (punch) {
		end = end > f->size ? f->size : end;
		if (at < end) {
			memset(f->model + at, 0, end - at);
		}
	} else if (end > f->size) {
		memset(f->model + f->size, 0, end - f->size);
		f->size = end;
	}
}

static void check_file(struct file *f, int fd, const char *how)
{
	struct stat st;
	if (fstat(fd, &st) < 0 || (size_t)st.st_size != f->size) {
		fail(f, "%s: the size is %lld, not %zu", how, (long long)st.st_size, f->size);
	}
	size_t done = 0;
	ssize_t n;
	while ((n = pread(fd, f->got + done, MOST - done + 1, (off_t)done)) > 0) {
		done += (size_t)n;
	}
	if (n < 0 || done != f->size) {
		fail(f, "%s: it has %zu bytes, not %zu", how, done, f->size);
	}
	same(f, f->got, 0, done, how);
}

static void do_check(struct file *f)
{
	say(f, "all of it");
	check_file(f, f->fd[below(f, FDS)], "all of it");
	if (!f->beneath || f->unlinked) {
		return;
	}
	if ((f->map && msync(f->map, f->mapped, MS_SYNC) < 0) || fsync(f->fd[0]) < 0 || fsync(f->fd[1]) < 0) {
		fail(f, "fsync");
	}
	int fd = open(f->beneath, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		fail(f, "open of what is beneath");
	}
	check_file(f, fd, "beneath the mount");
	close(fd);
}

static void do_unlink(struct file *f)
{
	if (!f->unlink || f->unlinked || f->number < f->ops / 4) {
		say(f, "(no unlink)");
		return;
	}
	say(f, "unlink");
	if (unlink(f->path) < 0) {
		fail(f, "unlink");
	}
	f->unlinked = true;
}

static void one(struct file *f)
{
	static void (*const table[])(struct file * f) = {
		do_write,     do_write,	   do_write,	do_write,    do_read,	  do_read,	do_read,
		do_read,      do_truncate, do_map_read, do_map_read, do_map_read, do_map_write, do_map_write,
		do_map_write, do_append,   do_reopen,	do_sync,     do_allocate, do_unlink,	NULL,
	};
	f->rng = f->seed * 1000003 + f->number * 0x2545f4914f6cdd1d;
	size_t i = below(f, sizeof table / sizeof *table * 4);
	void (*run)(struct file * f) = table[i / 4];
	if (run) {
		run(f);
	} else if (i % 4 == 0) {
		do_check(f);
	} else {
		say(f, "munmap");
		unmap(f);
	}
}

static const char usage[] = "usage: fsx [OPTION]... FILE\n"
			    "  --seed N       where the random numbers begin (1)\n"
			    "  --ops N        operations (20000)\n"
			    "  --beneath PATH the same file on the server's host, compared too\n"
			    "  --unlink       go on with the file when its name is gone\n"
			    "  --append       a third descriptor with O_APPEND\n"
			    "  --direct       the second descriptor with O_DIRECT\n"
			    "  --no-mmap      without mappings\n"
			    "  --trace        print each operation\n";

static const struct option names[] = {
	{ "seed", 1, NULL, 's' },    { "ops", 1, NULL, 'n' },	 { "beneath", 1, NULL, 'b' },
	{ "unlink", 0, NULL, 'u' },  { "append", 0, NULL, 'a' }, { "direct", 0, NULL, 'd' },
	{ "no-mmap", 0, NULL, 'm' }, { "trace", 0, NULL, 't' },	 { NULL, 0, NULL, 0 },
};

static void parse(struct file *f, int argc, char **argv)
{
	for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
		switch (c) {
		case 's':
			f->seed = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			f->ops = strtoull(optarg, NULL, 0);
			break;
		case 'b':
			f->beneath = optarg;
			break;
		case 'u':
			f->unlink = true;
			break;
		case 'a':
			f->appends = true;
			break;
		case 'd':
			f->direct = true;
			break;
		case 'm':
			f->no_mmap = true;
			break;
		case 't':
			f->trace = true;
			break;
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (argc != optind + 1) {
		fputs(usage, stderr);
		exit(2);
	}
	f->path = argv[optind];
}

int main(int argc, char **argv)
{
	struct file f = { .seed = 1, .ops = 20000, .can_allocate = true };
	parse(&f, argc, argv);
	f.model = calloc(1, MOST + 1);
	f.got = calloc(1, MOST + 2);
	f.history = calloc(KEPT, sizeof *f.history);
	if (!f.model || !f.got || !f.history) {
		abort();
	}
	unlink(f.path);
	int fd = open(f.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0) {
		perror(f.path);
		return 2;
	}
	close(fd);
	open_one(&f, 0);
	open_one(&f, 1);
	f.append_fd = open(f.path, O_WRONLY | O_APPEND | O_CLOEXEC);
	for (f.number = 0; f.number < f.ops; f.number++) {
		one(&f);
	}
	do_check(&f);
	unmap(&f);
	if (close(f.fd[0]) + close(f.fd[1]) + close(f.append_fd) < 0) {
		fail(&f, "close");
	}
	if (!f.unlinked && f.beneath) {
		fd = open(f.beneath, O_RDONLY | O_CLOEXEC);
		check_file(&f, fd, "beneath, after close");
		close(fd);
	}
	if (!f.unlinked) {
		unlink(f.path);
	}
	printf("right: seed %llu, %llu operations\n", (unsigned long long)f.seed, (unsigned long long)f.ops);
	return 0;
}
