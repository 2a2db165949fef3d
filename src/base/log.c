/* SPDX-License-Identifier: BSD-2-Clause */
/* log.c - see log.h. Peers choose parts of the text (names), which come here escaped by wire/print.c already; control
 * characters that got in otherwise are replaced, so that a line is always one line.
 */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include "base/log.h"

const char *const p9_log_names[P9_LOG_LEVELS] = { "error", "warn", "info", "debug" };
enum p9_log_level p9_log_level = P9_LOG_INFO;

static void say(const char *kind, const char *fmt, va_list ap)
{
	char line[2048];
	int n = snprintf(line, sizeof(line), "p9d: %s%s", kind, *kind ? ": " : "");
	int m = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	n = m < 0 ? n : n + m;
	if ((size_t)n > sizeof(line) - 2) {
		n = (int)sizeof(line) - 2;
	}
	for (int i = 0; i < n; i++) {
		unsigned char c = (unsigned char)line[i];
		line[i] = c < 0x20 || c == 0x7f ? '?' : (char)c;
	}
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n) < 0) {
		return; /* nobody is left to tell */
	}
}

void p9_log(enum p9_log_level level, const char *fmt, ...)
{
	va_list ap;
	if (level > p9_log_level) {
		return;
	}
	va_start(ap, fmt);
	say(level <= P9_LOG_WARN ? p9_log_names[level] : "", fmt, ap);
	va_end(ap);
}

void p9_log_some(struct p9_log_rate *rate, enum p9_log_level level, const char *fmt, ...)
{
	struct timespec now;
	va_list ap;
	if (level > p9_log_level) {
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (atomic_exchange(&rate->second, (uint64_t)now.tv_sec) != (uint64_t)now.tv_sec) {
		unsigned had = atomic_exchange(&rate->lines, 0);
		if (had > P9_LOG_SOME) {
			p9_log(level, "%u more lines like this in a second", had - P9_LOG_SOME);
		}
	}
	if (atomic_fetch_add(&rate->lines, 1) >= P9_LOG_SOME) {
		return;
	}
	va_start(ap, fmt);
	say(level <= P9_LOG_WARN ? p9_log_names[level] : "", fmt, ap);
	va_end(ap);
}

void p9_log_always(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	say("", fmt, ap);
	va_end(ap);
}
