/* SPDX-License-Identifier: MIT */
#include "drivers/vtd/vtd.h"

#include "arch/x86/errno.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "kernel/phys.h"
#include "kernel/string.h"

/* Nothing but config.direct is behind it. */
static bool is_of_direct(struct vtd *v, const struct dmar_entry *e)
{
	const struct dmar_scope *s = dmar_next_scope(e, NULL);
	bdf_t bdf;

	return !e->flags && !e->segment && s && !dmar_next_scope(e, s) &&
	       !dmar_resolve(v->pci, s, &bdf) && bdf == v->config.direct;
}

static bool is_off(hpa_t base)
{
	struct vtd_unit u = {.regs = mmio_map(base, PAGE_SIZE)};

	return u.regs &&
	       !(unit_read32(&u, VTD_GSTS) & (VTD_GCMD_TE | VTD_GCMD_IRE)) &&
	       !(unit_read64(&u, VTD_CAP) & VTD_CAP_PMR &&
		 unit_read32(&u, VTD_PMEN) & VTD_PMEN_PRS);
}

static bool is_left_alone(struct vtd *v, const struct dmar_entry *e)
{
	if (!is_of_direct(v, e) || !is_off(e->base))
		return false;
	log_warn("VT-d: unit at 0x%lx is left off: DMA of %02x:%02x.%x is not "
		 "remapped",
		 e->base, BDF_ARGS(v->config.direct));
	return true;
}

static int init_units(struct vtd *v)
{
	const struct dmar_entry *e = NULL;

	while ((e = dmar_next(v->dmar, DMAR_UNIT, e))) {
		struct vtd_unit *u = &v->units[v->unit_count];
		int err = -E2BIG;

		if (!e->base || is_left_alone(v, e))
			err = -ENODEV;
		else if (v->unit_count < VTD_UNITS_MAX)
			err = unit_init(u, e->base, v->config.write_buffer);
		v->unit_count += !err;
		/* Firmware lists units that it has switched off. */
		if (err && err != -ENODEV)
			return err;
	}
	if (v->unit_count)
		return 0;
	log_warn("VT-d: every unit of the DMAR table is switched off: switch "
		 "VT-d on in the firmware's setup");
	return -ENODEV;
}

/*
 * Where firmware calls the only IOAPIC by two names, both are its. Of others
 * nobody knows whose requests are theirs: then Linux does not remap, either.
 */
static bool knows_ioapics(struct vtd *v)
{
	const struct acpi_madt *madt = v->config.madt;
	bdf_t source;
	u64 unit;

	for (unsigned i = 0; madt && i < madt->ioapic_count; i++) {
		u8 id = madt->ioapics[i].id;

		if (!dmar_ioapic_source(v->dmar, v->pci, id, &source, &unit))
			continue;
		v->renamed = madt->ioapic_count == 1 &&
			     dmar_lone_ioapic(v->dmar, &v->ioapic_id);
		log_warn("VT-d: the DMAR table has no IOAPIC %u, which the "
			 "MADT has%s",
			 id,
			 v->renamed ? "; it has one alone, that is it" : "");
		if (!v->renamed)
			return false;
	}
	return true;
}

/* All units or none: compatibility format is blocked or it is not. */
static int init_remapping(struct vtd *v)
{
	const u64 size = VTD_IRTES * sizeof(*v->irt);
	hpa_t irt;

	v->remapping = v->dmar->flags & DMAR_INTR_REMAP && knows_ioapics(v);
	v->eim = v->config.x2apic;
	for (unsigned i = 0; i < v->unit_count; i++) {
		v->remapping &=
			v->units[i].ecap & VTD_ECAP_IR && v->units[i].queue;
		v->eim &= (v->units[i].ecap & VTD_ECAP_EIM) != 0;
	}
	if (!v->remapping) {
		log_warn("VT-d: no interrupt remapping: an assigned device "
			 "can raise any interrupt by DMA");
		return 0;
	}
	irt = phys_alloc(&host_memory, size, PAGE_SIZE, PHYS_ANYWHERE);
	if (irt == PHYS_NONE)
		return -ENOMEM;
	v->irt = memset(phys_to_virt(irt), 0, size);
	vtd_flush(v->irt, size, true);
	return 0;
}

/* 1:1, once more where it is there already */
static int leave(struct region_list *list, hpa_t base, u64 size)
{
	struct region r = {.kind = REGION_DEVICE, .dma = REGION_RW};

	r.gpa = r.hpa = ALIGN_DOWN(base, PAGE_SIZE);
	r.size = ALIGN_UP(base + size, PAGE_SIZE) - r.gpa;
	return region_paint(list, r);
}

/* What scans the picture out reads: its memory and RMRRs, and nothing else */
static int init_firmware_domain(struct vtd *v)
{
	const struct dmar_entry *r = NULL;
	int err = 0;

	while (!err &&
	       (r = dmar_rmrr_of(v->dmar, v->pci, v->config.display, r)))
		err = leave(&v->picture, r->base, r->limit + 1 - r->base);
	for (unsigned i = 0; !err && i < VTD_PICTURES; i++) {
		struct phys_range p = v->config.picture[i];

		/* Of registers: what no table can name is left out. */
		if (p.size &&
		    !((p.base + p.size - 1) >> (v->dmar->host_width + 1)))
			err = leave(&v->picture, p.base, p.size);
	}
	if (!err && v->picture.count)
		err = vtd_domain_create(v, &v->picture, &v->firmware);
	return err;
}

int vtd_init(struct vtd *v, const struct acpi_tables *acpi,
	     struct pci_host *pci, const struct vtd_config *config)
{
	const struct acpi_header *table = acpi_find(acpi, "DMAR", 0);
	int err = -ENODEV;

	memset(v, 0, sizeof(*v));
	v->config = *config;
	v->pci = pci;
	if (table)
		err = dmar_check(table);
	else
		log_error("VT-d: no DMAR table: switch VT-d on in the "
			  "firmware's setup");
	if (!err) {
		v->dmar = (const void *)table;
		dmar_log(v->dmar, v->pci);
	}
	err = err ? err : init_units(v);
	err = err ? err : init_remapping(v);
	err = err ? err : init_firmware_domain(v);
	if (err == -ENOMEM || err == -E2BIG || err == -ERANGE)
		log_error("VT-d: too little memory, too many units, or an RMRR "
			  "out of reach (error %d)",
			  err);
	return err;
}

void vtd_unused(struct vtd *v, const struct acpi_tables *acpi, u32 what)
{
	const struct acpi_header *table = acpi_find(acpi, "DMAR", 0);
	const struct dmar_entry *e = NULL;

	if (!what)
		v->dmar = NULL;
	if (!what && table && !dmar_check(table))
		v->dmar = (const void *)table;
	while (v->dmar && (e = dmar_next(v->dmar, DMAR_UNIT, e)))
		unit_end(e->base, what);
}

static struct vtd_unit *unit_of(struct vtd *v, bdf_t bdf)
{
	const struct dmar_entry *e = dmar_unit_of(v->dmar, v->pci, bdf);

	return e ? vtd_unit_at(v, e->base) : NULL;
}

bool vtd_has_unit(struct vtd *v, bdf_t bdf)
{
	return unit_of(v, bdf);
}

/* 9.3: legacy mode, translation type 00 (device TLBs blocked) */
static int set_context(struct vtd *v, struct vtd_unit *u, struct vtd_domain *d,
		       bdf_t bdf)
{
	bdf_t ids[PCI_REQUESTERS_MAX];
	unsigned count = pci_requesters(v->pci, bdf, ids);
	hpa_t root = sl_root(&d->sl, u->levels);
	int err = root ? 0 : -ENOMEM;
	unsigned i = 0;

	for (; !err && i < count; i++)
		err = unit_set_context(u, ids[i], root | VTD_PRESENT,
				       (u64)d->id << 8 | (u64)(u->levels - 2));
	d->devices += !err;
	/* All or nothing, since the domain does not count a device now. */
	while (err && i-- > 0)
		unit_set_context(u, ids[i], 0, 0);
	return err;
}

static int start_unit(struct vtd *v, struct vtd_unit *u)
{
	int err = unit_enable(u);

	if (!err && v->remapping)
		err = vtd_irq_start(v, u);
	else if (!err && unit_read32(u, VTD_GSTS) & VTD_GCMD_IRE)
		err = unit_command(u, VTD_GCMD_IRE, false);
	if (!err)
		vtd_faults_start(v, u);
	return err;
}

#define RMRR_LARGEST (16 * MIB)

int vtd_leave(struct vtd *v, struct pci_function *f)
{
	const struct dmar_entry *r = NULL;
	int err = v->left ? 0 : vtd_domain_create(v, NULL, &v->left);

	while (!err && (r = dmar_rmrr_of(v->dmar, v->pci, f->bdf, r))) {
		/* Real ones have some KiB; mapped by the page. */
		if (r->limit - r->base >= RMRR_LARGEST)
			return -ERANGE;
		for (hpa_t at = ALIGN_DOWN(r->base, PAGE_SIZE);
		     !err && at <= r->limit; at += PAGE_SIZE) {
			err = vtd_map(v, v->left, at, at, PAGE_SIZE,
				      SL_R | SL_W);
			/* Two controllers may share it. */
			err = err == -EEXIST ? 0 : err;
		}
	}
	f->left = !err;
	return err;
}

int vtd_start(struct vtd *v)
{
	struct vtd_unit *display = unit_of(v, v->config.display);
	const struct pci_function *f = v->pci->functions;
	int err = 0;

	/* Not bridges: they pass their functions' requests on. */
	for (; !err && f < v->pci->functions + v->pci->count; f++)
		if (f->left)
			err = set_context(v, unit_of(v, f->bdf), v->left,
					  f->bdf);
		else if (f->header_type != PCI_HEADER_BRIDGE &&
			 f->bdf != v->config.display)
			vtd_stop_mastering(v, f);
	vtd_mask_errors(v->pci);
	/* In the table before that is in force: the picture never stops. */
	if (!err && v->firmware && display)
		err = set_context(v, display, v->firmware, v->config.display);
	for (unsigned i = 0; !err && i < v->unit_count; i++)
		err = unit_start_queue(&v->units[i]);
	for (unsigned i = 0; !err && i < v->unit_count; i++)
		err = unit_take_over(&v->units[i]);
	for (unsigned i = 0; !err && i < v->unit_count; i++)
		err = start_unit(v, &v->units[i]);
	return err;
}

void vtd_log(const struct vtd *v)
{
	for (unsigned i = 0; i < v->unit_count; i++)
		unit_log(&v->units[i], i);
	if (v->remapping)
		log_info("VT-d: interrupt table 0x%lx, %u entries, %s",
			 virt_to_phys(v->irt), VTD_IRTES,
			 v->eim ? "x2APIC" : "xAPIC");
}

unsigned vtd_leaf_levels(const struct vtd *v)
{
	u64 cap = ~0ull;

	for (unsigned i = 0; i < v->unit_count; i++)
		cap &= v->units[i].cap;
	return !(cap & VTD_CAP_SLLPS_2M)   ? 1
	       : !(cap & VTD_CAP_SLLPS_1G) ? 2
					   : 3;
}

/* What every unit can walk, since a function of any may come to a domain */
static void set_format(const struct vtd *v, struct second_level *sl)
{
	sl->width = 63;
	sl->host_width = (u8)(v->dmar->host_width + 1);
	for (unsigned i = 0; i < v->unit_count; i++) {
		const struct vtd_unit *u = &v->units[i];

		sl->levels = MAX(sl->levels, u->levels);
		sl->width = MIN(sl->width, u->width);
		sl->flush |= u->flush;
	}
	sl->leaf_levels = (u8)vtd_leaf_levels(v);
}

int vtd_domain_create(struct vtd *v, const struct region_list *list,
		      struct vtd_domain **domain)
{
	struct vtd_domain *d = v->domains;
	int err;

	while (d < v->domains + VTD_DOMAINS_MAX && d->id)
		d++;
	if (d == v->domains + VTD_DOMAINS_MAX)
		return -ENOSPC;
	*d = (struct vtd_domain){.list = list};
	set_format(v, &d->sl);
	err = sl_init(&d->sl);
	for (unsigned i = 0; !err && list && i < list->count; i++) {
		const struct region *r = &list->regions[i];

		if (r->kind != REGION_HOLE && r->dma & REGION_RW)
			err = sl_map(&d->sl, r->gpa, r->hpa, r->size,
				     r->dma & REGION_RW);
	}
	if (err) {
		sl_free(&d->sl);
		return err;
	}
	/* Not 0: it tags what caching mode remembers as absent (6.1). */
	d->id = (u16)(d - v->domains + 1);
	*domain = d;
	return 0;
}

int vtd_domain_destroy(struct vtd_domain *d)
{
	if (d->devices)
		return -EBUSY;
	sl_free(&d->sl);
	d->id = 0;
	return 0;
}

int vtd_map(struct vtd *v, struct vtd_domain *d, gpa_t gpa, hpa_t hpa, u64 size,
	    u64 rights)
{
	int err = sl_map(&d->sl, gpa, hpa, size, rights);
	int synced = err == -EINVAL || err == -ERANGE ? err : 0;

	/* Even after an error: an unmap may have done a part. */
	for (unsigned i = 0; d->devices && !synced && i < v->unit_count; i++)
		synced = inv_range(&v->units[i], d->id, gpa, size, !rights);
	return err ? err : synced;
}

/* Others' requests carry it, too: a bridge, or a quirk, puts it in place. */
static bool is_anothers(const struct vtd *v, bdf_t bdf)
{
	for (unsigned i = 0; i < v->pci->count; i++) {
		bdf_t ids[PCI_REQUESTERS_MAX], other = v->pci->functions[i].bdf;
		unsigned last = pci_requesters(v->pci, other, ids) - 1;

		if (other != bdf && ids[last] == bdf)
			return true;
	}
	return false;
}

/*
 * The firmware's domain gives way, another one does not. An ID that is put in
 * the place of others' may be in this domain already; it may be this
 * function's own.
 */
static bool is_assigned(const struct vtd *v, const struct vtd_unit *u,
			const struct vtd_domain *d, bdf_t bdf)
{
	bdf_t ids[PCI_REQUESTERS_MAX];
	unsigned last = pci_requesters(v->pci, bdf, ids) - 1;
	u16 firmware = v->firmware ? v->firmware->id : 0;
	u16 id = unit_domain(u, bdf), shared = unit_domain(u, ids[last]);
	bool own = !is_anothers(v, bdf);

	return (own && id && id != firmware) ||
	       (shared && shared != firmware && shared != d->id);
}

/* Firmware's own use of a USB controller is over once it was taken. */
static bool has_lapsed(const struct pci_function *f)
{
	return f->class == PCI_CLASS_USB && f->taken_over;
}

static bool maps_rmrr(const struct vtd_domain *d, const struct dmar_entry *e)
{
	gpa_t at = ALIGN_DOWN(e->base, PAGE_SIZE);

	while (at <= e->limit) {
		const struct region *r = region_find(d->list, at);

		if (!r || r->hpa != r->gpa || (r->dma & REGION_RW) != REGION_RW)
			return false;
		at = r->gpa + r->size;
	}
	return true;
}

int vtd_assign(struct vtd *v, struct vtd_domain *d, bdf_t bdf)
{
	struct vtd_unit *u = unit_of(v, bdf);
	const struct pci_function *f = pci_find(v->pci, bdf);
	const struct dmar_entry *r = NULL;
	int err, synced;

	if (!u || !f)
		return -ENODEV;
	if (is_assigned(v, u, d, bdf))
		return -EBUSY;
	while (!has_lapsed(f) && (r = dmar_rmrr_of(v->dmar, v->pci, bdf, r)))
		if (!maps_rmrr(d, r)) {
			log_error("VT-d: %02x:%02x.%x needs 0x%lx-0x%lx 1:1",
				  BDF_ARGS(bdf), r->base, r->limit);
			return -EINVAL;
		}
	/*
	 * The firmware's entry is replaced without a moment of absence. Mixed
	 * halves would only tag a translation with the wrong domain, and all
	 * of them are dropped below before anyone relies on a tag.
	 */
	err = set_context(v, u, d, bdf);
	synced = inv_all(u);
	err = err ? err : synced;
	if (!err && v->firmware && bdf == v->config.display) {
		v->firmware->devices = 0;
		err = vtd_domain_destroy(v->firmware);
		v->firmware = NULL;
	}
	return err;
}

int vtd_release(struct vtd *v, bdf_t bdf)
{
	struct vtd_unit *u = unit_of(v, bdf);
	u16 id = u ? unit_domain(u, bdf) : 0;
	const struct pci_function *f = pci_find(v->pci, bdf);
	bdf_t ids[PCI_REQUESTERS_MAX];
	int err = 0;

	if (!id || id > VTD_DOMAINS_MAX || !f)
		return -ENODEV;
	vtd_stop_mastering(v, f);
	for (unsigned i = 0; !err && i < VTD_IRTES; i++)
		if (v->irtes[i].used && v->irtes[i].owner == bdf)
			err = vtd_irq_free(v, i);
	for (unsigned i = pci_requesters(v->pci, bdf, ids); !err && i > 0; i--)
		err = unit_set_context(u, ids[i - 1], 0, 0);
	err = err ? err : inv_all(u);
	v->domains[id - 1].devices -= !err;
	return err;
}
