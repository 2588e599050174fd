/* SPDX-License-Identifier: MIT */
#include "drivers/vtd/dmar.h"

#include "arch/x86/errno.h"
#include "kernel/log.h"

/* The names of 8.3 to 8.10, and each one's fixed part in bytes */
static const struct {
	const char *name;
	u8 size;
} kinds[] = {{"DRHD", 16}, {"RMRR", 24}, {"ATSR", 8}, {"RHSA", 20},
	     {"ANDD", 8},  {"SATC", 8},	 {"SIDP", 8}};

#define HEAD_SIZE offsetof(struct dmar_entry, flags)

static const void *end_of(const struct dmar_table *t)
{
	return (const u8 *)t + t->acpi.length;
}

/* A structure without a length ends the table, too, as Linux has it. */
static bool is_end(const struct dmar_table *t, const struct dmar_entry *e)
{
	long left = (const u8 *)end_of(t) - (const u8 *)e;

	return left <= 0 || (left >= (long)HEAD_SIZE && !e->length);
}

static const struct dmar_entry *after(const struct dmar_table *t,
				      const struct dmar_entry *e)
{
	return e ? (const void *)((const u8 *)e + e->length)
		 : (const void *)(t + 1);
}

/* Some firmware leaves placeholders, and some gets the limit wrong. */
static bool is_range(const struct dmar_table *t, const struct dmar_entry *e)
{
	return e->type != DMAR_RMRR ||
	       (e->base < e->limit && !(e->limit >> t->host_width >> 1));
}

const struct dmar_entry *dmar_next(const struct dmar_table *t, unsigned type,
				   const struct dmar_entry *e)
{
	for (e = after(t, e); !is_end(t, e); e = after(t, e))
		if (e->type == type && is_range(t, e))
			return e;
	return NULL;
}

const struct dmar_scope *dmar_next_scope(const struct dmar_entry *e,
					 const struct dmar_scope *s)
{
	const u8 *at = s ? (const u8 *)s + s->length
			 : (const u8 *)e + kinds[e->type].size;

	return at < (const u8 *)e + e->length ? (const void *)at : NULL;
}

static int check_scopes(const struct dmar_entry *e)
{
	const struct dmar_scope *s = NULL;

	while ((s = dmar_next_scope(e, s))) {
		long left = (const u8 *)e + e->length - (const u8 *)s;

		/* The path has one hop at least, of two bytes each */
		if (left < 8 || s->length > left || s->length < 8 ||
		    s->length % 2)
			return -EINVAL;
	}
	return 0;
}

static int check_unit(const struct dmar_table *t, const struct dmar_entry *u)
{
	const struct dmar_entry *e = NULL;

	if (u->base & PAGE_MASK || u->base >> t->host_width >> 1)
		return -EINVAL;
	/* Up to u all entries were checked; the walk goes no further. Those
	 * that are switched off are no matter. */
	while ((e = dmar_next(t, DMAR_UNIT, e)) != u)
		if (u->base && e->base &&
		    (e->base == u->base ||
		     (e->segment == u->segment && e->flags & u->flags & 1)))
			return -EEXIST;
	return 0;
}

static int check_entry(const struct dmar_table *t, const struct dmar_entry *e)
{
	long left = (const u8 *)end_of(t) - (const u8 *)e;
	bool known;
	int err = 0;

	if (left < (long)HEAD_SIZE || e->length > left || e->length < HEAD_SIZE)
		return -EINVAL;
	known = e->type < ARRAY_SIZE(kinds);
	if (known && e->length < kinds[e->type].size)
		return -EINVAL;
	if (e->type > DMAR_RMRR || !is_range(t, e))
		log_info("DMAR: %s, type %u, %u bytes: not used",
			 known ? kinds[e->type].name : "unknown structure",
			 e->type, e->length);
	if (e->type == DMAR_UNIT)
		err = check_unit(t, e);
	return err || e->type > DMAR_RMRR ? err : check_scopes(e);
}

int dmar_check(const struct acpi_header *acpi)
{
	const struct dmar_table *t = (const void *)acpi;
	const struct dmar_entry *e;
	int err = -EINVAL;

	if (acpi->length < sizeof(*t) || t->host_width > 62 ||
	    !acpi_checksum_ok(acpi, acpi->length)) {
		log_error("DMAR: wrong length, checksum or address width");
		return err;
	}
	for (e = after(t, NULL); !is_end(t, e); e = after(t, e)) {
		err = check_entry(t, e);
		if (!err)
			continue;
		log_error("DMAR: the structure at offset %lu %s",
			  (size_t)((const u8 *)e - (const u8 *)t),
			  err == -EEXIST ? "repeats another" : "cannot be");
		return err;
	}
	if (dmar_next(t, DMAR_UNIT, NULL))
		return 0;
	log_error("DMAR: the table names no unit");
	return -ENODEV;
}

int dmar_resolve(struct pci_host *pci, const struct dmar_scope *s, bdf_t *bdf)
{
	unsigned hops = (s->length - 6u) / 2, bus = s->bus;

	for (unsigned i = 0; i < hops; i++) {
		unsigned device = s->path[i].device;
		unsigned function = s->path[i].function;
		const struct pci_function *f;

		*bdf = BDF(bus, device & 31, function & 7);
		f = pci_find(pci, *bdf);
		bus = f ? f->secondary_bus : 0;
		if (device > 31 || function > 7 || (!bus && i + 1 < hops))
			return -ENODEV;
	}
	return 0;
}

static bool covers(struct pci_host *pci, const struct dmar_entry *e, bdf_t bdf)
{
	const struct dmar_scope *s = NULL;

	while ((s = dmar_next_scope(e, s))) {
		const struct pci_function *above;
		bdf_t end, at = bdf;

		if (s->type > DMAR_SCOPE_BRIDGE || dmar_resolve(pci, s, &end))
			continue;
		/* Some firmware calls a bridge an endpoint. */
		while (at != end && (above = pci_bridge_above(pci, at)))
			at = above->bdf;
		if (at == end)
			return true;
	}
	return false;
}

const struct dmar_entry *dmar_unit_of(const struct dmar_table *t,
				      struct pci_host *pci, bdf_t bdf)
{
	const struct dmar_entry *e = NULL, *all = NULL;

	while ((e = dmar_next(t, DMAR_UNIT, e))) {
		if (!e->segment && covers(pci, e, bdf))
			return e;
		if (!e->segment && e->flags & 1 && (!all || e->base))
			all = e;
	}
	return all;
}

const struct dmar_entry *dmar_rmrr_of(const struct dmar_table *t,
				      struct pci_host *pci, bdf_t bdf,
				      const struct dmar_entry *e)
{
	while ((e = dmar_next(t, DMAR_RMRR, e)))
		if (!e->segment && covers(pci, e, bdf))
			break;
	return e;
}

int dmar_ioapic_source(const struct dmar_table *t, struct pci_host *pci, u8 id,
		       bdf_t *source, u64 *unit)
{
	const struct dmar_entry *e = NULL;
	const struct dmar_scope *s = NULL;

	while ((e = dmar_next(t, DMAR_UNIT, e)))
		while ((s = dmar_next_scope(e, s))) {
			if (s->type != DMAR_SCOPE_IOAPIC || s->id != id)
				continue;
			*unit = e->base;
			return dmar_resolve(pci, s, source);
		}
	return -ENODEV;
}

bool dmar_lone_ioapic(const struct dmar_table *t, u8 *id)
{
	const struct dmar_entry *e = NULL;
	const struct dmar_scope *s = NULL;
	unsigned count = 0;

	while ((e = dmar_next(t, DMAR_UNIT, e)))
		while ((s = dmar_next_scope(e, s)))
			if (s->type == DMAR_SCOPE_IOAPIC) {
				*id = s->id;
				count++;
			}
	return count == 1;
}

static void log_entry(struct pci_host *pci, const struct dmar_entry *e)
{
	static const char *const names[] = {"?",      "function", "bridge",
					    "IOAPIC", "HPET",	  "ACPI"};
	const struct dmar_scope *s = NULL;
	bdf_t end = 0;

	if (e->type == DMAR_SATC)
		log_info("DMAR: caches of translations (SATC), segment %u%s",
			 e->segment, e->flags & 1 ? ", required" : "");
	else
		log_info("DMAR: %s at 0x%lx, segment %u%s%s",
			 e->type == DMAR_UNIT ? "unit" : "reserved memory",
			 e->base, e->segment,
			 e->type == DMAR_UNIT && e->flags & 1
				 ? ", all that no other names"
				 : "",
			 e->type == DMAR_UNIT && !e->base ? ", switched off"
							  : "");
	if (e->type == DMAR_RMRR)
		log_info("DMAR:   up to 0x%lx for", e->limit);
	while ((s = dmar_next_scope(e, s))) {
		bool found = !dmar_resolve(pci, s, &end);

		log_info("DMAR:   %s %u: %02x:%02x.%x%s",
			 names[s->type < ARRAY_SIZE(names) ? s->type : 0],
			 s->id, BDF_ARGS(end), found ? "" : " is no bridge");
	}
}

void dmar_log(const struct dmar_table *t, struct pci_host *pci)
{
	static const u8 types[] = {DMAR_UNIT, DMAR_RMRR, DMAR_SATC};

	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		const struct dmar_entry *e = NULL;

		while ((e = dmar_next(t, types[i], e)))
			if (types[i] != DMAR_SATC || !check_scopes(e))
				log_entry(pci, e);
	}
}
