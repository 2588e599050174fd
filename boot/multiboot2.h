/* SPDX-License-Identifier: MIT */
#ifndef BOOT_MULTIBOOT2_H
#define BOOT_MULTIBOOT2_H

#include "kernel/boot_info.h"

#define MULTIBOOT2_MAGIC 0x36d76289u

/*
 * Reads the tags (Multiboot2 3.6) at info, host-physical below 4 GiB and
 * mapped 1:1 by phys_to_virt(). -EINVAL after one log_error line where the
 * information is not what the specification says; a tag that is cut short is
 * logged and passed over.
 */
int multiboot2_parse(struct boot_info *boot, hpa_t info);

#endif
