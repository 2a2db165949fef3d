/* SPDX-License-Identifier: BSD-2-Clause */
/* machine.c - a PC as far as the demo needs it: the six functions of guest/platform.h, interrupts, time, memory, the end.
 *
 * Interrupts go through the old PIC, because every monitor has one and needs no tables of ACPI; a device whose line is not
 * below 16 is polled. A handler does nothing but count and quiet the device; all work is done by the one thread.
 */
#include <string.h>
#include "guest/demo/demo.h"

extern uint64_t demo_pml4[512];
extern char demo_traps[], demo_end[];
void demo_trap(uint64_t vector, uint64_t error, uint64_t rip);

enum {
	PIC1 = 0x20,
	PIC2 = 0xa0,
	PIT0 = 0x40,
	PIT_MODE = 0x43,
	PIT_HZ = 1193182,
	TICK_HZ = 100,
	TICK_PATIENCE_MS = 500,
	APIC_BASE_MSR = 0x1b,
	APIC_ENABLED = 1 << 11,
	APIC_SPURIOUS = 0xf0,
	APIC_LINT0 = 0x350,
	APIC_EXTINT = 0x700,
	IRQ_TIMER = 0,
	IRQ_CASCADE = 2,
	IRQ_SERIAL = 4,
	LINES = 16,
	DEBUG_EXIT = 0xf4,
	ACPI_PM1A = 0x604, /* QEMU's pc and q35 */
	KEYBOARD = 0x64,
	CONFIG_ADDRESS = 0xcf8,
	CONFIG_DATA = 0xcfc,
	TRAPS = 48,
	FIRST_IRQ = 32,
};
#define PVH_MAGIC 0x336ec578u
#define MULTIBOOT_MAGIC 0x2badb002u
#define GIB4 (UINT64_C(1) << 32)
#define PAGE2M (UINT64_C(2) << 20)
#define WINDOW (UINT64_C(1) << 39) /* virtual addresses for registers above 4 GiB */

struct demo_boot demo_boot;
static struct {
	uint64_t next, end; /* free memory */
	uint64_t first;
	uint64_t hz, tsc0;   /* of the time stamp counter */
	volatile bool ticks; /* the timer works, so hlt ends */
	volatile uint32_t interrupts, seen;
	struct p9_guest_dev *line[LINES][DEMO_DEVICES];
} m;

static inline void out8(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
static inline uint8_t in8(uint16_t port)
{
	uint8_t v;
	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}
static inline void out16(uint16_t port, uint16_t v)
{
	__asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
static inline uint16_t in16(uint16_t port)
{
	uint16_t v;
	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}
static inline void out32(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
static inline uint32_t in32(uint16_t port)
{
	uint32_t v;
	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}
static inline uint64_t tsc(void)
{
	uint32_t low, high;
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

/* ---- the six functions ---- */

static uint32_t port_read(uint16_t port, unsigned size)
{
	return size == 1 ? in8(port) : size == 2 ? in16(port) : in32(port);
}

static void port_write(uint16_t port, unsigned size, uint32_t v)
{
	if (size == 1) {
		out8(port, (uint8_t)v);
	} else if (size == 2) {
		out16(port, (uint16_t)v);
	} else {
		out32(port, v);
	}
}

/* Selects a register of configuration space. Returns the port where it is, or 0: ports reach 256 bytes only. */
static uint16_t config_port(uint64_t addr)
{
	if ((addr & 0xfff) > 0xff || addr >> 28) {
		return 0;
	}
	out32(CONFIG_ADDRESS, 0x80000000u | (uint32_t)(addr >> 12) << 8 | (addr & 0xfc));
	return (uint16_t)(CONFIG_DATA + (addr & 3));
}

/* Where a physical address is. Above 4 GiB pages are mapped when they are first wanted, uncached, and stay. */
static volatile void *map(uint64_t addr)
{
	static uint64_t pages[512] __attribute__((aligned(4096))), pdpt[512] __attribute__((aligned(4096)));
	uint64_t page = addr & ~(PAGE2M - 1);
	unsigned i = 0;
	if (addr < GIB4) {
		return (volatile void *)addr;
	}
	demo_pml4[WINDOW >> 39] = (uint64_t)pdpt | 3;
	pdpt[0] = (uint64_t)pages | 3;
	while (i < 511 && pages[i] && (pages[i] & ~UINT64_C(0x1fffff)) != page) {
		i++;
	}
	pages[i] = page | 0x9b; /* present, writable, uncached, large */
	__asm__ volatile("invlpg (%0)" : : "r"(WINDOW + i * PAGE2M) : "memory");
	return (volatile void *)(WINDOW + i * PAGE2M + (addr & (PAGE2M - 1)));
}

uint32_t p9_platform_read(enum p9_space space, uint64_t addr, unsigned size)
{
	if (space == P9_SPACE_MEMORY) {
		volatile void *p = map(addr);
		return size == 1   ? *(volatile uint8_t *)p
		       : size == 2 ? *(volatile uint16_t *)p
				   : *(volatile uint32_t *)p;
	}
	uint16_t port = space == P9_SPACE_PORT ? (uint16_t)addr : config_port(addr);
	return port ? port_read(port, size) : UINT32_MAX;
}

void p9_platform_write(enum p9_space space, uint64_t addr, unsigned size, uint32_t v)
{
	if (space == P9_SPACE_MEMORY) {
		volatile void *p = map(addr);
		if (size == 1) {
			*(volatile uint8_t *)p = (uint8_t)v;
		} else if (size == 2) {
			*(volatile uint16_t *)p = (uint16_t)v;
		} else {
			*(volatile uint32_t *)p = v;
		}
		return;
	}
	uint16_t port = space == P9_SPACE_PORT ? (uint16_t)addr : config_port(addr);
	if (port) {
		port_write(port, size, v);
	}
}

void *p9_platform_alloc(size_t size, uint64_t *bus)
{
	size_t n = (size + 4095) & ~(size_t)4095;
	if (n < size || n > m.end - m.next) {
		return NULL;
	}
	uint64_t at = m.next;
	m.next += n;
	*bus = at;
	memset((void *)at, 0, n);
	return (void *)at;
}

uint64_t p9_platform_clock(void)
{
	uint64_t n = tsc() - m.tsc0;
	return n / m.hz * 1000000000 + n % m.hz * 1000000000 / m.hz;
}

/* Whether an interrupt has come is asked with interrupts off, and sti lets none in before the hlt behind it. */
void p9_platform_wait(bool sleep)
{
	if (!sleep || !m.ticks) {
		__asm__ volatile("pause");
		return;
	}
	__asm__ volatile("cli" : : : "memory");
	if (m.seen == m.interrupts) {
		__asm__ volatile("sti; hlt" : : : "memory");
	}
	m.seen = m.interrupts;
	__asm__ volatile("sti" : : : "memory");
}

void p9_platform_say(const char *text)
{
	demo_print("%s\n", text);
}

/* ---- interrupts ---- */

static void mask_lines(uint16_t open)
{
	out8(PIC1 + 1, (uint8_t)~open);
	out8(PIC2 + 1, (uint8_t)(~open >> 8));
}

static void interrupt(unsigned line)
{
	for (unsigned i = 0; i < DEMO_DEVICES && m.line[line][i]; i++) {
		m.interrupts += p9_guest_interrupt(m.line[line][i]);
	}
	m.ticks |= line == IRQ_TIMER;
	if (line == IRQ_SERIAL) {
		demo_console_wake();
	}
	if (line >= 8) {
		out8(PIC2, 0x20);
	}
	out8(PIC1, 0x20);
}

void demo_trap(uint64_t vector, uint64_t error, uint64_t rip)
{
	if (vector >= FIRST_IRQ) {
		interrupt((unsigned)vector - FIRST_IRQ);
		return;
	}
	demo_print("\np9: panic: exception %lu, error 0x%lx, at 0x%lx\n", vector, error, rip);
	demo_machine_exit(DEMO_PANIC);
}

static uint16_t lines_open = 1 << IRQ_TIMER | 1 << IRQ_CASCADE | 1 << IRQ_SERIAL;

bool demo_machine_irq(struct p9_guest_dev *d)
{
	unsigned i = 0;
	if (d->irq == IRQ_TIMER || d->irq >= LINES || !m.ticks) {
		return false;
	}
	while (m.line[d->irq][i]) {
		i++;
	}
	m.line[d->irq][i] = d;
	lines_open |= (uint16_t)(1u << d->irq);
	mask_lines(lines_open);
	return true;
}

static void idt_init(void)
{
	static struct {
		uint16_t low, segment, flags, mid;
		uint32_t high, zero;
	} idt[TRAPS];
	for (unsigned i = 0; i < TRAPS; i++) {
		uint64_t at = (uint64_t)demo_traps + 16 * i;
		idt[i].low = (uint16_t)at;
		idt[i].mid = (uint16_t)(at >> 16);
		idt[i].high = (uint32_t)(at >> 32);
		idt[i].segment = 8;
		idt[i].flags = 0x8e00;
	}
	struct __attribute__((packed)) {
		uint16_t size;
		uint64_t at;
	} idtr = { sizeof(idt) - 1, (uint64_t)idt };
	__asm__ volatile("lidt %0" : : "m"(idtr) : "memory");
}

static void pic_init(void)
{
	static const uint8_t words[2][4] = { { 0x11, FIRST_IRQ, 1 << IRQ_CASCADE, 1 },
					     { 0x11, FIRST_IRQ + 8, IRQ_CASCADE, 1 } };
	for (unsigned i = 0; i < 4; i++) {
		out8(PIC1 + (i > 0), words[0][i]);
		out8(PIC2 + (i > 0), words[1][i]);
	}
	mask_lines(lines_open);
	/* The PIC reaches the processor through the local APIC's first pin, where firmware left that closed. */
	uint32_t low, high;
	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(APIC_BASE_MSR));
	if (low & APIC_ENABLED) {
		uint64_t apic = (low & ~4095u) | (uint64_t)high << 32;
		p9_platform_write(P9_SPACE_MEMORY, apic + APIC_SPURIOUS, 4, 0x1ff);
		p9_platform_write(P9_SPACE_MEMORY, apic + APIC_LINT0, 4, APIC_EXTINT);
	}
}

/* ---- time ---- */

/* What is left of the timer's count; all ones when there is no timer. */
static uint16_t timer_left(void)
{
	out8(PIT_MODE, 0); /* latch */
	uint16_t low = in8(PIT0);
	return (uint16_t)(low | in8(PIT0) << 8);
}

/* Measures the time stamp counter while the timer counts 5 ms down; then lets it tick. Without a timer the counter is
 * taken for 1 GHz, and nobody sleeps. (Its second channel would need port 0x61, which microvm has not.) */
static void time_init(void)
{
	enum { COUNT = PIT_HZ / 200 };
	out8(PIT_MODE, 0x30);
	out8(PIT0, 0xff);
	out8(PIT0, 0xff);
	uint64_t begin = tsc(), now = begin;
	uint16_t first = timer_left(), left = first;
	while ((uint16_t)(first - left) < COUNT && now - begin < UINT64_C(1) << 30) {
		left = timer_left();
		now = tsc();
	}
	uint64_t counted = (uint16_t)(first - left);
	bool counts = counted >= COUNT;
	m.hz = counts ? (now - begin) * PIT_HZ / counted : 0;
	m.hz = m.hz ? m.hz : 1000000000;
	m.tsc0 = tsc();
	out8(PIT_MODE, 0x34);
	out8(PIT0, (PIT_HZ / TICK_HZ) & 0xff);
	out8(PIT0, (PIT_HZ / TICK_HZ) >> 8);
	/* Only a tick that comes shows that others will. */
	__asm__ volatile("sti" : : : "memory");
	while (counts && !m.ticks && p9_platform_clock() < TICK_PATIENCE_MS * UINT64_C(1000000)) {
		__asm__ volatile("pause");
	}
}

void demo_machine_idle(void)
{
	if (m.ticks) {
		__asm__ volatile("sti; hlt" : : : "memory");
	} else {
		__asm__ volatile("pause");
	}
}

/* ---- memory and command line, from the loader ---- */

/* Memory that begins at or below the demo's end and reaches beyond it. */
static void use_memory(uint64_t addr, uint64_t size)
{
	uint64_t here = (uint64_t)demo_end, end = addr + size < GIB4 ? addr + size : GIB4;
	if (addr <= here && end > here && end >= addr) {
		m.end = end & ~UINT64_C(4095);
	}
}

static void copy_cmdline(uint64_t from)
{
	const char *s = (const char *)from;
	for (size_t i = 0; from && i < DEMO_LINE - 1 && s[i]; i++) {
		demo_boot.cmdline[i] = s[i];
	}
}

/* struct hvm_start_info: magic, version, flags, nr_modules; modlist, cmdline, rsdp, memmap (64 bits); entries, 0. */
static void from_pvh(const uint32_t *info)
{
	copy_cmdline(info[6] | (uint64_t)info[7] << 32);
	const uint8_t *e = (const uint8_t *)(info[10] | (uint64_t)info[11] << 32);
	for (uint32_t i = 0; info[1] >= 1 && e && i < info[12] && i < 256; i++, e += 24) {
		uint64_t addr, size;
		uint32_t type;
		memcpy(&addr, e, 8);
		memcpy(&size, e + 8, 8);
		memcpy(&type, e + 16, 4);
		if (type == 1) {
			use_memory(addr, size);
		}
	}
}

/* struct multiboot_info: flags, mem_lower, mem_upper, boot_device, cmdline... QEMU puts the kernel's name in front. */
static void from_multiboot(const uint32_t *info)
{
	if (info[0] & 1) {
		use_memory(1 << 20, (uint64_t)info[2] << 10);
	}
	const char *s = info[0] & 4 ? (const char *)(uint64_t)info[4] : NULL;
	while (s && *s && *s != ' ') {
		s++;
	}
	copy_cmdline((uint64_t)s);
}

void demo_machine_init(uint32_t magic, uint64_t info)
{
	const uint32_t *words = (const uint32_t *)info;
	m.first = m.next = ((uint64_t)demo_end + 4095) & ~UINT64_C(4095);
	m.end = m.next + (32 << 20); /* when nobody tells */
	demo_console_init();
	if (words && words[0] == PVH_MAGIC) {
		from_pvh(words);
	} else if (words && magic == MULTIBOOT_MAGIC) {
		from_multiboot(words);
	}
	idt_init();
	pic_init();
	time_init();
	demo_boot.pci = p9_platform_read(P9_SPACE_CONFIG, 0, 4) != UINT32_MAX;
}

size_t demo_machine_used(void)
{
	return m.next - m.first;
}

/* isa-debug-exit; else power off as QEMU's pc does; else reset, by the keyboard's controller or a fault too many. */
void demo_machine_exit(enum demo_status status)
{
	out32(DEBUG_EXIT, status);
	out16(ACPI_PM1A, 0x2000);
	out8(KEYBOARD, 0xfe);
	static const uint8_t nothing[10];
	for (;;) {
		__asm__ volatile("cli; lidt %0; ud2" : : "m"(nothing) : "memory");
	}
}
