/* SPDX-License-Identifier: BSD-2-Clause */
/* window.h - how many requests of one transfer should be in flight: a number that finds itself.
 *
 * Pure arithmetic over times that the caller reads; see window.c. Zeroed, it is not begun.
 */
#ifndef P9_CLIENT_WINDOW_H
#define P9_CLIENT_WINDOW_H
#include "p9/client.h"

/* Begins with a few requests; never above `max` (at least 1). */
void p9_window_begin(struct p9_window *w, unsigned max, uint64_t now_us);
/* A request of the transfer was answered, and brought or took `bytes`. w->now is the new limit. */
void p9_window_took(struct p9_window *w, uint32_t bytes, uint64_t now_us);

#endif
