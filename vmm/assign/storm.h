/* SPDX-License-Identifier: MIT */
/*
 * When interrupts come faster than a guest can serve them: more than
 * STORM_COUNT within STORM_MS. Their source is then held for as long again,
 * so that the guest, and Monocle, get on.
 */
#ifndef VMM_ASSIGN_STORM_H
#define VMM_ASSIGN_STORM_H

#include "arch/x86/types.h"

#define STORM_MS 100
#define STORM_COUNT 10000 /* 100,000 a second */

/* All zeros is the start. */
struct storm {
	u64 start; /* of the time that is counted, TSC ticks */
	u32 count;
	u64 storms;
	u64 rate; /* of the last one: interrupts a second */
};

static inline u64 storm_ticks(u64 tsc_hz)
{
	return tsc_hz / 1000 * STORM_MS;
}

/* One interrupt at now; true: it is one too many, and the next begins anew. */
bool storm_count(struct storm *s, u64 now, u64 tsc_hz);

#endif
