/* SPDX-License-Identifier: MIT */
#include "kernel/cpu_tables.h"

/* SDM figure 6-8 */
struct gate {
	u16 offset_low, selector;
	u8 ist, type;
	u16 offset_mid;
	u32 offset_high, reserved;
};

_Static_assert(sizeof(struct gate) == 16, "SDM figure 6-8");

enum {
	STUB_SIZE = 8,
	GATE_INTERRUPT = 0x8e, /* present, DPL 0, interrupts off */
	TSS_AVAILABLE = 0x89,
};

extern const char trap_stubs[]; /* traps.asm */

static struct gate idt[256];

static u8 ist_of(unsigned vector)
{
	switch (vector) {
	case VECTOR_DF:
		return IST_DOUBLE_FAULT;
	case VECTOR_NMI:
		return IST_NMI;
	case VECTOR_MC:
		return IST_MACHINE_CHECK;
	default:
		return IST_NONE;
	}
}

static void fill_idt(void)
{
	for (unsigned n = 0; n < ARRAY_SIZE(idt); n++) {
		u64 stub = (u64)trap_stubs + n * STUB_SIZE;

		idt[n] = (struct gate){
			.offset_low = (u16)stub,
			.selector = SELECTOR_CODE,
			.ist = ist_of(n),
			.type = GATE_INTERRUPT,
			.offset_mid = (u16)(stub >> 16),
			.offset_high = (u32)(stub >> 32),
		};
	}
}

static void fill_gdt(struct cpu_tables *t)
{
	u64 base = (u64)&t->tss;

	t->gdt[1] = 0x00209b0000000000;
	t->gdt[2] = 0x0000930000000000;
	t->gdt[3] = (sizeof(t->tss) - 1) | (base & 0xffffff) << 16 |
		    (u64)TSS_AVAILABLE << 40 | (base >> 24 & 0xff) << 56;
	t->gdt[4] = base >> 32;
}

void cpu_tables_load(struct cpu_tables *t, void *gs_base)
{
	struct descriptor_pointer gdtr = {sizeof(t->gdt) - 1, (u64)t->gdt};
	struct descriptor_pointer idtr = {sizeof(idt) - 1, (u64)idt};

	fill_idt();
	fill_gdt(t);
	t->tss.io_map = sizeof(t->tss);
	lgdt(&gdtr);
	load_segments(SELECTOR_CODE, SELECTOR_DATA);
	ltr(SELECTOR_TSS);
	lidt(&idtr);
	wrmsr(MSR_GS_BASE, (u64)gs_base);
}

u64 idt_base(void)
{
	return (u64)idt;
}
