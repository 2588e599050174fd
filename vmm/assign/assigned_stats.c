/* SPDX-License-Identifier: MIT */
/* What is counted of each assigned function. */
#include "kernel/log.h"
#include "vmm/assign/assigned.h"

static u64 faults(const struct assigned *a)
{
	return a->all->vtd ? vtd_fault_count(a->all->vtd, a->function->bdf) : 0;
}

void assigned_stats_reset(struct assigned *a)
{
	a->stats = (struct device_stats){.bdf = a->function->bdf};
	a->config.accesses = 0;
	a->old_faults = faults(a);
}

bool assigned_stats(void *assignment, unsigned n, struct device_stats *out)
{
	const struct assignment *all = assignment;
	const struct assigned *a = &all->functions[n];

	if (n >= all->count)
		return false;
	*out = a->stats;
	out->config = a->config.accesses;
	out->faults = faults(a) - a->old_faults;
	return true;
}

void assigned_stats_log(struct assignment *all)
{
	struct device_stats s;

	for (unsigned n = 0; assigned_stats(all, n, &s); n++)
		log_info("stats: %02x:%02x.%x: exits: %lu configuration, %lu "
			 "MMIO, %lu ports; %lu interrupts, %lu storms, %lu "
			 "faults",
			 BDF_ARGS(s.bdf), s.config, s.mmio, s.ports,
			 s.interrupts, s.storms, s.faults);
}
