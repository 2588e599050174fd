/* SPDX-License-Identifier: MIT */
/*
 * The interrupt line of an e1000 (Intel 8254x manual, 13.4): raised by its
 * own register ICS, down when ICR is read. No packet is needed.
 */
#include "guests/guest.h"

enum e1000 { ICR = 0xC0, ICS = 0xC8, IMS = 0xD0, IMC = 0xD8 };

#define E1000 0x100e8086u
#define CAUSE BIT(2) /* link status change */
#define OTHER BIT(4) /* receive threshold */
#define RTE_LEVEL_LOW 0xa000
#define RTE_MASKED 0x10000
#define V_INTX 0x52
#define LONG_TIME 100000000ull /* nothing that arrives takes so long */
#define SHORT_TIME 1000000ull

static u32 at; /* as CONFIG_ADDRESS has it */
static u64 bar;
static bool leave_one; /* the handler reads no cause, once */

static void e1000_handler(struct frame *f)
{
	(void)f;
	if (!leave_one)
		read32(bar + ICR);
	leave_one = false;
	lapic_write(LAPIC_EOI, 0);
}

/* Monocle's, or that of the bare machine's router. */
unsigned e1000_pin(void)
{
	return (unsigned)option("pin", 16 + (at >> 11) % 4);
}

static bool find(void)
{
	for (u32 n = 0; n < 32; n++)
		if (config_read(n << 11, CONFIG_ID) == E1000)
			at = n << 11;
	return at != 0;
}

static void begin_to_raise(void)
{
	config_write(at, CONFIG_COMMAND, MEMORY);
	bar = config_read(at, CONFIG_BAR0) & ~15u;
	write32(bar + IMC, 0xffffffff);
	read32(bar + ICR);
	write32(bar + IMS, CAUSE | OTHER);
}

static void test_find(void)
{
	check_true(find());
	begin_to_raise();
	check_true(bar);
}

static void open_line(handler *h)
{
	handlers[V_INTX] = h;
	ioapic_route(e1000_pin(), V_INTX | RTE_LEVEL_LOW);
}

bool e1000_open(handler *h)
{
	if (!find())
		return false;
	begin_to_raise();
	open_line(h);
	return true;
}

void e1000_raise(void)
{
	write32(bar + ICS, CAUSE);
}

bool e1000_lower(void)
{
	return read32(bar + ICR) & CAUSE;
}

static void test_line(void)
{
	open_line(e1000_handler);
	for (unsigned n = 1; n <= 20; n++) {
		write32(bar + ICS, CAUSE);
		check_true(wait_for(V_INTX, n, LONG_TIME));
	}
	/* Nothing of it is left. */
	check(wait_for(V_INTX, 21, SHORT_TIME), 0);
}

/* A cause that the handler leaves keeps the level: it comes again. */
static void test_level(void)
{
	open_line(e1000_handler);
	leave_one = true;
	write32(bar + ICS, CAUSE);
	check_true(wait_for(V_INTX, 2, LONG_TIME));
	check(wait_for(V_INTX, 3, SHORT_TIME), 0);
}

static void test_masks(void)
{
	handlers[V_INTX] = e1000_handler;
	ioapic_route(e1000_pin(), V_INTX | RTE_LEVEL_LOW | RTE_MASKED);
	write32(bar + ICS, OTHER);
	check(wait_for(V_INTX, 1, SHORT_TIME), 0);
	ioapic_route(e1000_pin(), V_INTX | RTE_LEVEL_LOW);
	check_true(wait_for(V_INTX, 1, LONG_TIME));
	config_write(at, CONFIG_COMMAND, MEMORY | INTX_DISABLE);
	write32(bar + ICS, OTHER);
	check(wait_for(V_INTX, 2, SHORT_TIME), 0);
	config_write(at, CONFIG_COMMAND, MEMORY);
	check_true(wait_for(V_INTX, 2, LONG_TIME));
}

static void raise_many(u32 count)
{
	for (u32 n = 1; n <= count; n++) {
		write32(bar + ICS, CAUSE);
		while (interrupts[V_INTX] != n)
			relax();
	}
}

static void test_exits(void)
{
	open_line(e1000_handler);
	sti();
	count_exits("e1000-interrupts", raise_many, 1000);
	cli();
}

static const struct test e1000_tests[] = {
	{"e1000-find", test_find, true},   {"e1000-line", test_line, true},
	{"e1000-level", test_level, true}, {"e1000-masks", test_masks, true},
	{"e1000-exits", test_exits, true},
};

unsigned e1000(void)
{
	unsigned failed = run_tests(e1000_tests, COUNT(e1000_tests));

	print("e1000: %u failed\n", failed);
	return failed;
}
