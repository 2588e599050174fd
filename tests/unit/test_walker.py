# SPDX-License-Identifier: MIT
"""The independent walker: it finds what is planted, and nothing else."""

import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness

sys.path.insert(0, str(harness.ROOT / "tests"))
from walker import (Difference, Dump, Piece, TableError,  # noqa: E402
                    compare, ept, parse_regions, reached, vtd, wanted_cpu,
                    wanted_dma)

PAGE, MIB, GIB = 4096, 1 << 20, 1 << 30
ROOT, CONTEXT, TOP = 0x100000, 0x101000, 0x102000


class Memory:
    """Physical memory by words, and a plain builder of tables by hand."""

    def __init__(self):
        self.words = {}
        self.next = 0x110000

    def __call__(self, address, size):
        return struct.pack(f"<{size // 8}Q", *(
            self.words.get(a, 0) for a in range(address, address + size, 8)))

    def path(self, top, levels, gpa, level, link):
        """The address of the entry for gpa at that level."""
        table = top
        for n in range(levels, level, -1):
            at = table + gpa // (PAGE << 9 * (n - 1)) % 512 * 8
            if not self.words.get(at):
                self.words[at] = self.next | link
                self.next += PAGE
            table = self.words[at] & ~0xfff & (1 << 52) - 1
        return table + gpa // (PAGE << 9 * (level - 1)) % 512 * 8


def devices(rows, levels=4, domain=5, bdf=0x28):
    """Memory with one device's tables: rows of (gpa, hpa, level, bits)."""
    m = Memory()
    m.words[ROOT + 16 * (bdf >> 8)] = CONTEXT | 1
    m.words[CONTEXT + 16 * (bdf & 0xff)] = TOP | 1
    m.words[CONTEXT + 16 * (bdf & 0xff) + 8] = domain << 8 | levels - 2
    for gpa, hpa, level, bits in rows:
        m.words[m.path(TOP, levels, gpa, level, 3)] = \
            hpa | bits | (0x80 if level > 1 else 0)
    return m


def guest(rows):
    """EPT: rows of (gpa, hpa, level, rights and type bits)."""
    m = Memory()
    for gpa, hpa, level, bits in rows:
        m.words[m.path(TOP, 4, gpa, level, 7)] = \
            hpa | bits | (0x80 if level > 1 else 0)
    return m


LOG = """monocle: region 0-9f000 hpa 30000000 ram cpu rwx dma rw- WB ram low
monocle: region a0000-c0000 hpa a0000 device cpu rw- dma --- UC none vga
monocle: region 100000-400000 hpa 30200000 ram cpu rwx dma rw- WB ram ram
monocle: region 7c000000-7c400000 hpa 7c000000 ram cpu --- dma rw- UC \
reserved gsm
monocle: region fed00000-fed01000 hpa 0 hole cpu --- dma --- UC none hpet
"""
DMA = ([(n * PAGE, 0x30000000 + n * PAGE, 1, 3) for n in range(0x9f)] +
       [(MIB + n * PAGE, 0x30200000 + n * PAGE, 1, 3) for n in range(256)] +
       [(2 * MIB, 0x30300000 + n * PAGE, 1, 3) for n in ()] +
       [(2 * MIB + n * PAGE, 0x30300000 + n * PAGE, 1, 3)
        for n in range(512)] +
       [(0x7c000000, 0x7c000000, 2, 3), (0x7c200000, 0x7c200000, 2, 3)])
WB, UC = 6 << 3, 0
CPU = ([(n * PAGE, 0x30000000 + n * PAGE, 1, 7 | WB) for n in range(0x9f)] +
       [(0xa0000 + n * PAGE, 0xa0000 + n * PAGE, 1, 3 | UC)
        for n in range(32)] +
       [(MIB + n * PAGE, 0x30200000 + n * PAGE, 1, 7 | WB)
        for n in range(768)])
EPTP = TOP | 3 << 3 | 6


def test_log_lines():
    regions = parse_regions("noise\n" + LOG + "region-less\n")
    assert [r.name for r in regions] == ["low", "vga", "ram", "gsm", "hpet"]
    assert regions[1][:4] == (0xa0000, 0xc0000, 0xa0000, "device")
    assert regions[0].cpu == "rwx" and regions[0].dma == "rw-"
    # The last of several lists counts.
    assert parse_regions(LOG + LOG) == regions
    assert parse_regions("") == []


def test_equal_maps():
    regions = parse_regions(LOG)
    found = vtd.reach(devices(DMA), ROOT)
    assert list(found) == [0x28]
    assert compare(found[0x28], wanted_dma(regions)) == []
    assert compare(ept.pieces(guest(CPU), EPTP), wanted_cpu(regions)) == []


def differences(rows, levels=4):
    found = vtd.reach(devices(rows, levels), ROOT)[0x28]
    return compare(found, wanted_dma(parse_regions(LOG)))


def without(rows, gpa):
    return [r for r in rows if r[0] != gpa]


def test_planted_errors_of_dma():
    """One page missing, one too many, one elsewhere, one with other rights:
    each is found as that page and nothing else."""
    page = (MIB, MIB + PAGE)
    assert differences(without(DMA, MIB)) == [
        Difference(*page, None, (0x30200000, "rw-", None))]
    assert differences(DMA + [(GIB, 0x100000, 1, 1)]) == [
        Difference(GIB, GIB + PAGE, (0x100000, "r--", None), None)]
    assert differences(without(DMA, MIB) + [(MIB, 0x40000000, 1, 3)]) == [
        Difference(*page, (0x40000000, "rw-", None),
                   (0x30200000, "rw-", None))]
    assert differences(without(DMA, MIB) + [(MIB, 0x30200000, 1, 1)]) == [
        Difference(*page, (0x30200000, "r--", None),
                   (0x30200000, "rw-", None))]
    # The last page of a large one
    low = without(DMA, 0x7c200000)
    low += [(0x7c200000 + n * PAGE, 0x7c200000 + n * PAGE, 1, 3)
            for n in range(511)]
    assert differences(low) == [Difference(
        0x7c3ff000, 0x7c400000, None, (0x7c3ff000, "rw-", None))]


def test_planted_errors_of_the_ept():
    wanted = wanted_cpu(parse_regions(LOG))
    for row, found in (((MIB, 0x30200000, 1, 3 | WB), "rw-"),
                       ((MIB, 0x30200000, 1, 7 | UC), "UC"),
                       ((MIB, 0x30200000, 1, 7 | WB | 0x40), "WB!")):
        got = compare(ept.pieces(guest(without(CPU, MIB) + [row]), EPTP),
                      wanted)
        assert len(got) == 1 and got[0][:2] == (MIB, MIB + PAGE)
        assert found in got[0].found


def test_rights_of_upper_levels_count():
    m = devices(DMA)
    entry = m.path(TOP, 4, MIB, 3, 3)
    m.words[entry] &= ~2
    got = compare(vtd.reach(m, ROOT)[0x28], wanted_dma(parse_regions(LOG)))
    assert got and all(d.found[1] == "r--" for d in got)
    m = guest(CPU)
    m.words[m.path(TOP, 4, MIB, 3, 7)] &= ~4
    got = compare(ept.pieces(m, EPTP), wanted_cpu(parse_regions(LOG)))
    assert {d.found[1] for d in got} == {"rw-"}


@pytest.mark.parametrize("address, bits", [
    (ROOT, 0x2), (ROOT, 1 << 60), (ROOT + 8, 1), (CONTEXT + 0x280, 0x10),
    (CONTEXT + 0x280, 1 << 2), (CONTEXT + 0x288, 1 << 7),
    (CONTEXT + 0x288, 4), (CONTEXT + 0x288, 1 << 40)])
def test_reserved_bits_of_root_and_context(address, bits):
    m = devices(DMA)
    vtd.reach(m, ROOT, haw=46)
    m.words[address] = m.words.get(address, 0) ^ bits
    with pytest.raises(TableError):
        vtd.reach(m, ROOT, haw=46)


@pytest.mark.parametrize("row", [
    (GIB, 0x800 | GIB, 1, 3), (GIB, PAGE, 2, 3), (GIB, 2 * MIB, 3, 3),
    (GIB, 1 << 46, 1, 3), (1 << 39, 0, 4, 3)])
def test_reserved_bits_of_leaves(row):
    with pytest.raises(TableError):
        vtd.reach(devices(DMA + [row]), ROOT, haw=46)


@pytest.mark.parametrize("row", [
    (GIB, 0, 1, 2 | WB), (GIB, 0, 1, 6 | WB), (GIB, 0, 1, 7 | 2 << 3),
    (GIB, 0, 1, 7 | 7 << 3), (GIB, PAGE, 2, 7 | WB), (GIB, 1 << 46, 1, 7),
    (1 << 39, 0, 4, 7 | WB)])
def test_misconfigured_ept(row):
    with pytest.raises(TableError):
        ept.pieces(guest(CPU + [row]), EPTP, width=46)


def test_bad_eptp():
    for eptp in (TOP | 6, TOP | 3 << 3 | 1, EPTP | 0x100, EPTP | 1 << 50):
        with pytest.raises(TableError):
            ept.root(eptp, width=46)


@pytest.mark.parametrize("levels", [3, 4, 5])
def test_levels(levels):
    m = devices([(GIB, 5 * GIB, 2, 3), (0x1000, 0x9000, 1, 2)], levels)
    context = vtd.contexts(m, ROOT)[0x28]
    assert context == (TOP, levels, 5, False)
    assert vtd.leaves(m, context) == [(0x1000, PAGE, 0x9000, "-w-"),
                                      (GIB, 2 * MIB, 5 * GIB, "rw-")]
    assert vtd.translate(m, context, 0x1234) == (0x9234, "-w-")
    assert vtd.translate(m, context, GIB + 2 * MIB - 1) == \
        (5 * GIB + 2 * MIB - 1, "rw-")
    assert vtd.translate(m, context, 0x2000) is None
    assert vtd.translate(m, context, 1 << (12 + 9 * levels)) is None


def test_large_pages_that_the_unit_cannot():
    m = devices([(GIB, 0, 3, 3)])
    with pytest.raises(TableError):
        vtd.reach(m, ROOT, large=(2,))


def test_interrupt_entries():
    m = Memory()
    m.words[ROOT + 16 * 3] = 1 | 0x45 << 16 | 7 << 40
    m.words[ROOT + 16 * 3 + 8] = 1 << 18 | 0x28
    got = vtd.interrupts(m, ROOT)
    assert list(got) == [3]
    assert got[3][:5] == (0x45, 7, False, 0x28, 1)
    m.words[ROOT + 16 * 3] |= 1 << 32   # an x2APIC ID, or a reserved bit
    with pytest.raises(TableError):
        vtd.interrupts(m, ROOT)
    assert vtd.interrupts(m, ROOT, x2apic=True)[3].destination == 7 << 8 | 1
    for bit in (1 << 15, 1 << 24):
        m.words[ROOT + 16 * 3] ^= bit
        with pytest.raises(TableError):
            vtd.interrupts(m, ROOT, x2apic=True)
        m.words[ROOT + 16 * 3] ^= bit


def test_own_memory_in_reach():
    pieces = vtd.reach(devices(DMA), ROOT)[0x28]
    assert reached(pieces, [(0x10000000, 0x20000000)]) == []
    assert reached(pieces, [(0x2ffff000, 0x30001000)])[0].gpa == 0
    assert reached(pieces, [(0x304ff000, 0x30500000)])[0].gpa == MIB
    assert reached(pieces, [(0x30500000, 0x30501000)]) == []


def test_interrupt_range_is_not_wanted():
    line = "region fe000000-100000000 hpa fe000000 device cpu rw- dma rw- " \
           "UC none bar\n"
    assert [p[:2] for p in wanted_dma(parse_regions(line))] == [
        (0xfe000000, 0xfee00000), (0xfef00000, 0x100000000)]


def test_dump(tmp_path):
    (tmp_path / "memory").write_bytes(bytes(range(256)) * 32)
    dump = Dump(tmp_path / "memory", base=0x1000)
    assert dump(0x1003, 2) == b"\x03\x04"
    for address, size in ((0xfff, 1), (0x2fff, 2), (0x3000, 1)):
        with pytest.raises(TableError):
            dump(address, size)


PIECES = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6),
                            st.integers(0, 3), st.sampled_from(["r--", "rw-"])),
                  max_size=8)


def spread(rows):
    out, used = [], set()
    for gpa, size, shift, rights in rows:
        span = set(range(gpa, gpa + size))
        if not span & used:
            used |= span
            out.append(Piece(gpa * PAGE, (gpa + size) * PAGE,
                             (gpa + shift * 64) * PAGE, rights))
    return out


@settings(max_examples=300, deadline=None)
@given(PIECES, PIECES)
def test_compare_is_page_for_page(a, b):
    a, b = spread(a), spread(b)

    def pages(rows):
        return {g: (p.hpa + g - p.gpa, p.rights, None)
                for p in rows for g in range(p.gpa, p.end, PAGE)}
    left, right = pages(a), pages(b)
    wanted = {g: (left.get(g), right.get(g)) for g in {**left, **right}
              if left.get(g) != right.get(g)}
    found = {}
    for d in compare(a, b):
        for g in range(d.gpa, d.end, PAGE):
            found[g] = tuple(
                s and (s[0] + g - d.gpa, *s[1:]) for s in (d.found, d.wanted))
    assert found == wanted
