/* SPDX-License-Identifier: MIT */
/*
 * Memory type range registers (SDM vol 3 11.11): the guest's view only, for
 * a kernel uses PAT where it finds them right. The EPT decides what they
 * would. After reset the default is write-back, and variable ranges make
 * the holes for devices uncacheable.
 */
#ifndef VMM_DEVMODEL_MTRR_H
#define VMM_DEVMODEL_MTRR_H

#include "vmm/core/bus.h"

#define MTRR_VARIABLE 8
#define MTRR_FIXED 11

struct mtrr_hole {
	u64 base, size; /* bytes, multiples of 4096 */
};

struct mtrr {
	u64 default_type;
	u64 fixed[MTRR_FIXED];
	u64 variable[2 * MTRR_VARIABLE]; /* base, mask, base, mask, ... */
	u64 reset[2 * MTRR_VARIABLE];	 /* what reset puts there */
	u64 reserved;			 /* address bits beyond the width */
	bool cold; /* off at a reset: the guest's firmware switches them on */
};

/*
 * phys_bits: guest-physical address width, bits. -EINVAL: a hole is not
 * page-aligned or lies beyond the width; -ENOSPC: the holes need more than
 * MTRR_VARIABLE ranges of a power of two, or the bus is full; -EEXIST.
 */
int mtrr_init(struct mtrr *m, struct bus *bus, unsigned phys_bits,
	      const struct mtrr_hole *holes, unsigned count);
void mtrr_reset(struct mtrr *m);

#endif
