/* SPDX-License-Identifier: BSD-2-Clause */
/* commands.c - ls, cat, stat and the others: each a few calls of the mount table.
 *
 * A command goes on to its next file after an error, as p9 does, and its status says that there was one.
 */
#include <string.h>
#include "guest/demo/demo.h"

enum { CHUNK = 256 * 1024, FILE_MODE = 0644, DIR_MODE = 0755, SHOWN = 1500, DT_DIR = 4 };

static uint8_t chunk[CHUNK];

int demo_complain(const char *cmd, const char *what, int64_t rc)
{
	uint32_t e = (uint32_t)-rc;
	const struct demo_share *s = demo_share_of(what);
	if (s->session && s->at[0] && p9_session_dead(s->session)) {
		/* the device's own reason, where it has one, says more than that the session has lost it */
		uint32_t lost = (uint32_t)-p9_session_dead(s->session);
		demo_print("p9: %s: %s: %s (%s)\n", cmd, s->dev.why ? s->dev.name : s->at,
			   s->dev.why ? s->dev.why : p9_session_error(s->session), p9_error_name(lost));
		return DEMO_FAILED;
	}
	demo_print("p9: %s: ", cmd);
	demo_print_name(what, demo_len(what) < SHOWN ? demo_len(what) : SHOWN);
	demo_print(": %s (%s)\n", p9_error_text(e), p9_error_name(e));
	return DEMO_FAILED;
}

/* ---- looking ---- */

static char type_letter(uint32_t mode)
{
	switch (mode >> 12) {
	case 4:
		return 'd';
	case 10:
		return 'l';
	case 2:
		return 'c';
	case 6:
		return 'b';
	case 1:
		return 'p';
	case 12:
		return 's';
	default:
		return '-';
	}
}

static void print_mode(uint32_t mode)
{
	demo_print("%c", type_letter(mode));
	for (int i = 8; i >= 0; i--) {
		demo_print("%c", mode >> i & 1 ? "xwr"[i % 3] : '-');
	}
}

static void print_long(const char *name, size_t n, const struct p9_rgetattr *st)
{
	print_mode(st->mode);
	demo_print(" %3lu %5u %5u %10lu ", st->nlink, st->uid, st->gid, st->size);
	demo_print_name(name, n);
	demo_print("\n");
}

static int show_entry(void *arg, const struct p9_entry *e)
{
	if (*(bool *)arg && e->st) {
		print_long(e->name.s, e->name.len, e->st);
	} else {
		demo_print_name(e->name.s, e->name.len);
		/* QEMU leaves the qid's type out of listings */
		demo_print((e->qid.type & P9_QTDIR) || e->type == DT_DIR ? "/\n" : "\n");
	}
	return 0;
}

static int list(const char *path, bool detail)
{
	struct p9_rgetattr st;
	int rc = p9_vfs_stat(demo.vfs, path, &st);
	if (rc == 0 && st.mode >> 12 == 4) {
		struct p9_lister l = { .each = show_entry, .arg = &detail, .sizes = detail };
		rc = p9_vfs_list(demo.vfs, path, &l);
	} else if (rc == 0 && detail) {
		print_long(path, demo_len(path), &st);
	} else if (rc == 0) {
		demo_print_name(path, demo_len(path));
		demo_print("\n");
	}
	return rc < 0 ? demo_complain("ls", path, rc) : DEMO_OK;
}

static int cmd_ls(unsigned n, char **words)
{
	unsigned first = n > 1 && demo_same(words[1], "-l") ? 2 : 1;
	int worst = first == n ? list("/", first == 2) : DEMO_OK;
	for (unsigned i = first; i < n; i++) {
		worst |= list(words[i], first == 2);
	}
	return worst;
}

static int cat(const char *path, bool sum)
{
	uint64_t total = 0;
	uint32_t crc = UINT32_MAX;
	int64_t k = 0;
	int fd = p9_vfs_open(demo.vfs, path, P9_O_RDONLY, 0);
	while (fd >= 0 && (k = p9_vfs_read(demo.vfs, fd, chunk, CHUNK)) > 0) {
		for (int64_t i = 0; sum && i < k; i++) {
			crc ^= chunk[i];
			for (int b = 0; b < 8; b++) {
				crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
			}
		}
		if (!sum) {
			demo_put((const char *)chunk, (size_t)k);
		}
		total += (uint64_t)k;
	}
	if (fd >= 0) {
		int rc = p9_vfs_close(demo.vfs, fd);
		k = k < 0 ? k : rc;
	}
	if (fd < 0 || k < 0) {
		return demo_complain(sum ? "sum" : "cat", path, fd < 0 ? fd : k);
	}
	if (sum) {
		demo_print("%08x %lu %s\n", ~crc, total, path);
	}
	return DEMO_OK;
}

static int cmd_cat(unsigned n, char **words)
{
	int worst = DEMO_OK;
	for (unsigned i = 1; i < n; i++) {
		worst |= cat(words[i], demo_same(words[0], "sum"));
	}
	return worst;
}

static int stat(const char *path)
{
	struct p9_rgetattr st;
	char target[4096];
	int rc = p9_vfs_lstat(demo.vfs, path, &st);
	if (rc < 0) {
		return demo_complain("stat", path, rc);
	}
	demo_print_name(path, demo_len(path));
	if (st.mode >> 12 == 10) {
		rc = p9_vfs_readlink(demo.vfs, path, target, sizeof(target));
		if (rc < 0) {
			demo_print("\n");
			return demo_complain("stat", path, rc);
		}
		demo_print(" -> ");
		demo_print_name(target, demo_len(target));
	}
	demo_print("\n  mode ");
	print_mode(st.mode);
	demo_print(" (%04o), links %lu, uid %u, gid %u, size %lu, blocks %lu\n", st.mode & 07777, st.nlink, st.uid,
		   st.gid, st.size, st.blocks);
	demo_print("  inode %lu, modified %lu.%09lu\n", st.qid.path, st.mtime_sec, st.mtime_nsec);
	return DEMO_OK;
}

static int cmd_stat(unsigned n, char **words)
{
	int worst = DEMO_OK;
	for (unsigned i = 1; i < n; i++) {
		worst |= stat(words[i]);
	}
	return worst;
}

static int cmd_df(unsigned n, char **words)
{
	struct p9_session *s;
	const char *path;
	int worst = DEMO_OK;
	demo_print("   1K-blocks         used    available  mounted on\n");
	for (unsigned i = 0; (path = p9_vfs_mounted(demo.vfs, i, &s)); i++) {
		struct p9_rstatfs st;
		int rc = p9_vfs_statfs(demo.vfs, path, &st);
		if (rc < 0) {
			worst = demo_complain("df", path, rc);
			continue;
		}
		uint64_t unit = st.bsize >= 1024 ? st.bsize / 1024 : 1;
		demo_print("%12lu %12lu %12lu  %s\n", st.blocks * unit, (st.blocks - st.bfree) * unit, st.bavail * unit,
			   path);
	}
	return worst;
}

static int cmd_devices(unsigned n, char **words)
{
	for (unsigned i = 0; i < demo.nshares; i++) {
		const struct demo_share *s = &demo.share[i];
		const struct p9_guest_dev *d = &s->dev;
		demo_print("%s: %s, tag ", d->name, d->features & P9_VIRTIO_F_VERSION_1 ? "virtio 1" : "legacy");
		demo_print_name(d->tag, demo_len(d->tag));
		demo_print(", at %s, ring %u, features 0x%lx, irq %u %s, interrupts %u, msize %u\n",
			   s->at[0] ? s->at : "-", d->ring_size, d->features, d->irq,
			   d->conf.interrupts ? "used" : "not used", d->interrupts,
			   s->session ? p9_session_msize(s->session) : 0);
	}
	return DEMO_OK;
}

/* ---- changing ---- */

static int cmd_write(unsigned n, char **words)
{
	size_t len = 0;
	for (unsigned i = 2; i < n; i++) {
		size_t k = demo_len(words[i]);
		memcpy(chunk + len, words[i], k); /* a line is shorter than chunk */
		len += k;
		chunk[len++] = i + 1 < n ? ' ' : '\n';
	}
	int rc = demo_same(words[0], "append") ? p9_vfs_append(demo.vfs, words[1], chunk, len, FILE_MODE)
					       : p9_vfs_write_file(demo.vfs, words[1], chunk, len, FILE_MODE);
	return rc < 0 ? demo_complain(words[0], words[1], rc) : DEMO_OK;
}

static int cmd_each(unsigned n, char **words)
{
	int worst = DEMO_OK;
	for (unsigned i = 1; i < n; i++) {
		int rc = demo_same(words[0], "mkdir") ? p9_vfs_mkdir(demo.vfs, words[i], DIR_MODE)
						      : p9_vfs_remove(demo.vfs, words[i]);
		worst |= rc < 0 ? demo_complain(words[0], words[i], rc) : DEMO_OK;
	}
	return worst;
}

static int cmd_mv(unsigned n, char **words)
{
	int rc = p9_vfs_rename(demo.vfs, words[1], words[2]);
	return rc < 0 ? demo_complain("mv", words[1], rc) : DEMO_OK;
}

static int cmd_ln(unsigned n, char **words)
{
	bool soft = demo_same(words[1], "-s");
	if (n != (soft ? 4u : 3u)) {
		demo_print("p9: ln: usage: ln [-s] TARGET PATH\n");
		return DEMO_USAGE;
	}
	int rc = soft ? p9_vfs_symlink(demo.vfs, words[2], words[3]) : p9_vfs_link(demo.vfs, words[1], words[2]);
	return rc < 0 ? demo_complain("ln", words[n - 1], rc) : DEMO_OK;
}

static int cmd_cp(unsigned n, char **words)
{
	int64_t k = 0, put = 0;
	int from = p9_vfs_open(demo.vfs, words[1], P9_O_RDONLY, 0);
	if (from < 0) {
		return demo_complain("cp", words[1], from);
	}
	int to = p9_vfs_open(demo.vfs, words[2], P9_O_WRONLY | P9_O_CREAT | P9_O_TRUNC, FILE_MODE);
	while (to >= 0 && put >= 0 && (k = p9_vfs_read(demo.vfs, from, chunk, CHUNK)) > 0) {
		put = p9_vfs_write(demo.vfs, to, chunk, (size_t)k);
		put = put >= 0 && put < k ? -P9_ENOSPC : put;
	}
	int rc = p9_vfs_close(demo.vfs, from);
	k = k < 0 ? k : rc;
	rc = to < 0 ? to : p9_vfs_close(demo.vfs, to);
	put = put < 0 ? put : rc;
	return k < 0 ? demo_complain("cp", words[1], k) : put < 0 ? demo_complain("cp", words[2], put) : DEMO_OK;
}

/* Device and session begin anew, in the memory that they had. */
static int remount(struct demo_share *s, const char *at)
{
	int rc = p9_vfs_unmount(demo.vfs, at);
	if (rc < 0) {
		return rc;
	}
	p9_guest_stop(&s->dev);
	rc = demo_share_start(s);
	return rc < 0 ? rc : p9_vfs_mount(demo.vfs, at, s->session);
}

static int cmd_remount(unsigned n, char **words)
{
	struct demo_share *s = demo_share_of(words[1]);
	struct p9_session *root;
	const char *at;
	if (!demo_same(s->at, words[1])) {
		return demo_complain("remount", words[1], -P9_EINVAL);
	}
	size_t before = demo_machine_used();
	/* The share that is / as well leaves there first. */
	bool twice = false;
	for (unsigned i = 0; (at = p9_vfs_mounted(demo.vfs, i, &root)); i++) {
		twice |= root == s->session && demo_same(at, "/") && !demo_same(s->at, "/");
	}
	int rc = twice ? p9_vfs_unmount(demo.vfs, "/") : 0;
	rc = rc < 0 ? rc : remount(s, s->at);
	rc = rc == 0 && twice ? p9_vfs_mount(demo.vfs, "/", s->session) : rc;
	if (rc < 0) {
		return demo_complain("remount", words[1], rc);
	}
	demo_print("remount: %s: %lu bytes more memory\n", s->at, (uint64_t)(demo_machine_used() - before));
	return DEMO_OK;
}

static int cmd_exit(unsigned n, char **words)
{
	uint64_t status = 0;
	if (n > 1 && !demo_number(words[1], &status, NULL)) {
		return demo_complain("exit", words[1], -P9_EINVAL);
	}
	demo_machine_exit((enum demo_status)status);
}

/* ---- the table ---- */

static int cmd_help(unsigned n, char **words);

struct command {
	const char *name, *arguments, *what;
	int (*run)(unsigned n, char **words);
	unsigned least, most; /* words, the name included */
};
static const struct command commands[] = {
	{ "ls", "[-l] [PATH...]", "list directories", cmd_ls, 1, DEMO_WORDS },
	{ "cat", "PATH...", "print files", cmd_cat, 2, DEMO_WORDS },
	{ "sum", "PATH...", "CRC-32 and length of files", cmd_cat, 2, DEMO_WORDS },
	{ "stat", "PATH...", "attributes, links not followed", cmd_stat, 2, DEMO_WORDS },
	{ "write", "PATH [WORD...]", "make or replace a file with one line", cmd_write, 2, DEMO_WORDS },
	{ "append", "PATH WORD...", "add a line to a file", cmd_write, 3, DEMO_WORDS },
	{ "cp", "FROM TO", "copy a file", cmd_cp, 3, 3 },
	{ "mkdir", "PATH...", "make directories", cmd_each, 2, DEMO_WORDS },
	{ "rm", "PATH...", "remove files and empty directories", cmd_each, 2, DEMO_WORDS },
	{ "mv", "FROM TO", "rename", cmd_mv, 3, 3 },
	{ "ln", "[-s] TARGET PATH", "make a link", cmd_ln, 3, 4 },
	{ "df", "", "space of each mount", cmd_df, 1, 1 },
	{ "devices", "", "what was found", cmd_devices, 1, 1 },
	{ "remount", "MOUNT", "reset the device and begin a new session", cmd_remount, 2, 2 },
	{ "selftest", "[N] [DIR]", "N mixed operations (1000000), verified", demo_selftest, 1, 3 },
	{ "bench", "[DIR]", "operations and megabytes per second", demo_bench, 1, 2 },
	{ "exit", "[STATUS]", "leave", cmd_exit, 1, 2 },
	{ "help", "", "this", cmd_help, 1, 1 },
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static int cmd_help(unsigned n, char **words)
{
	for (unsigned i = 0; i < COMMANDS; i++) {
		demo_print("%-9s%-18s%s\n", commands[i].name, commands[i].arguments, commands[i].what);
	}
	return DEMO_OK;
}

int demo_command(unsigned n, char **words)
{
	for (unsigned i = 0; i < COMMANDS; i++) {
		const struct command *c = &commands[i];
		if (!demo_same(words[0], c->name)) {
			continue;
		}
		if (n < c->least || n > c->most) {
			demo_print("p9: %s: usage: %s %s\n", c->name, c->name, c->arguments);
			return DEMO_USAGE;
		}
		return c->run(n, words);
	}
	demo_print("p9: ");
	demo_print_name(words[0], demo_len(words[0]));
	demo_print(": no such command; \"help\" lists them\n");
	return DEMO_USAGE;
}
