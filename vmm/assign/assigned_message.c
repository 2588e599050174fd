/* SPDX-License-Identifier: MIT */
/*
 * Messages of assigned functions: which the guest has, as MSI or in its MSI-X
 * table; their host vectors and remapping entries; those that arrive, and those
 * that are kept because the guest has just masked them.
 */
#include "arch/x86/apic.h"
#include "arch/x86/io.h"
#include "kernel/log.h"
#include "kernel/traps.h"
#include "vmm/assign/assigned.h"

enum {
	MSI_CONTROL = 2,
	MSI_ENABLE = 1,
	MSIX_CONTROL = 2,
	MSIX_ENABLE = 0x8000,
	MSIX_MASKED = 0x4000,
	ENTRY_CONTROL = 3, /* dword of an MSI-X entry */
	ENTRY_MASKED = 1,
};

/* Masks, then the enable bit, which has to do where there are no masks. */
static void host_msi_follow(const struct assigned *a)
{
	unsigned pending = a->config.msi_pending;
	unsigned at = a->config.msi + MSI_CONTROL;
	u32 mask = a->mode == IRQ_MSI ? pci_assigned_msi(&a->config).mask : 0;
	u32 old, control;

	if (!a->served)
		return;
	old = assigned_read(a, at, 2);
	control = old & ~(u32)MSI_ENABLE;
	if (pending)
		assigned_write(a, pending - 4u, 4, a->held ? ~0u : mask);
	if (pending || !a->held)
		control |= MSI_ENABLE;
	if (control != old)
		assigned_write(a, at, 2, control);
}

void assigned_msix_control(const struct assigned *a, u32 state)
{
	unsigned at = a->config.msix + MSIX_CONTROL;
	u32 control =
		assigned_read(a, at, 2) & ~(u32)(MSIX_ENABLE | MSIX_MASKED);

	assigned_write(a, at, 2, control | state);
}

/* Function Mask is the guest's; each entry has its own (PCI 3.0, 6.8.2). */
static void host_msix_follow(const struct assigned *a)
{
	bool masked;

	pci_assigned_msix(&a->config, &masked);
	assigned_msix_control(a, MSIX_ENABLE |
					 (masked || a->held ? MSIX_MASKED : 0));
}

void assigned_messages_follow(const struct assigned *a)
{
	if (a->mode == IRQ_MSIX)
		host_msix_follow(a);
	else if (a->mode == IRQ_MSI || a->mode == IRQ_INTX)
		host_msi_follow(a);
}

/* PCI 3.0, 6.8.2: the guest's entry n; false: it is masked. */
static bool msix_message(const struct assigned *a, unsigned n, u64 *address,
			 u32 *data)
{
	const u32 *entry = a->messages[n].entry_copy;
	bool all_masked, on = pci_assigned_msix(&a->config, &all_masked);

	*address = entry[0] | (u64)entry[1] << 32;
	*data = entry[2];
	return on && !all_masked && !(entry[ENTRY_CONTROL] & ENTRY_MASKED);
}

/* Where message n goes; false: the guest has it masked. */
static bool guest_message(const struct assigned *a, unsigned n, u64 *address,
			  u32 *data)
{
	struct pci_msi msi;

	if (a->mode == IRQ_MSIX)
		return msix_message(a, n, address, data);
	msi = pci_assigned_msi(&a->config);
	*address = msi.address;
	*data = (msi.data & ~(msi.count - 1)) | n;
	return msi.enabled && !(msi.mask >> n & 1);
}

void assigned_show_pending(struct assigned *a)
{
	u32 pending = 0;

	for (unsigned n = 0; n < MIN(a->message_count, 32u); n++)
		pending |= (u32)a->messages[n].pending << n;
	if (a->mode == IRQ_MSI)
		pci_assigned_set_pending(&a->config, pending);
}

static void deliver(struct assigned_message *msg)
{
	struct assigned *a = msg->owner;
	unsigned n = (unsigned)(msg - a->messages);
	u64 address;
	u32 data;

	if (a->mode == IRQ_INTX)
		ioapic_pulse(a->all->ioapic, a->line);
	else if (guest_message(a, n, &address, &data))
		a->all->virq->send_msi(a->all->virq->ctx, address, data);
	else
		msg->pending = a->some_pending = true;
}

void assigned_deliver_pending(struct assigned *a)
{
	if (!a->some_pending)
		return;
	a->some_pending = false;
	for (unsigned n = 0; n < a->message_count; n++) {
		struct assigned_message *msg = &a->messages[n];
		bool pending = msg->pending;

		msg->pending = false;
		if (pending)
			deliver(msg);
	}
	assigned_show_pending(a);
}

bool assigned_count(struct assigned *a)
{
	u64 now = rdtsc(), hz = a->all->tsc_hz;

	a->stats.interrupts++;
	if (a->held || !storm_count(&a->storm, now, hz))
		return false;
	a->stats.storms++;
	if (a->storm.storms == 1)
		log_warn("%02x:%02x.%x: %lu interrupts a second: they are held "
			 "for %u ms each time",
			 BDF_ARGS(a->function->bdf), a->storm.rate, STORM_MS);
	a->held = true;
	a->release = now + storm_ticks(hz);
	assigned_timer_by(a->all, a->release);
	return true;
}

void assigned_timer_by(struct assignment *all, u64 now)
{
	vtimer_set(&all->vm->clock, &all->timer, MIN(all->timer.deadline, now));
}

/* On the host's vector: the message's, or the n-th after the first's. */
static void message_arrived(void *ctx, unsigned vector)
{
	struct assigned_message *first = ctx;
	struct assigned *a = first->owner;

	if (assigned_count(a))
		assigned_messages_follow(a);
	deliver(first + (vector - (unsigned)first->vector));
	if (a->some_pending)
		assigned_show_pending(a);
}

void assigned_disarm(struct assigned_message *first, unsigned count)
{
	for (struct assigned_message *all = first; all < first + count; all++) {
		if (all->entry >= 0)
			vtd_irq_free(all->owner->all->vtd,
				     (unsigned)all->entry);
		if (all->vector >= 0)
			host_irq_free(NULL, (unsigned)all->vector);
		all->entry = all->vector = -1;
		all->pending = false;
	}
}

static int remap(struct assigned_message *first, unsigned count)
{
	struct vtd *vtd = first->owner->all->vtd;
	int entry = vtd_irq_alloc(vtd, first->owner->function->bdf, count);
	int err = 0;

	for (unsigned n = 0; entry >= 0 && !err && n < count; n++) {
		first[n].entry = entry + (int)n;
		err = vtd_irq_set(vtd, (unsigned)first[n].entry,
				  (u8)first[n].vector, local_apic_id(), false);
	}
	return err ? err : entry;
}

int assigned_arm(struct assigned_message *first, unsigned count,
		 struct vtd_msi *out)
{
	bdf_t bdf = first->owner->function->bdf;
	struct vtd *vtd = first->owner->all->vtd;
	int vector = host_irq_alloc_block(NULL, count, message_arrived, first);
	int entry;

	if (vector < 0)
		return vector;
	for (unsigned n = 0; n < count; n++)
		first[n].vector = vector + (int)n;
	if (!vtd || !vtd->remapping || !vtd_has_unit(vtd, bdf)) {
		*out = vtd_msi_plain((u8)vector, local_apic_id());
		return 0;
	}
	entry = remap(first, count);
	if (entry < 0) {
		assigned_disarm(first, count);
		return entry;
	}
	*out = vtd_irq_msi((unsigned)entry, count);
	return 0;
}

void assigned_unserved(struct assigned *a, unsigned n)
{
	if (!a->reported)
		log_warn("%02x:%02x.%x: no vector is left for its message %u; "
			 "it and some others do not arrive",
			 BDF_ARGS(a->function->bdf), n);
	a->reported = true;
}
