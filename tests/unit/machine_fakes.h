/* SPDX-License-Identifier: MIT */
/* What test_machine.py sets and sees of machine_fakes.c. */
#ifndef TESTS_UNIT_MACHINE_FAKES_H
#define TESTS_UNIT_MACHINE_FAKES_H

#include "vmm/machine.h"
#include "vmm/machine_map.h"

extern char machine_notes[4096]; /* a line for each call that counts */
extern int (*machine_guest)(void);
extern int machine_fails;
extern bool machine_no_rom;
extern enum pci_reset machine_reset;
extern char machine_failing[32];    /* the function whose status is -EIO */
extern bool machine_serial;	    /* the host has a COM1 */
extern u8 machine_config[256][256]; /* of bus 0 */

/* The host's ISA interrupt comes; false: it is routed to nobody. */
bool machine_interrupt(u8 irq);
/* With nothing planned; its host has no memory yet. */
struct machine *fresh_machine(void);

#endif
