/* SPDX-License-Identifier: MIT */
/*
 * The picture that GRUB has left on, for a guest that UEFI starts: a driver
 * (vmm/assign/gop/) in front of what else is in the display's ROM.
 */
#ifndef VMM_ASSIGN_GOP_H
#define VMM_ASSIGN_GOP_H

#include "drivers/pci/rom.h"
#include "kernel/boot_info.h"

/* The index of f's BAR that holds all of it, or -1. f's BARs are sized. */
int gop_bar(const struct pci_function *f, const struct boot_framebuffer *fb);
/*
 * Adds the driver to f's ROM, unless that has one of its own. Without such a
 * framebuffer, or memory, the ROM stays as it is. What happens is logged.
 */
void gop_add(struct pci_rom *rom, const struct pci_function *f,
	     const struct boot_framebuffer *fb);

#endif
