/* SPDX-License-Identifier: MIT */
#ifndef VMM_MACHINE_MAP_H
#define VMM_MACHINE_MAP_H

#include "vmm/load/guest_acpi.h"
#include "vmm/machine.h"

#define BIOS_RSDP 0xf0000u
#define BIOS_SMBIOS 0xf1000u
#define BIOS_SMBIOS_SIZE 0xe000u

/* Fills m->vm.map. One log_error line with every error. */
int machine_map(struct machine *m);
/* The windows that the guest's PCI root passes on, for its ACPI tables. */
void machine_windows(const struct machine *m, struct guest_acpi_window below[],
		     unsigned count, struct guest_acpi_window *above);
/* Opens the legacy ports of the display, as a table says. */
void machine_open_ports(struct machine *m);

#endif
