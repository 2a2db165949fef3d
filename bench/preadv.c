/* SPDX-License-Identifier: BSD-2-Clause */
/* preadv.c - the limit of reading: preadv2(2) from the page cache in a loop, into memory like that of a vhost-user client.
 *
 * What a read over shared memory does and cannot do without. The buffers (as many as requests would be in flight) are
 * taken in turn, the file is read from its beginning to its end and over again, as `p9 bench read` does.
 * usage: preadv FILE SIZE BUFFERS SECONDS      prints MB/s, and the median of a call's us
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void *shared(size_t n)
{
	int fd = memfd_create("buffers", MFD_CLOEXEC);
	void *p = fd < 0 || ftruncate(fd, (off_t)n) < 0
			  ? MAP_FAILED
			  : mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		perror("memory");
		exit(1);
	}
	memset(p, 1, n);
	return p;
}

static int by_value(const void *a, const void *b)
{
	const float *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fputs("usage: preadv FILE SIZE BUFFERS SECONDS\n", stderr);
		return 2;
	}
	size_t size = strtoul(argv[2], NULL, 10), buffers = strtoul(argv[3], NULL, 10);
	double secs = strtod(argv[4], NULL);
	struct stat st;
	int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || (size_t)st.st_size < size || size == 0 || buffers == 0) {
		perror(argv[1]);
		return 1;
	}
	char *mem = shared(size * buffers);
	double begin = now(), end = begin;
	unsigned long long bytes = 0;
	static float took[1 << 20];
	size_t calls = 0;
	for (size_t i = 0, off = 0; end - begin < secs; i++, off += size) {
		off = off + size > (size_t)st.st_size ? 0 : off;
		struct iovec iov = { mem + i % buffers * size, size };
		ssize_t n = preadv2(fd, &iov, 1, (off_t)off, RWF_NOWAIT);
		n = n < 0 ? preadv2(fd, &iov, 1, (off_t)off, 0) : n;
		if (n <= 0) {
			perror(argv[1]);
			return 1;
		}
		bytes += (unsigned long long)n;
		double last = end;
		end = now();
		took[calls++ % (sizeof(took) / sizeof(took[0]))] = (float)(end - last) * 1e6f;
	}
	calls = calls < sizeof(took) / sizeof(took[0]) ? calls : sizeof(took) / sizeof(took[0]);
	qsort(took, calls, sizeof(took[0]), by_value);
	printf("%.1f %.1f\n", (double)bytes / 1e6 / (end - begin), (double)took[calls / 2]);
	return 0;
}
