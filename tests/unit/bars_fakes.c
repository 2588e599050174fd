/* SPDX-License-Identifier: MIT */
/*
 * For test_bars.py: two functions' configuration spaces, an assignment of which
 * only the memory map and the bus are there, and an EPT that is a list.
 */
#include <string.h>

#include "arch/x86/errno.h"
#include "kernel/host_paging.h"
#include "tests/unit/assign_fakes.h"
#include "tests/unit/fakes.h"

extern u8 host_config[0x10000][256];
extern u8 io_bitmap[0x2000];
extern struct region_list ept_list;
extern int ept_good;

u8 host_config[0x10000][256];
u8 io_bitmap[0x2000];
struct region_list ept_list;
int ept_good; /* that many maps succeed; below 0: all */

/* vmm/assign/gop.c: no driver is added here. */
const u8 gop_rom[1], gop_rom_end[1];
int pci_rom_prepend(struct pci_rom *rom, const u8 *image, u64 size,
		    const struct pci_function *f)
{
	(void)rom;
	(void)image;
	(void)size;
	(void)f;
	return -ENOMEM;
}

struct assignment *fresh_assignment(void)
{
	struct assignment *all = empty_assignment();

	memset(io_bitmap, 0xff, sizeof(io_bitmap));
	ept_list.count = 0;
	ept_good = -1;
	all->vm->io_bitmap = io_bitmap;
	all->vm->features.physical_bits = 39;
	return all;
}

u32 pci_config_read(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		    unsigned size)
{
	u32 value = 0;

	(void)pci;
	memcpy(&value, &host_config[bdf][offset], size);
	return value;
}

void pci_config_write(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		      unsigned size, u32 value)
{
	(void)pci;
	fakes_record(FAKE_OTHER, (u64)bdf << 8 | offset, size, value);
}

hpa_t virt_to_phys(const void *p)
{
	return (hpa_t)p;
}

volatile void *mmio_map(hpa_t hpa, u64 size)
{
	(void)size;
	return (volatile void *)hpa;
}

int ept_map(struct ept *ept, const struct region *r)
{
	(void)ept;
	if (ept_good >= 0 && ept_good-- == 0)
		return -ENOMEM;
	/* As the tables are: what was there is replaced without a word. */
	region_remove(&ept_list, r->gpa, r->size);
	return r->kind == REGION_HOLE ? 0 : region_add(&ept_list, r, NULL);
}

int ept_unmap(struct ept *ept, gpa_t gpa, u64 size)
{
	(void)ept;
	return region_remove(&ept_list, gpa, size);
}

int assigned_msix_access(void *assigned, struct bus_access *access)
{
	(void)assigned;
	if (!access->write)
		access->value = 0x51;
	return 0;
}
