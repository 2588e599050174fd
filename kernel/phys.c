/* SPDX-License-Identifier: MIT */
#include "kernel/phys.h"

#include "arch/x86/errno.h"
#include "arch/x86/spinlock.h"
#include "kernel/boot_info.h"
#include "kernel/log.h"
#include "kernel/string.h"

/*
 * What the direct map's half of the address space can hold. A firmware map
 * that names more than that is wrong.
 */
#define PHYS_LIMIT BIT(46)
#define LEGACY_HOLE 0xa0000 /* VGA memory and BIOS, whatever the map says */
#define LEGACY_HOLE_SIZE 0x60000

struct phys host_memory;
static struct phys available; /* by the firmware's map alone */
hpa_t page_limit = PHYS_ANYWHERE;

/* Each reservation of phys_init() splits one range at most. */
_Static_assert(PHYS_RANGES >= BOOT_MEMORY_MAX + BOOT_MODULES_MAX + 8,
	       "phys_init() must not run out of ranges");

static hpa_t range_end(const struct phys_range *r)
{
	return r->base + r->size;
}

/* The end of [base, base + size), cut at PHYS_LIMIT; base for none. */
static hpa_t clip_end(hpa_t base, u64 size)
{
	if (base >= PHYS_LIMIT)
		return base;
	return base + MIN(size, PHYS_LIMIT - base);
}

/* Puts n ranges in the place of those at [first, last). */
static int splice(struct phys *p, unsigned first, unsigned last,
		  const struct phys_range *ranges, unsigned n)
{
	unsigned count = p->count - (last - first) + n;

	if (count > PHYS_RANGES)
		return -ENOSPC;
	memmove(&p->free[first + n], &p->free[last],
		(p->count - last) * sizeof(p->free[0]));
	memcpy(&p->free[first], ranges, n * sizeof(p->free[0]));
	p->count = count;
	return 0;
}

int phys_free(struct phys *p, hpa_t base, u64 size)
{
	hpa_t end = ALIGN_DOWN(clip_end(base, size), PAGE_SIZE);
	hpa_t start = base < PHYS_LIMIT ? ALIGN_UP(base, PAGE_SIZE) : base;
	unsigned first = 0, last;
	struct phys_range merged;

	if (start >= end)
		return 0;
	while (first < p->count && range_end(&p->free[first]) < start)
		first++;
	for (last = first; last < p->count && p->free[last].base <= end;
	     last++) {
		start = MIN(start, p->free[last].base);
		end = MAX(end, range_end(&p->free[last]));
	}
	merged = (struct phys_range){start, end - start};
	return splice(p, first, last, &merged, 1);
}

int phys_reserve(struct phys *p, hpa_t base, u64 size)
{
	hpa_t start = ALIGN_DOWN(base, PAGE_SIZE);
	hpa_t end = clip_end(base, size);
	unsigned first = 0, last, n = 0;
	struct phys_range rest[2];

	if (end <= base)
		return 0;
	end = ALIGN_UP(end, PAGE_SIZE);
	while (first < p->count && range_end(&p->free[first]) <= start)
		first++;
	last = first;
	while (last < p->count && p->free[last].base < end)
		last++;
	if (first == last)
		return 0;
	if (p->free[first].base < start) {
		rest[n].base = p->free[first].base;
		rest[n++].size = start - p->free[first].base;
	}
	if (range_end(&p->free[last - 1]) > end) {
		rest[n].base = end;
		rest[n++].size = range_end(&p->free[last - 1]) - end;
	}
	return splice(p, first, last, rest, n);
}

hpa_t phys_alloc(struct phys *p, u64 size, u64 align, hpa_t limit)
{
	if (!size || size > PHYS_LIMIT)
		return PHYS_NONE;
	size = ALIGN_UP(size, PAGE_SIZE);
	align = MAX(align, PAGE_SIZE);
	for (unsigned i = p->count; i-- > 0;) {
		hpa_t base = p->free[i].base;
		hpa_t end = MIN(range_end(&p->free[i]), limit);
		hpa_t at;

		if (end <= base || end - base < size)
			continue;
		at = ALIGN_DOWN(end - size, align);
		if (at >= base && !phys_reserve(p, at, size))
			return at;
	}
	return PHYS_NONE;
}

struct phys_range phys_largest(const struct phys *p, hpa_t from, hpa_t limit)
{
	struct phys_range best = {0, 0};

	for (unsigned i = 0; i < p->count; i++) {
		hpa_t base = MAX(p->free[i].base, from);
		hpa_t end = MIN(range_end(&p->free[i]), limit);

		if (end > base && end - base > best.size)
			best = (struct phys_range){base, end - base};
	}
	return best;
}

u64 phys_total(const struct phys *p)
{
	u64 total = 0;

	for (unsigned i = 0; i < p->count; i++)
		total += p->free[i].size;
	return total;
}

bool phys_keep(hpa_t base, u64 size)
{
	if (!phys_largest(&available, base, base + size).size)
		return true;
	return phys_largest(&host_memory, base, base + size).size == size &&
	       !phys_reserve(&host_memory, base, size);
}

static struct spinlock pages;

void *page_alloc(void)
{
	hpa_t hpa;

	spin_lock(&pages);
	hpa = phys_alloc(&host_memory, PAGE_SIZE, PAGE_SIZE, page_limit);
	spin_unlock(&pages);
	if (hpa == PHYS_NONE)
		return NULL;
	return memset(phys_to_virt(hpa), 0, PAGE_SIZE);
}

void page_free(void *page)
{
	int err = 0;

	spin_lock(&pages);
	if (page)
		err = phys_free(&host_memory, virt_to_phys(page), PAGE_SIZE);
	spin_unlock(&pages);
	if (err)
		log_warn("memory: a page is lost, the free list is full");
}

#ifndef MONOCLE_HOST
extern const char image_start[]; /* linker.ld: where the image is linked */

static hpa_t image_hpa;

hpa_t virt_to_phys(const void *p)
{
	u64 va = (u64)p, image = (u64)image_start;

	return va >= image ? va - image + image_hpa : va - DIRECT_MAP;
}
#endif

/* Available entries first: what another entry denies goes out again. */
static void add_firmware_map(struct phys *p, const struct boot_info *info)
{
	const struct boot_memory *m = info->memory;
	unsigned count = MIN(info->memory_count, BOOT_MEMORY_MAX);

	for (unsigned i = 0; i < count; i++)
		if (m[i].kind == MEMORY_AVAILABLE)
			phys_free(p, m[i].base, m[i].size);
	for (unsigned i = 0; i < count; i++)
		if (m[i].kind != MEMORY_AVAILABLE)
			phys_reserve(p, m[i].base, m[i].size);
}

void phys_init(const struct boot_info *info)
{
	struct phys *p = &host_memory;
	unsigned modules = MIN(info->module_count, BOOT_MODULES_MAX);

#ifndef MONOCLE_HOST
	image_hpa = info->image;
#endif
	p->count = 0;
	add_firmware_map(p, info);
	available = *p;
	/* Real-mode vectors and BIOS data: ours neither to use nor to give. */
	phys_reserve(p, 0, PAGE_SIZE);
	phys_reserve(p, LEGACY_HOLE, LEGACY_HOLE_SIZE);
	phys_reserve(p, info->info, info->info_size);
	phys_reserve(p, info->image, info->image_size);
	for (unsigned i = 0; i < modules; i++)
		phys_reserve(p, info->modules[i].start, info->modules[i].size);
	if (info->fb.kind != DISPLAY_NONE)
		phys_reserve(p, info->fb.base,
			     (u64)info->fb.pitch * info->fb.height);
}
