/* SPDX-License-Identifier: BSD-2-Clause */
/* qid.c - identities that are unique across all devices below all exports.
 *
 * path = device index (16 bits) above inode number (48 bits). The first device of the first export has index 0, so that
 * clients see the host's inode numbers; other devices are numbered as they are met. An inode number that needs more
 * than 48 bits (some FUSE file systems hash theirs) gets a number of its own from a table, under index 0xffff; that
 * table grows with the number of such inodes seen.
 * version mixes ctime, mtime and size: it changes when content or metadata do (as finely as the file system's clock).
 */
#include <stdlib.h>
#include "base/pack.h"
#include "backend/local/local.h"

#define INO_BITS 48
#define MAPPED 0xffffull
#define DEVS_MAX 0xfff0u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint64_t *devs; /* [index] = major << 32 | minor, valid below ndevs */
static _Atomic unsigned ndevs;

struct entry {
	uint64_t dev, ino; /* ino 0: free */
};
static struct entry *map;
static uint64_t map_cap, map_n;
static uint64_t *map_number;

static uint64_t mix(uint64_t x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	return x ^ x >> 32;
}

static uint64_t dev_index(uint64_t dev)
{
	unsigned n = atomic_load_explicit(&ndevs, memory_order_acquire);
	for (unsigned i = 0; i < n; i++) {
		if (devs[i] == dev) {
			return i;
		}
	}
	pthread_mutex_lock(&lock);
	n = atomic_load(&ndevs);
	unsigned i = 0;
	if (!devs) {
		devs = calloc(DEVS_MAX, sizeof(*devs));
	}
	while (devs && i < n && devs[i] != dev) {
		i++;
	}
	if (devs && i == n && n < DEVS_MAX) {
		devs[n] = dev;
		atomic_store_explicit(&ndevs, n + 1, memory_order_release);
	}
	pthread_mutex_unlock(&lock);
	return devs && i < DEVS_MAX ? i : MAPPED;
}

static bool grow_map(void)
{
	uint64_t cap = map_cap ? map_cap * 2 : 1024;
	struct entry *m = calloc(cap, sizeof(*m));
	uint64_t *num = calloc(cap, sizeof(*num));
	if (!m || !num) {
		free(m);
		free(num);
		return false;
	}
	for (uint64_t i = 0; i < map_cap; i++) {
		uint64_t h = mix(map[i].ino ^ mix(map[i].dev)) & (cap - 1);
		while (map[i].ino && m[h].ino) {
			h = (h + 1) & (cap - 1);
		}
		if (map[i].ino) {
			m[h] = map[i];
			num[h] = map_number[i];
		}
	}
	free(map);
	free(map_number);
	map = m;
	map_number = num;
	map_cap = cap;
	return true;
}

/* A number for an inode whose own does not fit. Falls back to a hash when memory is short. */
static uint64_t mapped(uint64_t dev, uint64_t ino)
{
	uint64_t hash = mix(ino ^ mix(dev));
	uint64_t number = hash & ((1ull << INO_BITS) - 1);
	pthread_mutex_lock(&lock);
	if (map_n * 2 < map_cap || grow_map()) {
		uint64_t h = hash & (map_cap - 1);
		while (map[h].ino && (map[h].ino != ino || map[h].dev != dev)) {
			h = (h + 1) & (map_cap - 1);
		}
		if (!map[h].ino) {
			map[h] = (struct entry){ dev, ino };
			map_number[h] = ++map_n;
		}
		number = map_number[h];
	}
	pthread_mutex_unlock(&lock);
	return MAPPED << INO_BITS | number;
}

uint64_t lqid_path(uint32_t major, uint32_t minor, uint64_t ino)
{
	uint64_t dev = (uint64_t)major << 32 | minor;
	uint64_t index = dev_index(dev);
	if (ino >> INO_BITS || index == MAPPED) {
		return mapped(dev, ino);
	}
	return index << INO_BITS | ino;
}

uint8_t lqid_type(mode_t mode)
{
	return S_ISDIR(mode) ? P9_QTDIR : S_ISLNK(mode) ? P9_QTSYMLINK : P9_QTFILE;
}

/* 0 for the file system of the export's root, 1..7 for what is mounted below. */
uint8_t lqid_volume(const struct lroot *r, const struct statx *st)
{
	if (st->stx_dev_minor == r->minor && st->stx_dev_major == r->major) {
		return 0;
	}
	return (uint8_t)(1 + dev_index((uint64_t)st->stx_dev_major << 32 | st->stx_dev_minor) % 7);
}

struct p9_qid lqid_of(const struct statx *st)
{
	uint64_t v = (uint64_t)st->stx_ctime.tv_sec * 1000000007u + st->stx_ctime.tv_nsec;
	v ^= ((uint64_t)st->stx_mtime.tv_sec * 998244353u + st->stx_mtime.tv_nsec) << 1;
	v = mix(v + st->stx_size * 0x9e3779b97f4a7c15ull);
	return (struct p9_qid){ .type = lqid_type(st->stx_mode),
				.version = (uint32_t)v,
				.path = lqid_path(st->stx_dev_major, st->stx_dev_minor, st->stx_ino) };
}

void p9_local_pack_ids(struct p9_pack *p)
{
	pthread_mutex_lock(&lock);
	unsigned n = atomic_load(&ndevs);
	p9_pack_number(p, n);
	for (unsigned i = 0; i < n; i++) {
		p9_pack_number(p, devs[i]);
	}
	p9_pack_number(p, map_n);
	for (uint64_t i = 0; i < map_cap; i++) {
		if (map[i].ino) {
			p9_pack_number(p, map[i].dev);
			p9_pack_number(p, map[i].ino);
			p9_pack_number(p, map_number[i]);
		}
	}
	pthread_mutex_unlock(&lock);
}

/* A place for one more inode; its number comes from who met it first. Under the lock. */
static void adopt(struct entry e, uint64_t number, struct p9_unpack *u)
{
	if (map_n * 2 >= map_cap && !grow_map()) {
		p9_unpack_fail(u, "out of memory");
		return;
	}
	uint64_t h = mix(e.ino ^ mix(e.dev)) & (map_cap - 1);
	while (map[h].ino && (map[h].ino != e.ino || map[h].dev != e.dev)) {
		h = (h + 1) & (map_cap - 1);
	}
	if (map[h].ino) {
		p9_unpack_fail(u, "an inode has two numbers");
		return;
	}
	map[h] = e;
	map_number[h] = number;
	map_n++;
}

void p9_local_unpack_ids(struct p9_unpack *u)
{
	unsigned n = (unsigned)p9_unpack_number(u, DEVS_MAX);
	for (unsigned i = 0; i < n && !p9_unpack_bad(u); i++) {
		uint64_t dev = p9_unpack_number(u, UINT64_MAX);
		if (!p9_unpack_bad(u) && dev_index(dev) != i) {
			p9_unpack_fail(u, "a device has two numbers");
		}
	}
	uint64_t inodes = p9_unpack_number(u, UINT32_MAX);
	pthread_mutex_lock(&lock);
	if (map_n) {
		p9_unpack_fail(u, "inodes have numbers already");
	}
	for (uint64_t i = 0; i < inodes && !p9_unpack_bad(u); i++) {
		struct entry e;
		e.dev = p9_unpack_number(u, UINT64_MAX);
		e.ino = p9_unpack_number(u, UINT64_MAX);
		uint64_t number = p9_unpack_number(u, inodes);
		if (!p9_unpack_bad(u) && e.ino && number) {
			adopt(e, number, u);
		} else {
			p9_unpack_fail(u, "an inode without a number");
		}
	}
	pthread_mutex_unlock(&lock);
}

void p9_local_forget_ids(void)
{
	pthread_mutex_lock(&lock);
	atomic_store(&ndevs, 0);
	free(map);
	free(map_number);
	map = NULL;
	map_number = NULL;
	map_cap = map_n = 0;
	pthread_mutex_unlock(&lock);
}
