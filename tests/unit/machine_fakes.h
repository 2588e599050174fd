/* SPDX-License-Identifier: MIT */
/* A machine with nothing in it, for tests of what chooses and places. */
#ifndef TESTS_UNIT_MACHINE_FAKES_H
#define TESTS_UNIT_MACHINE_FAKES_H

#include <string.h>

#include "vmm/machine.h"

struct machine *fresh_machine(void);

/* Static: it holds pages. */
static inline struct machine *empty_machine(void)
{
	static struct machine machine;
	static struct host host;

	memset(&machine, 0, sizeof(machine));
	memset(&host, 0, sizeof(host));
	machine.host = &host;
	return &machine;
}

#endif
