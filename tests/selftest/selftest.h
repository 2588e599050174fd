/* SPDX-License-Identifier: MIT */
/*
 * Drives the IOMMU without a guest, with QEMU's edu device
 * (1234:11e8, QEMU docs/specs/edu.rst) as the DMA engine. Each case prints
 * one line, "selftest vtd: NAME: ok" or "... FAILED ...".
 */
#ifndef TESTS_SELFTEST_SELFTEST_H
#define TESTS_SELFTEST_SELFTEST_H

#include "drivers/vtd/vtd.h"

/*
 * After vtd_start(), with the local APIC enabled and IF clear; no function
 * is assigned. Leaves edu without bus mastering, and released. Returns the
 * number of cases that failed; a device or memory that lacks is one.
 */
int vtd_selftest(struct vtd *v, struct pci_host *pci);
/*
 * The long one: DMA aimed at every page of [from, to), all of it RAM: not
 * one changes, and every one makes a fault. Returns the failures.
 */
int vtd_selftest_sweep(struct vtd *v, struct pci_host *pci, hpa_t from,
		       hpa_t to);

#endif
