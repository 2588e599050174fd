/* SPDX-License-Identifier: MIT */
/* Of UEFI 2.10 what the driver uses; the rest is room. */
#ifndef VMM_ASSIGN_GOP_EFI_H
#define VMM_ASSIGN_GOP_EFI_H

#include "arch/x86/types.h"

#define EFIAPI __attribute__((ms_abi))
#define EFI_ERROR(n) (BIT(63) | (n)) /* appendix D */

typedef u64 efi_status;
typedef void *efi_handle;

#define EFI_SUCCESS 0
#define EFI_INVALID_PARAMETER EFI_ERROR(2)
#define EFI_UNSUPPORTED EFI_ERROR(3)

struct efi_guid {
	u32 a;
	u16 b, c;
	u8 d[8];
};

/* 7.1: EFI_ALLOCATE_TYPE, EFI_MEMORY_TYPE; 7.3.9: attributes */
#define EFI_ANY_PAGES 0
#define EFI_BOOT_DATA 4
#define EFI_BY_DRIVER 0x10

/* 4.4 */
struct efi_boot_services {
	u64 header[3];
	void *tpl[2];
	efi_status(EFIAPI *allocate_pages)(int type, int memory, size_t pages,
					   u64 *address);
	efi_status(EFIAPI *free_pages)(u64 address, size_t pages);
	void *map;
	efi_status(EFIAPI *allocate_pool)(int memory, size_t size, void **out);
	void *others[26];
	efi_status(EFIAPI *open)(efi_handle handle, const struct efi_guid *id,
				 void **interface, efi_handle agent,
				 efi_handle controller, u32 attributes);
	efi_status(EFIAPI *close)(efi_handle handle, const struct efi_guid *id,
				  efi_handle agent, efi_handle controller);
	void *information[4];
	/* Pairs of an ID and an interface, and NULL */
	efi_status(EFIAPI *install)(efi_handle *handle, ...);
	efi_status(EFIAPI *uninstall)(efi_handle handle, ...);
};
_Static_assert(offsetof(struct efi_boot_services, open) == 280, "4.4.1");
_Static_assert(offsetof(struct efi_boot_services, install) == 328, "4.4.1");

/* 4.3 */
struct efi_system_table {
	u64 header[3];
	void *vendor;
	u64 revision;
	void *consoles[6], *runtime;
	struct efi_boot_services *boot;
};
_Static_assert(offsetof(struct efi_system_table, boot) == 96, "4.3.1");

/* 11.1 */
struct efi_driver_binding {
	efi_status(EFIAPI *supported)(struct efi_driver_binding *self,
				      efi_handle controller, void *path);
	efi_status(EFIAPI *start)(struct efi_driver_binding *self,
				  efi_handle controller, void *path);
	efi_status(EFIAPI *stop)(struct efi_driver_binding *self,
				 efi_handle controller, size_t children,
				 efi_handle *child);
	u32 version;
	efi_handle image, handle;
};

/* 14.4 */
#define EFI_PCI_UINT32 2
#define EFI_PCI_ENABLE 2     /* what attributes() does */
#define EFI_PCI_MEMORY 0x200 /* ... with memory space */

struct efi_pci_io {
	void *poll[2], *memory[2], *port[2];
	efi_status(EFIAPI *config_read)(struct efi_pci_io *self, int width,
					u32 offset, size_t count, void *out);
	void *others[8];
	efi_status(EFIAPI *attributes)(struct efi_pci_io *self, int operation,
				       u64 attributes, u64 *result);
	void *bars[2];
	u64 rom_size;
	const u8 *rom;
};
_Static_assert(offsetof(struct efi_pci_io, attributes) == 120, "14.4");
_Static_assert(offsetof(struct efi_pci_io, rom) == 152, "14.4");

/* 12.9 */
struct efi_gop_info {
	u32 version, width, height, format, masks[4], pixels_per_line;
};

struct efi_gop_mode {
	u32 count, current;
	struct efi_gop_info *info;
	size_t info_size;
	u64 base, size;
};

enum efi_blt { EFI_BLT_FILL, EFI_BLT_READ, EFI_BLT_WRITE, EFI_BLT_MOVE };

struct efi_gop {
	efi_status(EFIAPI *query)(struct efi_gop *self, u32 mode, size_t *size,
				  struct efi_gop_info **info);
	efi_status(EFIAPI *set)(struct efi_gop *self, u32 mode);
	efi_status(EFIAPI *blt)(struct efi_gop *self, u32 *buffer,
				enum efi_blt operation, size_t from_x,
				size_t from_y, size_t x, size_t y, size_t width,
				size_t height, size_t delta);
	struct efi_gop_mode *mode;
};

#endif
