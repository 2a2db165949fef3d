/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c - the demo: finds shares, mounts them, runs commands from the kernel's command line or the serial console.
 *
 * Command line: options, then commands with ';' between them:
 *
 *	-append "msize=65536 ring=16; ls -l /host; cat /host/motd"
 *
 * The first share is mounted at /host, and at / too unless a share is called "/"; the others at /TAG.
 */
#include <string.h>
#include "guest/demo/demo.h"

void demo_main(uint32_t magic, uint64_t info);

enum { MSIZE = 256 * 1024, SLOTS = 16, MMIO_SLOTS = 32, MMIO_STEP = 0x200, NO_IRQ = 0xff };
#define MMIO_BASE 0xfeb00000u /* QEMU's microvm */

struct demo demo = { .conf = { .msize = MSIZE, .slots = SLOTS } };

/* ---- options ---- */

struct option {
	const char *name;
	uint64_t least, most;
	void (*set)(uint64_t v);
};
static void set_msize(uint64_t v)
{
	demo.conf.msize = (uint32_t)v;
}
static void set_slots(uint64_t v)
{
	demo.conf.slots = (uint16_t)v;
}
static void set_ring(uint64_t v)
{
	demo.conf.ring = (uint16_t)v;
}
static void set_patience(uint64_t v)
{
	demo.conf.patience_ms = (uint32_t)v;
}
static void set_poll(uint64_t v)
{
	demo.poll = v;
}
static void set_indirect(uint64_t v)
{
	demo.conf.without |= v ? 0 : P9_VIRTIO_F_INDIRECT_DESC;
}
static void set_event(uint64_t v)
{
	demo.conf.without |= v ? 0 : P9_VIRTIO_F_EVENT_IDX;
}
static const struct option options[] = {
	{ "msize=", P9_MSIZE_MIN, 8 << 20, set_msize },
	{ "slots=", 1, P9_GUEST_SLOTS, set_slots },
	{ "ring=", 1, P9_VRING_NUM_MAX, set_ring },
	{ "patience=", 1, 1000000, set_patience },
	{ "poll=", 0, 1, set_poll },
	{ "indirect=", 0, 1, set_indirect },
	{ "event=", 0, 1, set_event },
};

/* virtio_mmio.device=SIZE@ADDRESS:IRQ, as monitors tell Linux. */
static bool take_mmio(const char *s)
{
	uint64_t size, addr, irq = NO_IRQ;
	if (!demo_number(s, &size, &s) || *s++ != '@' || !demo_number(s, &addr, &s)) {
		return false;
	}
	if (*s == ':' && !demo_number(s + 1, &irq, &s)) {
		return false;
	}
	if (demo.nshares < DEMO_DEVICES &&
	    p9_guest_find_mmio(&demo.share[demo.nshares].dev, addr, irq < NO_IRQ ? (uint8_t)irq : NO_IRQ) == 1) {
		demo.nshares++;
	}
	return true;
}

/* 1: taken; 0: no option; -1: wrong. */
static int take_option(const char *word)
{
	const char *v;
	uint64_t n;
	if ((v = demo_after(word, "virtio_mmio.device="))) {
		return take_mmio(v) ? 1 : -1;
	}
	if ((v = demo_after(word, "tag="))) {
		demo.tag = v;
		return 1;
	}
	for (unsigned i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		const struct option *o = &options[i];
		if ((v = demo_after(word, o->name))) {
			if (!demo_number(v, &n, NULL) || n < o->least || n > o->most) {
				return -1;
			}
			o->set(n);
			return 1;
		}
	}
	return 0;
}

/* ---- words ---- */

/* The next word of a line, in place; quotes of both kinds hold blanks and ';' together. NULL at its end; *stop: a ';'
 * stood before or behind the word. */
static char *next_word(char **at, bool *stop)
{
	char *p = *at, *out, *word, quote = 0;
	*stop = false;
	while (*p == ' ' || *p == '\t') {
		p++;
	}
	if (*p == 0 || *p == ';') {
		*stop = *p == ';';
		*at = p + *stop;
		return NULL;
	}
	for (word = out = p; *p && (quote || (*p != ' ' && *p != '\t' && *p != ';')); p++) {
		if (quote ? *p == quote : *p == '\'' || *p == '"') {
			quote = quote ? 0 : *p;
		} else {
			*out++ = *p;
		}
	}
	*stop = *p == ';';
	*at = p + (*p != 0);
	*out = 0;
	return word;
}

/* Words up to the next ';'. Returns how many; *more: the line goes on. */
static unsigned next_command(char **at, char **words, bool *more)
{
	unsigned n = 0;
	bool stop = false;
	while (!stop && **at) {
		char *w = next_word(at, &stop);
		if (w && demo_after(w, "virtio_mmio.device=")) {
			continue; /* the monitor's, appended behind what the user wrote */
		}
		if (w && n < DEMO_WORDS) {
			words[n++] = w;
		}
	}
	*more = **at != 0;
	return n;
}

/* Runs the commands of a line. Returns the worst status. */
static int run_line(char *line)
{
	char *words[DEMO_WORDS];
	int worst = DEMO_OK;
	for (bool more = true; more;) {
		unsigned n = next_command(&line, words, &more);
		int rc = n > 0 ? demo_command(n, words) : DEMO_OK;
		worst = rc > worst ? rc : worst;
	}
	return worst;
}

/* Takes options from the beginning of the line and the monitor's from anywhere. Returns what is left to run, or NULL. */
static char *take_options(char *line)
{
	static char copy[DEMO_LINE];
	char *at = copy, *rest = line, *w;
	bool stop;
	demo_join(copy, sizeof(copy), line, "");
	while (*at) { /* the monitor's */
		w = next_word(&at, &stop);
		if (w && demo_after(w, "virtio_mmio.device=")) {
			(void)take_option(w);
		}
	}
	demo_join(copy, sizeof(copy), line, "");
	for (at = copy; *at; rest = line + (at - copy)) {
		w = next_word(&at, &stop);
		int rc = w && !demo_after(w, "virtio_mmio.device=") ? take_option(w) : 1;
		if (rc < 0) {
			demo_print("p9: options: %s: not a value that it can have\n", w);
			return NULL;
		}
		if (rc == 0) {
			break;
		}
	}
	return rest;
}

/* ---- shares ---- */

static void find(void)
{
	static struct p9_guest_dev devs[DEMO_DEVICES];
	int n = demo_boot.pci ? p9_guest_find_pci(devs, DEMO_DEVICES) : 0;
	for (int i = 0; i < n && demo.nshares < DEMO_DEVICES; i++) {
		demo.share[demo.nshares++].dev = devs[i];
	}
	/* A machine without PCI that tells no addresses: look where microvm has them. From the end, where it begins. */
	bool look = !demo_boot.pci && demo.nshares == 0;
	for (unsigned i = MMIO_SLOTS; i-- > 0 && look && demo.nshares < DEMO_DEVICES;) {
		if (p9_guest_find_mmio(&devs[0], MMIO_BASE + i * MMIO_STEP, NO_IRQ) == 1) {
			demo.share[demo.nshares++].dev = devs[0];
		}
	}
}

int demo_share_start(struct demo_share *s)
{
	struct p9_guest_conf conf = demo.conf;
	conf.interrupts = s->dev.conf.interrupts;
	int rc = p9_guest_start(&s->dev, &conf);
	if (rc < 0) {
		return rc;
	}
	struct p9_session_conf sc = { .port = &s->dev.port.port,
				      .uname = "root",
				      .aname = "",
				      .msize = s->dev.conf.msize,
				      .ntags = (uint16_t)(s->dev.conf.slots + 4) };
	size_t size = p9_session_memory(&sc);
	if (s->memory_size < size) {
		uint64_t bus;
		s->memory = p9_platform_alloc(size, &bus);
		s->memory_size = s->memory ? size : 0;
	}
	return s->memory ? p9_session_init(&s->session, &sc, s->memory, s->memory_size) : -P9_ENOMEM;
}

struct demo_share *demo_share_of(const char *path)
{
	struct demo_share *best = NULL;
	size_t most = 0;
	for (unsigned i = 0; i < demo.nshares; i++) {
		const char *rest = demo.share[i].at[0] ? demo_after(path, demo.share[i].at) : NULL;
		size_t n = demo_len(demo.share[i].at);
		if (rest && (*rest == 0 || *rest == '/' || n == 1) && n >= most) {
			best = &demo.share[i];
			most = n;
		}
	}
	return best ? best : &demo.share[0];
}

/* A tag as a name below /: what would be a path, or nothing, becomes something harmless. */
static void mount_point(struct demo_share *s, unsigned i)
{
	char name[P9_GUEST_TAG];
	demo_join(name, sizeof(name), s->dev.tag, "");
	for (char *p = name; *p; p++) {
		*p = *p == '/' || (uint8_t)*p < 33 || *p == 127 ? '_' : *p;
	}
	bool dots = demo_same(name, ".") || demo_same(name, "..") || !name[0];
	if (i == 0) {
		demo_join(s->at, sizeof(s->at), "/host", "");
	} else if (demo_same(s->dev.tag, "/")) {
		demo_join(s->at, sizeof(s->at), "/", "");
	} else if (dots) {
		char number[] = { (char)('a' + i), 0 };
		demo_join(s->at, sizeof(s->at), "/share-", number);
	} else {
		demo_join(s->at, sizeof(s->at), "/", name);
	}
}

static int mount(struct demo_share *s, unsigned i)
{
	mount_point(s, i);
	int rc = p9_vfs_mount(demo.vfs, s->at, s->session);
	for (char n = '2'; rc == -P9_EBUSY && n <= '9'; n++) { /* two shares of one name */
		char at[P9_VFS_MOUNT_PATH], suffix[] = { '-', n, 0 };
		demo_join(at, sizeof(at), s->at, suffix);
		rc = p9_vfs_mount(demo.vfs, at, s->session);
		if (rc == 0) {
			demo_join(s->at, sizeof(s->at), at, "");
		}
	}
	if (rc < 0) {
		s->at[0] = 0;
	}
	return rc;
}

/* The share of the name that the user wants comes first. */
static bool put_first(const char *tag)
{
	for (unsigned i = 0; i < demo.nshares; i++) {
		if (demo_same(demo.share[i].dev.tag, tag)) {
			static struct demo_share tmp;
			tmp = demo.share[i];
			demo.share[i] = demo.share[0];
			demo.share[0] = tmp;
			return true;
		}
	}
	return false;
}

/* Which device is which is known when they have been started; so sessions begin in a second round. */
static int start_all(void)
{
	int worst = DEMO_OK;
	for (unsigned i = 0; i < demo.nshares;) {
		struct demo_share *s = &demo.share[i];
		int rc = p9_guest_start(&s->dev, &demo.conf);
		p9_guest_stop(&s->dev);
		if (rc < 0) {
			demo_complain("mount", s->dev.name, rc);
			worst = DEMO_NO_MOUNT;
			*s = demo.share[--demo.nshares];
		} else {
			i++;
		}
	}
	if (demo.nshares == 0) {
		demo_complain("mount", "virtio-9p", -P9_ENODEV);
		return DEMO_NO_MOUNT;
	}
	if (demo.tag && !put_first(demo.tag)) {
		demo_complain("mount", demo.tag, -P9_ENODEV);
		return DEMO_NO_MOUNT;
	}
	return worst;
}

static int mount_all(void)
{
	int worst = start_all();
	bool root = false;
	for (unsigned i = 0; i < demo.nshares && (i > 0 || worst != DEMO_NO_MOUNT || demo.nshares > 0); i++) {
		struct demo_share *s = &demo.share[i];
		s->dev.conf.interrupts = !demo.poll && demo_machine_irq(&s->dev);
		int rc = demo_share_start(s);
		rc = rc < 0 ? rc : mount(s, i);
		root |= demo_same(s->at, "/");
		if (rc < 0) {
			demo_complain("mount", s->dev.tag, rc);
			worst = DEMO_NO_MOUNT;
		}
	}
	if (demo.nshares > 0 && !root && demo.share[0].at[0]) {
		int rc = p9_vfs_mount(demo.vfs, "/", demo.share[0].session);
		if (rc < 0) {
			demo_complain("mount", "/", rc);
			worst = DEMO_NO_MOUNT;
		}
	}
	return worst;
}

static void make_vfs(void)
{
	const struct p9_vfs_conf conf = { .mounts = DEMO_DEVICES + 1, .files = 16 };
	uint64_t bus;
	size_t size = p9_vfs_memory(&conf);
	void *mem = p9_platform_alloc(size, &bus);
	if (!mem || p9_vfs_init(&demo.vfs, &conf, mem, size) < 0) {
		demo_print("p9: mount: not enough memory\n");
		demo_machine_exit(DEMO_NO_MOUNT);
	}
}

static void talk(void)
{
	static char line[DEMO_LINE];
	int worst = DEMO_OK;
	demo_console_terminal();
	demo_print("p9: %u shares; \"help\" lists commands, ^D ends\n", demo.nshares);
	while (demo_read_line("p9> ", line, sizeof(line))) {
		int rc = run_line(line);
		worst = rc > worst ? rc : worst;
	}
	demo_machine_exit((enum demo_status)worst);
}

void demo_main(uint32_t magic, uint64_t info)
{
	demo_machine_init(magic, info);
	char *rest = take_options(demo_boot.cmdline);
	if (!rest) {
		demo_machine_exit(DEMO_USAGE);
	}
	find();
	make_vfs();
	int status = mount_all();
	char *words[DEMO_WORDS], *look = rest;
	static char copy[DEMO_LINE];
	bool more = true;
	demo_join(copy, sizeof(copy), rest, "");
	look = copy;
	unsigned n = 0;
	while (more && n == 0) {
		n = next_command(&look, words, &more);
	}
	if (n > 0 && status == DEMO_OK) {
		demo_machine_exit((enum demo_status)run_line(rest));
	}
	if (n > 0) {
		demo_machine_exit((enum demo_status)status);
	}
	talk();
}
