/* SPDX-License-Identifier: MIT */
/*
 * Pair of 8259A interrupt controllers (Intel 8259A data sheet) with the
 * edge/level registers of PCI chipsets: ports 0x20, 0x21, 0xA0, 0xA1, 0x4D0
 * and 0x4D1. An edge is latched, however short the pulse.
 */
#ifndef VMM_DEVMODEL_PIC_H
#define VMM_DEVMODEL_PIC_H

#include "vmm/core/bus.h"

#define PIC_LINES 16

struct i8259 {
	u8 lines; /* asserted inputs */
	u8 irr, imr, isr;
	u8 elcr;   /* bit n: input n is level-triggered */
	u8 base;   /* vector of input 0 */
	u8 lowest; /* input of lowest priority; the next one is highest */
	u8 next;   /* the initialization command word expected, or 0 */
	bool icw4; /* ICW1 announced one */
	bool read_isr, poll, special_mask, auto_eoi, rotate_on_aeoi;
	bool fully_nested; /* special fully nested mode */
};

struct pic {
	struct i8259 chip[2]; /* master, slave */
	bool intr;	      /* the master's output */
	bool *attention;      /* set with it; or NULL */
};

/* Returns 0, -ENOSPC or -EEXIST. */
int pic_init(struct pic *pic, struct bus *bus);
void pic_reset(struct pic *pic);

/* line: 0-15 but 2, the cascade; others are ignored. */
void pic_set_line(struct pic *pic, unsigned line, bool asserted);

static inline bool pic_pending(const struct pic *pic)
{
	return pic->intr;
}

/* Interrupt acknowledge: the vector; input 7's where none is pending. */
u8 pic_ack(struct pic *pic);

#endif
