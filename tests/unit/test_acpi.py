# SPDX-License-Identifier: MIT
"""ACPI tables: sound ones, odd ones, and every way to be broken.

Memory is one array that ends where the direct map does: a byte read behind a
table at its end is ASan's to report.
"""

import shutil
import struct
import subprocess

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import harness
import ramfakes

SIZE = 64 * 1024


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "acpi", ["kernel/acpi.c"], headers=[
            "kernel/acpi.h", "kernel/phys.h", "kernel/log.h"],
        fakes=ramfakes.FAKES, cdef=ramfakes.CDEF)


def checksummed(data, at, length=None):
    data = bytearray(data)
    data[at] = 0
    data[at] = -sum(data[:length]) & 255
    return bytes(data)


def table(signature, body=b"", length=None, oem=b"BOCHS ", revision=1):
    return checksummed(struct.pack(
        "<4sIBB6s8sIII", signature, 36 + len(body) if length is None else
        length, revision, 0, oem, b"BXPC    ", 1, 0, 0) + body, 9)


def rsdp(rsdt=0, xsdt=0, revision=2, length=36):
    data = checksummed(struct.pack("<8sB6sBI", b"RSD PTR ", 0, b"BOCHS ",
                                   revision, rsdt), 8)
    if revision < 2:
        return data
    data += struct.pack("<IQB3x", length, xsdt, 0)
    return checksummed(data + bytes(max(0, length - 36)), 32, length)


def fadt(dsdt=0, x_dsdt=0, size=276, **fields):
    body = bytearray(max(size, 276) - 36)

    def put(at, fmt, *values):
        struct.pack_into("<" + fmt, body, at - 36, *values)
    put(40, "I", dsdt)
    put(64, "II", fields.get("pm1a", 0xb004), fields.get("pm1b", 0))
    put(76, "I", fields.get("pm_timer", 0))
    put(91, "B", fields.get("pm_timer_length", 4))
    put(112, "I", fields.get("flags", 0))
    put(140, "Q", x_dsdt)
    put(172, "BBBBQ", *fields.get("x_pm1a", (0, 0, 0, 0, 0)))
    put(184, "BBBBQ", *fields.get("x_pm1b", (0, 0, 0, 0, 0)))
    put(208, "BBBBQ", *fields.get("x_pm_timer", (0, 0, 0, 0, 0)))
    return table(b"FACP", bytes(body[:size - 36]))


class Memory:
    """Tables in memory; init() hands them to acpi.c."""

    def __init__(self, m, size=SIZE, fill=0xcc):
        self.m, self.size, self.data = m, size, bytearray([fill]) * size
        self.next, self.where = 0x1000, {}

    def put(self, data, at=None):
        if at is None:
            at, self.next = self.next, self.next + len(data) + 7
        self.data[at:at + len(data)] = data
        assert len(self.data) == self.size
        return at

    def root(self, *tables, wide=True):
        """An RSDP at 0x800 whose root names the tables, given or placed."""
        at = [t if isinstance(t, int) else self.put(t) for t in tables]
        fmt = f"<{len(at)}{'Q' if wide else 'I'}"
        root = self.put(table(b"XSDT" if wide else b"RSDT",
                              struct.pack(fmt, *at)))
        return self.put(rsdp(xsdt=root) if wide else
                        rsdp(rsdt=root, revision=0), 0x800), at

    def load(self):
        self.ram = self.m.new("u8[]", self.size)
        self.m.ffi.memmove(self.ram, bytes(self.data), self.size)
        self.m.lib.ram, self.m.lib.ram_size = self.ram, self.size

    def init(self, where=0x800, limit=False):
        self.load()
        self.acpi = self.m.new("struct acpi_tables *")
        call = self.m.acpi_init if limit else self.m.acpi_init_below
        self.status = call(self.acpi, where, *([] if limit else [self.size]))
        return self.status

    def found(self):
        """[(signature, address)]"""
        assert bytes(self.m.ffi.buffer(self.ram)) == self.data, \
            "tables are never written"
        return [(self.m.ffi.buffer(h.signature)[:],
                 self.m.virt_to_phys(h))
                for h in self.acpi.tables[0:self.acpi.count]]


S5 = b"\x08_S5_\x12\x06\x04\x0a\x05\x0a\x07\x00"     # Name, 4 elements


def machine(m, **more):
    """A whole sound machine; the DSDT is found by the FADT alone."""
    mem = Memory(m, **more)
    dsdt = mem.put(table(b"DSDT", b"\x10\x20" + S5))
    where, at = mem.root(fadt(dsdt, dsdt), table(b"APIC", bytes(8)),
                         table(b"SSDT", b"one"), table(b"SSDT", b"two"))
    return mem, dsdt, at


# --- Finding and listing -------------------------------------------------

def test_a_sound_machine(m):
    mem, dsdt, at = machine(m)
    assert mem.init() == 0
    assert mem.found() == [(b"FACP", at[0]), (b"DSDT", dsdt),
                           (b"APIC", at[1]), (b"SSDT", at[2]),
                           (b"SSDT", at[3])]
    lines = m.log_text().splitlines()
    assert len(lines) == 6, "a line for each, with the XSDT"
    for signature, where in mem.found():
        line = next(x for x in lines if f"{where:010x}" in x)
        size = struct.unpack_from("<I", mem.data, where + 4)[0]
        assert signature.decode() in line and f" {size} bytes" in line
        assert "BOCHS" in line and "BXPC" in line
    ssdt = [m.acpi_find(mem.acpi, b"SSDT", n) for n in range(3)]
    assert [m.virt_to_phys(h) for h in ssdt[:2]] == at[2:]
    assert ssdt[2] == m.NULL and m.acpi_find(mem.acpi, b"DMAR", 0) == m.NULL


def test_rsdt_of_an_old_machine(m):
    mem = Memory(m)
    _, at = mem.root(table(b"APIC"), table(b"MCFG"), wide=False)
    assert mem.init() == 0
    assert mem.found() == [(b"APIC", at[0]), (b"MCFG", at[1])]


@pytest.mark.parametrize("spoil", ["checksum", "length", "absent", "copy20",
                                   "signature", "zero"])
def test_a_bad_xsdt_leaves_the_rsdt(m, spoil):
    mem = Memory(m)
    apic = mem.put(table(b"APIC"))
    rsdt = mem.put(table(b"RSDT", struct.pack("<I", apic)))
    xsdt = mem.put(table(b"XSDX" if spoil == "signature" else b"XSDT",
                         struct.pack("<Q", apic)))
    root = rsdp(rsdt, {"absent": mem.size, "zero": 0}.get(spoil, xsdt))
    if spoil == "copy20":
        # The loader's copy ends early, and with it the memory.
        mem.size = len(mem.data) - (len(mem.data) - 0x2000)
        mem.data = mem.data[:mem.size]
        where = mem.put(root[:20], mem.size - 20)
    else:
        where = mem.put(root, 0x800)
    if spoil == "checksum":
        mem.data[xsdt + 40] ^= 1
    if spoil == "length":
        struct.pack_into("<I", mem.data, xsdt + 4, 35)
    assert mem.init(where) == 0
    assert mem.found() == [(b"APIC", apic)]


def test_root_entries_that_name_nothing(m):
    """Zeros, repeats, and a last entry that is cut off."""
    mem = Memory(m)
    apic = mem.put(table(b"APIC"))
    root = mem.put(table(b"XSDT", struct.pack("<QQQ", 0, apic, apic) +
                         b"\x00\x10\x00"))
    mem.put(rsdp(xsdt=root), 0x800)
    assert mem.init() == 0
    assert mem.found() == [(b"APIC", apic)]
    assert m.LOG_WARN not in {level for level, _ in m.log_lines()}


def test_a_table_is_not_endless(m):
    for excess in 0, 1:
        mem = Memory(m, 5 << 20)
        mem.root(table(b"SSDT", bytes(m.ACPI_TABLE_MAX - 36 + excess)))
        assert mem.init() == 0
        assert mem.acpi.count == (not excess)


def test_more_tables_than_the_list_holds(m):
    mem = Memory(m)
    _, at = mem.root(*(table(b"SSDT", bytes([n])) for n in range(70)))
    assert mem.init() == 0
    assert mem.found() == [(b"SSDT", a) for a in at[:m.ACPI_TABLES_MAX]]
    assert f"{at[-1]:x}" in m.log_lines()[-1][1]


def test_unprintable_names_are_harmless_in_the_log(m):
    mem = Memory(m)
    mem.root(table(b"%s\n\0", oem=b"\x1b[2J\xff%"))
    assert mem.init() == 0
    assert all(32 <= ord(c) < 127 for c in m.log_text().replace("\n", ""))
    assert "%s.." in m.log_text() and ".[2J.%" in m.log_text()


@pytest.mark.parametrize("ebda", [0x9fc00, 0x9fff0])
def test_search_in_the_ebda(m, ebda):
    mem = machine(m, size=0x100000)[0]
    root = struct.unpack_from("<Q", mem.data, 0x800 + 24)[0]
    struct.pack_into("<H", mem.data, 0x40e, ebda >> 4)
    mem.data[0xe0000:] = bytes(0x20000)
    where = mem.put(rsdp(xsdt=root, length=36), 0x9fff0 - 0x10 - 0x10)
    mem.data[0x800:0x808] = bytes(8)
    status = mem.init(0)
    # Its first KiB is searched, so what lies before it is not found.
    assert status == (0 if ebda <= where < ebda + 1024 else -m.ENOENT)
    assert status or len(mem.found()) == 5


@pytest.mark.parametrize("where, status", [
    (0xe0000, 0), (0xfffd0, 0), (0xf0010, 0), (0xf0008, None), (0xdfff0, None)])
@pytest.mark.parametrize("segment", [0, 0xffff, 0x40, 0x9fc0])
def test_search_in_the_bios(m, where, status, segment):
    mem = machine(m, size=0x100000)[0]
    root = struct.unpack_from("<Q", mem.data, 0x800 + 24)[0]
    struct.pack_into("<H", mem.data, 0x40e, segment)
    mem.put(b"RSD PTR " + bytes(28), 0xe0000)      # a decoy
    mem.put(rsdp(xsdt=root), where)
    mem.data[0x800:0x808] = bytes(8)
    assert mem.init(0) == (-m.ENOENT if status is None else status)


def test_acpi_init_reaches_four_gigabytes(m):
    mem, _, at = machine(m)
    mem.init(limit=True)
    assert mem.status == 0 and len(mem.found()) == 5
    high = mem.put(table(b"XSDT", struct.pack("<QQ", 2**32, 2**64 - 8)))
    mem.put(rsdp(xsdt=high), 0x800)
    m.reset()
    assert mem.init(limit=True) == 0
    assert mem.acpi.count == 0 and m.log_text().count("out of reach") == 2


@pytest.mark.parametrize("where", [1, 2**64 - 1, 2**40, SIZE, SIZE - 19])
def test_an_rsdp_elsewhere(m, where):
    mem = machine(m)[0]
    assert mem.init(where) == -m.ENOENT
    assert m.log_lines() == [(m.LOG_ERROR, "acpi: no valid RSDP found")]


def test_no_root_at_all(m):
    mem = Memory(m)
    mem.put(rsdp(), 0x800)
    assert mem.init() == -m.ENOENT
    assert [level for level, _ in m.log_lines()] == [m.LOG_ERROR]
    assert mem.acpi.count == 0


# --- Broken tables -------------------------------------------------------

@pytest.mark.parametrize("length, said", [
    (0, "length"), (35, "length"), (2**32 - 1, "length"), (SIZE, "length"),
    (37, "checksum")])
def test_lengths_that_lie(m, length, said):
    mem = Memory(m)
    _, at = mem.root(table(b"APIC", length=length, oem=b"ONE   "),
                     table(b"MCFG"))
    assert mem.init() == 0
    assert mem.found() == [(b"MCFG", at[1])]
    warning, = (t for level, t in m.log_lines() if level == m.LOG_WARN)
    assert "APIC" in warning and f"{at[0]:x}" in warning and said in warning


def test_a_table_ends_with_the_memory(m):
    mem = Memory(m)
    inside, outside = table(b"APIC", b"x"), table(b"MCFG", b"xyz")
    mem.root(mem.put(inside, SIZE - len(inside)), 0x3000, SIZE - 35, SIZE - 1,
             SIZE, SIZE + 4096)
    mem.put(outside, 0x3000)
    assert mem.init() == 0
    assert mem.found() == [(b"APIC", SIZE - len(inside)), (b"MCFG", 0x3000)]
    mem.size -= 1
    mem.data = mem.data[:-1]
    assert mem.init() == 0
    assert mem.found() == [(b"MCFG", 0x3000)]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_one_wrong_byte_costs_one_table(m, data):
    m.reset()
    mem, dsdt, at = machine(m)
    mem.init()
    sound = mem.found()
    victim = data.draw(st.sampled_from(sound))
    size = struct.unpack_from("<I", mem.data, victim[1] + 4)[0]
    place = victim[1] + data.draw(st.integers(0, size - 1))
    mem.data[place] ^= data.draw(st.integers(1, 255))
    size = struct.unpack_from("<I", mem.data, victim[1] + 4)[0]
    # A wrong length may by chance hold bytes that add up.
    assume(sum(mem.data[victim[1]:victim[1] + size]) % 256)
    m.reset()
    assert mem.init() == 0
    gone = {victim, (b"DSDT", dsdt)} if victim[0] == b"FACP" else {victim}
    assert mem.found() == [t for t in sound if t not in gone]
    assert len([1 for level, _ in m.log_lines() if level == m.LOG_WARN]) == 1


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 35), st.integers(1, 255))
def test_one_wrong_byte_in_the_rsdp(m, at, flip):
    """Both checksums hold the first 20 bytes; then the RSDT is not known."""
    m.reset()
    mem = machine(m)[0]
    mem.data[0x800 + at] ^= flip
    assert mem.init() == -m.ENOENT
    assert mem.acpi.count == 0


def everything(m, acpi):
    """Every reader over whatever tables there are."""
    power = m.new("struct acpi_power *")
    madt = m.new("struct acpi_madt *")
    mcfg = m.new("struct acpi_mcfg *")
    typ = m.new("u8[2]")
    m.acpi_power_init(power, acpi)
    m.acpi_madt_init(madt, acpi)
    m.acpi_mcfg_init(mcfg, acpi)
    m.acpi_uart(acpi)
    m.acpi_find_s5(acpi, typ, typ + 1)
    assert m.acpi_lpit(acpi) <= 0xff
    assert madt.cpu_count <= m.ACPI_CPUS_MAX
    assert madt.ioapic_count <= m.ACPI_IOAPICS_MAX
    assert madt.override_count <= m.ACPI_OVERRIDES_MAX
    assert power.slp_typ_a < 8 and power.slp_typ_b < 8
    return power, madt, mcfg


BODY = st.binary(max_size=80) | st.lists(st.sampled_from(
    [b"\x08_S5_", b"\x08\\_S5_", b"\x12", b"\x06", b"\x40", b"\xc0", b"\x0a",
     b"\x0b", b"\x00", b"\x01", b"\x08", b"\x0c", b"\xff", b"\x09\x10",
     b"\x02\x0a"]), max_size=24).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(
    [b"FACP", b"APIC", b"LPIT", b"MCFG", b"SSDT", b"DSDT"]), BODY), max_size=5),
    st.binary(max_size=400))
def test_any_content_at_the_end_of_memory(m, tables, fadt_body):
    m.reset()
    at = SIZE
    mem = Memory(m)
    places = []
    for signature, body in [*tables, (b"FACP", fadt_body)]:
        data = table(signature, body)
        at -= len(data)
        places.append(mem.put(data, at))
    mem.root(*places)
    assert mem.init() == 0
    everything(m, mem.acpi)


# --- Power ---------------------------------------------------------------

def power_of(m, fadt_table, *more):
    mem = Memory(m)
    mem.root(fadt_table, *more)
    assert mem.init() == 0
    return everything(m, mem.acpi)[0]


def test_power(m):
    p = power_of(m, fadt(pm1b=0xb104), table(b"SSDT", b"noise" + S5))
    assert (p.pm1a_cnt, p.pm1b_cnt) == (0xb004, 0xb104)
    assert p.has_s5 and (p.slp_typ_a, p.slp_typ_b) == (5, 7)


def test_the_extended_fields_win(m):
    p = power_of(m, fadt(x_pm1a=(1, 16, 0, 2, 0x1804),
                         x_pm1b=(0, 16, 0, 2, 0xfed00000), pm1b=0x604))
    assert (p.pm1a_cnt, p.pm1b_cnt) == (0x1804, 0x604)
    p = power_of(m, fadt(x_pm1a=(1, 16, 0, 2, 0x12345), pm1b=0x10604))
    assert (p.pm1a_cnt, p.pm1b_cnt) == (0xb004, 0)


@pytest.mark.parametrize("port, bits, fields", [
    (0x1808, 24, {}), (0x1808, 32, {"flags": 1 << 8}),
    (0x1808, 24, {"flags": ~(1 << 8) & 0xffffffff}),
    (0x408, 24, {"pm_timer": 0x408}),
    (0xb008, 24, {"x_pm_timer": (1, 32, 0, 3, 0xb008)}),
    (0x1808, 24, {"x_pm_timer": (0, 32, 0, 3, 0xfed00000)}),
    (0x1808, 24, {"size": 116}),
    # No four ports, or not where a double word is; or what each PC has there.
    (0x1808, 0, {"pm_timer_length": 0}), (0x1808, 0, {"pm_timer_length": 3}),
    (0x180a, 0, {"pm_timer": 0x180a}), (0xe4, 0, {"pm_timer": 0xe4}),
    (0x1809, 0, {"x_pm_timer": (1, 32, 0, 3, 0x1809)}),
    (0, 0, {"pm_timer": 0}), (0, 0, {"pm_timer": 0x11808})])
def test_pm_timer(m, port, bits, fields):
    p = power_of(m, fadt(**{"pm_timer": 0x1808, **fields}))
    assert (p.pm_timer, p.pm_timer_bits) == (port, bits)


def test_an_acpi_1_fadt_ends_early(m):
    p = power_of(m, fadt(size=116, x_pm1a=(1, 16, 0, 2, 0x1804)))
    assert p.pm1a_cnt == 0xb004


def test_no_fadt(m):
    mem = Memory(m)
    mem.root(table(b"APIC", bytes(8)))
    mem.init()
    assert m.acpi_power_init(m.new("struct acpi_power *"), mem.acpi) == \
        -m.ENOENT


@pytest.mark.parametrize("size", [40, 44, 140, 144, 148])
def test_the_dsdt_of_a_short_fadt(m, size):
    mem = Memory(m)
    old, new = (mem.put(table(b"DSDT", x)) for x in (b"old", b"newer"))
    mem.root(fadt(old, new, size=size))
    assert mem.init() == 0
    found = [a for s, a in mem.found() if s == b"DSDT"]
    assert found == ([] if size < 44 else [new if size >= 148 else old])


def s5_of(m, aml):
    mem = Memory(m)
    mem.root(table(b"SSDT", aml))
    mem.init()
    a, b = m.new("u8[1]", [99]), m.new("u8[1]", [99])
    status = m.acpi_find_s5(mem.acpi, a, b)
    if status:
        assert (status, a[0], b[0]) == (-m.ENOENT, 99, 99)
        return None
    return a[0], b[0]


@pytest.mark.parametrize("aml, expected", [
    (b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00", (0, 0)),
    (b"\x08\\_S5_\x12\x05\x04\x01\x0a\x05\x00", (1, 5)),
    (b"\x08_S5_\x12\x07\x02\x0b\x03\x00\x0a\x07", (3, 7)),
    (b"\x08_S5_\x12\x09\x02\x0c\x02\x00\x00\x00\x0a\x01", (2, 1)),
    (b"\x08_S5_\x12\x46\x00\x02\x0a\x05\x01", (5, 1)),  # long PkgLength
    (b"\x08_S5_" + S5, (5, 7)),             # the first is no package
    (b"x_S5_\x12\x06\x04\x0a\x05\x0a\x07\x00", None),   # no NameOp
    (b"\x08_S5_\x12\x06\x04\x0a\x08\x00", None),        # more than 3 bits
    (b"\x08_S5_\x12\x06\x04\x0b\x05\x01\x00", None),
    (b"\x08_S5_\x12\x06\x04\xff\x00\x00", None),        # Ones
    (b"\x08_S5_\x12\x04\x01\x0a\x05\x00", None),        # one element
    (b"\x08_S5_\x12\x04\x02\x0a\x05\x0a\x07", None),    # cut by PkgLength
    (b"\x08_S5_\x12\x07\x02\x0a\x05\x0a\x07", None),    # over the table
    (b"\x08_S5_\x12\x7f\x02\x0a\x05\x0a\x07", None),
    (b"\x08_S5_\x12\x00\x02\x0a\x05\x0a\x07", None),    # shorter than itself
    (b"\x08_S5_\x11\x06\x04\x00\x00\x00\x00", None),    # a buffer
    (b"", None), (b"_S5_", None), (b"\x08_S5", None), (b"\x08_S5_", None)])
def test_s5(m, aml, expected):
    assert s5_of(m, aml) == expected


def test_s5_cut_short_anywhere(m):
    whole = b"\x08_S5_\x12\x06\x02\x0a\x05\x0a\x07"
    assert s5_of(m, whole) == (5, 7)
    for n in range(len(whole)):
        assert s5_of(m, whole[:n]) is None


@pytest.mark.skipif(not shutil.which("iasl"), reason="no iasl")
@pytest.mark.parametrize("package, expected", [
    ("Package () { 5, 5, 0, 0 }", (5, 5)),
    ("Package (4) { Zero, One, Zero, Zero }", (0, 1)),
    ("Package (2) { 7, 6 }", (7, 6)),
    ("Package (70) { 7, 4 }", (7, 4)),
    ("Package () { 3, 2" + ", 0x12345678" * 20 + " }", (3, 2)),
    ("Package () { 8, 5 }", None)])
def test_s5_as_iasl_compiles_it(m, tmp_path, package, expected):
    (tmp_path / "t.asl").write_text(f"""
        DefinitionBlock ("", "DSDT", 2, "X", "Y", 1) {{
            Name (_S4_, Package () {{ 1, 2 }})
            Device (\\_SB.PCI0) {{ Name (_UID, "_S5_") }}
            Name (\\_S5_, {package})
        }}""")
    subprocess.run(["iasl", "-p", "t", "t.asl"], cwd=tmp_path, check=True,
                   capture_output=True)
    assert s5_of(m, (tmp_path / "t.aml").read_bytes()[36:]) == expected


# --- MADT ----------------------------------------------------------------

def madt_of(m, *entries, lapic=0xfee00000, flags=1):
    mem = Memory(m)
    mem.root(table(b"APIC", struct.pack("<II", lapic, flags) +
                   b"".join(entries)))
    assert mem.init() == 0
    return everything(m, mem.acpi)[1]


def lapic(apic_id, flags=1):
    """Its processor's UID, which firmware counts as it likes, is no ID."""
    return struct.pack("<BBBBI", 0, 8, apic_id ^ 0x55, apic_id, flags)


def x2apic(apic_id, flags=1):
    return struct.pack("<BBHIII", 9, 16, 0, apic_id, flags, 0)


def ioapic(n):
    return struct.pack("<BBBBII", 1, 12, n, 0, 0xfec00000 + n * 4096, n * 24)


def override(irq, gsi, flags):
    return struct.pack("<BBBBIH", 2, 10, 0, irq, gsi, flags)


def test_madt(m):
    madt = madt_of(
        m, lapic(0), lapic(2), lapic(1, 0), lapic(3, 2), lapic(255),
        b"\x04\x06\xff\x00\x00\x01", ioapic(2), ioapic(3), override(0, 2, 0),
        override(9, 9, 0xd), b"\x7f\x02", x2apic(2), x2apic(0x300),
        x2apic(0x301, 0))
    assert list(madt.cpus[0:madt.cpu_count]) == [0, 2, 0x300]
    assert [(i.id, i.address, i.gsi_base) for i in
            madt.ioapics[0:madt.ioapic_count]] == [
        (2, 0xfec02000, 48), (3, 0xfec03000, 72)]
    assert [(o.irq, o.gsi, o.flags) for o in
            madt.overrides[0:madt.override_count]] == [(0, 2, 0), (9, 9, 13)]
    assert (madt.lapic, madt.has_8259, madt.lost) == (0xfee00000, True, 0)


def test_the_lapic_address_in_64_bits(m):
    madt = madt_of(m, struct.pack("<BBHQ", 5, 12, 0, 0x12_3450_0000), flags=0)
    assert madt.lapic == 0x12_3450_0000 and not madt.has_8259


@pytest.mark.parametrize("bad", [
    b"\x00\x00", b"\x00\x01", b"\x00\x07" + bytes(6), b"\x09\x08" + bytes(6),
    b"\x01\x0b" + bytes(10), b"\x02\x08" + bytes(6), b"\x05\x0a" + bytes(8),
    b"\x33\x01", b"\x00\xff", b"\x09\x10" + bytes(2)])
def test_an_entry_of_a_wrong_length_ends_the_walk(m, bad):
    before = madt_of(m, lapic(5), bad)
    assert list(before.cpus[0:before.cpu_count]) == [5]
    assert "wrong length" in m.log_lines()[-1][1]
    after = madt_of(m, lapic(5), bad, lapic(6), lapic(7))
    assert after.cpus[0] == 5 and \
        7 not in list(after.cpus[0:after.cpu_count])


def test_a_last_byte_is_no_entry(m):
    madt = madt_of(m, lapic(5), b"\x00")
    assert madt.cpu_count == 1 and "wrong" not in m.log_text()


def test_more_entries_than_fit(m):
    madt = madt_of(m, *(x2apic(n) for n in range(m.ACPI_CPUS_MAX + 2)),
                   *(ioapic(n) for n in range(m.ACPI_IOAPICS_MAX + 3)),
                   *(override(n, n, 0)
                     for n in range(m.ACPI_OVERRIDES_MAX + 4)))
    assert madt.lost == 2 + 3 + 4
    assert madt.cpus[m.ACPI_CPUS_MAX - 1] == m.ACPI_CPUS_MAX - 1
    assert m.log_lines()[-1] == (m.LOG_WARN,
                                 "acpi: 9 APIC entries are too many")


# --- MCFG ----------------------------------------------------------------

def mcfg_of(m, *entries, tail=b""):
    mem = Memory(m)
    mem.root(table(b"MCFG", bytes(8) + b"".join(
        struct.pack("<QHBBI", *e, 0) for e in entries) + tail))
    assert mem.init() == 0
    mcfg = m.new("struct acpi_mcfg *")
    status = m.acpi_mcfg_init(mcfg, mem.acpi)
    assert status in (0, -m.ENOENT)
    return None if status else (mcfg.base, mcfg.last_bus)


def test_mcfg(m):
    assert mcfg_of(m, (0xb000_0000, 0, 0, 255)) == (0xb000_0000, 255)
    assert mcfg_of(m, (0xc000_0000, 1, 0, 255), (0xd000_0000, 0, 64, 127),
                   (0xe000_0000, 0, 0, 63)) == (0xe000_0000, 63)
    assert mcfg_of(m) is None
    assert mcfg_of(m, (0, 0, 0, 255)) is None
    assert mcfg_of(m, (0xb000_1000, 0, 0, 255)) is None
    cut = struct.pack("<QHBBI", 0xb000_0000, 0, 0, 255, 0)[:-1]
    assert mcfg_of(m, tail=cut) is None


# --- SPCR, DBG2 ----------------------------------------------------------

def gas(address, space=0, width=32, access=3):
    return struct.pack("<BBBBQ", space, width, 0, access, address)


def spcr(kind, where):
    return table(b"SPCR", struct.pack("<B3x", kind) + where + bytes(28),
                 revision=2)


def port(kind, where, ports=1, family=0x8000, length=None):
    """A debug device: its name stands behind its registers."""
    name = b"\\_SB.UA00\0"
    size = 22 + len(where) + 4 + len(name)
    return struct.pack("<BHBHHHHHHxxHH", 0, size if length is None else
                       length, ports, len(name), size - len(name), 0, 0,
                       family, kind, 22, 22 + len(where)) + where + \
        struct.pack("<I", 0x1000) + name


def dbg2(*devices, count=None, offset=44):
    return table(b"DBG2", struct.pack("<II", offset, len(devices) if count is
                                      None else count) + b"".join(devices))


def uart_of(m, *tables):
    mem = Memory(m)
    mem.root(*tables)
    assert mem.init() == 0
    return m.acpi_uart(mem.acpi)


LPSS = 0xfe03_2000
HIGH = 0x40_1000_0000


@pytest.mark.parametrize("kind, where, found", [
    (0x12, gas(LPSS), LPSS), (0x14, gas(HIGH), HIGH), (0, gas(LPSS), LPSS),
    (1, gas(LPSS), LPSS),
    (0x12, gas(LPSS, access=0), LPSS),          # its width says the same
    (0x12, gas(LPSS, access=0x20), LPSS),       # so tables are seen
    (0x14, gas(LPSS, width=8, access=0), LPSS),     # always 32 bits
    (0x12, gas(LPSS, width=8, access=1), 0),    # registers a byte apart
    (0, gas(0x3f8, 1, 8, 1), 0x3f8), (0x12, gas(0xe060, 1, 8, 0), 0xe060),
    (0, gas(0xfffc, 1, 8, 1), 0), (0, gas(0, 1, 8, 1), 0),
    (0x12, gas(0), 0), (0x12, gas(LPSS + 2), 0), (0x12, gas(0x8000), 0),
    (0x12, gas(LPSS, space=2), 0),              # PCI configuration space
    (3, gas(LPSS), 0), (0x13, gas(LPSS), 0)])   # PL011, SDM845
def test_the_serial_port_that_a_table_names(m, kind, where, found):
    assert uart_of(m, spcr(kind, where)) == found
    assert uart_of(m, dbg2(port(kind, where))) == found
    assert uart_of(m, dbg2(port(3, gas(LPSS)), port(kind, where))) == found
    other = port(0x12, gas(0xfe04_0000))
    assert uart_of(m, spcr(kind, where), dbg2(other)) == (
        found or 0xfe04_0000)


def test_no_serial_port_is_named(m):
    assert uart_of(m) == uart_of(m, dbg2()) == 0
    usb = port(0, gas(LPSS), family=0x8002)
    assert uart_of(m, dbg2(usb)) == 0
    assert uart_of(m, dbg2(usb, port(0x14, gas(LPSS)))) == LPSS


@pytest.mark.parametrize("devices, more", [
    ([port(0x14, gas(LPSS), length=0)] * 2, {}),
    ([port(3, gas(LPSS), length=0), port(0x14, gas(LPSS))], {}),
    ([port(3, gas(LPSS), length=0xffff), port(0x14, gas(LPSS))], {}),
    ([port(0x14, gas(LPSS))], {"offset": 0xffff_fff0}),
    ([port(0x14, gas(LPSS))[:24]], {}), ([], {"count": 0xffff_ffff})])
def test_a_debug_port_that_cannot_be(m, devices, more):
    assert uart_of(m, dbg2(*devices, **more)) == 0


def test_a_spcr_that_is_cut(m):
    whole = spcr(0x12, gas(LPSS))
    for size in (36, 37, 40, 51):
        assert uart_of(m, table(b"SPCR", whole[36:size])) == 0
    assert uart_of(m, table(b"SPCR", whole[36:52])) == LPSS


# --- LPIT ----------------------------------------------------------------

def lpi(hint, kind=0, flags=0, space=0x7f, length=56):
    """A state (LPIT revision 1, table 2)."""
    return struct.pack("<IIHHIBBBBQ", kind, length, 0, 0, flags, space, 1, 2,
                       0, hint).ljust(56, b"\0")


@pytest.mark.parametrize("states, hint", [
    ([lpi(0x60), lpi(0x60)], 0x60),
    ([lpi(0x20), lpi(0x64), lpi(0x33)], 0x64),
    ([lpi(0x60, flags=1), lpi(0x33)], 0x33),        # not to be used
    ([lpi(0x60, kind=1)], 0),
    ([lpi(0x60, space=0)], 0),                      # by a memory access
    ([lpi(0x160)], 0),
    ([lpi(0x33), lpi(0x60, length=0)], 0x33),       # would never end
    ([lpi(0x33), lpi(0x60, length=57)], 0x33),      # goes past the table
    ([lpi(0x60)[:27]], 0),
    ([], 0),
])
def test_lpit(m, states, hint):
    mem = Memory(m)
    mem.root(table(b"LPIT", b"".join(states)))
    assert mem.init() == 0
    assert m.acpi_lpit(mem.acpi) == hint


def test_no_lpit(m):
    mem = Memory(m)
    mem.root(table(b"APIC", bytes(8)))
    mem.init()
    assert m.acpi_lpit(mem.acpi) == 0
