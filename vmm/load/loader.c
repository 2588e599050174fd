/* SPDX-License-Identifier: MIT */
#include "vmm/load/loader.h"

#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/string.h"
#include "vmm/load/loader_priv.h"

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
