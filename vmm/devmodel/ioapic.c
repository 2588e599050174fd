/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/ioapic.h"

#include "kernel/string.h"

/* 82093AA 3.2.4 */
#define RTE_LOGICAL BIT(11)
#define RTE_REMOTE_IRR BIT(14)
#define RTE_LEVEL BIT(15)
#define RTE_MASKED BIT(16)
#define RTE_WRITABLE 0xFF0000000001AFFFull

enum { REG_ID = 0x00, REG_VERSION = 0x01, REG_ARBITRATION = 0x02 };
#define REG_RTE 0x10
#define VERSION (0x20 | (IOAPIC_PINS - 1) << 16)

enum { OFFSET_SELECT = 0x00, OFFSET_WINDOW = 0x10, OFFSET_EOI = 0x40 };

static struct apic_message message(u64 rte, bool level)
{
	return (struct apic_message){
		.dest = apic_dest8((u32)(rte >> 56), rte & RTE_LOGICAL),
		.vector = (u8)rte,
		.delivery = APIC_DELIVERY(rte),
		.logical = rte & RTE_LOGICAL,
		.level = level,
	};
}

static bool send(struct ioapic *io, u64 rte, bool level)
{
	struct apic_message m = message(rte, level);

	return apic_bus_send(io->apics, &m, NULL);
}

u32 ioapic_target(const struct ioapic *io, unsigned pin)
{
	u64 rte = pin < IOAPIC_PINS ? io->redirection[pin] : RTE_MASKED;
	struct apic_message m = message(rte, false);

	return rte & RTE_MASKED ? APIC_BROADCAST
				: apic_bus_target(io->apics, &m);
}

/* Only fixed and lowest-priority messages end with an EOI. */
static bool is_level(u64 rte)
{
	return rte & RTE_LEVEL && APIC_DELIVERY(rte) <= APIC_LOWEST_PRIORITY;
}

/* Sends what a level-triggered pin owes, unless an EOI is outstanding. */
static void service_level(struct ioapic *io, unsigned pin)
{
	u64 *rte = &io->redirection[pin];
	u32 bit = 1u << pin;

	if (!((io->asserted | io->pulsed) & bit) || !is_level(*rte) ||
	    *rte & (RTE_MASKED | RTE_REMOTE_IRR))
		return;
	if (send(io, *rte, true)) {
		*rte |= RTE_REMOTE_IRR;
		io->pulsed &= ~bit;
	}
}

void ioapic_set_line(struct ioapic *io, unsigned pin, bool asserted)
{
	bool rising;
	u32 bit;

	if (pin >= IOAPIC_PINS)
		return;
	bit = 1u << pin;
	rising = asserted && !(io->asserted & bit);
	io->asserted = asserted ? io->asserted | bit : io->asserted & ~bit;
	if (!rising)
		return;
	if (is_level(io->redirection[pin]))
		service_level(io, pin);
	else if (!(io->redirection[pin] & RTE_MASKED)) /* else it is lost */
		send(io, io->redirection[pin], false);
}

void ioapic_pulse(struct ioapic *io, unsigned pin)
{
	if (pin < IOAPIC_PINS && is_level(io->redirection[pin])) {
		io->pulsed |= 1u << pin;
		service_level(io, pin);
		return;
	}
	ioapic_set_line(io, pin, true);
	ioapic_set_line(io, pin, false);
}

void ioapic_eoi(void *dev, u8 vector)
{
	struct ioapic *io = dev;

	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		u64 *rte = &io->redirection[pin];

		if (!(*rte & RTE_REMOTE_IRR) || (u8)*rte != vector)
			continue;
		*rte &= ~RTE_REMOTE_IRR;
		if (io->ended)
			io->ended(io->ctx, pin);
		service_level(io, pin);
	}
}

static u32 register_read(const struct ioapic *io)
{
	unsigned rte = io->select - REG_RTE;

	switch (io->select) {
	case REG_ID:
	case REG_ARBITRATION:
		return (u32)io->id << 24;
	case REG_VERSION:
		return VERSION;
	}
	if (io->select < REG_RTE || rte / 2 >= IOAPIC_PINS)
		return 0;
	return (u32)(io->redirection[rte / 2] >> (rte & 1 ? 32 : 0));
}

static void rte_write(struct ioapic *io, unsigned pin, unsigned shift,
		      u32 value)
{
	u64 mask = RTE_WRITABLE & (0xFFFFFFFFull << shift);
	u64 *rte = &io->redirection[pin];

	*rte = (*rte & ~mask) | ((u64)value << shift & mask);
	if (!is_level(*rte)) {
		/* What drivers do to drop an EOI that never came. */
		*rte &= ~RTE_REMOTE_IRR;
		io->pulsed &= ~(1u << pin);
	}
	if (io->routed)
		io->routed(io->ctx, pin);
	service_level(io, pin);
}

static void register_write(struct ioapic *io, u32 value)
{
	unsigned rte = io->select - REG_RTE;

	if (io->select == REG_ID)
		io->id = value >> 24 & 0xF;
	else if (io->select >= REG_RTE && rte / 2 < IOAPIC_PINS)
		rte_write(io, rte / 2, rte & 1 ? 32 : 0, value);
}

static int ioapic_access(void *dev, struct bus_access *a)
{
	struct ioapic *io = dev;
	u32 value = (u32)a->value;

	if (!a->write)
		a->value = bus_all_ones(a->size);
	switch (a->addr & PAGE_MASK) {
	case OFFSET_SELECT:
		if (a->write)
			io->select = (u8)value;
		else
			a->value = io->select;
		break;
	case OFFSET_WINDOW:
		if (!a->write)
			a->value &= register_read(io);
		else if (a->size == 4)
			register_write(io, value);
		break;
	case OFFSET_EOI:
		if (a->write)
			ioapic_eoi(io, (u8)value);
		break;
	}
	return 0;
}

void ioapic_reset(struct ioapic *io)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		io->redirection[pin] = RTE_MASKED;
		if (io->routed)
			io->routed(io->ctx, pin);
	}
	io->pulsed = 0;
	io->select = 0;
	io->id = io->reset_id;
}

int ioapic_init(struct ioapic *io, struct bus *bus, struct apic_bus *apics,
		u8 id)
{
	memset(io, 0, sizeof(*io));
	io->apics = apics;
	io->reset_id = id;
	apics->eoi = ioapic_eoi;
	apics->ioapic = io;
	ioapic_reset(io);
	return bus_register(bus, BUS_MMIO, IOAPIC_BASE,
			    IOAPIC_BASE + PAGE_SIZE - 1, ioapic_access, io,
			    "ioapic");
}
