# SPDX-License-Identifier: MIT
"""The list of guest memory against a naive map of pages."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness

PAGE = 4096
TOP = 2**64 // PAGE - 1     # the last page that a region can end before


@pytest.fixture(scope="module")
def m():
    return harness.build("region", ["kernel/region.c"],
                         headers=["kernel/region.h"])


def region(m, gpa, size, hpa=0, **more):
    return m.new("struct region *", {
        "gpa": gpa, "hpa": hpa, "size": size, "name": m.NULL, **more})


def pages(m, listed):
    """{page: (what it maps to, kind)}, and the list is well formed."""
    found, end = {}, 0
    for r in listed.regions[0:listed.count]:
        assert r.gpa >= end and r.size > 0
        assert (r.gpa | r.size) % PAGE == 0
        end = r.gpa + r.size
        for n in range(r.size // PAGE):
            hole = r.kind == m.REGION_HOLE
            found[r.gpa // PAGE + n] = (
                None if hole else r.hpa // PAGE + n, r.kind)
    return found


@pytest.mark.parametrize("gpa, size, hpa", [
    (1, PAGE, 0), (0, PAGE + 1, 0), (0, PAGE, 8), (0, 0, 0),
    (2**64 - PAGE, PAGE, 0), (PAGE, 2**64 - PAGE, 0),
    (0, 2 * PAGE, 2**64 - PAGE)])
def test_malformed_regions_are_refused(m, gpa, size, hpa):
    listed = m.new("struct region_list *")
    assert m.region_add(listed, region(m, gpa, size, hpa),
                        m.NULL) == -m.EINVAL
    assert listed.count == 0


def test_a_hole_needs_no_host_memory(m):
    listed = m.new("struct region_list *")
    assert m.region_add(listed, region(m, 0, 4 * PAGE, hpa=5,
                                       kind=m.REGION_HOLE), m.NULL) == 0
    assert m.region_remove(listed, 0, PAGE) == 0
    assert pages(m, listed) == dict.fromkeys((1, 2, 3),
                                             (None, m.REGION_HOLE))


def test_the_clash_is_named(m):
    listed = m.new("struct region_list *")
    clash = m.new("struct region const *[1]")
    for gpa in (0x1000, 0x5000, 0x9000):
        assert m.region_add(listed, region(m, gpa, PAGE), clash) == 0
    assert m.region_add(listed, region(m, 0x4000, 2 * PAGE),
                        clash) == -m.EEXIST
    assert clash[0].gpa == 0x5000
    assert m.region_add(listed, region(m, 0x5000, PAGE),
                        m.NULL) == -m.EEXIST
    assert listed.count == 3


def test_a_full_list_changes_nothing(m):
    listed = m.new("struct region_list *")
    for n in range(m.REGION_MAX):
        assert m.region_add(listed, region(m, 4 * n * PAGE, 3 * PAGE),
                            m.NULL) == 0
    before = pages(m, listed)
    assert m.region_add(listed, region(m, 3 * PAGE, PAGE),
                        m.NULL) == -m.ENOSPC
    assert m.region_remove(listed, 5 * PAGE, PAGE) == -m.ENOSPC
    assert pages(m, listed) == before
    assert m.region_remove(listed, 4 * PAGE, PAGE) == 0     # edges need
    assert m.region_remove(listed, 10 * PAGE, PAGE) == 0    # no more room
    assert len(pages(m, listed)) == len(before) - 2
    assert m.region_remove(listed, 0, 2**64 - 1) == 0
    assert listed.count == 0


def test_a_touched_page_goes_and_no_other(m):
    listed = m.new("struct region_list *")
    assert m.region_add(listed, region(m, 0, 4 * PAGE), m.NULL) == 0
    for gpa, size in ((PAGE + 1, 0), (2**64 - PAGE, PAGE), (2**64 - 1, 1)):
        assert m.region_remove(listed, gpa, size) == 0
        assert len(pages(m, listed)) == 4
    assert m.region_remove(listed, 2 * PAGE - 1, 1) == 0
    assert set(pages(m, listed)) == {0, 2, 3}


def test_the_last_page_that_can_be_listed(m):
    listed = m.new("struct region_list *")
    top = 2**64 - 2 * PAGE
    assert m.region_add(listed, region(m, top, PAGE, top), m.NULL) == 0
    assert m.region_find(listed, top + PAGE - 1) != m.NULL


def test_the_log_is_what_the_list_says(m):
    listed = m.new("struct region_list *")
    name = m.ffi.new("char[]", b"low memory")
    m.region_add(listed, region(
        m, 0x100000, 0x200000, 0x40000000, kind=m.REGION_RAM, name=name,
        memtype=m.MEMTYPE_WB, e820=m.E820_RAM, cpu=m.REGION_RWX,
        dma=m.REGION_RW), m.NULL)
    m.region_add(listed, region(
        m, 0xfee00000, PAGE, kind=m.REGION_HOLE, name=name,
        memtype=m.MEMTYPE_UC), m.NULL)
    m.region_log(listed)
    assert m.log_text().splitlines() == [
        "region 100000-300000 hpa 40000000 ram cpu rwx dma rw- WB ram "
        "low memory",
        "region fee00000-fee01000 hpa 0 hole cpu --- dma --- UC none "
        "low memory"]


def test_the_log_names_every_kind(m):
    """No two values share a name, and a wrong value is no wild read."""
    name = m.ffi.new("char[]", b"x")
    for field, values in (("kind", range(4)), ("memtype", (0, 1, 4, 5, 6)),
                          ("e820", range(5)), ("cpu", range(8)),
                          ("dma", range(8))):
        seen = set()
        for value in values:
            listed = m.new("struct region_list *")
            m.region_add(listed, region(m, 0, PAGE, name=name,
                                        **{field: value}), m.NULL)
            m.reset()
            m.region_log(listed)
            seen.add(m.log_text())
        if len(values) <= 5:
            listed = m.new("struct region_list *")
            m.region_add(listed, region(m, 0, PAGE, name=name,
                                        **{field: values[-1] + 1}), m.NULL)
            m.reset()
            m.region_log(listed)
            assert "?" in m.log_text()
        assert len(seen) == len(values)
        assert not any(re.search(r"\?|null", line) for line in seen)


PAGES = st.integers(0, 40) | st.integers(TOP - 12, TOP - 1)
STEP = st.tuples(st.sampled_from(["add", "add", "remove"]), PAGES,
                 st.integers(1, 12), st.integers(0, 100), st.integers(0, 3),
                 st.integers(0, PAGE - 1), st.integers(0, PAGE - 1))


@settings(max_examples=400)
@given(st.lists(STEP, max_size=16), PAGES, PAGES)
def test_against_a_map_of_pages(m, steps, start, limit):
    listed, model = m.new("struct region_list *"), {}
    for what, page, count, hpa, kind, odd, odd_size in steps:
        span = range(page, page + count)
        if what == "add":
            status = m.region_add(
                listed, region(m, page * PAGE, count * PAGE, hpa * PAGE,
                               kind=kind), m.NULL)
            if page + count > TOP:
                assert status == -m.EINVAL
            elif any(p in model for p in span):
                assert status == -m.EEXIST
            else:
                assert status == 0
                model.update((p, (None if kind == m.REGION_HOLE else
                                  hpa + p - page, kind)) for p in span)
        else:
            # Not only whole pages: what is touched goes.
            first = page * PAGE + odd
            last = min(first + (count - 1) * PAGE + odd_size, 2**64 - 1)
            assert m.region_remove(listed, first, last - first) == 0
            if last > first:
                model = {p: v for p, v in model.items()
                         if not first // PAGE <= p <= (last - 1) // PAGE}
        assert pages(m, listed) == model
    for page in [*range(45), *range(TOP - 14, TOP + 1)]:
        for gpa in (page * PAGE, page * PAGE + PAGE - 1):
            hit = m.region_find(listed, gpa)
            assert (hit != m.NULL) == (page in model)
            assert not hit or hit.gpa <= gpa < hit.gpa + hit.size

    gpa = m.new("u64[1]", [77])
    size = m.region_next_free(listed, start * PAGE, limit * PAGE, gpa)
    ends = [p for p in model if p >= start] + [limit]
    first = start
    while first in model:
        first += 1
    if first >= limit:
        assert size == 0 and gpa[0] == 77
    else:
        end = min(p for p in ends if p >= first)
        assert (gpa[0], size) == (first * PAGE,
                                  (min(end, limit) - first) * PAGE)
