/* SPDX-License-Identifier: BSD-2-Clause */
/* whole.h - a whole server for fuzz targets: it lives as long as the process and shares a tree in memory as `main`, and
 * read-only as `ro`. LLVMFuzzerInitialize is in whole.c.
 */
#ifndef P9_FUZZ_WHOLE_H
#define P9_FUZZ_WHOLE_H
#include "server/internal.h"

#define FZ_MSIZE 65536
#define FZ_TIME_LIMIT 15000 /* ms; a sanitizer on a busy machine is slow */

extern struct p9_server *fz_srv;
uint64_t fz_now_ms(void);
/* Waits until all connections are gone; then there must be no fid, lock waiter or descriptor that was not there before, and
 * nothing outside of the tree may have changed. */
void fz_nothing_is_left(void);

#endif
