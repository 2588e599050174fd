# SPDX-License-Identifier: MIT
"""The second-level page tables against a dictionary of pages, read back by
the independent walker (tests/walker)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vtdmodel as model
from vtdmodel import walk

PAGE, MIB, GIB = 4096, 1 << 20, 1 << 30
R, W, RW = 1, 2, 3
TEXT = {R: "r--", W: "-w-", RW: "rw-"}


@pytest.fixture(scope="module")
def m():
    return model.build()


class Tables:
    def __init__(self, m, levels=4, leaf_levels=3, flush=False, host_width=52):
        self.m = m
        m.fake_start()
        self.flush = flush
        self.sl = m.new("struct second_level *", {
            "levels": levels, "leaf_levels": leaf_levels, "flush": flush,
            "width": min(12 + 9 * levels, 57), "host_width": host_width})
        assert m.sl_init(self.sl) == 0
        self.context = walk.Context(m.virt_to_phys(self.sl.root), levels, 1,
                                    False)

    def view(self, address, size):
        out = self.m.ffi.new("uint8_t[]", size)
        self.m.fake_view(address, out, size, not self.flush)
        return bytes(self.m.ffi.buffer(out))

    def map(self, gpa, hpa, size, rights):
        return self.m.sl_map(self.sl, gpa, hpa, size, rights)

    def unmap(self, gpa, size):
        return self.m.sl_map(self.sl, gpa, 0, size, 0)

    def leaves(self):
        return walk.leaves(self.view, self.context)

    def pages(self):
        return {(gpa + at) // PAGE: ((hpa + at) // PAGE, rights)
                for gpa, size, hpa, rights in self.leaves()
                for at in range(0, size, PAGE)}


PAGES = st.builds(lambda base, at: base + at,
                  st.sampled_from([0, 512, 2**18 - 512, 2**18, 0xfee00 - 300,
                                   2**27 - 1000]),
                  st.integers(0, 600))
STEP = st.tuples(st.integers(0, 3), PAGES, st.integers(1, 1100) |
                 st.sampled_from([512, 1024]),
                 st.sampled_from([0, 512, 2**18]) | st.integers(0, 5000))


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=10), st.sampled_from([3, 4, 5]),
       st.sampled_from([1, 2, 3]), st.booleans())
def test_against_a_dictionary(m, steps, levels, leaf_levels, flush):
    t, pages = Tables(m, levels, leaf_levels, flush), {}
    limit = (1 << t.sl.width) // PAGE
    for rights, first, count, shift in steps:
        span = range(first, first + count)
        if first + count > limit:
            assert t.map(first * PAGE, 0, count * PAGE, rights) == -m.ERANGE
        elif not rights:
            assert t.unmap(first * PAGE, count * PAGE) == 0
            pages = {p: v for p, v in pages.items() if p not in span}
        else:
            err = t.map(first * PAGE, (first + shift) * PAGE, count * PAGE,
                        rights)
            clash = any(p in pages for p in span)
            assert err == (-m.EEXIST if clash else 0)
            if not clash:
                pages |= {p: (p + shift, TEXT[rights]) for p in span
                          if not 0xfee00 <= p < 0xfef00}
        assert t.pages() == pages
    m.sl_free(t.sl)
    assert m.lib.fake_pages_used == 0


@pytest.mark.parametrize("leaf_levels, sizes", [
    (1, {PAGE: 513 * 512 + 512}), (2, {PAGE: 512, 2 * MIB: 513}),
    (3, {PAGE: 512, 2 * MIB: 1, GIB: 1})])
def test_the_largest_pages_that_fit(m, leaf_levels, sizes):
    t = Tables(m, 4, leaf_levels)
    # A page, 2 MiB, a GiB, and a page less than 2 MiB
    start = GIB - 2 * MIB - PAGE
    size = PAGE + 2 * MIB + GIB + 511 * PAGE
    assert t.map(start, 5 * GIB + start, size, RW) == 0
    found = {}
    for _, n, _, _ in t.leaves():
        found[n] = found.get(n, 0) + 1
    assert found == sizes


def test_what_is_not_congruent_gets_small_pages(m):
    t = Tables(m)
    assert t.map(2 * MIB, 4 * MIB + PAGE, 2 * MIB, RW) == 0
    assert {n for _, n, _, _ in t.leaves()} == {PAGE}
    assert t.map(GIB, 6 * GIB + 2 * MIB, GIB, RW) == 0
    assert {n for g, n, _, _ in t.leaves() if g >= GIB} == {2 * MIB}


@pytest.mark.parametrize("gpa, hpa, size, rights, error", [
    (1, 0, PAGE, RW, "EINVAL"), (0, 2048, PAGE, RW, "EINVAL"),
    (0, 0, 100, RW, "EINVAL"), (0, 0, 0, RW, "EINVAL"),
    (0, 0, 0, 0, "EINVAL"), (0, 0, PAGE, 4, "EINVAL"),
    (0, 0, PAGE, 1 << 63 | 1, "EINVAL"), (1 << 48, 0, PAGE, RW, "ERANGE"),
    ((1 << 48) - PAGE, 0, 2 * PAGE, RW, "ERANGE"),
    (2**64 - PAGE, 0, PAGE, 0, "ERANGE"),
    (PAGE, 0, 2**64 - PAGE, 0, "ERANGE"),
    (0, (1 << 39) - PAGE, 2 * PAGE, RW, "ERANGE"),
    (0, 1 << 39, PAGE, RW, "ERANGE")])
def test_bad_arguments(m, gpa, hpa, size, rights, error):
    t = Tables(m, host_width=39)
    assert t.map(gpa, hpa, size, rights) == -getattr(m, error)
    assert t.leaves() == [] and t.sl.tables == 1


def test_the_ends_of_the_address_space(m):
    t = Tables(m, host_width=52)
    last = (1 << 48) - PAGE
    assert t.map(last, (1 << 52) - PAGE, PAGE, R) == 0
    assert t.map(0, 0, PAGE, W) == 0
    assert t.leaves() == [(0, PAGE, 0, "-w-"),
                          (last, PAGE, (1 << 52) - PAGE, "r--")]


@pytest.mark.parametrize("pages", range(0, 7))
def test_out_of_memory_leaves_nothing_mapped(m, pages):
    t = Tables(m)
    assert t.map(2 * MIB, 4 * MIB, 2 * MIB, RW) == 0
    before = t.leaves()
    m.lib.fake_pages_left = pages
    err = t.map(GIB - 2 * PAGE, 3 * GIB - PAGE, 2 * MIB + 4 * PAGE, RW)
    assert err == (0 if pages >= 4 else -m.ENOMEM)
    if err:
        assert t.leaves() == before
    m.sl_free(t.sl)
    assert m.lib.fake_pages_used == 0


def test_no_memory_to_split_a_page(m):
    t = Tables(m)
    assert t.map(2 * MIB, 4 * MIB, 2 * MIB, RW) == 0
    m.lib.fake_pages_left = 0
    assert t.unmap(2 * MIB, PAGE) == -m.ENOMEM
    assert t.leaves() == [(2 * MIB, 2 * MIB, 4 * MIB, "rw-")]


def test_count_of_tables(m):
    t = Tables(m)
    assert t.map(0, 0, 64 * GIB, RW) == 0
    # Root, one table of 1 GiB pages; the interrupt range splits one of them
    # into 2 MiB, and two of those into 4 KiB or none.
    assert t.sl.tables == m.lib.fake_pages_used == 4
    assert t.unmap(0, 64 * GIB) == 0
    assert t.leaves() == []


def test_root_for_a_unit_with_fewer_levels(m):
    t = Tables(m, levels=5)
    assert t.map(GIB, 2 * GIB, PAGE, RW) == 0
    for levels in (5, 4, 3):
        root = m.sl_root(t.sl, levels)
        context = walk.Context(root, levels, 1, False)
        assert walk.leaves(t.view, context) == [(GIB, PAGE, 2 * GIB, "rw-")]
    empty = Tables(m, levels=4, flush=True)
    m.lib.fake_pages_left = 0
    assert m.sl_root(empty.sl, 3) == 0
    m.lib.fake_pages_left = 1
    root = m.sl_root(empty.sl, 3)
    assert walk.leaves(empty.view, walk.Context(root, 3, 1, False)) == []
    # What is mapped later is seen by both
    m.lib.fake_pages_left = 10
    assert empty.map(0, GIB, PAGE, R) == 0
    assert walk.leaves(empty.view, walk.Context(root, 3, 1, False)) == \
        empty.leaves() == [(0, PAGE, GIB, "r--")]
