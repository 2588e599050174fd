/* SPDX-License-Identifier: MIT */
#include "arch/x86/vmx/ept.h"

#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "kernel/phys.h"

enum {
	LEVELS = 4,
	ENTRIES = 512,
	PRESENT = EPT_R | EPT_W | EPT_X,
	EPTP_WALK_4 = 3u << 3,
};

#define ADDRESS 0x000ffffffffff000ull

static u64 span(unsigned level)
{
	return PAGE_SIZE << (9 * level);
}

static unsigned index_at(gpa_t gpa, unsigned level)
{
	return gpa >> (PAGE_SHIFT + 9 * level) & (ENTRIES - 1);
}

/* One store of the whole entry: the CPU may walk while we write. */
static void store(struct ept *ept, u64 *entry, u64 value)
{
	if (*entry & PRESENT)
		ept->stale = true;
	mmio_write64(entry, value);
}

static u64 *new_table(struct ept *ept)
{
	u64 *table = page_alloc();

	if (table)
		ept->tables++;
	return table;
}

static bool is_leaf(u64 entry, unsigned level)
{
	return level == 0 || (entry & EPT_PS);
}

static bool is_table(u64 entry, unsigned level)
{
	return (entry & PRESENT) && !is_leaf(entry, level);
}

/* After the stores, before anybody relies on them: SDM 29.4.3.4. */
static void invalidate(struct ept *ept)
{
	if (ept->stale)
		vmx_invept(ept->cap, ept->eptp);
}

static void free_tables(struct ept *ept, u64 entry, unsigned level)
{
	u64 *table;

	if (!is_table(entry, level))
		return;
	table = phys_to_virt(entry & ADDRESS);
	for (unsigned i = 0; i < ENTRIES; i++)
		free_tables(ept, table[i], level - 1);
	page_free(table);
	ept->tables--;
}

/*
 * The table below an entry. A large page is split: the new table maps the
 * same memory and is complete before the entry points at it.
 */
static u64 *descend(struct ept *ept, u64 *entry, unsigned level)
{
	u64 *table;
	u64 leaf = *entry;

	if (is_table(leaf, level))
		return phys_to_virt(leaf & ADDRESS);
	table = new_table(ept);
	if (!table)
		return NULL;
	if (leaf & PRESENT)
		for (unsigned i = 0; i < ENTRIES; i++)
			mmio_write64(&table[i],
				     (level == 1 ? leaf & ~(u64)EPT_PS : leaf) +
					     i * span(level - 1));
	store(ept, entry, virt_to_phys(table) | PRESENT);
	return table;
}

static bool may_be_leaf(const struct ept *ept, unsigned level)
{
	return level == 0 || (level == 1 && ept->cap->ept_2m) ||
	       (level == 2 && ept->cap->ept_1g);
}

static bool is_empty(const u64 *table)
{
	for (unsigned i = 0; i < ENTRIES; i++)
		if (table[i])
			return false;
	return true;
}

/* entry: hpa and bits of the first page, or 0 to take the range out. */
static int set_range(struct ept *ept, u64 *table, unsigned level, gpa_t gpa,
		     u64 size, u64 entry)
{
	while (size) {
		u64 *e = &table[index_at(gpa, level)];
		u64 whole = span(level);
		u64 part = MIN(size, whole - (gpa & (whole - 1)));
		bool fits = part == whole &&
			    (!entry || (may_be_leaf(ept, level) &&
					!(entry & ADDRESS & (whole - 1))));

		if (fits) {
			u64 old = *e;
			u64 ps = entry && level ? EPT_PS : 0;
			u64 no_x = ps && ept->cap->split_code ? EPT_X : 0;

			store(ept, e, (entry | ps) & ~no_x);
			/* No CPU may still walk what is given back. */
			if (is_table(old, level))
				invalidate(ept);
			free_tables(ept, old, level);
		} else if (entry || (*e & PRESENT)) {
			u64 *next = descend(ept, e, level);
			int err = next ? set_range(ept, next, level - 1, gpa,
						   part, entry)
				       : -ENOMEM;

			if (err)
				return err;
			if (!entry && is_empty(next)) {
				store(ept, e, 0);
				invalidate(ept);
				page_free(next);
				ept->tables--;
			}
		}
		gpa += part;
		size -= part;
		entry += entry ? part : 0;
	}
	return 0;
}

static int change(struct ept *ept, gpa_t gpa, u64 size, u64 entry)
{
	int err;

	if (gpa + size > span(LEVELS) || gpa + size < gpa)
		return -EINVAL;
	err = set_range(ept, ept->root, LEVELS - 1, gpa, size, entry);
	invalidate(ept);
	ept->stale = false;
	__atomic_store_n(&ept->generation, ept->generation + 1,
			 __ATOMIC_RELEASE);
	return err;
}

int ept_init(struct ept *ept, const struct vmx_capabilities *cap)
{
	*ept = (struct ept){.cap = cap};
	ept->root = new_table(ept);
	if (!ept->root)
		return -ENOMEM;
	ept->eptp = virt_to_phys(ept->root) | MEMTYPE_WB | EPTP_WALK_4;
	return 0;
}

int ept_map(struct ept *ept, const struct region *r)
{
	u64 bits = (u64)r->memtype << EPT_MEMTYPE_SHIFT | r->cpu;

	if (r->kind == REGION_HOLE || !r->cpu)
		return 0;
	return change(ept, r->gpa, r->size, r->hpa | bits);
}

int ept_map_list(struct ept *ept, const struct region_list *list)
{
	int err = 0;

	for (unsigned i = 0; !err && i < list->count; i++)
		err = ept_map(ept, &list->regions[i]);
	return err;
}

int ept_unmap(struct ept *ept, gpa_t gpa, u64 size)
{
	return change(ept, gpa, size, 0);
}
