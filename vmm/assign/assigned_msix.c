/* SPDX-License-Identifier: MIT */
/*
 * The MSI-X table of an assigned function (PCI 3.0, 6.8.2). The guest's
 * entries are a copy; the device's hold Monocle's messages, and the guest's
 * masks.
 */
#include "arch/x86/io.h"
#include "kernel/host_paging.h"
#include "vmm/assign/assigned.h"

enum {
	MSIX_CONTROL = 2,
	MSIX_TABLE = 4,
	MSIX_PBA = 8,
	ENTRY_SIZE = 16,
	ENTRY_CONTROL = 3, /* dword of an entry */
	ENTRY_MASKED = 1,
};

static volatile u8 *host_entry(const struct assigned *a, unsigned n)
{
	const struct msix *x = &a->msix;

	return x->host + (x->offset - x->page) + (u64)n * ENTRY_SIZE;
}

/* A vector is an entry's from its first unmasking until MSI-X is off. */
static void follow_entry(struct assigned *a, unsigned n)
{
	struct assigned_message *msg = &a->messages[n];
	volatile u8 *e = host_entry(a, n);
	bool masked = msg->entry_copy[ENTRY_CONTROL] & ENTRY_MASKED;
	struct vtd_msi msi = {0};
	int changed = masked ? 0 : assigned_aim(msg, &msi);

	if (changed) /* Masked while it changes (6.8.2.9). */
		mmio_write32(e + 12, ENTRY_MASKED);
	if (changed < 0) {
		assigned_unserved(a, n);
		return;
	}
	if (changed) {
		mmio_write32(e, (u32)msi.address);
		mmio_write32(e + 4, (u32)(msi.address >> 32));
		mmio_write32(e + 8, msi.data);
	}
	mmio_write32(e + 12, masked ? ENTRY_MASKED : 0);
}

void assigned_msix_start(struct assigned *a)
{
	for (unsigned n = 0; n < a->msix.total; n++)
		follow_entry(a, n);
}

/* 6.8.2.9: masked after reset. */
void assigned_msix_reset(struct assigned *a)
{
	for (unsigned n = 0; n < a->msix.total; n++) {
		u32 *copy = a->messages[n].entry_copy;

		copy[0] = copy[1] = copy[2] = 0;
		copy[ENTRY_CONTROL] = ENTRY_MASKED;
	}
}

static u64 table_access(struct assigned *a, u64 offset,
			const struct bus_access *access)
{
	u64 n = offset / ENTRY_SIZE;
	u32 *dword, *copy;

	/* 6.8.2: DWORD or QWORD accesses, aligned. */
	if (access->size < 4 || offset % access->size || n >= a->msix.total)
		return bus_all_ones(access->size);
	copy = a->messages[n].entry_copy;
	dword = &copy[offset / 4 % 4];
	if (!access->write)
		return access->size == 8 ? dword[0] | (u64)dword[1] << 32
					 : dword[0];
	dword[0] = (u32)access->value;
	if (access->size == 8)
		dword[1] = (u32)(access->value >> 32);
	/* Of one that is masked, address and data count when it is opened. */
	if (a->mode == IRQ_MSIX && ((offset + access->size) % ENTRY_SIZE == 0 ||
				    !(copy[ENTRY_CONTROL] & ENTRY_MASKED))) {
		follow_entry(a, (unsigned)n);
		assigned_deliver_pending(a);
	}
	return 0;
}

/* Pending bits that the device does not know of, where they are read. */
static u64 pending_bits(const struct assigned *a, u64 at, unsigned size)
{
	const struct msix *x = &a->msix;
	u64 value = 0;

	if (!a->some_pending || x->pending == PCI_BAR_NOWHERE)
		return 0;
	for (unsigned n = 0; n < x->total; n++) {
		u64 byte = x->pending + n / 8 - at;

		if (a->messages[n].pending && byte < size)
			value |= 1ull << (8 * byte + n % 8);
	}
	return value;
}

int assigned_msix_access(void *assigned, struct bus_access *access)
{
	struct assigned *a = assigned;
	struct msix *x = &a->msix;
	u64 at = access->addr - x->trapped; /* in the trapped pages */
	u64 table = x->offset - x->page;
	u64 size = (u64)x->total * ENTRY_SIZE;
	u64 value = 0;

	a->stats.mmio++;
	if (at + access->size > x->pages_size)
		value = bus_all_ones(access->size);
	else if (at + access->size > table && at < table + size)
		/* Half before it, n is no entry's. */
		value = table_access(a, at - table, access);
	/* Registers that share the table's pages are the device's own. */
	else if (access->write)
		mmio_write(x->host + at, access->size, access->value);
	else
		value = mmio_read(x->host + at, access->size) |
			pending_bits(a, x->page + at, access->size);
	if (!access->write)
		access->value = value;
	return 0;
}

void assigned_msix_find(struct assigned *a, const struct pci_host *pci)
{
	const struct pci_function *f = a->function;
	unsigned at = pci_find_capability(pci, f->bdf, PCI_CAP_MSIX);
	struct msix *x = &a->msix;
	const struct pci_bar *bar;
	u32 table, pba;
	u64 end;

	x->trapped = PCI_BAR_NOWHERE;
	if (!at)
		return;
	table = pci_config_read(pci, f->bdf, at + MSIX_TABLE, 4);
	pba = pci_config_read(pci, f->bdf, at + MSIX_PBA, 4);
	x->bar = table & 7;
	x->offset = table & ~7u;
	x->pending = (pba & 7) == x->bar ? pba & ~7u : PCI_BAR_NOWHERE;
	x->total =
		(pci_config_read(pci, f->bdf, at + MSIX_CONTROL, 2) & 0x7ff) +
		1;
	end = ALIGN_UP(x->offset + (u64)x->total * ENTRY_SIZE, PAGE_SIZE);
	x->page = ALIGN_DOWN(x->offset, PAGE_SIZE);
	x->pages_size = end - x->page;
	bar = &f->bars[MIN(x->bar, 5u)];
	/* Without an address it would be what lies at 0: memory. */
	if (x->bar > 5 || bar->io || !bar->base || end > bar->size)
		return;
	x->host = (volatile u8 *)mmio_map(bar->base + x->page, x->pages_size);
}
