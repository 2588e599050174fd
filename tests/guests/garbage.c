/* SPDX-License-Identifier: MIT */
/*
 * Random bytes executed in ring 0 with random registers. Only the image is
 * mapped: code and tables read-only, data writable. An NMI from the PIT ends
 * what runs on. The number of the run is kept in CMOS memory, where it
 * outlives a reset, and is the seed: what happened can be repeated.
 */
#include "guests/guest.h"

#define CMOS_RUN 0x60
#define MAGIC 0x5A
#define CODE_SIZE 64
#define RTE_NMI (4u << 8)
#define PIN_PIT 2

extern u64 pml4[], page_directories[], small_pages[];
extern char image_start[], data_start[], tables_start[], tables_end[];
extern char garbage_stack[];

/* garbage.asm */
extern u64 garbage_registers[16];
__attribute__((noreturn)) void garbage_enter(const u8 *code);
void garbage_again(void);
void garbage_idt(u64 *idt);

static u8 code[4096] __attribute__((aligned(4096)));
static u64 seed;
static u32 first_run __attribute__((section(".tables")));
static u32 runs __attribute__((section(".tables")));
static u32 every __attribute__((section(".tables")));

static u64 random(void)
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return seed * 0x2545F4914F6CDD1Dull;
}

static u8 cmos(u8 reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static u32 run_number(void)
{
	u32 run = 0;

	if (cmos(CMOS_RUN + 3) != MAGIC)
		return first_run;
	for (u8 i = 0; i < 3; i++)
		run |= (u32)cmos((u8)(CMOS_RUN + i)) << (8 * i);
	return run;
}

static void set_run_number(u32 run)
{
	for (u8 i = 0; i < 4; i++) {
		outb(0x70, (u8)(CMOS_RUN + i));
		outb(0x71, i < 3 ? (u8)(run >> (8 * i)) : MAGIC);
	}
}

/* Instructions that exit, and their neighbours in the opcode maps. */
static const u8 heads[][3] = {
	{2, 0x0f, 0x01}, {2, 0x0f, 0x00}, {2, 0x0f, 0x20}, {2, 0x0f, 0x22},
	{2, 0x0f, 0x21}, {2, 0x0f, 0x23}, {2, 0x0f, 0x30}, {2, 0x0f, 0x32},
	{2, 0x0f, 0x33}, {2, 0x0f, 0xa2}, {2, 0x0f, 0x06}, {2, 0x0f, 0x08},
	{2, 0x0f, 0x09}, {2, 0x0f, 0xc7}, {2, 0x0f, 0xae}, {2, 0x0f, 0x78},
	{2, 0x0f, 0x79}, {2, 0x0f, 0x38}, {2, 0x0f, 0x07}, {2, 0x0f, 0x05},
	{2, 0x0f, 0x34}, {2, 0x0f, 0x35}, {2, 0x0f, 0xaa}, {2, 0x0f, 0x37},
	{1, 0x6c, 0},	 {1, 0x6d, 0},	  {1, 0x6e, 0},	   {1, 0x6f, 0},
	{1, 0xe4, 0},	 {1, 0xec, 0},	  {1, 0xed, 0},	   {1, 0xee, 0},
	{1, 0xef, 0},	 {1, 0xf4, 0},	  {1, 0xcd, 0},	   {1, 0xcf, 0},
	{1, 0x8e, 0},	 {1, 0xfb, 0},	  {1, 0x9d, 0},	   {1, 0xcb, 0},
};

static const u8 prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e,
			      0x36, 0x64, 0x65, 0x48, 0x4c, 0x40};

static void fill_code(void)
{
	unsigned at = 0;

	for (unsigned i = 0; i < CODE_SIZE; i++)
		code[i] = (u8)(random() >> 32);
	for (unsigned i = 0; i < 4; i++) {
		const u8 *head = heads[random() % COUNT(heads)];

		if (random() & BIT(40))
			code[at++] = prefixes[random() % COUNT(prefixes)];
		memcpy(code + at, head + 1, head[0]);
		/* Page tables anywhere end most runs: hostile-one has that. */
		if (head[2] == 0x22 && (code[at + 2] & 0x38) == 0x18)
			code[at + 2] ^= 0x18;
		at += head[0] + (unsigned)(random() >> 33) % 3;
	}
}

static void fill_registers(void)
{
	static const u64 favourites[] = {
		0,	    1,		0x1b,
		0x277,	    0xc0000080, 0x830,
		0x6e0,	    0x3c5,	0xcfc,
		0x60,	    0x21,	0x3ff,
		0x80000000, 0xfee00000, 0xffffffffffffffff,
		0x4d4f0000, 0x4d4f0001, 0x4d4f0002,
		0x4d4f0003, 0x40000000,
	};

	for (unsigned i = 0; i < 16; i++) {
		u64 r = random();

		switch (r & 3) {
		case 0:
			r = favourites[(r >> 32) % COUNT(favourites)];
			break;
		case 1: /* into the image */
			r = (u64)image_start + (r >> 40 & 0xfffff);
			break;
		case 2:
			r = r >> 48;
			break;
		}
		garbage_registers[i] = r;
	}
	garbage_registers[4] = (u64)garbage_stack; /* RSP */
}

/* 16-18 MiB in small pages; all of the rest is not there. */
static void map(void)
{
	for (u64 i = 0; i < 512; i++) {
		u64 at = (u64)image_start + 4096 * i;
		bool fixed = at < (u64)data_start ||
			     (at >= (u64)tables_start && at < (u64)tables_end);

		small_pages[i] = at | (fixed ? 1 : 3);
	}
	for (u64 i = 0; i < 2048; i++)
		if (i != 8)
			page_directories[i] = 0;
	page_directories[8] = (u64)small_pages | 3;
	write_cr3((u64)pml4);
}

static void watchdog(u16 count)
{
	outb(0x43, 0x30); /* mode 0: one edge, when the count is used up */
	if (!count)
		return;
	outb(0x40, (u8)count);
	outb(0x40, (u8)(count >> 8));
}

/* The first call, and again after each exception or NMI. */
void garbage_again(void)
{
	u32 run = run_number();

	watchdog(0);
	/* An APIC that was switched off takes no NMI: off, and on again. */
	wrmsr(MSR_APIC_BASE, LAPIC_PAGE | BIT(8));
	wrmsr(MSR_APIC_BASE, LAPIC_PAGE | BIT(11) | BIT(8));
	if (run % every == 0 || run >= first_run + runs) {
		console_init();
		print("run %u\n", run);
	}
	if (run >= first_run + runs) {
		print("hostile: all garbage done\n");
		finish(0);
	}
	set_run_number(run + 1);
	seed = (run + 1) * 0x9E3779B97F4A7C15ull;
	fill_code();
	fill_registers();
	watchdog(2000);
	garbage_enter(code);
}

void garbage(void)
{
	u64 *idt;
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) pointer;

	__asm__ volatile("sidt %0" : "=m"(pointer));
	idt = (u64 *)pointer.base;
	garbage_idt(idt);
	first_run = (u32)option("start", 0);
	runs = (u32)option("runs", 10000);
	every = (u32)option("every", 16);
	ioapic_route(PIN_PIT, RTE_NMI);
	map();
	garbage_again();
}
