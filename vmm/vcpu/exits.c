/* SPDX-License-Identifier: MIT */
#include "vmm/vcpu/exits.h"

#include "arch/x86/cpu.h"
#include "arch/x86/vmx/vmx.h"
#include "kernel/log.h"
#include "kernel/panic.h"
#include "kernel/percpu.h"
#include "kernel/traps.h"
#include "vmm/vcpu/guest_cpuid.h"

/* An INT1's is no fault: its RIP is behind it (SDM 25.8.3). */
static enum exit_action debug_exception(struct vcpu *v, u32 info)
{
	bool own = v->steps;

	lend_end(v);
	if (own && v->qualification & DR6_BS)
		return EXIT_RESUME;
	v->injection = (struct injection){
		.info = VECTOR_DB | (info & INTERRUPTION_TYPE) |
			(u32)INTERRUPTION_VALID,
		.length = vmcs_read32(VMCS_EXIT_LENGTH),
	};
	v->attention = true;
	/* It ends the shadow; entry refuses TF in one without BS. */
	vcpu_unblock();
	if ((info & INTERRUPTION_TYPE) != INTERRUPTION_EXCEPTION)
		return EXIT_RESUME;
	/* SDM 28.1: what the CPU leaves to do. */
	vmcs_write64(VMCS_GUEST_DEBUGCTL,
		     vmcs_read64(VMCS_GUEST_DEBUGCTL) & ~(u64)DEBUGCTL_BTF);
	write_dr(6, (read_dr6() & ~0xfull) | DR6_FIXED |
			    (v->qualification & DR6_CAUSES));
	vmcs_writen(VMCS_GUEST_DR7, vmcs_readn(VMCS_GUEST_DR7) & ~BIT(13));
	return EXIT_RESUME;
}

/* Apart, each, for what it needs on the stack all exits would save. */
static NOINLINE enum exit_action exception_or_nmi(struct vcpu *v)
{
	u32 info = vmcs_read32(VMCS_EXIT_INTERRUPTION);

	if ((info & INTERRUPTION_TYPE) == INTERRUPTION_NMI) {
		panic_check();
		v->attention = true;
		percpu_nmi(v->cpu);
		cpu_unblock_nmi(); /* they stay so until an IRET */
		return EXIT_RESUME;
	}
	if ((info & INTERRUPTION_VECTOR) == VECTOR_MC)
		panic("machine check while the guest ran; this is the "
		      "hardware's report of a fault of its own");
	if ((info & INTERRUPTION_VECTOR) == VECTOR_DB)
		return debug_exception(v, info);
	if ((info & INTERRUPTION_VECTOR) != VECTOR_AC)
		return EXIT_STOP;
	vcpu_inject(v, VECTOR_AC, true, 0);
	return EXIT_RESUME;
}

/* Its handler is a device's; the timer's own has none, and is over. */
static NOINLINE enum exit_action external_interrupt(struct vcpu *v)
{
	u32 info = vmcs_read32(VMCS_EXIT_INTERRUPTION);
	bool timer = (info & INTERRUPTION_VECTOR) == HOST_VECTOR_TIMER;

	v->attention = true;
	v->slack = -1;
	if (!timer)
		vm_lock(v->vm);
	host_irq_dispatch(info);
	if (!timer)
		vm_unlock(v->vm);
	return EXIT_RESUME;
}

static enum exit_action give(struct vcpu *v, const struct cpuid *r)
{
	v->gpr[GPR_RAX] = r->eax;
	v->gpr[GPR_RBX] = r->ebx;
	v->gpr[GPR_RCX] = r->ecx;
	v->gpr[GPR_RDX] = r->edx;
	return EXIT_SKIP;
}

/* Leaf 1 alone hangs on what changes without an exit: it is not kept. */
static NOINLINE enum exit_action ask(struct vcpu *v, u32 at)
{
	u32 leaf = (u32)v->gpr[GPR_RAX], subleaf = (u32)v->gpr[GPR_RCX];
	struct cpuid r;

	if (leaf == 1) {
		v->cpuid.cr4 = vmcs_readn(VMCS_GUEST_CR4);
		v->cpuid.apic_off = !(v->lapic->base & APIC_BASE_EN);
	}
	r = guest_cpuid(&v->cpuid, leaf, subleaf);
	if (leaf != 1)
		v->answers[at] = (struct answer){leaf, subleaf, r};
	return give(v, &r);
}

static enum exit_action exit_cpuid(struct vcpu *v)
{
	u32 leaf = (u32)v->gpr[GPR_RAX], subleaf = (u32)v->gpr[GPR_RCX];
	u32 at = (leaf + subleaf) % VCPU_ANSWERS;
	const struct answer *a = &v->answers[at];

	if (a->leaf == leaf && a->subleaf == subleaf)
		return give(v, &a->r);
	return ask(v, at);
}

static enum exit_action exit_hlt(struct vcpu *v)
{
	/* A trap that is due behind it ends it (SDM 2, HLT). */
	v->halted = !vcpu_steps() && !vmcs_readn(VMCS_GUEST_PENDING_DEBUG);
	v->attention = true;
	return EXIT_SKIP;
}

static NOINLINE enum exit_action triple_fault(struct vcpu *v)
{
	log_info("guest: triple fault at rip 0x%lx; it is reset",
		 vmcs_readn(VMCS_GUEST_RIP));
	vm_request(v->vm, VM_RESET);
	return EXIT_RESUME;
}

static NOINLINE enum exit_action monitor_trap(struct vcpu *v)
{
	lend_end(v);
	return EXIT_RESUME;
}

static enum exit_action exit_wbinvd(struct vcpu *v)
{
	(void)v;
	wbinvd(); /* INVD would lose what other memory's lines hold */
	return EXIT_SKIP;
}

/* An interrupt is pending, which ends it at once. */
static enum exit_action exit_mwait(struct vcpu *v)
{
	return v->vm->features.mwait ? EXIT_SKIP : EXIT_UD;
}

static enum exit_action exit_gp(struct vcpu *v)
{
	(void)v;
	return EXIT_GP;
}

static enum exit_action exit_ud(struct vcpu *v)
{
	(void)v;
	return EXIT_UD;
}

exit_handler *const exit_handlers[EXIT_HANDLERS] = {
	[EXIT_CPUID] = exit_cpuid,
	[EXIT_GETSEC] = exit_ud,
	[EXIT_HLT] = exit_hlt,
	[EXIT_INVD] = exit_wbinvd,
	[EXIT_RDPMC] = exit_gp, /* no PMU is shown */
	[EXIT_VMCALL] = exit_hypercall,
	[EXIT_VMCLEAR... EXIT_VMXON] = exit_ud, /* CR4.VMXE is never set */
	[EXIT_CR_ACCESS] = exit_control_register,
	[EXIT_IO] = exit_io,
	[EXIT_RDMSR] = exit_rdmsr,
	[EXIT_WRMSR] = exit_wrmsr,
	[EXIT_MWAIT] = exit_mwait,
	[EXIT_MONITOR] = exit_ud,
	[EXIT_INVEPT] = exit_ud,
	[EXIT_INVVPID] = exit_ud,
	[EXIT_WBINVD] = exit_wbinvd,
	[EXIT_XSETBV] = exit_xsetbv,
};

enum exit_action exit_dispatch(struct vcpu *v)
{
	switch (v->reason) {
	case EXIT_EXCEPTION_NMI:
		return exception_or_nmi(v);
	case EXIT_EXTERNAL_INTERRUPT:
		return external_interrupt(v);
	case EXIT_TRIPLE_FAULT:
		return triple_fault(v);
	case EXIT_INIT:
		vm_request(v->vm, VM_RESET);
		return EXIT_RESUME;
	case EXIT_PREEMPTION_TIMER: /* it may have been the most that it can */
		v->attention |= vcpu_next_timer(v) <= rdtsc();
		v->slack = -1;
		return EXIT_RESUME;
	case EXIT_INTERRUPT_WINDOW:
	case EXIT_NMI_WINDOW:
	case EXIT_TPR_BELOW_THRESHOLD:
		v->attention = true; /* the loop does what is due */
		return EXIT_RESUME;
	case EXIT_SIPI:
		return EXIT_RESUME;
	case EXIT_EOI: /* RIP is behind the instruction, here and below */
		lapic_level_eoi(v->lapic, (unsigned)v->qualification);
		return EXIT_RESUME;
	case EXIT_APIC_WRITE: /* its offset; a self-IPI below vector 16 */
		lapic_written(v->lapic, (unsigned)v->qualification >> 4);
		return EXIT_RESUME;
	case EXIT_MONITOR_TRAP:
		return monitor_trap(v);
	case EXIT_NOTIFY: /* bit 0: the VMCS is not to be trusted any more */
		return v->qualification & 1 ? EXIT_STOP : EXIT_RESUME;
	case EXIT_TASK_SWITCH:
		return exit_task_switch(v);
	case EXIT_EPT_VIOLATION:
		return exit_ept_violation(v);
	default:
		return EXIT_STOP;
	}
}
