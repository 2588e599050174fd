/* SPDX-License-Identifier: MIT */
#include "vmm/load/loader.h"

#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/string.h"
#include "vmm/load/loader_priv.h"

/*
 * The words of the BIOS data area that kernels read (IBM PS/2 BIOS reference,
 * section 3): COM1's port, an 80-column screen and one serial port, the EBDA's
 * segment and the KiB below it; the EBDA begins with its own size.
 */
static void put_bios_data(struct loader *l)
{
	u64 kib = e820_ram(l->in->map, 0, 640 * KIB) / KIB - 1;
	const struct {
		gpa_t at;
		u16 value;
	} words[] = {{0x400, 0x3f8},
		     {0x410, 0x220},
		     {0x40e, (u16)(kib * KIB / 16)},
		     {0x413, (u16)kib},
		     {kib * KIB, 1}};

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		if (ram_is_free(l, words[i].at, 2))
			loader_put(l, words[i].at, &words[i].value, 2);
}

static int load(const struct loader_input *in, struct guest_entry *entry,
		bool dry)
{
	struct loader l = {.in = in, .dry = dry};
	int error;

	memset(entry, 0, sizeof(*entry));
	if (ram_collect(&l)) {
		log_error("guest memory is in more than %d pieces",
			  LOADER_EXTENTS);
		return -ENOSPC;
	}
	if (linux_detect(in)) {
		error = linux_load(&l, entry);
	} else if (multiboot_detect(in)) {
		error = multiboot_load(&l, entry);
	} else {
		log_error("the guest's kernel is neither a Linux bzImage nor "
			  "a Multiboot 1 image; pass one as the module "
			  "\"kernel\"");
		return -EINVAL;
	}
	if (!error)
		put_bios_data(&l);
	if (!error && l.failed) {
		log_error("guest memory cannot be written by the loader");
		return -EINVAL;
	}
	return error;
}

int loader_load(const struct loader_input *input, struct guest_entry *entry)
{
	return load(input, entry, false);
}

int loader_check(const struct loader_input *input)
{
	struct guest_entry entry;

	return load(input, &entry, true);
}
