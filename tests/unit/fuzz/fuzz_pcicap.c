/* SPDX-License-Identifier: MIT */
// sources: drivers/pci/scan.c drivers/pci/groups.c drivers/pci/acs.c
// sources: vmm/core/bus.c vmm/devmodel/pci_bus.c vmm/devmodel/pci_assigned.c
// sources: vmm/devmodel/pci_port.c
/*
 * The input is the configuration space of a bridge and of a function behind
 * it: 256 bytes each, then records of two bytes offset and four bytes value
 * for their extended spaces. The walkers have to come to an end, and the
 * guest has to find a list that does, whatever it writes.
 */
#include <stdlib.h>
#include <string.h>

#include "arch/x86/io.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "vmm/devmodel/pci_assigned.h"
#include "vmm/devmodel/pci_port.h"

#define BRIDGE BDF(0, 0x1c, 0)
#define DEVICE BDF(1, 0, 0)

static u8 space[2][4096];
static unsigned reads;
static bool may_write;

void log_write(enum log_level level, const char *fmt, ...)
{
	(void)level;
	(void)fmt;
}

/* 00:1f.0, which has the chipset's registers, is not there. */
volatile void *mmio_map(hpa_t hpa, u64 size)
{
	(void)hpa;
	(void)size;
	abort();
}

u32 mmio_read32(const volatile void *p)
{
	(void)p;
	abort();
}

void mmio_write32(volatile void *p, u32 value)
{
	(void)p;
	(void)value;
	abort();
}

static u8 *config(bdf_t bdf, unsigned offset, unsigned size)
{
	if ((size != 1 && size != 2 && size != 4) || offset % size ||
	    offset + size > 4096)
		abort();
	return bdf == BRIDGE   ? &space[0][offset]
	       : bdf == DEVICE ? &space[1][offset]
			       : NULL;
}

u32 pci_config_read(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		    unsigned size)
{
	const u8 *p = config(bdf, offset, size);
	u32 value = 0;

	(void)pci;
	reads++;
	if (!p)
		return ~0u;
	memcpy(&value, p, size);
	return value;
}

u32 pci_port_read(bdf_t bdf, unsigned offset, unsigned size)
{
	return pci_config_read(NULL, bdf, offset, size);
}

void pci_config_write(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		      unsigned size, u32 value)
{
	u8 *p = config(bdf, offset, size);

	(void)pci;
	/* A port is switched on; nothing else is written before ACS. */
	if (!may_write && (bdf != BRIDGE || offset != PCI_COMMAND))
		abort();
	if (p)
		memcpy(p, &value, size);
}

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void walk(const struct pci_host *pci)
{
	for (unsigned id = 0; id < 256; id++) {
		unsigned at = pci_find_capability(pci, DEVICE, (u8)id);
		unsigned ext = pci_find_extended(pci, DEVICE, (u16)id);

		check(!at || (at >= 0x40 && at < 0x100 && !(at & 3) &&
			      space[1][at] == id));
		check(!ext || (ext >= 0x100 && ext < 0x1000 && !(ext & 3) &&
			       space[1][ext] == id && !space[1][ext + 1]));
	}
	check(reads < 256 * (2 * 50 + 500));
	check(pci_group(pci, DEVICE) == DEVICE ||
	      pci_group(pci, DEVICE) == BRIDGE);
}

/* The guest's list has an end, each entry a place, and its own ID. */
static void walk_as_guest(struct vpci *vpci, bdf_t bdf)
{
	unsigned at = 0, count = 0;

	if (vpci_read(vpci, bdf, PCI_STATUS, 2) & 0x10)
		at = vpci_read(vpci, bdf, PCI_CAPABILITIES, 1);
	for (; at; at = vpci_read(vpci, bdf, at + 1, 1))
		check(at >= 0x40 && !(at & 3) && ++count <= 48);
}

static void use(struct pci_host *pci)
{
	static struct bus bus;
	static struct vpci vpci;
	static struct pci_assigned assigned;
	static struct pci_port port;
	struct pci_assigned_config cfg = {
		.host = pci, .function = &pci->functions[1], .pin = 1};

	memset(&bus, 0, sizeof(bus));
	check(!vpci_init(&vpci, &bus));
	check(!pci_assigned_init(&assigned, &vpci, &cfg));
	check(!pci_port_init(&port, &vpci, pci, &pci->functions[0], false));
	for (unsigned turn = 0; turn < 2; turn++) {
		walk_as_guest(&vpci, DEVICE);
		walk_as_guest(&vpci, BRIDGE);
		for (unsigned at = 0; at < 256; at += 4) {
			vpci_write(&vpci, DEVICE, at, 4, 0xffffffff);
			vpci_write(&vpci, BRIDGE, at, 4, 0xffffffff);
		}
		pci_assigned_msi(&assigned);
	}
	vpci_reset(&vpci);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct pci_host pci = {
		.count = 2,
		.functions = {{.bdf = BRIDGE,
			       .header_type = PCI_HEADER_BRIDGE,
			       .secondary_bus = 1},
			      {.bdf = DEVICE}}};

	if (size < 512)
		return 0;
	memset(space, 0, sizeof(space));
	memcpy(space[0], data, 256);
	memcpy(space[1], data + 256, 256);
	for (data += 512, size -= 512; size >= 6; data += 6, size -= 6) {
		unsigned at = (data[0] | (unsigned)data[1] << 8) & 0x1ffc;

		if ((at & 0xfff) >= 0x100)
			memcpy(&space[at >> 12][at & 0xfff], data + 2, 4);
	}
	reads = 0;
	may_write = false;
	walk(&pci);
	use(&pci);
	may_write = true;
	pci_acs_enable(&pci);
	return 0;
}
