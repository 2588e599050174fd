/* SPDX-License-Identifier: MIT */
/*
 * CPU registers and instructions, one inline function each (SDM volumes 2
 * and 3). What a host build's fakes must see is declared there as a plain
 * function.
 */
#ifndef ARCH_X86_CPU_H
#define ARCH_X86_CPU_H

#include "arch/x86/types.h"

enum cr0_bits {
	CR0_PE = 1u << 0,
	CR0_MP = 1u << 1,
	CR0_EM = 1u << 2,
	CR0_TS = 1u << 3,
	CR0_ET = 1u << 4,
	CR0_NE = 1u << 5,
	CR0_WP = 1u << 16,
	CR0_AM = 1u << 18,
	CR0_NW = 1u << 29,
	CR0_CD = 1u << 30,
	CR0_PG = 1u << 31,
};

enum cr4_bits {
	CR4_VME = 1u << 0,
	CR4_PVI = 1u << 1,
	CR4_TSD = 1u << 2,
	CR4_DE = 1u << 3,
	CR4_PSE = 1u << 4,
	CR4_PAE = 1u << 5,
	CR4_MCE = 1u << 6,
	CR4_PGE = 1u << 7,
	CR4_PCE = 1u << 8,
	CR4_OSFXSR = 1u << 9,
	CR4_OSXMMEXCPT = 1u << 10,
	CR4_UMIP = 1u << 11,
	CR4_LA57 = 1u << 12,
	CR4_VMXE = 1u << 13,
	CR4_FSGSBASE = 1u << 16,
	CR4_PCIDE = 1u << 17,
	CR4_OSXSAVE = 1u << 18,
	CR4_SMEP = 1u << 20,
	CR4_SMAP = 1u << 21,
};

enum efer_bits {
	EFER_SCE = 1u << 0,
	EFER_LME = 1u << 8,
	EFER_LMA = 1u << 10,
	EFER_NXE = 1u << 11,
};

enum rflags_bits {
	RFLAGS_FIXED = 1u << 1,
	RFLAGS_CF = 1u << 0,
	RFLAGS_ZF = 1u << 6,
	RFLAGS_TF = 1u << 8,
	RFLAGS_IF = 1u << 9,
	RFLAGS_DF = 1u << 10,
	RFLAGS_RF = 1u << 16,
	RFLAGS_VM = 1u << 17,
	RFLAGS_AC = 1u << 18,
};

#define DEBUGCTL_BTF 2u /* SDM 17.4.1: TF traps branches only */

/* SDM 17.2.3 */
enum dr6_bits {
	DR6_CAUSES = 0x600f, /* B0 to B3, BD, BS */
	DR6_BS = 1u << 14,
	DR6_FIXED = 0xffff0ff0,
};

enum vector {
	VECTOR_DE = 0,
	VECTOR_DB = 1,
	VECTOR_NMI = 2,
	VECTOR_UD = 6,
	VECTOR_DF = 8,
	VECTOR_TS = 10,
	VECTOR_NP = 11,
	VECTOR_SS = 12,
	VECTOR_GP = 13,
	VECTOR_PF = 14,
	VECTOR_AC = 17,
	VECTOR_MC = 18,
};

enum msr {
	MSR_TSC = 0x10,
	MSR_APIC_BASE = 0x1b,
	MSR_FEATURE_CONTROL = 0x3a,
	MSR_SPEC_CTRL = 0x48,
	MSR_PRED_CMD = 0x49,
	MSR_MICROCODE = 0x8b,
	MSR_PLATFORM_INFO = 0xce,
	MSR_ARCH_CAPABILITIES = 0x10a,
	MSR_FLUSH_CMD = 0x10b,
	MSR_SYSENTER_CS = 0x174,
	MSR_SYSENTER_ESP = 0x175,
	MSR_SYSENTER_EIP = 0x176,
	MSR_PERF_STATUS = 0x198,
	MSR_PERF_CTL = 0x199,
	MSR_MISC_ENABLE = 0x1a0,
	MSR_DEBUGCTL = 0x1d9,
	MSR_PAT = 0x277,
	MSR_VMX_BASIC = 0x480,
	MSR_VMX_PINBASED = 0x481,
	MSR_VMX_PROCBASED = 0x482,
	MSR_VMX_EXIT = 0x483,
	MSR_VMX_ENTRY = 0x484,
	MSR_VMX_MISC = 0x485,
	MSR_VMX_CR0_FIXED0 = 0x486,
	MSR_VMX_CR0_FIXED1 = 0x487,
	MSR_VMX_CR4_FIXED0 = 0x488,
	MSR_VMX_CR4_FIXED1 = 0x489,
	MSR_VMX_PROCBASED2 = 0x48b,
	MSR_VMX_EPT_VPID = 0x48c,
	MSR_VMX_TRUE_PINBASED = 0x48d,
	MSR_VMX_TRUE_PROCBASED = 0x48e,
	MSR_VMX_TRUE_EXIT = 0x48f,
	MSR_VMX_TRUE_ENTRY = 0x490,
	MSR_TSC_DEADLINE = 0x6e0,
	MSR_PM_ENABLE = 0x770,
	MSR_HWP_CAPABILITIES = 0x771,
	MSR_HWP_REQUEST = 0x774,
	MSR_X2APIC_EOI = 0x80b,
	MSR_XSS = 0xda0,
	MSR_EFER = 0xc0000080,
	MSR_STAR = 0xc0000081,
	MSR_LSTAR = 0xc0000082,
	MSR_CSTAR = 0xc0000083,
	MSR_FMASK = 0xc0000084,
	MSR_FS_BASE = 0xc0000100,
	MSR_GS_BASE = 0xc0000101,
	MSR_KERNEL_GS_BASE = 0xc0000102,
	MSR_TSC_AUX = 0xc0000103,
};

struct cpuid {
	u32 eax, ebx, ecx, edx;
};

/* The legacy region and the header of an XSAVE area (SDM 1, 13.4). */
struct xsave_area {
	u16 fcw, fsw;
	u8 ftw, reserved[19];
	u32 mxcsr, mxcsr_mask;
	u8 registers[480];
	u64 xstate_bv, xcomp_bv, header[6];
} __attribute__((aligned(64)));

struct PACKED descriptor_pointer {
	u16 limit;
	u64 base;
};

/* 0, or -EFAULT: this CPU has no such MSR (or no right to read it). */
int rdmsr_safe(u32 msr, u64 *value);
/*
 * Sleeps, interrupts as they are: MWAIT with the hint, watching the line, or HLT
 * where the hint is 0x100. Not at all where percpu's attention is not 0, or an
 * NMI comes on the way.
 */
void cpu_sleep(const void *line, u32 hint);

#ifdef MONOCLE_HOST

struct cpuid cpuid(u32 leaf, u32 subleaf);
u64 rdmsr(u32 msr);
void wrmsr(u32 msr, u64 value);
u64 xgetbv(u32 index);
void xsetbv(u32 index, u64 value);
u64 read_cr0(void);
void write_cr0(u64 value);
u64 read_cr2(void);
void write_cr2(u64 value);
u64 read_cr3(void);
void write_cr3(u64 value);
u64 read_cr4(void);
void write_cr4(u64 value);
void write_dr(unsigned n, u64 value);
u64 read_dr6(void);
void fxrstor(const struct xsave_area *area);
void xrstor(const struct xsave_area *area, u64 components);
void wbinvd(void);
void lgdt(const struct descriptor_pointer *p);
void lidt(const struct descriptor_pointer *p);
void ltr(u16 selector);
void load_segments(u16 code, u16 data);
void invlpg(const void *p);
void cpu_cli(void);
void cpu_take_interrupts(void);
NORETURN void cpu_stop(void);

#else

static inline void wbinvd(void)
{
	__asm__ volatile("wbinvd" ::: "memory");
}

static inline struct cpuid cpuid(u32 leaf, u32 subleaf)
{
	struct cpuid r;

	__asm__ volatile("cpuid"
			 : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
			 : "0"(leaf), "2"(subleaf));
	return r;
}

static inline u64 rdmsr(u32 msr)
{
	u32 lo, hi;

	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
	return (u64)hi << 32 | lo;
}

static inline void wrmsr(u32 msr, u64 value)
{
	__asm__ volatile("wrmsr" ::"c"(msr), "a"((u32)value),
			 "d"((u32)(value >> 32))
			 : "memory");
}

static inline u64 xgetbv(u32 index)
{
	u32 lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(index));
	return (u64)hi << 32 | lo;
}

static inline void xsetbv(u32 index, u64 value)
{
	__asm__ volatile("xsetbv" ::"c"(index), "a"((u32)value),
			 "d"((u32)(value >> 32))
			 : "memory");
}

#define CONTROL_REGISTER(n)                                                  \
	static inline u64 read_cr##n(void)                                   \
	{                                                                    \
		u64 value;                                                   \
		__asm__ volatile("mov %%cr" #n ", %0" : "=r"(value));        \
		return value;                                                \
	}                                                                    \
	static inline void write_cr##n(u64 value)                            \
	{                                                                    \
		__asm__ volatile("mov %0, %%cr" #n ::"r"(value) : "memory"); \
	}

CONTROL_REGISTER(0)
CONTROL_REGISTER(2)
CONTROL_REGISTER(3)
CONTROL_REGISTER(4)
#undef CONTROL_REGISTER

/* DR0 to DR3 and DR6; DR7 is switched by the VMCS. */
static inline void write_dr(unsigned n, u64 value)
{
	switch (n) {
	case 0:
		__asm__ volatile("mov %0, %%dr0" ::"r"(value));
		break;
	case 1:
		__asm__ volatile("mov %0, %%dr1" ::"r"(value));
		break;
	case 2:
		__asm__ volatile("mov %0, %%dr2" ::"r"(value));
		break;
	case 3:
		__asm__ volatile("mov %0, %%dr3" ::"r"(value));
		break;
	default:
		__asm__ volatile("mov %0, %%dr6" ::"r"(value));
	}
}

static inline u64 read_dr6(void)
{
	u64 value;

	__asm__ volatile("mov %%dr6, %0" : "=r"(value));
	return value;
}

static inline void fxrstor(const struct xsave_area *area)
{
	__asm__ volatile("fxrstor64 %0" ::"m"(*area));
}

static inline void xrstor(const struct xsave_area *area, u64 components)
{
	__asm__ volatile("xrstor64 %0" ::"m"(*area), "a"((u32)components),
			 "d"((u32)(components >> 32)));
}

static inline void lgdt(const struct descriptor_pointer *p)
{
	__asm__ volatile("lgdt %0" ::"m"(*p));
}

static inline void lidt(const struct descriptor_pointer *p)
{
	__asm__ volatile("lidt %0" ::"m"(*p));
}

static inline void ltr(u16 selector)
{
	__asm__ volatile("ltr %0" ::"r"(selector));
}

/* FS and GS: null. */
static inline void load_segments(u16 code, u16 data)
{
	__asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss;"
			 "mov %1, %%fs; mov %1, %%gs"
			 :
			 : "r"(data), "r"(0)
			 : "memory");
	/* A far return loads CS, which has no move. */
	__asm__ volatile("push %0; lea 1f(%%rip), %%rax; push %%rax; lretq; 1:"
			 :
			 : "r"((u64)code)
			 : "rax", "memory");
}

static inline void invlpg(const void *p)
{
	__asm__ volatile("invlpg (%0)" ::"r"(p) : "memory");
}

static inline void cpu_cli(void)
{
	__asm__ volatile("cli" ::: "memory");
}

static inline void cpu_halt(void)
{
	__asm__ volatile("hlt" ::: "memory");
}

/* Interrupts on for one HLT: what is pending cannot slip in between. */
static inline void cpu_sti_halt_cli(void)
{
	__asm__ volatile("sti; hlt; cli" ::: "memory");
}

/* All that are pending: they are on for one instruction. */
static inline void cpu_take_interrupts(void)
{
	__asm__ volatile("sti; nop; cli" ::: "memory");
}

static inline NORETURN void cpu_stop(void)
{
	for (;;) {
		cpu_cli();
		cpu_halt();
	}
}

#endif
#endif
