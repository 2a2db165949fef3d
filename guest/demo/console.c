/* SPDX-License-Identifier: BSD-2-Clause */
/* console.c - the serial port: printing, and a line editor. */
#include <string.h>
#include "guest/demo/demo.h"

enum {
	COM1 = 0x3f8,
	DATA = 0,
	IER = 1,
	FCR = 2,
	LCR = 3,
	MCR = 4,
	LSR = 5,
	LSR_READY = 1,
	LSR_EMPTY = 0x20,
	HISTORY = 8,
	FIFO = 16,
	BUFFER = 1024,
};
static bool terminal;

static uint32_t get(unsigned reg)
{
	return p9_platform_read(P9_SPACE_PORT, COM1 + reg, 1);
}

static void set(unsigned reg, uint32_t v)
{
	p9_platform_write(P9_SPACE_PORT, COM1 + reg, 1, v);
}

/* What came in by interrupt, until somebody reads it. Only the handler moves `in`, only the reader `out`. */
static struct {
	volatile uint32_t in, out;
	char byte[BUFFER];
} fifo;

void demo_console_init(void)
{
	set(IER, 0);
	set(LCR, 0x80);
	set(DATA, 1); /* 115200 */
	set(IER, 0);
	set(LCR, 3); /* 8N1 */
	set(FCR, 7);
	set(MCR, 0xb); /* DTR, RTS, and OUT2, which lets interrupts through */
	set(IER, 1);
}

void demo_console_wake(void)
{
	while (fifo.in - fifo.out < BUFFER && (get(LSR) & LSR_READY)) {
		fifo.byte[fifo.in % BUFFER] = (char)get(DATA);
		fifo.in++;
	}
	if (fifo.in - fifo.out == BUFFER) {
		set(IER, 0); /* the sender waits; the reader lets it go on */
	}
}

static char read_byte(void)
{
	while (fifo.in == fifo.out) {
		__asm__ volatile("cli" : : : "memory");
		demo_console_wake(); /* machines without a timer are not interrupted */
		if (fifo.in == fifo.out) {
			demo_machine_idle();
		}
		__asm__ volatile("sti" : : : "memory");
	}
	char c = fifo.byte[fifo.out % BUFFER];
	fifo.out++;
	if (fifo.in == fifo.out) {
		set(IER, 1);
	}
	return c;
}

static void put_byte(char c)
{
	static unsigned room;
	while (room == 0) {
		room = get(LSR) & LSR_EMPTY ? FIFO : 0;
	}
	set(DATA, (uint8_t)c);
	room--;
}

void demo_put(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '\n' && terminal) {
			put_byte('\r');
		}
		put_byte(p[i]);
	}
}

void demo_console_terminal(void)
{
	terminal = true;
}

void demo_print_name(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t c = (uint8_t)s[i];
		if (c < 32 || c == 127 || c == '\\') {
			demo_print(c == '\\' ? "\\\\" : "\\x%02x", c);
		} else {
			demo_put(&s[i], 1);
		}
	}
}

/* ---- printing ---- */

struct format {
	bool left, wide;
	char pad;
	unsigned width;
	int most;
};

static void put_padded(const struct format *f, const char *s, size_t n)
{
	size_t fill = f->width > n ? f->width - n : 0;
	for (size_t i = 0; !f->left && i < fill; i++) {
		demo_put(&f->pad, 1);
	}
	demo_put(s, n);
	for (size_t i = 0; f->left && i < fill; i++) {
		demo_put(" ", 1);
	}
}

static void put_number(const struct format *f, uint64_t v, unsigned base, bool negative)
{
	char text[24];
	unsigned n = sizeof(text);
	do {
		text[--n] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	if (negative) {
		text[--n] = '-';
	}
	put_padded(f, text + n, sizeof(text) - n);
}

/* NOLINTBEGIN(clang-analyzer-valist.Uninitialized): demo_print() started the list that is pointed to */
static const char *read_format(const char *p, struct format *f, va_list *ap)
{
	*f = (struct format){ .pad = ' ', .most = -1 };
	for (; *p == '-' || *p == '0'; p++) {
		f->left |= *p == '-';
		f->pad = *p == '0' ? '0' : f->pad;
	}
	for (; *p >= '0' && *p <= '9'; p++) {
		f->width = f->width * 10 + (unsigned)(*p - '0');
	}
	if (p[0] == '.' && p[1] == '*') {
		f->most = va_arg(*ap, int);
		p += 2;
	}
	for (; *p == 'l'; p++) {
		f->wide = true;
	}
	return p;
}

static void put_one(char kind, const struct format *f, va_list *ap)
{
	if (kind == 's') {
		const char *s = va_arg(*ap, const char *);
		put_padded(f, s, f->most >= 0 ? (size_t)f->most : demo_len(s));
	} else if (kind == 'c') {
		char c = (char)va_arg(*ap, int);
		put_padded(f, &c, 1);
	} else if (kind == 'd') {
		int64_t v = f->wide ? va_arg(*ap, int64_t) : va_arg(*ap, int);
		put_number(f, v < 0 ? -(uint64_t)v : (uint64_t)v, 10, v < 0);
	} else {
		uint64_t v = f->wide ? va_arg(*ap, uint64_t) : va_arg(*ap, unsigned);
		put_number(f, v, kind == 'x' ? 16 : kind == 'o' ? 8 : 10, false);
	}
}
/* NOLINTEND(clang-analyzer-valist.Uninitialized) */

void demo_print(const char *fmt, ...)
{
	struct format f;
	va_list ap;
	va_start(ap, fmt);
	while (*fmt) {
		size_t n = 0;
		while (fmt[n] && fmt[n] != '%') {
			n++;
		}
		demo_put(fmt, n);
		fmt += n;
		if (*fmt == '%') {
			fmt = read_format(fmt + 1, &f, &ap);
			if (*fmt == '%') {
				demo_put("%", 1);
			} else {
				put_one(*fmt, &f, &ap);
			}
			fmt++;
		}
	}
	va_end(ap);
}

/* ---- reading ---- */

struct editor {
	const char *prompt;
	char *line;
	size_t cap, len, at; /* at: the cursor */
	unsigned back;	     /* lines back in history */
};
static char history[HISTORY][DEMO_LINE];
static unsigned remembered;

/* Writes the line anew; what was behind its end is cleared. */
static void redraw(const struct editor *e)
{
	demo_put("\r", 1);
	demo_print("%s", e->prompt);
	demo_put(e->line, e->len);
	demo_print("\033[K");
	if (e->at < e->len) {
		demo_print("\033[%uD", (unsigned)(e->len - e->at));
	}
}

static void insert(struct editor *e, char c)
{
	if (e->len + 1 >= e->cap) {
		return;
	}
	memmove(e->line + e->at + 1, e->line + e->at, e->len - e->at);
	e->line[e->at++] = c;
	e->len++;
	if (e->at == e->len) {
		demo_put(&c, 1);
	} else {
		redraw(e);
	}
}

/* Takes away what stands between `from` and the cursor. */
static void cut(struct editor *e, size_t from)
{
	memmove(e->line + from, e->line + e->at, e->len - e->at);
	e->len -= e->at - from;
	e->at = from;
	redraw(e);
}

static void cut_word(struct editor *e)
{
	size_t from = e->at;
	while (from > 0 && e->line[from - 1] == ' ') {
		from--;
	}
	while (from > 0 && e->line[from - 1] != ' ') {
		from--;
	}
	cut(e, from);
}

static void recall(struct editor *e, unsigned back)
{
	if (back > remembered || back > HISTORY) {
		return;
	}
	e->back = back;
	e->len = 0;
	if (back > 0) {
		const char *old = history[(remembered - back) % HISTORY];
		e->len = demo_len(old) < e->cap ? demo_len(old) : e->cap - 1;
		memcpy(e->line, old, e->len);
	}
	e->at = e->len;
	redraw(e);
}

static void escape(struct editor *e)
{
	if (read_byte() != '[') {
		return;
	}
	char c = read_byte();
	switch (c) {
	case 'A':
		recall(e, e->back + 1);
		break;
	case 'B':
		recall(e, e->back > 0 ? e->back - 1 : 0);
		break;
	case 'C':
		e->at += e->at < e->len;
		redraw(e);
		break;
	case 'D':
		e->at -= e->at > 0;
		redraw(e);
		break;
	default:
		break;
	}
}

static void control(struct editor *e, char c)
{
	switch (c) {
	case 1: /* ^A */
		e->at = 0;
		redraw(e);
		break;
	case 5: /* ^E */
		e->at = e->len;
		redraw(e);
		break;
	case 3: /* ^C */
		demo_print("^C\n");
		e->at = e->len = 0;
		redraw(e);
		break;
	case 8:
	case 127:
		if (e->at > 0) {
			cut(e, e->at - 1);
		}
		break;
	case 21: /* ^U */
		cut(e, 0);
		break;
	case 23: /* ^W */
		cut_word(e);
		break;
	case 27:
		escape(e);
		break;
	default:
		break;
	}
}

bool demo_read_line(const char *prompt, char *line, size_t cap)
{
	struct editor e = { prompt, line, cap, 0, 0, 0 };
	demo_print("%s", prompt);
	for (;;) {
		char c = read_byte();
		if (c == '\r' || c == '\n') {
			break;
		}
		if (c == 4 && e.len == 0) { /* ^D */
			demo_print("\n");
			return false;
		}
		if ((uint8_t)c >= 32 && c != 127) {
			insert(&e, c);
		} else {
			control(&e, c);
		}
	}
	demo_print("\n");
	line[e.len] = 0;
	if (e.len > 0) {
		demo_join(history[remembered++ % HISTORY], DEMO_LINE, line, "");
	}
	return true;
}
