/* SPDX-License-Identifier: MIT */
/*
 * Access control (PCIe 6.12): requests to neighbours go by way of the IOMMU.
 * It is believed only where the register, read again, says so.
 */
#include "arch/x86/io.h"
#include "drivers/pci/pci.h"
#include "kernel/host_paging.h"

enum {
	CAPABILITY = 4, /* 7.7.8.2; the control register follows it */
	/*
	 * Source validation, request redirect, completion redirect, upstream
	 * forwarding. What is not in the capability is hard-wired or has
	 * nothing to act on (6.12.1).
	 */
	ISOLATION = BIT(0) | BIT(2) | BIT(3) | BIT(4),
	/* 8 Series PCH data sheet: chipset configuration registers */
	RCBA = 0xf0, /* of 00:1f.0; bit 0: enabled */
	RCBA_SIZE = 16 * KIB,
	UPDCR = 0x1014, /* bits 5:0: peer decode */
	PEER_DECODE = 0x3f,
	MPC = 0xd8,	      /* of a port */
	MPC_IRBNCE = BIT(26), /* bus numbers of requests are checked */
};

/*
 * Intel's root ports that have dwords where words should be (Linux:
 * pci_quirk_intel_spt_pch_acs_match), and those of 5 to 9 Series that have no
 * ACS, but registers that do the same (pci_quirk_intel_pch_acs_ids).
 */
static const struct {
	u16 first, last;
	bool dwords;
} ports[] = {
	{0xa110, 0xa11f, true},	 {0xa167, 0xa16a, true}, /* 100 Series */
	{0xa290, 0xa29f, true},	 {0xa2e7, 0xa2ee, true}, /* 200 Series */
	{0xa390, 0xa39f, true},	 {0xa3e7, 0xa3ee, true}, /* B460, H410 */
	{0x9d10, 0x9d1b, true},	 {0x3b42, 0x3b51, false},
	{0x1c10, 0x1c1f, false}, {0x1d10, 0x1d1e, false},
	{0x1e10, 0x1e1f, false}, {0x8c10, 0x8c1f, false},
	{0x8c90, 0x8c9e, false}, {0x8d10, 0x8d1e, false},
	{0x9c10, 0x9c1b, false}, {0x9c90, 0x9c9b, false},
};

/* size: of each of the two registers, 2 or 4 bytes */
static bool by_capability(const struct pci_host *pci, bdf_t bdf, unsigned size,
			  bool keep)
{
	unsigned at = pci_find_extended(pci, bdf, PCI_EXT_ACS);
	unsigned control = at + CAPABILITY + size;
	u32 wanted, before, now;

	if (!at)
		return false;
	wanted = pci_config_read(pci, bdf, at + CAPABILITY, 2) & ISOLATION;
	before = pci_config_read(pci, bdf, control, size);
	pci_config_write(pci, bdf, control, size, before | wanted);
	now = pci_config_read(pci, bdf, control, size);
	if (!keep)
		pci_config_write(pci, bdf, control, size, before);
	return (now & wanted) == wanted;
}

static bool by_chipset(const struct pci_host *pci, bdf_t bdf, bool keep)
{
	u32 base = pci_config_read(pci, BDF(0, 31, 0), RCBA, 4);
	u32 mpc = pci_config_read(pci, bdf, MPC, 4), decode;
	volatile u8 *regs = NULL;
	bool done;

	if (base & 1 && base != ~0u)
		regs = mmio_map(ALIGN_DOWN(base, RCBA_SIZE), RCBA_SIZE);
	if (!regs)
		return false;
	decode = mmio_read32(regs + UPDCR);
	mmio_write32(regs + UPDCR, decode & ~(u32)PEER_DECODE);
	pci_config_write(pci, bdf, MPC, 4, mpc | MPC_IRBNCE);
	done = !(mmio_read32(regs + UPDCR) & PEER_DECODE) &&
	       pci_config_read(pci, bdf, MPC, 4) & MPC_IRBNCE;
	if (!keep) {
		mmio_write32(regs + UPDCR, decode);
		pci_config_write(pci, bdf, MPC, 4, mpc);
	}
	return done;
}

static bool isolate(const struct pci_host *pci, const struct pci_function *f,
		    bool keep)
{
	int type = pci_express_type(pci, f->bdf);
	bool intel = f->vendor == PCI_INTEL;
	unsigned size = 2;

	for (unsigned i = 0; i < ARRAY_SIZE(ports); i++) {
		if (!intel || type != PCI_EXPRESS_ROOT_PORT ||
		    f->device < ports[i].first || f->device > ports[i].last)
			continue;
		if (!ports[i].dwords)
			return by_chipset(pci, f->bdf, keep);
		size = 4;
	}
	/* VT-d 3.16: those of the root complex reach others translated only. */
	return (type >= 0 && by_capability(pci, f->bdf, size, keep)) ||
	       (intel && type == PCI_EXPRESS_INTEGRATED);
}

void pci_acs_probe(struct pci_host *pci)
{
	for (unsigned i = 0; i < pci->count; i++)
		pci->functions[i].isolates =
			isolate(pci, &pci->functions[i], false);
}

void pci_acs_enable(struct pci_host *pci)
{
	for (unsigned i = 0; i < pci->count; i++)
		pci->functions[i].isolates =
			isolate(pci, &pci->functions[i], true);
}
