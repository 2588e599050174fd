# SPDX-License-Identifier: MIT
"""The physical memory allocator against sets of pages."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
import ramfakes

PAGE = 4096
TOP = 2**46 // PAGE     # pages; what the direct map can hold


CPUS = """
#include <pthread.h>
#include <sched.h>

void cpu_relax(void)
{
	sched_yield();
}

static bool many;

/* Where the list is in pieces, another CPU has its turn. */
void *own_memmove(void *to, const void *from, size_t n)
{
	if (many)
		sched_yield();
	return __builtin_memmove(to, from, n);
}

/* Takes and frees pages; how often one was another CPU's, too. */
static void *cpu(void *id)
{
	u64 *held[3] = {0}, wrong = 0;

	for (int i = 0; i < 500; i++) {
		u64 **p = &held[i % 3];

		if (*p) {
			wrong += **p != (u64)id;
			page_free(*p);
		}
		*p = page_alloc();
		if (*p)
			**p = (u64)id;
	}
	for (int i = 0; i < 3; i++)
		page_free(held[i]);
	return (void *)wrong;
}

u64 at_once(void)
{
	pthread_t threads[3];
	void *wrong;
	u64 all = 0;

	many = true;
	for (u64 i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, cpu, (void *)(i + 1));
	for (int i = 0; i < 3; i++) {
		pthread_join(threads[i], &wrong);
		all += (u64)wrong;
	}
	many = false;
	return all;
}
"""


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "phys", ["kernel/phys.c"], fakes=ramfakes.FAKES + CPUS,
        headers=["kernel/phys.h", "kernel/boot_info.h"],
        cdef=ramfakes.CDEF + "u64 at_once(void);",
        defines=["memmove=own_memmove"])


def ranges(m, phys):
    """[(first page, pages)], and the list is sorted and never touches."""
    found, end = [], -1
    for r in phys.free[0:phys.count]:
        assert r.base % PAGE == 0 and r.size % PAGE == 0 and r.size > 0
        assert r.base > end, "ranges overlap, touch or are out of order"
        end = r.base + r.size
        found.append((r.base // PAGE, r.size // PAGE))
    return found


def pages(m, phys):
    return {p for first, n in ranges(m, phys) for p in range(first, first + n)}


BYTES = st.integers(0, 48 * PAGE) | st.integers(0, 48).map(lambda p: p * PAGE)
STEP = st.tuples(st.sampled_from(["free", "reserve", "alloc"]), BYTES, BYTES,
                 st.sampled_from([1, PAGE, 2 * PAGE, 8 * PAGE]),
                 st.booleans())


@settings(max_examples=500, deadline=None)
@given(st.lists(STEP, max_size=20), st.integers(0, 48), st.integers(0, 48))
def test_against_a_set_of_pages(m, steps, start, limit):
    phys, model = m.new("struct phys *"), set()
    for what, a, b, align, anywhere in steps:
        if what == "free":
            assert m.phys_free(phys, a, b) == 0
            model |= {p for p in range(97)
                      if p * PAGE >= a and (p + 1) * PAGE <= a + b}
        elif what == "reserve":
            assert m.phys_reserve(phys, a, b) == 0
            model -= {p for p in range(97)
                      if b and p * PAGE < a + b and (p + 1) * PAGE > a}
        else:
            top = m.PHYS_ANYWHERE if anywhere else b
            need = -(-a // PAGE)
            fits = [p for p in range(97)
                    if need and p * PAGE % align == 0 and
                    (p + need) * PAGE <= top and
                    model.issuperset(range(p, p + need))]
            got = m.phys_alloc(phys, a, align, top)
            if not fits:
                assert got == m.PHYS_NONE
            else:
                assert got == max(fits) * PAGE, "not first fit from the top"
                model -= set(range(got // PAGE, got // PAGE + need))
        assert pages(m, phys) == model
    assert m.phys_total(phys) == len(model) * PAGE

    inside = {p for p in model if start <= p < limit}
    best = m.phys_largest(phys, start * PAGE, limit * PAGE)
    runs = [next(n for n in range(99) if p + n not in inside)
            for p in sorted(inside)]
    assert best.size == max(runs, default=0) * PAGE
    if best.size:
        first = best.base // PAGE
        assert inside.issuperset(range(first, first + best.size // PAGE))


def test_a_full_list_changes_nothing(m):
    phys = m.new("struct phys *")
    for n in range(m.PHYS_RANGES):
        assert m.phys_free(phys, 4 * n * PAGE, 3 * PAGE) == 0
    before = ranges(m, phys)
    assert m.phys_free(phys, 4 * m.PHYS_RANGES * PAGE, PAGE) == -m.ENOSPC
    assert m.phys_reserve(phys, PAGE, PAGE) == -m.ENOSPC
    assert ranges(m, phys) == before
    assert m.phys_reserve(phys, 0, PAGE) == 0           # an edge needs none
    assert m.phys_free(phys, 3 * PAGE, PAGE) == 0       # merges two
    assert len(ranges(m, phys)) == m.PHYS_RANGES - 1
    # One page in the middle cannot be cut out, but the top of one can.
    assert m.phys_alloc(phys, PAGE, PAGE, 9 * PAGE) == 8 * PAGE


def test_an_allocation_that_cannot_split_goes_elsewhere(m):
    phys = m.new("struct phys *")
    for n in range(m.PHYS_RANGES):
        assert m.phys_free(phys, 4 * n * PAGE, 3 * PAGE) == 0
    # 16 KiB alignment: always a range's first page, never a split.
    assert m.phys_alloc(phys, PAGE, 4 * PAGE, m.PHYS_ANYWHERE) == \
        4 * (m.PHYS_RANGES - 1) * PAGE
    # Below this limit the top page of what is left is in a range's middle.
    assert m.phys_free(phys, 4 * (m.PHYS_RANGES - 1) * PAGE, PAGE) == 0
    assert m.phys_alloc(phys, PAGE, PAGE, 6 * PAGE) == 2 * PAGE


@pytest.mark.parametrize("base, size", [
    (2**64 - 1, 2**64 - 1), (2**64 - PAGE, PAGE), (2**46, 2**30),
    (2**46 + 5, 2**64 - 1), (2**63, 2**63), (0, 0), (2**64 - 1, 0)])
def test_what_no_machine_has_is_not_free(m, base, size):
    phys = m.new("struct phys *")
    assert m.phys_free(phys, base, size) == 0
    assert phys.count == 0
    assert m.phys_free(phys, PAGE, PAGE) == 0
    assert m.phys_reserve(phys, base, size) == 0
    assert ranges(m, phys) == [(1, 1)]


def test_sizes_that_wrap(m):
    phys = m.new("struct phys *")
    assert m.phys_free(phys, 5 * PAGE, 2**64 - 1) == 0
    assert ranges(m, phys) == [(5, TOP - 5)]
    assert m.phys_reserve(phys, 7 * PAGE + 1, 2**64 - 1) == 0
    assert ranges(m, phys) == [(5, 2)]
    for size in (2**64 - 1, 2**64 - PAGE + 1, 2**47, 0):
        assert m.phys_alloc(phys, size, PAGE, m.PHYS_ANYWHERE) == m.PHYS_NONE


# --- The firmware's map ---------------------------------------------------

MIB = 2**20
LEGACY = range(0xa0000 // PAGE, 0x100000 // PAGE)


def info_of(m, memory, **more):
    info = m.new("struct boot_info *", more)
    info.memory_count = len(memory)
    for row, (base, size, kind) in zip(info.memory, memory):
        row.base, row.size, row.kind = base, size, m.ffi.cast(
            "enum memory_kind", kind)
    return info


def host_ranges(m, info):
    m.phys_init(info)
    return ranges(m, m.ffi.addressof(m.host_memory))


def test_a_bios_machine(m):
    info = info_of(m, [
        (0, 0x9fc00, 1), (0x9fc00, 0x400, 2), (0xf0000, 0x10000, 2),
        (0x100000, 0x1fef0000, 1), (0x1fff0000, 0x10000, 3),
        (0xfffc0000, 0x40000, 2)],
        info=0x10_0000 + 0x234, info_size=0x1000,
        image=0x1fc00000, image_size=0x123456,
        module_count=2, rsdp=0x100300)
    info.modules[0].start, info.modules[0].size = 0x800000, 0x100001
    info.modules[1].start, info.modules[1].size = 0x3000, 1
    left = [(0x1000, 0x3000), (0x4000, 0x9f000), (0x102000, 0x800000),
            (0x901000, 0x1fc00000), (0x1fd24000, 0x1fff0000)]
    assert host_ranges(m, info) == [
        (a // PAGE, (b - a) // PAGE) for a, b in left]


def test_the_map_lies(m):
    """Twice, overlapping, unsorted, over the legacy hole, past any CPU."""
    info = info_of(m, [
        (4 * MIB, 4 * MIB, 1), (0, 16 * MIB, 1), (5 * MIB + 1, 1, 5),
        (4 * MIB, 4 * MIB, 1), (7 * MIB - 1, 2, 77), (2**63, 2**63, 1),
        (12 * MIB, 2**64 - 1, 4), (9 * MIB, 0, 2)],
        image=2**64 - 1, image_size=2**64 - 1, info=6 * MIB, info_size=0)
    assert host_ranges(m, info) == [
        (1, 0x9f), (256, 4 * 256), (5 * 256 + 1, 2 * 256 - 2),
        (7 * 256 + 1, 5 * 256 - 1)]


def test_what_firmwares_hardware_works_in_is_kept(m):
    """Free memory is taken out; reserved memory is no one's here; what is
    Monocle's or the loader's, in part too, is not had."""
    info = info_of(m, [(MIB, MIB, 1), (4 * MIB, MIB, 2)], image=MIB,
                   image_size=8 * PAGE)
    before = host_ranges(m, info)
    for base, size in ((MIB, PAGE), (MIB + 7 * PAGE, 2 * PAGE),
                       (2 * MIB - PAGE, 2 * PAGE)):
        assert not m.phys_keep(base, size)
    for base, size in ((4 * MIB, MIB), (9 * MIB, PAGE), (2**52 - PAGE, PAGE)):
        assert m.phys_keep(base, size)
    assert before == ranges(m, m.ffi.addressof(m.host_memory)) == \
        [(256 + 8, 256 - 8)]
    assert m.phys_keep(MIB + 10 * PAGE, 2 * PAGE)
    assert ranges(m, m.ffi.addressof(m.host_memory)) == \
        [(256 + 8, 2), (256 + 12, 256 - 12)]
    assert not m.phys_keep(MIB + 11 * PAGE, PAGE)


def test_no_memory_at_all(m):
    assert host_ranges(m, info_of(m, [])) == []


def test_counts_beyond_the_arrays(m):
    info = info_of(m, [(2 * n * MIB, MIB, 1) for n in range(1, 257)],
                   module_count=2**32 - 1)
    info.memory_count = 2**32 - 1
    assert len(host_ranges(m, info)) == 256


def test_the_screen_stays_the_screens(m):
    info = info_of(m, [(MIB, 8 * MIB, 1)])
    info.fb.kind, info.fb.base = m.DISPLAY_RGB, 4 * MIB
    info.fb.pitch, info.fb.height = 4096, 256
    assert host_ranges(m, info) == [(256, 3 * 256), (5 * 256, 4 * 256)]
    info.fb.kind = m.DISPLAY_NONE
    assert host_ranges(m, info) == [(256, 8 * 256)]


PLACE = st.integers(0, 300 * PAGE) | \
    st.integers(0, 300).map(lambda p: p * PAGE)
SPAN = st.tuples(PLACE, st.integers(0, 64 * PAGE) |
                 st.integers(0, 64).map(lambda p: p * PAGE))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(SPAN, st.sampled_from([1, 1, 1, 2, 3, 4, 5, 7, 0])),
                max_size=12), st.lists(SPAN, min_size=3, max_size=5))
def test_the_most_restrictive_kind_wins(m, memory, taken):
    info = info_of(m, [(*span, kind) for span, kind in memory],
                   image=taken[0][0], image_size=taken[0][1],
                   info=taken[1][0], info_size=taken[1][1],
                   module_count=len(taken) - 2)
    for module, (start, size) in zip(info.modules, taken[2:]):
        module.start, module.size = start, size
    denied = [span for span, kind in memory if kind != 1] + taken
    allowed = [span for span, kind in memory if kind == 1]

    def free(p):
        page, end = p * PAGE, (p + 1) * PAGE
        return p > 0 and p not in LEGACY and \
            any(a <= page and end <= a + n for a, n in allowed) and \
            not any(n and a < end and page < a + n for a, n in denied)
    expected = {p for p in range(370) if free(p)}
    m.phys_init(info)
    assert pages(m, m.ffi.addressof(m.host_memory)) == expected


def test_pages(m):
    ram = m.new("u8[]", 4 * MIB)
    m.ffi.memmove(ram, b"\xff" * len(ram), len(ram))
    m.lib.ram, m.lib.ram_size = ram, len(ram)
    m.phys_init(info_of(m, [(2 * MIB, 2 * PAGE, 1)]))
    one, two = m.page_alloc(), m.page_alloc()
    assert one != two and m.page_alloc() == m.NULL
    for page in one, two:
        assert m.virt_to_phys(page) in (2 * MIB, 2 * MIB + PAGE)
        assert m.ffi.buffer(page, PAGE)[:] == bytes(PAGE)
    # Nothing else was touched.
    assert m.ffi.buffer(ram)[:].count(0) == 2 * PAGE
    m.ffi.memmove(two, b"x" * PAGE, PAGE)
    m.page_free(two)
    m.page_free(m.NULL)
    again = m.page_alloc()
    assert again == two and m.ffi.buffer(again, PAGE)[:] == bytes(PAGE)


def test_pages_on_several_cpus(m):
    """Each is one CPU's at a time, and none is lost."""
    ram = m.new("u8[]", 16 * PAGE)
    m.lib.ram, m.lib.ram_size = ram, len(ram)
    m.phys_init(info_of(m, [(0, 16 * PAGE, 1)]))
    before = pages(m, m.ffi.addressof(m.host_memory))
    assert m.at_once() == 0 and m.log_lines()[1:] == []
    assert pages(m, m.ffi.addressof(m.host_memory)) == before


def test_pages_below_a_limit(m):
    """For what 32-bit code must reach, and while no more is mapped."""
    ram = m.new("u8[]", 4 * PAGE)
    m.lib.ram, m.lib.ram_size = ram, len(ram)
    m.phys_init(info_of(m, [(0, 4 * PAGE, 1)]))
    m.lib.page_limit = 3 * PAGE
    assert m.virt_to_phys(m.page_alloc()) == 2 * PAGE
    assert m.virt_to_phys(m.page_alloc()) == PAGE
    assert m.page_alloc() == m.NULL
    m.lib.page_limit = m.PHYS_ANYWHERE
    assert m.virt_to_phys(m.page_alloc()) == 3 * PAGE
