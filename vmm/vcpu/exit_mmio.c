/* SPDX-License-Identifier: MIT */
/* Accesses that the EPT refuses: device registers, or nothing at all. */
#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "vmm/vcpu/exits.h"
#include "vmm/vcpu/insn.h"

static u64 segment_base(void *ctx, enum insn_segment segment)
{
	(void)ctx;
	return vmread(VMCS_GUEST_ES_BASE + 2 * (u64)segment);
}

/*
 * The address that trapped comes with its translation (SDM 28.2.1); MOVS's
 * other operand, memory or another device, has to be walked.
 */
static int translate(struct vcpu *v, gva_t gva, bool write, gpa_t *gpa)
{
	struct guest_paging pg;
	struct guest_translation t;
	int err;

	*gpa = vmcs_read64(VMCS_GUEST_PHYSICAL);
	if (v->reason != EXIT_IO && gva == vmcs_readn(VMCS_GUEST_LINEAR))
		return 0;
	pg = vcpu_paging(v);
	err = guest_walk(&pg, gva, write ? GUEST_WRITE : GUEST_READ, &t);
	if (err == -EFAULT)
		vcpu_inject_page_fault(v, t.gva, t.error_code);
	else if (err == -ERANGE)
		vcpu_inject(v, VECTOR_GP, true, 0);
	*gpa = t.gpa;
	return err == -ERANGE ? -EFAULT : err;
}

int vcpu_access(struct vcpu *v, gva_t gva, unsigned size, bool write,
		u64 *value)
{
	struct bus_access a = {.size = size, .write = write, .value = *value};
	const struct region *r;
	int err = translate(v, gva, write, &a.addr);

	if (err)
		return err;
	if (!bus_is_free(v->bus, BUS_MMIO, a.addr, a.addr)) {
		bus_dispatch(v->bus, BUS_MMIO, &a);
		*value = a.value & bus_all_ones(size);
		return 0;
	}
	r = region_find(&v->vm->map, a.addr);
	/* A closed window is nobody's, whatever will be there. */
	if (r && !r->cpu)
		r = NULL;
	if (r && r->kind == REGION_ROM && write)
		return 0; /* dropped, as a ROM does */
	if (r && (r->kind == REGION_RAM || r->kind == REGION_ROM))
		return write ? vcpu_write_linear(v, gva, value, size, 0)
			     : vcpu_read_linear(v, gva, value, size,
						GUEST_READ);
	vm_dispatch(v->vm, BUS_MMIO, &a);
	*value = a.value & bus_all_ones(size);
	return 0;
}

static enum exit_action carry_out(struct vcpu *v, struct insn *insn,
				  struct insn_cpu *cpu)
{
	struct insn_result result;
	u64 memory = 0;
	int err = 0;

	if (insn->reads)
		err = vcpu_access(v, insn->read_from, insn->size, false,
				  &memory);
	if (err)
		return err == -EFAULT ? EXIT_RESUME : exit_lend(v);
	result = insn_execute(insn, cpu, memory);
	if (insn->writes)
		err = vcpu_access(v, insn->write_to, insn->size, true,
				  &result.store);
	if (err)
		return err == -EFAULT ? EXIT_RESUME : EXIT_STOP;
	insn_retire(insn, cpu, &result);
	vmcs_writen(VMCS_GUEST_RIP, cpu->rip);
	vmcs_writen(VMCS_GUEST_RSP, cpu->regs[GPR_RSP]);
	vmcs_writen(VMCS_GUEST_RFLAGS, cpu->rflags);
	vcpu_retire();
	return EXIT_RESUME;
}

enum exit_action exit_ept_violation(struct vcpu *v)
{
	struct insn_cpu cpu = {
		.regs = v->gpr,
		.segment_base = segment_base,
	};
	struct insn insn;
	u8 bytes[INSN_MAX];
	unsigned count;

	if ((v->qualification & ACCESS_FETCH) ||
	    !(v->qualification & LINEAR_VALID) ||
	    !(v->qualification & NOT_A_WALK) || v->injection.info)
		return exit_lend(v);
	count = vcpu_fetch(v, bytes);
	v->gpr[GPR_RSP] = vmcs_readn(VMCS_GUEST_RSP);
	cpu.rip = vmcs_readn(VMCS_GUEST_RIP);
	cpu.rflags = vmcs_readn(VMCS_GUEST_RFLAGS);
	cpu.bits = (u8)vcpu_code_bits();
	if (insn_decode(&insn, &cpu, bytes, count))
		return exit_lend(v);
	insn_address(&insn, &cpu);
	return carry_out(v, &insn, &cpu);
}
