/* SPDX-License-Identifier: MIT */
/*
 * The guest's ACPI tables (ACPI 6.4, 5.2): RSDP, RSDT, XSDT, FADT, FACS,
 * MADT, MCFG and a DSDT with the PCI roots, their interrupt routing, the ISA
 * devices, the processors and S5. They describe the machine that
 * vmm/devmodel/ builds.
 */
#ifndef VMM_LOAD_GUEST_ACPI_H
#define VMM_LOAD_GUEST_ACPI_H

#include "arch/x86/types.h"
#include "kernel/region.h"

/* Holes of the guest's memory map. */
#define GUEST_IOAPIC 0xfec00000ull
#define GUEST_LAPIC 0xfee00000ull

#define GUEST_ACPI_SIZE (20 * KIB) /* what the tables need at most */
#define GUEST_ACPI_WINDOWS 40
#define GUEST_ACPI_ROOTS 16
#define GUEST_ACPI_VCPUS 64

struct guest_acpi_root {
	u8 bus, last_bus; /* its own, and the last one behind it */
	u32 devices;	  /* bit n: device n of its bus has interrupts */
};

/* What a root passes on, and no other one. */
struct guest_acpi_window {
	u64 base, size; /* guest-physical addresses, or ports */
	bool ports;
	u8 root; /* its index */
};

struct guest_acpi_config {
	gpa_t tables;	 /* page-aligned RAM below 4 GiB, kind E820_NVS: the
		     * FACS is used for ever (ACPI 15.2) */
	u8 *tables_host; /* or NULL: the guest's memory there */
	u64 tables_size;
	gpa_t rsdp;	     /* 16-byte aligned, in 0xE0000-0xFFFFF */
	void *rsdp_host;     /* the same bytes: the guest's BIOS area is ROM */
	unsigned vcpus;	     /* 1 to GUEST_ACPI_VCPUS */
	const u32 *apic_ids; /* of each; the n-th has the processor ID n */
	u8 ioapic_id;	     /* what the IOAPIC's ID register holds at reset */
	const struct guest_acpi_root *roots; /* bus 0's first, by number */
	unsigned root_count;		     /* at most GUEST_ACPI_ROOTS */
	unsigned window_count;
	struct guest_acpi_window windows[GUEST_ACPI_WINDOWS];
	gpa_t ecam;	  /* a MiB for each bus, below 4 GiB; 0: none */
	u16 pm_timer;	  /* its port */
	u8 pm_timer_bits; /* 24 or 32 */
	bool no_8042, no_vga;
};

/* What makes all bytes add up to 0, where a checksum of 0 stands. */
u8 sum_to_zero(const void *data, u64 size);
/* The lowest that none of these local APICs has: early kernels want it so. */
u8 guest_acpi_ioapic_id(const u32 *apic_ids, unsigned count);
/*
 * Writes the tables and sets *rsdp. -EINVAL: the configuration breaks one of
 * the rules above; -ENOSPC: tables_size is too small; both are logged.
 */
int guest_acpi_build(const struct guest_acpi_config *cfg,
		     const struct region_list *map, gpa_t *rsdp);

#endif
