/* SPDX-License-Identifier: MIT */
/*
 * The one list of guest memory. The EPT, the VT-d second-level tables and
 * the guest's E820 are three readings of it; what is not on it, nobody
 * reaches.
 */
#ifndef KERNEL_REGION_H
#define KERNEL_REGION_H

#include "arch/x86/types.h"

#define REGION_MAX 320
#define REGION_E820_MAX 128 /* of these, rows of the guest's E820 */

enum region_kind {
	REGION_RAM,    /* host RAM that belongs to the guest */
	REGION_DEVICE, /* a device's memory: BAR, legacy VGA */
	REGION_ROM,    /* host RAM that the guest may only read and execute */
	REGION_HOLE,   /* reserved for a trapped device; maps nothing */
};

enum region_rights {
	REGION_R = 1,
	REGION_W = 2,
	REGION_X = 4,
	REGION_RW = REGION_R | REGION_W,
	REGION_RX = REGION_R | REGION_X,
	REGION_RWX = REGION_R | REGION_W | REGION_X,
};

/* SDM 11.12.2 encodings, as the EPT wants them. */
enum memory_type {
	MEMTYPE_UC = 0,
	MEMTYPE_WC = 1,
	MEMTYPE_WT = 4,
	MEMTYPE_WP = 5,
	MEMTYPE_WB = 6,
};

/* ACPI 6.4 table 15.374; 0: the region has no row in the guest's E820. */
enum e820_kind {
	E820_NONE = 0,
	E820_RAM = 1,
	E820_RESERVED = 2,
	E820_ACPI = 3,
	E820_NVS = 4,
};

struct region {
	gpa_t gpa; /* page-aligned */
	hpa_t hpa; /* page-aligned; unused for REGION_HOLE */
	u64 size;  /* bytes, a multiple of PAGE_SIZE, not 0 */
	enum region_kind kind;
	enum memory_type memtype;
	enum e820_kind e820;
	u8 cpu; /* enum region_rights: what the EPT grants */
	u8 dma; /* enum region_rights: what VT-d grants to assigned devices */
	const char *name; /* for the log; static storage */
};

/* Sorted by gpa, never overlapping. */
struct region_list {
	unsigned int count;
	struct region regions[REGION_MAX];
};

/*
 * Adds a copy of *r. -EINVAL: not page-aligned, empty, or wraps around;
 * -EEXIST: overlaps a region of the list (then *clash, if not NULL, points at
 * it); -ENOSPC: the list is full.
 */
int region_add(struct region_list *list, const struct region *r,
	       const struct region **clash);

/*
 * Removes what lies in [gpa, gpa + size); regions at its edges are cut, and
 * one that contains it is split. Returns 0 or -ENOSPC (nothing changed).
 */
int region_remove(struct region_list *list, gpa_t gpa, u64 size);

/*
 * Adds r, 1:1; where the list has something already, the rights add up, and
 * the CPU's stay none where they are none. Errors as region_add()'s.
 */
int region_paint(struct region_list *list, struct region r);

/* region_add(), and on an error a line in the log: this map cannot be used. */
int region_pin(struct region_list *list, const struct region *r);
/* A hole that the guest's E820 shows as reserved: region_pin()'s errors. */
int region_pin_hole(struct region_list *list, gpa_t gpa, u64 size,
		    const char *name);

/* Device memory: uncached, but without "ignore PAT" in the EPT; not for DMA. */
static inline struct region region_device(gpa_t gpa, hpa_t hpa, u64 size,
					  const char *name)
{
	return (struct region){.gpa = gpa,
			       .hpa = hpa,
			       .size = size,
			       .kind = REGION_DEVICE,
			       .memtype = MEMTYPE_UC,
			       .cpu = REGION_RW,
			       .name = name};
}

/* The region that holds gpa, or NULL. */
const struct region *region_find(const struct region_list *list, gpa_t gpa);

/*
 * The lowest free range at or above from, and below limit: returns its size
 * in bytes and sets *gpa, or returns 0 where nothing is free.
 */
u64 region_next_free(const struct region_list *list, gpa_t from, gpa_t limit,
		     gpa_t *gpa);

/* Prints the list, one line a region (the independent walker reads this):
 *   region GPA-END hpa HPA KIND cpu rwx dma rw- WB ram NAME
 */
void region_log(const struct region_list *list);

#endif
