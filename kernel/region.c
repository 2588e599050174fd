/* SPDX-License-Identifier: MIT */
#include "kernel/region.h"
#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/string.h"

/* No region ends above this: an exclusive end always fits a gpa_t. */
#define ADDRESS_LIMIT (~(u64)PAGE_MASK)

static gpa_t end_of(const struct region *r)
{
	return r->gpa + r->size;
}

/* The index of the first region that ends above gpa, or count. */
static unsigned first_above(const struct region_list *list, gpa_t gpa)
{
	unsigned low = 0, high = list->count;

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (end_of(&list->regions[middle]) > gpa)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* Moves what stands at from and behind it to to; the caller sees to room. */
static void shift(struct region_list *list, unsigned from, unsigned to)
{
	memmove(&list->regions[to], &list->regions[from],
		(list->count - from) * sizeof(list->regions[0]));
	list->count = list->count - from + to;
}

static bool well_formed(const struct region *r)
{
	u64 bits = r->gpa | r->size;

	if (r->kind != REGION_HOLE)
		bits |= r->hpa;
	if (bits & PAGE_MASK || r->size == 0)
		return false;
	if (r->kind != REGION_HOLE && r->size > ADDRESS_LIMIT - r->hpa)
		return false;
	return r->size <= ADDRESS_LIMIT - r->gpa;
}

int region_add(struct region_list *list, const struct region *r,
	       const struct region **clash)
{
	unsigned at;

	if (!well_formed(r))
		return -EINVAL;
	at = first_above(list, r->gpa);
	if (at < list->count && list->regions[at].gpa < end_of(r)) {
		if (clash)
			*clash = &list->regions[at];
		return -EEXIST;
	}
	if (list->count == REGION_MAX)
		return -ENOSPC;
	shift(list, at, at + 1);
	list->regions[at] = *r;
	return 0;
}

static void cut_front(struct region *r, gpa_t gpa)
{
	u64 cut = gpa - r->gpa;

	r->gpa = gpa;
	r->size -= cut;
	if (r->kind != REGION_HOLE)
		r->hpa += cut;
}

int region_remove(struct region_list *list, gpa_t gpa, u64 size)
{
	/* Outwards to whole pages: what is removed may not stay reachable. */
	gpa_t start = ALIGN_DOWN(gpa, PAGE_SIZE), end;
	struct region *regions = list->regions;
	unsigned from, to;

	if (size == 0 || start == ADDRESS_LIMIT)
		return 0;
	end = size > ADDRESS_LIMIT - gpa ? ADDRESS_LIMIT
					 : ALIGN_UP(gpa + size, PAGE_SIZE);
	from = first_above(list, start);
	if (from < list->count && regions[from].gpa < start) {
		if (end_of(&regions[from]) > end) {
			if (list->count == REGION_MAX)
				return -ENOSPC;
			shift(list, from, from + 1);
			regions[from] = regions[from + 1];
		}
		regions[from].size = start - regions[from].gpa;
		from++;
	}
	to = first_above(list, end);
	if (to < list->count && regions[to].gpa < end)
		cut_front(&regions[to], end);
	shift(list, to, from);
	return 0;
}

const struct region *region_find(const struct region_list *list, gpa_t gpa)
{
	unsigned at = first_above(list, gpa);

	if (at == list->count || list->regions[at].gpa > gpa)
		return NULL;
	return &list->regions[at];
}

u64 region_next_free(const struct region_list *list, gpa_t from, gpa_t limit,
		     gpa_t *gpa)
{
	unsigned at = first_above(list, from);

	for (; at < list->count && list->regions[at].gpa <= from; at++)
		from = end_of(&list->regions[at]);
	if (from >= limit)
		return 0;
	*gpa = from;
	if (at < list->count && list->regions[at].gpa < limit)
		limit = list->regions[at].gpa;
	return limit - from;
}

int region_pin(struct region_list *list, const struct region *r)
{
	const struct region *clash;
	int err = region_add(list, r, &clash);

	if (err == -EEXIST)
		log_error("guest memory: %s at 0x%lx lies over %s at 0x%lx; "
			  "this machine's map cannot be used",
			  r->name, r->gpa, clash->name, clash->gpa);
	else if (err)
		log_error("guest memory: %s at 0x%lx does not fit the list",
			  r->name, r->gpa);
	return err;
}

int region_pin_hole(struct region_list *list, gpa_t gpa, u64 size,
		    const char *name)
{
	struct region r = {.gpa = gpa,
			   .size = size,
			   .kind = REGION_HOLE,
			   .e820 = E820_RESERVED,
			   .name = name};

	return region_pin(list, &r);
}

int region_paint(struct region_list *list, struct region r)
{
	int err = 0;

	while (!err && r.size) {
		const struct region *found = region_find(list, r.gpa);
		struct region part = found ? *found : r;
		gpa_t at;

		if (found) {
			part.size -= r.gpa - found->gpa;
			part.size = MIN(part.size, r.size);
			part.gpa = part.hpa = r.gpa;
			part.dma |= r.dma;
			part.cpu = part.cpu ? part.cpu | r.cpu : 0;
			err = region_remove(list, part.gpa, part.size);
		} else {
			part.size = region_next_free(list, r.gpa,
						     r.gpa + r.size, &at);
		}
		err = err ? err : region_add(list, &part, NULL);
		r.gpa = r.hpa = r.gpa + part.size;
		r.size -= part.size;
	}
	return err;
}

static const char *name_of(unsigned n, const char *const names[],
			   unsigned count)
{
	return n < count ? names[n] : "?";
}

#define NAME(n, names) name_of(n, names, ARRAY_SIZE(names))

void region_log(const struct region_list *list)
{
	static const char *const kinds[] = {
		[REGION_RAM] = "ram",
		[REGION_DEVICE] = "device",
		[REGION_ROM] = "rom",
		[REGION_HOLE] = "hole",
	};
	static const char *const rights[] = {
		"---", "r--", "-w-", "rw-", "--x", "r-x", "-wx", "rwx",
	};
	static const char *const memtypes[] = {"UC", "WC", "?", "?",
					       "WT", "WP", "WB"};
	static const char *const e820[] = {
		[E820_NONE] = "none",	      [E820_RAM] = "ram",
		[E820_RESERVED] = "reserved", [E820_ACPI] = "acpi",
		[E820_NVS] = "nvs",
	};

	for (unsigned i = 0; i < list->count; i++) {
		const struct region *r = &list->regions[i];

		log_info("region %lx-%lx hpa %lx %s cpu %s dma %s %s %s %s",
			 r->gpa, end_of(r), r->hpa, NAME(r->kind, kinds),
			 rights[r->cpu & REGION_RWX],
			 rights[r->dma & REGION_RWX],
			 NAME(r->memtype, memtypes), NAME(r->e820, e820),
			 r->name);
	}
}
