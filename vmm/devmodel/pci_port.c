/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/pci_port.h"

#define STATUS_CAPABILITIES BIT(20) /* in the dword of COMMAND */
#define HEADER_END 0x40
#define PRIMARY_BUS 0x18
#define IO_WINDOW 0x1c
#define MEMORY_WINDOW 0x20
#define PREFETCHABLE 0x24
#define PREFETCHABLE_BASE_UPPER 0x28
#define PREFETCHABLE_LIMIT_UPPER 0x2c
#define WINDOW_64 1u

/* The header of type 1: PCI-to-PCI bridges 1.2, 3.2. Sorted, without gaps. */
static const struct pci_port_row policy[] = {
	{0x00, 0x00, ~0u, 0, "vendor and device: the real ones"},
	{0x04, 0x04, 0x06a00007, 0x0547,
	 "COMMAND is the guest's note: other functions may stand behind the "
	 "host's; of STATUS the fixed bits"},
	{0x08, 0x08, ~0u, 0, "class and revision"},
	{0x0c, 0x0c, 0x007f0000, 0xffff, "as an assigned function's"},
	{0x10, 0x14, 0, 0,
	 "the bridge's own registers (hot plug, counters) are the host's"},
	{0x18, 0x18, 0x00ffffff, ~0u,
	 "bus numbers are the guest's: it finds functions by its own, and the "
	 "host's bridge keeps the host's"},
	{0x1c, 0x1c, 0x06a0ffff, 0xf0f0,
	 "the windows are the guest's note: where BARs are is decided by the "
	 "BARs alone. Firmware's fit, and Linux takes them over"},
	{0x20, 0x24, ~0u, 0xfff0fff0, "memory windows, likewise"},
	{0x28, 0x30, ~0u, ~0u, "their upper halves, likewise"},
	{0x34, 0x34, 0, 0, "the list: PCI Express or nothing"},
	{0x38, 0x38, 0, 0, "no option ROM"},
	{0x3c, 0x3c, 0x0fbf0000, 0x0fff00ff,
	 "no pin: a port itself interrupts nobody. Bridge control (VGA) is the "
	 "guest's note; the secondary bus's reset would reach others"},
};

/*
 * The PCI Express capability dword by dword (PCIe 7.5.3): what the guest
 * reads of the host's; it writes nothing. No other capability is offered:
 * power states, MSI and the extended ones (AER, ACS, DPC, hot plug) act on
 * the host's port.
 */
static const u32 express_bits[] = {
	0xfeff00ff, /* no Slot Implemented, for no hot-plug driver; no next */
	~0u,	    /* device capabilities */
	~0u,	    /* device control and status */
	~0u & ~(u32)BIT(21), /* link, but no bandwidth notification */
	~0u,		     /* link control and status */
	0,
	0, /* slot */
	0,
	0,		    /* root: no power management events */
	~0u & ~(u32)BIT(5), /* device 2, but no ARI forwarding */
	~0u,
	~0u, /* link 2 */
	~0u,
	0,
	0, /* slot 2 */
};
#define EXPRESS_1_DWORDS 9 /* of the first version */

const struct pci_port_row *pci_port_policy(unsigned offset)
{
	unsigned i = 0;

	while (i + 1 < ARRAY_SIZE(policy) && policy[i].last < (offset & 0xfc))
		i++;
	return &policy[i];
}

static u32 host_read(const struct pci_port *p, unsigned offset)
{
	return pci_config_read(p->host, p->function->bdf, offset, 4);
}

static u32 read_dword(const struct pci_port *p, unsigned offset)
{
	unsigned n = (offset - p->express) / 4;

	if (offset < HEADER_END)
		return p->copy[offset / 4];
	if (!p->express || offset < p->express || n >= p->express_dwords)
		return 0;
	return host_read(p, offset) & express_bits[n];
}

static u32 port_read(void *dev, unsigned offset, unsigned size)
{
	u32 value = read_dword(dev, offset & ~3u) >> (8 * (offset & 3));

	return value & (u32)bus_all_ones(size);
}

static void port_write(void *dev, unsigned offset, unsigned size, u32 value)
{
	struct pci_port *p = dev;
	unsigned shift = 8 * (offset & 3);
	u32 mask = (u32)bus_all_ones(size) << shift;

	if (offset >= HEADER_END) {
		p->dropped++;
		return;
	}
	mask &= pci_port_policy(offset)->guest_bits;
	p->copy[offset / 4] =
		(p->copy[offset / 4] & ~mask) | (value << shift & mask);
}

static void port_reset(void *dev)
{
	struct pci_port *p = dev;

	for (unsigned at = 0; at < HEADER_END; at += 4) {
		const struct pci_port_row *row = pci_port_policy(at);
		u32 bits = row->host_bits;

		if (p->cold) /* beside them, what a window can */
			bits &= ~row->guest_bits;
		p->copy[at / 4] = host_read(p, at) & bits;
	}
	p->copy[PCI_CAPABILITIES / 4] = p->express;
	if (p->express)
		p->copy[PCI_COMMAND / 4] |= STATUS_CAPABILITIES;
}

static const struct vpci_ops port_ops = {
	.read = port_read,
	.write = port_write,
	.reset = port_reset,
};

static bool is_open(u32 base, u32 limit)
{
	return base && base <= limit;
}

/* Firmware may have left a port off that no driver of its own needed. */
static void switch_on(const struct pci_port *p)
{
	u32 io = host_read(p, IO_WINDOW), memory = host_read(p, MEMORY_WINDOW);
	u32 wide = host_read(p, PREFETCHABLE);
	u32 old = host_read(p, PCI_COMMAND) & 0xffff;
	u32 new = old | PCI_COMMAND_MASTER;

	if (is_open(io & 0xf0, io >> 8 & 0xf0))
		new |= PCI_COMMAND_IO;
	if (is_open(memory & 0xfff0, memory >> 16 & 0xfff0) ||
	    is_open(wide & 0xfff0, wide >> 16 & 0xfff0))
		new |= PCI_COMMAND_MEMORY;
	if (new != old)
		pci_config_write(p->host, p->function->bdf, PCI_COMMAND, 2,
				 new);
}

int pci_port_init(struct pci_port *port, struct vpci *pci,
		  const struct pci_host *host,
		  const struct pci_function *function, bool cold)
{
	unsigned at = pci_find_capability(host, function->bdf, PCI_CAP_EXPRESS);

	*port = (struct pci_port){
		.host = host, .function = function, .cold = cold};
	port->express = (u8)at;
	if (at)
		port->express_dwords = (host_read(port, at) >> 16 & 15) > 1
					       ? ARRAY_SIZE(express_bits)
					       : EXPRESS_1_DWORDS;
	port->express_dwords = (u8)MIN(port->express_dwords, (256u - at) / 4);
	port_reset(port);
	switch_on(port);
	return vpci_add_bridge(pci, function->bdf, &port_ops, port,
			       function->secondary_bus,
			       (u8 *)&port->copy[PRIMARY_BUS / 4]);
}

static u32 window_read(const struct pci_port *p, unsigned offset)
{
	return p->cold ? p->copy[offset / 4] : host_read(p, offset);
}

/* PCI-to-PCI bridges 1.2, 3.2.5.6 to 3.2.5.10 */
bool pci_port_window(const struct pci_port *p, enum pci_port_window which,
		     u64 *base, u64 *end)
{
	u32 low = window_read(p, which == PCI_PORT_IO	    ? IO_WINDOW
				 : which == PCI_PORT_MEMORY ? MEMORY_WINDOW
							    : PREFETCHABLE);
	u64 high = 0;

	if (which == PCI_PORT_IO) {
		*base = (low & 0xf0) << 8;
		*end = (low & 0xf000) + 0x1000;
		return *base && *base < *end;
	}
	*base = (low & 0xfff0) << 16;
	if (which == PCI_PORT_PREFETCHABLE && (low & 15) == WINDOW_64) {
		high = window_read(p, PREFETCHABLE_LIMIT_UPPER);
		*base |= (u64)window_read(p, PREFETCHABLE_BASE_UPPER) << 32;
	}
	*end = (high << 32 | (low & 0xfff00000) | 0xfffff) + 1;
	return *base && *base < *end;
}
