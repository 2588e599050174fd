/* SPDX-License-Identifier: MIT */
/*
 * Traps and interrupts of the host. Exceptions are Monocle's own faults: a
 * dump and the end. NMIs are counted for the guest. Host interrupts normally
 * arrive as VM exits; host_irq_dispatch() serves both ways.
 */
#ifndef KERNEL_TRAPS_H
#define KERNEL_TRAPS_H

#include "arch/x86/types.h"

/* What the stubs of traps.asm build on the stack (SDM 6.14). */
struct trap_frame {
	u64 rax, rcx, rdx, rbx, rbp, rsi, rdi;
	u64 r8, r9, r10, r11, r12, r13, r14, r15;
	u64 vector, error;
	u64 rip, cs, rflags, rsp, ss;
};

void trap_handle(struct trap_frame *frame);

#define HOST_VECTOR_FIRST 0x30 /* below: exceptions and the 8259s' range */
#define HOST_VECTOR_FREED 0xfd /* a CPU looks whether its freed ones are */
#define HOST_VECTOR_TIMER 0xfe /* the local APIC's: ends the guest's run */
#define HOST_VECTOR_SPURIOUS 0xff

typedef void host_irq_handler(void *ctx, unsigned vector);

/* Who serves a vector. */
struct host_irq {
	host_irq_handler *handler; /* NULL: nobody */
	void *ctx;
};

_Static_assert(256 * sizeof(struct host_irq) == 4096, "one page");

struct percpu;

/*
 * A free vector for a handler, whichever CPU it comes to, or -ENOSPC. Vectors
 * are given and freed by one CPU at a time, which keeps others from dispatching
 * any but the timer's meanwhile.
 */
int host_irq_alloc(host_irq_handler *handler, void *ctx);
/*
 * count vectors in a row of this CPU's own, or (cpu NULL) the same on every
 * CPU, the first a multiple of count (a power of two), as a multi-message MSI
 * wants them; they share handler and ctx. -ENOSPC.
 */
int host_irq_alloc_block(struct percpu *cpu, unsigned count,
			 host_irq_handler *handler, void *ctx);
/*
 * With the cpu as above. One that is on its way to a CPU's own vector still
 * comes to its handler; the vector is given away when there is none.
 */
void host_irq_free(struct percpu *cpu, unsigned vector);
/* Runs the vector's handler, then the local APIC's EOI. */
void host_irq_dispatch(unsigned vector);

#endif
