# SPDX-License-Identifier: MIT
"""8254 and port 0x61: what kernels calibrate with, and the counting element
against the data sheet's definitions, a clock at a time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmodel import Machine

HZ = 1193182
# Clocks that divide badly and well; the first is the PIT's own.
CLOCKS = (HZ * 1000, 1_000_000_000, 2_999_999_999, 3_600_000_000)


class Pit(Machine):
    def __init__(self, hz=HZ * 1000):
        super().__init__(hz)
        self.p = self.m.new("struct pit *")
        assert self.m.pit_init(self.p, self.bus, self.clock, self.virq) == 0
        self.start = self.epoch = self.m.tsc

    def align(self):
        """To just before a clock pulse of the PIT, the one that takes over
        what is written now: start."""
        pulse = (self.m.tsc - self.epoch) * HZ // self.hz + 2
        self.start = self.epoch - pulse * self.hz // -HZ
        self.until(self.start - 1)

    def at(self, ticks, eighths=4):
        """To so many PIT ticks after start, and a bit."""
        self.until(self.start + (ticks * 8 + eighths) * self.hz // (8 * HZ))

    def load(self, channel, mode, count, bcd=0):
        self.out(0x43, channel << 6 | 0x30 | mode << 1 | bcd)
        self.reload(channel, count)

    def reload(self, channel, count):
        self.align()
        self.out(0x40 + channel, count & 0xFF)
        self.out(0x40 + channel, count >> 8 & 0xFF)

    def counter(self, channel):
        self.out(0x43, channel << 6)
        low = self.inp(0x40 + channel)
        return low | self.inp(0x40 + channel) << 8

    def status(self, channel):
        self.out(0x43, 0xE0 | 2 << channel)
        return self.inp(0x40 + channel)

    def gate2(self, on):
        self.out(0x61, self.inp(0x61) & 0xE | on)

    def out2(self):
        return bool(self.inp(0x61) & 0x20)

    def ticks(self):
        """When IRQ 0 rose, in PIT ticks after start."""
        return [round((t - self.start) * HZ / self.hz) for t, line in
                self.edges if line == 0 and t > self.start]


@pytest.fixture
def pit():
    return Pit()


@pytest.mark.parametrize("hz", CLOCKS)
def test_linux_calibrates_the_tsc(hz):
    """pit_calibrate_tsc: how long until OUT2 rises."""
    pit = Pit(hz)
    pit.out(0x61, pit.inp(0x61) & ~2 | 1)
    latch = HZ // 20
    pit.load(2, 0, latch)
    assert not pit.out2()
    start, step = pit.m.tsc, hz // 100_000
    while not pit.out2():
        pit.wait(step)
    measured = (pit.m.tsc - start) / (latch / HZ)
    assert abs(measured / hz - 1) < 0.001


def test_linux_calibrates_quickly():
    """quick_pit_calibrate reads the running counter without latching."""
    pit = Pit()
    pit.out(0x61, pit.inp(0x61) & ~2 | 1)
    pit.load(2, 0, 0xFFFF)
    seen = []
    for ticks in range(0, 2560, 32):
        pit.at(ticks)
        pit.inp(0x42)
        seen.append(pit.inp(0x42))
    assert seen[0] == 0xFF and seen == sorted(seen, reverse=True)
    assert all(seen.count(msb) == 8 for msb in set(seen))


@pytest.mark.parametrize("hz", CLOCKS)
def test_a_second_of_periodic_ticks_does_not_drift(hz):
    pit = Pit(hz)
    pit.load(0, 2, 1193)
    pit.at(1193 * 1000)
    assert pit.ticks() == [1193 * n for n in range(1, 1001)]


def test_late_exits_do_not_shift_the_ticks(pit):
    pit.load(0, 3, 10_000)
    pit.edges.clear()
    for n in range(1, 50):
        due = pit.start + n * 10_000 * 1000
        assert due < pit.clock.next <= due + 1000
        pit.m.tsc = due + n * 150_000
        pit.m.vclock_run(pit.clock, pit.m.tsc)
    assert len(pit.edges) == 49


def test_mode_0_interrupts_once_and_again_when_reloaded(pit):
    pit.load(0, 0, 5000)
    assert not pit.lines[0]
    pit.at(4999)
    assert not pit.lines[0] and pit.counter(0) == 1
    pit.at(5000)
    assert pit.lines[0] and pit.ticks() == [5000]
    pit.at(200_000)
    assert pit.ticks() == [5000]
    pit.reload(0, 16)
    assert not pit.lines[0]
    pit.at(20)
    assert pit.ticks() == [16]


def test_linux_one_shot_and_shutdown(pit):
    """pit_set_oneshot (mode 4), pit_next_event, pit_shutdown."""
    pit.out(0x43, 0x38)
    assert pit.clock.next == pit.m.VCLOCK_NEVER
    for delta in (1000, 25_000):
        pit.reload(0, delta)
        pit.at(delta + 10)
        assert pit.ticks() == [delta + 1]
    pit.out(0x43, 0x30)
    pit.out(0x40, 0)
    pit.out(0x40, 0)
    pit.wait(pit.seconds(1))
    assert pit.clock.next == pit.m.VCLOCK_NEVER


def test_a_tiny_period_leaves_the_guest_time(pit):
    pit.load(0, 2, 2)
    pit.wait(pit.seconds(0.001))
    assert 10 < len(pit.edges) < 200


def test_a_new_mode_stops_the_old_count(pit):
    pit.load(0, 2, 1000)
    pit.out(0x43, 0x34)
    pit.wait(pit.seconds(0.1))
    assert pit.ticks() == []
    assert pit.status(0) & 0x40       # null count


def element(mode, count, t, bcd):
    """OUT and the counter t clocks after the load, gate high: 8254 data
    sheet, from running it clock by clock."""
    modulus = 10_000 if bcd else 0x10000
    n = count or modulus
    if mode in (0, 4):
        value, out = n, mode == 4
        for _ in range(t):
            value = (value - 1) % modulus
            if mode == 0:
                out = out or value == 0
        if mode == 4:
            out = t != n
        return out, value % modulus
    if mode == 2:
        value = n
        for _ in range(t):
            value -= 1
            if value == 0:
                value = n
        return value != 1, value % modulus
    out, value = True, n & ~1
    for _ in range(t):
        if value == (0 if out and n % 2 else 2):
            out, value = not out, n & ~1
        else:
            value -= 2
    return out, value % modulus


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([0, 2, 3, 4]), st.integers(0, 0xFFFF), st.booleans(),
       st.lists(st.integers(0, 3000), min_size=1, max_size=5),
       st.booleans())
def test_counting_against_the_data_sheet(mode, count, bcd, times, near):
    if bcd:
        count %= 10_000
    if mode in (2, 3) and count == 1:
        count = 2                       # 1 is not legal there
    if near:                            # see the end come
        count = count % 997 + 2
    pit = Pit()
    pit.gate2(1)
    pit.load(2, mode, int(str(count), 16) if bcd else count, bcd)
    for t in sorted(times):
        pit.at(t)
        out, value = element(mode, count, t, bcd)
        got = pit.counter(2)
        assert pit.out2() == out
        assert (int(f"{got:x}") if bcd else got) == value


def test_gate_pauses_mode_0_and_restarts_mode_2(pit):
    pit.gate2(1)
    pit.load(2, 0, 1000)
    pit.at(400)
    pit.gate2(0)
    pit.at(5000)
    assert pit.counter(2) == 600 and not pit.out2()
    pit.align()
    pit.gate2(1)
    pit.at(598)                         # start is the first of 600 pulses
    assert not pit.out2()
    pit.at(599)
    assert pit.out2()
    pit.load(2, 2, 1000)
    pit.at(400)
    pit.gate2(0)
    assert pit.out2()
    pit.at(450)
    pit.gate2(1)
    assert pit.counter(2) == 1000


@pytest.mark.parametrize("mode", [0, 1, 2, 3, 4, 5])
def test_a_gate_that_is_up_is_no_trigger(pit, mode):
    pit.gate2(1)
    pit.load(2, mode, 1000)
    pit.at(400)
    before = pit.counter(2)
    pit.gate2(1)
    assert pit.counter(2) == before
    pit.at(450)
    assert pit.counter(2) == (1000 if mode in (1, 5) else
                              before - 50 * (2 if mode == 3 else 1))


@pytest.mark.parametrize("mode", [1, 5])
def test_gate_triggers_modes_1_and_5(pit, mode):
    pit.gate2(0)
    pit.load(2, mode, 1000)
    pit.at(2000)
    assert pit.out2()
    pit.align()
    pit.gate2(1)
    pit.at(500)
    assert pit.out2() == (mode == 5)
    pit.gate2(0)                        # a low gate does not stop it
    pit.at(1000)
    assert pit.out2() == (mode == 1)
    pit.at(1001)
    assert pit.out2()
    pit.align()
    pit.gate2(1)                        # again
    pit.at(10)
    assert pit.out2() == (mode == 5) and pit.counter(2) == 990


def test_latch_holds_and_is_not_overwritten(pit):
    pit.gate2(1)
    pit.load(2, 0, 0x8000)
    pit.at(0x100)
    pit.out(0x43, 0x80)
    pit.at(0x1000)
    pit.out(0x43, 0x80)
    assert pit.inp(0x42) | pit.inp(0x42) << 8 == 0x7F00
    assert pit.inp(0x42) | pit.inp(0x42) << 8 == 0x7000     # live again


def test_read_back_gives_status_then_count(pit):
    pit.gate2(1)
    pit.load(2, 3, 0x1000)
    pit.load(0, 2, 0x2000)
    pit.out(0x43, 0xC0 | 2 | 8)
    assert pit.inp(0x40) == 0xB4
    assert pit.inp(0x42) == 0xB6
    pit.at(100)
    assert pit.inp(0x40) | pit.inp(0x40) << 8 == 0x2000
    assert pit.inp(0x42) | pit.inp(0x42) << 8 == 0x1000


def test_read_back_of_a_count_alone(pit):
    pit.load(0, 2, 0x2000)
    pit.out(0x43, 0xD0 | 2)
    assert pit.inp(0x40) | pit.inp(0x40) << 8 == 0x2000


def test_read_back_of_the_last_channel_alone(pit):
    pit.gate2(1)
    pit.load(2, 3, 0x1000)
    pit.out(0x43, 0xC0 | 8)
    pit.at(100)
    assert pit.inp(0x42) == 0xB6
    assert pit.inp(0x42) | pit.inp(0x42) << 8 == 0x1000
    assert pit.inp(0x40) != 0xB6        # of the others none was asked


def test_the_first_status_is_kept(pit):
    pit.out(0x43, 0x30)
    pit.out(0x43, 0xE0 | 2)
    pit.reload(0, 100)
    pit.out(0x43, 0xE0 | 2)
    assert pit.inp(0x40) & 0x40         # null count, as it was
    assert not pit.status(0) & 0x40


def test_out_after_the_control_word(pit):
    """8254 data sheet: mode 0 starts low, the others high."""
    for mode in range(6):
        pit.out(0x43, 0x30 | mode << 1)
        assert pit.lines[0] == (mode != 0) == bool(pit.status(0) & 0x80)


def test_single_byte_access(pit):
    pit.gate2(1)
    pit.out(0x43, 0x90)                 # channel 2, low byte, mode 0
    pit.align()
    pit.out(0x42, 200)
    pit.at(50)
    assert [pit.inp(0x42) for _ in range(3)] == [150] * 3
    pit.out(0x43, 0xA0)                 # high byte
    pit.align()
    pit.out(0x42, 2)
    pit.at(0x100)
    assert pit.inp(0x42) == 1
    pit.out(0x43, 0x80)
    assert [pit.inp(0x42) for _ in range(2)] == [1, 1]


def test_refresh_toggles_every_15_microseconds(pit):
    seen = []
    for ticks in range(0, 3600):
        pit.at(ticks)
        seen.append(pit.inp(0x61) >> 4 & 1)
    toggles = sum(a != b for a, b in zip(seen, seen[1:]))
    assert abs(toggles - 3600 / HZ / 15.085e-6) <= 2


def test_channel_1_counts(pit):
    values = set()
    for ticks in range(100):
        pit.at(ticks)
        values.add(pit.inp(0x41))
        pit.inp(0x41)
    assert values == set(range(1, 19))


def test_port_61_keeps_its_own_bits(pit):
    pit.out(0x61, 0xFF)
    assert pit.inp(0x61) & 0xCF == 0x0F


def test_the_command_port_reads_nothing(pit):
    assert pit.inp(0x43) == 0xFF
    assert pit.inp(0x43, 4) == 0xFFFFFFFF


def test_reset(pit):
    pit.load(0, 2, 1000)
    pit.out(0x61, 3)
    pit.at(1500)
    pit.out(0x43, 0x90)     # of channel 2 one byte, mode 0
    pit.m.pit_reset(pit.p)
    assert pit.inp(0x61) & 0xF == 0
    # Two bytes each, square waves; the refresh of memory goes on.
    assert [pit.status(n) & 0x3f for n in range(3)] == [0x36, 0x34, 0x36]
    pit.edges.clear()
    pit.wait(pit.seconds(1))
    assert pit.edges == []
