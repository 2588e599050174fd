/* SPDX-License-Identifier: MIT */
/*
 * Exits by reason: how many, and how many TSC ticks Monocle spent on them
 * (from the first instruction after the exit to the last before the entry).
 */
#ifndef VMM_CORE_STATS_H
#define VMM_CORE_STATS_H

#include "arch/x86/types.h"

#define STATS_REASONS 76 /* SDM appendix C */

struct exit_count {
	u64 count, ticks;
};

/*
 * Of one vCPU, or the sum of all: what the hypercalls "stats" copy to the guest
 * (docs/hypercalls.md).
 */
struct stats {
	u64 tsc_hz;
	u64 start; /* TSC at the guest's first instruction */
	u64 now;   /* TSC when this was read */
	u64 ticks; /* in Monocle, since start */
	u64 exits;
	struct exit_count reasons[STATS_REASONS];
	u64 vcpus;	  /* that it is the sum of; 0: one */
	u64 spins;	  /* of the sum: PAUSEs while the lock was another's */
	u64 longest_hold; /* of the sum: of that lock, TSC ticks */
};

/* Of one assigned function, since the guest's start: docs/hypercalls.md. */
struct device_stats {
	u16 bdf; /* bus << 8 | device << 3 | function */
	u16 reserved[3];
	u64 config, mmio, ports; /* exits: accesses that Monocle carried out */
	u64 interrupts;		 /* messages, or pulses of its line */
	u64 faults;		 /* that the IOMMU recorded of it */
	u64 storms;
};

static inline void stats_exit(struct stats *s, u32 reason, u64 ticks)
{
	if (reason < STATS_REASONS) {
		s->reasons[reason].count++;
		s->reasons[reason].ticks += ticks;
	}
}

const char *exit_reason_name(u32 reason);
/* Of all reasons: ticks and exits, which no exit counts for itself. */
void stats_total(struct stats *s);
/* One more vCPU's, to a sum that begins with all zero. */
void stats_add(struct stats *sum, const struct stats *one);
/* now: TSC. */
void stats_log(const struct stats *s, u64 now);
/* One vCPU's in a line. */
void stats_log_vcpu(const struct stats *s, u32 apic_id, u64 now);

#endif
