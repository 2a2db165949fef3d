/* SPDX-License-Identifier: BSD-2-Clause */
/* fz_print.c - fuzz target: the printer, into buffers of every small size. What it prints goes to logs, so nothing but
 * printable ASCII may come out of it. */
#include <stdio.h>
#include "frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct p9_msg m;
	if (p9_wire_decode(data, size, 0, &m) < 0) {
		return 0;
	}
	for (size_t cap = 1; cap < 600; cap += 1 + cap / 8) {
		fz_frame_print(&m, cap);
	}
	fz_frame_print(&m, 1 << 16);
	return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	return seed % 4 == 0 ? LLVMFuzzerMutate(data, size, max)
			     : fz_mutate(data, size, max, seed, seed & 16 ? FZ_T : FZ_R);
}
