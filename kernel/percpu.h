/* SPDX-License-Identifier: MIT */
/*
 * What belongs to one physical CPU. GS.base points at it; VM exits load
 * GS.base from the VMCS, so that percpu() holds in every host context.
 */
#ifndef KERNEL_PERCPU_H
#define KERNEL_PERCPU_H

#include "kernel/cpu_tables.h"

#define CPUS_MAX 64

struct percpu {
	struct percpu *self;
	u32 index;
	u32 apic_id;
	void *stack; /* top */
	struct cpu_tables tables;
	u64 nmis;	/* taken in root mode and not yet passed on */
	u64 interrupts; /* taken in root mode */
	hpa_t vmxon;	/* VMXON region, or 0 */
	u32 vmcs_revision;
	bool parked;
	bool runs_guest; /* its LAPIC is set up, it enters a guest */
	u32 hint;	 /* of its MWAIT while it is parked (boot/park.h) */
	/* What it waits on, on a line of its own: a write wakes it. */
	u8 monitored[64] __attribute__((aligned(64)));
};

static inline struct percpu *percpu(void)
{
	struct percpu *p;

	__asm__("mov %%gs:0, %0" : "=r"(p));
	return p;
}

/* Allocates one, which is percpu_at(index) from then on. NULL: no memory. */
struct percpu *percpu_create(u32 index, u32 apic_id);
/* NULL: there is none; index may be any. */
struct percpu *percpu_at(u32 index);
/* Of the CPUs that run a guest, the one with this APIC ID, or NULL. */
struct percpu *percpu_of_guest(u32 apic_id);
void percpu_load(struct percpu *cpu);

#endif
