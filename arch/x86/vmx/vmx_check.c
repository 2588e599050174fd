/* SPDX-License-Identifier: MIT */
/*
 * Left out are the rules of what Monocle never switches on: APIC
 * virtualisation, shadow VMCS, PML, VM functions, CET, PKRS, SMM, CR3
 * targets, MSR areas, EPT without write-back walks of 4 levels.
 */
#include "arch/x86/vmx/vmx_check.h"

#include "arch/x86/cpu.h"
#include "arch/x86/vmx/vmcs.h"
#include "kernel/log.h"

enum segment_number { ES, CS, SS, DS, FS, GS, LDTR, TR, SEGMENTS };

enum {
	TABLE_LOCAL = 1u << 2, /* of a selector; below it is the RPL */
	TYPE_DATA_RW = 3,
	TYPE_CONFORMING = 1u << 2,
	RIGHTS_V86 = 0xf3,
	RIGHTS_RESERVED = 0xfffe0f00,
	EPTP_WB_WALK_4 = 3u << 3 | 6,
	EVENT_OTHER = 7u << 8,
	EVENT_RESERVED = 0x7ffff000,
	EFER_KNOWN = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE,
	DEBUGCTL_BTF = 1u << 1,
	DEBUGCTL_RESERVED = 0x38, /* and above the 16th */
	RFLAGS_KNOWN = 0x3f7fd7,
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
	bool event; /* to be injected, of this type and vector */
	u32 event_info, type, vector;
};

static void must(struct check *c, bool ok, const char *what, const char *rule)
{
	if (ok)
		return;
	log_error("SDM %s: %s %s", c->section, what, rule);
	c->broken++;
}

static bool canonical(const struct check *c, u64 address)
{
	unsigned shift = 64 - c->linear;

	return (u64)((s64)(address << shift) >> shift) == address;
}

static bool settled(u32 value, u32 msr, u32 true_msr)
{
	u64 may = rdmsr(rdmsr(MSR_VMX_BASIC) & BIT(55) ? true_msr : msr);

	return !((u32)may & ~value) && !(value & ~(u32)(may >> 32));
}

static void check_fixed(struct check *c, u64 value, bool cr4, u64 exempt,
			const char *what)
{
	u64 ones = cr4 ? c->cap->cr4_fixed0 : c->cap->cr0_fixed0;
	u64 may = cr4 ? c->cap->cr4_fixed1 : c->cap->cr0_fixed1;

	must(c, !(((~value & ones) | (value & ~may)) & ~exempt), what,
	     "has bits that VMX fixes otherwise");
}

static void check_pat(struct check *c, u64 pat, const char *what)
{
	bool ok = true;

	for (; pat; pat >>= 8)
		ok &= (pat & 0xff) <= 7 && (pat & 0xfe) != 2;
	must(c, ok, what, "has a memory type that there is not");
}

static void check_efer(struct check *c, u64 efer, bool lma, bool paging,
		       const char *what)
{
	bool known = !(efer & ~(u64)EFER_KNOWN);

	must(c,
	     known && !(efer & EFER_LMA) == !lma &&
		     (!paging || !(efer & EFER_LME) == !lma),
	     what, "contradicts the mode or has reserved bits");
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
		must(c, canonical(c, vmcs_readn(rows[i].field)), rows[i].name,
		     "must be canonical");
	}
}

static void check_settled(struct check *c)
{
	static const char bits[] = "have bits that the CPU does not allow";

	c->section = "27.2.1.1";
	must(c, settled(c->pin, MSR_VMX_PINBASED, MSR_VMX_TRUE_PINBASED),
	     "pin-based controls", bits);
	must(c, settled(c->cpu, MSR_VMX_PROCBASED, MSR_VMX_TRUE_PROCBASED),
	     "primary controls", bits);
	if (c->cpu & CPU_SECONDARY)
		must(c,
		     settled(c->cpu2, MSR_VMX_PROCBASED2, MSR_VMX_PROCBASED2),
		     "secondary controls", bits);
	c->section = "27.2.1.2";
	must(c, settled(c->exit, MSR_VMX_EXIT, MSR_VMX_TRUE_EXIT),
	     "VM-exit controls", bits);
	c->section = "27.2.1.3";
	must(c, settled(c->entry, MSR_VMX_ENTRY, MSR_VMX_TRUE_ENTRY),
	     "VM-entry controls", bits);
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
	};
	u64 eptp = vmcs_read64(VMCS_EPTP);

	c->section = "27.2.1.1";
	for (unsigned i = 0; i < ARRAY_SIZE(pages); i++)
		must(c,
		     !(c->cpu & pages[i].control) ||
			     !(vmcs_read64(pages[i].field) &
			       (c->beyond | PAGE_MASK)),
		     pages[i].name, "must be the physical address of a page");
	must(c, !(c->pin & PIN_VIRTUAL_NMI) || (c->pin & PIN_NMI),
	     "virtual NMIs", "need NMI exiting");
	must(c, !(c->cpu & CPU_NMI_WINDOW) || (c->pin & PIN_VIRTUAL_NMI),
	     "NMI-window exiting", "needs virtual NMIs");
	must(c, !(c->cpu2 & CPU2_VPID) || vmcs_read16(VMCS_VPID), "VPID",
	     "must not be 0");
	must(c, !c->unrestricted || (c->cpu2 & CPU2_EPT), "unrestricted guest",
	     "needs EPT");
	must(c,
	     !(c->cpu2 & CPU2_EPT) ||
		     (eptp & (c->beyond | PAGE_MASK)) == EPTP_WB_WALK_4,
	     "EPTP", "must say write-back and 4 levels, with no further bits");
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
	bool error = c->event_info & INTERRUPTION_ERROR;
	bool may = c->type == INTERRUPTION_EXCEPTION && (c->cr0 & CR0_PE);
	bool free_choice = rdmsr(MSR_VMX_BASIC) & BIT(56);
	bool soft = c->type == INTERRUPTION_SOFTWARE ||
		    c->type == INTERRUPTION_PRIVILEGED ||
		    c->type == INTERRUPTION_SOFT_EXCEPTION;

	c->section = "27.2.1.3";
	if (!c->event)
		return;
	must(c, !(c->event_info & EVENT_RESERVED) && c->type != 1u << 8, what,
	     "has reserved bits or the reserved type");
	must(c,
	     c->type == INTERRUPTION_NMI	 ? c->vector == VECTOR_NMI
	     : c->type == INTERRUPTION_EXCEPTION ? c->vector < 32
	     : c->type == EVENT_OTHER		 ? c->vector == 0
						 : true,
	     what, "has a vector that its type does not have");
	must(c,
	     may && free_choice ? true
				: error == (may && has_error_code(c->vector)),
	     what, "must deliver an error code where the exception has one");
	must(c, !error || !(vmcs_read32(VMCS_ENTRY_ERROR_CODE) >> 16), what,
	     "has an error code with reserved bits");
	must(c, !soft || (length <= 15 && (length || (c->cap->misc & BIT(30)))),
	     what, "must have an instruction of 1 to 15 bytes");
}

static void check_host(struct check *c)
{
	u64 cr4 = vmcs_readn(VMCS_HOST_CR4);

	c->section = "27.2.2";
	/* No exit changes the cache's bits. */
	check_fixed(c, vmcs_readn(VMCS_HOST_CR0), false, CR0_NW | CR0_CD,
		    "host CR0");
	check_fixed(c, cr4, true, 0, "host CR4");
	must(c, !(vmcs_readn(VMCS_HOST_CR3) & c->beyond), "host CR3",
	     "has bits beyond the physical-address width");
	if (c->exit & EXIT_LOAD_PAT)
		check_pat(c, vmcs_read64(VMCS_HOST_PAT), "host PAT");
	if (c->exit & EXIT_LOAD_EFER)
		check_efer(c, vmcs_read64(VMCS_HOST_EFER),
			   c->exit & EXIT_HOST_64, true, "host EFER");
	c->section = "27.2.3";
	for (unsigned n = 0; n < SEGMENTS; n++) {
		/* There is no LDTR, and TR comes in its place. */
		u64 selector =
			n == LDTR ? 0
				  : vmread(VMCS_HOST_ES + 2 * (n - (n == TR)));

		must(c, !(selector & 7), c->s[n].name,
		     "of the host must have RPL 0 and be in the GDT");
		must(c, selector || (n != CS && n != TR), c->s[n].name,
		     "of the host must not be 0");
	}
	c->section = "27.2.4";
	must(c, c->exit & EXIT_HOST_64, "host address-space size",
	     "must be 1 in IA-32e mode, in which Monocle runs");
	must(c, cr4 & CR4_PAE, "host CR4", "must have PAE");
}

static void check_guest_control(struct check *c)
{
	/* No entry changes the cache's; PE and PG are the guest's own. */
	u64 exempt = CR0_NW | CR0_CD | (c->unrestricted ? CR0_PE | CR0_PG : 0);

	c->section = "27.3.1.1";
	check_fixed(c, c->cr0, false, exempt, "guest CR0");
	check_fixed(c, c->cr4, true, 0, "guest CR4");
	must(c, !(c->cr0 & CR0_PG) || (c->cr0 & CR0_PE), "guest CR0",
	     "must have PE where it has PG");
	must(c, !c->ia32e || (c->cr0 & CR0_PG), "guest CR0",
	     "must have PG in IA-32e mode");
	must(c, !c->ia32e || (c->cr4 & CR4_PAE), "guest CR4",
	     "must have PAE in IA-32e mode");
	must(c, c->ia32e || !(c->cr4 & CR4_PCIDE), "guest CR4",
	     "must not have PCIDE outside IA-32e mode");
	must(c, !(vmcs_readn(VMCS_GUEST_CR3) & c->beyond), "guest CR3",
	     "has bits beyond the physical-address width");
	if (c->entry & ENTRY_LOAD_DEBUG) {
		u64 debugctl = vmcs_read64(VMCS_GUEST_DEBUGCTL);

		must(c, !(debugctl >> 16 | (debugctl & DEBUGCTL_RESERVED)),
		     "guest DEBUGCTL", "has reserved bits");
		must(c, !(vmcs_readn(VMCS_GUEST_DR7) >> 32), "guest DR7",
		     "has reserved bits");
	}
	if (c->entry & ENTRY_LOAD_PAT)
		check_pat(c, vmcs_read64(VMCS_GUEST_PAT), "guest PAT");
	if (c->entry & ENTRY_LOAD_EFER)
		check_efer(c, vmcs_read64(VMCS_GUEST_EFER), c->ia32e,
			   c->cr0 & CR0_PG, "guest EFER");
}

static bool dpl_right(const struct check *c, enum segment_number n)
{
	const struct segment *s = &c->s[n], *cs = &c->s[CS];
	unsigned stack = c->s[SS].dpl;

	if (n == CS && s->type != TYPE_DATA_RW)
		return s->type & TYPE_CONFORMING ? s->dpl <= stack
						 : s->dpl == stack;
	if (n == CS)
		return s->dpl == 0;
	if (n == SS)
		return (c->unrestricted || s->dpl == s->rpl) &&
		       (s->dpl == 0 ||
			(cs->type != TYPE_DATA_RW && (c->cr0 & CR0_PE)));
	return n >= LDTR || c->unrestricted || !s->usable || s->type > 11 ||
	       s->dpl >= s->rpl;
}

static bool granularity_right(const struct segment *s)
{
	if ((s->limit & 0xfff) != 0xfff)
		return !(s->rights & SEGMENT_G);
	return !(s->limit >> 20) || (s->rights & SEGMENT_G);
}

static void check_segment(struct check *c, enum segment_number n)
{
	/* A bit for each type that the register may have. */
	static const u16 types[] = {0x88aa, 0xaa00, 0x0088, 0x88aa,
				    0x88aa, 0x88aa, 0x0004, 0x0800};
	const struct segment *s = &c->s[n];
	u32 allowed = types[n];

	/* Data in CS of an unrestricted guest; a 16-bit TSS. */
	if ((n == CS && c->unrestricted) || (n == TR && !c->ia32e))
		allowed |= 1u << TYPE_DATA_RW;
	must(c, dpl_right(c, n), s->name, "has the wrong DPL");
	if (n != CS && n != TR && !s->usable)
		return;
	must(c, n > DS || !(s->base >> 32), s->name, "has a base beyond 4 GiB");
	must(c, n != LDTR || canonical(c, s->base), s->name,
	     "has a base that is not canonical");
	must(c, n < LDTR || !(s->selector & TABLE_LOCAL), s->name,
	     "must be in the GDT");
	must(c, allowed >> s->type & 1, s->name, "has the wrong type");
	must(c, !(s->rights & SEGMENT_S) == (n >= LDTR), s->name,
	     "has the wrong S bit");
	must(c, s->rights & SEGMENT_P, s->name, "must be present");
	must(c, !(s->rights & RIGHTS_RESERVED), s->name,
	     "has rights with reserved bits");
	must(c, granularity_right(s), s->name,
	     "has a G bit that contradicts its limit");
}

static void check_v86_segment(struct check *c, const struct segment *s)
{
	must(c, s->base == (u64)s->selector << 4, s->name,
	     "must have the base of its selector in virtual-8086 mode");
	must(c, s->limit == 0xffff, s->name,
	     "must have limit 0xffff in virtual-8086 mode");
	must(c, s->rights == RIGHTS_V86, s->name,
	     "must have rights 0xf3 in virtual-8086 mode");
}

static void check_guest_segments(struct check *c)
{
	const struct segment *s = c->s;

	c->section = "27.3.1.2";
	for (unsigned n = 0; n < SEGMENTS; n++)
		if (c->v86 && n < LDTR)
			check_v86_segment(c, &s[n]);
		else
			check_segment(c, n);
	must(c, s[TR].usable, "TR", "must be usable");
	must(c, c->v86 || c->unrestricted || s[SS].rpl == s[CS].rpl, "SS",
	     "must have the RPL of CS");
	must(c,
	     !c->ia32e || !(s[CS].rights & SEGMENT_L) ||
		     !(s[CS].rights & SEGMENT_DB),
	     "CS", "must not have D in 64-bit mode");
	c->section = "27.3.1.3";
	must(c, !(vmcs_read32(VMCS_GUEST_GDTR_LIMIT) >> 16), "guest GDTR",
	     "must have a limit below 64 KiB");
	must(c, !(vmcs_read32(VMCS_GUEST_IDTR_LIMIT) >> 16), "guest IDTR",
	     "must have a limit below 64 KiB");
}

static void check_rip_rflags(struct check *c)
{
	u64 rip = vmcs_readn(VMCS_GUEST_RIP);
	bool wide = c->ia32e && (c->s[CS].rights & SEGMENT_L);
	bool external = c->event && c->type == INTERRUPTION_EXTERNAL;

	c->section = "27.3.1.4";
	must(c, wide ? canonical(c, rip) : !(rip >> 32), "guest RIP",
	     "is wider than the code segment allows");
	must(c, (c->rflags & ~(u64)(RFLAGS_KNOWN & ~RFLAGS_FIXED)) == 2,
	     "guest RFLAGS", "has reserved bits, or bit 1 is 0");
	must(c, !c->v86 || (!c->ia32e && (c->cr0 & CR0_PE)), "guest RFLAGS",
	     "must not have VM in IA-32e or real mode");
	must(c, !external || (c->rflags & RFLAGS_IF), "guest RFLAGS",
	     "must have IF where an external interrupt is injected");
}

/* Whether the event may end the inactive state. */
static bool event_wakes(const struct check *c)
{
	bool exception = c->type == INTERRUPTION_EXCEPTION;
	bool shutdown = c->type == INTERRUPTION_NMI ||
			(exception && c->vector == VECTOR_MC);

	if (c->activity == ACTIVITY_HLT)
		return shutdown || c->type == INTERRUPTION_EXTERNAL ||
		       c->type == EVENT_OTHER ||
		       (exception && c->vector == VECTOR_DB);
	return c->activity == ACTIVITY_ACTIVE ||
	       (c->activity == ACTIVITY_SHUTDOWN && shutdown);
}

static void check_activity(struct check *c)
{
	static const char what[] = "activity state";

	c->section = "27.3.1.5";
	must(c,
	     c->activity == ACTIVITY_ACTIVE ||
		     (c->activity <= ACTIVITY_WAIT_SIPI &&
		      (c->cap->misc >> (5 + c->activity) & 1)),
	     what, "is not one that the CPU has");
	must(c, c->activity != ACTIVITY_HLT || c->s[SS].dpl == 0, what,
	     "HLT needs DPL 0 of SS");
	must(c, !(c->blocking & BLOCKING_STI_MOV_SS) || !c->activity, what,
	     "must be active under blocking by STI or MOV SS");
	must(c, !c->event || event_wakes(c), what,
	     "must be one that the event to inject ends");
}

static void check_interruptibility(struct check *c)
{
	static const char what[] = "interruptibility state";
	bool nmi = c->event && c->type == INTERRUPTION_NMI;
	bool maskable = c->event && c->type == INTERRUPTION_EXTERNAL;
	u32 sti_mov_ss = c->blocking & BLOCKING_STI_MOV_SS;

	must(c, !(c->blocking >> 4) && !(c->blocking & BLOCKING_SMI), what,
	     "has bits that must be 0 outside SMM and enclaves");
	must(c, sti_mov_ss != BLOCKING_STI_MOV_SS, what,
	     "must not block by both STI and MOV SS");
	must(c, !(c->blocking & BLOCKING_STI) || (c->rflags & RFLAGS_IF), what,
	     "must not block by STI without RFLAGS.IF");
	must(c, !(nmi || maskable) || !sti_mov_ss, what,
	     "must not block the interrupt or NMI that is injected");
	must(c,
	     !nmi || !(c->pin & PIN_VIRTUAL_NMI) ||
		     !(c->blocking & BLOCKING_NMI),
	     what, "must not block the virtual NMI that is injected");
}

static void check_pending(struct check *c)
{
	u64 pending = vmcs_readn(VMCS_GUEST_PENDING_DEBUG);
	bool held = (c->blocking & BLOCKING_STI_MOV_SS) ||
		    c->activity == ACTIVITY_HLT;
	bool steps = (c->rflags & RFLAGS_TF) &&
		     !(vmcs_read64(VMCS_GUEST_DEBUGCTL) & DEBUGCTL_BTF);

	must(c, !(pending & ~(u64)PENDING_KNOWN), "pending debug exceptions",
	     "have reserved bits");
	must(c, !held || !(pending & PENDING_BS) == !steps,
	     "pending debug exceptions", "must have BS as RFLAGS.TF says");
	must(c, vmcs_read64(VMCS_LINK_POINTER) == ~0ull, "VMCS link pointer",
	     "must be all ones where no VMCS is linked");
}

static void check_pdptes(struct check *c)
{
	bool ok = true;

	c->section = "27.3.1.6";
	for (unsigned i = 0; i < 4; i++) {
		u64 pdpte = vmread(VMCS_GUEST_PDPTE0 + 2 * i);

		ok &= !(pdpte & PDPTE_P) ||
		      !(pdpte & (c->beyond | PDPTE_RESERVED));
	}
	must(c, c->ia32e || !(c->cr0 & CR0_PG) || !(c->cr4 & CR4_PAE) || ok,
	     "guest PDPTEs", "have reserved bits");
}

static void read_segments(struct check *c)
{
	static const char *const names[SEGMENTS] = {"ES", "CS", "SS",	"DS",
						    "FS", "GS", "LDTR", "TR"};

	for (unsigned n = 0; n < SEGMENTS; n++) {
		u32 rights = (u32)vmread(VMCS_GUEST_ES_RIGHTS + 2 * n);
		u32 selector = (u32)vmread(VMCS_GUEST_ES + 2 * n);

		c->s[n] = (struct segment){
			.name = names[n],
			.base = vmread(VMCS_GUEST_ES_BASE + 2 * n),
			.selector = selector,
			.limit = (u32)vmread(VMCS_GUEST_ES_LIMIT + 2 * n),
			.rights = rights,
			.type = rights & 15,
			.dpl = rights >> 5 & 3,
			.rpl = selector & 3,
			.usable = !(rights & SEGMENT_UNUSABLE),
		};
	}
}

static struct check read_state(const struct vmx_capabilities *cap)
{
	u32 widths = cpuid(0x80000008, 0).eax;
	u32 event = vmcs_read32(VMCS_ENTRY_INTERRUPTION);
	struct check c = {
		.cap = cap,
		.beyond = ~(BIT(widths & 63) - 1),
		.linear = MAX(32, widths >> 8 & 63),
		.pin = vmcs_read32(VMCS_PIN_CONTROLS),
		.cpu = vmcs_read32(VMCS_CPU_CONTROLS),
		.exit = vmcs_read32(VMCS_EXIT_CONTROLS),
		.entry = vmcs_read32(VMCS_ENTRY_CONTROLS),
		.cr0 = vmcs_readn(VMCS_GUEST_CR0),
		.cr4 = vmcs_readn(VMCS_GUEST_CR4),
		.rflags = vmcs_readn(VMCS_GUEST_RFLAGS),
		.blocking = vmcs_read32(VMCS_GUEST_INTERRUPTIBILITY),
		.activity = vmcs_read32(VMCS_GUEST_ACTIVITY),
		.event = event & INTERRUPTION_VALID,
		.event_info = event,
		.type = event & INTERRUPTION_TYPE,
		.vector = event & INTERRUPTION_VECTOR,
	};

	if (c.cpu & CPU_SECONDARY)
		c.cpu2 = vmcs_read32(VMCS_CPU_CONTROLS2);
	c.unrestricted = c.cpu2 & CPU2_UNRESTRICTED;
	c.ia32e = c.entry & ENTRY_IA32E;
	c.v86 = c.rflags & RFLAGS_VM;
	read_segments(&c);
	return c;
}

unsigned vmx_check(const struct vmx_capabilities *cap)
{
	struct check c = read_state(cap);

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
