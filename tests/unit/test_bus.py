# SPDX-License-Identifier: MIT
"""The trap bus against a plain list of ranges."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from mutants import mutated

U64 = 2**64 - 1


def build(source="vmm/core/bus.c"):
    return harness.build("bus", [source], headers=["vmm/core/bus.h"],
                         exports=["bus_all_ones"])


@pytest.fixture(scope="module")
def m():
    return build()


class Bus:
    def __init__(self, m):
        self.m, self.seen, self.inside = m, [], None
        self.b = m.new("struct bus *")
        self.handler = m.callback("bus_handler *", self._handle)
        self.names = {}

    def _handle(self, dev, access):
        self.seen.append((self.m.string(self.m.ffi.cast("char *", dev)),
                          access.addr, access.size, access.write,
                          access.value))
        if self.inside:
            self.inside()
        if not access.write:
            access.value = 0x5a
        return -self.m.EFAULT if access.addr == 13 else 0

    def register(self, space, first, last, name):
        name = self.names.setdefault(
            name, self.m.ffi.new("char[]", name.encode()))
        return self.m.bus_register(self.b, space, first, last, self.handler,
                                   name, name)

    def access(self, space, addr, size=1, value=None):
        """Returns (status, value afterwards)."""
        a = self.m.new("struct bus_access *", {
            "addr": addr, "size": size, "write": value is not None,
            "value": 0x77 if value is None else value})
        status = self.m.bus_dispatch(self.b, space, a)
        return status, a.value


@pytest.fixture
def bus(m):
    return Bus(m)


def test_nobody_answers(m, bus):
    for size, ones in ((1, 0xff), (2, 0xffff), (4, 2**32 - 1)):
        assert bus.access(m.BUS_PORT, 0x80, size) == (0, ones)
        assert bus.access(m.BUS_MMIO, 2**40, size) == (0, ones)
    assert bus.access(m.BUS_MMIO, U64, 8) == (0, U64)
    assert bus.access(m.BUS_PORT, 0x80, 4, value=9) == (0, 9)
    assert bus.access(m.BUS_MSR, 0x10, 8)[0] == -m.EFAULT
    assert bus.access(m.BUS_MSR, 0x10, 8, value=9)[0] == -m.EFAULT


def test_a_range_answers_at_both_ends_and_no_further(m, bus):
    assert bus.register(m.BUS_PORT, 0x3f8, 0x3ff, "uart") == 0
    for port in (0x3f7, 0x400):
        assert bus.access(m.BUS_PORT, port) == (0, 0xff)
    for port in (0x3f8, 0x3ff):
        assert bus.access(m.BUS_PORT, port, 2) == (0, 0x5a)
    assert bus.access(m.BUS_MMIO, 0x3f8) == (0, 0xff)
    assert bus.access(m.BUS_PORT, 0x3ff, 4, value=0x1234) == (0, 0x1234)
    assert bus.seen[-1] == ("uart", 0x3ff, 4, True, 0x1234)


def test_a_range_that_is_gone_answers_no_more(m, bus):
    """Though it was the last to answer: a BAR that was moved away."""
    for first in (0x1000, 0x3000):
        bus.register(m.BUS_MMIO, first, first + 0xfff, "bar")
    assert bus.access(m.BUS_MMIO, 0x3004) == (0, 0x5a)
    assert m.bus_unregister(bus.b, m.BUS_MMIO, 0x3000) == 0
    assert bus.access(m.BUS_MMIO, 0x3004) == (0, 0xff)
    # The same where another one has moved up in its place.
    assert bus.access(m.BUS_MMIO, 0x1004) == (0, 0x5a)
    bus.register(m.BUS_MMIO, 0x3000, 0x3fff, "other")
    assert bus.access(m.BUS_MMIO, 0x1004) == (0, 0x5a)
    assert m.bus_unregister(bus.b, m.BUS_MMIO, 0x1000) == 0
    assert bus.access(m.BUS_MMIO, 0x1004) == (0, 0xff)
    assert bus.access(m.BUS_MMIO, 0x3004) == (0, 0x5a)
    assert [name for name, *_ in bus.seen] == ["bar"] * 3 + ["other"]


def test_what_was_the_last_but_one(m, bus):
    """To and fro, as by an index and a data port: until one is gone."""
    for name, first in (("index", 0xcf8), ("data", 0xcfc), ("other", 0x70)):
        bus.register(m.BUS_PORT, first, first + 3, name)
    ports = (0xcf8, 0xcfc, 0x70, 0xcf8, 0x80, 0xcf8, 0xcfc, 0x80, 0xcfc)
    for _ in range(2):
        for port in ports:
            bus.access(m.BUS_PORT, port)
    assert [name for name, *_ in bus.seen] == 2 * [
        "index", "data", "other", "index", "index", "data", "data"]
    bus.access(m.BUS_PORT, 0xcf8)
    assert m.bus_unregister(bus.b, m.BUS_PORT, 0xcfc) == 0
    assert bus.access(m.BUS_PORT, 0xcfc) == (0, 0xff)
    bus.access(m.BUS_PORT, 0xcf8)
    bus.register(m.BUS_PORT, 0xcfc, 0xcff, "new")
    bus.access(m.BUS_PORT, 0xcfc)
    assert bus.seen[-1][0] == "new"


def test_a_range_where_nobody_was(m, bus):
    """A gap is kept as the last range is: until somebody is there."""
    for first in (0x100, 0x300):
        bus.register(m.BUS_PORT, first, first + 7, "far")
    for port in (0x300, 0x107):
        assert bus.access(m.BUS_PORT, 0x200) == (0, 0xff)
        assert bus.access(m.BUS_PORT, port) == (0, 0x5a)
    for port in (0x108, 0x2ff, 0x200, 0x0, 0xff, 0x308, 0xffff):
        assert bus.access(m.BUS_PORT, port) == (0, 0xff)
        assert not m.bus_has(bus.b, m.BUS_PORT, port)
        bus.register(m.BUS_PORT, port, port, "new")
        assert bus.access(m.BUS_PORT, port) == (0, 0x5a)
        assert m.bus_has(bus.b, m.BUS_PORT, port)
        assert bus.access(m.BUS_PORT, 0x100) == (0, 0x5a)


DEFECTS = {
    "a gap that is wider than it is": (
        "ranges[at].first - 1", "ranges[at].first"),
    "or begins too early": ("ranges[at - 1].last + 1", "ranges[at - 1].last"),
    "a gap that stays": (
        "	forget(bus, space);\n	return 0;\n}\n\nint bus_unregister",
        "	return 0;\n}\n\nint bus_unregister"),
    "one that was before stays": (
        "	bus->before[space] = bus->recent[space];\n}\n\nint", "}\n\nint"),
    "a range that stays": (
        "	forget(bus, space);\n	return 0;\n}\n\nbool",
        "	return 0;\n}\n\nbool"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_noticed(name):
    m = build(mutated("vmm/core/bus.c", DEFECTS[name]))
    with pytest.raises(AssertionError):
        for test in (test_a_range_where_nobody_was,
                     test_what_was_the_last_but_one,
                     test_a_range_that_is_gone_answers_no_more):
            test(m, Bus(m))


def test_a_handlers_fault_reaches_the_caller(m, bus):
    bus.register(m.BUS_MSR, 10, 20, "msr")
    assert bus.access(m.BUS_MSR, 13, 8)[0] == -m.EFAULT
    assert bus.access(m.BUS_MSR, 14, 8)[0] == 0


def test_overlap_order_and_room(m, bus):
    assert bus.register(m.BUS_MMIO, 9, 8, "odd") == -m.EINVAL
    for n in range(m.BUS_RANGES):
        assert bus.register(m.BUS_MMIO, n * 16, n * 16 + 15, "x") == 0
    assert bus.register(m.BUS_MMIO, 2**32, U64, "x") == -m.ENOSPC
    assert bus.register(m.BUS_MMIO, 17, 17, "x") == -m.EEXIST
    assert bus.register(m.BUS_PORT, 0, 0xffff, "x") == 0
    assert m.bus_unregister(bus.b, m.BUS_MMIO, 17) == -m.ENOENT
    assert m.bus_unregister(bus.b, m.BUS_MMIO, 16) == 0
    assert m.bus_unregister(bus.b, m.BUS_MMIO, 16) == -m.ENOENT
    assert bus.register(m.BUS_MMIO, 16, 31, "x") == 0


def test_spaces_do_not_disturb_each_other(m, bus):
    for n in range(m.BUS_RANGES):
        for space in range(m.BUS_SPACES):
            assert bus.register(space, n * 2, n * 2, f"{space} {n}") == 0
    for n in range(0, m.BUS_RANGES, 3):
        assert m.bus_unregister(bus.b, m.BUS_MMIO, n * 2) == 0
    for n in range(m.BUS_RANGES):
        for space in range(m.BUS_SPACES):
            bus.seen.clear()
            bus.access(space, n * 2, value=0)
            gone = space == m.BUS_MMIO and n % 3 == 0
            assert [s[0] for s in bus.seen] == ([] if gone else
                                                [f"{space} {n}"])


def test_a_handler_may_move_its_own_range(m, bus):
    """As a write to a BAR does."""
    bus.register(m.BUS_MMIO, 0x1000, 0x1fff, "bar")

    def move():
        bus.inside = None
        assert m.bus_unregister(bus.b, m.BUS_MMIO, 0x1000) == 0
        assert bus.register(m.BUS_MMIO, 0x5000, 0x5fff, "bar") == 0
    bus.inside = move
    assert bus.access(m.BUS_MMIO, 0x1004, 4) == (0, 0x5a)
    assert bus.access(m.BUS_MMIO, 0x1004, 4) == (0, 2**32 - 1)
    assert bus.access(m.BUS_MMIO, 0x5004, 4) == (0, 0x5a)


def test_all_ones(m):
    assert [m.bus_all_ones(n) for n in (1, 2, 4, 8)] == [
        2**8 - 1, 2**16 - 1, 2**32 - 1, U64]


ADDRESS = st.integers(0, 60) | st.integers(U64 - 20, U64)
STEP = st.tuples(st.sampled_from(["add", "remove", "access", "access"]),
                 ADDRESS, st.integers(0, 12))


@settings(max_examples=300)
@given(st.lists(STEP, max_size=40))
def test_against_a_list(m, steps):
    bus, model, name = Bus(m), [], 0
    for what, addr, extent in steps:
        if what == "add":
            name, last = name + 1, min(addr + extent, U64)
            clash = any(f <= last and addr <= l for f, l, _ in model)
            assert bus.register(m.BUS_MMIO, addr, last, str(name)) == (
                -m.EEXIST if clash else 0)
            if not clash:
                model.append((addr, last, str(name)))
        elif what == "remove":
            gone = [r for r in model if r[0] == addr]
            assert m.bus_unregister(bus.b, m.BUS_MMIO, addr) == (
                0 if gone else -m.ENOENT)
            model = [r for r in model if r[0] != addr]
        else:
            bus.seen.clear()
            bus.access(m.BUS_MMIO, addr)
            assert [s[:2] for s in bus.seen] == [
                (n, addr) for f, l, n in model if f <= addr <= l]
        ranges = bus.b.ranges[m.BUS_MMIO][0:bus.b.count[m.BUS_MMIO]]
        assert [(r.first, r.last, m.string(r.name)) for r in ranges] == \
            sorted(model)
