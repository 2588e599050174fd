/* SPDX-License-Identifier: MIT */
/*
 * A CPU with VMX for host builds: VMCS, MSRs, CPUID and XCR0 are tables that
 * the test fills in. Writes join the one list of events that fakes.c keeps,
 * so that a test sees their order against stores to memory. The direct map
 * is the identity but for page_alloc()'s pages, which lie in an arena whose
 * host-physical addresses start at VMX_ARENA_BASE. Its functions are weak, so
 * that a test may link the real ones.
 */
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/vmx_fakes.h"

#include "arch/x86/errno.h"
#include "arch/x86/vmx/vmcs.h"
#include "arch/x86/vmx/vmx.h"
#include "kernel/phys.h"
#include "tests/unit/fakes.h"

#define WEAK __attribute__((weak))

u64 vmcs_fields[VMCS_FIELDS];
struct cpuid_row cpuid_rows[CPUID_ROWS];
unsigned cpuid_count;
struct cpuid cpuid_default;
struct msr_row msr_rows[MSR_ROWS];
unsigned msr_count;
u64 fake_xcr0;
u64 fake_cr[16];
u64 fake_dr[8];
struct xsave_area fake_fpu;
u8 *arena;
u8 arena_used[ARENA_PAGES];
unsigned arena_limit = ARENA_PAGES;
int fake_vmfail;
unsigned fake_wakes;
/* Where the CPU stops: whether it does in the call. */
#define STOPS(call) (setjmp(stopped) ? true : ((call), false))
static jmp_buf stopped;

void vmx_fakes_reset(void)
{
	memset(vmcs_fields, 0, sizeof(vmcs_fields));
	memset(&cpuid_default, 0, sizeof(cpuid_default));
	memset(fake_cr, 0, sizeof(fake_cr));
	memset(arena_used, 0, sizeof(arena_used));
	cpuid_count = msr_count = 0;
	fake_xcr0 = 1;
	fake_vmfail = 0;
	fake_wakes = 0;
	arena_limit = ARENA_PAGES;
}

/* Bits 14:13 of a field's encoding are its width: SDM 25.11.2. */
static u64 in_width(u64 field, u64 value)
{
	switch (field >> 13 & 3) {
	case 0:
		return (u16)value;
	case 2:
		return (u32)value;
	default:
		return value;
	}
}

static u64 *slot(u64 field)
{
	if (field >= VMCS_FIELDS)
		abort();
	return &vmcs_fields[field];
}

unsigned vmcs_reads;

WEAK u64 vmread(u64 field)
{
	vmcs_reads++;
	return in_width(field, *slot(field));
}

WEAK void vmwrite(u64 field, u64 value)
{
	*slot(field) = in_width(field, value);
	fakes_record(FAKE_VMWRITE, field, 8, value);
}

WEAK struct cpuid cpuid(u32 leaf, u32 subleaf)
{
	for (unsigned i = 0; i < cpuid_count; i++)
		if (cpuid_rows[i].leaf == leaf &&
		    cpuid_rows[i].subleaf == subleaf)
			return cpuid_rows[i].regs;
	return cpuid_default;
}

/* An MSR that the test did not name is one that the CPU does not have. */
static struct msr_row *find_msr(u32 msr)
{
	for (unsigned i = 0; i < msr_count; i++)
		if (msr_rows[i].msr == msr)
			return &msr_rows[i];
	return NULL;
}

WEAK u64 rdmsr(u32 msr)
{
	struct msr_row *row = find_msr(msr);

	fakes_record(row ? FAKE_RDMSR : FAKE_NO_MSR, msr, 8, 0);
	return row ? row->value : 0;
}

WEAK int rdmsr_safe(u32 msr, u64 *value)
{
	struct msr_row *row = find_msr(msr);

	if (row)
		*value = row->value;
	return row ? 0 : -EFAULT;
}

WEAK void wrmsr(u32 msr, u64 value)
{
	struct msr_row *row = find_msr(msr);

	fakes_record(row ? FAKE_WRMSR : FAKE_NO_MSR, msr, 8, value);
	if (row)
		row->value = value;
}

WEAK u64 xgetbv(u32 index)
{
	return index ? 0 : fake_xcr0;
}

WEAK void write_dr(unsigned n, u64 value)
{
	fakes_record(FAKE_DR, n, 8, value);
	fake_dr[n & 7] = value;
}

WEAK u64 read_dr6(void)
{
	return fake_dr[6];
}

static void restore_state(const struct xsave_area *area, u64 components)
{
	fakes_record(FAKE_XRSTOR, fake_xcr0, 8, components);
	fake_fpu = *area;
}

WEAK void fxrstor(const struct xsave_area *area)
{
	restore_state(area, 0);
}

WEAK void xrstor(const struct xsave_area *area, u64 components)
{
	restore_state(area, components);
}

WEAK void xsetbv(u32 index, u64 value)
{
	fakes_record(FAKE_XSETBV, index, 8, value);
	fake_xcr0 = value;
}

#define CONTROL_REGISTER(n)                         \
	WEAK u64 read_cr##n(void)                   \
	{                                           \
		return fake_cr[n];                  \
	}                                           \
	WEAK void write_cr##n(u64 value)            \
	{                                           \
		fakes_record(FAKE_CR, n, 8, value); \
		fake_cr[n] = value;                 \
	}

CONTROL_REGISTER(0)
CONTROL_REGISTER(2)
CONTROL_REGISTER(3)
CONTROL_REGISTER(4)

#define TABLE(name, kind)                                  \
	WEAK void name(const struct descriptor_pointer *p) \
	{                                                  \
		fakes_record(kind, p->base, p->limit, 0);  \
	}

TABLE(lgdt, FAKE_LGDT)
TABLE(lidt, FAKE_LIDT)

WEAK void ltr(u16 selector)
{
	fakes_record(FAKE_LTR, selector, 0, 0);
}

WEAK void load_segments(u16 code, u16 data)
{
	fakes_record(FAKE_SEGMENTS, code, 0, data);
}

WEAK void invlpg(const void *p)
{
	fakes_record(FAKE_INVLPG, (u64)(uintptr_t)p, 0, 0);
}

WEAK void cpu_cli(void)
{
	fakes_record(FAKE_CLI, 0, 0, 0);
}

WEAK void cpu_take_interrupts(void)
{
}

WEAK NORETURN void cpu_stop(void)
{
	fakes_record(FAKE_STOP, 0, 0, 0);
	longjmp(stopped, 1);
}

/* It wakes for nothing, until it sleeps for good. */
WEAK void cpu_sleep(const void *line, u32 hint)
{
	fakes_record(FAKE_SLEEP, (u64)(uintptr_t)line, 0, hint);
	if (!fake_wakes)
		longjmp(stopped, 1);
	fake_wakes--;
}

WEAK void wbinvd(void)
{
	fakes_record(FAKE_WBINVD, 0, 0, 0);
}

WEAK void vmx_invept(const struct vmx_capabilities *cap, u64 eptp)
{
	(void)cap;
	fakes_record(FAKE_INVEPT, eptp, 0, 0);
}

WEAK void invept(u64 type, u64 eptp)
{
	fakes_record(FAKE_INVEPT, eptp, 0, type);
}

/* The value of the event is the revision that the region has by then. */
#define VMX_INSTRUCTION(name, kind)                                          \
	WEAK bool name(hpa_t hpa)                                            \
	{                                                                    \
		fakes_record(kind, hpa, 4, *(const u32 *)phys_to_virt(hpa)); \
		return fake_vmfail != kind;                                  \
	}

VMX_INSTRUCTION(vmxon, FAKE_VMXON)
VMX_INSTRUCTION(vmclear, FAKE_VMCLEAR)
VMX_INSTRUCTION(vmptrld, FAKE_VMPTRLD)

WEAK void *phys_to_virt(hpa_t hpa)
{
	if (hpa >= VMX_ARENA_BASE &&
	    hpa < VMX_ARENA_BASE + ARENA_PAGES * PAGE_SIZE)
		return arena + (hpa - VMX_ARENA_BASE);
	return (void *)(uintptr_t)hpa;
}

WEAK hpa_t virt_to_phys(const void *p)
{
	const u8 *at = p;

	if (arena && at >= arena && at < arena + ARENA_PAGES * PAGE_SIZE)
		return VMX_ARENA_BASE + (u64)(at - arena);
	return (hpa_t)(uintptr_t)p;
}

WEAK void *page_alloc(void)
{
	if (!arena)
		arena = aligned_alloc(PAGE_SIZE, ARENA_PAGES * PAGE_SIZE);
	for (unsigned i = 0; arena && i < arena_limit; i++)
		if (!arena_used[i]) {
			u8 *page = arena + i * PAGE_SIZE;

			arena_used[i] = 1;
			memset(page, 0, PAGE_SIZE);
			fakes_record(FAKE_PAGE_ALLOC, (u64)(uintptr_t)page, 0,
				     0);
			return page;
		}
	return NULL;
}

WEAK void page_free(void *page)
{
	u64 n = (u64)((u8 *)page - arena) / PAGE_SIZE;

	if (n >= ARENA_PAGES || !arena_used[n])
		abort(); /* not one of ours, or freed twice */
	arena_used[n] = 0;
	/* What still uses it is noticed. */
	memset(page, 0xa5, PAGE_SIZE);
	fakes_record(FAKE_PAGE_FREE, (u64)(uintptr_t)page, 0, 0);
}

unsigned arena_count(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ARENA_PAGES; i++)
		n += arena_used[i];
	return n;
}
