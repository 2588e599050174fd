/* SPDX-License-Identifier: MIT */
#include "arch/x86/errno.h"
#include "drivers/vtd/vtd.h"
#include "kernel/phys.h"

#define IRTE_LEVEL BIT(4)
#define IRTE_SVT_SID (1ull << 18)   /* hi: only this requester ID */
#define IRTE_SQ_DEVICE (3ull << 16) /* whichever its function */

#define MSI_ADDRESS 0xfee00000ull
#define MSI_REMAPPABLE BIT(4)
#define MSI_SUBHANDLE BIT(3) /* 5.1.2.2: data is added to the index */
#define RTE_ACTIVE_LOW BIT(13)
#define RTE_LEVEL BIT(15)
#define RTE_MASKED BIT(16)
#define RTE_REMAPPABLE BIT(48)
#define VECTOR_LOWEST 16

int vtd_irq_start(struct vtd *v, struct vtd_unit *u)
{
	/* 11.4.7.1: 2^(S + 1) entries */
	u64 irta = virt_to_phys(v->irt) | (v->eim ? VTD_IRTA_EIME : 0) |
		   ((u64)__builtin_ctz(VTD_IRTES) - 1);
	u32 status = unit_read32(u, VTD_GSTS);
	int err = 0;

	/* The mode may not change under it; the table may. */
	if (status & VTD_GCMD_IRE &&
	    (unit_read64(u, VTD_IRTA) ^ irta) & VTD_IRTA_EIME)
		err = unit_command(u, VTD_GCMD_IRE, false);
	unit_write64(u, VTD_IRTA, irta);
	err = err ? err : unit_command(u, VTD_GCMD_SIRTP, true);
	err = err ? err : inv_interrupt(u, -1);
	/* 5.1.4: with CFI clear, what names no entry is blocked. */
	if (!err && status & VTD_GCMD_CFI)
		err = unit_command(u, VTD_GCMD_CFI, false);
	return err ? err : unit_command(u, VTD_GCMD_IRE, true);
}

/* One table for all units; flushed in case the walks of one do not snoop. */
static void store(u64 *half, u64 value)
{
	*(volatile u64 *)half = value;
	vtd_flush(half, sizeof(*half), true);
}

/* A live entry changes by one store, to lo (5.1.6 wants it atomic). */
static int set(struct vtd *v, unsigned index, u64 lo)
{
	int err = 0;

	if (index >= VTD_IRTES || !v->irtes[index].used)
		return -EINVAL;
	store(&v->irt[index].lo, lo);
	for (unsigned i = 0; !err && i < v->unit_count; i++)
		err = inv_interrupt(&v->units[i], (int)index);
	return err;
}

static bool are_free(const struct vtd *v, unsigned first, unsigned count)
{
	for (unsigned i = first; i < first + count; i++)
		if (v->irtes[i].used)
			return false;
	return true;
}

static int alloc(struct vtd *v, bdf_t owner, bdf_t source, unsigned count)
{
	/* Its interrupts carry the one function's ID, or the other's. */
	bool is_odd = owner != source && owner >> 3 == source >> 3;
	unsigned first = 0;

	if (!v->remapping)
		return -ENOTSUP;
	while (first + count <= VTD_IRTES && !are_free(v, first, count))
		first += count;
	if (first + count > VTD_IRTES)
		return -ENOSPC;
	for (unsigned i = first; i < first + count; i++) {
		v->irtes[i].used = true;
		v->irtes[i].owner = owner;
		store(&v->irt[i].hi,
		      IRTE_SVT_SID | source | (is_odd ? IRTE_SQ_DEVICE : 0));
	}
	return (int)first;
}

int vtd_irq_alloc(struct vtd *v, bdf_t bdf, unsigned count)
{
	bdf_t ids[PCI_REQUESTERS_MAX];
	unsigned last = pci_requesters(v->pci, bdf, ids) - 1;

	return alloc(v, bdf, ids[last], count);
}

int vtd_irq_alloc_ioapic(struct vtd *v, u8 ioapic_id)
{
	u8 id = v->renamed ? v->ioapic_id : ioapic_id;
	bdf_t source = 0;
	u64 unit;
	int err = dmar_ioapic_source(v->dmar, v->pci, id, &source, &unit);

	if (err)
		return err;
	return vtd_unit_at(v, unit) ? alloc(v, source, source, 1) : -ENOTSUP;
}

/* 9.10; in xAPIC mode the APIC ID stands in bits 15:8 of the destination. */
int vtd_irq_set(struct vtd *v, unsigned index, u8 vector, u32 apic_id,
		bool level)
{
	if (vector < VECTOR_LOWEST || (!v->eim && apic_id > 0xff))
		return -EINVAL;
	return set(v, index,
		   VTD_PRESENT | (level ? IRTE_LEVEL : 0) | (u64)vector << 16 |
			   (u64)apic_id << (v->eim ? 32 : 40));
}

int vtd_irq_free(struct vtd *v, unsigned index)
{
	int err = set(v, index, 0);

	if (!err)
		v->irtes[index].used = false;
	return err;
}

struct vtd_msi vtd_irq_msi(unsigned index, unsigned count)
{
	return (struct vtd_msi){MSI_ADDRESS | MSI_REMAPPABLE | index << 5 |
					(count > 1 ? MSI_SUBHANDLE : 0),
				0};
}

u64 vtd_irq_rte(unsigned index, struct vtd_pin pin)
{
	return pin.vector | (pin.active_low ? RTE_ACTIVE_LOW : 0) |
	       (pin.level ? RTE_LEVEL : 0) | (pin.masked ? RTE_MASKED : 0) |
	       RTE_REMAPPABLE | (u64)index << 49;
}

int vtd_rte_index(u64 rte)
{
	return rte & RTE_REMAPPABLE ? (int)(rte >> 49) : -ENOTSUP;
}

struct vtd_msi vtd_msi_plain(u8 vector, u32 apic_id)
{
	return (struct vtd_msi){MSI_ADDRESS | (apic_id & 0xff) << 12, vector};
}
