/* SPDX-License-Identifier: MIT */
#include "arch/x86/errno.h"
#include "drivers/vtd/unit.h"
#include "kernel/log.h"

int unit_wait(const struct vtd_unit *u, enum vtd_reg32 reg, u32 mask, u32 value)
{
	u64 start = rdtsc();

	while ((unit_read32(u, reg) & mask) != value) {
		if (rdtsc() - start > VTD_TIMEOUT) {
			log_error("VT-d: unit at 0x%lx does not do as it is "
				  "told: register 0x%x stays 0x%x",
				  u->base, reg, unit_read32(u, reg));
			return -ETIMEDOUT;
		}
		cpu_relax();
	}
	return 0;
}

int unit_command(struct vtd_unit *u, u32 bit, bool on)
{
	u32 state = unit_read32(u, VTD_GSTS) & ~VTD_GCMD_ONE_SHOT;
	/* WBF alone is done when its status is clear (11.4.4.2). */
	u32 done = on && bit != VTD_GCMD_WBF ? bit : 0;

	unit_write32(u, VTD_GCMD, on ? state | bit : state & ~bit);
	return unit_wait(u, VTD_GSTS, bit, done);
}

void vtd_flush(const void *p, size_t size, bool needed)
{
	const u8 *line = (const u8 *)((uintptr_t)p & ~(uintptr_t)63);

	for (; needed && line < (const u8 *)p + size; line += 64)
		clflush(line);
	sfence();
}
