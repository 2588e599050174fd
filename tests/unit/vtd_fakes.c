/* SPDX-License-Identifier: MIT */
#include "tests/unit/vtd_fakes.h"

#include <stdlib.h>
#include <string.h>

#include "kernel/host_paging.h"
#include "kernel/phys.h"
#include "tests/unit/fakes.h"

#define ARENA_SIZE (ARENA_PAGES * PAGE_SIZE)
#define REGS_SIZE 0x8000

u8 *fake_arena;
bool fake_coherent, fake_buffered;
unsigned fake_pages_left, fake_pages_used;
u64 fake_unit_base[FAKE_UNITS];
u8 fake_config[FAKE_FUNCTIONS][256];
unsigned fake_config_writes;
struct pci_host *fake_pci;
const void *fake_dmar;
bool fake_taken;
u64 fake_kept[8];
unsigned fake_kept_count;

static u8 *flushed, *view; /* past the caches; past the write buffer */
static u8 regs[FAKE_UNITS][REGS_SIZE];
static unsigned next_page;
static void *free_pages[ARENA_PAGES];
static unsigned free_count;

struct vtd *fake_start(void)
{
	if (!fake_arena) {
		fake_arena = aligned_alloc(PAGE_SIZE, ARENA_SIZE);
		flushed = malloc(ARENA_SIZE);
		view = malloc(ARENA_SIZE);
	}
	/* What no one has written is junk, for the unit as well. */
	memset(fake_arena, 0xa5, ARENA_SIZE);
	memset(flushed, 0xa5, ARENA_SIZE);
	memset(view, 0xa5, ARENA_SIZE);
	memset(regs, 0, sizeof(regs));
	memset(fake_config, 0, sizeof(fake_config));
	memset(fake_unit_base, 0, sizeof(fake_unit_base));
	fake_coherent = fake_buffered = fake_taken = false;
	fake_pages_left = ARENA_PAGES;
	fake_pages_used = fake_config_writes = 0;
	free_count = 0;
	fake_kept_count = 0;
	next_page = (unsigned)(sizeof(struct vtd) / PAGE_SIZE + 1);
	fake_pci = NULL;
	fake_dmar = NULL;
	return (struct vtd *)fake_arena;
}

void *phys_to_virt(hpa_t hpa)
{
	if (hpa < ARENA_BASE || hpa >= ARENA_BASE + ARENA_SIZE)
		abort();
	return fake_arena + (hpa - ARENA_BASE);
}

hpa_t virt_to_phys(const void *p)
{
	const u8 *at = p;

	if (at < fake_arena || at >= fake_arena + ARENA_SIZE)
		abort();
	return ARENA_BASE + (u64)(at - fake_arena);
}

void *page_alloc(void)
{
	void *page;

	if (!fake_pages_left)
		return NULL;
	fake_pages_left--;
	if (free_count)
		page = free_pages[--free_count];
	else if (next_page < ARENA_PAGES)
		page = fake_arena + next_page++ * PAGE_SIZE;
	else
		abort();
	fake_pages_used++;
	return memset(page, 0, PAGE_SIZE);
}

struct phys host_memory;

hpa_t phys_alloc(struct phys *p, u64 size, u64 align, hpa_t limit)
{
	unsigned pages = (unsigned)(size / PAGE_SIZE), first = next_page;

	if (p != &host_memory || align > PAGE_SIZE || limit != PHYS_ANYWHERE ||
	    size % PAGE_SIZE)
		abort();
	if (fake_pages_left < pages)
		return PHYS_NONE;
	fake_pages_left -= pages;
	fake_pages_used += pages;
	next_page += pages;
	if (next_page > ARENA_PAGES)
		abort();
	return ARENA_BASE + first * PAGE_SIZE;
}

void page_free(void *page)
{
	/* Whoever still walks here finds another owner's data. */
	memset(page, 0x5b, PAGE_SIZE);
	memset(view + ((u8 *)page - fake_arena), 0x5b, PAGE_SIZE);
	memset(flushed + ((u8 *)page - fake_arena), 0x5b, PAGE_SIZE);
	free_pages[free_count++] = page;
	fake_pages_used--;
	fake_pages_left++;
}

bool phys_keep(hpa_t base, u64 size)
{
	if (fake_taken || !size || !base)
		return false;
	if (fake_kept_count < ARRAY_SIZE(fake_kept))
		fake_kept[fake_kept_count++] = base;
	return true;
}

void clflush(const volatile void *p)
{
	u64 at = (u64)((const volatile u8 *)p - fake_arena) & ~63ull;

	fakes_record(FAKE_CLFLUSH, ARENA_BASE + at, 0, 0);
	if (at >= ARENA_SIZE)
		abort();
	memcpy(flushed + at, fake_arena + at, 64);
	if (!fake_buffered)
		memcpy(view + at, fake_arena + at, 64);
}

void fake_commit(void)
{
	memcpy(view, fake_coherent ? fake_arena : flushed, ARENA_SIZE);
}

void fake_view(u64 hpa, u8 *to, u64 size, bool coherent)
{
	u64 at = hpa - ARENA_BASE;

	if (at >= ARENA_SIZE || size > ARENA_SIZE - at)
		abort();
	memcpy(to, (coherent && !fake_buffered ? fake_arena : view) + at, size);
}

void fake_poke32(u64 hpa, u32 value)
{
	*(volatile u32 *)phys_to_virt(hpa) = value;
}

u64 fake_regs(unsigned unit)
{
	return (u64)(uintptr_t)regs[unit];
}

volatile void *mmio_map(hpa_t hpa, u64 size)
{
	for (unsigned i = 0; i < FAKE_UNITS; i++)
		if (fake_unit_base[i] == hpa && size <= REGS_SIZE)
			return regs[i];
	return hpa >= ARENA_BASE && hpa + size <= ARENA_BASE + ARENA_SIZE
		       ? phys_to_virt(hpa)
		       : NULL;
}

bool acpi_checksum_ok(const void *table, u32 length)
{
	const u8 *p = table;
	u8 sum = 0;

	while (length--)
		sum = (u8)(sum + *p++);
	return !sum;
}

const struct acpi_header *acpi_find(const struct acpi_tables *acpi,
				    const char *signature, unsigned n)
{
	(void)acpi;
	return n || memcmp(signature, "DMAR", 4) ? NULL : fake_dmar;
}

struct pci_function *pci_find(struct pci_host *pci, bdf_t bdf)
{
	for (unsigned i = 0; i < pci->count; i++)
		if (pci->functions[i].bdf == bdf)
			return &pci->functions[i];
	return NULL;
}

static u8 *config(const struct pci_host *pci, bdf_t bdf, unsigned offset)
{
	for (unsigned i = 0; i < pci->count; i++)
		if (pci->functions[i].bdf == bdf)
			return &fake_config[i][offset & 0xff];
	return NULL;
}

u32 pci_config_read(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		    unsigned size)
{
	u8 *p = config(pci, bdf, offset);
	u32 value = ~0u;

	if (p)
		value = 0;
	if (p)
		memcpy(&value, p, size);
	return value;
}

void pci_config_write(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		      unsigned size, u32 value)
{
	u8 *p = config(pci, bdf, offset);

	fakes_record(FAKE_OTHER, (u64)bdf << 8 | offset, size, value);
	fake_config_writes++;
	if (p)
		memcpy(p, &value, size);
}

/* Byte 0x34 of the fake configuration: where an Express capability is */
unsigned pci_find_capability(const struct pci_host *pci, bdf_t bdf, u8 id)
{
	u8 *p = config(pci, bdf, 0x34);

	return p && id == 0x10 ? *p : 0;
}
