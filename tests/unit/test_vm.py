# SPDX-License-Identifier: MIT
"""What the CPUs of one guest say to each other, from one of them: the others
are the test's, which changes their bits while this one waits."""
import pytest

import harness
import vmxcpu

FAKES = """
#include "tests/unit/vmx_fakes.c"
#include "kernel/panic.h"
#include "vmm/core/vm.h"

unsigned kicks;
void (*waits)(void);

void cpu_relax(void)
{
	waits();
}

void kick(struct vm *vm)
{
	(void)vm;
	kicks++;
}

void panic(const char *fmt, ...)
{
	(void)fmt;
	longjmp(stopped, 1);
}

bool stuck(struct vm *vm)
{
	return STOPS(vm_wait_for_others(vm));
}

bool change_is_stuck(struct vm *vm)
{
	return STOPS(vm_change_begin(vm));
}

void on(struct percpu *cpu)
{
	cpu->self = cpu;
	fake_gs_base(cpu);
}
"""
CDEF = """
extern unsigned kicks;
extern void (*waits)(void);
void kick(struct vm *vm);
bool stuck(struct vm *vm);
bool change_is_stuck(struct vm *vm);
void on(struct percpu *cpu);
"""
ME, OTHER, THIRD = 1 << 1, 1 << 0, 1 << 5
SECOND = 1000


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "vm", ["vmm/core/vm.c", "vmm/core/bus.c"], fakes=FAKES, cdef=CDEF,
        headers=["vmm/core/vm.h", "kernel/percpu.h", *vmxcpu.HEADERS])


class Vm:
    """CPU 1 of several. waits: called where it waits, with how often it has."""

    def __init__(self, m, waits=None, smp=True, **fields):
        m.lib.kicks, self.waited = 0, 0
        self.cpu = m.new("struct percpu *", {"index": 1})
        m.on(self.cpu)
        self.vm = m.new("struct vm *", {
            "smp": smp, "clock": {"tsc_hz": SECOND}, **fields})
        self.vm.kick_others = m.ffi.addressof(m.lib, "kick")
        m.lib.waits = m.callback("void(*)(void)", self.relax)
        self.then = waits

    def relax(self):
        self.waited += 1
        self.then(self.waited)


def test_a_cpu_that_enters_is_seen(m):
    vm = Vm(m, running=OTHER).vm
    assert m.vm_enter(vm) and vm.running == OTHER | ME
    m.vm_leave(vm)
    assert vm.running == OTHER


@pytest.mark.parametrize("smp", [True, False])
def test_with_a_request_nobody_enters(m, smp):
    vm = Vm(m, smp=smp, request=m.VM_RESET).vm
    assert not m.vm_enter(vm) and not vm.running
    vm.request = m.VM_RUN
    assert m.vm_enter(vm) and vm.running == (ME if smp else 0)


def test_the_first_request_counts(m):
    vm = Vm(m).vm
    for what in (m.VM_POWER_OFF, m.VM_RESET):
        m.vm_request(vm, what)
        assert vm.request == m.VM_POWER_OFF and m.lib.kicks == 1


def test_alone_nobody_is_kicked(m):
    vm = Vm(m, smp=False, running=OTHER).vm
    m.vm_request(vm, m.VM_RESET)
    m.vm_change_begin(vm)
    assert not vm.stop
    m.vm_change_end(vm)
    m.vm_wait_for_others(vm)
    assert m.lib.kicks == 0


def test_a_change_waits_for_all_who_look(m):
    """One leaves the guest for good, one only looks at nothing."""
    def waits(n):
        assert vm.vm.stop and m.lib.kicks == 1
        if n == 3:
            vm.vm.paused |= OTHER
        if n == 5:
            vm.vm.running &= ~THIRD
    vm = Vm(m, waits, running=OTHER | THIRD | ME)
    m.vm_change_begin(vm.vm)
    assert vm.waited == 5 and vm.vm.stop
    m.vm_change_end(vm.vm)
    assert not vm.vm.stop


def test_after_a_request_a_pause_is_not_enough(m):
    def waits(n):
        if n == 4:
            vm.vm.running &= ~OTHER
    vm = Vm(m, waits, running=OTHER | ME, paused=OTHER)
    m.vm_wait_for_others(vm.vm)
    assert vm.waited == 4


@pytest.mark.parametrize("wait", ["stuck", "change_is_stuck"])
def test_one_that_does_not_come_out(m, wait):
    """Ten seconds, and no less: then Monocle ends, and says which CPU."""
    def waits(_):
        m.tsc = m.tsc + SECOND
    vm = Vm(m, waits, running=OTHER)
    start = m.tsc
    assert getattr(m, wait)(vm.vm)
    assert 10 <= (m.tsc - start) / SECOND <= 12


def test_a_pause_ends_with_the_change(m):
    """... and a second change finds it paused again."""
    def waits(n):
        assert vm.vm.paused == ME
        vm.vm.stop = False
    vm = Vm(m, waits, stop=True)
    m.vm_pause(vm.vm)
    assert (vm.waited, vm.vm.paused) == (1, 0)
    m.vm_pause(vm.vm)
    assert vm.waited == 1


def test_an_entry_waits_for_the_change(m):
    def waits(_):
        assert vm.vm.paused == ME and vm.vm.running == ME
        vm.vm.stop = False
    vm = Vm(m, waits, stop=True)
    assert m.vm_enter(vm.vm) and vm.waited == 1


def test_who_waits_for_the_lock_is_not_waited_for(m):
    def waits(n):
        assert vm.vm.paused == ME
        if n == 7:
            vm.vm.lock.owner = 1
    vm = Vm(m, waits, lock={"next": 1})
    m.vm_lock_shared(vm.vm)
    assert vm.vm.paused == 0 and vm.vm.lock.spins == 7
    m.vm_unlock_shared(vm.vm)
    assert vm.vm.lock.owner == 2


def test_the_longest_hold(m):
    vm = Vm(m).vm
    for ticks in (5, 70, 6):
        m.vm_lock_shared(vm)
        assert vm.paused == 0
        m.tsc = m.tsc + ticks
        m.vm_unlock_shared(vm)
    assert 70 <= vm.longest_hold < 75


def test_ports(m):
    """Each end of a byte, and none behind the last."""
    bitmap = m.new("u8[]", [0xff] * 8192 + [0xff])
    vm = Vm(m, io_bitmap=bitmap).vm

    def opened():
        return {n for n in range(0x10008) if not bitmap[n // 8] >> n % 8 & 1}
    m.vm_open_ports(vm, 0x3b7, 10, True)
    assert opened() == set(range(0x3b7, 0x3c1))
    m.vm_open_ports(vm, 0x3b8, 8, False)
    assert opened() == {0x3b7, 0x3c0}
    m.vm_open_ports(vm, 0xfffe, 9, True)
    assert opened() == {0x3b7, 0x3c0, 0xfffe, 0xffff}
