/* SPDX-License-Identifier: MIT */
/*
 * Interrupts of assigned functions. The host always uses messages: the
 * guest's MSI or MSI-X message by message, and one in place of INTx. What
 * the guest has masked is masked at the device, which then keeps it pending;
 * what was on its way by then is kept here.
 */
#include "arch/x86/apic.h"
#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "kernel/log.h"
#include "kernel/phys.h"
#include "kernel/traps.h"
#include "vmm/machine.h"

enum {
	MSI_MESSAGES = 32,
	MSI_CONTROL = 2,
	MSI_ADDRESS = 4,
	MSI_ENABLE = 1,
	MSI_MULTIPLE = 4, /* shift of Multiple Message Enable */
	MSI_CONTROL_OURS = MSI_ENABLE | 7 << MSI_MULTIPLE,
	MSI_WIDE = 0x80,
	MSI_MASKABLE = 0x100,
	MSIX_CONTROL = 2,
	MSIX_ENABLE = 0x8000,
	MSIX_MASKED = 0x4000,
};

static struct vtd *vtd_of(const struct assigned *a)
{
	return &a->machine->host->vtd;
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

/* Masks, then the enable bit, which has to do where there are no masks. */
static void host_msi_follow(const struct assigned *a)
{
	unsigned pending = a->config.msi_pending;
	unsigned at = a->config.msi + MSI_CONTROL;
	u32 mask = a->mode == IRQ_MSI ? pci_assigned_msi(&a->config).mask : 0;
	u32 old, control;

	if (!a->served)
		return;
	old = host_read(a, at, 2);
	control = old & ~(u32)MSI_ENABLE;
	if (pending)
		host_write(a, pending - 4u, 4, a->held ? ~0u : mask);
	if (pending || !a->held)
		control |= MSI_ENABLE;
	if (control != old)
		host_write(a, at, 2, control);
}

static void host_msix(const struct assigned *a, u32 state)
{
	unsigned at = a->config.msix + MSIX_CONTROL;
	u32 control = host_read(a, at, 2) & ~(u32)(MSIX_ENABLE | MSIX_MASKED);

	host_write(a, at, 2, control | state);
}

/* Function Mask is the guest's; each entry has its own (PCI 3.0, 6.8.2). */
static void host_msix_follow(const struct assigned *a)
{
	bool masked;

	pci_assigned_msix(&a->config, &masked);
	host_msix(a, MSIX_ENABLE | (masked || a->held ? MSIX_MASKED : 0));
}

/* Where message n goes; false: the guest has it masked. */
static bool guest_message(const struct assigned *a, unsigned n, u64 *address,
			  u32 *data)
{
	struct pci_msi msi;

	if (a->mode == IRQ_MSIX)
		return assigned_msix_message(a, n, address, data);
	msi = pci_assigned_msi(&a->config);
	*address = msi.address;
	*data = (msi.data & ~(msi.count - 1)) | n;
	return msi.enabled && !(msi.mask >> n & 1);
}

static void show_pending(struct assigned *a)
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
		ioapic_pulse(&a->machine->ioapic, a->line);
	else if (guest_message(a, n, &address, &data))
		apic_bus_msi(&a->machine->vm.apics, address, data);
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
	show_pending(a);
}

/* The host's masks as the guest has its own, or all where it is held. */
static void follow(struct assigned *a)
{
	if (a->mode == IRQ_MSIX)
		host_msix_follow(a);
	else if (a->mode == IRQ_LINE)
		assigned_line_follow(a);
	else if (a->mode != IRQ_OFF)
		host_msi_follow(a);
}

void assigned_count(struct assigned *a)
{
	u64 now = rdtsc(), hz = a->machine->host->tsc_hz;

	a->stats.interrupts++;
	if (a->held || !storm_count(&a->storm, now, hz))
		return;
	a->stats.storms++;
	if (a->storm.storms == 1)
		log_warn("%02x:%02x.%x: %lu interrupts a second: they are held "
			 "for %u ms each time",
			 BDF_ARGS(a->function->bdf), a->storm.rate, STORM_MS);
	a->held = true;
	follow(a);
	a->release = now + storm_ticks(hz);
	assigned_timer_by(a->machine, a->release);
}

void assigned_timer_by(struct machine *m, u64 now)
{
	vtimer_set(&m->vm.clock, &m->assigned_timer,
		   MIN(m->assigned_timer.deadline, now));
}

static void release(struct assigned *a)
{
	a->held = false;
	follow(a);
	/* Without mask bits the device has not kept what it had to say. */
	if (a->mode != IRQ_MSIX && !a->config.msi_pending)
		for (unsigned n = 0; n < a->served; n++)
			a->messages[n].pending = a->some_pending = true;
	assigned_deliver_pending(a);
}

void assigned_timer_fired(void *machine, u64 now)
{
	struct machine *m = machine;

	for (unsigned n = 0; n < m->assigned_count; n++) {
		struct assigned *a = &m->assigned[n];

		if (a->held && a->release <= now)
			release(a);
		else if (a->held)
			assigned_timer_by(m, a->release);
		if (a->mode == IRQ_POLLED)
			assigned_line_poll(a);
	}
}

/* On the host's vector: the message's, or the n-th after the first's. */
static void message_arrived(void *ctx, unsigned vector)
{
	struct assigned_message *first = ctx;
	struct assigned *a = first->owner;

	assigned_count(a);
	deliver(first + (vector - (unsigned)first->vector));
	if (a->some_pending)
		show_pending(a);
}

static void disarm(struct assigned_message *first, unsigned count)
{
	for (struct assigned_message *m = first; m < first + count; m++) {
		if (m->entry >= 0)
			vtd_irq_free(vtd_of(m->owner), (unsigned)m->entry);
		if (m->vector >= 0)
			host_irq_free((unsigned)m->vector);
		m->entry = m->vector = -1;
		m->pending = false;
	}
}

static int remap(struct assigned_message *first, unsigned count)
{
	struct vtd *vtd = vtd_of(first->owner);
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
	const struct host *host = first->owner->machine->host;
	int vector = host_irq_alloc_block(count, message_arrived, first);
	int entry;

	if (vector < 0)
		return vector;
	for (unsigned n = 0; n < count; n++)
		first[n].vector = vector + (int)n;
	if (!host->has_vtd || !host->vtd.remapping) {
		*out = vtd_msi_plain((u8)vector, local_apic_id());
		return 0;
	}
	entry = remap(first, count);
	if (entry < 0) {
		disarm(first, count);
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

static void host_msi_off(const struct assigned *a)
{
	unsigned at = a->config.msi;

	if (at)
		host_write(a, at + MSI_CONTROL, 2,
			   host_read(a, at + MSI_CONTROL, 2) &
				   ~(u32)MSI_CONTROL_OURS);
}

/* As many messages as the guest enables, or as there are vectors for. */
static int arm_msi(struct assigned *a, unsigned wanted, struct vtd_msi *msi)
{
	int err = -ENOSPC;

	for (a->served = wanted; a->served; a->served /= 2) {
		err = assigned_arm(a->messages, a->served, msi);
		if (!err)
			break;
	}
	if (a->served < wanted)
		assigned_unserved(a, a->served);
	return err;
}

/* PCI 3.0, 6.8.1: all else before the enable bit. */
static void host_msi_on(struct assigned *a, unsigned wanted)
{
	unsigned at = a->config.msi;
	u32 control = host_read(a, at + MSI_CONTROL, 2);
	bool wide = control & MSI_WIDE;
	struct vtd_msi msi = {0};

	if (arm_msi(a, wanted, &msi))
		return;
	host_write(a, at + MSI_ADDRESS, 4, (u32)msi.address);
	if (wide)
		host_write(a, at + 8, 4, (u32)(msi.address >> 32));
	host_write(a, at + (wide ? 12 : 8), 2, msi.data);
	control &= ~(u32)MSI_CONTROL_OURS;
	control |= (u32)__builtin_ctz(a->served) << MSI_MULTIPLE;
	host_write(a, at + MSI_CONTROL, 2, control);
	host_msi_follow(a);
}

void assigned_irq_off(struct assigned *a)
{
	host_msi_off(a);
	if (a->config.msix)
		host_msix(a, 0);
	if (a->mode == IRQ_LINE || a->mode == IRQ_POLLED)
		assigned_line_off(a);
	disarm(a->messages, a->message_count);
	show_pending(a);
	a->some_pending = a->reported = a->held = false;
	a->served = 0;
	a->mode = IRQ_OFF;
}

int assigned_irq_init(struct assigned *a, const struct pci_host *pci)
{
	bool msi = pci_find_capability(pci, a->function->bdf, PCI_CAP_MSI);
	hpa_t memory;

	assigned_msix_find(a, pci);
	a->message_count = MAX(a->msix.total, msi ? MSI_MESSAGES : 1u);
	memory = phys_alloc(&host_memory,
			    a->message_count * sizeof(*a->messages), PAGE_SIZE,
			    PHYS_ANYWHERE);
	if (memory == PHYS_NONE) {
		log_error("too little memory for an assigned function's %u "
			  "messages",
			  a->message_count);
		return -ENOMEM;
	}
	a->messages = phys_to_virt(memory);
	for (unsigned n = 0; n < a->message_count; n++)
		a->messages[n] = (struct assigned_message){
			.owner = a, .vector = -1, .entry = -1};
	return 0;
}

int assigned_irq_build(struct assigned *a)
{
	return a->has_gsi ? assigned_line_init(a) : 0;
}

void assigned_irq_reset(struct assigned *a)
{
	assigned_irq_off(a);
	assigned_msix_reset(a);
}

static enum interrupt_mode wanted(const struct assigned *a)
{
	bool masked;

	if (pci_assigned_msix(&a->config, &masked))
		return IRQ_MSIX;
	if (pci_assigned_msi(&a->config).enabled)
		return IRQ_MSI;
	if (!pci_assigned_intx(&a->config))
		return IRQ_OFF;
	if (a->has_gsi || a->config.msi)
		return a->has_gsi ? IRQ_LINE : IRQ_INTX;
	/* Not before a driver is there. */
	return a->config.copy[PCI_COMMAND / 4] & PCI_COMMAND_MASTER ? IRQ_POLLED
								    : IRQ_OFF;
}

static void irq_on(struct assigned *a, enum interrupt_mode mode, unsigned count)
{
	assigned_irq_off(a);
	a->mode = mode;
	a->wanted = count;
	if (mode == IRQ_MSI || mode == IRQ_INTX)
		host_msi_on(a, count);
	if (mode == IRQ_LINE || mode == IRQ_POLLED)
		assigned_line_on(a);
	if (mode != IRQ_MSIX)
		return;
	/* Some devices have no table to write to while MSI-X is off. */
	host_msix(a, MSIX_ENABLE | MSIX_MASKED);
	assigned_msix_start(a);
}

void assigned_interrupts_changed(void *assigned)
{
	struct assigned *a = assigned;
	enum interrupt_mode mode = wanted(a);
	unsigned count =
		mode == IRQ_MSI ? pci_assigned_msi(&a->config).count : 1;

	if (mode != a->mode || count != a->wanted)
		irq_on(a, mode, count);
	follow(a);
	assigned_deliver_pending(a);
}
