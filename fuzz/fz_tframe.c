/* SPDX-License-Identifier: BSD-2-Clause */
/* fz_tframe.c - fuzz target: requests, as a server decodes them. An input is one frame, or several. */
#include <stdio.h>
#include "frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool whole;
	fz_frame(data, size);
	for (size_t pos = 0, n; pos < size; pos += n) {
		n = fz_next(data, size, pos, &whole);
		if (n < size) {
			fz_frame(data + pos, n);
		}
	}
	return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	return seed % 4 == 0 ? LLVMFuzzerMutate(data, size, max) : fz_mutate(data, size, max, seed, FZ_T);
}
