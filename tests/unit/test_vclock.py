# SPDX-License-Identifier: MIT
"""Deadlines of the device models against a plain dictionary of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness

U64 = 2**64 - 1


@pytest.fixture(scope="module")
def m():
    return harness.build("vclock", ["vmm/core/vclock.c"], headers=["vmm/core/vclock.h"],
                         exports=["scale_ticks"])


class Clock:
    """A vclock whose timers note when they fire; `again` re-arms them."""

    def __init__(self, m, count):
        self.m, self.fired, self.again = m, [], {}
        self.c = m.new("struct vclock *")
        m.vclock_init(self.c, 10**9)
        self.timers = [m.new("struct vtimer *") for _ in range(count)]
        self.fire = m.callback("void(void *, uint64_t)", self._fire)
        self.numbers = [m.ffi.new("int *", i) for i in range(count)]
        for timer, number in zip(self.timers, self.numbers):
            assert m.vclock_add(self.c, timer, self.fire, number) == 0

    def _fire(self, dev, now):
        number = self.m.ffi.cast("int *", dev)[0]
        self.fired.append((number, now, self.timers[number].deadline))
        if number in self.again:
            self.set(number, self.again.pop(number))

    def set(self, number, deadline):
        self.m.vtimer_set(self.c, self.timers[number], deadline)


def test_a_new_clock_wants_nothing(m):
    clock = Clock(m, m.VCLOCK_TIMERS)
    assert clock.c.next == m.VCLOCK_NEVER
    m.vclock_run(clock.c, U64)
    assert clock.fired == []
    assert m.vclock_add(clock.c, m.new("struct vtimer *"), clock.fire,
                        m.NULL) == -m.ENOSPC


def test_a_timer_is_disarmed_when_it_fires(m):
    clock = Clock(m, 2)
    clock.set(1, 100)
    m.vclock_run(clock.c, 99)
    assert clock.fired == []
    m.vclock_run(clock.c, 100)
    assert clock.fired == [(1, 100, m.VCLOCK_NEVER)]
    m.vclock_run(clock.c, 200)
    assert len(clock.fired) == 1
    assert clock.c.next == m.VCLOCK_NEVER


def test_all_timers_may_be_due_at_once(m):
    clock = Clock(m, m.VCLOCK_TIMERS)
    for n in range(m.VCLOCK_TIMERS):
        clock.set(n, 50)
    m.vclock_run(clock.c, 50)
    assert sorted(n for n, _, _ in clock.fired) == [
        *range(m.VCLOCK_TIMERS)]


def test_a_periodic_timer_that_lags_cannot_hold_the_cpu(m):
    """Re-armed in the past for ever, it still lets vclock_run return."""
    clock = Clock(m, 1)
    fired = []

    def fire(_dev, _now):
        fired.append(clock.timers[0].deadline)
        clock.set(0, len(fired))
    clock.timers[0].fire = m.callback("void(void *, uint64_t)", fire)
    clock.set(0, 1)
    m.vclock_run(clock.c, 10**6)
    assert 1 <= len(fired) <= m.VCLOCK_TIMERS
    assert clock.c.next <= 10**6    # the loop comes back at once


DEADLINES = st.integers(0, 40) | st.integers(0, U64)


@settings(max_examples=300)
@given(st.lists(st.tuples(
    st.sampled_from(["set", "run", "again"]), st.integers(0, 7), DEADLINES),
    max_size=30))
def test_against_a_dictionary(m, steps):
    clock = Clock(m, m.VCLOCK_TIMERS)
    armed, again = {}, {}
    for what, number, time in steps:
        if what == "set":
            clock.set(number, time)
            armed[number] = time
        elif what == "again":   # later than any run: fires once a run
            clock.again[number] = again[number] = U64 - 1
        else:
            now = min(time, U64 - 2)
            due = [n for n, d in armed.items() if d <= now]
            times = [armed.pop(n) for n in due]
            clock.fired.clear()
            m.vclock_run(clock.c, now)
            assert sorted(n for n, _, _ in clock.fired) == sorted(due)
            assert all(f[1:] == (now, U64) for f in clock.fired)
            order = [times[due.index(n)] for n, _, _ in clock.fired]
            assert order == sorted(order)
            for n in due:
                if n in again:
                    armed[n] = again.pop(n)
        assert clock.c.next == min(armed.values(), default=m.VCLOCK_NEVER)
        for n, timer in enumerate(clock.timers):
            assert timer.deadline == armed.get(n, m.VCLOCK_NEVER)


@given(st.integers(0, 2**56 - 1), st.integers(1, 2**40 - 1),
       st.integers(1, 2**40 - 1))
def test_scale_ticks_is_exact(m, value, to, source):
    if value * to // source <= U64:
        assert m.scale_ticks(value, to, source) == value * to // source
