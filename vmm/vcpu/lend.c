/* SPDX-License-Identifier: MIT */
/*
 * Where nothing answers, hardware reads ones and drops writes, whatever the
 * instruction: vector moves, CMPXCHG, a fetch, a walk of page tables, the
 * delivery of an event. None of them is decoded here: a page of ones is lent
 * for one instruction, behind which the CPU exits (monitor trap flag, SDM
 * 26.5.2), and taken back.
 */
#include "arch/x86/cpu.h"
#include "arch/x86/vmx/ept.h"
#include "kernel/phys.h"
#include "kernel/string.h"
#include "vmm/vcpu/exits.h"

static bool is_nobodys(const struct vcpu *v, gpa_t page)
{
	const struct region *r = region_find(&v->vm->map, page);

	return !(r && r->cpu) &&
	       bus_is_free(v->bus, BUS_MMIO, page, page + PAGE_MASK) &&
	       bus_is_free(&v->vm->bus, BUS_MMIO, page, page + PAGE_MASK);
}

/* A CPU without that flag, as Bochs 2.7's are, traps by TF, which exits. */
static void step(struct vcpu *v, bool on)
{
	u64 rflags = vmcs_readn(VMCS_GUEST_RFLAGS);

	if (v->vm->vmx->monitor_trap) {
		v->cpu_controls &= ~(u32)CPU_MONITOR_TRAP;
		v->cpu_controls |= on ? CPU_MONITOR_TRAP : 0;
		vmcs_write32(VMCS_CPU_CONTROLS, v->cpu_controls);
	} else if (on ? !(rflags & RFLAGS_TF) : v->steps) {
		v->steps = on;
		vmcs_writen(VMCS_GUEST_RFLAGS,
			    on ? rflags | RFLAGS_TF : rflags & ~(u64)RFLAGS_TF);
	}
}

/* A large page holds no code (itlb=split): this page of one becomes small. */
static bool is_code(struct vcpu *v, gpa_t page)
{
	const struct region *r = region_find(&v->vm->map, page);
	struct region code;

	if (!v->vm->vmx->split_code || !(v->qualification & ACCESS_FETCH) ||
	    !r || !(r->cpu & EPT_X))
		return false;
	code = *r;
	code.gpa = page;
	code.size = PAGE_SIZE;
	code.hpa += page - r->gpa;
	return !ept_map(v->vm->ept, &code);
}

enum exit_action exit_lend(struct vcpu *v)
{
	gpa_t page = vmcs_read64(VMCS_GUEST_PHYSICAL) & ~(u64)PAGE_MASK;
	struct region ones = {
		.gpa = page,
		.size = PAGE_SIZE,
		.hpa = virt_to_phys(v->ones),
		.cpu = EPT_R | EPT_W | EPT_X,
		.memtype = MEMTYPE_WB,
		.kind = REGION_DEVICE,
	};
	bool done, lent;

	/* Before another CPU can reach it. */
	if (!v->lent_count)
		memset(v->ones, 0xff, PAGE_SIZE);
	vm_lock(v->vm);
	done = is_code(v, page);
	lent = !done && v->lent_count < VCPU_LENT && is_nobodys(v, page) &&
	       !ept_map(v->vm->ept, &ones);
	vm_unlock(v->vm);
	if (done)
		return EXIT_RESUME;
	if (!lent)
		return EXIT_STOP;
	if (!v->lent_count)
		step(v, true);
	v->lent[v->lent_count++] = page;
	return EXIT_RESUME;
}

void lend_end(struct vcpu *v)
{
	if (!v->lent_count)
		return;
	step(v, false);
	vm_lock(v->vm);
	vm_change_begin(v->vm);
	/* A table that is not split needs no memory: this cannot fail. */
	while (v->lent_count)
		(void)ept_unmap(v->vm->ept, v->lent[--v->lent_count],
				PAGE_SIZE);
	vm_change_end(v->vm);
	vm_unlock(v->vm);
}
