/* SPDX-License-Identifier: MIT */
/*
 * The display's option ROM at its ROM BAR (PCI 3.0, 6.2.5.2), as a driver
 * reads it, and in the shadow. Prints what a test compares with the file.
 */
#include "guests/guest.h"

enum rom { ROM = 0x30, ENABLE = 1 };

#define DISPLAY 0x1000u /* 00:02.0 as CONFIG_ADDRESS has it */
#define SHADOW 0xc0000u
#define FIRST 0xd0000000u /* where nothing is */
#define SECOND 0xd8000000u
#define CMOS_STAGE 0x52 /* a byte of CMOS memory, which a reset keeps */

/* FNV-1a */
static u32 hash(u64 at, u64 size)
{
	u32 sum = 0x811c9dc5;

	for (u64 i = 0; i < size; i++)
		sum = (sum ^ *(volatile u8 *)(at + i)) * 0x01000193;
	return sum;
}

static void show(const char *where, u64 at)
{
	/* Its one image's length in the header, in 512 bytes. */
	u64 size = *(volatile u8 *)(at + 2) * 512ull;

	check(read32(at) & 0xffff, 0xaa55);
	print("rom: %s: %lu bytes, hash %x\n", where, size, hash(at, size));
}

static void test_size(void)
{
	u32 before = config_read(DISPLAY, ROM), mask;

	check(before & ENABLE, 0);
	config_write(DISPLAY, ROM, 0xfffffffe);
	mask = config_read(DISPLAY, ROM);
	config_write(DISPLAY, ROM, before);
	print("rom: size %u\n", -mask);
	check(mask & (-mask - 1), 0);
}

static void test_place(void)
{
	config_write(DISPLAY, ROM, FIRST);
	check(read32(FIRST), 0xffffffff);
	config_write(DISPLAY, ROM, FIRST | ENABLE);
	check(config_read(DISPLAY, ROM), FIRST | ENABLE);
	show("BAR", FIRST);
}

static void test_read_only(void)
{
	u32 before = read32(FIRST + 64);

	write32(FIRST + 64, ~before);
	check(read32(FIRST + 64), before);
}

static void test_move(void)
{
	u32 command = config_read(DISPLAY, CONFIG_COMMAND) & 0xffff;

	config_write(DISPLAY, ROM, SECOND | ENABLE);
	check(read32(FIRST), 0xffffffff);
	show("moved", SECOND);
	config_write(DISPLAY, CONFIG_COMMAND, command & ~(u32)MEMORY);
	check(read32(SECOND), 0xffffffff);
	config_write(DISPLAY, CONFIG_COMMAND, command);
	show("again", SECOND);
	config_write(DISPLAY, ROM, SECOND);
	check(read32(SECOND), 0xffffffff);
}

/* Over memory it is not seen, and the memory is. */
static void test_over_memory(void)
{
	u64 at = 4 * MIB;
	u32 before = read32(at);

	config_write(DISPLAY, ROM, (u32)at | ENABLE);
	write32(at, 0x12345678);
	check(read32(at), 0x12345678);
	config_write(DISPLAY, ROM, FIRST | ENABLE);
	check(read32(at), 0x12345678);
	write32(at, before);
	show("back", FIRST);
}

static void test_shadow(void)
{
	show("shadow", SHADOW);
	check(hash(SHADOW, 1024), hash(FIRST, 1024));
	write32(SHADOW + 64, 0);
	check(hash(SHADOW, 1024), hash(FIRST, 1024));
}

static const struct test rom_tests[] = {
	{"size", test_size, false},
	{"place", test_place, false},
	{"read-only", test_read_only, false},
	{"move", test_move, false},
	{"over-memory", test_over_memory, true},
	{"shadow", test_shadow, true},
};

static void test_after_reset(void)
{
	check(config_read(DISPLAY, ROM) & ENABLE, 0);
	check(read32(FIRST), 0xffffffff);
}

static const struct test reset_tests[] = {
	{"after-reset", test_after_reset, false},
};

/* Before and after a reset, which takes the ROM BAR back. */
u8 rom(void)
{
	unsigned failed = 0;
	u8 stage;

	outb(0x70, CMOS_STAGE);
	stage = inb(0x71);
	if (stage == 0x4f) {
		print("rom: after the reset\n");
		failed = run_tests(reset_tests, COUNT(reset_tests));
	}
	failed += run_tests(rom_tests, COUNT(rom_tests));
	if (failed || stage == 0x4f)
		return failed ? 1 : 0;
	outb(0x70, CMOS_STAGE);
	outb(0x71, 0x4f);
	outb(0xcf9, 6);
	return 2;
}
