/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/pci_assigned.h"
#include "kernel/string.h"

#define STATUS_CAPABILITIES 0x10u
#define MSI_WIDE 0x80u
#define MSI_MASKABLE 0x100u
#define BAR_END 0x28
#define BAR_IO 1u
#define BAR_64 4u
#define BAR_PREFETCHABLE 8u
#define ROM_ENABLE 1u
#define NO_SOFT_RESET 8u /* PCI PM 1.2, 3.2.4 */
#define ROM_ADDRESS 0xfffff800u

/* The header of type 0: PCI 3.0, 6.1. Sorted, without gaps. */
static const struct pci_policy_row policy[] = {
	{0x00, 0x00, PCI_READ_THROUGH, 0, 0,
	 "vendor and device: drivers bind to the real ones"},
	{0x04, 0x04, PCI_EMULATED, 0x06a80000, 0x0547,
	 "COMMAND is the guest's copy, forwarded by policy; of STATUS the "
	 "fixed bits and Interrupt Status"},
	{0x08, 0x08, PCI_READ_THROUGH, 0, 0,
	 "class and revision: drivers decide by them"},
	{0x0c, 0x0c, PCI_EMULATED, 0x007f0000, 0xffff,
	 "cache line and latency do nothing for the host; BIST would reset "
	 "the device"},
	{0x10, 0x24, PCI_EMULATED, 0, 0,
	 "BARs are virtual; the writable bits come from their sizes"},
	{0x28, 0x28, PCI_HIDDEN, 0, 0, "CardBus CIS: no such device"},
	{0x2c, 0x2c, PCI_READ_THROUGH, 0, 0, "subsystem: drivers decide by it"},
	{0x30, 0x30, PCI_EMULATED, 0, 0,
	 "the ROM BAR is virtual and shows Monocle's copy of the ROM"},
	{0x34, 0x38, PCI_EMULATED, 0, 0,
	 "the list holds what is offered; offset 0x38 is reserved"},
	{0x3c, 0x3c, PCI_EMULATED, 0xffff0000, 0xff,
	 "the line is the guest's note, the pin is virtual; grant and latency "
	 "are the device's"},
	{0x40, 0xfc, PCI_READ_THROUGH, 0, 0,
	 "device-specific registers; capabilities have rules of their own"},
};

/* How a dword above the header is treated. */
enum pci_capability_rule {
	RULE_NONE, /* no capability's: the policy above */
	RULE_HIDE, /* of a capability that is not offered */
	RULE_READ,
	RULE_NO_FLR,	  /* Device Capabilities without it */
	RULE_RESET,	  /* Device Control (PCIe 7.5.3.4), or AF's */
	RULE_POWER_STATE, /* PCI PM 1.2, 3.2.4: PMCSR */
	RULE_MSI_CONTROL, /* PCI 3.0, 6.8.1 */
	RULE_MSI_ADDRESS,
	RULE_MSI_ANY, /* upper address, mask */
	RULE_MSI_DATA,
	RULE_MSI_PENDING,
	RULE_MSIX_CONTROL, /* PCI 3.0, 6.8.2 */
};

/* Bits from the host and bits that the guest writes, of an emulated rule. */
static const struct {
	u32 host_bits, guest_bits;
} rules[] = {
	[RULE_NO_FLR] = {~(u32)BIT(28), 0},
	[RULE_RESET] = {0xffffffff, 0},
	[RULE_POWER_STATE] = {0x0000ff00, 0x3},
	/* Number of messages, 64-bit addresses and masks as the host's. */
	[RULE_MSI_CONTROL] = {0x018e0000, 0x00710000},
	[RULE_MSI_ADDRESS] = {0, 0xfffffffc},
	[RULE_MSI_ANY] = {0, 0xffffffff},
	[RULE_MSI_DATA] = {0, 0xffff},
	/* The copy holds what came when the guest had just masked it. */
	[RULE_MSI_PENDING] = {0xffffffff, 0},
	[RULE_MSIX_CONTROL] = {0x07ff0000, 0xc0000000},
};

struct capability_row {
	u8 id, dwords; /* that it has at least; MSI's by its control */
	const char *reason;
};

/* What is offered; everything else is taken off the list. Not offered are:
 * VPD, whose address register acts on the device's EEPROM; hot plug and
 * bridge capabilities; EA; all of the extended space (SR-IOV, ATS, PASID,
 * resizable BARs, ...). */
static const struct capability_row offered[] = {
	{PCI_CAP_POWER, 2, "drivers write D0; other states are a copy"},
	{PCI_CAP_MSI, 3, "emulated: the host's message is remapped"},
	{PCI_CAP_MSIX, 3, "emulated: the host's table is Monocle's"},
	{PCI_CAP_EXPRESS, 3, "drivers read link and payload; FLR is done"},
	{PCI_CAP_AF, 2, "its reset is done, where it is the one to use"},
	{PCI_CAP_VENDOR, 1, "virtio and others describe themselves"},
};

/*
 * Dwords that one not offered has behind its head, where that is known:
 * registers that act or lead elsewhere are not left readable.
 */
static const struct {
	u8 id, dwords;
} bodies[] = {
	{PCI_CAP_VPD, 1},  {PCI_CAP_PCIX, 1}, {PCI_CAP_HOT_PLUG, 1},
	{PCI_CAP_SATA, 1}, {PCI_CAP_AF, 1},
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

/* 6.2.5.2: the same of the ROM's */
static u32 rom_bits(const struct pci_assigned *d)
{
	return d->config.rom_size ? -d->config.rom_size & ROM_ADDRESS : 0;
}

static u64 bar_address(const struct pci_assigned *d, unsigned i)
{
	const struct pci_bar *bar = &d->config.function->bars[i];
	const u32 *bars = &d->copy[PCI_BAR0 / 4];
	u64 address;

	if (i == PCI_ROM_BAR)
		return d->copy[PCI_ROM / 4] & rom_bits(d);
	address = bars[i] & bar_bits(d, i);
	if (i < 5 && bar->is64)
		address |= (u64)bars[i + 1] << 32;
	return address;
}

/* Where COMMAND and the BAR's register put it now. */
static u64 bar_decoded(struct pci_assigned *d, unsigned i)
{
	const struct pci_bar *bar = &d->config.function->bars[i];
	u32 decode = PCI_COMMAND_MEMORY;
	bool there;

	if (i == PCI_ROM_BAR) {
		there = d->copy[PCI_ROM / 4] & ROM_ENABLE;
	} else {
		there = bar->size;
		decode = bar->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
	}
	return there && *command(d) & decode ? bar_address(d, i)
					     : PCI_BAR_NOWHERE;
}

/* Tells of every BAR that is decoded elsewhere than before. */
static void follow_bars(struct pci_assigned *d)
{
	for (unsigned i = 0; i < ARRAY_SIZE(d->decoded); i++) {
		u64 where = bar_decoded(d, i);

		if (where == d->decoded[i])
			continue;
		d->decoded[i] = where;
		if (d->config.bar_changed)
			d->config.bar_changed(d->config.ctx, i);
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

static u32 emulated_read(const struct pci_assigned *d, unsigned offset,
			 unsigned size, u32 host_bits)
{
	unsigned shift = 8 * (offset & 3);
	u32 mask = (u32)bus_all_ones(size);
	u32 value = d->copy[offset / 4] >> shift & mask;

	mask &= host_bits >> shift;
	return mask ? value | (host_read(d, offset, size) & mask) : value;
}

/* The header of a capability: its own ID, and the next that is offered. */
static u32 with_chain(const struct pci_assigned *d, unsigned offset,
		      unsigned size, u32 value)
{
	unsigned dword = offset & 0xfc, shift = 8 * (offset & 3);
	u32 head, mask = 0xffffu >> shift & (u32)bus_all_ones(size);

	if (!d->next[dword / 4])
		return value;
	head = host_read(d, dword, 1) | (d->next[dword / 4] & 0xfcu) << 8;
	return shift > 8 ? value : (value & ~mask) | (head >> shift & mask);
}

static u32 capability_read(struct pci_assigned *d, unsigned offset,
			   unsigned size)
{
	u8 rule = d->rule[offset / 4];
	u32 value;

	if (rule == RULE_HIDE)
		return 0;
	if (rule == RULE_READ)
		value = host_read(d, offset, size) & (u32)bus_all_ones(size);
	else
		value = emulated_read(d, offset, size, rules[rule].host_bits);
	/* States are a copy: the way back to D0 is no reset. */
	if (rule == RULE_POWER_STATE && !(offset & 3))
		value |= NO_SOFT_RESET;
	return with_chain(d, offset, size, value);
}

/* The row of this function's own, or NULL. */
static const struct pci_policy_row *own_row(const struct pci_assigned *d,
					    unsigned offset)
{
	for (unsigned i = 0; i < d->config.row_count; i++)
		if ((offset & 0xfc) >= d->config.rows[i].first &&
		    (offset & 0xfc) <= d->config.rows[i].last)
			return &d->config.rows[i];
	return NULL;
}

static void interrupts_changed(struct pci_assigned *d)
{
	if (d->config.interrupts_changed)
		d->config.interrupts_changed(d->config.ctx);
}

static void clear_bars(struct pci_assigned *d)
{
	*command(d) &= ~(u32)(PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	for (unsigned i = 0; i < 6; i++)
		d->copy[PCI_BAR0 / 4 + i] &= ~bar_bits(d, i);
}

/* Every copy as firmware left the host's register. */
static void initial_copies(struct pci_assigned *d)
{
	const struct pci_bar *bars = d->config.function->bars;
	u32 rom = host_read(d, PCI_ROM, 4) & ROM_ADDRESS;

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
	/* Disabled; a file's may be larger than the host's, and elsewhere. */
	d->copy[PCI_ROM / 4] = rom & ~rom_bits(d) ? 0 : rom;
	if (d->first)
		d->copy[PCI_STATUS / 4] |= STATUS_CAPABILITIES << 16;
	d->copy[PCI_CAPABILITIES / 4] = d->first;
	/* PCI 3.0, 6.2.4: 255 is "not known". */
	if (d->config.pin)
		d->copy[PCI_INTERRUPT_LINE / 4] =
			(u32)d->config.pin << 8 | 0xff;
	if (d->config.cold) {
		d->copy[PCI_ROM / 4] = 0;
		clear_bars(d);
	}
}

/* PCIe 6.6.2: registers as after power-on. What is stopped stays so. */
static void begin_reset(struct pci_assigned *d)
{
	d->away = true;
	initial_copies(d);
	*command(d) &= ~0xffffu;
	clear_bars(d);
	forward_command(d);
	follow_bars(d);
	interrupts_changed(d);
	d->config.reset(d->config.ctx, true);
}

bool pci_assigned_is_away(struct pci_assigned *d)
{
	if (d->away && d->config.reset(d->config.ctx, false)) {
		d->away = false;
		forward_command(d);
		interrupts_changed(d);
	}
	return d->away;
}

static void emulated_write(struct pci_assigned *d, unsigned offset, u32 mask,
			   u32 value)
{
	unsigned dword = offset & 0xfc;
	u32 *copy = &d->copy[dword / 4];
	u8 rule = d->rule[dword / 4];
	bool af = d->config.reset_method == PCI_RESET_AF;

	if (rule == RULE_RESET && value & mask & (af ? 1 : BIT(15))) {
		begin_reset(d);
		return;
	}
	if (is_bar(dword))
		mask &= bar_bits(d, (dword - PCI_BAR0) / 4);
	else if (dword == PCI_ROM)
		mask &= rom_bits(d) ? rom_bits(d) | ROM_ENABLE : 0;
	else if (rule != RULE_NONE)
		mask &= rules[rule].guest_bits;
	else
		mask &= pci_policy_find(dword)->guest_bits;
	if (dword == PCI_COMMAND && d->stopped)
		mask &= ~(u32)PCI_COMMAND_MASTER;
	*copy = (*copy & ~mask) | (value & mask);
	if (dword == PCI_COMMAND)
		forward_command(d);
	if (dword == PCI_COMMAND || dword == PCI_ROM || is_bar(dword))
		follow_bars(d);
	if (dword == PCI_COMMAND || rule >= RULE_MSI_CONTROL)
		interrupts_changed(d);
}

static u32 assigned_read(void *dev, unsigned offset, unsigned size)
{
	struct pci_assigned *d = dev;
	const struct pci_policy_row *row = own_row(d, offset);

	d->accesses++;
	if (pci_assigned_is_away(d))
		return (u32)bus_all_ones(size);
	if (!row && d->rule[offset / 4] != RULE_NONE)
		return capability_read(d, offset, size);
	row = row ? row : pci_policy_find(offset);
	switch (row->policy) {
	case PCI_READ_THROUGH:
	case PCI_WRITE_THROUGH:
		return host_read(d, offset, size) & (u32)bus_all_ones(size);
	case PCI_EMULATED:
		return emulated_read(d, offset, size, row->host_bits);
	default:
		return 0;
	}
}

static enum pci_policy policy_of(const struct pci_assigned *d, unsigned offset)
{
	const struct pci_policy_row *row = own_row(d, offset);
	u8 rule = d->rule[offset / 4];

	if (row)
		return row->policy;
	if (rule == RULE_NONE)
		return pci_policy_find(offset)->policy;
	return rule > RULE_READ ? PCI_EMULATED : PCI_HIDDEN;
}

static void assigned_write(void *dev, unsigned offset, unsigned size, u32 value)
{
	struct pci_assigned *d = dev;
	unsigned shift = 8 * (offset & 3);

	d->accesses++;
	switch (pci_assigned_is_away(d) ? PCI_HIDDEN : policy_of(d, offset)) {
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

struct pci_msi pci_assigned_msi(const struct pci_assigned *d)
{
	unsigned at = d->msi / 4u, data;
	const u32 *c = d->copy;
	bool wide;

	if (!d->msi)
		return (struct pci_msi){0};
	/* Not asked of the host again: the rules are what was bounded. */
	wide = d->rule[at + 2] == RULE_MSI_ANY;
	data = at + (wide ? 3 : 2);
	return (struct pci_msi){
		.enabled = c[at] & BIT(16),
		.count = 1u << MIN(c[at] >> 20 & 7, (u32)d->msi_multiple),
		.mask = d->msi_pending ? c[data + 1] : 0,
		.address = c[at + 1] | (wide ? (u64)c[at + 2] << 32 : 0),
		.data = c[data] & 0xffff,
	};
}

void pci_assigned_set_pending(struct pci_assigned *d, u32 messages)
{
	if (d->msi_pending)
		d->copy[d->msi_pending / 4u] = messages;
}

bool pci_assigned_msix(const struct pci_assigned *d, bool *masked)
{
	u32 control = d->msix ? d->copy[d->msix / 4] : 0;

	*masked = control & BIT(30);
	return control & BIT(31);
}

bool pci_assigned_intx(const struct pci_assigned *d)
{
	bool masked;

	return d->config.pin && !d->away && !pci_assigned_msi(d).enabled &&
	       !pci_assigned_msix(d, &masked) &&
	       !(d->copy[PCI_COMMAND / 4] & PCI_COMMAND_INTX_DISABLE);
}

static void set_msi_rules(struct pci_assigned *d, unsigned at, u32 control)
{
	u8 *rule = &d->rule[at / 4];

	d->msi = (u8)at;
	d->msi_multiple = (u8)MIN(control >> 1 & 7, 5u); /* 6, 7: reserved */
	*rule++ = RULE_MSI_CONTROL;
	*rule++ = RULE_MSI_ADDRESS;
	if (control & MSI_WIDE)
		*rule++ = RULE_MSI_ANY;
	*rule++ = RULE_MSI_DATA;
	if (control & MSI_MASKABLE) {
		*rule++ = RULE_MSI_ANY; /* mask */
		*rule = RULE_MSI_PENDING;
		d->msi_pending = (u8)((rule - d->rule) * 4);
	}
}

/* Within the 256 bytes, and on no other capability. */
static bool is_free(const struct pci_assigned *d, unsigned at, unsigned dwords)
{
	for (unsigned i = at / 4; i < at / 4 + dwords; i++)
		if (i >= ARRAY_SIZE(d->rule) || d->rule[i] != RULE_NONE)
			return false;
	return true;
}

/* False: it is not offered. A second MSI or MSI-X has no meaning. */
static bool set_rules(struct pci_assigned *d, unsigned at,
		      const struct capability_row *row)
{
	u32 control = host_read(d, at + 2, 2);
	unsigned dwords = row->dwords;
	bool flr = d->config.reset_method == PCI_RESET_FLR;

	if (row->id == PCI_CAP_MSI)
		dwords += (control & MSI_WIDE ? 1u : 0) +
			  (control & MSI_MASKABLE ? 2u : 0);
	if (!is_free(d, at, dwords) || (row->id == PCI_CAP_MSI && d->msi) ||
	    (row->id == PCI_CAP_MSIX && (d->msix || d->config.no_msix)) ||
	    (row->id == PCI_CAP_AF && d->config.reset_method != PCI_RESET_AF))
		return false;
	memset(&d->rule[at / 4], RULE_READ, dwords);
	if (row->id == PCI_CAP_MSI)
		set_msi_rules(d, at, control);
	if (row->id == PCI_CAP_POWER)
		d->rule[at / 4 + 1] = RULE_POWER_STATE;
	if (row->id == PCI_CAP_AF)
		d->rule[at / 4 + 1] = RULE_RESET;
	if (row->id == PCI_CAP_EXPRESS)
		d->rule[at / 4 + (flr ? 2 : 1)] =
			flr ? RULE_RESET : RULE_NO_FLR;
	if (row->id == PCI_CAP_MSIX) {
		d->msix = (u8)at;
		d->rule[at / 4] = RULE_MSIX_CONTROL;
	}
	return true;
}

static const struct capability_row *find_offered(u32 id)
{
	for (unsigned i = 0; i < ARRAY_SIZE(offered); i++)
		if (offered[i].id == id)
			return &offered[i];
	return NULL;
}

/* The body of what is hidden; what is offered keeps all of its dwords. */
static void hide_body(struct pci_assigned *d, unsigned at)
{
	u32 id = host_read(d, at, 1);

	for (unsigned i = 0; i < ARRAY_SIZE(bodies); i++)
		if (bodies[i].id == id && is_free(d, at + 4, bodies[i].dwords))
			memset(&d->rule[at / 4 + 1], RULE_HIDE,
			       bodies[i].dwords);
}

/* Builds the guest's chain; a host's loop ends at a dword seen before. */
static void build_chain(struct pci_assigned *d)
{
	u8 *link = &d->first;
	unsigned at = 0;
	u64 seen = 0;

	if (host_read(d, PCI_STATUS, 2) & STATUS_CAPABILITIES)
		at = host_read(d, PCI_CAPABILITIES, 1) & 0xfc;
	while (at >= 0x40 && !(seen & BIT(at / 4))) {
		const struct capability_row *row =
			find_offered(host_read(d, at, 1));

		seen |= BIT(at / 4);
		if (row && set_rules(d, at, row)) {
			*link = (u8)at;
			link = &d->next[at / 4];
			*link = 1; /* offered, and the last so far */
		} else if (d->rule[at / 4] == RULE_NONE) {
			d->rule[at / 4] = RULE_HIDE;
		}
		at = host_read(d, at + 1, 1) & 0xfc;
	}
	for (at = 0x40; at < 0x100; at += 4)
		if (seen & BIT(at / 4) && d->rule[at / 4] == RULE_HIDE)
			hide_body(d, at);
}

void pci_assigned_stop(struct pci_assigned *d)
{
	d->stopped = true;
	*command(d) &= ~(u32)PCI_COMMAND_MASTER;
}

static void assigned_reset(void *dev)
{
	struct pci_assigned *d = dev;

	d->stopped = false;
	initial_copies(d);
	forward_command(d);
	follow_bars(d);
	interrupts_changed(d);
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
				   (PCI_COMMAND_IO | PCI_COMMAND_MEMORY |
				    config->command_kept));
	build_chain(d);
	initial_copies(d);
	for (unsigned i = 0; i < ARRAY_SIZE(d->decoded); i++)
		d->decoded[i] = bar_decoded(d, i);
	return vpci_add(pci, config->function->bdf, &assigned_ops, d);
}
