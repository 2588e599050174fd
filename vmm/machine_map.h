/* SPDX-License-Identifier: MIT */
#ifndef VMM_MACHINE_MAP_H
#define VMM_MACHINE_MAP_H

#include "vmm/guest_acpi.h"
#include "vmm/machine.h"

#define BIOS_RSDP 0xf0000u

/* Fills m->vm.map. One log_error line with every error. */
int machine_map(struct machine *m);
/* The windows that the guest's PCI root passes on, for its ACPI tables. */
void machine_windows(const struct machine *m, struct guest_acpi_window below[],
		     unsigned count, struct guest_acpi_window *above);
/* pci_assigned's callback: EPT and I/O bitmap follow the guest's BAR. */
void machine_bar_changed(void *machine, unsigned index, u64 old_gpa,
			 u64 new_gpa, bool enabled);
/* Opens the ports of the display, as a table says, in the I/O bitmap. */
void machine_open_ports(struct machine *m);

#endif
