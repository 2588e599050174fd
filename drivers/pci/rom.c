/* SPDX-License-Identifier: MIT */
#include "drivers/pci/rom.h"

#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "kernel/phys.h"
#include "kernel/string.h"

enum {
	/* PCI 3.0, 6.3.1.1 and 6.3.3.1: the header of an image */
	SIGNATURE = 0xaa55,
	INIT_SIZE = 2, /* in units of 512 bytes */
	PCIR_POINTER = 0x18,
	HEADER_SIZE = 0x1a,
	/* 6.3.1.2: the PCI data structure */
	PCIR_VENDOR = 4,
	PCIR_DEVICE = 6,
	PCIR_DEVICE_LIST = 8, /* from the PCIR on; revision 3 */
	PCIR_REVISION = 0xc,
	PCIR_LENGTH = 0x10, /* in units of 512 bytes */
	PCIR_CODE_TYPE = 0x14,
	PCIR_INDICATOR = 0x15,
	PCIR_SIZE = 0x18,
	CODE_PC = 0, /* the only type that has a checksum */
	CODE_EFI = 3,
	LAST_IMAGE = 0x80,
	UNIT = 512,
};

#define ROM_ENABLE 1u
#define ROM_ADDRESS 0xfffff800u

static u32 get16(const u8 *p)
{
	return p[0] | (u32)p[1] << 8;
}

struct image {
	const u8 *data, *pcir;
	u32 length;
};

static const char *find_image(const u8 *data, u64 left, struct image *image)
{
	u32 at;

	if (left < HEADER_SIZE || get16(data) != SIGNATURE)
		return "has an image that does not begin with 55AA";
	at = get16(data + PCIR_POINTER);
	if (at < HEADER_SIZE || at + PCIR_SIZE > left ||
	    memcmp(data + at, "PCIR", 4))
		return "has an image without a PCIR structure";
	*image = (struct image){
		.data = data,
		.pcir = data + at,
		.length = get16(data + at + PCIR_LENGTH) * UNIT,
	};
	if (at + PCIR_SIZE > image->length)
		return "has an image that ends before its PCIR structure";
	if (image->length > left)
		return "is cut off: an image is longer than what is there";
	return NULL;
}

/* The ID of the PCIR, or one of revision 3's list, which ends with 0. */
static bool serves(const struct image *image, const struct pci_function *f)
{
	const u8 *pcir = image->pcir;
	u32 room = (u32)(image->data + image->length - pcir);
	u32 list = get16(pcir + PCIR_DEVICE_LIST);

	if (get16(pcir + PCIR_VENDOR) != f->vendor)
		return false;
	if (get16(pcir + PCIR_DEVICE) == f->device)
		return true;
	if (pcir[PCIR_REVISION] < 3 || !list)
		return false;
	for (; list + 2 <= room && get16(pcir + list); list += 2)
		if (get16(pcir + list) == f->device)
			return true;
	return false;
}

static bool checksum_ok(const struct image *image)
{
	u32 size = image->data[INIT_SIZE] * UNIT;
	u8 sum = 0;

	if (!size || size > image->length)
		return false;
	for (u32 i = 0; i < size; i++)
		sum = (u8)(sum + image->data[i]);
	return sum == 0;
}

const char *pci_rom_check(const u8 *data, u64 size,
			  const struct pci_function *f, struct pci_rom *rom)
{
	bool served = false, sound = true;
	struct image image;

	rom->length = rom->legacy_size = 0;
	rom->efi = false;
	rom->legacy = NULL;
	do {
		const char *why = find_image(data + rom->length,
					     size - rom->length, &image);
		bool pc, mine;

		if (why)
			return why;
		pc = image.pcir[PCIR_CODE_TYPE] == CODE_PC;
		mine = serves(&image, f);
		served |= mine;
		rom->efi |= image.pcir[PCIR_CODE_TYPE] == CODE_EFI;
		sound &= !pc || checksum_ok(&image);
		if (pc && mine && !rom->legacy) {
			rom->legacy = image.data;
			rom->legacy_size =
				MIN(image.length,
				    (u32)image.data[INIT_SIZE] * UNIT);
		}
		rom->length += image.length;
	} while (!(image.pcir[PCIR_INDICATOR] & LAST_IMAGE));
	rom->doubt = !served  ? "is another device's: no PCIR names this one"
		     : !sound ? "has a wrong checksum"
			      : NULL;
	return NULL;
}

struct pci_bar pci_rom_size(const struct pci_host *pci, bdf_t bdf)
{
	u32 original = pci_config_read(pci, bdf, PCI_ROM, 4);
	u32 mask;

	pci_config_write(pci, bdf, PCI_ROM, 4, ROM_ADDRESS);
	mask = pci_config_read(pci, bdf, PCI_ROM, 4) & ROM_ADDRESS;
	pci_config_write(pci, bdf, PCI_ROM, 4, original);
	return (struct pci_bar){.base = original & ROM_ADDRESS,
				.size = mask & (~mask + 1)};
}

static u64 power_of_two(u64 size)
{
	u64 n = PAGE_SIZE;

	while (n < size)
		n *= 2;
	return n;
}

static int allocate(struct pci_rom *rom, u64 size)
{
	hpa_t hpa;

	rom->size = power_of_two(size);
	hpa = phys_alloc(&host_memory, rom->size, PAGE_SIZE, PHYS_ANYWHERE);
	if (hpa == PHYS_NONE)
		return -ENOMEM;
	rom->data = phys_to_virt(hpa);
	memset(rom->data, 0xff, rom->size);
	return 0;
}

static void drop(struct pci_rom *rom)
{
	phys_free(&host_memory, virt_to_phys(rom->data), rom->size);
	*rom = (struct pci_rom){0};
}

/* size: a multiple of 4. A ROM is read in dwords, as it is memory. */
static void copy(const struct pci_function *f, const volatile u8 *from,
		 u64 size, const char *source, struct pci_rom *rom)
{
	const char *why = "is larger than free memory";

	if (mmio_read16(from) != SIGNATURE)
		return;
	if (!allocate(rom, size)) {
		for (u64 i = 0; i < size; i += 4) {
			u32 dword = mmio_read32(from + i);

			memcpy(rom->data + i, &dword, 4);
		}
		why = pci_rom_check(rom->data, size, f, rom);
		if (why)
			drop(rom);
	}
	if (why || rom->doubt)
		log_warn("%02x:%02x.%x: the ROM in %s %s%s", BDF_ARGS(f->bdf),
			 source, why ? why : rom->doubt,
			 why ? "; it is left out" : "");
	if (why)
		return;
	memset(rom->data + rom->length, 0xff, rom->size - rom->length);
	log_info("%02x:%02x.%x: ROM of %lu bytes, from %s", BDF_ARGS(f->bdf),
		 rom->length, source);
}

/* Decode can be switched on: no BAR would then lie over address 0. */
static bool bars_are_placed(const struct pci_function *f)
{
	for (unsigned i = 0; i < 6; i++)
		if (f->bars[i].size && !f->bars[i].base)
			return false;
	return true;
}

/* PCI 3.0, 6.2.5.2: decoded where both enable bits are set. */
static void read_bar(const struct pci_host *pci, const struct pci_function *f,
		     const struct pci_bar *bar, struct pci_rom *rom)
{
	const volatile u8 *p =
		(const volatile u8 *)mmio_map(bar->base, bar->size);
	u32 command = pci_config_read(pci, f->bdf, PCI_COMMAND, 2);
	u32 original = pci_config_read(pci, f->bdf, PCI_ROM, 4);

	if (!p || (!(command & PCI_COMMAND_MEMORY) && !bars_are_placed(f)))
		return;
	pci_config_write(pci, f->bdf, PCI_ROM, 4, original | ROM_ENABLE);
	pci_config_write(pci, f->bdf, PCI_COMMAND, 2,
			 command | PCI_COMMAND_MEMORY);
	copy(f, p, bar->size, "its BAR", rom);
	pci_config_write(pci, f->bdf, PCI_COMMAND, 2, command);
	pci_config_write(pci, f->bdf, PCI_ROM, 4, original);
}

void pci_rom_read(const struct pci_host *pci, const struct pci_function *f,
		  bool shadow, struct pci_rom *rom)
{
	struct pci_bar bar = pci_rom_size(pci, f->bdf);

	*rom = (struct pci_rom){0};
	if (bar.size && bar.size <= PCI_ROM_MAX && bar.base)
		read_bar(pci, f, &bar, rom);
	if (!rom->data && shadow)
		copy(f, phys_to_virt(PCI_ROM_SHADOW), PCI_ROM_SHADOW_SIZE,
		     "the shadow at 0xC0000", rom);
}

int pci_rom_load(const u8 *file, u64 size, const struct pci_function *f,
		 struct pci_rom *rom, const char **why)
{
	int err;

	*rom = (struct pci_rom){0};
	*why = size > PCI_ROM_MAX ? "is too long: a ROM has 16 MiB at most"
				  : pci_rom_check(file, size, f, rom);
	if (!*why)
		*why = rom->doubt;
	if (*why)
		return -EINVAL;
	err = allocate(rom, size);
	if (err) {
		*why = "does not fit memory";
		return err;
	}
	memcpy(rom->data, file, rom->length);
	pci_rom_check(rom->data, size, f, rom);
	return 0;
}

int pci_rom_prepend(struct pci_rom *rom, const u8 *image, u64 size,
		    const struct pci_function *f)
{
	struct pci_rom old = *rom;
	int err = allocate(rom, size + old.length);
	u8 *pcir;

	if (err) {
		*rom = old;
		return err;
	}
	memcpy(rom->data, image, size);
	pcir = rom->data + get16(image + PCIR_POINTER);
	memcpy(pcir + PCIR_VENDOR, &f->vendor, 2);
	memcpy(pcir + PCIR_DEVICE, &f->device, 2);
	if (old.data) {
		pcir[PCIR_INDICATOR] &= (u8)~LAST_IMAGE;
		memcpy(rom->data + size, old.data, old.length);
		drop(&old);
	}
	pci_rom_check(rom->data, rom->size, f, rom);
	return 0;
}
