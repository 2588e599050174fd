/* SPDX-License-Identifier: MIT */
/* Option ROMs of assigned functions: Monocle's copies, read-only. */
#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/phys.h"
#include "vmm/assign/assigned.h"
#include "vmm/assign/gop.h"

static int find(struct assignment *all, struct assigned *a)
{
	const struct pci_function *f = a->function;
	bool display = f == all->display;
	const struct boot_module *file = all->rom_file;
	const char *why;
	int err;

	if (!display || !file) {
		pci_rom_read(all->pci, f, display && all->vga, &a->rom);
		return 0;
	}
	err = pci_rom_load(phys_to_virt(file->start), file->size, f, &a->rom,
			   &why);
	if (err)
		log_error("module '%s', the ROM of %02x:%02x.%x, %s",
			  file->string, BDF_ARGS(f->bdf), why);
	return err;
}

int assigned_find_roms(struct assignment *all)
{
	const struct pci_rom *rom;
	int err = 0;

	if (all->rom_file && !all->display) {
		log_error("module '%s' is the display's ROM, but no display "
			  "is assigned",
			  all->rom_file->string);
		return -ENODEV;
	}
	for (unsigned n = 0; !err && n < all->count; n++) {
		struct assigned *a = &all->functions[n];

		err = find(all, a);
		if (!err && all->uefi && a->function == all->display)
			gop_add(&a->rom, a->function, &all->boot->fb);
	}
	rom = assigned_display_rom(all);
	if (!err && all->igd.function && rom->data)
		log_info("igd: ROM of %lu bytes", rom->length);
	else if (!err && all->igd.function)
		log_info("igd: ROM none");
	return err;
}

const struct pci_rom *assigned_display_rom(const struct assignment *all)
{
	for (unsigned n = 0; n < all->count; n++)
		if (all->functions[n].function == all->display)
			return &all->functions[n].rom;
	return NULL;
}
