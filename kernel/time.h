/* SPDX-License-Identifier: MIT */
/* The host's time-stamp counter as the clock of everything. */
#ifndef KERNEL_TIME_H
#define KERNEL_TIME_H

#include "arch/x86/types.h"

/*
 * Ticks per second: CPUID leaf 0x15 where it agrees with, else what is
 * measured by, the PIT's channel 2 and the ACPI PM timer at that port (0:
 * none), whichever runs; 50 to 100 ms, bounded. Without either what CPUID
 * states. One line in the log, and one for each two that disagree. 0: nobody
 * answers. exact: it is CPUID 0x15's, and not measured or rounded. *pm_timer
 * is 0 then where it does not count as another of them says.
 */
u64 tsc_frequency(u16 *pm_timer, bool *exact);
/* Busy-waits. */
void delay_us(u64 tsc_hz, u64 us);

#endif
