# SPDX-License-Identifier: MIT
"""Memory that the guest asks for by hypercall, against sets of pages."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmxcpu
from eptmodel import UC, Memory

PAGE, MIB, LIMIT = 1 << 12, 1 << 20, 1 << 46
# gpa and pages: legacy VGA, an OpRegion, a VBT behind it, stolen memory
WINDOWS = {"VGA": (0xa0000, 32), "OpRegion": (0x8ac18000, 3),
           "VBT": (0x8ac1b000, 2), "DSM": (0x8b800000, 1100)}
GSM = (0x8b000000, 2048)        # next to DSM, and never to be seen


@pytest.fixture(scope="module")
def m():
    return vmxcpu.build(
        "windows", ["vmm/assign/windows.c", "vmm/core/vm.c", "vmm/core/bus.c", "arch/x86/vmx/ept.c", "kernel/region.c"],
        headers=["vmm/assign/windows.h", "arch/x86/vmx/ept.h"])


def pages(*runs):
    return {page for gpa, count in runs
            for page in range(gpa // PAGE, gpa // PAGE + count)}


class Guest:
    def __init__(self, m):
        m.vmx_fakes_reset()
        self.m, self.vm = m, m.new("struct vm *")
        self.cap = m.new("struct vmx_capabilities *", {"ept_2m": True})
        self.names = {name: m.ffi.new("char[]", name.encode())
                      for name in [*WINDOWS, "GSM", "ram"]}
        self.ept = m.new("struct ept *")
        self.vm.ept = self.ept
        assert m.ept_init(self.ept, self.cap) == 0
        for name, (gpa, count) in {**WINDOWS, "GSM": GSM}.items():
            rights = 0 if name == "GSM" else m.REGION_RW
            self.add(self.vm.windows, name, gpa, count, rights)
            self.add(self.vm.map, name, gpa, count, 0)
        self.add(self.vm.map, "ram", 0, 0xa0, 7, hpa=0x100000000)
        self.open = set()

    def add(self, rows, name, gpa, count, rights, hpa=None):
        r = self.m.new("struct region *", {
            "gpa": gpa, "hpa": gpa if hpa is None else hpa,
            "size": count * PAGE, "cpu": rights, "dma": 3,
            "kind": self.m.REGION_DEVICE, "name": self.names[name]})
        assert self.m.region_add(self.m.ffi.addressof(rows), r, self.m.NULL) == 0

    def ask(self, *runs):
        made = self.m.new("struct window_run[]", [
            {"gpa": gpa, "pages": count} for gpa, count in runs])
        return self.m.windows_open(self.vm, made, len(runs))

    def rows(self):
        return [(r.gpa, r.gpa + r.size, r.hpa, r.cpu,
                 self.m.ffi.string(r.name).decode())
                for r in self.vm.map.regions[0:self.vm.map.count]]

    def check(self):
        """Map and EPT say the same as the set."""
        by_map, at = set(), 0
        for start, end, hpa, cpu, name in self.rows():
            assert at <= start < end and (hpa == start or name == "ram")
            at = end
            if cpu and name != "ram":
                assert cpu == self.m.REGION_RW
                by_map |= set(range(start // PAGE, end // PAGE))
        assert by_map == self.open
        mapped = Memory(self.m, self.ept).leaves(self.cap)
        edges = {p for page in self.open for p in (page - 1, page, page + 1)}
        for page in edges | pages(GSM, *WINDOWS.values()):
            found = [leaf for leaf in mapped
                     if leaf[0] <= page * PAGE < leaf[1]]
            assert bool(found) == (page in self.open), hex(page)
            for start, _, hpa, rights, memtype in found:
                assert (hpa, rights, memtype) == (start, self.m.REGION_RW, UC)


def test_one_page_outside_refuses_all(m):
    guest = Guest(m)
    before = guest.rows()
    vga, opregion = WINDOWS["VGA"], WINDOWS["OpRegion"]
    for bad in ((0xa0000, 33), (0x9f000, 1), (0x9f000, 2), (0, 1),
                (0x8ac17000, 2), GSM, (GSM[0], 1), (GSM[0] + 2047 * PAGE, 2),
                (WINDOWS["DSM"][0], 1101), (0xa0001, 1), (0xa0000, 0),
                (0xa0000, 1 << 52), (0xa0000, (1 << 52) + 1), (LIMIT, 1),
                (2**64 - PAGE, 1), (2**64 - PAGE, 2), (0xa0000, 2**64 - 1),
                (0xa0000 | 1 << 63, 1)):
        for runs in ((bad,), (vga, bad), (bad, opregion),
                     (vga, opregion, bad, vga)):
            assert guest.ask(*runs) == -m.EINVAL, runs
    assert guest.rows() == before
    guest.check()


def test_all_at_once_and_twice(m):
    guest = Guest(m)
    for _ in range(2):
        assert guest.ask(*WINDOWS.values()) == 0
        guest.open = pages(*WINDOWS.values())
        guest.check()
        assert len(guest.rows()) == 6
    m.windows_close(guest.vm)
    guest.open = set()
    guest.check()
    assert guest.ask() == 0


def test_a_run_over_two_windows(m):
    guest = Guest(m)
    assert guest.ask((0x8ac19000, 3)) == 0
    guest.open = pages((0x8ac19000, 3))
    guest.check()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_of_a_kind_side_by_side_close_in_a_full_list(m, order):
    """As RMRRs lie; a row over both could not be split then."""
    guest, both = Guest(m), [(0x90000000, 4), (0x90004000, 4)]
    for gpa, count in both:
        guest.add(guest.vm.windows, "VBT", gpa, count, m.REGION_RW)
        guest.add(guest.vm.map, "VBT", gpa, count, 0)
    assert guest.ask(*(both[n] for n in order)) == 0
    for n in range(m.REGION_MAX - guest.vm.map.count):
        guest.add(guest.vm.map, "ram", (1 << 32) + n * 2 * PAGE, 1, 7)
    m.windows_close(guest.vm)
    assert [row[3] for row in guest.rows() if row[4] == "VBT"] == [0, 0, 0]


def test_page_by_page_leaves_few_rows(m):
    guest = Guest(m)
    gpa, count = WINDOWS["DSM"]
    for n in range(count):
        assert guest.ask((gpa + n * PAGE, 1)) == 0
        assert len(guest.rows()) <= 7
    guest.open = pages(WINDOWS["DSM"])
    guest.check()


def test_every_other_page_fills_the_list(m):
    guest = Guest(m)
    gpa, count = WINDOWS["DSM"]
    for n in range(1, count, 2):
        before = guest.rows()
        status = guest.ask((gpa + n * PAGE, 1))
        if status:
            break
        guest.open |= pages((gpa + n * PAGE, 1))
    assert status == -m.ENOSPC and guest.rows() == before
    assert len(guest.rows()) > m.REGION_MAX - 3
    guest.check()
    m.windows_close(guest.vm)
    guest.open = set()
    guest.check()
    assert len(guest.rows()) == 6


@pytest.mark.parametrize("limit", range(1, 10))
def test_without_memory_nothing_is_open(m, limit):
    guest = Guest(m)
    assert guest.ask((0xb8000, 8)) == 0
    guest.open = pages((0xb8000, 8))
    m.lib.arena_limit = m.arena_count() + limit - 1
    before = guest.rows()
    status = guest.ask((0xb0000, 16), *list(WINDOWS.values())[1:])
    if status:
        assert status == -m.ENOMEM and guest.rows() == before
    else:
        guest.open |= pages((0xb0000, 16), *list(WINDOWS.values())[1:])
    guest.check()
    assert (status == 0) == (limit > 3)


def test_a_run_whose_first_part_alone_finds_no_memory(m):
    """The next window's page table is there: that is no success."""
    guest = Guest(m)
    for name, at, count in ("VBT", 0x8c1ff000, 1), ("DSM", 0x8c200000, 2):
        guest.add(guest.vm.windows, name, at, count, m.REGION_RW)
        guest.add(guest.vm.map, name, at, count, 0)
    assert guest.ask((0x8c201000, 1)) == 0
    guest.open = pages((0x8c201000, 1))
    m.lib.arena_limit = m.arena_count()
    assert guest.ask((0x8c1ff000, 2)) == -m.ENOMEM
    guest.check()


GPA = st.sampled_from([gpa for gpa, _ in [*WINDOWS.values(), GSM]])
RUN = st.tuples(
    st.builds(lambda gpa, n: max(gpa + n * PAGE, 0), GPA,
              st.integers(-3, 40)) | st.integers(0, 2**64 - 1),
    st.integers(0, 40) | st.sampled_from([1, 2, 3, 1100, 2**52, 2**64 - 1]))


@settings(max_examples=150, deadline=None)
@given(asked=st.lists(st.lists(RUN, max_size=4), max_size=12),
       closes=st.sets(st.integers(0, 11)))
def test_against_sets(m, asked, closes):
    guest = Guest(m)
    whole = pages(*WINDOWS.values())
    for n, runs in enumerate(asked):
        fits = all(gpa % PAGE == 0 and gpa + count * PAGE <= LIMIT and
                   0 < count <= 4000 and pages((gpa, count)) <= whole
                   for gpa, count in runs)
        status = guest.ask(*runs)
        assert status == (0 if fits else -m.EINVAL)
        if fits:
            guest.open |= pages(*runs)
        if n in closes:
            m.windows_close(guest.vm)
            guest.open = set()
        guest.check()
