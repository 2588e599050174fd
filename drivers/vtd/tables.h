/* SPDX-License-Identifier: MIT */
/*
 * Second-level page tables: from the addresses that a device uses (gpa) to
 * host memory. VT-d specification 3.7 and 9.8. Pages of 4 KiB, 2 MiB, 1 GiB;
 * 3, 4 or 5 levels of 512 entries; all from page_alloc().
 *
 * A changed entry has left the caches when a call returns (where flush says
 * so), but is in force only after the caller's invalidation. Tables are
 * reused, and given back by sl_free() alone: hardware that still walks an
 * emptied table finds zeros, never another owner's data.
 */
#ifndef DRIVERS_VTD_TABLES_H
#define DRIVERS_VTD_TABLES_H

#include "arch/x86/types.h"

/* DMA to this range is an interrupt, never memory (3.14): not mapped. */
#define INTERRUPT_BASE 0xfee00000ull
#define INTERRUPT_END 0xfef00000ull

#define SL_R BIT(0)
#define SL_W BIT(1)
#define SL_PAGE_SIZE BIT(7) /* a leaf above level 1 */
#define SL_ADDRESS 0x000ffffffffff000ull

struct second_level {
	u64 *root;
	u8 levels;	/* 3, 4 or 5 */
	u8 leaf_levels; /* largest page: 1 is 4 KiB, 2 is 2 MiB, 3 is 1 GiB */
	u8 width;	/* bits of a gpa */
	u8 host_width;	/* bits of a host address */
	bool flush;	/* some walk does not snoop the caches */
	u64 tables;	/* pages in use, the root among them */
};

/* Sets root and tables; the rest is the caller's. -ENOMEM. */
int sl_init(struct second_level *t);
void sl_free(struct second_level *t);
/*
 * Maps [gpa, gpa + size) to hpa..., all of them page-aligned, size not 0,
 * for rights SL_R and SL_W; or unmaps what is mapped there, for rights 0
 * (larger pages at the edges are split). -EINVAL; -ERANGE: beyond an address
 * width; -EEXIST: a page in it is mapped; -ENOMEM. A map that fails has
 * mapped nothing; an unmap that fails has done a part.
 */
int sl_map(struct second_level *t, gpa_t gpa, hpa_t hpa, u64 size, u64 rights);
/*
 * The table for a unit that wants fewer levels than t has; 0 where there is
 * no memory for one.
 */
hpa_t sl_root(struct second_level *t, unsigned levels);

#endif
