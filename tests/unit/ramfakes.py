# SPDX-License-Identifier: MIT
"""Host memory for tests: one array that begins at address 0.

Whoever asks for what lies behind its end is stopped at once.
"""

CDEF = "extern u8 *ram; extern u64 ram_size;"
FAKES = """
#include <stdlib.h>
#include "kernel/phys.h"
u8 *ram;
u64 ram_size;
void *phys_to_virt(hpa_t hpa)
{
	if (hpa >= ram_size)
		abort();
	return ram + hpa;
}
hpa_t virt_to_phys(const void *p)
{
	return (hpa_t)((const u8 *)p - ram);
}
"""
