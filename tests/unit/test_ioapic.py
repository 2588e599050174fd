# SPDX-License-Identifier: MIT
"""IOAPIC pins to LAPIC vectors and back with the EOI."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmodel import Machine

BASE, LAPIC = 0xFEC00000, 0xFEE00000
LOGICAL, LOW, REMOTE_IRR, LEVEL, MASKED = (
    1 << 11, 1 << 13, 1 << 14, 1 << 15, 1 << 16)


class Io(Machine):
    def __init__(self, cpus=1):
        super().__init__()
        m = self.m
        self.apics = m.new("struct apic_bus *")
        self.io = m.new("struct ioapic *")
        assert m.ioapic_init(self.io, self.bus, self.apics, 7) == 0
        self.cpus = []
        for n in range(cpus):
            bus = self.bus if n == 0 else m.new("struct bus *")
            cpu = self.aligned("struct lapic", 4096)
            assert m.lapic_init(cpu, self.apics, bus, self.clock, n, 39) == 0
            m.lapic_virtual_wire(cpu)
            self.cpus.append(cpu)

    def get(self, reg):
        self.write(BASE, reg)
        return self.read(BASE + 0x10)

    def set(self, reg, value):
        self.write(BASE, reg)
        self.write(BASE + 0x10, value)

    def route(self, pin, low, dest=0):
        self.set(0x11 + 2 * pin, dest << 24)
        self.set(0x10 + 2 * pin, low)

    def line(self, pin, on=True):
        self.m.ioapic_set_line(self.io, pin, on)

    def remote_irr(self, pin):
        return bool(self.get(0x10 + 2 * pin) & REMOTE_IRR)

    def take(self, cpu=0):
        cpu = self.cpus[cpu]
        vector = self.m.lapic_pending(cpu)
        if vector < 0:
            return None
        self.m.lapic_ack(cpu, vector)
        return vector

    def eoi(self, cpu=0):
        self.m.lapic_eoi(self.cpus[cpu])


@pytest.fixture
def io():
    return Io()


def test_registers(io):
    assert io.get(0) == 7 << 24 == io.get(2)
    assert io.get(1) == 23 << 16 | 0x20
    assert all(io.get(0x10 + 2 * pin) == MASKED for pin in range(24))
    io.set(0, 0xFF000000)
    assert io.get(0) == 0x0F000000
    io.set(0x10, 0xFFFFFFFF)
    io.set(0x11, 0xFFFFFFFF)
    assert io.get(0x10) == 0x1AFFF      # status and remote IRR are read-only
    assert io.get(0x11) == 0xFF000000
    for reg in (3, 0x0F, 0x40, 0xFF):
        io.set(reg, 0x12345678)
        assert io.get(reg) == 0
    assert io.read(BASE) == 0xFF
    assert io.read(BASE + 0xffc) == 0xFFFFFFFF      # the page is its own
    assert not any(io.m.bus_dispatch(io.bus, io.m.BUS_MMIO, io.m.new(
        "struct bus_access *", {"addr": BASE + at, "size": 1}))
        for at in (0, 0xfff))
    assert io.read(BASE + 4) == 0xFFFFFFFF
    io.write(BASE + 4, 1)
    assert io.read(BASE, 1) == 0xFF


def test_edge(io):
    io.route(4, 0x34)
    io.line(4)
    assert io.take() == 0x34 and not io.remote_irr(4)
    io.eoi()
    io.line(4)                           # no new edge
    assert io.take() is None
    io.line(4, False)
    io.line(4)
    assert io.take() == 0x34


def test_an_edge_on_a_masked_pin_is_lost(io):
    """82093AA 3.2.4"""
    io.route(4, MASKED | 0x34)
    io.line(4)
    io.route(4, 0x34)
    assert io.take() is None


def test_level_comes_again_until_it_is_served(io):
    io.route(16, LEVEL | LOW | 0x50)
    io.line(16)
    assert io.take() == 0x50 and io.remote_irr(16)
    io.line(16, False)
    io.line(16)                          # its message is outstanding
    assert io.take() is None
    io.eoi()
    assert io.take() == 0x50 and io.remote_irr(16)
    io.line(16, False)
    io.eoi()
    assert io.take() is None and not io.remote_irr(16)


def test_level_on_a_masked_pin_waits(io):
    """Linux masks, sends the EOI, and unmasks from the thread."""
    io.route(9, LEVEL | 0x59)
    io.line(9)
    io.take()
    io.set(0x10 + 18, LEVEL | MASKED | 0x59)
    io.eoi()
    assert io.take() is None
    io.set(0x10 + 18, LEVEL | 0x59)
    assert io.take() == 0x59


def test_eoi_register(io):
    io.route(16, LEVEL | 0x50)
    io.route(17, LEVEL | 0x51)
    io.line(16)
    io.line(17)
    io.write(BASE + 0x40, 0x51)
    assert io.remote_irr(16) and io.remote_irr(17)    # 17 fired again
    io.line(17, False)
    io.write(BASE + 0x40, 0x51)
    assert io.remote_irr(16) and not io.remote_irr(17)


def test_an_eoi_is_its_vectors_alone(io):
    io.route(16, LEVEL | 0x50)
    io.route(17, LEVEL | 0x51)
    for pin in (16, 17):
        io.line(pin)
        io.line(pin, False)
    io.write(BASE + 0x40, 0x51)
    assert io.remote_irr(16) and not io.remote_irr(17)


def test_two_pins_with_one_vector(io):
    io.route(16, LEVEL | 0x50)
    io.route(17, LEVEL | 0x50)
    io.line(16)
    io.line(17)
    assert io.take() == 0x50
    io.line(16, False)
    io.eoi()
    assert not io.remote_irr(16) and io.remote_irr(17)
    assert io.take() == 0x50


def test_the_way_to_edge_and_back_drops_an_eoi_that_never_came(io):
    """Linux's clear_IO_APIC_pin."""
    io.route(10, LEVEL | 0x5A)
    io.line(10)
    io.line(10, False)
    assert io.remote_irr(10)
    io.set(0x10 + 20, MASKED | 0x5A)
    io.set(0x10 + 20, MASKED | LEVEL | 0x5A)
    assert not io.remote_irr(10)


def test_pulses_on_a_level_pin_are_never_lost(io):
    """A device's MSI stands for its INTx."""
    io.route(18, LEVEL | LOW | MASKED | 0x52)
    io.m.ioapic_pulse(io.io, 18)
    assert io.take() is None
    io.set(0x10 + 36, LEVEL | LOW | 0x52)
    assert io.take() == 0x52
    io.m.ioapic_pulse(io.io, 18)         # while the first is served
    assert io.take() is None
    io.eoi()
    assert io.take() == 0x52
    io.eoi()
    assert io.take() is None and not io.remote_irr(18)
    io.route(3, 0x33)
    io.m.ioapic_pulse(io.io, 3)
    assert io.take() == 0x33
    io.m.ioapic_pulse(io.io, 3)
    io.eoi()
    assert io.take() == 0x33


def test_a_pulse_that_waits_is_dropped_with_the_level(io):
    """An edge that comes while it is masked is lost; so is one before it."""
    io.route(18, LEVEL | LOW | MASKED | 0x52)
    io.m.ioapic_pulse(io.io, 18)
    io.set(0x10 + 36, MASKED | 0x52)
    io.set(0x10 + 36, LEVEL | LOW | 0x52)
    assert io.take() is None and not io.remote_irr(18)


def test_destinations():
    io = Io(cpus=3)
    for dest, low, expect in ((1, 0x40, [1]), (0xFF, 0x40, [0, 1, 2]),
                              (9, 0x40, [])):
        io.route(5, low, dest)
        io.line(5)
        io.line(5, False)
        assert [n for n in range(3) if io.take(n)] == expect
        for n in range(3):
            io.eoi(n)
    io.write(LAPIC + 0xD0, 1 << 24)
    io.route(5, LOGICAL | 0x100 | 0x40, 1)
    io.line(5)
    assert io.take(0) == 0x40


def test_whom_a_pin_names():
    """Told at each write of the entry, before what it owes is sent."""
    io, heard = Io(cpus=3), []
    m = io.m

    def named(pin):
        got = m.ioapic_target(io.io, pin)
        return None if got == m.APIC_BROADCAST else got
    assert named(16) is None and named(24) is None
    io.io.routed = m.callback("void(void *, unsigned)", lambda ctx, pin:
                              heard.append((pin, named(pin), io.remote_irr(pin))))
    io.line(16)
    io.route(16, LEVEL | MASKED | 0x50, dest=2)
    io.set(0x10 + 32, LEVEL | 0x50)
    io.set(0x11 + 32, 1 << 24)
    assert heard == [(16, None, False)] * 2 + [
        (16, 2, False), (16, 1, True)]
    io.route(17, LEVEL | 0x51, dest=9)
    assert heard[-1] == (17, None, False)


def test_nobody_took_it(io):
    """No LAPIC there: the level is still owed when one is."""
    io.route(16, LEVEL | 0x50, dest=9)
    io.line(16)
    assert not io.remote_irr(16)
    io.set(0x11 + 32, 0)
    assert io.take() == 0x50


def test_delivery_modes_without_a_vector(io):
    io.route(2, 0x400)
    io.line(2)
    assert io.cpus[0].nmi_pending
    io.route(0, 0x700)
    io.line(0)
    assert io.cpus[0].extint_pending
    io.route(3, 0x500)
    io.line(3)
    assert io.cpus[0].init_pending
    io.route(16, LEVEL | 0x400)          # an NMI is always an edge
    io.line(16)
    assert not io.remote_irr(16)


def test_pins_that_are_not_there(io):
    for pin in (24, 31, 32, 2**32 - 1):
        io.line(pin)
        io.m.ioapic_pulse(io.io, pin)
    assert io.take() is None


def test_reset_masks_but_the_lines_stay(io):
    io.route(16, LEVEL | 0x50)
    io.line(16)
    io.m.ioapic_reset(io.io)
    io.m.lapic_reset(io.cpus[0])
    io.m.lapic_virtual_wire(io.cpus[0])
    assert io.get(0x10 + 32) == MASKED and io.get(0) == 7 << 24
    io.route(16, LEVEL | 0x50)
    assert io.take() == 0x50


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(
    st.sampled_from(["up", "down", "mask", "unmask", "serve", "pulse"]),
    st.integers(0, 3)), max_size=60))
def test_no_level_interrupt_is_lost_or_invented(steps):
    """Four level pins: what is asserted and unmasked is pending or being
    served; what is neither asserted nor owed comes once more at most."""
    io, up, masked, owed = Io(), set(), set(), set()
    for pin in range(4):
        io.route(16 + pin, LEVEL | 0x40 + 16 * pin)
    for what, pin in steps:
        if what in ("up", "down"):
            io.line(16 + pin, what == "up")
            (up.add if what == "up" else up.discard)(pin)
        elif what == "pulse":
            io.m.ioapic_pulse(io.io, 16 + pin)
            owed.add(pin)
        elif what in ("mask", "unmask"):
            (masked.add if what == "mask" else masked.discard)(pin)
            io.set(0x10 + 32 + 2 * pin, LEVEL | 0x40 + 16 * pin |
                   (MASKED if pin in masked else 0))
        else:
            vector = io.take()
            if vector is not None:
                owed.discard((vector - 0x40) // 16)
                io.eoi()
    for pin in range(4):
        io.line(16 + pin, False)
        io.set(0x10 + 32 + 2 * pin, LEVEL | 0x40 + 16 * pin)
    came = set()
    for _ in range(9):
        vector = io.take()
        if vector is not None:
            came.add((vector - 0x40) // 16)
            io.eoi()
    assert owed <= came
    assert io.take() is None
    assert not any(io.remote_irr(16 + pin) for pin in range(4))
