/* SPDX-License-Identifier: MIT */
#include "drivers/vtd/tables.h"

#include "arch/x86/errno.h"
#include "drivers/vtd/unit.h"
#include "kernel/phys.h"

#define ENTRIES 512

/* What is left of a call's range */
struct range {
	gpa_t gpa, end;
	hpa_t hpa;
	u64 rights; /* 0: unmap */
};

/* Bytes that an entry of the level (1-5) spans */
static u64 span(unsigned level)
{
	return PAGE_SIZE << 9 * ((level - 1) & 7);
}

static unsigned index(gpa_t gpa, unsigned level)
{
	return (unsigned)(gpa / span(level)) % ENTRIES;
}

static bool is_leaf(u64 entry, unsigned level)
{
	return entry && (level == 1 || entry & SL_PAGE_SIZE);
}

/* Volatile: one store of 64 bits, since a device may walk here meanwhile. */
static void store(u64 *entry, u64 value)
{
	*(volatile u64 *)entry = value;
}

static u64 *new_table(struct second_level *t)
{
	u64 *table = page_alloc();

	t->tables += table != NULL;
	return table;
}

/*
 * The table below entry; made where there is none, so that it translates
 * what the entry did. 9.8: a leaf's rights count, the tables above grant all.
 */
static u64 *below(struct second_level *t, u64 *entry, unsigned level)
{
	u64 leaf = *entry & ~(level == 2 ? SL_PAGE_SIZE : 0);
	u64 *table;

	if (*entry && !is_leaf(*entry, level))
		return phys_to_virt(*entry & SL_ADDRESS);
	table = new_table(t);
	if (!table)
		return NULL;
	for (unsigned i = 0; leaf && i < ENTRIES; i++)
		table[i] = leaf + i * span(level - 1);
	/* Its content must be in memory before a walk can come by. */
	vtd_flush(table, PAGE_SIZE, t->flush);
	store(entry, virt_to_phys(table) | SL_R | SL_W);
	return table;
}

/* The entry as a whole can take *value, else it takes a table below. */
static bool whole(const struct second_level *t, u64 entry, unsigned level,
		  const struct range *r, u64 *value)
{
	u64 size = span(level);

	*value = 0;
	if (!r->rights && !entry)
		return true;
	if (r->gpa & (size - 1) || r->end - r->gpa < size)
		return false;
	if (!r->rights)
		return is_leaf(entry, level);
	if (r->gpa < INTERRUPT_END && r->gpa + size > INTERRUPT_BASE)
		return level == 1;
	*value = r->hpa | r->rights | (level > 1 ? SL_PAGE_SIZE : 0);
	return !entry && level <= t->leaf_levels && !(r->hpa & (size - 1));
}

/* From r->gpa to the end of the range or of the table. At most 5 deep. */
static int walk(struct second_level *t, u64 *table, unsigned level,
		struct range *r)
{
	unsigned first = index(r->gpa, level), i = first;
	int err = 0;

	for (; !err && i < ENTRIES && r->gpa < r->end; i++) {
		gpa_t next = ALIGN_DOWN(r->gpa, span(level)) + span(level);
		u64 value, *lower;

		if (r->rights && is_leaf(table[i], level)) {
			err = -EEXIST;
		} else if (whole(t, table[i], level, r, &value)) {
			store(&table[i], value);
			r->hpa += next - r->gpa;
			r->gpa = next;
		} else {
			lower = below(t, &table[i], level);
			err = lower ? walk(t, lower, level - 1, r) : -ENOMEM;
		}
	}
	vtd_flush(&table[first], (i - first) * sizeof(u64), t->flush);
	return err;
}

static int check(u64 base, u64 size, unsigned width)
{
	if ((base | size) & PAGE_MASK || !size)
		return -EINVAL;
	return base >> width || size > BIT(width) - base ? -ERANGE : 0;
}

int sl_init(struct second_level *t)
{
	t->tables = 0;
	t->root = new_table(t);
	if (!t->root)
		return -ENOMEM;
	vtd_flush(t->root, PAGE_SIZE, t->flush);
	return 0;
}

static void free_table(u64 *table, unsigned level)
{
	for (unsigned i = 0; level > 1 && i < ENTRIES; i++)
		if (table[i] && !is_leaf(table[i], level))
			free_table(phys_to_virt(table[i] & SL_ADDRESS),
				   level - 1);
	page_free(table);
}

void sl_free(struct second_level *t)
{
	if (t->root)
		free_table(t->root, t->levels);
	t->root = NULL;
	t->tables = 0;
}

int sl_map(struct second_level *t, gpa_t gpa, hpa_t hpa, u64 size, u64 rights)
{
	struct range r = {gpa, gpa + size, hpa, rights};
	int err = check(gpa, size, t->width);

	if (!err && rights)
		err = (rights & ~(SL_R | SL_W))
			      ? -EINVAL
			      : check(hpa, size, t->host_width);
	if (err)
		return err;
	err = walk(t, t->root, t->levels, &r);
	if (err && rights) {
		/* What this call mapped: whole pages, so nothing is split. */
		r = (struct range){gpa, r.gpa, 0, 0};
		walk(t, t->root, t->levels, &r);
	}
	return err;
}

hpa_t sl_root(struct second_level *t, unsigned levels)
{
	u64 *table = t->root;

	/* Addresses fit the narrowest unit: all of them lie below entry 0. */
	for (unsigned level = t->levels; table && level > levels; level--) {
		u64 *entry = table;

		table = below(t, entry, level);
		vtd_flush(entry, sizeof(*entry), t->flush);
	}
	return table ? virt_to_phys(table) : 0;
}
