/* SPDX-License-Identifier: MIT */
/* Which of the machine's CPUs can run one guest together. */
#ifndef VMM_CPUS_H
#define VMM_CPUS_H

#include "arch/x86/vmx/vmx.h"
#include "kernel/percpu.h"
#include "vmm/vcpu/guest_cpuid.h"

/*
 * Looks at the calling CPU and at count parked ones, in place of which cpus
 * then has those that run the guest, too: most at most. One that cannot do what
 * the first one can, or is at odds with it in time, is left parked; each, and
 * what firmware has set otherwise on them, is one line of the log. Of features,
 * those that one of them lacks go. Returns how many further ones there are.
 */
unsigned cpus_choose(struct percpu *cpus[CPUS_MAX], unsigned count, u64 most,
		     const struct vmx_capabilities *vmx,
		     struct guest_features *features, u64 tsc_hz);

#endif
