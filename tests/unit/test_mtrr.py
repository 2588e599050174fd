# SPDX-License-Identifier: MIT
"""MTRRs: the types that a kernel computes from them, and what faults."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmodel import Fault, Machine

CAP, DEF_TYPE = 0xFE, 0x2FF
FIXED = (0x250, 0x258, 0x259, *range(0x268, 0x270))
VARIABLE = range(0x200, 0x210)
UC, WC, WT, WP, WB = 0, 1, 4, 5, 6
MIB, GIB = 1 << 20, 1 << 30
BITS = 39


class Mtrr(Machine):
    def __init__(self, holes=((3 * GIB, GIB),)):
        super().__init__()
        self.x = self.m.new("struct mtrr *")
        holes = self.m.ffi.new("struct mtrr_hole[]", [list(h) for h in holes])
        self.status = self.m.mtrr_init(self.x, self.bus, BITS, holes,
                                       len(holes))

    def type_of(self, addr):
        """SDM 11.11.4.1, as Linux's mtrr_type_lookup does it."""
        default = self.rdmsr(DEF_TYPE)
        if not default & 1 << 11:
            return UC
        if addr < 1 << 20 and default & 1 << 10:
            if addr < 0x80000:
                msr, at = 0x250, addr >> 16
            elif addr < 0xC0000:
                msr, at = 0x258, (addr - 0x80000) >> 14
            else:
                msr, at = 0x268, (addr - 0xC0000) >> 12
            return self.rdmsr(msr + at // 8) >> 8 * (at % 8) & 0xFF
        types = set()
        for msr in VARIABLE[::2]:
            base, mask = self.rdmsr(msr), self.rdmsr(msr + 1)
            page = mask & ((1 << BITS) - 1) & ~0xFFF
            if mask & 1 << 11 and addr & page == base & page:
                types.add(base & 0xFF)
        if UC in types:
            return UC
        return min(types, default=default & 0xFF)


@pytest.fixture
def mtrr():
    return Mtrr()


def test_after_power_on_they_are_off(mtrr):
    """SDM 11.11.5; the guest's firmware switches them on."""
    mtrr.x.cold = True
    for _ in range(2):
        mtrr.m.mtrr_reset(mtrr.x)
        assert mtrr.rdmsr(DEF_TYPE) == 0 and mtrr.type_of(0) == UC
        mtrr.wrmsr(DEF_TYPE, 0xc06)
        assert mtrr.type_of(MIB) == WB


def test_after_reset(mtrr):
    cap = mtrr.rdmsr(CAP)
    assert cap & 0xFF == len(VARIABLE) // 2
    assert cap & 1 << 8 and cap & 1 << 10
    for addr, expect in ((0, WB), (0x9FFFF, WB), (0xA0000, UC), (0xBFFFF, UC),
                         (0xC0000, WB), (0xFFFFF, WB), (1 << 20, WB),
                         (3 * GIB - 1, WB), (3 * GIB, UC), (4 * GIB - 1, UC),
                         (4 * GIB, WB), ((1 << BITS) - 1, WB)):
        assert mtrr.type_of(addr) == expect, hex(addr)


PAGES = st.integers(0, (1 << BITS - 12) - 1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(PAGES, st.integers(1, 70)), max_size=3),
       st.lists(PAGES, max_size=10))
def test_holes_are_uncacheable_and_nothing_else(holes, probes):
    holes = [(p << 12, n << 12) for p, n in holes if p + n <= 1 << BITS - 12]
    mtrr = Mtrr(holes)
    if mtrr.status:
        assert mtrr.status == -mtrr.m.ENOSPC
        return
    for start, size in holes:
        probes += [(at >> 12) % (1 << BITS - 12) for at in
                   (start - 1, start, start + size - 1, start + size)]
    for page in probes:
        addr = page << 12
        if addr >= 1 << 20:
            inside = any(s <= addr < s + n for s, n in holes)
            assert mtrr.type_of(addr) == (UC if inside else WB)


@pytest.mark.parametrize("hole", [(0x1001, 0x1000), (0x1000, 0x801),
                                  (1 << BITS, 0x1000), ((1 << 64) - 4096, 8192),
                                  ((1 << BITS) - 4096, 8192)])
def test_holes_that_cannot_be(hole):
    assert Mtrr([hole]).status == -Mtrr([]).m.EINVAL


def test_too_many_holes():
    assert Mtrr([(0x1000, 0x1FF000)]).status == -Mtrr([]).m.ENOSPC


def test_linux_sets_a_write_combining_range(mtrr):
    """mtrr_add for a framebuffer inside the hole, with MTRRs off."""
    mtrr.wrmsr(DEF_TYPE, mtrr.rdmsr(DEF_TYPE) & ~0xC00)
    assert mtrr.type_of(0) == UC
    mtrr.wrmsr(0x20E, 0xD0000000 | WC)
    mtrr.wrmsr(0x20F, 0x7FF0000000 | 1 << 11)
    mtrr.wrmsr(0x201, 0)
    mtrr.wrmsr(DEF_TYPE, 0xC06)
    assert mtrr.type_of(0xD0001000) == WC
    assert mtrr.type_of(0xE0001000) == WB
    mtrr.m.mtrr_reset(mtrr.x)
    assert mtrr.type_of(0xD0001000) == UC


@pytest.mark.parametrize("msr", [DEF_TYPE, *VARIABLE[::2]])
def test_types(mtrr, msr):
    for kind in range(256):
        if kind in (UC, WC, WT, WP, WB):
            mtrr.wrmsr(msr, kind)
            assert mtrr.rdmsr(msr) == kind
        else:
            with pytest.raises(Fault):
                mtrr.wrmsr(msr, kind)


@pytest.mark.parametrize("msr", FIXED)
def test_fixed_types(mtrr, msr):
    good = 0x0001040506000106
    mtrr.wrmsr(msr, good)
    assert mtrr.rdmsr(msr) == good
    for at in range(8):
        for bad in (2, 3, 7, 0x80):
            with pytest.raises(Fault):
                mtrr.wrmsr(msr, good & ~(0xFF << 8 * at) | bad << 8 * at)
    assert mtrr.rdmsr(msr) == good


@pytest.mark.parametrize("msr,legal", [
    (DEF_TYPE, 0xC05), (0x200, (1 << BITS) - 1 & ~0xFFF | 5),
    (0x20F, (1 << BITS) - 1 & ~0x7FF)])
def test_reserved_bits(mtrr, msr, legal):
    for bit in range(64):
        if legal >> bit & 1:
            mtrr.wrmsr(msr, 1 << bit)
        elif not (msr != 0x20F and bit == 1 or bit == 2):
            with pytest.raises(Fault):
                mtrr.wrmsr(msr, 1 << bit)


def test_the_capability_is_read_only(mtrr):
    with pytest.raises(Fault):
        mtrr.wrmsr(CAP, 0x508)


def test_no_other_msr(mtrr):
    known = {CAP, DEF_TYPE, *FIXED, *VARIABLE}
    for msr in range(0xF0, 0x300):
        if msr not in known:
            with pytest.raises(Fault):
                mtrr.rdmsr(msr)
