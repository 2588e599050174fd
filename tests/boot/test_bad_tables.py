# SPDX-License-Identifier: MIT
"""Boot information and ACPI tables that firmware or a loader got wrong.

What Monocle cannot do without is refused in one line; the rest is named, and
the guest runs. A tiny loader (tests/guests/chain.c) hands over the first,
GRUB's write_dword spoils the second before Monocle starts.
"""
import functools
import pathlib
import re
import struct
import threading

import pytest

from boot import multiboot2 as mb
from boot import runs
from rigs.spec import BUILD

FULL = 0xFFFFFFFF
# In the short suite; the parsers' own tests are in tests/unit.
SHORT = {"not a loader of ours", "absurd size", "no memory map",
         "module ends before it starts", "tag of no size", "as it should be",
         "string without an end", "300 rows of memory",
         "RSDP with a wrong checksum", "RSDP to nowhere",
         "RSDT of absurd length", "RSDT entry to nowhere", "FADT of no length",
         "MADT entry of no length", "DSDT with a wrong checksum"}


def chained(changes, magic=mb.MAGIC, total=None):
    """Start Monocle with the changed information."""
    elf = pathlib.Path(runs.MONOCLE or BUILD / "monocle.elf").read_bytes()
    guest = runs.GUEST.read_bytes()
    info = mb.information(mb.tags(len(guest), **changes), total)
    path = runs.work(f"parcel-{abs(hash(info))}")
    path.write_bytes(mb.parcel(elf, info, guest, magic))
    return runs.boot("chain", native=True, initrd=path)


def module_tags(count):
    """Many modules, of which none is a kernel."""
    return b"".join(mb.module(mb.EXTRA, mb.EXTRA + 16, b"what\0")
                    for _ in range(count))


# name: (line, changes of the tags, further arguments)
REFUSED = {
    "not a loader of ours": ("use GRUB's multiboot2 command",
                             {}, {"magic": 0x12345678}),
    "no size": ("information of 0 bytes", {}, {"total": 0}),
    "absurd size": ("information of 4294967295 bytes", {}, {"total": FULL}),
    "no memory map": ("no memory map", {"memory": None}, {}),
    "map of empty rows": ("no memory map",
                          {"memory": mb.mmap([(0, 0, 1)])}, {}),
    "map rows too small": ("no memory map",
                           {"memory": mb.mmap(entry_size=4)}, {}),
    "map rows of no size": ("no memory map",
                            {"memory": mb.mmap(entry_size=0)}, {}),
    "map rows wrap": ("no memory map", {"memory": mb.mmap(
        [(FULL << 32, 1 << 40, 1)])}, {}),
    "map tag too short": ("no memory map", {"memory": mb.mmap(size=12)}, {}),
    "no module": ("no guest", {"module": None}, {}),
    "module ends before it starts": (
        "no guest", {"module": mb.module(mb.EXTRA, mb.EXTRA - 1)}, {}),
    "module tag too short": ("no guest", {"module": mb.module(
        mb.EXTRA, mb.EXTRA + 16, b"", 12)}, {}),
    "module without its role": ("no guest", {"module": mb.module(
        mb.EXTRA, mb.EXTRA + 16, b"what\0")}, {}),
    "tag of no size": ("no memory map", {"cmdline": mb.cmdline(size=0)}, {}),
    "tag over the end": ("no memory map",
                         {"cmdline": mb.cmdline(size=FULL)}, {}),
}
TOLERATED = {
    "as it should be": (None, {}, {}),
    "no command line": (None, {"cmdline": None}, {}),
    "unknown tags": (None, {"more": mb.tag(99, bytes(24)) +
                            mb.tag(FULL, b"")}, {}),
    "string without an end": ("a string with no end",
                              {"more": mb.tag(2, b"loader")}, {}),
    "map rows that are larger": (None, {"memory": mb.tag(
        6, struct.pack("<II", 32, 0) + b"".join(
            struct.pack("<QQII8x", *row, 0) for row in mb.MEMORY))}, {}),
    "unknown kind of memory": (None, {"memory": mb.mmap(
        mb.MEMORY + [(1 << 33, 1 << 30, 77)])}, {}),
    "300 rows of memory": ("more than 256 rows", {"memory": mb.mmap(
        mb.MEMORY + [(1 << 40 | n << 20, 1 << 19, 2)
                     for n in range(300)])}, {}),
    "20 modules more": ("more than 8 modules", {"more": module_tags(20)}, {}),
    "framebuffer of no size": (None, {"more": mb.framebuffer(
        0, 0, 0, 0)}, {}),
    "framebuffer tag too short": ("too short", {
        "more": mb.framebuffer(size=16)}, {}),
    # Found in the BIOS's area.
    "no RSDP": (None, {"rsdp": None}, {}),
    "RSDP of another name": ("acpi", {"rsdp": mb.rsdp(
        signature=b"RSD FTR ")}, {}),
    "RSDP with a wrong checksum": ("acpi", {"rsdp": mb.rsdp(
        checksum=0)}, {}),
    "RSDP to nowhere": ("acpi", {"rsdp": mb.rsdp(0xFFFFFFF0)}, {}),
    "RSDP to 0": ("acpi", {"rsdp": mb.rsdp(0)}, {}),
}


# name: (table, offset in it, what a GRUB command writes there, what is said of
# it, a table that is then missing)
LENGTH = "{} at 0x{:x} has a wrong length"
CHECKSUM = "{} at 0x{:x} has a wrong checksum"
SPOILED = {
    "RSDT of no length": ("RSDT", 4, 0, LENGTH, "RSDT"),
    "RSDT of absurd length": ("RSDT", 4, FULL, LENGTH, "RSDT"),
    "RSDT with a wrong checksum": ("RSDT", 8, 0x12345678, CHECKSUM, "RSDT"),
    "RSDT entry to nowhere": ("RSDT", 36, FULL,
                              "a table at 0xffffffff is out of reach", "FACP"),
    "RSDT entry to 0": ("RSDT", 36, 0, None, "FACP"),
    "FADT of no length": ("FACP", 4, 0, LENGTH, "FACP"),
    "FADT of absurd length": ("FACP", 4, FULL, LENGTH, "FACP"),
    "FADT with a wrong checksum": ("FACP", 60, 0xABCDEF01, CHECKSUM, "FACP"),
    "MADT of no length": ("APIC", 4, 0, LENGTH, "APIC"),
    "MADT of absurd length": ("APIC", 4, FULL, LENGTH, "APIC"),
    "MADT entry of no length": ("APIC", 44, 0,
                                "APIC entry at 44 has a wrong length", None),
    "MADT with a wrong signature": ("APIC", 0, 0, None, "APIC"),
    "DSDT of absurd length": ("DSDT", 4, FULL, LENGTH, "DSDT"),
    "DSDT with a wrong checksum": ("DSDT", 100, 0, CHECKSUM, "DSDT"),
}


def rows(log):
    """The ACPI tables of a machine: {name: (address, size)}."""
    return {name: (int(at, 16), int(size)) for name, at, size in
            re.findall(r"acpi: (\w{4}) 0x(\w+) +(\d+) bytes", log)}


LOCK = threading.Lock()


@functools.cache
def tables():
    """This machine's tables: {name: (address, bytes)}."""
    with runs.start("draw-text") as machine:
        machine.wait_for("draw: ready", runs.TIMEOUT)
        return {name: (at, machine.memory(at, size)) for name, (at, size) in
                rows(machine.text("log")).items()}


def spoil(name):
    """GRUB commands that spoil a table. Its checksum is right but where it is
    what is wrong."""
    table, offset, value, line, _ = SPOILED[name]
    with LOCK:
        at, data = tables()[table]
    data = bytearray(data)
    struct.pack_into("<I", data, offset, value)
    if line != CHECKSUM:
        data[9] = data[9] - sum(data) & 0xFF
    return tuple(f"write_dword {at + n:#x} "
                 f"{struct.unpack_from('<I', data, n)[0]:#x}"
                 for n in {offset, 8})


def spoiled(name):
    """Boot with one table spoiled."""
    return runs.boot("exit", grub=spoil(name))


for _name, (_, _changes, _more) in {**REFUSED, **TOLERATED}.items():
    runs.define(f"info: {_name}")(functools.partial(chained, _changes, **_more))
for _name in SPOILED:
    runs.define(f"acpi: {_name}")(functools.partial(spoiled, _name))


def said(result, kind):
    """Monocle's lines of a kind."""
    return re.findall(rf"^monocle: {kind}: (.*)$", result.log, re.MULTILINE)


@pytest.mark.parametrize("name", runs.each(
    REFUSED, "info: {}", SHORT))
def test_refused(run, name):
    result = run(f"info: {name}")
    assert result.status == 4, result.report()
    complaints = said(result, "error")
    assert len(complaints) == 1, result.report()
    assert REFUSED[name][0] in complaints[0]
    assert "the guest starts" not in result.log


@pytest.mark.parametrize("name", runs.each(
    TOLERATED, "info: {}", SHORT))
def test_tolerated(run, name):
    """The guest runs; what is odd is named."""
    result = run(f"info: {name}")
    # Without a command line the log goes to COM1.
    assert "monocle: end: 0 guest exit 0\n" in result.log + result.serial, \
        result.report()
    line = TOLERATED[name][0]
    if line:
        assert any(line in text for text in said(result, "warning")), \
            result.report()


@pytest.mark.parametrize("name", runs.each(SPOILED, "acpi: {}", SHORT))
def test_spoiled_acpi(run, name):
    """A table that cannot be trusted is named and not used."""
    result = run(f"acpi: {name}")
    assert result.status == 0, result.report()
    table, _, _, line, missing = SPOILED[name]
    named = [text for text in said(result, "warning") if "acpi" in text]
    if line:
        line = line.format(table, tables()[table][0])
        assert any(line in text for text in named), result.report()
    else:
        assert not named, result.report()
    found = set(rows(result.log))
    assert missing not in found, result.report()
    if missing not in (None, "RSDT"):
        assert {"RSDT", "SSDT", "HPET"} <= found, result.report()
