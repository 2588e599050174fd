# SPDX-License-Identifier: MIT
"""The way of each further CPU into Monocle's own loop, on CPUs that come up
late, at the second try, or never (SDM 9.4.4), and how it sleeps there. A tick
is a microsecond."""

import struct

import pytest

import harness
import vmxcpu

FAKES = """
#define phys_to_virt arena_to_virt
#include "tests/unit/vmx_fakes.c"
#undef phys_to_virt
#include "kernel/host_paging.h"
#include "kernel/park.h"

/* The code that is copied: 0x120 bytes, the last 32 of them parameters. */
__asm__(".pushsection .data; .globl ap_trampoline, ap_parameters,"
	"ap_trampoline_end; ap_trampoline: .fill 256, 1, 0x90;"
	"ap_parameters: .zero 32; ap_trampoline_end: .popsection");

void ap_main(struct percpu *cpu);

_Alignas(4096) u8 low_page[4096];
bool mapped, no_trampoline;
int (*ipi)(u32 id, u32 low);
unsigned cpus_left, panic_others, microcodes;
u32 late_edx = 0x11142120;

void *phys_to_virt(hpa_t hpa)
{
	return hpa >> 12 == 8 ? low_page + (hpa & 0xfff) : arena_to_virt(hpa);
}

int trampoline_map(hpa_t page, bool on)
{
	if (page != 0x8000)
		abort();
	mapped = on;
	return no_trampoline ? -ENOMEM : 0;
}

u32 local_apic_id(void)
{
	return 4;
}

int local_apic_send(u32 apic_id, u32 low)
{
	return ipi(apic_id, low);
}

void delay_us(u64 tsc_hz, u64 us)
{
	fakes_tsc += us * tsc_hz / 1000000;
}

hpa_t host_cr3(void)
{
	return 0x7007000;
}

struct percpu *percpu_create(u32 index, u32 apic_id)
{
	struct percpu *cpu = cpus_left ? page_alloc() : NULL;

	if (!cpu)
		return NULL;
	cpus_left--;
	cpu->self = cpu;
	cpu->index = index;
	cpu->apic_id = apic_id;
	cpu->stack = (u8 *)cpu + 4096;
	return cpu;
}

/* What is in force by when the CPU says that it is parked */
void host_paging_load(void)
{
	fakes_record(FAKE_OTHER, 0, 0, 0);
}

void percpu_load(struct percpu *cpu)
{
	fakes_record(FAKE_OTHER, (u64)cpu, 0, cpu->parked);
}

/* What CPUID says before it is not what counts. */
u32 microcode_load(bool tell)
{
	if (tell)
		abort();
	microcodes++;
	for (unsigned i = 0; i < cpuid_count; i++)
		if (cpuid_rows[i].leaf == 5)
			cpuid_rows[i].regs.edx = late_edx;
	return 0x20;
}

/* A CPU in the trampoline's last instruction; false: it came back. */
bool ap_runs(u64 entry, u64 percpu)
{
	microcodes = 0;
	return STOPS(((void (*)(u64))entry)(percpu));
}

/* The parked CPU is the one that is kicked: it does its job at once. */
void percpu_kick(struct percpu *cpu)
{
	void (*job)(void *ctx) = cpu->job;

	fakes_record(FAKE_OTHER, (u64)cpu, 1, 0);
	if (cpu->apic_id == 0xdead)
		return;
	cpu->job = NULL;
	cpu->jobs++;
	job(cpu->job_ctx);
}

bool stops_in_park(struct percpu *cpu)
{
	return STOPS(park(cpu));
}
"""
CDEF = """
extern u8 low_page[4096];
extern bool mapped, no_trampoline;
extern int (*ipi)(u32 id, u32 low);
extern unsigned cpus_left, panic_others, microcodes;
bool ap_runs(u64 entry, u64 percpu);
bool stops_in_park(struct percpu *cpu);
"""
BSP, PAGE = 4, 4096
INIT, SIPI = 0x4500, 0x4608     # level asserted; vector 8: page 0x8000
SECOND = 10**6


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "smp", ["boot/smp.c", "kernel/park.c"], fakes=FAKES, cdef=CDEF,
        headers=["boot/smp.h", "kernel/park.h", "kernel/percpu.h", *vmxcpu.HEADERS])


class Cpus:
    """ids: what the MADT lists. late: {id: after how many SIPIs it runs},
    0: never."""

    def __init__(self, m, ids, late=(), deaf=(), lpit=0,
                 leaves=0):
        self.m, self.cpu = m, sleeper(m, leaves=leaves)
        self.late, self.deaf = dict(late), deaf
        self.sent, self.state, self.parked = [], {}, {}
        m.lib.mapped = m.lib.no_trampoline = False
        m.lib.cpus_left = 100
        for n in range(PAGE):
            m.low_page[n] = n * 7 & 0xff
        self.before = bytes(m.low_page)
        m.lib.ipi = m.callback("int(*)(u32, u32)", self.ipi, 0)
        self.madt = m.new("struct acpi_madt *", {"cpu_count": len(ids)})
        for n, ident in enumerate(ids):
            self.madt.cpus[n] = ident
        self.cpus = m.new("struct percpu *[]", m.CPUS_MAX)
        self.count = m.smp_park_others(self.madt, lpit, SECOND, self.cpus)
        assert self.count == len(self.parked)
        assert bytes(m.low_page) == self.before, "the guest's page"
        assert not m.mapped

    def ipi(self, ident, low):
        m = self.m
        self.sent.append((ident, low, m.tsc))
        if ident in self.deaf:
            return -m.ETIMEDOUT
        if low == INIT:
            self.state[ident] = 0
        else:
            assert low == SIPI and ident in self.state, "no INIT before"
            self.state[ident] += 1
            if self.state[ident] == self.late.get(ident, 1):
                self.run(ident)
        return 0

    def run(self, ident):
        """As boot/ap.asm does with its parameters."""
        m = self.m
        assert m.mapped and bytes(m.low_page[0:256]) == b"\x90" * 256
        cr3, stack, percpu, entry = struct.unpack(
            "<4Q", bytes(m.low_page[256:288]))
        m.clear_events()
        assert m.ap_runs(entry, percpu)
        cpu = m.ffi.cast("struct percpu *", percpu)
        # Tables and descriptors of its own before it says that it is there.
        assert [(e.addr, e.value) for e in m.events("other")] == [
            (0, 0), (percpu, 0)]
        assert cr3 == 0x7007000 and stack == percpu + PAGE
        assert cpu.apic_id == ident and cpu.parked and m.microcodes == 1
        self.parked[ident] = cpu.index


def test_all_are_parked(m):
    x = Cpus(m, [BSP, 0, 2, 0x106])
    assert x.parked == {0: 1, 2: 2, 0x106: 3}
    assert [s[:2] for s in x.sent] == [
        (n, low) for low in (INIT, SIPI) for n in (0, 2, 0x106)]
    assert m.log_lines() == [(m.LOG_INFO, "cpus: 4, of which 3 are parked, in HLT")]
    assert m.panic_others == 3      # a panic's NMI reaches them
    assert m.arena_count() == 3     # the borrowed page is given back


def test_the_manual_s_times(m):
    """10 ms from INIT to SIPI; 200 µs or more to the second one."""
    x = Cpus(m, [BSP, 1], late={1: 2})
    assert x.parked == {1: 1}
    assert [s[1] for s in x.sent] == [INIT, SIPI, SIPI]
    times = [s[2] for s in x.sent]
    assert times[1] - times[0] >= 10_000 and times[2] - times[1] >= 200


def test_one_wait_for_all(m):
    """10 ms for each of 63 would be more than half a second."""
    x = Cpus(m, [BSP, *range(0x100, 0x100 + 63)])
    assert len(x.parked) == 63 and 10_000 <= m.tsc < 20_000
    assert min(at for _, low, at in x.sent if low == SIPI) >= 10_000


def test_one_that_does_not_come(m):
    """It is named, the others go on; and it is held in INIT: if it came
    late it would run what is the guest's by then."""
    x = Cpus(m, [1, BSP, 2], late={1: 0})
    assert x.parked == {2: 2}
    assert [s[:2] for s in x.sent] == [
        (1, INIT), (2, INIT), (1, SIPI), (1, SIPI), (1, INIT), (2, SIPI)]
    assert m.tsc < SECOND
    assert [t for _, t in m.log_lines()] == [
        "CPU with APIC ID 0x1 does not start", "cpus: 3, of which 1 are parked, in HLT"]


def test_one_that_takes_no_ipi(m):
    x = Cpus(m, [BSP, 1, 2], deaf={1})
    assert x.parked == {2: 2} and [s[:2] for s in x.sent][0:2] == [
        (1, INIT), (2, INIT)]


def test_more_than_there_is_room_for(m):
    x = Cpus(m, [BSP, *range(0x100, 0x100 + 70)])
    assert len(x.parked) == m.CPUS_MAX - 1
    assert sum("does not start" in t for _, t in m.log_lines()) == 70 - 63
    assert m.log_text().endswith("cpus: 71, of which 63 are parked, in HLT")


@pytest.mark.parametrize("alone", [[], [BSP]])
def test_one_cpu(m, alone):
    assert Cpus(m, alone).sent == []
    assert m.log_text() == "cpus: 1, of which 0 are parked"


def test_no_memory(m):
    x = Cpus(m, [BSP])
    m.lib.cpus_left = 1
    x.madt.cpu_count = 3
    x.madt.cpus[1], x.madt.cpus[2] = 1, 2
    m.smp_park_others(x.madt, 0, SECOND, x.cpus)
    assert x.parked == {1: 1} and "0x2 does not start" in m.log_text()
    for lack in ("arena_limit", "no_trampoline"):
        m.lib.arena_limit = m.ARENA_PAGES * (lack != "arena_limit")
        m.lib.no_trampoline = lack == "no_trampoline"
        x.sent.clear()
        m.smp_park_others(x.madt, 0, SECOND, x.cpus)
        assert x.sent == [] and "too little memory" in m.log_lines()[-1][1]
        assert bytes(m.low_page) == x.before


# --- Asleep ----------------------------------------------------------------

MONITOR, EIST, HWP = 1 << 3, 1 << 7, 1 << 7
SKYLAKE = 0x11142120        # CPUID.5:EDX: C1 to C10, one deepest sub-state
BAY_TRAIL = 0x33000020


def sleeper(m, edx=SKYLAKE, model=0x506e3, leaf1=MONITOR, leaf6=0, hints=3,
            leaves=0x16):
    cpu = vmxcpu.Cpu(m)
    cpu.cpuid(0, eax=leaves)
    cpu.cpuid(1, eax=model, ecx=leaf1)
    cpu.cpuid(5, eax=64, ebx=64, ecx=hints, edx=edx)
    cpu.cpuid(6, eax=leaf6)
    return cpu


@pytest.mark.parametrize("hint, lpit, more", [
    (0x60, 0, {}),
    (0x60, 0x60, {}),
    (0x33, 0, {"edx": 0x42120, "model": 0x306c3}),      # Haswell
    (0x33, 0x60, {"edx": 0x42120, "model": 0x306c3}),   # a table that lies
    (0x33, 0xf0, {"edx": 0x42120, "model": 0x306c3}),
    (0x64, 0x64, {"edx": BAY_TRAIL, "model": 0x30678}),
    (0x64, 0, {"edx": BAY_TRAIL, "model": 0x30678}),    # not 0x62
    (0x23, 0, {"edx": 0x2020, "model": 0xa06f3}),       # not 0x21
    (0x21, 0, {"edx": 0x2020, "model": 0x50654}),
    (0, 0, {"edx": 0x10}),                              # C1 only
    (0, 0, {"edx": 0}),
    (0, 0x60, {"hints": 0}),                            # no sub-states told
    (0x100, 0x60, {"leaf1": 0}),                        # switched off
    (0x100, 0x60, {"leaves": 4}),
])
def test_the_deepest_hint(m, hint, lpit, more):
    """By the LPIT where CPUID has that state, by the model, by CPUID; HLT."""
    sleeper(m, **more)
    assert m.park_hint(lpit) == hint


def asleep(m, hint, wakes=0):
    """What a CPU does that parks: [(event, address or value)]."""
    cpu = m.new("struct percpu *", {"hint": hint})
    m.lib.fake_wakes = wakes
    m.clear_events()
    assert m.stops_in_park(cpu)
    line = int(m.ffi.cast("u64", cpu.monitored))
    assert line % 64 == 0 and m.ffi.sizeof(cpu.monitored) == 64
    assert {e.addr for e in m.events("sleep")} == {line}
    return [(e.kind, e.value or e.addr - line * (e.addr >= line))
            for e in m.events()]


SLEEP = ["mfence", "clflush", "mfence", "sleep"]


@pytest.mark.parametrize("wakes", [0, 1, 3])
def test_it_sleeps_on(m, wakes):
    """An SMI or an NMI ends an MWAIT: the line is watched anew, each time."""
    sleeper(m)
    done = asleep(m, 0x60, wakes)
    assert [kind for kind, _ in done] == ["wbinvd", *SLEEP * (wakes + 1)]
    assert {what for kind, what in done if kind == "sleep"} == {0x60}
    assert {what for kind, what in done if kind == "clflush"} == {0}


def test_without_mwait_it_halts(m):
    sleeper(m, leaf1=0)
    assert [kind for kind, _ in asleep(m, 0x100)] == ["wbinvd", *SLEEP]


@pytest.mark.parametrize("leaf1, leaf6, msrs, written", [
    # HWP, and on: the lowest of what is capable; EPP stays, 42 goes.
    (EIST, HWP, {0x770: 1, 0x771: 0x0108_1c2a, 0x774: 1 << 42 | 0x80ff2a04,
                 0xce: 0x8_00000000_1c00}, (0x774, 0x80000101)),
    # HWP, and off; no HWP: the ratio for the most efficiency.
    (EIST, HWP, {0x770: 0, 0xce: 0x800 << 32 | 0x1c00}, (0x199, 0x800)),
    (EIST, 0, {0xce: 0x800 << 32 | 0x1c00}, (0x199, 0x800)),
    # Arrandale's ratio is the low byte; Silvermont has a voltage there.
    (EIST, 0, {0xce: 0x900 << 32 | 0x1400, 0x198: 0x14}, (0x199, 0x9)),
    (EIST, 0, {0xce: 0x800 << 32 | 0x1400, 0x198: 0x1444}, None),
    # No ratio, one above the base, no MSR, no P-states.
    (EIST, 0, {0xce: 0x1c00}, None),
    (EIST, 0, {0xce: 0x1d00 << 32 | 0x1c00}, None),
    (EIST, 0, {}, None),
    (0, 0, {0xce: 0x800 << 32 | 0x1c00}, None),
])
def test_its_lowest_p_state(m, leaf1, leaf6, msrs, written):
    cpu = sleeper(m, leaf1=MONITOR | leaf1, leaf6=leaf6)
    for number, value in {0x199: 0x2800, 0x198: 0x1d2700001c00,
                          **msrs}.items():
        cpu.set_msr(number, value)
    asleep(m, 0x60)
    assert [(e.addr, e.value) for e in m.events("wrmsr", "no_msr")] == (
        [written] if written else [])


def test_each_cpu_asks_its_own_cpuid(m):
    """Of those that park, the last one's hint is told."""
    x = Cpus(m, [BSP, 1], leaves=0x16, lpit=0x60)
    assert x.parked == {1: 1}
    assert m.log_text() == "cpus: 2, of which 1 are parked, in MWAIT 0x60"


# --- Jobs ------------------------------------------------------------------

def test_a_job_is_done_awake(m):
    """At the speed that it had; and it sleeps again behind it."""
    cpu = sleeper(m, leaf1=MONITOR | EIST)
    for number, value in {0x199: 0x2800, 0x198: 0x1c00,
                          0xce: 0x800 << 32 | 0x1c00}.items():
        cpu.set_msr(number, value)
    at_work = []

    @m.ffi.callback("void(void *)")
    def job(ctx):
        at_work.append((int(m.ffi.cast("u64", ctx)), cpu.msr(0x199)))
    c = m.new("struct percpu *", {"hint": 0x60, "job": job,
                                  "job_ctx": m.ffi.cast("void *", 7)})
    m.lib.fake_wakes = 0
    assert m.stops_in_park(c)
    assert at_work == [(7, 0x2800)] and cpu.msr(0x199) == 0x800
    assert c.job == m.NULL


@pytest.mark.parametrize("ident, result", [(1, 0), (0xdead, "ETIMEDOUT")])
def test_a_job_is_taken_or_withdrawn(m, ident, result):
    sleeper(m)
    done = []

    @m.ffi.callback("void(void *)")
    def job(_ctx):
        done.append(True)
    m.on_relax = lambda: setattr(m, "tsc", m.tsc + SECOND // 10)
    c = m.new("struct percpu *", {"apic_id": ident})
    assert m.park_give_job(c, job, m.NULL, SECOND) == (
        -m.ETIMEDOUT if result else 0)
    assert c.job == m.NULL and bool(done) == (not result)
