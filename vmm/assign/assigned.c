/* SPDX-License-Identifier: MIT */
#include "vmm/assign/assigned.h"

#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "kernel/log.h"
#include "vmm/assign/assign_word.h"

/* Each bridge on the way rotates the pins (PCI-to-PCI bridges 1.2, 9.1). */
static unsigned line_of(const struct pci_host *pci, bdf_t bdf, unsigned pin)
{
	const struct pci_function *above;

	while ((above = pci_bridge_above(pci, bdf))) {
		pin = (BDF_DEV(bdf) + pin - 1) % 4 + 1;
		bdf = above->bdf;
	}
	return vpci_line(bdf, pin);
}

/*
 * Firmware may have left decoders off that no driver of its own needed; the
 * guest's are in the EPT. Not where a BAR has no address.
 */
static void decode(const struct pci_host *pci, const struct pci_function *f)
{
	u32 old = pci_config_read(pci, f->bdf, PCI_COMMAND, 2), on = 0, off = 0;

	for (unsigned i = 0; i < 6; i++) {
		const struct pci_bar *bar = &f->bars[i];
		u32 bit = bar->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;

		if (bar->size && bar->base)
			on |= bit;
		else if (bar->size)
			off |= bit;
	}
	on &= ~(off | old);
	if (on)
		pci_config_write(pci, f->bdf, PCI_COMMAND, 2, old | on);
}

/*
 * The guest goes on meanwhile, and asks by itself whether it is over: PCIe
 * 6.6.2 forbids to look before 100 ms, and gives it a second more.
 */
static bool guest_reset(void *assigned, bool begin)
{
	struct assigned *a = assigned;
	struct assignment *all = a->all;
	const struct pci_function *f = a->function;
	u64 now;

	if (begin) {
		assigned_msix_reset(a);
		/* At once, as hardware does: who asks has waited for what was
		 * pending, and the devices' lock is not held for long. */
		pci_reset_begin(all->pci, f, a->config.config.reset_method);
		a->ready = rdtsc() + all->tsc_hz / 10;
		return false;
	}
	now = rdtsc();
	if (now < a->ready || (pci_reset_finish(all->pci, f->saved) &&
			       now < a->ready + all->tsc_hz))
		return false;
	pci_route_usb_ports(all->pci, f);
	/* The reset may have switched it off. */
	if (all->domain)
		pci_acs_enable(all->pci);
	return true;
}

static int init_one(struct assignment *all, struct assigned *a)
{
	struct pci_function *f = a->function;
	u8 pin = (u8)pci_config_read(all->pci, f->bdf, PCI_INTERRUPT_PIN, 1);
	struct pci_assigned_config config = {
		.host = all->pci,
		.function = f,
		.bar_changed = assigned_bar_changed,
		.interrupts_changed = assigned_interrupts_changed,
		.reset = guest_reset,
		.reset_method = pci_reset_method(all->pci, f->bdf),
		.no_msix = !a->msix.host,
		.cold = all->cold,
		.pin = pin >= 1 && pin <= 4 ? pin : 0,
		.rom_size = (u32)a->rom.size,
		.ctx = a,
	};
	bool direct = assigned_is_direct(all, f);
	int err = 0;

	if (f == all->igd.function)
		config.rows = igd_policy(&all->igd, &config.row_count);
	/* Without a unit its DMA would reach everything: it gets none. */
	if (all->domain || direct || options_unsafe_dma(all->options))
		config.command_forward = PCI_COMMAND_MASTER;
	/* Firmware's picture may be scanned out of memory. */
	if (f == all->display)
		config.command_kept = config.command_forward;
	if (config.pin)
		a->line = line_of(all->pci, f->bdf, config.pin);
	if (all->domain && !direct)
		err = vtd_assign(all->vtd, all->domain, f->bdf);
	if (!err)
		err = pci_assigned_init(&a->config, all->vpci, &config);
	if (!err)
		decode(all->pci, f);
	if (!err)
		err = assigned_line_init(a);
	return err;
}

/* By firmware, or by the log. */
static bool is_in_use(const struct pci_function *f)
{
	return !assign_is_ordinary(f) || f->class >> 8 == 3 || f->left;
}

/*
 * What is beside an assigned function and Monocle's: no requests, no INTx,
 * and where neither firmware nor the log needs it, no registers, asleep.
 */
static void put_to_rest(struct assignment *all)
{
	const struct pci_host *pci = all->pci;

	for (unsigned i = 0; all->domain && i < pci->count; i++) {
		const struct pci_function *f = &pci->functions[i];
		bool needed = is_in_use(f);
		u32 command;

		if (!assigned_is_beside(all, f) || f->left)
			continue;
		command = pci_config_read(pci, f->bdf, PCI_COMMAND, 2) &
			  ~(u32)PCI_COMMAND_MASTER;
		if (!needed)
			command &= ~(u32)(PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
		pci_config_write(pci, f->bdf, PCI_COMMAND, 2,
				 command | PCI_COMMAND_INTX_DISABLE);
		if (!needed)
			pci_sleep(pci, f->bdf);
	}
}

int assigned_init(struct assignment *all)
{
	int err = vclock_add(&all->vm->clock, &all->timer, assigned_timer_fired,
			     all);

	all->vm->device_stats = assigned_stats;
	all->vm->device_ctx = all;
	all->ioapic->ended = assigned_line_eoi;
	all->ioapic->routed = assigned_pin_routed;
	all->ioapic->ctx = all;
	for (unsigned n = 0; !err && n < all->port_count; n++)
		err = pci_port_init(&all->ports[n], all->vpci, all->pci,
				    all->ports[n].function, all->cold);
	for (unsigned n = 0; !err && n < all->count; n++)
		err = init_one(all, &all->functions[n]);
	if (!err)
		assigned_place_bars(all);
	put_to_rest(all);
	return err;
}

/*
 * Nobody else has a function on its bus: that may be reset. Not where the
 * display is that keeps its picture.
 */
static bool owns_bus(const struct assignment *all, bdf_t bdf, bool display)
{
	const struct pci_host *pci = all->pci;
	const struct pci_function *kept = display ? NULL : all->display;
	unsigned others = kept && BDF_BUS(kept->bdf) == BDF_BUS(bdf);

	for (unsigned i = 0; i < pci->count; i++) {
		const struct pci_function *f = &pci->functions[i];

		others += BDF_BUS(f->bdf) == BDF_BUS(bdf) &&
			  !(assigned_is_beside(all, f) && !is_in_use(f));
	}
	for (unsigned n = 0; n < all->count; n++)
		others -= BDF_BUS(all->functions[n].function->bdf) ==
			  BDF_BUS(bdf);
	return !others;
}

/*
 * Teardown: bus master off, messages absent, then the devices' resets. What
 * firmware had set up comes back, whatever the last life has made of it:
 * many devices have ways around their configuration space.
 */
void assigned_reset_all(struct assignment *all, bool display)
{
	struct pci_host *pci = all->pci;

	for (unsigned n = 0; n < all->count; n++) {
		struct assigned *a = &all->functions[n];
		bdf_t bdf = a->function->bdf;
		u32 command;

		while (pci_assigned_is_away(&a->config))
			cpu_relax();
		command = pci_config_read(pci, bdf, PCI_COMMAND, 2) &
			  ~(u32)PCI_COMMAND_MASTER;
		if (!display && a->function == all->display)
			command |=
				a->config.initial_command & PCI_COMMAND_MASTER;
		pci_config_write(pci, bdf, PCI_COMMAND, 2, command);
		assigned_irq_reset(a);
		assigned_stats_reset(a);
		if (!a->function->saved)
			pci_save(pci, a->function, &a->saved);
		a->function->saved = &a->saved;
	}
	for (unsigned n = 0; n < all->count; n++) {
		const struct pci_function *f = all->functions[n].function;

		if (display || f != all->display)
			pci_reset_function(pci, f,
					   owns_bus(all, f->bdf, display),
					   all->tsc_hz);
		pci_route_usb_ports(pci, f);
	}
	/* A reset may have switched it off. */
	if (all->domain)
		pci_acs_enable(pci);
	put_to_rest(all);
}

void assigned_take_over(struct assignment *all)
{
	struct pci_host *pci = all->pci;
	u32 wake, ack;

	for (unsigned n = 0; n < all->count; n++) {
		struct pci_function *f = all->functions[n].function;

		pci_wake(pci, f, all->tsc_hz);
		pci_take_over(pci, f, all->tsc_hz);
	}
	if (all->igd.function && (wake = igd_forcewake(&all->igd, &ack)))
		pci_save_graphics(pci, all->igd.function, wake, ack,
				  all->tsc_hz);
	/* The others lose their DMA now: firmware must not miss it. */
	for (unsigned i = 0; all->vtd && i < pci->count; i++) {
		struct pci_function *f = &pci->functions[i];

		if (f->class != PCI_CLASS_USB || f->taken_over || f->left)
			continue;
		pci_size_bars(pci, f);
		pci_take_over(pci, f, all->tsc_hz);
	}
}

void assigned_stopped(void *assignment, bdf_t bdf)
{
	struct assignment *all = assignment;

	for (unsigned n = 0; n < all->count; n++) {
		struct assigned *a = &all->functions[n];

		if (a->function->bdf != bdf || a->config.stopped)
			continue;
		pci_assigned_stop(&a->config);
		log_warn("guest: %02x:%02x.%x gets no bus mastering before "
			 "the guest's next reset",
			 BDF_ARGS(bdf));
	}
}

/* Each start finds the functions as the first one did: FNV-1a of 32 bits. */
void assigned_log(const struct assignment *all)
{
	const struct pci_host *pci = all->pci;

	for (unsigned n = 0; n < all->count; n++) {
		bdf_t bdf = all->functions[n].function->bdf;
		u32 hash = 2166136261u;

		for (unsigned i = 0; i < 256; i += 4)
			hash = (hash ^ pci_config_read(pci, bdf, i, 4)) *
			       16777619u;
		log_debug("%02x:%02x.%x starts: reset %s, configuration %08x",
			  BDF_ARGS(bdf),
			  pci_reset_name(pci_reset_method(pci, bdf)), hash);
	}
}
