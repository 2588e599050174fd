/* SPDX-License-Identifier: MIT */
#include "tests/unit/irq_fakes.h"

#include <stdlib.h>
#include <string.h>

#include "arch/x86/apic.h"
#include "kernel/host_paging.h"
#include "kernel/percpu.h"
#include "kernel/phys.h"
#include "kernel/traps.h"
#include "tests/unit/assign_fakes.h"
#include "tests/unit/fakes.h"

#define FUNCTION 0x0028 /* 00:05.0 */

u8 irq_config[256];
u8 irq_bar[IRQ_BAR_SIZE];
u64 irq_bar_base = IRQ_BAR;
struct irq_sent irq_sent[IRQ_SENT];
unsigned irq_sent_count;
u64 irq_pins[24];

static struct assignment *all;
static struct vtd *vtd; /* of all; it may be told that there is none */
static struct acpi_madt *madt;
static struct vtd_entry seen[VTD_IRTES]; /* by the IOMMU */
static void *memory;

struct phys host_memory;

/* -- the host */

u32 pci_config_read(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		    unsigned size)
{
	u32 value = 0;

	(void)pci;
	if (bdf != FUNCTION || offset % size || offset + size > 256)
		abort();
	memcpy(&value, irq_config + offset, size);
	return value;
}

void pci_config_write(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		      unsigned size, u32 value)
{
	(void)pci;
	if (bdf != FUNCTION || offset % size || offset + size > 256)
		abort();
	memcpy(irq_config + offset, &value, size);
}

unsigned pci_find_capability(const struct pci_host *pci, bdf_t bdf, u8 id)
{
	unsigned at = irq_config[0x34];

	(void)pci, (void)bdf;
	while (at && irq_config[at] != id)
		at = irq_config[at + 1];
	return at;
}

volatile void *mmio_map(hpa_t hpa, u64 size)
{
	if (hpa == IOAPIC_BASE)
		return irq_pins;
	if (hpa < irq_bar_base || hpa + size > irq_bar_base + IRQ_BAR_SIZE)
		return NULL;
	return irq_bar + (hpa - irq_bar_base);
}

bool irq_no_memory;

hpa_t phys_alloc(struct phys *p, u64 size, u64 align, hpa_t limit)
{
	(void)p, (void)align, (void)limit;
	if (irq_no_memory)
		return PHYS_NONE;
	free(memory);
	memory = malloc(size);
	return (hpa_t)(uintptr_t)memory;
}

void *phys_to_virt(hpa_t hpa)
{
	return (void *)(uintptr_t)hpa;
}

hpa_t virt_to_phys(const void *p)
{
	return (hpa_t)(uintptr_t)p;
}

unsigned ioapic_pins(volatile void *base)
{
	(void)base;
	return ARRAY_SIZE(irq_pins);
}

void ioapic_set_entry(volatile void *base, unsigned pin, u64 entry)
{
	if (base != irq_pins || pin >= ARRAY_SIZE(irq_pins))
		abort();
	irq_pins[pin] = entry;
}

static struct percpu cpus[IRQ_CPUS];
u8 irq_irr[IRQ_CPUS][256];
bool irq_looks[IRQ_CPUS], irq_kicked[IRQ_CPUS];

struct percpu *percpu_at(u32 index)
{
	return index < ARRAY_SIZE(cpus) ? &cpus[index] : NULL;
}

struct percpu *percpu_of_guest(u32 apic_id)
{
	for (unsigned i = 0; i < IRQ_CPUS; i++)
		if (cpus[i].runs_guest && cpus[i].apic_id == apic_id)
			return &cpus[i];
	return NULL;
}

void irq_be(unsigned cpu)
{
	fake_gs_base(&cpus[cpu]);
}

void irq_no_guest(unsigned cpu)
{
	cpus[cpu].runs_guest = false;
}

u32 local_apic_id(void)
{
	return 0;
}

int local_apic_send(u32 apic_id, u32 low)
{
	if (low != (0x4000 | HOST_VECTOR_FREED) || apic_id / 2 >= IRQ_CPUS)
		abort();
	irq_looks[apic_id / 2] = true;
	return 0;
}

void percpu_kick(struct percpu *cpu)
{
	irq_kicked[cpu - cpus] = true;
}

bool local_apic_is_pending(u8 vector)
{
	return irq_irr[percpu()->index][vector];
}

void local_apic_eoi(void)
{
}

/* -- the IOMMU */

bool irq_direct;

bool vtd_has_unit(struct vtd *v, bdf_t bdf)
{
	(void)v, (void)bdf;
	return !irq_direct;
}

void vtd_flush(const void *p, u64 size, bool needed)
{
	(void)p, (void)size, (void)needed;
}

int inv_interrupt(struct vtd_unit *u, int index)
{
	(void)u;
	if (index < 0)
		abort();
	seen[index] = vtd->irt[index];
	return 0;
}

int unit_command(struct vtd_unit *u, u32 bit, bool on)
{
	(void)u, (void)bit, (void)on;
	abort();
}

unsigned pci_requesters(const struct pci_host *pci, bdf_t bdf,
			bdf_t out[PCI_REQUESTERS_MAX])
{
	(void)pci;
	out[0] = bdf;
	return 1;
}

int dmar_ioapic_source(const struct dmar_table *t, struct pci_host *pci, u8 id,
		       bdf_t *source, u64 *unit)
{
	(void)t, (void)pci, (void)id;
	*source = 0xf0ff;
	*unit = 0;
	return 0;
}

static int arrival(u64 apic_id, u64 vector)
{
	if (apic_id / 2 >= IRQ_CPUS || apic_id % 2)
		return -1;
	return (int)(apic_id / 2 << 8 | vector);
}

/* VT-d 5.1.3, 9.10 */
int irq_message(u16 source, u64 address, u32 data)
{
	u64 index = address >> 5 & 0x7fff;

	if (address >> 20 != 0xfee)
		return -1;
	if (!vtd->remapping || irq_direct)
		return arrival(address >> 12 & 0xff, data & 0xff);
	index += address & 8 ? data & 0xffff : 0;
	/* Of a level, or not as "fixed": not what a message is (9.10) */
	if (!(address & 16) || index >= VTD_IRTES ||
	    (seen[index].lo & 0xf1) != 1 || (seen[index].hi >> 18 & 3) != 1 ||
	    (u16)seen[index].hi != source)
		return -1;
	return arrival(seen[index].lo >> 40 & 0xff,
		       seen[index].lo >> 16 & 0xff);
}

/* -- the guest */

static void sent(u64 address, u32 data)
{
	if (irq_sent_count < IRQ_SENT)
		irq_sent[irq_sent_count++] = (struct irq_sent){address, data};
}

static void send_msi(void *ctx, u64 address, u32 data)
{
	(void)ctx;
	sent(address, data);
}

static u32 msi_target(void *ctx, u64 address, u32 data)
{
	(void)ctx, (void)data;
	return (u32)(address >> 12) % IRQ_CPUS * 2;
}

bool apic_bus_send(struct apic_bus *apics, const struct apic_message *m,
		   const struct lapic *except)
{
	(void)apics, (void)except;
	sent(0, m->vector);
	return true;
}

u32 apic_bus_target(const struct apic_bus *apics, const struct apic_message *m)
{
	(void)apics;
	return m->dest; /* as it is */
}

static void handler(void *ctx, unsigned vector)
{
	(void)ctx, (void)vector;
}

/* By all, where no CPU has it for its own. */
static bool is_taken(unsigned vector)
{
	u8 taken[256] = {0};
	int got;

	while ((got = host_irq_alloc(handler, NULL)) >= 0)
		taken[got] = 1;
	for (unsigned n = HOST_VECTOR_FIRST; n < HOST_VECTOR_FREED; n++)
		if (taken[n])
			host_irq_free(NULL, n);
	return !taken[vector];
}

unsigned irq_vectors(void)
{
	unsigned count = 0;

	for (unsigned n = HOST_VECTOR_FIRST; n < HOST_VECTOR_FREED; n++) {
		bool own = false;

		for (unsigned i = 0; i < IRQ_CPUS; i++) {
			count += cpus[i].irqs[n].handler != NULL;
			own |= cpus[i].irqs[n].handler != NULL;
		}
		count += !own && is_taken(n);
	}
	return count;
}

void irq_leave(unsigned vectors)
{
	u8 taken[256] = {0};
	unsigned first = 0x40; /* where 32 in a row begin */
	int got;

	while ((got = host_irq_alloc(handler, NULL)) >= 0)
		taken[got] = 1;
	for (unsigned n = first; n < first + vectors; n++)
		if (taken[n])
			host_irq_free(NULL, n);
}

void irq_no_entry(void)
{
	for (unsigned i = 0; i < VTD_IRTES; i++)
		vtd->irtes[i].used = true;
}

unsigned irq_entries(void)
{
	unsigned count = 0;

	for (unsigned i = 0; i < VTD_IRTES; i++)
		count += vtd->irtes[i].used || seen[i].lo & 1;
	return count;
}

static struct assigned *function(void)
{
	return all->functions;
}

static void make_cpus(void)
{
	static struct host_irq irqs[ARRAY_SIZE(cpus)][256];

	memset(cpus, 0, sizeof(cpus));
	memset(irq_irr, 0, sizeof(irq_irr));
	memset(irq_looks, 0, sizeof(irq_looks));
	memset(irq_kicked, 0, sizeof(irq_kicked));
	for (unsigned i = 0; i < ARRAY_SIZE(cpus); i++) {
		cpus[i].self = &cpus[i];
		cpus[i].index = i;
		cpus[i].apic_id = 2 * i;
		cpus[i].irqs = irqs[i];
		cpus[i].runs_guest = true;
		irq_be(i);
		for (unsigned n = 0; n < 256; n++)
			if (irqs[i][n].handler)
				host_irq_free(&cpus[i], n);
	}
	irq_be(0);
}

static void make_guest(bool remapping)
{
	static struct pci_function f;
	static struct vtd_entry irt[VTD_IRTES];
	static struct apic_bus apics;
	static const struct virq virq = {.send_msi = send_msi,
					 .msi_target = msi_target};

	all = empty_assignment();
	vtd = all->vtd;
	madt = (struct acpi_madt *)all->madt;
	memset(irt, 0, sizeof(irt));
	all->tsc_hz = 1000000000;
	madt->ioapic_count = 1;
	madt->ioapics[0].address = (u32)IOAPIC_BASE;
	vtd->remapping = remapping;
	vtd->unit_count = 1;
	vtd->irt = irt;
	if (!remapping)
		all->vtd = NULL;
	all->virq = &virq;
	f = (struct pci_function){
		.bdf = FUNCTION,
		.bars[0] = {.base = irq_bar_base, .size = IRQ_BAR_SIZE}};
	vclock_init(&all->vm->clock, all->tsc_hz);
	vclock_add(&all->vm->clock, &all->timer, assigned_timer_fired, all);
	all->count = 1;
	*function() = (struct assigned){.all = all, .function = &f, .line = 17};
	ioapic_init(all->ioapic, &all->vm->bus, &apics, 1);
}

int irq_start(bool remapping, u8 pin, int gsi)
{
	struct pci_assigned_config config = {
		.interrupts_changed = assigned_interrupts_changed,
		.command_forward = PCI_COMMAND_MASTER,
		.pin = pin,
	};
	struct assigned *a;
	int err;

	for (unsigned n = HOST_VECTOR_FIRST; n < HOST_VECTOR_FREED; n++)
		host_irq_free(NULL, n);
	make_cpus();
	memset(seen, 0, sizeof(seen));
	irq_sent_count = 0;
	make_guest(remapping);
	a = function();
	a->has_gsi = gsi >= 0;
	a->gsi = (u32)gsi;
	all->ioapic->ended = assigned_line_eoi;
	all->ioapic->routed = assigned_pin_routed;
	all->ioapic->ctx = all;
	config.host = all->pci;
	config.function = a->function;
	config.ctx = a;
	err = assigned_irq_init(a, all->pci);
	config.no_msix = !a->msix.host;
	if (!err)
		err = pci_assigned_init(&a->config, all->vpci, &config);
	err = err ? err : assigned_line_init(a);
	a->msix.trapped = IRQ_BAR + a->msix.page;
	if (!err)
		irq_reset();
	return err;
}

void irq_reset(void)
{
	assigned_irq_reset(function());
	vpci_reset(all->vpci);
	ioapic_reset(all->ioapic);
}

u32 irq_guest_read(unsigned offset, unsigned size)
{
	return vpci_read(all->vpci, FUNCTION, offset, size);
}

void irq_guest_write(unsigned offset, unsigned size, u32 value)
{
	vpci_write(all->vpci, FUNCTION, offset, size, value);
}

static u64 table(u64 offset, unsigned size, bool write, u64 value)
{
	struct bus_access access = {
		.addr = IRQ_BAR + offset,
		.size = size,
		.write = write,
		.value = value,
	};

	assigned_msix_access(function(), &access);
	return access.value;
}

u64 irq_table_read(u64 offset, unsigned size)
{
	return table(offset, size, false, 0xdeadbeefdeadbeef);
}

void irq_table_write(u64 offset, unsigned size, u64 value)
{
	table(offset, size, true, value);
}

static void mmio(gpa_t addr, u64 value)
{
	struct bus_access access = {
		.addr = addr, .size = 4, .write = true, .value = value};

	bus_dispatch(&all->vm->bus, BUS_MMIO, &access);
}

void irq_pin_write(unsigned pin, u64 rte)
{
	mmio(IOAPIC_BASE, 0x11 + 2 * pin);
	mmio(IOAPIC_BASE + 0x10, rte >> 32);
	mmio(IOAPIC_BASE, 0x10 + 2 * pin);
	mmio(IOAPIC_BASE + 0x10, (u32)rte);
}

void irq_run(u64 now)
{
	vclock_run(&all->vm->clock, now);
}

u64 irq_due(void)
{
	return all->vm->clock.next;
}

u64 irq_interrupts(void)
{
	return function()->stats.interrupts;
}

void irq_eoi(u8 vector)
{
	ioapic_eoi(all->ioapic, vector);
}
