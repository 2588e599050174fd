# SPDX-License-Identifier: MIT
"""The clock against Python's calendar: the host's time as the guest reads it,
what the guest sets, and the interrupts."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmodel import Machine

EPOCH = dt.datetime(1970, 1, 1)
SECONDS_TO_1970 = 719468 * 86400       # since 0000-03-01
A, B, C, D, CENTURY = 0x0A, 0x0B, 0x0C, 0x0D, 0x32
SET, PIE, AIE, UIE, BINARY, HOURS_24 = 0x80, 0x40, 0x20, 0x10, 4, 2
NOW = dt.datetime(2024, 2, 28, 23, 59, 50)


def bcd(n):
    return n // 10 << 4 | n % 10


def encode_hour(hour, flags):
    code = (lambda n: n) if flags & BINARY else bcd
    if flags & HOURS_24:
        return code(hour)
    return code((hour + 11) % 12 + 1) | (0x80 if hour >= 12 else 0)


def registers(when, flags):
    """The MC146818's registers for a date; flags as in register B."""
    code = (lambda n: n) if flags & BINARY else bcd
    return {0: code(when.second), 2: code(when.minute),
            4: encode_hour(when.hour, flags), 6: when.isoweekday() % 7 + 1,
            7: code(when.day), 8: code(when.month),
            9: code(when.year % 100), CENTURY: code(when.year // 100)}


class HostClock:
    """The machine's RTC. `updating` reads of register A say "update"; the
    time ticks on in the middle of one of the readings after that."""

    def __init__(self, when, flags=HOURS_24, updating=0, century=True):
        self.when, self.flags, self.updating = when, flags, updating
        self.index, self.tick_after, self.reads = 0, None, 0
        self.century = century

    def read(self, kind, port, size):
        if kind != "in" or port != 0x71:
            return None
        self.reads += 1
        if self.tick_after is not None and self.reads >= self.tick_after:
            self.tick_after = None
            self.when += dt.timedelta(seconds=1)
        if self.index == A:
            self.updating -= self.updating > 0
            return 0x26 | (0x80 if self.updating else 0)
        if self.index == CENTURY and not self.century:
            return 0
        return {B: self.flags, D: 0x80, **registers(self.when, self.flags)
                }.get(self.index, 0x55)

    def write(self, kind, port, size, value):
        assert port == 0x70, "the host's clock is only read"
        assert not value & 0x80, "NMI stays on"
        self.index = value


class Rtc(Machine):
    def __init__(self, when=NOW, cmos=bytes(128), hz=1_000_000_000, **kwargs):
        super().__init__(hz)
        self.host = HostClock(when, **kwargs)
        self.m.on_read(self.host.read)
        self.m.on_write(self.host.write)
        self.r = self.m.new("struct rtc *")
        assert self.m.rtc_init(self.r, self.bus, self.clock, self.virq,
                               cmos) == 0

    def get(self, reg):
        self.out(0x70, reg)
        return self.inp(0x71)

    def set(self, reg, value):
        self.out(0x70, reg)
        self.out(0x71, value)

    def date(self):
        """As Linux's mc146818_get_time reads it, by register B."""
        flags = self.get(B)
        code = (lambda n: n) if flags & BINARY else \
            (lambda n: (n >> 4) * 10 + (n & 15))
        hour = self.get(4)
        if not flags & HOURS_24:
            hour = code(hour & 0x7F) % 12 + (12 if hour & 0x80 else 0)
        else:
            hour = code(hour)
        return dt.datetime(code(self.get(CENTURY)) * 100 + code(self.get(9)),
                           code(self.get(8)), code(self.get(7)), hour,
                           code(self.get(2)), code(self.get(0)))

    def set_date(self, when):
        """As Linux's mc146818_set_time: SET, divider reset, and back."""
        flags, rate = self.get(B), self.get(A)
        self.set(B, flags | SET)
        self.set(A, rate | 0x70)
        for reg, value in registers(when, flags).items():
            self.set(reg, value)
        self.set(B, flags)
        self.set(A, rate)

    def irq(self):
        return bool(self.lines.get(8))


FLAGS = st.sampled_from([0, BINARY, HOURS_24, BINARY | HOURS_24])
DATES = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2199, 12, 30)).map(
    lambda d: d.replace(microsecond=0))


@settings(max_examples=300, deadline=None)
@given(DATES, FLAGS, FLAGS, st.integers(0, 400 * 86400))
def test_the_hosts_time_goes_on(when, host_flags, flags, later):
    rtc = Rtc(when, flags=host_flags)
    rtc.set(B, flags)
    assert rtc.date() == when
    rtc.m.tsc += rtc.seconds(later)
    expect = when + dt.timedelta(seconds=later)
    if expect.year < 2200:
        assert rtc.date() == expect
        assert rtc.get(6) == expect.isoweekday() % 7 + 1


@pytest.mark.parametrize("year,expect", [(1969, 2069), (1970, 1970),
                                         (1999, 1999), (2000, 2000)])
def test_a_host_without_a_century(year, expect):
    when = dt.datetime(year, 7, 1)
    rtc = Rtc(when, century=False)
    assert rtc.date() == when.replace(year=expect)


@given(st.integers(-719468 + 366, 146097 * 6))
def test_calendar_against_python(days):
    rtc = Machine().m
    date = rtc.new("struct rtc_date *")
    seconds = SECONDS_TO_1970 + days * 86400 + 3723
    rtc.rtc_date(seconds, date)
    expect = EPOCH + dt.timedelta(days=days, seconds=3723)
    assert dt.datetime(date.year, date.month, date.day, date.hour,
                       date.minute, date.second) == expect
    assert date.weekday == expect.isoweekday() % 7 + 1
    assert rtc.rtc_seconds(date) == seconds


@pytest.mark.parametrize("before,after", [
    ("2024-02-28", "2024-02-29"), ("2023-02-28", "2023-03-01"),
    ("2100-02-28", "2100-03-01"), ("2000-02-28", "2000-02-29"),
    ("2023-12-31", "2024-01-01"), ("1999-12-31", "2000-01-01")])
def test_midnight(before, after):
    rtc = Rtc(dt.datetime.fromisoformat(before) +
              dt.timedelta(hours=23, minutes=59, seconds=59))
    rtc.wait(rtc.seconds(1))
    assert rtc.date() == dt.datetime.fromisoformat(after)


def test_the_host_is_read_outside_of_its_update():
    assert Rtc(updating=5).date() == NOW


@pytest.mark.parametrize("at", range(1, 26))
def test_the_host_ticks_while_it_is_read(at):
    rtc = Rtc(dt.datetime(2023, 12, 31, 23, 59, 59))
    rtc.host.reads, rtc.host.tick_after = 0, at
    rtc.m.rtc_reset(rtc.r)
    assert rtc.host.when.year == 2024
    assert rtc.date() in (dt.datetime(2023, 12, 31, 23, 59, 59),
                          dt.datetime(2024, 1, 1))


def test_a_host_clock_that_never_answers_does_not_hold_us():
    """No clock, or an update without end (time passes by reading)."""
    for value in (0xFF, 0x80):
        machine = Machine()

        def read(kind, port, size, machine=machine, value=value):
            machine.m.tsc += 1000
            return value
        machine.m.on_read(read)
        seconds = machine.m.new("int64_t *")
        start = machine.m.tsc
        assert machine.m.rtc_read_host(machine.clock, seconds) == \
            -(machine.m.ENODEV if value == 0xFF else machine.m.ETIMEDOUT)
        assert machine.m.tsc - start <= machine.seconds(0.11)
        rtc = machine.m.new("struct rtc *")
        assert machine.m.rtc_init(rtc, machine.bus, machine.clock,
                                  machine.virq, bytes(128)) == 0
        machine.out(0x70, 8)
        assert 1 <= machine.inp(0x71) <= 12


def test_the_guest_sets_its_own_time_only():
    """The host's registers are never written (HostClock.write); the offset
    outlives a reset, as a battery does."""
    rtc = Rtc()
    rtc.set_date(dt.datetime(1999, 12, 31, 23, 59, 59))
    rtc.wait(rtc.seconds(0.4))
    assert rtc.date() == dt.datetime(1999, 12, 31, 23, 59, 59)
    rtc.wait(rtc.seconds(0.2))          # half a second after the divider
    assert rtc.date() == dt.datetime(2000, 1, 1)
    rtc.host.when += dt.timedelta(hours=1)
    rtc.m.tsc += rtc.seconds(3600)
    rtc.m.rtc_reset(rtc.r)
    assert abs(rtc.date() - dt.datetime(2000, 1, 1, 1)) <= \
        dt.timedelta(seconds=1)


def test_set_stops_the_clock_and_lets_it_go_on_from_the_registers():
    rtc = Rtc()
    rtc.set(B, HOURS_24 | SET)
    frozen = rtc.date()
    rtc.wait(rtc.seconds(100))
    assert rtc.date() == frozen
    rtc.set(4, 0x11)
    assert rtc.get(4) == 0x11
    rtc.set(B, HOURS_24)
    rtc.wait(rtc.seconds(2))
    assert rtc.date() == frozen.replace(hour=11) + dt.timedelta(seconds=2)


def test_a_write_to_the_running_clock_keeps_its_phase():
    rtc = Rtc(dt.datetime(2024, 1, 1, 12, 0, 0))
    rtc.wait(rtc.seconds(0.75))
    rtc.set(2, 0x30)
    rtc.set(1, 0x59)                    # an alarm register is no time
    assert rtc.date() == dt.datetime(2024, 1, 1, 12, 30, 0)
    rtc.wait(rtc.seconds(0.25))
    assert rtc.date() == dt.datetime(2024, 1, 1, 12, 30, 1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)),
                max_size=30))
def test_garbage_in_the_registers_harms_nobody(writes):
    rtc = Rtc()
    for reg, value in writes:
        rtc.set(reg, value)
        rtc.wait(rtc.seconds(0.3))
    for reg in range(128):
        rtc.get(reg)
    rtc.set_date(NOW)
    rtc.set(A, 0x26)
    rtc.set(B, HOURS_24)
    rtc.set_date(NOW)
    assert rtc.date() == NOW


def test_update_in_progress_before_every_update():
    rtc = Rtc()
    seen = []
    for _ in range(10_000):
        seen.append(rtc.get(A) >> 7)
        rtc.wait(rtc.hz // 10_000)
    assert seen[-3:] == [0, 1, 1] and sum(seen) == 2
    rtc.set(B, HOURS_24 | SET)
    assert not any(rtc.get(A) & 0x80 or rtc.wait(rtc.hz // 10_000)
                   for _ in range(10_000))


def test_periodic_interrupt_rates():
    """MC146818A table 5."""
    for rate in range(1, 16):
        rtc = Rtc()
        hz = {1: 256, 2: 128}.get(rate, 32768 >> rate - 1)
        rtc.set(A, 0x20 | rate)
        rtc.set(B, HOURS_24 | PIE)
        start, count = rtc.m.tsc, min(hz * 2, 300)
        for n in range(1, count + 1):
            due = start + n * rtc.hz / hz
            assert due - 1 <= rtc.clock.next <= due + 2
            rtc.until(rtc.clock.next)
            assert rtc.irq() and rtc.get(C) & 0xC0 == 0xC0
            assert not rtc.irq()


def test_an_interrupt_that_is_not_served_holds_the_line():
    rtc = Rtc()
    rtc.set(B, HOURS_24 | PIE)
    rtc.wait(rtc.seconds(1))
    assert rtc.irq() and len([e for e in rtc.edges if e[1] == 8]) == 1


def test_an_interrupt_that_is_disabled_leaves_the_line():
    """IRQF is the OR of what is both flagged and enabled (data sheet p. 14);
    enabled again with the flag still up, it is a new edge."""
    rtc = Rtc()
    rtc.set(B, HOURS_24 | PIE)
    rtc.until(rtc.clock.next)
    assert rtc.irq()
    rtc.set(B, HOURS_24)
    assert not rtc.irq()
    rtc.set(B, HOURS_24 | PIE)
    assert rtc.irq() and rtc.get(C) & 0xC0 == 0xC0


def test_update_interrupt():
    rtc = Rtc()
    rtc.set(B, HOURS_24 | UIE)
    for n in range(1, 4):
        rtc.wait(rtc.seconds(1) - 1)
        assert not rtc.irq()
        rtc.wait(1)
        assert rtc.irq() and rtc.date() == NOW + dt.timedelta(seconds=n)
        assert rtc.get(C) & ~0x40 == 0x90 and not rtc.irq()
    rtc.set(B, HOURS_24 | UIE | SET)
    assert rtc.get(B) == HOURS_24 | SET     # data sheet: SET clears UIE
    rtc.wait(rtc.seconds(5))
    assert not rtc.irq()


def test_flags_are_polled_without_an_interrupt():
    rtc = Rtc()
    rtc.get(C)
    assert rtc.get(C) == 0
    rtc.wait(rtc.seconds(1))
    assert rtc.get(C) & 0x50 == 0x50 and not rtc.irq()
    assert rtc.clock.next == rtc.m.VCLOCK_NEVER


def alarm_by_search(start, alarm):
    for n in range(1, 86401):
        t = start + dt.timedelta(seconds=n)
        if all(want is None or want == have for want, have in
               zip(alarm, (t.second, t.minute, t.hour))):
            return n
    return None


ALARM = st.tuples(st.none() | st.integers(0, 59), st.none() |
                  st.integers(0, 59), st.none() | st.integers(0, 23))


@settings(max_examples=60, deadline=None)
@given(DATES, FLAGS, ALARM)
def test_alarms(when, flags, alarm):
    rtc = Rtc(when)
    code = (lambda n: n) if flags & BINARY else bcd
    rtc.set(B, flags)
    for reg, value in zip((1, 3), alarm):
        rtc.set(reg, 0xC0 if value is None else code(value))
    rtc.set(5, 0xFF if alarm[2] is None else encode_hour(alarm[2], flags))
    rtc.set(B, flags | AIE)
    rtc.get(C)
    expect = alarm_by_search(when, alarm)
    start = rtc.m.tsc
    assert rtc.clock.next == start + rtc.seconds(expect)
    rtc.until(rtc.clock.next - 1)
    assert not rtc.irq()
    rtc.wait(1)
    assert rtc.irq() and rtc.get(C) & 0xA0 == 0xA0


def test_an_alarm_at_no_time_never_comes():
    rtc = Rtc()
    rtc.set(5, 0x99)
    rtc.set(B, HOURS_24 | AIE)
    assert rtc.clock.next == rtc.m.VCLOCK_NEVER


def test_cmos_ram():
    cmos = bytearray(range(128))
    cmos[CENTURY] = 0x20
    machine = Machine()
    machine.m.rtc_cmos_memory(machine.m.ffi.from_buffer(cmos), 3 << 30,
                              5 << 30)
    rtc = Rtc(cmos=bytes(cmos))
    assert rtc.get(0x15) | rtc.get(0x16) << 8 == 640
    assert rtc.get(0x17) | rtc.get(0x18) << 8 == 0xFFFF
    assert rtc.get(0x30) | rtc.get(0x31) << 8 == 0xFFFF
    assert rtc.get(0x34) | rtc.get(0x35) << 8 == ((3 << 30) - (16 << 20)) >> 16
    assert rtc.get(0x5B) | rtc.get(0x5C) << 8 | rtc.get(0x5D) << 16 == \
        (5 << 30) >> 16
    assert rtc.get(0x40) == 0x40
    rtc.set(0x0F, 0x0A)
    rtc.m.rtc_reset(rtc.r)
    assert rtc.get(0x0F) == 0x0A
    assert rtc.get(D) == 0x80
    rtc.set(D, 0)
    rtc.set(C, 0xFF)
    assert rtc.get(D) == 0x80 and rtc.get(C) == 0


def test_small_memory():
    machine = Machine()
    cmos = bytearray(128)
    machine.m.rtc_cmos_memory(machine.m.ffi.from_buffer(cmos), 4 << 20, 0)
    assert cmos[0x30] | cmos[0x31] << 8 == 3 * 1024
    assert cmos[0x34] == cmos[0x35] == 0


def test_index_port():
    rtc = Rtc()
    rtc.out(0x70, 0xC0)
    assert rtc.r.nmi_masked and rtc.r.index == 0x40
    rtc.out(0x70, 0x1240, size=2)       # index and data in one
    assert rtc.get(0x40) == 0x12 and not rtc.r.nmi_masked


def test_reset_stops_the_interrupts():
    rtc = Rtc()
    rtc.set(B, PIE | UIE | BINARY)
    rtc.wait(rtc.seconds(1))
    rtc.m.rtc_reset(rtc.r)
    assert not rtc.irq() and rtc.get(B) == HOURS_24
    assert rtc.clock.next == rtc.m.VCLOCK_NEVER
