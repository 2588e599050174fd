/* SPDX-License-Identifier: MIT */
/* What handlers of exits read and change of the vCPU. */
#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/string.h"
#include "vmm/vcpu/vcpu.h"

/* Leaf 0xffffffff has no row, and its answer is 0. */
void vcpu_forget_answers(struct vcpu *v)
{
	for (unsigned i = 0; i < ARRAY_SIZE(v->answers); i++)
		v->answers[i] = (struct answer){.leaf = ~0u};
}

u64 vcpu_gpr(const struct vcpu *v, unsigned n)
{
	return n == GPR_RSP ? vmcs_readn(VMCS_GUEST_RSP) : v->gpr[n & 15];
}

void vcpu_set_gpr(struct vcpu *v, unsigned n, u64 value)
{
	if (n == GPR_RSP)
		vmcs_writen(VMCS_GUEST_RSP, value);
	else
		v->gpr[n & 15] = value;
}

unsigned vcpu_cpl(void)
{
	return vmcs_read32(VMCS_GUEST_SS_RIGHTS) >> 5 & 3;
}

bool vcpu_long_mode(void)
{
	return (vmcs_read64(VMCS_GUEST_EFER) & EFER_LMA) &&
	       (vmcs_read32(VMCS_GUEST_CS_RIGHTS) & SEGMENT_L);
}

unsigned vcpu_code_bits(void)
{
	u32 rights = vmcs_read32(VMCS_GUEST_CS_RIGHTS);

	if (vcpu_long_mode())
		return 64;
	return rights & SEGMENT_DB ? 32 : 16;
}

bool vcpu_steps(void)
{
	return vmcs_readn(VMCS_GUEST_RFLAGS) & RFLAGS_TF &&
	       !(vmcs_read64(VMCS_GUEST_DEBUGCTL) & DEBUGCTL_BTF);
}

void vcpu_unblock(void)
{
	u32 blocking = vmcs_read32(VMCS_GUEST_INTERRUPTIBILITY);

	if (blocking & (BLOCKING_STI | BLOCKING_MOV_SS))
		vmcs_write32(VMCS_GUEST_INTERRUPTIBILITY,
			     blocking & ~(u32)(BLOCKING_STI | BLOCKING_MOV_SS));
}

/* Pending debug exceptions have BS where DR6 has it (SDM table 25-4). */
void vcpu_retire(void)
{
	vcpu_unblock();
	if (vcpu_steps())
		vmcs_writen(VMCS_GUEST_PENDING_DEBUG,
			    vmcs_readn(VMCS_GUEST_PENDING_DEBUG) | DR6_BS);
}

static bool contributory(unsigned vector)
{
	return vector == VECTOR_DE ||
	       (vector >= VECTOR_TS && vector <= VECTOR_GP);
}

/* SDM table 6-5: what becomes of a second exception. */
void vcpu_inject(struct vcpu *v, unsigned vector, bool has_error, u32 error)
{
	u32 old = v->injection.info;
	unsigned first = old & INTERRUPTION_VECTOR;
	bool exception = (old & INTERRUPTION_VALID) &&
			 (old & INTERRUPTION_TYPE) == INTERRUPTION_EXCEPTION;

	if (exception && first == VECTOR_DF) {
		vm_request(v->vm, VM_RESET); /* triple fault */
		return;
	}
	if (exception && ((contributory(first) && contributory(vector)) ||
			  (first == VECTOR_PF &&
			   (contributory(vector) || vector == VECTOR_PF)))) {
		vector = VECTOR_DF;
		has_error = true;
		error = 0;
	}
	if (!(vmcs_readn(VMCS_GUEST_CR0) & CR0_PE))
		has_error = false;
	/* A fault's handler goes back to the instruction (SDM 18.3.1.1). */
	vmcs_writen(VMCS_GUEST_RFLAGS,
		    vmcs_readn(VMCS_GUEST_RFLAGS) | RFLAGS_RF);
	v->injection.info = vector | INTERRUPTION_EXCEPTION |
			    (has_error ? INTERRUPTION_ERROR : 0) |
			    (u32)INTERRUPTION_VALID;
	v->injection.error = error;
	v->injection.length = 0;
	v->attention = true;
}

void vcpu_inject_page_fault(struct vcpu *v, gva_t gva, u32 error)
{
	/* CR2 is the guest's at all times: Monocle itself never faults. */
	write_cr2(gva);
	vcpu_inject(v, VECTOR_PF, true, error);
}

struct guest_paging vcpu_paging(const struct vcpu *v)
{
	struct guest_paging pg = {
		.cr0 = vmcs_readn(VMCS_GUEST_CR0),
		.cr3 = vmcs_readn(VMCS_GUEST_CR3),
		.cr4 = vmcs_readn(VMCS_GUEST_CR4),
		.efer = vmcs_read64(VMCS_GUEST_EFER),
		.rflags = vmcs_readn(VMCS_GUEST_RFLAGS),
		.cpl = vcpu_cpl(),
		.phys_bits = v->vm->features.physical_bits,
		.gib_pages = true,
		.list = &v->vm->map,
	};

	if (pg.cr4 & CR4_PAE && !(pg.efer & EFER_LMA))
		for (unsigned i = 0; i < 4; i++)
			pg.pdpte[i] = vmread(VMCS_GUEST_PDPTE0 + 2 * i);
	return pg;
}

static int linear_error(struct vcpu *v, int err,
			const struct guest_translation *t)
{
	if (err == -EFAULT)
		vcpu_inject_page_fault(v, t->gva, t->error_code);
	else if (err == -ERANGE)
		vcpu_inject(v, VECTOR_GP, true, 0);
	return err == -ERANGE ? -EFAULT : err;
}

int vcpu_read_linear(struct vcpu *v, gva_t gva, void *buf, u64 size,
		     unsigned access)
{
	struct guest_paging pg = vcpu_paging(v);
	struct guest_translation t;

	return linear_error(
		v, guest_read_linear(&pg, gva, buf, size, access, &t), &t);
}

int vcpu_write_linear(struct vcpu *v, gva_t gva, const void *buf, u64 size,
		      unsigned access)
{
	struct guest_paging pg = vcpu_paging(v);
	struct guest_translation t;

	return linear_error(
		v, guest_write_linear(&pg, gva, buf, size, access, &t), &t);
}

int vcpu_linear_ptr(struct vcpu *v, gva_t gva, u64 size, unsigned access,
		    u8 **host)
{
	struct guest_paging pg = vcpu_paging(v);
	struct guest_translation t;
	u64 run;

	return linear_error(
		v, guest_linear_run(&pg, gva, size, access, host, &run, &t),
		&t);
}

unsigned vcpu_fetch(struct vcpu *v, u8 buf[15])
{
	struct guest_paging pg = vcpu_paging(v);
	struct guest_translation t;
	gva_t gva = vmcs_readn(VMCS_GUEST_RIP);
	u64 first;

	if (!vcpu_long_mode())
		gva = (u32)(gva + vmcs_readn(VMCS_GUEST_CS_BASE));
	if (!guest_read_linear(&pg, gva, buf, 15, GUEST_FETCH, &t))
		return 15;
	/* The next page may be out of reach and of no concern. */
	first = MIN(15, PAGE_SIZE - (gva & PAGE_MASK));
	if (!guest_read_linear(&pg, gva, buf, first, GUEST_FETCH, &t))
		return (unsigned)first;
	return 0;
}

static void dump_segments(void)
{
	static const char *const names[] = {"es", "cs", "ss",	"ds",
					    "fs", "gs", "ldtr", "tr"};

	for (unsigned n = 0; n < ARRAY_SIZE(names); n++)
		log_error("  %-4s %04lx base %016lx limit %08lx rights %05lx",
			  names[n], vmread(VMCS_GUEST_ES + 2 * n),
			  vmread(VMCS_GUEST_ES_BASE + 2 * n),
			  vmread(VMCS_GUEST_ES_LIMIT + 2 * n),
			  vmread(VMCS_GUEST_ES_RIGHTS + 2 * n));
	log_error("  gdtr %016lx limit %04x idtr %016lx limit %04x",
		  vmcs_readn(VMCS_GUEST_GDTR_BASE),
		  vmcs_read32(VMCS_GUEST_GDTR_LIMIT),
		  vmcs_readn(VMCS_GUEST_IDTR_BASE),
		  vmcs_read32(VMCS_GUEST_IDTR_LIMIT));
}

static void dump_host(void)
{
	log_error("  host rip %016lx rsp %016lx cr0 %lx cr3 %lx cr4 %lx efer "
		  "%lx gs %lx",
		  vmcs_readn(VMCS_HOST_RIP), vmcs_readn(VMCS_HOST_RSP),
		  vmcs_readn(VMCS_HOST_CR0), vmcs_readn(VMCS_HOST_CR3),
		  vmcs_readn(VMCS_HOST_CR4), vmcs_read64(VMCS_HOST_EFER),
		  vmcs_readn(VMCS_HOST_GS_BASE));
	log_error("  controls pin %x cpu %x/%x exit %x entry %x inject %x",
		  vmcs_read32(VMCS_PIN_CONTROLS),
		  vmcs_read32(VMCS_CPU_CONTROLS),
		  vmcs_read32(VMCS_CPU_CONTROLS2),
		  vmcs_read32(VMCS_EXIT_CONTROLS),
		  vmcs_read32(VMCS_ENTRY_CONTROLS),
		  vmcs_read32(VMCS_ENTRY_INTERRUPTION));
}

static void dump_code(struct vcpu *v)
{
	u8 code[15];
	char text[3 * sizeof(code) + 1] = "";
	unsigned n = vcpu_fetch(v, code);
	size_t at = 0;

	for (unsigned i = 0; i < n; i++)
		at += (size_t)format(text + at, sizeof(text) - at, "%02x ",
				     code[i]);
	log_error("  code at rip: %s", n ? text : "not in the guest's memory");
}

void vcpu_dump(struct vcpu *v)
{
	static const char *const names[] = {
		"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
		"r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"};

	log_error("guest: exit reason 0x%x (%s), qualification 0x%lx",
		  v->reason, exit_reason_name(v->reason & 0xffff),
		  v->qualification);
	log_error("  guest-physical %016lx linear %016lx vectoring 0x%x",
		  vmcs_read64(VMCS_GUEST_PHYSICAL),
		  vmcs_readn(VMCS_GUEST_LINEAR),
		  vmcs_read32(VMCS_IDT_VECTORING));
	log_error("  rip %016lx rflags %08lx", vmcs_readn(VMCS_GUEST_RIP),
		  vmcs_readn(VMCS_GUEST_RFLAGS));
	for (unsigned n = 0; n < 16; n += 4)
		log_error("  %s %016lx %s %016lx %s %016lx %s %016lx", names[n],
			  vcpu_gpr(v, n), names[n + 1], vcpu_gpr(v, n + 1),
			  names[n + 2], vcpu_gpr(v, n + 2), names[n + 3],
			  vcpu_gpr(v, n + 3));
	log_error("  cr0 %016lx cr2 %016lx cr3 %016lx cr4 %016lx efer %lx",
		  vmcs_readn(VMCS_GUEST_CR0), read_cr2(),
		  vmcs_readn(VMCS_GUEST_CR3), vmcs_readn(VMCS_GUEST_CR4),
		  vmcs_read64(VMCS_GUEST_EFER));
	log_error("  interruptibility %x activity %x pending debug %lx",
		  vmcs_read32(VMCS_GUEST_INTERRUPTIBILITY),
		  vmcs_read32(VMCS_GUEST_ACTIVITY),
		  vmcs_readn(VMCS_GUEST_PENDING_DEBUG));
	dump_segments();
	dump_host();
	dump_code(v);
}
