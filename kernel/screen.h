/* SPDX-License-Identifier: MIT */
/*
 * The screen that firmware and GRUB left: VGA text, or a linear framebuffer
 * of 16, 24 or 32 bits a pixel on which a small font is drawn.
 */
#ifndef KERNEL_SCREEN_H
#define KERNEL_SCREEN_H

#include "kernel/boot_info.h"

/*
 * False: no screen that can be written to. One above 4 GiB, where firmware
 * likes to put the aperture of Intel graphics, is blank until screen_mapped().
 */
bool screen_init(const struct boot_framebuffer *fb);
/* Where it is by Monocle's own page tables, or NULL: nowhere. */
void screen_mapped(volatile void *base);
void screen_write(const char *text, size_t length);
/*
 * Whether a line of that many characters, and a short one behind it, can be
 * written before one goes that came after screen_turn_page().
 */
bool screen_has_room(size_t length);
void screen_turn_page(void);
/* The row that the next line goes to: Linux takes over from there. */
unsigned screen_row(void);

#endif
