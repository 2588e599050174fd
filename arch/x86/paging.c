/* SPDX-License-Identifier: MIT */
#include "arch/x86/paging.h"

#include "arch/x86/errno.h"

static unsigned index_at(u64 va, unsigned level)
{
	return va >> (PAGE_SHIFT + 9 * level) & 511;
}

static u64 page_size(unsigned level)
{
	return PAGE_SIZE << (9 * level);
}

/* The highest level (0: 4 KiB) at which one page may map this. */
static unsigned leaf_level(const struct page_table_ops *ops, u64 va, hpa_t hpa,
			   u64 size)
{
	for (unsigned level = ops->page_1g ? 2 : 1; level; level--)
		if (((va | hpa) & (page_size(level) - 1)) == 0 &&
		    size >= page_size(level))
			return level;
	return 0;
}

static u64 *next_table(const struct page_table_ops *ops, u64 *entry)
{
	void *table;

	if (*entry & PTE_P)
		return ops->to_virt(*entry & PTE_ADDRESS);
	table = ops->alloc();
	if (table)
		*entry = ops->to_phys(table) | PTE_P | PTE_W;
	return table;
}

static int map_one(u64 *pml4, const struct page_table_ops *ops, u64 va,
		   u64 entry, unsigned leaf)
{
	u64 *table = pml4;

	for (unsigned level = 3; level > leaf; level--) {
		u64 *e = &table[index_at(va, level)];

		if ((*e & PTE_P) && (*e & PTE_PS))
			return -EEXIST;
		table = next_table(ops, e);
		if (!table)
			return -ENOMEM;
	}
	table[index_at(va, leaf)] = entry | PTE_P | (leaf ? PTE_PS : 0);
	return 0;
}

int page_map(u64 *pml4, const struct page_table_ops *ops, u64 va, hpa_t hpa,
	     u64 size, u64 flags)
{
	while (size) {
		unsigned leaf = leaf_level(ops, va, hpa, size);
		int err = map_one(pml4, ops, va, hpa | flags, leaf);

		if (err)
			return err;
		va += page_size(leaf);
		hpa += page_size(leaf);
		size -= page_size(leaf);
	}
	return 0;
}

u64 *page_lookup(u64 *pml4, const struct page_table_ops *ops, u64 va)
{
	u64 *table = pml4;

	for (unsigned level = 3;; level--) {
		u64 *e = &table[index_at(va, level)];

		if (!(*e & PTE_P))
			return NULL;
		if (!level || (*e & PTE_PS))
			return e;
		table = ops->to_virt(*e & PTE_ADDRESS);
	}
}
