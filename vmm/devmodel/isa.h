/* SPDX-License-Identifier: MIT */
/* Devices whose registers are 8 bits wide, as on the ISA bus. */
#ifndef VMM_DEVMODEL_ISA_H
#define VMM_DEVMODEL_ISA_H

#include "vmm/core/bus.h"

/*
 * Runs a port access as the chipset does for an 8-bit device: a wider one
 * is as many byte cycles, lowest port first. Those after port last, where
 * the device ends, find nobody.
 */
static inline int isa_access(struct bus_access *access, u16 last, void *dev,
			     u8 (*read)(void *dev, u16 port),
			     void (*write)(void *dev, u16 port, u8 value))
{
	u64 value = 0;

	for (unsigned i = 0; i < access->size; i++) {
		u16 port = (u16)(access->addr + i);

		if (!access->write)
			value |= (port > last ? 0xFFull : read(dev, port))
				 << (8 * i);
		else if (port <= last)
			write(dev, port, (u8)(access->value >> (8 * i)));
	}
	if (!access->write)
		access->value = value;
	return 0;
}

#endif
