/* SPDX-License-Identifier: MIT */
/*
 * The host's interrupt controllers: 8259s masked, every IOAPIC pin masked,
 * then single ISA lines routed to a vector.
 */
#ifndef KERNEL_HOST_IRQ_H
#define KERNEL_HOST_IRQ_H

#include "kernel/acpi.h"

/* Masks all. IOAPICs beyond reach are logged and left as they are. */
void host_irq_init(const struct acpi_madt *madt);

struct host_irq_pin {
	u8 ioapic_id;
	u8 vector;
	u32 apic_id;
	bool level, active_low;
	u64 entry; /* that it has, for another CPU so far; 0: none yet */
};

/*
 * Where interrupts are remapped, a redirection entry names an entry of the
 * remapping table: this composes it. 0: it cannot, the pin stays masked;
 * HOST_IRQ_PLAIN: this IOAPIC's are not remapped. Without a call of it entries
 * are in compatibility format.
 */
#define HOST_IRQ_PLAIN (~0ull)

void host_irq_remap(u64 (*compose)(void *ctx, const struct host_irq_pin *pin),
		    void *ctx);
/*
 * Routes ISA line irq, where the MADT says it goes, as a fixed interrupt to
 * this CPU. -ENODEV: no IOAPIC has that pin.
 */
int host_irq_route(const struct acpi_madt *madt, u8 irq, u8 vector);

/* A line that is masked and opened again and again. */
struct host_irq_line {
	volatile void *ioapic;
	unsigned pin;
	struct host_irq_pin as;
};

/* Where an ISA line arrives: a global system interrupt. */
u32 host_irq_gsi(const struct acpi_madt *madt, u8 irq);
bool host_irq_has_gsi(const struct acpi_madt *madt, u32 gsi);
/* Routes a PCI line (level, active low), masked. -ENODEV: as above. */
int host_irq_line(const struct acpi_madt *madt, u32 gsi, u8 vector,
		  struct host_irq_line *line);
/* To another CPU, from host_irq_line_mask()'s next call at the latest. -ENODEV:
 * it cannot; all is as it was. The vector has to be the same there. */
int host_irq_line_aim(struct host_irq_line *line, u32 apic_id);
void host_irq_line_mask(const struct host_irq_line *line, bool masked);

#endif
