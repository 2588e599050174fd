/* SPDX-License-Identifier: MIT */
/* Descriptor tables of one CPU, and the one IDT of all. */
#ifndef KERNEL_CPU_TABLES_H
#define KERNEL_CPU_TABLES_H

#include "arch/x86/cpu.h"

enum selector {
	SELECTOR_CODE = 8,
	SELECTOR_DATA = 16,
	SELECTOR_TSS = 24,
};

/* Interrupt stack table slots, 1 based; the rest run on the CPU's stack. */
enum ist {
	IST_NONE,
	IST_DOUBLE_FAULT,
	IST_NMI,
	IST_MACHINE_CHECK,
	IST_COUNT,
};

/* SDM figure 7-11 */
struct PACKED tss {
	u32 reserved0;
	u64 rsp[3];
	u64 reserved1;
	u64 ist[7];
	u64 reserved2;
	u16 reserved3;
	u16 io_map;
};

_Static_assert(sizeof(struct tss) == 104, "SDM figure 7-11");

struct cpu_tables {
	u64 gdt[5];
	struct tss tss;
};

/*
 * Loads GDT, TSS (the caller has put the stacks' tops into tss.ist) and the
 * IDT that all CPUs share, and sets GS.base, through which percpu() finds its
 * CPU.
 */
void cpu_tables_load(struct cpu_tables *tables, void *gs_base);

/* The IDT's address, for the VMCS. */
u64 idt_base(void);

#endif
