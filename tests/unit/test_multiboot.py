# SPDX-License-Identifier: MIT
"""The Multiboot 1 loader, read back as a guest's kernel would.

The oracle for where bytes go is objcopy's flat image of the same ELF file;
structures are read by the specification's offsets.
"""

import shutil
import struct
import subprocess

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import guestram
import harness
from guestram import MIB, PAGE, Guest, Row, pc

MAGIC = 0x1badb002


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "loader", ["vmm/load/loader.c", "vmm/load/loader_ram.c", "vmm/load/linux.c", "vmm/load/multiboot.c",
                   *guestram.SOURCES],
        headers=["vmm/load/loader.h", "kernel/region.h", "kernel/log.h"],
        fakes=guestram.FAKES)


def header(flags=3, addresses=()):
    checksum = -(MAGIC + flags) & 0xffffffff
    return struct.pack(f"<3I{len(addresses)}I", MAGIC, flags, checksum,
                       *addresses)


class Segment:
    def __init__(self, paddr, data, memsz=None, vaddr=None, kind=1):
        self.paddr, self.data, self.kind = paddr, data, kind
        self.memsz = len(data) if memsz is None else memsz
        self.vaddr = paddr if vaddr is None else vaddr


def elf(segments, entry, bits=32, machine=None, kind=2):
    """An ELF file by the System V ABI, segments behind its headers."""
    wide = bits == 64
    machine = machine or (62 if wide else 3)
    ehsize, phsize = (64, 56) if wide else (52, 32)
    offset = ehsize + phsize * len(segments)
    word = "Q" if wide else "I"
    out = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    out += struct.pack(f"<HHI{word}{word}{word}I6H", kind, machine, 1, entry,
                       ehsize, 0, 0, ehsize, phsize, len(segments), 0, 0, 0)
    body = b""
    for s in segments:
        at = offset + len(body)
        if wide:
            out += struct.pack("<II6Q", s.kind, 7, at, s.vaddr, s.paddr,
                               len(s.data), s.memsz, 16)
        else:
            out += struct.pack("<8I", s.kind, at, s.vaddr, s.paddr,
                               len(s.data), s.memsz, 7, 16)
        body += s.data
    return out + body


def simple(bits=32, **more):
    code = header() + b"\xf4" * 100
    return elf([Segment(MIB, code, 5000)], MIB + 12, bits, **more)


class Load:
    def __init__(self, m, rows, image, initrd=b"", cmdline="", modules=()):
        self.m, self.guest, self.keep = m, Guest(m, rows), []
        self.modules = ([(initrd, "initrd")] if initrd else []) + list(modules)
        self.cmdline = cmdline
        self.input = m.new("struct loader_input *", {
            "map": self.guest.list, "kernel": self.blob(image),
            "kernel_size": len(image),
            "initrd": self.blob(initrd) if initrd else m.NULL,
            "initrd_size": len(initrd), "module_count": len(modules),
            "cmdline": self.blob(cmdline.encode() + b"\0")})
        if modules:
            rest = m.new(f"struct loader_module[{len(modules)}]", [
                {"data": self.blob(data), "size": len(data),
                 "string": self.blob(text.encode() + b"\0")}
                for data, text in modules])
            self.keep.append(rest)
            self.input.modules = rest
        self.entry = m.new("struct guest_entry *")
        m.reset()
        self.status = m.loader_check(self.input)
        self.log = m.log_lines()
        assert self.guest.untouched()
        if self.status == 0:
            assert self.log == []
            assert m.loader_load(self.input, self.entry) == 0
            assert m.log_lines() == []

    def blob(self, data):
        self.keep.append(self.m.new(f"u8[{len(data)}]", data))
        return self.m.ffi.cast("void *", self.keep[-1])

    def refusal(self):
        assert self.status < 0
        (level, line), = self.log
        assert level == self.m.LOG_ERROR
        before = self.m.loader_load(self.input, self.entry)
        assert before == self.status and self.guest.untouched()
        return line


def check(load, taken):
    """What the specification promises a guest; taken: its segments."""
    m, guest, entry = load.m, load.guest, load.entry
    assert load.status == 0, load.log
    assert entry.mode == m.ENTRY_PROTECTED32
    assert entry.gpr[0] == 0x2badb002
    rows = [guest.number(entry.gdt_base + s, 8) for s in (entry.cs, entry.ds)]
    assert rows == [0x00cf9b000000ffff, 0x00cf93000000ffff]
    info = entry.gpr[3]
    flags, lower, upper = (guest.number(info + at) for at in (0, 4, 8))
    assert flags == 0x24d       # memory, command line, modules, map, name
    cmdline, count, mods = (guest.number(info + at) for at in (16, 20, 24))
    # Who is not "GRUB 2" has a name first, which kernels take off.
    assert guest.text(cmdline) == "kernel " + load.cmdline
    assert guest.text(guest.number(info + 64)) == "Monocle"

    length, at = guest.number(info + 44), guest.number(info + 48)
    end, mmap = at + length, []
    used = [(info, info + 116), (at, end), (mods, mods + 16 * count),
            (entry.gdt_base, entry.gdt_base + entry.gdt_limit + 1)]
    while at < end:
        assert guest.number(at) == 20
        mmap.append((guest.number(at + 4, 8), guest.number(at + 12, 8),
                     guest.number(at + 20)))
        at += guest.number(at) + 4
    assert at == end and mmap == guest.e820()
    for n in range(0, 640):     # KiB by KiB, until it is no RAM
        assert (n < lower) == guest.is_ram(0, (n + 1) * 1024)
    ends = [b + s for b, s, kind in mmap if kind == 1 and b <= MIB < b + s]
    assert upper * 1024 == (min(ends[0], 1 << 32) - MIB if ends else 0)

    assert count == len(load.modules)
    for i, (data, text) in enumerate(load.modules):
        start, stop, string = (guest.number(mods + 16 * i + 4 * k)
                               for k in range(3))
        assert start % PAGE == 0 and stop - start == len(data)
        assert guest.read(start, len(data)) == data
        assert guest.text(string) == text
        used.append((start, stop))
    used += taken
    used = sorted(u for u in used if u[0] < u[1])
    for i, (a, b) in enumerate(used):
        assert guest.is_ram(a, b - a)
        assert i == 0 or used[i - 1][1] <= a


def bios_data(guest):
    """COM1, equipment, EBDA's segment, KiB of memory; the EBDA's first byte."""
    words = [guest.number(at, 2) for at in (0x400, 0x410, 0x40e, 0x413)]
    return words, guest.number(words[2] << 4, 1)


def test_the_bios_data_area(m):
    """Xen takes the EBDA's place from there, and xv6 the memory's end."""
    load = Load(m, pc(), simple(32))
    top = next(kib for kib in range(640, 0, -1)
               if load.guest.is_ram(0, kib * 1024))
    assert bios_data(load.guest) == (
        [0x3f8, 0x220, (top - 1) * 64, top - 1], 1)


def test_a_kernel_that_lies_there_is_left_alone(m):
    image = b"\x5a" * 0x100
    code = header() + bytes(100)
    load = Load(m, pc(), elf([Segment(0x3c0, image), Segment(MIB, code)], MIB))
    assert load.status == 0 and load.guest.read(0x3c0, 0x100) == image


@pytest.mark.parametrize("bits", [32, 64])
def test_a_small_kernel(m, bits):
    load = Load(m, pc(), simple(bits), cmdline="verbose x=1")
    check(load, [(MIB, MIB + 5000)])
    assert load.entry.rip == MIB + 12
    assert load.guest.read(MIB, 112) == header() + b"\xf4" * 100


def test_modules(m):
    load = Load(m, pc(), simple(), initrd=b"I" * 10000,
                modules=[(b"second", "second arg=2"), (b"", "empty")])
    check(load, [(MIB, MIB + 5000)])


def test_the_rest_of_a_segment_is_zeroed(m):
    load = Load(m, pc(), simple())
    at = load.guest.rows[3]
    at.memory[112:5000] = b"\xff" * 4888      # what a guest before left
    at.memory[5000:5010] = b"\xee" * 10
    assert m.loader_load(load.input, load.entry) == 0
    assert load.guest.read(MIB + 112, 4888) == bytes(4888)
    assert load.guest.read(MIB + 5000, 10) == b"\xee" * 10


@pytest.mark.parametrize("bits", [32, 64])
def test_a_kernel_linked_high(m, bits):
    """Loaded by physical address; a virtual entry is translated."""
    high = 0xc0100000 if bits == 32 else 0xffffffff80100000
    code = Segment(2 * MIB, header() + bytes(64), vaddr=high)
    boot = Segment(MIB, b"\x90" * 64)
    for entry, rip in ((high + 16, 2 * MIB + 16), (2 * MIB + 20, 2 * MIB + 20),
                       (MIB + 5, MIB + 5)) * 2:
        boot, code = code, boot
        load = Load(m, pc(), elf([code, boot], entry, bits))
        check(load, [(MIB, MIB + 64), (2 * MIB, 2 * MIB + 76)])
        assert load.entry.rip == rip


def test_load_addresses_in_the_header(m):
    """The a.out kludge: 64 bytes of the file lie before the header."""
    image = b"\xab" * 64 + header(1 << 16, (
        MIB + 64, MIB, MIB + 200, MIB + 900, MIB + 70)) + b"\xcd" * 500
    load = Load(m, pc(), image)
    check(load, [(MIB, MIB + 900)])
    assert load.guest.read(MIB, 200) == image[:200]
    assert load.guest.read(MIB + 200, 100) == bytes(100)
    assert load.entry.rip == MIB + 70


def test_load_addresses_without_ends(m):
    image = b"\xab" * 64 + header(1 << 16, (MIB + 40, MIB, 0, 0, MIB))
    load = Load(m, pc(), image)
    assert load.guest.read(MIB, len(image) - 24) == image[24:]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.skipif(not (shutil.which("nasm") and shutil.which("objcopy")),
                    reason="no nasm or binutils")
def test_what_a_linker_makes(m, tmp_path, bits):
    source = tmp_path / "k.asm"
    source.write_text(f"""
bits 32
section .boot
    dd {MAGIC:#x}, 3, {-(MAGIC + 3) & 0xffffffff:#x}
global _start
_start: hlt
    jmp _start
section .text
high: times 3000 db 0x5a
section .data
    times 777 db 0xa5
section .bss
    resb 20000
""")
    script = tmp_path / "k.ld"
    script.write_text("""ENTRY(_start) SECTIONS {
. = 1M; .boot : { *(.boot) }
. = 0x40000000 + 2M; .text : AT(2M) { *(.text) }
. = ALIGN(4096); .data : AT(2M + 4096) { *(.data) }
.bss : { *(.bss) } }""")
    subprocess.run(["nasm", "-f", f"elf{bits}", "-o", tmp_path / "k.o",
                    source], check=True)
    subprocess.run(["ld", "-m", "elf_i386" if bits == 32 else "elf_x86_64",
                    "-z", "max-page-size=4096", "--no-warn-rwx-segments",
                    "-T", script, "-o", tmp_path / "k.elf", tmp_path / "k.o"],
                   check=True)
    subprocess.run(["objcopy", "-O", "binary", tmp_path / "k.elf",
                    tmp_path / "k.bin"], check=True)
    flat = (tmp_path / "k.bin").read_bytes()
    load = Load(m, pc(), (tmp_path / "k.elf").read_bytes())
    assert load.status == 0, load.log
    assert load.guest.read(MIB, len(flat)) == flat
    assert load.entry.rip == MIB + 12


def broken(**changes):
    """One small kernel with something wrong with it."""
    code = header(changes.pop("flags", 3)) + b"\xf4" * 100
    fields = {"paddr": MIB, "data": code, "memsz": 5000}
    entry = changes.pop("entry", MIB + 12)
    more = {k: changes.pop(k) for k in ("bits", "machine", "kind")
            if k in changes}
    fields.update(changes)
    return elf([Segment(**fields)], entry, **more)


@pytest.mark.parametrize("image, words", [
    (broken(paddr=0xa0000, entry=0xa0000), "vga"),
    (broken(paddr=MIB - 100, entry=MIB), "bios"),
    (broken(memsz=16 * MIB), "acpi"),
    (broken(paddr=64 * MIB, entry=64 * MIB), "outside guest memory"),
    (broken(paddr=0xfffff000, memsz=8192, entry=0xfffff000), "above 4 GiB"),
    (broken(bits=64, paddr=2**63, entry=2**63), "above 4 GiB"),
    (broken(bits=64, memsz=2**64 - 1), "above 4 GiB"),
    (broken(memsz=50), "damaged"),
    (broken(entry=MIB + 5000), "entry point"),
    (broken(entry=0), "entry point"),
    (broken(machine=40), "another processor"),
    (broken(bits=64, machine=3), "another processor"),
    (broken(kind=3), "fixed addresses"),
    (broken(flags=0x11), "demands"),
    (simple()[:150], "truncated"),
    (simple()[:90], "neither"),
    (b"", "neither"),
    (b"MZ" + bytes(9000), "neither"),
    (bytes(8184) + header() + bytes(100), "neither"),
    (bytes(100) + header(3) + bytes(100), "not ELF"),
    (elf([Segment(MIB, header(), kind=4)], MIB), "no segment"),
    (elf([Segment(MIB, header(), PAGE), Segment(MIB + 100, b"x" * 9)], MIB),
     "taken"),
    (elf([Segment(MIB + 64 * n, header()) for n in range(33)], MIB),
     "more than 32"),
    (b"\0" * 64 + header(1 << 16, (MIB, MIB + 4, 0, 0, MIB)), "load address"),
    (b"\0" * 64 + header(1 << 16, (MIB, MIB - 65, 0, 0, MIB)),
     "load address"),
    (b"\0" * 64 + header(1 << 16, (MIB, MIB, MIB + 33, 0, MIB)),
     "truncated"),
], ids=lambda v: v if isinstance(v, str) else "image")
def test_refusals(m, image, words):
    assert words in Load(m, pc(), image).refusal()


def test_a_bad_checksum_is_no_header(m):
    image = bytearray(simple())
    at = image.index(header())
    image[at + 8] ^= 1
    assert "neither" in Load(m, pc(), bytes(image)).refusal()


def test_a_module_larger_than_memory(m):
    line = Load(m, pc(4), simple(), initrd=bytes(4 * MIB)).refusal()
    assert "4096 KiB" in line and "memory" in line


def test_no_room_for_the_information(m):
    rows = [Row(MIB, 2 * PAGE)]
    line = Load(m, rows, simple()).refusal()
    assert "information" in line


RIGHT = elf([Segment(MIB, header() + b"\xf4" * 200, 9000),
             Segment(2 * MIB, b"\x11" * 300, vaddr=0xc0000000)], MIB + 12)
RIGHT64 = elf([Segment(MIB, header() + b"\xf4" * 200, 9000),
               Segment(2 * MIB, b"\x11" * 300, vaddr=2**63)], MIB + 12, 64)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from([RIGHT, RIGHT64]),
       st.lists(st.tuples(st.integers(0, 190), st.integers(0, 255)),
                max_size=5),
       st.integers(0, 700) | st.just(9999))
def test_corrupted_elf_files(m, image, damage, length):
    """Refused in one line, or loaded as the damaged file says."""
    image = bytearray(image)
    for at, value in damage:
        image[at] = value
    load = Load(m, pc(4), bytes(image[:length]), initrd=b"z" * 5000)
    if load.status:
        event("refused")
        load.refusal()
        return
    event("loaded")
    taken = []
    for paddr, data, memsz in program_headers(bytes(image[:length])):
        taken.append((paddr, paddr + memsz))
        assert load.guest.read(paddr, memsz) == \
            data + bytes(memsz - len(data))
    check(load, taken)


def program_headers(image):
    """(paddr, bytes, memory size) of PT_LOAD, read by the ABI's offsets."""
    if image[4] == 1:
        phoff, = struct.unpack_from("<I", image, 28)
        size, count = struct.unpack_from("<HH", image, 42)
        form, order = "<8I", (0, 1, 3, 4, 5)
    else:
        phoff, = struct.unpack_from("<Q", image, 32)
        size, count = struct.unpack_from("<HH", image, 54)
        form, order = "<II6Q", (0, 2, 4, 5, 6)
    for n in range(count):
        fields = struct.unpack_from(form, image, phoff + n * size)
        kind, offset, paddr, filesz, memsz = (fields[i] for i in order)
        if kind == 1 and memsz:
            yield paddr, image[offset:offset + filesz], memsz


@st.composite
def load_addresses(draw):
    """Mostly such as a linker gives, each field now and then anything."""
    start = draw(st.sampled_from([MIB, 0x9000, 3 * MIB, 0x9ff00]))
    good = (start + draw(st.integers(0, 300)), start,
            draw(st.just(0) | st.integers(start, start + 500)),
            draw(st.just(0) | st.integers(start, start + 9000)),
            start + draw(st.integers(0, 60)))
    odd = st.integers(0, 2**32 - 1)
    return tuple(draw(odd) if draw(st.integers(0, 15)) == 0 else value
                 for value in good)


@settings(max_examples=300, deadline=None)
@given(load_addresses(), st.integers(0, 300))
def test_any_load_addresses(m, addresses, before):
    image = b"\x77" * (before & ~3) + header(1 << 16, addresses) + b"E" * 99
    load = Load(m, pc(4), image)
    if load.status:
        load.refusal()
        return
    event("loaded")
    header_addr, start, end, bss, entry = addresses
    skip = (before & ~3) - (header_addr - start)
    size = end - start if end else len(image) - skip
    assert load.guest.read(start, size) == image[skip:skip + size]
    check(load, [(start, max(start + size, bss))])
    assert load.entry.rip == entry


@pytest.mark.parametrize("at", range(2))
def test_memory_that_does_not_take_the_kernel_is_an_error(m, at):
    """What was checked as RAM has to be written, too; a guest that lacks a
    part of its kernel is not started."""
    load = Load(m, [Row(0, 0x9f000), Row(MIB, 8 * MIB)], simple())
    assert load.status == 0
    load.guest.list.regions[at].kind = m.REGION_HOLE
    assert m.loader_load(load.input, load.entry) == -m.EINVAL
    assert m.log_lines() == [
        (m.LOG_ERROR, "guest memory cannot be written by the loader")]
