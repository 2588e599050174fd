/* SPDX-License-Identifier: MIT */
#include "vmm/core/vm.h"

/* SDM 25.6.4: two pages, a bit for each port; 0 is open. */
void vm_open_ports(struct vm *vm, u64 first, u64 count, bool open)
{
	u8 *bitmap = vm->io_bitmap;

	for (u64 port = first; port < first + count && port < 0x10000; port++) {
		u8 bit = (u8)(1u << port % 8);

		if (open)
			bitmap[port / 8] &= (u8)~bit;
		else
			bitmap[port / 8] |= bit;
	}
}
