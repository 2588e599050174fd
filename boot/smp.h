/* SPDX-License-Identifier: MIT */
#ifndef BOOT_SMP_H
#define BOOT_SMP_H

#include "kernel/acpi.h"

/*
 * Starts every further CPU of the MADT, after one wait for all, and parks it
 * (boot/park.h; lpit is acpi_lpit()'s): interrupts off, asleep, with tables
 * and stack of its own. A CPU that does not come up in time is logged and
 * left.
 */
void smp_park_others(const struct acpi_madt *madt, u32 lpit, u64 tsc_hz);

#endif
