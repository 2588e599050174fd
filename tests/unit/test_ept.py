# SPDX-License-Identifier: MIT
"""The EPT against a naive map of memory, by a walk of the tables' own bytes;
and the order of stores and INVEPT against what a CPU may see in between."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmxcpu
from eptmodel import (ADDRESS, G1, LARGE, M2, PAGE, RWX, UC, WB, WC, Memory,
                      links, merged, shift)
from mutants import mutated

SOURCE = "arch/x86/vmx/ept.c"
EVENT = struct.Struct("iIQQ")


@pytest.fixture(scope="module")
def m():
    return build()


def build(source=SOURCE, name="ept"):
    return vmxcpu.build(name, [source], headers=["arch/x86/vmx/ept.h"])


def naive(steps):
    """What steps of (gpa, size, what it maps to or None) amount to."""
    marks = sorted({x for gpa, size, _ in steps for x in (gpa, gpa + size)})
    out = []
    for start, end in zip(marks, marks[1:]):
        for gpa, size, to in reversed(steps):
            if gpa <= start < gpa + size:
                if to:
                    hpa, rights, memtype = to
                    out.append((start, end, hpa + start - gpa, rights,
                                memtype))
                break
    return merged(out)


class Ept:
    def __init__(self, m, ept_2m=True, ept_1g=True):
        self.m = m
        m.vmx_fakes_reset()
        self.cap = m.new("struct vmx_capabilities *", {
            "ept_2m": ept_2m, "ept_1g": ept_1g})
        self.e = m.new("struct ept *")
        assert m.ept_init(self.e, self.cap) == 0
        # SDM table 25-9: WB walks of 4 levels, no accessed and dirty flags.
        assert self.e.eptp & 0xfff == 3 << 3 | 6
        self.steps = []
        self.memory, self.now = Memory(m, self.e), []

    def region(self, gpa, size, hpa, rights=7, memtype=WB, kind=0):
        return self.m.new("struct region *", {
            "gpa": gpa, "size": size, "hpa": hpa, "cpu": rights,
            "memtype": memtype, "kind": kind, "dma": 7})

    def map(self, gpa, size, hpa, rights=7, memtype=WB):
        region = self.region(gpa, size, hpa, rights, memtype)
        return self._change(gpa, size, (hpa, rights, memtype),
                            lambda: self.m.ept_map(self.e, region))

    def unmap(self, gpa, size):
        return self._change(gpa, size, None,
                            lambda: self.m.ept_unmap(self.e, gpa, size))

    def _change(self, gpa, size, to, call):
        memory, old = self.memory, self.now
        self.m.clear_events()
        status = call()
        events = self.events()
        if status == 0:
            self.steps.append((gpa, size, to))
        replaced = replay(self.m, memory, events, gpa, gpa + size)
        assert memory.bytes == self.m.ffi.buffer(
            self.m.arena, len(memory.bytes))[:], "changed by no store"
        self.now = memory.leaves(self.cap)
        check_invept(self.m, self.e, events, replaced,
                     lost(old, self.now, gpa, gpa + size))
        assert self.e.tables == self.m.arena_count()
        return status

    def events(self):
        m = self.m
        assert m.fakes_event_count <= m.FAKES_EVENTS
        raw = m.ffi.buffer(m.fakes_events, m.fakes_event_count * EVENT.size)
        return [(kind, addr, value) for kind, _, addr, value in
                EVENT.iter_unpack(raw)]

    def leaves(self):
        return Memory(self.m, self.e).leaves(self.cap)


def lost(old, new, start, end):
    """Whether a page of the range had a mapping that it has no more."""
    for gpa, top, hpa, *bits in old:
        first, last = max(gpa, start), min(top, end)
        if first < last:
            kept = [(max(g, first), min(t, last)) for g, t, h, *b in new
                    if b == bits and h - g == hpa - gpa and
                    g < last and t > first]
            if sum(t - f for f, t in kept) < last - first:
                return True
    return False


def replay(m, memory, events, start, end):
    """Does the stores one by one on the memory as it was. A CPU that walks
    in between sees a change of the range alone. Returns whether an entry
    that was present was replaced."""
    tables, replaced = memory.tables(), False
    for kind, addr, value in events:
        at = addr - memory.base >> 3
        if kind == m.FAKE_PAGE_ALLOC:
            assert at not in tables, "given out while it is in use"
            memory.bytes[at * 8:at * 8 + PAGE] = bytes(PAGE)
        elif kind == m.FAKE_PAGE_FREE:
            assert at not in tables, "freed while it is linked"
            memory.bytes[at * 8:at * 8 + PAGE] = b"\xa5" * PAGE
        elif kind == m.FAKE_WRITE:
            table = at & ~511
            if table in tables:
                level, gpa = tables[table]
                gpa += (at & 511) << shift(level)
                old, memory.q[at] = memory.q[at], value
                replaced |= old & RWX != 0
                look(memory, level, gpa, old, value, start, end)
                if links(old, level) or links(value, level):
                    tables = memory.tables()
            else:
                memory.q[at] = value
    return replaced


def look(memory, level, gpa, old, new, start, end):
    """One store to a table that the CPU can reach."""
    if links(new, level):
        # A link changes no translation: the table below is complete.
        at = memory.index(new & ADDRESS)
        step, large = 1 << shift(level - 1), LARGE if level > 1 else 0
        assert not old & RWX or old & LARGE, "a table in place of a table"
        assert list(memory.q[at:at + 512]) == [
            (old & ~LARGE | large) + n * step if old & RWX else 0
            for n in range(512)], "linked before it was filled"
    elif links(old, level) and not new:
        at = memory.index(old & ADDRESS)
        assert not any(memory.q[at:at + 512]) or (
            start <= gpa and gpa + (1 << shift(level)) <= end), \
            "a table that is still needed is taken out"
    else:
        assert start <= gpa and gpa + (1 << shift(level)) <= end, \
            "a page outside the range changes for a while"


def check_invept(m, ept, events, replaced, due):
    flushes = [n for n, (kind, _, _) in enumerate(events)
               if kind == m.FAKE_INVEPT]
    stores = [n for n, (kind, _, _) in enumerate(events)
              if kind == m.FAKE_WRITE]
    if due:
        assert flushes, "no INVEPT"
        assert flushes[-1] > stores[-1], "INVEPT before the last store"
        assert events[flushes[-1]][1] == ept.eptp
    if not replaced:
        assert not flushes, "INVEPT though nothing present changed"
    freed = [n for n, (kind, _, _) in enumerate(events)
             if kind == m.FAKE_PAGE_FREE]
    for n in freed:
        before = [s for s in stores if s < n]
        assert any(before[-1] < f < n for f in flushes), \
            "a table freed while a CPU may still walk it"


# --- Single cases --------------------------------------------------------

def test_empty(m):
    ept = Ept(m)
    assert ept.leaves() == [] and ept.e.tables == 1


def test_large_pages_are_used_where_they_fit(m):
    for can_2m, can_1g, tables in ((True, True, 2), (True, False, 5),
                                   (False, False, 1 + 1 + 1 + 16)):
        ept = Ept(m, can_2m, can_1g)
        size = 3 * G1 if can_2m else 16 * M2
        assert ept.map(0, size, 4 * G1) == 0
        assert ept.leaves() == [(0, size, 4 * G1, 7, WB)]
        assert ept.e.tables == tables


def test_memory_below_a_page_boundary_of_the_host(m):
    """Guest and host are not congruent: only small pages will do."""
    ept = Ept(m)
    assert ept.map(0, M2, PAGE) == 0
    assert ept.leaves() == [(0, M2, PAGE, 7, WB)]
    assert ept.e.tables == 4


def test_a_write_protected_page_in_the_middle_of_a_large_one(m):
    ept = Ept(m)
    ept.map(0, G1, 0)
    ept.map(5 * M2 + 7 * PAGE, PAGE, 0, rights=5)
    assert ept.leaves() == naive(ept.steps)
    assert ept.e.tables == 4    # large pages stay but for the two cut


def test_a_large_page_in_place_of_tables_frees_them(m):
    ept = Ept(m)
    ept.map(0, M2, PAGE)
    ept.map(M2, M2, PAGE)
    assert ept.e.tables == 5
    ept.map(0, G1, 0)
    assert ept.e.tables == 2
    ept.unmap(0, 512 * G1)
    assert ept.e.tables == 1


def test_what_maps_nothing(m):
    ept = Ept(m)
    hole = ept.region(0, G1, 0, kind=m.REGION_HOLE)
    no_rights = ept.region(0, G1, 0, rights=0)
    m.clear_events()
    assert m.ept_map(ept.e, hole) == 0
    assert m.ept_map(ept.e, no_rights) == 0
    assert m.events() == [] and ept.leaves() == []


@pytest.mark.parametrize("gpa, size", [
    (0, 2**48 + PAGE), (2**48 - PAGE, 2 * PAGE), (2**48, PAGE),
    (2**64 - PAGE, 2 * PAGE)])
def test_beyond_what_four_levels_reach(m, gpa, size):
    ept = Ept(m)
    assert ept.unmap(gpa, size) == -m.EINVAL
    assert ept.map(gpa, size, 0) == -m.EINVAL
    assert ept.map(2**48 - PAGE, PAGE, 0) == 0
    assert ept.leaves() == [(2**48 - PAGE, 2**48, 0, 7, WB)]


def test_a_list_is_mapped_whole(m):
    ept = Ept(m)
    listed = m.new("struct region_list *")
    rows = [(0, 0xa0000, G1, 7, WB, m.REGION_RAM),
            (0xa0000, 0x20000, 0xa0000, 3, UC, m.REGION_DEVICE),
            (0xc0000, 0x40000, 2 * G1, 5, WB, m.REGION_ROM),
            (0x100000, 31 * M2, G1 + 0x100000, 7, WB, m.REGION_RAM),
            (0xfee00000, PAGE, 0, 0, UC, m.REGION_HOLE)]
    for n, (gpa, size, hpa, rights, memtype, kind) in enumerate(rows):
        listed.regions[n] = ept.region(gpa, size, hpa, rights, memtype,
                                       kind)[0]
    listed.count = len(rows)
    assert m.ept_map_list(ept.e, listed) == 0
    assert ept.leaves() == merged([
        (gpa, gpa + size, *rest) for gpa, size, *rest, kind in rows
        if kind != m.REGION_HOLE])


def test_out_of_pages(m):
    """At whatever page the memory runs out: an error, and all is freed."""
    for limit in range(1, 12):
        ept = Ept(m, ept_1g=False)
        m.lib.arena_limit = limit
        results = [ept.map(0, 2 * G1, 0), ept.map(PAGE, PAGE, 5 * PAGE),
                   ept.unmap(G1 + M2 + PAGE, PAGE),
                   ept.map(512 * G1, M2, PAGE)]
        assert set(results) <= {0, -m.ENOMEM}
        assert (-m.ENOMEM in results) == (limit < 9)
    m.vmx_fakes_reset()
    m.lib.arena_limit = 0
    ept = m.new("struct ept *")
    assert m.ept_init(ept, m.new("struct vmx_capabilities *")) == -m.ENOMEM


def test_tables_are_given_back(m):
    """A guest that moves a BAR about: what is empty again is no table."""
    ept = Ept(m, ept_1g=False)
    assert ept.map(0, 4 * PAGE, G1) == 0
    kept = ept.e.tables
    for n in range(1, 40):
        assert ept.map(n * 512 * G1 // 8 + 5 * PAGE, 4 * PAGE, 0) == 0
        assert ept.unmap(n * 512 * G1 // 8 + 5 * PAGE, 4 * PAGE) == 0
        assert ept.e.tables == kept
    assert ept.unmap(0, 512 * G1) == 0 and ept.e.tables == 1

# --- Random ones ---------------------------------------------------------

def spans():
    """(gpa, size, hpa): large ones congruent, so that few entries do."""
    small = st.tuples(
        st.integers(0, 3 * 512).map(lambda n: n * PAGE) |
        st.integers(0, 1100).map(lambda n: G1 - 550 * PAGE + n * PAGE),
        st.integers(1, 700).map(lambda n: n * PAGE),
        st.integers(0, 2000).map(lambda n: n * PAGE))
    large = st.builds(
        lambda gpa, size, low, high, by: (
            gpa * M2 + low * PAGE, size * M2 - (low + high) * PAGE,
            gpa * M2 + low * PAGE + by),
        st.integers(0, 3 * 512), st.integers(1, 1400),
        st.sampled_from([0, 0, 1, 200]), st.sampled_from([0, 0, 1, 200]),
        st.sampled_from([0, M2, G1, 5 * G1]))
    return small | large


STEP = st.tuples(st.sampled_from(["map", "map", "unmap"]), spans(),
                 st.sampled_from([1, 3, 5, 7]), st.sampled_from([WB, UC, WC]))


@settings(max_examples=100, deadline=None)
@given(st.lists(STEP, max_size=7), st.sampled_from([1, 2]))
def test_against_a_naive_map(m, steps, level):
    ept = Ept(m, ept_1g=level == 2)
    for what, (gpa, size, hpa), rights, memtype in steps:
        if what == "map":
            assert ept.map(gpa, size, hpa, rights, memtype) == 0
        else:
            assert ept.unmap(gpa, size) == 0
        assert ept.leaves() == naive(ept.steps)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1200),
                          st.integers(1, 700), st.integers(0, 2000)),
                max_size=6))
def test_a_cpu_with_small_pages_only(m, steps):
    ept = Ept(m, False, False)
    for mapping, gpa, size, hpa in steps:
        if mapping:
            assert ept.map(gpa * PAGE, size * PAGE, hpa * PAGE) == 0
        else:
            assert ept.unmap(gpa * PAGE, size * PAGE) == 0
    assert ept.leaves() == naive(ept.steps)

# --- Defects that must be noticed ---------------------------------------

INVEPT = """	invalidate(ept);
	ept->stale = false;
"""
EARLY = """	if (ept->tables > 1)
		vmx_invept(ept->cap, ept->eptp);
"""
CHANGE = "	err = set_range(ept, ept->root, LEVELS - 1, gpa, size, entry);\n"
FILL = """	if (leaf & PRESENT)
		for (unsigned i = 0; i < ENTRIES; i++)
			mmio_write64(&table[i],
				     (level == 1 ? leaf & ~(u64)EPT_PS : leaf) +
					     i * span(level - 1));
"""
LINK = "	store(ept, entry, virt_to_phys(table) | PRESENT);\n"
REPLACE = "			store(ept, e, (entry | ps) & ~no_x);\n"
FREE = "			free_tables(ept, old, level);\n"


def unmap_a_page(m):
    ept = Ept(m)
    assert ept.map(0, 2 << 30, 0) == 0
    assert ept.unmap(5 << 21, 4096) == 0


def protect_a_page(m):
    test_a_write_protected_page_in_the_middle_of_a_large_one(m)


def large_in_place_of_small(m):
    test_a_large_page_in_place_of_tables_frees_them(m)


MUTANTS = {
    "no INVEPT": ([(INVEPT, "")], unmap_a_page, "no INVEPT"),
    "no INVEPT after a change of rights":
        ([(INVEPT, "")], protect_a_page, "no INVEPT"),
    "INVEPT before the stores":
        ([(INVEPT, ""),
          (CHANGE, EARLY + CHANGE)],
         unmap_a_page, "INVEPT before the last store"),
    "INVEPT whenever called":
        ([("\tif (ept->stale)\n\t\tvmx", "\tvmx")],
         unmap_a_page, "INVEPT though nothing present changed"),
    "INVEPT of something else":
        ([("vmx_invept(ept->cap, ept->eptp)", "vmx_invept(ept->cap, 0)")],
         unmap_a_page, ""),
    "a table linked before it is filled":
        ([(FILL, ""), (LINK, LINK + FILL)], unmap_a_page,
         "linked before it was filled"),
    "a table that is not filled":
        ([(FILL, "")], unmap_a_page, "linked before it was filled"),
    "a table freed before it is unlinked":
        ([(REPLACE, ""), (FREE, FREE + REPLACE)], large_in_place_of_small,
         "freed while it is linked"),
    "a table freed before INVEPT":
        ([("			if (is_table(old, level))\n				invalidate(ept);\n", "")],
         large_in_place_of_small, "while a CPU may still walk it"),
    "an empty table freed before INVEPT":
        ([("				invalidate(ept);\n				page_free", "				page_free")],
         test_tables_are_given_back, "while a CPU may still walk it"),
    "an empty table kept":
        ([("if (!entry && is_empty(next))", "if (!entry && !next && is_empty(next))")],
         test_tables_are_given_back, ""),
    "tables leak": ([(FREE, "			(void)free_tables; (void)old;\n")],
                    large_in_place_of_small, ""),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_order_is_noticed(name):
    changes, check, says = MUTANTS[name]
    m = build(mutated(SOURCE, *changes), "ept_mutant")
    with pytest.raises(AssertionError, match=says):
        check(m)


def test_the_checks_pass_on_the_source_itself():
    m = build()
    for _, check, _ in MUTANTS.values():
        check(m)
