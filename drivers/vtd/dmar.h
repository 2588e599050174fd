/* SPDX-License-Identifier: MIT */
/*
 * The DMAR table: which remapping units there are, which functions stand
 * behind each, and which memory a function's firmware use needs (RMRR).
 * VT-d specification chapter 8. Nothing here touches hardware. The table is
 * checked once and then read where firmware left it.
 */
#ifndef DRIVERS_VTD_DMAR_H
#define DRIVERS_VTD_DMAR_H

#include "drivers/pci/pci.h"
#include "kernel/acpi.h"

enum dmar_flags { DMAR_INTR_REMAP = 1 }; /* 8.1 */

struct dmar_table {
	struct acpi_header acpi;
	u8 host_width; /* bits of a host-physical address, less 1 */
	u8 flags;      /* enum dmar_flags */
	u8 reserved[10];
} PACKED;

/* 8.2; SATC: devices that keep translations, for the log alone (8.8) */
enum dmar_type { DMAR_UNIT = 0, DMAR_RMRR = 1, DMAR_SATC = 5 };

/* 8.3, which ends before limit, and 8.4; then the scopes */
struct dmar_entry {
	u16 type; /* enum dmar_type, or one that is skipped */
	u16 length;
	u8 flags; /* of a unit: 1 is INCLUDE_PCI_ALL; of SATC: ATC_REQUIRED */
	u8 size;
	u16 segment;
	u64 base;  /* of the unit's registers (0: firmware has switched it
		    * off), or of the memory */
	u64 limit; /* of the memory: its last byte */
} PACKED;

/* 8.3.1; another one says nothing to Monocle */
enum dmar_scope_type {
	DMAR_SCOPE_BRIDGE = 2, /* the bridge and all that is behind it */
	DMAR_SCOPE_IOAPIC = 3,
};

struct dmar_scope {
	u8 type, length;
	u16 flags;
	u8 id;	/* of an IOAPIC, HPET or namespace device */
	u8 bus; /* a root bus: each hop but the last is a bridge */
	struct {
		u8 device, function;
	} path[];
} PACKED;

_Static_assert(sizeof(struct dmar_table) == 48, "VT-d 8.1");
_Static_assert(offsetof(struct dmar_entry, limit) == 16, "VT-d 8.3");
_Static_assert(sizeof(struct dmar_entry) == 24, "VT-d 8.4");
_Static_assert(sizeof(struct dmar_scope) == 6, "VT-d 8.3.1");

/*
 * Checks the table (acpi->length readable bytes); the functions below take
 * one that passed. A structure of a type that Monocle does not use is listed
 * in the log and skipped by its length, and so is an RMRR that is no range of
 * memory. Refused, with one line in the log, are: -EINVAL a wrong checksum, a
 * length or an address that cannot be; -EEXIST two units at one address, or
 * two that include all of a segment; -ENODEV no unit. A structure without a
 * length is the table's end.
 */
int dmar_check(const struct acpi_header *acpi);
/* A line for each unit and RMRR and for each of their scopes */
void dmar_log(const struct dmar_table *t, struct pci_host *pci);

/* The entry of that type after prev (NULL: the first), or NULL */
const struct dmar_entry *dmar_next(const struct dmar_table *t, unsigned type,
				   const struct dmar_entry *prev);
/* The scope after prev (NULL: the first), or NULL */
const struct dmar_scope *dmar_next_scope(const struct dmar_entry *e,
					 const struct dmar_scope *prev);
/* The function at the end of the path, or -ENODEV where a bridge lacks */
int dmar_resolve(struct pci_host *pci, const struct dmar_scope *s, bdf_t *bdf);
/* The unit that translates for bdf (of segment 0), or NULL */
const struct dmar_entry *dmar_unit_of(const struct dmar_table *t,
				      struct pci_host *pci, bdf_t bdf);
/* The RMRR of bdf after prev (NULL: the first), or NULL */
const struct dmar_entry *dmar_rmrr_of(const struct dmar_table *t,
				      struct pci_host *pci, bdf_t bdf,
				      const struct dmar_entry *prev);
/* The requester ID of an IOAPIC's interrupts (8.3.1.1), and the address of
 * the unit that they go through; or -ENODEV */
int dmar_ioapic_source(const struct dmar_table *t, struct pci_host *pci, u8 id,
		       bdf_t *source, u64 *unit);
/* Is there one IOAPIC alone? Then id is what the table calls it. */
bool dmar_lone_ioapic(const struct dmar_table *t, u8 *id);

#endif
