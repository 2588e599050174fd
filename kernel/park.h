/* SPDX-License-Identifier: MIT */
/* How a CPU waits that has nothing to do: as deep in sleep as it goes. */
#ifndef KERNEL_PARK_H
#define KERNEL_PARK_H

#include "kernel/percpu.h"

#define PARK_HLT 0x100u /* no hint: there is no MWAIT */

/*
 * The hint (EAX of MWAIT) of this CPU's deepest C-state: lpit, acpi_lpit()'s,
 * where CPUID 5 has that state; else by the model; else CPUID 5's last one.
 */
u32 park_hint(u32 lpit);
/*
 * The calling CPU is going to sleep: at the lowest P-state, its caches written
 * back; and it is awake, at the speed that it had.
 */
void park_begin(struct percpu *cpu);
void park_end(struct percpu *cpu);
/*
 * Sleeps once, by cpu->hint, unless the CPU has been told to look around: its
 * caller clears cpu->attention before it looks for what there is to do.
 * Interrupts are off; percpu_kick(), other NMIs and SMIs end it.
 */
void park_sleep(struct percpu *cpu);
/* Never returns: sleeps but for its jobs. */
NORETURN void park(struct percpu *cpu);
/* For a parked CPU, which calls job(ctx). One that does not take it in a second
 * of tsc_hz ticks: -ETIMEDOUT, and it will not. */
int park_give_job(struct percpu *cpu, void (*job)(void *ctx), void *ctx,
		  u64 tsc_hz);

#endif
