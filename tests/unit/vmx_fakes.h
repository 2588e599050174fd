/* SPDX-License-Identifier: MIT */
/* What tests set and see of vmx_fakes.c. */
#ifndef TESTS_UNIT_VMX_FAKES_H
#define TESTS_UNIT_VMX_FAKES_H

#include "arch/x86/cpu.h"
#include "tests/unit/fakes.h"

#define VMCS_FIELDS 0x8000
#define CPUID_ROWS 256
#define MSR_ROWS 64
#define ARENA_PAGES 256
#define VMX_ARENA_BASE 0x7000000000ull

enum vmx_fake_kind {
	FAKE_INVEPT = FAKE_OTHER + 1,
	FAKE_VMWRITE,
	FAKE_RDMSR,
	FAKE_WRMSR,
	FAKE_NO_MSR, /* of one that is not there */
	FAKE_XSETBV,
	FAKE_PAGE_ALLOC,
	FAKE_PAGE_FREE,
	FAKE_WBINVD,
	FAKE_CR,
	FAKE_LGDT,
	FAKE_LIDT,
	FAKE_LTR,
	FAKE_SEGMENTS,
	FAKE_INVLPG,
	FAKE_CLI,
	FAKE_STOP,  /* HLT for good */
	FAKE_SLEEP, /* value: the hint */
	FAKE_VMXON,
	FAKE_VMCLEAR,
	FAKE_VMPTRLD,
	FAKE_DR,
	FAKE_XRSTOR, /* address: XCR0; value: components, 0: FXRSTOR */
};

struct cpuid_row {
	u32 leaf, subleaf;
	struct cpuid regs;
};

struct msr_row {
	u32 msr;
	u64 value;
};

extern unsigned vmcs_reads; /* vmread() was called so often */
extern u64 vmcs_fields[VMCS_FIELDS];
extern struct cpuid_row cpuid_rows[CPUID_ROWS];
extern unsigned cpuid_count;
extern struct cpuid cpuid_default; /* of leaves without a row */
extern struct msr_row msr_rows[MSR_ROWS];
extern unsigned msr_count;
extern u64 fake_xcr0;
extern u64 fake_cr[16];
extern u64 fake_dr[8];
extern struct xsave_area fake_fpu;
extern u8 *arena;
extern unsigned fake_wakes;  /* how often MWAIT ends for no reason */
extern int fake_vmfail;	     /* kind of the VMX instruction that fails */
extern unsigned arena_limit; /* pages that page_alloc() has to give */

void vmx_fakes_reset(void);
unsigned arena_count(void); /* pages given out */

#endif
