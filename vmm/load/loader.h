/* SPDX-License-Identifier: MIT */
/*
 * Puts the guest's kernel into guest memory: Linux bzImage by the 64-bit
 * boot protocol (Linux, Documentation/arch/x86/boot.rst), or Multiboot 1
 * ELF. The modules are read only: a guest reboots from the same bytes.
 */
#ifndef VMM_LOAD_LOADER_H
#define VMM_LOAD_LOADER_H

#include "arch/x86/types.h"
#include "kernel/boot_info.h"
#include "kernel/region.h"
#include "vmm/core/entry.h"

struct loader_module {
	const void *data;
	u64 size; /* bytes */
	const char *string;
};

struct loader_input {
	const struct region_list *map;
	const void *kernel;
	u64 kernel_size;    /* bytes */
	const void *initrd; /* NULL: none; Multiboot's first module */
	u64 initrd_size;    /* bytes */
	const char *cmdline;
	gpa_t rsdp; /* 0: none */
	/*
	 * What the guest finds on its screen: text 80x25 or a linear frame
	 * buffer (base is a guest-physical address here). NULL or
	 * DISPLAY_NONE: the guest is told of no screen.
	 */
	const struct boot_framebuffer *screen;
	bool uefi;     /* the frame buffer was set up by UEFI, not a VBE BIOS */
	u8 cursor_row; /* of the text screen, 0-24 */
	/* Further modules, for Multiboot only. */
	const struct loader_module *modules;
	unsigned module_count;
};

/*
 * Loads what the input names and says how to enter it. The kind is detected
 * from the kernel's bytes. Guest RAM is expected to be zeroed or a previous
 * guest's; only what is loaded is written. -EINVAL (not a kernel, broken, or
 * of an unsupported kind) or -ENOSPC (does not fit guest RAM), each said in
 * exactly one log_error line.
 */
int loader_load(const struct loader_input *input, struct guest_entry *entry);

/* All of loader_load()'s checks without a write to guest memory. */
int loader_check(const struct loader_input *input);

/* A row of a BIOS memory map (ACPI 6.4, 15.1), adjacent regions merged. */
struct e820_row {
	u64 base, size;
	u32 kind; /* enum e820_kind */
} PACKED;

_Static_assert(sizeof(struct e820_row) == 20, "ACPI 6.4, table 15.4");

/*
 * The next row of the guest's memory map; *index starts at 0 and belongs to
 * this function. False: there is no further row.
 */
bool e820_next(const struct region_list *map, unsigned *index,
	       struct e820_row *row);
/* Bytes of RAM that lie in one piece from there on, below to. */
u64 e820_ram(const struct region_list *map, gpa_t from, gpa_t to);

#endif
