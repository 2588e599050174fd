/* SPDX-License-Identifier: MIT */
/* A 5x7 dot-matrix font for the printable ASCII characters. */
#ifndef KERNEL_FONT_H
#define KERNEL_FONT_H

#include "arch/x86/types.h"

#define FONT_CELL_X 6
#define FONT_CELL_Y 9

/* Five columns from the left, bit 0 at the top. */
const u8 *font_glyph(char c);

static inline bool font_pixel(const u8 *glyph, unsigned x, unsigned y)
{
	return x < 5 && y >= 1 && (glyph[x] >> (y - 1) & 1);
}

#endif
