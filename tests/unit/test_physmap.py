# SPDX-License-Identifier: MIT
"""Guest RAM out of host RAM, against what its header promises.

Sets of addresses are sorted lists of [start, end) that do not touch; the
functions on them know nothing of the C code's ranges.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
import ramfakes

KIB, MIB, GIB, PAGE = 2**10, 2**20, 2**30, 2**12


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "physmap", ["vmm/physmap.c", "kernel/phys.c", "kernel/region.c"],
        headers=["vmm/physmap.h", "kernel/log.h"], fakes=ramfakes.FAKES,
        cdef=ramfakes.CDEF)


# --- Sets of addresses ---------------------------------------------------

def combine(a, b, keep):
    """[start, end) where keep(in a, in b). a and b need not be sorted."""
    steps = {}
    for n, ranges in enumerate((a, b)):
        for start, end in ranges:
            for at, step in (start, 1), (end, -1):
                steps.setdefault(at, [0, 0])[n] += step
    found, depth, inside = [], [0, 0], False
    for at in sorted(steps):
        depth = [d + s for d, s in zip(depth, steps[at])]
        now = keep(depth[0] > 0, depth[1] > 0)
        if now and not inside:
            found.append((at, None))
        elif inside and not now:
            found[-1] = (found[-1][0], at)
        inside = now
    return found


def union(a, b):
    return combine(a, b, lambda x, y: x or y)


def minus(a, b):
    return combine(a, b, lambda x, y: x and not y)


def both(a, b):
    return combine(a, b, lambda x, y: x and y)


def total(a):
    return sum(e - s for s, e in a)


# --- A host, what is pinned, and the guest it makes ----------------------

class Guest:
    def __init__(self, m, free, pinned=(), mode="relocated", **config):
        """free: [(start, end)]; pinned: [(gpa, size, kind, hpa)]"""
        self.m, self.host = m, m.new("struct phys *")
        self.list = m.new("struct region_list *")
        self.names = [m.ffi.new("char[]", b"pinned")]
        self.pinned = []
        for start, end in free:
            assert m.phys_free(self.host, start, end - start) == 0
        self.free = self.host_free()
        for gpa, size, kind, *hpa in pinned:
            r = m.new("struct region *", {
                "gpa": gpa, "size": size, "hpa": hpa[0] if hpa else gpa,
                "kind": kind, "name": self.names[0]})
            if m.region_add(self.list, r, m.NULL) == 0:
                self.pinned.append((gpa, size, kind, r.hpa))
        self.mode = mode
        self.map = m.new("struct physmap *", {
            "mode": m.RAM_IDENTITY if mode == "identity" else
            m.RAM_RELOCATED, "host": self.host, **config})
        self.status = m.physmap_fill(self.list, self.map)

    def host_free(self):
        return [(r.base, r.base + r.size)
                for r in self.host.free[0:self.host.count]]

    @property
    def ram(self):
        """[(gpa, hpa, size)] of what was added."""
        return [(r.gpa, r.hpa, r.size)
                for r in self.list.regions[0:self.list.count]
                if r.name != self.names[0]]

    def pinned_gpa(self):
        return union([], sorted((g, g + s) for g, s, *_ in self.pinned))

    def pinned_hpa(self):
        return union([], sorted((h, h + s) for _, s, kind, h in self.pinned
                                if kind != self.m.REGION_HOLE))

    def check(self):
        """What holds for every guest, whatever the host looked like."""
        m = self.m
        rows = self.list.regions[0:self.list.count]
        assert [(r.gpa, r.size, r.kind, r.hpa) for r in rows
                if r.name == self.names[0]] == sorted(self.pinned), \
            "what is pinned stays as it is"
        end = 0
        for r in rows:
            assert r.gpa >= end and r.size > 0
            assert (r.gpa | r.hpa | r.size) % PAGE == 0
            end = r.gpa + r.size
            if r.name != self.names[0]:
                assert (r.kind, r.memtype, r.e820, r.cpu, r.dma) == (
                    m.REGION_RAM, m.MEMTYPE_WB, m.E820_RAM, m.REGION_RWX,
                    m.REGION_RW)
        taken = sorted((h, h + s) for _, h, s in self.ram)
        for (_, one), (two, _) in zip(taken, taken[1:]):
            assert one <= two, "a host page is given twice"
        usable = minus(self.free, self.pinned_hpa())
        taken = union([], taken)
        assert minus(taken, usable) == [], "host memory that was not free"
        assert self.host_free() == minus(usable, taken), \
            "what the guest has is no longer free, and nothing else is"
        assert len(rows) <= m.REGION_MAX
        given = total(taken)
        assert given >= m.PHYSMAP_LEAST
        if self.map.limit:
            assert given <= self.map.limit
        assert total(usable) - given >= min(self.map.reserve, total(usable))
        return given


def sizes_by_page(ram):
    """Bytes of guest RAM by the largest page the EPT could map them with."""
    found = {GIB: 0, 2 * MIB: 0, PAGE: 0}
    for gpa, hpa, size in ram:
        left = [(gpa, gpa + size)]
        for page in found:
            if (gpa - hpa) % page:
                continue
            whole = []
            for start, end in left:
                a, b = -(-start // page) * page, end // page * page
                if a < b:
                    whole.append((a, b))
            found[page] += total(whole)
            left = minus(left, whole)
    return found


# --- Real hosts ----------------------------------------------------------

def standard_pins(m):
    return [(0xa0000, 0x20000, m.REGION_DEVICE),
            (0xc0000, 0x40000, m.REGION_ROM),
            (0xfec00000, PAGE, m.REGION_HOLE),
            (0xfee00000, PAGE, m.REGION_HOLE),
            (0xe0000000, 16 * MIB, m.REGION_DEVICE)]


BOCHS = [(0, 0xa0000), (MIB, 0x1000000), (0x4800000, 0x1fff0000)]
LAPTOP = [(0x1000, 0x58000), (0x59000, 0x9e000), (MIB, 0x40000000),
          (0x40400000, 0x6f2a5000), (0x76f2e000, 0x77000000),
          (4 * GIB, 18 * GIB + 0x6e800000)]
SMALL = [(0x1000, 0x9f000), (MIB, 64 * MIB)]
HOSTS = {"bochs": (BOCHS, 0x1fff0000), "laptop": (LAPTOP, 0x77000000),
         "small": (SMALL, 64 * MIB)}
EVERY_HOST = pytest.mark.parametrize("host", list(HOSTS))


@EVERY_HOST
@pytest.mark.parametrize("reserve", [0, 8 * MIB])
def test_relocated(m, host, reserve):
    free, low = HOSTS[host]
    guest = Guest(m, free, standard_pins(m), reserve=reserve, low_limit=low)
    assert guest.status == 0
    given = guest.check()
    # Low host memory and the reserve stay, and all else is given.
    above = total([r for r in free if r[0] >= MIB])
    assert given == above - reserve
    assert all(gpa != hpa and hpa >= MIB for gpa, hpa, _ in guest.ram)
    ram = union([], [(g, g + s) for g, _, s in guest.ram])
    assert both(ram, [(low, 4 * GIB)]) == []
    assert minus([(0, 0xa0000)], ram) == [], "conventional memory is there"
    assert ram[0] == (0, 0xa0000) and ram[1][0] == MIB
    assert f"{given // MIB} MiB, relocated" in m.log_text()
    by_page = sizes_by_page(guest.ram)
    # A range loses at most a large page at each end, a guest gap as well.
    edges = 2 * (len(free) + 3)
    assert by_page[PAGE] <= edges * 2 * MIB
    assert by_page[PAGE] + by_page[2 * MIB] <= edges * GIB
    if host == "laptop":
        assert by_page[GIB] >= 12 * GIB and by_page[PAGE] < 24 * MIB
    assert len(guest.ram) <= 3 * len(free)


@EVERY_HOST
@pytest.mark.parametrize("reserve", [0, 8 * MIB])
def test_identity(m, host, reserve):
    free, low = HOSTS[host]
    guest = Guest(m, free, standard_pins(m), "identity", reserve=reserve,
                  low_limit=low)
    assert guest.status == 0
    given = guest.check()
    assert given == total(free) - reserve
    assert all(gpa == hpa for gpa, hpa, _ in guest.ram)
    ram = union([], [(g, g + s) for g, _, s in guest.ram])
    # The reserve lies at the top, in one piece.
    top = max(e for _, e in free)
    assert ram == minus(free, [(top - reserve, top)] if reserve else [])
    assert f"{given // MIB} MiB, identity" in m.log_text()


def test_the_reserve_is_one_piece(m):
    free = [(MIB, 40 * MIB), (48 * MIB, 49 * MIB), (50 * MIB, 51 * MIB)]
    for mode in "relocated", "identity":
        guest = Guest(m, free, [], mode, reserve=8 * MIB, low_limit=GIB)
        assert guest.status == 0
        guest.check()
        assert m.phys_alloc(guest.host, 8 * MIB, PAGE, m.PHYS_ANYWHERE) != \
            m.PHYS_NONE


def test_a_reserve_that_no_range_holds(m):
    free = [(n * 4 * MIB, n * 4 * MIB + 3 * MIB) for n in range(1, 20)]
    for mode in "relocated", "identity":
        guest = Guest(m, free, [], mode, reserve=8 * MIB, low_limit=GIB)
        assert guest.status == 0
        assert guest.check() == total(free) - 8 * MIB


@pytest.mark.parametrize("limit", [16 * MIB, 17 * MIB + 4096 + 5, 3 * GIB,
                                   6 * GIB])
def test_limit(m, limit):
    for mode in "relocated", "identity":
        guest = Guest(m, LAPTOP, standard_pins(m), mode, limit=limit,
                      low_limit=0x77000000)
        assert guest.status == 0
        assert guest.check() == limit // PAGE * PAGE
        tops = [g + s for g, _, s in guest.ram]
        if limit < GIB:     # from the bottom: a kernel needs low memory
            assert max(tops) < 4 * GIB
        if mode == "relocated":
            assert (max(tops) > 4 * GIB) == (limit > 0x77000000)


def test_the_pci_hole_stays_empty(m):
    guest = Guest(m, LAPTOP, standard_pins(m), low_limit=0x77000000)
    ram = [(g, g + s) for g, _, s in guest.ram]
    assert max(e for _, e in ram if e <= 4 * GIB) == 0x77000000
    assert min(s for s, _ in ram if s >= 0x77000000) == 4 * GIB
    # Nonsense for a limit does not reach into the hole's far side.
    guest = Guest(m, LAPTOP, standard_pins(m), low_limit=2**64 - 1)
    guest.check()
    assert guest.status == 0


def test_pins_of_every_kind_stand_in_the_middle(m):
    pins = [(32 * MIB, 64 * KIB, m.REGION_ROM, 0xff000000),
            (48 * MIB + PAGE, PAGE, m.REGION_HOLE),
            (4 * GIB, PAGE, m.REGION_HOLE),
            (64 * MIB, 2 * MIB, m.REGION_RAM, 0x8000000)]
    for mode in "relocated", "identity":
        guest = Guest(m, BOCHS, pins, mode, low_limit=0x1fff0000)
        assert guest.status == 0
        guest.check()
        # What a pinned region maps is the guest's: nobody gets it again.
        assert both(guest.host_free(), [(0x8000000, 0x8200000)]) == []
        assert both(sorted((h, h + s) for _, h, s in guest.ram),
                    [(0x8000000, 0x8200000)]) == []


# --- Too little, too many ------------------------------------------------

@pytest.mark.parametrize("free, config", [
    ([], {}), ([(MIB, 17 * MIB - PAGE)], {}), ([(MIB, GIB)], {"limit": 4096}),
    ([(MIB, GIB)], {"limit": 1}), ([(MIB, GIB)], {"reserve": GIB}),
    ([(MIB, GIB)], {"reserve": 2**63}),
    ([(2 * n * PAGE, (2 * n + 1) * PAGE) for n in range(256, 700)], {}),
    # 20 MiB, but more ranges than rows
    ([(n * MIB, n * MIB + 40 * KIB) for n in range(16, 528)], {})])
@pytest.mark.parametrize("mode", ["relocated", "identity"])
def test_too_little(m, free, config, mode):
    guest = Guest(m, free, standard_pins(m), mode, low_limit=GIB, **config)
    assert guest.status == -m.ENOMEM
    assert guest.ram == [] and guest.host_free() == guest.free
    assert guest.list.count == len(standard_pins(m))
    (level, line), = m.log_lines()
    assert level == m.LOG_ERROR and "16 MiB" in line


def test_exactly_enough(m):
    guest = Guest(m, [(MIB, 17 * MIB)], [], low_limit=GIB)
    assert guest.status == 0 and guest.check() == 16 * MIB


@pytest.mark.parametrize("order", [list, sorted, lambda x: sorted(x)[::-1]])
@pytest.mark.parametrize("mode", ["relocated", "identity"])
def test_the_smallest_ranges_are_left_out(m, mode, order):
    sizes = order((n * 37 % 300 + 40) * PAGE for n in range(300))
    free = [((n + 1) * 4 * MIB, (n + 1) * 4 * MIB + size)
            for n, size in enumerate(sizes)]
    pins = [*standard_pins(m), (PAGE, PAGE, m.REGION_RAM)]   # not ours
    guest = Guest(m, free, pins, mode, low_limit=3 * GIB)
    assert guest.status == 0
    guest.check()
    room = m.REGION_E820_MAX - m.PHYSMAP_SPARE      # pins have no row
    assert guest.list.count == room + len(pins)
    left = [e - s for s, e in guest.host_free()]
    if mode == "identity":
        assert sorted(s for *_, s in guest.ram) == sorted(sizes)[-room:]
    else:
        # Each gap in the guest may cut one more; no large range is left.
        assert max(left) <= sorted(sizes)[-room + 3]
    level, line = m.log_lines()[-1]
    assert level == m.LOG_WARN and f"{sum(left) // KIB} KiB" in line


def test_equal_ranges_are_kept_as_far_as_they_go(m):
    free = [((n + 1) * 4 * MIB, (n + 1) * 4 * MIB + MIB) for n in range(300)]
    guest = Guest(m, free, [], "identity", low_limit=3 * GIB)
    assert guest.status == 0
    assert guest.check() == (m.REGION_E820_MAX - m.PHYSMAP_SPARE) * MIB


def test_a_list_that_is_full_already(m):
    pins = [((2 * n + 1) * GIB, PAGE, m.REGION_HOLE)
            for n in range(m.REGION_MAX - m.PHYSMAP_SPARE)]
    guest = Guest(m, LAPTOP, pins, low_limit=0x77000000)
    assert guest.status == -m.ENOMEM
    assert guest.ram == []


def test_a_single_page_may_have_to_be_itself(m):
    """...but not where another one would do."""
    pages = [(at, at + PAGE) for at in (80 * MIB, 90 * MIB)]
    pins = [(0, 64 * MIB, m.REGION_HOLE)]
    for last in pages:
        guest = Guest(m, [(16 * MIB, 32 * MIB), last], pins, low_limit=GIB)
        assert guest.ram[1:] == [(80 * MIB, last[0], PAGE)]
    guest = Guest(m, [(16 * MIB, 32 * MIB), *pages], pins, low_limit=GIB)
    assert guest.status == 0
    guest.check()
    assert all(g != h for g, h, _ in guest.ram)


# --- Any host ------------------------------------------------------------

def near(unit, most):
    """A multiple of unit, or some pages beside it."""
    return st.tuples(st.integers(0, most), st.integers(-3, 3)).map(
        lambda x: max(0, x[0] * unit + x[1] * PAGE))


EDGE = near(256 * MIB, 24) | near(2 * MIB, 600) | near(PAGE, 2000)
RANGE = st.tuples(EDGE, EDGE).map(lambda x: (x[0], x[0] + max(x[1], PAGE)))


@settings(max_examples=300, deadline=None)
@given(st.lists(RANGE, min_size=1, max_size=12), st.lists(st.tuples(
    EDGE, EDGE, st.integers(0, 3), EDGE), max_size=8),
    st.sampled_from(["relocated", "identity"]), EDGE, EDGE, EDGE)
def test_any_host(m, free, pins, mode, limit, reserve, low):
    m.reset()
    pins = [(g, max(s, PAGE), kind, g if mode == "identity" else h)
            for g, s, kind, h in pins]
    if mode == "identity":
        pins = [p for p in pins if p[2] != m.REGION_RAM]
    guest = Guest(m, free, pins, mode, limit=limit, reserve=reserve,
                  low_limit=low)
    usable = minus(guest.free, guest.pinned_hpa())
    if mode == "relocated":
        usable = minus(usable, [(0, MIB)])
    else:
        usable = minus(usable, guest.pinned_gpa())
    if guest.status:
        assert guest.status == -m.ENOMEM and guest.ram == []
        whole = total(usable) - reserve
        assert min(whole, limit or whole) < 16 * MIB + reserve
        return
    given = guest.check()
    ram = union([], sorted((g, g + s) for g, _, s in guest.ram))
    if mode == "identity":
        assert all(g == h for g, h, _ in guest.ram)
        assert minus(ram, usable) == []
        # From the bottom, without a gap but what is not usable or set aside.
        gaps = minus(both(usable, [(0, ram[-1][1])]), ram)
        assert total(gaps) <= reserve
        return
    assert all(g != h or s == PAGE for g, h, s in guest.ram)
    assert all(h >= MIB for _, h, _ in guest.ram)
    low = min(low, 4 * GIB)
    room = minus([(0, low), (4 * GIB, 2**46)], guest.pinned_gpa())
    assert minus(ram, room) == []
    assert ram == both(room, [(0, ram[-1][1])]), "a hole below guest RAM"
    if not limit and not reserve:
        assert given == total(usable), "host memory is left over"


# --- Clear and release ---------------------------------------------------

def test_clear_and_release(m):
    m.lib.ram_size = 64 * MIB
    ram = m.new("u8[]", m.ram_size)
    m.lib.ram = ram
    m.ffi.memmove(ram, b"\xa5" * len(ram), len(ram))
    guest = Guest(m, SMALL, [(0xa0000, 0x60000, m.REGION_DEVICE),
                             (8 * MIB, PAGE, m.REGION_ROM, 0x9f000)],
                  reserve=MIB, low_limit=64 * MIB)
    assert guest.status == 0
    assert m.ffi.buffer(ram)[:] == b"\xa5" * len(ram), "nothing is cleared yet"
    m.physmap_clear(guest.list)
    expected = bytearray(b"\xa5" * len(ram))
    for _, hpa, size in guest.ram:
        expected[hpa:hpa + size] = bytes(size)
    assert m.ffi.buffer(ram)[:] == expected
    m.physmap_release(guest.list, guest.host)
    assert guest.host_free() == guest.free
    assert [r.kind for r in guest.list.regions[0:guest.list.count]] == \
        [m.REGION_DEVICE, m.REGION_ROM]
    assert m.physmap_fill(guest.list, guest.map) == 0, "a second guest"
    guest.check()
