/* SPDX-License-Identifier: MIT */
/* What of the guest's address spaces is memory, device, or nothing. */
#include "vmm/machine_map.h"

#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/string.h"
#include "vmm/load/guest_acpi.h"
#include "vmm/load/smbios.h"
#include "vmm/physmap.h"

#define BIOS_AREA 0xc0000u
#define BIOS_SIZE 0x40000u
#define ECAM_FROM 0xe0000000u
#define BUSES_LEAST 32u		 /* of each root, for the guest's firmware */
#define MEMORY_RESERVE (3 * MIB) /* messages, contexts, and what comes */
#define CPU_RESERVE (128 * KIB)	 /* of each: vCPU, VMCS, stacks */

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
	return err ? err : assigned_window(&m->assign, &m->vm.map, r);
}

/*
 * The guest's BIOS area is memory of ours: the display's video BIOS, the RSDP,
 * the SMBIOS table, and all ones as where no chip answers. Kernels search it
 * byte by byte, which must not trap. Firmware in the guest fills it itself.
 */
static int pin_bios(struct machine *m)
{
	hpa_t hpa =
		phys_alloc(&host_memory, BIOS_SIZE, PAGE_SIZE, PHYS_ANYWHERE);
	const struct pci_rom *rom = assigned_display_rom(&m->assign);
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
	if (m->firmware.image) {
		r.kind = REGION_RAM;
		r.cpu = REGION_RWX;
		r.dma = REGION_RW;
		return region_pin(&m->vm.map, &r);
	}
	memset(phys_to_virt(hpa), 0xff, BIOS_SIZE);
	if (rom && rom->legacy)
		memcpy(phys_to_virt(hpa), rom->legacy, rom->legacy_size);
	if (rom && rom->legacy && m->host->options.igd == IGD_CLOSED)
		err = close_video_bios(m, &r, rom->legacy_size);
	m->rsdp = (u8 *)phys_to_virt(hpa) + BIOS_RSDP - BIOS_AREA;
	smbios_copy(&m->host->boot, BIOS_SMBIOS,
		    phys_to_virt(hpa + BIOS_SMBIOS - BIOS_AREA),
		    BIOS_SMBIOS_SIZE, m->host->options.serials);
	return err ? err : region_pin(&m->vm.map, &r);
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
			   .e820 = E820_NVS,
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
	return region_pin(&m->vm.map, &r);
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

/*
 * Firmware numbers buses from each root's on: what hardware pins behind them
 * costs buses that nobody numbers. Else pinning what is left for all of them
 * says what is in the way.
 */
static u64 firmwares_ecam(struct machine *m)
{
	struct guest_acpi_root *root = &m->roots[m->root_count - 1];
	gpa_t at = 0;
	u64 room = region_next_free(&m->vm.map, FIRMWARE_ECAM,
				    FIRMWARE_ECAM + 256 * MIB, &at);

	if (at == FIRMWARE_ECAM && room / MIB > root->bus + BUSES_LEAST)
		root->last_bus = (u8)(room / MIB - 1);
	m->ecam = FIRMWARE_ECAM;
	return (root->last_bus + 1) * MIB;
}

/*
 * Where the host's is, else where its devices are not likely to be. Where
 * there is no room the guest has mechanism #1, which has all buses, too.
 */
static int pin_ecam(struct machine *m, gpa_t limit)
{
	const struct pci_host *host = &m->host->pci;
	u8 last = m->roots[m->root_count - 1].last_bus;
	u64 size = (last + 1) * MIB;

	if (m->firmware.image)
		size = firmwares_ecam(m);
	else if (host->ecam >= limit && host->ecam + size <= GUEST_IOAPIC &&
		 last <= host->ecam_last_bus)
		m->ecam = host->ecam;
	else
		m->ecam = find_ecam(m, size, MAX(limit, ECAM_FROM));
	if (!m->ecam)
		m->ecam = find_ecam(m, size, limit);
	if (!m->ecam)
		log_warn("pci: no room below 4 GiB for ECAM of %u buses; the "
			 "guest has ports 0xcf8 and 0xcfc alone",
			 last + 1);
	return m->ecam ? region_pin_hole(&m->vm.map, m->ecam, size, "ECAM") : 0;
}

/*
 * For the EPT and the IOMMU's tables of RAM in so many pieces: large pages
 * leave the ends of each (physmap.c gives 4 MiB at most where none fits) and
 * a table for 1 GiB; without them there is an entry for each page. That is an
 * IOMMU without 2 MiB pages, and with itlb=split what the guest executes.
 */
static u64 tables(const struct machine *m)
{
	const struct vmx_capabilities *vmx = &m->host->vmx;
	u64 ram = phys_total(&host_memory);
	u64 pieces = m->vm.map.count + host_memory.count;
	u64 small = !vmx->ept_2m || vmx->split_code;

	small += m->host->has_vtd && vtd_leaf_levels(&m->host->vtd) == 1;
	return pieces * 8 * PAGE_SIZE + ram / 512 * small +
	       2 * PAGE_SIZE * (ram / GIB);
}

int machine_map(struct machine *m)
{
	struct physmap map = {
		.mode = m->host->options.ram,
		.host = &host_memory,
		.limit = m->host->options.memory,
		.low_limit = machine_low_limit(m),
	};
	int err;

	err = machine_roots(m);
	if (!err)
		err = assigned_regions(&m->assign, &m->vm.map);
	if (!err)
		err = pin_ecam(m, map.low_limit);
	if (!err)
		err = m->host->options.guest == GUEST_BIOS
			      ? bios_regions(&m->bios, &m->vm.map)
			      : pin_bios(m);
	if (!err)
		err = region_pin_hole(&m->vm.map, GUEST_IOAPIC, PAGE_SIZE,
				      "IOAPIC");
	if (!err)
		err = region_pin_hole(&m->vm.map, GUEST_LAPIC, PAGE_SIZE,
				      "local APIC");
	if (!err && m->firmware.image)
		err = firmware_regions(&m->firmware, &m->vm.map);
	else if (!err)
		err = pin_acpi(m, map.low_limit);
	if (m->firmware.image) /* what is pinned counts */
		map.low_limit = machine_low_limit(m);
	map.reserve = MEMORY_RESERVE + tables(m) +
		      m->host->madt.cpu_count * CPU_RESERVE;
	if (!err)
		err = physmap_fill(&m->vm.map, &map);
	return err;
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

/*
 * The host's PM timer, which counts and does nothing else (ACPI 6.4, 4.8.3.3),
 * where it has been seen to, and where the guest has nothing else.
 */
static void lend_pm_timer(struct machine *m)
{
	const struct acpi_power *host = &m->host->power;
	u16 port = host->pm_timer;

	if (!port || !host->pm_timer_bits ||
	    machine_has_ports(m, port, port + ACPI_PM_TMR_LEN) ||
	    acpi_pm_lend(&m->acpi_pm, &m->vm.bus, port, host->pm_timer_bits))
		return;
	vm_open_ports(&m->vm, port, ACPI_PM_TMR_LEN, true);
	log_info("guest: it reads the host's PM timer, at port 0x%x", port);
}

void machine_open_ports(struct machine *m)
{
	const struct pci_function *f = m->assign.display;

	for (unsigned i = 0; f && i < ARRAY_SIZE(display_ports); i++) {
		const struct port_row *row = &display_ports[i];

		if (row->vendor ? row->vendor != f->vendor ||
					  row->device != f->device
				: !m->assign.vga)
			continue;
		vm_open_ports(&m->vm, row->first, row->last - row->first + 1u,
			      true);
	}
	lend_pm_timer(m);
}
