/* SPDX-License-Identifier: MIT */
/*
 * What of the CPU survives a reset: registers that no VMCS switches are
 * printed, made dirty, and printed again behind a reset (SDM table 10-1).
 */
#include "guests/guest.h"

static const u32 msrs[] = {0xc0000081, 0xc0000082, 0xc0000083,
			   0xc0000084, 0xc0000102, 0xc0000103};

static struct {
	u16 fcw, fsw;
	u8 tags, rest[19];
	u32 mxcsr, mask;
	u8 x87[128], xmm[256], unused[224];
} __attribute__((packed, aligned(64))) area;

#define DEBUG_REGISTER(n)                                             \
	static u64 read_dr##n(void)                                   \
	{                                                             \
		u64 value;                                            \
		__asm__ volatile("mov %%dr" #n ", %0" : "=r"(value)); \
		return value;                                         \
	}                                                             \
	static void write_dr##n(u64 value)                            \
	{                                                             \
		__asm__ volatile("mov %0, %%dr" #n ::"r"(value));     \
	}

DEBUG_REGISTER(0)
DEBUG_REGISTER(1)
DEBUG_REGISTER(2)
DEBUG_REGISTER(3)
DEBUG_REGISTER(6)
DEBUG_REGISTER(7)

static u32 sum(const u8 *p, unsigned count)
{
	u32 value = 0;

	while (count--)
		value = value * 31 + *p++;
	return value;
}

static void print_state(const char *when)
{
	__asm__ volatile("fxsave64 %0" : "=m"(area));
	print("state %s: dr %lx %lx %lx %lx %lx %lx cr2 %lx fpu %x %x %x %x "
	      "mxcsr %x xmm %x msr",
	      when, read_dr0(), read_dr1(), read_dr2(), read_dr3(),
	      read_dr6() & ~0x10000ull, read_dr7(), read_cr2(), area.fcw,
	      area.fsw, area.tags, sum(area.x87, sizeof(area.x87)), area.mxcsr,
	      sum(area.xmm, sizeof(area.xmm)));
	for (unsigned n = 0; n < COUNT(msrs); n++)
		print(" %lx", rdmsr(msrs[n]));
	print("\n");
}

static void make_dirty(void)
{
	write_dr0(0x123456);
	write_dr1(0x23456);
	write_dr2(0x3456);
	write_dr3(0x456);
	write_dr6(0xffff4ff1);
	write_dr7(0x455);
	write_cr2(0x777000);
	memset(&area.x87, 0x3c, sizeof(area.x87) + sizeof(area.xmm));
	area.fcw = 0x360;
	area.tags = 0x55;
	area.mxcsr = 0x100;
	__asm__ volatile("fxrstor64 %0" ::"m"(area));
	for (unsigned n = 0; n < COUNT(msrs); n++)
		wrmsr(msrs[n], 0x1000 * (n + 1));
}

/* By port 0xCF9, once. */
void state(void)
{
	write_cr4(read_cr4() | BIT(9)); /* OSFXSR */
	if (cmos_get() == 0x5A01) {
		print_state("behind");
		finish(0);
	}
	make_dirty();
	print_state("dirty");
	cmos_set(0x5A01);
	outb(0xCF9, 2);
	outb(0xCF9, 6);
	for (;;)
		relax();
}
