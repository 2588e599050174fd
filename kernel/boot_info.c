/* SPDX-License-Identifier: MIT */
#include "kernel/boot_info.h"

/* What the loader put there, and Monocle, whatever the map says. */
static bool is_taken(const struct boot_info *b, hpa_t base, u64 size)
{
	bool taken = boot_ranges_overlap(base, size, b->image, b->image_size) ||
		     boot_ranges_overlap(base, size, b->info, b->info_size);

	for (unsigned i = 0; i < b->module_count; i++)
		taken |= boot_ranges_overlap(base, size, b->modules[i].start,
					     b->modules[i].size);
	return taken;
}

u32 boot_memory_kinds(const struct boot_info *b, hpa_t base, u64 size)
{
	hpa_t end = base + size, next;
	u32 found = is_taken(b, base, size) ? BIT(MEMORY_AVAILABLE) : 0;

	for (; base < end; base = next) {
		unsigned kind = 0;

		next = end;
		for (unsigned i = 0; i < b->memory_count; i++) {
			const struct boot_memory *r = &b->memory[i];

			if (r->base > base) {
				next = MIN(next, r->base);
			} else if (base - r->base < r->size) {
				kind = MAX(kind, r->kind & 31u);
				next = MIN(next, r->base + r->size);
			}
		}
		found |= 1u << kind;
	}
	return found;
}
