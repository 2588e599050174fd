/* SPDX-License-Identifier: MIT */
#ifndef VMM_MACHINE_MAP_H
#define VMM_MACHINE_MAP_H

#include "vmm/load/guest_acpi.h"
#include "vmm/machine.h"

#define BIOS_RSDP 0xf0000u

/* Fills m->vm.map. One log_error line with every error. */
int machine_map(struct machine *m);
/* The windows that the guest's PCI root passes on, for its ACPI tables. */
void machine_windows(const struct machine *m, struct guest_acpi_window below[],
		     unsigned count, struct guest_acpi_window *above);
/* Adds one region to the map; a failure is one log_error line. */
int machine_pin(struct machine *m, const struct region *r);
int machine_pin_hole(struct machine *m, gpa_t gpa, u64 size, const char *name);
/* Device memory: uncached, but without "ignore PAT" in the EPT. */
struct region machine_device(gpa_t gpa, hpa_t hpa, u64 size, const char *name);
/* Opens or closes ports in the I/O bitmap. */
void machine_open_range(struct machine *m, u64 first, u64 size, bool open);
/* Opens the legacy ports of the display, as a table says. */
void machine_open_ports(struct machine *m);

#endif
