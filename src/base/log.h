/* SPDX-License-Identifier: BSD-2-Clause */
/* log.h - one line on stderr, one write(2); a closed or full stderr never stops the server. Any thread. */
#ifndef P9_BASE_LOG_H
#define P9_BASE_LOG_H
#include <stdbool.h>
#include <stdint.h>

enum p9_log_level { P9_LOG_ERROR, P9_LOG_WARN, P9_LOG_INFO, P9_LOG_DEBUG, P9_LOG_LEVELS };

extern const char *const p9_log_names[P9_LOG_LEVELS]; /* "error", "warn", "info", "debug" */
/* Lines above this level are not printed. Set at start, before threads. */
extern enum p9_log_level p9_log_level;

void p9_log(enum p9_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Lines that a peer can cause as fast as it likes: P9_LOG_SOME of them a second, then how many there were beside. One of
 * these for each kind of line, all zero at first. */
#define P9_LOG_SOME 20
struct p9_log_rate {
	_Atomic uint64_t second;
	_Atomic unsigned lines;
};
void p9_log_some(struct p9_log_rate *rate, enum p9_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The same, whatever the level: for --trace. */
void p9_log_always(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
