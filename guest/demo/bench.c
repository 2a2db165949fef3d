/* SPDX-License-Identifier: BSD-2-Clause */
/* bench.c - operations and megabytes per second, one at a time and with as many requests in flight as there are slots.
 *
 * A row runs until half a second is over. Figures are of this machine, emulated or not; they compare ways of
 * driving one device, or devices in one run.
 */
#include <string.h>
#include "engine/engine.h"
#include "guest/demo/demo.h"

enum { SMALL = 4096, LARGE = 1 << 20, FILE_SIZE = 8 << 20, ROW_MS = 500, FLIGHT = 16, FILE_MODE = 0644 };

static struct {
	struct demo_share *share;
	char path[512];
	int fd;
	uint32_t random;
	/* requests in flight */
	struct p9_session_call calls[FLIGHT];
	uint8_t *into[FLIGHT];
	bool read; /* Tread of SMALL bytes, else Tgetattr */
	uint32_t fid;
	uint64_t answered;
	bool stop;
	int rc;
} be;
static uint8_t large[LARGE];

static uint64_t any_block(void)
{
	be.random = be.random * 1664525u + 1013904223u;
	return (uint64_t)(be.random >> 8) % (FILE_SIZE / SMALL) * SMALL;
}

static int64_t row_stat(void)
{
	struct p9_rgetattr st;
	int rc = p9_vfs_stat(demo.vfs, be.path, &st);
	return rc < 0 ? rc : 0;
}

static int64_t row_open(void)
{
	int fd = p9_vfs_open(demo.vfs, be.path, P9_O_RDONLY, 0);
	return fd < 0 ? fd : p9_vfs_close(demo.vfs, fd);
}

static int64_t row_read_small(void)
{
	return p9_vfs_pread(demo.vfs, be.fd, &(struct p9_vfs_span){ large, SMALL, any_block() });
}

static int64_t row_read_large(void)
{
	return p9_vfs_pread(demo.vfs, be.fd,
			    &(struct p9_vfs_span){ large, LARGE, any_block() & ~(uint64_t)(LARGE - 1) });
}

static int64_t row_write_small(void)
{
	return p9_vfs_pwrite(demo.vfs, be.fd, &(struct p9_vfs_span){ large, SMALL, any_block() });
}

static int64_t row_write_large(void)
{
	return p9_vfs_pwrite(demo.vfs, be.fd,
			     &(struct p9_vfs_span){ large, LARGE, any_block() & ~(uint64_t)(LARGE - 1) });
}

static void show(const char *name, uint64_t count, uint64_t bytes, uint64_t ns)
{
	uint64_t us = ns / 1000 + 1;
	demo_print("bench: %-28s %8lu ops/s", name, count * 1000000 / us);
	if (bytes) {
		demo_print(" %8lu.%lu MB/s", bytes / us, bytes * 10 / us % 10);
	}
	demo_print("\n");
}

static int row(const char *name, int64_t (*run)(void))
{
	uint64_t begin = p9_platform_clock(), count = 0, bytes = 0, now = begin;
	while (now - begin < ROW_MS * UINT64_C(1000000)) {
		int64_t n = run();
		if (n < 0) {
			return (int)n;
		}
		bytes += (uint64_t)n;
		count++;
		now = p9_platform_clock();
	}
	show(name, count, bytes, now - begin);
	return 0;
}

/* ---- asynchronous ---- */

static void submit(unsigned i);

static void done(struct p9_session_call *c, const struct p9_msg *reply)
{
	unsigned i = (unsigned)(c - be.calls);
	if (reply->type == P9_Rlerror) {
		be.rc = -(int)reply->rlerror.ecode;
		return;
	}
	be.answered++;
	if (!be.stop && be.rc == 0) {
		submit(i);
	}
}

static void submit(unsigned i)
{
	struct p9_msg m = { .type = P9_Tgetattr, .tgetattr = { .fid = be.fid, .request_mask = P9_GETATTR_BASIC } };
	if (be.read) {
		m = (struct p9_msg){ .type = P9_Tread, .tread = { be.fid, any_block(), SMALL } };
	}
	be.calls[i].done = done;
	int rc = p9_session_submit(be.share->session, &m, be.read ? be.into[i] : NULL, &be.calls[i]);
	be.rc = rc < 0 ? rc : be.rc;
}

static int flight(const char *name, bool read, uint32_t fid)
{
	struct p9_session *s = be.share->session;
	unsigned depth = be.share->dev.conf.slots < FLIGHT ? be.share->dev.conf.slots : FLIGHT;
	uint64_t begin = p9_platform_clock(), now = begin;
	be.read = read;
	be.fid = fid;
	be.answered = 0;
	be.rc = 0;
	be.stop = false;
	for (unsigned i = 0; i < depth; i++) {
		be.into[i] = large + i * SMALL;
		submit(i);
	}
	while (!be.stop && be.rc == 0) {
		int rc = p9_session_step(s, true);
		be.rc = rc < 0 ? rc : be.rc;
		now = p9_platform_clock();
		be.stop = now - begin >= ROW_MS * UINT64_C(1000000);
	}
	be.stop = true;
	int rc = p9_session_drain(s);
	rc = be.rc < 0 ? be.rc : rc;
	if (rc == 0) {
		show(name, be.answered, read ? be.answered * SMALL : 0, now - begin);
	}
	return rc;
}

static int flights(void)
{
	struct p9_handle h;
	const char *rest = be.path + (demo_same(be.share->at, "/") ? 0 : demo_len(be.share->at));
	int rc = p9_session_open(be.share->session, rest, P9_O_RDONLY, 0, &h);
	if (rc < 0) {
		return rc;
	}
	rc = flight("getattr, all slots", false, h.fid);
	rc = rc < 0 ? rc : flight("read 4 KiB, all slots", true, h.fid);
	int closed = p9_session_close(be.share->session, &h);
	return rc < 0 ? rc : closed;
}

/* ---- the run ---- */

static int prepare(void)
{
	for (uint32_t i = 0; i < LARGE; i++) {
		large[i] = (uint8_t)(i * 31 >> 3);
	}
	be.fd = p9_vfs_open(demo.vfs, be.path, P9_O_RDWR | P9_O_CREAT | P9_O_TRUNC, FILE_MODE);
	for (uint64_t at = 0; be.fd >= 0 && at < FILE_SIZE; at += LARGE) {
		int64_t n = p9_vfs_pwrite(demo.vfs, be.fd, &(struct p9_vfs_span){ large, LARGE, at });
		if (n != LARGE) {
			return n < 0 ? (int)n : -P9_ENOSPC;
		}
	}
	return be.fd < 0 ? be.fd : 0;
}

int demo_bench(unsigned n, char **words)
{
	static const struct {
		const char *name;
		int64_t (*run)(void);
	} rows[] = { { "stat", row_stat },
		     { "open and close", row_open },
		     { "read 4 KiB", row_read_small },
		     { "write 4 KiB", row_write_small },
		     { "read 1 MiB", row_read_large },
		     { "write 1 MiB", row_write_large } };
	const char *dir = n > 1 ? words[1] : "/host";
	be.share = demo_share_of(dir);
	be.random = (uint32_t)p9_platform_clock();
	demo_join(be.path, sizeof(be.path), dir, "/p9-bench");
	int rc = prepare();
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]) && rc == 0; i++) {
		rc = row(rows[i].name, rows[i].run);
	}
	rc = rc < 0 ? rc : flights();
	if (be.fd >= 0) {
		int closed = p9_vfs_close(demo.vfs, be.fd);
		int removed = p9_vfs_remove(demo.vfs, be.path);
		rc = rc < 0 ? rc : closed < 0 ? closed : removed;
	}
	return rc < 0 ? demo_complain("bench", be.path, rc) : DEMO_OK;
}
