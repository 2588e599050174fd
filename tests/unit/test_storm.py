# SPDX-License-Identifier: MIT
"""The bound on interrupts, with a clock of the test's own."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness

HZ = 2_000_000_000


@pytest.fixture(scope="module")
def m():
    return harness.build("storm", ["vmm/assign/storm.c"], headers=["vmm/assign/storm.h"],
                         exports=["storm_ticks"])


class Storm:
    def __init__(self, m, now=0):
        self.m, self.s, self.now = m, m.new("struct storm *"), now

    def came(self, after, count=1):
        """How many of them were too many."""
        found = 0
        for _ in range(count):
            self.now += after
            found += self.m.storm_count(self.s, self.now, HZ)
        return found


@pytest.mark.parametrize("rate, storms", [
    (1_000, 0), (99_000, 0), (101_000, 9), (1_000_000, 99)])
def test_a_second_at_a_rate(m, rate, storms):
    storm = Storm(m, now=10**15)
    assert abs(storm.came(HZ // rate, rate) - storms) <= 1
    assert storm.s.storms == 0 if not storms else \
        abs(storm.s.rate - rate) <= rate // 100


def test_a_burst_is_no_storm(m):
    """A tenth of a second's worth at once, each second."""
    storm = Storm(m)
    for _ in range(50):
        assert storm.came(0, m.STORM_COUNT) == 0
        storm.now += HZ
    assert storm.came(0, m.STORM_COUNT + 1) == 1


def test_all_at_one_tick(m):
    storm = Storm(m, now=2**64 - 1)
    assert storm.came(0, 3 * (m.STORM_COUNT + 1)) == 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, HZ // 5),
                          st.integers(1, 12_000)), max_size=12))
def test_never_below_the_bound(m, bursts):
    """However they come: more than the bound within its time, or nothing."""
    storm = Storm(m)
    times = []
    for pause, count in bursts:
        storm.now += pause
        for _ in range(count):
            times.append(storm.now)
            if storm.came(0):
                window = m.storm_ticks(HZ)
                recent = [t for t in times if storm.now - t < window]
                assert len(recent) > m.STORM_COUNT
                times.clear()
