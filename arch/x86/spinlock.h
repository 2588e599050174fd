/* SPDX-License-Identifier: MIT */
/*
 * How CPUs wait for one another: for a lock, which they take in the order in
 * which they asked, or for what another one counts. A lock keeps no interrupts
 * off: the host takes them with IF clear everywhere, and an NMI's handler may
 * not wait for what it has interrupted.
 */
#ifndef ARCH_X86_SPINLOCK_H
#define ARCH_X86_SPINLOCK_H

#include "arch/x86/io.h"

/* All zero: free. */
struct spinlock {
	u32 next;  /* the ticket of who asks next */
	u32 owner; /* the ticket of who has it, or of who gets it */
	u64 spins; /* PAUSEs of all who waited; written under the lock */
};

/* False: another one has it, or is waiting for it. */
static inline bool spin_trylock(struct spinlock *l)
{
	u32 ticket = __atomic_load_n(&l->owner, __ATOMIC_ACQUIRE);

	return __atomic_compare_exchange_n(&l->next, &ticket, ticket + 1, false,
					   __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static inline void spin_lock(struct spinlock *l)
{
	u32 ticket = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED);
	u64 spins = 0;

	for (; __atomic_load_n(&l->owner, __ATOMIC_ACQUIRE) != ticket; spins++)
		cpu_relax();
	l->spins += spins;
}

static inline void spin_unlock(struct spinlock *l)
{
	__atomic_store_n(&l->owner, l->owner + 1, __ATOMIC_RELEASE);
}

/* Until another CPU has counted up to n, for so many ticks at most; or false. */
static inline bool spin_until(const u32 *count, u32 n, u64 ticks)
{
	u64 start = rdtsc();

	while (__atomic_load_n(count, __ATOMIC_ACQUIRE) < n) {
		if (rdtsc() - start > ticks)
			return false;
		cpu_relax();
	}
	return true;
}

#endif
