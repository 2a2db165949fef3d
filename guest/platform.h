/* SPDX-License-Identifier: BSD-2-Clause */
/* platform.h - the six functions that a kernel, a boot loader or a test gives to the driver in guest/.
 *
 * Nothing else is asked of the platform but memcpy, memmove, memset and memcmp, which compilers want in any case. All are called
 * by whoever calls the driver, with no lock of the driver's held (it has none).
 */
#ifndef P9_GUEST_PLATFORM_H
#define P9_GUEST_PLATFORM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum p9_space {
	P9_SPACE_MEMORY, /* `addr` is a physical address of device registers */
	P9_SPACE_PORT,	 /* `addr` is an I/O port; machines without them: reads give all ones */
	P9_SPACE_CONFIG, /* PCI: bus << 20 | device << 15 | function << 12 | register, which is ECAM's offset */
};

/* Reads or writes `size` (1, 2 or 4) bytes of a device, little-endian as PCI is, with one access of just that size, in
 * program order, and after all stores to memory before it. What is not there reads as all ones. */
uint32_t p9_platform_read(enum p9_space space, uint64_t addr, unsigned size);
void p9_platform_write(enum p9_space space, uint64_t addr, unsigned size, uint32_t value);

/* Zeroed memory that stays where it is for ever, aligned to 4096, in one piece for devices: *bus is its address for
 * them (the physical one, where no IOMMU says otherwise), below 2^44 for legacy devices. NULL when there is none. Called
 * by p9_guest_start() only, and for a device once: what a start has taken the next one uses again. */
void *p9_platform_alloc(size_t size, uint64_t *bus);

/* Nanoseconds since any moment. Only differences are used, for giving up on a device. */
uint64_t p9_platform_clock(void);

/* Called again and again while an answer is awaited. Without `sleep`: let others run, or pause. With it: sleep until
 * p9_guest_interrupt() has been called since the last p9_platform_wait() returned, at most some 10 ms. It may
 * always return early. */
void p9_platform_wait(bool sleep);

/* A line for whoever looks after the machine: a device that cannot be used, and why. No newline at its end. */
void p9_platform_say(const char *text);

#endif
