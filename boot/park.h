/* SPDX-License-Identifier: MIT */
/* How a CPU waits that has nothing to do: as deep in sleep as it goes. */
#ifndef BOOT_PARK_H
#define BOOT_PARK_H

#include "kernel/percpu.h"

#define PARK_HLT 0x100u /* no hint: there is no MWAIT */

/*
 * The hint (EAX of MWAIT) of this CPU's deepest C-state: lpit, acpi_lpit()'s,
 * where CPUID 5 has that state; else by the model; else CPUID 5's last one.
 */
u32 park_hint(u32 lpit);
/*
 * Never returns: MWAIT on cpu->monitored with cpu->hint, after the caches are
 * written back, at the lowest P-state. Interrupts are off; NMIs, SMIs and
 * writes to the line wake it, and it sleeps on.
 */
NORETURN void park(struct percpu *cpu);

#endif
