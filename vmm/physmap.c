/* SPDX-License-Identifier: MIT */
#include "vmm/physmap.h"

#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/string.h"

#define ADDRESS_LIMIT BIT(46)
/* Host memory below is scarce: real-mode trampolines, ISA. */
#define RELOCATED_FROM MIB

/* By its address, tells what physmap_fill() added from what was pinned. */
static const char ram_name[] = "ram";

/* A run of host memory that could stand at one guest address. */
struct chunk {
	hpa_t hpa;
	u64 size;
};

static u64 add_ram(struct region_list *list, struct phys *host, gpa_t gpa,
		   hpa_t hpa, u64 size)
{
	struct region r = {
		.gpa = gpa,
		.hpa = hpa,
		.size = size,
		.kind = REGION_RAM,
		.memtype = MEMTYPE_WB,
		.e820 = E820_RAM,
		.cpu = REGION_RWX,
		.dma = REGION_RW,
		.name = ram_name,
	};

	if (phys_reserve(host, hpa, size))
		return 0;
	if (!region_add(list, &r, NULL))
		return size;
	phys_free(host, hpa, size);
	return 0;
}

/* [base, end) from the first hpa that is congruent to gpa and not gpa. */
static struct chunk congruent(hpa_t base, hpa_t end, gpa_t gpa, u64 align)
{
	hpa_t hpa = base + ((gpa - base) & (align - 1));

	if (hpa == gpa && align < end - hpa)
		hpa += align;
	if (hpa >= end || (hpa == gpa && align > PAGE_SIZE))
		return (struct chunk){0, 0};
	return (struct chunk){hpa, end - hpa};
}

/*
 * The best chunk of at most size bytes for gpa at this congruence: one that
 * holds a whole page of align bytes, and then the longest. Of those that
 * suffice the one from the smallest range, so that large ones stay whole.
 */
static struct chunk best_chunk(const struct phys *host, gpa_t gpa, u64 size,
			       u64 align)
{
	u64 least = ALIGN_UP(gpa, align) - gpa + align;
	struct chunk best = {0, 0};
	u64 best_range = 0;

	for (unsigned i = 0; i < host->count; i++) {
		hpa_t base = MAX(host->free[i].base, RELOCATED_FROM);
		hpa_t end = host->free[i].base + host->free[i].size;
		struct chunk c;
		u64 range;

		if (base >= end)
			continue;
		c = congruent(base, end, gpa, align);
		c.size = MIN(c.size, size);
		range = c.hpa == gpa ? ~0ull : end - base;
		if (c.size < least || c.size < best.size ||
		    (c.size == best.size && range >= best_range))
			continue;
		best = c;
		best_range = range;
	}
	return best;
}

static struct chunk choose(const struct phys *host, gpa_t gpa, u64 size)
{
	static const u64 align[] = {GIB, 2 * MIB, PAGE_SIZE};
	struct chunk c = {0, 0};

	for (unsigned i = 0; i < ARRAY_SIZE(align) && !c.size; i++)
		c = best_chunk(host, gpa, size, align[i]);
	return c;
}

static unsigned rows_left(const struct region_list *list)
{
	unsigned used = list->count + PHYSMAP_SPARE, rows = PHYSMAP_SPARE;

	for (unsigned i = 0; i < list->count; i++)
		rows += list->regions[i].e820 != E820_NONE;
	if (used >= REGION_MAX || rows >= REGION_E820_MAX)
		return 0;
	return MIN(REGION_MAX - used, REGION_E820_MAX - rows);
}

/* Fills the guest's [from, to); returns the bytes that were given. */
static u64 fill_relocated(struct region_list *list, struct phys *host,
			  gpa_t from, gpa_t to, u64 wanted)
{
	u64 given = 0, room;
	gpa_t gpa;

	while (given < wanted && rows_left(list) &&
	       (room = region_next_free(list, from, to, &gpa))) {
		struct chunk c = choose(host, gpa, MIN(room, wanted - given));
		u64 size = c.size ? add_ram(list, host, gpa, c.hpa, c.size) : 0;

		if (!size)
			break;
		given += size;
		from = gpa + size;
	}
	return given;
}

/* Makes room by dropping the smallest RAM, if it is smaller than size. */
static u64 drop_smaller(struct region_list *list, struct phys *host, u64 size)
{
	const struct region *least = NULL;
	u64 dropped;

	for (unsigned i = 0; i < list->count; i++) {
		const struct region *r = &list->regions[i];

		if (r->name == ram_name && (!least || r->size < least->size))
			least = r;
	}
	if (!least || least->size >= size)
		return 0;
	dropped = least->size;
	if (phys_free(host, least->hpa, dropped))
		return 0;
	region_remove(list, least->gpa, dropped);
	return dropped;
}

/* The lowest free host range at or above from; size 0: none. */
static struct phys_range host_next(const struct phys *host, hpa_t from)
{
	for (unsigned i = 0; i < host->count; i++) {
		struct phys_range r = host->free[i];
		u64 skip = from > r.base ? from - r.base : 0;

		if (skip < r.size)
			return (struct phys_range){r.base + skip,
						   r.size - skip};
	}
	return (struct phys_range){0, 0};
}

static u64 fill_identity(struct region_list *list, struct phys *host,
			 u64 wanted)
{
	struct phys_range r;
	hpa_t from = 0;
	u64 given = 0;

	while (given < wanted && (r = host_next(host, from)).size) {
		gpa_t gpa = 0;
		u64 size =
			region_next_free(list, r.base, r.base + r.size, &gpa);

		from = size ? gpa + size : r.base + r.size;
		size = MIN(size, wanted - given);
		if (size && !rows_left(list))
			given -= drop_smaller(list, host, size);
		if (size && rows_left(list))
			given += add_ram(list, host, gpa, gpa, size);
	}
	return given;
}

/* Whatever the guest reaches already, the host may not hand out again. */
static int take_pinned(const struct region_list *list, struct phys *host)
{
	int err = 0;

	for (unsigned i = 0; i < list->count; i++) {
		const struct region *r = &list->regions[i];

		if (r->kind != REGION_HOLE && !err)
			err = phys_reserve(host, r->hpa, r->size);
	}
	return err;
}

/* What the mode can hand out at most. */
static u64 available(const struct physmap *map, u64 reserve)
{
	hpa_t from = map->mode == RAM_RELOCATED ? RELOCATED_FROM : 0;
	u64 total = 0;

	for (unsigned i = 0; i < map->host->count; i++) {
		struct phys_range r = map->host->free[i];
		u64 skip = from > r.base ? from - r.base : 0;

		total += skip < r.size ? r.size - skip : 0;
	}
	return total > reserve ? total - reserve : 0;
}

static u64 fill(struct region_list *list, const struct physmap *map, u64 wanted)
{
	u64 given;

	if (map->mode == RAM_IDENTITY)
		return fill_identity(list, map->host, wanted);
	given = fill_relocated(list, map->host, 0, map->low_limit, wanted);
	return given + fill_relocated(list, map->host, 4 * GIB, ADDRESS_LIMIT,
				      wanted - given);
}

static int report(const struct physmap *map, u64 given, u64 wanted)
{
	if (given < PHYSMAP_LEAST) {
		log_error("guest memory: %llu MiB can be given, the least is "
			  "%llu MiB",
			  (given ? given : wanted) / MIB, PHYSMAP_LEAST / MIB);
		return -ENOMEM;
	}
	log_info("guest memory: %llu MiB, %s", given / MIB,
		 map->mode == RAM_IDENTITY ? "identity" : "relocated");
	if (given < wanted)
		log_warn("guest memory: %llu KiB in small ranges are left out",
			 (wanted - given) / KIB);
	return 0;
}

int physmap_fill(struct region_list *list, const struct physmap *map)
{
	u64 reserve = ALIGN_UP(map->reserve, PAGE_SIZE), wanted, given = 0;
	hpa_t aside;
	int err = take_pinned(list, map->host);

	if (err) {
		log_error("guest memory: host memory is in too many pieces");
		return err;
	}
	aside = phys_alloc(map->host, reserve, PAGE_SIZE, PHYS_ANYWHERE);
	wanted = available(map, aside == PHYS_NONE ? reserve : 0);
	if (map->limit)
		wanted = MIN(wanted, ALIGN_DOWN(map->limit, PAGE_SIZE));
	if (wanted >= PHYSMAP_LEAST)
		given = fill(list, map, wanted);
	if (aside != PHYS_NONE)
		phys_free(map->host, aside, reserve);
	err = report(map, given, wanted);
	if (err)
		physmap_release(list, map->host);
	return err;
}

void physmap_clear(const struct region_list *list)
{
	for (unsigned i = 0; i < list->count; i++) {
		const struct region *r = &list->regions[i];

		if (r->kind == REGION_RAM)
			memset(phys_to_virt(r->hpa), 0, r->size);
	}
}

void physmap_release(struct region_list *list, struct phys *host)
{
	for (unsigned i = list->count; i-- > 0;) {
		struct region r = list->regions[i];

		if (r.kind != REGION_RAM)
			continue;
		if (phys_free(host, r.hpa, r.size))
			log_warn("guest memory: %llu KiB are lost, the free "
				 "list is full",
				 r.size / KIB);
		region_remove(list, r.gpa, r.size);
	}
}
