/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/pci_bus.h"
#include "arch/x86/errno.h"

#define ADDRESS_ENABLE BIT(31)
/* Bits 30:24 and 1:0 are reserved and read 0. */
#define ADDRESS_BITS 0x80fffffcu
#define HEADER_MULTI_FUNCTION 0x80u
#define CONFIG_SIZE 256
#define ECAM_SHIFT 12 /* a function's 4 KiB: PCIe 7.2.2 */

/* A bus with functions, to which none of the bridges leads. */
static bool is_root(const struct vpci *pci, unsigned bus)
{
	bool there = false;

	for (unsigned i = 0; i < pci->count; i++) {
		if (pci->functions[i].numbers &&
		    pci->functions[i].secondary == bus)
			return false;
		there |= BDF_BUS(pci->functions[i].bdf) == bus;
	}
	return there;
}

/* The bridge there, by the host's number, that passes cycles for bus on. */
static const struct vpci_function *bridge_to(const struct vpci *pci,
					     unsigned there, u8 bus)
{
	for (unsigned i = 0; i < pci->count; i++) {
		const struct vpci_function *f = &pci->functions[i];

		if (f->numbers && BDF_BUS(f->bdf) == there && f->numbers[1] &&
		    f->numbers[1] <= bus && bus <= f->numbers[2])
			return f;
	}
	return NULL;
}

/*
 * From the guest's numbers to those that functions were added by: from the root
 * down the guest's bridges (PCI-to-PCI bridges 1.2, 3.1.2.1.2). No deeper than
 * there are functions: the host's bridges may form a circle. False: nothing is
 * there.
 */
static bool to_host(const struct vpci *pci, bdf_t *bdf)
{
	const struct vpci_function *f;
	u8 bus = (u8)BDF_BUS(*bdf);
	unsigned there = bus;

	while (there && !is_root(pci, there))
		there--;
	if (there == bus)
		return true;
	for (unsigned i = 0; i < pci->count; i++) {
		f = bridge_to(pci, there, bus);
		if (!f)
			return false;
		there = f->secondary;
		if (f->numbers[1] == bus) {
			*bdf = BDF(there, BDF_DEV(*bdf), BDF_FN(*bdf));
			return true;
		}
	}
	return false;
}

static const struct vpci_function *find(const struct vpci *pci, bdf_t bdf)
{
	for (unsigned i = 0; i < pci->count; i++)
		if (pci->functions[i].bdf == bdf)
			return &pci->functions[i];
	return NULL;
}

/* PCI 3.0, 6.2.1: said by function 0 if the device has another one. */
static bool multi_function(const struct vpci *pci, bdf_t bdf)
{
	for (unsigned i = 0; i < pci->count; i++)
		if (pci->functions[i].bdf != bdf &&
		    (pci->functions[i].bdf & ~7u) == (bdf & ~7u))
			return true;
	return false;
}

static u32 size_mask(unsigned size)
{
	return (u32)bus_all_ones(size);
}

/*
 * What stands for a function 0 that the guest is not given, so that it looks
 * for the others: a host bridge with the IDs of QEMU's generic one, which no
 * driver wants.
 */
static u32 placeholder(unsigned offset)
{
	switch (offset & ~3u) {
	case PCI_VENDOR:
		return 0x00081b36;
	case PCI_REVISION:
		return 0x06000000;
	case PCI_HEADER_TYPE & ~3:
		return HEADER_MULTI_FUNCTION << 16;
	default:
		return 0;
	}
}

u32 vpci_read(const struct vpci *pci, bdf_t bdf, unsigned offset, unsigned size)
{
	bool there = to_host(pci, &bdf);
	const struct vpci_function *f = there ? find(pci, bdf) : NULL;
	unsigned header_byte = PCI_HEADER_TYPE - offset;
	u32 value;

	if (!there || (!f && (BDF_FN(bdf) || !multi_function(pci, bdf))))
		return size_mask(size);
	if (offset >= CONFIG_SIZE)
		return 0; /* no extended capability: see pci_bus.h */
	if (!f)
		return placeholder(offset) >> (8 * (offset & 3)) &
		       size_mask(size);
	value = f->ops->read(f->dev, offset, size);
	if (offset <= PCI_HEADER_TYPE && header_byte < size &&
	    BDF_FN(bdf) == 0 && multi_function(pci, bdf))
		value |= HEADER_MULTI_FUNCTION << (8 * header_byte);
	return value & size_mask(size);
}

void vpci_write(struct vpci *pci, bdf_t bdf, unsigned offset, unsigned size,
		u32 value)
{
	const struct vpci_function *f =
		to_host(pci, &bdf) ? find(pci, bdf) : NULL;

	if (f && offset < CONFIG_SIZE)
		f->ops->write(f->dev, offset, size, value & size_mask(size));
}

/* Only a dword at 0xCF8 is CONFIG_ADDRESS; others are ports of nobody. */
static int address_port(void *dev, struct bus_access *access)
{
	struct vpci *pci = dev;

	if (access->size != 4) {
		if (!access->write)
			access->value = bus_all_ones(access->size);
		return 0;
	}
	if (access->write)
		pci->address = (u32)access->value & ADDRESS_BITS;
	else
		access->value = pci->address;
	return 0;
}

/* One piece of an access that is naturally aligned, at its byte's shift. */
static void data_piece(struct vpci *pci, struct bus_access *access, bdf_t bdf,
		       unsigned offset, unsigned size, unsigned shift)
{
	u64 mask = bus_all_ones(size) << shift;

	if (access->write)
		vpci_write(pci, bdf, offset, size,
			   (u32)(access->value >> shift));
	else
		access->value = (access->value & ~mask) |
				(u64)vpci_read(pci, bdf, offset, size) << shift;
}

/*
 * Hardware passes any byte enables within the dword; what is beyond is not
 * the register's. What is not naturally aligned is done in pieces that are.
 */
static void access_dword(struct vpci *pci, struct bus_access *access, bdf_t bdf,
			 unsigned offset)
{
	unsigned first = offset & 3, lane = first;
	unsigned end = MIN(lane + access->size, 4);

	while (lane < end) {
		unsigned size = lane & 1 || end - lane < 2   ? 1
				: lane & 2 || end - lane < 4 ? 2
							     : 4;

		data_piece(pci, access, bdf, (offset & ~3u) + lane, size,
			   8 * ((lane - first) & 3));
		lane += size;
	}
}

static int data_port(void *dev, struct bus_access *access)
{
	struct vpci *pci = dev;

	if (!access->write)
		access->value = bus_all_ones(access->size);
	if (pci->address & ADDRESS_ENABLE)
		access_dword(pci, access, (bdf_t)(pci->address >> 8),
			     (pci->address & 0xfc) | (access->addr & 3));
	return 0;
}

/* PCIe 7.2.2: what crosses a dword (a quadword does) need not work. */
static int ecam(void *dev, struct bus_access *access)
{
	struct vpci *pci = dev;
	u64 at = access->addr - pci->ecam;

	if (!access->write)
		access->value = bus_all_ones(access->size);
	if ((at & 3) + access->size <= 4)
		access_dword(pci, access, (bdf_t)(at >> ECAM_SHIFT),
			     at & (BIT(ECAM_SHIFT) - 1));
	return 0;
}

int vpci_init(struct vpci *pci, struct bus *bus)
{
	int error;

	*pci = (struct vpci){0};
	error = bus_register(bus, BUS_PORT, VPCI_ADDRESS_PORT,
			     VPCI_ADDRESS_PORT, address_port, pci,
			     "PCI address");
	if (error)
		return error;
	return bus_register(bus, BUS_PORT, VPCI_DATA_PORT, VPCI_DATA_PORT + 3,
			    data_port, pci, "PCI data");
}

int vpci_add_ecam(struct vpci *pci, struct bus *bus, gpa_t base, u8 last_bus)
{
	pci->ecam = base;
	return bus_register(bus, BUS_MMIO, base,
			    base + (last_bus + 1) * MIB - 1, ecam, pci, "ECAM");
}

int vpci_add(struct vpci *pci, bdf_t bdf, const struct vpci_ops *ops, void *dev)
{
	return vpci_add_bridge(pci, bdf, ops, dev, 0, NULL);
}

int vpci_add_bridge(struct vpci *pci, bdf_t bdf, const struct vpci_ops *ops,
		    void *dev, u8 secondary, const u8 *numbers)
{
	if (find(pci, bdf))
		return -EEXIST;
	if (pci->count == VPCI_FUNCTIONS)
		return -ENOSPC;
	pci->functions[pci->count++] =
		(struct vpci_function){bdf, ops, dev, secondary, numbers};
	return 0;
}

void vpci_reset(struct vpci *pci)
{
	pci->address = 0;
	for (unsigned i = 0; i < pci->count; i++)
		if (pci->functions[i].ops->reset)
			pci->functions[i].ops->reset(pci->functions[i].dev);
}
