/* SPDX-License-Identifier: MIT */
/* Control registers and XCR0: SDM 2.5, 2.6, 26.1.3. */
#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "arch/x86/vmx/ept.h"
#include "arch/x86/vmx/vmx.h"
#include "vmm/vcpu/exits.h"

#define CR0_KNOWN                                                             \
	((u64)(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | \
	       CR0_AM | CR0_NW | CR0_CD | CR0_PG))
/* Kept from the hardware: the caches stay on, FPU errors are native. */
#define CR0_VIRTUAL ((u64)(CR0_NE | CR0_NW | CR0_CD))

static u64 guest_cr0(void)
{
	u64 mask = vmcs_readn(VMCS_CR0_MASK);

	return (vmcs_readn(VMCS_GUEST_CR0) & ~mask) |
	       (vmcs_readn(VMCS_CR0_SHADOW) & mask);
}

/* SDM 4.4.1: with PAE paging, these loads of CR0 and CR4 load PDPTEs. */
static int load_pdptes(struct vcpu *v)
{
	u64 pdpte[4];

	if (guest_read(&v->vm->map, vmcs_readn(VMCS_GUEST_CR3) & 0xffffffe0,
		       pdpte, sizeof(pdpte)))
		return -EFAULT;
	for (unsigned i = 0; i < 4; i++) {
		u64 reserved =
			0x1e6 | ~(BIT(v->vm->features.physical_bits) - 1);

		if ((pdpte[i] & 1) && (pdpte[i] & reserved))
			return -EFAULT;
	}
	for (unsigned i = 0; i < 4; i++)
		vmwrite(VMCS_GUEST_PDPTE0 + 2 * i, pdpte[i]);
	return 0;
}

/* On a change of CR0.PG: IA-32e mode begins or ends (SDM 10.8.5). */
static int switch_paging(struct vcpu *v, u64 cr0)
{
	u64 efer = vmcs_read64(VMCS_GUEST_EFER);
	u64 cr4 = vmcs_readn(VMCS_GUEST_CR4);
	u32 entry = v->vm->vmx->entry;

	if (!(cr0 & CR0_PG)) {
		if (vcpu_long_mode() || (cr4 & CR4_PCIDE))
			return -EFAULT;
		efer &= ~(u64)EFER_LMA;
	} else if (efer & EFER_LME) {
		if (!(cr4 & CR4_PAE) ||
		    (vmcs_read32(VMCS_GUEST_CS_RIGHTS) & SEGMENT_L))
			return -EFAULT;
		efer |= EFER_LMA;
		entry |= ENTRY_IA32E;
	}
	vmcs_write64(VMCS_GUEST_EFER, efer);
	vmcs_write32(VMCS_ENTRY_CONTROLS, entry);
	return 0;
}

/* What the instruction would have dropped: SDM 4.10.4.1. */
static void flush(const struct vcpu *v)
{
	/* Combined mappings of every VPID: SDM 29.4.3.1. */
	vmx_invept(v->vm->vmx, v->vm->ept->eptp);
}

static bool pae_paging(u64 cr0, u64 cr4)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE) &&
	       !(vmcs_read64(VMCS_GUEST_EFER) & EFER_LMA);
}

int vcpu_load_cr3(struct vcpu *v, u64 cr3)
{
	u64 cr0 = guest_cr0(), cr4 = vmcs_readn(VMCS_GUEST_CR4);

	vmcs_writen(VMCS_GUEST_CR3, cr3);
	flush(v);
	return pae_paging(cr0, cr4) ? load_pdptes(v) : 0;
}

static enum exit_action set_cr0(struct vcpu *v, u64 cr0)
{
	const u64 pdpte_bits = CR0_PG | CR0_CD | CR0_NW;
	u64 change = cr0 ^ guest_cr0();

	if (cr0 >> 32 || ((cr0 & CR0_PG) && !(cr0 & CR0_PE)) ||
	    ((cr0 & CR0_NW) && !(cr0 & CR0_CD)))
		return EXIT_GP;
	cr0 = (cr0 & CR0_KNOWN) | CR0_ET;
	if ((change & CR0_PG) && switch_paging(v, cr0))
		return EXIT_GP;
	if ((change & pdpte_bits) &&
	    pae_paging(cr0, vmcs_readn(VMCS_GUEST_CR4)) && load_pdptes(v))
		return EXIT_GP;
	if (change & CR0_PG)
		flush(v);
	vmcs_writen(VMCS_CR0_SHADOW, cr0);
	vmcs_writen(VMCS_GUEST_CR0, (cr0 & ~CR0_VIRTUAL) | CR0_NE);
	return EXIT_SKIP;
}

static enum exit_action set_cr4(struct vcpu *v, u64 cr4)
{
	const u64 pdpte_bits = CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP;
	u64 old = vmcs_readn(VMCS_GUEST_CR4);
	u64 efer = vmcs_read64(VMCS_GUEST_EFER);
	bool lma = efer & EFER_LMA;

	if ((cr4 & ~v->vm->features.cr4_allowed) || (lma && !(cr4 & CR4_PAE)))
		return EXIT_GP;
	if ((cr4 & CR4_PCIDE) && !(old & CR4_PCIDE) &&
	    (!lma || (vmcs_readn(VMCS_GUEST_CR3) & PAGE_MASK)))
		return EXIT_GP;
	if (((cr4 ^ old) & pdpte_bits) && pae_paging(guest_cr0(), cr4) &&
	    load_pdptes(v))
		return EXIT_GP;
	if ((cr4 ^ old) & (pdpte_bits | CR4_PCIDE))
		flush(v);
	vmcs_writen(VMCS_CR4_SHADOW, cr4);
	vmcs_writen(VMCS_GUEST_CR4, cr4 | v->vm->vmx->cr4_fixed0);
	return EXIT_SKIP;
}

static enum exit_action set_cr8(struct vcpu *v, u64 value)
{
	if (value & ~0xfull)
		return EXIT_GP;
	lapic_set_cr8(v->lapic, value);
	return EXIT_SKIP;
}

enum access_type { MOV_TO_CR, MOV_FROM_CR, CLTS, LMSW };

/* SDM table 28-3. */
enum exit_action exit_control_register(struct vcpu *v)
{
	u64 q = v->qualification = vmcs_readn(VMCS_QUALIFICATION);
	unsigned n = q & 15, type = q >> 4 & 3, reg = q >> 8 & 15;
	u64 value = vcpu_gpr(v, reg);

	if (!vcpu_long_mode())
		value = (u32)value;
	if (type == CLTS)
		return set_cr0(v, guest_cr0() & ~(u64)CR0_TS);
	if (type == LMSW) /* sets PE, MP, EM, TS; PE it cannot clear */
		return set_cr0(v, (guest_cr0() & ~0xeull) | (q >> 16 & 0xf));
	if (type == MOV_FROM_CR && n == 8) {
		vcpu_set_gpr(v, reg, lapic_cr8(v->lapic));
		return EXIT_SKIP;
	}
	if (type != MOV_TO_CR)
		return EXIT_STOP;
	switch (n) {
	case 0:
		return set_cr0(v, value);
	case 4:
		return set_cr4(v, value);
	case 8:
		return set_cr8(v, value);
	default:
		return EXIT_STOP;
	}
}

/* SDM 13.3: which combinations of XCR0's bits there are. */
static bool xcr0_valid(u64 value, u64 allowed)
{
	const u64 x87 = 1, sse = 2, avx = 4, avx512 = 0xe0;

	if ((value & ~allowed) || !(value & x87))
		return false;
	if ((value & avx) && !(value & sse))
		return false;
	if ((value & avx512) && ((value & avx512) != avx512 || !(value & avx)))
		return false;
	return true;
}

enum exit_action exit_xsetbv(struct vcpu *v)
{
	u64 value = v->gpr[GPR_RDX] << 32 | (u32)v->gpr[GPR_RAX];

	/* #UD without CR4.OSXSAVE comes before the exit (SDM 26.1.1). */
	if ((u32)v->gpr[GPR_RCX] || vcpu_cpl() ||
	    !xcr0_valid(value, v->vm->features.xcr0_allowed))
		return EXIT_GP;
	xsetbv(0, value);
	vcpu_forget_answers(v); /* leaf 0xD tells its area's size */
	return EXIT_SKIP;
}
