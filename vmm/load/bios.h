/* SPDX-License-Identifier: MIT */
/*
 * guest=bios: a boot sector or flat real-mode image on the host firmware's
 * own memory below 1 MiB, 1:1: interrupt vectors, BIOS data areas, BIOS and
 * option ROMs. INT 10h works; INT 15h tells of the guest's memory, INT 13h
 * of no disk; and the RSDP (ACPI 5.2.5.1) is the guest's own.
 */
#ifndef VMM_LOAD_BIOS_H
#define VMM_LOAD_BIOS_H

#include "kernel/acpi.h"
#include "kernel/boot_info.h"
#include "kernel/options.h"
#include "vmm/core/bus.h"
#include "vmm/load/loader.h"

struct bios {
	/* What it is handed; the map is in loader->map. */
	const struct loader_input *loader;
	struct bus *bus;
	bool has_disk;	       /* the guest has a disk controller of its own */
	struct acpi_rsdp rsdp; /* what it finds in place of the firmware's */
	/* Its own. */
	struct region copied; /* the part of the BIOS that has an RSDP */
	gpa_t stub;	      /* where the handlers of INT 13h and 15h are */
	void *memory;	      /* what the first MiB was at first */
};

/* Whether this machine can have such a guest; -EINVAL after a line. */
int bios_check(const struct boot_info *boot, const struct options *options);
/*
 * Checks the image and pins the first MiB, all but the VGA window. -EINVAL,
 * -ENOMEM or what region_pin() says; each one log_error line.
 */
int bios_regions(struct bios *b, struct region_list *map);
/* Keeps the first MiB for the guest's resets. -ENOMEM. */
int bios_save(struct bios *b);
/* The first MiB as firmware left it. */
void bios_restore(const struct bios *b);
/* Devices as firmware sets them up, the image, INT 13h and 15h, the RSDP. */
int bios_start(struct bios *b, struct guest_entry *entry);

#endif
