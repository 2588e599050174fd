/* SPDX-License-Identifier: MIT */
#include "kernel/host_paging.h"

#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "arch/x86/paging.h"
#include "kernel/phys.h"

#define STACKS_VIRTUAL 0xffffffffc0000000ull
#define DIRECT_SIZE BIT(46) /* then comes the image's half */

extern const char image_start[], image_text_end[], image_rodata_end[],
	image_end[];

static u64 *pml4;
static u64 next_stack = STACKS_VIRTUAL;
static struct page_table_ops ops = {
	.alloc = page_alloc,
	.to_virt = phys_to_virt,
	.to_phys = virt_to_phys,
};

static int map_image(void)
{
	const struct {
		const char *start, *end;
		u64 flags;
	} parts[] = {
		{image_start, image_text_end, 0},
		{image_text_end, image_rodata_end, PTE_NX},
		{image_rodata_end, image_end, PTE_W | PTE_NX},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
		u64 start = (u64)parts[i].start;
		int err = page_map(
			pml4, &ops, start, virt_to_phys(parts[i].start),
			(u64)parts[i].end - start, parts[i].flags | PTE_G);

		if (err)
			return err;
	}
	return 0;
}

static int map_direct(hpa_t start, hpa_t end)
{
	if (start >= end)
		return 0;
	return page_map(pml4, &ops, DIRECT_MAP + start, start, end - start,
			PTE_W | PTE_NX | PTE_G);
}

/*
 * The first 4 GiB as a whole: firmware tables, ECAM and register pages lie
 * there, and the MTRRs make device memory uncached. Above, RAM only.
 */
static int map_memory(const struct boot_info *boot)
{
	hpa_t image_last = boot->image + boot->image_size;
	int err = map_direct(0, boot->image);

	if (!err)
		err = map_direct(image_last, 4 * GIB);
	for (unsigned i = 0; !err && i < boot->memory_count; i++) {
		const struct boot_memory *m = &boot->memory[i];
		hpa_t start = ALIGN_DOWN(m->base, PAGE_SIZE);
		hpa_t end = MIN(m->base + m->size, DIRECT_SIZE);

		if (m->kind == MEMORY_AVAILABLE || m->kind == MEMORY_ACPI ||
		    m->kind == MEMORY_NVS)
			err = map_direct(MAX(start, 4 * GIB),
					 ALIGN_UP(end, PAGE_SIZE));
	}
	return err;
}

void host_paging_load(void)
{
	struct cpuid leaf7 = cpuid(7, 0);
	u64 cr4 = CR4_PAE | CR4_PGE;

	/* Else a machine check, which reaches all CPUs, is a shutdown. */
	if (cpuid(1, 0).edx & BIT(7))
		cr4 |= CR4_MCE;
	if (leaf7.ebx & BIT(7))
		cr4 |= CR4_SMEP;
	if (leaf7.ebx & BIT(20))
		cr4 |= CR4_SMAP;
	if (leaf7.ecx & BIT(2))
		cr4 |= CR4_UMIP;
	write_cr3(virt_to_phys(pml4));
	write_cr4(cr4);
	write_cr0(CR0_PE | CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_MP);
}

int host_paging_init(const struct boot_info *boot)
{
	int err;

	ops.page_1g = cpuid(0x80000001, 0).edx & BIT(26);
	pml4 = page_alloc();
	if (!pml4)
		return -ENOMEM;
	err = map_image();
	if (!err)
		err = map_memory(boot);
	if (!err)
		host_paging_load();
	return err;
}

void *stack_alloc(void)
{
	u64 bottom = next_stack + PAGE_SIZE;

	for (unsigned i = 0; i < STACK_PAGES; i++) {
		void *page = page_alloc();

		if (!page || page_map(pml4, &ops, bottom + i * PAGE_SIZE,
				      virt_to_phys(page), PAGE_SIZE,
				      PTE_W | PTE_NX | PTE_G))
			return NULL;
	}
	next_stack = bottom + STACK_PAGES * PAGE_SIZE;
	return (void *)next_stack;
}

volatile void *mmio_map(hpa_t hpa, u64 size)
{
	hpa_t start = ALIGN_DOWN(hpa, PAGE_SIZE);
	hpa_t end = ALIGN_UP(hpa + size, PAGE_SIZE);

	if (end < start || end > DIRECT_SIZE)
		return NULL;
	for (; start < end; start += PAGE_SIZE) {
		if (page_lookup(pml4, &ops, DIRECT_MAP + start))
			continue;
		if (page_map(pml4, &ops, DIRECT_MAP + start, start, PAGE_SIZE,
			     PTE_W | PTE_NX | PTE_PCD | PTE_PWT))
			return NULL;
	}
	return phys_to_virt(hpa);
}

int trampoline_map(hpa_t page, bool on)
{
	u64 *entry;
	int err = 0;

	if (on)
		err = page_map(pml4, &ops, page, page, PAGE_SIZE, PTE_W);
	entry = page_lookup(pml4, &ops, page);
	if (!on && entry)
		*entry = 0;
	invlpg((void *)page);
	return err;
}

hpa_t host_cr3(void)
{
	return virt_to_phys(pml4);
}
