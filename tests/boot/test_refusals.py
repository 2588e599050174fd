# SPDX-License-Identifier: MIT
"""What a user can mend is said in one line, before anything has changed."""
import functools
import re

import pytest

from boot import images, runs

MIB = 1 << 20


def file(name, data):
    """A file of this session."""
    path = runs.work(name)
    path.write_bytes(data)
    return path


def kernel(name, data):
    """Boot a kernel made here."""
    return {"kernel": file(name, data), "append": ""}


def case(name, line, **fields):
    """A boot that is refused with this line, a regular expression."""
    return name, line, fields


CASES = [
    # The machine.
    case("no VMX, on QEMU", r"this CPU has no VMX .*use an Intel CPU",
         rig="tcg", memory=256),
    case("no VMX, on Bochs", r"this CPU has no VMX .*use an Intel CPU",
         cpu="p4_prescott_celeron_336"),
    case("no VMX: AMD", r"this CPU has no VMX .*use an Intel CPU",
         cpu="phenom_8650_toliman"),
    case("VMX without EPT", r"this CPU's VMX lacks .*; use a CPU of",
         cpu="core2_penryn_t9600"),
    case("EPT without unrestricted guest",
         r"this CPU's VMX lacks unrestricted guest; use a CPU of",
         cpu="corei5_lynnfield_750"),
    case("32-bit CPU", r"this CPU has no 64-bit mode; use another machine",
         cpu="core_duo_t2400_yonah"),
    case("8 MiB", r"guest memory: \d+ MiB can be given, the least is \d+ MiB",
         memory=8),
    case("20 MiB", r"guest memory: \d+ MiB can be given, the least is",
         memory=20),
    case("memory=1M", r"guest memory: 1 MiB can be given, the least is",
         hv="memory=1M"),
    # Boot sectors.
    case("bios: no signature", r"guest=bios: the image has no boot signature",
         hv="guest=bios ram=identity", **kernel("unsigned", bytes(512))),
    case("bios: too short", r"guest=bios: the image has no boot signature",
         hv="guest=bios ram=identity", **kernel("short", b"\xeb\xfe")),
    case("bios: too large", r"guest=bios: the image is too large",
         hv="guest=bios ram=identity",
         **kernel("long", (bytes(510) + b"\x55\xaa").ljust(640 << 10))),
    case("bios: relocated", r"guest=bios: it needs ram=identity",
         hv="guest=bios", **kernel("signed", bytes(510) + b"\x55\xaa")),
    case("bios: UEFI", r"guest=bios: the firmware is UEFI",
         hv="guest=bios ram=identity", rig="tcg", memory=256, firmware="uefi",
         **kernel("signed too", bytes(510) + b"\x55\xaa")),
    # The graphics.
    case("igd without one", r"igd: 00:02.0 is no Intel graphics", hv="igd"),
    case("igd=closed without a display", r"igd=closed: there is no display",
         hv="igd=closed no-vga"),
    # The command line.
    case("unknown option", r"unknown option 'rma'; the nearest is 'ram'",
         hv="rma=identity"),
    case("unknown flag", r"unknown option 'quite'; the nearest is 'quiet'",
         hv="quite"),
    case("wrong choice", r"option ram: not a value for it: 'foo'",
         hv="ram=foo"),
    case("wrong size", r"option memory: not a value for it: '12X'",
         hv="memory=12X"),
    case("absurd size", r"option memory: not a value for it: "
         r"'99999999999999999999G'", hv="memory=99999999999999999999G"),
    case("flag with a value", r"option quiet: not a value for it: '1'",
         hv="quiet=1"),
    case("value missing", r"option ram: not a value for it", hv="ram"),
    # Assignment without an IOMMU.
    *(case(f"assign, {hv or 'no IOMMU'}",
           r"assign=00:03.0: 00:03.0 needs an IOMMU: switch VT-d on .*iommu=off "
           r"unsafe-dma ram=identity: its DMA then reaches all memory",
           hv=f"assign=00:03.0 {hv}")
      for hv in ("", "iommu=off ram=identity", "iommu=off unsafe-dma",
                 "unsafe-dma ram=identity")),
    *(case(f"assign, {why[:20]}", rf"assign={word}: 00:03\.0 {why}",
           hv=f"iommu=off unsafe-dma ram=identity assign={word}")
      for word, why in (
          ("00:03.0", "has neither MSI nor MSI-X: name the I/O APIC pin"),
          ("00:03.0,gsi=24", "gsi= names no pin of an I/O APIC"),
          ("00:03.0,gsi=4", "gsi= names a line that Monocle"))),
    case("assign, gsi=", r"assign=00:03.0,gsi=: write BB:DD.F, .*,gsi=N",
         hv="assign=00:03.0,gsi="),
    # The guest's files.
    case("no guest", r"no guest: name one in GRUB's menu entry", module=False),
    case("not a kernel",
         r"kernel is neither a Linux bzImage nor a Multiboot 1 image",
         **kernel("text", b"just text\n" * 1000)),
    case("empty kernel",
         r"kernel is neither a Linux bzImage nor a Multiboot 1 image",
         **kernel("short", b"x")),
    case("truncated bzImage",
         r"bzImage is truncated: \d+ bytes of \d+; copy it again",
         **kernel("truncated", images.bzimage()[:32768])),
    case("absurd bzImage", r"bzImage is truncated: 65536 bytes of \d{10,}",
         **kernel("absurd", images.bzimage(syssize=0xFFFFFFFF))),
    case("old bzImage", r"has a boot protocol older than 2\.12",
         **kernel("old", images.bzimage(version=0x204))),
    case("32-bit bzImage", r"has no 64-bit entry: take an x86-64 kernel",
         **kernel("narrow", images.bzimage(xloadflags=0))),
    case("bzImage larger than memory",
         r"Linux kernel needs \d+ KiB of RAM in one piece.*more memory",
         **kernel("large", images.bzimage(init_size=1 << 30))),
    case("command line too long", r"command line has \d+ characters, its "
         r"kernel takes 8; shorten it",
         **{**kernel("terse", images.bzimage(cmdline=8)),
            "append": "0123456789"}),
    case("initrd larger than guest memory",
         r"the initrd \(20480 KiB\) does not fit guest RAM .*more memory",
         **kernel("linux", images.bzimage()), hv="memory=18M",
         initrd=file("initrd", bytes(20 * MIB))),
    case("ELF over the VGA",
         r"ELF segment at 0xa0000, .* is reserved for legacy VGA",
         **kernel("vga", images.elf(0xA0000))),
    case("ELF into the BIOS", r"ELF segment at 0xff000, .* reserved for BIOS",
         **kernel("bios", images.elf(0xFF000, 0x2000))),
    case("ELF outside RAM", r"ELF segment at 0x7000000, .* is outside guest "
         r"memory; .*link it elsewhere", **kernel("high", images.elf(7 << 24))),
    case("ELF over its LAPIC", r"segment at 0xfee00000, .* local APIC",
         **kernel("apic", images.elf(0xFEE00000))),
    case("ELF above 4 GiB", r"has a segment above 4 GiB",
         **kernel("far", images.elf(1 << 33, wide=True))),
    case("ELF of absurd size", r"ELF segment at 0x100000, 0xf0000000 bytes",
         **kernel("huge", images.elf(0x100000, 0xF0000000))),
    case("truncated ELF", r"is truncated: a segment runs over the end",
         **kernel("cut", images.elf(0x100000, filesz=1 << 20,
                                    memsz=1 << 20))),
    case("ELF without its program headers",
         r"is truncated: its program headers lie outside",
         **kernel("headless", images.elf(0x100000, phoff=1 << 20))),
    case("ELF of another machine", r"is an ELF file for another processor",
         **kernel("arm", images.elf(0x100000, machine=40))),
    case("ELF entered outside", r"has its entry point outside its segments",
         **kernel("lost", images.elf(0x100000, entry=0x200000))),
    case("ELF over Monocle", r"ELF segment at 0x\w+, .* is outside guest "
         r"memory", hv="ram=identity",
         **kernel("over", images.elf(0x3E00000))),
]
# Not in the short suite: their kind is there, and tests/unit has them all.
LONG = {"assign, no IOMMU", "assign, iommu=off unsafe-dma",
        "assign, unsafe-dma ram=identity", "no VMX: AMD", "8 MiB", "memory=1M", "unknown flag", "wrong choice",
        "flag with a value", "value missing", "empty kernel", "absurd bzImage",
        "old bzImage", "32-bit bzImage", "command line too long",
        "ELF into the BIOS", "ELF over its LAPIC", "ELF of absurd size",
        "ELF without its program headers", "ELF of another machine",
        "ELF entered outside"}
NAMES = [name for name, _, _ in CASES]
SHORT = set(NAMES) - LONG
LINES = {name: line for name, line, _ in CASES}

for _name, _, _fields in CASES:
    runs.define(_name)(functools.partial(
        runs.boot, **{"append": "exit", **_fields}))


def errors(result):
    """The lines that say what is wrong."""
    return re.findall(r"^monocle: error: (.*)$", result.log, re.MULTILINE)


@pytest.mark.parametrize("name", runs.each(NAMES, short=SHORT))
def test_refused(run, name):
    result = run(name)
    assert result.status == 4, result.report()
    assert result.text == "refused"
    complaints = errors(result)
    assert len(complaints) == 1, result.report()
    assert re.search(LINES[name], complaints[0]), complaints


@pytest.mark.parametrize("name", runs.each(NAMES, short=SHORT))
def test_nothing_has_changed(run, name):
    """Neither VMX nor the guest was started, no other CPU was touched."""
    log = run(name).log
    for word in ["the guest starts", "cpus:", "stats:", "VMXON"]:
        assert word not in log


@runs.define("good image")
def good_image():
    return runs.boot("", kernel=file("good", images.bzimage()))


@pytest.mark.runs("good image")
def test_good_images_boot(run):
    """The makers of bad images make good ones, too."""
    assert run("good image").status == 0, run("good image").report()
