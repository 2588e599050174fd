/* SPDX-License-Identifier: MIT */
/*
 * Where a device model's interrupt goes: a line (global system interrupt)
 * into the virtual IOAPIC and, below 16, the 8259 pair; or a message.
 * Whoever builds the guest's machine fills the table in.
 */
#ifndef VMM_CORE_VIRQ_H
#define VMM_CORE_VIRQ_H

#include "arch/x86/types.h"

/*
 * Fixed wiring of the guest's machine: ISA line n is IOAPIC pin n, but for
 * line 0 (the PIT), which is pin 2. Line 9 is the SCI (level, high). PCI
 * INTA-INTD are pins 16-19 (level, low).
 */
#define VIRQ_PIT 0
#define VIRQ_KEYBOARD 1
#define VIRQ_COM1 4
#define VIRQ_RTC 8
#define VIRQ_SCI 9
#define VIRQ_MOUSE 12
#define VIRQ_PCI 16

struct virq {
	/* Sets the level of a line (true: asserted, whatever its polarity). */
	void (*set_line)(void *ctx, unsigned line, bool asserted);
	/* A message as a device writes it: SDM 10.11. */
	void (*send_msi)(void *ctx, u64 address, u32 data);
	/* The APIC ID of whom it names first, or none's (apic_bus_target()). */
	u32 (*msi_target)(void *ctx, u64 address, u32 data);
	void *ctx;
};

static inline void virq_set_line(const struct virq *v, unsigned line, bool on)
{
	v->set_line(v->ctx, line, on);
}

#endif
