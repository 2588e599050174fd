/* SPDX-License-Identifier: MIT */
/*
 * Where nothing answers, hardware reads ones and drops writes, whatever the
 * instruction: vector moves, CMPXCHG, a fetch, a walk of page tables, the
 * delivery of an event. None of them is decoded here: a page of ones is lent
 * for one instruction, behind which the CPU exits (monitor trap flag, SDM
 * 26.5.2), and taken back. So is one of what an emulated device's registers
 * read, for an instruction that is not decoded and reads alone.
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

/* The device's page; not a LAPIC's that another CPU might see meanwhile. */
static bool is_read(const struct vcpu *v, gpa_t page)
{
	const struct region *r = region_find(&v->vm->map, page);
	const u64 access = ACCESS_READ | ACCESS_WRITE | ACCESS_FETCH;

	return !v->lent_count && (v->qualification & access) == ACCESS_READ &&
	       !(r && r->cpu) && !is_nobodys(v, page) &&
	       !(v->vm->smp &&
		 !bus_is_free(v->bus, BUS_MMIO, page, page + PAGE_MASK));
}

/* As much as an operand may have: 64 bytes from gpa on. */
static void read_device(struct vcpu *v, gpa_t gpa)
{
	gpa_t end = MIN(gpa + 64, (gpa | PAGE_MASK) + 1);

	for (gpa_t at = gpa & ~3ull; at < end; at += 4) {
		struct bus_access a = {.addr = at, .size = 4};
		u32 *to = (u32 *)((u8 *)v->ones + (at & PAGE_MASK));

		vcpu_dispatch(v, &a);
		*to = (u32)a.value;
	}
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
	gpa_t gpa = vmcs_read64(VMCS_GUEST_PHYSICAL);
	gpa_t page = gpa & ~(u64)PAGE_MASK;
	bool device = is_read(v, page);
	struct region ones = {
		.gpa = page,
		.size = PAGE_SIZE,
		.hpa = virt_to_phys(v->ones),
		.cpu = device ? EPT_R : EPT_R | EPT_W | EPT_X,
		.memtype = MEMTYPE_WB,
		.kind = REGION_DEVICE,
	};
	bool done, lent;

	/* Before another CPU can reach it. */
	if (!v->lent_count)
		memset(v->ones, 0xff, PAGE_SIZE);
	if (device)
		read_device(v, gpa);
	vm_lock(v->vm);
	done = is_code(v, page);
	lent = !done && !v->lent_device && v->lent_count < VCPU_LENT &&
	       (device || is_nobodys(v, page)) && !ept_map(v->vm->ept, &ones);
	vm_unlock(v->vm);
	if (done)
		return EXIT_RESUME;
	if (!lent)
		return EXIT_STOP;
	if (!v->lent_count)
		step(v, true);
	v->lent[v->lent_count++] = page;
	v->lent_device = device;
	return EXIT_RESUME;
}

void lend_end(struct vcpu *v)
{
	if (!v->lent_count)
		return;
	step(v, false);
	v->lent_device = false;
	vm_lock(v->vm);
	vm_change_begin(v->vm);
	/* A table that is not split needs no memory: this cannot fail. */
	while (v->lent_count)
		(void)ept_unmap(v->vm->ept, v->lent[--v->lent_count],
				PAGE_SIZE);
	vm_change_end(v->vm);
	vm_unlock(v->vm);
}
