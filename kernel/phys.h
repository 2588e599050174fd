/* SPDX-License-Identifier: MIT */
/*
 * The physical memory that firmware calls available, less what the loader
 * and Monocle occupy: a sorted list of free ranges, first fit from the top.
 * All of it is reachable through the direct map (phys_to_virt). Any CPU takes
 * and frees pages; of the rest, one CPU at start. No exit's hot path allocates.
 */
#ifndef KERNEL_PHYS_H
#define KERNEL_PHYS_H

#include "arch/x86/types.h"

#define PHYS_RANGES 512
#define PHYS_NONE (~0ull)
#define PHYS_ANYWHERE (~0ull)

struct phys_range {
	hpa_t base;
	u64 size;
};

struct phys {
	unsigned count;
	struct phys_range free[PHYS_RANGES]; /* sorted, never touching */
};

/* Monocle's own; set up by kernel/phys.c's phys_init(). */
extern struct phys host_memory;

struct boot_info;

/*
 * Fills host_memory from the firmware's map: whatever any entry calls other
 * than available is left out, as are page 0, the legacy hole, the loader's
 * information, modules, framebuffer and Monocle's image.
 */
void phys_init(const struct boot_info *info);

/* Adds [base, base + size) (whole pages inside it); merges. -ENOSPC. */
int phys_free(struct phys *p, hpa_t base, u64 size);
/* Takes [base, base + size) out wherever it is free. -ENOSPC. */
int phys_reserve(struct phys *p, hpa_t base, u64 size);
/*
 * size bytes (rounded up to pages), aligned to align (a power of two, at
 * least a page), wholly below limit; from the top. PHYS_NONE where there is
 * none. The content is undefined.
 */
hpa_t phys_alloc(struct phys *p, u64 size, u64 align, hpa_t limit);
/* The largest free range below limit and at or above from; size 0: none. */
struct phys_range phys_largest(const struct phys *p, hpa_t from, hpa_t limit);
u64 phys_total(const struct phys *p);
/*
 * For memory that hardware still works in, as firmware left it: takes it out
 * of host_memory; false where Monocle or the loader has put something.
 */
bool phys_keep(hpa_t base, u64 size);

/*
 * page_alloc() stays below this: 4 GiB while only the boot loader's page
 * tables are there, and for what 32-bit code must reach.
 */
extern hpa_t page_limit;
/* One zeroed page of host_memory through the direct map, or NULL. */
void *page_alloc(void);
void page_free(void *page);

/* The direct map: host-physical address to pointer and back. */
#define DIRECT_MAP 0xffff800000000000ull
#ifdef MONOCLE_HOST
void *phys_to_virt(hpa_t hpa);
hpa_t virt_to_phys(const void *p);
#else
static inline void *phys_to_virt(hpa_t hpa)
{
	return (void *)(DIRECT_MAP + hpa);
}

/* Of a pointer into the direct map or into Monocle's image. */
hpa_t virt_to_phys(const void *p);
#endif

#endif
