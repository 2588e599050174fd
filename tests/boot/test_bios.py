# SPDX-License-Identifier: MIT
"""Real-mode guests on the firmware's own services, beside the same natively."""
import functools
import re
import struct
import subprocess

import pytest
from PIL import Image

import rigs
from boot import runs, screen
from boot.realmode import CASES, HV, SECTOR, image

PICTURES = ("text", "mode13", "vbe")


def cd(program):
    """A CD that loads all of it at 7C00 and starts it (El Torito)."""
    folder = runs.work(f"{program.stem}-cd")
    folder.mkdir(exist_ok=True)
    (folder / "boot.bin").write_bytes(program.read_bytes())
    iso = runs.work(f"{program.stem}.iso")
    subprocess.run(
        ["xorriso", "-as", "mkisofs", "-quiet", "-o", iso, "-b", "boot.bin",
         "-no-emul-boot", "-boot-load-size",
         str(program.stat().st_size // SECTOR), folder],
        check=True, stderr=subprocess.DEVNULL)
    return iso


def start(case, native, **fields):
    program = image(case, "nested" if "rig" in fields else "bochs")
    fields = {"rig": "bochs", "memory": 64, "timeout": runs.TIMEOUT, "hv": HV,
              **fields}
    if native:
        return rigs.start(rigs.Spec(iso=cd(program), native=True, **fields))
    return rigs.start(rigs.Spec(kernel=program, monocle=runs.MONOCLE,
                                **fields))


def play(case, native, **fields):
    """(result, picture) of one case."""
    path = runs.work(f"{case}-{native}-{fields.get('rig')}.png")
    with start(case, native, **fields) as machine:
        machine.wait_for("bios: ready", runs.TIMEOUT)
        if case in PICTURES:
            machine.screenshot(path)
        machine.send("x")
        result = machine.finish()
    return result, (Image.open(path).convert("RGB") if case in PICTURES
                    else None)


for _case in CASES:
    for _native in (False, True):
        runs.define(f"bios-{_case}" + "-native" * _native, first=_case ==
                    "load")(functools.partial(play, _case, _native))


for _case in CASES:
    runs.define(f"bios-{_case}-qemu")(
        functools.partial(play, _case, True, rig="tcg"))


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.runs(
    f"bios-{c}", f"bios-{c}-native")) for c in PICTURES])
def test_picture_is_the_native_one(run, case):
    result, picture = run(f"bios-{case}")
    native, expected = run(f"bios-{case}-native")
    assert (result.status, native.status) == (0, 0), result.report()
    assert result.serial == native.serial, result.report()
    box = screen.difference(picture, expected)
    assert box is None, f"differs in {box}\n{result.report()}"
    assert len(picture.getcolors(256)) > 8, "no picture at all"


@pytest.mark.long
@pytest.mark.parametrize("case", [pytest.param(c, marks=[
    pytest.mark.nested(f"bios-{c}"), pytest.mark.runs(f"bios-{c}-qemu")])
    for c in PICTURES])
def test_picture_by_another_bios(nested, run, case):
    """SeaBIOS and SeaVGABIOS below the guest, as natively on that QEMU."""
    done = nested(f"bios-{case}")
    native, expected = run(f"bios-{case}-qemu")
    assert native.status == 0, native.report()
    assert done.serial == native.serial, done.report()
    box = screen.difference(Image.open(done.files["screen.png"]), expected)
    assert box is None, f"differs in {box}\n{done.report()}"
    assert len(expected.getcolors(256)) > 8, "no picture at all"


def check_load(done, native):
    """Real, unreal, 16-bit protected, virtual-8086: the sums are equal."""
    assert native.status == 0, native.report()
    assert "the timer ticks" in native.serial
    assert done.serial == native.serial, done.report()


@pytest.mark.runs("bios-load", "bios-load-native")
def test_every_mode_under_load(run):
    (result, _), (native, _) = run("bios-load"), run("bios-load-native")
    assert result.status == 0, result.report()
    check_load(result, native)


@pytest.mark.long
@pytest.mark.nested("bios-load")
@pytest.mark.runs("bios-load-qemu")
def test_every_mode_by_another_bios(nested, run):
    check_load(nested("bios-load"), run("bios-load-qemu")[0])


def rows(serial):
    """E820 rows as (base, end, kind)."""
    found = []
    for words in re.findall(r"^e820 (.*)", serial, re.MULTILINE):
        low, high, size_low, size_high, kind = (int(w, 16)
                                                for w in words.split())
        base = low | high << 32
        found.append((base, base + (size_low | size_high << 32), kind))
    return found


def check_report(result, native):
    """VBE modes are the native ones; memory is what the region list gives."""
    assert native.status == 0, native.report()
    status, modes = result.serial.splitlines()[:2]
    assert [status, modes] == native.serial.splitlines()[:2]
    assert status == "004F" and len(modes.split()) > 8
    regions = [(int(a, 16), int(b, 16)) for a, b in re.findall(
        r"region ([0-9a-f]+)-([0-9a-f]+) hpa \S+ \S+ cpu \S+ dma \S+ \S+ ram",
        result.log)]
    ram = [(base, end) for base, end, kind in rows(result.serial) if kind == 1]
    assert ram == regions, result.report()
    assert any(base <= 1 << 20 < end for base, end in ram)
    kib = int(re.search(r"^memory ([0-9A-F]+)", result.serial,
                        re.MULTILINE)[1], 16)
    assert ram[0] == (0, kib * 1024)
    assert re.search(r"^disk 01FF", result.serial, re.MULTILINE)


@pytest.mark.runs("bios-report", "bios-report-native")
def test_bios_tells_of_the_guests_memory(run):
    (result, _), (native, _) = run("bios-report"), run("bios-report-native")
    assert result.status == 0, result.report()
    check_report(result, native)


@pytest.mark.long
@pytest.mark.nested("bios-report")
@pytest.mark.runs("bios-report-qemu")
def test_another_bios_tells_of_the_guests_memory(nested, run):
    check_report(nested("bios-report"), run("bios-report-qemu")[0])


@runs.define("bios-acpi-ebda")
def acpi_ebda():
    """GRUB puts an RSDP for a table of ours into the EBDA."""
    table = bytearray(struct.pack("<4sIBB6s8sI4sI", b"OEM1", 36, 1, 0,
                                  b"TEST  ", b"TEST    ", 1, b"TEST", 1))
    table[9] = -sum(table) & 0xff
    file = runs.work("bios-acpi-table")
    file.write_bytes(table)
    return play("acpi", False, cpus=2, hv=f"{HV} cpus=1",
                grub=("acpi /boot/table",), files={"/boot/table": file})


def acpi_tables(serial):
    """[(address, bytes)] of RSDPs, and {signature: bytes} of tables."""
    found = [(int(at, 16), bytes.fromhex(data)) for at, data in re.findall(
        r"^@([0-9A-F]{8}) ([0-9A-F]+)$", serial, re.MULTILINE)]
    rsdps = [(at, data) for at, data in found if data[:8] == b"RSD PTR "]
    return rsdps, {data[:4]: data for at, data in found
                   if (at, data) not in rsdps}


def check_acpi(result, places):
    """By ACPI 5.2.5.1 and 5.2.6, and no more CPUs than it has."""
    rsdps, tables = acpi_tables(result.serial)
    assert len(rsdps) == places, result.report()
    assert (rsdps[0][0] < 0xa0000) == (places == 2)
    for _, rsdp in rsdps:
        assert sum(rsdp[:20]) % 256 == 0
        assert rsdp[15] < 2 or sum(rsdp) % 256 == 0
    assert tables.keys() == {b"RSDT", b"FACP", b"DSDT", b"APIC", b"MCFG"}
    for signature, data in tables.items():
        assert int.from_bytes(data[4:8], "little") == len(data), signature
        assert sum(data) % 256 == 0, signature
    madt, at, kinds = tables[b"APIC"], 44, []
    while at < len(madt):
        kinds.append(madt[at])
        at += madt[at + 1]
    assert kinds.count(0) == 1 and 9 not in kinds


@pytest.mark.parametrize("name, places", [
    pytest.param(name, places, marks=pytest.mark.runs(name), id=name)
    for name, places in (("bios-acpi", 1), ("bios-acpi-ebda", 2))])
def test_acpi_is_the_guests(run, name, places):
    result, _ = run(name)
    assert result.status == 0, result.report()
    check_acpi(result, places)


@pytest.mark.long
@pytest.mark.nested("bios-acpi")
def test_acpi_is_the_guests_by_another_bios(nested):
    """SeaBIOS's tables have a DMAR and more."""
    check_acpi(nested("bios-acpi"), 1)


@runs.define("bios-reset")
def reset():
    """Three resets, each with the vectors destroyed before it."""
    at, pictures = 0, []
    with start("text", False) as machine:
        for n in range(4):
            at = machine.wait_for("bios: ready", runs.TIMEOUT, after=at)
            path = runs.work(f"bios-reset-{n}.png")
            machine.screenshot(path)
            pictures.append(Image.open(path).convert("RGB"))
            machine.send("r" if n < 3 else "x")
        return machine.finish(), pictures


@pytest.mark.runs("bios-reset")
def test_reset_restores_the_first_mebibyte(run):
    result, pictures = run("bios-reset")
    assert result.status == 0, result.report()
    assert result.log.count("guest: reset") == 3
    for picture in pictures[1:]:
        assert screen.difference(picture, pictures[0]) is None
