/* SPDX-License-Identifier: MIT */
#include "arch/x86/apic.h"
#include "arch/x86/io.h"
#include "kernel/percpu.h"

void percpu_kick(struct percpu *cpu)
{
	if (cpu == percpu())
		cpu->attention = 1;
	else if (!__atomic_exchange_n(&cpu->kicked, true, __ATOMIC_SEQ_CST))
		(void)local_apic_send(cpu->apic_id, APIC_ICR_NMI);
}

void percpu_nmi(struct percpu *cpu)
{
	if (!__atomic_exchange_n(&cpu->kicked, false, __ATOMIC_SEQ_CST))
		cpu->nmis++;
	cpu->attention = 1;
}
