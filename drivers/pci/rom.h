/* SPDX-License-Identifier: MIT */
/* Option ROMs: PCI 3.0, 6.3. */
#ifndef DRIVERS_PCI_ROM_H
#define DRIVERS_PCI_ROM_H

#include "drivers/pci/pci.h"

#define PCI_ROM_MAX (16 * MIB) /* PCI 3.0, 6.2.5.2: what a ROM BAR holds */
#define PCI_ROM_SHADOW 0xc0000u
#define PCI_ROM_SHADOW_SIZE 0x20000u

struct pci_rom {
	u8 *data;   /* memory of Monocle's, on a page; NULL: no ROM */
	u64 size;   /* of it: a power of two, at least a page */
	u64 length; /* of the images in it; behind them all ones */
	/* The first image of code type 0 for the function, or NULL. */
	const u8 *legacy;
	u32 legacy_size;
	bool efi; /* an image is for UEFI */
	/* What firmware overlooks and a file is refused for, or NULL. */
	const char *doubt;
};

/*
 * Walks the images in size bytes at data and fills in length, legacy and
 * doubt (a wrong checksum, IDs that are not f's). NULL, or why this is no
 * ROM, as the rest of a sentence.
 */
const char *pci_rom_check(const u8 *data, u64 size,
			  const struct pci_function *f, struct pci_rom *rom);
/* Sizes the ROM BAR, which is disabled meanwhile, and restores it. */
struct pci_bar pci_rom_size(const struct pci_host *pci, bdf_t bdf);
/*
 * The function's ROM from its ROM BAR if that has an address, else from the
 * shadow if it may be there. f's BARs are sized; its registers are as before.
 * Without a ROM *rom is empty; what is wrong with one is logged.
 */
void pci_rom_read(const struct pci_host *pci, const struct pci_function *f,
		  bool shadow, struct pci_rom *rom);
/*
 * The ROM that a file holds, which must be without fault: *why says which,
 * with -EINVAL. -ENOMEM.
 */
int pci_rom_load(const u8 *file, u64 size, const struct pci_function *f,
		 struct pci_rom *rom, const char **why);
/*
 * Puts an image, the last of its ROM, in front of rom's; its PCIR then names f.
 * -ENOMEM: rom is as before.
 */
int pci_rom_prepend(struct pci_rom *rom, const u8 *image, u64 size,
		    const struct pci_function *f);

#endif
