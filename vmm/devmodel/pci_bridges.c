/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/pci_bridges.h"

#define CLASS_HOST_BRIDGE 0x0600
#define CLASS_ISA_BRIDGE 0x0601
/* DEVSEL timing medium, as both bridges of every chip set say. */
#define STATUS_MEDIUM 0x0200

/* PCI 3.0, 6.1: the registers that are there; all others read 0. */
static u32 read_dword(const struct pci_bridge *b, unsigned offset)
{
	const struct pci_identity *id = &b->identity;

	switch (offset) {
	case PCI_VENDOR:
		return (u32)id->device << 16 | id->vendor;
	case PCI_COMMAND:
		return STATUS_MEDIUM << 16 | PCI_COMMAND_IO |
		       PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	case PCI_REVISION:
		return (u32)b->class << 16 | id->revision;
	case PCI_SUBSYSTEM_VENDOR:
		return (u32)id->subsystem << 16 | id->subsystem_vendor;
	default:
		return 0;
	}
}

static u32 bridge_read(void *dev, unsigned offset, unsigned size)
{
	u32 value = read_dword(dev, offset & ~3u) >> (8 * (offset & 3));

	return value & (u32)bus_all_ones(size);
}

static void bridge_write(void *dev, unsigned offset UNUSED,
			 unsigned size UNUSED, u32 value UNUSED)
{
	struct pci_bridge *b = dev;

	b->dropped++;
}

static const struct vpci_ops bridge_ops = {
	.read = bridge_read,
	.write = bridge_write,
};

bool pci_identity_read(const struct pci_host *host, bdf_t bdf,
		       struct pci_identity *identity)
{
	u32 ids = pci_config_read(host, bdf, PCI_VENDOR, 4);
	u32 subsystem;

	*identity = (struct pci_identity){0};
	if ((u16)ids == 0xffff)
		return false;
	subsystem = pci_config_read(host, bdf, PCI_SUBSYSTEM_VENDOR, 4);
	identity->vendor = (u16)ids;
	identity->device = (u16)(ids >> 16);
	identity->subsystem_vendor = (u16)subsystem;
	identity->subsystem = (u16)(subsystem >> 16);
	identity->revision = (u8)pci_config_read(host, bdf, PCI_REVISION, 1);
	return true;
}

void pci_identity_isa(const struct pci_host *host,
		      struct pci_identity *identity)
{
	for (unsigned i = 0; i < host->count; i++) {
		const struct pci_function *f = &host->functions[i];

		if (f->class == CLASS_ISA_BRIDGE && BDF_BUS(f->bdf) == 0 &&
		    pci_identity_read(host, f->bdf, identity))
			return;
	}
	*identity = (struct pci_identity){.vendor = 0x8086, .device = 0x7000};
}

static int bridge_init(struct pci_bridge *bridge, struct vpci *pci, bdf_t bdf,
		       u16 class, const struct pci_identity *identity)
{
	*bridge = (struct pci_bridge){.identity = *identity, .class = class};
	return vpci_add(pci, bdf, &bridge_ops, bridge);
}

int host_bridge_init(struct pci_bridge *bridge, struct vpci *pci,
		     const struct pci_identity *identity)
{
	return bridge_init(bridge, pci, HOST_BRIDGE_BDF, CLASS_HOST_BRIDGE,
			   identity);
}

int isa_bridge_init(struct pci_bridge *bridge, struct vpci *pci,
		    const struct pci_identity *identity)
{
	return bridge_init(bridge, pci, ISA_BRIDGE_BDF, CLASS_ISA_BRIDGE,
			   identity);
}
