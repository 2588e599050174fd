/* SPDX-License-Identifier: MIT */
/*
 * How registers behind BAR 0 answer, so far that Linux's i915 of Debian 12
 * binds (generation 9). Names are Intel's ("Programmer's Reference Manual",
 * volume 2c) or i915's. What no row names reads as it was written.
 */
#ifndef TESTS_IGD_REGISTERS_H
#define TESTS_IGD_REGISTERS_H

#include <stdint.h>

enum reg_kind {
	PLAIN,
	FIXED,	/* reads `value`; no write */
	COUNTS, /* bits of `mask` count the reads; no write */
	MASKED, /* bits 31:16 say which of 15:0 are written; those of
			 * `mask` set the bits `shift` above them */
	CLEARS, /* bits of `mask` are 0 at once */
	WRITE_1_CLEARS,
	FOLLOWS, /* bits of `mask` show `shift` below, as state */
	ANSWERS, /* a write with a bit of `mask`: it clears, and `value`
			 * is set */
};

struct reg {
	uint32_t offset, stride, count;
	enum reg_kind kind;
	uint32_t mask, value;
	unsigned shift;
	uint32_t mirror; /* another register that reads the same */
};

static const struct reg registers[] = {
	/* Forcewake: request, and acknowledgement elsewhere */
	{0xa278, 4, 1, MASKED, .mirror = 0xd84},    /* render */
	{0xa188, 4, 1, MASKED, .mirror = 0x130044}, /* GT */
	{0xa270, 4, 1, MASKED, .mirror = 0xd88},    /* media */
	/* GDRST: reset is over at once */
	{0x941c, 4, 1, CLEARS, .mask = 0xffffffff},
	/* RESET_CTL of each engine: request, ready */
	{0x20d0, 4, 1, MASKED, .mask = 1, .shift = 1},
	{0x120d0, 4, 1, MASKED, .mask = 1, .shift = 1},
	{0x220d0, 4, 1, MASKED, .mask = 1, .shift = 1},
	{0x1a0d0, 4, 1, MASKED, .mask = 1, .shift = 1},
	/* MI_MODE: stop, idle */
	{0x209c, 4, 1, MASKED, .mask = 1u << 8, .shift = 1},
	{0x1209c, 4, 1, MASKED, .mask = 1u << 8, .shift = 1},
	{0x2209c, 4, 1, MASKED, .mask = 1u << 8, .shift = 1},
	{0x1a09c, 4, 1, MASKED, .mask = 1u << 8, .shift = 1},
	/* GTDRIVER_MAILBOX_INTERFACE: done, without an error */
	{0x138124, 4, 1, CLEARS, .mask = 0x800000ff},
	/* GTDRIVER_MAILBOX_DATA0: "as you wish" (SAGV, CDCLK) */
	{0x138128, 4, 1, FIXED, .value = 1},
	/* FUSE2: one slice; GUC_STATUS: in reset; RC6_CTX_INFO: valid */
	{0x9120, 4, 1, FIXED, .value = 1u << 25},
	{0xc000, 4, 1, FIXED, .value = 1},
	{0x8504, 4, 1, FIXED, .value = 1},
	/* PWR_WELL_CTL1-4: request (odd bits) and state */
	{0x45400, 4, 4, FOLLOWS, .mask = 0xaaaaaaaa, .shift = 1},
	/* FUSE_STATUS: all is distributed */
	{0x42000, 4, 1, FIXED, .value = 0x8e000000},
	/* DBUF_CTL, LCPLL1_CTL, TRANS_CONF: request, state */
	{0x45008, 4, 1, FOLLOWS, .mask = 1u << 31, .shift = 1},
	{0x46010, 4, 1, FOLLOWS, .mask = 1u << 31, .shift = 1},
	{0x70008, 0x1000, 3, FOLLOWS, .mask = 1u << 31, .shift = 1},
	/* DPLL_STATUS: locked */
	{0x6c060, 4, 1, FIXED, .value = 0x01010101},
	/* DDI_AUX_CTL: done, time-out: nobody is there */
	{0x64010, 0x100, 5, ANSWERS, .mask = 1u << 31, .value = 0x50000000},
	/* PIPE_SCANLINE moves */
	{0x70000, 0x1000, 3, COUNTS, .mask = 0x1ff},
	/* GPIO_CTL: both lines of the bus are high */
	{0xc5010, 4, 12, FIXED, .value = 0x1010},
	/* GMBUS2: ready, nobody answers */
	{0xc5108, 4, 1, FIXED, .value = 0x0c00},
	/* IIR: GT, display pipes, port, misc, PCU, PSR; south display */
	{0x44308, 0x10, 4, WRITE_1_CLEARS},
	{0x44408, 0x10, 3, WRITE_1_CLEARS},
	{0x44448, 0x20, 2, WRITE_1_CLEARS},
	{0x64838, 4, 1, WRITE_1_CLEARS},
	{0x444e8, 4, 1, WRITE_1_CLEARS},
	{0xc4008, 4, 1, WRITE_1_CLEARS},
	{0},
};

#endif
