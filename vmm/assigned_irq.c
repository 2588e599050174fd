/* SPDX-License-Identifier: MIT */
/*
 * Interrupts of assigned functions. The host always uses messages: the
 * guest's MSI or MSI-X entry by entry, and one message in place of INTx.
 */
#include "arch/x86/apic.h"
#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "kernel/traps.h"
#include "vmm/machine.h"

enum {
	MSI_CONTROL = 2,
	MSI_ADDRESS = 4,
	MSI_ENABLE = 1,
	MSI_WIDE = 0x80,
	MSI_MULTIPLE = 0x70,
	MSIX_CONTROL = 2,
	MSIX_TABLE = 4,
	MSIX_ENABLE = 0x8000,
	MSIX_MASKED = 0x4000,
	ENTRY_SIZE = 16,
	ENTRY_CONTROL = 3, /* dword of an entry */
	ENTRY_MASKED = 1,
};

static struct vtd *vtd_of(const struct assigned *a)
{
	return &a->machine->host->vtd;
}

/* On the host's vector. */
static void message_arrived(void *ctx, unsigned vector)
{
	struct assigned_message *msg = ctx;
	struct assigned *a = msg->owner;
	struct machine *m = a->machine;

	(void)vector;
	msg->count++;
	if (a->mode == IRQ_INTX)
		ioapic_pulse(&m->ioapic, a->line);
	else if (msg->guest.enabled && !msg->guest.masked)
		apic_bus_msi(&m->vm.apics, msg->guest.address, msg->guest.data);
}

static int arm(struct assigned_message *msg, struct vtd_msi *out)
{
	struct assigned *a = msg->owner;
	struct vtd *vtd = vtd_of(a);
	u32 apic_id = local_apic_id();
	int err;

	if (msg->vector < 0)
		msg->vector = host_irq_alloc(message_arrived, msg);
	if (msg->vector < 0)
		return msg->vector;
	if (!a->machine->host->has_vtd || !vtd->remapping) {
		*out = vtd_msi_plain((u8)msg->vector, apic_id);
		return 0;
	}
	if (msg->entry < 0)
		msg->entry = vtd_irq_alloc(vtd, a->function->bdf, 1);
	if (msg->entry < 0)
		return msg->entry;
	err = vtd_irq_set(vtd, (unsigned)msg->entry, (u8)msg->vector, apic_id,
			  false);
	*out = vtd_irq_msi((unsigned)msg->entry, 1);
	return err;
}

static void disarm(struct assigned_message *msg)
{
	if (msg->entry >= 0)
		vtd_irq_free(vtd_of(msg->owner), (unsigned)msg->entry);
	if (msg->vector >= 0)
		host_irq_free((unsigned)msg->vector);
	msg->entry = msg->vector = -1;
}

static void host_write(const struct assigned *a, unsigned offset, unsigned size,
		       u32 value)
{
	pci_config_write(&a->machine->host->pci, a->function->bdf, offset, size,
			 value);
}

static u32 host_read(const struct assigned *a, unsigned offset, unsigned size)
{
	return pci_config_read(&a->machine->host->pci, a->function->bdf, offset,
			       size);
}

static void host_msi_off(const struct assigned *a)
{
	unsigned at = a->config.msi;

	if (at)
		host_write(a, at + MSI_CONTROL, 2,
			   host_read(a, at + MSI_CONTROL, 2) &
				   ~(u32)(MSI_ENABLE | MSI_MULTIPLE));
}

/* PCI 3.0, 6.8.1: address and data before the enable bit. */
static int host_msi_on(struct assigned *a)
{
	unsigned at = a->config.msi;
	u32 control = host_read(a, at + MSI_CONTROL, 2);
	bool wide = control & MSI_WIDE;
	struct vtd_msi msi = {0};
	int err = arm(&a->messages[0], &msi);

	if (err)
		return err;
	host_write(a, at + MSI_ADDRESS, 4, (u32)msi.address);
	if (wide)
		host_write(a, at + 8, 4, (u32)(msi.address >> 32));
	host_write(a, at + (wide ? 12 : 8), 2, msi.data);
	if (control & 0x100) /* per-vector mask */
		host_write(a, at + (wide ? 16 : 12), 4, 0);
	host_write(a, at + MSI_CONTROL, 2,
		   (control & ~(u32)MSI_MULTIPLE) | MSI_ENABLE);
	return 0;
}

static volatile u8 *host_entry(const struct assigned *a, unsigned n)
{
	const struct msix *x = &a->msix;

	return x->host + (x->offset - x->page) + (u64)n * ENTRY_SIZE;
}

/* Masked while it changes (PCI 3.0, 6.8.2.9). */
static void host_msix_entry(struct assigned *a, unsigned n, bool on)
{
	volatile u8 *e = host_entry(a, n);
	struct vtd_msi msi = {0};

	mmio_write32(e + 12, ENTRY_MASKED);
	if (!on)
		return;
	if (arm(&a->messages[n], &msi)) {
		log_warn("%02x:%02x.%x: no vector is left for message %u",
			 BDF_ARGS(a->function->bdf), n);
		return;
	}
	mmio_write32(e, (u32)msi.address);
	mmio_write32(e + 4, (u32)(msi.address >> 32));
	mmio_write32(e + 8, msi.data);
	mmio_write32(e + 12, 0);
}

static void follow_entry(struct assigned *a, unsigned n)
{
	const u32 *t = a->msix.table[n];
	bool all_masked, on = pci_assigned_msix(&a->config, &all_masked);

	a->messages[n].guest = (struct pci_message){
		.enabled = on,
		.masked = all_masked || (t[ENTRY_CONTROL] & ENTRY_MASKED),
		.address = t[0] | (u64)t[1] << 32,
		.data = t[2],
	};
	host_msix_entry(a, n, on && !a->messages[n].guest.masked);
}

static void host_msix(struct assigned *a, bool on)
{
	unsigned at = a->config.msix + MSIX_CONTROL;
	u32 control = host_read(a, at, 2) & ~(u32)(MSIX_ENABLE | MSIX_MASKED);

	if (on)
		for (unsigned n = 0; n < a->msix.count; n++)
			follow_entry(a, n);
	host_write(a, at, 2, control | (on ? MSIX_ENABLE : 0));
}

void assigned_irq_off(struct assigned *a)
{
	host_msi_off(a);
	if (a->config.msix && a->msix.host)
		host_msix(a, false);
	for (unsigned n = 0; n < MESSAGES_MAX; n++) {
		disarm(&a->messages[n]);
		a->messages[n].guest = (struct pci_message){0};
	}
	a->mode = IRQ_OFF;
}

static enum interrupt_mode wanted(const struct assigned *a)
{
	bool masked;

	if (pci_assigned_msix(&a->config, &masked) && a->msix.host)
		return IRQ_MSIX;
	if (pci_assigned_msi(&a->config).enabled)
		return IRQ_MSI;
	return pci_assigned_intx(&a->config) && a->config.msi ? IRQ_INTX
							      : IRQ_OFF;
}

void assigned_interrupts_changed(void *assigned)
{
	struct assigned *a = assigned;
	enum interrupt_mode mode = wanted(a);
	int err = 0;

	if (mode != a->mode) {
		assigned_irq_off(a);
		a->mode = mode;
		if (mode == IRQ_MSI || mode == IRQ_INTX)
			err = host_msi_on(a);
	}
	if (mode == IRQ_MSIX)
		host_msix(a, true);
	a->messages[0].guest = mode == IRQ_MSI ? pci_assigned_msi(&a->config)
					       : a->messages[0].guest;
	if (err)
		log_warn("%02x:%02x.%x: its interrupt cannot be routed",
			 BDF_ARGS(a->function->bdf));
}

static u64 table_access(struct assigned *a, u64 offset,
			const struct bus_access *access)
{
	u64 n = offset / ENTRY_SIZE;
	u32 *dword;

	/* 6.8.2: DWORD or QWORD accesses, aligned. */
	if (access->size < 4 || offset % access->size || n >= a->msix.count)
		return bus_all_ones(access->size);
	dword = &a->msix.table[n][offset / 4 % 4];
	if (!access->write)
		return access->size == 8 ? dword[0] | (u64)dword[1] << 32
					 : dword[0];
	dword[0] = (u32)access->value;
	if (access->size == 8)
		dword[1] = (u32)(access->value >> 32);
	if (a->mode == IRQ_MSIX)
		follow_entry(a, (unsigned)n);
	return 0;
}

static void neighbour_write(volatile u8 *p, unsigned size, u64 value)
{
	if (size == 1)
		mmio_write8(p, (u8)value);
	else if (size == 2)
		mmio_write16(p, (u16)value);
	else if (size == 4)
		mmio_write32(p, (u32)value);
	else
		mmio_write64(p, value);
}

static u64 neighbour_read(const volatile u8 *p, unsigned size)
{
	if (size == 1)
		return mmio_read8(p);
	if (size == 2)
		return mmio_read16(p);
	return size == 4 ? mmio_read32(p) : mmio_read64(p);
}

int assigned_msix_access(void *assigned, struct bus_access *access)
{
	struct assigned *a = assigned;
	struct msix *x = &a->msix;
	u64 at = access->addr - x->trapped; /* in the trapped pages */
	u64 table = x->offset - x->page;
	u64 size = (u64)x->total * ENTRY_SIZE;
	u64 value = 0;

	if (at + access->size > x->pages_size)
		value = bus_all_ones(access->size);
	else if (at + access->size > table && at < table + size)
		/* Half before it, n is no entry's. */
		value = table_access(a, at - table, access);
	/* Registers that share the table's pages are the device's own. */
	else if (access->write)
		neighbour_write(x->host + at, access->size, access->value);
	else
		value = neighbour_read(x->host + at, access->size);
	if (!access->write)
		access->value = value;
	return 0;
}

void assigned_msix_find(struct assigned *a, const struct pci_host *pci)
{
	const struct pci_function *f = a->function;
	unsigned at = pci_find_capability(pci, f->bdf, PCI_CAP_MSIX);
	struct msix *x = &a->msix;
	u32 table;
	u64 end;

	x->trapped = PCI_BAR_NOWHERE;
	if (!at)
		return;
	table = pci_config_read(pci, f->bdf, at + MSIX_TABLE, 4);
	x->bar = table & 7;
	x->offset = table & ~7u;
	x->total =
		(pci_config_read(pci, f->bdf, at + MSIX_CONTROL, 2) & 0x7ff) +
		1;
	x->count = MIN(x->total, (unsigned)MESSAGES_MAX);
	end = ALIGN_UP(x->offset + (u64)x->total * ENTRY_SIZE, PAGE_SIZE);
	x->page = ALIGN_DOWN(x->offset, PAGE_SIZE);
	x->pages_size = end - x->page;
	if (x->bar > 5 || f->bars[x->bar].io || end > f->bars[x->bar].size)
		return;
	x->host = (volatile u8 *)mmio_map(f->bars[x->bar].base + x->page,
					  x->pages_size);
}
