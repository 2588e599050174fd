/* SPDX-License-Identifier: MIT */
/*
 * A function of the host in the guest's hands, at its own bus address. What
 * the guest reads and writes of its configuration space is decided for each
 * dword by a const table; the BARs that the guest sees are virtual and start
 * at the host's addresses, the host's own never move.
 */
#ifndef VMM_DEVMODEL_PCI_ASSIGNED_H
#define VMM_DEVMODEL_PCI_ASSIGNED_H

#include "arch/x86/types.h"
#include "drivers/pci/pci.h"
#include "vmm/devmodel/pci_bus.h"

#define PCI_BAR_NOWHERE (~0ull)

enum pci_policy {
	PCI_HIDDEN,	   /* reads 0, writes are dropped */
	PCI_READ_THROUGH,  /* the host's register, writes are dropped */
	PCI_WRITE_THROUGH, /* the host's register, both ways */
	PCI_EMULATED,	   /* a copy that is the guest's */
};

struct pci_policy_row {
	u8 first, last; /* offsets of dwords, inclusive */
	enum pci_policy policy;
	/* PCI_EMULATED: bits read from the host, bits the guest writes. */
	u32 host_bits, guest_bits;
	const char *reason;
};

/* The row that decides over the dword at offset (below 256). */
const struct pci_policy_row *pci_policy_find(unsigned offset);

struct pci_assigned_config {
	const struct pci_host *host;
	const struct pci_function *function; /* its BARs are sized */
	/*
	 * Bits of COMMAND that reach the host; of the others the host keeps
	 * its own. Decode bits are best kept: turning them off is felt by the
	 * legacy VGA ranges, too.
	 */
	u16 command_forward;
	/*
	 * The guest moved or switched a BAR: what was decoded at old_gpa (a
	 * port for an I/O BAR; PCI_BAR_NOWHERE: nothing was) no longer is;
	 * if enabled, the BAR is decoded at new_gpa from now on, which is
	 * the guest's choice and may be any address.
	 */
	void (*bar_changed)(void *ctx, unsigned index, u64 old_gpa, u64 new_gpa,
			    bool enabled);
	void *ctx;
};

struct pci_assigned {
	struct pci_assigned_config config;
	u16 initial_command; /* decode bits as firmware left them */
	u32 copy[64];	     /* of PCI_EMULATED dwords */
	u64 decoded[6];	     /* where each BAR is, or PCI_BAR_NOWHERE */
	u64 dropped;	     /* writes */
};

/*
 * Registers the function in *pci, which keeps d. The BARs are then decoded
 * at d->decoded[], of which bar_changed() is not told. Errors: vpci_add()'s.
 */
int pci_assigned_init(struct pci_assigned *d, struct vpci *pci,
		      const struct pci_assigned_config *config);

#endif
