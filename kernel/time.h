/* SPDX-License-Identifier: MIT */
/* The host's time-stamp counter as the clock of everything. */
#ifndef KERNEL_TIME_H
#define KERNEL_TIME_H

#include "arch/x86/types.h"

/*
 * Ticks per second: CPUID leaf 0x15 where it agrees with, else what is
 * measured by, the PIT's channel 2 or, where that is stopped, the ACPI PM
 * timer at that port (0: none); 50 ms, bounded. Without either what CPUID
 * states. 0: nobody answers.
 */
u64 tsc_frequency(u16 pm_timer);
/* Busy-waits. */
void delay_us(u64 tsc_hz, u64 us);

#endif
