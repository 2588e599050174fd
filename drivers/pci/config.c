/* SPDX-License-Identifier: MIT */
#include "arch/x86/io.h"
#include "drivers/pci/pci.h"
#include "kernel/phys.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA 0xcfc
#define CONFIG_ENABLE BIT(31)
#define CONFIG_SIZE 256
#define ECAM_SIZE 4096 /* of a function: PCIe 7.2.2 */

static bool valid(unsigned offset, unsigned size)
{
	return (size == 1 || size == 2 || size == 4) && offset % size == 0 &&
	       offset < ECAM_SIZE;
}

/* Where the function's register is mapped, or NULL: mechanism #1. */
static void *ecam(const struct pci_host *pci, bdf_t bdf, unsigned offset)
{
	if (!pci->ecam || BDF_BUS(bdf) > pci->ecam_last_bus)
		return NULL;
	return phys_to_virt(pci->ecam + (u64)bdf * ECAM_SIZE + offset);
}

/* Selects the dword (PCI 3.0, 3.2.2.3.2) and returns the data port. */
static u16 select_register(bdf_t bdf, unsigned offset)
{
	outl(CONFIG_ADDRESS,
	     (u32)(CONFIG_ENABLE | (u64)bdf << 8 | (offset & ~3u)));
	return (u16)(CONFIG_DATA + (offset & 3));
}

u32 pci_port_read(bdf_t bdf, unsigned offset, unsigned size)
{
	return port_read(select_register(bdf, offset), size);
}

u32 pci_config_read(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		    unsigned size)
{
	const void *p;

	if (!valid(offset, size))
		return ~0u;
	p = ecam(pci, bdf, offset);
	if (p)
		return (u32)mmio_read(p, size);
	if (offset >= CONFIG_SIZE)
		return size == 4 ? ~0u : (1u << size * 8) - 1;
	return pci_port_read(bdf, offset, size);
}

bool pci_use_ecam(struct pci_host *pci, u64 base, u8 last_bus)
{
	bool same = true;

	pci->ecam = base;
	pci->ecam_last_bus = last_bus;
	for (unsigned at = 0; at <= PCI_REVISION; at += PCI_REVISION)
		same &= pci_config_read(pci, 0, at, 4) ==
			pci_port_read(0, at, 4);
	pci->ecam = same ? base : 0;
	return same;
}

void pci_config_write(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		      unsigned size, u32 value)
{
	void *p;

	if (!valid(offset, size))
		return;
	p = ecam(pci, bdf, offset);
	if (p) {
		mmio_write(p, size, value);
		return;
	}
	if (offset >= CONFIG_SIZE)
		return;
	port_write(select_register(bdf, offset), size, value);
}
