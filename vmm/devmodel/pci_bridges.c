/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/pci_bridges.h"

#include "kernel/string.h"

#define CLASS_HOST_BRIDGE 0x0600
#define CLASS_ISA_BRIDGE 0x0601
/* DEVSEL timing medium, as both bridges of every chip set say. */
#define STATUS_MEDIUM 0x0200
#define MCHBAR 0x48 /* 8 bytes; bit 0: enabled */
/* Linux (ie31200_edac) looks for MCHBAR where this bit is clear. */
#define CAPID0_A 0xe4
#define CAPID0_NO_ECC BIT(25)
#define CONTROL_VGA_DISABLE 2u
/* ICH9 13.1.13 and 13.1.14; OVMF takes the PM timer's place from there. */
#define PM_BASE 0x40
#define ACPI_CONTROL 0x44
#define ACPI_ENABLE 0x80u
/* QEMU's: all ones ask for its size. So begins OVMF with SMM_REQUIRE. */
#define EXT_TSEG 0x50
/* Q35 datasheet 5.1.15: where ECAM of 256 buses is, and whether. */
#define PCIEXBAR 0x60
#define PCIEXBAR_ON 1u
#define PCIEXBAR_BASE 0xf0000000u

struct register_row {
	u8 first, last; /* offsets of dwords, inclusive */
	const char *reason;
};

/* Of generation 5, and from generation 6 on; what i915 and others read. */
static const struct register_row ironlake[] =
	{
		{0x50, 0x54, "GMCH control in the upper half; DEVEN"},
		{0x60, 0x64, "PCIEXBAR"},
		{0xa0, 0xb0, "TOM and TOUUD, stolen memory, GTT, TSEG, TOLUD"},
},
				 sandy_bridge[] = {
					 {0x50, 0x54, "GGC, DEVEN"},
					 {0x58, 0x5c, "PAVPC, DPR"},
					 {0x60, 0x64, "PCIEXBAR"},
					 {0xa8, 0xac, "TOUUD"},
					 {0xb0, 0xbc,
					  "BDSM, BGSM, TSEGMB, TOLUD"},
					 {0xe0, 0xec, "CAPID0: fuses"},
};

static const struct {
	const struct register_row *rows;
	unsigned count;
	u8 control; /* the graphics control word */
} layouts[] = {
	[BRIDGE_PLAIN] = {NULL, 0, 0},
	[BRIDGE_IRONLAKE] = {ironlake, ARRAY_SIZE(ironlake), 0x52},
	[BRIDGE_SANDY_BRIDGE] = {sandy_bridge, ARRAY_SIZE(sandy_bridge), 0x50},
};

static u32 read_graphics(const struct pci_bridge *b, unsigned offset)
{
	if (b->pm_base && (offset == PM_BASE || offset == ACPI_CONTROL))
		return offset == PM_BASE ? b->pm_base | 1u : ACPI_ENABLE;
	if (b->layout == BRIDGE_PLAIN)
		return b->class == CLASS_HOST_BRIDGE && offset == CAPID0_A
			       ? CAPID0_NO_ECC
			       : 0;
	for (unsigned i = 0; i < layouts[b->layout].count; i++)
		if (offset >= layouts[b->layout].rows[i].first &&
		    offset <= layouts[b->layout].rows[i].last)
			return pci_config_read(b->host, HOST_BRIDGE_BDF, offset,
					       4);
	return (offset & ~4u) == MCHBAR ? b->mchbar[(offset - MCHBAR) / 4] : 0;
}

static void set_vga_disable(const struct pci_bridge *b, bool disable)
{
	unsigned at = layouts[b->layout].control;
	u32 control = pci_config_read(b->host, HOST_BRIDGE_BDF, at, 2);
	u32 wanted = (control & ~CONTROL_VGA_DISABLE) |
		     (disable ? CONTROL_VGA_DISABLE : 0);

	if (wanted != control)
		pci_config_write(b->host, HOST_BRIDGE_BDF, at, 2, wanted);
}

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
		return read_graphics(b, offset);
	}
}

static u32 bridge_read(void *dev, unsigned offset, unsigned size)
{
	u32 value = read_dword(dev, offset & ~3u) >> (8 * (offset & 3));

	return value & (u32)bus_all_ones(size);
}

static void bridge_write(void *dev, unsigned offset, unsigned size, u32 value)
{
	struct pci_bridge *b = dev;
	unsigned control = layouts[b->layout].control;
	unsigned shift = 8 * (offset & 3);
	u32 mask = (u32)bus_all_ones(size) << shift, *copy;

	if (b->no_smm && offset == EXT_TSEG && size == 2 && value == 0xffff) {
		b->no_smm(b->ctx);
		return;
	}
	if (b->move_ecam && offset == PCIEXBAR && value & PCIEXBAR_ON)
		b->move_ecam(b->ctx, value & PCIEXBAR_BASE);
	if (b->layout != BRIDGE_PLAIN && (offset & ~7u) == MCHBAR) {
		copy = &b->mchbar[(offset - MCHBAR) / 4];
		*copy = (*copy & ~mask) | (value << shift & mask);
		return;
	}
	if (b->layout != BRIDGE_PLAIN && offset <= control &&
	    offset + size > control)
		set_vga_disable(b, value >> (8 * (control - offset)) &
					   CONTROL_VGA_DISABLE);
	else
		b->dropped++;
}

static void bridge_reset(void *dev)
{
	struct pci_bridge *b = dev;

	if (b->layout == BRIDGE_PLAIN)
		return;
	set_vga_disable(b, b->initial_vga_disable);
	memcpy(b->mchbar, b->initial_mchbar, sizeof(b->mchbar));
}

void host_bridge_graphics(struct pci_bridge *b, const struct pci_host *host,
			  enum bridge_layout layout)
{
	b->layout = layout;
	b->host = host;
	b->initial_vga_disable = pci_config_read(host, HOST_BRIDGE_BDF,
						 layouts[layout].control, 2) &
				 CONTROL_VGA_DISABLE;
	for (unsigned i = 0; i < 2; i++)
		b->initial_mchbar[i] = pci_config_read(host, HOST_BRIDGE_BDF,
						       MCHBAR + 4 * i, 4);
	memcpy(b->mchbar, b->initial_mchbar, sizeof(b->mchbar));
}

static const struct vpci_ops bridge_ops = {
	.read = bridge_read,
	.write = bridge_write,
	.reset = bridge_reset,
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
	*identity =
		(struct pci_identity){.vendor = PCI_INTEL, .device = 0x7000};
}

void pci_identity_q35(struct pci_identity *identity)
{
	identity->vendor = PCI_INTEL;
	identity->device = 0x29c0;
	identity->subsystem_vendor = 0x1af4;
	identity->subsystem = 0x1100;
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
