/* SPDX-License-Identifier: MIT */
/*
 * The format of 4-level page tables (SDM 4.5), and one function that maps:
 * the host's tables are built with it.
 */
#ifndef ARCH_X86_PAGING_H
#define ARCH_X86_PAGING_H

#include "arch/x86/types.h"

enum pte_bits {
	PTE_P = 1u << 0,
	PTE_W = 1u << 1,
	PTE_PWT = 1u << 3,
	PTE_PCD = 1u << 4,
	PTE_PS = 1u << 7,
	PTE_G = 1u << 8,
};

#define PTE_NX BIT(63)
#define PTE_ADDRESS 0x000ffffffffff000ull

/*
 * A table allocator: alloc() gives a zeroed page or NULL; to_virt and
 * to_phys translate a table's address.
 */
struct page_table_ops {
	void *(*alloc)(void);
	void *(*to_virt)(hpa_t hpa);
	hpa_t (*to_phys)(const void *p);
	bool page_1g; /* the CPU has 1 GiB pages */
};

/*
 * Maps [va, va + size) to hpa with the bits of flags (PTE_W, PTE_NX, ...;
 * PTE_P is added), with the largest pages that fit. All three are multiples
 * of 4 KiB. What is mapped already is overwritten; a large page there is an
 * error (-EEXIST). -ENOMEM: no page for a table.
 */
int page_map(u64 *pml4, const struct page_table_ops *ops, u64 va, hpa_t hpa,
	     u64 size, u64 flags);

/* The entry that maps va, at whatever level, or NULL. */
u64 *page_lookup(u64 *pml4, const struct page_table_ops *ops, u64 va);

#endif
