/* SPDX-License-Identifier: MIT */
/* Intel's microcode updates (SDM 3, 9.11). */
#ifndef KERNEL_MICROCODE_H
#define KERNEL_MICROCODE_H

#include "kernel/boot_info.h"

/*
 * Finds the module `microcode`: Intel's file (one or many updates), or a cpio
 * archive that has it as kernel/x86/microcode/GenuineIntel.bin (an initrd).
 * It is moved by up to 15 bytes, so that updates are aligned. Its updates are
 * checked: it ends before the first one of wrong form.
 */
void microcode_init(const struct boot_info *boot);
/*
 * Loads into this CPU the newest update that is for it, if that is newer than
 * what it has. tell: a line in the log. Returns the revision in force, or 0:
 * the CPU has none.
 */
u32 microcode_load(bool tell);
/* The revision in force in this CPU, or 0. */
u32 microcode_revision(void);
/* Whether this CPU's TSC deadline comes when it is due. */
bool microcode_mends_deadline(void);

#endif
