/* SPDX-License-Identifier: MIT */
#include "kernel/boot_info.h"

#include "kernel/string.h"

const char *boot_module_role(const struct boot_module *m, const char *role)
{
	const char *string = m->string;
	size_t n = strlen(role);

	if (strncmp(string, role, n) || (string[n] && string[n] != ' '))
		return NULL;
	return string[n] ? string + n + 1 : string + n;
}

const struct boot_module *boot_module_find(const struct boot_info *b,
					   const char *role)
{
	for (unsigned i = 0; i < b->module_count; i++)
		if (boot_module_role(&b->modules[i], role))
			return &b->modules[i];
	return NULL;
}

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
