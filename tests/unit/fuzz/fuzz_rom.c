/* SPDX-License-Identifier: MIT */
// sources: drivers/pci/rom.c (included below)
/*
 * Option ROMs out of any bytes: what the walk lets pass lies within them,
 * and the video BIOS within the images. Every 512 bytes of the input may
 * begin an image; the fuzzer is spared to guess their heads.
 */
#include <stdlib.h>
#include <string.h>

#include "drivers/pci/rom.c"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

struct phys host_memory;

hpa_t phys_alloc(struct phys *p, u64 size, u64 align, hpa_t limit)
{
	(void)p;
	(void)limit;
	return (hpa_t)aligned_alloc(align, size);
}

int phys_free(struct phys *p, hpa_t base, u64 size)
{
	(void)p;
	(void)size;
	free((void *)base);
	return 0;
}

void *phys_to_virt(hpa_t hpa)
{
	return (void *)hpa;
}

hpa_t virt_to_phys(const void *p)
{
	return (hpa_t)p;
}

volatile void *mmio_map(hpa_t hpa, u64 size)
{
	(void)size;
	return (void *)hpa;
}

u16 mmio_read16(const volatile void *p)
{
	return *(const volatile u16 *)p;
}

u32 mmio_read32(const volatile void *p)
{
	return *(const volatile u32 *)p;
}

u32 pci_config_read(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		    unsigned size)
{
	(void)pci;
	(void)bdf;
	return offset + size;
}

void pci_config_write(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		      unsigned size, u32 value)
{
	(void)pci;
	(void)bdf;
	(void)offset;
	(void)size;
	(void)value;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	(void)level;
	(void)fmt;
}

/* A head and a PCIR at every image that the first byte has a bit for. */
static void help(u8 *rom, size_t size, u8 which)
{
	for (size_t i = 0; i < 8 && 512 * (i + 1) <= size; i++) {
		u8 *image = rom + 512 * i;

		if (!(which & 1u << i))
			continue;
		memcpy(image, "\x55\xaa", 2);
		image[PCIR_POINTER + 1] &= 1;
		if (get16(image + PCIR_POINTER) <= 512 - PCIR_SIZE)
			memcpy(image + get16(image + PCIR_POINTER), "PCIR", 4);
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	const struct pci_function f = {.vendor = 0x8086, .device = 0x1912};
	struct pci_rom rom = {0};
	const char *why;
	u8 *copy;

	if (size < 1)
		return 0;
	copy = malloc(size);
	memcpy(copy, data + 1, size - 1);
	help(copy, size - 1, data[0]);
	if (!pci_rom_check(copy, size - 1, &f, &rom) &&
	    (!rom.length || rom.length % 512 || rom.length > size - 1 ||
	     (rom.legacy && (rom.legacy < copy || rom.legacy + rom.legacy_size >
							  copy + rom.length))))
		abort();
	if (!pci_rom_load(copy, size - 1, &f, &rom, &why)) {
		if (memcmp(rom.data, copy, rom.length))
			abort();
		drop(&rom);
	}
	free(copy);
	return 0;
}
