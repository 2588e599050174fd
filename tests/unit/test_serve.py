# SPDX-License-Identifier: MIT
"""A vCPU on a CPU of its own, from the job that its CPU is given: it waits for
a SIPI, asleep, and starts as SDM 9.4.4.1 and table 10-1 say."""
import pytest

import harness
import vmxcpu

FAKES = """
#include "tests/unit/vmx_fakes.c"
#include "arch/x86/apic.h"
#include "kernel/park.h"
#include "kernel/traps.h"
#include "vmm/vcpu/vcpu.h"

/* A CPU of the test's: what others do while it sleeps; true: nothing more. */
bool (*sleeps)(void);
void (*runs)(const struct guest_entry *entry);
unsigned joined, awake, vmxons, inits;
int vmxon_fails;
struct lapic its; /* its page is one of its own */
static struct guest_entry entry;

void local_apic_join(u8 spurious)
{
	joined += spurious == HOST_VECTOR_SPURIOUS;
}

int vmx_enable(const struct vmx_capabilities *cap, hpa_t region)
{
	(void)cap;
	vmxons += region != 0;
	return vmxon_fails;
}

int vcpu_init(struct vcpu *v)
{
	(void)v;
	inits++;
	return 0;
}

void park_begin(struct percpu *cpu)
{
	(void)cpu;
	awake--;
}

void park_end(struct percpu *cpu)
{
	(void)cpu;
	awake++;
}

void park_sleep(struct percpu *cpu)
{
	(void)cpu;
	if (sleeps())
		longjmp(stopped, 1);
}

void vcpu_reset(struct vcpu *v, const struct guest_entry *e)
{
	(void)v;
	entry = *e;
}

void vcpu_run(struct vcpu *v)
{
	runs(&entry);
	vm_leave(v->vm);
}

void lapic_init_signal(struct lapic *l)
{
	l->init_pending = l->nmi_pending = l->extint_pending = false;
}

void percpu_kick(struct percpu *cpu)
{
	fakes_record(FAKE_OTHER, cpu->index, 0, 0);
}

void panic(const char *fmt, ...)
{
	(void)fmt;
	abort();
}

bool stops(struct vcpu *v)
{
	return STOPS(vcpu_serve(v));
}

void on(struct percpu *cpu)
{
	cpu->self = cpu;
	fake_gs_base(cpu);
}
"""
CDEF = """
extern bool (*sleeps)(void);
extern void (*runs)(const struct guest_entry *entry);
extern unsigned joined, awake, vmxons, inits;
extern int vmxon_fails;
extern struct lapic its;
bool stops(struct vcpu *v);
void on(struct percpu *cpu);
"""
SIGNATURE = 0x506e3


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "serve", ["vmm/vcpu/serve.c", "vmm/core/vm.c", "vmm/core/bus.c",
                  "vmm/devmodel/lapic_accept.c"], fakes=FAKES, cdef=CDEF,
        headers=["vmm/vcpu/vcpu.h", "vmm/core/vm.h", "vmm/core/entry.h",
                 "kernel/percpu.h", *vmxcpu.HEADERS])


class Ap:
    """The second CPU of two. happens: what comes while it sleeps, each time;
    then it is over. started: [(CS, EDX)]"""

    def __init__(self, m, happens=()):
        self.m, self.happens, self.started = m, list(happens), []
        cpu = vmxcpu.Cpu(m)
        cpu.cpuid(1, eax=SIGNATURE)
        m.lib.joined = m.lib.vmxons = m.lib.inits = m.lib.awake = 0
        m.lib.sleeps = m.callback("bool(*)(void)", self.sleeps)
        m.lib.runs = m.callback("void(*)(const struct guest_entry *)",
                                self.runs)
        self.cpu = m.new("struct percpu *", {"index": 1, "attention": 1})
        m.on(self.cpu)
        self.lapic = m.ffi.addressof(m.lib, "its")
        m.ffi.memmove(self.lapic, bytes(m.ffi.sizeof("struct lapic")),
                      m.ffi.sizeof("struct lapic"))
        self.vm = m.new("struct vm *", {"smp": True})
        self.vcpu = m.new("struct vcpu *", {
            "vm": self.vm, "cpu": self.cpu, "lapic": self.lapic})
        self.lapic.kick = m.ffi.addressof(m.lib, "vcpu_kick")
        self.lapic.vcpu = self.vcpu

    def serve(self):
        return self.m.stops(self.vcpu)

    def sleeps(self):
        m = self.m
        assert (m.lib.awake, self.vm.running) == (-1 % 2**32, 0)
        assert not self.cpu.attention
        self.cpu.attention = 1      # an NMI, for whatever reason
        if not self.happens:
            return True
        for what, value in self.happens.pop(0).items():
            if what == "request":
                self.vm.request = value
            elif what == "nmis":
                self.cpu.nmis = value
            else:
                m.lapic_accept(self.lapic, m.new("struct apic_message *", {
                    "delivery": getattr(m, f"APIC_{what}"), "vector": value}))
        return False

    def runs(self, entry):
        m = self.m
        assert (m.lib.awake, self.vm.running) == (0, 2)
        assert entry.mode == m.ENTRY_REAL16 and not entry.rip
        assert not self.lapic.nmi_pending and not self.cpu.nmis
        assert not self.lapic.init_pending
        self.started.append((entry.cs, entry.gpr[m.GPR_RDX]))


@pytest.mark.parametrize("happens, started", [
    ([], []),
    ([{"SIPI": 0x9a}], [0x9a00]),
    # Woken for nothing, or by what it does not heed before a SIPI.
    ([{}, {"NMI": 0}, {"FIXED": 0x40}, {"INIT": 0}, {"nmis": 1}], []),
    ([{"NMI": 0, "nmis": 2}, {"INIT": 0, "SIPI": 8}], [0x800]),
    ([{"NMI": 0, "nmis": 2, "SIPI": 0xff}], [0xff00]),
    # A second life, after an INIT, and none in between.
    ([{"SIPI": 1}, {}, {"SIPI": 2}], [0x100, 0x200]),
    # The guest ends: no further CPU begins.
    ([{"request": 1, "SIPI": 1}, {"SIPI": 1}], []),
])
def test_it_waits_for_a_sipi(m, happens, started):
    ap = Ap(m, happens)
    assert ap.serve(), "it came back"
    assert ap.started == [(cs, SIGNATURE) for cs in started]
    assert (m.lib.joined, m.lib.vmxons, m.lib.inits) == (1, 1, 1)
    assert ap.vcpu.ready and not ap.vcpu.error and not ap.happens


@pytest.mark.parametrize("pages, vmxon, error", [
    (0, 0, "ENOMEM"), (1, -5, "EIO")])
def test_a_cpu_that_cannot(m, pages, vmxon, error):
    """It says so, and stays parked."""
    ap = Ap(m)
    m.lib.arena_limit, m.lib.vmxon_fails = pages, vmxon
    try:
        assert not ap.serve()
    finally:
        m.lib.vmxon_fails = 0
    assert ap.vcpu.ready and ap.vcpu.error == -getattr(m, error)
    assert m.lib.inits == 0


def test_all_but_the_caller_are_kicked(m):
    """From CPU 1: 0 and 2, whatever the order of the vCPUs."""
    ap = Ap(m)
    cpus = [m.new("struct percpu *", {"index": n}) for n in (2, 0)]
    vcpus = [ap.vcpu, *(m.new("struct vcpu *", {"cpu": c}) for c in cpus)]
    ap.vm.vcpu_count = len(vcpus)
    for n, vcpu in enumerate(vcpus):
        ap.vm.vcpus[n] = vcpu
    m.clear_events()
    m.vcpu_kick_others(ap.vm)
    assert [e.addr for e in m.events("other")] == [2, 0]
