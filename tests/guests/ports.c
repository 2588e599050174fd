/* SPDX-License-Identifier: MIT */
/* Port I/O: SDM table 28-5. The UART's scratch register keeps a byte. */
#include "guests/guest.h"

#define NOBODY 0x1234 /* a port where nothing answers */
#define SCRATCH 0x3FF
#define PIC_MASK 0x21

/* 2 MiB of RAM, and behind it, for string instructions, nothing. */
#define WINDOW 0x7fc00000u
#define WINDOW_END (WINDOW + 0x200000u)
extern u64 page_directories[];
static u8 *const sandbox = (u8 *)0x1200000;

static void window_open(void)
{
	page_directories[WINDOW >> 21] = (u64)sandbox | 0x83;
	page_directories[(WINDOW >> 21) + 1] = 0;
	write_cr3(read_cr3());
}

static void test_in_out(void)
{
	u64 rax;

	check(inb(NOBODY), 0xff);
	check(inw(NOBODY), 0xffff);
	check(inl(NOBODY), 0xffffffff);
	outb(NOBODY, 0);
	outw(NOBODY, 0);
	outl(NOBODY, 0);
	outb(PIC_MASK, 0xa5);
	check(inb(PIC_MASK), 0xa5);
	outb(PIC_MASK, 0xff);
	__asm__ volatile("in %%dx, %%al"
			 : "=a"(rax)
			 : "a"(0x1122334455667788), "d"(NOBODY));
	check(rax, 0x11223344556677ff);
	__asm__ volatile("in %%dx, %%ax"
			 : "=a"(rax)
			 : "a"(0x1122334455667788), "d"(NOBODY));
	check(rax, 0x112233445566ffff);
	__asm__ volatile("in %%dx, %%eax"
			 : "=a"(rax)
			 : "a"(0x1122334455667788), "d"(NOBODY));
	check(rax, 0xffffffff);
	__asm__ volatile("in $0x21, %%al; out %%al, $0x21" : "=a"(rax));
	check(rax & 0xff, 0xff);
}

struct string {
	u64 rcx, address;
};

static struct string out_bytes(const void *from, u64 count, bool down)
{
	struct string s = {count, (u64)from};

	if (down)
		__asm__ volatile("std");
	__asm__ volatile("rep outsb; cld"
			 : "+S"(s.address), "+c"(s.rcx)
			 : "d"(SCRATCH)
			 : "memory");
	return s;
}

static void test_outs(void)
{
	struct string s;

	memcpy(sandbox, "abcdef", 6);
	s = out_bytes(sandbox, 5, false);
	check(s.rcx, 0);
	check(s.address, (u64)sandbox + 5);
	check(inb(SCRATCH), 'e');
	s = out_bytes(sandbox + 5, 4, true);
	check(s.address, (u64)sandbox + 1);
	check(inb(SCRATCH), 'c');
	s = out_bytes(sandbox, 0, false);
	check(s.address, (u64)sandbox);
	check(inb(SCRATCH), 'c');
}

/* More than one burst, over the ends of pages. */
static void test_ins(void)
{
	u64 rcx = 1000, rdi = (u64)sandbox + 0x0f00;
	unsigned wrong = 0;

	memset(sandbox, 0, 0x3000);
	outb(SCRATCH, 0x5a);
	__asm__ volatile("rep insb"
			 : "+D"(rdi), "+c"(rcx)
			 : "d"(SCRATCH)
			 : "memory");
	check(rcx, 0);
	check(rdi, (u64)sandbox + 0x0f00 + 1000);
	for (unsigned i = 0; i < 0x3000; i++)
		wrong += sandbox[i] !=
			 (i >= 0x0f00 && i < 0x0f00 + 1000 ? 0x5a : 0);
	check(wrong, 0);
	rdi = (u64)sandbox;
	__asm__ volatile("insl" : "+D"(rdi) : "d"(NOBODY) : "memory");
	check(rdi, (u64)sandbox + 4);
	check(*(u32 *)sandbox, 0xffffffff);
	rdi = (u64)sandbox;
	__asm__ volatile("insw" : "+D"(rdi) : "d"(PIC_MASK) : "memory");
	check(rdi, (u64)sandbox + 2);
	check(sandbox[0], 0xff);
}

/* Addresses of 32 bits: the registers' upper halves are cleared. */
static void test_ins_address32(void)
{
	u64 rdi = 0xabcd00000000 | (u64)sandbox, rcx = BIT(40) | 3;

	outb(SCRATCH, 0x77);
	__asm__ volatile("addr32 rep insb"
			 : "+D"(rdi), "+c"(rcx)
			 : "d"(SCRATCH)
			 : "memory");
	check(rcx, 0);
	check(rdi, (u64)sandbox + 3);
	check(sandbox[2], 0x77);
}

static void ins_over_end(void *arg)
{
	(void)arg;
	__asm__ volatile("rep insb"
			 :
			 : "D"(WINDOW_END - 10), "c"(20), "d"(SCRATCH)
			 : "memory");
}

static void outs_over_end(void *arg)
{
	(void)arg;
	__asm__ volatile("rep outsb"
			 :
			 : "S"(WINDOW_END - 10), "c"(20), "d"(SCRATCH)
			 : "memory");
}

static void test_string_fault(void)
{
	window_open();
	outb(SCRATCH, 0x33);
	check(attempt(ins_over_end, NULL), VEC_PF);
	check(fault.address, WINDOW_END);
	check(fault.error, 2);
	check(fault.frame.rdi, WINDOW_END);
	check(fault.frame.rcx, 10);
	check(sandbox[0x1fffff], 0x33);
	sandbox[0x1fffff] = 0x44;
	check(attempt(outs_over_end, NULL), VEC_PF);
	check(fault.address, WINDOW_END);
	check(fault.error, 0);
	check(fault.frame.rsi, WINDOW_END);
	check(fault.frame.rcx, 10);
	check(inb(SCRATCH), 0x44);
}

/* -- the devices behind the ports, as far as a kernel sees them */

static u32 pci_read(u32 function, u8 offset)
{
	outl(0xCF8, 0x80000000 | function << 8 | (offset & 0xfc));
	return inl(0xCFC);
}

static void test_pci(void)
{
	check(pci_read(0, 0) & 0xffff, 0x8086); /* 00:00.0 host bridge */
	check(pci_read(0, 8) >> 16, 0x0600);
	check(pci_read(0x10, 8) >> 24, 3);    /* 00:02.0 display */
	check(pci_read(0xa8, 0), 0xffffffff); /* 00:15.0 absent */
	outl(0xCF8, 0x80000000);
	check(inw(0xCFC), 0x8086);
	check(inb(0xCFD), 0x80);
	outl(0xCF8, 0); /* not enabled: a port like any other */
	check(inl(0xCFC), 0xffffffff);
}

static u8 cmos(u8 reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static void test_rtc(void)
{
	u8 second = cmos(0);
	u64 start = rdtsc();

	check(cmos(0x0d), 0x80); /* battery */
	check_true(cmos(8) >= 1 && cmos(8) <= 0x12);
	while (cmos(0) == second && rdtsc() - start < 500000000)
		relax();
	check_true(cmos(0) != second);
}

static u32 pm_timer(void)
{
	return inl(0x608);
}

static void test_pm_timer(void)
{
	u32 start = pm_timer(), end;
	u64 tsc = rdtsc();

	while (rdtsc() - tsc < 10000000)
		relax();
	end = pm_timer();
	/* 3.579545 MHz beside the TSC's own rate, which CPUID may not tell;
	 * of 24 bits or 32. */
	end = (end - start) & 0xffffff;
	check_true(end > 1000 && end < 0x800000);
	check(inw(0x604) & 1, 1); /* SCI_EN */
}

static void test_pit(void)
{
	u16 first, second;

	outb(0x43, 0x34);
	outb(0x40, 0xff);
	outb(0x40, 0xff);
	outb(0x43, 0);
	first = inb(0x40);
	first = (u16)(first | inb(0x40) << 8);
	for (unsigned i = 0; i < 20000; i++)
		relax();
	outb(0x43, 0);
	second = inb(0x40);
	second = (u16)(second | inb(0x40) << 8);
	check_true(first != second);
	/* Channel 2 by its gate, and its output at port 0x61. */
	outb(0x61, 1);
	outb(0x43, 0xb0);
	outb(0x42, 100);
	outb(0x42, 0);
	check(inb(0x61) & 0x20, 0);
	for (u64 start = rdtsc(); rdtsc() - start < 5000000;)
		relax();
	check(inb(0x61) & 0x20, 0x20);
	outb(0x61, 0);
	pit_periodic(0);
}

const struct test port_tests[] = {
	{"in-out", test_in_out, false},
	{"outs", test_outs, false},
	{"ins", test_ins, false},
	{"ins-address32", test_ins_address32, false},
	{"string-fault", test_string_fault, false},
	{"pci", test_pci, false},
	{"rtc", test_rtc, false},
	{"pm-timer", test_pm_timer, true},
	{"pit", test_pit, false},
};
const unsigned port_test_count = COUNT(port_tests);
