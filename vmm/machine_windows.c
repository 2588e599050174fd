/* SPDX-License-Identifier: MIT */
/*
 * The guest's PCI roots, and which addresses and ports each of them passes on
 * (ACPI 6.4, 6.4.3.5): no two the same. A root other than bus 0's gets what
 * lies behind it, from one BAR to the next where no other root's is between;
 * bus 0's gets all else.
 */
#include "vmm/machine_map.h"

#include "arch/x86/errno.h"
#include "kernel/log.h"

/* [base, end): what a root needs. */
struct run {
	u64 base, end;
	unsigned root;
};

enum { BARS = 6, WINDOWS = 3, VGA = BARS + WINDOWS, CLAIMS };

/* Function or bridge i that the guest finds, or NULL: there are no more. */
static const struct pci_function *shown(const struct machine *m, unsigned i)
{
	const struct assignment *all = &m->assign;

	return i < all->count ? all->functions[i].function
	       : i < all->count + all->port_count
		       ? all->ports[i - all->count].function
		       : NULL;
}

static bool is_bridge(const struct machine *m, unsigned i)
{
	return i >= m->assign.count;
}

/* Of a bus that may be a root; without devices it is none for the guest. */
static struct guest_acpi_root root_at(const struct machine *m, unsigned bus)
{
	struct guest_acpi_root r = {(u8)bus, (u8)bus, 0};
	const struct pci_function *f;

	for (unsigned i = 0; (f = shown(m, i)); i++) {
		const struct pci_host *pci = &m->host->pci;
		bdf_t top = pci_on_root(pci, f->bdf);
		u32 last = BDF_BUS(f->bdf);

		if (BDF_BUS(top) != bus)
			continue;
		if (is_bridge(m, i))
			last = MAX(last,
				   pci_config_read(pci, f->bdf,
						   PCI_SUBORDINATE_BUS, 1));
		r.devices |= (u32)BIT(BDF_DEV(top));
		r.last_bus = (u8)MAX(r.last_bus, last);
	}
	return r;
}

/* Firmware may have given a bridge bus numbers that are another root's. */
static void end_before(struct guest_acpi_root *r, unsigned bus)
{
	r->last_bus = (u8)MIN(r->last_bus, bus - 1);
}

int machine_roots(struct machine *m)
{
	m->root_count = 0;
	for (unsigned bus = 0; bus < 256; bus++) {
		struct guest_acpi_root r = root_at(m, bus);

		if (bus == 0)
			r.devices = ~0u;
		if (!r.devices)
			continue;
		if (m->root_count == GUEST_ACPI_ROOTS) {
			log_error("assign: what is assigned is on more than "
				  "%u root buses; leave some out with "
				  "assign=all,-BB:DD.F",
				  GUEST_ACPI_ROOTS);
			return -ENOTSUP;
		}
		if (bus)
			end_before(&m->roots[m->root_count - 1], bus);
		m->roots[m->root_count++] = r;
	}
	/* It numbers the buses behind them as it likes. */
	for (unsigned n = 0; m->firmware.image && n < m->root_count; n++)
		m->roots[n].last_bus = n + 1 < m->root_count
					       ? (u8)(m->roots[n + 1].bus - 1)
					       : 255;
	return 0;
}

/* The guest's firmware has moved it; 0: it is nowhere. */
static u64 bar_base(const struct machine *m, unsigned i, unsigned n)
{
	u64 at = m->assign.functions[i].config.decoded[n];

	if (!m->assign.cold)
		return shown(m, i)->bars[n].base;
	return at == PCI_BAR_NOWHERE ? 0 : at;
}

/* Claim n of CLAIMS that function i has to addresses, or to ports. */
static bool claim(const struct machine *m, unsigned i, unsigned n, bool ports,
		  struct run *r)
{
	const struct pci_function *f = shown(m, i);
	const struct pci_host *pci = &m->host->pci;

	if (n == VGA && m->assign.vga && f == m->assign.display) {
		r->base = ports ? 0x3b0 : 0xa0000;
		r->end = ports ? 0x3e0 : 0xc0000;
	} else if (n < BARS && !is_bridge(m, i) && f->bars[n].io == ports) {
		r->base = bar_base(m, i, n);
		r->end = r->base + f->bars[n].size;
	} else if (n < BARS || n >= VGA || !is_bridge(m, i) ||
		   ports != (n - BARS == PCI_PORT_IO) ||
		   !pci_port_window(&m->assign.ports[i - m->assign.count],
				    n - BARS, &r->base, &r->end)) {
		return false;
	}
	for (r->root = 0;
	     m->roots[r->root].bus != BDF_BUS(pci_on_root(pci, f->bdf));)
		r->root++;
	return r->base && r->base < r->end;
}

/* The lowest claim of those that reach into [at, end). */
static bool next_claim(const struct machine *m, u64 at, u64 end, bool ports,
		       struct run *next)
{
	struct run r;

	next->base = end;
	for (unsigned i = 0; shown(m, i); i++)
		for (unsigned n = 0; n < CLAIMS; n++)
			if (claim(m, i, n, ports, &r) && r.end > at &&
			    r.base < next->base)
				*next = r;
	return next->base != end;
}

bool machine_has_ports(const struct machine *m, u64 at, u64 end)
{
	struct run r;

	/* A BAR that firmware has not placed yet may come to the host's. */
	for (unsigned i = 0; i < m->assign.count * BARS; i++) {
		const struct pci_bar *bar = &shown(m, i / BARS)->bars[i % BARS];

		if (bar->io && bar->base < end && at < bar->base + bar->size)
			return true;
	}
	return next_claim(m, at, end, true, &r);
}

/* From there on: a root's claims up to another one's. */
static bool next_run(const struct machine *m, u64 at, u64 end, bool ports,
		     struct run *run)
{
	struct run more;

	if (at >= end || !next_claim(m, at, end, ports, run))
		return false;
	while (next_claim(m, run->end, end, ports, &more) &&
	       more.root == run->root)
		run->end = more.end;
	run->base = MAX(run->base, at);
	run->end = MIN(run->end, end);
	return true;
}

static void add(struct guest_acpi_config *cfg, struct run r, bool ports)
{
	struct guest_acpi_window *w = &cfg->windows[cfg->window_count];

	if (r.base >= r.end)
		return;
	if (cfg->window_count && w[-1].ports == ports && w[-1].root == r.root &&
	    w[-1].base + w[-1].size == r.base)
		w[-1].size += r.end - r.base;
	else if (cfg->window_count == GUEST_ACPI_WINDOWS)
		log_warn("the guest's PCI windows are too many: 0x%lx-0x%lx "
			 "is in none",
			 r.base, r.end - 1);
	else
		cfg->windows[cfg->window_count++] = (struct guest_acpi_window){
			r.base, r.end - r.base, ports, (u8)r.root};
}

/* Shares out all of [at, end). */
static void share(const struct machine *m, struct guest_acpi_config *cfg,
		  u64 at, u64 end, bool ports)
{
	struct run r;

	for (; next_run(m, at, end, ports, &r); at = r.end) {
		add(cfg, (struct run){at, r.base, 0}, ports);
		add(cfg, r, ports);
	}
	add(cfg, (struct run){at, end, 0}, ports);
}

hpa_t machine_low_limit(const struct machine *m)
{
	const struct boot_info *b = &m->host->boot;
	hpa_t end = MIB;

	for (unsigned i = 0; i < b->memory_count; i++) {
		hpa_t top = b->memory[i].base + b->memory[i].size;

		if (b->memory[i].kind == MEMORY_AVAILABLE && top <= 4 * GIB)
			end = MAX(end, top);
	}
	end = ALIGN_DOWN(end, PAGE_SIZE);
	return m->firmware.image ? firmware_low_end(&m->vm.map, end) : end;
}

/* ECAM may be where the guest's firmware has moved it. */
static void share_but_ecam(const struct machine *m,
			   struct guest_acpi_config *cfg, u64 at, u64 end)
{
	u64 size = (m->roots[m->root_count - 1].last_bus + 1) * MIB;

	if (m->ecam >= at && m->ecam + size <= end) {
		share(m, cfg, at, m->ecam, false);
		at = m->ecam + size;
	}
	share(m, cfg, at, end, false);
}

/* Memory of the graphics and ECAM lie among the BARs, and are none. */
static void share_below_4_gib(const struct machine *m,
			      struct guest_acpi_config *cfg)
{
	gpa_t at = machine_low_limit(m);

	for (unsigned i = 0; i < m->vm.map.count; i++) {
		const struct region *r = &m->vm.map.regions[i];

		if (r->kind == REGION_RAM || r->kind == REGION_ROM ||
		    r->e820 == E820_NONE || r->gpa + r->size <= at ||
		    r->gpa >= GUEST_IOAPIC)
			continue;
		share_but_ecam(m, cfg, at, r->gpa);
		at = r->gpa + r->size;
	}
	share_but_ecam(m, cfg, at, GUEST_IOAPIC);
}

/* Where RAM above 4 GiB ends. */
static gpa_t high_end(const struct machine *m)
{
	gpa_t end = 4 * GIB;

	for (unsigned i = 0; i < m->vm.map.count; i++)
		if (m->vm.map.regions[i].kind == REGION_RAM)
			end = MAX(end, m->vm.map.regions[i].gpa +
					       m->vm.map.regions[i].size);
	return end;
}

void machine_windows(const struct machine *m, struct guest_acpi_config *cfg)
{
	struct run r = {.end = 4 * GIB};

	share(m, cfg, 0, VPCI_ADDRESS_PORT, true);
	share(m, cfg, VPCI_ADDRESS_PORT + 8, 0x10000, true);
	share(m, cfg, 0xa0000, 0xc0000, false);
	share_below_4_gib(m, cfg);
	/* Firmware's BARs, and what a system makes of them, are anywhere. */
	if (m->assign.cold)
		share(m, cfg, high_end(m), BIT(m->vm.features.physical_bits),
		      false);
	while (!m->assign.cold && next_run(m, r.end, ~0ull, false, &r))
		add(cfg, r, false);
}
