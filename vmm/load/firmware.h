/* SPDX-License-Identifier: MIT */
/*
 * A PC's firmware as the guest, which starts an operating system from a disk
 * that it is given: SeaBIOS, or OVMF. It finds a machine as QEMU's q35, after
 * power-on: RAM in one piece from 0 to at most 2 GiB, its image up to 4 GiB and
 * in part below 1 MiB, where all else from 0xC0000 on is RAM, ECAM of 256 buses
 * at FIRMWARE_ECAM, and fw_cfg. Memory that does not fit is above 4 GiB.
 */
#ifndef VMM_LOAD_FIRMWARE_H
#define VMM_LOAD_FIRMWARE_H

#include "kernel/acpi.h"
#include "kernel/boot_info.h"
#include "kernel/options.h"
#include "kernel/region.h"
#include "vmm/core/entry.h"
#include "vmm/devmodel/fw_cfg.h"
#include "vmm/load/loader.h"

#define FIRMWARE_ECAM 0xb0000000ull /* OVMF: PcdPciExpressBaseAddress */
#define FIRMWARE_COMMANDS 20

/* Of QEMU's loader of ACPI tables (hw/acpi/bios-linker-loader.c). */
struct firmware_command {
	u32 command;
	char file[FW_CFG_NAME];
	union {
		struct {
			u32 align;
			u8 zone;
		} PACKED allocate;
		struct {
			char target[FW_CFG_NAME];
			u32 offset;
			u8 size;
		} PACKED pointer;
		struct {
			u32 offset, start, length;
		} PACKED sum;
		u8 room[68];
	};
} PACKED;

_Static_assert(sizeof(struct firmware_command) == 128, "its format");

struct firmware {
	/* What it is handed. */
	const u8 *image; /* NULL: the guest is another one */
	u64 size;	 /* bytes */
	const struct region_list *map;
	const struct boot_info *boot;
	const struct options *options;
	/* Its own. */
	bool uefi;
	const u8 *first_code; /* OVMF's last volume, which starts */
	u64 first_size;
	u8 *tables; /* GUEST_ACPI_SIZE bytes; addresses count from there */
	u8 *smbios;
	struct acpi_rsdp rsdp;
	struct fw_cfg config;
	unsigned command_count, row_count;
	struct firmware_command commands[FIRMWARE_COMMANDS];
	struct e820_row rows[REGION_E820_MAX];
	u64 serial_port, more_roots;
	char boot_order[8 * KIB]; /* filled in before firmware_init() */
};

/*
 * Whether there is one that can be started, and of which kind. -EINVAL after a
 * log_error line.
 */
int firmware_check(struct firmware *f);
/* Where its RAM below 4 GiB ends: the host's may end there, or earlier. */
gpa_t firmware_low_end(const struct region_list *map, gpa_t end);
/*
 * Pins the image up to 4 GiB, and takes memory for tables. -ENOMEM, or
 * region_pin()'s errors.
 */
int firmware_regions(struct firmware *f, struct region_list *map);
/* The map has RAM that it can start in. -ENOMEM after a log_error line. */
int firmware_check_memory(const struct firmware *f);

/* opt/NAME: a module that is to be a file of fw_cfg. */
bool firmware_is_text(const char *string);

struct firmware_machine {
	u64 serial_port; /* for text, where no video BIOS has it; or 0 */
	unsigned roots;	 /* of PCI */
	u32 boot_order;	 /* bytes of it */
	/* Fills f->tables and f->rsdp with the guest's ACPI tables. */
	void (*fill)(void *ctx);
	void *ctx;
};

/* Its ports, and what is to be read there: bus_register()'s errors. */
int firmware_init(struct firmware *f, struct bus *bus,
		  const struct firmware_machine *machine);
/* After fill(): what becomes of the tables wherever the guest puts them. */
void firmware_link(struct firmware *f);
/* The image below 1 MiB, and the reset vector in it. guest_write()'s errors. */
int firmware_start(struct firmware *f, struct guest_entry *entry);

#endif
