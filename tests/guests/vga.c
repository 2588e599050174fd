/* SPDX-License-Identifier: MIT */
/*
 * Legacy VGA of whichever card decodes it: its memory and its ports, as often
 * as to be counted. What is written is read again, so that a card was there.
 */
#include "guests/guest.h"

enum vga {
	MEMORY_BASE = 0xA0000,
	MEMORY_END = 0xC0000,
	SEQUENCER = 0x3C4,
	GRAPHICS = 0x3CE,
	MAP_MASK = 2, /* of the sequencer: planes that are written */
	MEMORY_MODE = 4,
	CHAIN_4 = 0x0E,
	MODE = 5, /* of the graphics controller */
	MISCELLANEOUS = 6,
	BIT_MASK = 8,
	ALL_OF_IT = 0x01, /* graphics, 128 KiB at 0xA0000 */
	MANY = 100000,
};

static u8 get(u16 port, u8 index)
{
	outb(port, index);
	return inb(port + 1);
}

static void set(u16 port, u8 index, u8 value)
{
	outb(port, index);
	outb(port + 1, value);
}

/* So that the whole window is memory, byte for byte. */
static const struct {
	u16 port;
	u8 index, value;
} flat[] = {
	{SEQUENCER, MAP_MASK, 0x0F},
	{SEQUENCER, MEMORY_MODE, CHAIN_4},
	{GRAPHICS, 0, 0},
	{GRAPHICS, 1, 0},
	{GRAPHICS, 3, 0},
	{GRAPHICS, MODE, 0x40},
	{GRAPHICS, BIT_MASK, 0xFF},
	{GRAPHICS, MISCELLANEOUS, ALL_OF_IT},
};

static u32 wrong;

static void accesses(u32 count)
{
	u64 at = MEMORY_BASE;

	for (u32 n = 0; n < count; n += 2, at += 4) {
		if (at == MEMORY_END)
			at = MEMORY_BASE;
		write32(at, ~n);
		wrong |= read32(at) ^ ~n;
	}
}

static void test_memory(void)
{
	u8 before[COUNT(flat)];

	for (unsigned i = 0; i < COUNT(flat); i++) {
		before[i] = get(flat[i].port, flat[i].index);
		set(flat[i].port, flat[i].index, flat[i].value);
	}
	wrong = 0;
	count_exits("vga memory", accesses, MANY);
	check(wrong, 0);
	for (unsigned i = 0; i < COUNT(flat); i++)
		set(flat[i].port, flat[i].index, before[i]);
}

/* Four at a time, at both controllers in turn. */
static void port_accesses(u32 count)
{
	for (u32 n = 0; n < count; n += 4) {
		bool graphics = n & 4;
		u8 value = (u8)(n >> 3 & 15);

		set(graphics ? GRAPHICS : SEQUENCER,
		    graphics ? BIT_MASK : MAP_MASK, value);
		wrong |= get(graphics ? GRAPHICS : SEQUENCER,
			     graphics ? BIT_MASK : MAP_MASK) ^
			 value;
	}
}

/* By one instruction: where each access takes a host long, many of them. */
static void string_accesses(u32 count)
{
	static u8 bytes[4096];

	outb(SEQUENCER, MAP_MASK);
	while (count) {
		u32 now = count < sizeof(bytes) ? count : sizeof(bytes);
		u64 left = now;
		void *to = bytes;

		memset(bytes, 0xA5, sizeof(bytes));
		__asm__ volatile("rep insb"
				 : "+D"(to), "+c"(left)
				 : "d"(SEQUENCER + 1)
				 : "memory");
		for (u32 n = 0; n < now; n++)
			wrong |= (bytes[n] & 15) ^ 9;
		count -= now;
	}
}

static void test_ports(void)
{
	u8 mask = get(SEQUENCER, MAP_MASK), bits = get(GRAPHICS, BIT_MASK);

	wrong = 0;
	count_exits("vga ports", port_accesses, (u32)option("ports", MANY));
	set(SEQUENCER, MAP_MASK, 9);
	count_exits("vga strings", string_accesses, MANY);
	check(wrong, 0);
	set(SEQUENCER, MAP_MASK, mask);
	set(GRAPHICS, BIT_MASK, bits);
}

const struct test vga_tests[] = {
	{"vga-memory", test_memory, true},
	{"vga-ports", test_ports, true},
};
const unsigned vga_test_count = COUNT(vga_tests);
