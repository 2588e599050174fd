/* SPDX-License-Identifier: MIT */
/*
 * INTx of a function whose line gsi= names. The host's pin is masked from
 * the interrupt's arrival to the guest's EOI; meanwhile the virtual line is
 * asserted. A cause that the guest's driver has left interrupts again then.
 */
#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/traps.h"
#include "vmm/machine.h"

/* Functions may share a virtual line: it is asserted while one raises it. */
static void set_line(struct machine *m, unsigned line)
{
	bool raised = false;

	for (unsigned n = 0; n < m->assigned_count; n++)
		raised |= m->assigned[n].raised && m->assigned[n].line == line;
	ioapic_set_line(&m->ioapic, line, raised);
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
	assigned_line_follow(a);
	assigned_count(a);
	set_line(a->machine, a->line);
}

int assigned_line_init(struct assigned *a)
{
	int vector = host_irq_alloc(line_arrived, a);

	if (vector < 0)
		return vector;
	return host_irq_line(&a->machine->host->madt, a->gsi, (u8)vector,
			     &a->pin);
}

/* Firmware may have forbidden it. */
void assigned_line_on(struct assigned *a)
{
	const struct pci_host *pci = &a->machine->host->pci;
	u32 command = pci_config_read(pci, a->function->bdf, PCI_COMMAND, 2);

	pci_config_write(pci, a->function->bdf, PCI_COMMAND, 2,
			 command & ~(u32)PCI_COMMAND_INTX_DISABLE);
}

void assigned_line_off(struct assigned *a)
{
	a->raised = false;
	host_irq_line_mask(&a->pin, true);
	set_line(a->machine, a->line);
}

void assigned_line_eoi(void *machine, unsigned pin)
{
	struct machine *m = machine;
	bool ours = false;

	for (unsigned n = 0; n < m->assigned_count; n++) {
		struct assigned *a = &m->assigned[n];

		if (a->mode != IRQ_LINE || a->line != pin)
			continue;
		ours = true;
		a->raised = false;
		assigned_line_follow(a);
	}
	if (ours)
		set_line(m, pin);
}
