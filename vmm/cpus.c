/* SPDX-License-Identifier: MIT */
#include "vmm/cpus.h"

#include "arch/x86/cpu.h"
#include "arch/x86/io.h"
#include "arch/x86/spinlock.h"
#include "kernel/log.h"
#include "kernel/microcode.h"
#include "kernel/park.h"

enum {
	MSR_TSC_ADJUST = 0x3b,
	MSR_MTRRCAP = 0xfe,
	MSR_MTRR_PHYSBASE0 = 0x200,
	MSR_MTRR_DEF_TYPE = 0x2ff,
	CPUID_1_EDX_MTRR = 1u << 12,
	CPUID_7_EBX_TSC_ADJUST = 1u << 1,
	ROUNDS = 10000, /* of two CPUs that read the TSC in turn: some ms */
	TRIES = 3,
};

/* What one CPU says of itself. */
struct facts {
	const struct vmx_capabilities *vmx; /* the first one's */
	const char *vmx_objection;
	const char *objection; /* why it stays parked; NULL: it does not */
	struct cpuid leaves[GUEST_COMMON];
	u64 mtrrs, pat, xcr0;
	u32 signature, microcode;
	u8 physical_bits;
	unsigned done;
};

/* One number for all of them: SDM 11.11. */
static u64 sum_of_mtrrs(void)
{
	static const u16 fixed[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
				    0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
	u64 cap, sum;

	if (!(cpuid(1, 0).edx & CPUID_1_EDX_MTRR))
		return 0;
	cap = rdmsr(MSR_MTRRCAP);
	sum = rdmsr(MSR_MTRR_DEF_TYPE);
	for (u32 n = 0; n < 2 * MIN(cap & 0xff, 32u); n++)
		sum = sum * 31 + rdmsr(MSR_MTRR_PHYSBASE0 + n);
	for (unsigned i = 0; cap & BIT(8) && i < ARRAY_SIZE(fixed); i++)
		sum = sum * 31 + rdmsr(fixed[i]);
	return sum;
}

static void examine(void *facts)
{
	struct facts *f = facts;

	f->vmx_objection = vmx_objection(f->vmx);
	guest_features_read(f->leaves);
	f->mtrrs = sum_of_mtrrs();
	f->pat = rdmsr(MSR_PAT);
	if (cpuid(1, 0).ecx & BIT(26)) /* XSAVE */
		f->xcr0 = cpuid(0xd, 0).eax;
	f->signature = cpuid(1, 0).eax;
	f->microcode = microcode_revision();
	f->physical_bits = (u8)cpuid(0x80000008, 0).eax;
	__atomic_store_n(&f->done, 1, __ATOMIC_RELEASE);
}

static const char *objection(const struct facts *f, const struct facts *first,
			     const struct guest_features *features)
{
	if (f->vmx_objection)
		return f->vmx_objection;
	if (f->physical_bits < first->physical_bits)
		return "it has fewer physical address bits than the first one";
	if (features->xcr0_allowed & ~f->xcr0)
		return "it has fewer XSAVE components than the first one";
	return NULL;
}

#define NO_ANSWER (~0ull)

/* Two CPUs that read the TSC in turn, one of which may go back. */
struct turns {
	struct spinlock lock;
	u64 last;
	u64 back[2]; /* how far, at most, as each has seen it */
	s64 adjust;  /* what the other one adds to its TSC before */
	unsigned arrived, done;
	u64 tsc_hz;
};

/* Each for a second at most: one that has the lock may be asleep, where Monocle
 * itself is a guest, or hang. */
static void take_turns(struct turns *t, unsigned who)
{
	u64 start = rdtsc();

	__atomic_fetch_add(&t->arrived, 1, __ATOMIC_ACQ_REL);
	if (!spin_until(&t->arrived, 2, t->tsc_hz))
		return;
	for (int i = 0; i < ROUNDS; i++) {
		u64 last;

		while (!spin_trylock(&t->lock)) {
			if (rdtsc() - start > t->tsc_hz)
				return;
			cpu_relax();
		}
		last = t->last;
		lfence(); /* SDM 2, RDTSC: not before what is above */
		t->last = rdtsc();
		lfence();
		if (last > t->last)
			t->back[who] = MAX(t->back[who], last - t->last);
		spin_unlock(&t->lock);
		cpu_relax(); /* the other one's turn */
	}
}

static void other_side(void *turns)
{
	struct turns *t = turns;

	if (t->adjust)
		wrmsr(MSR_TSC_ADJUST, rdmsr(MSR_TSC_ADJUST) + (u64)t->adjust);
	take_turns(t, 1);
	__atomic_store_n(&t->done, 1, __ATOMIC_RELEASE);
}

/*
 * By how much the CPU's TSC is behind or ahead; 0: in step, by TSC_ADJUST
 * (SDM 17.17.3) where need be and the CPU has it. NO_ANSWER: it does not come.
 */
static u64 out_of_step(struct percpu *cpu, const struct facts *f, u64 tsc_hz)
{
	bool can_adjust = f->leaves[GUEST_LEAF_7].ebx & CPUID_7_EBX_TSC_ADJUST;
	static struct turns t; /* a CPU that is late finds it still */

	t = (struct turns){.tsc_hz = tsc_hz};
	for (int tries = 0;; tries++) {
		t.lock = (struct spinlock){0};
		t.last = t.back[0] = t.back[1] = 0;
		t.arrived = t.done = 0;
		if (park_give_job(cpu, other_side, &t, tsc_hz))
			return NO_ANSWER;
		take_turns(&t, 0);
		if (!spin_until(&t.done, 1, tsc_hz))
			return NO_ANSWER;
		if (!(t.back[0] | t.back[1]))
			return 0;
		if (tries == TRIES || !can_adjust)
			return MAX(t.back[0], t.back[1]);
		/* Behind, if it sees itself read less than was read before. */
		t.adjust = t.back[1] ? (s64)t.back[1] : -(s64)t.back[0];
	}
}

/* What firmware should have made equal. */
static void compare(const struct facts *all, unsigned count)
{
	unsigned types = 0, microcode = 0;

	for (unsigned i = 1; i <= count; i++) {
		unsigned same = 0;

		if (all[i].objection)
			continue;

		types += all[i].mtrrs != all[0].mtrrs ||
			 all[i].pat != all[0].pat;
		while (all[same].objection ||
		       all[same].signature != all[i].signature)
			same++;
		microcode += all[i].microcode != all[same].microcode;
	}
	if (types)
		log_warn("firmware has set the MTRRs or the PAT of %u CPUs "
			 "otherwise than the first one's",
			 types);
	if (microcode)
		log_warn("%u CPUs have another microcode than others of their "
			 "kind; a module 'microcode' makes it one",
			 microcode);
}

static void log_out_of_step(const struct percpu *cpu, u64 ticks)
{
	if (ticks == NO_ANSWER)
		log_warn("the guest has one CPU: the CPU with APIC ID 0x%x "
			 "does not answer any more",
			 cpu->apic_id);
	else
		log_warn("the guest has one CPU: the time-stamp counter of the "
			 "CPU with APIC ID 0x%x is not in step with the first "
			 "one's (%lu ticks), and does not let itself be set",
			 cpu->apic_id, ticks);
}

unsigned cpus_choose(struct percpu *cpus[CPUS_MAX], unsigned count, u64 most,
		     const struct vmx_capabilities *vmx,
		     struct guest_features *features, u64 tsc_hz)
{
	static struct facts all[CPUS_MAX]; /* the first: the calling CPU's */
	unsigned i, n = 0;

	all[0] = (struct facts){.vmx = vmx};
	examine(&all[0]);
	for (i = 0; i < count && n + 1 < most; i++) {
		struct facts *f = &all[i + 1];
		u64 ticks = 0;

		*f = (struct facts){.vmx = vmx};
		f->objection = "it does not answer";
		if (!park_give_job(cpus[i], examine, f, tsc_hz) &&
		    spin_until(&f->done, 1, tsc_hz))
			f->objection = objection(f, &all[0], features);
		if (!f->objection)
			ticks = out_of_step(cpus[i], f, tsc_hz);
		if (ticks) {
			log_out_of_step(cpus[i], ticks);
			return 0;
		}
		if (f->objection)
			log_warn("the CPU with APIC ID 0x%x stays parked: %s",
				 cpus[i]->apic_id, f->objection);
		else
			cpus[n++] = cpus[i];
	}
	compare(all, i);
	for (; i; i--)
		if (!all[i].objection)
			guest_features_limit(features, all[0].leaves,
					     all[i].leaves);
	return n;
}
