/* SPDX-License-Identifier: MIT */
/*
 * Gives host RAM to the guest: fills the region list around what is pinned
 * in it. What is given away is no longer free in the host's allocator, so
 * Monocle and the guest never share a page.
 */
#ifndef VMM_PHYSMAP_H
#define VMM_PHYSMAP_H

#include "arch/x86/types.h"
#include "kernel/options.h"
#include "kernel/phys.h"
#include "kernel/region.h"

#define PHYSMAP_LEAST (16 * MIB) /* of guest RAM */
/* Rows of the list left to what is added or split afterwards. */
#define PHYSMAP_SPARE 16

struct physmap {
	enum ram_mode mode;
	struct phys *host; /* where the RAM comes from */
	u64 limit;	   /* most bytes of guest RAM; 0: all there is */
	u64 reserve;	   /* bytes that stay free, in one piece if possible */
	/*
	 * RAM_RELOCATED: top of guest RAM below 4 GiB. The host's own, so
	 * that the guest's PCI hole lies where the host's does.
	 */
	gpa_t low_limit;
};

/*
 * RAM_RELOCATED: RAM from 0 up to low_limit and then from 4 GiB on, around
 * what stands in the list, never at its own host address where there is a
 * choice, and congruent modulo 1 GiB or 2 MiB where host memory allows it,
 * for the EPT's large pages.
 * RAM_IDENTITY: every free host range at its own address.
 *
 * All of it is for CPU (RWX) and DMA (RW), WB, and RAM in the E820; the
 * content is what the host left. Where the list is full, the smallest
 * ranges are left out, which is logged. What a standing region maps is
 * taken from the host's free memory, too. Each error after one log_error
 * line: -ENOMEM (less than PHYSMAP_LEAST; the list then holds no RAM),
 * -ENOSPC (the host's free list is full).
 */
int physmap_fill(struct region_list *list, const struct physmap *map);

/* Zeroes every REGION_RAM through the direct map. */
void physmap_clear(const struct region_list *list);

/* Takes every REGION_RAM off the list and frees it in host. */
void physmap_release(struct region_list *list, struct phys *host);

#endif
