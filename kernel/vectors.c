/* SPDX-License-Identifier: MIT */
#include "arch/x86/apic.h"
#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/traps.h"

static struct {
	host_irq_handler *handler;
	void *ctx;
} handlers[256];

static bool are_free(unsigned first, unsigned count)
{
	for (unsigned n = first; n < first + count; n++)
		if (handlers[n].handler)
			return false;
	return true;
}

int host_irq_alloc_block(unsigned count, host_irq_handler *handler, void *ctx)
{
	unsigned first = (unsigned)ALIGN_UP(HOST_VECTOR_FIRST, count);

	while (first + count <= HOST_VECTOR_TIMER && !are_free(first, count))
		first += count;
	if (first + count > HOST_VECTOR_TIMER)
		return -ENOSPC;
	for (unsigned n = first; n < first + count; n++) {
		handlers[n].handler = handler;
		handlers[n].ctx = ctx;
	}
	return (int)first;
}

int host_irq_alloc(host_irq_handler *handler, void *ctx)
{
	return host_irq_alloc_block(1, handler, ctx);
}

void host_irq_free(unsigned vector)
{
	handlers[vector & 255].handler = NULL;
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
	vector &= 255;
	if (vector == HOST_VECTOR_SPURIOUS) /* SDM 10.9: no EOI */
		return;
	if (handlers[vector].handler)
		handlers[vector].handler(handlers[vector].ctx, vector);
	else if (vector != HOST_VECTOR_TIMER)
		stray(vector);
	local_apic_eoi();
}
