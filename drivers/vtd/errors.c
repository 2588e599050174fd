/* SPDX-License-Identifier: MIT */
/*
 * Chipsets that make a platform error of a DMA fault: an NMI, or an SMI that
 * hangs the machine, and a guest can provoke it (XSA-59). What is masked, and
 * of which parts, is Xen's pci_vtd_quirk().
 */
#include "arch/x86/io.h"
#include "drivers/vtd/vtd.h"
#include "kernel/host_paging.h"

enum {
	EXT_AER = 0x0001, /* PCIe 7.8.4 */
	EXT_VENDOR = 0x000b,
	UNCORRECTABLE_MASK = 8,
	UNSUPPORTED_REQUEST = BIT(20),
	CORRECTABLE_MASK = 0x14,
	ADVISORY = BIT(13),
	DMIBAR = 0x68, /* of 00:00.0 */
	DMI_ERRORS = 0x1c8,
};

static void set(const struct pci_host *pci, bdf_t bdf, unsigned at, u32 bits)
{
	pci_config_write(pci, bdf, at, 4,
			 pci_config_read(pci, bdf, at, 4) | bits);
}

/* Client chipsets: the mask of the DMI link's errors, in DMIBAR */
static void mask_dmi(const struct pci_host *pci, bdf_t bdf)
{
	u64 bar = (u64)pci_config_read(pci, bdf, DMIBAR + 4, 4) << 32 |
		  pci_config_read(pci, bdf, DMIBAR, 4);
	hpa_t base = bar & 0x7ffffff000;
	volatile u8 *dmi = bar & 1 && base ? mmio_map(base, PAGE_SIZE) : NULL;

	if (dmi)
		mmio_write32(dmi + DMI_ERRORS, mmio_read32(dmi + DMI_ERRORS) |
						       UNSUPPORTED_REQUEST);
}

/* I/O hubs: what VT-d reports to the core logic */
static void mask_hub(const struct pci_host *pci, bdf_t bdf)
{
	set(pci, bdf, 0x1ac, BIT(31));
}

static void mask_port(const struct pci_host *pci, bdf_t bdf)
{
	unsigned at = pci_find_extended(pci, bdf, EXT_AER);

	if (!at) {
		at = pci_find_extended(pci, bdf, EXT_VENDOR);
		/* ID 4, revision 1: laid out like that, behind its header */
		if (!at ||
		    (pci_config_read(pci, bdf, at + 4, 4) & 0xfffff) != 0x10004)
			return;
		at += 4;
	}
	set(pci, bdf, at + UNCORRECTABLE_MASK, UNSUPPORTED_REQUEST);
	set(pci, bdf, at + CORRECTABLE_MASK, ADVISORY);
	set(pci, bdf, 0x20c, BIT(4)); /* XPUNCERRMSK */
}

static const struct {
	u16 first, last; /* device IDs */
	void (*mask)(const struct pci_host *pci, bdf_t bdf);
} parts[] = {
	{0x0040, 0x0048, mask_dmi},  {0x0100, 0x0108, mask_dmi},
	{0x0150, 0x0158, mask_dmi},  {0x0a00, 0x0a0f, mask_dmi},
	{0x0c00, 0x0c0f, mask_dmi},  {0x0d00, 0x0d0f, mask_dmi},
	{0x1600, 0x1618, mask_dmi},  {0x1900, 0x191f, mask_dmi},
	{0x342e, 0x342e, mask_hub},  {0x3728, 0x3728, mask_hub},
	{0x3c28, 0x3c28, mask_hub},  {0x3400, 0x3411, mask_port},
	{0x3420, 0x3421, mask_port}, {0x3700, 0x370f, mask_port},
	{0x3720, 0x3724, mask_port}, {0x3c00, 0x3c0b, mask_port},
};

void vtd_mask_errors(const struct pci_host *pci)
{
	for (unsigned n = 0; n < pci->count; n++) {
		const struct pci_function *f = &pci->functions[n];

		for (unsigned i = 0; i < ARRAY_SIZE(parts); i++)
			if (f->vendor == PCI_INTEL &&
			    f->device >= parts[i].first &&
			    f->device <= parts[i].last &&
			    (!f->bdf || parts[i].mask != mask_dmi))
				parts[i].mask(pci, f->bdf);
	}
}
