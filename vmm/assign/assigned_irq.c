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
#include "vmm/assign/assigned.h"

enum {
	MSI_MESSAGES = 32,
	MSI_CONTROL = 2,
	MSI_ADDRESS = 4,
	MSI_ENABLE = 1,
	MSI_MULTIPLE = 4, /* shift of Multiple Message Enable */
	MSI_CONTROL_OURS = MSI_ENABLE | 7 << MSI_MULTIPLE,
	MSI_WIDE = 0x80,
	MSIX_ENABLE = 0x8000,
	MSIX_MASKED = 0x4000,
};

/* The host's masks as the guest has its own, or all where it is held. */
static void follow(struct assigned *a)
{
	if (a->mode == IRQ_LINE)
		assigned_line_follow(a);
	else
		assigned_messages_follow(a);
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

void assigned_timer_fired(void *assignment, u64 now)
{
	struct assignment *all = assignment;

	for (unsigned n = 0; n < all->count; n++) {
		struct assigned *a = &all->functions[n];

		if (a->held && a->release <= now)
			release(a);
		else if (a->held)
			assigned_timer_by(all, a->release);
		if (a->mode == IRQ_POLLED)
			assigned_line_poll(a);
	}
}

static void host_msi_off(const struct assigned *a)
{
	unsigned at = a->config.msi;

	if (at)
		assigned_write(a, at + MSI_CONTROL, 2,
			       assigned_read(a, at + MSI_CONTROL, 2) &
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

/* PCI 3.0, 6.8.1: all else before the enable bit, which follow() sets. */
static void host_msi_on(struct assigned *a, unsigned wanted)
{
	unsigned at = a->config.msi;
	u32 control = assigned_read(a, at + MSI_CONTROL, 2);
	bool wide = control & MSI_WIDE;
	struct vtd_msi msi = {0};

	if (arm_msi(a, wanted, &msi))
		return;
	assigned_write(a, at + MSI_ADDRESS, 4, (u32)msi.address);
	if (wide)
		assigned_write(a, at + 8, 4, (u32)(msi.address >> 32));
	assigned_write(a, at + (wide ? 12 : 8), 2, msi.data);
	control &= ~(u32)MSI_CONTROL_OURS;
	control |= (u32)__builtin_ctz(a->served) << MSI_MULTIPLE;
	assigned_write(a, at + MSI_CONTROL, 2, control);
}

void assigned_irq_off(struct assigned *a)
{
	host_msi_off(a);
	if (a->config.msix)
		assigned_msix_control(a, 0);
	if (a->mode == IRQ_LINE || a->mode == IRQ_POLLED)
		assigned_line_off(a);
	assigned_disarm(a->messages, a->message_count);
	assigned_show_pending(a);
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

/* To the CPU that the guest's message, or its pin, names by now. */
static void aim(struct assigned *a)
{
	struct vtd_msi msi;

	if (a->mode == IRQ_LINE)
		assigned_line_aim(a);
	else if (a->served && assigned_aim(a->messages, &msi) > 0)
		assigned_write(a, a->config.msi + MSI_ADDRESS, 4,
			       (u32)msi.address);
}

void assigned_pin_routed(void *assignment, unsigned pin)
{
	struct assignment *all = assignment;

	for (unsigned n = 0; n < all->count; n++) {
		struct assigned *a = &all->functions[n];

		if (a->line == pin &&
		    (a->mode == IRQ_LINE || a->mode == IRQ_INTX))
			aim(a);
	}
}

static void irq_on(struct assigned *a, enum interrupt_mode mode, unsigned count)
{
	assigned_irq_off(a);
	a->mode = mode;
	a->wanted = count;
	if (mode == IRQ_MSI || mode == IRQ_INTX)
		host_msi_on(a, count);
	if (mode == IRQ_POLLED)
		assigned_line_poll(a);
	if (mode != IRQ_MSIX)
		return;
	/* Some devices have no table to write to while MSI-X is off. */
	assigned_msix_control(a, MSIX_ENABLE | MSIX_MASKED);
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
	aim(a);
	follow(a);
	assigned_deliver_pending(a);
}
