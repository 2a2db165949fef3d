/* SPDX-License-Identifier: BSD-2-Clause */
/* demo.h - what the demo's files share: the machine, the console, the mounted tree, the commands.
 *
 * The demo is an example of a kernel that uses the driver: machine.c is its platform, main.c finds, starts and mounts. It
 * has one processor and one thread; interrupts only count (machine.c).
 */
#ifndef P9_GUEST_DEMO_H
#define P9_GUEST_DEMO_H
#include <stdarg.h>
#include "guest/virtio_9p.h"
#include "p9/vfs.h"

enum { DEMO_DEVICES = 16, DEMO_LINE = 2048, DEMO_WORDS = 64 };
/* What the monitor sees; isa-debug-exit makes 2 * status + 1 of it. */
enum demo_status { DEMO_OK, DEMO_FAILED, DEMO_USAGE, DEMO_NO_MOUNT, DEMO_PANIC };

/* ---- machine.c ---- */
struct demo_boot {
	char cmdline[DEMO_LINE];
	bool pci; /* there is a PCI bus */
};
extern struct demo_boot demo_boot;
/* Takes over the machine from the loader. */
void demo_machine_init(uint32_t magic, uint64_t info);
/* Calls p9_guest_interrupt() for the device when its line has an interrupt. Returns whether there is such a line. */
bool demo_machine_irq(struct p9_guest_dev *d);
/* Sleeps until any interrupt, 10 ms at most. */
void demo_machine_idle(void);
/* Bytes handed out by p9_platform_alloc(). */
size_t demo_machine_used(void);
_Noreturn void demo_machine_exit(enum demo_status status);

/* ---- console.c ---- */
void demo_console_init(void);
void demo_console_wake(void);
void demo_put(const char *p, size_t n);
/* A small printf: %s %c %d %u %x %o %%, l for 64 bits, width, '-', '0', and %.*s. */
__attribute__((format(printf, 1, 2))) void demo_print(const char *fmt, ...);
/* A name from a server: control characters, which would command a terminal, are shown as \xNN. */
void demo_print_name(const char *s, size_t n);
/* Lines end as terminals want, from now on. */
void demo_console_terminal(void);
/* A line, edited; false at its end (^D). */
bool demo_read_line(const char *prompt, char *line, size_t cap);

/* ---- text.c ---- */
size_t demo_len(const char *s);
bool demo_same(const char *a, const char *b);
/* Rest of s behind the prefix, or NULL. */
const char *demo_after(const char *s, const char *prefix);
/* A number, also 0x..., with k, m, g; false when it is none. *end NULL: all of s must be the number. */
bool demo_number(const char *s, uint64_t *out, const char **end);
/* Writes text to dst, at most cap with its end; returns false when it was cut. */
bool demo_join(char *dst, size_t cap, const char *a, const char *b);

/* ---- main.c ---- */
struct demo_share {
	struct p9_guest_dev dev;
	struct p9_session *session;
	void *memory;
	size_t memory_size;
	char at[P9_VFS_MOUNT_PATH]; /* "" when not mounted */
};
struct demo {
	struct p9_vfs *vfs;
	struct demo_share share[DEMO_DEVICES];
	unsigned nshares;
	/* options */
	struct p9_guest_conf conf;
	const char *tag; /* the first device, by name */
	bool poll;
};
extern struct demo demo;
/* The share whose mount a path belongs to, or NULL. */
struct demo_share *demo_share_of(const char *path);
/* Starts a share's device and its session, in memory that it keeps. */
P9_MUST_USE int demo_share_start(struct demo_share *s);

/* ---- commands.c, selftest.c, bench.c ---- */
/* "p9: CMD: WHAT: text (ECODE)"; returns DEMO_FAILED. */
int demo_complain(const char *cmd, const char *what, int64_t rc);
/* Runs one command; words[0] is its name. */
int demo_command(unsigned n, char **words);
int demo_selftest(unsigned n, char **words);
int demo_bench(unsigned n, char **words);

#endif
