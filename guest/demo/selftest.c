/* SPDX-License-Identifier: BSD-2-Clause */
/* selftest.c - a million file operations against a model in memory, and a look at what they left behind.
 *
 * Files, their contents, names, a link and a directory are kept in `model`, and the share is compared with it after
 * every operation that tells anything. What the driver, the engine and the session hold is counted before and after:
 * fids, tags, slots, places of the ring, bytes of memory.
 */
#include <string.h>
#include "engine/engine.h"
#include "guest/demo/demo.h"

enum {
	FILES = 12,
	FILE_MOST = 8192,
	NAMES = 2, /* that a file is renamed between */
	DEFAULT_COUNT = 1000000,
	REPORTS = 10,
	PATH = 512,
};

struct model_file {
	bool there;
	unsigned name; /* which of its names */
	uint32_t size;
	uint8_t data[FILE_MOST];
};
static struct model {
	char dir[PATH];
	struct model_file file[FILES];
	bool link, sub;	      /* the symbolic link, the empty directory are there */
	unsigned link_target; /* number in its text */
	uint64_t random;
	uint64_t verified; /* bytes compared */
	const char *op, *why;
	unsigned seen; /* entries of a listing that are the model's */
} mo;
static uint8_t buffer[FILE_MOST + 1];

/* xorshift64 */
static uint32_t any(uint32_t below)
{
	mo.random ^= mo.random << 13;
	mo.random ^= mo.random >> 7;
	mo.random ^= mo.random << 17;
	return (uint32_t)(mo.random >> 32) % below;
}

static void path_of(char *path, const char *name, unsigned number)
{
	char text[] = { '/', name[0], (char)('0' + number / 10), (char)('0' + number % 10), 0 };
	demo_join(path, PATH, mo.dir, text);
}

/* File i is fNN or gNN. */
static void file_path(char *path, unsigned i)
{
	path_of(path, mo.file[i].name ? "g" : "f", i);
}

/* Something is not as the model says. */
static int wrong(const char *why)
{
	mo.why = why;
	return -P9_EIO;
}

/* ---- the operations; each is one call, or open, one transfer, close ---- */

static int op_stat(unsigned i)
{
	char path[PATH];
	struct p9_rgetattr st;
	file_path(path, i);
	int rc = p9_vfs_stat(demo.vfs, path, &st);
	if (!mo.file[i].there) {
		return rc == -P9_ENOENT ? 0 : rc < 0 ? rc : wrong("a file that was removed is there");
	}
	return rc < 0 ? rc : st.size == mo.file[i].size ? 0 : wrong("size");
}

static int op_read(unsigned i)
{
	char path[PATH];
	struct model_file *f = &mo.file[i];
	file_path(path, i);
	int fd = p9_vfs_open(demo.vfs, path, P9_O_RDONLY, 0);
	if (!f->there) {
		return fd == -P9_ENOENT ? 0 : wrong("a file that was removed can be opened");
	}
	if (fd < 0) {
		return fd;
	}
	uint32_t from = any(FILE_MOST), want = any(FILE_MOST) + 1;
	uint32_t due = from >= f->size ? 0 : f->size - from < want ? f->size - from : want;
	int64_t n = p9_vfs_pread(demo.vfs, fd, &(struct p9_vfs_span){ buffer, want, from });
	int rc = p9_vfs_close(demo.vfs, fd);
	if (n < 0 || rc < 0) {
		return n < 0 ? (int)n : rc;
	}
	mo.verified += due;
	return n != due ? wrong("bytes read") : memcmp(buffer, f->data + from, due) ? wrong("content") : 0;
}

/* Writes somewhere, also behind the end: then zeros lie between. */
static int op_write(unsigned i)
{
	char path[PATH];
	struct model_file *f = &mo.file[i];
	file_path(path, i);
	uint32_t from = any(FILE_MOST / 2), n = any(FILE_MOST / 2) + 1, value = any(1 << 30);
	for (uint32_t k = 0; k < n; k++) {
		buffer[k] = (uint8_t)(value * 2654435761u >> (k % 24) ^ k);
	}
	int fd = p9_vfs_open(demo.vfs, path, P9_O_WRONLY | P9_O_CREAT, 0644);
	if (fd < 0) {
		return fd;
	}
	int64_t k = p9_vfs_pwrite(demo.vfs, fd, &(struct p9_vfs_span){ buffer, n, from });
	int rc = p9_vfs_close(demo.vfs, fd);
	if (k < 0 || rc < 0) {
		return k < 0 ? (int)k : rc;
	}
	if (!f->there) {
		f->size = 0;
	}
	f->there = true;
	if (from > f->size) {
		memset(f->data + f->size, 0, from - f->size);
	}
	memcpy(f->data + from, buffer, n);
	f->size = from + n > f->size ? from + n : f->size;
	return k == n ? 0 : wrong("bytes written");
}

static int op_truncate(unsigned i)
{
	char path[PATH];
	struct model_file *f = &mo.file[i];
	uint32_t size = any(FILE_MOST);
	file_path(path, i);
	int rc = p9_vfs_truncate(demo.vfs, path, size);
	if (!f->there) {
		return rc == -P9_ENOENT ? 0 : wrong("a file that was removed can be cut");
	}
	if (rc == 0 && size > f->size) {
		memset(f->data + f->size, 0, size - f->size);
	}
	f->size = rc == 0 ? size : f->size;
	return rc;
}

static int op_create(unsigned i)
{
	char path[PATH];
	file_path(path, i);
	int fd = p9_vfs_open(demo.vfs, path, P9_O_RDWR | P9_O_CREAT | P9_O_EXCL, 0600);
	if (mo.file[i].there) {
		return fd == -P9_EEXIST ? 0 : wrong("a file was made twice");
	}
	if (fd < 0) {
		return fd;
	}
	mo.file[i].there = true;
	mo.file[i].size = 0;
	return p9_vfs_close(demo.vfs, fd);
}

static int op_remove(unsigned i)
{
	char path[PATH];
	file_path(path, i);
	int rc = p9_vfs_remove(demo.vfs, path);
	if (!mo.file[i].there) {
		return rc == -P9_ENOENT ? 0 : wrong("a file was removed twice");
	}
	mo.file[i].there = false;
	return rc;
}

static int op_rename(unsigned i)
{
	char from[PATH], to[PATH];
	file_path(from, i);
	mo.file[i].name ^= 1;
	file_path(to, i);
	int rc = p9_vfs_rename(demo.vfs, from, to);
	if (!mo.file[i].there) {
		return rc == -P9_ENOENT ? 0 : wrong("a file that was removed can be renamed");
	}
	return rc;
}

static int see(void *arg, const struct p9_entry *e)
{
	const char *s = e->name.s;
	if (e->name.len != 3) {
		return wrong("an entry that nobody made");
	}
	unsigned i = (unsigned)(s[1] - '0') * 10 + (unsigned)(s[2] - '0');
	if ((s[0] == 'l' && mo.link) || (s[0] == 'd' && mo.sub)) {
		mo.seen++;
		return 0;
	}
	if ((s[0] != 'f' && s[0] != 'g') || i >= FILES || !mo.file[i].there || (s[0] == 'g') != mo.file[i].name) {
		return wrong("an entry of a file that was removed or renamed");
	}
	mo.seen++;
	return !*(bool *)arg || (e->st && e->st->size == mo.file[i].size) ? 0 : wrong("an entry's size");
}

static int op_list(unsigned i)
{
	bool sizes = i % 4 == 0;
	unsigned due = mo.link + mo.sub;
	for (unsigned k = 0; k < FILES; k++) {
		due += mo.file[k].there;
	}
	mo.seen = 0;
	int rc = p9_vfs_list(demo.vfs, mo.dir, &(struct p9_lister){ .each = see, .arg = &sizes, .sizes = sizes });
	return rc < 0 ? rc : mo.seen == due ? 0 : wrong("entries listed");
}

static void link_text(char *text)
{
	static const char start[] = "target-";
	memcpy(text, start, sizeof(start) - 1);
	for (unsigned i = 0; i < 4; i++) {
		text[sizeof(start) - 1 + i] = (char)('a' + (mo.link_target >> (4 * i) & 15));
	}
	text[sizeof(start) + 3] = 0;
}

/* Made, read, removed in turn. */
static int op_symlink(unsigned i)
{
	char path[PATH], text[32], got[32];
	path_of(path, "l", 0);
	if (!mo.link) {
		mo.link_target = any(1 << 16);
		link_text(text);
		mo.link = true;
		return p9_vfs_symlink(demo.vfs, text, path);
	}
	if (i % 3 == 0) {
		mo.link = false;
		return p9_vfs_unlink(demo.vfs, path);
	}
	link_text(text);
	int rc = p9_vfs_readlink(demo.vfs, path, got, sizeof(got));
	mo.verified += rc < 0 ? 0 : (uint64_t)rc;
	return rc < 0 ? rc : demo_same(got, text) ? 0 : wrong("a link's text");
}

static int op_directory(unsigned i)
{
	char path[PATH];
	path_of(path, "d", 0);
	mo.sub = !mo.sub;
	return mo.sub ? p9_vfs_mkdir(demo.vfs, path, 0755) : p9_vfs_rmdir(demo.vfs, path);
}

struct op {
	const char *name;
	unsigned weight;
	int (*run)(unsigned i);
	uint64_t count;
};
static struct op ops[] = {
	{ "stat", 24, op_stat },
	{ "read", 24, op_read },
	{ "write", 18, op_write },
	{ "create", 6, op_create },
	{ "remove", 6, op_remove },
	{ "rename", 6, op_rename },
	{ "truncate", 4, op_truncate },
	{ "list", 3, op_list },
	{ "symlink and readlink", 6, op_symlink },
	{ "mkdir and rmdir", 3, op_directory },
};
enum { OPS = sizeof(ops) / sizeof(ops[0]), WEIGHTS = 100 };

static int one(void)
{
	uint32_t w = any(WEIGHTS), i = any(FILES);
	struct op *o = ops;
	while (w >= o->weight) {
		w -= o->weight;
		o++;
	}
	o->count++;
	mo.op = o->name;
	return o->run(i);
}

/* ---- what is held ---- */

struct held {
	uint32_t fids, tags, slots, places;
	uint64_t memory;
};

static int hold(const struct demo_share *s, struct held *h)
{
	int rc = p9_session_drain(s->session);
	struct p9_engine *e = p9_session_engine(s->session);
	*h = (struct held){ p9_session_fids(s->session), p9_engine_pending(e),
			    s->dev.conf.slots - s->dev.nfree - (s->dev.held >= 0), s->dev.ring_size - s->dev.ring.nfree,
			    demo_machine_used() };
	return rc;
}

static bool same_held(const struct held *a, const struct held *b)
{
	demo_print(
		"selftest: fids %u -> %u, tags in flight %u -> %u, slots %u -> %u, ring places %u -> %u, memory %lu -> %lu\n",
		a->fids, b->fids, a->tags, b->tags, a->slots, b->slots, a->places, b->places, a->memory, b->memory);
	return a->fids == b->fids && a->tags == b->tags && a->slots == b->slots && a->places == b->places &&
	       a->memory == b->memory;
}

/* ---- the run ---- */

/* Removes what is left, and the directory. */
static int clean(void)
{
	char path[PATH];
	int rc = 0;
	for (unsigned i = 0; i < FILES && rc == 0; i++) {
		file_path(path, i);
		rc = mo.file[i].there ? p9_vfs_remove(demo.vfs, path) : 0;
	}
	path_of(path, "l", 0);
	rc = rc == 0 && mo.link ? p9_vfs_unlink(demo.vfs, path) : rc;
	path_of(path, "d", 0);
	rc = rc == 0 && mo.sub ? p9_vfs_rmdir(demo.vfs, path) : rc;
	return rc == 0 ? p9_vfs_rmdir(demo.vfs, mo.dir) : rc;
}

static int run(uint64_t count)
{
	for (uint64_t i = 1; i <= count; i++) {
		int rc = one();
		if (rc < 0) {
			demo_print("p9: selftest: operation %lu, %s: %s: %s (%s)\n", i, mo.op,
				   mo.why ? mo.why : "the share says", p9_error_text((uint32_t)-rc),
				   p9_error_name((uint32_t)-rc));
			return rc;
		}
		if (i % (count / REPORTS + 1) == 0) {
			demo_print("selftest: %lu of %lu\n", i, count);
		}
	}
	return 0;
}

static void begin(const char *dir)
{
	mo.random = p9_platform_clock() | 1;
	char name[] = "/p9-selftest-00000000";
	for (unsigned i = 0; i < 8; i++) {
		name[13 + i] = (char)('a' + any(26));
	}
	uint64_t seed = mo.random;
	memset(&mo, 0, sizeof(mo));
	mo.random = seed;
	demo_join(mo.dir, PATH - 8, dir, name);
	for (unsigned i = 0; i < OPS; i++) {
		ops[i].count = 0;
	}
	demo_print("selftest: in %s, seed 0x%lx\n", mo.dir, seed);
}

int demo_selftest(unsigned n, char **words)
{
	uint64_t count = DEFAULT_COUNT;
	struct held before, after;
	unsigned at = 1;
	at += n > 1 && demo_number(words[1], &count, NULL);
	const char *dir = n > at ? words[at] : "/host";
	const struct demo_share *s = demo_share_of(dir);
	begin(dir);
	int rc = p9_vfs_mkdir(demo.vfs, mo.dir, 0755);
	if (rc < 0) {
		return demo_complain("selftest", mo.dir, rc);
	}
	rc = hold(s, &before);
	uint64_t start = p9_platform_clock();
	rc = rc < 0 ? rc : run(count);
	uint64_t ms = (p9_platform_clock() - start) / 1000000 + 1;
	if (rc < 0) {
		return DEMO_FAILED;
	}
	rc = hold(s, &after);
	bool same = rc == 0 && same_held(&before, &after);
	rc = rc < 0 ? rc : clean();
	for (unsigned i = 0; i < OPS; i++) {
		demo_print("%s%s %lu", i ? ", " : "selftest: ", ops[i].name, ops[i].count);
	}
	demo_print("\n");
	if (rc < 0) {
		return demo_complain("selftest", mo.dir, rc);
	}
	demo_print("selftest: %lu operations in %lu.%03lu s, %lu/s, %lu bytes compared: %s\n", count, ms / 1000,
		   ms % 1000, count * 1000 / ms, mo.verified, same ? "ok" : "something grew");
	return same ? DEMO_OK : DEMO_FAILED;
}
