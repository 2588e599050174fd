/* SPDX-License-Identifier: MIT */
/* Hardware task switches: switch.asm makes them, what came of them is printed. */
#include "guests/guest.h"

/* What switch.asm's snap leaves: registers, types of descriptors, TSSs. */
#define FIELDS (21 + 8 + 2 + 5 * 26 + 11)

extern u32 switch_log[][FIELDS], legacy_directory[], log_at;
void switches(u32 page);
void load_tss(void);

/* Each record as what differs from the one before. */
u8 task_switches(void)
{
	unsigned count;

	for (u32 i = 0; i < 1024; i++)
		legacy_directory[i] = i << 22 | 0x87;
	switches((u32)low_page);
	load_tss();
	count = (u32)(log_at - (u64)switch_log) / sizeof(switch_log[0]);
	for (unsigned n = 0; n < count; n++) {
		print("record %u:", n);
		for (unsigned i = 0; i < FIELDS; i++)
			if (!n || switch_log[n][i] != switch_log[n - 1][i])
				print(" %u=%x", i, switch_log[n][i]);
		print("\n");
	}
	print("switches: %u records\n", count);
	return 0;
}
