# SPDX-License-Identifier: MIT
"""The guest's ACPI tables as ACPICA reads them.

iasl disassembles every table and compiles it again, acpiexec loads the DSDT
and evaluates what a kernel evaluates; offsets here are ACPI 6.4's.
"""

import re
import shutil
import subprocess

import pytest

import guestram
import harness
from guestram import MIB, PAGE, Guest, Row

pytestmark = pytest.mark.skipif(not shutil.which("iasl"),
                                reason="no iasl: apt install acpica-tools")
TABLES, RSDP = 0x7fe0000, 0xf0000


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "guest_acpi", ["vmm/load/guest_acpi.c", "vmm/load/aml.c", *guestram.SOURCES],
        headers=["vmm/load/guest_acpi.h", "kernel/region.h", "kernel/log.h",
                 "vmm/core/virq.h", "vmm/devmodel/acpi_pm.h"],
        fakes=guestram.FAKES)


class Build:
    """roots: (first bus, last bus, devices); windows: (base, size, whether
    of ports, root)."""

    def __init__(self, m, size=64 * 1024, roots=((0, 255, ~0 & 0xffffffff),),
                 windows=(), ids=range(64), **config):
        self.m = m
        self.ids = m.new("u32[]", list(ids))
        self.guest = Guest(m, [
            Row(0, 0xa0000),
            Row(RSDP, 0x10000, "ROM", "RESERVED", "bios"),
            Row(MIB, MIB),
            Row(TABLES, 64 * 1024, "RAM", "NVS", "acpi")])
        rom = m.ffi.from_buffer(self.guest.rows[1].memory)
        self.roots = m.new("struct guest_acpi_root[]", list(roots))
        self.config = m.new("struct guest_acpi_config *", {
            "tables": TABLES, "tables_size": size, "rsdp": RSDP,
            "rsdp_host": rom, "vcpus": 1, "apic_ids": self.ids,
            "ioapic_id": 1, "pm_timer": 0x608, "pm_timer_bits": 32,
            "roots": self.roots, "root_count": len(roots),
            "windows": list(windows), "window_count": len(windows), **config})
        self.rsdp = m.new("gpa_t *")
        m.reset()
        self.status = m.guest_acpi_build(self.config, self.guest.list,
                                         self.rsdp)
        if self.status == 0:
            assert m.log_lines() == []
            self.tables = self.walk()

    def refusal(self):
        assert self.status < 0 and self.guest.untouched() or \
            self.status == -self.m.ENOSPC
        (level, line), = self.m.log_lines()
        assert level == self.m.LOG_ERROR
        return line

    def table(self, at):
        raw = self.guest.read(at, self.guest.number(at + 4))
        assert TABLES <= at and at + len(raw) <= TABLES + 64 * 1024
        if raw[:4] != b"FACS":
            assert sum(raw) % 256 == 0, raw[:4]
        return raw

    def walk(self):
        """As ACPI 5.2.5 finds the tables: RSDP, XSDT, FADT."""
        assert self.rsdp[0] == RSDP
        rsdp = self.guest.read(RSDP, 36)
        assert rsdp[:8] == b"RSD PTR " and rsdp[15] == 2
        assert sum(rsdp[:20]) % 256 == 0 and sum(rsdp) % 256 == 0
        xsdt = self.table(int.from_bytes(rsdp[24:32], "little"))
        rsdt = self.table(int.from_bytes(rsdp[16:20], "little"))
        rows = [int.from_bytes(xsdt[i:i + 8], "little")
                for i in range(36, len(xsdt), 8)]
        assert rows == [int.from_bytes(rsdt[i:i + 4], "little")
                        for i in range(36, len(rsdt), 4)]
        found = {"XSDT": xsdt, "RSDT": rsdt}
        for at in rows:
            found[self.table(at)[:4].decode()] = self.table(at)
        fadt = found["FACP"]
        for name, old, new in (("FACS", 36, 132), ("DSDT", 40, 140)):
            at = int.from_bytes(fadt[new:new + 8], "little")
            assert at == int.from_bytes(fadt[old:old + 4], "little")
            found[name] = self.table(at)
            assert found[name][:4] == name.encode()
            assert name != "FACS" or at % 64 == 0
        return found


GIB = 1 << 30
ROOTS = (0, 0x3f, 0xffffffff), (0x40, 0x41, 1 << 3), \
    (0x80, 0x86, 1 << 0x14 | 1 << 0x1c)
WINDOWS = (
    (0, 0xcf8, True, 0), (0xd00, 0x2300, True, 0), (0x3000, 0x1000, True, 2),
    (0x4000, 0xc000, True, 0), (0xa0000, 0x20000, False, 1),
    (0x80000000, 0x60000000, False, 0), (0xe8000000, 0x123000, False, 2),
    (0xe8123000, 0x800000, False, 0), (0xfd000000, 0x1000000, False, 1),
    (0xfff00000, 0x100000, False, 0), (4 * GIB, 0x1000, False, 2),
    (0x800000000, 0x800000000, False, 0))


@pytest.fixture(scope="module")
def built(m):
    return Build(m, vcpus=2, ioapic_id=7, ecam=0xe0000000, roots=ROOTS,
                 windows=WINDOWS)


def run(tmp_path, *command):
    done = subprocess.run(command, cwd=tmp_path, text=True, check=False,
                          capture_output=True)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    return text


def iasl(tmp_path, name, raw):
    """The table's own source, and what it compiles to without complaint."""
    (tmp_path / f"{name}.aml").write_bytes(raw)
    text = run(tmp_path, "iasl", "-d", f"{name}.aml")
    assert not re.search(r"warning|error|incorrect", text, re.I), text
    source = (tmp_path / f"{name}.dsl").read_text()
    assert "****" not in source, source
    text = run(tmp_path, "iasl", "-p", f"again_{name}", f"{name}.dsl")
    assert "0 Errors, 0 Warnings, 0 Remarks" in text, text
    return source, (tmp_path / f"again_{name}.aml").read_bytes()


@pytest.fixture(scope="module")
def compiled(built, tmp_path_factory):
    """{name: (source, what it compiles to)}"""
    at = tmp_path_factory.mktemp("iasl")
    return {name: iasl(at, name, raw) for name, raw in built.tables.items()}


def fields(source):
    """[(label, value)] of iasl's listing of a data table."""
    return re.findall(r"^(?:\[[^\]]*\])? +(\S.*?) : (.*?)\s*$", source, re.M)


def test_data_tables_compile_to_the_same_bytes(built, compiled):
    for name in ("FACP", "APIC", "MCFG", "FACS", "XSDT", "RSDT"):
        again, ours = compiled[name][1], built.tables[name]
        if name != "FACS":      # iasl writes its own name and the checksum
            ours, again = (b[:9] + b[10:28] + b[36:] for b in (ours, again))
        assert ours == again


def test_fadt(compiled):
    got = dict(reversed(fields(compiled["FACP"][0])))
    wanted = {
        "Signature": '"FACP"    [Fixed ACPI Description Table (FADT)]',
        "SCI Interrupt": "0009", "SMI Command Port": "00000000",
        "PM1A Event Block Address": "00000600", "PM1 Event Block Length": "04",
        "PM1A Control Block Address": "00000604",
        "PM1 Control Block Length": "02",
        "PM Timer Block Address": "00000608", "PM Timer Block Length": "04",
        "GPE0 Block Address": "00000000", "GPE0 Block Length": "00",
        "Legacy Devices Supported (V2)": "1",
        "8042 Present on ports 60/64 (V2)": "1", "RTC Century Index": "32",
        "VGA Not Present (V4)": "0", "MSI Not Supported (V4)": "0",
        "CMOS RTC Not Present (V5)": "0",
        "WBINVD instruction is operational (V1)": "1",
        "All CPUs support C1 (V1)": "1", "32-bit PM Timer (V1)": "1",
        "Control Method Power Button (V1)": "0",
        "Control Method Sleep Button (V1)": "1",
        "Reset Register Supported (V2)": "1",
        "Hardware Reduced (V5)": "0", "Value to cause reset": "06"}
    assert {k: got.get(k) for k in wanted} == wanted
    assert int(got["Revision"], 16) >= 5


@pytest.mark.parametrize("missing, devices, flags", [
    ("no_8042", {"PS2K", "PS2M"}, 0x1), ("no_vga", set(), 0x7)])
def test_what_the_machine_has_not(m, tmp_path, missing, devices, flags):
    """ACPI 5.2.9.3, table 5.11; what is not there is no device either."""
    built = Build(m, **{missing: True})
    source, _ = iasl(tmp_path, "DSDT", built.tables["DSDT"])
    all_devices = {"PIC", "TIMR", "COM1", "RTC", "PS2K", "PS2M"}
    assert {d for d in all_devices if f"Device ({d})" in source} == \
        all_devices - devices
    fadt = built.tables["FACP"]
    assert int.from_bytes(fadt[109:111], "little") == flags


@pytest.mark.parametrize("port, bits", [(0x608, 32), (0x1808, 24)])
def test_fadt_names_the_timer_that_is_the_guests(m, port, bits):
    """ACPI 5.2.9: PM_TMR_BLK, its length, TMR_VAL_EXT, X_PM_TMR_BLK."""
    fadt = Build(m, pm_timer=port, pm_timer_bits=bits).tables["FACP"]
    assert int.from_bytes(fadt[76:80], "little") == port and fadt[91] == 4
    assert bool(fadt[113] & 1) == (bits == 32)
    assert fadt[208:212] == bytes([1, 32, 0, 3])
    assert int.from_bytes(fadt[212:220], "little") == port


def test_fadt_extended_addresses(compiled):
    rows = fields(compiled["FACP"][0])
    blocks = {}
    for i, (label, _) in enumerate(rows):
        if rows[i + 1:] and rows[i + 1][0] == "Space ID":
            blocks[label] = [value.split()[0] for _, value in rows[i + 1:i + 6]]
    assert blocks["Reset Register"] == ["01", "08", "00", "01",
                                        "0000000000000CF9"]
    for name, bits, port in (("PM1A Event Block", "20", "0600"),
                             ("PM1A Control Block", "10", "0604"),
                             ("PM Timer Block", "20", "0608")):
        space, width, _, _, address = blocks[name]
        assert (space, width) == ("01", bits)
        assert address == port.rjust(16, "0")
    for name in ("PM1B Event Block", "PM2 Control Block", "GPE0 Block"):
        assert blocks[name][4] == "0" * 16


def test_madt(compiled):
    rows = fields(compiled["APIC"][0])
    assert ("Local Apic Address", "FEE00000") in rows
    assert ("PC-AT Compatibility", "1") in rows
    entries, current = [], None
    for label, value in rows:
        if label == "Subtable Type":
            current = {"type": int(value.split()[0], 16)}
            entries.append(current)
        elif current is not None:
            current[label] = value.split()[0]
    cpus = [e for e in entries if e["type"] == 0]
    assert [(e["Processor ID"], e["Local Apic ID"], e["Processor Enabled"])
            for e in cpus] == [("00", "00", "1"), ("01", "01", "1")]
    ioapic, = (e for e in entries if e["type"] == 1)
    assert (ioapic["I/O Apic ID"], ioapic["Address"], ioapic["Interrupt"]) == (
        "07", "FEC00000", "00000000")
    overrides = {(e["Source"], e["Interrupt"]): (e["Polarity"],
                                                 e["Trigger Mode"])
                 for e in entries if e["type"] == 2}
    assert overrides == {("00", "00000002"): ("0", "0"),     # as the bus does
                         ("09", "00000009"): ("1", "3")}     # high, level
    nmi, = (e for e in entries if e["type"] == 4)
    assert (nmi["Processor ID"], nmi["Interrupt Input LINT"]) == ("FF", "01")


@pytest.mark.parametrize("ids", [
    [0], [5], range(64), [254, 255, 0x106, 0, 2],
    range(0x1000, 0x1040), [8, 1, 3]], ids=str)
def test_vcpus(m, ids, tmp_path):
    """In the MADT by their APIC IDs, those from 255 on as x2APICs; and a
    processor device for each by the same number."""
    count, ids = len(ids), list(ids)
    built = Build(m, vcpus=count, ids=ids)
    source, _ = iasl(tmp_path, "DSDT", built.tables["DSDT"])
    devices = re.findall(r'Name \(_HID, "ACPI0007".*\).*\n\s*'
                         r'Name \(_UID, (\w+)\)',
                         source)
    words = {"Zero": 0, "One": 1}
    assert [words[d] if d in words else int(d, 16) for d in devices] == \
        list(range(count))
    _, raw = iasl(tmp_path, "APIC", built.tables["APIC"])
    assert raw[36:] == built.tables["APIC"][36:]
    found, nmis, at = {}, [], 44
    while at < len(raw):
        number = lambda n, size: int.from_bytes(
            raw[at + n:at + n + size], "little")
        if raw[at] == 0:                        # ACPI 5.2.12.2
            assert raw[at + 3] != 255 and number(4, 4) == 1
            found[raw[at + 2]] = raw[at + 3]
        elif raw[at] == 9:                      # 5.2.12.12
            assert number(4, 4) >= 255 and number(8, 4) == 1
            found[number(12, 4)] = number(4, 4)
        elif raw[at] == 4:
            nmis.append((raw[at + 2], raw[at + 5]))
        elif raw[at] == 10:
            nmis.append((number(4, 4), raw[at + 8]))
        at += raw[at + 1]
    assert at == len(raw) and found == dict(enumerate(ids))
    assert nmis == [(0xff, 1)] + [(0xffffffff, 1)] * (max(ids) >= 255)


@pytest.mark.parametrize("ids, free", [
    ([0], 1), ([3], 0), ([0, 2], 1), ([4, 2, 0, 1, 3], 5),
    (range(64), 64), (range(255, 319), 0)])
def test_the_ioapics_id(m, ids, free):
    ids = m.new("u32[]", list(ids))
    assert m.guest_acpi_ioapic_id(ids, len(ids)) == free


def acpiexec(tmp_path, raw, command):
    """Loads the DSDT in ACPICA's interpreter and runs one command."""
    (tmp_path / "dsdt.aml").write_bytes(raw)
    text = run(tmp_path, "acpiexec", "-di", "-b", command, "dsdt.aml")
    assert not re.search(r"ACPI (Error|Warning|Exception)", text), text
    return text


def numbers(text):
    return [int(v, 16) for v in re.findall(r"\[Integer\] = ([0-9A-F]+)", text)]


def test_dsdt_compiles_again(compiled, tmp_path):
    source, again = compiled["DSDT"]
    # The same source once more: nothing got lost on the way.
    second, _ = iasl(tmp_path, "DSDT", again)
    # But for the root that iasl finds superfluous in names.
    first, second = (text[text.index("{"):].replace("\\", "")
                     for text in (source, second))
    assert first == second


def test_s5(built, tmp_path):
    text = acpiexec(tmp_path, built.tables["DSDT"], "evaluate \\_S5")
    assert numbers(text)[0] == built.m.ACPI_SLP_TYP_S5
    assert len(numbers(text)) == 4


@pytest.mark.parametrize("n", [0, 1, 2])
def test_routing(built, tmp_path, n):
    """Every pin of each slot of a root's bus has a GSI of INTA to INTD."""
    devices = [dev for dev in range(32) if ROOTS[n][2] >> dev & 1]
    text = acpiexec(tmp_path, built.tables["DSDT"],
                    f"evaluate \\_SB.PCI{n}._PRT")
    values = numbers(text)
    rows = [tuple(values[i:i + 4]) for i in range(0, len(values), 4)]
    assert [(r[0], r[1]) for r in rows] == [
        (dev << 16 | 0xffff, pin) for dev in devices for pin in range(4)]
    assert all(r[2] == 0 for r in rows)
    # The conventional rotation, so that neighbours do not share a line.
    assert [r[3] for r in rows] == [
        built.m.VIRQ_PCI + (dev + pin) % 4
        for dev in devices for pin in range(4)]
    assert {r[3] for r in rows} == {16, 17, 18, 19}


def resources(tmp_path, raw, device):
    """A device's _CRS as ACPICA decodes it: [(type, {label: value})]."""
    text = acpiexec(tmp_path, raw, f"resources {device}")
    text = text[:text.index("Resource Conversion Comparison")]
    out = []
    for line in text.splitlines():
        if hit := re.match(r"\[[0-9A-F]+\] (.*) Resource$", line):
            out.append((hit[1], {}))
        elif out and (hit := re.match(r" +(\S.*?) : (.*?)\s*$", line)):
            out[-1][1][hit[1]] = hit[2]
    assert out.pop()[0] == "EndTag"
    return out


def windows(found, kind):
    """(first, last) of each range of that kind, which the root passes on."""
    out = []
    for _, d in found:
        if d.get("Resource Type") != kind:
            continue
        low, high, length, moved, grain = (int(d[label], 16) for label in (
            "Address Minimum", "Address Maximum", "Address Length",
            "Translation Offset", "Granularity"))
        assert length == high - low + 1 and moved == grain == 0
        assert (d["Consumer/Producer"], d["Address Decode"],
                d["Min Relocatability"], d["Max Relocatability"]) == (
            "ResourceProducer", "PosDecode", "MinFixed", "MaxFixed")
        out.append((low, high))
    return out


def ports(found):
    out = []
    for kind, d in found:
        if kind == "I/O":
            assert d["Address Decoding"] == "Decode16"
            assert d["Address Minimum"] == d["Address Maximum"]
            out.append((int(d["Address Minimum"], 16),
                        int(d["Address Length"], 16)))
    return out


@pytest.mark.parametrize("n, ids", [
    (0, {"_HID": 'EisaId \\("PNP0A03"', "_UID": "Zero"}),
    (1, {"_HID": 'EisaId \\("PNP0A08"', "_CID": 'EisaId \\("PNP0A03"',
         "_UID": "0x40", "_SEG": "Zero", "_BBN": "0x40"}),
    (2, {"_HID": 'EisaId \\("PNP0A08"', "_CID": 'EisaId \\("PNP0A03"',
         "_UID": "0x80", "_SEG": "Zero", "_BBN": "0x80"})])
def test_roots(built, compiled, tmp_path, n, ids):
    """Each with its buses, and what it alone passes on."""
    source = compiled["DSDT"][0]
    assert source.count("PNP0A03") == 3
    device = source[source.index(f"Device (PCI{n})"):]
    device = device[:device.index("Name (_CRS")]
    found = dict(re.findall(r"Name \((\w+), (.*?)\)", device))
    assert found.keys() == ids.keys()
    assert all(re.match(ids[key], found[key]) for key in ids)
    root = resources(tmp_path, built.tables["DSDT"], f"\\_SB.PCI{n}")
    assert windows(root, "Bus Number Range") == [ROOTS[n][:2]]
    for kind, is_ports in ("I/O Range", True), ("Memory Range", False):
        assert windows(root, kind) == [
            (base, base + size - 1) for base, size, p, of in WINDOWS
            if (p, of) == (is_ports, n)]
    assert all(d["Caching"] == "NonCacheable" and
               d["Write Protect"] == "ReadWrite"
               for _, d in root if d.get("Resource Type") == "Memory Range")
    assert ports(root) == [(0xcf8, 8)][n:]


def test_ecam(built, compiled, tmp_path):
    """In the MCFG, and a resource of the motherboard: else Linux refuses."""
    got = dict(fields(compiled["MCFG"][0]))
    assert {k: got[k] for k in ("Base Address", "Segment Group Number",
                                "Start Bus Number", "End Bus Number")} == {
        "Base Address": "00000000E0000000", "Segment Group Number": "0000",
        "Start Bus Number": "00", "End Bus Number": "86"}
    assert re.search(r'Device \(ECAM\)\s*{\s*Name \(_HID, EisaId '
                     r'\("PNP0C02"\)', compiled["DSDT"][0])
    (kind, found), = resources(tmp_path, built.tables["DSDT"], "\\_SB.ECAM")
    assert kind == "32-Bit Fixed Memory Range"
    assert (int(found["Address"], 16), int(found["Address Length"], 16)) == \
        (0xe0000000, 0x87 << 20)


def test_without_ecam(m, tmp_path):
    build = Build(m)
    assert "MCFG" not in build.tables
    assert b"ECAM" not in build.tables["DSDT"]
    root = resources(tmp_path, build.tables["DSDT"], "\\_SB.PCI0")
    assert windows(root, "Bus Number Range") == [(0, 255)]


@pytest.mark.parametrize("name, hid, io, irq", [
    ("COM1", "PNP0501", [(0x3f8, 8)], 4),
    ("PS2K", "PNP0303", [(0x60, 1), (0x64, 1)], 1),
    ("PS2M", "PNP0F13", [], 12),
    ("PIC", "PNP0000", [(0x20, 2), (0xa0, 2)], 2),
    ("TIMR", "PNP0100", [(0x40, 4)], 0),
    ("RTC", "PNP0B00", [(0x70, 2)], 8)])
def test_isa_devices(built, compiled, tmp_path, name, hid, io, irq):
    raw, source = built.tables["DSDT"], compiled["DSDT"][0]
    assert re.search(r"Device \(ISA\)\s*{\s*Name \(_ADR, 0x001F0000\)",
                     source)
    assert re.search(rf'Device \({name}\)\s*{{\s*Name \(_HID, EisaId '
                     rf'\("{hid}"\)', source)
    found = resources(tmp_path, raw, f"\\_SB.PCI0.ISA.{name}")
    assert ports(found) == io
    (_, line), = (f for f in found if f[0] == "IRQ")
    assert (line["Triggering"], line["Polarity"]) == ("Edge", "ActiveHigh")
    assert int(line["Interrupt List"], 16) == irq


def test_the_tables_fit_what_is_promised(m):
    """As many roots and windows as there may be, and in the end all of a
    guest's functions, each a device of a root."""
    last = m.GUEST_ACPI_ROOTS - 1
    roots = [(0, 0, 0xffffffff), *((n, n, 0x1fe) for n in range(1, last)),
             (last, 255, 0xffff)]
    assert sum(bin(root[2]).count("1") for root in roots[1:]) >= 128
    build = Build(m, size=m.GUEST_ACPI_SIZE, vcpus=m.GUEST_ACPI_VCPUS,
                  ids=range(300, 364),
                  roots=roots, ecam=0xe0000000,
                  windows=[((1 << 40) + n * GIB, 0x1000, False, n % last)
                           for n in range(m.GUEST_ACPI_WINDOWS)])
    assert build.status == 0


def test_sizes_that_are_too_small(m):
    build = Build(m)
    end = max(int.from_bytes(build.guest.read(RSDP + at, n), "little")
              for at, n in ((16, 4), (24, 8))) + 52 - TABLES
    for size in range(64, end + 256, 32):
        small = Build(m, size=size)
        if size < end:
            assert "bytes" in small.refusal()
        else:
            assert small.tables == build.tables


@pytest.mark.parametrize("config", [
    {"vcpus": 0}, {"vcpus": 65}, {"rsdp": 0xf0008}, {"rsdp": 0x80000},
    {"rsdp": 0xffff0}, {"tables": TABLES + 8}, {"tables": 0x7000000000},
    {"ecam": 0xfff00000}, {"tables": RSDP}, {"root_count": 0},
    {"root_count": 17}, {"tables": TABLES, "tables_size": 1 << 20}])
def test_bad_configurations(m, config):
    assert "place" in Build(m, **config).refusal()


def test_a_second_build_is_the_same(m):
    build = Build(m)
    first = build.guest.read(TABLES, 4 * PAGE)
    assert m.guest_acpi_build(build.config, build.guest.list, build.rsdp) == 0
    assert build.guest.read(TABLES, 4 * PAGE) == first
