/* SPDX-License-Identifier: MIT */
/*
 * MSRs. Those that cost no exit are rows of one allow-list with a reason
 * each (msr_bitmap_fill); a few with a fixed answer are another; the rest
 * are device models' on the bus. What is in none of them is #GP.
 */
#ifndef VMM_VCPU_MSR_H
#define VMM_VCPU_MSR_H

#include "vmm/core/vm.h"

/* bitmap: one page, filled with ones here and opened by the rows. */
void msr_bitmap_fill(void *bitmap);
/* What APICv serves without an exit: SDM 30.5. */
void msr_bitmap_open_apic(void *bitmap);
/* Those that the guest reaches and the VMCS does not switch, as after RESET. */
void msr_reset(void);
/* Puts the MSRs with fixed answers on the bus. Its errors. */
int msr_init(struct bus *bus);

#endif
