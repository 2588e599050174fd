/* SPDX-License-Identifier: MIT */
#include "vmm/assigned.h"

#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/string.h"
#include "vmm/machine.h"
#include "vmm/machine_map.h"

static int hex(const char **p, const char *end, unsigned digits, u32 *value)
{
	for (*value = 0; digits; digits--, (*p)++) {
		char c = *p < end ? **p : ' ';

		if (c >= '0' && c <= '9')
			*value = *value * 16 + (u32)(c - '0');
		else if (c >= 'a' && c <= 'f')
			*value = *value * 16 + (u32)(c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			*value = *value * 16 + (u32)(c - 'A' + 10);
		else
			return -EINVAL;
	}
	return 0;
}

/* What one assign= word names. */
struct selection {
	enum { BY_ADDRESS, BY_ID, BY_CLASS } kind;
	u32 a, b, c;
};

static int parse(const struct option_word *w, struct selection *s)
{
	const char *p = w->text, *end = w->text + w->length;

	if (w->length == 10 && !strncmp(p, "class=", 6)) {
		s->kind = BY_CLASS;
		p += 6;
		return hex(&p, end, 4, &s->a);
	}
	if (w->length == 9 && p[4] == ':') {
		s->kind = BY_ID;
		if (hex(&p, end, 4, &s->a))
			return -EINVAL;
		p++;
		return hex(&p, end, 4, &s->b);
	}
	s->kind = BY_ADDRESS;
	if (w->length != 7 || p[2] != ':' || p[5] != '.' ||
	    hex(&p, end, 2, &s->a))
		return -EINVAL;
	p++;
	if (hex(&p, end, 2, &s->b))
		return -EINVAL;
	p++;
	return hex(&p, end, 1, &s->c) || s->b > 31 || s->c > 7 ? -EINVAL : 0;
}

static bool matches(const struct selection *s, const struct pci_function *f)
{
	switch (s->kind) {
	case BY_ADDRESS:
		return f->bdf == BDF(s->a, s->b, s->c);
	case BY_ID:
		return f->vendor == s->a && f->device == s->b;
	case BY_CLASS:
		return f->class == s->a;
	}
	return false;
}

static bool is_chosen(const struct machine *m, bdf_t bdf)
{
	for (unsigned i = 0; i < m->assigned_count; i++)
		if (m->assigned[i].function->bdf == bdf)
			return true;
	return false;
}

/* The reason why it cannot be assigned, or NULL. */
static const char *objection(const struct machine *m,
			     const struct pci_function *f)
{
	const struct host *h = m->host;

	if (f->header_type != 0 || f->class >> 8 == 6)
		return "is a bridge; assign what is behind it";
	if (BDF_BUS(f->bdf) != 0)
		return "is behind a bridge, which is not offered yet";
	if (is_chosen(m, f->bdf))
		return "is named twice";
	if (m->assigned_count == ASSIGNED_MAX)
		return "is one function too many";
	if (f->class == 0x0700)
		return "is a serial port, and may be the console's";
	if (h->has_vtd && !vtd_has_unit((struct vtd *)&h->vtd, f->bdf))
		return "is behind no IOMMU; its DMA would reach everything";
	if (!h->has_vtd &&
	    !(h->options.unsafe_dma && h->options.iommu == IOMMU_OFF &&
	      h->options.ram == RAM_IDENTITY))
		return "needs an IOMMU: switch VT-d on in the firmware's setup "
		       "(or iommu=off unsafe-dma ram=identity: its DMA then "
		       "reaches all memory, Monocle's too)";
	return NULL;
}

static void choose(struct machine *m, struct pci_function *f)
{
	struct assigned *a = &m->assigned[m->assigned_count++];

	*a = (struct assigned){.machine = m, .function = f};
	for (unsigned n = 0; n < MESSAGES_MAX; n++)
		a->messages[n] = (struct assigned_message){
			.owner = a, .vector = -1, .entry = -1};
	pci_size_bars(&m->host->pci, f);
	assigned_msix_find(a, &m->host->pci);
	log_info("assigned: %02x:%02x.%x %04x:%04x class %04x",
		 BDF_ARGS(f->bdf), f->vendor, f->device, f->class);
}

static int choose_word(struct machine *m, const struct option_word *w)
{
	struct pci_host *pci = &m->host->pci;
	struct selection s = {0};
	unsigned found = 0;

	if (parse(w, &s)) {
		log_error("assign=%.*s: write BB:DD.F, VENDOR:DEVICE or "
			  "class=CCSS, in hexadecimal",
			  (int)w->length, w->text);
		return -EINVAL;
	}
	for (unsigned i = 0; i < pci->count; i++) {
		struct pci_function *f = &pci->functions[i];
		const char *why;

		if (!matches(&s, f))
			continue;
		found++;
		why = objection(m, f);
		if (why) {
			log_error("assign=%.*s: %02x:%02x.%x %s",
				  (int)w->length, w->text, BDF_ARGS(f->bdf),
				  why);
			return -EPERM;
		}
		choose(m, f);
	}
	if (found)
		return 0;
	log_error("assign=%.*s: no such function; 'help' lists the options, "
		  "the log the functions",
		  (int)w->length, w->text);
	return -ENODEV;
}

/* PCIe 6.12: without ACS, functions of one device can reach each other. */
static int check_groups(const struct machine *m)
{
	const struct pci_host *pci = &m->host->pci;

	for (unsigned i = 0; i < m->assigned_count; i++) {
		bdf_t bdf = m->assigned[i].function->bdf;

		for (unsigned j = 0; j < pci->count; j++) {
			bdf_t other = pci->functions[j].bdf;

			if (other >> 3 != bdf >> 3 || is_chosen(m, other))
				continue;
			log_error("assign: %02x:%02x.%x cannot be isolated "
				  "from %02x:%02x.%x; assign both",
				  BDF_ARGS(bdf), BDF_ARGS(other));
			return -EPERM;
		}
	}
	return 0;
}

static void choose_display(struct machine *m)
{
	struct pci_host *pci = &m->host->pci;

	for (unsigned i = 0; i < pci->count; i++) {
		struct pci_function *f = &pci->functions[i];

		if (f->class >> 8 != 3 || m->host->options.no_vga)
			continue;
		m->display_function = f;
		if (!is_chosen(m, f->bdf) && m->assigned_count < ASSIGNED_MAX)
			choose(m, f);
		return;
	}
	log_info("display: none is assigned");
}

int assigned_choose(struct machine *m)
{
	const struct options *o = &m->host->options;
	int err = 0;

	for (unsigned i = 0; !err && i < o->assign_count; i++)
		err = choose_word(m, &o->assign[i]);
	if (err)
		return err;
	err = check_groups(m);
	if (!err)
		choose_display(m);
	return err;
}

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
	if (!err && a->msix.host && a->msix.bar == i)
		err = machine_pin_hole(m, bar->base + a->msix.page,
				       a->msix.pages_size, "MSI-X table");
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
		.ctx = a,
	};
	int err = 0;

	/* Without a unit its DMA would reach everything: it gets none. */
	if (m->domain || m->host->options.unsafe_dma)
		config.command_forward = PCI_COMMAND_MASTER;
	if (config.pin)
		a->line = vpci_line(f->bdf, config.pin);
	if (m->domain)
		err = vtd_assign(&m->host->vtd, m->domain, f->bdf);
	if (!err)
		err = pci_assigned_init(&a->config, &m->vpci, &config);
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

/* Teardown: bus master off, messages absent, then the device's reset. */
void assigned_reset_all(struct machine *m)
{
	const struct pci_host *pci = &m->host->pci;

	for (unsigned n = 0; n < m->assigned_count; n++) {
		struct assigned *a = &m->assigned[n];
		bdf_t bdf = a->function->bdf;
		u32 command = pci_config_read(pci, bdf, PCI_COMMAND, 2);

		pci_config_write(pci, bdf, PCI_COMMAND, 2,
				 command & ~(u32)PCI_COMMAND_MASTER);
		assigned_irq_off(a);
		/* Graphics keeps the firmware's picture. */
		if (a->function != m->display_function)
			pci_reset_function(pci, bdf, m->host->tsc_hz);
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
