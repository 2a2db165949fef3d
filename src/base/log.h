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

/* The same, whatever the level: for --trace. */
void p9_log_always(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
