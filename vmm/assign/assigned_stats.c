/* SPDX-License-Identifier: MIT */
/* What is counted of each assigned function. */
#include "kernel/log.h"
#include "vmm/machine.h"

static u64 faults(const struct assigned *a)
{
	const struct host *host = a->machine->host;

	return host->has_vtd ? vtd_fault_count(&host->vtd, a->function->bdf)
			     : 0;
}

void assigned_stats_reset(struct assigned *a)
{
	a->stats = (struct device_stats){.bdf = a->function->bdf};
	a->config.accesses = 0;
	a->old_faults = faults(a);
}

bool assigned_stats(void *machine, unsigned n, struct device_stats *out)
{
	const struct machine *m = machine;
	const struct assigned *a = &m->assigned[n];

	if (n >= m->assigned_count)
		return false;
	*out = a->stats;
	out->config = a->config.accesses;
	out->faults = faults(a) - a->old_faults;
	return true;
}

void assigned_stats_log(struct machine *m)
{
	struct device_stats s;

	for (unsigned n = 0; assigned_stats(m, n, &s); n++)
		log_info("stats: %02x:%02x.%x: exits: %lu configuration, %lu "
			 "MMIO, %lu ports; %lu interrupts, %lu storms, %lu "
			 "faults",
			 BDF_ARGS(s.bdf), s.config, s.mmio, s.ports,
			 s.interrupts, s.storms, s.faults);
}
