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
			       unsigned *pin, u8 *id)
{
	for (unsigned i = 0; i < madt->ioapic_count; i++) {
		volatile void *base =
			mmio_map(madt->ioapics[i].address, WINDOW);

		*pin = gsi - madt->ioapics[i].gsi_base;
		*id = madt->ioapics[i].id;
		if (base && gsi >= madt->ioapics[i].gsi_base &&
		    *pin < ioapic_pins(base))
			return base;
	}
	return NULL;
}

static u64 (*remap)(void *ctx, const struct host_irq_pin *pin);
static void *remap_ctx;

void host_irq_remap(u64 (*compose)(void *ctx, const struct host_irq_pin *pin),
		    void *ctx)
{
	remap = compose;
	remap_ctx = ctx;
}

/* 82093AA 3.2.4: physical destination, fixed delivery. */
static u64 compatible_entry(const struct host_irq_pin *pin)
{
	return pin->vector | (pin->active_low ? IOAPIC_ACTIVE_LOW : 0) |
	       (pin->level ? IOAPIC_LEVEL : 0) | (u64)pin->apic_id << 56;
}

int host_irq_line_aim(struct host_irq_line *line, u32 apic_id)
{
	struct host_irq_pin *p = &line->as;
	u64 entry;

	p->apic_id = apic_id;
	entry = remap ? remap(remap_ctx, p) : HOST_IRQ_PLAIN;
	if (entry == HOST_IRQ_PLAIN)
		entry = compatible_entry(p);
	if (!entry)
		return -ENODEV;
	p->entry = entry;
	return 0;
}

static int route(const struct acpi_madt *madt, u32 gsi,
		 struct host_irq_line *line, bool masked)
{
	int err;

	line->ioapic = find_pin(madt, gsi, &line->pin, &line->as.ioapic_id);
	if (!line->ioapic)
		return -ENODEV;
	err = host_irq_line_aim(line, local_apic_id());
	if (!err)
		host_irq_line_mask(line, masked);
	return err;
}

int host_irq_route(const struct acpi_madt *madt, u8 irq, u8 vector)
{
	struct acpi_override o = find_override(madt, irq);
	struct host_irq_line line = {.as.vector = vector};

	line.as.level = (o.flags & INTI_LEVEL) == INTI_LEVEL;
	line.as.active_low = (o.flags & INTI_ACTIVE_LOW) == INTI_ACTIVE_LOW;
	return route(madt, o.gsi, &line, false);
}

int host_irq_line(const struct acpi_madt *madt, u32 gsi, u8 vector,
		  struct host_irq_line *line)
{
	line->as = (struct host_irq_pin){
		.vector = vector, .level = true, .active_low = true};
	return route(madt, gsi, line, true);
}

void host_irq_line_mask(const struct host_irq_line *line, bool masked)
{
	ioapic_set_entry(line->ioapic, line->pin,
			 line->as.entry | (masked ? IOAPIC_MASKED : 0));
}

u32 host_irq_gsi(const struct acpi_madt *madt, u8 irq)
{
	return find_override(madt, irq).gsi;
}

bool host_irq_has_gsi(const struct acpi_madt *madt, u32 gsi)
{
	unsigned pin;
	u8 id;

	return find_pin(madt, gsi, &pin, &id);
}
