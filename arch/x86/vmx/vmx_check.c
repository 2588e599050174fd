/* SPDX-License-Identifier: MIT */
/*
 * Left out are the rules of what Monocle never switches on: APIC accesses'
 * virtualisation, shadow VMCS, PML, VM functions, CET, PKRS, SMM, CR3
 * targets, MSR areas, and EPT but for write-back walks of 4 levels.
 */
#include "arch/x86/vmx/vmx_check.h"

#include "arch/x86/cpu.h"
#include "arch/x86/vmx/vmcs.h"
#include "kernel/log.h"
#include "kernel/phys.h"

enum segment_number { ES, CS, SS, DS, FS, GS, LDTR, TR, SEGMENTS };

enum {
	SELECTOR_RPL = 3,
	SELECTOR_TI = 1u << 2,
	TYPE_DATA_RW = 3,
	TYPE_CONFORMING = 1u << 2,
	RIGHTS_V86 = 0xf3,
	RIGHTS_RESERVED = 0xfffe0f00,
	EPTP_WB_WALK_4 = 3u << 3 | 6,
	EVENT_RESERVED_TYPE = 1u << 8,
	EVENT_OTHER = 7u << 8,
	EVENT_RESERVED = 0x7ffff000,
	EFER_KNOWN = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE,
	DEBUGCTL_RESERVED = 0x38, /* and all above bit 15 */
	RFLAGS_RESERVED = 0xffc08028,
	/* B0-B3, BLD, enabled breakpoint, BS, RTM: SDM table 25-4. */
	PENDING_KNOWN = 0x1580f,
	PENDING_BS = 1u << 14,
	PDPTE_P = 1u << 0,
	PDPTE_RESERVED = 0x1e6,
	BLOCKING_STI_MOV_SS = BLOCKING_STI | BLOCKING_MOV_SS,
};

struct segment {
	const char *name;
	u64 base;
	u32 selector, limit, rights;
	unsigned type, dpl, rpl;
	bool usable;
};

/* What several rules compare with; cr0 to s are the guest's. */
struct check {
	const struct vmx_capabilities *cap;
	const char *section;
	unsigned broken;
	u64 beyond;	 /* physical-address bits that the CPU does not have */
	unsigned linear; /* bits of a linear address */
	u32 pin, cpu, cpu2, exit, entry;
	bool unrestricted, ia32e, v86;
	u64 cr0, cr4, rflags;
	u32 blocking, activity;
	struct segment s[SEGMENTS];
	bool event; /* to be injected: */
	bool nmi, external;
	u32 event_info, type, vector;
};

static void broken(struct check *c, const char *what, const char *rule)
{
	log_error("SDM %s: %s %s", c->section, what, rule);
	c->broken++;
}

static bool canonical(const struct check *c, u64 address)
{
	unsigned shift = 64 - c->linear;

	return (u64)((s64)(address << shift) >> shift) == address;
}

static void check_settled(struct check *c)
{
	const struct {
		const char *section, *name;
		u32 value, msr, true_msr;
	} rows[] = {
		{"27.2.1.1", "pin-based controls", c->pin, MSR_VMX_PINBASED,
		 MSR_VMX_TRUE_PINBASED},
		{"27.2.1.1", "primary controls", c->cpu, MSR_VMX_PROCBASED,
		 MSR_VMX_TRUE_PROCBASED},
		{"27.2.1.1", "secondary controls", c->cpu2, MSR_VMX_PROCBASED2,
		 MSR_VMX_PROCBASED2},
		{"27.2.1.2", "VM-exit controls", c->exit, MSR_VMX_EXIT,
		 MSR_VMX_TRUE_EXIT},
		{"27.2.1.3", "VM-entry controls", c->entry, MSR_VMX_ENTRY,
		 MSR_VMX_TRUE_ENTRY},
	};
	bool true_msrs = rdmsr(MSR_VMX_BASIC) & BIT(55);

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		u64 may = rdmsr(true_msrs ? rows[i].true_msr : rows[i].msr);
		u32 value = rows[i].value;

		c->section = rows[i].section;
		if (((u32)may & ~value) || (value & ~(u32)(may >> 32)))
			broken(c, rows[i].name,
			       "have bits that the CPU does not allow");
	}
}

/* The rules that ask for no more than a canonical address. */
static void check_canonical(struct check *c)
{
	static const struct {
		const char *section, *name;
		enum vmcsn field;
	} rows[] = {
		{"27.2.2", "host SYSENTER_ESP", VMCS_HOST_SYSENTER_ESP},
		{"27.2.2", "host SYSENTER_EIP", VMCS_HOST_SYSENTER_EIP},
		{"27.2.3", "host FS base", VMCS_HOST_FS_BASE},
		{"27.2.3", "host GS base", VMCS_HOST_GS_BASE},
		{"27.2.3", "host TR base", VMCS_HOST_TR_BASE},
		{"27.2.3", "host GDTR base", VMCS_HOST_GDTR_BASE},
		{"27.2.3", "host IDTR base", VMCS_HOST_IDTR_BASE},
		{"27.2.4", "host RIP", VMCS_HOST_RIP},
		{"27.3.1.1", "guest SYSENTER_ESP", VMCS_GUEST_SYSENTER_ESP},
		{"27.3.1.1", "guest SYSENTER_EIP", VMCS_GUEST_SYSENTER_EIP},
		{"27.3.1.2", "guest TR base", VMCS_GUEST_TR_BASE},
		{"27.3.1.2", "guest FS base", VMCS_GUEST_FS_BASE},
		{"27.3.1.2", "guest GS base", VMCS_GUEST_GS_BASE},
		{"27.3.1.3", "guest GDTR base", VMCS_GUEST_GDTR_BASE},
		{"27.3.1.3", "guest IDTR base", VMCS_GUEST_IDTR_BASE},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		c->section = rows[i].section;
		if (!canonical(c, vmcs_readn(rows[i].field)))
			broken(c, rows[i].name, "must be canonical");
	}
}

static void check_fixed(struct check *c, u64 value, bool cr4, u64 exempt,
			const char *what)
{
	u64 ones = cr4 ? c->cap->cr4_fixed0 : c->cap->cr0_fixed0;
	u64 may = cr4 ? c->cap->cr4_fixed1 : c->cap->cr0_fixed1;

	if (((~value & ones) | (value & ~may)) & ~exempt)
		broken(c, what, "has bits that VMX fixes otherwise");
}

static void check_pat(struct check *c, u64 pat, const char *what)
{
	for (; pat; pat >>= 8)
		if ((pat & 0xff) > 7 || (pat & 0xfe) == 2) {
			broken(c, what, "has a memory type that there is not");
			return;
		}
}

static void check_efer(struct check *c, u64 efer, bool lma, bool paging,
		       const char *what)
{
	u64 must = lma ? EFER_LME | EFER_LMA : 0;

	/* Without paging LME is free. */
	if ((efer & ~(u64)EFER_KNOWN) ||
	    ((efer ^ must) & (paging ? EFER_LME | EFER_LMA : EFER_LMA)))
		broken(c, what, "contradicts the mode or has reserved bits");
}

static void check_tpr_shadow(struct check *c)
{
	hpa_t page = vmcs_read64(VMCS_VIRTUAL_APIC);
	bool shadow = c->cpu & CPU_TPR_SHADOW;
	bool delivery = c->cpu2 & CPU2_INTERRUPT_DELIVERY;
	u32 tpr;

	if (!shadow && c->cpu2 & CPU2_APICV)
		broken(c, "APICv", "needs the TPR shadow");
	if (delivery && !(c->pin & PIN_EXTERNAL_INTERRUPT))
		broken(c, "virtual-interrupt delivery",
		       "needs external-interrupt exiting");
	if (!shadow || delivery || page & (c->beyond | PAGE_MASK))
		return;
	tpr = ((const u8 *)phys_to_virt(page))[0x80]; /* SDM table 10-1 */
	if (vmcs_read32(VMCS_TPR_THRESHOLD) > tpr >> 4)
		broken(c, "TPR threshold", "must not be above the TPR's class");
}

static void check_execution(struct check *c)
{
	static const struct {
		const char *name;
		u32 control;
		enum vmcs64 field;
	} pages[] = {
		{"I/O bitmap A", CPU_IO_BITMAPS, VMCS_IO_BITMAP_A},
		{"I/O bitmap B", CPU_IO_BITMAPS, VMCS_IO_BITMAP_B},
		{"MSR bitmap", CPU_MSR_BITMAP, VMCS_MSR_BITMAP},
		{"virtual-APIC page", CPU_TPR_SHADOW, VMCS_VIRTUAL_APIC},
	};
	u64 bits = c->beyond | PAGE_MASK;

	c->section = "27.2.1.1";
	for (unsigned i = 0; i < ARRAY_SIZE(pages); i++)
		if ((c->cpu & pages[i].control) &&
		    (vmcs_read64(pages[i].field) & bits))
			broken(c, pages[i].name,
			       "must be the physical address of a page");
	check_tpr_shadow(c);
	if ((c->pin & PIN_VIRTUAL_NMI) && !(c->pin & PIN_NMI))
		broken(c, "virtual NMIs", "need NMI exiting");
	if ((c->cpu & CPU_NMI_WINDOW) && !(c->pin & PIN_VIRTUAL_NMI))
		broken(c, "NMI-window exiting", "needs virtual NMIs");
	if ((c->cpu2 & CPU2_VPID) && !vmcs_read16(VMCS_VPID))
		broken(c, "VPID", "must not be 0");
	if (c->unrestricted && !(c->cpu2 & CPU2_EPT))
		broken(c, "unrestricted guest", "needs EPT");
	if ((c->cpu2 & CPU2_EPT) &&
	    (vmcs_read64(VMCS_EPTP) & bits) != EPTP_WB_WALK_4)
		broken(c, "EPTP",
		       "must say write-back and 4 levels, with no further "
		       "bits");
}

/* The exceptions that push an error code: SDM table 6-1. */
static bool has_error_code(u32 vector)
{
	const u32 vectors = 1u << VECTOR_DF | 1u << VECTOR_TS |
			    1u << VECTOR_NP | 1u << VECTOR_SS |
			    1u << VECTOR_GP | 1u << VECTOR_PF | 1u << VECTOR_AC;

	return vector < 32 && (vectors >> vector & 1);
}

static void check_event(struct check *c)
{
	static const char what[] = "event to inject";
	u32 length = vmcs_read32(VMCS_ENTRY_LENGTH);
	bool exception = c->type == INTERRUPTION_EXCEPTION;
	bool error = c->event_info & INTERRUPTION_ERROR;
	bool may = exception && (c->cr0 & CR0_PE);
	/* VMX_BASIC[56]: whether there is an error code is software's. */
	bool must = !(rdmsr(MSR_VMX_BASIC) & BIT(56));

	c->section = "27.2.1.3";
	if (!c->event)
		return;
	if ((c->event_info & EVENT_RESERVED) || c->type == EVENT_RESERVED_TYPE)
		broken(c, what, "has reserved bits or the reserved type");
	if ((c->nmi && c->vector != VECTOR_NMI) ||
	    (exception && c->vector > 31) ||
	    (c->type == EVENT_OTHER && c->vector))
		broken(c, what, "has a vector that its type does not have");
	if (may ? must && error != has_error_code(c->vector) : error)
		broken(c, what,
		       "must deliver an error code where the exception has "
		       "one");
	if (error && vmcs_read32(VMCS_ENTRY_ERROR_CODE) >> 16)
		broken(c, what, "has an error code with reserved bits");
	if (c->type >= INTERRUPTION_SOFTWARE && c->type != EVENT_OTHER &&
	    (length > 15 || (!length && !(c->cap->misc & BIT(30)))))
		broken(c, what, "must have an instruction of 1 to 15 bytes");
}

static void check_host_segments(struct check *c)
{
	c->section = "27.2.3";
	for (unsigned n = 0; n < SEGMENTS; n++) {
		/* Where LDTR would be, there is TR. */
		u64 field = VMCS_HOST_ES + 2 * (n == TR ? LDTR : n);
		u64 selector = n == LDTR ? 0 : vmread(field);

		if (selector & (SELECTOR_RPL | SELECTOR_TI))
			broken(c, c->s[n].name,
			       "of the host must have RPL 0 and be in the GDT");
		if (!selector && (n == CS || n == TR))
			broken(c, c->s[n].name, "of the host must not be 0");
	}
}

static void check_host(struct check *c)
{
	u64 cr4 = vmcs_readn(VMCS_HOST_CR4);

	c->section = "27.2.2";
	/* No exit changes the cache's bits. */
	check_fixed(c, vmcs_readn(VMCS_HOST_CR0), false, CR0_NW | CR0_CD,
		    "host CR0");
	check_fixed(c, cr4, true, 0, "host CR4");
	if (vmcs_readn(VMCS_HOST_CR3) & c->beyond)
		broken(c, "host CR3",
		       "has bits beyond the physical-address width");
	if (c->exit & EXIT_LOAD_PAT)
		check_pat(c, vmcs_read64(VMCS_HOST_PAT), "host PAT");
	if (c->exit & EXIT_LOAD_EFER)
		check_efer(c, vmcs_read64(VMCS_HOST_EFER),
			   c->exit & EXIT_HOST_64, true, "host EFER");
	check_host_segments(c);
	c->section = "27.2.4";
	if (!(c->exit & EXIT_HOST_64))
		broken(c, "host address-space size",
		       "must be 1 in IA-32e mode, in which Monocle runs");
	if (!(cr4 & CR4_PAE))
		broken(c, "host CR4", "must have PAE");
}

static void check_guest_control(struct check *c)
{
	/* No entry changes the cache's; PE and PG are the guest's own. */
	u64 exempt = CR0_NW | CR0_CD | (c->unrestricted ? CR0_PE | CR0_PG : 0);
	u64 debugctl = vmcs_read64(VMCS_GUEST_DEBUGCTL);

	c->section = "27.3.1.1";
	check_fixed(c, c->cr0, false, exempt, "guest CR0");
	check_fixed(c, c->cr4, true, 0, "guest CR4");
	if ((c->cr0 & CR0_PG) && !(c->cr0 & CR0_PE))
		broken(c, "guest CR0", "must have PE where it has PG");
	if (c->ia32e && !(c->cr0 & CR0_PG))
		broken(c, "guest CR0", "must have PG in IA-32e mode");
	if (c->ia32e && !(c->cr4 & CR4_PAE))
		broken(c, "guest CR4", "must have PAE in IA-32e mode");
	if (!c->ia32e && (c->cr4 & CR4_PCIDE))
		broken(c, "guest CR4",
		       "must not have PCIDE outside IA-32e mode");
	if (vmcs_readn(VMCS_GUEST_CR3) & c->beyond)
		broken(c, "guest CR3",
		       "has bits beyond the physical-address width");
	if ((c->entry & ENTRY_LOAD_DEBUG) &&
	    (debugctl >> 16 || (debugctl & DEBUGCTL_RESERVED)))
		broken(c, "guest DEBUGCTL", "has reserved bits");
	if ((c->entry & ENTRY_LOAD_DEBUG) && vmcs_readn(VMCS_GUEST_DR7) >> 32)
		broken(c, "guest DR7", "has reserved bits");
	if (c->entry & ENTRY_LOAD_PAT)
		check_pat(c, vmcs_read64(VMCS_GUEST_PAT), "guest PAT");
	if (c->entry & ENTRY_LOAD_EFER)
		check_efer(c, vmcs_read64(VMCS_GUEST_EFER), c->ia32e,
			   c->cr0 & CR0_PG, "guest EFER");
}

static bool dpl_right(const struct check *c, unsigned n)
{
	const struct segment *s = &c->s[n], *cs = &c->s[CS];
	unsigned stack = c->s[SS].dpl;

	if (n == CS && s->type == TYPE_DATA_RW)
		return s->dpl == 0;
	if (n == CS)
		return s->type & TYPE_CONFORMING ? s->dpl <= stack
						 : s->dpl == stack;
	if (n == SS && (cs->type == TYPE_DATA_RW || !(c->cr0 & CR0_PE)))
		return s->dpl == 0;
	if (c->unrestricted || n >= LDTR)
		return true;
	if (n == SS)
		return s->dpl == s->rpl;
	return !s->usable || s->type > 11 || s->dpl >= s->rpl;
}

static bool granularity_right(const struct segment *s)
{
	if ((s->limit & 0xfff) != 0xfff)
		return !(s->rights & SEGMENT_G);
	return !(s->limit >> 20) || (s->rights & SEGMENT_G);
}

static void check_segment(struct check *c, unsigned n)
{
	/* A bit for each type that the register may have. */
	static const u16 types[] = {0x88aa, 0xaa00, 0x0088, 0x88aa,
				    0x88aa, 0x88aa, 0x0004, 0x0800};
	const struct segment *s = &c->s[n];
	u32 allowed = types[n];

	/* Data in CS of an unrestricted guest; a 16-bit TSS. */
	if ((n == CS && c->unrestricted) || (n == TR && !c->ia32e))
		allowed |= 1u << TYPE_DATA_RW;
	if (!dpl_right(c, n))
		broken(c, s->name, "has the wrong DPL");
	if (n != CS && n != TR && !s->usable)
		return;
	if (n <= DS && s->base >> 32)
		broken(c, s->name, "has a base beyond 4 GiB");
	if (n == LDTR && !canonical(c, s->base))
		broken(c, s->name, "has a base that is not canonical");
	if (n >= LDTR && (s->selector & SELECTOR_TI))
		broken(c, s->name, "must be in the GDT");
	if (!(allowed >> s->type & 1))
		broken(c, s->name, "has the wrong type");
	if (!(s->rights & SEGMENT_S) != (n >= LDTR))
		broken(c, s->name, "has the wrong S bit");
	if (!(s->rights & SEGMENT_P))
		broken(c, s->name, "must be present");
	if (s->rights & RIGHTS_RESERVED)
		broken(c, s->name, "has rights with reserved bits");
	if (!granularity_right(s))
		broken(c, s->name, "has a G bit that contradicts its limit");
}

static void check_v86_segment(struct check *c, const struct segment *s)
{
	if (s->base != (u64)s->selector << 4)
		broken(c, s->name,
		       "must have the base of its selector in virtual-8086 "
		       "mode");
	if (s->limit != 0xffff)
		broken(c, s->name,
		       "must have limit 0xffff in virtual-8086 mode");
	if (s->rights != RIGHTS_V86)
		broken(c, s->name,
		       "must have rights 0xf3 in virtual-8086 mode");
}

static void check_guest_segments(struct check *c)
{
	u32 code = c->s[CS].rights;

	c->section = "27.3.1.2";
	for (unsigned n = 0; n < SEGMENTS; n++)
		if (c->v86 && n < LDTR)
			check_v86_segment(c, &c->s[n]);
		else
			check_segment(c, n);
	if (!c->s[TR].usable)
		broken(c, "TR", "must be usable");
	if (!c->v86 && !c->unrestricted && c->s[SS].rpl != c->s[CS].rpl)
		broken(c, "SS", "must have the RPL of CS");
	if (c->ia32e && (code & SEGMENT_L) && (code & SEGMENT_DB))
		broken(c, "CS", "must not have D in 64-bit mode");
	c->section = "27.3.1.3";
	if (vmcs_read32(VMCS_GUEST_GDTR_LIMIT) >> 16)
		broken(c, "guest GDTR", "must have a limit below 64 KiB");
	if (vmcs_read32(VMCS_GUEST_IDTR_LIMIT) >> 16)
		broken(c, "guest IDTR", "must have a limit below 64 KiB");
}

static void check_rip_rflags(struct check *c)
{
	u64 rip = vmcs_readn(VMCS_GUEST_RIP);
	bool wide = c->ia32e && (c->s[CS].rights & SEGMENT_L);

	c->section = "27.3.1.4";
	if (wide ? !canonical(c, rip) : rip >> 32)
		broken(c, "guest RIP", "is wider than the code segment allows");
	if (c->rflags >> 32 || (c->rflags & RFLAGS_RESERVED) ||
	    !(c->rflags & RFLAGS_FIXED))
		broken(c, "guest RFLAGS", "has reserved bits, or bit 1 is 0");
	if (c->v86 && (c->ia32e || !(c->cr0 & CR0_PE)))
		broken(c, "guest RFLAGS",
		       "must not have VM in IA-32e or real mode");
	if (c->external && !(c->rflags & RFLAGS_IF))
		broken(c, "guest RFLAGS",
		       "must have IF where an external interrupt is injected");
}

/* Whether the event may end the inactive state. */
static bool event_wakes(const struct check *c)
{
	bool exception = c->type == INTERRUPTION_EXCEPTION;
	bool shutdown = c->nmi || (exception && c->vector == VECTOR_MC);

	if (c->activity == ACTIVITY_HLT)
		return shutdown || c->external || c->type == EVENT_OTHER ||
		       (exception && c->vector == VECTOR_DB);
	return c->activity == ACTIVITY_ACTIVE ||
	       (c->activity == ACTIVITY_SHUTDOWN && shutdown);
}

static void check_activity(struct check *c)
{
	static const char what[] = "activity state";
	/* MISC[8:6], below it a 1 for the active state. */
	u64 has = (c->cap->misc >> 5 & 0xe) | 1;

	c->section = "27.3.1.5";
	if (c->activity > ACTIVITY_WAIT_SIPI || !(has >> c->activity & 1))
		broken(c, what, "is not one that the CPU has");
	if (c->activity == ACTIVITY_HLT && c->s[SS].dpl)
		broken(c, what, "HLT needs DPL 0 of SS");
	if (c->activity && (c->blocking & BLOCKING_STI_MOV_SS))
		broken(c, what,
		       "must be active under blocking by STI or MOV SS");
	if (c->event && !event_wakes(c))
		broken(c, what, "must be one that the event to inject ends");
}

static void check_interruptibility(struct check *c)
{
	static const char what[] = "interruptibility state";
	u32 sti_mov_ss = c->blocking & BLOCKING_STI_MOV_SS;

	if (c->blocking >> 4 || (c->blocking & BLOCKING_SMI))
		broken(c, what,
		       "has bits that must be 0 outside SMM and enclaves");
	if (sti_mov_ss == BLOCKING_STI_MOV_SS)
		broken(c, what, "must not block by both STI and MOV SS");
	if ((c->blocking & BLOCKING_STI) && !(c->rflags & RFLAGS_IF))
		broken(c, what, "must not block by STI without RFLAGS.IF");
	if ((c->nmi || c->external) && sti_mov_ss)
		broken(c, what,
		       "must not block the interrupt or NMI that is injected");
	if (c->nmi && (c->pin & PIN_VIRTUAL_NMI) &&
	    (c->blocking & BLOCKING_NMI))
		broken(c, what,
		       "must not block the virtual NMI that is injected");
}

static void check_pending(struct check *c)
{
	u64 pending = vmcs_readn(VMCS_GUEST_PENDING_DEBUG);
	bool held = (c->blocking & BLOCKING_STI_MOV_SS) ||
		    c->activity == ACTIVITY_HLT;
	bool steps = (c->rflags & RFLAGS_TF) &&
		     !(vmcs_read64(VMCS_GUEST_DEBUGCTL) & DEBUGCTL_BTF);

	if (pending & ~(u64)PENDING_KNOWN)
		broken(c, "pending debug exceptions", "have reserved bits");
	if (held && !(pending & PENDING_BS) != !steps)
		broken(c, "pending debug exceptions",
		       "must have BS as RFLAGS.TF says");
	if (vmcs_read64(VMCS_LINK_POINTER) != ~0ull)
		broken(c, "VMCS link pointer",
		       "must be all ones where no VMCS is linked");
}

static void check_pdptes(struct check *c)
{
	bool reserved = false;

	c->section = "27.3.1.6";
	for (unsigned i = 0; i < 4; i++) {
		u64 pdpte = vmread(VMCS_GUEST_PDPTE0 + 2 * i);

		if (pdpte & PDPTE_P)
			reserved |= pdpte & (c->beyond | PDPTE_RESERVED);
	}
	if (reserved && !c->ia32e && (c->cr0 & CR0_PG) && (c->cr4 & CR4_PAE))
		broken(c, "guest PDPTEs", "have reserved bits");
}

static void read_segments(struct check *c)
{
	static const char *const names[SEGMENTS] = {"ES", "CS", "SS",	"DS",
						    "FS", "GS", "LDTR", "TR"};

	for (unsigned n = 0; n < SEGMENTS; n++) {
		struct segment *s = &c->s[n];

		s->name = names[n];
		s->base = vmread(VMCS_GUEST_ES_BASE + 2 * n);
		s->selector = (u32)vmread(VMCS_GUEST_ES + 2 * n);
		s->limit = (u32)vmread(VMCS_GUEST_ES_LIMIT + 2 * n);
		s->rights = (u32)vmread(VMCS_GUEST_ES_RIGHTS + 2 * n);
		s->type = s->rights & 15;
		s->dpl = s->rights >> 5 & 3;
		s->rpl = s->selector & SELECTOR_RPL;
		s->usable = !(s->rights & SEGMENT_UNUSABLE);
	}
}

static void read_state(struct check *c)
{
	u32 widths = cpuid(0x80000008, 0).eax;
	u32 event = vmcs_read32(VMCS_ENTRY_INTERRUPTION);

	c->beyond = ~(BIT(widths & 63) - 1);
	c->linear = MAX(32, widths >> 8 & 63);
	c->pin = vmcs_read32(VMCS_PIN_CONTROLS);
	c->cpu = vmcs_read32(VMCS_CPU_CONTROLS);
	if (c->cpu & CPU_SECONDARY)
		c->cpu2 = vmcs_read32(VMCS_CPU_CONTROLS2);
	c->exit = vmcs_read32(VMCS_EXIT_CONTROLS);
	c->entry = vmcs_read32(VMCS_ENTRY_CONTROLS);
	c->cr0 = vmcs_readn(VMCS_GUEST_CR0);
	c->cr4 = vmcs_readn(VMCS_GUEST_CR4);
	c->rflags = vmcs_readn(VMCS_GUEST_RFLAGS);
	c->blocking = vmcs_read32(VMCS_GUEST_INTERRUPTIBILITY);
	c->activity = vmcs_read32(VMCS_GUEST_ACTIVITY);
	c->unrestricted = c->cpu2 & CPU2_UNRESTRICTED;
	c->ia32e = c->entry & ENTRY_IA32E;
	c->v86 = c->rflags & RFLAGS_VM;
	c->event = event & INTERRUPTION_VALID;
	c->event_info = event;
	c->type = event & INTERRUPTION_TYPE;
	c->vector = event & INTERRUPTION_VECTOR;
	c->nmi = c->event && c->type == INTERRUPTION_NMI;
	c->external = c->event && c->type == INTERRUPTION_EXTERNAL;
	read_segments(c);
}

unsigned vmx_check(const struct vmx_capabilities *cap)
{
	struct check c = {.cap = cap};

	read_state(&c);
	check_settled(&c);
	check_execution(&c);
	check_event(&c);
	check_canonical(&c);
	check_host(&c);
	check_guest_control(&c);
	check_guest_segments(&c);
	check_rip_rflags(&c);
	check_activity(&c);
	check_interruptibility(&c);
	check_pending(&c);
	check_pdptes(&c);
	return c.broken;
}
