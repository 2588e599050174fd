/* SPDX-License-Identifier: MIT */
/*
 * rom-init: the display's video BIOS runs from its entry C000:0003 (PCI
 * Firmware 3.0, 5.2.1), in the guest's real mode and before the guest's own
 * start. It brings the picture back that a reset has taken.
 */
#ifndef VMM_ROM_INIT_H
#define VMM_ROM_INIT_H

#include "kernel/boot_info.h"

struct machine;

/* Whether it can run; -EINVAL, with a log_error line if say. */
int rom_init_check(const struct machine *m, bool say);
/*
 * Devices are reset and the guest's kernel is not yet loaded; low memory is
 * the ROM's. Then *screen is text and *row the cursor's. -EIO, after a
 * log_error line: it did not return.
 */
int rom_init(struct machine *m, struct boot_framebuffer *screen, u8 *row);

#endif
