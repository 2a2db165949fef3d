/* SPDX-License-Identifier: BSD-2-Clause */
/* boot.S - from the monitor's 32-bit entry to C in long mode, and from interrupts to C.
 *
 * PVH (an ELF note) and multiboot (multiboot.S, in the 32-bit image only, because QEMU refuses it in an ELF64) both enter
 * in protected mode, paging off, with the address of their information in EBX. The lowest 4 GiB are mapped as they are,
 * in pages of 2 MiB; machine.c maps what lies above when a device is there. EAX says multiboot only when EBX does not
 * point to PVH's magic number, for PVH leaves it undefined.
 */
	.section .note.Xen, "a", @note
	.balign 4
	.long 4, 4, 18			/* name, description, XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long demo_entry

	.section .boot, "ax"
	.code32
	.globl demo_entry
demo_entry:
	cli
	cld
	movl %eax, %ebp
	movl $demo_bss, %edi		/* a monitor that resets us may not have cleared it */
	movl $demo_bss_end, %ecx
	subl %edi, %ecx
	shrl $2, %ecx
	xorl %eax, %eax
	rep stosl
	movl $demo_stack_end, %esp

	movl $demo_pd, %edi		/* 2048 pages of 2 MiB: present, writable, large */
	movl $0x83, %eax
	movl $2048, %ecx
1:	movl %eax, (%edi)
	addl $8, %edi
	addl $0x200000, %eax
	loop 1b
	movl $demo_pd + 3, %eax
	movl $demo_pdpt, %edi
	movl $4, %ecx
1:	movl %eax, (%edi)
	addl $8, %edi
	addl $4096, %eax
	loop 1b
	movl $demo_pdpt + 3, demo_pml4

	movl %cr4, %eax
	orl $0x20, %eax			/* PAE */
	movl %eax, %cr4
	movl $demo_pml4, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx		/* EFER */
	rdmsr
	orl $0x100, %eax		/* LME */
	wrmsr
	movl %cr0, %eax
	orl $0x80000001, %eax
	movl %eax, %cr0
	lgdt demo_gdtr
	ljmp $8, $long_mode

	.code64
long_mode:
	movl $16, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	movl %ebp, %edi
	movl %ebx, %esi
	xorl %ebp, %ebp
	call demo_main
1:	hlt
	jmp 1b

	/* Interrupts: vector and, where the processor gives none, an error code of 0. */
	.altmacro
	.macro trap vector
	.balign 16
	.if !((\vector >= 10 && \vector <= 14) || \vector == 8 || \vector == 17 || \vector == 21)
	push $0
	.endif
	push $\vector
	jmp trap_common
	.endm
	.text
	.globl demo_traps
	.balign 16
demo_traps:
	number = 0
	.rept 48
	trap %number
	number = number + 1
	.endr
trap_common:
	cld
	push %rax
	push %rcx
	push %rdx
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	movq 72(%rsp), %rdi		/* vector */
	movq 80(%rsp), %rsi		/* error code */
	movq 88(%rsp), %rdx		/* where it happened */
	push %rbx
	movq %rsp, %rbx
	andq $-16, %rsp
	call demo_trap
	movq %rbx, %rsp
	pop %rbx
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rdx
	pop %rcx
	pop %rax
	addq $16, %rsp
	iretq

	.section .rodata
	.balign 8
gdt:	.quad 0
	.quad 0x00af9a000000ffff	/* 8: code, 64 bits */
	.quad 0x00cf92000000ffff	/* 16: data */
demo_gdtr:
	.word demo_gdtr - gdt - 1
	.quad gdt

	.bss
	.balign 4096
	.globl demo_pml4
demo_pml4:	.skip 4096
demo_pdpt:	.skip 4096
demo_pd:	.skip 4 * 4096
demo_stack:	.skip 65536
demo_stack_end:
	.section .note.GNU-stack, "", @progbits
