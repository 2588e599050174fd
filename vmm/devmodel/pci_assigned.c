/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/pci_assigned.h"
#include "kernel/string.h"

#define BAR_END 0x28
#define BAR_IO 1u
#define BAR_64 4u
#define BAR_PREFETCHABLE 8u

/* The header of type 0: PCI 3.0, 6.1. Sorted, without gaps. */
static const struct pci_policy_row policy[] = {
	{0x00, 0x00, PCI_READ_THROUGH, 0, 0,
	 "vendor and device: drivers bind to the real ones"},
	{0x04, 0x04, PCI_EMULATED, 0x06a00000, 0x0547,
	 "COMMAND is the guest's copy, forwarded by policy; of STATUS the "
	 "fixed bits, without the capability list"},
	{0x08, 0x08, PCI_READ_THROUGH, 0, 0,
	 "class and revision: drivers decide by them"},
	{0x0c, 0x0c, PCI_EMULATED, 0x007f0000, 0xffff,
	 "cache line and latency do nothing for the host; BIST would reset "
	 "the device"},
	{0x10, 0x24, PCI_EMULATED, 0, 0,
	 "BARs are virtual; the writable bits come from their sizes"},
	{0x28, 0x28, PCI_HIDDEN, 0, 0, "CardBus CIS: no such device"},
	{0x2c, 0x2c, PCI_READ_THROUGH, 0, 0, "subsystem: drivers decide by it"},
	{0x30, 0x30, PCI_HIDDEN, 0, 0, "no option ROM is offered yet"},
	{0x34, 0x38, PCI_HIDDEN, 0, 0, "no capability is offered yet"},
	{0x3c, 0x3c, PCI_EMULATED, 0xffff0000, 0xff,
	 "the line is the guest's note, no pin is wired yet; grant and "
	 "latency are the device's"},
	{0x40, 0xfc, PCI_HIDDEN, 0, 0,
	 "capabilities and device-specific registers: none offered yet"},
};

const struct pci_policy_row *pci_policy_find(unsigned offset)
{
	unsigned i = 0;

	while (i + 1 < ARRAY_SIZE(policy) && policy[i].last < (offset & 0xfc))
		i++;
	return &policy[i];
}

static bool is_bar(unsigned dword)
{
	return dword >= PCI_BAR0 && dword < BAR_END;
}

static u32 *command(struct pci_assigned *d)
{
	return &d->copy[PCI_COMMAND / 4];
}

static u32 host_read(const struct pci_assigned *d, unsigned offset,
		     unsigned size)
{
	return pci_config_read(d->config.host, d->config.function->bdf, offset,
			       size);
}

/* PCI 3.0, 6.2.5.1: the address bits that a BAR register implements. */
static u32 bar_bits(const struct pci_assigned *d, unsigned i)
{
	const struct pci_bar *bar = &d->config.function->bars[i];

	if (bar->size)
		return (u32)-bar->size & (bar->io ? ~3u : ~15u);
	if (i > 0 && bar[-1].size && bar[-1].is64)
		return (u32)(-bar[-1].size >> 32);
	return 0;
}

static u64 bar_address(const struct pci_assigned *d, unsigned i)
{
	const struct pci_bar *bar = &d->config.function->bars[i];
	const u32 *bars = &d->copy[PCI_BAR0 / 4];
	u64 address = bars[i] & bar_bits(d, i);

	if (i < 5 && bar->is64)
		address |= (u64)bars[i + 1] << 32;
	return address;
}

/* Where COMMAND and the BAR's register put it now. */
static u64 bar_decoded(struct pci_assigned *d, unsigned i)
{
	const struct pci_bar *bar = &d->config.function->bars[i];
	u32 decode = bar->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;

	if (!bar->size || !(*command(d) & decode))
		return PCI_BAR_NOWHERE;
	return bar_address(d, i);
}

/* Tells of every BAR that is decoded elsewhere than before. */
static void follow_bars(struct pci_assigned *d)
{
	for (unsigned i = 0; i < 6; i++) {
		u64 old = d->decoded[i], new = bar_decoded(d, i);

		if (old == new)
			continue;
		d->decoded[i] = new;
		if (d->config.bar_changed)
			d->config.bar_changed(d->config.ctx, i, old,
					      bar_address(d, i),
					      new != PCI_BAR_NOWHERE);
	}
}

static void forward_command(struct pci_assigned *d)
{
	u16 forward = d->config.command_forward;
	u32 host = host_read(d, PCI_COMMAND, 2);
	u32 wanted = (host & ~(u32)forward) | (*command(d) & forward);

	if (wanted != host)
		pci_config_write(d->config.host, d->config.function->bdf,
				 PCI_COMMAND, 2, wanted);
}

static u32 assigned_read(void *dev, unsigned offset, unsigned size)
{
	struct pci_assigned *d = dev;
	const struct pci_policy_row *row = pci_policy_find(offset);
	unsigned shift = 8 * (offset & 3);
	u32 mask = (u32)bus_all_ones(size);
	u32 value;

	switch (row->policy) {
	case PCI_READ_THROUGH:
	case PCI_WRITE_THROUGH:
		return host_read(d, offset, size) & mask;
	case PCI_EMULATED:
		value = d->copy[offset / 4] >> shift & mask;
		mask &= row->host_bits >> shift;
		return mask ? value | (host_read(d, offset, size) & mask)
			    : value;
	default:
		return 0;
	}
}

static void emulated_write(struct pci_assigned *d, unsigned offset, u32 mask,
			   u32 value)
{
	unsigned dword = offset & 0xfc;
	u32 *copy = &d->copy[dword / 4];

	if (is_bar(dword))
		mask &= bar_bits(d, (dword - PCI_BAR0) / 4);
	else
		mask &= pci_policy_find(dword)->guest_bits;
	*copy = (*copy & ~mask) | (value & mask);
	if (dword == PCI_COMMAND)
		forward_command(d);
	if (dword == PCI_COMMAND || is_bar(dword))
		follow_bars(d);
}

static void assigned_write(void *dev, unsigned offset, unsigned size, u32 value)
{
	struct pci_assigned *d = dev;
	unsigned shift = 8 * (offset & 3);

	switch (pci_policy_find(offset)->policy) {
	case PCI_WRITE_THROUGH:
		pci_config_write(d->config.host, d->config.function->bdf,
				 offset, size, value);
		break;
	case PCI_EMULATED:
		emulated_write(d, offset, (u32)bus_all_ones(size) << shift,
			       value << shift);
		break;
	default:
		d->dropped++;
	}
}

/* Every copy as firmware left the host's register. */
static void initial_copies(struct pci_assigned *d)
{
	const struct pci_bar *bars = d->config.function->bars;

	memset(d->copy, 0, sizeof(d->copy));
	*command(d) = d->initial_command;
	for (unsigned i = 0; i < 6; i++) {
		u32 *copy = &d->copy[PCI_BAR0 / 4 + i];

		if (!bars[i].size)
			continue;
		*copy = ((u32)bars[i].base & bar_bits(d, i)) |
			(bars[i].io ? BAR_IO : 0) |
			(bars[i].is64 ? BAR_64 : 0) |
			(bars[i].prefetchable ? BAR_PREFETCHABLE : 0);
		if (i < 5 && bars[i].is64)
			copy[1] = (u32)(bars[i].base >> 32);
	}
}

static void assigned_reset(void *dev)
{
	struct pci_assigned *d = dev;

	initial_copies(d);
	forward_command(d);
	follow_bars(d);
}

static const struct vpci_ops assigned_ops = {
	.read = assigned_read,
	.write = assigned_write,
	.reset = assigned_reset,
};

int pci_assigned_init(struct pci_assigned *d, struct vpci *pci,
		      const struct pci_assigned_config *config)
{
	*d = (struct pci_assigned){.config = *config};
	d->initial_command = (u16)(host_read(d, PCI_COMMAND, 2) &
				   (PCI_COMMAND_IO | PCI_COMMAND_MEMORY));
	initial_copies(d);
	for (unsigned i = 0; i < 6; i++)
		d->decoded[i] = bar_decoded(d, i);
	return vpci_add(pci, config->function->bdf, &assigned_ops, d);
}
