/* SPDX-License-Identifier: MIT */
/*
 * The guest's time. Unit: ticks of the time-stamp counter (the guest reads
 * the host's TSC with no offset). Device models keep their deadlines here;
 * the vCPU loop arms a timer of the CPU for the nearest and calls
 * vclock_run() when it has passed.
 */
#ifndef VMM_CORE_VCLOCK_H
#define VMM_CORE_VCLOCK_H

#include "arch/x86/types.h"

#define VCLOCK_TIMERS 16
#define VCLOCK_NEVER (~0ull)

struct vtimer {
	u64 deadline; /* TSC ticks, or VCLOCK_NEVER; read by all, set by
			 vtimer_set() only */
	void (*fire)(void *dev, u64 now); /* disarmed when it is called */
	void *dev;
};

struct vclock {
	u64 tsc_hz;
	u64 next; /* the nearest deadline, kept by vtimer_set() */
	unsigned count;
	struct vtimer *timers[VCLOCK_TIMERS];
	/* If not NULL: who waits for `next` hears that it is another. */
	void (*changed)(void *ctx);
	void *ctx;
};

void vclock_init(struct vclock *clock, u64 tsc_hz);
/* Adds a disarmed timer, which the caller owns; -ENOSPC: no room. */
int vclock_add(struct vclock *clock, struct vtimer *timer,
	       void (*fire)(void *dev, u64 now), void *dev);
void vtimer_set(struct vclock *clock, struct vtimer *timer, u64 deadline);
/* Fires every timer whose deadline is not after now. */
void vclock_run(struct vclock *clock, u64 now);

/*
 * value * to / from with a 128-bit product: converts between frequencies.
 * The quotient must fit 64 bits (frequencies below 2^40 Hz do for values
 * below 2^56).
 */
static inline u64 scale_ticks(u64 value, u64 to, u64 from)
{
#ifdef MONOCLE_HOST
	return (u64)((unsigned __int128)value * to / from);
#else
	u64 quotient, high;

	/* By hand: the compiler would call libgcc, which is not linked in. */
	__asm__("mulq %3\n\tdivq %4"
		: "=&a"(quotient), "=&d"(high)
		: "0"(value), "r"(to), "r"(from)
		: "cc");
	return quotient;
#endif
}

#endif
