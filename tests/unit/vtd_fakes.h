/* SPDX-License-Identifier: MIT */
/*
 * Memory as a remapping unit sees it, and a PCI bus, for the VT-d tests.
 *
 * A store is in the arena at once; it is in the unit's view only after
 * clflush (where walks do not snoop) and, where the unit has a write buffer,
 * after fake_commit().
 */
#ifndef TESTS_UNIT_VTD_FAKES_H
#define TESTS_UNIT_VTD_FAKES_H

#include "drivers/vtd/vtd.h"

#define ARENA_BASE 0x10000000ull
#define ARENA_PAGES 4096
#define FAKE_UNITS 4
#define FAKE_FUNCTIONS 32

extern u8 *fake_arena;
extern bool fake_coherent, fake_buffered;
extern unsigned fake_pages_left, fake_pages_used;
extern u64 fake_unit_base[FAKE_UNITS];	    /* host-physical; 0: none */
extern u8 fake_config[FAKE_FUNCTIONS][256]; /* as pci_host.functions */
extern unsigned fake_config_writes;
extern struct pci_host *fake_pci;
extern const void *fake_dmar;
extern bool fake_taken;	 /* phys_keep() refuses */
extern u64 fake_kept[8]; /* what it was asked for, the first of them */
extern unsigned fake_kept_count;

struct vtd *fake_start(void); /* all as new; the struct lies in the arena */
void fake_commit(void);
void fake_view(u64 hpa, u8 *to, u64 size, bool coherent);
void fake_poke32(u64 hpa, u32 value);
u64 fake_regs(unsigned unit);

#endif
