/* SPDX-License-Identifier: MIT */
#include "kernel/park.h"

#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "arch/x86/spinlock.h"

enum {
	CPUID_1_ECX_MONITOR = 1u << 3,
	CPUID_1_ECX_EIST = 1u << 7,
	CPUID_5_ECX_HINTS = 1u << 0,
	CPUID_6_EAX_HWP = 1u << 7,
};

/*
 * Where the sub-states are not numbered from 0 on, CPUID 5 leads to a hint
 * that is none: Linux, drivers/idle/intel_idle.c, the last row for each model.
 */
static const struct {
	u32 model; /* CPUID.1:EAX without the stepping */
	u32 hint;
} models[] = {
	{0x30670, 0x64}, /* Bay Trail */
	{0x406c0, 0x64}, /* Cherry Trail, Braswell */
	{0x406d0, 0x51}, /* Avoton */
	{0xa06f0, 0x23}, /* Sierra Forest */
	{0xb0660, 0x22}, /* Grand Ridge */
};

/* CPUID.5:EDX counts sub-states in 4 bits for each of C0 to C7. */
static bool has_state(u32 edx, u32 hint)
{
	return hint < 0x70 && edx >> (hint / 16 + 1) * 4 & 0xf;
}

u32 park_hint(u32 lpit)
{
	u32 model = cpuid(1, 0).eax & ~0xfu, hint = 0;
	struct cpuid r;

	if (!(cpuid(1, 0).ecx & CPUID_1_ECX_MONITOR) || cpuid(0, 0).eax < 5)
		return PARK_HLT;
	r = cpuid(5, 0);
	if (!(r.ecx & CPUID_5_ECX_HINTS))
		return 0;
	if (lpit && has_state(r.edx, lpit))
		return lpit;
	for (unsigned i = 0; i < ARRAY_SIZE(models); i++)
		if (models[i].model == model &&
		    has_state(r.edx, models[i].hint))
			return models[i].hint;
	for (u32 state = 0; state < 0x70; state += 16)
		if (has_state(r.edx, state))
			hint = state + (r.edx >> (state / 16 + 1) * 4 & 0xf) -
			       1;
	return hint;
}

static void ask(struct percpu *cpu, u32 msr, u64 old, u64 value)
{
	cpu->speed_msr = msr;
	cpu->speed = old;
	wrmsr(msr, value);
}

/*
 * What this CPU asks for counts while it is awake, and on some for its
 * sibling: HWP's request where that is on (SDM 15.4.4), else IA32_PERF_CTL
 * (15.1.1) with the lowest ratio that MSR_PLATFORM_INFO names. PERF_STATUS shows
 * in which byte: Nehalem's and Westmere's is the low one (coreboot,
 * model_2065x/acpi.c); with both in use one is a voltage (Silvermont).
 */
static void slow_down(struct percpu *cpu)
{
	u64 on = 0, info, low, status;

	if (cpuid(0, 0).eax >= 6 && cpuid(6, 0).eax & CPUID_6_EAX_HWP)
		(void)rdmsr_safe(MSR_PM_ENABLE, &on);
	if (on & 1) {
		low = rdmsr(MSR_HWP_CAPABILITIES) >> 24 & 0xff;
		on = rdmsr(MSR_HWP_REQUEST);
		/* Minimum and maximum; no desired one, not the package's. */
		ask(cpu, MSR_HWP_REQUEST, on,
		    (on & ~(u64)(0xffffff | BIT(42))) | low << 8 | low);
	} else if (cpuid(1, 0).ecx & CPUID_1_ECX_EIST &&
		   !rdmsr_safe(MSR_PLATFORM_INFO, &info) &&
		   !rdmsr_safe(MSR_PERF_STATUS, &status) &&
		   !(status & 0xff && status & 0xff00)) {
		low = info >> 40 & 0xff;
		/* Not all models have it; none has it above the base ratio. */
		if (low && low <= (info >> 8 & 0xff))
			ask(cpu, MSR_PERF_CTL, rdmsr(MSR_PERF_CTL),
			    status & 0xff ? low : low << 8);
	}
}

void park_begin(struct percpu *cpu)
{
	slow_down(cpu);
	wbinvd();
}

void park_end(struct percpu *cpu)
{
	if (cpu->speed_msr)
		wrmsr(cpu->speed_msr, cpu->speed);
	cpu->speed_msr = 0;
}

void park_sleep(struct percpu *cpu)
{
	/* Some CPUs miss a line that was not flushed: Xeon 7400, AAI65. */
	mfence();
	clflush(cpu->monitored);
	mfence();
	cpu_sleep(cpu->monitored, cpu->hint);
}

void park(struct percpu *cpu)
{
	void (*job)(void *ctx);
	void *ctx;

	park_begin(cpu);
	for (;;) {
		__atomic_store_n(&cpu->attention, 0, __ATOMIC_SEQ_CST);
		job = __atomic_exchange_n(&cpu->job, NULL, __ATOMIC_SEQ_CST);
		if (!job) {
			park_sleep(cpu);
			continue;
		}
		ctx = cpu->job_ctx; /* the next job's, as soon as it is counted */
		__atomic_fetch_add(&cpu->jobs, 1, __ATOMIC_SEQ_CST);
		park_end(cpu);
		job(ctx);
		park_begin(cpu);
	}
}

int park_give_job(struct percpu *cpu, void (*job)(void *ctx), void *ctx,
		  u64 tsc_hz)
{
	u32 before = __atomic_load_n(&cpu->jobs, __ATOMIC_SEQ_CST);

	cpu->job_ctx = ctx;
	__atomic_store_n(&cpu->job, job, __ATOMIC_SEQ_CST);
	percpu_kick(cpu);
	if (spin_until(&cpu->jobs, before + 1, tsc_hz) ||
	    !__atomic_exchange_n(&cpu->job, NULL, __ATOMIC_SEQ_CST))
		return 0;
	return -ETIMEDOUT;
}
