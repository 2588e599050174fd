/* SPDX-License-Identifier: MIT */
/*
 * The firmware's ACPI tables: found, checked (signature, length, checksum)
 * and listed. Tables lie in host memory that Monocle never writes.
 * ACPI 6.4, 5.2.
 */
#ifndef KERNEL_ACPI_H
#define KERNEL_ACPI_H

#include "arch/x86/types.h"

/* ACPI 5.2.5.3 */
struct acpi_rsdp {
	char signature[8];
	u8 checksum; /* of the first 20 bytes */
	char oem_id[6];
	u8 revision;
	u32 rsdt;
	u32 length; /* from here on: revision 2 and later */
	u64 xsdt;
	u8 extended_checksum; /* of all length bytes */
	u8 reserved[3];
} PACKED;

/* ACPI 5.2.6 */
struct acpi_header {
	char signature[4];
	u32 length; /* bytes, with this header */
	u8 revision;
	u8 checksum; /* all bytes add up to 0 */
	char oem_id[6];
	char oem_table_id[8];
	u32 oem_revision;
	u32 creator_id;
	u32 creator_revision;
} PACKED;

_Static_assert(sizeof(struct acpi_header) == 36, "ACPI 5.2.6");

#define ACPI_TABLES_MAX 64

struct acpi_tables {
	unsigned count;
	const struct acpi_header *tables[ACPI_TABLES_MAX]; /* all checked */
};

/*
 * Walks RSDP, then XSDT or RSDT. A table with a wrong length or checksum is
 * logged in one line and left out. -ENOENT: no valid RSDP or root table.
 */
int acpi_init(struct acpi_tables *acpi, hpa_t rsdp);
/* The n-th (0...) table with that signature, or NULL. */
const struct acpi_header *acpi_find(const struct acpi_tables *acpi,
				    const char *signature, unsigned n);
/* All length bytes add up to 0. */
bool acpi_checksum_ok(const void *table, u32 length);

/* The longest table believed: a wrong length must not lead into devices. */
#define ACPI_TABLE_MAX (4 * MIB)

/*
 * acpi_init() for a direct map that reaches to top (host-physical, the
 * first byte not mapped): a pointer to or past it is logged and not
 * followed. acpi_init() takes 4 GiB. With rsdp 0 the RSDP is searched for in
 * the EBDA and the BIOS (ACPI 5.2.5.1). The DSDT, which the FADT points to,
 * is in the table like the rest.
 */
int acpi_init_below(struct acpi_tables *acpi, hpa_t rsdp, hpa_t top);

/*
 * The n-th (0...) RSDP that is valid, on 16 bytes in the EBDA's first KiB, then
 * in the BIOS (ACPI 5.2.5.1), or 0.
 */
hpa_t acpi_find_rsdp(hpa_t top, unsigned n);

/*
 * The sleep types of \_S5 (ACPI 7.4.2): the package's bytes in the DSDT or
 * an SSDT, without an interpreter. -ENOENT: none that is a plain package.
 */
int acpi_find_s5(const struct acpi_tables *acpi, u8 *typ_a, u8 *typ_b);

/* ACPI 5.2.3.2 */
enum acpi_space {
	ACPI_SPACE_MEMORY = 0,
	ACPI_SPACE_IO = 1,
	ACPI_SPACE_FIXED = 0x7f,
};

struct acpi_gas {
	u8 space; /* enum acpi_space */
	u8 bit_width;
	u8 bit_offset;
	u8 access_size;
	u64 address;
} PACKED;

_Static_assert(sizeof(struct acpi_gas) == 12, "ACPI 5.2.3.2");

/* What it takes to switch the machine off (ACPI 4.8.3), and its timer. */
struct acpi_power {
	u16 pm1a_cnt, pm1b_cnt; /* ports; 0: none */
	u16 pm_timer;		/* a port (4.8.3.3); 0: none */
	u8 pm_timer_bits;	/* 24 or 32; 0: not of 4 ports, aligned */
	bool has_s5;		/* slp_typ_a and slp_typ_b are valid */
	u8 slp_typ_a, slp_typ_b;
};

/* -ENOENT: no FADT. What the tables do not give stays 0. */
int acpi_power_init(struct acpi_power *power, const struct acpi_tables *acpi);

/*
 * The serial port for a console (SPCR) or a debugger (DBG2, ACPI 5.2.6): the
 * first that is a 16550 at I/O ports, or with registers of 32 bits in memory.
 * Its port, or its host-physical address, from 64 KiB on, as the table says; 0:
 * none is named.
 */
u64 acpi_uart(const struct acpi_tables *acpi);

/*
 * The MWAIT hint of the deepest low-power idle state that the LPIT names (ACPI
 * Low Power Idle Table, revision 1, 2.2.1); 0: none, or no such table.
 */
u32 acpi_lpit(const struct acpi_tables *acpi);

#define ACPI_CPUS_MAX 256
#define ACPI_IOAPICS_MAX 16
#define ACPI_OVERRIDES_MAX 24

struct acpi_ioapic {
	u8 id;
	u32 address; /* host-physical */
	u32 gsi_base;
};

struct acpi_override {
	u8 irq;	   /* ISA */
	u16 flags; /* MPS INTI: polarity in bits 1:0, trigger in 3:2 */
	u32 gsi;
};

/* ACPI 5.2.12; what does not fit is counted, not kept. */
struct acpi_madt {
	u64 lapic; /* host-physical */
	bool has_8259;
	unsigned cpu_count, ioapic_count, override_count, lost;
	u32 cpus[ACPI_CPUS_MAX]; /* APIC ids of enabled CPUs, each once */
	struct acpi_ioapic ioapics[ACPI_IOAPICS_MAX];
	struct acpi_override overrides[ACPI_OVERRIDES_MAX];
};

/* -ENOENT: no MADT. */
int acpi_madt_init(struct acpi_madt *madt, const struct acpi_tables *acpi);

/*
 * PCI Firmware 3.0, 4.1.2: memory-mapped configuration of segment 0 from bus
 * 0 on.
 */
struct acpi_mcfg {
	u64 base; /* host-physical, 1 MiB-aligned */
	u8 last_bus;
};

/* -ENOENT: there is none. */
int acpi_mcfg_init(struct acpi_mcfg *mcfg, const struct acpi_tables *acpi);

#endif
