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
#define PCI_ROM_BAR 6 /* its index behind the BARs */

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

/* The guest's MSI capability (PCI 3.0, 6.8.1). */
struct pci_msi {
	bool enabled;
	unsigned count; /* messages: a power of two, as the host's at most */
	u32 mask;	/* of messages; 0 where there are no mask bits */
	u64 address;
	u32 data;
};

struct pci_assigned_config {
	const struct pci_host *host;
	const struct pci_function *function; /* its BARs are sized */
	/*
	 * Bits of COMMAND that reach the host; of the others the host keeps
	 * its own. Decode bits are best kept: turning them off is felt by the
	 * legacy VGA ranges, too.
	 */
	u16 command_forward;
	/* Of those, the bits that are as firmware left them at each reset. */
	u16 command_kept;
	/*
	 * The guest moved or switched a BAR: from now on it is decoded at
	 * decoded[index] (a port for an I/O BAR), which is the guest's choice
	 * and may be any address; PCI_BAR_NOWHERE: it is not.
	 */
	void (*bar_changed)(void *ctx, unsigned index);
	/* The guest wrote to its MSI or MSI-X capability, or to COMMAND. */
	void (*interrupts_changed)(void *ctx);
	/*
	 * FLR and AF-FLR are offered where reset_method is that one. begin: the
	 * guest wants it; nothing is decoded or sent any more. Then true: it is
	 * over, and registers can be asked for again.
	 */
	bool (*reset)(void *ctx, bool begin);
	enum pci_reset reset_method;
	/* Rows that count before the general table and capabilities. */
	const struct pci_policy_row *rows;
	unsigned row_count;
	bool no_msix; /* its table is out of reach: not offered */
	bool cold;    /* at a reset no BAR has an address, or is decoded */
	u8 pin;	      /* 1-4: INTA-INTD as the guest sees it, 0: none */
	u32 rom_size; /* what its ROM BAR decodes, a power of two; 0: none */
	void *ctx;
};

struct pci_assigned {
	struct pci_assigned_config config;
	u16 initial_command; /* decode bits as firmware left them */
	u32 copy[64];	     /* of PCI_EMULATED dwords */
	u64 decoded[7];	     /* where each BAR is, or PCI_BAR_NOWHERE */
	u64 dropped;	     /* writes */
	bool stopped;	     /* bus mastering stays off until the reset */
	bool away;	     /* the guest has it reset */
	u64 accesses;	     /* by the guest */
	u8 msi, msix;	     /* offsets of the capabilities, 0: none */
	u8 msi_multiple;     /* as many messages as 2 to this */
	u8 msi_pending;	     /* offset of MSI's pending bits, 0: none */
	u8 first;	     /* what CAPABILITIES points at, 0: nothing */
	u8 next[64];	     /* of a dword that heads an offered capability */
	u8 rule[64];	     /* enum pci_capability_rule, from 0x40 on */
};

/* The guest's MSI capability; not enabled where there is none. */
struct pci_msi pci_assigned_msi(const struct pci_assigned *d);
/* Shows these messages as pending, beside those that the host's register
 * does. */
void pci_assigned_set_pending(struct pci_assigned *d, u32 messages);
/* MSI-X enabled; *masked: as a whole. */
bool pci_assigned_msix(const struct pci_assigned *d, bool *masked);
/* The guest wants INTx: no messages, and COMMAND does not forbid it. */
bool pci_assigned_intx(const struct pci_assigned *d);

/* In a reset that the guest has begun. */
bool pci_assigned_is_away(struct pci_assigned *d);
/* The host has cleared bus mastering: COMMAND shows it, and keeps it so. */
void pci_assigned_stop(struct pci_assigned *d);

/*
 * Registers the function in *pci, which keeps d. The BARs are then decoded
 * at d->decoded[], of which bar_changed() is not told. Errors: vpci_add()'s.
 */
int pci_assigned_init(struct pci_assigned *d, struct vpci *pci,
		      const struct pci_assigned_config *config);

#endif
