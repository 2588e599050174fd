/* SPDX-License-Identifier: MIT */
/*
 * Where an assigned function's BARs are for the guest. The host's never
 * move: whole pages move in the EPT (of a ROM those of Monocle's copy), ports
 * at the host's own addresses are open, and all else (ports elsewhere, BARs
 * of less than a page) traps and is passed on. What another has is not taken
 * from it: a BAR moved there is nowhere until the place is free.
 */
#include "vmm/assign/assigned.h"

#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "arch/x86/vmx/ept.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "vmm/assign/gop.h"

#define BARS (PCI_ROM_BAR + 1)
#define PORTS 0x10000

enum bar_kind { BAR_CLOSED, BAR_PORTS, BAR_PAGES, BAR_PART };

/* By its address: a hole in which several such BARs may be. */
static const char shared_page[] = "BARs of less than a page";

static enum bar_kind kind_of(const struct pci_bar *bar)
{
	/* Without an address it is not reachable on the host, either. */
	if (!bar->size || !bar->base)
		return BAR_CLOSED;
	if (bar->io)
		return bar->base + bar->size <= PORTS ? BAR_PORTS : BAR_CLOSED;
	if (bar->size < PAGE_SIZE)
		return BAR_PART;
	return (bar->base | bar->size) & PAGE_MASK ? BAR_CLOSED : BAR_PAGES;
}

static bool is_rom(const struct assigned_bar *b)
{
	return b == &b->owner->bars[PCI_ROM_BAR];
}

static const struct pci_bar *host_bar(const struct assigned_bar *b)
{
	const struct assigned *a = b->owner;

	return is_rom(b) ? &a->rom_bar : &a->function->bars[b - a->bars];
}

static bool has_msix(const struct assigned_bar *b)
{
	const struct msix *x = &b->owner->msix;

	return x->host && b == &b->owner->bars[x->bar];
}

/* Not in the E820, whose reserved ranges no BAR may hold. */
static struct region hole(gpa_t gpa, u64 size, const char *name)
{
	return (struct region){
		.gpa = gpa, .size = size, .kind = REGION_HOLE, .name = name};
}

/* GRUB's framebuffer is here, and the guest's firmware draws on it. */
static bool has_picture(const struct assigned_bar *b)
{
	const struct assigned *a = b->owner;

	return a->all->uefi && a->function == a->all->display && !has_msix(b) &&
	       host_bar(b)->prefetchable &&
	       gop_bar(a->function, &a->all->boot->fb) == b - a->bars;
}

/* Those pages of a BAR that are not as the others, if there are any. */
static void find_part(const struct assigned_bar *b, u64 *start, u64 *end)
{
	const struct boot_framebuffer *fb = &b->owner->all->boot->fb;
	const struct msix *x = &b->owner->msix;

	*start = *end = host_bar(b)->size;
	if (has_msix(b)) {
		*start = x->page;
		*end = x->page + x->pages_size;
	} else if (has_picture(b)) {
		*start = fb->base - host_bar(b)->base;
		*end = ALIGN_UP(*start + (u64)fb->pitch * fb->height,
				PAGE_SIZE);
		*start = ALIGN_DOWN(*start, PAGE_SIZE);
	}
}

/* What they are: a table that traps; or what UEFI, which maps all write-back,
 * is to write without waiting (SDM 29.3.7.2: the types are combined). */
static struct region part_region(const struct assigned_bar *b, gpa_t gpa,
				 hpa_t hpa, u64 size)
{
	struct region r = region_device(gpa, hpa, size, "framebuffer");

	if (has_msix(b))
		return hole(gpa, size, "MSI-X table");
	r.memtype = MEMTYPE_WC;
	return r;
}

/* The regions of a memory BAR at gpa: what those pages leave, and they. */
static unsigned regions(const struct assigned_bar *b, gpa_t gpa,
			struct region out[3])
{
	const struct pci_bar *bar = host_bar(b);
	u64 start, end;
	unsigned n = 0;

	find_part(b, &start, &end);
	if (kind_of(bar) == BAR_PART) {
		out[0] = hole(ALIGN_DOWN(gpa, PAGE_SIZE), PAGE_SIZE,
			      shared_page);
		return 1;
	}
	if (is_rom(b)) {
		out[0] = (struct region){.gpa = gpa,
					 .hpa = bar->base,
					 .size = bar->size,
					 .kind = REGION_ROM,
					 .memtype = MEMTYPE_WB,
					 .cpu = REGION_RX,
					 .name = "ROM"};
		return 1;
	}
	if (start)
		out[n++] = region_device(gpa, bar->base, start, "BAR");
	if (end > start)
		out[n++] = part_region(b, gpa + start, bar->base + start,
				       end - start);
	if (end < bar->size)
		out[n++] = region_device(gpa + end, bar->base + end,
					 bar->size - end, "BAR");
	return n;
}

static bool is_shared_page(const struct region_list *map, gpa_t gpa)
{
	const struct region *r = region_find(map, gpa);

	return r && r->name == shared_page;
}

static int pin(struct region_list *map, struct assigned_bar *b)
{
	const struct pci_bar *bar = host_bar(b);
	enum bar_kind kind = kind_of(bar);
	bdf_t bdf = b->owner->function->bdf;
	struct region r[3];
	unsigned count;
	int err = 0;

	if (kind == BAR_CLOSED && bar->size)
		log_warn("%02x:%02x.%x: BAR %u of %lu bytes at 0x%lx cannot "
			 "be reached; it stays closed",
			 BDF_ARGS(bdf), (unsigned)(b - b->owner->bars),
			 bar->size, bar->base);
	if (kind == BAR_PART)
		b->host = mmio_map(bar->base, bar->size);
	if (b->owner->all->cold || kind < BAR_PAGES ||
	    is_shared_page(map, bar->base))
		return 0;
	count = regions(b, bar->base, r);
	for (unsigned n = 0; !err && n < count; n++)
		err = region_add(map, &r[n], NULL);
	if (err)
		log_error("%02x:%02x.%x: BAR %u at 0x%lx lies over something "
			  "else, or is one too many; "
			  "assign=all,-%02x:%02x.%x leaves it out",
			  BDF_ARGS(bdf), (unsigned)(b - b->owner->bars),
			  bar->base, BDF_ARGS(bdf));
	return err;
}

int assigned_pin_bars(struct assignment *all, struct region_list *map)
{
	int err = 0;

	for (unsigned n = 0; n < all->count; n++) {
		struct assigned *a = &all->functions[n];

		a->rom_bar = (struct pci_bar){.base = virt_to_phys(a->rom.data),
					      .size = a->rom.size};
		for (unsigned i = 0; !err && i < BARS; i++) {
			a->bars[i] = (struct assigned_bar){
				.owner = a, .placed = PCI_BAR_NOWHERE};
			/* A ROM begins disabled. */
			err = i == PCI_ROM_BAR ? 0 : pin(map, &a->bars[i]);
		}
	}
	return err;
}

/* The bus's handler for what traps. */
static int bar_access(void *dev, struct bus_access *access)
{
	struct assigned_bar *b = dev;
	const struct pci_bar *bar = host_bar(b);
	u64 at = access->addr - b->placed;

	if (bar->io)
		b->owner->stats.ports++;
	else
		b->owner->stats.mmio++;
	if (!access->write)
		access->value = bus_all_ones(access->size);
	/* What is behind it on the host's page is not the guest's. */
	if (at + access->size > bar->size)
		return 0;
	if (bar->io && access->write)
		port_write((u16)(bar->base + at), access->size,
			   (u32)access->value);
	else if (bar->io)
		access->value = port_read((u16)(bar->base + at), access->size);
	else if (access->write)
		mmio_write(b->host + at, access->size, access->value);
	else
		access->value = mmio_read(b->host + at, access->size);
	return 0;
}

/* Ports at home are open, and not on the bus. */
static bool others_ports(const struct assignment *all,
			 const struct assigned_bar *b, u64 port)
{
	u64 end = port + host_bar(b)->size;

	for (unsigned n = 0; n < all->count * BARS; n++) {
		const struct assigned_bar *o =
			&all->functions[n / BARS].bars[n % BARS];
		const struct pci_bar *bar = host_bar(o);

		if (o != b && bar->io && o->placed != PCI_BAR_NOWHERE &&
		    o->placed < end && port < o->placed + bar->size)
			return true;
	}
	return false;
}

static int place_ports(struct assignment *all, struct assigned_bar *b, u64 port)
{
	const struct pci_bar *bar = host_bar(b);
	int err = -EEXIST;

	if (port + bar->size <= PORTS && !others_ports(all, b, port))
		err = bus_register(&all->vm->bus, BUS_PORT, port,
				   port + bar->size - 1, bar_access, b,
				   "moved BAR");
	if (err || port != bar->base)
		return err;
	bus_unregister(&all->vm->bus, BUS_PORT, port);
	vm_open_ports(all->vm, port, bar->size, true);
	return 0;
}

static void unplace_ports(struct assignment *all, struct assigned_bar *b)
{
	const struct pci_bar *bar = host_bar(b);

	if (b->placed == bar->base)
		vm_open_ports(all->vm, bar->base, bar->size, false);
	else
		bus_unregister(&all->vm->bus, BUS_PORT, b->placed);
}

static void unplace_pages(struct assignment *all, struct assigned_bar *b,
			  gpa_t gpa)
{
	u64 size = host_bar(b)->size;
	struct msix *x = &b->owner->msix;

	region_remove(&all->vm->map, gpa, size);
	ept_unmap(all->vm->ept, gpa, size);
	if (!has_msix(b) || x->trapped == PCI_BAR_NOWHERE)
		return;
	bus_unregister(&all->vm->bus, BUS_MMIO, x->trapped);
	x->trapped = PCI_BAR_NOWHERE;
}

static int place_pages(struct assignment *all, struct assigned_bar *b,
		       gpa_t gpa)
{
	u64 size = host_bar(b)->size;
	struct msix *x = &b->owner->msix;
	struct region r[3];
	unsigned count = regions(b, gpa, r);
	u64 end = BIT(MIN(all->vm->features.physical_bits, 48));
	gpa_t at;
	int err = 0;

	if (gpa >= end || size > end - gpa ||
	    region_next_free(&all->vm->map, gpa, gpa + size, &at) != size)
		return -EEXIST;
	for (unsigned n = 0; !err && n < count; n++) {
		err = region_add(&all->vm->map, &r[n], NULL);
		err = err ? err : ept_map(all->vm->ept, &r[n]);
	}
	if (!err && has_msix(b)) {
		at = gpa + x->page;
		err = bus_register(&all->vm->bus, BUS_MMIO, at,
				   at + x->pages_size - 1, assigned_msix_access,
				   b->owner, "MSI-X table");
		x->trapped = err ? PCI_BAR_NOWHERE : at;
	}
	if (err)
		unplace_pages(all, b, gpa);
	return err;
}

static void leave_shared_page(struct assignment *all, gpa_t page)
{
	for (unsigned n = 0; n < all->count * BARS; n++) {
		const struct assigned_bar *b =
			&all->functions[n / BARS].bars[n % BARS];

		if (kind_of(host_bar(b)) == BAR_PART &&
		    ALIGN_DOWN(b->placed, PAGE_SIZE) == page)
			return;
	}
	region_remove(&all->vm->map, page, PAGE_SIZE);
}

static int place_part(struct assignment *all, struct assigned_bar *b, gpa_t gpa)
{
	gpa_t page = ALIGN_DOWN(gpa, PAGE_SIZE);
	struct region r = hole(page, PAGE_SIZE, shared_page);
	int err = b->host ? 0 : -ENOMEM;

	if (!err && !is_shared_page(&all->vm->map, page))
		err = region_add(&all->vm->map, &r, NULL);
	if (err)
		return err;
	err = bus_register(&all->vm->bus, BUS_MMIO, gpa,
			   gpa + host_bar(b)->size - 1, bar_access, b,
			   "small BAR");
	if (err)
		leave_shared_page(all, page);
	return err;
}

static void unplace(struct assignment *all, struct assigned_bar *b)
{
	gpa_t gpa = b->placed;

	if (gpa == PCI_BAR_NOWHERE)
		return;
	switch (kind_of(host_bar(b))) {
	case BAR_PORTS:
		unplace_ports(all, b);
		break;
	case BAR_PAGES:
		unplace_pages(all, b, gpa);
		break;
	case BAR_PART:
		bus_unregister(&all->vm->bus, BUS_MMIO, gpa);
		break;
	case BAR_CLOSED:
		break;
	}
	b->placed = PCI_BAR_NOWHERE;
	if (kind_of(host_bar(b)) == BAR_PART)
		leave_shared_page(all, ALIGN_DOWN(gpa, PAGE_SIZE));
}

static void place(struct assignment *all, struct assigned_bar *b, u64 where)
{
	enum bar_kind kind = kind_of(host_bar(b));
	int err = kind == BAR_PORTS   ? place_ports(all, b, where)
		  : kind == BAR_PAGES ? place_pages(all, b, where)
		  : kind == BAR_PART  ? place_part(all, b, where)
				      : 0;

	if (!err && kind != BAR_CLOSED)
		b->placed = where;
	if (err && !b->told)
		log_warn("%02x:%02x.%x: the guest moved BAR %u to 0x%lx, "
			 "where there is no room; it is nowhere until there is",
			 BDF_ARGS(b->owner->function->bdf),
			 (unsigned)(b - b->owner->bars), where);
	b->told = b->told || err;
}

/* Also those that wait for what another one has left. */
static void place_all(struct assignment *all)
{
	for (unsigned n = 0; n < all->count * BARS; n++) {
		struct assigned *a = &all->functions[n / BARS];
		struct assigned_bar *b = &a->bars[n % BARS];
		u64 where = a->config.decoded[n % BARS];

		if (where != PCI_BAR_NOWHERE && b->placed == PCI_BAR_NOWHERE)
			place(all, b, where);
	}
}

void assigned_bar_changed(void *assigned, unsigned i)
{
	struct assigned *a = assigned;

	vm_change_begin(a->all->vm);
	unplace(a->all, &a->bars[i]);
	place_all(a->all);
	vm_change_end(a->all->vm);
}

void assigned_place_bars(struct assignment *all)
{
	/* Pinned was all; of that, what is decoded now. */
	for (unsigned n = 0; n < all->count * BARS; n++) {
		struct assigned_bar *b =
			&all->functions[n / BARS].bars[n % BARS];
		const struct pci_bar *bar = host_bar(b);

		if (is_rom(b) || all->cold)
			continue;
		if (kind_of(bar) == BAR_PAGES)
			unplace_pages(all, b, bar->base);
		else if (kind_of(bar) == BAR_PART)
			leave_shared_page(all,
					  ALIGN_DOWN(bar->base, PAGE_SIZE));
	}
	place_all(all);
}
