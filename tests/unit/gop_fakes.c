/* SPDX-License-Identifier: MIT */
/* The firmware and the card of vmm/assign/gop/gop.c, for test_gop.py. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/unit/gop_fakes.h"
#include "vmm/assign/gop/efi.h"

EFIAPI efi_status efi_main(efi_handle image, struct efi_system_table *system);

#define BINDING_ID 0x18a031ab
#define GOP_ID 0x9042a9de

u8 card_rom[256];
u64 card_rom_size[1];
u32 card_bars[6], card_enabled[1];
int pages_held[1], opened[1];
bool fails[5]; /* enum fails */

static struct efi_driver_binding *binding;
static struct efi_gop *gop;

static EFIAPI efi_status allocate_pages(int type, int memory, size_t pages,
					u64 *address)
{
	if (fails[FAILS_PAGES] || type != EFI_ANY_PAGES ||
	    memory != EFI_BOOT_DATA)
		return EFI_ERROR(9);
	*address = (u64)aligned_alloc(PAGE_SIZE, pages * PAGE_SIZE);
	pages_held[0] += (int)pages;
	return EFI_SUCCESS;
}

static EFIAPI efi_status free_pages(u64 address, size_t pages)
{
	free((void *)address);
	pages_held[0] -= (int)pages;
	return EFI_SUCCESS;
}

static EFIAPI efi_status allocate_pool(int memory, size_t size, void **out)
{
	(void)memory;
	if (fails[FAILS_POOL])
		return EFI_ERROR(9);
	*out = malloc(size);
	return EFI_SUCCESS;
}

static EFIAPI efi_status config_read(struct efi_pci_io *self, int width,
				     u32 offset, size_t count, void *out)
{
	(void)self;
	if (fails[FAILS_CONFIG] || width != EFI_PCI_UINT32)
		return EFI_ERROR(7);
	for (size_t i = 0; i < count; i++)
		((u32 *)out)[i] = card_bars[(offset - 0x10) / 4 + i];
	return EFI_SUCCESS;
}

static EFIAPI efi_status attributes(struct efi_pci_io *self, int operation,
				    u64 which, u64 *result)
{
	(void)self;
	(void)result;
	if (operation != EFI_PCI_ENABLE)
		return EFI_UNSUPPORTED;
	card_enabled[0] = (u32)which;
	return EFI_SUCCESS;
}

static struct efi_pci_io pci = {.config_read = config_read,
				.attributes = attributes};

static EFIAPI efi_status open_it(efi_handle handle, const struct efi_guid *id,
				 void **interface, efi_handle agent,
				 efi_handle controller, u32 how)
{
	(void)agent;
	if (fails[FAILS_OPEN] || id->a != 0x4cf5b200 || handle != controller ||
	    how != EFI_BY_DRIVER)
		return EFI_UNSUPPORTED;
	opened[0]++;
	*interface = &pci;
	return EFI_SUCCESS;
}

static EFIAPI efi_status close_it(efi_handle handle, const struct efi_guid *id,
				  efi_handle agent, efi_handle controller)
{
	(void)handle;
	(void)id;
	(void)agent;
	(void)controller;
	opened[0]--;
	return EFI_SUCCESS;
}

static EFIAPI efi_status install(efi_handle *handle, ...)
{
	__builtin_ms_va_list list;
	const struct efi_guid *id;
	void *interface;

	__builtin_ms_va_start(list, handle);
	id = __builtin_va_arg(list, const struct efi_guid *);
	interface = __builtin_va_arg(list, void *);
	__builtin_ms_va_end(list);
	if (id->a == BINDING_ID)
		binding = interface;
	else if (fails[FAILS_INSTALL])
		return EFI_ERROR(9);
	else if (id->a == GOP_ID)
		gop = interface;
	return EFI_SUCCESS;
}

static EFIAPI efi_status uninstall(efi_handle handle, ...)
{
	(void)handle;
	gop = NULL;
	return EFI_SUCCESS;
}

static struct efi_boot_services services = {
	.allocate_pages = allocate_pages,
	.free_pages = free_pages,
	.allocate_pool = allocate_pool,
	.open = open_it,
	.close = close_it,
	.install = install,
	.uninstall = uninstall,
};

u32 *low_memory(void)
{
	static u32 *page;

	if (!page)
		page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	return page;
}

u64 load_driver(void)
{
	struct efi_system_table system = {.boot = &services};

	pci.rom = card_rom_size[0] ? card_rom : NULL;
	pci.rom_size = card_rom_size[0];
	return efi_main(&services, &system);
}

u64 driver_supported(void)
{
	return binding->supported(binding, &pci, NULL);
}

u64 driver_start(void)
{
	return binding->start(binding, &pci, NULL);
}

u64 driver_stop(void)
{
	return binding->stop(binding, &pci, 0, NULL);
}

bool mode_told(struct told_mode *m)
{
	struct efi_gop_info *info;
	size_t size;

	if (!gop || gop->query(gop, 0, &size, &info))
		return false;
	*m = (struct told_mode){info->width,	  info->height,
				info->format,	  info->pixels_per_line,
				gop->mode->count, gop->mode->current,
				(u32)size,	  gop->mode->base,
				gop->mode->size};
	free(info);
	return true;
}

u64 query_mode(u32 number)
{
	struct efi_gop_info *info;
	size_t size;
	u64 err = gop->query(gop, number, &size, &info);

	if (!err)
		free(info);
	return err;
}

u64 set_mode(u32 number)
{
	return gop->set(gop, number);
}

u64 blt(u32 *buffer, u32 operation, const u64 at[6], u64 delta)
{
	return gop->blt(gop, buffer, (enum efi_blt)operation, at[0], at[1],
			at[2], at[3], at[4], at[5], delta);
}
