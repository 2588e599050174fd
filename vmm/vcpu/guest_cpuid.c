/* SPDX-License-Identifier: MIT */
#include "vmm/vcpu/guest_cpuid.h"

#include "arch/x86/vmx/vmcs.h"

struct row {
	u32 eax, ebx, ecx, edx; /* the host's bits that pass */
	void (*fix)(const struct cpuid_context *ctx, u32 subleaf,
		    struct cpuid *r);
};

#define ALL 0xffffffffu

enum leaf1_bits {
	ECX_X2APIC = 1u << 21,
	ECX_TSC_DEADLINE = 1u << 24,
	ECX_OSXSAVE = 1u << 27,
	ECX_HYPERVISOR = 1u << 31,
	EDX_APIC = 1u << 9,
	EDX_MTRR = 1u << 12,
	/*
	 * SSE3, PCLMULQDQ, MONITOR, SSSE3, FMA, CMPXCHG16B, PCID, SSE4.1,
	 * SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND. Not: VMX,
	 * SMX, thermal and performance features (no such MSRs).
	 */
	LEAF1_ECX = 1u << 0 | 1u << 1 | 1u << 3 | 1u << 9 | 1u << 12 |
		    1u << 13 | 1u << 17 | 1u << 19 | 1u << 20 | 1u << 22 |
		    1u << 23 | 1u << 25 | 1u << 26 | 1u << 28 | 1u << 29 |
		    1u << 30,
	/*
	 * FPU, VME, DE, PSE, TSC, MSR, PAE, CX8, SEP, PGE, CMOV, PAT, PSE36,
	 * CLFSH, MMX, FXSR, SSE, SSE2, SS; MCE and MCA, with no bank; HTT
	 * (fix_1). Not: DS, ACPI and TM (no thermal MSRs).
	 */
	LEAF1_EDX = 0x0007u << 0 | 1u << 7 | 1u << 14 | 1u << 3 | 1u << 4 |
		    1u << 5 | 1u << 6 | 1u << 8 | 1u << 11 | 1u << 13 |
		    1u << 15 | 1u << 16 | 1u << 17 | 1u << 19 | 1u << 23 |
		    1u << 24 | 1u << 25 | 1u << 26 | 1u << 27 | 1u << 28,
	EDX_HTT = 1u << 28,
};

enum leaf6_bits {
	EAX_DTS = 1u << 0,
	EAX_TURBO = 1u << 1,
	EAX_PTM = 1u << 6,
	EAX_HWP = 1u << 7 | 1u << 9 | 1u << 10, /* window, preference */
	ECX_APERF = 1u << 0,
	ECX_EPB = 1u << 3,
	LEAF6_EAX = EAX_DTS | EAX_TURBO | EAX_PTM | EAX_HWP,
	LEAF6_ECX = ECX_APERF | ECX_EPB,
};

enum leaf7_bits {
	/*
	 * FSGSBASE, BMI1, AVX2, SMEP, BMI2, ERMS, INVPCID, AVX512 (F, DQ,
	 * IFMA, CD, BW, VL), RDSEED, ADX, SMAP, CLFLUSHOPT, CLWB, SHA. Not:
	 * TSC_ADJUST, SGX, TSX, RDT, MPX, PT.
	 */
	LEAF7_EBX = 1u << 0 | 1u << 3 | 1u << 5 | 1u << 7 | 1u << 8 | 1u << 9 |
		    1u << 10 | 1u << 16 | 1u << 17 | 1u << 18 | 1u << 19 |
		    1u << 20 | 1u << 21 | 1u << 23 | 1u << 24 | 1u << 28 |
		    1u << 29 | 1u << 30 | 1u << 31,
	/* AVX512 VBMI, UMIP, VBMI2, GFNI, VAES, VPCLMUL, VNNI, BITALG,
	 * VPOPCNTDQ, RDPID. Not: PKU (its register is not switched). */
	LEAF7_ECX = 1u << 1 | 1u << 2 | 1u << 6 | 1u << 8 | 1u << 9 | 1u << 10 |
		    1u << 11 | 1u << 12 | 1u << 14 | 1u << 22,
	/* FSRM, MD_CLEAR, SERIALIZE, hybrid, IBRS and IBPB, STIBP, L1D_FLUSH,
	 * ARCH_CAPABILITIES, SSBD: their MSRs are open (vmm/vcpu/msr.c). */
	LEAF7_EDX = 1u << 4 | 1u << 10 | 1u << 14 | 1u << 15 | 1u << 26 |
		    1u << 27 | 1u << 28 | 1u << 29 | 1u << 31,
	EDX_HYBRID = 1u << 15,
};

/*
 * Topology. A vCPU is one CPU of the host, and has its APIC ID: leaves 1, 4,
 * 0xB, 0x1A and 0x1F, read where it runs, are right as they are, with the
 * shifts by which an OS takes IDs apart. So they are where cpus= leaves some
 * out: the counts say how many IDs there are, or what was shipped (SDM 2,
 * CPUID), and an OS must not take CPUs from them. With one vCPU there is one
 * thread in one core, whatever the host has.
 */

static void fix_1(const struct cpuid_context *ctx, u32 subleaf, struct cpuid *r)
{
	(void)subleaf;
	r->ebx = (r->ebx & 0xffff00) | ctx->apic_id << 24;
	if (!ctx->features->smp) {
		r->ebx = (r->ebx & ~0xff0000u) | 1u << 16;
		r->edx &= ~(u32)EDX_HTT;
	}
	r->ecx |= ECX_X2APIC | ECX_TSC_DEADLINE;
	if (!ctx->features->no_hypervisor_bit)
		r->ecx |= ECX_HYPERVISOR;
	if (ctx->cr4 & CR4_OSXSAVE)
		r->ecx |= ECX_OSXSAVE;
	r->edx |= EDX_MTRR | (ctx->apic_off ? 0 : EDX_APIC); /* SDM 10.4.3 */
}

/* Caches: one core and one thread share each. */
static void fix_4(const struct cpuid_context *ctx, u32 subleaf, struct cpuid *r)
{
	(void)subleaf;
	if (!ctx->features->smp)
		r->eax &= 0x3fff;
}

/* Of MWAIT's states, those that Monocle's clock ends. */
static void fix_5(const struct cpuid_context *ctx, u32 subleaf, struct cpuid *r)
{
	(void)subleaf;
	r->edx &= ctx->features->mwait;
}

/* ARAT: the LAPIC's timer never stops. Not: what interrupts (no such MSR). */
static void fix_6(const struct cpuid_context *ctx, u32 subleaf, struct cpuid *r)
{
	(void)subleaf;
	r->eax = (r->eax & ctx->features->leaf6_eax) | 1u << 2;
	r->ecx &= ctx->features->leaf6_ecx;
}

static void fix_7(const struct cpuid_context *ctx, u32 subleaf, struct cpuid *r)
{
	if (subleaf)
		*r = (struct cpuid){0};
	/* Without their controls these are #UD (SDM 26.3). */
	if (!(ctx->features->cpu2 & CPU2_INVPCID))
		r->ebx &= ~(1u << 10);
	if (!(ctx->features->cpu2 & CPU2_RDTSCP))
		r->ecx &= ~(1u << 22); /* RDPID */
	if (!ctx->features->smp)
		r->edx &= ~(u32)EDX_HYBRID;
	r->eax = 0; /* no further subleaf */
}

/* One thread in one core: both levels have one logical processor. */
static void fix_b(const struct cpuid_context *ctx, u32 subleaf, struct cpuid *r)
{
	if (ctx->features->smp)
		return;
	*r = (struct cpuid){0, subleaf < 2, subleaf & 0xff, ctx->apic_id};
	if (subleaf < 2)
		r->ecx |= (subleaf + 1) << 8;
}

/* One kind of core. */
static void fix_1a(const struct cpuid_context *ctx, u32 subleaf,
		   struct cpuid *r)
{
	if (!ctx->features->smp || subleaf)
		*r = (struct cpuid){0};
}

/* Bytes of an XSAVE area with all that the guest may enable: SDM 13.4. */
static u32 xsave_size(u64 xcr0)
{
	u32 size = xcr0 ? 576 : 0; /* the legacy region and the header */

	for (u32 n = 2; n < 63; n++) {
		struct cpuid r = {0};

		if (xcr0 >> n & 1)
			r = cpuid(0xd, n);
		size = MAX(size, r.eax + r.ebx);
	}
	return size;
}

static void fix_d(const struct cpuid_context *ctx, u32 subleaf, struct cpuid *r)
{
	const struct guest_features *f = ctx->features;

	if (subleaf == 0) {
		r->eax &= (u32)f->xcr0_allowed;
		r->ecx = xsave_size(f->xcr0_allowed);
		r->edx &= (u32)(f->xcr0_allowed >> 32);
	} else if (subleaf == 1) {
		/* XSAVEOPT, XSAVEC, XGETBV(1), XSAVES; XFD is not offered. */
		r->eax &= f->cpu2 & CPU2_XSAVES ? 0xf : 0x7;
		r->ecx &= (u32)f->xss_allowed;
		r->edx &= (u32)(f->xss_allowed >> 32);
	} else if (subleaf > 62 ||
		   !((f->xcr0_allowed | f->xss_allowed) >> subleaf & 1)) {
		*r = (struct cpuid){0};
	}
}

/* Linear addresses of 48 bits: 5-level paging is not shown. */
static void fix_8(const struct cpuid_context *ctx, u32 subleaf, struct cpuid *r)
{
	(void)ctx;
	(void)subleaf;
	r->eax |= 48u << 8;
}

/* The virtual APIC timer counts at the TSC's frequency: so does the crystal. */
static void fix_15(const struct cpuid_context *ctx, u32 subleaf,
		   struct cpuid *r)
{
	u64 hz = ctx->features->tsc_hz;

	(void)subleaf;
	if (!hz || hz >> 32)
		*r = (struct cpuid){0};
	else
		*r = (struct cpuid){1, 1, (u32)hz, 0};
}

static void fix_ext1(const struct cpuid_context *ctx, u32 subleaf,
		     struct cpuid *r)
{
	(void)subleaf;
	if (!(ctx->features->cpu2 & CPU2_RDTSCP))
		r->edx &= ~(1u << 27);
}

static const struct row basic[] = {
	[0x0] = {ALL, ALL, ALL, ALL, NULL},
	[0x1] = {ALL, ALL, LEAF1_ECX, LEAF1_EDX, fix_1},
	[0x2] = {ALL, ALL, ALL, ALL, NULL}, /* cache descriptors */
	[0x4] = {ALL, ALL, ALL, ALL, fix_4},
	[0x5] = {0xffff, 0xffff, 3, ALL, fix_5}, /* MWAIT breaks, IF or not */
	[0x6] = {LEAF6_EAX, 0, LEAF6_ECX, 0, fix_6},
	[0x7] = {0, LEAF7_EBX, LEAF7_ECX, LEAF7_EDX, fix_7},
	[0xb] = {ALL, ALL, ALL, ALL, fix_b},
	[0xd] = {ALL, ALL, ALL, ALL, fix_d},
	[0x15] = {0, 0, 0, 0, fix_15},	   /* TSC and crystal */
	[0x16] = {ALL, ALL, ALL, 0, NULL}, /* frequencies, for information */
	[0x1a] = {ALL, 0, 0, 0, fix_1a},   /* which kind of core */
	[0x1f] = {ALL, ALL, ALL, ALL, fix_b},
};

static const struct row extended[] = {
	[0] = {ALL, ALL, ALL, ALL, NULL},
	/* LAHF, LZCNT, PREFETCHW; SYSCALL, NX, 1 GiB pages, RDTSCP, LM */
	[1] = {ALL, 0, 0x121,
	       1u << 11 | 1u << 20 | 1u << 26 | 1u << 27 | 1u << 29, fix_ext1},
	[2] = {ALL, ALL, ALL, ALL, NULL}, /* brand */
	[3] = {ALL, ALL, ALL, ALL, NULL},
	[4] = {ALL, ALL, ALL, ALL, NULL},
	[5] = {ALL, ALL, ALL, ALL, NULL},
	[6] = {0, 0, ALL, 0, NULL},	/* L2 cache */
	[7] = {0, 0, 0, 1u << 8, NULL}, /* invariant TSC */
	[8] = {0xff, 0, 0, 0, fix_8},	/* address widths */
};

static struct cpuid hypervisor(const struct cpuid_context *ctx, u32 leaf)
{
	switch (leaf) {
	case CPUID_HYPERVISOR: /* "MonocleVMM" */
		return (struct cpuid){CPUID_HYPERVISOR + 1, 0x6f6e6f4d,
				      0x56656c63, 0x00004d4d};
	case CPUID_HYPERVISOR + 1:
		return (struct cpuid){HYPERCALL_ABI, HYPERCALL_BASE, 0, 0};
	case CPUID_KVM: /* "KVMKVMKVM", so that Linux uses its x2APIC */
		return (struct cpuid){CPUID_KVM + 1, 0x4b4d564b, 0x564b4d56,
				      0x4d};
	case CPUID_KVM + 1: /* of KVM's features this one: its MSR is there */
		return (struct cpuid){ctx->features->pv_eoi ? BIT(6) : 0, 0, 0,
				      0};
	default:
		return (struct cpuid){0, 0, 0, 0};
	}
}

static const struct row *find_row(u32 leaf)
{
	if (leaf < ARRAY_SIZE(basic))
		return &basic[leaf];
	if (leaf - 0x80000000 < ARRAY_SIZE(extended))
		return &extended[leaf - 0x80000000];
	return NULL;
}

/* The leaves of enum guest_common, and where they have features. */
static const struct {
	u32 leaf, subleaf;
	struct cpuid features;
} common[GUEST_COMMON] = {
	[GUEST_LEAF_1] = {1, 0, {0, 0, ALL, ALL}},
	[GUEST_LEAF_7] = {7, 0, {0, ALL, ALL, ALL}},
	[GUEST_LEAF_D_1] = {0xd, 1, {ALL, 0, 0, 0}},
	[GUEST_LEAF_EXTENDED_1] = {0x80000001, 0, {0, 0, ALL, ALL}},
};

static void take_away(const struct guest_features *f, u32 leaf, u32 subleaf,
		      struct cpuid *r)
{
	for (unsigned i = 0; i < GUEST_COMMON; i++) {
		if (common[i].leaf != leaf || common[i].subleaf != subleaf)
			continue;
		r->eax &= ~f->lacks[i].eax;
		r->ebx &= ~f->lacks[i].ebx;
		r->ecx &= ~f->lacks[i].ecx;
		r->edx &= ~f->lacks[i].edx;
	}
}

struct cpuid guest_cpuid(const struct cpuid_context *ctx, u32 leaf, u32 subleaf)
{
	const struct row *row = find_row(leaf);
	struct cpuid r;

	if (!row && leaf >> 16 == CPUID_HYPERVISOR >> 16)
		return hypervisor(ctx, leaf);
	if (!row)
		return (struct cpuid){0, 0, 0, 0};
	r = cpuid(leaf, subleaf);
	r.eax &= row->eax;
	r.ebx &= row->ebx;
	r.ecx &= row->ecx;
	r.edx &= row->edx;
	if (ctx->features->limited)
		take_away(ctx->features, leaf, subleaf, &r);
	if (row->fix)
		row->fix(ctx, subleaf, &r);
	/* The highest leaf that has a row. */
	if (leaf == 0)
		r.eax = MIN(r.eax, (u32)ARRAY_SIZE(basic) - 1);
	else if (leaf == 0x80000000)
		r.eax = MIN(r.eax, 0x80000000 + (u32)ARRAY_SIZE(extended) - 1);
	return r;
}

struct cr4_row {
	u32 cr4;
	u32 leaf;
	u32 ebx, ecx; /* any of these bits shown: the guest may set it */
};

static const struct cr4_row cr4_rows[] = {
	{CR4_FSGSBASE, 7, 1u << 0, 0}, {CR4_SMEP, 7, 1u << 7, 0},
	{CR4_SMAP, 7, 1u << 20, 0},    {CR4_UMIP, 7, 0, 1u << 2},
	{CR4_PCIDE, 1, 0, 1u << 17},   {CR4_OSXSAVE, 1, 0, 1u << 26},
};

/* What of leaf 6 stands for which MSR: emulators show it without. */
static const struct {
	u32 msr, eax, ecx;
} leaf6_rows[] = {
	{0xe8, EAX_TURBO, ECX_APERF},  {0x19c, EAX_DTS, 0},
	{0x1b0, 0, ECX_EPB},	       {0x1b1, EAX_PTM, 0},
	{MSR_HWP_REQUEST, EAX_HWP, 0},
};

static void leaf6_init(struct guest_features *f)
{
	u64 value;

	for (unsigned i = 0; i < ARRAY_SIZE(leaf6_rows); i++)
		if (!rdmsr_safe(leaf6_rows[i].msr, &value)) {
			f->leaf6_eax |= leaf6_rows[i].eax;
			f->leaf6_ecx |= leaf6_rows[i].ecx;
		}
}

#define XCR0_KNOWN 0xe7u /* x87, SSE, AVX, AVX-512: SDM 13.3 */

/* What follows from the leaves. */
static void allow(struct guest_features *f)
{
	struct cpuid_context ctx = {.features = f};
	struct cpuid ext;

	f->cr4_allowed = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE |
			 CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR |
			 CR4_OSXMMEXCPT;
	f->efer_allowed = EFER_SCE | EFER_LME | EFER_LMA;
	f->xcr0_allowed = 0;
	ext = guest_cpuid(&ctx, 0x80000001, 0);
	if (ext.edx & BIT(20))
		f->efer_allowed |= EFER_NXE;
	for (unsigned i = 0; i < ARRAY_SIZE(cr4_rows); i++) {
		const struct cr4_row *c = &cr4_rows[i];
		struct cpuid r = guest_cpuid(&ctx, c->leaf, 0);

		if ((r.ebx & c->ebx) || (r.ecx & c->ecx))
			f->cr4_allowed |= c->cr4;
	}
	if (f->cr4_allowed & CR4_OSXSAVE)
		f->xcr0_allowed = cpuid(0xd, 0).eax & XCR0_KNOWN;
}

void guest_features_read(struct cpuid leaves[GUEST_COMMON])
{
	for (unsigned i = 0; i < GUEST_COMMON; i++)
		leaves[i] = cpuid(common[i].leaf, common[i].subleaf);
}

void guest_features_limit(struct guest_features *f,
			  const struct cpuid first[GUEST_COMMON],
			  const struct cpuid other[GUEST_COMMON])
{
	for (unsigned i = 0; i < GUEST_COMMON; i++) {
		const struct cpuid *mask = &common[i].features;
		struct cpuid *lacks = &f->lacks[i];

		lacks->eax |= first[i].eax & ~other[i].eax & mask->eax;
		lacks->ebx |= first[i].ebx & ~other[i].ebx & mask->ebx;
		lacks->ecx |= first[i].ecx & ~other[i].ecx & mask->ecx;
		lacks->edx |= first[i].edx & ~other[i].edx & mask->edx;
	}
	f->limited = true;
	allow(f);
}

void guest_features_init(struct guest_features *f, u32 cpu2)
{
	*f = (struct guest_features){
		.cpu2 = cpu2,
		.physical_bits = (u8)cpuid(0x80000008, 0).eax,
	};
	allow(f);
	leaf6_init(f);
	/* XSAVES works, with no supervisor state: none of them is offered. */
	f->xss_allowed = 0;
}
