/* SPDX-License-Identifier: MIT */
#include "arch/x86/vmx/vmx.h"

#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "arch/x86/vmx/vmcs.h"
#include "kernel/cpu_tables.h"
#include "kernel/phys.h"

int vmx_enable(const struct vmx_capabilities *cap, hpa_t region)
{
	u64 feature = rdmsr(MSR_FEATURE_CONTROL);

	if (!(feature & FEATURE_LOCKED))
		wrmsr(MSR_FEATURE_CONTROL,
		      feature | FEATURE_LOCKED | FEATURE_VMX);
	*(u32 *)phys_to_virt(region) = cap->vmcs_revision;
	write_cr0((read_cr0() | cap->cr0_fixed0) & cap->cr0_fixed1);
	write_cr4((read_cr4() | cap->cr4_fixed0 | CR4_VMXE) & cap->cr4_fixed1);
	return vmxon(region) ? 0 : -EIO;
}

int vmcs_load(const struct vmx_capabilities *cap, hpa_t vmcs)
{
	*(u32 *)phys_to_virt(vmcs) = cap->vmcs_revision;
	return vmclear(vmcs) && vmptrld(vmcs) ? 0 : -EIO;
}

void vmx_invept(const struct vmx_capabilities *cap, u64 eptp)
{
	invept(cap->invept_single ? 1 : 2, eptp);
}

void vmx_write_host_state(u64 gs_base, u64 tr_base, u64 gdtr, u64 idtr,
			  hpa_t cr3)
{
	vmcs_write16(VMCS_HOST_ES, SELECTOR_DATA);
	vmcs_write16(VMCS_HOST_CS, SELECTOR_CODE);
	vmcs_write16(VMCS_HOST_SS, SELECTOR_DATA);
	vmcs_write16(VMCS_HOST_DS, SELECTOR_DATA);
	vmcs_write16(VMCS_HOST_FS, 0);
	vmcs_write16(VMCS_HOST_GS, 0);
	vmcs_write16(VMCS_HOST_TR, SELECTOR_TSS);
	vmcs_write64(VMCS_HOST_PAT, rdmsr(MSR_PAT));
	vmcs_write64(VMCS_HOST_EFER, rdmsr(MSR_EFER));
	vmcs_write32(VMCS_HOST_SYSENTER_CS, 0);
	vmcs_writen(VMCS_HOST_CR0, read_cr0());
	vmcs_writen(VMCS_HOST_CR3, cr3);
	vmcs_writen(VMCS_HOST_CR4, read_cr4());
	vmcs_writen(VMCS_HOST_FS_BASE, 0);
	vmcs_writen(VMCS_HOST_GS_BASE, gs_base);
	vmcs_writen(VMCS_HOST_TR_BASE, tr_base);
	vmcs_writen(VMCS_HOST_GDTR_BASE, gdtr);
	vmcs_writen(VMCS_HOST_IDTR_BASE, idtr);
	vmcs_writen(VMCS_HOST_SYSENTER_ESP, 0);
	vmcs_writen(VMCS_HOST_SYSENTER_EIP, 0);
	vmcs_writen(VMCS_HOST_RIP, (u64)vmx_exit);
}
