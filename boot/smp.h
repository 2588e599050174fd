/* SPDX-License-Identifier: MIT */
#ifndef BOOT_SMP_H
#define BOOT_SMP_H

#include "kernel/acpi.h"
#include "kernel/percpu.h"

/*
 * Starts every further CPU of the MADT, after one wait for all, and parks it
 * (kernel/park.h; lpit is acpi_lpit()'s): interrupts off, asleep, with tables
 * and stack of its own. A CPU that does not come up in time is logged and
 * left. Fills in cpus, and says how many they are.
 */
unsigned smp_park_others(const struct acpi_madt *madt, u32 lpit, u64 tsc_hz,
			 struct percpu *cpus[CPUS_MAX]);

#endif
