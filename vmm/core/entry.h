/* SPDX-License-Identifier: MIT */
/* How a guest's first instruction finds its vCPU. */
#ifndef VMM_CORE_ENTRY_H
#define VMM_CORE_ENTRY_H

#include "arch/x86/types.h"

/* Order of guest_entry.gpr: the instructions' register numbers. */
enum gpr {
	GPR_RAX,
	GPR_RCX,
	GPR_RDX,
	GPR_RBX,
	GPR_RSP,
	GPR_RBP,
	GPR_RSI,
	GPR_RDI,
};

/*
 * The state in which the guest's first instruction runs. Segments are flat
 * (base 0, limit 4 GiB) but for ENTRY_REAL16, where bases are selector << 4.
 */
struct guest_entry {
	enum { ENTRY_REAL16, ENTRY_PROTECTED32, ENTRY_LONG64 } mode;
	u64 rip;
	u64 rsp;
	u64 cr3;	/* ENTRY_LONG64 only */
	gpa_t gdt_base; /* holds cs and ds; nothing for ENTRY_REAL16 */
	u16 gdt_limit;
	u16 cs;
	u16 ds; /* also ES, SS, FS, GS */
	u64 gpr[16];
};

#endif
