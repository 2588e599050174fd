# SPDX-License-Identifier: MIT
"""8259 pair: what drivers do with it, and its priorities against a model."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmodel import Machine

MASTER, SLAVE = 0x20, 0xA0
EOI = 0x20


class Pic(Machine):
    def __init__(self, init=True, icw4=0x01):
        super().__init__()
        self.p = self.m.new("struct pic *")
        assert self.m.pic_init(self.p, self.bus) == 0
        if init:
            for port, base, icw3 in (MASTER, 0x30, 4), (SLAVE, 0x38, 2):
                for n, value in enumerate((0x11, base, icw3, icw4)):
                    self.out(port + (n > 0), value)

    def line(self, n, on=True):
        self.m.pic_set_line(self.p, n, on)

    def pulse(self, n):
        self.line(n)
        self.line(n, False)

    def pending(self):
        return self.m.pic_pending(self.p)

    def ack(self):
        return self.m.pic_ack(self.p)

    def isr(self, port=MASTER):
        self.out(port, 0x0B)
        return self.inp(port)

    def irr(self, port=MASTER):
        self.out(port, 0x0A)
        return self.inp(port)


@pytest.fixture
def pic():
    return Pic()


def test_linux_probes_and_initializes():
    """init_8259A and probe_8259A: the mask register reads back."""
    pic = Pic(init=False)
    pic.out(0xA1, 0xFF)
    pic.out(0x21, 0xFB)
    assert pic.inp(0x21) == 0xFB
    for port, base, icw3 in (MASTER, 0x30, 4), (SLAVE, 0x38, 2):
        for n, value in enumerate((0x11, base, icw3, 0x01)):
            pic.out(port + (n > 0), value)
    assert pic.inp(0x21) == 0
    pic.out(0x21, 0xFF)
    pic.pulse(0)
    assert not pic.pending()
    pic.out(0x21, 0xFE)
    assert pic.pending() and pic.ack() == 0x30
    assert not pic.pending()
    assert pic.isr() == 1
    pic.out(MASTER, 0x60)     # specific EOI 0
    assert pic.isr() == 0


def test_nothing_comes_before_initialization():
    pic = Pic(init=False)
    for line in range(16):
        pic.pulse(line)
    assert not pic.pending()


def test_slave_through_the_cascade(pic):
    pic.pulse(12)
    assert pic.irr(SLAVE) == 0x10 and pic.irr() == 0x04
    assert pic.ack() == 0x38 + 4
    assert pic.isr() == 0x04 and pic.isr(SLAVE) == 0x10
    pic.pulse(9)          # higher in the slave, but the master serves IRQ 2
    assert not pic.pending()
    pic.pulse(1)
    assert pic.pending() and pic.ack() == 0x31
    pic.out(MASTER, EOI)
    pic.out(SLAVE, EOI)
    pic.out(MASTER, EOI)
    assert pic.ack() == 0x38 + 1


def test_special_fully_nested_mode_lets_a_higher_slave_input_in():
    pic = Pic(icw4=0x11)
    pic.pulse(12)
    pic.ack()
    pic.pulse(9)
    assert pic.pending() and pic.ack() == 0x39


def test_spurious_interrupt_has_no_isr_bit(pic):
    pic.out(0x4D0, 0x20)
    pic.line(5)
    assert pic.pending()
    pic.line(5, False)    # a level gone before the acknowledge
    assert not pic.pending()
    assert pic.ack() == 0x37
    assert pic.isr() == 0


def test_masked_between_intr_and_acknowledge_is_spurious(pic):
    pic.pulse(3)
    assert pic.pending()
    pic.out(0x21, 0x08)
    assert pic.ack() == 0x37 and pic.isr() == 0
    pic.out(0x21, 0)
    assert pic.ack() == 0x33


def test_a_level_comes_again_after_eoi_an_edge_does_not(pic):
    pic.out(0x4D1, 0x02)
    for line, again in (9, True), (10, False):
        pic.line(line)
        assert pic.ack() == 0x30 + line
        pic.out(SLAVE, EOI)
        pic.out(MASTER, EOI)
        assert pic.pending() == again
        pic.line(line, False)
        assert not pic.pending()


def test_elcr_keeps_the_lines_that_are_wired_as_edges(pic):
    pic.out(0x4D0, 0xFFFF, size=2)
    assert pic.inp(0x4D0) == 0xF8 and pic.inp(0x4D1) == 0xDE
    assert pic.inp(0x4D0, 2) == 0xDEF8


def test_a_line_that_becomes_a_level_is_pending(pic):
    pic.line(5)
    pic.ack()
    pic.out(MASTER, EOI)
    assert not pic.pending()
    pic.out(0x4D0, 0x20)
    assert pic.pending()
    pic.out(0x4D0, 0)
    assert not pic.pending()


def test_poll(pic):
    pic.out(MASTER, 0x0C)
    assert pic.inp(MASTER) == 0
    pic.pulse(6)
    pic.pulse(4)
    pic.out(MASTER, 0x0C)
    assert pic.inp(MASTER) == 0x84
    assert pic.isr() == 0x10 and not pic.pending()


def test_auto_eoi_with_rotation():
    pic = Pic(icw4=0x03)
    pic.out(MASTER, 0x80)
    seen = []
    for _ in range(4):
        for line in (0, 1):
            pic.pulse(line)
        seen.append(pic.ack())
        assert pic.isr() == 0
    assert seen == [0x30, 0x31, 0x30, 0x31]


def test_special_mask_mode_lets_lower_inputs_in(pic):
    pic.pulse(1)
    pic.ack()
    pic.pulse(6)
    assert not pic.pending()
    pic.out(0x21, 0x02)
    pic.out(MASTER, 0x68)
    assert pic.pending() and pic.ack() == 0x36
    pic.out(MASTER, EOI)          # not the masked one
    assert pic.isr() == 0x02
    pic.out(MASTER, 0x48)         # special mask off: input 1 blocks again
    pic.pulse(6)
    assert not pic.pending()


def test_an_edge_seen_before_initialization_is_forgotten(pic):
    pic.line(5)
    pic.out(MASTER, 0x11)
    for value in (0x30, 4, 1):
        pic.out(0x21, value)
    assert not pic.pending()
    pic.line(5)                  # no new edge
    assert not pic.pending()
    pic.line(5, False)
    pic.line(5)
    assert pic.ack() == 0x35


def test_a_level_is_still_there_after_initialization(pic):
    """It needs no edge (data sheet, page 11): a device that waits for its
    handler would wait for ever."""
    pic.out(0x4D1, 0x02)
    pic.line(9)
    for port, base, icw3 in (MASTER, 0x40, 4), (SLAVE, 0x48, 2):
        for n, value in enumerate((0x11, base, icw3, 1)):
            pic.out(port + (n > 0), value)
    assert pic.inp(0x4D1) == 0x02
    assert pic.pending() and pic.ack() == 0x49
    pic.out(SLAVE, EOI)
    pic.out(MASTER, EOI)
    pic.line(9, False)
    assert not pic.pending()


def test_a_wide_access_ends_at_the_chip(pic):
    pic.out(0x20, 0xAA0B, size=2)
    assert pic.inp(0x21) == 0xAA
    assert pic.inp(0x21, 4) == 0xFFFFFFAA


def test_the_cascade_is_no_line(pic):
    for line in (2, 16, 99):
        pic.line(line)
    assert not pic.pending()


def test_reset_masks_everything_but_keeps_the_wires(pic):
    pic.line(5)
    pic.m.pic_reset(pic.p)
    assert not pic.pending() and pic.inp(0x21) == 0xFF
    pic.out(0x21, 0)
    assert not pic.pending()
    pic.line(5)                  # still up: no edge
    assert not pic.pending()
    for line in (7, 0):
        pic.pulse(line)
    assert pic.ack() & 7 == 0


class Model:
    """One fully nested 8259 as its data sheet tells it, without cascade."""

    def __init__(self):
        self.irr, self.isr, self.mask, self.order = set(), set(), set(), \
            list(range(8))

    def best(self, lines):
        return min(lines, key=self.order.index, default=None)

    def request(self):
        wanted, busy = self.best(self.irr - self.mask), self.best(self.isr)
        if wanted is None or busy is not None and \
                self.order.index(busy) <= self.order.index(wanted):
            return None
        return wanted

    def lower(self, line):
        at = self.order.index(line) + 1
        self.order = self.order[at:] + self.order[:at]


STEPS = st.lists(st.tuples(
    st.sampled_from(["pulse", "ack", "eoi", "specific", "rotate",
                     "rotate_specific", "priority", "mask"]),
    st.integers(0, 7), st.integers(0, 255)), max_size=60)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_slave_against_a_model(steps):
    """The slave: eight inputs of its own; the master passes all on."""
    pic, model = Pic(icw4=0x11), Model()
    for what, line, mask in steps:
        if what == "pulse":
            pic.pulse(8 + line)
            model.irr.add(line)
        elif what == "ack":
            wanted = model.request()
            assert pic.pending() == (wanted is not None)
            if wanted is not None:
                assert pic.ack() == 0x38 + wanted
                pic.out(MASTER, 0x62)
                model.irr.discard(wanted)
                model.isr.add(wanted)
        elif what == "eoi":
            pic.out(SLAVE, EOI)
            model.isr.discard(model.best(model.isr))
        elif what == "specific":
            pic.out(SLAVE, 0x60 | line)
            model.isr.discard(line)
        elif what == "rotate":
            pic.out(SLAVE, 0xA0)
            best = model.best(model.isr)
            if best is not None:
                model.isr.discard(best)
                model.lower(best)
        elif what == "rotate_specific":
            pic.out(SLAVE, 0xE0 | line)
            model.isr.discard(line)
            model.lower(line)
        elif what == "priority":
            pic.out(SLAVE, 0xC0 | line)
            model.lower(line)
        else:
            pic.out(0xA1, mask)
            model.mask = {n for n in range(8) if mask >> n & 1}
        assert pic.isr(SLAVE) == sum(1 << n for n in model.isr)
        assert pic.irr(SLAVE) == sum(1 << n for n in model.irr)
