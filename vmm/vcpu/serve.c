/* SPDX-License-Identifier: MIT */
/*
 * A vCPU on a CPU of its own. Where hardware waits for a SIPI, Monocle waits in
 * its own loop, asleep: the VMCS's wait-for-SIPI state is of no use, for a CPU
 * in it takes no kick.
 */
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "arch/x86/vmx/vmx.h"
#include "kernel/park.h"
#include "kernel/phys.h"
#include "kernel/traps.h"
#include "vmm/vcpu/vcpu.h"

void vcpu_kick(void *vcpu)
{
	const struct vcpu *v = vcpu;

	percpu_kick(v->cpu);
}

void vcpu_kick_others(struct vm *vm)
{
	for (unsigned n = 0; n < vm->vcpu_count; n++)
		if (vm->vcpus[n]->cpu != percpu())
			vcpu_kick(vm->vcpus[n]);
}

/* A look at what was sent to a vCPU that is not started: true, it is now. */
static bool is_started(struct vcpu *v)
{
	struct lapic *l = v->lapic;
	bool started;

	lapic_collect(l);
	started = l->sipi_pending;
	lapic_init_signal(l);
	l->sipi_pending = false;
	v->cpu->nmis = 0; /* nor is one kept that comes meanwhile */
	return started;
}

/*
 * Asleep, it takes none: who moves a device's interrupt away from here kicks,
 * and so does a reset.
 */
static void take_interrupts(struct vm *vm)
{
	vm_lock(vm);
	cpu_take_interrupts();
	vm_unlock(vm);
}

/* Returns as one of the CPUs that run vCPUs. */
static void wait_for_sipi(struct vcpu *v)
{
	struct percpu *cpu = v->cpu;

	park_begin(cpu);
	for (;;) {
		__atomic_store_n(&cpu->attention, 0, __ATOMIC_SEQ_CST);
		if (vm_enter(v->vm)) {
			take_interrupts(v->vm);
			if (is_started(v))
				break;
			vm_leave(v->vm);
		}
		park_sleep(cpu);
	}
	park_end(cpu);
}

static int take_cpu(struct vcpu *v)
{
	void *region = page_alloc();

	local_apic_join(HOST_VECTOR_SPURIOUS);
	if (!region)
		return -ENOMEM;
	if (vmx_enable(v->vm->vmx, virt_to_phys(region)))
		return -EIO;
	return vcpu_init(v);
}

void vcpu_serve(void *vcpu)
{
	struct vcpu *v = vcpu;

	v->error = take_cpu(v);
	__atomic_store_n(&v->ready, 1, __ATOMIC_SEQ_CST);
	while (!v->error) {
		/* SDM 9.4.4.1, table 10-1 */
		struct guest_entry entry = {
			.mode = ENTRY_REAL16,
			.gpr[GPR_RDX] = cpuid(1, 0).eax,
		};

		wait_for_sipi(v);
		entry.cs = (u16)(v->lapic->sipi_vector << 8);
		vcpu_reset(v, &entry);
		vcpu_run(v);
	}
}
