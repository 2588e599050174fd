# SPDX-License-Identifier: MIT
"""Guest memory by physical and by linear address.

The page walk is checked against a second one below, written from the tables
of SDM volume 3 chapter 4 format by format, where the C code has one loop.
"""

import itertools
import struct
from types import SimpleNamespace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import harness
import ramfakes

PAGE, MIB, GIB = 2**12, 2**20, 2**30
P, RW, US, A, D, PS = 1, 2, 4, 0x20, 0x40, 0x80
XD = 1 << 63
HOST = 64 * PAGE
EXPECTED = bytearray(HOST)     # made once: ASan makes large ones dear
PATTERN = bytes(n * 31 >> 3 & 255 for n in range(HOST))


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "guest_mem", ["vmm/core/guest_mem.c", "kernel/region.c"],
        headers=["vmm/core/guest_mem.h", "arch/x86/cpu.h", "kernel/phys.h"],
        fakes=ramfakes.FAKES, cdef=ramfakes.CDEF)


class Memory:
    """A region list over a small host memory, and a copy in Python."""

    def __init__(self, m, regions, content=PATTERN):
        """regions: [(gpa, hpa, size, kind, rights)] in pages"""
        self.m = m
        self.array = m.new("u8[]", HOST)
        self.bytes = m.ffi.buffer(self.array)
        self.bytes[:] = content
        m.lib.ram, m.lib.ram_size = self.array, HOST
        self.list = m.new("struct region_list *")
        self.regions = []
        for gpa, hpa, pages, kind, rights in regions:
            r = m.new("struct region *", {
                "gpa": gpa * PAGE, "hpa": hpa * PAGE, "size": pages * PAGE,
                "kind": kind, "cpu": rights})
            if m.region_add(self.list, r, m.NULL) == 0:
                self.regions.append((gpa, hpa, pages, kind, rights))

    def host(self, gpa, write):
        """Where the byte lies, or None; region by region, byte by byte."""
        m = self.m
        for first, hpa, pages, kind, rights in self.regions:
            if not first * PAGE <= gpa < (first + pages) * PAGE:
                continue
            if write:
                ok = kind == m.REGION_RAM and rights & m.REGION_W
            else:
                ok = kind in (m.REGION_RAM, m.REGION_ROM) and \
                    rights & m.REGION_R
            return hpa * PAGE + gpa - first * PAGE if ok else None
        return None


def layout(m):
    return [(0, 10, 3, m.REGION_RAM, m.REGION_RWX),
            (3, 13, 2, m.REGION_RAM, m.REGION_RWX),     # next to it, too
            (5, 2, 2, m.REGION_RAM, m.REGION_RWX),      # elsewhere
            (7, 20, 1, m.REGION_ROM, m.REGION_RX),
            (8, 0, 1, m.REGION_HOLE, 0),
            (9, 30, 1, m.REGION_RAM, m.REGION_R),
            (10, 31, 1, m.REGION_RAM, 0),
            (12, 40, 1, m.REGION_DEVICE, m.REGION_RW),
            (13, 63, 1, m.REGION_RAM, m.REGION_RWX)]


SPOT = st.integers(0, 15 * PAGE) | st.tuples(
    st.integers(0, 15), st.integers(-9, 9)).map(
        lambda x: max(0, x[0] * PAGE + x[1]))


@settings(max_examples=300, deadline=None)
@given(SPOT, st.integers(0, 40) | st.integers(0, 4 * PAGE),
       st.sampled_from(["read", "write", "set", "ptr"]))
def test_against_a_map_of_bytes(m, gpa, size, how):
    mem = Memory(m, layout(m))
    before = bytes(mem.bytes)
    where = [mem.host(gpa + n, how != "read") for n in range(size)]
    buf = m.new("u8[]", b"\xee" * max(size, 1))
    if how == "ptr":
        pointer = m.guest_ptr(mem.list, gpa, size)
        whole = size > 0 and None not in where and all(
            mem.host(gpa + n, False) is not None for n in range(size)) and \
            where == list(range(where[0], where[0] + size))
        if size:
            assert bool(pointer) == whole
            if whole:
                assert m.virt_to_phys(pointer) == where[0]
        assert mem.bytes[:] == before
        return
    call = {"read": lambda: m.guest_read(mem.list, gpa, buf, size),
            "write": lambda: m.guest_write(mem.list, gpa, buf, size),
            "set": lambda: m.guest_set(mem.list, gpa, 0xee, size)}[how]
    expected, seen = bytearray(before), bytearray(b"\xee" * size)
    if None in where:
        assert call() == -m.EFAULT
    else:
        assert call() == 0
        for n, at in enumerate(where):
            if how == "read":
                seen[n] = before[at]
            else:
                expected[at] = 0xee
    assert mem.bytes[:] == expected, "nothing half done, nothing elsewhere"
    assert m.ffi.buffer(buf)[:size] == seen


@pytest.mark.parametrize("gpa, size", [
    (2**64 - 1, 2), (2**64 - PAGE, PAGE), (0, 2**64 - 1), (2**63, 2**63)])
def test_sizes_that_wrap(m, gpa, size):
    mem = Memory(m, layout(m))
    before = bytes(mem.bytes)
    assert m.guest_set(mem.list, gpa, 1, size) == -m.EFAULT
    assert m.guest_ptr(mem.list, gpa, size) == m.NULL
    assert mem.bytes[:] == before


# --- A page walk from the manual ------------------------------------------

class Fault(Exception):
    """#PF with .code; or "range", "io"."""

    def __init__(self, what, code=0):
        super().__init__(what, code)
        self.what, self.code = what, code


def bits(value, high, low):
    return value >> low & (1 << high - low + 1) - 1


def reference(s, load, gva, access):
    """(gpa, page size, [(entry's gpa, A and D to set)]) or Fault.

    s: cr0, cr3, cr4, efer, rflags, cpl, maxphyaddr, pdpe1gb, pdpte;
    load(gpa, size) gives an entry; access: "r", "w", "x", with "i" implicit.
    """
    user = s.cpl == 3 and "i" not in access
    write, fetch = "w" in access, "x" in access
    smep, smap = bits(s.cr4, 20, 20), bits(s.cr4, 21, 21)
    nxe, wp = bits(s.efer, 11, 11), bits(s.cr0, 16, 16)
    pae, pse = bits(s.cr4, 5, 5), bits(s.cr4, 4, 4)
    maxphyaddr = s.maxphyaddr

    def fault(present, reserved=0):
        identifies_fetch = fetch and (smep or (pae and nxe))
        raise Fault("pf", present | write << 1 | user << 2 | reserved << 3 |
                    (16 if identifies_fetch else 0))

    used, rights = [], [1, 1, 0]      # R/W, U/S, XD

    def entry(at, size, must_be_zero):
        """Loads it; must_be_zero(entry) names [(high, low)] reserved."""
        e = load(at, size)
        if e is None:
            raise Fault("io")
        if not e & P:
            fault(0)
        zero = list(must_be_zero(e))
        if size == 8 and not nxe:
            zero.append((63, 63))
        if any(bits(e, high, low) for high, low in zero if high >= low):
            fault(1, 1)
        used.append((at, size))
        rights[0] &= bits(e, 1, 1)
        rights[1] &= bits(e, 2, 2)
        rights[2] |= bits(e, 63, 63)
        return e

    def done(gpa, page):
        writable, is_user, xd = rights
        if user:
            good = is_user and (not write or writable) and \
                not (fetch and xd)
        elif not is_user:
            good = (not write or writable or not wp) and not (fetch and xd)
        elif fetch:
            good = not smep and not xd
        else:
            ac = bits(s.rflags, 18, 18) and "i" not in access
            good = (not smap or ac) and (not write or writable or not wp)
        if not good:
            fault(1)
        flags = [(at, size, A) for at, size in used]
        if write:
            flags[-1] = (*flags[-1][:2], A | D)
        return gpa, page, flags

    if not s.cr0 >> 31 & 1:
        return gva & 0xffffffff, PAGE, []

    if not s.efer >> 10 & 1 and not pae:
        # Figure 4-4, 4-5 and table 4-4: 32-bit paging.
        gva &= 0xffffffff
        m36 = min(40, maxphyaddr)
        pde = entry(bits(s.cr3, 31, 12) << 12 | bits(gva, 31, 22) << 2, 4,
                    lambda e: [(21, m36 - 19)] if pse and e & PS else [])
        if pse and pde & PS:
            return done(bits(pde, 20, 13) << 32 | bits(pde, 31, 22) << 22 |
                        bits(gva, 21, 0), 4 * MIB)
        pte = entry(bits(pde, 31, 12) << 12 | bits(gva, 21, 12) << 2, 4,
                    lambda e: [])
        return done(bits(pte, 31, 12) << 12 | bits(gva, 11, 0), PAGE)

    if not s.efer >> 10 & 1:
        # Tables 4-9 to 4-11: PAE paging, PDPTEs from registers.
        gva &= 0xffffffff
        pdpte = s.pdpte[bits(gva, 31, 30)]
        if not pdpte & P:
            fault(0)
        top = (62, maxphyaddr)
        pde = entry(bits(pdpte, 51, 12) << 12 | bits(gva, 29, 21) << 3, 8,
                    lambda e: [top] + ([(20, 13)] if e & PS else []))
        if pde & PS:
            return done(bits(pde, 51, 21) << 21 | bits(gva, 20, 0), 2 * MIB)
        pte = entry(bits(pde, 51, 12) << 12 | bits(gva, 20, 12) << 3, 8,
                    lambda e: [top])
        return done(bits(pte, 51, 12) << 12 | bits(gva, 11, 0), PAGE)

    # Tables 4-14 to 4-20: 4-level and 5-level paging.
    top = (51, maxphyaddr)
    la57 = bits(s.cr4, 12, 12)
    sign = gva >> (56 if la57 else 47)
    if sign not in (0, 2**(8 if la57 else 17) - 1):
        raise Fault("range")
    table = bits(s.cr3, 51, 12) << 12
    if la57:
        e = entry(table | bits(gva, 56, 48) << 3, 8, lambda e: [top, (7, 7)])
        table = bits(e, 51, 12) << 12
    e = entry(table | bits(gva, 47, 39) << 3, 8, lambda e: [top, (7, 7)])
    e = entry(bits(e, 51, 12) << 12 | bits(gva, 38, 30) << 3, 8,
              lambda e: [top] + ([(29, 13) if s.pdpe1gb else (7, 7)]
                                 if e & PS else []))
    if e & PS:
        return done(bits(e, 51, 30) << 30 | bits(gva, 29, 0), GIB)
    e = entry(bits(e, 51, 12) << 12 | bits(gva, 29, 21) << 3, 8,
              lambda e: [top] + ([(20, 13)] if e & PS else []))
    if e & PS:
        return done(bits(e, 51, 21) << 21 | bits(gva, 20, 0), 2 * MIB)
    e = entry(bits(e, 51, 12) << 12 | bits(gva, 20, 12) << 3, 8,
              lambda e: [top])
    return done(bits(e, 51, 12) << 12 | bits(gva, 11, 0), PAGE)


ACCESS = {"r": "GUEST_READ", "w": "GUEST_WRITE", "x": "GUEST_FETCH"}


def paging(m, mem, s):
    pg = m.new("struct guest_paging *", {
        "cr0": s.cr0, "cr3": s.cr3, "cr4": s.cr4, "efer": s.efer,
        "rflags": s.rflags, "pdpte": s.pdpte, "cpl": s.cpl,
        "phys_bits": s.maxphyaddr, "gib_pages": s.pdpe1gb,
        "list": mem.list})
    return pg


def access_bits(m, access):
    value = getattr(m, ACCESS[access[0]])
    return value | (m.GUEST_IMPLICIT if "i" in access else 0)


def walk(m, mem, s, gva, access):
    """The C code's answer in the reference's terms."""
    out = m.new("struct guest_translation *")
    status = m.guest_walk(paging(m, mem, s), gva, access_bits(m, access), out)
    if status == -m.EFAULT:
        raise Fault("pf", out.error_code)
    if status:
        raise Fault({-m.ERANGE: "range", -m.EIO: "io"}[status])
    return out.gpa, out.page_size


def check(m, mem, s, gva, access):
    """Both walks agree, on memory afterwards as well. Returns the answer."""
    expected = EXPECTED
    memoryview(expected)[:] = memoryview(mem.bytes)

    def load(gpa, size):
        where = [mem.host(gpa + n, False) for n in range(size)]
        if None in where:
            return None
        return int.from_bytes(mem.bytes[where[0]:where[0] + size], "little")
    try:
        gpa, page, flags = reference(s, load, gva, access)
        for at, _, flag in flags:
            where = mem.host(at, True)
            if where is None and load(at, 1) & flag != flag:
                raise Fault("io")       # an entry in ROM that must change
            if where is not None:
                expected[where] |= flag
        want = gpa, page
    except Fault as fault:
        want = fault.what, fault.code
    try:
        got = walk(m, mem, s, gva, access)
    except Fault as fault:
        got = fault.what, fault.code
    assert got == want
    if want[0] != "io":
        assert expected == mem.bytes, "A and D, and nothing else"
    return want


def state(m, mode, **more):
    """A vCPU's state that translates in that mode, supervisor."""
    s = SimpleNamespace(
        cr0=0x80010001, cr3=PAGE, cr4=0, efer=0, rflags=2, cpl=0,
        maxphyaddr=39, pdpe1gb=True, pdpte=[0] * 4, mode=mode)
    if mode == "none":
        s.cr0 = 1
    elif mode == "32":
        s.cr4 = m.CR4_PSE
    else:
        s.cr4 = m.CR4_PAE | (m.CR4_LA57 if mode == "5" else 0)
        s.efer = m.EFER_NXE | (0 if mode == "pae" else
                               m.EFER_LME | m.EFER_LMA)
    vars(s).update(more)
    return s


LEVELS = {"none": 0, "32": 2, "pae": 3, "4": 4, "5": 5}


def shift(mode, level):
    return 12 + (10 if mode == "32" else 9) * (level - 1)


def build(m, mode, s, gva, entries):
    """Tables for gva on guest pages 1, 2, ...; entries from the top.

    An entry is its bits; None as address stands for the next table.
    """
    mem = Memory(m, [(0, 0, 32, m.REGION_RAM, m.REGION_RWX),
                     (32, 32, 8, m.REGION_ROM, m.REGION_RX)], bytes(HOST))
    size = 4 if mode == "32" else 8
    level = LEVELS[mode]
    for n, (low, address) in enumerate(entries):
        if address is None:
            address = (n + 2) * PAGE
        value = low | address
        index = gva >> shift(mode, level) & (PAGE // size - 1)
        if mode == "pae" and level == 3:
            s.pdpte[gva >> 30 & 3] = value
        else:
            at = (n + 1) * PAGE + index * size
            mem.bytes[at:at + size] = (value % 2**(8 * size)).to_bytes(
                size, "little")
        level -= 1
    return mem


# Flags of an entry: mostly what makes a translation work.
FLAGS = st.tuples(
    st.sampled_from([P | RW | US] * 3 + [P | RW, P | US, P, 0]),
    st.sampled_from([0, 0, A, A | D, 0xe00]),
    st.sampled_from([0, 0, 0, XD]),
    st.sampled_from([0] * 99 + [1 << n for n in range(12, 63)])).map(
        lambda x: x[0] | x[1] | x[2] | x[3])
GVAS = st.sampled_from([
    0, 0x1234, 0x401000, 0x7fffffff, 0xffffffff, 0xc0000abc, 2**38 + 0x345,
    2**47 - 1, 2**47, 2**56 - 1, 2**56, 2**64 - 1, 0xffff800000000000,
    0xff00000000000000, 0x1_0000_1234]) | st.integers(0, 2**64 - 1)


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_against_the_manual(m, data):
    draw = data.draw
    mode = draw(st.sampled_from(["32", "pae", "4", "5", "4", "5", "none"]))
    s = state(m, mode)
    s.maxphyaddr = draw(st.sampled_from([32, 36, 39, 40, 46, 52]))
    s.pdpe1gb = draw(st.booleans())
    s.cpl = draw(st.sampled_from([0, 1, 2, 3, 3, 3]))
    for name, flips in (("cr0", [m.CR0_WP]), ("rflags", [m.RFLAGS_AC]),
                        ("efer", [m.EFER_NXE]),
                        ("cr4", [m.CR4_SMEP, m.CR4_SMAP, m.CR4_PSE])):
        for bit in flips:
            if draw(st.booleans()):
                setattr(s, name, getattr(s, name) ^ bit)
    gva = draw(GVAS)
    if draw(st.integers(0, 7)):     # mostly canonical
        width = {"4": 47, "5": 56}.get(mode, 32)
        gva %= 1 << width
        if mode in "45" and draw(st.booleans()):
            gva += 2**64 - 2**width
    depth = LEVELS[mode]
    large = draw(st.integers(1, 2 * depth)) if depth else 0
    odd = draw(st.sets(st.integers(1, 5), max_size=2))
    entries = []
    for level in range(depth, 0, -1):
        flags = draw(FLAGS) if level in odd else P | RW | US
        if mode == "pae" and level == 3:
            flags &= P      # the rest is checked when CR3 is loaded
        address = None
        if level == large or level == 1:
            # The page itself may lie anywhere.
            size = 1 << shift(mode, level)
            address = draw(st.integers(0, 2**40 // size)) * size
            if level > 1:
                flags |= PS
        if draw(st.integers(0, 31)) == 31:
            address = draw(st.integers(0, 45)) * PAGE
        entries.append((flags, address))
        if level == large:
            break
    mem = build(m, mode, s, gva, entries)
    access = draw(st.sampled_from(["r", "w", "x", "ri", "wi"]))
    check(m, mem, s, gva, access)


@pytest.mark.parametrize("mode", ["32", "pae", "4", "5"])
def test_each_reserved_bit(m, mode):
    """Every single bit of an entry that maps, on every level and size."""
    gva, size = 0x40201123, 4 if mode == "32" else 8
    top = LEVELS[mode] - (mode == "pae")
    chain = [(P | RW | US, None)] * top
    for level in range(top, 0, -1):
        s = state(m, mode)
        mem = build(m, mode, s, gva, [(P, None)] * (mode == "pae") +
                    chain[:top - level])
        at = (LEVELS[mode] - level + 1) * PAGE + size * (
            gva >> shift(mode, level) & PAGE // size - 1)
        for s.maxphyaddr, s.pdpe1gb, nxe, ps, bit in itertools.product(
                (36, 52), (False, True), (0, m.EFER_NXE),
                (0, PS) if level > 1 else (0,), range(1, 8 * size)):
            s.efer = s.efer & ~m.EFER_NXE | nxe
            mem.bytes[at:at + size] = (P | ps | 1 << bit).to_bytes(
                size, "little")
            check(m, mem, s, gva, "r")


def exact(m, mode, entries, gva, access, **more):
    s = state(m, mode, **more)
    return check(m, build(m, mode, s, gva, entries), s, gva, access)


TABLE = (P | RW | US, None)


def test_translations_by_hand(m):
    page = (P | RW | US, 0x5000)
    assert exact(m, "none", [], 0x1_2345_6789, "x") == (0x23456789, PAGE)
    assert exact(m, "32", [TABLE, page], 0xc0403abc, "r") == (0x5abc, PAGE)
    assert exact(m, "32", [(P | PS, 0xc00000)], 0x123456, "r") == \
        (0xd23456, 4 * MIB)
    assert exact(m, "32", [(P | PS, 0xc00000 | 0x7f << 13)], 0, "r") == \
        (0x7f_00c0_0000, 4 * MIB)   # PSE-36
    assert exact(m, "32", [(P | PS, 0xc00000 | 0x80 << 13)], 0, "r") == \
        ("pf", 9)
    # Without CR4.PSE the bit means nothing.
    assert exact(m, "32", [(P | RW | US | PS, None), page], 0, "r",
                 cr4=0) == (0x5000, PAGE)
    assert exact(m, "pae", [(P, None), TABLE, page], 0xc0201abc, "r") == \
        (0x5abc, PAGE)
    assert exact(m, "pae", [(P, None), (P | PS, 0x600000)], 0x212345,
                 "r") == (0x612345, 2 * MIB)
    assert exact(m, "4", [TABLE] * 3 + [page], 0xffff_8000_0000_0abc,
                 "w") == (0x5abc, PAGE)
    assert exact(m, "4", [TABLE] * 2 + [(P | PS, 0x600000)], 0x212345,
                 "r") == (0x612345, 2 * MIB)
    assert exact(m, "4", [TABLE, (P | PS, 0x1_4000_0000)], 0x4212_3456,
                 "r") == (0x1_4212_3456, GIB)
    assert exact(m, "4", [TABLE, (P | PS, 0x4000_0000)], 0, "r",
                 pdpe1gb=False) == ("pf", 9)
    assert exact(m, "5", [TABLE] * 4 + [page], 2**56 - 1, "r") == \
        (0x5fff, PAGE)
    for bad in 2**47, 2**63, 2**64 - 2**47 - 1:
        assert exact(m, "4", [], bad, "r") == ("range", 0)
    assert exact(m, "5", [], 2**56, "r") == ("range", 0)


@pytest.mark.parametrize("flags, access, more, code", [
    # error code: 1 present, 2 write, 4 user, 8 reserved, 16 fetch
    (0, "r", {}, 0), (0, "w", {"cpl": 3}, 6), (0, "x", {}, 16),
    (P | RW, "r", {"cpl": 3}, 5), (P | US, "w", {"cpl": 3}, 7),
    (P | US, "w", {}, 3), (P | US, "w", {"cr0": 0x80000001}, None),
    (P | RW, "r", {"cpl": 2}, None), (P | RW, "ri", {"cpl": 3}, None),
    (P | RW | US | XD, "x", {"cpl": 3}, 0x15), (P | RW | XD, "x", {}, 0x11),
    (P | RW | US | XD, "w", {"cpl": 3}, None),
    (P | RW | US | XD, "r", {"efer": 0x500}, 9),
    (P | US, "x", {"cr4": 0x100020}, 0x11),         # SMEP
    (P | US, "x", {"cr4": 0x100020, "cpl": 3}, None),
    (P | US, "x", {"cr4": 0x20}, None),
    (P | US, "r", {"cr4": 0x200020}, 1),            # SMAP
    (P | US, "r", {"cr4": 0x200020, "rflags": 0x40002}, None),
    (P | US, "ri", {"cr4": 0x200020, "rflags": 0x40002, "cpl": 3}, 1),
    (P | US, "r", {"cr4": 0x200020, "cpl": 3}, None),
    (0, "x", {"efer": 0x500}, 0),                   # says nothing of fetch
    (0, "x", {"efer": 0x500, "cr4": 0x100020}, 16),
    (P | RW | 1 << 45, "w", {"cpl": 3}, 0xf)])
def test_faults_by_hand(m, flags, access, more, code):
    got = exact(m, "4", [TABLE] * 3 + [(flags, 0x5000)], 0x1000, access,
                **more)
    assert got == ((0x5000, PAGE) if code is None else ("pf", code))


def test_accessed_and_dirty(m):
    for access, last in ("r", A), ("x", A), ("w", A | D):
        s = state(m, "4")
        mem = build(m, "4", s, 0, [TABLE] * 3 + [(P | RW, 0x5000)])
        walk(m, mem, s, 0, access)
        entries = [struct.unpack_from("<Q", mem.bytes, n * PAGE)[0]
                   for n in range(1, 5)]
        assert [e & (A | D) for e in entries] == [A, A, A, last]
    # A fault leaves them as they are.
    mem = build(m, "4", s, 0, [TABLE] * 3 + [(P, 0x5000)])
    before = bytes(mem.bytes)
    with pytest.raises(Fault):
        walk(m, mem, s, 0, "w")
    assert mem.bytes[:] == before


def test_tables_in_rom(m):
    """As firmware has them: fine while there is nothing to set."""
    for flags, want in ((P | RW | A | D, (0x5000, PAGE)),
                        (P | RW | A, ("io", 0)), (P | RW, ("io", 0))):
        s = state(m, "4")
        mem = build(m, "4", s, 0, [TABLE] * 2 + [(P | RW | A, 33 * PAGE)])
        mem.bytes[33 * PAGE:33 * PAGE + 8] = (flags | 0x5000).to_bytes(
            8, "little")
        assert check(m, mem, s, 0, "w") == want


# --- Linear access -------------------------------------------------------

class Space:
    """4-level paging of 512 pages; a page's flags by its number."""

    def __init__(self, m, pages, **more):
        """pages: {linear page: (flags, guest page)}"""
        self.m, self.s = m, state(m, "4", **more)
        self.mem = build(m, "4", self.s, 0, [TABLE] * 3)
        fill = bytes(range(1, 252)) * (32 * PAGE // 251 + 1)
        self.mem.bytes[8 * PAGE:40 * PAGE] = fill[:32 * PAGE]
        for page, (flags, to) in pages.items():
            at = 4 * PAGE + page * 8
            self.mem.bytes[at:at + 8] = (flags | to * PAGE).to_bytes(
                8, "little")
        self.pages = pages
        self.pg = paging(m, self.mem, self.s)
        self.out = m.new("struct guest_translation *")

    def read(self, gva, size, access="r"):
        buf = self.m.new("u8[]", b"\xee" * max(size, 1))
        status = self.m.guest_read_linear(
            self.pg, gva, buf, size, access_bits(self.m, access), self.out)
        data = self.m.ffi.buffer(buf)[:size]
        if status:
            assert data == b"\xee" * size, "half done"
        return status or data

    def write(self, gva, data, access=0):
        buf = self.m.new("u8[]", data or b"x")
        before = self.mem.bytes[8 * PAGE:]
        status = self.m.guest_write_linear(self.pg, gva, buf, len(data),
                                           access, self.out)
        if status:
            assert self.mem.bytes[8 * PAGE:] == before, "half done"
        return status

    def at(self, gva):
        """Offset in memory of a linear address."""
        return self.pages[gva // PAGE][1] * PAGE + gva % PAGE


def test_across_pages(m):
    pages = {0: (P | RW, 9), 1: (P | RW, 30), 2: (P | RW, 8), 3: (P, 33)}
    space = Space(m, pages)
    for gva, size in ((0, 1), (PAGE - 1, 2), (PAGE - 7, 15), (0, 4 * PAGE),
                      (5, 3 * PAGE), (PAGE, PAGE), (123, 0)):
        data = space.read(gva, size)
        assert data == bytes(space.mem.bytes[space.at(gva + n)]
                             [0] for n in range(size))
    for gva, size in (PAGE - 3, 9), (1, 2 * PAGE), (0, 3 * PAGE):
        data = bytes(n * 7 & 255 for n in range(size))
        assert space.write(gva, data) == 0
        assert space.read(gva, size) == data
    assert space.write(0, b"") == 0


@pytest.mark.parametrize("second, access, fault", [
    ((0, 9), "r", 0), ((P, 9), "w", 3), ((P | RW | XD, 9), "x", 0x11),
    ((0, 9), "x", 0x10), ((P | RW | 1 << 45, 9), "r", 9)])
@pytest.mark.parametrize("size", [2, 15, PAGE, 2 * PAGE])
def test_a_fault_on_a_later_page(m, second, access, fault, size):
    """CR2 is the first byte of the page that faults."""
    space = Space(m, {6: (P | RW, 8), 7: second, 8: (P | RW, 10)})
    gva = 7 * PAGE - 1
    status = space.write(gva, b"w" * size) if access == "w" else \
        space.read(gva, size, access)
    assert status == -m.EFAULT
    assert (space.out.gva, space.out.error_code) == (7 * PAGE, fault)


def test_pages_that_are_no_memory(m):
    """Present in the guest's tables, but device, hole, or read-only."""
    space = Space(m, {0: (P | RW, 8), 1: (P | RW, 33), 2: (P | RW, 50)})
    assert space.write(0, b"x" * PAGE) == 0
    assert space.read(PAGE - 1, 2) != -m.EIO
    assert space.write(PAGE, b"x") == -m.EIO
    assert space.write(PAGE - 1, b"xy") == -m.EIO
    assert space.read(2 * PAGE, 1) == -m.EIO
    assert space.read(2 * PAGE - 1, 2) == -m.EIO


def test_the_ends_of_the_address_space(m):
    space = Space(m, {511: (P | RW, 8), 0: (P | RW, 9)})
    assert space.read(2**47 - 1, 2) == -m.EFAULT      # not mapped
    pml4 = space.mem.bytes
    # The top of the lower half is mapped, then comes what is not canonical.
    for table, index in (1, 255), (2, 511), (3, 511):
        at = table * PAGE + index * 8
        pml4[at:at + 8] = ((table + 1) * PAGE | P | RW).to_bytes(8, "little")
    assert space.read(2**47 - 1, 1) == space.mem.bytes[9 * PAGE - 1]
    assert space.read(2**47 - 1, 2) == -m.ERANGE
    # Without paging, 4 GiB is followed by 0.
    flat = Space(m, {}, cr0=1, efer=0)
    assert flat.read(2**32 - 1, 1) == -m.EIO
    assert flat.read(2**32, 4) == flat.mem.bytes[0:4]
    # Implicit accesses are the supervisor's at any CPL.
    user = Space(m, {0: (P | RW, 8)}, cpl=3)
    assert user.read(0, 4) == -m.EFAULT and user.out.error_code == 5
    assert user.read(0, 4, "ri") == user.mem.bytes[8 * PAGE:8 * PAGE + 4]
    assert user.write(0, b"abcd", m.GUEST_IMPLICIT) == 0


LINEAR = st.lists(st.tuples(
    st.sampled_from([P | RW | US] * 5 + [P | RW, P | US, 0, P | RW | XD]),
    st.integers(8, 42)), min_size=4, max_size=4)


@settings(max_examples=300, deadline=None)
@given(LINEAR, st.integers(0, 4 * PAGE), st.integers(1, 2 * PAGE),
       st.sampled_from("rwx"), st.sampled_from([0, 3]))
def test_linear_against_the_walk(m, entries, gva, size, access, cpl):
    """Byte by byte by the reference, each byte its own access."""
    assume(gva + size <= 5 * PAGE)
    space = Space(m, dict(enumerate(entries)), cpl=cpl)

    def load(gpa, n):
        where = space.mem.host(gpa, False)
        return None if where is None else int.from_bytes(
            space.mem.bytes[where:where + n], "little")
    where, want = [], 0
    for n in range(size):
        if n == 0 or (gva + n) % PAGE == 0:
            try:
                gpa, _, _ = reference(space.s, load, gva + n, access)
            except Fault as fault:
                want = -m.EFAULT if fault.what == "pf" else -m.EIO
                break
            first, start = gpa, n
        host = space.mem.host(first + n - start, access == "w")
        if host is None:
            want = -m.EIO
            break
        where.append(host)
    data = bytes((n * 13 + 7) & 255 for n in range(size))
    if access == "w":
        assert space.write(gva, data) == want
        if not want:
            model = dict(zip(where, data))     # two pages may be the same
            assert all(space.mem.bytes[h] == bytes([b])
                       for h, b in model.items())
    else:
        expected = b"".join(space.mem.bytes[h] for h in where)
        assert space.read(gva, size, access) == (want or expected)
