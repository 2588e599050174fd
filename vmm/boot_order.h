/* SPDX-License-Identifier: MIT */
/* SeaBIOS's list of what it starts from first (src/boot.c there). */
#ifndef VMM_BOOT_ORDER_H
#define VMM_BOOT_ORDER_H

#include "vmm/assign/assigned.h"

/*
 * A line for each place that a disk can have, in the order of the words assign=
 * that name its function. The length in bytes; what does not fit is left out.
 */
u32 boot_order(const struct assignment *all, char *text, u32 size);

#endif
