/* SPDX-License-Identifier: MIT */
/* What Monocle tells the UEFI driver in the display's ROM (vmm/assign/gop/). */
#ifndef VMM_ASSIGN_GOP_TABLE_H
#define VMM_ASSIGN_GOP_TABLE_H

#include "arch/x86/types.h"

#define GOP_TABLE_AT 0x40	   /* in the ROM */
#define GOP_TABLE_MAGIC 0x706f474d /* "MGop" */

/* UEFI 2.10, 12.9.2: EFI_GRAPHICS_PIXEL_FORMAT */
enum gop_format { GOP_RGBX, GOP_BGRX };

struct gop_table {
	u32 magic;
	u32 bar;	   /* that holds the framebuffer */
	u64 offset;	   /* there; the guest may move the BAR */
	u32 width, height; /* in pixels of 4 bytes */
	u32 pitch;	   /* bytes from line to line */
	u32 format;	   /* enum gop_format */
};
_Static_assert(sizeof(struct gop_table) == 32, "as in gop_rom.asm");

#endif
