/* SPDX-License-Identifier: MIT */
/*
 * A PCI-to-PCI bridge (root port, switch port) that is on the way to an
 * assigned function: with its real identity, and at first its bus numbers and
 * windows. Configuration cycles reach the functions behind it by the numbers
 * that the guest writes here; the host's bridge keeps its own.
 */
#ifndef VMM_DEVMODEL_PCI_PORT_H
#define VMM_DEVMODEL_PCI_PORT_H

#include "arch/x86/types.h"
#include "drivers/pci/pci.h"
#include "vmm/devmodel/pci_bus.h"

struct pci_port_row {
	u8 first, last; /* offsets of dwords, inclusive */
	/* Bits as firmware left them in the host's; bits the guest writes. */
	u32 host_bits, guest_bits;
	const char *reason;
};

/* The row that decides over the dword at offset. */
const struct pci_port_row *pci_port_policy(unsigned offset);

struct pci_port {
	const struct pci_host *host;
	const struct pci_function *function;
	bool cold; /* no numbers and windows at a reset, as after power-on */
	u8 express, express_dwords; /* the capability; 0: none */
	u32 copy[16];		    /* the header */
	u64 dropped;		    /* writes */
};

/*
 * *port is kept by the bus. The host's bridge passes requests and what its
 * windows hold from now on. Errors: vpci_add()'s.
 */
int pci_port_init(struct pci_port *port, struct vpci *pci,
		  const struct pci_host *host,
		  const struct pci_function *function, bool cold);
enum pci_port_window { PCI_PORT_IO, PCI_PORT_MEMORY, PCI_PORT_PREFETCHABLE };
/*
 * The window [*base, *end), ports or addresses, if it is open: the host's, or
 * the guest's of a cold one. Where *port has its host and function alone, that
 * is not known yet.
 */
bool pci_port_window(const struct pci_port *port, enum pci_port_window which,
		     u64 *base, u64 *end);

#endif
