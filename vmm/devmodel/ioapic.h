/* SPDX-License-Identifier: MIT */
/*
 * I/O APIC (82093AA data sheet; version 0x20 with an EOI register, as in
 * the ICH and PCH data sheets): 24 pins, which send their messages over the
 * LAPICs' bus. A line's level is given as asserted or not, so the polarity
 * bit is kept for the guest and means nothing here.
 */
#ifndef VMM_DEVMODEL_IOAPIC_H
#define VMM_DEVMODEL_IOAPIC_H

#include "vmm/core/bus.h"
#include "vmm/devmodel/apic_bus.h"

#define IOAPIC_BASE 0xFEC00000ull
#define IOAPIC_PINS 24

struct ioapic {
	u64 redirection[IOAPIC_PINS];
	u32 asserted; /* bit n: pin n is */
	u32 pulsed;   /* bit n: level pin n owes a message for a pulse */
	u8 id;
	u8 select;
	u8 reset_id;
	struct apic_bus *apics;
	/* NULL, or told of each EOI of a level-triggered pin, before what the
	 * pin owes by then is sent; and that a pin's entry is another. */
	void (*ended)(void *ctx, unsigned pin);
	void (*routed)(void *ctx, unsigned pin);
	void *ctx; /* of both */
};

/*
 * Registers the MMIO page and becomes the one to which apics sends EOIs.
 * Both pointers are kept. Returns 0, -ENOSPC or -EEXIST.
 */
int ioapic_init(struct ioapic *io, struct bus *bus, struct apic_bus *apics,
		u8 id);
void ioapic_reset(struct ioapic *io);

/* apic_bus_target() of the pin's message; none of one that is masked. */
u32 ioapic_target(const struct ioapic *io, unsigned pin);

/* Pins that do not exist are ignored. */
void ioapic_set_line(struct ioapic *io, unsigned pin, bool asserted);

/*
 * A pulse that a level-triggered pin must not lose while it is masked or
 * its last message awaits the EOI: a device's MSI in place of its INTx. On
 * an edge-triggered pin it is an edge.
 */
void ioapic_pulse(struct ioapic *io, unsigned pin);

/* A LAPIC's EOI of a level-triggered vector; io is a struct ioapic. */
void ioapic_eoi(void *io, u8 vector);

#endif
