/* SPDX-License-Identifier: MIT */
/*
 * What the boot loader said, in Monocle's own terms. boot/multiboot2.c fills
 * it in from the tags (Multiboot2 3.6); nothing else reads the tags. All
 * addresses are host-physical; strings point into the loader's information,
 * which stays reserved.
 */
#ifndef KERNEL_BOOT_INFO_H
#define KERNEL_BOOT_INFO_H

#include "arch/x86/types.h"

#define BOOT_MEMORY_MAX 256
#define BOOT_MODULES_MAX 8

/* Values of Multiboot2 3.6.8, which are ACPI's. */
enum memory_kind {
	MEMORY_AVAILABLE = 1,
	MEMORY_RESERVED = 2,
	MEMORY_ACPI = 3,
	MEMORY_NVS = 4,
	MEMORY_BAD = 5,
};

struct boot_memory {
	hpa_t base;
	u64 size;
	enum memory_kind kind;
};

struct boot_module {
	hpa_t start;
	u64 size;
	const char *string; /* "kernel COMMAND LINE", "initrd", ... */
};

enum boot_display { DISPLAY_NONE, DISPLAY_TEXT, DISPLAY_RGB };

struct boot_framebuffer {
	enum boot_display kind;
	hpa_t base;
	u32 pitch;	   /* bytes a line */
	u32 width, height; /* pixels, or characters for DISPLAY_TEXT */
	u8 bpp;
	u8 red_pos, red_size, green_pos, green_size, blue_pos, blue_size;
};

struct boot_info {
	const char *cmdline;
	const char *loader;
	bool uefi;  /* the loader passed an EFI system table */
	hpa_t efi;  /* it, or 0 */
	hpa_t rsdp; /* of the loader's copy, 0: none passed */
	hpa_t info; /* the loader's information itself */
	u64 info_size;
	hpa_t image; /* where Monocle lies */
	u64 image_size;
	unsigned memory_count;
	unsigned module_count;
	struct boot_memory memory[BOOT_MEMORY_MAX];
	struct boot_module modules[BOOT_MODULES_MAX];
	struct boot_framebuffer fb;
};

/* "role rest": returns the rest, or NULL where the role is another. */
const char *boot_module_role(const struct boot_module *m, const char *role);
/* The first module of that role, or NULL. */
const struct boot_module *boot_module_find(const struct boot_info *b,
					   const char *role);

static inline bool boot_ranges_overlap(hpa_t base, u64 size, hpa_t other,
				       u64 other_size)
{
	return size && other_size && base < other + other_size &&
	       other < base + size;
}

/*
 * The kinds of memory in [base, base + size), as bits (1 << kind); bit 0: of
 * no row. Where rows overlap, one that restricts counts (kernel/phys.h).
 * What the loader put somewhere, and Monocle, is MEMORY_AVAILABLE.
 */
u32 boot_memory_kinds(const struct boot_info *b, hpa_t base, u64 size);

#endif
