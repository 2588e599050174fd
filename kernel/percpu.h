/* SPDX-License-Identifier: MIT */
/*
 * What belongs to one physical CPU. GS.base points at it; VM exits load
 * GS.base from the VMCS, so that percpu() holds in every host context.
 */
#ifndef KERNEL_PERCPU_H
#define KERNEL_PERCPU_H

#include "kernel/cpu_tables.h"

#define CPUS_MAX 64

struct host_irq;

struct percpu {
	struct percpu *self;
	u32 index;
	u32 apic_id;
	void *stack; /* top */
	/*
	 * Not 0: an NMI came, or it has told itself: it looks around before it
	 * enters the guest or sleeps. vmx_enter() and cpu_sleep() see to it.
	 */
	u32 attention;
	bool kicked; /* an NMI is on its way that says no more than that */
	struct cpu_tables tables;
	u64 nmis; /* others, not yet passed on */
	/* vmx_enter()'s code: an NMI there has the CPU go on at `out`. */
	struct nmi_window {
		u64 first, last, out;
	} entry;
	u64 interrupts;	       /* taken in root mode */
	struct host_irq *irqs; /* of its own: 256, kernel/traps.h */
	u64 freed_irqs[4];     /* bit n: n is free once none is pending */
	hpa_t vmxon;	       /* VMXON region, or 0 */
	u32 vmcs_revision;
	bool parked;
	bool runs_guest; /* its LAPIC is set up, it enters a guest */
	u32 hint;	 /* of its MWAIT while it is parked (kernel/park.h) */
	u32 speed_msr;	 /* what asks for its speed, 0: nothing */
	u64 speed;	 /* that MSR while it was awake */
	void (*job)(void *ctx); /* what it is to do: park_give_job() */
	void *job_ctx;
	u32 jobs; /* that it has taken */
	/* What its MWAIT watches, on a line of its own; nobody writes it. */
	u8 monitored[64] __attribute__((aligned(64)));
};

_Static_assert(offsetof(struct percpu, attention) == 24, "entry.asm, cpu.asm");

static inline struct percpu *percpu(void)
{
	struct percpu *p;

	__asm__("mov %%gs:0, %0" : "=r"(p));
	return p;
}

/* Allocates one, which is percpu_at(index) from then on; percpu_load() is that
 * CPU's own. NULL: no memory. */
struct percpu *percpu_create(u32 index, u32 apic_id);
/* NULL: there is none; index may be any. */
struct percpu *percpu_at(u32 index);
/* Of the CPUs that run a guest, the one with this APIC ID, or NULL. */
struct percpu *percpu_of_guest(u32 apic_id);
void percpu_load(struct percpu *cpu);
/*
 * Has a CPU look around before its next instruction in a guest, and wakes it;
 * from any CPU. An NMI does that whatever the guest's IF says, and one at most
 * is on its way to each CPU.
 */
void percpu_kick(struct percpu *cpu);
/* An NMI has come, in root mode or by an exit. */
void percpu_nmi(struct percpu *cpu);

#endif
