/* SPDX-License-Identifier: MIT */
/*
 * Ports by which a guest ends itself: reset control 0xCF9 and system
 * control port A 0x92 as in the ICH (data sheet, RST_CNT and PORT92), and
 * the debug exit port 0xF4 of Monocle's own guests.
 */
#ifndef VMM_DEVMODEL_RESET_H
#define VMM_DEVMODEL_RESET_H

#include "vmm/core/bus.h"

/* FADT RESET_REG and RESET_VALUE */
#define RESET_PORT 0xCF9
#define RESET_VALUE 0x06
#define DEBUG_EXIT_PORT 0xF4

struct reset_ports {
	u8 control; /* 0xCF9 */
	u8 port92;
	void (*request)(void *ctx);
	void (*debug_exit)(void *ctx, u32 value);
	void *ctx;
};

/*
 * request asks for the guest's reset; debug_exit gets what the guest wrote,
 * in the width it wrote. Returns 0, -ENOSPC or -EEXIST.
 */
int reset_ports_init(struct reset_ports *r, struct bus *bus,
		     void (*request)(void *ctx),
		     void (*debug_exit)(void *ctx, u32 value), void *ctx);
void reset_ports_reset(struct reset_ports *r);

#endif
