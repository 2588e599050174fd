/* SPDX-License-Identifier: MIT */
/*
 * Ticks of the TSC that single exits cost the guest: the shortest of ten times
 * so many rounds, for a host that does something else meanwhile.
 */
#include "guests/guest.h"

#define TIMES 10
#define ROUNDS rounds
#define V_SELF 0x61

static u32 rounds;

/* One instruction ROUNDS times; an empty loop is taken off. */
#define MEASURE(name, text, ...)                                       \
	static u64 name(void)                                          \
	{                                                              \
		u64 start = rdtsc();                                   \
		for (unsigned i = 0; i < ROUNDS; i++)                  \
			__asm__ volatile(text                          \
					 :                             \
					 : __VA_ARGS__                 \
					 : "rax", "rbx", "rcx", "rdx", \
					   "memory");                  \
		return rdtsc() - start;                                \
	}

MEASURE(empty, "xor %%eax, %%eax; xor %%ecx, %%ecx; xor %%edx, %%edx", "i"(0))
MEASURE(do_cpuid, "xor %%eax, %%eax; xor %%ecx, %%ecx; xor %%edx, %%edx; cpuid",
	"i"(0))
MEASURE(do_in,
	"mov $0x1234, %%edx; xor %%eax, %%eax; xor %%ecx, %%ecx;"
	"in %%dx, %%al",
	"i"(0))
MEASURE(do_pic,
	"xor %%eax, %%eax; xor %%ecx, %%ecx; xor %%edx, %%edx;"
	"in $0x21, %%al",
	"i"(0))
MEASURE(do_rdmsr,
	"mov $0x1b, %%ecx; xor %%eax, %%eax; xor %%edx, %%edx;"
	"rdmsr",
	"i"(0))
MEASURE(do_vmcall,
	"mov $0x4d4f0000, %%eax; xor %%ecx, %%ecx;"
	"xor %%edx, %%edx; vmcall",
	"i"(0))
MEASURE(do_cr8,
	"xor %%eax, %%eax; xor %%ecx, %%ecx; xor %%edx, %%edx;"
	"mov %%rax, %%cr8",
	"i"(0))
MEASURE(do_mmio,
	"mov $0xfee00030, %%ecx; xor %%eax, %%eax;"
	"xor %%edx, %%edx; mov (%%rcx), %%eax",
	"i"(0))
/* Eight instructions in turn, at one address each. */
MEASURE(do_mmio_turns,
	"mov $0xfee00030, %%ecx; xor %%eax, %%eax; xor %%edx, %%edx;"
	".rept 8; mov (%%rcx), %%eax; .endr",
	"i"(0))
/* Its number, then what it holds. */
MEASURE(do_ioapic,
	"mov $0xfec00000, %%ecx; xor %%eax, %%eax; xor %%edx, %%edx;"
	"movl $0x10, (%%rcx); mov 0x10(%%rcx), %%eax",
	"i"(0))
MEASURE(do_eoi,
	"mov $0x80b, %%ecx; xor %%eax, %%eax; xor %%edx, %%edx;"
	"wrmsr",
	"i"(0))

MEASURE(do_self_ipi,
	"mov $0x83f, %%ecx; mov $0x61, %%eax; xor %%edx, %%edx;"
	"wrmsr",
	"i"(0))

static void end_of_self(struct frame *f)
{
	(void)f;
	lapic_write(LAPIC_EOI, 0);
}

static u64 least(u64 (*run)(void))
{
	u64 ticks = ~0ull;

	for (unsigned i = 0; i < TIMES; i++) {
		u64 now = run();

		if (now < ticks)
			ticks = now;
	}
	return ticks;
}

static void in_x2apic_mode(void)
{
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BIT(10));
	x2apic = true;
	lapic_on();
	handlers[V_SELF] = end_of_self;
	sti();
}

struct measure {
	const char *name;
	u64 (*run)(void);
	u32 exits;
};

void bench(void)
{
	static const struct measure list[] = {
		{"cpuid", do_cpuid, 1},
		{"port that nobody has", do_in, 1},
		{"port of the PIC", do_pic, 1},
		{"rdmsr", do_rdmsr, 1},
		{"vmcall", do_vmcall, 1},
		{"mov cr8", do_cr8, 1},
		{"LAPIC register by MMIO", do_mmio, 1},
		{"LAPIC register by MMIO, eight instructions in turn",
		 do_mmio_turns, 8},
		{"IOAPIC register (two exits)", do_ioapic, 1},
		{"x2APIC EOI", do_eoi, 1},
		{"x2APIC self-IPI, handler, EOI", do_self_ipi, 1},
	};

	rounds = (u32)option("rounds", 100);
	for (unsigned i = 0; i < COUNT(list); i++) {
		u64 all = (u64)rounds * list[i].exits;

		if (list[i].run == do_eoi)
			in_x2apic_mode();
		print("bench: %s %lu\n", list[i].name,
		      (least(list[i].run) - least(empty) + all / 2) / all);
	}
	finish(0);
}
