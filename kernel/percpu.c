/* SPDX-License-Identifier: MIT */
#include "kernel/percpu.h"

#include "kernel/host_paging.h"
#include "kernel/phys.h"

_Static_assert(sizeof(struct percpu) <= PAGE_SIZE, "one page");

static struct percpu *cpus[CPUS_MAX];

struct percpu *percpu_create(u32 index, u32 apic_id)
{
	struct percpu *cpu = page_alloc();

	if (!cpu)
		return NULL;
	cpu->self = cpu;
	cpu->index = index;
	cpu->apic_id = apic_id;
	cpu->irqs = page_alloc();
	cpu->stack = stack_alloc();
	for (unsigned i = 0; i < IST_COUNT - 1; i++) {
		void *stack = stack_alloc();

		if (!stack)
			return NULL;
		cpu->tables.tss.ist[i] = (u64)stack;
	}
	if (!cpu->irqs || !cpu->stack || index >= CPUS_MAX)
		return NULL;
	cpus[index] = cpu;
	return cpu;
}

struct percpu *percpu_at(u32 index)
{
	return index < CPUS_MAX ? cpus[index] : NULL;
}

struct percpu *percpu_of_guest(u32 apic_id)
{
	for (unsigned i = 0; i < CPUS_MAX; i++)
		if (cpus[i] && cpus[i]->runs_guest &&
		    cpus[i]->apic_id == apic_id)
			return cpus[i];
	return NULL;
}

void percpu_load(struct percpu *cpu)
{
	cpu_tables_load(&cpu->tables, cpu);
}
