/* SPDX-License-Identifier: MIT */
/* What of the guest's address spaces is memory, device, or nothing. */
#include "vmm/machine_map.h"

#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/string.h"
#include "vmm/load/guest_acpi.h"
#include "vmm/physmap.h"

#define VGA_MEMORY 0xa0000u
#define VGA_SIZE 0x20000u
#define BIOS_AREA 0xc0000u
#define BIOS_SIZE 0x40000u
#define ECAM_FROM 0xe0000000u
#define MEMORY_RESERVE (8 * MIB) /* for EPT, tables and what comes */

int machine_pin(struct machine *m, const struct region *r)
{
	const struct region *clash;
	int err = region_add(&m->vm.map, r, &clash);

	if (err == -EEXIST)
		log_error("guest memory: %s at 0x%lx lies over %s at 0x%lx; "
			  "this machine's map cannot be used",
			  r->name, r->gpa, clash->name, clash->gpa);
	else if (err)
		log_error("guest memory: %s at 0x%lx does not fit the list",
			  r->name, r->gpa);
	return err;
}

int machine_pin_hole(struct machine *m, gpa_t gpa, u64 size, const char *name)
{
	struct region r = {.gpa = gpa,
			   .size = size,
			   .kind = REGION_HOLE,
			   .e820 = E820_RESERVED,
			   .name = name};

	return machine_pin(m, &r);
}

/* Device memory, 1:1: uncached, but without "ignore PAT" in the EPT. */
struct region machine_device(gpa_t gpa, hpa_t hpa, u64 size, const char *name)
{
	return (struct region){.gpa = gpa,
			       .hpa = hpa,
			       .size = size,
			       .kind = REGION_DEVICE,
			       .memtype = MEMTYPE_UC,
			       .cpu = REGION_RW,
			       .name = name};
}

static int pin_window(struct machine *m, struct region r)
{
	if (m->host->options.igd == IGD_CLOSED)
		r.cpu = 0;
	return machine_pin(m, &r);
}

static int pin_windows(struct machine *m)
{
	struct region_list *windows = &m->vm.windows;
	struct region vga =
		machine_device(VGA_MEMORY, VGA_MEMORY, VGA_SIZE, "legacy VGA");
	int err = m->vga ? region_add(windows, &vga, NULL)
			 : machine_pin_hole(m, VGA_MEMORY, VGA_SIZE,
					    "legacy VGA (closed)");

	if (!err && m->igd.function)
		err = igd_regions(&m->igd, windows);
	for (unsigned i = 0; !err && i < windows->count; i++)
		err = pin_window(m, windows->regions[i]);
	return err;
}

/* What firmware shares with assigned functions: for their DMA alone. */
static int pin_rmrrs(struct machine *m)
{
	int err = 0;

	for (unsigned n = 0; n < m->assigned_count; n++) {
		const struct pci_function *f = m->assigned[n].function;
		const struct dmar_entry *e = NULL;

		while (!err && (e = assigned_next_rmrr(m->host, f, e))) {
			hpa_t base = ALIGN_DOWN(e->base, PAGE_SIZE);
			struct region r = machine_device(
				base, base,
				ALIGN_UP(e->limit + 1, PAGE_SIZE) - base,
				"RMRR");

			r.cpu = 0;
			r.dma = REGION_RW;
			r.e820 = E820_RESERVED;
			err = region_paint(&m->vm.map, r);
		}
	}
	return err;
}

/* The video BIOS's part of the BIOS area is a window. */
static int close_video_bios(struct machine *m, struct region *bios, u64 size)
{
	struct region r = *bios;
	int err;

	r.size = ALIGN_UP(size, PAGE_SIZE);
	r.name = "video BIOS";
	bios->gpa += r.size;
	bios->hpa += r.size;
	bios->size -= r.size;
	err = region_add(&m->vm.windows, &r, NULL);
	return err ? err : pin_window(m, r);
}

/*
 * The guest's BIOS area is memory of ours: the display's video BIOS, the
 * RSDP, and all ones as where no chip answers. Kernels search it byte by
 * byte, which must not trap.
 */
static int pin_bios(struct machine *m)
{
	hpa_t hpa =
		phys_alloc(&host_memory, BIOS_SIZE, PAGE_SIZE, PHYS_ANYWHERE);
	const struct pci_rom *rom = assigned_display_rom(m);
	struct region r = {.gpa = BIOS_AREA,
			   .hpa = hpa,
			   .size = BIOS_SIZE,
			   .kind = REGION_ROM,
			   .memtype = MEMTYPE_WB,
			   .e820 = E820_RESERVED,
			   .cpu = REGION_RX,
			   .name = "BIOS"};
	int err = 0;

	if (hpa == PHYS_NONE) {
		log_error("too little memory for the guest's BIOS area");
		return -ENOMEM;
	}
	memset(phys_to_virt(hpa), 0xff, BIOS_SIZE);
	if (rom && rom->legacy)
		memcpy(phys_to_virt(hpa), rom->legacy, rom->legacy_size);
	if (rom && rom->legacy && m->host->options.igd == IGD_CLOSED)
		err = close_video_bios(m, &r, rom->legacy_size);
	m->rsdp = (u8 *)phys_to_virt(hpa) + BIOS_RSDP - BIOS_AREA;
	return err ? err : machine_pin(m, &r);
}

/* Where the host's RAM below 4 GiB ends: there begins its PCI hole. */
static hpa_t low_limit(const struct machine *m)
{
	const struct boot_info *b = &m->host->boot;
	hpa_t end = MIB;

	for (unsigned i = 0; i < b->memory_count; i++) {
		hpa_t top = b->memory[i].base + b->memory[i].size;

		if (b->memory[i].kind == MEMORY_AVAILABLE && top <= 4 * GIB)
			end = MAX(end, top);
	}
	return ALIGN_DOWN(end, PAGE_SIZE);
}

/* The highest place of that size below the limit; what is pinned stays. */
static gpa_t last_free(const struct region_list *list, gpa_t limit, u64 size)
{
	for (unsigned i = list->count; i-- > 0;) {
		const struct region *r = &list->regions[i];

		if (r->gpa >= limit)
			continue;
		if (r->gpa + r->size <= limit - size)
			break;
		limit = r->gpa;
	}
	return limit - size;
}

static int pin_acpi(struct machine *m, gpa_t limit)
{
	hpa_t hpa = phys_alloc(&host_memory, GUEST_ACPI_SIZE, PAGE_SIZE, limit);
	struct region r = {.hpa = hpa,
			   .size = GUEST_ACPI_SIZE,
			   .kind = REGION_RAM,
			   .memtype = MEMTYPE_WB,
			   .e820 = E820_ACPI,
			   .cpu = REGION_RWX,
			   .name = "ACPI tables"};

	if (hpa == PHYS_NONE) {
		log_error("too little memory below 4 GiB; at least %llu MiB "
			  "must be free for the guest",
			  PHYSMAP_LEAST / MIB);
		return -ENOMEM;
	}
	r.gpa = hpa;
	if (m->host->options.ram != RAM_IDENTITY)
		r.gpa = last_free(&m->vm.map, limit, GUEST_ACPI_SIZE);
	m->acpi_base = r.gpa;
	return machine_pin(m, &r);
}

static u8 last_bus(const struct machine *m)
{
	unsigned last = 0;

	for (unsigned i = 0; i < m->port_count; i++)
		last = MAX(last, pci_config_read(&m->host->pci,
						 m->ports[i].function->bdf,
						 PCI_SUBORDINATE_BUS, 1));
	return (u8)last;
}

/* A free place below the IOAPIC, aligned as PCIe 7.2.2 wants it, or 0. */
static gpa_t find_ecam(const struct machine *m, u64 size, gpa_t from)
{
	u64 align = MIB, room;
	gpa_t gpa;

	while (align < size)
		align *= 2;
	while ((room = region_next_free(&m->vm.map, from, GUEST_IOAPIC,
					&gpa))) {
		if (ALIGN_UP(gpa, align) + size <= gpa + room)
			return ALIGN_UP(gpa, align);
		from = gpa + room;
	}
	return 0;
}

/* Where the host's is, else where its devices are not likely to be. */
static int pin_ecam(struct machine *m, gpa_t limit)
{
	const struct pci_host *host = &m->host->pci;
	u64 size;

	m->last_bus = last_bus(m);
	size = (m->last_bus + 1) * MIB;
	if (host->ecam >= limit && host->ecam + size <= GUEST_IOAPIC &&
	    m->last_bus <= host->ecam_last_bus)
		m->ecam = host->ecam;
	else
		m->ecam = find_ecam(m, size, MAX(limit, ECAM_FROM));
	return m->ecam ? machine_pin_hole(m, m->ecam, size, "ECAM") : 0;
}

int machine_map(struct machine *m)
{
	struct physmap map = {
		.mode = m->host->options.ram,
		.host = &host_memory,
		.limit = m->host->options.memory,
		.reserve = MEMORY_RESERVE + phys_total(&host_memory) / 256,
		.low_limit = low_limit(m),
	};
	bool bios = m->host->options.guest == GUEST_BIOS;
	int err;

	err = pin_windows(m);
	if (!err)
		err = pin_rmrrs(m);
	if (!err)
		err = assigned_pin(m);
	if (!err)
		err = pin_ecam(m, map.low_limit);
	if (!err)
		err = bios ? bios_pin(m) : pin_bios(m);
	if (!err)
		err = machine_pin_hole(m, GUEST_IOAPIC, PAGE_SIZE, "IOAPIC");
	if (!err)
		err = machine_pin_hole(m, GUEST_LAPIC, PAGE_SIZE, "local APIC");
	if (!err && !bios) /* that guest reads the firmware's */
		err = pin_acpi(m, map.low_limit);
	if (!err)
		err = physmap_fill(&m->vm.map, &map);
	return err;
}

/* Memory of the graphics and ECAM lie among the BARs, and are none. */
static void windows_below(const struct machine *m,
			  struct guest_acpi_window below[], unsigned count)
{
	gpa_t at = low_limit(m);
	unsigned n = 0;

	memset(below, 0, count * sizeof(*below));
	for (unsigned i = 0; i < m->vm.map.count; i++) {
		const struct region *r = &m->vm.map.regions[i];

		if (r->kind == REGION_RAM || r->kind == REGION_ROM ||
		    r->e820 == E820_NONE || r->gpa + r->size <= at ||
		    r->gpa >= GUEST_IOAPIC)
			continue;
		if (r->gpa > at && n < count - 1)
			below[n++] =
				(struct guest_acpi_window){at, r->gpa - at};
		at = r->gpa + r->size;
	}
	if (at < GUEST_IOAPIC)
		below[n] = (struct guest_acpi_window){at, GUEST_IOAPIC - at};
}

void machine_windows(const struct machine *m, struct guest_acpi_window below[],
		     unsigned count, struct guest_acpi_window *above)
{
	gpa_t first = ~0ull, last = 0;

	windows_below(m, below, count);
	for (unsigned i = 0; i < m->vm.map.count; i++) {
		const struct region *r = &m->vm.map.regions[i];

		if (r->kind != REGION_DEVICE || r->e820 != E820_NONE ||
		    r->gpa < 4 * GIB)
			continue;
		first = MIN(first, r->gpa);
		last = MAX(last, r->gpa + r->size);
	}
	for (unsigned i = 0; i < m->port_count; i++) {
		u64 base, end;

		if (!pci_port_window(&m->host->pci, m->ports[i].function->bdf,
				     &base, &end))
			continue;
		first = MIN(first, base);
		last = MAX(last, end);
	}
	*above = (struct guest_acpi_window){.base = last ? first : 0,
					    .size = last ? last - first : 0};
}

static void open_port(void *bitmap, u32 port, bool open)
{
	u8 *byte = (u8 *)bitmap + port / 8;

	if (open)
		*byte = (u8)(*byte & ~(1u << port % 8));
	else
		*byte = (u8)(*byte | 1u << port % 8);
}

void machine_open_range(struct machine *m, u64 first, u64 size, bool open)
{
	for (u64 port = first; port < first + size && port < 0x10000; port++)
		open_port(m->vm.io_bitmap, (u32)port, open);
}

struct port_row {
	u16 first, last;
	u16 vendor, device; /* 0: any VGA-class function */
	const char *reason;
};

static const struct port_row display_ports[] = {
	{0x3b0, 0x3bb, 0, 0, "VGA: the monochrome CRTC"},
	{0x3c0, 0x3df, 0, 0, "VGA: sequencer, DAC, graphics, colour CRTC"},
	{0x1ce, 0x1d0, 0x1234, 0x1111,
	 "the Bochs and QEMU card's VBE registers 0x1CE and 0x1CF, which its "
	 "drivers use; a word at 0x1CF takes in 0x1D0"},
};

void machine_open_ports(struct machine *m)
{
	const struct pci_function *f = m->display_function;

	for (unsigned i = 0; f && i < ARRAY_SIZE(display_ports); i++) {
		const struct port_row *row = &display_ports[i];

		if (row->vendor ? row->vendor != f->vendor ||
					  row->device != f->device
				: !m->vga)
			continue;
		machine_open_range(m, row->first, row->last - row->first + 1u,
				   true);
	}
}
