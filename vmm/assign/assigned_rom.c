/* SPDX-License-Identifier: MIT */
/* Option ROMs of assigned functions: Monocle's copies, read-only. */
#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/phys.h"
#include "vmm/machine.h"

static int find(struct machine *m, struct assigned *a)
{
	const struct pci_function *f = a->function;
	bool display = f == m->display_function;
	const struct boot_module *file = m->rom_file;
	const char *why;
	int err;

	if (!display || !file) {
		pci_rom_read(&m->host->pci, f, display && m->vga, &a->rom);
		return 0;
	}
	err = pci_rom_load(phys_to_virt(file->start), file->size, f, &a->rom,
			   &why);
	if (err)
		log_error("module '%s', the ROM of %02x:%02x.%x, %s",
			  file->string, BDF_ARGS(f->bdf), why);
	return err;
}

int assigned_find_roms(struct machine *m)
{
	const struct pci_rom *rom;
	int err = 0;

	if (m->rom_file && !m->display_function) {
		log_error("module '%s' is the display's ROM, but no display "
			  "is assigned",
			  m->rom_file->string);
		return -ENODEV;
	}
	for (unsigned n = 0; !err && n < m->assigned_count; n++)
		err = find(m, &m->assigned[n]);
	rom = assigned_display_rom(m);
	if (!err && m->igd.function && rom->data)
		log_info("igd: ROM of %lu bytes", rom->length);
	else if (!err && m->igd.function)
		log_info("igd: ROM none");
	return err;
}

const struct pci_rom *assigned_display_rom(const struct machine *m)
{
	for (unsigned n = 0; n < m->assigned_count; n++)
		if (m->assigned[n].function == m->display_function)
			return &m->assigned[n].rom;
	return NULL;
}
