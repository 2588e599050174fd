/* SPDX-License-Identifier: MIT */
/*
 * INTx of a function whose line gsi= names. The host's pin is masked from
 * the interrupt's arrival to the guest's EOI; meanwhile the virtual line is
 * asserted. A cause that the guest's driver has left interrupts again then.
 *
 * A function that has no messages and whose line nobody names is looked at
 * instead: its own INTx stays disabled, so that no line of the host's that
 * others share is ever asserted, and Interrupt Status (PCI 3.0, 6.2.3), which
 * says what it would be, is read each millisecond.
 */
#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "kernel/log.h"
#include "kernel/percpu.h"
#include "kernel/traps.h"
#include "vmm/assign/assigned.h"

/* Functions may share a virtual line: it is asserted while one raises it. */
static void set_line(struct assignment *all, unsigned line)
{
	bool raised = false;

	for (unsigned n = 0; n < all->count; n++)
		raised |= all->functions[n].raised &&
			  all->functions[n].line == line;
	ioapic_set_line(all->ioapic, line, raised);
}

void assigned_line_follow(struct assigned *a)
{
	bool open = a->mode == IRQ_LINE && !a->raised && !a->held;

	host_irq_line_mask(&a->pin, !open);
}

static void line_arrived(void *ctx, unsigned vector)
{
	struct assigned *a = ctx;

	(void)vector;
	a->raised = a->mode == IRQ_LINE;
	assigned_count(a);
	assigned_line_follow(a);
	set_line(a->all, a->line);
}

void assigned_line_aim(struct assigned *a)
{
	struct percpu *cpu =
		assigned_cpu(ioapic_target(a->all->ioapic, a->line));

	if (cpu == a->cpu || host_irq_line_aim(&a->pin, cpu->apic_id))
		return;
	if (a->cpu) /* it may wait for a SIPI, with an interrupt untaken */
		percpu_kick(a->cpu);
	a->cpu = cpu;
	assigned_line_follow(a);
}

/* Beside MSI it stays as it is: some send none without it (Linux:
 * quirk_msi_intx_disable_bug). */
static void set_intx(const struct assigned *a)
{
	u32 command = assigned_read(a, PCI_COMMAND, 2);

	if (a->has_gsi) /* firmware may have forbidden it */
		command &= ~(u32)PCI_COMMAND_INTX_DISABLE;
	else if (!a->config.msi)
		command |= PCI_COMMAND_INTX_DISABLE;
	assigned_write(a, PCI_COMMAND, 2, command);
}

int assigned_line_init(struct assigned *a)
{
	int vector;

	set_intx(a);
	if (!a->has_gsi)
		return 0;
	vector = host_irq_alloc(line_arrived, a);
	if (vector < 0)
		return vector;
	return host_irq_line(a->all->madt, a->gsi, (u8)vector, &a->pin);
}

void assigned_line_poll(struct assigned *a)
{
	struct assignment *all = a->all;
	u32 status = pci_config_read(all->pci, a->function->bdf, PCI_STATUS, 2);
	bool raised =
		status != 0xffff && status & PCI_STATUS_INTERRUPT && !a->held;

	assigned_timer_by(all,
			  rdtsc() + all->tsc_hz / 1000000 * ASSIGNED_POLL_US);
	if (raised && !a->raised)
		assigned_count(a);
	if (raised == a->raised)
		return;
	a->raised = raised;
	set_line(all, a->line);
}

void assigned_line_off(struct assigned *a)
{
	a->raised = false;
	if (a->has_gsi)
		host_irq_line_mask(&a->pin, true);
	set_line(a->all, a->line);
}

void assigned_line_eoi(void *assignment, unsigned pin)
{
	struct assignment *all = assignment;
	bool ours = false;

	for (unsigned n = 0; n < all->count; n++) {
		struct assigned *a = &all->functions[n];

		if (a->line != pin)
			continue;
		if (a->mode == IRQ_POLLED)
			assigned_line_poll(a);
		if (a->mode != IRQ_LINE)
			continue;
		ours = true;
		a->raised = false;
		assigned_line_follow(a);
	}
	if (ours)
		set_line(all, pin);
}
