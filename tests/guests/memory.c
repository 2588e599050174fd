/* SPDX-License-Identifier: MIT */
/* Accesses that the EPT refuses: device registers, and where nothing is. */
#include "guests/guest.h"

#define VERSION (LAPIC_PAGE + 16 * LAPIC_VERSION)
#define DFR (LAPIC_PAGE + 16 * LAPIC_DFR)
#define TPR (LAPIC_PAGE + 16 * LAPIC_TPR)
#define ICR_HIGH (LAPIC_PAGE + 16 * LAPIC_ICR_HIGH)
#define BIOS 0xF0000u

/* Behind the end of RAM there is nothing up to the display's BARs. */
static u64 hole(void)
{
	return ram_end + 64 * MIB;
}

static void test_hole(void)
{
	u64 at = hole();

	check(*(volatile u8 *)at, 0xff);
	check(*(volatile u16 *)(at + 2), 0xffff);
	check(*(volatile u32 *)(at + 4), 0xffffffff);
	check(*(volatile u64 *)(at + 8), ~0ull);
	*(volatile u8 *)at = 0;
	*(volatile u16 *)(at + 2) = 0;
	*(volatile u32 *)(at + 4) = 0;
	*(volatile u64 *)(at + 8) = 0;
	check(*(volatile u64 *)(at + 8), ~0ull);
	check(*(volatile u32 *)(at + 0xffe), 0xffffffff); /* over two pages */
	*(volatile u64 *)(at + 0xffc) = 1;
}

static void test_hole_strings(void)
{
	static u32 buffer[8];
	u64 rdi = hole(), rsi, rcx = 5, rax;

	__asm__ volatile("rep stosl"
			 : "+D"(rdi), "+c"(rcx)
			 : "a"(0)
			 : "memory");
	check(rdi, hole() + 20);
	check(rcx, 0);
	rsi = hole();
	rdi = (u64)buffer;
	rcx = 4;
	__asm__ volatile("rep movsl"
			 : "+D"(rdi), "+S"(rsi), "+c"(rcx)
			 :
			 : "memory");
	check(rsi, hole() + 16);
	check(rdi, (u64)(buffer + 4));
	check(buffer[3], 0xffffffff);
	check(buffer[4], 0);
	rsi = hole();
	__asm__ volatile("lodsb"
			 : "=a"(rax), "+S"(rsi)
			 : "a"(0x1100)
			 : "memory");
	check(rax, 0x11ff);
	check(rsi, hole() + 1);
}

static void test_bios_area(void)
{
	const volatile u8 *rsdp = NULL;
	u8 first = *(volatile u8 *)(BIOS + 0x100);
	u8 sum = 0;

	for (u64 at = 0xE0000; at < 0x100000; at += 16)
		if (starts((const char *)at, "RSD PTR "))
			rsdp = (const volatile u8 *)at;
	check_true(rsdp != NULL);
	for (unsigned i = 0; rsdp && i < 20; i++)
		sum = (u8)(sum + rsdp[i]);
	check(sum, 0);
	/* ROM: writes are dropped. */
	*(volatile u8 *)(BIOS + 0x100) = (u8)~first;
	check(*(volatile u8 *)(BIOS + 0x100), first);
}

static void test_lapic_forms(void)
{
	u32 version = read32(VERSION);
	u64 rax, rbx = VERSION - 0x40, rcx = 8;

	check(version & 0xff, 0x14);
	check_true(version >> 16 >= 5);
	__asm__ volatile("mov 0x40(%1), %k0" : "=a"(rax) : "b"(rbx));
	check(rax, version);
	__asm__ volatile("mov (%1, %2, 8), %k0"
			 : "=r"(rax)
			 : "r"(rbx), "r"(rcx));
	check(rax, version);
	__asm__ volatile("movl (%1), %k0" : "=r"(rax) : "r"((u64)VERSION));
	check(rax, version);
	__asm__ volatile("movzbl (%1), %k0" : "=r"(rax) : "r"((u64)VERSION));
	check(rax, version & 0xff);
	__asm__ volatile("addr32 mov 0x40(%k1), %k0" : "=a"(rax) : "b"(rbx));
	check(rax, version);
	__asm__ volatile("mov %1, %%r8; mov (%%r8), %%r15d; mov %%r15, %0"
			 : "=r"(rax)
			 : "r"((u64)VERSION)
			 : "r8", "r15");
	check(rax, version);
	rax = 0xffffffffffffffff;
	__asm__ volatile("movabs 0xfee00030, %%eax" : "+a"(rax));
	check(rax, version);
	__asm__ volatile("mov %%fs:(%1), %k0" : "=r"(rax) : "r"((u64)VERSION));
	check(rax, version);
}

static void test_lapic_change(void)
{
	u8 zero;
	u32 old = 0x10;

	__asm__ volatile("movl $0x20, (%0)" : : "r"((u64)TPR) : "memory");
	check(read32(TPR), 0x20);
	__asm__ volatile("orl $0x0f, (%0)" : : "r"((u64)TPR) : "memory");
	check(read32(TPR), 0x2f);
	__asm__ volatile("andl $-16, (%0)" : : "r"((u64)TPR) : "memory");
	check(read32(TPR), 0x20);
	__asm__ volatile("addl %1, (%0)"
			 :
			 : "r"((u64)TPR), "r"(0x10)
			 : "memory");
	check(read32(TPR), 0x30);
	__asm__ volatile("testl $0x30, (%1); setz %0"
			 : "=r"(zero)
			 : "r"((u64)TPR));
	check(zero, 0);
	__asm__ volatile("cmpl $0x30, (%1); setz %0"
			 : "=r"(zero)
			 : "r"((u64)TPR));
	check(zero, 1);
	__asm__ volatile("xchg %0, (%1)"
			 : "+r"(old)
			 : "r"((u64)TPR)
			 : "memory");
	check(old, 0x30);
	check(read32(TPR), 0x10);
	write32(TPR, 0);
}

static void test_lapic_registers(void)
{
	write32(ICR_HIGH, 0xff123456);
	check(read32(ICR_HIGH), 0xff000000);
	write32(DFR, 0);
	check(read32(DFR), 0x0fffffff);
	write32(DFR, 0xffffffff);
	write32(VERSION, 0); /* read only */
	check_true(read32(VERSION) != 0);
}

static void test_ioapic_registers(void)
{
	u32 version = ioapic_read(1);

	check_true((version >> 16 & 0xff) >= 23);
	ioapic_write(0x3f, 0xab000000);
	check(ioapic_read(0x3f), 0xab000000);
	ioapic_write(0x3e, 0x000100ff | 0x5000); /* status bits: read only */
	check(ioapic_read(0x3e), 0x000100ff);
	ioapic_write(0x3e, 0x00010000);
	write32(IOAPIC_PAGE, 0x10);
	check(read32(IOAPIC_PAGE), 0x10);
}

static void read_there(void *arg)
{
	(void)*(volatile u32 *)arg;
}

/* MMIO is reached by the guest's own page tables, whose faults come first. */
static void test_lapic_mapped(void)
{
	extern u64 page_directories[];
	const u64 window = 0x7fa00000;

	page_directories[window >> 21] = (LAPIC_PAGE & ~0x1fffffull) | 0x83;
	write_cr3(read_cr3());
	check(read32(window + (VERSION & 0x1fffff)), read32(VERSION));
	page_directories[window >> 21] = 0;
	write_cr3(read_cr3());
	check(attempt(read_there, (void *)(window + 0x1000)), VEC_PF);
	check(fault.address, window + 0x1000);
	check(attempt(read_there, (void *)BIT(63)), VEC_GP); /* canonical? */
}

const struct test memory_tests[] = {
	{"hole", test_hole, false},
	{"hole-strings", test_hole_strings, false},
	{"bios-area", test_bios_area, false},
	{"lapic-forms", test_lapic_forms, false},
	{"lapic-change", test_lapic_change, false},
	{"lapic-registers", test_lapic_registers, false},
	{"ioapic-registers", test_ioapic_registers, false},
	{"lapic-mapped", test_lapic_mapped, false},
};
const unsigned memory_test_count = COUNT(memory_tests);
