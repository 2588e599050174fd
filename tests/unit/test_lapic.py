# SPDX-License-Identifier: MIT
"""Local APIC: SDM chapter 10 as a driver sees it, timers to the tick, and
priorities against a model that is too simple to be wrong."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmodel import Fault, Machine

BASE, APIC_BASE, TSC_DEADLINE = 0xFEE00000, 0x1B, 0x6E0
EN, EXTD, BSP = 1 << 11, 1 << 10, 1 << 8
(ID, VERSION, TPR, PPR, EOI, LDR, DFR, SVR, ISR, TMR, IRR, ESR, ICR, ICR_HIGH,
 LVT_TIMER, LVT_THERMAL, LVT_PERF, LINT0, LINT1, LVT_ERROR, INITIAL, CURRENT,
 DIVIDE, SELF_IPI) = (
     0x02, 0x03, 0x08, 0x0A, 0x0B, 0x0D, 0x0E, 0x0F, 0x10, 0x18, 0x20, 0x28,
     0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3E, 0x3F)
LVTS = (LVT_TIMER, LVT_THERMAL, LVT_PERF, LINT0, LINT1, LVT_ERROR)
MASKED, PERIODIC, DEADLINE = 1 << 16, 1 << 17, 1 << 18


class Cpu(Machine):
    """A vCPU's LAPIC on a bus of its own; `of` shares the rest with it."""

    def __init__(self, apic_id=0, of=None, mode=EN, enabled=True):
        super().__init__()
        m = self.m
        self.id = apic_id
        if of:
            self.clock, self.apics = of.clock, of.apics
        else:
            self.apics = m.new("struct apic_bus *")
        self.l = self.aligned("struct lapic", 4096)
        assert m.lapic_init(self.l, self.apics, self.bus, self.clock,
                            apic_id, 39) == 0
        self.eois = []
        self._eoi = m.callback("void(void *, uint8_t)",
                               lambda _io, v: self.eois.append(v))
        self.apics.eoi = self._eoi
        self.x2apic = False
        if mode & EXTD:
            self.wrmsr(APIC_BASE, BASE | mode)
            self.x2apic = True
        if enabled:
            self.set(SVR, 0x1FF)

    def get(self, reg):
        if self.x2apic:
            return self.rdmsr(0x800 + reg)
        return self.read(BASE + 16 * reg)

    def set(self, reg, value):
        if self.x2apic:
            self.wrmsr(0x800 + reg, value)
        else:
            self.write(BASE + 16 * reg, value)

    def ipi(self, low, dest=0):
        if self.x2apic:
            self.wrmsr(0x830, dest << 32 | low)
        else:
            self.set(ICR_HIGH, dest << 24)
            self.set(ICR, low)

    def bits(self, reg):
        words = [self.get(reg + n) for n in range(8)]
        return {32 * n + bit for n, word in enumerate(words) if word
                for bit in range(32) if word >> bit & 1}

    def pending(self):
        return self.m.lapic_pending(self.l)

    def take(self):
        """The CPU takes an interrupt; None if there is none."""
        vector = self.pending()
        if vector < 0:
            return None
        self.m.lapic_ack(self.l, vector)
        return vector

    def send(self, vector, delivery=0, dest=0xFFFFFFFF, **kwargs):
        message = self.m.new("struct apic_message *", {
            "vector": vector, "delivery": delivery, "dest": dest, **kwargs})
        return self.m.apic_bus_send(self.apics, message, self.m.NULL)


@pytest.fixture(params=[EN, EN | EXTD], ids=["xapic", "x2apic"])
def cpu(request):
    return Cpu(mode=request.param)


# --- Modes and registers ---

def test_after_power_on():
    cpu = Cpu(apic_id=3, enabled=False)
    assert cpu.rdmsr(APIC_BASE) == BASE | EN | BSP
    assert cpu.get(ID) == 3 << 24
    assert cpu.get(VERSION) & 0xFF == 0x14
    assert cpu.get(VERSION) >> 16 & 0xFF == len(LVTS) - 1
    assert not cpu.get(VERSION) & 1 << 24    # no EOI-broadcast suppression
    assert cpu.get(SVR) == 0xFF and cpu.get(DFR) == 0xFFFFFFFF
    assert all(cpu.get(reg) == MASKED for reg in LVTS)
    for reg in (TPR, PPR, LDR, ESR, ICR, INITIAL, CURRENT, DIVIDE):
        assert cpu.get(reg) == 0
    assert not cpu.m.lapic_accepts_pic(cpu.l)
    assert cpu.clock.next == cpu.m.VCLOCK_NEVER


def test_only_the_first_is_the_bootstrap_processor():
    bsp = Cpu()
    other = Cpu(1, of=bsp)
    assert bsp.rdmsr(APIC_BASE) & BSP and not other.rdmsr(APIC_BASE) & BSP
    other.wrmsr(APIC_BASE, BASE | EN | BSP)
    assert not other.rdmsr(APIC_BASE) & BSP


@pytest.mark.parametrize("old,new", itertools.product(
    (0, EN, EN | EXTD), (0, EXTD, EN, EN | EXTD)))
def test_mode_transitions(old, new):
    """SDM figure 10-27."""
    legal = {(0, 0), (0, EN), (EN, EN), (EN, 0), (EN, EN | EXTD),
             (EN | EXTD, EN | EXTD), (EN | EXTD, 0)}
    cpu = Cpu()
    if old != EN:
        cpu.wrmsr(APIC_BASE, BASE | old)
    if (old, new) in legal:
        cpu.wrmsr(APIC_BASE, BASE | new)
        assert cpu.rdmsr(APIC_BASE) == BASE | new | BSP
    else:
        with pytest.raises(Fault):
            cpu.wrmsr(APIC_BASE, BASE | new)
        assert cpu.rdmsr(APIC_BASE) == BASE | old | BSP
        new = old
    # Who answers now?
    assert (cpu.read(BASE + 16 * VERSION) & 0xFF == 0x14) == (new == EN)
    if new == EN | EXTD:
        assert cpu.rdmsr(0x803) & 0xFF == 0x14
    else:
        with pytest.raises(Fault):
            cpu.rdmsr(0x803)


@pytest.mark.parametrize("bit", [0, 7, 9, 39, 63])
def test_apic_base_reserved_bits(bit):
    cpu = Cpu()
    with pytest.raises(Fault):
        cpu.wrmsr(APIC_BASE, BASE | EN | 1 << bit)


def test_the_page_moves():
    cpu = Cpu()
    cpu.wrmsr(APIC_BASE, 0xFEF00000 | EN)
    assert cpu.read(BASE + 16 * VERSION) == 0xFFFFFFFF
    assert cpu.read(0xFEF00000 + 16 * VERSION) & 0xFF == 0x14
    cpu.m.lapic_reset(cpu.l)
    assert cpu.read(BASE + 16 * VERSION) & 0xFF == 0x14


def test_the_page_cannot_move_over_a_device():
    cpu = Cpu()
    io = cpu.m.new("struct ioapic *")
    assert cpu.m.ioapic_init(io, cpu.bus, cpu.apics, 0) == 0
    with pytest.raises(Fault):
        cpu.wrmsr(APIC_BASE, cpu.m.IOAPIC_BASE | EN)
    assert cpu.read(BASE + 16 * VERSION) & 0xFF == 0x14


def test_state_survives_the_way_to_x2apic_and_ends_with_disabling():
    cpu = Cpu(apic_id=0x25)
    cpu.set(TPR, 0x30)
    cpu.set(LVT_ERROR, 0xFE)
    cpu.send(0x51)
    cpu.wrmsr(APIC_BASE, BASE | EN | EXTD)
    cpu.x2apic = True
    assert cpu.get(ID) == 0x25
    assert cpu.get(LDR) == 0x2 << 16 | 1 << 5
    assert cpu.get(TPR) == 0x30 and cpu.get(LVT_ERROR) == 0xFE
    assert cpu.get(SVR) == 0x1FF and cpu.pending() == 0x51
    cpu.wrmsr(APIC_BASE, BASE)
    assert cpu.pending() == -1
    cpu.x2apic = False
    cpu.wrmsr(APIC_BASE, BASE | EN)
    assert cpu.get(ID) == 0x25 << 24 and cpu.get(LDR) == 0
    assert cpu.get(SVR) == 0xFF and cpu.get(TPR) == 0


def test_x2apic_msrs_that_exist():
    """SDM table 10-6: everything else in 0x800-0x8FF faults."""
    read_only = {ID, VERSION, PPR, LDR, CURRENT,
                 *range(ISR, ISR + 8), *range(TMR, TMR + 8),
                 *range(IRR, IRR + 8)}
    write_only = {EOI, SELF_IPI}
    both = {TPR, SVR, ESR, ICR, INITIAL, DIVIDE, *LVTS}
    cpu = Cpu(mode=EN | EXTD)
    for reg in range(0x100):
        for known, access in (
                (read_only | both, lambda r: cpu.rdmsr(0x800 + r)),
                (write_only | both, lambda r: cpu.wrmsr(0x800 + r, 0))):
            if reg in known:
                access(reg)
            else:
                with pytest.raises(Fault):
                    access(reg)


@pytest.mark.parametrize("reg,legal", [
    (TPR, 0xFF), (EOI, 0), (SVR, 0x3FF), (ESR, 0), (INITIAL, 0xFFFFFFFF),
    (DIVIDE, 0xB), (SELF_IPI, 0xFF), (LVT_TIMER, 0x710FF),
    (LVT_THERMAL, 0x117FF), (LVT_PERF, 0x117FF), (LINT0, 0x1F7FF),
    (LINT1, 0x1F7FF), (LVT_ERROR, 0x110FF), (ICR, 0xFFFFFFFF000CDFFF)])
def test_x2apic_reserved_bits(reg, legal):
    for bit in range(64):
        cpu = Cpu(mode=EN | EXTD)
        if legal >> bit & 1:
            cpu.wrmsr(0x800 + reg, 1 << bit)
        else:
            with pytest.raises(Fault):
                cpu.wrmsr(0x800 + reg, 1 << bit)


def test_icr_reads_back_in_x2apic_mode():
    cpu = Cpu(mode=EN | EXTD)
    cpu.wrmsr(0x830, 0x12345678_00000C40)
    assert cpu.rdmsr(0x830) == 0x12345678_00000C40


def test_xapic_accesses_of_other_sizes():
    cpu = Cpu()
    cpu.set(TPR, 0x5A)
    at = BASE + 16 * TPR
    cpu.write(at, 0x77, size=1)
    cpu.write(at + 4, 0x77)
    cpu.write(at, 0x77, size=8)
    assert cpu.get(TPR) == 0x5A
    version = cpu.get(VERSION)
    at = BASE + 16 * VERSION
    assert cpu.read(at, 8) == version
    assert cpu.read(at + 2, 1) == version >> 16 & 0xFF
    assert cpu.read(at + 2, 2) == version >> 16
    assert cpu.read(at + 4) == 0


def test_read_only_registers_stay():
    cpu = Cpu(apic_id=2)
    before = [cpu.get(reg) for reg in range(0x40)]
    for reg in (ID, VERSION, PPR, CURRENT, *range(ISR, ESR)):
        cpu.set(reg, 0xFFFFFFFF)
    assert [cpu.get(reg) for reg in range(ESR)] == before[:ESR]


# --- Priorities ---

def test_a_vector_waits_for_the_class_below_it(cpu):
    for vector in (0x31, 0x41, 0x45):
        cpu.send(vector)
    assert cpu.take() == 0x45
    assert cpu.take() is None       # 0x41: same class
    cpu.send(0x52)
    assert cpu.take() == 0x52 and cpu.get(PPR) == 0x50
    cpu.set(EOI, 0)
    cpu.set(EOI, 0)
    assert cpu.take() == 0x41
    cpu.set(TPR, 0x42)
    cpu.set(EOI, 0)
    assert cpu.get(PPR) == 0x42 and cpu.take() is None
    cpu.set(TPR, 0x2F)
    assert cpu.take() == 0x31


def test_cr8(cpu):
    cpu.m.lapic_set_cr8(cpu.l, 5)
    assert cpu.get(TPR) == 0x50
    cpu.set(TPR, 0xAB)
    assert cpu.m.lapic_cr8(cpu.l) == 0xA


def test_software_disabled(cpu):
    """SDM 10.4.7.2"""
    for reg in LVTS:
        cpu.set(reg, 0x40)
    cpu.send(0x61)
    cpu.set(SVR, 0xFF)
    assert all(cpu.get(reg) & MASKED for reg in LVTS)
    cpu.set(LVT_ERROR, 0x40)
    assert cpu.get(LVT_ERROR) == MASKED | 0x40
    assert not cpu.send(0x62)
    assert cpu.take() == 0x61       # held, not lost
    assert cpu.take() is None
    cpu.send(0, delivery=4)
    cpu.send(0, delivery=5)
    cpu.send(0x12, delivery=6)
    assert cpu.l.nmi_pending and cpu.l.init_pending
    assert cpu.l.sipi_pending and cpu.l.sipi_vector == 0x12


def test_eoi_of_a_level_interrupt_goes_on_to_the_ioapic(cpu):
    cpu.send(0x50, level=True)
    cpu.send(0x70)
    assert cpu.bits(TMR) == {0x50}
    cpu.take()
    cpu.set(EOI, 0)
    assert cpu.eois == []
    cpu.take()
    cpu.set(EOI, 0)
    assert cpu.eois == [0x50]
    cpu.set(EOI, 0)                 # with nothing in service: nothing
    assert cpu.eois == [0x50]
    cpu.send(0x50)                  # as an edge now
    cpu.take()
    cpu.set(EOI, 0)
    assert cpu.eois == [0x50] and cpu.bits(TMR) == set()


def test_an_interrupt_of_its_own_is_an_edge(cpu):
    """Though the vector was a line's before (SDM 10.8.4, TMR)."""
    cpu.send(0x50, level=True)
    cpu.take()
    cpu.set(EOI, 0)
    cpu.send(0x51, level=True)
    cpu.take()
    cpu.set(EOI, 0)
    cpu.set(ICR, 0x44050)           # to itself
    assert cpu.bits(TMR) == {0x51}
    cpu.take()
    cpu.set(EOI, 0)
    assert cpu.eois == [0x50, 0x51]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([EN, EN | EXTD]), st.lists(st.one_of(
    st.tuples(st.just("send"), st.integers(16, 255)),
    st.tuples(st.just("tpr"), st.integers(0, 255)),
    st.tuples(st.just("cr8"), st.integers(0, 15)),
    st.tuples(st.sampled_from(["take", "take", "eoi"]), st.just(0))),
    max_size=60))
def test_priorities_against_a_model(mode, steps):
    cpu, irr, isr, tpr = Cpu(mode=mode), set(), set(), 0
    for what, value in steps:
        if what == "send":
            assert cpu.send(value)
            irr.add(value)
        elif what == "tpr":
            cpu.set(TPR, value)
            tpr = value
        elif what == "cr8":
            cpu.m.lapic_set_cr8(cpu.l, value)
            tpr = value << 4
        elif what == "eoi":
            cpu.set(EOI, 0)
            isr -= {max(isr, default=0)}
        else:
            ready = [v for v in irr if v >> 4 > tpr >> 4 and
                     all(v >> 4 > s >> 4 for s in isr)]
            assert cpu.take() == max(ready, default=None)
            if ready:
                irr.remove(max(ready))
                isr.add(max(ready))
        busy = max(isr, default=0) & 0xF0
        assert cpu.get(PPR) == (tpr if tpr & 0xF0 >= busy else busy)
        assert cpu.bits(IRR) == irr and cpu.bits(ISR) == isr


# --- Messages ---

def machine(count, mode=EN, ids=None):
    ids = ids or range(count)
    first = Cpu(ids[0], mode=mode)
    return [first] + [Cpu(n, of=first, mode=mode) for n in ids[1:]]


def got(cpus):
    """Which CPUs the interrupt reached, each once; all are emptied."""
    return [c.id for c in cpus if c.take() is not None and
            c.set(EOI, 0) is None]


@pytest.mark.parametrize("mode", [EN, EN | EXTD])
def test_physical_destinations_and_shorthands(mode):
    cpus = machine(4, mode)
    everybody = 0xFFFFFFFF if mode & EXTD else 0xFF
    for low, dest, expect in (
            (0x40, 2, [2]), (0x40, 7, []), (0x40, 1, [1]),
            (0x40, everybody, [0, 1, 2, 3]),
            (0x40040, 3, [1]), (0x80040, 0, [0, 1, 2, 3]),
            (0xC0040, 0, [0, 2, 3])):
        cpus[1].ipi(low, dest)
        assert got(cpus) == expect


def test_logical_destinations_in_flat_and_cluster_model():
    cpus = machine(4)
    for cpu in cpus:
        cpu.set(LDR, 1 << 24 + cpu.id)
    cpus[0].ipi(0x840, 0b1010)
    assert got(cpus) == [1, 3]
    cpus[0].ipi(0x840, 0xFF)
    assert got(cpus) == [0, 1, 2, 3]
    for cpu, ldr in zip(cpus, (0x11, 0x12, 0x21, 0x22)):
        cpu.set(DFR, 0)
        assert cpu.get(DFR) == 0x0FFFFFFF
        cpu.set(LDR, ldr << 24)
    for dest, expect in ((0x13, [0, 1]), (0x22, [3]), (0x31, []),
                         (0xF1, [0, 2]), (0xFF, [0, 1, 2, 3])):
        cpus[0].ipi(0x840, dest)
        assert got(cpus) == expect


def test_x2apic_logical_destinations():
    cpus = machine(4, EN | EXTD, ids=[0, 5, 0x13, 0x120])
    for dest, expect in ((0x00000021, [0, 5]), (0x00010008, [0x13]),
                         (0x00120001, [0x120]), (0x0000FFFF, [0, 5]),
                         (0xFFFFFFFF, [0, 5, 0x13, 0x120]), (0x20001, [])):
        cpus[0].ipi(0x840, dest)
        assert got(cpus) == expect


def test_lowest_priority_takes_the_least_busy():
    cpus = machine(3, EN | EXTD)
    for cpu, tpr in zip(cpus, (0x60, 0x30, 0x40)):
        cpu.set(TPR, tpr)
    cpus[0].ipi(0x170, 0xFFFFFFFF)
    assert got(cpus) == [1]
    cpus[1].ipi(0xC0170)            # but not to itself
    assert got(cpus) == [2]
    cpus[1].set(SVR, 0xFF)
    cpus[0].ipi(0x170, 0xFFFFFFFF)
    assert got(cpus) == [2]


def test_linux_wakes_a_cpu():
    """wakeup_secondary_cpu_via_init: INIT, de-assert, two SIPIs."""
    bsp, ap = machine(2)
    ap.set(TPR, 0x20)
    bsp.ipi(0xC500, 1)
    assert ap.l.init_pending and not bsp.l.init_pending
    ap.m.lapic_init_signal(ap.l)
    assert not ap.l.init_pending
    assert ap.get(ID) == 1 << 24 and ap.get(TPR) == 0
    assert ap.get(SVR) == 0xFF
    bsp.ipi(0x8500, 1)
    assert not ap.l.init_pending
    bsp.ipi(0x0699, 1)
    bsp.ipi(0x0698, 1)      # it has been started
    assert ap.l.sipi_pending and ap.l.sipi_vector == 0x99
    bsp.ipi(0xC500, 1)      # and is to start anew
    bsp.ipi(0x0697, 1)
    assert ap.l.sipi_pending and ap.l.sipi_vector == 0x97


def test_init_keeps_x2apic_mode():
    cpu = Cpu(apic_id=0x21, mode=EN | EXTD)
    cpu.m.lapic_init_signal(cpu.l)
    assert cpu.get(ID) == 0x21 and cpu.get(LDR) == 2 << 16 | 2


def test_nmi_to_all_others():
    cpus = machine(3)
    cpus[0].ipi(0xC0400)
    assert [bool(c.l.nmi_pending) for c in cpus] == [False, True, True]


@pytest.mark.parametrize("low", [0x40400, 0x44500, 0x40600, 0x80400, 0x84500,
                                 0x700, 0x80700])
def test_ipis_that_are_not_valid_are_dropped(low):
    cpus = machine(2)
    cpus[0].ipi(low, 0)
    for c in cpus:
        assert not (c.l.nmi_pending or c.l.init_pending or
                    c.l.sipi_pending or c.l.extint_pending)


def test_self_ipi_register():
    cpus = machine(2, EN | EXTD)
    cpus[1].set(SELF_IPI, 0x55)
    assert got(cpus) == [1]


def test_msi():
    cpus = machine(3)
    m, apics = cpus[0].m, cpus[0].apics
    for address, data, expect in (
            (0xFEE02000, 0x45, [2]), (0xFEEFF000, 0x45, [0, 1, 2]),
            (0xFED02000, 0x45, []), (0x1FEE02000, 0x45, [])):
        m.apic_bus_msi(apics, address, data)
        assert got(cpus) == expect
    for cpu in cpus:
        cpu.set(LDR, 1 << 24 + cpu.id)
    cpus[1].set(TPR, 0x30)
    m.apic_bus_msi(apics, 0xFEE06004, 0x45)
    assert got(cpus) == [1, 2]
    m.apic_bus_msi(apics, 0xFEE0600C, 0x45)    # redirection hint
    assert got(cpus) == [2]
    m.apic_bus_msi(apics, 0xFEE01000, 0x400)
    assert cpus[1].l.nmi_pending
    m.apic_bus_msi(apics, 0xFEE00000, 0x8046)
    assert cpus[0].bits(TMR) == {0x46}


def test_whom_a_message_names_first():
    """Who would not take it is not named, whatever else it does."""
    cpus = machine(3)
    m, apics = cpus[0].m, cpus[0].apics
    for n, cpu in enumerate(cpus):
        cpu.set(SVR, 0x1ff)
        cpu.set(LDR, 1 << 24 + n)

    def named(address, data=0x45):
        got = m.apic_bus_msi_target(apics, address, data)
        return None if got == m.APIC_BROADCAST else got
    assert [named(to) for to in (
        0xFEE02000, 0xFEE03000, 0xFEEFF000, 0xFEE06004, 0xFEE04004,
        0xFEE0600C, 0xFED02000)] == [2, None, 0, 1, 2, 1, None]
    assert named(0xFEE01000, 0x400) == 1
    cpus[1].set(SVR, 0xFF)
    assert [named(to) for to in (0xFEE01000, 0xFEE06004)] == [None, 2]
    cpus[2].wrmsr(APIC_BASE, BASE)
    assert named(0xFEE06004) is None
    assert got(cpus) == []


def test_a_disabled_lapic_hears_nothing():
    cpus = machine(2)
    cpus[1].wrmsr(APIC_BASE, BASE)
    cpus[0].ipi(0xC0400)
    cpus[0].ipi(0x40, 1)
    assert not cpus[1].l.nmi_pending and cpus[1].pending() == -1


# --- Errors ---

def test_errors_show_when_esr_is_written(cpu):
    cpu.set(LVT_ERROR, 0xFE)
    cpu.ipi(0x0F, 0)                  # illegal vector sent
    assert cpu.get(ESR) == 0
    assert cpu.take() == 0xFE
    cpu.set(ESR, 0)
    assert cpu.get(ESR) == 1 << 5
    cpu.set(EOI, 0)
    cpu.send(0x05)                    # and received
    assert cpu.take() == 0xFE
    assert cpu.get(ESR) == 1 << 5     # the old one, until it is written
    cpu.set(ESR, 0)
    assert cpu.get(ESR) == 1 << 6
    cpu.set(ESR, 0)
    assert cpu.get(ESR) == 0


def test_an_illegal_error_vector_does_not_recurse(cpu):
    cpu.set(LVT_ERROR, 0x03)
    cpu.send(0x05)
    cpu.set(ESR, 0)
    assert cpu.get(ESR) == 1 << 6 and cpu.take() is None


def test_reserved_registers_report_an_illegal_address():
    cpu = Cpu()
    for at in (0x000, 0x040, 0x2F0, 0x3A0, 0x3F0, 0x400, 0xFF0):
        assert cpu.read(BASE + at) == 0
        cpu.set(ESR, 0)
        assert cpu.get(ESR) == 1 << 7, hex(at)
        cpu.set(ESR, 0)


# --- Pins ---

def test_virtual_wire():
    """What firmware leaves for a kernel that knows only the 8259."""
    cpu = Cpu(enabled=False)
    cpu.m.lapic_virtual_wire(cpu.l)
    assert cpu.m.lapic_accepts_pic(cpu.l)
    cpu.set(LINT0, MASKED | 0x700)
    assert not cpu.m.lapic_accepts_pic(cpu.l)


def test_without_the_lapic_the_pin_is_intr():
    cpu = Cpu()
    cpu.wrmsr(APIC_BASE, BASE)
    assert cpu.m.lapic_accepts_pic(cpu.l)


def test_lint0_in_another_mode_is_not_for_the_pic(cpu):
    """As Linux's check_timer tries it."""
    cpu.set(LINT0, 0x30)
    assert not cpu.m.lapic_accepts_pic(cpu.l)


def test_an_extint_message_opens_the_way_to_the_pic(cpu):
    cpu.send(0, delivery=7)
    assert cpu.l.extint_pending and cpu.m.lapic_accepts_pic(cpu.l)


# --- Timer ---

DIVIDES = {0b0000: 2, 0b0001: 4, 0b0010: 8, 0b0011: 16, 0b1000: 32,
           0b1001: 64, 0b1010: 128, 0b1011: 1}


@pytest.mark.parametrize("code,divide", DIVIDES.items())
def test_one_shot(cpu, code, divide):
    cpu.set(DIVIDE, code)
    cpu.set(LVT_TIMER, 0xEC)
    cpu.set(INITIAL, 1000)
    start = cpu.m.tsc
    assert cpu.clock.next == start + 1000 * divide
    assert cpu.get(CURRENT) == 1000
    cpu.until(start + 10 * divide)
    assert cpu.get(CURRENT) == 990
    cpu.until(start + 1000 * divide - 1)
    assert cpu.get(CURRENT) == 1 and cpu.take() is None
    cpu.wait(1)
    assert cpu.get(CURRENT) == 0 and cpu.take() == 0xEC
    assert cpu.get(INITIAL) == 1000
    cpu.wait(10**9)
    cpu.set(EOI, 0)
    assert cpu.take() is None


def test_periodic_does_not_drift(cpu):
    """Exits come late; the deadlines stay on the grid."""
    cpu.set(DIVIDE, 0b0011)
    cpu.set(LVT_TIMER, PERIODIC | 0xEC)
    cpu.set(INITIAL, 62500)
    start, period, ticks = cpu.m.tsc, 1_000_000, 0
    for n in range(1, 200):
        assert cpu.clock.next == start + n * period
        cpu.m.tsc = start + n * period + n * 4999    # up to a whole period
        assert cpu.get(CURRENT) == -(-(period - n * 4999) // 16)
        cpu.m.vclock_run(cpu.clock, cpu.m.tsc)
        ticks += cpu.take() == 0xEC
        cpu.set(EOI, 0)
        assert cpu.get(CURRENT) == -(-(period - n * 4999) // 16)
    assert ticks == 199


def test_periods_that_were_slept_through_are_one_interrupt(cpu):
    cpu.set(DIVIDE, 0b1011)
    cpu.set(LVT_TIMER, PERIODIC | 0xEC)
    cpu.set(INITIAL, 1_000_000)
    start = cpu.m.tsc
    cpu.m.tsc = start + 5_500_000
    cpu.m.vclock_run(cpu.clock, cpu.m.tsc)
    assert cpu.take() == 0xEC
    assert cpu.clock.next == start + 6_000_000


def test_a_tiny_period_leaves_the_guest_time(cpu):
    cpu.set(DIVIDE, 0b1011)
    cpu.set(LVT_TIMER, PERIODIC | 0xEC)
    cpu.set(INITIAL, 1)
    cpu.wait(1)
    assert cpu.clock.next - cpu.m.tsc > cpu.hz // 100_000


def test_tsc_deadline(cpu):
    assert cpu.rdmsr(TSC_DEADLINE) == 0
    cpu.wrmsr(TSC_DEADLINE, 99)                 # not in that mode: ignored
    assert cpu.rdmsr(TSC_DEADLINE) == 0
    assert cpu.clock.next == cpu.m.VCLOCK_NEVER
    cpu.set(LVT_TIMER, DEADLINE | 0xEC)
    at = cpu.m.tsc + 123_457
    cpu.wrmsr(TSC_DEADLINE, at)
    assert cpu.rdmsr(TSC_DEADLINE) == at == cpu.clock.next
    assert cpu.get(CURRENT) == 0
    cpu.set(INITIAL, 5)                         # ignored in this mode
    assert cpu.get(INITIAL) == 0 and cpu.clock.next == at
    cpu.until(at - 1)
    assert cpu.take() is None
    cpu.until(at)
    assert cpu.take() == 0xEC and cpu.rdmsr(TSC_DEADLINE) == 0
    cpu.set(EOI, 0)
    cpu.wrmsr(TSC_DEADLINE, 1)                  # long gone: at once
    cpu.wait(0)
    assert cpu.take() == 0xEC
    cpu.wrmsr(TSC_DEADLINE, cpu.m.tsc + 10)
    cpu.wrmsr(TSC_DEADLINE, 0)                  # disarmed
    assert cpu.clock.next == cpu.m.VCLOCK_NEVER


def test_masked_deadline_passes_unseen(cpu):
    cpu.set(LVT_TIMER, DEADLINE | MASKED | 0xEC)
    cpu.wrmsr(TSC_DEADLINE, cpu.m.tsc + 10)
    cpu.wait(20)
    cpu.set(LVT_TIMER, DEADLINE | 0xEC)
    cpu.wait(20)
    assert cpu.take() is None and cpu.rdmsr(TSC_DEADLINE) == 0


@pytest.mark.parametrize("first,second", [(DEADLINE, 0), (0, DEADLINE),
                                          (PERIODIC, DEADLINE)])
def test_leaving_a_mode_disarms(cpu, first, second):
    cpu.set(LVT_TIMER, first | 0xEC)
    if first == DEADLINE:
        cpu.wrmsr(TSC_DEADLINE, cpu.m.tsc + 1000)
    else:
        cpu.set(INITIAL, 1000)
    assert cpu.clock.next != cpu.m.VCLOCK_NEVER
    cpu.set(LVT_TIMER, second | 0xEC)
    assert cpu.clock.next == cpu.m.VCLOCK_NEVER
    assert cpu.get(CURRENT) == 0


def test_stopping_and_dividing_anew(cpu):
    cpu.set(DIVIDE, 0b1011)
    cpu.set(LVT_TIMER, 0xEC)
    cpu.set(INITIAL, 1_000_000)
    cpu.wait(400_000)
    cpu.set(DIVIDE, 0b0000)
    assert cpu.get(CURRENT) == 600_000
    assert cpu.clock.next == cpu.m.tsc + 1_200_000
    cpu.set(INITIAL, 0)
    assert cpu.clock.next == cpu.m.VCLOCK_NEVER and cpu.get(CURRENT) == 0


def test_linux_calibrates():
    """calibrate_APIC_clock: counts at the TSC's rate over 16."""
    cpu = Cpu()
    cpu.set(LVT_TIMER, MASKED | 0xEC)
    cpu.set(DIVIDE, 0b0011)
    cpu.set(INITIAL, 0xFFFFFFFF)
    before = cpu.get(CURRENT)
    cpu.wait(cpu.seconds(0.1))
    assert before - cpu.get(CURRENT) == cpu.hz // 10 // 16


def test_reset_from_any_state():
    cpu = Cpu(apic_id=1, mode=EN | EXTD)
    cpu.set(LVT_TIMER, PERIODIC | 0xEC)
    cpu.set(INITIAL, 1000)
    cpu.send(0x40)
    cpu.send(0x20, delivery=4)
    cpu.send(0x20, delivery=6)
    cpu.m.lapic_reset(cpu.l)
    fresh = Cpu(apic_id=1, enabled=False)
    cpu.x2apic = False
    assert cpu.rdmsr(APIC_BASE) == fresh.rdmsr(APIC_BASE)
    assert [cpu.get(r) for r in range(0x40)] == \
        [fresh.get(r) for r in range(0x40)]
    assert cpu.pending() == -1 and cpu.clock.next == cpu.m.VCLOCK_NEVER
    assert not cpu.l.nmi_pending and not cpu.l.sipi_pending


def test_no_room():
    cpu = Cpu()
    cpu.apics.count = cpu.m.APIC_BUS_MAX
    other = cpu.aligned("struct lapic", 4096)
    assert cpu.m.lapic_init(other, cpu.apics, cpu.bus, cpu.clock, 9, 39) == \
        -cpu.m.ENOSPC
