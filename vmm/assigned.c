/* SPDX-License-Identifier: MIT */
#include "vmm/assigned.h"

#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "vmm/machine.h"
#include "vmm/machine_map.h"

/* What of BAR i is mapped: all, or what the MSI-X pages leave. */
static unsigned bar_parts(const struct assigned *a, unsigned i,
			  struct bar_part parts[2])
{
	const struct pci_bar *bar = &a->function->bars[i];
	const struct msix *x = &a->msix;
	u64 end = x->page + x->pages_size;
	unsigned n = 0;

	if (!x->host || x->bar != i) {
		parts[0] = (struct bar_part){0, bar->size};
		return 1;
	}
	if (x->page)
		parts[n++] = (struct bar_part){0, x->page};
	if (end < bar->size)
		parts[n++] = (struct bar_part){end, bar->size - end};
	return n;
}

/* A BAR can be given away in whole pages only. */
static bool mappable(const struct pci_bar *bar)
{
	return bar->size && !bar->io && bar->base &&
	       !((bar->base | bar->size) & PAGE_MASK);
}

static struct region part_region(const struct pci_bar *bar, gpa_t gpa,
				 const struct bar_part *part)
{
	return machine_device(gpa + part->offset, bar->base + part->offset,
			      part->size, "BAR");
}

static int pin_bar(struct machine *m, struct assigned *a, unsigned i)
{
	const struct pci_bar *bar = &a->function->bars[i];
	struct bar_part parts[2];
	unsigned count = bar_parts(a, i, parts);
	int err = 0;

	for (unsigned n = 0; !err && n < count; n++) {
		struct region r = part_region(bar, bar->base, &parts[n]);

		err = machine_pin(m, &r);
	}
	/* Not in the E820, whose reserved ranges no BAR may hold. */
	if (!err && a->msix.host && a->msix.bar == i)
		err = machine_pin(
			m, &(struct region){.gpa = bar->base + a->msix.page,
					    .size = a->msix.pages_size,
					    .kind = REGION_HOLE,
					    .name = "MSI-X table"});
	return err;
}

int assigned_pin(struct machine *m)
{
	int err = 0;

	for (unsigned n = 0; n < m->assigned_count; n++) {
		struct assigned *a = &m->assigned[n];

		for (unsigned i = 0; !err && i < 6; i++) {
			const struct pci_bar *bar = &a->function->bars[i];

			if (mappable(bar))
				err = pin_bar(m, a, i);
			else if (bar->size && !bar->io)
				log_warn("%02x:%02x.%x: BAR %u of %lu bytes "
					 "shares its page; it stays closed",
					 BDF_ARGS(a->function->bdf), i,
					 bar->size);
		}
	}
	return err;
}

/* The MSI-X pages follow their BAR: out of the old place, into the new. */
static void move_trap(struct assigned *a, u64 new_gpa, bool enabled)
{
	struct bus *bus = &a->machine->vm.bus;
	struct msix *x = &a->msix;

	if (x->trapped != PCI_BAR_NOWHERE)
		bus_unregister(bus, BUS_MMIO, x->trapped);
	x->trapped = PCI_BAR_NOWHERE;
	if (!enabled)
		return;
	x->trapped = new_gpa + x->page;
	if (bus_register(bus, BUS_MMIO, x->trapped,
			 x->trapped + x->pages_size - 1, assigned_msix_access,
			 a, "MSI-X table"))
		x->trapped = PCI_BAR_NOWHERE;
}

static void map_bar(struct assigned *a, unsigned i, u64 gpa)
{
	struct machine *m = a->machine;
	struct bar_part parts[2];
	unsigned count = bar_parts(a, i, parts);

	for (unsigned n = 0; n < count; n++) {
		struct region r =
			part_region(&a->function->bars[i], gpa, &parts[n]);

		/* Over RAM or another device: unreachable, as deny says. */
		if (region_add(&m->vm.map, &r, NULL) || ept_map(&m->vm.ept, &r))
			log_warn("guest: BAR %u moved to 0x%lx, which is taken",
				 i, gpa);
	}
}

/* Only what is this BAR's: another region may have taken its place. */
static void unmap_bar(struct assigned *a, unsigned i, u64 gpa)
{
	struct machine *m = a->machine;
	const struct pci_bar *bar = &a->function->bars[i];
	struct bar_part parts[2];
	unsigned count = bar_parts(a, i, parts);

	for (unsigned n = 0; n < count; n++) {
		gpa_t at = gpa + parts[n].offset;
		const struct region *r = region_find(&m->vm.map, at);

		if (!r || r->kind != REGION_DEVICE ||
		    r->hpa + (at - r->gpa) != bar->base + parts[n].offset)
			continue;
		region_remove(&m->vm.map, at, parts[n].size);
		ept_unmap(&m->vm.ept, at, parts[n].size);
	}
}

static void bar_changed(void *ctx, unsigned i, u64 old_gpa, u64 new_gpa,
			bool enabled)
{
	struct assigned *a = ctx;
	const struct pci_bar *bar = &a->function->bars[i];

	if (i == PCI_ROM_BAR) {
		assigned_rom_moved(a, old_gpa, new_gpa, enabled);
		return;
	}
	if (bar->io) {
		machine_move_ports(a->machine, bar, old_gpa, new_gpa, enabled);
		return;
	}
	if (!mappable(bar))
		return;
	if (old_gpa != PCI_BAR_NOWHERE)
		unmap_bar(a, i, old_gpa);
	if (enabled)
		map_bar(a, i, new_gpa);
	if (a->msix.host && a->msix.bar == i)
		move_trap(a, new_gpa, enabled);
}

static int init_one(struct machine *m, struct assigned *a)
{
	struct pci_function *f = a->function;
	u8 pin = (u8)pci_config_read(&m->host->pci, f->bdf, PCI_INTERRUPT_PIN,
				     1);
	struct pci_assigned_config config = {
		.host = &m->host->pci,
		.function = f,
		.bar_changed = bar_changed,
		.interrupts_changed = assigned_interrupts_changed,
		.pin = pin >= 1 && pin <= 4 ? pin : 0,
		.rom_size = (u32)a->rom.size,
		.ctx = a,
	};
	int err = 0;

	if (f == m->igd.function)
		config.rows = igd_policy(&m->igd, &config.row_count);
	/* Without a unit its DMA would reach everything: it gets none. */
	if (m->domain || options_unsafe_dma(&m->host->options))
		config.command_forward = PCI_COMMAND_MASTER;
	if (config.pin)
		a->line = vpci_line(f->bdf, config.pin);
	if (m->domain)
		err = vtd_assign(&m->host->vtd, m->domain, f->bdf);
	if (!err)
		err = pci_assigned_init(&a->config, &m->vpci, &config);
	if (!err && config.pin && !a->config.msi && !a->config.msix &&
	    f != m->display_function)
		log_warn("%02x:%02x.%x has no MSI: its interrupts do not "
			 "reach the guest",
			 BDF_ARGS(f->bdf));
	if (!err && a->msix.host)
		move_trap(a, a->config.decoded[a->msix.bar],
			  a->config.decoded[a->msix.bar] != PCI_BAR_NOWHERE);
	return err;
}

int assigned_init(struct machine *m)
{
	int err = 0;

	for (unsigned n = 0; !err && n < m->assigned_count; n++)
		err = init_one(m, &m->assigned[n]);
	return err;
}

/* The guest has every function on its bus: that may be reset. */
static bool owns_bus(const struct machine *m, bdf_t bdf)
{
	const struct pci_host *pci = &m->host->pci;
	unsigned on_it = 0, assigned = 0;

	for (unsigned i = 0; i < pci->count; i++)
		on_it += BDF_BUS(pci->functions[i].bdf) == BDF_BUS(bdf);
	for (unsigned n = 0; n < m->assigned_count; n++)
		assigned +=
			BDF_BUS(m->assigned[n].function->bdf) == BDF_BUS(bdf);
	return on_it == assigned;
}

/* Teardown: bus master off, messages absent, then the devices' resets. */
void assigned_reset_all(struct machine *m, bool display)
{
	const struct pci_host *pci = &m->host->pci;

	for (unsigned n = 0; n < m->assigned_count; n++) {
		struct assigned *a = &m->assigned[n];
		bdf_t bdf = a->function->bdf;
		u32 command = pci_config_read(pci, bdf, PCI_COMMAND, 2);

		pci_config_write(pci, bdf, PCI_COMMAND, 2,
				 command & ~(u32)PCI_COMMAND_MASTER);
		assigned_irq_off(a);
	}
	for (unsigned n = 0; n < m->assigned_count; n++) {
		const struct pci_function *f = m->assigned[n].function;

		if (display || f != m->display_function)
			pci_reset_function(pci, f, owns_bus(m, f->bdf),
					   m->host->tsc_hz);
	}
}

void assigned_take_over(struct machine *m)
{
	for (unsigned n = 0; n < m->assigned_count; n++)
		pci_take_over(&m->host->pci, m->assigned[n].function,
			      m->host->tsc_hz);
}

void assigned_stopped(void *machine, bdf_t bdf)
{
	struct machine *m = machine;

	for (unsigned n = 0; n < m->assigned_count; n++) {
		struct assigned *a = &m->assigned[n];

		if (a->function->bdf != bdf || a->config.stopped)
			continue;
		pci_assigned_stop(&a->config);
		log_warn("guest: %02x:%02x.%x gets no bus mastering before "
			 "the guest's next reset",
			 BDF_ARGS(bdf));
	}
}

/* Each start finds the functions as the first one did: FNV-1a of 32 bits. */
void assigned_log(const struct machine *m)
{
	static const char *const resets[] = {"none", "FLR", "AF", "D3hot",
					     "secondary bus"};
	const struct pci_host *pci = &m->host->pci;

	for (unsigned n = 0; n < m->assigned_count; n++) {
		bdf_t bdf = m->assigned[n].function->bdf;
		unsigned method = pci_reset_method(pci, bdf);
		u32 hash = 2166136261u;

		for (unsigned i = 0; i < 256; i += 4)
			hash = (hash ^ pci_config_read(pci, bdf, i, 4)) *
			       16777619u;
		log_debug("%02x:%02x.%x starts: reset %s, configuration %08x",
			  BDF_ARGS(bdf), resets[method % ARRAY_SIZE(resets)],
			  hash);
	}
}

void assigned_open_ports(struct machine *m)
{
	for (unsigned n = 0; n < m->assigned_count; n++) {
		const struct pci_function *f = m->assigned[n].function;

		for (unsigned i = 0; i < 6; i++)
			if (f->bars[i].io)
				machine_open_range(m, f->bars[i].base,
						   f->bars[i].size, true);
	}
}
