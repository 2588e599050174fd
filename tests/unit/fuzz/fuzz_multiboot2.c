/* SPDX-License-Identifier: MIT */
// sources: boot/multiboot2.c (included below)
/*
 * The input is the loader's information with its total size made right: the
 * parser trusts that and nothing else. It lies in memory of just this size,
 * and what the result points at is read, so that a string without an end is
 * found out.
 */
#include <stdlib.h>
#include <string.h>

#include "boot/multiboot2.c"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

void log_write(enum log_level level, const char *fmt, ...)
{
	(void)level;
	(void)fmt;
}

void *phys_to_virt(hpa_t hpa)
{
	return (void *)(uintptr_t)hpa;
}

hpa_t virt_to_phys(const void *p)
{
	return (hpa_t)(uintptr_t)p;
}

static void inside(const u8 *info, size_t size, const char *s)
{
	const u8 *p = (const u8 *)s;

	/* Or one of the parser's own constants. */
	if (p >= info && p < info + size && strlen(s) >= size)
		abort();
}

static void look(const struct boot_info *b, const u8 *info, size_t size)
{
	inside(info, size, b->cmdline);
	inside(info, size, b->loader);
	if (b->module_count > BOOT_MODULES_MAX ||
	    b->memory_count > BOOT_MEMORY_MAX)
		abort();
	for (unsigned i = 0; i < b->module_count; i++)
		inside(info, size, b->modules[i].string);
	for (unsigned i = 0; i < b->memory_count; i++)
		if (!b->memory[i].size ||
		    b->memory[i].base + b->memory[i].size < b->memory[i].base)
			abort();
	if (b->rsdp &&
	    (b->rsdp < (hpa_t)info || b->rsdp + 20 > (hpa_t)info + size))
		abort();
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct boot_info boot;
	u8 *info = malloc(size + 8);
	u32 total = (u32)size + 8;

	memcpy(info, &total, sizeof(total));
	memset(info + 4, 0, 4);
	if (size)
		memcpy(info + 8, data, size);
	memset(&boot, 0, sizeof(boot));
	if (!multiboot2_parse(&boot, (hpa_t)info) && !boot.memory_count)
		abort();
	look(&boot, info, size + 8);
	free(info);
	return 0;
}
