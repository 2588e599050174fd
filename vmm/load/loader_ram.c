/* SPDX-License-Identifier: MIT */
#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/string.h"
#include "vmm/core/guest_mem.h"
#include "vmm/load/loader.h"
#include "vmm/load/loader_priv.h"

bool e820_next(const struct region_list *map, unsigned *index,
	       struct e820_row *row)
{
	row->kind = E820_NONE;
	for (; *index < map->count; (*index)++) {
		const struct region *r = &map->regions[*index];

		if (r->e820 == E820_NONE)
			continue;
		if (row->kind == E820_NONE)
			*row = (struct e820_row){r->gpa, 0, (u32)r->e820};
		else if ((u32)r->e820 != row->kind ||
			 r->gpa != row->base + row->size)
			break;
		row->size += r->size;
	}
	return row->kind != E820_NONE;
}

u64 e820_ram(const struct region_list *map, gpa_t from, gpa_t to)
{
	struct e820_row row;
	unsigned index = 0;

	while (e820_next(map, &index, &row))
		if (row.kind == E820_RAM && row.base <= from &&
		    from < row.base + row.size)
			return MIN(row.base + row.size, to) - from;
	return 0;
}

int ram_collect(struct loader *l)
{
	struct e820_row row;
	unsigned index = 0;

	while (e820_next(l->in->map, &index, &row)) {
		if (row.kind != E820_RAM)
			continue;
		if (l->count == LOADER_EXTENTS)
			return -ENOSPC;
		l->free[l->count++] =
			(struct loader_extent){row.base, row.base + row.size};
	}
	return 0;
}

static const struct loader_extent *extent_of(const struct loader *l,
					     gpa_t start, u64 size)
{
	for (unsigned i = 0; i < l->count; i++) {
		const struct loader_extent *e = &l->free[i];

		if (start >= e->start && start < e->end &&
		    size <= e->end - start)
			return e;
	}
	return NULL;
}

bool ram_is_free(const struct loader *l, gpa_t start, u64 size)
{
	return extent_of(l, start, size) != NULL;
}

/* Cuts a range that lies in one extent out of it. */
static int cut(struct loader *l, gpa_t start, u64 size)
{
	unsigned i = (unsigned)(extent_of(l, start, size) - l->free);
	struct loader_extent tail = {start + size, l->free[i].end};

	if (l->free[i].start == start) {
		l->free[i].start = tail.start; /* perhaps empty now */
		return 0;
	}
	if (tail.start != tail.end && l->count == LOADER_EXTENTS)
		return -ENOSPC;
	l->free[i].end = start;
	if (tail.start == tail.end)
		return 0;
	memmove(&l->free[i + 2], &l->free[i + 1],
		(l->count - i - 1) * sizeof(l->free[0]));
	l->free[i + 1] = tail;
	l->count++;
	return 0;
}

/* The first byte of the range that is not free. */
static gpa_t first_taken(const struct loader *l, gpa_t start)
{
	const struct loader_extent *e = extent_of(l, start, 1);

	return e ? e->end : start;
}

int ram_take(struct loader *l, const char *what, gpa_t start, u64 size)
{
	const struct region *r;
	gpa_t at;

	if (ram_is_free(l, start, size) && !cut(l, start, size))
		return 0;
	at = first_taken(l, start);
	r = region_find(l->in->map, at);
	log_error("%s at 0x%llx, 0x%llx bytes, does not fit: 0x%llx is %s%s; "
		  "give the guest more memory or link it elsewhere",
		  what, (unsigned long long)start, (unsigned long long)size,
		  (unsigned long long)at,
		  !r			? "outside guest memory"
		  : r->e820 == E820_RAM ? "already taken in "
					: "reserved for ",
		  r ? r->name : "");
	return -ENOSPC;
}

gpa_t ram_take_low(struct loader *l, u64 size, u64 align, gpa_t from,
		   gpa_t limit)
{
	for (unsigned i = 0; i < l->count; i++) {
		gpa_t start = MAX(l->free[i].start, from);

		if (start >= limit)
			break;
		start = ALIGN_UP(start, align);
		if (start >= limit || size > limit - start)
			break;
		if (ram_is_free(l, start, size))
			return cut(l, start, size) ? LOADER_NONE : start;
	}
	return LOADER_NONE;
}

gpa_t ram_take_high(struct loader *l, u64 size, u64 align, gpa_t from,
		    gpa_t limit)
{
	for (unsigned i = l->count; i-- > 0;) {
		gpa_t end = MIN(l->free[i].end, limit);
		gpa_t start = ALIGN_DOWN(end - MIN(size, end), align);

		if (start < MAX(from, l->free[i].start))
			continue;
		if (ram_is_free(l, start, size))
			return cut(l, start, size) ? LOADER_NONE : start;
	}
	return LOADER_NONE;
}

void loader_put(struct loader *l, gpa_t gpa, const void *data, u64 size)
{
	if (!l->dry && size && guest_write(l->in->map, gpa, data, size))
		l->failed = true;
}

void loader_zero(struct loader *l, gpa_t gpa, u64 size)
{
	if (!l->dry && size && guest_set(l->in->map, gpa, 0, size))
		l->failed = true;
}

void loader_gdt(struct loader *l, gpa_t gpa, struct guest_entry *entry)
{
	/* SDM vol 3, 3.4.5: flat, ring 0; code execute/read, data writable. */
	u64 gdt[LOADER_GDT_SIZE / 8] = {
		[LOADER_CS / 8] = entry->mode == ENTRY_LONG64
					  ? 0x00af9b000000ffff
					  : 0x00cf9b000000ffff,
		[LOADER_DS / 8] = 0x00cf93000000ffff,
	};

	loader_put(l, gpa, gdt, sizeof(gdt));
	entry->gdt_base = gpa;
	entry->gdt_limit = sizeof(gdt) - 1;
	entry->cs = LOADER_CS;
	entry->ds = LOADER_DS;
}
