/* SPDX-License-Identifier: MIT */
#include "vmm/vcpu/vcpu.h"

#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "arch/x86/vmx/ept.h"
#include "arch/x86/vmx/vmx_check.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "kernel/microcode.h"
#include "kernel/panic.h"
#include "kernel/percpu.h"
#include "kernel/phys.h"
#include "kernel/string.h"
#include "kernel/traps.h"
#include "vmm/vcpu/exits.h"
#include "vmm/vcpu/msr.h"

/* Rights of table 25-2: type, S, DPL, P, AVL, L, D/B, G. */
enum {
	RIGHTS_CODE64 = 0xa09b,
	RIGHTS_CODE32 = 0xc09b,
	RIGHTS_CODE16 = 0x009b,
	RIGHTS_DATA32 = 0xc093,
	RIGHTS_DATA16 = 0x0093,
	RIGHTS_TSS32 = 0x008b,
};

/* Ticks in which no event could be delivered (SDM 25.6.24): over a millisecond
 * on any CPU, and no more than that for what a guest has stuck. */
#define NOTIFY_WINDOW BIT(23)
#define PAT_AFTER_RESET 0x0007040600070406ull /* SDM 12.12.4 */

static void write_apic(struct vcpu *v)
{
	const struct vmx_capabilities *cap = v->vm->vmx;

	if (!(cap->cpu & CPU_TPR_SHADOW))
		return;
	vmcs_write64(VMCS_VIRTUAL_APIC, virt_to_phys(v->lapic->page));
	vmcs_write32(VMCS_TPR_THRESHOLD, 0);
	for (unsigned n = 0; cap->apicv && n < ARRAY_SIZE(v->eoi_exits); n++)
		vmwrite(VMCS_EOI_EXIT + 2 * n, 0);
}

static void write_controls(struct vcpu *v)
{
	const struct vmx_capabilities *cap = v->vm->vmx;

	vmcs_write32(VMCS_PIN_CONTROLS, cap->pin);
	vmcs_write32(VMCS_CPU_CONTROLS, v->cpu_controls = cap->cpu);
	vmcs_write32(VMCS_CPU_CONTROLS2, cap->cpu2);
	vmcs_write32(VMCS_EXIT_CONTROLS, cap->exit);
	/*
	 * #DB and #AC, for their delivery can raise them again without an end
	 * and without an exit (CVE-2015-5307, CVE-2015-8104).
	 */
	vmcs_write32(VMCS_EXCEPTION_BITMAP,
		     1u << VECTOR_MC | 1u << VECTOR_DB | 1u << VECTOR_AC);
	vmcs_write32(VMCS_PF_ERROR_MASK, 0);
	vmcs_write32(VMCS_PF_ERROR_MATCH, 0);
	vmcs_write32(VMCS_CR3_TARGETS, 0);
	vmcs_write32(VMCS_EXIT_MSR_STORE_COUNT, 0);
	vmcs_write32(VMCS_EXIT_MSR_LOAD_COUNT, 0);
	vmcs_write32(VMCS_ENTRY_MSR_LOAD_COUNT, 0);
	vmcs_write16(VMCS_VPID, 1);
	vmcs_write64(VMCS_EPTP, v->vm->ept->eptp);
	vmcs_write64(VMCS_IO_BITMAP_A, virt_to_phys(v->vm->io_bitmap));
	vmcs_write64(VMCS_IO_BITMAP_B,
		     virt_to_phys(v->vm->io_bitmap) + PAGE_SIZE);
	vmcs_write64(VMCS_MSR_BITMAP, virt_to_phys(v->vm->msr_bitmap));
	vmcs_write64(VMCS_TSC_OFFSET, 0);
	vmcs_write64(VMCS_LINK_POINTER, ~0ull);
	if (cap->xsaves)
		vmcs_write64(VMCS_XSS_EXITING, 0);
	if (cap->cpu2 & CPU2_NOTIFY)
		vmcs_write32(VMCS_NOTIFY_WINDOW, NOTIFY_WINDOW);
	/* Bits that are set here are Monocle's: writes of them exit. */
	vmcs_writen(VMCS_CR0_MASK, ~(u64)(CR0_PE | CR0_MP | CR0_EM | CR0_TS |
					  CR0_WP | CR0_AM | CR0_PG));
	vmcs_writen(VMCS_CR4_MASK, ~v->vm->features.cr4_allowed | CR4_MCE);
}

static int init_clock(struct vcpu *v)
{
	const struct vmx_capabilities *cap = v->vm->vmx;
	u64 tsc_hz = v->vm->clock.tsc_hz;
	bool deadline;

	v->timer_max = cap->preemption_max;
	v->timer_shift = (u8)cap->preemption_shift;
	v->timer_limit = (u64)v->timer_max << v->timer_shift;
	/* 10 us; half a one is more than a CPU with EPT needs there and back */
	v->slack_max =
		cap->exit & EXIT_SAVE_TIMER ? (s64)(tsc_hz / 100000) : -1;
	v->transition = tsc_hz >> 21;
	v->slack = -1;
	if (!cap->apic_clock)
		return 0;
	v->timer_limit = 0;
	v->slack_max = (s64)(~0ull >> 1);
	deadline = microcode_mends_deadline();
	if (!deadline && vcpu_is_first(v))
		log_info("vmx: clock: one-shot, as this microcode's TSC "
			 "deadline may come late");
	return local_apic_timer_init(HOST_VECTOR_TIMER, tsc_hz / 100, deadline);
}

/* The deadline that the CPU's timer has is not the nearest any more. */
static void clock_changed(void *vcpu)
{
	struct vcpu *v = vcpu;

	if (v->vm->smp && percpu() != v->cpu)
		percpu_kick(v->cpu);
	else
		v->slack = -1;
}

static void serve_clock(struct vcpu *v, struct vclock *clock)
{
	clock->ctx = v;
	clock->changed = clock_changed;
}

int vcpu_init(struct vcpu *v)
{
	static const u64 never = VCLOCK_NEVER;
	struct percpu *cpu = v->cpu;
	void *page = page_alloc();
	int err;

	v->ones = page_alloc();
	if (!page || !v->ones)
		return -ENOMEM;
	v->devices_next = &never;
	v->lapic->attention = &v->attention;
	serve_clock(v, &v->clock);
	if (vcpu_is_first(v)) { /* INTR goes to it, and the devices' clock */
		serve_clock(v, &v->vm->clock);
		v->devices_next = &v->vm->clock.next;
		v->pic->attention = &v->attention;
	}
	v->cpuid = (struct cpuid_context){.apic_id = v->lapic->id,
					  .features = &v->vm->features};
	v->vmcs = virt_to_phys(page);
	err = vmcs_load(v->vm->vmx, v->vmcs);
	if (err)
		return err;
	write_controls(v);
	write_apic(v);
	err = init_clock(v);
	if (err)
		return err;
	vmx_write_host_state((u64)cpu, (u64)&cpu->tables.tss,
			     (u64)cpu->tables.gdt, idt_base(), host_cr3());
	vmcs_writen(VMCS_HOST_RSP, (u64)&v->frame);
	cpu->entry = (struct nmi_window){(u64)vmx_window, (u64)vmx_window_last,
					 (u64)vmx_window_out};
	cpu->runs_guest = true;
	return 0;
}

static void write_segment(unsigned n, u16 selector, u64 base, u32 limit,
			  u32 rights)
{
	vmwrite(VMCS_GUEST_ES + 2 * n, selector);
	vmwrite(VMCS_GUEST_ES_LIMIT + 2 * n, limit);
	vmwrite(VMCS_GUEST_ES_RIGHTS + 2 * n, rights);
	vmwrite(VMCS_GUEST_ES_BASE + 2 * n, base);
}

static void write_segments(const struct guest_entry *e)
{
	static const u32 code[] = {RIGHTS_CODE16, RIGHTS_CODE32, RIGHTS_CODE64};
	bool real = e->mode == ENTRY_REAL16;
	u32 limit = real ? 0xffff : 0xffffffff;

	for (unsigned n = 0; n < 6; n++) { /* ES, CS, SS, DS, FS, GS */
		u16 selector = n == 1 ? e->cs : e->ds;

		write_segment(n, selector, real ? (u64)selector << 4 : 0, limit,
			      n == 1 ? code[e->mode]
			      : real ? RIGHTS_DATA16
				     : RIGHTS_DATA32);
	}
	write_segment(6, 0, 0, 0xffff, SEGMENT_UNUSABLE | 0x82); /* LDTR */
	write_segment(7, 0, 0, 0xffff, RIGHTS_TSS32);		 /* TR */
	vmcs_writen(VMCS_GUEST_GDTR_BASE, e->gdt_base);
	vmcs_write32(VMCS_GUEST_GDTR_LIMIT, e->gdt_limit);
	vmcs_writen(VMCS_GUEST_IDTR_BASE, 0);
	vmcs_write32(VMCS_GUEST_IDTR_LIMIT, real ? 0x3ff : 0);
}

static void write_control_registers(struct vcpu *v, const struct guest_entry *e)
{
	const struct vmx_capabilities *cap = v->vm->vmx;
	u64 cr0 = CR0_ET, cr4 = 0, efer = 0;

	if (e->mode != ENTRY_REAL16)
		cr0 |= CR0_PE;
	if (e->mode == ENTRY_LONG64) {
		cr0 |= CR0_PG;
		cr4 |= CR4_PAE;
		efer |= EFER_LME | EFER_LMA;
	}
	/* Unrestricted guest: PE and PG are free (SDM 27.3.1.1). */
	vmcs_writen(VMCS_GUEST_CR0,
		    cr0 | (cap->cr0_fixed0 & ~(u64)(CR0_PE | CR0_PG)));
	vmcs_writen(VMCS_CR0_SHADOW, cr0);
	vmcs_writen(VMCS_GUEST_CR4, cr4 | cap->cr4_fixed0);
	vmcs_writen(VMCS_CR4_SHADOW, cr4);
	vmcs_writen(VMCS_GUEST_CR3, e->cr3);
	vmcs_write64(VMCS_GUEST_EFER, efer);
	vmcs_write32(VMCS_ENTRY_CONTROLS,
		     v->vm->vmx->entry | (efer ? ENTRY_IA32E : 0));
}

/* SDM table 10-1: x87, SSE and, as the header says none is there, all else. */
static const struct xsave_area fpu_after_reset = {
	.fcw = 0x40, .ftw = 0xff, .mxcsr = 0x1f80, .xstate_bv = 3};

static void reset_extended_state(const struct guest_features *f)
{
	u64 cr4 = read_cr4();

	if (!(f->cr4_allowed & CR4_OSXSAVE)) {
		write_cr4(cr4 | CR4_OSFXSR); /* else XMM would stay */
		fxrstor(&fpu_after_reset);
		write_cr4(cr4);
		return;
	}
	write_cr4(cr4 | CR4_OSXSAVE);
	xsetbv(0, f->xcr0_allowed);
	xrstor(&fpu_after_reset, f->xcr0_allowed);
	xsetbv(0, 1);
	vmcs_writen(VMCS_HOST_CR4, read_cr4());
}

/* Reset values of what neither the VMCS nor the host uses: SDM table 10-1. */
static void reset_registers(const struct vcpu *v)
{
	write_cr2(0);
	for (unsigned n = 0; n < 4; n++)
		write_dr(n, 0);
	write_dr(6, DR6_FIXED);
	msr_reset();
	reset_extended_state(&v->vm->features);
}

static void drop_translations(struct vcpu *v)
{
	v->ept_generation =
		__atomic_load_n(&v->vm->ept->generation, __ATOMIC_ACQUIRE);
	vmx_invept(v->vm->vmx, v->vm->ept->eptp);
}

void vcpu_reset(struct vcpu *v, const struct guest_entry *e)
{
	memcpy(v->gpr, e->gpr, sizeof(v->gpr));
	lend_end(v);
	v->halted = v->asleep = v->waits = false;
	v->nmi_pending = false;
	v->injection.info = 0;
	v->pv_eoi = 0;
	write_segments(e);
	write_control_registers(v, e);
	vmcs_write64(VMCS_GUEST_DEBUGCTL, 0);
	vmcs_write64(VMCS_GUEST_PAT, PAT_AFTER_RESET);
	vmcs_write32(VMCS_GUEST_INTERRUPTIBILITY, 0);
	vmcs_write32(VMCS_GUEST_ACTIVITY, ACTIVITY_ACTIVE);
	vmcs_write32(VMCS_GUEST_SYSENTER_CS, 0);
	vmcs_writen(VMCS_GUEST_SYSENTER_ESP, 0);
	vmcs_writen(VMCS_GUEST_SYSENTER_EIP, 0);
	vmcs_writen(VMCS_GUEST_DR7, 0x400);
	vmcs_writen(VMCS_GUEST_RSP, e->rsp);
	vmcs_writen(VMCS_GUEST_RIP, e->rip);
	vmcs_writen(VMCS_GUEST_RFLAGS, RFLAGS_FIXED);
	vmcs_writen(VMCS_GUEST_PENDING_DEBUG, 0);
	/* An INIT may have come between an event and its entry. */
	vmcs_write32(VMCS_ENTRY_INTERRUPTION, 0);
	reset_registers(v);
	vcpu_forget_answers(v);
	/* Nothing of another guest's translations may serve this one. */
	drop_translations(v);
}

static void set_window(struct vcpu *v, u32 control, bool on)
{
	u32 controls =
		on ? v->cpu_controls | control : v->cpu_controls & ~control;

	if (controls != v->cpu_controls)
		vmcs_write32(VMCS_CPU_CONTROLS, v->cpu_controls = controls);
}

static void inject_now(const struct injection *i)
{
	vmcs_write32(VMCS_ENTRY_INTERRUPTION, i->info);
	if (i->info & INTERRUPTION_ERROR)
		vmcs_write32(VMCS_ENTRY_ERROR_CODE, i->error);
	vmcs_write32(VMCS_ENTRY_LENGTH, i->length);
}

/* There was no entry: what it would have injected waits for the next. */
static void take_back(struct vcpu *v)
{
	u32 info = vmcs_read32(VMCS_ENTRY_INTERRUPTION);

	if (!(info & INTERRUPTION_VALID))
		return;
	v->injection = (struct injection){
		.info = info,
		.error = vmcs_read32(VMCS_ENTRY_ERROR_CODE),
		.length = vmcs_read32(VMCS_ENTRY_LENGTH),
	};
	vmcs_write32(VMCS_ENTRY_INTERRUPTION, 0);
}

/* With APICv the CPU takes those of the LAPIC itself. */
static int to_inject(const struct vcpu *v)
{
	return v->apicv ? -1 : lapic_pending(v->lapic);
}

/* vector: to_inject()'s. */
static bool interrupt_waits(const struct vcpu *v, int vector)
{
	return vector >= 0 || v->lapic->extint_pending ||
	       (pic_pending(v->pic) && lapic_accepts_pic(v->lapic));
}

static u8 take_interrupt(struct vcpu *v, int vector)
{
	u8 from_pic;

	if (vector >= 0) {
		lapic_ack(v->lapic, (unsigned)vector);
		return (u8)vector;
	}
	v->lapic->extint_pending = false;
	vm_lock(v->vm);
	from_pic = pic_ack(v->pic);
	vm_unlock(v->vm);
	return from_pic;
}

static bool interrupts_open(u32 blocking)
{
	return !blocking && (vmcs_readn(VMCS_GUEST_RFLAGS) & RFLAGS_IF);
}

/* What other CPUs have sent, or changed; NMIs. */
static void hear_others(struct vcpu *v)
{
	const u64 *generation = &v->vm->ept->generation;

	__atomic_store_n(&v->cpu->attention, 0, __ATOMIC_SEQ_CST);
	vm_pause(v->vm);
	v->slack = -1; /* the devices' clock, perhaps */
	if (__atomic_load_n(generation, __ATOMIC_ACQUIRE) != v->ept_generation)
		drop_translations(v);
	lapic_collect(v->lapic); /* a SIPI counts behind an INIT alone */
}

/* What devices, CPUs and NMIs outside of the guest have left. */
static void take_signals(struct vcpu *v)
{
	if (v->lapic->init_pending && vcpu_is_first(v))
		vm_request(v->vm, VM_RESET);
	v->waits = v->lapic->init_pending;
	v->nmi_pending |= v->lapic->nmi_pending;
	v->lapic->nmi_pending = false;
	if (v->cpu->nmis) { /* one more may come meanwhile */
		v->cpu->nmis = 0;
		v->nmi_pending = true;
	}
}

/* An NMI or an interrupt, to_inject()'s first, if the guest can take it now. */
static void deliver(struct vcpu *v, bool interrupt, int vector)
{
	u32 blocking = vmcs_read32(VMCS_GUEST_INTERRUPTIBILITY);
	struct injection event = {(u32)INTERRUPTION_VALID, 0, 0};

	/*
	 * STI need not block an NMI (SDM 6.8.3), and the NMI window may open in
	 * its shadow before any instruction (26.4.2): waiting there has no end.
	 * Entry wants the bit clear (27.3.1.5).
	 */
	if (v->nmi_pending &&
	    !(blocking & ~(u32)(BLOCKING_SMI | BLOCKING_STI))) {
		if (blocking & BLOCKING_STI)
			vmcs_write32(VMCS_GUEST_INTERRUPTIBILITY,
				     blocking & ~(u32)BLOCKING_STI);
		v->nmi_pending = false;
		event.info |= VECTOR_NMI | INTERRUPTION_NMI;
	} else if (interrupt && interrupts_open(blocking & (BLOCKING_STI |
							    BLOCKING_MOV_SS))) {
		event.info |= take_interrupt(v, vector);
	} else {
		return;
	}
	lend_end(v); /* else it would push RFLAGS with Monocle's TF */
	inject_now(&event);
	v->halted = false;
}

/* What the CPU is to know of the LAPIC (SDM 30.2): which vectors wait, which
 * are in service, and for whose EOI the IOAPIC waits. */
static void sync_apicv(struct vcpu *v)
{
	u16 status = lapic_recount(v->lapic);

	if (status != vmcs_read16(VMCS_GUEST_INTERRUPT_STATUS))
		vmcs_write16(VMCS_GUEST_INTERRUPT_STATUS, status);
	for (unsigned n = 0; n < ARRAY_SIZE(v->eoi_exits); n++) {
		u64 level = lapic_get(v->lapic, LAPIC_TMR + 2 * n) |
			    (u64)lapic_get(v->lapic, LAPIC_TMR + 2 * n + 1)
				    << 32;

		if (level != v->eoi_exits[n])
			vmwrite(VMCS_EOI_EXIT + 2 * n, v->eoi_exits[n] = level);
	}
	/* Bochs 2.7 does not wake a guest that is halted. */
	if (v->halted && lapic_pending(v->lapic) >= 0 && interrupts_open(0))
		v->halted = false;
}

/* It begins with x2APIC mode and ends with it. */
static void switch_apicv(struct vcpu *v, bool on)
{
	const struct vmx_capabilities *cap = v->vm->vmx;

	v->apicv = on;
	vmcs_write32(VMCS_CPU_CONTROLS2, cap->cpu2 | (on ? cap->apicv : 0));
	vmcs_write64(VMCS_MSR_BITMAP, virt_to_phys(on ? v->vm->apicv_bitmap
						      : v->vm->msr_bitmap));
}

/* Wakes a halted vCPU and hands it at most one event. */
static void prepare_events(struct vcpu *v)
{
	int vector = to_inject(v);
	bool interrupt = interrupt_waits(v, vector);
	/* One that waits for IF ends MWAIT; the CPU does not know of it. */
	u32 mwait = v->vm->features.mwait ? CPU_MWAIT : 0;

	take_signals(v);
	if (v->injection.info) {
		inject_now(&v->injection);
		v->injection.info = 0;
		v->halted = false;
	} else if (interrupt || v->nmi_pending) {
		deliver(v, interrupt, vector);
		interrupt = interrupt_waits(v, to_inject(v));
	}
	if (v->apicv)
		set_window(v, mwait,
			   (interrupt || lapic_pending(v->lapic) >= 0) &&
				   !v->halted);
	set_window(v, CPU_INTERRUPT_WINDOW | (v->apicv ? 0 : mwait),
		   interrupt && !v->halted);
	set_window(v, CPU_NMI_WINDOW, v->nmi_pending);
}

/*
 * CR8 is the guest's own: a TPR below this exits (SDM 30.1.2). An entry wants
 * none above the TPR (27.2.1.1), and finds none: while one is set, each exit
 * looks around.
 */
static void set_threshold(struct vcpu *v)
{
	const struct lapic *l = v->lapic;
	u32 class = l->irr_words && !v->apicv ? lapic_held_class(l) : 0;

	if (v->cpu_controls & CPU_TPR_SHADOW && class != v->threshold)
		vmcs_write32(VMCS_TPR_THRESHOLD, v->threshold = class);
}

/* Each time while it waits: Bochs 2.7 saves "active" at an exit from HLT. */
static void set_activity(struct vcpu *v)
{
	if (v->halted || v->asleep)
		vmcs_write32(VMCS_GUEST_ACTIVITY, (v->asleep = v->halted)
							  ? ACTIVITY_HLT
							  : ACTIVITY_ACTIVE);
}

/*
 * An event whose delivery the exit cut short is delivered again (SDM
 * 25.9.3). A CPU without protection on pushes no error code, whatever the
 * field says.
 */
static void keep_vectoring(struct vcpu *v)
{
	u32 info = vmcs_read32(VMCS_IDT_VECTORING);

	if (!(info & INTERRUPTION_VALID))
		return;
	if (!(vmcs_readn(VMCS_GUEST_CR0) & CR0_PE))
		info &= ~(u32)INTERRUPTION_ERROR;
	v->attention = true;
	v->injection.info = info & ~(u32)INTERRUPTION_NMI_UNBLOCKED;
	v->injection.error = vmcs_read32(VMCS_IDT_VECTORING_ERROR);
	v->injection.length = vmcs_read32(VMCS_EXIT_LENGTH);
	if ((info & INTERRUPTION_TYPE) == INTERRUPTION_NMI)
		vmcs_write32(VMCS_GUEST_INTERRUPTIBILITY,
			     vmcs_read32(VMCS_GUEST_INTERRUPTIBILITY) &
				     ~(u32)BLOCKING_NMI);
}

static void failed_entry(struct vcpu *v, int fail)
{
	if (fail)
		log_error("VM entry failed: %s, VM-instruction error %u",
			  fail == 1 ? "VMfailInvalid" : "VMfailValid",
			  fail == 2 ? vmcs_read32(VMCS_INSTRUCTION_ERROR) : 0);
	else
		log_error("VM entry failed: %s, qualification 0x%lx",
			  exit_reason_name(v->reason & 0xffff),
			  v->qualification);
	vmx_check(v->vm->vmx);
	vcpu_dump(v);
	vm_request(v->vm, VM_STOP);
}

/* vcpu_retire() where it has nothing to do, as a rule: two fields are read. */
static inline void skip(struct vcpu *v)
{
	u64 old = vmcs_readn(VMCS_GUEST_RIP);
	u64 rip = old + vmcs_read32(VMCS_EXIT_LENGTH);

	/* Outside 64-bit mode EIP wraps at 4 GiB, and never is above. */
	if (__builtin_expect((rip ^ old) >> 32 != 0, false) &&
	    !vcpu_long_mode())
		rip = (u32)rip;
	vmcs_writen(VMCS_GUEST_RIP, rip);
	if (__builtin_expect(vmcs_read32(VMCS_GUEST_INTERRUPTIBILITY) &
				     (BLOCKING_STI | BLOCKING_MOV_SS),
			     false) ||
	    __builtin_expect(vmcs_readn(VMCS_GUEST_RFLAGS) & RFLAGS_TF,
			     false)) {
		vcpu_retire();
		v->attention = true; /* nothing is blocked any more */
	}
}

static NOINLINE void finish(struct vcpu *v, enum exit_action action)
{
	switch (action) {
	case EXIT_RESUME:
	case EXIT_SKIP:
		break;
	case EXIT_GP:
		vcpu_inject(v, VECTOR_GP, true, 0);
		break;
	case EXIT_UD:
		vcpu_inject(v, VECTOR_UD, false, 0);
		break;
	case EXIT_STOP:
		log_error("the guest did what Monocle does not emulate: %s",
			  exit_reason_name(v->reason));
		vcpu_dump(v);
		vm_request(v->vm, VM_STOP);
		break;
	}
}

/* What no instruction asked for: it may have cut an event's delivery short. */
static NOINLINE enum exit_action handle_event(struct vcpu *v)
{
	v->qualification = vmcs_readn(VMCS_QUALIFICATION);
	if (v->reason & EXIT_REASON_FAILED_ENTRY) {
		failed_entry(v, 0);
		return EXIT_RESUME;
	}
	keep_vectoring(v);
	return exit_dispatch(v);
}

static void handle_exit(struct vcpu *v)
{
	u32 reason = v->reason = vmcs_read32(VMCS_EXIT_REASON);
	exit_handler *handler =
		reason < EXIT_HANDLERS ? exit_handlers[reason] : NULL;
	enum exit_action action = handler ? handler(v) : handle_event(v);

	if (action == EXIT_SKIP)
		skip(v);
	else if (action != EXIT_RESUME)
		finish(v, action);
}

static void run_timers(struct vcpu *v, u64 now)
{
	vclock_run(&v->clock, now);
	if (*v->devices_next > now)
		return;
	vm_lock(v->vm);
	vclock_run(&v->vm->clock, now);
	vm_unlock(v->vm);
}

/*
 * Timers and events that are due. False: the run is over, by an INIT, a timer
 * or another CPU. What others bring while this looks, vmx_enter() sees.
 */
static NOINLINE bool look_around(struct vcpu *v, u64 now)
{
	const struct lapic *l = v->lapic;

	run_timers(v, now);
	if (v->cpu->attention)
		hear_others(v);
	lapic_pv_hear(v->lapic);
	if (v->vm->vmx->apicv) {
		if (v->apicv != lapic_is_x2apic(l))
			switch_apicv(v, !v->apicv);
		if (v->apicv)
			sync_apicv(v);
	}
	/* What all of these have brought is seen to from here on. */
	v->attention = false;
	prepare_events(v);
	set_threshold(v);
	if (!v->apicv)
		lapic_pv_offer(v->lapic);
	set_activity(v);
	/* What waits for the guest's IF alone has an exit of its own. */
	if (v->nmi_pending || v->halted || v->threshold ||
	    (!(v->cpu_controls & CPU_INTERRUPT_WINDOW) &&
	     (l->irr_words || l->extint_pending || v->pic->intr)))
		v->attention = true;
	return !v->waits && vm_requested(v->vm) == VM_RUN;
}

/*
 * The timer is set anew: it has come, its deadline is another, or it is late by
 * all the time for which it stood still, as the guest did not run. What is due
 * by now comes at once, by an exit: a second look before the entry would put
 * another event in the place of one that the first has handed over.
 * SDM 26.5.1: the timer counts TSC >> shift; rounded up, so never early but
 * for what is too far for it.
 */
static NOINLINE void renew_clock(struct vcpu *v)
{
	u64 now = rdtsc(), next = vcpu_next_timer(v);
	u64 left = next > now ? next - now : 0;

	if (left < v->timer_limit)
		vmcs_write32(VMCS_PREEMPTION_TIMER,
			     (u32)(left >> v->timer_shift) + 1);
	else if (!v->timer_limit)
		local_apic_timer_set(next);
	else
		vmcs_write32(VMCS_PREEMPTION_TIMER, v->timer_max);
	v->slack = v->slack_max;
}

/* An NMI came behind the last look. */
static bool turn_back(struct vcpu *v)
{
	bool goes_on;

	take_back(v);
	goes_on = look_around(v, rdtsc());
	renew_clock(v);
	return goes_on;
}

static void run(struct vcpu *v)
{
	struct vm *vm = v->vm;

	if (vm_requested(vm) != VM_RUN || !look_around(v, rdtsc()))
		return;
	renew_clock(v);
	for (;;) {
		int fail = vmx_enter(&v->frame);
		u64 start, ticks;

		if (__builtin_expect(fail, false)) {
			if (fail != VMX_TURNED)
				failed_entry(v, fail);
			if (fail != VMX_TURNED || !turn_back(v))
				return;
			continue;
		}
		start = rdtsc();
		handle_exit(v);
		if (vm_requested(vm) != VM_RUN)
			return;
		if (__builtin_expect(v->attention, false) &&
		    !look_around(v, start))
			return;
		ticks = rdtsc() - start;
		v->slack -= (s64)(ticks + v->transition);
		if (__builtin_expect(v->slack < 0, false)) {
			renew_clock(v);
			ticks = rdtsc() - start;
		}
		stats_exit(&v->stats, v->reason, ticks);
	}
}

void vcpu_run(struct vcpu *v)
{
	if (!vm_enter(v->vm))
		return;
	run(v);
	vm_leave(v->vm);
}
