/* SPDX-License-Identifier: MIT */
#include "arch/x86/apic.h"
#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/percpu.h"
#include "kernel/traps.h"

/* The same on every CPU; others are a CPU's own. */
static struct host_irq shared[256];
static u8 owners[256]; /* CPUs that have it for their own */

static bool are_free(const struct percpu *cpu, unsigned first, unsigned count)
{
	for (unsigned n = first; n < first + count; n++)
		if (shared[n].handler ||
		    (cpu ? cpu->irqs[n].handler != NULL : owners[n] != 0))
			return false;
	return true;
}

int host_irq_alloc_block(struct percpu *cpu, unsigned count,
			 host_irq_handler *handler, void *ctx)
{
	unsigned first = (unsigned)ALIGN_UP(HOST_VECTOR_FIRST, count);
	struct host_irq *irqs = cpu ? cpu->irqs : shared;

	while (first + count <= HOST_VECTOR_FREED &&
	       !are_free(cpu, first, count))
		first += count;
	if (first + count > HOST_VECTOR_FREED)
		return -ENOSPC;
	for (unsigned n = first; n < first + count; n++) {
		irqs[n] = (struct host_irq){handler, ctx};
		owners[n] = (u8)(owners[n] + (cpu != NULL));
	}
	return (int)first;
}

int host_irq_alloc(host_irq_handler *handler, void *ctx)
{
	return host_irq_alloc_block(NULL, 1, handler, ctx);
}

/*
 * On the CPU itself, between two interrupts: what has come to it by now has
 * its bit in the IRR, or has been served.
 */
static void give_away(struct percpu *cpu)
{
	for (unsigned i = 0; i < ARRAY_SIZE(cpu->freed_irqs); i++)
		for (u64 left = cpu->freed_irqs[i]; left; left &= left - 1) {
			unsigned bit = (unsigned)__builtin_ctzll(left);

			if (local_apic_is_pending((u8)(64 * i + bit)))
				continue;
			cpu->irqs[64 * i + bit].handler = NULL;
			owners[64 * i + bit]--;
			cpu->freed_irqs[i] &= ~BIT(bit);
		}
}

void host_irq_free(struct percpu *cpu, unsigned vector)
{
	vector &= 255;
	if (!cpu) {
		shared[vector].handler = NULL;
		return;
	}
	cpu->freed_irqs[vector / 64] |= BIT(vector % 64);
	if (cpu == percpu()) {
		give_away(cpu);
		return;
	}
	(void)local_apic_send(cpu->apic_id, APIC_ICR_FIXED | HOST_VECTOR_FREED);
	percpu_kick(cpu); /* it may sleep, with interrupts off */
}

/* One that was on its way when it was freed, or a device without remapping
 * that raises what it likes: not a line for each. */
static void stray(unsigned vector)
{
	static u64 strays;

	strays++;
	if (!(strays & (strays - 1)))
		log_warn("interrupt at vector 0x%x, which nobody asked for "
			 "(%lu such)",
			 vector, strays);
}

void host_irq_dispatch(unsigned vector)
{
	struct percpu *cpu = percpu();
	const struct host_irq *irq;

	vector &= 255;
	irq = shared[vector].handler ? &shared[vector] : &cpu->irqs[vector];
	if (vector == HOST_VECTOR_SPURIOUS) /* SDM 10.9: no EOI */
		return;
	if (irq->handler)
		irq->handler(irq->ctx, vector);
	else if (vector < HOST_VECTOR_FREED)
		stray(vector);
	local_apic_eoi();
	if (vector != HOST_VECTOR_TIMER)
		give_away(cpu);
}
