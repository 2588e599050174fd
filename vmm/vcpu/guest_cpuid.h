/* SPDX-License-Identifier: MIT */
/*
 * What the guest sees of CPUID: an allow-list, one row a leaf. A feature bit
 * is shown only if the host has it and it works in the guest; a leaf without
 * a row is all zero.
 */
#ifndef VMM_VCPU_GUEST_CPUID_H
#define VMM_VCPU_GUEST_CPUID_H

#include "arch/x86/cpu.h"
#include "vmm/core/vm.h"

/* What only the running vCPU can tell of its CPUID. */
struct cpuid_context {
	u64 cr4;
	bool apic_off; /* IA32_APIC_BASE.EN is 0 */
	u32 apic_id;
	const struct guest_features *features;
};
#include "vmm/vcpu/hypercall.h"

/* Monocle's own leaves: docs/hypercalls.md. */
#define CPUID_HYPERVISOR 0x40000000u
#define CPUID_KVM 0x40000100u
#define HYPERCALL_BASE 0x4d4f0000u

struct cpuid guest_cpuid(const struct cpuid_context *ctx, u32 leaf,
			 u32 subleaf);
/* Leaves of the calling CPU, for guest_features_limit(). */
void guest_features_read(struct cpuid leaves[GUEST_COMMON]);
/* What the first CPU has and the other one lacks, the guest is not shown, on
 * either; before its first entry. */
void guest_features_limit(struct guest_features *f,
			  const struct cpuid first[GUEST_COMMON],
			  const struct cpuid other[GUEST_COMMON]);
/* Which CR4, EFER, XCR0 and XSS bits follow from the leaves. */
/* cpu2: the secondary controls in force, which some instructions need. */
void guest_features_init(struct guest_features *f, u32 cpu2);

#endif
