/* SPDX-License-Identifier: MIT */
#include "kernel/host_irq.h"

#include "arch/x86/apic.h"
#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"

enum {
	PIC_MASTER_MASK = 0x21,
	PIC_SLAVE_MASK = 0xa1,
	WINDOW = 0x20, /* bytes of IOREGSEL and IOWIN */
	INTI_ACTIVE_LOW = 3,
	INTI_LEVEL = 3 << 2,
};

static void mask_all(volatile void *base)
{
	unsigned pins = ioapic_pins(base);

	for (unsigned pin = 0; pin < MIN(pins, 240u); pin++)
		ioapic_set_entry(base, pin, IOAPIC_MASKED);
}

void host_irq_init(const struct acpi_madt *madt)
{
	outb(PIC_MASTER_MASK, 0xff);
	outb(PIC_SLAVE_MASK, 0xff);
	for (unsigned i = 0; i < madt->ioapic_count; i++) {
		volatile void *base =
			mmio_map(madt->ioapics[i].address, WINDOW);

		if (base)
			mask_all(base);
		else
			log_warn("IOAPIC %u at 0x%x cannot be mapped",
				 madt->ioapics[i].id, madt->ioapics[i].address);
	}
}

/* Where an ISA line arrives (ACPI 5.2.12.5). */
static struct acpi_override find_override(const struct acpi_madt *madt, u8 irq)
{
	for (unsigned i = 0; i < madt->override_count; i++)
		if (madt->overrides[i].irq == irq)
			return madt->overrides[i];
	return (struct acpi_override){.irq = irq, .gsi = irq};
}

static volatile void *find_pin(const struct acpi_madt *madt, u32 gsi,
			       unsigned *pin)
{
	for (unsigned i = 0; i < madt->ioapic_count; i++) {
		volatile void *base =
			mmio_map(madt->ioapics[i].address, WINDOW);

		*pin = gsi - madt->ioapics[i].gsi_base;
		if (base && gsi >= madt->ioapics[i].gsi_base &&
		    *pin < ioapic_pins(base))
			return base;
	}
	return NULL;
}

int host_irq_route(const struct acpi_madt *madt, u8 irq, u8 vector)
{
	struct acpi_override o = find_override(madt, irq);
	u64 entry = vector | (u64)(local_apic_id() & 0xff) << 56;
	unsigned pin;
	volatile void *base = find_pin(madt, o.gsi, &pin);

	if (!base)
		return -ENODEV;
	if ((o.flags & INTI_ACTIVE_LOW) == INTI_ACTIVE_LOW)
		entry |= IOAPIC_ACTIVE_LOW;
	if ((o.flags & INTI_LEVEL) == INTI_LEVEL)
		entry |= IOAPIC_LEVEL;
	ioapic_set_entry(base, pin, entry);
	return 0;
}

void host_irq_mask(const struct acpi_madt *madt, u8 irq)
{
	unsigned pin;
	volatile void *base =
		find_pin(madt, find_override(madt, irq).gsi, &pin);

	if (base)
		ioapic_set_entry(base, pin, IOAPIC_MASKED);
}
