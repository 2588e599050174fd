# SPDX-License-Identifier: MIT
"""The guest's SMBIOS table, read as DSP0134 has it, from hosts with and without
UEFI, of both entry points, sound and not."""
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness

FAKES = """
#include <string.h>
#include "kernel/phys.h"
u8 memory[0x400000];
void *phys_to_virt(hpa_t hpa)
{
	return hpa < sizeof(memory) ? memory + hpa : NULL;
}
bool acpi_checksum_ok(const void *table, u32 length)
{
	u8 sum = 0;

	for (u32 i = 0; i < length; i++)
		sum = (u8)(sum + ((const u8 *)table)[i]);
	return !sum;
}
u8 sum_to_zero(const void *data, u64 size)
{
	u8 sum = 0;

	for (u64 i = 0; i < size; i++)
		sum = (u8)(sum - ((const u8 *)data)[i]);
	return sum;
}
"""
TABLE, SYSTEM_TABLE, CONFIG = 0x200000, 0x300000, 0x301000
AT, ROOM = 0xf1000, 0x1000
# UEFI 2.9, 4.6; in memory: little-endian fields, then bytes
GUID2 = bytes.fromhex("312d9deb 882dd311 9a160090273fc14d")
GUID3 = bytes.fromhex("4415fdf2 94972c4a 992ee5bbcf20e394")
SECRETS = [b"SN-1", b"SN-2", b"TAG-2", b"SN-3", b"TAG-3", b"SN-4", b"TAG-4",
           b"SN-17", b"TAG-17", b"SN-22", b"SN-39", b"TAG-39"]
UUID = bytes(range(0xa0, 0xb0))
SMART = b"\xb7\xe1"   # a smart battery's serial number


@pytest.fixture(scope="module")
def m():
    return harness.build("smbios", ["vmm/load/smbios.c"],
                         headers=["vmm/load/smbios.h", "kernel/log.h"],
                         fakes=FAKES, cdef="extern u8 memory[0x400000];")


def structure(type_, length, strings=(), fields=(), handle=None):
    """fields: [(offset, bytes)]; strings follow, then two zeros (6.1.3)."""
    raw = bytearray(length)
    raw[0:4] = struct.pack("<BBH", type_, length, handle or type_)
    for at, value in fields:
        raw[at:at + len(value)] = value
    return bytes(raw) + (b"".join(s + b"\0" for s in strings) or b"\0") + b"\0"


END = structure(127, 4)


def laptop():
    """As a vendor has it; a model's words and a machine's are mixed."""
    return [
        structure(0, 0x18, [b"BIOS vendor", b"1.23"], [(4, b"\x01\x02")]),
        structure(1, 0x1b, [b"Maker", b"Model 7", b"SN-1", b"Family"],
                  [(4, b"\1\2\0\3"), (8, UUID), (0x1a, b"\4")]),
        structure(2, 0x0f, [b"Maker", b"Board", b"SN-2", b"TAG-2"],
                  [(4, b"\1\2\0\3\4")]),
        structure(3, 0x15, [b"SN-3", b"Maker", b"TAG-3"],
                  [(4, b"\2\x0a\0\1\3")]),
        structure(4, 0x2a, [b"CPU 0", b"SN-4", b"TAG-4", b"Part"],
                  [(4, b"\1"), (0x20, b"\2\3\4")]),
        structure(17, 0x22, [b"Slot", b"SN-17", b"TAG-17", b"DDR part"],
                  [(0x10, b"\1"), (0x18, b"\2\3\4")]),
        structure(22, 0x1a, [b"Bay", b"Maker", b"SN-22"],
                  [(4, b"\1\2\0\3"), (0x10, SMART)]),
        structure(39, 0x16, [b"Rack", b"SN-39", b"TAG-39"],
                  [(5, b"\1"), (8, b"\2\3")]),
        structure(221, 8, [b"vendor's own"]),
        structure(42, 0x20, [], [(8, b"BMC's UUID")]),
        structure(32, 0x0b)]


def entry2(size, address, count, length=0x1f, version=(2, 8)):
    raw = bytearray(struct.pack(
        "<4sBBBBHB5s5sBHIHB", b"_SM_", 0, length, *version, 99, 0, bytes(5),
        b"_DMI_", 0, size, address, count, 0x28))
    raw[0x15] = -sum(raw[0x10:0x1f]) & 0xff
    raw[4] = -sum(raw[:length]) & 0xff
    return bytes(raw)


def entry3(size, address, version=(3, 2)):
    raw = bytearray(struct.pack("<5sBBBBBBBIQ", b"_SM3_", 0, 24, *version, 1,
                                1, 0, size, address))
    raw[5] = -sum(raw) & 0xff
    return bytes(raw)


class Host:
    def __init__(self, m, table, entries=None, efi=(), at=0xfe010):
        m.reset()
        self.m, self.boot = m, m.new("struct boot_info *")
        self.memory = memoryview(m.ffi.buffer(m.memory)).cast("B")
        self.memory[:] = bytes(len(self.memory))
        self.put(TABLE, table)
        if entries is None:
            entries = [entry2(len(table), TABLE, 0xffff)]
        for n, entry in enumerate(entries):
            self.put(at + 64 * n, entry)
        if efi:
            self.boot.efi = SYSTEM_TABLE
            self.put(SYSTEM_TABLE, b"IBI SYST")
            self.put(SYSTEM_TABLE + 104, struct.pack("<QQ", len(efi), CONFIG))
        for n, (guid, entry) in enumerate(efi):
            to = 0x310000 + 64 * n
            self.put(to, entry)
            self.put(CONFIG + 24 * n, guid + struct.pack("<Q", to))

    def put(self, at, data):
        self.memory[at:at + len(data)] = data

    def guest(self, serials=False, room=ROOM):
        """([(type, formatted area, strings)], (major, minor)), or None."""
        area = self.m.new(f"u8[{room}]", b"\xff" * room)
        self.m.smbios_copy(self.boot, AT, area, room, serials)
        self.raw = raw = bytes(self.m.ffi.buffer(area))
        if raw == b"\xff" * room:
            return None
        assert raw[:5] == b"_SM3_" and raw[6] == 24 and raw[10] == 1
        assert sum(raw[:24]) % 256 == 0
        size, address = struct.unpack_from("<IQ", raw, 12)
        assert address == AT + 24 and 24 + size <= room
        assert set(raw[24 + size:]) <= {0xff}
        return list(parse(raw[24:24 + size])), (raw[7], raw[8])


def parse(raw):
    while raw:
        type_, length = raw[0], raw[1]
        assert length >= 4
        end = raw.index(b"\0\0", length)
        strings = raw[length:end].split(b"\0") if end > length else []
        yield type_, raw[:length], strings
        raw = raw[end + 2:]
        if type_ == 127:
            assert not raw


def read(structures):
    return list(parse(b"".join(structures)))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("uefi", [False, True])
def test_all_of_it_where_it_is_asked_for(m, version, uefi):
    parts = [*laptop(), END]
    table = b"".join(parts)
    entry = entry2(len(table), TABLE, len(parts)) if version == 2 else \
        entry3(len(table) + 100, TABLE)
    host = Host(m, table, *([[], [(GUID2 if version == 2 else GUID3, entry)]]
                            if uefi else [[entry]]))
    got, told = host.guest(serials=True)
    assert got[:-1] == read(parts)[:-1] and got[-1][0] == 127
    assert told == ((2, 8) if version == 2 else (3, 2))
    assert m.log_text() == ""


def test_the_longer_way_first(m):
    """UEFI's before what may be old in the BIOS area, 3.0's before 2.1's."""
    def named(name):
        return structure(1, 0x1b, [name], [(4, b"\1")]) + END
    tables = {n: named(n) for n in (b"bios", b"two", b"three")}
    host = Host(m, tables[b"bios"], efi=[
        (bytes(16), b"x"), (GUID2, entry2(0x40, TABLE + 0x1000, 2)),
        (GUID3, entry3(0x40, TABLE + 0x2000))])
    host.put(TABLE + 0x1000, tables[b"two"])
    host.put(TABLE + 0x2000, tables[b"three"])
    assert host.guest()[0][0][2] == [b"three"]
    host.put(0x310000 + 128, b"_SM4_")          # broken: the next
    assert host.guest()[0][0][2] == [b"two"]
    host.boot.efi = 0
    assert host.guest()[0][0][2] == [b"bios"]


def test_nothing_that_is_one_machines(m):
    """Each string keeps its number, and is blanks: Linux calls them empty."""
    parts = laptop()
    host = Host(m, b"".join([*parts, END]))
    got, _ = host.guest()
    assert not any(s in host.raw for s in [*SECRETS, UUID, b"vendor's own",
                                            b"BMC's UUID"])
    whole = [s for s in read(parts) if s[0] not in (42, 221)]
    assert [s[0] for s in got] == [s[0] for s in whole] + [127]
    for ours, theirs in zip(got, whole):
        area = theirs[1]
        if ours[0] == 1:
            area = area[:8] + bytes(16) + area[24:]
        if ours[0] == 22:
            area = area[:0x10] + bytes(2) + area[0x12:]
        assert ours[1] == area
        assert ours[2] == [b" " * len(s) if s in SECRETS else s
                           for s in theirs[2]]


def test_strings_that_are_not_there(m):
    """0 is none; a number too high is none either; old ones end before it."""
    parts = [structure(1, 0x1b, [b"a"], [(7, b"\0")], 1),
             structure(1, 0x1b, [b"a"], [(7, b"\7")], 2),
             structure(1, 0x1b, [], [(7, b"\1")], 3),
             structure(1, 0x08, [b"a", b"b"], [(7, b"\2")], 4),
             structure(2, 0x08, [b"a", b"b"], [(7, b"\1")], 5),
             structure(1, 0x07, [b"a"], [], 6)]
    got, _ = Host(m, b"".join([*parts, END])).guest()
    assert [s[2] for s in got[:-1]] == [
        [b"a"], [b"a"], [], [b"a", b" "], [b" ", b"b"], [b"a"]]
    assert m.log_text() == ""


@pytest.mark.parametrize("tail, warned", [
    (END, False), (END + b"\xff" * 50, False), (b"", False),
    (b"\1\3\0\0\0\0", True), (b"\1\x1b\0\0", True),
    (structure(1, 0x1b, [b"no end"])[:-1], True), (b"\1", True)])
def test_it_ends_where_it_has_to(m, tail, warned):
    parts = laptop()[:3]
    host = Host(m, b"".join(parts) + tail)
    # What lies behind the table is not of it.
    host.put(TABLE + len(b"".join(parts) + tail), bytes(8))
    got, _ = host.guest(serials=True)
    assert got[:-1] == read(parts)
    assert [level for level, _ in m.log_lines()] == [m.LOG_WARN] * warned


def test_what_does_not_fit(m):
    parts = [structure(11, 5, [b"x" * 200], handle=n) for n in range(100)]
    got, _ = Host(m, b"".join(parts)).guest()
    assert got[:-1] == read(parts)[:len(got) - 1] and 15 < len(got) < 21
    assert m.log_text().count("smbios:") == 1
    for room in range(32, 300):
        assert len(Host(m, parts[0]).guest(room=room)[0]) <= 2


BAD = {
    "checksum": lambda e: e[:9] + bytes((e[9] ^ 1,)) + e[10:],
    "anchor": lambda e: b"_XM" + e[3:],
}


@pytest.mark.parametrize("entry", [
    *(bad(e) for bad in BAD.values()
      for e in (entry2(64, TABLE, 2), entry3(64, TABLE))),
    entry2(64, 0, 2), entry3(64, 0), entry3(64, 1 << 32),
    entry3(0x1000, (1 << 32) - 16), entry3(64, 2**64 - 1),
    entry2(64, TABLE, 2, length=0x10)])
def test_entry_points_that_are_none(m, entry):
    """No table, and no word: a machine need not have one."""
    assert Host(m, END, [entry]).guest() is None
    assert Host(m, END, [], [(GUID2, entry), (GUID3, entry)]).guest() is None
    # On 16 bytes (5.2.1); and one that is sound is found behind it.
    assert Host(m, END, [entry2(6, TABLE, 1)], at=0xfe018).guest() is None
    assert Host(m, END, [entry, entry2(6, TABLE, 1)]).guest()


@pytest.mark.parametrize("at, value", [
    (0, b"IBI SYSX"), (104, b"\0"), (112, bytes(8)), (112, b"\xff" * 8),
    (112, b"\0\0\0\0\1"), (112, struct.pack("<Q", CONFIG + 1))])
def test_system_tables_that_are_none(m, at, value):
    host = Host(m, END, [], [(GUID2, entry2(6, TABLE, 1))])
    assert host.guest()
    host.put(SYSTEM_TABLE + at, value)
    assert host.guest() is None
    host.put(SYSTEM_TABLE + 104, b"\xff" * 8)   # as many as can be


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(
    st.binary(max_size=40),
    st.builds(structure, st.integers(0, 255), st.integers(4, 60),
              st.lists(st.binary(min_size=1, max_size=9).map(
                  lambda s: s.replace(b"\0", b"x")), max_size=5),
              st.lists(st.tuples(st.integers(4, 40), st.binary(
                  min_size=1, max_size=1)), max_size=4).map(
                      lambda f: [x for x in f if x[0] < 4])))),
    st.booleans(), st.integers(32, 400))
def test_any_table_is_safe(m, parts, serials, room):
    """ASan looks on; what comes out is sound."""
    host = Host(m, b"".join(parts)[:0xffff])
    found = host.guest(serials, room)
    assert found and found[0][-1][0] == 127
