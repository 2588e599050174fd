/* SPDX-License-Identifier: MIT */
/*
 * rom-init: the display's video BIOS runs from its entry C000:0003 (PCI
 * Firmware 3.0, 5.2.1), in the guest's real mode and before the guest's own
 * start. It brings the picture back that a reset has taken.
 */
#ifndef VMM_ROM_INIT_H
#define VMM_ROM_INIT_H

#include "drivers/pci/rom.h"
#include "kernel/boot_info.h"
#include "kernel/options.h"
#include "vmm/vcpu/vcpu.h"

struct rom_init {
	/* What it is handed. */
	struct vcpu *vcpu;
	const struct boot_info *boot;
	const struct options *options;
	const struct pci_function *display; /* NULL: none */
	const struct pci_rom *rom;	    /* its; NULL: none */
	bool vga;			    /* it decodes legacy VGA */
	/* Its own. */
	struct vtimer limit;
};

/* Whether it can run in that map; -EINVAL, with a log_error line if say. */
int rom_init_check(const struct rom_init *r, const struct region_list *map,
		   bool say);
/*
 * Devices are reset and the guest's kernel is not yet loaded; low memory is
 * the ROM's. Then *screen is text and *row the cursor's. -EIO, after a
 * log_error line: it did not return.
 */
int rom_init(struct rom_init *r, struct boot_framebuffer *screen, u8 *row);

#endif
