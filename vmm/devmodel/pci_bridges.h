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

/* Where the host bridge's graphics registers are. */
enum bridge_layout { BRIDGE_PLAIN, BRIDGE_IRONLAKE, BRIDGE_SANDY_BRIDGE };

struct pci_bridge {
	struct pci_identity identity;
	u16 class;
	enum bridge_layout layout;
	const struct pci_host *host; /* BRIDGE_PLAIN: NULL */
	u32 mchbar[2], initial_mchbar[2];
	bool initial_vga_disable;
	u16 pm_base; /* shown by an ISA bridge, 0: not */
	/* The guest's firmware looks for SMRAM, or NULL: that is no matter. */
	void (*no_smm)(void *ctx);
	void (*move_ecam)(void *ctx,
			  gpa_t base); /* it puts it there, or NULL */
	void *ctx;
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

/*
 * The host bridge by which SeaBIOS and OVMF know QEMU's q35, and its fw_cfg.
 * Drivers of Intel's graphics look at its registers, and not at its ID.
 */
void pci_identity_q35(struct pci_identity *identity);

/* *bridge is kept by the bus. Errors: vpci_add()'s. */
int host_bridge_init(struct pci_bridge *bridge, struct vpci *pci,
		     const struct pci_identity *identity);
/*
 * For Intel's graphics: the registers that its drivers read are the host's,
 * MCHBAR is the guest's copy of it, and of the graphics control register the
 * VGA-disable bit goes through, until the reset. *host is kept.
 */
void host_bridge_graphics(struct pci_bridge *bridge,
			  const struct pci_host *host,
			  enum bridge_layout layout);
int isa_bridge_init(struct pci_bridge *bridge, struct vpci *pci,
		    const struct pci_identity *identity);

#endif
