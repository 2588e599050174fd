/* SPDX-License-Identifier: MIT */
/*
 * The guest's SMBIOS table (DMTF DSP0134): the host's. Drivers go by what is in
 * it: quirks for panels, sound, touchpads.
 */
#ifndef VMM_LOAD_SMBIOS_H
#define VMM_LOAD_SMBIOS_H

#include "kernel/boot_info.h"

#define SMBIOS_ENTRY 24u /* bytes of the entry point; the table follows */

/*
 * Finds the firmware's, and writes entry point and table to memory, which the
 * guest has at gpa, a multiple of 16 in 0xF0000-0xFFFFF. What does not fit size
 * bytes, or is not sound, is left out after one line in the log. Without
 * serials also what tells this machine from others of its model: serial
 * numbers, asset tags, the UUID, and vendors' own structures. Returns the bytes
 * written; 0: the firmware has none.
 */
u32 smbios_copy(const struct boot_info *boot, gpa_t gpa, u8 *memory, u32 size,
		bool serials);

#endif
