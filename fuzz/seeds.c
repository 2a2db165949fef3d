/* SPDX-License-Identifier: BSD-2-Clause */
/* seeds.c - prints the seeds of the fuzz targets from proto/: seeds DIR writes DIR/TARGET/NAME.
 *
 * Every message once for the decoders, and for fz_server sessions that get far: fields come from the pools of gen.c,
 * but fids and names of a session fit together.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "gen.h"

static const char *dir;
static uint8_t buf[128 * 1024];
static size_t used;

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max)
{
	(void)data;
	(void)max;
	return size;
}

static void save(const char *target, const char *name)
{
	char path[600];
	snprintf(path, sizeof(path), "%s/%s", dir, target);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/%s/%s", dir, target, name);
	FILE *f = fopen(path, "wb");
	if (!f || fwrite(buf, 1, used, f) != used || fclose(f) != 0) {
		perror(path);
		exit(1);
	}
	used = 0;
}

static void put(const struct p9_msg *m)
{
	used += fz_put(buf + used, sizeof(buf) - used, m);
}

static void decoders(void)
{
	uint64_t rng = 9;
	for (unsigned t = 0; t < 128; t++) {
		const struct p9_desc *d = p9_wire_desc(t);
		struct p9_msg m;
		if (!d) {
			continue;
		}
		do {
			fz_message_of(&rng, (uint8_t)t, &m);
		} while (p9_wire_size(&m) > 400 || (p9_wire_check(&m) < 0));
		put(&m);
		if (d->name[0] == 'T') {
			save("fz_tframe", d->name);
		} else {
			used = 0;
		}
		put(&m);
		save("fz_print", d->name);
	}
}

/* For the engine: eight bytes that choose requests, Rversion, then a reply to each in turn, right or not. */
static void replies(void)
{
	uint64_t rng = 5;
	for (unsigned k = 0; k < 16; k++) {
		char name[16];
		struct p9_msg m = { .type = P9_Rversion, .tag = P9_NOTAG, .rversion = { 32768, { "9P2000.L", 8 } } };
		for (unsigned i = 0; i < 8; i++) {
			buf[used++] = (uint8_t)(k * 8 + i);
		}
		put(&m);
		for (unsigned i = 0; i < 8; i++) {
			fz_message(&rng, FZ_R, &m);
			m.tag = (uint16_t)i;
			if (p9_wire_size(&m) < 400) {
				put(&m);
			}
		}
		snprintf(name, sizeof(name), "replies%u", k);
		save("fz_rframe", name);
	}
}

/* ---- sessions; the options are fz_server.c's ---- */
enum { SPLIT = 1, COPY = 2, PATIENT = 8, TWO = 32, SLOW = 64 };
#define S(t) ((struct p9_str){ t, sizeof(t) - 1 })
static uint16_t tag;
#define SEND(ty, lo, ...)                                                          \
	do {                                                                       \
		struct p9_msg m = { .type = P9_##ty, .tag = tag, .lo = { __VA_ARGS__ } }; \
		tag++;                                                             \
		put(&m);                                                           \
	} while (0)

static void hello(uint8_t options)
{
	buf[used++] = options;
	tag = P9_NOTAG;
	SEND(Tversion, tversion, .msize = 65536, .version = S("9P2000.L"));
	SEND(Tattach, tattach, .fid = 0, .afid = P9_NOFID, .uname = S("root"), .aname = S("main"), .n_uname = 0);
}

static void walk(uint32_t fid, uint32_t newfid, struct p9_str name)
{
	struct p9_msg m = { .type = P9_Twalk, .tag = tag++ };
	m.twalk.fid = fid;
	m.twalk.newfid = newfid;
	m.twalk.wname.n = name.len ? 1 : 0;
	m.twalk.wname.v[0] = name;
	put(&m);
}

static void cancel(uint16_t oldtag)
{
	SEND(Tflush, tflush, .oldtag = oldtag);
}

static void session_files(uint8_t options, const char *name)
{
	static const uint8_t data[] = "some bytes";
	hello(options);
	walk(0, 1, S("big"));
	SEND(Tlopen, tlopen, .fid = 1, .flags = P9_O_RDWR);
	SEND(Tread, tread, .fid = 1, .offset = 0, .count = 20000);
	SEND(Twrite, twrite, .fid = 1, .offset = 5, .data = { sizeof(data), data });
	SEND(Tfsync, tfsync, .fid = 1);
	SEND(Tgetattr, tgetattr, .fid = 1, .request_mask = P9_GETATTR_ALL);
	SEND(Tsetattr, tsetattr, .fid = 1, .valid = P9_SETATTR_SIZE | P9_SETATTR_MODE, .mode = 0600, .size = 3);
	SEND(Tread, tread, .fid = 1, .offset = 0, .count = 100);
	SEND(Tclunk, tclunk, .fid = 1);
	walk(0, 2, S(""));
	SEND(Tlcreate, tlcreate, .fid = 2, .name = S("n1"), .flags = P9_O_RDWR | P9_O_TRUNC, .mode = 0644, .gid = 0);
	SEND(Twrite, twrite, .fid = 2, .offset = 0, .data = { sizeof(data), data });
	walk(2, 3, S(""));
	SEND(Tremove, tremove, .fid = 3);
	SEND(Tread, tread, .fid = 2, .offset = 0, .count = 100);
	SEND(Tclunk, tclunk, .fid = 2);
	SEND(Tstatfs, tstatfs, .fid = 0);
	save("fz_server", name);
}

static void session_tree(void)
{
	hello(PATIENT);
	SEND(Tmkdir, tmkdir, .dfid = 0, .name = S("n1"), .mode = 0755, .gid = 0);
	SEND(Tsymlink, tsymlink, .fid = 0, .name = S("n2"), .symtgt = S("d/sub"), .gid = 0);
	SEND(Tmknod, tmknod, .dfid = 0, .name = S("n3"), .mode = 010644, .gid = 0);
	walk(0, 1, S("n2"));
	SEND(Treadlink, treadlink, .fid = 1);
	walk(0, 2, S("f"));
	walk(0, 3, S("d"));
	SEND(Tlink, tlink, .dfid = 3, .fid = 2, .name = S("n1"));
	SEND(Trename, trename, .fid = 2, .dfid = 3, .name = S("n2"));
	SEND(Trenameat, trenameat, .olddirfid = 3, .oldname = S("n2"), .newdirfid = 0, .newname = S("f"));
	SEND(Tunlinkat, tunlinkat, .dirfid = 3, .name = S("n1"), .flags = 0);
	SEND(Tunlinkat, tunlinkat, .dirfid = 0, .name = S("n1"), .flags = P9_DOTL_AT_REMOVEDIR);
	walk(3, 4, S(".."));
	SEND(Tlopen, tlopen, .fid = 4, .flags = P9_O_RDONLY);
	SEND(Treaddir, treaddir, .fid = 4, .offset = 0, .count = 8000);
	SEND(Treaddir, treaddir, .fid = 4, .offset = 0, .count = 100);
	save("fz_server", "tree");
}

static void session_xattr(void)
{
	static const uint8_t value[] = "val";
	hello(PATIENT | SLOW);
	walk(0, 1, S("f"));
	walk(1, 2, S(""));
	SEND(Txattrcreate, txattrcreate, .fid = 2, .name = S("user.a"), .attr_size = 3, .flags = 0);
	SEND(Twrite, twrite, .fid = 2, .offset = 0, .data = { 3, value });
	SEND(Tclunk, tclunk, .fid = 2);
	SEND(Txattrwalk, txattrwalk, .fid = 1, .newfid = 3, .name = S("user.a"));
	SEND(Tread, tread, .fid = 3, .offset = 0, .count = 100);
	SEND(Txattrwalk, txattrwalk, .fid = 1, .newfid = 4, .name = S(""));
	SEND(Tread, tread, .fid = 4, .offset = 0, .count = 100);
	walk(1, 5, S(""));
	SEND(Txattrcreate, txattrcreate, .fid = 5, .name = S("user.a"), .attr_size = 0, .flags = P9_XATTR_REPLACE);
	SEND(Tclunk, tclunk, .fid = 5);
	save("fz_server", "xattr");
}

static void session_locks(void)
{
	hello(PATIENT);
	for (uint32_t fid = 1; fid <= 2; fid++) {
		walk(0, fid, S("f"));
		SEND(Tlopen, tlopen, .fid = fid, .flags = P9_O_RDWR);
	}
	SEND(Tlock, tlock, .fid = 1, .type = 1, .flags = 0, .start = 0, .length = 10, .proc_id = 1,
	     .client_id = S("a"));
	SEND(Tgetlock, tgetlock, .fid = 2, .type = 1, .start = 0, .length = 0, .proc_id = 2, .client_id = S("b"));
	uint16_t waits = tag;
	SEND(Tlock, tlock, .fid = 2, .type = 1, .flags = 1, .start = 5, .length = 10, .proc_id = 2,
	     .client_id = S("b"));
	SEND(Tflush, tflush, .oldtag = waits);
	SEND(Tlock, tlock, .fid = 2, .type = 1, .flags = 1, .start = 5, .length = 10, .proc_id = 2,
	     .client_id = S("b"));
	SEND(Tlock, tlock, .fid = 1, .type = 2, .flags = 0, .start = 0, .length = 7, .proc_id = 1, .client_id = S("a"));
	SEND(Tlock, tlock, .fid = 2, .type = 0, .flags = 1, .start = 0, .length = 8, .proc_id = 2, .client_id = S("b"));
	SEND(Tclunk, tclunk, .fid = 1);
	SEND(Tclunk, tclunk, .fid = 2);
	save("fz_server", "locks");
}

static void session_again(void)
{
	hello(SLOW);
	walk(0, 1, S("d"));
	walk(1, 2, S("sub"));
	tag = P9_NOTAG;
	SEND(Tversion, tversion, .msize = 8192, .version = S("9P2000.L"));
	SEND(Tgetattr, tgetattr, .fid = 0, .request_mask = P9_GETATTR_BASIC);
	SEND(Tattach, tattach, .fid = 0, .afid = P9_NOFID, .uname = S(""), .aname = S("main/d/sub"), .n_uname = ~0u);
	SEND(Tflush, tflush, .oldtag = 1);
	SEND(Tauth, tauth, .afid = 1, .uname = S(""), .aname = S(""), .n_uname = 0);
	save("fz_server", "again");
}

/* Much at once on one fid, cancelled, clunked and asked for again while it sleeps. */
static void session_flush(uint8_t options, const char *name)
{
	hello(options);
	walk(0, 1, S("f"));
	SEND(Tlopen, tlopen, .fid = 1, .flags = P9_O_RDWR);
	for (unsigned i = 0; i < 3; i++) {
		SEND(Tgetattr, tgetattr, .fid = 1, .request_mask = P9_GETATTR_BASIC);
		SEND(Twrite, twrite, .fid = 1, .offset = i, .data = { 1, (const uint8_t *)"w" });
		cancel((uint16_t)(tag - 1));
		cancel((uint16_t)(tag - 2));
		SEND(Tread, tread, .fid = 1, .offset = 0, .count = 10);
		walk(0, 2, S("d"));
		walk(0, 2, S("big"));
	}
	SEND(Tclunk, tclunk, .fid = 1);
	SEND(Tgetattr, tgetattr, .fid = 1, .request_mask = P9_GETATTR_BASIC);
	SEND(Tclunk, tclunk, .fid = 1);
	walk(0, 1, S("d"));
	cancel((uint16_t)(tag - 1));
	save("fz_server", name);
}

/* The directory of exports, and one of them through it. */
static void session_exports(void)
{
	hello(PATIENT);
	SEND(Tattach, tattach, .fid = 1, .afid = P9_NOFID, .uname = S(""), .aname = S(""), .n_uname = 0);
	walk(1, 2, S("ro"));
	SEND(Tmkdir, tmkdir, .dfid = 2, .name = S("n1"), .mode = 0755, .gid = 0);
	walk(1, 3, S(""));
	SEND(Tlopen, tlopen, .fid = 3, .flags = P9_O_RDONLY);
	SEND(Treaddir, treaddir, .fid = 3, .offset = 0, .count = 4000);
	SEND(Tgetattr, tgetattr, .fid = 1, .request_mask = P9_GETATTR_ALL);
	SEND(Tstatfs, tstatfs, .fid = 1);
	walk(2, 4, S(".."));
	SEND(Tremove, tremove, .fid = 4);
	save("fz_server", "exports");
}

static void texts(void)
{
	static const char *const v[] = {
		"-l\nunix:/run/s\n-e\nname=/srv,ro,squash=none\n",
		"/srv\n",
		"--msize=8192\n--identity\nsingle\n/srv\n",
		"-ltcp:[::1]:564\n-c\n@\nexport a=/a,checks=server,dev\nlisten = fd:0,1\nmsize 65536\n# text\nlog debug\n",
		"--socket-mode\n0660\n--loops=2\n--lock-wait\n5\n-e/x,xattr=all,nosub\n--trace\n",
		"tcp:localhost:1\nstdio\nfd:3\n",
	};
	for (unsigned i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		char name[16];
		snprintf(name, sizeof(name), "text%u", i);
		used = strlen(v[i]);
		memcpy(buf, v[i], used);
		save("fz_conf", name);
	}
}

/* For the device: an honest start, then a session whose messages are cut and placed in every way; how fz_vhost.c has it. */
static void vhost_step(uint8_t what, uint8_t arg)
{
	buf[used++] = what;
	buf[used++] = arg;
}

static void vhost_chain(uint8_t how, const struct p9_msg *m)
{
	vhost_step(2, how);
	size_t at = used;
	used += 2;
	put(m);
	buf[at] = (uint8_t)(used - at - 2);
	buf[at + 1] = (uint8_t)((used - at - 2) >> 8);
	vhost_step(8, 0); /* wait a little */
}

static void vhost(void)
{
	static const char *const names[] = { "plain", "cut", "room", "table", "flip", "slow", "queues", "cut-file" };
	for (uint8_t k = 0; k < 8; k++) {
		uint8_t how = (uint8_t)(k == 1 ? 2 : k == 2 ? 4 : k == 3 ? 8 : k == 6 ? 9 : 0);
		struct p9_str f = { "f", 1 };
		buf[used++] = k == 4 ? 1 : k == 5 ? 2 : 0;
		vhost_step(1, k == 6 ? 4 : k & 3);
		vhost_chain(how & 8, &(struct p9_msg){ .type = P9_Tversion,
						       .tag = P9_NOTAG,
						       .tversion = { 8192, { "9P2000.L", 8 } } });
		vhost_chain(how, &(struct p9_msg){ .type = P9_Tattach,
						   .tag = 1,
						   .tattach = { 0, P9_NOFID, { "", 0 }, { "", 0 }, 0 } });
		vhost_chain(how, &(struct p9_msg){ .type = P9_Twalk, .tag = 1, .twalk = { 0, 1, { 1, { f } } } });
		vhost_chain(how, &(struct p9_msg){ .type = P9_Tlopen, .tag = 1, .tlopen = { 1, P9_O_RDWR } });
		vhost_chain(how, &(struct p9_msg){ .type = P9_Tread, .tag = 2, .tread = { 1, 0, 1000 } });
		if (k == 7) {
			vhost_step(6, 0x81); /* the memory's file is cut, and grown again */
		}
		vhost_chain(how, &(struct p9_msg){ .type = P9_Twrite,
						   .tag = 3,
						   .twrite = { 1, 3, { 5, (const uint8_t *)"hello" } } });
		vhost_step(7, 0); /* stop */
		vhost_step(1, 0);
		vhost_chain(how, &(struct p9_msg){ .type = P9_Tgetattr, .tag = 4, .tgetattr = { 1, 0x3fff } });
		save("fz_vhost", names[k]);
	}
}

/* Devices that do as they should: fz_front's conversation of 25 answers, all passed on, then a few deeds; fz_guest's
 * machine with nothing bent, which answers whenever the driver waits. */
static void devices(void)
{
	static const char *const names[] = { "pci", "transitional", "pci-legacy", "mmio", "mmio-legacy" };
	for (uint8_t kind = 0; kind < 5; kind++) {
		uint8_t next = kind & 1 ? 6 : 0; /* all that is owed, or one reply */
		buf[used++] = kind | (kind & 1 ? 8 : 0);
		memset(buf + used, 0, 3);
		used += 3;
		for (unsigned i = 0; i < 200; i++) {
			buf[used++] = next;
		}
		save("fz_guest", names[kind]);
	}
	for (uint8_t books = 0; books < 2; books++) {
		buf[used++] = books;
		memset(buf + used, 0, 25);
		used += 25;
		for (uint8_t kind = 0; kind < 4; kind++) {
			const uint8_t deeds[] = { kind & 1, kind, kind, 1, 2, kind, 12, kind, 6 };
			memcpy(buf + used, deeds, sizeof(deeds));
			used += sizeof(deeds);
		}
		const uint8_t again[] = { 0, 5, 0, 1, 9, 0, (uint8_t)(books * 2) };
		memcpy(buf + used, again, sizeof(again));
		used += sizeof(again);
		memset(buf + used, 0, 25);
		used += 25;
		const uint8_t more[] = { 2, 5, 6, 0, 7, 1, 1, 2, 7, 6 };
		memcpy(buf + used, more, sizeof(more));
		used += sizeof(more);
		save("fz_front", books ? "books" : "no-books");
	}
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: seeds DIR\n");
		return 2;
	}
	dir = argv[1];
	decoders();
	replies();
	session_files(PATIENT, "files");
	session_files(PATIENT | COPY | TWO, "files-copy");
	session_files(SPLIT | SLOW, "files-slow");
	session_flush(SLOW, "flush");
	session_flush(SLOW | PATIENT, "flush-patient");
	session_exports();
	session_tree();
	session_xattr();
	session_locks();
	session_again();
	texts();
	vhost();
	devices();
	return 0;
}
