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
/* Opens the legacy ports of the display, as a table says, and the host's PM
 * timer's. After init of the guest's devices. */
void machine_open_ports(struct machine *m);

/* machine_windows.c */

/* Where the host's RAM below 4 GiB ends: there begins its PCI hole. */
hpa_t machine_low_limit(const struct machine *m);
/*
 * Fills in m->roots: bus 0's, and of the others those that lead to what is
 * assigned. -ENOTSUP: they are too many, which is logged.
 */
int machine_roots(struct machine *m);
/* Are ports of [at, end) those of a function, or of a bridge's window? */
bool machine_has_ports(const struct machine *m, u64 at, u64 end);
/* What each root passes on, for the guest's ACPI tables. After machine_map().
 */
void machine_windows(const struct machine *m, struct guest_acpi_config *cfg);

#endif
