/* SPDX-License-Identifier: BSD-2-Clause */
/* slow.h - the local backend with calls that sometimes sleep, as on a slow disk: the server then hands its loop on. */
#ifndef P9_FUZZ_SLOW_H
#define P9_FUZZ_SLOW_H
#include "p9/backend.h"

extern const struct p9_backend fz_slow;
/* From now on `naps` calls sleep, one after `every` that do not. */
void fz_slow_set(unsigned naps, unsigned every);

#endif
