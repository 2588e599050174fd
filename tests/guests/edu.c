/* SPDX-License-Identifier: MIT */
/*
 * Drives QEMU's "edu" (docs/specs/edu.txt there), as a driver would: found
 * by configuration mechanism #1, its BAR, DMA, MSI and INTx.
 */
#include "guests/guest.h"

enum edu {
	EDU_ID = 0x00,
	EDU_LIVENESS = 0x04,
	EDU_FACTORIAL = 0x08,
	EDU_STATUS = 0x20,
	EDU_IRQ_STATUS = 0x24,
	EDU_IRQ_RAISE = 0x60,
	EDU_IRQ_ACK = 0x64,
	EDU_DMA_SOURCE = 0x80,
	EDU_DMA_TARGET = 0x88,
	EDU_DMA_COUNT = 0x90,
	EDU_DMA_COMMAND = 0x98,
	EDU_BUFFER = 0x40000,
};

enum dma { DMA_START = 1, DMA_TO_RAM = 2, DMA_IRQ = 4 };

#define EDU 0x11e81234u
#define NVME 0x00101b36u
#define ID 0x010000ed
#define BAR_SIZE MIB
#define DMA_MAX 4095u /* a byte more ends QEMU */
#define STATUS_IRQ 0x80
#define STATUS_BUSY 0x01
#define IRQ_FACTORIAL 0x001u
#define IRQ_DMA 0x100u
#define RTE_LEVEL_LOW 0xa000 /* PCI 3.0, 2.2.6 */
#define RTE_MASKED 0x10000
#define V_MSI 0x51
#define V_MSI_MOVED 0x61
#define V_INTX 0x52
#define LONG_TIME 3000000000ull

#define BRIDGE 1 /* header type */
#define CONFIG_BUSES 0x18
static u32 edu_at; /* as CONFIG_ADDRESS has it */
static u32 edu_bridge;
static u64 bar;
static u32 irq_status; /* what the handler saw */

/* -- configuration */

/* On bus 0 or behind a bridge of it, by the numbers that the bridge has. */
static void find_edu(void)
{
	for (u32 n = 0; n < 32 * 8; n++) {
		u32 buses = config_read(n << 8, CONFIG_BUSES);
		u32 type = config_read(n << 8, CONFIG_HEADER) >> 16 & 0x7f;

		if (config_read(n << 8, CONFIG_ID) == EDU)
			edu_at = n << 8;
		for (u32 k = 0; type == BRIDGE && k < 32 * 8; k++) {
			u32 at = (buses >> 8 & 0xff) << 16 | k << 8;

			if (config_read(at, CONFIG_ID) != EDU)
				continue;
			edu_at = at;
			edu_bridge = n << 8;
		}
	}
}

static void test_find(void)
{
	find_edu();
	check_true(edu_at);
	print("edu at %u:%x.%u\n", edu_at >> 16, edu_at >> 11 & 31,
	      edu_at >> 8 & 7);
	check(config_read(edu_at, CONFIG_CLASS), 0x00ff0010);
	check(config_read(edu_at, CONFIG_SUBSYSTEM), 0x11001af4);
	check(config_read(edu_at, CONFIG_HEADER) >> 16 & 0xff, 0);
	check(config_read(edu_at, CONFIG_INTERRUPT) >> 8 & 0xff, 1);
	/* A device number that nobody has. */
	check(config_read(29 << 11, CONFIG_ID), 0xffffffff);
	config_write(29 << 11, CONFIG_BAR0, 0);
	/* Bytes and words, at their places in the dword. */
	outl(0xCF8, 0x80000000u | edu_at);
	check(inb(0xCFC), 0x34);
	check(inb(0xCFD), 0x12);
	check(inw(0xCFE), 0x11e8);
}

static u32 command(void)
{
	return config_read(edu_at, CONFIG_COMMAND) & 0xffff;
}

static void test_bar(void)
{
	u32 old = config_read(edu_at, CONFIG_BAR0);

	config_write(edu_at, CONFIG_COMMAND, command() & ~(u32)MEMORY);
	config_write(edu_at, CONFIG_BAR0, 0xffffffff);
	check(config_read(edu_at, CONFIG_BAR0), (u32)-BAR_SIZE);
	config_write(edu_at, CONFIG_BAR0, old);
	check(config_read(edu_at, CONFIG_BAR0), old);
	for (unsigned n = 1; n < 6; n++) {
		config_write(edu_at, CONFIG_BAR0 + 4 * n, 0xffffffff);
		check(config_read(edu_at, CONFIG_BAR0 + 4 * n), 0);
	}
	config_write(edu_at, CONFIG_COMMAND, command() | MEMORY | MASTER);
	check(command() & (MEMORY | MASTER), MEMORY | MASTER);
	bar = old & ~0xfu;
	check_true(bar);
}

/* -- the device */

static void test_registers(void)
{
	check(read32(bar + EDU_ID), ID);
	for (u32 n = 0; n < 32; n++) {
		write32(bar + EDU_LIVENESS, 1u << n);
		check(read32(bar + EDU_LIVENESS), ~(1u << n));
	}
	write32(bar + EDU_FACTORIAL, 10);
	while (read32(bar + EDU_STATUS) & STATUS_BUSY)
		relax();
	check(read32(bar + EDU_FACTORIAL), 3628800);
}

static void move_bar(u64 to)
{
	config_write(edu_at, CONFIG_COMMAND, command() & ~(u32)MEMORY);
	config_write(edu_at, CONFIG_BAR0, (u32)to);
	config_write(edu_at, CONFIG_COMMAND, command() | MEMORY);
}

static void test_bar_moves(void)
{
	u64 home = bar, away = 0xE0000000;

	move_bar(away);
	check(read32(away + EDU_ID), ID);
	check_true(read32(home + EDU_ID) != ID);
	config_write(edu_at, CONFIG_COMMAND, command() & ~(u32)MEMORY);
	check_true(read32(away + EDU_ID) != ID);
	move_bar(home);
	check(read32(home + EDU_ID), ID);
	check_true(read32(away + EDU_ID) != ID);
}

static void write64(u64 address, u64 value)
{
	*(volatile u64 *)address = value;
}

static bool dma(u64 from, u64 to, u32 count, u32 how)
{
	u64 start = rdtsc();

	write64(bar + EDU_DMA_SOURCE, from);
	write64(bar + EDU_DMA_TARGET, to);
	write64(bar + EDU_DMA_COUNT, count);
	write64(bar + EDU_DMA_COMMAND, DMA_START | how);
	if (how & DMA_IRQ)
		return true;
	while (read32(bar + EDU_DMA_COMMAND) & DMA_START)
		if (rdtsc() - start > LONG_TIME)
			return false;
	return true;
}

static u8 pages[4 * 4096] __attribute__((aligned(4096)));

static void fill(u8 *p, u32 count, u32 seed)
{
	while (count--) {
		seed = seed * 1664525 + 1013904223;
		*p++ = (u8)(seed >> 24);
	}
}

static bool same(const u8 *a, const u8 *b, u32 count)
{
	while (count && *a == *b)
		a++, b++, count--;
	return !count;
}

static bool all(const u8 *p, u32 count, u8 value)
{
	while (count && *p == value)
		p++, count--;
	return !count;
}

/* RAM to the device to other RAM; what lies around it stays. */
static void dma_there_and_back(u8 *from, u8 *to, u32 count)
{
	fill(from, count, count);
	check_true(dma((u64)from, EDU_BUFFER, count, 0));
	memset(to - 1, 0xa5, count + 2);
	check_true(dma(EDU_BUFFER, (u64)to, count, DMA_TO_RAM));
	check_true(same(from, to, count));
	check(to[-1], 0xa5);
	check(to[count], 0xa5);
}

static void test_dma(void)
{
	dma_there_and_back(pages, pages + 8192 + 64, 1024);
}

/* Both buffers cross a page boundary. */
static void test_dma_pages(void)
{
	dma_there_and_back(pages + 2001, pages + 4 * 4096 - 4100, DMA_MAX);
}

/* From the first megabyte to the end of RAM and back. */
static void test_dma_far(void)
{
	u8 *first = (u8 *)low_page + 100, *last = (u8 *)ram_end - 4096 - 2048;

	check_true(low_page);
	dma_there_and_back(last, first, 2000);
	dma_there_and_back(first, last, 2000);
}

/* Where no RAM is, nothing is read and nothing is written. */
static void test_dma_denied(void)
{
	u64 nowhere = 0xD0000000;

	memset(pages, 0x5a, 64);
	check_true(dma((u64)pages, EDU_BUFFER, 64, 0));
	check_true(dma(EDU_BUFFER, nowhere, 64, DMA_TO_RAM));
	check_true(dma(nowhere, EDU_BUFFER, 64, 0));
	check_true(dma(EDU_BUFFER, (u64)pages + 4096, 64, DMA_TO_RAM));
	check_true(all(pages, 64, 0x5a));
}

/* -- where Intel graphics has its memory, in the domain of both */

#define IGD (2 << 11)
#define HYPERCALL_LOG 0x4d4f0002u /* docs/hypercalls.md */

/* What a driver of generation 9 reads; MiB-aligned. */
static u64 stolen(void)
{
	return config_read(IGD, 0x5c) & ~(MIB - 1);
}

static u64 stolen_size(void)
{
	u32 n = config_read(IGD, 0x50) >> 8 & 255;

	return n < 0xf0 ? n * 32 * MIB : (n - 0xef) * 4 * MIB;
}

static u64 gtt(void)
{
	return config_read(0, 0xb4) & ~(MIB - 1);
}

/* The CPU and DMA see one memory, either way. */
static void shared(u64 at)
{
	u8 *there = (u8 *)at;

	fill(there, 512, (u32)at);
	check_true(dma(at, EDU_BUFFER, 512, 0));
	check_true(dma(EDU_BUFFER, (u64)pages, 512, DMA_TO_RAM));
	check_true(same(there, pages, 512));
	fill(pages, 512, ~(u32)at);
	check_true(dma((u64)pages, EDU_BUFFER, 512, 0));
	check_true(dma(EDU_BUFFER, at, 512, DMA_TO_RAM));
	check_true(same(there, pages, 512));
}

static void test_stolen(void)
{
	print("edu: dsm %lx size %lx\n", stolen(), stolen_size());
	check_true(stolen() && stolen_size());
	shared(stolen());
	shared(stolen() + stolen_size() - 4096);
}

/* rmrr=ADDRESS: pages of it that are nothing else; the guest is not told. */
static void test_rmrr(void)
{
	u64 at = option("rmrr", 0);

	check_true(at);
	shared(at);
}

/* By DMA as any memory; for the CPU nothing is there. */
static void test_gtt(void)
{
	print("edu: gsm %lx\n", gtt());
	check_true(gtt());
	fill(pages, 512, 7);
	check_true(dma((u64)pages, EDU_BUFFER, 512, 0));
	check_true(dma(EDU_BUFFER, gtt(), 512, DMA_TO_RAM));
	memset(pages, 0, 512);
	check_true(dma((u64)pages, EDU_BUFFER, 512, 0));
	check_true(dma(gtt(), EDU_BUFFER, 512, 0));
	check_true(dma(EDU_BUFFER, (u64)pages + 4096, 512, DMA_TO_RAM));
	fill(pages, 512, 7);
	check_true(same(pages, pages + 4096, 512));
	check(read32(gtt()), 0xffffffff);
}

static u64 read_log(char *to, u64 size, u64 *position)
{
	u64 n;

	__asm__ volatile("vmcall"
			 : "=a"(n), "+d"(*position)
			 : "a"(HYPERCALL_LOG), "b"(to), "c"(size)
			 : "memory");
	return (long)n > 0 ? n : 0;
}

/* The hexadecimal number behind these words in Monocle's log, or 0. */
static u64 monocle_says(const char *words)
{
	static char log[16384];
	u64 used = 0, position = 0, n, value = 0;
	const char *p = log;

	while ((n = read_log(log + used, sizeof(log) - 1 - used, &position)))
		used += n;
	while (*p && !starts(p, words))
		p++;
	while (*p && *words)
		p++, words++;
	for (; *p; p++) {
		u32 digit = *p <= '9' ? (u32)*p - '0' : (u32)*p - 'a' + 10;

		if (digit > 15)
			break;
		value = value << 4 | digit;
	}
	return value;
}

/* Monocle's image, which is where no memory of the guest is. */
static void test_own(void)
{
	u64 own = monocle_says(", at 0x");

	print("edu: own %lx\n", own);
	check_true(own >= ram_end);
	memset(pages, 0x5a, 8192);
	check_true(dma((u64)pages, EDU_BUFFER, 512, 0));
	check_true(dma(EDU_BUFFER, own, 512, DMA_TO_RAM));
	check_true(dma(own, EDU_BUFFER, 512, 0));
	check_true(dma(EDU_BUFFER, (u64)pages, 512, DMA_TO_RAM));
	/* A header of Monocle's would be there. */
	check_true(all(pages, 512, pages[0]));
}

/* -- interrupts */

static void edu_handler(struct frame *f)
{
	(void)f;
	irq_status = read32(bar + EDU_IRQ_STATUS);
	write32(bar + EDU_IRQ_ACK, irq_status);
	lapic_write(LAPIC_EOI, 0);
}

static void raise(u32 value)
{
	write32(bar + EDU_IRQ_RAISE, value);
}

bool edu_open(handler *h)
{
	find_edu();
	if (!edu_at)
		return false;
	test_bar();
	handlers[V_MSI] = h;
	msi_on(edu_at, find_capability(edu_at, CAP_MSI), V_MSI);
	return !failures;
}

void edu_raise(void)
{
	raise(1);
}

void edu_touch(void)
{
	write32(bar + EDU_LIVENESS, 1);
}

bool edu_lower(void)
{
	u32 status = read32(bar + EDU_IRQ_STATUS);

	write32(bar + EDU_IRQ_ACK, status);
	return status;
}

static void raise_many(unsigned vector, u32 count)
{
	u32 before = interrupts[vector];

	for (u32 n = 1; n <= count; n++) {
		irq_status = 0;
		raise(n);
		if (!wait_for(vector, before + n, LONG_TIME)) {
			check(interrupts[vector], before + n);
			return;
		}
		check(irq_status, n);
	}
	check(read32(bar + EDU_IRQ_STATUS), 0);
}

static void test_msi(void)
{
	unsigned at = find_capability(edu_at, CAP_MSI);

	check_true(at);
	handlers[V_MSI] = handlers[V_MSI_MOVED] = edu_handler;
	msi_on(edu_at, at, V_MSI);
	raise_many(V_MSI, 20);
	msi_on(edu_at, at, V_MSI_MOVED);
	raise_many(V_MSI_MOVED, 20);
	check(interrupts[V_MSI], 20);
	/* By the device itself: a computation's and a transfer's end. */
	write32(bar + EDU_STATUS, STATUS_IRQ);
	write32(bar + EDU_FACTORIAL, 5);
	check_true(wait_for(V_MSI_MOVED, 21, LONG_TIME));
	check(irq_status, IRQ_FACTORIAL);
	write32(bar + EDU_STATUS, 0);
	dma((u64)pages, EDU_BUFFER, 100, DMA_IRQ);
	check_true(wait_for(V_MSI_MOVED, 22, LONG_TIME));
	check(irq_status, IRQ_DMA);
}

static void test_msi_off(void)
{
	unsigned at = find_capability(edu_at, CAP_MSI);
	u32 control = config_read(edu_at, at);

	handlers[V_MSI_MOVED] = edu_handler;
	config_write(edu_at, CONFIG_COMMAND, command() | INTX_DISABLE);
	config_write(edu_at, at, control & ~(u32)MSI_ENABLE);
	raise(1);
	check(wait_for(V_MSI_MOVED, 1, LONG_TIME / 100), 0);
	write32(bar + EDU_IRQ_ACK, 1);
	config_write(edu_at, CONFIG_COMMAND, command() & ~(u32)INTX_DISABLE);
}

/* Monocle's routing (its _PRT); q35's own gives pins 20 and up. */
static unsigned intx_pin(void)
{
	/* A bridge rotates by device number (PCI-to-PCI bridges, 9.1). */
	return (is_monocle ? 16 : 20) +
	       ((edu_at >> 11) + (edu_bridge >> 11)) % 4;
}

static void test_intx(void)
{
	unsigned pin = intx_pin();

	handlers[V_INTX] = edu_handler;
	ioapic_route(pin, V_INTX | RTE_LEVEL_LOW);
	raise_many(V_INTX, 20);
	/* Masked there, it waits. */
	ioapic_route(pin, V_INTX | RTE_LEVEL_LOW | RTE_MASKED);
	raise(7);
	check(wait_for(V_INTX, 21, LONG_TIME / 100), 0);
	ioapic_route(pin, V_INTX | RTE_LEVEL_LOW);
	check_true(wait_for(V_INTX, 21, LONG_TIME));
	check(irq_status, 7);
	ioapic_route(pin, RTE_MASKED);
}

static void accesses(u32 count)
{
	u32 wrong = 0;

	for (u32 n = 0; n < count; n += 2) {
		write32(bar + EDU_LIVENESS, n);
		wrong |= read32(bar + EDU_LIVENESS) ^ ~n;
	}
	check(wrong, 0);
}

static void transfers(u32 count)
{
	while (count--)
		dma_there_and_back(pages, pages + 8192 + 64, 1024);
}

static void interruptions(u32 count)
{
	u32 before = interrupts[V_MSI];

	sti();
	for (u32 n = 1; n <= count; n++) {
		u64 start = rdtsc();

		raise(n);
		while (interrupts[V_MSI] - before < n &&
		       rdtsc() - start < LONG_TIME)
			relax();
	}
	cli();
	check(interrupts[V_MSI] - before, count);
}

/* The steady state: what the driver has set up works without Monocle. */
static void test_steady(void)
{
	handlers[V_MSI] = edu_handler;
	msi_on(edu_at, find_capability(edu_at, CAP_MSI), V_MSI);
	count_exits("accesses", accesses, 10000);
	count_exits("transfers", transfers, 4);
	count_exits("interrupts", interruptions, 1000);
}

/* The last life's transfer has no bus mastering: it ends, and brings nothing. */
static void await_last_transfer(void)
{
	u64 start = rdtsc();

	memset(pages, 0, sizeof(pages));
	config_write(edu_at, CONFIG_COMMAND, MEMORY);
	bar = config_read(edu_at, CONFIG_BAR0) & ~0xfu;
	while (read32(bar + EDU_DMA_COMMAND) & DMA_START)
		if (rdtsc() - start > LONG_TIME)
			break;
	check_true(rdtsc() - start <= LONG_TIME);
	check_true(all(pages, sizeof(pages), 0));
	write32(bar + EDU_IRQ_ACK, read32(bar + EDU_IRQ_STATUS));
}

/* Resets in the middle of a transfer, count=N times. Each life finds the
 * function as the first one did. */
void edu_resets(void)
{
	u16 stage = cmos_get();

	if (stage >> 8 != 0x5A)
		stage = 0x5A00;
	test_find();
	print("edu-resets: %u: %x %x %x\n", stage & 0xff, command(),
	      config_read(edu_at, CONFIG_BAR0),
	      config_read(edu_at, find_capability(edu_at, CAP_MSI)));
	await_last_transfer();
	test_bar();
	test_registers();
	handlers[V_MSI] = edu_handler;
	msi_on(edu_at, find_capability(edu_at, CAP_MSI), V_MSI);
	raise_many(V_MSI, 3);
	if (failures || (stage & 0xff) == option("count", 20))
		finish(failures ? 1 : 0);
	cmos_set((u16)(stage + 1));
	memset(pages + 4096, 0xa5, DMA_MAX);
	check_true(dma((u64)pages + 4096, EDU_BUFFER, DMA_MAX, 0));
	dma(EDU_BUFFER, (u64)pages, DMA_MAX, DMA_TO_RAM | DMA_IRQ);
	outb(0xCF9, 6);
	for (;;)
		relax();
}

static const struct test edu_tests[] = {
	{"edu-find", test_find, false},
	{"edu-bar", test_bar, false},
	{"edu-registers", test_registers, false},
	{"edu-bar-moves", test_bar_moves, false},
	{"edu-dma", test_dma, false},
	{"edu-dma-pages", test_dma_pages, false},
	{"edu-dma-far", test_dma_far, false},
	{"edu-dma-denied", test_dma_denied, true},
	{"edu-msi", test_msi, false},
	{"edu-msi-off", test_msi_off, false},
	{"edu-intx", test_intx, false},
	{"edu-steady", test_steady, true},
};

/* How many failed. */
static unsigned run_and_hold(const struct test *tests, unsigned count)
{
	unsigned failed = run_tests(tests, count);

	print("edu: %u failed\n", failed);
	hold();
	return failed;
}

unsigned edu(void)
{
	return run_and_hold(edu_tests, COUNT(edu_tests));
}

/* The other functions of its device are Monocle's: nobody is there, but for
 * function 0, where a guest looks first. */
static void test_parked(void)
{
	u32 first = edu_at & ~0x700u, id = config_read(first, CONFIG_ID);

	for (u32 at = first + 0x100; at < first + 0x800; at += 0x100)
		for (unsigned n = 0; at != edu_at && n < 256; n += 4)
			check(config_read(at, n), 0xffffffff);
	check_true(id != NVME && id != 0xffffffff);
	check(config_read(first, CONFIG_HEADER) >> 16 & 0xff, 0x80);
	for (unsigned n = 0; n < 6; n++) {
		config_write(first, CONFIG_BAR0 + 4 * n, 0xffffffff);
		check(config_read(first, CONFIG_BAR0 + 4 * n), 0);
	}
	config_write(first, CONFIG_COMMAND, MEMORY | MASTER);
	check(config_read(first, CONFIG_COMMAND) & MASTER, 0);
}

static const struct test parked_tests[] = {
	{"edu-find", test_find, false},
	{"edu-parked", test_parked, true},
	{"edu-bar", test_bar, false},
	{"edu-registers", test_registers, false},
	{"edu-dma", test_dma, false},
	{"edu-msi", test_msi, false},
};

unsigned edu_parked(void)
{
	return run_and_hold(parked_tests, COUNT(parked_tests));
}

static const struct test igd_tests[] = {
	{"edu-find", test_find, false},	   {"edu-bar", test_bar, false},
	{"edu-stolen", test_stolen, true}, {"edu-rmrr", test_rmrr, true},
	{"edu-gtt", test_gtt, true},	   {"edu-own", test_own, true},
};

unsigned edu_own(void)
{
	static const struct test tests[] = {{"edu-find", test_find, false},
					    {"edu-bar", test_bar, false},
					    {"edu-own", test_own, true}};

	return run_tests(tests, COUNT(tests));
}

unsigned edu_igd(void)
{
	unsigned failed = run_tests(igd_tests, COUNT(igd_tests));

	failed += run_tests(vga_tests, vga_test_count);
	print("edu: %u failed\n", failed);
	return failed;
}
