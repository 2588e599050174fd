# SPDX-License-Identifier: MIT
"""Firmware as a guest: which file is one, and what it reads of its machine, by
a loader as QEMU's firmware has it."""
import pathlib
import struct

import pytest

import fwcfg
import harness
from guestram import MIB, PAGE, Guest, Row

KIB, GIB = 1 << 10, 1 << 30
SEABIOS = pathlib.Path("/usr/share/seabios")
OVMF = pathlib.Path("/usr/share/OVMF"), pathlib.Path("/usr/share/ovmf")
FAKES = """
#include <stdint.h>
#include <stdlib.h>
#include "kernel/phys.h"
struct phys host_memory;
bool no_memory;
u8 low[0x100000];
void *phys_to_virt(hpa_t hpa)
{
	return hpa < sizeof(low) ? low + hpa : (void *)(uintptr_t)hpa;
}
bool acpi_checksum_ok(const void *table, u32 length)
{
	u8 sum = 0;

	for (u32 i = 0; i < length; i++)
		sum = (u8)(sum + ((const u8 *)table)[i]);
	return !sum;
}
hpa_t virt_to_phys(const void *p)
{
	return (hpa_t)(uintptr_t)p;
}
hpa_t phys_alloc(struct phys *p, u64 size, u64 align, hpa_t limit)
{
	(void)p, (void)limit;
	return no_memory ? PHYS_NONE
			 : (hpa_t)(uintptr_t)aligned_alloc(align, size);
}
"""


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "firmware", ["vmm/load/firmware.c", "vmm/load/guest_acpi.c",
                     "vmm/load/aml.c", "vmm/load/smbios.c",
                     "vmm/load/loader_ram.c", "vmm/devmodel/fw_cfg.c",
                     "vmm/core/bus.c", "vmm/core/guest_mem.c",
                     "kernel/region.c"],
        headers=["vmm/load/firmware.h", "vmm/load/guest_acpi.h",
                 "kernel/log.h"],
        fakes=FAKES, cdef="extern _Bool no_memory; extern u8 low[0x100000];")


RESUMES = b"\x3c\xfe"    # cmp al, 0xfe


def volume(size, code=RESUMES, at=1000):
    """PI 1.7, volume 3, 3.2.1."""
    raw = bytearray(size)
    raw[at:at + len(code)] = code
    raw[32:40] = struct.pack("<Q", size)
    raw[40:44] = b"_FVH"
    return bytes(raw)


def pc_bios(size=128 * KIB):
    raw = bytearray(b"\x90" * size)
    raw[-16:-11] = b"\xea\x5b\xe0\x00\xf0"
    return bytes(raw)


UEFI = volume(128 * KIB) + volume(MIB, b"") + volume(64 * KIB)


class Firmware:
    """image: bytes. The guest's memory: [(gpa, size, kind, e820)]."""

    def __init__(self, m, image, rows=((0, 0xa0000), (0xc0000, 0x40000, "RAM",
                 "RESERVED"), (MIB, 127 * MIB)), texts=(), **options):
        m.reset()
        m.lib.no_memory = False
        self.m = m
        self.guest = Guest(m, [Row(*row) for row in rows])
        self.memory = m.new("u8[]", len(image) + PAGE)
        at = int(m.ffi.cast("uintptr_t", self.memory))
        self.image = m.ffi.cast("u8 *", at + -at % PAGE)
        m.ffi.memmove(self.image, image, len(image))
        self.options = m.new("struct options *", options)
        self.boot = m.new("struct boot_info *", {"module_count": len(texts)})
        self.keep = []
        for n, (string, data) in enumerate(texts):
            self.keep += [m.new("char[]", string), m.new("u8[]", data)]
            self.boot.modules[n] = {
                "string": self.keep[-2], "size": len(data),
                "start": int(m.ffi.cast("uintptr_t", self.keep[-1]))}
        self.bus = m.new("struct bus *")
        self.f = m.new("struct firmware *", {
            "image": self.image, "size": len(image), "map": self.guest.list,
            "boot": self.boot, "options": self.options})

    def check(self):
        return self.m.firmware_check(self.f)

    def init(self, **fields):
        m = self.m
        assert self.check() == 0
        assert m.firmware_regions(self.f, self.guest.list) == 0
        self.fill = m.callback("void(void *)", self._fill)
        self.machine = m.new("struct firmware_machine *", {
            "roots": 1, "fill": self.fill, **fields})
        assert m.firmware_init(self.f, self.bus, self.machine) == 0
        return self

    def _fill(self, _):
        m = self.m
        roots = m.new("struct guest_acpi_root[]", [(0, 255, 0xffffffff)])
        self.ids = m.new("u32[]", [0, 1])
        config = m.new("struct guest_acpi_config *", {
            "tables_host": self.f.tables, "tables_size": m.GUEST_ACPI_SIZE,
            "rsdp": 0xf0000, "rsdp_host": m.ffi.addressof(self.f, "rsdp"),
            "vcpus": 2, "apic_ids": self.ids, "ioapic_id": 2,
            "ecam": m.FIRMWARE_ECAM,
            "roots": roots, "root_count": 1})
        assert m.guest_acpi_build(config, self.guest.list,
                                  m.new("gpa_t *")) == 0
        m.firmware_link(self.f)

    def access(self, port, size, value=None):
        a = self.m.new("struct bus_access *", {
            "addr": port, "size": size, "write": value is not None,
            "value": value or 0})
        assert self.m.bus_dispatch(self.bus, self.m.BUS_PORT, a) == 0
        return a.value

    def inp(self, port, size=1):
        return self.access(port, size)

    def out(self, port, value, size=1):
        self.access(port, size, value)


# -- which file is one

# Bytes themselves would become a test's name, and a long one.
IMAGES = {"PC": pc_bios(), "PC-256": pc_bios(256 * KIB),
          "PC-64": pc_bios(64 * KIB), "UEFI": UEFI,
          "UEFI-1": volume(256 * KIB)}


@pytest.mark.parametrize("name", IMAGES)
def test_kinds(m, name):
    f, uefi = Firmware(m, IMAGES[name]), "UEFI" in name
    assert f.check() == 0 and f.f.uefi == uefi
    assert len(m.log_lines()) == 1


def installed(path):
    if not path.exists():
        pytest.skip("not installed")
    return path.read_bytes()


@pytest.mark.parametrize("path, uefi", [
    *((SEABIOS / name, False) for name in ("bios.bin", "bios-256k.bin")),
    *((where / name, True) for where, name in zip(
        (*OVMF, OVMF[0]),
        ("OVMF_CODE_4M.fd", "OVMF.fd", "OVMF_CODE.fd")))])
def test_debians_packages(m, path, uefi):
    f = Firmware(m, installed(path))
    assert f.check() == 0 and f.f.uefi == uefi


@pytest.mark.parametrize("name", [
    "OVMF_CODE.secboot.fd", "OVMF_CODE_4M.secboot.fd", "OVMF_CODE_4M.ms.fd"])
def test_debians_ovmf_with_smm(m, name):
    f = Firmware(m, installed(OVMF[0] / name))
    assert f.check() == -m.EINVAL
    (level, line), = m.log_lines()
    assert level == m.LOG_ERROR and "system management mode" in line


BAD = {
    "a page less": (pc_bios()[:-PAGE], "neither SeaBIOS"),
    "no page": (pc_bios()[:-100], "truncated"),
    "one page": (pc_bios()[:PAGE], "truncated"),
    "zeros": (bytes(128 * KIB), "neither SeaBIOS"),
    "too large for a PC's": (pc_bios(512 * KIB), "neither SeaBIOS"),
    "a volume's page less": (UEFI[:-PAGE], "truncated: its volumes"),
    "a volume less": (UEFI[:-64 * KIB - PAGE], "truncated: its volumes"),
    "a page more": (UEFI + bytes(PAGE), "truncated: its volumes"),
    "a volume of nothing": (
        volume(64 * KIB)[:32] + bytes(8) + volume(64 * KIB)[40:],
        "truncated: its volumes"),
    "no code": (volume(128 * KIB)[:-16] + b"\xff" * 16, "variables alone"),
    "SMM": (volume(MIB) + volume(64 * KIB, b""), "system management mode"),
    "SMM, and such bytes at the reset vector": (
        volume(64 * KIB, at=32 * KIB), "system management mode"),
    "too large": (volume(16 * MIB) + volume(PAGE), "larger than 16 MiB"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_in_one_line(m, name):
    image, said = BAD[name]
    f = Firmware(m, image)
    assert f.check() == -m.EINVAL
    (level, line), = m.log_lines()
    assert level == m.LOG_ERROR and said in line


@pytest.mark.parametrize("options, texts, said", [
    ({"ram": 1}, (), "ram=identity"), ({"guest": 1}, (), "guest=bios"),
    ({}, [(b"opt/" + b"n" * 52, b"")], "55 bytes")])
def test_what_does_not_go_with_it(m, options, texts, said):
    f = Firmware(m, pc_bios(), texts=texts, **options)
    assert f.check() == -m.EINVAL
    (level, line), = m.log_lines()
    assert level == m.LOG_ERROR and said in line
    f.f.image = m.NULL
    assert f.check() == 0


# -- memory

@pytest.mark.parametrize("rows, end, low", [
    ([], 3 * GIB, 2 * GIB), ([], GIB, GIB),
    ([(0xa0000, 0x20000, "HOLE", "NONE")], GIB, GIB),
    ([(512 * MIB, PAGE, "HOLE", "RESERVED"), (MIB, MIB)], GIB, 512 * MIB),
    ([(3 * GIB, PAGE, "HOLE", "RESERVED")], 4 * GIB, 2 * GIB)])
def test_low_memory_is_in_one_piece(m, rows, end, low):
    f = Firmware(m, pc_bios(), rows)
    assert m.firmware_low_end(f.guest.list, end) == low


@pytest.mark.parametrize("size, good", [(63, True), (62, False)])
def test_too_little_memory(m, size, good):
    f = Firmware(m, pc_bios(), [(0, 0xa0000), (MIB, size * MIB)])
    assert m.firmware_check_memory(f.f) == (0 if good else -m.ENOMEM)
    assert len(m.log_lines()) == (0 if good else 1)


@pytest.mark.parametrize("name", ["PC", "PC-256", "UEFI"])
def test_where_the_image_is(m, name):
    """All of it up to 4 GiB, read only; its end below 1 MiB, with the reset
    vector, at each start."""
    image = IMAGES[name]
    f = Firmware(m, image).init()
    top = f.guest.list.regions[f.guest.list.count - 1]
    assert (top.gpa, top.size, top.kind, top.cpu, top.dma) == (
        4 * GIB - len(image), len(image), m.REGION_ROM, m.REGION_RX, 0)
    assert top.hpa == int(m.ffi.cast("uintptr_t", f.image))
    low = min(len(image), 128 * KIB)
    for _ in range(2):
        entry = m.new("struct guest_entry *")
        assert m.firmware_start(f.f, entry) == 0
        assert (entry.mode, entry.cs << 4 | entry.rip) == (
            m.ENTRY_REAL16, 0xffff0)
        assert f.guest.read(MIB - low, low) == image[-low:]
        f.guest.rows[1].memory[:] = bytes(0x40000)
        # What the last life had begun to read is no matter for this one.
        assert bytes(f.inp(fwcfg.DATA) for _ in range(4)) == b"QEMU"


def test_no_memory_for_tables(m):
    f = Firmware(m, pc_bios())
    m.lib.no_memory = True
    assert m.firmware_regions(f.f, f.guest.list) == -m.ENOMEM
    assert len(m.log_lines()) == 1


# -- what it reads

def rows(f):
    return list(struct.iter_unpack("<QQI", fwcfg.file(f, "etc/e820")))


MAP = ((0, 0xa0000), (0xc0000, 0x40000, "RAM", "RESERVED"), (MIB, 127 * MIB),
       (128 * MIB, MIB, "HOLE", "RESERVED"),
       (0xb0000000, 256 * MIB, "HOLE", "RESERVED"),
       (4 * GIB, MIB))


@pytest.mark.parametrize("name, reserved", [
    ("PC", [(128 * MIB, MIB, 2), (4 * GIB - 128 * KIB, 128 * KIB, 2)]),
    ("UEFI", [])])
def test_its_map_of_memory(m, name, reserved):
    """SeaBIOS keeps what is reserved; OVMF's BARs would lie over it."""
    f = Firmware(m, IMAGES[name], MAP).init()
    ram = [(0, 0xa0000, 1), (MIB, 127 * MIB, 1), (4 * GIB, MIB, 1)]
    assert rows(f) == sorted([*ram, *reserved])


@pytest.mark.parametrize("fields, names", [
    ({}, {}), ({"serial_port": 0x3f8}, {"etc/sercon-port": 0x3f8}),
    ({"roots": 3}, {"etc/extra-pci-roots": 2})])
def test_small_files(m, fields, names):
    f = Firmware(m, pc_bios()).init(**fields)
    found = {name: int.from_bytes(fwcfg.file(f, name), "little")
             for name in ("etc/sercon-port", "etc/extra-pci-roots")
             if fwcfg.file(f, name)}
    assert found == names


def test_the_users_texts(m):
    f = Firmware(m, pc_bios(), texts=[
        (b"firmware", b"no"), (b"opt/org.test/x", b"hello"),
        (b"opt/y WORDS", b"\0\1")]).init()
    files = fwcfg.directory(f)
    assert {n for n in files if n.startswith("opt")} == {
        "opt/org.test/x", "opt/y"}
    assert fwcfg.file(f, "opt/org.test/x") == b"hello"
    assert fwcfg.file(f, "opt/y") == b"\0\1"


def test_smbios(m):
    """The host's, if it has one: DSP0134, 5.2.2."""
    f = Firmware(m, pc_bios()).init()
    assert "etc/smbios/smbios-anchor" not in fwcfg.directory(f)
    entry = bytearray(b"_SM3_\0\x18\3\0\0\1\0" + struct.pack(
        "<IQ", 6, 0xf0100))
    entry[5] = -sum(entry) % 256
    m.ffi.memmove(m.low + 0xf0000, bytes(entry), 24)
    m.ffi.memmove(m.low + 0xf0100, b"\x7f\4\0\0\0\0", 6)
    f = Firmware(m, pc_bios()).init()
    anchor = fwcfg.file(f, "etc/smbios/smbios-anchor")
    assert len(anchor) == 24 and anchor[:5] == b"_SM3_"
    assert fwcfg.file(f, "etc/smbios/smbios-tables")[:2] == b"\x7f\4"
    m.ffi.memmove(m.low + 0xf0000, bytes(24), 24)


# -- ACPI tables, wherever it puts them

def execute(f, places, sums_all):
    """The loader's script; {name: (address, bytes)}. sums_all: as OVMF, which
    adds up all bytes, where SeaBIOS takes the difference."""
    files = {}
    for raw in struct.iter_unpack("<I124s", fwcfg.file(f, "etc/table-loader")):
        command, rest = raw
        name = rest[:56].split(b"\0")[0].decode()
        if command == 1:
            align, zone = struct.unpack("<IB", rest[56:61])
            at, in_zone = places[name]
            assert at % align == 0 and zone == in_zone
            files[name] = at, bytearray(fwcfg.file(f, name))
        elif command == 2:
            target = rest[56:112].split(b"\0")[0].decode()
            at, size = struct.unpack("<IB", rest[112:117])
            data = files[name][1]
            value = int.from_bytes(data[at:at + size], "little")
            assert value < len(files[target][1])
            data[at:at + size] = (value + files[target][0]).to_bytes(
                size, "little")
        elif command == 3:
            at, start, size = struct.unpack("<3I", rest[56:68])
            data = files[name][1]
            total = sum(data[start:start + size])
            data[at] = -total % 256 if sums_all else (data[at] - total) % 256
        else:
            assert command == 0
    return files


@pytest.mark.parametrize("sums_all", [True, False])
@pytest.mark.parametrize("base", [0x1f3d0000, 0x7e000])
def test_tables_are_whole_wherever_they_are(m, base, sums_all):
    """ACPI 6.4, 5.2.5 ff.: from the RSDP all are found, and add up to 0. The
    same once more, after the guest's reset."""
    f = Firmware(m, pc_bios()).init()
    for _ in range(2):
        memory = execute(f, {"etc/acpi/tables": (base, 1),
                             "etc/acpi/rsdp": (0xf6a00, 2)}, sums_all)
        tables, rsdp = (memory[f"etc/acpi/{n}"][1] for n in ("tables", "rsdp"))

        def table(at):
            at -= base
            size, = struct.unpack("<I", tables[at + 4:at + 8])
            raw = bytes(tables[at:at + size])
            assert raw[:4] == b"FACS" or sum(raw) % 256 == 0, raw[:4]
            return raw[:4].decode(), raw

        def number(raw, at, size):
            return int.from_bytes(raw[at:at + size], "little")
        assert sum(rsdp[:20]) % 256 == 0 == sum(rsdp) % 256
        _, rsdt = table(number(rsdp, 16, 4))
        _, xsdt = table(number(rsdp, 24, 8))
        found = [number(xsdt, at, 8) for at in range(36, len(xsdt), 8)]
        assert found == [number(rsdt, at, 4) for at in range(36, len(rsdt), 4)]
        named = dict(map(table, found))
        assert list(named) == ["FACP", "APIC", "MCFG"]
        fadt = named["FACP"]
        for name, old, new in ("FACS", 36, 132), ("DSDT", 40, 140):
            at = number(fadt, new, 8)
            assert at == number(fadt, old, 4) and table(at)[0] == name
            assert name != "FACS" or at % 64 == 0
        assert number(named["MCFG"], 44, 8) == 0xb0000000
