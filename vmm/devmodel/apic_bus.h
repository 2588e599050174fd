/* SPDX-License-Identifier: MIT */
/*
 * The way that interrupt messages take from LAPICs, the IOAPIC and devices'
 * MSIs to LAPICs (SDM vol 3 10.6 and 10.11).
 */
#ifndef VMM_DEVMODEL_APIC_BUS_H
#define VMM_DEVMODEL_APIC_BUS_H

#include "arch/x86/types.h"

#define APIC_BUS_MAX 64
#define APIC_BROADCAST 0xFFFFFFFFu

/* SDM 10.5.1, 10.6.1, 10.11.2; 82093AA 3.2.4 */
enum apic_delivery {
	APIC_FIXED,
	APIC_LOWEST_PRIORITY,
	APIC_SMI,
	APIC_NMI = 4,
	APIC_INIT,
	APIC_SIPI,
	APIC_EXTINT,
};

/* In an LVT register, the ICR, a redirection entry, an MSI's data */
#define APIC_DELIVERY(r) ((u8)((r) >> 8 & 7))

struct apic_message {
	u32 dest;
	u8 vector;
	u8 delivery; /* enum apic_delivery */
	bool logical;
	bool level; /* level-triggered: its EOI goes on to the IOAPIC */
};

struct lapic;

/* All zeros is an empty bus. */
struct apic_bus {
	unsigned count;
	unsigned turn; /* who is asked first for the lowest priority */
	struct lapic *lapics[APIC_BUS_MAX];
	void (*eoi)(void *ioapic, u8 vector); /* of a level interrupt */
	void *ioapic;
};

/* What an xAPIC, an IOAPIC or an MSI says in 8 bits. */
static inline u32 apic_dest8(u32 dest, bool logical)
{
	return dest == 0xFF && !logical ? APIC_BROADCAST : dest;
}

/*
 * Sends to every LAPIC that the message addresses, but not to except, or to
 * the least busy of them. True if one took it.
 */
bool apic_bus_send(struct apic_bus *apics, const struct apic_message *m,
		   const struct lapic *except);

/* A device's write in the MSI range (SDM 10.11); others are dropped. */
void apic_bus_msi(struct apic_bus *apics, u64 address, u32 data);

/*
 * The APIC ID of the first LAPIC that the message addresses and that would take
 * it, or APIC_BROADCAST: there is none. Of another CPU's LAPIC that is changing
 * it may be late.
 */
u32 apic_bus_target(const struct apic_bus *apics, const struct apic_message *m);
u32 apic_bus_msi_target(const struct apic_bus *apics, u64 address, u32 data);

#endif
