# SPDX-License-Identifier: MIT
"""Which CPUs run a guest together: machines whose CPUs are not all alike, or
not in step, as SDM volumes 2 and 3 let them be. The TSC is a count of its
reads, and a parked CPU that measures it a thread."""

import pytest

import vmxcpu
from mutants import variant

FAKES = """
#include <pthread.h>
#include <sched.h>

#define wrmsr table_wrmsr
#define rdmsr table_rdmsr
#include "tests/unit/vmx_fakes.c"
#undef wrmsr
#undef rdmsr
#include "kernel/microcode.h"
#include "kernel/park.h"
#include "vmm/cpus.h"

struct percpu machine[64];
void (*becomes)(u32 apic_id); /* the tables are that CPU's */
s64 offsets[64];	      /* of each one's TSC */
u32 revisions[64], deaf, deaf_later;
static __thread u32 here;
static bool asked[64];
static pthread_t thread;
static bool runs;

u32 microcode_revision(void)
{
	return revisions[here];
}

u64 rdtsc(void)
{
	static u64 reads;

	return 1000000 + __atomic_fetch_add(&reads, 1, __ATOMIC_SEQ_CST) +
	       (u64)offsets[here];
}

static unsigned turns[2];

void lfence(void)
{
	__atomic_fetch_add(&turns[!!here], 1, __ATOMIC_SEQ_CST);
}

/* Neither gets far ahead of the other one, as on CPUs of their own. */
void cpu_relax(void)
{
	volatile unsigned *all = turns;

	for (int i = 0; i < 50; i++) {
		sched_yield();
		if (all[!!here] < all[!here] + 8)
			return;
	}
}

u64 rdmsr(u32 msr)
{
	return msr == 0x3b ? 77 : table_rdmsr(msr);
}

/* IA32_TSC_ADJUST moves the TSC by as much (SDM 17.17.3). */
void wrmsr(u32 msr, u64 value)
{
	if (msr != 0x3b)
		abort();
	offsets[here] += (s64)(value - 77);
}

struct job {
	void (*job)(void *ctx);
	void *ctx;
	u32 where;
};

static void *work(void *arg)
{
	struct job *j = arg;

	here = j->where;
	j->job(j->ctx);
	return NULL;
}

void work_ends(void)
{
	if (runs)
		pthread_join(thread, NULL);
	runs = false;
}

/* The first job of each is to say what it has. */
int park_give_job(struct percpu *cpu, void (*job)(void *ctx), void *ctx,
		  u64 tsc_hz)
{
	static struct job j;

	(void)tsc_hz;
	if (cpu->apic_id == deaf ||
	    (cpu->apic_id == deaf_later && asked[cpu->index]))
		return -ETIMEDOUT;
	work_ends();
	j = (struct job){job, ctx, cpu->index};
	if (asked[cpu->index]) {
		turns[0] = turns[1] = 0;
		pthread_create(&thread, NULL, work, &j);
		runs = true;
		return 0;
	}
	asked[cpu->index] = true;
	becomes(cpu->apic_id);
	work(&j);
	here = 0;
	becomes(~0u);
	return 0;
}

void forget(void)
{
	memset(asked, 0, sizeof(asked));
	memset(offsets, 0, sizeof(offsets));
}
"""
CDEF = """
extern struct percpu machine[64];
extern void (*becomes)(u32 apic_id);
extern s64 offsets[64];
extern u32 revisions[64], deaf, deaf_later;
void work_ends(void);
void forget(void);
"""
HZ = 20_000_000
XSAVE, MTRR, AVX2, SMEP, ADJUST = 1 << 26, 1 << 12, 1 << 5, 1 << 7, 1 << 1


# A thread that waits for its turn gives the other one its time slice.
FEWER = ("ROUNDS = 10000", "ROUNDS = 300")


@pytest.fixture(scope="module")
def m():
    source = variant("vmm/cpus.c", FEWER)
    return vmxcpu.harness.build(
        "cpus", [source, "vmm/vcpu/guest_cpuid.c", "arch/x86/vmx/probe.c"],
        headers=["vmm/cpus.h", "kernel/log.h", *vmxcpu.HEADERS], fakes=FAKES,
        cdef=CDEF)


class Machine:
    """CPUs alike; change[apic_id](cpu) makes one of them another."""

    def __init__(self, m, count=4, change=(), most=64, deaf=0xffffffff,
                 offsets=(), revisions=(), adjust=True, deaf_later=0xffffffff):
        self.m, self.change, self.adjust = m, dict(change), adjust
        m.forget()
        m.lib.deaf, m.lib.deaf_later = deaf, deaf_later
        self.ids = [0x10 + 2 * n for n in range(count)]
        for n, ident in enumerate(self.ids):
            m.machine[n] = {"index": n, "apic_id": ident}
            m.revisions[n] = dict(revisions).get(ident, 0x20)
            m.offsets[n] = dict(offsets).get(ident, 0)
        m.lib.becomes = m.callback("void(*)(u32)", self.becomes)
        self.becomes(0xffffffff)
        self.vmx = m.new("struct vmx_capabilities *")
        assert m.vmx_probe(self.vmx) == 0
        self.features = m.new("struct guest_features *")
        m.guest_features_init(self.features, self.vmx.cpu2)
        cpus = m.new("struct percpu *[64]", [
            m.ffi.addressof(m.machine[n]) for n in range(1, count)])
        n = m.cpus_choose(cpus, count - 1, most, self.vmx, self.features, HZ)
        m.work_ends()
        self.chosen = [cpus[i].apic_id for i in range(n)]
        self.lines = [text for _, text in m.log_lines()]

    def becomes(self, ident):
        m = self.m
        cpu = vmxcpu.skylake(m)
        cpu.cpuid(0, eax=0x16)
        cpu.cpuid(1, eax=0x506e3, ecx=1 << 5 | XSAVE, edx=MTRR)
        cpu.cpuid(7, ebx=AVX2 | SMEP | ADJUST * self.adjust)
        cpu.cpuid(0xd, eax=7)
        cpu.cpuid(0xd, 1, eax=0xf)
        cpu.cpuid(0x80000001, ecx=1 << 5, edx=1 << 20 | 1 << 26)
        cpu.set_msr(m.MSR_PAT, 0x0007040600070406)
        cpu.set_msr(0xfe, 0x508)        # 8 of variable size, and fixed ones
        cpu.set_msr(0x2ff, 0xc06)
        cpu.set_msr(0x201, 0xf000_0800)
        cpu.set_msr(0x26f, 0x0606060606060606)
        if ident in self.change:
            self.change[ident](cpu)

    def see(self, leaf, subleaf=0):
        ctx = self.m.new("struct cpuid_context *", {"features": self.features})
        return self.m.guest_cpuid(ctx, leaf, subleaf)


def test_all_alike(m):
    x = Machine(m, 64)
    assert x.chosen == x.ids[1:] and x.lines == []
    assert x.see(7).ebx == AVX2 | SMEP and x.see(0xd).eax == 7


@pytest.mark.parametrize("most", [1, 2, 3])
def test_at_most(m, most):
    """Those beyond are not even asked."""
    x = Machine(m, 4, most=most, deaf=0x16, change={0x16: lambda cpu: 1 / 0})
    assert x.chosen == x.ids[1:most] and x.lines == []


def msr(name, change):
    return lambda cpu: cpu.set_msr(getattr(cpu.m, name), change(
        vmxcpu.CAPABILITIES[name]))


def xcr0(cpu):
    cpu.cpuid(0xd, eax=3)


@pytest.mark.parametrize("change, why", [
    (lambda cpu: cpu.cpuid(1, eax=0x506e3, ecx=XSAVE, edx=MTRR), "no VMX"),
    (msr("MSR_FEATURE_CONTROL", lambda v: 1), "locked VMX off"),
    (msr("MSR_VMX_BASIC", lambda v: v + 1), "revision"),
    # A control that must be 1 there, one that may not.
    (msr("MSR_VMX_TRUE_PINBASED", lambda v: v | 0x80), "controls"),
    (msr("MSR_VMX_TRUE_PROCBASED", lambda v: v & ~(1 << 60)), "controls"),
    (msr("MSR_VMX_PROCBASED2", lambda v: v & ~(1 << 37)), "controls"),
    (msr("MSR_VMX_TRUE_EXIT", lambda v: v & ~(1 << 53)), "controls"),
    (msr("MSR_VMX_TRUE_ENTRY", lambda v: v & ~(1 << 47)), "controls"),
    (msr("MSR_VMX_CR4_FIXED1", lambda v: v & ~(1 << 20)), "CR0 or CR4"),
    (msr("MSR_VMX_CR0_FIXED0", lambda v: v | 1 << 16), "CR0 or CR4"),
    (msr("MSR_VMX_EPT_VPID", lambda v: v & ~(1 << 17)), "EPT"),
    (msr("MSR_VMX_MISC", lambda v: v ^ 3), "preemption timer"),
    (lambda cpu: cpu.cpuid(0x80000008, eax=38), "physical address bits"),
    (xcr0, "XSAVE components"),
])
def test_one_that_can_do_less(m, change, why):
    """It stays parked, with a line; what it lacks else is no matter."""
    def less(cpu):
        cpu.cpuid(7)
        change(cpu)
    x = Machine(m, 4, change={0x14: less}, offsets={0x14: -10**6})
    assert x.chosen == [0x12, 0x16]
    assert len(x.lines) == 1 and "ID 0x14 stays parked" in x.lines[0]
    assert why in x.lines[0] and x.see(7).ebx == AVX2 | SMEP


def test_one_that_can_do_more(m):
    def more(cpu):
        msr("MSR_VMX_EPT_VPID", lambda v: v | 1 << 22)(cpu)
        msr("MSR_VMX_TRUE_PINBASED", lambda v: v | 1 << 39)(cpu)
        msr("MSR_FEATURE_CONTROL", lambda v: 0)(cpu)     # left open
        cpu.cpuid(0x80000008, eax=46)
        cpu.cpuid(0xd, eax=0xe7)
        cpu.cpuid(7, ebx=0xffffffff)
    x = Machine(m, 3, change={0x12: more})
    assert x.chosen == [0x12, 0x14] and x.lines == []
    assert x.see(7).ebx == AVX2 | SMEP


def test_one_that_does_not_answer(m):
    x = Machine(m, 4, deaf=0x12)
    assert x.chosen == [0x14, 0x16] and "not answer" in x.lines[0]


def test_one_that_answers_no_more(m):
    """It may hang anywhere: nothing is shared with it from then on."""
    x = Machine(m, 4, deaf_later=0x14)
    assert x.chosen == [] and len(x.lines) == 1
    assert "ID 0x14 does not answer any more" in x.lines[0]


def test_features_are_those_that_all_have(m):
    """And the bits of CR4 and XCR0 that hang on them."""
    def one(cpu):
        cpu.cpuid(7, ebx=AVX2 | ADJUST)                     # no SMEP
        cpu.cpuid(0x80000001, ecx=0, edx=1 << 20)           # no 1 GiB, LZCNT
    def two(cpu):
        cpu.cpuid(0xd, 1, eax=1)
        cpu.cpuid(7, ebx=SMEP | ADJUST)
    before = Machine(m, 2)
    x = Machine(m, 4, change={0x12: one, 0x16: two})
    assert x.chosen == [0x12, 0x14, 0x16] and x.lines == []
    assert x.see(7).ebx == 0 and x.see(0xd, 1).eax == 1
    assert before.features.cr4_allowed ^ x.features.cr4_allowed == 1 << 20
    assert x.see(0x80000001).ecx == 0 and x.see(0x80000001).edx == 1 << 20
    assert x.features.xcr0_allowed == 7 and x.see(1).eax == 0x506e3


def test_no_xsave_on_one(m):
    """Then there are none of its components, and it is not that they lack."""
    x = Machine(m, 2, change={0xffffffff: lambda cpu: cpu.cpuid(
        1, eax=0x506e3, ecx=1 << 5, edx=MTRR)})
    assert x.chosen == [0x12] and x.features.xcr0_allowed == 0


@pytest.mark.parametrize("change", [
    lambda cpu: cpu.set_msr(0x277, 0x0007040600070405),
    *(lambda cpu, n=n: cpu.set_msr(n, 0x123) for n in (
        0xfe, 0x2ff, *range(0x200, 0x210), 0x250, 0x258, 0x259,
        *range(0x268, 0x270)))])
def test_memory_types_that_differ(m, change):
    """Each MTRR counts: of variable size, as many as there are, and fixed."""
    x = Machine(m, 4, change={0x12: change, 0x16: change})
    assert x.chosen == x.ids[1:]
    assert len(x.lines) == 1 and "PAT of 2 CPUs" in x.lines[0]


def test_microcode_that_differs(m):
    """Within a kind of CPUs."""
    kind = lambda cpu: cpu.cpuid(1, eax=0xb06a2, ecx=1 << 5 | XSAVE, edx=MTRR)
    x = Machine(m, 6, change={0x14: kind, 0x16: kind, 0x18: kind},
                revisions={0x14: 0x30, 0x16: 0x30, 0x18: 0x31, 0x1a: 0x21})
    assert x.chosen == x.ids[1:]
    assert len(x.lines) == 1 and "2 CPUs have another microcode" in x.lines[0]


@pytest.mark.parametrize("offset", [-10**6, -5000, 5000, 10**12])
def test_time_out_of_step(m, offset):
    """TSC_ADJUST makes it one time, to less than one CPU's turn; without it
    there is one CPU."""
    x = Machine(m, 3, offsets={0x14: offset})
    assert x.chosen == [0x12, 0x14] and x.lines == []
    assert abs(m.offsets[2]) < 2000 and m.offsets[1] == 0
    x = Machine(m, 3, offsets={0x14: offset}, adjust=False)
    assert x.chosen == [] and len(x.lines) == 1
    assert "one CPU" in x.lines[0] and "ID 0x14" in x.lines[0]
    assert m.offsets[2] == offset


def test_a_parked_cpus_time_is_no_matter(m):
    x = Machine(m, 3, most=2, offsets={0x14: 5000}, adjust=False)
    assert x.chosen == [0x12] and x.lines == []
