/* SPDX-License-Identifier: MIT */
/*
 * The vCPU: its VMCS, the loop around the guest, and what handlers of exits
 * may do to it. Acts on the current VMCS of the calling CPU.
 */
#ifndef VMM_VCPU_VCPU_H
#define VMM_VCPU_VCPU_H

#include "arch/x86/vmx/vmcs.h"
#include "vmm/core/vm.h"

/* What a handler says of the exit. */
enum exit_action {
	EXIT_RESUME, /* nothing more to do; RIP stands */
	EXIT_SKIP,   /* the instruction is done: RIP moves behind it */
	EXIT_GP,     /* inject #GP(0) */
	EXIT_UD,     /* inject #UD */
	EXIT_STOP,   /* not to be emulated: dump and stop the guest */
};

/* A zeroed page for the VMCS is allocated; -ENOMEM, -EIO. */
int vcpu_init(struct vcpu *v, struct vm *vm, struct lapic *lapic);
/* Registers and VMCS guest state as entry says; all else as after RESET. */
void vcpu_reset(struct vcpu *v, const struct guest_entry *entry);
/* Until vm->request is not VM_RUN. */
void vcpu_run(struct vcpu *v);

/* Handles the exit whose reason and qualification stand in v. */
enum exit_action exit_dispatch(struct vcpu *v);

/* Queues an exception; contributory ones become #DF (SDM 6.15). */
void vcpu_inject(struct vcpu *v, unsigned vector, bool has_error, u32 error);
void vcpu_inject_page_fault(struct vcpu *v, gva_t gva, u32 error);
void vcpu_skip(struct vcpu *v);

u64 vcpu_gpr(const struct vcpu *v, unsigned n);
void vcpu_set_gpr(struct vcpu *v, unsigned n, u64 value);
unsigned vcpu_cpl(void);
bool vcpu_long_mode(void);     /* EFER.LMA and CS.L */
unsigned vcpu_code_bits(void); /* 16, 32 or 64 */

/* The guest's paging as guest_walk() wants it. */
struct guest_paging vcpu_paging(const struct vcpu *v);
/*
 * Guest memory by linear address with the guest's rights. A page fault is
 * queued for the guest (-EFAULT); -EIO: what is there is no memory.
 */
int vcpu_read_linear(struct vcpu *v, gva_t gva, void *buf, u64 size,
		     unsigned access);
int vcpu_write_linear(struct vcpu *v, gva_t gva, const void *buf, u64 size);
/* Up to 15 instruction bytes at RIP; returns how many were read. */
unsigned vcpu_fetch(struct vcpu *v, u8 buf[15]);

/* Registers, control state, exit and instruction bytes into the log. */
void vcpu_dump(struct vcpu *v);

#endif
