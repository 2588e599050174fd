/* SPDX-License-Identifier: MIT */
/*
 * KVM's paravirtual EOI (Linux: Documentation/virt/kvm/x86/msr.rst,
 * MSR_KVM_PV_EOI_EN): bit 0 of a word in the guest's memory says that to clear
 * it is an EOI. Linux finds it by CPUID 0x40000101.
 */
#include "arch/x86/errno.h"
#include "vmm/vcpu/vcpu.h"

#define MSR_PV_EOI 0x4b564d04
#define PV_EOI_ENABLED BIT(0)

/* The word stays the guest's RAM, whatever becomes of its address. */
static int pv_eoi_access(void *vcpu, struct bus_access *a)
{
	struct vcpu *v = vcpu;
	u32 *word = NULL;

	if (!a->write) {
		a->value = v->pv_eoi;
		return 0;
	}
	if (a->value & PV_EOI_ENABLED) {
		word = guest_ptr(&v->vm->map, a->value - PV_EOI_ENABLED, 4);
		if (a->value & BIT(1) || !word)
			return -EFAULT;
	}
	v->pv_eoi = a->value;
	lapic_pv_eoi(v->lapic, word);
	return 0;
}

int pv_eoi_init(struct vcpu *v)
{
	return bus_register(v->bus, BUS_MSR, MSR_PV_EOI, MSR_PV_EOI,
			    pv_eoi_access, v, "pv-eoi");
}
