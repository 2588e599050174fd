/* SPDX-License-Identifier: MIT */
/*
 * The machine's IOMMUs, as the rest of Monocle sees them: nothing reaches
 * memory by DMA but an assigned function, and that one only what the region
 * list of its domain grants. VT-d specification.
 *
 * Order of use: vtd_init() (changes nothing on the machine), vtd_start(),
 * then domains, functions and interrupts. All of it runs on one CPU and
 * sleeps nowhere; no wait is longer than VTD_TIMEOUT ticks. -EIO and
 * -ETIMEDOUT from any call mean that a unit failed: the caller must stop,
 * and reuse no memory that a domain named.
 */
#ifndef DRIVERS_VTD_VTD_H
#define DRIVERS_VTD_VTD_H

#include "drivers/vtd/dmar.h"
#include "drivers/vtd/tables.h"
#include "drivers/vtd/unit.h"
#include "kernel/phys.h"
#include "kernel/region.h"

#define VTD_UNITS_MAX 64
#define VTD_DOMAINS_MAX 8
#define VTD_FAULT_SOURCES 64
#define VTD_IRTES 2048 /* a power of two; each CPU has vectors of its own */
#define VTD_NO_DISPLAY 0xffff
#define VTD_PICTURES 2
#define VTD_FAULTS_SILENCED 65536

struct vtd_config {
	/*
	 * The function that scans out the firmware's picture, or
	 * VTD_NO_DISPLAY: it keeps its RMRRs and its bus mastering.
	 */
	bdf_t display;
	/*
	 * A function whose DMA is not to be remapped, or VTD_NO_DISPLAY: a
	 * unit that is its own, and off, is left alone.
	 */
	bdf_t direct;
	/* More that it needs, RMRRs or not. Size 0: none. */
	struct phys_range picture[VTD_PICTURES];
	bool write_buffer; /* a chipset that needs RWBF and does not say so */
	bool x2apic;	   /* the CPU that takes interrupts is in that mode */
	u8 fault_vector;   /* for fault events; 0: vtd_handle_faults() polls */
	u32 apic_id;	   /* of the CPU that takes them */
	/* Its IOAPICs have to be in the DMAR table; NULL: it is not asked. */
	const struct acpi_madt *madt;
	/* As many of a requester within fault_ticks (0: ever) stop it. 0: never */
	u64 dma_faults, fault_ticks;
	/* Not NULL: told of each function whose bus mastering was cleared. */
	void (*stopped)(void *ctx, bdf_t bdf);
	void *ctx;
};

struct vtd_domain {
	struct second_level sl;
	const struct region_list *list;
	u16 id;		  /* 0: the slot is free */
	unsigned devices; /* assigned */
};

struct vtd_fault {
	bdf_t source; /* the requester ID */
	u8 reason;    /* 7.1.3, 7.1.4 */
	bool read;    /* else a write */
	bool interrupt;
	u64 address; /* of the page; of an interrupt: the entry's index */
};

struct vtd {
	struct vtd_config config;
	struct pci_host *pci;
	bool remapping; /* interrupts too */
	bool eim;	/* with 32-bit x2APIC IDs */
	bool renamed;	/* the DMAR table has another ID for the one IOAPIC: */
	u8 ioapic_id;
	unsigned unit_count;
	struct vtd_unit units[VTD_UNITS_MAX]; /* those that answer */
	struct vtd_domain domains[VTD_DOMAINS_MAX];
	struct vtd_domain *firmware; /* the display's, until it is assigned */
	struct region_list picture;  /* of that */
	struct vtd_domain *left;     /* of all that vtd_leave() left */

	struct vtd_entry *irt; /* one for all units */
	struct {
		bool used;
		bdf_t owner;
	} irtes[VTD_IRTES];

	u64 faults, faults_lost; /* lost: at least */
	struct vtd_fault last_fault;
	unsigned source_count;
	struct {
		bdf_t source;
		u64 count, stops;
		u64 since, recent; /* of the time that dma_faults counts in */
	} sources[VTD_FAULT_SOURCES]; /* the last one counts all others too */

	const struct dmar_table *dmar;
};

/*
 * Finds and checks everything and builds the first tables; the machine is
 * as before. One line in the log for each refusal: -ENODEV: no DMAR table
 * or no unit; -ENOTSUP: a unit without second-level tables; -EINVAL, -EEXIST:
 * see dmar_check(); -E2BIG, -ENOMEM. What acpi and pci point at must stay.
 */
int vtd_init(struct vtd *v, const struct acpi_tables *acpi,
	     struct pci_host *pci, const struct vtd_config *config);
/*
 * Where VT-d is not used: with 0 says what firmware left on, and after that
 * ends what of VTD_GCMD_IRE (it would block Monocle's interrupts, too) and
 * VTD_GCMD_TE (all that would block devices), as far as units do it.
 */
void vtd_unused(struct vtd *v, const struct acpi_tables *acpi, u32 what);
/*
 * Before vtd_start(): a function whose firmware goes on with it keeps its bus
 * mastering, and reaches its RMRRs and nothing else. -ENOMEM, -ERANGE.
 */
int vtd_leave(struct vtd *v, struct pci_function *f);
/*
 * Bus mastering off, units taken over, remapping on, the firmware's
 * protected memory given up, interrupts remapped where all units can.
 * -ETIMEDOUT, -EIO, -ENOTSUP.
 */
int vtd_start(struct vtd *v);
/* Units and what is in force, in words. */
void vtd_log(const struct vtd *v);

/* The largest page that all units have: 1 is 4 KiB, 2 is 2 MiB, 3 is 1 GiB. */
unsigned vtd_leaf_levels(const struct vtd *v);
/*
 * A domain that maps what of the list has DMA rights; the list must stay;
 * NULL: of none. Errors: sl_map(); -ENOSPC.
 */
int vtd_domain_create(struct vtd *v, const struct region_list *list,
		      struct vtd_domain **domain);
/* Its last function must be released: -EBUSY. */
int vtd_domain_destroy(struct vtd_domain *d);
/*
 * As sl_map(), with SL_R and SL_W as enum region_rights has them, and in
 * force on return: after an unmap (rights 0) no device reaches it any more.
 */
int vtd_map(struct vtd *v, struct vtd_domain *d, gpa_t gpa, hpa_t hpa, u64 size,
	    u64 rights);

/* The unit whose registers are there, if it answers, or NULL. */
static inline struct vtd_unit *vtd_unit_at(struct vtd *v, u64 base)
{
	for (unsigned i = 0; i < v->unit_count; i++)
		if (v->units[i].base == base)
			return &v->units[i];
	return NULL;
}

/* Does a unit translate for the function? */
bool vtd_has_unit(struct vtd *v, bdf_t bdf);
/*
 * Puts the function into the domain; its bus mastering stays as it is.
 * -ENODEV: no such function, or no unit for it; -EINVAL: an RMRR of it is
 * not 1:1 for reading and writing in the domain's list (those of a USB
 * controller that was taken over from firmware have lapsed); -EBUSY: it is
 * assigned, or one that shares its requester ID is, to another domain.
 */
int vtd_assign(struct vtd *v, struct vtd_domain *d, bdf_t bdf);
/*
 * Bus mastering off, its interrupt entries absent, its context absent, all
 * caches empty. The function's reset is the caller's. -ENODEV: not assigned.
 */
int vtd_release(struct vtd *v, bdf_t bdf);

/* remap.c: interrupt remapping, 5.1 */

/* What a function writes to raise an interrupt (SDM 3A 10.11) */
struct vtd_msi {
	u64 address;
	u32 data;
};

/* An IOAPIC pin. The vector is that of the entry: the IOAPIC's EOI needs it */
struct vtd_pin {
	u8 vector;
	bool level, active_low, masked;
};

/* The table in force, compatibility format blocked. Part of vtd_start(). */
int vtd_irq_start(struct vtd *v, struct vtd_unit *u);
/*
 * An entry for one message of a function, or count (a power of two) in a row
 * for those of a multi-message MSI, or one for an IOAPIC pin: the first's
 * index, a multiple of count; absent until set. -ENOTSUP: interrupts are not
 * remapped here, or by no unit of the IOAPIC's that answers (use the plain
 * format); -ENOSPC; -ENODEV: the IOAPIC is not in the DMAR table.
 */
int vtd_irq_alloc(struct vtd *v, bdf_t bdf, unsigned count);
int vtd_irq_alloc_ioapic(struct vtd *v, u8 ioapic_id);
/* Fixed delivery to one APIC, in force on return. -EINVAL. */
int vtd_irq_set(struct vtd *v, unsigned index, u8 vector, u32 apic_id,
		bool level);
/* Absent on return. -EINVAL. */
int vtd_irq_free(struct vtd *v, unsigned index);
/* Names the entry, or the first of count: message n adds n to the data
 * (5.1.2.2, 5.1.5.2). */
struct vtd_msi vtd_irq_msi(unsigned index, unsigned count);
/* A redirection entry of 64 bits (5.1.5.1) that names the entry */
u64 vtd_irq_rte(unsigned index, struct vtd_pin pin);
/* The entry that it names; -ENOTSUP: it is in compatibility format. */
int vtd_rte_index(u64 rte);
/* Without remapping: compatibility format. */
struct vtd_msi vtd_msi_plain(u8 vector, u32 apic_id);

/* errors.c */

/* DMA faults are no platform errors (SERR) any more. Part of vtd_start(). */
void vtd_mask_errors(const struct pci_host *pci);

/* faults.c: chapter 7 */

/* Old records dropped, then fault events by MSI. Part of vtd_start(). */
void vtd_faults_start(struct vtd *v, struct vtd_unit *u);
/*
 * On the fault event, or by polling: takes out, counts and logs what the
 * units recorded, and stops who has too many. Returns how many there were.
 * A requester's first 8 faults are logged, then those whose number is a
 * power of two: n faults make about 8 + log2(n) lines. One that gets as far
 * as VTD_FAULTS_SILENCED makes no more fault records, hence no events.
 */
unsigned vtd_handle_faults(struct vtd *v);
/* How many faults were recorded of the function's requester IDs. */
u64 vtd_fault_count(const struct vtd *v, bdf_t bdf);
/* Clears the function's bus mastering. */
void vtd_stop_mastering(const struct vtd *v, const struct pci_function *f);

#endif
