# SPDX-License-Identifier: MIT
"""Where nothing answers: a page of ones for one instruction."""
import pytest

import vmxcpu

PAGE, G1 = 4096, 1 << 30
ADDRESS = 0xffffffffff000
TF, MTF, BS = 1 << 8, 1 << 27, 1 << 14
WHERE = 3 * G1 + 0x123
FAKES = """
#include "tests/unit/vmx_fakes.c"
#include "kernel/phys.h"
#include "vmm/vcpu/exits.h"
"""


@pytest.fixture(scope="module")
def m():
    return vmxcpu.harness.build(
        "lend", ["vmm/vcpu/lend.c", "arch/x86/vmx/ept.c", "kernel/region.c",
                 "vmm/core/bus.c", "vmm/core/vm.c"], fakes=FAKES,
        cdef="void *page_alloc(void); void *phys_to_virt(uint64_t hpa);"
             "uint64_t virt_to_phys(const void *p);",
        headers=["arch/x86/vmx/ept.h", "vmm/vcpu/exits.h", *vmxcpu.HEADERS])


class Guest:
    def __init__(self, m, monitor_trap=True, rflags=2, **caps):
        self.m, self.cpu = m, vmxcpu.Cpu(m)
        self.cap = m.new("struct vmx_capabilities *", {
            "monitor_trap": monitor_trap, "ept_2m": True, "ept_1g": True,
            **caps})
        self.ept, self.vm = m.new("struct ept *"), m.new("struct vm *")
        assert m.ept_init(self.ept, self.cap) == 0
        self.vm.vmx, self.vm.ept = self.cap, self.ept
        self.v = m.new("struct vcpu *")
        self.bus = self.v.bus = m.new("struct bus *")
        self.v.vm, self.v.ones, self.v.cpu_controls = (
            self.vm, m.page_alloc(), 0x84006172)
        self.set("GUEST_RFLAGS", rflags)

    def set(self, name, value):
        self.cpu.write(getattr(self.m, f"VMCS_{name}"), value)

    def get(self, name):
        return self.cpu.read(getattr(self.m, f"VMCS_{name}"))

    def violation(self, gpa=WHERE):
        self.set("GUEST_PHYSICAL", gpa)
        return self.m.exit_lend(self.v)

    def walk(self, gpa):
        """The entry and its level's shift, by SDM 29.3.2."""
        table, n = int(self.m.ffi.cast("uintptr_t", self.ept.root)), None
        for shift in (39, 30, 21, 12):
            n = self.m.ffi.cast("uint64_t *", table)[gpa >> shift & 511]
            if not n & 7 or n & 0x80 or shift == 12:
                return n, shift
            table = self.host(n)

    def host(self, n):
        return int(self.m.ffi.cast("uintptr_t", self.m.phys_to_virt(
            n & ADDRESS)))

    def rights(self, gpa):
        n, shift = self.walk(gpa)
        return n & 7, 1 << shift

    def hpa(self, gpa):
        return self.walk(gpa)[0] & ADDRESS

    def entry(self, gpa):
        """What the CPU finds there: rights and the page's bytes, or None."""
        n, _ = self.walk(gpa)
        return (n & 7, bytes(self.m.ffi.buffer(self.m.ffi.cast(
            "char *", self.host(n)), PAGE))) if n & 7 else None


@pytest.mark.parametrize("monitor_trap", [True, False])
def test_ones_for_one_instruction(m, monitor_trap):
    """Reads, writes and fetches; then nothing is there again, and a table
    that was needed is given back."""
    guest = Guest(m, monitor_trap)
    beside = m.new("struct region *", {
        "gpa": (WHERE & -PAGE) + 2 * PAGE, "size": PAGE, "cpu": 7,
        "hpa": m.virt_to_phys(m.page_alloc())})
    assert m.ept_map(guest.ept, beside) == 0
    tables = guest.ept.tables
    assert guest.violation() == m.EXIT_RESUME
    assert guest.entry(WHERE) == (7, b"\xff" * PAGE)
    assert guest.entry(WHERE + PAGE) is None
    assert bool(guest.get("CPU_CONTROLS") & MTF) == monitor_trap
    assert bool(guest.get("GUEST_RFLAGS") & TF) == (not monitor_trap)
    m.ffi.buffer(m.ffi.cast("char *", guest.v.ones), PAGE)[:4] = b"left"
    m.clear_events()
    m.lend_end(guest.v)
    assert guest.entry(WHERE) is None and guest.ept.tables == tables
    assert guest.entry(beside.gpa)
    assert m.events("invept")
    assert guest.get("CPU_CONTROLS") == (0x84006172 if monitor_trap else 0)
    assert guest.get("GUEST_RFLAGS") == 2
    # What was written is gone.
    assert guest.violation() == m.EXIT_RESUME
    assert guest.entry(WHERE) == (7, b"\xff" * PAGE)


def test_a_guest_that_steps_itself_keeps_its_flag(m):
    guest = Guest(m, False, rflags=2 | TF)
    assert guest.violation() == m.EXIT_RESUME and not guest.v.steps
    m.lend_end(guest.v)
    assert guest.get("GUEST_RFLAGS") == 2 | TF


def test_operands_on_several_pages(m):
    """A gather may have 16, each over two; and no more than the table."""
    guest = Guest(m)
    for n in range(32):
        assert guest.violation(WHERE + n * PAGE) == m.EXIT_RESUME
    assert guest.violation(WHERE + 32 * PAGE) == m.EXIT_STOP
    assert guest.entry(WHERE) and guest.entry(WHERE + 31 * PAGE)
    m.lend_end(guest.v)
    assert not any(guest.entry(WHERE + n * PAGE) for n in range(33))
    m.clear_events()
    m.lend_end(guest.v)     # nothing is lent
    assert not m.events("invept", "vmwrite")


@pytest.mark.parametrize("cpu, lent", [(0, True), (1, False), (5, False)])
def test_memory_is_not_nothing(m, cpu, lent):
    """A region that the CPU may reach in part; one that is shut is nobody's."""
    guest = Guest(m)
    r = guest.vm.map.regions[0]
    r.gpa, r.size, r.cpu = WHERE & -PAGE, PAGE, cpu
    guest.vm.map.count = 1
    assert guest.violation() == (m.EXIT_RESUME if lent else m.EXIT_STOP)


FETCH, RW, RX, RWX = 1 << 2, 3, 5, 7
CODE = 5 * G1 + (7 << 21) + 0x3000


@pytest.mark.parametrize("cpu", [RX, RWX])
def test_code_lies_in_small_pages(m, cpu):
    """itlb=split: no large page can be fetched from; each that is, is one of
    4 KiB, and all others stay as large as they can."""
    guest = Guest(m, split_code=True)
    r = guest.vm.map.regions[0]
    r.gpa, r.size, r.hpa, r.cpu, r.memtype = 4 * G1, 2 * G1, 8 * G1, cpu, 6
    guest.vm.map.count = 1
    guest.v.qualification = FETCH
    assert m.ept_map(guest.ept, m.ffi.addressof(r)) == 0 and guest.rights(CODE) == (cpu & 3, G1)
    assert guest.violation(CODE + 0x123) == m.EXIT_RESUME
    assert guest.rights(CODE) == (cpu, PAGE) and not guest.v.lent_count
    assert guest.hpa(CODE) == CODE + 4 * G1
    for at, size in ((CODE - PAGE, PAGE), (CODE + PAGE, PAGE),
                     (CODE - (1 << 21), 1 << 21), (4 * G1, G1)):
        assert guest.rights(at) == (cpu & 3, size)
    # Nothing else is one: data, memory without that right, without the option.
    assert m.events("invept")
    for split, why, rights in ((True, 1, cpu), (True, FETCH, RW),
                               (False, FETCH, cpu)):
        guest.cap.split_code, guest.v.qualification, r.cpu = split, why, rights
        assert guest.violation(CODE - PAGE) == m.EXIT_STOP
        assert guest.rights(CODE - PAGE) == (cpu & 3, PAGE)


@pytest.mark.parametrize("first, last, lent", [
    (-1, -1, True), (0, 0, False), (PAGE - 1, PAGE - 1, False),
    (PAGE, PAGE, True), (-5, 2 * PAGE, False)])
def test_a_device_on_the_page_is_not_nothing(m, first, last, lent):
    guest, page = Guest(m), WHERE & -PAGE
    device = m.callback("bus_handler *", lambda dev, access: 0)
    assert m.bus_register(m.ffi.addressof(guest.vm.bus), m.BUS_MMIO,
                          page + first, page + last, device, m.NULL,
                          b"x") == 0
    assert guest.violation() == (m.EXIT_RESUME if lent else m.EXIT_STOP)
    assert bool(guest.entry(WHERE)) == lent


READ, WRITE = 1, 2


def device_at(m, guest, first, size, bus=None):
    """Registers that read their own offset; each access is noted."""
    seen = []

    def access(dev, a):
        seen.append((a.addr - first, a.size, a.write))
        a.value = (a.addr - first) * 0x1010101
        return 0
    handler = m.callback("bus_handler *", access)
    assert m.bus_register(m.ffi.addressof(bus or guest.vm.bus), m.BUS_MMIO,
                          first, first + size - 1, handler, m.NULL,
                          b"x") == 0
    return seen


@pytest.mark.parametrize("offset, count", [(0, 16), (8, 16), (5, 17),
                                           (PAGE - 4, 1), (PAGE - 9, 3)])
def test_a_device_is_read_whatever_the_instruction(m, offset, count):
    """The registers from where it reads on, in the device's sizes, as they
    stand then; nothing can be written, and the next one reads anew."""
    guest, page = Guest(m), WHERE & -PAGE
    seen = device_at(m, guest, page, PAGE)
    guest.v.qualification = READ
    for _ in range(2):
        seen.clear()
        assert guest.violation(page + offset) == m.EXIT_RESUME
        rights, data = guest.entry(page)
        first = offset & -4
        assert rights == 1 and seen == [
            (at, 4, False) for at in range(first, first + 4 * count, 4)]
        assert all(data[at:at + 4] == (at * 0x1010101 & 0xffffffff).to_bytes(
            4, "little") for at, _, _ in seen)
        # The other page of its operand, or what it would write.
        for more, why in ((PAGE, READ), (0, WRITE)):
            guest.v.qualification = why
            assert guest.violation(page + more) == m.EXIT_STOP
        guest.v.qualification = READ
        m.lend_end(guest.v)
        assert guest.entry(page) is None
    assert guest.violation(page + PAGE) == m.EXIT_RESUME
    assert guest.entry(page + PAGE) == (7, b"\xff" * PAGE)


@pytest.mark.parametrize("why", [WRITE, READ | WRITE, FETCH, READ | FETCH])
def test_a_device_is_not_written_nor_run(m, why):
    guest, page = Guest(m), WHERE & -PAGE
    seen = device_at(m, guest, page, PAGE)
    guest.v.qualification = why
    assert guest.violation() == m.EXIT_STOP
    assert not seen and guest.entry(page) is None


@pytest.mark.parametrize("smp", [False, True])
def test_no_other_cpu_sees_this_ones_lapic(m, smp):
    guest, page = Guest(m), WHERE & -PAGE
    seen = device_at(m, guest, page, PAGE, guest.bus[0])
    guest.v.qualification, guest.vm.smp = READ, smp
    assert guest.violation() == (m.EXIT_STOP if smp else m.EXIT_RESUME)
    assert bool(seen) != smp


def test_without_memory_for_tables_it_stops(m):
    guest = Guest(m)
    m.lib.arena_limit = 2
    assert guest.violation() == m.EXIT_STOP and not guest.v.lent_count
