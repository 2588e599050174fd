/* SPDX-License-Identifier: MIT */
#include "drivers/vtd/unit.h"

#include "arch/x86/errno.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "kernel/phys.h"

/* Registers reach to FRO + 16 * NFR at most: under 20 KiB */
#define REGISTERS_SIZE (32 * KIB)
#define CONTEXT_DOMAIN_SHIFT 8
#define CONTEXT_FPD BIT(1) /* fault processing disabled */

static int refuse(hpa_t base, const char *why, int err)
{
	log_error("VT-d: unit at 0x%lx: %s", base, why);
	return err;
}

/* As few levels as reach all addresses that the unit lets through (3.6). */
static u8 pick_levels(u64 cap)
{
	u8 levels = 0;

	for (u8 n = 3; n <= 5; n++)
		if (VTD_CAP_SAGAW(cap) & BIT(n - 2) &&
		    (!levels || PAGE_SHIFT + 9u * levels < VTD_CAP_MGAW(cap)))
			levels = n;
	return levels;
}

/* The raw registers, for reports, and what firmware left on: as GSTS has it,
 * in bit 0 protected memory. */
static void log_state(const struct vtd_unit *u)
{
	u32 status = unit_read32(u, VTD_GSTS), on = status;

	if (u->cap & VTD_CAP_PMR)
		on |= unit_read32(u, VTD_PMEN) & VTD_PMEN_PRS;
	log_info("VT-d: unit at 0x%lx: CAP 0x%lx, ECAP 0x%lx, GSTS 0x%x; left "
		 "on:%s%s%s%s%s",
		 u->base, u->cap, u->ecap, status,
		 on & (VTD_GCMD_TE | VTD_GCMD_QIE | VTD_GCMD_IRE | VTD_PMEN_PRS)
			 ? ""
			 : " nothing",
		 on & VTD_GCMD_TE ? " translation" : "",
		 on & VTD_GCMD_QIE ? " queue" : "",
		 on & VTD_GCMD_IRE ? " interrupt-remapping" : "",
		 on & VTD_PMEN_PRS ? " protected-memory" : "");
}

/*
 * Devices may master the bus until vtd_start(): the tables that say where to
 * are kept, down to the context entries.
 */
static void keep_tables(const struct vtd_unit *u)
{
	hpa_t base = unit_read64(u, VTD_RTADDR) & ~PAGE_MASK;
	const volatile struct vtd_entry *root = NULL;

	if (phys_keep(base, PAGE_SIZE))
		root = mmio_map(base, PAGE_SIZE);
	for (unsigned bus = 0; root && bus < 256; bus++)
		if (root[bus].lo & VTD_PRESENT)
			phys_keep(root[bus].lo & ~PAGE_MASK, PAGE_SIZE);
}

/* A changed translation table mode needs remapping off (11.4.5). */
static int check_mode(const struct vtd_unit *u)
{
	u64 mode = unit_read64(u, VTD_RTADDR) & VTD_RTADDR_TTM;

	if (!(unit_read32(u, VTD_GSTS) & VTD_GCMD_TE))
		return 0;
	if (!mode)
		keep_tables(u);
	return !mode || mode == VTD_RTADDR_ABORT
		       ? 0
		       : refuse(u->base, "firmware left its scalable mode on",
				-ENOTSUP);
}

int unit_init(struct vtd_unit *u, hpa_t base, bool write_buffer)
{
	*u = (struct vtd_unit){.base = base};
	u->regs = mmio_map(base, REGISTERS_SIZE);
	if (!u->regs)
		return -ENOMEM;
	u->cap = unit_read64(u, VTD_CAP);
	u->ecap = unit_read64(u, VTD_ECAP);
	if (!u->cap || u->cap == ~0ull)
		return refuse(base, "does not answer", -ENODEV);
	u->levels = pick_levels(u->cap);
	if (!u->levels)
		return refuse(base, "has no second-level tables", -ENOTSUP);
	if (check_mode(u))
		return -ENOTSUP;
	u->width = (u8)MIN(VTD_CAP_MGAW(u->cap), PAGE_SHIFT + 9u * u->levels);
	u->flush = !(u->ecap & VTD_ECAP_C);
	u->write_buffer = write_buffer || u->cap & VTD_CAP_RWBF;
	u->root = page_alloc();
	u->in_force = inv_firmware_queue(u);
	u->queue = (u->ecap & VTD_ECAP_QI) ? page_alloc() : NULL;
	if (!u->root || (u->ecap & VTD_ECAP_QI && !u->queue))
		return -ENOMEM;
	vtd_flush(u->root, PAGE_SIZE, u->flush);
	return 0;
}

int unit_start_queue(struct vtd_unit *u)
{
	unit_write32(u, VTD_FECTL, VTD_FECTL_IM);
	return u->queue ? inv_start_queue(u) : 0;
}

int unit_take_over(struct vtd_unit *u)
{
	int err = inv_write_buffer(u);

	/* Nothing could reach memory; for a moment protected memory stays so */
	if (!err && unit_read32(u, VTD_GSTS) & VTD_GCMD_TE &&
	    unit_read64(u, VTD_RTADDR) & VTD_RTADDR_TTM)
		err = unit_command(u, VTD_GCMD_TE, false);
	unit_write64(u, VTD_RTADDR, virt_to_phys(u->root));
	err = err ? err : unit_command(u, VTD_GCMD_SRTP, true);
	return err ? err : inv_all(u);
}

static int give_up_protected_memory(struct vtd_unit *u)
{
	if (!(u->cap & VTD_CAP_PMR) ||
	    !(unit_read32(u, VTD_PMEN) & (VTD_PMEN_EPM | VTD_PMEN_PRS)))
		return 0;
	log_info("VT-d: unit at 0x%lx: the firmware's protected memory is "
		 "given up",
		 u->base);
	unit_write32(u, VTD_PMEN, 0);
	return unit_wait(u, VTD_PMEN, VTD_PMEN_PRS, 0);
}

int unit_enable(struct vtd_unit *u)
{
	int err = 0;

	if (!(unit_read32(u, VTD_GSTS) & VTD_GCMD_TE))
		err = unit_command(u, VTD_GCMD_TE, true);
	return err ? err : give_up_protected_memory(u);
}

void unit_end(hpa_t base, u32 what)
{
	struct vtd_unit u = {.base = base};
	u32 on;

	u.regs = base ? mmio_map(base, REGISTERS_SIZE) : NULL;
	if (!u.regs)
		return;
	u.cap = unit_read64(&u, VTD_CAP);
	u.ecap = unit_read64(&u, VTD_ECAP);
	if (!u.cap || u.cap == ~0ull)
		return;
	if (!what)
		log_state(&u);
	on = unit_read32(&u, VTD_GSTS) & what;
	if (on & VTD_GCMD_IRE)
		unit_command(&u, VTD_GCMD_IRE, false);
	if (on & VTD_GCMD_TE)
		unit_command(&u, VTD_GCMD_TE, false);
	if (what & VTD_GCMD_TE)
		give_up_protected_memory(&u);
}

static struct vtd_entry *context_entry(const struct vtd_unit *u, u16 requester)
{
	u64 lo = u->root[requester >> 8].lo;
	struct vtd_entry *table;

	if (!(lo & VTD_PRESENT))
		return NULL;
	table = phys_to_virt(lo & ~PAGE_MASK);
	return &table[requester & 0xff];
}

u16 unit_domain(const struct vtd_unit *u, u16 requester)
{
	const struct vtd_entry *e = context_entry(u, requester);

	return e && e->lo & VTD_PRESENT ? (u16)(e->hi >> CONTEXT_DOMAIN_SHIFT)
					: 0;
}

int unit_set_context(struct vtd_unit *u, u16 requester, u64 lo, u64 hi)
{
	volatile struct vtd_entry *e = context_entry(u, requester);
	volatile struct vtd_entry *root = &u->root[requester >> 8];

	if (!e) {
		void *table = page_alloc();

		if (!table)
			return -ENOMEM;
		vtd_flush(table, PAGE_SIZE, u->flush);
		root->lo = virt_to_phys(table) | VTD_PRESENT;
		vtd_flush((const void *)root, sizeof(*root), u->flush);
		e = context_entry(u, requester);
	}
	/* P is stored last when it is set, first when it is cleared. */
	if (lo & VTD_PRESENT)
		mmio_write64(&e->hi, hi);
	mmio_write64(&e->lo, lo);
	vtd_flush((const void *)e, sizeof(*e), u->flush);
	return 0;
}

int unit_silence(struct vtd_unit *u, u16 requester)
{
	const struct vtd_entry *e = context_entry(u, requester);
	u64 lo = e ? e->lo : 0, hi = e ? e->hi : 0;
	/* It counts in an entry that is not present, too (9.3). */
	int err = unit_set_context(u, requester, lo | CONTEXT_FPD, hi);

	return err ? err : inv_all(u);
}

void unit_log(const struct vtd_unit *u, unsigned number)
{
	static const struct {
		u64 cap, ecap;
		const char *word;
	} words[] = {
		{VTD_CAP_SLLPS_2M, 0, "2 MiB pages"},
		{VTD_CAP_SLLPS_1G, 0, "1 GiB pages"},
		{VTD_CAP_CM, 0, "caching mode"},
		{VTD_CAP_RWBF, 0, "write-buffer flush"},
		{VTD_CAP_PMR, 0, "protected memory"},
		{VTD_CAP_PSI, 0, "page-selective invalidation"},
		{0, VTD_ECAP_C, "coherent walks"},
		{0, VTD_ECAP_QI, "invalidation queue"},
		{0, VTD_ECAP_IR, "interrupt remapping"},
		{0, VTD_ECAP_EIM, "x2APIC"},
	};
	char line[200] = "";
	size_t at = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(words) && at < sizeof(line); i++)
		if (u->cap & words[i].cap || u->ecap & words[i].ecap)
			at += (size_t)format(line + at, sizeof(line) - at,
					     " %s;", words[i].word);
	log_info("VT-d: unit %u at 0x%lx, version 0x%x: %u-level tables, "
		 "%u bits, %u domains, %u fault records, root table 0x%lx",
		 number, u->base, unit_read32(u, VTD_VER), u->levels, u->width,
		 1u << (4 + 2 * VTD_CAP_ND(u->cap)), VTD_CAP_NFR(u->cap),
		 virt_to_phys(u->root));
	log_info("VT-d: unit %u has%s", number, line);
	log_state(u);
}
