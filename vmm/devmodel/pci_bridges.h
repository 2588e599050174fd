/* SPDX-License-Identifier: MIT */
/*
 * The two functions that a PC always has: host bridge 00:00.0 and ISA (PCH)
 * bridge 00:1f.0. They carry the host's identity, since graphics drivers
 * look at it; registers that are not listed read 0, writes are dropped.
 */
#ifndef VMM_DEVMODEL_PCI_BRIDGES_H
#define VMM_DEVMODEL_PCI_BRIDGES_H

#include "arch/x86/types.h"
#include "drivers/pci/pci.h"
#include "vmm/devmodel/pci_bus.h"

#define HOST_BRIDGE_BDF BDF(0, 0, 0)
#define ISA_BRIDGE_BDF BDF(0, 0x1f, 0)

struct pci_identity {
	u16 vendor, device;
	u16 subsystem_vendor, subsystem;
	u8 revision;
};

struct pci_bridge {
	struct pci_identity identity;
	u16 class;
	u64 dropped; /* writes */
};

/* Of a host's function; false where there is none (*identity is 0). */
bool pci_identity_read(const struct pci_host *host, bdf_t bdf,
		       struct pci_identity *identity);
/*
 * The host's first ISA bridge on bus 0; where it has none, a PIIX3, so that
 * the guest finds an ISA bus all the same.
 */
void pci_identity_isa(const struct pci_host *host,
		      struct pci_identity *identity);

/* *bridge is kept by the bus. Errors: vpci_add()'s. */
int host_bridge_init(struct pci_bridge *bridge, struct vpci *pci,
		     const struct pci_identity *identity);
int isa_bridge_init(struct pci_bridge *bridge, struct vpci *pci,
		    const struct pci_identity *identity);

#endif
