/* SPDX-License-Identifier: MIT */
/*
 * 8254 programmable interval timer (Intel 8254 data sheet), ports 0x40-0x43,
 * and the system control port 0x61. Channel 0 drives VIRQ_PIT, channel 1
 * only counts, channel 2 is gated and read by port 0x61. A new count is
 * loaded at once, also in the periodic modes.
 */
#ifndef VMM_DEVMODEL_PIT_H
#define VMM_DEVMODEL_PIT_H

#include "vmm/core/bus.h"
#include "vmm/core/vclock.h"
#include "vmm/core/virq.h"

#define PIT_HZ 1193182ull

struct pit_channel {
	u64 start;  /* when the count was loaded, PIT ticks */
	u64 paused; /* when the gate went low, PIT ticks */
	u32 count;  /* 1 to 65536; 0: none was loaded yet */
	u16 latch;  /* what a latch command kept */
	u8 mode;    /* 0-5 */
	u8 access;  /* 1: low byte, 2: high byte, 3: low, then high */
	bool bcd, gate;
	bool triggered; /* modes 1 and 5: by the gate, since the mode came */
	bool read_high, write_high; /* the next byte is the high one */
	u8 low;			    /* the byte that awaits the high one */
	u8 latched;		    /* bytes of the latch still to be read */
	bool status_latched;
	u8 status;
};

struct pit {
	struct pit_channel channels[3];
	u8 control; /* port 0x61, bits 3:0 */
	u64 epoch;  /* TSC ticks at PIT tick 0 */
	struct vtimer timer;
	struct vclock *clock;
	const struct virq *virq;
};

/* Keeps clock and virq. Returns 0, -ENOSPC or -EEXIST. */
int pit_init(struct pit *pit, struct bus *bus, struct vclock *clock,
	     const struct virq *virq);
void pit_reset(struct pit *pit);

#endif
