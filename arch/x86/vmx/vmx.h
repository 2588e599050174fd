/* SPDX-License-Identifier: MIT */
/*
 * VMX: what the CPU can do, VMXON, and the way in and out of the guest. All
 * functions act on the calling CPU.
 */
#ifndef ARCH_X86_VMX_VMX_H
#define ARCH_X86_VMX_VMX_H

#include "arch/x86/types.h"

/* IA32_FEATURE_CONTROL, SDM 24.7 */
enum feature_control {
	FEATURE_LOCKED = 1u << 0,
	FEATURE_VMX = 1u << 2, /* outside SMX */
};

/* One set of controls, settled by its capability MSR (SDM A.2-A.5). */
struct vmx_capabilities {
	u32 pin, cpu, cpu2, exit, entry; /* the values to use */
	u32 vmcs_revision;
	u64 cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1;
	u64 misc;
	u64 ept_vpid;
	unsigned preemption_shift; /* the timer counts TSC >> this */
	u32 preemption_max;	   /* its largest value */
	const char *apic_clock;	   /* why the local APIC's timer is the guest's
				    * clock; NULL: the preemption timer is */
	u32 apicv;	      /* of cpu2, while a guest is in x2APIC mode */
	const char *no_apicv; /* why not; NULL: APICv is used */
	u32 mwait;	      /* of CPUID.5:EDX, the states that the guest
				    * may sleep in by MWAIT; 0: it has none */
	bool ept_2m, ept_1g;
	bool split_code; /* large pages hold no code: option itlb=split */
	bool invept_single;
	bool xsaves;
	bool monitor_trap; /* one instruction at a time */
};

/*
 * Reads the capability MSRs and settles the controls. Changes nothing.
 * -ENOTSUP after one log_error line that names what is missing and, where
 * firmware switched it off, what to switch on.
 */
int vmx_probe(struct vmx_capabilities *cap);

enum clock_source { CLOCK_AUTO, CLOCK_PREEMPTION, CLOCK_APIC };

/*
 * Which timer ends the guest's run when a deadline comes: cap->apic_clock,
 * and PIN_PREEMPTION_TIMER of cap->pin; how deep the guest may sleep then:
 * cap->mwait. -ENOTSUP after one log_error line: there is no preemption timer.
 */
int vmx_choose_clock(struct vmx_capabilities *cap, enum clock_source asked);

enum apicv_choice { APICV_AUTO, APICV_ON, APICV_OFF };

/*
 * Whether the CPU delivers the local APIC's interrupts and ends them, without
 * exits: cap->apicv. -ENOTSUP after one log_error line: it cannot.
 */
int vmx_choose_apicv(struct vmx_capabilities *cap, enum apicv_choice asked);
void vmx_log(const struct vmx_capabilities *cap);
/*
 * Why what another CPU has settled is not for this one, for the log; NULL: it
 * is. Changes nothing.
 */
const char *vmx_objection(const struct vmx_capabilities *cap);

/*
 * Enters VMX operation on this CPU: FEATURE_CONTROL locked if firmware left
 * that to us, CR0 and CR4 as fixed, VMXON with a region of its own
 * (hpa of one zeroed page). -EIO: VMXON failed.
 */
int vmx_enable(const struct vmx_capabilities *cap, hpa_t region);

/* VMCLEAR and VMPTRLD of a zeroed page; writes the revision. -EIO. */
int vmcs_load(const struct vmx_capabilities *cap, hpa_t vmcs);

/* entry.asm knows the offsets. */
struct vmx_frame {
	/* rax, rcx, rdx, rbx, (rsp: in the VMCS), rbp, rsi, rdi, r8-r15 */
	u64 gpr[16];
	/* Of this VMCS, kept by vmx_enter(); 0 at first. */
	u64 stack;    /* RSP, while the guest runs */
	u64 launched; /* with VMLAUNCH */
};

_Static_assert(offsetof(struct vmx_frame, stack) == 128, "entry.asm");
_Static_assert(offsetof(struct vmx_frame, launched) == 136, "entry.asm");

/*
 * Runs the guest until the next exit, where RSP is the frame: VMCS_HOST_RSP.
 * Returns 0 after an exit; 1 (VMfailInvalid) or 2 (VMfailValid) where there was
 * no entry: there will be none with this frame; or VMX_TURNED: an NMI came
 * before it.
 */
#ifdef MONOCLE_HOST
int vmx_enter(struct vmx_frame *frame);
#else
static inline int vmx_enter(struct vmx_frame *frame)
{
	int result;

	/* One call, whose caller needs little: cheaper than to keep them all. */
	__asm__ volatile("call vmx_switch"
			 : "=a"(result), "+D"(frame)
			 :
			 : "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "r12",
			   "r13", "r14", "r15", "cc", "memory");
	return result;
}
#endif
#define VMX_TURNED 3
extern const char vmx_window[], vmx_window_last[], vmx_window_out[];
/* Where exits arrive: HOST_RIP. */
extern const char vmx_exit[];

/* Drops translations cached for this EPTP (SDM 29.4.3.1). */
void vmx_invept(const struct vmx_capabilities *cap, u64 eptp);

/* Writes the host state of this CPU: SDM 25.5. */
void vmx_write_host_state(u64 gs_base, u64 tr_base, u64 gdtr, u64 idtr,
			  hpa_t cr3);

/*
 * After an exit for an NMI further ones stay blocked until an IRET (SDM
 * 28.5.5): this is one.
 */
void cpu_unblock_nmi(void);

#endif
