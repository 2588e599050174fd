/* SPDX-License-Identifier: MIT */
#include "vmm/core/stats.h"

#include "kernel/log.h"

static const char *const names[STATS_REASONS] = {
	[0] = "exception or NMI",
	[1] = "external interrupt",
	[2] = "triple fault",
	[3] = "INIT",
	[4] = "SIPI",
	[7] = "interrupt window",
	[8] = "NMI window",
	[9] = "task switch",
	[10] = "CPUID",
	[11] = "GETSEC",
	[12] = "HLT",
	[13] = "INVD",
	[15] = "RDPMC",
	[18] = "VMCALL",
	[19] = "VMCLEAR",
	[20] = "VMLAUNCH",
	[21] = "VMPTRLD",
	[22] = "VMPTRST",
	[23] = "VMREAD",
	[24] = "VMRESUME",
	[25] = "VMWRITE",
	[26] = "VMXOFF",
	[27] = "VMXON",
	[28] = "control register",
	[30] = "I/O",
	[31] = "RDMSR",
	[32] = "WRMSR",
	[33] = "invalid guest state",
	[34] = "MSR loading",
	[36] = "MWAIT",
	[37] = "monitor trap",
	[39] = "MONITOR",
	[43] = "TPR below threshold",
	[45] = "EOI",
	[41] = "machine check at entry",
	[48] = "EPT violation",
	[49] = "EPT misconfiguration",
	[50] = "INVEPT",
	[52] = "preemption timer",
	[53] = "INVVPID",
	[54] = "WBINVD",
	[55] = "XSETBV",
	[56] = "APIC write",
	[75] = "notify",
};

const char *exit_reason_name(u32 reason)
{
	if (reason < STATS_REASONS && names[reason])
		return names[reason];
	return "unknown";
}

void stats_total(struct stats *s)
{
	s->ticks = s->exits = 0;
	for (u32 i = 0; i < STATS_REASONS; i++) {
		s->exits += s->reasons[i].count;
		s->ticks += s->reasons[i].ticks;
	}
}

void stats_add(struct stats *sum, const struct stats *one)
{
	sum->tsc_hz = one->tsc_hz;
	sum->start = one->start;
	sum->ticks += one->ticks;
	sum->exits += one->exits;
	sum->vcpus++;
	for (u32 i = 0; i < STATS_REASONS; i++) {
		sum->reasons[i].count += one->reasons[i].count;
		sum->reasons[i].ticks += one->reasons[i].ticks;
	}
}

/* How many exits, and Monocle's share of the time of all vCPUs. */
static void log_share(const char *whose, const struct stats *s, u64 now)
{
	u64 all = (now - s->start) * MAX(s->vcpus, 1ull);
	/* Hundredths of a percent. */
	u64 share = all >= 10000 ? s->ticks / (all / 10000) : 0;

	log_info("stats: %s%lu exits, %lu of %lu ticks in Monocle (%lu.%02lu "
		 "%%)",
		 whose, s->exits, s->ticks, all, share / 100, share % 100);
}

void stats_log_vcpu(const struct stats *s, u32 apic_id, u64 now)
{
	char whose[32];

	format(whose, sizeof(whose), "CPU 0x%x: ", apic_id);
	log_share(whose, s, now);
}

void stats_log(const struct stats *s, u64 now)
{
	log_share("", s, now);
	if (s->vcpus > 1)
		log_info("stats: the devices' lock: %lu spins, held for %lu "
			 "ticks at most",
			 s->spins, s->longest_hold);
	for (u32 i = 0; i < STATS_REASONS; i++) {
		const struct exit_count *c = &s->reasons[i];

		if (c->count)
			log_info(
				"stats: %-22s %9lu exits %12lu ticks %6lu each",
				exit_reason_name(i), c->count, c->ticks,
				c->ticks / c->count);
	}
}
