/* SPDX-License-Identifier: MIT */
/* Accesses that the EPT refuses: device registers, or nothing at all. */
#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "arch/x86/vmx/ept.h"
#include "kernel/string.h"
#include "vmm/vcpu/exits.h"

static u64 segment_base(void *ctx, enum insn_segment segment)
{
	(void)ctx;
	return vmread(VMCS_GUEST_ES_BASE + 2 * (u64)segment);
}

/* MOVS's other operand, memory or another device, has to be walked. */
static NOINLINE int translate(struct vcpu *v, gva_t gva, bool write, gpa_t *gpa)
{
	struct guest_paging pg = vcpu_paging(v);
	struct guest_translation t;
	int err = guest_walk(&pg, gva, write ? GUEST_WRITE : GUEST_READ, &t);

	if (err == -EFAULT)
		vcpu_inject_page_fault(v, t.gva, t.error_code);
	else if (err == -ERANGE)
		vcpu_inject(v, VECTOR_GP, true, 0);
	*gpa = t.gpa;
	return err == -ERANGE ? -EFAULT : err;
}

/* A closed window is nobody's, whatever will be there. */
static bool is_memory(const struct vcpu *v, gpa_t gpa, bool *rom)
{
	const struct region *r = region_find(&v->vm->map, gpa);

	*rom = r && r->kind == REGION_ROM;
	return r && r->cpu && (*rom || r->kind == REGION_RAM);
}

/* device: the page that is known to be no memory, or 0; kept. */
static int access(struct vcpu *v, gva_t gva, unsigned size, bool write,
		  u64 *value, u64 *device)
{
	struct bus_access a = {vmcs_read64(VMCS_GUEST_PHYSICAL), size, write,
			       *value};
	int err = 0;
	bool rom;

	/* What trapped comes with its translation (SDM 28.2.1). */
	if (v->reason == EXIT_IO || gva != vmcs_readn(VMCS_GUEST_LINEAR))
		err = translate(v, gva, write, &a.addr);
	if (err)
		return err;
	if (*device != a.addr >> PAGE_SHIFT) {
		if (is_memory(v, a.addr, &rom)) {
			if (rom && write)
				return 0; /* dropped, as a ROM does */
			return write ? vcpu_write_linear(v, gva, value, size, 0)
				     : vcpu_read_linear(v, gva, value, size,
							GUEST_READ);
		}
		*device = a.addr >> PAGE_SHIFT;
	}
	vcpu_dispatch(v, &a);
	*value = a.value & bus_all_ones(size);
	return 0;
}

int vcpu_access(struct vcpu *v, gva_t gva, unsigned size, bool write,
		u64 *value)
{
	u64 device = 0;

	return access(v, gva, size, write, value, &device);
}

static enum exit_action carry_out(struct vcpu *v, struct decoded *d,
				  struct insn_cpu *cpu)
{
	const struct insn *insn = &d->insn;
	u64 rsp = cpu->regs[GPR_RSP], rflags = cpu->rflags;
	struct insn_result result;
	u64 memory = 0;
	int err = 0;

	if (insn->reads)
		err = access(v, insn->read_from, insn->size, false, &memory,
			     &d->device);
	if (err)
		return err == -EFAULT ? EXIT_RESUME : exit_lend(v);
	result = insn_execute(insn, cpu, memory);
	if (insn->writes)
		err = access(v, insn->write_to, insn->size, true, &result.store,
			     &d->device);
	if (err)
		return err == -EFAULT ? EXIT_RESUME : EXIT_STOP;
	insn_retire(insn, cpu, &result);
	vmcs_writen(VMCS_GUEST_RIP, cpu->rip);
	if (cpu->regs[GPR_RSP] != rsp)
		vmcs_writen(VMCS_GUEST_RSP, cpu->regs[GPR_RSP]);
	if (cpu->rflags != rflags)
		vmcs_writen(VMCS_GUEST_RFLAGS, cpu->rflags);
	vcpu_retire();
	return EXIT_RESUME;
}

static u64 load(const u8 *at)
{
	u64 value;

	__builtin_memcpy(&value, at, sizeof(value));
	return value;
}

/*
 * The guest's tables still lead from RIP to the same place, and there the
 * instruction still stands. Nobody has to tell of a change.
 */
static bool is_as_kept(const struct vcpu *v, const struct decoded *d, u64 rip,
		       u64 cr3)
{
	if (d->rip != rip || d->cr3 != cr3 || !d->depth ||
	    d->generation != v->vm->ept->generation || !vcpu_long_mode())
		return false;
	for (unsigned i = 0; i < d->depth; i++)
		if (*(const volatile u64 *)d->walked[i].at !=
		    d->walked[i].value)
			return false;
	return load(d->code) == d->first && load(d->code + 7) == d->last;
}

/* Kept if it can be compared: 64-bit code, in one page; no repetition. */
static int decode(struct vcpu *v, struct decoded *d, struct insn_cpu *cpu,
		  u64 cr3)
{
	struct guest_translation t = {0};
	u8 bytes[INSN_MAX];
	unsigned count = INSN_MAX;
	u64 run = 0;
	u8 *code = NULL;
	int err;

	cpu->bits = (u8)vcpu_code_bits();
	if (cpu->bits == 64) {
		struct guest_paging pg = vcpu_paging(v);

		(void)guest_linear_run(&pg, cpu->rip, INSN_MAX, GUEST_FETCH,
				       &code, &run, &t);
	}
	if (run == INSN_MAX)
		memcpy(bytes, code, INSN_MAX);
	else
		count = vcpu_fetch(v, bytes);
	err = insn_decode(&d->insn, cpu, bytes, count);
	d->depth = 0;
	d->device = 0;
	if (err || run != INSN_MAX || d->insn.step_rsi || d->insn.step_rdi)
		return err;
	d->rip = cpu->rip;
	d->cr3 = cr3;
	d->generation = v->vm->ept->generation;
	d->depth = t.depth;
	memcpy(d->walked, t.walked, sizeof(d->walked));
	d->code = code;
	d->first = load(bytes);
	d->last = load(bytes + 7);
	return 0;
}

static NOINLINE enum exit_action interpret(struct vcpu *v, struct decoded *d,
					   u64 rip, u64 cr3, bool kept)
{
	struct insn_cpu cpu = {
		.regs = v->gpr,
		.rip = rip,
		.bits = 64,
		.segment_base = segment_base,
	};

	if (!kept && decode(v, d, &cpu, cr3))
		return exit_lend(v);
	v->gpr[GPR_RSP] = vmcs_readn(VMCS_GUEST_RSP);
	cpu.rflags = vmcs_readn(VMCS_GUEST_RFLAGS);
	insn_address(&d->insn, &cpu);
	return carry_out(v, d, &cpu);
}

/* The same in short, for what nearly all drivers do, as carry_out() would. */
static inline enum exit_action move(struct vcpu *v, struct decoded *d, u64 rip)
{
	const struct insn *insn = &d->insn;
	u64 value = insn->has_reg ? v->gpr[insn->reg] : insn->imm;
	int err;

	if (insn->size == 4)
		value = (u32)value;
	err = access(v, insn_offset(insn, v->gpr, rip), insn->size, !insn->load,
		     &value, &d->device);
	if (err == -EFAULT)
		return EXIT_RESUME;
	if (err)
		return insn->load ? exit_lend(v) : EXIT_STOP;
	if (insn->load)
		v->gpr[insn->reg] = value;
	vmcs_writen(VMCS_GUEST_RIP, rip + insn->length);
	vcpu_unblock();
	return EXIT_RESUME;
}

enum exit_action exit_ept_violation(struct vcpu *v)
{
	const u64 how = ACCESS_FETCH | LINEAR_VALID | NOT_A_WALK;
	u64 rip = vmcs_readn(VMCS_GUEST_RIP), cr3 = vmcs_readn(VMCS_GUEST_CR3);
	struct decoded *d = &v->decoded[(rip ^ rip >> 4) % VCPU_DECODED];
	bool kept;

	if ((v->qualification & how) != (LINEAR_VALID | NOT_A_WALK) ||
	    v->injection.info)
		return exit_lend(v);
	kept = is_as_kept(v, d, rip, cr3);
	if (kept && d->insn.plain &&
	    !(vmcs_readn(VMCS_GUEST_RFLAGS) & (RFLAGS_TF | RFLAGS_RF)))
		return move(v, d, rip);
	return interpret(v, d, rip, cr3, kept);
}
