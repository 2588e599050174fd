/* SPDX-License-Identifier: MIT */
/* An assignment with nothing in it, for tests of what chooses and places. */
#ifndef TESTS_UNIT_ASSIGN_FAKES_H
#define TESTS_UNIT_ASSIGN_FAKES_H

#include <string.h>

#include "arch/x86/vmx/ept.h"
#include "vmm/assign/assigned.h"

struct assignment *fresh_assignment(void);

/* Static: it holds pages. It has an IOMMU. */
static inline struct assignment *empty_assignment(void)
{
	static struct {
		struct assignment all;
		struct pci_host pci;
		struct vtd vtd;
		struct acpi_madt madt;
		struct boot_info boot;
		struct options options;
		struct vm vm;
		struct ept ept;
		struct vpci vpci;
		struct ioapic ioapic;
		struct virq virq;
	} w;

	memset(&w, 0, sizeof(w));
	w.vm.ept = &w.ept;
	w.all.pci = &w.pci;
	w.all.vtd = &w.vtd;
	w.all.madt = &w.madt;
	w.all.boot = &w.boot;
	w.all.options = &w.options;
	w.all.vm = &w.vm;
	w.all.vpci = &w.vpci;
	w.all.ioapic = &w.ioapic;
	w.all.virq = &w.virq;
	return &w.all;
}

#endif
