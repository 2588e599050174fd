/* SPDX-License-Identifier: MIT */
/* What exits.c calls, one file for each kind of exit. */
#ifndef VMM_VCPU_EXITS_H
#define VMM_VCPU_EXITS_H

#include "vmm/vcpu/vcpu.h"

/* Of an EPT violation: SDM table 28-7 */
enum ept_qualification {
	ACCESS_READ = 1u << 0,
	ACCESS_WRITE = 1u << 1,
	ACCESS_FETCH = 1u << 2,
	LINEAR_VALID = 1u << 7,
	NOT_A_WALK = 1u << 8, /* of the guest's page tables */
};

typedef enum exit_action exit_handler(struct vcpu *v);

/*
 * Of exits that an instruction asks for: none cuts an event's delivery short.
 * Those that need the qualification read it. NULL: the exit is exit_dispatch()'s.
 */
#define EXIT_HANDLERS 64
extern exit_handler *const exit_handlers[EXIT_HANDLERS];
/* The others; reason and qualification stand in v. */
enum exit_action exit_dispatch(struct vcpu *v);

enum exit_action exit_control_register(struct vcpu *v);
enum exit_action exit_task_switch(struct vcpu *v);
enum exit_action exit_xsetbv(struct vcpu *v);
enum exit_action exit_io(struct vcpu *v);
enum exit_action exit_rdmsr(struct vcpu *v);
enum exit_action exit_wrmsr(struct vcpu *v);
enum exit_action exit_ept_violation(struct vcpu *v);
enum exit_action exit_hypercall(struct vcpu *v);

/* An access of a linear address at whatever is there: memory, a device, nothing.
 * -EFAULT: a fault is queued; -EIO: it is not to be had in one piece. */
int vcpu_access(struct vcpu *v, gva_t gva, unsigned size, bool write,
		u64 *value);

/* A device's register: of the CPU's own LAPIC, or of one that all have. */
static inline void vcpu_dispatch(struct vcpu *v, struct bus_access *a)
{
	if (bus_has(v->bus, BUS_MMIO, a->addr))
		bus_dispatch(v->bus, BUS_MMIO, a);
	else
		vm_dispatch(v->vm, BUS_MMIO, a);
}

/* A load of CR3 with paging on. -EFAULT: PDPTEs that cannot be: #GP. */
int vcpu_load_cr3(struct vcpu *v, u64 cr3);

/*
 * An EPT violation that no decoder is needed for: EXIT_RESUME, and the
 * instruction runs; EXIT_STOP: a device is there that it would write, or a CPU
 * cannot do it.
 */
enum exit_action exit_lend(struct vcpu *v);
/* Takes back what was lent; behind the instruction, and at a reset. */
void lend_end(struct vcpu *v);

#endif
