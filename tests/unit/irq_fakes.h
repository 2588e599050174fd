/* SPDX-License-Identifier: MIT */
/*
 * One assigned function between a device and a guest, for the tests of its
 * interrupts: the host's configuration space and BAR are memory that the
 * test's device looks at, an IOMMU sees what it was made to read again.
 */
#ifndef TESTS_UNIT_IRQ_FAKES_H
#define TESTS_UNIT_IRQ_FAKES_H

#include "arch/x86/types.h"

#define IRQ_BAR 0xe0000000ull /* of the guest and of the host */
#define IRQ_BAR_SIZE 0x20000
#define IRQ_SENT 4096

struct irq_sent {
	u64 address; /* 0: a message of the IOAPIC */
	u32 data;
};

extern u8 irq_config[256];
extern u8 irq_bar[IRQ_BAR_SIZE];
extern bool irq_direct; /* the function is behind no unit */
extern bool irq_no_memory;
extern u64 irq_bar_base; /* IRQ_BAR, or 0: at address 0, none */
extern struct irq_sent irq_sent[IRQ_SENT]; /* to the guest's LAPIC */
extern unsigned irq_sent_count;

extern u64 irq_pins[24]; /* the host's IOAPIC */

/* CPU n has APIC ID 2 * n; a guest's message names CPU `destination` % 4. */
#define IRQ_CPUS 4
extern u8 irq_irr[IRQ_CPUS][256]; /* on their way to each CPU */
extern bool irq_looks[IRQ_CPUS];  /* was asked to, by HOST_VECTOR_FREED */
extern bool irq_kicked[IRQ_CPUS]; /* takes interrupts, even if it is asleep */
/* What follows is done by this CPU. */
void irq_be(unsigned cpu);
/* One vCPU less. */
void irq_no_guest(unsigned cpu);

/* A machine with the function as irq_config has it. gsi: -1: none. init's
 * errors. */
int irq_start(bool remapping, u8 pin, int gsi);
/* As a guest's start does it. */
void irq_reset(void);
u32 irq_guest_read(unsigned offset, unsigned size);
void irq_guest_write(unsigned offset, unsigned size, u32 value);
/* In the MSI-X pages; offset in the BAR. */
u64 irq_table_read(u64 offset, unsigned size);
void irq_table_write(u64 offset, unsigned size, u64 value);
/* CPU << 8 | vector that a function's message raises, or -1: blocked. */
int irq_message(u16 source, u64 address, u32 data);
void irq_pin_write(unsigned pin, u64 rte);
void irq_eoi(u8 vector);
/* The guest's clock goes on to now; the next thing that is due. */
void irq_run(u64 now);
u64 irq_due(void);
u64 irq_interrupts(void);
unsigned irq_vectors(void);
unsigned irq_entries(void);
/* Takes all but so many of the host's vectors, which are in a row. */
void irq_leave(unsigned vectors);
/* No remapping entry is left. */
void irq_no_entry(void);

#endif
