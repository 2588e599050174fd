# SPDX-License-Identifier: MIT
"""Keyboard controller: what reaches the host's and what does not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmodel import Machine

DATA, COMMAND = 0x60, 0x64


class Host:
    """A small 8042 with a keyboard that acknowledges every byte."""

    def __init__(self):
        self.output, self.ctr, self.command = [], 0x47, 0
        self.resets = 0

    def read(self, kind, port, size):
        if port == COMMAND:
            return 0x14 | bool(self.output)
        return self.output.pop(0) if self.output else 0

    def write(self, kind, port, size, value):
        if port == COMMAND:
            self.command = 0
            if value == 0x20:
                self.output.append(self.ctr)
            elif value == 0xAA:
                self.output.append(0x55)
            elif value == 0xAB:
                self.output.append(0)
            elif value in (0x60, 0xD1, 0xD2, 0xD3, 0xD4):
                self.command = value
            elif value >= 0xF0 and not value & 1:
                self.resets += 1
            return
        if self.command == 0x60:
            self.ctr = value
        elif self.command in (0xD2, 0xD3):
            self.output.append(value)
        elif self.command == 0xD1:
            self.resets += not value & 1
        else:
            self.output.append(0xFA)
        self.command = 0


class Keyboard(Machine):
    def __init__(self, host=True):
        super().__init__()
        self.host = Host()
        if host:
            self.m.on_read(self.host.read)
            self.m.on_write(self.host.write)
        self.k = self.m.new("struct i8042 *")
        self.request = self.note("reset")
        assert self.m.i8042_init(self.k, self.bus, self.virq, self.request,
                                 self.m.NULL) == 0

    def command(self, value, *data):
        self.out(COMMAND, value)
        for byte in data:
            self.out(DATA, byte)

    def answer(self):
        return self.inp(DATA) if self.inp(COMMAND) & 1 else None


@pytest.fixture
def kbd():
    return Keyboard()


def test_linux_finds_the_controller(kbd):
    """i8042_controller_check, _selftest, _init; then the keyboard."""
    assert kbd.inp(COMMAND) != 0xFF and kbd.answer() is None
    kbd.command(0xAA)
    assert kbd.answer() == 0x55
    kbd.command(0x20)
    ctr = kbd.answer()
    kbd.command(0x60, ctr & ~3 | 0x30)
    kbd.command(0x20)
    assert kbd.answer() == ctr & ~3 | 0x30
    kbd.command(0xD3, 0xA5)               # the mouse loopback test
    assert kbd.answer() == 0xA5
    kbd.out(DATA, 0xED)
    assert kbd.answer() == 0xFA


def test_reset_pulses(kbd):
    for command in range(0xF0, 0x100):
        kbd.called.clear()
        kbd.command(command)
        assert kbd.called == ([("reset",)] if not command & 1 else [])
    assert kbd.m.events("out") == []


def test_output_port(kbd):
    """GRUB and kernels open A20 by 0xD1 0xDF; bit 0 low is a reset."""
    kbd.command(0xD1, 0xDF)
    kbd.command(0xD1, 0xDD)
    assert kbd.called == [] and kbd.m.events("out") == []
    kbd.command(0xD1, 0xFE)
    assert kbd.called == [("reset",)] and kbd.m.events("out") == []
    kbd.out(DATA, 0xF4)                   # the next byte is the keyboard's
    assert [(e.addr, e.value) for e in kbd.m.events("out")] == [(DATA, 0xF4)]


def test_reset_works_without_a_controller():
    kbd = Keyboard(host=False)
    assert kbd.inp(COMMAND) == kbd.inp(DATA) == 0xFF
    kbd.command(0xFE)
    assert kbd.called == [("reset",)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([DATA, COMMAND]),
                          st.integers(0, 255)), max_size=40))
def test_no_sequence_resets_the_host(writes):
    kbd = Keyboard()
    for port, value in writes:
        kbd.out(port, value)
    sent = [e.value for e in kbd.m.events("out") if e.addr == COMMAND]
    assert kbd.host.resets == 0
    assert set(sent) <= {0x20, 0x60, 0xA7, 0xA8, 0xA9, 0xAA, 0xAB, 0xAD, 0xAE,
                         0xC0, 0xD0, 0xD2, 0xD3, 0xD4}


def test_the_data_of_a_dropped_command_is_dropped(kbd):
    for command in (*range(0x61, 0x80), 0xA5, 0xD1):
        kbd.command(command, 0x45)
    assert kbd.m.events("out") == []
    kbd.command(0x61)
    kbd.command(0x20)                     # a command in its place
    kbd.command(0x60, 0x44)
    assert kbd.host.ctr == 0x44


def test_the_line_falls_when_the_byte_is_read(kbd):
    """And the next byte makes a new edge."""
    for line in (1, 12):
        for byte in (0x1E, 0x9E):
            kbd.host.output.append(byte)
            kbd.m.i8042_host_irq(kbd.k, line)
            assert kbd.lines[line]
            kbd.inp(COMMAND)
            assert kbd.lines[line]
            assert kbd.inp(DATA) == byte and not kbd.lines[line]
    assert [line for _, line in kbd.edges] == [1, 1, 12, 12]


def test_a_byte_that_nobody_read_rings_again(kbd):
    kbd.m.i8042_host_irq(kbd.k, 1)
    kbd.m.i8042_host_irq(kbd.k, 1)
    assert len(kbd.edges) == 2


def test_other_lines_are_not_ours(kbd):
    kbd.m.i8042_host_irq(kbd.k, 9)
    assert kbd.edges == []


def test_a_wide_access_stays_within_the_port(kbd):
    assert kbd.inp(DATA, 2) >> 8 == 0xFF
    kbd.out(DATA, 0x12F4, size=2)
    assert [(e.addr, e.value) for e in kbd.m.events("out")] == [(DATA, 0xF4)]


def test_reset_leaves_no_byte_that_would_hold_the_line(kbd):
    """The host's line is an edge: a byte that nobody reads is the last."""
    kbd.host.output += [0x1E, 0x9E]
    kbd.m.i8042_reset(kbd.k)
    assert kbd.host.output == []


def test_reset_is_bounded(kbd):
    """A controller that always has one more, and none at all."""
    kbd.host.output += [0x1E] * 1000
    kbd.m.i8042_reset(kbd.k)
    assert kbd.host.output
    kbd = Keyboard(host=False)
    kbd.m.i8042_reset(kbd.k)
    assert len(kbd.m.events("in")) < 100


def test_reset_forgets_a_command_half_given(kbd):
    kbd.command(0xD1)
    kbd.m.i8042_host_irq(kbd.k, 1)
    kbd.m.i8042_reset(kbd.k)
    assert not kbd.lines[1]
    kbd.out(DATA, 0xFE)
    assert kbd.called == []
    assert [(e.addr, e.value) for e in kbd.m.events("out")] == [(DATA, 0xFE)]
