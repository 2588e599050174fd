/* SPDX-License-Identifier: MIT */
#include "arch/x86/vmx/vmx.h"

#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "arch/x86/vmx/vmcs.h"
#include "kernel/log.h"

enum {
	CPUID_MONITOR = 1u << 3,
	CPUID_VMX = 1u << 5,
	CPUID_HYPERVISOR = 1u << 31,
	CPUID_6_ARAT = 1u << 2,
	STATES_C1 = 0xff, /* of CPUID.5:EDX: C0, C1 */
	EPT_WALK_4 = 1u << 6,
	EPT_MEMTYPE_WB = 1u << 14,
	EPT_2M = 1u << 16,
	EPT_1G = 1u << 17,
	INVEPT = 1u << 20,
	INVEPT_SINGLE = 1u << 25,
	BOCHS_REVISION = 0x2b,
};

/* A set of controls: what Monocle must have and what it takes if there. */
struct control_set {
	const char *name;
	u32 msr, true_msr;
	u32 required, optional;
	u32 later; /* switched on and off while the guest runs */
};

static const struct control_set sets[] = {
	{"pin-based", MSR_VMX_PINBASED, MSR_VMX_TRUE_PINBASED,
	 PIN_EXTERNAL_INTERRUPT | PIN_NMI | PIN_VIRTUAL_NMI,
	 PIN_PREEMPTION_TIMER, 0},
	{"processor-based", MSR_VMX_PROCBASED, MSR_VMX_TRUE_PROCBASED,
	 CPU_TSC_OFFSET | CPU_HLT | CPU_RDPMC | CPU_CR8_LOAD | CPU_CR8_STORE |
		 CPU_IO_BITMAPS | CPU_MSR_BITMAP | CPU_MONITOR | CPU_MWAIT |
		 CPU_SECONDARY,
	 CPU_TPR_SHADOW, CPU_INTERRUPT_WINDOW | CPU_NMI_WINDOW},
	{"secondary", MSR_VMX_PROCBASED2, MSR_VMX_PROCBASED2,
	 CPU2_EPT | CPU2_UNRESTRICTED | CPU2_VPID,
	 CPU2_RDTSCP | CPU2_INVPCID | CPU2_XSAVES | CPU2_NOTIFY | CPU2_APICV,
	 0},
	{"VM-exit", MSR_VMX_EXIT, MSR_VMX_TRUE_EXIT,
	 EXIT_SAVE_DEBUG | EXIT_HOST_64 | EXIT_ACKNOWLEDGE | EXIT_SAVE_PAT |
		 EXIT_LOAD_PAT | EXIT_SAVE_EFER | EXIT_LOAD_EFER,
	 EXIT_SAVE_TIMER, 0},
	{"VM-entry", MSR_VMX_ENTRY, MSR_VMX_TRUE_ENTRY,
	 ENTRY_LOAD_DEBUG | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER, 0, 0},
};

/* What a missing control is called where the bit alone would not tell. */
static const struct {
	unsigned set;
	u32 bit;
	const char *text;
} control_names[] = {
	{0, PIN_VIRTUAL_NMI, "virtual NMIs"},
	{1, CPU_MSR_BITMAP, "MSR bitmaps"},
	{1, CPU_SECONDARY, "secondary controls (EPT, unrestricted guest)"},
	{2, CPU2_EPT, "EPT"},
	{2, CPU2_UNRESTRICTED, "unrestricted guest"},
	{2, CPU2_VPID, "VPID"},
};

static int missing(unsigned set, u32 bits)
{
	for (unsigned i = 0; i < ARRAY_SIZE(control_names); i++) {
		if (control_names[i].set != set ||
		    !(control_names[i].bit & bits))
			continue;
		log_error("this CPU's VMX lacks %s; use a CPU of 2010 or later",
			  control_names[i].text);
		return -ENOTSUP;
	}
	log_error("this CPU's VMX lacks %s controls 0x%x; use a newer CPU",
		  sets[set].name, bits);
	return -ENOTSUP;
}

/* Bits 31:0 of the MSR must be 1, bits 63:32 may be 1 (SDM A.3.1). */
static int settle(unsigned set, bool true_msrs, u32 *value)
{
	const struct control_set *s = &sets[set];
	u64 msr = rdmsr(true_msrs ? s->true_msr : s->msr);
	u32 must = (u32)msr, may = (u32)(msr >> 32);

	if ((s->required | s->later) & ~may)
		return missing(set, (s->required | s->later) & ~may);
	*value = must | s->required | (s->optional & may);
	return 0;
}

static int probe_firmware(void)
{
	u64 feature;

	if (!(cpuid(1, 0).ecx & CPUID_VMX)) {
		log_error("this CPU has no VMX (CPUID.1:ECX.5 is 0); use an "
			  "Intel CPU with VT-x");
		return -ENOTSUP;
	}
	feature = rdmsr(MSR_FEATURE_CONTROL);
	if ((feature & FEATURE_LOCKED) && !(feature & FEATURE_VMX)) {
		log_error("firmware has locked VMX off; switch on \"Intel "
			  "Virtualization Technology\" (VT-x) in its setup");
		return -ENOTSUP;
	}
	return 0;
}

static int probe_ept(struct vmx_capabilities *cap)
{
	u64 need = EPT_WALK_4 | EPT_MEMTYPE_WB | INVEPT;

	cap->ept_vpid = rdmsr(MSR_VMX_EPT_VPID);
	if ((cap->ept_vpid & need) != need) {
		log_error("this CPU's EPT lacks 4-level walks, write-back or "
			  "INVEPT (IA32_VMX_EPT_VPID_CAP 0x%lx); use a newer "
			  "CPU",
			  cap->ept_vpid);
		return -ENOTSUP;
	}
	cap->ept_2m = cap->ept_vpid & EPT_2M;
	cap->ept_1g = cap->ept_vpid & EPT_1G;
	cap->invept_single = cap->ept_vpid & INVEPT_SINGLE;
	return 0;
}

static int too_old(const char *lack)
{
	log_error("this CPU's VMX cannot %s; use a newer CPU", lack);
	return -ENOTSUP;
}

/*
 * From 2^25 crystal periods on it may expire at once: erratum EMR158, and
 * before Emerald Rapids.
 */
static u32 preemption_max(void)
{
	struct cpuid r = {0};

	if (cpuid(0, 0).eax >= 0x15)
		r = cpuid(0x15, 0);
	if (!r.eax || !r.ebx)
		return ~0u;
	return (u32)MIN(BIT(25) * r.ebx / r.eax - 1, 0xffffffffull);
}

int vmx_probe(struct vmx_capabilities *cap)
{
	u32 *values[] = {&cap->pin, &cap->cpu, &cap->cpu2, &cap->exit,
			 &cap->entry};
	int err = probe_firmware();
	u64 basic;

	if (err)
		return err;
	basic = rdmsr(MSR_VMX_BASIC);
	cap->vmcs_revision = (u32)basic & 0x7fffffff;
	for (unsigned i = 0; i < ARRAY_SIZE(sets); i++) {
		err = settle(i, basic & BIT(55), values[i]);
		if (err)
			return err;
	}
	/* A.3.2: the true MSRs let these be 0; the guest owns its CR3. */
	if (cap->cpu & (CPU_CR3_LOAD | CPU_CR3_STORE | CPU_INVLPG))
		return too_old("leave CR3 to the guest");
	if (!(basic & BIT(54)))
		return too_old("say what an INS or OUTS does");
	cap->cr0_fixed0 = rdmsr(MSR_VMX_CR0_FIXED0);
	cap->cr0_fixed1 = rdmsr(MSR_VMX_CR0_FIXED1);
	cap->cr4_fixed1 = rdmsr(MSR_VMX_CR4_FIXED1);
	/* Also MCE: without it a machine check is a shutdown (SDM 6.15). */
	cap->cr4_fixed0 =
		rdmsr(MSR_VMX_CR4_FIXED0) | (CR4_MCE & cap->cr4_fixed1);
	cap->misc = rdmsr(MSR_VMX_MISC);
	cap->preemption_shift = cap->misc & 31;
	cap->preemption_max = preemption_max();
	if (!(cap->misc & BIT(6))) /* A.6: activity states */
		return too_old("enter a guest that is halted");
	if (cap->cpu & CPU_TPR_SHADOW) /* then CR8 is the LAPIC's TPR */
		cap->cpu &= ~(u32)(CPU_CR8_LOAD | CPU_CR8_STORE);
	cap->apicv = cap->cpu2 & CPU2_APICV;
	cap->cpu2 &= ~(u32)CPU2_APICV;
	cap->xsaves = cap->cpu2 & CPU2_XSAVES;
	cap->monitor_trap = rdmsr(MSR_VMX_PROCBASED) >> 32 & CPU_MONITOR_TRAP;
	return probe_ept(cap);
}

/*
 * CPUs whose timer does not count at the rate that is specified, all with
 * Ironlake graphics among them: Linux's vmx_preemption_cpu_tfms[] has the
 * errata.
 */
static bool is_unreliable(void)
{
	static const u32 signatures[] = {0x106a0, 0x106a1, 0x106a4,
					 0x106a5, 0x106e5, 0x20652,
					 0x20655, 0x206e6, 0x306a8};
	u32 signature = cpuid(1, 0).eax & 0x0fff3fff;

	for (unsigned i = 0; i < ARRAY_SIZE(signatures); i++)
		if (signatures[i] == signature)
			return true;
	return false;
}

/*
 * SDM 26.5.1: the preemption timer stands still below C2; the local APIC's
 * runs on where ARAT says so (11.5.4), and is sure of C1 elsewhere. Bochs's
 * first is right on any CPU, and alone ends a run with IF = 0.
 */
int vmx_choose_clock(struct vmx_capabilities *cap, enum clock_source asked)
{
	bool has_timer = cap->pin & PIN_PREEMPTION_TIMER;
	bool has_mwait = cpuid(1, 0).ecx & CPUID_MONITOR;
	bool arat = cpuid(0, 0).eax >= 6 && cpuid(6, 0).eax & CPUID_6_ARAT;
	bool free = asked == CLOCK_AUTO && cap->vmcs_revision != BOCHS_REVISION;

	if (asked == CLOCK_PREEMPTION && !has_timer) {
		log_error("clock=preemption: this CPU has no VMX-preemption "
			  "timer; leave that option out");
		return -ENOTSUP;
	}
	if (asked == CLOCK_APIC)
		cap->apic_clock = "clock=apic";
	else if (!has_timer)
		cap->apic_clock = "there is no preemption timer";
	else if (free && is_unreliable())
		cap->apic_clock = "this CPU's preemption timer is unreliable";
	else if (free && has_mwait && arat)
		cap->apic_clock = "the guest may sleep deep";
	if (cap->apic_clock)
		cap->pin &= ~(u32)PIN_PREEMPTION_TIMER;
	if (has_mwait) {
		cap->cpu &= ~(u32)(CPU_MONITOR | CPU_MWAIT);
		cap->mwait = cap->apic_clock && arat ? ~0u : STATES_C1;
	}
	if (!(cap->pin & PIN_PREEMPTION_TIMER)) /* SDM 27.2.1.2 */
		cap->exit &= ~(u32)EXIT_SAVE_TIMER;
	return 0;
}

/*
 * Bochs 2.7 hands a pending virtual interrupt to a guest with IF = 0 where a
 * physical one comes; and where an exit cuts a virtual one's delivery short,
 * the IDT-vectoring information is an older event's, which KVM injects again:
 * what is below another hypervisor cannot be told from here.
 */
int vmx_choose_apicv(struct vmx_capabilities *cap, enum apicv_choice asked)
{
	bool has = cap->apicv == CPU2_APICV && cap->cpu & CPU_TPR_SHADOW;

	if (asked == APICV_ON && !has) {
		log_error("apicv=on: this CPU cannot deliver a guest's "
			  "interrupts; leave that option out");
		return -ENOTSUP;
	}
	if (!has)
		cap->no_apicv = "this CPU has none";
	else if (asked == APICV_OFF)
		cap->no_apicv = "apicv=off";
	else if (asked == APICV_AUTO && cap->vmcs_revision == BOCHS_REVISION)
		cap->no_apicv = "Bochs's is wrong; apicv=on tries";
	else if (asked == APICV_AUTO && cpuid(1, 0).ecx & CPUID_HYPERVISOR)
		cap->no_apicv = "below a hypervisor; apicv=on tries";
	if (cap->no_apicv)
		cap->apicv = 0;
	return 0;
}

static bool has_registers(const struct vmx_capabilities *cap)
{
	return !((rdmsr(MSR_VMX_CR0_FIXED0) & ~cap->cr0_fixed0) |
		 (cap->cr0_fixed1 & ~rdmsr(MSR_VMX_CR0_FIXED1)) |
		 (rdmsr(MSR_VMX_CR4_FIXED0) & ~cap->cr4_fixed0) |
		 (cap->cr4_fixed1 & ~rdmsr(MSR_VMX_CR4_FIXED1)));
}

const char *vmx_objection(const struct vmx_capabilities *cap)
{
	const u32 values[] = {cap->pin, cap->cpu, cap->cpu2 | cap->apicv,
			      cap->exit, cap->entry};
	u64 basic, feature;

	if (!(cpuid(1, 0).ecx & CPUID_VMX))
		return "it has no VMX";
	feature = rdmsr(MSR_FEATURE_CONTROL);
	if ((feature & FEATURE_LOCKED) && !(feature & FEATURE_VMX))
		return "firmware has locked VMX off there";
	basic = rdmsr(MSR_VMX_BASIC);
	if (((u32)basic & 0x7fffffff) != cap->vmcs_revision)
		return "its VMCS has another revision";
	for (unsigned i = 0; i < ARRAY_SIZE(sets); i++) {
		const struct control_set *s = &sets[i];
		u64 msr = rdmsr(basic & BIT(55) ? s->true_msr : s->msr);

		if (((u32)msr & ~values[i]) | (values[i] & ~(u32)(msr >> 32)))
			return "its VMX controls are not the first one's";
	}
	if (!has_registers(cap))
		return "its CR0 or CR4 in VMX operation is not the first one's";
	if (cap->ept_vpid & ~rdmsr(MSR_VMX_EPT_VPID))
		return "its EPT lacks what the first one's has";
	/* The timer's rate; activity states (SDM A.6). */
	if ((cap->misc ^ rdmsr(MSR_VMX_MISC)) & 0x1df)
		return "its preemption timer, or HLT in VMX, is another";
	return NULL;
}

void vmx_log(const struct vmx_capabilities *cap)
{
	log_info(
		"vmx: revision 0x%x, controls pin 0x%x cpu 0x%x/0x%x exit 0x%x "
		"entry 0x%x",
		cap->vmcs_revision, cap->pin, cap->cpu, cap->cpu2, cap->exit,
		cap->entry);
	log_info("vmx: EPT with pages of 4K%s%s", cap->ept_2m ? " 2M" : "",
		 cap->ept_1g ? " 1G" : "");
	log_info("vmx: APICv %s%s",
		 cap->no_apicv ? "is off: " : "in x2APIC mode",
		 cap->no_apicv ? cap->no_apicv : "");
	if (cap->apic_clock)
		log_info("vmx: clock: the local APIC's timer (%s)",
			 cap->apic_clock);
	else
		log_info("vmx: clock: the preemption timer, TSC/%u, at most "
			 "0x%x",
			 1u << cap->preemption_shift, cap->preemption_max);
}
