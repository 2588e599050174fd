/* SPDX-License-Identifier: MIT */
/*
 * Keyboard controller, ports 0x60 and 0x64: the host's own is passed
 * through, but for commands that reset the machine, move A20, or write what
 * is the firmware's. Without a controller in the host (status 0xFF) the
 * guest finds none either; the reset command still works.
 */
#ifndef VMM_DEVMODEL_I8042_H
#define VMM_DEVMODEL_I8042_H

#include "arch/x86/io.h"
#include "vmm/core/bus.h"
#include "vmm/core/virq.h"

#define I8042_STATUS 0x64

/* The host has one; where there is none its status port reads ones. */
static inline bool i8042_present(void)
{
	return inb(I8042_STATUS) != 0xff;
}

struct i8042 {
	u8 command; /* whose data byte comes next, or 0 */
	void (*request_reset)(void *ctx);
	void *ctx;
	const struct virq *virq;
};

/* request_reset asks for the guest's reset. 0, -ENOSPC or -EEXIST. */
int i8042_init(struct i8042 *k, struct bus *bus, const struct virq *virq,
	       void (*request_reset)(void *ctx), void *ctx);
void i8042_reset(struct i8042 *k);

/*
 * The host's IRQ 1 or 12 came: line VIRQ_KEYBOARD or VIRQ_MOUSE rises, and
 * falls when the guest reads the byte.
 */
void i8042_host_irq(struct i8042 *k, unsigned line);

#endif
