/* SPDX-License-Identifier: BSD-2-Clause */
/* multiboot.S - the header that multiboot loaders look for; in the 32-bit image only, see boot.S. */
	.section .multiboot, "a"
	.balign 4
	.long 0x1badb002, 0x00000002, -(0x1badb002 + 0x00000002)	/* wants the memory's size */
	.section .note.GNU-stack, "", @progbits
