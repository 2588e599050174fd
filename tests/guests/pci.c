/* SPDX-License-Identifier: MIT */
/* Functions by configuration mechanism #1 (PCI 3.0, 3.2.2.3.2), and what
 * Monocle counts while they work. */
#include "guests/guest.h"

#define MSI_64 BIT(23)
#define HYPERCALL_STATS 0x4d4f0001u /* docs/hypercalls.md */

/* vmm/core/stats.h */
enum { STATS_EXITS = 4, STATS_REASONS = 5, STATS_SIZE = 5 + 2 * 76 };
enum { REASON_IO = 30, REASON_EPT = 48 };

u32 config_read(u32 function, unsigned offset)
{
	outl(0xCF8, 0x80000000u | function | offset);
	return inl(0xCFC);
}

void config_write(u32 function, unsigned offset, u32 value)
{
	outl(0xCF8, 0x80000000u | function | offset);
	outl(0xCFC, value);
}

unsigned find_capability(u32 function, u8 id)
{
	unsigned at = config_read(function, CONFIG_CAPABILITIES) & 0xfc;

	for (unsigned n = 0; at && n < 48; n++) {
		u32 head = config_read(function, at);

		if ((u8)head == id)
			return at;
		at = head >> 8 & 0xfc;
	}
	return 0;
}

/* SDM 3A, 10.11: fixed delivery, edge, physical destination. */
void msi_on(u32 function, unsigned at, u8 vector)
{
	u32 control = config_read(function, at);
	bool wide = control & MSI_64;
	unsigned data = at + (wide ? 12 : 8);

	config_write(function, at, control & ~(u32)MSI_ENABLE);
	config_write(function, at + 4, 0xFEE00000 | lapic_read(LAPIC_ID) >> 12);
	if (wide)
		config_write(function, at + 8, 0);
	config_write(function, data, vector);
	config_write(function, at, control | MSI_ENABLE);
	check(config_read(function, at + 4) & 0xfff00000, 0xFEE00000);
	check(config_read(function, data) & 0xffff, vector);
	check_true(config_read(function, at) & MSI_ENABLE);
}

static void statistics(u64 stats[STATS_SIZE])
{
	u64 result;

	__asm__ volatile("vmcall"
			 : "=a"(result)
			 : "a"(HYPERCALL_STATS), "b"(stats),
			   "c"(STATS_SIZE * 8), "d"(0)
			 : "memory");
	check(result, STATS_SIZE * 8);
}

void count_exits(const char *what, void (*run)(u32), u32 count)
{
	static u64 before[STATS_SIZE], after[STATS_SIZE];

	statistics(before);
	run(count);
	statistics(after);
	for (unsigned n = 0; n < STATS_SIZE; n++)
		after[n] -= before[n];
	/* The first hypercall is counted by the second. */
	print("%s: %u, exits %lu, io %lu, mmio %lu\n", what, count,
	      after[STATS_EXITS] - 1, after[STATS_REASONS + 2 * REASON_IO],
	      after[STATS_REASONS + 2 * REASON_EPT]);
}
