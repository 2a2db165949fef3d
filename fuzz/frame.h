/* SPDX-License-Identifier: BSD-2-Clause */
/* frame.h - what must hold for any bytes that are taken for a frame. */
#ifndef P9_FUZZ_FRAME_H
#define P9_FUZZ_FRAME_H
#include "gen.h"

/* Both codecs agree, what decodes encodes to the same bytes, checks and printer stay in bounds. Returns whether it is a
 * message. */
bool fz_frame(const uint8_t *data, size_t size);
/* Prints into buffers of `cap` bytes with a sanitizer's red zone behind them. */
void fz_frame_print(const struct p9_msg *m, size_t cap);

#endif
