# SPDX-License-Identifier: MIT
"""The DMAR walk against iasl's own decoding, and against broken tables."""

import re
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vtdmodel as model
from vtdmodel import drhd, rmrr, scope, table

HERE = Path(__file__).parent
REAL = model.harness.ROOT.parent / "shared" / "dmar"
SOURCES = sorted((HERE / "dmar").glob("*.dsl"))
TABLES = SOURCES + sorted(REAL.glob("*.dmar"))
NEEDED = {"Subtable Type", "Device Scope Type", "Register Base Address",
          "PCI Segment Number", "Base Address", "End Address (limit)",
          "Enumeration ID", "PCI Bus Number", "PCI Path", "Flags"}


@pytest.fixture(scope="module")
def m():
    return model.build()


def iasl(*args):
    done = subprocess.run(["iasl", *map(str, args)], text=True, check=False,
                          capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def binary(path, tmp_path):
    if path.suffix == ".dmar":
        return path.read_bytes()
    iasl("-p", tmp_path / "table", path)
    return (tmp_path / "table.aml").read_bytes()


def decoded(data, tmp_path):
    """iasl's words as [(type, {field: value}, [scope])]; a scope is (type,
    id, bus, path)."""
    (tmp_path / "table.bin").write_bytes(data)
    iasl("-p", tmp_path / "text", "-d", tmp_path / "table.bin")
    out, scopes = [], None
    for line in (tmp_path / "text.dsl").read_text().splitlines():
        match = re.match(r"\[[^]]*\]\s+([\w ()]+?) : ([0-9A-F]+)\b,?(\w\w)?",
                         line)
        if not match or match[1] not in NEEDED:
            continue
        name, value = match[1], int(match[2], 16)
        if name == "Subtable Type":
            scopes = []
            out.append((value, {}, scopes))
        elif name == "Device Scope Type":
            scopes.append([value, None, None, []])
        elif name == "PCI Path":
            scopes[-1][3].append((value, int(match[3], 16)))
        elif name == "Enumeration ID":
            scopes[-1][1] = value
        elif name == "PCI Bus Number":
            scopes[-1][2] = value
        elif out:
            out[-1][1].setdefault(name, value)
    return out


def place(m, data):
    """The table in memory whose end ASan watches."""
    raw = m.new("uint8_t[]", len(data))
    m.ffi.buffer(raw)[:] = bytes(data)
    return raw


def scopes_of(m, entry):
    out, s = [], m.NULL
    while s := m.dmar_next_scope(entry, s):
        assert len(out) < 300
        raw = m.ffi.buffer(m.ffi.cast("uint8_t *", s), s.length)[:]
        out.append([s.type, s.id, s.bus, list(zip(raw[6::2], raw[7::2]))])
    return out


def walked(m, raw, kind):
    t = m.ffi.cast("struct dmar_table *", raw)
    out, e = [], m.NULL
    while e := m.dmar_next(t, kind, e):
        out.append(e)
    return out


def check(m, raw):
    return m.dmar_check(m.ffi.cast("struct acpi_header *", raw))


@pytest.mark.parametrize("path", TABLES, ids=lambda p: p.stem)
def test_same_as_iasl(m, path, tmp_path):
    data = binary(path, tmp_path)
    words = decoded(data, tmp_path)
    raw = place(m, data)
    assert check(m, raw) == 0, m.log_text()
    units = [((f["Register Base Address"], f["PCI Segment Number"],
               f["Flags"] & 1), s) for kind, f, s in words if kind == 0]
    assert units
    assert [((e.base, e.segment, e.flags & 1), scopes_of(m, e))
            for e in walked(m, raw, m.DMAR_UNIT)] == units
    memory = [((f["Base Address"], f["End Address (limit)"],
                f["PCI Segment Number"]), s) for kind, f, s in words
              if kind == 1 and f["Base Address"] < f["End Address (limit)"]]
    assert [((e.base, e.limit, e.segment), scopes_of(m, e))
            for e in walked(m, raw, m.DMAR_RMRR)] == memory
    # The rest is named, once each
    others = sum(kind > 1 for kind, _, _ in words)
    assert m.log_text().count("not used") >= others


def test_real_tables_are_all_there():
    if not REAL.exists():
        pytest.skip("the collection of real tables is not beside the tree")
    assert len(list(REAL.glob("*.dmar"))) == 102


# --- Broken tables -------------------------------------------------------

BASE = 0xfed90000
GOOD = [drhd(BASE, scope([(2, 0)])), rmrr(0x1000, 0x1fff, scope([(2, 0)])),
        drhd(BASE + 0x1000, scope([(0x1f, 0)], 3), include_all=True)]


def patched(data, at, *values):
    data = bytearray(data)
    data[at:at + len(values)] = bytes(values)
    data[9] = 0
    data[9] = -sum(data) & 0xff
    return data


def test_every_truncation_is_refused(m):
    """The header's length says less than the structures need."""
    data = table(GOOD)
    ends = {48}
    at = 48
    while at < len(data):
        at += struct.unpack_from("<H", data, at + 2)[0]
        ends.add(at)
    for size in range(36, len(data)):
        short = bytearray(data[:size])
        struct.pack_into("<I", short, 4, size)
        short[9] = 0
        short[9] = -sum(short) & 0xff
        got = check(m, place(m, short))
        if size == 48:
            assert got == -m.ENODEV
        else:
            assert got == (0 if size in ends else -m.EINVAL), size


@pytest.mark.parametrize("length", [1, 3, 4, 15, 17, 18, 23, 0x100, 0xffff])
def test_lengths_of_structures(m, length):
    """17 ends inside a scope, 0x100 behind the table."""
    data = patched(table(GOOD[:1]), 50, length & 0xff, length >> 8)
    assert check(m, place(m, data)) == -m.EINVAL
    assert "offset 48 cannot be" in m.log_text()


@pytest.mark.parametrize("tail", [4, 5, 24, 4096])
def test_a_structure_without_a_length_ends_the_table(m, tail):
    """What is behind it is no structure."""
    ends = bytes(4) + b"\x01\xff\x05" * (tail // 3)
    data = bytearray(table([*GOOD, drhd(BASE + 0x2000)]) + ends)
    struct.pack_into("<I", data, 4, len(data))
    raw = place(m, patched(data, 0, 0x44))
    assert check(m, raw) == 0, m.log_text()
    assert len(walked(m, raw, m.DMAR_UNIT)) == 3
    assert check(m, place(m, patched(table(GOOD), 50, 0, 0))) == -m.ENODEV
    # A rest that has no room for a length is refused, as ever
    data = bytearray(table(GOOD) + b"\0\0\0")
    struct.pack_into("<I", data, 4, len(data))
    assert check(m, place(m, patched(data, 0, 0x44))) == -m.EINVAL


@pytest.mark.parametrize("length", [0, 1, 5, 6, 7, 9, 10, 255])
def test_lengths_of_scopes(m, length):
    data = patched(table(GOOD[:1]), 65, length)
    assert check(m, place(m, data)) == -m.EINVAL


def test_a_scope_that_reaches_into_the_next_structure(m):
    data = patched(table(GOOD), 65, 16)
    assert check(m, place(m, data)) == -m.EINVAL


@pytest.mark.parametrize("entries, error", [
    ([drhd(BASE), drhd(BASE)], "EEXIST"),
    ([drhd(BASE, include_all=True), drhd(BASE + 4096, include_all=True)],
     "EEXIST"),
    ([drhd(BASE + 1)], "EINVAL"),
    ([drhd(1 << 39)], "EINVAL"), ([], "ENODEV"),
    ([rmrr(0, 4095)], "ENODEV")])
def test_units_that_cannot_be(m, entries, error):
    assert check(m, place(m, table(entries))) == -getattr(m, error)
    assert m.log_lines()[-1][0] == m.LOG_ERROR


def test_all_of_two_segments(m):
    data = table([drhd(BASE, include_all=True),
                  drhd(BASE + 4096, include_all=True, segment=1)])
    assert check(m, place(m, data)) == 0


def test_checksum_and_width(m):
    data = table(GOOD)
    data[20] ^= 1
    assert check(m, place(m, data)) == -m.EINVAL
    assert check(m, place(m, patched(table(GOOD), 36, 255))) == -m.EINVAL


def test_memory_that_is_no_range_is_left_out(m):
    data = table([drhd(BASE), rmrr(0, 0), rmrr(0x2000, 0x1fff),
                  rmrr(0x1000, 1 << 39), rmrr(0x5000, 0x5fff)])
    raw = place(m, data)
    assert check(m, raw) == 0
    assert [e.base for e in walked(m, raw, m.DMAR_RMRR)] == [0x5000]
    assert m.log_text().count("RMRR, type 1") == 3


def test_other_types_are_listed_and_skipped(m):
    others = [(kind, b"\0" * 20) for kind in range(2, 9)] + [(0xffff, b"")]
    mixed = [e for o in others for e in (o, drhd(BASE + 4096 * o[0]))][:-1]
    raw = place(m, table(mixed))
    assert check(m, raw) == 0
    assert len(walked(m, raw, m.DMAR_UNIT)) == 7
    for name in ("ATSR", "RHSA", "ANDD", "SATC", "SIDP",
                 "unknown structure, type 7, 24", "type 65535, 4 bytes"):
        assert name in m.log_text()


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_bytes(m, data):
    """Whatever passes the check can be walked inside its bounds."""
    raw = table(GOOD)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(36, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255) |
                            st.sampled_from([0, 8, 16, 24, 255]))
    raw = place(m, patched(raw, 0))
    m.lib.fakes_line_count = 0
    if check(m, raw):
        return
    pci = bus(m, {})
    t = m.ffi.cast("struct dmar_table *", raw)
    m.dmar_log(t, pci)
    for bdf in (0, 0x10, 0xff):
        m.dmar_unit_of(t, pci, bdf)
        m.dmar_rmrr_of(t, pci, bdf, m.NULL)
    m.dmar_ioapic_source(t, pci, 0, m.new("bdf_t *"), m.new("u64 *"))


# --- Which unit, which memory --------------------------------------------

def bus(m, bridges, others=()):
    """A PCI host of {bridge: secondary bus} and plain functions."""
    pci = m.new("struct pci_host *")
    every = sorted({**dict.fromkeys(others, 0), **bridges}.items())
    pci.count = len(every)
    for i, (bdf, secondary) in enumerate(every):
        pci.functions[i].bdf = bdf
        pci.functions[i].secondary_bus = secondary
        pci.functions[i].header_type = bool(secondary)
    return pci


def bdf(text):
    b, d, f = re.match(r"(\w+):(\w+)\.(\d)", text).groups()
    return int(b, 16) << 8 | int(d, 16) << 3 | int(f)


# 00:1c.0 -> bus 2, with a switch: 02:00.0 -> 3, 03:01.0 -> 5
TREE = {bdf("00:1c.0"): 2, bdf("02:00.0"): 3, bdf("03:01.0"): 5,
        bdf("00:1d.0"): 9}
WAYS = [drhd(BASE, scope([(0x1c, 0), (0, 0), (1, 0), (4, 2)])),
        drhd(BASE + 0x1000, scope([(0x1c, 0), (0, 0)], kind=2) +
             scope([(6, 0)])),
        drhd(BASE + 0x2000, scope([(0x1d, 0), (3, 0), (1, 0)])),
        drhd(BASE + 0x3000, scope([(0x1f, 7)], 3, 0xf0, 9), include_all=True),
        drhd(BASE + 0x4000, scope([(7, 0)]), segment=1)]


@pytest.mark.parametrize("text, unit", [
    ("05:04.2", 0),                 # by its whole way
    ("05:04.1", 1), ("03:00.0", 1), ("02:00.0", 1), ("03:01.0", 1),
    ("00:1c.0", 3), ("02:01.0", 3), # not behind 02:00.0
    ("00:06.0", 1), ("00:06.1", 3),
    ("09:03.0", 3),                 # 00:1d.0, but 09:03.0 is no bridge
    ("00:07.0", 3),                 # named in another segment
    ("ff:1f.7", 3)])
def test_unit_of(m, text, unit):
    # INCLUDE_PCI_ALL stands first, and is still asked last.
    for ways in (WAYS, WAYS[3:] + WAYS[:3]):
        raw = place(m, table(ways))
        assert check(m, raw) == 0
        e = m.dmar_unit_of(m.ffi.cast("struct dmar_table *", raw),
                           bus(m, TREE), bdf(text))
        assert e.base == BASE + 0x1000 * unit


def test_no_unit_of(m):
    raw = place(m, table(WAYS[:2]))
    assert check(m, raw) == 0
    t = m.ffi.cast("struct dmar_table *", raw)
    assert m.dmar_unit_of(t, bus(m, TREE), bdf("00:02.0")) == m.NULL


def test_bridges_that_point_at_each_other_end(m):
    loops = {bdf("00:01.0"): 2, bdf("02:00.0"): 3, bdf("03:00.0"): 2,
             bdf("04:00.0"): 4}
    raw = place(m, table([drhd(BASE, scope([(9, 0)], kind=2))]))
    assert check(m, raw) == 0
    t = m.ffi.cast("struct dmar_table *", raw)
    for text in ("02:01.0", "03:01.0", "04:01.0"):
        assert m.dmar_unit_of(t, bus(m, loops), bdf(text)) == m.NULL


def test_memory_of(m):
    igd, usb = scope([(2, 0)]), scope([(0x14, 0)])
    raw = place(m, table([drhd(BASE), rmrr(0x1000, 0x1fff, usb + igd),
                          rmrr(0x3000, 0x3fff, usb),
                          rmrr(0x5000, 0x5fff, igd),
                          rmrr(0x7000, 0x7fff, igd, segment=1)]))
    assert check(m, raw) == 0
    t = m.ffi.cast("struct dmar_table *", raw)
    found, e = [], m.NULL
    while e := m.dmar_rmrr_of(t, bus(m, {}), bdf("00:02.0"), e):
        found.append(e.base)
    assert found == [0x1000, 0x5000]


def test_ioapic(m):
    raw = place(m, table(WAYS))
    assert check(m, raw) == 0
    t = m.ffi.cast("struct dmar_table *", raw)
    source, unit = m.new("bdf_t *"), m.new("u64 *")
    assert m.dmar_ioapic_source(t, bus(m, {}), 9, source, unit) == 0
    assert (source[0], unit[0]) == (bdf("f0:1f.7"), BASE + 0x3000)
    assert m.dmar_ioapic_source(t, bus(m, {}), 8, source, unit) == -m.ENODEV


def test_units_that_firmware_has_switched_off(m):
    """They stand at 0. What they name is behind no other unit."""
    raw = place(m, table([drhd(0, scope([(2, 0)])), drhd(0, scope([(3, 0)])),
                          drhd(BASE, include_all=True)]))
    assert check(m, raw) == 0
    t = m.ffi.cast("struct dmar_table *", raw)
    tree = bus(m, {})
    assert [m.dmar_unit_of(t, tree, bdf(f"00:0{n}.0")).base
            for n in (2, 3, 4)] == [0, 0, BASE]
    m.dmar_log(t, tree)
    assert m.log_text().count("unit at 0x0, segment 0, switched off") == 2


@pytest.mark.parametrize("off", [
    drhd(0, include_all=True), drhd(0, scope([(2, 0)]), include_all=True)])
def test_units_for_all_of_which_one_is_switched_on(m, off):
    """It has all that no other names, whatever the others' order."""
    on = drhd(BASE, include_all=True)
    for entries in ([off, on], [on, off], [off, on, off]):
        raw = place(m, table(entries))
        assert check(m, raw) == 0, m.log_text()
        t = m.ffi.cast("struct dmar_table *", raw)
        assert m.dmar_unit_of(t, bus(m, {}), bdf("00:04.0")).base == BASE
    raw = place(m, table([off, off]))
    assert check(m, raw) == 0
    t = m.ffi.cast("struct dmar_table *", raw)
    assert m.dmar_unit_of(t, bus(m, {}), bdf("00:04.0")).base == 0


def test_a_bridge_that_is_called_an_endpoint(m):
    """What is behind it is behind its unit."""
    raw = place(m, table([drhd(BASE, scope([(0x1c, 0)])),
                          drhd(BASE + 0x1000, include_all=True)]))
    assert check(m, raw) == 0
    t = m.ffi.cast("struct dmar_table *", raw)
    assert [m.dmar_unit_of(t, bus(m, TREE), bdf(text)).base - BASE for text in (
        "00:1c.0", "02:00.0", "05:04.2", "00:1c.1", "09:00.0")] == [
            0, 0, 0, 0x1000, 0x1000]


def test_caches_of_translations(m):
    """SATC; one whose scopes cannot be is left out, and nothing refused."""
    good = 5, struct.pack("<BBH", 1, 0, 0) + scope([(2, 0)]) + scope([(5, 0)])
    bad = 5, struct.pack("<BBH", 1, 0, 0) + scope([(9, 0)])[:-1]
    raw = place(m, table([drhd(BASE), good, bad, (5, struct.pack("<BBH", 0, 0,
                                                                 2))]))
    assert check(m, raw) == 0
    m.dmar_log(m.ffi.cast("struct dmar_table *", raw), bus(m, {}))
    log = [t for _, t in m.log_lines()]
    at = log.index("DMAR: caches of translations (SATC), segment 0, required")
    assert log[at + 1:] == [
        "DMAR:   function 0: 00:02.0", "DMAR:   function 0: 00:05.0",
        "DMAR: caches of translations (SATC), segment 2"]


def test_log(m):
    raw = place(m, table([*WAYS, rmrr(0x1000, 0x2fff, scope([(2, 0)]))]))
    assert check(m, raw) == 0
    m.dmar_log(m.ffi.cast("struct dmar_table *", raw), bus(m, TREE))
    text = m.log_text()
    for words in ("unit at 0xfed90000, segment 0", "function 0: 05:04.2",
                  "bridge 0: 02:00.0", "IOAPIC 9: f0:1f.7",
                  "unit at 0xfed94000, segment 1",
                  "unit at 0xfed93000, segment 0, all that no other names",
                  "reserved memory at 0x1000", "up to 0x2fff"):
        assert words in text
