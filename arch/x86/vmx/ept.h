/* SPDX-License-Identifier: MIT */
/*
 * Extended page tables (SDM 29.3) as a reading of the region list: what the
 * CPU may do. 4-level, write-back walks, no accessed and dirty bits; memory
 * types are the region's, without "ignore PAT", so that the guest's
 * write-combining works on device memory.
 */
#ifndef ARCH_X86_VMX_EPT_H
#define ARCH_X86_VMX_EPT_H

#include "arch/x86/vmx/vmx.h"
#include "kernel/region.h"

enum ept_bits {
	EPT_R = 1u << 0,
	EPT_W = 1u << 1,
	EPT_X = 1u << 2,
	EPT_MEMTYPE_SHIFT = 3,
	EPT_PS = 1u << 7,
};

struct ept {
	u64 *root;
	u64 eptp;
	unsigned tables; /* pages that hold tables, with the root */
	const struct vmx_capabilities *cap;
	bool stale; /* a present entry changed: INVEPT is due */
	/* So often something was mapped or taken out: then other CPUs have to
	 * do INVEPT, too, and nothing that is remembered of it holds. */
	u64 generation;
};

/* An empty EPT: nothing is reachable. -ENOMEM. */
int ept_init(struct ept *ept, const struct vmx_capabilities *cap);
/* Maps one region (holes map nothing). -ENOMEM: it may be mapped in part. */
int ept_map(struct ept *ept, const struct region *r);
int ept_map_list(struct ept *ept, const struct region_list *list);
/* Takes [gpa, gpa + size) out and invalidates. -ENOMEM: a split failed. */
int ept_unmap(struct ept *ept, gpa_t gpa, u64 size);

#endif
