/* SPDX-License-Identifier: MIT */
#include "arch/x86/types.h"

/* The card whose ROM has the driver. */
extern u8 card_rom[256];
extern u64 card_rom_size[1]; /* 0: the firmware has no copy */
extern u32 card_bars[6], card_enabled[1];
/* What the firmware refuses, and what the driver has of it. */
enum fails { FAILS_OPEN, FAILS_CONFIG, FAILS_PAGES, FAILS_POOL, FAILS_INSTALL };
extern bool fails[5];
extern int pages_held[1], opened[1];

struct told_mode {
	u32 width, height, format, pixels_per_line, count, current, info_size;
	u64 base, size;
};

/* A page below 4 GiB. */
u32 *low_memory(void);
u64 load_driver(void);
u64 driver_supported(void);
u64 driver_start(void);
u64 driver_stop(void);
bool mode_told(struct told_mode *m);
u64 query_mode(u32 number);
u64 set_mode(u32 number);
/* at: source x, y, destination x, y, width, height */
u64 blt(u32 *buffer, u32 operation, const u64 at[6], u64 delta);
