/* SPDX-License-Identifier: MIT */
/*
 * The guest's PCI: configuration mechanism #1 (PCI 3.0, 3.2.2.3.2) and ECAM
 * (PCIe 7.2.2) in front of the functions that the guest is shown. An absent
 * function reads all ones and drops writes; but for a function 0 beside which
 * there is another one (3.2.2.3.4): there stands a placeholder. A bus is found
 * by the numbers that the guest has written into its bridges; a root bus keeps
 * the host's.
 *
 * The extended space of a function that is there reads 0: no capability of
 * it is offered. SR-IOV would make functions that nobody assigned; ATS, PRI
 * and PASID give a device a say in translation, which VT-d is told to block;
 * resizable BARs and EA move the host's; AER, DPC, ACS, VC, L1SS, LTR and
 * PTM govern links and errors that are the host's and other functions'.
 */
#ifndef VMM_DEVMODEL_PCI_BUS_H
#define VMM_DEVMODEL_PCI_BUS_H

#include "arch/x86/types.h"
#include "drivers/pci/pci.h"
#include "vmm/core/bus.h"
#include "vmm/core/virq.h"

#define VPCI_FUNCTIONS 130 /* assigned ones, bridges, and two of its own */
/* Ports 0xCF9-0xCFB are nobody's here: the reset register lives there. */
#define VPCI_ADDRESS_PORT 0xcf8
#define VPCI_DATA_PORT 0xcfc

/*
 * One function's configuration space: offset below 256, aligned to size,
 * which is 1, 2 or 4. Bit 7 of the header type is the bus's to set.
 */
struct vpci_ops {
	u32 (*read)(void *dev, unsigned offset, unsigned size);
	void (*write)(void *dev, unsigned offset, unsigned size, u32 value);
	void (*reset)(void *dev); /* or NULL: nothing changes */
};

struct vpci_function {
	bdf_t bdf; /* by the host's bus numbers */
	const struct vpci_ops *ops;
	void *dev;
	u8 secondary; /* of a bridge: the host's number */
	/* And the guest's: PRIMARY, SECONDARY, SUBORDINATE. NULL: no bridge. */
	const u8 *numbers;
};

struct vpci {
	u32 address; /* CONFIG_ADDRESS */
	gpa_t ecam;  /* 0: none */
	unsigned count;
	struct vpci_function functions[VPCI_FUNCTIONS];
};

/* Empties *pci and puts its ports on the bus: bus_register()'s errors. */
int vpci_init(struct vpci *pci, struct bus *bus);
/* ECAM for buses 0 to last_bus, a MiB each: bus_register()'s errors. */
int vpci_add_ecam(struct vpci *pci, struct bus *bus, gpa_t base, u8 last_bus);
/* dev stays the caller's. -EEXIST: there is such a function; -ENOSPC. */
int vpci_add(struct vpci *pci, bdf_t bdf, const struct vpci_ops *ops,
	     void *dev);
/*
 * A bridge: what was added with bus number secondary is where the guest's
 * own numbers, three bytes that stay the caller's, say. vpci_add()'s errors.
 */
int vpci_add_bridge(struct vpci *pci, bdf_t bdf, const struct vpci_ops *ops,
		    void *dev, u8 secondary, const u8 *numbers);
/* CONFIG_ADDRESS and every function, as after the machine's reset. */
void vpci_reset(struct vpci *pci);

/*
 * One naturally aligned access, size 1, 2 or 4, below 4096, as any
 * configuration mechanism makes it; bdf by the guest's bus numbers.
 */
u32 vpci_read(const struct vpci *pci, bdf_t bdf, unsigned offset,
	      unsigned size);
void vpci_write(struct vpci *pci, bdf_t bdf, unsigned offset, unsigned size,
		u32 value);

/*
 * The interrupt line (vmm/core/virq.h) of pin 1-4 (INTA-INTD) of a function on
 * bus 0: rotated by device, as ACPI's routing table says to the guest.
 */
static inline unsigned vpci_line(bdf_t bdf, unsigned pin)
{
	return VIRQ_PCI + ((BDF_DEV(bdf) + pin - 1) & 3);
}

#endif
