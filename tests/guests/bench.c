/* SPDX-License-Identifier: MIT */
/* Ticks of the TSC that one exit costs the guest. */
#include "guests/guest.h"

#define ROUNDS rounds

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
MEASURE(do_eoi,
	"mov $0x80b, %%ecx; xor %%eax, %%eax; xor %%edx, %%edx;"
	"wrmsr",
	"i"(0))

struct measure {
	const char *name;
	u64 (*run)(void);
};

void bench(void)
{
	static const struct measure list[] = {
		{"cpuid", do_cpuid},	{"in", do_in},
		{"rdmsr", do_rdmsr},	{"vmcall", do_vmcall},
		{"mov cr8", do_cr8},	{"mmio read", do_mmio},
		{"x2apic eoi", do_eoi},
	};

	rounds = (u32)option("rounds", 1000);
	for (unsigned i = 0; i < COUNT(list); i++) {
		u64 nothing, ticks;

		if (list[i].run == do_eoi)
			wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BIT(10));
		list[i].run();
		nothing = empty();
		ticks = list[i].run();
		print("bench: %s %lu\n", list[i].name,
		      (ticks - nothing + ROUNDS / 2) / ROUNDS);
	}
	finish(0);
}
