/* SPDX-License-Identifier: MIT */
/*
 * The fields of the VMCS (SDM appendix B), one enum for each width: the
 * compiler refuses an access of the wrong one. Reads and writes go to the
 * current VMCS of this CPU. All are there where Monocle's controls are, but
 * for some that are only written; a write of one that is not does nothing.
 */
#ifndef ARCH_X86_VMX_VMCS_H
#define ARCH_X86_VMX_VMCS_H

#include "arch/x86/types.h"

enum vmcs16 {
	VMCS_VPID = 0x0000,
	VMCS_GUEST_ES = 0x0800, /* CS, SS, DS, FS, GS, LDTR, TR: + 2 each */
	VMCS_GUEST_CS = 0x0802,
	VMCS_GUEST_SS = 0x0804,
	VMCS_GUEST_DS = 0x0806,
	VMCS_GUEST_FS = 0x0808,
	VMCS_GUEST_GS = 0x080a,
	VMCS_GUEST_LDTR = 0x080c,
	VMCS_GUEST_TR = 0x080e,
	VMCS_GUEST_INTERRUPT_STATUS = 0x0810, /* RVI; SVI << 8 */
	VMCS_HOST_ES = 0x0c00,
	VMCS_HOST_CS = 0x0c02,
	VMCS_HOST_SS = 0x0c04,
	VMCS_HOST_DS = 0x0c06,
	VMCS_HOST_FS = 0x0c08,
	VMCS_HOST_GS = 0x0c0a,
	VMCS_HOST_TR = 0x0c0c,
};

enum vmcs64 {
	VMCS_IO_BITMAP_A = 0x2000,
	VMCS_IO_BITMAP_B = 0x2002,
	VMCS_MSR_BITMAP = 0x2004,
	VMCS_TSC_OFFSET = 0x2010,
	VMCS_VIRTUAL_APIC = 0x2012,
	VMCS_EPTP = 0x201a,
	VMCS_EOI_EXIT = 0x201c, /* 64 vectors; further ones: + 2 each */
	VMCS_XSS_EXITING = 0x202c,
	VMCS_GUEST_PHYSICAL = 0x2400,
	VMCS_LINK_POINTER = 0x2800,
	VMCS_GUEST_DEBUGCTL = 0x2802,
	VMCS_GUEST_PAT = 0x2804,
	VMCS_GUEST_EFER = 0x2806,
	VMCS_GUEST_PDPTE0 = 0x280a, /* PDPTE1-3: + 2 each */
	VMCS_HOST_PAT = 0x2c00,
	VMCS_HOST_EFER = 0x2c02,
};

enum vmcs32 {
	VMCS_PIN_CONTROLS = 0x4000,
	VMCS_CPU_CONTROLS = 0x4002,
	VMCS_EXCEPTION_BITMAP = 0x4004,
	VMCS_PF_ERROR_MASK = 0x4006,
	VMCS_PF_ERROR_MATCH = 0x4008,
	VMCS_CR3_TARGETS = 0x400a,
	VMCS_EXIT_CONTROLS = 0x400c,
	VMCS_EXIT_MSR_STORE_COUNT = 0x400e,
	VMCS_EXIT_MSR_LOAD_COUNT = 0x4010,
	VMCS_ENTRY_CONTROLS = 0x4012,
	VMCS_ENTRY_MSR_LOAD_COUNT = 0x4014,
	VMCS_ENTRY_INTERRUPTION = 0x4016,
	VMCS_ENTRY_ERROR_CODE = 0x4018,
	VMCS_ENTRY_LENGTH = 0x401a,
	VMCS_TPR_THRESHOLD = 0x401c,
	VMCS_CPU_CONTROLS2 = 0x401e,
	VMCS_NOTIFY_WINDOW = 0x4024,
	VMCS_INSTRUCTION_ERROR = 0x4400,
	VMCS_EXIT_REASON = 0x4402,
	VMCS_EXIT_INTERRUPTION = 0x4404,
	VMCS_IDT_VECTORING = 0x4408,
	VMCS_IDT_VECTORING_ERROR = 0x440a,
	VMCS_EXIT_LENGTH = 0x440c,
	VMCS_EXIT_INSTRUCTION = 0x440e,
	VMCS_GUEST_ES_LIMIT = 0x4800, /* order as VMCS_GUEST_ES */
	VMCS_GUEST_GDTR_LIMIT = 0x4810,
	VMCS_GUEST_IDTR_LIMIT = 0x4812,
	VMCS_GUEST_ES_RIGHTS = 0x4814, /* order as VMCS_GUEST_ES */
	VMCS_GUEST_CS_RIGHTS = 0x4816,
	VMCS_GUEST_SS_RIGHTS = 0x4818,
	VMCS_GUEST_LDTR_RIGHTS = 0x4820,
	VMCS_GUEST_TR_RIGHTS = 0x4822,
	VMCS_GUEST_INTERRUPTIBILITY = 0x4824,
	VMCS_GUEST_ACTIVITY = 0x4826,
	VMCS_GUEST_SYSENTER_CS = 0x482a,
	VMCS_PREEMPTION_TIMER = 0x482e,
	VMCS_HOST_SYSENTER_CS = 0x4c00,
};

enum vmcsn { /* natural width: 64 bits */
	     VMCS_CR0_MASK = 0x6000,
	     VMCS_CR4_MASK = 0x6002,
	     VMCS_CR0_SHADOW = 0x6004,
	     VMCS_CR4_SHADOW = 0x6006,
	     VMCS_QUALIFICATION = 0x6400,
	     VMCS_GUEST_LINEAR = 0x640a,
	     VMCS_GUEST_CR0 = 0x6800,
	     VMCS_GUEST_CR3 = 0x6802,
	     VMCS_GUEST_CR4 = 0x6804,
	     VMCS_GUEST_ES_BASE = 0x6806, /* order as VMCS_GUEST_ES */
	     VMCS_GUEST_CS_BASE = 0x6808,
	     VMCS_GUEST_FS_BASE = 0x680e,
	     VMCS_GUEST_GS_BASE = 0x6810,
	     VMCS_GUEST_TR_BASE = 0x6814,
	     VMCS_GUEST_GDTR_BASE = 0x6816,
	     VMCS_GUEST_IDTR_BASE = 0x6818,
	     VMCS_GUEST_DR7 = 0x681a,
	     VMCS_GUEST_RSP = 0x681c,
	     VMCS_GUEST_RIP = 0x681e,
	     VMCS_GUEST_RFLAGS = 0x6820,
	     VMCS_GUEST_PENDING_DEBUG = 0x6822,
	     VMCS_GUEST_SYSENTER_ESP = 0x6824,
	     VMCS_GUEST_SYSENTER_EIP = 0x6826,
	     VMCS_HOST_CR0 = 0x6c00,
	     VMCS_HOST_CR3 = 0x6c02,
	     VMCS_HOST_CR4 = 0x6c04,
	     VMCS_HOST_FS_BASE = 0x6c06,
	     VMCS_HOST_GS_BASE = 0x6c08,
	     VMCS_HOST_TR_BASE = 0x6c0a,
	     VMCS_HOST_GDTR_BASE = 0x6c0c,
	     VMCS_HOST_IDTR_BASE = 0x6c0e,
	     VMCS_HOST_SYSENTER_ESP = 0x6c10,
	     VMCS_HOST_SYSENTER_EIP = 0x6c12,
	     VMCS_HOST_RSP = 0x6c14,
	     VMCS_HOST_RIP = 0x6c16,
};

#ifdef MONOCLE_HOST
u64 vmread(u64 field);
void vmwrite(u64 field, u64 value);
bool vmxon(hpa_t region);
bool vmclear(hpa_t vmcs);
bool vmptrld(hpa_t vmcs);
void invept(u64 type, u64 eptp);
#else
static inline u64 vmread(u64 field)
{
	u64 value;

	__asm__ volatile("vmread %1, %0" : "=r"(value) : "r"(field) : "cc");
	return value;
}

static inline void vmwrite(u64 field, u64 value)
{
	__asm__ volatile("vmwrite %1, %0" ::"r"(field), "r"(value) : "cc");
}

/* SDM 31.2: false where the instruction failed. */
#define VMX_INSTRUCTION(name)                         \
	static inline bool name(hpa_t hpa)            \
	{                                             \
		bool done;                            \
                                                      \
		__asm__ volatile(#name " %1; seta %0" \
				 : "=q"(done)         \
				 : "m"(hpa)           \
				 : "cc", "memory");   \
		return done;                          \
	}

VMX_INSTRUCTION(vmxon)
VMX_INSTRUCTION(vmclear)
VMX_INSTRUCTION(vmptrld)
#undef VMX_INSTRUCTION

static inline void invept(u64 type, u64 eptp)
{
	u64 descriptor[2] = {eptp, 0};

	__asm__ volatile("invept %0, %1" ::"m"(descriptor), "r"(type)
			 : "cc", "memory");
}
#endif

#define VMCS_ACCESSORS(suffix, type, fields)                             \
	static inline type vmcs_read##suffix(enum fields field)          \
	{                                                                \
		return (type)vmread(field);                              \
	}                                                                \
	static inline void vmcs_write##suffix(enum fields field, type v) \
	{                                                                \
		vmwrite(field, v);                                       \
	}

VMCS_ACCESSORS(16, u16, vmcs16)
VMCS_ACCESSORS(32, u32, vmcs32)
VMCS_ACCESSORS(64, u64, vmcs64)
VMCS_ACCESSORS(n, u64, vmcsn)
#undef VMCS_ACCESSORS

/* SDM 25.6.1 */
enum pin_controls {
	PIN_EXTERNAL_INTERRUPT = 1u << 0,
	PIN_NMI = 1u << 3,
	PIN_VIRTUAL_NMI = 1u << 5,
	PIN_PREEMPTION_TIMER = 1u << 6,
};

/* SDM 25.6.2 */
enum cpu_controls {
	CPU_INTERRUPT_WINDOW = 1u << 2,
	CPU_TSC_OFFSET = 1u << 3,
	CPU_HLT = 1u << 7,
	CPU_INVLPG = 1u << 9,
	CPU_MWAIT = 1u << 10,
	CPU_RDPMC = 1u << 11,
	CPU_CR3_LOAD = 1u << 15,
	CPU_CR3_STORE = 1u << 16,
	CPU_CR8_LOAD = 1u << 19,
	CPU_CR8_STORE = 1u << 20,
	CPU_TPR_SHADOW = 1u << 21,
	CPU_NMI_WINDOW = 1u << 22,
	CPU_IO_BITMAPS = 1u << 25,
	CPU_MONITOR_TRAP = 1u << 27,
	CPU_MSR_BITMAP = 1u << 28,
	CPU_MONITOR = 1u << 29,
	CPU_SECONDARY = 1u << 31,
};

enum cpu_controls2 {
	CPU2_EPT = 1u << 1,
	CPU2_RDTSCP = 1u << 3,
	CPU2_X2APIC = 1u << 4,
	CPU2_VPID = 1u << 5,
	CPU2_UNRESTRICTED = 1u << 7,
	CPU2_APIC_REGISTERS = 1u << 8,
	CPU2_INTERRUPT_DELIVERY = 1u << 9,
	CPU2_APICV =
		CPU2_X2APIC | CPU2_APIC_REGISTERS | CPU2_INTERRUPT_DELIVERY,
	CPU2_INVPCID = 1u << 12,
	CPU2_XSAVES = 1u << 20,
	CPU2_NOTIFY = 1u << 31,
};

/* SDM 25.7.1 */
enum exit_controls {
	EXIT_SAVE_DEBUG = 1u << 2,
	EXIT_HOST_64 = 1u << 9,
	EXIT_ACKNOWLEDGE = 1u << 15,
	EXIT_SAVE_PAT = 1u << 18,
	EXIT_LOAD_PAT = 1u << 19,
	EXIT_SAVE_EFER = 1u << 20,
	EXIT_LOAD_EFER = 1u << 21,
	EXIT_SAVE_TIMER = 1u << 22, /* the preemption timer's value */
};

/* SDM 25.8.1 */
enum entry_controls {
	ENTRY_LOAD_DEBUG = 1u << 2,
	ENTRY_IA32E = 1u << 9,
	ENTRY_LOAD_PAT = 1u << 14,
	ENTRY_LOAD_EFER = 1u << 15,
};

/* SDM 25.9.2, 25.8.3: interruption information */
enum interruption {
	INTERRUPTION_VECTOR = 0xff,
	INTERRUPTION_TYPE = 7u << 8,
	INTERRUPTION_EXTERNAL = 0u << 8,
	INTERRUPTION_NMI = 2u << 8,
	INTERRUPTION_EXCEPTION = 3u << 8,
	INTERRUPTION_SOFTWARE = 4u << 8,
	INTERRUPTION_ERROR = 1u << 11,
	INTERRUPTION_NMI_UNBLOCKED = 1u << 12, /* on exit: IRET */
	INTERRUPTION_VALID = 1u << 31,
};

/* SDM table 25-3 */
enum interruptibility {
	BLOCKING_STI = 1u << 0,
	BLOCKING_MOV_SS = 1u << 1,
	BLOCKING_SMI = 1u << 2,
	BLOCKING_NMI = 1u << 3,
};

enum activity {
	ACTIVITY_ACTIVE,
	ACTIVITY_HLT,
	ACTIVITY_SHUTDOWN,
	ACTIVITY_WAIT_SIPI
};

/* SDM table 25-2 */
enum segment_rights {
	SEGMENT_S = 1u << 4,
	SEGMENT_P = 1u << 7,
	SEGMENT_L = 1u << 13,
	SEGMENT_DB = 1u << 14,
	SEGMENT_G = 1u << 15,
	SEGMENT_UNUSABLE = 1u << 16,
};

/* SDM appendix C */
enum exit_reason {
	EXIT_EXCEPTION_NMI = 0,
	EXIT_EXTERNAL_INTERRUPT = 1,
	EXIT_TRIPLE_FAULT = 2,
	EXIT_INIT = 3,
	EXIT_SIPI = 4,
	EXIT_INTERRUPT_WINDOW = 7,
	EXIT_NMI_WINDOW = 8,
	EXIT_TASK_SWITCH = 9,
	EXIT_CPUID = 10,
	EXIT_GETSEC = 11,
	EXIT_HLT = 12,
	EXIT_INVD = 13,
	EXIT_RDPMC = 15,
	EXIT_VMCALL = 18,
	EXIT_VMCLEAR = 19, /* ... to VMXON, 27: VMX instructions */
	EXIT_VMXON = 27,
	EXIT_CR_ACCESS = 28,
	EXIT_IO = 30,
	EXIT_RDMSR = 31,
	EXIT_WRMSR = 32,
	EXIT_MWAIT = 36,
	EXIT_MONITOR_TRAP = 37,
	EXIT_MONITOR = 39,
	EXIT_TPR_BELOW_THRESHOLD = 43,
	EXIT_EOI = 45,
	EXIT_EPT_VIOLATION = 48,
	EXIT_INVEPT = 50,
	EXIT_PREEMPTION_TIMER = 52,
	EXIT_INVVPID = 53,
	EXIT_WBINVD = 54,
	EXIT_XSETBV = 55,
	EXIT_APIC_WRITE = 56,
	EXIT_NOTIFY = 75,
};

#define EXIT_REASON_FAILED_ENTRY BIT(31)

#endif
